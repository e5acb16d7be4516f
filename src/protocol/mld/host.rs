//! The host side upstream: which version of MLD is in force, and the refresh.
//!
//! The kernel reports joins and leaves and answers queries (RFC 3810 §6). It reports nothing while
//! no querier asks, and a gateway forgets a group 260 s after its last report (RFC 3810 §9.4). So
//! the refresh reports every joined group by itself.

use core::net::Ipv6Addr;

use super::proxy::Proxy;
use super::{LIST_LENGTH, QUERY_RESPONSE_INTERVAL, RETRY_INTERVAL, state_changes};
use crate::config::{Config, MldMode, MldVersion, QUERY_INTERVAL, ROBUSTNESS};
use crate::context::Context;
use crate::link::Link;
use crate::time::{Duration, Instant, earliest};
use crate::wire::{
    IPV6_MIN_MTU, Query, QueryVersion, RecordType, ReportBuilder, ReportV1, Sources,
};

/// The largest packet sent, in octets: an Ethernet's MTU. The upstream's may be larger, and that of
/// the links behind it may not.
pub const MAX_PACKET: usize = 1500;
/// The silence of a querier is logged after this at the earliest, whatever its queries say: once a
/// minute at most.
const MIN_QUERIER_TIMEOUT: Duration = Duration::from_secs(60);
/// The longest time from one MLDv1 report of the refresh to the next. It is shorter where more
/// groups are to fit the refresh interval.
pub const V1_PACE: Duration = Duration::from_millis(100);
const LEAST_PACE: Duration = Duration::from_millis(1);

/// The querier upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Querier {
    pub address: Ipv6Addr,
    pub version: MldVersion,
    pub last_query: Instant,
}

/// A change that is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Another version is in force.
    Version(MldVersion),
    /// No query was heard for this long, which is [`HostSide::querier_timeout`].
    QuerierSilent(Duration),
    /// A query was heard again, or for the first time.
    QuerierHeard(Ipv6Addr),
}

/// A group that the refresh reports.
#[derive(Clone, Copy)]
pub(crate) struct Listed {
    /// The refresh goes through the groups in the order of their places: the slots of the
    /// solicited-node groups, and behind them those of streams.
    pub place: usize,
    pub group: Ipv6Addr,
    /// Of the record in MLDv2.
    pub record_type: RecordType,
}

impl Listed {
    fn write_sources<'o>(&self, proxy: &Proxy<'_>, octets: &'o mut [u8]) -> Sources<'o> {
        match self.place.checked_sub(state_changes::CAPACITY) {
            Some(slot) => proxy.write_current(slot, octets),
            None => Sources::default(),
        }
    }
}

/// The state of the refresh and of the querier.
pub struct HostSide {
    querier: Option<Querier>,
    /// The variables that its queries tell (RFC 3810 §9.1, §9.2), 0 where they do not; an MLDv1
    /// query tells neither.
    robustness: u8,
    query_interval: Duration,
    response_interval: Duration,
    /// When to log the silence of the querier; `None` once it is logged, and without an upstream.
    silence_at: Option<Instant>,
    /// When MLDv1 ceases to be in force: the Older Version Querier Present Timeout
    /// (RFC 3810 §9.12). `None` while MLDv2 is.
    v1_until: Option<Instant>,
    /// When the next refresh starts; `None` while no group is joined.
    next_refresh: Option<Instant>,
    refresh: Refresh,
    /// The slot from which the refresh goes on once the report polled last is sent; `None` where
    /// that ends it.
    report_next: Option<usize>,
    last_report: Option<Instant>,
}

/// How far a report of all groups is. The groups from a slot on are still to be reported.
#[derive(Clone, Copy)]
enum Refresh {
    /// None is under way.
    Done,
    /// The next report is to be sent now.
    Due { from: usize },
    /// The next report is sent at a time: one failed, MLDv1 reports are paced, or a query is
    /// answered.
    Waits { from: usize, until: Instant },
}

