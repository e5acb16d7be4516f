//! Multicast Listener Discovery: the host side upstream, and with the MLD proxy the router side
//! downstream.
//!
//! The kernel is the member. It reports each join and leave and answers queries (RFC 3810 §6). The
//! router does what the kernel does not: [`host`] reports every group now and then although no
//! querier asks, and [`state_changes`] reports joins without the kernel's delay, and joins and
//! leaves in a version that the kernel does not speak.

pub mod filter;
pub mod host;
pub mod members;
pub mod proxy;
pub mod querier;
pub mod state_changes;
pub mod streams;

use core::net::Ipv6Addr;

use log::info;

use crate::config::{Config, MAX_SOURCES, MldVersion};
use crate::context::Context;
use crate::counters::Counter;
use crate::link::Link;
use crate::tables::rate::Throttle;
use crate::time::{Duration, Instant, earliest};
use crate::wire::{Query, RecordType, SolicitedNode};

use filter::FilterMode;
use host::{HostSide, Listed};
use proxy::merge::Whereabouts;
use proxy::upstream::Manner;
use proxy::{Proxy, Versions};
use state_changes::{Share, StateChanges, Voice};
use streams::Streams;

/// RFC 3810 §9.3: the Query Response Interval, where nothing else is told or asked.
const QUERY_RESPONSE_INTERVAL: Duration = Duration::from_secs(10);
/// From what could not be sent, joined, or written to the next attempt.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// The octets of the longest list of sources in a query or a record.
const LIST_LENGTH: usize = 16 * MAX_SOURCES as usize;
/// The shortest time from a query to its answer in another version than the kernel's: ten answers a
/// second.
const MIN_ANSWER_DELAY: Duration = Duration::from_millis(100);

/// Something to be done outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Streams(streams::Action),
    /// Send the first `length` octets of the buffer, an IPv6 packet, out of the upstream to this
    /// multicast address.
    Report {
        length: usize,
        group: Ipv6Addr,
    },
}

/// The groups that the router is a member of upstream. Each has a slot, below
/// [`state_changes::CAPACITY`], from before its join until after its leave.
pub trait Memberships {
    fn is_empty(&self) -> bool;

    /// How many groups are wanted or joined.
    fn len(&self) -> usize;

    /// The groups joined, with their slots, from a slot on.
    fn joined_from(&self, first: usize) -> impl Iterator<Item = (usize, SolicitedNode)>;

    /// The groups joined that are about to be left, with their slots, from a slot on.
    fn leaving_from(&self, first: usize) -> impl Iterator<Item = (usize, SolicitedNode)>;

    /// The slot of a group that is joined.
    fn joined_slot(&self, group: SolicitedNode) -> Option<usize>;

    /// The group at a slot.
    fn at(&self, slot: usize) -> Option<SolicitedNode>;
}

/// Which groups the report polled last names, and how it reports a change.
#[derive(Clone, Copy)]
enum Reporting {
    /// Those of streams whose membership changed.
    Streams(Manner),
    /// All groups joined.
    All,
    /// Those joined just now.
    Joins(Voice),
    /// Those about to be left.
    Leaves(Voice),
    /// All groups joined, which are left in the end.
    LastLeaves(Voice),
}

/// What [`Mld`] is kept in.
pub struct Storage {
    state_changes: state_changes::Storage,
    streams: streams::Storage,
}

impl Storage {
    pub(crate) const fn new() -> Self {
        Storage {
            state_changes: state_changes::Storage::new(),
            streams: streams::Storage::new(),
        }
    }
}

/// Multicast Listener Discovery, as a capability of the engine.
pub struct Mld<'t> {
    host: HostSide,
    state_changes: StateChanges<'t>,
    streams: Streams<'t>,
    reporting: Reporting,
    /// Every group is about to be left.
    ending: bool,
    querier_lines: Throttle,
}

impl<'t> Mld<'t> {
    pub(crate) fn new(storage: &'t mut Storage, config: &Config, seed: [u8; 16]) -> Self {
        Mld {
            host: HostSide::new(),
            state_changes: StateChanges::new(&mut storage.state_changes),
            streams: Streams::new(&mut storage.streams, config.mld_proxy.as_ref(), seed),
            reporting: Reporting::All,
            ending: false,
            querier_lines: Throttle::new(),
        }
    }

