//! Which subjects are whose: the list of each host, handing over, and who gives way.

use core::cmp::Reverse;

use super::question::ALL_QUESTIONS;
use super::{ASKS, CAPACITY, Evidence, Neighbors, PROBES, Refusal, Sender, Subject};
use crate::config::Config;
use crate::link::Port;
use crate::tables::table::Next;
use crate::time::Instant;
use crate::wire::SolicitedNode;

/// Who holds more subjects than this gives way before being asked.
const FAIR_SHARE: u16 = 8;

impl Neighbors<'_> {
    /// Makes a subject the host's, whosever it was. A host that has answered for it keeps it, for anybody can claim it: that one is
    /// asked, and only where it does not answer the next claim counts. An address that its host's own link-layer address claims on
    /// another link has moved there. False where the subject is not the host's now.
    pub(super) fn is_handed_over(
        &mut self,
        now: Instant,
        config: &Config,
        slot: usize,
        number: u16,
    ) -> bool {
        let Some((subject, neighbor)) = self.subjects.get(slot) else {
            return false;
        };
        if neighbor.host == number {
            return true;
        }
        let Some((sender, host)) = self.hosts.entry(number) else {
            return false;
        };
        let quota = match subject {
            Subject::Address(_) => host.addresses() < config.per_mac,
            Subject::Listener(..) => false,
        };
        let owner = self.hosts.entry(neighbor.host).map(|(owner, _)| owner);
        let has_moved = owner.is_some_and(|owner| owner.mac == sender.mac) && sender.has_mac();
        if neighbor.confirmed && !neighbor.asked_in_vain && !has_moved || !quota {
            self.contest(now, slot, sender.port);
            return false;
        }
        let stays_confirmed = neighbor.confirmed && has_moved;
        self.unlink(slot);
        self.link(slot, number);
        let Some((_, neighbor)) = self.subjects.get_mut(slot) else {
            return false;
        };
        neighbor.confirmed = stays_confirmed;
        // The new one is asked as soon as may be.
        let due = now.max(neighbor.next_probe(now));
        neighbor.questions = 0;
        neighbor.asked_in_vain = false;
        neighbor.due = due;
        self.note_change(slot, true);
        self.expect_question(due);
        true
    }

    /// A subject whose host has answered for it on another link is its new one's there. That one is to answer too, and where it does
    /// not, whoever has it here or where it was.
    pub(super) fn ask_after_move(&mut self, now: Instant, slot: usize, before: u16) {
        let port = self.hosts.entry(before).map(|(owner, _)| owner.port);
        if let Some((_, neighbor)) = self.subjects.get_mut(slot)
            && neighbor.confirmed
        {
            neighbor.claimed = port;
            self.doubt(now, slot);
        }
    }

    /// Another host claims a subject: its own host is asked, if that is not under way, and in the
    /// end whoever has it there. Where the last round was in vain, there is another one, since that
    /// did not ask there.
    fn contest(&mut self, now: Instant, slot: usize, port: Port) {
        if let Some((_, neighbor)) = self.subjects.get_mut(slot) {
            neighbor.claimed = Some(port);
            if neighbor.questions == 0 || neighbor.questions >= ALL_QUESTIONS {
                self.doubt(now, slot);
            }
        }
    }

    /// A host is probably on another link now: its subject is resolved on both at once.
    fn look_for(&mut self, now: Instant, slot: usize, port: Port) {
        let Some((_, neighbor)) = self.subjects.get_mut(slot) else {
            return;
        };
        neighbor.claimed = Some(port);
        let questions = ASKS.saturating_add(PROBES);
        if neighbor.questions < questions || neighbor.questions >= ALL_QUESTIONS {
            neighbor.questions = questions;
            let due = now.max(neighbor.next_probe(now));
            neighbor.due = due;
            self.expect_question(due);
        }
    }

    /// A host that answered on one link listens to a group. What its link-layer address has in that group on other links, it may have
    /// brought along.
    pub(crate) fn claim_elsewhere(
        &mut self,
        now: Instant,
        ports: Port,
        sender: Sender,
        group: SolicitedNode,
    ) {
        for port in (0..ports).filter(|port| *port != sender.port && sender.has_mac()) {
            let other = self.hosts.find(Sender { port, ..sender });
            let host = other.and_then(|number| self.hosts.get(number));
            let mut link = host.map_or(Next::END, |host| host.first);
            while let Some(slot) = link.slot() {
                let Some((subject, neighbor)) = self.subjects.get(slot) else {
                    break;
                };
                link = neighbor.next;
                if matches!(subject, Subject::Address(_)) && subject.group() == group {
                    self.look_for(now, slot, sender.port);
                }
            }
        }
    }

    /// Is what a host advertises the answer to a solicitation for a subject? Its own answers a probe, and whoever has it a resolution,
    /// where its own has answered nothing.
    pub(super) fn is_answer(&self, config: &Config, slot: usize, number: u16) -> bool {
        let Some((_, neighbor)) = self.subjects.get(slot) else {
            return false;
        };
        let port = |number| self.hosts.entry(number).map(|(sender, _)| sender.port);
        let is_resolved = || {
            neighbor.asked_in_vain
                && neighbor.questions > ASKS.saturating_add(PROBES)
                && (port(number) == port(neighbor.host) || port(number) == neighbor.claimed)
        };
        config.probe && neighbor.questions > ASKS && (neighbor.host == number || is_resolved())
    }

    /// A subject's host has answered for it.
    pub(super) fn confirm(&mut self, slot: usize, number: u16) {
        if let (Some((_, neighbor)), Some(host)) =
            (self.subjects.get_mut(slot), self.hosts.get_mut(number))
        {
            neighbor.confirmed = true;
            host.answered = true;
            self.note_change(slot, true);
        }
    }

    pub(super) fn note_change(&mut self, slot: usize, has_changed: bool) {
        if has_changed {
            self.changed.insert(slot);
        }
    }

    pub(super) fn link(&mut self, slot: usize, number: u16) {
        if let (Some(host), Some((subject, neighbor))) =
            (self.hosts.get_mut(number), self.subjects.get_mut(slot))
        {
            neighbor.host = number;
            neighbor.next = host.first;
            host.first = Next::to(slot);
            host.subjects = host.subjects.saturating_add(1);
            let listens = matches!(subject, Subject::Listener(..));
            host.listeners = host.listeners.saturating_add(listens.into());
        }
    }

    pub(super) fn unlink(&mut self, slot: usize) {
        let Some((subject, neighbor)) = self.subjects.get(slot) else {
            return;
        };
        let next = neighbor.next;
        let Some(host) = self.hosts.get_mut(neighbor.host) else {
            return;
        };
        host.subjects = host.subjects.saturating_sub(1);
        let listened = matches!(subject, Subject::Listener(..));
        host.listeners = host.listeners.saturating_sub(listened.into());
        if host.first == Next::to(slot) {
            host.first = next;
            return;
        }
        let mut link = host.first;
        while let Some((_, before)) = link.slot().and_then(|slot| self.subjects.get_mut(slot)) {
            if before.next == Next::to(slot) {
                before.next = next;
                return;
            }
            link = before.next;
        }
    }

    pub(super) fn remove_slot(&mut self, slot: usize) -> Option<Subject> {
        self.unlink(slot);
        let (subject, _) = self.subjects.remove(slot)?;
        Some(subject)
    }

    /// Whose place a new subject is to take: nobody's, where there is room for it.
    pub(super) fn place_of_another(
        &mut self,
        now: Instant,
        config: &Config,
        subject: Subject,
        number: u16,
        evidence: Evidence,
    ) -> Result<Option<usize>, Refusal> {
        let host = self.hosts.get(number).ok_or(Refusal::Full)?;
        // An address says more than a listener, so it finds room beside as many of these as there may be.
        let has_room = match subject {
            Subject::Address(_) => host.addresses() < config.per_mac,
            Subject::Listener(..) => host.subjects < config.per_mac,
        };
        let is_full = self.subjects.len() >= CAPACITY;
        if has_room && !is_full {
            return Ok(None);
        }
        let place = if has_room {
            None
        } else {
            let own = self.oldest_unconfirmed_of(number, subject);
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

    /// The slot of the host's unconfirmed subject, of the kind of `subject`, that was seen longest ago.
    fn oldest_unconfirmed_of(&self, number: u16, subject: Subject) -> Option<usize> {
        let kind = core::mem::discriminant(&subject);
        let mut oldest: Option<(Instant, usize)> = None;
        let mut link = self.hosts.get(number)?.first;
        while let Some((slot, (subject, neighbor))) = link
            .slot()
            .and_then(|slot| Some((slot, self.subjects.get(slot)?)))
        {
            let candidate = (neighbor.last_seen, slot);
            if !neighbor.confirmed
                && core::mem::discriminant(&subject) == kind
                && oldest.is_none_or(|oldest| candidate < oldest)
            {
                oldest = Some(candidate);
            }
            link = neighbor.next;
        }
        oldest.map(|(_, slot)| slot)
    }

    /// Of the unconfirmed subjects of hosts that left a question unanswered, or that hold more than [`FAIR_SHARE`], one of the host that
    /// holds most, and of those the one that was seen longest ago. Nobody else gives way before being asked: a newcomer is no better.
    fn least_deserving(&self, now: Instant, config: &Config) -> Result<usize, Refusal> {
        let asks = config.ask || config.probe;
        let mut refusal = Refusal::Full;
        let mut least = None;
        for (slot, _, neighbor) in self.subjects.iter_from(0) {
            if neighbor.confirmed {
                continue;
            }
            refusal = Refusal::Rate;
            let Some(host) = self.hosts.get(neighbor.host) else {
                continue;
            };
            let holds = host.subjects;
            let was_asked = host.unanswered > 0 || neighbor.questions > ASKS;
            let is_silent = was_asked && neighbor.due <= now || neighbor.asked_in_vain;
            if asks && !is_silent && holds <= FAIR_SHARE {
                continue;
            }
            let candidate = (Reverse(holds), neighbor.last_seen, slot);
            if least.is_none_or(|least| candidate < least) {
                least = Some(candidate);
            }
        }
        least.map(|(_, _, slot)| slot).ok_or(refusal)
    }
}
