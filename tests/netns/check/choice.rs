//! Which interfaces `mldproxy check` chooses where the user names none.

use super::{check, findings};
use crate::lab::{DOWNSTREAM, Lab, LabOptions, Namespace, ROUTER, UPSTREAM, eventually};
use crate::support::{SOON, start, start_between};

crate::tests![
    the_default_route_tells_the_upstream_and_global_addresses_the_downstreams,
    a_default_route_for_one_source_or_through_two_gateways_counts,
    of_several_default_routes_the_one_of_least_metric_counts,
    a_bridge_is_a_downstream_where_nothing_has_a_global_address,
    a_running_instance_tells_both,
    of_several_instances_none_tells_the_upstream,
    what_cannot_be_chosen_has_to_be_named,
];

/// What a check without waiting says that it chose.
#[track_caller]
fn chosen(router: &Namespace, arguments: &str) -> Vec<String> {
    let (_, lines) = check(router, &format!("--wait 0 {arguments}"));
    findings(&lines, "chosen")
}

fn two_lans() -> Lab {
    Lab::with(&LabOptions {
        querier: false,
        lans: 2,
        ..LabOptions::default()
    })
}

const ROUTE: &str = "ok wan is the upstream, since the IPv6 default route goes there";
const GLOBAL: &str = "ok br-lan is a downstream, since it has a global address";

fn the_default_route_tells_the_upstream_and_global_addresses_the_downstreams() {
    let lab = two_lans();
    let second = "ok br-lan2 is a downstream, since it has a global address";
    assert_eq!(chosen(&lab.rtr, ""), [ROUTE, GLOBAL, second]);
    assert_eq!(chosen(&lab.rtr, UPSTREAM), [GLOBAL, second]);
    assert_eq!(chosen(&lab.rtr, "wan br-lan2"), [""; 0]);
    // The rest of the check is of these interfaces.
    let (_, lines) = check(&lab.rtr, "--wait 0");
    let up = ["ok wan is up", "ok br-lan is up", "ok br-lan2 is up"];
    assert_eq!(findings(&lines, "interface"), up);
    // Another provider's link is no downstream.
    lab.rtr
        .run("ip -6 route add default via fe80::9 dev br-lan2 metric 4000");
    assert_eq!(chosen(&lab.rtr, ""), [ROUTE, GLOBAL]);
}

/// As OpenWrt makes its default routes.
fn a_default_route_for_one_source_or_through_two_gateways_counts() {
    let lab = Lab::without_querier();
    lab.rtr.run(
        "ip -6 route del default
         ip -6 route add default from 2001:db8:1::/64 via fe80::9 dev wan metric 512",
    );
    assert_eq!(chosen(&lab.rtr, ""), [ROUTE, GLOBAL]);
    lab.rtr.run(
        "ip -6 route del default from 2001:db8:1::/64
         ip -6 route add default nexthop via fe80::9 dev wan nexthop via fe80::8 dev wan",
    );
    assert_eq!(chosen(&lab.rtr, ""), [ROUTE, GLOBAL]);
}

fn of_several_default_routes_the_one_of_least_metric_counts() {
    let lab = two_lans();
    let route = "default via fe80::9 dev br-lan2 metric 1";
    lab.rtr.run(&format!("ip -6 route add {route}"));
    let other = "ok br-lan2 is the upstream, since the IPv6 default route goes there";
    assert_eq!(chosen(&lab.rtr, ""), [other, GLOBAL]);
    // A route in another table is not for all packets.
    lab.rtr.run(&format!(
        "ip -6 route del {route}\nip -6 route add {route} table 100"
    ));
    assert_eq!(chosen(&lab.rtr, ""), [ROUTE, GLOBAL]);
}

fn a_bridge_is_a_downstream_where_nothing_has_a_global_address() {
    let lab = Lab::without_querier();
    lab.rtr
        .run("ip addr del 2001:db8:1::3/64 dev br-lan\nip link add name br-down type bridge");
    assert_eq!(
        chosen(&lab.rtr, ""),
        [ROUTE, "ok br-lan is a downstream, since it is a bridge"]
    );
}

fn a_running_instance_tells_both() {
    let lab = two_lans().with_socket_in_folder();
    let _mldproxy = start_between(&lab.rtr, &[], &["br-lan2", UPSTREAM]);
    let runs = [
        "ok br-lan2 is the upstream, as it is that of the mldproxy that runs",
        "ok wan is a downstream, as it is one of the mldproxy that runs on br-lan2",
    ];
    assert_eq!(chosen(&lab.rtr, ""), runs);
    assert_eq!(chosen(&lab.rtr, "br-lan2"), runs[1..]);
    let (_, lines) = check(&lab.rtr, "--wait 0 wan");
    let found = findings(&lines, "chosen");
    assert_eq!(found[0], GLOBAL, "it is no instance of wan's: {lines:#?}");
}

fn of_several_instances_none_tells_the_upstream() {
    let mut lab = Lab::without_querier().with_socket_in_folder();
    let _first = start(&lab, &[]);
    let _second = {
        let first = std::mem::take(&mut lab.rtr.control_socket);
        lab.rtr.control_socket = format!("{first}2.sock");
        let second = start_between(&lab.rtr, &["--name", "second"], &[DOWNSTREAM, UPSTREAM]);
        lab.rtr.control_socket = first;
        second
    };
    let downstream = "ok br-lan is a downstream, as it is one of the mldproxy that runs on wan";
    assert_eq!(chosen(&lab.rtr, ""), [ROUTE, downstream]);
    // Where one of them is named, that is the one.
    let socket = &lab.rtr.control_socket;
    let named = chosen(&lab.rtr, &format!("--socket {socket}"));
    assert_eq!(
        named,
        [
            "ok wan is the upstream, as it is that of the mldproxy that runs",
            downstream
        ]
    );
}

fn what_cannot_be_chosen_has_to_be_named() {
    let lab = Lab::without_querier();
    let refused = |arguments: &str, expected: &str| {
        let (code, lines) = check(&lab.rtr, arguments);
        assert_eq!(code, 2, "{lines:?}");
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].contains(expected), "{lines:?}");
    };
    lab.rtr.run(&format!(
        "ip addr del 2001:db8:1::3/64 dev br-lan
         ip link set dev br-lan down
         ip addr del {ROUTER}/64 dev wan"
    ));
    eventually("br-lan is down", SOON, || {
        let (_, lines) = check(&lab.rtr, "--wait 0 wan br-lan");
        findings(&lines, "interface")[1].starts_with("problem br-lan is down")
    });
    refused(
        "",
        "no downstream interface is named, and none is found beside wan",
    );
    refused("--json wan", "none is found beside wan");
    lab.rtr.run("ip -6 route del default");
    refused(
        "",
        "there is no IPv6 default route that would tell the upstream; name it",
    );
    refused(
        "--prove",
        "there is no IPv6 default route that would tell the upstream; name it",
    );
    refused(
        "--prove wan br-lan",
        "--prove takes the upstream alone; leave out br-lan",
    );
}
