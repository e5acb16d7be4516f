//! Checks of the engine, the kernel and the packets sent against the truth.

use std::collections::HashMap;
use std::net::Ipv6Addr;
use std::ops::RangeInclusive;

use model::view;
use protocol::config::Learn;
use protocol::counters::Counter;
use protocol::link::{Port, Side};
use protocol::ndp::neighbors::Identity;
use protocol::ndp::solicited::{LEAVE_DELAY, RETRY_INTERVAL};
use protocol::ndp::{kernel_entries, targets};
use protocol::time::Duration;

use crate::facts::{Fact, group_of, solicited_node};
use crate::truth::{Claim, Key, Known, Place};
use crate::world::World;

/// Within this time an address must belong to the only host that answers for it, where the engine
/// has no other questions to ask. That is a round of questions to the host that had it last, twice
/// since duplicate address detection starts it anew, and a round to the new host. For each neighbor
/// whose questions may come before, [`ALL_QUESTIONS`] are added.
const FIRST_QUESTIONS: u64 = 50_000;
const ALL_QUESTIONS: u64 = 8 * 50;
/// Within this time a host that detects duplicates of an address must hear of the other one (RFC
/// 4862 §5.4). It is also the least time between two solicitations of one target (`RETRANS_TIMER`
/// of RFC 4861 §10).
const DETECTION: u64 = 1_000;
/// The time that may pass between an end and the next check of it.
const SLACK: u64 = 10_000;

const fn millis(duration: Duration) -> u64 {
    duration.as_millis()
}

impl World {
    pub fn learns(&self, address: Ipv6Addr) -> bool {
        let bits = (address.to_bits() >> 64) as u64;
        let within = match &self.prefixes {
            None => bits >> 61 == 1,
            Some(prefixes) => prefixes.contains(&bits),
        };
        let learns = self.config().learn != Learn::Mld;
        learns && within && !self.model.kernel.is_own(address)
    }

    /// Is the group of a host joined once the host has answered MLD?
    pub fn learns_listeners(&self) -> bool {
        self.config().ask && self.config().learn != Learn::Ndp
    }

    pub fn timeout_millis(&self) -> u64 {
        millis(self.config().address_timeout)
    }

    /// The longest time from the last word of a host until the engine forgets what that spoke for.
    fn lifetime(&self) -> u64 {
        self.timeout_millis() + millis(self.config().expiry_interval)
    }

    /// Until when something on a port may be known that was seen at some time. Nobody expires
    /// unasked: not before all the questions were in vain.
    fn latest(&self, port: Port, seen: u64) -> u64 {
        let seen = seen + self.lifetime();
        if self.downstream(port).is_none() {
            return seen;
        }
        let asked = self.truth.doubted + millis(self.config().expiry_interval);
        seen.max(asked) + self.patience()
    }

    /// As above, of any port.
    fn latest_of_all(&self, seen: u64) -> u64 {
        let ports = 0..self.config().downstreams.len() as Port;
        let latest = ports.map(|port| self.latest(port, seen));
        latest.max().unwrap_or(u64::MAX)
    }

    /// The time that all the questions may take that come before.
    fn patience(&self) -> u64 {
        FIRST_QUESTIONS + ALL_QUESTIONS * self.model.engine.ndp().neighbors().len() as u64
    }

    /// Notes what a host is about to say.
    pub fn note(&mut self, place: Place, fact: &Fact) {
        let now = self.now();
        self.truth.hear(now, place);
        if let Some(address) = fact.address().filter(|address| self.learns(*address)) {
            self.truth.say(now, place, address);
        }
        match fact {
            Fact::Solicits { .. } => {}
            Fact::Advertises { target, to_router } => {
                if *to_router {
                    self.truth.answer(now, place, *target);
                }
            }
            Fact::Reports { groups, .. } => {
                for (group, listens) in groups {
                    self.truth.report(now, place, *group, *listens);
                }
            }
        }
    }

