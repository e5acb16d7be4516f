//! What a hostile LAN can do and what it cannot, prefixes, and the router's own addresses.

use std::net::Ipv6Addr;

use model::view;
use protocol::counters::Counter;
use protocol::engine::{Action, Event};
use protocol::link::Prefix;
use protocol::link::{Link, Side};
use protocol::ndp;
use protocol::ndp::MAX_OWN;
use protocol::time::Duration;
use protocol::wire::{ALL_NODES, MacAddress, RecordType, SolicitedNode};

use crate::stage::{
    ROUTER, Stage, UPSTREAM, address, advertisement, downstream_link, group, report, solicitation,
};

fn mac(number: u32) -> MacAddress {
    let [a, b, c, d] = number.to_be_bytes();
    MacAddress([2, 1, a, b, c, d])
}

impl Stage {
    fn seen_from(&mut self, mac: MacAddress, address: Ipv6Addr) {
        self.receive_from(mac, &solicitation(address, ROUTER));
    }

    /// A host speaks and answers the question that follows, which confirms its address.
    fn answered(&mut self, number: u32) {
        let link_local = Ipv6Addr::from_bits(0xfe80 << 112 | u128::from(number));
        self.seen_from(mac(number), link_local);
        self.seen_from(mac(number), address(number));
        // The question may wait for those before it.
        self.pass(1);
        let records = [(RecordType::ModeIsExclude, group(number))];
        self.receive_from(mac(number), &report(link_local, &records));
    }
}

#[test]
fn one_host_holds_64_addresses_and_a_65th_takes_the_place_of_its_oldest() {
    let mut stage = Stage::with_defaults();
    for number in 0..64 {
        stage.seen_from(mac(1), address(number));
    }
    stage.seen_from(mac(2), address(100));
    stage.pass(20);
    stage.seen_from(mac(1), address(64));
    assert_eq!(stage.count(Counter::Evicted), 1);
    assert_eq!(stage.addresses().len(), 65);
    assert!(!stage.addresses().contains(&address(0)));
    stage.pass(10);
    assert!(!stage.kernel.joined.contains(&group(0)));
    assert!(stage.kernel.joined.contains(&group(100)));
}

#[test]
fn what_the_kernel_remembers_comes_at_once_and_leaves_a_quarter_of_the_table() {
    let mut stage = Stage::with_defaults();
    for number in 0..4196 {
        stage.handle(Event::Remembered {
            port: 0,
            mac: mac(number),
            address: address(number),
        });
    }
    assert_eq!(stage.count(Counter::Learned), 3072);
    assert_eq!(stage.kernel.joined.len(), 3072);
    assert_eq!(stage.count(Counter::RefusedFull), 4196 - 3072);
    assert_eq!(stage.count(Counter::Evicted), 0);
}

#[test]
fn a_host_whose_addresses_are_all_confirmed_gets_no_more() {
    let mut stage = Stage::with(|config| config.per_mac = 1);
    stage.answered(1);
    stage.seen_from(mac(1), address(2));
    assert_eq!(stage.count(Counter::RefusedHostQuota), 1);
    assert_eq!(stage.kernel.joined, [group(1)].into());
}

#[test]
fn a_table_full_of_addresses_whose_hosts_answer_lets_nobody_else_in() {
    let mut stage = Stage::with_defaults();
    for host in 0..64 {
        let link_local = Ipv6Addr::from_bits(0xfe80 << 112 | u128::from(host));
        let numbers = 64 * host..64 * (host + 1);
        stage.seen_from(mac(host), link_local);
        for number in numbers.clone() {
            stage.seen_from(mac(host), address(number));
        }
        stage.pass(2);
        let records = numbers.map(|number| (RecordType::ModeIsExclude, group(number)));
        stage.receive_from(mac(host), &report(link_local, &records.collect::<Vec<_>>()));
    }
    assert_eq!(stage.addresses().len(), 4096);
    stage.seen_from(mac(1000), address(5000));
    assert_eq!(stage.count(Counter::RefusedFull), 1);
    assert_eq!(stage.count(Counter::Evicted), 0);
    assert!(!stage.addresses().contains(&address(5000)));
}

