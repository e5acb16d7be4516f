//! Links and daemons that end and come back while streams play.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;

use nix::sys::signal::Signal;

use crate::lab::{
    DOWNSTREAM, GUEST, Receiver, SOURCE, Stream, StreamLab, StreamOptions, UPSTREAM, eventually,
};
use crate::support::SOON;

use super::{
    CALM, any_source, expect_to, guest_receiver, lan_receiver, source_specific, start,
    upstream_sender,
};

crate::tests![
    after_a_kill_and_a_restart_the_streams_come_back,
    at_the_end_nothing_is_forwarded_any_more,
    a_downstream_created_anew_gets_its_streams_again,
    an_upstream_created_anew_brings_the_streams_again,
    a_downstream_that_is_set_down_and_up_gets_its_streams_again,
    a_renamed_downstream_gets_nothing_until_it_has_its_name_again,
    an_interface_number_that_the_kernel_would_cut_is_refused,
];

/// Two streams at home: one that both downstreams want, and one for the guest.
struct Playing {
    home: StreamLab,
    both: Ipv6Addr,
    for_guest: Ipv6Addr,
    on_lan: Receiver,
    on_guest: [Receiver; 2],
    _streams: [Stream; 2],
    entries: BTreeSet<String>,
}

impl Playing {
    /// Call it while a daemon runs in the home.
    #[track_caller]
    fn new(home: StreamLab) -> Self {
        let (both, for_guest) = (source_specific(1), any_source(1));
        let on_lan = lan_receiver(&home, both);
        let on_guest = [
            guest_receiver(&home, both),
            Receiver::of_any(&home.guest, "eth0", for_guest),
        ];
        expect_to(&home, both, &[DOWNSTREAM, GUEST]);
        expect_to(&home, for_guest, &[GUEST]);
        let streams = [both, for_guest].map(|group| upstream_sender(&home, group).start(CALM));
        let playing = Playing {
            entries: home.entries(),
            home,
            both,
            for_guest,
            on_lan,
            on_guest,
            _streams: streams,
        };
        playing.expect_all_arrive();
        playing
    }

    #[track_caller]
    fn expect_all_arrive(&self) {
        for receiver in self.on_guest.iter().chain([&self.on_lan]) {
            receiver.wait_for_more(100, SOON);
        }
    }

    /// Waits until the kernel's entries are what they were before, and all streams arrive.
    #[track_caller]
    fn expect_as_before(&self) {
        let entries: Vec<_> = self.entries.iter().map(String::as_str).collect();
        self.home.expect_entries(&entries, SOON);
        self.expect_all_arrive();
    }
}

fn after_a_kill_and_a_restart_the_streams_come_back() {
    let home = StreamLab::new();
    let killed = start(&home, &[]);
    let playing = Playing::new(home);
    for _ in 0..2 {
        killed.signal(Signal::SIGKILL);
        killed.wait(SOON);
        eventually("nobody forwards", SOON, || {
            playing.home.entries().is_empty()
        });
        let next = start(&playing.home, &[]);
        playing.expect_as_before();
        next.signal(Signal::SIGKILL);
        next.wait(SOON);
    }
}

fn at_the_end_nothing_is_forwarded_any_more() {
    let home = StreamLab::new();
    let mldproxy = start(&home, &[]);
    let own = home.lab.rtr.memberships(UPSTREAM);
    let playing = Playing::new(home);
    mldproxy.signal(Signal::SIGTERM);
    assert!(mldproxy.wait(SOON).success());
    let rtr = &playing.home.lab.rtr;
    assert_eq!(rtr.multicast_entries(), []);
    assert_eq!(rtr.multicast_interfaces(), [] as [String; 0]);
    assert_eq!(rtr.memberships(UPSTREAM), own);
}

