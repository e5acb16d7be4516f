//! The querier upstream, and the version of MLD in force.

use std::net::Ipv6Addr;

use protocol::config::{MldMode, MldVersion};
use protocol::counters::Counter;
use protocol::engine::{Action, Event, Reason};
use protocol::listener::Upstream;
use protocol::time::Duration;
use protocol::wire::{ALL_NODES, Query, QueryVersion, RecordType, Sources};

use crate::stage::{GATEWAY, Stage, UPSTREAM, address, group, report};

const QUERIER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xaa);

impl Stage {
    fn query(&mut self, version: MldVersion) {
        self.query_of(QUERIER, version);
    }

    /// A router upstream asks for all groups.
    pub fn query_of(&mut self, source: Ipv6Addr, version: MldVersion) {
        let version = match version {
            MldVersion::V1 => QueryVersion::V1,
            MldVersion::V2 => QueryVersion::V2 {
                suppress_router_processing: false,
                robustness: 2,
                query_interval: Duration::from_secs(125),
                sources: Sources::default(),
            },
        };
        let query = Query {
            source,
            destination: ALL_NODES,
            group: Ipv6Addr::UNSPECIFIED,
            max_response_delay: Duration::from_secs(10),
            version,
        };
        let mut packet = [0; 128];
        let length = query.emit(&mut packet).unwrap();
        let packet = &packet[..length];
        let mac = GATEWAY;
        self.handle(Event::UpstreamPacket { mac, packet });
    }

    fn version(&self) -> MldVersion {
        self.engine.listener().version(self.engine.config())
    }
}

#[test]
fn an_mldv1_query_makes_the_refresh_mldv1_for_260_seconds_and_paces_it() {
    let mut stage = Stage::new();
    for number in 0..100 {
        stage.seen(address(number));
    }
    assert_eq!(stage.version(), MldVersion::V2);
    stage.query(MldVersion::V1);
    assert_eq!(stage.version(), MldVersion::V1);
    // All anew, since what was reported in MLDv2 means nothing to an MLDv1 querier; but not at once, and paced.
    assert_eq!(stage.reports.len(), 0);
    stage.pass(5);
    assert_eq!(stage.reports.len(), 50);
    stage.pass(5);
    assert_eq!(stage.reports.len(), 100);
    let groups: Vec<_> = stage.reports.iter().map(|(_, groups)| groups[0]).collect();
    assert_eq!(groups, (0..100).map(group).collect::<Vec<_>>());
    stage.reports.clear();
    stage.pass(60);
    assert_eq!(stage.reports.len(), 100, "and in each refresh");

    // RFC 3810 §9.12: 2 × 125 s + 10 s after the last MLDv1 query, whatever MLDv2 queries come between.
    stage.query(MldVersion::V1);
    stage.query(MldVersion::V2);
    stage.pass(200);
    for number in 0..100 {
        stage.seen(address(number));
    }
    stage.pass(59);
    assert_eq!(stage.version(), MldVersion::V1);
    stage.reports.clear();
    stage.pass(1);
    assert_eq!(stage.version(), MldVersion::V2);
    assert_eq!(stage.reports[0].1.len(), 72, "MLDv2 again, and all at once");
}

#[test]
fn a_large_table_is_reported_in_mldv1_within_a_refresh_interval() {
    let mut stage = Stage::new();
    for number in 0..4096 {
        stage.seen(address(number));
    }
    stage.query(MldVersion::V1);
    stage.pass(59);
    assert_eq!(stage.reports.len(), 4096);
}

#[test]
fn a_fixed_version_is_kept_whatever_is_heard() {
    for (mode, fixed, heard) in [
        (MldMode::V1, MldVersion::V1, MldVersion::V2),
        (MldMode::V2, MldVersion::V2, MldVersion::V1),
    ] {
        let mut stage = Stage::with(|config| config.mld_mode = mode);
        stage.seen(address(1));
        stage.query(heard);
        assert_eq!(stage.version(), fixed);
        assert_eq!(stage.engine.listener().querier().unwrap().version, heard);
    }
}

