//! This program's part of the kernel's tables: listed when it may have changed without a word, and cleared at the end.

use log::info;
use protocol::config::{Config, Side};
use protocol::engine::Event;
use protocol::ndp_proxy::{KernelTable, Listing};
use protocol::time::Instant;

use super::EventLoop;
use crate::interfaces::Interfaces;
use crate::sys::netlink::tables::PROTOCOL;
use crate::sys::netlink::{Dump, Link, Notice, Route};

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
        | Notice::Refused(_) => None,
    }
}

/// What of a listing is this program's.
pub(super) fn event(interfaces: &Interfaces, notice: &Notice<'_>) -> Option<Event<'static>> {
    let side = |index| interfaces.side_of(index);
    let (table, listing) = match *notice {
        Notice::ProxiedNeighbor {
            index,
            address,
            protocol,
        } => {
            if protocol != PROTOCOL || side(index) != Some(Side::Upstream) {
                return None;
            }
            (KernelTable::Proxies, Listing::Has(address, Side::Upstream))
        }
        Notice::Route(Route {
            index,
            destination,
            protocol,
            ..
        }) => {
            let address = destination.single_address()?;
            let side = side(index).filter(|_| protocol == PROTOCOL)?;
            (KernelTable::Routes, Listing::Has(address, side))
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
        | Notice::Refused(_) => return None,
    };
    Some(Event::Listed(table, listing))
}

impl EventLoop<'_> {
    /// Lists the tables as often as the groups are refreshed, since somebody may have removed what nobody tells of. Nothing wakes up for
    /// it, but for the refresh.
    pub(super) fn list_now_and_then(&mut self, now: Instant) {
        let config = self.engine.config();
        let interval = config.refresh_interval;
        let is_due = now.since(self.last_listing) >= interval && !interval.is_zero();
        if is_due && self.listed && is_wanted(config) {
            self.dump = self.dump.or(Some(Dump::ProxiedNeighbors));
        }
    }

    /// Removes all that is this program's, and puts the settings back.
    pub(super) fn clear_tables(&mut self) {
        let mut removed = 0;
        for (address, proxied) in self.engine.ndp_proxy().iter() {
            // What cannot be removed now is swept at the next start.
            if let Some(index) = self.interfaces.index_of(Side::Upstream)
                && proxied.proxied
            {
                removed += 1;
                let _ = self.sockets.tables.remove_proxy(index, address);
            }
            if let Some(side) = proxied.routed
                && let Some(index) = self.interfaces.index_of(side)
            {
                removed += 1;
                let _ = self.sockets.tables.remove_route(index, address);
            }
        }
        if removed > 0 {
            info!("removed {removed} proxy entries and routes");
        }
        self.settings.restore();
    }
}
