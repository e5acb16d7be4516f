//! Senders and listeners that invent groups.

use std::net::Ipv6Addr;

use nix::errno::Errno;
use protocol::wire::RecordType;

use crate::lab::{
    DOWNSTREAM, Entry, GUEST, Record, SOURCE, Speaker, StreamLab, Tap, UPSTREAM, Upcalls,
    datagram_frame, eventually, listener,
};
use crate::support::SOON;

use super::{
    CALM, any_source, expect_to, guest_receiver, lan_receiver, source_specific, start,
    upstream_sender,
};

crate::tests![
    invented_groups_of_a_sender_cause_no_upcall_and_no_entry,
    invented_groups_of_listeners_stay_within_the_tables_and_cost_the_others_nothing,
];

const INVENTED: u32 = 20_000;

/// The `number`th of the groups that nobody else uses.
fn invented(number: u32) -> Ipv6Addr {
    let [high, low] = [(number >> 16) as u16, number as u16];
    Ipv6Addr::new(0xff1e, 0, 0, 0, 0, 0xbad, high, low)
}

/// How many packets the entries for any group have dropped or sent upstream.
fn for_any_group(entries: &[Entry]) -> u64 {
    let wild = entries.iter().filter(|entry| entry.is_for_any_group());
    wild.map(|entry| entry.counted.packets).sum()
}

fn invented_groups_of_a_sender_cause_no_upcall_and_no_entry() {
    let home = StreamLab::new();
    for options in [&[][..], &["--senders"]] {
        let _mldproxy = start(&home, options);
        eventually("there is an entry for any group", SOON, || {
            let entries = home.lab.rtr.multicast_entries();
            entries.iter().any(Entry::is_for_any_group)
        });
        let upcalls = Upcalls::watch(&home.lab.rtr);
        // A socket would give each group a place in the neighbor table that all namespaces share.
        let host = Tap::open(&home.listeners[0], "eth0");
        let mac = host.mac();
        let send = |number| {
            let frame = datagram_frame(mac, listener(1), invented(number), number.into());
            match host.try_send(&frame) {
                // The link has no room now.
                Ok(()) | Err(Errno::ENOBUFS) => {}
                Err(error) => panic!("{error}"),
            }
        };
        (0..INVENTED).for_each(send);
        let mut more = 0;
        let entries = || home.lab.rtr.multicast_entries();
        eventually("the router has seen as many", SOON, || {
            send(more);
            more += 1;
            for_any_group(&entries()) >= INVENTED.into()
        });
        let unresolved: Vec<_> = entries().into_iter().filter(Entry::is_unresolved).collect();
        assert_eq!(unresolved, []);
        assert_eq!(upcalls.so_far(), 0);
        assert_eq!(home.entries().len(), 0);
    }
}

/// Reports so many invented groups, as one host or as hosts with some groups each.
fn flood(speaker: &mut Speaker, groups_a_host: u32) {
    let numbers: Vec<u32> = (0..INVENTED).collect();
    for (host, chunk) in (0_u32..).zip(numbers.chunks(groups_a_host.min(40) as usize)) {
        if groups_a_host < INVENTED {
            let [_, _, high, low] = host.to_be_bytes();
            speaker.mac = [2, 0, 0, 0x66, high, low];
            speaker.source = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0x66, host as u16);
        }
        let records: Vec<_> = chunk
            .iter()
            .map(|number| {
                let group = invented(*number);
                Record::new(RecordType::ChangeToExclude, group, &[])
            })
            .collect();
        speaker.report(&records);
    }
}

fn invented_groups_of_listeners_stay_within_the_tables_and_cost_the_others_nothing() {
    const MAX_GROUPS: usize = 400;
    let home = StreamLab::new();
    let mldproxy = start(&home, &[]);
    let group = source_specific(1);
    let (on_lan, on_guest) = (lan_receiver(&home, group), guest_receiver(&home, group));
    expect_to(&home, group, &[DOWNSTREAM, GUEST]);
    let stream = upstream_sender(&home, group).start(CALM);
    let own = home.lab.rtr.memberships(UPSTREAM).len();
    let mut speaker = Speaker::new(&home.listeners[0], "eth0", "fe80::66".parse().unwrap());
    // Not the host of the receiver, which a flood of its own may cost its place.
    speaker.mac = [2, 0, 0, 0x66, 0xff, 0xff];

    // First by one host. Another host finds room.
    flood(&mut speaker, INVENTED);
    let _late = crate::lab::Receiver::of_any(&home.guest, "eth0", any_source(2));
    home.expect_way(SOURCE, UPSTREAM, any_source(2), &[GUEST], SOON);
    let by_one = home.entries().len();
    assert!(by_one <= 2 + 64, "one host made {by_one} entries");

    // Then by a thousand.
    flood(&mut speaker, 20);
    let _later = crate::lab::Receiver::of_any(&home.guest, "eth0", any_source(3));
    home.expect_way(SOURCE, UPSTREAM, any_source(3), &[GUEST], SOON);
    let entries = home.entries().len();
    assert!(entries <= 3 + MAX_GROUPS, "{entries} entries");
    let joined = home.lab.rtr.memberships(UPSTREAM).len() - own;
    assert!(joined <= MAX_GROUPS, "{joined} groups joined upstream");
    assert!(mldproxy.is_running());

    on_lan.wait_for_more(100, SOON);
    let sent = stream.stop();
    for receiver in [on_lan, on_guest] {
        receiver.expect_all(SOURCE, 0..sent, SOON);
    }
}
