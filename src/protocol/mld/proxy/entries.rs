//! The entries of the kernel's multicast forwarding table.
//!
//! An entry for one source and one group has a parent, the interface that its packets come from,
//! and the interfaces that they leave by. An entry for any source of a group wins where there is no
//! entry for the source. The entries for any source of any group, at the base, take what nobody
//! listens to. So the kernel never asks this process about a packet (an upcall), and none waits.
//!
//! An interface of the forwarding table goes by a number: 0 is the upstream, and p + 1 the
//! downstream of port p. [`HOME`] is the loopback interface, which no packet of a stream comes from
//! or goes to. It is the parent of groups that do not leave the home, and of all groups while there
//! is no upstream. The kernel takes a packet for such a group from the interfaces of the entry at
//! the base that has the parent among its own: from the downstreams, and not from the upstream.

use core::net::Ipv6Addr;

use super::{CAPACITY, Counts, Forwarding, Proxy, for_each_flow};
use crate::config::MAX_PROXY_DOWNSTREAMS;
use crate::link::Side;
use crate::mld::RETRY_INTERVAL;
use crate::time::Instant;

/// The number of the upstream.
pub const UPSTREAM_NUMBER: u8 = 0;
/// Its bit.
pub const UPSTREAM: u32 = 1;
/// The numbers that no interface has: the parents of the two entries at the base.
const NOWHERE: u8 = 31;
const NOWHERE_AT_HOME: u8 = 29;
/// The number of the loopback interface.
pub const HOME: u8 = 30;
/// The numbers of the downstreams are those from 1 on.
const _: () = assert!(MAX_PROXY_DOWNSTREAMS < NOWHERE_AT_HOME as usize);

/// The number of the interface on a side.
pub fn number_of(side: Side) -> u8 {
    match side {
        Side::Upstream => UPSTREAM_NUMBER,
        Side::Downstream(port) => port.saturating_add(1).min(NOWHERE),
    }
}

/// The bit of the interface on a side.
pub fn bit_of(side: Side) -> u32 {
    bit(number_of(side))
}

fn bit(number: u8) -> u32 {
    1_u32.checked_shl(number.into()).unwrap_or_default()
}

/// What an entry says. Each source of each group has two, so they take no room for alignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(Rust, packed)]
pub struct Entry {
    /// The number of the interface that packets come from.
    pub parent: u8,
    /// The interfaces that packets leave by, a bit for each number.
    pub out: u32,
}

/// What the kernel holds of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Installed {
    No,
    Yes(Entry),
    /// The entry is there. An interface was made or removed since it was written, so its outgoing
    /// interfaces may be others.
    Unsure(Entry),
}

/// Which entry it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// The base for what leaves the home, and for what does not.
    Base,
    HomeBase,
    /// Of any source of the group at a slot.
    Any(usize),
    /// Of the flow at a slot.
    Exact(usize),
}

/// A change of one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    place: Place,
    /// `::` for any source.
    pub source: Ipv6Addr,
    /// `::` for any group.
    pub group: Ipv6Addr,
    pub entry: Entry,
    /// The entry is to be written. Otherwise it is to be removed.
    pub present: bool,
}

/// The two entries at the base, and the interfaces that the kernel forwards by.
pub(super) struct Base {
    /// A bit for the number of each interface.
    interfaces: u32,
    /// There is a forwarding table: it has had an interface.
    is_open: bool,
    /// What downstream hosts send goes upstream.
    senders: bool,
    base: Forwarding,
    home: Forwarding,
    /// When to write again what could not be written.
    retry_at: Option<Instant>,
}

impl Base {
    pub(super) const fn new(senders: bool) -> Self {
        Base {
            interfaces: 0,
            is_open: false,
            senders,
            base: Forwarding::NONE,
            home: Forwarding::NONE,
            retry_at: None,
        }
    }

