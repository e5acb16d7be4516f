//! What must be known, by plain maps and the record of what was heard, asked and when. It never looks at the engine.
//!
//! One thing cannot be told from outside to the millisecond: when a round of questions counts as unanswered, since that is noticed at
//! the next question. Where that matters (to a subject that its host revoked) it is not known whether the subject is still there.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv6Addr;

use protocol::wire::MacAddress;

use crate::facts::{Fact, group_of};

/// How long a report after a question is its answer.
const ANSWER_WINDOW: u64 = 5_000;
/// From a question to a host to one because of a doubt.
const DOUBT_INTERVAL: u64 = 10_000;
const ASK_INTERVAL: u64 = 2_000;
const PROBE_INTERVAL: u64 = 1_000;
const PROBES: u8 = 3;
/// How much later than due anything about a question may be noticed.
const SLACK: u64 = 150;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    Address(Ipv6Addr),
    Listener(u32, MacAddress),
}

impl Key {
    pub fn group(self) -> u32 {
        match self {
            Key::Address(address) => group_of(address),
            Key::Listener(group, _) => group,
        }
    }
}

/// Was a whole round of questions not answered?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Vain {
    No,
    Perhaps,
    Yes,
}

#[derive(Clone, Copy, Debug)]
pub struct Subject {
    pub host: MacAddress,
    pub port: u8,
    pub seen: u64,
    pub confirmed: bool,
    /// It may be gone already.
    pub perhaps_gone: bool,
    revoked: bool,
    vain: Vain,
    /// Probes since the questions started, and the last one.
    probes: u8,
    probed: u64,
    /// A listener's: since when questions count, how many there were, and the last one.
    doubted: Option<u64>,
    asks: u8,
    last_ask: u64,
}

#[derive(Clone, Debug)]
pub struct Host {
    pub port: u8,
    pub link_local: Option<Ipv6Addr>,
    heard: u64,
    unanswered: u8,
    asked: Option<u64>,
    asked_port: u8,
    keys: BTreeSet<Key>,
}

/// What the options say.
#[derive(Clone, Debug)]
pub struct Rules {
    pub timeout: u64,
    pub expiry_interval: u64,
    pub learns_addresses: bool,
    pub learns_listeners: bool,
    /// Hosts are asked by MLD.
    pub asks: bool,
    /// The first 64 bits of what is learned; all where none are given.
    pub prefixes: Option<Vec<u64>>,
}

pub struct Model {
    pub rules: Rules,
    pub up: Vec<bool>,
    pub own: BTreeSet<Ipv6Addr>,
    pub hosts: BTreeMap<MacAddress, Host>,
    pub subjects: HashMap<Key, Subject>,
    next_check: Option<u64>,
    /// Changes since they were last taken: of a group how many more want it, and how many more perhaps do.
    pub groups: Vec<(u32, i32, i32)>,
    /// Addresses of which something changed.
    pub touched: Vec<Ipv6Addr>,
    /// How often an address came to be confirmed.
    pub confirmations: u64,
    /// What timed out at the last check.
    pub expired: Vec<(Key, Subject)>,
    /// Third probes whose silence was perhaps not noticed yet.
    silences: Vec<(Ipv6Addr, u64)>,
}

/// Where the kernel's tables should have an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Nowhere,
    At(u8),
    Unknown,
}

impl Model {
    pub fn new(rules: Rules, ports: usize) -> Self {
        Model {
            rules,
            up: vec![false; ports],
            own: BTreeSet::new(),
            hosts: BTreeMap::new(),
            subjects: HashMap::new(),
            next_check: None,
            groups: Vec::new(),
            touched: Vec::new(),
            confirmations: 0,
            expired: Vec::new(),
            silences: Vec::new(),
        }
    }

