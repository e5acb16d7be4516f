//! Duplicate address detection across the router: nobody can take an address, whichever link its
//! owner is on.

use std::net::Ipv6Addr;
use std::time::Duration;

use protocol::wire::ALL_NODES;

use super::home::{Home, PC, advertisement, frames, free, solicitation};
use crate::lab::{GATEWAY, LAN_ROUTER, Process};
use crate::support::SOON;

crate::tests![
    what_is_upstream_no_host_can_take,
    what_a_host_has_nobody_upstream_can_take,
    what_a_host_has_none_of_another_lan_can_take,
    what_nobody_has_is_nobodys_duplicate,
    a_host_is_no_duplicate_of_itself,
];

/// Did mldproxy know of the address, upstream or downstream?
fn knows(mldproxy: &Process, address: Ipv6Addr) -> bool {
    let log = mldproxy.log();
    log.contains(&format!("learned {address} ")) || log.contains(&format!("{address} is upstream"))
}

fn what_is_upstream_no_host_can_take() {
    let home = Home::new(2);
    let mldproxy = home.start(&[]);
    for upstream in [PC, GATEWAY] {
        // Nobody has spoken of the address. mldproxy solicits it while the host waits.
        assert!(!knows(&mldproxy, upstream), "{}", mldproxy.log());
        let [lan, lan2] = &home.lans;
        assert!(lan[0].finds_taken(upstream), "{}", mldproxy.log());
        mldproxy.wait_for_line(&format!("{upstream} is upstream"), SOON);
        for host in lan.iter().chain(lan2) {
            assert!(host.finds_taken(upstream), "{}", mldproxy.log());
        }
        home.expect_routed_to(upstream, "wan");
    }
}

fn what_a_host_has_nobody_upstream_can_take() {
    let home = Home::new(1);
    let mldproxy = home.start(&[]);
    for host in home.lans.iter().flatten() {
        home.confirm(host);
        assert!(home.pc.finds_taken(host.address), "{}", mldproxy.log());
        // The host keeps its address.
        assert!(!host.has_a_duplicate_of(host.address));
    }
}

fn what_a_host_has_none_of_another_lan_can_take() {
    let home = Home::new(2);
    let mldproxy = home.start(&[]);
    let [lan, lan2] = &home.lans;
    for (owners, others) in [(lan, lan2), (lan2, lan)] {
        let owner = owners[0].address;
        assert!(!knows(&mldproxy, owner), "{}", mldproxy.log());
        assert!(others[1].finds_taken(owner), "{}", mldproxy.log());
        home.confirm(&owners[0]);
        for other in others {
            assert!(other.finds_taken(owner), "{}", mldproxy.log());
        }
        // On the owner's own LAN, no proxy is needed.
        assert!(owners[1].finds_taken(owner));
    }
    home.expect_routed_to(lan[0].address, "br-lan");
    home.expect_routed_to(lan2[0].address, "br-lan2");
}

fn what_nobody_has_is_nobodys_duplicate() {
    let home = Home::new(1);
    let mldproxy = home.start(&[]);
    let [lan, lan2] = &home.lans;
    for (number, machine) in (1..).zip([&lan[0], &lan2[0], &home.pc]) {
        let address = free(number);
        assert!(!machine.finds_taken(address), "{}", mldproxy.log());
        // No host finds it taken the second time either.
        machine.give_up(address);
        assert!(!machine.finds_taken(address), "{}", mldproxy.log());
    }
}

fn a_host_is_no_duplicate_of_itself() {
    let home = Home::new(2);
    let mldproxy = home.start(&[]);
    let host = &home.lans[0][0];
    home.confirm(host);
    // The host's neighbor hears every packet to all nodes.
    let tap = home.lans[0][1].tap();
    let upstream = home.upstream();
    for _ in 0..2 {
        host.unplug();
        host.plug_in(&LAN_ROUTER.to_string());
        assert!(!host.has_a_duplicate_of(host.address), "{}", mldproxy.log());
    }
    home.confirm(host);
    let answers =
        frames(&tap, Duration::from_millis(500)).filter_map(|frame| advertisement(&frame));
    let mut defence = answers.filter(|answer| {
        answer.target == host.address && answer.destination == ALL_NODES && answer.router
    });
    assert_eq!(defence.next(), None);
    let asked =
        frames(&upstream, Duration::from_millis(500)).filter_map(|frame| solicitation(&frame));
    let mut asked = asked.filter(|solicitation| solicitation.target == host.address);
    assert_eq!(asked.next(), None);
}
