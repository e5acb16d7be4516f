//! Checks the interfaces, their addresses, prefixes and routes, and whether the kernel forwards.

use std::net::Ipv6Addr;

use protocol::config::GLOBAL_UNICAST;

use super::findings::Findings;
use super::findings::State::{Ok, Problem, Warning};
use crate::interfaces::Snapshot;
use crate::interfaces::{Interface, State};
use crate::sys::procfs::{ConnectedRoutes, ipv6_setting};

/// Whether the hosts' addresses are on the upstream's link.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// A downstream shares a /64 with the upstream, or may do so.
    Perhaps,
    /// None does: the gateway routes to this router.
    None,
}

pub fn check(snapshot: &Snapshot, findings: &mut Findings) -> Sharing {
    let upstream = snapshot.interfaces.upstream_interface();
    let downstreams = snapshot.interfaces.downstreams();
    let mut forwards = forwards("all", findings);
    for interface in snapshot.interfaces.iter() {
        if link(interface, snapshot, findings) {
            forwards &= self::forwards(interface.name.as_str(), findings);
        }
    }
    if forwards {
        findings.add(Ok, "forwarding|IPv6 is forwarded", &[]);
    }
    let above = prefixes(upstream, snapshot);
    let mut sharing = None;
    for downstream in downstreams {
        if downstream.index.is_some() && upstream.index.is_some() {
            let below = prefixes(downstream, snapshot);
            let (wan, lan) = (upstream.name.as_str(), downstream.name.as_str());
            let found = prefix(wan, lan, &above, &below, findings);
            if sharing != Some(Sharing::Perhaps) {
                sharing = Some(found);
            }
        }
    }
    sharing.unwrap_or(Sharing::Perhaps)
}

/// Checks one interface. Returns whether there is one.
pub fn link(interface: &Interface, snapshot: &Snapshot, findings: &mut Findings) -> bool {
    let name = interface.name.as_str();
    let (state, template) = match interface.state() {
        State::Missing => (Problem, "interface|there is no %1|see `ip link`"),
        State::PartOf(master) => {
            let (master, bridge) = snapshot.link(master).unwrap_or_default();
            let template = match bridge {
                Some(_) => {
                    "interface|%1 is a port of %2, which takes its IPv6|name %2 in its place"
                }
                None => "interface|%1 is a part of %2, which takes its IPv6|name %2 in its place",
            };
            findings.add(Problem, template, &[name, master]);
            return true;
        }
        State::Down | State::NoCarrier => (
            Problem,
            "interface|%1 is down or has no carrier|`ip link set dev %1 up`, or see to its cable, \
             modem or ports",
        ),
        State::SmallMtu(mtu) => {
            let template = "interface|%1 has an MTU of %2, and IPv6 takes 1280|`ip link set dev \
                %1 mtu 1500`, or what the link can carry";
            findings.add(Problem, template, &[name, &mtu.to_string()]);
            return true;
        }
        State::NoLinkLocal | State::Usable => (Ok, "interface|%1 is up"),
    };
    findings.add(state, template, &[name]);
    match interface.link_local {
        Some(address) => findings.add(Ok, "link_local|%1 has %2", &[name, &address.to_string()]),
        None if interface.index.is_some() => findings.add(
            Problem,
            "link_local|%1 has no usable link-local address, and MLD is spoken from one|see `ip \
             -6 addr show dev %1`: \
             tentative passes, dadfailed is another host's, none means that IPv6 is off",
            &[name],
        ),
        None => {}
    }
    interface.index.is_some()
}

fn forwards(name: &str, findings: &mut Findings) -> bool {
    match ipv6_setting(name, "forwarding") {
        Some(0) => findings.add(
            Problem,
            "forwarding|net.ipv6.conf.%1.forwarding is 0|echo 1 > \
             /proc/sys/net/ipv6/conf/%1/forwarding",
            &[name],
        ),
        Some(_) => return true,
        None => findings.unknown("forwarding", name),
    }
    false
}

/// The /64 of each global address.
fn prefixes(interface: &Interface, snapshot: &Snapshot) -> Vec<Ipv6Addr> {
    let mut prefixes = Vec::new();
    for address in &snapshot.addresses {
        if Some(address.index) == interface.index && GLOBAL_UNICAST.contains(address.address) {
            let [a, b, c, d, ..] = address.address.segments();
            prefixes.push(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0));
        }
    }
    prefixes
}

/// Checks whether both sides share a /64, and whether the LAN's route to it wins.
fn prefix(
    wan: &str,
    lan: &str,
    above: &[Ipv6Addr],
    below: &[Ipv6Addr],
    findings: &mut Findings,
) -> Sharing {
    let Some(network) = above.iter().find(|network| below.contains(network)) else {
        let (state, template) = if above.is_empty() {
            (
                Warning,
                "prefix|%1 has no global address, so it is not known what it shares|\
                 a router takes one from the gateway only with net.ipv6.conf.%1.accept_ra=2",
            )
        } else if below.is_empty() {
            (
                Ok,
                "prefix|%2 has no global address, as usual where odhcpd relays",
            )
        } else {
            let template = "prefix|%1 and %2 share no /64|a prefix that the gateway routes here \
                needs no NDP proxy, and mldproxy as an MLD proxy alone (--mld-proxy)";
            findings.add(Warning, template, &[wan, lan]);
            return Sharing::None;
        };
        findings.add(state, template, &[wan, lan]);
        return Sharing::Perhaps;
    };
    let shown = network.to_string();
    let words = [wan, lan, &shown];
    findings.add(Ok, "prefix|%1 and %2 share %3/64", &words);
    let routes = ConnectedRoutes::read(*network);
    let metric = |interface| routes.metric(64, interface);
    let (state, template) = match (metric(wan), metric(lan)) {
        (Some(above), Some(below)) if above == below => (
            Warning,
            "route|%3/64 has the same metric on %1 and on %2|give that of %2 a smaller one",
        ),
        // Unless the hosts have routes of their own, which --host-routes and odhcpd add.
        (Some(above), Some(below)) if above < below && routes.metric(128, lan).is_none() => (
            Warning,
            "route|%3/64 goes to %1 before %2|give that of %2 a smaller metric",
        ),
        (_, None) if routes.metric(128, lan).is_none() => (
            Warning,
            "route|%3/64 does not go to %2, nor does a host|run mldproxy with --host-routes, or \
             `ip route add %3/64 dev %2`",
        ),
        (None | Some(_), None | Some(_)) => (Ok, "route|%3/64 goes to %2"),
    };
    findings.add(state, template, &words);
    Sharing::Perhaps
}
