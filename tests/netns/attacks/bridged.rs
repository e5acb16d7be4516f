//! Thieves behind another port of the victim's own bridge, which forge frames in its name. Each
//! such frame moves the victim's entry of the bridge's forwarding database to the thief's port. So
//! what is sent to the victim's link-layer address reaches the thief instead.

use std::net::Ipv6Addr;
use std::time::Duration;

use protocol::wire::{ALL_MLDV2_ROUTERS, RecordType};

use super::{
    Answers, Claim, LAN, Thief, Watch, add_unspoken, always, counter, expect_groups, is_served,
    mac_of, report, silence,
};
use crate::both_ways::home::{Home, Machine, free};
use crate::lab::{Process, UPSTREAM, eventually, solicited_node};
use crate::support::Host;

crate::tests![
    forged_leaves_behind_a_bridge_end_no_membership,
    forged_frames_behind_a_bridge_and_claims_take_no_address,
    forged_frames_behind_a_bridge_alone_let_nobody_expire,
    a_forged_link_local_address_ends_no_membership,
];

/// Longer than the thirty seconds after which the rounds of questions of both sides would be over.
const LONG_ATTACK: Duration = Duration::from_secs(30);
const SHORT: &[&str] = &["--address-timeout", "12", "--expiry-interval", "1"];

/// A home with a silent victim. It has a confirmed address, and two more of which mldproxy knows
/// the groups alone.
struct Silent {
    home: Home,
    mldproxy: Process,
    unspoken: Vec<Ipv6Addr>,
}

impl Silent {
    fn new(options: &[&str]) -> Self {
        let home = Home::new(2);
        let mldproxy = home.start(options);
        let victim = &home.lans[0][0];
        home.confirm(victim);
        silence(victim);
        let unspoken = add_unspoken(victim, 1..=2);
        expect_groups(&home, &unspoken);
        Silent {
            home,
            mldproxy,
            unspoken,
        }
    }

    fn victim(&self) -> &Machine {
        &self.home.lans[0][0]
    }

    /// A thief behind another port of the victim's bridge, with the victim's link-layer and
    /// link-local address. It claims nothing, and answers nothing.
    fn forger(&self) -> Thief {
        let Silent { home, unspoken, .. } = self;
        let own = self.victim().address;
        let targets = [&[own], &unspoken[..]].concat();
        let mut forger = Thief::at(home, &home.lans[0][1], LAN, &targets)
            .posing_as(self.victim())
            .answering(Answers::None);
        forger.link_local = self.victim().namespace.link_local_of("eth0");
        forger
    }

    /// Asserts for some time that the router keeps all that the victim needs.
    #[track_caller]
    fn expect_kept(&self, time: Duration) {
        let Silent { home, unspoken, .. } = self;
        let own = self.victim().address;
        let left = counter(home, "groups_left");
        always("the victim keeps all it has", time, || {
            let joined = home.lab.rtr.joined(UPSTREAM);
            let is_kept = |address: &Ipv6Addr| joined.contains(&solicited_node(*address));
            is_served(home, own, LAN) && unspoken.iter().all(is_kept)
        });
        assert_eq!(
            counter(home, "groups_left"),
            left,
            "{}",
            self.mldproxy.log()
        );
        assert_eq!(counter(home, "proxies_removed"), 0);
    }
}

fn forged_leaves_behind_a_bridge_end_no_membership() {
    let silent = Silent::new(&["--expiry-interval", "1"]);
    let watch = Watch::start(&silent.home);
    let forger = silent.forger().claiming_by(&[Claim::Leaves]);
    forger.during(|| silent.expect_kept(LONG_ATTACK));
    watch.expect_only(&silent.mldproxy, silent.victim().address, LAN);
}

/// One frame in the victim's name moves its entry, and then the thief claims the victim's addresses
/// with its own link-layer address.
fn forged_frames_behind_a_bridge_and_claims_take_no_address() {
    let silent = Silent::new(&["--expiry-interval", "1"]);
    let home = &silent.home;
    let watch = Watch::start(home);
    let forger = silent.forger().claiming_by(&[Claim::Leaves]);
    let thief = Thief::at(home, &home.lans[0][1], LAN, &forger.targets);
    forger.during(|| thief.during(|| silent.expect_kept(LONG_ATTACK)));
    watch.expect_only(&silent.mldproxy, silent.victim().address, LAN);
    for address in &forger.targets {
        let holder = mac_of(home, *address);
        assert_ne!(
            holder,
            Some(text(thief.host.mac)),
            "{address}\n{}",
            silent.mldproxy.log()
        );
    }
    let owner = Host::on(&silent.victim().namespace).mac;
    assert_eq!(mac_of(home, silent.victim().address), Some(text(owner)));
}

fn text(mac: [u8; 6]) -> String {
    mac.map(|octet| format!("{octet:02x}")).join(":")
}

/// The frames name nothing that the victim has. Its answers to the last questions reach the router
/// although the others went astray.
fn forged_frames_behind_a_bridge_alone_let_nobody_expire() {
    let silent = Silent::new(SHORT);
    let watch = Watch::start(&silent.home);
    let mut forger = silent.forger().claiming_by(&[Claim::SolicitsFrom]);
    forger.targets = vec![forger.link_local];
    forger.during(|| silent.expect_kept(LONG_ATTACK));
    watch.expect_only(&silent.mldproxy, silent.victim().address, LAN);
}

/// The frames come from the victim's own port, such as that of a wireless network. They carry
/// another link-local source, to which questions would go in vain.
fn a_forged_link_local_address_ends_no_membership() {
    let home = Home::new(1);
    let options = [
        "--learn",
        "mld",
        "--address-timeout",
        "12",
        "--expiry-interval",
        "1",
    ];
    let interfaces = [UPSTREAM, LAN];
    let mldproxy = crate::support::start_between(&home.lab.rtr, &options, &interfaces);
    let victim = &home.lans[0][0];
    let addresses = add_unspoken(victim, 1..=2);
    silence(victim);
    expect_groups(&home, &addresses);
    eventually("the victim has answered", super::GENEROUS, || {
        let status = home.lab.rtr.status("--json --limit 1000");
        let group = format!("\"group\":\"{}\"", solicited_node(free(1)));
        let entry = status.split_once(&group).map(|(_, entry)| entry);
        let entry = entry.and_then(|entry| entry.split_once('}'));
        entry.is_some_and(|(entry, _)| entry.contains("\"confirmed\":true"))
    });
    let left = counter(&home, "groups_left");
    let forger = Host::on(&victim.namespace);
    let forged = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xbad);
    let mut until_next = 0;
    always("the groups stay joined", LONG_ATTACK, || {
        // Three frames between two questions are enough.
        if until_next == 0 {
            let group = [solicited_node(free(9))];
            let packet = report(forged, RecordType::ModeIsExclude, group);
            forger.send(ALL_MLDV2_ROUTERS, packet);
            forger.solicits_from(forged);
            until_next = 10;
        }
        until_next -= 1;
        let joined = home.lab.rtr.joined(UPSTREAM);
        let is_kept = |address: &Ipv6Addr| joined.contains(&solicited_node(*address));
        addresses.iter().all(is_kept)
    });
    assert_eq!(counter(&home, "groups_left"), left, "{}", mldproxy.log());
}
