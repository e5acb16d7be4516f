//! The settings. Every default is a named constant with its source.

mod proxy;

use core::fmt;
use core::net::Ipv6Addr;

use crate::link::{InterfaceName, MAX_DOWNSTREAMS, Prefix, Side};
use crate::time::Duration;

pub use proxy::{
    Forward, LAST_LISTENER_INTERVAL, MAX_GROUPS, MAX_LAST_LISTENER_INTERVAL, MAX_PROXY_DOWNSTREAMS,
    MAX_QUERY_INTERVAL, MAX_ROBUSTNESS, MAX_SOURCES, MAX_TABLE, MOST_GROUPS, ProxyConfig,
    QUERY_INTERVAL, QuerierMode, ROBUSTNESS, Scope, is_source_specific,
};

/// The time from the last sighting of an address to its expiry. It exceeds two query intervals of
/// 125 s, and the 260 s of a Multicast Address Listening Interval (RFC 3810 §9.4). So a gateway
/// never forgets a group before mldproxy does.
pub const ADDRESS_TIMEOUT: Duration = Duration::from_secs(300);
/// The time between two unsolicited reports of all groups. Four of them fit in a Multicast Address
/// Listening Interval (RFC 3810 §9.4). So on a link without a querier three reports in a row may
/// be lost.
pub const REFRESH_INTERVAL: Duration = Duration::from_secs(60);
/// The time between two checks for expired addresses: a tenth of [`ADDRESS_TIMEOUT`].
pub const EXPIRY_INTERVAL: Duration = Duration::from_secs(30);
/// The global unicast addresses that IANA assigns (RFC 4291 §2.4, RFC 3587 §3).
pub const GLOBAL_UNICAST: Prefix = Prefix {
    network: Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0),
    length: 3,
};
/// The most addresses that one host may hold. A phone or laptop with temporary addresses (RFC 8981)
/// has up to about twenty.
pub const PER_MAC: u16 = 64;
/// The new groups that mldproxy may join in a second. The gateway has to process a report for each.
pub const JOIN_RATE: u32 = 50;
/// The new groups that mldproxy may join at once.
pub const JOIN_BURST: u32 = 200;
/// The most prefixes of [`Config::prefixes`].
pub const MAX_PREFIXES: usize = 16;

/// The settings of one engine. [`Config::check`] must have accepted them.
#[derive(Clone, Debug)]
pub struct Config {
    /// The interface towards the gateway.
    pub upstream: InterfaceName,
    /// The interfaces towards the hosts. A [`Port`](crate::link::Port) is an index into this list.
    pub downstreams: heapless::Vec<InterfaceName, MAX_DOWNSTREAMS>,
    /// The engine learns only addresses inside one of these.
    pub prefixes: heapless::Vec<Prefix, MAX_PREFIXES>,
    /// The time from the last sighting of an address to its expiry; above zero.
    pub address_timeout: Duration,
    /// The time between two unsolicited reports of all groups; zero turns these off.
    pub refresh_interval: Duration,
    /// The time between two checks for expired addresses; above zero.
    pub expiry_interval: Duration,
    /// The messages that the engine learns hosts from.
    pub learn: Learn,
    /// The engine sends MLD queries to hosts, to learn whether they are still there.
    pub ask: bool,
    /// The engine probes addresses with Neighbor Solicitations, if it sends no queries or the host
    /// does not answer them.
    pub probe: bool,
    /// The most addresses that one host (link-layer address) may hold; above zero.
    pub per_mac: u16,
    /// The new groups that the engine may join in a second; above zero.
    pub join_rate: u32,
    /// The new groups that the engine may join at once; above zero.
    pub join_burst: u32,
    /// The MLD version that the engine uses upstream.
    pub mld_mode: MldMode,
    /// [`Self::prefixes`] follows the prefixes of the upstream link.
    pub upstream_prefixes: bool,
    /// The engine never learns addresses inside one of these.
    pub excluded: heapless::Vec<Prefix, MAX_PREFIXES>,
    /// The kernel answers solicitations upstream for each confirmed downstream address, and the
    /// engine answers those downstream for targets on other links. No other NDP proxy is needed.
    pub ndp_proxy: bool,
    /// The kernel gets a route to each confirmed downstream address and to each neighbor found
    /// upstream, since both sides share one prefix.
    pub host_routes: bool,
    /// The engine advertises an address upstream once the host first confirmed it (RFC 9131), so
    /// that the gateway need not solicit it.
    pub announce: bool,
    /// The MLD proxy; `None` while it is off.
    pub mld_proxy: Option<ProxyConfig>,
}

/// The messages that the engine learns hosts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learn {
    Both,
    /// Neighbor Discovery only. Its messages carry whole addresses, so the engine can tell their
    /// prefixes.
    Ndp,
    /// MLD reports only. A solicited-node group carries 24 bits of an address, which may be
    /// link-local.
    Mld,
}

