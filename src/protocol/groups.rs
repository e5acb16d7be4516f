//! The solicited-node groups wanted upstream, each with a count of the addresses behind it.
//!
//! RFC 4861 §7.2.1: a node must not leave a solicited-node group while any of its addresses still maps to it. So a group is joined
//! with the first address and left with the last.

use core::net::Ipv6Addr;

use crate::pending::Pending;
use crate::table::{Full, Key, Table};
use crate::time::{Duration, Instant, bring_forward};
use crate::wire::SolicitedNode;

/// The most groups kept: one for each of 4,096 addresses, and 1,024 that wait to be left.
pub const CAPACITY: usize = 5120;
/// Until a join or leave that failed is tried again.
pub const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// From the moment when no address maps to a group any more until it is left: a host that comes and goes costs no reports.
pub const LEAVE_DELAY: Duration = Duration::from_secs(10);

/// A group, as wanted and as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// How many addresses and listeners map to it. The group is wanted while there is one.
    pub members: u16,
    /// How many of these are listeners, whose addresses are not known.
    pub listeners: u16,
    /// Is the router a member upstream?
    pub joined: bool,
    /// The address that came or went last; the group's own where only a listener to it is known.
    pub address: Ipv6Addr,
    /// Since when nobody wants it.
    idle_since: Instant,
}

/// A join (or leave) that is to be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Stays the group's own from before its join until after its leave; below [`CAPACITY`].
    pub slot: usize,
    pub group: SolicitedNode,
    /// The address that makes it necessary; the group's own where only a listener to it is known.
    pub address: Ipv6Addr,
    /// Join or leave?
    pub join: bool,
}

impl Key for SolicitedNode {
    fn bits(&self) -> u128 {
        self.group().bits()
    }
}

/// The groups wanted upstream, at most [`CAPACITY`]; a full table refuses the newcomer.
pub struct Groups {
    table: Table<SolicitedNode, Group, CAPACITY>,
    /// Slots whose group is wanted and not joined, or joined and not wanted.
    pending: Pending<{ CAPACITY / 32 }>,
    /// No group's delay before it is left ends earlier.
    next_leave: Option<Instant>,
}

impl Groups {
    pub(crate) const fn new() -> Self {
        let vacant = Group {
            members: 0,
            listeners: 0,
            joined: false,
            address: Ipv6Addr::UNSPECIFIED,
            idle_since: Instant::ZERO,
        };
        Groups {
            table: Table::new(SolicitedNode::of(Ipv6Addr::UNSPECIFIED), vacant),
            pending: Pending::new(),
            next_leave: None,
        }
    }

    pub(crate) fn set_hash_key(&mut self, hash_key: [u8; 16]) {
        self.table.set_hash_key(hash_key);
    }

