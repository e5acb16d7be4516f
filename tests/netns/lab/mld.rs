//! MLD by hand: a host or router that says what a test wants, and what passes on a link.

use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use protocol::wire::{
    ALL_MLDV2_ROUTERS, ALL_NODES, ALL_ROUTERS, DropReason, Message, QueryVersion, RecordType, parse,
};

use super::options::set_option;
use super::{Frame, Namespace, Tap, group_mac};

const TYPE_QUERY: u8 = 130;
const TYPE_REPORT_V1: u8 = 131;
const TYPE_DONE: u8 = 132;
const TYPE_REPORT_V2: u8 = 143;
/// Next header ICMPv6, Router Alert for MLD (RFC 2711 §2.1), PadN of 2 octets.
const HOP_BY_HOP: [u8; 8] = [58, 0, 5, 2, 0, 0, 1, 0];

/// A multicast address record of a report (RFC 3810 §5.2.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub kind: RecordType,
    pub group: Ipv6Addr,
    pub sources: Vec<Ipv6Addr>,
}

impl Record {
    pub fn new(kind: RecordType, group: Ipv6Addr, sources: &[Ipv6Addr]) -> Self {
        let sources = sources.to_vec();
        Record {
            kind,
            group,
            sources,
        }
    }

    fn octets(&self) -> Vec<u8> {
        let [high, low] = (self.sources.len() as u16).to_be_bytes();
        let mut octets = vec![self.kind.into(), 0, high, low];
        octets.extend(self.group.octets());
        octets.extend(self.sources.iter().flat_map(Ipv6Addr::octets));
        octets
    }
}

/// A query (RFC 3810 §5.1, RFC 2710 §3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuerySaid {
    /// `::` in a General Query.
    pub group: Ipv6Addr,
    pub sources: Vec<Ipv6Addr>,
    pub max_response_delay: Duration,
    pub version: u8,
    /// The S flag; false in MLDv1.
    pub suppress: bool,
    /// 0 in MLDv1.
    pub robustness: u8,
    pub query_interval: Duration,
}

impl QuerySaid {
    /// A General Query of MLDv2 with this query interval, which is answered within 100 ms.
    pub fn general(query_interval: Duration) -> Self {
        QuerySaid {
            group: Ipv6Addr::UNSPECIFIED,
            sources: Vec::new(),
            max_response_delay: Duration::from_millis(100),
            version: 2,
            suppress: false,
            robustness: 2,
            query_interval,
        }
    }

    pub fn is_general(&self) -> bool {
        self.group.is_unspecified()
    }

    /// Response delays up to 32 s, and query intervals up to 127 s, need no exponent.
    fn octets(&self) -> Vec<u8> {
        let delay = self.max_response_delay.as_millis() as u16;
        let mut octets = [&delay.to_be_bytes()[..], &[0, 0]].concat();
        octets.extend(self.group.octets());
        if self.version == 2 {
            let flags = u8::from(self.suppress) << 3 | self.robustness;
            octets.extend([flags, self.query_interval.as_secs() as u8]);
            octets.extend((self.sources.len() as u16).to_be_bytes());
            octets.extend(self.sources.iter().flat_map(Ipv6Addr::octets));
        }
        octets
    }
}

/// A node on a link that speaks MLD as a test wants, from any address. Its own kernel knows nothing
/// of what it says, and so neither repeats it nor answers for it.
pub struct Speaker {
    tap: Tap,
    pub mac: [u8; 6],
    pub source: Ipv6Addr,
    pub traffic_class: u8,
}

impl Speaker {
    /// A node with the link-layer address of the interface.
    #[track_caller]
    pub fn new(namespace: &Namespace, interface: &str, source: Ipv6Addr) -> Self {
        let tap = Tap::open(namespace, interface);
        Speaker {
            mac: tap.mac(),
            tap,
            source,
            traffic_class: 0,
        }
    }

    /// Reports records in MLDv2, in one packet.
    #[track_caller]
    pub fn report(&self, records: &[Record]) {
        let count = (records.len() as u16).to_be_bytes();
        let body = [&[0, 0][..], &count].concat();
        let records = records.iter().flat_map(Record::octets);
        let body: Vec<u8> = body.into_iter().chain(records).collect();
        self.say(ALL_MLDV2_ROUTERS, TYPE_REPORT_V2, &body);
    }

    /// Reports one record in MLDv2.
    #[track_caller]
    pub fn reports(&self, kind: RecordType, group: Ipv6Addr, sources: &[Ipv6Addr]) {
        self.report(&[Record::new(kind, group, sources)]);
    }

