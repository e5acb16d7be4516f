//! The engine: one [`Event`] in, drain the [`Action`]s, sleep until the one deadline.
//!
//! Actions are not queued but derived from the state when polled, so there is no queue that could overflow, and an action that
//! failed is simply still to be done.
//!
//! After every call that takes `&mut self`, poll the actions until there are none, then ask for the deadline anew.

use core::net::Ipv6Addr;

use log::{debug, info, trace, warn};

use crate::config::{Config, Port};
use crate::counters::{Counter, Counters};
use crate::groups::{Change, Groups};
use crate::listener::{Listener, Upstream};
use crate::neighbors::{Neighbors, Sighting};
use crate::time::{Duration, Instant};
use crate::wire::{self, Message};

/// Something that happened outside.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A packet was heard on a downstream, from its IPv6 header on.
    Packet { port: Port, packet: &'a [u8] },
    /// The upstream is like this now; `None` while there is no such interface.
    Upstream(Option<Upstream>),
}

/// Something to be done outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Become a member of the group upstream.
    Join(Change),
    /// End the membership.
    Leave(Change),
    /// Send the first `length` octets of the buffer, an IPv6 packet, out of the upstream to this multicast address.
    Transmit {
        length: usize,
        destination: Ipv6Addr,
    },
}

/// What a deadline is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Addresses are to be looked through for those that timed out.
    Expiry,
    /// All groups are to be reported, or a report that could not be sent is to be tried again.
    Refresh,
    /// Joins and leaves that failed are to be tried again.
    Retry,
}

/// The buffer that [`Engine::poll_action`] needs, in octets.
pub const BUFFER_LENGTH: usize = crate::listener::MAX_PACKET;

/// Between two warnings that a table is full.
const FULL_WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// All state of the protocol. It is large: put it in a static, not on the stack.
pub struct Engine {
    config: Config,
    neighbors: Neighbors,
    groups: Groups,
    listener: Listener,
    counters: Counters,
    /// The latest time told; time that goes back counts as this.
    now: Instant,
    full_warning: Option<Instant>,
}

