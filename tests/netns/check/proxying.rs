//! Who answers for the hosts, and what makes solicitations arrive, as `mldproxy check` finds it.

use std::process::Command;

use super::{BINARY, check, expect, findings, outcome};
use crate::lab::{DOWNSTREAM, LAN_HOST, Lab, Namespace, Process, UPSTREAM, eventually, find_tool};
use crate::support::{SOON, start};

crate::tests![
    many_routes_are_no_hindrance,
    the_kernels_proxy_is_judged_by_its_settings,
    odhcpd_is_told_by_its_settings,
    own_entries_are_told_from_those_of_others,
    two_that_answer_are_told,
    a_snooping_bridge_is_told,
    without_privileges_it_says_what_it_could_not_see,
    an_instance_in_another_network_namespace_does_not_count,
    an_instance_for_another_upstream_does_not_count;
    a_socket_that_does_not_answer_is_no_instance needs [("python3", "python3")],
    a_socket_that_never_stops_answering_is_no_instance needs [("python3", "python3")],
];

fn answer_by_the_kernel(lab: &Lab) {
    lab.rtr.sysctl("net.ipv6.conf.all.proxy_ndp", "1");
    lab.rtr
        .run(&format!("ip -6 neigh add proxy {LAN_HOST} dev {UPSTREAM}"));
}

fn the_kernels_proxy_is_judged_by_its_settings() {
    let lab = Lab::without_querier();
    let nobody = "problem hosts are joined on wan, but nobody answers for them; \
                  run mldproxy with --ndp-proxy, or ndppd, or odhcpd with `option ndp relay`";
    expect(&lab.rtr, "ndp_proxy", nobody);
    lab.rtr.sysctl("net.ipv6.conf.all.proxy_ndp", "1");
    expect(&lab.rtr, "ndp_proxy", nobody);
    lab.rtr
        .run(&format!("ip -6 neigh add proxy {LAN_HOST} dev br-lan"));
    expect(&lab.rtr, "ndp_proxy", nobody);
    lab.rtr
        .run(&format!("ip -6 neigh add proxy {LAN_HOST} dev wan"));
    expect(
        &lab.rtr,
        "ndp_proxy",
        "ok the kernel answers for hosts on wan",
    );
    lab.rtr.sysctl("net.ipv6.conf.all.proxy_ndp", "0");
    lab.rtr.sysctl("net.ipv6.conf.wan.proxy_ndp", "0");
    expect(
        &lab.rtr,
        "ndp_proxy",
        "problem the kernel has proxy entries on wan and proxy_ndp is 0, ",
    );
    lab.rtr.sysctl("net.ipv6.conf.wan.proxy_ndp", "1");
    expect(
        &lab.rtr,
        "ndp_proxy",
        "ok the kernel answers for hosts on wan, but not unicast ",
    );
}

/// What mldproxy puts into the kernel with --ndp-proxy.
fn answer_as_mldproxy_does(lab: &Lab) {
    for all_or_one in ["all", UPSTREAM] {
        let setting = format!("net.ipv6.conf.{all_or_one}.proxy_ndp");
        lab.rtr.sysctl(&setting, "1");
    }
    lab.rtr.run(&format!(
        "ip -6 neigh add proxy 2001:db8:1::1:11 dev {UPSTREAM} protocol 77"
    ));
}

/// mldproxy recognises odhcpd by its name, which a process may give itself.
fn start_odhcpd(lab: &Lab) -> Process {
    let program = find_tool("bash").expect("bash");
    let mut command = Command::new(program);
    command.args([
        "-c",
        "echo -n odhcpd > /proc/self/comm; echo renamed; exec 3<> <(:); read -u 3",
    ]);
    command.args(["odhcpd"]);
    let odhcpd = lab.rtr.spawn(&command);
    odhcpd.wait_for_line("renamed", SOON);
    odhcpd
}

fn own_entries_are_told_from_those_of_others() {
    let lab = Lab::without_querier().with_socket_in_folder();
    answer_as_mldproxy_does(&lab);
    let own = "ok mldproxy answers for hosts on wan by the kernel";
    expect(&lab.rtr, "ndp_proxy", own);
    // An entry that a user made by hand is no other proxy's.
    answer_by_the_kernel(&lab);
    expect(&lab.rtr, "ndp_proxy", own);
    lab.rtr.sysctl("net.ipv6.conf.all.proxy_ndp", "0");
    expect(
        &lab.rtr,
        "ndp_proxy",
        "ok the kernel answers for hosts on wan, but not unicast ",
    );
    lab.rtr.sysctl("net.ipv6.conf.wan.proxy_ndp", "0");
    expect(
        &lab.rtr,
        "ndp_proxy",
        "problem the kernel has proxy entries on wan and proxy_ndp is 0, ",
    );
}

