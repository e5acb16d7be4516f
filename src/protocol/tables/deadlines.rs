//! The deadlines of a table's slots: a binary heap in fixed storage that names the earliest without
//! a look through the table. If two slots are due at the same time, the lower one comes first.
//!
//! An owner whose deadlines often move to a later time need not move them here each time. It
//! [brings them forward](Deadlines::bring_forward) only, so that a slot may come due too early.
//! Then the owner [sets](Deadlines::set) the true deadline.

use crate::time::Instant;

/// The deadlines of the slots below `N`; `N` is 1 to 65,534.
pub struct Deadlines<const N: usize> {
    entries: [Entry; N],
    /// How many slots are in the heap.
    length: usize,
}

/// What is known of a slot, and the slot at a place of the heap. Slots and places are handed out
/// from 0, so few deadlines need few pages of memory.
#[derive(Clone, Copy)]
struct Entry {
    /// The deadline of the slot with the entry's number, in milliseconds: the upper half, and the
    /// lower. It is meaningless for a slot outside the heap. A `u64` would leave a gap behind each
    /// entry.
    due: [u32; 2],
    /// The place of that slot in the heap plus 1; 0 for a slot outside it.
    place: u16,
    /// The slot that is at the place with the entry's number. The slot at place p is due no later
    /// than those at 2p + 1 and 2p + 2.
    slot: u16,
}

impl Entry {
    fn due(&self) -> u64 {
        let [upper, lower] = self.due;
        u64::from(upper) << 32 | u64::from(lower)
    }
}

impl<const N: usize> Deadlines<N> {
    /// No deadlines. The value is all zero bits.
    pub const fn new() -> Self {
        const { assert!(N > 0 && N < u16::MAX as usize) };
        let empty = Entry {
            due: [0; 2],
            place: 0,
            slot: 0,
        };
        Deadlines {
            entries: [empty; N],
            length: 0,
        }
    }

    /// Removes all deadlines.
    pub fn clear(&mut self) {
        while let Some((slot, _)) = self.first() {
            self.remove(slot);
        }
    }

    pub fn len(&self) -> usize {
        self.length
    }

    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The slot with the earliest deadline, and that deadline; `None` if there is no deadline.
    pub fn first(&self) -> Option<(usize, Instant)> {
        if self.length == 0 {
            return None;
        }
        let slot = usize::from(self.entries.first()?.slot);
        Some((slot, Instant::from_millis(self.entries.get(slot)?.due())))
    }

    /// The slot with the earliest deadline, if that deadline is not after `now`.
    pub fn first_due(&self, now: Instant) -> Option<usize> {
        let (slot, due) = self.first()?;
        (due <= now).then_some(slot)
    }

    /// The deadline of a slot; `None` if it has none.
    #[inline]
    pub fn get(&self, slot: usize) -> Option<Instant> {
        let entry = self.entries.get(slot)?;
        (entry.place > 0).then(|| Instant::from_millis(entry.due()))
    }

    /// Sets the deadline of a slot, earlier or later than before. Ignores a slot of `N` or above.
    pub fn set(&mut self, slot: usize, due: Instant) {
        self.heap().set(slot, due.as_millis());
    }

    /// Sets the deadline of a slot, unless the slot has an earlier one.
    #[inline]
    pub fn bring_forward(&mut self, slot: usize, due: Instant) {
        if self.get(slot).is_none_or(|known| due < known) {
            self.set(slot, due);
        }
    }

    /// Removes the deadline of a slot.
    pub fn remove(&mut self, slot: usize) {
        self.heap().remove(slot);
    }

    fn heap(&mut self) -> Heap<'_> {
        Heap {
            entries: &mut self.entries,
            length: &mut self.length,
        }
    }
}

/// [`Deadlines`] of any `N`, so that there is one copy of this code.
struct Heap<'d> {
    entries: &'d mut [Entry],
    length: &'d mut usize,
}

