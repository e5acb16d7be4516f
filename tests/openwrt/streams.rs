//! The firewall rules of `mld_proxy`. A model of fw4 tells what becomes of a packet by them.

use std::net::Ipv6Addr;

use crate::router::{Outcome, Router, shipped_after};

crate::tests![
    one_option_makes_an_mld_proxy_with_its_rules,
    streams_pass_between_the_zones_of_the_links_on_every_kernel,
    senders_reach_the_upstream_from_the_scope_on,
    each_scope_keeps_the_lower_ones_at_home,
    networks_that_share_a_zone_share_its_rules,
    a_link_in_no_zone_is_named,
    without_a_firewall_there_are_no_rules,
    an_instance_that_is_no_proxy_gets_no_rules_for_streams,
    the_rules_go_with_the_option,
];

/// Every zone refuses all that no rule accepts.
pub const ZONES: &str = "
config defaults
	option input 'REJECT'

config zone
	option name 'home'
	list network 'lan'
	option input 'ACCEPT'

config zone
	option name 'outside'
	list network 'wan'
	option input 'REJECT'

config zone
	option name 'visitors'
	list network 'guest'
	option input 'REJECT'
";

pub const LAN_AND_GUEST: &[&str] = &["mldproxy.main.downstream=lan guest"];

pub fn proxying(settings: &[&str]) -> Router {
    let always = [
        "mldproxy.main.upstream=wan",
        "mldproxy.main.enabled=1",
        "mldproxy.main.mld_proxy=1",
    ];
    let router = Router::new(&shipped_after(&[settings, &always[..]].concat()));
    router.write("etc/config/firewall", ZONES);
    router
}

/// A rule of the service: its options, each with its values.
pub type Rule = Vec<(String, Vec<String>)>;

/// The rules in the service's data, as the stubs record it.
pub fn rules(outcome: &Outcome) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    let mut lines = outcome.data.lines();
    if outcome.data.is_empty() {
        return rules;
    }
    assert_eq!(lines.next(), Some("array firewall"));
    while let Some(line) = lines.next() {
        match *line.split(' ').collect::<Vec<_>>() {
            ["object", ""] => rules.push(Vec::new()),
            ["string", name, value] => {
                let rule = rules.last_mut().expect("a rule");
                rule.push((name.to_owned(), vec![value.to_owned()]));
            }
            ["array", name] => {
                let values = lines.by_ref().take_while(|line| *line != "end");
                let values = values.map(|line| line.strip_prefix("string  ").expect("a value"));
                let values = values.map(str::to_owned).collect();
                let rule = rules.last_mut().expect("a rule");
                rule.push((name.to_owned(), values));
            }
            ["end"] => {}
            _ => panic!("{line}"),
        }
    }
    rules
}

/// The rules, each in one line. All are for IPv6.
pub fn lines(outcome: &Outcome) -> Vec<String> {
    let line = |rule: &Rule| {
        let words: Vec<String> = rule
            .iter()
            .map(|(name, values)| format!("{name}={}", values.join(",")))
            .collect();
        let line = words.join(" ");
        let line = line.strip_prefix("type=rule family=ipv6 ");
        line.expect("a rule for IPv6").to_owned()
    };
    rules(outcome).iter().map(line).collect()
}

/// What a kernel shows the firewall as the incoming interface of a forwarded multicast packet.
#[derive(Clone, Copy, Debug)]
pub enum Kernel {
    ShowsTheIncoming,
    /// Linux before 6.17, and its stable releases before August 2025.
    ShowsTheOutgoing,
}

pub const KERNELS: [Kernel; 2] = [Kernel::ShowsTheIncoming, Kernel::ShowsTheOutgoing];

#[derive(Debug, PartialEq)]
pub enum Verdict {
    Accept,
    Drop,
    /// No rule of the service says anything.
    Policy,
}

/// Whether an address is in PREFIX/LENGTH or ADDRESS/MASK.
fn is_within(address: Ipv6Addr, range: &str) -> bool {
    let (network, mask) = range.split_once('/').expect("a range");
    let network: Ipv6Addr = network.parse().unwrap();
    let mask = match mask.parse::<u32>() {
        Ok(length) => u128::MAX.checked_shl(128 - length).unwrap_or(0),
        Err(_) => mask.parse::<Ipv6Addr>().unwrap().to_bits(),
    };
    address.to_bits() & mask == network.to_bits()
}

