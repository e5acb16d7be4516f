//! Invalid packets from a gateway (RFC 4861 §7.1.1). A router that answers for its hosts must not
//! answer them, and must not let them through to the hosts.

use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use protocol::wire::{ALL_NODES, DropReason, MacAddress, Message, NeighborSolicitation, parse};

use crate::lab::{
    DOWNSTREAM, Frame, GATEWAY, LAN_HOST, Lab, Process, Tap, UPSTREAM, group_mac, solicited_node,
};
use crate::support::{proxied, start_proxying, status};

crate::tests![
    invalid_solicitations_and_those_for_strangers_are_not_answered,
    ten_thousand_unknown_targets_reach_no_lan_and_cost_nothing,
    the_kernels_answers_are_a_proxys,
];

// ICMPv6 types (RFC 4861 §4.3, §4.4).
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;

/// Within this time the answer to the last packet is there, and so is a late second one. The kernel
/// delays answers for addresses that it proxies by up to 0.8 s, unless somebody sets `proxy_delay`.
const ANSWERED: Duration = Duration::from_secs(1);

/// The gateway's end of the link. The gateway's kernel stays out of it.
struct Gateway {
    tap: Tap,
    router: [u8; 6],
}

impl Gateway {
    fn of(lab: &Lab) -> Self {
        Self {
            tap: Tap::open(&lab.gw, "eth0"),
            router: Tap::open(&lab.rtr, UPSTREAM).mac(),
        }
    }

    /// A solicitation from the gateway, to the solicited-node group or, as a probe, to the target
    /// alone.
    fn solicitation(&self, target: Ipv6Addr, multicast: bool) -> NeighborSolicitation {
        NeighborSolicitation {
            source: GATEWAY,
            destination: if multicast {
                solicited_node(target)
            } else {
                target
            },
            target,
            source_link_layer: Some(MacAddress(self.tap.mac())),
        }
    }

    /// Sends a packet to the link-layer address of its destination: the group's or the router's.
    fn send(&self, packet: Vec<u8>) {
        let destination = destination(&packet);
        self.tap.send(&Frame {
            source: self.tap.mac(),
            destination: if destination.is_multicast() {
                group_mac(destination)
            } else {
                self.router
            },
            packet,
        });
    }

    /// Counts the router's advertisements until `end`, valid or not. Those in which the router
    /// tells the gateway's kernel of its own addresses do not count.
    fn advertisements_until(&self, end: Instant) -> usize {
        let left = || end.saturating_duration_since(Instant::now());
        let frames = std::iter::from_fn(|| self.tap.receive(left()));
        let advertisements = frames.filter(|frame| {
            let by_router = frame.source == self.router && is_ndp(&frame.packet, ADVERTISEMENT);
            by_router && !target(&frame.packet).is_unicast_link_local()
        });
        advertisements.count()
    }
}