    #[track_caller]
    pub fn reports_in_v1(&self, group: Ipv6Addr) {
        let body = [&[0; 4][..], &group.octets()].concat();
        self.say(group, TYPE_REPORT_V1, &body);
    }

    #[track_caller]
    pub fn is_done_with(&self, group: Ipv6Addr) {
        let body = [&[0; 4][..], &group.octets()].concat();
        self.say(ALL_ROUTERS, TYPE_DONE, &body);
    }

    /// Sends a query, a General Query to all nodes and another to its group.
    #[track_caller]
    pub fn queries(&self, query: &QuerySaid) {
        let destination = if query.is_general() {
            ALL_NODES
        } else {
            query.group
        };
        self.say(destination, TYPE_QUERY, &query.octets());
    }

    /// Sends an MLD message whose ICMPv6 has this type, and this body behind the checksum.
    #[track_caller]
    fn say(&self, destination: Ipv6Addr, kind: u8, body: &[u8]) {
        let mut icmpv6 = [&[kind, 0, 0, 0], body].concat();
        let sum = checksum(self.source, destination, 58, &icmpv6);
        icmpv6[2..4].copy_from_slice(&sum.to_be_bytes());
        let length = (HOP_BY_HOP.len() + icmpv6.len()) as u16;
        let [class_high, class_low] = [self.traffic_class >> 4, self.traffic_class << 4];
        let mut packet = vec![0x60 | class_high, class_low, 0, 0];
        packet.extend(length.to_be_bytes());
        packet.extend([0, 1]);
        packet.extend(self.source.octets());
        packet.extend(destination.octets());
        packet.extend(HOP_BY_HOP);
        packet.extend(icmpv6);
        self.tap.send(&Frame {
            source: self.mac,
            destination: group_mac(destination),
            packet,
        });
    }
}

/// The checksum of an upper-layer packet, whose own field for it is 0 (RFC 8200 §8.1).
pub(super) fn checksum(source: Ipv6Addr, destination: Ipv6Addr, kind: u8, payload: &[u8]) -> u16 {
    let pseudo_header = [
        &source.octets()[..],
        &destination.octets(),
        &(payload.len() as u32).to_be_bytes(),
        &[0, 0, 0, kind],
    ]
    .concat();
    let words = pseudo_header.chunks(2).chain(payload.chunks(2));
    let word = |word: &[u8]| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0));
    let mut sum: u32 = words.map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    // UDP has no checksum of 0.
    match !(sum as u16) {
        0 => 0xffff,
        sum => sum,
    }
}

/// An MLD message that passed on a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    pub mac: [u8; 6],
    pub source: Ipv6Addr,
    pub destination: Ipv6Addr,
    pub hop_limit: u8,
    pub traffic_class: u8,
    pub what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    Query(QuerySaid),
    Report(Vec<Record>),
    ReportV1(Ipv6Addr),
    Done(Ipv6Addr),
    /// A message of this type that a receiver drops.
    Invalid(u8, DropReason),
}

impl Said {
    /// `None` if the packet carries no MLD. MLD without Router Alert, the only kind without a
    /// Hop-by-Hop header, is MLD.
    fn parse(frame: &Frame) -> Option<Self> {
        let packet = &frame.packet;
        let (header, payload) = packet.split_first_chunk::<40>()?;
        let kind = match header[6] {
            0 if *payload.first()? == 58 => {
                *payload.get(8 * (1 + usize::from(*payload.get(1)?)))?
            }
            58 => *payload.first()?,
            _ => return None,
        };
        if !matches!(kind, TYPE_QUERY..=TYPE_DONE | TYPE_REPORT_V2) {
            return None;
        }
        let what = match parse(packet) {
            Ok(Message::Query(query)) => {
                let max_response_delay =
                    Duration::from_millis(query.max_response_delay.as_millis());
                let group = query.group;
                What::Query(match query.version {
                    QueryVersion::V1 => QuerySaid {
                        group,
                        sources: Vec::new(),
                        max_response_delay,
                        version: 1,
                        suppress: false,
                        robustness: 0,
                        query_interval: Duration::ZERO,
                    },
                    QueryVersion::V2 {
                        suppress_router_processing,
                        robustness,
                        query_interval,
                        sources,
                    } => QuerySaid {
                        group,
                        sources: sources.iter().collect(),
                        max_response_delay,
                        version: 2,
                        suppress: suppress_router_processing,
                        robustness,
                        query_interval: Duration::from_secs(query_interval.as_secs()),
                    },
                })
            }
            Ok(Message::ReportV2(report)) => {
                let records = report.records.map(|record| {
                    let sources: Vec<_> = record.sources.iter().collect();
                    Record::new(record.record_type, record.group, &sources)
                });
                What::Report(records.collect())
            }
            Ok(Message::ReportV1(report)) => What::ReportV1(report.group),
            Ok(Message::Done(done)) => What::Done(done.group),
            Ok(Message::NeighborSolicitation(_) | Message::NeighborAdvertisement(_)) => {
                return None;
            }
            Err(reason) => What::Invalid(kind, reason),
        };
        let address =
            |from: usize| Some(Ipv6Addr::from_octets(*header.get(from..)?.first_chunk()?));
        Some(Said {
            mac: frame.source,
            source: address(8)?,
            destination: address(24)?,
            hop_limit: header[7],
            traffic_class: header[0] << 4 | header[1] >> 4,
            what,
        })
    }

