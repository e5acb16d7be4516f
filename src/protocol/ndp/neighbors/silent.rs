//! The unconfirmed neighbors whose hosts left a question unanswered, in the order in which they
//! were asked for. In a full table they give way in that order.

use super::{CAPACITY, Neighbors};
use crate::tables::pending::SlotSet;
use crate::time::Instant;

/// How many neighbors one call looks at.
const LOOKS: usize = 16;

/// What [`Silent`] is kept in.
pub(super) type Storage = heapless::Deque<u16, CAPACITY>;

/// Slots of the neighbors that were asked for. Whether the host of one is still silent shows when
/// its turn comes.
pub(super) struct Silent<'t> {
    queue: &'t mut Storage,
    /// The slots in the queue. Each is there once.
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

/// Whether an unconfirmed neighbor gives way.
enum Silence {
    /// Its host was not asked, or has answered.
    Spoken,
    /// Its host was asked, and still has time to answer.
    Asked,
    /// Its host did not answer in time.
    Silent,
}

impl Neighbors<'_> {
    /// Notes that a neighbor was asked for.
    pub(super) fn note_asked(&mut self, slot: usize) {
        if self.strangers.contains(slot) {
            self.silent.push(slot);
        }
    }

    /// Notes that a host was asked, which counts as a question for each of its neighbors.
    pub(super) fn note_host_asked(&mut self, now: Instant, number: u16) {
        let Some(host) = self.hosts.get(number) else {
            return;
        };
        let mut link = host.first;
        while let Some(slot) = link.slot() {
            let Some((_, neighbor)) = self.table.get_mut(slot) else {
                break;
            };
            link = neighbor.next;
            neighbor.host_asked(now);
            self.note_asked(slot);
        }
    }

    /// Notes that a host got a neighbor. If it left a question unanswered before, the neighbor
    /// counts as asked for.
    pub(super) fn note_silence_of_host(&mut self, slot: usize) {
        if let Some((_, neighbor)) = self.table.get(slot)
            && let Some(host) = self.hosts.get(neighbor.host)
            && host.unanswered > 0
        {
            self.note_asked(slot);
        }
    }

    /// The unconfirmed neighbor with a silent host that was asked for longest ago.
    pub(super) fn longest_silent(&mut self, now: Instant) -> Option<usize> {
        for _ in 0..LOOKS {
            let slot = self.silent.pop()?;
            match self.silence_of(slot, now) {
                Silence::Spoken => {}
                Silence::Asked => self.silent.push(slot),
                Silence::Silent => {
                    // If the neighbor does not give way after all, it gets another turn.
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
        let was_asked = host.unanswered > 0 || neighbor.step.is_beyond_asks();
        match (neighbor.is_confirmed(), was_asked) {
            (true, _) => Silence::Spoken,
            (false, _) if neighbor.is_unanswered() => Silence::Silent,
            (false, false) => Silence::Spoken,
            (false, true) if neighbor.due <= now => Silence::Silent,
            (false, true) => Silence::Asked,
        }
    }
}
