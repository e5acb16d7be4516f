//! The router: the model of the engine and of the kernel, a kernel that may fail, and the questions
//! that hosts may answer.

use std::collections::HashMap;
use std::net::Ipv6Addr;

use model::packets::heard;
use model::{Diligence, Model, storage};
use protocol::config::Config;
use protocol::counters::Counter;
use protocol::engine::{Action, Event};
use protocol::link::{Link, Port, Side};
use protocol::mld::streams;
use protocol::ndp::neighbors::Question;
use protocol::time::Instant;
use protocol::wire::ALL_NODES;
use protocol::{mld, ndp};

use crate::facts::{Fact, group_of};
use crate::month::OTHERS;
use crate::truth::{Place, Truth};

/// A question that the router sent, and that a host may answer.
#[derive(Clone, Copy, Debug)]
pub enum Sent {
    Ask { place: Place },
    Probe { place: Place, target: Ipv6Addr },
    Resolve { port: Port, target: Ipv6Addr },
    Query { port: Port, group: Ipv6Addr },
    SolicitUpstream { target: Ipv6Addr },
    StreamQuery { port: Port, group: Ipv6Addr },
}

/// The probability that an action fails, for each kind of action.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sickness {
    pub membership: f64,
    pub tables: f64,
    pub upstream: f64,
    pub downstream: f64,
}

impl Sickness {
    fn of(&self, action: &Action) -> f64 {
        match action {
            Action::Ndp(ndp::Action::Join(_) | ndp::Action::Leave(_)) => self.membership,
            Action::Ndp(ndp::Action::Kernel(_)) => self.tables,
            Action::Ndp(
                ndp::Action::Ask { .. }
                | ndp::Action::Solicit {
                    side: Side::Downstream(_),
                    ..
                },
            ) => self.downstream,
            Action::Mld(mld::Action::Streams(streams::Action::Membership(_))) => self.membership,
            Action::Mld(mld::Action::Streams(streams::Action::Forward(_))) => self.tables,
            Action::Mld(mld::Action::Streams(streams::Action::Query { .. })) => self.downstream,
            Action::Mld(mld::Action::Report { .. })
            | Action::Ndp(ndp::Action::Solicit { .. } | ndp::Action::Advertise { .. }) => {
                self.upstream
            }
        }
    }
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
    pub most_neighbors: usize,
}

pub struct World {
    pub model: Model<'static>,
    pub truth: Truth,
    /// The first 64 bits of the addresses that the engine learns. `None` is all addresses.
    pub prefixes: Option<Vec<u64>>,
    pub sickness: Sickness,
    pub outbox: Vec<Sent>,
    pub tally: Tally,
    /// A listing is under way. Until it ends, the invariants are not checked.
    pub is_listing: bool,
    /// When something last kept the kernel's tables from holding what the engine wants.
    pub disturbed: u64,
    /// When a join or leave of each group last failed.
    pub failed: HashMap<u32, u64>,
    random: fastrand::Rng,
    /// The count of expired neighbors at the last step.
    expired: u64,
}

impl World {
    pub fn new(config: Config, random: fastrand::Rng) -> Self {
        let prefixes = config.upstream_prefixes.then(Vec::new);
        let started = Instant::from_secs(1_000);
        World {
            model: Model::new(
                storage::leak(),
                config,
                [7; 16],
                started,
                Diligence::Entries(1),
            ),
            truth: Truth::default(),
            prefixes,
            sickness: Sickness::default(),
            outbox: Vec::new(),
            tally: Tally::default(),
            is_listing: false,
            disturbed: 0,
            failed: HashMap::new(),
            random,
            expired: 0,
        }
    }

    pub fn now(&self) -> u64 {
        self.model.now.as_millis()
    }

    pub fn config(&self) -> &Config {
        self.model.engine.config()
    }

    pub fn ports(&self) -> usize {
        self.config().downstreams.len()
    }

    pub fn downstream(&self, port: Port) -> Option<Link> {
        self.model.kernel.link(Side::Downstream(port))
    }

