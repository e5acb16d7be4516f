//! One link-layer address on two links, and addresses that pass from one host to another.

use std::net::Ipv6Addr;

use super::home::{Home, Machine, free};
use crate::lab::{LAN_ROUTER, Process, eventually, solicited_node};
use crate::support::{Host, SOON, proxied};

crate::tests![
    one_link_layer_address_on_two_lans_keeps_the_addresses_of_both,
    who_takes_over_an_address_and_only_answers_has_it,
    a_laptop_that_changes_its_interface_keeps_its_address,
];

/// Waits for one address timeout. A witness speaks once and never answers, so it expires then.
fn wait_for_a_timeout(on: &Machine, mldproxy: &Process, number: u8) {
    let witness = free(0xf00 + u16::from(number));
    Host::apart(&on.namespace, number).solicits_from(witness);
    mldproxy.wait_for_line(&format!("expired {witness}"), 2 * SOON);
}

/// Has mldproxy left the group of an address?
fn is_left(mldproxy: &Process, address: Ipv6Addr) -> bool {
    let left = format!("left {},", solicited_node(address));
    mldproxy.log().contains(&left)
}

/// A server on two VLANs never speaks by itself on one of them, while it speaks on the other.
fn one_link_layer_address_on_two_lans_keeps_the_addresses_of_both() {
    let home = Home::new(1);
    let [silent, speaking] = home.lans.each_ref().map(|lan| &lan[0]);
    let mac = Host::on(&silent.namespace)
        .mac
        .map(|octet| format!("{octet:02x}"));
    speaking
        .namespace
        .run(&format!("ip link set dev eth0 address {}", mac.join(":")));
    let mldproxy = home.start(&["--address-timeout", "8", "--expiry-interval", "1"]);
    home.confirm(silent);
    home.confirm(speaking);
    // From now on the server has nobody to talk to on this link.
    silent.namespace.run("ip -6 route flush dev eth0 default");
    for number in 1..=3 {
        home.confirm(speaking);
        wait_for_a_timeout(speaking, &mldproxy, number);
        for (host, bridge) in [(silent, "br-lan"), (speaking, "br-lan2")] {
            let place = home.routed_to(host.address);
            assert_eq!(place.as_deref(), Some(bridge), "{}", mldproxy.log());
            assert!(proxied(&home.lab).contains(&host.address));
            assert!(!is_left(&mldproxy, host.address), "{}", mldproxy.log());
        }
    }
}

/// Examples are the virtual address of two routers, on one LAN and on two, and a network card that
/// was replaced without a word.
fn who_takes_over_an_address_and_only_answers_has_it() {
    let home = Home::new(2);
    let [lan, lan2] = &home.lans;
    // Without questions to hosts, a whole round of probes fits such a timeout.
    let options = [
        "--address-timeout",
        "16",
        "--expiry-interval",
        "1",
        "--no-ask",
    ];
    let mldproxy = home.start(&options);
    let cases = [
        (free(1), &lan[1], true, "br-lan"),
        (free(2), &lan[1], false, "br-lan"),
        (free(3), &lan2[1], true, "br-lan2"),
    ];
    let first = &lan[0];
    for (address, _, _, _) in cases {
        let namespace = &first.namespace;
        namespace.run(&format!("ip addr add {address}/64 dev eth0 nodad"));
        let router = format!("{LAN_ROUTER}%eth0");
        namespace.ping_until_answered(&format!("-I {address} {router}"));
        home.expect_proxied(address);
    }
    first.unplug();
    for (address, heir, announces, _) in cases {
        heir.namespace
            .run(&format!("ip addr add {address}/64 dev eth0 nodad"));
        if announces {
            Host::on(&heir.namespace).advertises(address);
        }
    }
    wait_for_a_timeout(&lan2[0], &mldproxy, 1);
    wait_for_a_timeout(&lan2[0], &mldproxy, 2);
    for (address, _, _, bridge) in cases {
        assert!(!is_left(&mldproxy, address), "{}", mldproxy.log());
        assert!(proxied(&home.lab).contains(&address), "{address}");
        home.expect_routed_to(address, bridge);
        assert!(home.lab.gw.reaches(address, SOON), "{}", mldproxy.log());
    }
}

/// A laptop goes from the Wi-Fi to the cable with the address that DHCPv6 gave it. It is no
/// duplicate of itself, although its link-layer address is another one.
fn a_laptop_that_changes_its_interface_keeps_its_address() {
    let home = Home::new(2);
    let mldproxy = home.start(&[]);
    let [wireless, wired] = home.lans.each_ref().map(|lan| &lan[0]);
    home.confirm(wireless);
    home.expect_routed_to(wireless.address, "br-lan");
    wireless.unplug();
    assert!(!wired.finds_taken(wireless.address), "{}", mldproxy.log());
    let speak = format!(
        "ping -n -c 1 -W 1 -I {} {LAN_ROUTER}%eth0",
        wireless.address
    );
    eventually("the router answers it there", SOON, || {
        wired.namespace.try_run(&speak).status.success()
    });
    home.expect_routed_to(wireless.address, "br-lan2");
    assert!(
        home.lab.gw.reaches(wireless.address, SOON),
        "{}",
        mldproxy.log()
    );
    // While the laptop is there, mldproxy defends its address.
    assert!(home.lans[0][1].finds_taken(wireless.address));
}
