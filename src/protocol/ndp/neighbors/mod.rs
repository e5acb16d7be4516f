//! What was seen downstream: addresses and listeners, whose they are, when they were seen last, and how their hosts are asked.
//!
//! A host is known by its link and its link-layer address there. Some time before an address times out, and at once where only the
//! kernel or a stranger's word speaks for it, a host is asked which groups it listens to: by an MLDv2 General Query to its link-local
//! address, which every node answers (RFC 3810 §5.1.15, §6.2) and which makes nobody a querier. One that does not answer is probed
//! for each address, by the unicast solicitations of RFC 4861 §7.3.3. Where these are in vain too, the address is resolved anew, by
//! multicast solicitations on its link and on that of the last host that claimed it: another host may have it by now. An answer renews
//! and confirms; silence lets expire.
//!
//! What there is room for is taken in at once. What has to take another's place is taken in at a limited rate.

mod belonging;
mod host;
mod latecomers;
mod neighbor;
mod question;
mod silent;
mod sweep;

use core::net::Ipv6Addr;

use crate::config::Config;
use crate::link::Port;
use crate::tables::pending::SlotSet;
use crate::tables::rate::Bucket;
use crate::tables::table::Next;
use crate::tables::table::{Key, Table};
use crate::time::Instant;
use crate::wire::{MacAddress, SolicitedNode};

pub use host::Host;
pub use neighbor::{Neighbor, Standing, Step};
pub use question::{
    ASK_QUERY_INTERVAL, ASK_RESPONSE_DELAY, ASK_ROBUSTNESS, ASKS, PROBES, Question, RESOLUTIONS,
};

use belonging::Claim;
use host::Hosts;
use latecomers::Latecomers;
use question::Questions;
use silent::Silent;
use sweep::Sweep;

/// The most addresses and listeners kept.
pub const CAPACITY: usize = 4096;

/// A neighbor's identity: what makes its group wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// An address.
    Address(Ipv6Addr),
    /// A host that reports the group by MLD, while none of its addresses in it is known. The number is the host's.
    Listener(SolicitedNode, u16),
}

impl Identity {
    pub fn group(self) -> SolicitedNode {
        match self {
            Identity::Address(address) => SolicitedNode::of(address),
            Identity::Listener(group, _) => group,
        }
    }
}

impl Key for Identity {
    fn bits(&self) -> u128 {
        match self {
            Identity::Address(address) => address.bits(),
            // Nobody's address: the group's, with the number in a field that is 0.
            Identity::Listener(group, host) => group.bits() | u128::from(*host) << 64,
        }
    }
}

/// Who was heard, and where: what a host is known by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sender {
    pub port: Port,
    /// All zero on links without link-layer addresses, where all that is heard is one host's.
    pub mac: MacAddress,
}

impl Sender {
    /// Does the link have link-layer addresses?
    pub(crate) fn has_mac(self) -> bool {
        self.mac != MacAddress([0; 6])
    }
}

/// How good the evidence is that a neighbor is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// The kernel knew it before the start.
    Remembered,
    /// A packet said so.
    Heard,
    /// An advertisement to this router said so, as one does that answers a solicitation.
    Advertised,
    /// Its host said so when asked.
    Answered,
}

/// A neighbor that was seen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) identity: Identity,
    /// The number of the host that claims it.
    pub(crate) number: u16,
    pub(crate) evidence: Evidence,
}

/// What a sighting was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sighting {
    /// It was not known. Is it an address that was known by a listener, whose place it took?
    New { was_listener: bool },
    /// It was known, and is now good for another timeout.
    Renewed,
}

/// What is known of a host in a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    Nothing,
    /// That it listens.
    Listener,
    /// An address.
    Address,
}

/// Why a neighbor was not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Its host has as many as it may.
    HostQuota,
    /// More new ones at once than are allowed.
    Rate,
    /// The table is full of confirmed ones.
    Full,
}

/// What [`Neighbors`] are kept in.
pub struct Storage {
    table: Table<Identity, Neighbor, CAPACITY>,
    questions: question::Storage,
    silent: silent::Storage,
    hosts: host::Storage,
    latecomers: latecomers::Storage,
}

