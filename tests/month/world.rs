//! The engine, and a kernel that may fail: carries out what the engine wants, and looks whether it
//! may want it.

use std::collections::{BTreeSet, HashMap};
use std::net::Ipv6Addr;

use protocol::config::Config;
use protocol::counters::Counter;
use protocol::engine::{self, Action, BUFFER_LENGTH, Engine, Event};
use protocol::link::Link;
use protocol::link::{Port, Side};
use protocol::ndp::neighbors::Question;
use protocol::ndp::solicited;
use protocol::time::Instant;
use protocol::wire::{Message, parse};
use protocol::{mld, ndp};

use crate::facts::{Fact, group_of};
use crate::tables::Tables;
use crate::truth::{Place, Truth};

/// How long a group that nobody wants stays joined, and until what failed is tried again.
pub const LEAVE_DELAY: u64 = 10_000;
pub const RETRY_INTERVAL: u64 = 1_000;
/// From a question to the next, and from a solicitation to the next for the same target.
const PACE: u64 = 50;
const PROBE_INTERVAL: u64 = 1_000;

/// A group upstream, as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Membership {
    pub joined: bool,
    /// Since when nobody wants it.
    pub idle: Option<u64>,
    /// When a join or leave failed.
    pub failed: Option<u64>,
}

/// What was sent and is to be answered.
#[derive(Clone, Copy, Debug)]
pub enum Sent {
    Ask { place: Place },
    Probe { place: Place, target: Ipv6Addr },
    Resolve { port: Port, target: Ipv6Addr },
    SolicitUpstream { target: Ipv6Addr },
}

/// How likely each kind of action is to fail, of 1.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sickness {
    pub membership: f64,
    pub tables: f64,
    pub upstream: f64,
    pub downstream: f64,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub packets: u64,
    pub events: u64,
    pub steps: u64,
    pub actions: u64,
    pub questions: u64,
    pub changes: u64,
    pub failures: u64,
    pub warnings: u64,
    pub most_joined: usize,
    pub most_waiting: usize,
    pub most_subjects: usize,
}

pub struct World {
    pub engine: Engine<'static>,
    pub truth: Truth,
    pub now: u64,
    pub upstream: Option<Link>,
    pub downstreams: Vec<Option<Link>>,
    pub own: BTreeSet<Ipv6Addr>,
    /// The first 64 bits of what is learned; all where none are given.
    pub prefixes: Option<Vec<u64>>,
    pub sickness: Sickness,
    pub tables: Tables,
    pub outbox: Vec<Sent>,
    pub tally: Tally,
    pub groups: HashMap<u32, Membership>,
    random: fastrand::Rng,
    last_question: Option<u64>,
    /// When each host was asked last, and each target solicited on each link.
    pub asked: HashMap<Place, u64>,
    solicited: HashMap<(Port, Ipv6Addr), u64>,
    /// How much was known and how often something expired, at the last step.
    seen: (usize, u64),
}

impl World {
    pub fn new(config: Config, random: fastrand::Rng) -> Self {
        config.check().unwrap();
        let prefixes = config.upstream_prefixes.then(Vec::new);
        let ports = config.downstreams.len();
        let tables = Tables::new(config.ndp_proxy, config.host_routes);
        let storage = Box::leak(Box::new(const { engine::Tables::new() }));
        let engine = Engine::new(storage, config, [7; 16]);
        World {
            engine,
            truth: Truth::default(),
            now: 1_000_000,
            upstream: None,
            downstreams: vec![None; ports],
            own: BTreeSet::new(),
            prefixes,
            sickness: Sickness::default(),
            tables,
            outbox: Vec::new(),
            tally: Tally::default(),
            groups: HashMap::new(),
            random,
            last_question: None,
            asked: HashMap::new(),
            solicited: HashMap::new(),
            seen: (0, 0),
        }
    }

    /// Handles all that is due before a moment, until something was sent that may be answered
    /// before it.
    pub fn pass(&mut self, until: u64) {
        while self.outbox.is_empty()
            && let Some((due, reason)) = self.engine.next_deadline()
            && due.as_millis() <= until
        {
            assert!(
                due.as_millis() >= self.now,
                "a deadline in the past: {reason:?}"
            );
            self.now = due.as_millis();
            self.timeout();
        }
        if self.outbox.is_empty() {
            self.now = self.now.max(until);
        }
    }

    /// Tells the engine what time it is, be anything due or not.
    pub fn timeout(&mut self) {
        self.engine.handle_timeout(Instant::from_millis(self.now));
        self.settle(self.most_actions());
    }

    pub fn handle(&mut self, event: Event<'_>) {
        // No packet makes much to do, but all groups and all addresses may change at once, if
        // nothing more than twice.
        let most = match event {
            Event::Packet { packet, .. } => 100 + packet.len() / 5,
            _ => self.most_actions(),
        };
        self.tally.events += 1;
        if matches!(
            event,
            Event::Renew | Event::Link(Side::Downstream(_), _) | Event::Forgotten(_)
        ) {
            self.truth.doubted = self.now;
        }
        self.engine.handle(Instant::from_millis(self.now), event);
        self.settle(most);
        if matches!(
            event,
            Event::Renew | Event::Link(Side::Downstream(_), _) | Event::UpstreamPrefixes(_)
        ) {
            self.check_all();
        }
    }