#[test]
fn new_groups_are_joined_200_at_once_and_50_a_second_and_none_is_forgotten() {
    let mut stage = Stage::with_defaults();
    for number in 0..1000 {
        stage.seen_from(mac(number), address(number));
    }
    assert_eq!(stage.addresses().len(), 1000);
    assert_eq!(stage.kernel.joined.len(), 200);
    assert_eq!(stage.engine.ndp().groups().waiting(), 800);
    assert_eq!(stage.count(Counter::JoinDelayed), 800);
    stage.pass(1);
    assert_eq!(stage.kernel.joined.len(), 250);
    stage.pass(15);
    assert_eq!(stage.kernel.joined.len(), 1000);
    assert_eq!(stage.engine.ndp().groups().waiting(), 0);
}

/// A container host boots, or a power cut in a dormitory ends.
#[test]
fn six_hundred_hosts_that_detect_duplicates_once_are_all_joined() {
    let mut stage = Stage::with_defaults();
    for number in 0..600 {
        let packet = solicitation(Ipv6Addr::UNSPECIFIED, address(number));
        stage.receive_from(mac(number), &packet);
        if number % 4 == 0 {
            stage.now = stage.now.saturating_add(Duration::from_millis(10));
            stage.time_out();
        }
    }
    stage.pass(8);
    assert_eq!(stage.kernel.joined.len(), 600);
}

#[test]
fn two_thousand_hosts_that_say_one_advertisement_each_are_all_joined() {
    let mut stage = Stage::with_defaults();
    for number in 0..2000 {
        let target = address(number);
        stage.receive_from(mac(number), &advertisement(target, ALL_NODES, target));
    }
    stage.pass(36);
    assert_eq!(stage.kernel.joined.len(), 2000);
    assert_eq!(stage.count(Counter::RefusedRate), 0);
}

#[test]
fn the_groups_of_hosts_that_answer_are_joined_before_those_of_strangers() {
    let mut stage = Stage::with(|config| (config.join_rate, config.join_burst) = (1, 1));
    for number in 100..200 {
        stage.seen_from(mac(number), address(number));
    }
    let link_local = Ipv6Addr::from_bits(0xfe80 << 112 | 1);
    stage.seen_from(mac(1), link_local);
    stage.seen_from(mac(1), address(1));
    assert_eq!(stage.kernel.joined.len(), 1);
    let asks = |stage: &Stage| {
        stage
            .questions
            .iter()
            .any(|(_, text)| text.starts_with('?'))
    };
    while !asks(&stage) {
        stage.pass(1);
    }
    let records = [1, 2].map(|number| (RecordType::ModeIsExclude, group(number)));
    stage.receive_from(mac(1), &report(link_local, &records));
    stage.pass(1);
    for number in [1, 2] {
        assert!(stage.kernel.joined.contains(&group(number)), "{number}");
    }
    assert!(stage.engine.ndp().groups().waiting() > 50);
}

/// Once the upstream is back, the engine joins at once what waited for its first join and what was
/// joined before.
#[test]
fn an_upstream_that_comes_back_has_all_that_was_joined_at_once() {
    let mut stage = Stage::with_defaults();
    for number in 0..300 {
        stage.seen_from(mac(number), address(number));
    }
    stage.pass(2);
    assert_eq!(stage.kernel.joined.len(), 300);
    stage.upstream(None);
    let again = Link {
        index: 8,
        ..UPSTREAM
    };
    stage.upstream(Some(again));
    assert_eq!(stage.kernel.joined.len(), 300);
}

#[test]
fn a_group_that_nobody_wants_any_more_waits_for_no_join() {
    let mut stage = Stage::with(|config| (config.join_rate, config.join_burst) = (1, 1));
    for number in [1, 2, 3] {
        stage.seen_from(mac(number), address(number));
    }
    for number in [2, 3] {
        let (index, address, present) = (7, address(number), true);
        stage.handle(Event::Own {
            prefix_length: 128,
            index,
            address,
            present,
        });
    }
    assert_eq!(stage.engine.ndp().groups().waiting(), 0);
    stage.pass(5);
    assert_eq!(stage.kernel.joined, [group(1)].into());
}

