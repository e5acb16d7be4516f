//! What the service stages and takes back.

use super::router::Router;

crate::tests![
    what_is_staged_is_what_was_proven,
    nothing_goes_to_flash,
    a_second_start_changes_nothing,
    a_change_of_an_option_stages_anew,
    stopping_takes_everything_back,
    what_somebody_committed_is_removed_too,
    what_somebody_committed_is_found_again_after_a_boot,
    other_changes_that_wait_are_not_committed,
    the_upstream_keeps_what_the_user_set,
    a_duid_that_the_provider_answers_is_left,
    a_duid_that_the_user_chose_is_kept_with_a_warning,
    the_mac_address_of_the_configuration_goes_before_that_of_the_device,
    a_vendor_class_is_sent,
    bad_input_changes_nothing,
    the_bridge_has_ipv4_and_arp_alone,
    the_bridge_is_loaded_again_with_a_new_device,
];

/// The options of section `main` and of others, as `uci export` prints them.
fn staged(router: &Router, package: &str) -> String {
    router.uci(&["export", package])
}

fn section<'e>(export: &'e str, name: &str) -> Vec<&'e str> {
    let mut lines = export
        .lines()
        .skip_while(|line| !(line.starts_with("config") && line.ends_with(&format!(" {name}"))));
    let first = lines
        .next()
        .unwrap_or_else(|| panic!("no {name} in {export}"));
    let rest = lines.take_while(|line| !line.starts_with("config"));
    std::iter::once(first).chain(rest.map(str::trim)).collect()
}

fn what_is_staged_is_what_was_proven() {
    let router = Router::on(&[]);
    router.service("start");
    let network = staged(&router, "network");
    assert_eq!(
        section(&network, "hgw"),
        [
            "config interface hgw",
            "option made_by mldproxy-hgw",
            "option device eth2",
            "option proto static",
            "option ip6assign 57",
            "option ip6hint 80",
            "option ip6class wan6",
            "list made_by_upstream wan6.clientid=00030001020000000a01",
            "list made_by_upstream wan6.reqopts=17",
        ]
    );
    assert_eq!(
        section(&network, "wan6"),
        [
            "config interface wan6",
            "option device eth0",
            "option proto dhcpv6",
            "option reqprefix 56",
            "option clientid 00030001020000000a01",
            "list reqopts 17",
        ]
    );
    assert_eq!(
        section(&staged(&router, "dhcp"), "hgw"),
        [
            "config dhcp hgw",
            "option made_by mldproxy-hgw",
            "option interface hgw",
            "option dhcpv4 disabled",
            "option dhcpv6 server",
            "option dhcpv6_na 0",
            "option dhcpv6_pd_min_len 60",
            "option ra server",
            "list ra_flags managed-config",
            "list ra_flags other-config",
            "option ra_slaac 0",
            "option ra_dns 0",
            "option ra_mtu 1500",
            "option ra_reachabletime 300000",
            "option ra_retranstime 10000",
            "option dns_service 0",
            "option max_preferred_lifetime 4h",
            "option max_valid_lifetime 4h",
        ]
    );
    let firewall = staged(&router, "firewall");
    assert_eq!(
        section(&firewall, "mldproxy_hgw"),
        [
            "config zone mldproxy_hgw",
            "option name hgw",
            "option network hgw",
            "option input REJECT",
            "option output ACCEPT",
            "option forward REJECT",
        ]
    );
    assert_eq!(
        section(&firewall, "mldproxy_hgw_dhcpv6")[2..],
        [
            "option src hgw",
            "option family ipv6",
            "option proto udp",
            "option dest_port 547",
            "option target ACCEPT",
        ]
    );
    assert!(
        section(&firewall, "mldproxy_hgw_icmpv6").contains(&"list icmp_type router-solicitation")
    );
    assert_eq!(
        section(&firewall, "mldproxy_hgw_wan"),
        [
            "config forwarding mldproxy_hgw_wan",
            "option src hgw",
            "option dest wan",
            "option family ipv6",
        ]
    );
    assert_eq!(
        router.procd("procd_set_config_changed"),
        ["network", "dhcp", "firewall"]
    );
    assert_eq!(
        router.procd("procd_add_interface_trigger"),
        ["interface.update"]
    );
    assert_eq!(
        router.log(),
        ["info: the HGW on eth2 gets a /60 of network wan6"]
    );
}

