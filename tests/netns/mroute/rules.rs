//! Multicast routing tables beside the default one, and the rules that lead to them.

use daemon::sys::mroute::{Mroute, NO_INTERFACE};
use daemon::sys::netlink::BUFFER_LENGTH;
use daemon::sys::netlink::siblings::Number;
use daemon::sys::netlink::tables::Tables;

use crate::lab::eventually;
use crate::support::SOON;

use super::{ALL, ANY, GROUP, INTERFACES, LB, Network, U, WAN, bit};

crate::tests![
    what_arrives_takes_the_table_of_its_rule,
    rules_without_an_owner_are_removed_and_no_others,
];

/// The multicast rules of the router, but for the kernel's own.
fn rules(network: &Network) -> Vec<String> {
    let told = network.router.run("ip -6 mrule show");
    let words = told.lines().map(|line| line.split_whitespace());
    let lines = words.map(|words| words.collect::<Vec<_>>().join(" "));
    lines.filter(|line| !line.starts_with("32767:")).collect()
}

fn what_arrives_takes_the_table_of_its_rule() {
    let network = Network::new();
    let other = network.mroute();
    other.set_entry(ANY, GROUP, WAN, ALL).unwrap();
    let mut mroute = network.router.within(|| Mroute::open(Some(100))).unwrap();
    for (number, (name, _)) in (0..).zip(INTERFACES) {
        mroute.add_interface(number, network.index(name)).unwrap();
    }
    mroute.set_entry(ANY, ANY, NO_INTERFACE, ALL).unwrap();
    mroute.set_entry(U, GROUP, WAN, bit(LB)).unwrap();
    assert_eq!(network.send(&other, WAN, U, GROUP), "ab", "without a rule");

    let tables = network
        .router
        .within(|| Tables::open(Number::default()))
        .unwrap();
    for _ in 0..2 {
        for (name, _) in INTERFACES {
            tables.add_multicast_rule(name, 100).unwrap();
        }
    }
    let rule = |name| format!("7777: from all iif {name} lookup 100 proto 77");
    assert_eq!(rules(&network), ["wan", "la", "lb"].map(rule));
    assert_eq!(network.send(&mroute, WAN, U, GROUP), "b");
    let expected = [
        "100 2001:db8:1::10 ff1e::8 wan > lb: 1 packets, 48 octets, 0 wrong",
        "100 :: :: - > wan la lb: 0 packets, 0 octets, 0 wrong",
        "254 :: ff1e::8 wan > wan la lb: 1 packets, 48 octets, 0 wrong",
    ];
    assert_eq!(network.entries(), expected);

    for _ in 0..2 {
        for (name, _) in INTERFACES {
            tables.remove_multicast_rule(name, 100).unwrap();
        }
    }
    assert_eq!(rules(&network), [""; 0]);
    assert_eq!(network.send(&other, WAN, U, GROUP), "ab");
}

fn rules_without_an_owner_are_removed_and_no_others() {
    let network = Network::new();
    let open = |table| network.router.within(|| Mroute::open(Some(table))).unwrap();
    let tables = network
        .router
        .within(|| Tables::open(Number::default()))
        .unwrap();
    let (dead, living, own) = (open(100), open(200), open(300));
    for mroute in [&dead, &living, &own] {
        for name in ["wan", "not-there-yet"] {
            tables.add_multicast_rule(name, mroute.table()).unwrap();
        }
    }
    network.router.run(
        "ip -6 mrule add iif la lookup 100 priority 7777
         ip -6 mrule add iif wan lookup 300 priority 1000",
    );
    drop(dead);
    let remove = |table| {
        network.router.within(|| {
            let tables = Tables::open(Number::default()).unwrap();
            tables
                .remove_multicast_rules(table, &mut [0; BUFFER_LENGTH])
                .unwrap();
        });
    };
    let others = [
        "1000: from all iif wan lookup 300",
        "7777: from all iif wan lookup 200 proto 77",
        "7777: from all iif not-there-yet [detached] lookup 200 proto 77",
        "7777: from all iif la lookup 100",
    ];
    // A program that another test starts may hold a socket for a moment longer.
    eventually(
        "the rules of a dead owner, and its own, are removed",
        SOON,
        || {
            remove(Some(own.table()));
            rules(&network) == others
        },
    );
    drop((living, own));
    eventually("there is no owner", SOON, || {
        remove(None);
        rules(&network) == [others[0], others[3]]
    });
}
