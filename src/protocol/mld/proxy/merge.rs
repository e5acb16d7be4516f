//! The merge: what the listeners of all downstreams together want upstream and of the kernel (RFC
//! 4605 §4.1, §4.2).

use core::net::Ipv6Addr;

use super::entries::{Entry, HOME, UPSTREAM, UPSTREAM_NUMBER, bit_of, number_of};
use super::{Flow, Forwarding, Proxy, Refused, Versions, for_each_flow};
use crate::config::{MAX_SOURCES, MldVersion, ProxyConfig, is_source_specific};
use crate::context::Links;
use crate::link::Side;
use crate::mld::filter::FilterMode;
use crate::mld::members::{Members, Mode, SourceState};
use crate::tables::table::Next;

/// Where the source of a stream is.
pub trait Whereabouts {
    fn side_of(&self, links: &Links, source: Ipv6Addr) -> Side;

    /// Is the source on a link of this router, so that it may move to another one?
    fn may_move(&self, source: Ipv6Addr) -> bool;
}

/// What the merge depends on besides the listeners.
pub(crate) struct Surroundings<'a, W> {
    pub config: &'a ProxyConfig,
    pub whereabouts: &'a W,
    pub links: &'a Links,
    pub versions: Versions,
    /// The downstreams, by their numbers as interfaces, on which streams are forwarded.
    pub forwarded: u32,
}

/// What a merge met.
#[derive(Clone, Copy, Default)]
pub(crate) struct Merging {
    /// How many sources found no room.
    pub refused: usize,
    /// There was a source that may move.
    pub has_movable: bool,
}

impl Proxy<'_> {
    /// Merges what changed.
    pub(crate) fn merge<W: Whereabouts>(
        &mut self,
        members: &Members<'_>,
        around: &Surroundings<'_, W>,
    ) -> Merging {
        let mut merging = Merging::default();
        self.versions = around.versions;
        if self.has_room() {
            self.refused = Refused::default();
            for group in members.groups() {
                self.note(group);
            }
        }
        while let Some(slot) = self.stale.take_first() {
            self.merge_group(members, around, slot, &mut merging);
        }
        self.refused.sources |= merging.refused > 0;
        merging
    }

    fn merge_group<W: Whereabouts>(
        &mut self,
        members: &Members<'_>,
        around: &Surroundings<'_, W>,
        slot: usize,
        merging: &mut Merging,
    ) {
        let Some((group, _)) = self.groups.get(slot) else {
            return;
        };
        for_each_flow(self.groups, self.flows, slot, |_, flow| {
            (flow.included, flow.excluded) = (0, 0);
        });
        let mut excluding = 0;
        for link_group in members.of(group) {
            let port = bit_of(Side::Downstream(link_group.port));
            if let Mode::Exclude { .. } = link_group.mode {
                excluding |= port;
            }
            for source in members.sources_of(link_group) {
                // A requested source of a group in EXCLUDE mode is forwarded as any other one.
                let (included, excluded) = match (link_group.mode, source.state) {
                    (Mode::Include, _) => (port, 0),
                    (Mode::Exclude { .. }, SourceState::Excluded) => (0, port),
                    (Mode::Exclude { .. }, SourceState::Requested { .. }) => continue,
                };
                match self.flow(slot, source.address) {
                    Some(flow) => {
                        flow.included |= included;
                        flow.excluded |= excluded;
                    }
                    None => merging.refused = merging.refused.saturating_add(1),
                }
            }
        }
        merging.has_movable |= self.derive(around, slot, excluding);
    }

    /// The flow of a source of the group at a slot. `None` if there is no room for it.
    fn flow(&mut self, slot: usize, source: Ipv6Addr) -> Option<&mut Flow> {
        let found = self.find_flow(slot, source);
        let (_, merged) = self.groups.get_mut(slot)?;
        let at = match found {
            Some(at) => at,
            None => {
                let flow = Flow {
                    source,
                    group: u16::try_from(slot).ok()?,
                    wanted: false,
                    joined: false,
                    told: false,
                    exact: Forwarding::NONE,
                    included: 0,
                    excluded: 0,
                    next: merged.first_flow,
                };
                let at = self.flows.insert(flow).ok()?;
                merged.first_flow = Next::to(at);
                at
            }
        };
        self.flows.get_mut(at)
    }

    /// Derives what is wanted upstream and in the kernel for the group at a slot. `excluding` are
    /// the links on which it is in EXCLUDE mode. Returns whether one of its sources may move.
    fn derive<W: Whereabouts>(
        &mut self,
        around: &Surroundings<'_, W>,
        slot: usize,
        excluding: u32,
    ) -> bool {
        let Some((group, merged)) = self.groups.get_mut(slot) else {
            return false;
        };
        let config = around.config;
        let leaves_home = config.leaves_home(group);
        // RFC 4604 §2: a source-specific group is never reported in MLDv1.
        let can_report = around.versions.in_force == MldVersion::V2 || !is_source_specific(group);
        let goes_up = leaves_home && can_report;
        let upwards = if leaves_home && self.base.senders() {
            UPSTREAM
        } else {
            0
        };
        let home = if leaves_home { UPSTREAM_NUMBER } else { HOME };
        // The kernel takes packets from the interfaces that the parent's base names, and that base
        // does not name an upstream that is not there.
        let parent = match self.base.has_upstream() {
            true => home,
            false => HOME,
        };
        merged.any.wanted = (excluding != 0).then_some(Entry {
            parent,
            out: (excluding & around.forwarded) | upwards,
        });
        // RFC 4605 §4.1, by the rules of RFC 3810 §4.2.
        let is_in_filter = |flow: &Flow| {
            goes_up
                && match excluding {
                    0 => flow.included != 0,
                    _ => flow.excluded == excluding && flow.included == 0,
                }
        };
        // A filter holds so many sources, and those that are in it stay.
        let mut room = MAX_SOURCES;
        for_each_flow(self.groups, self.flows, slot, |_, flow| {
            let stays = flow.wanted && is_in_filter(flow);
            room = room.saturating_sub(stays.into());
        });
        let (mut includes, mut has_movable) = (false, false);
        for_each_flow(self.groups, self.flows, slot, |_, flow| {
            includes |= flow.included != 0;
            let comes = !flow.wanted && is_in_filter(flow) && room > 0;
            room = room.saturating_sub(comes.into());
            flow.wanted = comes || flow.wanted && is_in_filter(flow);
            let is_needed = flow.included != 0 || flow.excluded != 0;
            has_movable |= is_needed && around.whereabouts.may_move(flow.source);
            let side = around.whereabouts.side_of(around.links, flow.source);
            let (parent, upwards) = match side {
                Side::Upstream => (home, 0),
                Side::Downstream(_) => (number_of(side), upwards),
            };
            let out = flow.included | (excluding & !flow.excluded);
            let out = (out & around.forwarded) | upwards;
            flow.exact.wanted = is_needed.then_some(Entry {
                parent,
                out: out & !bit_of(side),
            });
        });
        let wanted = match (excluding, includes) {
            _ if !goes_up => None,
            (0, false) => None,
            (0, true) => Some(FilterMode::Include),
            (_, _) => Some(FilterMode::Exclude),
        };
        if let Some((_, merged)) = self.groups.get_mut(slot) {
            merged.wanted = wanted;
        }
        self.settle(slot);
        has_movable
    }
}
