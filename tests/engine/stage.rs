//! The model of the engine's tests, which puts what the engine did into words.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;
use std::ops::{Deref, DerefMut};

use model::{Deed, Diligence, Model, storage, view};
use protocol::config::Config;
use protocol::engine::{Action, Event};
use protocol::link::Link;
use protocol::link::{Port, Side};
use protocol::mld::streams;
use protocol::ndp::neighbors::Question;
use protocol::time::{Duration, Instant};
use protocol::wire::{
    Done, MacAddress, Message, QueryVersion, Record, RecordType, ReportV1, SolicitedNode, Sources,
    parse,
};
use protocol::{mld, ndp};

pub use model::packets::{advertisement, heard, report, solicitation};

pub const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
/// The router's link-local address downstream.
pub const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xff);
pub const GATEWAY: MacAddress = MacAddress([2, 0, 0, 0, 0xaa, 0]);
pub const HOST: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
pub const UPSTREAM: Link = Link {
    index: 7,
    link_local: Some(LINK_LOCAL),
    mtu: 1500,
    mac: MacAddress([2, 0, 0, 0, 0xfe, 0]),
};

pub fn downstream_link(port: Port) -> Link {
    Link {
        index: 8 + u32::from(port),
        link_local: Some(ROUTER),
        mtu: 1500,
        mac: MacAddress([2, 0, 0, 0, 0xff, port]),
    }
}

/// The model, with every action since a test last took it away. Actions that failed are left out.
pub struct Stage {
    model: Model<'static>,
    /// The groups of each report sent, with the time in seconds.
    pub reports: Vec<(u64, Vec<Ipv6Addr>)>,
    /// Each record of each report and each Done, with the time in milliseconds.
    pub said: Vec<(u64, String)>,
    /// Questions to hosts, with the time in milliseconds: `?` and the link-local address, `!` and
    /// the target of a probe, or `*` and the target of a resolution.
    pub questions: Vec<(u64, String)>,
    /// The addresses that were solicited on each link, whatever for, with the time in milliseconds.
    pub solicited: Vec<(u64, Side, Ipv6Addr)>,
    /// Joins and leaves, each with its group and the address that it is for.
    pub changes: Vec<String>,
    /// Neighbor Solicitations for targets elsewhere, and Neighbor Advertisements: where, what, and
    /// to whom.
    pub sent: Vec<String>,
    /// Queries downstream and reports upstream that are about streams, with the time in
    /// milliseconds.
    pub streams: Vec<(u64, String)>,
}

impl Deref for Stage {
    type Target = Model<'static>;

    fn deref(&self) -> &Model<'static> {
        &self.model
    }
}

impl DerefMut for Stage {
    fn deref_mut(&mut self) -> &mut Model<'static> {
        &mut self.model
    }
}

impl Stage {
    /// An engine that asks nobody and joins without a limit.
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