    pub fn upstream(&self) -> Option<Link> {
        self.model.kernel.link(Side::Upstream)
    }

    /// The link where the engine last knew an address.
    fn port_of(&self, address: Ipv6Addr) -> Option<Port> {
        self.place_of(address).map(|((port, _), _)| port)
    }

    /// Can the engine ask the host that it last knew to have an address?
    pub fn can_be_asked(&self, address: Ipv6Addr) -> bool {
        let port = self.port_of(address);
        port.is_none_or(|port| self.downstream(port).is_some())
    }

    pub fn falls_sick(&mut self, sickness: Sickness) {
        self.sickness = sickness;
        let mut random = self.random.fork();
        self.model.fail_if(move |action| {
            let likely = sickness.of(action);
            likely > 0.0 && random.f64() < likely
        });
    }

    /// Handles all deadlines until a time. Ends at once when the router sends a question, which a
    /// host may answer earlier.
    pub fn pass(&mut self, until: u64) {
        while self.outbox.is_empty()
            && let Some(due) = self.model.next_deadline()
            && due.as_millis() <= until
        {
            self.model.now = due;
            self.timeout();
        }
        if self.outbox.is_empty() {
            self.model.now = self.model.now.max(Instant::from_millis(until));
        }
    }

    /// Tells the engine the time, whether or not anything is due.
    pub fn timeout(&mut self) {
        self.model.time_out();
        self.look();
    }

    pub fn handle(&mut self, event: Event<'_>) {
        self.tally.events += 1;
        let is_doubt = matches!(
            event,
            Event::Renew | Event::Link(Side::Downstream(_), _) | Event::Forgotten(_)
        );
        if is_doubt {
            self.truth.doubted = self.now();
        }
        if matches!(event, Event::Link(..)) {
            self.disturbed = self.now();
        }
        self.model.handle(event);
        self.look();
        if matches!(
            event,
            Event::Renew | Event::Link(Side::Downstream(_), _) | Event::UpstreamPrefixes(_)
        ) {
            self.check_all();
        }
    }

