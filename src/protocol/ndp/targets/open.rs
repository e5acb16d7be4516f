//! How many targets are open, which is asked for and not yet answered: of each link, and of each
//! host.

use super::target::Opener;
use super::{CAPACITY, MAX_OPEN, MAX_OPEN_OF_HOST};
use crate::link::MAX_LINKS;
use crate::tables::table::{Key, Table};
use crate::wire::MacAddress;

/// The open targets of each host that has some.
pub type Storage = Table<Opener, u16, CAPACITY>;

impl Key for Opener {
    fn bits(&self) -> u128 {
        let MacAddress(octets) = self.mac;
        let place = self.side.place() as u128;
        octets
            .into_iter()
            .fold(place, |bits, octet| bits << 8 | u128::from(octet))
    }
}

/// Counts the open targets.
pub struct Open<'t> {
    of_host: &'t mut Storage,
    of_link: [u16; MAX_LINKS],
}

impl<'t> Open<'t> {
    /// No open targets, in a storage whose hash gets a key.
    pub fn new(of_host: &'t mut Storage, hash_key: [u8; 16]) -> Self {
        of_host.begin(hash_key);
        let of_link = [0; MAX_LINKS];
        Open { of_host, of_link }
    }

    /// May a host have one more open target?
    pub fn has_room_for(&self, host: Opener) -> bool {
        let of_link = self.of_link.get(host.side.place());
        of_link.is_some_and(|count| usize::from(*count) < MAX_OPEN)
            && usize::from(self.of(host)) < MAX_OPEN_OF_HOST
    }

    /// A target was an open one of a host, and is now another's; `None` where it is not open.
    pub fn change(&mut self, before: Option<Opener>, after: Option<Opener>) {
        if before == after {
            return;
        }
        if let Some(host) = before {
            self.close(host);
        }
        if let Some(host) = after {
            self.open(host);
        }
    }

    fn of(&self, host: Opener) -> u16 {
        let slot = self.of_host.find(&host);
        let entry = slot.and_then(|slot| self.of_host.get(slot));
        entry.map_or(0, |(_, count)| *count)
    }

    fn open(&mut self, host: Opener) {
        if let Some(count) = self.of_link.get_mut(host.side.place()) {
            *count = count.saturating_add(1);
        }
        match self.of_host.find(&host) {
            Some(slot) => {
                if let Some((_, count)) = self.of_host.get_mut(slot) {
                    *count = count.saturating_add(1);
                }
            }
            // There is room, since there are no more targets than this has entries.
            None => drop(self.of_host.insert(host, 1)),
        }
    }

    fn close(&mut self, host: Opener) {
        if let Some(count) = self.of_link.get_mut(host.side.place()) {
            *count = count.saturating_sub(1);
        }
        let Some(slot) = self.of_host.find(&host) else {
            return;
        };
        if let Some((_, count)) = self.of_host.get_mut(slot) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.of_host.remove(slot);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::Side;

    #[test]
    fn a_host_has_as_many_open_targets_as_were_opened_and_not_closed() {
        let storage = &mut Table::new();
        let mut open = Open::new(storage, [7; 16]);
        let [one, other] = [1, 2].map(|octet| Opener {
            side: Side::Downstream(octet),
            mac: MacAddress([octet; 6]),
        });
        for _ in 0..MAX_OPEN_OF_HOST {
            assert!(open.has_room_for(one));
            open.change(None, Some(one));
        }
        assert!(!open.has_room_for(one));
        open.change(Some(one), Some(one));
        assert!(!open.has_room_for(one) && open.has_room_for(other));
        open.change(Some(one), Some(other));
        assert!(open.has_room_for(one));
        assert_eq!((open.of(one), open.of(other)), (15, 1));
        open.change(Some(other), None);
        assert_eq!(
            (open.of(other), open.of_link[2..4].iter().sum()),
            (0, 15_u16)
        );
        for _ in 1..MAX_OPEN_OF_HOST {
            open.change(Some(one), None);
        }
        assert!(open.of_host.is_empty());
    }
}
