//! The relay of the provider's options by the file for odhcp6c's script.

use std::os::unix::fs::PermissionsExt as _;

use super::router::Router;

crate::tests![
    all_octets_of_the_options_are_relayed,
    options_are_chosen_by_their_codes,
    odhcpd_reads_them_anew_only_when_they_changed,
    options_outlive_a_lease_that_ends,
    options_that_the_provider_no_longer_sends_go,
    options_come_back_when_the_service_starts_anew,
    other_networks_and_a_service_that_is_off_are_left_alone,
    damaged_options_leave_what_the_hgw_has,
    a_provider_that_delegates_no_prefix_is_logged_once,
    the_telephone_number_is_in_one_file_that_root_alone_reads,
];

/// Option 17 of enterprise 210: 201 (MAC address), 202 (the number 0312345678), 203 twice (further
/// numbers), 204 (a domain) and 210.
const VENDOR: &str = "0011004e000000d2\
    00c90006020000000a07\
    00ca000a30333132333435363738\
    00cb000a30333132333435363739\
    00d200036f6e65\
    00cb000a30333132333435363830\
    00cc000d056e74742d65076578616d706c";
const SIP_DOMAIN: &str = "0015000d056e74742d65076578616d706c";
const SIP: &str = "0016001020010db8000000000000000000000022";
const DNS: &str = "0017001020010db8000000000000000000000053";
const SEARCH: &str = "0018000d07657861 6d706c650374737400";
const SNTP: &str = "001f001020010db8000000000000000000000123";
const NUMBER: &str = "0312345678";
/// The same in the octets of the option.
const NUMBER_IN_OCTETS: &str = "30333132333435363738";

fn on() -> Router {
    let router = Router::on(&[]);
    router.service("start");
    router.forget_calls();
    router
}

fn vendor() -> String {
    // The length is that of what is there.
    let value = &VENDOR[8..];
    format!("0011{:04x}{value}", value.len() / 2)
}

fn search() -> String {
    let value = SEARCH[8..].replace(' ', "");
    format!("0018{:04x}{value}", value.len() / 2)
}

fn raw(router: &Router) -> String {
    router.uci(&["get", "dhcp.hgw.dhcpv6_raw"])
}

fn reloads(router: &Router) -> usize {
    router.calls("odhcpd reload").len()
}

fn all_octets_of_the_options_are_relayed() {
    let router = on();
    let sent = [&*vendor(), SIP, DNS, &*search(), SNTP].concat();
    router.lease("bound", &[("PASSTHRU", &sent)]);
    assert_eq!(raw(&router), sent);
    assert_eq!(
        router.log(),
        ["info: options relayed to the HGW: 17 (6 sub-options), 22, 23, 24, 31"]
    );
    assert_eq!(reloads(&router), 1);
}

fn options_are_chosen_by_their_codes() {
    let router = on();
    let unknown = "fff10002abcd";
    let empty = "00200000";
    let sent = [unknown, DNS, empty, SIP_DOMAIN, SIP, unknown].concat();
    router.lease("updated", &[("PASSTHRU", &sent)]);
    assert_eq!(raw(&router), [DNS, SIP].concat());

    let router = Router::on(&["list options 21", "list options 65521"]);
    router.service("start");
    assert_eq!(router.uci(&["get", "network.wan6.reqopts"]), "65521");
    router.lease("bound", &[("PASSTHRU", &sent)]);
    assert_eq!(raw(&router), [unknown, SIP_DOMAIN, unknown].concat());
}

fn odhcpd_reads_them_anew_only_when_they_changed() {
    let router = on();
    for (event, sent, expected) in [
        ("bound", DNS, 1),
        ("updated", DNS, 1),
        ("rebound", DNS, 1),
        ("informed", SIP, 2),
        ("ra-updated", DNS, 2),
        ("updated", DNS, 3),
    ] {
        router.lease(event, &[("PASSTHRU", sent)]);
        assert_eq!(reloads(&router), expected, "{event}");
    }
    // A changed prefix alone is netifd's and odhcpd's affair.
    let prefix = ("PREFIXES", "2001:db8:900:200::/56,7200,14400");
    router.lease("bound", &[("PASSTHRU", DNS), prefix]);
    assert_eq!(reloads(&router), 3);
    assert_eq!(raw(&router), DNS);
}

