//! The engine asks hosts whether they are still there.

use std::net::Ipv6Addr;

use model::packets::emitted;
use model::view;
use protocol::engine::{Action, Event};
use protocol::link::{Link, Side};
use protocol::ndp;
use protocol::ndp::neighbors::{Question, Sender};
use protocol::time::Duration;
use protocol::wire::{
    ALL_NODES, Done, MacAddress, NeighborAdvertisement, RecordType, ReportV1, SolicitedNode,
};

use crate::stage::{
    HOST, ROUTER, Stage, address, advertisement, downstream_link, group, report, solicitation,
};

/// The host's link-local address.
const FE80_1: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 1, 1);

impl Stage {
    /// A host has spoken. The engine has learned and reported its address 1.
    fn with_a_host() -> Stage {
        let mut stage = Stage::with_defaults();
        stage.speaks();
        stage.seen(address(1));
        stage.reports(&[1]);
        stage
    }

    /// As [`Self::with_a_host`], some time after all was asked and reported.
    fn at_rest() -> Stage {
        let mut stage = Stage::with_a_host();
        stage.pass(10);
        stage.asked();
        stage.reports.clear();
        stage
    }

    /// The host solicits the router from its link-local address.
    fn speaks(&mut self) {
        self.receive(&solicitation(FE80_1, ROUTER));
    }

    /// The host reports that it listens to the groups of these addresses.
    fn reports(&mut self, numbers: &[u32]) {
        let records: Vec<_> = numbers
            .iter()
            .map(|number| (RecordType::ModeIsExclude, group(*number)))
            .collect();
        self.receive(&report(FE80_1, &records));
    }

    /// The questions since the last call, each with its milliseconds after the first.
    fn asked(&mut self) -> Vec<(u64, String)> {
        let questions = std::mem::take(&mut self.questions);
        let first = questions.first().map_or(0, |(at, _)| *at);
        questions
            .into_iter()
            .map(|(at, question)| (at - first, question))
            .collect()
    }
}

fn questions(expected: &[(u64, &str)]) -> Vec<(u64, String)> {
    expected
        .iter()
        .map(|(at, question)| (*at, (*question).to_owned()))
        .collect()
}

const PROBE_1: &str = "!2001:db8:1::100:1";
const RESOLUTION_1: &str = "*2001:db8:1::100:1";

#[test]
fn a_host_is_asked_when_it_is_first_heard_and_its_answer_joins_what_was_never_seen() {
    let mut stage = Stage::with_defaults();
    stage.speaks();
    assert_eq!(stage.asked(), questions(&[(0, "?fe80::1:1")]));
    stage.reports(&[1, 2]);
    assert_eq!(stage.kernel.joined, [group(1), group(2)].into());
    stage.pass(20);
    assert_eq!(stage.asked(), [], "the host has answered");
}

#[test]
fn a_host_that_does_not_answer_is_asked_once_more() {
    let mut stage = Stage::with_defaults();
    stage.speaks();
    stage.pass(100);
    let twice = [(0, "?fe80::1:1"), (2000, "?fe80::1:1")];
    assert_eq!(stage.asked(), questions(&twice));
    stage.speaks();
    stage.pass(10);
    assert_eq!(stage.asked(), [], "not each time the host speaks");
    stage.pass(60);
    stage.speaks();
    stage.pass(10);
    assert_eq!(stage.asked(), questions(&twice[..1]), "but now and then");
}

#[test]
fn an_address_that_slept_through_its_first_questions_is_probed_again_soon_after_it_speaks() {
    let mut stage = Stage::with_defaults();
    stage.seen(address(1));
    stage.pass(30);
    assert_eq!(stage.asked().len(), 6, "three probes and three resolutions");
    stage.seen(address(1));
    stage.pass(1);
    assert_eq!(stage.asked()[0], (0, PROBE_1.to_owned()));
    let last = (0..60).filter(|_| {
        stage.seen(address(1));
        stage.pass(1);
        stage
            .asked()
            .iter()
            .any(|(_, question)| question == PROBE_1)
    });
    assert!((6..=15).contains(&last.count()), "but not each time");
    let to_router = advertisement(address(1), ROUTER, address(1));
    while !stage
        .asked()
        .iter()
        .any(|(_, question)| question == PROBE_1)
    {
        stage.seen(address(1));
        stage.pass(1);
    }
    stage.receive(&to_router);
    assert!(stage.is_confirmed(1));
}

/// The host may have a new link-local address since, and the old one may have been forged.
#[test]
fn a_host_that_does_not_answer_where_it_was_asked_is_asked_at_its_new_link_local_address() {
    let mut stage = Stage::with_defaults();
    stage.speaks();
    assert_eq!(stage.asked(), questions(&[(0, "?fe80::1:1")]));
    let other = "fe80::2:2".parse().unwrap();
    stage.receive(&solicitation(other, ROUTER));
    stage.pass(10);
    assert_eq!(stage.asked(), questions(&[(0, "?fe80::2:2")]));
}

