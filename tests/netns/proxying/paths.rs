//! Which way packets take if WAN and LAN hold the same /64, and how the gateway learns of a host.

use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use protocol::wire::{ALL_ROUTERS, Message, NeighborAdvertisement, parse};

use super::{BOTH, Tables, expect_reachable, expect_tables};
use crate::lab::{
    DOWNSTREAM, LAN_HOST, Lab, LabOptions, Namespace, Tap, Traffic, UPSTREAM, eventually, poll_for,
};
use crate::support::{SOON, proxied, start};

crate::tests![
    a_prefix_on_both_sides_is_told,
    with_host_routes_both_sides_of_one_prefix_reach_each_other,
    a_kill_and_a_restart_lose_no_packet_to_a_host_with_a_route,
    an_announced_host_is_known_to_the_gateway_before_it_asks,
];

/// Gives WAN and LAN the same /64 with the same metric. Of two such routes the kernel takes the
/// older one.
fn share_prefix(lab: &Lab, first: &str) {
    let second = if first == UPSTREAM {
        DOWNSTREAM
    } else {
        UPSTREAM
    };
    let own = |interface| if interface == UPSTREAM { 2 } else { 3 };
    lab.rtr.run(&format!(
        "ip addr del 2001:db8:1::2/64 dev {UPSTREAM}
         ip addr del 2001:db8:1::3/64 dev {DOWNSTREAM}
         ip addr add 2001:db8:1::{}/64 dev {first}
         ip addr add 2001:db8:1::{}/64 dev {second}
         ip route replace 2001:db8:1::1/128 dev {UPSTREAM}
         ip route replace default via 2001:db8:1::1 dev {UPSTREAM}",
        own(first),
        own(second),
    ));
}

fn a_prefix_on_both_sides_is_told() {
    let lab = Lab::without_querier();
    let (warning, info) = ("may go astray", "each host has a route of its own");
    // The LAN's route has the smaller metric.
    let mldproxy = start(&lab, &["--ndp-proxy"]);
    lab.lan_host_speaks();
    expect_entry(&lab);
    assert!(!mldproxy.log().contains(warning), "{}", mldproxy.log());
    drop(mldproxy);
    share_prefix(&lab, UPSTREAM);
    let mldproxy = start(&lab, &["--ndp-proxy"]);
    let line = mldproxy.wait_for_line(warning, SOON);
    let expected = "warn: 2001:db8:1::/64 is on wan with metric 256 and on br-lan with 256, ";
    assert!(line.starts_with(expected), "{line}");
    drop(mldproxy);
    let mldproxy = start(&lab, BOTH);
    let line = mldproxy.wait_for_line(info, SOON);
    let expected = "info: 2001:db8:1::/64 is on wan and br-lan: ";
    assert!(line.starts_with(expected), "{line}");
    assert!(!mldproxy.log().contains(warning), "{}", mldproxy.log());
}

#[track_caller]
fn expect_entry(lab: &Lab) {
    eventually("the kernel answers for the LAN's host", SOON, || {
        proxied(lab).contains(&LAN_HOST)
    });
}

fn with_host_routes_both_sides_of_one_prefix_reach_each_other() {
    for first in [UPSTREAM, DOWNSTREAM] {
        let lab = Lab::with(&LabOptions::default());
        share_prefix(&lab, first);
        let beside = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x77);
        let neighbor = Namespace::new("beside");
        lab.sw.veth("beside", &neighbor, "eth0");
        lab.sw
            .run("ip link set dev beside master br0 addrgenmode none up");
        neighbor.run(&format!(
            "ip link set dev eth0 up
             ip addr add {beside}/64 dev eth0"
        ));
        let mldproxy = start(&lab, BOTH);
        lab.lan_host_speaks();
        expect_tables(&lab, &[LAN_HOST], first);
        expect_reachable(&lab, LAN_HOST, first);

        eventually("the LAN's host reaches the neighbor", SOON, || {
            lab.lan.flush_neighbors();
            lab.lan.ping(LAN_HOST, beside, 5).received > 0
        });
        let tables = Tables::of_kernel(&lab.rtr);
        assert!(
            tables.routes.contains(&(beside, UPSTREAM.to_owned())),
            "{tables:?}"
        );
        assert_eq!(proxied(&lab), [LAN_HOST], "upstream it answers for itself");
        neighbor.flush_neighbors();
        let answers = neighbor.ping(beside, LAN_HOST, 5).received;
        assert!(answers > 0, "the neighbor reaches the LAN's host");
        mldproxy.signal(Signal::SIGTERM);
        assert!(mldproxy.wait(SOON).success());
        assert_eq!(Tables::of_kernel(&lab.rtr), Tables::default());
    }
}

