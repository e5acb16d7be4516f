//! The wire format, tested against octets that another program wrote. tshark dissected each golden;
//! the expected fields are its reading. The checksum routine is this file's own.

use protocol::time::Duration;
use std::net::Ipv6Addr;

use protocol::wire::{
    ALL_NODES, Done, DropReason, EchoRequest, MacAddress, Message, NeighborAdvertisement,
    NeighborSolicitation, Query, QueryVersion, Record, RecordType, ReportBuilder, ReportV1,
    SolicitedNode, Sources, parse,
};

/// Emitted by Linux 6.18 for a ping to a neighbor that it did not know.
const NS: &str = "
    6000000000203aff 20010db8000000000000000000000002 ff0200000000000000000001ff000001
    87001c2700000000 20010db8000000000000000000000001
    0101020000000002
";
/// Emitted by Linux 6.18 as a probe of a neighbor in state PROBE.
const NS_UNICAST: &str = "
    6000000000203aff fe80000000000000000000fffe000001 20010db8000000000000000000000002
    87001cab00000000 20010db8000000000000000000000002
    0101020000000001
";
/// Emitted by Linux 6.18 for a new address, with `enhanced_dad=0`.
const NS_DAD: &str = "
    6000000000183aff 00000000000000000000000000000000 ff0200000000000000000001ff000002
    87004ceb00000000 20010db8000000000000000000000002
";
/// Emitted by Linux 6.18 for a new address, with the nonce option (RFC 7527) that it adds by
/// default.
const NS_DAD_NONCE: &str = "
    6000000000203aff 00000000000000000000000000000000 ff0200000000000000000001ff000003
    8700948300000000 20010db8000000000000000000000003
    0e0144dfbc24a958
";
/// Emitted by Linux 6.18 in answer to `NS`.
const NA: &str = "
    6000000000203aff 20010db8000000000000000000000001 20010db8000000000000000000000002
    88008a7360000000 20010db8000000000000000000000001
    0201020000000001
";
/// Emitted by Linux 6.18 in answer to `NS_UNICAST`.
const NA_BARE: &str = "
    6000000000183aff 20010db8000000000000000000000002 fe80000000000000000000fffe000001
    8800deb440000000 20010db8000000000000000000000002
";
/// Emitted by a Linux 6.18 router for a new address, with `ndisc_notify=1`.
const NA_UNSOLICITED: &str = "
    6000000000203aff 20010db8000000000000000000000002 ff020000000000000000000000000001
    88007927a0000000 20010db8000000000000000000000002
    0201020000000002
";
/// Emitted by a Linux 6.18 bridge with `mcast_mld_version 1`.
const QUERY_V1: &str = "
    6000000000200001 fe80000000000000000000fffe000001 ff020000000000000000000000000001
    3a00050200000000
    8200756f0bb80000 00000000000000000000000000000000
";
/// Emitted by the same bridge after `DONE`. RFC 2710 §8 would send it to the group itself.
const QUERY_V1_GROUP: &str = "
    6000000000200001 fe80000000000000000000fffe000001 ff020000000000000000000000000001
    3a00050200000000
    82006c0803e80000 ff020000000000000000000000001234
";
/// Emitted by a Linux 6.18 bridge with `mcast_mld_version 2`.
const QUERY_V2: &str = "
    6000000000240001 fe80000000000000000000fffe000001 ff020000000000000000000000000001
    3a00050200000000
    8200732f0bb80000 00000000000000000000000000000000
    023c0000
";
/// Emitted by the same bridge after `REPORT_V2`, with the S flag.
const QUERY_V2_GROUP: &str = "
    6000000000240001 fe80000000000000000000fffe000001 ff020000000000000000000000001234
    3a00050200000000
    82004f9503e80000 ff020000000000000000000000001234
    0a3c0000
";
/// Emitted by the same bridge after a BLOCK_OLD_SOURCES record.
const QUERY_V2_SOURCE: &str = "
    6000000000340001 fe80000000000000000000fffe000001 ff020000000000000000000000004321
    3a00050200000000
    8200c7e403e80000 ff020000000000000000000000004321
    023c0001 20010db800010000000000000000000b
";
/// Emitted by the same bridge from its global address, for a group of wider scope.
const QUERY_V2_GLOBAL: &str = "
    6000000000440001 20010db8000000000000000000000001 ff050000000000000000000000000003
    3a00050200000000
    8200f00d03e80000 ff050000000000000000000000000003
    023c0002 20010db800010000000000000000000b 20010db800010000000000000000000a
";
/// Built with Scapy 2.8. Both times are floating-point codes.
const QUERY_V2_SOURCES: &str = "
    6000000000440001 fe80000000000000000000fffe000001 ff050000000000000000000000004321
    3a00050200000100
    8200e6c2abcd0000 ff050000000000000000000000004321
    0d9d0002 20010db800010000000000000000000a 20010db800010000000000000000000b
";
/// Emitted by Linux 6.18 with `force_mld_version=1`.
const REPORT_V1: &str = "
    6000000000200001 fe80000000000000000000fffe000002 ff020000000000000000000000001234
    3a00050200000100
    83005cbc00000000 ff020000000000000000000000001234
";
/// Emitted by Linux 6.18 with `force_mld_version=1`.
const DONE: &str = "
    6000000000200001 fe80000000000000000000fffe000002 ff020000000000000000000000000002
    3a00050200000100
    84006dee00000000 ff020000000000000000000000001234
";
/// Emitted by Linux 6.18 when its last socket leaves a group.
const REPORT_V2: &str = "
    6000000000240001 fe80000000000000000000fffe000002 ff020000000000000000000000000016
    3a00050200000100
    8f005fd500000001
    03000000 ff020000000000000000000000001234
";
/// Emitted by Linux 6.18 when a link comes up.
const REPORT_V2_JOINS: &str = "
    6000000000600001 fe80000000000000000000fffe000002 ff020000000000000000000000000016
    3a00050200000100
    8f0069b400000004
    04000000 ff0200000000000000000001ff000000
    04000000 ff0200000000000000000001ff000002
    04000000 ff050000000000000000000000000002
    04000000 ff020000000000000000000000000002
