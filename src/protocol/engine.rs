//! The engine: one [`Event`] in, drain the [`Action`]s, sleep until the one deadline.
//!
//! Actions are not queued but derived from the state when polled, so there is no queue that could overflow, and an action that
//! failed is simply still to be done.
//!
//! After every call that takes `&mut self`, poll the actions until there are none, then ask for the deadline anew.

mod learning;
mod log_lines;
mod proxying;

use core::net::Ipv6Addr;

use log::{Level, debug, log};

use crate::config::{Config, MAX_DOWNSTREAMS};
use crate::counters::{Counter, Counters};
use crate::link::{Port, Prefix, Side};
use crate::mld::host::{self, Listener, Upstream};
use crate::mld::state_changes::{StateChanges, Voice};
use crate::ndp::kernel_entries::{self, KernelTable, Listing, NdpProxy};
use crate::ndp::neighbors::{ASK_RESPONSE_DELAY, Neighbors, Question, Sender, Subject};
use crate::ndp::solicited::{self, Groups};
use crate::ndp::targets::Targets;
use crate::tables::rate::Bucket;
use crate::time::{Duration, Instant};
use crate::wire::{self, MacAddress, Message, Query, QueryVersion, SolicitedNode, Sources};

use log_lines::{Because, Named, Throttle, log_change};

/// Something that happened outside.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A packet was heard on a downstream, from its IPv6 header on. The sender's link-layer address is all zero where there is none.
    Packet {
        port: Port,
        mac: MacAddress,
        packet: &'a [u8],
    },
    /// A packet was heard on the upstream, as above.
    UpstreamPacket { mac: MacAddress, packet: &'a [u8] },
    /// The upstream is like this now; `None` while there is no such interface.
    Upstream(Option<Upstream>),
    /// A downstream is like this now; `None` while nothing can be sent there.
    Downstream(Port, Option<Downstream>),
    /// The kernel's neighbour table knows an address downstream.
    Remembered {
        port: Port,
        mac: MacAddress,
        address: Ipv6Addr,
    },
    /// The kernel's neighbour table no longer knows an address.
    Forgotten(Ipv6Addr),
    /// An address is this router's own on the interface with this number, or is no more. It may be
    /// its own on others as well.
    Own {
        index: u32,
        address: Ipv6Addr,
        present: bool,
    },
    /// All own addresses that are still there are about to be told anew. Until [`Event::OwnKnown`]
    /// those known before count as well.
    OwnUnknown,
    /// They have been told: those that were not are no more.
    OwnKnown,
    /// The prefixes on the upstream's link are these now. They count where [`Config::upstream_prefixes`] is set.
    UpstreamPrefixes(&'a [Prefix]),
    /// The kernel lists one of its tables.
    Listed(KernelTable, Listing),
    /// Somebody removed an entry or a route of this program's.
    Removed(KernelTable, Ipv6Addr, Side),
    /// Somebody wants all hosts asked and all groups reported anew.
    Renew,
}

/// What is needed to send on a downstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Downstream {
    /// Link-local, valid, not tentative.
    pub link_local: Ipv6Addr,
    /// All zero where the link has no such addresses.
    pub mac: MacAddress,
}

/// An address of this router on one of its interfaces.
#[derive(Clone, Copy)]
struct Own {
    index: u32,
    address: Ipv6Addr,
    /// It was told since [`Event::OwnUnknown`].
    told: bool,
}

/// Something to be done outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Become a member of the group upstream.
    Join(solicited::Change),
    /// End the membership.
    Leave(solicited::Change),
    /// Send the first `length` octets of the buffer, an IPv6 packet, out of the upstream to this multicast address.
    Report { length: usize, group: Ipv6Addr },
    /// Send the first `length` octets of the buffer, an IPv6 packet, out of a downstream to its host.
    Ask { length: usize, question: Question },
    /// Change one of the kernel's tables.
    Kernel(kernel_entries::Change),
    /// Send the first `length` octets of the buffer, a Neighbor Solicitation.
    Solicit {
        length: usize,
        side: Side,
        group: Ipv6Addr,
        target: Ipv6Addr,
    },
    /// Send the first `length` octets of the buffer, a Neighbor Advertisement, to a host or (without `mac`) to a group.
    Advertise {
        length: usize,
        side: Side,
        destination: Ipv6Addr,
        mac: Option<MacAddress>,
        target: Ipv6Addr,
    },
}

