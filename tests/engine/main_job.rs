//! The main job: learning, counting, expiry, refresh.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;

use protocol::counters::Counter;
use protocol::engine::{Action, Event, Reason};
use protocol::link::Link;
use protocol::time::{Duration, Instant};
use protocol::wire::{ALL_NODES, DropReason, SolicitedNode};
use protocol::{mld, ndp};

use crate::stage::{
    LINK_LOCAL, Stage, UPSTREAM, address, advertisement, group, solicitation, twin,
};

#[test]
fn the_source_of_a_solicitation_its_target_in_duplicate_detection_and_the_target_of_an_advertisement_are_learned()
 {
    let mut stage = Stage::new();
    stage.seen(address(1));
    stage.receive(&solicitation(Ipv6Addr::UNSPECIFIED, address(2)));
    stage.receive(&advertisement(LINK_LOCAL, ALL_NODES, address(3)));
    assert_eq!(stage.kernel.joined, [group(1), group(2), group(3)].into());
    assert_eq!(stage.count(Counter::NeighborSolicitation), 2);
    assert_eq!(stage.count(Counter::NeighborAdvertisement), 1);
    assert_eq!(stage.count(Counter::Learned), 3);
    // That a host solicits a target does not tell that the target is there.
    stage.receive(&solicitation(address(1), address(9)));
    assert_eq!(stage.kernel.joined.len(), 3);
}

#[test]
fn a_group_is_joined_with_the_first_of_its_addresses_and_left_with_the_last() {
    let mut stage = Stage::new();
    stage.seen(address(1));
    stage.pass(100);
    stage.seen(twin(1));
    assert_eq!(stage.changes.len(), 1, "{:?}", stage.changes);
    stage.pass(230);
    assert_eq!(
        stage.engine.ndp().neighbors().len(),
        1,
        "the first address has expired"
    );
    assert_eq!(stage.kernel.joined, [group(1)].into());
    stage.pass(100);
    assert_eq!(stage.kernel.joined, [].into());
    let expected = [
        format!("+{} {}", group(1), address(1)),
        format!("-{} {}", group(1), twin(1)),
    ];
    assert_eq!(stage.changes, expected);
    assert_eq!(
        stage.engine.next_deadline(),
        None,
        "the engine has nothing left to wake up for"
    );
}

#[test]
fn an_address_expires_300_seconds_after_it_was_seen_last_and_not_before() {
    let mut stage = Stage::new();
    stage.seen(address(1));
    stage.pass(60);
    stage.seen(address(1));
    // The engine looks every 30 s. At 330 s the address was seen 270 s ago, at 360 s 300 s ago.
    stage.pass(299);
    assert_eq!(stage.kernel.joined, [group(1)].into());
    assert_eq!(stage.count(Counter::Expired), 0);
    stage.pass(1);
    assert_eq!(stage.count(Counter::Expired), 1);
    // If a host comes back within 10 s, the kernel sends no reports.
    stage.pass(9);
    assert_eq!(stage.kernel.joined, [group(1)].into());
    stage.pass(1);
    assert_eq!(stage.kernel.joined, [].into());
}

#[test]
fn all_groups_are_reported_every_60_seconds_in_as_few_packets_as_the_mtu_allows() {
    let mut stage = Stage::new();
    for number in 0..4096 {
        stage.seen(address(number));
    }
    assert_eq!(stage.reports.len(), 0, "the kernel reports joins");
    let start = stage.now.as_millis() / 1000;
    stage.pass(125);
    assert_eq!(stage.reports.len(), 57 * 2);
    let (first, second) = stage.reports.split_at(57);
    for (reports, time) in [(first, 60), (second, 120)] {
        assert!(reports.iter().all(|(at, _)| *at == start + time));
        let groups: BTreeSet<_> = reports.iter().flat_map(|(_, groups)| groups).collect();
        assert_eq!(groups.len(), 4096);
        let records: usize = reports.iter().map(|(_, groups)| groups.len()).sum();
        assert_eq!(records, 4096, "each group once");
    }
}

#[test]
fn reports_keep_to_a_smaller_mtu_and_to_1280_octets_at_least() {
    for (mtu, packets) in [
        (1280, 2),
        (1492, 2),
        (68, 2),
        (9000, 2),
        (1299, 2),
        (1300, 2),
    ] {
        let mut stage = Stage::without_upstream();
        stage.upstream(Some(Link { mtu, ..UPSTREAM }));
        for number in 0..100 {
            stage.seen(address(number));
        }
        stage.pass(60);
        assert_eq!(stage.reports.len(), packets, "{mtu}");
        let room = (usize::try_from(mtu).unwrap().clamp(1280, 1500) - 56) / 20;
        assert_eq!(stage.reports[0].1.len(), room, "{mtu}");
    }
}

