//! What must hold whatever the engine does inside, by what the hosts said and what is so.
//!
//! A host that said what it has, and answers what it is asked, is *expected* to be known within a
//! bounded time. From then on it is *promised*: what it has is never lost, moved or left.

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv6Addr;

use protocol::config::Learn;
use protocol::counters::Counter;
use protocol::link::Port;
use protocol::ndp::neighbors::Subject;
use protocol::wire::MacAddress;

use crate::facts::{Fact, group_of};
use crate::world::{LEAVE_DELAY, RETRY_INTERVAL, World};

/// Where a host is, and its link-layer address there.
pub type Place = (Port, MacAddress);
/// A group, and whose address makes it wanted. Of a host whose address is not known that is its
/// link-local address.
pub type Key = (u32, Ipv6Addr);

/// Within which the only host that answers for an address has it, where there is no other question:
/// a round of questions to the last one that had it, twice since duplicate address detection starts
/// it anew, and one to itself. Every question that may come before takes its time too.
const FIRST_QUESTIONS: u64 = 50_000;
const ALL_QUESTIONS: u64 = 8 * 50;
/// Within which who detects duplicates of an address is told of it (RFC 4862 §5.4).
const DETECTION: u64 = 1_000;

#[derive(Clone, Copy, Debug)]
pub struct Claim {
    pub place: Place,
    pub since: u64,
}

/// What the engine knows, by the host that has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Known {
    Address(Ipv6Addr),
    Listener(u32, Place),
}

#[derive(Default)]
pub struct Truth {
    /// When a host last spoke for an address, and of a group to which it listens.
    said: HashMap<(Ipv6Addr, Place), u64>,
    reported: HashMap<(u32, Place), u64>,
    /// When a host last said that it no longer listens to a group.
    revoked: HashMap<(u32, Place), u64>,
    /// When anybody last spoke for anything in a group.
    pub mentioned: HashMap<u32, u64>,
    pub expected: BTreeMap<Key, Claim>,
    pub promised: BTreeMap<Key, Claim>,
    /// Hosts of which nothing is known and which spoke: each is to be asked.
    pub to_ask: BTreeMap<Place, u64>,
    /// Who is to be told of a duplicate.
    pub to_warn: BTreeMap<(Ipv6Addr, Port), u64>,
    /// When each address answered last, and where; `None` is upstream.
    pub answered: HashMap<Ipv6Addr, (Option<Port>, u64)>,
    /// When something last made the questions to many hosts start anew.
    pub doubted: u64,
    /// What was known at the last look, and where.
    known: HashMap<Known, Place>,
    pub kept: u64,
}

impl Truth {
    /// What a host has there is its no more, or it no longer answers.
    pub fn forget(&mut self, key: Key) {
        self.expected.remove(&key);
        self.promised.remove(&key);
        self.to_warn.retain(|(target, _), _| *target != key.1);
    }

    /// Something was said that speaks for an address.
    pub fn say(&mut self, now: u64, place: Place, address: Ipv6Addr) {
        let group = group_of(address);
        self.said.insert((address, place), now);
        self.mentioned.insert(group, now);
        // The address takes its place.
        self.known.remove(&Known::Listener(group, place));
        // Who of several has it is not clear before the one that has says so.
        let key = (group, address);
        self.expected
            .retain(|known, claim| *known != key || claim.place == place);
    }

    fn report(&mut self, now: u64, place: Place, group: u32, listens: bool) {
        if listens {
            self.reported.insert((group, place), now);
            self.mentioned.insert(group, now);
        } else {
            self.revoked.insert((group, place), now);
        }
    }

    /// When a host last spoke for what it is known by.
    fn evidence(&self, known: Known, place: Place) -> Option<u64> {
        let (group, said) = match known {
            Known::Address(address) => {
                let said = self.said.get(&(address, place)).copied();
                (group_of(address), Some(said?))
            }
            Known::Listener(group, _) => (group, None),
        };
        said.max(self.reported.get(&(group, place)).copied())
    }
}

impl World {
    pub fn learns(&self, address: Ipv6Addr) -> bool {
        let bits = (address.to_bits() >> 64) as u64;
        let within = match &self.prefixes {
            None => bits >> 61 == 1,
            Some(prefixes) => prefixes.contains(&bits),
        };
        let learns = self.engine.config().learn != Learn::Mld;
        learns && within && !self.own.contains(&address)
    }

