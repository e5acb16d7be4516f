//! What there is to prove it with: the upstream, its gateway, and a prefix on that link.

use std::net::Ipv6Addr;

use protocol::config::GLOBAL_UNICAST;
use protocol::link::Prefix;

use crate::commands::check::findings::Findings;
use crate::commands::check::findings::State::{Ok, Problem, Warning};
use crate::commands::check::network;
use crate::interfaces::{Interface, Snapshot, State};
use crate::sys::netlink::gateways::{DefaultRoute, default_routes, first};
use crate::sys::netlink::{Dump, PERMANENT_ROUTER};

/// What the snapshot has to be of.
pub const DUMPS: &[Dump] = &[Dump::Links, Dump::Addresses, Dump::Neighbors, Dump::Routes];

/// The upstream and what is on its link.
pub struct Scene<'s> {
    pub name: &'s str,
    /// The kernel's number of the upstream.
    pub index: u32,
    /// The router's own addresses there.
    pub link_local: Ipv6Addr,
    pub mac: [u8; 6],
    pub gateway: Ipv6Addr,
    /// `None` if the kernel does not know it now.
    pub gateway_mac: Option<[u8; 6]>,
    /// A global prefix on the link, of at most 127 bits.
    pub prefix: Prefix,
    /// Addresses of this router, of its neighbors and of the gateway.
    pub taken: Vec<Ipv6Addr>,
}

/// Finds all of it, or says what is missing and returns `None`.
pub fn look<'s>(snapshot: &'s Snapshot, findings: &mut Findings) -> Option<Scene<'s>> {
    let upstream = snapshot.interfaces.upstream_interface();
    let name = upstream.name.as_str();
    network::link(upstream, snapshot, findings);
    let link = snapshot.interfaces.upstream()?;
    let link_local = link
        .link_local
        .filter(|_| upstream.state() == State::Usable)?;
    let mac = link.mac.0;
    if mac == [0; 6] {
        findings.add(
            Warning,
            "prove|%1 has no link-layer addresses, as with PPP, so no switch on the way to the \
             gateway can snoop MLD, and there is nothing to prove|`mldproxy check %1` looks for \
             what else keeps hosts unreachable",
            &[name],
        );
        return None;
    }
    let routes = default_routes().unwrap_or_default();
    let here = |route: &&DefaultRoute| route.index == link.index && route.gateway.is_some();
    let Some(gateway) = first(routes.iter().filter(here)).and_then(|route| route.gateway) else {
        findings.add(
            Problem,
            "prove|no IPv6 default route names a gateway on %1, so there is nobody to prove it \
             with|`ip -6 route show default` tells where the gateway is; a router takes one from \
             its advertisements only with net.ipv6.conf.%1.accept_ra=2",
            &[name],
        );
        return None;
    };
    let Some(prefix) = prefix(upstream, snapshot) else {
        findings.add(
            Problem,
            "prove|%1 has no address in a global prefix shorter than /128, nor a route to one, so \
             there is no address to prove it with|a router takes one from the gateway only with \
             net.ipv6.conf.%1.accept_ra=2; where the gateway routes a prefix here, nothing has to \
             be proven",
            &[name],
        );
        return None;
    };
    let words = [name, &gateway.to_string()];
    findings.add(Ok, "gateway|%2 is the gateway on %1", &words);
    own_bridge(upstream, snapshot, findings);
    let neighbors = snapshot.neighbors.iter();
    let mut neighbors = neighbors.filter(|neighbor| neighbor.index == link.index);
    let own = snapshot.addresses.iter().map(|own| own.address);
    let known = neighbors.clone().map(|neighbor| neighbor.address);
    Some(Scene {
        name,
        index: link.index,
        link_local,
        mac,
        gateway,
        taken: own.chain(known).chain([gateway]).collect(),
        gateway_mac: neighbors
            .find(|neighbor| neighbor.address == gateway)
            .map(|neighbor| neighbor.mac),
        prefix,
    })
}

/// The prefix of a global address of the upstream, or else one to which a route goes there. DHCPv6
/// gives addresses of 128 bits, beside which the router's advertisements tell what is on the link.
fn prefix(upstream: &Interface, snapshot: &Snapshot) -> Option<Prefix> {
    let addresses = snapshot.addresses.iter().filter(|address| address.usable);
    let of_addresses = addresses.filter_map(|address| {
        let prefix = Prefix::of(address.address, address.prefix_length).ok()?;
        Some((address.index, prefix))
    });
    let on_link = snapshot.on_link.iter().copied();
    let mut prefixes = of_addresses.chain(on_link).filter(|(index, prefix)| {
        Some(*index) == upstream.index && prefix.length() < 128 && GLOBAL_UNICAST.covers(prefix)
    });
    prefixes.next().map(|(_, prefix)| prefix)
}

/// Warns of a bridge of this router that snoops, which may hide solicitations just so.
fn own_bridge(upstream: &Interface, snapshot: &Snapshot, findings: &mut Findings) {
    let decided_by = upstream.decided_by();
    let Some((name, Some(bridge))) = decided_by.and_then(|index| snapshot.link(index)) else {
        return;
    };
    let hands_all = bridge.multicast_router == PERMANENT_ROUTER && !bridge.vlan_snooping;
    if bridge.snooping && !hands_all {
        findings.add(
            Warning,
            "bridge|%1 is a bridge of this router that snoops MLD itself, and may do what is to be \
             proven of the gateway's side|prove it after `ip link set dev %1 type bridge \
             mcast_snooping 0`",
            &[name],
        );
    }
}
