//! What looks like an attack and is none: an address that really passes to another host, or its
//! host to another place. Beside these, `both_ways::moving` and `both_ways::claims` have hosts that
//! move between links and change their interface.

use std::net::Ipv6Addr;

use super::{GENEROUS, GUEST, LAN, add_unspoken, expect_served, mac_of, silence};
use crate::both_ways::home::{GATEWAY_LINK_LOCAL, Home, Machine};
use crate::lab::{LAN_ROUTER, Process, UPSTREAM, eventually, solicited_node};
use crate::support::{Host, proxied};

crate::tests![
    an_heir_that_announces_an_address_on_the_same_link_has_it,
    an_heir_that_detects_duplicates_on_another_link_has_the_address,
    a_host_that_moves_to_the_guests_with_all_addresses_keeps_them,
    a_replaced_network_card_keeps_the_address,
    a_host_that_roams_behind_another_port_of_the_bridge_keeps_its_address,
    a_pc_moves_into_a_lan_and_back,
];

/// A home in which the first host of the LAN has two more addresses, which are confirmed too.
struct Family {
    home: Home,
    mldproxy: Process,
    addresses: Vec<Ipv6Addr>,
}

impl Family {
    fn new() -> Self {
        let home = Home::new(2);
        let mldproxy = home.start(&[]);
        let host = &home.lans[0][0];
        home.confirm(host);
        let addresses = add_unspoken(host, 1..=2);
        let voice = Host::on(&host.namespace);
        for address in &addresses {
            voice.solicits_from(*address);
            expect_served(&home, &mldproxy, *address, LAN);
        }
        Family {
            home,
            mldproxy,
            addresses,
        }
    }

    fn host(&self) -> &Machine {
        &self.home.lans[0][0]
    }

    /// Waits until an address belongs to a machine on a link, and the gateway reaches it there.
    #[track_caller]
    fn expect_at(&self, address: Ipv6Addr, machine: &Machine, place: &str) {
        let Family { home, mldproxy, .. } = self;
        let mac = machine.tap().mac().map(|octet| format!("{octet:02x}"));
        eventually("the address is the machine's", GENEROUS, || {
            mac_of(home, address).as_deref() == Some(&mac.join(":"))
        });
        expect_served(home, mldproxy, address, place);
        let reached = home.lab.gw.reaches(address, GENEROUS);
        assert!(reached, "{address}\n{}", mldproxy.log());
    }

    /// As [`Self::expect_at`], for the two further addresses.
    #[track_caller]
    fn expect_both_at(&self, machine: &Machine, place: &str) {
        for address in &self.addresses {
            self.expect_at(*address, machine, place);
        }
    }
}

/// The virtual address of two servers passes to the second, which announces it (RFC 4861 §7.2.6).
fn an_heir_that_announces_an_address_on_the_same_link_has_it() {
    let family = Family::new();
    let heir = &family.home.lans[0][1];
    family.host().unplug();
    add_unspoken(heir, 1..=2);
    for address in &family.addresses {
        Host::on(&heir.namespace).advertises(*address);
    }
    family.expect_both_at(heir, LAN);
}

fn an_heir_that_detects_duplicates_on_another_link_has_the_address() {
    let family = Family::new();
    let heir = &family.home.lans[1][0];
    family.host().unplug();
    for address in &family.addresses {
        let taken = heir.finds_taken(*address);
        assert!(!taken, "{address}\n{}", family.mldproxy.log());
        let router = format!("{LAN_ROUTER}%eth0");
        heir.namespace
            .ping_until_answered(&format!("-I {address} {router}"));
    }
    family.expect_both_at(heir, GUEST);
}