/// The octets of the three configurations on flash.
fn flash(router: &Router) -> Vec<String> {
    let read = |package| std::fs::read_to_string(router.path(&format!("etc/config/{package}")));
    ["network", "dhcp", "firewall"]
        .map(|package| read(package).unwrap())
        .to_vec()
}

fn nothing_goes_to_flash() {
    let router = Router::on(&[]);
    let before = flash(&router);
    router.service("start");
    router.lease(
        "bound",
        &[("PASSTHRU", "0017001020010db8000000000000000000000053")],
    );
    router.service("reload");
    router.service("stop");
    assert_eq!(flash(&router), before);
}

fn a_second_start_changes_nothing() {
    let router = Router::on(&[]);
    router.service("start");
    let before = ["network", "dhcp", "firewall"].map(|package| router.uci(&["changes", package]));
    router.forget_calls();
    router.service("reload");
    router.service("start");
    let after = ["network", "dhcp", "firewall"].map(|package| router.uci(&["changes", package]));
    assert_eq!(before, after);
    assert!(router.procd("procd_set_config_changed").is_empty());
    assert!(router.log().is_empty());
}

fn a_change_of_an_option_stages_anew() {
    let router = Router::on(&[]);
    router.service("start");
    router.uci(&["set", "hgw.main.prefix_size=61"]);
    router.forget_calls();
    router.service("reload");
    assert_eq!(router.uci(&["get", "dhcp.hgw.dhcpv6_pd_min_len"]), "61");
    assert_eq!(router.uci(&["get", "network.hgw.ip6assign"]), "58");
    assert_eq!(router.uci(&["get", "network.wan6.reqopts"]), "17");
    assert_eq!(router.procd("procd_set_config_changed").len(), 3);
}

fn stopping_takes_everything_back() {
    for ending in ["stop", "off"] {
        let router = Router::on(&[]);
        let before = ["network", "dhcp", "firewall"].map(|package| staged(&router, package));
        router.uci(&["set", "network.lan.mtu=1400"]);
        router.service("start");
        if ending == "off" {
            router.uci(&["set", "hgw.main.enabled=0"]);
            router.service("reload");
        } else {
            router.service("stop");
        }
        assert_eq!(
            router.uci(&["changes", "network"]),
            "set network.lan.mtu=1400"
        );
        router.uci(&["revert", "network.lan"]);
        let after = ["network", "dhcp", "firewall"].map(|package| staged(&router, package));
        assert_eq!(before, after, "{ending}");
        assert_eq!(router.calls("nft delete"), ["nft delete table netdev hgw"]);
        let promiscuous: Vec<_> = router.calls("ip link");
        assert_eq!(
            promiscuous,
            [
                "ip link set dev eth2 promisc on",
                "ip link set dev eth0 promisc on",
                "ip link set dev eth2 promisc off",
                "ip link set dev eth0 promisc off",
            ]
        );
    }
}

fn commit(router: &Router) {
    for package in ["network", "dhcp", "firewall"] {
        router.uci(&["commit", package]);
    }
}

fn what_somebody_committed_is_removed_too() {
    let router = Router::on(&[]);
    let before = flash(&router);
    router.uci(&["set", "network.lan.mtu=1400"]);
    router.uci(&["commit", "network"]);
    let network = flash(&router)[0].clone();
    router.service("start");
    router.lease(
        "bound",
        &[("PASSTHRU", "0017001020010db8000000000000000000000053")],
    );
    commit(&router);
    assert!(flash(&router)[1].contains("dhcpv6_raw"));
    router.service("stop");
    let exported = |text: &String| {
        text.replace('\'', "")
            .split_whitespace()
            .collect::<String>()
    };
    let after: Vec<String> = flash(&router).iter().map(exported).collect();
    let expected = [&network, &before[1], &before[2]].map(exported);
    assert_eq!(after, expected);
    for package in ["network", "dhcp", "firewall"] {
        assert_eq!(router.uci(&["changes", package]), "");
    }
}

fn what_somebody_committed_is_found_again_after_a_boot() {
    let router = Router::on(&[]);
    router.service("start");
    router.uci(&["commit", "dhcp"]);
    std::fs::remove_dir_all(router.path("var/run/hgw")).unwrap();
    std::fs::remove_dir_all(router.path("tmp/.uci")).unwrap();
    router.forget_calls();
    router.service("start");
    assert_eq!(
        router.log(),
        ["info: the HGW on eth2 gets a /60 of network wan6"]
    );
    let flags = router.uci(&["get", "dhcp.hgw.ra_flags"]);
    assert_eq!(flags, "managed-config other-config");
    router.service("stop");
    assert_eq!(router.uci(&["get", "dhcp.hgw"]), "");
}

