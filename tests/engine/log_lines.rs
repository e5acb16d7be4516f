//! What the log says, and how often.

use std::cell::RefCell;
use std::net::Ipv6Addr;

use log::{LevelFilter, Log, Metadata, Record};
use protocol::config::{Forward, MldVersion, ProxyConfig};
use protocol::engine::{Action, Event};
use protocol::link::Side;
use protocol::ndp;
use protocol::wire::{MacAddress, QueryVersion, RecordType};

use crate::stage::{
    GATEWAY, HOST, LINK_LOCAL, ROUTER, Stage, address, advertisement, group, heard, report,
    solicitation,
};

/// The log of this test alone: each test runs in a thread of its own.
struct Lines;

thread_local! {
    static LINES: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

impl Log for Lines {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        LINES.with_borrow(Option::is_some)
    }

    fn log(&self, record: &Record<'_>) {
        LINES.with_borrow_mut(|lines| {
            if let Some(lines) = lines {
                let level = record.level().as_str().to_lowercase();
                lines.push(format!("{level}: {}", record.args()));
            }
        });
    }

    fn flush(&self) {}
}

/// Keeps the lines from here on.
fn listen() {
    // Another test may have set the logger first.
    let _ = log::set_logger(&Lines);
    log::set_max_level(LevelFilter::Trace);
    LINES.set(Some(Vec::new()));
}

/// The lines since the last call.
fn lines() -> Vec<String> {
    LINES.replace(Some(Vec::new())).unwrap()
}

/// The lines of one level since the last call.
fn of_level(level: &str) -> Vec<String> {
    let mut lines = lines();
    lines.retain(|line| line.starts_with(level));
    lines
}

const FE80_AA: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xaa);
const FE80_BB: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xbb);
const FE80_1: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 1, 1);

#[test]
fn a_join_and_a_leave_are_told_with_the_address_that_made_them_necessary() {
    listen();
    let mut stage = Stage::new();
    stage.seen(address(1));
    let learned = format!("debug: learned {} on br-lan", address(1));
    let joined = format!("info: joined {} for {}", group(1), address(1));
    assert_eq!(lines(), [learned, joined]);
    stage.pass(350);
    let expired = format!("debug: expired {}", address(1));
    let left = format!("info: left {}, {} was its last", group(1), address(1));
    assert!(lines().ends_with(&[expired, left]));
}

#[test]
fn of_a_listener_only_the_group_can_be_told() {
    listen();
    let mut stage = Stage::new();
    stage.receive(&report(FE80_1, &[(RecordType::ModeIsExclude, group(1))]));
    let learned = format!("debug: learned a listener to {} on br-lan", group(1));
    let joined = format!("info: joined {} for a listener", group(1));
    assert_eq!(lines(), [learned, joined]);
    stage.pass(350);
    let left = format!("info: left {}, a listener was its last", group(1));
    assert!(lines().ends_with(&[left]));
}

#[test]
fn of_many_joins_at_once_five_hundred_are_told_and_then_one_a_second() {
    listen();
    let mut stage = Stage::new();
    for number in 0..700 {
        stage.seen(address(number));
    }
    assert_eq!(of_level("info").len(), 500);
    assert_eq!(stage.kernel.joined.len(), 700);
    stage.pass(1);
    for number in 700..800 {
        stage.seen(address(number));
    }
    let lines = lines();
    let told = |level: &str| lines.iter().filter(|line| line.starts_with(level)).count();
    assert_eq!(told("info: joined"), 1);
    assert_eq!(told("debug: joined"), 99);
}

#[test]
fn each_limit_that_is_reached_is_told_once_a_minute_with_what_sets_it() {
    listen();
    let mut stage = Stage::with(|config| {
        config.per_mac = 1;
        config.join_burst = 2;
        config.join_rate = 1;
    });
    let speaks = |stage: &mut Stage, mac, source| {
        let packet = solicitation(source, ROUTER);
        stage.receive_from(mac, &packet);
    };
    speaks(&mut stage, HOST, address(1));
    stage.pass(1);
    stage.receive(&advertisement(address(1), ROUTER, address(1)));
    let claim = |stage: &mut Stage| {
        speaks(stage, HOST, address(2));
        let told = of_level("warn");
        stage.receive(&advertisement(address(1), ROUTER, address(1)));
        told
    };
    let told = "warn: 02-00-00-00-00-01 holds 1 addresses and claims more, \
                which are not learned (--per-mac)";
    assert_eq!(claim(&mut stage), [told]);
    stage.pass(59);
    assert_eq!(claim(&mut stage), [""; 0]);
    stage.pass(1);
    assert_eq!(claim(&mut stage), [told]);
    // Another limit gets a line of its own.
    for number in 3..10 {
        let mac = MacAddress([2, 0, 0, 0, 1, number]);
        speaks(&mut stage, mac, address(number.into()));
    }
    let told =
        "warn: more than 1 new groups a second: 1 wait to be joined (--join-rate, --join-burst)";
    assert_eq!(of_level("warn"), [told]);
}

