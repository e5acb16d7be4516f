//! A pool of entries that go by their slots, without keys. The owner chains them by [`Next`].
//!
//! As in a [`Table`](super::table::Table), an empty pool is all zero bits, and slots are handed out
//! from the first on.

use super::table::{Full, Next};

/// A pool of at most `N` entries; `N` is 1 to 65,534.
pub struct Pool<V, const N: usize> {
    /// The slots that were ever used.
    slots: heapless::Vec<Slot<V>, N>,
    /// The chain of the slots that were used and are now free.
    free: Next,
    length: usize,
}

#[derive(Clone, Copy)]
enum Slot<V> {
    Taken(V),
    Free(Next),
}

impl<V: Copy, const N: usize> Pool<V, N> {
    /// An empty pool, all zero bits.
    pub const fn new() -> Self {
        const { assert!(N > 0 && N < u16::MAX as usize) };
        Pool {
            slots: heapless::Vec::new(),
            free: Next::END,
            length: 0,
        }
    }

    /// Removes all entries. A pool that never had any is not written to, so that its pages of
    /// memory stay untouched.
    pub fn clear(&mut self) {
        if !self.slots.is_empty() {
            *self = Pool::new();
        }
    }

    pub fn len(&self) -> usize {
        self.length
    }

    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The entry in `slot`; `None` if the slot is free.
    pub fn get(&self, slot: usize) -> Option<&V> {
        match self.slots.get(slot)? {
            Slot::Taken(value) => Some(value),
            Slot::Free(_) => None,
        }
    }

    pub fn get_mut(&mut self, slot: usize) -> Option<&mut V> {
        match self.slots.get_mut(slot)? {
            Slot::Taken(value) => Some(value),
            Slot::Free(_) => None,
        }
    }

    /// Adds an entry and returns its slot.
    pub fn insert(&mut self, value: V) -> Result<usize, Full> {
        let slot = match self.free.slot() {
            Some(slot) => {
                let free = self.slots.get_mut(slot).ok_or(Full)?;
                if let Slot::Free(next) = *free {
                    self.free = next;
                }
                *free = Slot::Taken(value);
                slot
            }
            None => {
                self.slots.push(Slot::Taken(value)).map_err(|_| Full)?;
                self.slots.len().saturating_sub(1)
            }
        };
        self.length = self.length.saturating_add(1);
        Ok(slot)
    }

    /// Frees `slot` and returns the entry that it held; `None` if it was free.
    pub fn remove(&mut self, slot: usize) -> Option<V> {
        let value = *self.get(slot)?;
        *self.slots.get_mut(slot)? = Slot::Free(self.free);
        self.free = Next::to(slot);
        self.length = self.length.saturating_sub(1);
        Some(value)
    }

    /// The entries of a chain, with their slots. `next` tells which entry follows one.
    pub fn chain(
        &self,
        first: Next,
        next: impl Fn(&V) -> Next,
    ) -> impl Iterator<Item = (usize, &V)> {
        let mut link = first;
        core::iter::from_fn(move || {
            let slot = link.slot()?;
            let value = self.get(slot)?;
            link = next(value);
            Some((slot, value))
        })
    }

    /// The slot of the first entry of a chain for which `is_it` is true.
    pub fn find(
        &self,
        first: Next,
        next: impl Fn(&V) -> Next,
        is_it: impl Fn(&V) -> bool,
    ) -> Option<usize> {
        let mut chain = self.chain(first, next);
        chain.find(|(_, value)| is_it(value)).map(|(slot, _)| slot)
    }

    /// Frees the entries of a chain for which `keep`, told their slots too, is false, and returns
    /// the first that is left. `next` is the link of an entry to the one after it.
    pub fn retain(
        &mut self,
        first: Next,
        next: impl Fn(&mut V) -> &mut Next,
        mut keep: impl FnMut(usize, &mut V) -> bool,
    ) -> Next {
        let (mut link, mut left) = (first, first);
        let mut before = None;
        while let Some(slot) = link.slot()
            && let Some(value) = self.get_mut(slot)
        {
            link = *next(value);
            if keep(slot, value) {
                before = Some(slot);
                continue;
            }
            self.remove(slot);
            match before.and_then(|before| self.get_mut(before)) {
                Some(before) => *next(before) = link,
                None => left = link,
            }
        }
        left
    }

    /// All entries with their slots, from a slot on.
    pub fn iter_from(&self, first: usize) -> impl Iterator<Item = (usize, &V)> {
        let slots = self.slots.iter().enumerate().skip(first);
        slots.filter_map(|(slot, entry)| match entry {
            Slot::Taken(value) => Some((slot, value)),
            Slot::Free(_) => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_pool_refuses_an_entry_and_reuses_a_freed_slot() {
        let mut pool: Pool<u32, 3> = Pool::new();
        for value in 0..3 {
            assert_eq!(pool.insert(value), Ok(value as usize));
        }
        assert_eq!(pool.insert(3), Err(Full));
        assert_eq!(pool.remove(1), Some(1));
        assert_eq!((pool.remove(1), pool.get(1), pool.len()), (None, None, 2));
        assert_eq!(pool.insert(4), Ok(1));
        assert_eq!(pool.insert(5), Err(Full));
        let all: heapless::Vec<_, 3> = pool.iter_from(1).collect();
        assert_eq!(all, [(1, &4), (2, &2)]);
        drop(all);
        pool.clear();
        assert!(pool.is_empty() && pool.get(0).is_none());
    }

    #[test]
    fn a_chain_is_followed_to_its_end() {
        let mut pool: Pool<(u32, Next), 4> = Pool::new();
        let last = pool.insert((30, Next::END)).unwrap();
        let first = pool.insert((20, Next::to(last))).unwrap();
        let chain = pool.chain(Next::to(first), |(_, next)| *next);
        let chain: heapless::Vec<_, 4> = chain.map(|(slot, (value, _))| (slot, *value)).collect();
        assert_eq!(chain, [(first, 20), (last, 30)]);
    }

    #[test]
    fn what_a_chain_does_not_retain_is_freed_wherever_it_stands() {
        // Each bit of `kept` is an entry of the chain.
        for kept in 0..8_u32 {
            let mut pool: Pool<(u32, Next), 3> = Pool::new();
            let first = (0..3).rev().fold(Next::END, |next, value| {
                Next::to(pool.insert((value, next)).unwrap())
            });
            let is_kept = |value: u32| kept & (1 << value) != 0;
            let left = pool.retain(first, |(_, next)| next, |_, (value, _)| is_kept(*value));
            let chain = pool.chain(left, |(_, next)| *next);
            let expected = (0..3).filter(|value| is_kept(*value));
            assert!(chain.map(|(_, (value, _))| *value).eq(expected), "{kept}");
            assert_eq!(pool.len(), kept.count_ones() as usize);
        }
    }
}
