//! Thieves that claim an address on another link than that of its owner.

use std::net::Ipv6Addr;
use std::time::{Duration, Instant};
use std::{iter, thread};

use super::{
    ATTACK, Answers, Claim, EVERY_CLAIM, GUEST, LAN, Thief, UNASKED, Watch, add_unspoken, always,
    counter, expect_groups, expect_served, interface_of, is_served, pass, silence,
};
use crate::both_ways::home::{Home, Machine, PC, free, solicitation};
use crate::lab::{GATEWAY, Process, UPSTREAM};
use crate::support::{Host, SOON, proxied};

/// Within this time the router has asked on other links for what a host wants to take.
const ASKED_ELSEWHERE: Duration = Duration::from_millis(200);

crate::tests![
    a_stranger_upstream_cannot_take_the_address_of_a_host_known_by_mld_alone,
    a_guest_cannot_take_the_addresses_of_a_lan_host_known_by_mld_alone,
    a_lan_host_cannot_take_the_addresses_of_a_guest_known_by_mld_alone,
    a_guest_cannot_take_an_address_of_which_a_lan_host_detects_duplicates,
    a_lan_host_cannot_take_an_address_of_which_a_guest_detects_duplicates,
    a_lan_host_cannot_take_a_known_upstream_neighbor_by_its_link_layer_address,
    a_guest_cannot_take_a_known_upstream_neighbor_by_its_link_layer_address,
    a_guest_cannot_move_a_lan_host_by_its_link_layer_address,
    a_lan_host_cannot_move_a_guest_by_its_link_layer_address,
    nobody_upstream_can_move_a_lan_host_by_its_link_layer_address,
    a_guest_cannot_take_confirmed_addresses_of_lan_hosts,
    nobody_upstream_can_take_confirmed_addresses_of_lan_hosts,
];

/// The owner has three addresses of which mldproxy knows the groups alone. A neighbor of the owner,
/// a guest and the gateway look for one each. The stranger answers all of them.
fn a_stranger_upstream_cannot_take_the_address_of_a_host_known_by_mld_alone() {
    let home = Home::new(2);
    let mldproxy = home.start(&[]);
    let [owner, neighbor] = &home.lans[0][..] else {
        panic!("two hosts")
    };
    let guest = &home.lans[1][0];
    let addresses = add_unspoken(owner, 1..=3);
    silence(owner);
    expect_groups(&home, &addresses);
    let watch = Watch::start(&home);
    let ways = [Claim::Advertises, Claim::Answers];
    let stranger = Thief::at(&home, &home.pc, UPSTREAM, &addresses).claiming_by(&ways);
    stranger.during(|| {
        let seekers = [&neighbor.namespace, &guest.namespace, &home.lab.gw];
        always("nobody is led upstream", ATTACK, || {
            for (seeker, address) in seekers.into_iter().zip(&addresses) {
                seeker.flush_neighbors();
                seeker.try_run(&format!("ping -n -c 1 -W 1 {address}"));
            }
            let is_led = |address: &Ipv6Addr| home.routed_to(*address).as_deref() == Some(UPSTREAM);
            !addresses.iter().any(is_led)
        });
        // The owner speaks at last, and has its addresses although the stranger still claims them.
        for address in &addresses {
            Host::on(&owner.namespace).solicits_from(*address);
            expect_served(&home, &mldproxy, *address, LAN);
        }
        always("the addresses stay with their owner", ATTACK / 2, || {
            let is_kept = |address: &Ipv6Addr| is_served(&home, *address, LAN);
            addresses.iter().all(is_kept)
        });
    });
    for address in addresses {
        watch.expect_only(&mldproxy, address, LAN);
        guest.namespace.flush_neighbors();
        let reached = guest.namespace.reaches(address, SOON);
        assert!(reached, "{address}\n{}", mldproxy.log());
    }
}

fn a_guest_cannot_take_the_addresses_of_a_lan_host_known_by_mld_alone() {
    take_from_listener(0, LAN, GUEST);
}

fn a_lan_host_cannot_take_the_addresses_of_a_guest_known_by_mld_alone() {
    take_from_listener(1, GUEST, LAN);
}

