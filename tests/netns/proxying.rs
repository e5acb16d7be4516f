//! The built-in NDP proxy in the kernel's own tables: each confirmed address has an entry and a
//! route, and no other address has.

pub mod churn;
pub mod leftovers;
pub mod links;
pub mod paths;
pub mod rights;
pub mod sharing;

use std::collections::BTreeSet;
use std::net::Ipv6Addr;

use crate::lab::{Lab, Namespace, OUTSIDE, Tap, UPSTREAM, downstream, eventually, poll_for};
use crate::support::{Host, SOON, address};

/// The protocol number that marks entries and routes as mldproxy's.
const OWN: &str = "77";
/// The options with which mldproxy keeps both tables.
const BOTH: &[&str] = &["--ndp-proxy", "--host-routes"];

/// mldproxy's part of the kernel's tables.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tables {
    /// The addresses for which the kernel answers upstream.
    entries: BTreeSet<Ipv6Addr>,
    /// Addresses, and the interfaces that their routes go out of.
    routes: BTreeSet<(Ipv6Addr, String)>,
}

impl Tables {
    /// The tables as they are.
    ///
    /// # Panics
    /// If an entry is not a router's, or a route does not have the metric of one made by hand.
    #[track_caller]
    fn of_kernel(router: &Namespace) -> Self {
        let mut tables = Tables::default();
        // The kernel lists a table in pieces. While the table changes, it may list something twice.
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

    /// The tables that the addresses want which the daemon calls confirmed.
    #[track_caller]
    fn of_daemon(router: &Namespace) -> Self {
        Self::told(&router.status("--json"), "confirmed", "confirmed")
    }

    /// The tables that the status tells of. The field `entry` tells that an address has an entry,
    /// and `route` that it has a route.
    #[track_caller]
    fn told(json: &str, entry: &str, route: &str) -> Self {
        let (_, rest) = json.split_once("\"neighbors\":").expect("a list");
        let list = rest.split("\"upstream_neighbors\":").next();
        let mut tables = Tables::default();
        for neighbor in list.expect("a list").split("{\"address\":\"").skip(1) {
            let value = |name: &str| {
                let (_, value) = neighbor.split_once(name).expect("a field");
                value.split(['"', ',', '}']).next().expect("a value")
            };
            let is = |field: &str| value(&format!("\"{field}\":")) == "true";
            let address = neighbor.split('"').next().map(str::parse);
            let address = address.and_then(Result::ok).expect("an address");
            if is(entry) {
                tables.entries.insert(address);
            }
            if is(route) {
                let interface = value("\"interface\":\"").to_owned();
                tables.routes.insert((address, interface));
            }
        }
        tables
    }

    /// These tables without what another program's entries and routes for the same addresses block.
    fn beside(mut self, foreign: &Foreign) -> Self {
        let upstream = |entry: &&String| word_after(entry, "dev") == UPSTREAM;
        for entry in foreign.entries.iter().filter(upstream) {
            self.entries.remove(&first_address(entry));
        }
        // A route of another metric, or out of another interface, blocks nothing.
        let same_metric = |route: &&String| word_after(route, "metric") == "1024";
        for route in foreign.routes.iter().filter(same_metric) {
            if let Ok(address) = first_word(route).parse() {
                let interface = word_after(route, "dev").to_owned();
                self.routes.remove(&(address, interface));
            }
        }
        self
    }

    /// The tables that these addresses on the first LAN want.
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

/// What is not mldproxy's, as `ip` writes it. Nothing of it may ever change.
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

/// The word after another one, or nothing where that is not there.
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

/// Waits until the gateway reaches a host by what it finds now, not by what it knew.
#[track_caller]
fn expect_reachable(lab: &Lab, host: Ipv6Addr, what: &str) {
    eventually(&format!("{what}: {host} is reachable"), SOON, || {
        lab.gw.flush_neighbors();
        lab.gw.ping(OUTSIDE, host, 1).received > 0
    });
}

/// A host with the kernel's own NDP and MLD: a macvlan that keeps its link-layer address wherever
/// it is plugged in.
struct Guest {
    number: u8,
    addresses: Vec<Ipv6Addr>,
}

impl Guest {
    /// A host with so many addresses of its own.
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

    /// The link-local address that the kernel forms of the link-layer address.
    fn link_local(&self) -> Ipv6Addr {
        let last = 0x7000 | u16::from(self.number);
        Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0xff, 0xfe00, last)
    }

    fn plug_in(&self, lan: &Namespace) {
        let (number, interface) = (self.number, self.interface());
        let mut commands = format!(
            "link add link eth0 name {interface} address 02:00:00:00:70:{number:02x} \
                type macvlan mode bridge
             link set dev {interface} up\n"
        );
        for address in &self.addresses {
            commands += &format!("addr add {address}/128 dev {interface}\n");
        }
        lan.batch(&commands);
    }

    fn unplug(&self, lan: &Namespace) {
        lan.run(&format!("ip link del dev {}", self.interface()));
    }

    /// The host as a sender of packets.
    fn on(&self, lan: &Namespace) -> Host {
        let tap = Tap::open(lan, &self.interface());
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
