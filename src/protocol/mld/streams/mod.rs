//! The MLD proxy (RFC 4605): the router side of MLD on the downstreams, and what it makes of the
//! upstream and of the kernel's forwarding. What hosts and other routers say is in `heard`.

mod heard;

use core::net::Ipv6Addr;

use log::{Level, info, log, warn};

use super::LIST_LENGTH;
use super::members::specific::Specific;
use super::members::{self, Members};
use super::proxy::entries::{self, bit_of};
use super::proxy::merge::{Surroundings, Whereabouts};
use super::proxy::upstream::{self, Manner};
use super::proxy::{self, Counts, Proxy, Versions};
use super::querier::{Change, Querier, Timings};
use crate::config::{Config, MAX_PROXY_DOWNSTREAMS, MldVersion, ProxyConfig};
use crate::context::Context;
use crate::counters::Counter;
use crate::link::{Link, Port, Side};
use crate::tables::rate::{Bucket, Throttle};
use crate::time::{Duration, Instant, bring_forward, earliest};
use crate::wire::Sources;

/// The specific queries that a link gets in a second, and at once.
const QUERY_RATE: u32 = 20;
const QUERY_BURST: u32 = 40;
/// How many lines on groups the log shows at level info, in a second and at once.
const LINE_RATE: u32 = 1;
const LINE_BURST: u32 = 200;
/// How long after an event the router looks whether a source on a shared prefix has moved.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// A query downstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// All groups.
    General,
    /// A group, or sources of it.
    Specific(Specific, Timings),
}

/// An action of the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send the first `length` octets of the buffer, a query, on a downstream to a group.
    Query {
        port: Port,
        length: usize,
        destination: Ipv6Addr,
        about: About,
    },
    /// Change a membership upstream.
    Membership(upstream::Change),
    /// Change an entry of the kernel's forwarding table.
    Forward(entries::Change),
}

/// What [`Streams`] are kept in.
pub struct Storage {
    members: members::Storage,
    proxy: proxy::Storage,
}

impl Storage {
    pub(crate) const fn new() -> Self {
        Storage {
            members: members::Storage::new(),
            proxy: proxy::Storage::new(),
        }
    }
}

/// A downstream as its router.
struct Downstream {
    querier: Querier,
    /// Limits the groups that listeners add, and the specific queries.
    joins: Bucket,
    queries: Bucket,
    querier_lines: Throttle,
}

/// The MLD proxy, as a part of the capability [`Mld`](super::Mld).
pub struct Streams<'t> {
    members: Members<'t>,
    proxy: Proxy<'t>,
    downstreams: [Downstream; MAX_PROXY_DOWNSTREAMS],
    /// Is there a source that may move?
    has_movable: bool,
    /// When to look whether a source has moved; `None` while nothing happened since the last look.
    look_at: Option<Instant>,
    lines: Bucket,
    refusal_lines: Throttle,
    limit_lines: Throttle,
}

impl<'t> Streams<'t> {
    /// Nothing yet. Without a `config` the MLD proxy is off, and its tables stay untouched.
    pub(crate) fn new(
        storage: &'t mut Storage,
        config: Option<&ProxyConfig>,
        seed: [u8; 16],
    ) -> Self {
        let hash_key = config.map(|_| seed);
        let senders = config.is_some_and(|config| config.senders);
        Streams {
            members: Members::new(&mut storage.members, hash_key),
            proxy: Proxy::new(&mut storage.proxy, hash_key, senders),
            downstreams: [const {
                Downstream {
                    querier: Querier::new(),
                    joins: Bucket::new(),
                    queries: Bucket::new(),
                    querier_lines: Throttle::new(),
                }
            }; MAX_PROXY_DOWNSTREAMS],
            has_movable: false,
            look_at: None,
            lines: Bucket::new(),
            refusal_lines: Throttle::new(),
            limit_lines: Throttle::new(),
        }
    }

