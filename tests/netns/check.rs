//! `mldproxy check`: each finding, on a network that is in order and on one that is not.

pub mod choice;
pub mod needs;
pub mod prove;
pub mod proxying;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::{Command, Output, Stdio};

use nix::pty::openpty;

use crate::lab::{LAN_HOST, Lab, LabOptions, Namespace, ROUTER, eventually};
use crate::support::{SOON, start};

crate::tests![
    all_is_well_beside_ndppd_and_a_running_instance,
    nothing_is_well_where_nothing_is_there,
    the_version_of_the_querier_is_told,
    silence_within_a_short_wait_is_only_a_hint,
    queries_that_mldproxy_heard_count,
    a_terminal_shows_how_long_it_listens,
    a_link_that_is_down_or_a_port_is_a_problem,
    an_address_that_is_tentative_or_missing_is_a_problem,
    forwarding_that_is_off_is_a_problem,
    prefixes_are_compared,
    the_lan_must_win_the_route,
    mistakes_are_named;
    a_packet_filter_that_drops_queries_is_found needs [("nft", "nftables")],
    json_says_the_same needs [("python3", "python3")],
];

const BINARY: &str = env!("CARGO_BIN_EXE_mldproxy");

/// The exit code and the lines of `mldproxy check ARGUMENTS`.
#[track_caller]
fn check(router: &Namespace, arguments: &str) -> (i32, Vec<String>) {
    outcome(&router.try_run(&format!("{BINARY} check {arguments}")))
}

/// What `mldproxy check ARGUMENTS` writes to a terminal on standard error, and to standard output.
fn on_a_terminal(router: &Namespace, arguments: &str) -> (String, String) {
    let pair = openpty(None, None).expect("a terminal");
    let mut command = Command::new(BINARY);
    command.arg("check").args(arguments.split(' '));
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(pair.slave);
    let child = router.within(|| command.spawn().expect("it starts"));
    // With the command goes this process' own end of the terminal.
    drop(command);
    let output = child.wait_with_output().expect("it ends");
    let mut shown = Vec::new();
    // Behind the last octet a terminal whose other end is closed fails with EIO.
    let _ = File::from(pair.master).read_to_end(&mut shown);
    let [shown, text] =
        [shown, output.stdout].map(|octets| String::from_utf8(octets).expect("UTF-8"));
    (shown, text)
}

fn outcome(output: &Output) -> (i32, Vec<String>) {
    let text = [&output.stdout[..], &output.stderr].concat();
    let text = String::from_utf8(text).expect("UTF-8");
    let code = output.status.code().expect("the check exits");
    (code, text.lines().map(str::to_owned).collect())
}

/// The findings of one check, each without the check's name: `ok wan is up`.
fn findings(lines: &[String], name: &str) -> Vec<String> {
    let finding = |line: &String| {
        let (state, rest) = line.split_once(' ')?;
        let text = rest.trim_start().strip_prefix(name)?.strip_prefix(": ")?;
        Some(format!("{state} {text}"))
    };
    lines.iter().filter_map(finding).collect()
}

/// Asserts that a check of the router has exactly one finding, which starts with this text.
#[track_caller]
fn expect(router: &Namespace, name: &str, start: &str) {
    let (code, lines) = check(router, "--wait 0 wan br-lan");
    let found = findings(&lines, name);
    assert_eq!(found.len(), 1, "{name}: {lines:#?}");
    assert!(found[0].starts_with(start), "{found:?}");
    let worst = if start.starts_with("problem") { 2 } else { 0 };
    assert!(code >= worst, "exit code {code}: {lines:#?}");
    if start.starts_with("ok") {
        assert!(
            !found[0].contains(';'),
            "advice where all is well: {found:?}"
        );
    } else {
        assert!(found[0].contains("; "), "no advice: {found:?}");
    }
}

/// Makes the switch query once a second.
fn ask_often(lab: &Lab) {
    for setting in [
        "mcast_querier 0",
        "mcast_query_interval 100",
        "mcast_querier 1",
    ] {
        lab.sw
            .run(&format!("ip link set dev br0 type bridge {setting}"));
    }
}