/// Who sends in a host's name from another address is asked there once, and then only if the host
/// leaves another question unanswered.
#[test]
fn an_answer_from_a_hosts_own_address_ends_the_trial_of_another_one() {
    let mut stage = Stage::with_a_host();
    let other: Ipv6Addr = "fe80::bad".parse().unwrap();
    for _ in 0..20 {
        stage.pass(150);
        // Before the host answers, somebody else sends in its name.
        stage.receive(&solicitation(other, ROUTER));
        stage.reports(&[1]);
    }
    let asked = stage.asked();
    assert!(asked.len() >= 20, "{asked:?}");
    assert!(asked.iter().all(|(_, question)| question == "?fe80::1:1"));
    // It is asked there in the end, and its answer counts.
    stage.pass(150);
    stage.receive(&solicitation(other, ROUTER));
    stage.pass(2);
    let twice = questions(&[(0, "?fe80::1:1"), (2000, "?fe80::bad")]);
    assert_eq!(stage.asked(), twice);
    stage.receive(&report(other, &[(RecordType::ModeIsExclude, group(1))]));
    stage.pass(150);
    assert_eq!(stage.asked(), questions(&[(0, "?fe80::bad")]));
}

#[test]
fn a_host_without_addresses_is_asked_again_after_half_a_timeout_when_it_speaks() {
    let mut stage = Stage::with_defaults();
    stage.speaks();
    stage.asked();
    // Of what the host listens to, nothing is an address of its own.
    stage.receive(&report(FE80_1, &[(RecordType::ModeIsExclude, ALL_NODES)]));
    assert!(stage.engine.ndp().neighbors().is_empty());
    let asked_at = stage.now;
    let speaks_at = |stage: &mut Stage, millis| {
        stage.now = asked_at.saturating_add(Duration::from_millis(millis));
        stage.time_out();
        stage.speaks();
    };
    speaks_at(&mut stage, 149_999);
    speaks_at(&mut stage, 150_000);
    stage.pass(1);
    let [(millis, _)] = stage.questions[..] else {
        panic!("not once: {:?}", stage.questions);
    };
    let waited = millis - asked_at.as_millis();
    assert!((150_000..=150_050).contains(&waited), "{waited}");
    stage.seen(address(1));
    assert!(!stage.engine.ndp().neighbors().is_empty());
}
#[test]
fn what_the_kernel_remembers_of_a_host_that_was_heard_elsewhere_does_not_move_it() {
    let mut stage = Stage::with_defaults();
    stage.seen(address(1));
    for number in [1, 2] {
        let (port, mac, address) = (1, HOST, address(number));
        stage.handle(Event::Remembered { port, mac, address });
    }
    assert_eq!([1, 2].map(|number| port_of(&stage, number)), [0, 1]);
    stage.takes_over(1, HOST, address(1));
    assert_eq!([1, 2].map(|number| port_of(&stage, number)), [1, 1]);
}

#[test]
fn a_silent_host_that_answers_stays_and_one_that_does_not_goes_within_a_timeout() {
    let mut stage = Stage::with_a_host();
    stage.asked();
    for _ in 0..10 {
        stage.pass(150);
        assert_eq!(stage.asked(), questions(&[(0, "?fe80::1:1")]));
        stage.reports(&[1]);
        assert_eq!(stage.kernel.joined, [group(1)].into());
    }
    assert_eq!(stage.changes.len(), 1);
    stage.pass(300);
    let round = [
        (0, "?fe80::1:1"),
        (2000, "?fe80::1:1"),
        (4000, PROBE_1),
        (5000, PROBE_1),
        (6000, PROBE_1),
        (7000, RESOLUTION_1),
        (8000, RESOLUTION_1),
        (9000, RESOLUTION_1),
    ];
    let asked = stage.asked();
    assert_eq!(asked[..8], questions(&round));
    // At three quarters of the timeout the engine asks a second round, in case the host was asleep.
    // The host left all questions unanswered, so these go by multicast at once.
    assert_eq!(asked[8], (75_000, RESOLUTION_1.to_owned()));
    assert_eq!(asked.len(), 11);
    // The engine looks every 30 s, and a group is left 10 s after its last address.
    stage.pass(40);
    assert_eq!(stage.kernel.joined, [].into());
}

#[test]
fn an_address_that_the_answer_does_not_name_is_probed_and_another_one_is_not() {
    let mut stage = Stage::with_defaults();
    stage.speaks();
    stage.seen(address(1));
    stage.seen(address(2));
    stage.reports(&[1, 2]);
    stage.asked();
    stage.pass(150);
    assert_eq!(stage.asked(), questions(&[(0, "?fe80::1:1")]));
    stage.reports(&[2]);
    stage.pass(2);
    assert_eq!(stage.asked(), questions(&[(0, "?fe80::1:1")]));
    stage.reports(&[2]);
    stage.pass(4);
    let probes = [(0, PROBE_1), (1000, PROBE_1), (2000, PROBE_1)];
    assert_eq!(stage.asked(), questions(&probes));
}

#[test]
fn a_host_without_a_link_local_address_is_probed_and_its_answer_confirms() {
    let mut stage = Stage::with_defaults();
    stage.seen(address(1));
    assert_eq!(stage.asked(), questions(&[(0, PROBE_1)]));
    stage.pass(1);
    assert_eq!(stage.asked(), questions(&[(0, PROBE_1)]));
    stage.receive(&advertisement(address(1), ROUTER, address(1)));
    assert!(stage.is_confirmed(1));
    stage.pass(140);
    assert_eq!(stage.asked(), []);
    stage.pass(10);
    assert_eq!(stage.asked(), questions(&[(0, PROBE_1)]));
}

