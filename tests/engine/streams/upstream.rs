//! The memberships upstream and their reports, in the version in force (RFC 3810 §6, §8.2, and
//! RFC 4604 §2.2).

use protocol::config::MldMode;
use protocol::counters::Counter;
use protocol::engine::Action;
use protocol::link::Link;
use protocol::mld::{self, streams};

use super::*;
use crate::stage::LINK_LOCAL;

/// The version that the user wants.
fn in_mode(mode: MldMode) -> Stage {
    proxy_with(|config, _| config.mld_mode = mode)
}

#[test]
fn a_join_and_a_leave_are_reported_right_after_they_are_done() {
    let mut stage = proxy(|config| config.fast_leave = true);
    stage.says(0, 1, Allow, SSM, &[1]);
    assert_eq!(stage.words(), [format!("ALLOW {SSM} {{1}}")]);
    stage.says(0, 1, Block, SSM, &[1]);
    assert_eq!(stage.words(), [format!("BLOCK {SSM} {{1}}")]);
    stage.pass(30);
    let again = stage.words();
    assert!(
        again.iter().all(|words| !words.contains(&SSM.to_string())),
        "{again:?}"
    );
}

#[test]
fn a_membership_that_fails_is_reported_once_it_succeeds() {
    let mut stage = proxy(|_| {});
    stage.fail_if(|action| {
        matches!(
            action,
            Action::Mld(mld::Action::Streams(streams::Action::Membership(_)))
        )
    });
    stage.says(0, 1, Allow, SSM, &[1]);
    stage.says(0, 1, Allow, SSM, &[2]);
    stage.pass(2);
    assert_eq!(stage.count(Counter::MembershipFailed), 3, "each second");
    assert_eq!(stage.words(), Vec::<String>::new());
    stage.fail_if(|_| false);
    stage.pass(1);
    assert_eq!(stage.words(), [format!("ALLOW {SSM} {{1 2}}")]);
    assert_eq!(stage.joined(SSM), "in {1 2}");
}

#[test]
fn the_refresh_tells_the_sources() {
    let mut stage = proxy(|_| {});
    stage.says(0, 1, Allow, SSM, &[1, 2]);
    stage.says(0, 1, ToExclude, ASM, &[3]);
    stage.words();
    stage.pass(60);
    let mut words = stage.words();
    words.retain(|words| words.starts_with("IS_"));
    words.sort();
    let expected = [format!("IS_EX {ASM} {{3}}"), format!("IS_IN {SSM} {{1 2}}")];
    assert_eq!(words, expected);
}

#[test]
fn an_mldv1_querier_upstream_gets_no_source_specific_group_and_gets_it_back_in_mldv2() {
    let mut stage = proxy(|_| {});
    stage.says(0, 1, Allow, SSM, &[1]);
    stage.says(0, 1, ToExclude, ASM, &[]);
    stage.upstream_queries(QueryVersion::V1);
    assert_eq!((&*stage.joined(SSM), &*stage.joined(ASM)), ("-", "ex {}"));
    let way = stage.way(Side::Upstream, source(1), SSM);
    assert_eq!(
        way,
        [Side::Downstream(0)],
        "what comes all the same is forwarded"
    );
    stage.words();
    stage.says(0, 1, Allow, SSM, &[2]);
    for _ in 0..13 {
        stage.pass(19);
        stage.says(0, 1, IsInclude, SSM, &[1, 2]);
        stage.says(0, 1, IsExclude, ASM, &[]);
    }
    let mut words = stage.words();
    words.retain(|words| !words.starts_with("lan"));
    assert!(
        words.iter().all(|it| *it == format!("report {ASM}")),
        "{words:?}"
    );
    assert!(!words.is_empty());
    // RFC 3810 §9.12: 260 s after its last query.
    assert_eq!(stage.joined(SSM), "-");
    stage.pass(13);
    assert_eq!(stage.joined(SSM), "in {1 2}");
    let words = stage.words();
    assert!(words.contains(&format!("ALLOW {SSM} {{1 2}}")), "{words:?}");
}

#[test]
fn with_senders_too_nothing_of_a_source_specific_group_is_said_in_mldv1() {
    let mut stage = proxy(|config| config.senders = true);
    stage.says(0, 1, Allow, SSM, &[1]);
    stage.words();
    stage.upstream_queries(QueryVersion::V1);
    stage.says(0, 1, Allow, SSM, &[2]);
    stage.pass(100);
    let words = stage.words();
    let of_it = |words: &&String| words.contains(&SSM.to_string()) && !words.starts_with("lan");
    assert_eq!(words.iter().find(of_it), None);
    stage.says(0, 1, IsInclude, SSM, &[1, 2]);
    stage.pass(170);
    let words = stage.words();
    assert!(words.contains(&format!("ALLOW {SSM} {{1 2}}")), "{words:?}");
}

