//! The settings of the MLD proxy (RFC 4605).

use core::fmt;
use core::net::Ipv6Addr;

use super::{ConfigError, MAX_PREFIXES};
use crate::link::Prefix;
use crate::time::Duration;

/// RFC 3810 §9.2, §9.1, §9.8.
pub const QUERY_INTERVAL: Duration = Duration::from_secs(125);
pub const ROBUSTNESS: u8 = 2;
pub const LAST_LISTENER_INTERVAL: Duration = Duration::from_secs(1);
/// RFC 3810 §5.1.8, §5.1.9: the largest values that a query can tell.
pub const MAX_ROBUSTNESS: u8 = 7;
pub const MAX_QUERY_INTERVAL: Duration = Duration::from_secs(31_744);
/// The longest Last Listener Query Interval, in RFC 3810 §9.8 one second.
pub const MAX_LAST_LISTENER_INTERVAL: Duration = Duration::from_secs(25);
/// A Linux bridge that OpenWrt sets up holds 512 groups (`hash_max`), and some switches hold as
/// many. Other devices on the link need some of them.
pub const MAX_GROUPS: u16 = 400;
/// The most sources that Linux takes in one filter (`net.ipv6.mld_max_msf`).
pub const MAX_SOURCES: u8 = 64;
/// The most groups that the tables hold.
pub const MOST_GROUPS: u16 = 4096;

/// The most downstreams. Linux has 32 multicast interfaces in a table: the upstream and the
/// loopback interface take one each, and two stay free to be the parents of entries that forward
/// nothing.
pub const MAX_PROXY_DOWNSTREAMS: usize = 28;
/// Linux takes no higher number of a multicast routing table, since the table's number is a part of
/// an interface's name.
pub const MAX_TABLE: u32 = 99_999_999;
/// All multicast addresses (RFC 4291 §2.7).
const MULTICAST: Prefix = Prefix {
    network: Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0),
    length: 8,
};

/// The settings of the MLD proxy.
#[derive(Clone, Debug)]
pub struct ProxyConfig {
    /// A listener that leaves is taken for the last one of its link: no query follows, and the
    /// stream ends at once.
    pub fast_leave: bool,
    /// What downstream hosts send to a group that nobody downstream listens to goes upstream, and
    /// what they send to any other group goes there too (RFC 4605 §4.2).
    pub senders: bool,
    /// The lowest scope of groups that are joined upstream, and that leave the home.
    pub scope: Scope,
    pub querier: QuerierMode,
    /// 1 to 31,744 s. A querier that is elected in place of this router replaces the value, and
    /// that of `robustness`, by its own.
    pub query_interval: Duration,
    /// 1 to 7.
    pub robustness: u8,
    /// 1 ms to 25 s.
    pub last_listener_interval: Duration,
    /// The most groups of one downstream, and the most that are joined upstream together with the
    /// solicited-node groups; 1 to [`MOST_GROUPS`].
    pub max_groups: u16,
    /// The most sources of one group on one downstream, 1 to [`MAX_SOURCES`].
    pub max_sources: u8,
    /// Only groups inside one of these are proxied; any group if there is none.
    pub allow: heapless::Vec<Prefix, MAX_PREFIXES>,
    /// Groups inside one of these are not proxied.
    pub deny: heapless::Vec<Prefix, MAX_PREFIXES>,
    /// The kernel's multicast routing table, 1 to [`MAX_TABLE`]; `None` for the main one.
    pub table: Option<u32>,
    pub forward: Forward,
}

/// How the router takes part in the election of a downstream's querier (RFC 3810 §7.6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuerierMode {
    /// With MLDv2 queries.
    Auto,
    /// With MLDv1 queries, for links with MLDv1 routers (RFC 3810 §8.3.1).
    V1,
    /// Not at all: it sends no query. Another querier of the link makes the hosts report.
    Off,
}

/// When streams are forwarded on a downstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forward {
    /// While this router is the querier there (RFC 4605 §4.2), and always with
    /// [`QuerierMode::Off`].
    Auto,
    Always,
}

/// The scope of a multicast address (RFC 7346 §2), 0 to 15.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Scope(pub u8);

impl Scope {
    pub const LINK_LOCAL: Scope = Scope(2);
    pub const ADMIN_LOCAL: Scope = Scope(4);
    pub const SITE_LOCAL: Scope = Scope(5);
    pub const ORGANIZATION_LOCAL: Scope = Scope(8);
    pub const GLOBAL: Scope = Scope(14);

