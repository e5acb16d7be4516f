//! The addresses seen downstream: where, and when last.

use core::net::Ipv6Addr;

use crate::config::Port;
use crate::table::{Full, Table};
use crate::time::{Duration, Instant};

/// The most addresses kept.
pub const CAPACITY: usize = 4096;

/// What is known of an address seen downstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbor {
    /// Where it was seen last.
    pub port: Port,
    pub last_seen: Instant,
}

/// What a sighting was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sighting {
    /// The address was not known.
    New,
    /// The address was known, and is now good for another timeout.
    Renewed,
}

/// The addresses seen downstream, at most [`CAPACITY`]; a full table refuses the newcomer.
pub struct Neighbors {
    table: Table<Ipv6Addr, Neighbor, CAPACITY>,
    /// When to look for addresses that timed out; none while there are no addresses.
    next_check: Option<Instant>,
}

impl Neighbors {
    pub(crate) const fn new() -> Self {
        let vacant = Neighbor {
            port: 0,
            last_seen: Instant::ZERO,
        };
        Neighbors {
            table: Table::new(Ipv6Addr::UNSPECIFIED, vacant),
            next_check: None,
        }
    }

    pub(crate) fn set_hash_key(&mut self, hash_key: [u8; 16]) {
        self.table.set_hash_key(hash_key);
    }

    pub fn len(&self) -> usize {
        self.table.len()
    }

    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    pub fn get(&self, address: Ipv6Addr) -> Option<&Neighbor> {
        let (_, neighbor) = self.table.get(self.table.find(&address)?)?;
        Some(neighbor)
    }

    pub fn iter(&self) -> impl Iterator<Item = (Ipv6Addr, &Neighbor)> {
        self.table
            .iter_from(0)
            .map(|(_, address, neighbor)| (address, neighbor))
    }

    /// Notes that `address` was heard on `port`; the first one starts the checks, one every `check_interval`.
    pub(crate) fn sighted(
        &mut self,
        now: Instant,
        address: Ipv6Addr,
        port: Port,
        check_interval: Duration,
    ) -> Result<Sighting, Full> {
        let neighbor = Neighbor {
            port,
            last_seen: now,
        };
        let known = self.table.find(&address);
        if let Some((_, value)) = known.and_then(|slot| self.table.get_mut(slot)) {
            *value = neighbor;
            return Ok(Sighting::Renewed);
        }
        self.table.insert(address, neighbor)?;
        self.next_check
            .get_or_insert(now.saturating_add(check_interval));
        Ok(Sighting::New)
    }

    /// Forgets an address.
    pub(crate) fn remove(&mut self, address: Ipv6Addr) {
        if let Some(slot) = self.table.find(&address) {
            self.table.remove(slot);
        }
        if self.table.is_empty() {
            self.next_check = None;
        }
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.next_check
    }

    /// Where a check is due, forgets every address last seen `timeout` ago or earlier, and hands each to `expired`.
    pub(crate) fn handle_timeout(
        &mut self,
        now: Instant,
        timeout: Duration,
        check_interval: Duration,
        mut expired: impl FnMut(Ipv6Addr),
    ) {
        if self.next_check.is_none_or(|due| now < due) {
            return;
        }
        for slot in self.table.slots() {
            if let Some((address, neighbor)) = self.table.get(slot)
                && now.since(neighbor.last_seen) >= timeout
            {
                self.table.remove(slot);
                expired(address);
            }
        }
        self.next_check = (!self.table.is_empty()).then(|| now.saturating_add(check_interval));
    }
}