fn all_is_well_beside_ndppd_and_a_running_instance() {
    let lab = Lab::new().with_socket_in_folder();
    ask_often(&lab);
    let _ndppd = lab.start_ndppd();
    let _mldproxy = start(&lab, &[]);
    let (code, lines) = check(&lab.rtr, "--wait 20 wan br-lan");
    assert_eq!(code, 0, "{lines:#?}");
    let link_local = |lines: &[String]| findings(lines, "link_local");
    assert_eq!(link_local(&lines).len(), 2, "{lines:#?}");
    let querier = findings(&lines, "querier");
    assert!(querier[0].starts_with("ok fe80::"), "{querier:?}");
    assert!(
        querier[0].ends_with(" is the querier on wan, in MLDv2"),
        "{querier:?}"
    );
    for (name, expected) in [
        ("forwarding", "ok IPv6 is forwarded"),
        ("prefix", "ok wan and br-lan share 2001:db8:1::/64"),
        ("route", "ok 2001:db8:1::/64 goes to br-lan"),
        ("ndp_proxy", "ok ndppd runs"),
        ("instance", "ok mldproxy runs for wan"),
        ("snooping", "ok br-lan does not snoop MLD"),
        ("privileges", "ok CAP_NET_RAW, CAP_NET_ADMIN"),
        ("packet_filter", "ok MLD queries on wan reach the kernel"),
    ] {
        assert_eq!(findings(&lines, name), [expected], "{lines:#?}");
    }
    assert_eq!(
        findings(&lines, "interface"),
        ["ok wan is up", "ok br-lan is up"]
    );
    assert_eq!(lines.len(), 13, "one finding a line: {lines:#?}");
}

fn nothing_is_well_where_nothing_is_there() {
    let router = Namespace::new("rtr");
    let (code, lines) = check(&router, "wan br-lan");
    assert_eq!(code, 2, "{lines:#?}");
    assert_eq!(
        findings(&lines, "interface"),
        [
            "problem there is no wan; see `ip link`",
            "problem there is no br-lan; see `ip link`"
        ]
    );
    // The check is silent about what it cannot see.
    for name in ["link_local", "prefix", "querier", "snooping", "ndp_proxy"] {
        assert!(findings(&lines, name).is_empty(), "{lines:#?}");
    }
}

fn the_version_of_the_querier_is_told() {
    let lab = Lab::with(&LabOptions {
        mld_version: 1,
        ..LabOptions::default()
    });
    ask_often(&lab);
    let (_, lines) = check(&lab.rtr, "--wait 20 wan br-lan");
    let querier = findings(&lines, "querier");
    assert!(
        querier[0].ends_with(" is the querier on wan, in MLDv1"),
        "{lines:#?}"
    );
}

fn a_packet_filter_that_drops_queries_is_found() {
    let lab = Lab::new();
    ask_often(&lab);
    lab.rtr.run(
        "nft add table inet filter
         nft add chain inet filter input { type filter hook input priority 0 ; }
         nft add rule inet filter input icmpv6 type mld-listener-query drop",
    );
    let (code, lines) = check(&lab.rtr, "--wait 20 wan br-lan");
    assert_eq!(code, 2, "{lines:#?}");
    assert!(
        findings(&lines, "querier")[0].starts_with("ok "),
        "{lines:#?}"
    );
    assert_eq!(
        findings(&lines, "packet_filter"),
        [
            "problem a packet filter drops MLD queries on wan, so memberships will die \
          after 260 s; allow ICMPv6 types 130-132,143 from fe80::/10"
        ]
    );
    lab.rtr.run("nft flush ruleset");
    let (_, lines) = check(&lab.rtr, "--wait 20 wan br-lan");
    assert_eq!(
        findings(&lines, "packet_filter"),
        ["ok MLD queries on wan reach the kernel"]
    );
}

fn silence_within_a_short_wait_is_only_a_hint() {
    let lab = Lab::without_querier();
    expect(
        &lab.rtr,
        "querier",
        "warning no MLD query on wan within 0 s, which says little; ",
    );
    let (_, lines) = check(&lab.rtr, "--wait 0 wan br-lan");
    assert!(
        findings(&lines, "querier")[0].contains("--wait 130"),
        "{lines:#?}"
    );
    assert!(findings(&lines, "packet_filter").is_empty(), "{lines:#?}");
}

fn a_terminal_shows_how_long_it_listens() {
    let lab = Lab::without_querier();
    let (shown, text) = on_a_terminal(&lab.rtr, "--wait 2 wan br-lan");
    let first = "\r\x1b[Klistening for an MLD query, for 2 s\r";
    assert!(shown.starts_with(first), "{shown:?}");
    assert!(shown.ends_with("\r\x1b[K"), "{shown:?}");
    assert!(text.contains("no MLD query on wan within 2 s"), "{text}");
    assert!(!text.contains('\x1b'), "{text}");
}

