//! The advertisements that a LAN gets for targets on other links, octet by octet where that
//! matters.

use std::net::Ipv6Addr;
use std::time::Duration;

use protocol::wire::{ALL_NODES, MacAddress, Message, NeighborAdvertisement, parse};

use super::home::{Home, Machine, PC, frames};
use crate::lab::{Frame, LAN_ROUTER, Tap, group_mac};
use crate::support::SOON;

crate::tests![
    a_host_that_looks_for_a_target_is_answered_as_by_a_proxy,
    a_host_that_detects_duplicates_is_answered_as_by_a_proxy,
];

const QUIET: Duration = Duration::from_secs(1);

/// Every valid advertisement for a target that comes out of the router.
fn answers(tap: &Tap, router: [u8; 6], target: Ipv6Addr) -> Vec<(Frame, NeighborAdvertisement)> {
    let is_advertisement = |frame: &Frame| {
        frame.source == router && frame.packet[6] == 58 && frame.packet.get(40) == Some(&136)
    };
    let of_router = frames(tap, QUIET).filter(is_advertisement);
    let parsed = of_router.map(|frame| match parse(&frame.packet) {
        Ok(Message::NeighborAdvertisement(advertisement)) => (frame, advertisement),
        other => panic!("{other:?}: {frame:?}"),
    });
    parsed.filter(|(_, found)| found.target == target).collect()
}

/// Hosts, each with the router's interface towards it and a target on another link.
fn cases(home: &Home) -> [(&Machine, &'static str, Ipv6Addr); 3] {
    let [lan, lan2] = home.lans.each_ref().map(|lan| &lan[0]);
    [
        (lan, "br-lan", PC),
        (lan2, "br-lan2", PC),
        (lan2, "br-lan2", lan.address),
    ]
}

fn a_host_that_looks_for_a_target_is_answered_as_by_a_proxy() {
    let home = Home::new(1);
    let mldproxy = home.start(&[]);
    for (host, bridge, target) in cases(&home) {
        let router = Tap::open(&home.lab.rtr, bridge).mac();
        let tap = host.tap();
        host.namespace.flush_neighbors();
        assert!(host.namespace.reaches(target, SOON), "{}", mldproxy.log());
        let answers = answers(&tap, router, target);
        assert!(!answers.is_empty(), "{}", mldproxy.log());
        for (frame, answer) in answers {
            let expected = NeighborAdvertisement {
                source: LAN_ROUTER,
                destination: host.address,
                target,
                router: true,
                solicited: true,
                override_flag: false,
                target_link_layer: Some(MacAddress(router)),
            };
            assert_eq!(answer, expected);
            assert_eq!(frame.destination, tap.mac());
            expect_plain(&frame);
        }
    }
}

fn a_host_that_detects_duplicates_is_answered_as_by_a_proxy() {
    let home = Home::new(1);
    let mldproxy = home.start(&[]);
    for (host, bridge, target) in cases(&home) {
        let router = Tap::open(&home.lab.rtr, bridge).mac();
        let tap = host.tap();
        assert!(host.finds_taken(target), "{}", mldproxy.log());
        let answers = answers(&tap, router, target);
        assert_eq!(answers.len(), 1, "{answers:?}");
        for (frame, answer) in answers {
            let expected = NeighborAdvertisement {
                source: LAN_ROUTER,
                destination: ALL_NODES,
                target,
                router: true,
                solicited: false,
                override_flag: false,
                target_link_layer: Some(MacAddress(router)),
            };
            assert_eq!(answer, expected);
            assert_eq!(frame.destination, group_mac(ALL_NODES));
            expect_plain(&frame);
        }
    }
}

/// A hop limit of 255, code 0, reserved bits that are zero, one option, and a checksum with which
/// the sum of it all is zero (RFC 4443 §2.3).
fn expect_plain(frame: &Frame) {
    let packet = &frame.packet;
    assert_eq!(packet.len(), 40 + 24 + 8, "{packet:?}");
    assert_eq!((packet[7], packet[41]), (255, 0), "{packet:?}");
    let reserved = [packet[44] & 0x1f, packet[45], packet[46], packet[47]];
    assert_eq!(reserved, [0; 4], "{packet:?}");
    let words = packet[8..].chunks(2);
    let sum: u32 = words
        .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]))
        .sum::<u32>()
        + 32
        + 58;
    assert_eq!((sum >> 16) + (sum & 0xffff), 0xffff, "{packet:?}");
}
