//! Targets that nobody is known to have: what looking for them costs, and what mldproxy does not
//! look for.

use std::net::Ipv6Addr;
use std::time::{Duration, Instant};
use std::{iter, thread};

use protocol::ndp::targets::{self, ABSENT_INTERVAL, BURST, MAX_OPEN_OF_HOST, RATE};
use protocol::wire::{MacAddress, NeighborAdvertisement, NeighborSolicitation, parse};

use super::home::{Home, ON_LAN, ON_LAN2, PC, advertisement, frames, free, solicitation};
use crate::invalid::{FAULTS, emit};
use crate::lab::{Frame, ROUTER, Tap, eventually, solicited_node};
use crate::support::{Host, SOON, anonymous_memory, proxied};

crate::tests![
    a_target_that_nobody_has_is_asked_for_once_in_thirty_seconds,
    a_host_that_its_own_neighbor_looked_for_is_found_from_elsewhere,
    a_flood_of_one_host_is_bounded_and_others_find_what_they_look_for,
    a_flood_of_many_hosts_is_bounded,
    the_routers_own_addresses_are_left_to_its_kernel,
    invalid_solicitations_are_not_asked_for_and_not_answered,
    a_host_that_only_mld_told_of_is_found_by_the_gateway,
];

/// A time in which every packet that is sent at once has passed, the kernel's own delays included.
const QUIET: Duration = Duration::from_secs(1);

/// Beyond the tables, this is what another program's request for a summary or the first page of a
/// table may take.
const SLACK_KB: u64 = 128;

fn is_asked_for(target: Ipv6Addr) -> impl Fn(&Frame) -> bool {
    move |frame| solicitation(frame).is_some_and(|found| found.target == target)
}

fn a_target_that_nobody_has_is_asked_for_once_in_thirty_seconds() {
    let home = Home::new(1);
    let _mldproxy = home.start(&[]);
    let machine = &home.lans[0][0];
    let host = Host::on(&machine.namespace);
    let upstream = home.upstream();
    let (target, pause) = (free(1), Duration::from_secs(7));
    let start = Instant::now();
    let mut asked = Vec::new();
    // The host looks five times within thirty seconds, and once more after them.
    for look in 1..=6 {
        host.looks_for(machine.address, target);
        let left = || (start + look * pause).saturating_duration_since(Instant::now());
        let seen = iter::from_fn(|| {
            upstream
                .receive(left())
                .map(|frame| (Instant::now(), frame))
        });
        let of_target = seen.filter(|(_, frame)| is_asked_for(target)(frame));
        asked.extend(of_target.map(|(at, _)| at));
        if look == 5 {
            // Each look lasts seven seconds, so the fifth began 28 s after the first.
            assert_eq!(
                asked.iter().filter(|at| **at < start + 4 * pause).count(),
                1
            );
        }
    }
    assert_eq!(asked.len(), 2);
    assert!(
        asked[1] - asked[0] >= Duration::from_secs(ABSENT_INTERVAL.as_secs()),
        "{asked:?}"
    );
}

/// On its own link the target answers by itself, and mldproxy does not hear it. That the other
/// links did not answer tells nothing about that link.
fn a_host_that_its_own_neighbor_looked_for_is_found_from_elsewhere() {
    let home = Home::new(2);
    let mldproxy = home.start(&[]);
    let [lan, lan2] = &home.lans;
    let upstream = home.upstream();
    let target = &lan[0];
    assert!(lan[1].namespace.reaches(target.address, SOON));
    assert!(frames(&upstream, QUIET).any(|frame| is_asked_for(target.address)(&frame)));
    let learned = format!("learned {} ", target.address);
    assert!(!mldproxy.log().contains(&learned), "the target was silent");
    // This is less than the half minute for which mldproxy does not look for an absent target
    // again.
    let found = lan2[0]
        .namespace
        .reaches(target.address, Duration::from_secs(10));
    assert!(found, "{}", mldproxy.log());
}

