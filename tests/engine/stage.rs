//! An engine, and a kernel that is only its tables, in stepped time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;

use protocol::config::Config;
use protocol::counters::Counter;
use protocol::engine::{Action, BUFFER_LENGTH, Engine, Event, Tables};
use protocol::link::Link;
use protocol::link::{Port, Side};
use protocol::ndp::kernel_entries::{Change, KernelTable};
use protocol::ndp::neighbors::Subject;
use protocol::time::{Duration, Instant};
use protocol::wire::{
    ALL_NODES, MacAddress, Message, NeighborAdvertisement, NeighborSolicitation, QueryVersion,
    RecordType, ReportBuilder, SolicitedNode, parse,
};
use protocol::{mld, ndp};

pub const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
/// This router, as hosts downstream know it.
pub const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xff);
pub const GATEWAY: MacAddress = MacAddress([2, 0, 0, 0, 0xaa, 0]);
pub const HOST: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
pub const UPSTREAM: Link = Link {
    index: 7,
    link_local: Some(LINK_LOCAL),
    mtu: 1500,
    mac: UPSTREAM_MAC,
};
pub const UPSTREAM_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0xfe, 0]);

pub fn downstream_link(port: Port) -> Link {
    Link {
        index: 8 + u32::from(port),
        link_local: Some(ROUTER),
        mtu: 1500,
        mac: downstream_mac(port),
    }
}

/// An engine, and a kernel that is only its tables.
pub struct Stage {
    pub engine: Engine<'static>,
    pub now: Instant,
    pub joined: BTreeSet<Ipv6Addr>,
    /// The groups of each report sent, and when.
    pub reports: Vec<(u64, Vec<Ipv6Addr>)>,
    /// Each record of each report, and each Done, and when, in milliseconds.
    pub said: Vec<(u64, String)>,
    /// Questions to hosts, `?` and the link-local address, `!` and the target of a probe, or `*` and that of a resolution, and when.
    pub questions: Vec<(u64, String)>,
    /// Joins and leaves, as they were carried out.
    pub changes: Vec<String>,
    /// The addresses that the kernel answers for upstream, and its routes.
    pub proxied: BTreeSet<Ipv6Addr>,
    pub routes: BTreeMap<Ipv6Addr, Side>,
    /// Neighbor Solicitations for targets elsewhere, and Neighbor Advertisements: where, what, and to whom.
    pub sent: Vec<String>,
    /// Is an action to fail?
    pub fails: fn(&Action) -> bool,
}

impl Stage {
    /// An engine that asks nobody and takes in all at once.
    pub fn new() -> Self {
        let mut stage = Stage::without_upstream();
        stage.upstream(Some(UPSTREAM));
        stage
    }

    pub fn without_upstream() -> Self {
        Stage::configured(|config| {
            config.ask = false;
            config.probe = false;
            config.join_rate = 1_000_000;
            config.join_burst = 1_000_000;
            config.per_mac = u16::MAX;
        })
    }

    /// An engine with the defaults.
    pub fn with_defaults() -> Self {
        Stage::with(|_| {})
    }

    pub fn with(configure: impl FnOnce(&mut Config)) -> Self {
        let mut stage = Stage::configured(configure);
        stage.upstream(Some(UPSTREAM));
        for port in [0, 1] {
            let downstream = downstream_link(port);
            stage.handle(Event::Link(Side::Downstream(port), Some(downstream)));
        }
        stage
    }

    fn configured(configure: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::new("wan".parse().unwrap());
        for downstream in ["br-lan", "guest"] {
            config
                .downstreams
                .push(downstream.parse().unwrap())
                .unwrap();
        }
        configure(&mut config);
        config.check().unwrap();
        let tables = Box::leak(Box::new(const { Tables::new() }));
        let engine = Engine::new(tables, config, [42; 16]);
        Stage {
            engine,
            now: Instant::from_secs(1_000),
            joined: BTreeSet::new(),
            reports: Vec::new(),
            said: Vec::new(),
            questions: Vec::new(),
            changes: Vec::new(),
            proxied: BTreeSet::new(),
            routes: BTreeMap::new(),
            sent: Vec::new(),
            fails: |_| false,
        }
    }

    pub fn handle(&mut self, event: Event<'_>) {
        self.engine.handle(self.now, event);
        self.drain();
    }

    pub fn upstream(&mut self, upstream: Option<Link>) {
        self.handle(Event::Link(Side::Upstream, upstream));
    }

    /// A host solicits the router from an address.
    pub fn seen(&mut self, address: Ipv6Addr) {
        let target = LINK_LOCAL;
        self.receive(&solicitation(
            address,
            SolicitedNode::of(target).group(),
            target,
        ));
    }

    pub fn receive(&mut self, packet: &[u8]) {
        self.receive_from(HOST, packet);
    }