    fn most_actions(&self) -> usize {
        let known = self.engine.ndp().neighbors().len();
        100 + 3 * (self.engine.ndp().groups().len() + self.tables.len() + known)
    }

    /// A host is heard; false where the link is down.
    pub fn hear(&mut self, place: Place, fact: &Fact) -> bool {
        let (port, mac) = place;
        let Some(router) = self.downstreams[usize::from(port)] else {
            return false;
        };
        self.tally.packets += 1;
        self.note(place, fact);
        if let Fact::Solicits { source, target } = fact
            && source.is_unspecified()
        {
            self.tables.detects_duplicates(self.now, *target);
        }
        let packet = &fact.packet(router.link_local.expect("it has one"));
        self.handle(Event::Packet {
            side: Side::Downstream(port),
            mac,
            packet,
        });
        if let Some(address) = fact.address() {
            self.look_at(address);
            self.tables.unsettled.insert(address);
            self.check_promises(group_of(address)..=group_of(address));
        }
        if let Fact::Reports { groups, .. } = fact {
            for (group, _) in groups {
                self.check_promises(*group..=*group);
            }
        }
        true
    }

    pub fn remember(&mut self, (port, mac): Place, address: Ipv6Addr) {
        if self.learns(address) && !self.knows(address) {
            self.truth.say(self.now, (port, mac), address);
        }
        self.handle(Event::Remembered { port, mac, address });
    }

    pub fn set_upstream(&mut self, upstream: Option<Link>) {
        let index = |upstream: Option<Link>| upstream.map(|upstream| upstream.index);
        if index(upstream) != index(self.upstream) {
            self.groups.clear();
            self.tables.upstream_is_gone();
        }
        self.upstream = upstream;
        self.handle(Event::Link(Side::Upstream, upstream));
    }

    pub fn set_downstream(&mut self, port: Port, downstream: Option<Link>) {
        self.downstreams[usize::from(port)] = downstream;
        if downstream.is_none() {
            self.tables.downstream_is_gone(port);
            let mut expected = std::mem::take(&mut self.truth.expected);
            expected.retain(|key, _| self.is_last_place_up(*key));
            self.truth.expected = expected;
        }
        self.handle(Event::Link(Side::Downstream(port), downstream));
    }

    fn settle(&mut self, most: usize) {
        let mut buffer = [0; BUFFER_LENGTH];
        let now = Instant::from_millis(self.now);
        for actions in 0.. {
            assert!(actions < most, "actions never end");
            let Some(action) = self.engine.poll_action(&mut buffer) else {
                break;
            };
            if self.random.u8(..) == 0 {
                let again = self.engine.poll_action(&mut buffer);
                assert_eq!(again, Some(action), "until it is done");
            }
            let succeeded = self.carry_out(&action, &buffer);
            self.tally.actions += 1;
            self.tally.failures += u64::from(!succeeded);
            self.engine.done(now, &action, succeeded);
        }
        // A listing is an event for each entry, and until it ends it says nothing.
        if !self.tables.is_listing {
            self.check();
        }
    }

    fn carry_out(&mut self, action: &Action, buffer: &[u8]) -> bool {
        let sickness = self.sickness;
        match *action {
            Action::Ndp(ndp::Action::Join(change) | ndp::Action::Leave(change)) => {
                let fails = self.fails(sickness.membership);
                let join = matches!(action, Action::Ndp(ndp::Action::Join(_)));
                self.change_membership(&change, join, !fails);
                !fails
            }
            Action::Mld(mld::Action::Report { length, .. }) => {
                match parse(&buffer[..length]) {
                    Ok(Message::ReportV2(report)) => {
                        report
                            .records
                            .for_each(|record| self.assert_joined(record.group));
                    }
                    Ok(Message::ReportV1(report)) => self.assert_joined(report.group),
                    other => panic!("not a report: {other:?}"),
                }
                !self.fails(sickness.upstream)
            }
            Action::Ndp(ndp::Action::Ask { length, question }) => {
                let succeeded = length > 0 && !self.fails(sickness.downstream);
                // The link of the last one that claimed an address may be down.
                let may_be_lost = matches!(question, Question::Resolve { .. });
                assert!(
                    length > 0 || may_be_lost,
                    "a question where nothing can be sent"
                );
                let sent = self.ask(&question);
                self.outbox.extend(succeeded.then_some(sent));
                succeeded
            }
            Action::Ndp(ndp::Action::Kernel(change)) => {
                let fails = self.fails(sickness.tables);
                self.tables.change(self.now, &change, !fails);
                !fails
            }
            Action::Ndp(ndp::Action::Solicit {
                length,
                side,
                target,
                ..
            }) => {
                let succeeded = length > 0 && !self.fails(sickness.upstream);
                let sent = match side {
                    Side::Upstream => Sent::SolicitUpstream { target },
                    Side::Downstream(port) => Sent::Resolve { port, target },
                };
                self.outbox.extend(succeeded.then_some(sent));
                succeeded
            }
            Action::Ndp(ndp::Action::Advertise {
                side: Side::Upstream,
                target,
                ..
            }) => {
                let port = self.port_of(target);
                assert!(port.is_some(), "{target} is announced and not there");
                !self.fails(sickness.upstream)
            }
            Action::Ndp(ndp::Action::Advertise {
                side: Side::Downstream(port),
                mac,
                target,
                ..
            }) => {
                if mac.is_none() {
                    let answered = self.truth.answered.get(&target);
                    let (on, at) = answered.copied().unwrap_or_default();
                    assert!(
                        on != Some(port) && self.now == at,
                        "{target} is no duplicate on {port} at {}: {on:?} {at}",
                        self.now
                    );
                    self.truth.to_warn.remove(&(target, port));
                    self.tally.warnings += 1;
                }
                !self.fails(sickness.upstream)
            }
        }
    }

