//! VLANs: mldproxy hears no VLAN that has no interface, and finds a bridge beneath an interface.

use std::net::Ipv6Addr;

use nix::sys::signal::Signal;
use protocol::time::Duration;
use protocol::wire::{ALL_NODES, Query, QueryVersion};

use crate::bridges::{Snooping, multicast_router};
use crate::lab::{
    DOWNSTREAM, Frame, LAN_HOST, LAN_ROUTER, Lab, Tap, UPSTREAM, VLAN_SNOOPING, VLANS, VRFS,
    eventually, group_mac,
};
use crate::support::{
    Host, SOON, address, expect_joined, proxied, solicitation, start, start_between,
};

crate::tests![
    frames_of_a_vlan_that_no_interface_takes_are_not_heard_downstream,
    frames_of_a_vlan_that_no_interface_takes_are_not_heard_upstream,
    a_bridge_that_snoops_beneath_a_downstream_hands_over_all_multicast;
    a_vlan_on_a_bridge_that_snoops_is_heard needs [VLANS],
    a_bridge_that_snoops_by_vlan_is_told_of_with_what_opens_it needs [VLAN_SNOOPING],
    a_downstream_in_a_vrf_has_its_routes_there needs [VRFS],
];

fn frames_of_a_vlan_that_no_interface_takes_are_not_heard_downstream() {
    let lab = Lab::without_querier();
    let mldproxy = start(&lab, &[]);
    let host = Host::on(&lab.lan);
    let from = |number| solicitation(host.mac, address(number), LAN_ROUTER);
    host.tap.send_tagged(5, &from(1));
    // The frame has a priority but no VLAN, so the kernel hears it too.
    host.tap.send_tagged(0, &from(2));
    host.tap.send(&from(3));
    expect_joined(&lab, &[address(2), address(3)]);
    let line = format!("learned {} ", address(1));
    assert!(!mldproxy.log().contains(&line), "{}", mldproxy.log());
}

fn frames_of_a_vlan_that_no_interface_takes_are_not_heard_upstream() {
    let lab = Lab::without_querier();
    let mldproxy = start(&lab, &[]);
    // The frames go out of the switch's port towards the router.
    let port = Tap::open(&lab.sw, "rtr");
    let query = |number| {
        let query = Query {
            source: Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0x77, number),
            destination: ALL_NODES,
            group: Ipv6Addr::UNSPECIFIED,
            max_response_delay: Duration::from_secs(1),
            version: QueryVersion::V1,
        };
        let mut packet = vec![0; 128];
        let length = query.emit(&mut packet).expect("the packet fits");
        packet.truncate(length);
        Frame {
            source: port.mac(),
            destination: group_mac(ALL_NODES),
            packet,
        }
    };
    port.send_tagged(5, &query(1));
    port.send_tagged(0, &query(2));
    mldproxy.wait_for_line("fe80::77:2 is the querier upstream", SOON);
    assert!(
        !mldproxy.log().contains("fe80::77:1 "),
        "{}",
        mldproxy.log()
    );
}

/// The bridge is beneath a macvlan here. A VLAN's interface, which not every kernel has, makes no
/// difference.
fn a_bridge_that_snoops_beneath_a_downstream_hands_over_all_multicast() {
    let lab = Lab::without_querier();
    lab.rtr.run(&format!(
        "ip link set dev {DOWNSTREAM} type bridge mcast_snooping 1
         ip link add link {DOWNSTREAM} name above type macvlan
         ip link set dev above up"
    ));
    let before = multicast_router(&lab);
    let mldproxy = start_between(&lab.rtr, &[], &[UPSTREAM, "above"]);
    mldproxy.wait_for_line(
        "above is on a bridge that snoops: its mcast_router is 2",
        SOON,
    );
    eventually("the bridge is a multicast router", SOON, || {
        multicast_router(&lab) == "2"
    });
    mldproxy.signal(Signal::SIGTERM);
    assert!(mldproxy.wait(SOON).success(), "{}", mldproxy.log());
    assert_eq!(multicast_router(&lab), before);
}