impl Storage {
    pub(crate) const fn new() -> Self {
        Storage {
            table: Table::new(),
            questions: question::Storage::new(),
            silent: silent::Storage::new(),
            hosts: host::Storage::new(),
            latecomers: latecomers::Storage::new(),
        }
    }
}

/// The neighbors, at most [`CAPACITY`], and their hosts.
pub struct Neighbors<'t> {
    table: &'t mut Table<Identity, Neighbor, CAPACITY>,
    hosts: Hosts<'t>,
    /// For new neighbors that take the place of others, of any host and of hosts that answer.
    newcomers: Bucket,
    residents: Bucket,
    latecomers: Latecomers<'t>,
    /// The unconfirmed ones.
    strangers: SlotSet<{ CAPACITY / 32 }>,
    /// From which on one is looked for that gives way.
    hand: usize,
    silent: Silent<'t>,
    sweep: Sweep,
    questions: Questions<'t>,
    /// Those that were confirmed, or are so no longer, or moved.
    changed: SlotSet<{ CAPACITY / 32 }>,
}

impl<'t> Neighbors<'t> {
    /// No neighbors, in a storage whose hashes get a key.
    pub(crate) fn new(storage: &'t mut Storage, hash_key: [u8; 16]) -> Self {
        let Storage {
            table,
            questions,
            silent,
            hosts,
            latecomers,
        } = storage;
        table.begin(hash_key);
        Neighbors {
            table,
            hosts: Hosts::new(hosts, hash_key),
            newcomers: Bucket::new(),
            residents: Bucket::new(),
            latecomers: Latecomers::new(latecomers),
            strangers: SlotSet::new(),
            hand: 0,
            silent: Silent::new(silent),
            sweep: Sweep::new(),
            questions: Questions::new(questions),
            changed: SlotSet::new(),
        }
    }

    pub fn len(&self) -> usize {
        self.table.len()
    }

    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    pub fn get(&self, identity: Identity) -> Option<&Neighbor> {
        let (_, neighbor) = self.table.get(self.table.find(&identity)?)?;
        Some(neighbor)
    }

    pub fn iter(&self) -> impl Iterator<Item = (Identity, &Neighbor)> {
        let neighbors = self.iter_from(0);
        neighbors.map(|(_, identity, neighbor)| (identity, neighbor))
    }

    /// Those from a slot on, each with its own. One keeps its slot for as long as it is known.
    pub fn iter_from(&self, first: usize) -> impl Iterator<Item = (usize, Identity, &Neighbor)> {
        self.table.iter_from(first)
    }

    /// Whose it is.
    pub fn host_of(&self, neighbor: &Neighbor) -> Option<(Sender, &Host)> {
        self.hosts.entry(neighbor.host)
    }

    pub fn hosts(&self) -> impl Iterator<Item = (Sender, &Host)> {
        self.hosts.iter()
    }

    /// The next neighbor that changed, and the downstream where it is, if confirmed. Those that were removed are not among them.
    pub(crate) fn next_changed(&mut self) -> Option<(Identity, Option<Port>)> {
        while let Some(slot) = self.changed.take_first() {
            if let Some((identity, neighbor)) = self.table.get(slot) {
                let host = self.hosts.entry(neighbor.host);
                let port = host.map(|(sender, _)| sender.port);
                return Some((identity, port.filter(|_| neighbor.is_confirmed())));
            }
        }
        None
    }

    /// Makes a neighbor one that changed, if it is known.
    pub(crate) fn tell_again(&mut self, identity: Identity) {
        if let Some(slot) = self.table.find(&identity) {
            self.changed.insert(slot);
        }
    }