    /// The scope of a group; of another address it means nothing.
    pub const fn of(group: Ipv6Addr) -> Self {
        let [_, flags_and_scope, ..] = group.octets();
        Scope(flags_and_scope & 0x0f)
    }
}

/// Is the group in the range of source-specific multicast, ff3x::/32 (RFC 4607 §1)?
pub const fn is_source_specific(group: Ipv6Addr) -> bool {
    let [first, second, third, fourth, ..] = group.octets();
    first == 0xff && second & 0xf0 == 0x30 && third == 0 && fourth == 0
}

impl Default for ProxyConfig {
    fn default() -> Self {
        ProxyConfig {
            fast_leave: false,
            senders: false,
            scope: Scope::ORGANIZATION_LOCAL,
            querier: QuerierMode::Auto,
            query_interval: QUERY_INTERVAL,
            robustness: ROBUSTNESS,
            last_listener_interval: LAST_LISTENER_INTERVAL,
            max_groups: MAX_GROUPS,
            max_sources: MAX_SOURCES,
            allow: heapless::Vec::new(),
            deny: heapless::Vec::new(),
            table: None,
            forward: Forward::Auto,
        }
    }
}

impl ProxyConfig {
    /// Checks that each setting is within its range, and that the prefixes leave a group to proxy.
    pub fn check(&self) -> Result<(), ConfigError> {
        let within = |duration, highest| duration > Duration::ZERO && duration <= highest;
        let settings = [
            (
                "--query-interval",
                within(self.query_interval, MAX_QUERY_INTERVAL),
                "1 to 31744 seconds",
            ),
            (
                "--robustness",
                (1..=MAX_ROBUSTNESS).contains(&self.robustness),
                "1 to 7",
            ),
            (
                "--last-listener-interval",
                within(self.last_listener_interval, MAX_LAST_LISTENER_INTERVAL),
                "0.001 to 25 seconds",
            ),
            (
                "--max-groups",
                (1..=MOST_GROUPS).contains(&self.max_groups),
                "1 to 4096",
            ),
            (
                "--max-sources",
                (1..=MAX_SOURCES).contains(&self.max_sources),
                "1 to 64",
            ),
            (
                "--table",
                self.table
                    .is_none_or(|table| (1..=MAX_TABLE).contains(&table)),
                "1 to 99999999",
            ),
        ];
        for (option, right, range) in settings {
            if !right {
                return Err(ConfigError::OutOfRange { option, range });
            }
        }
        self.check_prefixes()
    }

    fn check_prefixes(&self) -> Result<(), ConfigError> {
        for (option, prefixes) in [("--allow", &self.allow), ("--deny", &self.deny)] {
            for prefix in prefixes {
                if !MULTICAST.covers(prefix) {
                    return Err(ConfigError::NotMulticast(option, *prefix));
                }
            }
        }
        for prefix in &self.allow {
            if prefix.length >= 16 && Scope::of(prefix.network) <= Scope::LINK_LOCAL {
                return Err(ConfigError::NeverForwarded(*prefix));
            }
        }
        let denied = |allowed: &Prefix| self.deny.iter().any(|denied| denied.covers(allowed));
        let nothing = match self.allow.is_empty() {
            true => denied(&MULTICAST),
            false => self.allow.iter().all(denied),
        };
        if nothing {
            return Err(ConfigError::NothingToProxy);
        }
        Ok(())
    }

    /// Whether the proxy forwards a group, and keeps who listens to it. Groups of the link, and of
    /// the interface, are never forwarded (RFC 4291 §2.7).
    pub fn proxies(&self, group: Ipv6Addr) -> bool {
        let within = |prefix: &Prefix| prefix.contains(group);
        group.is_multicast()
            && Scope::of(group) > Scope::LINK_LOCAL
            && (self.allow.is_empty() || self.allow.iter().any(within))
            && !self.deny.iter().any(within)
    }