#[test]
fn an_advertisement_that_nobody_asked_for_confirms_nothing() {
    let mut stage = Stage::with_defaults();
    stage.seen(address(1));
    stage.receive(&advertisement(address(1), ALL_NODES, address(1)));
    let other = MacAddress([2, 0, 0, 0, 0, 9]);
    stage.receive_from(other, &advertisement(address(2), ROUTER, address(2)));
    assert!(view::known(&stage.engine).all(|known| !known.is_confirmed));
}

#[test]
fn what_is_reported_within_five_seconds_of_a_question_is_its_answer() {
    for (millis, confirms) in [(4_999, true), (5_000, false)] {
        let mut stage = Stage::with_defaults();
        stage.speaks();
        stage.seen(address(1));
        stage.pass(2);
        let twice = [(0, "?fe80::1:1"), (2000, "?fe80::1:1")];
        assert_eq!(stage.asked(), questions(&twice));
        stage.now = stage.now.saturating_add(Duration::from_millis(millis));
        stage.reports(&[1]);
        assert_eq!(stage.is_confirmed(1), confirms, "{millis}");
    }
}

#[test]
fn an_advertisement_to_somebody_else_or_one_that_is_not_solicited_answers_no_probe() {
    let mut stage = Stage::with_defaults();
    stage.seen(address(1));
    assert_eq!(stage.asked(), questions(&[(0, PROBE_1)]));
    stage.receive(&advertisement(address(1), address(2), address(1)));
    let unsolicited = NeighborAdvertisement {
        source: address(1),
        destination: ROUTER,
        target: address(1),
        router: false,
        solicited: false,
        override_flag: true,
        target_link_layer: Some(HOST),
    };
    stage.receive(&emitted(|buffer| unsolicited.emit(buffer)));
    let other = MacAddress([2, 0, 0, 0, 0, 9]);
    stage.receive_from(other, &advertisement(address(1), ROUTER, address(1)));
    assert!(!stage.is_confirmed(1));
}

#[test]
fn once_it_has_answered_what_a_host_reports_from_another_address_or_link_is_no_answer() {
    let other = "fe80::2:2".parse().unwrap();
    for (port, source, confirms) in [(0, FE80_1, true), (0, other, false), (1, FE80_1, false)] {
        let mut stage = Stage::with_defaults();
        stage.speaks();
        stage.seen(address(1));
        stage.reports(&[2]);
        let listens = [(RecordType::ModeIsExclude, group(1))];
        stage.receive_on(port, HOST, &report(source, &listens));
        assert_eq!(stage.is_confirmed(1), confirms, "{source} on {port}");
    }
}

/// Anybody can send such an advertisement at any time.
#[test]
fn an_advertisement_before_the_first_probe_confirms_nothing() {
    let mut stage = Stage::with_defaults();
    stage.speaks();
    stage.seen(address(1));
    stage.pass(3);
    let twice = [(0, "?fe80::1:1"), (2000, "?fe80::1:1")];
    assert_eq!(stage.asked(), questions(&twice));
    let answer = advertisement(address(1), ROUTER, address(1));
    stage.receive(&answer);
    assert!(!stage.is_confirmed(1));
    stage.pass(2);
    assert_eq!(stage.asked()[0].1, PROBE_1);
    stage.receive(&answer);
    assert!(stage.is_confirmed(1));
}

#[test]
fn a_host_that_never_answers_the_question_is_only_probed() {
    let mut stage = Stage::with_defaults();
    stage.speaks();
    stage.seen(address(1));
    stage.pass(4);
    stage.receive(&advertisement(address(1), ROUTER, address(1)));
    for rounds in 1..=2 {
        stage.asked();
        stage.pass(154);
        let asked = stage.asked();
        let asks = asked
            .iter()
            .filter(|(_, question)| question.starts_with('?'))
            .count();
        assert_eq!(
            asks,
            if rounds == 1 { 2 } else { 0 },
            "round {rounds}: {asked:?}"
        );
        assert!(
            asked.iter().any(|(_, question)| question == PROBE_1),
            "{asked:?}"
        );
        stage.receive(&advertisement(address(1), ROUTER, address(1)));
    }
    // Once the host answers a question, the engine asks it again.
    stage.reports(&[1]);
    stage.pass(151);
    let asked = stage.asked();
    assert_eq!(asked[asked.len() - 1].1, "?fe80::1:1", "{asked:?}");
}

#[test]
fn asking_and_probing_can_be_turned_off() {
    for (ask, probe, expected) in [
        (false, true, "!!!***"),
        (true, false, "??"),
        (false, false, ""),
    ] {
        let mut stage = Stage::with(|config| (config.ask, config.probe) = (ask, probe));
        stage.speaks();
        stage.seen(address(1));
        stage.pass(20);
        let asked: String = stage
            .asked()
            .iter()
            .map(|(_, question)| &question[..1])
            .collect();
        assert_eq!(asked, expected);
    }
}

#[test]
fn questions_are_at_least_50_milliseconds_apart_and_none_is_forgotten() {
    let mut stage = Stage::with_defaults();
    for number in 0..150_u8 {
        let mac = MacAddress([2, 0, 0, 0, 1, number]);
        let link_local = Ipv6Addr::from_bits(FE80_1.to_bits() + u128::from(number));
        let packet = solicitation(link_local, ROUTER);
        stage.receive_from(mac, &packet);
    }
    stage.pass(20);
    let asked = stage.asked();
    assert_eq!(asked.len(), 2 * 150);
    assert!(
        asked.windows(2).all(|pair| pair[1].0 - pair[0].0 >= 50),
        "{asked:?}"
    );
}