";
/// Emitted by Linux 6.18 when one socket leaves its groups and another joins one.
const REPORT_V2_SOURCES: &str = "
    60000000006c0001 fe80000000000000000000fffe000002 ff020000000000000000000000000016
    3a00050200000100
    8f00fbef00000003
    06000002 ff050000000000000000000000000003 20010db800010000000000000000000b
        20010db800010000000000000000000a
    03000000 ff050000000000000000000000000001
    04000000 ff020000000000000000000000001234
";
/// Built with Scapy 2.8, with auxiliary data and an unknown record type.
const REPORT_V2_AUXILIARY: &str = "
    6000000000640001 fe80000000000000000000fffe000002 ff020000000000000000000000000016
    3a00050200000100
    8f00cfd600000003
    04020001 ff050000000000000000000000000001 20010db800010000000000000000000a 0102030405060708
    63000000 ff050000000000000000000000000002
    02000000 ff050000000000000000000000000003
";

/// Every golden that the parser accepts.
#[rustfmt::skip]
const GOLDENS: [&str; 19] = [
    NS, NS_UNICAST, NS_DAD, NS_DAD_NONCE, NA, NA_BARE, NA_UNSOLICITED,
    QUERY_V1, QUERY_V1_GROUP, QUERY_V2, QUERY_V2_GROUP, QUERY_V2_SOURCE, QUERY_V2_SOURCES,
    REPORT_V1, DONE, REPORT_V2, REPORT_V2_JOINS, REPORT_V2_SOURCES, REPORT_V2_AUXILIARY,
];

const HOST: &str = "fe80::ff:fe00:2";
const QUERIER: &str = "fe80::ff:fe00:1";

#[test]
fn a_solicitation_parses_and_emits_to_the_same_octets() {
    let solicitation = |source, destination, target, mac: Option<u8>| {
        Message::NeighborSolicitation(NeighborSolicitation {
            source: ip(source),
            destination: ip(destination),
            target: ip(target),
            source_link_layer: mac.map(|last| MacAddress([2, 0, 0, 0, 0, last])),
        })
    };
    let ordinary = solicitation("2001:db8::2", "ff02::1:ff00:1", "2001:db8::1", Some(2));
    parses_and_emits(NS, &ordinary);
    let unicast = solicitation(QUERIER, "2001:db8::2", "2001:db8::2", Some(1));
    parses_and_emits(NS_UNICAST, &unicast);
    let dad = solicitation("::", "ff02::1:ff00:2", "2001:db8::2", None);
    parses_and_emits(NS_DAD, &dad);
    // The parser skips a nonce, and the emitter never writes one.
    let dad = solicitation("::", "ff02::1:ff00:3", "2001:db8::3", None);
    assert_eq!(parse(&octets(NS_DAD_NONCE)), Ok(dad));
}

#[test]
fn an_advertisement_parses_and_emits_to_the_same_octets() {
    let advertisement = |source, destination, flags: [bool; 3], mac: Option<u8>| {
        let [router, solicited, override_flag] = flags;
        Message::NeighborAdvertisement(NeighborAdvertisement {
            source: ip(source),
            destination: ip(destination),
            target: ip(source),
            router,
            solicited,
            override_flag,
            target_link_layer: mac.map(|last| MacAddress([2, 0, 0, 0, 0, last])),
        })
    };
    let flags = [false, true, true];
    let answer = advertisement("2001:db8::1", "2001:db8::2", flags, Some(1));
    parses_and_emits(NA, &answer);
    let bare = advertisement("2001:db8::2", QUERIER, [false, true, false], None);
    parses_and_emits(NA_BARE, &bare);
    let flags = [true, false, true];
    let unsolicited = advertisement("2001:db8::2", "ff02::1", flags, Some(2));
    parses_and_emits(NA_UNSOLICITED, &unsolicited);
}

/// Emitted by Linux 6.18 for `ping -s 0`, without the flow label that a kernel chooses.
const ECHO_REQUEST: &str = "
    6000000000083a40 20010db8000000000000000000000002 20010db8000000000000000000000001
    8000a78a7cbc0001
";
/// Emitted by Linux 6.18 in answer to `ECHO_REQUEST`.
const ECHO_REPLY: &str = "
    60004b1500083a40 20010db8000000000000000000000001 20010db8000000000000000000000002
    8100a68a7cbc0001
";

#[test]
fn an_echo_request_emits_to_the_octets_of_ping_and_its_reply_is_known() {
    let request = EchoRequest {
        source: ip("2001:db8::2"),
        destination: ip("2001:db8::1"),
        identifier: 0x7cbc,
        sequence: 1,
    };
    let golden = octets(ECHO_REQUEST);
    let mut buffer = [0xaa; 256];
    assert_eq!(request.emit(&mut buffer), Some(golden.len()));
    assert_eq!(buffer[..golden.len()], golden);
    for short in 0..golden.len() {
        assert_eq!(request.emit(&mut buffer[..short]), None);
    }

    let reply = octets(ECHO_REPLY);
    assert!(request.is_answered_by(&reply));
    let later = EchoRequest {
        sequence: 7,
        ..request
    };
    assert!(later.is_answered_by(&reply));
    assert!(!request.is_answered_by(&golden), "it is no reply");
    for short in 0..reply.len() {
        assert!(!request.is_answered_by(&reply[..short]), "{short} octets");
    }
    // Neither the traffic class nor the flow label nor the hop limit tells anything.
    for at in (4..reply.len()).filter(|at| *at != 7) {
        let mut other = reply.clone();
        other[at] ^= 1;
        assert!(!request.is_answered_by(&other), "octet {at}");
    }
    let to_another = EchoRequest {
        identifier: 1,
        ..request
    };
    assert!(!to_another.is_answered_by(&reply));
}

#[test]
fn a_solicited_node_group_displays_as_its_address() {
    let group = SolicitedNode::of(ip("2001:db8::1:2345"));
    assert_eq!(
        format!("{group} {group:?}"),
        "ff02::1:ff01:2345 ff02::1:ff01:2345"
    );
}

