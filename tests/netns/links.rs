//! Interfaces that are late, vanish, come back, flap or are renamed.

use crate::lab::{DOWNSTREAM, Lab, Namespace, UPSTREAM, eventually, solicited_node};
use crate::support::{
    Host, SOON, address, create_downstream, expect_joined, spawn, start, start_between,
};

crate::tests![
    an_upstream_created_anew_is_joined_and_reported_anew,
    a_downstream_created_anew_is_heard_again,
    both_missing_at_the_start_are_waited_for,
    a_flapping_upstream_keeps_its_groups,
    a_renamed_upstream_is_found_by_name,
    a_downstream_that_becomes_part_of_a_bridge_is_named,
];

fn an_upstream_created_anew_is_joined_and_reported_anew() {
    let lab = Lab::without_querier();
    let mldproxy = start(&lab, &["--refresh-interval", "3600"]);
    let host = Host::on(&lab.lan);
    host.solicits_from(address(1));
    expect_joined(&lab, &[address(1)]);

    lab.rtr.run(&format!("ip link del dev {UPSTREAM}"));
    mldproxy.wait_for_line("waiting for wan", SOON);
    // mldproxy learns this address while there is no upstream.
    host.solicits_from(address(2));
    mldproxy.wait_for_line("learned 2001:db8:1::10:2", SOON);

    lab.sw.veth("rtr", &lab.rtr, UPSTREAM);
    lab.sw.run("ip link set dev rtr master br0 up");
    lab.rtr.run(&format!("ip link set dev {UPSTREAM} up"));
    expect_joined(&lab, &[address(1), address(2)]);
    eventually("the switch knows both", SOON, || {
        let groups = lab.mdb();
        [1, 2]
            .iter()
            .all(|number| groups.contains(&solicited_node(address(*number))))
    });
    // mldproxy sends a report of its own beside the kernel's, since the link-local address is a new
    // one.
    mldproxy.wait_for_line("reporting to ff02::16", SOON);
}

fn a_downstream_created_anew_is_heard_again() {
    let lab = Lab::without_querier();
    let mldproxy = start(&lab, &[]);
    Host::on(&lab.lan).solicits_from(address(1));
    expect_joined(&lab, &[address(1)]);

    lab.rtr.run(&format!("ip link del dev {DOWNSTREAM}"));
    mldproxy.wait_for_line("waiting for br-lan", SOON);
    expect_joined(&lab, &[address(1)]);

    create_downstream(&lab);
    let host = Host::on(&lab.lan);
    eventually("mldproxy hears the host again", SOON, || {
        host.solicits_from(address(2));
        lab.rtr
            .joined(UPSTREAM)
            .contains(&solicited_node(address(2)))
    });
}

fn both_missing_at_the_start_are_waited_for() {
    let [router, lan] = ["rtr", "lan"].map(Namespace::new);
    let mldproxy = spawn(&router, &["--wait"], &[UPSTREAM, DOWNSTREAM]);
    mldproxy.wait_for_line("waiting for wan", SOON);
    mldproxy.wait_for_line("waiting for br-lan", SOON);
    router.run(&format!("ip link add name {UPSTREAM} type bridge"));
    router.run(&format!("ip link set dev {UPSTREAM} up"));
    router.veth(DOWNSTREAM, &lan, "eth0");
    router.run(&format!("ip link set dev {DOWNSTREAM} up"));
    lan.run("ip link set dev eth0 up");
    mldproxy.wait_for_line("proxying br-lan -> wan", SOON);
    let host = Host::on(&lan);
    eventually("a host is joined", SOON, || {
        host.solicits_from(address(1));
        router
            .joined(UPSTREAM)
            .contains(&solicited_node(address(1)))
    });
}

fn a_flapping_upstream_keeps_its_groups() {
    let lab = Lab::new();
    let mldproxy = start(&lab, &["--refresh-interval", "1"]);
    let host = Host::on(&lab.lan);
    for (number, flap) in (1..).zip([
        // First the administrator's outage, then the cable's.
        (
            &lab.rtr,
            format!("ip link set dev {UPSTREAM} down"),
            format!("ip link set dev {UPSTREAM} up"),
        ),
        (
            &lab.sw,
            "ip link set dev rtr down".to_owned(),
            "ip link set dev rtr up".to_owned(),
        ),
    ]) {
        let (namespace, down, up) = flap;
        namespace.run(&down);
        // mldproxy also keeps what it learns meanwhile.
        host.solicits_from(address(number));
        mldproxy.wait_for_line(&format!("learned {}", address(number)), SOON);
        namespace.run(&up);
        eventually("the switch knows the group", SOON, || {
            lab.mdb().contains(&solicited_node(address(number)))
        });
    }
    expect_joined(&lab, &[address(1), address(2)]);
    assert!(mldproxy.is_running());
}

fn a_renamed_upstream_is_found_by_name() {
    let lab = Lab::without_querier();
    let mldproxy = start(&lab, &[]);
    Host::on(&lab.lan).solicits_from(address(1));
    expect_joined(&lab, &[address(1)]);
    let rename = |from: &str, to: &str| {
        lab.rtr.run(&format!(
            "ip link set dev {from} down
             ip link set dev {from} name {to}
             ip link set dev {to} up"
        ));
    };
    rename(UPSTREAM, "wan-old");
    mldproxy.wait_for_line("waiting for wan", SOON);
    eventually(
        "the groups of an interface of another name are left",
        SOON,
        || {
            !lab.rtr
                .joined("wan-old")
                .contains(&solicited_node(address(1)))
        },
    );
    rename("wan-old", UPSTREAM);
    expect_joined(&lab, &[address(1)]);
}

fn a_downstream_that_becomes_part_of_a_bridge_is_named() {
    let lab = Lab::without_querier();
    lab.rtr.run("ip link add name br-other type bridge");
    let mldproxy = start(&lab, &[]);
    lab.rtr.run("ip link set dev lan1 nomaster");
    let other = format!("{}.2", lab.rtr.control_socket);
    let mldproxy_on_port = start_between(&lab.rtr, &["--socket", &other], &[UPSTREAM, "lan1"]);
    lab.rtr.run("ip link set dev lan1 master br-other");
    mldproxy_on_port.wait_for_line("lan1 is part of interface number", SOON);
    assert!(!mldproxy.log().contains("is part of"), "{}", mldproxy.log());
}
