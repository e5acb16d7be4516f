//! The kernel: its links, its memberships, its own addresses, and the NDP proxy's two tables.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;

use protocol::engine::Event;
use protocol::link::{Link, Side};
use protocol::ndp::kernel_entries::{Change, KernelTable};

use crate::multicast::Multicast;

/// The kernel's tables that the engine lists.
pub const TABLES: [KernelTable; 2] = [KernelTable::Proxies, KernelTable::Routes];

/// A kernel that carries out the engine's actions, and does what its links make it do.
#[derive(Default)]
pub struct Kernel {
    upstream: Option<Link>,
    downstreams: Vec<Option<Link>>,
    /// Own addresses by interface, each with the length of its prefix, and whether the kernel told
    /// it since all of them became unknown.
    own: BTreeMap<(Ipv6Addr, u32), (u8, bool)>,
    pub joined: BTreeSet<Ipv6Addr>,
    pub proxies: BTreeSet<Ipv6Addr>,
    pub routes: BTreeMap<Ipv6Addr, Side>,
    pub multicast: Multicast,
    /// Routes (`true`) and proxy entries (`false`) whose state the engine was not told. Where
    /// `doubts_all`, that is all of them.
    doubts: BTreeSet<(bool, Ipv6Addr)>,
    doubts_all: bool,
}

impl Kernel {
    pub(crate) fn new(downstreams: usize) -> Self {
        Kernel {
            downstreams: vec![None; downstreams],
            ..Kernel::default()
        }
    }

    pub fn link(&self, side: Side) -> Option<Link> {
        match side {
            Side::Upstream => self.upstream,
            Side::Downstream(port) => self.downstreams.get(usize::from(port)).copied().flatten(),
        }
    }

    pub fn is_own(&self, address: Ipv6Addr) -> bool {
        self.own.keys().any(|(own, _)| *own == address)
    }

    /// Is an address in a prefix of a link?
    pub(crate) fn is_on_link(&self, address: Ipv6Addr) -> bool {
        let mut indexes = self.own.keys().map(|(_, index)| *index);
        indexes.any(|index| self.has_prefix_of(address, index))
    }

    /// Is an address in a prefix on the interface with an index?
    pub(crate) fn has_prefix_of(&self, address: Ipv6Addr, index: u32) -> bool {
        let mut own = self.own.iter();
        own.any(|(&(own, on), &(length, _))| {
            let differing = own.to_bits() ^ address.to_bits();
            on == index && differing.leading_zeros() >= length.into()
        })
    }

    /// The number of own addresses, each counted once an interface.
    pub(crate) fn own(&self) -> usize {
        self.own.len()
    }

    /// Takes over what an event tells of the kernel. Returns whether the upstream is another one
    /// now.
    pub(crate) fn follow(&mut self, event: &Event<'_>) -> bool {
        match *event {
            Event::Link(Side::Upstream, link) => {
                let before = std::mem::replace(&mut self.upstream, link);
                if before.map(|link| link.index) == link.map(|link| link.index) {
                    return false;
                }
                self.joined.clear();
                self.multicast.lose_memberships();
                self.proxies.clear();
                self.routes.retain(|_, side| *side != Side::Upstream);
                return true;
            }
            Event::Link(Side::Downstream(port), link) => {
                self.downstreams[usize::from(port)] = link;
                if link.is_none() {
                    self.lose_routes(|side| side == Side::Downstream(port));
                }
            }
            Event::Own {
                index,
                address,
                prefix_length,
                present,
            } => {
                if address.is_unicast_link_local() || address.is_loopback() {
                } else if present {
                    self.own.insert((address, index), (prefix_length, true));
                } else {
                    self.own.remove(&(address, index));
                }
            }
            Event::OwnUnknown => self.own.values_mut().for_each(|(_, told)| *told = false),
            Event::OwnKnown => self.own.retain(|_, (_, told)| *told),
            Event::Removed(KernelTable::Proxies, address, _) => _ = self.proxies.remove(&address),
            Event::Removed(KernelTable::Routes, address, side) => {
                self.routes.retain(|at, on| (*at, *on) != (address, side));
            }
            Event::Forwarding { side, present } => self.multicast.set_interface(side, present),
            Event::Packet { .. }
            | Event::Remembered { .. }
            | Event::Forgotten(_)
            | Event::UpstreamPrefixes(_)
            | Event::Listed(..)
            | Event::Counted { .. }
            | Event::Renew
            | Event::Stalled => {}
        }
        false
    }

