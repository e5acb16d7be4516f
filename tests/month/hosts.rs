//! The hosts: what they have, what they send, and how they answer.

use std::net::Ipv6Addr;

use protocol::link::Port;
use protocol::wire::MacAddress;

use crate::facts::{Fact, group_of};
use crate::month::{Happening, Month};
use crate::truth::{Claim, Key, Place};
use crate::world::Sent;

/// What a host does, and what it leaves undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Answers everything.
    Good,
    /// Never answers MLD.
    WithoutMld,
    /// Speaks from its link-local address alone, but answers everything.
    Shy,
    /// Never answers anything.
    Mute,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Away,
    Awake,
    Asleep,
}

#[derive(Clone, Debug)]
pub struct Host {
    pub mac: MacAddress,
    pub manner: Manner,
    pub state: State,
    pub port: Port,
    pub link_local: Ipv6Addr,
    pub addresses: Vec<Ipv6Addr>,
    /// The time since when the host answers every question on its link, or `None` while it does
    /// not.
    pub since: Option<u64>,
    /// Counts the host's lives. Happenings of an earlier life come to nothing.
    pub life: u32,
}

impl Host {
    pub fn place(&self) -> Place {
        (self.port, self.mac)
    }

    fn speaks_mld(&self) -> bool {
        matches!(self.manner, Manner::Good | Manner::Shy)
    }

    fn groups(&self) -> Vec<u32> {
        let addresses = self.addresses.iter().chain([&self.link_local]);
        let mut groups: Vec<_> = addresses.copied().map(group_of).collect();
        groups.sort_unstable();
        groups.dedup();
        groups
    }
}

impl Month {
    pub fn new_host(&mut self, number: u32) -> Host {
        let manner = match self.random.u8(..20) {
            0 | 1 => Manner::WithoutMld,
            2 => Manner::Shy,
            3 => Manner::Mute,
            _ => Manner::Good,
        };
        let mut host = Host {
            mac: MacAddress([0; 6]),
            manner,
            state: State::Away,
            port: 0,
            link_local: Ipv6Addr::UNSPECIFIED,
            addresses: Vec::new(),
            since: None,
            life: 0,
        };
        self.rename(&mut host, number);
        host
    }

    /// Gives a host another link-layer address, and the link-local address that goes with it.
    fn rename(&mut self, host: &mut Host, number: u32) {
        let [a, b, c, d] = number.to_be_bytes();
        let life = self.random.u8(..);
        host.mac = MacAddress([2, life, a, b, c, d]);
        let identifier = u128::from(life) << 40 | u128::from(number) << 8 | 1;
        host.link_local = Ipv6Addr::from_bits(0xfe80 << 112 | identifier);
        self.by_mac.insert(host.mac, number as usize);
    }

    /// A new address in the newest prefix. Some share their group with the host's link-local
    /// address, and some with strangers.
    fn new_address(&mut self, host: usize) -> Option<Ipv6Addr> {
        let prefix = *self.prefixes.last()?;
        let identifier = match self.random.u8(..20) {
            0..5 => self.hosts[host].link_local.to_bits() as u64 | 0x0200 << 48,
            5 => {
                0x0300 << 48
                    | u64::from(self.random.u32(..)) << 24
                    | u64::from(self.random.u8(..10))
            }
            _ => self.random.u64(..) >> 8,
        };
        Some(Ipv6Addr::from_bits(
            u128::from(prefix) << 64 | u128::from(identifier),
        ))
    }

    /// From now on the host answers, if it ever does.
    pub fn appears(&mut self, host: usize) {
        let known = &mut self.hosts[host];
        let is_up = self.world.downstream(known.port).is_some();
        let answers = known.state == State::Awake && known.manner != Manner::Mute && is_up;
        known.since = answers.then_some(self.world.now());
    }

    /// From now on the host does not answer.
    pub fn vanishes(&mut self, host: usize) {
        self.hosts[host].since = None;
        let known = &self.hosts[host];
        for address in &known.addresses {
            self.world.truth.forget((group_of(*address), *address));
        }
        for group in known.groups() {
            self.world.truth.forget((group, known.link_local));
        }
        self.world.truth.to_ask.remove(&known.place());
    }

    /// The host sends something. From then on the engine is expected to learn what that speaks for.
    fn says(&mut self, host: usize, fact: &Fact) {
        let known = &self.hosts[host];
        let place = known.place();
        if self.world.hear(place, fact)
            && let Some(since) = known.since
            && let Some(address) = fact.address()
            && known.addresses.contains(&address)
            && self.world.learns(address)
        {
            let key = (group_of(address), address);
            self.world.promise(key, Claim { place, since });
            if !self.world.truth.promised.contains_key(&key) {
                self.expects(key, place);
            }
        }
    }

