//! The version of MLD in force upstream.

use nix::sys::signal::Signal;
use protocol::wire::{Message, RecordType, parse};

use crate::lab::{Frame, Lab, LabOptions, Tap, eventually, solicited_node};
use crate::refresh::{SHORT_LISTENING_INTERVAL, refreshed, wait_for_a_listening_interval};
use crate::support::{Host, SOON, address, expect_joined, querier, start, summary};

crate::tests![
    a_querier_of_version_1_gets_reports_of_version_1_also_after_it_is_gone,
    a_querier_of_version_1_is_answered_by_the_kernel,
    a_querier_of_version_2_gets_reports_of_version_2,
    to_leave_under_a_querier_of_version_1_is_a_done,
    version_1_can_be_fixed,
    version_2_can_be_fixed,
    a_fixed_version_1_reports_a_join_at_once_and_a_leave_by_done,
    a_fixed_version_2_reports_a_join_and_a_leave_at_once,
];

fn with_querier_of_version(mld_version: u8) -> Lab {
    Lab::with(&LabOptions {
        mld_version,
        ..LabOptions::default()
    })
}

/// Is it an MLDv1 report of the group of `address(1)`?
fn is_report_v1(frame: &Frame) -> bool {
    let group = solicited_node(address(1));
    matches!(parse(&frame.packet), Ok(Message::ReportV1(report)) if report.group == group)
}

/// Is it a refresh of that group in MLDv2? The kernel's answer to a query names its own groups too.
fn is_refresh_v2(frame: &Frame) -> bool {
    refreshed(frame) == [solicited_node(address(1))]
}

/// Waits until `wanted` has passed five times, and asserts that `unwanted` never does.
#[track_caller]
fn expect_five(wire: &Tap, wanted: fn(&Frame) -> bool, unwanted: fn(&Frame) -> bool) {
    let mut count = 0;
    eventually("five reports", 2 * SOON, || {
        let frame = wire.receive(SOON).expect("a report every second");
        assert!(!unwanted(&frame), "{frame:x?}");
        count += u32::from(wanted(&frame));
        count == 5
    });
}

fn a_querier_of_version_1_gets_reports_of_version_1_also_after_it_is_gone() {
    let lab = with_querier_of_version(1);
    let mldproxy = start(&lab, &["--refresh-interval", "1"]);
    querier(&lab, true);
    mldproxy.wait_for_line("MLDv1 is in force upstream", SOON);
    mldproxy.wait_for_line("is the querier upstream", SOON);
    let wire = Tap::open(&lab.sw, "rtr");
    Host::apart(&lab.lan, 1).solicits_from(address(1));
    expect_joined(&lab, &[address(1)]);
    expect_five(&wire, is_report_v1, is_refresh_v2);
    assert!(summary(&mldproxy).contains("V1 in force"));

    querier(&lab, false);
    lab.sw.run(SHORT_LISTENING_INTERVAL);
    for witness in ["ff02::1:ff77:1", "ff02::1:ff77:2"] {
        wait_for_a_listening_interval(&lab, witness);
        assert!(lab.mdb().contains(&solicited_node(address(1))));
    }
    let wire = Tap::open(&lab.sw, "rtr");
    expect_five(&wire, is_report_v1, is_refresh_v2);
}

/// RFC 2710 §4: there is no refresh, and mldproxy joins once the version is known, so the kernel
/// alone reports.
fn a_querier_of_version_1_is_answered_by_the_kernel() {
    let lab = with_querier_of_version(1);
    let mldproxy = start(&lab, &["--refresh-interval", "0"]);
    querier(&lab, true);
    mldproxy.wait_for_line("MLDv1 is in force upstream", SOON);
    let wire = Tap::open(&lab.sw, "rtr");
    let expect_report = || {
        eventually("a report", SOON, || {
            is_report_v1(&wire.receive(SOON).expect("a report"))
        });
    };
    Host::apart(&lab.lan, 1).solicits_from(address(1));
    for _ in 0..2 {
        expect_report();
    }
    // The querier starts with a query.
    querier(&lab, false);
    querier(&lab, true);
    expect_report();
}