#[test]
fn what_the_kernel_remembers_is_joined_at_once_and_asked_for() {
    let mut stage = Stage::with(|config| (config.join_rate, config.join_burst) = (1, 1));
    let remembered = |stage: &mut Stage, mac, address| {
        stage.handle(Event::Remembered {
            port: 0,
            mac,
            address,
        });
    };
    for number in 1..=100_u8 {
        let mac = MacAddress([2, 0, 0, 0, 2, number]);
        remembered(&mut stage, mac, address(number.into()));
    }
    assert_eq!(
        stage.kernel.joined.len(),
        100,
        "the limit of new groups does not apply"
    );
    remembered(&mut stage, HOST, FE80_1);
    stage.pass(30);
    let asked = stage.asked();
    assert_eq!(
        asked
            .iter()
            .filter(|(_, question)| question == "?fe80::1:1")
            .count(),
        2
    );
    assert!(asked.iter().any(|(_, question)| question == PROBE_1));
    // Nobody answers.
    stage.pass(330);
    assert_eq!(stage.kernel.joined, [].into());
}

#[test]
fn what_the_kernel_remembers_is_asked_where_it_remembers_it() {
    let mut stage = Stage::with_defaults();
    let (port, mac, address) = (1, HOST, FE80_1);
    stage.fail_if(|action| {
        !matches!(
            action,
            Action::Ndp(ndp::Action::Ask {
                question: Question::Ask { port: 1, .. },
                ..
            })
        )
    });
    stage.handle(Event::Remembered { port, mac, address });
    assert_eq!(stage.asked(), questions(&[(0, "?fe80::1:1")]));
}

#[test]
fn what_the_kernel_forgets_is_asked_for_and_not_dropped() {
    let mut stage = Stage::with_a_host();
    stage.pass(10);
    stage.asked();
    stage.handle(Event::Forgotten(address(1)));
    stage.handle(Event::Forgotten(address(9)));
    assert_eq!(stage.asked(), questions(&[(0, "?fe80::1:1")]));
    stage.pass(200);
    assert_eq!(stage.kernel.joined, [group(1)].into());
}

/// RFC 4861 §7.3.3: a neighbor is solicited at most once every RetransTimer, whoever sows doubt
/// and whoever claims the address.
#[test]
fn no_address_is_solicited_twice_within_a_second() {
    let answer = advertisement(address(1), ROUTER, address(1));
    for answers in [true, false] {
        let mut stage = Stage::with(|config| config.ask = false);
        stage.seen(address(1));
        let mut answered = 0;
        for turn in 0..200 {
            stage.now = stage.now.saturating_add(Duration::from_millis(70));
            stage.time_out();
            let other = MacAddress([2, 0, 0, 0, 0, 9]);
            match turn % 3 {
                0 => stage.handle(Event::Forgotten(address(1))),
                1 => stage.receive_from(other, &solicitation(address(1), ROUTER)),
                _ => stage.seen(address(1)),
            }
            if answers && stage.solicited.len() > answered {
                answered = stage.solicited.len();
                stage.receive(&answer);
            }
        }
        let times: Vec<_> = stage.solicited.iter().map(|(at, ..)| *at).collect();
        assert!(times.len() >= 5, "{times:?}");
        for pair in times.windows(2) {
            assert!(pair[1] - pair[0] >= 1000, "{answers}: {times:?}");
        }
    }
}

#[test]
fn what_was_seen_this_moment_is_not_doubted_for_a_second() {
    let mut stage = Stage::with(|config| config.ask = false);
    stage.seen(address(2));
    stage.seen(address(1));
    stage.handle(Event::Forgotten(address(1)));
    stage.pass(2);
    let asked = stage.asked();
    let first = asked.iter().find(|(_, question)| question == PROBE_1);
    assert!(
        first.is_some_and(|(at, _)| (1000..1100).contains(at)),
        "{asked:?}"
    );
}

#[test]
fn who_is_said_to_leave_is_asked_first_and_gone_within_a_minute() {
    for v2 in [true, false] {
        let leave = |stage: &mut Stage, number| {
            let group = group(number);
            if v2 {
                stage.receive(&report(FE80_1, &[(RecordType::ChangeToInclude, group)]));
            } else {
                let source = FE80_1;
                let done = Done { source, group };
                stage.receive(&emitted(|buffer| done.emit(buffer)));
            }
        };
        let mut stage = Stage::with_defaults();
        stage.speaks();
        stage.seen(address(1));
        stage.reports(&[1, 2]);
        stage.pass(10);
        stage.asked();
        leave(&mut stage, 2);
        stage.pass(60);
        assert_eq!(stage.kernel.joined, [group(1)].into());
        let group_2 = "*ff02::1:ff00:2";
        assert_eq!(
            stage.asked(),
            questions(&[
                (0, "?fe80::1:1"),
                (2000, "?fe80::1:1"),
                (4000, group_2),
                (5000, group_2),
                (6000, group_2),
            ])
        );

        leave(&mut stage, 1);
        stage.pass(1);
        assert_eq!(stage.asked(), questions(&[(0, "?fe80::1:1")]));
        stage.reports(&[1]);
        stage.pass(60);
        assert_eq!(stage.kernel.joined, [group(1)].into(), "the host answered");

        leave(&mut stage, 1);
        stage.pass(60);
        assert_eq!(stage.kernel.joined, [].into(), "nobody answered");
    }
}

