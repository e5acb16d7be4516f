//! Which neighbors are whose: the list of each host, handing over, and who gives way.

use core::mem::{Discriminant, discriminant};

use super::neighbor::{Standing, Step};
use super::{CAPACITY, Evidence, Identity, Neighbors, Refusal, Seen, Sender};
use crate::config::Config;
use crate::link::Port;
use crate::tables::table::Next;
use crate::time::Instant;
use crate::wire::SolicitedNode;

/// Who holds more neighbors than this gives way before being asked.
pub(super) const FAIR_SHARE: u16 = 8;
/// How many are looked at for one that gives way.
pub(super) const CANDIDATES: usize = 32;

/// What becomes of a neighbor that a host claims.
pub(super) enum Claim {
    /// The host has it already.
    Own,
    /// The host takes it over from the host with the number `before`, and with what `standing`.
    HandedOver { before: u16, standing: Standing },
    /// The host that has it keeps it.
    Contested,
}

impl Neighbors<'_> {
    /// Decides a host's claim to a neighbor. Any host can claim an address, so a host that confirmed
    /// a neighbor keeps it until that host leaves a question unanswered. If the owner's link-layer
    /// address claims the neighbor on another link, the owner has moved there.
    pub(super) fn claim(&self, config: &Config, slot: usize, number: u16) -> Claim {
        let Some((identity, neighbor)) = self.table.get(slot) else {
            return Claim::Contested;
        };
        if neighbor.host == number {
            return Claim::Own;
        }
        let Some((sender, host)) = self.hosts.entry(number) else {
            return Claim::Contested;
        };
        let quota = match identity {
            Identity::Address(_) => host.addresses() < config.per_mac,
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

    /// Makes a neighbor another host's, which is asked as soon as may be.
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

    /// A neighbor whose host has answered for it on another link is its new one's there. That one is to answer too, and where it does
    /// not, whoever has it here or where it was.
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

    /// Another host claims a neighbor: its own host is asked, if that is not under way, and in the
    /// end whoever has it there. Where the last round was in vain, there is another one, since that
    /// did not ask there.
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

    /// A host is probably on another link now: its neighbor is resolved on both at once.
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

    /// A host that answered on one link listens to a group. What its link-layer address has in that group on other links, it may have
    /// brought along.
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

    /// Is what a host advertises the answer to a solicitation for a neighbor? Its own answers a probe, and whoever has it a resolution,
    /// where its own has answered nothing.
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

    /// A neighbor's host has answered for it.
    pub(super) fn confirm(&mut self, slot: usize, number: u16) {
        if let Some(host) = self.hosts.get_mut(number) {
            host.answered = true;
            self.set_standing(slot, Standing::Confirmed);
            self.changed.insert(slot);
        }
    }

    /// Whose word there is for a neighbor.
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
        let host = self.hosts.get_mut(number);
        if is_stranger {
            self.strangers.insert(slot);
            host.into_iter()
                .for_each(|host| host.strangers = host.strangers.saturating_add(1));
        } else {
            self.strangers.remove(slot);
            host.into_iter()
                .for_each(|host| host.strangers = host.strangers.saturating_sub(1));
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

    /// Whose place a new neighbor is to take: nobody's, where there is room for it.
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
        // An address says more than a listener, so it finds room beside as many of these as there may be.
        let has_room = match identity {
            Identity::Address(_) => host.addresses() < config.per_mac,
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
        // What the kernel remembers is no better than anything else that nobody has answered for.
        if evidence == Evidence::Remembered {
            return Err(Refusal::Full);
        }
        // A host that answers has a share of its own, which a flood of strangers does not use up.
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

    /// The slot of the host's unconfirmed neighbor, of a kind if one is named, that was seen longest
    /// ago.
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

    /// Who gives way: an unconfirmed neighbor of the host that holds most, if that is more than
    /// [`FAIR_SHARE`], or else one whose host left a question unanswered. Of these it is the one that
    /// was seen, or asked for, longest ago. Nobody else gives way before being asked: a newcomer is
    /// no better. A full table costs no more to look at than one that is not.
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

    /// Where nobody is asked, the unconfirmed neighbor that was seen longest ago, of so many that are
    /// looked at in turn.
    fn oldest_stranger(&mut self) -> Option<usize> {
        let ahead = self.strangers.iter_from(self.hand);
        let behind = self
            .strangers
            .iter_from(0)
            .take_while(|slot| *slot < self.hand);
        let mut hand = self.hand;
        let mut oldest: Option<(Instant, usize)> = None;
        for slot in ahead.chain(behind).take(CANDIDATES) {
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