/// What a deadline is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Addresses are to be looked through for those that timed out.
    Expiry,
    /// All groups are to be reported, or a report that could not be sent is to be tried again.
    Refresh,
    /// Groups are to be left, or joins and leaves that failed to be tried again.
    Membership,
    /// Hosts are to be asked whether they are still there.
    Question,
    /// A host that could not be taken in when it was heard is to be tried again.
    Latecomer,
    /// A change of the kernel's tables that failed is to be tried again.
    KernelTable,
    /// What was found of targets elsewhere is to be looked at again.
    Target,
    /// An address is to be announced upstream.
    Announcement,
}

/// The buffer that [`Engine::poll_action`] needs, in octets.
pub const BUFFER_LENGTH: usize = host::MAX_PACKET;

/// The most own addresses known, each counted once for each interface that has it; of more, the
/// rest counts as anybody's.
pub const MAX_OWN: usize = 128;
/// Lines of joins and leaves a second, and at once, before they are for debugging alone.
const LINE_RATE: u32 = 1;
const LINE_BURST: u32 = 500;

/// The shortest time from a query to its answer in another version than the kernel's: ten a second.
const MIN_ANSWER_DELAY: Duration = Duration::from_millis(100);

/// What a report is of.
#[derive(Clone, Copy)]
enum Reporting {
    /// All groups joined.
    All,
    /// Those joined just now.
    Joins,
    /// Those about to be left.
    Leaves,
}

/// All state of the protocol. It is large: put it in a static, not on the stack.
pub struct Engine {
    config: Config,
    neighbors: Neighbors,
    groups: Groups,
    listener: Listener,
    state_changes: StateChanges<{ solicited::CAPACITY }, { solicited::CAPACITY / 32 }>,
    /// What the report polled last is of.
    reporting: Reporting,
    /// Every group is about to be left.
    ending: bool,
    ndp_proxy: NdpProxy,
    targets: Targets,
    downstreams: [Option<Downstream>; MAX_DOWNSTREAMS],
    /// This router's own addresses, which need no proxy.
    own: heapless::Vec<Own, MAX_OWN>,
    counters: Counters,
    /// The latest time told; time that goes back counts as this.
    now: Instant,
    lines: Bucket,
    quota_lines: Throttle,
    rate_lines: Throttle,
    join_lines: Throttle,
    full_lines: Throttle,
    proxy_lines: Throttle,
    querier_lines: Throttle,
}

impl Engine {
    /// An engine that learns nothing until it is [started](Self::start). All zero bits: a static one takes no room in the file.
    pub const fn new() -> Self {
        Engine {
            config: Config::blank(),
            neighbors: Neighbors::new(),
            groups: Groups::new(),
            listener: Listener::new(),
            state_changes: StateChanges::new(),
            reporting: Reporting::All,
            ending: false,
            ndp_proxy: NdpProxy::new(),
            targets: Targets::new(),
            downstreams: [None; MAX_DOWNSTREAMS],
            own: heapless::Vec::new(),
            counters: Counters::new(),
            now: Instant::ZERO,
            lines: Bucket::new(),
            quota_lines: Throttle::new(),
            rate_lines: Throttle::new(),
            join_lines: Throttle::new(),
            full_lines: Throttle::new(),
            proxy_lines: Throttle::new(),
            querier_lines: Throttle::new(),
        }
    }