    pub fn learns(&self, address: Ipv6Addr) -> bool {
        let bits = (address.to_bits() >> 64) as u64;
        let within = match &self.rules.prefixes {
            None => bits >> 61 == 1,
            Some(prefixes) => prefixes.contains(&bits),
        };
        self.rules.learns_addresses && within && !self.own.contains(&address)
    }

    pub fn place(&self, address: Ipv6Addr) -> Place {
        match self.subjects.get(&Key::Address(address)) {
            Some(subject) if subject.perhaps_gone => Place::Unknown,
            Some(subject) if subject.confirmed => Place::At(subject.port),
            Some(_) | None => Place::Nowhere,
        }
    }

    /// Would it depend on what cannot be told from outside what this fact does?
    pub fn is_unclear(&self, now: u64, mac: MacAddress, fact: &Fact) -> bool {
        let unclear = |key: Key, by_another: bool| {
            self.subjects.get(&key).is_some_and(|subject| {
                let claims = by_another && subject.host != mac && subject.confirmed;
                subject.perhaps_gone || claims && self.vain(now, key, subject) == Vain::Perhaps
            })
        };
        let address = |address: Ipv6Addr| {
            unclear(Key::Address(address), true)
                || unclear(Key::Listener(group_of(address), mac), false)
        };
        match fact {
            Fact::Solicits { source, target } if source.is_unspecified() => address(*target),
            Fact::Solicits { source, .. } => address(*source),
            Fact::Advertises { target, .. } => address(*target),
            Fact::Reports { groups, .. } => groups.iter().any(|(group, listens)| {
                let keys = self.keys_in(mac, *group);
                keys.into_iter().any(|key| {
                    let subject = &self.subjects[&key];
                    let silent = matches!(key, Key::Address(_))
                        && !listens
                        && self.vain(now, key, subject) == Vain::Perhaps;
                    subject.perhaps_gone || silent
                })
            }),
        }
    }

    /// Could a doubt at this moment come before or after the end of a round?
    pub fn is_doubt_unclear(&mut self, now: u64) -> bool {
        self.silences
            .retain(|(_, at)| now <= at + PROBE_INTERVAL + SLACK);
        self.silences
            .iter()
            .any(|(_, at)| now >= at + PROBE_INTERVAL)
    }

    pub fn hear(&mut self, now: u64, port: u8, mac: MacAddress, fact: &Fact) {
        match fact {
            Fact::Solicits { source, target } => {
                let address = if source.is_unspecified() {
                    *target
                } else {
                    *source
                };
                let link_local = source.is_unicast_link_local().then_some(*source);
                self.address_seen(now, port, mac, link_local, address, false);
            }
            Fact::Advertises { target, to_router } => {
                if *to_router {
                    self.advertised(*target, mac);
                }
                let link_local = target.is_unicast_link_local().then_some(*target);
                self.address_seen(now, port, mac, link_local, *target, false);
            }
            Fact::Reports { source, groups } => self.reported(now, port, mac, *source, groups),
        }
    }

    pub fn remembered(&mut self, now: u64, port: u8, mac: MacAddress, address: Ipv6Addr) {
        let link_local = address.is_unicast_link_local().then_some(address);
        self.address_seen(now, port, mac, link_local, address, true);
    }

    fn address_seen(
        &mut self,
        now: u64,
        port: u8,
        mac: MacAddress,
        link_local: Option<Ipv6Addr>,
        address: Ipv6Addr,
        remembered: bool,
    ) {
        let learned = self.learns(address);
        if !learned && link_local.is_none() {
            return;
        }
        self.heard(now, port, mac, link_local, remembered);
        if learned {
            self.sighted(now, Key::Address(address), mac, remembered, false);
        }
    }

    fn heard(
        &mut self,
        now: u64,
        port: u8,
        mac: MacAddress,
        link_local: Option<Ipv6Addr>,
        remembered: bool,
    ) {
        let host = self.hosts.entry(mac).or_insert(Host {
            port,
            link_local: None,
            heard: now,
            unanswered: 0,
            asked: None,
            asked_port: 0,
            keys: BTreeSet::new(),
        });
        if !remembered {
            host.port = port;
        }
        host.heard = now;
        if link_local.is_some() && (host.link_local.is_none() || host.unanswered > 0) {
            host.link_local = link_local;
        }
        self.expect_check(now);
    }