#[test]
fn a_full_table_is_told_with_what_is_in_it() {
    listen();
    let mut stage = Stage::new();
    for number in 0..4096 {
        stage.seen(address(number));
    }
    stage.fail_if(|action| matches!(action, Action::Ndp(ndp::Action::Leave(_))));
    stage.pass(330);
    for number in 5000..6026 {
        stage.seen(address(number));
    }
    let told = "warn: table full with 1024 addresses in 5120 groups; new ones are not learned";
    assert_eq!(of_level("warn"), [told]);
}

#[test]
fn a_target_that_comes_and_goes_upstream_is_told() {
    listen();
    let mut stage = Stage::with(|config| config.ndp_proxy = true);
    let packet = solicitation(address(1), address(9));
    stage.receive(&packet);
    let answer = advertisement(address(9), LINK_LOCAL, address(9));
    let (mac, packet) = (GATEWAY, &*answer);
    lines();
    stage.handle(heard(Side::Upstream, mac, packet));
    assert_eq!(lines(), [format!("debug: {} is upstream", address(9))]);
    stage.pass(300);
    let gone = format!("debug: {} is upstream no more", address(9));
    assert!(lines().contains(&gone));
}

#[test]
fn why_a_packet_was_dropped_is_told_by_the_name_of_its_counter() {
    listen();
    let mut stage = Stage::new();
    stage.receive(&[]);
    assert_eq!(lines(), ["trace: dropped_truncated"]);
}

#[test]
fn what_becomes_the_routers_own_is_told() {
    listen();
    let mut stage = Stage::new();
    stage.seen(address(1));
    lines();
    let (address, present) = (address(1), true);
    stage.handle(Event::Own {
        prefix_length: 128,
        index: 1,
        address,
        present,
    });
    assert_eq!(
        lines(),
        [format!("debug: {address} is no longer to be learned")]
    );
}

#[test]
fn a_querier_is_told_when_it_is_heard_and_when_it_is_silent() {
    listen();
    let mut stage = Stage::new();
    let heard = "info: fe80::aa is the querier upstream";
    stage.query_of(FE80_AA, MldVersion::V1);
    assert_eq!(lines(), [heard, "info: MLDv1 is in force upstream"]);
    stage.pass(200);
    stage.query_of(FE80_AA, MldVersion::V1);
    assert_eq!(lines(), [""; 0], "nothing changed");
    stage.pass(259);
    assert_eq!(lines(), [""; 0]);
    stage.pass(1);
    let silent = "info: no MLD query upstream for 260 s; the groups are reported all the same";
    assert_eq!(lines(), [silent, "info: MLDv2 is in force upstream"]);
    stage.pass(1000);
    assert_eq!(lines(), [""; 0], "the line was logged before");
    stage.query_of(FE80_AA, MldVersion::V2);
    assert_eq!(lines(), [heard]);
}

#[test]
fn queriers_that_take_turns_are_told_once_a_minute_and_another_version_always() {
    listen();
    let mut stage = Stage::new();
    for _ in 0..5 {
        stage.query_of(FE80_AA, MldVersion::V2);
        stage.query_of(FE80_BB, MldVersion::V2);
    }
    assert_eq!(lines(), ["info: fe80::aa is the querier upstream"]);
    stage.query_of(FE80_AA, MldVersion::V1);
    assert_eq!(lines(), ["info: MLDv1 is in force upstream"]);
    stage.pass(60);
    stage.query_of(FE80_BB, MldVersion::V2);
    assert_eq!(lines(), ["info: fe80::bb is the querier upstream"]);
}

#[test]
fn another_querier_is_told_of_with_what_it_costs_and_now_and_then() {
    let query = |by, version| model::packets::query(by, Ipv6Addr::UNSPECIFIED, version);
    let queried = |stage: &mut Stage, by, version| {
        let packet = query(by, version);
        stage.receive_from(GATEWAY, &packet);
    };
    for (forward, level, end) in [
        (Forward::Auto, "warn", "no stream is forwarded there"),
        (Forward::Always, "info", ""),
    ] {
        listen();
        let mut stage = Stage::with(|config| {
            config.mld_proxy = Some(ProxyConfig {
                forward,
                ..ProxyConfig::default()
            });
        });
        lines();
        queried(&mut stage, LINK_LOCAL, QueryVersion::V1);
        let told = lines();
        let start = format!("{level}: {LINK_LOCAL} is the querier on br-lan by MLDv1");
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(
            told[0].starts_with(&start) && told[0].contains(end),
            "{told:?}"
        );
        // Two that take turns are told of once a minute.
        for _ in 0..10 {
            queried(&mut stage, FE80_AA, model::packets::v2(2, 125));
            queried(&mut stage, LINK_LOCAL, QueryVersion::V1);
        }
        assert_eq!(lines(), Vec::<String>::new());
        stage.pass(300);
        let elected = "info: this router is the querier on br-lan";
        assert!(lines().iter().any(|line| line == elected));
    }
}