    /// How many groups are wanted, or joined and not yet left.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    pub fn get(&self, group: SolicitedNode) -> Option<&Group> {
        let (_, group) = self.table.get(self.table.find(&group)?)?;
        Some(group)
    }

    /// Did a join or leave fail that was not made good yet?
    pub fn is_failing(&self) -> bool {
        self.pending.is_failing()
    }

    pub fn iter(&self) -> impl Iterator<Item = (SolicitedNode, &Group)> {
        self.iter_from(0).map(|(_, group, state)| (group, state))
    }

    /// Those from a slot on, each with its own. One keeps its slot for as long as it is wanted or joined.
    pub fn iter_from(&self, first: usize) -> impl Iterator<Item = (usize, SolicitedNode, &Group)> {
        self.table.iter_from(first)
    }

    /// The groups joined, with their slots, from a slot on.
    pub(crate) fn joined_from(&self, first: usize) -> impl Iterator<Item = (usize, SolicitedNode)> {
        self.table
            .iter_from(first)
            .filter(|(_, _, state)| state.joined)
            .map(|(slot, group, _)| (slot, group))
    }

    /// The group is wanted once more, because of `address`; of a listener that is the group's own.
    pub(crate) fn acquire(&mut self, group: SolicitedNode, address: Ipv6Addr) -> Result<(), Full> {
        let slot = match self.table.find(&group) {
            Some(slot) => slot,
            None => {
                let new = Group {
                    members: 0,
                    listeners: 0,
                    joined: false,
                    address,
                    idle_since: Instant::ZERO,
                };
                match self.table.insert(group, new) {
                    Ok(slot) => slot,
                    Err(Full) => {
                        // Those that wait to be left make room for the next one.
                        self.leave_idle(None);
                        return Err(Full);
                    }
                }
            }
        };
        if let Some((_, state)) = self.table.get_mut(slot) {
            state.members = state.members.saturating_add(1);
            let listens = address.is_multicast();
            state.listeners = state.listeners.saturating_add(listens.into());
            state.address = address;
        }
        self.settle(slot);
        Ok(())
    }

    /// The group is wanted once less, because `address` is gone, as it was told when it came.
    pub(crate) fn release(&mut self, now: Instant, group: SolicitedNode, address: Ipv6Addr) {
        let Some(slot) = self.table.find(&group) else {
            return;
        };
        if let Some((_, state)) = self.table.get_mut(slot) {
            state.members = state.members.saturating_sub(1);
            let listened = address.is_multicast();
            state.listeners = state.listeners.saturating_sub(listened.into());
            state.address = address;
            if state.members == 0 && state.joined {
                state.idle_since = now;
                self.next_leave
                    .get_or_insert(now.saturating_add(LEAVE_DELAY));
                return;
            }
        }
        self.settle(slot);
    }

    /// The next change to carry out. The same one again until [`Self::done`] is told of it.
    pub(crate) fn poll_change(&self) -> Option<Change> {
        let slot = self.pending.next()?;
        let (group, state) = self.table.get(slot)?;
        Some(Change {
            slot,
            group,
            address: state.address,
            join: !state.joined,
        })
    }

    /// A change was carried out, or failed and is to be tried again [`RETRY_INTERVAL`] after `now`.
    pub(crate) fn done(&mut self, now: Instant, change: &Change, succeeded: bool) {
        if !succeeded {
            let retry_at = now.saturating_add(RETRY_INTERVAL);
            self.pending.fail(change.slot, retry_at);
            return;
        }
        if let Some((_, state)) = self.table.get_mut(change.slot) {
            state.joined = change.join;
        }
        self.settle(change.slot);
    }

    /// The upstream is gone, and every membership with it.
    pub(crate) fn forget_memberships(&mut self) {
        for slot in self.table.slots() {
            if let Some((_, state)) = self.table.get_mut(slot) {
                state.joined = false;
                self.settle(slot);
            }
        }
    }

    /// When to try again what failed, or when a group is to be left.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let retry = self.pending.next_deadline();
        retry.into_iter().chain(self.next_leave).min()
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.next_leave.is_some_and(|due| due <= now) {
            self.leave_idle(Some(now));
        }
        self.pending.handle_timeout(now);
    }

    /// Leaves the groups that nobody wants, at `now` those whose delay is over.
    fn leave_idle(&mut self, now: Option<Instant>) {
        self.next_leave = None;
        for slot in self.table.slots() {
            let Some((_, state)) = self.table.get(slot) else {
                continue;
            };
            if state.members > 0 {
                continue;
            }
            let due = state.idle_since.saturating_add(LEAVE_DELAY);
            if now.is_some_and(|now| now < due) {
                bring_forward(&mut self.next_leave, due);
            } else {
                self.settle(slot);
            }
        }
    }

    /// Brings what is pending in line with a group whose state changed; ends one that is neither wanted nor joined.
    fn settle(&mut self, slot: usize) {
        let Some((_, state)) = self.table.get(slot) else {
            return;
        };
        let wanted = state.members > 0;
        self.pending.set(slot, wanted != state.joined);
        if !wanted && !state.joined {
            self.table.remove(slot);
        }
    }
}
