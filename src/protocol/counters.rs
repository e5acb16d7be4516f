//! One counter for each reason a packet was dropped, and one for each thing done.

use crate::wire::DropReason;

/// Declares [`Counter`] with its names, so that no counter can be without one.
macro_rules! counters {
    ($($(#[$doc:meta])* $counter:ident = $name:literal,)*) => {
        /// A thing that is counted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Counter { $($(#[$doc])* $counter,)* }

        impl Counter {
            pub const ALL: &[Counter] = &[$(Counter::$counter,)*];

            /// A stable name in snake_case, for people and for metrics.
            pub const fn name(self) -> &'static str {
                match self { $(Counter::$counter => $name,)* }
            }
        }
    };
}

counters! {
    /// Valid Neighbor Solicitations heard downstream.
    NeighborSolicitation = "neighbor_solicitations",
    /// Valid Neighbor Advertisements heard downstream.
    NeighborAdvertisement = "neighbor_advertisements",
    /// Valid MLD messages heard downstream.
    Mld = "mld_messages",
    /// Valid queries heard upstream.
    Query = "queries",
    /// Addresses and listeners learned.
    Learned = "learned",
    /// Addresses and listeners that were not seen in time.
    Expired = "expired",
    /// Unconfirmed ones that made room for others.
    Evicted = "evicted",
    /// Refused, since their host held as many as it may.
    RefusedHostQuota = "refused_per_mac",
    /// New groups that waited for their turn to be joined, since there were more at once than are allowed.
    JoinDelayed = "joins_delayed",
    /// Refused for now, since the table was full, and more new ones at once wanted others' places than are allowed.
    RefusedRate = "refused_rate",
    /// Refused, since a table was full.
    RefusedFull = "refused_full",
    /// Questions to hosts.
    Asked = "hosts_asked",
    /// Questions for single addresses.
    Probed = "addresses_probed",
    /// Groups joined upstream.
    Joined = "groups_joined",
    /// Groups left upstream.
    Left = "groups_left",
    /// Joins and leaves that failed; each is tried again.
    MembershipFailed = "membership_failures",
    /// Reports sent upstream.
    Reported = "reports",
    /// Proxy entries added and removed, and routes.
    ProxyAdded = "proxies_added",
    ProxyRemoved = "proxies_removed",
    RouteAdded = "routes_added",
    RouteRemoved = "routes_removed",
    /// Addresses that had to do without both for a while, since the table of them was full.
    RefusedProxy = "refused_proxies",
    /// Changes of these that failed; each is tried again.
    KernelTableFailed = "kernel_table_failures",
    /// Questions for targets that hosts downstream looked for.
    Solicited = "targets_asked",
    /// Targets not asked for, since there were too many at once.
    RefusedTarget = "refused_targets",
    /// Answers to hosts downstream.
    Answered = "answers",
    /// Addresses announced upstream.
    Announced = "announcements",
    /// Packets that could not be sent; each is tried again.
    TransmitFailed = "transmit_failures",
}

/// All counters, from zero at the start; they wrap around at 2^64.
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

    /// Packets dropped for `reason`.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped
            .get(reason as usize)
            .copied()
            .unwrap_or_default()
    }

    /// Every counter with its stable name; those of [`DropReason`] come last.
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