fn queries_that_mldproxy_heard_count() {
    let lab = Lab::new().with_socket_in_folder();
    let _mldproxy = start(&lab, &[]);
    ask_often(&lab);
    eventually("a query was heard", SOON, || {
        let (_, lines) = check(&lab.rtr, "--wait 0 wan br-lan");
        let querier = findings(&lines, "querier");
        querier[0].starts_with("ok mldproxy heard an MLD query on wan ")
    });
}

fn a_link_that_is_down_or_a_port_is_a_problem() {
    let lab = Lab::without_querier();
    lab.rtr.run("ip link set dev wan down");
    let (code, lines) = check(&lab.rtr, "wan br-lan");
    assert_eq!(code, 2);
    let found = findings(&lines, "interface");
    assert!(
        found[0].starts_with("problem wan is down or has no carrier; "),
        "{lines:#?}"
    );
    assert_eq!(found[1], "ok br-lan is up");
    assert!(
        findings(&lines, "querier").is_empty(),
        "it does not wait: {lines:#?}"
    );

    lab.rtr.run("ip link set dev wan up");
    lab.gw.run("ip link set dev eth0 up");
    lab.sw.run("ip link set dev rtr down");
    eventually("no carrier", SOON, || {
        let (_, lines) = check(&lab.rtr, "--wait 0 wan br-lan");
        findings(&lines, "interface")[0].starts_with("problem wan is down or has no carrier; ")
    });

    let (code, lines) = check(&lab.rtr, "--wait 0 wan lan1");
    assert_eq!(code, 2);
    assert_eq!(
        findings(&lines, "interface")[1],
        "problem lan1 is a port of br-lan, which takes its IPv6; name br-lan in its place"
    );

    lab.sw.run("ip link set dev rtr up");
    lab.rtr.run("ip link set dev wan mtu 1200");
    eventually("the MTU is too small", SOON, || {
        let (_, lines) = check(&lab.rtr, "--wait 0 wan br-lan");
        findings(&lines, "interface")[0].starts_with("problem wan has an MTU of 1200, ")
    });
}

fn an_address_that_is_tentative_or_missing_is_a_problem() {
    let lab = Lab::without_querier();
    // A bridge gets its carrier some time after its ports.
    eventually("br-lan is up", SOON, || {
        let (_, lines) = check(&lab.rtr, "--wait 0 wan br-lan");
        findings(&lines, "link_local")[1].starts_with("ok br-lan has fe80::")
    });
    let problem = "problem br-lan has no usable link-local address";

    lab.rtr
        .run("ip link set dev br-lan addrgenmode none\nip -6 addr flush dev br-lan");
    let (code, lines) = check(&lab.rtr, "--wait 0 wan br-lan");
    assert_eq!(code, 2);
    assert!(
        findings(&lines, "link_local")[1].starts_with(problem),
        "{lines:#?}"
    );

    // The kernel detects duplicates for a thousand seconds here, and the address stays tentative.
    for (name, value) in [("accept_dad", "1"), ("dad_transmits", "1000")] {
        lab.rtr
            .sysctl(&format!("net.ipv6.conf.br-lan.{name}"), value);
    }
    lab.rtr.run("ip addr add fe80::7/64 dev br-lan");
    let shown = lab.rtr.run("ip -6 addr show dev br-lan");
    assert!(shown.contains("tentative"), "{shown}");
    let (code, lines) = check(&lab.rtr, "--wait 0 wan br-lan");
    assert_eq!(code, 2);
    assert!(
        findings(&lines, "link_local")[1].starts_with(problem),
        "{lines:#?}"
    );

    // The LAN's host has the address, so it is a duplicate.
    lab.lan.run("ip addr add fe80::8/64 dev eth0");
    lab.rtr.sysctl("net.ipv6.conf.br-lan.dad_transmits", "1");
    lab.rtr
        .run("ip addr del fe80::7/64 dev br-lan\nip addr add fe80::8/64 dev br-lan");
    eventually("a duplicate", SOON, || {
        lab.rtr
            .run("ip -6 addr show dev br-lan")
            .contains("dadfailed")
    });
    let (_, lines) = check(&lab.rtr, "--wait 0 wan br-lan");
    assert!(
        findings(&lines, "link_local")[1].starts_with(problem),
        "{lines:#?}"
    );
}

