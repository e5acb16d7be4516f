//! Whose word counts: an address stays with the owner that answers where it is, whatever anybody
//! else sends, and whoever has it next has it soon.
//!
//! Each test runs a number of seeds, and names those that failed. `CLAIMS_SEED=7` runs one again.
//!
//! A host is a link-layer address on a link. So what is sent in the owner's name *on its own link*
//! cannot be told from what the owner sends: it may have the engine ask elsewhere or more often. But
//! it takes nothing from the owner, since the last question goes by multicast, which reaches it.

use std::net::Ipv6Addr;

use model::lan::{Answers, Arrival, Attacker, Host, Lan, Owner, Place, Random, Sent};
use model::{Diligence, Model, storage, view};
use protocol::config::Config;
use protocol::engine::Tables;
use protocol::link::Side;
use protocol::ndp::kernel_entries::KernelTable;
use protocol::ndp::neighbors::Sender;
use protocol::ndp::targets;
use protocol::time::{Duration, Instant};
use protocol::wire::{MacAddress, SolicitedNode};

/// The seeds of each test.
const SEEDS: u64 = 100;
/// Whoever claims an address first, or has it next, has it within this time.
const SOON: Duration = Duration::from_secs(15);
/// The questions to neighbors in a second, whatever link they go to.
const QUESTIONS: usize = 20;
/// The addresses of attackers, which are no host's.
const ATTACKERS: u8 = 0xbd;

/// Runs all seeds, and names those that failed.
fn try_seeds(name: &str, run: impl Fn(&mut Tables, u64) -> Result<(), String>) {
    let only = std::env::var("CLAIMS_SEED").ok();
    let seeds = match only.and_then(|seed| seed.parse().ok()) {
        Some(seed) => seed..seed + 1,
        None => 0..SEEDS,
    };
    let count = seeds.end - seeds.start;
    let failures: Vec<_> = seeds
        .filter_map(|seed| {
            let failure = storage::lend(|tables| run(tables, seed)).err()?;
            Some(format!("seed {seed}: {failure}"))
        })
        .collect();
    let shown = failures.iter().take(6).cloned().collect::<Vec<_>>();
    assert!(
        failures.is_empty(),
        "{name}: {} of {count} seeds failed\n{}",
        failures.len(),
        shown.join("\n")
    );
}

/// How the owner of an address is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// It speaks, and answers everything.
    Talkative,
    /// It speaks once. From then on it only answers.
    Quiet,
    /// It answers no MLD query.
    WithoutMld,
    /// It speaks MLD alone, and answers everything.
    MldAlone,
    /// It is upstream, and a host downstream looks for it now and then.
    Upstream,
}

const DOWNSTREAM: [Kind; 3] = [Kind::Talkative, Kind::Quiet, Kind::WithoutMld];

/// The address of the owner.
const ADDRESS: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0x100, 1);
/// The owner is the first host.
const OWNER: usize = 0;
/// Where the owner is, downstream.
const HOME: Place = at(0, 1);

const fn at(link: u8, port: usize) -> Place {
    Place {
        side: Side::Downstream(link),
        port,
    }
}

/// Somewhere upstream. The gateway is at port 0.
const fn upstream(port: usize) -> Place {
    Place {
        side: Side::Upstream,
        port,
    }
}

