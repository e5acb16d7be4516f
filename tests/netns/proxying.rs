//! The built-in NDP proxy, as the kernel's own tables show it: an entry and a route for each confirmed address, and for no other.

pub mod leftovers;
pub mod links;
pub mod paths;
pub mod rights;

use std::collections::BTreeSet;
use std::net::Ipv6Addr;
use std::time::Duration;

use crate::lab::{Lab, LabOptions, Namespace, OUTSIDE, UPSTREAM, downstream, eventually, poll_for};
use crate::support::{Host, SOON, UNLIMITED, address, start, start_between};

crate::tests![
    entries_and_routes_are_those_of_the_confirmed_whoever_comes_and_goes,
    two_thousand_hosts_addresses_have_entries_until_their_lan_goes,
];

/// The number by which entries and routes are known as this program's.
const OWN: &str = "77";
/// Both tables are kept.
const BOTH: &[&str] = &["--ndp-proxy", "--host-routes"];
/// Addresses end soon, though not before their hosts were asked twice.
const SHORT: &[&str] = &["--address-timeout", "8", "--expiry-interval", "1"];

/// This program's part of the kernel's tables.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tables {
    /// Addresses answered for upstream.
    entries: BTreeSet<Ipv6Addr>,
    /// Addresses, and the interfaces that their routes go out of.
    routes: BTreeSet<(Ipv6Addr, String)>,
}

impl Tables {
    /// As they are.
    ///
    /// # Panics
    /// Where an entry is not that of a router, or a route has another metric than one made by hand.
    #[track_caller]
    fn of_kernel(router: &Namespace) -> Self {
        let mut tables = Tables::default();
        // A table is read in pieces, and while it changes something may be told twice.
        for entry in lines(router, "ip -6 neigh show proxy") {
            if is_own(&entry) && word_after(&entry, "dev") == UPSTREAM {
                assert!(entry.contains(" router "), "{entry}");
                tables.entries.insert(first_address(&entry));
            }
        }
        for route in lines(router, "ip -6 route show") {
            if is_own(&route) {
                assert!(route.contains(" metric 1024 "), "{route}");
                let interface = word_after(&route, "dev").to_owned();
                tables.routes.insert((first_address(&route), interface));
            }
        }
        tables
    }

    /// As the addresses that the daemon calls confirmed want them.
    #[track_caller]
    fn of_daemon(router: &Namespace) -> Self {
        let json = router.status("--json");
        let mut tables = Tables::default();
        for neighbor in json.split("{\"address\":\"").skip(1) {
            let neighbor = neighbor.split('}').next().unwrap_or_default();
            let value = |name: &str| {
                let (_, value) = neighbor.split_once(name).expect("a field");
                value.split(['"', ',']).next().expect("a value").to_owned()
            };
            if value("\"confirmed\":") == "true" {
                let address = neighbor
                    .split('"')
                    .next()
                    .and_then(|text| text.parse().ok());
                let address = address.expect("an address");
                tables.entries.insert(address);
                tables.routes.insert((address, value("\"interface\":\"")));
            }
        }
        tables
    }

    /// Without what other programs' entries and routes for the very addresses are in the way of.
    fn beside(mut self, foreign: &Foreign) -> Self {
        let upstream = |entry: &&String| word_after(entry, "dev") == UPSTREAM;
        for entry in foreign.entries.iter().filter(upstream) {
            self.entries.remove(&first_address(entry));
        }
        // A route of another metric, or out of another interface, is another one.
        let same_metric = |route: &&String| word_after(route, "metric") == "1024";
        for route in foreign.routes.iter().filter(same_metric) {
            if let Ok(address) = first_word(route).parse() {
                let interface = word_after(route, "dev").to_owned();
                self.routes.remove(&(address, interface));
            }
        }
        self
    }

    /// For these addresses on the first LAN.
    fn on_first_lan(addresses: &[Ipv6Addr]) -> Self {
        Tables {
            entries: addresses.iter().copied().collect(),
            routes: addresses
                .iter()
                .map(|address| (*address, downstream(1)))
                .collect(),
        }
    }
}

