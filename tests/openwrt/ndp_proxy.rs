//! The sysctls that the service sets for `ndp_proxy` and restores. Each test has a network namespace
//! of its own, with its /proc/sys.

use std::fs;
use std::process::Command;

use nix::sched::{CloneFlags, unshare};

use crate::router::{Router, find_tool, shipped_after};

crate::tests![
    the_kernel_is_set_and_put_back,
    the_jail_shows_the_daemon_the_sysctls,
    without_a_jail_the_service_sets_the_sysctls_too,
    a_reload_recognizes_sysctls_that_the_service_set,
    the_service_leaves_a_sysctl_that_another_changed,
    the_service_leaves_a_sysctl_that_was_right,
    instances_share_a_sysctl,
    stopping_one_instance_restores_no_sysctl,
    another_upstream_gets_its_own_sysctls,
    the_service_sets_a_recreated_upstream_again,
    the_service_tolerates_missing_sysctls,
    an_instance_that_does_not_start_changes_no_sysctl,
    a_kill_or_an_interrupted_run_loses_no_sysctl,
];

const ALL: &str = "net/ipv6/conf/all/proxy_ndp";
const WAN: &str = "net/ipv6/conf/pppoe-wan/proxy_ndp";
const DELAY: &str = "net/ipv6/neigh/pppoe-wan/proxy_delay";

/// A router with the kernel's defaults, in a network namespace of its own.
fn router(config: &str) -> Router {
    // Affects this test's thread, and the processes that it starts.
    unshare(CloneFlags::CLONE_NEWNET).expect("the right to: main has isolated this process");
    for device in ["pppoe-wan", "eth1"] {
        link("add", device);
    }
    assert_eq!(settings([ALL, WAN, DELAY]), ["0", "0", "80"]);
    Router::new(config)
}

/// Adds or removes an interface.
fn link(action: &str, device: &str) {
    let mut command = Command::new(find_tool("busybox").unwrap());
    command.args(["ip", "link", action, device, "type", "bridge"]);
    assert!(command.status().unwrap().success(), "{action} {device}");
}

fn running_with(settings: &[&str]) -> Router {
    let always = ["mldproxy.main.upstream=wan", "mldproxy.main.enabled=1"];
    // The first of two values of an option counts.
    router(&shipped_after(&[settings, &always[..]].concat()))
}

fn running() -> Router {
    running_with(&["mldproxy.main.ndp_proxy=1"])
}

fn set(setting: &str, value: &str) {
    fs::write(format!("/proc/sys/{setting}"), value).expect(setting);
}

fn settings<const N: usize>(names: [&str; N]) -> [String; N] {
    names.map(|name| {
        let value = fs::read_to_string(format!("/proc/sys/{name}")).expect(name);
        value.trim_end().to_owned()
    })
}

fn the_kernel_is_set_and_put_back() {
    let router = running();
    let outcome = router.run("start");
    assert_eq!(outcome.log(), [""; 0]);
    assert_eq!(
        outcome.arguments("main"),
        ["--ndp-proxy", "--", "pppoe-wan", "br-lan"]
    );
    assert_eq!(settings([ALL, WAN, DELAY]), ["1", "1", "0"]);
    router.run("stop");
    assert_eq!(settings([ALL, WAN, DELAY]), ["0", "0", "80"]);
    assert!(!router.has("changed"));
    // A second time, since the first one left no note.
    router.run("start");
    assert_eq!(settings([ALL, WAN, DELAY]), ["1", "1", "0"]);
    router.run("restart");
    assert_eq!(settings([ALL, WAN, DELAY]), ["1", "1", "0"]);
    router.run("stop");
    assert_eq!(settings([ALL, WAN, DELAY]), ["0", "0", "80"]);
}

fn the_jail_shows_the_daemon_the_sysctls() {
    let outcome = running().run("start");
    let jail = [["mldproxy", "log", "procfs"]];
    assert_eq!(outcome.of("procd_add_jail"), jail);
}

fn without_a_jail_the_service_sets_the_sysctls_too() {
    let router = running().without_jail();
    router.run("start");
    assert_eq!(settings([ALL, WAN, DELAY]), ["1", "1", "0"]);
    router.run("stop");
    assert_eq!(settings([ALL, WAN, DELAY]), ["0", "0", "80"]);
}

fn a_reload_recognizes_sysctls_that_the_service_set() {
    let router = running();
    let first = router.run("start");
    let noted = fs::read_to_string(router.path("changed")).unwrap();
    let second = router.run("reload");
    assert_eq!(first.calls, second.calls);
    assert_eq!(fs::read_to_string(router.path("changed")).unwrap(), noted);
    // The owner switches ndp_proxy off.
    let off = ["mldproxy.main.upstream=wan", "mldproxy.main.enabled=1"];
    router.write("etc/config/mldproxy", &shipped_after(&off));
    let outcome = router.run("reload");
    assert_eq!(outcome.arguments("main"), ["--", "pppoe-wan", "br-lan"]);
    assert_eq!(settings([ALL, WAN, DELAY]), ["0", "0", "80"]);
    assert!(!router.has("changed"));
}