#[test]
fn a_report_that_could_not_be_sent_is_sent_again_and_no_group_is_left_out() {
    let mut stage = Stage::new();
    for number in 0..200 {
        stage.seen(address(number));
    }
    stage.pass(59);
    stage.fail_if(|action| matches!(action, Action::Mld(mld::Action::Report { .. })));
    stage.pass(1);
    let (deadline, reason) = stage.engine.next_deadline().unwrap();
    assert_eq!(
        (deadline.since(stage.now).as_secs(), reason),
        (1, Reason::Mld)
    );
    stage.pass(3);
    assert_eq!(stage.count(Counter::TransmitFailed), 4);
    stage.fail_if(|_| false);
    stage.pass(1);
    let groups: usize = stage.reports.iter().map(|(_, groups)| groups.len()).sum();
    assert_eq!((stage.reports.len(), groups), (3, 200));
}

#[test]
fn a_join_that_failed_is_tried_again_and_holds_up_no_other() {
    let mut stage = Stage::new();
    stage.fail_if(|action| {
        matches!(action, Action::Ndp(ndp::Action::Join(change)) if change.address == address(1))
    });
    stage.seen(address(1));
    stage.seen(address(2));
    assert_eq!(stage.kernel.joined, [group(2)].into());
    assert_eq!(stage.count(Counter::MembershipFailed), 1);
    stage.pass(5);
    assert_eq!(stage.count(Counter::MembershipFailed), 6);
    stage.fail_if(|_| false);
    stage.pass(1);
    assert_eq!(stage.kernel.joined, [group(1), group(2)].into());
}

#[test]
fn a_leave_that_failed_is_tried_again_and_dropped_if_the_group_is_wanted_again() {
    let mut stage = Stage::new();
    stage.fail_if(|action| matches!(action, Action::Ndp(ndp::Action::Leave(_))));
    stage.seen(address(1));
    stage.seen(address(2));
    stage.pass(330);
    assert_eq!(stage.kernel.joined.len(), 2, "both leaves fail");
    stage.seen(address(1));
    stage.fail_if(|_| false);
    stage.pass(2);
    assert_eq!(stage.kernel.joined, [group(1)].into());
}

#[test]
fn without_an_upstream_nothing_is_done_and_with_a_new_one_all_is_joined_anew() {
    let mut stage = Stage::without_upstream();
    stage.seen(address(1));
    assert_eq!(stage.changes.len(), 0);
    stage.upstream(Some(UPSTREAM));
    assert_eq!(stage.kernel.joined, [group(1)].into());
    let report = (stage.now.as_millis() / 1000, vec![group(1)]);
    assert_eq!(
        stage.reports,
        [report],
        "at once, since only now anybody can hear it"
    );

    stage.upstream(None);
    stage.seen(address(2));
    stage.pass(10);
    assert_eq!(stage.kernel.joined, [].into());
    let index = 8;
    let link_local = None;
    stage.upstream(Some(Link {
        index,
        link_local,
        ..UPSTREAM
    }));
    assert_eq!(
        stage.kernel.joined,
        [group(1), group(2)].into(),
        "a join needs no address"
    );
    assert_eq!(stage.reports.len(), 1, "a report does");
    stage.upstream(Some(Link { index, ..UPSTREAM }));
    assert_eq!(stage.reports[1].1, [group(1), group(2)]);

    // The same upstream again changes nothing. Another index alone means that the memberships are
    // gone.
    stage.upstream(Some(Link { index, ..UPSTREAM }));
    assert_eq!((stage.changes.len(), stage.reports.len()), (3, 2));
    stage.upstream(Some(UPSTREAM));
    assert_eq!(stage.kernel.joined, [group(1), group(2)].into());
}

#[test]
fn what_expires_while_the_upstream_is_gone_is_not_joined_again() {
    let mut stage = Stage::new();
    stage.seen(address(1));
    stage.upstream(None);
    stage.pass(400);
    assert_eq!(stage.engine.ndp().groups().len(), 0);
    stage.upstream(Some(UPSTREAM));
    assert_eq!(stage.kernel.joined, [].into());
    // The engine logs one line about a silent querier, and nothing after that.
    stage.pass(260);
    assert_eq!(stage.engine.next_deadline(), None);
}

#[test]
fn a_group_is_refused_while_groups_that_cannot_be_left_fill_the_table() {
    let mut stage = Stage::new();
    let see_all = |stage: &mut Stage, numbers| {
        for number in numbers {
            stage.seen(address(number));
        }
    };
    see_all(&mut stage, 0..4096);
    stage.fail_if(|action| matches!(action, Action::Ndp(ndp::Action::Leave(_))));
    stage.pass(330);
    assert_eq!(stage.engine.ndp().neighbors().len(), 0);
    see_all(&mut stage, 5000..6024);
    assert_eq!(stage.engine.ndp().groups().len(), 5120);
    assert_eq!(stage.count(Counter::RefusedFull), 0);
    stage.seen(address(7000));
    assert_eq!(stage.count(Counter::RefusedFull), 1);
    let addresses = stage.engine.ndp().neighbors().len();
    assert_eq!(addresses, 1024, "an address without its group is not kept");
    stage.seen(address(1));
    stage.fail_if(|_| false);
    stage.pass(2);
    assert_eq!(stage.kernel.joined.len(), 1025);
}

