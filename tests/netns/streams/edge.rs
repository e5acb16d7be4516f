//! What passes on the wire between a television box, the router and a provider's edge, as it was
//! recorded on a line with source-specific television.

use std::net::Ipv6Addr;
use std::thread;
use std::time::Duration;

use protocol::wire::RecordType;

use crate::lab::{DOWNSTREAM, GUEST, MldWatch, QuerySaid, SOURCE, Speaker, StreamLab, eventually};
use crate::support::SOON;

use super::{expect_to, guest_receiver, start};

crate::tests![an_edge_that_asks_after_a_leave_is_answered_for_what_is_still_wanted,];

/// Of organization scope, as the channels there.
const LEFT: Ipv6Addr = Ipv6Addr::new(0xff38, 0, 0, 0, 0, 0, 0xe90a, 1);
const KEPT: Ipv6Addr = Ipv6Addr::new(0xff38, 0, 0, 0, 0, 0, 0xe90a, 2);
const BOX: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xb0);
const EDGE: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xed);
/// The edge sets it on all its MLD.
const TRAFFIC_CLASS: u8 = 0xe0;
/// The pace of the recorded parties: the box repeats a join, the edge asks after a leave, and asks
/// again.
const REPEATED: Duration = Duration::from_millis(400);
const ASKS: Duration = Duration::from_millis(56);
const ASKS_AGAIN: Duration = Duration::from_millis(1_004);

/// The edge's question for one source of a group.
fn question(group: Ipv6Addr) -> QuerySaid {
    QuerySaid {
        group,
        sources: vec![SOURCE],
        max_response_delay: Duration::from_secs(1),
        ..QuerySaid::general(Duration::from_secs(125))
    }
}

fn an_edge_that_asks_after_a_leave_is_answered_for_what_is_still_wanted() {
    let home = StreamLab::new();
    let _mldproxy = start(&home, super::QUICK_LEAVE);
    let television = Speaker::new(&home.listeners[0], "eth0", BOX);
    let mut edge = Speaker::new(&home.lab.gw, "eth0", EDGE);
    edge.traffic_class = TRAFFIC_CLASS;
    let link = MldWatch::open(&home.listeners[0], "eth0");
    let wan = MldWatch::open(&home.lab.gw, "eth0");
    edge.queries(&QuerySaid {
        max_response_delay: Duration::from_secs(1),
        ..QuerySaid::general(Duration::from_secs(125))
    });

    // The box asks for two channels, twice. The guest wants one of them too.
    let _guest = guest_receiver(&home, KEPT);
    for _ in 0..2 {
        for group in [LEFT, KEPT] {
            television.reports(RecordType::ChangeToInclude, group, &[SOURCE]);
        }
        thread::sleep(REPEATED);
    }
    expect_to(&home, LEFT, &[DOWNSTREAM]);
    expect_to(&home, KEPT, &[DOWNSTREAM, GUEST]);
    for group in [LEFT, KEPT] {
        eventually("the router wants it upstream", SOON, || {
            let wanted = home.lab.rtr.included_sources(super::UPSTREAM);
            wanted
                .get(&group)
                .is_some_and(|from| from.contains(&SOURCE))
        });
    }
    let asked_for = |group: Ipv6Addr| {
        move |said: &crate::lab::Said| {
            let query = said.query();
            query.is_some_and(|query| query.group == group && query.sources == [SOURCE])
        }
    };

    // It leaves both. The router asks on the link for each, and nobody answers there.
    let before = wan.so_far();
    assert!(
        !before
            .iter()
            .any(|said| { said.reports(RecordType::BlockOldSources, LEFT, &[SOURCE]) })
    );
    for group in [LEFT, KEPT] {
        television.reports(RecordType::BlockOldSources, group, &[SOURCE]);
        link.until("the router asks for the source", SOON, asked_for(group));
    }
    expect_to(&home, LEFT, &[]);
    expect_to(&home, KEPT, &[GUEST]);
    wan.until("the router leaves it upstream", SOON, |said| {
        said.reports(RecordType::BlockOldSources, LEFT, &[SOURCE])
    });

    // The edge asks for both, twice.
    thread::sleep(ASKS);
    let is_answer =
        |said: &crate::lab::Said| said.reports(RecordType::ModeIsInclude, KEPT, &[SOURCE]);
    for pause in [ASKS_AGAIN, Duration::ZERO] {
        for group in [LEFT, KEPT] {
            edge.queries(&question(group));
        }
        let answers = wan.until("the router answers for the other", SOON, is_answer);
        let listens = |said: &crate::lab::Said| {
            let records = said.records();
            records
                .iter()
                .any(|record| record.group == LEFT && record.kind != RecordType::BlockOldSources)
        };
        assert!(!answers.iter().any(listens), "{answers:#?}");
        thread::sleep(pause);
    }
    let stays = home.lab.rtr.included_sources(super::UPSTREAM);
    assert!(
        stays.contains_key(&KEPT) && !stays.contains_key(&LEFT),
        "{stays:?}"
    );
}