    pub fn host(&self) -> &HostSide {
        &self.host
    }

    /// The MLD proxy.
    pub fn streams(&self) -> &Streams<'t> {
        &self.streams
    }

    pub(crate) fn streams_mut(&mut self) -> &mut Streams<'t> {
        &mut self.streams
    }

    /// A query was heard upstream. If the kernel answers it in another version than the one in
    /// force, it is answered in this one too.
    pub(crate) fn handle_query(
        &mut self,
        cx: &mut Context,
        groups: &impl Memberships,
        query: &Query<'_>,
    ) {
        cx.counters.count(Counter::Query);
        let Mld {
            host,
            state_changes,
            streams,
            querier_lines,
            ..
        } = self;
        // Two queriers that take turns are logged now and then.
        host.query_heard(cx, query, |change| {
            let another = matches!(change, host::Change::QuerierHeard(_));
            if !another || querier_lines.allows(cx.now) {
                log_change(change);
            }
        });
        // What the kernel does not answer in the version in force, the router does.
        let (differs, proxy) = (host.kernel_differs(&cx.config), streams.proxy());
        let share = host.share_of(cx, query.max_response_delay);
        let delay = share.max(MIN_ANSWER_DELAY);
        if query.group.is_unspecified() {
            if differs || proxy.is_alone() {
                host.answer(cx.now, delay);
            }
        } else if let Some(group) = SolicitedNode::from_group(query.group) {
            if let Some(slot) = groups.joined_slot(group).filter(|_| differs) {
                state_changes.asked_for(cx.now, slot, delay);
            }
        } else if proxy.is_alone_in(query.group) || (differs && proxy.is_member(query.group)) {
            host.answer(cx.now, delay);
        }
    }

    /// The upstream was like `before`, and has changed.
    pub(crate) fn handle_upstream(
        &mut self,
        cx: &Context,
        groups: &impl Memberships,
        before: Option<Link>,
    ) {
        let index = |link: Option<&Link>| link.map(|link| link.index);
        if index(before.as_ref()) != index(cx.links.upstream()) {
            self.state_changes.clear();
            self.streams.handle_upstream();
        }
        self.host.upstream_changed(cx, before);
        self.stop_if_empty(groups);
    }

    /// Where no group is joined any more, there is nothing to refresh.
    fn stop_if_empty(&mut self, groups: &impl Memberships) {
        if groups.is_empty() && !self.streams.proxy().has_current() {
            self.host.stop();
        }
    }

    /// Refreshes the groups of streams while there are any.
    fn follow_streams(&mut self, cx: &Context, groups: &impl Memberships) {
        match self.streams.proxy().has_current() {
            true => self.host.start(cx.now, cx.config.refresh_interval),
            false => self.stop_if_empty(groups),
        }
    }

    /// A group was joined or left.
    pub(crate) fn handle_membership(
        &mut self,
        cx: &Context,
        groups: &impl Memberships,
        (slot, group): (usize, SolicitedNode),
        joined: bool,
    ) {
        if joined {
            // The kernel's report and one of the refresh are enough.
            let is_refreshed = self.host.is_about_to_report(slot);
            let voice = self.voice(cx);
            let voice = voice.filter(|voice| voice.is_sole() || !is_refreshed);
            self.state_changes.joined(slot, group, voice.as_ref());
            self.host.start(cx.now, cx.config.refresh_interval);
        } else {
            self.state_changes.left(slot);
            self.stop_if_empty(groups);
        }
    }

    /// Somebody wants all groups reported anew.
    pub(crate) fn handle_renew(&mut self, cx: &Context) {
        self.host.report_all();
        self.streams.handle_renew(cx);
    }

    pub(crate) fn handle_timeout(&mut self, cx: &Context) {
        self.state_changes.handle_timeout(cx.now);
        self.host.handle_timeout(cx, log_change);
        self.streams.handle_timeout(cx);
    }

    /// Derives what listeners make the router want from what has changed.
    #[inline]
    pub(crate) fn settle(&mut self, cx: &mut Context, whereabouts: &impl Whereabouts) {
        if cx.config.mld_proxy.is_none() {
            return;
        }
        let versions = Versions {
            in_force: self.host.version(&cx.config),
            of_kernel: self.host.heard_version(),
        };
        self.streams.settle(cx, whereabouts, versions);
    }

    /// A group is wanted again that was to be left. If its leave was reported, the querier believes
    /// that it was left, and the kernel, which never left it, reports nothing: so it is reported
    /// again.
    pub(crate) fn handle_resumed(&mut self, cx: &Context, slot: usize, group: SolicitedNode) {
        if !self.state_changes.is_told(slot) {
            return;
        }
        let voice = self.sole_voice(cx);
        self.state_changes.joined(slot, group, voice.as_ref());
        if voice.is_none() {
            self.host.report_all();
        }
    }

    /// All groups are about to be left, and nothing is left to do but to report that.
    pub(crate) fn end(&mut self) {
        self.ending = true;
        self.streams.end();
    }

    pub(crate) fn is_ending(&self) -> bool {
        self.ending
    }

    /// Was the leave of the group at a slot reported?
    pub(crate) fn has_reported_leave(&self, slot: usize) -> bool {
        self.state_changes.is_told(slot)
    }

    /// The next report of groups that are about to be left, the one at a slot first; `None` if the
    /// kernel reports it. The same one again until [`Self::done`] is told of it.
    pub(crate) fn poll_leaves(
        &mut self,
        cx: &Context,
        groups: &impl Memberships,
        slot: usize,
        buffer: &mut [u8],
    ) -> Option<Action> {
        let voice = self.sole_voice(cx)?;
        let buffer = host::packet(cx, buffer)?;
        let leaving_from = |first| groups.leaving_from(first);
        let report = self
            .state_changes
            .poll_leaves(&voice, slot, leaving_from, buffer);
        let (length, group) = report?;
        self.reporting = Reporting::Leaves(voice);
        Some(Action::Report { length, group })
    }

    /// The next report in the end, when all groups are left. The same one again until
    /// [`Self::done`] is told of it.
    pub(crate) fn poll_last_leaves(
        &mut self,
        cx: &Context,
        groups: &impl Memberships,
        buffer: &mut [u8],
    ) -> Option<Action> {
        let voice = self.sole_voice(cx);
        let buffer = host::packet(cx, buffer)?;
        let joined_from = |first| groups.joined_from(first);
        if let Some(voice) = voice
            && let Some((length, group)) =
                self.state_changes
                    .poll_last_leaves(&voice, joined_from, buffer)
        {
            self.reporting = Reporting::LastLeaves(voice);
            return Some(Action::Report { length, group });
        }
        let manner = self.manner(cx, voice.as_ref())?;
        let (length, group) = self.streams.poll_report(Some(&manner), buffer)?;
        self.reporting = Reporting::Streams(manner);
        Some(Action::Report { length, group })
    }

    /// The next action. The same one again until [`Self::done`] is told of it.
    pub(crate) fn poll_action(
        &mut self,
        cx: &Context,
        groups: &impl Memberships,
        buffer: &mut [u8],
    ) -> Option<Action> {
        if let Some(change) = self.streams.poll_change(cx, groups.len()) {
            return Some(Action::Streams(change));
        }
        self.poll_report(cx, groups, buffer)
            .or_else(|| self.streams.poll_query(cx, buffer).map(Action::Streams))
    }

    fn poll_report(
        &mut self,
        cx: &Context,
        groups: &impl Memberships,
        buffer: &mut [u8],
    ) -> Option<Action> {
        let voice = self.voice(cx);
        let packet = host::packet(cx, buffer)?;
        if self.streams.proxy().has_changes() {
            let manner = self.manner(cx, voice.as_ref());
            let report = self.streams.poll_report(manner.as_ref(), packet);
            if let (Some((length, group)), Some(manner)) = (report, manner) {
                self.reporting = Reporting::Streams(manner);
                return Some(Action::Report { length, group });
            }
        }
        if let Some(voice) = voice
            && let Some((length, group)) =
                self.state_changes
                    .poll_report(&voice, |slot| groups.at(slot), packet)
        {
            self.reporting = Reporting::Joins(voice);
            return Some(Action::Report { length, group });
        }
        self.reporting = Reporting::All;
        let proxy = self.streams.proxy();
        let listed_from = |first| listed_from(groups, proxy, first);
        let (length, group) = self.host.poll_report(cx, listed_from, proxy, packet)?;
        Some(Action::Report { length, group })
    }

    /// The action polled last was carried out, or could not be and is to be tried again later.
    pub(crate) fn done(
        &mut self,
        cx: &mut Context,
        groups: &impl Memberships,
        action: &Action,
        succeeded: bool,
    ) {
        if let Action::Streams(action) = action {
            self.streams.done(cx, action, succeeded);
            if let streams::Action::Membership(_) = action {
                self.follow_streams(cx, groups);
            }
            return;
        }
        cx.counters.count(if succeeded {
            Counter::Reported
        } else {
            Counter::TransmitFailed
        });
        match self.reporting {
            Reporting::Streams(manner) => {
                self.streams.report_done(cx.now, &manner);
                self.follow_streams(cx, groups);
            }
            Reporting::Joins(voice) => self.state_changes.done(cx.now, &voice, succeeded),
            Reporting::Leaves(voice) => {
                let leaving_from = |first| groups.leaving_from(first);
                self.state_changes.leaves_done(cx.now, &voice, leaving_from);
            }
            Reporting::LastLeaves(voice) => {
                let joined_from = |first| groups.joined_from(first);
                self.state_changes.leaves_done(cx.now, &voice, joined_from);
            }
            Reporting::All => {
                let streams = self.streams.proxy().joined().into();
                let all = groups.len().saturating_add(streams);
                self.host.done(cx, all, succeeded);
            }
        }
    }

    pub(crate) fn next_deadline(&self, cx: &Context) -> Option<Instant> {
        earliest(&[
            self.host.next_deadline(),
            self.state_changes.next_deadline(),
            self.streams.next_deadline(cx),
        ])
    }

    /// How the router reports joins; `None` if the kernel reports them at once in the version in
    /// force, and while there is no address to report from.
    fn voice(&self, cx: &Context) -> Option<Voice> {
        let source = cx.links.upstream()?.link_local?;
        let version = self.host.version(&cx.config);
        let share = match version {
            _ if self.host.kernel_differs(&cx.config) => Share::All {
                robustness: self.host.robustness(),
            },
            MldVersion::V1 => return None,
            MldVersion::V2 => Share::FirstOfJoins,
        };
        Some(Voice {
            version,
            source,
            share,
        })
    }

    /// How the router reports changes of streams; `None` while there is no address to report from.
    fn manner(&self, cx: &Context, voice: Option<&Voice>) -> Option<Manner> {
        Some(Manner {
            version: self.host.version(&cx.config),
            source: cx.links.upstream()?.link_local?,
            times: voice.map_or(0, Voice::repetitions),
            times_alone: self.host.robustness(),
        })
    }

    /// How the router reports joins and leaves alone; `None` if the kernel reports them in the
    /// version in force, and while there is no address to report from.
    fn sole_voice(&self, cx: &Context) -> Option<Voice> {
        self.voice(cx).filter(Voice::is_sole)
    }
}

