//! The firewall rule that lets MLD in from the upstream's zone.

use crate::router::{Router, shipped_after};

crate::tests![
    the_service_lets_mld_in_from_the_upstreams_zone,
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

fn the_service_lets_mld_in_from_the_upstreams_zone() {
    let outcome = running(ZONES).run("start");
    assert_eq!(outcome.data, rule("wan"));
    assert_eq!(
        outcome.log(),
        ["info: firewall: MLD is let in from zone wan"]
    );
    assert_eq!(outcome.of("procd_set_config_changed"), [["firewall"]]);
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
    // The owner renames the zone.
    let renamed = ZONES.replace("name 'wan'", "name 'outside'");
    router.write("etc/config/firewall", &renamed);
    assert_eq!(reloads("reload"), 1);
    assert_eq!(reloads("reload"), 0);
    assert_eq!(reloads("stop"), 1);
    assert_eq!(reloads("stop"), 0);
}