#[test]
fn a_query_parses_and_emits_to_the_same_octets() {
    let query = |destination, group, milliseconds, version| {
        Message::Query(Query {
            source: ip(QUERIER),
            destination: ip(destination),
            group: ip(group),
            max_response_delay: Duration::from_millis(milliseconds),
            version,
        })
    };
    let v2 = |suppress_router_processing, robustness, seconds, sources| QueryVersion::V2 {
        suppress_router_processing,
        robustness,
        query_interval: Duration::from_secs(seconds),
        sources,
    };
    let general = query("ff02::1", "::", 3000, QueryVersion::V1);
    parses_and_emits(QUERY_V1, &general);
    let group = query("ff02::1", "ff02::1234", 1000, QueryVersion::V1);
    parses_and_emits(QUERY_V1_GROUP, &group);
    let general = query("ff02::1", "::", 3000, v2(false, 2, 60, Sources::default()));
    parses_and_emits(QUERY_V2, &general);
    let version = v2(true, 2, 60, Sources::default());
    let group = query("ff02::1234", "ff02::1234", 1000, version);
    parses_and_emits(QUERY_V2_GROUP, &group);

    let packet = octets(QUERY_V2_SOURCE);
    let sources = sources_of(&packet, &["2001:db8:1::b"]);
    let source = query("ff02::4321", "ff02::4321", 1000, v2(false, 2, 60, sources));
    parses_and_emits(QUERY_V2_SOURCE, &source);
    let packet = octets(QUERY_V2_SOURCES);
    let sources = sources_of(&packet, &["2001:db8:1::a", "2001:db8:1::b"]);
    let version = v2(true, 5, 464, sources);
    let two = query("ff05::4321", "ff05::4321", 227_744, version);
    parses_and_emits(QUERY_V2_SOURCES, &two);
}

#[test]
fn an_mldv1_report_and_a_done_parse_and_emit_to_the_same_octets() {
    let (source, group) = (ip(HOST), ip("ff02::1234"));
    parses_and_emits(REPORT_V1, &Message::ReportV1(ReportV1 { source, group }));
    parses_and_emits(DONE, &Message::Done(Done { source, group }));
}

#[test]
fn an_mldv2_report_parses_and_emits_to_the_same_octets() {
    use RecordType::*;
    let left: Records = &[(ChangeToInclude, "ff02::1234", &[])];
    report_is_read(&octets(REPORT_V2), left);
    let joined: Records = &[
        (ChangeToExclude, "ff02::1:ff00:0", &[]),
        (ChangeToExclude, "ff02::1:ff00:2", &[]),
        (ChangeToExclude, "ff05::2", &[]),
        (ChangeToExclude, "ff02::2", &[]),
    ];
    report_is_read(&octets(REPORT_V2_JOINS), joined);
    let sources: Records = &[
        (
            BlockOldSources,
            "ff05::3",
            &["2001:db8:1::b", "2001:db8:1::a"],
        ),
        (ChangeToInclude, "ff05::1", &[]),
        (ChangeToExclude, "ff02::1234", &[]),
    ];
    report_is_read(&octets(REPORT_V2_SOURCES), sources);
    // RFC 3810 §5.2.6: the length of auxiliary data counts 32-bit words. §5.2.12: a receiver
    // ignores a record of an unknown type, and reads those after it.
    let auxiliary: Records = &[
        (ChangeToExclude, "ff05::1", &["2001:db8:1::a"]),
        (Unknown(99), "ff05::2", &[]),
        (ModeIsExclude, "ff05::3", &[]),
    ];
    report_is_read(&octets(REPORT_V2_AUXILIARY), auxiliary);

    for golden in [REPORT_V2, REPORT_V2_JOINS, REPORT_V2_SOURCES] {
        parses_and_emits(golden, &parse(&octets(golden)).expect("valid"));
    }
}

/// RFC 3810 §4.2: INCLUDE mode with an empty source list means that the sender does not listen.
#[test]
fn a_host_that_includes_sources_listens_and_one_that_includes_none_does_not() {
    for included in [1, 3] {
        let packet = sealed(REPORT_V2_SOURCES, |p| {
            p[56] = included;
            p[108] = included;
        });
        let Ok(Message::ReportV2(report)) = parse(&packet) else {
            panic!("not a report");
        };
        let listens: Vec<_> = report.records.map(|record| record.listens()).collect();
        assert_eq!(listens, [Some(true), Some(false), Some(true)]);
    }
}

#[test]
fn the_parser_refuses_a_packet_for_every_drop_reason() {
    let mut rows = broken_packets();
    rows.extend(broken_goldens());
    for &(reason, what, ref packet) in &rows {
        assert_eq!(parse(packet), Err(reason), "{what}");
    }
    for &reason in DropReason::ALL {
        let tested = rows.iter().any(|&(row, ..)| row == reason);
        assert!(tested, "no test packet has the reason {reason:?}");
    }
}