/// A way to spoil a packet, and why a receiver then drops it.
pub type Fault = (&'static str, DropReason, fn(&mut Vec<u8>));

pub const FAULTS: [Fault; 6] = [
    ("hop limit 64", DropReason::HopLimit, |packet| {
        packet[7] = 64;
    }),
    ("code 1", DropReason::Code, |packet| {
        packet[41] = 1;
        correct_checksum(packet);
    }),
    ("a bad checksum", DropReason::Checksum, |packet| {
        packet[42] ^= 0xff;
    }),
    ("an option of length 0", DropReason::NdpOption, |packet| {
        packet[65] = 0;
        correct_checksum(packet);
    }),
    (
        "a multicast target",
        DropReason::MulticastTarget,
        |packet| {
            packet[48..64].copy_from_slice(&solicited_node(LAN_HOST).octets());
            correct_checksum(packet);
        },
    ),
    (
        "source :: with a source link-layer address",
        DropReason::UnspecifiedSource,
        |packet| {
            packet[8..24].fill(0);
            correct_checksum(packet);
        },
    ),
];

/// A valid packet follows each invalid one and is answered. So the silence before it was a refusal,
/// and the router is not deaf.
fn invalid_solicitations_and_those_for_strangers_are_not_answered() {
    let lab = Lab::new();
    let _mldproxy = start_proxying(&lab, &[]);
    let gateway = Gateway::of(&lab);
    let expect_one_answer = |what: &str, refused: Vec<u8>, multicast| {
        let how = if multicast { "multicast" } else { "unicast" };
        gateway.send(refused);
        gateway.send(emit(&gateway.solicitation(LAN_HOST, multicast)));
        let answers = gateway.advertisements_until(Instant::now() + ANSWERED);
        assert_eq!(answers, 1, "to {what} and to a valid one, {how}");
    };
    for multicast in [true, false] {
        for (what, reason, spoil) in FAULTS {
            let mut packet = emit(&gateway.solicitation(LAN_HOST, multicast));
            spoil(&mut packet);
            // The packet has this fault, and no other that the router finds first.
            assert_eq!(parse(&packet), Err(reason), "{what}");
            expect_one_answer(what, packet, multicast);
        }
        // The packet goes to the host's group, so that the switch lets it through.
        let solicitation = gateway.solicitation(stranger(1), multicast);
        expect_one_answer("one for a stranger", emit(&solicitation), multicast);
    }
}

/// RFC 4861 §7.2.4, §7.2.8: the sender is a router (R), and does not override what the host says
/// itself (O). To a multicast solicitation it adds its link-layer address. It sends a solicited
/// answer to the host that solicited (S), and an unsolicited one to all nodes if the host detects
/// duplicates.
fn the_kernels_answers_are_a_proxys() {
    let lab = Lab::new();
    let _mldproxy = start_proxying(&lab, &[]);
    let gateway = Gateway::of(&lab);
    let own = Some(MacAddress(gateway.router));
    let answer_to = |solicitation: &NeighborSolicitation| {
        gateway.send(emit(solicitation));
        let end = Instant::now() + ANSWERED;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let frame = gateway.tap.receive(left).expect("an answer");
            if let Ok(Message::NeighborAdvertisement(answer)) = parse(&frame.packet)
                && answer.target == LAN_HOST
            {
                return answer;
            }
        }
    };
    let ordinary = gateway.solicitation(LAN_HOST, true);
    let duplicate = NeighborSolicitation {
        source: Ipv6Addr::UNSPECIFIED,
        source_link_layer: None,
        ..ordinary.clone()
    };
    for (solicitation, destination, solicited) in
        [(ordinary, GATEWAY, true), (duplicate, ALL_NODES, false)]
    {
        let answer = answer_to(&solicitation);
        assert_eq!(answer.destination, destination);
        assert_eq!(answer.solicited, solicited);
        assert!(answer.router && !answer.override_flag, "{answer:?}");
        assert_eq!(answer.target_link_layer, own);
    }
    let answer = answer_to(&gateway.solicitation(LAN_HOST, false));
    assert_eq!((answer.destination, answer.solicited), (GATEWAY, true));
    assert!(answer.router && !answer.override_flag, "{answer:?}");
}

