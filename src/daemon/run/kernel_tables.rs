//! This program's part of the kernel's tables: listed when it may have changed without a word, and cleared at the end.

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

/// This instance's part of the kernel's tables, and the other instances, which share them.
pub struct KernelTables {
    pub tables: Tables,
    /// By which this instance and the others speak with one another.
    pub instance: Netlink,
    pub siblings: Siblings,
    /// This instance's part was listed once.
    pub is_listed: bool,
    /// When the refresh is due that follows the one with which the tables were listed last.
    next_refresh: Option<Instant>,
    proxy_trouble: Trouble,
    route_trouble: Trouble,
}

impl KernelTables {
    /// Has the other instances hold on to what they want, and waits for them, though not for long.
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

    /// Adds or removes an entry or a route.
    fn change(&mut self, interfaces: &Interfaces, change: Change) -> nix::Result<()> {
        let Change {
            address,
            table,
            side,
            present,
            ..
        } = change;
        let Some(index) = interfaces.index_of(side) else {
            // With the interface all of it went.
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

    /// Removes a proxy entry, and tells the other instances, which may want it. Was there one?
    fn remove_proxy(&mut self, index: u32, address: Ipv6Addr) -> nix::Result<bool> {
        let removed = self.tables.remove_proxy(index, address)?;
        if removed {
            self.instance
                .tell_removed(&mut self.siblings, index, address);
        }
        Ok(removed)
    }
}

/// Are the tables of interest after the first time, when what a crash left there is removed?
pub(super) fn is_wanted(config: &Config) -> bool {
    config.ndp_proxy || config.host_routes
}

/// The listing that a notice makes necessary. Links that go down, or lose their carrier, take entries and routes along.
pub(super) fn after(interfaces: &Interfaces, notice: &Notice<'_>) -> Option<Dump> {
    match notice {
        Notice::Dumped(Dump::Neighbors) => Some(Dump::ProxiedNeighbors),
        Notice::Dumped(Dump::ProxiedNeighbors) => Some(Dump::Routes),
        Notice::Link(Link {
            index,
            running: false,
            ..
        }) => interfaces.side_of(*index).map(|_| Dump::ProxiedNeighbors),
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

/// What of a listing is this instance's, or was and was removed. An entry that another instance made counts where this one wants it.
pub(super) fn event(
    engine: &Engine<'_>,
    interfaces: &Interfaces,
    number: Number,
    notice: &Notice<'_>,
) -> Option<Event<'static>> {
    let is_upstream = |index| interfaces.side_of(index) == Some(Side::Upstream);
    let (table, listing) = match *notice {
        Notice::ProxiedNeighbor {
            index,
            address,
            protocol,
        } => {
            let owner = Number::of_mark(protocol).filter(|_| is_upstream(index))?;
            let is_wanted = || {
                let proxied = engine.ndp().kernel_entries().get(address);
                proxied.is_some_and(|proxied| matches!(proxied.side, Some(Side::Downstream(_))))
            };
            if owner != number && !is_wanted() {
                return None;
            }
            (KernelTable::Proxies, Listing::Has(address, Side::Upstream))
        }
        Notice::Sibling(Told::Removed { index, address }) => {
            return is_upstream(index).then_some(Event::Removed(
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

/// The address that a route of an instance is for, and where it goes.
fn host_route(interfaces: &Interfaces, of: Number, route: &Route) -> Option<(Ipv6Addr, Side)> {
    let is_its = route.protocol == PROTOCOL && Number::of_metric(route.metric) == Some(of);
    let address = route.destination.single_address().filter(|_| is_its)?;
    let side = interfaces.side_of(route.index)?;
    (route.table == interfaces.table_of(side)).then_some((address, side))
}

/// At the first listing: what an instance that is gone left on this one's links becomes this one's, which then keeps or removes it
/// as its own. Nothing else is left where no instance has that number any more.
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
        } if interfaces.side_of(index) == Some(Side::Upstream)
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
    /// Carries out a change of the kernel's tables. Did that succeed?
    pub(super) fn change_table(&mut self, change: Change) -> bool {
        let result = self.tables.change(&self.interfaces, change);
        if result.is_ok() && self.engine.ndp().kernel_entries().is_failing(change.table) {
            return true;
        }
        // The kernel tells of the routes of a link that goes down before it tells of the link.
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

    /// Looks, each time that a refresh of the groups started, at what somebody may have changed
    /// and nobody tells of. The loop wakes up for the refresh alone.
    pub(super) fn look_with_refresh(&mut self) {
        let next = self.engine.mld().host().next_refresh();
        if next == self.tables.next_refresh {
            return;
        }
        self.tables.next_refresh = next;
        if self.tables.is_listed && is_wanted(self.engine.config()) {
            self.news.want_at_least(Dump::ProxiedNeighbors);
            self.request_dump(clock::now());
            self.settings.look(&self.records);
        }
    }

    /// What the other instances are to leave as it is.
    fn needs(&self) -> Needs {
        let mut needs = Needs::of_start(self.engine.config().ndp_proxy);
        // The first is the upstream's, or nobody's number.
        needs.add(self.interfaces.index_of(Side::Upstream).unwrap_or(u32::MAX));
        let downstreams = self.interfaces.downstreams().iter();
        // Of one on a bridge, what decides what is heard there too.
        let links = downstreams.flat_map(|interface| [interface.index, interface.decided_by()]);
        links.flatten().for_each(|link| needs.add(link));
        needs
    }

    /// Another instance starts or ends: what this one wants is to be its own before that one
    /// sweeps.
    pub(super) fn hold_on(&mut self, from: Number) {
        let KernelTables {
            tables, siblings, ..
        } = &mut self.tables;
        siblings.note(from, None);
        if let Some(index) = self.interfaces.index_of(Side::Upstream) {
            for (address, proxied) in self.engine.ndp().kernel_entries().iter() {
                if proxied.proxied && matches!(proxied.side, Some(Side::Downstream(_))) {
                    // What cannot be held is missed, and added again.
                    let _ = tables.hold_proxy(index, address);
                }
            }
        }
        self.tables.instance.answer_sibling(from, &self.needs());
    }

    /// Removes all that is this instance's, and puts the settings back, but for what the other
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
            // What cannot be removed now is swept at the next start.
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

/// Where another program's entry is in the way, that is `EEXIST`: it answers, and is looked at again now and then.
fn add_proxy(tables: &Tables, index: u32, address: Ipv6Addr) -> nix::Result<()> {
    match tables.add_proxy(index, address)? {
        Owner::Own => Ok(()),
        Owner::Foreign => Err(Errno::EEXIST),
    }
}

/// What is missing where a change of the kernel's tables failed, and what works all the same.
struct Hint(nix::Result<()>);

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Hint(Err(errno)) = self else {
            return Ok(());
        };
        f.write_str(match errno {
            Errno::EPERM => " (it takes CAP_NET_ADMIN; groups are joined all the same)",
            Errno::EOPNOTSUPP | Errno::EINVAL | Errno::EAFNOSUPPORT => {
                " (it takes Linux 5.0 with IPv6; groups are joined all the same)"
            }
            Errno::EEXIST => " (another program's is there, and stays)",
            _ => "",
        })
    }
}
