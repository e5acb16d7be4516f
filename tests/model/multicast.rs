//! The kernel's part in streams: its memberships upstream, and its multicast forwarding table.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;

use protocol::config::MAX_SOURCES;
use protocol::link::Side;
use protocol::mld::filter::FilterMode;
use protocol::mld::proxy::entries::{self, HOME, number_of};
use protocol::mld::proxy::upstream;

/// The highest number of an interface.
const LAST_NUMBER: u8 = 31;
const ANY: Ipv6Addr = Ipv6Addr::UNSPECIFIED;

/// A filter: the sources that are included, or those that are excluded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    pub mode: FilterMode,
    pub sources: BTreeSet<Ipv6Addr>,
}

/// An entry of the forwarding table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub parent: u8,
    pub out: u32,
}

/// Where a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Out of these interfaces.
    Out(u32),
    /// The kernel has no entry, and asks the process that owns the table (an upcall).
    Upcall,
}

/// The memberships of the streams' groups, and the forwarding table.
#[derive(Default)]
pub struct Multicast {
    pub memberships: BTreeMap<Ipv6Addr, Filter>,
    /// The groups of which the kernel is no member, but the router says that it is; and those of
    /// which that was so when they were left.
    pub alone: BTreeSet<Ipv6Addr>,
    /// The group of each slot that has a membership.
    slots: BTreeMap<usize, Ipv6Addr>,
    /// The interfaces of the table besides the loopback interface, a bit for each number.
    pub interfaces: u32,
    /// The table has had an interface. Before that nobody writes an entry.
    pub is_open: bool,
    /// The entries of each group and source, with `::` for any, from the newest to the oldest,
    /// which is the order of the kernel's look-up.
    entries: BTreeMap<(Ipv6Addr, Ipv6Addr), Vec<Entry>>,
}

impl Multicast {
    /// The upstream is another one, so all memberships ended.
    pub(crate) fn lose_memberships(&mut self) {
        self.memberships.clear();
        self.slots.clear();
    }

    /// The interface on a side was added to the table, or removed from it. The entries stay as they
    /// are, so that a new interface with an old number is in those that its number is in.
    pub(crate) fn set_interface(&mut self, side: Side, present: bool) {
        let bit = 1 << number_of(side);
        self.is_open |= present;
        self.interfaces = match present {
            true => self.interfaces | bit,
            false => self.interfaces & !bit,
        };
    }

    /// Carries out a change of a membership, to a filter with these sources.
    pub(crate) fn change_membership(&mut self, change: &upstream::Change, sources: Vec<Ipv6Addr>) {
        let upstream::Change {
            slot,
            group,
            before,
            wanted,
            of_kernel,
        } = *change;
        assert!(of_kernel.is_none() || of_kernel == wanted, "{group}");
        let known = self.memberships.get(&group);
        assert_eq!(before, known.map(|filter| filter.mode), "{group}");
        let of_slot = self.slots.get(&slot);
        assert_eq!(of_slot, known.map(|_| &group), "the slot is another's");
        let Some(mode) = wanted else {
            assert!(known.is_some(), "{group} is left twice");
            self.memberships.remove(&group);
            self.slots.remove(&slot);
            return;
        };
        let count = sources.len();
        assert!(count <= MAX_SOURCES.into(), "the kernel takes no more");
        let sources: BTreeSet<_> = sources.into_iter().collect();
        assert_eq!(sources.len(), count, "a source is listed twice");
        let is_leave = mode == FilterMode::Include && count == 0;
        assert!(!is_leave, "{group}: to include nothing is to leave");
        let filter = Filter { mode, sources };
        let holder_changes = match of_kernel {
            Some(_) => self.alone.remove(&group),
            None => self.alone.insert(group),
        };
        let changes = holder_changes || self.memberships.get(&group) != Some(&filter);
        assert!(changes, "{group}: nothing changes");
        self.memberships.insert(group, filter);
        self.slots.insert(slot, group);
    }

    /// Carries out a change of an entry. Outgoing interfaces that are not there are lost.
    pub(crate) fn change_entry(&mut self, change: &entries::Change) {
        let entries::Change {
            source,
            group,
            entry,
            present,
            ..
        } = *change;
        assert!(entry.parent <= LAST_NUMBER, "the kernel has no such number");
        let out = entry.out & self.present();
        let known = self.entries.entry((group, source)).or_default();
        let at = known.iter().position(|known| known.parent == entry.parent);
        match (at, present) {
            (Some(at), true) => known[at].out = out,
            (None, true) => {
                // The kernel would keep both, and look at one alone.
                let is_alone = group == ANY || known.is_empty();
                assert!(is_alone, "{group} from {source} has another parent");
                let parent = entry.parent;
                known.insert(0, Entry { parent, out });
            }
            (Some(at), false) => _ = known.remove(at),
            (None, false) => panic!("{group} from {source} is not there"),
        }
        if known.is_empty() {
            self.entries.remove(&(group, source));
        }
    }

    /// The group and the source of each entry but those at the base.
    pub fn entries(&self) -> impl Iterator<Item = (Ipv6Addr, Ipv6Addr)> {
        let all = self.entries.keys().copied();
        all.filter(|(group, _)| *group != ANY)
    }

    /// How many entries there are.
    pub fn count(&self) -> usize {
        self.entries.len()
    }

    fn of(&self, group: Ipv6Addr, source: Ipv6Addr) -> impl Iterator<Item = &Entry> {
        self.entries.get(&(group, source)).into_iter().flatten()
    }

    /// The interfaces that are there.
    fn present(&self) -> u32 {
        self.interfaces | 1 << HOME
    }

    /// Where the kernel sends a packet that arrives on the interface with a number.
    pub fn forward(&self, arrival: u8, source: Ipv6Addr, group: Ipv6Addr) -> Way {
        let exact = self.of(group, source).next();
        let any = || self.find_any(group, arrival);
        let base = || self.base_with(arrival);
        let Some(entry) = exact.or_else(any).or_else(base) else {
            return Way::Upcall;
        };
        let is_any_source = exact.is_none();
        let is_in_tree = is_any_source && self.is_in_base_of(entry.parent, arrival);
        if !is_in_tree && entry.parent != arrival {
            return Way::Out(0);
        }
        if is_any_source && any().is_none() {
            // What does not come from the parent goes to the parent alone.
            let to_parent = entry.out & 1 << entry.parent;
            let is_from_parent = entry.parent == arrival;
            return Way::Out(if is_from_parent { 0 } else { to_parent } & self.present());
        }
        let back = if is_any_source { 1 << arrival } else { 0 };
        Way::Out(entry.out & self.present() & !back)
    }

    /// The entry for any source of a group that takes a packet.
    fn find_any(&self, group: Ipv6Addr, arrival: u8) -> Option<&Entry> {
        let takes = |entry: &&Entry| {
            let is_out = entry.out & 1 << arrival != 0;
            is_out || self.is_in_base_of(entry.parent, arrival)
        };
        self.of(group, ANY).find(takes)
    }

    /// The newest entry for any group with an interface.
    fn base_with(&self, number: u8) -> Option<&Entry> {
        self.of(ANY, ANY).find(|entry| entry.out & 1 << number != 0)
    }

    /// Does the entry for any group that has the parent have the arrival too?
    fn is_in_base_of(&self, parent: u8, arrival: u8) -> bool {
        let base = self.base_with(parent);
        base.is_some_and(|base| base.out & 1 << arrival != 0)
    }
}