fn a_downstream_created_anew_gets_its_streams_again() {
    let home = StreamLab::new();
    let mldproxy = start(&home, &[]);
    let playing = Playing::new(home);
    let (home, rtr) = (&playing.home, &playing.home.lab.rtr);
    for _ in 0..2 {
        let before = playing.on_lan.count();
        rtr.run(&format!("ip link del dev {GUEST}"));
        expect_to(home, playing.both, &[DOWNSTREAM]);
        expect_to(home, playing.for_guest, &[]);
        // The other downstream plays on.
        playing.on_lan.wait_for_more(100, SOON);
        home.add_downstream(GUEST, 0, false);
        rtr.add_port(GUEST, "guest1");
        playing.expect_as_before();
        playing.on_lan.expect_no_gap(SOURCE, before);
    }
    assert!(mldproxy.is_running());
}

fn an_upstream_created_anew_brings_the_streams_again() {
    let home = StreamLab::new();
    let mldproxy = start(&home, &[]);
    let playing = Playing::new(home);
    for _ in 0..2 {
        playing
            .home
            .lab
            .rtr
            .run(&format!("ip link del dev {UPSTREAM}"));
        mldproxy.wait_for_line("waiting for wan", SOON);
        playing.home.add_upstream();
        playing.expect_as_before();
        let joined = playing.home.lab.rtr.memberships(UPSTREAM);
        assert!(joined.contains(&playing.both) && joined.contains(&playing.for_guest));
    }
    assert!(mldproxy.is_running());
}

fn a_downstream_that_is_set_down_and_up_gets_its_streams_again() {
    let home = StreamLab::new();
    let _mldproxy = start(&home, &[]);
    let playing = Playing::new(home);
    let rtr = &playing.home.lab.rtr;
    rtr.run(&format!("ip link set dev {GUEST} down"));
    playing.on_lan.wait_for_more(100, SOON);
    // Down, the interface has lost its addresses.
    rtr.set_up(GUEST);
    rtr.add_address(GUEST, crate::lab::QUERIER, 64, None);
    playing.expect_as_before();
}

fn a_renamed_downstream_gets_nothing_until_it_has_its_name_again() {
    let home = StreamLab::new();
    let _mldproxy = start(&home, &[]);
    let playing = Playing::new(home);
    let (home, rtr) = (&playing.home, &playing.home.lab.rtr);
    let rename = |from: &str, to: &str| {
        rtr.run(&format!(
            "ip link set dev {from} down
             ip link set dev {from} name {to}
             ip link set dev {to} up"
        ));
        rtr.add_address(to, crate::lab::QUERIER, 64, None);
    };
    rename(GUEST, "iot");
    expect_to(home, playing.both, &[DOWNSTREAM]);
    assert!(!rtr.multicast_interfaces().contains(&"iot".to_owned()));
    playing.on_lan.wait_for_more(100, SOON);
    rename("iot", GUEST);
    playing.expect_as_before();
}

/// The kernel takes 16 bits of the number and would forward on another interface.
fn an_interface_number_that_the_kernel_would_cut_is_refused() {
    let wan_index = 2;
    let home = StreamLab::with(&StreamOptions {
        guest_index: 65_536 + wan_index,
        ..StreamOptions::default()
    });
    let shown = home.lab.rtr.run(&format!("ip -o link show dev {UPSTREAM}"));
    assert!(shown.starts_with(&format!("{wan_index}: ")), "{shown}");
    let mldproxy = start(&home, &[]);
    let group = source_specific(1);
    let (on_lan, _on_guest) = (lan_receiver(&home, group), guest_receiver(&home, group));
    expect_to(&home, group, &[DOWNSTREAM]);
    let numbers = upstream_sender(&home, group).send(100, CALM);
    on_lan.expect_all(SOURCE, numbers, SOON);
    let interfaces = home.lab.rtr.multicast_interfaces();
    assert_eq!(interfaces, [UPSTREAM, DOWNSTREAM, "lo"]);
    let told = |line: &String| line.contains(GUEST) && line.contains("65535");
    let lines = mldproxy.lines();
    assert_eq!(
        lines.iter().filter(|line| told(line)).count(),
        1,
        "{lines:#?}"
    );
}
