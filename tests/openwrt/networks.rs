//! Networks and devices that are up, down or missing, and the triggers for them.

use crate::router::{Router, shipped_after};

crate::tests![
    the_service_watches_each_network_it_uses_once_and_no_other,
    the_service_waits_for_an_upstream_that_is_down,
    the_service_leaves_out_a_downstream_until_it_is_up,
    the_service_waits_while_every_downstream_is_down,
    the_service_takes_a_device_by_its_name,
    the_service_leaves_a_missing_device_to_the_program,
    the_service_finds_a_network_made_at_run_time,
    networks_on_one_device_are_one_downstream,
    the_service_keeps_its_triggers_after_a_wrong_value,
    a_network_that_goes_down_reloads_nothing,
    a_network_that_changes_reloads_the_service,
    a_reload_while_a_network_is_down_keeps_the_instance,
    a_reload_keeps_the_devices_of_each_instance_apart,
    a_reload_keeps_only_downed_networks_that_are_still_configured,
    an_upstream_that_is_never_up_shares_the_device_of_one_that_is,
    an_upstream_is_taken_when_the_network_beside_it_comes_up,
    a_ppp_connection_does_not_take_the_device_below_it,
    the_service_takes_no_network_on_another_device,
    the_shell_never_runs_the_name_of_a_network,
];

fn router(settings: &[&str]) -> Router {
    let settings = [settings, &["mldproxy.main.enabled=1"]].concat();
    Router::new(&shipped_after(&settings))
}

