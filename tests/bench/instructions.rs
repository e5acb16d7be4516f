//! The instructions that the engine takes for a frame. callgrind counts them, so the figures are
//! the same on any day.

use std::env;
use std::fs;
use std::hint::black_box;
use std::net::Ipv6Addr;
use std::process::Command;

use crate::events::ROWS;
use crate::listeners;
use crate::measure::verdict;
use model::packets::{self, emitted, solicitation_by};
use model::storage;
use protocol::config::{Config, MOST_GROUPS, ProxyConfig};
use protocol::engine::{BUFFER_LENGTH, Engine, Event};
use protocol::link::{Link, Side};
use protocol::time::{Duration, Instant};
use protocol::wire::{ALL_NODES, MacAddress, NeighborAdvertisement, RecordType, SolicitedNode};

/// The argument with which this program starts itself under callgrind.
const CHILD: &str = "--under-callgrind";

/// The frames of each kind.
pub const FRAMES: u16 = 16;
/// The groups in a report.
const RECORDS: u16 = 20;

/// The name of a kind of frame, and the builder of the frame with a number. An empty frame stands
/// for none.
type Kind = (&'static str, fn(u16) -> Vec<u8>);

/// The kinds of frames, in the order of the table.
const KINDS: [Kind; 9] = [
    ("Neighbor Solicitation of a known host", known_host),
    ("Neighbor Solicitation of a new host", new_host),
    ("duplicate address detection", duplicate_address_detection),
    ("Neighbor Advertisement", unsolicited),
    ("MLDv2 report of 20 known solicited-node groups", report),
    ("MLDv2 query", query),
    ("junk", junk),
    ("no frame: what the engine is asked once a turn", nothing),
    ("no frame: a question is due, at most 20 a second", nothing),
];
const NEW_HOST: usize = 1;
const REPORT: usize = 4;
const QUESTION: usize = 8;

/// The numbers of known hosts.
const HOSTS: [u16; 2] = [16, 4096];

pub const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
pub const NOW: Instant = Instant::from_secs(1_000_000);

/// Does the work to count if this process is the one under callgrind. Returns whether it is.
pub fn is_child() -> bool {
    let mut arguments = env::args().skip_while(|argument| argument != CHILD).skip(1);
    let mut number = || arguments.next()?.parse::<usize>().ok();
    let (Some(kind), Some(hosts)) = (number(), number()) else {
        return false;
    };
    let hosts = hosts as u16;
    let rows = || ROWS.iter().chain(&listeners::ROWS);
    if let Some((_, row)) = kind
        .checked_sub(KINDS.len())
        .and_then(|row| rows().nth(row))
    {
        row(hosts);
        return true;
    }
    let (_, frame) = KINDS[kind];
    let first_host = if kind == NEW_HOST { 0x8000 } else { 0 };
    let mut buffer = [0; BUFFER_LENGTH];
    let mut engine = if kind == REPORT {
        // The groups of the reports count among the known hosts.
        let hosts = hosts.saturating_sub(FRAMES * RECORDS).max(FRAMES);
        let mut engine = engine(hosts, Setup::Plain);
        for number in 0..FRAMES {
            let (port, mac, packet) = (0, mac(number), &*frame(number));
            engine.handle(
                NOW,
                Event::Packet {
                    side: Side::Downstream(port),
                    mac,
                    packet,
                },
            );
            settle(&mut engine, NOW);
        }
        engine
    } else {
        let setup = if kind == QUESTION {
            Setup::Probing
        } else {
            Setup::Plain
        };
        engine(hosts, setup)
    };
    for number in 0..FRAMES {
        let packet = frame(number);
        let later = if kind == QUESTION { number } else { 0 };
        let now = NOW.saturating_add(Duration::from_secs(later.into()));
        let mac = mac(first_host + number);
        take_in(&mut engine, now, mac, &packet, &mut buffer);
        settle(&mut engine, now);
    }
    true
}

pub fn section() -> String {
    let names = KINDS.iter().map(|(name, _)| name);
    let names: Vec<&str> = names
        .chain(ROWS.iter().map(|(name, _)| name))
        .copied()
        .collect();
    let counts = (0..names.len()).map(|kind| HOSTS.map(|hosts| count(kind, hosts)));
    let counts: Vec<_> = counts.collect();
    let rows = names
        .iter()
        .zip(&counts)
        .map(|(name, counts)| row(name, *counts));
    let of_streams = (names.len()..names.len() + listeners::ROWS.len())
        .map(|kind| listeners::GROUPS.map(|groups| count(kind, groups)));
    let of_streams: Vec<_> = of_streams.collect();
    let ratios = of_streams.iter().map(|counts| ratio(*counts));
    let stream_rows = listeners::ROWS.iter().zip(&of_streams);
    let stream_rows = stream_rows.map(|((name, _), counts)| row(name, *counts));
    let [few, many] = counts[0];
    format!(
        "## Instructions a frame\n\n\
         Counted by callgrind, and so the same on any day: what the engine does with one frame, \
         the mean of {FRAMES} of each kind. What it is asked once a turn of the loop, after all \
         frames that were there, is a row of its own. {} hosts known, and {}, which is a full \
         table; in the report's row the 320 groups of the reports are among these, or beside the \
         few. No host is due to be asked, but in the row that says so. A new host at a full table \
         has to find one that gives way for it, among all; `--join-rate` bounds how often. The \
         last rows are of events that are due by themselves or meet a full table, with 16 groups, \
         targets or entries and with 4096 (of targets 2032, which with those to come is a full \
         table).\n\n\
         | frame | {} hosts known | {} known | ratio |\n|---|---|---|---|\n{}\n\
         A known host's solicitation at {} hosts. {}\nIts ratio. {}\n\
         A new host's at a full table. {}\nA question that is due there. {}\n\
         With `--mld-proxy`, what a listener of streams reports; what follows, queries, reports \
         upstream and forwarding entries, is not counted. In the rows of 20 streams these are \
         among the groups, or 320 groups are the few.\n\n\
         | report | {} groups known | {} known | ratio |\n|---|---|---|---|\n{}\n\
         The greatest ratio. {}\n",
        HOSTS[0],
        HOSTS[1],
        HOSTS[0],
        HOSTS[1],
        rows.collect::<String>(),
        HOSTS[1],
        verdict(many as f64, 1550.0),
        verdict(many as f64 / few as f64, 1.05),
        verdict(counts[NEW_HOST][1] as f64, 8000.0),
        verdict(counts[QUESTION][1] as f64, 5000.0),
        listeners::GROUPS[0],
        listeners::GROUPS[1],
        stream_rows.collect::<String>(),
        verdict(ratios.fold(0.0, f64::max), 1.05),
    )
}

fn row(name: &str, counts: [u64; 2]) -> String {
    let [few, many] = counts;
    format!("| {name} | {few} | {many} | {:.2} |\n", ratio(counts))
}

fn ratio([few, many]: [u64; 2]) -> f64 {
    many as f64 / few as f64
}

/// The instructions that a frame of a kind takes, with so many hosts known.
fn count(kind: usize, hosts: u16) -> u64 {
    let out = env::temp_dir().join(format!("callgrind-{}-{kind}-{hosts}", std::process::id()));
    let program = env::current_exe().expect("the path of this program");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--collect-atstart=no"])
        .arg("--toggle-collect=*take_in*")
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(program)
        .args([CHILD, &kind.to_string(), &hosts.to_string()])
        .output()
        .expect("valgrind");
    assert!(output.status.success(), "{output:?}");
    let counted = fs::read_to_string(&out).expect("the output of callgrind");
    let _ = fs::remove_file(&out);
    let totals = counted
        .lines()
        .find_map(|line| line.strip_prefix("totals: "));
    let totals: u64 = totals.expect("totals").trim().parse().expect("a number");
    totals / u64::from(FRAMES)
}

/// Handles one frame; or, for an empty one, does what the loop does before it sleeps.
#[inline(never)]
pub fn take_in(
    engine: &mut Engine<'_>,
    now: Instant,
    mac: MacAddress,
    packet: &[u8],
    buffer: &mut [u8],
) {
    let port = 0;
    if packet.is_empty() {
        engine.handle_timeout(now);
        black_box(engine.poll_action(buffer));
        black_box(engine.next_deadline());
    } else {
        engine.handle(
            now,
            Event::Packet {
                side: Side::Downstream(port),
                mac,
                packet,
            },
        );
    }
}

/// The options of the engine.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Setup {
    /// The engine joins groups, and probes no host.
    Plain,
    /// The engine probes hosts.
    Probing,
    /// The engine proxies: the kernel answers for hosts, and the engine solicits targets.
    Proxying,
    /// The engine probes, proxies, and announces addresses.
    Announcing,
    /// The engine is an MLD proxy.
    Streams,
}

