//! Hosts that claim the addresses of others.

use std::net::Ipv6Addr;
use std::time::Duration;

use protocol::wire::{ALL_NODES, MacAddress, NeighborAdvertisement};

use super::home::{Home, PC, frames, solicitation};
use crate::lab::{Frame, GATEWAY, LAN_ROUTER, Tap, UPSTREAM, group_mac};
use crate::support::{Host, SOON, proxied};

crate::tests![
    who_answers_for_everything_upstream_takes_no_confirmed_address,
    a_host_cannot_claim_the_known_gateway,
];

/// Sends an advertisement with the override flag, to a router that solicited or to all nodes.
fn advertise(tap: &Tap, router: Option<(Ipv6Addr, [u8; 6])>, target: Ipv6Addr) {
    let (destination, mac) = router.unwrap_or((ALL_NODES, group_mac(ALL_NODES)));
    let advertisement = NeighborAdvertisement {
        source: target,
        destination,
        target,
        router: true,
        solicited: router.is_some(),
        override_flag: true,
        target_link_layer: Some(MacAddress(tap.mac())),
    };
    let mut packet = vec![0; 128];
    let length = advertisement.emit(&mut packet).expect("the packet fits");
    packet.truncate(length);
    tap.send(&Frame {
        source: tap.mac(),
        destination: mac,
        packet,
    });
}

fn who_answers_for_everything_upstream_takes_no_confirmed_address() {
    let home = Home::new(2);
    let mldproxy = home.start(&[]);
    let [host, neighbor] = &home.lans[0][..] else {
        panic!("two hosts")
    };
    let elsewhere = &home.lans[1][0];
    home.confirm(host);
    let router = (home.lab.rtr.link_local_of(UPSTREAM), home.upstream().mac());
    let tap = home.pc.tap();
    for round in 0..3 {
        for _ in 0..10 {
            advertise(&tap, Some(router), host.address);
            advertise(&tap, None, host.address);
        }
        // mldproxy reads packets in order, so it has read the claims before the neighbor's packets.
        if round == 0 {
            assert!(neighbor.namespace.reaches(PC, SOON), "{}", mldproxy.log());
        }
        // Another host finds the host now, and the host finds no duplicate of itself.
        elsewhere.namespace.flush_neighbors();
        assert!(elsewhere.namespace.reaches(host.address, SOON));
        host.unplug();
        host.plug_in(&LAN_ROUTER.to_string());
        assert!(!host.has_a_duplicate_of(host.address));
        home.confirm(host);
        assert_eq!(home.routed_to(host.address).as_deref(), Some("br-lan"));
    }
    let counters = home.lab.rtr.status("--json --limit 0");
    assert!(counters.contains("\"proxies_removed\":0"), "{counters}");
    let is_upstream = format!("{} is upstream", host.address);
    assert!(!mldproxy.log().contains(&is_upstream), "{}", mldproxy.log());
}

/// Claims an address in every way, and answers probes for it as its owner would.
fn claim(home: &Home, thief: &Host, target: Ipv6Addr) {
    let router = (LAN_ROUTER, Tap::open(&home.lab.rtr, "br-lan").mac());
    for _ in 0..3 {
        thief.solicits_from(target);
        thief.advertises(target);
        thief.probes_for_duplicates(target);
        advertise(&thief.tap, Some(router), target);
        let probes = frames(&thief.tap, Duration::from_secs(1));
        for probe in probes.take(20).filter_map(|frame| solicitation(&frame)) {
            if probe.target == target {
                advertise(&thief.tap, Some(router), target);
            }
        }
    }
}

/// mldproxy knows the gateway because a host on a LAN looked for it.
fn a_host_cannot_claim_the_known_gateway() {
    let home = Home::new(2);
    let mldproxy = home.start(&[]);
    let [machine, neighbor] = &home.lans[0][..] else {
        panic!("two hosts")
    };
    assert!(
        neighbor.namespace.reaches(GATEWAY, SOON),
        "{}",
        mldproxy.log()
    );
    home.expect_routed_to(GATEWAY, "wan");
    claim(&home, &Host::on(&machine.namespace), GATEWAY);
    assert_eq!(
        home.routed_to(GATEWAY).as_deref(),
        Some("wan"),
        "{}",
        mldproxy.log()
    );
    assert!(!proxied(&home.lab).contains(&GATEWAY), "{}", mldproxy.log());
}