    /// The host solicits another host, or the router, from one of its addresses.
    fn solicits(&mut self, host: usize, target: Ipv6Addr) {
        let known = &self.hosts[host];
        let from_link_local = known.addresses.is_empty() || known.manner == Manner::Shy;
        let source = if from_link_local || self.random.u8(..8) == 0 {
            known.link_local
        } else {
            known.addresses[self.random.usize(..known.addresses.len())]
        };
        self.says(host, &Fact::Solicits { source, target });
    }

    /// The host sends a report, if it speaks MLD.
    fn reports(&mut self, host: usize, groups: &[u32], listens: bool) {
        let known = &self.hosts[host];
        if known.speaks_mld() && !groups.is_empty() {
            let source = known.link_local;
            let groups = groups.iter().map(|group| (*group, listens)).collect();
            self.says(host, &Fact::Reports { source, groups });
        }
    }

    /// The host sends something on its link. If the engine knows nothing of it there, the engine is
    /// expected to ask it.
    fn shows_itself(&mut self, host: usize) {
        let known = &self.hosts[host];
        let place = known.place();
        let before = self
            .world
            .now()
            .saturating_sub(self.world.timeout_millis() / 2);
        let is_to_be_asked = known.since.is_some()
            && self.world.config().ask
            && !self.world.truth.is_asked_since(place, before)
            && self.world.knows_nothing_of(place);
        let source = known.link_local;
        let target = self.router(known.port);
        if is_to_be_asked {
            let now = self.world.now();
            self.world.truth.to_ask.entry(place).or_insert(now);
        }
        self.says(host, &Fact::Solicits { source, target });
    }

    pub fn router(&self, port: Port) -> Ipv6Addr {
        let downstream = self.world.downstream(port);
        downstream
            .and_then(|downstream| downstream.link_local)
            .unwrap_or(crate::month::ROUTER)
    }

    fn takes_address(&mut self, host: usize, address: Ipv6Addr) {
        if self.hosts[host].addresses.contains(&address) {
            return;
        }
        if self.hosts[host].addresses.len() >= self.most_addresses {
            let oldest = self.hosts[host].addresses.remove(0);
            self.withdraws(host, oldest);
        }
        // RFC 4862 §5.4.2: a host joins the group before it detects duplicates.
        let groups = [group_of(address)];
        self.hosts[host].addresses.push(address);
        let reports_first = self.random.bool();
        if reports_first {
            self.reports(host, &groups, true);
        }
        if self.hosts[host].manner != Manner::Shy {
            let source = Ipv6Addr::UNSPECIFIED;
            let target = address;
            self.says(host, &Fact::Solicits { source, target });
        }
        if !reports_first {
            self.reports(host, &groups, true);
        }
    }

    /// The host gives up an address. If that ends its interest in the group, it reports so.
    fn withdraws(&mut self, host: usize, address: Ipv6Addr) {
        self.hosts[host].addresses.retain(|held| *held != address);
        let group = group_of(address);
        self.world.truth.forget((group, address));
        if !self.hosts[host].groups().contains(&group) {
            self.world
                .truth
                .forget((group, self.hosts[host].link_local));
            if self.random.u8(..4) > 0 {
                self.reports(host, &[group], false);
            }
        }
    }

    pub fn arrives(&mut self, host: usize) {
        let another_mac = self.random.u8(..20) == 0;
        let keeps_addresses = self.random.u8(..4) == 0;
        let port = self.random.usize(..self.world.ports());
        let mut known = self.hosts[host].clone();
        if another_mac {
            self.rename(&mut known, host as u32);
        }
        known.port = port as Port;
        known.state = State::Awake;
        known.life += 1;
        let prefixes = &self.prefixes;
        let valid = |address: &Ipv6Addr| prefixes.contains(&((address.to_bits() >> 64) as u64));
        let kept: Vec<_> = known.addresses.drain(..).filter(valid).collect();
        self.hosts[host] = known;
        self.appears(host);
        self.shows_itself(host);
        if keeps_addresses {
            for address in kept {
                self.takes_address(host, address);
            }
        }
        for _ in 0..=self.random.usize(..self.most_addresses) / 2 {
            if let Some(address) = self.new_address(host) {
                self.takes_address(host, address);
            }
        }
        if self.random.u8(..30) == 0 {
            // The host takes over the address of another one, which left without a word.
            let other = self.random.usize(..self.hosts.len());
            if self.hosts[other].state == State::Away
                && let Some(address) = self.hosts[other].addresses.first().copied()
                && valid_now(&self.prefixes, address)
                // The other host forms this address anew when it comes back.
                && group_of(address) != group_of(self.hosts[other].link_local)
            {
                self.hosts[other].addresses.clear();
                self.takes_address(host, address);
            }
        }
        self.chatters_later(host);
    }