/// Valid packets, each broken in one way.
#[rustfmt::skip]
fn broken_packets() -> Vec<(DropReason, &'static str, Vec<u8>)> {
    use DropReason::*;
    vec![
        (Truncated, "nothing", vec![]),
        (Truncated, "39 octets", octets(NS)[..39].to_vec()),
        (Truncated, "a payload length of one more", unsealed(NS, |p| p[5] += 1)),
        (Truncated, "no payload", cut(NS, 40)),
        (Truncated, "ICMPv6 of 7 octets", cut(NS, 47)),
        (Truncated, "an NS of 23 octets", cut(NS, 63)),
        (Truncated, "a Hop-by-Hop header of 7 octets", cut(DONE, 47)),
        (Truncated, "a Hop-by-Hop header past the end", unsealed(DONE, |p| p[41] = 5)),
        (Truncated, "a Done of 23 octets", cut(DONE, 71)),
        (Truncated, "an MLDv1 report of 23 octets", cut(REPORT_V1, 71)),
        (NotIpv6, "version 4", unsealed(NS, |p| p[0] = 0x40)),
        (NotIpv6, "version 4 and no payload",
            unsealed(NS, |p| { p.truncate(40); p[0] = 0x40; p[5] = 0; })),
        (NotIpv6, "version 7", unsealed(NS, |p| p[0] = 0x70)),
        (MulticastSource, "an NS", sealed(NS, |p| p[8..24].copy_from_slice(&ALL_NODES.octets()))),
        (HopByHopOption, "past the header", options(DONE, &[5, 2, 0, 0, 1, 1])),
        (HopByHopOption, "without a length", options(DONE, &[5, 2, 0, 0, 0, 1])),
        (HopByHopOption, "Router Alert of 3 octets", options(DONE, &[5, 3, 0, 0, 0, 0])),
        // RFC 8200 §4.2: a receiver discards the packet if the type of an unknown option has two
        // high bits other than 00.
        (HopByHopOption, "unknown (0x5e), before Router Alert",
            options(DONE, &[0x5e, 2, 0, 0, 5, 2, 0, 0, 1, 4, 0, 0, 0, 0])),
        (HopByHopOption, "unknown (0x63), before Router Alert",
            options(DONE, &[0x63, 2, 0, 0, 5, 2, 0, 0, 1, 4, 0, 0, 0, 0])),
        (HopByHopOption, "unknown (0x9e), before Router Alert",
            options(DONE, &[0x9e, 2, 0, 0, 5, 2, 0, 0, 1, 4, 0, 0, 0, 0])),
        (HopByHopOption, "unknown (0xde), before Router Alert",
            options(DONE, &[0xde, 2, 0, 0, 5, 2, 0, 0, 1, 4, 0, 0, 0, 0])),
        (HopByHopOption, "unknown (0xde), behind Router Alert",
            options(DONE, &[5, 2, 0, 0, 1, 4, 0, 0, 0, 0, 0xde, 2, 0, 0])),
        (HopByHopOption, "in an NS", hop_by_hop(NS, &[0xc2, 4, 0, 0, 0, 0])),
        (NotIcmpv6, "UDP", sealed(NA, |p| p[6] = 17)),
        (NotIcmpv6, "nothing behind the IPv6 header", sealed(NA, |p| p[6] = 59)),
        (NotIcmpv6, "a fragment header", extended(NA, 44, &[58, 0, 0, 0, 0, 0, 0, 1])),
        (NotIcmpv6, "destination options", extended(NA, 60, &[58, 0, 1, 4, 0, 0, 0, 0])),
        (NotIcmpv6, "two Hop-by-Hop headers", extended(DONE, 0, &[0, 0, 1, 4, 0, 0, 0, 0])),
        (NotIcmpv6, "UDP behind Hop-by-Hop", sealed(DONE, |p| p[40] = 17)),
        (OtherType, "a Router Solicitation", sealed(NS, |p| p[40] = 133)),
        (OtherType, "a Redirect", sealed(NS, |p| p[40] = 137)),
        (OtherType, "an Echo Request with Router Alert", sealed(DONE, |p| p[48] = 128)),
        (OtherType, "a reserved type", sealed(DONE, |p| p[48] = 255)),
        (Code, "an NS", sealed(NS, |p| p[41] = 1)),
        (Code, "an NA", sealed(NA, |p| p[41] = 1)),
        (MulticastTarget, "an NS", sealed(NS, |p| p[48..50].copy_from_slice(&[0xff, 2]))),
        (MulticastTarget, "an NA", sealed(NA, |p| p[48..50].copy_from_slice(&[0xff, 2]))),
        (NdpOption, "length 0 in an NS", sealed(NS, |p| p[65] = 0)),
        (NdpOption, "length 0 in an NA", sealed(NA, |p| p[65] = 0)),
        (NdpOption, "an unknown option of length 0", sealed(NS_DAD_NONCE, |p| p[65] = 0)),
        (NdpOption, "a second option of length 0", longer(NS, &[14, 0, 0, 0, 0, 0, 0, 0])),
        (NdpOption, "past the end", sealed(NS, |p| p[65] = 2)),
        (NdpOption, "an unknown option past the end", sealed(NS_DAD_NONCE, |p| p[65] = 255)),
        (NdpOption, "one octet", longer(NS, &[1])),
        (UnspecifiedSource, "to all nodes",
            sealed(NS_DAD, |p| p[24..40].copy_from_slice(&ALL_NODES.octets()))),
        (UnspecifiedSource, "to the target", sealed(NS_DAD, |p| p.copy_within(48..64, 24))),
        (UnspecifiedSource, "to ff05::1:ff00:2", sealed(NS_DAD, |p| p[25] = 5)),
        (UnspecifiedSource, "to ff02::1:fe00:2", sealed(NS_DAD, |p| p[36] = 0xfe)),
        (UnspecifiedSource, "with its link-layer address",
            longer(NS_DAD, &[1, 1, 2, 0, 0, 0, 0, 2])),
        (UnspecifiedSource, "with it behind a nonce",
            longer(NS_DAD_NONCE, &[1, 1, 2, 0, 0, 0, 0, 2])),
        (UnspecifiedSource, "with one of 14 octets",
            longer(NS_DAD, &[1, 2, 2, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0])),
        (SolicitedMulticast, "S = 1 to all nodes", sealed(NA_UNSOLICITED, |p| p[44] |= 0x40)),
        (NotLinkLocal, "a global source", octets(QUERY_V2_GLOBAL)),
        (NotLinkLocal, "a loopback source",
            sealed(DONE, |p| p[8..24].copy_from_slice(&Ipv6Addr::LOCALHOST.octets()))),
        (NoRouterAlert, "the value for RSVP", options(QUERY_V2, &[5, 2, 0, 1, 1, 0])),
        (NoRouterAlert, "a value above 255", options(QUERY_V2, &[5, 2, 1, 0, 1, 0])),
        (NoRouterAlert, "one inside PadN", options(QUERY_V2, &[1, 4, 5, 2, 0, 0])),
        (NoRouterAlert, "one inside an unknown option", options(QUERY_V2, &[0x1e, 4, 5, 2, 0, 0])),
        (NoRouterAlert, "its type with another change bit",
            options(QUERY_V2, &[0x25, 2, 0, 0, 1, 0])),
        (QueryLength, "8 octets", cut(QUERY_V1, 56)),
        (QueryLength, "23 octets", cut(QUERY_V1, 71)),
        (QueryLength, "25 octets", cut(QUERY_V2, 73)),
        (QueryLength, "26 octets", cut(QUERY_V2, 74)),
        (QueryLength, "27 octets", cut(QUERY_V2, 75)),
        (RecordOverrun, "one source, none there", sealed(QUERY_V2, |p| p[75] = 1)),
        (RecordOverrun, "a source that lacks an octet", cut(QUERY_V2_SOURCES, 107)),
        (RecordOverrun, "65,535 sources", sealed(QUERY_V2_SOURCES, |p| p[74..76].fill(255))),
        (RecordOverrun, "two records, one there", sealed(REPORT_V2, |p| p[55] = 2)),
        (RecordOverrun, "a record that lacks an octet", cut(REPORT_V2, 75)),
        (RecordOverrun, "a record of one source, none there", sealed(REPORT_V2, |p| p[59] = 1)),
        (RecordOverrun, "a record of 65,535 sources", sealed(REPORT_V2, |p| p[58..60].fill(255))),
        (RecordOverrun, "a record whose sources overlap the next",
            sealed(REPORT_V2_JOINS, |p| p[59] = 3)),
        (RecordOverrun, "auxiliary data past the end", sealed(REPORT_V2, |p| p[57] = 1)),
        (RecordOverrun, "65,535 records", sealed(REPORT_V2, |p| p[54..56].fill(255))),
        (NotMulticast, "an MLDv1 report", sealed(REPORT_V1, |p| p[56] = 0xfe)),
        (NotMulticast, "a Done", sealed(DONE, |p| p[56] = 0xfe)),
        (NotMulticast, "a Done of ::", sealed(DONE, |p| p[56..72].fill(0))),
        (NotMulticast, "an MLDv1 query", sealed(QUERY_V1_GROUP, |p| p[56] = 0xfe)),
        (NotMulticast, "an MLDv2 query", sealed(QUERY_V2_GROUP, |p| p[56] = 0xfe)),
    ]
}

