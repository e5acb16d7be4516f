//! `hgw status` and the plugin for rpcd.

use std::process::Command;

use super::router::Router;
use crate::router::python;

crate::tests![
    the_status_shows_each_part,
    a_prefix_of_another_length_is_named,
    the_status_names_what_is_missing,
    a_service_that_is_off_says_why,
    the_json_is_json,
    the_command_line_is_checked,
];

fn working() -> Router {
    let router = Router::on(&[]);
    router.service("start");
    router.write("prefixes", "wan6 2001:db8:100:200::/56\n");
    router.write("assignments", "hgw 2001:db8:100:280::/57\n");
    router.write(
        "ubus.dhcp.ipv6leases",
        r#"{ "device": { "eth2": { "leases": [ { "duid": "00030001", "iaid": 1,
            "ipv6-prefix": [ { "address": "2001:db8:100:290::", "prefix-length": 60 } ] } ] } } }"#,
    );
    router.lease(
        "bound",
        &[(
            "PASSTHRU",
            "0011000c000000d200ca00043031323300170010\
            20010db8000000000000000000000053",
        )],
    );
    router
}

fn status(router: &Router) -> String {
    router.output("usr/sbin/hgw", &["status"])
}

fn the_status_shows_each_part() {
    assert_eq!(
        status(&working()),
        "HGW on eth2, behind network wan6 (eth0)
prefix of the provider: 2001:db8:100:200::/56
prefix for the HGW:     2001:db8:100:280::/57
delegated to the HGW:   2001:db8:100:290::/60
options relayed:        17 (1 sub-options), 23 (36 octets)
router advertisements:  M, O, reachable time 300000 ms, retransmission timer 10000 ms
bridged from the HGW:   7 packets, 420 octets
bridged to the HGW:     7 packets, 420 octets
"
    );
}

fn a_prefix_of_another_length_is_named() {
    let router = working();
    let leases = std::fs::read_to_string(router.path("ubus.dhcp.ipv6leases")).unwrap();
    router.write("ubus.dhcp.ipv6leases", &leases.replace("60 }", "62 }"));
    let status = status(&router);
    let line = "missing: the HGW has 2001:db8:100:290::/62, not a /60: it asked so\n";
    assert!(status.ends_with(line), "{status}");
}

fn the_status_names_what_is_missing() {
    let router = Router::on(&[]);
    router.service("start");
    std::fs::remove_file(router.path("nft.table")).unwrap();
    router.write("up", "");
    let status = status(&router);
    let missing: Vec<_> = status
        .lines()
        .filter_map(|line| line.strip_prefix("missing: "))
        .collect();
    assert_eq!(
        missing,
        [
            "network wan6 is down",
            "the provider delegates no prefix to wan6 (IA_PD)",
            "network hgw has no prefix: wan6's is too small, or others have it",
            "odhcpd does not run",
            "the HGW has not asked for a prefix",
            "the provider has sent none of the options to relay",
            "the rules that bridge IPv4 are not loaded (service hgw reload)",
        ]
    );
}

fn a_service_that_is_off_says_why() {
    let router = Router::on(&["option prefix_size 70"]);
    router.service("start");
    let status = status(&router);
    assert!(status.starts_with("the service is off: "), "{status}");
    assert!(
        status.contains("last said: nothing is changed: prefix_size is '70'"),
        "{status}"
    );
}

fn the_json_is_json() {
    let working = working();
    let empty = Router::on(&[]);
    empty.service("start");
    let off = Router::new(&[]);
    for (router, expected) in [
        (&working, "True 2001:db8:100:290::/60 [17, 23] 7 []"),
        (&empty, "True none [] 7 5"),
        (&off, "False none [] none 1"),
    ] {
        let check = "
import json, sys
status = json.load(sys.stdin)
missing = status['missing']
bridged = status.get('bridged', {}).get('from_hgw') or {}
print(status['enabled'], *status.get('delegated') or ['none'],
    [option['code'] for option in status.get('options', [])],
    bridged.get('packets', 'none'), len(missing) or '[]')";
        let file = router.path("status.json");
        std::fs::write(
            &file,
            router.output("usr/libexec/rpcd/hgw", &["call", "status"]),
        )
        .unwrap();
        let output = Command::new(python())
            .args(["-c", check])
            .stdin(std::fs::File::open(&file).unwrap())
            .output()
            .unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        assert_eq!(
            String::from_utf8_lossy(&output.stdout).trim(),
            expected,
            "{text}"
        );
    }
    let list = working.output("usr/libexec/rpcd/hgw", &["list"]);
    assert_eq!(list, "{ \"status\": { } }\n");
}

fn the_command_line_is_checked() {
    let usage = "usage: hgw status [--json]\n";
    for arguments in [
        &[][..],
        &["--help"],
        &["status", "--yaml"],
        &["status", "--json", "x"],
    ] {
        assert_eq!(working().output("usr/sbin/hgw", arguments), usage);
    }
}
