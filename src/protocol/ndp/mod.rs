//! Who lives on the LAN, and how the WAN reaches them.
//!
//! `learning` makes neighbors out of what is heard, [`neighbors`] keeps them and asks them,
//! [`solicited`] has their groups joined upstream, `proxying` has the kernel answer for them by
//! [`kernel_entries`], and finds [`targets`] elsewhere.

pub mod kernel_entries;
mod learning;
mod log_lines;
pub mod neighbors;
mod proxying;
pub mod solicited;
pub mod targets;

use core::net::Ipv6Addr;

use log::{Level, debug, log};

use crate::config::Config;
use crate::context::Context;
use crate::counters::Counter;
use crate::link::{Link, Side};
use crate::tables::rate::{Bucket, Throttle};
use crate::time::Instant;
use crate::wire::{MacAddress, Query, QueryVersion, SolicitedNode, Sources};

use kernel_entries::{KernelEntries, KernelTable};
use log_lines::{Because, Named};
use neighbors::{
    ASK_QUERY_INTERVAL, ASK_RESPONSE_DELAY, ASK_ROBUSTNESS, Identity, Neighbors, Question,
};
use solicited::Groups;
use targets::Targets;

/// Something to be done outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Become a member of the group upstream.
    Join(solicited::Change),
    /// End the membership.
    Leave(solicited::Change),
    /// Send the first `length` octets of the buffer, an IPv6 packet, out of a downstream to its
    /// host.
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
    /// Send the first `length` octets of the buffer, a Neighbor Advertisement, to a host or (without
    /// `mac`) to a group.
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

/// The most own addresses known, each counted once for each interface that has it; of more, the
/// rest counts as anybody's.
pub const MAX_OWN: usize = 128;
/// Lines of joins and leaves a second, and at once, before they are for debugging alone.
const LINE_RATE: u32 = 1;
const LINE_BURST: u32 = 500;

/// An address of this router on one of its interfaces.
#[derive(Clone, Copy)]
struct Own {
    index: u32,
    address: Ipv6Addr,
    /// It was told since all own addresses are told anew.
    told: bool,
}

/// What [`Ndp`] is kept in.
pub struct Storage {
    neighbors: neighbors::Storage,
    groups: solicited::Storage,
    targets: targets::Storage,
    kernel_entries: kernel_entries::Storage,
}

