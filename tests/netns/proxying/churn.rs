//! Hosts that come, go, move and fall silent, beside the entries and routes of other programs.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::leftovers::start_with_guests;
use super::{BOTH, Foreign, Guest, Tables, expect_reachable, expect_tables};
use crate::lab::{Lab, LabOptions, Namespace, UPSTREAM, downstream, eventually, poll_for};
use crate::support::{SOON, UNLIMITED, address, start, start_between};

crate::tests![
    entries_and_routes_are_those_of_the_confirmed_whoever_comes_and_goes,
    two_thousand_addresses_have_entries_until_their_lan_goes,
    an_entry_that_another_program_takes_over_is_its_own_from_then_on,
    what_was_in_the_way_is_replaced_once_it_is_gone,
    what_somebody_removed_is_back_after_sighup,
    what_somebody_removed_is_back_with_the_next_refresh,
];

/// Addresses expire soon, though not before mldproxy has asked their hosts twice.
const SHORT: &[&str] = &["--address-timeout", "8", "--expiry-interval", "1"];

/// Prints at a panic how to repeat the run.
struct Seed(u64);

impl Seed {
    /// The seed in the environment's `MLDPROXY_SEED`, or a random one.
    fn new() -> Self {
        let given = std::env::var("MLDPROXY_SEED").ok();
        Seed(given.map_or_else(|| fastrand::u64(..), |seed| seed.parse().expect("a number")))
    }
}

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("this was with MLDPROXY_SEED={}", self.0);
        }
    }
}

/// Adds entries and routes of other programs, some of them for addresses of guests.
fn add_foreign(router: &Namespace, guests: &[Guest]) {
    let of = |guest: usize, place: usize| guests[guest].addresses[place];
    let (stranger, another) = (address(0xf001), address(0xf002));
    router.run(&format!(
        "ip -6 neigh add proxy {stranger} dev {UPSTREAM}
         ip -6 neigh add proxy {another} dev {UPSTREAM} protocol 99
         ip -6 neigh add proxy {} dev {UPSTREAM}
         ip -6 neigh add proxy {} dev {UPSTREAM} router protocol 99
         ip -6 neigh add proxy {} dev br-lan
         ip -6 route add {stranger}/128 dev br-lan
         ip -6 route add {another}/128 dev {UPSTREAM} proto 99 metric 7
         ip -6 route add {}/128 dev br-lan
         ip -6 route add {}/128 dev br-lan2 proto 99
         ip -6 route add {}/128 dev {UPSTREAM} metric 4096
         ip -6 route add {}/127 dev br-lan",
        of(0, 0),
        of(1, 0),
        of(2, 0),
        of(0, 1),
        of(1, 1),
        of(2, 1),
        of(3, 0),
    ));
}