    pub fn receive_from(&mut self, mac: MacAddress, packet: &[u8]) {
        self.receive_on(0, mac, packet);
    }

    pub fn receive_on(&mut self, port: Port, mac: MacAddress, packet: &[u8]) {
        self.handle(Event::Packet {
            side: Side::Downstream(port),
            mac,
            packet,
        });
    }

    pub fn drain(&mut self) {
        let mut buffer = [0; BUFFER_LENGTH];
        for actions in 0.. {
            assert!(actions < 20_000, "actions never end");
            let Some(action) = self.engine.poll_action(&mut buffer) else {
                break;
            };
            assert_eq!(
                self.engine.poll_action(&mut buffer),
                Some(action),
                "until it is done"
            );
            // A question to a downstream on which nothing can be sent is an empty packet.
            let fails = (self.fails)(&action)
                || matches!(action, Action::Ndp(ndp::Action::Ask { length: 0, .. }));
            match action {
                _ if fails => {}
                Action::Ndp(ndp::Action::Join(change)) => {
                    assert!(self.joined.insert(change.group.group()), "joined twice");
                    self.changes
                        .push(format!("+{} {}", change.group, change.address));
                }
                Action::Ndp(ndp::Action::Leave(change)) => {
                    assert!(self.joined.remove(&change.group.group()), "left twice");
                    self.changes
                        .push(format!("-{} {}", change.group, change.address));
                }
                Action::Mld(mld::Action::Report { length, .. }) => self.report(&buffer[..length]),
                Action::Ndp(ndp::Action::Ask { length, .. }) => {
                    let question = match parse(&buffer[..length]) {
                        Ok(Message::Query(query)) => {
                            assert_eq!(
                                (query.source, query.group),
                                (ROUTER, Ipv6Addr::UNSPECIFIED)
                            );
                            // As RFC 3810 §5.1.7, §9.1 and §9.3 want it.
                            let QueryVersion::V2 {
                                suppress_router_processing,
                                robustness,
                                query_interval,
                                ..
                            } = query.version
                            else {
                                panic!("not MLDv2");
                            };
                            assert!(suppress_router_processing && robustness > 1);
                            assert!(query.max_response_delay < query_interval);
                            format!("?{}", query.destination)
                        }
                        Ok(Message::NeighborSolicitation(solicitation)) => {
                            let target = solicitation.target;
                            assert_eq!(solicitation.source, ROUTER);
                            assert!(solicitation.source_link_layer.is_some());
                            if solicitation.destination == target {
                                format!("!{target}")
                            } else {
                                let group = SolicitedNode::of(target).group();
                                assert_eq!(solicitation.destination, group);
                                format!("*{target}")
                            }
                        }
                        other => panic!("not a question: {other:?}"),
                    };
                    self.questions.push((self.now.as_millis(), question));
                }
                Action::Ndp(ndp::Action::Kernel(change)) => self.change(&change),
                // Nothing can be sent there.
                Action::Ndp(
                    ndp::Action::Solicit { length: 0, .. }
                    | ndp::Action::Advertise { length: 0, .. },
                ) => {}
                Action::Ndp(ndp::Action::Solicit {
                    length,
                    side,
                    group,
                    target,
                }) => {
                    let Ok(Message::NeighborSolicitation(sent)) = parse(&buffer[..length]) else {
                        panic!("not a solicitation");
                    };
                    assert_eq!((sent.destination, sent.target), (group, target));
                    assert_eq!(group, SolicitedNode::of(target).group());
                    let (source, mac) = source_on(side);
                    assert_eq!((sent.source, sent.source_link_layer), (source, Some(mac)));
                    self.sent.push(format!("{}?{target}", name_of(side)));
                }
                Action::Ndp(ndp::Action::Advertise {
                    length,
                    side,
                    destination,
                    mac,
                    target,
                }) => {
                    let Ok(Message::NeighborAdvertisement(sent)) = parse(&buffer[..length]) else {
                        panic!("not an advertisement");
                    };
                    let (source, own_mac) = source_on(side);
                    assert_eq!(
                        (sent.source, sent.target_link_layer),
                        (source, Some(own_mac))
                    );
                    assert_eq!((sent.destination, sent.target), (destination, target));
                    assert!(sent.router && !sent.override_flag);
                    assert_eq!(sent.solicited, mac.is_some());
                    self.sent
                        .push(format!("{}!{target} to {destination}", name_of(side)));
                }
            }
            self.engine.done(self.now, &action, !fails);
        }
    }

