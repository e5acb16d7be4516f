//! Who lives on the LAN, and how the WAN reaches them.
//!
//! `learning` makes neighbors of what the engine hears. [`neighbors`] keeps them and asks their
//! hosts. `claims` decides whose an address is, by [`contests`]. [`solicited`] has their groups
//! joined upstream. `proxying` has the kernel answer for them through [`kernel_entries`], and finds
//! [`targets`] elsewhere.

mod claims;
pub mod contests;
pub mod kernel_entries;
mod learning;
mod links;
mod log_lines;
pub mod neighbors;
mod proxying;
pub mod solicited;
pub mod targets;
mod whereabouts;

use core::net::Ipv6Addr;

use log::{Level, debug, log};

use crate::config::{Config, QUERY_INTERVAL, ROBUSTNESS};
use crate::context::Context;
use crate::counters::Counter;
use crate::link::{Link, Side};
use crate::tables::rate::{Bucket, Throttle};
use crate::time::{Duration, Instant};
use crate::wire::{MacAddress, Query, QueryVersion, SolicitedNode, Sources};

use contests::Contests;
use kernel_entries::{KernelEntries, KernelTable};
use log_lines::{Because, Named};
use neighbors::{ASK_RESPONSE_DELAY, Identity, Neighbors, Question, Sender};
use solicited::Groups;
use targets::Targets;

/// An action for the caller to carry out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Become a member of the group upstream.
    Join(solicited::Change),
    /// End the membership.
    Leave(solicited::Change),
    /// Send the first `length` octets of the buffer, an IPv6 packet that asks the question, on the
    /// question's port.
    Ask { length: usize, question: Question },
    /// Change one of the kernel's tables.
    Kernel(kernel_entries::Change),
    /// Send the first `length` octets of the buffer, a Neighbor Solicitation, to a host or (without
    /// `mac`) to a group.
    Solicit {
        length: usize,
        side: Side,
        destination: Ipv6Addr,
        mac: Option<MacAddress>,
        target: Ipv6Addr,
    },
    /// Send the first `length` octets of the buffer, a Neighbor Advertisement, to a host or
    /// (without `mac`) to a group.
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
    /// The neighbors and hosts are to be swept for those that expire.
    Expiry,
    /// Groups are to be left, or failed joins and leaves to be retried.
    Membership,
    /// A question to a host is due.
    Question,
    /// A host that a limit refused is to be tried again.
    Latecomer,
    /// A failed change of the kernel's tables is to be retried.
    KernelTable,
    /// What is known of a target elsewhere is to be checked.
    Target,
    /// An address is to be announced upstream.
    Announcement,
}

/// The most own addresses kept, each counted once for each interface that has it. Any other counts
/// as a host's.
pub const MAX_OWN: usize = 128;
/// The response delay of questions to hosts where the router is an MLD proxy, as long as that of
/// its first query: a Linux host that is asked twice answers the last question alone.
const PROXY_RESPONSE_DELAY: Duration = Duration::from_millis(100);
/// How many joins and leaves the log shows at level info, in a second and at once. Any more are at
/// level debug.
const LINE_RATE: u32 = 1;
const LINE_BURST: u32 = 500;

/// An address of this router on one of its interfaces.
#[derive(Clone, Copy)]
struct Own {
    index: u32,
    address: Ipv6Addr,
    prefix_length: u8,
    /// The caller has told it since it began to tell all own addresses anew.
    told: bool,
}

/// What [`Ndp`] is kept in.
pub struct Storage {
    neighbors: neighbors::Storage,
    groups: solicited::Storage,
    targets: targets::Storage,
    contests: contests::Storage,
    kernel_entries: kernel_entries::Storage,
}

impl Storage {
    pub(crate) const fn new() -> Self {
        Storage {
            neighbors: neighbors::Storage::new(),
            groups: solicited::Storage::new(),
            targets: targets::Storage::new(),
            contests: contests::Storage::new(),
            kernel_entries: kernel_entries::Storage::new(),
        }
    }
}