/// Every golden, broken in the ways that apply to all of them.
fn broken_goldens() -> Vec<(DropReason, &'static str, Vec<u8>)> {
    use DropReason::*;
    let mut rows = Vec::new();
    for golden in GOLDENS {
        let packet = octets(golden);
        for limit in (0..=255).filter(|&limit| limit != packet[7]) {
            rows.push((HopLimit, golden, unsealed(golden, |p| p[7] = limit)));
        }
        if is_mld(golden) {
            let unspecified = sealed(golden, |p| p[8..24].fill(0));
            rows.push((NotLinkLocal, golden, unspecified));
            rows.push((NoRouterAlert, golden, options(golden, &[1, 4, 0, 0, 0, 0])));
            let bare = sealed(golden, |p| {
                p[6] = 58;
                p.drain(40..48);
            });
            rows.push((NoRouterAlert, golden, bare));
        }
        // Every single bit of the message after its type and code, which the parser checks first.
        for at in message_at(golden) + 2..packet.len() {
            for bit in 0..8 {
                rows.push((Checksum, golden, unsealed(golden, |p| p[at] ^= 1 << bit)));
            }
        }
    }
    rows
}

/// Goldens with something added or changed that a receiver ignores, each with its golden.
#[rustfmt::skip]
fn odd_packets() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    vec![
        ("Router Alert behind Pad1", options(DONE, &[0, 0, 5, 2, 0, 0]), DONE),
        ("Router Alert behind PadN", options(DONE, &[1, 0, 5, 2, 0, 0]), DONE),
        ("behind an unknown option to skip",
            options(DONE, &[0x1e, 2, 9, 9, 5, 2, 0, 0, 1, 4, 0, 0, 0, 0]), DONE),
        ("behind one that may change", options(DONE, &[0x3e, 0, 5, 2, 0, 0]), DONE),
        ("behind a look-alike of another value",
            options(DONE, &[1, 4, 5, 2, 0, 1, 5, 2, 0, 0, 1, 2, 0, 0]), DONE),
        ("a Hop-by-Hop header in an NS", hop_by_hop(NS, &[1, 4, 0, 0, 0, 0]), NS),
        ("traffic class and flow label",
            sealed(NS, |p| p[..4].copy_from_slice(&[0x6f, 0xff, 0xff, 0xff])), NS),
        ("a reserved field of an NS", sealed(NS, |p| p[44..48].fill(255)), NS),
        ("reserved flags of an NA",
            sealed(NA, |p| p[44..48].copy_from_slice(&[0x7f, 255, 255, 255])), NA),
        ("an unknown option behind", longer(NS, &[77, 1, 0, 0, 0, 0, 0, 0]), NS),
        ("a target link-layer address in an NS", longer(NS, &[2, 1, 9, 9, 9, 9, 9, 9]), NS),
        ("a link-layer address of 14 octets",
            longer(NA_BARE, &[2, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), NA_BARE),
        ("octets 25 on of an MLDv1 report", longer(REPORT_V1, &[1, 2, 3]), REPORT_V1),
        ("octets 25 on of a Done", longer(DONE, &[0; 4]), DONE),
        ("the delay of a Done", sealed(DONE, |p| p[52..56].fill(255)), DONE),
        ("octets behind a query", longer(QUERY_V2_SOURCES, &[9; 17]), QUERY_V2_SOURCES),
        ("reserved fields of a query",
            sealed(QUERY_V2, |p| (p[54], p[72]) = (255, p[72] | 0xf0)), QUERY_V2),
        ("reserved fields of a report", sealed(REPORT_V2, |p| p[52..54].fill(255)), REPORT_V2),
    ]
}

#[test]
fn the_parser_ignores_what_a_receiver_must_ignore() {
    for (what, packet, golden) in odd_packets() {
        assert_eq!(parse(&packet), parse(&octets(golden)), "{what}");
        assert!(parse(&packet).is_ok(), "{what}");
    }
    for golden in GOLDENS {
        let padded = [octets(golden), vec![0x5a; 18]].concat();
        assert_eq!(parse(&padded), parse(&octets(golden)), "link-layer padding");
    }
    // RFC 3810 §5.2.11. This packet is not in the table because records are unequal to others with
    // fewer octets behind them.
    let behind = longer(REPORT_V2, &[9; 20]);
    report_is_read(&behind, &[(RecordType::ChangeToInclude, "ff02::1234", &[])]);
    // RFC 3810 §5.1.15: a node accepts a query to any of its addresses.
    let unicast = sealed(QUERY_V2, |p| p[24..40].copy_from_slice(&ip(HOST).octets()));
    assert!(matches!(parse(&unicast), Ok(Message::Query(query)) if query.destination == ip(HOST)));
    // RFC 3810 §5.2.14: a router accepts an MLDv1 report to any of its addresses.
    let router = ip(QUERIER).octets();
    let unicast = sealed(REPORT_V1, |p| p[24..40].copy_from_slice(&router));
    assert_eq!(parse(&unicast), parse(&octets(REPORT_V1)));
}

/// RFC 2710 §3.2, RFC 3810 §5.1.1: "Initialized to zero by the sender; ignored by receivers." In
/// an MLDv2 report the octet is reserved (§5.2.1), and receivers ignore it too.
#[test]
fn the_parser_ignores_the_code_of_an_mld_message() {
    for golden in GOLDENS.into_iter().filter(|golden| is_mld(golden)) {
        let packet = sealed(golden, |p| p[49] = 1);
        assert_eq!(parse(&packet), parse(&octets(golden)));
    }
}

