//! The hosts: what they have, what they say, and how they answer.

use std::net::Ipv6Addr;

use protocol::config::{Port, Side};
use protocol::wire::MacAddress;

use crate::facts::{Fact, group_of};
use crate::month::{Happening, Month};
use crate::world::Sent;

/// What a host does and does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Answers everything.
    Good,
    /// Never answers MLD.
    WithoutMld,
    /// Speaks from its link-local address alone, and answers.
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
    /// Since when whatever it is asked reaches it and is answered; none while it does not.
    pub reachable: Option<u64>,
    /// Counts its lives, each of which has its own chain of happenings.
    pub life: u32,
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
            reachable: None,
            life: 0,
        };
        self.rename(&mut host, number);
        host
    }

    /// Another link-layer address, and the link-local address that goes with it.
    fn rename(&mut self, host: &mut Host, number: u32) {
        let [a, b, c, d] = number.to_be_bytes();
        let life = self.random.u8(..);
        host.mac = MacAddress([2, life, a, b, c, d]);
        let identifier = u128::from(life) << 40 | u128::from(number) << 8 | 1;
        host.link_local = Ipv6Addr::from_bits(0xfe80 << 112 | identifier);
        self.by_mac.insert(host.mac, number as usize);
    }

    /// A new address in one of the prefixes. Some share their group with the host's link-local address, and some with strangers.
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

    fn reports_of(&self, host: &Host) -> Vec<(u32, bool)> {
        let mut groups: Vec<_> = host.addresses.iter().copied().map(group_of).collect();
        groups.push(group_of(host.link_local));
        groups.sort_unstable();
        groups.dedup();
        groups.into_iter().map(|group| (group, true)).collect()
    }

    /// The host says something. Where that is lost, so may be what it is asked.
    fn says(&mut self, host: usize, fact: &Fact) -> bool {
        let Host { port, mac, .. } = self.hosts[host];
        let heard = self.world.hear(port, mac, fact);
        if !heard {
            self.hosts[host].reachable = None;
        }
        heard
    }

    /// The host solicits another one, or the router, from one of its addresses.
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

    /// The host reports; none but those that speak MLD do.
    fn reports(&mut self, host: usize, groups: Vec<(u32, bool)>) {
        let Host {
            manner, link_local, ..
        } = self.hosts[host];
        if matches!(manner, Manner::Good | Manner::Shy) && !groups.is_empty() {
            let source = link_local;
            self.says(host, &Fact::Reports { source, groups });
        }
    }

    /// It is on this link now, and has spoken there: what it is asked there reaches it.
    fn is_reachable(&mut self, host: usize) {
        let known = &self.hosts[host];
        let router = self.router(known.port);
        let fact = Fact::Solicits {
            source: known.link_local,
            target: router,
        };
        let answers = self.hosts[host].manner != Manner::Mute;
        if self.says(host, &fact) && answers && self.hosts[host].state == State::Awake {
            let now = self.world.now;
            self.hosts[host].reachable.get_or_insert(now);
        }
    }

    pub fn router(&self, port: Port) -> Ipv6Addr {
        let downstream = self.world.downstreams[usize::from(port)];
        downstream.map_or(crate::month::ROUTER, |downstream| downstream.link_local)
    }

    fn takes_address(&mut self, host: usize, address: Ipv6Addr) {
        if self.hosts[host].addresses.contains(&address) {
            return;
        }
        if self.hosts[host].addresses.len() >= self.most_addresses {
            let oldest = self.hosts[host].addresses.remove(0);
            self.withdraws(host, oldest);
        }
        // RFC 4862 §5.4.2: it joins the group before it detects duplicates.
        let groups = vec![(group_of(address), true)];
        self.hosts[host].addresses.push(address);
        let reports_first = self.random.bool();
        if reports_first {
            self.reports(host, groups.clone());
        }
        if self.hosts[host].manner != Manner::Shy {
            let source = Ipv6Addr::UNSPECIFIED;
            let target = address;
            self.says(host, &Fact::Solicits { source, target });
        }
        if !reports_first {
            self.reports(host, groups);
        }
    }

    /// An address is given up; the host tells where that ends its interest in the group.
    fn withdraws(&mut self, host: usize, address: Ipv6Addr) {
        self.hosts[host].addresses.retain(|held| *held != address);
        let group = group_of(address);
        let remaining = self.reports_of(&self.hosts[host]);
        if !remaining.contains(&(group, true)) && self.random.u8(..4) > 0 {
            self.reports(host, vec![(group, false)]);
        }
    }

    pub fn arrives(&mut self, host: usize) {
        let another_mac = self.random.u8(..20) == 0;
        let keeps_addresses = self.random.u8(..4) == 0;
        let port = self.random.usize(..self.world.downstreams.len());
        let mut known = self.hosts[host].clone();
        if another_mac {
            self.rename(&mut known, host as u32);
        }
        known.port = port as Port;
        known.state = State::Awake;
        known.reachable = None;
        known.life += 1;
        let prefixes = &self.prefixes;
        let valid = |address: &Ipv6Addr| prefixes.contains(&((address.to_bits() >> 64) as u64));
        let kept: Vec<_> = known.addresses.drain(..).filter(valid).collect();
        self.hosts[host] = known;
        self.is_reachable(host);
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
            // It takes over what another one had, which left without a word.
            let other = self.random.usize(..self.hosts.len());
            if self.hosts[other].state == State::Away
                && let Some(address) = self.hosts[other].addresses.first().copied()
                && valid_now(&self.prefixes, address)
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

    /// What a host does of its own accord.
    pub fn chatters(&mut self, host: usize) {
        if self.hosts[host].state == State::Asleep {
            self.wakes(host);
            return;
        }
        let router = self.router(self.hosts[host].port);
        match self.random.u8(..100) {
            0..48 => self.solicits(host, router),
            48..54 => self.is_reachable(host),
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
                let known = &mut self.hosts[host];
                known.state = State::Asleep;
                known.reachable = None;
            }
            90..93 => {
                // As after a query of its own.
                let groups = self.reports_of(&self.hosts[host]);
                self.reports(host, groups);
            }
            93..95 => {
                // It restarts, or somebody says so in its name.
                let groups = self.reports_of(&self.hosts[host]).into_iter();
                self.reports(host, groups.map(|(group, _)| (group, false)).collect());
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
        let port = self.random.usize(..self.world.downstreams.len()) as Port;
        if port != self.hosts[host].port {
            self.hosts[host].port = port;
            self.hosts[host].reachable = None;
            if self.random.u8(..4) > 0 {
                self.is_reachable(host);
            }
        }
    }

    fn wakes(&mut self, host: usize) {
        self.hosts[host].state = State::Awake;
        if self.random.bool() {
            for address in self.hosts[host].addresses.clone() {
                let source = Ipv6Addr::UNSPECIFIED;
                let target = address;
                if self.hosts[host].manner != Manner::Shy {
                    self.says(host, &Fact::Solicits { source, target });
                }
            }
        }
        self.is_reachable(host);
        self.chatters_later(host);
    }

    pub fn leaves(&mut self, host: usize) {
        if self.random.u8(..3) == 0 {
            let groups = self.reports_of(&self.hosts[host]);
            let groups = groups.into_iter().map(|(group, _)| (group, false));
            self.reports(host, groups.collect());
        }
        let known = &mut self.hosts[host];
        known.state = State::Away;
        known.reachable = None;
        known.life += 1;
        if self.is_over {
            return;
        }
        let delay = self.some(self.absence);
        self.at(delay, Happening::Arrival { host });
    }

    /// All have new addresses some time after there is a new prefix.
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

    /// Questions reach hosts, which answer after a while.
    pub fn carry(&mut self, sent: Sent) {
        match sent {
            Sent::Ask { port, mac } => {
                if let Some(host) = self.host_on(port, mac)
                    && matches!(self.hosts[host].manner, Manner::Good | Manner::Shy)
                {
                    // RFC 3810 §6.2: at random within the response delay.
                    let delay = self.random.u64(..1000);
                    let life = self.hosts[host].life;
                    self.at(delay, Happening::Answer { host, life, port });
                }
            }
            Sent::Probe { port, mac, target } => {
                if let Some(host) = self.host_on(port, mac) {
                    self.is_probed(host, target);
                }
            }
            Sent::Solicit {
                side: Side::Downstream(port),
                target,
            } => {
                let has = |host: &Host| host.port == port && host.addresses.contains(&target);
                if let Some(host) = self.hosts.iter().position(has) {
                    self.is_probed(host, target);
                }
            }
            Sent::Solicit {
                side: Side::Upstream,
                target,
            } => self.solicited_upstream(target),
        }
    }

    fn is_probed(&mut self, host: usize, target: Ipv6Addr) {
        let known = &self.hosts[host];
        if known.state == State::Awake
            && known.manner != Manner::Mute
            && known.addresses.contains(&target)
        {
            let (life, delay) = (known.life, 1 + self.random.u64(..40));
            self.at(delay, Happening::ProbeAnswer { host, life, target });
        }
    }

    fn host_on(&self, port: Port, mac: MacAddress) -> Option<usize> {
        let host = *self.by_mac.get(&mac)?;
        let known = &self.hosts[host];
        let there = known.mac == mac && known.port == port && known.state == State::Awake;
        there.then_some(host)
    }

    pub fn answers(&mut self, host: usize, port: Port) {
        let known = &self.hosts[host];
        if known.state == State::Awake && known.port == port {
            let groups = self.reports_of(known);
            self.reports(host, groups);
        }
    }

    pub fn answers_probe(&mut self, host: usize, target: Ipv6Addr) {
        let known = &self.hosts[host];
        if known.state == State::Awake && known.addresses.contains(&target) {
            let to_router = true;
            self.says(host, &Fact::Advertises { target, to_router });
        }
    }

    /// Nobody who was there and answered all the time is lost.
    pub fn assert_none_lost(&mut self) {
        use crate::model::Key;
        for (key, subject) in std::mem::take(&mut self.world.model.expired) {
            let Some(host) = self.by_mac.get(&subject.host) else {
                continue;
            };
            let host = &self.hosts[*host];
            let has = match key {
                Key::Address(address) => host.addresses.contains(&address),
                Key::Listener(group, _) => self.reports_of(host).contains(&(group, true)),
            };
            // An address that was answered for is probed for the last time three quarters of its time after it was seen. One that
            // was not has a single round, and a host that left two rounds unanswered is asked by MLD no more.
            let rules = &self.world.model.rules;
            let is_address = matches!(key, Key::Address(_));
            let spare = is_address && subject.confirmed;
            let early = subject.seen + if spare { rules.timeout * 7 / 10 } else { 0 };
            let listens = matches!(host.manner, Manner::Good | Manner::Shy);
            let answers = if is_address {
                host.manner != Manner::Mute
            } else {
                listens && rules.asks
            };
            assert!(
                !(has
                    && answers
                    && host.mac == subject.host
                    && host.port == subject.port
                    && host.reachable.is_some_and(|since| since <= early)),
                "{key:?} of a host that answers was lost: {subject:?}, {host:?}"
            );
        }
    }
}

fn valid_now(prefixes: &[u64], address: Ipv6Addr) -> bool {
    prefixes.contains(&((address.to_bits() >> 64) as u64))
}
