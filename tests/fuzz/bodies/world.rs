//! An engine, the kernel as it would be if it did what it is told, and what must be true of both after each event.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv6Addr;

use protocol::config::{Config, Learn, MldMode};
use protocol::counters::Counter;
use protocol::engine::{Action, BUFFER_LENGTH, Engine, Event, Tables};
use protocol::link::Link;
use protocol::link::{Port, Prefix, Side};
use protocol::ndp::kernel_entries::{self, KernelTable, Place};
use protocol::ndp::neighbors::{self, Neighbor, Subject};
use protocol::ndp::solicited::{self, LEAVE_DELAY};
use protocol::ndp::targets::{self, Target};
use protocol::time::{Duration, Instant};
use protocol::wire::{Message, RecordType, SolicitedNode, parse};
use protocol::{mld, ndp};

use super::bytes::Bytes;

/// What an event of a link or of the kernel's tables may bring about, at the most: a change of each group, of each entry and route, and
/// a question for each target on each link.
const MANY: usize = 2 * solicited::CAPACITY + 4 * kernel_entries::CAPACITY + 33 * targets::CAPACITY;

/// Of what is gone through, so that one input takes some milliseconds.
const ENOUGH: usize = 50_000;

pub struct World<'t> {
    pub engine: Engine<'t>,
    pub now: Instant,
    upstream: Option<Link>,
    downstreams: Vec<Option<Link>>,
    /// By interface, with whether it was told since all of them were unknown.
    own: BTreeMap<(Ipv6Addr, u32), bool>,
    joined: BTreeSet<Ipv6Addr>,
    /// Since when nobody wants a group that is joined: from when on that may be, and from when on it is certain.
    idle: BTreeMap<Ipv6Addr, (Instant, Instant)>,
    learned: u64,
    pub proxies: BTreeSet<Ipv6Addr>,
    pub routes: BTreeMap<Ipv6Addr, Side>,
    /// The kernel's tables may not be as the engine believes, before they are listed.
    pub stale: bool,
    /// A bit for each kind of action that fails now.
    pub failing: u8,
    /// What was gone through, so that one input does not take long.
    work: usize,
}

const STARTED: Instant = Instant::from_secs(1_000);

thread_local! {
    /// Some to use again: most of what a short input takes is the memory of new ones.
    static FREE: Cell<Option<Box<Tables>>> = const { Cell::new(None) };
}

/// Lends what an engine is kept in.
pub fn with_tables(run: impl FnOnce(&mut Tables)) {
    let mut tables = FREE
        .take()
        .unwrap_or_else(|| Box::new(const { Tables::new() }));
    run(&mut tables);
    FREE.set(Some(tables));
}

impl<'t> World<'t> {
    pub fn new(tables: &'t mut Tables, config: Config, seed: u8) -> Self {
        config.check().expect("a configuration that can be run");
        let downstreams = config.downstreams.iter().map(|_| None).collect();
        World {
            engine: Engine::new(tables, config, [seed.max(1); 16]),
            now: STARTED,
            upstream: None,
            downstreams,
            own: BTreeMap::new(),
            joined: BTreeSet::new(),
            idle: BTreeMap::new(),
            learned: 0,
            proxies: BTreeSet::new(),
            routes: BTreeMap::new(),
            stale: false,
            failing: 0,
            work: 0,
        }
    }

    /// Takes an event, does what is to be done, and looks at everything.
    pub fn handle(&mut self, event: Event<'_>) {
        let most = match event {
            // What it speaks of has some octets each.
            Event::Packet { packet, .. } => 100 + packet.len() / 5,
            _ => MANY,
        };
        self.tell(event);
        self.settle_within(most);
    }

