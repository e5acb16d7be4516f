//! How many groups each host downstream has made the router keep. What strangers send must not
//! take the room of others.

use crate::link::Port;
use crate::tables::table::{Full, Key, Table};
use crate::wire::MacAddress;

/// The most hosts that have groups.
pub const HOSTS: usize = 1024;

/// A host: a link-layer address on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    pub port: Port,
    pub mac: MacAddress,
}

impl Key for Listener {
    fn bits(&self) -> u128 {
        let MacAddress([a, b, c, d, e, f]) = self.mac;
        u128::from(u64::from_be_bytes([0, self.port, a, b, c, d, e, f]))
    }
}

/// The hosts, each with the number of groups on its link that it reported first.
pub struct Hosts<'t>(&'t mut Table<Listener, u16, HOSTS>);

impl<'t> Hosts<'t> {
    pub(super) fn new(table: &'t mut Table<Listener, u16, HOSTS>) -> Self {
        Hosts(table)
    }

    /// How many groups a host made the router keep.
    pub(super) fn count(&self, host: Listener) -> u16 {
        let slot = self.0.find(&host);
        let found = slot.and_then(|slot| self.0.get(slot));
        found.map_or(0, |(_, count)| *count)
    }

    /// The host with the most groups on a link, and how many these are.
    pub(super) fn most_on(&self, port: Port) -> Option<(usize, u16)> {
        let on_link = self.0.iter_from(0).filter(|(_, host, _)| host.port == port);
        on_link
            .map(|(slot, _, count)| (slot, *count))
            .max_by_key(|(_, count)| *count)
    }

    /// Is the host known, or is there room for it?
    pub(super) fn takes(&self, host: Listener) -> bool {
        self.0.len() < HOSTS || self.0.find(&host).is_some()
    }

    /// A host reported a group first. Returns the host's slot.
    pub(super) fn acquire(&mut self, host: Listener) -> Result<usize, Full> {
        let slot = match self.0.find(&host) {
            Some(slot) => slot,
            None => self.0.insert(host, 0)?,
        };
        if let Some((_, count)) = self.0.get_mut(slot) {
            *count = count.saturating_add(1);
        }
        Ok(slot)
    }

    /// A group of the host at a slot is gone.
    pub(super) fn release(&mut self, slot: usize) {
        let Some((_, count)) = self.0.get_mut(slot) else {
            return;
        };
        *count = count.saturating_sub(1);
        if *count == 0 {
            self.0.remove(slot);
        }
    }
}