    /// Does the group of a host that answers MLD become wanted by that?
    pub fn learns_listeners(&self) -> bool {
        let config = self.engine.config();
        config.ask && config.learn != Learn::Ndp
    }

    pub fn timeout_millis(&self) -> u64 {
        self.engine.config().address_timeout.as_millis()
    }

    fn expiry_interval(&self) -> u64 {
        self.engine.config().expiry_interval.as_millis()
    }

    /// Notes what is about to be said.
    pub fn note(&mut self, place: Place, fact: &Fact) {
        if let Some(address) = fact.address().filter(|address| self.learns(*address)) {
            self.truth.say(self.now, place, address);
        }
        if let Fact::Advertises {
            target,
            to_router: true,
        } = fact
        {
            self.truth
                .answered
                .insert(*target, (Some(place.0), self.now));
        }
        if let Fact::Reports { groups, .. } = fact {
            for (group, listens) in groups {
                self.truth.report(self.now, place, *group, *listens);
            }
        }
    }

    /// What is learned is another now, and with an address its host's interest in the group is
    /// forgotten.
    pub fn forget_unlearned(&mut self) {
        let neighbors = self.engine.ndp().neighbors().iter();
        let addresses = neighbors.filter_map(|(subject, _)| match subject {
            Subject::Address(address) => Some(address),
            Subject::Listener(..) => None,
        });
        let mut gone: Vec<_> = addresses.collect();
        gone.extend(self.truth.expected.keys().map(|(_, address)| *address));
        gone.retain(|address| !address.is_unicast_link_local() && !self.learns(*address));
        for address in gone {
            let group = group_of(address);
            self.truth.known.remove(&Known::Address(address));
            self.truth
                .expected
                .retain(|(wanted, _), _| *wanted != group);
            self.truth
                .promised
                .retain(|(wanted, _), _| *wanted != group);
        }
    }

    /// Where an address is known to be, and since when it was last seen there.
    pub fn place_of(&self, address: Ipv6Addr) -> Option<(Place, bool, u64)> {
        let neighbors = self.engine.ndp().neighbors();
        let neighbor = neighbors.get(Subject::Address(address))?;
        let (sender, _) = neighbors.host_of(neighbor)?;
        let place = (sender.port, sender.mac);
        Some((
            place,
            neighbor.is_confirmed(),
            neighbor.last_seen.as_millis(),
        ))
    }

    /// An address may have come to another place.
    pub fn look_at(&mut self, address: Ipv6Addr) {
        if let Some((place, ..)) = self.place_of(address) {
            self.truth.known.insert(Known::Address(address), place);
        }
    }

    pub fn knows(&self, address: Ipv6Addr) -> bool {
        self.place_of(address).is_some()
    }

    /// The downstream where the kernel's tables are to have an address.
    pub fn port_of(&self, address: Ipv6Addr) -> Option<Port> {
        let ((port, _), confirmed, _) = self.place_of(address)?;
        confirmed.then_some(port)
    }

    /// Can who was known to have it be asked?
    pub fn is_last_place_up(&self, (_, address): Key) -> bool {
        let known = self.place_of(address);
        known.is_none_or(|((port, _), ..)| self.downstreams[usize::from(port)].is_some())
    }

    /// Is there an address of a host that the group is wanted for?
    pub fn has_address_in(&self, group: u32, place: Place) -> bool {
        let mut subjects = self.engine.ndp().neighbors().iter();
        subjects.any(|(subject, _)| {
            matches!(subject, Subject::Address(address) if group_of(address) == group
                && self.place_of(address).is_some_and(|(on, ..)| on == place))
        })
    }

    pub fn knows_nothing_of(&self, place: Place) -> bool {
        let mut hosts = self.engine.ndp().neighbors().hosts();
        !hosts.any(|(sender, host)| (sender.port, sender.mac) == place && host.subjects > 0)
    }