fn forwarding_that_is_off_is_a_problem() {
    let lab = Lab::without_querier();
    expect(&lab.rtr, "forwarding", "ok IPv6 is forwarded");
    lab.rtr.sysctl("net.ipv6.conf.br-lan.forwarding", "0");
    expect(
        &lab.rtr,
        "forwarding",
        "problem net.ipv6.conf.br-lan.forwarding is 0; echo 1 > ",
    );
    lab.rtr.sysctl("net.ipv6.conf.all.forwarding", "0");
    let (code, lines) = check(&lab.rtr, "--wait 0 wan br-lan");
    assert_eq!(code, 2);
    let found = findings(&lines, "forwarding");
    assert_eq!(found.len(), 3, "all, wan and br-lan: {lines:#?}");
    assert_eq!(
        found[0],
        "problem net.ipv6.conf.all.forwarding is 0; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding"
    );
}

fn prefixes_are_compared() {
    let lab = Lab::without_querier();
    expect(
        &lab.rtr,
        "prefix",
        "ok wan and br-lan share 2001:db8:1::/64",
    );
    lab.rtr.run("ip addr del 2001:db8:1::3/64 dev br-lan");
    expect(
        &lab.rtr,
        "prefix",
        "ok br-lan has no global address, as usual where odhcpd relays",
    );
    lab.rtr.run("ip addr add 2001:db8:2::3/64 dev br-lan");
    expect(&lab.rtr, "prefix", "warning wan and br-lan share no /64; ");
    let routed = "ok nobody has to answer for hosts on wan, with which they share no /64";
    expect(&lab.rtr, "ndp_proxy", routed);
    lab.rtr.run(&format!("ip addr del {ROUTER}/64 dev wan"));
    expect(
        &lab.rtr,
        "prefix",
        "warning wan has no global address, so it is not known what it shares; ",
    );
}

fn the_lan_must_win_the_route() {
    let lab = Lab::without_querier();
    let metric = |interface: &str, address: &str, metric: u32| {
        lab.rtr.run(&format!(
            "ip addr change 2001:db8:1::{address}/64 dev {interface} metric {metric}"
        ));
    };
    expect(&lab.rtr, "route", "ok 2001:db8:1::/64 goes to br-lan");
    metric("wan", "2", 256);
    expect(
        &lab.rtr,
        "route",
        "warning 2001:db8:1::/64 has the same metric on wan and on br-lan; ",
    );
    metric("wan", "2", 128);
    expect(
        &lab.rtr,
        "route",
        "warning 2001:db8:1::/64 goes to wan before br-lan; ",
    );
    lab.rtr
        .run(&format!("ip route add {LAN_HOST}/128 dev br-lan"));
    expect(&lab.rtr, "route", "ok 2001:db8:1::/64 goes to br-lan");
    lab.rtr.run(&format!(
        "ip route del {LAN_HOST}/128 dev br-lan\nip -6 route del 2001:db8:1::/64 dev br-lan"
    ));
    expect(
        &lab.rtr,
        "route",
        "warning 2001:db8:1::/64 does not go to br-lan, nor does a host; ",
    );
}

fn json_says_the_same() {
    let lab = Lab::without_querier();
    lab.rtr.sysctl("net.ipv6.conf.all.forwarding", "0");
    lab.rtr.run("ip link add name a\"b\\c type bridge");
    let arguments = "--wait 0 wan a\"b\\c br-lan";
    let (code, lines) = check(&lab.rtr, arguments);
    let json = lab
        .rtr
        .try_run(&format!("{BINARY} check --json {arguments}"));
    assert_eq!(json.status.code(), Some(code));
    assert_eq!(code, 2);
    let to_lines = "import json, sys\n\
        answer = json.load(sys.stdin)\n\
        assert list(answer) == ['findings', 'exit'], answer\n\
        for f in answer['findings']:\n\
        \x20   assert set(f) == {'check', 'state', 'text', 'advice'}, f\n\
        \x20   print(f'{f[\"state\"]:8}{f[\"check\"]}: {f[\"text\"]}' + \
        (f'; {f[\"advice\"]}' if f['advice'] else ''))\n\
        sys.exit(answer['exit'])";
    let mut python = Command::new("python3")
        .args(["-c", to_lines])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 starts");
    let mut input = python.stdin.take().expect("a pipe");
    input.write_all(&json.stdout).expect("python3 reads");
    drop(input);
    let read = python.wait_with_output().expect("python3 ends");
    assert_eq!(outcome(&read), (code, lines));
}

fn mistakes_are_named() {
    let router = Namespace::new("rtr");
    for (arguments, expected) in [
        ("wan", "no downstream interface is named"),
        ("wan wan", "wan is named as upstream and as downstream"),
        (
            "--wait soon wan lan",
            "'soon': not a whole number of seconds",
        ),
    ] {
        let (code, lines) = check(&router, arguments);
        assert_eq!(code, 2, "{lines:?}");
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].contains(expected), "{lines:?}");
    }
}