#[test]
fn the_checksum_covers_both_addresses() {
    for golden in GOLDENS {
        for bit in 8 * 8..40 * 8 {
            let packet = unsealed(golden, |p| p[bit / 8] ^= 1 << (bit % 8));
            assert!(parse(&packet).is_err(), "bit {bit} of {golden}");
        }
    }
}

#[test]
fn the_parser_refuses_every_shortened_packet() {
    for golden in GOLDENS {
        let packet = octets(golden);
        for length in 0..packet.len() {
            assert_eq!(parse(&packet[..length]), Err(DropReason::Truncated));
        }
        // With the right payload length and checksum, an NDP message without its options is valid,
        // and the MLDv1 part of an MLDv2 query is a valid MLDv1 query.
        let message = message_at(golden);
        let is_longer = packet.len() > message + 24 && [130, 135, 136].contains(&packet[message]);
        for length in 40..packet.len() {
            let expected = is_longer && length == message + 24;
            assert_eq!(parse(&cut(golden, length)).is_ok(), expected, "{golden}");
        }
    }
}

#[test]
fn a_query_rounds_its_times_down_to_what_the_fields_hold() {
    let v1 = sent(70_000, QueryVersion::V1);
    assert_eq!(v1[52..54], [255, 255]);
    assert_eq!(sent_v2(32_767, 127, 7), (32_767, 127, 7));
    assert_eq!(sent_v2(32_768, 128, 7), (0x8000, 0x80, 7));
    assert_eq!(sent_v2(227_775, 479, 7), (0xabcd, 0x9d, 7));
    assert_eq!(sent_v2(u64::MAX, u64::MAX, 7), (0xffff, 0xff, 7));
}

/// RFC 3810 §8.2.1: the Maximum Response Delay of an MLDv1 query is never a floating-point code.
#[test]
fn the_delay_of_an_mldv1_query_is_linear() {
    let packet = sealed(QUERY_V1, |p| p[52..54].fill(255));
    let delay = |packet: &[u8]| match parse(packet) {
        Ok(Message::Query(query)) => query.max_response_delay,
        other => panic!("not a query: {other:?}"),
    };
    assert_eq!(delay(&packet), Duration::from_millis(65_535));
    let packet = sealed(QUERY_V2, |p| p[52..54].fill(255));
    assert_eq!(delay(&packet), Duration::from_millis(8_387_584));
}

/// RFC 3810 §5.1.8: "If the Querier's [Robustness Variable] exceeds 7 [...], the QRV field is set
/// to zero."
#[test]
fn a_query_carries_a_robustness_above_7_as_0() {
    for robustness in 8..=u8::MAX {
        assert_eq!(sent_v2(1000, 125, robustness), (1000, 125, 0));
    }
}

#[test]
fn a_message_refuses_a_buffer_that_is_too_small() {
    for golden in GOLDENS {
        let packet = octets(golden);
        let message = parse(&packet).expect("valid");
        let mut buffer = [0xaa; 256];
        let Some(length) = emit(&message, &mut buffer) else {
            continue;
        };
        for short in 0..length {
            assert_eq!(emit(&message, &mut buffer[..short]), None);
        }
        buffer.fill(0xaa);
        assert_eq!(emit(&message, &mut buffer), Some(length));
        assert!(buffer[length..].iter().all(|&octet| octet == 0xaa));
    }
}

#[test]
fn a_report_holds_as_many_records_as_fit() {
    let small = (0..400_usize).map(|size| (size, size.saturating_sub(56) / 20));
    for (size, records) in small.chain([(1280, 61), (1500, 72)]) {
        let mut buffer = vec![0xaa; size];
        let mut report = ReportBuilder::new(&mut buffer);
        for number in 0..records {
            assert!(report.push(RecordType::ModeIsExclude, group(number)));
        }
        assert!(!report.push(RecordType::ModeIsExclude, group(records)));
        let length = (records > 0).then_some(56 + 20 * records);
        assert_eq!(report.finish(ip(HOST)), length, "{size}");
        let Some(length) = length else { continue };
        assert!(has_valid_checksum(&buffer[..length]));
        assert_eq!(
            groups(&buffer[..length]),
            (0..records).map(group).collect::<Vec<_>>()
        );
    }
}

/// The lists of up to 64 sources of all records that a router reports.
#[test]
fn records_with_sources_parse_as_they_were_built_and_those_that_do_not_fit_add_nothing() {
    use RecordType::*;
    let kinds = [
        ModeIsInclude,
        ModeIsExclude,
        ChangeToInclude,
        ChangeToExclude,
        AllowNewSources,
        BlockOldSources,
        Unknown(99),
    ];
    let mut random = fastrand::Rng::with_seed(3);
    for _ in 0..2_000 {
        let room = random.usize(1280..1501);
        let mut buffer = vec![0xaa; room];
        let (mut report, mut expected, mut length) = (ReportBuilder::new(&mut buffer), vec![], 56);
        for number in 0..random.usize(1..9) {
            let addresses: Vec<_> = (0..random.usize(..65)).map(group).collect();
            let mut octets = [0; 16 * 64];
            let sources = Sources::write(addresses.iter().copied(), &mut octets);
            assert!(sources.iter().eq(addresses.iter().copied()));
            let kind = kinds[random.usize(..kinds.len())];
            let fits = length + 20 + 16 * addresses.len() <= room;
            assert_eq!(report.push_with(kind, group(number), sources), fits);
            if fits {
                length += 20 + 16 * addresses.len();
                expected.push((kind, group(number), addresses));
            }
        }
        let finished = report.finish(ip(HOST));
        assert_eq!(finished, (!expected.is_empty()).then_some(length));
        if !expected.is_empty() {
            assert!(has_valid_checksum(&buffer[..length]));
            assert_eq!(told(&buffer[..length]), expected);
        }
    }
}