impl HostSide {
    pub(crate) fn new() -> Self {
        HostSide {
            querier: None,
            robustness: 0,
            query_interval: Duration::ZERO,
            response_interval: Duration::ZERO,
            silence_at: None,
            v1_until: None,
            next_refresh: None,
            refresh: Refresh::Done,
            report_next: None,
            last_report: None,
        }
    }

    /// The querier that was heard last on this upstream.
    pub fn querier(&self) -> Option<&Querier> {
        self.querier.as_ref()
    }

    /// When the next refresh starts; `None` while no group is joined, and if the user wants none.
    pub fn next_refresh(&self) -> Option<Instant> {
        self.next_refresh
    }

    /// When a report of the refresh was sent last.
    pub fn last_report(&self) -> Option<Instant> {
        self.last_report
    }

    /// The version in force: the user's, or MLDv1 while an older version querier is present
    /// (RFC 3810 §8.2.1), else MLDv2.
    pub fn version(&self, config: &Config) -> MldVersion {
        match config.mld_mode {
            MldMode::V1 => MldVersion::V1,
            MldMode::V2 => MldVersion::V2,
            MldMode::Auto => self.heard_version(),
        }
    }

    /// Does the kernel speak another version than the one in force? It goes by the queries alone.
    pub(crate) fn kernel_differs(&self, config: &Config) -> bool {
        self.version(config) != self.heard_version()
    }

    /// The version of the queries heard, which the kernel speaks.
    pub fn heard_version(&self) -> MldVersion {
        match self.v1_until {
            Some(_) => MldVersion::V1,
            None => MldVersion::V2,
        }
    }

    /// The robustness variable, adopted from the last query that told it. RFC 3810 §9.1: it must
    /// not be 0 and should not be 1.
    pub fn robustness(&self) -> u8 {
        self.robustness.max(ROBUSTNESS)
    }

    /// How long a querier may be silent before that is logged: the Multicast Address Listening
    /// Interval of the variables that its queries told, after which a gateway forgets a group
    /// (RFC 3810 §9.4).
    pub fn querier_timeout(&self) -> Duration {
        let response_interval = match self.querier {
            Some(_) => self.response_interval,
            None => QUERY_RESPONSE_INTERVAL,
        };
        self.robust(response_interval).max(MIN_QUERIER_TIMEOUT)
    }

    /// Robustness variable × query interval + response interval, of which RFC 3810 §9.4, §9.5 and
    /// §9.12 make their timeouts.
    fn robust(&self, response_interval: Duration) -> Duration {
        // RFC 3810 §5.1.9: an interval of 0 stands for the default.
        let interval = match self.query_interval {
            Duration::ZERO => QUERY_INTERVAL,
            interval => interval,
        };
        let intervals = interval.saturating_mul(self.robustness().into());
        intervals.saturating_add(response_interval)
    }

    /// The upstream was like `before`, and has changed. A new link-local address makes all groups
    /// reported anew.
    pub(crate) fn upstream_changed(&mut self, cx: &Context, before: Option<Link>) {
        let upstream = cx.links.upstream();
        let speaks_as = upstream.and_then(|link| link.link_local);
        if speaks_as.is_some() && speaks_as != before.and_then(|link| link.link_local) {
            self.report_all();
        }
        if upstream.map(|link| link.index) != before.map(|link| link.index) {
            // Another link may have another querier.
            self.querier = None;
            self.robustness = 0;
            self.query_interval = Duration::ZERO;
            self.v1_until = None;
            self.silence_at = upstream.map(|_| cx.now.saturating_add(self.querier_timeout()));
        }
    }

