//! Which addresses mldproxy learns.

use std::mem;
use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use crate::lab::{DOWNSTREAM, LAN_ROUTER, Lab, ROUTER, UPSTREAM, eventually, solicited_node};
use crate::support::{
    Host, SOON, address, expect_among_joined, expect_joined, missing_of, start, status, summary,
};

crate::tests![
    a_renumbering_drops_the_old_prefix,
    an_upstream_without_addresses_has_no_prefix_yet,
    a_prefix_that_comes_late_counts_for_hosts_that_are_silent,
    an_excluded_prefix_is_not_learned,
    the_routers_own_addresses_are_not_joined,
];

fn addresses<const N: usize>(texts: [&str; N]) -> [Ipv6Addr; N] {
    texts.map(|text| text.parse().expect("an address"))
}

fn a_renumbering_drops_the_old_prefix() {
    let lab = Lab::without_querier();
    let _mldproxy = start(&lab, &["--prefix", "upstream"]);
    let host = Host::apart(&lab.lan, 1);
    let [old, new, other] = addresses(["2001:db8:1::10:1", "2001:db8:2::10:2", "2001:db8:3::10:3"]);
    let all_speak = || [old, new, other].map(|address| host.solicits_from(address));
    all_speak();
    expect_joined(&lab, &[old]);
    // The upstream has both prefixes for a while, as in any renumbering.
    lab.rtr
        .run(&format!("ip addr add 2001:db8:2::2/64 dev {UPSTREAM}"));
    eventually("the new prefix counts", SOON, || {
        all_speak();
        missing_of(&lab, &[new]).is_empty()
    });
    expect_joined(&lab, &[old, new]);
    lab.rtr
        .run(&format!("ip addr del {ROUTER}/64 dev {UPSTREAM}"));
    expect_joined(&lab, &[new]);
    all_speak();
    host.solicits_from(new);
    expect_joined(&lab, &[new]);
}

fn an_upstream_without_addresses_has_no_prefix_yet() {
    let lab = Lab::without_querier();
    lab.rtr
        .run(&format!("ip addr del {ROUTER}/64 dev {UPSTREAM}"));
    let mldproxy = start(&lab, &["--prefix", "upstream"]);
    mldproxy.wait_for_line("waiting for a prefix on wan", SOON);
    let host = Host::apart(&lab.lan, 1);
    host.solicits_from(address(1));
    // mldproxy reads the packets that came before the signal with it.
    summary(&mldproxy);
    lab.rtr
        .run(&format!("ip addr add {ROUTER}/64 dev {UPSTREAM}"));
    eventually("the prefix counts", SOON, || {
        host.solicits_from(address(2));
        missing_of(&lab, &[address(2)]).is_empty()
    });
    mldproxy.wait_for_line(
        "learning addresses in 2001:db8:1::/64, which is on wan",
        SOON,
    );
    // The first address is in the kernel's neighbor table, which mldproxy reads when there is a
    // prefix.
    expect_joined(&lab, &[address(1), address(2)]);
}

/// No host speaks, so for some seconds nothing but the prefix wakes mldproxy up.
fn a_prefix_that_comes_late_counts_for_hosts_that_are_silent() {
    let lab = Lab::without_querier();
    let host = address(1);
    lab.rtr.run(&format!(
        "ip addr del {ROUTER}/64 dev {UPSTREAM}
         ip neigh replace {host} lladdr 02:00:00:00:01:01 dev {DOWNSTREAM} nud stale"
    ));
    for silent in [&lab.gw, &lab.lan] {
        silent.run("sysctl -qw net.ipv6.conf.all.disable_ipv6=1");
    }
    let mldproxy = start(&lab, &["--prefix", "upstream"]);
    let (mut wake_ups, mut since) = (0, Instant::now());
    eventually("nothing more to do", SOON, || {
        let now = status(&mldproxy, "voluntary_ctxt_switches:");
        if mem::replace(&mut wake_ups, now) != now {
            since = Instant::now();
        }
        since.elapsed() > Duration::from_secs(2)
    });
    lab.rtr
        .run(&format!("ip addr add {ROUTER}/64 dev {UPSTREAM} nodad"));
    eventually("its host is joined for", Duration::from_secs(5), || {
        missing_of(&lab, &[host]).is_empty()
    });
}

fn an_excluded_prefix_is_not_learned() {
    let lab = Lab::without_querier();
    let options = [
        "--exclude",
        "2001:db8:1:0:1::/80",
        "--exclude",
        "2001:db8:1::10:2/128",
    ];
    let _mldproxy = start(&lab, &options);
    let host = Host::apart(&lab.lan, 1);
    let [kept] = addresses(["2001:db8:1:0:2::10:5"]);
    for address in addresses([
        "2001:db8:1:0:1::10:4",
        "2001:db8:1::10:2",
        "2001:db8:1:0:2::10:5",
    ]) {
        host.solicits_from(address);
    }
    expect_joined(&lab, &[kept]);
}

fn the_routers_own_addresses_are_not_joined() {
    let lab = Lab::without_querier();
    let own: Ipv6Addr = "2001:db8:1::3".parse().unwrap();
    let _mldproxy = start(&lab, &["--learn", "both"]);
    let host = Host::apart(&lab.lan, 1);
    // One host speaks as the router, by mistake or not, and another has the address before the
    // router takes it.
    let [later] = addresses(["2001:db8:1::10:9"]);
    host.solicits_from(own);
    host.advertises(own);
    host.solicits_from(later);
    expect_among_joined(&lab, &[later]);
    // The router itself looks for a host, and detects duplicates.
    lab.rtr
        .try_run(&format!("ping -n -c 1 -W 1 -I {own} 2001:db8:1::1:10"));
    lab.rtr.sysctl("net.ipv6.conf.br-lan.accept_dad", "1");
    lab.rtr
        .run(&format!("ip addr add {later}/64 dev {DOWNSTREAM}"));
    eventually("the router's group is left", SOON, || {
        missing_of(&lab, &[later]).len() == 1
    });
    host.solicits_from(address(1));
    expect_among_joined(&lab, &[address(1)]);
    assert_eq!(
        missing_of(&lab, &[own, later]),
        [solicited_node(own), solicited_node(later)],
        "{LAN_ROUTER}"
    );
}
