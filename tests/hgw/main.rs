//! The files of dist/hgw on a router between a provider and a home gateway (HGW), each in a network
//! namespace of its own, with the real systemd-networkd, Kea, radvd and nftables:
//!
//! ```text
//!  [far] ──── [provider]:line ──── eth0:[router]:eth2 ──── eth0:[hgw]
//! ```

mod chain;
#[path = "../netns/lab.rs"]
mod lab;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use libtest_mimic::{Arguments, Trial};

use chain::{Chain, MAC, OPTIONS, PREFIXES, SOON};

/// The programs with their Debian packages.
const NEEDS: [(&str, &str); 8] = [
    ("systemd-analyze", "systemd"),
    ("kea-dhcp6", "kea-dhcp6-server"),
    ("radvd", "radvd"),
    ("nft", "nftables"),
    ("tcpdump", "tcpdump"),
    ("python3", "python3"),
    ("unshare", "util-linux"),
    lab::OTHER_USERS,
];

const TESTS: [(&str, fn()); 8] = [
    (
        "the_documented_commands_install_what_the_units_start",
        the_documented_commands_install_what_the_units_start,
    ),
    (
        "systemd_understands_the_units",
        systemd_understands_the_units,
    ),
    (
        "the_hgw_gets_a_routed_prefix_and_every_option",
        the_hgw_gets_a_routed_prefix_and_every_option,
    ),
    (
        "a_changed_option_and_a_changed_prefix_arrive",
        a_changed_option_and_a_changed_prefix_arrive,
    ),
    (
        "no_ipv6_frame_of_the_hgw_reaches_the_provider",
        no_ipv6_frame_of_the_hgw_reaches_the_provider,
    ),
    (
        "a_provider_that_is_silent_takes_nothing_away",
        a_provider_that_is_silent_takes_nothing_away,
    ),
    (
        "nothing_is_left_after_the_stop",
        nothing_is_left_after_the_stop,
    ),
    (
        "the_telephone_number_is_for_root_alone",
        the_telephone_number_is_for_root_alone,
    ),
];

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let isolated = lab::isolate();
    if let Err(reason) = &isolated {
        eprintln!("skipping all: {reason}");
    }
    let mut missing = Vec::new();
    if isolated.is_ok() {
        missing = lab::missing_tools(&[lab::TOOLS, &NEEDS].concat());
        if !Path::new(chain::NETWORKD).exists() {
            missing.push(format!(
                "{} is missing: apt install systemd",
                chain::NETWORKD
            ));
        }
    }
    for line in &missing {
        eprintln!("skipping all: {line}");
    }
    let possible = isolated.is_ok() && missing.is_empty();
    let trials = TESTS.map(|(name, test)| {
        let run = move || {
            test();
            Ok(())
        };
        Trial::test(name, run).with_ignored_flag(!possible)
    });
    libtest_mimic::run(&arguments, trials.into()).exit_code()
}

/// A folder in which the documented commands have installed the files, as below `/`.
fn installed(test: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("hgw-{test}"));
    let _ = fs::remove_dir_all(&root);
    for folder in ["usr/local/lib", "etc/systemd/network", "etc/systemd/system"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    let documentation = fs::read_to_string(chain::repository("docs/hgw.md")).unwrap();
    let commands = documentation
        .lines()
        .filter(|line| line.starts_with("install "));
    for command in commands {
        let command = command.replace(" /", &format!(" {}/", root.display()));
        let mut words = command.split(' ');
        let mut install = Command::new(words.next().unwrap());
        let folder = chain::repository("dist/hgw");
        assert!(
            install
                .args(words)
                .current_dir(folder)
                .status()
                .unwrap()
                .success(),
            "{command}"
        );
    }
    root
}

fn the_documented_commands_install_what_the_units_start() {
    let root = installed("commands");
    let mut named = 0;
    for entry in fs::read_dir(chain::repository("dist/hgw")).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        for path in text
            .split(['"', ' ', '=', '\t', '\n'])
            .filter(|word| word.starts_with("/usr/local/"))
        {
            assert!(root.join(&path[1..]).is_file(), "{path}");
            named += 1;
        }
    }
    assert_eq!(named, 4);
}

fn systemd_understands_the_units() {
    let root = installed("units");
    for unit in [
        "hgw-relay.service",
        "hgw-dhcp6.service",
        "hgw-bridge@.service",
    ] {
        let path = root.join("etc/systemd/system").join(unit);
        let text = fs::read_to_string(&path).unwrap();
        let here = text.replace("/usr/local/", &format!("{}/usr/local/", root.display()));
        fs::write(&path, here).unwrap();
    }
    // Each needs the others.
    let output = Command::new("systemd-analyze")
        .args([
            "verify",
            "--man=no",
            "hgw-relay.service",
            "hgw-dhcp6.service",
            "hgw-bridge@.service",
        ])
        .current_dir(root.join("etc/systemd/system"))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert!(output.status.success());
}