/// Tells what fw4 does by these rules with a forwarded packet. It looks at the rules from any zone
/// first, then at those from the zone of the incoming interface.
pub fn verdict(
    rules: &[Rule],
    kernel: Kernel,
    [from, to]: [&str; 2],
    protocol: &str,
    [source, group]: [&str; 2],
) -> Verdict {
    let from = match kernel {
        Kernel::ShowsTheIncoming => from,
        Kernel::ShowsTheOutgoing => to,
    };
    let matches = |rule: &Rule| {
        rule.iter().all(|(name, values)| match &**name {
            "type" | "family" | "target" | "src" => true,
            "dest" => values[0] == "*" || values[0] == to,
            "proto" => values[0] == "all" || values[0] == protocol,
            "src_ip" => values
                .iter()
                .any(|range| is_within(source.parse().unwrap(), range)),
            "dest_ip" => values
                .iter()
                .any(|range| is_within(group.parse().unwrap(), range)),
            _ => panic!("{name}"),
        })
    };
    let option = |rule: &Rule, name: &str| {
        let found = rule.iter().find(|(other, _)| other == name);
        found.map(|(_, values)| values[0].clone())
    };
    let forwarding = || rules.iter().filter(|rule| option(rule, "dest").is_some());
    for zone in ["*", from] {
        let of_zone = forwarding().filter(|rule| option(rule, "src").as_deref() == Some(zone));
        for rule in of_zone {
            match option(rule, "target").as_deref() {
                Some("ACCEPT") if matches(rule) => return Verdict::Accept,
                Some("DROP") if matches(rule) => return Verdict::Drop,
                _ => {}
            }
        }
    }
    Verdict::Policy
}

pub const GLOBAL: &str = "2001:db8:9::1";

/// The rule that lets MLD in from a zone.
fn mld_from(zone: &str) -> String {
    format!(
        "src={zone} proto=icmp src_ip=fe80::/10 icmp_type=130/0,131/0,132/0,143/0 target=ACCEPT"
    )
}

fn one_option_makes_an_mld_proxy_with_its_rules() {
    let outcome = proxying(&[]).run("start");
    assert_eq!(
        outcome.arguments("main"),
        ["--mld-proxy", "--", "pppoe-wan", "br-lan"]
    );
    assert_eq!(
        lines(&outcome),
        [
            "src=outside dest=home proto=udp dest_ip=ff00::/8 target=ACCEPT",
            "src=home dest=home proto=udp dest_ip=ff00::/8 target=ACCEPT",
            "src=* dest=* proto=all src_ip=fe80::/10,::/128 dest_ip=ff00::/8 target=DROP",
            &mld_from("outside"),
            &mld_from("home"),
        ]
    );
    assert_eq!(
        outcome.log(),
        [
            "info: firewall: multicast is let through from zone outside to zone home",
            "info: firewall: MLD is let in from zone outside home",
        ]
    );
    assert_eq!(outcome.of("procd_set_config_changed"), [["firewall"]]);
}

