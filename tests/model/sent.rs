//! Checks of what the engine sends: each packet says what its action says, from an address of its
//! link.

use std::net::Ipv6Addr;

use protocol::config::{MldMode, MldVersion};
use protocol::link::{Port, Side};
use protocol::ndp::neighbors::Question;
use protocol::time::Duration;
use protocol::wire::{
    ALL_MLDV2_ROUTERS, ALL_ROUTERS, MacAddress, Message, NeighborSolicitation, QueryVersion,
    RecordType, SolicitedNode, parse,
};

use crate::Model;
use crate::packets::is_sent_as;

impl Model<'_> {
    /// A report tells what is so, in the version in force: joined groups as joined, and groups that
    /// nobody wants as left.
    pub(crate) fn check_report(&mut self, packet: &[u8], destination: Ipv6Addr) {
        let upstream = self.kernel.link(Side::Upstream).expect("reports go there");
        let mtu = usize::try_from(upstream.mtu).unwrap_or(usize::MAX);
        assert!(packet.len() <= mtu.clamp(1280, 1500));
        let link_local = upstream.link_local;
        let config = self.engine.config();
        let (mode, in_force) = (config.mld_mode, self.engine.mld().host().version(config));
        let (version, source) = match parse(packet) {
            Ok(Message::ReportV2(report)) => {
                assert_eq!(destination, ALL_MLDV2_ROUTERS);
                let mut is_a_change = None;
                for record in report.records {
                    let is_change = match record.record_type {
                        RecordType::ModeIsInclude | RecordType::ModeIsExclude => false,
                        RecordType::ChangeToInclude
                        | RecordType::ChangeToExclude
                        | RecordType::AllowNewSources
                        | RecordType::BlockOldSources => true,
                        RecordType::Unknown(_) => panic!("{:?}", record.record_type),
                    };
                    assert_eq!(
                        *is_a_change.get_or_insert(is_change),
                        is_change,
                        "a refresh and a change in one report"
                    );
                    if SolicitedNode::from_group(record.group).is_none() {
                        self.hear_record(record.record_type, record.group, record.sources);
                        continue;
                    }
                    match record.record_type {
                        RecordType::ChangeToInclude => self.check_left(record.group),
                        RecordType::ModeIsExclude | RecordType::ChangeToExclude => {
                            self.check_joined(record.group);
                            let is_first = self.unreported.remove(&record.group);
                            let is_change = record.record_type == RecordType::ChangeToExclude;
                            // The kernel repeats it.
                            let is_once = is_first || !is_change || mode != MldMode::Auto;
                            assert!(is_once, "{}: a join is reported twice", record.group);
                        }
                        other => panic!("{other:?}"),
                    }
                    assert_eq!(record.sources.count(), 0);
                }
                (MldVersion::V2, report.source)
            }
            Ok(Message::ReportV1(report)) => {
                assert_eq!(report.group, destination);
                match SolicitedNode::from_group(report.group) {
                    Some(_) => self.check_joined(report.group),
                    None => self.hear_older(RecordType::ModeIsExclude, report.group),
                }
                (MldVersion::V1, report.source)
            }
            Ok(Message::Done(done)) => {
                assert_eq!(destination, ALL_ROUTERS);
                match SolicitedNode::from_group(done.group) {
                    Some(_) => self.check_left(done.group),
                    None => self.hear_older(RecordType::ModeIsInclude, done.group),
                }
                (MldVersion::V1, done.source)
            }
            other => panic!("not a report: {other:?}"),
        };
        assert_eq!(version, in_force);
        assert_eq!(Some(source), link_local);
    }

    /// Where the kernel reports joins late, the engine reported those since the last time at once,
    /// by a change or by a refresh.
    pub(crate) fn check_joins_are_reported(&self) {
        let config = self.engine.config();
        let version = self.engine.mld().host().version(config);
        let upstream = self.kernel.link(Side::Upstream);
        let has_source = upstream.is_some_and(|link| link.link_local.is_some());
        if config.mld_mode == MldMode::Auto && version == MldVersion::V2 && has_source {
            let unreported = &self.unreported;
            assert!(unreported.is_empty(), "not reported: {unreported:?}");
        }
    }

    fn check_joined(&self, group: Ipv6Addr) {
        let joined = self.kernel.joined.contains(&group);
        assert!(joined, "{group} is reported as joined, and is not");
    }

    /// A group that is reported as left is not joined any more, or about to be left.
    fn check_left(&self, group: Ipv6Addr) {
        let mode = self.engine.config().mld_mode;
        assert_ne!(mode, MldMode::Auto, "the kernel reports leaves");
        if self.is_ending {
            return self.check_joined(group);
        }
        let group = SolicitedNode::from_group(group).expect("a solicited-node group");
        let state = self.engine.ndp().groups().get(group);
        let is_left = state.is_none_or(|state| !state.is_joined() || state.members == 0);
        assert!(is_left, "{group} is wanted, and reported as left");
    }

    /// Questions go out of links that are there.
    pub(crate) fn check_question(&self, packet: &[u8], question: &Question) {
        let (port, _) = addressed_to(question);
        let side = Side::Downstream(port);
        match *question {
            Question::Ask { link_local, .. } => {
                self.check_query(packet, side, link_local, Ipv6Addr::UNSPECIFIED);
            }
            Question::Query { group, .. } => {
                let group = group.group();
                self.check_query(packet, side, group, group);
            }
            Question::Probe { target, .. } => {
                self.check_solicitation(packet, side, target, target);
            }
            Question::Resolve { target, .. } => {
                let group = SolicitedNode::of(target).group();
                self.check_solicitation(packet, side, group, target);
            }
        }
    }

    fn check_query(&self, packet: &[u8], side: Side, destination: Ipv6Addr, group: Ipv6Addr) {
        let Ok(Message::Query(query)) = parse(packet) else {
            panic!("not a query");
        };
        let link = self.kernel.link(side).expect("a link to ask on");
        assert_eq!(Some(query.source), link.link_local);
        assert_eq!((query.destination, query.group), (destination, group));
        // RFC 3810 §5.1.7, §9.1 and §9.3 ask for this.
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
        // A host that has yet to answer the querier's first query answers this one alone. And it
        // adopts the variables that it hears last.
        if let Some(proxy) = &self.engine.config().mld_proxy {
            assert!(query.max_response_delay <= Duration::from_millis(100));
            assert_eq!(robustness, proxy.robustness);
            assert!(is_sent_as(proxy.query_interval, query_interval));
        }
    }

    pub(crate) fn check_solicitation(
        &self,
        packet: &[u8],
        side: Side,
        destination: Ipv6Addr,
        target: Ipv6Addr,
    ) {
        let Ok(Message::NeighborSolicitation(sent)) = parse(packet) else {
            panic!("not a solicitation");
        };
        let (source, source_link_layer) = self.source_on(side);
        let expected = NeighborSolicitation {
            source,
            destination,
            target,
            source_link_layer,
        };
        assert_eq!(sent, expected);
    }

    /// RFC 4861 §7.2.8: a proxy's advertisement does not override the target's own.
    pub(crate) fn check_advertisement(
        &self,
        packet: &[u8],
        side: Side,
        destination: Ipv6Addr,
        target: Ipv6Addr,
    ) {
        let Ok(Message::NeighborAdvertisement(sent)) = parse(packet) else {
            panic!("not an advertisement");
        };
        let (source, own_mac) = self.source_on(side);
        assert_eq!((sent.source, sent.target_link_layer), (source, own_mac));
        assert_eq!((sent.destination, sent.target), (destination, target));
        assert!(sent.router && !sent.override_flag);
        assert_eq!(sent.solicited, !destination.is_multicast());
    }

    /// The addresses that the router sends from on a link.
    fn source_on(&self, side: Side) -> (Ipv6Addr, Option<MacAddress>) {
        let link = self.kernel.link(side).expect("a link to send on");
        let source = link.link_local.expect("an address to send from");
        let mac = Some(link.mac).filter(|mac| *mac != MacAddress([0; 6]));
        (source, mac)
    }
}

/// The port that a question goes out of, and the link-layer address it goes to; `None` for a group.
pub(crate) fn addressed_to(question: &Question) -> (Port, Option<MacAddress>) {
    match *question {
        Question::Ask { port, mac, .. } | Question::Probe { port, mac, .. } => (port, Some(mac)),
        Question::Resolve { port, .. } | Question::Query { port, .. } => (port, None),
    }
}