fn the_hgw_gets_a_routed_prefix_and_every_option() {
    let chain = Chain::new();
    let lease = chain.hgw_gets("request");
    let prefix = chain.only_prefix(&lease);
    assert_eq!(prefix, "2001:db8:100:80::/60");
    assert_eq!(chain.options(&lease), chain::owned(&OPTIONS));

    // M and O, the lifetime, NTT's times; a source link-layer address, and the MTU 1500.
    let advertisement = chain.hgw.run(&chain.client("ra"));
    assert_eq!(advertisement, "192 1800 300000 10000 [1, 5] 0000000005dc\n");

    chain.hgw_uses(&prefix);
    chain
        .hgw
        .ping_until_answered(&format!("-6 -I {} {}", Chain::host(&prefix), chain::FAR));
    chain.hgw.run("ip address add 192.0.2.2/30 dev eth0");
    chain.hgw.ping_until_answered("-4 192.0.2.1");
    let neighbors = chain.provider.run("ip -4 neighbor show dev line");
    assert!(
        neighbors.contains(&format!("192.0.2.2 lladdr {MAC}")),
        "{neighbors}"
    );
}

fn a_changed_option_and_a_changed_prefix_arrive() {
    let mut chain = Chain::new();
    let first = chain.only_prefix(&chain.hgw_gets("request"));
    let changed = [(23, "20010db8000000000000000000000099")];
    chain.restart_provider(PREFIXES[0], &changed);
    chain.router_looks("options relayed: 23");
    let lease = chain.hgw_gets("renew");
    assert_eq!(chain.options(&lease), chain::owned(&changed));
    assert_eq!(chain.only_prefix(&lease), first);

    chain.restart_provider(PREFIXES[1], &changed);
    chain.restart_networkd();
    chain.router_looks("of 2001:db8:200::/56");
    let lease = chain.hgw_gets("renew");
    let prefix = chain.only_prefix(&lease);
    assert!(prefix.starts_with("2001:db8:200:8"), "{lease}");
    assert!(lease.contains(&format!("\"{first}\": 0")), "{lease}");
    chain.hgw_uses(&prefix);
    chain
        .hgw
        .ping_until_answered(&format!("-6 -I {} {}", Chain::host(&prefix), chain::FAR));
    let routes = chain.router.run("ip -6 route show proto 250");
    assert_eq!(routes.lines().count(), 1, "{routes}");
}

fn no_ipv6_frame_of_the_hgw_reaches_the_provider() {
    let mut chain = Chain::new();
    let capture = chain.capture();
    let speak = |chain: &Chain| {
        chain.hgw.run(&chain.client("ra"));
        chain.hgw_gets("request");
        chain.hgw.ping_until_answered("-4 192.0.2.1");
    };
    chain.hgw.run("ip address add 192.0.2.2/30 dev eth0");
    speak(&chain);
    chain.restart_networkd();
    speak(&chain);
    chain.restart_kea();
    speak(&chain);
    chain.restart_relay();
    speak(&chain);
    chain.load_bridge();
    speak(&chain);
    chain.unload_bridge();
    chain.hgw_gets("renew");
    chain.load_bridge();
    speak(&chain);
    chain.restart_provider(PREFIXES[1], &[]);
    chain.restart_networkd();
    speak(&chain);
    let frames = capture.frames();
    let from_hgw: Vec<&String> = frames
        .iter()
        .filter(|frame| frame.contains(&format!("{MAC} >")))
        .collect();
    assert!(
        from_hgw.iter().any(|frame| frame.contains("ethertype ARP")),
        "{frames:?}"
    );
    assert!(
        from_hgw
            .iter()
            .any(|frame| frame.contains("ethertype IPv4")),
        "{frames:?}"
    );
    let ipv6: Vec<_> = from_hgw
        .iter()
        .filter(|frame| frame.contains("ethertype IPv6"))
        .collect();
    assert!(ipv6.is_empty(), "{ipv6:?}");
    assert!(
        frames.iter().any(|frame| frame.contains("ethertype IPv6")),
        "{frames:?}"
    );
}

fn a_provider_that_is_silent_takes_nothing_away() {
    let mut chain = Chain::new();
    let lease = chain.hgw_gets("request");
    chain.stop_provider();
    chain.router_looks(
        "no DHCPv6 server answers an Information-request on eth0: the HGW keeps what it had",
    );
    chain.restart_kea();
    assert_eq!(chain.hgw_gets("renew"), lease);

    // A prefix that is too long for a /60.
    let relay = chain.relay_of("ip -6 route add unreachable 2001:db8:900::/60 proto dhcp");
    relay.wait_for_line(
        "no /60 fits into the upper half of the provider's 2001:db8:900::/60",
        SOON,
    );
    let relay = chain.relay_of("ip link show lo");
    relay.wait_for_line(
        "the provider delegates no prefix (IA_PD), or systemd-networkd does not run",
        SOON,
    );
}

fn nothing_is_left_after_the_stop() {
    let chain = Chain::new();
    chain.hgw_gets("request");
    lab::eventually("the HGW's prefix is routed", SOON, || {
        !chain.router.run("ip -6 route show proto 250").is_empty()
    });
    let router = chain.stop();
    assert_eq!(router.run("ip -6 route show proto 250"), "");
    assert_eq!(router.run("nft list ruleset"), "");
}

fn the_telephone_number_is_for_root_alone() {
    let chain = Chain::new();
    chain.hgw_gets("request");
    chain.router_looks_again();
    // 0312345678 as in the options, and as text.
    for number in ["30333132333435363738", "0312345678"] {
        assert!(!chain.logs().contains(number), "{}", chain.logs());
    }
    assert_eq!(
        chain.files_with("30333132333435363738"),
        [("kea-dhcp6.json".to_owned(), 0o600)]
    );
}
