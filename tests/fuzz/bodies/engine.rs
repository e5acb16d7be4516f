//! Any sequence of events and failures in stepped time.

use std::net::Ipv6Addr;

use model::packets::{advertisement, heard, solicitation};
use model::{TABLES, storage};
use protocol::engine::{Event, Tables};
use protocol::link::{Port, Prefix, Side};
use protocol::mld::proxy::Counts;
use protocol::ndp::kernel_entries::{KernelTable, Listing};
use protocol::time::Duration;
use protocol::wire::{
    ALL_NODES, Done, MacAddress, NeighborAdvertisement, NeighborSolicitation, Query, QueryVersion,
    RecordType, ReportBuilder, ReportV1, SolicitedNode, Sources,
};

use super::bytes::Bytes;
use super::frame::mend;
use super::owner::{ADDRESS, MAC};
use super::world::{World, config, downstream, upstream};

/// With so many strangers the table is full, and some neighbors give way. That takes long, so few
/// inputs do it.
const MANY: usize = 4300;
const FEW: usize = 200;

pub fn run(data: &[u8]) {
    let mut bytes = Bytes(data);
    storage::lend(|tables| {
        let mut stage = Stage::new(tables, &mut bytes);
        while !bytes.is_empty() && !stage.world.is_tired() {
            stage.step(&mut bytes);
        }
        stage.world.finish();
    });
}

pub struct Stage<'t> {
    pub world: World<'t>,
    /// What the kernel has still to tell of the listing under way.
    listing: Vec<(KernelTable, Listing)>,
    /// The strangers that came, and those that may come.
    strangers: usize,
    most: usize,
}

impl<'t> Stage<'t> {
    pub fn new(tables: &'t mut Tables, bytes: &mut Bytes<'_>) -> Self {
        let seed = bytes.octet();
        let mut world = World::new(tables, config(bytes, seed), seed);
        if seed & 1 == 0 {
            world.handle(Event::Link(Side::Upstream, Some(upstream(&mut Bytes(&[])))));
            let ports = world.engine.config().downstreams.len();
            for port in 0..ports {
                let downstream = downstream(&mut Bytes(&[0xfe, 15]));
                world.handle(Event::Link(
                    Side::Downstream(port as Port),
                    Some(downstream),
                ));
            }
            for side in world.sides() {
                let present = true;
                world.handle(Event::Forwarding { side, present });
            }
        }
        Stage {
            world,
            listing: Vec::new(),
            strangers: 0,
            most: if seed == u8::MAX { MANY } else { FEW },
        }
    }

    fn port(&self, bytes: &mut Bytes<'_>) -> Port {
        bytes.below(self.world.engine.config().downstreams.len()) as Port
    }

    pub fn step(&mut self, bytes: &mut Bytes<'_>) {
        let mut buffer = [0; 1500];
        match bytes.octet() % 32 {
            0..=13 => {
                let (port, mac) = (self.port(bytes), bytes.mac());
                let packet = packet(bytes, &mut buffer);
                self.world
                    .handle(heard(Side::Downstream(port), mac, packet));
            }
            14..=16 => {
                let mac = bytes.mac();
                let packet = packet(bytes, &mut buffer);
                self.world.handle(heard(Side::Upstream, mac, packet));
            }
            17 => {
                let upstream = bytes.flag().then(|| upstream(bytes));
                self.world.handle(Event::Link(Side::Upstream, upstream));
            }
            18 => {
                let port = self.port(bytes);
                let downstream = bytes.flag().then(|| downstream(bytes));
                self.world
                    .handle(Event::Link(Side::Downstream(port), downstream));
            }
            19 => {
                let (port, mac) = (self.port(bytes), bytes.mac());
                let address = bytes.address();
                let event = Event::Remembered { port, mac, address };
                self.world.handle(event);
            }
            20 => self.world.handle(Event::Forgotten(bytes.address())),
            21 => {
                let (present, address) = (bytes.flag(), bytes.address());
                // One of two interfaces. The remaining length decides, so that this takes no octet.
                let index = 7 + (bytes.0.len() & 1) as u32;
                self.world.handle(Event::Own {
                    prefix_length: if bytes.0.len() & 2 == 0 { 128 } else { 64 },
                    index,
                    address,
                    present,
                });
            }
            22 => match bytes.octet() % 8 {
                0 => self.world.handle(Event::OwnUnknown),
                1 => self.world.handle(Event::OwnKnown),
                2 => {
                    let number = bytes.octet();
                    let sides = self.world.sides();
                    let side = sides[usize::from(number >> 1) % sides.len()];
                    let present = number & 1 != 0;
                    self.world.handle(Event::Forwarding { side, present });
                }
                3 => {
                    let (group, source) = (stream_group(bytes.octet()), stream_source(0));
                    let counts = Counts::default();
                    self.world.handle(Event::Counted {
                        source,
                        group,
                        counts,
                    });
                }
                6 => self.claim(bytes),
                7 => {
                    let port = self.port(bytes);
                    self.world.admit_owner(port);
                }
                _ => self.world.handle(Event::Renew),
            },
            23 => {
                let mut prefix = || Prefix::of(bytes.address(), 64 + bytes.octet() % 65);
                let prefixes = [prefix(), prefix()].map(|prefix| prefix.expect("a prefix"));
                let prefixes = &prefixes[..bytes.below(3)];
                self.world.handle(Event::UpstreamPrefixes(prefixes));
            }
            24 => self.list(bytes),
            25 => {
                // A link took entries and routes along, and the kernel told nobody.
                let address = bytes.address();
                for table in TABLES {
                    self.world.kernel.lose(table, address);
                }
            }
            26 => {
                // A crash left an entry and a route behind.
                let address = bytes.address();
                let side = Side::Downstream(self.port(bytes));
                self.world.kernel.leave_proxy(address);
                self.world.kernel.leave_route(address, side);
            }
            27 => self.world.fail(bytes.octet()),
            28 if self.world.engine.config().per_mac == u16::MAX => self.flood(bytes),
            28..=29 => {
                let millis = bytes.number();
                self.world.pass(Duration::from_millis(millis.into()));
            }
            30 => {
                let seconds = bytes.octet();
                self.world.pass(Duration::from_secs(seconds.into()));
            }
            _ => self.world.time_out(),
        }
    }

