//! A table of fixed capacity with a keyed hash.
//!
//! An entry keeps its slot, a number below the capacity, until it is removed. So other state (a
//! bit, a socket) can be stored by slot. A full table refuses a new entry and changes nothing; the
//! caller decides which entry to evict.
//!
//! Strangers choose the keys that go into a table. The hash has a secret key, so that a stranger
//! cannot choose addresses that share a chain. `heapless::IndexMap` takes no key at run time and
//! moves its entries, so it cannot serve here.
//!
//! An empty table is all zero bits, so a static one takes no room in the file. The table hands out
//! its slots from the first on, so pages that it never needed cost no memory.

use core::net::Ipv6Addr;
use core::ops::Range;

use siphasher::sip::SipHasher13;

/// A key of a [`Table`].
pub trait Key: Copy + Eq {
    /// The input of the hash. Two keys with the same bits always share a chain.
    fn bits(&self) -> u128;
}

impl Key for Ipv6Addr {
    fn bits(&self) -> u128 {
        self.to_bits()
    }
}

/// A table of at most `N` entries; `N` is 1 to 65,534.
pub struct Table<K, V, const N: usize> {
    hash_key: [u64; 2],
    /// The first slot of each chain.
    chains: [Next; N],
    /// The slots that were ever used.
    slots: heapless::Vec<Slot<K, V>, N>,
    /// The chain of the slots that were used and are now free.
    free: Next,
    length: usize,
}

/// The table was full and is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

#[derive(Clone, Copy)]
struct Slot<K, V> {
    next: Next,
    /// If false, the key and the value mean nothing.
    occupied: bool,
    key: K,
    value: V,
}

/// The next slot of a chain: its number plus 1, or 0 at the end of the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Next(u16);

impl Next {
    pub const END: Next = Next(0);

    pub(crate) fn to(slot: usize) -> Self {
        Next(u16::try_from(slot).map_or(0, |slot| slot.saturating_add(1)))
    }

    pub(crate) fn slot(self) -> Option<usize> {
        self.0.checked_sub(1).map(usize::from)
    }
}

impl<K: Key, V: Copy, const N: usize> Table<K, V, N> {
    /// An empty table, all zero bits. [`Self::begin`] must give it a hash key before the first
    /// entry.
    pub const fn new() -> Self {
        const { assert!(N > 0 && N < u16::MAX as usize) };
        Table {
            hash_key: [0; 2],
            chains: [Next::END; N],
            slots: heapless::Vec::new(),
            free: Next::END,
            length: 0,
        }
    }

    /// Empties the table and sets its hash key: 16 random octets, not all of them 0.
    pub fn begin(&mut self, hash_key: [u8; 16]) {
        self.clear();
        self.hash_key = SipHasher13::new_with_key(&hash_key).keys().into();
    }

    /// Removes all entries. A table that never had any is not written to, so that its pages of
    /// memory stay untouched.
    pub fn clear(&mut self) {
        if !self.slots.is_empty() {
            *self = Table::new();
        }
    }

    pub fn len(&self) -> usize {
        self.length
    }

    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The slot of `key`; `None` if the table does not hold it.
    pub fn find(&self, key: &K) -> Option<usize> {
        // An empty table need not pay for the hash, which costs most of a look-up.
        if self.length == 0 {
            return None;
        }
        let mut link = *self.chains.get(self.chain_of(key))?;
        while let Some(slot) = link.slot() {
            let candidate = self.slots.get(slot)?;
            if candidate.key == *key {
                return Some(slot);
            }
            link = candidate.next;
        }
        None
    }

    /// The entry in `slot`; `None` if the slot is free.
    pub fn get(&self, slot: usize) -> Option<(K, &V)> {
        let slot = self.slots.get(slot).filter(|slot| slot.occupied)?;
        Some((slot.key, &slot.value))
    }

    /// The entry in `slot`, with a value to change; `None` if the slot is free.
    pub fn get_mut(&mut self, slot: usize) -> Option<(K, &mut V)> {
        let slot = self.slots.get_mut(slot).filter(|slot| slot.occupied)?;
        Some((slot.key, &mut slot.value))
    }

    /// Adds `key`, which must not be in the table, and returns its slot.
    pub fn insert(&mut self, key: K, value: V) -> Result<usize, Full> {
        debug_assert!(
            self.find(&key).is_none(),
            "the table holds this key already"
        );
        debug_assert!(self.hash_key != [0; 2], "the table has no hash key");
        let chain = self.chain_of(&key);
        let first = self.chains.get_mut(chain).ok_or(Full)?;
        let slot = Slot {
            next: *first,
            occupied: true,
            key,
            value,
        };
        let number = match self.free.slot() {
            Some(number) => {
                let free = self.slots.get_mut(number).ok_or(Full)?;
                self.free = free.next;
                *free = slot;
                number
            }
            None => {
                self.slots.push(slot).map_err(|_| Full)?;
                self.slots.len().saturating_sub(1)
            }
        };
        *first = Next::to(number);
        self.length = self.length.saturating_add(1);
        Ok(number)
    }

