//! The router side: who listens to what on the downstream links (RFC 3810 §7).
//!
//! For each link and each group with a listener there, the router keeps a filter mode, a filter
//! timer and sources with timers. Reports change them by the rows of [`filter`](super::filter), and
//! time does by §7.5. [`specific`] has the queries that a leave makes necessary.

mod quota;
mod record;
pub mod specific;

use core::net::Ipv6Addr;

use super::filter::{FilterMode, List};
use crate::link::Port;
use crate::tables::deadlines::Deadlines;
use crate::tables::pending::SlotSet;
use crate::tables::pool::Pool;
use crate::tables::table::{Next, Table};
use crate::time::{Instant, bring_forward};

use quota::Hosts;
use specific::Asking;

pub use quota::{HOSTS, Listener};
pub(crate) use record::Reported;
pub use record::{Limits, Refusal};

/// The most groups.
pub const GROUPS: usize = 4096;
/// The most groups on links: a group on two links counts twice.
pub const LINK_GROUPS: usize = 6144;
/// The most sources of groups on links.
pub const SOURCES: usize = 8192;
const WORDS: usize = LINK_GROUPS / 32;

/// A group on a link: the multicast address record of RFC 3810 §7.2.
#[derive(Clone, Copy)]
pub struct LinkGroup {
    /// The slot of the group.
    group: u16,
    pub port: Port,
    pub mode: Mode,
    /// Until then an MLDv1 host is present (RFC 3810 §8.3.2).
    pub older_host_until: Option<Instant>,
    /// The Multicast Address Specific Queries that are still to be sent.
    asking: Asking,
    /// When the next specific queries are due, for the group or for sources of it.
    next_query: Option<Instant>,
    /// The slot of the host that reported the group first.
    host: u16,
    /// Grows from one group to the next.
    number: u32,
    first_source: Next,
    sources: u8,
    /// The same group on another link.
    next: Next,
}

/// The filter mode of a group on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Include,
    /// Until the filter timer expires.
    Exclude {
        until: Instant,
    },
}

/// A source of a group on a link: the source record of RFC 3810 §7.2.
#[derive(Clone, Copy)]
pub struct Source {
    pub address: Ipv6Addr,
    pub state: SourceState,
    asking: Asking,
    next: Next,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceState {
    /// Until the source timer expires.
    Requested {
        until: Instant,
    },
    Excluded,
}

impl Mode {
    pub fn filter_mode(self) -> FilterMode {
        match self {
            Mode::Include => FilterMode::Include,
            Mode::Exclude { .. } => FilterMode::Exclude,
        }
    }
}

impl SourceState {
    pub fn list(self) -> List {
        match self {
            SourceState::Requested { .. } => List::Requested,
            SourceState::Excluded => List::Excluded,
        }
    }
}

/// What [`Members`] are kept in.
pub struct Storage {
    groups: Table<Ipv6Addr, Next, GROUPS>,
    link_groups: Pool<LinkGroup, LINK_GROUPS>,
    sources: Pool<Source, SOURCES>,
    deadlines: Deadlines<LINK_GROUPS>,
    due: SlotSet<WORDS>,
    hosts: Table<Listener, u16, HOSTS>,
}

impl Storage {
    pub(crate) const fn new() -> Self {
        Storage {
            groups: Table::new(),
            link_groups: Pool::new(),
            sources: Pool::new(),
            deadlines: Deadlines::new(),
            due: SlotSet::new(),
            hosts: Table::new(),
        }
    }
}

/// The listeners downstream.
pub struct Members<'t> {
    /// The groups, each with the first of its links.
    groups: &'t mut Table<Ipv6Addr, Next, GROUPS>,
    link_groups: &'t mut Pool<LinkGroup, LINK_GROUPS>,
    sources: &'t mut Pool<Source, SOURCES>,
    /// When the next timer of each group on a link expires, or earlier.
    deadlines: &'t mut Deadlines<LINK_GROUPS>,
    /// The groups on links for which specific queries are due.
    due: &'t mut SlotSet<WORDS>,
    hosts: Hosts<'t>,
    /// How many groups each link has.
    counts: [u16; crate::link::MAX_DOWNSTREAMS],
    /// The number of the next group on a link.
    next_number: u32,
}

