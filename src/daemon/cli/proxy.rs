//! The options of the MLD proxy.

use protocol::config::{Forward, MAX_PREFIXES, ProxyConfig, QuerierMode, Scope};
use protocol::link::Prefix;
use protocol::time::Duration;

use super::RunArguments;

/// The settings of the MLD proxy; `None` without --mld-proxy. The values are not checked against
/// their ranges.
pub fn settings(arguments: &RunArguments) -> Result<Option<ProxyConfig>, String> {
    if !arguments.mld_proxy {
        return match first_option(arguments) {
            Some(option) => Err(format!("{option} has no effect without --mld-proxy")),
            None => Ok(None),
        };
    }
    let default = ProxyConfig::default();
    // A number that its type cannot hold is beyond its range as well.
    Ok(Some(ProxyConfig {
        fast_leave: arguments.fast_leave,
        senders: arguments.senders,
        scope: arguments.scope.unwrap_or(default.scope),
        querier: arguments.querier.unwrap_or(default.querier),
        query_interval: arguments.query_interval.unwrap_or(default.query_interval),
        robustness: arguments.robustness.map_or(default.robustness, |value| {
            u8::try_from(value).unwrap_or(u8::MAX)
        }),
        last_listener_interval: arguments
            .last_listener_interval
            .unwrap_or(default.last_listener_interval),
        max_groups: arguments.max_groups.map_or(default.max_groups, |value| {
            u16::try_from(value).unwrap_or(u16::MAX)
        }),
        max_sources: arguments.max_sources.map_or(default.max_sources, |value| {
            u8::try_from(value).unwrap_or(u8::MAX)
        }),
        allow: prefixes("--allow", &arguments.allow)?,
        deny: prefixes("--deny", &arguments.deny)?,
        table: arguments.table,
        forward: arguments.forward.unwrap_or(default.forward),
    }))
}

/// The first option on the command line that only the MLD proxy has.
fn first_option(arguments: &RunArguments) -> Option<&'static str> {
    let options = [
        ("--fast-leave", arguments.fast_leave),
        ("--senders", arguments.senders),
        ("--scope", arguments.scope.is_some()),
        ("--querier", arguments.querier.is_some()),
        ("--query-interval", arguments.query_interval.is_some()),
        ("--robustness", arguments.robustness.is_some()),
        (
            "--last-listener-interval",
            arguments.last_listener_interval.is_some(),
        ),
        ("--max-groups", arguments.max_groups.is_some()),
        ("--max-sources", arguments.max_sources.is_some()),
        ("--allow", !arguments.allow.is_empty()),
        ("--deny", !arguments.deny.is_empty()),
        ("--table", arguments.table.is_some()),
        ("--forward", arguments.forward.is_some()),
    ];
    options
        .into_iter()
        .find_map(|(option, given)| given.then_some(option))
}

fn prefixes(
    option: &str,
    prefixes: &[Prefix],
) -> Result<heapless::Vec<Prefix, MAX_PREFIXES>, String> {
    heapless::Vec::from_slice(prefixes)
        .map_err(|_| format!("more than {MAX_PREFIXES} times {option}"))
}

/// Reads a scope by its name, or by its number where that is one that routers forward (RFC 7346
/// §2).
pub fn scope(text: &str) -> Result<Scope, String> {
    match text {
        "admin" => Ok(Scope::ADMIN_LOCAL),
        "site" => Ok(Scope::SITE_LOCAL),
        "organization" => Ok(Scope::ORGANIZATION_LOCAL),
        "global" => Ok(Scope::GLOBAL),
        _ => match text.parse() {
            Ok(number @ 3..=14) => Ok(Scope(number)),
            _ => Err("not one of admin, site, organization, global, 3 to 14".to_owned()),
        },
    }
}

pub fn querier(text: &str) -> Result<QuerierMode, String> {
    match text {
        "auto" => Ok(QuerierMode::Auto),
        "v1" => Ok(QuerierMode::V1),
        "off" => Ok(QuerierMode::Off),
        _ => Err("not one of auto, v1, off".to_owned()),
    }
}

pub fn forward(text: &str) -> Result<Forward, String> {
    match text {
        "auto" => Ok(Forward::Auto),
        "always" => Ok(Forward::Always),
        _ => Err("not one of auto, always".to_owned()),
    }
}