    /// As the daemon does it: what the engine is told of the interfaces, the kernel's tables follow.
    pub fn tell(&mut self, event: Event<'_>) {
        match event {
            Event::Link(Side::Upstream, upstream) => {
                let index = |upstream: Option<Link>| upstream.map(|upstream| upstream.index);
                if index(upstream) != index(self.upstream) {
                    self.joined.clear();
                    self.idle.clear();
                    self.proxies.clear();
                    self.routes.retain(|_, side| *side != Side::Upstream);
                }
                self.upstream = upstream;
            }
            Event::Link(Side::Downstream(port), downstream) => {
                self.downstreams[usize::from(port)] = downstream;
            }
            Event::Own {
                index,
                address,
                present,
            } => {
                if address.is_unicast_link_local() || address.is_loopback() {
                } else if present {
                    self.own.insert((address, index), true);
                } else {
                    self.own.remove(&(address, index));
                }
            }
            Event::OwnUnknown => self.own.values_mut().for_each(|told| *told = false),
            Event::OwnKnown => self.own.retain(|_, told| *told),
            Event::Removed(KernelTable::Proxies, address, _) => _ = self.proxies.remove(&address),
            Event::Removed(KernelTable::Routes, address, side) => {
                self.routes.retain(|at, on| (*at, *on) != (address, side));
            }
            Event::Packet { .. }
            | Event::Remembered { .. }
            | Event::Forgotten(_)
            | Event::UpstreamPrefixes(_)
            | Event::Listed(..)
            | Event::Renew => {}
        }
        self.engine.handle(self.now, event);
    }

    pub fn started(&self) -> Instant {
        STARTED
    }

    pub fn upstream(&self) -> Option<Link> {
        self.upstream
    }

    pub fn downstream(&self, port: usize) -> Option<Link> {
        self.downstreams.get(port).copied().flatten()
    }

    pub fn settle(&mut self) {
        self.settle_within(MANY);
    }

    /// Does all there is to do, at most so many actions, and looks at everything.
    fn settle_within(&mut self, most: usize) {
        self.drain(most);
        self.check();
        if let Some((due, reason)) = self.engine.next_deadline() {
            // What is due at once, such as the answer to a query that leaves no time, is for handle_timeout.
            assert!(due >= self.now, "a deadline in the past: {reason:?}");
        }
        self.work += 100 + self.engine.ndp().neighbors().len() + self.engine.ndp().groups().len();
    }

    /// Much was done at once.
    pub fn tire(&mut self, events: usize) {
        self.work += 5 * events;
    }

    /// Is it time to come to an end?
    pub fn is_tired(&self) -> bool {
        self.work > ENOUGH
    }

