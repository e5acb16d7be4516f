//! The firewall rule that the service adds if the upstream's zone keeps MLD out.

use crate::router::{Router, shipped_after};

crate::tests![
    the_service_adds_a_rule_for_a_zone_that_keeps_mld_out,
    the_stock_firewall_needs_no_rule,
    the_service_recognizes_other_rules_that_let_mld_in,
    the_service_ignores_rules_that_do_not_let_mld_in,
    a_zone_that_accepts_everything_needs_no_rule,
    a_zone_without_a_policy_takes_the_default_of_the_firewall,
    the_service_asks_fw4_for_the_zone,
    without_fw4_the_service_looks_the_zone_up,
    the_service_adds_no_rule_without_a_zone,
    two_instances_share_a_rule,
    an_instance_that_waits_has_no_rule,
    the_service_reloads_the_firewall_only_when_its_rules_change,
];

const ZONES: &str = "
config defaults
	option input 'REJECT'

config zone
	option name 'lan'
	list network 'lan'
	option input 'ACCEPT'

config zone
	option name 'wan'
	list network 'wan'
	list network 'wan6'
	option input 'REJECT'

config zone
	option name 'modem'
	list device 'lo'
	option input 'DROP'
";

/// The rule that OpenWrt ships.
const ALLOW_MLD: &str = "
config rule
	option name 'Allow-MLD'
	option src 'wan'
	option proto 'icmp'
	option src_ip 'fe80::/10'
	list icmp_type '130/0'
	list icmp_type '131/0'
	list icmp_type '132/0'
	list icmp_type '143/0'
	option family 'ipv6'
	option target 'ACCEPT'
";

/// The service's data, as the stubs record it, with a rule for this zone.
fn rule(zone: &str) -> String {
    format!(
        "array firewall
object 
string type rule
string family ipv6
string src {zone}
string proto icmp
array src_ip
string  fe80::/10
end
array icmp_type
string  130/0
string  131/0
string  132/0
string  143/0
end
string target ACCEPT
end
end
"
    )
}

fn running(firewall: &str) -> Router {
    running_from("wan", firewall)
}

fn running_from(upstream: &str, firewall: &str) -> Router {
    let upstream = format!("mldproxy.main.upstream={upstream}");
    let settings = [&*upstream, "mldproxy.main.enabled=1"];
    let router = Router::new(&shipped_after(&settings));
    router.write("etc/config/firewall", firewall);
    router
}

fn the_service_adds_a_rule_for_a_zone_that_keeps_mld_out() {
    let outcome = running(ZONES).run("start");
    assert_eq!(outcome.data, rule("wan"));
    assert_eq!(
        outcome.log(),
        ["info: firewall: MLD is let in from zone wan"]
    );
    assert_eq!(outcome.of("procd_set_config_changed"), [["firewall"]]);
}

fn the_stock_firewall_needs_no_rule() {
    let outcome = running(&format!("{ZONES}{ALLOW_MLD}")).run("start");
    assert_eq!(outcome.instances(), ["main"]);
    assert_eq!(outcome.data, "");
    assert_eq!(outcome.log(), [""; 0]);
    assert_eq!(outcome.of("procd_set_config_changed"), [[""; 0]; 0]);
}

/// The service's data if the stock rule has `to` in place of `from`.
fn with_rule(from: &str, to: &str) -> String {
    assert!(ALLOW_MLD.contains(from), "{from}");
    let firewall = format!("{ZONES}{}", ALLOW_MLD.replace(from, to));
    running(&firewall).run("start").data
}

fn the_service_recognizes_other_rules_that_let_mld_in() {
    let types = &ALLOW_MLD[ALLOW_MLD.find("\tlist icmp_type").unwrap()..];
    let (types, _) = types.split_once("\toption family").unwrap();
    for (from, to) in [
        (types, ""),
        (types, "\toption icmp_type '130'\n"),
        (types, "\tlist icmp_type 'multicast-listener-query'\n"),
        ("src 'wan'", "src '*'"),
        ("\toption src_ip 'fe80::/10'\n", ""),
        ("\toption family 'ipv6'\n", ""),
        ("proto 'icmp'", "proto 'icmpv6'"),
        ("proto 'icmp'", "proto 'all'"),
        ("'ACCEPT'", "'ACCEPT'\n\toption enabled '1'"),
    ] {
        assert_eq!(with_rule(from, to), "", "{to}");
    }
}