fn two_that_answer_are_told() {
    let lab = Lab::without_querier().with_socket_in_folder();
    answer_as_mldproxy_does(&lab);
    // odhcpd serves DHCP on every interface. It relays only where it makes entries.
    let odhcpd = start_odhcpd(&lab);
    expect(
        &lab.rtr,
        "ndp_proxy",
        "ok mldproxy answers for hosts on wan by the kernel",
    );
    answer_by_the_kernel(&lab);
    expect(
        &lab.rtr,
        "ndp_proxy",
        "warning mldproxy and odhcpd both answer on wan; \
         `option ndp disabled` in /etc/config/dhcp, or ndp_proxy 0",
    );
    assert!(odhcpd.is_running(), "{}", odhcpd.log());
    drop(odhcpd);
    let _ndppd = lab.start_ndppd();
    expect(
        &lab.rtr,
        "ndp_proxy",
        "warning mldproxy and ndppd both answer on wan; stop ndppd",
    );
}

fn odhcpd_is_told_by_its_settings() {
    let lab = Lab::without_querier();
    let odhcpd = start_odhcpd(&lab);
    expect(
        &lab.rtr,
        "ndp_proxy",
        "warning odhcpd runs, but does not seem to relay NDP on wan, ",
    );
    lab.rtr.sysctl("net.ipv6.conf.wan.proxy_ndp", "1");
    expect(
        &lab.rtr,
        "ndp_proxy",
        "ok odhcpd seems to relay NDP on wan, and knows no host yet",
    );
    answer_by_the_kernel(&lab);
    expect(
        &lab.rtr,
        "ndp_proxy",
        "ok the kernel answers for hosts on wan",
    );
    assert!(odhcpd.is_running(), "{}", odhcpd.log());
}

fn a_snooping_bridge_is_told() {
    let lab = Lab::without_querier().with_socket_in_folder();
    let bridge = |setting: &str| {
        lab.rtr.run(&format!(
            "ip link set dev {DOWNSTREAM} type bridge {setting}"
        ));
    };
    expect(&lab.rtr, "snooping", "ok br-lan does not snoop MLD");
    bridge("mcast_snooping 1");
    expect(
        &lab.rtr,
        "snooping",
        "ok br-lan snoops MLD, which mldproxy makes up for once it runs",
    );
    let _mldproxy = start(&lab, &[]);
    eventually("mldproxy set the bridge", SOON, || {
        let (_, lines) = check(&lab.rtr, "--wait 0 wan br-lan");
        findings(&lines, "snooping")
            == ["ok br-lan snoops MLD, and hands all multicast to this router"]
    });
    // The bridge stays like this where mldproxy may not change it.
    bridge("mcast_router 1");
    expect(
        &lab.rtr,
        "snooping",
        "warning br-lan snoops MLD, and may hide solicitations from mldproxy; ",
    );
    let (_, lines) = check(&lab.rtr, "--wait 0 br-lan wan");
    assert_eq!(findings(&lines, "snooping"), ["ok wan is no bridge"]);
}

fn without_privileges_it_says_what_it_could_not_see() {
    let lab = Lab::without_querier();
    let without = |capability: &str| {
        outcome(&lab.rtr.try_run(&format!(
            "setpriv --bounding-set -{capability} --inh-caps -{capability} \
             {BINARY} check --wait 0 wan br-lan"
        )))
    };
    let (code, lines) = without("net_raw");
    assert!(code > 0, "{lines:#?}");
    let found = findings(&lines, "privileges");
    assert_eq!(
        found,
        ["warning without CAP_NET_RAW queries cannot be heard; run as root"]
    );
    let found = findings(&lines, "querier");
    assert!(
        found[0].starts_with("warning wan cannot be listened on (Operation not permitted)"),
        "{found:?}"
    );
    let (_, lines) = without("net_admin");
    let found = findings(&lines, "privileges");
    assert!(
        found[0].starts_with("warning without CAP_NET_ADMIN "),
        "{found:?}"
    );
}

