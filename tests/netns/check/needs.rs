//! What `mldproxy check --prove` needs: a gateway, a prefix, and addresses in it that nobody has.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;

use protocol::wire::parse;

use super::prove::{PROVE, announced, passed, proven};
use super::{BINARY, check, findings, outcome};
use crate::lab::{Frame, Lab, Namespace, ROUTER, Tap, Tun, eventually, solicited_node};
use crate::support::SOON;

crate::tests![
    the_prefix_of_a_route_does_where_the_address_has_none,
    addresses_in_use_are_refused,
    where_every_address_is_in_use_nothing_is_proven,
    what_is_missing_is_told_in_one_line,
    a_link_without_link_layer_addresses_has_nothing_to_prove,
    a_bridge_of_the_router_that_snoops_is_told,
];

/// As where the address is one of DHCPv6.
fn the_prefix_of_a_route_does_where_the_address_has_none() {
    let lab = Lab::new();
    lab.rtr.run(&format!(
        "ip addr del {ROUTER}/64 dev wan
         ip addr add {ROUTER}/128 dev wan
         ip -6 route add 2001:db8:1::/64 dev wan metric 512"
    ));
    let (_, lines) = check(&lab.rtr, PROVE);
    assert!(proven(&lines).contains(" snoops MLD: "), "{lines:#?}");
}

/// Makes the prefix on the upstream a /125, with eight addresses.
fn shorten(lab: &Lab) {
    lab.rtr.run(&format!(
        "ip addr del {ROUTER}/64 dev wan
         ip addr add {ROUTER}/125 dev wan
         ip addr del 2001:db8:1::3/64 dev br-lan"
    ));
}

/// Waits until the switch lets solicitations pass to the gateway for these of its addresses.
fn hosts_are_found(lab: &Lab, numbers: std::ops::Range<u16>) {
    let address = |number| Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, number);
    let groups: BTreeSet<_> = numbers.map(address).map(solicited_node).collect();
    eventually("the gateway reported its groups", SOON, || {
        lab.sw.mdb("br0", "gw").is_superset(&groups)
    });
}

fn addresses_in_use_are_refused() {
    let lab = Lab::new();
    shorten(&lab);
    // The first address is the routers', the next ones are the gateway's and the router's.
    lab.gw.run(
        "ip addr add 2001:db8:1::3/64 dev eth0
         ip addr add 2001:db8:1::4/64 dev eth0
         ip addr add 2001:db8:1::5/64 dev eth0",
    );
    hosts_are_found(&lab, 3..6);
    let (_, lines) = check(&lab.rtr, PROVE);
    assert!(proven(&lines).contains(" snoops MLD: "), "{lines:#?}");
    let free = ["2001:db8:1::6", "2001:db8:1::7"].map(|free| free.parse::<Ipv6Addr>().unwrap());
    assert_eq!(
        BTreeSet::from(announced(&lines)),
        BTreeSet::from(free),
        "{lines:#?}"
    );
}

fn where_every_address_is_in_use_nothing_is_proven() {
    let lab = Lab::new();
    shorten(&lab);
    for number in 3..8 {
        lab.gw
            .run(&format!("ip addr add 2001:db8:1::{number}/64 dev eth0"));
    }
    hosts_are_found(&lab, 3..8);
    let wire = Tap::open(&lab.gw, "eth0");
    let (code, lines) = check(&lab.rtr, PROVE);
    assert_eq!(code, 2, "{lines:#?}");
    assert!(
        proven(&lines).starts_with(
            "problem no two addresses of 2001:db8:1::/125 that nobody has were found: "
        ),
        "{lines:#?}"
    );
    let echo = |frame: &Frame| parse(&frame.packet).is_err() && frame.packet[40] == 128;
    assert!(
        !passed(&wire).iter().any(echo),
        "it sent from an address in use"
    );
}

fn what_is_missing_is_told_in_one_line() {
    let lab = Lab::without_querier();
    let missing = |name: &str, expected: &str| {
        let (code, lines) = check(&lab.rtr, PROVE);
        assert_eq!(code, 2, "{lines:#?}");
        let found = findings(&lines, name);
        assert_eq!(found.len(), 1, "{lines:#?}");
        assert!(found[0].starts_with(expected), "{found:?}");
        let others = |line: &&String| !line.starts_with("ok ");
        assert_eq!(lines.iter().filter(others).count(), 1, "{lines:#?}");
    };
    let without = lab.rtr.try_run(&format!(
        "setpriv --bounding-set -net_raw --inh-caps -net_raw {BINARY} check {PROVE}"
    ));
    let (code, lines) = outcome(&without);
    assert_eq!(code, 2, "{lines:#?}");
    assert!(
        proven(&lines).starts_with("problem CAP_NET_RAW is missing"),
        "{lines:#?}"
    );

    lab.rtr.run(&format!("ip addr del {ROUTER}/64 dev wan"));
    missing(
        "prove",
        "problem wan has no address in a global prefix shorter than /128",
    );
    lab.rtr.run(&format!("ip addr add {ROUTER}/128 dev wan"));
    missing(
        "prove",
        "problem wan has no address in a global prefix shorter than /128",
    );
    lab.rtr.run("ip -6 route del default");
    missing(
        "prove",
        "problem no IPv6 default route names a gateway on wan",
    );
    lab.rtr.run("ip -6 addr flush dev wan scope link");
    missing("link_local", "problem wan has no usable link-local address");
    lab.rtr.run("ip link set dev wan down");
    let (_, lines) = check(&lab.rtr, PROVE);
    assert!(findings(&lines, "interface")[0].starts_with("problem wan is down"));
    let (code, lines) = check(&Namespace::new("rtr"), PROVE);
    assert_eq!(lines, ["problem interface: there is no wan; see `ip link`"]);
    assert_eq!(code, 2);
}

fn a_link_without_link_layer_addresses_has_nothing_to_prove() {
    let lab = Lab::without_querier();
    let _tun = Tun::create(&lab.rtr, "tun0").expect("a TUN device");
    lab.rtr.run(
        "ip link set dev tun0 up
         ip addr add 2001:db8:9::2/64 dev tun0
         ip -6 route add default dev tun0 metric 1",
    );
    eventually("tun0 can be used", SOON, || lab.rtr.is_ready("tun0"));
    let (code, lines) = check(&lab.rtr, "--prove");
    assert_eq!(code, 1, "{lines:#?}");
    assert!(
        proven(&lines).starts_with("warning tun0 has no link-layer addresses, as with PPP, so "),
        "{lines:#?}"
    );
}

fn a_bridge_of_the_router_that_snoops_is_told() {
    let lab = Lab::without_querier();
    lab.rtr
        .run("ip link set dev br-lan type bridge mcast_snooping 1");
    lab.rtr.run(
        "ip -6 route add default via fe80::9 dev br-lan metric 1
         ip -6 neigh add fe80::9 lladdr 02:00:00:00:00:09 dev br-lan",
    );
    let (_, lines) = check(&lab.rtr, "--prove");
    let found = findings(&lines, "bridge");
    assert!(
        found[0].starts_with("warning br-lan is a bridge of this router"),
        "{lines:#?}"
    );
}
