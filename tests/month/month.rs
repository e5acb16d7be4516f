//! Thirty days of one router: what happens, and when.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::Ipv6Addr;
use std::time::Duration;

use protocol::config::{Config, Learn, Port, Prefix, Side};
use protocol::engine::{Downstream, Event};
use protocol::listener::Upstream;
use protocol::ndp_proxy::{KernelTable, Listing};
use protocol::wire::{ALL_NODES, MacAddress, NeighborAdvertisement, NeighborSolicitation};
use protocol::wire::{Query, QueryVersion, SolicitedNode, Sources};

use crate::hosts::{Host, State};
use crate::world::{Sickness, World};

/// The router, as hosts downstream know it.
pub const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xff);
/// An entry of another program, for what is never learned.
pub const OTHERS: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 7);
const GATEWAY: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xaa);
const GATEWAY_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0xaa, 0]);

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
pub const DAY: u64 = 24 * HOUR;
pub const DAYS: u64 = 30;
const HOSTS: u32 = 1_000;

/// Something that happens at its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Happening {
    Arrival {
        host: usize,
    },
    Chatter {
        host: usize,
        life: u32,
    },
    Answer {
        host: usize,
        life: u32,
        port: Port,
    },
    ProbeAnswer {
        host: usize,
        life: u32,
        target: Ipv6Addr,
    },
    Renumbers {
        host: usize,
    },
    UpstreamAnswer {
        target: Ipv6Addr,
    },
    DownstreamGoes,
    DownstreamComes {
        port: Port,
    },
    UpstreamGoes,
    UpstreamComes,
    Sickness,
    Recovery,
    Querier,
    Query,
    Listing,
    Forgets,
    Remembers,
    Renewal,
    Own,
    Renumbering,
    PrefixEnds {
        prefix: u64,
    },
    Solicitation,
    Timeout,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Querier {
    None,
    V1,
    V2,
}

pub struct Month {
    pub world: World,
    pub random: fastrand::Rng,
    pub hosts: Vec<Host>,
    pub by_mac: BTreeMap<MacAddress, usize>,
    pub prefixes: Vec<u64>,
    pub most_addresses: usize,
    /// On average, from one chatter of a host to the next, and how long one is away.
    pub chatter: u64,
    pub absence: u64,
    /// On average, from one outage of a downstream to the next.
    outages: u64,
    /// Nobody arrives any more.
    pub is_over: bool,
    follows_prefixes: bool,
    next_prefix: u64,
    own: Vec<Ipv6Addr>,
    querier: Querier,
    last_index: u32,
    schedule: BinaryHeap<Reverse<(u64, u64, Happening)>>,
    scheduled: u64,
}