/// Somebody on the host's link sends in its name, from another link-local address, as many groups as
/// the host may listen to.
#[test]
fn made_up_groups_in_a_hosts_name_are_not_confirmed_and_leave_room_for_its_own() {
    let mut stage = Stage::with(|config| config.learn = protocol::config::Learn::Mld);
    let groups = |numbers: std::ops::Range<u32>| {
        let records = numbers.map(|number| (RecordType::ModeIsExclude, group(number)));
        records.collect::<Vec<_>>()
    };
    let forged = report("fe80::bad".parse().unwrap(), &groups(100..162));
    let answer = |stage: &mut Stage, own: u32| {
        for (_, question) in stage.asked() {
            if question == "?fe80::1:1" {
                stage.receive(&report(FE80_1, &groups(1..own)));
            }
        }
    };
    stage.speaks();
    for second in 0..400 {
        stage.receive(&forged);
        answer(&mut stage, if second < 200 { 3 } else { 5 });
        stage.pass(1);
    }
    let confirmed = view::known(&stage.engine).filter(|known| known.is_confirmed);
    let confirmed: Vec<_> = confirmed.map(|known| known.identity.group()).collect();
    let own = [1, 2, 3, 4].map(|number| SolicitedNode::of(address(number)));
    assert_eq!(confirmed.len(), own.len(), "{confirmed:?}");
    assert!(own.iter().all(|group| confirmed.contains(group)));
}

/// Whoever wants a listener confirmed could otherwise report it twice.
#[test]
fn a_report_confirms_a_listener_only_while_its_group_or_its_host_is_asked() {
    for (seconds, confirms) in [(0, false), (5, true), (6, true), (60, false)] {
        let mut stage = Stage::with(|config| config.learn = protocol::config::Learn::Mld);
        let other = "fe80::2:2".parse().unwrap();
        let report = report(other, &[(RecordType::ModeIsExclude, group(1))]);
        stage.speaks();
        stage.receive(&report);
        stage.pass(seconds);
        stage.receive(&report);
        let known = view::known(&stage.engine).next().unwrap();
        assert_eq!(known.is_confirmed, confirms, "after {seconds} s");
    }
}

#[test]
fn reports_of_both_versions_join_where_mld_is_learned_from() {
    use protocol::config::Learn;
    for (learn, ndp, mld) in [
        (Learn::Both, true, true),
        (Learn::Ndp, true, false),
        (Learn::Mld, false, true),
    ] {
        let mut stage = Stage::with(|config| config.learn = learn);
        stage.seen(address(1));
        let v1 = ReportV1 {
            source: FE80_1,
            group: group(2),
        };
        stage.receive(&emitted(|buffer| v1.emit(buffer)));
        for (number, record_type) in (3..).zip([
            RecordType::ChangeToExclude,
            RecordType::ModeIsExclude,
            RecordType::AllowNewSources,
        ]) {
            stage.receive(&report(FE80_1, &[(record_type, group(number))]));
        }
        for record_type in [
            RecordType::ModeIsInclude,
            RecordType::BlockOldSources,
            RecordType::Unknown(9),
        ] {
            stage.receive(&report(FE80_1, &[(record_type, group(9))]));
        }
        let other = "ff02::fb".parse().unwrap();
        stage.receive(&report(FE80_1, &[(RecordType::ChangeToExclude, other)]));
        let expected = [(ndp, 1), (mld, 2), (mld, 3), (mld, 4), (mld, 5)];
        let expected = expected.iter().filter(|(learned, _)| *learned);
        let expected = expected.map(|(_, number)| group(*number)).collect();
        assert_eq!(stage.kernel.joined, expected, "{learn:?}");
        // An address that was learned by MLD alone ages like any other.
        stage.pass(345);
        assert_eq!(stage.kernel.joined, [].into());
    }
}

#[test]
fn a_renewal_asks_all_hosts_and_reports_all_groups() {
    let mut stage = Stage::at_rest();
    stage.handle(Event::Renew);
    assert_eq!(stage.asked(), questions(&[(0, "?fe80::1:1")]));
    assert_eq!(stage.reports.len(), 1);
}

/// The querier's clock ran on while the caller stood still. No host is asked for that.
#[test]
fn a_stall_has_all_groups_reported() {
    let mut stage = Stage::at_rest();
    stage.handle(Event::Stalled);
    assert_eq!((stage.asked().len(), stage.reports.len()), (0, 1));
}

#[test]
fn a_renewal_asks_a_host_that_was_asked_just_now() {
    let mut stage = Stage::with_a_host();
    stage.asked();
    stage.pass(2);
    stage.handle(Event::Renew);
    assert_eq!(stage.asked(), questions(&[(0, "?fe80::1:1")]));
}

