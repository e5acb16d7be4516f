//! RFC 3810 §7.1, §7.6.1, §7.6.2 and §8.3.1: the election, the general queries, and what another
//! querier's queries do.

use protocol::config::QuerierMode;
use protocol::mld::querier::Role;

use super::*;
use crate::stage::{ROUTER, downstream_link};

const LOWER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);
const HIGHER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 1, 2);
const GENERAL: Ipv6Addr = Ipv6Addr::UNSPECIFIED;

fn role(stage: &Stage) -> Role {
    let querier = stage.engine.mld().streams().querier(0);
    querier.expect("a downstream").role()
}

fn is_querier(stage: &Stage) -> bool {
    matches!(role(stage), Role::Querier { .. })
}

#[test]
fn the_startup_queries_come_at_once_and_a_quarter_interval_later_on_each_link() {
    let mut stage = unforwarded(|_, _| {});
    let start = stage.millis();
    stage.pass(300);
    let mut words = stage.words_since(start);
    words.retain(|(_, words)| words.starts_with("lan0"));
    let general = |at, delay| (at, format!("lan0 general {delay}"));
    let expected = [
        general(0, 100),
        general(31_250, 10_000),
        general(156_250, 10_000),
        general(281_250, 10_000),
    ];
    assert_eq!(words, expected);
}

#[test]
fn a_link_that_comes_back_or_changes_its_address_is_queried_anew() {
    let mut stage = proxy(|_| {});
    stage.says(0, 1, Allow, SSM, &[1]);
    stage.words();
    let link = downstream_link(0);
    let same = protocol::link::Link { mtu: 1400, ..link };
    stage.handle(Event::Link(Side::Downstream(0), Some(same)));
    assert_eq!(
        stage.words(),
        Vec::<String>::new(),
        "nothing that matters has changed"
    );
    stage.handle(Event::Link(Side::Downstream(0), None));
    assert_eq!(role(&stage), Role::Down);
    stage.pass(60);
    assert_eq!(
        stage.joined(SSM),
        "in {1}",
        "its listeners have 260 s to come back"
    );
    stage.streams.clear();
    stage.handle(Event::Link(Side::Downstream(0), Some(link)));
    assert_eq!(stage.words(), ["lan0 general 100"]);
    let other = protocol::link::Link {
        link_local: Some(HIGHER),
        ..link
    };
    stage.handle(Event::Link(Side::Downstream(0), Some(other)));
    assert_eq!(stage.words(), ["lan0 general 100"]);
}

#[test]
fn a_leave_on_a_link_that_changes_its_address_is_asked_about_by_the_first_query() {
    let mut stage = proxy(|_| {});
    stage.says(0, 1, Allow, SSM, &[1]);
    stage.says(0, 1, Block, SSM, &[1]);
    let link = protocol::link::Link {
        link_local: Some(HIGHER),
        ..downstream_link(0)
    };
    stage.words();
    stage.handle(Event::Link(Side::Downstream(0), Some(link)));
    stage.says(0, 2, IsInclude, SSM, &[1]);
    stage.pass(20);
    assert_eq!(stage.words(), ["lan0 general 100"], "nothing more is asked");
    assert_eq!(stage.joined(SSM), "in {1}");
}

#[test]
fn the_lower_address_is_the_querier_until_it_is_silent() {
    let mut stage = proxy(|_| {});
    for (by, wins) in [(HIGHER, false), (ROUTER, false), (LOWER, true)] {
        stage.is_queried(0, by, GENERAL, v2(2, 100));
        assert_eq!(!is_querier(&stage), wins, "{by}");
    }
    stage.words();
    // RFC 3810 §9.5: 2 × 100 s + 10 s / 2.
    stage.pass_millis(204_999);
    let words = stage.words();
    assert!(
        words.iter().all(|words| words.starts_with("lan1")),
        "{words:?}"
    );
    stage.pass_millis(1);
    assert!(is_querier(&stage));
    assert_eq!(stage.words(), ["lan0 general 10000"]);
}

#[test]
fn the_variables_are_those_of_the_querier_while_there_is_another() {
    let mut stage = proxy(|_| {});
    stage.is_queried(0, LOWER, GENERAL, v2(3, 20));
    stage.says(0, 1, Allow, SSM, &[1]);
    stage.pass_millis(69_999);
    assert_eq!(stage.wish(0, SSM), "in {1}");
    stage.pass_millis(1);
    assert_eq!(stage.wish(0, SSM), "-", "3 × 20 s + 10 s");
    // A query that tells none of them leaves them as they are (RFC 3810 §5.1.8, §5.1.9).
    stage.is_queried(0, LOWER, GENERAL, v2(3, 20));
    stage.is_queried(0, LOWER, GENERAL, v2(0, 0));
    stage.says(0, 1, Allow, SSM, &[1]);
    stage.pass(70);
    assert_eq!(stage.wish(0, SSM), "-");
}