    /// A host was heard; with a link-local source it can be asked. Its number; none where there are too many hosts.
    pub(crate) fn heard(
        &mut self,
        now: Instant,
        config: &Config,
        sender: Sender,
        link_local: Option<Ipv6Addr>,
        evidence: Evidence,
    ) -> Option<u16> {
        let number = match self.hosts.find(sender) {
            Some(number) => number,
            None => {
                let may_displace =
                    evidence != Evidence::Remembered && !self.latecomers.come_first();
                self.hosts.insert(now, config, sender, may_displace)?
            }
        };
        // Before its host is borrowed, and only for who can be asked, since it is not for nothing.
        let again = link_local.map(|_| self.question_delay(config));
        let host = self.hosts.get_mut(number)?;
        host.last_heard = now;
        if let Some(again) = again {
            // One that answers keeps its address, for anybody can send from another one in its name.
            if host.link_local.is_none() || host.unanswered > 0 {
                host.link_local = link_local;
            }
            // One with addresses is asked when they are due. One without may have some that were never heard.
            let lately = |asked: Instant| now < asked.saturating_add(again);
            if config.ask
                && host.neighbors == 0
                && !host.asked.is_some_and(lately)
                && !self.hosts.is_due(number)
            {
                self.hosts.ask_at(number, now);
            }
        }
        self.sweep.expect(now, config);
        Some(number)
    }

    /// Notes that a neighbor of a host that was [heard](Self::heard) is there. What has to make room for it goes to `evicted`. Where its
    /// group has no room, a new one is refused before anybody has to.
    pub(crate) fn sighted(
        &mut self,
        now: Instant,
        config: &Config,
        seen: Seen,
        has_room: bool,
        mut evicted: impl FnMut(Identity),
    ) -> Result<Sighting, Refusal> {
        let Seen {
            identity,
            number,
            evidence,
        } = seen;
        if let Some(slot) = self.table.find(&identity) {
            if evidence == Evidence::Remembered {
                return Ok(Sighting::Renewed);
            }
            let answers = evidence == Evidence::Advertised && self.is_answer(config, slot, number);
            match self.claim(config, slot, number) {
                Claim::Own => self.renew(now, config, slot, number, answers),
                Claim::HandedOver { before, standing } => {
                    self.hand_over(now, config, slot, number, standing);
                    self.renew(now, config, slot, number, answers);
                    if !answers {
                        self.ask_after_move(now, config, slot, before);
                    }
                }
                Claim::Contested => self.contest(now, config, slot, number),
            }
            return Ok(Sighting::Renewed);
        }
        if !has_room {
            return Err(Refusal::Full);
        }
        // The address takes the place of the listener that its host was known as.
        let listener = match identity {
            Identity::Address(_) => Identity::Listener(identity.group(), number),
            Identity::Listener(..) => identity,
        };
        let listener = self.table.find(&listener);
        let was_confirmed = listener
            .and_then(|slot| self.table.get(slot))
            .is_some_and(|(_, listener)| listener.is_confirmed());
        let displaced = match listener {
            Some(listener) => Some(listener),
            None => self.place_of_another(now, config, seen)?,
        };
        if let Some(displaced) = displaced.and_then(|slot| self.remove_slot(slot))
            && listener.is_none()
        {
            evicted(displaced);
        }
        let confirmed = evidence == Evidence::Answered || was_confirmed;
        let (standing, due) = if confirmed {
            let due = now.saturating_add(self.question_delay(config));
            (Standing::Confirmed, due)
        } else {
            (Standing::Claimed, now)
        };
        let neighbor = Neighbor::new(now, standing, due);
        let slot = self
            .table
            .insert(identity, neighbor)
            .map_err(|_| Refusal::Full)?;
        self.link(slot, number);
        self.set_standing(slot, standing);
        self.note_silence_of_host(slot);
        if confirmed {
            self.changed.insert(slot);
        }
        self.expect_question(now, config, slot);
        self.sweep.expect(now, config);
        let was_listener = listener.is_some();
        Ok(Sighting::New { was_listener })
    }

    /// A host was seen with a neighbor of its own, or `answers` for it.
    fn renew(&mut self, now: Instant, config: &Config, slot: usize, number: u16, answers: bool) {
        if answers {
            self.confirm(slot, number);
        }
        let due = now.saturating_add(self.question_delay(config));
        if let Some((_, neighbor)) = self.table.get_mut(slot) {
            neighbor.renew(now, due);
            self.expect_question(now, config, slot);
        }
    }

    /// Has a host answered a question?
    pub(crate) fn has_answered(&self, number: u16) -> bool {
        self.hosts.get(number).is_some_and(|host| host.answered)
    }

