//! What there is to tell of the streams: a row for each source of a group, and for any source.

use core::net::Ipv6Addr;

use super::entries::Entry;
use super::{CAPACITY, Counts, FLOWS, Flow, Forwarding, Merged, Proxy};
use crate::mld::filter::FilterMode;
use crate::tables::table::Next;

/// The most rows.
pub const ROWS: usize = CAPACITY + FLOWS;

/// A place between two rows. Rows that come or go elsewhere do not move it.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The slot of the group.
    slot: usize,
    /// The last row of the group before this place.
    last: Last,
}

#[derive(Clone, Copy, Debug)]
enum Last {
    None,
    Any,
    Source(Ipv6Addr),
}

/// A stream.
#[derive(Clone, Copy)]
pub struct Row<'p> {
    pub group: Ipv6Addr,
    pub merged: &'p Merged,
    /// `None` for any source that has no row of its own.
    pub flow: Option<&'p Flow>,
    /// The forwarding entry as it is in the kernel; `None` if there is none.
    pub entry: Option<Entry>,
    pub counts: Counts,
    /// It is the first row of its group.
    pub is_first: bool,
}

/// Whether this router is a member of a group upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Membership {
    /// It is not, and is not to be.
    None,
    Joining,
    /// With the number of sources in the filter.
    Member(FilterMode, usize),
    Leaving,
}

/// Sums over all streams that there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub packets: u64,
    pub octets: u64,
    /// Packets that came from another side than the source's.
    pub wrong_side: u64,
}

impl Place {
    /// Before the first row.
    pub const START: Place = Place {
        slot: 0,
        last: Last::None,
    };
}

impl Merged {
    /// Is there something to tell of any source? A group without any source has a row as well.
    fn has_row(&self) -> bool {
        !self.any.is_unused() || self.first_flow == Next::END
    }
}

impl Proxy<'_> {
    /// The first row behind a place, and the place behind that row. The sources of a group come in
    /// the order of their addresses.
    pub fn row(&self, place: Place) -> Option<(Row<'_>, Place)> {
        let mut last = place.last;
        for (slot, group, merged) in self.groups.iter_from(place.slot) {
            if slot != place.slot {
                last = Last::None;
            }
            let is_first = matches!(last, Last::None);
            let (flow, counts, entry) = if is_first && merged.has_row() {
                (None, self.any_counts.get(slot), merged.any.installed())
            } else if let Some((at, flow)) = self.flow_behind(merged, last) {
                (
                    Some(flow),
                    self.exact_counts.get(at),
                    flow.exact.installed(),
                )
            } else {
                continue;
            };
            let row = Row {
                group,
                merged,
                flow,
                entry,
                counts: counts.copied().unwrap_or_default(),
                is_first,
            };
            let last = flow.map_or(Last::Any, |flow| Last::Source(flow.source));
            return Some((row, Place { slot, last }));
        }
        None
    }

    /// The source of a group with the least address behind the last one.
    fn flow_behind(&self, merged: &Merged, last: Last) -> Option<(usize, &Flow)> {
        let mut least: Option<(usize, &Flow)> = None;
        for (at, flow) in self.flows.chain(merged.first_flow, |flow| flow.next) {
            let is_behind = match last {
                Last::Source(last) => flow.source > last,
                Last::None | Last::Any => true,
            };
            if is_behind && least.is_none_or(|(_, least)| flow.source < least.source) {
                least = Some((at, flow));
            }
        }
        least
    }

    /// All rows.
    pub fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        let mut place = Place::START;
        core::iter::from_fn(move || {
            let (row, next) = self.row(place)?;
            place = next;
            Some(row)
        })
    }

    /// How many rows there are.
    pub fn row_count(&self) -> usize {
        let groups = self.groups.iter_from(0);
        let any = groups.filter(|(_, _, merged)| merged.has_row()).count();
        any.saturating_add(self.flows.len())
    }

    /// The membership of a group upstream.
    pub fn membership(&self, merged: &Merged) -> Membership {
        match (merged.joined, merged.wanted) {
            (None, None) => Membership::None,
            (None, Some(_)) => Membership::Joining,
            (Some(_), None) => Membership::Leaving,
            (Some(mode), Some(_)) => {
                let joined = self.flows_of(merged).filter(|flow| flow.joined);
                let sources = joined.count();
                Membership::Member(mode, sources)
            }
        }
    }

    /// What the kernel counted on all entries that there are.
    pub fn totals(&self) -> Totals {
        let any = self.groups.iter_from(0);
        let any = any.filter(|(_, _, merged)| is_counted(&merged.any));
        let any = any.filter_map(|(slot, ..)| self.any_counts.get(slot));
        let exact = self.flows.iter_from(0);
        let exact = exact.filter(|(_, flow)| is_counted(&flow.exact));
        let exact = exact.filter_map(|(slot, _)| self.exact_counts.get(slot));
        any.chain(exact)
            .fold(Totals::default(), |totals, counts| Totals {
                packets: totals.packets.saturating_add(counts.packets),
                octets: totals.octets.saturating_add(counts.octets),
                wrong_side: totals.wrong_side.saturating_add(counts.wrong_side.into()),
            })
    }
}

fn is_counted(forwarding: &Forwarding) -> bool {
    forwarding.installed().is_some()
}
