//! What rtnetlink tells and what it does not: a message about one thing says nothing of the others.

use std::net::Ipv6Addr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};
use nix::sys::time::TimeVal;

use crate::lab::{DOWNSTREAM, Lab, Namespace, Process, ROUTER, UPSTREAM, eventually};
use crate::support::{Host, SOON, address, expect_joined, start, start_between};

crate::tests![
    a_wireless_event_changes_nothing,
    no_part_of_a_real_message_changes_anything,
    an_interface_that_leaves_its_bridge_is_known_to_have_left_it,
    an_upstream_that_cannot_be_used_is_logged_and_shown_with_the_reason,
    a_downstream_that_cannot_be_used_is_logged_and_shown_with_the_reason,
    an_upstream_that_flaps_does_not_fill_the_log,
    an_own_address_stays_one_while_another_interface_has_it,
    news_of_arp_and_of_bridge_ports_wakes_nobody,
];

/// The lengths of `struct nlmsghdr` and `struct ifinfomsg`.
const HEADERS: usize = 16 + 16;

/// A socket that receives messages about links, and sends them as a driver does.
struct Rtnetlink(OwnedFd);

impl Rtnetlink {
    fn open(namespace: &Namespace) -> Self {
        let (family, protocol) = (AddressFamily::Netlink, SockProtocol::NetlinkRoute);
        let kind = SockType::Raw;
        let flags = SockFlag::SOCK_CLOEXEC;
        let opened = namespace.within(|| socket(family, kind, flags, protocol));
        let opened = opened.expect("netlink");
        let timeout = TimeVal::new(SOON.as_secs().cast_signed(), 0);
        nix::sys::socket::setsockopt(&opened, nix::sys::socket::sockopt::ReceiveTimeout, &timeout)
            .expect("a time to wait");
        Rtnetlink(opened)
    }

    /// Sends a message to every socket that subscribed to links.
    fn tell(&self, message: &[u8]) {
        let links = NetlinkAddr::new(0, libc::RTMGRP_LINK.cast_unsigned());
        sendto(self.0.as_raw_fd(), message, &links, MsgFlags::empty())
            .expect("the subscribers are told");
    }

    /// The kernel's message about the link with this name, without the marks of an answer.
    fn ask(&self, name: &str) -> Vec<u8> {
        let mut question = vec![0; HEADERS];
        question[4..6].copy_from_slice(&libc::RTM_GETLINK.to_ne_bytes());
        question[6..8].copy_from_slice(&(libc::NLM_F_REQUEST as u16).to_ne_bytes());
        attribute(&mut question, libc::IFLA_IFNAME, &terminated(name));
        let kernel = NetlinkAddr::new(0, 0);
        sendto(self.0.as_raw_fd(), &question, &kernel, MsgFlags::empty())
            .expect("the kernel is asked");
        let mut answer = vec![0; 16_384];
        let length = recv(self.0.as_raw_fd(), &mut answer, MsgFlags::empty()).expect("an answer");
        answer.truncate(length);
        assert_eq!(answer[4..6], libc::RTM_NEWLINK.to_ne_bytes(), "{name}");
        answer[6..16].fill(0);
        answer
    }
}

fn terminated(name: &str) -> Vec<u8> {
    [name.as_bytes(), &[0]].concat()
}

fn attribute(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    message.extend((4 + value.len() as u16).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(value);
    message.resize(message.len().next_multiple_of(4), 0);
    set_length(message);
}

fn set_length(message: &mut [u8]) {
    let length = message.len() as u32;
    message[..4].copy_from_slice(&length.to_ne_bytes());
}

/// The attributes of a message, each with its header and padding.
fn attributes(message: &[u8]) -> Vec<&[u8]> {
    let mut attributes = Vec::new();
    let mut rest = &message[HEADERS..];
    while rest.len() >= 4 {
        let length = usize::from(u16::from_ne_bytes([rest[0], rest[1]])).next_multiple_of(4);
        let (attribute, behind) = rest.split_at(length.min(rest.len()));
        attributes.push(attribute);
        rest = behind;
    }
    attributes
}

/// The headers of a message, with some of its attributes.
fn part<'a>(message: &[u8], attributes: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut part = message[..HEADERS].to_vec();
    attributes
        .into_iter()
        .for_each(|attribute| part.extend(attribute));
    set_length(&mut part);
    part
}

