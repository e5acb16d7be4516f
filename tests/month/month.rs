//! Thirty days of one router: what happens, and when.

mod links;

use protocol::time::Duration;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::Ipv6Addr;

use protocol::config::{Config, Learn};
use protocol::engine::Event;
use protocol::link::Port;
use protocol::wire::MacAddress;

use crate::hosts::{Host, State};
use crate::viewers::{Viewer, proxy_config, viewers};
use crate::world::{Sickness, World};

/// The router's link-local address downstream.
pub const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xff);
/// The address of another program's proxy entry and route. The engine never learns it.
pub const OTHERS: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 7);

pub const SECOND: u64 = 1_000;
pub const MINUTE: u64 = 60 * SECOND;
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
    Straying,
    Timeout,
    Zap {
        viewer: usize,
    },
    Tells {
        viewer: usize,
    },
    Viewers,
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
    pub viewers: Vec<Viewer>,
    /// When a link or an action last kept streams from their viewers.
    pub disturbed: u64,
    /// Actions fail now.
    pub is_sick: bool,
    /// The average time in milliseconds from one chatter of a host to the next, and that of an
    /// absence.
    pub chatter: u64,
    pub absence: u64,
    /// The average time in milliseconds from one outage of a downstream to the next.
    outages: u64,
    /// The month is over, and no host arrives any more.
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
        (config.join_rate, config.join_burst) = [(50, 200), (2, 5)][random.usize(..2)];
        // Either the timeout is short and few hosts are there at once, or it is long and most hosts
        // are there.
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
        if seed % 5 == 3 {
            config.mld_proxy = Some(proxy_config(&mut random));
        }
        let viewers = match config.mld_proxy {
            Some(_) => viewers(config.downstreams.len()),
            None => Vec::new(),
        };
        let follows_prefixes = config.upstream_prefixes;
        let timeout = config.address_timeout.as_millis();
        let world = World::new(config, random.fork());
        let mut month = Month {
            world,
            random,
            hosts: Vec::new(),
            by_mac: BTreeMap::new(),
            prefixes: Vec::new(),
            most_addresses: if is_crowded { 3 } else { 4 },
            viewers,
            disturbed: 0,
            is_sick: false,
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

    /// Runs the month.
    pub fn run(&mut self) {
        self.starts();
        let end = self.world.now() + DAYS * DAY;
        while self.next(end) {}
        self.ends();
    }

    fn starts(&mut self) {
        self.new_prefix();
        for port in 0..self.world.ports() {
            self.downstream_comes(port as Port);
        }
        self.upstream_comes();
        for host in 0..self.hosts.len() {
            let delay = self.some(self.absence);
            self.at(delay, Happening::Arrival { host });
        }
        for viewer in 0..self.viewers.len() {
            self.again(Happening::Zap { viewer });
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
            Happening::Straying,
            Happening::Timeout,
            Happening::Viewers,
        ] {
            self.again(happening);
        }
    }

    /// All hosts leave, nothing fails any more, and time passes until the engine is idle.
    fn ends(&mut self) {
        self.is_over = true;
        self.schedule.clear();
        self.world.falls_sick(Sickness::default());
        for host in 0..self.hosts.len() {
            if self.hosts[host].state != State::Away {
                self.leaves(host);
            }
        }
        for port in 0..self.world.ports() {
            self.downstream_comes(port as Port);
        }
        self.upstream_comes();
        self.list();
        self.is_sick = false;
        self.disturbed = self.world.now();
        self.viewers_end();
        let config = self.world.config();
        let longest = config.address_timeout.as_millis() + config.expiry_interval.as_millis();
        let end = self.world.now() + longest + MINUTE;
        while self.next(end) {}
        self.world.assert_empty();
        let next = self.world.model.next_deadline();
        self.world.model.now = self
            .world
            .model
            .now
            .saturating_add(Duration::from_millis(HOUR));
        self.world.timeout();
        let after = self.world.model.next_deadline();
        match self.viewers.is_empty() {
            true => assert_eq!(after, None, "{next:?}"),
            // Only the next General Query is still to come.
            false => assert!(after > Some(self.world.model.now), "{next:?}"),
        }
    }

    /// Runs the next happening. Returns false where it is later than `end`.
    pub fn next(&mut self, end: u64) -> bool {
        let due = self
            .schedule
            .peek()
            .map_or(u64::MAX, |Reverse((at, ..))| *at);
        self.world.pass(due.min(end));
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
        let at = self.world.now() + delay;
        self.schedule.push(Reverse((at, self.scheduled, happening)));
    }

    /// A random time with this average.
    pub fn some(&mut self, average: u64) -> u64 {
        let share = -self.random.f64().max(1e-9).ln();
        1 + (average as f64 * share.min(5.0)) as u64
    }

    /// Schedules the next of a series of happenings.
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
            Happening::Straying => 3 * MINUTE,
            Happening::Timeout => 7 * MINUTE,
            Happening::Zap { .. } => 3 * HOUR,
            Happening::Viewers => 10 * MINUTE,
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
            // The host of this happening is gone.
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
                let sickness = Sickness {
                    membership: likely(),
                    tables: likely(),
                    upstream: likely(),
                    downstream: 0.02,
                };
                self.world.falls_sick(sickness);
                self.is_sick = true;
                let delay = self.some(5 * MINUTE);
                self.at(delay, Happening::Recovery);
            }
            Happening::Recovery => {
                self.world.falls_sick(Sickness::default());
                self.is_sick = false;
                self.disturbed = self.world.now();
            }
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
                    let port = self.random.usize(..self.world.ports()) as Port;
                    let place = (port, known.mac);
                    self.world.remember(place, address);
                }
            }
            Happening::Renewal => self.world.handle(Event::Renew),
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
            Happening::Straying => {
                let host = self.random.usize(..self.hosts.len());
                if let Some(address) = self.any_address() {
                    self.strays(host, address);
                }
            }
            Happening::Timeout => self.world.timeout(),
            Happening::Zap { viewer } => self.zaps(viewer),
            Happening::Tells { viewer } => self.tells(viewer),
            Happening::Viewers => self.look_at_viewers(),
        }
        self.again(happening);
    }

    fn any_address(&mut self) -> Option<Ipv6Addr> {
        let host = self.random.usize(..self.hosts.len());
        let addresses = &self.hosts[host].addresses;
        let place = self.random.usize(..addresses.len().max(1));
        addresses.get(place).copied()
    }
}
