//! What the daemon missed, because it did not run or was not told, it finds out.

use std::fs;

use nix::sys::signal::Signal;

use crate::lab::{
    DOWNSTREAM, Frame, LAN_HOST, Lab, Process, Tap, Traffic, UPSTREAM, eventually, poll_for,
    solicited_node,
};
use crate::refresh::refreshed;
use crate::support::{
    Host, SOON, add_real_hosts, address, expect_among_joined, expect_joined, missing_of,
    speak_link_local, start, summary,
};

crate::tests![
    the_kernels_neighbors_are_joined_at_the_start,
    a_downstream_created_anew_is_asked_for_its_neighbors,
    sighup_asks_and_reports_anew,
    sigusr1_logs_a_summary,
    changes_that_were_lost_are_found_out,
    an_own_address_that_is_taken_unnoticed_is_left,
    an_own_address_that_is_given_up_unnoticed_is_a_hosts;
    a_kill_under_500_hosts_makes_none_unreachable needs [("ndppd", "ndppd")],
    an_empty_neighbor_table_at_the_start_is_filled_by_what_is_heard needs [("ndppd", "ndppd")],
    an_upstream_created_anew_carries_traffic_again needs [("ndppd", "ndppd")],
];

/// Puts addresses into the router's neighbor table, as if hosts had sent something lately. They do
/// not count towards the limit of 1,024 that all namespaces share.
fn fill_neighbor_table(lab: &Lab, addresses: &[std::net::Ipv6Addr], state: &str) {
    let mac = Tap::open(&lab.lan, "eth0").mac();
    let mac = mac.map(|octet| format!("{octet:02x}")).join(":");
    let entries = addresses.iter().map(|address| {
        format!("neigh replace {address} lladdr {mac} dev {DOWNSTREAM} nud {state} extern_learn\n")
    });
    lab.rtr.batch(&entries.collect::<String>());
}

fn the_kernels_neighbors_are_joined_at_the_start() {
    let lab = Lab::without_querier();
    let addresses: Vec<_> = (1..=100).map(address).collect();
    fill_neighbor_table(&lab, &addresses[..50], "reachable");
    fill_neighbor_table(&lab, &addresses[50..99], "stale");
    fill_neighbor_table(&lab, &addresses[99..], "failed");
    // While the daemon runs, one host may not claim so many. The kernel knew these before.
    let _mldproxy = start(
        &lab,
        &["--per-mac", "100", "--join-rate", "1", "--join-burst", "1"],
    );
    expect_joined(&lab, &addresses[..99]);
}

fn a_kill_under_500_hosts_makes_none_unreachable() {
    let lab = Lab::new();
    let addresses: Vec<_> = (1..=500).map(address).collect();
    let added = addresses
        .iter()
        .map(|address| format!("addr add {address}/128 dev eth0\n"));
    lab.lan.batch(&added.collect::<String>());
    fill_neighbor_table(&lab, &addresses, "reachable");
    let _ndppd = lab.start_ndppd();
    let options = ["--per-mac", "1000", "--learn", "both"];
    let first = start(&lab, &options);
    expect_among_joined(&lab, &addresses);
    eventually("the switch knows all", SOON, || {
        let known = lab.mdb();
        addresses
            .iter()
            .all(|address| known.contains(&solicited_node(*address)))
    });
    let some: Vec<_> = addresses.iter().copied().step_by(50).collect();
    let traffic = Traffic::start(&lab, &some);
    traffic.expect_all_reached(SOON);

    first.signal(Signal::SIGKILL);
    first.wait(SOON);
    assert!(!missing_of(&lab, &addresses).is_empty());
    let second = start(&lab, &options);
    expect_among_joined(&lab, &addresses);
    // The gateway forgets its neighbors, so what it knew does not help.
    lab.gw.flush_neighbors();
    traffic.expect_all_reached(SOON);
    traffic.expect_nothing_lost();
    // Each of the hosts, once.
    for some in addresses.chunks(100) {
        let traffic = Traffic::start(&lab, some);
        traffic.expect_all_reached(SOON);
    }
    assert!(second.is_running());
}

