//! RFC 4605 §4.2: what the kernel forwards, as interfaces, sources and settings come and go.

use protocol::config::{Forward, Scope};
use protocol::counters::Counter;
use protocol::engine::Action;
use protocol::mld::proxy::rows::Row;
use protocol::mld::{self, streams};

use super::*;
use crate::stage::{advertisement, downstream_link, solicitation};

/// Sides of the router.
const WAN: Side = Side::Upstream;
const LAN: Side = Side::Downstream(0);
const GUEST: Side = Side::Downstream(1);

/// A source on the second downstream.
const CAMERA: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0xca);

/// The router has a prefix on a side.
fn has_prefix(stage: &mut Stage, side: Side, third: u16) {
    let index = match side {
        WAN => UPSTREAM.index,
        Side::Downstream(port) => downstream_link(port).index,
    };
    stage.handle(Event::Own {
        index,
        address: Ipv6Addr::new(0x2001, 0xdb8, third, 0, 0, 0, 0, 1),
        prefix_length: 64,
        present: true,
    });
}

#[test]
fn what_nobody_listens_to_goes_nowhere_and_asks_nobody() {
    let stage = proxy(|_| {});
    for group in [SSM, ASM, HOME] {
        for side in [WAN, LAN, GUEST] {
            assert_eq!(stage.way(side, CAMERA, group), []);
        }
    }
}

#[test]
fn with_senders_what_downstreams_send_goes_upstream_even_if_nobody_listens() {
    let mut stage = proxy(|config| config.senders = true);
    for arrival in [LAN, GUEST] {
        assert_eq!(stage.way(arrival, CAMERA, ASM), [WAN]);
    }
    assert_eq!(stage.way(WAN, CAMERA, ASM), []);
    stage.says(0, 1, ToExclude, ASM, &[]);
    assert_eq!(stage.way(LAN, CAMERA, ASM), [WAN]);
    assert_eq!(stage.way(GUEST, CAMERA, ASM), [WAN, LAN]);
    assert_eq!(stage.way(WAN, CAMERA, ASM), [LAN]);
    // A group below the scope stays at home once somebody listens.
    stage.says(0, 1, ToExclude, HOME, &[]);
    assert_eq!(stage.way(GUEST, CAMERA, HOME), [LAN]);
    assert_eq!(stage.way(LAN, CAMERA, HOME), []);
    assert_eq!(stage.way(WAN, CAMERA, HOME), []);
}

#[test]
fn the_base_for_groups_at_home_comes_first_even_if_it_fails() {
    let mut stage = unforwarded(|_, config| config.senders = true);
    let mut failures = 2;
    stage.fail_if(move |action| {
        let Action::Mld(mld::Action::Streams(streams::Action::Forward(_))) = action else {
            return false;
        };
        failures -= 1;
        failures >= 0
    });
    for side in [WAN, LAN, GUEST] {
        stage.interface(side, true);
    }
    assert_eq!(stage.count(Counter::ForwardingFailed), 2);
    stage.pass(5);
    assert_eq!(stage.way(LAN, CAMERA, ASM), [WAN]);
}

#[test]
fn a_scope_below_the_users_stays_at_home_in_both_directions() {
    for (scope, joined, from_wan) in [
        (Scope::ORGANIZATION_LOCAL, "-", &[][..]),
        (Scope::SITE_LOCAL, "ex {}", &[LAN]),
        (Scope::ADMIN_LOCAL, "ex {}", &[LAN]),
    ] {
        let mut stage = proxy(|config| (config.scope, config.senders) = (scope, true));
        stage.says(0, 1, IsExclude, HOME, &[]);
        assert_eq!(stage.joined(HOME), joined, "{scope}");
        assert_eq!(stage.way(WAN, CAMERA, HOME), from_wan, "{scope}");
        let mut from_guest = vec![WAN, LAN];
        from_guest.retain(|side| *side != WAN || joined != "-");
        assert_eq!(stage.way(GUEST, CAMERA, HOME), from_guest, "{scope}");
    }
}