#[test]
fn new_hosts_that_report_are_joined_at_the_rate_of_new_hosts_that_speak() {
    let mut stage = Stage::with(|config| (config.join_rate, config.join_burst) = (1, 2));
    for number in 1..=5_u32 {
        let link_local = Ipv6Addr::from_bits(0xfe80 << 112 | u128::from(number));
        let records = [(RecordType::ModeIsExclude, group(number))];
        stage.receive_from(mac(number), &report(link_local, &records));
    }
    assert_eq!(stage.kernel.joined, [group(1), group(2)].into());
    assert_eq!(stage.engine.ndp().neighbors().hosts().count(), 5);
    stage.pass(3);
    assert_eq!(stage.kernel.joined, (1..=5).map(group).collect());
}

#[test]
fn who_finds_the_table_full_is_taken_in_later_at_the_rate_that_is_allowed() {
    let mut stage = Stage::with_defaults();
    for number in 10_000..14_096 {
        stage.seen_from(mac(number), address(number));
    }
    assert_eq!(stage.addresses().len(), 4096);
    stage.pass(1);
    for number in 0..600 {
        stage.seen_from(mac(number), address(number));
    }
    let known = |stage: &Stage| {
        let addresses = stage.addresses();
        (0..600)
            .filter(|number| addresses.contains(&address(*number)))
            .count()
    };
    // Nobody gives way before it is asked, and the engine asks 20 questions a second.
    assert!(known(&stage) < 20);
    assert!(stage.count(Counter::RefusedRate) >= 580);
    stage.pass(40);
    assert_eq!(known(&stage), 600);
}

/// Some hundred hosts come, and each says one thing. Then somebody floods.
#[test]
fn a_flood_pushes_out_nobody_who_came_before_it_and_answers() {
    let mut stage = Stage::with_defaults();
    for number in 0..600 {
        let packet = solicitation(Ipv6Addr::UNSPECIFIED, address(number));
        stage.receive_from(mac(number), &packet);
    }
    for second in 0..60 {
        for number in 0..500 {
            let number = 10_000 + second * 500 + number;
            stage.seen_from(mac(number), address(number));
        }
        stage.pass(1);
        for (_, question) in std::mem::take(&mut stage.questions) {
            let target = question.trim_start_matches(['!', '*']).parse();
            let number = target.map(|target: Ipv6Addr| target.to_bits() - address(0).to_bits());
            if let Ok(number @ 0..600) = number {
                let target = address(number as u32);
                stage.receive_from(mac(number as u32), &advertisement(target, ROUTER, target));
            }
        }
    }
    assert_eq!(stage.engine.ndp().neighbors().len(), 4096);
    for number in 0..600 {
        assert!(stage.is_confirmed(number), "{number}");
        assert!(stage.kernel.joined.contains(&group(number)), "{number}");
    }
}

#[test]
fn who_finds_the_table_full_of_hosts_that_answer_is_taken_in_when_one_has_gone() {
    let mut stage = Stage::with_defaults();
    for host in 0..64 {
        let link_local = Ipv6Addr::from_bits(0xfe80 << 112 | u128::from(host));
        stage.seen_from(mac(host), link_local);
        for number in 64 * host..64 * (host + 1) {
            stage.seen_from(mac(host), address(number));
        }
        stage.pass(2);
        let records =
            (64 * host..64 * (host + 1)).map(|number| (RecordType::ModeIsExclude, group(number)));
        stage.receive_from(mac(host), &report(link_local, &records.collect::<Vec<_>>()));
    }
    stage.seen_from(mac(1000), address(5000));
    assert_eq!(stage.count(Counter::RefusedFull), 1);
    // From here on nobody answers.
    stage.pass(400);
    assert!(stage.addresses().contains(&address(5000)));
}