    /// The kernel loses its entry for an address, and tells nobody. Returns whether there was one.
    pub fn lose(&mut self, table: KernelTable, address: Ipv6Addr) -> bool {
        let is_lost = match table {
            KernelTable::Proxies => self.proxies.remove(&address),
            KernelTable::Routes => self.routes.remove(&address).is_some(),
        };
        if is_lost {
            self.doubts.insert((is_route(table), address));
        }
        is_lost
    }

    /// The kernel loses the routes for whose side `goes` is true, and tells nobody.
    fn lose_routes(&mut self, goes: impl Fn(Side) -> bool) {
        let gone = self.routes.extract_if(.., |_, side| goes(*side));
        self.doubts.extend(gone.map(|(address, _)| (true, address)));
    }

    /// The kernel loses all entries and routes, and tells nobody.
    pub fn lose_all(&mut self) {
        let proxies = std::mem::take(&mut self.proxies);
        self.doubts
            .extend(proxies.into_iter().map(|address| (false, address)));
        self.lose_routes(|_| true);
    }

    /// An earlier process left a proxy entry behind.
    pub fn leave_proxy(&mut self, address: Ipv6Addr) {
        if self.proxies.insert(address) {
            self.doubts.insert((false, address));
        }
    }

    /// An earlier process left a route behind.
    pub fn leave_route(&mut self, address: Ipv6Addr, side: Side) {
        if self.routes.insert(address, side) != Some(side) {
            self.doubts.insert((true, address));
        }
    }

    /// Until the kernel lists the tables, whatever the engine believes of them may be wrong.
    pub fn doubt_all(&mut self) {
        self.doubts_all = true;
    }

    /// The kernel has listed both tables as they are.
    pub fn trust(&mut self) {
        self.doubts_all = false;
        self.doubts.clear();
    }

    /// A listing of a table has ended, and the engine believes this of an address.
    pub(crate) fn believe(
        &mut self,
        table: KernelTable,
        believed: impl Fn(Ipv6Addr) -> Option<Side>,
    ) {
        let mut doubts = std::mem::take(&mut self.doubts);
        doubts.retain(|(is_of_routes, address)| {
            *is_of_routes != is_route(table) || self.has(table, *address) != believed(*address)
        });
        self.doubts = doubts;
    }

    /// May the engine be wrong about an address?
    pub fn is_doubted(&self, table: KernelTable, address: Ipv6Addr) -> bool {
        self.doubts_all || self.doubts.contains(&(is_route(table), address))
    }

    pub fn is_trusted(&self) -> bool {
        !self.doubts_all && self.doubts.is_empty()
    }

    /// What the kernel lists of a table.
    pub fn listing(&self, table: KernelTable) -> Vec<(Ipv6Addr, Side)> {
        match table {
            KernelTable::Proxies => {
                let proxies = self.proxies.iter();
                proxies.map(|address| (*address, Side::Upstream)).collect()
            }
            KernelTable::Routes => {
                let routes = self.routes.iter();
                routes.map(|(address, side)| (*address, *side)).collect()
            }
        }
    }

    /// The side of an address in a table.
    pub fn has(&self, table: KernelTable, address: Ipv6Addr) -> Option<Side> {
        match table {
            KernelTable::Proxies => self.proxies.contains(&address).then_some(Side::Upstream),
            KernelTable::Routes => self.routes.get(&address).copied(),
        }
    }

    /// Carries out a change. An addition must find nothing there, and a removal must find
    /// something, unless the engine could not know.
    pub(crate) fn change(&mut self, change: &Change) {
        let Change {
            table,
            address,
            side,
            present,
            ..
        } = *change;
        let there = self.has(table, address);
        let right = if present {
            there.is_none()
        } else {
            there == Some(side)
        };
        assert!(
            right || self.is_doubted(table, address),
            "it is there already, or it is gone: {change:?}"
        );
        match (table, present) {
            (KernelTable::Proxies, true) => _ = self.proxies.insert(address),
            (KernelTable::Routes, true) => _ = self.routes.insert(address, side),
            // A route to another side is not this one.
            (_, false) if there != Some(side) => {}
            (KernelTable::Proxies, false) => _ = self.proxies.remove(&address),
            (KernelTable::Routes, false) => _ = self.routes.remove(&address),
        }
        if self.has(table, address) == present.then_some(side) {
            self.doubts.remove(&(is_route(table), address));
        }
    }
}

fn is_route(table: KernelTable) -> bool {
    match table {
        KernelTable::Proxies => false,
        KernelTable::Routes => true,
    }
}