    fn is_there(&self, key: Key, claim: &Claim) -> bool {
        let (group, address) = key;
        let group = self
            .engine
            .ndp()
            .groups()
            .get(crate::facts::solicited_node(group));
        let is_wanted = group.is_some_and(|group| group.members > 0);
        let is_known = || {
            let known = self.place_of(address);
            known.is_some_and(|(place, confirmed, seen)| {
                place == claim.place && confirmed && seen >= claim.since
            })
        };
        is_wanted && (address.is_unicast_link_local() || is_known())
    }

    /// Time for all the questions that may have to be asked before.
    pub fn patience(&self) -> u64 {
        FIRST_QUESTIONS + ALL_QUESTIONS * self.engine.ndp().neighbors().len() as u64
    }

    /// A host that answers since then has this: it is promised as soon as it is known.
    pub fn promise(&mut self, key: Key, claim: Claim) {
        if self.is_there(key, &claim) && !self.truth.promised.contains_key(&key) {
            let since = self.now;
            self.truth.promised.insert(key, Claim { since, ..claim });
        }
    }

    /// What is expected is there in time.
    pub fn check_expected(&mut self) {
        let (now, patience) = (self.now, self.patience());
        for (key, claim) in self.truth.expected.clone() {
            if self.is_there(key, &claim) {
                self.truth.expected.remove(&key);
                self.promise(key, claim);
            } else {
                assert!(
                    now <= claim.since + patience,
                    "{key:x?} is not known at its place, {:?}, at {now}: {claim:?}",
                    self.place_of(key.1)
                );
            }
        }
        for (place, since) in &self.truth.to_ask {
            assert!(
                now <= since + patience,
                "{place:?} is not asked since {since}"
            );
        }
        for (target, since) in &self.truth.to_warn {
            assert!(
                now <= since + DETECTION,
                "{target:?}: no word of a duplicate since {since}"
            );
        }
    }

    /// What is promised in a group is there.
    pub fn check_promises(&mut self, groups: std::ops::RangeInclusive<u32>) {
        let first = (*groups.start(), Ipv6Addr::UNSPECIFIED);
        let last = (*groups.end(), Ipv6Addr::from_bits(u128::MAX));
        for (key, claim) in self.truth.promised.range(first..=last) {
            let claim = Claim { since: 0, ..*claim };
            assert!(
                self.is_there(*key, &claim),
                "{key:x?} of a host that answers is lost at {}: {claim:?}, {:?}",
                self.now,
                self.place_of(key.1)
            );
            self.truth.kept += 1;
        }
    }

    /// Looks at all that is known.
    pub fn check_all(&mut self) {
        self.check_promises(0..=u32::MAX);
        self.check_known();
        self.check_groups();
        let neighbors = self.engine.ndp().neighbors();
        let confirmed = neighbors
            .iter()
            .filter(|(_, neighbor)| neighbor.is_confirmed());
        let addresses = confirmed.filter_map(|(subject, _)| match subject {
            Subject::Address(address) => Some(address),
            Subject::Listener(..) => None,
        });
        self.tables.look_at_all(addresses);
        self.check_tables();
        let subjects = self.engine.ndp().neighbors().len();
        self.tables.check_all(
            self.now,
            self.engine.ndp().kernel_entries().iter().count(),
            subjects,
        );
        self.tally.most_subjects = self.tally.most_subjects.max(subjects);
        for refused in [
            Counter::RefusedFull,
            Counter::RefusedHostQuota,
            Counter::RefusedRate,
            Counter::Evicted,
        ] {
            assert_eq!(self.engine.counters().get(refused), 0, "{refused:?}");
        }
    }

