//! The querier upstream, and the version of MLD in force.

use std::net::Ipv6Addr;

use model::packets;
use protocol::config::{MldMode, MldVersion};
use protocol::counters::Counter;
use protocol::engine::{Action, BUFFER_LENGTH, Event, Reason};
use protocol::link::{Link, Side};
use protocol::time::Duration;
use protocol::wire::{QueryVersion, RecordType};
use protocol::{mld, ndp};

use crate::stage::{
    GATEWAY, HOST, LINK_LOCAL, Stage, UPSTREAM, address, group, heard, report, solicitation,
};

const QUERIER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xaa);

impl Stage {
    fn query(&mut self, version: MldVersion) {
        self.query_of(QUERIER, version);
    }

    /// A router upstream sends a general query.
    pub fn query_of(&mut self, source: Ipv6Addr, version: MldVersion) {
        let version = match version {
            MldVersion::V1 => QueryVersion::V1,
            MldVersion::V2 => packets::v2(2, 125),
        };
        self.query_for(source, Ipv6Addr::UNSPECIFIED, version);
    }

    /// A router upstream queries one group, or all of them where the group is `::`.
    fn query_for(&mut self, source: Ipv6Addr, group: Ipv6Addr, version: QueryVersion<'_>) {
        let packet = &packets::query(source, group, version);
        let mac = GATEWAY;
        self.handle(heard(Side::Upstream, mac, packet));
    }

    /// The records and Dones since the last call.
    fn said(&mut self) -> Vec<String> {
        let said = std::mem::take(&mut self.said);
        said.into_iter().map(|(_, said)| said).collect()
    }

    fn version(&self) -> MldVersion {
        self.engine.mld().host().version(self.engine.config())
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
    // The engine reports all groups anew, since an MLDv1 querier does not understand what was
    // reported in MLDv2. It paces these reports.
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

    // RFC 3810 §9.12: MLDv1 is in force until 2 × 125 s + 10 s after the last MLDv1 query,
    // whatever MLDv2 queries come between.
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
        assert_eq!(stage.engine.mld().host().querier().unwrap().version, heard);
    }
}

#[test]
fn the_querier_is_known_until_the_upstream_is_another_one() {
    let mut stage = Stage::new();
    assert_eq!(stage.engine.mld().host().querier(), None);
    stage.pass(7);
    stage.query(MldVersion::V2);
    let querier = *stage.engine.mld().host().querier().unwrap();
    assert_eq!(
        (querier.address, querier.version),
        (QUERIER, MldVersion::V2)
    );
    assert_eq!(querier.last_query, stage.now);
    stage.query(MldVersion::V1);
    let index = 8;
    stage.upstream(Some(Link { index, ..UPSTREAM }));
    assert_eq!(stage.engine.mld().host().querier(), None);
    assert_eq!(stage.version(), MldVersion::V2);
}

