//! Streams stop when their last listener leaves, and only then.

use std::net::Ipv6Addr;

use protocol::wire::RecordType;

use crate::lab::{
    DOWNSTREAM, GUEST, MldWatch, Receiver, SOURCE, Speaker, StreamLab, Tap, UPSTREAM, eventually,
};
use crate::support::SOON;

use super::{
    CALM, PATIENT_LEAVE, QUICK_LEAVE, any_source, expect_to, guest_receiver, lan_receiver,
    source_specific, start, upstream_sender,
};

crate::tests![
    a_stream_stops_once_its_last_listener_leaves,
    retransmissions_of_a_leave_do_not_put_off_the_end,
    with_fast_leave_a_stream_stops_without_a_query,
    when_one_of_two_downstreams_leaves_the_other_loses_nothing,
    when_one_of_two_hosts_of_a_link_leaves_the_other_loses_nothing,
    a_host_that_changes_channels_gets_the_next_and_loses_the_last,
];

/// The link-local address of a host that a test speaks for.
const BOX: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xb0);

fn a_stream_stops_once_its_last_listener_leaves() {
    let home = StreamLab::new();
    let _mldproxy = start(&home, QUICK_LEAVE);
    for (group, is_specific) in [(source_specific(1), true), (any_source(1), false)] {
        let receiver = if is_specific {
            lan_receiver(&home, group)
        } else {
            Receiver::of_any(&home.listeners[0], "eth0", group)
        };
        expect_to(&home, group, &[DOWNSTREAM]);
        let _stream = upstream_sender(&home, group).start(CALM);
        receiver.wait_for_more(10, SOON);
        let link = Tap::open(&home.listeners[0], "eth0");
        assert!(home.lab.rtr.memberships(UPSTREAM).contains(&group));
        receiver.leave();
        expect_to(&home, group, &[]);
        eventually("nobody at home is a member upstream", SOON, || {
            !home.lab.rtr.memberships(UPSTREAM).contains(&group)
        });
        // From now on no datagram comes, though the stream goes on.
        link.datagrams_to(group);
        let next = lan_receiver(&home, source_specific(9));
        expect_to(&home, source_specific(9), &[DOWNSTREAM]);
        let numbers = upstream_sender(&home, source_specific(9)).send(200, CALM);
        next.expect_all(SOURCE, numbers, SOON);
        assert_eq!(link.datagrams_to(group), []);
        drop(next);
        expect_to(&home, source_specific(9), &[]);
    }
    home.expect_entries(&[], SOON);
}

/// A listener repeats what it reports (RFC 3810 §6.1). If each repetition started the last listener
/// query anew, a host that repeats a leave forever would keep the stream forever.
fn retransmissions_of_a_leave_do_not_put_off_the_end() {
    let home = StreamLab::new();
    let _mldproxy = start(&home, &["--last-listener-interval", "0.5"]);
    let host = Speaker::new(&home.listeners[0], "eth0", BOX);
    let (specific, any) = (source_specific(1), any_source(1));
    type Say<'a> = &'a dyn Fn();
    let leaves: [(_, Say<'_>, Say<'_>); 3] = [
        (
            specific,
            &|| host.reports(RecordType::AllowNewSources, specific, &[SOURCE]),
            &|| host.reports(RecordType::BlockOldSources, specific, &[SOURCE]),
        ),
        (
            specific,
            &|| host.reports(RecordType::ChangeToInclude, specific, &[SOURCE]),
            &|| host.reports(RecordType::ChangeToInclude, specific, &[]),
        ),
        (
            any,
            &|| host.reports(RecordType::ChangeToExclude, any, &[]),
            &|| host.reports(RecordType::ChangeToInclude, any, &[]),
        ),
    ];
    for (group, join, leave) in leaves {
        join();
        expect_to(&home, group, &[DOWNSTREAM]);
        // The host says so every 20 ms, and the last listener query time is 1 s.
        eventually("the stream ends nevertheless", SOON, || {
            leave();
            home.destinations(SOURCE, UPSTREAM, group).is_empty()
        });
    }
}