/// A network with three downstreams, an owner who has not arrived yet, and some neighbors of it.
fn network(tables: &mut Tables, seed: u64, kind: Kind) -> Lan<'_> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut config = Config::new("wan".parse().unwrap());
    for name in ["br-lan", "guest", "iot"] {
        config.downstreams.push(name.parse().unwrap()).unwrap();
    }
    (config.ndp_proxy, config.host_routes) = (true, true);
    let timeouts: &[u64] = match kind {
        // A target is asked anew only once it was not seen for 30 s.
        Kind::Upstream => &[100, 300],
        Kind::Talkative | Kind::Quiet | Kind::WithoutMld | Kind::MldAlone => &[20, 40, 100, 300],
    };
    let timeout = timeouts[rng.usize(..timeouts.len())];
    config.address_timeout = Duration::from_secs(timeout);
    config.expiry_interval = Duration::from_secs(timeout / 10);
    let now = Instant::from_secs(1_000);
    let key = [seed as u8 | 1; 16];
    let model = Model::new(tables, config, key, now, Diligence::Entries(8));
    let random = Random::new(move |end| rng.u64(..end));
    let mut lan = Lan::new(model, random);
    let mut owner = Host::new(1, &[ADDRESS]);
    owner.answers_mld = kind != Kind::WithoutMld;
    owner.speaks = (kind == Kind::Talkative).then(|| Duration::from_secs(10));
    lan.hosts.push(owner);
    for (number, link) in [(2, 0), (3, 1), (4, 2)] {
        let address = Ipv6Addr::from_bits(ADDRESS.to_bits() + 0x100 + u128::from(number));
        let mut host = Host::new(number, &[address]);
        host.speaks = Some(Duration::from_secs(8));
        host.seeks = (link == 2 && kind == Kind::Upstream).then_some(ADDRESS);
        lan.hosts.push(host);
        lan.arrive(lan.hosts.len() - 1, at(link, 0), Arrival::Detecting);
    }
    lan
}

/// The owner arrives, and has its address within some seconds.
fn settle(lan: &mut Lan<'_>, kind: Kind) -> Result<(), String> {
    let (place, arrival) = match kind {
        Kind::Talkative | Kind::Quiet | Kind::WithoutMld => (HOME, Arrival::Detecting),
        Kind::MldAlone => (HOME, Arrival::Reporting),
        Kind::Upstream => (upstream(1), Arrival::Silent),
    };
    settle_at(lan, kind, place, arrival)
}

fn settle_at(lan: &mut Lan<'_>, kind: Kind, place: Place, arrival: Arrival) -> Result<(), String> {
    lan.arrive(OWNER, place, arrival);
    lan.pass(SOON, nothing)?;
    has_it(lan, kind).map_err(|error| format!("as it arrives: {error}"))
}

/// A network whose owner has its address.
fn settled(tables: &mut Tables, seed: u64, kind: Kind) -> Result<Lan<'_>, String> {
    let mut lan = network(tables, seed, kind);
    settle(&mut lan, kind)?;
    Ok(lan)
}

fn nothing(_: &Lan<'_>) -> Result<(), String> {
    Ok(())
}

/// An attacker at a place, of whatever kind the random numbers make it.
fn attack<'l>(lan: &'l mut Lan<'_>, place: Place) -> &'l mut Attacker {
    let host = &lan.hosts[OWNER];
    let owner = Owner {
        mac: host.mac,
        link_local: host.link_local,
        address: ADDRESS,
    };
    let mac = |number| MacAddress([2, 0, 0, 2, ATTACKERS, number]);
    let random = &mut lan.random;
    let first = lan
        .model
        .now
        .saturating_add(random.delay(Duration::from_secs(3)));
    let number = lan.attackers.len() as u8;
    let mut attacker = Attacker::new(place, owner, mac(4 * number), first);
    for more in 0..random.below(3) as u8 {
        attacker.macs.push(mac(4 * number + 1 + more));
    }
    (attacker.most_at_once, attacker.longest_pause) = random.pick(&[
        (1, Duration::from_secs(2)),
        (10, Duration::from_secs(1)),
        (50, Duration::from_secs(5)),
        (400, Duration::from_secs(30)),
        (3_000, Duration::from_secs(100)),
        (1, Duration::from_secs(25)),
    ]);
    lan.attackers.push(attacker);
    lan.attackers.last_mut().unwrap()
}

/// Lets the attackers attack for some timeouts, while the owner keeps what it has.
fn hold_out(lan: &mut Lan<'_>, kind: Kind) -> Result<(), String> {
    let timeout = lan.model.engine.config().address_timeout;
    let since = lan.model.now;
    let long = timeout.saturating_mul(3).min(Duration::from_secs(330));
    lan.pass(long, |lan| {
        let millis = lan.model.now.since(since).as_millis();
        has_it(lan, kind)
            .map_err(|error| format!("timeout {timeout:?}, after {millis} ms: {error}"))
    })
}