    /// When those that were not heard for long are looked for.
    pub fn next_check(&self) -> Option<u64> {
        self.next_check
    }

    fn expect_check(&mut self, now: u64) {
        self.next_check
            .get_or_insert(now + self.rules.expiry_interval);
    }

    fn sighted(&mut self, now: u64, key: Key, mac: MacAddress, remembered: bool, answers: bool) {
        let port = self.hosts[&mac].port;
        if let Some(known) = self.subjects.get(&key).copied() {
            if remembered || !self.is_handed_over(now, key, &known, mac) {
                return;
            }
            self.subjects.get_mut(&key).unwrap().port = port;
            self.renew(now, key);
            return;
        }
        let subject = Subject {
            host: mac,
            port,
            seen: now,
            confirmed: answers,
            perhaps_gone: false,
            revoked: false,
            vain: Vain::No,
            probes: 0,
            probed: 0,
            doubted: None,
            asks: 0,
            last_ask: 0,
        };
        self.subjects.insert(key, subject);
        self.hosts.get_mut(&mac).unwrap().keys.insert(key);
        self.groups.push((key.group(), 1, 0));
        self.touch(key);
        self.expect_check(now);
        if let Key::Address(_) = key {
            let listener = Key::Listener(key.group(), mac);
            if let Some(listener) = self.remove(listener)
                && listener.confirmed
            {
                self.confirm(key);
                self.renew(now, key);
            }
        }
    }

    /// One that answered keeps its address until it no longer does.
    fn is_handed_over(&mut self, now: u64, key: Key, known: &Subject, mac: MacAddress) -> bool {
        if known.host == mac {
            return true;
        }
        if known.confirmed && self.vain(now, key, known) != Vain::Yes {
            return false;
        }
        self.hosts.get_mut(&known.host).unwrap().keys.remove(&key);
        self.hosts.get_mut(&mac).unwrap().keys.insert(key);
        let subject = self.subjects.get_mut(&key).unwrap();
        subject.host = mac;
        subject.confirmed = false;
        subject.probes = 0;
        true
    }

    fn renew(&mut self, now: u64, key: Key) {
        self.touch(key);
        let subject = self.subjects.get_mut(&key).unwrap();
        subject.seen = now;
        subject.revoked = false;
        subject.vain = Vain::No;
        subject.doubted = None;
        subject.asks = 0;
        if subject.confirmed || subject.probes == PROBES {
            subject.probes = 0;
        }
    }

    fn advertised(&mut self, target: Ipv6Addr, mac: MacAddress) {
        let key = Key::Address(target);
        if let Some(subject) = self.subjects.get(&key)
            && subject.host == mac
            && subject.probes > 0
        {
            self.confirm(key);
        }
    }

    fn confirm(&mut self, key: Key) {
        let subject = self.subjects.get_mut(&key).unwrap();
        let is_new = !std::mem::replace(&mut subject.confirmed, true);
        self.confirmations += u64::from(is_new && matches!(key, Key::Address(_)));
        self.touch(key);
    }

