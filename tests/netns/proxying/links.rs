//! Links that go down or lose their carrier or IPv6, and come back. Entries, routes and settings
//! must come back too.

use std::net::Ipv6Addr;

use nix::sys::signal::Signal;

use super::leftovers::{KERNELS_OWN, PROXYING, settings, start_with_guests};
use super::{BOTH, Foreign, Tables, expect_reachable, expect_tables};
use crate::lab::{
    DOWNSTREAM, GATEWAY, LAN_HOST, LAN_ROUTER, Lab, Process, ROUTER, UPSTREAM, eventually,
};
use crate::support::{SOON, expect_joined, start};

crate::tests![
    an_upstream_that_goes_down_and_up_has_all_again,
    an_upstream_that_loses_its_carrier_has_all_again,
    an_upstream_too_small_for_ipv6_for_a_while_has_all_again,
    an_upstream_without_ipv6_for_a_while_has_all_again,
    an_upstream_created_anew_has_all_again,
    an_upstream_created_anew_under_the_same_number_has_all_again,
    a_downstream_that_goes_down_and_up_has_all_again,
    what_flaps_again_and_again_has_all_again,
    groups_are_joined_again_after_an_mtu_too_small_that_went_unnoticed,
];

/// A way to take something from the router, and to give it back.
struct Outage {
    what: &'static str,
    begin: fn(&Lab),
    end: fn(&Lab),
}

const DOWN: Outage = Outage {
    what: "wan down and up",
    begin: |lab| drop(lab.rtr.run(&format!("ip link set dev {UPSTREAM} down"))),
    end: |lab| {
        lab.rtr.run(&format!("ip link set dev {UPSTREAM} up"));
        give_upstream_addresses(lab);
    },
};

const CARRIER: Outage = Outage {
    what: "wan without and with a carrier",
    begin: |lab| drop(lab.sw.run("ip link set dev rtr down")),
    end: |lab| drop(lab.sw.run("ip link set dev rtr up")),
};

const MTU: Outage = Outage {
    what: "wan with an MTU of 1200 and of 1500",
    begin: |lab| drop(lab.rtr.run(&format!("ip link set dev {UPSTREAM} mtu 1200"))),
    end: |lab| {
        lab.rtr.run(&format!("ip link set dev {UPSTREAM} mtu 1500"));
        give_upstream_addresses(lab);
    },
};

const IPV6: Outage = Outage {
    what: "wan without and with IPv6",
    begin: |lab| disable_ipv6(lab, "1"),
    end: |lab| {
        disable_ipv6(lab, "0");
        give_upstream_addresses(lab);
    },
};

const DOWNSTREAM_DOWN: Outage = Outage {
    what: "br-lan down and up",
    begin: |lab| {
        lab.rtr.run(&format!("ip link set dev {DOWNSTREAM} down"));
    },
    end: |lab| {
        lab.rtr.run(&format!(
            "ip link set dev {DOWNSTREAM} up
             ip addr add {LAN_ROUTER}/64 dev {DOWNSTREAM}
             ip addr add 2001:db8:1::3/64 dev {DOWNSTREAM} metric 256"
        ));
    },
};

const CREATED_ANEW: Outage = Outage {
    what: "wan deleted and created anew",
    begin: |lab| drop(lab.rtr.run(&format!("ip link del dev {UPSTREAM}"))),
    end: |lab| {
        lab.sw.veth("rtr", &lab.rtr, UPSTREAM);
        lab.sw
            .run("ip link set dev rtr master br0 addrgenmode none up");
        lab.rtr.run(&format!("ip link set dev {UPSTREAM} up"));
        give_upstream_addresses(lab);
    },
};

fn disable_ipv6(lab: &Lab, value: &str) {
    let setting = format!("net.ipv6.conf.{UPSTREAM}.disable_ipv6");
    lab.rtr.sysctl(&setting, value);
}

/// The kernel removed these addresses. Whoever brings the interface up gives them again.
fn give_upstream_addresses(lab: &Lab) {
    lab.rtr.run(&format!(
        "ip addr add {ROUTER}/64 dev {UPSTREAM} metric 512
         ip route add {GATEWAY}/128 dev {UPSTREAM}
         ip route replace default via {GATEWAY} dev {UPSTREAM}"
    ));
}

#[track_caller]
fn expect_all(lab: &Lab, hosts: &[Ipv6Addr], what: &str) {
    expect_tables(lab, hosts, what);
    eventually(&format!("{what}: the settings are set"), SOON, || {
        settings(&lab.rtr) == PROXYING
    });
}