    fn chatters_later(&mut self, host: usize) {
        let delay = self.some(self.chatter);
        let life = self.hosts[host].life;
        self.at(delay, Happening::Chatter { host, life });
    }

    /// The host does something of its own accord.
    pub fn chatters(&mut self, host: usize) {
        if self.hosts[host].state == State::Asleep {
            self.wakes(host);
            return;
        }
        let router = self.router(self.hosts[host].port);
        match self.random.u8(..100) {
            0..48 => self.solicits(host, router),
            48..54 => self.shows_itself(host),
            54..60 => {
                let addresses = &self.hosts[host].addresses;
                if let Some(target) = addresses.last().copied() {
                    let to_router = self.random.u8(..4) == 0;
                    self.says(host, &Fact::Advertises { target, to_router });
                }
            }
            60..66 => self.looks_around(host),
            66..72 => {
                if let Some(address) = self.new_address(host) {
                    self.takes_address(host, address);
                }
            }
            72..76 => {
                if let Some(address) = self.hosts[host].addresses.first().copied() {
                    self.withdraws(host, address);
                }
            }
            76..80 => self.moves(host),
            80..90 => {
                self.hosts[host].state = State::Asleep;
                self.vanishes(host);
            }
            90..93 => {
                // The host reports all its groups, as after a query of a querier on its link.
                let groups = self.hosts[host].groups();
                self.reports(host, &groups, true);
            }
            93..95 => {
                // The host restarts, or somebody sends this in its name. If nothing else is known
                // of a group, two questions may be lost.
                let groups = self.hosts[host].groups();
                let link_local = self.hosts[host].link_local;
                for group in &groups {
                    self.world.truth.forget((*group, link_local));
                }
                self.reports(host, &groups, false);
            }
            _ => {
                self.leaves(host);
                return;
            }
        }
        self.chatters_later(host);
    }

    fn looks_around(&mut self, host: usize) {
        let target = if self.random.bool() {
            self.beside(self.random.clone().u8(..20))
        } else {
            let other = self.random.usize(..self.hosts.len());
            self.hosts[other].addresses.first().copied()
        };
        if let Some(target) = target {
            self.solicits(host, target);
        }
    }

    fn moves(&mut self, host: usize) {
        let port = self.random.usize(..self.world.ports()) as Port;
        if port != self.hosts[host].port {
            self.vanishes(host);
            self.hosts[host].port = port;
            self.appears(host);
            if self.random.bool() {
                // When its link comes up, a host joins its groups anew.
                let groups = self.hosts[host].groups();
                self.reports(host, &groups, true);
            }
            if self.random.u8(..4) > 0 {
                self.shows_itself(host);
            }
        }
    }

    fn wakes(&mut self, host: usize) {
        self.hosts[host].state = State::Awake;
        self.appears(host);
        if self.random.bool() {
            for address in self.hosts[host].addresses.clone() {
                let source = Ipv6Addr::UNSPECIFIED;
                let target = address;
                if self.hosts[host].manner != Manner::Shy {
                    self.says(host, &Fact::Solicits { source, target });
                }
            }
        }
        self.shows_itself(host);
        self.chatters_later(host);
    }

    pub fn leaves(&mut self, host: usize) {
        self.vanishes(host);
        if self.random.u8(..3) == 0 {
            let groups = self.hosts[host].groups();
            self.reports(host, &groups, false);
        }
        let known = &mut self.hosts[host];
        known.state = State::Away;
        known.life += 1;
        if self.is_over {
            return;
        }
        let delay = self.some(self.absence);
        self.at(delay, Happening::Arrival { host });
    }

    /// The host gets new addresses, as all hosts do some time after there is a new prefix.
    pub fn renumbers(&mut self, host: usize) {
        if self.hosts[host].state != State::Awake {
            return;
        }
        let prefixes = self.prefixes.clone();
        for address in self.hosts[host].addresses.clone() {
            if !valid_now(&prefixes, address) {
                self.withdraws(host, address);
            }
        }
        if let Some(address) = self.new_address(host) {
            self.takes_address(host, address);
        }
    }