/// An engine that knows so many hosts and has no action left for them, except to probe them if the
/// setup has it.
pub fn engine(hosts: u16, setup: Setup) -> Engine<'static> {
    let mut config = Config::new("wan".parse().expect("a name"));
    let downstream = "br-lan".parse().expect("a name");
    config
        .downstreams
        .push(downstream)
        .expect("the list has room");
    config.join_rate = 1_000_000;
    config.join_burst = 1_000_000;
    config.per_mac = u16::MAX;
    // Hosts that were heard from no link-local address cannot be asked.
    config.ask = setup == Setup::Proxying;
    config.probe = matches!(setup, Setup::Probing | Setup::Announcing);
    config.ndp_proxy = matches!(setup, Setup::Proxying | Setup::Announcing);
    config.announce = setup == Setup::Announcing;
    config.mld_proxy = (setup == Setup::Streams).then(|| ProxyConfig {
        max_groups: MOST_GROUPS,
        ..ProxyConfig::default()
    });
    if config.announce {
        // Nobody who has answered is asked again meanwhile.
        config.address_timeout = Duration::from_secs(1_000_000);
    }
    let mut engine = storage::engine(storage::leak(), config, [7; 16]);
    let upstream = Link {
        index: 2,
        link_local: Some(ROUTER),
        mtu: 1500,
        mac: mac(u16::MAX),
    };
    engine.handle(NOW, Event::Link(Side::Upstream, Some(upstream)));
    let downstream = Link {
        index: 3,
        ..upstream
    };
    engine.handle(NOW, Event::Link(Side::Downstream(0), Some(downstream)));
    for number in 0..hosts {
        let packet = known_host(number);
        let (port, mac, packet) = (0, mac(number), &*packet);
        engine.handle(
            NOW,
            Event::Packet {
                side: Side::Downstream(port),
                mac,
                packet,
            },
        );
        settle(&mut engine, NOW);
    }
    engine
}

