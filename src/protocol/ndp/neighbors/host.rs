//! The hosts downstream. A host is a link-layer address on a link.
//!
//! The same link-layer address on two links may be one machine that moved, one machine with an
//! interface on each, or two machines. So a packet heard on one link says nothing of the host on
//! the other.

use core::net::Ipv6Addr;
use core::ops::Range;

use super::belonging::{CANDIDATES, FAIR_SHARE};
use super::question::{ANSWER_WINDOW, ASKS, Question};
use super::{CAPACITY, Sender};
use crate::config::Config;
use crate::link::Port;
use crate::tables::deadlines::Deadlines;
use crate::tables::pending::SlotSet;
use crate::tables::rate::Bucket;
use crate::tables::table::{Key, Next, Table};
use crate::time::{Duration, Instant};
use crate::wire::MacAddress;

/// The most hosts kept. They are more than there can be neighbors, so a full table has hosts
/// without any, which may give way to a new host.
const HOST_CAPACITY: usize = CAPACITY + 256;

/// What is known of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host {
    /// The address to which questions go; `None` until the host was heard from one.
    pub link_local: Option<Ipv6Addr>,
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
    /// When the host was asked last.
    pub(super) asked: Option<Instant>,
    /// The first in the list of its neighbors.
    pub(super) first: Next,
}

impl Host {
    /// A host that was not heard yet.
    fn new() -> Self {
        Host {
            link_local: None,
            last_heard: Instant::ZERO,
            neighbors: 0,
            listeners: 0,
            strangers: 0,
            unanswered: 0,
            answered: false,
            asked: None,
            first: Next::END,
        }
    }

    /// Does a report from `source` answer a question? It does within [`ANSWER_WINDOW`], if the
    /// question went to that address.
    pub(super) fn answers(&self, now: Instant, source: Ipv6Addr) -> bool {
        let lately = |asked| now.since(asked) < ANSWER_WINDOW;
        self.asked.is_some_and(lately) && self.link_local == Some(source)
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
    due: Deadlines<HOST_CAPACITY>,
    greedy: Deadlines<HOST_CAPACITY>,
}

impl Storage {
    pub(super) const fn new() -> Self {
        Storage {
            table: Table::new(),
            due: Deadlines::new(),
            greedy: Deadlines::new(),
        }
    }
}

/// The hosts. Each has a number for as long as it is known.
pub(super) struct Hosts<'t> {
    table: &'t mut Table<Sender, Host, HOST_CAPACITY>,
    /// When each host is to be asked on its own account, not for one of its neighbors.
    due: &'t mut Deadlines<HOST_CAPACITY>,
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
        let Storage { table, due, greedy } = storage;
        table.begin(hash_key);
        due.clear();
        greedy.clear();
        Hosts {
            table,
            due,
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
        self.table.get_mut(number.into()).map(|(_, host)| host)
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
            let is_silent = self.due.get(slot).is_none() || host.unanswered > 0;
            if is_silent && longest.is_none_or(|longest| candidate < longest) {
                longest = Some(candidate);
            }
        }
        self.hand = hand;
        longest.map(|(_, slot)| slot)
    }

    fn remove(&mut self, slot: usize) {
        self.idle.remove(slot);
        self.due.remove(slot);
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

    /// Is a host to be asked on its own account?
    pub(super) fn is_due(&self, number: u16) -> bool {
        self.due.get(number.into()).is_some()
    }

    /// Has a host asked at `due` on its own account.
    pub(super) fn ask_at(&mut self, number: u16, due: Instant) {
        self.due.set(number.into(), due);
    }

    /// Has a host asked only for its neighbors from now on.
    pub(super) fn ask_no_more(&mut self, number: u16) {
        self.due.remove(number.into());
    }

    /// When the next host is to be asked on its own account; `None` if none is.
    pub(super) fn next_question(&self) -> Option<Instant> {
        self.due.first().map(|(_, due)| due)
    }

    /// The question to a host on its own account that has been due longest, and since when. Drops
    /// the questions to hosts that cannot be asked: once a link is back, all hosts on it are asked.
    pub(super) fn due_question(
        &mut self,
        now: Instant,
        can_send: impl Fn(Port) -> bool,
    ) -> Option<(Instant, Question)> {
        while let Some(slot) = self.due.first_due(now) {
            if let Some((sender, host)) = self.table.get(slot)
                && let Some(link_local) = host.link_local
                && can_send(sender.port)
            {
                let question = Question::Ask {
                    port: sender.port,
                    mac: sender.mac,
                    link_local,
                    host: u16::try_from(slot).ok()?,
                };
                return Some((self.due.get(slot)?, question));
            }
            self.due.remove(slot);
        }
        None
    }

    /// All slots that may hold a host.
    pub(super) fn slots(&self) -> Range<usize> {
        self.table.slots()
    }

    /// Asks every host on these ports that has a link-local address.
    pub(super) fn ask_all(&mut self, now: Instant, on: impl Fn(Port) -> bool) {
        for slot in self.table.slots() {
            let host = self.table.get_mut(slot);
            let Some((_, host)) = host.filter(|(sender, _)| on(sender.port)) else {
                continue;
            };
            host.unanswered = 0;
            host.asked = None;
            if host.link_local.is_some() {
                self.due.set(slot, now);
            } else {
                self.due.remove(slot);
            }
        }
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