    pub fn query(&self) -> Option<&QuerySaid> {
        match &self.what {
            What::Query(query) => Some(query),
            What::Report(_) | What::ReportV1(_) | What::Done(_) | What::Invalid(..) => None,
        }
    }

    /// Whether it is a query, though perhaps one that a receiver drops.
    pub fn is_query(&self) -> bool {
        matches!(self.what, What::Query(_) | What::Invalid(TYPE_QUERY, _))
    }

    /// The records of an MLDv2 report.
    pub fn records(&self) -> &[Record] {
        match &self.what {
            What::Report(records) => records,
            What::Query(_) | What::ReportV1(_) | What::Done(_) | What::Invalid(..) => &[],
        }
    }

    /// Whether it is an MLDv2 report with such a record.
    pub fn reports(&self, kind: RecordType, group: Ipv6Addr, sources: &[Ipv6Addr]) -> bool {
        let wanted = Record::new(kind, group, sources);
        self.records().contains(&wanted)
    }

    /// Whether it names the group, as a report of either version or as a Done.
    pub fn is_of(&self, group: Ipv6Addr) -> bool {
        match &self.what {
            What::Report(records) => records.iter().any(|record| record.group == group),
            What::ReportV1(named) | What::Done(named) => *named == group,
            What::Query(_) | What::Invalid(..) => false,
        }
    }
}

/// Hears the MLD of a link. Streams pass it unheard, so that they do not fill its buffer.
pub struct MldWatch {
    tap: Tap,
}

impl MldWatch {
    #[track_caller]
    pub fn open(namespace: &Namespace, interface: &str) -> Self {
        let tap = Tap::open(namespace, interface);
        // Ethernet's type and IPv6's next header: Hop-by-Hop or ICMPv6.
        let load = |code: u32, k| libc::sock_filter {
            code: code as u16,
            jt: 0,
            jf: 0,
            k,
        };
        let jump = |k, jt, jf| libc::sock_filter {
            code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
            jt,
            jf,
            k,
        };
        let mut program = [
            load(libc::BPF_LD | libc::BPF_H | libc::BPF_ABS, 12),
            jump(0x86dd, 0, 4),
            load(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 14 + 6),
            jump(0, 1, 0),
            jump(58, 0, 1),
            load(libc::BPF_RET, u32::MAX),
            load(libc::BPF_RET, 0),
        ];
        let filter = libc::sock_fprog {
            len: program.len() as u16,
            filter: program.as_mut_ptr(),
        };
        set_option(
            tap.socket(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            &filter,
        )
        .expect("a filter");
        let watch = MldWatch { tap };
        // What came before the filter.
        while watch.tap.receive(Duration::ZERO).is_some() {}
        watch
    }

    /// The next message that passes within `deadline`.
    pub fn next(&self, deadline: Duration) -> Option<Said> {
        let end = Instant::now() + deadline;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if let Some(said) = Said::parse(&self.tap.receive(left)?) {
                return Some(said);
            }
        }
    }

    /// What has passed since it was asked last.
    pub fn so_far(&self) -> Vec<Said> {
        std::iter::from_fn(|| self.next(Duration::ZERO)).collect()
    }

    /// Waits for a message. Returns all up to it, and it as the last one.
    ///
    /// # Panics
    /// With `what` and with what passed, if it does not come within `deadline`.
    #[track_caller]
    pub fn until(
        &self,
        what: &str,
        deadline: Duration,
        mut is_it: impl FnMut(&Said) -> bool,
    ) -> Vec<Said> {
        let end = Instant::now() + deadline;
        let mut heard = Vec::new();
        while let Some(said) = self.next(end.saturating_duration_since(Instant::now())) {
            let found = is_it(&said);
            heard.push(said);
            if found {
                return heard;
            }
        }
        panic!("not within {deadline:?}: {what}; heard {heard:#?}");
    }
}