fn the_service_leaves_a_sysctl_that_another_changed() {
    let router = running();
    router.run("start");
    set(DELAY, "20");
    router.run("stop");
    assert_eq!(settings([ALL, WAN, DELAY]), ["0", "0", "20"]);
}

fn the_service_leaves_a_sysctl_that_was_right() {
    let router = running();
    set(ALL, "1");
    router.run("start");
    router.run("reload");
    router.run("stop");
    assert_eq!(settings([ALL, WAN, DELAY]), ["1", "0", "80"]);
}

/// A configuration of two upstreams, the second with this value of `ndp_proxy`.
fn two(second: &str) -> String {
    format!(
        "
config mldproxy 'main'
	option enabled '1'
	option upstream 'wan'
	option ndp_proxy '1'

config mldproxy 'second'
	option enabled '1'
	option upstream 'wan6'
	option downstream 'guest'
	option ndp_proxy '{second}'
"
    )
}

const TWO_UP: &str = "wan pppoe-wan\nlan br-lan\nguest br-guest\nwan6 eth1\n";
const ETH: &str = "net/ipv6/conf/eth1/proxy_ndp";

fn instances_share_a_sysctl() {
    let router = router(&two("1"));
    router.write("up", TWO_UP);
    router.run("start");
    assert_eq!(settings([ALL, WAN, ETH]), ["1", "1", "1"]);
    router.write("etc/config/mldproxy", &two("0"));
    router.run("reload");
    assert_eq!(settings([ALL, WAN, ETH]), ["1", "1", "0"]);
    router.run("stop");
    assert_eq!(settings([ALL, WAN, ETH]), ["0", "0", "0"]);
}

fn stopping_one_instance_restores_no_sysctl() {
    let router = router(&two("1"));
    router.write("up", TWO_UP);
    router.run("start");
    router.run("stop second");
    assert_eq!(settings([ALL, WAN, ETH]), ["1", "1", "1"]);
    router.run("stop");
    assert_eq!(settings([ALL, WAN, ETH]), ["0", "0", "0"]);
}

fn a_kill_or_an_interrupted_run_loses_no_sysctl() {
    // The script ended after it noted a sysctl and before it changed it.
    let router = running();
    router.write("changed", &format!("{ALL} 0 1\n"));
    router.run("start");
    router.run("stop");
    assert_eq!(settings([ALL, WAN, DELAY]), ["0", "0", "80"]);
    // The script ended within a line of its note, and so before it changed the sysctl.
    router.write("changed", &format!("{DELAY} 8"));
    router.run("stop");
    assert_eq!(settings([DELAY]), ["80"]);
    // procd has forgotten the service. The next start and stop restore all sysctls.
    router.run("start");
    router.write("services", "{}\n");
    router.run("start");
    assert_eq!(settings([ALL, WAN, DELAY]), ["1", "1", "0"]);
    router.run("stop");
    assert_eq!(settings([ALL, WAN, DELAY]), ["0", "0", "80"]);
}

fn another_upstream_gets_its_own_sysctls() {
    let router = running();
    router.run("start");
    router.write("up", "wan eth1\nlan br-lan\n");
    router.run("reload");
    let expected = ["1", "0", "80", "1"];
    assert_eq!(settings([ALL, WAN, DELAY, ETH]), expected);
}

fn the_service_sets_a_recreated_upstream_again() {
    let router = running();
    router.run("start");
    set(WAN, "0");
    set(DELAY, "80");
    router.run("reload");
    assert_eq!(settings([ALL, WAN, DELAY]), ["1", "1", "0"]);
    link("del", "pppoe-wan");
    link("add", "pppoe-wan");
    assert_eq!(settings([ALL, WAN, DELAY]), ["1", "0", "80"]);
    router.run("reload");
    assert_eq!(settings([ALL, WAN, DELAY]), ["1", "1", "0"]);
    // The upstream goes for good.
    link("del", "pppoe-wan");
    router.run("stop");
    assert_eq!(settings([ALL]), ["0"]);
    assert!(!router.has("changed"));
}

fn the_service_tolerates_missing_sysctls() {
    let router = running();
    link("del", "pppoe-wan");
    let outcome = router.run("start");
    assert_eq!(outcome.instances(), ["main"]);
    assert_eq!(outcome.log(), [""; 0]);
    assert_eq!(settings([ALL]), ["1"]);
    router.run("stop");
    assert_eq!(settings([ALL]), ["0"]);
    assert!(!router.has("changed"));
}

fn an_instance_that_does_not_start_changes_no_sysctl() {
    for setting in ["learn=arp", "upstream=wan6", "enabled=0"] {
        let setting = format!("mldproxy.main.{setting}");
        let router = running_with(&["mldproxy.main.ndp_proxy=1", &setting]);
        router.write("networks", "wan\nlan\nwan6\n");
        let outcome = router.run("start");
        assert_eq!(outcome.instances(), [""; 0], "{setting}");
        assert_eq!(settings([ALL, WAN, DELAY]), ["0", "0", "80"]);
    }
}
