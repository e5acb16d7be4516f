//! A LAN bridge that snoops MLD, with a querier behind one of its ports.

use std::net::Ipv6Addr;

use nix::sys::signal::Signal;

use crate::lab::{
    DOWNSTREAM, Frame, LAN_HOST, Lab, Namespace, Tap, eventually, group_mac, solicited_node,
};
use crate::support::{Host, SOON, address, expect_joined, start};

crate::tests![
    behind_a_lan_that_snoops_all_is_heard_and_the_bridge_is_as_before_at_the_end,
    after_a_crash_a_lan_that_snoops_is_heard_again,
    a_bridge_that_does_not_snoop_is_left_alone,
    somebody_else_who_changes_the_bridge_back_is_told_of_and_not_fought,
];

/// A LAN bridge that holds back the groups that nobody on the LAN joined, from the router too.
pub struct Snooping {
    pub lab: Lab,
    /// A switch behind another port. Because of its querier the bridge starts to hold back groups.
    _switch: Namespace,
}

impl Snooping {
    pub fn new() -> Self {
        let lab = Lab::without_querier();
        let switch = Namespace::new("lan-switch");
        lab.rtr.veth("lan-port", &switch, "uplink");
        switch.run(
            "ip link add name br0 type bridge mcast_snooping 1 mcast_mld_version 2 \
                mcast_query_response_interval 25 mcast_startup_query_interval 100 \
                mcast_query_interval 200
             ip link set dev br0 up
             ip link set dev uplink master br0 addrgenmode none up",
        );
        lab.rtr.run(&format!(
            "ip link set dev {DOWNSTREAM} type bridge mcast_snooping 1 \
                mcast_query_response_interval 25
             ip link set dev lan-port master {DOWNSTREAM} addrgenmode none up"
        ));
        eventually("the switch has a link-local address", SOON, || {
            let addresses = switch.run("ip -6 addr show dev br0 scope link");
            addresses.contains("fe80::") && !addresses.contains("tentative")
        });
        switch.run("ip link set dev br0 type bridge mcast_querier 1");
        let snooping = Self {
            lab,
            _switch: switch,
        };
        eventually("the LAN's bridge holds back", 2 * SOON, || {
            !snooping.floods()
        });
        snooping
    }

    /// Does the router hear packets to a group that nobody joined? It hears packets to all nodes in
    /// any case.
    fn floods(&self) -> bool {
        let host = Tap::open(&self.lab.lan, "eth0");
        let router = Tap::open(&self.lab.rtr, DOWNSTREAM);
        let to = |group: Ipv6Addr| {
            let header = [0x60, 0, 0, 0, 0, 8, 59, 1];
            let packet = [&header[..], &LAN_HOST.octets(), &group.octets(), &[0; 8]].concat();
            Frame {
                source: host.mac(),
                destination: group_mac(group),
                packet,
            }
        };
        let unjoined = to(solicited_node(Ipv6Addr::from_bits(0xdead_beef)));
        let all_nodes = to(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1));
        host.send(&unjoined);
        host.send(&all_nodes);
        let mut flooded = false;
        while let Some(frame) = router.receive(SOON) {
            if frame == all_nodes {
                return flooded;
            }
            flooded |= frame == unjoined;
        }
        panic!("not even what goes to all nodes is heard");
    }

    fn multicast_router(&self) -> String {
        multicast_router(&self.lab)
    }
}

pub fn multicast_router(lab: &Lab) -> String {
    let shown = lab.rtr.run(&format!("ip -d link show dev {DOWNSTREAM}"));
    let mut words = shown.split_whitespace();
    words.find(|word| *word == "mcast_router");
    words.next().expect("a number").to_owned()
}

/// A host detects duplicates of its address, which only the router could hear. Then it learns that
/// a neighbor is there.
fn is_heard(lab: &Lab, number: u16) {
    Host::apart(&lab.lan, 1).probes_for_duplicates(address(number));
}

fn behind_a_lan_that_snoops_all_is_heard_and_the_bridge_is_as_before_at_the_end() {
    let snooping = Snooping::new();
    let lab = &snooping.lab;
    assert_eq!(snooping.multicast_router(), "1");
    let mldproxy = start(lab, &[]);
    mldproxy.wait_for_line("br-lan snoops", SOON);
    assert_eq!(snooping.multicast_router(), "2");
    is_heard(lab, 1);
    expect_joined(lab, &[address(1)]);
    let link = lab.rtr.run(&format!("ip -d link show dev {DOWNSTREAM}"));
    assert!(link.contains("promiscuity 0 "), "{link}");

    mldproxy.signal(Signal::SIGTERM);
    assert!(mldproxy.wait(SOON).success());
    assert_eq!(snooping.multicast_router(), "1");
    assert!(!snooping.floods());
}

fn after_a_crash_a_lan_that_snoops_is_heard_again() {
    let snooping = Snooping::new();
    let lab = &snooping.lab;
    let crashed = start(lab, &[]);
    crashed.wait_for_line("br-lan snoops", SOON);
    crashed.signal(Signal::SIGKILL);
    crashed.wait(SOON);
    let next = start(lab, &[]);
    is_heard(lab, 1);
    expect_joined(lab, &[address(1)]);
    next.signal(Signal::SIGTERM);
    assert!(next.wait(SOON).success());
    // mldproxy wrote the setting down before the crash.
    assert_eq!(snooping.multicast_router(), "1");
}

fn a_bridge_that_does_not_snoop_is_left_alone() {
    let lab = Lab::without_querier();
    let before = multicast_router(&lab);
    let mldproxy = start(&lab, &[]);
    is_heard(&lab, 1);
    expect_joined(&lab, &[address(1)]);
    assert_eq!(multicast_router(&lab), before);
    // Without an MLD proxy no stream is forwarded.
    assert!(!mldproxy.log().contains("does not snoop"));
    // The owner turns snooping on after all.
    lab.rtr.run(&format!(
        "ip link set dev {DOWNSTREAM} type bridge mcast_snooping 1"
    ));
    mldproxy.wait_for_line("br-lan snoops", SOON);
    eventually("the bridge is a multicast router", SOON, || {
        multicast_router(&lab) == "2"
    });
    mldproxy.signal(Signal::SIGTERM);
    assert!(mldproxy.wait(SOON).success());
    assert_eq!(multicast_router(&lab), before);
}

fn somebody_else_who_changes_the_bridge_back_is_told_of_and_not_fought() {
    let lab = Lab::without_querier();
    let set = |setting: &str| {
        let command = format!("ip link set dev {DOWNSTREAM} type bridge {setting}");
        lab.rtr.run(&command);
    };
    set("mcast_snooping 1");
    let mldproxy = start(&lab, &[]);
    eventually("the bridge is a multicast router", SOON, || {
        multicast_router(&lab) == "2"
    });
    // mldproxy reads the kernel's messages about that before it answers a status request.
    (0..3).for_each(|_| drop(lab.rtr.status("")));
    set("mcast_router 0");
    mldproxy.wait_for_line("its mcast_router was set to 0", SOON);
    assert_eq!(multicast_router(&lab), "0");
    mldproxy.signal(Signal::SIGTERM);
    assert!(mldproxy.wait(SOON).success());
    assert_eq!(multicast_router(&lab), "0");
}
