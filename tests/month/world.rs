//! The engine, a kernel that may fail, and the model, which are compared at every step.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv6Addr;

use protocol::config::{Config, Port, Side};
use protocol::counters::Counter;
use protocol::engine::{Action, BUFFER_LENGTH, Downstream, Engine, Event};
use protocol::groups;
use protocol::listener::Upstream;
use protocol::neighbors::{Question, Subject};
use protocol::time::Instant;
use protocol::wire::{MacAddress, Message, parse};

use crate::facts::{Fact, group_of};
use crate::model::{Key, Model, Rules};
use crate::tables::Tables;

/// How long a group that nobody wants stays joined, and until what failed of it is tried again, in milliseconds.
const LEAVE_DELAY: u64 = 10_000;
const RETRY_INTERVAL: u64 = 1_000;

/// A group upstream, as it is.
#[derive(Clone, Copy, Debug, Default)]
struct Membership {
    /// How many subjects want it, and how many more perhaps do.
    wanted: i32,
    perhaps: i32,
    joined: bool,
    /// Since when nobody wants it.
    idle: Option<u64>,
    /// It is not known when the last one that wanted it was gone, but the group is left by then.
    unclear_until: Option<u64>,
    /// When a join or leave failed.
    failed: Option<u64>,
}

/// What was sent and is to be answered.
#[derive(Clone, Copy, Debug)]
pub enum Sent {
    Ask {
        port: Port,
        mac: MacAddress,
    },
    Probe {
        port: Port,
        mac: MacAddress,
        target: Ipv6Addr,
    },
    Solicit {
        side: Side,
        target: Ipv6Addr,
    },
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
    /// Groups that were looked at, at each step.
    pub groups: u64,
    /// Of these, where the model could not tell.
    pub unclear: u64,
    pub actions: u64,
    pub questions: u64,
    pub changes: u64,
    pub failures: u64,
    pub most_joined: usize,
    pub most_subjects: usize,
    pub unclear_packets: u64,
}

pub struct World {
    pub engine: Box<Engine>,
    pub model: Model,
    pub now: u64,
    pub upstream: Option<Upstream>,
    pub downstreams: Vec<Option<Downstream>>,
    pub sickness: Sickness,
    pub tables: Tables,
    pub outbox: Vec<Sent>,
    pub tally: Tally,
    random: fastrand::Rng,
    groups: BTreeMap<u32, Membership>,
    joined: usize,
    /// Groups that are not simply joined and wanted, or neither.
    unsettled: BTreeSet<u32>,
    last_question: Option<u64>,
    /// When an address was last claimed, and a group last mentioned, by whomever.
    mentioned: HashMap<u32, u64>,
    announcements: u64,
}

impl World {
    pub fn new(config: Config, random: fastrand::Rng) -> Self {
        use protocol::config::Learn;
        config.check().unwrap();
        let rules = Rules {
            timeout: config.address_timeout.as_millis(),
            expiry_interval: config.expiry_interval.as_millis(),
            learns_addresses: config.learn != Learn::Mld,
            learns_listeners: config.learn != Learn::Ndp,
            asks: config.ask,
            prefixes: config.upstream_prefixes.then(Vec::new),
        };
        let ports = config.downstreams.len();
        let tables = Tables::new(config.ndp_proxy, config.host_routes);
        let mut engine = Box::new(const { Engine::new() });
        engine.start(config, [7; 16]);
        World {
            engine,
            model: Model::new(rules, ports),
            now: 1_000_000,
            upstream: None,
            downstreams: vec![None; ports],
            sickness: Sickness::default(),
            tables,
            outbox: Vec::new(),
            tally: Tally::default(),
            random,
            groups: BTreeMap::new(),
            joined: 0,
            unsettled: BTreeSet::new(),
            last_question: None,
            mentioned: HashMap::new(),
            announcements: 0,
        }
    }

