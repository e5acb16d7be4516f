//! What a user can set. Every default is a named constant with its source.

use core::fmt;
use core::net::Ipv6Addr;

use crate::link::{InterfaceName, MAX_DOWNSTREAMS, Prefix};
use crate::time::Duration;

/// How long an address counts as present after it was last seen. Above twice the 125 s a querier waits between queries and the
/// 260 s of a Multicast Address Listening Interval (RFC 3810 §9.4), so that no gateway forgets a group before mldproxy does.
pub const ADDRESS_TIMEOUT: Duration = Duration::from_secs(300);
/// How often all groups are reported unasked: four times in a Multicast Address Listening Interval (RFC 3810 §9.4), so that three
/// reports may be lost where no querier asks.
pub const REFRESH_INTERVAL: Duration = Duration::from_secs(60);
/// How often addresses are looked through for those that timed out: a tenth of [`ADDRESS_TIMEOUT`].
pub const EXPIRY_INTERVAL: Duration = Duration::from_secs(30);
/// Global unicast, the addresses that IANA hands out (RFC 4291 §2.4, RFC 3587 §3).
pub const GLOBAL_UNICAST: Prefix = Prefix {
    network: Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0),
    length: 3,
};
/// Addresses that one host may hold: a phone or laptop with temporary addresses (RFC 8981) has up to some twenty.
pub const PER_MAC: u16 = 64;
/// New groups a second, and at once: each costs the gateway a report.
pub const JOIN_RATE: u32 = 50;
pub const JOIN_BURST: u32 = 200;
/// The most prefixes of [`Config::prefixes`].
pub const MAX_PREFIXES: usize = 16;

/// A checked configuration is what [`Config::check`] returned no error for.
#[derive(Clone, Debug)]
pub struct Config {
    /// The interface towards the gateway.
    pub upstream: InterfaceName,
    /// The interfaces towards the hosts. A [`Port`](crate::link::Port) is an index into this list.
    pub downstreams: heapless::Vec<InterfaceName, MAX_DOWNSTREAMS>,
    /// Only addresses inside one of these are learned.
    pub prefixes: heapless::Vec<Prefix, MAX_PREFIXES>,
    /// From the last sighting of an address to its end; above zero.
    pub address_timeout: Duration,
    /// Between two reports of all groups; zero turns them off.
    pub refresh_interval: Duration,
    /// Between two looks for addresses that timed out; above zero.
    pub expiry_interval: Duration,
    /// What hosts are learned from.
    pub learn: Learn,
    /// Ask hosts by MLD queries whether they are still there.
    pub ask: bool,
    /// Probe addresses by Neighbor Solicitations, where asking is off or is not answered.
    pub probe: bool,
    /// Addresses that one host (link-layer address) may hold; above zero.
    pub per_mac: u16,
    /// New groups a second, and at once; both above zero.
    pub join_rate: u32,
    pub join_burst: u32,
    /// The MLD version spoken upstream.
    pub mld_mode: MldMode,
    /// [`Self::prefixes`] follows the prefixes on the upstream's link.
    pub upstream_prefixes: bool,
    /// Addresses inside one of these are never learned.
    pub excluded: heapless::Vec<Prefix, MAX_PREFIXES>,
    /// Have the kernel answer solicitations upstream for each confirmed address downstream, and answer those downstream for
    /// targets elsewhere, so that there need be no other NDP proxy.
    pub ndp_proxy: bool,
    /// A route to each confirmed address downstream, and to each neighbor found upstream: both sides hold one prefix.
    pub host_routes: bool,
    /// Advertise an address upstream once it is first confirmed (RFC 9131), so that the gateway knows it before it asks.
    pub announce: bool,
}

/// What hosts are learned from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learn {
    Both,
    /// Neighbor discovery alone: whole addresses, so that prefixes can be told.
    Ndp,
    /// MLD reports alone: 24 bits of an address, which may be a link-local one.
    Mld,
}

/// Which version of MLD is spoken upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MldMode {
    /// That of the queries heard there (RFC 3810 §8.2.1).
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
    /// The defaults between two interfaces.
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
        };
        // There is room for one.
        let _ = config.prefixes.push(GLOBAL_UNICAST);
        config
    }

    /// What is wrong with the whole, where each part is right by itself.
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
        Ok(())
    }

    /// Is `address` one to keep reachable? Never where it is link-local, multicast, loopback, unspecified or IPv4-mapped.
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

/// Why a configuration cannot be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigError {
    NoDownstream,
    DownstreamIsUpstream(InterfaceName),
    DownstreamTwice(InterfaceName),
    /// The named option, a time, is zero and must not be.
    Zero(&'static str),
    /// The named option, a limit, is zero and must not be.
    ZeroLimit(&'static str),
    /// Every prefix is excluded.
    NothingToLearn,
    /// Something is to be done for confirmed addresses, and there will be none.
    NothingConfirmed,
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
                "--ndp-proxy, --host-routes and --announce are for hosts that answered; with --no-ask and --no-probe none is asked",
            ),
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
    fn only_global_unicast_is_learned_and_some_addresses_never() {
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
    fn contradictions_are_named() {
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
            "a refresh interval of zero means none"
        );
        zero.expiry_interval = Duration::ZERO;
        assert_eq!(zero.check(), Err(ConfigError::Zero("--expiry-interval")));
        zero.address_timeout = Duration::ZERO;
        assert_eq!(zero.check(), Err(ConfigError::Zero("--address-timeout")));
    }

    /// As it is written.
    fn text(value: &impl fmt::Display) -> heapless::String<200> {
        let mut text = heapless::String::new();
        fmt::write(&mut text, format_args!("{value}")).unwrap();
        text
    }

    #[test]
    fn limits_of_zero_are_named() {
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
    fn something_has_to_be_left_to_learn() {
        let excluding = |prefix: &str| {
            let mut config = config(&["br-lan"]);
            config.excluded.push(prefix.parse().unwrap()).unwrap();
            config
        };
        let nothing = Err(ConfigError::NothingToLearn);
        assert_eq!(excluding("2000::/3").check(), nothing);
        assert_eq!(excluding("::/0").check(), nothing);
        assert_eq!(excluding("2000::/4").check(), Ok(()), "the other half");
        assert_eq!(excluding("4000::/3").check(), Ok(()), "beside it");
        let mut without = config(&["br-lan"]);
        without.prefixes.clear();
        assert_eq!(without.check(), nothing);
        without.upstream_prefixes = true;
        assert_eq!(without.check(), Ok(()), "the upstream will name them");
    }

    #[test]
    fn what_is_for_confirmed_addresses_wants_hosts_asked_or_probed() {
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
            assert_eq!(config.check(), Ok(()), "probed");
            (config.ask, config.probe) = (true, false);
            assert_eq!(config.check(), Ok(()), "asked");
            config.ask = false;
            assert_eq!(config.check(), Err(ConfigError::NothingConfirmed));
        }
        let mut silent = config(&["br-lan"]);
        (silent.ask, silent.probe) = (false, false);
        assert_eq!(silent.check(), Ok(()), "there is nothing to confirm for");
    }

    #[test]
    fn what_is_wrong_is_said_by_the_name_of_the_interface_or_option() {
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
        ];
        for (error, start) in errors {
            assert!(text(&error).starts_with(start), "{error}");
        }
    }
}