fn streams_pass_between_the_zones_of_the_links_on_every_kernel() {
    let outcome = proxying(LAN_AND_GUEST).run("start");
    let rules = rules(&outcome);
    let log = outcome.log();
    assert_eq!(
        log,
        [
            "info: firewall: multicast is let through from zone outside to zone home visitors",
            "info: firewall: MLD is let in from zone outside home visitors",
        ]
    );
    for kernel in KERNELS {
        for from in ["outside", "home", "visitors"] {
            for to in ["home", "visitors"] {
                let passes =
                    |protocol, addresses| verdict(&rules, kernel, [from, to], protocol, addresses);
                let case = format!("{kernel:?}: {from} to {to}");
                for group in ["ff3e::8000:1", "ff05::fa", "ff03::1", "ff0e::1"] {
                    assert_eq!(passes("udp", [GLOBAL, group]), Verdict::Accept, "{case}");
                    for source in ["fe80::1", "febf::1", "::"] {
                        let dropped = passes("udp", [source, group]);
                        assert_eq!(dropped, Verdict::Drop, "{case}: {source}");
                    }
                    for protocol in ["tcp", "icmp"] {
                        let other = passes(protocol, [GLOBAL, group]);
                        assert_eq!(other, Verdict::Policy, "{case}: {protocol}");
                    }
                }
                for unicast in ["2001:db8::1", "fe80::1"] {
                    let other = passes("udp", [GLOBAL, unicast]);
                    assert_eq!(other, Verdict::Policy, "{case}: {unicast}");
                }
            }
            // Without senders nothing is to be forwarded there, and nothing is accepted.
            let up = verdict(
                &rules,
                kernel,
                [from, "outside"],
                "udp",
                [GLOBAL, "ff0e::1"],
            );
            assert_eq!(up, Verdict::Policy, "{kernel:?}: {from}");
        }
    }
    let mld = lines(&outcome);
    assert_eq!(mld.last().unwrap(), &mld_from("visitors"));
}

fn senders_reach_the_upstream_from_the_scope_on() {
    let settings = [LAN_AND_GUEST, &["mldproxy.main.senders=1"]].concat();
    let outcome = proxying(&settings).run("start");
    let rules = rules(&outcome);
    let line =
        "info: firewall: multicast is let through to zone outside, from scope organization on";
    assert!(
        outcome.log().contains(&line.to_owned()),
        "{:?}",
        outcome.log()
    );
    for kernel in KERNELS {
        for from in ["home", "visitors"] {
            let sent = |source, group: &str| {
                verdict(&rules, kernel, [from, "outside"], "udp", [source, group])
            };
            // Whatever flags precede the scope.
            for flags in "0123456789abcdef".chars() {
                for scope in "34567".chars() {
                    let group = format!("ff{flags}{scope}::fb");
                    assert_eq!(sent(GLOBAL, &group), Verdict::Drop, "{kernel:?}: {group}");
                }
                for scope in "89abcde".chars() {
                    let group = format!("ff{flags}{scope}::fb");
                    assert_eq!(sent(GLOBAL, &group), Verdict::Accept, "{kernel:?}: {group}");
                    assert_eq!(
                        sent("fe80::1", &group),
                        Verdict::Drop,
                        "{kernel:?}: {group}"
                    );
                }
            }
            // Between downstreams each scope passes.
            for to in ["home", "visitors"] {
                let inside = verdict(&rules, kernel, [from, to], "udp", [GLOBAL, "ff05::fb"]);
                assert_eq!(inside, Verdict::Accept, "{kernel:?}: {from} to {to}");
            }
            let unicast = sent(GLOBAL, "2001:db8::1");
            assert_eq!(unicast, Verdict::Policy, "{kernel:?}");
        }
    }
}

fn each_scope_keeps_the_lower_ones_at_home() {
    for (name, lowest) in [
        ("3", 3),
        ("admin", 4),
        ("site", 5),
        ("6", 6),
        ("organization", 8),
        ("10", 10),
        ("13", 13),
        ("global", 14),
        ("14", 14),
    ] {
        let scope = format!("mldproxy.main.scope={name}");
        let outcome = proxying(&["mldproxy.main.senders=1", &scope]).run("start");
        let rules = rules(&outcome);
        for scope in 3..=14 {
            let group = format!("ff3{scope:x}::1");
            let sent = verdict(
                &rules,
                Kernel::ShowsTheIncoming,
                ["home", "outside"],
                "udp",
                [GLOBAL, &group],
            );
            let expected = if scope < lowest {
                Verdict::Drop
            } else {
                Verdict::Accept
            };
            assert_eq!(sent, expected, "{name}: {group}");
        }
    }
}

