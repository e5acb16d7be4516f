//! The neighbors downstream, their hosts, and the questions that keep them confirmed.
//!
//! A neighbor is an address, or a listener to a solicited-node group. A host is known by its link
//! and its link-layer address there.
//!
//! The engine asks a host some time before a neighbor of it expires. It asks at once if only the
//! kernel or an unsolicited packet vouches for the neighbor. A round of questions has three steps:
//!
//! 1. An MLDv2 General Query goes to the host's link-local address. Every node answers it (RFC 3810
//!    §5.1.15, §6.2), and it makes nobody a querier.
//! 2. If no answer names the neighbor, unicast solicitations probe its address (RFC 4861 §7.3.3).
//! 3. If these are in vain too, multicast solicitations resolve the address anew, for another host
//!    may have it by now, or a bridge may have been made to send unicast frames elsewhere. A
//!    listener is asked for by Multicast Address Specific Queries to its group.
//!
//! An answer renews a neighbor and confirms it. A neighbor without one expires, and none expires
//! unasked. Who claims an address of another host does not get it: `contests` decide.
//!
//! While a table has room, it takes in every newcomer at once. A newcomer that has to displace
//! another one is taken in at a limited rate.

mod belonging;
mod host;
mod latecomers;
mod listening;
mod neighbor;
mod question;
mod silent;
mod sweep;

use core::net::Ipv6Addr;

use crate::config::Config;
use crate::link::Port;
use crate::tables::pending::SlotSet;
use crate::tables::rate::Bucket;
use crate::tables::table::{Key, Table};
use crate::time::Instant;
use crate::wire::{MacAddress, SolicitedNode};

pub use host::{Host, LinkLocal};
pub(crate) use listening::{Answers, Known};
pub use neighbor::{Neighbor, Standing, Step};
pub use question::{ASK_RESPONSE_DELAY, ASKS, PROBES, Question, RESOLUTIONS};

use host::Hosts;
use latecomers::Latecomers;
use question::Questions;
use silent::Silent;
use sweep::Sweep;

/// The most neighbors kept.
pub const CAPACITY: usize = 4096;
/// The most neighbors at which what only the kernel remembers is taken in. The rest of the table is
/// for hosts that are heard.
pub const MOST_WITH_REMEMBERED: usize = CAPACITY / 4 * 3;

/// What a neighbor is known by. It makes a group wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    Address(Ipv6Addr),
    /// A host that reports the group by MLD while none of its addresses there is known. The number
    /// is the host's.
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
            // No host has this address. It is the group's, with the host's number in bits that are
            // 0 there.
            Identity::Listener(group, host) => group.bits() | u128::from(*host) << 64,
        }
    }
}

/// The sender of a packet on a downstream link, by which its host is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sender {
    pub port: Port,
    /// All zero on a link without link-layer addresses, where all packets count as one host's.
    pub mac: MacAddress,
}

impl Sender {
    /// Does the link have link-layer addresses?
    pub(crate) fn has_mac(self) -> bool {
        self.mac != MacAddress([0; 6])
    }
}

/// What shows that a neighbor exists, the weakest evidence first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// The kernel's neighbor table lists it.
    Remembered,
    /// A packet from its host named it.
    Heard,
    /// Its host sent this router a solicited advertisement for it, which may answer a solicitation.
    Advertised,
    /// Its host named it in the answer to a question.
    Answered,
}

/// A neighbor that a host was seen with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) identity: Identity,
    /// The number of the host.
    pub(crate) number: u16,
    pub(crate) evidence: Evidence,
}

/// Whose an address or a listener is that a host was seen with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// It is the host's own, and its timeout has started anew.
    Itself,
    /// Another host has it, or claimed it first.
    Another(Sender),
    /// It is not known.
    Nobody,
}