pub fn settle(engine: &mut Engine<'_>, now: Instant) {
    let mut buffer = [0; BUFFER_LENGTH];
    while let Some(action) = engine.poll_action(&mut buffer) {
        engine.done(now, &action, true);
    }
}

pub fn mac(number: u16) -> MacAddress {
    let [high, low] = number.to_be_bytes();
    MacAddress([2, 0, 0, 0, high, low])
}

pub fn address(number: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 1, number)
}

pub fn solicitation(source: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let mac = (!source.is_unspecified()).then_some(mac(0));
    solicitation_by(source, target, mac)
}

fn known_host(number: u16) -> Vec<u8> {
    solicitation(address(number), ROUTER)
}

fn new_host(number: u16) -> Vec<u8> {
    solicitation(address(0x8000 + number), ROUTER)
}

fn duplicate_address_detection(number: u16) -> Vec<u8> {
    solicitation(Ipv6Addr::UNSPECIFIED, address(number))
}

fn unsolicited(number: u16) -> Vec<u8> {
    advertisement(number, ALL_NODES, false)
}

pub fn advertisement(number: u16, destination: Ipv6Addr, solicited: bool) -> Vec<u8> {
    emitted(|buffer| {
        let advertisement = NeighborAdvertisement {
            source: address(number),
            destination,
            target: address(number),
            router: false,
            solicited,
            override_flag: true,
            target_link_layer: Some(mac(number)),
        };
        advertisement.emit(buffer)
    })
}

fn report(number: u16) -> Vec<u8> {
    let record = |record| {
        let group = SolicitedNode::of(address(0x4000 + number * RECORDS + record));
        (RecordType::ModeIsExclude, group.group())
    };
    let records: Vec<_> = (0..RECORDS).map(record).collect();
    packets::report(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 1, number), &records)
}

fn query(_: u16) -> Vec<u8> {
    packets::query(ROUTER, Ipv6Addr::UNSPECIFIED, packets::v2(2, 125))
}

fn nothing(_: u16) -> Vec<u8> {
    Vec::new()
}

/// A solicitation with a wrong checksum, which the parser checks late.
fn junk(number: u16) -> Vec<u8> {
    let mut packet = known_host(number);
    packet[42] ^= 0xff;
    packet
}