#[test]
fn what_is_known_has_its_turn_beside_newcomers() {
    let mut stage = Stage::with(|config| config.ask = false);
    stage.seen(address(1));
    stage.receive(&advertisement(address(1), ROUTER, address(1)));
    stage.pass(149);
    for number in 2..42 {
        stage.seen(address(number));
    }
    stage.asked();
    // Address 1 is due in a second. The questions about the others take two. One in four is not
    // for newcomers.
    stage.pass(4);
    let asked = stage.asked();
    let place = asked.iter().position(|(_, question)| question == PROBE_1);
    assert!(
        place.is_some_and(|place| (20..24).contains(&place)),
        "{place:?} of {asked:?}"
    );
}
#[test]
fn who_claims_an_address_first_keeps_it_before_it_is_confirmed_too() {
    let claim = solicitation(address(1), ROUTER);
    let thief = MacAddress([2, 0, 0, 0, 0, 9]);
    for (port, mac) in [(0, HOST), (0, thief), (1, thief)] {
        let mut stage = Stage::with_defaults();
        stage.receive_on(1, HOST, &claim);
        assert!(!stage.is_confirmed(1));
        // The question that is under way is lost.
        stage.solicited.clear();
        stage.receive_on(port, mac, &claim);
        // Both answer what they are asked.
        stage.pass_with(10, address(1), &[(port, mac), (1, HOST)]);
        assert_eq!(stage.sent(), ["lan1 ?2001:db8:1::100:1"]);
        let owner = owner_of(&stage, 1);
        assert_eq!((owner.port, owner.mac), (1, HOST));
        assert!(stage.is_confirmed(1));
    }
}

/// A claim that nobody answers for changes nothing, however silent the holder is.
#[test]
fn who_claims_an_address_and_does_not_answer_does_not_get_it() {
    let mut stage = Stage::with_a_host();
    let thief = MacAddress([2, 0, 0, 0, 0, 9]);
    for _ in 0..30 {
        stage.receive_on(1, thief, &solicitation(address(1), ROUTER));
        stage.pass(1);
    }
    assert_eq!(owner(&stage), HOST);
    assert!(stage.sent().contains(&"lan1 ?2001:db8:1::100:1".to_owned()));
}

/// The host that has `address(number)`.
fn owner_of(stage: &Stage, number: u32) -> Sender {
    view::address(&stage.engine, address(number)).unwrap().owner
}

fn owner(stage: &Stage) -> MacAddress {
    owner_of(stage, 1).mac
}

fn port_of(stage: &Stage, number: u32) -> u8 {
    owner_of(stage, number).port
}
#[test]
fn a_confirmed_address_stays_with_its_host_until_that_does_not_answer() {
    let mut stage = Stage::with_a_host();
    let thief = MacAddress([2, 0, 0, 0, 0, 9]);
    let claim = solicitation(address(1), ROUTER);
    stage.pass(5);
    stage.receive_from(thief, &claim);
    assert_eq!(stage.sent(), ["lan0 ?2001:db8:1::100:1"]);
    stage.pass_with(20, address(1), &[(0, thief), (0, HOST)]);
    assert_eq!((stage.sent(), owner(&stage)), (vec![], HOST));

    stage.receive_from(thief, &claim);
    stage.pass_with(3, address(1), &[(0, thief)]);
    assert_eq!(owner(&stage), HOST, "the last answer has a second");
    stage.pass_with(1, address(1), &[(0, thief)]);
    assert_eq!(owner(&stage), thief);
    assert_eq!(stage.sent().len(), 4, "three to the holder, one to all");
    assert!(stage.is_confirmed(1));
    assert_eq!(stage.kernel.joined, [group(1)].into());
    assert_eq!(stage.changes.len(), 1);
}

/// The engine starts early enough for all hosts to have their turn, 20 a second, with three tenths
/// of the timeout to spare.
#[test]
fn the_more_hosts_there_are_the_sooner_each_is_asked_again() {
    for (others, seconds) in [(0, 150), (2_399, 150), (2_999, 120), (4_000, 75)] {
        let mut stage = Stage::with(|config| config.probe = false);
        for number in 0..others {
            let [_, _, a, b] = u32::to_be_bytes(number);
            let mac = MacAddress([2, 1, 0, 0, a, b]);
            stage.receive_from(mac, &solicitation(address(10_000 + number), ROUTER));
        }
        stage.speaks();
        stage.seen(address(1));
        stage.pass(1);
        stage.reports(&[1]);
        stage.asked();
        stage.pass(seconds - 1);
        assert_eq!(stage.asked(), [], "{others}");
        stage.pass(2);
        assert_eq!(stage.asked(), questions(&[(0, "?fe80::1:1")]), "{others}");
    }
}
#[test]
fn the_last_question_has_a_second_for_its_answer_before_a_claimant_is_asked() {
    for (millis, keeps) in [(2_900, true), (3_100, false)] {
        let mut stage = Stage::with_a_host();
        let heir = MacAddress([2, 0, 0, 0, 0, 9]);
        stage.receive_on(1, heir, &solicitation(address(1), ROUTER));
        stage.pass_millis(millis);
        let answer = advertisement(address(1), ROUTER, address(1));
        stage.receive_on(1, heir, &answer);
        stage.receive(&answer);
        assert_eq!(owner(&stage) == HOST, keeps, "{millis}");
    }
}

