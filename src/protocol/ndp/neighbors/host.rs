//! The hosts downstream: a host is a link-layer address on a link. One link-layer address on two links may be one machine that moved,
//! one with an interface on each, or two machines, so what is heard on one link says nothing of the other.

use core::net::Ipv6Addr;

use super::question::{ANSWER_WINDOW, ASKS, Longest, Question};
use super::{CAPACITY, Sender};
use crate::config::Config;
use crate::link::Port;
use crate::tables::rate::Bucket;
use crate::tables::table::{Key, Next, Table};
use crate::time::{Duration, Instant};
use crate::wire::MacAddress;

/// More than there can be subjects, so that a new host always finds one without any whose place it can take.
const HOST_CAPACITY: usize = CAPACITY + 256;

/// What is known of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host {
    /// Where it can be asked.
    pub link_local: Option<Ipv6Addr>,
    pub last_heard: Instant,
    /// How many subjects are its, and how many of these are listeners.
    pub subjects: u16,
    pub listeners: u16,
    /// Questions to the host since it last reported anything.
    pub unanswered: u8,
    /// It has answered a question.
    pub answered: bool,
    /// When it was asked last.
    pub(super) asked: Option<Instant>,
    /// When it is to be asked whatever its subjects say.
    pub(super) due: Option<Instant>,
    /// Its first subject.
    pub(super) first: Next,
}

impl Host {
    const VACANT: Host = Host {
        link_local: None,
        last_heard: Instant::ZERO,
        subjects: 0,
        listeners: 0,
        unanswered: 0,
        answered: false,
        asked: None,
        due: None,
        first: Next::END,
    };

    /// It was asked so lately that what it reports from where it was asked is the answer.
    pub(super) fn answers(&self, now: Instant, source: Ipv6Addr) -> bool {
        let lately = |asked| now.since(asked) < ANSWER_WINDOW;
        self.asked.is_some_and(lately) && self.link_local == Some(source)
    }

    /// How many of its subjects are addresses.
    pub(super) fn addresses(&self) -> u16 {
        self.subjects.saturating_sub(self.listeners)
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
pub(super) type Storage = Table<Sender, Host, HOST_CAPACITY>;

/// The hosts. Each has a number for as long as it is known.
pub(super) struct Hosts<'t> {
    table: &'t mut Storage,
    /// For new ones that take the place of others.
    newcomers: Bucket,
}

impl<'t> Hosts<'t> {
    pub(super) fn new(table: &'t mut Storage, hash_key: [u8; 16]) -> Self {
        table.begin(hash_key);
        Hosts {
            table,
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

    /// Adds a host; its number. Where there are as many as can be, it takes the place of one without subjects, if it may, and at a
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
            // Nobody gives way before being asked.
            let is_silent = |host: &Host| host.due.is_none() || host.unanswered > 0;
            let useless = self
                .table
                .iter_from(0)
                .filter(|(_, _, host)| host.subjects == 0 && is_silent(host));
            let (slot, _, _) = useless.min_by_key(|(_, _, host)| host.last_heard)?;
            self.table.remove(slot);
        }
        let slot = self.table.insert(sender, Host::VACANT).ok()?;
        u16::try_from(slot).ok()
    }

    /// Asks every host on these ports that can be asked; is there one?
    pub(super) fn ask_all(&mut self, now: Instant, on: impl Fn(Port) -> bool) -> bool {
        let mut any = false;
        for slot in self.table.slots() {
            let host = self.table.get_mut(slot);
            if let Some((_, host)) = host.filter(|(sender, _)| on(sender.port)) {
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
        for (slot, sender, host) in self.table.iter_from(0) {
            let (Some(due), Some(link_local), Ok(number), true) = (
                host.due,
                host.link_local,
                u16::try_from(slot),
                can_send(sender.port),
            ) else {
                continue;
            };
            if due > now {
                wait_until(due);
                continue;
            }
            let question = Question::Ask {
                port: sender.port,
                mac: sender.mac,
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