    /// The engine learns other addresses from now on, and not `own`, which is about to be the
    /// router's own. With an address the engine forgets its host's interest in the group.
    pub fn forget_unlearned(&mut self, own: Option<Ipv6Addr>) {
        let mut gone: Vec<_> = view::addresses(&self.model.engine).collect();
        gone.extend(self.truth.expected.keys().map(|(_, address)| *address));
        gone.retain(|address| {
            let learns = self.learns(*address) && own != Some(*address);
            !address.is_unicast_link_local() && !learns
        });
        for address in gone {
            let group = group_of(address);
            let truth = &mut self.truth;
            truth.known.remove(&Known::Address(address));
            truth.expected.retain(|(wanted, _), _| *wanted != group);
            truth.promised.retain(|(wanted, _), _| *wanted != group);
        }
    }

    /// The place where the engine knows an address, and whether the host has answered for it.
    pub fn place_of(&self, address: Ipv6Addr) -> Option<(Place, bool)> {
        let known = view::address(&self.model.engine, address)?;
        Some(((known.owner.port, known.owner.mac), known.is_confirmed))
    }

    /// Notes the place of an address, which may have changed.
    pub fn look_at(&mut self, address: Ipv6Addr) {
        if let Some((place, _)) = self.place_of(address) {
            self.truth.known.insert(Known::Address(address), place);
        }
    }

    pub fn knows_nothing_of(&self, place: Place) -> bool {
        let mut hosts = view::hosts(&self.model.engine);
        !hosts.any(|(host, neighbors, _)| (host.port, host.mac) == place && neighbors > 0)
    }

    fn is_there(&self, key: Key, claim: &Claim) -> bool {
        let (group, address) = key;
        let is_known = || {
            let seen = self.truth.evidence(Known::Address(address), claim.place);
            self.place_of(address) == Some((claim.place, true)) && seen >= Some(claim.since)
        };
        view::is_wanted(&self.model.engine, solicited_node(group))
            && (address.is_unicast_link_local() || is_known())
    }

    /// A host that answers since `claim.since` has this. It is promised as soon as the engine knows
    /// it.
    pub fn promise(&mut self, key: Key, claim: Claim) {
        if self.is_there(key, &claim) && !self.truth.promised.contains_key(&key) {
            let since = self.now();
            self.truth.promised.insert(key, Claim { since, ..claim });
        }
    }

    /// Whatever is expected must be known in time.
    pub fn check_expected(&mut self) {
        let (now, patience) = (self.now(), self.patience());
        for (key, claim) in self.truth.expected.clone() {
            if self.is_there(key, &claim) {
                self.truth.expected.remove(&key);
                self.promise(key, claim);
            } else {
                assert!(
                    now <= claim.since + patience,
                    "{key:x?} is not known where its host is, {:?}, at {now}: {claim:?}",
                    self.place_of(key.1)
                );
            }
        }
        for (place, since) in &self.truth.to_ask {
            let is_late = now > since + patience;
            assert!(!is_late, "{place:?} was not asked since {since}");
        }
        for (target, since) in &self.truth.to_warn {
            assert!(
                now <= since + DETECTION,
                "{target:?}: no host was told of the duplicate since {since}"
            );
        }
    }

    /// Whatever is promised in these groups must be known.
    pub fn check_promises(&mut self, groups: RangeInclusive<u32>) {
        let mut kept = 0;
        for (key, claim) in self.truth.promised_in(groups) {
            let claim = Claim { since: 0, ..*claim };
            assert!(
                self.is_there(*key, &claim),
                "{key:x?} of a host that answers was forgotten at {}: {claim:?}, {:?}",
                self.now(),
                self.place_of(key.1)
            );
            kept += 1;
        }
        self.truth.kept += kept;
    }

    /// The engine joins a group: somebody must have spoken of it, and not too long ago.
    pub fn check_evidence(&self, group: u32) {
        let mentioned = self.truth.mentioned.get(&group);
        let latest = |seen| self.latest_of_all(seen).saturating_add(millis(LEAVE_DELAY));
        assert!(
            mentioned.is_some_and(|at| self.now() <= latest(*at)),
            "{group:06x} is joined, and hosts spoke of it at {mentioned:?}"
        );
    }

