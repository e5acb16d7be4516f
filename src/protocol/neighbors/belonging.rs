//! Which subjects are whose: the list of each host, handing over, and who gives way.

use super::{CONTEST_INTERVAL, Neighbor, Neighbors, Subject};
use crate::config::Config;
use crate::table::Link;
use crate::time::Instant;

impl Neighbors {
    /// Makes a subject the host's, whosever it was. A host that has answered for it keeps it, for anybody can claim it: that one is
    /// asked, and only where it does not answer the next claim counts. False where it is not the host's now.
    pub(super) fn is_handed_over(
        &mut self,
        now: Instant,
        config: &Config,
        slot: usize,
        number: u16,
    ) -> bool {
        let Some((_, neighbor)) = self.subjects.get_mut(slot) else {
            return false;
        };
        if neighbor.host == number {
            return true;
        }
        if neighbor.confirmed && !neighbor.asked_in_vain {
            if neighbor.questions == 0 && now.since(neighbor.last_seen) >= CONTEST_INTERVAL {
                self.doubt(now, slot);
            }
            return false;
        }
        if self
            .hosts
            .get(number)
            .is_none_or(|host| host.subjects >= config.per_mac)
        {
            return false;
        }
        neighbor.confirmed = false;
        // The new one is asked as soon as may be.
        let due = now.max(neighbor.next_probe(now));
        neighbor.questions = 0;
        neighbor.asked_in_vain = false;
        neighbor.due = due;
        self.note_change(slot, true);
        self.unlink(slot);
        self.link(slot, number);
        self.expect_question(due);
        true
    }

    pub(super) fn note_change(&mut self, slot: usize, has_changed: bool) {
        if has_changed {
            self.changed.insert(slot);
        }
    }

    pub(super) fn link(&mut self, slot: usize, number: u16) {
        if let (Some(host), Some((_, neighbor))) =
            (self.hosts.get_mut(number), self.subjects.get_mut(slot))
        {
            neighbor.host = number;
            neighbor.next = host.first;
            host.first = Link::to(slot);
            host.subjects = host.subjects.saturating_add(1);
        }
    }

    pub(super) fn unlink(&mut self, slot: usize) {
        let Some((_, neighbor)) = self.subjects.get(slot) else {
            return;
        };
        let next = neighbor.next;
        let Some(host) = self.hosts.get_mut(neighbor.host) else {
            return;
        };
        host.subjects = host.subjects.saturating_sub(1);
        if host.first == Link::to(slot) {
            host.first = next;
            return;
        }
        let mut link = host.first;
        while let Some((_, before)) = link.slot().and_then(|slot| self.subjects.get_mut(slot)) {
            if before.next == Link::to(slot) {
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

    /// The slot of the host's unconfirmed subject that was seen longest ago.
    pub(super) fn oldest_unconfirmed_of(&self, number: u16) -> Option<usize> {
        let mut oldest: Option<(Instant, usize)> = None;
        let mut link = self.hosts.get(number)?.first;
        while let Some((slot, (_, neighbor))) = link
            .slot()
            .and_then(|slot| Some((slot, self.subjects.get(slot)?)))
        {
            let candidate = (neighbor.last_seen, slot);
            if !neighbor.confirmed && oldest.is_none_or(|oldest| candidate < oldest) {
                oldest = Some(candidate);
            }
            link = neighbor.next;
        }
        oldest.map(|(_, slot)| slot)
    }

    /// Of all unconfirmed subjects, one of the host that holds most, and of those the one that was seen longest ago.
    pub(super) fn least_deserving(&self) -> Option<usize> {
        let unconfirmed = self
            .subjects
            .iter_from(0)
            .filter(|(_, _, neighbor)| !neighbor.confirmed);
        let holds = |neighbor: &Neighbor| {
            self.hosts
                .get(neighbor.host)
                .map_or(0, |host| host.subjects)
        };
        unconfirmed
            .min_by_key(|(_, _, neighbor)| {
                (core::cmp::Reverse(holds(neighbor)), neighbor.last_seen)
            })
            .map(|(slot, _, _)| slot)
    }
}