    fn reported(
        &mut self,
        now: u64,
        port: u8,
        mac: MacAddress,
        source: Ipv6Addr,
        groups: &[(u32, bool)],
    ) {
        self.heard(now, port, mac, Some(source), false);
        let host = self.hosts.get_mut(&mac).unwrap();
        let from_there = host.link_local == Some(source);
        if from_there {
            host.unanswered = 0;
        }
        let lately = host.asked.is_some_and(|asked| now - asked < ANSWER_WINDOW);
        let answers = lately && from_there && host.asked_port == host.port;
        for (group, listens) in groups {
            let keys = self.keys_in(mac, *group);
            for key in &keys {
                if *listens {
                    self.subjects.get_mut(key).unwrap().port = port;
                    if answers {
                        self.confirm(*key);
                    }
                    self.renew(now, *key);
                } else if !self.subjects[key].revoked {
                    self.doubt(now, *key);
                    self.subjects.get_mut(key).unwrap().revoked = true;
                }
            }
            if *listens && keys.is_empty() && self.rules.learns_listeners {
                self.sighted(now, Key::Listener(*group, mac), mac, false, answers);
            }
        }
    }

    fn keys_in(&self, mac: MacAddress, group: u32) -> Vec<Key> {
        let keys = self.hosts.get(&mac).map(|host| host.keys.iter());
        let keys = keys.into_iter().flatten();
        keys.filter(|key| key.group() == group).copied().collect()
    }

    /// Questions start anew.
    fn doubt(&mut self, now: u64, key: Key) {
        let subject = self.subjects[&key];
        let vain = self.vain(now, key, &subject);
        let asked = self.hosts[&subject.host].asked;
        let subject = self.subjects.get_mut(&key).unwrap();
        subject.vain = vain;
        subject.probes = 0;
        subject.doubted = Some(asked.map_or(now, |asked| now.max(asked + DOUBT_INTERVAL)));
        subject.asks = 0;
    }

    fn vain(&self, now: u64, key: Key, subject: &Subject) -> Vain {
        if subject.vain == Vain::Yes {
            return Vain::Yes;
        }
        let is_up = self.up[usize::from(self.hosts[&subject.host].port)];
        match key {
            Key::Address(_) if subject.probes < PROBES => subject.vain,
            Key::Address(_) => match now.checked_sub(subject.probed + PROBE_INTERVAL) {
                None => subject.vain,
                Some(SLACK..) if is_up && subject.vain == Vain::No => Vain::Yes,
                Some(_) => Vain::Perhaps,
            },
            Key::Listener(..) => {
                let silence = subject.last_ask + ASK_INTERVAL + SLACK;
                if subject.revoked && subject.asks >= 2 && now >= silence && is_up {
                    Vain::Yes
                } else if subject.doubted.is_some() || now - subject.seen >= self.rules.timeout / 4
                {
                    Vain::Perhaps
                } else {
                    Vain::No
                }
            }
        }
    }

    /// A host was asked which groups it listens to.
    pub fn asked(&mut self, now: u64, mac: MacAddress) {
        let Some(host) = self.hosts.get_mut(&mac) else {
            panic!("a host that is not known is asked: {mac}");
        };
        host.asked = Some(now);
        host.asked_port = host.port;
        host.unanswered = host.unanswered.saturating_add(1);
        for key in &host.keys {
            let subject = self.subjects.get_mut(key).unwrap();
            if subject.doubted.is_some_and(|since| since <= now) {
                subject.asks += 1;
                subject.last_ask = now;
            }
        }
    }

    pub fn probed(&mut self, now: u64, address: Ipv6Addr) {
        let Some(subject) = self.subjects.get_mut(&Key::Address(address)) else {
            panic!("an address that is not known is probed: {address}");
        };
        if subject.perhaps_gone {
            return;
        }
        // A second round starts only after the first was in vain.
        if subject.probes == PROBES {
            subject.vain = Vain::Yes;
            subject.probes = 0;
        }
        subject.probes += 1;
        subject.probed = now;
        if subject.probes == PROBES {
            self.silences.push((address, now));
        }
    }

    pub fn forgotten(&mut self, now: u64, address: Ipv6Addr) {
        let key = Key::Address(address);
        if self.subjects.contains_key(&key) {
            self.doubt(now, key);
        }
    }