/// An address becomes the router's own, so the engine drops it at once.
fn goes(stage: &mut Stage, number: u32) {
    let (address, present) = (address(number), true);
    stage.handle(Event::Own {
        prefix_length: 128,
        index: 1,
        address,
        present,
    });
}

#[test]
fn each_group_is_left_ten_seconds_after_its_own_last_address() {
    let mut stage = Stage::new();
    for number in [1, 2, 3] {
        stage.seen(address(number));
    }
    goes(&mut stage, 1);
    stage.pass(4);
    goes(&mut stage, 2);
    stage.pass(6);
    assert_eq!(stage.kernel.joined, [group(2), group(3)].into());
    stage.pass(3);
    assert_eq!(stage.kernel.joined, [group(2), group(3)].into());
    stage.pass(1);
    assert_eq!(stage.kernel.joined, [group(3)].into());
    // If a group is wanted again meanwhile, its ten seconds begin anew.
    goes(&mut stage, 3);
    stage.pass(9);
    stage.seen(twin(3));
    let (address, present) = (twin(3), true);
    stage.handle(Event::Own {
        prefix_length: 128,
        index: 1,
        address,
        present,
    });
    stage.pass(9);
    assert_eq!(stage.kernel.joined, [group(3)].into());
    stage.pass(1);
    assert_eq!(stage.kernel.joined, [].into());
}

#[test]
fn a_group_that_was_wanted_while_there_was_no_upstream_is_not_joined_when_nobody_wants_it_any_more()
{
    let mut stage = Stage::without_upstream();
    stage.seen(address(1));
    goes(&mut stage, 1);
    assert!(stage.engine.ndp().groups().is_empty());
    stage.upstream(Some(UPSTREAM));
    assert_eq!(stage.changes, [""; 0]);
}

#[test]
fn a_join_that_failed_waits_for_its_second_whatever_is_left_meanwhile() {
    let mut stage = Stage::new();
    assert!(!stage.engine.ndp().groups().is_failing());
    stage.seen(address(1));
    goes(&mut stage, 1);
    stage.fail_if(|action| matches!(action, Action::Ndp(ndp::Action::Join(_))));
    let at = |stage: &mut Stage, millis: u64| {
        stage.now = Instant::from_millis(1_000_000 + millis);
        stage.time_out();
    };
    at(&mut stage, 9_500);
    stage.seen(address(2));
    assert!(stage.engine.ndp().groups().is_failing());
    at(&mut stage, 10_000);
    assert_eq!(stage.kernel.joined, [].into(), "the other group is left");
    assert_eq!(stage.count(Counter::MembershipFailed), 1);
    at(&mut stage, 10_499);
    assert_eq!(stage.count(Counter::MembershipFailed), 1);
    stage.fail_if(|_| false);
    at(&mut stage, 10_500);
    assert_eq!(stage.kernel.joined, [group(2)].into());
    assert!(!stage.engine.ndp().groups().is_failing());
}

#[test]
fn a_leave_that_failed_waits_for_its_second_whatever_is_left_meanwhile() {
    let mut stage = Stage::new();
    let at = |stage: &mut Stage, millis: u64| {
        stage.now = Instant::from_millis(1_000_000 + millis);
        let now = stage.now;
        stage.engine.handle_timeout(now);
        stage.drain();
    };
    stage.seen(address(1));
    stage.seen(address(2));
    goes(&mut stage, 1);
    at(&mut stage, 500);
    goes(&mut stage, 2);
    stage.fail_if(|action| matches!(action, Action::Ndp(ndp::Action::Leave(_))));
    at(&mut stage, 10_000);
    assert_eq!(stage.count(Counter::MembershipFailed), 1);
    stage.fail_if(|_| false);
    at(&mut stage, 10_500);
    assert_eq!(
        stage.kernel.joined,
        [group(1)].into(),
        "only the other group is left"
    );
    at(&mut stage, 10_999);
    assert_eq!(stage.kernel.joined, [group(1)].into());
    at(&mut stage, 11_000);
    assert_eq!(stage.kernel.joined, [].into());
}

