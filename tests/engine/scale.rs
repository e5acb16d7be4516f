//! Many hosts at once: nobody expires unasked, and nobody who answers waits for those who do not.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use model::lan::{Arrival, Host, Lan, Place, Random};
use model::{Diligence, Model, storage, view};
use protocol::config::Config;
use protocol::engine::{Event, Tables};
use protocol::link::Side;
use protocol::ndp::kernel_entries::KernelTable;
use protocol::time::{Duration, Instant};
use protocol::wire::{MacAddress, SolicitedNode};

/// The hosts that fall silent together, and the addresses of each.
const SILENT: u16 = 64;
const ADDRESSES: u32 = 60;
/// What the kernel remembers as the engine starts: each host with two addresses.
const REMEMBERED: u32 = 10_000;

const LAN: Place = Place {
    side: Side::Downstream(0),
    port: 0,
};

fn network(tables: &mut Tables, seed: u64, configure: impl FnOnce(&mut Config)) -> Lan<'_> {
    let mut config = Config::new("wan".parse().unwrap());
    for name in ["br-lan", "guest"] {
        config.downstreams.push(name.parse().unwrap()).unwrap();
    }
    (config.ndp_proxy, config.host_routes) = (true, true);
    (config.join_rate, config.join_burst) = (100_000, 100_000);
    configure(&mut config);
    let now = Instant::from_secs(1_000);
    let model = Model::new(tables, config, [7; 16], now, Diligence::Entries(8));
    let mut rng = fastrand::Rng::with_seed(seed);
    Lan::new(model, Random::new(move |end| rng.u64(..end)))
}

fn addresses(host: u16, count: u32) -> Vec<Ipv6Addr> {
    let first = 0x2001_0db8_0001_0000_0000_0000_0100_0000 | u128::from(host) << 8;
    let numbers = 0..u128::from(count);
    numbers
        .map(|number| Ipv6Addr::from_bits(first + number))
        .collect()
}

/// A host comes with its addresses, and is heard by each of them.
fn come(lan: &mut Lan<'_>, number: u16, count: u32, place: Place, answers_mld: bool) -> usize {
    let mut host = Host::new(number, &addresses(number, count));
    host.answers_mld = answers_mld;
    lan.hosts.push(host);
    let host = lan.hosts.len() - 1;
    lan.arrive(host, place, Arrival::Reporting);
    lan.arrive(host, place, Arrival::Announcing);
    host
}

/// Are all addresses of a host confirmed, proxied and routed to where it is?
fn has_all(lan: &Lan<'_>, host: usize) -> Result<(), String> {
    let Model { engine, kernel, .. } = &lan.model;
    let host = &lan.hosts[host];
    let side = host.place.map(|place| place.side);
    for address in &host.addresses {
        let is_routed = kernel.has(KernelTable::Routes, *address) == side;
        let is_proxied = kernel.has(KernelTable::Proxies, *address).is_some();
        if !view::is_confirmed(engine, *address) || !is_routed || !is_proxied {
            let known = view::address(engine, *address);
            let now = lan.model.now;
            return Err(format!("{now:?}: {address} is withdrawn: {known:?}"));
        }
    }
    Ok(())
}

#[test]
fn of_many_hosts_that_fall_silent_together_none_expires_unasked_and_who_answers_stays() {
    for timeout in [40, 100, 300] {
        for answer_mld in [true, false] {
            fall_silent(timeout, true, answer_mld);
        }
    }
}

/// Here each address has to be asked for on its own.
#[test]
fn of_many_hosts_without_mld_that_fall_silent_none_expires_unasked_and_who_answers_stays() {
    for timeout in [100, 300] {
        for answers_mld in [true, false] {
            fall_silent(timeout, false, answers_mld);
        }
    }
}

/// Many hosts fall silent, which answered MLD or did not, and one that does or does not stays.
fn fall_silent(timeout: u64, silent_mld: bool, answers_mld: bool) {
    storage::lend(|tables| {
        let context = format!("timeout {timeout} s, MLD {silent_mld} and {answers_mld}");
        let mut lan = network(tables, 1, |config| {
            config.address_timeout = Duration::from_secs(timeout);
            config.expiry_interval = Duration::from_secs(timeout / 10);
        });
        for number in 1..=SILENT {
            come(&mut lan, number, ADDRESSES, LAN, silent_mld);
        }
        let answers = come(&mut lan, 1_000, 10, LAN, answers_mld);
        lan.pass(Duration::from_secs(400), |_| Ok(())).unwrap();
        for host in 0..lan.hosts.len() {
            has_all(&lan, host).unwrap_or_else(|error| panic!("{context}, before: {error}"));
        }
        let mut remaining = BTreeMap::new();
        for host in (0..lan.hosts.len()).filter(|host| *host != answers) {
            for address in lan.hosts[host].addresses.clone() {
                let known = view::address(&lan.model.engine, address).unwrap();
                remaining.insert(address, (host, known.last_seen));
            }
            lan.leave(host);
        }
        // When a question was last sent by which the host of an address would have been reached.
        let mut asked = BTreeMap::new();
        let since = lan.model.now;
        // Twice the time that a question for each address takes, beside three timeouts.
        let most = Duration::from_secs(3 * timeout + 400);
        while !remaining.is_empty() {
            assert!(
                lan.model.now.since(since) < most,
                "{context}: {} addresses are still there",
                remaining.len()
            );
            lan.pass(Duration::from_secs(1), |lan| has_all(lan, answers))
                .unwrap_or_else(|error| panic!("{context}: {error}"));
            for sent in std::mem::take(&mut lan.sent) {
                asked.insert((sent.target, sent.destination.map(|mac| mac.0)), sent.at);
            }
            let engine = &lan.model.engine;
            let hosts = &lan.hosts;
            remaining.retain(|address, (host, last_seen)| {
                if view::address(engine, *address).is_some() {
                    return true;
                }
                let Host {
                    mac, link_local, ..
                } = &hosts[*host];
                let group = SolicitedNode::of(*address).group();
                let questions = [
                    (*address, None),
                    (*address, Some(mac.0)),
                    (group, None),
                    (*link_local, Some(mac.0)),
                ];
                let last = questions
                    .iter()
                    .filter_map(|question| asked.get(question))
                    .max();
                assert!(
                    last.is_some_and(|asked| *asked > *last_seen),
                    "{context}: {address} of host {host} expired unasked: seen {last_seen:?}, asked {last:?}"
                );
                false
            });
        }
    });
}