    /// Lets time pass, and handles each deadline on its way, but of very many not all.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now.saturating_add(time);
        for handled in 0.. {
            let due = self.engine.next_deadline().filter(|(due, _)| *due <= end);
            let Some((due, _)) = due else { break };
            let late = handled >= 24 || self.is_tired();
            self.now = if late { end } else { due.max(self.now) };
            self.time_out();
            if late {
                break;
            }
        }
        self.now = end;
    }

    pub fn time_out(&mut self) {
        self.engine.handle_timeout(self.now);
        self.settle();
        if let Some((due, reason)) = self.engine.next_deadline() {
            assert!(due > self.now, "a deadline that stays: {reason:?}");
        }
        if self.upstream.is_some() && !self.engine.ndp().groups().is_failing() {
            for (group, (_, since)) in &self.idle {
                let left_by = since.saturating_add(LEAVE_DELAY);
                assert!(left_by > self.now, "{group} is not left");
            }
        }
    }

    fn drain(&mut self, most: usize) {
        let mut buffer = [0; BUFFER_LENGTH];
        let mut again = [0; BUFFER_LENGTH];
        for actions in 0.. {
            assert!(actions < most, "actions never end");
            let Some(action) = self.engine.poll_action(&mut buffer) else {
                break;
            };
            let same = self.engine.poll_action(&mut again);
            assert_eq!(same, Some(action), "until it is done");
            assert!(again == buffer, "the same octets");
            let succeeded = self.carry_out(&action, &buffer);
            self.engine.done(self.now, &action, succeeded);
        }
    }

    /// Did it succeed?
    fn carry_out(&mut self, action: &Action, buffer: &[u8]) -> bool {
        let kind = match action {
            Action::Ndp(ndp::Action::Join(_)) => 0,
            Action::Ndp(ndp::Action::Leave(_)) => 1,
            Action::Mld(mld::Action::Report { .. }) => 2,
            Action::Ndp(ndp::Action::Ask { .. }) => 3,
            Action::Ndp(ndp::Action::Kernel(change)) if change.table == KernelTable::Proxies => 4,
            Action::Ndp(ndp::Action::Kernel(_)) => 5,
            Action::Ndp(ndp::Action::Solicit { .. }) => 6,
            Action::Ndp(ndp::Action::Advertise { .. }) => 7,
        };
        let fails = self.failing & 1 << kind != 0;
        match *action {
            Action::Ndp(ndp::Action::Join(change)) => {
                assert!(self.upstream.is_some(), "there is nothing to join on");
                let group = change.group.group();
                assert!(!self.joined.contains(&group), "{group} is joined twice");
                if !fails {
                    self.joined.insert(group);
                }
            }
            Action::Ndp(ndp::Action::Leave(change)) => {
                let group = change.group.group();
                assert!(self.joined.contains(&group), "{group} is left twice");
                if !fails {
                    self.joined.remove(&group);
                }
                let full = self.engine.counters().get(Counter::RefusedFull) > 0;
                let left_by = |(since, _): &(Instant, _)| since.saturating_add(LEAVE_DELAY);
                let due = self.idle.get(&group).map(left_by);
                let is_due = due.is_some_and(|due| due <= self.now);
                // Where there was no room for another one, those that nobody wants are left at once.
                assert!(is_due || full, "{group} is left at once");
            }
            Action::Mld(mld::Action::Report { length, group }) => {
                self.check_report(&buffer[..length], group);
            }
            Action::Ndp(ndp::Action::Ask { length, question }) => {
                let port = match question {
                    neighbors::Question::Ask { port, .. }
                    | neighbors::Question::Probe { port, .. }
                    | neighbors::Question::Resolve { port, .. } => port,
                };
                let Some(downstream) = self.downstreams[usize::from(port)] else {
                    // Where a claim came from, there may be no link any more.
                    assert!(matches!(question, neighbors::Question::Resolve { .. }));
                    assert_eq!(length, 0, "it cannot be sent");
                    return false;
                };
                match parse(&buffer[..length]) {
                    Ok(Message::Query(query)) => {
                        assert_eq!(Some(query.source), downstream.link_local);
                    }
                    Ok(Message::NeighborSolicitation(solicitation)) => {
                        assert_eq!(Some(solicitation.source), downstream.link_local);
                    }
                    other => panic!("not a question: {other:?}"),
                }
            }
            Action::Ndp(ndp::Action::Kernel(change)) => return self.change(&change, fails),
            Action::Ndp(
                ndp::Action::Solicit { length: 0, .. } | ndp::Action::Advertise { length: 0, .. },
            ) => {
                return false;
            }
            Action::Ndp(ndp::Action::Solicit {
                length,
                target,
                group,
                ..
            }) => {
                let Ok(Message::NeighborSolicitation(sent)) = parse(&buffer[..length]) else {
                    panic!("not a solicitation");
                };
                assert_eq!((sent.target, sent.destination), (target, group));
            }
            Action::Ndp(ndp::Action::Advertise {
                length,
                side,
                target,
                destination,
                ..
            }) => {
                let Ok(Message::NeighborAdvertisement(sent)) = parse(&buffer[..length]) else {
                    panic!("not an advertisement");
                };
                assert_eq!((sent.target, sent.destination), (target, destination));
                assert!(sent.router && !sent.override_flag);
                if side == Side::Upstream {
                    assert!(self.is_confirmed(target), "{target} is announced");
                }
            }
        }
        !fails
    }

    fn change(&mut self, change: &kernel_entries::Change, fails: bool) -> bool {
        let (address, side) = (change.address, change.side);
        let there = match side {
            Side::Upstream => self.upstream.is_some(),
            Side::Downstream(port) => self.downstreams[usize::from(port)].is_some(),
        };
        if change.present {
            assert!(there, "nothing can be added there: {change:?}");
        }
        if fails {
            return false;
        }
        let right = match (change.table, change.present) {
            (KernelTable::Proxies, true) => self.proxies.insert(address),
            (KernelTable::Proxies, false) => self.proxies.remove(&address),
            (KernelTable::Routes, true) => self.routes.insert(address, side).is_none(),
            (KernelTable::Routes, false) => self.routes.remove(&address) == Some(side),
        };
        assert!(right || self.stale, "there already, or gone: {change:?}");
        true
    }

    fn check_report(&self, packet: &[u8], destination: Ipv6Addr) {
        let upstream = self.upstream.expect("reports go there");
        let mtu = usize::try_from(upstream.mtu).unwrap_or(usize::MAX);
        assert!(packet.len() <= mtu.clamp(1280, 1500));
        match parse(packet) {
            Ok(Message::ReportV2(report)) => {
                assert_eq!(Some(report.source), upstream.link_local);
                for record in report.records {
                    match record.record_type {
                        RecordType::ChangeToInclude => self.check_left(record.group),
                        RecordType::ModeIsExclude | RecordType::ChangeToExclude => {
                            assert!(self.joined.contains(&record.group), "reported, not joined");
                        }
                        other => panic!("{other:?}"),
                    }
                }
            }
            Ok(Message::ReportV1(report)) => {
                assert_eq!(Some(report.source), upstream.link_local);
                assert_eq!(report.group, destination);
                assert!(self.joined.contains(&report.group), "reported, not joined");
            }
            Ok(Message::Done(done)) => {
                assert_eq!(Some(done.source), upstream.link_local);
                self.check_left(done.group);
            }
            other => panic!("not a report: {other:?}"),
        }
    }

    /// What is reported as left is not joined any more, or about to be left.
    fn check_left(&self, group: Ipv6Addr) {
        let mut groups = self.engine.ndp().groups().iter();
        let state = groups.find(|(known, _)| known.group() == group);
        let is_left = state.is_none_or(|(_, state)| !state.is_joined() || state.members == 0);
        assert!(is_left, "{group} is wanted, and reported as left");
        assert_ne!(
            self.engine.config().mld_mode,
            MldMode::Auto,
            "the kernel reports it"
        );
    }

    fn is_confirmed(&self, address: Ipv6Addr) -> bool {
        let neighbor = self.engine.ndp().neighbors().get(Subject::Address(address));
        neighbor.is_some_and(Neighbor::is_confirmed)
    }

    fn check(&mut self) {
        self.check_neighbors();
        self.check_groups();
        self.check_kernel_tables();
    }

    fn check_neighbors(&self) {
        let neighbors = self.engine.ndp().neighbors();
        let config = self.engine.config();
        assert!(neighbors.len() <= neighbors::CAPACITY);
        assert_eq!(neighbors.iter().count(), neighbors.len());
        let mut of_host: HashMap<(Port, [u8; 6]), (u16, u16)> = HashMap::new();
        for (subject, neighbor) in neighbors.iter() {
            let (owner, _) = neighbors.host_of(neighbor).expect("it has a host");
            assert!(usize::from(owner.port) < config.downstreams.len());
            let (addresses, listeners) = of_host.entry((owner.port, owner.mac.0)).or_default();
            match subject {
                Subject::Address(address) => {
                    *addresses += 1;
                    assert!(config.learn != Learn::Mld && config.learns(address));
                    let is_own = self.own.keys().any(|(own, _)| *own == address);
                    assert!(!is_own, "{address} is the router's");
                }
                Subject::Listener(..) => {
                    *listeners += 1;
                    assert!(config.learn != Learn::Ndp);
                }
            }
        }
        for (owner, host) in neighbors.hosts() {
            let key = (owner.port, owner.mac.0);
            let (addresses, listeners) = of_host.remove(&key).unwrap_or_default();
            assert_eq!(host.subjects, addresses + listeners, "{owner:?}");
            assert_eq!(host.listeners, listeners, "{owner:?}");
            assert!(
                addresses.max(listeners) <= config.per_mac,
                "{owner:?} has too many"
            );
        }
        assert!(of_host.is_empty(), "of hosts that are not known");
        let targets = self.engine.ndp().targets();
        assert!(targets.len() <= targets::CAPACITY);
        assert!(targets.is_empty() || config.ndp_proxy);
    }

    fn check_groups(&mut self) {
        let groups = self.engine.ndp().groups();
        assert!(groups.len() <= solicited::CAPACITY);
        // By how many, and by how many listeners among them.
        let mut wanted: HashMap<SolicitedNode, (u16, u16)> = HashMap::new();
        for (subject, _) in self.engine.ndp().neighbors().iter() {
            let (members, listeners) = wanted.entry(subject.group()).or_default();
            *members += 1;
            *listeners += u16::from(matches!(subject, Subject::Listener(..)));
        }
        let (mut joined, mut not_joined) = (0, 0);
        let (now, before) = (self.now, std::mem::take(&mut self.idle));
        let learned = self.engine.counters().get(Counter::Learned);
        for (group, state) in groups.iter() {
            let (members, listeners) = wanted.remove(&group).unwrap_or_default();
            assert_eq!(
                (state.members, state.listeners),
                (members, listeners),
                "{group}"
            );
            assert!(members > 0 || state.is_joined(), "{group} is of no use");
            assert_eq!(state.is_joined(), self.joined.contains(&group.group()));
            joined += usize::from(state.is_joined());
            if members == 0 {
                let (since, mut certain) = *before.get(&group.group()).unwrap_or(&(now, now));
                if learned != self.learned {
                    // What came and went at once may have been in it.
                    certain = now;
                }
                self.idle.insert(group.group(), (since, certain));
            }
            not_joined += usize::from(!state.is_joined());
        }
        assert!(groups.waiting() <= not_joined);
        if self.upstream.is_some() && !groups.is_failing() {
            assert_eq!(
                not_joined,
                groups.waiting(),
                "some are not joined and do not wait"
            );
        }
        self.learned = learned;
        assert!(wanted.is_empty(), "groups that nobody keeps: {wanted:?}");
        assert_eq!(joined, self.joined.len(), "groups that nobody knows of");
        assert!(self.upstream.is_some() || self.joined.is_empty());
    }

    fn check_kernel_tables(&self) {
        let (engine, config) = (&self.engine, self.engine.config());
        let ndp_proxy = engine.ndp().kernel_entries();
        let (mut count, mut above, mut below) = (0, 0, 0);
        for (address, proxied) in ndp_proxy.iter() {
            count += 1;
            let neighbor = engine.ndp().neighbors().get(Subject::Address(address));
            let confirmed = neighbor.filter(|neighbor| neighbor.is_confirmed());
            let is_kept = matches!(proxied.place, Place::Kept(_));
            match proxied.place.side() {
                Some(Side::Upstream) => {
                    above += 1;
                    let target = engine.ndp().targets().get(address);
                    let is_present = target.is_some_and(Target::is_present);
                    assert!(is_present, "{address} is not upstream");
                    assert_eq!(confirmed, None, "{address} is at two places");
                }
                Some(Side::Downstream(port)) => {
                    below += usize::from(!is_kept);
                    let known = neighbor.filter(|neighbor| neighbor.is_confirmed() || is_kept);
                    let owner =
                        known.and_then(|neighbor| engine.ndp().neighbors().host_of(neighbor));
                    let known = owner.map(|(owner, _)| owner.port);
                    assert_eq!(known, Some(port), "{address} is not there");
                }
                None => assert!(
                    proxied.proxied || proxied.routed.is_some(),
                    "{address} is of no use"
                ),
            }
            if !self.stale {
                assert_eq!(proxied.proxied, self.proxies.contains(&address));
                assert_eq!(proxied.routed.as_ref(), self.routes.get(&address));
            }
            if !ndp_proxy.is_failing(KernelTable::Proxies) {
                let downstream = proxied.place.is_downstream();
                assert_eq!(proxied.proxied, config.ndp_proxy && downstream, "{address}");
            }
            if !ndp_proxy.is_failing(KernelTable::Routes) {
                let wanted = proxied.place.side().filter(|_| config.host_routes);
                assert_eq!(proxied.routed, wanted, "{address}");
            }
        }
        assert!(count <= kernel_entries::CAPACITY);
        if !self.stale && count < kernel_entries::CAPACITY {
            let known = |address: &Ipv6Addr| ndp_proxy.get(*address).is_some();
            assert!(self.proxies.iter().all(known) && self.routes.keys().all(known));
        }
        if (config.ndp_proxy || config.host_routes || config.announce)
            && count < kernel_entries::CAPACITY
        {
            let neighbors = engine.ndp().neighbors().iter();
            let confirmed = neighbors.filter_map(|(subject, neighbor)| match subject {
                Subject::Address(address) if neighbor.is_confirmed() => Some(address),
                Subject::Address(_) | Subject::Listener(..) => None,
            });
            // One that its host detects duplicates of has to wait.
            let settled = |address: &Ipv6Addr| {
                !engine.ndp().targets().is_detecting(*address)
                    || ndp_proxy
                        .get(*address)
                        .is_some_and(|proxied| matches!(proxied.place, Place::At(_)))
            };
            let settled = confirmed.filter(settled).count();
            assert_eq!(below, settled, "confirmed ones are left out");
            let present = engine.ndp().targets().present_from(0).count();
            assert_eq!(above, present, "targets are left out");
        }
    }

    /// In the end all succeeds, all links are there, and the kernel lists its tables: then all is as it should be, and with time, when
    /// nobody is heard of any more, all is gone.
    pub fn finish(&mut self) {
        self.failing = 0;
        let mut bytes = Bytes(&[]);
        self.handle(Event::Link(Side::Upstream, Some(upstream(&mut bytes))));
        for port in 0..self.downstreams.len() {
            let downstream = downstream(&mut bytes);
            self.handle(Event::Link(
                Side::Downstream(port as Port),
                Some(downstream),
            ));
        }
        self.list();
        self.pass(Duration::from_secs(20));
        assert!(!self.stale && !self.engine.ndp().groups().is_failing());
        let config = self.engine.config();
        let end = config
            .address_timeout
            .saturating_add(config.expiry_interval)
            .saturating_mul(3);
        // One after the other: expired, no longer wanted, left.
        // Who claimed what was upstream may have it then, and is gone a timeout later as well.
        for time in [end, end, end, end, end, end, Duration::from_secs(60)] {
            let mut now = self.now.saturating_add(time);
            loop {
                self.now = now;
                self.engine.handle_timeout(now);
                self.settle();
                // A large table is looked through in several turns.
                let soon = now.saturating_add(Duration::from_millis(100));
                while let Some((due, _)) = self.engine.next_deadline()
                    && due <= soon
                {
                    self.now = due;
                    self.engine.handle_timeout(due);
                    self.settle();
                }
                if self.engine.ndp().neighbors().waiting() == 0 {
                    break;
                }
                // One after the other.
                now = now.saturating_add(Duration::from_secs(1));
            }
        }
        let neighbors = self.engine.ndp().neighbors();
        assert!(neighbors.is_empty() && neighbors.hosts().next().is_none());
        assert!(self.engine.ndp().groups().is_empty() && self.joined.is_empty());
        assert!(self.proxies.is_empty() && self.routes.is_empty());
        assert_eq!(self.engine.ndp().kernel_entries().iter().next(), None);
    }

    /// The kernel lists both tables, as they are.
    pub fn list(&mut self) {
        use protocol::ndp::kernel_entries::Listing::{Begins, Ends, Has};
        for table in [KernelTable::Proxies, KernelTable::Routes] {
            self.tell(Event::Listed(table, Begins));
            let there: Vec<(Ipv6Addr, Side)> = match table {
                KernelTable::Proxies => {
                    let proxies = self.proxies.iter();
                    proxies.map(|address| (*address, Side::Upstream)).collect()
                }
                KernelTable::Routes => {
                    let routes = self.routes.iter();
                    routes.map(|(address, side)| (*address, *side)).collect()
                }
            };
            for (address, side) in there {
                self.tell(Event::Listed(table, Has(address, side)));
            }
            self.tell(Event::Listed(table, Ends));
        }
        // What is not learned may be another process's, and is left there.
        let ndp_proxy = self.engine.ndp().kernel_entries();
        let known = |address: &Ipv6Addr| ndp_proxy.get(*address).is_some();
        self.proxies.retain(known);
        self.routes.retain(|address, _| known(address));
        self.stale = false;
        self.settle();
    }
}