fn a_vlan_on_a_bridge_that_snoops_is_heard() {
    let snooping = Snooping::new();
    let lab = &snooping.lab;
    lab.rtr.run(&format!(
        "ip link add link {DOWNSTREAM} name {DOWNSTREAM}.10 type vlan id 10
         ip link set dev {DOWNSTREAM}.10 up"
    ));
    let before = multicast_router(lab);
    let downstream = format!("{DOWNSTREAM}.10");
    let mldproxy = start_between(&lab.rtr, &[], &[UPSTREAM, &downstream]);
    eventually("the bridge is a multicast router", SOON, || {
        multicast_router(lab) == "2"
    });
    let host = Host::on(&lab.lan);
    let from = |number| solicitation(host.mac, Ipv6Addr::UNSPECIFIED, address(number));
    host.tap.send_tagged(11, &from(1));
    host.tap.send(&from(2));
    host.tap.send_tagged(10, &from(3));
    expect_joined(lab, &[address(3)]);
    mldproxy.signal(Signal::SIGTERM);
    assert!(mldproxy.wait(SOON).success(), "{}", mldproxy.log());
    assert_eq!(multicast_router(lab), before);
}

fn a_downstream_in_a_vrf_has_its_routes_there() {
    let lab = Lab::without_querier();
    // An interface that is enslaved loses its addresses.
    lab.rtr.run(&format!(
        "ip link add name guests type vrf table 1000
         ip link set dev guests up
         ip link set dev {DOWNSTREAM} master guests
         ip addr replace {LAN_ROUTER}/64 dev {DOWNSTREAM}
         ip addr replace 2001:db8:1::3/64 dev {DOWNSTREAM} metric 256"
    ));
    let mldproxy = start(&lab, &["--ndp-proxy", "--host-routes"]);
    let routes = |table: &str| {
        let routes = lab.rtr.run(&format!("ip -6 route show table {table}"));
        let ours = routes.lines().filter(|line| line.contains("proto 77"));
        ours.map(str::to_owned).collect::<Vec<_>>()
    };
    Host::on(&lab.lan).solicits_from(LAN_HOST);
    eventually("the host has a route in the VRF", SOON, || {
        routes("1000")
            .iter()
            .any(|route| route.starts_with(&format!("{LAN_HOST} dev {DOWNSTREAM} ")))
    });
    assert_eq!(proxied(&lab), [LAN_HOST]);
    assert_eq!(routes("main"), [""; 0]);
    // When mldproxy lists the routes, it finds the route in the VRF's table.
    mldproxy.signal(Signal::SIGHUP);
    lab.rtr.status("--json");
    assert_eq!(routes("1000").len(), 1);
    assert!(!mldproxy.log().contains("is part of"), "{}", mldproxy.log());
    mldproxy.signal(Signal::SIGTERM);
    assert!(mldproxy.wait(SOON).success(), "{}", mldproxy.log());
    assert_eq!(routes("1000"), [""; 0]);
}

fn a_bridge_that_snoops_by_vlan_is_told_of_with_what_opens_it() {
    let snooping = Snooping::new();
    let lab = &snooping.lab;
    lab.rtr.run(&format!(
        "ip link set dev {DOWNSTREAM} type bridge vlan_filtering 1 mcast_vlan_snooping 1"
    ));
    let before = multicast_router(lab);
    let mldproxy = start(lab, &[]);
    let command = format!("bridge vlan set vid 1 dev {DOWNSTREAM} self mcast_router 2");
    mldproxy.wait_for_line(&format!("`{command}`"), SOON);
    assert_eq!(multicast_router(lab), before, "which would do nothing");
    let program = env!("CARGO_BIN_EXE_mldproxy");
    let found = lab
        .rtr
        .try_run(&format!("{program} check --wait 0 {UPSTREAM} {DOWNSTREAM}"));
    let found = String::from_utf8_lossy(&found.stdout).into_owned();
    assert!(found.contains(&format!("`{command}`")), "{found}");
    lab.rtr.run(&command);
    Host::apart(&lab.lan, 1).probes_for_duplicates(address(1));
    expect_joined(lab, &[address(1)]);
}