/// What the kernel's `wireless_nlevent_flush` sends at each scan, association and roam.
fn wireless_event(link: &[u8], name: Option<&str>) -> Vec<u8> {
    let mut event = part(link, []);
    if let Some(name) = name {
        attribute(&mut event, libc::IFLA_IFNAME, &terminated(name));
    }
    attribute(&mut event, libc::IFLA_WIRELESS, &[0; 12]);
    event
}

/// The lines of the log that are not at debug level.
fn told(mldproxy: &Process) -> Vec<String> {
    let mut lines = mldproxy.lines();
    lines.retain(|line| !line.starts_with("debug: "));
    lines
}

/// mldproxy reads the netlink messages that came before it answers a status request.
fn has_heard(lab: &Lab) -> String {
    (0..3).for_each(|_| drop(lab.rtr.status("--json --limit 0")));
    lab.rtr.status("--json")
}

/// The state of an interface in the status.
fn state_of(json: &str, interface: &str) -> String {
    let before = format!("\"interface\":\"{interface}\",");
    let (_, rest) = json.split_once(&before).expect("an interface");
    let (_, rest) = rest.split_once("\"state\":\"").expect("its state");
    rest.split('"').next().expect("a state").to_owned()
}

fn a_wireless_event_changes_nothing() {
    let lab = Lab::without_querier();
    let mldproxy = start(&lab, &["--no-ask", "--refresh-interval", "3600"]);
    Host::on(&lab.lan).solicits_from(address(1));
    expect_joined(&lab, &[address(1)]);
    let before = told(&mldproxy);
    let rtnetlink = Rtnetlink::open(&lab.rtr);
    for name in [UPSTREAM, DOWNSTREAM] {
        let link = rtnetlink.ask(name);
        for named in [Some(name), None] {
            rtnetlink.tell(&wireless_event(&link, named));
            let json = has_heard(&lab);
            assert_eq!(state_of(&json, name), "usable");
        }
    }
    expect_joined(&lab, &[address(1)]);
    assert_eq!(told(&mldproxy), before);
}

fn no_part_of_a_real_message_changes_anything() {
    let lab = Lab::without_querier();
    // A bridge, a plain interface and a port of the bridge.
    let options = ["--no-ask", "--refresh-interval", "3600"];
    let mldproxy = start_between(&lab.rtr, &options, &[UPSTREAM, DOWNSTREAM, "lan1"]);
    mldproxy.wait_for_line("lan1 is part of interface number", SOON);
    Host::on(&lab.lan).solicits_from(address(1));
    expect_joined(&lab, &[address(1)]);
    let before = told(&mldproxy);
    let rtnetlink = Rtnetlink::open(&lab.rtr);
    let mut random = fastrand::Rng::with_seed(7);
    for (name, state) in [
        (UPSTREAM, "usable"),
        (DOWNSTREAM, "usable"),
        ("lan1", "part_of"),
    ] {
        let link = rtnetlink.ask(name);
        let all = attributes(&link);
        assert!(all.len() > 20, "{}", all.len());
        let without = |left_out: usize| {
            let places = (0..all.len()).filter(move |place| *place != left_out);
            part(&link, places.map(|place| all[place]))
        };
        let alone = |place: usize| part(&link, [all[place]]);
        let mut parts: Vec<_> = (0..all.len()).map(without).collect();
        parts.extend((0..all.len()).map(alone));
        for _ in 0..200 {
            let some = all.iter().copied().filter(|_| random.bool());
            parts.push(part(&link, some));
        }
        // No more messages at once than the daemon's socket has room for.
        for parts in parts.chunks(16) {
            parts.iter().for_each(|part| rtnetlink.tell(part));
            let json = has_heard(&lab);
            assert_eq!(state_of(&json, name), state);
        }
        expect_joined(&lab, &[address(1)]);
        assert_eq!(told(&mldproxy), before, "{name}");
    }
}