impl<'t> Members<'t> {
    pub(crate) fn new(storage: &'t mut Storage, hash_key: Option<[u8; 16]>) -> Self {
        let Storage {
            groups,
            link_groups,
            sources,
            deadlines,
            due,
            hosts,
        } = storage;
        groups.clear();
        hosts.clear();
        if let Some(hash_key) = hash_key {
            groups.begin(hash_key);
            hosts.begin(hash_key);
        }
        link_groups.clear();
        sources.clear();
        deadlines.clear();
        due.clear();
        Members {
            groups,
            link_groups,
            sources,
            deadlines,
            due,
            hosts: Hosts::new(hosts),
            counts: [0; _],
            next_number: 0,
        }
    }

    /// How many groups have listeners.
    pub fn len(&self) -> usize {
        self.groups.len()
    }

    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// How many groups have listeners on a link.
    pub fn count_on(&self, port: Port) -> u16 {
        let count = self.counts.get(usize::from(port));
        count.copied().unwrap_or_default()
    }

    /// The groups with listeners.
    pub fn groups(&self) -> impl Iterator<Item = Ipv6Addr> {
        self.groups.iter_from(0).map(|(_, group, _)| group)
    }

    /// The links on which a group has listeners.
    pub fn of(&self, group: Ipv6Addr) -> impl Iterator<Item = &LinkGroup> {
        self.chain_of(group).map(|(_, link_group)| link_group)
    }

