//! What `mldproxy check` finds of streams.

use std::net::Ipv6Addr;
use std::process::Command;
use std::time::Duration;

use crate::lab::{
    DOWNSTREAM, QuerySaid, SOURCE, Speaker, StreamLab, StreamOptions, TableOwner, Tap,
    datagram_frame, find_tool, poll_for,
};
use crate::support::{SOON, querier};

use super::{
    CALM, expect_to, guest_receiver, lan_receiver, source_specific, start, upstream_sender,
};

crate::tests![
    streams_that_flow_are_all_well,
    a_stream_that_never_comes_is_found,
    a_hop_limit_of_1_is_found,
    a_stream_from_another_side_is_found,
    another_querier_is_found,
    an_older_querier_upstream_is_found,
    another_owner_of_the_table_is_found_by_its_name,
    a_number_that_is_too_high_is_found,
    without_the_mld_proxy_nothing_is_said_of_streams;
    a_packet_filter_that_drops_streams_is_found needs [("nft", "nftables")],
];

const LOWER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// The lines of `mldproxy check`, of streams alone.
#[track_caller]
fn check(home: &StreamLab) -> Vec<String> {
    let output = home.lab.rtr.try_run(&format!(
        "{} check --wait 0 --socket {} wan br-lan guest",
        env!("CARGO_BIN_EXE_mldproxy"),
        home.lab.rtr.control_socket
    ));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let lines = text.lines().filter(|line| line.contains(" multicast_"));
    lines.map(str::to_owned).collect()
}

/// Waits until a check has a line that starts with this, and returns all lines. Where not all is
/// well the line has advice.
#[track_caller]
fn expect(home: &StreamLab, start: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let found = poll_for(SOON, || {
        lines = check(home);
        lines.iter().find(|line| line.starts_with(start)).cloned()
    });
    let found = found.unwrap_or_else(|| panic!("no {start:?} in {lines:#?}"));
    assert_eq!(found.contains("; "), !start.starts_with("ok"), "{found}");
    lines
}

fn streams_that_flow_are_all_well() {
    let home = StreamLab::with(&StreamOptions {
        snooping: true,
        ..StreamOptions::default()
    });
    let _mldproxy = start(&home, &[]);
    let group = source_specific(1);
    let on_lan = lan_receiver(&home, group);
    expect_to(&home, group, &[DOWNSTREAM]);
    let _stream = upstream_sender(&home, group).start(CALM);
    on_lan.wait_for_more(10, SOON);
    let lines = expect(&home, "ok      multicast_filter: ");
    for expected in [
        "ok      multicast_table: mldproxy owns the kernel's multicast routing table",
        "ok      multicast_querier: mldproxy is the querier on br-lan (groups with listeners: 1)",
        "ok      multicast_querier: mldproxy is the querier on guest (groups with listeners: 0)",
        "ok      multicast_streams: of the streams that are wanted (1), 1 flowed within 10 s",
        "ok      multicast_flooding: br-lan snoops MLD, so a stream goes to its listeners alone",
    ] {
        assert!(
            lines.iter().any(|line| line == expected),
            "{expected} in {lines:#?}"
        );
    }
    let is_worse = |line: &&String| !line.starts_with("ok");
    let worse: Vec<_> = lines.iter().filter(is_worse).collect();
    assert_eq!(worse.len(), 1, "{worse:#?}");
    let flooding = "warning multicast_flooding: guest does not snoop MLD, so each stream goes to";
    assert!(worse[0].starts_with(flooding), "{worse:#?}");
}

fn a_stream_that_never_comes_is_found() {
    let home = StreamLab::new();
    let _mldproxy = start(&home, &[]);
    let _receiver = lan_receiver(&home, source_specific(1));
    expect(
        &home,
        "warning multicast_stream: nothing came on wan for 1 of 1 streams, such as \
         2001:db8:1::10 to ff3e::4000:1 since 1",
    );
}

fn a_hop_limit_of_1_is_found() {
    let home = StreamLab::new();
    let _mldproxy = start(&home, &[]);
    let group = source_specific(1);
    let _receiver = lan_receiver(&home, group);
    expect_to(&home, group, &[DOWNSTREAM]);
    let sender = upstream_sender(&home, group);
    sender.set_hop_limit(1);
    let _stream = sender.start(CALM);
    let lines = expect(&home, "problem multicast_hop_limit: ");
    let found = lines
        .iter()
        .find(|line| line.contains("hop_limit"))
        .unwrap();
    assert!(
        found.contains(
            " packets of streams for br-lan arrived, such as from 2001:db8:1::10 to ff3e::4000:1, \
             and were not forwarded: their hop limit is 1; "
        ),
        "{found}"
    );
}

