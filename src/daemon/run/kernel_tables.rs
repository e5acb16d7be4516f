//! This instance's proxy entries and routes in the kernel's tables. The loop lists them whenever
//! they may have changed without news, and removes them at the end.

use std::fmt;
use std::net::Ipv6Addr;

use log::info;
use nix::errno::Errno;
use protocol::config::Config;
use protocol::engine::{Engine, Event};
use protocol::link::Side;
use protocol::ndp::kernel_entries::{Change, KernelTable, Listing};
use protocol::time::Instant;

use super::EventLoop;
use crate::interfaces::Interfaces;
use crate::run::report::Trouble;
use crate::sys::clock;
use crate::sys::netlink::siblings::{Needs, Number, Siblings, Told};
use crate::sys::netlink::tables::{Owner, PROTOCOL, Tables};
use crate::sys::netlink::{Dump, Link, Netlink, Notice, Route};

/// This instance's part of the kernel's tables, and what it knows of the other instances, which use
/// the same tables.
pub struct KernelTables {
    pub tables: Tables,
    /// The socket on which the instances speak with one another.
    pub instance: Netlink,
    pub siblings: Siblings,
    /// A first listing of this instance's part has ended.
    pub is_listed: bool,
    /// The engine's next refresh, as it was when the tables were listed last. When it moves, a
    /// refresh has started.
    next_refresh: Option<Instant>,
    proxy_trouble: Trouble,
    route_trouble: Trouble,
}

impl KernelTables {
    /// Asks the other instances to hold the entries that they want, and waits at most a second for
    /// their answers.
    pub fn new(tables: Tables, instance: Netlink, config: &Config, buffer: &mut [u8]) -> Self {
        let mut instance = instance;
        let siblings = instance.ask_siblings(&Needs::of_start(config.ndp_proxy), buffer);
        KernelTables {
            tables,
            instance,
            siblings,
            is_listed: false,
            next_refresh: None,
            proxy_trouble: Trouble::default(),
            route_trouble: Trouble::default(),
        }
    }

    /// Adds or removes a proxy entry or a route.
    fn change(&mut self, interfaces: &Interfaces, change: Change) -> nix::Result<()> {
        let Change {
            address,
            table,
            side,
            present,
            ..
        } = change;
        let Some(index) = interfaces.index_of(side) else {
            // The kernel removed everything along with the interface.
            return Ok(());
        };
        match (table, present) {
            (KernelTable::Proxies, true) => add_proxy(&self.tables, index, address),
            (KernelTable::Proxies, false) => self.remove_proxy(index, address).map(drop),
            (KernelTable::Routes, true) => {
                let table = interfaces.table_of(side);
                self.tables.add_route(index, table, address)
            }
            (KernelTable::Routes, false) => {
                let table = interfaces.table_of(side);
                self.tables.remove_route(index, table, address)
            }
        }
    }

    /// Removes a proxy entry and tells the other instances, which may want it. Returns whether
    /// there was one.
    fn remove_proxy(&mut self, index: u32, address: Ipv6Addr) -> nix::Result<bool> {
        let removed = self.tables.remove_proxy(index, address)?;
        if removed {
            self.instance
                .tell_removed(&mut self.siblings, index, address);
        }
        Ok(removed)
    }
}

/// Whether the tables matter after the first listing. The first one always runs, since it removes
/// what a crash left.
pub(super) fn is_wanted(config: &Config) -> bool {
    config.ndp_proxy || config.host_routes
}

/// The listing that a notice makes necessary: the kernel removes entries and routes of a link that
/// goes down, loses its carrier, or has its IPv6 switched off.
pub(super) fn after(interfaces: &Interfaces, notice: &Notice<'_>) -> Option<Dump> {
    match notice {
        Notice::Dumped(Dump::Neighbors) => Some(Dump::ProxiedNeighbors),
        Notice::Dumped(Dump::ProxiedNeighbors) => Some(Dump::Routes),
        Notice::Link(Link {
            index,
            running: false,
            ..
        }) => interfaces.side_of(*index).map(|_| Dump::ProxiedNeighbors),
        // Where IPv6 is switched off the kernel removes the entries and then the addresses, and
        // says so of the addresses alone, be they in use already or not.
        Notice::AddressDeleted { index, .. } if interfaces.is_upstream(*index) => {
            Some(Dump::ProxiedNeighbors)
        }
        Notice::Link(_)
        | Notice::LinkDeleted { .. }
        | Notice::Address(_)
        | Notice::AddressDeleted { .. }
        | Notice::Neighbor { .. }
        | Notice::NeighborDeleted { .. }
        | Notice::ProxiedNeighbor { .. }
        | Notice::Route(_)
        | Notice::Dumped(_)
        | Notice::Lost
        | Notice::RouteDeleted(_)
        | Notice::Sibling(_)
        | Notice::Refused(_) => None,
    }
}

