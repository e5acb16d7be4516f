//! The main job: hosts on the LAN are reachable from upstream for as long as they are there.

use std::net::Ipv6Addr;

use nix::sys::signal::Signal;
use protocol::wire::{Message, RecordType, parse};

use crate::lab::solicited_node;
use crate::lab::{
    Frame, LAN_HOST, Lab, LabOptions, OUTSIDE, Tap, UPSTREAM, downstream, eventually, lan_host,
};
use crate::support::{
    Host, SOON, UNLIMITED, address, expect_joined, querier, start, start_between,
};

crate::tests![
    a_solicitation_for_duplicate_detection_is_enough,
    a_solicitation_is_enough,
    an_advertisement_is_enough,
    only_global_unicast_addresses_count,
    a_prefix_takes_the_place_of_global_unicast,
    a_silent_host_is_left_when_its_time_is_over,
    a_group_is_left_with_the_last_of_its_addresses,
    a_join_is_said_three_times_a_leave_twice_and_a_query_is_answered,
    sigterm_leaves_every_group,
    sigint_leaves_every_group,
    hosts_of_two_downstreams_are_joined;
    the_gateway_reaches_the_host_only_with_mldproxy needs [("ndppd", "ndppd")],
    a_join_is_reported_before_the_kernel_reports_it needs [("nft", "nftables")],
];

fn the_gateway_reaches_the_host_only_with_mldproxy() {
    let lab = Lab::new();
    let _ndppd = lab.start_ndppd();
    let ping = || {
        lab.gw.flush_neighbors();
        lab.gw.ping(OUTSIDE, LAN_HOST, 5).received
    };
    assert_eq!(ping(), 0, "the switch snoops");

    let mldproxy = start(&lab, &[]);
    lab.lan_host_speaks();
    eventually("the group in the gateway's MDB", SOON, || {
        lab.mdb().contains(&solicited_node(LAN_HOST))
    });
    assert_eq!(ping(), 5, "{}", mldproxy.log());

    mldproxy.signal(Signal::SIGTERM);
    mldproxy.wait(SOON);
    eventually("no group in the gateway's MDB", SOON, || {
        !lab.mdb().contains(&solicited_node(LAN_HOST))
    });
    assert_eq!(ping(), 0, "the switch snoops again");
}

fn a_solicitation_for_duplicate_detection_is_enough() {
    let lab = Lab::new();
    let _mldproxy = start(&lab, &[]);
    Host::on(&lab.lan).probes_for_duplicates(address(1));
    expect_joined(&lab, &[address(1)]);
}

fn a_solicitation_is_enough() {
    let lab = Lab::new();
    let _mldproxy = start(&lab, &[]);
    Host::on(&lab.lan).solicits_from(address(1));
    expect_joined(&lab, &[address(1)]);
}

fn an_advertisement_is_enough() {
    let lab = Lab::new();
    let _mldproxy = start(&lab, &[]);
    Host::on(&lab.lan).advertises(address(1));
    expect_joined(&lab, &[address(1)]);
}

fn only_global_unicast_addresses_count() {
    let lab = Lab::new();
    let mldproxy = start(&lab, &[]);
    let host = Host::on(&lab.lan);
    for other in ["fe80::abc", "fd00::abd", "4000::abe", "::ffff:192.0.2.1"] {
        host.solicits_from(other.parse().unwrap());
    }
    // mldproxy reads packets in order, so it has read the earlier ones.
    host.solicits_from(address(1));
    expect_joined(&lab, &[address(1)]);
    assert!(!mldproxy.log().contains("abc"), "{}", mldproxy.log());
}

fn a_prefix_takes_the_place_of_global_unicast() {
    let lab = Lab::new();
    let options = [
        "--prefix",
        "fd00:1::/64",
        "--prefix",
        "2001:db8:1::10:2/128",
    ];
    let _mldproxy = start(&lab, &options);
    let host = Host::on(&lab.lan);
    let local = "fd00:1::abc".parse().unwrap();
    for address in [
        address(1),
        "fd00:2::abd".parse().unwrap(),
        local,
        address(2),
    ] {
        host.solicits_from(address);
    }
    expect_joined(&lab, &[local, address(2)]);
}

fn a_silent_host_is_left_when_its_time_is_over() {
    let lab = Lab::new();
    let mldproxy = start(&lab, &["--address-timeout", "2", "--expiry-interval", "1"]);
    let host = Host::on(&lab.lan);
    host.solicits_from(address(1));
    host.solicits_from(address(2));
    expect_joined(&lab, &[address(1), address(2)]);
    eventually("only the silent host's group is left", SOON, || {
        host.solicits_from(address(2));
        let joined = lab.rtr.joined(UPSTREAM);
        assert!(joined.contains(&solicited_node(address(2))));
        !joined.contains(&solicited_node(address(1)))
    });
    assert!(mldproxy.log().contains("expired 2001:db8:1::10:1"));
    eventually("the switch knows of it", SOON, || {
        !lab.mdb().contains(&solicited_node(address(1)))
    });
}