fn to_leave_under_a_querier_of_version_1_is_a_done() {
    let lab = with_querier_of_version(1);
    let mldproxy = start(&lab, &["--refresh-interval", "0"]);
    querier(&lab, true);
    mldproxy.wait_for_line("MLDv1 is in force upstream", SOON);
    Host::apart(&lab.lan, 1).solicits_from(address(1));
    expect_joined(&lab, &[address(1)]);
    let wire = Tap::open(&lab.sw, "rtr");
    mldproxy.signal(Signal::SIGTERM);
    expect_done(&wire);
}

fn a_querier_of_version_2_gets_reports_of_version_2() {
    let lab = with_querier_of_version(2);
    let mldproxy = start(&lab, &["--refresh-interval", "1"]);
    querier(&lab, true);
    mldproxy.wait_for_line("is the querier upstream", SOON);
    let wire = Tap::open(&lab.sw, "rtr");
    Host::apart(&lab.lan, 1).solicits_from(address(1));
    expect_five(&wire, is_refresh_v2, is_report_v1);
    assert!(summary(&mldproxy).contains("V2 in force"));
}

fn version_1_can_be_fixed() {
    let lab = with_querier_of_version(2);
    let _mldproxy = start(&lab, &["--refresh-interval", "1", "--mld-version", "1"]);
    let wire = Tap::open(&lab.sw, "rtr");
    Host::apart(&lab.lan, 1).solicits_from(address(1));
    expect_five(&wire, is_report_v1, is_refresh_v2);
    assert!(lab.mdb().contains(&solicited_node(address(1))));
}

fn version_2_can_be_fixed() {
    let lab = with_querier_of_version(1);
    let mldproxy = start(&lab, &["--refresh-interval", "1", "--mld-version", "2"]);
    querier(&lab, true);
    mldproxy.wait_for_line("is the querier upstream", SOON);
    let wire = Tap::open(&lab.sw, "rtr");
    Host::apart(&lab.lan, 1).solicits_from(address(1));
    // The kernel's own reports are MLDv1.
    expect_five(&wire, is_refresh_v2, |_| false);
    assert!(lab.mdb().contains(&solicited_node(address(1))));
}

/// RFC 2710 §4: the kernel speaks MLDv2 with the querier, and there is no refresh.
fn a_fixed_version_1_reports_a_join_at_once_and_a_leave_by_done() {
    let lab = with_querier_of_version(2);
    let mldproxy = start(&lab, &["--refresh-interval", "0", "--mld-version", "1"]);
    let wire = Tap::open(&lab.sw, "rtr");
    Host::apart(&lab.lan, 1).solicits_from(address(1));
    eventually("a report of the join", SOON, || {
        is_report_v1(&wire.receive(SOON).expect("a report"))
    });
    mldproxy.signal(Signal::SIGTERM);
    expect_done(&wire);
}

/// RFC 3810 §6.1: the kernel speaks MLDv1 with the querier, and there is no refresh.
fn a_fixed_version_2_reports_a_join_and_a_leave_at_once() {
    let lab = with_querier_of_version(1);
    let mldproxy = start(&lab, &["--refresh-interval", "0", "--mld-version", "2"]);
    querier(&lab, true);
    mldproxy.wait_for_line("is the querier upstream", SOON);
    let wire = Tap::open(&lab.sw, "rtr");
    Host::apart(&lab.lan, 1).solicits_from(address(1));
    // The second of each is the retransmission.
    expect_records(&wire, RecordType::ChangeToExclude, 2);
    mldproxy.signal(Signal::SIGTERM);
    expect_records(&wire, RecordType::ChangeToInclude, 1);
}

/// Waits for a Done of the group of `address(1)`.
#[track_caller]
fn expect_done(wire: &Tap) {
    let group = solicited_node(address(1));
    eventually("a Done", SOON, || {
        let frame = wire.receive(SOON).expect("a Done for each group");
        matches!(parse(&frame.packet), Ok(Message::Done(done)) if done.group == group)
    });
}

/// Waits for so many records of this type of the group of `address(1)`.
#[track_caller]
fn expect_records(wire: &Tap, record_type: RecordType, mut count: u32) {
    let group = solicited_node(address(1));
    eventually("a report of the change", SOON, || {
        let frame = wire.receive(SOON).expect("a report");
        if let Ok(Message::ReportV2(mut report)) = parse(&frame.packet) {
            let named = report
                .records
                .any(|record| record.group == group && record.record_type == record_type);
            count -= u32::from(named);
        }
        count == 0
    });
}
