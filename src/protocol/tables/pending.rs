//! Sets of a table's slots, and the slots whose action the daemon has yet to carry out.

use crate::time::Instant;

/// A set of slots below `WORDS` times 32, at most 8,192, with a bit for each.
///
/// A second bitmap has a bit for each word that is not zero, so that the lowest slot is found
/// without a look through the words.
pub struct SlotSet<const WORDS: usize> {
    words: [u32; WORDS],
    some: [u32; 8],
    length: usize,
}

impl<const WORDS: usize> SlotSet<WORDS> {
    /// An empty set. The value is all zero bits.
    pub(crate) const fn new() -> Self {
        const { assert!(WORDS <= 256) };
        SlotSet {
            words: [0; WORDS],
            some: [0; 8],
            length: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.length
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The slots in ascending order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = usize> {
        self.iter_from(0)
    }

    /// The slots from `first` on, in ascending order.
    pub(crate) fn iter_from(&self, first: usize) -> impl Iterator<Item = usize> {
        let mut next = self.next_from(first);
        core::iter::from_fn(move || {
            let slot = next?;
            next = self.next_from(slot.saturating_add(1));
            Some(slot)
        })
    }

    /// All slots, each once: from `first` on in ascending order, and then those below it.
    pub(crate) fn iter_around(&self, first: usize) -> impl Iterator<Item = usize> {
        let below = self.iter_from(0).take_while(move |slot| *slot < first);
        self.iter_from(first).chain(below)
    }

    pub(crate) fn insert(&mut self, slot: usize) {
        let is_new = insert(&mut self.words, &mut self.some, slot);
        self.length = self.length.saturating_add(is_new.into());
    }

    pub(crate) fn remove(&mut self, slot: usize) {
        let was_there = remove(&mut self.words, &mut self.some, slot);
        self.length = self.length.saturating_sub(was_there.into());
    }

    /// Inserts a slot if `present` is true, else removes it.
    pub(crate) fn set(&mut self, slot: usize, present: bool) {
        if present {
            self.insert(slot);
        } else {
            self.remove(slot);
        }
    }

    pub(crate) fn contains(&self, slot: usize) -> bool {
        let word = self.words.get(slot / 32).copied().unwrap_or_default();
        word & bit(slot) != 0
    }

    /// Removes all slots. An empty set is not written to, so that its pages of memory stay
    /// untouched.
    pub(crate) fn clear(&mut self) {
        if !self.is_empty() {
            *self = SlotSet::new();
        }
    }

    /// The lowest slot; `None` if the set is empty.
    pub(crate) fn first(&self) -> Option<usize> {
        self.next_from(0)
    }

    /// Removes the lowest slot and returns it; `None` if the set is empty.
    pub(crate) fn take_first(&mut self) -> Option<usize> {
        let slot = self.first()?;
        self.remove(slot);
        Some(slot)
    }

    /// Removes the lowest slot from `first` on, or else the lowest of all, and returns it; `None`
    /// if the set is empty.
    pub(crate) fn take_from(&mut self, first: usize) -> Option<usize> {
        let slot = self.next_from(first).or_else(|| self.first())?;
        self.remove(slot);
        Some(slot)
    }

    /// The lowest slot from `first` on; `None` if there is none.
    pub(crate) fn next_from(&self, first: usize) -> Option<usize> {
        if self.is_empty() {
            return None;
        }
        next_from(&self.words, &self.some, first)
    }
}

// One copy of what follows serves sets of all sizes.

/// Inserts a slot. Returns whether it is new; false for one that is too high.
#[inline(never)]
fn insert(words: &mut [u32], some: &mut [u32; 8], slot: usize) -> bool {
    let (Some(word), Some(some)) = (words.get_mut(slot / 32), some.get_mut(slot / 1024)) else {
        return false;
    };
    let is_new = *word & bit(slot) == 0;
    *word |= bit(slot);
    *some |= bit(slot / 32);
    is_new
}

/// Removes a slot. Returns whether it was there.
#[inline(never)]
fn remove(words: &mut [u32], some: &mut [u32; 8], slot: usize) -> bool {
    let (Some(word), Some(some)) = (words.get_mut(slot / 32), some.get_mut(slot / 1024)) else {
        return false;
    };
    let was_there = *word & bit(slot) != 0;
    *word &= !bit(slot);
    if *word == 0 {
        *some &= !bit(slot / 32);
    }
    was_there
}

/// The lowest slot from `first` on.
#[inline(never)]
fn next_from(words: &[u32], some: &[u32; 8], first: usize) -> Option<usize> {
    let place = first / 32;
    let word = words.get(place).copied().unwrap_or_default();
    if let Some(slot) = lowest(place, from(word, first % 32)) {
        return Some(slot);
    }
    let place = place.saturating_add(1);
    let group = place / 32;
    let rest = some.get(group).copied().unwrap_or_default();
    let later = some.iter().enumerate().skip(group.saturating_add(1));
    let place = lowest(group, from(rest, place % 32))
        .or_else(|| later.into_iter().find_map(|(at, some)| lowest(at, *some)))?;
    lowest(place, *words.get(place)?)
}

const fn bit(slot: usize) -> u32 {
    1_u32.rotate_left(slot as u32)
}

/// The bits of a word from a bit, 0 to 31, on.
fn from(word: u32, bit: usize) -> u32 {
    word & u32::MAX.checked_shl(bit as u32).unwrap_or_default()
}

/// The slot of the lowest bit of the word at a place; `None` if the word is zero.
fn lowest(place: usize, word: u32) -> Option<usize> {
    let bit = usize::try_from(word.trailing_zeros()).ok()?;
    (word != 0).then(|| place.saturating_mul(32).saturating_add(bit))
}

/// The slots whose action the daemon has yet to carry out.
pub struct Pending<const WORDS: usize> {
    /// The slots whose action can be tried now.
    ready: SlotSet<WORDS>,
    /// The slots whose action failed; they wait for `retry_at`.
    failed: SlotSet<WORDS>,
    retry_at: Option<Instant>,
}

impl<const WORDS: usize> Pending<WORDS> {
    pub(crate) const fn new() -> Self {
        Pending {
            ready: SlotSet::new(),
            failed: SlotSet::new(),
            retry_at: None,
        }
    }

    /// Forgets every action. If there is none, it writes nothing, so that its pages of memory stay
    /// untouched.
    pub(crate) fn clear(&mut self) {
        self.ready.clear();
        self.failed.clear();
        if self.retry_at.is_some() {
            self.retry_at = None;
        }
    }

    /// Notes whether a slot has an action to carry out. If one failed before, it need not wait.
    pub(crate) fn set(&mut self, slot: usize, pending: bool) {
        self.failed.remove(slot);
        self.ready.set(slot, pending);
    }

    /// Notes whether a slot has an action to carry out. If one failed before, it still waits.
    pub(crate) fn keep(&mut self, slot: usize, pending: bool) {
        if !pending || !self.failed.contains(slot) {
            self.set(slot, pending);
        }
    }

    /// The lowest slot with an action to try now; `None` if there is none.
    pub(crate) fn next(&self) -> Option<usize> {
        self.ready.first()
    }

    /// All slots with an action to try now, from the lowest on.
    pub(crate) fn iter(&self) -> impl Iterator<Item = usize> {
        self.ready.iter()
    }

    /// Notes that the action of a slot failed. All that failed are retried together, at the
    /// `retry_at` of the first failure.
    pub(crate) fn fail(&mut self, slot: usize, retry_at: Instant) {
        self.ready.remove(slot);
        self.failed.insert(slot);
        self.retry_at.get_or_insert(retry_at);
    }

    /// Whether a failed action waits for its retry.
    pub(crate) fn is_failing(&self) -> bool {
        !self.failed.is_empty()
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.retry_at
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.retry_at.is_some_and(|due| due <= now) {
            self.retry();
        }
    }

    /// Retries all failed actions now.
    pub(crate) fn retry(&mut self) {
        self.retry_at = None;
        while let Some(slot) = self.failed.take_first() {
            self.ready.insert(slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_that_is_retried_early_no_longer_counts_as_failed() {
        let mut pending = Pending::<1>::new();
        for slot in [3, 4] {
            pending.set(slot, true);
            pending.fail(slot, Instant::from_secs(10));
        }
        pending.set(3, true);
        assert_eq!(pending.next(), Some(3));
        assert!(pending.is_failing(), "slot 4 still waits");
        pending.set(3, false);
        pending.set(4, true);
        assert!(!pending.is_failing());
    }

    #[test]
    fn an_action_that_is_kept_waits_for_its_retry() {
        let mut pending = Pending::<1>::new();
        pending.keep(3, true);
        assert_eq!(pending.next(), Some(3));
        pending.fail(3, Instant::from_secs(10));
        pending.keep(3, true);
        assert_eq!(pending.next(), None);
        assert!(pending.is_failing());
        pending.handle_timeout(Instant::from_secs(10));
        assert_eq!(pending.next(), Some(3));
        pending.fail(3, Instant::from_secs(20));
        pending.keep(3, false);
        assert!(!pending.is_failing());
    }

    #[test]
    fn take_from_wraps_around_to_the_lowest_slot() {
        let mut set = SlotSet::<3>::new();
        for (slots, first, taken) in [
            (&[3, 40, 41, 95][..], 0, 3),
            (&[3, 40, 41, 95], 3, 3),
            (&[3, 40, 41, 95], 4, 40),
            (&[3, 40, 41, 95], 41, 41),
            (&[3, 40, 41, 95], 42, 95),
            (&[3, 40, 41], 42, 3),
            (&[3, 40], 96, 3),
            (&[31, 32], 31, 31),
            (&[30, 32], 31, 32),
        ] {
            slots.iter().for_each(|slot| set.insert(*slot));
            assert_eq!(set.take_from(first), Some(taken), "{slots:?} {first}");
            assert!(!set.contains(taken));
            assert_eq!(set.len(), slots.len() - 1);
            while set.take_first().is_some() {}
        }
        assert_eq!(set.take_from(0), None);
    }

    #[test]
    fn a_set_holds_the_slots_that_were_inserted_and_not_removed() {
        let mut set = SlotSet::<2>::new();
        assert!(set.is_empty());
        for slot in [63, 0, 31, 32, 5, 5, 64, 1000] {
            set.insert(slot);
        }
        for slot in [31, 31, 6, 64] {
            set.remove(slot);
        }
        let slots: heapless::Vec<usize, 64> = set.iter().collect();
        assert_eq!(slots, [0, 5, 32, 63]);
        for (first, expected) in [
            (0, [0, 5, 32, 63]),
            (6, [32, 63, 0, 5]),
            (64, [0, 5, 32, 63]),
        ] {
            let around: heapless::Vec<usize, 64> = set.iter_around(first).collect();
            assert_eq!(around, expected, "from {first} on");
        }
        assert_eq!(set.len(), 4);
        assert!(set.contains(32) && !set.contains(31));
        for slot in slots {
            assert_eq!(set.take_first(), Some(slot));
        }
        assert_eq!(set.take_first(), None);
        assert!(set.is_empty());
    }
}