fn other_changes_that_wait_are_not_committed() {
    let router = Router::on(&[]);
    router.service("start");
    router.uci(&["commit", "dhcp"]);
    router.uci(&["set", "dhcp.lan.start=100"]);
    router.forget_calls();
    router.service("stop");
    assert_eq!(router.uci(&["get", "dhcp.hgw"]), "");
    assert_eq!(
        router.uci(&["changes", "dhcp"]),
        "set dhcp.lan.start=100\ndelete dhcp.hgw"
    );
    assert_eq!(
        router.log(),
        ["notice: dhcp.hgw was committed by somebody: it goes with your next 'uci commit dhcp'"]
    );
}

fn the_upstream_keeps_what_the_user_set() {
    let router = Router::on(&[]);
    for setting in ["reqopts=17", "reqopts=99"] {
        router.uci(&["add_list", &format!("network.wan6.{setting}")]);
    }
    router.uci(&["commit", "network"]);
    router.service("start");
    assert_eq!(
        router.uci(&["get", "network.hgw.made_by_upstream"]),
        "wan6.clientid=00030001020000000a01"
    );
    commit(&router);
    router.service("stop");
    assert_eq!(router.uci(&["get", "network.wan6.reqopts"]), "17 99");
    assert_eq!(router.uci(&["get", "network.wan6.clientid"]), "");
}

fn a_duid_that_the_provider_answers_is_left() {
    for setting in [
        "network.wan6.clientid=00030001020000000b07",
        "network.globals.dhcp_default_duid=00030001020000000b07",
        "network.globals.dhcp_default_duid=",
    ] {
        let router = Router::on(&[]);
        router.uci(&["set", setting]);
        router.service("start");
        let made = router.uci(&["get", "network.hgw.made_by_upstream"]);
        assert_eq!(made, "wan6.reqopts=17", "{setting}");
        assert_eq!(router.log().len(), 1);
    }
}

fn a_duid_that_the_user_chose_is_kept_with_a_warning() {
    let router = Router::on(&[]);
    router.uci(&["set", "network.wan6.clientid=0001abcd"]);
    router.service("start");
    router.service("reload");
    assert_eq!(router.uci(&["get", "network.wan6.clientid"]), "0001abcd");
    assert_eq!(
        router.log(),
        [
            "warning: network.wan6.clientid is kept, but NTT answers no DUID that begins otherwise \
             than with 00030001",
            "info: the HGW on eth2 gets a /60 of network wan6",
        ]
    );
    let status = router.output("usr/sbin/hgw", &["status"]);
    assert!(
        status.contains(
            "missing: the DUID of wan6 does not begin with 00030001: NTT does not answer it\n"
        ),
        "{status}"
    );
}

fn the_mac_address_of_the_configuration_goes_before_that_of_the_device() {
    let router = Router::on(&[]);
    for setting in [
        "wandev=device",
        "wandev.name=eth0",
        "wandev.macaddr=02:00:00:00:0C:09",
    ] {
        router.uci(&["set", &format!("network.{setting}")]);
    }
    router.service("start");
    assert_eq!(
        router.uci(&["get", "network.wan6.clientid"]),
        "00030001020000000c09"
    );
}

fn a_vendor_class_is_sent() {
    for (options, sent) in [
        (
            &[
                "option vendor_enterprise 210",
                "option vendor_data 0200000000010203",
            ][..],
            "16:000000d200080200000000010203",
        ),
        (
            &["option vendor_mac 02:00:00:00:0d:05"],
            "16:000000d20006020000000d05",
        ),
    ] {
        let router = Router::on(options);
        router.service("start");
        assert_eq!(router.uci(&["get", "network.wan6.sendopts"]), sent);
        router.service("stop");
        assert_eq!(router.uci(&["get", "network.wan6.sendopts"]), "");
    }
}

/// A case of bad input: options, commands of uci, and the reason that is logged.
type Bad = (
    &'static [&'static str],
    &'static [[&'static str; 2]],
    &'static str,
);