/// An address that takes the place of its listener counts against the host's quota as any other.
#[test]
fn addresses_that_take_the_place_of_listeners_are_no_more_than_the_quota() {
    let mut stage = Stage::with(|config| config.per_mac = 3);
    let link_local = Ipv6Addr::from_bits(0xfe80 << 112 | 1);
    let listens = |range: core::ops::Range<u32>| {
        let records = range.map(|number| (RecordType::ModeIsExclude, group(number)));
        report(link_local, &records.collect::<Vec<_>>())
    };
    stage.receive_from(mac(1), &listens(0..3));
    for number in 10..13 {
        stage.seen_from(mac(1), address(number));
    }
    stage.pass(1);
    // The model checks the quota after each of these.
    for number in 0..3 {
        stage.seen_from(mac(1), address(number));
    }
    let kept = [0, 1, 2].map(address);
    assert_eq!(stage.addresses(), kept.into());
    assert_eq!(stage.count(Counter::Evicted), 3);
}

/// Listeners take no room from addresses, and an address takes the place of its listener.
#[test]
fn a_host_with_80_addresses_has_64_of_them_known_and_all_groups_joined() {
    for others in [0, 4096] {
        let mut stage = Stage::with_defaults();
        for number in 0..others {
            stage.seen_from(mac(10_000 + number), address(10_000 + number));
        }
        let link_local = Ipv6Addr::from_bits(0xfe80 << 112 | 1);
        let groups = |range: core::ops::Range<u32>| {
            range
                .map(|number| (RecordType::ModeIsExclude, group(number)))
                .collect::<Vec<_>>()
        };
        let answer = |stage: &mut Stage| {
            for range in [0..40, 40..80] {
                stage.receive_from(mac(1), &report(link_local, &groups(range)));
            }
        };
        stage.seen_from(mac(1), link_local);
        while !stage.questions.iter().any(|(_, text)| text == "?fe80::1") {
            stage.pass(1);
        }
        answer(&mut stage);
        for number in 0..80 {
            stage.seen_from(mac(1), address(number));
        }
        stage.questions.clear();
        for _ in 0..300 {
            stage.pass(1);
            if std::mem::take(&mut stage.questions)
                .iter()
                .any(|(_, text)| text == "?fe80::1")
            {
                answer(&mut stage);
            }
        }
        let confirmed = (0..80).filter(|number| stage.is_confirmed(*number));
        assert_eq!(confirmed.count(), 64, "{others}");
        let joined = (0..80).filter(|number| stage.kernel.joined.contains(&group(*number)));
        assert!(joined.count() >= 64, "{others}");
    }
}

#[test]
fn who_is_refused_itself_pushes_nobody_out() {
    let mut stage = Stage::new();
    for number in 0..4096 {
        stage.seen(address(number));
    }
    stage.fail_if(|action| matches!(action, Action::Ndp(ndp::Action::Leave(_))));
    stage.pass(330);
    for number in 5000..6024 {
        stage.seen(address(number));
    }
    assert_eq!(
        stage.engine.ndp().groups().len(),
        5120,
        "4,096 groups cannot be left"
    );
    let before = stage.addresses();
    // The host has as many addresses as it may, and there is no room for the group of one more.
    stage.seen(address(7000));
    assert_eq!(stage.count(Counter::RefusedFull), 1);
    assert_eq!(stage.count(Counter::Evicted), 0);
    assert_eq!(stage.addresses(), before);
}

#[test]
fn spoofed_sources_push_out_each_other_and_no_host_that_answers() {
    let mut stage = Stage::with(|config| {
        config.join_rate = 1000;
        config.join_burst = 1000;
    });
    for number in 0..20 {
        stage.answered(number);
    }
    for round in 0..10 {
        for number in 0..1000 {
            let number = 10_000 + round * 1000 + number;
            stage.seen_from(mac(number), address(number));
        }
        stage.pass(1);
    }
    assert_eq!(stage.engine.ndp().neighbors().len(), 4096);
    // The strangers go as fast as the engine asks them in vain.
    assert!(stage.count(Counter::Evicted) > 50);
    for number in 0..20 {
        assert!(stage.kernel.joined.contains(&group(number)), "{number}");
    }
    assert!(stage.engine.ndp().groups().len() <= 5120);
}

