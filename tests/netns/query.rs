//! `mldproxy query`, answered by the kernel of a LAN's host.

use std::io::Read;
use std::net::Ipv6Addr;
use std::os::unix::net::UnixListener;
use std::thread;

use protocol::wire::{ALL_NODES, Message, Query, QueryVersion, parse};

use crate::lab::{DOWNSTREAM, LAN_HOST, Lab, Namespace, Tap, eventually, solicited_node};
use crate::support::{SOON, start};

crate::tests![
    a_general_query_is_answered_with_all_groups,
    a_query_for_a_group_is_answered_with_that_alone,
    in_version_1_each_group_is_answered,
    nobody_answers_for_a_group_without_listeners,
    the_upstream_of_a_running_instance_is_refused,
    an_instance_that_does_not_know_the_question_may_have_the_upstream,
    without_a_link_local_address_nothing_is_sent,
    a_missing_capability_is_named,
    mistakes_are_named,
];

const BINARY: &str = env!("CARGO_BIN_EXE_mldproxy");

/// The exit code and the lines of `mldproxy query ARGUMENTS`.
#[track_caller]
fn query(router: &Namespace, wrapper: &str, arguments: &str) -> (i32, Vec<String>) {
    let output = router.try_run(&format!("{wrapper} {BINARY} query {arguments}"));
    let text = [&output.stdout[..], &output.stderr].concat();
    let text = String::from_utf8(text).expect("UTF-8");
    let code = output.status.code().expect("the query exits");
    (code, text.lines().map(str::to_owned).collect())
}

/// The first query that passes on the LAN.
fn query_on(wire: &Tap) -> (Vec<u8>, [u8; 6]) {
    let mut found = None;
    eventually("a query", SOON, || {
        let frame = wire.receive(SOON).expect("a query");
        let is_query = matches!(parse(&frame.packet), Ok(Message::Query(_)));
        found = is_query.then_some((frame.packet, frame.destination));
        is_query
    });
    found.expect("the query passes")
}

#[track_caller]
fn with_query<T>(packet: &[u8], look: impl FnOnce(&Query<'_>) -> T) -> T {
    match parse(packet) {
        Ok(Message::Query(query)) => look(&query),
        other => panic!("{other:?}"),
    }
}

/// The line of the LAN's host: its link-local address, its link-layer address and its groups.
#[track_caller]
fn answer_of_host<'l>(lab: &Lab, lines: &'l [String]) -> Vec<&'l str> {
    let mac = Tap::open(&lab.lan, "eth0")
        .mac()
        .map(|octet| format!("{octet:02x}"))
        .join(":");
    let host = format!("{} {mac} listens to ", lab.lan.link_local_of("eth0"));
    let mut answers = lines.iter().filter_map(|line| line.strip_prefix(&host));
    let groups = answers
        .next()
        .unwrap_or_else(|| panic!("no {host:?} in {lines:#?}"));
    assert_eq!(answers.next(), None, "one line a host: {lines:#?}");
    groups.split(' ').collect()
}

fn group_of_host() -> String {
    solicited_node(LAN_HOST).to_string()
}

fn a_general_query_is_answered_with_all_groups() {
    let lab = Lab::without_querier();
    let wire = Tap::open(&lab.lan, "eth0");
    let (code, lines) = query(&lab.rtr, "", &format!("--wait 1 {DOWNSTREAM}"));
    assert_eq!(code, 0, "{lines:#?}");
    let announced = " acts as an MLDv2 querier on br-lan for this moment, \
                     and asks ff02::1 for answers within 1 s";
    let source = lines[0].strip_suffix(announced);
    let source = source.unwrap_or_else(|| panic!("{lines:#?}"));
    let groups = answer_of_host(&lab, &lines);
    assert!(groups.contains(&group_of_host().as_str()), "{lines:#?}");
    let own = solicited_node(lab.lan.link_local_of("eth0")).to_string();
    assert!(groups.contains(&own.as_str()), "{lines:#?}");
    let last = lines.last().expect("a summary");
    assert_eq!(*last, format!("1 listeners, {} groups", groups.len()));
    assert_eq!(lines.len(), 3, "{lines:#?}");

    let (packet, destination) = query_on(&wire);
    assert_eq!(destination, crate::lab::group_mac(ALL_NODES));
    with_query(&packet, |query| {
        assert_eq!(query.source.to_string(), source);
        assert!(query.source.is_unicast_link_local());
        assert_eq!(query.destination, ALL_NODES);
        assert_eq!(query.group, Ipv6Addr::UNSPECIFIED);
        assert_eq!(query.max_response_delay.as_secs(), 1);
        assert!(
            matches!(
                query.version,
                QueryVersion::V2 {
                    suppress_router_processing: true,
                    ..
                }
            ),
            "{query:?}"
        );
    });
}

