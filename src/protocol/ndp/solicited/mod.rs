//! The solicited-node groups wanted upstream, each with a count of the addresses behind it.
//!
//! RFC 4861 §7.2.1: a node must not leave a solicited-node group while any of its addresses still
//! maps to it. So the router joins a group with the first address and leaves it with the last.
//!
//! Each join costs the gateway a report, so new groups are joined at a limited rate. A group for
//! which there is no token yet waits for one; none is forgotten.

mod queue;

use core::net::Ipv6Addr;

use crate::config::Config;
use crate::tables::deadlines::Deadlines;
use crate::tables::pending::{Pending, SlotSet};
use crate::tables::rate::Bucket;
use crate::tables::table::{Full, Key, Table};
use crate::time::{Duration, Instant, earliest};
use crate::wire::SolicitedNode;

use queue::Queue;

/// The most groups kept: one for each of 4,096 addresses, and 1,024 that wait to be left.
pub const CAPACITY: usize = 5120;
/// From a join or leave that failed to the next attempt.
pub const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// From the moment when no address maps to a group any more until the router leaves it: a host that
/// comes and goes costs no reports.
pub const LEAVE_DELAY: Duration = Duration::from_secs(10);
/// So many groups are left before their time when a new one finds the table full.
pub const MAKE_ROOM: usize = 8;

/// A group, as wanted and as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// How many addresses and listeners map to it. The group is wanted while there is one.
    pub members: u16,
    /// How many of these are listeners, whose addresses are not known.
    pub listeners: u16,
    pub membership: Membership,
    /// The address that came or went last; the group's own where only a listener to it is known.
    pub address: Ipv6Addr,
    /// The number of the host for which it was wanted first. That host may have gone since.
    first_host: u16,
}

/// The router's membership of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Membership {
    /// The group is wanted, and its join waits for a token.
    Waiting,
    /// The group is wanted, and to be joined.
    Joining,
    /// The group is wanted, and the router is a member.
    Joined,
    /// The router is a member. Nobody wants the group, which is left after [`LEAVE_DELAY`].
    Idle,
    /// The router is a member. Nobody wants the group, which is to be left.
    Leaving,
}

impl Group {
    /// Is the router a member upstream?
    pub fn is_joined(&self) -> bool {
        self.membership.is_joined()
    }
}

impl Membership {
    fn is_joined(self) -> bool {
        match self {
            Membership::Joined | Membership::Idle | Membership::Leaving => true,
            Membership::Waiting | Membership::Joining => false,
        }
    }

    /// Is there something to be carried out?
    fn is_changing(self) -> bool {
        match self {
            Membership::Joining | Membership::Leaving => true,
            Membership::Waiting | Membership::Joined | Membership::Idle => false,
        }
    }
}

/// A join or leave that is to be carried out.
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

/// Who makes a new group wanted, and so how long its join may have to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// A host that the kernel remembers: its group is joined at once, so that a restart costs the
    /// host nothing.
    Remembered,
    /// A host that has answered a question.
    Resident,
    /// Any other host.
    Newcomer,
}

const WORDS: usize = CAPACITY / 32;
/// As many groups of hosts that the kernel remembers are joined at once.
const REMEMBERED_BURST: u32 = CAPACITY as u32;

/// What [`Groups`] are kept in.
pub struct Storage {
    table: Table<SolicitedNode, Group, CAPACITY>,
    idle: Deadlines<CAPACITY>,
    joined: SlotSet<WORDS>,
    leaving: SlotSet<WORDS>,
    resumed: SlotSet<WORDS>,
}

impl Storage {
    pub(crate) const fn new() -> Self {
        Storage {
            table: Table::new(),
            idle: Deadlines::new(),
            joined: SlotSet::new(),
            leaving: SlotSet::new(),
            resumed: SlotSet::new(),
        }
    }
}

/// The groups wanted upstream, at most [`CAPACITY`]; a full table refuses the newcomer.
pub struct Groups<'t> {
    table: &'t mut Table<SolicitedNode, Group, CAPACITY>,
    /// When each group that is [`Membership::Idle`] is to be left.
    idle: &'t mut Deadlines<CAPACITY>,
    /// Slots of the groups that the router is a member of.
    joined: &'t mut SlotSet<WORDS>,
    /// Slots of the groups that are [`Membership::Leaving`].
    leaving: &'t mut SlotSet<WORDS>,
    /// Slots of the groups that were, and that somebody wants again.
    resumed: &'t mut SlotSet<WORDS>,
    /// Slots of the groups that are to be joined or left.
    pending: Pending<WORDS>,
    /// Slots of the groups that are [`Membership::Waiting`].
    residents: Queue,
    newcomers: Queue,
    /// For what the kernel remembers: a table full of it at the start, and then no more than of any
    /// others.
    remembered: Bucket,
}