/// What is not this program's, as `ip` writes it. Nothing of it may ever change.
#[derive(Debug, PartialEq, Eq)]
struct Foreign {
    entries: Vec<String>,
    routes: Vec<String>,
}

impl Foreign {
    #[track_caller]
    fn of_kernel(router: &Namespace) -> Self {
        let foreign = |command_line| {
            let mut lines = lines(router, command_line);
            lines.retain(|line| !is_own(line));
            lines.sort();
            lines
        };
        Foreign {
            entries: foreign("ip -6 neigh show proxy"),
            routes: foreign("ip -6 route show"),
        }
    }
}

#[track_caller]
fn lines(namespace: &Namespace, command_line: &str) -> Vec<String> {
    let output = namespace.run(command_line);
    output.lines().map(str::to_owned).collect()
}

fn is_own(line: &str) -> bool {
    word_after(line, "proto") == OWN
}

fn first_word(line: &str) -> &str {
    line.split_whitespace().next().unwrap_or_default()
}

fn first_address(line: &str) -> Ipv6Addr {
    let address = first_word(line).parse();
    address.unwrap_or_else(|_| panic!("no address: {line}"))
}

/// Nothing where the word is not there.
fn word_after<'l>(line: &'l str, word: &str) -> &'l str {
    let mut words = line.split_whitespace();
    words.find(|candidate| *candidate == word);
    words.next().unwrap_or_default()
}

/// Waits until the kernel's tables hold what these hosts of the first LAN want, and nothing more.
#[track_caller]
fn expect_tables(lab: &Lab, addresses: &[Ipv6Addr], what: &str) {
    let wanted = Tables::on_first_lan(addresses);
    let mut found = Tables::default();
    let held = poll_for(SOON, || {
        found = Tables::of_kernel(&lab.rtr);
        (found == wanted).then_some(())
    });
    assert!(held.is_some(), "{what}: {found:?}");
}

/// Waits until the gateway's ping gets through to a host, by what it asks now and not by what it knew.
#[track_caller]
fn expect_reachable(lab: &Lab, host: Ipv6Addr, what: &str) {
    eventually(&format!("{what}: {host} is reachable"), SOON, || {
        lab.gw.flush_neighbors();
        lab.gw.ping(OUTSIDE, host, 1).received > 0
    });
}

/// A host with the kernel's own NDP and MLD: a macvlan, of the same link-layer address wherever it is plugged in.
struct Guest {
    number: u8,
    addresses: Vec<Ipv6Addr>,
}

impl Guest {
    /// With so many addresses of its own.
    fn new(number: u8, addresses: u16) -> Self {
        let first = u16::from(number) * 0x100;
        Guest {
            number,
            addresses: (first..first + addresses).map(address).collect(),
        }
    }

    fn interface(&self) -> String {
        format!("g{}", self.number)
    }

    fn link_local(&self) -> Ipv6Addr {
        Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0x70, self.number.into())
    }

    fn plug_in(&self, lan: &Namespace) {
        let (number, interface, link_local) = (self.number, self.interface(), self.link_local());
        let mut commands = format!(
            "link add link eth0 name {interface} address 02:00:00:00:70:{number:02x} type macvlan mode bridge
             link set dev {interface} addrgenmode none up
             addr add {link_local}/64 dev {interface}\n"
        );
        for address in &self.addresses {
            commands += &format!("addr add {address}/128 dev {interface}\n");
        }
        lan.batch(&commands);
    }

    fn unplug(&self, lan: &Namespace) {
        lan.run(&format!("ip link del dev {}", self.interface()));
    }

    /// As a sender of packets.
    fn on(&self, lan: &Namespace) -> Host {
        let tap = crate::lab::Tap::open(lan, &self.interface());
        let mac = tap.mac();
        Host { tap, mac }
    }

    /// Solicits the router from each address, as a host does before it sends to it.
    fn speaks(&self, lan: &Namespace) {
        let host = self.on(lan);
        for address in [self.link_local()].iter().chain(&self.addresses) {
            host.solicits_from(*address);
        }
    }
}