    /// The router hears a host. Returns false where the link is down.
    pub fn hear(&mut self, place: Place, fact: &Fact) -> bool {
        let (port, mac) = place;
        let Some(router) = self.downstream(port) else {
            return false;
        };
        self.tally.packets += 1;
        self.note(place, fact);
        let packet = &fact.packet(router.link_local.expect("it has one"));
        self.handle(heard(Side::Downstream(port), mac, packet));
        if let Some(address) = fact.address() {
            self.look_at(address);
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
        self.truth.hear(self.now(), (port, mac));
        if self.learns(address) && self.place_of(address).is_none() {
            self.truth.say(self.now(), (port, mac), address);
        }
        self.handle(Event::Remembered { port, mac, address });
    }

    pub fn set_upstream(&mut self, upstream: Option<Link>) {
        self.handle(Event::Link(Side::Upstream, upstream));
        self.forward_by(Side::Upstream, upstream.is_some());
    }

    pub fn set_downstream(&mut self, port: Port, downstream: Option<Link>) {
        if downstream.is_none() {
            // The engine cannot ask the host that it last knew to have an address there.
            let mut expected = std::mem::take(&mut self.truth.expected);
            expected.retain(|(_, address), _| self.port_of(*address) != Some(port));
            self.truth.expected = expected;
        }
        self.handle(Event::Link(Side::Downstream(port), downstream));
        self.forward_by(Side::Downstream(port), downstream.is_some());
    }

    /// The kernel forwards by the interface on a side, or no longer.
    fn forward_by(&mut self, side: Side, present: bool) {
        if self.config().mld_proxy.is_some() {
            self.handle(Event::Forwarding { side, present });
        }
    }

    /// Checks what the engine did, and whether it agrees with the truth.
    fn look(&mut self) {
        for deed in std::mem::take(&mut self.model.deeds) {
            self.tally.actions += 1;
            self.tally.failures += u64::from(!deed.succeeded);
            if let Some(sent) = self.look_at_action(&deed.action, deed.succeeded)
                && deed.succeeded
            {
                self.outbox.push(sent);
            }
        }
        if !self.is_listing {
            self.check();
        }
    }

    /// May the engine want this? Returns the question that a host may answer.
    fn look_at_action(&mut self, action: &Action, succeeded: bool) -> Option<Sent> {
        let now = self.now();
        match *action {
            Action::Mld(mld::Action::Streams(streams::Action::Query {
                port, destination, ..
            })) => {
                let is_general = destination == ALL_NODES;
                let group = if is_general {
                    Ipv6Addr::UNSPECIFIED
                } else {
                    destination
                };
                return Some(Sent::StreamQuery { port, group });
            }
            Action::Mld(mld::Action::Streams(_) | mld::Action::Report { .. }) => {}
            Action::Ndp(ndp::Action::Join(change) | ndp::Action::Leave(change)) => {
                let group = group_of(change.group.group());
                if change.join {
                    self.check_evidence(group);
                } else {
                    self.check_unpromised(group);
                }
                self.tally.changes += u64::from(succeeded);
                if succeeded {
                    self.failed.remove(&group);
                } else {
                    self.failed.insert(group, now);
                }
            }
            Action::Ndp(ndp::Action::Kernel(change)) => {
                let address = change.address;
                assert_ne!(address, OTHERS, "another program's entry is touched");
                if change.present {
                    self.check_answered(address);
                }
                if !succeeded {
                    self.disturbed = now;
                }
            }
            Action::Ndp(ndp::Action::Ask { question, .. }) => {
                self.tally.questions += 1;
                return Some(match question {
                    Question::Ask { port, mac, .. } => {
                        let place = (port, mac);
                        self.truth.ask(now, place);
                        Sent::Ask { place }
                    }
                    Question::Probe {
                        port, mac, target, ..
                    } => {
                        self.check_solicitation(port, target);
                        let place = (port, mac);
                        Sent::Probe { place, target }
                    }
                    Question::Resolve { port, target, .. } => {
                        self.check_solicitation(port, target);
                        Sent::Resolve { port, target }
                    }
                    Question::Query { port, group, .. } => {
                        let group = group.group();
                        Sent::Query { port, group }
                    }
                });
            }
            Action::Ndp(ndp::Action::Solicit {
                side, target, mac, ..
            }) => {
                return Some(match (side, mac) {
                    (Side::Upstream, _) => Sent::SolicitUpstream { target },
                    (Side::Downstream(port), None) => Sent::Resolve { port, target },
                    (Side::Downstream(port), Some(mac)) => {
                        let place = (port, mac);
                        Sent::Probe { place, target }
                    }
                });
            }
            Action::Ndp(ndp::Action::Advertise {
                side: Side::Upstream,
                target,
                ..
            }) => self.check_answered(target),
            Action::Ndp(ndp::Action::Advertise {
                side: Side::Downstream(port),
                mac,
                target,
                ..
            }) => {
                if mac.is_some() {
                    self.check_elsewhere(target, port);
                } else {
                    self.check_duplicate(target, port);
                    self.tally.warnings += 1;
                }
            }
        }
        None
    }

    fn check(&mut self) {
        self.tally.steps += 1;
        let next = self.model.next_deadline();
        let is_later = next.is_none_or(|next| next > self.model.now);
        assert!(is_later, "a deadline that does not pass: {next:?}");
        self.check_expected();
        let expired = self.model.count(Counter::Expired);
        let before = std::mem::replace(&mut self.expired, expired);
        if before != expired || self.tally.steps.is_multiple_of(1024) {
            self.check_all();
        }
    }

    /// No host is left, and the engine keeps nothing.
    pub fn assert_empty(&mut self) {
        self.check_all();
        self.model.assert_empty();
        assert!(self.model.engine.ndp().targets().is_empty());
    }
}