fn an_empty_neighbor_table_at_the_start_is_filled_by_what_is_heard() {
    let lab = Lab::new();
    let hosts = add_real_hosts(&lab, 10);
    // By then the hosts' own reports are done: they have reported each group twice.
    eventually("the hosts have link-local addresses", SOON, || {
        let shown = lab.lan.run("ip -6 -o addr show scope link");
        shown.lines().count() == 11 && !shown.contains("tentative")
    });
    lab.rtr.flush_neighbors();
    let _ndppd = lab.start_ndppd();
    let _mldproxy = start(&lab, &["--learn", "both"]);
    speak_link_local(&lab, 1..=10);
    expect_among_joined(&lab, &hosts);
    let traffic = Traffic::start(&lab, &hosts);
    traffic.expect_all_reached(SOON);
    traffic.expect_nothing_lost();
}

fn an_upstream_created_anew_carries_traffic_again() {
    let lab = Lab::new();
    let mldproxy = start(&lab, &["--learn", "both", "--refresh-interval", "3600"]);
    let hosts = add_real_hosts(&lab, 3);
    speak_link_local(&lab, 1..=3);
    expect_among_joined(&lab, &hosts);
    lab.rtr.run(&format!("ip link del dev {UPSTREAM}"));
    mldproxy.wait_for_line("waiting for wan", SOON);
    lab.sw.veth("rtr", &lab.rtr, UPSTREAM);
    lab.sw
        .run("ip link set dev rtr master br0 addrgenmode none up");
    lab.rtr.run(&format!(
        "ip link set dev {UPSTREAM} up
         ip addr add 2001:db8:1::2/64 dev {UPSTREAM} metric 512
         ip route add 2001:db8:1::1/128 dev {UPSTREAM}"
    ));
    expect_among_joined(&lab, &hosts);
    let _ndppd = lab.start_ndppd();
    let traffic = Traffic::start(&lab, &hosts);
    traffic.expect_all_reached(SOON);
    traffic.expect_nothing_lost();
}

fn a_downstream_created_anew_is_asked_for_its_neighbors() {
    let lab = Lab::without_querier();
    let mldproxy = start(&lab, &[]);
    lab.rtr.run(&format!("ip link del dev {DOWNSTREAM}"));
    mldproxy.wait_for_line("waiting for br-lan", SOON);
    lab.rtr.run(&format!(
        "ip link add name {DOWNSTREAM} type bridge mcast_snooping 0
         ip link set dev {DOWNSTREAM} up"
    ));
    mldproxy.wait_for_line("proxying br-lan", SOON);
    // The host is real, and mldproxy asks it at its link-local address.
    lab.rtr
        .run(&format!("ip link set dev lan1 master {DOWNSTREAM}"));
    lab.rtr.run("ip addr add fe80::1/64 dev br-lan");
    eventually("the host is asked and answers", SOON, || {
        lab.lan.flush_neighbors();
        lab.lan.try_run("ping -n -c 1 -W 1 fe80::1%eth0");
        mldproxy.log().contains("asking fe80::")
    });
    fill_neighbor_table(&lab, &[address(1)], "reachable");
    mldproxy.signal(Signal::SIGHUP);
    expect_joined(&lab, &[address(1)]);
}

fn sighup_asks_and_reports_anew() {
    let lab = Lab::without_querier();
    let mldproxy = start(&lab, &["--refresh-interval", "3600", "--learn", "ndp"]);
    lab.lan_host_speaks();
    expect_joined(&lab, &[LAN_HOST]);
    eventually("the host has answered", SOON, || {
        summary(&mldproxy).contains("(1 confirmed)")
    });
    // mldproxy also reads what the kernel learned meanwhile.
    fill_neighbor_table(&lab, &[address(1)], "stale");
    let asked = |process: &Process| {
        let lines = process.lines();
        lines.iter().filter(|line| line.contains("asking")).count()
    };
    let before = asked(&mldproxy);
    let wire = Tap::open(&lab.sw, "rtr");
    mldproxy.signal(Signal::SIGHUP);
    let reported = |frame: &Frame| refreshed(frame).contains(&solicited_node(LAN_HOST));
    eventually("the group is reported", SOON, || {
        wire.receive(SOON).is_some_and(|frame| reported(&frame))
    });
    expect_joined(&lab, &[LAN_HOST, address(1)]);
    eventually("the host is asked", SOON, || asked(&mldproxy) > before);
}