/// Neighbor Discovery on all links, as a capability of the engine.
pub struct Ndp<'t> {
    neighbors: Neighbors<'t>,
    groups: Groups<'t>,
    kernel_entries: KernelEntries<'t>,
    targets: Targets<'t>,
    contests: Contests<'t>,
    /// Limits the searches for who may have an address.
    searches: Bucket,
    /// This router's own addresses, which need no proxy.
    own: heapless::Vec<Own, MAX_OWN>,
    lines: Bucket,
    quota_lines: Throttle,
    rate_lines: Throttle,
    join_lines: Throttle,
    full_lines: Throttle,
    proxy_lines: Throttle,
}

impl<'t> Ndp<'t> {
    pub(crate) fn new(storage: &'t mut Storage, config: &Config, seed: [u8; 16]) -> Self {
        let Storage {
            neighbors,
            groups,
            targets,
            contests,
            kernel_entries,
        } = storage;
        Ndp {
            neighbors: Neighbors::new(neighbors, seed),
            groups: Groups::new(groups, seed),
            kernel_entries: KernelEntries::new(kernel_entries, config, seed),
            targets: Targets::new(targets, seed),
            contests: Contests::new(contests, seed),
            searches: Bucket::new(),
            own: heapless::Vec::new(),
            lines: Bucket::new(),
            quota_lines: Throttle::new(),
            rate_lines: Throttle::new(),
            join_lines: Throttle::new(),
            full_lines: Throttle::new(),
            proxy_lines: Throttle::new(),
        }
    }

    /// The host downstream that is known with an address.
    fn owner_of(&self, address: Ipv6Addr) -> Option<Sender> {
        let neighbor = self.neighbors.get(Identity::Address(address))?;
        self.neighbors.host_of(neighbor).map(|(owner, _)| owner)
    }