    /// A host claims an address of another one, by mistake or to take it.
    pub fn strays(&mut self, host: usize, address: Ipv6Addr) {
        let known = &self.hosts[host];
        let (port, group) = (known.port, group_of(address));
        // The engine could not tell a host that listens to the same group from the one that has the
        // address.
        if known.state != State::Awake || known.groups().contains(&group) {
            return;
        }
        let target = address;
        match self.random.u8(..4) {
            0 => {
                let to_router = self.random.bool();
                self.says(host, &Fact::Advertises { target, to_router });
            }
            1 => {
                let target = self.router(port);
                self.says(
                    host,
                    &Fact::Solicits {
                        source: address,
                        target,
                    },
                );
            }
            _ => {
                let promised = self.world.truth.promised.get(&(group, address));
                let is_elsewhere = promised.is_some_and(|claim| claim.place.0 != port);
                if self.world.config().ndp_proxy
                    && is_elsewhere
                    && self.world.sickness.upstream == 0.0
                    && self.world.downstream(port).is_some()
                {
                    let now = self.world.now();
                    self.world.truth.to_warn.insert((target, port), now);
                }
                let source = Ipv6Addr::UNSPECIFIED;
                self.says(host, &Fact::Solicits { source, target });
            }
        }
    }

    /// A question reaches its host, which answers after a while.
    pub fn carry(&mut self, sent: Sent) {
        match sent {
            Sent::Ask { place } => {
                if let Some(host) = self.host_on(place)
                    && self.hosts[host].speaks_mld()
                {
                    // RFC 3810 §6.2: a host answers at a random time within the response delay.
                    let delay = self.random.u64(..1000);
                    let life = self.hosts[host].life;
                    let port = place.0;
                    self.at(delay, Happening::Answer { host, life, port });
                }
            }
            Sent::Probe { place, target } => {
                if let Some(host) = self.host_on(place) {
                    self.is_probed(host, target);
                }
            }
            // The solicitation goes to the group: every host on the link that has the target
            // answers.
            Sent::Resolve { port, target } => {
                let has = |host: &Host| host.port == port && host.addresses.contains(&target);
                if let Some(host) = self.hosts.iter().position(has) {
                    self.is_probed(host, target);
                }
            }
            Sent::Query { port, group } => {
                let listens = |host: &Host| {
                    host.port == port
                        && host.state == State::Awake
                        && host.groups().contains(&group_of(group))
                };
                if let Some(host) = self.hosts.iter().position(listens)
                    && self.hosts[host].speaks_mld()
                {
                    let delay = self.random.u64(..1000);
                    let life = self.hosts[host].life;
                    self.at(delay, Happening::Answer { host, life, port });
                }
            }
            Sent::StreamQuery { port, group } => self.viewers_hear(port, group),
            Sent::SolicitUpstream { target } => self.solicited_upstream(target),
        }
    }

    fn is_probed(&mut self, host: usize, target: Ipv6Addr) {
        let known = &self.hosts[host];
        if known.since.is_some() && known.addresses.contains(&target) {
            let (life, delay) = (known.life, 1 + self.random.u64(..40));
            self.at(delay, Happening::ProbeAnswer { host, life, target });
        }
    }

    fn host_on(&self, place: Place) -> Option<usize> {
        let host = *self.by_mac.get(&place.1)?;
        let known = &self.hosts[host];
        (known.place() == place && known.state == State::Awake).then_some(host)
    }

    /// The host answers for all its groups. From then on they must be joined.
    pub fn answers(&mut self, host: usize, port: Port) {
        let known = &self.hosts[host];
        let Some(since) = known.since.filter(|_| known.port == port) else {
            return;
        };
        let (place, link_local) = (known.place(), known.link_local);
        let groups = known.groups();
        self.reports(host, &groups, true);
        if self.world.learns_listeners() {
            let since = self.world.now();
            for group in groups {
                self.world
                    .promise((group, link_local), Claim { place, since });
                let key = (group, link_local);
                assert!(
                    self.world.truth.promised.contains_key(&key),
                    "{key:x?} is not wanted"
                );
            }
        }
        for address in self.hosts[host].addresses.clone() {
            let key = (group_of(address), address);
            self.world.promise(key, Claim { place, since });
        }
    }

    /// The host has this address here. The engine is expected to learn it soon, if it can ask the
    /// host that had it.
    fn expects(&mut self, key: Key, place: Place) {
        let since = self.world.now();
        if self.world.can_be_asked(key.1) {
            let expected = &mut self.world.truth.expected;
            expected.entry(key).or_insert(Claim { place, since });
        }
    }

    pub fn answers_probe(&mut self, host: usize, target: Ipv6Addr) {
        let known = &self.hosts[host];
        if known.since.is_some() && known.addresses.contains(&target) {
            let to_router = true;
            self.says(host, &Fact::Advertises { target, to_router });
        }
    }
}

fn valid_now(prefixes: &[u64], address: Ipv6Addr) -> bool {
    prefixes.contains(&((address.to_bits() >> 64) as u64))
}