/// Half of the packets go to the group of the host, which the router's kernel hears in any case.
fn ten_thousand_unknown_targets_reach_no_lan_and_cost_nothing() {
    const COUNT: u16 = 10_000;
    const AT_ONCE: u16 = 20;
    const PAUSE: Duration = Duration::from_millis(10);
    // The switch floods groups that nobody joined.
    let lab = Lab::without_querier();
    let mldproxy = start_proxying(&lab, &["--log-level", "info"]);
    let gateway = Gateway::of(&lab);
    gateway.send(emit(&gateway.solicitation(LAN_HOST, true)));
    assert_eq!(gateway.advertisements_until(Instant::now() + ANSWERED), 1);
    let lan = Tap::open(&lab.lan, "eth0");
    let before = Cost::of(&lab, &mldproxy);

    let start = Instant::now();
    let mut answers = 0;
    for number in 0..COUNT {
        let target = if number % 2 == 0 {
            stranger(number)
        } else {
            Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0x66, number)
        };
        gateway.send(emit(&gateway.solicitation(target, true)));
        if (number + 1) % AT_ONCE == 0 {
            let end = start + PAUSE * u32::from((number + 1) / AT_ONCE);
            answers += gateway.advertisements_until(end);
        }
    }
    assert_eq!(answers, 0, "advertisements for strangers");
    // The answer that comes now was behind all of them in the queue.
    gateway.send(emit(&gateway.solicitation(LAN_HOST, true)));
    assert_eq!(gateway.advertisements_until(Instant::now() + ANSWERED), 1);

    let after = Cost::of(&lab, &mldproxy);
    // What a request for the status takes.
    assert!(after.memory <= before.memory + 64, "{before:?}, {after:?}");
    assert_eq!(after.tables, before.tables);
    assert_eq!(proxied(&lab), [LAN_HOST]);
    let in_the_lan = std::iter::from_fn(|| lan.receive(Duration::from_millis(10)));
    let solicitations = in_the_lan.filter(|frame| is_ndp(&frame.packet, SOLICITATION));
    let asked_for: Vec<_> = solicitations
        .map(|frame| target(&frame.packet))
        // The router and its host may look for each other.
        .filter(|target| *target != LAN_HOST && !target.is_unicast_link_local())
        .collect();
    let few: Vec<_> = asked_for.iter().take(4).collect();
    assert!(few.is_empty(), "{} in the LAN: {few:?}", asked_for.len());
    assert!(mldproxy.is_running(), "{}", mldproxy.log());
}

/// The memberships and entries of the router.
#[derive(Debug)]
struct Cost {
    /// Resident memory, in kB.
    memory: u64,
    tables: Tables,
}

#[derive(Debug, PartialEq, Eq)]
struct Tables {
    neighbors: usize,
    groups: usize,
    /// The kernel's neighbor entries for global addresses in the LAN.
    of_the_kernel: usize,
}

impl Cost {
    fn of(lab: &Lab, mldproxy: &Process) -> Self {
        let json = lab.rtr.status("--json --limit 0");
        let count = |table: &str| {
            let (_, rest) = json.split_once(&format!("\"{table}\":{{\"count\":"))?;
            rest.split_once(',')?.0.parse().ok()
        };
        let of_the_kernel = lab.rtr.run(&format!("ip -6 neigh show dev {DOWNSTREAM}"));
        let is_global = |line: &&str| !line.starts_with("fe80:");
        Self {
            memory: status(mldproxy, "VmRSS:"),
            tables: Tables {
                neighbors: count("neighbors").expect("a number"),
                groups: count("groups").expect("a number"),
                of_the_kernel: of_the_kernel.lines().filter(is_global).count(),
            },
        }
    }
}

/// An address that nobody has, with the solicited-node group of the LAN's host.
const fn stranger(number: u16) -> Ipv6Addr {
    let [.., suffix] = LAN_HOST.segments();
    Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0x55, number, 1, suffix)
}

pub fn emit(solicitation: &NeighborSolicitation) -> Vec<u8> {
    let mut packet = vec![0; 72];
    let length = solicitation.emit(&mut packet).expect("the packet fits");
    packet.truncate(length);
    packet
}

fn address_at(packet: &[u8], place: usize) -> Ipv6Addr {
    let octets = packet[place..].first_chunk();
    Ipv6Addr::from_octets(*octets.expect("a whole packet"))
}

fn destination(packet: &[u8]) -> Ipv6Addr {
    address_at(packet, 24)
}

/// The target of a solicitation or an advertisement.
fn target(packet: &[u8]) -> Ipv6Addr {
    address_at(packet, 48)
}

/// Whether a packet is a solicitation or an advertisement, with a target.
fn is_ndp(packet: &[u8], message_type: u8) -> bool {
    packet.len() >= 64 && packet[6] == 58 && packet[40] == message_type
}

/// Writes the ICMPv6 checksum (RFC 4443 §2.3) that the packet should have.
fn correct_checksum(packet: &mut [u8]) {
    packet[42..44].fill(0);
    let length = u32::try_from(packet.len() - 40).expect("a small packet");
    let (addresses, message) = (&packet[8..40], &packet[40..]);
    let words = addresses.chunks(2).chain(message.chunks(2));
    let words = words.map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
    let mut sum = words.sum::<u32>() + length + 58;
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    packet[42..44].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}