impl Storage {
    pub(crate) const fn new() -> Self {
        Storage {
            neighbors: neighbors::Storage::new(),
            groups: solicited::Storage::new(),
            targets: targets::Storage::new(),
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
            kernel_entries,
        } = storage;
        Ndp {
            neighbors: Neighbors::new(neighbors, seed),
            groups: Groups::new(groups, seed),
            kernel_entries: KernelEntries::new(kernel_entries, config, seed),
            targets: Targets::new(targets, seed),
            own: heapless::Vec::new(),
            lines: Bucket::new(),
            quota_lines: Throttle::new(),
            rate_lines: Throttle::new(),
            join_lines: Throttle::new(),
            full_lines: Throttle::new(),
            proxy_lines: Throttle::new(),
        }
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

    /// The link on a side was like `before`, and has changed.
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
                    self.neighbors.ask_all(cx.now, &cx.config, |on| on == port);
                    self.kernel_entries.retry();
                }
            }
        }
    }

    /// Somebody wants all hosts asked.
    pub(crate) fn handle_renew(&mut self, cx: &Context) {
        self.neighbors.ask_all(cx.now, &cx.config, |_| true);
    }

    /// The kernel's neighbour table no longer knows an address.
    pub(crate) fn handle_forgotten(&mut self, cx: &Context, address: Ipv6Addr) {
        self.neighbors
            .forgotten_by_kernel(cx.now, &cx.config, address);
    }

    /// Somebody removed an entry or a route of this program's.
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
            ..
        } = cx;
        neighbors.handle_timeout(*now, config, |identity| {
            counters.count(Counter::Expired);
            debug!("expired {}", Named(identity));
            release(groups, kernel_entries, *now, identity);
        });
        groups.handle_timeout(*now);
        kernel_entries.handle_timeout(*now);
        self.handle_target_timeout(cx);
        self.admit_latecomers(cx);
    }

    /// A group that was to be left and that somebody wants again, with its slot; each once.
    pub(crate) fn next_resumed(&mut self) -> Option<(usize, SolicitedNode)> {
        self.groups.next_resumed()
    }

    /// The next thing to do. The same one again until [`Self::done`] is told of it.
    pub(crate) fn poll_action(&mut self, cx: &Context, buffer: &mut [u8]) -> Option<Action> {
        self.poll_membership(cx)
            .or_else(|| self.poll_kernel_table(cx))
            .or_else(|| self.poll_answer(cx, buffer))
            .or_else(|| self.poll_target(cx, buffer))
            .or_else(|| self.poll_question(cx, buffer))
            .or_else(|| self.poll_announcement(cx, buffer))
    }

    /// The action polled last succeeded, or failed and is to be tried again later; the membership
    /// that it changed.
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
            // What could not be sent is as good as lost on its way: the next one follows.
            Action::Ask { question, .. } => {
                self.neighbors.asked(now, question);
                match question {
                    _ if !succeeded => Counter::TransmitFailed,
                    Question::Ask { .. } => Counter::Asked,
                    Question::Probe { .. } | Question::Resolve { .. } => Counter::Probed,
                }
            }
            Action::Solicit { target, side, .. } => {
                self.targets.asked(*target, *side);
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
        // What cannot be sent waits for an upstream, however long that takes.
        let deadlines = [
            (self.neighbors.next_check(), Reason::Expiry),
            (self.groups.next_deadline(&cx.config), Reason::Membership),
            (self.neighbors.next_latecomer_at(), Reason::Latecomer),
            (self.neighbors.next_question(), Reason::Question),
            (self.kernel_entries.next_deadline(), Reason::KernelTable),
            (self.targets.next_deadline(), Reason::Target),
            (self.next_announcement(cx), Reason::Announcement),
        ];
        deadlines
            .into_iter()
            .filter_map(|(deadline, reason)| Some((deadline?, reason)))
            .min_by_key(|(deadline, _)| *deadline)
    }

    /// Must the actions be polled before the next packet is handled? Else there might be more
    /// answers than can wait.
    pub(crate) fn has_to_act(&self) -> bool {
        self.targets.has_to_answer()
    }

    /// Joins and leaves are worth a line each, but not thousands of them at once.
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
                source.and_then(|(source, _)| general_query(source, link_local).emit(buffer))
            }
            Question::Probe { port, target, .. } => {
                proxying::emit_solicitation(cx, Side::Downstream(port), target, target, buffer)
            }
            Question::Resolve { port, target, .. } => {
                let group = SolicitedNode::of(target).group();
                proxying::emit_solicitation(cx, Side::Downstream(port), group, target, buffer)
            }
        };
        // Nothing can be sent there now, which is no different from a question that is lost on its
        // way.
        let length = length.unwrap_or(0);
        Some(Action::Ask { length, question })
    }
}

/// To one host: nobody becomes the link's querier by it. The rest says what a host assumes anyway,
/// since it adopts what it hears (RFC 3810 §6.2).
fn general_query(source: Ipv6Addr, host: Ipv6Addr) -> Query<'static> {
    Query {
        source,
        destination: host,
        group: Ipv6Addr::UNSPECIFIED,
        max_response_delay: ASK_RESPONSE_DELAY,
        version: QueryVersion::V2 {
            suppress_router_processing: true,
            robustness: ASK_ROBUSTNESS,
            query_interval: ASK_QUERY_INTERVAL,
            sources: Sources::default(),
        },
    }
}

/// A neighbor is gone: its group is wanted once less, and nobody answers for its address any more.
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

/// The address of a neighbor; of a listener's the group's.
fn address_of(identity: Identity) -> Ipv6Addr {
    match identity {
        Identity::Address(address) => address,
        Identity::Listener(group, _) => group.group(),
    }
}
