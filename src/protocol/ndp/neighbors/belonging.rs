//! Which neighbors belong to which host, what a claim changes, and which neighbor gives way.

use core::mem::{Discriminant, discriminant};
use core::net::Ipv6Addr;

use super::neighbor::{Neighbor, Standing, Step};
use super::{CAPACITY, Evidence, Host, Identity, Neighbors, Refusal, Seen, Sender};
use crate::config::Config;
use crate::link::Port;
use crate::tables::table::Next;
use crate::time::Instant;
use crate::wire::SolicitedNode;

/// A host with more neighbors than this may lose unconfirmed ones before it is asked.
pub(super) const FAIR_SHARE: u16 = 8;
/// The most slots that one search for a neighbor or host to displace looks at.
pub(super) const CANDIDATES: usize = 32;

impl Neighbors<'_> {
    /// A known address, with its slot.
    pub(super) fn address_mut(&mut self, address: Ipv6Addr) -> Option<(usize, &mut Neighbor)> {
        let slot = self.table.find(&Identity::Address(address))?;
        let (_, neighbor) = self.table.get_mut(slot)?;
        Some((slot, neighbor))
    }

    /// Makes an address another host's, which has answered for it. Returns false if that host has
    /// no room for it.
    pub(crate) fn hand_over(
        &mut self,
        now: Instant,
        config: &Config,
        address: Ipv6Addr,
        number: u16,
    ) -> bool {
        let Some((slot, _)) = self.address_mut(address) else {
            return false;
        };
        if !self.has_room_for_address(config, number) {
            return false;
        }
        self.unlink(slot);
        self.link(slot, number);
        self.renew(now, config, slot, number, true);
        true
    }

    /// May a host on a port that answers have an address of another host at once? It may if a whole
    /// round of questions was in vain, the last of which went to all hosts on that port.
    pub(crate) fn is_heir(&self, address: Ipv6Addr, port: Port) -> bool {
        let neighbor = self.get(Identity::Address(address));
        neighbor.is_some_and(|neighbor| {
            let owner = self.hosts.entry(neighbor.host).map(|(owner, _)| owner.port);
            let is_asked = neighbor.step.is_resolving() && owner == Some(port);
            neighbor.is_unanswered() && is_asked
        })
    }

    /// When an address may be solicited because of something else than its round of questions.
    pub(crate) fn solicit_at(&self, now: Instant, address: Ipv6Addr) -> Instant {
        let neighbor = self.get(Identity::Address(address));
        neighbor.map_or(now, |neighbor| neighbor.solicit_at(now))
    }

    /// Has the host of an address answered a solicitation of the last second?
    pub(crate) fn has_just_answered(&self, now: Instant, address: Ipv6Addr) -> bool {
        let neighbor = self.get(Identity::Address(address));
        neighbor.is_some_and(|neighbor| {
            let is_answered =
                neighbor.standing == Standing::Confirmed && neighbor.step == Step::FIRST;
            is_answered && neighbor.solicit_at(now) > now
        })
    }

    /// Notes that an address was solicited because of something else than its round of questions.
    pub(crate) fn note_solicited(&mut self, now: Instant, address: Ipv6Addr) {
        if let Some((_, neighbor)) = self.address_mut(address) {
            neighbor.note_solicited(now);
        }
    }

    /// Has the questions for an address wait, since it is asked for because of a claim.
    pub(crate) fn hold_questions(&mut self, address: Ipv6Addr, until: Instant) {
        if let Some((_, neighbor)) = self.address_mut(address) {
            neighbor.due = neighbor.due.max(until);
        }
    }

    /// Takes a token of a host for a claim to an address of somebody else.
    pub(crate) fn takes_token(&mut self, now: Instant, config: &Config, number: u16) -> bool {
        let host = self.hosts.get_mut(number);
        let host = host.filter(|host| host.has_token(now, config));
        host.map(|host| host.take_token(now)).is_some()
    }

    /// The host with a number.
    pub(crate) fn host_at(&self, number: u16) -> Option<(Sender, &Host)> {
        self.hosts.entry(number)
    }

    /// May a host have an address that it is not known with? It may if it is a listener in the
    /// address's group, or has an address with the same interface identifier.
    pub(crate) fn may_have(&self, number: u16, address: Ipv6Addr) -> bool {
        let mut link = self.hosts.get(number).map_or(Next::END, |host| host.first);
        while let Some((identity, neighbor)) = link.slot().and_then(|slot| self.table.get(slot)) {
            if suggests(identity, address) {
                return true;
            }
            link = neighbor.next;
        }
        false
    }

    /// The number of a host that [may have](Self::may_have) an address. Looks at every neighbor.
    pub(crate) fn who_may_have(&self, address: Ipv6Addr) -> Option<u16> {
        let mut neighbors = self.iter();
        let first = neighbors.find(|(identity, _)| suggests(*identity, address));
        first.map(|(_, neighbor)| neighbor.host)
    }

    /// Passes the addresses that a link-layer address has on other links than `sender`'s, in a
    /// group that it answered for there. It may have brought them along.
    pub(crate) fn for_each_elsewhere(
        &self,
        config: &Config,
        sender: Sender,
        group: SolicitedNode,
        mut found: impl FnMut(Ipv6Addr, Sender),
    ) {
        let ports = Port::try_from(config.downstreams.len()).unwrap_or(Port::MAX);
        for port in (0..ports).filter(|port| *port != sender.port && sender.has_mac()) {
            let owner = Sender { port, ..sender };
            let host = self
                .hosts
                .find(owner)
                .and_then(|number| self.hosts.get(number));
            let mut link = host.map_or(Next::END, |host| host.first);
            while let Some(slot) = link.slot() {
                let Some((identity, neighbor)) = self.table.get(slot) else {
                    break;
                };
                link = neighbor.next;
                if let Identity::Address(address) = identity
                    && identity.group() == group
                {
                    found(address, owner);
                }
            }
        }
    }

    /// Confirms a neighbor whose host has answered for it.
    pub(super) fn confirm(&mut self, slot: usize, number: u16) {
        if let Some(host) = self.hosts.get_mut(number) {
            host.answered = true;
            self.set_standing(slot, Standing::Confirmed);
            self.changed.insert(slot);
        }
    }

    /// Sets the standing of a neighbor, and has it counted as confirmed or not.
    pub(super) fn set_standing(&mut self, slot: usize, standing: Standing) {
        let Some((_, neighbor)) = self.table.get_mut(slot) else {
            return;
        };
        neighbor.standing = standing;
        let number = neighbor.host;
        let is_stranger = !neighbor.is_confirmed();
        if is_stranger == self.strangers.contains(slot) {
            return;
        }
        self.strangers.set(slot, is_stranger);
        if let Some(host) = self.hosts.get_mut(number) {
            host.strangers = if is_stranger {
                host.strangers.saturating_add(1)
            } else {
                host.strangers.saturating_sub(1)
            };
        }
        self.hosts.note_neighbors(number);
    }

    pub(super) fn link(&mut self, slot: usize, number: u16) {
        if let (Some(host), Some((identity, neighbor))) =
            (self.hosts.get_mut(number), self.table.get_mut(slot))
        {
            neighbor.host = number;
            neighbor.next = host.first;
            host.first = Next::to(slot);
            host.neighbors = host.neighbors.saturating_add(1);
            let listens = matches!(identity, Identity::Listener(..));
            host.listeners = host.listeners.saturating_add(listens.into());
            let is_stranger = self.strangers.contains(slot);
            host.strangers = host.strangers.saturating_add(is_stranger.into());
        }
        self.hosts.note_neighbors(number);
    }

    pub(super) fn unlink(&mut self, slot: usize) {
        let Some((identity, neighbor)) = self.table.get(slot) else {
            return;
        };
        let (next, number) = (neighbor.next, neighbor.host);
        let Some(host) = self.hosts.get_mut(number) else {
            return;
        };
        host.neighbors = host.neighbors.saturating_sub(1);
        let listened = matches!(identity, Identity::Listener(..));
        host.listeners = host.listeners.saturating_sub(listened.into());
        let was_stranger = self.strangers.contains(slot);
        host.strangers = host.strangers.saturating_sub(was_stranger.into());
        let mut link = host.first;
        if link == Next::to(slot) {
            host.first = next;
        }
        self.hosts.note_neighbors(number);
        while let Some((_, before)) = link.slot().and_then(|slot| self.table.get_mut(slot)) {
            if before.next == Next::to(slot) {
                before.next = next;
                return;
            }
            link = before.next;
        }
    }

    pub(super) fn remove_slot(&mut self, slot: usize) -> Option<Identity> {
        self.unlink(slot);
        self.strangers.remove(slot);
        let (identity, _) = self.table.remove(slot)?;
        Some(identity)
    }

    /// May a host have one more address? An address says more than a listener, so listeners do not
    /// count against a host's addresses.
    pub(super) fn has_room_for_address(&self, config: &Config, number: u16) -> bool {
        let host = self.hosts.get(number);
        host.is_some_and(|host| host.addresses() < config.per_mac)
    }

    /// The slot of the neighbor that a new one displaces; `None` if there is room for both.
    pub(super) fn place_of_another(
        &mut self,
        now: Instant,
        config: &Config,
        seen: Seen,
    ) -> Result<Option<usize>, Refusal> {
        let Seen {
            identity,
            number,
            evidence,
        } = seen;
        let host = self.hosts.get(number).ok_or(Refusal::Full)?;
        let has_room = match identity {
            Identity::Address(_) => self.has_room_for_address(config, number),
            Identity::Listener(..) => host.neighbors < config.per_mac,
        };
        let is_full = self.table.len() >= CAPACITY;
        if has_room && !is_full {
            return Ok(None);
        }
        let place = if has_room {
            None
        } else {
            let kind = discriminant(&identity);
            let own = self.oldest_unconfirmed_of(number, Some(kind));
            Some(own.ok_or(Refusal::HostQuota)?)
        };
        // What the kernel remembers is no better than another unconfirmed neighbor. It displaces
        // none.
        if evidence == Evidence::Remembered {
            return Err(Refusal::Full);
        }
        // Each host has a bucket of its own, so that one cannot use up what is for all. Those that
        // have answered have one together, which a flood of strangers cannot use up.
        let host = self.hosts.get(number);
        if !host.is_some_and(|host| host.has_token(now, config)) {
            return Err(Refusal::Rate);
        }
        let bucket = if self.has_answered(number) {
            &mut self.residents
        } else if self.latecomers.come_first() {
            return Err(Refusal::Rate);
        } else {
            &mut self.newcomers
        };
        if !bucket.take(now, config.join_rate, config.join_burst) {
            return Err(Refusal::Rate);
        }
        let place = match place {
            Some(place) => place,
            None => self.least_deserving(now, config)?,
        };
        if let Some(host) = self.hosts.get_mut(number) {
            host.take_token(now);
        }
        Ok(Some(place))
    }

    /// The slot of the host's unconfirmed neighbor that was seen longest ago. `kind` limits the
    /// search to addresses or listeners.
    fn oldest_unconfirmed_of(
        &self,
        number: u16,
        kind: Option<Discriminant<Identity>>,
    ) -> Option<usize> {
        let mut oldest: Option<(Instant, usize)> = None;
        let mut link = self.hosts.get(number)?.first;
        while let Some((slot, (identity, neighbor))) = link
            .slot()
            .and_then(|slot| Some((slot, self.table.get(slot)?)))
        {
            let is_of_kind = kind.is_none_or(|kind| discriminant(&identity) == kind);
            let candidate = (neighbor.last_seen, slot);
            if is_of_kind
                && !neighbor.is_confirmed()
                && oldest.is_none_or(|oldest| candidate < oldest)
            {
                oldest = Some(candidate);
            }
            link = neighbor.next;
        }
        oldest.map(|(_, slot)| slot)
    }

    /// The slot of the neighbor that gives way in a full table.
    ///
    /// If a host holds more than [`FAIR_SHARE`], it is an unconfirmed neighbor of the host that
    /// holds most, the one seen longest ago. Otherwise it is an unconfirmed neighbor whose host
    /// left a question unanswered, the one asked for longest ago. No other neighbor gives way
    /// before its host is asked: a newcomer is no better.
    ///
    /// The search costs no more in a full table than in any other.
    fn least_deserving(&mut self, now: Instant, config: &Config) -> Result<usize, Refusal> {
        if self.strangers.is_empty() {
            return Err(Refusal::Full);
        }
        if let Some(number) = self.hosts.greediest()
            && let Some(slot) = self.oldest_unconfirmed_of(number, None)
        {
            return Ok(slot);
        }
        let longest = if config.ask || config.probe {
            self.longest_silent(now)
        } else {
            self.oldest_stranger()
        };
        longest.ok_or(Refusal::Rate)
    }

    /// The unconfirmed neighbor that gives way if no host is ever asked. Of [`CANDIDATES`] that
    /// each call looks at in turn, it is the one seen longest ago.
    fn oldest_stranger(&mut self) -> Option<usize> {
        let mut hand = self.hand;
        let mut oldest: Option<(Instant, usize)> = None;
        for slot in self.strangers.iter_around(self.hand).take(CANDIDATES) {
            hand = slot.saturating_add(1);
            if let Some((_, neighbor)) = self.table.get(slot) {
                let candidate = (neighbor.last_seen, slot);
                oldest = Some(oldest.map_or(candidate, |oldest| oldest.min(candidate)));
            }
        }
        self.hand = hand;
        oldest.map(|(_, slot)| slot)
    }
}

/// Does a host that has a neighbor probably have an address too?
fn suggests(neighbor: Identity, address: Ipv6Addr) -> bool {
    match neighbor {
        Identity::Address(other) => other.to_bits() as u64 == address.to_bits() as u64,
        Identity::Listener(group, _) => group == SolicitedNode::of(address),
    }
}
