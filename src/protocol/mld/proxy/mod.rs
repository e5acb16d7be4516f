//! The proxy: what the listeners downstream make the router want upstream, and what the kernel is
//! to forward (RFC 4605 §4.1, §4.2).
//!
//! [`merge`] derives all of it from the listeners, the links, and where sources are. Packets of a
//! stream change nothing, so none ever waits for this process. [`upstream`] has the memberships,
//! [`entries`] the kernel's forwarding entries, and [`rows`] what there is to tell of both.

pub mod entries;
pub mod merge;
pub mod rows;
pub mod upstream;

use core::net::Ipv6Addr;

use super::filter::FilterMode;
use super::members::GROUPS;
use crate::config::MldVersion;
use crate::tables::pending::{Pending, SlotSet};
use crate::tables::pool::Pool;
use crate::tables::table::{Next, Table};
use crate::time::Instant;

use entries::{Base, Entry, Installed};
use merge::Whereabouts;

/// The most groups kept: those with listeners, and some that are still to be left.
pub const CAPACITY: usize = GROUPS + 512;
/// The most sources of all groups, on all links together.
pub const FLOWS: usize = 8192;
const GROUP_WORDS: usize = CAPACITY / 32;
const FLOW_WORDS: usize = FLOWS / 32;

/// A group that listeners want, merged over all links.
#[derive(Clone, Copy)]
pub struct Merged {
    /// The filter that is wanted upstream; `None` for no membership.
    wanted: Option<FilterMode>,
    /// That of the membership: the kernel's, or the one that the router alone reports.
    joined: Option<FilterMode>,
    /// The membership is the kernel's, or it was before it ended.
    is_of_kernel: bool,
    /// That of the last state-change report.
    told: Option<FilterMode>,
    /// How often that report is still to be repeated.
    times: u8,
    /// The forwarding entry for any source.
    any: Forwarding,
    first_flow: Next,
}

/// A source of a group.
#[derive(Clone, Copy)]
pub struct Flow {
    pub source: Ipv6Addr,
    /// The slot of the group.
    group: u16,
    /// Is the source in the list of the filter upstream: as wanted, of the kernel's membership, and
    /// of the last state-change report?
    wanted: bool,
    joined: bool,
    told: bool,
    /// The forwarding entry for this source.
    exact: Forwarding,
    /// The links on which the source is included, and on which it is excluded.
    included: u32,
    excluded: u32,
    next: Next,
}

/// A forwarding entry, as wanted and as it is in the kernel.
#[derive(Clone, Copy)]
pub struct Forwarding {
    wanted: Option<Entry>,
    installed: Installed,
}

/// What the kernel counted on a forwarding entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub packets: u64,
    pub octets: u64,
    /// Packets that came from another side than the source's.
    pub wrong_side: u32,
    /// Seconds since the last packet, or since the entry was made.
    pub idle: u32,
}

impl Forwarding {
    const NONE: Forwarding = Forwarding {
        wanted: None,
        installed: Installed::No,
    };

    fn is_unused(&self) -> bool {
        self.wanted.is_none() && self.installed == Installed::No
    }

    /// The entry as it is in the kernel; `None` if there is none.
    pub fn installed(&self) -> Option<Entry> {
        match self.installed {
            Installed::No => None,
            Installed::Yes(entry) | Installed::Unsure(entry) => Some(entry),
        }
    }
}

impl Merged {
    /// Does the router alone report the group that it is a member of?
    pub(crate) fn is_alone(&self) -> bool {
        self.joined.is_some() && !self.is_of_kernel
    }
}

/// What [`Proxy`] is kept in.
pub struct Storage {
    groups: Table<Ipv6Addr, Merged, CAPACITY>,
    flows: Pool<Flow, FLOWS>,
    stale: SlotSet<GROUP_WORDS>,
    memberships: Pending<GROUP_WORDS>,
    changes: SlotSet<GROUP_WORDS>,
    repeats: SlotSet<GROUP_WORDS>,
    any_entries: Pending<GROUP_WORDS>,
    exact_entries: Pending<FLOW_WORDS>,
    any_counts: [Counts; CAPACITY],
    exact_counts: [Counts; FLOWS],
}

impl Storage {
    pub(crate) const fn new() -> Self {
        Storage {
            groups: Table::new(),
            flows: Pool::new(),
            stale: SlotSet::new(),
            memberships: Pending::new(),
            changes: SlotSet::new(),
            repeats: SlotSet::new(),
            any_entries: Pending::new(),
            exact_entries: Pending::new(),
            any_counts: [Counts::NONE; _],
            exact_counts: [Counts::NONE; _],
        }
    }
}