/// Says at a panic how to have the same again.
struct Seed(u64);

impl Seed {
    /// That of the environment's `MLDPROXY_SEED`, or any.
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

/// What other programs have there, some of it for addresses that guests have.
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

    // Which addresses each has now, and where.
    let all: Vec<_> = guests.iter().map(|guest| guest.addresses.clone()).collect();
    let mut places: Vec<Option<usize>> = vec![None; guests.len()];
    for step in 0..STEPS {
        // Not always one at a time.
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
                // It goes without a word.
                (Some(lan), 0) => {
                    guest.unplug(lans[lan]);
                    *place = None;
                }
                // It turns up on the other LAN, all of it at once or a part, and is asked for the rest.
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
                // One address more or less.
                (Some(lan), _) => {
                    let interface = guest.interface();
                    let spare = all[chosen].get(guest.addresses.len()).copied();
                    let (verb, address) = match spare {
                        Some(address) => {
                            guest.addresses.push(address);
                            ("add", address)
                        }
                        None => ("del", guest.addresses.pop().expect("it has four")),
                    };
                    lans[lan].run(&format!("ip addr {verb} {address}/128 dev {interface}"));
                    if spare.is_some() {
                        guest.on(lans[lan]).solicits_from(address);
                    }
                }
            }
        }
        // Those that are there are known, and where they are.
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
        assert!(known.is_some(), "step {step}: not confirmed: {missing:?}");
        expect_agreement(&lab, &foreign, &format!("step {step}"));
    }

    for (guest, place) in guests.iter().zip(&places) {
        if let Some(lan) = place {
            guest.unplug(lans[*lan]);
        }
    }
    eventually("all have expired", SOON, || {
        Tables::of_daemon(&lab.rtr) == Tables::default()
    });
    expect_agreement(&lab, &foreign, "after all");
    assert_eq!(Tables::of_kernel(&lab.rtr), Tables::default());
    mldproxy.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(mldproxy.wait(SOON).success());
    assert_eq!(Foreign::of_kernel(&lab.rtr), foreign);
}

/// The kernel's tables are as the daemon's want them, and what is not its own is as ever. The tables are not read in one go, so what is
/// between them is looked at again; not for as long as it takes to try again what failed.
#[track_caller]
fn expect_agreement(lab: &Lab, foreign: &Foreign, what: &str) {
    const AT_ONCE: Duration = Duration::from_secs(5);
    let (mut kernel, mut daemon) = Default::default();
    let agreed = poll_for(AT_ONCE, || {
        kernel = Tables::of_kernel(&lab.rtr);
        daemon = Tables::of_daemon(&lab.rtr).beside(foreign);
        (kernel == daemon).then_some(())
    });
    assert!(
        agreed.is_some(),
        "{what}: the kernel has {kernel:?}\nand the daemon wants {daemon:?}"
    );
    assert_eq!(Foreign::of_kernel(&lab.rtr), *foreign, "{what}");
}

fn two_thousand_hosts_addresses_have_entries_until_their_lan_goes() {
    let lab = Lab::without_querier();
    let options = [BOTH, UNLIMITED, &["--expiry-interval", "1"]].concat();
    let options = [&options[..], &["--address-timeout", "30"]].concat();
    let mldproxy = start(&lab, &[&options[..], &["--log-level", "info"]].concat());
    let guests: Vec<_> = (1..=40).map(|number| Guest::new(number, 50)).collect();
    let mut all = BTreeSet::new();
    for guest in &guests {
        guest.plug_in(&lab.lan);
        let host = guest.on(&lab.lan);
        host.solicits_from(guest.link_local());
        // Nothing that the router's kernel keeps a neighbor for, of which it has room for half of these.
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
