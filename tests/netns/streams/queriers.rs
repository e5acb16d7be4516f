//! Who asks on a downstream (RFC 3810 §7.6.2), and how the questions look (RFC 3810 §5.1).

use std::net::Ipv6Addr;
use std::time::Duration;

use crate::lab::{
    DOWNSTREAM, GUEST, MldWatch, QUERIER, QuerySaid, Receiver, SOURCE, Said, Speaker, Stream,
    StreamLab, StreamOptions, UPSTREAM, eventually,
};
use crate::support::SOON;

use super::{
    CALM, any_source, expect_to, guest_receiver, lan_receiver, source_specific, start,
    upstream_sender,
};

crate::tests![
    a_querier_with_a_lower_address_takes_over_until_it_is_gone,
    a_querier_with_a_higher_address_changes_nothing,
    with_forward_always_another_querier_ends_no_stream,
    the_querier_of_the_own_bridge_is_not_another_one,
    every_query_has_a_link_local_source_a_hop_limit_of_1_and_a_router_alert,
    without_a_querier_of_ours_there_is_no_query,
];

const LOWER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
const HIGHER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0xffff, 0xffff);
const INTERVAL: Duration = Duration::from_secs(1);
/// A busy machine may lose a second. Memberships outlast three.
const ROBUSTNESS: u8 = 4;
const OFTEN: [&str; 4] = ["--query-interval", "1", "--robustness", "4"];

/// A stream that both downstreams want. Behind `br-lan` there is another router, too.
struct Contest {
    home: StreamLab,
    group: Ipv6Addr,
    on_lan: Receiver,
    on_guest: Receiver,
    stream: Stream,
    wire: MldWatch,
    rival: Speaker,
}

impl Contest {
    /// Call it while a daemon runs in the home.
    fn new(home: StreamLab, rival: Ipv6Addr) -> Self {
        let group = source_specific(1);
        let (on_lan, on_guest) = (lan_receiver(&home, group), guest_receiver(&home, group));
        expect_to(&home, group, &[DOWNSTREAM, GUEST]);
        Contest {
            group,
            on_lan,
            on_guest,
            stream: upstream_sender(&home, group).start(CALM),
            wire: MldWatch::open(&home.listeners[0], "eth0"),
            rival: Speaker::new(&home.listeners[1], "eth0", rival),
            home,
        }
    }

    fn home() -> StreamLab {
        StreamLab::with(&StreamOptions {
            listeners: 2,
            ..StreamOptions::default()
        })
    }

    /// The other router asks all, as it does every second.
    fn rival_queries(&self) {
        self.rival.queries(&QuerySaid {
            robustness: ROBUSTNESS,
            ..QuerySaid::general(INTERVAL)
        });
    }

    /// How often the router asks all while the other router asks for three of its intervals.
    fn own_queries_beside_rival(&self) -> usize {
        self.wire.so_far();
        for _ in 0..6 {
            self.rival_queries();
            self.on_guest.wait_for_more(500, SOON);
        }
        self.wire
            .so_far()
            .iter()
            .filter(|said| is_own(said))
            .count()
    }

    /// Nothing of the stream was lost on a link since its first datagram.
    #[track_caller]
    fn expect_nothing_lost(self, on_lan: bool) {
        let sent = self.stream.stop();
        self.on_guest.expect_all(SOURCE, 0..sent, SOON);
        if on_lan {
            self.on_lan.expect_all(SOURCE, 0..sent, SOON);
        }
    }
}

/// Is it a General Query of the router's?
fn is_own(said: &Said) -> bool {
    said.source == QUERIER && said.query().is_some_and(QuerySaid::is_general)
}

fn a_querier_with_a_lower_address_takes_over_until_it_is_gone() {
    let home = Contest::home();
    let _mldproxy = start(&home, &OFTEN);
    let contest = Contest::new(home, LOWER);
    contest.wire.until("the router asks", SOON, is_own);
    // RFC 4605 §4.2: only the querier of a link forwards there. The other router keeps asking, so
    // the hosts keep reporting.
    eventually("the router forwards there no more", SOON, || {
        contest.rival_queries();
        let to = contest.home.destinations(SOURCE, UPSTREAM, contest.group);
        to.iter().eq([GUEST])
    });
    assert_eq!(contest.own_queries_beside_rival(), 0);
    expect_to(&contest.home, contest.group, &[GUEST]);
    // The other router is gone.
    contest.wire.until("the router asks again", SOON, is_own);
    expect_to(&contest.home, contest.group, &[DOWNSTREAM, GUEST]);
    contest.on_lan.wait_for_more(100, SOON);
    contest.expect_nothing_lost(false);
}

fn a_querier_with_a_higher_address_changes_nothing() {
    let home = Contest::home();
    let _mldproxy = start(&home, &OFTEN);
    let contest = Contest::new(home, HIGHER);
    assert!(contest.own_queries_beside_rival() > 0);
    expect_to(&contest.home, contest.group, &[DOWNSTREAM, GUEST]);
    contest.expect_nothing_lost(true);
}

