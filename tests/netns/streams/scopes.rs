//! What stays at home, and what does not even leave its link.

use std::net::Ipv6Addr;

use protocol::wire::RecordType;

use crate::lab::{
    DOWNSTREAM, GUEST, GUEST_HOST, MldWatch, Receiver, SOURCE, Sender, Speaker, StreamLab, Tap,
    UPSTREAM, Upcalls, eventually,
};
use crate::support::SOON;

use super::{CALM, QUICK_LEAVE, any_source, expect_to, source_specific, start, upstream_sender};

crate::tests![
    site_local_groups_pass_between_downstreams_and_never_upstream,
    with_senders_site_local_groups_stay_at_home_too,
    groups_of_the_scope_that_an_option_names_are_joined_upstream,
    groups_that_are_denied_are_neither_joined_nor_forwarded,
    link_local_groups_stay_on_their_link,
    a_hop_limit_of_1_ends_at_the_router,
];

/// Matter's groups: the one that all fabrics share, and one of a fabric, which is made of its /64
/// and so is no source-specific group (RFC 3306 §4).
const MATTER: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, 0xfa),
    Ipv6Addr::new(0xff35, 0x40, 0xfd12, 0x3456, 0x789a, 0xbc00, 0, 1),
];
const BOX: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xb0);

#[track_caller]
fn expect_between_downstreams_only(home: &StreamLab, version: u8, group: Ipv6Addr) {
    let host = &home.listeners[0];
    host.sysctl("net.ipv6.conf.eth0.force_mld_version", &version.to_string());
    let receiver = Receiver::of_any(host, "eth0", group);
    home.expect_way(GUEST_HOST, GUEST, group, &[DOWNSTREAM], SOON);
    let [upstream, guest] =
        [(&home.lab.gw, "eth0"), (&home.guest, "eth0")].map(|(at, on)| Tap::open(at, on));
    let numbers = Sender::new(&home.guest, "eth0", GUEST_HOST, group).send(200, CALM);
    receiver.expect_all(GUEST_HOST, numbers, SOON);
    assert_eq!(upstream.datagrams_to(group), []);
    assert_eq!(guest.datagrams_to(group).len(), 200);
    assert!(!home.lab.rtr.memberships(UPSTREAM).contains(&group));

    // Nothing comes in from upstream either. What the guest sends after it arrives.
    let listener = Tap::open(host, "eth0");
    upstream_sender(home, group).send(50, CALM);
    Sender::new(&home.guest, "eth0", GUEST_HOST, group).send(50, CALM);
    let mut heard = Vec::new();
    eventually("the guest is heard", SOON, || {
        let heard_now = listener.datagrams_to(group);
        heard.extend(heard_now.iter().map(|datagram| datagram.source));
        heard.len() >= 50
    });
    assert_eq!(heard, [GUEST_HOST; 50]);
}

fn site_local_groups_pass_between_downstreams_and_never_upstream() {
    let home = StreamLab::new();
    let _mldproxy = start(&home, QUICK_LEAVE);
    let wire = MldWatch::open(&home.lab.gw, "eth0");
    for version in [2, 1] {
        for group in MATTER {
            expect_between_downstreams_only(&home, version, group);
            home.expect_entries(&[], SOON);
        }
    }
    let reported = wire.so_far();
    let named = |group: &Ipv6Addr| reported.iter().any(|said| said.is_of(*group));
    assert!(!MATTER.iter().any(named), "{reported:#?}");
}

fn with_senders_site_local_groups_stay_at_home_too() {
    let home = StreamLab::new();
    let _mldproxy = start(&home, &["--senders", "--last-listener-interval", "0.1"]);
    for group in MATTER {
        expect_between_downstreams_only(&home, 2, group);
    }
}

fn groups_of_the_scope_that_an_option_names_are_joined_upstream() {
    let home = StreamLab::new();
    let _mldproxy = start(&home, &["--scope", "site"]);
    let [group, _] = MATTER;
    let receiver = Receiver::of_any(&home.listeners[0], "eth0", group);
    eventually("the router is a member upstream", SOON, || {
        home.lab.rtr.memberships(UPSTREAM).contains(&group)
    });
    expect_to(&home, group, &[DOWNSTREAM]);
    let numbers = upstream_sender(&home, group).send(100, CALM);
    receiver.expect_all(SOURCE, numbers, SOON);
}

fn groups_that_are_denied_are_neither_joined_nor_forwarded() {
    let home = StreamLab::new();
    let denied = any_source(1);
    let _mldproxy = start(&home, &["--deny", &format!("{denied}/128")]);
    let host = &home.listeners[0];
    let _unheard = Receiver::of_any(host, "eth0", denied);
    let _heard = Receiver::of_any(host, "eth0", any_source(2));
    // The second was reported after the first.
    home.expect_entries(&[&format!("* {} -> {DOWNSTREAM}", any_source(2))], SOON);
    assert!(!home.lab.rtr.memberships(UPSTREAM).contains(&denied));
}

fn link_local_groups_stay_on_their_link() {
    let home = StreamLab::new();
    let _mldproxy = start(&home, &[]);
    let host = Speaker::new(&home.listeners[0], "eth0", BOX);
    let mdns = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);
    let interface = Ipv6Addr::new(0xff01, 0, 0, 0, 0, 0, 0, 0xfb);
    for group in [mdns, interface, source_specific(1)] {
        host.reports(RecordType::ModeIsInclude, group, &[SOURCE]);
        host.reports(RecordType::ChangeToExclude, group, &[]);
    }
    let entry = format!("{SOURCE} {} {UPSTREAM} -> {DOWNSTREAM}", source_specific(1));
    home.expect_entries(&[&entry], SOON);
    assert!(!home.lab.rtr.memberships(UPSTREAM).contains(&mdns));
}

/// Forwarding takes 1 off the hop limit. Many programs send with 1 unless they are told otherwise.
fn a_hop_limit_of_1_ends_at_the_router() {
    let home = StreamLab::new();
    let _mldproxy = start(&home, &[]);
    let group = any_source(1);
    let receiver = Receiver::of_any(&home.listeners[0], "eth0", group);
    expect_to(&home, group, &[DOWNSTREAM]);
    let upcalls = Upcalls::watch(&home.lab.rtr);
    let mut sender = upstream_sender(&home, group);
    sender.set_hop_limit(1);
    sender.send(50, CALM);
    sender.set_hop_limit(2);
    let numbers = sender.send(50, CALM);
    receiver.expect_all(SOURCE, numbers, SOON);
    assert_eq!(upcalls.so_far(), 0);
}
