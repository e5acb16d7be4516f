//! The querier of one downstream: its election, and General Queries (RFC 3810 §7.1, §7.6).
//!
//! A router starts as querier, and ceases to be it while another router with a lower address
//! queries. A bridge that queries by itself does so from the router's own address there, so its
//! queries are not those of another router.

use core::net::Ipv6Addr;

use super::{QUERY_RESPONSE_INTERVAL, RETRY_INTERVAL};
use crate::config::{Forward, MldVersion, ProxyConfig, QuerierMode};
use crate::time::{Duration, Instant};
use crate::wire::{ALL_NODES, Query, QueryVersion, Sources};

/// The response delay of the first query: listeners known within it make a restart short.
const FIRST_RESPONSE_DELAY: Duration = Duration::from_millis(100);

/// The part that this router has in the queries on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The link cannot be used.
    Down,
    /// This router is the querier. Of the queries at startup, it has sent so many.
    Querier { next_query: Instant, sent: u8 },
    /// Another router is the querier.
    Other(Other),
    /// The user wants no queries of this router; with the querier heard last.
    Off(Option<Other>),
}

/// Another querier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Other {
    pub address: Ipv6Addr,
    pub version: MldVersion,
    /// When it counts as gone: the Other Querier Present Timeout (RFC 3810 §9.5).
    pub gone_at: Instant,
}

/// A change that is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// This router is the querier from now on.
    Elected,
    /// Another router is.
    Yielded(Other),
    /// Nobody queries any more, and this router must not.
    Silent,
}

/// What the querier's variables make of the timers of listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timings {
    /// The Multicast Address Listening Interval (RFC 3810 §9.4), and the Older Version Host Present
    /// Timeout (§9.13).
    pub listening_interval: Duration,
    /// RFC 3810 §9.8.
    pub last_listener_interval: Duration,
    /// The Last Listener Query Count (RFC 3810 §9.9), 1 to 7.
    pub last_listener_count: u8,
    /// This router sends queries there.
    pub is_querier: bool,
}

impl Timings {
    /// The Last Listener Query Time (RFC 3810 §9.10).
    pub fn last_listener_time(&self) -> Duration {
        let count = self.last_listener_count.into();
        self.last_listener_interval.saturating_mul(count)
    }
}

/// The election on one link.
#[derive(Clone, Copy)]
pub struct Querier {
    role: Role,
    /// The variables in force: the user's, or those of the other querier (RFC 3810 §9.1, §9.2).
    robustness: u8,
    query_interval: Duration,
}

impl Querier {
    pub const fn new() -> Self {
        Querier {
            role: Role::Down,
            robustness: 0,
            query_interval: Duration::ZERO,
        }
    }

    pub fn role(&self) -> Role {
        self.role
    }

    /// Is this router the querier?
    pub fn is_querier(&self) -> bool {
        matches!(self.role, Role::Querier { .. })
    }

    /// Are streams forwarded on the link (RFC 4605 §4.2)?
    pub fn forwards(&self, config: &ProxyConfig) -> bool {
        match (config.forward, self.role) {
            (Forward::Always, _) => true,
            (Forward::Auto, Role::Querier { .. } | Role::Off(_) | Role::Down) => true,
            (Forward::Auto, Role::Other(_)) => false,
        }
    }

    /// The link can be used, anew or with another address.
    pub(crate) fn start(&mut self, now: Instant, config: &ProxyConfig) {
        self.adopt(config.robustness, config.query_interval);
        self.role = match config.querier {
            QuerierMode::Auto | QuerierMode::V1 => Role::Querier {
                next_query: now,
                sent: 0,
            },
            QuerierMode::Off => Role::Off(None),
        };
    }

    /// The link can no longer be used.
    pub(crate) fn stop(&mut self) {
        self.role = Role::Down;
    }

    /// A query was heard, and this router's address on the link is `own`. A query from that address
    /// is the bridge's (RFC 3810 §7.6.2).
    pub(crate) fn handle_query(
        &mut self,
        now: Instant,
        own: Ipv6Addr,
        query: &Query<'_>,
    ) -> Option<Change> {
        if query.source == own {
            return None;
        }
        let known = match self.role {
            Role::Down => return None,
            Role::Querier { .. } | Role::Other(_) if query.source > own => return None,
            Role::Querier { .. } => None,
            Role::Other(other) => Some(other),
            Role::Off(other) => other,
        };
        let version = match query.version {
            QueryVersion::V1 => MldVersion::V1,
            QueryVersion::V2 {
                robustness,
                query_interval,
                ..
            } => {
                self.adopt(robustness, query_interval);
                MldVersion::V2
            }
        };
        let other = Other {
            address: query.source,
            version,
            gone_at: now.saturating_add(self.other_querier_timeout()),
        };
        self.role = match self.role {
            Role::Off(_) => Role::Off(Some(other)),
            Role::Down | Role::Querier { .. } | Role::Other(_) => Role::Other(other),
        };
        let is_known =
            known.is_some_and(|known| known.address == other.address && known.version == version);
        (!is_known).then_some(Change::Yielded(other))
    }