/// The event for an entry that a listing shows, or that was removed. An entry of another instance
/// counts if this instance wants it.
pub(super) fn event(
    engine: &Engine<'_>,
    interfaces: &Interfaces,
    number: Number,
    notice: &Notice<'_>,
) -> Option<Event<'static>> {
    let (table, listing) = match *notice {
        Notice::ProxiedNeighbor {
            index,
            address,
            protocol,
        } => {
            let owner = Number::of_mark(protocol).filter(|_| interfaces.is_upstream(index))?;
            let is_wanted = || {
                let proxied = engine.ndp().kernel_entries().get(address);
                proxied.is_some_and(|proxied| proxied.place.is_downstream())
            };
            if owner != number && !is_wanted() {
                return None;
            }
            (KernelTable::Proxies, Listing::Has(address, Side::Upstream))
        }
        Notice::Sibling(Told::Removed { index, address }) => {
            return interfaces.is_upstream(index).then_some(Event::Removed(
                KernelTable::Proxies,
                address,
                Side::Upstream,
            ));
        }
        Notice::Route(route) => {
            let (address, side) = host_route(interfaces, number, &route)?;
            (KernelTable::Routes, Listing::Has(address, side))
        }
        Notice::RouteDeleted(route) => {
            let (address, side) = host_route(interfaces, number, &route)?;
            return Some(Event::Removed(KernelTable::Routes, address, side));
        }
        Notice::Dumped(Dump::ProxiedNeighbors) => (KernelTable::Proxies, Listing::Ends),
        Notice::Dumped(Dump::Routes) => (KernelTable::Routes, Listing::Ends),
        Notice::Link(_)
        | Notice::LinkDeleted { .. }
        | Notice::Address(_)
        | Notice::AddressDeleted { .. }
        | Notice::Neighbor { .. }
        | Notice::NeighborDeleted { .. }
        | Notice::Dumped(_)
        | Notice::Lost
        | Notice::Sibling(_)
        | Notice::Refused(_) => return None,
    };
    Some(Event::Listed(table, listing))
}

/// The address and the side of a host route, if it is a route of the instance `of`.
fn host_route(interfaces: &Interfaces, of: Number, route: &Route) -> Option<(Ipv6Addr, Side)> {
    let is_its = route.protocol == PROTOCOL && Number::of_metric(route.metric) == Some(of);
    let address = route.destination.single_address().filter(|_| is_its)?;
    let side = interfaces.side_of(route.index)?;
    (route.table == interfaces.table_of(side)).then_some((address, side))
}

/// Adopts, during the first listing, what an instance that is gone left on this instance's links.
/// The engine then keeps or removes it as its own. Otherwise such leftovers would stay if no
/// instance ever gets that number again.
pub(super) fn adopt<'n>(
    tables: &Tables,
    engine: &Engine<'_>,
    interfaces: &Interfaces,
    siblings: &Siblings,
    notice: Notice<'n>,
) -> Notice<'n> {
    let is_left = |number: Number, index| number != tables.number() && siblings.left(number, index);
    match notice {
        Notice::ProxiedNeighbor {
            index,
            address,
            protocol,
        } if interfaces.is_upstream(index)
            && Number::of_mark(protocol).is_some_and(|number| is_left(number, index))
            && engine.config().learns(address)
            && tables.hold_proxy(index, address).is_ok() =>
        {
            let protocol = tables.number().mark();
            return Notice::ProxiedNeighbor {
                index,
                address,
                protocol,
            };
        }
        Notice::Route(route) => {
            if let Some(number) = Number::of_metric(route.metric)
                && let Some((address, _)) = host_route(interfaces, number, &route)
                && is_left(number, route.index)
                && engine.config().learns(address)
                && tables
                    .hold_route(number, (route.index, route.table), address)
                    .is_ok()
            {
                let metric = tables.number().metric();
                return Notice::Route(Route { metric, ..route });
            }
        }
        _ => {}
    }
    notice
}

