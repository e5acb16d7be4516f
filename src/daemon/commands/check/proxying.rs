//! Checks who answers for the hosts, whether solicitations reach the daemon, and which privileges
//! there are.

use super::findings::Findings;
use super::findings::State::{Ok, Problem, Warning};
use super::network::Sharing;
use crate::control::instance::{self, Instance};
use crate::interfaces::Interface;
use crate::interfaces::Snapshot;
use crate::sys::netlink::PERMANENT_ROUTER;
use crate::sys::netlink::siblings::Number;
use crate::sys::privileges::{CAP_NET_ADMIN, CAP_NET_RAW, effective_capabilities};
use crate::sys::procfs::{find_processes, ipv6_setting};

/// Programs that answer for hosts behind the router. The first one, odhcpd, does so only if it is
/// configured to relay.
const PROXIES: &[&str] = &[
    "odhcpd",
    "ndppd",
    "npd6",
    "pndpd",
    "6relayd",
    "ndp-proxy-go",
];

/// `socket` is the path of the instance's control socket, where that is not in the program's
/// folder.
pub fn check(
    snapshot: &Snapshot,
    (socket, sharing): (Option<&str>, Sharing),
    findings: &mut Findings,
) -> Instance {
    let upstream = snapshot.interfaces.upstream_interface();
    let name = upstream.name.as_str();
    let instance = instance::on_upstream(name, socket);
    if upstream.index.is_some() {
        proxy(upstream, (instance, sharing), snapshot, findings);
    }
    match instance {
        Instance::Running { .. } => findings.add(Ok, "instance|mldproxy runs for %1", &[name]),
        Instance::Perhaps => findings.add(
            Warning,
            "instance|a mldproxy runs that does not tell its upstream|\
             run this as root; where that is so, restart the other, which is of another version",
            &[],
        ),
        Instance::None => findings.add(
            Warning,
            "instance|no mldproxy runs for %1|start it",
            &[name],
        ),
    }
    for downstream in snapshot.interfaces.downstreams() {
        snooping(downstream, snapshot, instance, findings);
    }
    privileges(findings);
    instance
}

fn proxy(
    upstream: &Interface,
    (instance, sharing): (Instance, Sharing),
    snapshot: &Snapshot,
    findings: &mut Findings,
) {
    let name = upstream.name.as_str();
    let mut program = None;
    find_processes(PROXIES, &mut |found| {
        program = Some(found);
        found != PROXIES[0]
    });
    let relays = program == Some(PROXIES[0]);
    // An NDP proxy that knows no host yet has no entries.
    let mut own = matches!(
        instance,
        Instance::Running {
            ndp_proxy: true,
            ..
        }
    );
    let mut others = false;
    for (index, protocol) in &snapshot.proxied {
        if Some(*index) == upstream.index {
            let is_own = Number::of_mark(*protocol).is_some();
            own |= is_own;
            others |= !is_own;
        }
    }
    let entries = own || others;
    let settings = (
        ipv6_setting("all", "proxy_ndp"),
        ipv6_setting(name, "proxy_ndp"),
    );
    let (state, template) = match settings {
        (Some(_), Some(_)) if own && program.is_some() && !relays => (
            Warning,
            "ndp_proxy|mldproxy and %2 both answer on %1|stop %2",
        ),
        (Some(_), Some(_)) if program.is_some() && !relays => (Ok, "ndp_proxy|%2 runs"),
        (None, _) | (_, None) => return findings.unknown("ndp_proxy", "proxy_ndp"),
        // odhcpd's relay uses the kernel's proxy: it adds the entries, and sets the interface's
        // proxy_ndp.
        (Some(_), Some(_)) if own && others && relays => (
            Warning,
            "ndp_proxy|mldproxy and %2 both answer on %1|`option ndp disabled` in \
             /etc/config/dhcp, or ndp_proxy 0",
        ),
        (Some(0), Some(0)) if relays && !own => (
            Warning,
            "ndp_proxy|%2 runs, but does not seem to relay NDP on %1, where proxy_ndp is 0|\
             `option ndp relay` in /etc/config/dhcp for both networks",
        ),
        (Some(0), Some(0)) if entries => (
            Problem,
            "ndp_proxy|the kernel has proxy entries on %1 and proxy_ndp is 0, so it does not \
             answer|\
             echo 1 > /proc/sys/net/ipv6/conf/all/proxy_ndp",
        ),
        (Some(0), Some(_)) if entries => (
            Ok,
            "ndp_proxy|the kernel answers for hosts on %1, but not unicast \
             (net.ipv6.conf.all.proxy_ndp is 0)",
        ),
        (Some(_), Some(_)) if own => (
            Ok,
            "ndp_proxy|mldproxy answers for hosts on %1 by the kernel",
        ),
        (Some(_), Some(_)) if others => (Ok, "ndp_proxy|the kernel answers for hosts on %1"),
        (Some(_), Some(_)) if relays => (
            Ok,
            "ndp_proxy|%2 seems to relay NDP on %1, and knows no host yet",
        ),
        (Some(_), Some(_)) if sharing == Sharing::None => (
            Ok,
            "ndp_proxy|nobody has to answer for hosts on %1, with which they share no /64",
        ),
        (Some(_), Some(_)) => (
            Problem,
            "ndp_proxy|hosts are joined on %1, but nobody answers for them|\
             run mldproxy with --ndp-proxy, or ndppd, or odhcpd with `option ndp relay`",
        ),
    };
    findings.add(state, template, &[name, program.unwrap_or_default()]);
}