    /// A host sent an MLD report. Is it the answer to a question?
    pub(crate) fn reported(&mut self, now: Instant, number: u16, source: Ipv6Addr) -> bool {
        let Some(host) = self.hosts.get_mut(number) else {
            return false;
        };
        if host.link_local == Some(source) {
            // Whoever speaks MLD will answer, if perhaps not now.
            host.unanswered = 0;
        }
        let answers = host.answers(now, source);
        if answers {
            host.answered = true;
            self.hosts.ask_no_more(number);
        }
        answers
    }

    /// A host reports that it listens to a group: that renews all its neighbors in it, and confirms them where it `answers` a
    /// question. How well its group is known.
    pub(crate) fn listens(
        &mut self,
        now: Instant,
        config: &Config,
        number: u16,
        group: SolicitedNode,
        answers: bool,
    ) -> Known {
        let Some(host) = self.hosts.get(number) else {
            return Known::Nothing;
        };
        let mut link = host.first;
        let due = now.saturating_add(self.question_delay(config));
        let mut known = Known::Nothing;
        while let Some(slot) = link.slot() {
            let Some((identity, neighbor)) = self.table.get_mut(slot) else {
                break;
            };
            link = neighbor.next;
            if identity.group() == group {
                let has_changed = answers && !neighbor.is_confirmed();
                if has_changed {
                    neighbor.standing = Standing::Confirmed;
                }
                neighbor.renew(now, due);
                let standing = neighbor.standing;
                known = match identity {
                    Identity::Listener(..) if known == Known::Nothing => Known::Listener,
                    Identity::Listener(..) => known,
                    Identity::Address(_) => Known::Address,
                };
                self.expect_question(now, config, slot);
                if has_changed {
                    self.set_standing(slot, standing);
                    self.changed.insert(slot);
                }
            }
        }
        known
    }

    /// A host reports that it no longer listens to a group: it is asked, since anybody can send such a report, and where it does not
    /// answer for its neighbors in the group, they are gone.
    pub(crate) fn listens_no_more(
        &mut self,
        now: Instant,
        config: &Config,
        number: u16,
        group: SolicitedNode,
    ) {
        let mut link = self.hosts.get(number).map_or(Next::END, |host| host.first);
        while let Some(slot) = link.slot() {
            let Some((identity, neighbor)) = self.table.get_mut(slot) else {
                break;
            };
            link = neighbor.next;
            if identity.group() == group && !neighbor.revoked {
                neighbor.revoked = true;
                self.doubt(now, config, slot);
            }
        }
    }

    /// Forgets a neighbor; false where it was not known.
    pub(crate) fn remove(&mut self, identity: Identity) -> bool {
        let slot = self.table.find(&identity);
        slot.and_then(|slot| self.remove_slot(slot)).is_some()
    }

    /// Forgets all addresses that `keep` does not hold for, and hands each to `gone`.
    pub(crate) fn retain(
        &mut self,
        keep: impl Fn(Ipv6Addr) -> bool,
        mut gone: impl FnMut(Identity),
    ) {
        for slot in self.table.slots() {
            if let Some((Identity::Address(address), _)) = self.table.get(slot)
                && !keep(address)
            {
                self.remove_slot(slot).map(&mut gone);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_hashed_as_something_else() {
        let address = |last| Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, last);
        let [one, two] = [1, 2].map(address);
        let [first, second] = [one, two].map(SolicitedNode::of);
        let sender = |port, last| Sender {
            port,
            mac: MacAddress([2, 0, 0, 0, 0, last]),
        };
        let keys = [
            Identity::Address(one).bits(),
            Identity::Address(two).bits(),
            Identity::Address(first.group()).bits(),
            Identity::Listener(first, 1).bits(),
            Identity::Listener(second, 1).bits(),
            Identity::Listener(first, 2).bits(),
            Identity::Listener(first, 0x8000).bits(),
            sender(0, 1).bits(),
            sender(0, 2).bits(),
            sender(1, 1).bits(),
            second.bits(),
        ];
        for (at, key) in keys.iter().enumerate() {
            assert!(!keys[..at].contains(key), "{at}");
        }
        assert_eq!(one.bits(), u128::from(one));
    }
}