impl Heap<'_> {
    #[inline(never)]
    fn set(&mut self, slot: usize, due: u64) {
        let Some(entry) = self.entries.get_mut(slot) else {
            return;
        };
        entry.due = [(due >> 32) as u32, due as u32];
        match self.place_of(slot) {
            Some(place) => self.settle(place),
            None => {
                // The heap has room, since it holds each slot at most once.
                let place = *self.length;
                *self.length = place.saturating_add(1);
                self.put(place, slot as u16);
                self.rise(place);
            }
        }
    }

    #[inline(never)]
    fn remove(&mut self, slot: usize) {
        let Some(place) = self.place_of(slot) else {
            return;
        };
        if let Some(entry) = self.entries.get_mut(slot) {
            entry.place = 0;
        }
        let last = self.length.saturating_sub(1);
        *self.length = last;
        if place < last {
            self.put(place, self.slot_at(last));
            self.settle(place);
        }
    }

    /// Moves the slot at a place to where it belongs.
    fn settle(&mut self, place: usize) {
        let place = self.rise(place);
        self.sink(place);
    }

    /// Moves the slot at a place up to where it belongs, and returns that place.
    fn rise(&mut self, mut place: usize) -> usize {
        while let Some(above) = place.checked_sub(1).map(|place| place / 2) {
            if self.key_at(above) <= self.key_at(place) {
                break;
            }
            self.swap(above, place);
            place = above;
        }
        place
    }

    /// Moves the slot at a place down to where it belongs.
    fn sink(&mut self, mut place: usize) {
        loop {
            let left = place.saturating_mul(2).saturating_add(1);
            let right = left.saturating_add(1);
            if left >= *self.length {
                break;
            }
            let is_right = right < *self.length && self.key_at(right) < self.key_at(left);
            let below = if is_right { right } else { left };
            if self.key_at(place) <= self.key_at(below) {
                break;
            }
            self.swap(place, below);
            place = below;
        }
    }

    fn swap(&mut self, one: usize, other: usize) {
        let (first, second) = (self.slot_at(one), self.slot_at(other));
        self.put(one, second);
        self.put(other, first);
    }

    /// Puts a slot at a place.
    fn put(&mut self, place: usize, slot: u16) {
        if let Some(entry) = self.entries.get_mut(place) {
            entry.slot = slot;
        }
        if let Some(entry) = self.entries.get_mut(usize::from(slot)) {
            entry.place = (place as u16).saturating_add(1);
        }
    }

    fn slot_at(&self, place: usize) -> u16 {
        self.entries.get(place).map_or(u16::MAX, |entry| entry.slot)
    }

    fn place_of(&self, slot: usize) -> Option<usize> {
        let place = self.entries.get(slot)?.place.checked_sub(1)?;
        Some(place.into())
    }

    fn key_at(&self, place: usize) -> (u64, u16) {
        let slot = self.slot_at(place);
        let entry = self.entries.get(usize::from(slot));
        (entry.map_or(u64::MAX, Entry::due), slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heap_names_the_earliest_deadline_after_any_change() {
        let mut deadlines = Deadlines::<64>::new();
        let mut model = [None::<u64>; 64];
        let mut state = 1_u32;
        let mut random = |below: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((u64::from(state) * u64::from(below)) >> 32) as u32
        };
        for _ in 0..20_000 {
            let slot = random(64) as usize;
            let due = u64::from(random(1000));
            match random(4) {
                0 => {
                    deadlines.remove(slot);
                    model[slot] = None;
                }
                1 => {
                    deadlines.bring_forward(slot, Instant::from_millis(due));
                    model[slot] = Some(model[slot].map_or(due, |known| known.min(due)));
                }
                _ => {
                    deadlines.set(slot, Instant::from_millis(due));
                    model[slot] = Some(due);
                }
            }
            let first = deadlines.first().map(|(_, due)| due.as_millis());
            assert_eq!(first, model.iter().flatten().min().copied());
            assert_eq!(deadlines.len(), model.iter().flatten().count());
            let known = deadlines.get(slot).map(Instant::as_millis);
            assert_eq!(known, model[slot]);
            if let Some((slot, due)) = deadlines.first() {
                assert_eq!(model[slot], Some(due.as_millis()));
                assert_eq!(deadlines.first_due(due), Some(slot));
                let before = due.as_millis().checked_sub(1).map(Instant::from_millis);
                assert_eq!(before.and_then(|before| deadlines.first_due(before)), None);
            }
        }
    }

    #[test]
    fn every_slot_below_the_capacity_can_have_a_deadline() {
        let mut deadlines = Deadlines::<8>::new();
        for slot in 0..9 {
            deadlines.set(slot, Instant::from_secs(1));
        }
        assert_eq!(deadlines.len(), 8, "slot 8 does not exist");
        for slot in 0..8 {
            assert_eq!(deadlines.get(slot), Some(Instant::from_secs(1)));
        }
        while let Some((slot, _)) = deadlines.first() {
            deadlines.remove(slot);
        }
        assert!(deadlines.is_empty());
        deadlines.set(3, Instant::from_secs(1));
        deadlines.set(5, Instant::from_secs(2));
        deadlines.clear();
        assert_eq!((deadlines.first(), deadlines.get(5)), (None, None));
        deadlines.set(5, Instant::from_secs(3));
        assert_eq!(deadlines.first(), Some((5, Instant::from_secs(3))));
    }
}