    /// The engine leaves a group: no host that answers may listen to it.
    pub fn check_unpromised(&self, group: u32) {
        let promised = self.truth.promised_in(group..=group).next();
        assert_eq!(promised.map(|(key, _)| key), None, "{group:06x} was left");
    }

    /// The engine adds an entry or a route for an address, or announces it: the host that has it
    /// must have answered for it.
    pub fn check_answered(&self, address: Ipv6Addr) {
        let place = self.place_of(address).map(|(place, _)| place);
        self.check_answer(address, place);
    }

    /// The engine tells a host where an address is: the host that has it must have answered for it,
    /// on another link.
    pub fn check_elsewhere(&self, target: Ipv6Addr, port: Port) {
        let place = self.place_of(target).map(|(place, _)| place);
        self.check_answer(target, place.filter(|(on, _)| *on != port));
    }

    fn check_answer(&self, address: Ipv6Addr, place: Option<Place>) {
        let has_answered = place.is_some_and(|place| self.truth.has_answered(address, place));
        let upstream = self.truth.upstream.get(&address);
        let is_upstream = upstream.is_some_and(|at| self.now() <= at + self.lifetime() + SLACK);
        assert!(has_answered || is_upstream, "nobody answered for {address}");
    }

    /// The engine tells a host that its address is a duplicate: the other host must have answered
    /// just now.
    pub fn check_duplicate(&mut self, target: Ipv6Addr, port: Port) {
        let answered = self.truth.answered.get(&target);
        let (on, at) = answered.copied().unwrap_or_default();
        let now = self.now();
        assert!(
            on != Some(port) && now == at,
            "{target} is no duplicate on {port} at {now}: {on:?} {at}"
        );
        self.truth.to_warn.remove(&(target, port));
    }

    /// RFC 4861 §7.3.3: no neighbor is solicited twice within a RetransTimer.
    pub fn check_solicitation(&mut self, port: Port, target: Ipv6Addr) {
        let now = self.now();
        let last = self.truth.solicited.insert((port, target), now);
        assert!(
            last.is_none_or(|last| now >= last + DETECTION),
            "{target} is solicited twice within a second on {port}, at {now}"
        );
    }

    /// Checks all that the engine knows.
    pub fn check_all(&mut self) {
        self.check_promises(0..=u32::MAX);
        self.check_known();
        self.check_groups();
        if !self.is_listing {
            self.check_tables();
            self.model.check();
        }
        let neighbors = self.model.engine.ndp().neighbors().len();
        self.tally.most_neighbors = self.tally.most_neighbors.max(neighbors);
        for refused in [
            Counter::RefusedFull,
            Counter::RefusedHostQuota,
            Counter::RefusedRate,
            Counter::Evicted,
        ] {
            assert_eq!(self.model.count(refused), 0, "{refused:?}");
        }
    }