/// How the engine chooses the MLD version that it uses upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MldMode {
    /// The version of the queries that it receives there (RFC 3810 §8.2.1).
    Auto,
    V1,
    V2,
}

/// A version of MLD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MldVersion {
    /// RFC 2710.
    V1,
    /// RFC 3810.
    V2,
}

impl Config {
    /// The name of the interface on a side.
    pub fn name_of(&self, side: Side) -> &InterfaceName {
        match side {
            Side::Upstream => &self.upstream,
            Side::Downstream(port) => {
                let downstream = self.downstreams.get(usize::from(port));
                downstream.unwrap_or(&self.upstream)
            }
        }
    }

    /// The defaults, without a downstream.
    pub fn new(upstream: InterfaceName) -> Self {
        let mut config = Config {
            upstream,
            downstreams: heapless::Vec::new(),
            prefixes: heapless::Vec::new(),
            address_timeout: ADDRESS_TIMEOUT,
            refresh_interval: REFRESH_INTERVAL,
            expiry_interval: EXPIRY_INTERVAL,
            learn: Learn::Both,
            ask: true,
            probe: true,
            per_mac: PER_MAC,
            join_rate: JOIN_RATE,
            join_burst: JOIN_BURST,
            mld_mode: MldMode::Auto,
            upstream_prefixes: false,
            excluded: heapless::Vec::new(),
            ndp_proxy: false,
            host_routes: false,
            announce: false,
            mld_proxy: None,
        };
        // The empty list has room.
        let _ = config.prefixes.push(GLOBAL_UNICAST);
        config
    }

    /// Checks the settings against each other, and that none is zero that must not be.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.downstreams.is_empty() {
            return Err(ConfigError::NoDownstream);
        }
        for (place, name) in self.downstreams.iter().enumerate() {
            if *name == self.upstream {
                return Err(ConfigError::DownstreamIsUpstream(name.clone()));
            }
            if self
                .downstreams
                .iter()
                .skip(place.saturating_add(1))
                .any(|other| other == name)
            {
                return Err(ConfigError::DownstreamTwice(name.clone()));
            }
        }
        if self.address_timeout.is_zero() {
            return Err(ConfigError::Zero("--address-timeout"));
        }
        if self.expiry_interval.is_zero() {
            return Err(ConfigError::Zero("--expiry-interval"));
        }
        let limits = [
            ("--per-mac", self.per_mac.into()),
            ("--join-rate", self.join_rate),
            ("--join-burst", self.join_burst),
        ];
        for (option, limit) in limits {
            if limit == 0 {
                return Err(ConfigError::ZeroLimit(option));
            }
        }
        let learnable = self.prefixes.iter().any(|prefix| {
            let covered = |excluded: &Prefix| excluded.covers(prefix);
            !self.excluded.iter().any(covered)
        });
        if !learnable && !self.upstream_prefixes {
            return Err(ConfigError::NothingToLearn);
        }
        if (self.ndp_proxy || self.host_routes || self.announce) && !self.ask && !self.probe {
            return Err(ConfigError::NothingConfirmed);
        }
        if let Some(proxy) = &self.mld_proxy {
            if self.downstreams.len() > MAX_PROXY_DOWNSTREAMS {
                return Err(ConfigError::TooManyToProxy);
            }
            proxy.check()?;
        }
        Ok(())
    }

    /// Whether the engine learns `address`. It never learns one that is link-local, multicast,
    /// loopback, unspecified or IPv4-mapped.
    pub fn learns(&self, address: Ipv6Addr) -> bool {
        let never = address.is_unicast_link_local()
            || address.is_multicast()
            || address.is_loopback()
            || address.is_unspecified()
            || address.to_ipv4_mapped().is_some();
        let within = |prefix: &Prefix| prefix.contains(address);
        !never && self.prefixes.iter().any(within) && !self.excluded.iter().any(within)
    }
}