/// Examples are the virtual address of two routers, and a network card that was replaced. Who takes
/// over says so once, and then only answers.
#[test]
fn who_took_an_address_over_and_only_answers_has_it_on_the_same_link_and_on_another() {
    for port in [0, 1] {
        let mut stage = Stage::with_a_host();
        stage.pass(100);
        stage.asked();
        let heir = MacAddress([2, 0, 0, 0, 0, 9]);
        let claim = advertisement(address(1), ALL_NODES, address(1));
        stage.receive_on(port, heir, &claim);
        stage.pass_with(5, address(1), &[(port, heir)]);
        let owner = owner_of(&stage, 1);
        assert_eq!((owner.port, owner.mac), (port, heir));
        assert!(stage.is_confirmed(1));
        assert_eq!(stage.changes.len(), 1, "its group was never left");
    }
}

/// A host that comes to a link joins its groups there before anybody asks it. It answers for its
/// address there alone, perhaps long after it left the other link.
#[test]
fn an_address_is_looked_for_where_its_host_answers_and_had_reported_before() {
    for was_sought in [false, true] {
        let mut stage = Stage::with_a_host();
        assert!(stage.is_confirmed(1));
        stage.pass(20);
        if was_sought {
            stage.handle(Event::Forgotten(address(1)));
            stage.pass(20);
        }
        let report = report(FE80_1, &[(RecordType::ModeIsExclude, group(1))]);
        stage.receive_on(1, HOST, &report);
        stage.receive_on(1, HOST, &report);
        stage.pass_with(10, address(1), &[(1, HOST)]);
        assert_eq!(port_of(&stage, 1), 1, "{was_sought}");
        assert!(stage.is_confirmed(1));
    }
}

/// Nobody says that anything changed. The old host stops answering, and another one answers.
#[test]
fn an_address_is_looked_for_before_it_is_given_up() {
    let mut stage = Stage::with_a_host();
    let heir = MacAddress([2, 0, 0, 0, 0, 9]);
    for _ in 0..400 {
        stage.pass(1);
        for (_, question) in std::mem::take(&mut stage.questions) {
            if [RESOLUTION_1, PROBE_1].contains(&&*question) && owner(&stage) == heir
                || question == RESOLUTION_1
            {
                stage.receive_from(heir, &advertisement(address(1), ROUTER, address(1)));
            }
        }
    }
    assert_eq!(owner(&stage), heir);
    assert_eq!(stage.changes.len(), 1, "its group was never left");
}

/// While the host of an address answers, nobody else gets it by answering a solicitation, even one
/// that every node hears.
#[test]
fn who_answers_beside_an_addresss_own_host_does_not_get_it() {
    let thief = MacAddress([2, 0, 0, 0, 0, 9]);
    let answer = advertisement(address(1), ROUTER, address(1));
    for port in [0, 1] {
        let mut stage = Stage::with_a_host();
        let mut solicited = 0;
        for _ in 0..60 {
            let claim = advertisement(address(1), ALL_NODES, address(1));
            stage.receive_on(port, thief, &claim);
            stage.pass(1);
            for (_, side, _) in std::mem::take(&mut stage.solicited) {
                solicited += 1;
                if side == Side::Downstream(port) {
                    stage.receive_on(port, thief, &answer);
                }
                // The network loses every second answer.
                if side == Side::Downstream(0) && solicited % 2 == 0 {
                    stage.receive(&answer);
                }
            }
            assert_eq!(owner(&stage), HOST);
        }
        assert!(solicited > 10);
    }
}

#[test]
fn four_thousand_hosts_that_answer_stay_joined_at_20_questions_a_second() {
    let mut stage = Stage::with_defaults();
    let link_local = |number: u32| Ipv6Addr::from_bits(FE80_1.to_bits() + u128::from(number));
    let mac = |number: u32| {
        let [a, b, c, d] = number.to_be_bytes();
        MacAddress([2, 7, a, b, c, d])
    };
    for number in 0..4096 {
        for address in [link_local(number), address(number)] {
            if number < 3000 {
                let (port, mac) = (0, mac(number));
                stage.handle(Event::Remembered { port, mac, address });
            } else {
                stage.receive_from(mac(number), &solicitation(address, ROUTER));
            }
        }
    }
    stage.pass(30);
    stage.questions.clear();
    assert_eq!(stage.kernel.joined.len(), 4096);
    let mut most = 0;
    for _ in 0..3600 {
        stage.pass(1);
        let asked = stage.asked();
        most = most.max(asked.len());
        for (_, question) in asked {
            let host: Ipv6Addr = question
                .strip_prefix('?')
                .expect("nobody is probed")
                .parse()
                .unwrap();
            let number = u32::try_from(host.to_bits() - FE80_1.to_bits()).unwrap();
            let records = [(RecordType::ModeIsExclude, group(number))];
            stage.receive_from(mac(number), &report(host, &records));
        }
        assert_eq!(stage.kernel.joined.len(), 4096);
    }
    assert!(most <= 21, "{most} in a second");
    assert_eq!(stage.changes.len(), 4096, "no group was ever left");
}

#[test]
fn an_answer_to_the_last_probe_confirms() {
    let mut stage = Stage::with_defaults();
    stage.seen(address(1));
    stage.pass(2);
    assert_eq!(stage.asked().len(), 3);
    stage.receive(&advertisement(address(1), ROUTER, address(1)));
    assert!(view::known(&stage.engine).all(|known| known.is_confirmed));
}