    /// Whatever is known was said by its host, and not too long ago; what was known and is not was
    /// not said for long enough.
    fn check_known(&mut self) {
        let (now, timeout, expiry) = (self.now, self.timeout_millis(), self.expiry_interval());
        let neighbors = self.engine.ndp().neighbors();
        let mut known = HashMap::new();
        let mut members = HashMap::new();
        for (subject, neighbor) in neighbors.iter() {
            let (sender, _) = neighbors.host_of(neighbor).unwrap();
            let place = (sender.port, sender.mac);
            let group = group_of(subject.group().group());
            let key = match subject {
                Subject::Address(address) => Known::Address(address),
                Subject::Listener(..) => Known::Listener(group, place),
            };
            if let Known::Address(address) = key {
                assert!(self.learns(address), "{address} is not to be learned");
            }
            let evidence = self.truth.evidence(key, place);
            let seen = neighbor.last_seen.as_millis();
            assert_eq!(Some(seen), evidence, "{key:x?} of {place:?} at {now}");
            assert!(
                now <= seen + timeout + expiry,
                "{key:x?} of {place:?} stays at {now}"
            );
            // Nobody spoke for it since its host said that it is gone.
            if let Some(revoked) = self.truth.revoked.get(&(group, place))
                && self.truth.mentioned[&group] < *revoked
                && self.downstreams[usize::from(place.0)].is_some()
            {
                let latest = self.truth.doubted.max(*revoked) + self.patience() + expiry;
                assert!(
                    now <= latest,
                    "{key:x?} of {place:?}, revoked at {revoked}, stays"
                );
            }
            *members.entry(group).or_insert(0) += 1;
            known.insert(key, place);
        }
        for (key, place) in &self.truth.known {
            if known.contains_key(key) {
                continue;
            }
            let group = match key {
                Known::Address(address) => group_of(*address),
                Known::Listener(group, _) => *group,
            };
            let evidence = self.truth.evidence(*key, *place).unwrap_or_default();
            let revoked = self.truth.revoked.get(&(group, *place));
            assert!(
                now >= evidence + timeout || revoked.is_some_and(|revoked| *revoked >= evidence),
                "{key:x?} of {place:?}, seen at {evidence}, is gone at {now}"
            );
        }
        self.truth.known = known;
        for (group, state) in self.engine.ndp().groups().iter() {
            let members = members.remove(&group_of(group.group())).unwrap_or(0);
            assert_eq!(state.members, members, "{group}");
        }
        assert!(members.is_empty(), "without a group: {members:x?}");
        let latest = timeout + expiry;
        for (sender, host) in neighbors.hosts() {
            let heard = host.last_heard.as_millis();
            assert!(
                host.subjects > 0 || now <= heard + latest,
                "{sender:?} stays"
            );
        }
    }

    /// What is wanted is joined, and nothing else.
    fn check_groups(&mut self) {
        let now = self.now;
        let config = self.engine.config();
        let longest = self.timeout_millis() + self.expiry_interval() + LEAVE_DELAY;
        let groups = self.engine.ndp().groups();
        let longest_wait = 2_000 + 1_000 * groups.len() as u64 / u64::from(config.join_rate);
        let mut waiting = 0;
        for (group, state) in groups.iter() {
            let group = group_of(group.group());
            let membership = self.groups.get(&group).copied().unwrap_or_default();
            assert_eq!(state.is_joined(), membership.joined, "{group:06x} at {now}");
            let failed = membership.failed;
            let fails = failed.is_some_and(|failed| now < failed + RETRY_INTERVAL);
            if self.upstream.is_none() || fails {
                continue;
            }
            if state.members == 0 {
                let idle = membership.idle.unwrap_or(now);
                assert!(
                    now < idle + LEAVE_DELAY,
                    "{group:06x} is not left, since {idle}"
                );
            }
            let mentioned = self
                .truth
                .mentioned
                .get(&group)
                .copied()
                .unwrap_or_default();
            assert!(
                now <= mentioned + longest,
                "{group:06x} stays, of {mentioned}, at {now}"
            );
            if !state.is_joined() {
                waiting += 1;
                let since =
                    (group, Ipv6Addr::UNSPECIFIED)..=(group, Ipv6Addr::from_bits(u128::MAX));
                for (key, claim) in self.truth.promised.range(since) {
                    assert!(
                        now <= claim.since + longest_wait,
                        "{key:x?} is not joined: {claim:?}"
                    );
                }
            }
        }
        if self.upstream.is_some() {
            assert!(waiting <= groups.waiting(), "{waiting} not joined at {now}");
        }
        let joined = self.groups.values().filter(|group| group.joined).count();
        assert_eq!(
            joined,
            groups.iter().filter(|(_, group)| group.is_joined()).count()
        );
        self.tally.most_joined = self.tally.most_joined.max(joined);
        self.tally.most_waiting = self.tally.most_waiting.max(groups.waiting());
    }
}
