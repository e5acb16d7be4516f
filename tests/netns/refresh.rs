//! The refresh: the gateway keeps the groups although nobody queries.

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv6Addr;
use std::process::Command;

use protocol::wire::{Message, RecordType, ReportV1, parse};

use crate::lab::{Frame, Lab, Tap, UPSTREAM, eventually, solicited_node};
use crate::support::{Host, SOON, UNLIMITED, address, expect_joined, start};

crate::tests![
    a_group_outlives_the_listening_interval_without_a_querier,
    without_refresh_the_gateway_forgets,
    two_thousand_hosts_are_refreshed_in_few_packets,
    all_groups_fit_an_old_kernels_option_memory_and_a_newcomer_takes_the_oldests_place;
    tshark_finds_nothing_wrong_with_a_refresh needs [("tshark", "tshark")],
];

/// The gateway's clock is shortened: the gateway forgets a group 3 s after its last report. Another
/// listener, which reports once and never again, shows when that time has passed.
pub fn wait_for_a_listening_interval(lab: &Lab, witness: &str) {
    let witness: Ipv6Addr = witness.parse().unwrap();
    let router = Tap::open(&lab.rtr, UPSTREAM);
    let source = "fe80::bad:cafe".parse().unwrap();
    let mut packet = vec![0; 128];
    let group = witness;
    let length = ReportV1 { source, group }.emit(&mut packet).unwrap();
    packet.truncate(length);
    router.send(&Frame {
        source: router.mac(),
        destination: crate::lab::group_mac(group),
        packet,
    });
    eventually("the witness is known", SOON, || {
        lab.mdb().contains(&witness)
    });
    eventually("the witness is forgotten", SOON, || {
        !lab.mdb().contains(&witness)
    });
}

pub const SHORT_LISTENING_INTERVAL: &str =
    "ip link set dev br0 type bridge mcast_membership_interval 300";

fn a_group_outlives_the_listening_interval_without_a_querier() {
    let lab = Lab::without_querier();
    lab.sw.run(SHORT_LISTENING_INTERVAL);
    let _mldproxy = start(&lab, &["--refresh-interval", "1"]);
    Host::on(&lab.lan).solicits_from(address(1));
    expect_joined(&lab, &[address(1)]);
    for witness in ["ff02::1:ff77:1", "ff02::1:ff77:2"] {
        wait_for_a_listening_interval(&lab, witness);
        assert!(lab.mdb().contains(&solicited_node(address(1))));
    }
}

fn without_refresh_the_gateway_forgets() {
    let lab = Lab::without_querier();
    lab.sw.run(SHORT_LISTENING_INTERVAL);
    let _mldproxy = start(&lab, &["--refresh-interval", "0"]);
    Host::on(&lab.lan).solicits_from(address(1));
    expect_joined(&lab, &[address(1)]);
    eventually("the gateway forgets", SOON, || {
        !lab.mdb().contains(&solicited_node(address(1)))
    });
    // The kernel is still a member. The gateway forgot the group.
    expect_joined(&lab, &[address(1)]);
}

/// The groups in a report of the refresh, or none for another packet.
pub fn refreshed(frame: &Frame) -> Vec<Ipv6Addr> {
    match parse(&frame.packet) {
        Ok(Message::ReportV2(report)) => report
            .records
            .filter(|record| record.record_type == RecordType::ModeIsExclude)
            .map(|record| record.group)
            .collect(),
        _ => Vec::new(),
    }
}

fn two_thousand_hosts_are_refreshed_in_few_packets() {
    let lab = Lab::without_querier();
    let wire = Tap::open(&lab.sw, "rtr");
    let _mldproxy = start(
        &lab,
        &[&["--refresh-interval", "2"][..], UNLIMITED].concat(),
    );
    let host = Host::on(&lab.lan);
    let addresses: Vec<_> = (1..=2000).map(address).collect();
    host.advertises_all(&lab, &addresses);
    expect_joined(&lab, &addresses);
    eventually("the switch knows all", SOON, || {
        let groups = lab.mdb();
        addresses
            .iter()
            .all(|address| groups.contains(&solicited_node(*address)))
    });

    // Waits for the first refresh with all groups. It must name each once, in few packets.
    let mut packets = 0;
    let mut times = BTreeMap::new();
    while times.len() < addresses.len() {
        let frame = wire.receive(SOON).expect("a refresh every 2 s");
        let groups = refreshed(&frame);
        // A refresh starts with the groups that were joined first.
        if groups.contains(&solicited_node(addresses[0])) {
            packets = 0;
            times.clear();
        }
        packets += u32::from(!groups.is_empty());
        for group in groups {
            *times.entry(group).or_insert(0) += 1;
        }
    }
    assert!(times.values().all(|times| *times == 1));
    assert_eq!(packets, 2000_u32.div_ceil(72));
}