    pub fn neighbors(&self) -> &Neighbors<'t> {
        &self.neighbors
    }

    pub fn groups(&self) -> &Groups<'t> {
        &self.groups
    }

    pub fn kernel_entries(&self) -> &KernelEntries<'t> {
        &self.kernel_entries
    }

    pub fn targets(&self) -> &Targets<'t> {
        &self.targets
    }

    pub fn contests(&self) -> &Contests<'t> {
        &self.contests
    }

    /// Handles a change of the link on a side, which was like `before`.
    pub(crate) fn handle_link(&mut self, cx: &mut Context, side: Side, before: Option<Link>) {
        let link = cx.links.on(side);
        match side {
            Side::Upstream => {
                if link.map(|link| link.index) != before.map(|link| link.index) {
                    self.groups.forget_memberships();
                    self.kernel_entries.forget_upstream();
                }
                self.kernel_entries.retry();
            }
            Side::Downstream(port) => {
                if before.is_none() && link.is_some() {
                    self.neighbors.ask_all(cx.now, |on| on == port);
                    self.kernel_entries.retry();
                }
            }
        }
    }

    /// The user wants all hosts asked.
    pub(crate) fn handle_renew(&mut self, cx: &Context) {
        self.neighbors.ask_all(cx.now, |_| true);
    }

    /// The kernel's neighbor table no longer lists an address.
    pub(crate) fn handle_forgotten(&mut self, cx: &Context, address: Ipv6Addr) {
        self.neighbors.forgotten_by_kernel(cx.now, address);
    }

    /// Another program removed a proxy entry or route that the engine wants.
    pub(crate) fn handle_removed(&mut self, table: KernelTable, address: Ipv6Addr, side: Side) {
        self.kernel_entries.removed(table, address, side);
    }

    pub(crate) fn handle_timeout(&mut self, cx: &mut Context) {
        let Ndp {
            neighbors,
            groups,
            kernel_entries,
            ..
        } = self;
        let Context {
            now,
            config,
            counters,
            links,
            ..
        } = cx;
        let can_send = |port| links.downstream(port).is_some();
        neighbors.handle_timeout(*now, config, can_send, |identity| {
            counters.count(Counter::Expired);
            debug!("expired {}", Named(identity));
            release(groups, kernel_entries, *now, identity);
        });
        groups.handle_timeout(*now);
        kernel_entries.handle_timeout(*now);
        self.handle_target_timeout(cx);
        self.admit_latecomers(cx);
    }

    /// The next group, with its slot, that was to be left and is wanted again; each once.
    pub(crate) fn next_resumed(&mut self) -> Option<(usize, SolicitedNode)> {
        self.groups.next_resumed()
    }

    /// The next action. The same one is returned until [`Self::done`] is told of it.
    pub(crate) fn poll_action(&mut self, cx: &Context, buffer: &mut [u8]) -> Option<Action> {
        self.poll_membership(cx)
            .or_else(|| self.poll_kernel_table(cx))
            .or_else(|| self.poll_answer(cx, buffer))
            .or_else(|| self.poll_target(cx, buffer))
            .or_else(|| self.poll_question(cx, buffer))
            .or_else(|| self.poll_announcement(cx, buffer))
    }

    /// Notes that the action polled last succeeded, or failed and is to be retried. Returns the
    /// membership that it changed.
    pub(crate) fn done(
        &mut self,
        cx: &mut Context,
        action: &Action,
        succeeded: bool,
    ) -> Option<solicited::Change> {
        let now = cx.now;
        let counter = match action {
            Action::Join(change) | Action::Leave(change) => {
                self.groups.done(now, change, succeeded);
                if succeeded {
                    let (counter, word) = if change.join {
                        (Counter::Joined, "joined")
                    } else {
                        (Counter::Left, "left")
                    };
                    log!(self.line_level(now), "{word} {}", Because(change));
                    cx.counters.count(counter);
                    return Some(*change);
                }
                cx.counters.count(Counter::MembershipFailed);
                return None;
            }
            Action::Kernel(change) => {
                self.kernel_entries.done(now, change, succeeded);
                match (change.table, change.present) {
                    _ if !succeeded => Counter::KernelTableFailed,
                    (KernelTable::Proxies, true) => Counter::ProxyAdded,
                    (KernelTable::Proxies, false) => Counter::ProxyRemoved,
                    (KernelTable::Routes, true) => Counter::RouteAdded,
                    (KernelTable::Routes, false) => Counter::RouteRemoved,
                }
            }
            // A question that could not be sent counts as lost on its way: the next one follows.
            Action::Ask { question, .. } => {
                self.neighbors.asked(now, question);
                match question {
                    _ if !succeeded => Counter::TransmitFailed,
                    Question::Ask { .. } => Counter::Asked,
                    Question::Query { .. } => Counter::Asked,
                    Question::Probe { .. } | Question::Resolve { .. } => Counter::Probed,
                }
            }
            Action::Solicit { target, side, .. } => {
                self.solicited(now, *target, *side);
                if succeeded {
                    Counter::Solicited
                } else {
                    Counter::TransmitFailed
                }
            }
            Action::Advertise { side, target, .. } => {
                self.advertised(now, *side, *target);
                match side {
                    _ if !succeeded => Counter::TransmitFailed,
                    Side::Upstream => Counter::Announced,
                    Side::Downstream(_) => Counter::Answered,
                }
            }
        };
        cx.counters.count(counter);
        None
    }

    pub(crate) fn next_deadline(&self, cx: &Context) -> Option<(Instant, Reason)> {
        // What cannot be sent has no deadline: it waits for the upstream link.
        let deadlines = [
            (self.neighbors.next_check(), Reason::Expiry),
            (self.groups.next_deadline(&cx.config), Reason::Membership),
            (self.neighbors.next_latecomer_at(), Reason::Latecomer),
            (self.neighbors.next_question(), Reason::Question),
            (self.kernel_entries.next_deadline(), Reason::KernelTable),
            (self.targets.next_deadline(), Reason::Target),
            (self.contests.next_deadline(), Reason::Target),
            (self.next_announcement(cx), Reason::Announcement),
        ];
        deadlines
            .into_iter()
            .filter_map(|(deadline, reason)| Some((deadline?, reason)))
            .min_by_key(|(deadline, _)| *deadline)
    }

    /// Must the caller poll the actions before it passes the next packet? Otherwise more answers
    /// might become due than can wait.
    pub(crate) fn has_to_act(&self) -> bool {
        self.targets.has_to_answer()
    }

    /// The level of a line on a join or leave. Each is worth a line, but not thousands at once.
    fn line_level(&mut self, now: Instant) -> Level {
        if self.lines.take(now, LINE_RATE, LINE_BURST) {
            Level::Info
        } else {
            Level::Debug
        }
    }

    fn poll_membership(&self, cx: &Context) -> Option<Action> {
        cx.links.upstream()?;
        let change = self.groups.poll_change()?;
        Some(if change.join {
            Action::Join(change)
        } else {
            Action::Leave(change)
        })
    }

    fn poll_question(&mut self, cx: &Context, buffer: &mut [u8]) -> Option<Action> {
        let Context {
            now, config, links, ..
        } = cx;
        let can_send = |port| links.downstream(port).is_some();
        let question = self.neighbors.poll_question(*now, config, can_send)?;
        let length = match question {
            Question::Ask {
                port, link_local, ..
            } => {
                let source = cx.links.source_on(Side::Downstream(port));
                let query = |source| query(config, source, link_local, Ipv6Addr::UNSPECIFIED);
                source.and_then(|(source, _)| query(source).emit(buffer))
            }
            Question::Query { port, group, .. } => {
                let source = cx.links.source_on(Side::Downstream(port));
                let group = group.group();
                source.and_then(|(source, _)| query(config, source, group, group).emit(buffer))
            }
            Question::Probe { port, target, .. } => {
                proxying::emit_solicitation(cx, Side::Downstream(port), target, target, buffer)
            }
            Question::Resolve { port, target, .. } => {
                let group = SolicitedNode::of(target).group();
                proxying::emit_solicitation(cx, Side::Downstream(port), group, target, buffer)
            }
        };
        // The link cannot send now, so the question counts as lost on its way.
        let length = length.unwrap_or(0);
        Some(Action::Ask { length, question })
    }
}