fn options_outlive_a_lease_that_ends() {
    let router = on();
    router.lease("bound", &[("PASSTHRU", DNS)]);
    for event in ["unbound", "stopped", "started"] {
        router.lease(event, &[]);
        assert_eq!(raw(&router), DNS);
    }
}

fn options_that_the_provider_no_longer_sends_go() {
    let router = on();
    router.lease("bound", &[("PASSTHRU", DNS)]);
    router.lease("bound", &[("PASSTHRU", "")]);
    assert_eq!(raw(&router), "");
    assert_eq!(router.log()[1], "info: options relayed to the HGW: none");
}

fn options_come_back_when_the_service_starts_anew() {
    let router = on();
    let status = format!("{{ \"data\": {{ \"passthru\": \"{DNS}{SIP}\" }} }}");
    router.write("ubus.network.interface.wan6.status", &status);
    router.service("restart");
    assert_eq!(raw(&router), [DNS, SIP].concat());
}

fn other_networks_and_a_service_that_is_off_are_left_alone() {
    let router = on();
    router.lease("bound", &[("PASSTHRU", DNS), ("INTERFACE", "wan_6")]);
    assert_eq!(raw(&router), "");
    router.service("stop");
    router.lease("bound", &[("PASSTHRU", DNS)]);
    assert_eq!(reloads(&router), 0);
    assert_eq!(router.uci(&["get", "dhcp.hgw"]), "");
}

fn damaged_options_leave_what_the_hgw_has() {
    let vast = format!("0017ff00{}", "00".repeat(0xff00));
    let many = DNS.repeat(52);
    for (sent, fault) in [
        ("001", "the provider's options are cut short"),
        ("0017", "the provider's options are cut short"),
        (&DNS[..30], "the provider's options are cut short"),
        ("001700ff00", "the provider's options are cut short"),
        (
            "0017000g",
            "the provider's options are no hexadecimal digits",
        ),
        (
            "$(reboot)",
            "the provider's options are no hexadecimal digits",
        ),
        (
            &vast[..120_000],
            "the provider's options have 60000 octets, more than 8192",
        ),
        (
            &many,
            "the provider's options have 1040 octets, more than 1024",
        ),
    ] {
        let router = on();
        router.lease("bound", &[("PASSTHRU", SIP)]);
        router.forget_calls();
        router.lease("updated", &[("PASSTHRU", sent)]);
        router.lease("updated", &[("PASSTHRU", sent)]);
        assert_eq!(raw(&router), SIP, "{fault}");
        assert_eq!(
            router.log(),
            [format!("err: {fault}: the HGW keeps those that it had")]
        );
        assert_eq!(reloads(&router), 0);
    }
}

fn a_provider_that_delegates_no_prefix_is_logged_once() {
    let router = on();
    for _ in 0..2 {
        router.lease("bound", &[("PASSTHRU", DNS), ("PREFIXES", "")]);
    }
    assert_eq!(
        router.log()[1..],
        ["err: the provider delegates no prefix to wan6 (IA_PD): the HGW gets none"]
    );
}

fn the_telephone_number_is_in_one_file_that_root_alone_reads() {
    let router = Router::on(&[]);
    // libuci makes its files with the mode of these.
    for package in ["network", "dhcp", "firewall"] {
        let path = router.path(&format!("etc/config/{package}"));
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
    }
    router.uci(&["set", "dhcp.lan.start=100"]);
    let staged = router.path("tmp/.uci/dhcp");
    std::fs::set_permissions(&staged, std::fs::Permissions::from_mode(0o644)).unwrap();
    router.service("start");
    router.lease("bound", &[("PASSTHRU", &vendor())]);
    router.lease("updated", &[("PASSTHRU", &vendor()[..60])]);
    router.service("reload");
    let shown = router.output("usr/sbin/hgw", &["status"])
        + &router.output("usr/sbin/hgw", &["status", "--json"])
        + &router.output("usr/libexec/rpcd/hgw", &["call", "status"]);
    assert!(shown.contains("17 (6 sub-options)"), "{shown}");
    for number in [NUMBER, NUMBER_IN_OCTETS] {
        assert!(!shown.contains(number), "{shown}");
    }
    assert!(router.files_with(NUMBER).is_empty());
    // The stub of rc.common keeps a copy of what it read; the router does not.
    std::fs::remove_file(router.path("exported")).unwrap();
    assert_eq!(router.files_with(NUMBER_IN_OCTETS), ["tmp/.uci/dhcp"]);
    let mode = std::fs::metadata(&staged).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}
