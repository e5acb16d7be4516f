//! The counters: one for each reason to drop a packet, and one for each [`Counter`].

use crate::wire::DropReason;

/// Declares [`Counter`] with its names, so that every counter has one.
macro_rules! counters {
    ($($(#[$doc:meta])* $counter:ident = $name:literal,)*) => {
        /// An event that the engine counts.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Counter { $($(#[$doc])* $counter,)* }

        impl Counter {
            pub const ALL: &[Counter] = &[$(Counter::$counter,)*];

            /// A stable name in snake_case, for logs and metrics.
            pub const fn name(self) -> &'static str {
                match self { $(Counter::$counter => $name,)* }
            }
        }
    };
}

counters! {
    /// Valid Neighbor Solicitations received downstream.
    NeighborSolicitation = "neighbor_solicitations",
    /// Valid Neighbor Advertisements received downstream.
    NeighborAdvertisement = "neighbor_advertisements",
    /// Valid MLD messages received downstream.
    Mld = "mld_messages",
    /// Valid queries received upstream.
    Query = "queries",
    /// Addresses and group memberships learned.
    Learned = "learned",
    /// Addresses and group memberships that expired.
    Expired = "expired",
    /// Unconfirmed addresses and group memberships that were evicted for new ones.
    Evicted = "evicted",
    /// New addresses and group memberships refused because their host held as many as it may.
    RefusedHostQuota = "refused_per_mac",
    /// New groups whose join was delayed by the join rate.
    JoinDelayed = "joins_delayed",
    /// New addresses and group memberships refused because the table was full and the rate of
    /// evictions was exhausted.
    RefusedRate = "refused_rate",
    /// New addresses and group memberships refused because a table was full.
    RefusedFull = "refused_full",
    /// Queries sent to single hosts.
    Asked = "hosts_asked",
    /// Probes sent for single addresses.
    Probed = "addresses_probed",
    /// Groups joined upstream.
    Joined = "groups_joined",
    /// Groups left upstream.
    Left = "groups_left",
    /// Joins and leaves that failed; each is retried.
    MembershipFailed = "membership_failures",
    /// Reports sent upstream.
    Reported = "reports",
    /// Proxy entries added to the kernel.
    ProxyAdded = "proxies_added",
    /// Proxy entries removed from the kernel.
    ProxyRemoved = "proxies_removed",
    /// Routes added to the kernel.
    RouteAdded = "routes_added",
    /// Routes removed from the kernel.
    RouteRemoved = "routes_removed",
    /// Addresses without a proxy entry and a route because the table of them was full.
    RefusedProxy = "refused_proxies",
    /// Changes of proxy entries and routes that failed; each is retried.
    KernelTableFailed = "kernel_table_failures",
    /// Solicitations sent for targets that downstream hosts solicited.
    Solicited = "targets_asked",
    /// Targets not solicited because there were too many at once.
    RefusedTarget = "refused_targets",
    /// Advertisements sent to downstream hosts.
    Answered = "answers",
    /// Addresses announced upstream.
    Announced = "announcements",
    /// Queries sent downstream as the querier.
    QuerySent = "queries_sent",
    /// Groups joined upstream for listeners.
    StreamJoined = "streams_joined",
    /// Groups left upstream that nobody listens to any more.
    StreamLeft = "streams_left",
    /// Changes of the sources of a group joined for listeners.
    FilterChanged = "filters_changed",
    /// Forwarding entries written to the kernel.
    ForwardingWritten = "forwarding_written",
    /// Forwarding entries removed from the kernel.
    ForwardingRemoved = "forwarding_removed",
    /// Changes of forwarding entries that failed; each is retried.
    ForwardingFailed = "forwarding_failures",
    /// Groups of listeners refused because their host had as many as it may.
    RefusedGroupQuota = "refused_groups_per_mac",
    /// Groups of listeners refused because they came faster than the join rate.
    RefusedGroupRate = "refused_groups_rate",
    /// Groups of listeners refused because a link had as many as it may.
    RefusedGroup = "refused_groups",
    /// Sources of groups refused because a group had as many as it may.
    RefusedSource = "refused_sources",
    /// Records ignored because they name no sources for a source-specific group (RFC 4604 §2).
    NotSourceSpecific = "not_source_specific",
    /// Packets that could not be sent; each is retried.
    TransmitFailed = "transmit_failures",
}

/// All counters. They start at zero and wrap around at 2^64.
pub struct Counters {
    done: [u64; Counter::ALL.len()],
    dropped: [u64; DropReason::ALL.len()],
}

impl Counters {
    pub(crate) const fn new() -> Self {
        Counters {
            done: [0; Counter::ALL.len()],
            dropped: [0; DropReason::ALL.len()],
        }
    }

    pub(crate) fn count(&mut self, counter: Counter) {
        if let Some(value) = self.done.get_mut(counter as usize) {
            *value = value.wrapping_add(1);
        }
    }

    pub(crate) fn count_dropped(&mut self, reason: DropReason) {
        if let Some(value) = self.dropped.get_mut(reason as usize) {
            *value = value.wrapping_add(1);
        }
    }

    pub fn get(&self, counter: Counter) -> u64 {
        self.done.get(counter as usize).copied().unwrap_or_default()
    }

    /// The packets dropped for `reason`.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped
            .get(reason as usize)
            .copied()
            .unwrap_or_default()
    }

    /// Every counter with its stable name. Those of [`DropReason`] come last.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let done = Counter::ALL
            .iter()
            .map(|counter| (counter.name(), self.get(*counter)));
        let dropped = DropReason::ALL
            .iter()
            .map(|reason| (reason.name(), self.dropped(*reason)));
        done.chain(dropped)
    }
}
