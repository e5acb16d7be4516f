//! A user's mistakes: one line names each, and the exit code is stable.

use std::process::Command;

use crate::lab::{DOWNSTREAM, Namespace, UPSTREAM};
use crate::support::SOON;

crate::tests![
    each_mistake_is_named_in_one_line,
    a_missing_capability_is_named,
    arguments_are_tested_without_running,
    help_and_version_are_printed,
];

/// Runs `mldproxy ARGUMENTS` where there are interfaces `wan` and `br-lan`. Returns the exit code
/// and the output.
fn mldproxy(arguments: &str, wrapper: &[&str]) -> (i32, Vec<String>) {
    let router = Namespace::new("rtr");
    router.run(&format!(
        "ip link add name {UPSTREAM} type bridge
         ip link add name {DOWNSTREAM} type bridge"
    ));
    let binary = env!("CARGO_BIN_EXE_mldproxy");
    let words: Vec<_> = wrapper.iter().copied().chain([binary]).collect();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).args(arguments.split_whitespace());
    let process = router.spawn(&command);
    let status = process.wait(SOON);
    (status.code().expect("mldproxy exits"), process.lines())
}

fn each_mistake_is_named_in_one_line() {
    for (arguments, expected) in [
        (
            "run eth7 br-lan",
            "error: no interface eth7; there are lo, wan, br-lan (--wait waits for it)",
        ),
        (
            "run wan lan",
            "error: no interface lan; there are lo, wan, br-lan (--wait waits for it)",
        ),
        (
            "run wan wan",
            "wan is named as upstream and as downstream; they must be two interfaces",
        ),
        (
            "run wan br-lan br-lan",
            "br-lan is named twice as downstream; name it once",
        ),
        ("run wan", "no downstream interface is named"),
        (
            "run --address-timeout 0 wan br-lan",
            "--address-timeout is 0; it must be at least 1 second",
        ),
        (
            "run --expiry-interval 0 wan br-lan",
            "--expiry-interval is 0; it must be at least 1 second",
        ),
        (
            "run --address-timeout soon wan br-lan",
            "'--address-timeout' with value 'soon': not a whole number of seconds",
        ),
        (
            "run --prefix 2001:db8::/129 wan br-lan",
            "'2001:db8::/129': an IPv6 prefix is at most 128 bits long",
        ),
        (
            "run --prefix 2001:db8::1/64 wan br-lan",
            "bits are set behind the prefix; did you mean 2001:db8::/64?",
        ),
        (
            "run --prefix lan wan br-lan",
            "'lan': not an IPv6 prefix such as 2001:db8::/64",
        ),
        (
            "run --log-level loud wan br-lan",
            "'loud': not one of error, warn, info, debug, trace",
        ),
        (
            "run --mld-version 3 wan br-lan",
            "'3': not one of auto, 1, 2",
        ),
        (
            "run --learn arp wan br-lan",
            "'arp': not one of ndp, mld, both",
        ),
        (
            "run --per-mac 0 wan br-lan",
            "--per-mac is 0; it must be at least 1",
        ),
        (
            "run --join-rate 0 wan br-lan",
            "--join-rate is 0; it must be at least 1",
        ),
        (
            "run --join-burst 0 wan br-lan",
            "--join-burst is 0; it must be at least 1",
        ),
        (
            "run --per-mac 70000 wan br-lan",
            "--per-mac is 70000; it must be at most 65535",
        ),
        (
            "run --join-rate 5000000000 wan br-lan",
            "'5000000000': not a whole number, or too large",
        ),
        (
            "run --exclude ::/0 wan br-lan",
            "--exclude covers every prefix; no address is left to learn",
        ),
        (
            "run --prefix upstream --prefix 2001:db8::/64 wan br-lan",
            "--prefix upstream does not go with another --prefix",
        ),
        (
            "run a-name-too-long-for-linux br-lan",
            "an interface's name has 1 to 15 characters",
        ),
        (
            "run --wait a/b br-lan",
            "an interface's name has 1 to 15 characters",
        ),
        (
            "run --user nosuchuser wan br-lan",
            "error: --user nosuchuser: there is no such user",
        ),
        (
            "run --test --wait --user nosuchuser wan br-lan",
            "error: --user nosuchuser: there is no such user",
        ),
        (
            "run --user 4294967294 wan br-lan",
            "error: --user 4294967294: there is no such user",
        ),
        (
            "run --mld-proxy --scope moon wan br-lan",
            "'moon': not one of admin, site, organization, global, 3 to 14",
        ),
        (
            "run --mld-proxy --querier v2 wan br-lan",
            "'v2': not one of auto, v1, off",
        ),
        (
            "run --mld-proxy --forward never wan br-lan",
            "'never': not one of auto, always",
        ),
        (
            "run --mld-proxy --last-listener-interval 100ms wan br-lan",
            "'100ms': not a number of seconds such as 1 or 0.25",
        ),
        (
            "run --mld-proxy --last-listener-interval 0 wan br-lan",
            "--last-listener-interval is out of range; it must be 0.001 to 25 seconds",
        ),
        (
            "run --mld-proxy --max-sources 0 wan br-lan",
            "--max-sources is out of range; it must be 1 to 64",
        ),
        (
            "run --mld-proxy --max-sources 257 wan br-lan",
            "--max-sources is out of range; it must be 1 to 64",
        ),
        (
            "run --mld-proxy --table 0 wan br-lan",
            "--table is out of range; it must be 1 to 99999999",
        ),
        (
            "run --mld-proxy --allow 2001:db8::/64 wan br-lan",
            "--allow 2001:db8::/64: not all of these are multicast groups",
        ),
        (
            "run --mld-proxy --allow ff02::fb/128 wan br-lan",
            "--allow ff02::fb/128: no router forwards these groups",
        ),
        (
            "run --mld-proxy --deny ff00::/8 wan br-lan",
            "--deny covers every group that is allowed; no group is left to proxy",
        ),
        (
            "run --senders wan br-lan",
            "--senders has no effect without --mld-proxy",
        ),
        (
            "run --mld-proxy wan a0 a1 a2 a3 a4 a5 a6 a7 a8 a9 b0 b1 b2 b3 b4 b5 b6 b7 b8 b9 \
             c0 c1 c2 c3 c4 c5 c6 c7 c8 c9 d0",
            "--mld-proxy takes at most 28 downstream interfaces; name fewer",
        ),
        ("", "nothing to do; see mldproxy --help"),
    ] {
        let (code, lines) = mldproxy(arguments, &[]);
        assert_eq!(code, 2, "{arguments}: {lines:?}");
        assert_eq!(lines.len(), 1, "{arguments}: {lines:?}");
        assert!(lines[0].contains(expected), "{arguments}: {lines:?}");
    }
    let (code, lines) = mldproxy("run --loud wan br-lan", &[]);
    assert_eq!(code, 2);
    assert!(lines[0].contains("--loud"), "{lines:?}");
}