/// The owner is silent until the thief has tried for a while.
fn take_from_listener(owner: usize, place: &str, elsewhere: &str) {
    let home = Home::new(1);
    let mldproxy = home.start(&[]);
    let (owner, thief) = (&home.lans[owner][0], &home.lans[1 - owner][0]);
    let addresses = add_unspoken(owner, 1..=3);
    silence(owner);
    expect_groups(&home, &addresses);
    let watch = Watch::start(&home);
    let thief = Thief::at(&home, thief, elsewhere, &addresses);
    thief.during(|| {
        always("the thief has no address", ATTACK, || {
            let is_taken = |address: &Ipv6Addr| {
                home.routed_to(*address).as_deref() == Some(elsewhere)
                    || interface_of(&home, *address).as_deref() == Some(elsewhere)
            };
            !addresses.iter().any(is_taken)
        });
        for address in &addresses {
            Host::on(&owner.namespace).solicits_from(*address);
            expect_served(&home, &mldproxy, *address, place);
        }
    });
    for address in addresses {
        watch.expect_only(&mldproxy, address, place);
        let reached = home.lab.gw.reaches(address, SOON);
        assert!(reached, "{address}\n{}", mldproxy.log());
    }
}

fn a_guest_cannot_take_an_address_of_which_a_lan_host_detects_duplicates() {
    take_during_detection(0, LAN, GUEST);
}

fn a_lan_host_cannot_take_an_address_of_which_a_guest_detects_duplicates() {
    take_during_detection(1, GUEST, LAN);
}

/// The owner takes one address for each way to claim it. The thief knows of each once the router
/// asks for it, and claims it while the owner still detects duplicates.
fn take_during_detection(owner: usize, place: &str, elsewhere: &str) {
    let home = Home::new(1);
    let mldproxy = home.start(&[]);
    let (owner, thief) = (&home.lans[owner][0], &home.lans[1 - owner][0]);
    home.confirm(owner);
    silence(owner);
    let sysctl = "net.ipv6.conf.eth0.router_solicitation_delay";
    owner.namespace.sysctl(sysctl, "0");
    // What a host says soon after a question to it counts as its answer.
    pass(&home, UNASKED);
    // An answer to the router would be one to the owner's question, which anybody can give.
    let ways = EVERY_CLAIM
        .into_iter()
        .filter(|claim| *claim != Claim::Answers);
    let ways: Vec<_> = (1..).zip(ways).collect();
    let addresses: Vec<_> = ways.iter().map(|(number, _)| free(*number)).collect();
    let watch = Watch::start(&home);
    let thieves: Vec<_> = ways
        .iter()
        .map(|(number, claim)| {
            let mut thief = Thief::at(&home, thief, elsewhere, &[free(*number)]);
            thief.host.mac[4] = 0x40 + *number as u8;
            thief.claiming_by(&[*claim]).answering(Answers::Unicast)
        })
        .collect();
    for (address, thief) in addresses.iter().zip(&thieves) {
        owner
            .namespace
            .run(&format!("ip addr add {address}/64 dev eth0"));
        // The router asks on the thief's link whether somebody else has it. That is nobody.
        let end = Instant::now() + ASKED_ELSEWHERE;
        let left = || end.saturating_duration_since(Instant::now());
        let heard = iter::from_fn(|| thief.host.tap.receive(left()));
        let _ = heard
            .filter_map(|frame| solicitation(&frame))
            .find(|asked| asked.target == *address);
        thief.claim();
    }
    during_all(&thieves, || {
        for address in &addresses {
            assert!(!owner.has_a_duplicate_of(*address), "{}", mldproxy.log());
        }
        for address in &addresses {
            expect_served(&home, &mldproxy, *address, place);
        }
        always("the addresses stay with their owner", ATTACK, || {
            let is_kept = |address: &Ipv6Addr| is_served(&home, *address, place);
            addresses.iter().all(is_kept)
        });
    });
    for address in addresses {
        watch.expect_only(&mldproxy, address, place);
        let reached = home.lab.gw.reaches(address, SOON);
        assert!(reached, "{address}\n{}", mldproxy.log());
    }
}

/// Does `work` while all thieves are at work.
fn during_all(thieves: &[Thief], work: impl FnOnce()) {
    match thieves {
        [] => work(),
        [first, others @ ..] => first.during(|| during_all(others, work)),
    }
}

fn a_lan_host_cannot_take_a_known_upstream_neighbor_by_its_link_layer_address() {
    take_from_upstream(0, LAN);
}

fn a_guest_cannot_take_a_known_upstream_neighbor_by_its_link_layer_address() {
    take_from_upstream(1, GUEST);
}