#[test]
fn an_outage_of_the_downstream_costs_no_host_that_answers_after_it() {
    let mut stage = Stage::with_a_host();
    stage.pass(140);
    stage.handle(Event::Link(Side::Downstream(0), None));
    stage.handle(Event::Forgotten(address(1)));
    stage.asked();
    stage.pass(30);
    assert_eq!(stage.asked(), [], "nothing can be sent");
    stage.handle(Event::Link(Side::Downstream(0), Some(downstream_link(0))));
    assert_eq!(
        stage.asked(),
        questions(&[(0, "?fe80::1:1")]),
        "the link is back"
    );
    stage.reports(&[1]);
    stage.pass(149);
    assert_eq!(stage.kernel.joined, [group(1)].into());
}

#[test]
fn a_downstream_that_changes_without_an_end_costs_no_questions() {
    let mut stage = Stage::with_a_host();
    stage.pass(20);
    stage.asked();
    let downstream = |last| {
        let mac = MacAddress([2, 0, 0, 0, 0xff, last]);
        let link = downstream_link(0);
        Some(Link { mac, ..link })
    };
    stage.handle(Event::Link(Side::Downstream(0), downstream(7)));
    stage.handle(Event::Link(Side::Downstream(1), None));
    stage.handle(Event::Link(Side::Downstream(1), downstream(1)));
    stage.pass(20);
    assert_eq!(stage.asked(), []);
}

#[test]
fn a_host_that_was_doubted_twice_while_it_slept_is_asked_again_before_its_end() {
    let mut stage = Stage::with_a_host();
    for _ in 0..2 {
        stage.pass(30);
        stage.handle(Event::Forgotten(address(1)));
    }
    stage.pass(40);
    stage.asked();
    // The host is awake again, but sends nothing of its own accord.
    stage.pass(130);
    let first = questions(&[(0, RESOLUTION_1)]);
    assert_eq!(stage.asked().first(), first.first());
    stage.receive(&advertisement(address(1), ROUTER, address(1)));
    stage.pass(200);
    assert_eq!(stage.kernel.joined, [group(1)].into());
}

#[test]
fn a_round_that_ends_at_three_quarters_of_the_timeout_is_the_last() {
    let asked_after = |seconds| {
        let mut stage = Stage::with(|config| config.ask = false);
        stage.seen(address(1));
        stage.receive(&advertisement(address(1), ROUTER, address(1)));
        stage.pass(seconds);
        stage.asked();
        stage.handle(Event::Forgotten(address(1)));
        stage.pass(300 - seconds);
        stage.asked().len()
    };
    assert_eq!(asked_after(221), 6);
    assert_eq!(asked_after(222), 3);
}

#[test]
fn an_address_takes_the_place_of_the_listener_that_its_host_was_known_as() {
    let mut stage = Stage::with_defaults();
    stage.speaks();
    stage.reports(&[1]);
    stage.seen(address(1));
    assert_eq!(stage.engine.ndp().neighbors().len(), 1);
    assert!(view::known(&stage.engine).all(|known| known.is_confirmed));
    assert_eq!(stage.changes.len(), 1);
    let group = SolicitedNode::of(address(1));
    assert_eq!(stage.engine.ndp().groups().get(group).unwrap().members, 1);
}

#[test]
fn a_forged_link_local_address_diverts_no_question_from_a_host_that_answers() {
    let mut stage = Stage::with_a_host();
    let other = "fe80::bad".parse().unwrap();
    stage.receive(&solicitation(other, ROUTER));
    stage.receive(&report(other, &[(RecordType::ChangeToInclude, group(1))]));
    stage.pass(11);
    let asked = stage.asked();
    assert!(
        asked.iter().all(|(_, question)| question == "?fe80::1:1"),
        "{asked:?}"
    );
    stage.reports(&[1]);
    stage.pass(60);
    assert_eq!(stage.kernel.joined, [group(1)].into());
}

#[test]
fn one_host_that_sows_doubt_does_not_take_all_the_questions() {
    let mut stage = Stage::with_a_host();
    stage.asked();
    for number in 0..1000_u32 {
        let source = Ipv6Addr::from_bits(FE80_1.to_bits() + u128::from(number % 2));
        stage.receive(&report(source, &[(RecordType::ChangeToInclude, group(1))]));
        if number % 10 == 0 {
            stage.pass(1);
            if stage
                .questions
                .last()
                .is_some_and(|(at, _)| *at + 1000 >= stage.now.as_millis())
            {
                stage.reports(&[1]);
            }
        }
    }
    // The engine asks every 10 s, for 100 s.
    let asked = stage.asked().len();
    assert!((5..=30).contains(&asked), "{asked}");
    assert_eq!(stage.kernel.joined, [group(1)].into());
}

#[test]
fn a_renewal_asks_hosts_without_addresses_too() {
    let mut stage = Stage::with_defaults();
    stage.speaks();
    // The host answers, but of what it listens to, nothing is an address of its own.
    stage.receive(&report(FE80_1, &[(RecordType::ModeIsExclude, ALL_NODES)]));
    stage.asked();
    stage.pass(11);
    stage.handle(Event::Renew);
    stage.pass(1);
    let at_once = stage.asked();
    stage.receive(&report(FE80_1, &[(RecordType::ModeIsExclude, ALL_NODES)]));
    stage.pass(199);
    stage.speaks();
    stage.pass(1);
    let when_it_speaks = stage.asked();
    assert_eq!((at_once.len(), when_it_speaks.len()), (1, 1));
}
