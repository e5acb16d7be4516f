//! `mld_proxy`: the section that has it, and what else it needs of the router.

use crate::router::{Router, shipped_after};
use crate::streams::{GLOBAL, KERNELS, Kernel, Verdict, ZONES, rules, verdict};

crate::tests![
    a_table_of_its_own_makes_a_second_proxy,
    options_without_the_proxy_have_no_effect,
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
        "mldproxy.main.fast_leave=maybe",
    ];
    let outcome = Router::new(&shipped_after(&settings)).run("start");
    assert_eq!(outcome.arguments("main"), ["--", "pppoe-wan", "br-lan"]);
    assert_eq!(outcome.log(), [""; 0]);
}