#[test]
fn who_is_not_the_querier_sends_no_query_and_waits_for_the_queriers() {
    let mut stage = proxy(|_| {});
    stage.is_queried(0, LOWER, GENERAL, v2(2, 125));
    stage.says(0, 1, Allow, SSM, &[1, 2]);
    stage.says(0, 1, ToExclude, ASM, &[]);
    stage.words();
    stage.says(0, 1, Block, SSM, &[1]);
    stage.says(0, 1, ToInclude, ASM, &[]);
    stage.pass(10);
    assert_eq!(stage.words(), Vec::<String>::new());
    assert_eq!(
        (&*stage.joined(SSM), &*stage.joined(ASM)),
        ("in {1 2}", "ex {}")
    );

    let mut octets = [0; 16];
    let sources = Sources::write([source(1)].into_iter(), &mut octets);
    let about = |suppresses| QueryVersion::V2 {
        suppress_router_processing: suppresses,
        robustness: 2,
        query_interval: Duration::from_secs(125),
        sources,
    };
    // With the S flag, from who is not the querier, or to the router alone, it does nothing.
    stage.is_queried(0, LOWER, SSM, about(true));
    stage.is_queried(0, HIGHER, SSM, about(false));
    let to_router = Query {
        source: LOWER,
        destination: ROUTER,
        group: SSM,
        max_response_delay: Duration::from_secs(1),
        version: about(false),
    };
    stage.receive_on(0, host(0xee).0, &emitted(|buffer| to_router.emit(buffer)));
    stage.pass(10);
    assert_eq!(stage.joined(SSM), "in {1 2}");
    stage.is_queried(0, LOWER, SSM, about(false));
    stage.is_queried(0, LOWER, ASM, v2(2, 125));
    stage.pass_millis(1_999);
    assert_eq!(
        (&*stage.joined(SSM), &*stage.joined(ASM)),
        ("in {1 2}", "ex {}")
    );
    stage.pass_millis(1);
    assert_eq!((&*stage.joined(SSM), &*stage.joined(ASM)), ("in {2}", "-"));
}

#[test]
fn queries_that_are_left_end_with_the_election() {
    let mut stage = proxy(|_| {});
    stage.says(0, 1, Allow, SSM, &[1]);
    stage.says(0, 1, Block, SSM, &[1]);
    stage.is_queried(0, LOWER, GENERAL, v2(2, 125));
    stage.words();
    stage.says(0, 2, IsInclude, SSM, &[1]);
    stage.pass(20);
    assert_eq!(stage.words(), Vec::<String>::new());
    assert_eq!(stage.joined(SSM), "in {1}");
}

#[test]
fn the_user_may_want_no_queries() {
    let mut stage = proxy(|config| config.querier = QuerierMode::Off);
    stage.says(0, 1, Allow, SSM, &[1]);
    stage.says(0, 1, Block, SSM, &[1]);
    stage.pass(200);
    let words = stage.words();
    let is_query = |words: &String| words.starts_with("lan");
    assert!(!words.iter().any(is_query), "{words:?}");
    assert_eq!(stage.joined(SSM), "in {1}", "nobody was asked");
    // Whoever queries is the querier, whatever its address is.
    stage.is_queried(0, HIGHER, GENERAL, v2(2, 125));
    assert!(matches!(role(&stage), Role::Off(Some(other)) if other.address == HIGHER));
    let way = stage.way(Side::Upstream, source(1), SSM);
    assert_eq!(way, [Side::Downstream(0)], "it forwards all the same");
    stage.pass(255);
    assert_eq!(role(&stage), Role::Off(None));
}

#[test]
fn in_the_mode_of_mldv1_all_queries_are_of_mldv1() {
    let mut stage = unforwarded(|_, config| config.querier = QuerierMode::V1);
    stage.reports_v1(0, 1, ASM);
    stage.is_done(0, 1, ASM);
    stage.pass(1);
    let mut words = stage.words();
    words.retain(|words| words.starts_with("lan0"));
    let about = format!("lan0 ?{ASM} {{}} v1");
    assert_eq!(words, ["lan0 general 100 v1", &about, &about]);
    stage.pass(2);
    assert_eq!(stage.joined(ASM), "-");
}

#[test]
fn an_mldv1_query_about_a_group_lowers_its_timer() {
    let mut stage = proxy(|_| {});
    stage.reports_v1(0, 1, ASM);
    stage.is_queried(0, LOWER, GENERAL, QueryVersion::V1);
    stage.pass(5);
    assert_eq!(stage.joined(ASM), "ex {}");
    stage.is_queried(0, LOWER, ASM, QueryVersion::V1);
    stage.pass(2);
    assert_eq!(stage.joined(ASM), "-");
}

#[test]
fn when_the_user_wants_all_anew_the_startup_is_repeated() {
    let mut stage = proxy(|_| {});
    stage.handle(Event::Renew);
    assert_eq!(stage.words(), ["lan0 general 100", "lan1 general 100"]);
    stage.is_queried(0, LOWER, GENERAL, v2(2, 125));
    stage.handle(Event::Renew);
    assert_eq!(
        stage.words(),
        ["lan1 general 100"],
        "the other one is the querier"
    );
}
