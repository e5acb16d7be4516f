//! What hosts may make the router keep, and what happens when the tables are full.

use protocol::counters::Counter;
use protocol::mld::members::HOSTS;

use super::*;

fn group(number: u32) -> Ipv6Addr {
    Ipv6Addr::from_bits(SSM.to_bits() + u128::from(number))
}

fn held(stage: &Stage) -> usize {
    stage.engine.mld().streams().members().len()
}

impl Stage {
    /// The `number`th host listens to a source of a group.
    fn listens(&mut self, port: Port, number: u32, group: Ipv6Addr, of: &[Ipv6Addr]) {
        let [_, high, middle, low] = number.to_be_bytes();
        let mac = MacAddress([2, 0, 0, high, middle, low]);
        self.receive_on(port, mac, &record(host(1).1, Allow, group, of));
    }
}

#[test]
fn a_host_may_add_so_many_groups_and_others_are_not_in_its_way() {
    let mut stage = proxy(|_| {});
    for number in 0..100 {
        stage.says(0, 1, Allow, group(number), &[1]);
    }
    assert_eq!(held(&stage), 64);
    assert_eq!(stage.count(Counter::RefusedGroupQuota), 36);
    stage.says(0, 2, Allow, group(99), &[1]);
    assert_eq!(held(&stage), 65);
    // It may still listen to what others have added, and on another link.
    stage.says(0, 1, Allow, group(99), &[2]);
    assert_eq!(stage.wish(0, group(99)), "in {1 2}");
    stage.says(1, 1, Allow, group(98), &[1]);
    assert_eq!(stage.wish(1, group(98)), "in {1}");
}

#[test]
fn groups_come_at_a_rate() {
    let mut stage = proxy_with(|config, proxy| {
        config.per_mac = u16::MAX;
        (config.join_rate, proxy.max_groups) = (10, 20);
    });
    for number in 0..20 {
        stage.says(0, 1, Allow, group(number), &[1]);
    }
    stage.says(0, 1, ToInclude, group(0), &[]);
    stage.pass_millis(2_000);
    assert_eq!(held(&stage), 19);
    for number in 100..140 {
        stage.says(0, 1, Allow, group(number), &[1]);
    }
    assert_eq!(held(&stage), 20);
    assert_eq!(stage.count(Counter::RefusedGroup), 19, "2 s give 20 tokens");
    assert_eq!(stage.count(Counter::RefusedGroupRate), 20);
}

#[test]
fn a_full_link_refuses_who_has_most_and_takes_who_has_less() {
    let mut stage = proxy(|config| config.max_groups = 20);
    for number in 0..15 {
        stage.says(0, 1, Allow, group(number), &[1]);
    }
    for number in 15..20 {
        stage.says(0, 2, Allow, group(number), &[1]);
    }
    stage.pass(1);
    stage.says(0, 1, Allow, group(100), &[1]);
    assert_eq!(
        (stage.wish(0, group(100)), held(&stage)),
        ("-".to_owned(), 20)
    );
    assert_eq!(stage.count(Counter::RefusedGroup), 1);
    stage.says(0, 3, Allow, group(101), &[1]);
    assert_eq!(
        (stage.wish(0, group(101)), held(&stage)),
        ("in {1}".to_owned(), 20)
    );
    for number in 15..20 {
        assert_eq!(stage.wish(0, group(number)), "in {1}", "it gave nothing up");
    }
    // The other link is as empty as before.
    stage.says(1, 1, Allow, group(102), &[1]);
    assert_eq!(held(&stage), 21);
}

#[test]
fn a_group_takes_so_many_sources_on_a_link() {
    let mut stage = proxy(|config| config.max_sources = 3);
    stage.says(0, 1, Allow, SSM, &[1, 2, 3, 4]);
    stage.says(0, 1, Allow, SSM, &[5]);
    assert_eq!(stage.wish(0, SSM), "in {1 2 3}");
    assert_eq!(stage.count(Counter::RefusedSource), 2);
    stage.says(1, 1, Allow, SSM, &[4]);
    assert_eq!(stage.joined(SSM), "in {1 2 3 4}");
    stage.says(0, 1, ToExclude, ASM, &[1, 2, 3, 4]);
    assert_eq!(stage.wish(0, ASM), "ex {1 2 3}");
}

#[test]
fn groups_wait_upstream_for_room_and_solicited_ones_come_first() {
    let mut stage = proxy(|config| config.max_groups = 3);
    // One solicited-node group is there first.
    let address = crate::stage::address(1);
    stage.seen(address);
    for number in 0..3 {
        stage.says(0, 1, Allow, group(number), &[1]);
    }
    assert_eq!(stage.kernel.multicast.memberships.len(), 2);
    assert_eq!(stage.joined(group(2)), "-");
    let way = stage.way(Side::Upstream, source(1), group(2));
    assert_eq!(way, [Side::Downstream(0)]);
    stage.says(0, 1, Block, group(0), &[1]);
    stage.pass(3);
    assert_eq!(stage.joined(group(2)), "in {1}");
    // A change of a group that is joined waits for nothing.
    stage.says(1, 2, Allow, group(3), &[1]);
    stage.says(0, 1, Allow, group(2), &[2]);
    assert_eq!(
        (&*stage.joined(group(2)), &*stage.joined(group(3))),
        ("in {1 2}", "-")
    );
}

