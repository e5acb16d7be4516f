//! Hosts that move from one link to another, and keep their address and link-layer address.

use std::time::Duration;

use super::home::{GATEWAY_LINK_LOCAL, Home, Machine, finds_anew_soon};
use crate::lab::{LAN_ROUTER, Namespace, eventually};
use crate::support::{SOON, proxied};

crate::tests![
    a_host_that_moves_to_another_lan_is_found_there,
    a_pc_that_moves_into_a_lan_is_found_there,
    a_pc_that_nobody_knew_moves_into_a_lan,
    a_host_that_moves_upstream_is_found_there_once_its_entry_is_gone,
];

/// The time for three unanswered probes of an old neighbor, and for some solicitations of a new
/// one. Here the machines' kernels doubt what they know within seconds. With their defaults this
/// takes up to a minute.
const FOUND_ANEW: Duration = Duration::from_secs(30);

/// Two hosts on each LAN. All of them, the gateway and the PC reach each other soon after one of
/// them moved.
struct Moving(Home);

impl Moving {
    fn new() -> Self {
        let home = Home::new(2);
        finds_anew_soon(&home.lab.gw);
        Self(home)
    }

    /// Those that never move: the gateway and one host on each LAN.
    fn witnesses(&self) -> [&Namespace; 3] {
        let Self(home) = self;
        let [lan, lan2] = &home.lans;
        [&home.lab.gw, &lan[1].namespace, &lan2[1].namespace]
    }

    /// Every witness reaches a machine, and the machine reaches the witnesses on the LANs.
    fn expect_reached(&self, machine: &Machine, log: impl Fn() -> String) {
        for witness in self.witnesses() {
            let reached = witness.reaches(machine.address, FOUND_ANEW);
            assert!(reached, "by {}\n{}", witness.label(), log());
        }
        for host in self.0.lans.iter().map(|lan| &lan[1]) {
            let reached = machine.namespace.reaches(host.address, FOUND_ANEW);
            assert!(reached, "{}\n{}", host.address, log());
        }
    }
}

fn a_host_that_moves_to_another_lan_is_found_there() {
    let moving = Moving::new();
    let Moving(home) = &moving;
    let mldproxy = home.start(&[]);
    let host = &home.lans[0][0];
    home.confirm(host);
    moving.expect_reached(host, || mldproxy.log());
    home.expect_routed_to(host.address, "br-lan");

    // The host moves to the other LAN and back.
    for bridge in ["br-lan2", "br-lan"] {
        host.unplug();
        let port = &host.port;
        home.lab
            .rtr
            .run(&format!("ip link set dev {port} master {bridge}"));
        host.plug_in(&LAN_ROUTER.to_string());
        assert!(!host.has_a_duplicate_of(host.address), "{}", mldproxy.log());
        moving.expect_reached(host, || mldproxy.log());
        home.expect_routed_to(host.address, bridge);
        // For the gateway the host was always there.
        assert!(proxied(&home.lab).contains(&host.address));
        let counters = home.lab.rtr.status("--json --limit 0");
        assert!(counters.contains("\"proxies_removed\":0"), "{counters}");
    }
}

fn a_pc_that_moves_into_a_lan_is_found_there() {
    move_pc(true);
}

fn a_pc_that_nobody_knew_moves_into_a_lan() {
    move_pc(false);
}

fn move_pc(is_known: bool) {
    let moving = Moving::new();
    let Moving(home) = &moving;
    let mldproxy = home.start(&[]);
    let pc = &home.pc;
    for lan in &home.lans {
        home.confirm(&lan[1]);
    }
    if is_known {
        moving.expect_reached(pc, || mldproxy.log());
        home.expect_routed_to(pc.address, "wan");
    }
    pc.unplug();
    home.lab.sw.move_interface(&pc.port, &home.lab.rtr);
    home.lab.rtr.run(&format!(
        "ip link set dev {} master br-lan addrgenmode none up",
        pc.port
    ));
    pc.plug_in(&LAN_ROUTER.to_string());
    assert!(!pc.has_a_duplicate_of(pc.address), "{}", mldproxy.log());
    home.confirm(pc);
    moving.expect_reached(pc, || mldproxy.log());
    home.expect_routed_to(pc.address, "br-lan");
}

/// A known limit: upstream the kernel answers for the host, and does not compare link-layer
/// addresses. So it takes the host for a second one with the same address for as long as it has the
/// entry, which is the address timeout at most. After that the host can have its address, and is
/// found.
fn a_host_that_moves_upstream_is_found_there_once_its_entry_is_gone() {
    let moving = Moving::new();
    let Moving(home) = &moving;
    let mldproxy = home.start(&["--address-timeout", "8", "--expiry-interval", "1"]);
    let host = &home.lans[0][0];
    home.confirm(host);
    moving.expect_reached(host, || mldproxy.log());
    host.unplug();
    home.lab.rtr.move_interface(&host.port, &home.lab.sw);
    home.lab.sw.run(&format!(
        "ip link set dev {} master br0 addrgenmode none up",
        host.port
    ));
    host.plug_in(GATEWAY_LINK_LOCAL);
    assert!(host.has_a_duplicate_of(host.address), "{}", mldproxy.log());
    host.give_up(host.address);

    eventually("the entry and its route are gone", SOON, || {
        !proxied(&home.lab).contains(&host.address) && home.routed_to(host.address).is_none()
    });
    assert!(!host.finds_taken(host.address), "{}", mldproxy.log());
    moving.expect_reached(host, || mldproxy.log());
    home.expect_routed_to(host.address, "wan");
    assert!(!proxied(&home.lab).contains(&host.address));
}
