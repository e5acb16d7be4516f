//! The instructions that the engine takes for what listeners of streams report: a row for each.
//!
//! Each row prepares an engine that knows so many groups, and then handles [`FRAMES`] reports.

use std::net::Ipv6Addr;

use crate::instructions::{FRAMES, NOW, Setup, engine, mac, settle, take_in};
use model::packets::emitted;
use protocol::engine::{BUFFER_LENGTH, Engine, Event};
use protocol::link::Side;
use protocol::time::Duration;
use protocol::wire::RecordType::{
    AllowNewSources, BlockOldSources, ChangeToExclude, ChangeToInclude, ModeIsExclude,
    ModeIsInclude,
};
use protocol::wire::{RecordType, ReportBuilder, Sources};

/// The name of a report, and the function that handles it in an engine with so many groups.
pub type Row = (&'static str, fn(u16));

pub const ROWS: [Row; 6] = [
    ("report of 20 known streams, any source", |groups| {
        refreshed(groups, Kind::Any);
    }),
    ("report of 20 known streams, one source each", |groups| {
        refreshed(groups, Kind::Specific);
    }),
    ("a join, any source", |groups| joined(groups, Kind::Any)),
    ("a join of one source", |groups| {
        joined(groups, Kind::Specific);
    }),
    ("a leave, any source", |groups| left(groups, Kind::Any)),
    ("a leave of one source", |groups| {
        left(groups, Kind::Specific);
    }),
];

/// The numbers of known groups.
pub const GROUPS: [u16; 2] = [16, 1024];
/// The streams of a report that refreshes.
const STREAMS: u16 = 20;
const SOURCE: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x10);

#[derive(Clone, Copy)]
enum Kind {
    /// Any source of a group.
    Any,
    /// One source of a source-specific group (RFC 4607).
    Specific,
}

impl Kind {
    fn group(self, number: u16) -> Ipv6Addr {
        let first = match self {
            Kind::Any => 0xff0e,
            Kind::Specific => 0xff3e,
        };
        Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0x4000, number)
    }

    fn sources(self) -> &'static [Ipv6Addr] {
        match self {
            Kind::Any => &[],
            Kind::Specific => &[SOURCE],
        }
    }

    /// A report of a host about the groups with these numbers.
    fn report(self, host: u16, [any, specific]: [RecordType; 2], numbers: &[u16]) -> Vec<u8> {
        let record_type = match self {
            Kind::Any => any,
            Kind::Specific => specific,
        };
        emitted(|buffer| {
            let mut octets = [0; 16];
            let sources = Sources::write(self.sources().iter().copied(), &mut octets);
            let mut report = ReportBuilder::new(buffer);
            for number in numbers {
                let pushed = report.push_with(record_type, self.group(*number), sources);
                assert!(pushed, "there is room");
            }
            report.finish(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 1, host))
        })
    }
}

/// A host reports streams that the router knows it listens to, as it answers a query.
fn refreshed(groups: u16, kind: Kind) {
    let groups = groups.max(FRAMES * STREAMS);
    let mut engine = with_groups(groups, kind);
    for host in 0..FRAMES {
        let numbers: Vec<_> = (host * STREAMS..(host + 1) * STREAMS).collect();
        let report = kind.report(host, [ModeIsExclude, ModeIsInclude], &numbers);
        measure(&mut engine, host, &report);
    }
}

fn joined(groups: u16, kind: Kind) {
    let mut engine = with_groups(groups, kind);
    for host in 0..FRAMES {
        let types = [ChangeToExclude, AllowNewSources];
        measure(
            &mut engine,
            host,
            &kind.report(host, types, &[groups + host]),
        );
    }
    assert_eq!(known(&engine), usize::from(groups + FRAMES));
}

/// The last listener of a group leaves it, for which the router has to query.
fn left(groups: u16, kind: Kind) {
    let mut engine = with_groups(groups, kind);
    for host in 0..FRAMES {
        let types = [ChangeToInclude, BlockOldSources];
        measure(&mut engine, host, &kind.report(host, types, &[host]));
    }
}

/// Handles a host's report, and then carries out what follows.
fn measure(engine: &mut Engine<'_>, host: u16, report: &[u8]) {
    let now = NOW.saturating_add(Duration::from_secs(u64::from(host) + 1));
    take_in(engine, now, mac(host), report, &mut [0; BUFFER_LENGTH]);
    settle(engine, now);
}

/// An engine whose hosts listen to so many groups, 10 each, and that has no action left for them.
fn with_groups(groups: u16, kind: Kind) -> Engine<'static> {
    let mut engine = engine(0, Setup::Streams);
    for side in [Side::Upstream, Side::Downstream(0)] {
        let present = true;
        engine.handle(NOW, Event::Forwarding { side, present });
        settle(&mut engine, NOW);
    }
    let numbers: Vec<_> = (0..groups).collect();
    for (host, numbers) in (0..).zip(numbers.chunks(10)) {
        let report = kind.report(host, [ChangeToExclude, AllowNewSources], numbers);
        let event = Event::Packet {
            side: Side::Downstream(0),
            mac: mac(host),
            packet: &report,
        };
        engine.handle(NOW, event);
        settle(&mut engine, NOW);
    }
    assert_eq!(known(&engine), usize::from(groups));
    engine
}

fn known(engine: &Engine<'_>) -> usize {
    engine.mld().streams().members().len()
}