    /// A host must have spoken for whatever the engine knows, and not too long ago. If the engine
    /// forgot something, its host must have been silent for long enough.
    fn check_known(&mut self) {
        let (now, timeout) = (self.now(), self.timeout_millis());
        let patience = self.patience() + millis(self.config().expiry_interval);
        let mut known = HashMap::new();
        for neighbor in view::known(&self.model.engine) {
            let place = (neighbor.owner.port, neighbor.owner.mac);
            let group = group_of(neighbor.identity.group().group());
            let key = match neighbor.identity {
                Identity::Address(address) => Known::Address(address),
                Identity::Listener(..) => Known::Listener(group, place),
            };
            if let Known::Address(address) = key {
                assert!(self.learns(address), "{address} is not to be learned");
            }
            let evidence = self.truth.evidence(key, place);
            assert!(
                evidence.is_some_and(|seen| now <= self.latest(place.0, seen)),
                "{key:x?} of {place:?}, seen at {evidence:?}, is known at {now}"
            );
            // Nobody spoke for the group since its host reported that it left.
            if let Some(revoked) = self.truth.revoked.get(&(group, place))
                && self.truth.mentioned[&group] < *revoked
                && self.downstream(place.0).is_some()
            {
                let latest = self.truth.doubted.max(*revoked) + patience;
                assert!(
                    now <= latest,
                    "{key:x?} of {place:?}, revoked at {revoked}, is still known at {now}, {patience} {:?} {:?}",
                    self.model.engine.ndp().neighbors().get(neighbor.identity),
                    self.model
                        .engine
                        .ndp()
                        .neighbors()
                        .hosts()
                        .find(|(s, _)| s.mac == place.1 && s.port == place.0)
                );
            }
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
            if let Known::Address(address) = key {
                self.truth.advertised.remove(&(*address, place.1));
            }
            assert!(
                now >= evidence + timeout || revoked.is_some_and(|revoked| *revoked >= evidence),
                "{key:x?} of {place:?}, seen at {evidence}, is gone at {now}"
            );
        }
        self.truth.known = known;
        for (host, neighbors, _) in view::hosts(&self.model.engine) {
            let heard = self.truth.heard((host.port, host.mac));
            let is_lately = heard.is_some_and(|heard| now <= self.latest(host.port, heard));
            assert!(neighbors > 0 || is_lately, "{host:?} is still known");
        }
    }

    /// A group is joined for as long as somebody speaks of it, and not much longer. The groups of a
    /// host that answers are joined as fast as the rate allows.
    fn check_groups(&mut self) {
        let now = self.now();
        let groups = self.model.engine.ndp().groups();
        let rate = u64::from(self.config().join_rate);
        let longest_wait = 2_000 + 1_000 * groups.len() as u64 / rate;
        for (group, state) in groups.iter() {
            let group = group_of(group.group());
            let failed = self.failed.get(&group);
            let fails = failed.is_some_and(|failed| now < failed + millis(RETRY_INTERVAL));
            if self.upstream().is_none() || fails {
                continue;
            }
            let mentioned = self.truth.mentioned.get(&group).copied();
            let mentioned = mentioned.unwrap_or_default();
            assert!(
                now <= self
                    .latest_of_all(mentioned)
                    .saturating_add(millis(LEAVE_DELAY)),
                "{group:06x} stays, of {mentioned}, at {now}"
            );
            for (key, claim) in self.truth.promised_in(group..=group) {
                assert!(
                    state.is_joined() || now <= claim.since + longest_wait,
                    "{key:x?} is not joined: {claim:?}"
                );
            }
        }
        let joined = self.model.kernel.joined.len();
        let waiting = groups.waiting();
        self.tally.most_joined = self.tally.most_joined.max(joined);
        self.tally.most_waiting = self.tally.most_waiting.max(waiting);
    }

    /// Once nothing fails, the kernel's tables hold the addresses of all hosts that answer. They
    /// hold nothing upstream that is not there.
    fn check_tables(&mut self) {
        let (now, config) = (self.now(), self.config());
        let kernel = &self.model.kernel;
        for (address, _) in kernel
            .routes
            .iter()
            .filter(|(_, side)| **side == Side::Upstream)
        {
            let at = self.truth.upstream.get(address);
            let latest = self.timeout_millis() + SLACK;
            assert!(
                now < self.disturbed + SLACK || at.is_some_and(|at| now < at + latest),
                "a route upstream to {address}, which is not there"
            );
        }
        if self.upstream().is_none() || !kernel.is_trusted() {
            self.disturbed = now;
            return;
        }
        let bound = millis(kernel_entries::RETRY_INTERVAL) + millis(targets::ANSWER_INTERVAL);
        for ((_, address), claim) in &self.truth.promised {
            if address.is_unicast_link_local() || now <= claim.since.max(self.disturbed) + bound {
                continue;
            }
            let there = kernel.proxies.contains(address);
            assert_eq!(there, config.ndp_proxy, "proxy entry of {address} at {now}");
            let side = Side::Downstream(claim.place.0);
            let wanted = config.host_routes.then_some(side);
            let there = kernel.routes.get(address).copied();
            assert_eq!(there, wanted, "route to {address} at {now}");
        }
    }
}