fn a_missing_capability_is_named() {
    let without = [
        "setpriv",
        "--bounding-set",
        "-net_raw",
        "--inh-caps",
        "-net_raw",
    ];
    let (code, lines) = mldproxy("run wan br-lan", &without);
    assert_eq!(code, 1, "{lines:?}");
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("CAP_NET_RAW is missing"), "{lines:?}");
}

fn help_and_version_are_printed() {
    let (code, lines) = mldproxy("--version", &[]);
    assert_eq!(code, 0);
    assert_eq!(lines, [concat!("mldproxy ", env!("CARGO_PKG_VERSION"))]);
    let (code, lines) = mldproxy("run --help", &[]);
    assert_eq!(code, 0);
    for option in [
        "--address-timeout",
        "--refresh-interval",
        "--expiry-interval",
        "--prefix",
        "--exclude",
        "--learn",
        "--no-ask",
        "--no-probe",
        "--per-mac",
        "--join-rate",
        "--join-burst",
        "--mld-version",
        "--log-level",
        "--syslog",
        "--wait",
        "--user",
    ] {
        assert!(lines.iter().any(|line| line.contains(option)), "{option}");
    }
}

fn arguments_are_tested_without_running() {
    let (code, lines) = mldproxy("run --test --wait --learn ndp eth7 br-lan", &[]);
    assert_eq!((code, lines), (0, vec![]));
    let (code, lines) = mldproxy("run --test wan br-lan", &[]);
    assert_eq!((code, lines), (0, vec![]));
    let (code, lines) = mldproxy("run --test --wait --per-mac 0 wan br-lan", &[]);
    assert_eq!((code, lines.len()), (2, 1), "{lines:?}");
}
