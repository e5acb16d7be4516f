//! The hosts downstream. A host is a link-layer address on a link.
//!
//! The same link-layer address on two links may be one machine that moved, one machine with an
//! interface on each, or two machines. So a packet heard on one link says nothing of the host on
//! the other.

use core::net::Ipv6Addr;
use core::num::NonZeroU64;
use core::ops::Range;

use super::belonging::{CANDIDATES, FAIR_SHARE};
use super::question::{
    ANSWER_WINDOW, ASK_INTERVAL, ASK_RESPONSE_DELAY, ASKS, Question, SILENCE, Turn,
};
use super::{Answers, CAPACITY, Sender};
use crate::config::Config;
use crate::tables::deadlines::Deadlines;
use crate::tables::pending::SlotSet;
use crate::tables::rate::Bucket;
use crate::tables::table::{Key, Next, Table};
use crate::time::{Duration, Instant};
use crate::wire::MacAddress;

/// The most hosts kept. They are more than there can be neighbors, so a full table has hosts
/// without any, which may give way to a new host.
pub(super) const HOST_CAPACITY: usize = CAPACITY + 256;

/// From one new neighbor that displaces another, or one claim to an address of somebody else, to
/// the next of the same host. As many as the host may have addresses come at once.
const NEWS_INTERVAL: Duration = Duration::from_millis(500);

/// A link-local address in `fe80::/64`. Its interface identifier, which is not all ones, is kept
/// inverted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkLocal(NonZeroU64);

impl LinkLocal {
    const PREFIX: u64 = 0xfe80 << 48;

    /// `None` if the address is not one.
    pub fn new(address: Ipv6Addr) -> Option<Self> {
        let [prefix, identifier] = halves(address);
        let inverted = NonZeroU64::new(!identifier)?;
        (prefix == Self::PREFIX).then_some(LinkLocal(inverted))
    }

    pub fn address(self) -> Ipv6Addr {
        let LinkLocal(inverted) = self;
        let identifier = !inverted.get();
        Ipv6Addr::from_bits(u128::from(Self::PREFIX) << 64 | u128::from(identifier))
    }
}

/// The upper and the lower half of an address.
fn halves(address: Ipv6Addr) -> [u64; 2] {
    let bits = address.to_bits();
    [(bits >> 64) as u64, bits as u64]
}

/// What is known of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host {
    /// The address to which questions go; `None` until the host was heard from one.
    pub link_local: Option<LinkLocal>,
    /// Another address that the host was heard from while it left questions unanswered. It becomes
    /// the host's by an answer to a question that went there.
    candidate: Option<LinkLocal>,
    pub last_heard: Instant,
    /// How many neighbors belong to the host.
    pub neighbors: u16,
    /// How many of these are listeners.
    pub listeners: u16,
    /// How many of these neighbors are unconfirmed.
    pub(super) strangers: u16,
    /// How many questions the host was sent since its last MLD report.
    pub unanswered: u8,
    /// The host has answered a question.
    pub answered: bool,
    /// The host was heard, and is not only remembered by the kernel.
    pub(super) is_heard: bool,
    /// A whole round of questions for one of its neighbors was in vain, and nothing was heard of
    /// the host since.
    pub(super) is_silent: bool,
    /// The last question went to the candidate.
    asked_candidate: bool,
    /// When the host was asked last.
    pub(super) asked: Option<Instant>,
    /// Until when a report answers that question.
    answer_until: Instant,
    /// When the host is to be asked on its own account, not for one of its neighbors.
    pub(super) due: Option<Instant>,
    /// When the host's bucket of news will be full again.
    news: Instant,
    /// The first in the list of its neighbors.
    pub(super) first: Next,
}

impl Host {
    /// A host that was not heard yet.
    fn new() -> Self {
        Host {
            link_local: None,
            candidate: None,
            last_heard: Instant::ZERO,
            neighbors: 0,
            listeners: 0,
            strangers: 0,
            unanswered: 0,
            answered: false,
            is_heard: false,
            is_silent: false,
            asked_candidate: false,
            asked: None,
            answer_until: Instant::ZERO,
            due: None,
            news: Instant::ZERO,
            first: Next::END,
        }
    }

    /// The turn that a question for the host waits for, or one for a neighbor of it.
    #[inline]
    pub(super) fn turn(&self, is_confirmed: bool) -> Turn {
        if self.is_heard && !is_confirmed {
            Turn::Newcomers
        } else {
            Turn::Known
        }
    }