/// Without fast leave, the last listener query time would be 50 s.
fn with_fast_leave_a_stream_stops_without_a_query() {
    let home = StreamLab::new();
    let options = ["--fast-leave", "--last-listener-interval", "25"];
    let _mldproxy = start(&home, &options);
    let wire = MldWatch::open(&home.listeners[0], "eth0");
    for (group, is_specific) in [(source_specific(1), true), (any_source(1), false)] {
        let receiver = if is_specific {
            lan_receiver(&home, group)
        } else {
            Receiver::of_any(&home.listeners[0], "eth0", group)
        };
        expect_to(&home, group, &[DOWNSTREAM]);
        receiver.leave();
        expect_to(&home, group, &[]);
        let asked = wire.so_far().into_iter().find(|said| {
            let query = said.query();
            query.is_some_and(|query| query.group == group)
        });
        assert_eq!(asked, None);
    }
}

fn when_one_of_two_downstreams_leaves_the_other_loses_nothing() {
    let home = StreamLab::new();
    let _mldproxy = start(&home, QUICK_LEAVE);
    let group = source_specific(1);
    let (stays, leaves) = (lan_receiver(&home, group), guest_receiver(&home, group));
    expect_to(&home, group, &[DOWNSTREAM, GUEST]);
    let stream = upstream_sender(&home, group).start(CALM);
    leaves.wait_for_more(50, SOON);
    leaves.leave();
    expect_to(&home, group, &[DOWNSTREAM]);
    stays.wait_for_more(100, SOON);
    // It comes back, and goes again.
    leaves.join_source(SOURCE);
    expect_to(&home, group, &[DOWNSTREAM, GUEST]);
    leaves.wait_for_more(50, SOON);
    leaves.leave();
    expect_to(&home, group, &[DOWNSTREAM]);
    stays.wait_for_more(100, SOON);
    let sent = stream.stop();
    stays.expect_all(SOURCE, 0..sent, SOON);
}

/// The router asks who else listens, and the other host answers.
fn when_one_of_two_hosts_of_a_link_leaves_the_other_loses_nothing() {
    let home = StreamLab::with(&crate::lab::StreamOptions {
        listeners: 2,
        ..Default::default()
    });
    let _mldproxy = start(&home, PATIENT_LEAVE);
    let group = source_specific(1);
    let leaves = lan_receiver(&home, group);
    let stays = Receiver::of_source(&home.listeners[1], "eth0", SOURCE, group);
    expect_to(&home, group, &[DOWNSTREAM]);
    let stream = upstream_sender(&home, group).start(CALM);
    stays.wait_for_more(50, SOON);
    let wire = MldWatch::open(&home.listeners[1], "eth0");
    leaves.leave();
    wire.until("the router asks for the source", SOON, |said| {
        let query = said.query();
        query.is_some_and(|query| query.group == group && query.sources == [SOURCE])
    });
    // Much more of the stream than the last listener query time.
    stays.wait_for_more(2_500, SOON);
    expect_to(&home, group, &[DOWNSTREAM]);
    let sent = stream.stop();
    stays.expect_all(SOURCE, 0..sent, SOON);
}

fn a_host_that_changes_channels_gets_the_next_and_loses_the_last() {
    let home = StreamLab::new();
    let _mldproxy = start(&home, QUICK_LEAVE);
    let channels: Vec<_> = (1..=8).map(source_specific).collect();
    let streams: Vec<_> = channels
        .iter()
        .map(|group| upstream_sender(&home, *group).start(200))
        .collect();
    for group in &channels {
        let receiver = lan_receiver(&home, *group);
        receiver.wait_for_more(10, SOON);
    }
    home.expect_entries(&[], SOON);
    drop(streams);
}
