//! Networks and devices: up, down, missing, and the triggers for them.

use crate::router::{Router, shipped_after};

crate::tests![
    exactly_the_networks_used_are_watched_each_once,
    an_upstream_that_is_down_is_waited_for,
    a_downstream_that_is_down_is_left_out_until_it_is_up,
    when_every_downstream_is_down_it_waits,
    a_device_is_taken_by_its_name,
    a_device_that_is_missing_is_left_to_the_program,
    a_network_that_is_made_at_run_time_is_found,
    networks_on_one_device_are_one_downstream,
    a_bad_value_does_not_end_the_waiting,
];

fn router(settings: &[&str]) -> Router {
    let settings = [settings, &["mldproxy.main.enabled=1"]].concat();
    Router::new(&shipped_after(&settings))
}

fn exactly_the_networks_used_are_watched_each_once() {
    let config = "
config mldproxy 'one'
	option enabled '1'
	option upstream 'wan'
	list downstream 'lan'
	list downstream 'guest'

config mldproxy 'two'
	option enabled '1'
	option upstream 'wan'
	option downstream 'iot'

config mldproxy 'three'
	option upstream 'lte'
";
    let router = Router::new(config);
    router.write("networks", "wan\nlan\nguest\niot\nlte\nvoip\n");
    let outcome = router.run("start");
    assert_eq!(outcome.triggers(), ["wan", "lan", "guest", "iot"]);
    assert_eq!(outcome.of("procd_add_reload_trigger"), [["mldproxy"]]);
}

fn an_upstream_that_is_down_is_waited_for() {
    let router = router(&["mldproxy.main.upstream=wan"]);
    router.write("up", "lan br-lan\n");
    let outcome = router.run("start");
    assert_eq!(outcome.instances(), [""; 0]);
    assert_eq!(outcome.log(), ["notice: main: waiting for network wan"]);
    assert_eq!(outcome.triggers(), ["wan", "lan"]);

    router.write("up", "lan br-lan\nwan pppoe-wan\n");
    let outcome = router.run("reload");
    assert_eq!(outcome.arguments("main"), ["--", "pppoe-wan", "br-lan"]);
    assert_eq!(outcome.log(), [""; 0]);
}

fn a_downstream_that_is_down_is_left_out_until_it_is_up() {
    let router = router(&[
        "mldproxy.main.upstream=wan",
        "mldproxy.main.downstream=guest lan",
    ]);
    router.write("up", "wan pppoe-wan\nlan br-lan\n");
    let outcome = router.run("start");
    assert_eq!(outcome.arguments("main"), ["--", "pppoe-wan", "br-lan"]);
    assert_eq!(
        outcome.log(),
        ["notice: main: left out until it is up: network guest"]
    );
    assert_eq!(outcome.triggers(), ["wan", "guest", "lan"]);
}

fn when_every_downstream_is_down_it_waits() {
    let router = router(&[
        "mldproxy.main.upstream=wan",
        "mldproxy.main.downstream=guest lan",
    ]);
    router.write("up", "wan pppoe-wan\n");
    let outcome = router.run("start");
    assert_eq!(outcome.instances(), [""; 0]);
    assert_eq!(
        outcome.log(),
        ["notice: main: waiting for network guest lan"]
    );
    assert_eq!(outcome.triggers(), ["wan", "guest", "lan"]);
}

fn a_device_is_taken_by_its_name() {
    // `lo` is there on every machine, and `br-lan.7` can be no network's name.
    let router = router(&[
        "mldproxy.main.upstream=lo",
        "mldproxy.main.downstream=br-lan.7",
    ]);
    let outcome = router.run("start");
    assert_eq!(outcome.arguments("main"), ["--", "lo", "br-lan.7"]);
    assert_eq!(outcome.triggers(), [""; 0]);
    assert_eq!(outcome.log(), [""; 0]);
}

fn a_device_that_is_missing_is_left_to_the_program() {
    let outcome = router(&["mldproxy.main.upstream=usb7"]).run("start");
    assert_eq!(outcome.arguments("main"), ["--", "usb7", "br-lan"]);
    assert_eq!(outcome.log(), [""; 0]);
}

fn a_network_that_is_made_at_run_time_is_found() {
    let router = router(&["mldproxy.main.upstream=wan_6"]);
    let outcome = router.run("start");
    assert_eq!(outcome.triggers(), ["wan_6", "lan"]);

    router.write("up", "wan_6 pppoe-wan\nlan br-lan\n");
    let outcome = router.run("reload");
    assert_eq!(outcome.arguments("main"), ["--", "pppoe-wan", "br-lan"]);
    assert_eq!(outcome.triggers(), ["wan_6", "lan"]);
}

fn networks_on_one_device_are_one_downstream() {
    let router = router(&[
        "mldproxy.main.upstream=wan",
        "mldproxy.main.downstream=lan lan6",
    ]);
    router.write("networks", "wan\nlan\nlan6\n");
    router.write("up", "wan pppoe-wan\nlan br-lan\nlan6 br-lan\n");
    let outcome = router.run("start");
    assert_eq!(outcome.arguments("main"), ["--", "pppoe-wan", "br-lan"]);
    assert_eq!(outcome.triggers(), ["wan", "lan", "lan6"]);
    assert_eq!(outcome.log(), [""; 0]);
}

fn a_bad_value_does_not_end_the_waiting() {
    let router = router(&["mldproxy.main.upstream=wan", "mldproxy.main.per_mac=many"]);
    let outcome = router.run("start");
    assert_eq!(outcome.instances(), [""; 0]);
    assert_eq!(outcome.log().len(), 1);
    assert_eq!(outcome.triggers(), ["wan", "lan"]);
    assert_eq!(outcome.of("procd_add_reload_trigger"), [["mldproxy"]]);
}