    /// Takes the place of a querier that has gone silent (RFC 3810 §7.6.2).
    pub(crate) fn handle_timeout(&mut self, now: Instant, config: &ProxyConfig) -> Option<Change> {
        match self.role {
            Role::Other(other) if other.gone_at <= now => {
                self.adopt(config.robustness, config.query_interval);
                self.role = Role::Querier {
                    next_query: now,
                    sent: self.robustness,
                };
                Some(Change::Elected)
            }
            Role::Off(Some(other)) if other.gone_at <= now => {
                self.role = Role::Off(None);
                Some(Change::Silent)
            }
            Role::Down | Role::Querier { .. } | Role::Other(_) | Role::Off(_) => None,
        }
    }

    /// The General Query that is due, from the address `own`. The same one again until
    /// [`Self::done`] is told of it.
    pub(crate) fn poll_query(
        &self,
        now: Instant,
        config: &ProxyConfig,
        own: Ipv6Addr,
    ) -> Option<Query<'static>> {
        let Role::Querier { next_query, sent } = self.role else {
            return None;
        };
        if next_query > now {
            return None;
        }
        let delay = match sent {
            0 => FIRST_RESPONSE_DELAY,
            _ => self.query_response_interval(),
        };
        let group = Ipv6Addr::UNSPECIFIED;
        Some(self.query(config, own, group, delay, false, Sources::default()))
    }

    /// The General Query was sent, or could not be and is to be tried again.
    pub(crate) fn done(&mut self, now: Instant, succeeded: bool) {
        let Role::Querier { sent, .. } = self.role else {
            return;
        };
        let sent = if succeeded {
            sent.saturating_add(1)
        } else {
            sent
        };
        let interval = if !succeeded {
            RETRY_INTERVAL
        } else if sent < self.robustness {
            self.startup_query_interval()
        } else {
            self.query_interval
        };
        self.role = Role::Querier {
            next_query: now.saturating_add(interval),
            sent,
        };
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        match self.role {
            Role::Down | Role::Off(None) => None,
            Role::Querier { next_query, .. } => Some(next_query),
            Role::Other(other) | Role::Off(Some(other)) => Some(other.gone_at),
        }
    }

    /// What listeners' timers are set to now.
    pub fn timings(&self, config: &ProxyConfig) -> Timings {
        Timings {
            listening_interval: self.robust().saturating_add(self.query_response_interval()),
            last_listener_interval: config.last_listener_interval,
            last_listener_count: self.robustness.max(1),
            is_querier: self.is_querier(),
        }
    }

    /// A query with this link's variables. `group` is `::` in a General Query.
    pub(crate) fn query<'s>(
        &self,
        config: &ProxyConfig,
        own: Ipv6Addr,
        group: Ipv6Addr,
        max_response_delay: Duration,
        suppress_router_processing: bool,
        sources: Sources<'s>,
    ) -> Query<'s> {
        let version = match config.querier {
            QuerierMode::V1 => QueryVersion::V1,
            QuerierMode::Auto | QuerierMode::Off => QueryVersion::V2 {
                suppress_router_processing,
                robustness: self.robustness,
                query_interval: self.query_interval,
                sources,
            },
        };
        Query {
            source: own,
            destination: if group.is_unspecified() {
                ALL_NODES
            } else {
                group
            },
            group,
            max_response_delay,
            version,
        }
    }

    /// RFC 3810 §5.1.8, §5.1.9: a value of 0 is not adopted.
    fn adopt(&mut self, robustness: u8, query_interval: Duration) {
        if robustness > 0 {
            self.robustness = robustness;
        }
        if !query_interval.is_zero() {
            self.query_interval = query_interval;
        }
    }

    /// RFC 3810 §9.3: the Query Response Interval "must be less than the Query Interval".
    fn query_response_interval(&self) -> Duration {
        let half = self.query_interval.checked_div(2).unwrap_or_default();
        QUERY_RESPONSE_INTERVAL.min(half)
    }

    /// RFC 3810 §9.6.
    fn startup_query_interval(&self) -> Duration {
        self.query_interval.checked_div(4).unwrap_or_default()
    }

    /// RFC 3810 §9.5.
    fn other_querier_timeout(&self) -> Duration {
        let half = self.query_response_interval().checked_div(2);
        self.robust().saturating_add(half.unwrap_or_default())
    }

    fn robust(&self) -> Duration {
        self.query_interval.saturating_mul(self.robustness.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x10);
    const LOWER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    const HIGHER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xff);

    fn heard(source: Ipv6Addr, robustness: u8, interval: u64) -> Query<'static> {
        Query {
            source,
            destination: ALL_NODES,
            group: Ipv6Addr::UNSPECIFIED,
            max_response_delay: Duration::from_secs(10),
            version: QueryVersion::V2 {
                suppress_router_processing: false,
                robustness,
                query_interval: Duration::from_secs(interval),
                sources: Sources::default(),
            },
        }
    }

    fn at(seconds: u64) -> Instant {
        Instant::from_secs(seconds)
    }

    fn started() -> (Querier, ProxyConfig) {
        let (mut querier, config) = (Querier::new(), ProxyConfig::default());
        querier.start(at(0), &config);
        (querier, config)
    }

    #[test]
    fn the_startup_has_as_many_queries_as_the_robustness_and_the_first_wants_fast_answers() {
        let (mut querier, config) = started();
        let mut sent = heapless::Vec::<_, 8>::new();
        while sent.len() < 4 {
            let now = querier.next_deadline().unwrap();
            let query = querier.poll_query(now, &config, OWN).unwrap();
            querier.done(now, true);
            let delay = query.max_response_delay.as_millis();
            sent.push((now.as_millis(), delay)).unwrap();
        }
        let expected = [
            (0, 100),
            (31_250, 10_000),
            (156_250, 10_000),
            (281_250, 10_000),
        ];
        assert_eq!(sent, expected);
    }

    #[test]
    fn a_router_with_a_lower_address_is_the_querier_until_it_is_silent() {
        let (mut querier, config) = started();
        assert_eq!(querier.handle_query(at(1), OWN, &heard(OWN, 2, 125)), None);
        assert_eq!(
            querier.handle_query(at(1), OWN, &heard(HIGHER, 2, 125)),
            None
        );
        assert!(querier.is_querier());
        let change = querier.handle_query(at(2), OWN, &heard(LOWER, 3, 20));
        assert!(matches!(change, Some(Change::Yielded(other)) if other.address == LOWER));
        assert_eq!(querier.handle_query(at(3), OWN, &heard(LOWER, 3, 20)), None);
        assert_eq!(querier.poll_query(at(3), &config, OWN), None);
        // RFC 3810 §9.4, §9.5, with the other querier's variables.
        let listening = Duration::from_secs(3 * 20 + 10);
        assert_eq!(querier.timings(&config).listening_interval, listening);
        assert_eq!(querier.next_deadline(), Some(at(3 + 3 * 20 + 5)));
        assert_eq!(querier.handle_timeout(at(67), &config), None);
        let change = querier.handle_timeout(at(68), &config);
        assert_eq!(change, Some(Change::Elected));
        assert!(querier.poll_query(at(68), &config, OWN).is_some());
        let listening = Duration::from_secs(260);
        assert_eq!(querier.timings(&config).listening_interval, listening);
    }

    #[test]
    fn a_query_without_variables_leaves_them_as_they_are() {
        let (mut querier, config) = started();
        querier
            .handle_query(at(2), OWN, &heard(LOWER, 0, 0))
            .unwrap();
        let listening = Duration::from_secs(260);
        assert_eq!(querier.timings(&config).listening_interval, listening);
    }

    #[test]
    fn a_router_that_must_not_query_notes_who_does() {
        let mut querier = Querier::new();
        let config = ProxyConfig {
            querier: QuerierMode::Off,
            ..ProxyConfig::default()
        };
        querier.start(at(0), &config);
        assert_eq!(querier.next_deadline(), None);
        assert!(
            querier
                .handle_query(at(1), OWN, &heard(HIGHER, 2, 125))
                .is_some()
        );
        assert!(
            querier
                .handle_query(at(1), OWN, &heard(HIGHER, 2, 125))
                .is_none()
        );
        assert_eq!(querier.poll_query(at(1), &config, OWN), None);
        let gone_at = querier.next_deadline().unwrap();
        assert_eq!(
            querier.handle_timeout(gone_at, &config),
            Some(Change::Silent)
        );
    }

    #[test]
    fn a_query_that_could_not_be_sent_is_tried_again_and_does_not_count() {
        let (mut querier, config) = started();
        querier.done(at(0), false);
        assert_eq!(querier.next_deadline(), Some(at(1)));
        let query = querier.poll_query(at(1), &config, OWN).unwrap();
        assert_eq!(query.max_response_delay, FIRST_RESPONSE_DELAY);
    }
}