/// Any configuration that can be run.
pub fn config(bytes: &mut Bytes<'_>) -> Config {
    let mut config = Config::new("wan".parse().expect("a name"));
    let flags = bytes.number();
    let set = |bit: u32| flags >> bit & 1 != 0;
    for name in ["br-lan", "guest", "iot"].iter().take(1 + bytes.below(3)) {
        let name = name.parse().expect("a name");
        config.downstreams.push(name).expect("there is room");
    }
    config.ndp_proxy = set(0);
    config.host_routes = set(1);
    config.announce = set(2);
    config.ask = !set(3);
    config.probe = !set(4) || set(3);
    config.upstream_prefixes = set(5);
    config.per_mac = if set(6) { 3 } else { 64 };
    (config.join_rate, config.join_burst) = match set(7) {
        true => (1, 4),
        false => (50, 200),
    };
    config.learn = match flags >> 8 & 3 {
        0 => Learn::Ndp,
        1 => Learn::Mld,
        _ => Learn::Both,
    };
    config.mld_mode = match flags >> 10 & 3 {
        0 => MldMode::V1,
        1 => MldMode::V2,
        _ => MldMode::Auto,
    };
    let seconds = |code: u8| Duration::from_secs(u64::from(code));
    if set(12) {
        config.address_timeout = seconds(bytes.octet().max(1));
        config.refresh_interval = seconds(bytes.octet());
        config.expiry_interval = seconds(bytes.octet().max(1));
    }
    if set(13) {
        let all = Prefix::new(Ipv6Addr::UNSPECIFIED, 0).expect("a prefix");
        config.prefixes = heapless::Vec::from_slice(&[all]).expect("there is room");
    }
    if set(14) {
        let excluded = Prefix::of(bytes.address(), 126).expect("a prefix");
        config.excluded.push(excluded).expect("there is room");
    }
    if flags >> 13 == 7 {
        // Enough to fill the tables.
        config.per_mac = u16::MAX;
        (config.join_rate, config.join_burst) = (100_000, 100_000);
    }
    config
}

pub fn upstream(bytes: &mut Bytes<'_>) -> Link {
    let flags = bytes.octet();
    Link {
        index: 7 + u32::from(flags & 1),
        link_local: (flags & 2 == 0).then(|| bytes.link_local()),
        mtu: match flags >> 2 & 3 {
            0 => 1500,
            1 => 1280,
            2 => 0,
            _ => u32::MAX,
        },
        mac: bytes.mac(),
    }
}

pub fn downstream(bytes: &mut Bytes<'_>) -> Link {
    Link {
        index: 8,
        link_local: Some(bytes.link_local()),
        mtu: 1500,
        mac: bytes.mac(),
    }
}