    /// Starts with a [checked](Config::check) configuration and 16 octets that nobody else can guess. To be called once.
    pub fn start(&mut self, config: Config, seed: [u8; 16]) {
        self.config = config;
        self.neighbors.set_hash_key(seed);
        self.groups.set_hash_key(seed);
        self.targets.set_hash_key(seed);
        self.ndp_proxy.start(&self.config, seed);
    }

    /// Takes one event. `now` is never earlier than before; where it is, it counts as before.
    pub fn handle(&mut self, now: Instant, event: Event<'_>) {
        self.advance(now);
        match event {
            Event::Packet { port, mac, packet } => {
                self.handle_packet(Sender { port, mac }, packet);
            }
            Event::UpstreamPacket { mac, packet } => self.handle_upstream_packet(mac, packet),
            Event::Upstream(upstream) => self.handle_upstream(upstream),
            Event::Downstream(port, downstream) => {
                if let Some(known) = self.downstreams.get_mut(usize::from(port)) {
                    let is_back = known.is_none() && downstream.is_some();
                    *known = downstream;
                    if is_back {
                        self.neighbors.ask_all(self.now, |on| on == port);
                        self.ndp_proxy.retry();
                    }
                }
            }
            Event::Remembered { port, mac, address } => {
                self.handle_remembered(Sender { port, mac }, address);
            }
            Event::Forgotten(address) => self.neighbors.forgotten_by_kernel(self.now, address),
            Event::Own {
                index,
                address,
                present,
            } => self.handle_own(index, address, present),
            Event::OwnUnknown => self.own.iter_mut().for_each(|own| own.told = false),
            Event::OwnKnown => self.own.retain(|own| own.told),
            Event::UpstreamPrefixes(prefixes) => self.handle_prefixes(prefixes),
            Event::Listed(table, listing) => self.handle_listed(table, listing),
            Event::Removed(table, address, side) => self.ndp_proxy.removed(table, address, side),
            Event::Renew => {
                self.neighbors.ask_all(self.now, |_| true);
                self.listener.report_all();
            }
        }
        self.follow_neighbors();
    }