/// Reads a number of seconds with up to three digits behind the point.
pub fn decimal_seconds(text: &str) -> Result<Duration, String> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| text.bytes().all(|octet| octet.is_ascii_digit());
    let seconds = whole.parse::<u32>().ok().filter(|_| digits(whole));
    match (seconds, decimals.len()) {
        (Some(seconds), 1..=3) if digits(decimals) => {
            let fraction = decimals.bytes().chain(*b"00").take(3);
            let fraction = fraction.fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'));
            Ok(Duration::from_millis(u64::from(seconds) * 1000 + fraction))
        }
        _ => Err("not a number of seconds such as 1 or 0.25".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Command, parse};

    /// The settings of the MLD proxy with these options.
    fn parsed(options: &[&str]) -> Result<ProxyConfig, String> {
        let arguments = [&["run"], options, &["wan", "br-lan"]].concat();
        match parse(&arguments)? {
            Command::Run(settings) => Ok(settings.config.mld_proxy.expect("a proxy")),
            _ => panic!("another command"),
        }
    }

    #[test]
    fn the_help_tells_the_defaults() {
        let Ok(Command::Print(help)) = parse(&["run", "--help"]) else {
            panic!("no help")
        };
        let words: Vec<&str> = help.split_whitespace().collect();
        let help = words.join(" ");
        let (_, mut rest) = help.split_once(" --senders ").expect("--senders");
        let mut options = vec!["--mld-proxy".to_owned()];
        for option in [
            "scope",
            "querier",
            "query-interval",
            "robustness",
            "last-listener-interval",
            "max-groups",
            "max-sources",
            "forward",
        ] {
            (_, rest) = rest.split_once(&format!(" --{option} ")).expect(option);
            let (_, default) = rest.split_once("(default ").expect(option);
            let (default, _) = default.split_once(')').expect(option);
            options.extend([format!("--{option}"), default.to_owned()]);
        }
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let default = format!("{:?}", ProxyConfig::default());
        assert_eq!(format!("{:?}", parsed(&options).unwrap()), default);
        assert_eq!(format!("{:?}", parsed(&["--mld-proxy"]).unwrap()), default);
    }

    #[test]
    fn each_option_reaches_its_setting() {
        let options = "--mld-proxy --fast-leave --senders --scope site --querier v1 \
            --query-interval 60 --robustness 3 --last-listener-interval 0.1 --max-groups 1000 \
            --max-sources 8 --allow ff3e::/16 --allow ff05::/16 --deny ff3e:1::/32 --table 100 \
            --forward always";
        let options: Vec<&str> = options.split_whitespace().collect();
        let config = parsed(&options).unwrap();
        assert!(config.fast_leave && config.senders);
        assert_eq!(config.scope, Scope::SITE_LOCAL);
        assert_eq!(config.querier, QuerierMode::V1);
        assert_eq!(config.query_interval, Duration::from_secs(60));
        assert_eq!(config.robustness, 3);
        assert_eq!(config.last_listener_interval, Duration::from_millis(100));
        assert_eq!((config.max_groups, config.max_sources), (1000, 8));
        let allow = ["ff3e::/16", "ff05::/16"].map(|text| text.parse::<Prefix>().unwrap());
        assert_eq!(config.allow, allow);
        assert_eq!(config.deny, ["ff3e:1::/32".parse::<Prefix>().unwrap()]);
        assert_eq!(config.table, Some(100));
        assert_eq!(config.forward, Forward::Always);
    }

    #[test]
    fn each_option_of_the_proxy_alone_needs_it() {
        for options in [
            &["--fast-leave"][..],
            &["--senders"],
            &["--scope", "site"],
            &["--querier", "off"],
            &["--query-interval", "125"],
            &["--robustness", "2"],
            &["--last-listener-interval", "1"],
            &["--max-groups", "400"],
            &["--max-sources", "64"],
            &["--allow", "ff0e::/16"],
            &["--deny", "ff0e::/16"],
            &["--table", "100"],
            &["--forward", "auto"],
        ] {
            let error = parsed(options).unwrap_err();
            let expected = format!(
                "mldproxy: {} has no effect without --mld-proxy\n",
                options[0]
            );
            assert_eq!(error, expected);
        }
    }

    #[test]
    fn a_number_too_large_for_its_setting_is_out_of_range() {
        for (option, value) in [
            ("--robustness", "258"),
            ("--max-groups", "65546"),
            ("--max-sources", "264"),
            ("--table", "4294967295"),
        ] {
            let error = parsed(&["--mld-proxy", option, value]).unwrap_err();
            let expected = format!("mldproxy: {option} is out of range; ");
            assert!(error.starts_with(&expected), "{value}: {error}");
        }
    }

    #[test]
    fn seconds_have_up_to_three_decimals() {
        for (text, millis) in [
            ("1", 1000),
            ("0.1", 100),
            ("0.25", 250),
            ("25.000", 25_000),
            ("0.001", 1),
            ("0", 0),
            ("4294967295.999", 4_294_967_295_999),
        ] {
            assert_eq!(
                decimal_seconds(text),
                Ok(Duration::from_millis(millis)),
                "{text}"
            );
        }
        for text in [
            "",
            ".",
            "1.",
            ".5",
            "1.2345",
            "-1",
            "+1",
            "1.-5",
            "1,5",
            "1s",
            "4294967296",
        ] {
            assert!(decimal_seconds(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_scope_has_a_name_or_a_number() {
        for (text, number) in [
            ("admin", 4),
            ("site", 5),
            ("organization", 8),
            ("global", 14),
            ("3", 3),
            ("14", 14),
        ] {
            assert_eq!(scope(text), Ok(Scope(number)), "{text}");
        }
        for text in ["moon", "", "2", "15", "-3", "Global"] {
            assert!(scope(text).is_err(), "{text}");
        }
    }
}