#[test]
fn a_newcomer_does_not_wait_for_what_the_kernel_remembers() {
    storage::lend(|tables| {
        let mut lan = network(tables, 2, |_| {});
        for number in 0..REMEMBERED {
            let [_, a, b, c] = number.to_be_bytes();
            let mac = MacAddress([6, 0, 0, a, b, c]);
            let interface = 0x0200_0000 | u128::from(number);
            for prefix in [0xfe80_0000_0000_0000, 0x2001_0db8_0001_0000] {
                let address = Ipv6Addr::from_bits(prefix << 64 | interface);
                let port = 0;
                lan.model.handle(Event::Remembered { port, mac, address });
                lan.collect();
            }
        }
        lan.pass(Duration::from_secs(2), |_| Ok(())).unwrap();
        lan.sent.clear();
        let since = lan.model.now;
        let newcomer = Host::new(1, &addresses(1, 1));
        let names = [newcomer.addresses[0], newcomer.link_local];
        lan.hosts.push(newcomer);
        lan.arrive(0, LAN, Arrival::Detecting);
        lan.pass(Duration::from_secs(60), |_| Ok(())).unwrap();
        let asked = lan
            .sent
            .iter()
            .find(|sent| sent.to_neighbor && names.contains(&sent.target) && sent.side == LAN.side);
        let waited = asked.map(|asked| asked.at.since(since));
        // It joins its groups within a second.
        assert!(
            waited.is_some_and(|waited| waited <= Duration::from_secs(2)),
            "asked after {waited:?}"
        );
        has_all(&lan, 0).unwrap();
    });
}

#[test]
fn a_newcomer_has_its_address_within_seconds_although_the_kernel_remembers_many() {
    storage::lend(|tables| {
        let mut lan = network(tables, 3, |_| {});
        for number in 0..REMEMBERED {
            let [_, a, b, c] = number.to_be_bytes();
            let mac = MacAddress([6, 0, 0, a, b, c]);
            let address = 0x2001_0db8_0001_0000 << 64 | 0x0200_0000 | u128::from(number);
            let address = Ipv6Addr::from_bits(address);
            let port = 0;
            lan.model.handle(Event::Remembered { port, mac, address });
            lan.collect();
        }
        // One speaks from its address alone, which a probe confirms, and one by MLD.
        let mut only_ndp = Host::new(1, &addresses(1, 1));
        only_ndp.answers_mld = false;
        lan.hosts.push(only_ndp);
        lan.arrive(0, LAN, Arrival::Announcing);
        come(&mut lan, 2, 3, LAN, true);
        lan.pass(Duration::from_secs(5), |_| Ok(())).unwrap();
        has_all(&lan, 0).unwrap();
        has_all(&lan, 1).unwrap();
    });
}

/// The caller did not run for a while: a suspended machine, a stopped process, a slow disk.
fn stall(lan: &mut Lan<'_>, time: Duration) {
    lan.model.now = lan.model.now.saturating_add(time);
    // The daemon sets its clock back as well. Nobody may need that.
    lan.model.time_out();
    lan.collect();
}

#[test]
fn a_stall_longer_than_the_timeout_takes_nothing_from_hosts_that_answer() {
    for seed in 0..10 {
        storage::lend(|tables| {
            let mut lan = network(tables, seed, |config| {
                config.address_timeout = Duration::from_secs(40);
                config.expiry_interval = Duration::from_secs(4);
            });
            for number in 1..=100 {
                let side = Side::Downstream(u8::from(number % 2 == 0));
                come(&mut lan, number, 3, Place { side, port: 0 }, true);
            }
            let phase = lan.random.delay(Duration::from_secs(60));
            lan.pass(Duration::from_secs(60).saturating_add(phase), |_| Ok(()))
                .unwrap();
            let answering = |lan: &Lan<'_>| {
                let hosts = (1..lan.hosts.len()).map(|host| has_all(lan, host));
                hosts.collect::<Result<(), _>>()
            };
            answering(&lan).unwrap();
            // One of them goes meanwhile.
            let gone = lan.hosts[0].addresses[0];
            lan.leave(0);
            stall(&mut lan, Duration::from_secs(50));
            answering(&lan).unwrap_or_else(|error| panic!("seed {seed}, as it ends: {error}"));
            for _ in 0..100 {
                lan.pass(Duration::from_secs(1), |_| Ok(())).unwrap();
                answering(&lan).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            }
            assert!(
                view::address(&lan.model.engine, gone).is_none(),
                "seed {seed}"
            );
        });
    }
}
