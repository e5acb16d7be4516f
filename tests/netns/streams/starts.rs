//! The first datagram of a stream arrives, since no packet waits for a decision.

use crate::lab::{
    DOWNSTREAM, GUEST, OTHER_SOURCE, Receiver, StreamLab, StreamOptions, UPSTREAM, Upcalls,
    eventually,
};
use crate::support::SOON;

use super::{
    any_source, expect_to, guest_receiver, lan_receiver, source_specific, start, upstream_sender,
};

crate::tests![
    nothing_is_lost_when_a_stream_starts,
    a_listener_of_a_stream_that_is_already_there_gets_it,
    a_source_that_speaks_up_later_is_heard_from_its_first_datagram_on,
    a_switch_that_snoops_hands_the_stream_over,
];

/// The pace of the streams that start, and how many datagrams of each are counted.
const FAST: u32 = 20_000;
const DATAGRAMS: u64 = 1_000;

fn nothing_is_lost_when_a_stream_starts() {
    let home = StreamLab::new();
    let _mldproxy = start(&home, &[]);
    let upcalls = Upcalls::watch(&home.lab.rtr);
    for number in 1..=10 {
        let (group, receiver) = if number % 2 == 0 {
            let group = any_source(number);
            (group, Receiver::of_any(&home.listeners[0], "eth0", group))
        } else {
            let group = source_specific(number);
            (group, lan_receiver(&home, group))
        };
        // The way is there before the first datagram.
        expect_to(&home, group, &[DOWNSTREAM]);
        let numbers = upstream_sender(&home, group).send(DATAGRAMS, FAST);
        receiver.expect_all(crate::lab::SOURCE, numbers, SOON);
    }
    assert_eq!(upcalls.so_far(), 0);
}

/// Upstream floods, so the stream arrives at the router before anybody wants it.
fn a_listener_of_a_stream_that_is_already_there_gets_it() {
    let home = StreamLab::new();
    let _mldproxy = start(&home, &[]);
    for (group, is_specific) in [(source_specific(1), true), (any_source(1), false)] {
        let mut sender = upstream_sender(&home, group);
        sender.send(10, FAST);
        let stream = sender.start(super::CALM);
        eventually("the stream is there", SOON, || stream.sent() > 100);
        assert!(
            home.destinations(crate::lab::SOURCE, UPSTREAM, group)
                .is_empty()
        );
        let receiver = if is_specific {
            lan_receiver(&home, group)
        } else {
            Receiver::of_any(&home.listeners[0], "eth0", group)
        };
        receiver.wait_for_more(100, SOON);
    }
}

fn a_source_that_speaks_up_later_is_heard_from_its_first_datagram_on() {
    let home = StreamLab::new();
    let _mldproxy = start(&home, &[]);
    let group = any_source(1);
    let receiver = Receiver::of_any(&home.listeners[0], "eth0", group);
    expect_to(&home, group, &[DOWNSTREAM]);
    let first = upstream_sender(&home, group).send(100, FAST);
    receiver.expect_all(crate::lab::SOURCE, first, SOON);
    let mut other = crate::lab::Sender::new(&home.lab.gw, "eth0", OTHER_SOURCE, group);
    let numbers = other.send(DATAGRAMS, FAST);
    receiver.expect_all(OTHER_SOURCE, numbers, SOON);
}

fn a_switch_that_snoops_hands_the_stream_over() {
    let home = StreamLab::with(&StreamOptions {
        upstream_querier: Some(2),
        ..StreamOptions::default()
    });
    let _mldproxy = start(&home, &[]);
    let group = source_specific(1);
    let mut sender = upstream_sender(&home, group);
    let receivers = [lan_receiver(&home, group), guest_receiver(&home, group)];
    expect_to(&home, group, &[DOWNSTREAM, GUEST]);
    eventually("the switch knows that the router wants it", SOON, || {
        home.lab.mdb().contains(&group)
    });
    let numbers = sender.send(DATAGRAMS, FAST);
    for receiver in receivers {
        receiver.expect_all(crate::lab::SOURCE, numbers.clone(), SOON);
    }
}