impl Counts {
    const NONE: Counts = Counts {
        packets: 0,
        octets: 0,
        wrong_side: 0,
        idle: 0,
    };
}

/// The groups that are wanted upstream and forwarded.
pub struct Proxy<'t> {
    groups: &'t mut Table<Ipv6Addr, Merged, CAPACITY>,
    flows: &'t mut Pool<Flow, FLOWS>,
    /// Groups whose listeners or surroundings changed since they were merged.
    stale: &'t mut SlotSet<GROUP_WORDS>,
    /// Groups whose membership upstream is to be changed.
    memberships: &'t mut Pending<GROUP_WORDS>,
    /// Groups whose change is to be reported now, and those whose report is repeated at
    /// `repeat_at`.
    changes: &'t mut SlotSet<GROUP_WORDS>,
    repeats: &'t mut SlotSet<GROUP_WORDS>,
    repeat_at: Option<Instant>,
    any_entries: &'t mut Pending<GROUP_WORDS>,
    exact_entries: &'t mut Pending<FLOW_WORDS>,
    /// What the kernel has counted, by the slots of groups and flows. It is known of entries that
    /// the caller told of, and of those alone the memory is used.
    any_counts: &'t mut [Counts; CAPACITY],
    exact_counts: &'t mut [Counts; FLOWS],
    base: Base,
    versions: Versions,
    /// How many groups the report polled last tells of.
    polled: usize,
    /// How many groups the kernel is a member of.
    joined: u16,
    /// Groups, or sources of them, found no room. They are merged once there is some.
    refused: Refused,
}

/// What found no room.
#[derive(Clone, Copy, Default)]
struct Refused {
    groups: bool,
    sources: bool,
}

/// The versions of MLD upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Versions {
    /// The one in force.
    pub in_force: MldVersion,
    /// The one that the kernel speaks.
    pub of_kernel: MldVersion,
}

impl<'t> Proxy<'t> {
    /// Nothing yet, in tables whose hash gets a key; `None` while the MLD proxy is off. With
    /// `senders`, what downstream hosts send goes upstream.
    pub(crate) fn new(storage: &'t mut Storage, hash_key: Option<[u8; 16]>, senders: bool) -> Self {
        let Storage {
            groups,
            flows,
            stale,
            memberships,
            changes,
            repeats,
            any_entries,
            exact_entries,
            any_counts,
            exact_counts,
        } = storage;
        groups.clear();
        if let Some(hash_key) = hash_key {
            groups.begin(hash_key);
        }
        flows.clear();
        stale.clear();
        memberships.clear();
        changes.clear();
        repeats.clear();
        any_entries.clear();
        exact_entries.clear();
        Proxy {
            groups,
            flows,
            stale,
            memberships,
            changes,
            repeats,
            repeat_at: None,
            any_entries,
            exact_entries,
            any_counts,
            exact_counts,
            base: Base::new(senders),
            versions: Versions {
                in_force: MldVersion::V2,
                of_kernel: MldVersion::V2,
            },
            polled: 0,
            joined: 0,
            refused: Refused::default(),
        }
    }

    /// How many groups the kernel is a member of upstream.
    pub fn joined(&self) -> u16 {
        self.joined
    }

    /// Whether a change of a membership or of a forwarding entry failed and waits for its retry.
    pub fn is_failing(&self) -> bool {
        self.memberships.is_failing()
            || self.any_entries.is_failing()
            || self.exact_entries.is_failing()
            || self.base.is_failing()
    }

    pub fn get(&self, group: Ipv6Addr) -> Option<&Merged> {
        let (_, merged) = self.groups.get(self.groups.find(&group)?)?;
        Some(merged)
    }

    pub fn iter(&self) -> impl Iterator<Item = (Ipv6Addr, &Merged)> {
        self.groups
            .iter_from(0)
            .map(|(_, group, merged)| (group, merged))
    }

    /// The sources of a group for which there is more to know than for any other source.
    pub fn flows_of(&self, merged: &Merged) -> impl Iterator<Item = &Flow> {
        let chain = self.flows.chain(merged.first_flow, |flow| flow.next);
        chain.map(|(_, flow)| flow)
    }

    /// The listeners of a group changed.
    pub(crate) fn note(&mut self, group: Ipv6Addr) {
        let merged = Merged {
            wanted: None,
            joined: None,
            is_of_kernel: false,
            told: None,
            times: 0,
            any: Forwarding::NONE,
            first_flow: Next::END,
        };
        let slot = match self.groups.find(&group) {
            Some(slot) => Ok(slot),
            None => self.groups.insert(group, merged),
        };
        match slot {
            Ok(slot) => self.stale.insert(slot),
            Err(_) => self.refused.groups = true,
        }
    }