    /// The sources of a group on a link.
    pub fn sources_of(&self, link_group: &LinkGroup) -> impl Iterator<Item = &Source> {
        let chain = self
            .sources
            .chain(link_group.first_source, |source| source.next);
        chain.map(|(_, source)| source)
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(_, due)| due)
    }

    /// Expires timers (RFC 3810 §7.5). Calls `changed` with each group whose filter changed.
    pub(crate) fn handle_timeout(&mut self, now: Instant, mut changed: impl FnMut(Ipv6Addr)) {
        while let Some(slot) = self.deadlines.first_due(now) {
            self.expire(now, slot, &mut changed);
        }
    }

    /// Expires the timers of one group on a link.
    fn expire(&mut self, now: Instant, slot: usize, changed: &mut dyn FnMut(Ipv6Addr)) {
        self.deadlines.remove(slot);
        let Some(link_group) = self.link_groups.get_mut(slot) else {
            return;
        };
        let is_over = |until: Option<Instant>| until.is_some_and(|until| until <= now);
        if is_over(link_group.older_host_until) {
            link_group.older_host_until = None;
        }
        let is_round_due = is_over(link_group.next_query);
        let mut has_changed = self.expire_sources(now, slot);
        if let Some(link_group) = self.link_groups.get_mut(slot)
            && let Mode::Exclude { until } = link_group.mode
            && until <= now
        {
            // RFC 3810 §7.5: the group is in INCLUDE mode then, with the Requested List.
            link_group.mode = Mode::Include;
            link_group.asking = Asking::default();
            self.retain_sources(slot, |source| match source.state {
                SourceState::Requested { .. } => true,
                SourceState::Excluded => false,
            });
            has_changed = true;
        }
        if is_round_due {
            self.begin_round(slot);
        }
        self.settle(slot, has_changed, changed);
    }

    /// RFC 3810 §7.5: a source whose timer expires is deleted in INCLUDE mode, and is in the
    /// Exclude List in EXCLUDE mode. Returns whether there was any.
    fn expire_sources(&mut self, now: Instant, slot: usize) -> bool {
        let Some(link_group) = self.link_groups.get(slot) else {
            return false;
        };
        let mode = link_group.mode.filter_mode();
        let mut has_expired = false;
        self.retain_sources(slot, |source| match source.state {
            SourceState::Requested { until } if until <= now => {
                has_expired = true;
                source.state = SourceState::Excluded;
                source.asking = Asking::default();
                mode == FilterMode::Exclude
            }
            SourceState::Requested { .. } | SourceState::Excluded => true,
        });
        has_expired
    }

    /// After a change: removes the group from the link if nobody listens, or else sets its
    /// deadline.
    fn settle(&mut self, slot: usize, has_changed: bool, changed: &mut dyn FnMut(Ipv6Addr)) {
        if self.due.contains(slot) {
            self.note_due(slot);
        }
        let Some(link_group) = self.link_groups.get(slot) else {
            return;
        };
        let group = self.group_at(link_group);
        let nobody_listens = match link_group.mode {
            Mode::Include => link_group.sources == 0,
            Mode::Exclude { .. } => false,
        };
        if nobody_listens {
            self.remove(slot);
        } else {
            let mut due = link_group.next_query;
            let mut bring = |until| bring_forward(&mut due, until);
            if let Mode::Exclude { until } = link_group.mode {
                bring(until);
            }
            link_group.older_host_until.into_iter().for_each(&mut bring);
            for source in self.sources_of(link_group) {
                if let SourceState::Requested { until } = source.state {
                    bring(until);
                }
            }
            match due {
                // Each report puts timers off. The heap is not told, and finds out when the old
                // time comes.
                Some(due) => self.deadlines.bring_forward(slot, due),
                None => self.deadlines.remove(slot),
            }
        }
        if let Some(group) = group.filter(|_| has_changed || nobody_listens) {
            changed(group);
        }
    }

    /// Keeps the sources of a group on a link for which `keep` is true. `keep` may change them.
    fn retain_sources(&mut self, slot: usize, mut keep: impl FnMut(&mut Source) -> bool) {
        let Some(link_group) = self.link_groups.get_mut(slot) else {
            return;
        };
        let first = link_group.first_source;
        let count = &mut link_group.sources;
        let keep = |_, source: &mut Source| {
            let is_kept = keep(source);
            *count = count.saturating_sub((!is_kept).into());
            is_kept
        };
        link_group.first_source = self.sources.retain(first, |source| &mut source.next, keep);
    }

    /// Adds a group on a link, in INCLUDE mode without sources. `None` if a table is full.
    fn insert(&mut self, group: Ipv6Addr, listener: Listener) -> Option<usize> {
        let found = self.groups.find(&group);
        let group_slot = match found {
            Some(slot) => slot,
            None => self.groups.insert(group, Next::END).ok()?,
        };
        let slot = self.insert_on_link(group_slot, listener);
        if slot.is_none() && found.is_none() {
            self.groups.remove(group_slot);
        }
        slot
    }

    fn insert_on_link(&mut self, group_slot: usize, listener: Listener) -> Option<usize> {
        let host = self.hosts.acquire(listener).ok()?;
        let (_, first) = self.groups.get_mut(group_slot)?;
        let link_group = LinkGroup {
            group: u16::try_from(group_slot).ok()?,
            port: listener.port,
            mode: Mode::Include,
            older_host_until: None,
            asking: Asking::default(),
            next_query: None,
            host: u16::try_from(host).ok()?,
            number: self.next_number,
            first_source: Next::END,
            sources: 0,
            next: *first,
        };
        let Ok(slot) = self.link_groups.insert(link_group) else {
            self.hosts.release(host);
            return None;
        };
        *first = Next::to(slot);
        self.next_number = self.next_number.wrapping_add(1);
        if let Some(count) = self.counts.get_mut(usize::from(listener.port)) {
            *count = count.saturating_add(1);
        }
        Some(slot)
    }

    /// Removes a group from a link, and the group if it is on no other one.
    fn remove(&mut self, slot: usize) {
        self.retain_sources(slot, |_| false);
        let Some(removed) = self.link_groups.get(slot).copied() else {
            return;
        };
        let group_slot = usize::from(removed.group);
        let Some((_, first)) = self.groups.get_mut(group_slot) else {
            return;
        };
        *first = self.link_groups.retain(
            *first,
            |link_group| &mut link_group.next,
            |at, _| at != slot,
        );
        if *first == Next::END {
            self.groups.remove(group_slot);
        }
        self.deadlines.remove(slot);
        self.due.remove(slot);
        self.hosts.release(usize::from(removed.host));
        if let Some(count) = self.counts.get_mut(usize::from(removed.port)) {
            *count = count.saturating_sub(1);
        }
    }

    fn group_at(&self, link_group: &LinkGroup) -> Option<Ipv6Addr> {
        let (group, _) = self.groups.get(usize::from(link_group.group))?;
        Some(group)
    }

    /// The slot of a group on a link.
    fn find(&self, port: Port, group: Ipv6Addr) -> Option<usize> {
        let mut chain = self.chain_of(group);
        let found = chain.find(|(_, link_group)| link_group.port == port);
        found.map(|(slot, _)| slot)
    }

    fn chain_of(&self, group: Ipv6Addr) -> impl Iterator<Item = (usize, &LinkGroup)> {
        let slot = self.groups.find(&group);
        let first = slot.and_then(|slot| self.groups.get(slot));
        let first = first.map_or(Next::END, |(_, first)| *first);
        self.link_groups.chain(first, |link_group| link_group.next)
    }
}