    /// Notes the source of a packet. Any node can send from another address in the host's name, so
    /// the first one stays while the host answers there. Another one is tried.
    pub(super) fn heard_from(&mut self, source: LinkLocal) {
        if self.link_local.is_none() {
            self.link_local = Some(source);
        } else if self.unanswered > 0 && self.link_local != Some(source) {
            self.candidate = Some(source);
        }
    }

    /// The query to the host: first to its address, and then to the candidate if there is one.
    pub(super) fn question(&self, sender: Sender, number: u16) -> Option<Question> {
        let candidate = self.candidate.filter(|_| self.asks_candidate());
        let Sender { port, mac } = sender;
        Some(Question::Ask {
            port,
            mac,
            link_local: candidate.or(self.link_local)?.address(),
            host: number,
        })
    }

    fn asks_candidate(&self) -> bool {
        self.candidate.is_some() && self.unanswered % 2 == 1
    }

    /// Notes that the query was sent.
    pub(super) fn asked(&mut self, now: Instant) {
        self.asked_candidate = self.asks_candidate();
        self.asked = Some(now);
        self.answer_until = now.saturating_add(ANSWER_WINDOW);
        self.unanswered = self.unanswered.saturating_add(1);
        let is_asked_again = self.unanswered < ASKS;
        self.due = is_asked_again.then(|| now.saturating_add(ASK_INTERVAL));
    }

    /// Notes a report from `source`. It answers the query to the host if that went to this address,
    /// within [`ANSWER_WINDOW`] of it, and for as long as the host may delay the rest of its answer
    /// after the first part. From the host's address, it answers those for groups.
    pub(super) fn reported(&mut self, now: Instant, source: Ipv6Addr) -> Answers {
        let Some(source) = LinkLocal::new(source) else {
            return Answers::Nothing;
        };
        let is_known = self.link_local == Some(source);
        let is_asked = if self.asked_candidate {
            self.candidate == Some(source)
        } else {
            is_known
        };
        let answers = if is_asked && now < self.answer_until {
            Answers::OfHost
        } else if is_known {
            Answers::OfGroups
        } else {
            Answers::Nothing
        };
        if answers == Answers::OfHost {
            self.link_local = Some(source);
            self.asked_candidate = false;
            let rest = now.saturating_add(ASK_RESPONSE_DELAY);
            self.answer_until = self.answer_until.min(rest);
            self.answered = true;
            self.due = None;
        }
        if self.link_local == Some(source) {
            // A host that sends reports answers questions, though perhaps not this one.
            self.unanswered = 0;
            self.candidate = None;
        }
        answers
    }

    /// Does the host leave all questions unanswered, once a round for a neighbor was in vain?
    pub(super) fn leaves_unanswered(&self, now: Instant, config: &Config) -> bool {
        let is_asked = config.ask && self.link_local.is_some();
        let is_silent = now.since(self.last_heard) >= SILENCE;
        is_silent && (self.unanswered >= ASKS || !is_asked)
    }

    /// Has the host asked as if it had not been asked before.
    pub(super) fn forget_questions(&mut self) {
        self.unanswered = 0;
        self.asked = None;
        self.is_silent = false;
    }

    /// Is there a token for a new neighbor that displaces another, or for a claim?
    pub(super) fn has_token(&self, now: Instant, config: &Config) -> bool {
        let burst = u32::from(config.per_mac);
        let most = NEWS_INTERVAL.saturating_mul(burst.saturating_sub(1));
        self.news.since(now) <= most
    }

    pub(super) fn take_token(&mut self, now: Instant) {
        self.news = self.news.max(now).saturating_add(NEWS_INTERVAL);
    }

    /// How many of the host's neighbors are addresses.
    pub(super) fn addresses(&self) -> u16 {
        self.neighbors.saturating_sub(self.listeners)
    }

    /// Has the host left two rounds of questions unanswered?
    pub(super) fn never_answers(&self) -> bool {
        self.unanswered >= ASKS.saturating_mul(2)
    }
}

impl Key for Sender {
    fn bits(&self) -> u128 {
        let MacAddress([a, b, c, d, e, f]) = self.mac;
        u64::from_be_bytes([0, self.port, a, b, c, d, e, f]).into()
    }
}

/// What [`Hosts`] are kept in.
pub(super) struct Storage {
    table: Table<Sender, Host, HOST_CAPACITY>,
    greedy: Deadlines<HOST_CAPACITY>,
}

impl Storage {
    pub(super) const fn new() -> Self {
        Storage {
            table: Table::new(),
            greedy: Deadlines::new(),
        }
    }
}