    /// Somebody claims the owner's address, perhaps in its name.
    fn claim(&mut self, bytes: &mut Bytes<'_>) {
        let flags = bytes.octet();
        let side = match flags & 1 {
            0 => Side::Downstream(self.port(bytes)),
            _ => Side::Upstream,
        };
        let mac = if flags & 2 == 0 { MAC } else { bytes.mac() };
        let link = self.world.kernel.link(side);
        let router = link.and_then(|link| link.link_local);
        let router = router.unwrap_or(Ipv6Addr::LOCALHOST);
        let packet = match flags >> 2 & 3 {
            0 => solicitation(ADDRESS, router),
            1 => solicitation(Ipv6Addr::UNSPECIFIED, ADDRESS),
            2 => advertisement(ADDRESS, ALL_NODES, ADDRESS),
            _ => advertisement(ADDRESS, router, ADDRESS),
        };
        self.world.handle(heard(side, mac, &packet));
    }

    /// The kernel lists its tables at once, or other things happen meanwhile.
    fn list(&mut self, bytes: &mut Bytes<'_>) {
        if bytes.flag() && self.listing.is_empty() {
            self.world.list();
            return;
        }
        if self.listing.is_empty() {
            let table = match bytes.flag() {
                true => KernelTable::Proxies,
                false => KernelTable::Routes,
            };
            self.listing.push((table, Listing::Ends));
            for (address, side) in self.world.kernel.listing(table) {
                self.listing.push((table, Listing::Has(address, side)));
            }
            self.listing.push((table, Listing::Begins));
            // Until the listing ends, what it told may be outdated.
            self.world.kernel.doubt_all();
        }
        for _ in 0..=bytes.below(8) {
            if let Some((table, listing)) = self.listing.pop() {
                self.world.handle(Event::Listed(table, listing));
            }
        }
    }

    /// Many strangers come at once.
    fn flood(&mut self, bytes: &mut Bytes<'_>) {
        let many = 1 << bytes.below(13);
        let (port, of_one_host, own) = (self.port(bytes), bytes.flag(), bytes.flag());
        for _ in 0..many {
            if self.strangers >= self.most {
                break;
            }
            self.strangers += 1;
            let number = self.strangers as u32;
            let [_, a, b, c] = number.to_be_bytes();
            let address = Ipv6Addr::from_bits(
                0x2001_0db8_0000_0000 << 64 | 0x8000_0000_0100_0000 | u128::from(number),
            );
            let mac = match of_one_host {
                true => MacAddress([2, 0, 0, 0, 1, 0]),
                false => MacAddress([6, 0, 0, a, b, c]),
            };
            let target = if own {
                "fe80::1".parse().expect("an address")
            } else {
                address
            };
            let source = if own { address } else { Ipv6Addr::UNSPECIFIED };
            let packet = &solicitation(source, target);
            self.world.tell(heard(Side::Downstream(port), mac, packet));
        }
        self.world.tire(many);
        self.world.settle();
    }
}

const STREAM_SOURCES: usize = 6;

/// One of four groups of streams: two for single sources, one for any, and one that stays at home.
fn stream_group(number: u8) -> Ipv6Addr {
    match number & 3 {
        0 => Ipv6Addr::new(0xff3e, 0, 0, 0, 0, 0, 0x8000, 1),
        1 => Ipv6Addr::new(0xff1e, 0, 0, 0, 0, 0, 0, 1),
        2 => Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, 0xfa),
        _ => Ipv6Addr::new(0xff3e, 0, 0, 0, 0, 0, 0x8000, 2),
    }
}