    /// A valid query was heard upstream.
    pub(crate) fn query_heard(
        &mut self,
        cx: &Context,
        query: &Query<'_>,
        mut changed: impl FnMut(Change),
    ) {
        let Context { now, config, .. } = cx;
        let before = self.version(config);
        let version = match query.version {
            QueryVersion::V1 => {
                let timeout = self.robust(query.max_response_delay);
                self.v1_until = Some(now.saturating_add(timeout));
                MldVersion::V1
            }
            QueryVersion::V2 {
                robustness,
                query_interval,
                ..
            } => {
                self.robustness = robustness;
                self.query_interval = query_interval;
                MldVersion::V2
            }
        };
        // A query for one group tells a shorter one, the Last Listener Query Interval.
        if query.group.is_unspecified() || self.querier.is_none() {
            self.response_interval = query.max_response_delay;
        }
        let is_known = |querier: &Querier| querier.address == query.source;
        if self.silence_at.is_none() || !self.querier.as_ref().is_some_and(is_known) {
            changed(Change::QuerierHeard(query.source));
        }
        self.querier = Some(Querier {
            address: query.source,
            version,
            last_query: *now,
        });
        self.silence_at = Some(now.saturating_add(self.querier_timeout()));
        if self.report_change(before, config, changed) {
            let delay = self.share_of(cx, query.max_response_delay);
            let until = now.saturating_add(delay);
            self.refresh = Refresh::Waits { from: 0, until };
        }
    }

    /// The first group is joined: the refresh starts, one every `interval`; never if that is zero.
    pub(crate) fn start(&mut self, now: Instant, interval: Duration) {
        if !interval.is_zero() {
            self.next_refresh
                .get_or_insert(now.saturating_add(interval));
        }
    }

    /// Reports all groups now.
    pub(crate) fn report_all(&mut self) {
        self.refresh = Refresh::Due { from: 0 };
    }

    /// Is the group at a slot among those that the refresh reports next?
    pub(crate) fn is_about_to_report(&self, slot: usize) -> bool {
        matches!(self.refresh, Refresh::Due { from } if from <= slot)
    }

    /// The kernel answers a General Query in another version than the one in force. The router
    /// reports all groups in this one too, `delay` after `now`, unless a refresh is under way.
    pub(crate) fn answer(&mut self, now: Instant, delay: Duration) {
        if matches!(self.refresh, Refresh::Done) {
            let until = now.saturating_add(delay);
            self.refresh = Refresh::Waits { from: 0, until };
        }
    }

    /// No group is joined any more.
    pub(crate) fn stop(&mut self) {
        self.next_refresh = None;
        self.refresh = Refresh::Done;
    }

    /// Builds the next report of the refresh under way; its length, and where it goes.
    /// `listed_from` gives the groups from a place on, and `proxy` has the sources of streams. An
    /// MLDv2 report holds as many current-state records (RFC 3810 §5.2.12) as fit, an MLDv1 report
    /// is of one group. The same one again until [`Self::done`] is told of it.
    pub(crate) fn poll_report<I>(
        &mut self,
        cx: &Context,
        listed_from: impl FnOnce(usize) -> I,
        proxy: &Proxy<'_>,
        buffer: &mut [u8],
    ) -> Option<(usize, Ipv6Addr)>
    where
        I: Iterator<Item = Listed>,
    {
        let Refresh::Due { from: first } = self.refresh else {
            return None;
        };
        let source = cx.links.upstream()?.link_local?;

        self.report_next = None;
        let mut groups = listed_from(first);
        let report = match self.version(&cx.config) {
            MldVersion::V1 => groups.next().and_then(|Listed { place, group, .. }| {
                self.report_next = groups.next().map(|_| place.saturating_add(1));
                Some((ReportV1 { source, group }.emit(buffer)?, group))
            }),
            MldVersion::V2 => {
                let mut report = ReportBuilder::new(buffer);
                for listed in groups {
                    let mut octets = [0; LIST_LENGTH];
                    let sources = listed.write_sources(proxy, &mut octets);
                    if !report.push_with(listed.record_type, listed.group, sources) {
                        self.report_next = Some(listed.place);
                        break;
                    }
                }
                let length = report.finish(source);
                length.map(|length| (length, crate::wire::ALL_MLDV2_ROUTERS))
            }
        };
        if report.is_none() {
            self.refresh = Refresh::Done;
        }
        report
    }

