//! Prefixes that are on the upstream and on a downstream as well. The route with the smaller metric
//! decides where packets to their hosts go.

use log::{info, warn};
use protocol::config::{Config, GLOBAL_UNICAST, MAX_PREFIXES};
use protocol::link::{Prefix, Side};

use crate::interfaces::Interfaces;
use crate::sys::netlink::{Dump, Notice};

/// A route to a prefix that is on one of the named interfaces.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Connected {
    prefix: Prefix,
    side: Side,
    metric: u32,
}

/// The shared prefixes of the listing of routes under way, and those that were logged after the one
/// before.
#[derive(Default)]
pub struct SharedPrefixes {
    connected: heapless::Vec<Connected, { 2 * MAX_PREFIXES }>,
    logged: heapless::Vec<Connected, { 2 * MAX_PREFIXES }>,
}

impl SharedPrefixes {
    /// Takes in a route. At the end of a listing, logs the downstreams that share a prefix with the
    /// upstream and whose route does not win.
    pub fn note(&mut self, config: &Config, interfaces: &Interfaces, notice: &Notice<'_>) {
        match notice {
            Notice::Route(route) => {
                if let Some(side) = interfaces.side_of(route.index)
                    && route.table == interfaces.table_of(side)
                    && route.destination.single_address().is_none()
                    && GLOBAL_UNICAST.covers(&route.destination)
                {
                    // If there is no more room, the route is ignored.
                    let _ = self.connected.push(Connected {
                        prefix: route.destination,
                        side,
                        metric: route.metric,
                    });
                }
            }
            Notice::Dumped(Dump::Routes) => {
                if self.connected != self.logged {
                    self.log(config);
                }
                self.logged = std::mem::take(&mut self.connected);
            }
            Notice::Dumped(_) | Notice::Lost => self.connected.clear(),
            Notice::Link(_)
            | Notice::LinkDeleted { .. }
            | Notice::Address(_)
            | Notice::AddressDeleted { .. }
            | Notice::Neighbor { .. }
            | Notice::NeighborDeleted { .. }
            | Notice::ProxiedNeighbor { .. }
            | Notice::RouteDeleted(_)
            | Notice::Sibling(_)
            | Notice::Refused(_) => {}
        }
    }

    fn log(&self, config: &Config) {
        let above = self.connected.iter();
        for above in above.filter(|connected| connected.side == Side::Upstream) {
            for below in &self.connected {
                let Side::Downstream(port) = below.side else {
                    continue;
                };
                let Some(name) = config.downstreams.get(usize::from(port)) else {
                    continue;
                };
                if above.prefix != below.prefix || above.metric > below.metric {
                    continue;
                }
                let (prefix, upstream) = (above.prefix, &config.upstream);
                if config.host_routes {
                    info!("{prefix} is on {upstream} and {name}: each host has a route of its own");
                } else {
                    warn!(
                        "{prefix} is on {upstream} with metric {} and on {name} with {}, so \
                         packets to hosts on {name} may go \
                         astray; --host-routes gives each host a route of its own",
                        above.metric, below.metric
                    );
                }
            }
        }
    }
}