    /// All hosts on a downstream, or everywhere, are asked anew.
    pub fn all_doubted(&mut self, now: u64, on: Option<u8>) {
        for host in self.hosts.values_mut() {
            if on.is_none_or(|on| host.port == on) {
                host.unanswered = 0;
                host.asked = None;
            }
        }
        let keys = self.subjects.iter();
        let keys: Vec<_> = keys
            .filter(|(_, subject)| on.is_none_or(|on| subject.port == on))
            .map(|(key, _)| *key)
            .collect();
        for key in keys {
            self.doubt(now, key);
        }
    }

    pub fn downstream(&mut self, now: u64, port: u8, up: bool) {
        let was_up = std::mem::replace(&mut self.up[usize::from(port)], true);
        if !up {
            // Questions wait; perhaps for so long that the silence before is never noticed.
            let keys: Vec<_> = self.subjects.keys().copied().collect();
            for key in keys {
                let subject = self.subjects[&key];
                let vain = self.vain(now, key, &subject);
                let on_it = self.hosts[&subject.host].port == port;
                let subject = self.subjects.get_mut(&key).unwrap();
                if on_it && matches!(key, Key::Address(_)) && subject.probes == PROBES {
                    subject.vain = match vain {
                        Vain::Yes => Vain::Yes,
                        Vain::No | Vain::Perhaps => Vain::Perhaps,
                    };
                }
                if on_it {
                    subject.asks = 0;
                }
            }
        }
        self.up[usize::from(port)] = up;
        if up && !was_up {
            self.all_doubted(now, Some(port));
        }
    }

    pub fn own(&mut self, address: Ipv6Addr, present: bool) {
        if !present {
            self.own.remove(&address);
        } else if self.own.insert(address) {
            self.remove(Key::Address(address));
        }
    }

    pub fn prefixes(&mut self, prefixes: Vec<u64>) {
        self.rules.prefixes = Some(prefixes);
        let keys = self.subjects.keys();
        let gone = |key: &Key| matches!(key, Key::Address(address) if !self.learns(*address) && !self.own.contains(address));
        let gone: Vec<_> = keys.filter(|key| gone(key)).copied().collect();
        for key in gone {
            self.remove(key);
        }
    }

    pub fn timeout(&mut self, now: u64) {
        self.expired.clear();
        if self.next_check.is_none_or(|due| now < due) {
            return;
        }
        let mut gone = Vec::new();
        let mut perhaps = Vec::new();
        for (key, subject) in &self.subjects {
            if now - subject.seen >= self.rules.timeout {
                gone.push((*key, true));
            } else if subject.revoked {
                match self.vain(now, *key, subject) {
                    Vain::Yes => gone.push((*key, false)),
                    Vain::Perhaps if !subject.perhaps_gone => perhaps.push(*key),
                    Vain::Perhaps | Vain::No => {}
                }
            }
        }
        for key in perhaps {
            self.subjects.get_mut(&key).unwrap().perhaps_gone = true;
            self.groups.push((key.group(), -1, 1));
            self.touch(key);
        }
        for (key, timed_out) in gone {
            let subject = self.remove(key).unwrap();
            if timed_out {
                self.expired.push((key, subject));
            }
        }
        let timeout = self.rules.timeout;
        self.hosts
            .retain(|_, host| !host.keys.is_empty() || now - host.heard < timeout);
        self.next_check = None;
        if !self.hosts.is_empty() {
            self.expect_check(now);
        }
    }

    fn remove(&mut self, key: Key) -> Option<Subject> {
        let subject = self.subjects.remove(&key)?;
        let host = self.hosts.get_mut(&subject.host).unwrap();
        host.keys.remove(&key);
        let (wanted, perhaps) = if subject.perhaps_gone {
            (0, -1)
        } else {
            (-1, 0)
        };
        self.groups.push((key.group(), wanted, perhaps));
        self.touch(key);
        Some(subject)
    }

    fn touch(&mut self, key: Key) {
        if let Key::Address(address) = key {
            self.touched.push(address);
        }
    }
}