    /// All records of a report are of one kind: those of a refresh, or of joins, or of leaves.
    fn report(&mut self, packet: &[u8]) {
        let now = self.now.as_millis();
        let mut say = |what, group| self.said.push((now, format!("{what} {group}")));
        let groups = match parse(packet) {
            Ok(Message::ReportV2(report)) => {
                assert_eq!(report.source, LINK_LOCAL);
                let mut refreshed = Vec::new();
                for record in report.records {
                    match record.record_type {
                        RecordType::ModeIsExclude => refreshed.push(record.group),
                        RecordType::ChangeToExclude => say("TO_EX", record.group),
                        RecordType::ChangeToInclude => say("TO_IN", record.group),
                        other => panic!("{other:?}"),
                    }
                    assert_eq!(record.sources.count(), 0);
                }
                refreshed
            }
            Ok(Message::ReportV1(report)) => {
                say("report", report.group);
                vec![report.group]
            }
            Ok(Message::Done(done)) => {
                say("done", done.group);
                return;
            }
            other => panic!("not a report: {other:?}"),
        };
        if !groups.is_empty() {
            self.reports.push((now / 1000, groups));
        }
    }

    fn change(&mut self, change: &Change) {
        let address = change.address;
        let right = match (change.table, change.present) {
            (KernelTable::Proxies, true) => self.proxied.insert(address),
            (KernelTable::Proxies, false) => self.proxied.remove(&address),
            (KernelTable::Routes, true) => self.routes.insert(address, change.side).is_none(),
            (KernelTable::Routes, false) => self.routes.remove(&address) == Some(change.side),
        };
        assert!(right, "there already, or gone: {change:?}");
    }

    /// What was sent since the last call.
    pub fn sent(&mut self) -> Vec<String> {
        std::mem::take(&mut self.sent)
    }

    /// Lets time pass, and handles each deadline on its way.
    pub fn pass(&mut self, seconds: u64) {
        let end = self.now.saturating_add(Duration::from_secs(seconds));
        while let Some((deadline, _)) = self.engine.next_deadline().filter(|(at, _)| *at <= end) {
            assert!(deadline >= self.now, "a deadline in the past");
            self.now = deadline;
            self.engine.handle_timeout(self.now);
            self.drain();
            let next = self.engine.next_deadline();
            assert!(
                next.is_none_or(|(next, _)| next > deadline),
                "a deadline that stays"
            );
        }
        self.now = end;
    }

    /// The addresses known.
    pub fn addresses(&self) -> BTreeSet<Ipv6Addr> {
        let subjects = self.engine.ndp().neighbors().iter();
        let address = |subject| match subject {
            Subject::Address(address) => Some(address),
            Subject::Listener(..) => None,
        };
        subjects
            .filter_map(|(subject, _)| address(subject))
            .collect()
    }

    pub fn count(&self, counter: Counter) -> u64 {
        self.engine.counters().get(counter)
    }
}

/// What the router sends from.
fn source_on(side: Side) -> (Ipv6Addr, MacAddress) {
    match side {
        Side::Upstream => (LINK_LOCAL, UPSTREAM_MAC),
        Side::Downstream(port) => (ROUTER, downstream_mac(port)),
    }
}

fn name_of(side: Side) -> String {
    match side {
        Side::Upstream => "wan ".to_owned(),
        Side::Downstream(port) => format!("lan{port} "),
    }
}

fn downstream_mac(port: Port) -> MacAddress {
    MacAddress([2, 0, 0, 0, 0xff, port])
}

pub fn solicitation(source: Ipv6Addr, destination: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let mut packet = vec![0; 128];
    let solicitation = NeighborSolicitation {
        source,
        destination,
        target,
        source_link_layer: None,
    };
    let length = solicitation.emit(&mut packet).unwrap();
    packet.truncate(length);
    packet
}

/// The `number`th address of one prefix, each with a group of its own.
pub fn address(number: u32) -> Ipv6Addr {
    Ipv6Addr::from_bits(0x2001_0db8_0001_0000_0000_0000_0100_0000 | u128::from(number))
}

/// An address with the same group as `address(number)`.
pub fn twin(number: u32) -> Ipv6Addr {
    Ipv6Addr::from_bits(address(number).to_bits() | 1 << 40)
}

pub fn group(number: u32) -> Ipv6Addr {
    SolicitedNode::of(address(number)).group()
}

pub fn advertisement(source: Ipv6Addr, destination: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let mut packet = vec![0; 128];
    let advertisement = NeighborAdvertisement {
        source,
        destination,
        target,
        router: false,
        solicited: destination != ALL_NODES,
        override_flag: true,
        target_link_layer: None,
    };
    let length = advertisement.emit(&mut packet).unwrap();
    packet.truncate(length);
    packet
}

/// An MLDv2 report of a host.
pub fn report(source: Ipv6Addr, records: &[(RecordType, Ipv6Addr)]) -> Vec<u8> {
    let mut packet = vec![0; 1500];
    let mut report = ReportBuilder::new(&mut packet);
    for (record_type, group) in records {
        assert!(report.push(*record_type, *group));
    }
    let length = report.finish(source).unwrap();
    packet.truncate(length);
    packet
}
