//! Who wants which sources, merged over the links (RFC 4605 §4.1).

use std::net::Ipv6Addr;
use std::time::Duration;

use protocol::wire::RecordType;

use crate::lab::{
    DOWNSTREAM, Datagram, Filter, GUEST, GUEST_HOST, MldWatch, OTHER_SOURCE, QuerySaid, Receiver,
    SOURCE, Sender, Speaker, StreamLab, Tap, UPSTREAM, eventually,
};
use crate::support::SOON;

use super::{CALM, QUICK_LEAVE, any_source, expect_to, source_specific, start, upstream_sender};

crate::tests![
    a_source_excluded_on_one_link_and_included_on_the_other_goes_to_the_other,
    filters_that_change_move_the_streams,
    a_source_at_home_reaches_the_other_downstream,
    a_source_at_home_excluded_on_one_link_does_not_reach_it,
    with_senders_a_source_at_home_goes_upstream_too_and_never_back,
    with_senders_a_source_at_home_of_a_group_for_any_source_is_not_doubled,
];

fn sources_of(datagrams: &[Datagram]) -> Vec<Ipv6Addr> {
    let mut sources: Vec<_> = datagrams.iter().map(|datagram| datagram.source).collect();
    sources.dedup();
    sources.sort_unstable();
    sources.dedup();
    sources
}

fn a_source_excluded_on_one_link_and_included_on_the_other_goes_to_the_other() {
    let home = StreamLab::new();
    let _mldproxy = start(&home, QUICK_LEAVE);
    let group = any_source(1);
    let on_lan = Receiver::of_any(&home.listeners[0], "eth0", group);
    on_lan.block_source(SOURCE);
    let on_guest = Receiver::of_source(&home.guest, "eth0", SOURCE, group);
    expect_to(&home, group, &[GUEST]);
    home.expect_way(OTHER_SOURCE, UPSTREAM, group, &[DOWNSTREAM], SOON);
    let entry = format!("{SOURCE} {group} {UPSTREAM} -> {GUEST}");
    home.expect_entries(&[&entry, &format!("* {group} -> {DOWNSTREAM}")], SOON);
    assert!(home.lab.rtr.memberships(UPSTREAM).contains(&group));

    // The hosts' kernels would hide what is not for them, so the links are looked at.
    let links = [
        Tap::open(&home.listeners[0], "eth0"),
        Tap::open(&home.guest, "eth0"),
    ];
    let mut sender = upstream_sender(&home, group);
    let mut other = Sender::new(&home.lab.gw, "eth0", OTHER_SOURCE, group);
    let (from_source, from_other) = (sender.send(200, CALM), other.send(200, CALM));
    on_guest.expect_all(SOURCE, from_source, SOON);
    on_lan.expect_all(OTHER_SOURCE, from_other, SOON);
    let seen = links.map(|link| sources_of(&link.datagrams_to(group)));
    assert_eq!(seen, [vec![OTHER_SOURCE], vec![SOURCE]]);
    let entries = home.lab.rtr.multicast_entries();
    let counts: Vec<_> = entries
        .iter()
        .filter(|entry| entry.group == group)
        .map(|entry| (entry.source, entry.counted.packets))
        .collect();
    assert_eq!(counts.len(), 2);
    assert!(
        counts.iter().all(|(_, packets)| *packets == 200),
        "{counts:?}"
    );
}

fn filters_that_change_move_the_streams() {
    let home = StreamLab::new();
    let _mldproxy = start(&home, QUICK_LEAVE);
    let group = source_specific(1);
    let receiver = Receiver::of_source(&home.listeners[0], "eth0", SOURCE, group);
    expect_to(&home, group, &[DOWNSTREAM]);
    let included = || {
        let mut included = home.lab.rtr.included_sources(UPSTREAM);
        included.remove(&group).unwrap_or_default()
    };
    for (sources, gone) in [
        (&[SOURCE, OTHER_SOURCE][..], None),
        (&[OTHER_SOURCE], Some(SOURCE)),
        (&[SOURCE], Some(OTHER_SOURCE)),
    ] {
        receiver.set_filter(Filter::Include(sources));
        for source in sources {
            home.expect_way(*source, UPSTREAM, group, &[DOWNSTREAM], SOON);
        }
        if let Some(gone) = gone {
            home.expect_way(gone, UPSTREAM, group, &[], SOON);
        }
        eventually("the same sources are wanted upstream", SOON, || {
            included() == sources.iter().copied().collect()
        });
    }
    receiver.set_filter(Filter::Include(&[]));
    home.expect_entries(&[], SOON);
}