/// Has the owner its address, group, entry and route, where it is?
fn has_it(lan: &Lan<'_>, kind: Kind) -> Result<(), String> {
    let Model { engine, kernel, .. } = &lan.model;
    let host = &lan.hosts[OWNER];
    let side = host.place.expect("the owner is there").side;
    let group = SolicitedNode::of(ADDRESS).group();
    let route = kernel.has(KernelTable::Routes, ADDRESS);
    let is_proxied = kernel.has(KernelTable::Proxies, ADDRESS).is_some();
    let known = view::address(engine, ADDRESS);
    let Side::Downstream(port) = side else {
        // Seen from upstream it is there by itself.
        return match (route, is_proxied, view::is_upstream(engine, ADDRESS)) {
            (Some(Side::Upstream), false, true) => Ok(()),
            state => Err(format!("route, proxied, upstream: {state:?}, {known:?}")),
        };
    };
    if !kernel.joined.contains(&group) {
        return Err(format!("{group} is not joined, {known:?}"));
    }
    let mac = host.mac;
    let is_its_own = known.is_some_and(|known| known.owner == Sender { port, mac });
    if kind == Kind::MldAlone && !is_its_own {
        // Nobody looked for its address yet. Nobody else has it, though.
        return match (route, is_proxied) {
            (None, false) => Ok(()),
            state => Err(format!(
                "another one has route, entry: {state:?}, {known:?}"
            )),
        };
    }
    let is_confirmed = known.is_some_and(|known| known.is_confirmed);
    let is_detecting = engine.ndp().targets().detecting(ADDRESS).is_some();
    match (is_its_own, is_confirmed, is_proxied, route == Some(side)) {
        (true, true, true, true) => Ok(()),
        // The engine knows its group by MLD, and may not have heard of its address otherwise.
        (true, false, false, _) if kind == Kind::MldAlone && route.is_none() => Ok(()),
        // Somebody on its link detects duplicates in its name, for a second.
        (true, _, false, false) if kind == Kind::MldAlone && is_detecting => Ok(()),
        state => Err(format!(
            "own, confirmed, proxied, routed: {state:?}, {known:?}, {route:?}"
        )),
    }
}

/// An attacker of any kind, who does not answer in the owner's name on the owner's link.
fn any_attacker(lan: &mut Lan<'_>, place: Place) {
    let names = [
        Answers::Nothing,
        Answers::InItsOwnName,
        Answers::InTheOwnersName,
    ];
    let is_neighbor = lan.hosts[OWNER]
        .place
        .is_some_and(|at| at.side == place.side);
    let answers = lan
        .random
        .pick(if is_neighbor { &names[..2] } else { &names });
    let (poses, floods) = (lan.random.once_in(2), lan.random.once_in(4));
    let attacker = attack(lan, place);
    (attacker.answers, attacker.poses, attacker.floods) = (answers, poses, floods);
}

#[test]
fn an_attacker_on_another_link_takes_nothing_from_an_owner_that_answers() {
    try_seeds("another link", |tables, seed| {
        let kind = DOWNSTREAM[seed as usize % 3];
        let mut lan = settled(tables, seed, kind)?;
        any_attacker(&mut lan, at(1, 1));
        if seed % 2 == 0 {
            any_attacker(&mut lan, at(2, 1));
        }
        hold_out(&mut lan, kind)
    });
}

#[test]
fn an_attacker_upstream_takes_nothing_from_an_owner_downstream_that_answers() {
    try_seeds("upstream", |tables, seed| {
        let kind = DOWNSTREAM[seed as usize % 3];
        let mut lan = settled(tables, seed, kind)?;
        any_attacker(&mut lan, upstream(1));
        if seed % 2 == 0 {
            any_attacker(&mut lan, at(1, 1));
        }
        hold_out(&mut lan, kind)
    });
}