#[test]
fn where_the_user_forces_mldv2_only_the_router_reports_it_to_an_mldv1_querier() {
    let mut stage = in_mode(MldMode::V2);
    stage.upstream_queries(QueryVersion::V1);
    stage.words();
    let start = stage.millis();
    stage.says(0, 1, Allow, SSM, &[1]);
    assert_eq!(stage.joined(SSM), "in {1}");
    let is_alone = stage.kernel.multicast.alone.contains(&SSM);
    assert!(is_alone, "the kernel would report it by MLDv1");
    stage.pass(3);
    let mut words = stage.words_since(start);
    words.retain(|(_, words)| words.contains("8000") && !words.starts_with("IS_"));
    let report = |at, what: &str| (at, format!("{what} {SSM} {{1}}"));
    assert_eq!(words, [report(0, "ALLOW"), report(1000, "TO_IN")]);
    // It answers queries, and refreshes what it reports.
    stage.upstream_queries(QueryVersion::V1);
    stage.is_queried(1, host(9).1, Ipv6Addr::UNSPECIFIED, v2(2, 125));
    stage.handle(Event::Renew);
    stage.words();
    stage.upstream_queries(QueryVersion::V1);
    stage.pass(10);
    assert!(
        stage.words().contains(&format!("IS_IN {SSM} {{1}}")),
        "the answer"
    );
    stage.pass(60);
    assert!(
        stage.words().contains(&format!("IS_IN {SSM} {{1}}")),
        "the refresh"
    );
}

#[test]
fn a_leave_within_a_second_of_its_join_is_reported_where_reports_are_repeated() {
    let mut stage = in_mode(MldMode::V2);
    stage.upstream_queries(QueryVersion::V1);
    stage.says(0, 1, Allow, SSM, &[1]);
    stage.says(1, 2, Allow, SSM, &[1, 2]);
    stage.words();
    let start = stage.millis();
    stage.pass_millis(400);
    stage.says(1, 2, Block, SSM, &[2]);
    stage.says(0, 1, Allow, SSM, &[3]);
    stage.pass(20);
    let mut words = stage.words_since(start);
    words.retain(|(_, words)| !words.starts_with("lan") && !words.starts_with("IS_"));
    let report = |at, what: &str| (at, what.to_owned());
    let expected = [
        report(400, &format!("ALLOW {SSM} {{3}}")),
        report(1000, &format!("TO_IN {SSM} {{1 2 3}}")),
        report(2400, &format!("BLOCK {SSM} {{2}}")),
        report(3400, &format!("TO_IN {SSM} {{1 3}}")),
    ];
    assert_eq!(words, expected);
}

#[test]
fn where_the_user_forces_mldv1_groups_are_reported_and_left_without_sources() {
    let mut stage = in_mode(MldMode::V1);
    stage.says(0, 1, Allow, SSM, &[1]);
    stage.says(0, 1, Allow, ASM, &[1]);
    assert_eq!(stage.joined(SSM), "-");
    assert_eq!(stage.joined(ASM), "in {1}");
    stage.pass(5);
    stage.says(0, 1, Block, ASM, &[1]);
    stage.pass(5);
    let mut words = stage.words();
    words.retain(|words| !words.starts_with("lan"));
    let (report, done) = (format!("report {ASM}"), format!("done {ASM}"));
    assert_eq!(words, [&*report, &report, &done, &done]);
}

#[test]
fn another_upstream_is_joined_anew_and_told_all() {
    let mut stage = proxy(|_| {});
    stage.says(0, 1, Allow, SSM, &[1, 2]);
    stage.says(0, 1, ToExclude, ASM, &[3]);
    stage.words();
    stage.upstream(None);
    assert_eq!((&*stage.joined(SSM), &*stage.joined(ASM)), ("-", "-"));
    let other = Link {
        index: 70,
        ..UPSTREAM
    };
    stage.upstream(Some(other));
    assert_eq!(
        (&*stage.joined(SSM), &*stage.joined(ASM)),
        ("in {1 2}", "ex {3}")
    );
    let mut words = stage.words();
    words.retain(|words| !words.starts_with("IS_"));
    let expected = [format!("ALLOW {SSM} {{1 2}}"), format!("TO_EX {ASM} {{3}}")];
    assert_eq!(words, expected);
}