    fn fails(&mut self, likely: f64) -> bool {
        likely > 0.0 && self.random.f64() < likely
    }

    fn change_membership(&mut self, change: &solicited::Change, join: bool, succeeded: bool) {
        assert!(self.upstream.is_some(), "there is nothing to join on");
        let group = group_of(change.group.group());
        assert!(
            self.truth.mentioned.contains_key(&group),
            "nobody ever spoke of {group:06x}"
        );
        let now = self.now;
        let membership = self.groups.entry(group).or_default();
        assert_ne!(
            membership.joined, join,
            "{group:06x} is joined or left twice"
        );
        if !join {
            let since = membership.idle;
            assert!(
                since.is_some_and(|since| now >= since + LEAVE_DELAY),
                "{group:06x} is left too early, at {now}: {membership:?}"
            );
        }
        if !succeeded {
            membership.failed = Some(now);
            return;
        }
        self.tally.changes += 1;
        membership.failed = None;
        membership.joined = join;
    }

    fn assert_joined(&self, group: Ipv6Addr) {
        let membership = self.groups.get(&group_of(group));
        let joined = membership.is_some_and(|membership| membership.joined);
        assert!(joined, "{group} is reported and not joined");
    }

    fn ask(&mut self, question: &Question) -> Sent {
        let now = self.now;
        let last = self.last_question.replace(now).unwrap_or_default();
        assert!(now >= last + PACE, "questions crowd");
        self.tally.questions += 1;
        let (port, target, sent) = match *question {
            Question::Ask { port, mac, .. } => {
                let place = (port, mac);
                self.asked.insert(place, now);
                self.truth.to_ask.remove(&place);
                return Sent::Ask { place };
            }
            Question::Probe {
                port, mac, target, ..
            } => {
                let place = (port, mac);
                (port, target, Sent::Probe { place, target })
            }
            Question::Resolve { port, target, .. } => {
                (port, target, Sent::Resolve { port, target })
            }
        };
        let last = self
            .solicited
            .insert((port, target), now)
            .unwrap_or_default();
        assert!(
            now >= last + PROBE_INTERVAL,
            "{target} is solicited twice within a second on {port}, at {now}"
        );
        sent
    }

    fn check(&mut self) {
        self.tally.steps += 1;
        let now = self.now;
        let next = self.engine.next_deadline();
        assert!(
            next.is_none_or(|(next, _)| next.as_millis() > now),
            "a deadline that stays: {next:?} at {now}"
        );
        let known = self.engine.ndp().neighbors().len();
        let expired = self.engine.counters().get(Counter::Expired);
        let before = std::mem::replace(&mut self.seen, (known, expired));
        if before != self.seen {
            self.note_idle();
        }
        self.check_expected();
        self.check_tables();
        if before.1 != expired || self.tally.steps.is_multiple_of(1024) {
            self.check_all();
        }
    }

    /// Since when nobody wants a group. One that was not joined by then is forgotten.
    fn note_idle(&mut self) {
        let engine = self.engine.ndp().groups();
        let now = self.now;
        self.groups.retain(|group, membership| {
            let state = engine.get(crate::facts::solicited_node(*group));
            if state.is_none_or(|state| state.members == 0) {
                membership.idle.get_or_insert(now);
            } else {
                membership.idle = None;
            }
            membership.joined || state.is_some()
        });
    }

    pub fn check_tables(&mut self) {
        let mut tables = std::mem::replace(&mut self.tables, Tables::new(false, false));
        let port_of = |address| self.port_of(address);
        tables.check(
            self.now,
            port_of,
            self.upstream.is_some(),
            &self.downstreams,
        );
        self.tables = tables;
    }

    /// Nobody is left, and nothing is kept.
    pub fn assert_empty(&mut self) {
        self.check_all();
        assert!(self.engine.ndp().neighbors().is_empty() && self.engine.ndp().groups().is_empty());
        assert_eq!(self.engine.ndp().neighbors().hosts().count(), 0);
        assert!(self.engine.ndp().targets().is_empty());
        assert_eq!(self.engine.ndp().kernel_entries().iter().count(), 0);
        self.tables.assert_empty();
        let joined = self.groups.values().filter(|group| group.joined).count();
        assert_eq!(joined, 0);
    }
}
