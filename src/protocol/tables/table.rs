//! A table of fixed capacity with a keyed hash.
//!
//! An entry keeps its slot, a number below the capacity, until it is removed, so that other state
//! (a bit, a deadline, a socket) can go by the slot. A full table refuses the newcomer and changes
//! nothing; the caller decides who makes room.
//!
//! The hash is keyed because strangers choose the keys: without the hash's key nobody can choose
//! addresses that share a chain. `heapless::IndexMap` takes no key at run time and moves its
//! entries, hence this.
//!
//! An empty table is all zero bits, so a static one takes no room in the file, and slots are handed
//! out from the first, so pages that were never needed cost no memory.

use core::net::Ipv6Addr;
use core::ops::Range;

use siphasher::sip::SipHasher13;

/// What entries go by.
pub trait Key: Copy + Eq {
    /// What the hash is taken of: different for different keys, or else these always share a chain.
    fn bits(&self) -> u128;
}

impl Key for Ipv6Addr {
    fn bits(&self) -> u128 {
        self.to_bits()
    }
}

/// At most `N` entries, `N` up to 65,534.
pub struct Table<K, V, const N: usize> {
    hash_key: [u64; 2],
    /// The first slot of each chain.
    chains: [Next; N],
    /// Those that were ever used.
    slots: heapless::Vec<Slot<K, V>, N>,
    /// The chain of slots that were used and are free.
    free: Next,
    length: usize,
}

/// The table is full; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

#[derive(Clone, Copy)]
struct Slot<K, V> {
    next: Next,
    /// What is in a free slot means nothing.
    occupied: bool,
    key: K,
    value: V,
}

/// The next slot of a chain: its number plus 1, or 0 at the end.
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
    /// An empty table, all zero bits. It takes entries once it has a
    /// [key of its hash](Self::begin).
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

    /// Empties the table, and gives its hash a key: 16 random octets, not all of them 0.
    pub fn begin(&mut self, hash_key: [u8; 16]) {
        if !self.slots.is_empty() {
            *self = Table::new();
        }
        self.hash_key = SipHasher13::new_with_key(&hash_key).keys().into();
    }

    pub fn len(&self) -> usize {
        self.length
    }

    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The slot of `key`.
    pub fn find(&self, key: &K) -> Option<usize> {
        // The hash is most of what it takes.
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

    /// The entry in `slot`; `None` where the slot is free.
    pub fn get(&self, slot: usize) -> Option<(K, &V)> {
        let slot = self.slots.get(slot).filter(|slot| slot.occupied)?;
        Some((slot.key, &slot.value))
    }

    /// As [`Self::get`], to change the value.
    pub fn get_mut(&mut self, slot: usize) -> Option<(K, &mut V)> {
        let slot = self.slots.get_mut(slot).filter(|slot| slot.occupied)?;
        Some((slot.key, &mut slot.value))
    }

    /// Adds `key`, which must not be in the table; its slot.
    pub fn insert(&mut self, key: K, value: V) -> Result<usize, Full> {
        debug_assert!(self.find(&key).is_none(), "a key is inserted once");
        debug_assert!(self.hash_key != [0; 2], "anybody can guess its hash");
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

    /// Frees `slot`; what was in it.
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

    /// All slots that may hold an entry, to go through while changing the table.
    pub fn slots(&self) -> Range<usize> {
        0..self.slots.len()
    }

    /// The entries from `first` on, in the order of their slots.
    pub fn iter_from(&self, first: usize) -> impl Iterator<Item = (usize, K, &V)> {
        self.slots
            .iter()
            .enumerate()
            .skip(first)
            .filter(|(_, slot)| slot.occupied)
            .map(|(number, slot)| (number, slot.key, &slot.value))
    }

    fn chain_of(&self, key: &K) -> usize {
        let [first, second] = self.hash_key;
        let hasher = SipHasher13::new_with_keys(first, second);
        let hash = hasher.hash(&key.bits().to_le_bytes());
        // The upper half as a fraction of the capacity, for which no CPU has to divide.
        ((hash >> 32).wrapping_mul(N as u64) >> 32) as usize
    }
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
    fn refuses_the_newcomer_when_full_and_reuses_what_was_freed() {
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
    fn which_keys_share_a_chain_is_the_hash_keys_secret() {
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
    fn agrees_with_a_plain_list_whatever_the_chains() {
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