fn a_group_is_left_with_the_last_of_its_addresses() {
    let lab = Lab::new();
    let mldproxy = start(&lab, &["--address-timeout", "2", "--expiry-interval", "1"]);
    let host = Host::on(&lab.lan);
    let twin = "2001:db8:1::2:10:1".parse().unwrap();
    host.solicits_from(address(1));
    host.solicits_from(twin);
    expect_joined(&lab, &[twin]);
    eventually("the first of both addresses expires", SOON, || {
        host.solicits_from(twin);
        mldproxy.log().contains("expired 2001:db8:1::10:1")
    });
    expect_joined(&lab, &[twin]);
    assert!(!mldproxy.log().contains("left "), "{}", mldproxy.log());
    expect_joined(&lab, &[]);
}

/// RFC 3810 §6.1, §6.3: the kernel reports TO_EX and TO_IN as often as the robustness variable
/// says, and IS_EX once upon a query. mldproxy reports TO_EX once more.
fn a_join_is_said_three_times_a_leave_twice_and_a_query_is_answered() {
    let lab = Lab::without_querier();
    let mldproxy = start(&lab, &["--refresh-interval", "0"]);
    let wire = Tap::open(&lab.sw, "rtr");
    let expect_said = |wanted: RecordType, times: usize| {
        let mut said = 0;
        eventually("it is reported as often", SOON, || {
            let frame = wire.receive(SOON).expect("a report");
            said += usize::from(says(&frame, wanted, solicited_node(address(1))));
            said == times
        });
    };
    Host::on(&lab.lan).solicits_from(address(1));
    expect_said(RecordType::ChangeToExclude, 3);
    querier(&lab, true);
    expect_said(RecordType::ModeIsExclude, 1);
    mldproxy.signal(Signal::SIGTERM);
    expect_said(RecordType::ChangeToInclude, 2);
}

/// The kernel's reports pass the packet filter, which marks them by their traffic class; packets of
/// a packet socket do not. Which report comes first is a matter of time. So of many hosts one is
/// enough, while each has all its reports.
fn a_join_is_reported_before_the_kernel_reports_it() {
    let lab = Lab::without_querier();
    lab.rtr.run(
        "nft add table ip6 filter
         nft add chain ip6 filter output { type filter hook output priority 0 ; }
         nft add rule ip6 filter output icmpv6 type mld2-listener-report ip6 dscp set cs6",
    );
    let _mldproxy = start(&lab, &["--refresh-interval", "0"]);
    let wire = Tap::open(&lab.sw, "rtr");
    let host = Host::on(&lab.lan);
    let mut number = 0;
    eventually("mldproxy's report before the kernel's", SOON, || {
        number += 1;
        host.solicits_from(address(number));
        let group = solicited_node(address(number));
        let reports = std::iter::from_fn(|| wire.receive(SOON));
        let reports = reports.filter(|frame| says(frame, RecordType::ChangeToExclude, group));
        let by_kernel: Vec<_> = reports.take(3).map(|frame| is_marked(&frame)).collect();
        let sent = by_kernel.iter().filter(|by_kernel| !**by_kernel);
        assert_eq!(sent.count(), 1, "{by_kernel:?}");
        by_kernel == [false, true, true]
    });
}

/// Is the traffic class CS6 (RFC 2474 §4.2.2)?
fn is_marked(frame: &Frame) -> bool {
    frame.packet.starts_with(&[0x6c, 0])
}

/// Is it an MLDv2 report with such a record?
fn says(frame: &Frame, record_type: RecordType, group: Ipv6Addr) -> bool {
    let Ok(Message::ReportV2(report)) = parse(&frame.packet) else {
        return false;
    };
    let mut records = report.records;
    records.any(|record| (record.record_type, record.group) == (record_type, group))
}

fn sigterm_leaves_every_group() {
    ends_by(Signal::SIGTERM);
}

fn sigint_leaves_every_group() {
    ends_by(Signal::SIGINT);
}

fn ends_by(signal: Signal) {
    let lab = Lab::new();
    let mldproxy = start(&lab, UNLIMITED);
    let host = Host::on(&lab.lan);
    let addresses: Vec<_> = (1..=300).map(address).collect();
    host.advertises_all(&lab, &addresses);
    expect_joined(&lab, &addresses);
    mldproxy.signal(signal);
    assert!(mldproxy.wait(SOON).success());
    expect_joined(&lab, &[]);
    eventually("the switch was told", SOON, || {
        let groups = lab.mdb();
        !addresses
            .iter()
            .any(|address| groups.contains(&solicited_node(*address)))
    });
}

fn hosts_of_two_downstreams_are_joined() {
    let lab = Lab::with(&LabOptions {
        lans: 2,
        ..LabOptions::default()
    });
    let interfaces = [UPSTREAM, &downstream(1), &downstream(2)];
    let mldproxy = start_between(&lab.rtr, &[], &interfaces);
    assert!(mldproxy.log().contains("proxying br-lan, br-lan2 -> wan"));
    Host::on(&lab.lan).solicits_from(LAN_HOST);
    Host::on(&lab.more_lans[0]).solicits_from(lan_host(2));
    expect_joined(&lab, &[LAN_HOST, lan_host(2)]);
    assert!(mldproxy.log().contains(" on br-lan2"), "{}", mldproxy.log());
}