#[test]
fn groups_of_the_link_and_denied_ones_are_not_kept() {
    let prefix = |text: &str| text.parse().unwrap();
    let mut stage = proxy(|config| {
        config.allow.push(prefix("ff3e::/32")).unwrap();
        config.allow.push(prefix("ff1e::/16")).unwrap();
        config.deny.push(prefix("ff1e::1/128")).unwrap();
    });
    for group in [
        "ff02::fb",
        "ff12::1",
        "ff01::1",
        "ff1e::1",
        "ff0e::1",
        "2001:db8::1",
    ] {
        stage.says(0, 1, IsExclude, group.parse().unwrap(), &[]);
    }
    assert!(stage.engine.mld().streams().members().is_empty());
    stage.says(0, 1, IsExclude, "ff1e::2".parse().unwrap(), &[]);
    stage.says(0, 1, Allow, SSM, &[1]);
    assert_eq!(stage.engine.mld().streams().members().len(), 2);
}

#[test]
fn interfaces_come_and_go_in_any_order_and_the_entries_follow() {
    let sides = [WAN, LAN, GUEST];
    let orders = [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ];
    for comes in orders {
        for goes in orders {
            let mut stage = unforwarded(|_, config| config.senders = true);
            stage.says(0, 1, ToExclude, ASM, &[3]);
            stage.says(1, 2, Allow, ASM, &[1, 3]);
            stage.says(1, 2, Allow, SSM, &[1]);
            assert!(
                stage.kernel.multicast.entries().next().is_none(),
                "there is no table yet"
            );
            for side in comes {
                stage.interface(sides[side], true);
            }
            assert_eq!(stage.way(WAN, source(1), ASM), [LAN, GUEST]);
            assert_eq!(stage.way(WAN, source(3), ASM), [GUEST]);
            for side in goes {
                stage.interface(sides[side], false);
                // A new interface with the number takes over no stream before the entries follow.
                stage.interface(sides[side], true);
                stage.interface(sides[side], true);
                stage.interface(sides[side], false);
            }
        }
    }
}

#[test]
fn downstreams_reach_each_other_while_there_is_no_upstream() {
    let mut stage = proxy(|_| {});
    stage.says(0, 1, ToExclude, ASM, &[]);
    stage.interface(WAN, false);
    assert_eq!(stage.way(GUEST, CAMERA, ASM), [LAN]);
    stage.interface(WAN, true);
    assert_eq!(stage.way(GUEST, CAMERA, ASM), [LAN]);
    assert_eq!(stage.way(WAN, CAMERA, ASM), [LAN]);
}

#[test]
fn a_source_is_where_the_only_link_with_its_prefix_is() {
    let mut stage = proxy(|config| config.senders = true);
    stage.says(0, 1, Allow, SSM, &[]);
    let listen = |stage: &mut Stage| {
        let (mac, link_local) = host(1);
        stage.receive_on(0, mac, &record(link_local, Allow, SSM, &[CAMERA]));
    };
    listen(&mut stage);
    assert_eq!(stage.way(WAN, CAMERA, SSM), [LAN]);
    has_prefix(&mut stage, GUEST, 1);
    assert_eq!(stage.way(GUEST, CAMERA, SSM), [WAN, LAN]);
    assert_eq!(stage.way(WAN, CAMERA, SSM), [], "the wrong side");
    // A prefix that two links share tells nothing.
    has_prefix(&mut stage, WAN, 1);
    assert_eq!(stage.way(WAN, CAMERA, SSM), [LAN]);
}

#[test]
fn a_source_that_answers_on_a_link_is_there_within_a_second_however_much_happens() {
    let mut stage = proxy_with(|config, _| config.ndp_proxy = true);
    has_prefix(&mut stage, WAN, 1);
    has_prefix(&mut stage, GUEST, 1);
    let (mac, link_local) = host(1);
    stage.receive_on(0, mac, &record(link_local, Allow, SSM, &[CAMERA]));
    assert_eq!(stage.way(WAN, CAMERA, SSM), [LAN]);
    stage.receive_on(1, host(9).0, &solicitation(CAMERA, crate::stage::ROUTER));
    stage.receive_on(
        1,
        host(9).0,
        &advertisement(CAMERA, crate::stage::ROUTER, CAMERA),
    );
    for number in 0..12 {
        // Another listener's changes do not put the look off.
        stage.pass_millis(200);
        stage.says(
            0,
            2,
            IsExclude,
            Ipv6Addr::from_bits(ASM.to_bits() + number),
            &[],
        );
        let answer = advertisement(CAMERA, crate::stage::ROUTER, CAMERA);
        stage.receive_on(1, host(9).0, &answer);
    }
    let known = model::view::address(&stage.engine, CAMERA).expect("it is known");
    assert!(known.is_confirmed);
    stage.is_looked_for = true;
    stage.check();
    assert_eq!(stage.way(GUEST, CAMERA, SSM), [LAN]);
    assert_eq!(stage.way(WAN, CAMERA, SSM), []);
}

