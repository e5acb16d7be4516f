//! A process that does not run for a while: stopped, or on a machine that was suspended.

use std::iter;
use std::net::Ipv6Addr;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::{
    GENEROUS, GUEST, LAN, Watch, add_unspoken, always, counter, expect_groups, is_served, pass,
    silence,
};
use crate::both_ways::home::Home;
use crate::lab::{Tap, UPSTREAM, eventually, solicited_node};
use crate::support::SOON;

crate::tests![who_answers_outlives_a_stall_longer_than_the_timeout];

const TIMEOUT: Duration = Duration::from_secs(10);
/// Between two rounds of questions, all is quiet for longer than this.
const QUIET: Duration = Duration::from_secs(1);

/// Afterwards nobody has expired, and nothing was withdrawn even for a moment.
fn who_answers_outlives_a_stall_longer_than_the_timeout() {
    let home = Home::new(3);
    let timeout = TIMEOUT.as_secs().to_string();
    let options = ["--address-timeout", &timeout, "--expiry-interval", "1"];
    let mldproxy = home.start(&options);
    let hosts = [(LAN, 0), (GUEST, 1)]
        .into_iter()
        .flat_map(|(place, lan)| home.lans[lan].iter().map(move |host| (host, place)));
    let hosts: Vec<_> = hosts.collect();
    let mut unspoken = Vec::new();
    for (number, (host, _)) in (1..).step_by(2).zip(&hosts) {
        home.confirm(host);
        silence(host);
        unspoken.extend(add_unspoken(host, number..number + 2));
    }
    expect_groups(&home, &unspoken);
    let watch = Watch::start(&home);
    let (left, removed) = (
        counter(&home, "groups_left"),
        counter(&home, "proxies_removed"),
    );

    // What hosts say while it is stopped would be heard afterwards.
    let taps = [LAN, GUEST].map(|interface| Tap::open(&home.lab.rtr, interface));
    eventually("all have answered", GENEROUS, || {
        let is_quiet = taps[0].receive(QUIET).is_none();
        let others = iter::from_fn(|| taps[1].receive(Duration::ZERO));
        is_quiet && others.count() == 0
    });
    mldproxy.signal(Signal::SIGSTOP);
    pass(&home, TIMEOUT * 5 / 4);
    mldproxy.signal(Signal::SIGCONT);

    // One more timeout shows that all are asked as before.
    always("all hosts are served", TIMEOUT, || {
        let joined = home.lab.rtr.joined(UPSTREAM);
        let is_kept = |address: &Ipv6Addr| joined.contains(&solicited_node(*address));
        hosts
            .iter()
            .all(|(host, place)| is_served(&home, host.address, place))
            && unspoken.iter().all(is_kept)
    });
    assert!(mldproxy.log().contains("stood still"), "{}", mldproxy.log());
    for (host, place) in &hosts {
        watch.expect_only(&mldproxy, host.address, place);
    }
    assert_eq!(counter(&home, "groups_left"), left, "{}", mldproxy.log());
    assert_eq!(counter(&home, "proxies_removed"), removed);
    for (host, _) in &hosts {
        assert!(
            home.lab.gw.reaches(host.address, SOON),
            "{}",
            mldproxy.log()
        );
    }
}