impl Engine {
    /// An engine that learns nothing until it is [started](Self::start). All zero bits: a static one takes no room in the file.
    #[expect(
        clippy::new_without_default,
        reason = "a default would be built on the stack"
    )]
    pub const fn new() -> Self {
        Engine {
            config: Config::blank(),
            neighbors: Neighbors::new(),
            groups: Groups::new(),
            listener: Listener::new(),
            counters: Counters::new(),
            now: Instant::ZERO,
            full_warning: None,
        }
    }

    /// Starts with a [checked](Config::check) configuration and 16 octets that nobody else can guess. To be called once.
    pub fn start(&mut self, config: Config, seed: [u8; 16]) {
        self.config = config;
        self.neighbors.set_hash_key(seed);
        self.groups.set_hash_key(seed);
    }

    /// Takes one event. `now` is never earlier than before; where it is, it counts as before.
    pub fn handle(&mut self, now: Instant, event: Event<'_>) {
        self.advance(now);
        match event {
            Event::Packet { port, packet } => self.handle_packet(port, packet),
            Event::Upstream(upstream) => self.handle_upstream(upstream),
        }
    }

    /// Does what is due at `now`. Harmless at any time.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.advance(now);
        let Engine {
            config,
            neighbors,
            groups,
            listener,
            counters,
            now,
            full_warning: _,
        } = self;
        neighbors.handle_timeout(
            *now,
            config.address_timeout,
            config.expiry_interval,
            |address| {
                groups.release(address);
                counters.count(Counter::Expired);
                debug!("expired {address}");
            },
        );
        groups.handle_timeout(*now);
        listener.handle_timeout(*now, config.refresh_interval);
    }

    /// The next thing to do. Carry it out, tell [`Self::done`], and poll again: until then the same action is returned. `buffer`
    /// has at least [`BUFFER_LENGTH`] octets.
    pub fn poll_action(&mut self, buffer: &mut [u8]) -> Option<Action> {
        self.listener.upstream()?;
        if let Some(change) = self.groups.poll_change() {
            return Some(if change.join {
                Action::Join(change)
            } else {
                Action::Leave(change)
            });
        }
        let Engine {
            listener, groups, ..
        } = self;
        let length = listener.poll_report(|first| groups.joined_from(first), buffer)?;
        Some(Action::Transmit {
            length,
            destination: wire::ALL_MLDV2_ROUTERS,
        })
    }

    /// The action polled last succeeded, or failed and is to be tried again later.
    pub fn done(&mut self, now: Instant, action: &Action, succeeded: bool) {
        self.advance(now);
        let counter = match action {
            Action::Join(_) | Action::Leave(_) if !succeeded => Counter::MembershipFailed,
            Action::Join(_) => Counter::Joined,
            Action::Leave(_) => Counter::Left,
            Action::Transmit { .. } if !succeeded => Counter::TransmitFailed,
            Action::Transmit { .. } => Counter::Transmitted,
        };
        self.counters.count(counter);
        match action {
            Action::Join(change) => {
                self.groups.done(self.now, change, succeeded);
                if succeeded {
                    info!("joined {} for {}", change.group, change.address);
                    self.listener.start(self.now, self.config.refresh_interval);
                }
            }
            Action::Leave(change) => {
                self.groups.done(self.now, change, succeeded);
                if succeeded {
                    info!("left {}, {} was its last", change.group, change.address);
                    self.stop_refresh_without_groups();
                }
            }
            Action::Transmit { .. } => self.listener.done(self.now, succeeded),
        }
    }

    /// When to call [`Self::handle_timeout`], and what for; `None` where nothing will ever be due by itself.
    pub fn next_deadline(&self) -> Option<(Instant, Reason)> {
        let deadlines = [
            (self.neighbors.next_deadline(), Reason::Expiry),
            (self.listener.next_deadline(), Reason::Refresh),
            (self.groups.next_deadline(), Reason::Retry),
        ];
        deadlines
            .into_iter()
            .filter_map(|(deadline, reason)| Some((deadline?, reason)))
            .min_by_key(|(deadline, _)| *deadline)
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn neighbors(&self) -> &Neighbors {
        &self.neighbors
    }

    pub fn groups(&self) -> &Groups {
        &self.groups
    }

    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    fn advance(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }

    fn handle_packet(&mut self, port: Port, packet: &[u8]) {
        match wire::parse(packet) {
            Ok(Message::NeighborSolicitation(solicitation)) => {
                self.counters.count(Counter::NeighborSolicitation);
                // RFC 4862 §5.4.2: in Duplicate Address Detection the source is `::` and the target is the sender's own.
                let address = if solicitation.source.is_unspecified() {
                    solicitation.target
                } else {
                    solicitation.source
                };
                self.sighted(port, address);
            }
            Ok(Message::NeighborAdvertisement(advertisement)) => {
                self.counters.count(Counter::NeighborAdvertisement);
                self.sighted(port, advertisement.target);
            }
            Ok(
                Message::Query(_) | Message::ReportV1(_) | Message::ReportV2(_) | Message::Done(_),
            ) => self.counters.count(Counter::Mld),
            Err(reason) => {
                self.counters.count_dropped(reason);
                trace!("{}", reason.name());
            }
        }
    }

    /// An address was seen downstream: its group is wanted with the first sighting.
    fn sighted(&mut self, port: Port, address: Ipv6Addr) {
        if !self.config.learns(address) {
            return;
        }
        let interval = self.config.expiry_interval;
        match self.neighbors.sighted(self.now, address, port, interval) {
            Ok(Sighting::Renewed) => {}
            Ok(Sighting::New) => {
                if self.groups.acquire(address).is_err() {
                    self.neighbors.remove(address);
                    self.refuse(address, Counter::GroupTableFull);
                    return;
                }
                self.counters.count(Counter::Learned);
                if let Some(downstream) = self.config.downstreams.get(usize::from(port)) {
                    debug!("learned {address} on {downstream}");
                }
            }
            Err(_) => self.refuse(address, Counter::AddressTableFull),
        }
    }

    fn refuse(&mut self, address: Ipv6Addr, counter: Counter) {
        self.counters.count(counter);
        let quiet = |last: Instant| self.now.since(last) < FULL_WARNING_INTERVAL;
        if !self.full_warning.is_some_and(quiet) {
            self.full_warning = Some(self.now);
            warn!(
                "table full with {} addresses in {} groups: {address} and others will not be reachable",
                self.neighbors.len(),
                self.groups.len()
            );
        }
    }

    fn handle_upstream(&mut self, upstream: Option<Upstream>) {
        let index = |upstream: Option<&Upstream>| upstream.map(|upstream| upstream.index);
        if index(upstream.as_ref()) != index(self.listener.upstream()) {
            self.groups.forget_memberships();
        }
        self.listener.set_upstream(upstream);
        self.stop_refresh_without_groups();
    }

    fn stop_refresh_without_groups(&mut self) {
        if self.groups.is_empty() {
            self.listener.stop();
        }
    }
}