    /// Whether a group that is proxied is joined upstream, and leaves the home.
    pub fn leaves_home(&self, group: Ipv6Addr) -> bool {
        Scope::of(group) >= self.scope
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Scope::ADMIN_LOCAL => f.write_str("admin"),
            Scope::SITE_LOCAL => f.write_str("site"),
            Scope::ORGANIZATION_LOCAL => f.write_str("organization"),
            Scope::GLOBAL => f.write_str("global"),
            Scope(scope) => write!(f, "{scope}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefixes(texts: &[&str]) -> heapless::Vec<Prefix, MAX_PREFIXES> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn check_accepts_the_ends_of_each_range_and_nothing_beyond() {
        type Change = fn(&mut ProxyConfig);
        let rows: [(&str, [Change; 2], &[Change]); 6] = [
            (
                "--query-interval",
                [
                    |config| config.query_interval = Duration::from_secs(1),
                    |config| config.query_interval = Duration::from_secs(31_744),
                ],
                &[
                    |config| config.query_interval = Duration::ZERO,
                    |config| config.query_interval = Duration::from_secs(31_745),
                ],
            ),
            (
                "--robustness",
                [
                    |config| config.robustness = 1,
                    |config| config.robustness = 7,
                ],
                &[
                    |config| config.robustness = 0,
                    |config| config.robustness = 8,
                ],
            ),
            (
                "--last-listener-interval",
                [
                    |config| config.last_listener_interval = Duration::from_millis(1),
                    |config| config.last_listener_interval = Duration::from_secs(25),
                ],
                &[
                    |config| config.last_listener_interval = Duration::ZERO,
                    |config| config.last_listener_interval = Duration::from_millis(25_001),
                ],
            ),
            (
                "--max-groups",
                [
                    |config| config.max_groups = 1,
                    |config| config.max_groups = 4096,
                ],
                &[
                    |config| config.max_groups = 0,
                    |config| config.max_groups = 4097,
                ],
            ),
            (
                "--max-sources",
                [
                    |config| config.max_sources = 1,
                    |config| config.max_sources = 64,
                ],
                &[
                    |config| config.max_sources = 0,
                    |config| config.max_sources = 65,
                ],
            ),
            (
                "--table",
                [
                    |config| config.table = Some(1),
                    |config| config.table = Some(99_999_999),
                ],
                &[
                    |config| config.table = Some(0),
                    |config| config.table = Some(100_000_000),
                ],
            ),
        ];
        let check = |change: Change| {
            let mut config = ProxyConfig::default();
            change(&mut config);
            config.check()
        };
        for (name, right, wrong) in rows {
            for change in right {
                assert_eq!(check(change), Ok(()), "{name}");
            }
            for change in wrong {
                let Err(ConfigError::OutOfRange { option, .. }) = check(*change) else {
                    panic!("{name} is accepted: {:?}", check(*change));
                };
                assert_eq!(option, name);
            }
        }
    }

    #[test]
    fn check_refuses_prefixes_that_are_not_multicast() {
        for text in ["2001:db8::/64", "::/0", "fe00::/7", "fe80::/10"] {
            let prefix = text.parse().unwrap();
            let allowing = ProxyConfig {
                allow: prefixes(&["ff0e::/16", text]),
                ..ProxyConfig::default()
            };
            let not_multicast = |option| Err(ConfigError::NotMulticast(option, prefix));
            assert_eq!(allowing.check(), not_multicast("--allow"));
            let denying = ProxyConfig {
                deny: prefixes(&[text]),
                ..ProxyConfig::default()
            };
            assert_eq!(denying.check(), not_multicast("--deny"));
        }
    }

    #[test]
    fn check_refuses_to_allow_a_group_of_the_link() {
        for (text, right) in [
            ("ff02::fb/128", false),
            ("ff02::/16", false),
            ("ff31::/16", false),
            ("ff00::/12", true),
            ("ff03::/16", true),
            ("ff05::fb/128", true),
        ] {
            let config = ProxyConfig {
                allow: prefixes(&[text]),
                ..ProxyConfig::default()
            };
            assert_eq!(config.check().is_ok(), right, "{text}");
            let denying = ProxyConfig {
                deny: prefixes(&[text]),
                ..ProxyConfig::default()
            };
            assert_eq!(denying.check(), Ok(()), "{text}");
        }
    }

    #[test]
    fn check_refuses_prefixes_that_leave_no_group_to_proxy() {
        for (allow, deny, right) in [
            (&[][..], &["ff00::/8"][..], false),
            (&[], &["ff00::/9", "ff80::/9"], true),
            (&["ff3e::/32"], &["ff30::/12"], false),
            (&["ff3e::/32"], &["ff3e::/32"], false),
            (&["ff3e::/32"], &["ff3e::/33"], true),
            (&["ff3e::/32", "ff0e::/16"], &["ff3e::/16"], true),
            (
                &["ff3e::/32", "ff0e::/16"],
                &["ff3e::/16", "ff0e::/16"],
                false,
            ),
        ] {
            let config = ProxyConfig {
                allow: prefixes(allow),
                deny: prefixes(deny),
                ..ProxyConfig::default()
            };
            let expected = if right {
                Ok(())
            } else {
                Err(ConfigError::NothingToProxy)
            };
            assert_eq!(config.check(), expected, "{allow:?} {deny:?}");
        }
    }
}