    /// Handles all that is due before a moment, until something was sent that may be answered before it.
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
        self.model.timeout(self.now);
        self.follow_model();
        self.engine.handle_timeout(Instant::from_millis(self.now));
        self.settle(self.most_actions());
    }

    pub fn handle(&mut self, event: Event<'_>) {
        // No packet makes much to do, but all groups and all addresses may change at once, if nothing more than twice.
        let most = match event {
            Event::Packet { packet, .. } => 100 + packet.len() / 5,
            Event::UpstreamPacket { .. } => 100,
            _ => self.most_actions(),
        };
        self.tally.events += 1;
        self.follow_model();
        self.engine.handle(Instant::from_millis(self.now), event);
        self.settle(most);
    }

    fn most_actions(&self) -> usize {
        100 + 3 * (self.groups.len() + self.tables.len() + self.model.subjects.len())
    }

    /// A host is heard. Where it is not clear what that does, the packet is lost on its way; false then.
    pub fn hear(&mut self, port: Port, mac: MacAddress, fact: &Fact) -> bool {
        if self.downstreams[usize::from(port)].is_none() {
            return false;
        }
        // The model knows nothing of duplicates.
        let is_duplicate = matches!(fact, Fact::Advertises { target, .. }
            if self.tables.is_detecting(self.now, *target)
                && self.model.subjects.get(&Key::Address(*target)).is_some_and(|known| known.host != mac));
        if is_duplicate || self.model.is_unclear(self.now, mac, fact) {
            self.tally.unclear_packets += 1;
            return false;
        }
        self.mention(fact);
        let router = self.downstreams[usize::from(port)].unwrap().link_local;
        let packet = fact.packet(router);
        self.model.hear(self.now, port, mac, fact);
        self.tally.packets += 1;
        let packet = &packet;
        if let Fact::Solicits { source, target } = &fact
            && source.is_unspecified()
        {
            self.tables.detects_duplicates(self.now, *target);
        }
        self.handle(Event::Packet { port, mac, packet });
        true
    }

    pub fn remember(&mut self, port: Port, mac: MacAddress, address: Ipv6Addr) {
        let source = Ipv6Addr::UNSPECIFIED;
        let fact = Fact::Solicits {
            source,
            target: address,
        };
        if !self.model.is_unclear(self.now, mac, &fact) {
            self.mention(&fact);
            self.model.remembered(self.now, port, mac, address);
            self.handle(Event::Remembered { port, mac, address });
        }
    }

    pub fn set_upstream(&mut self, upstream: Option<Upstream>) {
        let index = |upstream: Option<Upstream>| upstream.map(|upstream| upstream.index);
        if index(upstream) != index(self.upstream) {
            for (group, membership) in &mut self.groups {
                membership.joined = false;
                membership.idle = None;
                membership.failed = None;
                membership.unclear_until = None;
                self.unsettled.insert(*group);
            }
            self.joined = 0;
            self.tables.upstream_is_gone();
        }
        self.upstream = upstream;
        self.handle(Event::Upstream(upstream));
    }

    pub fn set_downstream(&mut self, port: Port, downstream: Option<Downstream>) {
        let known = &mut self.downstreams[usize::from(port)];
        if *known != downstream {
            if downstream.is_none() {
                self.tables.downstream_is_gone(port);
            }
            *known = downstream;
            self.model.downstream(self.now, port, downstream.is_some());
        }
        self.handle(Event::Downstream(port, downstream));
    }

    fn mention(&mut self, fact: &Fact) {
        for group in fact.groups() {
            self.mentioned.insert(group, self.now);
        }
    }

    /// Takes over what changed in the model.
    fn follow_model(&mut self) {
        for (group, wanted, perhaps) in std::mem::take(&mut self.model.groups) {
            let membership = self.groups.entry(group).or_default();
            membership.wanted += wanted;
            membership.perhaps += perhaps;
            self.unsettled.insert(group);
            let is_idle = membership.wanted == 0 && membership.perhaps == 0;
            if !is_idle {
                membership.idle = None;
            } else if perhaps < 0 {
                membership.unclear_until = Some(self.now + LEAVE_DELAY);
            } else if membership.joined {
                membership.idle = Some(self.now);
            }
        }
        for address in std::mem::take(&mut self.model.touched) {
            self.tables.unsettled.insert(address);
        }
    }

    fn settle(&mut self, most: usize) {
        self.follow_model();
        self.drain(most);
        self.follow_model();
        self.check();
    }

    fn drain(&mut self, most: usize) {
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
    }

    fn carry_out(&mut self, action: &Action, buffer: &[u8]) -> bool {
        let sickness = self.sickness;
        match action {
            Action::Join(change) | Action::Leave(change) => {
                let fails = self.fails(sickness.membership);
                let join = matches!(action, Action::Join(_));
                self.change_membership(change, join, !fails);
                !fails
            }
            Action::Report { length, .. } => {
                match parse(&buffer[..*length]) {
                    Ok(Message::ReportV2(report)) => {
                        for record in report.records {
                            self.assert_joined(record.group);
                        }
                    }
                    Ok(Message::ReportV1(report)) => self.assert_joined(report.group),
                    other => panic!("not a report: {other:?}"),
                }
                !self.fails(sickness.upstream)
            }
            Action::Ask { length, question } => {
                let succeeded = !self.fails(sickness.downstream);
                self.ask(*length, question, succeeded);
                succeeded
            }
            Action::Kernel(change) => {
                let fails = self.fails(sickness.tables);
                self.tables.change(self.now, change, !fails);
                !fails
            }
            Action::Solicit {
                length,
                side,
                target,
                ..
            } => {
                let succeeded = *length > 0 && !self.fails(sickness.upstream);
                if succeeded {
                    let (side, target) = (*side, *target);
                    self.outbox.push(Sent::Solicit { side, target });
                }
                succeeded
            }
            Action::Advertise { side, target, .. } => {
                if *side == Side::Upstream {
                    self.announcements += 1;
                    let known = self.model.subjects.get(&Key::Address(*target));
                    let is_there = known.is_some_and(|subject| subject.confirmed);
                    assert!(is_there, "{target} is announced and not there");
                }
                !self.fails(sickness.upstream)
            }
        }
    }

    fn fails(&mut self, likely: f64) -> bool {
        likely > 0.0 && self.random.f64() < likely
    }

    fn change_membership(&mut self, change: &groups::Change, join: bool, succeeded: bool) {
        assert!(self.upstream.is_some(), "there is nothing to join on");
        let group = group_of(change.group.group());
        let membership = self.groups.entry(group).or_default();
        assert_ne!(membership.joined, join, "joined or left twice");
        self.unsettled.insert(group);
        if !succeeded {
            membership.failed = Some(self.now);
            return;
        }
        self.tally.changes += 1;
        membership.failed = None;
        membership.joined = join;
        if join {
            self.joined += 1;
        } else {
            let since = membership.idle.take();
            assert!(
                since.is_none_or(|since| self.now >= since + LEAVE_DELAY),
                "group {group:06x} is left too early"
            );
            self.joined -= 1;
        }
        self.tally.most_joined = self.tally.most_joined.max(self.joined);
    }

    fn assert_joined(&self, group: Ipv6Addr) {
        let membership = self.groups.get(&group_of(group));
        assert!(
            membership.is_some_and(|membership| membership.joined),
            "{group} is reported and not joined"
        );
    }

    fn ask(&mut self, length: usize, question: &Question, succeeded: bool) {
        if let Some(last) = self.last_question {
            assert!(self.now >= last + 50, "questions crowd");
        }
        self.last_question = Some(self.now);
        self.tally.questions += 1;
        assert!(
            length > 0,
            "a question is not asked where nothing can be sent"
        );
        let sent = match *question {
            Question::Ask { port, mac, .. } => {
                self.model.asked(self.now, mac);
                Sent::Ask { port, mac }
            }
            Question::Probe {
                port, mac, target, ..
            } => {
                self.model.probed(self.now, target);
                Sent::Probe { port, mac, target }
            }
        };
        if succeeded {
            self.outbox.push(sent);
        }
    }

    /// The joined groups and the kernel's tables are what they must be.
    fn check(&mut self) {
        self.tally.steps += 1;
        let has_upstream = self.upstream.is_some();
        let now = self.now;
        let mut unclear = 0;
        let groups = &mut self.groups;
        let check = |group: &u32| {
            let Some(membership) = groups.get_mut(group) else {
                return false;
            };
            let wanted = membership.wanted > 0;
            if wanted {
                membership.unclear_until = None;
            }
            let failed = membership
                .failed
                .is_some_and(|failed| now < failed + RETRY_INTERVAL);
            let is_idle = membership
                .idle
                .is_some_and(|since| now < since + LEAVE_DELAY);
            let is_unclear = !wanted
                && (membership.perhaps > 0
                    || membership.unclear_until.is_some_and(|until| now < until));
            let right = match (wanted, membership.joined) {
                _ if !has_upstream => !membership.joined,
                (true, true) => true,
                (true, false) => failed,
                (false, _) if is_unclear => {
                    unclear += 1;
                    true
                }
                (false, true) => failed || is_idle,
                (false, false) => !is_idle,
            };
            assert!(
                right,
                "group {group:06x} at {now}: {membership:?}, upstream {has_upstream}"
            );
            let rests = !membership.joined && !wanted && !is_unclear && membership.perhaps == 0;
            if rests {
                groups.remove(group);
                return false;
            }
            !(membership.joined && wanted)
        };
        self.unsettled.retain(check);
        self.tally.unclear += unclear;
        self.tally.groups += self.groups.len() as u64;
        self.tables
            .check(now, &self.model, has_upstream, &self.downstreams);

        let next = self.engine.next_deadline();
        assert!(
            next.is_none_or(|(next, _)| next.as_millis() > now),
            "a deadline that stays: {next:?} at {now}"
        );
        // Nothing that the model waits for is slept through.
        let unsettled = self.unsettled.iter().filter_map(|group| {
            let membership = self.groups.get(group)?;
            let wanted = membership.wanted > 0;
            let is_clear = wanted || membership.perhaps == 0 && membership.unclear_until.is_none();
            let retry = membership.failed.map(|failed| failed + RETRY_INTERVAL);
            let leave = membership.idle.map(|since| since + LEAVE_DELAY);
            let due = leave.max(retry);
            due.filter(|_| has_upstream && is_clear && wanted != membership.joined)
        });
        let awaited = unsettled.chain(self.model.next_check()).min();
        let next = next.map(|(next, _)| next.as_millis());
        assert!(
            awaited.is_none_or(|awaited| next.is_some_and(|next| next <= awaited)),
            "the next deadline is {next:?}, expected by {awaited:?}"
        );
        if self.tally.steps.is_multiple_of(4096) {
            self.check_all();
        }
    }

    /// All that is known is what the model knows, and no more is kept than that.
    pub fn check_all(&mut self) {
        let neighbors = self.engine.neighbors();
        let model = &self.model;
        for (subject, neighbor) in neighbors.iter() {
            let (mac, _) = neighbors.host_of(neighbor).unwrap();
            let key = match subject {
                Subject::Address(address) => Key::Address(address),
                Subject::Listener(group, _) => Key::Listener(group_of(group.group()), mac),
            };
            let Some(known) = model.subjects.get(&key) else {
                panic!("{key:?} is known and should not be");
            };
            let seen = neighbor.last_seen.as_millis();
            assert_eq!(
                (neighbor.port, neighbor.confirmed, mac, seen),
                (known.port, known.confirmed, known.host, known.seen),
                "{key:?}"
            );
        }
        let subjects = model.subjects.values();
        let unclear = subjects.filter(|subject| subject.perhaps_gone).count();
        let least = model.subjects.len() - unclear;
        let kept = neighbors.len();
        assert!(
            (least..=model.subjects.len()).contains(&kept),
            "{kept} kept, {least} known"
        );
        assert_eq!(neighbors.hosts().count(), model.hosts.len());
        let groups = self.engine.groups();
        assert!(groups.len() <= self.groups.len(), "groups grow");
        let joined = groups.iter().filter(|(_, group)| group.joined).count();
        assert_eq!(joined, self.joined);
        self.tally.most_subjects = self.tally.most_subjects.max(kept);

        // By nothing but what was heard: who was is joined for, and no one else.
        let rules = &model.rules;
        let longest = rules.timeout + rules.expiry_interval + 10_000 + 2_000;
        self.mentioned
            .retain(|_, at| self.now.saturating_sub(*at) <= 2 * longest);
        for (group, membership) in &self.groups {
            let at = self.mentioned.get(group).copied().unwrap_or_default();
            let lately = self.now <= at + longest;
            assert!(
                lately || !membership.joined || membership.failed.is_some(),
                "group {group:06x} stays joined, last mentioned at {at}"
            );
        }
        self.tables.check_all(
            self.now,
            self.engine.ndp_proxy().iter().count(),
            model.subjects.len(),
        );

        let count = |counter| self.engine.counters().get(counter);
        for refused in [
            Counter::RefusedFull,
            Counter::RefusedHostQuota,
            Counter::RefusedRate,
            Counter::Evicted,
        ] {
            assert_eq!(count(refused), 0, "{refused:?}");
        }
        assert!(self.announcements <= 3 * model.confirmations);
    }

    /// Nobody is left, and nothing is kept.
    pub fn assert_empty(&mut self) {
        self.check_all();
        assert_eq!(self.joined, 0);
        assert!(self.engine.neighbors().is_empty() && self.engine.groups().is_empty());
        assert_eq!(self.engine.neighbors().hosts().count(), 0);
        assert!(self.engine.targets().is_empty());
        assert_eq!(self.engine.ndp_proxy().iter().count(), 0);
        self.tables.assert_empty();
        assert!(
            self.unsettled.is_empty() && self.groups.is_empty(),
            "{:?}",
            self.groups
        );
    }

    /// What the engine will do by itself when nothing happens any more.
    pub fn next_deadline(&self) -> Option<(Instant, protocol::engine::Reason)> {
        self.engine.next_deadline()
    }
}