/// The hosts. Each has a number for as long as it is known.
pub(super) struct Hosts<'t> {
    table: &'t mut Table<Sender, Host, HOST_CAPACITY>,
    /// The hosts that hold more than [`FAIR_SHARE`], some of it unconfirmed. The host that holds
    /// most comes first.
    greedy: &'t mut Deadlines<HOST_CAPACITY>,
    /// Slots of the hosts without neighbors.
    idle: SlotSet<{ HOST_CAPACITY / 32 }>,
    /// The slot where the next search for a host to displace starts.
    hand: usize,
    /// Limits how fast new hosts displace others.
    newcomers: Bucket,
}

impl<'t> Hosts<'t> {
    pub(super) fn new(storage: &'t mut Storage, hash_key: [u8; 16]) -> Self {
        let Storage { table, greedy } = storage;
        table.begin(hash_key);
        greedy.clear();
        Hosts {
            table,
            greedy,
            idle: SlotSet::new(),
            hand: 0,
            newcomers: Bucket::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Sender, &Host)> {
        let hosts = self.table.iter_from(0);
        hosts.map(|(_, sender, host)| (sender, host))
    }

    pub(super) fn find(&self, sender: Sender) -> Option<u16> {
        self.table
            .find(&sender)
            .and_then(|slot| u16::try_from(slot).ok())
    }

    pub(super) fn entry(&self, number: u16) -> Option<(Sender, &Host)> {
        self.table.get(number.into())
    }

    pub(super) fn get(&self, number: u16) -> Option<&Host> {
        self.entry(number).map(|(_, host)| host)
    }

    pub(super) fn get_mut(&mut self, number: u16) -> Option<&mut Host> {
        self.entry_mut(number).map(|(_, host)| host)
    }

    pub(super) fn entry_mut(&mut self, number: u16) -> Option<(Sender, &mut Host)> {
        self.table.get_mut(number.into())
    }

    /// Adds a host and returns its number. In a full table, a host that `may_displace` displaces
    /// one without neighbors, at a limited rate. `None` if there is no place for the host now.
    pub(super) fn insert(
        &mut self,
        now: Instant,
        config: &Config,
        sender: Sender,
        may_displace: bool,
    ) -> Option<u16> {
        if self.table.len() >= HOST_CAPACITY {
            if !may_displace
                || !self
                    .newcomers
                    .take(now, config.join_rate, config.join_burst)
            {
                return None;
            }
            let slot = self.useless()?;
            self.remove(slot);
        }
        let slot = self.table.insert(sender, Host::new()).ok()?;
        self.idle.insert(slot);
        u16::try_from(slot).ok()
    }

    /// The slot of a host without neighbors that gives way. Of [`CANDIDATES`] that each call looks
    /// at in turn, it is the one heard longest ago. No host gives way before it is asked.
    fn useless(&mut self) -> Option<usize> {
        let mut longest = None;
        let mut hand = self.hand;
        for slot in self.idle.iter_around(self.hand).take(CANDIDATES) {
            hand = slot.saturating_add(1);
            let Some((_, host)) = self.table.get(slot) else {
                continue;
            };
            let candidate = (host.last_heard, slot);
            let is_silent = host.due.is_none() || host.unanswered > 0;
            if is_silent && longest.is_none_or(|longest| candidate < longest) {
                longest = Some(candidate);
            }
        }
        self.hand = hand;
        longest.map(|(_, slot)| slot)
    }

    fn remove(&mut self, slot: usize) {
        self.idle.remove(slot);
        self.greedy.remove(slot);
        self.table.remove(slot);
    }

    /// Notes that the neighbors of a host have changed.
    pub(super) fn note_neighbors(&mut self, number: u16) {
        let Some(&Host {
            neighbors,
            strangers,
            ..
        }) = self.get(number)
        else {
            return;
        };
        let slot = usize::from(number);
        self.idle.set(slot, neighbors == 0);
        if neighbors > FAIR_SHARE && strangers > 0 {
            let rank = u16::MAX.saturating_sub(neighbors);
            self.greedy.set(slot, Instant::from_millis(rank.into()));
        } else {
            self.greedy.remove(slot);
        }
    }

    /// The host that holds most, of those that hold more than [`FAIR_SHARE`], some of it
    /// unconfirmed.
    pub(super) fn greediest(&self) -> Option<u16> {
        let (slot, _) = self.greedy.first()?;
        u16::try_from(slot).ok()
    }

    /// All slots that may hold a host.
    pub(super) fn slots(&self) -> Range<usize> {
        self.table.slots()
    }

    /// Removes the host at a slot, if it has no neighbors and was not heard for `timeout`.
    pub(super) fn expire(&mut self, now: Instant, slot: usize, timeout: Duration) {
        if let Some((_, host)) = self.table.get(slot)
            && host.neighbors == 0
            && now.since(host.last_heard) >= timeout
        {
            self.remove(slot);
        }
    }
}