fn entries_and_routes_are_those_of_the_confirmed_whoever_comes_and_goes() {
    const STEPS: usize = 40;
    const GUESTS: u8 = 8;
    let seed = Seed::new();
    let mut random = fastrand::Rng::with_seed(seed.0);
    let lab = Lab::with(&LabOptions {
        querier: false,
        lans: 2,
        ..LabOptions::default()
    });
    let lans = [&lab.lan, &lab.more_lans[0]];
    let mut guests: Vec<_> = (1..=GUESTS).map(|number| Guest::new(number, 4)).collect();
    add_foreign(&lab.rtr, &guests);
    let foreign = Foreign::of_kernel(&lab.rtr);
    let options = [BOTH, SHORT, UNLIMITED].concat();
    let mldproxy = start_between(&lab.rtr, &options, &[UPSTREAM, "br-lan", "br-lan2"]);

    // The addresses of each guest now, and its LAN.
    let all: Vec<_> = guests.iter().map(|guest| guest.addresses.clone()).collect();
    let mut places: Vec<Option<usize>> = vec![None; guests.len()];
    for step in 0..STEPS {
        // Up to three guests change at once.
        for _ in 0..random.usize(1..=3) {
            let chosen = random.usize(..guests.len());
            let (guest, place) = (&mut guests[chosen], &mut places[chosen]);
            match (*place, random.u8(..4)) {
                (None, _) => {
                    let count = random.usize(1..=all[chosen].len());
                    guest.addresses = all[chosen][..count].to_vec();
                    let lan = random.usize(..lans.len());
                    guest.plug_in(lans[lan]);
                    guest.speaks(lans[lan]);
                    *place = Some(lan);
                }
                // The guest goes without a word.
                (Some(lan), 0) => {
                    guest.unplug(lans[lan]);
                    *place = None;
                }
                // The guest appears on the other LAN. It speaks from all its addresses, or from
                // one, and mldproxy asks it for the others.
                (Some(lan), 1) => {
                    guest.unplug(lans[lan]);
                    let lan = lans.len() - 1 - lan;
                    guest.plug_in(lans[lan]);
                    if random.bool() {
                        guest.speaks(lans[lan]);
                    } else {
                        let host = guest.on(lans[lan]);
                        host.solicits_from(guest.link_local());
                        host.solicits_from(guest.addresses[0]);
                    }
                    *place = Some(lan);
                }
                // The guest gets or loses one address.
                (Some(lan), _) => {
                    let interface = guest.interface();
                    let spare = all[chosen].get(guest.addresses.len()).copied();
                    let (verb, address) = match spare {
                        Some(address) => {
                            guest.addresses.push(address);
                            ("add", address)
                        }
                        None => (
                            "del",
                            guest.addresses.pop().expect("the guest has addresses"),
                        ),
                    };
                    lans[lan].run(&format!("ip addr {verb} {address}/128 dev {interface}"));
                    if spare.is_some() {
                        guest.on(lans[lan]).solicits_from(address);
                    }
                }
            }
        }
        // mldproxy knows every guest that is there, and on which LAN.
        let there = || {
            let there = guests.iter().zip(&places);
            there.filter_map(|(guest, place)| Some((guest, downstream(1 + (*place)? as u16))))
        };
        let mut missing = Vec::new();
        let known = poll_for(SOON, || {
            let daemon = Tables::of_daemon(&lab.rtr);
            let wanted = there().flat_map(|(guest, interface)| {
                let addresses = guest.addresses.iter();
                addresses.map(move |address| (*address, interface.clone()))
            });
            missing = wanted
                .filter(|route| !daemon.routes.contains(route))
                .collect();
            missing.is_empty().then_some(())
        });
        assert!(
            known.is_some(),
            "step {step}: not confirmed: {missing:?}\n{}",
            mldproxy.log()
        );
        expect_agreement(&lab, &foreign, &format!("step {step}"));
    }

    for (guest, place) in guests.iter().zip(&places) {
        if let Some(lan) = place {
            guest.unplug(lans[*lan]);
        }
    }
    eventually("all addresses have expired", 3 * SOON, || {
        Tables::of_daemon(&lab.rtr) == Tables::default()
    });
    expect_agreement(&lab, &foreign, "after all");
    assert_eq!(Tables::of_kernel(&lab.rtr), Tables::default());
    mldproxy.signal(Signal::SIGTERM);
    assert!(mldproxy.wait(SOON).success());
    assert_eq!(Foreign::of_kernel(&lab.rtr), foreign);
}

/// The kernel's tables hold what the daemon's tables want and what its status tells, and nothing of
/// other programs changed. The tables cannot be read at one moment, so a difference is read again,
/// but for a shorter time than the daemon waits to try again what failed.
#[track_caller]
fn expect_agreement(lab: &Lab, foreign: &Foreign, what: &str) {
    const AT_ONCE: Duration = Duration::from_secs(5);
    let (mut kernel, mut wanted, mut told) = Default::default();
    let agreed = poll_for(AT_ONCE, || {
        kernel = Tables::of_kernel(&lab.rtr);
        let json = lab.rtr.status("--json");
        let daemon = |entry, route| Tables::told(&json, entry, route).beside(foreign);
        wanted = daemon("confirmed", "confirmed");
        told = daemon("proxied", "routed");
        (kernel == wanted && kernel == told).then_some(())
    });
    assert!(
        agreed.is_some(),
        "{what}: the kernel has {kernel:?}\nthe daemon wants {wanted:?}\nand says {told:?}"
    );
    assert_eq!(Foreign::of_kernel(&lab.rtr), *foreign, "{what}");
}