/// A source of streams. The last three may be on a link.
fn stream_source(number: usize) -> Ipv6Addr {
    match number {
        0..=2 => Ipv6Addr::new(0x2001, 0xdb8, 0xfeed, 0, 0, 0, 0, number as u16),
        _ => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number as u16),
    }
}

/// The sources of streams whose bits are set.
fn stream_sources(bits: u8, octets: &mut [u8]) -> Sources<'_> {
    let numbers = (0..STREAM_SOURCES).filter(|number| bits >> number & 1 != 0);
    Sources::write(numbers.map(stream_source), octets)
}

/// Any packet: one that a host, a router or a stranger may send, or raw octets.
fn packet<'b>(bytes: &mut Bytes<'_>, buffer: &'b mut [u8; 1500]) -> &'b [u8] {
    let kind = bytes.octet() % 16;
    let length = match kind {
        // A solicitation of the router, of its group, or of somebody else.
        0..=3 => {
            let (source, target) = (bytes.address(), bytes.address());
            NeighborSolicitation {
                source,
                destination: SolicitedNode::of(target).group(),
                target,
                source_link_layer: None,
            }
            .emit(buffer)
        }
        4 => {
            let target = bytes.address();
            NeighborSolicitation {
                source: Ipv6Addr::UNSPECIFIED,
                destination: SolicitedNode::of(target).group(),
                target,
                source_link_layer: None,
            }
            .emit(buffer)
        }
        5..=7 => {
            let (source, flags) = (bytes.address(), bytes.octet());
            NeighborAdvertisement {
                source,
                destination: bytes.link_local(),
                target: if flags & 1 == 0 {
                    source
                } else {
                    bytes.address()
                },
                router: flags & 2 != 0,
                solicited: flags & 4 == 0,
                override_flag: flags & 8 != 0,
                target_link_layer: (flags & 16 != 0).then(|| bytes.mac()),
            }
            .emit(buffer)
        }
        8..=10 => {
            let source = bytes.link_local();
            let mut report = ReportBuilder::new(buffer);
            for _ in 0..=bytes.below(4) {
                let kind = bytes.octet();
                let record_type = match kind % 8 {
                    0 => RecordType::ModeIsInclude,
                    1 => RecordType::ChangeToInclude,
                    2 => RecordType::BlockOldSources,
                    3 => RecordType::Unknown(7),
                    4 => RecordType::ChangeToExclude,
                    7 if kind > 127 => RecordType::AllowNewSources,
                    _ => RecordType::ModeIsExclude,
                };
                if kind > 127 {
                    let mut octets = [0; 16 * STREAM_SOURCES];
                    let sources = stream_sources(bytes.octet(), &mut octets);
                    let group = stream_group(kind >> 3);
                    assert!(
                        report.push_with(record_type, group, sources),
                        "there is room"
                    );
                    continue;
                }
                let group = SolicitedNode::of(bytes.address()).group();
                assert!(report.push(record_type, group), "there is room");
            }
            report.finish(source)
        }
        11 => {
            let (source, group) = (bytes.link_local(), bytes.address());
            let flags = bytes.octet();
            let group = match flags > 127 {
                true => stream_group(flags >> 3),
                false => SolicitedNode::of(group).group(),
            };
            match flags & 1 != 0 {
                true => ReportV1 { source, group }.emit(buffer),
                false => Done { source, group }.emit(buffer),
            }
        }
        12..=13 => {
            let (source, code) = (bytes.link_local(), bytes.octet());
            let is_specific = code & 0x40 != 0;
            let mut octets = [0; 16 * STREAM_SOURCES];
            let (group, sources) = match is_specific {
                true => {
                    let sources = stream_sources(bytes.octet(), &mut octets);
                    (stream_group(code >> 3), sources)
                }
                false => (Ipv6Addr::UNSPECIFIED, Sources::default()),
            };
            Query {
                source,
                destination: if is_specific { group } else { ALL_NODES },
                group,
                max_response_delay: Duration::from_millis(u64::from(code) << 8),
                version: match kind {
                    12 => QueryVersion::V1,
                    _ => QueryVersion::V2 {
                        suppress_router_processing: code & 1 != 0,
                        robustness: code & 7,
                        query_interval: Duration::from_secs(code.into()),
                        sources,
                    },
                },
            }
            .emit(buffer)
        }
        _ => {
            let length = bytes.octet();
            let octets = bytes.take(length.into());
            buffer[..octets.len()].copy_from_slice(octets);
            if kind == 14 {
                let _ = mend(&mut buffer[..octets.len()]);
            }
            Some(octets.len())
        }
    };
    &buffer[..length.unwrap_or(0)]
}