fn an_interface_that_leaves_its_bridge_is_known_to_have_left_it() {
    let lab = Lab::without_querier();
    let mldproxy = start_between(&lab.rtr, &[], &[UPSTREAM, "lan1"]);
    mldproxy.wait_for_line("lan1 is part of interface number", SOON);
    lab.rtr.run("ip link set dev lan1 nomaster");
    // The lab gives the interface no address.
    mldproxy.wait_for_line("waiting for lan1: up, but without a valid", SOON);
    lab.rtr
        .run(&format!("ip link set dev lan1 master {DOWNSTREAM}"));
    eventually("the interface is a port again", SOON, || {
        state_of(&has_heard(&lab), "lan1") == "part_of"
    });
}

/// Takes something from an interface and gives it back. mldproxy logs a line for each, and the
/// status gives the reason.
#[track_caller]
fn loses(
    (lab, mldproxy): (&Lab, &Process),
    name: &str,
    (take, give): (&dyn Fn(), &dyn Fn()),
    (reason, state): (&str, &str),
) {
    let count = |line: &str| {
        let lines = mldproxy.lines();
        lines.iter().filter(|told| told.ends_with(line)).count()
    };
    let (gone, back) = (
        format!("waiting for {name}: {reason}"),
        format!("{name} is usable"),
    );
    let before = (count(&gone), count(&back));
    take();
    eventually(&gone, SOON, || count(&gone) > before.0);
    let json = lab.rtr.status("--json");
    assert_eq!(state_of(&json, name), state);
    assert!(json.contains("\"present\":true,"), "{json}");
    let text = lab.rtr.status("");
    assert!(text.contains(&format!("{name:15} {reason}\n")), "{text}");
    give();
    eventually(&back, SOON, || count(&back) > before.1);
    assert_eq!(state_of(&lab.rtr.status("--json"), name), "usable");
    assert_eq!((count(&gone), count(&back)), (before.0 + 1, before.1 + 1));
}

fn an_upstream_that_cannot_be_used_is_logged_and_shown_with_the_reason() {
    let lab = Lab::without_querier();
    let mldproxy = start(&lab, &[]);
    let ip = |arguments: &str| drop(lab.rtr.run(&format!("ip {arguments}")));
    let both = (&lab, &mldproxy);
    loses(
        both,
        UPSTREAM,
        (&|| ip("link set dev wan mtu 1200"), &|| {
            ip("link set dev wan mtu 1500");
        }),
        ("up, but its MTU of 1200 is below IPv6's 1280", "small_mtu"),
    );
    loses(
        both,
        UPSTREAM,
        (&|| drop(lab.sw.run("ip link set dev rtr down")), &|| {
            drop(lab.sw.run("ip link set dev rtr up"));
        }),
        ("no carrier", "no_carrier"),
    );
    let setting = format!("net.ipv6.conf.{UPSTREAM}.disable_ipv6");
    loses(
        both,
        UPSTREAM,
        (&|| lab.rtr.sysctl(&setting, "1"), &|| {
            lab.rtr.sysctl(&setting, "0");
        }),
        (
            "up, but without a valid link-local address",
            "no_link_local",
        ),
    );
    let metrics = lab.rtr.status("--metrics");
    assert!(metrics.contains("mldproxy_upstream_usable{upstream=\"wan\"} 1\n"));
    ip("link set dev wan down");
    mldproxy.wait_for_line("waiting for wan: down", SOON);
    let metrics = lab.rtr.status("--metrics");
    assert!(metrics.contains("mldproxy_upstream_usable{upstream=\"wan\"} 0\n"));
}