/// A General Query to one host, which makes nobody the link's querier, or a Multicast Address
/// Specific Query to the group. It carries the variables of the MLD proxy, or else the defaults,
/// since a host adopts what it hears (RFC 3810 §6.2).
fn query(
    config: &Config,
    source: Ipv6Addr,
    destination: Ipv6Addr,
    group: Ipv6Addr,
) -> Query<'static> {
    let proxy = config.mld_proxy.as_ref();
    let (robustness, query_interval, max_response_delay) = match proxy {
        Some(proxy) => (proxy.robustness, proxy.query_interval, PROXY_RESPONSE_DELAY),
        None => (ROBUSTNESS, QUERY_INTERVAL, ASK_RESPONSE_DELAY),
    };
    Query {
        source,
        destination,
        group,
        max_response_delay,
        version: QueryVersion::V2 {
            suppress_router_processing: true,
            robustness,
            query_interval,
            sources: Sources::default(),
        },
    }
}

/// Releases what a removed neighbor held. Its group is wanted once less, and the kernel no longer
/// answers for its address.
fn release(
    groups: &mut Groups<'_>,
    kernel_entries: &mut KernelEntries<'_>,
    now: Instant,
    gone: Identity,
) {
    groups.release(now, gone.group(), address_of(gone));
    if let Identity::Address(address) = gone {
        kernel_entries.set(now, address, None);
    }
}

/// The address of a neighbor; for a listener the group's.
fn address_of(identity: Identity) -> Ipv6Addr {
    match identity {
        Identity::Address(address) => address,
        Identity::Listener(group, _) => group.group(),
    }
}