fn all_groups_fit_an_old_kernels_option_memory_and_a_newcomer_takes_the_oldests_place() {
    let lab = Lab::without_querier();
    // The default before Linux 6.7, which allows 365 groups a socket.
    lab.rtr.sysctl("net.core.optmem_max", "20480");
    let _mldproxy = start(
        &lab,
        &[&["--refresh-interval", "0"][..], UNLIMITED].concat(),
    );
    let host = Host::on(&lab.lan);
    let addresses: Vec<_> = (1..=4096).map(address).collect();
    host.advertises_all(&lab, &addresses);
    expect_joined(&lab, &addresses);
    // Since no host has ever answered a question, a newcomer takes the place of the one that was
    // silent longest.
    host.solicits_from(address(5000));
    expect_joined(&lab, &[&addresses[1..], &[address(5000)]].concat());
}

fn tshark_finds_nothing_wrong_with_a_refresh() {
    let lab = Lab::without_querier();
    let wire = Tap::open(&lab.sw, "rtr");
    let _mldproxy = start(
        &lab,
        &[&["--refresh-interval", "1"][..], UNLIMITED].concat(),
    );
    let host = Host::on(&lab.lan);
    let addresses: Vec<_> = (1..=100).map(address).collect();
    host.advertises_all(&lab, &addresses);
    expect_joined(&lab, &addresses);
    let mut reports = Vec::new();
    eventually("a report of 72 groups and one of 28", SOON, || {
        let frame = wire.receive(SOON).expect("a refresh every second");
        let groups = refreshed(&frame).len();
        if groups == 72 {
            reports.clear();
        }
        reports.push(frame);
        groups == 28 && reports.len() == 2
    });

    let file = std::env::temp_dir().join(format!("mldproxy-{}.pcap", std::process::id()));
    fs::write(&file, pcap(&reports)).expect("a temporary file");
    let tshark = |arguments: &[&str]| {
        let mut command = Command::new("tshark");
        command.arg("-n").arg("-r").arg(&file).args(arguments);
        let output = command.output().expect("tshark runs");
        String::from_utf8(output.stdout).expect("text")
    };
    let expert = tshark(&["-Y", "_ws.expert"]);
    let fields = [
        "icmpv6.type",
        "icmpv6.checksum.status",
        "ipv6.hlim",
        "ipv6.opt.router_alert",
    ];
    let fields: Vec<_> = fields.iter().flat_map(|field| ["-e", field]).collect();
    let decoded = tshark(&[&["-T", "fields"][..], &fields].concat());
    let records = tshark(&["-T", "fields", "-e", "icmpv6.mldr.nb_mcast_records"]);
    fs::remove_file(&file).expect("the capture is there");
    assert_eq!(expert, "", "tshark has something to say");
    // Type 143, good checksum (1), hop limit 1, Router Alert 0 (MLD).
    assert_eq!(decoded, "143\t1\t1\t0\n143\t1\t1\t0\n");
    assert_eq!(records, "72\n28\n");
}

/// A capture file of Ethernet frames.
fn pcap(frames: &[Frame]) -> Vec<u8> {
    let mut file = Vec::new();
    let ethernet = 1_u32;
    for word in [0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, ethernet] {
        file.extend(word.to_ne_bytes());
    }
    for frame in frames {
        let length = u32::try_from(14 + frame.packet.len()).expect("a frame");
        for word in [0, 0, length, length] {
            file.extend(word.to_ne_bytes());
        }
        file.extend(
            [
                &frame.destination[..],
                &frame.source,
                &[0x86, 0xdd],
                &frame.packet,
            ]
            .concat(),
        );
    }
    file
}
