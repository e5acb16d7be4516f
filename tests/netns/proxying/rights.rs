//! The NDP proxy without the rights that it needs, and as another user.

use std::process::Command;

use nix::sys::signal::Signal;

use super::leftovers::{KERNELS_OWN, PROXYING, settings};
use super::{BOTH, Tables, expect_reachable, expect_tables};
use crate::lab::{
    DOWNSTREAM, GATEWAY, LAN_HOST, Lab, OTHER_USERS, Process, UPSTREAM, eventually, solicited_node,
};
use crate::support::{SOON, expect_joined, start};

crate::tests![
    without_the_capability_one_line_says_so_and_groups_are_joined,
    who_makes_routes_to_all_addresses_is_warned;
    settings_that_cannot_be_set_are_told_in_one_line needs [OTHER_USERS],
    settings_that_are_right_already_are_no_matter needs [OTHER_USERS],
    another_user_proxies_and_puts_the_settings_back needs [OTHER_USERS],
];

/// Starts mldproxy through a program that takes rights away, for the LAN's prefix, and with the log
/// that a user has.
fn start_by(lab: &Lab, wrapper: &[&str], options: &[&str]) -> Process {
    let mut command = Command::new(wrapper[0]);
    command.args(&wrapper[1..]);
    command.arg(env!("CARGO_BIN_EXE_mldproxy")).arg("run");
    command.args(["--socket", &lab.rtr.control_socket, "--learn", "ndp"]);
    command.args(["--prefix", "2001:db8:1::/64"]);
    command.args(options).args([UPSTREAM, DOWNSTREAM]);
    let mldproxy = lab.rtr.spawn(&command);
    mldproxy.wait_for_line("proxying ", SOON);
    mldproxy
}

/// A mount namespace in which /proc/sys is read-only, as in a container.
const READ_ONLY: &[&str] = &[
    "unshare",
    "--mount",
    "sh",
    "-c",
    "mount --rbind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && exec \"$@\"",
    "sh",
];

fn warnings(mldproxy: &Process) -> Vec<String> {
    let mut lines = mldproxy.lines();
    lines.retain(|line| !line.starts_with("info: "));
    lines
}

/// How often mldproxy has failed to change the kernel's tables. Each try counts.
fn failures(lab: &Lab) -> u64 {
    let json = lab.rtr.status("--json --limit 0");
    let (_, rest) = json
        .split_once("\"kernel_table_failures\":")
        .expect("a counter");
    let digits = rest.split([',', '}']).next();
    digits
        .and_then(|digits| digits.parse().ok())
        .expect("a number")
}

fn without_the_capability_one_line_says_so_and_groups_are_joined() {
    let without = [
        "setpriv",
        "--bounding-set",
        "-net_admin",
        "--inh-caps",
        "-net_admin",
    ];
    let cases = [
        (&["--ndp-proxy"][..], 1),
        (&["--host-routes"], 1),
        (BOTH, 2),
    ];
    // Each mldproxy tries again after a while. All of them wait that time together.
    let labs = cases.map(|(options, kinds)| {
        let lab = Lab::without_querier();
        let mldproxy = start_by(&lab, &without, options);
        lab.lan_host_speaks();
        expect_joined(&lab, &[LAN_HOST]);
        mldproxy.wait_for_line("CAP_NET_ADMIN is missing", SOON);
        let said = mldproxy.lines();
        let warned = warnings(&mldproxy);
        assert_eq!(warned.len(), kinds, "{options:?}: {warned:#?}");
        for line in &warned {
            assert!(line.starts_with("warn: changing "), "{line}");
            assert!(
                line.contains("CAP_NET_ADMIN is missing; groups are joined all the same"),
                "{line}"
            );
        }
        let before = failures(&lab);
        (lab, mldproxy, said, before + kinds as u64)
    });
    for (lab, mldproxy, said, tried_again) in &labs {
        eventually("mldproxy tried again", SOON, || {
            failures(lab) >= *tried_again
        });
        assert_eq!(mldproxy.lines(), *said);
        assert!(mldproxy.is_running());
        assert_eq!(Tables::of_kernel(&lab.rtr), Tables::default());
    }
}