fn the_service_watches_each_network_it_uses_once_and_no_other() {
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

fn the_service_waits_for_an_upstream_that_is_down() {
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

fn the_service_leaves_out_a_downstream_until_it_is_up() {
    let router = router(&[
        "mldproxy.main.upstream=wan",
        "mldproxy.main.downstream=guest lan",
    ]);
    router.write("up", "wan pppoe-wan\nlan br-lan\n");
    let outcome = router.run("start");
    assert_eq!(outcome.arguments("main"), ["--", "pppoe-wan", "br-lan"]);
    assert_eq!(outcome.log(), ["notice: main: waiting for network guest"]);
    assert_eq!(outcome.triggers(), ["wan", "guest", "lan"]);
}

fn the_service_waits_while_every_downstream_is_down() {
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

fn the_service_takes_a_device_by_its_name() {
    // Every machine has `lo`, and no network can have the name `br-lan.7`.
    let router = router(&[
        "mldproxy.main.upstream=lo",
        "mldproxy.main.downstream=br-lan.7",
    ]);
    let outcome = router.run("start");
    assert_eq!(outcome.arguments("main"), ["--", "lo", "br-lan.7"]);
    assert_eq!(outcome.triggers(), [""; 0]);
    assert_eq!(outcome.log(), [""; 0]);
}

fn the_service_leaves_a_missing_device_to_the_program() {
    let outcome = router(&["mldproxy.main.upstream=usb7"]).run("start");
    assert_eq!(outcome.arguments("main"), ["--", "usb7", "br-lan"]);
    assert_eq!(outcome.log(), [""; 0]);
}

fn the_service_finds_a_network_made_at_run_time() {
    let router = router(&["mldproxy.main.upstream=wan_6"]);
    let outcome = router.run("start");
    assert_eq!(outcome.triggers(), ["wan_6", "lan"]);

    router.write("up", "wan_6 pppoe-wan\nlan br-lan\n");
    let outcome = router.run("reload");
    assert_eq!(outcome.arguments("main"), ["--", "pppoe-wan", "br-lan"]);
    assert_eq!(outcome.triggers(), ["wan_6", "lan"]);

    // The network goes with its connection. The service still does not take it for a device.
    router.write("up", "lan br-lan\n");
    assert_eq!(router.run("reload").procd_did, [""; 0]);
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

fn the_service_keeps_its_triggers_after_a_wrong_value() {
    let router = router(&["mldproxy.main.upstream=wan", "mldproxy.main.per_mac=many"]);
    let outcome = router.run("start");
    assert_eq!(outcome.instances(), [""; 0]);
    assert_eq!(outcome.log().len(), 1);
    assert_eq!(outcome.triggers(), ["wan", "lan"]);
    assert_eq!(outcome.of("procd_add_reload_trigger"), [["mldproxy"]]);
}

fn a_network_that_goes_down_reloads_nothing() {
    let router = router(&["mldproxy.main.upstream=wan"]);
    router.run("start");
    for network in ["wan", "lan", "guest"] {
        for event in ["interface.down", "interface.failed", "interface"] {
            assert!(router.event(event, network).is_none(), "{event} {network}");
        }
    }
}

fn a_network_that_changes_reloads_the_service() {
    let router = router(&["mldproxy.main.upstream=wan"]);
    assert_eq!(router.run("start").procd_did, ["start main"]);
    for network in ["wan", "lan"] {
        let outcome = router.event("interface.update", network).expect(network);
        assert_eq!(outcome.procd_did, [""; 0]);
    }
    assert!(router.event("interface.update", "guest").is_none());
    router.write("up", "wan eth1\nlan br-lan\n");
    let outcome = router.event("interface.update", "wan").unwrap();
    assert_eq!(outcome.arguments("main"), ["--", "eth1", "br-lan"]);
    assert_eq!(outcome.procd_did, ["restart main"]);
}

fn a_reload_while_a_network_is_down_keeps_the_instance() {
    let settings = [
        "mldproxy.main.upstream=wan",
        "mldproxy.main.downstream=lan guest",
    ];
    for up in [
        "lan br-lan\nguest br-guest\n",
        "wan pppoe-wan\nguest br-guest\n",
        "wan pppoe-wan\nlan br-lan\n",
        "wan pppoe-wan\n",
        "",
    ] {
        let router = router(&settings);
        let first = router.run("start");
        router.write("up", up);
        // Twice, since the second reload has to know the devices that the first one kept.
        for _ in 0..2 {
            let again = router.run("reload");
            assert_eq!(again.arguments("main"), first.arguments("main"), "{up}");
            assert_eq!(again.procd_did, [""; 0], "{up}");
            assert_eq!(again.log(), [""; 0], "{up}");
            assert_eq!(again.triggers(), first.triggers(), "{up}");
        }
        // The upstream comes up on another device.
        router.write("up", "wan eth1\nlan br-lan\nguest br-guest\n");
        let outcome = router.event("interface.update", "wan").unwrap();
        assert_eq!(outcome.procd_did, ["restart main"], "{up}");
        let devices = ["--", "eth1", "br-lan", "br-guest"];
        assert_eq!(outcome.arguments("main"), devices);
    }
    // A service that was stopped knows no device, and waits.
    let router = router(&settings);
    router.run("start");
    router.run("stop");
    router.write("up", "lan br-lan\n");
    assert_eq!(router.run("start").instances(), [""; 0]);
}

fn a_reload_keeps_the_devices_of_each_instance_apart() {
    let section = |name: &str, upstream: &str, downstream: &str| {
        format!(
            "config mldproxy {name}\n\toption enabled 1\n\toption upstream {upstream}\n\
             \toption downstream {downstream}\n"
        )
    };
    let config = section("one", "wan", "lan") + &section("two", "wan6", "guest");
    let router = Router::new(&config);
    router.write(
        "up",
        "wan pppoe-wan\nwan6 eth1\nlan br-lan\nguest br-guest\n",
    );
    router.write("networks", "wan\nwan6\nlan\nguest\n");
    router.run("start");
    router.write("up", "wan6 eth2\n");
    let outcome = router.run("reload");
    assert_eq!(outcome.arguments("one"), ["--", "pppoe-wan", "br-lan"]);
    assert_eq!(outcome.arguments("two"), ["--", "eth2", "br-guest"]);
    assert_eq!(outcome.procd_did, ["restart two"]);
}

fn a_reload_keeps_only_downed_networks_that_are_still_configured() {
    let router = router(&[
        "mldproxy.main.upstream=wan",
        "mldproxy.main.downstream=lan guest",
    ]);
    router.run("start");
    router.write("up", "wan pppoe-wan\n");
    let settings = ["mldproxy.main.upstream=wan", "mldproxy.main.enabled=1"];
    router.write("etc/config/mldproxy", &shipped_after(&settings));
    let outcome = router.run("reload");
    assert_eq!(outcome.arguments("main"), ["--", "pppoe-wan", "br-lan"]);
    // The service waits for another upstream that is down.
    let settings = ["mldproxy.main.upstream=guest", "mldproxy.main.enabled=1"];
    router.write("etc/config/mldproxy", &shipped_after(&settings));
    assert_eq!(router.run("reload").procd_did, ["stop main"]);
}

/// A router with OpenWrt's default of `wan` (DHCPv4) and `wan6` (DHCPv6) on one device. An
/// IPv6-only line brings up `wan6` only.
fn ipv6_only_line() -> Router {
    let router = router(&["mldproxy.main.upstream=wan"]);
    router.write("networks", "wan\nwan6\nlan\nguest\n");
    router.write("protocols", "wan dhcp\nwan6 dhcpv6\nlan static\n");
    router.write("below", "wan eth1\nwan6 eth1\nlan br-lan\nguest br-guest\n");
    router.write("up", "wan6 eth1\nlan br-lan\n");
    router
}

fn an_upstream_that_is_never_up_shares_the_device_of_one_that_is() {
    let router = ipv6_only_line();
    let outcome = router.run("start");
    assert_eq!(outcome.arguments("main"), ["--", "eth1", "br-lan"]);
    assert_eq!(outcome.log(), [""; 0]);
    // `wan` comes up after all.
    router.write("up", "wan eth1\nwan6 eth1\nlan br-lan\n");
    let outcome = router.event("interface.update", "wan").unwrap();
    assert_eq!(outcome.procd_did, [""; 0]);
}

fn an_upstream_is_taken_when_the_network_beside_it_comes_up() {
    let router = ipv6_only_line();
    router.write("up", "lan br-lan\n");
    let outcome = router.run("start");
    assert_eq!(outcome.instances(), [""; 0]);
    assert_eq!(outcome.log(), ["notice: main: waiting for network wan"]);
    assert_eq!(outcome.triggers(), ["wan6", "wan", "lan"]);
    router.write("up", "wan6 eth1\nlan br-lan\n");
    let outcome = router.event("interface.update", "wan6").unwrap();
    assert_eq!(outcome.arguments("main"), ["--", "eth1", "br-lan"]);
    assert_eq!(outcome.procd_did, ["start main"]);
    // Both networks are down for a while.
    router.write("up", "lan br-lan\n");
    assert_eq!(router.run("reload").procd_did, [""; 0]);
}

fn a_ppp_connection_does_not_take_the_device_below_it() {
    for protocol in ["pppoe", "pppoa", "ppp", "pptp", "l2tp", "3g"] {
        let router = ipv6_only_line();
        router.write("protocols", &format!("wan {protocol}\n"));
        let outcome = router.run("start");
        assert_eq!(outcome.instances(), [""; 0], "{protocol}");
        assert_eq!(outcome.triggers(), ["wan", "lan"], "{protocol}");
    }
}

fn the_service_takes_no_network_on_another_device() {
    for (below, up) in [
        ("wan eth1\nwan6 eth2\n", "wan6 eth2\nlan br-lan\n"),
        // A tunnel above the same device.
        ("wan eth1\nwan6 eth1\n", "wan6 tunnel\nlan br-lan\n"),
        ("wan6 eth1\n", "wan6 eth1\nlan br-lan\n"),
    ] {
        let router = ipv6_only_line();
        router.write("below", below);
        router.write("up", up);
        assert_eq!(router.run("start").instances(), [""; 0], "{below}");
    }
}

fn the_shell_never_runs_the_name_of_a_network() {
    let router = ipv6_only_line();
    router.write(
        "below",
        "wan eth1\n$(>ran) eth1\na-b eth1\n* eth1\nwan6 eth1\n",
    );
    let outcome = router.run("start");
    assert_eq!(outcome.arguments("main"), ["--", "eth1", "br-lan"]);
    assert_eq!(outcome.triggers(), ["wan6", "wan", "lan"]);
    assert!(!router.has("ran"));
}
