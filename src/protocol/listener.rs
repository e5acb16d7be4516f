//! The host side upstream: the refresh, which reports every joined group although no querier asks.
//!
//! The kernel reports joins and leaves and answers queries (RFC 3810 §6). What it does not do is speak up by itself where the
//! querier is gone, and a gateway forgets a group 260 s after its last report (RFC 3810 §9.4).

use core::net::Ipv6Addr;

use crate::time::{Duration, Instant};
use crate::wire::{IPV6_MIN_MTU, RecordType, ReportBuilder, SolicitedNode};

/// The largest packet sent, in octets: an Ethernet's MTU, also where the upstream's is larger, since what is behind it may not be.
pub const MAX_PACKET: usize = 1500;
/// Until a report that could not be sent is tried again.
pub const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// The upstream, as the kernel has it now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// The kernel's number for the interface. Another number is another interface, without memberships, whatever its name.
    pub index: u32,
    /// An address that MLD messages can be sent from: link-local, valid, not tentative.
    pub link_local: Option<Ipv6Addr>,
    /// In octets. Below 1280 it counts as 1280 (RFC 8200 §5).
    pub mtu: u32,
}

/// The state of the refresh.
pub struct Listener {
    /// An `Option` would not be all zero bits where there is none (see [`Engine::new`](crate::engine::Engine::new)).
    has_upstream: bool,
    upstream: Upstream,
    /// When the next refresh starts; none while no group is joined.
    next_refresh: Option<Instant>,
    /// The slot from which groups are still to be reported in the refresh under way.
    report_from: Option<usize>,
    /// What `report_from` becomes once the report polled last is sent.
    report_next: Option<usize>,
    retry_at: Option<Instant>,
}

impl Listener {
    pub(crate) const fn new() -> Self {
        Listener {
            has_upstream: false,
            upstream: Upstream {
                index: 0,
                link_local: None,
                mtu: 0,
            },
            next_refresh: None,
            report_from: None,
            report_next: None,
            retry_at: None,
        }
    }

    pub fn upstream(&self) -> Option<&Upstream> {
        self.has_upstream.then_some(&self.upstream)
    }

    /// The upstream changed. A link-local address where there was none, or another one, means that all is reported anew.
    pub(crate) fn set_upstream(&mut self, upstream: Option<Upstream>) {
        let speaker =
            |upstream: Option<&Upstream>| upstream.and_then(|upstream| upstream.link_local);
        let speaks_as = speaker(upstream.as_ref());
        if speaks_as.is_some() && speaks_as != speaker(self.upstream()) {
            self.report_from = Some(0);
            self.retry_at = None;
        }
        self.has_upstream = upstream.is_some();
        self.upstream = upstream.unwrap_or(Listener::new().upstream);
    }

    /// The first group is joined: the refresh starts, one every `interval`; never where that is zero.
    pub(crate) fn start(&mut self, now: Instant, interval: Duration) {
        if !interval.is_zero() {
            self.next_refresh
                .get_or_insert(now.saturating_add(interval));
        }
    }

    /// No group is joined any more.
    pub(crate) fn stop(&mut self) {
        *self = Listener {
            has_upstream: self.has_upstream,
            upstream: self.upstream,
            ..Listener::new()
        };
    }

    /// Builds the next report of the refresh under way: a current-state record IS_EX{} (RFC 3810 §5.2.12) for each of `groups`,
    /// which are those from the given slot on, as many as fit. The same one again until [`Self::done`] is told of it.
    pub(crate) fn poll_report<I>(
        &mut self,
        groups_from: impl FnOnce(usize) -> I,
        buffer: &mut [u8],
    ) -> Option<usize>
    where
        I: Iterator<Item = (usize, SolicitedNode)>,
    {
        let first = self.report_from.filter(|_| self.retry_at.is_none())?;
        let upstream = *self.upstream()?;
        let source = upstream.link_local?;
        let mtu = usize::try_from(upstream.mtu).unwrap_or(MAX_PACKET);
        let buffer = buffer.get_mut(..mtu.clamp(IPV6_MIN_MTU, MAX_PACKET))?;

        let mut report = ReportBuilder::new(buffer);
        self.report_next = None;
        for (slot, group) in groups_from(first) {
            if !report.push(RecordType::ModeIsExclude, group.group()) {
                self.report_next = Some(slot);
                break;
            }
        }
        let length = report.finish(source);
        if length.is_none() {
            self.report_from = None;
        }
        length
    }

    /// The report was sent, or could not be and is to be tried again [`RETRY_INTERVAL`] after `now`.
    pub(crate) fn done(&mut self, now: Instant, succeeded: bool) {
        if succeeded {
            self.report_from = self.report_next;
        } else {
            self.retry_at = Some(now.saturating_add(RETRY_INTERVAL));
        }
    }

    /// When to try again, or when the next refresh starts.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.retry_at.into_iter().chain(self.next_refresh).min()
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant, interval: Duration) {
        if self.retry_at.is_some_and(|due| due <= now) {
            self.retry_at = None;
        }
        if self.next_refresh.is_some_and(|due| due <= now) {
            self.next_refresh = Some(now.saturating_add(interval));
            // A refresh that is still under way goes on where it is.
            self.report_from.get_or_insert(0);
        }
    }
}