/// RFC 3810 §6: a listener ignores the reports of others.
#[test]
fn what_others_report_upstream_changes_nothing() {
    let mut stage = Stage::new();
    stage.seen(address(1));
    let changes = stage.changes.clone();
    for record_type in [RecordType::ModeIsExclude, RecordType::ChangeToInclude] {
        let packet = report(QUERIER, &[(record_type, group(1)), (record_type, group(2))]);
        stage.handle(heard(Side::Upstream, GATEWAY, &packet));
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

/// RFC 3810 §6.3: if all nodes answered at once, the querier would be flooded. Each waits for a
/// share of the 10 s of its own.
#[test]
fn no_report_is_sent_upon_a_general_query_and_each_node_waits_for_its_own_time() {
    let mut delays = Vec::new();
    for last in [0, 1, 0x80, 0xff] {
        let link_local = Some(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0xab, last));
        let mut stage = Stage::new();
        stage.upstream(Some(Link {
            link_local,
            ..UPSTREAM
        }));
        stage.seen(address(1));
        stage.fail_if(|action| matches!(action, Action::Mld(mld::Action::Report { .. })));
        for version in [MldVersion::V2, MldVersion::V1] {
            stage.query(version);
            assert_eq!(stage.count(Counter::TransmitFailed), 0, "{version:?}");
        }
        let (deadline, reason) = stage.engine.next_deadline().unwrap();
        assert_eq!(reason, Reason::Mld);
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
    // A deadline that stays would show here.
    stage.pass(2);
    assert!(stage.reports.len() >= 1500);
}

/// RFC 3810 §9.1, §9.2, §9.4: the querier's own variables, not the defaults, tell when it is
/// overdue.
#[test]
fn a_querier_is_silent_by_its_own_robustness_and_interval() {
    for (robustness, interval, expected) in [
        (2, 125, 260),
        (2, 288, 586),
        (7, 128, 906),
        (3, 20, 70),
        // The largest values that a query can carry.
        (7, 31_744, 222_218),
        // RFC 3810 §5.1.8, §5.1.9: 0 stands for the default. §9.1: a robustness variable of 1 is
        // a mistake.
        (0, 0, 260),
        (1, 125, 260),
        // Whoever sends queries, the log gets no line every few seconds.
        (2, 1, 60),
    ] {
        let mut stage = Stage::new();
        let version = packets::v2(robustness, interval);
        stage.query_for(QUERIER, Ipv6Addr::UNSPECIFIED, version);
        let deadline = stage.engine.next_deadline().unwrap().0;
        let seconds = deadline.since(stage.now).as_secs();
        assert_eq!(seconds, expected, "{robustness} × {interval}");
        assert_eq!(
            stage.engine.mld().host().querier_timeout().as_secs(),
            expected
        );
    }
}

/// RFC 3810 §9.12: an MLDv1 query carries its response delay alone, so the variables that an MLDv2
/// querier sent before still count.
#[test]
fn mldv1_is_in_force_by_the_variables_that_were_adopted() {
    let mut stage = Stage::new();
    stage.query_for(QUERIER, Ipv6Addr::UNSPECIFIED, packets::v2(3, 50));
    stage.query(MldVersion::V1);
    stage.pass(159);
    assert_eq!(stage.version(), MldVersion::V1);
    stage.pass(1);
    assert_eq!(stage.version(), MldVersion::V2);
}

#[test]
fn another_upstream_starts_with_the_default_variables() {
    let mut stage = Stage::new();
    stage.query_for(QUERIER, Ipv6Addr::UNSPECIFIED, packets::v2(7, 3000));
    let index = 8;
    stage.upstream(Some(Link { index, ..UPSTREAM }));
    assert_eq!(stage.engine.mld().host().querier_timeout().as_secs(), 260);
}

/// RFC 3810 §6.1: a change is reported at once. The kernel reports it in MLDv2 some milliseconds
/// later, and repeats that.
#[test]
fn a_join_is_reported_once_ahead_of_the_kernel_and_a_leave_by_the_kernel_alone() {
    for mode in [MldMode::Auto, MldMode::V2] {
        let mut stage = fixed(mode);
        stage.seen(address(1));
        assert_eq!(stage.said(), [format!("TO_EX {}", group(1))], "at once");
        stage.pass(400);
        assert!(stage.kernel.joined.is_empty());
        assert_eq!(stage.said(), [""; 0], "{mode:?}");
        assert_eq!(stage.count(Counter::Reported), 1);
    }
    // In MLDv1 the kernel reports at once by itself.
    for mode in [MldMode::Auto, MldMode::V1] {
        let mut stage = fixed(mode);
        stage.query(MldVersion::V1);
        stage.pass(10);
        stage.seen(address(1));
        stage.pass(200);
        assert!(stage.kernel.joined.contains(&group(1)));
        assert_eq!(stage.count(Counter::Reported), 0, "{mode:?}");
    }
}

#[test]
fn joins_at_once_share_reports_also_where_none_can_be_sent() {
    for (joins, reports) in [(1, 1), (72, 1), (73, 2), (200, 3), (4096, 57)] {
        for fails in [false, true] {
            let mut stage = fixed(MldMode::Auto);
            stage.fail_if(move |action| fails && matches!(action, Action::Mld(_)));
            for number in 0..joins {
                let solicitation = solicitation(address(number), LINK_LOCAL);
                stage.tell(heard(Side::Downstream(0), HOST, &solicitation));
            }
            stage.drain();
            assert_eq!(stage.kernel.joined.len(), joins as usize);
            // The kernel reports what could not be sent.
            stage.pass(59);
            let (sent, failed) = if fails { (0, reports) } else { (reports, 0) };
            assert_eq!(stage.count(Counter::Reported), sent, "{joins}");
            assert_eq!(stage.count(Counter::TransmitFailed), failed, "{joins}");
        }
    }
}

#[test]
fn a_join_that_the_refresh_reports_anyway_is_not_reported_twice() {
    let mut stage = fixed(MldMode::Auto);
    for number in 0..100 {
        stage.seen(address(number));
    }
    stage.said.clear();
    // Every group is joined anew, and all are reported.
    let index = 8;
    stage.upstream(None);
    stage.upstream(Some(Link { index, ..UPSTREAM }));
    assert_eq!(stage.kernel.joined.len(), 100);
    assert_eq!(stage.said(), [""; 0]);
    assert_eq!(stage.reports.len(), 2);
    // Where the refresh cannot be sent, it is tried again later, and the join is reported alone.
    stage.fail_if(|action| matches!(action, Action::Mld(_)));
    stage.handle(Event::Renew);
    stage.fail_if(|_| false);
    stage.seen(address(100));
    assert_eq!(stage.said(), [format!("TO_EX {}", group(100))]);
    assert_eq!(stage.reports.len(), 2);
}

/// The kernel reports from `::` then, which no querier heeds (RFC 3810 §5.2.13).
#[test]
fn a_join_without_an_address_to_report_from_is_reported_once_there_is_one() {
    let mut stage = Stage::without_upstream();
    let link_local = None;
    stage.upstream(Some(Link {
        link_local,
        ..UPSTREAM
    }));
    stage.seen(address(1));
    assert!(stage.kernel.joined.contains(&group(1)));
    assert_eq!(stage.count(Counter::Reported), 0);
    stage.upstream(Some(UPSTREAM));
    assert_eq!(stage.said(), [""; 0]);
    assert_eq!(stage.reports, [(1000, vec![group(1)])]);
}

/// RFC 2710 §4: a join is reported at once and once more after 10 s, a leave by a Done.
#[test]
fn a_fixed_version_1_reports_joins_and_leaves_at_once() {
    let mut stage = fixed(MldMode::V1);
    stage.seen(address(1));
    let report = format!("report {}", group(1));
    assert_eq!(stage.said(), [&*report], "at once");
    stage.pass(9);
    assert_eq!(stage.said(), [""; 0]);
    stage.pass(1);
    assert_eq!(stage.said(), [&*report], "once more");
    stage.pass(40);
    assert_eq!(stage.said(), [""; 0], "and no more before the refresh");
    stage.pass(300);
    assert!(stage.kernel.joined.is_empty());
    let said = stage.said();
    let done = format!("done {}", group(1));
    assert_eq!(
        said.iter().filter(|said| **said == done).count(),
        1,
        "{said:?}"
    );
    assert_eq!(said.last(), Some(&done), "{said:?}");
}

/// RFC 3810 §6.1: the engine reports these itself, because the kernel speaks MLDv1 with an MLDv1
/// querier.
#[test]
fn a_fixed_version_2_reports_joins_and_leaves_at_once_and_as_often_as_the_robustness_says() {
    let mut stage = fixed(MldMode::V2);
    stage.seen(address(1));
    let joined = format!("TO_EX {}", group(1));
    assert_eq!(stage.said(), [joined], "the kernel reports the join again");
    stage.query_for(QUERIER, Ipv6Addr::UNSPECIFIED, packets::v2(3, 125));
    assert_eq!(stage.said(), [""; 0]);
    stage.query(MldVersion::V1);
    stage.seen(address(2));
    let joined = format!("TO_EX {}", group(2));
    assert_eq!(stage.said(), [&*joined], "at once");
    stage.pass(1);
    assert_eq!(stage.said(), [&*joined]);
    stage.pass(1);
    assert_eq!(stage.said(), [&*joined]);
    stage.pass(50);
    assert_eq!(stage.said(), [""; 0]);
    for _ in 0..4 {
        stage.pass(60);
        stage.query(MldVersion::V1);
    }
    stage.pass(100);
    assert!(stage.kernel.joined.is_empty());
    for number in [1, 2] {
        let left = format!("TO_IN {}", group(number));
        let times = stage.said.iter().filter(|(_, said)| *said == left);
        assert_eq!(times.count(), 3, "{:?}", stage.said);
    }
}

/// The kernel answers in the version of the query, which is not the one in force.
#[test]
fn a_query_in_another_version_is_answered_in_the_fixed_one() {
    let mut stage = fixed(MldMode::V1);
    for number in [1, 2] {
        stage.seen(address(number));
    }
    stage.pass(11);
    stage.said.clear();
    stage.query_for(QUERIER, group(2), packets::v2(2, 125));
    assert_eq!(stage.said(), [""; 0], "not at once");
    stage.pass(10);
    assert_eq!(stage.said(), [format!("report {}", group(2))]);
    stage.query(MldVersion::V2);
    stage.pass(10);
    assert_eq!(
        stage.said(),
        [1, 2].map(|number| format!("report {}", group(number)))
    );
    stage.query_for(QUERIER, group(3), packets::v2(2, 125));
    stage.pass(10);
    assert_eq!(stage.said(), [""; 0], "not a member");
}

#[test]
fn at_the_end_every_group_is_reported_as_left_in_the_fixed_version() {
    for (mode, heard, message) in [
        (MldMode::V1, MldVersion::V2, "done"),
        (MldMode::V2, MldVersion::V1, "TO_IN"),
    ] {
        let mut stage = fixed(mode);
        stage.query(heard);
        for number in 0..500 {
            stage.seen(address(number));
        }
        stage.pass(20);
        stage.said.clear();
        // A packet that cannot be sent holds up no other.
        stage.fail_if(|_| true);
        stage.end();
        let mut buffer = [0; BUFFER_LENGTH];
        let lost = stage.engine.poll_action(&mut buffer).unwrap();
        let now = stage.now;
        stage.engine.done(now, &lost, false);
        stage.fail_if(|_| false);
        stage.drain();
        let said = stage.said();
        let left = said.iter().filter(|said| said.starts_with(message)).count();
        assert_eq!(left, said.len());
        let lost = if mode == MldMode::V1 { 1 } else { 72 };
        assert_eq!(left, 500 - lost, "{message}");
    }
    let mut stage = fixed(MldMode::Auto);
    stage.seen(address(1));
    stage.said.clear();
    stage.end();
    stage.drain();
    assert_eq!(stage.said(), [""; 0], "the kernel reports the leave");
}

/// The kernel could not leave the group, and so reports nothing when the group is wanted again. The
/// engine told the querier of the leave.
#[test]
fn a_group_wanted_again_after_its_leave_was_reported_is_reported_again() {
    for (mode, heard, left, joined) in [
        (MldMode::V1, MldVersion::V2, "done", "report"),
        (MldMode::V2, MldVersion::V1, "TO_IN", "TO_EX"),
    ] {
        // Once right after the leave was reported, and once when all its reports are done.
        for seconds in [0, 60] {
            let mut stage = fixed(mode);
            let lines = |word| format!("{word} {}", group(1));
            stage.seen(address(1));
            stage.fail_if(|action| matches!(action, Action::Ndp(ndp::Action::Leave(_))));
            stage.query(heard);
            while !stage.engine.ndp().neighbors().is_empty() {
                stage.pass(1);
                stage.query(heard);
            }
            stage.said.clear();
            while !stage.said().contains(&lines(left)) {
                stage.pass(1);
                stage.query(heard);
            }
            stage.pass(seconds);
            stage.said.clear();
            stage.seen(address(1));
            assert_eq!(stage.said(), [lines(joined)], "{seconds} s");
            stage.fail_if(|_| false);
            stage.pass(50);
            assert!(!stage.said().contains(&lines(left)), "{:?}", stage.said);
            assert!(stage.kernel.joined.contains(&group(1)));
        }
    }
}

/// As above, but by then the kernel speaks the fixed version, so that joins are its part to report.
#[test]
fn a_group_wanted_again_after_the_versions_agree_is_refreshed() {
    let mut stage = fixed(MldMode::V2);
    stage.query(MldVersion::V1);
    stage.seen(address(1));
    stage.fail_if(|action| matches!(action, Action::Ndp(ndp::Action::Leave(_))));
    let left = format!("TO_IN {}", group(1));
    while !stage.said().contains(&left) {
        stage.pass(60);
        stage.query(MldVersion::V1);
    }
    stage.pass(300);
    stage.reports.clear();
    stage.seen(address(1));
    let now = stage.now.as_millis() / 1000;
    assert_eq!(stage.reports, [(now, vec![group(1)])]);
}

/// In MLDv2 the engine reports all joins at once, a packetful each. In MLDv1 it reports them as
/// fast as a switch may take them.
#[test]
fn four_thousand_joins_at_once_are_reported_in_the_fixed_version() {
    for (mode, heard, seconds) in [
        (MldMode::V1, MldVersion::V2, 42),
        (MldMode::V2, MldVersion::V1, 1),
    ] {
        let mut stage = fixed(mode);
        stage.query(heard);
        stage.fail_if(|action| matches!(action, Action::Mld(mld::Action::Report { .. })));
        for number in 0..4096 {
            stage.seen(address(number));
        }
        assert_eq!(stage.kernel.joined.len(), 4096);
        assert!(stage.said.is_empty());
        stage.fail_if(|_| false);
        stage.pass(1 + seconds);
        let groups = stage.kernel.joined.iter().filter(|group| {
            let said = |(_, said): &(u64, String)| said.ends_with(&format!(" {group}"));
            stage.said.iter().any(said)
        });
        assert_eq!(groups.count(), 4096, "{mode:?}");
    }
}

/// An engine without a refresh, which joins without a limit.
fn fixed(mode: MldMode) -> Stage {
    Stage::with(|config| {
        config.mld_mode = mode;
        config.refresh_interval = Duration::ZERO;
        config.ask = false;
        config.probe = false;
        config.join_rate = 1_000_000;
        config.join_burst = 1_000_000;
        config.per_mac = u16::MAX;
    })
}