/// It may send in the owner's name, and so draw the owner's unicast frames to itself.
#[test]
fn an_attacker_on_another_port_of_its_bridge_takes_nothing_from_an_owner_that_answers() {
    try_seeds("the same bridge", |tables, seed| {
        let kind = DOWNSTREAM[seed as usize % 3];
        let mut lan = settled(tables, seed, kind)?;
        any_attacker(&mut lan, at(0, 2));
        if seed % 2 == 0 {
            any_attacker(&mut lan, at(1, 1));
        }
        hold_out(&mut lan, kind)
    });
}

/// Nobody can tell such an attacker from the owner. What the owner has it keeps all the same.
#[test]
fn who_answers_in_the_owners_name_on_its_link_takes_nothing_from_it() {
    try_seeds("in its name", |tables, seed| {
        let kind = DOWNSTREAM[seed as usize % 3];
        let mut lan = settled(tables, seed, kind)?;
        any_attacker(&mut lan, at(0, 2));
        lan.attackers[0].poses = true;
        lan.attackers[0].answers = Answers::InTheOwnersName;
        hold_out(&mut lan, kind)
    });
}

#[test]
fn a_host_known_by_mld_alone_keeps_its_group_and_nobody_else_gets_its_address() {
    try_seeds("MLD alone", |tables, seed| {
        let mut lan = settled(tables, seed, Kind::MldAlone)?;
        let places = [at(1, 1), at(0, 2), upstream(1)];
        any_attacker(&mut lan, places[seed as usize % 3]);
        if seed % 2 == 0 {
            any_attacker(&mut lan, at(2, 1));
        }
        hold_out(&mut lan, Kind::MldAlone)
    });
}

#[test]
fn an_attacker_downstream_takes_nothing_from_an_owner_upstream_that_answers() {
    try_seeds("an owner upstream", |tables, seed| {
        let mut lan = settled(tables, seed, Kind::Upstream)?;
        any_attacker(&mut lan, at(1, 1));
        if seed % 2 == 0 {
            any_attacker(&mut lan, at(0, 1));
        }
        hold_out(&mut lan, Kind::Upstream)
    });
}

/// Who answers while a host detects duplicates keeps it from its address, as on any link. So the
/// owner detects duplicates only where the attacker does not answer.
#[test]
fn whoever_claims_an_address_first_has_it_although_another_one_claims_it_before_it_answers() {
    try_seeds("first come", |tables, seed| {
        let kind = DOWNSTREAM[seed as usize % 3];
        let mut lan = network(tables, seed, kind);
        lan.pass(SOON, nothing)?;
        let places = [at(1, 1), at(0, 2), upstream(1)];
        // The owner is there already, so that the attacker knows whose neighbor it is.
        lan.hosts[OWNER].place = Some(HOME);
        any_attacker(&mut lan, places[seed as usize / 3 % 3]);
        let soon = lan.random.delay(Duration::from_millis(1_500));
        let attacker = &mut lan.attackers[0];
        // Who makes up hosts without end may make new hosts wait.
        attacker.floods = false;
        attacker.advertises = attacker.place.side != Side::Upstream;
        attacker.next = lan.model.now.saturating_add(soon);
        let arrival = match attacker.answers {
            Answers::Nothing => Arrival::Detecting,
            Answers::InItsOwnName | Answers::InTheOwnersName => Arrival::Announcing,
        };
        settle_at(&mut lan, kind, HOME, arrival)?;
        hold_out(&mut lan, kind)
    });
}

/// The bridge sends unicast frames to the port where the host was.
#[test]
fn a_host_that_roams_between_the_ports_of_a_bridge_keeps_its_address() {
    try_seeds("roaming", |tables, seed| {
        let kind = [
            Kind::Talkative,
            Kind::Quiet,
            Kind::WithoutMld,
            Kind::MldAlone,
        ];
        let kind = kind[seed as usize % 4];
        let mut lan = settled(tables, seed, kind)?;
        if seed % 2 == 0 {
            any_attacker(&mut lan, at(1, 1));
        }
        for port in [3, 4, 1] {
            lan.arrive(OWNER, at(0, port), Arrival::Silent);
            let timeout = lan.model.engine.config().address_timeout;
            lan.pass(timeout, |lan| has_it(lan, kind))?;
        }
        Ok(())
    });
}