    /// The report was sent, or could not be and is to be tried again [`RETRY_INTERVAL`] after
    /// `now`. `groups` is how many there are, so that MLDv1 reports spread over the refresh
    /// interval.
    pub(crate) fn done(&mut self, cx: &Context, groups: usize, succeeded: bool) {
        let Context { now, config, .. } = cx;
        if succeeded {
            self.last_report = Some(*now);
        }
        self.refresh = match (self.refresh, self.report_next) {
            (Refresh::Due { from }, _) if !succeeded => Refresh::Waits {
                from,
                until: now.saturating_add(RETRY_INTERVAL),
            },
            (Refresh::Due { .. }, Some(from)) if self.version(config) == MldVersion::V1 => {
                let groups = u32::try_from(groups).unwrap_or(u32::MAX);
                let interval = Some(config.refresh_interval).filter(|interval| !interval.is_zero());
                let pace = interval.and_then(|interval| interval.checked_div(groups));
                let pace = pace.unwrap_or(V1_PACE);
                // At least the unit of time, so that the deadline lies in the future.
                let pace = pace.clamp(LEAST_PACE, V1_PACE);
                let until = now.saturating_add(pace);
                Refresh::Waits { from, until }
            }
            (Refresh::Due { .. }, Some(from)) => Refresh::Due { from },
            (Refresh::Due { .. }, None) => Refresh::Done,
            (refresh @ (Refresh::Done | Refresh::Waits { .. }), _) => refresh,
        };
    }

    /// When to send the next report, to start the next refresh, to change the version, or to log
    /// the silence of the querier.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let report = match self.refresh {
            Refresh::Waits { until, .. } => Some(until),
            Refresh::Done | Refresh::Due { .. } => None,
        };
        earliest(&[report, self.next_refresh, self.v1_until, self.silence_at])
    }

    pub(crate) fn handle_timeout(&mut self, cx: &Context, mut changed: impl FnMut(Change)) {
        let Context { now, config, .. } = cx;
        let due = |deadline: Option<Instant>| deadline.is_some_and(|deadline| deadline <= *now);
        if let Refresh::Waits { from, until } = self.refresh
            && until <= *now
        {
            self.refresh = Refresh::Due { from };
        }
        if due(self.next_refresh) {
            self.next_refresh = Some(now.saturating_add(config.refresh_interval));
            // A refresh that is still under way goes on.
            if matches!(self.refresh, Refresh::Done) {
                self.refresh = Refresh::Due { from: 0 };
            }
        }
        if due(self.silence_at) {
            self.silence_at = None;
            changed(Change::QuerierSilent(self.querier_timeout()));
        }
        if due(self.v1_until) {
            let before = self.version(config);
            self.v1_until = None;
            let _ = self.report_change(before, config, changed);
        }
    }

    /// Has the version changed? Then all groups are reported anew, since a querier of the new
    /// version knows nothing of reports in the other.
    fn report_change(
        &mut self,
        before: MldVersion,
        config: &Config,
        mut changed: impl FnMut(Change),
    ) -> bool {
        let version = self.version(config);
        let has_changed = version != before;
        if has_changed {
            self.report_all();
            changed(Change::Version(version));
        }
        has_changed
    }

    /// RFC 3810 §6.3: a node "MUST NOT send a Report immediately upon reception of a General
    /// Query", since all nodes would. This node's address, which no other one on the link has,
    /// decides which part of the allowed delay it waits.
    pub(crate) fn share_of(&self, cx: &Context, max_response_delay: Duration) -> Duration {
        let address = cx.links.upstream().and_then(|upstream| upstream.link_local);
        let [.., last] = address.unwrap_or(Ipv6Addr::UNSPECIFIED).octets();
        let share = max_response_delay.saturating_mul(u32::from(last).saturating_add(1));
        share.checked_div(256).unwrap_or_default()
    }
}

/// The part of a buffer that one packet upstream may fill; `None` without an upstream.
pub(crate) fn packet<'b>(cx: &Context, buffer: &'b mut [u8]) -> Option<&'b mut [u8]> {
    let mtu = usize::try_from(cx.links.upstream()?.mtu).unwrap_or(MAX_PACKET);
    buffer.get_mut(..mtu.clamp(IPV6_MIN_MTU, MAX_PACKET))
}