fn a_source_at_home_reaches_the_other_downstream() {
    let home = StreamLab::new();
    let _mldproxy = start(&home, QUICK_LEAVE);
    for (group, source) in [
        (source_specific(1), Some(GUEST_HOST)),
        (any_source(1), None),
    ] {
        let receiver = Receiver::new(&home.listeners[0], "eth0", group);
        match source {
            Some(source) => receiver.join_source(source),
            None => receiver.join(),
        }
        home.expect_way(GUEST_HOST, GUEST, group, &[DOWNSTREAM], SOON);
        let [upstream, guest] =
            [(&home.lab.gw, "eth0"), (&home.guest, "eth0")].map(|(at, on)| Tap::open(at, on));
        let mut sender = Sender::new(&home.guest, "eth0", GUEST_HOST, group);
        let numbers = sender.send(200, CALM);
        receiver.expect_all(GUEST_HOST, numbers, SOON);
        assert_eq!(upstream.datagrams_to(group), []);
        // Each passed there once, on its way from the sender.
        assert_eq!(guest.datagrams_to(group).len(), 200);
    }
}

fn a_source_at_home_excluded_on_one_link_does_not_reach_it() {
    let home = StreamLab::new();
    let _mldproxy = start(&home, QUICK_LEAVE);
    let group = any_source(1);
    let receiver = Receiver::of_any(&home.listeners[0], "eth0", group);
    receiver.block_source(GUEST_HOST);
    expect_to(&home, group, &[DOWNSTREAM]);
    home.expect_way(GUEST_HOST, GUEST, group, &[], SOON);
    let link = Tap::open(&home.listeners[0], "eth0");
    Sender::new(&home.guest, "eth0", GUEST_HOST, group).send(100, CALM);
    let numbers = upstream_sender(&home, group).send(100, CALM);
    receiver.expect_all(SOURCE, numbers, SOON);
    assert_eq!(sources_of(&link.datagrams_to(group)), [SOURCE]);
}

fn with_senders_a_source_at_home_goes_upstream_too_and_never_back() {
    let home = StreamLab::new();
    let _mldproxy = start(&home, &["--senders"]);
    let group = source_specific(1);
    let receiver = Receiver::of_source(&home.listeners[0], "eth0", GUEST_HOST, group);
    expect_everywhere_once(&home, group, Some(&receiver));
    // Nobody at home listens to it.
    expect_everywhere_once(&home, any_source(2), None);
}

/// A kernel that is a member upstream hears what it sends there itself, and would forward that a
/// second time. So the router alone reports such a group, and answers for it.
fn with_senders_a_source_at_home_of_a_group_for_any_source_is_not_doubled() {
    let home = StreamLab::new();
    let group = any_source(1);
    let wire = MldWatch::open(&home.lab.gw, "eth0");
    let _mldproxy = start(&home, &["--senders"]);
    let receiver = Receiver::of_any(&home.listeners[0], "eth0", group);
    for _ in 0..2 {
        wire.until("the router says that it listens", SOON, |said| {
            said.reports(RecordType::ChangeToExclude, group, &[])
        });
    }
    let querier = Speaker::new(&home.lab.gw, "eth0", "fe80::1".parse().unwrap());
    querier.queries(&QuerySaid::general(Duration::from_secs(125)));
    wire.until("the router answers that it listens", SOON, |said| {
        said.reports(RecordType::ModeIsExclude, group, &[])
    });
    expect_everywhere_once(&home, group, Some(&receiver));
    drop(receiver);
    for _ in 0..2 {
        wire.until("the router says that it listens no more", SOON, |said| {
            said.reports(RecordType::ChangeToInclude, group, &[])
        });
    }
}

/// The guest sends, and each datagram arrives once upstream, once at the receiver, and never back.
#[track_caller]
fn expect_everywhere_once(home: &StreamLab, group: Ipv6Addr, receiver: Option<&Receiver>) {
    let way: &[&str] = match receiver {
        Some(_) => &[DOWNSTREAM, UPSTREAM],
        None => &[UPSTREAM],
    };
    home.expect_way(GUEST_HOST, GUEST, group, way, SOON);
    let [upstream, guest] =
        [(&home.lab.gw, "eth0"), (&home.guest, "eth0")].map(|(at, on)| Tap::open(at, on));
    let numbers = Sender::new(&home.guest, "eth0", GUEST_HOST, group).send(200, CALM);
    if let Some(receiver) = receiver {
        receiver.expect_all(GUEST_HOST, numbers.clone(), SOON);
    }
    let mut above = Vec::new();
    eventually("all are upstream", SOON, || {
        above.extend(upstream.datagrams_to(group));
        above.len() >= 200
    });
    let in_order: Vec<_> = above.iter().map(|datagram| datagram.number).collect();
    assert_eq!(in_order, numbers.collect::<Vec<_>>());
    // Each passed there once, on its way from the sender.
    assert_eq!(guest.datagrams_to(group).len(), 200);
}