#[test]
fn a_flood_of_new_hosts_within_the_rate_starves_nobody_who_answers() {
    let mut stage = Stage::with_defaults();
    for number in 0..20 {
        stage.handle(Event::Remembered {
            port: 0,
            mac: mac(number),
            address: address(number),
        });
    }
    for second in 0..400 {
        for number in 0..40 {
            let number = 1000 + (second * 40 + number) % 50_000;
            let link_local = Ipv6Addr::from_bits(0xfe80 << 112 | u128::from(number));
            stage.seen_from(mac(number), link_local);
        }
        stage.pass(1);
        // The 20 hosts answer each probe.
        for (_, question) in std::mem::take(&mut stage.questions) {
            let Some(target) = question.strip_prefix('!') else {
                continue;
            };
            let target: Ipv6Addr = target.parse().unwrap();
            if let Some(number) = (0..20).find(|number| address(*number) == target) {
                stage.receive_from(mac(number), &advertisement(target, ROUTER, target));
            }
        }
    }
    for number in 0..20 {
        assert!(stage.kernel.joined.contains(&group(number)), "{number}");
    }
}

#[test]
fn where_the_table_is_full_the_host_with_most_addresses_gives_way() {
    let mut stage = Stage::with(|config| {
        config.join_rate = 1_000_000;
        config.join_burst = 1_000_000;
        config.per_mac = 1000;
    });
    for number in 0..3096 {
        stage.seen_from(mac(number), address(number));
    }
    stage.pass(20);
    for number in 5000..6000 {
        stage.seen_from(mac(9999), address(number));
    }
    assert_eq!(stage.addresses().len(), 4096);
    for number in 7000..7100 {
        stage.seen_from(mac(number), address(number));
    }
    let addresses = stage.addresses();
    assert_eq!(addresses.len(), 4096);
    assert!((0..3096).all(|number| addresses.contains(&address(number))));
    assert!((5000..5100).all(|number| !addresses.contains(&address(number))));
    assert!((7000..7100).all(|number| addresses.contains(&address(number))));
}

#[test]
fn a_new_host_takes_the_place_of_the_one_without_addresses_that_was_silent_longest() {
    let mut stage = Stage::with(|config| config.address_timeout = Duration::from_secs(3600));
    let link_local = |number: u32| Ipv6Addr::from_bits(0xfe80 << 112 | u128::from(number));
    let remember = |stage: &mut Stage, number, address| {
        let (port, mac) = (0, mac(number));
        stage.handle(Event::Remembered { port, mac, address });
    };
    remember(&mut stage, 0, address(0));
    stage.pass(1);
    remember(&mut stage, 1, link_local(1));
    stage.pass(1);
    // Each of the most addresses that there may be can be another host's. Beyond these there is
    // room for some hosts without addresses.
    let most = 4096 + 256;
    for number in 2..most {
        remember(&mut stage, number, link_local(number));
    }
    let knows = |stage: &Stage, number| {
        let mut hosts = stage.engine.ndp().neighbors().hosts();
        hosts.any(|(known, _)| known.mac == mac(number))
    };
    assert!(knows(&stage, 1));
    stage.seen_from(mac(most), address(most));
    assert_eq!(
        stage.engine.ndp().neighbors().hosts().count(),
        most as usize
    );
    assert!(knows(&stage, 0) && !knows(&stage, 1) && knows(&stage, 2));
    assert_eq!(stage.addresses(), [address(0), address(most)].into());
}

/// Addresses with the same last 24 bits have one group. Who else may have one of them takes a look
/// at every neighbor.
#[test]
fn claims_in_the_group_of_another_host_cause_no_more_searches_than_the_rate_allows() {
    let mut stage = Stage::with_defaults();
    stage.seen_from(mac(0), address(1));
    let twin = |number: u32| {
        let high = u128::from(number + 1) << 24;
        Ipv6Addr::from_bits(address(1).to_bits() ^ high)
    };
    for number in 0..1000 {
        stage.seen_from(mac(1 + number), twin(number));
    }
    assert_eq!(stage.addresses().len(), 21);
    assert_eq!(stage.count(Counter::RefusedRate), 980);
    // They are taken in later.
    stage.pass(100);
    assert!(stage.addresses().len() > 900, "{}", stage.addresses().len());
}