#[test]
fn a_query_with_any_list_of_sources_parses_as_it_was_built() {
    for count in 0..=64_usize {
        let addresses: Vec<_> = (0..count).map(group).collect();
        let mut octets = [0; 16 * 64];
        let sources = Sources::write(addresses.iter().copied(), &mut octets);
        for suppresses in [false, true] {
            let version = QueryVersion::V2 {
                suppress_router_processing: suppresses,
                robustness: 2,
                query_interval: Duration::from_secs(125),
                sources,
            };
            let query = Query {
                source: ip(QUERIER),
                destination: group(7),
                group: group(7),
                max_response_delay: Duration::from_millis(1000),
                version,
            };
            let mut buffer = [0xaa; 1280];
            let length = query.emit(&mut buffer).expect("it fits a link's least MTU");
            assert_eq!(length, 76 + 16 * count);
            assert!(has_valid_checksum(&buffer[..length]));
            assert_eq!(parse(&buffer[..length]), Ok(Message::Query(query)));
        }
    }
}

#[test]
fn a_list_of_sources_ends_where_its_octets_do() {
    let mut octets = [0; 40];
    let sources = Sources::write((0..5).map(group), &mut octets);
    assert!(sources.iter().eq([group(0), group(1)]));
    assert!(sources.contains(group(1)) && !sources.contains(group(2)));
}

#[test]
fn a_report_without_records_is_not_built() {
    assert_eq!(ReportBuilder::new(&mut [0; 1500]).finish(ip(HOST)), None);
}

#[test]
fn reports_of_4096_groups_fit_in_57_packets_of_1500_octets() {
    let mut read = Vec::new();
    let mut packets = 0;
    while read.len() < 4096 {
        let mut buffer = [0xaa; 1500];
        let mut report = ReportBuilder::new(&mut buffer);
        let mut next = read.len();
        while next < 4096 && report.push(RecordType::ChangeToExclude, group(next)) {
            next += 1;
        }
        let length = report.finish(ip(HOST)).expect("has records");
        read.extend(groups(&buffer[..length]));
        packets += 1;
    }
    assert_eq!(packets, 57);
    assert_eq!(read, (0..4096).map(group).collect::<Vec<_>>());
}

/// RFC 8200 §3: the payload length is a 16-bit field, however long the buffer.
#[test]
fn a_report_never_outgrows_the_payload_length() {
    let mut buffer = vec![0xaa; 70_000];
    let mut report = ReportBuilder::new(&mut buffer);
    let records = (0..4000)
        .take_while(|&number| report.push(RecordType::ModeIsExclude, group(number)))
        .count();
    let length = report.finish(ip(HOST)).expect("has records");
    assert_eq!((records, length), (3275, 56 + 20 * 3275));
    assert_eq!(groups(&buffer[..length]).len(), records);
}

/// Names the packet of a panic by its seed.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the failing seed is {}", self.0);
        }
    }
}

#[test]
fn the_parser_never_panics_and_an_accepted_packet_survives_being_emitted() {
    let goldens = GOLDENS.map(octets);
    let mut accepted = 0;
    for seed in 0..200_000 {
        let seed = Seed(seed);
        let packet = any_packet(&mut fastrand::Rng::with_seed(seed.0), &goldens);
        let Ok(message) = parse(&packet) else {
            continue;
        };
        accepted += 1;
        let mut buffer = [0xaa; 2048];
        let Some(length) = emit(&message, &mut buffer) else {
            assert!(matches!(message, Message::ReportV2(_)));
            continue;
        };
        let again = &buffer[..length];
        assert!(has_valid_checksum(again));
        if let Message::ReportV2(_) = message {
            assert_eq!(told(again), told(&packet));
        } else {
            assert_eq!(parse(again), Ok(message));
        }
    }
    assert!(
        accepted > 20_000,
        "the parser accepted only {accepted} packets, too few to mean much"
    );
}

/// A golden with a few octets changed, or now and then the start of one with random octets behind.
/// Most have the right checksum and payload length.
fn any_packet(random: &mut fastrand::Rng, goldens: &[Vec<u8>]) -> Vec<u8> {
    let mut packet = goldens[random.usize(..goldens.len())].clone();
    if random.u8(..) < 32 {
        let kept = random.usize(..=packet.len());
        packet.truncate(kept);
        packet.extend((0..random.usize(..200)).map(|_| random.u8(..)));
    }
    for _ in 0..random.usize(1..5) {
        if packet.is_empty() {
            break;
        }
        let at = random.usize(..packet.len());
        match random.u8(..6) {
            0 => packet[at] = random.u8(..),
            1 => packet[at] = [0, 1, 2, 5, 0x7f, 0x80, 0xff][random.usize(..7)],
            2 => packet[at] ^= 1 << random.u8(..8),
            3 => packet.truncate(at),
            4 => packet.extend_from_within(at..),
            _ => drop(packet.remove(at)),
        }
    }
    if random.u8(..) < 224 {
        seal(&mut packet);
    }
    packet
}

fn ip(text: &str) -> Ipv6Addr {
    text.parse().expect("an address")
}

fn group(number: usize) -> Ipv6Addr {
    Ipv6Addr::from(ip("ff02::1:ff00:0").to_bits() + number as u128)
}

fn octets(hex: &str) -> Vec<u8> {
    let digits: Vec<_> = hex.chars().filter_map(|digit| digit.to_digit(16)).collect();
    digits
        .chunks(2)
        .map(|pair| (pair[0] * 16 + pair[1]) as u8)
        .collect()
}

/// Asserts that the golden parses to `message`, and that `message` emits to the golden.
fn parses_and_emits(golden: &str, message: &Message<'_>) {
    let mut packet = octets(golden);
    assert_eq!(parse(&packet).as_ref(), Ok(message));
    // A Linux bridge pads with two Pad1. A Linux host and this crate pad with one PadN of 2 octets.
    if packet[6] == 0 && packet[46..48] == [0, 0] {
        packet[46] = 1;
    }
    let mut buffer = [0xaa; 256];
    assert_eq!(emit(message, &mut buffer), Some(packet.len()));
    assert_eq!(buffer[..packet.len()], packet);
}

type Records = &'static [(RecordType, &'static str, &'static [&'static str])];

fn report_is_read(packet: &[u8], expected: Records) {
    let Ok(Message::ReportV2(report)) = parse(packet) else {
        panic!("not read as a report: {:?}", parse(packet));
    };
    assert_eq!(report.source, ip(HOST));
    let mut records = report.records;
    for &(record_type, group, sources) in expected {
        let record = records.next().expect("another record");
        assert_eq!((record.record_type, record.group), (record_type, ip(group)));
        are_sources(record.sources, sources);
    }
    assert_eq!(records.next(), None);
}