/// An attacker who claims the address at every place but the owner's next one, and does not answer.
fn claim_elsewhere(lan: &mut Lan<'_>, next: Place) {
    for place in [at(0, 2), at(1, 1), at(2, 1), upstream(1)] {
        if place.side != next.side && lan.random.once_in(2) {
            let poses = lan.random.once_in(2);
            let attacker = attack(lan, place);
            attacker.poses = poses;
            // An advertisement upstream would answer a host that detects duplicates.
            attacker.advertises = place.side != Side::Upstream;
        }
    }
}

/// The owner has its address at its next place within [`SOON`], and from then on.
fn take_over(lan: &mut Lan<'_>, next: Place, arrival: Arrival) -> Result<(), String> {
    let kind = Kind::Talkative;
    lan.arrive(OWNER, next, arrival);
    lan.pass(SOON, nothing)?;
    if lan.hosts[OWNER].is_duplicate {
        return Err("it was told that its address is another one's".to_owned());
    }
    has_it(lan, kind).map_err(|error| format!("at {next:?}, {arrival:?}: {error}"))?;
    hold_out(lan, kind)
}

/// Lets the attackers claim the owner's address for a while, then runs what comes next.
fn succeed(
    name: &str,
    next: impl Fn(u64) -> Place,
    run: impl Fn(&mut Lan<'_>, u64) -> Result<(), String>,
) {
    try_seeds(name, |tables, seed| {
        let kind = DOWNSTREAM[seed as usize % 3];
        let mut lan = settled(tables, seed, kind)?;
        claim_elsewhere(&mut lan, next(seed));
        let while_it_answers = lan.random.delay(Duration::from_secs(20));
        lan.pass(while_it_answers, nothing)?;
        run(&mut lan, seed)
    });
}

#[test]
fn a_host_that_moves_to_another_link_has_its_address_there_soon() {
    let arrivals = [Arrival::Detecting, Arrival::Announcing];
    succeed(
        "moved",
        |_| at(1, 2),
        |lan, seed| {
            lan.leave(OWNER);
            let away = lan.random.delay(Duration::from_secs(5));
            lan.pass(away, nothing)?;
            take_over(lan, at(1, 2), arrivals[seed as usize / 3 % 2])
        },
    );
}

#[test]
fn a_host_with_another_mac_that_takes_over_has_the_address_soon() {
    let arrivals = [Arrival::Detecting, Arrival::Announcing];
    let next = |seed| if seed % 2 == 0 { at(0, 3) } else { at(1, 2) };
    succeed("failed over", next, |lan, seed| {
        lan.leave(OWNER);
        let heir = Host::new(9, &[ADDRESS]);
        lan.hosts[OWNER] = heir;
        take_over(lan, next(seed), arrivals[seed as usize / 6 % 2])
    });
}

#[test]
fn a_host_whose_network_card_was_replaced_has_its_address_soon() {
    succeed(
        "replaced",
        |_| HOME,
        |lan, _| {
            lan.leave(OWNER);
            let away = lan.random.delay(Duration::from_secs(60));
            lan.pass(away, nothing)?;
            let mut replaced = Host::new(8, &[ADDRESS]);
            replaced.speaks = Some(Duration::from_secs(10));
            lan.hosts[OWNER] = replaced;
            take_over(lan, HOME, Arrival::Detecting)
        },
    );
}

#[test]
fn a_host_that_moves_from_upstream_to_a_downstream_has_its_address_there_soon() {
    try_seeds("moved down", |tables, seed| {
        let mut lan = settled(tables, seed, Kind::Upstream)?;
        claim_elsewhere(&mut lan, at(1, 2));
        lan.pass(SOON, nothing)?;
        lan.leave(OWNER);
        take_over(&mut lan, at(1, 2), Arrival::Detecting)
    });
}

/// The bridge may have forgotten where the host is, or may have been made to.
#[test]
fn the_last_question_before_an_address_or_a_group_is_given_up_goes_to_a_group() {
    let kinds = [Kind::Quiet, Kind::WithoutMld, Kind::MldAlone];
    try_seeds("the last question", |tables, seed| {
        let kind = kinds[seed as usize % 3];
        let mut lan = settled(tables, seed, kind)?;
        let group = SolicitedNode::of(ADDRESS);
        let owner = lan.hosts[OWNER].clone();
        lan.leave(OWNER);
        lan.sent.clear();
        let is_known = |lan: &Lan<'_>| {
            view::known(&lan.model.engine).any(|known| known.identity.group() == group)
        };
        for _ in 0..2_000 {
            lan.pass(Duration::from_secs(1), nothing)?;
            if !is_known(&lan) {
                break;
            }
        }
        if is_known(&lan) {
            return Err("it is not given up".to_owned());
        }
        let names = [ADDRESS, group.group(), owner.link_local];
        let is_of_owner = |sent: &&Sent| names.contains(&sent.target);
        match lan.sent.iter().rfind(is_of_owner) {
            Some(last) if last.destination.is_none() => Ok(()),
            last => Err(format!("{kind:?}: {last:?}")),
        }
    });
}