fn a_packet_filter_that_drops_streams_is_found() {
    let home = StreamLab::new();
    let _mldproxy = start(&home, &[]);
    let group = source_specific(1);
    let _receivers = (lan_receiver(&home, group), guest_receiver(&home, group));
    expect_to(&home, group, &[DOWNSTREAM, "guest"]);
    let _stream = upstream_sender(&home, group).start(CALM);
    home.lab.rtr.run(
        "nft add table inet t
         nft add chain inet t f { type filter hook forward priority 0 ; }
         nft add rule inet t f oifname br-lan ip6 daddr ff00::/8 drop",
    );
    let lines = expect(&home, "problem multicast_filter: a packet filter dropped ");
    let of = |name: &str| {
        let end = |line: &&String| line.contains(&format!("packets of streams to {name},"));
        lines.iter().filter(end).count()
    };
    assert_eq!((of("br-lan"), of("guest")), (1, 0), "{lines:#?}");
    let passes = |line: &String| {
        line.starts_with("ok      multicast_filter: ")
            && line.ends_with(" packets of streams passed the packet filter to guest")
    };
    assert!(lines.iter().any(passes), "{lines:#?}");
}

fn a_stream_from_another_side_is_found() {
    let home = StreamLab::new();
    let _mldproxy = start(&home, &[]);
    let group = source_specific(1);
    let _receiver = lan_receiver(&home, group);
    expect_to(&home, group, &[DOWNSTREAM]);
    let forger = Tap::open(&home.guest, "eth0");
    for number in 0..20 {
        forger.send(&datagram_frame(forger.mac(), SOURCE, group, number));
    }
    expect(
        &home,
        "warning multicast_side: packets came from another side than their source's and were \
         dropped, such as 20 from 2001:db8:1::10 to ff3e::4000:1 (streams: 1); ",
    );
}

fn another_querier_is_found() {
    let home = StreamLab::new();
    let _mldproxy = start(&home, &[]);
    let rival = Speaker::new(&home.guest, "eth0", LOWER);
    rival.queries(&QuerySaid::general(Duration::from_secs(125)));
    expect(
        &home,
        "warning multicast_querier: fe80::1 is the querier on guest in MLDv2, so no stream is \
         forwarded there; ",
    );
}

fn an_older_querier_upstream_is_found() {
    let home = StreamLab::with(&StreamOptions {
        upstream_querier: Some(1),
        ..StreamOptions::default()
    });
    let _mldproxy = start(&home, &[]);
    let _receiver = lan_receiver(&home, source_specific(1));
    querier(&home.lab, true);
    expect(&home, "problem multicast_version: fe80::");
}

fn another_owner_of_the_table_is_found_by_its_name() {
    let home = StreamLab::new();
    let owner = TableOwner::new(&home.lab.rtr).expect("nobody owns the table");
    let mut command = Command::new(find_tool("bash").expect("bash"));
    let script = "echo -n omcproxy > /proc/self/comm; echo renamed; exec 3<> <(:); read -u 3";
    let omcproxy = home.lab.rtr.spawn(command.args(["-c", script]));
    omcproxy.wait_for_line("renamed", SOON);
    let _mldproxy = start(&home, &[]);
    let lines = expect(
        &home,
        "problem multicast_table: another program owns the kernel's multicast routing table, so \
         no stream is forwarded; ",
    );
    let named = "problem multicast_owner: omcproxy runs, which uses that table; stop omcproxy, or";
    assert!(
        lines.iter().any(|line| line.starts_with(named)),
        "{lines:#?}"
    );
    drop(owner);
}

fn a_number_that_is_too_high_is_found() {
    let home = StreamLab::with(&StreamOptions {
        guest_index: 70_000,
        ..StreamOptions::default()
    });
    let _mldproxy = start(&home, &[]);
    expect(
        &home,
        "problem multicast_interface: guest has the number 70000, and the kernel",
    );
}

fn without_the_mld_proxy_nothing_is_said_of_streams() {
    let home = StreamLab::new();
    let interfaces = ["wan", "br-lan", "guest"];
    let _mldproxy = crate::support::start_between(&home.lab.rtr, &[], &interfaces);
    assert_eq!(check(&home), [""; 0]);
}