    pub fn members(&self) -> &Members<'t> {
        &self.members
    }

    pub fn proxy(&self) -> &Proxy<'t> {
        &self.proxy
    }

    /// The election on a downstream.
    pub fn querier(&self, port: Port) -> Option<&Querier> {
        let downstream = self.downstreams.get(usize::from(port))?;
        Some(&downstream.querier)
    }

    /// Are streams forwarded on a downstream (RFC 4605 §4.2)?
    pub fn forwards(&self, config: &ProxyConfig, port: Port) -> bool {
        let querier = self.querier(port);
        querier.is_some_and(|querier| querier.forwards(config))
    }

    /// The link on a downstream was like `before`, and has changed.
    pub(crate) fn handle_link(&mut self, cx: &Context, port: Port, before: Option<Link>) {
        let (Some(config), Some(downstream)) = (
            &cx.config.mld_proxy,
            self.downstreams.get_mut(usize::from(port)),
        ) else {
            return;
        };
        let source =
            |link: Option<&Link>| link.and_then(|link| Some((link.index, link.link_local?)));
        let now = source(cx.links.downstream(port));
        if now == source(before.as_ref()) {
            return;
        }
        self.members.end_queries(port);
        match now {
            Some(_) => downstream.querier.start(cx.now, config),
            None => downstream.querier.stop(),
        }
        self.proxy.note_all();
    }

    /// All memberships ended with the upstream.
    pub(crate) fn handle_upstream(&mut self) {
        self.proxy.forget_memberships();
    }

    /// The kernel forwards by the interface on a side, or no longer.
    pub(crate) fn handle_interface(&mut self, cx: &Context, side: Side, present: bool) {
        if cx.config.mld_proxy.is_some() {
            self.proxy.set_interface(side, present);
        }
    }

    /// All queries are to be sent anew.
    pub(crate) fn handle_renew(&mut self, cx: &Context) {
        let Some(config) = &cx.config.mld_proxy else {
            return;
        };
        for downstream in &mut self.downstreams {
            if downstream.querier.is_querier() {
                downstream.querier.start(cx.now, config);
            }
        }
    }

    pub(crate) fn handle_timeout(&mut self, cx: &Context) {
        let Some(config) = &cx.config.mld_proxy else {
            return;
        };
        let proxy = &mut self.proxy;
        self.members
            .handle_timeout(cx.now, |group| proxy.note(group));
        self.proxy.handle_timeout(cx.now);
        let ports = cx.config.downstreams.len();
        for (port, downstream) in (0..).zip(&mut self.downstreams).take(ports) {
            if let Some(change) = downstream.querier.handle_timeout(cx.now, config) {
                let forwards = downstream.querier.forwards(config);
                log_querier(&cx.config, port, change, forwards);
                self.proxy.note_all();
            }
        }
    }

    /// Derives what is wanted from what has changed.
    pub(crate) fn settle(
        &mut self,
        cx: &mut Context,
        whereabouts: &impl Whereabouts,
        versions: Versions,
    ) {
        let Some(config) = &cx.config.mld_proxy else {
            return;
        };
        if self.proxy.versions() != versions {
            self.proxy.note_all();
        }
        if self.look_at.is_some_and(|due| due <= cx.now) {
            self.look_at = None;
            self.has_movable = false;
            self.proxy.note_movable(whereabouts);
        } else if self.has_movable {
            bring_forward(&mut self.look_at, cx.now.saturating_add(LOOK_INTERVAL));
        }
        if !self.proxy.is_stale() {
            return;
        }
        let ports = (0..).take(cx.config.downstreams.len());
        let forwarded = ports
            .filter(|port| self.forwards(config, *port))
            .fold(0, |bits, port| bits | bit_of(Side::Downstream(port)));
        let around = Surroundings {
            config,
            whereabouts,
            links: &cx.links,
            versions,
            forwarded: forwarded & self.proxy.interfaces(),
        };
        let merged = self.proxy.merge(&self.members, &around);
        for _ in 0..merged.refused {
            cx.counters.count(Counter::RefusedSource);
        }
        self.has_movable |= merged.has_movable;
    }

    /// The addresses of this router changed, and so may the sides of sources.
    pub(crate) fn handle_own(&mut self) {
        self.proxy.note_all();
    }

    /// The next change of forwarding or of a membership. The same one again until [`Self::done`] is
    /// told of it. `solicited` is how many solicited-node groups are joined upstream.
    pub(crate) fn poll_change(&mut self, cx: &Context, solicited: usize) -> Option<Action> {
        let config = cx.config.mld_proxy.as_ref()?;
        if let Some(change) = self.proxy.poll_entry() {
            return Some(Action::Forward(change));
        }
        cx.links.upstream()?;
        let solicited = u16::try_from(solicited).unwrap_or(u16::MAX);
        let most = config.max_groups.saturating_sub(solicited);
        if let Some(change) = self.proxy.poll_membership(most) {
            return Some(Action::Membership(change));
        }
        if self.proxy.has_to_wait(most) && self.limit_lines.allows(cx.now) {
            warn!(
                "{} groups are joined on {}, and more have to wait; a bridge there may hold no \
                 more (hash_max); see --max-groups",
                config.max_groups, cx.config.upstream
            );
        }
        None
    }

    /// The next report of changed memberships. Without a `manner` nobody can report.
    pub(crate) fn poll_report(
        &mut self,
        manner: Option<&Manner>,
        buffer: &mut [u8],
    ) -> Option<(usize, Ipv6Addr)> {
        self.proxy.leave_reports(manner);
        self.proxy.poll_report(manner?, buffer)
    }

    /// All groups are left in the end.
    pub(crate) fn end(&mut self) {
        self.proxy.end();
    }

    pub(crate) fn report_done(&mut self, now: Instant, manner: &Manner) {
        self.proxy.report_done(now, manner);
    }

    /// The next query. The same one again until [`Self::done`] is told of it.
    pub(crate) fn poll_query(&mut self, cx: &Context, buffer: &mut [u8]) -> Option<Action> {
        let config = cx.config.mld_proxy.as_ref()?;
        let ports = cx.config.downstreams.len();
        for (port, downstream) in (0..).zip(&self.downstreams).take(ports) {
            let Some((own, _)) = cx.links.source_on(Side::Downstream(port)) else {
                continue;
            };
            if let Some(query) = downstream.querier.poll_query(cx.now, config, own) {
                return Some(Action::Query {
                    port,
                    length: query.emit(buffer)?,
                    destination: query.destination,
                    about: About::General,
                });
            }
        }
        if !self.members.has_due() {
            return None;
        }
        let timings_on = |port: Port| {
            cx.links.source_on(Side::Downstream(port))?;
            let downstream = self.downstreams.get(usize::from(port))?;
            let token = downstream.queries.next_token(QUERY_RATE, QUERY_BURST);
            (token <= cx.now).then(|| downstream.querier.timings(config))
        };
        let (specific, timings) = self.members.poll_specific(cx.now, timings_on)?;
        let (own, _) = cx.links.source_on(Side::Downstream(specific.port))?;
        let downstream = self.downstreams.get(usize::from(specific.port))?;
        let mut octets = [0; LIST_LENGTH];
        let sources = Sources::write(self.members.asked_about(&specific, &timings), &mut octets);
        let query = downstream.querier.query(
            config,
            own,
            specific.group,
            config.last_listener_interval,
            self.members.is_suppressing(&specific, &timings),
            sources,
        );
        Some(Action::Query {
            port: specific.port,
            length: query.emit(buffer)?,
            destination: query.destination,
            about: About::Specific(specific, timings),
        })
    }

    pub(crate) fn done(&mut self, cx: &mut Context, action: &Action, succeeded: bool) {
        let now = cx.now;
        let counter = match action {
            Action::Query { port, about, .. } => {
                let Some(downstream) = self.downstreams.get_mut(usize::from(*port)) else {
                    return;
                };
                match about {
                    About::General => downstream.querier.done(now, succeeded),
                    About::Specific(specific, timings) => {
                        downstream.queries.take(now, QUERY_RATE, QUERY_BURST);
                        self.members
                            .specific_sent(now, (specific, timings), succeeded);
                    }
                }
                match succeeded {
                    true => Counter::QuerySent,
                    false => Counter::TransmitFailed,
                }
            }
            Action::Membership(change) => {
                self.proxy.membership_done(now, change, succeeded);
                match (change.before, change.wanted) {
                    _ if !succeeded => Counter::MembershipFailed,
                    (None, _) => {
                        let level = self.line_level(now);
                        log!(level, "joined {} for listeners", change.group);
                        Counter::StreamJoined
                    }
                    (Some(_), None) => {
                        let level = self.line_level(now);
                        log!(level, "left {}, nobody listens", change.group);
                        Counter::StreamLeft
                    }
                    (Some(_), Some(_)) => Counter::FilterChanged,
                }
            }
            Action::Forward(change) => {
                self.proxy.entry_done(now, change, succeeded);
                match (succeeded, change.present) {
                    (false, _) => Counter::ForwardingFailed,
                    (true, true) => Counter::ForwardingWritten,
                    (true, false) => Counter::ForwardingRemoved,
                }
            }
        };
        cx.counters.count(counter);
    }

    /// The level of a line on a group.
    fn line_level(&mut self, now: Instant) -> Level {
        match self.lines.take(now, LINE_RATE, LINE_BURST) {
            true => Level::Info,
            false => Level::Debug,
        }
    }

    pub(crate) fn next_deadline(&self, cx: &Context) -> Option<Instant> {
        cx.config.mld_proxy.as_ref()?;
        let can_send = |port| cx.links.source_on(Side::Downstream(port)).is_some();
        let queriers = (0..)
            .zip(&self.downstreams)
            .take(cx.config.downstreams.len());
        let queriers = queriers.filter(|(port, _)| can_send(*port));
        let queriers = queriers.filter_map(|(_, downstream)| downstream.querier.next_deadline());
        // A specific query that is due waits for a token.
        let tokens = self.downstreams.iter().filter_map(|downstream| {
            let token = downstream.queries.next_token(QUERY_RATE, QUERY_BURST);
            (token > cx.now).then_some(token)
        });
        let is_waiting = self.members.has_due();
        earliest(&[
            queriers.min(),
            is_waiting.then(|| tokens.min()).flatten(),
            self.members.next_deadline(),
            self.proxy.next_deadline(),
            self.look_at,
        ])
    }

    /// What the kernel counted on an entry. `source` and `group` are as in its table.
    pub(crate) fn handle_counted(&mut self, source: Ipv6Addr, group: Ipv6Addr, counts: Counts) {
        self.proxy.set_counts(source, group, counts);
    }
}

/// Logs a change of a downstream's querier. `forwards` tells whether streams are forwarded there
/// now.
fn log_querier(config: &Config, port: Port, change: Change, forwards: bool) {
    let on = config.name_of(Side::Downstream(port));
    match change {
        Change::Elected => info!("this router is the querier on {on}"),
        Change::Silent => warn!(
            "nobody queries on {on} any more, so streams there end after some minutes; see \
             --querier"
        ),
        Change::Yielded(other) => {
            let version = match other.version {
                MldVersion::V1 => " by MLDv1, which --querier v1 speaks too",
                MldVersion::V2 => "",
            };
            if forwards {
                info!("{} is the querier on {on}{version}", other.address);
            } else {
                warn!(
                    "{} is the querier on {on}{version}: no stream is forwarded there \
                     (--forward always forwards all the same)",
                    other.address
                );
            }
        }
    }
}