#[test]
fn without_an_address_the_kernel_alone_reports_and_all_is_told_with_the_first_one() {
    let mut stage = proxy(|_| {});
    let without = Link {
        link_local: None,
        ..UPSTREAM
    };
    stage.upstream(Some(without));
    stage.words();
    stage.says(0, 1, Allow, SSM, &[1]);
    assert_eq!(stage.joined(SSM), "in {1}");
    assert_eq!(stage.words(), Vec::<String>::new());
    stage.upstream(Some(UPSTREAM));
    assert_eq!(stage.words(), [format!("IS_IN {SSM} {{1}}")]);
    assert_eq!(UPSTREAM.link_local, Some(LINK_LOCAL));
}

#[test]
fn in_the_end_the_router_reports_the_leaves_that_the_kernel_does_not() {
    let mut stage = proxy(|_| {});
    stage.says(0, 1, Allow, SSM, &[1]);
    stage.words();
    stage.end();
    stage.drain();
    assert_eq!(
        stage.words(),
        Vec::<String>::new(),
        "the kernel reports them"
    );

    let mut stage = in_mode(MldMode::V2);
    stage.upstream_queries(QueryVersion::V1);
    stage.says(0, 1, Allow, SSM, &[1, 2]);
    stage.says(0, 1, ToExclude, ASM, &[]);
    stage.pass(5);
    stage.words();
    stage.end();
    stage.drain();
    let expected = [format!("BLOCK {SSM} {{1 2}}"), format!("TO_IN {ASM} {{}}")];
    assert_eq!(stage.words(), expected);
    stage.drain();
    assert_eq!(stage.words(), Vec::<String>::new());
}

#[test]
fn a_long_change_is_told_by_the_whole_filter() {
    let mut stage = proxy(|config| config.fast_leave = true);
    let (low, high): (Vec<u16>, Vec<u16>) = ((1..=60).collect(), (101..=160).collect());
    stage.says(0, 1, Allow, SSM, &low);
    stage.words();
    stage.fail_if(|action| {
        matches!(
            action,
            Action::Mld(mld::Action::Streams(streams::Action::Membership(_)))
        )
    });
    stage.says(0, 1, Block, SSM, &low);
    stage.says(0, 1, Allow, SSM, &high);
    stage.fail_if(|_| false);
    stage.pass(1);
    let words = stage.words();
    assert_eq!(words.len(), 1, "{words:?}");
    assert!(
        words[0].starts_with(&format!("TO_IN {SSM} {{65 66")),
        "{words:?}"
    );
}

#[test]
fn reports_of_many_groups_fill_packets_and_name_each_group_once() {
    let mut stage = proxy_with(|config, proxy| {
        (config.per_mac, config.join_rate) = (u16::MAX, 10_000);
        proxy.max_groups = 1000;
    });
    stage.diligence(10);
    let group = |number: u128| Ipv6Addr::from_bits(SSM.to_bits() + number);
    for number in 0..300 {
        stage.says(0, 1, Allow, group(number), &[1, 2, 3, 4]);
    }
    stage.words();
    let other = Link {
        index: 70,
        ..UPSTREAM
    };
    stage.upstream(Some(other));
    let words = stage.words();
    let allowed = words.iter().filter(|words| words.starts_with("ALLOW"));
    let groups: BTreeSet<_> = allowed.clone().collect();
    assert_eq!((groups.len(), allowed.count()), (300, 300));
}

#[test]
fn a_source_specific_group_that_only_the_router_reports_is_left_without_a_word_by_mldv1() {
    let mut stage = proxy(|config| config.senders = true);
    stage.says(0, 1, Allow, SSM, &[1]);
    stage.says(0, 1, ToExclude, ASM, &[]);
    stage.words();
    stage.upstream_queries(QueryVersion::V1);
    stage.pass(30);
    let words = stage.words();
    let is_of_it = |words: &String| words.contains(&SSM.to_string());
    assert!(!words.iter().any(is_of_it), "{words:?}");
    assert!(words.contains(&format!("report {ASM}")), "{words:?}");
    stage.says(0, 1, ToInclude, ASM, &[]);
    stage.pass(3);
    assert!(stage.words().contains(&format!("done {ASM}")));
}

#[test]
fn a_source_specific_group_that_cannot_be_left_is_not_refreshed_by_mldv1() {
    let mut stage = proxy(|_| {});
    stage.says(0, 1, Allow, SSM, &[1]);
    stage.says(0, 1, ToExclude, ASM, &[]);
    stage.fail_if(|action| {
        matches!(
            action,
            Action::Mld(mld::Action::Streams(streams::Action::Membership(_)))
        )
    });
    stage.words();
    stage.upstream_queries(QueryVersion::V1);
    stage.pass(70);
    let words = stage.words();
    let is_of_it = |words: &String| words.contains(&SSM.to_string());
    assert!(!words.iter().any(is_of_it), "{words:?}");
    assert!(words.contains(&format!("report {ASM}")), "{words:?}");
}