fn who_makes_routes_to_all_addresses_is_warned() {
    let lab = Lab::without_querier();
    let warns = |options: &[&str]| {
        let mldproxy = start(&lab, options);
        let warned = |line: &String| line.starts_with("warn: --host-routes without --prefix: ");
        mldproxy.lines().iter().any(warned)
    };
    assert!(warns(&["--host-routes"]));
    assert!(!warns(&["--host-routes", "--prefix", "upstream"]));
    assert!(!warns(&["--host-routes", "--prefix", "2001:db8::/32"]));
    assert!(!warns(&["--ndp-proxy"]));
}

fn settings_that_cannot_be_set_are_told_in_one_line() {
    let lab = Lab::without_querier();
    let mldproxy = start_by(&lab, READ_ONLY, BOTH);
    let line = mldproxy.wait_for_line("cannot be set", SOON);
    assert!(line.contains("net.ipv6.conf.all.proxy_ndp"), "{line}");
    assert!(line.contains("Read-only file system"), "{line}");
    lab.lan_host_speaks();
    expect_tables(&lab, &[LAN_HOST], "entries need no setting");
    assert_eq!(warnings(&mldproxy), [line]);
    assert_eq!(settings(&lab.rtr), KERNELS_OWN);
    mldproxy.signal(Signal::SIGTERM);
    assert!(mldproxy.wait(SOON).success());
    assert_eq!(warnings(&mldproxy).len(), 1, "{}", mldproxy.log());
}

fn settings_that_are_right_already_are_no_matter() {
    let lab = Lab::new();
    for name in ["conf.all.proxy_ndp", "conf.wan.proxy_ndp"] {
        lab.rtr.sysctl(&format!("net.ipv6.{name}"), "1");
    }
    lab.rtr.sysctl("net.ipv6.neigh.wan.proxy_delay", "0");
    let mldproxy = start_by(&lab, READ_ONLY, BOTH);
    lab.lan_host_speaks();
    expect_tables(&lab, &[LAN_HOST], "with settings of others");
    expect_reachable(&lab, LAN_HOST, "with settings of others");
    mldproxy.signal(Signal::SIGTERM);
    assert!(mldproxy.wait(SOON).success());
    let log = mldproxy.log();
    assert!(!log.contains("net.ipv6"), "{log}");
    assert_eq!(warnings(&mldproxy), [""; 0]);
    assert_eq!(settings(&lab.rtr), PROXYING);
}

fn another_user_proxies_and_puts_the_settings_back() {
    let lab = Lab::new();
    let options = ["--user", "nobody", "--prefix", "2001:db8:1::/64"];
    let mldproxy = start(&lab, &[BOTH, &options].concat());
    lab.lan_host_speaks();
    expect_tables(&lab, &[LAN_HOST], "as another user");
    assert_eq!(settings(&lab.rtr), PROXYING);
    expect_reachable(&lab, LAN_HOST, "as another user");
    assert!(lab.mdb().contains(&solicited_node(LAN_HOST)));
    // After an outage it sets them again, without root.
    lab.rtr.run(&format!("ip link set dev {UPSTREAM} mtu 1200"));
    eventually("the upstream is none", SOON, || {
        lab.rtr.status("--json").contains("\"state\":\"small_mtu\"")
    });
    lab.rtr.run(&format!(
        "ip link set dev {UPSTREAM} mtu 1500
         ip addr add 2001:db8:1::2/64 dev {UPSTREAM} metric 512
         ip route add {GATEWAY}/128 dev {UPSTREAM}
         ip route replace default via {GATEWAY} dev {UPSTREAM}"
    ));
    eventually("the settings are set again", SOON, || {
        settings(&lab.rtr) == PROXYING
    });
    expect_tables(&lab, &[LAN_HOST], "after an outage");
    mldproxy.signal(Signal::SIGTERM);
    assert!(mldproxy.wait(SOON).success());
    assert_eq!(settings(&lab.rtr), KERNELS_OWN);
    assert_eq!(Tables::of_kernel(&lab.rtr), Tables::default());
    let warned = warnings(&mldproxy);
    assert!(
        warned
            .iter()
            .all(|line| line.starts_with("debug: ") || line.contains("waiting for")),
        "{warned:?}"
    );
}