fn snooping(
    downstream: &Interface,
    snapshot: &Snapshot,
    instance: Instance,
    findings: &mut Findings,
) {
    let name = downstream.name.as_str();
    let through = downstream
        .decided_by()
        .and_then(|index| snapshot.link(index));
    let (bridge_name, bridge) = match through {
        None if downstream.index.is_none() => return,
        Some((bridge_name, Some(bridge))) => (bridge_name, bridge),
        Some((_, None)) | None => return findings.add(Ok, "snooping|%1 is no bridge", &[name]),
    };
    let (state, template) = if !bridge.snooping {
        (Ok, "snooping|%2 does not snoop MLD")
    } else if bridge.vlan_snooping {
        (
            Warning,
            "snooping|%2 snoops MLD by VLAN, and may hide solicitations from mldproxy|\
             `bridge vlan set vid %3 dev %2 self mcast_router 2`, for mcast_router of %2 itself \
             does nothing then",
        )
    } else if bridge.multicast_router == PERMANENT_ROUTER {
        (
            Ok,
            "snooping|%2 snoops MLD, and hands all multicast to this router",
        )
    } else if matches!(instance, Instance::Running { .. }) {
        (
            Warning,
            "snooping|%2 snoops MLD, and may hide solicitations from mldproxy|\
             give that CAP_NET_ADMIN, or `ip link set dev %2 type bridge mcast_router 2`",
        )
    } else {
        (
            Ok,
            "snooping|%2 snoops MLD, which mldproxy makes up for once it runs",
        )
    };
    let vlan = downstream.vlan.unwrap_or(1).to_string();
    findings.add(state, template, &[name, bridge_name, &vlan]);
}

fn privileges(findings: &mut Findings) {
    let capabilities = effective_capabilities();
    if capabilities & CAP_NET_RAW == 0 {
        findings.add(
            Warning,
            "privileges|without CAP_NET_RAW queries cannot be heard|run as root",
            &[],
        );
    } else if capabilities & CAP_NET_ADMIN == 0 {
        findings.add(
            Warning,
            "privileges|without CAP_NET_ADMIN mldproxy can neither set a bridge that snoops nor \
             proxy NDP|run as root",
            &[],
        );
    } else {
        findings.add(Ok, "privileges|CAP_NET_RAW, CAP_NET_ADMIN", &[]);
    }
}
