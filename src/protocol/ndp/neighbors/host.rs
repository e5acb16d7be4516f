//! The hosts downstream: a host is a link-layer address on a link. One link-layer address on two links may be one machine that moved,
//! one with an interface on each, or two machines, so what is heard on one link says nothing of the other.

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

/// More than there can be neighbors, so that a new host always finds one without any whose place it can take.
const HOST_CAPACITY: usize = CAPACITY + 256;

/// What is known of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host {
    /// Where it can be asked.
    pub link_local: Option<Ipv6Addr>,
    pub last_heard: Instant,
    /// How many neighbors are its, how many of these are listeners, and how many unconfirmed.
    pub neighbors: u16,
    pub listeners: u16,
    pub(super) strangers: u16,
    /// Questions to the host since it last reported anything.
    pub unanswered: u8,
    /// It has answered a question.
    pub answered: bool,
    /// When it was asked last.
    pub(super) asked: Option<Instant>,
    /// Its first neighbor.
    pub(super) first: Next,
}

impl Host {
    const VACANT: Host = Host {
        link_local: None,
        last_heard: Instant::ZERO,
        neighbors: 0,
        listeners: 0,
        strangers: 0,
        unanswered: 0,
        answered: false,
        asked: None,
        first: Next::END,
    };

    /// It was asked so lately that what it reports from where it was asked is the answer.
    pub(super) fn answers(&self, now: Instant, source: Ipv6Addr) -> bool {
        let lately = |asked| now.since(asked) < ANSWER_WINDOW;
        self.asked.is_some_and(lately) && self.link_local == Some(source)
    }

    /// How many of its neighbors are addresses.
    pub(super) fn addresses(&self) -> u16 {
        self.neighbors.saturating_sub(self.listeners)
    }

    /// It left two rounds of questions unanswered.
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
    /// When each is to be asked whatever its neighbors say.
    due: &'t mut Deadlines<HOST_CAPACITY>,
    /// Those that hold more than [`FAIR_SHARE`], some of it unconfirmed: who holds most comes first.
    greedy: &'t mut Deadlines<HOST_CAPACITY>,
    /// Those without neighbors.
    idle: SlotSet<{ HOST_CAPACITY / 32 }>,
    /// From which on one is looked for that gives way.
    hand: usize,
    /// For new ones that take the place of others.
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

    /// Adds a host; its number. Where there are as many as can be, it takes the place of one without neighbors, if it may, and at a
    /// limited rate. `None` where there is no place for it now.
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
        let slot = self.table.insert(sender, Host::VACANT).ok()?;
        self.idle.insert(slot);
        u16::try_from(slot).ok()
    }

    /// One without neighbors that gives way, heard longest ago of so many that are looked at. Nobody
    /// gives way before being asked.
    fn useless(&mut self) -> Option<usize> {
        let mut longest = None;
        let mut hand = self.hand;
        let ahead = self.idle.iter_from(self.hand);
        let behind = self.idle.iter_from(0).take_while(|slot| *slot < self.hand);
        for slot in ahead.chain(behind).take(CANDIDATES) {
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

    /// What a host holds has changed.
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
        if neighbors == 0 {
            self.idle.insert(slot);
        } else {
            self.idle.remove(slot);
        }
        if neighbors > FAIR_SHARE && strangers > 0 {
            let rank = u16::MAX.saturating_sub(neighbors);
            self.greedy.set(slot, Instant::from_millis(rank.into()));
        } else {
            self.greedy.remove(slot);
        }
    }

    /// Of the hosts that hold more than [`FAIR_SHARE`], some of it unconfirmed, the one that holds
    /// most.
    pub(super) fn greediest(&self) -> Option<u16> {
        let (slot, _) = self.greedy.first()?;
        u16::try_from(slot).ok()
    }

    /// Is a host to be asked, whatever its neighbors say?
    pub(super) fn is_due(&self, number: u16) -> bool {
        self.due.get(number.into()).is_some()
    }

    /// A host is to be asked then, whatever its neighbors say.
    pub(super) fn ask_at(&mut self, number: u16, due: Instant) {
        self.due.set(number.into(), due);
    }

    /// A host need not be asked but for its neighbors.
    pub(super) fn ask_no_more(&mut self, number: u16) {
        self.due.remove(number.into());
    }

    /// No host is to be asked before.
    pub(super) fn next_question(&self) -> Option<Instant> {
        self.due.first().map(|(_, due)| due)
    }

    /// The question to a host that has been due longest, and since when. One to which nothing can be
    /// sent is asked no more: once its link is back, all are.
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

    /// Asks every host on these ports that can be asked.
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

    /// Forgets the host at a slot, if it has no neighbors and was not heard for `timeout`.
    pub(super) fn expire(&mut self, now: Instant, slot: usize, timeout: Duration) {
        if let Some((_, host)) = self.table.get(slot)
            && host.neighbors == 0
            && now.since(host.last_heard) >= timeout
        {
            self.remove(slot);
        }
    }
}
