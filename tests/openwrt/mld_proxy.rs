//! `mld_proxy`: the section that has it, and what else it needs of the router.

use crate::router::{Router, shipped_after};
use crate::streams::{
    GLOBAL, KERNELS, Kernel, LAN_AND_GUEST, Verdict, ZONES, proxying, rules, verdict,
};

crate::tests![
    a_table_of_its_own_makes_a_second_proxy,
    options_without_the_proxy_have_no_effect,
    a_bridge_that_floods_is_named_with_what_ends_it,
    a_bridge_that_snoops_is_not_named,
    a_bridge_that_queries_itself_is_named_with_what_ends_it,
    only_the_bridges_of_a_proxy_are_named,
];

fn second_proxy(options: &str) -> Router {
    let config = format!(
        "
config mldproxy 'main'
	option enabled '1'
	option upstream 'wan'
	option mld_proxy '1'

config mldproxy 'second'
	option enabled '1'
	option upstream 'wan6'
	option downstream 'guest'
	option mld_proxy '1'
{options}"
    );
    let router = Router::new(&config);
    router.write("networks", "wan\nwan6\nlan\nguest\n");
    router.write(
        "up",
        "wan pppoe-wan\nlan br-lan\nguest br-guest\nwan6 eth1\n",
    );
    let zones = ZONES.replace(
        "list network 'wan'",
        "list network 'wan'\n\tlist network 'wan6'",
    );
    router.write("etc/config/firewall", &zones);
    router
}

fn a_table_of_its_own_makes_a_second_proxy() {
    let outcome = second_proxy("\toption table '100'\n").run("start");
    assert_eq!(
        outcome.arguments("second"),
        ["--mld-proxy", "--table", "100", "--", "eth1", "br-guest"]
    );
    let rules = rules(&outcome);
    for kernel in KERNELS {
        for to in ["home", "visitors"] {
            let down = ["outside", to];
            let stream = verdict(&rules, kernel, down, "udp", [GLOBAL, "ff3e::1"]);
            assert_eq!(stream, Verdict::Accept, "{to}");
        }
    }
    // The downstreams of one proxy are not open to those of another one.
    let kernel = Kernel::ShowsTheIncoming;
    let across = verdict(
        &rules,
        kernel,
        ["visitors", "home"],
        "udp",
        [GLOBAL, "ff05::1"],
    );
    assert_eq!(across, Verdict::Policy);
}

fn options_without_the_proxy_have_no_effect() {
    let settings = [
        "mldproxy.main.upstream=wan",
        "mldproxy.main.enabled=1",
        "mldproxy.main.scope=moon",
        "mldproxy.main.allow=ff3e::/16 ff05::/16",
        "mldproxy.main.senders=1",
        "mldproxy.main.fast_leave=0",
    ];
    let outcome = Router::new(&shipped_after(&settings)).run("start");
    assert_eq!(outcome.arguments("main"), ["--", "pppoe-wan", "br-lan"]);
    assert_eq!(outcome.log(), [""; 0]);
}

const NETWORK: &str = "
config device
	option name 'eth0'

config device
	option name 'br-lan'
	option type 'bridge'
	list ports 'lan1'

config device 'visitors'
	option name 'br-guest'
	option type 'bridge'

config interface 'lan'
	option device 'br-lan'
";

/// The log lines about bridges.
fn hints(router: &Router, action: &str) -> Vec<String> {
    let log = router.run(action).log().into_iter();
    log.filter(|line| line.contains("@device")).collect()
}

fn hint(bridge: &str, number: u32) -> String {
    format!(
        "notice: streams flood all ports of {bridge} and its Wi-Fi: uci set \
         network.@device[{number}].igmp_snooping=1, uci set \
         network.@device[{number}].multicast_querier=0, uci commit network and service network \
         reload"
    )
}

fn a_bridge_that_floods_is_named_with_what_ends_it() {
    let router = proxying(LAN_AND_GUEST);
    router.write("etc/config/network", NETWORK);
    let both = [hint("br-lan", 1), hint("br-guest", 2)];
    assert_eq!(hints(&router, "start"), both);
    assert_eq!(
        hints(&router, "reload"),
        [""; 0],
        "a reload repeats nothing"
    );
    let off = NETWORK.replacen("'bridge'", "'bridge'\n\toption igmp_snooping '0'", 1);
    router.write("etc/config/network", &off);
    assert_eq!(hints(&router, "start"), both);

    // A VLAN of a bridge.
    router.write("up", "wan pppoe-wan\nlan br-lan.7\nguest eth0\n");
    assert_eq!(hints(&router, "start"), both[..1]);
}

/// A section of a bridge that snoops, with or without the bridge's own querier.
const SNOOPING: &str = "'bridge'\n\toption igmp_snooping 'ON'\n\toption multicast_querier '0'";

fn a_bridge_that_snoops_is_not_named() {
    let router = proxying(LAN_AND_GUEST);
    for on in ["1", "on"] {
        let snooping = NETWORK.replace("'bridge'", &SNOOPING.replace("ON", on));
        router.write("etc/config/network", &snooping);
        assert_eq!(hints(&router, "start"), [""; 0]);
    }
    let one = NETWORK.replacen("'bridge'", &SNOOPING.replace("ON", "1"), 1);
    router.write("etc/config/network", &one);
    assert_eq!(hints(&router, "start"), [hint("br-guest", 2)]);
}

fn a_bridge_that_queries_itself_is_named_with_what_ends_it() {
    let router = proxying(LAN_AND_GUEST);
    let told = |bridge: &str, number: u32| {
        format!(
            "notice: {bridge} queries by MLDv1 itself, so hosts do not name the sources that they \
             want: uci set network.@device[{number}].multicast_querier=0, uci commit network and \
             service network reload"
        )
    };
    let by_default = "'bridge'\n\toption igmp_snooping '1'";
    for querier in ["", "\n\toption multicast_querier '1'"] {
        let snooping = NETWORK.replace("'bridge'", &format!("{by_default}{querier}"));
        router.write("etc/config/network", &snooping);
        let both = [told("br-lan", 1), told("br-guest", 2)];
        assert_eq!(hints(&router, "start"), both);
    }
}

fn only_the_bridges_of_a_proxy_are_named() {
    let router = proxying(&[]);
    let network = NETWORK.replace("'eth0'", "'pppoe-wan'\n\toption type 'bridge'");
    router.write("etc/config/network", &network);
    assert_eq!(hints(&router, "start"), [hint("br-lan", 1)]);
    let off = shipped_after(&["mldproxy.main.upstream=wan", "mldproxy.main.enabled=1"]);
    router.write("etc/config/mldproxy", &off);
    assert_eq!(hints(&router, "start"), [""; 0]);
}