fn an_instance_in_another_network_namespace_does_not_count() {
    let lab = Lab::without_querier().with_socket_in_folder();
    let other = Lab::without_querier();
    let mldproxy = start(&lab, &[]);
    let _ndppd = lab.start_ndppd();
    expect(&lab.rtr, "instance", "ok mldproxy runs for wan");
    expect(&lab.rtr, "ndp_proxy", "ok ndppd runs");
    expect(&other.rtr, "instance", "warning no mldproxy runs for wan; ");
    expect(
        &other.rtr,
        "ndp_proxy",
        "problem hosts are joined on wan, but nobody answers ",
    );
    drop(mldproxy);
    expect(&lab.rtr, "instance", "warning no mldproxy runs for wan; ");
}

fn an_instance_for_another_upstream_does_not_count() {
    let lab = Lab::without_querier().with_socket_in_folder();
    let _mldproxy = start(&lab, &["--exclude", "2001:db8:77::/64"]);
    let (_, lines) = check(&lab.rtr, "--wait 0 br-lan wan");
    assert_eq!(
        findings(&lines, "instance"),
        ["warning no mldproxy runs for br-lan; start it"]
    );
    let (_, lines) = check(&lab.rtr, "--wait 0 wan br-lan");
    assert_eq!(findings(&lines, "instance"), ["ok mldproxy runs for wan"]);
}

/// Such a socket must neither hold up the check nor use up its memory.
fn a_socket_that_never_stops_answering_is_no_instance() {
    let mut router = Namespace::new("rtr");
    router.move_socket_to_folder();
    router.run(&format!("ip link add name {UPSTREAM} type bridge"));
    let path = &router.control_socket;
    let (before, behind) = (
        "import socket\ns = socket.socket(socket.AF_UNIX)\n",
        "s.listen()\nprint('listens', flush=True)\n",
    );
    let flood = format!(
        "{before}s.bind('{path}')\n{behind}while True:\n c = s.accept()[0]\n try:\n\
         \x20 while True: c.send(b'x' * 65536)\n except OSError: pass"
    );
    let mut command = Command::new("python3");
    let listener = router.spawn(command.args(["-c", &flood]));
    listener.wait_for_line("listens", SOON);
    let (code, lines) = check(&router, &format!("--wait 0 {UPSTREAM} lo"));
    assert_eq!(code, 2, "{lines:?}");
    let absent = format!("warning no mldproxy runs for {UPSTREAM}; start it");
    assert_eq!(findings(&lines, "instance"), [absent]);
}

fn many_routes_are_no_hindrance() {
    let router = Namespace::new("rtr");
    router.run(&format!(
        "ip link add name {UPSTREAM} type bridge
         ip link add name {DOWNSTREAM} type bridge
         ip link set dev {UPSTREAM} up
         ip link set dev {DOWNSTREAM} up
         ip addr add 2001:db8:1::1/64 dev {UPSTREAM}
         ip addr add 2001:db8:1::2/64 dev {DOWNSTREAM} metric 100"
    ));
    let routes: String = (0..20_000)
        .map(|number| format!("route add 2001:db8:2::{number:x}/128 dev {DOWNSTREAM}\n"))
        .collect();
    router.batch(&routes);
    let (_, lines) = check(&router, &format!("--wait 0 {UPSTREAM} {DOWNSTREAM}"));
    assert_eq!(
        findings(&lines, "route"),
        ["ok 2001:db8:1::/64 goes to br-lan"]
    );
}

fn a_socket_that_does_not_answer_is_no_instance() {
    let mut router = Namespace::new("rtr");
    router.move_socket_to_folder();
    router.run(&format!("ip link add name {UPSTREAM} type bridge"));
    let path = &router.control_socket;
    let listen = format!(
        "import socket\ns = socket.socket(socket.AF_UNIX)\ns.bind('{path}')\n\
         s.listen()\nprint('listens', flush=True)\n\
         held = []\nwhile True: held.append(s.accept())"
    );
    let mut command = Command::new("python3");
    let listener = router.spawn(command.args(["-c", &listen]));
    listener.wait_for_line("listens", SOON);
    let (_, lines) = check(&router, &format!("--wait 0 {UPSTREAM} lo"));
    let absent = format!("warning no mldproxy runs for {UPSTREAM}; start it");
    assert_eq!(findings(&lines, "instance"), [absent]);
}