fn the_service_ignores_rules_that_do_not_let_mld_in() {
    for (from, to) in [
        ("'ACCEPT'", "'DROP'"),
        ("'ACCEPT'", "'ACCEPT'\n\toption enabled '0'"),
        ("'ACCEPT'", "'ACCEPT'\n\toption dest 'lan'"),
        ("'ACCEPT'", "'ACCEPT'\n\toption src_mac '00:00:5e:00:53:01'"),
        ("'ACCEPT'", "'ACCEPT'\n\toption start_time '07:00:00'"),
        ("src 'wan'", "src 'guest'"),
        ("\toption src 'wan'\n", ""),
        ("'fe80::/10'", "'2001:db8::/32'"),
        ("'130/0'", "'echo-request'"),
        ("family 'ipv6'", "family 'ipv4'"),
        ("proto 'icmp'", "proto 'udp'"),
        ("\toption proto 'icmp'\n", ""),
    ] {
        assert_eq!(with_rule(from, to), rule("wan"), "{to}");
    }
}

fn a_zone_that_accepts_everything_needs_no_rule() {
    for accept in ["ACCEPT", "accept"] {
        let firewall = ZONES.replace("'REJECT'", &format!("'{accept}'"));
        assert_eq!(running(&firewall).run("start").data, "");
    }
}

fn a_zone_without_a_policy_takes_the_default_of_the_firewall() {
    let own = "'wan6'\n\toption input 'REJECT'";
    assert!(ZONES.contains(own));
    let without = ZONES.replace(own, "'wan6'");
    assert_eq!(running(&without).run("start").data, rule("wan"));
    let accepting = without.replacen("'REJECT'", "'ACCEPT'", 1);
    assert_eq!(running(&accepting).run("start").data, "");
}

fn the_service_asks_fw4_for_the_zone() {
    // fw4 knows zones that no file names, such as one that a protocol handler gave its network.
    let router = running_from("wan_6", ZONES);
    router.write("up", "wan_6 pppoe-wan\nlan br-lan\n");
    assert_eq!(router.run("start").data, "");
    router.write("zones", "network wan_6 wan\n");
    let outcome = router.run("reload");
    assert_eq!(outcome.data, rule("wan"));
    assert_eq!(outcome.of("fw4"), [["-q", "network", "wan_6"]]);

    let router = running_from("lo", &ZONES.replace("'lo'", "'eth9'"));
    router.write("zones", "device lo modem\n");
    assert_eq!(router.run("start").data, rule("modem"));
}

fn without_fw4_the_service_looks_the_zone_up() {
    let outcome = running_from("lo", ZONES).run("start");
    assert_eq!(outcome.data, rule("modem"));
    assert_eq!(outcome.of("fw4"), [[""; 0]; 0]);

    // A zone may list the device of a network that no zone lists.
    let by_device = ZONES
        .replace("\tlist network 'wan'\n", "")
        .replace("'lo'", "'pppoe-wan'");
    assert_eq!(running(&by_device).run("start").data, rule("modem"));
}

fn the_service_adds_no_rule_without_a_zone() {
    let outcome = running_from("usb7", ZONES).run("start");
    assert_eq!((outcome.instances(), &*outcome.data), (vec!["main"], ""));
    // There is no rule without a firewall either.
    let settings = ["mldproxy.main.upstream=wan", "mldproxy.main.enabled=1"];
    let outcome = Router::new(&shipped_after(&settings)).run("start");
    assert_eq!((outcome.instances(), &*outcome.data), (vec!["main"], ""));
}

fn two_instances_share_a_rule() {
    let config = "
config mldproxy
	option enabled '1'
	option upstream 'wan'

config mldproxy
	option enabled '1'
	option upstream 'wan6'
	option downstream 'guest'
";
    let router = Router::new(config);
    router.write("etc/config/firewall", ZONES);
    router.write("up", "wan eth1\nwan6 eth1\nlan br-lan\nguest br-guest\n");
    let outcome = router.run("start");
    assert_eq!(outcome.instances().len(), 2);
    assert_eq!(outcome.data, rule("wan"));
}

fn an_instance_that_waits_has_no_rule() {
    let router = running(ZONES);
    router.write("up", "lan br-lan\n");
    assert_eq!(router.run("start").data, "");
}

fn the_service_reloads_the_firewall_only_when_its_rules_change() {
    let router = running(ZONES);
    let reloads = |action| router.run(action).of("procd_set_config_changed").len();
    assert_eq!(reloads("start"), 1);
    assert_eq!(reloads("reload"), 0);
    // The owner adds the rule, then takes it away.
    router.write("etc/config/firewall", &format!("{ZONES}{ALLOW_MLD}"));
    assert_eq!(reloads("reload"), 1);
    assert_eq!(reloads("reload"), 0);
    router.write("etc/config/firewall", ZONES);
    assert_eq!(reloads("reload"), 1);
    assert_eq!(reloads("stop"), 1);
    assert_eq!(reloads("stop"), 0);
}