fn sigusr1_logs_a_summary() {
    let lab = Lab::without_querier();
    let mldproxy = start(&lab, &[]);
    Host::apart(&lab.lan, 1).solicits_from(address(1));
    expect_joined(&lab, &[address(1)]);
    let line = summary(&mldproxy);
    assert!(
        line.contains("br-lan -> wan: 1 groups, 1 addresses and listeners (0 confirmed) of "),
        "{line}"
    );
    mldproxy.wait_for_line("querier upstream: none heard", SOON);
    mldproxy.wait_for_line("joined 1", SOON);
}

/// The number of netlink messages that did not fit the daemon's socket.
fn lost_notices(lab: &Lab, mldproxy: &Process) -> u64 {
    let table = lab
        .rtr
        .within(|| fs::read_to_string("/proc/thread-self/net/netlink"));
    let pid = mldproxy.pid().to_string();
    let drops = |line: &str| {
        let columns: Vec<_> = line.split_whitespace().collect();
        (columns.get(2) == Some(&pid.as_str())).then(|| columns.get(8)?.parse::<u64>().ok())
    };
    let table = table.expect("the kernel lists its sockets");
    table.lines().filter_map(drops).flatten().sum()
}

/// Stops the daemon, overflows its netlink socket, does `work`, and lets the daemon continue.
fn lose_notices(lab: &Lab, mldproxy: &Process, work: impl FnOnce()) {
    mldproxy.signal(Signal::SIGSTOP);
    let churn = (1..=1000).map(|number| {
        let address = format!("fd00::{number:x}/128 dev lo");
        format!("addr add {address}\naddr del {address}\n")
    });
    lab.rtr.batch(&churn.collect::<String>());
    let lost = poll_for(SOON, || {
        Some(lost_notices(lab, mldproxy)).filter(|lost| *lost > 0)
    });
    assert!(lost.is_some(), "no notice was lost");
    work();
    mldproxy.signal(Signal::SIGCONT);
}

fn changes_that_were_lost_are_found_out() {
    let lab = Lab::without_querier();
    let mldproxy = start(&lab, &[]);
    Host::apart(&lab.lan, 1).solicits_from(address(1));
    expect_joined(&lab, &[address(1)]);
    lose_notices(&lab, &mldproxy, || {
        lab.rtr.run(&format!(
            "ip link del dev {UPSTREAM}
             ip link del dev {DOWNSTREAM}
             ip link add name {DOWNSTREAM} type bridge mcast_snooping 0
             ip link set dev {DOWNSTREAM} up
             ip link set dev lan1 master {DOWNSTREAM}"
        ));
        fill_neighbor_table(&lab, &[address(2)], "reachable");
        lab.sw.veth("rtr", &lab.rtr, UPSTREAM);
        lab.sw.run("ip link set dev rtr master br0 up");
        lab.rtr.run(&format!("ip link set dev {UPSTREAM} up"));
    });
    expect_joined(&lab, &[address(1), address(2)]);
    eventually("the switch knows both", SOON, || {
        let known = lab.mdb();
        [1, 2]
            .iter()
            .all(|number| known.contains(&solicited_node(address(*number))))
    });
    let host = Host::apart(&lab.lan, 1);
    eventually("the new downstream is heard", SOON, || {
        host.solicits_from(address(3));
        missing_of(&lab, &[address(3)]).is_empty()
    });
}

fn an_own_address_that_is_taken_unnoticed_is_left() {
    let lab = Lab::without_querier();
    let mldproxy = start(&lab, &[]);
    let host = Host::apart(&lab.lan, 1);
    let taken = address(901);
    host.solicits_from(taken);
    expect_joined(&lab, &[taken]);
    lose_notices(&lab, &mldproxy, || {
        lab.rtr
            .run(&format!("ip addr add {taken}/128 dev {DOWNSTREAM}"));
    });
    expect_joined(&lab, &[]);
}

fn an_own_address_that_is_given_up_unnoticed_is_a_hosts() {
    let lab = Lab::without_querier();
    let given_up = address(900);
    let command = |verb| format!("ip addr {verb} {given_up}/128 dev {DOWNSTREAM}");
    lab.rtr.run(&command("add"));
    let mldproxy = start(&lab, &[]);
    lose_notices(&lab, &mldproxy, || {
        lab.rtr.run(&command("del"));
    });
    let host = Host::apart(&lab.lan, 1);
    eventually("the host is joined", SOON, || {
        host.solicits_from(given_up);
        missing_of(&lab, &[given_up]).is_empty()
    });
}
