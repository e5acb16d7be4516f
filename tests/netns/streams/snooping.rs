//! A bridge of the LAN that snoops: once the router asks, streams go only to who wants them.

use crate::lab::{DOWNSTREAM, Receiver, SOURCE, StreamLab, StreamOptions, Tap, eventually};
use crate::support::SOON;

use super::{CALM, expect_to, lan_receiver, source_specific, start, upstream_sender};

crate::tests![
    a_port_without_a_listener_gets_nothing_once_the_router_asks,
    a_bridge_that_spoils_streams_is_named_with_what_ends_it,
];

fn a_port_without_a_listener_gets_nothing_once_the_router_asks() {
    let home = StreamLab::with(&StreamOptions {
        listeners: 3,
        snooping: true,
        ..StreamOptions::default()
    });
    let _mldproxy = start(&home, &[]);
    let group = source_specific(1);
    let first = lan_receiver(&home, group);
    expect_to(&home, group, &[DOWNSTREAM]);
    let idle = Tap::open(&home.listeners[2], "eth0");
    let mut sender = upstream_sender(&home, group);
    // The bridge floods until its querier has been there for a response interval.
    eventually("the bridge holds back", SOON, || {
        let numbers = sender.send(10, CALM);
        let last = numbers.end - 1;
        eventually("the listener gets it", SOON, || {
            first.numbers_from(SOURCE).contains(&last)
        });
        idle.datagrams_to(group).is_empty()
    });
    // A listener behind the bridge is heard although it snoops, and gets the stream.
    let second = Receiver::of_source(&home.listeners[1], "eth0", SOURCE, group);
    second.expect_all(SOURCE, 0..0, SOON);
    eventually("the second listener gets it", SOON, || {
        sender.send(10, CALM);
        second.count() > 0
    });
    let numbers = sender.send(500, CALM);
    for receiver in [&first, &second] {
        eventually("all of it", SOON, || {
            let arrived = receiver.numbers_from(SOURCE);
            numbers.clone().all(|number| arrived.contains(&number))
        });
    }
    assert_eq!(idle.datagrams_to(group), []);
}

fn a_bridge_that_spoils_streams_is_named_with_what_ends_it() {
    let home = StreamLab::with(&StreamOptions::default());
    let mldproxy = start(&home, &[]);
    let expect = |count: usize, text: &str| {
        let line = format!("{DOWNSTREAM} {text}");
        eventually(&line, SOON, || {
            mldproxy.log().matches(&line).count() == count
        });
    };
    let set = |settings: &str| {
        let command = format!("ip link set dev {DOWNSTREAM} type bridge {settings}");
        home.lab.rtr.run(&command);
    };
    expect(1, "does not snoop: streams flood all its ports");
    // OpenWrt turns the bridge's querier on together with snooping.
    set("mcast_snooping 1 mcast_querier 1 mcast_mld_version 1");
    expect(1, "queries by MLDv1 itself");
    set("mcast_querier 0");
    expect(1, "forwards streams to their listeners");
    set("mcast_querier 1 mcast_mld_version 2");
    set("mcast_snooping 0");
    expect(2, "does not snoop: streams flood all its ports");
}
