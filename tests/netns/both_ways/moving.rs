//! Who moves, with its address and its link-layer address, from one link to another.

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

/// Three unanswered probes of an old neighbor, and a few solicitations of a new one. The machines' kernels doubt what they know within
/// seconds here; with their defaults it takes up to a minute.
const FOUND_ANEW: Duration = Duration::from_secs(30);

/// Two hosts on each LAN. All of them, the gateway and the PC reach each other soon after somebody moved.
struct Moving(Home);

impl Moving {
    fn new() -> Self {
        let home = Home::new(2);
        finds_anew_soon(&home.lab.gw);
        Self(home)
    }

    /// The gateway, and who else does not move: a host on each LAN.
    fn witnesses(&self) -> [&Namespace; 3] {
        let Self(home) = self;
        let [lan, lan2] = &home.lans;
        [&home.lab.gw, &lan[1].namespace, &lan2[1].namespace]
    }

    /// Whether every witness reaches a machine, and that one every witness on a LAN.
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

    // There and back.
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
        // It was never gone for the gateway.
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

/// A known limit: the kernel, which answers for the host upstream, does not compare link-layer addresses and so takes the host for a
/// second one with its address, for as long as it has the entry. That is the address timeout at the most, after which the host can
/// have its address and is found.
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