fn are_sources(sources: Sources<'_>, expected: &[&str]) {
    assert_eq!(usize::from(sources.count()), expected.len());
    assert!(sources.iter().eq(expected.iter().map(|source| ip(source))));
}

/// The sources of a query. Asserts that they are `expected`.
fn sources_of<'a>(packet: &'a [u8], expected: &[&str]) -> Sources<'a> {
    let Ok(Message::Query(Query {
        version: QueryVersion::V2 { sources, .. },
        ..
    })) = parse(packet)
    else {
        panic!("not read as a query: {:?}", parse(packet));
    };
    are_sources(sources, expected);
    sources
}

/// The records of a report, without their auxiliary data.
fn told(report: &[u8]) -> Vec<(RecordType, Ipv6Addr, Vec<Ipv6Addr>)> {
    let Ok(Message::ReportV2(report)) = parse(report) else {
        panic!("not read as a report: {:?}", parse(report));
    };
    let told = |record: Record<'_>| {
        let sources = record.sources.iter().collect();
        (record.record_type, record.group, sources)
    };
    report.records.map(told).collect()
}

fn groups(report: &[u8]) -> Vec<Ipv6Addr> {
    let Ok(Message::ReportV2(report)) = parse(report) else {
        panic!("not read as a report: {:?}", parse(report));
    };
    report.records.map(|record| record.group).collect()
}

/// The length of the emitted packet; `None` if the buffer is too small, or if the message is a
/// report without records, which [`ReportBuilder`] does not build.
fn emit(message: &Message<'_>, buffer: &mut [u8]) -> Option<usize> {
    match message {
        Message::NeighborSolicitation(message) => message.emit(buffer),
        Message::NeighborAdvertisement(message) => message.emit(buffer),
        Message::Query(message) => message.emit(buffer),
        Message::ReportV1(message) => message.emit(buffer),
        Message::Done(message) => message.emit(buffer),
        Message::ReportV2(message) => {
            let mut report = ReportBuilder::new(buffer);
            let mut add = |record: Record<'_>| {
                report.push_with(record.record_type, record.group, record.sources)
            };
            message.records.clone().all(&mut add).then_some(())?;
            report.finish(message.source)
        }
    }
}

fn sent(milliseconds: u64, version: QueryVersion<'_>) -> [u8; 76] {
    let query = Query {
        source: ip(QUERIER),
        destination: ALL_NODES,
        group: Ipv6Addr::UNSPECIFIED,
        max_response_delay: Duration::from_millis(milliseconds),
        version,
    };
    let mut buffer = [0xaa; 76];
    query.emit(&mut buffer).expect("fits");
    buffer
}

/// The Maximum Response Code, QQIC and QRV of an emitted MLDv2 query.
fn sent_v2(milliseconds: u64, seconds: u64, robustness: u8) -> (u16, u8, u8) {
    let version = QueryVersion::V2 {
        suppress_router_processing: false,
        robustness,
        query_interval: Duration::from_secs(seconds),
        sources: Sources::default(),
    };
    let packet = sent(milliseconds, version);
    let code = u16::from_be_bytes([packet[52], packet[53]]);
    (code, packet[73], packet[72])
}

fn is_mld(golden: &str) -> bool {
    octets(golden)[6] == 0
}

/// The offset of the ICMPv6 message in a golden.
fn message_at(golden: &str) -> usize {
    if is_mld(golden) { 48 } else { 40 }
}

/// The golden after an edit.
fn unsealed(golden: &str, edit: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut packet = octets(golden);
    edit(&mut packet);
    packet
}

/// The golden after an edit, with the right payload length and checksum.
fn sealed(golden: &str, edit: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut packet = unsealed(golden, edit);
    seal(&mut packet);
    packet
}

fn cut(golden: &str, length: usize) -> Vec<u8> {
    sealed(golden, |packet| packet.truncate(length))
}

fn longer(golden: &str, behind: &[u8]) -> Vec<u8> {
    sealed(golden, |packet| packet.extend(behind))
}

/// The golden with an extension header inserted behind its IPv6 header.
fn extended(golden: &str, next_header: u8, header: &[u8]) -> Vec<u8> {
    unsealed(golden, |packet| {
        packet[6] = next_header;
        packet[5] += header.len() as u8;
        packet.splice(40..40, header.iter().copied());
    })
}

/// The golden with other Hop-by-Hop options.
fn options(golden: &str, options: &[u8]) -> Vec<u8> {
    assert_eq!(options.len() % 8, 6);
    sealed(golden, |packet| {
        packet[41] = (options.len() / 8) as u8;
        packet.splice(42..48, options.iter().copied());
    })
}

/// The golden, which has no Hop-by-Hop header, with one.
fn hop_by_hop(golden: &str, options: &[u8]) -> Vec<u8> {
    extended(
        golden,
        0,
        &[&[58, (options.len() / 8) as u8], options].concat(),
    )
}

/// The offset of the ICMPv6 message; `None` if the packet ends before its checksum.
fn icmpv6_at(packet: &[u8]) -> Option<usize> {
    let at = match *packet.get(6)? {
        0 => 48 + 8 * usize::from(*packet.get(41)?),
        _ => 40,
    };
    (packet.len() >= at + 4).then_some(at)
}

/// The one's complement sum of the message and its pseudo-header (RFC 8200 §8.1).
fn sum(packet: &[u8], at: usize) -> u16 {
    let message = &packet[at..];
    let chunks = packet[8..40].chunks(2).chain(message.chunks(2));
    let words = chunks.map(|pair| [pair[0], pair.get(1).copied().unwrap_or(0)]);
    let sum: u32 = words.map(|word| u32::from(u16::from_be_bytes(word))).sum();
    let mut sum = sum + message.len() as u32 + 58;
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}

fn has_valid_checksum(packet: &[u8]) -> bool {
    icmpv6_at(packet).is_some_and(|at| sum(packet, at) == 0xffff)
}

fn seal(packet: &mut [u8]) {
    let Some(length) = packet.len().checked_sub(40) else {
        return;
    };
    packet[4..6].copy_from_slice(&(length as u16).to_be_bytes());
    if let Some(at) = icmpv6_at(packet) {
        packet[at + 2..at + 4].fill(0);
        let checksum = !sum(packet, at);
        packet[at + 2..at + 4].copy_from_slice(&checksum.to_be_bytes());
    }
}