/// Why the engine did not take in a neighbor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Its host has as many neighbors as it may have.
    HostQuota,
    /// More newcomers came at once than the rate allows.
    Rate,
    /// A table is full, and nothing in it may give way.
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
    /// Limits how fast new neighbors displace others, but for those of hosts that have answered.
    newcomers: Bucket,
    /// Limits how fast new neighbors of hosts that have answered displace others.
    residents: Bucket,
    latecomers: Latecomers<'t>,
    /// Slots of the unconfirmed neighbors.
    strangers: SlotSet<{ CAPACITY / 32 }>,
    /// The slot where the next search for a neighbor to displace starts.
    hand: usize,
    silent: Silent<'t>,
    sweep: Sweep,
    questions: Questions<'t>,
    /// Slots of the neighbors that were confirmed, lost their confirmation, or moved.
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

    /// The neighbors from a slot on, each with its slot. A neighbor keeps its slot for as long as
    /// it is known.
    pub fn iter_from(&self, first: usize) -> impl Iterator<Item = (usize, Identity, &Neighbor)> {
        self.table.iter_from(first)
    }

    /// The host that a neighbor belongs to.
    pub fn host_of(&self, neighbor: &Neighbor) -> Option<(Sender, &Host)> {
        self.hosts.entry(neighbor.host)
    }

    pub fn hosts(&self) -> impl Iterator<Item = (Sender, &Host)> {
        self.hosts.iter()
    }

    /// The next neighbor that changed, and its host; `None` for the host if the neighbor is not
    /// confirmed. Each change is returned once. A removed neighbor is not returned.
    pub(crate) fn next_changed(&mut self) -> Option<(Identity, Option<Sender>)> {
        while let Some(slot) = self.changed.take_first() {
            if let Some((identity, neighbor)) = self.table.get(slot) {
                let host = self.hosts.entry(neighbor.host).map(|(host, _)| host);
                return Some((identity, host.filter(|_| neighbor.is_confirmed())));
            }
        }
        None
    }

    /// Has [`Self::next_changed`] return a known neighbor once more.
    pub(crate) fn tell_again(&mut self, identity: Identity) {
        if let Some(slot) = self.table.find(&identity) {
            self.changed.insert(slot);
        }
    }

    /// Notes that a host was heard, and returns its number; `None` if the table of hosts has no
    /// room for it. A host can be asked once it was heard with a link-local source.
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
        let source = link_local.and_then(LinkLocal::new);
        // The delay is worth its cost only for a host that can be asked.
        let again = source.map(|_| self.question_delay(config));
        let host = self.hosts.get_mut(number)?;
        host.last_heard = now;
        let is_new = evidence != Evidence::Remembered && !host.is_heard;
        if evidence != Evidence::Remembered {
            host.is_heard = true;
            host.is_silent = false;
        }
        if let (Some(again), Some(source)) = (again, source) {
            host.heard_from(source);
            // A host with neighbors is asked when they are due. A host without any may have
            // addresses that the engine never heard.
            let lately = |asked: Instant| now < asked.saturating_add(again);
            if config.ask
                && host.neighbors == 0
                && !host.asked.is_some_and(lately)
                && host.due.is_none()
            {
                host.due = Some(now);
                let turn = host.turn(false);
                self.questions.expect(turn, number, now);
            }
        }
        if is_new {
            self.questions.note_heard(number);
        }
        self.sweep.expect(now, config);
        Some(number)
    }

    /// Is there room for a neighbor that only the kernel remembers?
    pub(crate) fn has_room_for_remembered(&self) -> bool {
        self.table.len() < MOST_WITH_REMEMBERED
    }

    /// Whose is a neighbor that a host, which was [heard](Self::heard), was seen with? Renews it if
    /// it is the host's own. It is confirmed as well if the host `answers` a question, or if the
    /// evidence answers one of its round.
    // A known host's packet ends here, so a call would be paid for each.
    #[inline]
    pub(crate) fn sighted(
        &mut self,
        now: Instant,
        config: &Config,
        seen: Seen,
        answers: bool,
    ) -> Owner {
        let Seen {
            identity,
            number,
            evidence,
        } = seen;
        let Some(slot) = self.table.find(&identity) else {
            return Owner::Nobody;
        };
        let Some((_, neighbor)) = self.table.get(slot) else {
            return Owner::Nobody;
        };
        if neighbor.host != number {
            let owner = self.hosts.entry(neighbor.host);
            return owner.map_or(Owner::Nobody, |(owner, _)| Owner::Another(owner));
        }
        if evidence != Evidence::Remembered {
            let answers = answers
                || evidence == Evidence::Advertised
                    && config.probe
                    && neighbor.step.is_beyond_asks();
            self.renew(now, config, slot, number, answers);
        }
        Owner::Itself
    }

    /// Takes in a neighbor that is not known. Passes the neighbor that gives way for it to
    /// `evicted`. Without `has_room` in its group's table, the neighbor is refused before another
    /// one gives way. Returns whether it is an address that took the place of a listener of its
    /// host.
    pub(crate) fn admit(
        &mut self,
        now: Instant,
        config: &Config,
        seen: Seen,
        has_room: bool,
        mut evicted: impl FnMut(Identity),
    ) -> Result<bool, Refusal> {
        let Seen {
            identity,
            number,
            evidence,
        } = seen;
        if !has_room {
            return Err(Refusal::Full);
        }
        // An address takes the place of the listener by which its host was known in the group.
        let listener = match identity {
            Identity::Address(_) => Identity::Listener(identity.group(), number),
            Identity::Listener(..) => identity,
        };
        // Most new hosts listen to nothing yet, and need no search.
        let host = self.hosts.get(number);
        let listener = match host {
            Some(host) if host.listeners > 0 => self.table.find(&listener),
            Some(_) | None => None,
        };
        let was_confirmed = listener
            .and_then(|slot| self.table.get(slot))
            .is_some_and(|(_, listener)| listener.is_confirmed());
        let takes_its_place = listener.is_some() && self.has_room_for_address(config, number);
        let displaced = if takes_its_place {
            None
        } else {
            self.place_of_another(now, config, seen)?
        };
        if let Some(displaced) = displaced.and_then(|slot| self.remove_slot(slot)) {
            evicted(displaced);
        }
        listener.and_then(|slot| self.remove_slot(slot));
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
        self.expect_question(slot);
        self.sweep.expect(now, config);
        Ok(listener.is_some())
    }

    /// Renews a neighbor that its host was seen with. Confirms it if the host `answers` a question.
    // A known host's packet ends here, so a call would be paid for each.
    #[inline(always)]
    fn renew(&mut self, now: Instant, config: &Config, slot: usize, number: u16, answers: bool) {
        if answers {
            self.confirm(slot, number);
        }
        let due = now.saturating_add(self.question_delay(config));
        if let Some((_, neighbor)) = self.table.get_mut(slot) {
            neighbor.renew(now, due);
            self.expect_question(slot);
        }
    }

    /// Has a host answered a question?
    pub(crate) fn has_answered(&self, number: u16) -> bool {
        self.hosts.get(number).is_some_and(|host| host.answered)
    }

    /// Removes a neighbor. Returns whether it was known.
    pub(crate) fn remove(&mut self, identity: Identity) -> bool {
        let slot = self.table.find(&identity);
        slot.and_then(|slot| self.remove_slot(slot)).is_some()
    }

    /// Removes the addresses for which `keep` does not hold, and passes each to `gone`.
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
    fn different_keys_have_different_bits() {
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