#[test]
fn nobody_looks_where_a_source_is_while_nothing_happens() {
    let mut stage = proxy(|_| {});
    has_prefix(&mut stage, WAN, 1);
    has_prefix(&mut stage, LAN, 1);
    let camera = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 7);
    let (mac, link_local) = host(1);
    let report = record(link_local, Allow, SSM, &[camera]);
    stage.receive_on(0, mac, &report);
    stage.pass(2);
    let mut wake_ups = 0;
    let end = stage.millis() + 60_000;
    while let Some(due) = stage.next_deadline()
        && due.as_millis() < end
    {
        stage.now = due;
        stage.time_out();
        wake_ups += 1;
    }
    assert!(wake_ups < 10, "{wake_ups} in a minute");
}

#[test]
fn a_link_with_another_querier_gets_no_stream_unless_the_user_wants_it() {
    let lower = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);
    for (forward, way) in [
        (Forward::Auto, &[GUEST][..]),
        (Forward::Always, &[LAN, GUEST]),
    ] {
        let mut stage = proxy(|config| config.forward = forward);
        stage.says(0, 1, Allow, SSM, &[1]);
        stage.says(1, 2, Allow, SSM, &[1]);
        stage.is_queried(0, lower, Ipv6Addr::UNSPECIFIED, v2(2, 20));
        assert_eq!(stage.way(WAN, source(1), SSM), way);
        assert_eq!(
            stage.joined(SSM),
            "in {1}",
            "its listeners count all the same"
        );
        // RFC 3810 §9.5: until 2 × 20 s + 10 s / 2 after its last query.
        stage.pass(44);
        assert_eq!(stage.way(WAN, source(1), SSM), way);
        stage.pass(2);
        assert_eq!(stage.way(WAN, source(1), SSM), [LAN, GUEST]);
    }
}

#[test]
fn an_entry_that_fails_is_tried_again_each_second_and_no_more_often() {
    let mut stage = proxy(|_| {});
    stage.fail_if(|action| {
        matches!(
            action,
            Action::Mld(mld::Action::Streams(streams::Action::Forward(_)))
        )
    });
    stage.says(0, 1, Allow, SSM, &[1, 2]);
    assert_eq!(stage.count(Counter::ForwardingFailed), 2);
    // Other changes of the group retry nothing.
    stage.says(1, 1, Allow, SSM, &[1]);
    assert_eq!(stage.count(Counter::ForwardingFailed), 2);
    stage.pass(3);
    assert_eq!(stage.count(Counter::ForwardingFailed), 2 + 3 * 2);
    stage.fail_if(|_| false);
    stage.pass(1);
    assert!(!stage.engine.mld().streams().proxy().is_failing());
    assert_eq!(stage.way(WAN, source(1), SSM), [LAN, GUEST]);
}

#[test]
fn what_the_kernel_counted_is_kept_until_the_entry_goes() {
    let mut stage = proxy(|config| config.fast_leave = true);
    stage.says(0, 1, Allow, SSM, &[1]);
    stage.says(0, 1, ToExclude, ASM, &[]);
    let counts = mld::proxy::Counts {
        packets: 7,
        octets: 700,
        wrong_side: 1,
        idle: 3,
    };
    for (source, group) in [
        (source(1), SSM),
        (Ipv6Addr::UNSPECIFIED, ASM),
        (source(2), SSM),
    ] {
        stage.handle(Event::Counted {
            source,
            group,
            counts,
        });
    }
    let none = mld::proxy::Counts::default();
    let known = |stage: &Stage| {
        let proxy = stage.engine.mld().streams().proxy();
        let counts_of = |group, source| {
            let is_it =
                |row: &Row<'_>| (row.group, row.flow.map(|flow| flow.source)) == (group, source);
            proxy.rows().find(is_it).expect("a row").counts
        };
        (counts_of(SSM, Some(source(1))), counts_of(ASM, None))
    };
    assert_eq!(known(&stage), (counts, counts));
    stage.says(0, 1, ToInclude, ASM, &[]);
    stage.says(0, 1, Block, SSM, &[1]);
    stage.says(0, 1, Allow, SSM, &[1]);
    stage.says(0, 1, ToExclude, ASM, &[]);
    assert_eq!(known(&stage), (none, none));
}