fn networks_that_share_a_zone_share_its_rules() {
    let router = proxying(&["mldproxy.main.downstream=lan guest iot"]);
    router.write("networks", "wan\nlan\nguest\niot\n");
    router.write(
        "up",
        "wan pppoe-wan\nlan br-lan\nguest br-guest\niot br-iot\n",
    );
    let shared = ZONES.replace(
        "list network 'lan'",
        "list network 'lan'\n\tlist network 'iot'",
    );
    router.write("etc/config/firewall", &shared);
    let outcome = router.run("start");
    let pairs = [
        "outside home",
        "home home",
        "visitors home",
        "outside visitors",
    ];
    let pairs = pairs
        .into_iter()
        .chain(["home visitors", "visitors visitors"]);
    let expected: Vec<String> = pairs
        .map(|pair| {
            let (from, to) = pair.split_once(' ').unwrap();
            format!("src={from} dest={to} proto=udp dest_ip=ff00::/8 target=ACCEPT")
        })
        .collect();
    assert_eq!(lines(&outcome)[..6], expected);
    assert_eq!(
        lines(&outcome)[7..],
        ["outside", "home", "visitors"].map(mld_from)
    );

    // The upstream too may be in the zone of the hosts.
    let all = ZONES.replace(
        "list network 'lan'",
        "list network 'lan'\n\tlist network 'wan'",
    );
    let router = proxying(&["mldproxy.main.senders=1"]);
    router.write(
        "etc/config/firewall",
        &all.replacen("list network 'wan'\n\toption input 'REJECT'", "", 1),
    );
    let outcome = router.run("start");
    let accepting: Vec<String> = lines(&outcome)
        .into_iter()
        .filter(|line| line.contains("dest="))
        .filter(|line| line.ends_with("ACCEPT"))
        .collect();
    assert_eq!(
        accepting,
        ["src=home dest=home proto=udp dest_ip=ff00::/8 target=ACCEPT"]
    );
}

fn a_link_in_no_zone_is_named() {
    let router = proxying(LAN_AND_GUEST);
    let without = ZONES.replace("list network 'guest'", "list network 'iot'");
    router.write("etc/config/firewall", &without);
    let outcome = router.run("start");
    assert_eq!(
        outcome.log(),
        [
            "warning: firewall: guest is in no zone: no rule lets multicast through there",
            "info: firewall: multicast is let through from zone outside to zone home",
            "info: firewall: MLD is let in from zone outside home",
        ]
    );
    assert_eq!(lines(&outcome).len(), 5);

    let without = ZONES.replace("list network 'wan'", "list network 'wan9'");
    router.write("etc/config/firewall", &without);
    let outcome = router.run("start");
    assert_eq!(
        outcome.log()[..2],
        [
            "warning: firewall: wan is in no zone: no rule lets multicast through there",
            "info: firewall: multicast is let through to zone home visitors",
        ]
    );
    let rules = lines(&outcome);
    assert!(
        !rules.iter().any(|line| line.contains("outside")),
        "{rules:?}"
    );
}

fn without_a_firewall_there_are_no_rules() {
    let router = proxying(LAN_AND_GUEST);
    router.remove("etc/config/firewall");
    let outcome = router.run("start");
    assert_eq!(outcome.instances(), ["main"]);
    assert_eq!(outcome.data, "");
    assert_eq!(outcome.log(), [""; 0]);
}

fn an_instance_that_is_no_proxy_gets_no_rules_for_streams() {
    let settings = ["mldproxy.main.upstream=wan", "mldproxy.main.enabled=1"];
    let router = Router::new(&shipped_after(&settings));
    router.write("etc/config/firewall", ZONES);
    let outcome = router.run("start");
    assert_eq!(outcome.arguments("main"), ["--", "pppoe-wan", "br-lan"]);
    assert_eq!(lines(&outcome), [mld_from("outside")]);
}

fn the_rules_go_with_the_option() {
    let router = proxying(&[]);
    let reloads = |action| router.run(action).of("procd_set_config_changed").len();
    assert_eq!(reloads("start"), 1);
    assert_eq!(reloads("reload"), 0);
    let off = shipped_after(&["mldproxy.main.upstream=wan", "mldproxy.main.enabled=1"]);
    router.write("etc/config/mldproxy", &off);
    let outcome = router.run("reload");
    assert_eq!(lines(&outcome), [mld_from("outside")]);
    assert_eq!(outcome.procd_did, ["restart main"]);
    assert_eq!(outcome.of("procd_set_config_changed"), [["firewall"]]);
}