/// Looks for 10,000 targets, 2,000 a second. Returns how long that took, and how many mldproxy
/// looked for upstream.
fn flood(upstream: &Tap, look_for: impl Fn(u16, Ipv6Addr)) -> (Duration, usize) {
    const COUNT: u16 = 10_000;
    const AT_ONCE: u16 = 20;
    const PAUSE: Duration = Duration::from_millis(10);
    let start = Instant::now();
    let mut asked = 0;
    let of_flood =
        |frame: &Frame| solicitation(frame).is_some_and(|found| found.target.segments()[6] == 0xf);
    for number in 1..=COUNT {
        look_for(number, free(number));
        if number % AT_ONCE == 0 {
            let end = start + PAUSE * u32::from(number / AT_ONCE);
            let left = || end.saturating_duration_since(Instant::now());
            let seen = iter::from_fn(|| upstream.receive(left()));
            asked += seen.filter(of_flood).count();
        }
    }
    let taken = start.elapsed();
    asked += frames(upstream, QUIET).filter(of_flood).count();
    (taken, asked)
}

/// A flood may cost the table of targets, if it touches all its pages, and the slack.
fn bound_kb(before: u64) -> u64 {
    before + size_of::<targets::Storage>() as u64 / 1024 + SLACK_KB
}

fn a_flood_of_one_host_is_bounded_and_others_find_what_they_look_for() {
    let home = Home::new(2);
    let mldproxy = home.start(&["--log-level", "info"]);
    let [machine, neighbor] = &home.lans[0][..] else {
        panic!("two hosts")
    };
    for host in [machine, neighbor] {
        home.confirm(host);
    }
    let host = Host::on(&machine.namespace);
    let upstream = home.upstream();
    let before = anonymous_memory(&mldproxy);
    let ((taken, asked), found) = thread::scope(|scope| {
        let ordinary = scope.spawn(|| neighbor.namespace.reaches(PC, Duration::from_secs(4)));
        let flooded = flood(&upstream, |_, target| {
            host.looks_for(machine.address, target);
        });
        (flooded, ordinary.join().expect("its panic is above"))
    });
    assert!(found, "{}", mldproxy.log());
    // The most targets that may be open, in each second anew. The first and the last second are
    // counted too.
    let seconds = taken.as_secs() as usize + 2;
    assert!(asked <= MAX_OPEN_OF_HOST * seconds, "{asked} in {taken:?}");
    assert!(asked >= MAX_OPEN_OF_HOST, "{asked}");
    let after = anonymous_memory(&mldproxy);
    assert!(after <= bound_kb(before), "{before} kB, then {after} kB");
    // After the flood everything works as before.
    let [_, lan2] = &home.lans;
    assert!(lan2[0].namespace.reaches(neighbor.address, SOON));
    assert!(mldproxy.is_running(), "{}", mldproxy.log());
}

fn a_flood_of_many_hosts_is_bounded() {
    let home = Home::new(1);
    let mldproxy = home.start(&["--log-level", "info"]);
    let machine = &home.lans[0][0];
    home.confirm(machine);
    let attacker = Host::on(&machine.namespace);
    let upstream = home.upstream();
    let before = anonymous_memory(&mldproxy);
    let (taken, asked) = flood(&upstream, |number, target| {
        let [a, b] = number.to_be_bytes();
        let mac = [2, 0, 0, 0x66, a, b];
        let source = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0x66, number);
        attacker.looks_for_as(mac, source, target);
    });
    let seconds = taken.as_secs() as usize + 1;
    let allowed = BURST as usize + RATE as usize * seconds;
    assert!(asked <= allowed, "{asked} in {taken:?}");
    assert!(asked >= BURST as usize / 2, "{asked}");
    let after = anonymous_memory(&mldproxy);
    // mldproxy also remembers the hosts, so that it could ask them.
    let hosts = 256;
    assert!(
        after <= bound_kb(before) + hosts,
        "{before} kB, then {after} kB"
    );
    assert!(proxied(&home.lab).contains(&machine.address));
    // A host that comes after the flood finds what it looks for.
    eventually("the PC is found", SOON, || {
        machine.namespace.reaches(PC, Duration::from_secs(1))
    });
}

