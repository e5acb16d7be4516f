//! The hosts downstream, by their link-layer addresses.

use core::net::Ipv6Addr;

use super::question::{ANSWER_WINDOW, ASKS, Longest, Question};
use super::{CAPACITY, Evidence, Sender};
use crate::config::{Config, Port};
use crate::rate::Bucket;
use crate::table::{Key, Link, Table};
use crate::time::{Duration, Instant};
use crate::wire::MacAddress;

/// More than there can be subjects, so that a new host always finds one without any whose place it can take.
const HOST_CAPACITY: usize = CAPACITY + 256;

/// What is known of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host {
    /// Where it was heard last.
    pub port: Port,
    /// Where it can be asked.
    pub link_local: Option<Ipv6Addr>,
    pub last_heard: Instant,
    /// How many subjects are its.
    pub subjects: u16,
    /// Questions to the host since it last reported anything.
    pub unanswered: u8,
    /// It has answered a question.
    pub answered: bool,
    /// When it was asked last, and where.
    pub(super) asked: Option<Instant>,
    pub(super) asked_port: Port,
    /// When it is to be asked whatever its subjects say.
    pub(super) due: Option<Instant>,
    /// Its first subject.
    pub(super) first: Link,
}

impl Host {
    const VACANT: Host = Host {
        port: 0,
        link_local: None,
        last_heard: Instant::ZERO,
        subjects: 0,
        unanswered: 0,
        answered: false,
        asked: None,
        asked_port: 0,
        due: None,
        first: Link::END,
    };

    /// It was asked so lately, and where it is, that what it reports from there is the answer.
    pub(super) fn answers(&self, now: Instant, source: Ipv6Addr) -> bool {
        let lately = |asked| now.since(asked) < ANSWER_WINDOW;
        self.asked.is_some_and(lately)
            && self.asked_port == self.port
            && self.link_local == Some(source)
    }

    /// It left two rounds of questions unanswered.
    pub(super) fn never_answers(&self) -> bool {
        self.unanswered >= ASKS.saturating_mul(2)
    }
}

impl Key for MacAddress {
    fn bits(&self) -> u128 {
        let MacAddress([a, b, c, d, e, f]) = *self;
        u64::from_be_bytes([0, 0, a, b, c, d, e, f]).into()
    }
}

/// The hosts. Each has a number for as long as it is known.
pub(super) struct Hosts {
    table: Table<MacAddress, Host, HOST_CAPACITY>,
    newcomers: Bucket,
}

impl Hosts {
    pub(super) const fn new() -> Self {
        Hosts {
            table: Table::new(MacAddress([0; 6]), Host::VACANT),
            newcomers: Bucket::new(),
        }
    }

    pub(super) fn set_hash_key(&mut self, hash_key: [u8; 16]) {
        self.table.set_hash_key(hash_key);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (MacAddress, &Host)> {
        self.table.iter_from(0).map(|(_, mac, host)| (mac, host))
    }

    pub(super) fn find(&self, mac: MacAddress) -> Option<u16> {
        self.table
            .find(&mac)
            .and_then(|slot| u16::try_from(slot).ok())
    }

    pub(super) fn entry(&self, number: u16) -> Option<(MacAddress, &Host)> {
        self.table.get(number.into())
    }

    pub(super) fn get(&self, number: u16) -> Option<&Host> {
        self.entry(number).map(|(_, host)| host)
    }

    pub(super) fn entry_mut(&mut self, number: u16) -> Option<(MacAddress, &mut Host)> {
        self.table.get_mut(number.into())
    }

    pub(super) fn get_mut(&mut self, number: u16) -> Option<&mut Host> {
        self.entry_mut(number).map(|(_, host)| host)
    }

    /// Adds a host; its number. None where there are more new ones at once than are allowed, or too many.
    pub(super) fn insert(
        &mut self,
        now: Instant,
        config: &Config,
        sender: Sender,
        evidence: Evidence,
    ) -> Option<u16> {
        if evidence == Evidence::Heard
            && !self
                .newcomers
                .take(now, config.join_rate, config.join_burst)
        {
            return None;
        }
        if self.table.len() >= HOST_CAPACITY {
            let without_subjects = self
                .table
                .iter_from(0)
                .filter(|(_, _, host)| host.subjects == 0);
            let (slot, _, _) = without_subjects.min_by_key(|(_, _, host)| host.last_heard)?;
            self.table.remove(slot);
        }
        let host = Host {
            port: sender.port,
            ..Host::VACANT
        };
        let slot = self.table.insert(sender.mac, host).ok()?;
        u16::try_from(slot).ok()
    }

    /// Asks every host on these ports that can be asked; is there one?
    pub(super) fn ask_all(&mut self, now: Instant, on: impl Fn(Port) -> bool) -> bool {
        let mut any = false;
        for slot in self.table.slots() {
            if let Some((_, host)) = self.table.get_mut(slot).filter(|(_, host)| on(host.port)) {
                host.unanswered = 0;
                host.asked = None;
                host.due = host.link_local.map(|_| now);
                any |= host.due.is_some();
            }
        }
        any
    }

    /// Offers the questions to hosts that are due; tells `wait_until` of those that are not yet.
    pub(super) fn offer_questions(
        &self,
        now: Instant,
        can_send: impl Fn(Port) -> bool,
        questions: &mut Longest,
        mut wait_until: impl FnMut(Instant),
    ) {
        for (slot, mac, host) in self.table.iter_from(0) {
            let (Some(due), Some(link_local), Ok(number), true) = (
                host.due,
                host.link_local,
                u16::try_from(slot),
                can_send(host.port),
            ) else {
                continue;
            };
            if due > now {
                wait_until(due);
                continue;
            }
            let question = Question::Ask {
                port: host.port,
                mac,
                link_local,
                host: number,
            };
            questions.offer(due, question);
        }
    }

    /// Forgets hosts without subjects that were not heard for `timeout`.
    pub(super) fn expire(&mut self, now: Instant, timeout: Duration) {
        for slot in self.table.slots() {
            if let Some((_, host)) = self.table.get(slot)
                && host.subjects == 0
                && now.since(host.last_heard) >= timeout
            {
                self.table.remove(slot);
            }
        }
    }
}