fn with_forward_always_another_querier_ends_no_stream() {
    let home = Contest::home();
    let _mldproxy = start(&home, &[&OFTEN[..], &["--forward", "always"]].concat());
    let contest = Contest::new(home, LOWER);
    eventually("the router asks no more", SOON, || {
        contest.own_queries_beside_rival() == 0
    });
    expect_to(&contest.home, contest.group, &[DOWNSTREAM, GUEST]);
    contest.expect_nothing_lost(true);
}

/// The bridge asks from the router's own address, and the router hears that.
fn the_querier_of_the_own_bridge_is_not_another_one() {
    let home = StreamLab::with(&StreamOptions {
        snooping: true,
        ..StreamOptions::default()
    });
    let wire = MldWatch::open(&home.listeners[0], "eth0");
    // In hundredths of a second: the bridge asks every second, half a second after it heard another
    // querier. The router asks at its start, and then only half a minute later.
    home.lab.rtr.run(&format!(
        "ip link set dev {DOWNSTREAM} type bridge mcast_querier_interval 50 \
            mcast_query_interval 100 mcast_startup_query_interval 100 mcast_querier 1"
    ));
    wire.until("the bridge asks from the router's address", SOON, is_own);
    let _mldproxy = start(&home, &[]);
    let group = source_specific(1);
    let (on_lan, _on_guest) = (lan_receiver(&home, group), guest_receiver(&home, group));
    expect_to(&home, group, &[DOWNSTREAM, GUEST]);
    wire.so_far();
    let stream = upstream_sender(&home, group).start(CALM);
    for _ in 0..2 {
        wire.until("the bridge asks beside the router", SOON, is_own);
        on_lan.wait_for_more(100, SOON);
    }
    expect_to(&home, group, &[DOWNSTREAM, GUEST]);
    let sent = stream.stop();
    on_lan.expect_all(SOURCE, 0..sent, SOON);
}

/// A querier that lets its kernel choose the source asks for a global group from a global address,
/// and hosts ignore that.
fn every_query_has_a_link_local_source_a_hop_limit_of_1_and_a_router_alert() {
    let home = StreamLab::new();
    let wires = [
        MldWatch::open(&home.listeners[0], "eth0"),
        MldWatch::open(&home.guest, "eth0"),
    ];
    let _mldproxy = start(&home, &[&OFTEN[..], super::QUICK_LEAVE].concat());
    let (specific, any) = (source_specific(1), any_source(1));
    for host in [&home.listeners[0], &home.guest] {
        let receivers = [
            Receiver::of_source(host, "eth0", SOURCE, specific),
            Receiver::of_any(host, "eth0", any),
        ];
        for group in [specific, any] {
            eventually("there is a way", SOON, || {
                !home.destinations(SOURCE, UPSTREAM, group).is_empty()
            });
        }
        drop(receivers);
        home.expect_entries(&[], SOON);
    }
    for wire in wires {
        let said = wire.so_far();
        let from_router: Vec<_> = said.iter().filter(is_of_querier).collect();
        // The first one is answered at once, so that all listeners are known.
        let first = from_router.first().and_then(|said| said.query());
        let delay = first.map(|query| query.max_response_delay);
        assert_eq!(delay, Some(Duration::from_millis(100)));
        let mut kinds = [0; 3];
        for said in &from_router {
            let query = said.query().unwrap_or_else(|| panic!("{said:#?}"));
            assert_eq!((said.source, said.hop_limit), (QUERIER, 1), "{said:#?}");
            let all_nodes = protocol::wire::ALL_NODES;
            let to = if query.is_general() {
                all_nodes
            } else {
                query.group
            };
            assert_eq!(said.destination, to, "{said:#?}");
            assert_eq!(
                (query.version, query.robustness),
                (2, ROBUSTNESS),
                "{said:#?}"
            );
            assert_eq!(query.query_interval, INTERVAL, "{said:#?}");
            let kind = match (query.is_general(), query.sources.is_empty()) {
                (true, true) => 0,
                (false, true) => 1,
                (_, false) => 2,
            };
            kinds[kind] += 1;
        }
        // RFC 3810 §9.7, §9.9: as many as the robustness variable says.
        let [general, of_group, of_sources] = kinds;
        assert!(
            general >= 2 && of_group >= 2 && of_sources >= 2,
            "{kinds:?}"
        );
    }
}

/// Is it a query to a group? What asks a single host for its addresses makes nobody a querier.
fn is_of_querier(said: &&Said) -> bool {
    said.is_query() && said.destination.is_multicast()
}

fn without_a_querier_of_ours_there_is_no_query() {
    let home = StreamLab::new();
    let wire = MldWatch::open(&home.listeners[0], "eth0");
    let options = ["--querier", "off", "--last-listener-interval", "0.1"];
    let _mldproxy = start(&home, &options);
    let receivers = [1, 2].map(|number| {
        let group = source_specific(number);
        let receiver = lan_receiver(&home, group);
        expect_to(&home, group, &[DOWNSTREAM]);
        receiver
    });
    let [leaves, stays] = receivers;
    leaves.leave();
    let numbers = upstream_sender(&home, source_specific(2)).send(500, CALM);
    stays.expect_all(SOURCE, numbers, SOON);
    let said = wire.so_far();
    let asked: Vec<_> = said.iter().filter(is_of_querier).collect();
    assert_eq!(asked, Vec::<&Said>::new());
}