impl Month {
    pub fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut config = Config::new("wan".parse().unwrap());
        for name in ["br-lan", "guest", "iot", "lab"]
            .iter()
            .take(2 + random.usize(..3))
        {
            config.downstreams.push(name.parse().unwrap()).unwrap();
        }
        (config.join_rate, config.join_burst) = (1_000_000, 1_000_000);
        // Either a short time and few hosts at once, or a long one and most of them.
        let is_crowded = seed % 2 == 1;
        if is_crowded {
            config.address_timeout = Duration::from_secs(8 * 3600);
            config.expiry_interval = Duration::from_secs(600);
        }
        config.refresh_interval = Duration::from_secs(if is_crowded { 1800 } else { 60 });
        config.ndp_proxy = seed % 4 >= 2;
        config.host_routes = config.ndp_proxy && random.u8(..4) > 0;
        config.announce = config.ndp_proxy && random.bool();
        config.upstream_prefixes = random.bool();
        config.ask = random.u8(..10) > 0;
        config.learn = match random.u8(..10) {
            0 => Learn::Ndp,
            1 if config.ask && !config.ndp_proxy => Learn::Mld,
            _ => Learn::Both,
        };
        let follows_prefixes = config.upstream_prefixes;
        let timeout = config.address_timeout.as_millis() as u64;
        let mut world = World::new(config, random.fork());
        world.tables.set_timeout(timeout);
        let mut month = Month {
            world,
            random,
            hosts: Vec::new(),
            by_mac: BTreeMap::new(),
            prefixes: Vec::new(),
            most_addresses: if is_crowded { 3 } else { 4 },
            chatter: if is_crowded { timeout / 3 } else { timeout },
            absence: if is_crowded { 80 * HOUR } else { 60 * HOUR },
            outages: if is_crowded { 10 * HOUR } else { 4 * HOUR },
            is_over: false,
            follows_prefixes,
            next_prefix: 0x2001_0db8_0001_0000,
            own: Vec::new(),
            querier: Querier::V2,
            last_index: 7,
            schedule: BinaryHeap::new(),
            scheduled: 0,
        };
        for number in 0..HOSTS {
            let host = month.new_host(number);
            month.hosts.push(host);
        }
        month
    }

    /// Lets all of it happen.
    pub fn run(&mut self) {
        self.starts();
        let end = self.world.now + DAYS * DAY;
        while self.next(end) {}
        self.ends();
    }

    fn starts(&mut self) {
        self.new_prefix();
        for port in 0..self.world.downstreams.len() {
            self.downstream_comes(port as Port);
        }
        self.upstream_comes();
        for host in 0..self.hosts.len() {
            let delay = self.some(self.absence);
            self.at(delay, Happening::Arrival { host });
        }
        for happening in [
            Happening::DownstreamGoes,
            Happening::UpstreamGoes,
            Happening::Sickness,
            Happening::Querier,
            Happening::Query,
            Happening::Listing,
            Happening::Forgets,
            Happening::Remembers,
            Happening::Renewal,
            Happening::Own,
            Happening::Renumbering,
            Happening::Solicitation,
            Happening::Timeout,
        ] {
            self.again(happening);
        }
    }

    /// All leave, nothing fails any more, and time passes.
    fn ends(&mut self) {
        self.is_over = true;
        self.schedule.clear();
        self.world.sickness = Sickness::default();
        for host in 0..self.hosts.len() {
            if self.hosts[host].state != State::Away {
                self.leaves(host);
            }
        }
        for port in 0..self.world.downstreams.len() {
            self.downstream_comes(port as Port);
        }
        self.upstream_comes();
        self.list();
        let rules = &self.world.model.rules;
        let end = self.world.now + rules.timeout + rules.expiry_interval + MINUTE;
        while self.next(end) {}
        self.world.assert_empty();
        let next = self.world.next_deadline();
        self.world.now += HOUR;
        self.world.timeout();
        assert_eq!(self.world.next_deadline(), None, "{next:?}");
    }

    /// The next thing that happens; false where it is after `end`.
    fn next(&mut self, end: u64) -> bool {
        let due = self
            .schedule
            .peek()
            .map_or(u64::MAX, |Reverse((at, ..))| *at);
        self.world.pass(due.min(end));
        self.assert_none_lost();
        if !self.world.outbox.is_empty() {
            for sent in std::mem::take(&mut self.world.outbox) {
                self.carry(sent);
            }
            return true;
        }
        if due > end {
            return false;
        }
        if let Some(Reverse((_, _, happening))) = self.schedule.pop() {
            self.happens(happening);
        }
        true
    }

    pub fn at(&mut self, delay: u64, happening: Happening) {
        self.scheduled += 1;
        let at = self.world.now + delay;
        self.schedule.push(Reverse((at, self.scheduled, happening)));
    }

    /// A random time, as long on average.
    pub fn some(&mut self, average: u64) -> u64 {
        let share = -self.random.f64().max(1e-9).ln();
        1 + (average as f64 * share.min(5.0)) as u64
    }

    /// What happens again and again does so after a while.
    fn again(&mut self, happening: Happening) {
        let average = match happening {
            Happening::DownstreamGoes => self.outages,
            Happening::UpstreamGoes => 5 * HOUR,
            Happening::Sickness => 9 * HOUR,
            Happening::Querier => 6 * HOUR,
            Happening::Listing => 4 * HOUR,
            Happening::Forgets => 5 * MINUTE,
            Happening::Remembers => 30 * MINUTE,
            Happening::Renewal => 20 * HOUR,
            Happening::Own => 6 * HOUR,
            Happening::Renumbering => 3 * DAY,
            Happening::Solicitation => 5 * MINUTE,
            Happening::Timeout => 7 * MINUTE,
            Happening::Query => {
                self.at(125 * SECOND, happening);
                return;
            }
            _ => return,
        };
        let delay = self.some(average);
        self.at(delay, happening);
    }

    fn happens(&mut self, happening: Happening) {
        let doubts = matches!(
            happening,
            Happening::DownstreamGoes
                | Happening::DownstreamComes { .. }
                | Happening::Forgets
                | Happening::Renewal
        );
        if doubts && self.world.model.is_doubt_unclear(self.world.now) {
            self.at(50, happening);
            return;
        }
        let is_alive = |host: usize, life| self.hosts[host].life == life;
        match happening {
            Happening::Arrival { host } => self.arrives(host),
            Happening::Chatter { host, life } if is_alive(host, life) => self.chatters(host),
            Happening::Answer { host, life, port } if is_alive(host, life) => {
                self.answers(host, port);
            }
            Happening::ProbeAnswer { host, life, target } if is_alive(host, life) => {
                self.answers_probe(host, target);
            }
            // Its host is gone.
            Happening::Chatter { .. }
            | Happening::Answer { .. }
            | Happening::ProbeAnswer { .. } => {}
            Happening::Renumbers { host } => self.renumbers(host),
            Happening::UpstreamAnswer { target } => self.upstream_answers(target),
            Happening::DownstreamGoes => self.downstream_goes(),
            Happening::DownstreamComes { port } => self.downstream_comes(port),
            Happening::UpstreamGoes => self.upstream_goes(),
            Happening::UpstreamComes => self.upstream_comes(),
            Happening::Sickness => {
                let mut likely = || [0.0, 0.1, 0.5, 1.0][self.random.usize(..4)];
                self.world.sickness = Sickness {
                    membership: likely(),
                    tables: likely(),
                    upstream: likely(),
                    downstream: 0.02,
                };
                let delay = self.some(5 * MINUTE);
                self.at(delay, Happening::Recovery);
            }
            Happening::Recovery => self.world.sickness = Sickness::default(),
            Happening::Querier => {
                self.querier = match self.random.u8(..8) {
                    0 => Querier::V1,
                    1 | 2 => Querier::None,
                    _ => Querier::V2,
                };
            }
            Happening::Query => self.query(),
            Happening::Listing => self.lists(),
            Happening::Forgets => {
                if let Some(address) = self.any_address() {
                    self.world.model.forgotten(self.world.now, address);
                    self.world.handle(Event::Forgotten(address));
                }
            }
            Happening::Remembers => {
                let host = self.random.usize(..self.hosts.len());
                let known = &self.hosts[host];
                if known.state == State::Awake {
                    let addresses = known.addresses.iter().chain([&known.link_local]);
                    let address = *addresses.last().unwrap();
                    let address = known.addresses.last().copied().unwrap_or(address);
                    let port = self.random.usize(..self.world.downstreams.len()) as Port;
                    let mac = known.mac;
                    self.world.remember(port, mac, address);
                }
            }
            Happening::Renewal => {
                self.world.model.all_doubted(self.world.now, None);
                self.world.handle(Event::Renew);
            }
            Happening::Own => self.own_changes(),
            Happening::Renumbering => self.new_prefix(),
            Happening::PrefixEnds { prefix } => {
                self.prefixes.retain(|known| *known != prefix);
                self.tell_prefixes();
                self.all_renumber();
            }
            Happening::Solicitation => {
                if let Some(target) = self.any_address() {
                    self.solicited_from_upstream(target);
                }
            }
            Happening::Timeout => self.world.timeout(),
        }
        self.again(happening);
    }

    fn any_address(&mut self) -> Option<Ipv6Addr> {
        let host = self.random.usize(..self.hosts.len());
        let addresses = &self.hosts[host].addresses;
        let place = self.random.usize(..addresses.len().max(1));
        addresses.get(place).copied()
    }

    fn new_prefix(&mut self) {
        self.next_prefix += 1;
        if let Some(old) = self.prefixes.last().copied() {
            let delay = self.some(HOUR);
            self.at(delay, Happening::PrefixEnds { prefix: old });
        }
        self.prefixes.push(self.next_prefix);
        self.tell_prefixes();
        self.all_renumber();
    }

    fn all_renumber(&mut self) {
        for host in 0..self.hosts.len() {
            if self.hosts[host].state == State::Awake {
                let delay = self.some(5 * MINUTE);
                self.at(delay, Happening::Renumbers { host });
            }
        }
    }

    fn tell_prefixes(&mut self) {
        if self.follows_prefixes {
            let prefix = |bits: &u64| {
                let network = Ipv6Addr::from_bits(u128::from(*bits) << 64);
                Prefix::new(network, 64).unwrap()
            };
            let prefixes: Vec<_> = self.prefixes.iter().map(prefix).collect();
            self.world.model.prefixes(self.prefixes.clone());
            self.world.handle(Event::UpstreamPrefixes(&prefixes));
        }
    }

    fn own_changes(&mut self) {
        if self.own.len() >= 3 || self.random.u8(..4) == 0 && !self.own.is_empty() {
            let place = self.random.usize(..self.own.len());
            let address = self.own.swap_remove(place);
            self.world.model.own(address, false);
            let present = false;
            self.world.handle(Event::Own { address, present });
        } else if let Some(address) = self.any_address() {
            self.own.push(address);
            self.tells_own(address);
        }
        if self.random.u8(..4) == 0 {
            self.world.model.own.clear();
            self.world.handle(Event::OwnUnknown);
            for address in self.own.clone() {
                self.tells_own(address);
            }
        }
    }

    fn tells_own(&mut self, address: Ipv6Addr) {
        self.world.model.own(address, true);
        let present = true;
        self.world.handle(Event::Own { address, present });
    }

    fn downstream_goes(&mut self) {
        let port = self.random.usize(..self.world.downstreams.len()) as Port;
        if self.world.downstreams[usize::from(port)].is_none() {
            return;
        }
        for host in &mut self.hosts {
            if host.port == port {
                host.reachable = None;
            }
        }
        self.world.set_downstream(port, None);
        let average = [SECOND, MINUTE, 10 * MINUTE][self.random.usize(..3)];
        let delay = self.some(average);
        self.at(delay, Happening::DownstreamComes { port });
    }

    fn downstream_comes(&mut self, port: Port) {
        let changes = u128::from(self.random.u8(..8) == 0);
        let downstream = Downstream {
            link_local: Ipv6Addr::from_bits(ROUTER.to_bits() + (changes << 8)),
            mac: MacAddress([2, 0, 0, 0, 0xff, port]),
        };
        self.world.set_downstream(port, Some(downstream));
        self.list();
    }

    fn upstream_goes(&mut self) {
        let Some(upstream) = self.world.upstream else {
            return;
        };
        match self.random.u8(..8) {
            0..4 => self.world.set_upstream(None),
            4 => self.world.set_upstream(Some(Upstream {
                index: self.last_index + 1,
                ..upstream
            })),
            5 => {
                // Down and up again before anybody looked.
                self.world.tables.wipe();
                self.world.set_upstream(Some(upstream));
            }
            6 => self.world.set_upstream(Some(Upstream {
                mtu: 1280,
                ..upstream
            })),
            _ => self.world.set_upstream(Some(Upstream {
                link_local: None,
                ..upstream
            })),
        }
        let average = [SECOND, MINUTE, 10 * MINUTE][self.random.usize(..3)];
        let delay = self.some(average);
        self.at(delay, Happening::UpstreamComes);
    }

    fn upstream_comes(&mut self) {
        self.last_index += u32::from(self.random.bool());
        let upstream = Upstream {
            index: self.last_index,
            link_local: Some(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1)),
            mtu: 1500,
            mac: MacAddress([2, 0, 0, 0, 0xfe, 0]),
        };
        self.world.set_upstream(Some(upstream));
        self.list();
    }

    fn query(&mut self) {
        let version = match self.querier {
            Querier::None => return,
            Querier::V1 => QueryVersion::V1,
            Querier::V2 => QueryVersion::V2 {
                suppress_router_processing: false,
                robustness: 2,
                query_interval: Duration::from_secs(125),
                sources: Sources::default(),
            },
        };
        let query = Query {
            source: GATEWAY,
            destination: ALL_NODES,
            group: Ipv6Addr::UNSPECIFIED,
            max_response_delay: Duration::from_secs(10),
            version,
        };
        let mut packet = [0; 128];
        let length = query.emit(&mut packet).unwrap();
        self.upstream_hears(&packet[..length]);
    }

    fn upstream_hears(&mut self, packet: &[u8]) {
        if self.world.upstream.is_some() {
            let mac = GATEWAY_MAC;
            self.world.handle(Event::UpstreamPacket { mac, packet });
        }
    }

    /// The gateway looks for an address.
    fn solicited_from_upstream(&mut self, target: Ipv6Addr) {
        let solicitation = NeighborSolicitation {
            source: GATEWAY,
            destination: SolicitedNode::of(target).group(),
            target,
            source_link_layer: Some(GATEWAY_MAC),
        };
        let mut packet = [0; 128];
        let length = solicitation.emit(&mut packet).unwrap();
        self.upstream_hears(&packet[..length]);
    }

    /// One of the hosts on the upstream's link.
    pub fn beside(&self, number: u8) -> Option<Ipv6Addr> {
        let prefix = *self.prefixes.last()?;
        let bits = u128::from(prefix) << 64 | 0xbe51de << 32 | u128::from(number);
        Some(Ipv6Addr::from_bits(bits))
    }

    pub fn solicited_upstream(&mut self, target: Ipv6Addr) {
        let is_beside = (target.to_bits() >> 32) as u32 == 0xbe51de;
        // Some are gone, for hours each.
        let hour = self.world.now / HOUR;
        if is_beside && !(hour + target.to_bits() as u64).is_multiple_of(3) {
            let delay = self.random.u64(..1_500);
            self.at(delay, Happening::UpstreamAnswer { target });
        }
    }

    fn upstream_answers(&mut self, target: Ipv6Addr) {
        let Some(upstream) = self.world.upstream else {
            return;
        };
        let Some(destination) = upstream.link_local else {
            return;
        };
        let advertisement = NeighborAdvertisement {
            source: target,
            destination,
            target,
            router: false,
            solicited: true,
            override_flag: true,
            target_link_layer: Some(GATEWAY_MAC),
        };
        let mut packet = [0; 128];
        let length = advertisement.emit(&mut packet).unwrap();
        self.world.tables.advertised.insert(target, self.world.now);
        self.upstream_hears(&packet[..length]);
    }

    /// Now and then something was left behind, or lost, before the kernel lists its tables.
    fn lists(&mut self) {
        if self.world.tables.is_used() {
            if self.random.u8(..8) == 0 {
                self.world.tables.wipe();
            }
            if let (0..4, Some(prefix)) = (self.random.u8(..8), self.prefixes.last()) {
                let bits = u128::from(*prefix) << 64 | 0x1ef7 << 48;
                let address = Ipv6Addr::from_bits(bits | u128::from(self.random.u32(..)));
                let port = self.random.usize(..self.world.downstreams.len()) as Port;
                let side = Side::Downstream(port);
                self.world.tables.leave_behind(address, side);
            }
        }
        self.list();
    }

    fn list(&mut self) {
        let upstream = |address: &Ipv6Addr| (*address, Side::Upstream);
        let proxies = self.world.tables.proxies.iter().map(upstream).collect();
        self.list_table(KernelTable::Proxies, proxies);
        let routes = self.world.tables.routes.clone().into_iter().collect();
        self.list_table(KernelTable::Routes, routes);
    }

    /// A host may be heard meanwhile.
    fn list_table(&mut self, table: KernelTable, mut entries: Vec<(Ipv6Addr, Side)>) {
        entries.push((OTHERS, Side::Upstream));
        self.world.handle(Event::Listed(table, Listing::Begins));
        self.world.tables.is_listing = true;
        for (address, side) in entries {
            if self.random.u8(..) == 0 && !self.is_over {
                let host = self.random.usize(..self.hosts.len());
                self.renumbers(host);
            }
            let has = Listing::Has(address, side);
            self.world.handle(Event::Listed(table, has));
        }
        self.world.tables.listed(table);
        self.world.handle(Event::Listed(table, Listing::Ends));
        self.world.tables.is_listing = false;
    }
}
