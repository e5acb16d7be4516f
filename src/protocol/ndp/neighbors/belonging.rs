//! Which neighbors belong to which host, what a claim changes, and which neighbor gives way.

use core::mem::{Discriminant, discriminant};

use super::neighbor::{Standing, Step};
use super::{CAPACITY, Evidence, Identity, Neighbors, Refusal, Seen, Sender};
use crate::config::Config;
use crate::link::Port;
use crate::tables::table::Next;
use crate::time::Instant;
use crate::wire::SolicitedNode;

/// A host with more neighbors than this may lose unconfirmed ones before it is asked.
pub(super) const FAIR_SHARE: u16 = 8;
/// The most slots that one search for a neighbor or host to displace looks at.
pub(super) const CANDIDATES: usize = 32;

/// The outcome of a host's claim to a neighbor.
pub(super) enum Claim {
    /// The neighbor is the host's already.
    Own,
    /// The neighbor becomes the host's, with a new `standing`. It was that of the host with the
    /// number `before`.
    HandedOver { before: u16, standing: Standing },
    /// The neighbor stays with its host.
    Contested,
}

impl Neighbors<'_> {
    /// Decides a host's claim to a neighbor. Any node can claim an address, so a confirmed neighbor
    /// stays with its host until a round of questions was in vain. If its host's link-layer address
    /// claims it on another link, the host has moved there.
    pub(super) fn claim(&self, config: &Config, slot: usize, number: u16) -> Claim {
        let Some((identity, neighbor)) = self.table.get(slot) else {
            return Claim::Contested;
        };
        if neighbor.host == number {
            return Claim::Own;
        }
        let Some((sender, _)) = self.hosts.entry(number) else {
            return Claim::Contested;
        };
        let quota = match identity {
            Identity::Address(_) => self.has_room_for_address(config, number),
            Identity::Listener(..) => false,
        };
        let owner = self.hosts.entry(neighbor.host).map(|(owner, _)| owner);
        let has_moved = owner.is_some_and(|owner| owner.mac == sender.mac) && sender.has_mac();
        if neighbor.standing == Standing::Confirmed && !has_moved || !quota {
            return Claim::Contested;
        }
        let standing = if neighbor.is_confirmed() && has_moved {
            Standing::Confirmed
        } else {
            Standing::Claimed
        };
        Claim::HandedOver {
            before: neighbor.host,
            standing,
        }
    }

    /// Makes a neighbor another host's. That host is asked as soon as a probe is allowed.
    pub(super) fn hand_over(
        &mut self,
        now: Instant,
        config: &Config,
        slot: usize,
        number: u16,
        standing: Standing,
    ) {
        self.unlink(slot);
        self.link(slot, number);
        let Some((_, neighbor)) = self.table.get_mut(slot) else {
            return;
        };
        neighbor.due = now.max(neighbor.next_probe(now));
        neighbor.step = Step::FIRST;
        self.set_standing(slot, standing);
        self.note_silence_of_host(slot);
        self.changed.insert(slot);
        self.expect_question(now, config, slot);
    }

    /// Has a host asked for a confirmed neighbor that it brought along from another link. If the
    /// host does not answer here, the address is resolved on both links.
    pub(super) fn ask_after_move(
        &mut self,
        now: Instant,
        config: &Config,
        slot: usize,
        before: u16,
    ) {
        let port = self.hosts.entry(before).map(|(owner, _)| owner.port);
        if let Some((_, neighbor)) = self.table.get_mut(slot)
            && neighbor.is_confirmed()
        {
            neighbor.claimed = port;
            self.doubt(now, config, slot);
        }
    }

    /// Notes a claim to a neighbor that stays with its host. Unless a round of questions is under
    /// way, one starts, which in the end resolves the address on the claimant's link too. A round
    /// that was in vain did not ask there, so another one follows it.
    pub(super) fn contest(&mut self, now: Instant, config: &Config, slot: usize, number: u16) {
        let Some((claimant, _)) = self.hosts.entry(number) else {
            return;
        };
        if let Some((_, neighbor)) = self.table.get_mut(slot) {
            neighbor.claimed = Some(claimant.port);
            if neighbor.step == Step::FIRST || neighbor.step == Step::Over {
                self.doubt(now, config, slot);
            }
        }
    }

    /// Resolves an address on two links at once, since its host has probably moved to `port`.
    fn look_for(&mut self, now: Instant, config: &Config, slot: usize, port: Port) {
        let Some((_, neighbor)) = self.table.get_mut(slot) else {
            return;
        };
        neighbor.claimed = Some(port);
        match neighbor.step {
            Step::Ask { .. } | Step::Probe { .. } | Step::Over => {
                neighbor.step = Step::FIRST_RESOLUTION;
                neighbor.due = now.max(neighbor.next_probe(now));
                self.expect_question(now, config, slot);
            }
            Step::Resolve { .. } => {}
        }
    }

    /// Notes that a host answered on its link for a group. Its link-layer address may have
    /// addresses in that group on other links, which the host may have brought along.
    pub(crate) fn claim_elsewhere(
        &mut self,
        now: Instant,
        config: &Config,
        sender: Sender,
        group: SolicitedNode,
    ) {
        let ports = Port::try_from(config.downstreams.len()).unwrap_or(Port::MAX);
        for port in (0..ports).filter(|port| *port != sender.port && sender.has_mac()) {
            let other = self.hosts.find(Sender { port, ..sender });
            let host = other.and_then(|number| self.hosts.get(number));
            let mut link = host.map_or(Next::END, |host| host.first);
            while let Some(slot) = link.slot() {
                let Some((identity, neighbor)) = self.table.get(slot) else {
                    break;
                };
                link = neighbor.next;
                if matches!(identity, Identity::Address(_)) && identity.group() == group {
                    self.look_for(now, config, slot, sender.port);
                }
            }
        }
    }

    /// Does a host's advertisement answer a solicitation for a neighbor? The neighbor's own host
    /// answers a probe. If that host was silent, any host on the links asked answers a resolution.
    pub(super) fn is_answer(&self, config: &Config, slot: usize, number: u16) -> bool {
        let Some((_, neighbor)) = self.table.get(slot) else {
            return false;
        };
        let port = |number| self.hosts.entry(number).map(|(sender, _)| sender.port);
        let is_resolved = || {
            neighbor.is_unanswered()
                && neighbor.step.is_resolving()
                && (port(number) == port(neighbor.host) || port(number) == neighbor.claimed)
        };
        config.probe && neighbor.step.is_beyond_asks() && (neighbor.host == number || is_resolved())
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
        self.questions.remove(slot);
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
        // A host that has answered has a share of its own, which a flood of strangers cannot use
        // up.
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
        match place {
            Some(place) => Ok(Some(place)),
            None => self.least_deserving(now, config).map(Some),
        }
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
