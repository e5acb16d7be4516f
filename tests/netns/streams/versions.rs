//! Hosts and queriers of MLDv1 beside those of MLDv2 (RFC 3810 §8).

use std::net::Ipv6Addr;

use protocol::wire::RecordType;

use crate::lab::{
    DOWNSTREAM, MldWatch, Receiver, SOURCE, Said, Speaker, StreamLab, StreamOptions, UPSTREAM,
    What, eventually,
};
use crate::support::{SOON, querier};

use super::{CALM, PATIENT_LEAVE, any_source, expect_to, source_specific, start, upstream_sender};

crate::tests![
    hosts_of_both_versions_share_a_group,
    a_report_of_version_1_of_a_source_specific_group_is_ignored,
    under_a_querier_of_version_1_upstream_no_source_specific_group_is_reported,
    version_2_forced_reports_source_specific_groups_under_a_querier_of_version_1,
    queries_of_version_1_can_be_chosen,
];

const BOX: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xb0);

fn two_hosts() -> StreamLab {
    StreamLab::with(&StreamOptions {
        listeners: 2,
        ..StreamOptions::default()
    })
}

fn hosts_of_both_versions_share_a_group() {
    let home = two_hosts();
    let [new, old] = &home.listeners[..] else {
        panic!("two hosts");
    };
    old.sysctl("net.ipv6.conf.eth0.force_mld_version", "1");
    let _mldproxy = start(&home, PATIENT_LEAVE);
    let group = any_source(1);
    let stream = upstream_sender(&home, group).start(CALM);
    for (stays, leaves) in [(old, new), (new, old)] {
        let wire = MldWatch::open(stays, "eth0");
        let receivers = [stays, leaves].map(|host| Receiver::of_any(host, "eth0", group));
        for receiver in &receivers {
            receiver.wait_for_more(50, SOON);
        }
        let [stays, leaves] = receivers;
        let before = stays.count();
        leaves.leave();
        // Much more of the stream than the last listener query time.
        stays.wait_for_more(2_500, SOON);
        expect_to(&home, group, &[DOWNSTREAM]);
        stays.expect_no_gap(SOURCE, before);
        stays.leave();
        home.expect_entries(&[], SOON);
        let reports = wire.so_far();
        let in_v1 = reports
            .iter()
            .any(|said| said.what == What::ReportV1(group));
        let in_v2 = reports
            .iter()
            .any(|said| said.reports(RecordType::ChangeToExclude, group, &[]));
        assert!(in_v1 && in_v2, "{reports:#?}");
    }
    drop(stream);
}

/// RFC 4604 §2.2.4 of a router: what names no source does not concern a source-specific group.
fn a_report_of_version_1_of_a_source_specific_group_is_ignored() {
    let home = StreamLab::new();
    let _mldproxy = start(&home, &[]);
    let host = Speaker::new(&home.listeners[0], "eth0", BOX);
    host.reports_in_v1(source_specific(1));
    host.reports(RecordType::ChangeToExclude, source_specific(2), &[]);
    host.reports(RecordType::ModeIsExclude, source_specific(3), &[SOURCE]);
    host.reports_in_v1(any_source(4));
    // The last one was reported after the others.
    home.expect_entries(&[&format!("* {} -> {DOWNSTREAM}", any_source(4))], SOON);
    let joined = home.lab.rtr.memberships(UPSTREAM);
    assert!((1..=3).all(|number| !joined.contains(&source_specific(number))));
}

fn with_old_querier() -> StreamLab {
    StreamLab::with(&StreamOptions {
        upstream_querier: Some(1),
        ..StreamOptions::default()
    })
}

/// An MLDv1 report names no source, so it would ask for every source of the group.
fn under_a_querier_of_version_1_upstream_no_source_specific_group_is_reported() {
    let home = with_old_querier();
    let mldproxy = start(&home, &[]);
    querier(&home.lab, true);
    mldproxy.wait_for_line("MLDv1 is in force upstream", SOON);
    let wire = MldWatch::open(&home.lab.sw, "rtr");
    let (specific, any) = (source_specific(1), any_source(1));
    let receivers = [
        Receiver::of_source(&home.listeners[0], "eth0", SOURCE, specific),
        Receiver::of_any(&home.listeners[0], "eth0", any),
    ];
    expect_to(&home, specific, &[DOWNSTREAM]);
    let reported = wire.until("the group for any source is reported", SOON, |said| {
        said.what == What::ReportV1(any)
    });
    eventually("the switch knows of it", SOON, || {
        home.lab.mdb().contains(&any)
    });
    let numbers = upstream_sender(&home, any).send(100, CALM);
    receivers[1].expect_all(SOURCE, numbers, SOON);
    // Another querier's question is answered without the source-specific group, too.
    querier(&home.lab, true);
    let answered = wire.until("the answer", SOON, |said| said.what == What::ReportV1(any));
    let leaked: Vec<_> = reported
        .iter()
        .chain(&answered)
        .filter(|said| said.is_of(specific))
        .collect();
    assert!(leaked.is_empty(), "{leaked:#?}");
}

fn version_2_forced_reports_source_specific_groups_under_a_querier_of_version_1() {
    let home = with_old_querier();
    let mldproxy = start(&home, &["--mld-version", "2"]);
    querier(&home.lab, true);
    mldproxy.wait_for_line("is the querier upstream", SOON);
    let wire = MldWatch::open(&home.lab.sw, "rtr");
    let group = source_specific(1);
    let _receiver = Receiver::of_source(&home.listeners[0], "eth0", SOURCE, group);
    wire.until("the source is asked for", SOON, |said| {
        let kinds = [RecordType::AllowNewSources, RecordType::ModeIsInclude];
        kinds
            .iter()
            .any(|kind| said.reports(*kind, group, &[SOURCE]))
    });
}

fn queries_of_version_1_can_be_chosen() {
    let home = StreamLab::new();
    let wire = MldWatch::open(&home.listeners[0], "eth0");
    let options = ["--querier", "v1", "--last-listener-interval", "0.1"];
    let _mldproxy = start(&home, &options);
    // A single host may be asked in MLDv2 which addresses it has.
    let to_all = |said: &Said| {
        said.query()
            .filter(|_| said.destination.is_multicast())
            .cloned()
    };
    let heard = wire.until("a query", SOON, |said| to_all(said).is_some());
    let query = heard.last().and_then(to_all);
    assert_eq!(query.map(|query| query.version), Some(1));
    wire.until("the host speaks MLDv1 from now on", SOON, |said| {
        matches!(said.what, What::ReportV1(_))
    });
    let group = any_source(1);
    let receiver = Receiver::of_any(&home.listeners[0], "eth0", group);
    let reports = wire.until("the host's report", SOON, |said| said.is_of(group));
    let report = reports.last().map(|said| &said.what);
    assert_eq!(report, Some(&What::ReportV1(group)));
    expect_to(&home, group, &[DOWNSTREAM]);
    receiver.leave();
    let asked = wire.until("a query of the group", SOON, |said| {
        said.query().is_some_and(|query| query.group == group)
    });
    let of_version_2 = |said: &Said| to_all(said).is_some_and(|query| query.version == 2);
    assert!(!asked.iter().any(of_version_2), "{asked:#?}");
    home.expect_entries(&[], SOON);
}