fn the_routers_own_addresses_are_left_to_its_kernel() {
    let home = Home::new(1);
    let mldproxy = home.start(&[]);
    let upstream = home.upstream();
    let [lan, lan2] = home.lans.each_ref().map(|lan| &lan[0]);
    for (machine, own) in [(lan, ON_LAN), (lan2, ON_LAN2)] {
        home.confirm(machine);
        let host = Host::on(&machine.namespace);
        let answers = machine.tap();
        for target in [ROUTER, ON_LAN, ON_LAN2] {
            host.looks_for(machine.address, target);
            host.probes_for_duplicates(target);
        }
        // mldproxy reads packets in order, so it has read the earlier ones.
        host.looks_for(machine.address, free(1));
        let heard: Vec<_> = frames(&answers, QUIET)
            .filter_map(|frame| advertisement(&frame))
            .filter(|answer| [ROUTER, ON_LAN, ON_LAN2].contains(&answer.target))
            .collect();
        // These are the kernel's own answers, which override. The kernel answers on the link of an
        // address alone.
        assert_eq!(heard.len(), 2, "{heard:?}");
        let by_kernel = |answer: &NeighborAdvertisement| {
            answer.target == own && answer.override_flag && answer.router
        };
        assert!(heard.iter().all(by_kernel), "{heard:?}");
    }
    let asked: Vec<_> = frames(&upstream, QUIET)
        .filter_map(|frame| solicitation(&frame))
        .map(|solicitation| solicitation.target)
        .filter(|target| !target.is_unicast_link_local())
        .collect();
    assert_eq!(asked, [free(1)], "{}", mldproxy.log());
}

fn invalid_solicitations_are_not_asked_for_and_not_answered() {
    let home = Home::new(1);
    let mldproxy = home.start(&[]);
    let machine = &home.lans[0][0];
    let host = Host::on(&machine.namespace);
    let (upstream, answers) = (home.upstream(), machine.tap());
    let valid = |target| NeighborSolicitation {
        source: machine.address,
        destination: solicited_node(target),
        target,
        source_link_layer: Some(MacAddress(host.mac)),
    };
    // Once while the PC is unknown, and once while mldproxy would answer for it.
    for is_known in [false, true] {
        for (number, (what, reason, spoil)) in (1..).zip(FAULTS) {
            let mut packet = emit(&valid(PC));
            spoil(&mut packet);
            // The packet has this fault, and no other that mldproxy finds first.
            assert_eq!(parse(&packet), Err(reason), "{what}");
            host.send(solicited_node(PC), packet);
            // mldproxy reads packets in order, so it has read the invalid one before this.
            let next = free(number + u16::from(is_known) * 100);
            host.send(solicited_node(next), emit(&valid(next)));
            let mut asked = frames(&upstream, SOON).filter_map(|frame| solicitation(&frame));
            let asked = asked.find(|found| [PC, next].contains(&found.target));
            assert_eq!(asked.map(|found| found.target), Some(next), "{what}");
        }
        let answered = frames(&answers, QUIET).filter_map(|frame| advertisement(&frame));
        let answered: Vec<_> = answered.filter(|found| found.target == PC).collect();
        assert!(answered.is_empty(), "{answered:?}\n{}", mldproxy.log());
        // A valid solicitation is answered.
        host.send(solicited_node(PC), emit(&valid(PC)));
        let mut heard = frames(&answers, SOON).filter_map(|frame| advertisement(&frame));
        assert!(heard.any(|found| found.target == PC), "{}", mldproxy.log());
        frames(&upstream, QUIET).for_each(drop);
    }
}

/// An address that was there before it was ever used, as a server's second one may be.
fn a_host_that_only_mld_told_of_is_found_by_the_gateway() {
    let home = Home::new(1);
    let mldproxy = home.start(&[]);
    let (lan2, address) = (&home.lans[1][0], free(1));
    // Without duplicate address detection, mldproxy hears nothing of the address but the report of
    // its group.
    lan2.namespace
        .run(&format!("ip addr add {address}/64 dev eth0 nodad"));
    let group = solicited_node(address);
    eventually("the group in the switch's table", SOON, || {
        home.lab.mdb().contains(&group)
    });
    assert!(!mldproxy.log().contains(&format!("learned {address}")));
    assert!(home.lab.gw.reaches(address, SOON), "{}", mldproxy.log());
    home.expect_proxied(address);
    home.expect_routed_to(address, "br-lan2");
}
