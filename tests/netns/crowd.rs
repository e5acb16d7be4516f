//! Many hosts at once: what exceeds a limit has its turn later.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;
use std::time::Duration;

use nix::sys::signal::Signal;
use protocol::wire::{ALL_MLDV2_ROUTERS, Message, RecordType, ReportBuilder, parse};

use crate::flood::flood;
use crate::lab::{
    LAN_ROUTER, Lab, LabOptions, Process, UPSTREAM, downstream, eventually, lan_host, poll_for,
    solicited_node,
};
use crate::support::{
    Host, SOON, address, missing_of, proxied, solicitation, start, start_between, summary,
};
use crate::turns::run_beside_others;

crate::tests![
    six_hundred_hosts_that_detect_duplicates_once_are_all_joined,
    two_thousand_hosts_that_say_one_advertisement_each_are_all_joined,
    six_hundred_hosts_beside_a_flood_are_all_kept,
    a_host_with_80_addresses_has_64_of_them_proxied,
    a_hundred_questions_at_once_are_all_answered,
];

/// Within this time a packet that was sent has arrived.
const QUIET: Duration = Duration::from_millis(50);

/// The link-layer address of the `number`th host.
fn mac(number: u16) -> [u8; 6] {
    let [high, low] = number.to_be_bytes();
    [2, 0, 0, 0x66, high, low]
}

#[track_caller]
fn expect_all_joined(lab: &Lab, mldproxy: &Process, addresses: &[Ipv6Addr]) {
    let mut missing = Vec::new();
    let all = poll_for(2 * SOON, || {
        missing = missing_of(lab, addresses);
        missing.is_empty().then_some(())
    });
    assert!(
        all.is_some(),
        "{} are missing:\n{}",
        missing.len(),
        mldproxy.log()
    );
}

/// A container host boots, or a power cut in a dormitory ends.
fn six_hundred_hosts_that_detect_duplicates_once_are_all_joined() {
    let lab = Lab::without_querier();
    let mldproxy = start(&lab, &["--join-rate", "100", "--log-level", "info"]);
    let tap = Host::on(&lab.lan).tap;
    let addresses: Vec<Ipv6Addr> = (1..=600).map(address).collect();
    for (number, target) in (1..).zip(&addresses) {
        tap.send(&solicitation(mac(number), Ipv6Addr::UNSPECIFIED, *target));
    }
    expect_all_joined(&lab, &mldproxy, &addresses);
    assert!(
        mldproxy.log().contains("wait to be joined"),
        "{}",
        mldproxy.log()
    );
}

fn two_thousand_hosts_that_say_one_advertisement_each_are_all_joined() {
    let lab = Lab::without_querier();
    let mldproxy = start(&lab, &["--join-rate", "500", "--log-level", "info"]);
    let mut host = Host::on(&lab.lan);
    let addresses: Vec<Ipv6Addr> = (1..=2000).map(address).collect();
    for (number, target) in (1..).zip(&addresses) {
        host.mac = mac(number);
        host.advertises(*target);
    }
    expect_all_joined(&lab, &mldproxy, &addresses);
}

/// The hosts say one thing each, and then answer questions. 20,000 strangers come right after them.
fn six_hundred_hosts_beside_a_flood_are_all_kept() {
    let lab = Lab::without_querier();
    let mldproxy = start(&lab, &["--log-level", "info"]);
    let mut lan = Host::on(&lab.lan);
    let addresses: Vec<Ipv6Addr> = (1..=600).map(address).collect();
    for (number, target) in (1..).zip(&addresses) {
        lan.tap
            .send(&solicitation(mac(number), Ipv6Addr::UNSPECIFIED, *target));
    }
    flood(&lan, &mut fastrand::Rng::with_seed(1), 20_000, || {});
    // What is left is 20 questions a second and their answers.
    run_beside_others();
    let confirmed = poll_for(6 * SOON, || {
        let all = summary(&mldproxy).contains("(600 confirmed)");
        // After all of the hosts mldproxy asks strangers, 20 a second.
        for frame in (0..100).map_while(|_| lan.tap.receive(QUIET)) {
            let asked = match parse(&frame.packet) {
                Ok(Message::NeighborSolicitation(asked)) if asked.source == LAN_ROUTER => asked,
                _ => continue,
            };
            let number = addresses.iter().position(|own| *own == asked.target);
            if let Some(number) = number.and_then(|number| u16::try_from(number + 1).ok()) {
                lan.mac = mac(number);
                lan.answers(asked.target, LAN_ROUTER);
            }
        }
        all.then_some(())
    });
    assert!(confirmed.is_some(), "{}", summary(&mldproxy));
    expect_all_joined(&lab, &mldproxy, &addresses);
}

/// The host reports all of its 80 groups, and then speaks from each address.
fn a_host_with_80_addresses_has_64_of_them_proxied() {
    let lab = Lab::without_querier();
    let mldproxy = start(&lab, &["--ndp-proxy", "--learn", "both"]);
    let host = Host::apart(&lab.lan, 1);
    let link_local = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0x77, 1);
    let addresses: Vec<Ipv6Addr> = (1..=80).map(address).collect();
    let answer = || {
        for addresses in addresses.chunks(40) {
            let mut packet = vec![0; 1500];
            let mut report = ReportBuilder::new(&mut packet);
            for address in addresses {
                assert!(report.push(RecordType::ModeIsExclude, solicited_node(*address)));
            }
            let length = report.finish(link_local).expect("the packet fits");
            packet.truncate(length);
            host.send(ALL_MLDV2_ROUTERS, packet);
        }
    };
    host.solicits_from(link_local);
    // The host answers a query like this, and speaks from its addresses now and then.
    let settled = poll_for(SOON, || {
        while let Some(frame) = host.tap.receive(QUIET) {
            let to_host = frame.destination == host.mac;
            if to_host && matches!(parse(&frame.packet), Ok(Message::Query(_))) {
                answer();
                for address in &addresses {
                    host.solicits_from(*address);
                }
            }
        }
        (proxied(&lab).len() == 64).then_some(())
    });
    let proxied = proxied(&lab).len();
    assert!(settled.is_some(), "{proxied}\n{}", mldproxy.log());
}

/// The packets come in one batch, while the process is stopped.
fn a_hundred_questions_at_once_are_all_answered() {
    let lab = Lab::with(&LabOptions {
        querier: false,
        lans: 2,
        ..LabOptions::default()
    });
    let interfaces = [UPSTREAM, &downstream(1), &downstream(2)];
    let mldproxy = start_between(&lab.rtr, &["--ndp-proxy"], &interfaces);
    let target = lan_host(2);
    lab.more_lans[0].ping_until_answered(&format!("-I {target} {LAN_ROUTER}%eth0"));
    eventually("the target is known", SOON, || {
        proxied(&lab).contains(&target)
    });
    let asker = Host::apart(&lab.lan, 1);
    mldproxy.signal(Signal::SIGSTOP);
    for number in 1..=100 {
        asker.looks_for_as(mac(number), address(number), target);
    }
    mldproxy.signal(Signal::SIGCONT);
    let mut answered = BTreeSet::new();
    let all = poll_for(SOON, || {
        while let Some(frame) = asker.tap.receive(QUIET) {
            if let Ok(Message::NeighborAdvertisement(answer)) = parse(&frame.packet)
                && answer.target == target
            {
                answered.insert(answer.destination);
            }
        }
        (answered.len() == 100).then_some(())
    });
    assert!(all.is_some(), "{} of 100", answered.len());
}