/// The groups that the router is a member of upstream, from a place in the refresh on: first the
/// solicited-node groups by their slots, then those of streams.
fn listed_from(
    groups: &impl Memberships,
    proxy: &Proxy<'_>,
    first: usize,
) -> impl Iterator<Item = Listed> {
    let solicited = groups.joined_from(first).map(|(slot, group)| Listed {
        place: slot,
        group: group.group(),
        record_type: RecordType::ModeIsExclude,
    });
    let streams = proxy.current_from(first.saturating_sub(state_changes::CAPACITY));
    let streams = streams.map(|current| Listed {
        place: current.slot.saturating_add(state_changes::CAPACITY),
        group: current.group,
        record_type: match current.mode {
            FilterMode::Include => RecordType::ModeIsInclude,
            FilterMode::Exclude => RecordType::ModeIsExclude,
        },
    });
    solicited.chain(streams)
}

fn log_change(change: host::Change) {
    match change {
        host::Change::Version(MldVersion::V1) => info!("MLDv1 is in force upstream"),
        host::Change::Version(MldVersion::V2) => info!("MLDv2 is in force upstream"),
        host::Change::QuerierHeard(address) => info!("{address} is the querier upstream"),
        host::Change::QuerierSilent(timeout) => info!(
            "no MLD query upstream for {} s; the groups are reported all the same",
            timeout.as_secs()
        ),
    }
}