    /// Frees `slot` and returns the entry that it held; `None` if it was free.
    pub fn remove(&mut self, slot: usize) -> Option<(K, V)> {
        let removed = *self.slots.get(slot).filter(|slot| slot.occupied)?;
        let chain = self.chain_of(&removed.key);
        let mut before = None;
        let mut link = *self.chains.get(chain)?;
        while link != Next::to(slot) {
            before = link.slot();
            link = self.slots.get(before?)?.next;
        }
        let link = match before {
            Some(before) => &mut self.slots.get_mut(before)?.next,
            None => self.chains.get_mut(chain)?,
        };
        *link = removed.next;
        let freed = self.slots.get_mut(slot)?;
        freed.occupied = false;
        freed.next = self.free;
        self.free = Next::to(slot);
        self.length = self.length.saturating_sub(1);
        Some((removed.key, removed.value))
    }

    /// The slots that may hold an entry. The caller may change the table while it goes through
    /// them.
    pub fn slots(&self) -> Range<usize> {
        0..self.slots.len()
    }

    /// The entries from slot `first` on, in the order of their slots.
    pub fn iter_from(&self, first: usize) -> impl Iterator<Item = (usize, K, &V)> {
        self.slots
            .iter()
            .enumerate()
            .skip(first)
            .filter(|(_, slot)| slot.occupied)
            .map(|(number, slot)| (number, slot.key, &slot.value))
    }

    fn chain_of(&self, key: &K) -> usize {
        chain_of(self.hash_key, key.bits(), N as u64)
    }
}

/// The chain of a key, of so many. One copy serves tables of all sizes.
#[inline(never)]
fn chain_of([first, second]: [u64; 2], key: u128, chains: u64) -> usize {
    let hasher = SipHasher13::new_with_keys(first, second);
    let hash = hasher.hash(&key.to_le_bytes());
    // The upper half of the hash as a fraction of the number of chains: no CPU has to divide.
    ((hash >> 32).wrapping_mul(chains) >> 32) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Key for u32 {
        fn bits(&self) -> u128 {
            (*self).into()
        }
    }

    #[test]
    fn a_full_table_refuses_a_new_entry_and_reuses_a_freed_slot() {
        let mut table: Table<u32, u32, 3> = Table::new();
        table.begin([7; 16]);
        for key in 0..3 {
            assert_eq!(table.insert(key, key * 10), Ok(key as usize));
        }
        assert_eq!(table.insert(3, 30), Err(Full));
        assert_eq!(table.len(), 3);
        assert_eq!(table.remove(1), Some((1, 10)));
        assert_eq!(table.remove(1), None);
        assert_eq!(table.find(&1), None);
        assert_eq!(table.insert(3, 30), Ok(1));
        assert_eq!(table.get(1), Some((3, &30)));
        assert_eq!(
            table.iter_from(1).collect::<heapless::Vec<_, 3>>(),
            [(1, 3, &30), (2, 2, &20)]
        );
    }

    #[test]
    fn the_hash_key_decides_which_keys_share_a_chain() {
        let chains = |octet| {
            let mut table: Table<u32, (), 64> = Table::new();
            table.begin([octet; 16]);
            [0, 1, 2, 3, 4, 5, 6, 7].map(|key| table.chain_of(&key))
        };
        assert_ne!(chains(1), chains(2));
        assert_ne!(chains(0), chains(1));
        assert_eq!(chains(2), chains(2));
    }

    #[test]
    fn a_table_agrees_with_a_plain_list_after_any_change() {
        let mut table: Table<u32, u32, 16> = Table::new();
        table.begin([7; 16]);
        let mut model: heapless::Vec<(u32, u32), 16> = heapless::Vec::new();
        let mut state = 1_u32;
        for round in 0..20_000 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let key = state >> 27;
            match (table.find(&key), model.iter().position(|(k, _)| *k == key)) {
                (Some(slot), Some(at)) => {
                    assert_eq!(table.remove(slot), Some(model.swap_remove(at)));
                }
                (None, None) => {
                    let full = model.push((key, round)).is_err();
                    assert_eq!(table.insert(key, round).is_err(), full);
                }
                (found, expected) => panic!("{key}: {found:?}, expected {expected:?}"),
            }
            assert_eq!(table.len(), model.len());
            assert_eq!(table.iter_from(0).count(), model.len());
        }
    }
}