/// Each outage happens once while the daemon is stopped, and once while it watches.
#[track_caller]
fn survive(outage: &Outage) {
    let Outage { what, begin, end } = outage;
    let lab = Lab::new();
    let (mldproxy, _guests, hosts) = start_with_guests(&lab, BOTH);
    expect_reachable(&lab, hosts[0], "before");
    let foreign = Foreign::of_kernel(&lab.rtr);

    mldproxy.signal(Signal::SIGSTOP);
    begin(&lab);
    // Permanent entries survive the loss of the carrier if the kernel is new enough, and so do
    // routes.
    if *what != CARRIER.what {
        let left = Tables::of_kernel(&lab.rtr);
        assert_ne!(left, Tables::on_first_lan(&hosts), "{what}");
    }
    end(&lab);
    mldproxy.signal(Signal::SIGCONT);
    expect_all(&lab, &hosts, what);

    begin(&lab);
    mldproxy_has_seen(&lab);
    end(&lab);
    expect_all(&lab, &hosts, what);
    for host in &hosts {
        expect_reachable(&lab, *host, what);
    }
    assert_eq!(Foreign::of_kernel(&lab.rtr), foreign, "{what}");
    expect_nothing_after_the_end(&lab, &mldproxy);
}

#[track_caller]
fn expect_nothing_after_the_end(lab: &Lab, mldproxy: &Process) {
    mldproxy.signal(Signal::SIGTERM);
    assert!(mldproxy.wait(SOON).success(), "{}", mldproxy.log());
    assert_eq!(Tables::of_kernel(&lab.rtr), Tables::default());
    assert_eq!(settings(&lab.rtr), KERNELS_OWN);
}

/// mldproxy reads the kernel's earlier messages before it answers a status request.
fn mldproxy_has_seen(lab: &Lab) {
    for _ in 0..3 {
        lab.rtr.status("--json --limit 0");
    }
}

fn an_upstream_that_goes_down_and_up_has_all_again() {
    survive(&DOWN);
}

fn an_upstream_that_loses_its_carrier_has_all_again() {
    survive(&CARRIER);
}

fn an_upstream_too_small_for_ipv6_for_a_while_has_all_again() {
    survive(&MTU);
}

fn an_upstream_without_ipv6_for_a_while_has_all_again() {
    survive(&IPV6);
}

fn an_upstream_created_anew_has_all_again() {
    survive(&CREATED_ANEW);
}

/// If mldproxy missed the change, the new interface looks like the old one.
fn an_upstream_created_anew_under_the_same_number_has_all_again() {
    let lab = Lab::new();
    let (mldproxy, _guests, hosts) = start_with_guests(&lab, BOTH);
    let link = || lab.rtr.run(&format!("ip -o link show dev {UPSTREAM}"));
    let index = || link().split(':').next().map(str::to_owned);
    let number = index().expect("a number");
    mldproxy.signal(Signal::SIGSTOP);
    (CREATED_ANEW.begin)(&lab);
    let index_before = number.parse().expect("a number");
    lab.rtr
        .numbered_veth(UPSTREAM, index_before, &lab.sw, "rtr");
    lab.sw
        .run("ip link set dev rtr master br0 addrgenmode none up");
    (DOWN.end)(&lab);
    assert_eq!(index(), Some(number));
    mldproxy.signal(Signal::SIGCONT);
    expect_all(&lab, &hosts, "created anew");
    for host in &hosts {
        expect_reachable(&lab, *host, "created anew");
    }
    expect_nothing_after_the_end(&lab, &mldproxy);
}

fn a_downstream_that_goes_down_and_up_has_all_again() {
    survive(&DOWNSTREAM_DOWN);
}

fn what_flaps_again_and_again_has_all_again() {
    let lab = Lab::new();
    let (mldproxy, _guests, hosts) = start_with_guests(&lab, BOTH);
    for outage in [DOWN, IPV6, MTU, DOWNSTREAM_DOWN, CREATED_ANEW, CARRIER] {
        for _ in 0..5 {
            (outage.begin)(&lab);
            (outage.end)(&lab);
        }
        expect_all(&lab, &hosts, outage.what);
        expect_reachable(&lab, hosts[0], outage.what);
    }
    expect_nothing_after_the_end(&lab, &mldproxy);
}

/// Without the NDP proxy, whose entries join their groups themselves. The kernel ends memberships,
/// and tells nobody.
fn groups_are_joined_again_after_an_mtu_too_small_that_went_unnoticed() {
    let lab = Lab::new();
    let mldproxy = start(&lab, &[]);
    lab.lan_host_speaks();
    expect_joined(&lab, &[LAN_HOST]);
    mldproxy.signal(Signal::SIGSTOP);
    (MTU.begin)(&lab);
    (MTU.end)(&lab);
    mldproxy.signal(Signal::SIGCONT);
    expect_joined(&lab, &[LAN_HOST]);
}