/// Without the route, the host's packets would go back to where they came from.
fn a_kill_and_a_restart_lose_no_packet_to_a_host_with_a_route() {
    let lab = Lab::new();
    share_prefix(&lab, UPSTREAM);
    let first = start(&lab, BOTH);
    lab.lan_host_speaks();
    expect_tables(&lab, &[LAN_HOST], "at the start");
    let traffic = Traffic::start(&lab, &[LAN_HOST]);
    traffic.expect_all_reached(SOON);
    first.signal(Signal::SIGKILL);
    first.wait(SOON);
    traffic.expect_all_reached(SOON);
    let second = start(&lab, BOTH);
    eventually("the host is confirmed anew", SOON, || {
        Tables::of_daemon(&lab.rtr) == Tables::on_first_lan(&[LAN_HOST])
    });
    expect_tables(&lab, &[LAN_HOST], "after the restart");
    traffic.expect_all_reached(SOON);
    traffic.expect_nothing_lost();
    assert!(second.is_running());
}

fn an_announced_host_is_known_to_the_gateway_before_it_asks() {
    /// The time from one announcement to the next, and some more.
    const NEXT: Duration = Duration::from_secs(3);
    let lab = Lab::new();
    lab.gw.sysctl("net.ipv6.conf.all.forwarding", "1");
    // This setting exists since Linux 5.19.
    let untracked = "/proc/sys/net/ipv6/conf/eth0/accept_untracked_na";
    let takes_notice = lab.gw.within(|| std::fs::write(untracked, "1")).is_ok();
    let entry = || lab.gw.run(&format!("ip -6 neigh show {LAN_HOST} dev eth0"));
    let router = Tap::open(&lab.rtr, UPSTREAM).mac();
    let wire = Tap::open(&lab.gw, "eth0");
    let _mldproxy = start(&lab, &["--ndp-proxy", "--announce"]);
    assert_eq!(entry(), "");
    lab.lan_host_speaks();

    let mut announced: Vec<Instant> = Vec::new();
    let mut last = Instant::now();
    let asked = poll_for(SOON, || {
        while let Some(frame) = wire.receive(NEXT) {
            match parse(&frame.packet) {
                Ok(Message::NeighborAdvertisement(NeighborAdvertisement {
                    destination: ALL_ROUTERS,
                    target,
                    router: is_router,
                    solicited,
                    override_flag,
                    target_link_layer,
                    ..
                })) => {
                    assert_eq!((target, frame.source), (LAN_HOST, router));
                    assert_eq!(
                        (is_router, solicited, override_flag),
                        (true, false, false),
                        "{frame:?}"
                    );
                    assert_eq!(target_link_layer.map(|mac| mac.0), Some(router));
                    last = Instant::now();
                    announced.push(last);
                }
                Ok(Message::NeighborSolicitation(asked)) if asked.target == LAN_HOST => {
                    return Some(true);
                }
                _ => {}
            }
            if last.elapsed() >= NEXT && !announced.is_empty() {
                break;
            }
        }
        (!announced.is_empty()).then_some(false)
    });
    assert_eq!(asked, Some(false), "whether the gateway asked");
    assert_eq!(announced.len(), 3, "{announced:?}");
    for pair in announced.windows(2) {
        let between = pair[1] - pair[0];
        assert!(between >= Duration::from_millis(900), "{between:?}");
    }
    if takes_notice {
        let mac = router.map(|octet| format!("{octet:02x}")).join(":");
        assert!(entry().contains(&format!("lladdr {mac} ")), "{}", entry());
    }
}