fn a_downstream_that_cannot_be_used_is_logged_and_shown_with_the_reason() {
    let lab = Lab::without_querier();
    let mldproxy = start(&lab, &[]);
    loses(
        (&lab, &mldproxy),
        DOWNSTREAM,
        (&|| drop(lab.lan.run("ip link set dev eth0 down")), &|| {
            drop(lab.lan.run("ip link set dev eth0 up"));
        }),
        ("no carrier", "no_carrier"),
    );
    // Both are missing at once, and neither hides the other.
    lab.rtr.run(&format!("ip link del dev {UPSTREAM}"));
    mldproxy.wait_for_line("waiting for wan", SOON);
    lab.rtr.run(&format!("ip link del dev {DOWNSTREAM}"));
    mldproxy.wait_for_line("waiting for br-lan", SOON);
}

fn an_upstream_that_flaps_does_not_fill_the_log() {
    let lab = Lab::without_querier();
    let mldproxy = start(&lab, &[]);
    for _ in 0..40 {
        lab.sw.run("ip link set dev rtr down");
        eventually("the interface has no carrier", SOON, || {
            state_of(&has_heard(&lab), UPSTREAM) == "no_carrier"
        });
        lab.sw.run("ip link set dev rtr up");
        eventually("the interface has a carrier", SOON, || {
            state_of(&has_heard(&lab), UPSTREAM) == "usable"
        });
    }
    let lines = told(&mldproxy);
    let of_it = lines
        .iter()
        .filter(|line| line.contains("waiting for wan") || line.contains("wan is usable"));
    let count = of_it.count();
    assert!(
        (2..20).contains(&count),
        "{count} lines:\n{}",
        lines.join("\n")
    );
}

fn an_own_address_stays_one_while_another_interface_has_it() {
    let lab = Lab::without_querier();
    lab.rtr
        .run(&format!("ip addr add {ROUTER}/128 dev {DOWNSTREAM}"));
    let mldproxy = start(&lab, &[]);
    lab.rtr
        .run(&format!("ip addr del {ROUTER}/128 dev {DOWNSTREAM}"));
    has_heard(&lab);
    claims(&lab, ROUTER);
    assert!(
        !mldproxy.log().contains(&format!("learned {ROUTER} ")),
        "{}",
        mldproxy.log()
    );
}

/// A host of the LAN claims an address, and then another one. Returns once mldproxy has joined the
/// group of the second, and so has read the first claim.
fn claims(lab: &Lab, claimed: Ipv6Addr) {
    let host = Host::apart(&lab.lan, 1);
    host.solicits_from(claimed);
    host.solicits_from(address(9));
    expect_joined(lab, &[address(9)]);
}

fn news_of_arp_and_of_bridge_ports_wakes_nobody() {
    let lab = Lab::without_querier();
    let mldproxy = start(&lab, &["--no-ask", "--refresh-interval", "0"]);
    has_heard(&lab);
    let switches = || {
        let path = format!("/proc/{}/status", mldproxy.pid());
        let status = std::fs::read_to_string(path).expect("the process runs");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        let count = line.and_then(|count| count.trim().parse::<u64>().ok());
        count.expect("a number")
    };
    // mldproxy sleeps until something wakes it.
    let resting = || {
        let mut before = 0;
        eventually("mldproxy rests", SOON, || {
            std::mem::replace(&mut before, switches()) == before
        });
        before
    };
    let before = resting();
    for number in 1..=100 {
        let mac = format!("02:00:00:00:00:{number:02x}");
        lab.rtr.run(&format!(
            "ip neigh add 192.0.2.{number} lladdr {mac} dev {DOWNSTREAM}
             bridge fdb add {mac} dev lan1 master static
             ip neigh del 192.0.2.{number} dev {DOWNSTREAM}
             bridge fdb del {mac} dev lan1 master"
        ));
    }
    let after = resting();
    assert!(after - before < 20, "woken {} times", after - before);
}