impl<'t> Groups<'t> {
    /// No groups, in a storage whose hash gets a key.
    pub(crate) fn new(storage: &'t mut Storage, hash_key: [u8; 16]) -> Self {
        let Storage {
            table,
            idle,
            joined,
            leaving,
            resumed,
        } = storage;
        table.begin(hash_key);
        idle.clear();
        joined.clear();
        leaving.clear();
        resumed.clear();
        Groups {
            table,
            idle,
            joined,
            leaving,
            resumed,
            pending: Pending::new(),
            residents: Queue::new(),
            newcomers: Queue::new(),
            remembered: Bucket::new(),
        }
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

    /// The groups from a slot on, each with its own. A group keeps its slot for as long as it is
    /// wanted or joined.
    pub fn iter_from(&self, first: usize) -> impl Iterator<Item = (usize, SolicitedNode, &Group)> {
        self.table.iter_from(first)
    }

    /// The groups joined, with their slots, from a slot on.
    pub(crate) fn joined_from(&self, first: usize) -> impl Iterator<Item = (usize, SolicitedNode)> {
        let slots = self.joined.iter_from(first);
        slots.filter_map(|slot| Some((slot, self.at(slot)?)))
    }

    /// The groups that are to be left, with their slots, from a slot on.
    pub(crate) fn leaving_from(
        &self,
        first: usize,
    ) -> impl Iterator<Item = (usize, SolicitedNode)> {
        let slots = self.leaving.iter_from(first);
        slots.filter_map(|slot| Some((slot, self.at(slot)?)))
    }

    /// A group that was to be left, and that somebody wants again; each once.
    pub(crate) fn next_resumed(&mut self) -> Option<(usize, SolicitedNode)> {
        let slot = self.resumed.take_first()?;
        Some((slot, self.at(slot)?))
    }

    /// How many groups wait for a token before their first join.
    #[inline]
    pub fn waiting(&self) -> usize {
        let residents = self.residents.slots.len();
        residents.saturating_add(self.newcomers.slots.len())
    }

    /// Can the group be wanted? Asks nobody while there is room for any.
    pub(crate) fn has_room_for(&self, group: SolicitedNode) -> bool {
        self.table.len() < CAPACITY || self.table.find(&group).is_some()
    }

    /// Where the table is full, leaves the groups that nobody has wanted for longest, up to
    /// [`MAKE_ROOM`] of them: the next newcomers find room.
    pub(crate) fn make_room(&mut self) {
        if self.table.len() < CAPACITY {
            return;
        }
        for _ in 0..MAKE_ROOM {
            let Some((slot, _)) = self.idle.first() else {
                return;
            };
            self.enter(slot, Membership::Leaving);
        }
    }

    /// The slot of a group that is joined.
    pub(crate) fn joined_slot(&self, group: SolicitedNode) -> Option<usize> {
        let slot = self.table.find(&group)?;
        self.joined.contains(slot).then_some(slot)
    }

    /// The group at a slot.
    pub(crate) fn at(&self, slot: usize) -> Option<SolicitedNode> {
        let (group, _) = self.table.get(slot)?;
        Some(group)
    }

    /// The number of the host for which a group was wanted first; `None` if nobody wants it.
    pub(crate) fn first_host(&self, group: SolicitedNode) -> Option<u16> {
        let state = self.get(group).filter(|state| state.members > 0);
        state.map(|state| state.first_host)
    }

    /// Notes another host as the first, because that one has gone.
    pub(crate) fn set_first_host(&mut self, group: SolicitedNode, host: u16) {
        if let Some(slot) = self.table.find(&group)
            && let Some((_, state)) = self.table.get_mut(slot)
        {
            state.first_host = host;
        }
    }

    /// The group is wanted once more, because of `address` of the host with a number; of a listener
    /// that is the group's own.
    /// Does its join have to wait?
    pub(crate) fn acquire(
        &mut self,
        now: Instant,
        config: &Config,
        group: SolicitedNode,
        (host, address): (u16, Ipv6Addr),
        standing: Standing,
    ) -> Result<bool, Full> {
        let slot = match self.table.find(&group) {
            Some(slot) => slot,
            None => self.insert(now, config, group, address, standing)?,
        };
        if standing == Standing::Resident {
            self.prefer(slot);
        }
        if let Some((_, state)) = self.table.get_mut(slot) {
            if state.members == 0 {
                state.first_host = host;
            }
            state.members = state.members.saturating_add(1);
            let listens = address.is_multicast();
            state.listeners = state.listeners.saturating_add(listens.into());
            state.address = address;
        }
        match self.membership_at(slot) {
            None | Some(Membership::Waiting | Membership::Joined) => {}
            // A join that failed is tried again at once.
            Some(Membership::Joining) => self.enter(slot, Membership::Joining),
            Some(Membership::Idle) => self.enter(slot, Membership::Joined),
            Some(Membership::Leaving) => {
                self.resumed.insert(slot);
                self.enter(slot, Membership::Joined);
            }
        }
        self.admit(now, config);
        Ok(self.membership_at(slot) == Some(Membership::Waiting))
    }

    /// The group is wanted once less, because `address` is gone, as it was told when it came.
    pub(crate) fn release(&mut self, now: Instant, group: SolicitedNode, address: Ipv6Addr) {
        let Some(slot) = self.table.find(&group) else {
            return;
        };
        let Some((_, state)) = self.table.get_mut(slot) else {
            return;
        };
        state.members = state.members.saturating_sub(1);
        let listened = address.is_multicast();
        state.listeners = state.listeners.saturating_sub(listened.into());
        state.address = address;
        let is_wanted = state.members > 0;
        match state.membership {
            Membership::Waiting | Membership::Joining if !is_wanted => self.end(slot),
            // A join that failed is tried again at once.
            Membership::Joining => self.enter(slot, Membership::Joining),
            Membership::Joined if !is_wanted => {
                self.enter(slot, Membership::Idle);
                self.idle.set(slot, now.saturating_add(LEAVE_DELAY));
            }
            Membership::Waiting | Membership::Joined | Membership::Idle | Membership::Leaving => {}
        }
    }

    /// A host that has answered wants the group, which so waits before those of strangers.
    pub(crate) fn vouch_for(&mut self, group: SolicitedNode) {
        if self.newcomers.slots.is_empty() {
            return;
        }
        if let Some(slot) = self.table.find(&group) {
            self.prefer(slot);
        }
    }

    fn prefer(&mut self, slot: usize) {
        if self.newcomers.slots.contains(slot) {
            self.newcomers.slots.remove(slot);
            self.residents.slots.insert(slot);
        }
    }

    /// Has as many waiting groups joined as there are tokens for.
    #[inline]
    pub(crate) fn admit(&mut self, now: Instant, config: &Config) {
        // The engine asks after each packet, and seldom does a group wait.
        if self.waiting() > 0 {
            self.admit_waiting(now, config);
        }
    }

    fn admit_waiting(&mut self, now: Instant, config: &Config) {
        while let Some(slot) = self.residents.next(now, config) {
            self.enter(slot, Membership::Joining);
        }
        while let Some(slot) = self.newcomers.next(now, config) {
            self.enter(slot, Membership::Joining);
        }
    }

    /// The next change to carry out. The same one again until [`Self::done`] is told of it.
    pub(crate) fn poll_change(&self) -> Option<Change> {
        let slot = self.pending.next()?;
        let (group, state) = self.table.get(slot)?;
        Some(Change {
            slot,
            group,
            address: state.address,
            join: !state.is_joined(),
        })
    }

    /// A change was carried out, or failed and is to be tried again [`RETRY_INTERVAL`] after `now`.
    pub(crate) fn done(&mut self, now: Instant, change: &Change, succeeded: bool) {
        let slot = change.slot;
        if !succeeded {
            let retry_at = now.saturating_add(RETRY_INTERVAL);
            self.pending.fail(slot, retry_at);
            return;
        }
        match (self.membership_at(slot), change.join) {
            (Some(Membership::Waiting | Membership::Joining), true) => {
                self.enter(slot, Membership::Joined);
            }
            (Some(Membership::Idle | Membership::Leaving), false) => self.end(slot),
            (Some(Membership::Joined), false) => self.enter(slot, Membership::Joining),
            (Some(Membership::Waiting | Membership::Joining), false)
            | (Some(Membership::Joined | Membership::Idle | Membership::Leaving), true)
            | (None, true | false) => {}
        }
    }

    /// The upstream is gone, and every membership with it. Touches every group.
    pub(crate) fn forget_memberships(&mut self) {
        for slot in self.table.slots() {
            match self.membership_at(slot) {
                None | Some(Membership::Waiting) => {}
                Some(Membership::Joining | Membership::Joined) => {
                    self.enter(slot, Membership::Joining);
                }
                Some(Membership::Idle | Membership::Leaving) => self.end(slot),
            }
        }
    }

    /// When to try again what failed, when a group is to be left, or when there is a token for a
    /// group that waits.
    pub(crate) fn next_deadline(&self, config: &Config) -> Option<Instant> {
        let leave = self.idle.first().map(|(_, due)| due);
        let own = earliest(&[self.pending.next_deadline(), leave]);
        if self.waiting() == 0 {
            return own;
        }
        let tokens = [&self.residents, &self.newcomers].map(|queue| queue.next_token(config));
        earliest(&[own, earliest(&tokens)])
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        while let Some(slot) = self.idle.first_due(now) {
            self.enter(slot, Membership::Leaving);
        }
        self.pending.handle_timeout(now);
    }

    /// A slot for a new group, which waits for its join unless the kernel remembers its host.
    fn insert(
        &mut self,
        now: Instant,
        config: &Config,
        group: SolicitedNode,
        address: Ipv6Addr,
        standing: Standing,
    ) -> Result<usize, Full> {
        let new = Group {
            members: 0,
            listeners: 0,
            membership: Membership::Waiting,
            address,
            first_host: 0,
        };
        let slot = self.table.insert(group, new)?;
        let is_free = standing == Standing::Remembered
            && self
                .remembered
                .take(now, config.join_rate, REMEMBERED_BURST);
        if is_free {
            self.enter(slot, Membership::Joining);
        } else {
            self.newcomers.slots.insert(slot);
        }
        Ok(slot)
    }

    fn membership_at(&self, slot: usize) -> Option<Membership> {
        let (_, state) = self.table.get(slot)?;
        Some(state.membership)
    }

    /// A group's membership is this now. What failed before is tried at once.
    fn enter(&mut self, slot: usize, membership: Membership) {
        let Some((_, state)) = self.table.get_mut(slot) else {
            return;
        };
        state.membership = membership;
        if membership != Membership::Idle {
            self.idle.remove(slot);
        }
        self.joined.set(slot, membership.is_joined());
        self.leaving.set(slot, membership == Membership::Leaving);
        self.pending.set(slot, membership.is_changing());
    }

    /// A group is neither wanted nor joined.
    fn end(&mut self, slot: usize) {
        self.table.remove(slot);
        self.idle.remove(slot);
        self.joined.remove(slot);
        self.leaving.remove(slot);
        self.resumed.remove(slot);
        self.pending.set(slot, false);
        self.residents.slots.remove(slot);
        self.newcomers.slots.remove(slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(number: usize) -> (SolicitedNode, Ipv6Addr) {
        let address = Ipv6Addr::from_bits(0x2001_0db8_u128 << 96 | number as u128);
        (SolicitedNode::of(address), address)
    }

    #[test]
    fn a_full_table_leaves_a_few_groups_that_nobody_has_wanted_for_longest() {
        let storage = &mut Storage::new();
        let mut groups = Groups::new(storage, [7; 16]);
        let mut config = Config::new("wan".parse().unwrap());
        config.join_rate = 1_000_000;
        config.join_burst = 1_000_000;
        for number in 0..CAPACITY {
            let (group, address) = group(number);
            let acquired = groups.acquire(
                Instant::ZERO,
                &config,
                group,
                (0, address),
                Standing::Newcomer,
            );
            assert_eq!(acquired, Ok(false));
            let join = groups.poll_change().unwrap();
            groups.done(Instant::ZERO, &join, true);
        }
        // The last group is the first that nobody wants.
        let wanted_by_nobody = 3 * MAKE_ROOM;
        for number in (0..wanted_by_nobody).rev() {
            let now = Instant::from_millis((CAPACITY - number) as u64);
            let (group, address) = group(number);
            groups.release(now, group, address);
        }
        groups.make_room();
        let mut left = heapless::Vec::<SolicitedNode, 64>::new();
        while let Some(leave) = groups.poll_change() {
            assert!(!leave.join);
            left.push(leave.group).unwrap();
            groups.done(Instant::ZERO, &leave, true);
        }
        let oldest = wanted_by_nobody - MAKE_ROOM..wanted_by_nobody;
        assert_eq!(left.len(), MAKE_ROOM);
        assert!(oldest.clone().all(|number| left.contains(&group(number).0)));
        groups.make_room();
        assert_eq!(groups.poll_change(), None, "there is room");
        // Each of the rest is left at its own time, and no other one is touched.
        let due = groups.next_deadline(&config).unwrap();
        groups.handle_timeout(due);
        let leave = groups.poll_change().unwrap();
        assert_eq!(leave.group, group(oldest.start - 1).0);
        assert_eq!(groups.leaving_from(0).count(), 1);
    }
}