/// The host detects duplicates of nothing, and speaks from one address alone.
fn a_host_that_moves_to_the_guests_with_all_addresses_keeps_them() {
    let family = Family::new();
    let (home, host) = (&family.home, family.host());
    host.namespace.sysctl("net.ipv6.conf.eth0.accept_dad", "0");
    host.unplug();
    let port = &host.port;
    home.lab
        .rtr
        .run(&format!("ip link set dev {port} master {GUEST}"));
    host.plug_in(&LAN_ROUTER.to_string());
    let router = format!("{LAN_ROUTER}%eth0");
    host.namespace
        .ping_until_answered(&format!("-I {} {router}", host.address));
    family.expect_at(host.address, host, GUEST);
    family.expect_both_at(host, GUEST);
}

fn a_replaced_network_card_keeps_the_address() {
    let family = Family::new();
    let host = family.host();
    host.unplug();
    host.namespace
        .run("ip link set dev eth0 address 02:00:00:00:77:0a");
    host.plug_in(&LAN_ROUTER.to_string());
    assert!(!host.has_a_duplicate_of(host.address));
    let router = format!("{LAN_ROUTER}%eth0");
    for address in family.addresses.iter().chain([&host.address]) {
        host.namespace
            .ping_until_answered(&format!("-I {address} {router}"));
    }
    family.expect_at(host.address, host, LAN);
    family.expect_both_at(host, LAN);
}

/// From one access point to another, the host says nothing.
fn a_host_that_roams_behind_another_port_of_the_bridge_keeps_its_address() {
    let family = Family::new();
    let (home, host) = (&family.home, family.host());
    home.lab.rtr.run(
        "ip link add name ap type bridge mcast_snooping 0
         ip link add name to-ap type veth peer name to-lan
         ip link set dev to-ap master br-lan addrgenmode none up
         ip link set dev to-lan master ap addrgenmode none up
         ip link set dev ap addrgenmode none up",
    );
    silence(host);
    let port = &host.port;
    home.lab
        .rtr
        .run(&format!("ip link set dev {port} master ap"));
    let joined = home.lab.rtr.joined(UPSTREAM);
    for address in family.addresses.iter().chain([&host.address]) {
        assert!(joined.contains(&solicited_node(*address)));
        family.expect_at(*address, host, LAN);
    }
}

/// The way back works once the entry of the PC is gone, since upstream the router's kernel answers
/// for the PC until then.
fn a_pc_moves_into_a_lan_and_back() {
    let home = Home::new(1);
    let mldproxy = home.start(&["--address-timeout", "8", "--expiry-interval", "1"]);
    let (pc, seeker) = (&home.pc, &home.lans[1][0]);
    let (sw, rtr, port) = (&home.lab.sw, &home.lab.rtr, &home.pc.port);
    assert!(seeker.namespace.reaches(pc.address, GENEROUS));
    home.expect_routed_to(pc.address, UPSTREAM);

    pc.unplug();
    sw.move_interface(port, rtr);
    rtr.run(&format!(
        "ip link set dev {port} master br-lan addrgenmode none up"
    ));
    pc.plug_in(&LAN_ROUTER.to_string());
    assert!(!pc.has_a_duplicate_of(pc.address), "{}", mldproxy.log());
    home.confirm(pc);
    expect_served(&home, &mldproxy, pc.address, LAN);
    assert!(home.lab.gw.reaches(pc.address, GENEROUS));
    assert!(seeker.namespace.reaches(pc.address, GENEROUS));

    pc.unplug();
    rtr.move_interface(port, sw);
    sw.run(&format!(
        "ip link set dev {port} master br0 addrgenmode none up"
    ));
    eventually("the entry and its route are gone", GENEROUS, || {
        !proxied(&home.lab).contains(&pc.address) && home.routed_to(pc.address).is_none()
    });
    pc.plug_in(GATEWAY_LINK_LOCAL);
    assert!(!pc.has_a_duplicate_of(pc.address), "{}", mldproxy.log());
    assert!(seeker.namespace.reaches(pc.address, GENEROUS));
    home.expect_routed_to(pc.address, UPSTREAM);
}
