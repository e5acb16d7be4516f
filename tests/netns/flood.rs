//! A LAN on which somebody floods while others live there.

use std::net::Ipv6Addr;

use protocol::wire::{MacAddress, NeighborSolicitation};

use crate::lab::{Frame, Lab, Process, Traffic, eventually, group_mac, solicited_node};
use crate::support::{
    Host, SOON, add_real_hosts, address, anonymous_memory, expect_among_joined, missing_of,
    speak_link_local, start, summary,
};

crate::tests![
    one_mac_with_many_addresses_takes_no_more_than_its_share;
    spoofed_sources_do_not_disturb_real_hosts needs [("ndppd", "ndppd")],
    spoofed_sources_do_not_push_out_real_hosts_where_nothing_else_is_limited
        needs [("ndppd", "ndppd")],
];

/// Sends solicitations from made-up hosts as fast as it can, half of them for duplicate detection.
pub fn flood(host: &Host, random: &mut fastrand::Rng, count: usize, mut meanwhile: impl FnMut()) {
    for round in 0..count {
        let mut mac: [u8; 6] = std::array::from_fn(|_| random.u8(..));
        mac[0] = mac[0] & 0xfe | 2;
        let prefix = u128::from(0x2001_0db8_0001_0000_u64) << 64;
        let claimed = Ipv6Addr::from_bits(prefix | u128::from(random.u64(..)));
        // The solicitations are of an address that nobody has, so that they do not flood the
        // router's kernel.
        let target = Ipv6Addr::from_bits(prefix | 0xffff_0000 | u128::from(random.u16(..)));
        let (source, target, source_link_layer) = if round % 2 == 0 {
            (Ipv6Addr::UNSPECIFIED, claimed, None)
        } else {
            (claimed, target, Some(MacAddress(mac)))
        };
        let destination = solicited_node(target);
        let mut packet = vec![0; 128];
        let solicitation = NeighborSolicitation {
            source,
            destination,
            target,
            source_link_layer,
        };
        let length = solicitation.emit(&mut packet).expect("the packet fits");
        packet.truncate(length);
        host.tap.send(&Frame {
            source: mac,
            destination: group_mac(destination),
            packet,
        });
        if round % 5000 == 0 {
            meanwhile();
        }
    }
}

fn spoofed_sources_do_not_disturb_real_hosts() {
    survive(&[]);
}

/// The rate of joins keeps a flood out of the tables. Without it the tables fill, and the strangers
/// must give way.
fn spoofed_sources_do_not_push_out_real_hosts_where_nothing_else_is_limited() {
    survive(&["--join-rate", "1000000", "--join-burst", "1000000"]);
}

fn survive(limits: &[&str]) {
    let lab = Lab::new();
    let _ndppd = lab.start_ndppd();
    let options = [&["--learn", "both", "--log-level", "info"], limits].concat();
    let mldproxy = start(&lab, &options);
    let hosts = add_real_hosts(&lab, 20);
    speak_link_local(&lab, 1..=20);
    expect_among_joined(&lab, &hosts);
    expect_all_confirmed(&mldproxy);
    eventually("the switch knows all", SOON, || {
        let known = lab.mdb();
        hosts
            .iter()
            .all(|host| known.contains(&solicited_node(*host)))
    });
    let traffic = Traffic::start(&lab, &hosts);
    traffic.expect_all_reached(SOON);
    // ndppd solicited these addresses, so mldproxy knows them beside the groups.
    expect_all_confirmed(&mldproxy);
    let before = anonymous_memory(&mldproxy);

    let attacker = Host::on(&lab.lan);
    let mut random = fastrand::Rng::with_seed(1);
    flood(&attacker, &mut random, 50_000, || {
        let missing = missing_of(&lab, &hosts);
        assert!(missing.is_empty(), "{missing:?} of\n{}", mldproxy.log());
    });
    // When the last packet has its effect, mldproxy has read all of them.
    summary(&mldproxy);
    assert!(missing_of(&lab, &hosts).is_empty(), "{}", mldproxy.log());
    lab.gw.flush_neighbors();
    traffic.expect_all_reached(SOON);
    traffic.expect_nothing_lost();
    let after = anonymous_memory(&mldproxy);
    assert!(after < 1500, "{before} kB before, {after} kB after");
    let log = mldproxy.log();
    for host in &hosts {
        let left = format!("left {},", solicited_node(*host));
        assert!(!log.contains(&left), "{left}");
    }
    // The next 50,000 packets cost no more than the first.
    flood(&attacker, &mut random, 50_000, || {});
    summary(&mldproxy);
    let later = anonymous_memory(&mldproxy);
    assert!(later <= after + 64, "{after} kB, then {later} kB");
    assert!(missing_of(&lab, &hosts).is_empty(), "{}", mldproxy.log());
}

/// Waits until mldproxy knows only addresses for which a host answered.
fn expect_all_confirmed(mldproxy: &Process) {
    eventually("all hosts have answered", SOON, || {
        let summary = summary(mldproxy);
        let words: Vec<_> = summary.split_whitespace().collect();
        let known = words.iter().position(|word| *word == "addresses");
        let known = known.and_then(|place| words.get(place.checked_sub(1)?));
        summary.contains(&format!("({} confirmed)", known.expect("a number")))
    });
}

fn one_mac_with_many_addresses_takes_no_more_than_its_share() {
    let lab = Lab::without_querier();
    let mldproxy = start(&lab, &["--per-mac", "8", "--log-level", "info"]);
    let greedy = Host::apart(&lab.lan, 1);
    for number in 1..=100 {
        greedy.solicits_from(address(number));
    }
    let modest = Host::apart(&lab.lan, 2);
    modest.solicits_from(address(200));
    expect_among_joined(&lab, &[address(200)]);
    assert!(
        summary(&mldproxy).contains(" 9 addresses and listeners"),
        "{}",
        mldproxy.log()
    );
}