#[test]
fn the_querier_is_known_until_the_upstream_is_another_one() {
    let mut stage = Stage::new();
    assert_eq!(stage.engine.listener().querier(), None);
    stage.pass(7);
    stage.query(MldVersion::V2);
    let querier = *stage.engine.listener().querier().unwrap();
    assert_eq!(
        (querier.address, querier.version),
        (QUERIER, MldVersion::V2)
    );
    assert_eq!(querier.last_query, stage.now);
    stage.query(MldVersion::V1);
    let index = 8;
    stage.upstream(Some(Upstream { index, ..UPSTREAM }));
    assert_eq!(stage.engine.listener().querier(), None);
    assert_eq!(stage.version(), MldVersion::V2);
}

/// RFC 3810 §6: a listener ignores what others report.
#[test]
fn what_others_report_upstream_changes_nothing() {
    let mut stage = Stage::new();
    stage.seen(address(1));
    let changes = stage.changes.clone();
    for record_type in [RecordType::ModeIsExclude, RecordType::ChangeToInclude] {
        let packet = report(QUERIER, &[(record_type, group(1)), (record_type, group(2))]);
        let (mac, packet) = (GATEWAY, &*packet);
        stage.handle(Event::UpstreamPacket { mac, packet });
    }
    stage.pass(59);
    assert_eq!(stage.changes, changes);
    assert_eq!(stage.reports.len(), 0);
    assert_eq!(stage.count(Counter::Mld), 0);
}

#[test]
fn the_silence_of_a_querier_is_noted_once_and_the_refresh_goes_on() {
    let mut stage = Stage::new();
    stage.query(MldVersion::V2);
    stage.seen(address(1));
    stage.pass(250);
    stage.seen(address(1));
    let deadline = stage.engine.next_deadline().unwrap().0;
    assert_eq!(deadline.since(stage.now), Duration::from_secs(10));
    stage.pass(40);
    assert_eq!(stage.reports.len(), 4);
}

#[test]
fn mldv1_reports_are_paced_also_where_there_is_no_refresh() {
    let mut stage = Stage::with(|config| {
        config.refresh_interval = Duration::ZERO;
        config.join_rate = 1000;
        config.join_burst = 1000;
        config.per_mac = 1000;
    });
    for number in 0..100 {
        stage.seen(address(number));
    }
    stage.query(MldVersion::V1);
    stage.pass(10);
    assert_eq!(stage.reports.len(), 100);
}

/// RFC 3810 §6.3: the answers of all nodes at once would be an implosion. Each waits for its own share of the 10 s.
#[test]
fn no_report_is_sent_upon_a_general_query_and_each_node_waits_for_its_own_time() {
    let mut delays = Vec::new();
    for last in [0, 1, 0x80, 0xff] {
        let link_local = Some(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0xab, last));
        let mut stage = Stage::new();
        stage.upstream(Some(Upstream {
            link_local,
            ..UPSTREAM
        }));
        stage.fails = |action| matches!(action, Action::Report { .. });
        stage.seen(address(1));
        for version in [MldVersion::V2, MldVersion::V1] {
            stage.query(version);
            assert_eq!(stage.count(Counter::TransmitFailed), 0, "{version:?}");
        }
        let (deadline, reason) = stage.engine.next_deadline().unwrap();
        assert_eq!(reason, Reason::Refresh);
        delays.push(deadline.since(stage.now).as_millis());
        stage.pass(10);
        assert!(stage.count(Counter::TransmitFailed) > 0);
    }
    assert_eq!(delays, [39, 78, 5039, 10_000]);
}

#[test]
fn so_many_mldv1_reports_in_so_short_a_refresh_do_not_keep_the_loop_awake() {
    let mut stage = Stage::with(|config| {
        config.refresh_interval = Duration::from_secs(1);
        config.join_rate = 2000;
        config.join_burst = 2000;
        config.per_mac = 2000;
    });
    for number in 0..1500 {
        stage.seen(address(number));
    }
    stage.query(MldVersion::V1);
    // This finds deadlines that stay.
    stage.pass(2);
    assert!(stage.reports.len() >= 1500);
}