    /// Does what is due at `now`. Harmless at any time.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.advance(now);
        let Engine {
            config,
            neighbors,
            groups,
            ndp_proxy,
            listener,
            state_changes,
            counters,
            now,
            ..
        } = self;
        neighbors.handle_timeout(*now, config, |subject| {
            counters.count(Counter::Expired);
            debug!("expired {}", Named(subject));
            release(groups, ndp_proxy, *now, subject);
        });
        groups.handle_timeout(*now);
        state_changes.handle_timeout(*now);
        ndp_proxy.handle_timeout(*now);
        listener.handle_timeout(*now, config, log_change);
        self.handle_target_timeout();
        self.admit_latecomers();
        self.follow_neighbors();
    }

    /// All groups are about to be left, and what is still to be done is to report that. No event
    /// comes any more.
    pub fn end(&mut self) {
        self.ending = true;
    }

    /// The next thing to do. Carry it out, tell [`Self::done`], and poll again: until then the same action is returned. `buffer`
    /// has at least [`BUFFER_LENGTH`] octets.
    pub fn poll_action(&mut self, buffer: &mut [u8]) -> Option<Action> {
        if self.ending {
            return self.poll_leaves(buffer);
        }
        self.poll_membership(buffer)
            .or_else(|| self.poll_kernel_table())
            .or_else(|| self.poll_answer(buffer))
            .or_else(|| self.poll_target(buffer))
            .or_else(|| self.poll_report(buffer))
            .or_else(|| self.poll_question(buffer))
            .or_else(|| self.poll_announcement(buffer))
    }

    /// The action polled last succeeded, or failed and is to be tried again later.
    pub fn done(&mut self, now: Instant, action: &Action, succeeded: bool) {
        self.advance(now);
        let counter = match action {
            Action::Join(_) | Action::Leave(_) if !succeeded => Counter::MembershipFailed,
            Action::Join(_) => Counter::Joined,
            Action::Leave(_) => Counter::Left,
            Action::Kernel(_) if !succeeded => Counter::KernelTableFailed,
            Action::Kernel(change) => match (change.table, change.present) {
                (KernelTable::Proxies, true) => Counter::ProxyAdded,
                (KernelTable::Proxies, false) => Counter::ProxyRemoved,
                (KernelTable::Routes, true) => Counter::RouteAdded,
                (KernelTable::Routes, false) => Counter::RouteRemoved,
            },
            Action::Report { .. }
            | Action::Ask { .. }
            | Action::Solicit { .. }
            | Action::Advertise { .. }
                if !succeeded =>
            {
                Counter::TransmitFailed
            }
            Action::Report { .. } => Counter::Reported,
            Action::Ask { question, .. } => match question {
                Question::Ask { .. } => Counter::Asked,
                Question::Probe { .. } | Question::Resolve { .. } => Counter::Probed,
            },
            Action::Solicit { .. } => Counter::Solicited,
            Action::Advertise { side, .. } => match side {
                Side::Upstream => Counter::Announced,
                Side::Downstream(_) => Counter::Answered,
            },
        };
        self.counters.count(counter);
        match action {
            Action::Join(change) => {
                self.groups.done(self.now, change, succeeded);
                if succeeded {
                    let voice = self.voice();
                    self.state_changes
                        .joined(change.slot, change.group, voice.as_ref());
                    log!(self.line_level(), "joined {}", Because(change));
                    self.listener.start(self.now, self.config.refresh_interval);
                }
            }
            Action::Leave(change) => {
                self.groups.done(self.now, change, succeeded);
                if succeeded {
                    self.state_changes.left(change.slot);
                    log!(self.line_level(), "left {}", Because(change));
                    self.stop_refresh_without_groups();
                }
            }
            Action::Report { .. } => self.reported(succeeded),
            // One that could not be sent is one that was lost: the next follows.
            Action::Ask { question, .. } => self.neighbors.asked(self.now, question),
            Action::Kernel(change) => self.ndp_proxy.done(self.now, change, succeeded),
            Action::Solicit { target, side, .. } => self.targets.asked(*target, *side),
            Action::Advertise { side, target, .. } => self.advertised(*side, *target),
        }
    }

    /// When to call [`Self::handle_timeout`], and what for; `None` where nothing will ever be due by itself.
    pub fn next_deadline(&self) -> Option<(Instant, Reason)> {
        // What cannot be sent waits for an upstream, however long that takes.
        let deadlines = [
            (self.neighbors.next_check(), Reason::Expiry),
            (self.listener.next_deadline(), Reason::Refresh),
            (self.state_changes.next_deadline(), Reason::Refresh),
            (self.groups.next_deadline(&self.config), Reason::Membership),
            (self.neighbors.next_latecomer_at(), Reason::Latecomer),
            (self.neighbors.next_question(), Reason::Question),
            (self.ndp_proxy.next_deadline(), Reason::KernelTable),
            (self.targets.next_deadline(), Reason::Target),
            (self.next_announcement(), Reason::Announcement),
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

    pub fn listener(&self) -> &Listener {
        &self.listener
    }

    pub fn ndp_proxy(&self) -> &NdpProxy {
        &self.ndp_proxy
    }

    pub fn targets(&self) -> &Targets {
        &self.targets
    }

    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Joins and leaves are worth a line each, but not thousands of them at once.
    fn line_level(&mut self) -> Level {
        if self.lines.take(self.now, LINE_RATE, LINE_BURST) {
            Level::Info
        } else {
            Level::Debug
        }
    }

    fn advance(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }

    fn poll_membership(&mut self, buffer: &mut [u8]) -> Option<Action> {
        self.listener.upstream()?;
        let change = self.groups.poll_change()?;
        if change.join {
            return Some(Action::Join(change));
        }
        let told = self.state_changes.is_told(change.slot);
        let report = if told { None } else { self.poll_leaves(buffer) };
        Some(report.unwrap_or(Action::Leave(change)))
    }

    /// How joins and leaves are to be reported, where the kernel does not do so in the version in
    /// force, and there is an address to report from.
    fn voice(&self) -> Option<Voice> {
        let listener = &self.listener;
        let source = listener.upstream()?.link_local?;
        listener.kernel_differs(&self.config).then(|| Voice {
            version: listener.version(&self.config),
            source,
            robustness: listener.robustness(),
        })
    }

    fn poll_leaves(&mut self, buffer: &mut [u8]) -> Option<Action> {
        let voice = self.voice()?;
        let buffer = self.listener.packet(buffer)?;
        let leaving_from = |first| self.groups.leaving_from(first, self.ending);
        let report = self.state_changes.poll_leaves(&voice, leaving_from, buffer);
        let (length, group) = report?;
        self.reporting = Reporting::Leaves;
        Some(Action::Report { length, group })
    }

    fn poll_report(&mut self, buffer: &mut [u8]) -> Option<Action> {
        if let Some(voice) = self.voice()
            && let Some(buffer) = self.listener.packet(buffer)
            && let Some((length, group)) =
                self.state_changes
                    .poll_report(&voice, |slot| self.groups.at(slot), buffer)
        {
            self.reporting = Reporting::Joins;
            return Some(Action::Report { length, group });
        }
        self.reporting = Reporting::All;
        let Engine {
            config,
            listener,
            groups,
            ..
        } = self;
        let groups_from = |first| groups.joined_from(first);
        let (length, group) = listener.poll_report(config, groups_from, buffer)?;
        Some(Action::Report { length, group })
    }

    /// The report polled last was sent, or could not be.
    fn reported(&mut self, succeeded: bool) {
        let (now, voice) = (self.now, self.voice());
        match (self.reporting, voice) {
            (Reporting::Joins, Some(voice)) => self.state_changes.done(now, &voice, succeeded),
            (Reporting::Leaves, Some(voice)) => {
                let leaving_from = |first| self.groups.leaving_from(first, self.ending);
                self.state_changes.leaves_done(now, &voice, leaving_from);
            }
            (Reporting::All | Reporting::Joins | Reporting::Leaves, _) => {
                let groups = self.groups.len();
                self.listener.done(now, &self.config, groups, succeeded);
            }
        }
    }

    /// The group is wanted. If its leave was reported and not carried out yet, the querier believes
    /// that it was left, and the kernel, which never left it, says nothing: it is reported again.
    fn take_back_leave(&mut self, group: SolicitedNode) {
        let Some(slot) = self.groups.joined_slot(group) else {
            return;
        };
        if !self.state_changes.is_told(slot) {
            return;
        }
        let voice = self.voice();
        self.state_changes.joined(slot, group, voice.as_ref());
        if voice.is_none() {
            self.listener.report_all();
        }
    }

    /// Answers a query in the version in force, where the kernel does so in another.
    fn answer_query(&mut self, query: &Query<'_>) {
        if !self.listener.kernel_differs(&self.config) {
            return;
        }
        let delay = self.listener.share_of(query.max_response_delay);
        let delay = delay.max(MIN_ANSWER_DELAY);
        if query.group.is_unspecified() {
            self.listener.answer(self.now, delay);
        } else if let Some(group) = SolicitedNode::from_group(query.group)
            && let Some(slot) = self.groups.joined_slot(group)
        {
            self.state_changes.asked_for(self.now, slot, delay);
        }
    }

    fn poll_question(&mut self, buffer: &mut [u8]) -> Option<Action> {
        let Engine {
            config,
            neighbors,
            downstreams,
            now,
            ..
        } = self;
        let can_send = |port: Port| {
            let downstream = downstreams.get(usize::from(port));
            downstream.is_some_and(Option::is_some)
        };
        let question = neighbors.poll_question(*now, config, can_send)?;
        let length = match question {
            Question::Ask {
                port, link_local, ..
            } => self.downstream(port).and_then(|downstream| {
                // To this one host: nobody becomes the link's querier by it. The rest says what a host assumes anyway, since
                // it adopts what it hears (RFC 3810 §6.2).
                let query = Query {
                    source: downstream.link_local,
                    destination: link_local,
                    group: Ipv6Addr::UNSPECIFIED,
                    max_response_delay: ASK_RESPONSE_DELAY,
                    version: QueryVersion::V2 {
                        suppress_router_processing: true,
                        robustness: host::ROBUSTNESS,
                        query_interval: host::QUERY_INTERVAL,
                        sources: Sources::default(),
                    },
                };
                query.emit(buffer)
            }),
            Question::Probe { port, target, .. } => {
                self.emit_solicitation(Side::Downstream(port), target, target, buffer)
            }
            Question::Resolve { port, target, .. } => {
                let group = SolicitedNode::of(target).group();
                self.emit_solicitation(Side::Downstream(port), group, target, buffer)
            }
        };
        // Nothing can be sent there now, which is no different from a question that is lost on its way.
        let length = length.unwrap_or(0);
        Some(Action::Ask { length, question })
    }

    /// Must the actions be polled before the next packet is handled? Else there might be more answers than can wait.
    pub fn has_to_act(&self) -> bool {
        self.targets.has_to_answer()
    }

    fn downstream(&self, port: Port) -> Option<Downstream> {
        self.downstreams.get(usize::from(port)).copied().flatten()
    }

    fn handle_upstream_packet(&mut self, mac: MacAddress, packet: &[u8]) {
        match wire::parse(packet) {
            Ok(Message::Query(query)) => {
                self.counters.count(Counter::Query);
                let Engine {
                    config,
                    listener,
                    querier_lines,
                    now,
                    ..
                } = self;
                // Two that take turns are told of now and then.
                listener.query_heard(*now, config, &query, |change| {
                    let another = matches!(change, host::Change::QuerierHeard(_));
                    if !another || querier_lines.allows(*now) {
                        log_change(change);
                    }
                });
                self.answer_query(&query);
            }
            Ok(Message::NeighborAdvertisement(advertisement)) => {
                self.handle_upstream_advertisement(mac, &advertisement);
            }
            Ok(Message::NeighborSolicitation(solicitation)) => {
                self.handle_upstream_solicitation(mac, &solicitation);
            }
            // Other listeners' reports are nobody's business here.
            Ok(Message::ReportV1(_) | Message::ReportV2(_) | Message::Done(_)) => {}
            Err(reason) => self.counters.count_dropped(reason),
        }
    }

    fn handle_upstream(&mut self, upstream: Option<Upstream>) {
        let index = |upstream: Option<&Upstream>| upstream.map(|upstream| upstream.index);
        if index(upstream.as_ref()) != index(self.listener.upstream()) {
            self.groups.forget_memberships();
            self.state_changes.clear();
            self.ndp_proxy.forget_upstream();
        }
        self.listener.set_upstream(self.now, upstream);
        self.ndp_proxy.retry();
        self.stop_refresh_without_groups();
    }

    fn stop_refresh_without_groups(&mut self) {
        if self.groups.is_empty() {
            self.listener.stop();
        }
    }
}

/// A subject is gone: its group is wanted once less, and nobody answers for its address any more.
fn release(groups: &mut Groups, ndp_proxy: &mut NdpProxy, now: Instant, subject: Subject) {
    groups.release(now, subject.group(), address_of(subject));
    if let Subject::Address(address) = subject {
        ndp_proxy.set(now, address, None);
    }
}

/// The address of a subject; of a listener's the group's.
fn address_of(subject: Subject) -> Ipv6Addr {
    match subject {
        Subject::Address(address) => address,
        Subject::Listener(group, _) => group.group(),
    }
}