#[test]
fn excluded_prefixes_and_own_addresses_are_not_learned() {
    let mut stage = Stage::with(|config| {
        config
            .excluded
            .push("2001:db8:2::/48".parse().unwrap())
            .unwrap();
    });
    stage.seen(address(1));
    stage.seen("2001:db8:2::1".parse().unwrap());
    assert_eq!(stage.kernel.joined, [group(1)].into());
    let own = |stage: &mut Stage, present| {
        stage.handle(Event::Own {
            prefix_length: 128,
            index: 1,
            address: address(1),
            present,
        });
    };
    own(&mut stage, true);
    stage.seen(address(1));
    stage.pass(10);
    assert_eq!(stage.kernel.joined, [].into());
    own(&mut stage, false);
    stage.seen(address(1));
    assert_eq!(stage.kernel.joined, [group(1)].into());
}

#[test]
fn link_local_addresses_of_the_router_take_no_room_from_the_others() {
    let mut stage = Stage::with_defaults();
    let mut own = |address| {
        let present = true;
        stage.handle(Event::Own {
            prefix_length: 128,
            index: 1,
            address,
            present,
        });
    };
    own(Ipv6Addr::LOCALHOST);
    for number in 0..100_u16 {
        own(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, number));
    }
    let room = MAX_OWN as u32;
    for number in 1..=room {
        own(address(number));
        own(address(number));
    }
    for number in 1..=room + 1 {
        stage.seen_from(mac(number), address(number));
    }
    assert_eq!(stage.addresses(), [address(room + 1)].into());
}

#[test]
fn an_own_address_that_there_is_no_room_for_is_counted() {
    let mut stage = Stage::with_defaults();
    let refused = |stage: &Stage| stage.engine.counters().get(Counter::RefusedFull);
    let own = |stage: &mut Stage, number, present| {
        stage.handle(Event::Own {
            prefix_length: 128,
            index: 1,
            address: address(number),
            present,
        });
    };
    let room = MAX_OWN as u32;
    for number in 1..=room {
        own(&mut stage, number, true);
    }
    assert_eq!(refused(&stage), 0);
    own(&mut stage, room + 1, true);
    assert_eq!(refused(&stage), 1);
    own(&mut stage, 1, false);
    own(&mut stage, room + 1, true);
    assert_eq!(refused(&stage), 1);
    stage.seen(address(room + 1));
    assert_eq!(stage.addresses(), [].into());
}

#[test]
fn an_address_is_the_routers_own_as_long_as_one_interface_has_it() {
    let mut stage = Stage::with_defaults();
    let own = |stage: &mut Stage, index, present| {
        let address = address(1);
        stage.handle(Event::Own {
            prefix_length: 128,
            index,
            address,
            present,
        });
    };
    own(&mut stage, 1, true);
    own(&mut stage, 2, true);
    own(&mut stage, 1, false);
    own(&mut stage, 3, false);
    stage.seen(address(1));
    assert_eq!(stage.addresses(), [].into());
    own(&mut stage, 2, false);
    stage.seen(address(1));
    assert_eq!(stage.addresses(), [address(1)].into());
}

#[test]
fn nobody_can_claim_an_own_address_while_all_of_them_are_told_anew() {
    let mut stage = Stage::with_defaults();
    for number in [1, 2] {
        stage.handle(Event::Own {
            prefix_length: 128,
            index: 1,
            address: address(number),
            present: true,
        });
    }
    stage.handle(Event::OwnUnknown);
    stage.seen(address(1));
    stage.handle(Event::Own {
        prefix_length: 128,
        index: 1,
        address: address(1),
        present: true,
    });
    stage.seen(address(2));
    assert_eq!(stage.addresses(), [].into());
    stage.handle(Event::OwnKnown);
    stage.seen(address(1));
    stage.seen(address(2));
    assert_eq!(stage.addresses(), [address(2)].into());
}