    /// An engine with the default settings.
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
        let diligence = match config.mld_proxy {
            Some(_) => Diligence::Always,
            None => Diligence::Entries(16),
        };
        let now = Instant::from_secs(1_000);
        Stage {
            model: Model::new(storage::leak(), config, [42; 16], now, diligence),
            reports: Vec::new(),
            said: Vec::new(),
            questions: Vec::new(),
            solicited: Vec::new(),
            changes: Vec::new(),
            sent: Vec::new(),
            streams: Vec::new(),
        }
    }

    pub fn handle(&mut self, event: Event<'_>) {
        self.model.handle(event);
        self.note();
    }

    /// Carries out all actions.
    pub fn drain(&mut self) {
        self.model.settle();
        self.note();
    }

    /// Tells the engine the time, whether or not anything is due.
    pub fn time_out(&mut self) {
        self.model.time_out();
        self.note();
    }

    /// Lets time pass, and handles each deadline on its way.
    pub fn pass(&mut self, seconds: u64) {
        self.model.pass(Duration::from_secs(seconds));
        self.note();
    }

    pub fn pass_millis(&mut self, millis: u64) {
        self.model.pass(Duration::from_millis(millis));
        self.note();
    }

    /// Lets time pass. These hosts answer each solicitation for an address on their link.
    pub fn pass_with(&mut self, seconds: u64, address: Ipv6Addr, hosts: &[(Port, MacAddress)]) {
        let answer = advertisement(address, ROUTER, address);
        for _ in 0..10 * seconds {
            for (_, side, target) in std::mem::take(&mut self.solicited) {
                for (port, mac) in hosts {
                    if side == Side::Downstream(*port) && target == address {
                        self.receive_on(*port, *mac, &answer);
                    }
                }
            }
            self.pass_millis(100);
        }
    }

    /// A host claims an address and answers for it. Whoever has it is silent.
    pub fn takes_over(&mut self, port: Port, mac: MacAddress, address: Ipv6Addr) {
        self.solicited.clear();
        self.receive_on(port, mac, &solicitation(address, LINK_LOCAL));
        self.pass_with(5, address, &[(port, mac)]);
    }

    pub fn upstream(&mut self, upstream: Option<Link>) {
        self.handle(Event::Link(Side::Upstream, upstream));
    }

    /// A host solicits the router from an address.
    pub fn seen(&mut self, address: Ipv6Addr) {
        self.receive(&solicitation(address, LINK_LOCAL));
    }

    pub fn receive(&mut self, packet: &[u8]) {
        self.receive_from(HOST, packet);
    }

    pub fn receive_from(&mut self, mac: MacAddress, packet: &[u8]) {
        self.receive_on(0, mac, packet);
    }

    pub fn receive_on(&mut self, port: Port, mac: MacAddress, packet: &[u8]) {
        self.handle(heard(Side::Downstream(port), mac, packet));
    }

    /// Puts the model's deeds into words.
    fn note(&mut self) {
        for deed in std::mem::take(&mut self.model.deeds) {
            if deed.succeeded {
                self.put_into_words(&deed);
            }
        }
    }

    fn put_into_words(&mut self, deed: &Deed) {
        let now = deed.at.as_millis();
        match deed.action {
            Action::Mld(mld::Action::Streams(streams::Action::Query { port, .. })) => {
                let words = query_in_words(port, &deed.packet);
                self.streams.push((now, words));
            }
            Action::Mld(mld::Action::Streams(
                streams::Action::Membership(_) | streams::Action::Forward(_),
            )) => {}
            Action::Mld(mld::Action::Report { .. }) => self.note_report(now, &deed.packet),
            Action::Ndp(ndp::Action::Join(change)) => {
                let words = format!("+{} {}", change.group, change.address);
                self.changes.push(words);
            }
            Action::Ndp(ndp::Action::Leave(change)) => {
                let words = format!("-{} {}", change.group, change.address);
                self.changes.push(words);
            }
            Action::Ndp(ndp::Action::Ask { question, .. }) => {
                if let Question::Probe { port, target, .. }
                | Question::Resolve { port, target, .. } = question
                {
                    let solicited = (now, Side::Downstream(port), target);
                    self.solicited.push(solicited);
                }
                let words = match question {
                    Question::Ask { link_local, .. } => format!("?{link_local}"),
                    Question::Probe { target, .. } => format!("!{target}"),
                    Question::Resolve { target, .. } => format!("*{target}"),
                    Question::Query { group, .. } => format!("*{group}"),
                };
                self.questions.push((now, words));
            }
            Action::Ndp(ndp::Action::Kernel(_)) => {}
            Action::Ndp(ndp::Action::Solicit {
                side, target, mac, ..
            }) => {
                self.solicited.push((now, side, target));
                let how = if mac.is_some() { "!?" } else { "?" };
                self.sent.push(format!("{}{how}{target}", name_of(side)));
            }
            Action::Ndp(ndp::Action::Advertise {
                side,
                destination,
                target,
                ..
            }) => {
                let words = format!("{}!{target} to {destination}", name_of(side));
                self.sent.push(words);
            }
        }
    }

    fn note_report(&mut self, now: u64, packet: &[u8]) {
        let streams = &mut self.streams;
        let mut say = |what, group| self.said.push((now, format!("{what} {group}")));
        let groups: Vec<_> = match parse(packet) {
            Ok(Message::ReportV2(report)) => {
                let mut refreshed = Vec::new();
                for record in report.records {
                    if SolicitedNode::from_group(record.group).is_none() {
                        streams.push((now, record_in_words(&record)));
                        continue;
                    }
                    match record.record_type {
                        RecordType::ModeIsExclude => refreshed.push(record.group),
                        RecordType::ChangeToExclude => say("TO_EX", record.group),
                        RecordType::ChangeToInclude => say("TO_IN", record.group),
                        other => panic!("{other:?}"),
                    }
                }
                refreshed
            }
            Ok(Message::ReportV1(ReportV1 { group, .. }))
                if SolicitedNode::from_group(group).is_none() =>
            {
                return streams.push((now, format!("report {group}")));
            }
            Ok(Message::Done(Done { group, .. })) if SolicitedNode::from_group(group).is_none() => {
                return streams.push((now, format!("done {group}")));
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

    /// The packets sent since the last call.
    pub fn sent(&mut self) -> Vec<String> {
        std::mem::take(&mut self.sent)
    }

    /// Has the host of `address(number)` answered a question for it?
    pub fn is_confirmed(&self, number: u32) -> bool {
        view::is_confirmed(&self.engine, address(number))
    }

    /// All addresses that the engine knows.
    pub fn addresses(&self) -> BTreeSet<Ipv6Addr> {
        view::addresses(&self.engine).collect()
    }
}

/// The name of a record's type, the group, and the sources' last numbers.
fn record_in_words(record: &Record<'_>) -> String {
    let name = match record.record_type {
        RecordType::ModeIsInclude => "IS_IN",
        RecordType::ModeIsExclude => "IS_EX",
        RecordType::ChangeToInclude => "TO_IN",
        RecordType::ChangeToExclude => "TO_EX",
        RecordType::AllowNewSources => "ALLOW",
        RecordType::BlockOldSources => "BLOCK",
        RecordType::Unknown(_) => panic!("{:?}", record.record_type),
    };
    format!(
        "{name} {} {}",
        record.group,
        sources_in_words(record.sources)
    )
}

/// `?`, the group, the sources' last numbers, and the S flag; or `general` and the response delay in
/// milliseconds.
fn query_in_words(port: Port, packet: &[u8]) -> String {
    let Ok(Message::Query(query)) = parse(packet) else {
        panic!("not a query");
    };
    let (flag, sources, version) = match query.version {
        QueryVersion::V1 => (false, Sources::default(), " v1"),
        QueryVersion::V2 {
            suppress_router_processing,
            sources,
            ..
        } => (suppress_router_processing, sources, ""),
    };
    if query.group.is_unspecified() {
        let delay = query.max_response_delay.as_millis();
        return format!("lan{port} general {delay}{version}");
    }
    let flag = if flag { " S" } else { "" };
    let sources = sources_in_words(sources);
    format!("lan{port} ?{} {sources}{flag}{version}", query.group)
}

fn sources_in_words(sources: Sources<'_>) -> String {
    let mut numbers: Vec<_> = sources.iter().map(|source| source.segments()[7]).collect();
    numbers.sort_unstable();
    let numbers: Vec<_> = numbers.iter().map(|number| format!("{number:x}")).collect();
    format!("{{{}}}", numbers.join(" "))
}

fn name_of(side: Side) -> String {
    match side {
        Side::Upstream => "wan ".to_owned(),
        Side::Downstream(port) => format!("lan{port} "),
    }
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