fn bad_input_changes_nothing() {
    let cases: &[Bad] = &[
        (&["option device eth9"], &[], "there is no device eth9"),
        (
            &["option device ../net/eth2"],
            &[],
            "there is no device ../net/eth2",
        ),
        (
            &["option device ''"],
            &[],
            "no device is set (uci set hgw.main.device=lan4)",
        ),
        (
            &["option prefix_size 65"],
            &[],
            "prefix_size is '65', and has to be range(49,64)",
        ),
        (
            &["option prefix_size 56"],
            &[],
            "prefix_size 56 is not above the /56 of the provider",
        ),
        (
            &["option prefix_size x"],
            &[],
            "prefix_size is 'x', and has to be range(49,64)",
        ),
        (
            &["option bridge_ipv4 maybe"],
            &[],
            "bridge_ipv4 is 'maybe', and has to be bool",
        ),
        (
            &["option lifetime '4h;x'"],
            &[],
            "lifetime is '4h;x', and has to be a number with s, m, h or d behind it",
        ),
        (
            &["option upstream wan9"],
            &[],
            "upstream wan9 is no network of /etc/config/network",
        ),
        (
            &[
                "option vendor_mac 02:00:00:00:0d:05",
                "option vendor_data 00",
            ],
            &[],
            "vendor_mac is set beside vendor_enterprise or vendor_data: unset one",
        ),
        (
            &["option vendor_enterprise 210"],
            &[],
            "vendor_enterprise is set without vendor_data",
        ),
        (
            &[],
            &[["set", "network.hgw=interface"]],
            "network.hgw is there already, and not of this package",
        ),
        (
            &[],
            &[["set", "dhcp.hgw=dhcp"]],
            "dhcp.hgw is there already, and not of this package",
        ),
        (
            &[],
            &[
                ["set", "network.iot=interface"],
                ["set", "network.iot.device=eth2"],
            ],
            "device eth2 belongs to network iot already",
        ),
        (
            &[],
            &[["add_list", "network.@device[0].ports=eth2"]],
            "device eth2 belongs to bridge br-lan already",
        ),
        (
            &["option device eth0"],
            &[],
            "device eth0 belongs to network wan6 already",
        ),
    ];
    for (options, commands, reason) in cases {
        let router = Router::on(options);
        for [command, argument] in *commands {
            router.uci(&[command, argument]);
        }
        let before =
            ["network", "dhcp", "firewall"].map(|package| router.uci(&["changes", package]));
        router.service("start");
        let after =
            ["network", "dhcp", "firewall"].map(|package| router.uci(&["changes", package]));
        assert_eq!(before, after, "{reason}");
        assert_eq!(router.log(), [format!("err: nothing is changed: {reason}")]);
        router.service("reload");
        assert_eq!(router.log().len(), 1, "{reason}");
        assert!(router.calls("nft").is_empty());
    }
    let router = Router::on(&[]);
    router.write("usr/sbin/odhcpd", "a later odhcpd");
    router.service("start");
    assert_eq!(router.uci(&["get", "network.hgw"]), "");
    assert!(router.log()[0].ends_with("does not know dhcpv6_raw, the option that relays others"));
}

fn table(router: &Router) -> String {
    std::fs::read_to_string(router.path("nft.table")).unwrap_or_default()
}

fn the_bridge_has_ipv4_and_arp_alone() {
    let router = Router::on(&[]);
    router.service("start");
    assert!(table(&router).contains("meta protocol { arp, ip } counter fwd to \"eth0\""));
    for (settings, types) in [
        (&["bridge_pppoe=1"][..], Some("{ arp, ip, 0x8863, 0x8864 }")),
        (&["bridge_ipv4=0"], Some("{ 0x8863, 0x8864 }")),
        (&["bridge_pppoe=0"], None),
    ] {
        for setting in settings {
            router.uci(&["set", &format!("hgw.main.{setting}")]);
        }
        router.service("reload");
        match types {
            Some(types) => assert!(table(&router).contains(types)),
            None => assert_eq!(table(&router), ""),
        }
    }
}

fn the_bridge_is_loaded_again_with_a_new_device() {
    let router = Router::on(&[]);
    router.service("start");
    let devices = std::fs::read_to_string(router.path("var/run/hgw/devices")).unwrap();
    assert_eq!(devices, "eth2 eth0\n");
    router.write(
        "addresses.eth0",
        "2: eth0    inet 192.0.2.1/24 scope global eth0\n",
    );
    router.forget_calls();
    router.service("reload");
    assert_eq!(router.calls("nft -f"), ["nft -f -"]);
    assert_eq!(
        router.log(),
        [
            "warning: eth0 has an IPv4 address, and gets no packets to it, since all of IPv4 goes \
             to the HGW (option bridge_ipv4)"
        ]
    );
}