    /// Does what downstream hosts send go upstream?
    pub(super) fn senders(&self) -> bool {
        self.senders
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.retry_at.is_some_and(|due| due <= now) {
            self.retry_at = None;
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Does the kernel forward by the upstream?
    pub(super) fn has_upstream(&self) -> bool {
        self.interfaces & UPSTREAM != 0
    }

    pub(super) fn is_failing(&self) -> bool {
        self.retry_at.is_some()
    }

    /// Sets what is wanted of the interfaces as they are.
    fn derive(&mut self) {
        let parent = if self.senders {
            UPSTREAM_NUMBER
        } else {
            NOWHERE
        };
        self.base.wanted = Some(Entry {
            parent,
            out: self.interfaces,
        });
        self.home.wanted = Some(Entry {
            parent: NOWHERE_AT_HOME,
            out: (self.interfaces & !UPSTREAM) | bit(HOME),
        });
    }
}

impl Forwarding {
    /// What is to be done next.
    fn next(&self) -> Option<(Entry, bool)> {
        match (self.wanted, self.installed) {
            (None, Installed::No) => None,
            (None, Installed::Yes(entry) | Installed::Unsure(entry)) => Some((entry, false)),
            (Some(wanted), Installed::No) => Some((wanted, true)),
            // The kernel would keep both.
            (Some(wanted), Installed::Yes(entry) | Installed::Unsure(entry))
                if wanted.parent != entry.parent =>
            {
                Some((entry, false))
            }
            (Some(wanted), Installed::Yes(entry)) => (wanted != entry).then_some((wanted, true)),
            (Some(wanted), Installed::Unsure(_)) => Some((wanted, true)),
        }
    }

    fn done(&mut self, change: &Change) {
        self.installed = match change.present {
            true => Installed::Yes(change.entry),
            false => Installed::No,
        };
    }

    /// An interface was made or removed.
    fn doubt(&mut self) {
        if let Installed::Yes(entry) = self.installed {
            self.installed = Installed::Unsure(entry);
        }
    }
}

impl Proxy<'_> {
    /// The interfaces that the kernel forwards by.
    pub fn interfaces(&self) -> u32 {
        self.base.interfaces
    }

    /// The kernel forwards by the interface on a side, or no longer. Each entry is to be written
    /// anew: the kernel drops what an entry says of an interface that is not there, and keeps what
    /// it says of one that is replaced.
    pub(crate) fn set_interface(&mut self, side: Side, present: bool) {
        let bit = bit_of(side);
        let before = self.base.interfaces;
        self.base.interfaces = if present { before | bit } else { before & !bit };
        self.base.is_open |= present;
        if !self.base.is_open {
            return;
        }
        self.base.derive();
        self.base.base.doubt();
        self.base.home.doubt();
        self.base.retry_at = None;
        self.any_entries.retry();
        self.exact_entries.retry();
        for slot in self.groups.slots() {
            if let Some((_, merged)) = self.groups.get_mut(slot) {
                merged.any.doubt();
                for_each_flow(self.groups, self.flows, slot, |_, flow| flow.exact.doubt());
                self.stale.insert(slot);
            }
        }
    }

    /// The next change. The same one again until [`Self::entry_done`] is told of it.
    pub(crate) fn poll_entry(&self) -> Option<Change> {
        let any = Ipv6Addr::UNSPECIFIED;
        if !self.base.is_failing() {
            // Of two entries with an interface, the kernel takes the one that was added last. What
            // a downstream sends to a group without listeners must find the first base.
            let base = [
                (Place::HomeBase, &self.base.home),
                (Place::Base, &self.base.base),
            ];
            for (place, forwarding) in base {
                if let Some((entry, present)) = forwarding.next() {
                    return Some(Change {
                        place,
                        source: any,
                        group: any,
                        entry,
                        present,
                    });
                }
            }
        }
        if let Some(slot) = self.exact_entries.next()
            && let Some(flow) = self.flows.get(slot)
            && let Some((group, _)) = self.groups.get(usize::from(flow.group))
            && let Some((entry, present)) = flow.exact.next()
        {
            return Some(Change {
                place: Place::Exact(slot),
                source: flow.source,
                group,
                entry,
                present,
            });
        }
        let slot = self.any_entries.next()?;
        let (group, merged) = self.groups.get(slot)?;
        let (entry, present) = merged.any.next()?;
        Some(Change {
            place: Place::Any(slot),
            source: any,
            group,
            entry,
            present,
        })
    }

    /// A change was carried out, or failed and is to be tried again.
    pub(crate) fn entry_done(&mut self, now: Instant, change: &Change, succeeded: bool) {
        let retry_at = now.saturating_add(RETRY_INTERVAL);
        let group = match change.place {
            Place::Base | Place::HomeBase if !succeeded => {
                self.base.retry_at = Some(retry_at);
                return;
            }
            Place::Base => return self.base.base.done(change),
            Place::HomeBase => return self.base.home.done(change),
            Place::Any(slot) if !succeeded => return self.any_entries.fail(slot, retry_at),
            Place::Exact(slot) if !succeeded => return self.exact_entries.fail(slot, retry_at),
            Place::Any(slot) => {
                forget(self.any_counts.get_mut(slot), change);
                if let Some((_, merged)) = self.groups.get_mut(slot) {
                    merged.any.done(change);
                }
                slot
            }
            Place::Exact(slot) => {
                forget(self.exact_counts.get_mut(slot), change);
                let Some(flow) = self.flows.get_mut(slot) else {
                    return;
                };
                flow.exact.done(change);
                usize::from(flow.group)
            }
        };
        self.settle(group);
    }

    /// Notes which entries of the group at a slot are to be changed.
    pub(super) fn settle_entries(&mut self, slot: usize) {
        let Some((_, merged)) = self.groups.get(slot) else {
            return;
        };
        let is_open = self.base.is_open;
        let is_pending = |forwarding: &Forwarding| is_open && forwarding.next().is_some();
        self.any_entries.keep(slot, is_pending(&merged.any));
        let exact_entries = &mut *self.exact_entries;
        for_each_flow(self.groups, self.flows, slot, |at, flow| {
            exact_entries.keep(at, is_pending(&flow.exact));
        });
    }
}

/// Forgets what the kernel counted on an entry that is removed. Does not touch what is forgotten.
fn forget(counts: Option<&mut Counts>, change: &Change) {
    if let Some(counts) = counts.filter(|counts| **counts != Counts::default())
        && !change.present
    {
        *counts = Counts::default();
    }
}

const _: () = assert!(CAPACITY <= u16::MAX as usize);