/// Whatever an attacker does, the router asks for an address by multicast at most once a second on
/// a link, and asks no more than its limits allow.
#[test]
fn a_contest_costs_a_solicitation_a_second_and_an_attack_no_more_than_the_limits() {
    try_seeds("the cost", |tables, seed| {
        let mut lan = settled(tables, seed, DOWNSTREAM[seed as usize % 3])?;
        for place in [at(0, 2), at(1, 1), at(2, 1), upstream(1)] {
            any_attacker(&mut lan, place);
        }
        let timeout = lan.model.engine.config().address_timeout;
        lan.pass(timeout.min(Duration::from_secs(100)), nothing)?;
        let sent = std::mem::take(&mut lan.sent);
        for side in [Side::Upstream, at(0, 0).side, at(1, 0).side, at(2, 0).side] {
            let of_link: Vec<_> = sent.iter().filter(|sent| sent.side == side).collect();
            check_contests(&of_link)?;
            let targets = |sent: &&&Sent| !sent.to_neighbor;
            let times = of_link.iter().filter(targets).map(|sent| sent.at);
            let (rate, burst) = (targets::RATE as usize, targets::BURST as usize);
            check_rate(times.collect(), rate, burst)?;
        }
        let to_neighbors = sent.iter().filter(|sent| sent.to_neighbor);
        check_rate(to_neighbors.map(|sent| sent.at).collect(), QUESTIONS, 1)
    });
}

/// The owner's address is solicited by multicast at most once a second.
fn check_contests(sent: &[&Sent]) -> Result<(), String> {
    let by_multicast = sent
        .iter()
        .filter(|sent| sent.destination.is_none() && sent.target == ADDRESS);
    let times: Vec<_> = by_multicast.map(|sent| sent.at).collect();
    for pair in times.windows(2) {
        let pause = pair[1].since(pair[0]);
        if pause < Duration::from_secs(1) {
            return Err(format!("asked again after {pause:?}"));
        }
    }
    Ok(())
}

/// At any time no more were sent than a bucket of so many a second and so many at once allows.
fn check_rate(times: Vec<Instant>, rate: usize, burst: usize) -> Result<(), String> {
    // What the bucket lacks, in thousandths.
    let (mut lacks, mut last) = (0_usize, Instant::ZERO);
    for now in times {
        let millis = usize::try_from(now.since(last).as_millis()).unwrap();
        lacks = lacks.saturating_sub(millis.saturating_mul(rate)) + 1000;
        last = now;
        if lacks > burst * 1000 {
            return Err(format!("more than {rate} a second and {burst} at once"));
        }
    }
    Ok(())
}