/// Why a configuration cannot run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigError {
    NoDownstream,
    DownstreamIsUpstream(InterfaceName),
    DownstreamTwice(InterfaceName),
    /// A time is zero and must not be; with the name of its option.
    Zero(&'static str),
    /// A limit is zero and must not be; with the name of its option.
    ZeroLimit(&'static str),
    /// Every prefix is excluded.
    NothingToLearn,
    /// An option needs confirmed addresses, and the other options let no host confirm one.
    NothingConfirmed,
    /// The MLD proxy has more than [`MAX_PROXY_DOWNSTREAMS`] downstreams.
    TooManyToProxy,
    /// A setting of the MLD proxy is outside its range, with the name of its option.
    OutOfRange {
        option: &'static str,
        range: &'static str,
    },
    /// A prefix of groups holds other addresses; with the name of its option.
    NotMulticast(&'static str, Prefix),
    /// The prefix of groups to proxy holds only groups that are never forwarded.
    NeverForwarded(Prefix),
    /// Every group is denied.
    NothingToProxy,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::NoDownstream => f.write_str("no downstream interface is named"),
            ConfigError::DownstreamIsUpstream(name) => write!(
                f,
                "{name} is named as upstream and as downstream; they must be two interfaces"
            ),
            ConfigError::DownstreamTwice(name) => {
                write!(f, "{name} is named twice as downstream; name it once")
            }
            ConfigError::Zero(option) => write!(f, "{option} is 0; it must be at least 1 second"),
            ConfigError::ZeroLimit(option) => write!(f, "{option} is 0; it must be at least 1"),
            ConfigError::NothingToLearn => {
                f.write_str("--exclude covers every prefix; no address is left to learn")
            }
            ConfigError::NothingConfirmed => f.write_str(
                "--ndp-proxy, --host-routes and --announce are for hosts that answered; \
                 with --no-ask and --no-probe none is asked",
            ),
            ConfigError::TooManyToProxy => write!(
                f,
                "--mld-proxy takes at most {MAX_PROXY_DOWNSTREAMS} downstream interfaces; \
                 name fewer"
            ),
            ConfigError::OutOfRange { option, range } => {
                write!(f, "{option} is out of range; it must be {range}")
            }
            ConfigError::NotMulticast(option, prefix) => write!(
                f,
                "{option} {prefix}: not all of these are multicast groups; \
                 name a prefix within ff00::/8"
            ),
            ConfigError::NeverForwarded(prefix) => write!(
                f,
                "--allow {prefix}: no router forwards these groups, whose scope is one link \
                 at most; name groups of ff03::/16 or a wider scope"
            ),
            ConfigError::NothingToProxy => {
                f.write_str("--deny covers every group that is allowed; no group is left to proxy")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(downstreams: &[&str]) -> Config {
        let mut config = Config::new("wan".parse().unwrap());
        for name in downstreams {
            config.downstreams.push(name.parse().unwrap()).unwrap();
        }
        config
    }

    #[test]
    fn the_engine_learns_global_unicast_by_default_and_some_addresses_never() {
        let mut config = config(&["br-lan"]);
        let learns = |config: &Config, text: &str| config.learns(text.parse().unwrap());
        assert!(learns(&config, "2001:db8::1"));
        assert!(learns(&config, "3fff:ffff::1"));
        for other in ["fd00::1", "4000::1", "1fff::1", "64:ff9b::1"] {
            assert!(!learns(&config, other), "{other}");
        }
        config.prefixes.clear();
        config.prefixes.push("::/0".parse().unwrap()).unwrap();
        assert!(learns(&config, "fd00::1"));
        for never in [
            "fe80::1",
            "febf::1",
            "ff02::1",
            "::1",
            "::",
            "::ffff:192.0.2.1",
        ] {
            assert!(!learns(&config, never), "{never}");
        }
    }

    #[test]
    fn check_names_the_interface_or_the_time_that_is_wrong() {
        assert_eq!(config(&["br-lan", "guest"]).check(), Ok(()));
        assert_eq!(config(&[]).check(), Err(ConfigError::NoDownstream));
        let same = ConfigError::DownstreamIsUpstream("wan".parse().unwrap());
        assert_eq!(config(&["br-lan", "wan"]).check(), Err(same));
        let twice = ConfigError::DownstreamTwice("br-lan".parse().unwrap());
        assert_eq!(config(&["br-lan", "guest", "br-lan"]).check(), Err(twice));
        let mut zero = config(&["br-lan"]);
        zero.refresh_interval = Duration::ZERO;
        assert_eq!(
            zero.check(),
            Ok(()),
            "a refresh interval of zero turns refreshes off"
        );
        zero.expiry_interval = Duration::ZERO;
        assert_eq!(zero.check(), Err(ConfigError::Zero("--expiry-interval")));
        zero.address_timeout = Duration::ZERO;
        assert_eq!(zero.check(), Err(ConfigError::Zero("--address-timeout")));
    }

    fn text(value: &impl fmt::Display) -> heapless::String<200> {
        let mut text = heapless::String::new();
        fmt::write(&mut text, format_args!("{value}")).unwrap();
        text
    }

    #[test]
    fn check_names_a_limit_of_zero() {
        for (option, per_mac, join_rate, join_burst) in [
            ("--per-mac", 0, 1, 1),
            ("--join-rate", 1, 0, 1),
            ("--join-burst", 1, 1, 0),
        ] {
            let limits = Config {
                per_mac,
                join_rate,
                join_burst,
                ..config(&["br-lan"])
            };
            assert_eq!(limits.check(), Err(ConfigError::ZeroLimit(option)));
        }
    }

    #[test]
    fn check_refuses_exclusions_that_leave_nothing_to_learn() {
        let excluding = |prefix: &str| {
            let mut config = config(&["br-lan"]);
            config.excluded.push(prefix.parse().unwrap()).unwrap();
            config
        };
        let nothing = Err(ConfigError::NothingToLearn);
        assert_eq!(excluding("2000::/3").check(), nothing);
        assert_eq!(excluding("::/0").check(), nothing);
        assert_eq!(excluding("2000::/4").check(), Ok(()), "3000::/4 is left");
        assert_eq!(excluding("4000::/3").check(), Ok(()), "2000::/3 is left");
        let mut without = config(&["br-lan"]);
        without.prefixes.clear();
        assert_eq!(without.check(), nothing);
        without.upstream_prefixes = true;
        assert_eq!(without.check(), Ok(()), "the upstream names the prefixes");
    }

    #[test]
    fn check_refuses_options_for_confirmed_addresses_if_no_host_can_confirm_one() {
        let options: [fn(&mut Config); 3] = [
            |config| config.ndp_proxy = true,
            |config| config.host_routes = true,
            |config| config.announce = true,
        ];
        for set in options {
            let mut config = config(&["br-lan"]);
            set(&mut config);
            assert_eq!(config.check(), Ok(()));
            config.ask = false;
            assert_eq!(config.check(), Ok(()), "a probe confirms");
            (config.ask, config.probe) = (true, false);
            assert_eq!(config.check(), Ok(()), "a query confirms");
            config.ask = false;
            assert_eq!(config.check(), Err(ConfigError::NothingConfirmed));
        }
        let mut silent = config(&["br-lan"]);
        (silent.ask, silent.probe) = (false, false);
        assert_eq!(
            silent.check(),
            Ok(()),
            "no option needs a confirmed address"
        );
    }

    #[test]
    fn check_limits_the_downstreams_of_the_mld_proxy_alone() {
        let with_downstreams = |count: usize, mld_proxy| {
            let mut config = config(&[]);
            config.mld_proxy = mld_proxy;
            for number in 0..count {
                let name = text(&format_args!("lan{number}")).parse().unwrap();
                config.downstreams.push(name).unwrap();
            }
            config.check()
        };
        let proxy = || Some(ProxyConfig::default());
        assert_eq!(with_downstreams(MAX_DOWNSTREAMS, None), Ok(()));
        assert_eq!(with_downstreams(MAX_PROXY_DOWNSTREAMS, proxy()), Ok(()));
        let too_many = with_downstreams(MAX_PROXY_DOWNSTREAMS + 1, proxy());
        assert_eq!(too_many, Err(ConfigError::TooManyToProxy));
    }

    #[test]
    fn check_includes_the_settings_of_the_mld_proxy() {
        let proxy = ProxyConfig {
            max_sources: 0,
            ..ProxyConfig::default()
        };
        let wrong = Config {
            mld_proxy: Some(proxy),
            ..config(&["br-lan"])
        };
        let Err(ConfigError::OutOfRange { option, .. }) = wrong.check() else {
            panic!("it is accepted: {:?}", wrong.check());
        };
        assert_eq!(option, "--max-sources");
    }

    #[test]
    fn every_error_names_its_interface_or_option() {
        let name: InterfaceName = "br-lan".parse().unwrap();
        assert_eq!((name.as_str(), &*text(&name)), ("br-lan", "br-lan"));
        let errors = [
            (ConfigError::NoDownstream, "no downstream"),
            (
                ConfigError::DownstreamIsUpstream(name.clone()),
                "br-lan is named as upstream",
            ),
            (ConfigError::DownstreamTwice(name), "br-lan is named twice"),
            (
                ConfigError::Zero("--address-timeout"),
                "--address-timeout is 0",
            ),
            (ConfigError::ZeroLimit("--per-mac"), "--per-mac is 0"),
            (ConfigError::NothingToLearn, "--exclude covers every prefix"),
            (
                ConfigError::NothingConfirmed,
                "--ndp-proxy, --host-routes and --announce",
            ),
            (
                ConfigError::TooManyToProxy,
                "--mld-proxy takes at most 28 downstream interfaces",
            ),
            (
                ConfigError::OutOfRange {
                    option: "--max-sources",
                    range: "1 to 64",
                },
                "--max-sources is out of range; it must be 1 to 64",
            ),
            (
                ConfigError::NotMulticast("--deny", GLOBAL_UNICAST),
                "--deny 2000::/3: not all of these are multicast",
            ),
            (
                ConfigError::NeverForwarded("ff02::fb/128".parse().unwrap()),
                "--allow ff02::fb/128: no router forwards",
            ),
            (ConfigError::NothingToProxy, "--deny covers every group"),
        ];
        for (error, start) in errors {
            assert!(text(&error).starts_with(start), "{error}");
        }
    }
}