fn a_query_for_a_group_is_answered_with_that_alone() {
    let lab = Lab::without_querier();
    let wire = Tap::open(&lab.lan, "eth0");
    let group = group_of_host();
    let (code, lines) = query(&lab.rtr, "", &format!("--wait 1 {DOWNSTREAM} {group}"));
    assert_eq!(code, 0, "{lines:#?}");
    assert_eq!(answer_of_host(&lab, &lines), [group.as_str()]);
    assert_eq!(*lines.last().expect("a summary"), "1 listeners, 1 groups");
    let (packet, _) = query_on(&wire);
    with_query(&packet, |query| {
        assert_eq!(query.destination, solicited_node(LAN_HOST));
        assert_eq!(query.group, solicited_node(LAN_HOST));
    });
}

fn in_version_1_each_group_is_answered() {
    let lab = Lab::without_querier();
    let wire = Tap::open(&lab.lan, "eth0");
    let (code, lines) = query(&lab.rtr, "", &format!("--v1 --wait 1 {DOWNSTREAM}"));
    assert_eq!(code, 0, "{lines:#?}");
    assert!(lines[0].contains("MLDv1"), "{lines:#?}");
    let groups = answer_of_host(&lab, &lines);
    assert!(groups.contains(&group_of_host().as_str()), "{lines:#?}");
    assert!(groups.len() > 1, "{lines:#?}");
    let (packet, _) = query_on(&wire);
    with_query(&packet, |query| assert_eq!(query.version, QueryVersion::V1));

    let group = group_of_host();
    let (_, lines) = query(&lab.rtr, "", &format!("--v1 --wait 1 {DOWNSTREAM} {group}"));
    assert_eq!(answer_of_host(&lab, &lines), [group.as_str()]);
}

fn nobody_answers_for_a_group_without_listeners() {
    let lab = Lab::without_querier();
    let (code, lines) = query(
        &lab.rtr,
        "",
        &format!("--wait 1 {DOWNSTREAM} ff02::1:ff77:7777"),
    );
    assert_eq!(code, 0, "{lines:#?}");
    assert_eq!(lines[1..], ["0 listeners, 0 groups"]);
}

fn the_upstream_of_a_running_instance_is_refused() {
    let lab = Lab::without_querier().with_socket_in_folder();
    let _mldproxy = start(&lab, &[]);
    let (code, lines) = query(&lab.rtr, "", "--wait 1 wan");
    assert_eq!(code, 2, "{lines:#?}");
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(
        lines[0].starts_with("mldproxy: wan is the upstream of a running mldproxy"),
        "{lines:#?}"
    );
    assert!(lines[0].contains("--force"), "{lines:#?}");
    let (code, lines) = query(&lab.rtr, "", "--wait 1 --force wan");
    assert_eq!(code, 0, "{lines:#?}");
    let (code, lines) = query(&lab.rtr, "", &format!("--wait 1 {DOWNSTREAM}"));
    assert_eq!(code, 0, "a downstream is not refused: {lines:#?}");
}

/// A daemon of another version closes the connection.
fn an_instance_that_does_not_know_the_question_may_have_the_upstream() {
    let lab = Lab::without_querier().with_socket_in_folder();
    let listener = UnixListener::bind(&lab.rtr.control_socket).unwrap();
    let other = thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut question = [0; 6];
        client.read_exact(&mut question).unwrap();
        question
    });
    let (code, lines) = query(&lab.rtr, "", "--wait 1 wan");
    assert_eq!(&other.join().unwrap(), b"probe\n");
    assert_eq!(code, 2, "{lines:#?}");
    let expected = "mldproxy: wan may be the upstream of a mldproxy that does not tell; \
                    --force asks all the same";
    assert_eq!(lines, [expected]);
}

fn without_a_link_local_address_nothing_is_sent() {
    let lab = Lab::without_querier();
    lab.rtr
        .run("ip link set dev br-lan addrgenmode none\nip -6 addr flush dev br-lan");
    let (code, lines) = query(&lab.rtr, "", DOWNSTREAM);
    assert_eq!(code, 1, "{lines:#?}");
    assert_eq!(
        lines,
        ["mldproxy: br-lan has no usable link-local address to ask from"]
    );
}

fn a_missing_capability_is_named() {
    let lab = Lab::without_querier();
    let without = "setpriv --bounding-set -net_raw --inh-caps -net_raw";
    let (code, lines) = query(&lab.rtr, without, DOWNSTREAM);
    assert_eq!(code, 1, "{lines:#?}");
    assert_eq!(
        lines,
        ["mldproxy: CAP_NET_RAW is missing; run as root, or with that capability"]
    );
}

fn mistakes_are_named() {
    let router = Namespace::new("rtr");
    for (arguments, expected) in [
        ("eth7", "no interface eth7"),
        (
            "lo 2001:db8::1",
            "'2001:db8::1': not an IPv6 multicast address such as ff02::fb",
        ),
        (
            "lo group",
            "'group': not an IPv6 multicast address such as ff02::fb",
        ),
        (
            "--wait 0 lo",
            "'0': not a whole number of seconds from 1 to 10",
        ),
        (
            "--wait 11 lo",
            "'11': not a whole number of seconds from 1 to 10",
        ),
        ("a/b", "an interface's name has 1 to 15 characters"),
    ] {
        let (code, lines) = query(&router, "", arguments);
        assert_eq!(code, 2, "{lines:?}");
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].contains(expected), "{arguments}: {lines:?}");
    }
}