#[test]
fn prefixes_of_the_upstream_are_followed_and_a_renumbering_drops_the_old_ones() {
    let mut stage = Stage::with(|config| {
        config.upstream_prefixes = true;
        config.prefixes.clear();
    });
    let prefix = |text: &str| text.parse::<Prefix>().unwrap();
    stage.seen(address(1));
    assert_eq!(stage.kernel.joined, [].into(), "there is no prefix yet");
    stage.handle(Event::UpstreamPrefixes(&[prefix("2001:db8:1::/64")]));
    stage.seen(address(1));
    assert_eq!(stage.kernel.joined, [group(1)].into());
    let renumbered = "2001:db8:2::7".parse().unwrap();
    stage.seen(renumbered);
    assert_eq!(stage.kernel.joined, [group(1)].into());
    stage.handle(Event::UpstreamPrefixes(&[prefix("2001:db8:2::/64")]));
    stage.seen(renumbered);
    stage.pass(10);
    assert_eq!(
        stage.kernel.joined,
        [SolicitedNode::of(renumbered).group()].into()
    );

    // Fixed prefixes stay as they are.
    let mut fixed = Stage::with_defaults();
    fixed.seen(address(1));
    fixed.handle(Event::UpstreamPrefixes(&[]));
    fixed.pass(10);
    assert_eq!(fixed.kernel.joined, [group(1)].into());
}

/// Random events come in any order. What the tables say of each other stays true.
#[test]
fn invariants_hold_under_any_order_of_events() {
    for seed in 0..5 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut stage = Stage::with(|config| {
            config.per_mac = 5;
            config.join_rate = 20;
            config.join_burst = 20;
        });
        for step in 0..4000 {
            let host = random.u32(..12);
            let number = random.u32(..30);
            let link_local = Ipv6Addr::from_bits(0xfe80 << 112 | u128::from(host));
            match random.u32(..14) {
                0..4 => stage.seen_from(mac(host), address(number)),
                4 => stage.seen_from(mac(host), link_local),
                5..7 => {
                    use RecordType::{ChangeToInclude, ModeIsExclude};
                    let record_type = if random.bool() {
                        ModeIsExclude
                    } else {
                        ChangeToInclude
                    };
                    let packet = report(link_local, &[(record_type, group(number))]);
                    stage.receive_from(mac(host), &packet);
                }
                7 => stage.handle(Event::Remembered {
                    port: 1,
                    mac: mac(host),
                    address: address(number),
                }),
                8 => stage.handle(Event::Forgotten(address(number))),
                9 => stage.handle(Event::Own {
                    prefix_length: 128,
                    index: 1,
                    address: address(number),
                    present: random.bool(),
                }),
                10 => stage.handle(Event::Renew),
                11 => {
                    let downstream = Link {
                        mac: mac(999),
                        ..downstream_link(0)
                    };
                    let downstream = random.bool().then_some(downstream);
                    stage.handle(Event::Link(Side::Downstream(0), downstream));
                }
                _ => stage.pass(random.u64(..60)),
            }
            let context = format!("seed {seed}, step {step}");
            let neighbors = stage.engine.ndp().neighbors();
            let held = || view::hosts(&stage.engine).map(|(_, held, _)| held);
            let of_hosts: usize = held().map(usize::from).sum();
            assert_eq!(
                of_hosts,
                neighbors.len(),
                "{context}: each neighbor is one host's"
            );
            assert!(held().all(|held| held <= 10), "{context}");
            let groups = stage.engine.ndp().groups();
            let members: usize = groups
                .iter()
                .map(|(_, group)| usize::from(group.members))
                .sum();
            assert_eq!(
                members,
                neighbors.len(),
                "{context}: each neighbor wants one group"
            );
            let joined = groups.iter().filter(|(_, group)| group.is_joined()).count();
            assert_eq!(joined, stage.kernel.joined.len(), "{context}");
            assert!(
                stage
                    .engine
                    .next_deadline()
                    .is_none_or(|(at, _)| at > stage.now),
                "{context}"
            );
        }
        stage.pass(1000);
        assert_eq!(stage.kernel.joined, [].into(), "seed {seed}");
        assert_eq!(
            stage.engine.ndp().neighbors().hosts().count(),
            0,
            "seed {seed}"
        );
    }
}
