//! The solicited-node groups wanted upstream, each with a count of the addresses behind it.
//!
//! RFC 4861 §7.2.1: a node must not leave a solicited-node group while any of its addresses still maps to it. So a group is joined
//! with the first address and left with the last.
//!
//! Each join costs the gateway a report, so new groups are joined at a limited rate. Those for which there is no token yet wait for
//! one; none is forgotten.

use core::net::Ipv6Addr;

use crate::config::Config;
use crate::tables::pending::{Pending, SlotSet};
use crate::tables::rate::Bucket;
use crate::tables::table::{Full, Key, Table};
use crate::time::{Duration, Instant, bring_forward, earliest};
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

/// Who makes a new group wanted, and so how long it may have to wait for its join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// A host that the kernel remembers: its group is joined at once, so that a restart costs it nothing.
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
pub type Storage = Table<SolicitedNode, Group, CAPACITY>;

/// The groups wanted upstream, at most [`CAPACITY`]; a full table refuses the newcomer.
pub struct Groups<'t> {
    table: &'t mut Storage,
    /// Slots whose group is wanted and not joined, or joined and not wanted.
    pending: Pending<WORDS>,
    /// Slots of wanted groups that wait for a token before their first join.
    residents: Queue,
    newcomers: Queue,
    /// For what the kernel remembers: a table full of it at the start, and then no more than of any others.
    remembered: Bucket,
    /// No group's delay before it is left ends earlier.
    next_leave: Option<Instant>,
}

impl<'t> Groups<'t> {
    /// No groups, in a storage whose hash gets a key.
    pub(crate) fn new(table: &'t mut Storage, hash_key: [u8; 16]) -> Self {
        table.begin(hash_key);
        Groups {
            table,
            pending: Pending::new(),
            residents: Queue::new(),
            newcomers: Queue::new(),
            remembered: Bucket::new(),
            next_leave: None,
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

    fn waits(&self, slot: usize) -> bool {
        self.residents.slots.contains(slot) || self.newcomers.slots.contains(slot)
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

    /// Where the table is full, those that wait to be left make room for the next one.
    pub(crate) fn make_room(&mut self) {
        if self.table.len() >= CAPACITY {
            self.leave_idle(None);
        }
    }

    /// The groups that are about to be left, with their slots, from a slot on.
    pub(crate) fn leaving_from(
        &self,
        first: usize,
    ) -> impl Iterator<Item = (usize, SolicitedNode)> {
        self.pending
            .iter_from(first)
            .filter_map(|slot| Some((slot, self.table.get(slot)?)))
            .filter(|(_, (_, state))| state.joined)
            .map(|(slot, (group, _))| (slot, group))
    }

    /// The group at a slot, if it is joined and wanted.
    pub(crate) fn kept_at(&self, slot: usize) -> Option<SolicitedNode> {
        let (group, state) = self.table.get(slot)?;
        (state.joined && state.members > 0).then_some(group)
    }

    /// The slot of a group that is joined.
    pub(crate) fn joined_slot(&self, group: SolicitedNode) -> Option<usize> {
        let slot = self.table.find(&group)?;
        let (_, state) = self.table.get(slot)?;
        state.joined.then_some(slot)
    }

    /// The group at a slot.
    pub(crate) fn at(&self, slot: usize) -> Option<SolicitedNode> {
        Some(self.table.get(slot)?.0)
    }

    /// The group is wanted once more, because of `address`; of a listener that is the group's own. Does its join have to wait?
    pub(crate) fn acquire(
        &mut self,
        now: Instant,
        config: &Config,
        group: SolicitedNode,
        address: Ipv6Addr,
        standing: Standing,
    ) -> Result<bool, Full> {
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
                let slot = self.table.insert(group, new)?;
                let is_free = standing == Standing::Remembered
                    && self
                        .remembered
                        .take(now, config.join_rate, REMEMBERED_BURST);
                if !is_free {
                    self.newcomers.slots.insert(slot);
                }
                slot
            }
        };
        if standing == Standing::Resident {
            self.prefer(slot);
        }
        if let Some((_, state)) = self.table.get_mut(slot) {
            state.members = state.members.saturating_add(1);
            let listens = address.is_multicast();
            state.listeners = state.listeners.saturating_add(listens.into());
            state.address = address;
        }
        self.admit(now, config);
        self.settle(slot);
        Ok(self.waits(slot))
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
        // After each packet, and there is seldom one.
        if self.waiting() > 0 {
            self.admit_waiting(now, config);
        }
    }

    fn admit_waiting(&mut self, now: Instant, config: &Config) {
        while let Some(slot) = self.residents.next(now, config) {
            self.settle(slot);
        }
        while let Some(slot) = self.newcomers.next(now, config) {
            self.settle(slot);
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

    /// When to try again what failed, when a group is to be left, or when there is a token for one that waits.
    pub(crate) fn next_deadline(&self, config: &Config) -> Option<Instant> {
        let own = earliest(&[self.pending.next_deadline(), self.next_leave]);
        if self.waiting() == 0 {
            return own;
        }
        let tokens = [&self.residents, &self.newcomers].map(|queue| queue.next_token(config));
        earliest(&[own, earliest(&tokens)])
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
        let joined = state.joined;
        let may_change = !self.waits(slot);
        self.pending.set(slot, wanted != joined && may_change);
        if !wanted && !joined {
            self.residents.slots.remove(slot);
            self.newcomers.slots.remove(slot);
            self.table.remove(slot);
        }
    }
}

/// Slots in a row before a token bucket.
struct Queue {
    slots: SlotSet<WORDS>,
    bucket: Bucket,
    /// Where the next one is looked for, so that none is passed over for ever.
    turn: usize,
}

impl Queue {
    const fn new() -> Self {
        Queue {
            slots: SlotSet::new(),
            bucket: Bucket::new(),
            turn: 0,
        }
    }

    /// Takes out the next slot, if there is one and a token for it.
    fn next(&mut self, now: Instant, config: &Config) -> Option<usize> {
        let (rate, burst) = (config.join_rate, config.join_burst);
        if self.slots.is_empty() || !self.bucket.take(now, rate, burst) {
            return None;
        }
        let slot = self.slots.take_from(self.turn)?;
        self.turn = slot.saturating_add(1);
        Some(slot)
    }

    /// When there is a token for the next slot; `None` where no slot waits.
    fn next_token(&self, config: &Config) -> Option<Instant> {
        let token = || self.bucket.next_token(config.join_rate, config.join_burst);
        (!self.slots.is_empty()).then(token)
    }
}