#[test]
fn the_time_of_the_last_report_is_known() {
    let mut stage = Stage::new();
    stage.seen(address(1));
    assert_eq!(stage.engine.mld().host().last_report(), None);
    stage.pass(60);
    assert_eq!(stage.engine.mld().host().last_report(), Some(stage.now));
    stage.fail_if(|action| matches!(action, Action::Mld(mld::Action::Report { .. })));
    let sent = stage.now;
    stage.pass(100);
    assert_eq!(stage.engine.mld().host().last_report(), Some(sent));
}

#[test]
fn time_that_goes_back_counts_as_time_that_stands_still() {
    let mut stage = Stage::new();
    stage.seen(address(1));
    let start = stage.now;
    stage.pass(200);
    stage.time_out();
    stage.now = Instant::ZERO;
    stage.seen(address(1));
    stage.engine.handle_timeout(Instant::ZERO);
    stage.drain();
    assert_eq!(stage.kernel.joined, [group(1)].into());
    // The address was seen at 200 s, the latest time that the engine was ever told.
    stage.now = start.saturating_add(Duration::from_secs(499));
    stage.time_out();
    assert_eq!(stage.kernel.joined, [group(1)].into());
    stage.pass(41);
    assert_eq!(stage.kernel.joined, [].into());
}

#[test]
fn packets_that_are_dropped_are_counted_by_their_reason() {
    let mut stage = Stage::new();
    let mut packet = solicitation(address(1), address(9));
    packet[7] = 64;
    stage.receive(&packet);
    stage.receive(&[]);
    stage.receive(&[]);
    let counters = stage.engine.counters();
    assert_eq!(counters.dropped(DropReason::HopLimit), 1);
    assert_eq!(counters.dropped(DropReason::Truncated), 2);
    let names: BTreeSet<_> = counters.iter().map(|(name, _)| name).collect();
    assert_eq!(
        names.len(),
        Counter::ALL.len() + DropReason::ALL.len(),
        "names are unique"
    );
    assert_eq!(stage.kernel.joined, [].into());
}

/// Sightings, time, failures and upstreams are random. A list of when each address was seen says
/// what must be joined.
#[test]
fn memberships_agree_with_a_simple_model_whatever_happens() {
    for seed in 0..5 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut stage = Stage::new();
        let mut seen: BTreeMap<Ipv6Addr, Instant> = BTreeMap::new();
        let mut index = 1;
        for step in 0..10_000 {
            match random.u32(..100) {
                0..60 => {
                    let number = random.u32(..24);
                    let address = if random.bool() {
                        address(number)
                    } else {
                        twin(number)
                    };
                    stage.seen(address);
                    seen.insert(address, stage.now);
                }
                60..90 => stage.pass(random.u64(..40)),
                90..94 => {
                    stage.fail_if(
                        [
                            (|_| true) as fn(&Action) -> bool,
                            |action| matches!(action, Action::Ndp(ndp::Action::Join(_))),
                            |action| matches!(action, Action::Mld(mld::Action::Report { .. })),
                        ][random.usize(..3)],
                    );
                    stage.pass(random.u64(..3));
                }
                94..98 => {
                    stage.upstream(None);
                    index += 1;
                    stage.pass(random.u64(..100));
                    stage.upstream(Some(Link { index, ..UPSTREAM }));
                }
                _ => stage.receive(&[0; 64]),
            }
            let context = format!("seed {seed}, step {step}");
            let known: BTreeSet<_> = stage.addresses();
            for (address, at) in &seen {
                let age = stage.now.since(*at).as_secs();
                assert!(
                    age >= 300 || known.contains(address),
                    "{context}: {address}, {age}"
                );
                assert!(
                    age < 330 || !known.contains(address),
                    "{context}: {address}, {age}"
                );
            }
            assert!(
                known.iter().all(|address| seen.contains_key(address)),
                "{context}"
            );
            if random.u32(..4) == 0 {
                // Failures end, and the engine makes them good within a second.
                stage.fail_if(|_| false);
                stage.pass(1);
                let wanted: BTreeSet<_> = stage
                    .addresses()
                    .into_iter()
                    .map(|address| SolicitedNode::of(address).group())
                    .collect();
                assert!(stage.kernel.joined.is_superset(&wanted), "{context}");
                // Every other group that is joined waits to be left.
                for group in &stage.kernel.joined {
                    let group = SolicitedNode::from_group(*group).unwrap();
                    let state = stage.engine.ndp().groups().get(group).expect("known");
                    let wanted = wanted.contains(&group.group());
                    assert_eq!(state.members > 0, wanted, "{context}: {group}");
                }
                assert_eq!(
                    stage.engine.ndp().groups().len(),
                    stage.kernel.joined.len(),
                    "{context}"
                );
            }
        }
        stage.fail_if(|_| false);
        stage.pass(400);
        assert_eq!(stage.kernel.joined, [].into(), "seed {seed}");
        assert_eq!(stage.engine.ndp().groups().len(), 0, "seed {seed}");
    }
}