impl EventLoop<'_> {
    /// Carries out a change of the kernel's tables. Returns whether it succeeded.
    pub(super) fn change_table(&mut self, change: Change) -> bool {
        let result = self.tables.change(&self.interfaces, change);
        if result.is_ok() && self.engine.ndp().kernel_entries().is_failing(change.table) {
            return true;
        }
        // When a link goes down, the kernel reports the removed routes before it reports the link.
        if result == Err(Errno::ENETDOWN) {
            return false;
        }
        let (what, trouble) = match change.table {
            KernelTable::Proxies => ("proxy entry", &mut self.tables.proxy_trouble),
            KernelTable::Routes => ("route", &mut self.tables.route_trouble),
        };
        let (address, hint) = (change.address, Hint(result));
        trouble.note(
            result,
            format_args!("changing the {what} of {address}{hint}"),
        )
    }

    /// Lists, at each refresh of the groups, what somebody may have changed without news. It
    /// follows the refresh so that the loop wakes up for nothing else.
    pub(super) fn look_with_refresh(&mut self) {
        let next = self.engine.mld().host().next_refresh();
        if next == self.tables.next_refresh {
            return;
        }
        self.tables.next_refresh = next;
        self.look_at_forwarding();
        if self.tables.is_listed && is_wanted(self.engine.config()) {
            self.news.want_at_least(Dump::ProxiedNeighbors);
            self.request_dump(clock::now());
            self.settings.look(&self.records);
        }
    }

    /// What the other instances must leave as it is.
    fn needs(&self) -> Needs {
        let mut needs = Needs::of_start(self.engine.config().ndp_proxy);
        // The first link is the upstream. While there is none, it is a number that no link has.
        needs.add(self.interfaces.index_of(Side::Upstream).unwrap_or(u32::MAX));
        let downstreams = self.interfaces.downstreams().iter();
        // A downstream on a bridge also needs the bridge that decides what is heard there.
        let links = downstreams.flat_map(|interface| [interface.index, interface.decided_by()]);
        links.flatten().for_each(|link| needs.add(link));
        needs
    }

    /// Holds this instance's entries, since another instance starts or ends and will remove entries
    /// that nobody holds.
    pub(super) fn hold_on(&mut self, from: Number) {
        let KernelTables {
            tables, siblings, ..
        } = &mut self.tables;
        siblings.note(from, None);
        if let Some(index) = self.interfaces.index_of(Side::Upstream) {
            for (address, proxied) in self.engine.ndp().kernel_entries().iter() {
                if proxied.proxied && proxied.place.is_downstream() {
                    // The next listing misses an entry that could not be held, and the engine adds
                    // it again.
                    let _ = tables.hold_proxy(index, address);
                }
            }
        }
        self.tables.instance.answer_sibling(from, &self.needs());
    }

    /// Removes this instance's entries and routes and restores the settings, except for what other
    /// instances need.
    pub(super) fn clear_tables(&mut self) {
        let EventLoop {
            engine,
            buffers,
            interfaces,
            tables,
            settings,
            records,
            ..
        } = self;
        tables.siblings = tables
            .instance
            .ask_siblings(&Needs::nothing(), &mut buffers.receive);
        let mut removed = 0;
        for (address, proxied) in engine.ndp().kernel_entries().iter() {
            // The next start removes what cannot be removed now.
            if let Some(index) = interfaces.index_of(Side::Upstream)
                && proxied.proxied
                && tables.remove_proxy(index, address) == Ok(true)
            {
                removed += 1;
            }
            if let Some(side) = proxied.routed
                && let Some(index) = interfaces.index_of(side)
            {
                removed += 1;
                let table = interfaces.table_of(side);
                let _ = tables.tables.remove_route(index, table, address);
            }
        }
        if removed > 0 {
            info!("removed {removed} proxy entries and routes");
        }
        let upstream = interfaces.upstream_interface();
        let upstream = (upstream.name.as_str(), upstream.index);
        settings.restore(records, &tables.siblings, upstream);
    }
}

/// Adds a proxy entry. If another program's entry is there, fails with `EEXIST`: the kernel answers
/// by that entry, and the engine tries again later.
fn add_proxy(tables: &Tables, index: u32, address: Ipv6Addr) -> nix::Result<()> {
    match tables.add_proxy(index, address)? {
        Owner::Own => Ok(()),
        Owner::Foreign => Err(Errno::EEXIST),
    }
}

/// Why a change of the kernel's tables failed, and what works all the same.
struct Hint(nix::Result<()>);

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Hint(Err(errno)) = self else {
            return Ok(());
        };
        f.write_str(match errno {
            Errno::EPERM => " (CAP_NET_ADMIN is missing; groups are joined all the same)",
            Errno::EOPNOTSUPP | Errno::EINVAL | Errno::EAFNOSUPPORT => {
                " (this takes Linux 5.0 with IPv6; groups are joined all the same)"
            }
            Errno::EEXIST => {
                " (another NDP proxy, such as odhcpd's relay, has an entry and answers too: stop \
                 it, or leave out --ndp-proxy)"
            }
            _ => "",
        })
    }
}