    /// All groups are to be merged anew.
    pub(crate) fn note_all(&mut self) {
        for (slot, ..) in self.groups.iter_from(0) {
            self.stale.insert(slot);
        }
    }

    /// The groups of sources that may move are to be merged anew.
    pub(crate) fn note_movable(&mut self, whereabouts: &impl Whereabouts) {
        for (_, flow) in self.flows.iter_from(0) {
            if whereabouts.may_move(flow.source) {
                self.stale.insert(usize::from(flow.group));
            }
        }
    }

    /// The versions of MLD for which the groups were merged last.
    pub(crate) fn versions(&self) -> Versions {
        self.versions
    }

    /// Notes what the kernel counted on an entry, with `::` for any source.
    pub(crate) fn set_counts(&mut self, source: Ipv6Addr, group: Ipv6Addr, counts: Counts) {
        let Some(slot) = self.groups.find(&group) else {
            return;
        };
        let place = match source.is_unspecified() {
            true => self.any_counts.get_mut(slot),
            false => {
                let flow = self.find_flow(slot, source);
                flow.and_then(|flow| self.exact_counts.get_mut(flow))
            }
        };
        if let Some(place) = place {
            *place = counts;
        }
    }

    /// The slot of the flow of a source of the group at a slot.
    fn find_flow(&self, slot: usize, source: Ipv6Addr) -> Option<usize> {
        let (_, merged) = self.groups.get(slot)?;
        let is_it = |flow: &Flow| flow.source == source;
        let first = merged.first_flow;
        self.flows.find(first, |flow| flow.next, is_it)
    }

    /// Is anything to be merged?
    pub(crate) fn is_stale(&self) -> bool {
        !self.stale.is_empty() || self.has_room()
    }

    /// Is there room for a group or a source that found none?
    fn has_room(&self) -> bool {
        let for_groups = self.refused.groups && self.groups.len() < CAPACITY;
        for_groups || self.refused.sources && self.flows.len() < FLOWS
    }

    /// Notes what is to be done for the group at a slot, and forgets what nobody wants any more.
    fn settle(&mut self, slot: usize) {
        self.settle_entries(slot);
        self.settle_upstream(slot);
        self.forget_flows(slot);
        let Some((_, merged)) = self.groups.get(slot) else {
            return;
        };
        let is_gone = merged.wanted.is_none()
            && merged.joined.is_none()
            && merged.told.is_none()
            && merged.times == 0
            && merged.any.is_unused()
            && merged.first_flow == Next::END;
        if is_gone {
            self.memberships.set(slot, false);
            self.any_entries.set(slot, false);
            self.changes.remove(slot);
            self.repeats.remove(slot);
            self.groups.remove(slot);
        }
    }

    /// Forgets the flows of a group that nothing is left to be done for.
    fn forget_flows(&mut self, slot: usize) {
        let Some((_, merged)) = self.groups.get_mut(slot) else {
            return;
        };
        let keep = |at, flow: &mut Flow| {
            let is_used = flow.wanted || flow.joined || flow.told || !flow.exact.is_unused();
            if !is_used {
                self.exact_entries.set(at, false);
            }
            is_used
        };
        let first = merged.first_flow;
        merged.first_flow = self.flows.retain(first, |flow| &mut flow.next, keep);
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.memberships.handle_timeout(now);
        self.any_entries.handle_timeout(now);
        self.exact_entries.handle_timeout(now);
        self.base.handle_timeout(now);
        self.repeat_changes(now);
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        crate::time::earliest(&[
            self.memberships.next_deadline(),
            self.any_entries.next_deadline(),
            self.exact_entries.next_deadline(),
            self.base.next_deadline(),
            self.repeat_at,
        ])
    }
}

/// Calls `change` with each flow of the group at a slot.
fn for_each_flow(
    groups: &Table<Ipv6Addr, Merged, CAPACITY>,
    flows: &mut Pool<Flow, FLOWS>,
    slot: usize,
    mut change: impl FnMut(usize, &mut Flow),
) {
    let Some((_, merged)) = groups.get(slot) else {
        return;
    };
    let mut link = merged.first_flow;
    while let Some(at) = link.slot()
        && let Some(flow) = flows.get_mut(at)
    {
        link = flow.next;
        change(at, flow);
    }
}
