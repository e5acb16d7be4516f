//! Unconfirmed neighbors whose hosts left a question unanswered, in the order in which they were
//! asked: who gives way first where there is no room.

use super::question::ASKS;
use super::{CAPACITY, Neighbors};
use crate::tables::pending::SlotSet;
use crate::time::Instant;

/// How many are looked at each time.
const LOOKS: usize = 16;

/// What [`Silent`] is kept in.
pub(super) type Storage = heapless::Deque<u16, CAPACITY>;

/// Slots of neighbors that were asked for. Whether one is still silent shows when its turn comes.
pub(super) struct Silent<'t> {
    queue: &'t mut Storage,
    /// Those in the queue, where each is once.
    queued: SlotSet<{ CAPACITY / 32 }>,
}

impl<'t> Silent<'t> {
    pub(super) fn new(queue: &'t mut Storage) -> Self {
        queue.clear();
        Silent {
            queue,
            queued: SlotSet::new(),
        }
    }

    fn push(&mut self, slot: usize) {
        if !self.queued.contains(slot) && self.queue.push_back(slot as u16).is_ok() {
            self.queued.insert(slot);
        }
    }

    fn pop(&mut self) -> Option<usize> {
        let slot = usize::from(self.queue.pop_front()?);
        self.queued.remove(slot);
        Some(slot)
    }
}

/// How far an unconfirmed neighbor is on its way to giving way.
enum Silence {
    /// Its host was not asked, or has answered.
    Spoken,
    /// It was asked for, and there is still time for the answer.
    Asked,
    Silent,
}

impl Neighbors<'_> {
    /// A neighbor was asked for.
    pub(super) fn note_asked(&mut self, slot: usize) {
        if self.strangers.contains(slot) {
            self.silent.push(slot);
        }
    }

    /// A host was asked: so was for all its neighbors.
    pub(super) fn note_host_asked(&mut self, number: u16) {
        let Some(host) = self.hosts.get(number) else {
            return;
        };
        let mut link = host.first;
        while let Some(slot) = link.slot() {
            let Some((_, neighbor)) = self.table.get(slot) else {
                break;
            };
            link = neighbor.next;
            self.note_asked(slot);
        }
    }

    /// A neighbor is new to its host, which may have left a question unanswered before.
    pub(super) fn note_silence_of_host(&mut self, slot: usize) {
        if let Some((_, neighbor)) = self.table.get(slot)
            && let Some(host) = self.hosts.get(neighbor.host)
            && host.unanswered > 0
        {
            self.note_asked(slot);
        }
    }

    /// The unconfirmed neighbor that was asked for longest ago of those whose hosts are silent.
    pub(super) fn longest_silent(&mut self, now: Instant) -> Option<usize> {
        for _ in 0..LOOKS {
            let slot = self.silent.pop()?;
            match self.silence_of(slot, now) {
                Silence::Spoken => {}
                Silence::Asked => self.silent.push(slot),
                Silence::Silent => {
                    // Should it not give way after all, it has its turn again.
                    self.silent.push(slot);
                    return Some(slot);
                }
            }
        }
        None
    }

    fn silence_of(&self, slot: usize, now: Instant) -> Silence {
        let Some((_, neighbor)) = self.table.get(slot) else {
            return Silence::Spoken;
        };
        let Some(host) = self.hosts.get(neighbor.host) else {
            return Silence::Spoken;
        };
        let was_asked = host.unanswered > 0 || neighbor.step.questions() > ASKS;
        match (neighbor.is_confirmed(), was_asked) {
            (true, _) => Silence::Spoken,
            (false, _) if neighbor.is_unanswered() => Silence::Silent,
            (false, false) => Silence::Spoken,
            (false, true) if neighbor.due <= now => Silence::Silent,
            (false, true) => Silence::Asked,
        }
    }
}