fn two_thousand_addresses_have_entries_until_their_lan_goes() {
    let lab = Lab::without_querier();
    let options = [BOTH, UNLIMITED, &["--expiry-interval", "1"]].concat();
    let options = [&options[..], &["--address-timeout", "12"]].concat();
    let mldproxy = start(&lab, &[&options[..], &["--log-level", "info"]].concat());
    let guests: Vec<_> = (1..=40).map(|number| Guest::new(number, 50)).collect();
    let mut all = BTreeSet::new();
    for guest in &guests {
        guest.plug_in(&lab.lan);
        let host = guest.on(&lab.lan);
        host.solicits_from(guest.link_local());
        // For these packets the router's kernel keeps no neighbors. It has room for half of them.
        for address in &guest.addresses {
            host.advertises(*address);
        }
        all.extend(&guest.addresses);
    }
    assert_eq!(all.len(), 2000);
    let all: Vec<_> = all.into_iter().collect();
    let mut count = 0;
    let complete = poll_for(2 * SOON, || {
        let tables = Tables::of_kernel(&lab.rtr);
        count = tables.entries.len();
        (tables == Tables::on_first_lan(&all)).then_some(())
    });
    assert!(complete.is_some(), "{count} entries");
    expect_reachable(&lab, all[1999], "the last of all");

    lab.lan.run("ip link set dev eth0 down");
    eventually("all entries have expired", 3 * SOON, || {
        Tables::of_kernel(&lab.rtr) == Tables::default()
    });
    assert_eq!(Tables::of_daemon(&lab.rtr), Tables::default());
    assert!(mldproxy.is_running());
}

/// The kernel asks nobody when one program takes over another's entry.
fn an_entry_that_another_program_takes_over_is_its_own_from_then_on() {
    let lab = Lab::without_querier();
    let (mldproxy, _guests, addresses) = start_with_guests(&lab, BOTH);
    lab.rtr.run(&format!(
        "ip -6 neigh add proxy {} dev {UPSTREAM} protocol 99",
        addresses[0]
    ));
    let foreign = Foreign::of_kernel(&lab.rtr);
    assert_eq!(foreign.entries.len(), 1);
    mldproxy.signal(Signal::SIGTERM);
    assert!(mldproxy.wait(SOON).success());
    assert_eq!(Tables::of_kernel(&lab.rtr), Tables::default());
    assert_eq!(Foreign::of_kernel(&lab.rtr), foreign);
}

fn what_was_in_the_way_is_replaced_once_it_is_gone() {
    let lab = Lab::without_querier();
    let guest = Guest::new(1, 2);
    let in_the_way = guest.addresses[0];
    lab.rtr.run(&format!(
        "ip -6 neigh add proxy {in_the_way} dev {UPSTREAM}"
    ));
    let mldproxy = start(&lab, BOTH);
    guest.plug_in(&lab.lan);
    guest.speaks(&lab.lan);
    eventually("the other address has an entry", SOON, || {
        let tables = Tables::of_kernel(&lab.rtr);
        tables.routes.len() == 2 && tables.entries == [guest.addresses[1]].into()
    });
    mldproxy.wait_for_line(
        "another NDP proxy, such as odhcpd's relay, has an entry and answers too",
        SOON,
    );
    lab.rtr.run(&format!(
        "ip -6 neigh del proxy {in_the_way} dev {UPSTREAM}"
    ));
    expect_tables(&lab, &guest.addresses, "nothing is in the way");
    mldproxy.wait_for_line("works again", SOON);
}

/// The kernel tells nobody that an entry was removed.
fn what_somebody_removed_is_back_after_sighup() {
    let lab = Lab::without_querier();
    let options = [BOTH, &["--refresh-interval", "0"]].concat();
    let (mldproxy, _guests, addresses) = start_with_guests(&lab, &options);
    remove_two(&lab, &addresses);
    mldproxy.signal(Signal::SIGHUP);
    expect_tables(&lab, &addresses, "after SIGHUP");
    assert!(mldproxy.is_running());
}

fn what_somebody_removed_is_back_with_the_next_refresh() {
    let lab = Lab::without_querier();
    let options = [BOTH, &["--refresh-interval", "1"]].concat();
    let (mldproxy, _guests, addresses) = start_with_guests(&lab, &options);
    remove_two(&lab, &addresses);
    expect_tables(&lab, &addresses, "after a refresh");
    assert!(mldproxy.is_running());
}

fn remove_two(lab: &Lab, addresses: &[Ipv6Addr]) {
    lab.rtr.run(&format!(
        "ip -6 neigh del proxy {} dev {UPSTREAM}
         ip -6 route del {}/128 dev br-lan proto 77",
        addresses[0], addresses[1]
    ));
}