fn take_from_upstream(thief: usize, place: &str) {
    let home = Home::new(2);
    let mldproxy = home.start(&[]);
    let seeker = &home.lans[0][1];
    for address in [PC, GATEWAY] {
        let found = seeker.namespace.reaches(address, SOON);
        assert!(found, "{}", mldproxy.log());
        home.expect_routed_to(address, UPSTREAM);
    }
    let watch = Watch::start(&home);
    let machine = &home.lans[thief][0];
    let as_pc = Thief::at(&home, machine, place, &[PC]).posing_as(&home.pc);
    let mut as_gateway = Thief::at(&home, machine, place, &[GATEWAY]);
    as_gateway.host.mac = crate::lab::Tap::open(&home.lab.gw, "eth0").mac();
    during_all(&[as_pc, as_gateway], || {
        always("both stay upstream", ATTACK, || {
            let is_kept = |address| {
                home.routed_to(address).as_deref() == Some(UPSTREAM)
                    && !proxied(&home.lab).contains(&address)
            };
            [PC, GATEWAY].into_iter().all(is_kept)
        });
    });
    for address in [PC, GATEWAY] {
        watch.expect_only(&mldproxy, address, UPSTREAM);
        seeker.namespace.flush_neighbors();
        let reached = seeker.namespace.reaches(address, SOON);
        assert!(reached, "{address}\n{}", mldproxy.log());
    }
}

fn a_guest_cannot_move_a_lan_host_by_its_link_layer_address() {
    Theft::new(0, LAN, GUEST).carry_out(true);
}

fn a_lan_host_cannot_move_a_guest_by_its_link_layer_address() {
    Theft::new(1, GUEST, LAN).carry_out(true);
}

fn nobody_upstream_can_move_a_lan_host_by_its_link_layer_address() {
    Theft::new(0, LAN, UPSTREAM).carry_out(true);
}

fn a_guest_cannot_take_confirmed_addresses_of_lan_hosts() {
    Theft::new(0, LAN, GUEST).carry_out(false);
}

fn nobody_upstream_can_take_confirmed_addresses_of_lan_hosts() {
    Theft::new(0, LAN, UPSTREAM).carry_out(false);
}

/// Three owners on a link, whose addresses are confirmed: one is silent, one speaks all the time,
/// and one detects duplicates anew. Thieves on another link claim their addresses.
struct Theft {
    home: Home,
    mldproxy: Process,
    owners: usize,
    place: &'static str,
    elsewhere: &'static str,
}

impl Theft {
    fn new(owners: usize, place: &'static str, elsewhere: &'static str) -> Self {
        let home = Home::new(3);
        let mldproxy = home.start(&[]);
        for owner in &home.lans[owners] {
            home.confirm(owner);
            silence(owner);
            // Duplicate address detection begins at once, and takes a second.
            let namespace = &owner.namespace;
            namespace.sysctl("net.ipv6.conf.eth0.router_solicitation_delay", "0");
        }
        Theft {
            home,
            mldproxy,
            owners,
            place,
            elsewhere,
        }
    }

    fn carry_out(&self, as_owners: bool) {
        let Theft {
            home,
            mldproxy,
            place,
            ..
        } = self;
        let owners = &home.lans[self.owners];
        let addresses: Vec<_> = owners.iter().map(|owner| owner.address).collect();
        let watch = Watch::start(home);
        let removed = counter(home, "proxies_removed");
        let thieves: Vec<_> = owners
            .iter()
            .map(|owner| self.thief(owner, as_owners))
            .collect();
        let [_, speaking, rebooting] = &owners[..] else {
            panic!("three owners")
        };
        let voice = Host::on(&speaking.namespace);
        during_all(&thieves, || {
            let mut round = 0;
            always("the addresses stay with their owners", ATTACK, || {
                voice.solicits_from(speaking.address);
                if round % 100 == 0 {
                    let own = rebooting.address;
                    rebooting.namespace.run(&format!(
                        "ip addr del {own}/64 dev eth0
                         ip addr add {own}/64 dev eth0"
                    ));
                }
                round += 1;
                let is_kept = |address: &Ipv6Addr| is_served(home, *address, place);
                addresses.iter().all(is_kept)
            });
            assert!(!rebooting.has_a_duplicate_of(rebooting.address));
        });
        assert_eq!(counter(home, "proxies_removed"), removed);
        thread::scope(|scope| {
            for address in addresses {
                watch.expect_only(mldproxy, address, place);
                scope.spawn(move || {
                    home.lab.gw.flush_neighbors();
                    let reached = home.lab.gw.reaches(address, SOON);
                    assert!(reached, "{address}\n{}", mldproxy.log());
                });
            }
        });
    }

    fn thief(&self, owner: &Machine, as_owner: bool) -> Thief {
        let home = &self.home;
        let machine = match self.elsewhere {
            LAN => &home.lans[0][0],
            GUEST => &home.lans[1][0],
            _ => &home.pc,
        };
        let mut thief = Thief::at(home, machine, self.elsewhere, &[owner.address]);
        thief.host.mac[4] = owner.address.octets()[15];
        if as_owner {
            thief.posing_as(owner)
        } else {
            thief
        }
    }
}
