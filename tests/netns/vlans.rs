//! VLANs: what no interface takes is nobody's, and what hides beneath an interface.

use std::net::Ipv6Addr;

use nix::sys::signal::Signal;
use protocol::time::Duration;
use protocol::wire::{ALL_NODES, Query, QueryVersion};

use crate::bridges::multicast_router;
use crate::lab::{DOWNSTREAM, Frame, LAN_ROUTER, Lab, Tap, UPSTREAM, group_mac};
use crate::support::{Host, SOON, address, expect_joined, solicitation, start, start_between};

crate::tests![
    frames_of_a_vlan_that_no_interface_takes_are_not_heard_downstream,
    frames_of_a_vlan_that_no_interface_takes_are_not_heard_upstream,
    a_bridge_that_snoops_beneath_a_downstream_hands_over_all_multicast,
];

fn frames_of_a_vlan_that_no_interface_takes_are_not_heard_downstream() {
    let lab = Lab::without_querier();
    let mldproxy = start(&lab, &[]);
    let host = Host::on(&lab.lan);
    let from = |number| solicitation(host.mac, address(number), LAN_ROUTER);
    host.tap.send_tagged(5, &from(1));
    // A priority and no VLAN: the kernel hears it, too.
    host.tap.send_tagged(0, &from(2));
    host.tap.send(&from(3));
    expect_joined(&lab, &[address(2), address(3)]);
    let line = format!("learned {} ", address(1));
    assert!(!mldproxy.log().contains(&line), "{}", mldproxy.log());
}

fn frames_of_a_vlan_that_no_interface_takes_are_not_heard_upstream() {
    let lab = Lab::without_querier();
    let mldproxy = start(&lab, &[]);
    // Out of the switch's port towards the router.
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
        let length = query.emit(&mut packet).expect("it fits");
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

/// Here beneath a macvlan. For a VLAN's interface it is the same, which not every kernel has.
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
    crate::lab::eventually("it is a multicast router", SOON, || {
        multicast_router(&lab) == "2"
    });
    mldproxy.signal(Signal::SIGTERM);
    assert!(mldproxy.wait(SOON).success(), "{}", mldproxy.log());
    assert_eq!(multicast_router(&lab), before);
}