#[test]
fn a_thousand_groups_of_eight_sources_are_joined_forwarded_and_left() {
    let mut stage = proxy_with(|config, proxy| {
        (config.per_mac, config.join_rate) = (u16::MAX, 100_000);
        (proxy.max_groups, proxy.fast_leave) = (2_000, true);
    });
    stage.diligence(10);
    for number in 0..1024 {
        stage.says(0, 1, Allow, group(number), &[1, 2, 3, 4, 5, 6, 7, 8]);
    }
    stage.check();
    assert_eq!(stage.kernel.multicast.memberships.len(), 1024);
    assert_eq!(stage.kernel.multicast.entries().count(), 8192);
    // One more source finds no room, and is merged once there is some.
    stage.says(1, 2, Allow, group(1024), &[1]);
    assert_eq!(stage.joined(group(1024)), "-");
    assert!(stage.count(Counter::RefusedSource) > 0);
    stage.says(0, 1, ToInclude, group(0), &[]);
    stage.says(1, 2, Allow, group(1024), &[1]);
    assert_eq!(stage.joined(group(1024)), "in {1}");
    stage.check();
    for number in 1..1024 {
        stage.says(0, 1, ToInclude, group(number), &[]);
    }
    stage.check();
    assert_eq!(stage.kernel.multicast.entries().count(), 1);
}

#[test]
fn a_source_that_takes_the_place_of_one_that_leaves_is_joined() {
    let mut stage = proxy_with(|config, proxy| {
        (config.per_mac, config.join_rate) = (u16::MAX, 100_000);
        (proxy.max_groups, proxy.fast_leave) = (2_000, true);
    });
    stage.diligence(10);
    for number in 0..1024 {
        stage.says(0, 1, Allow, group(number), &[1, 2, 3, 4, 5, 6, 7, 8]);
    }
    // In one report a listener leaves a group and joins another. The table is full until the kernel
    // has left the first one.
    let mut octets = [0; 16];
    let packet = emitted(|buffer| {
        let mut report = protocol::wire::ReportBuilder::new(buffer);
        assert!(report.push(ToInclude, group(5)));
        let sources = Sources::write([source(9)].into_iter(), &mut octets);
        assert!(report.push_with(Allow, group(2000), sources));
        report.finish(host(1).1)
    });
    stage.receive_on(0, host(1).0, &packet);
    stage.says(0, 1, IsInclude, group(2000), &[9]);
    assert_eq!(stage.joined(group(2000)), "in {9}");
}

#[test]
fn a_full_table_of_hosts_takes_no_group_from_anybody() {
    let mut stage = proxy_with(|config, proxy| {
        config.join_rate = 100_000;
        proxy.max_groups = 4096;
    });
    stage.diligence(10);
    for number in 0..3 {
        stage.listens(0, 1, group(number), &[source(1)]);
    }
    for number in 1..HOSTS as u32 {
        stage.listens(0, 1 + number, group(100 + number), &[source(1)]);
    }
    assert_eq!(held(&stage), HOSTS + 2);
    stage.listens(0, 9_999, group(9_999), &[source(1)]);
    assert_eq!(stage.count(Counter::RefusedGroup), 1);
    assert_eq!(held(&stage), HOSTS + 2);
    for number in 0..3 {
        assert_eq!(stage.wish(0, group(number)), "in {1}");
    }
}

#[test]
fn twenty_thousand_invented_groups_cost_a_listener_nothing() {
    let mut stage = proxy(|_| {});
    stage.diligence(5);
    stage.listens(0, 1, group(0), &[source(1)]);
    for number in 1..20_000 {
        if number % 1000 == 0 {
            stage.pass(10);
        }
        stage.listens(0, 2 + number % 3_000, group(number), &[source(1)]);
        assert!(held(&stage) <= 400);
    }
    assert_eq!(stage.joined(group(0)), "in {1}");
    let way = stage.way(Side::Upstream, source(1), group(0));
    assert_eq!(way, [Side::Downstream(0)]);
    // Another link is not touched.
    stage.listens(1, 1, group(50_000), &[source(1)]);
    assert_eq!(stage.wish(1, group(50_000)), "in {1}");
}

#[test]
fn specific_queries_come_at_a_rate() {
    let mut stage = proxy_with(|config, _| config.per_mac = 200);
    for number in 0..100 {
        stage.says(0, 1, Allow, group(number), &[1]);
    }
    stage.words();
    let start = stage.millis();
    for number in 0..100 {
        stage.says(0, 1, Block, group(number), &[1]);
    }
    let mut sent = Vec::new();
    for _ in 0..200 {
        stage.pass_millis(100);
        let words = stage.words_since(start);
        sent.extend(words.into_iter().filter(|(_, it)| it.contains('?')));
    }
    let asked: BTreeSet<_> = sent.iter().map(|(_, words)| words).collect();
    assert_eq!(asked.len(), 100, "each has a turn");
    for (number, (at, _)) in sent.iter().enumerate() {
        let by_now = 40 + (at / 50) as usize;
        assert!(number < by_now, "{number} at {at} ms");
    }
    assert_eq!(held(&stage), 0);
}
