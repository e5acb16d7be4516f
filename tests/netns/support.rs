//! What the tests have in common: mldproxy on the router, and hosts that say what a test wants.

// Several programs include this file, and each uses a part of it.
#![allow(dead_code)]

use std::collections::BTreeSet;
use std::net::Ipv6Addr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::process::Command;
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket,
};
use protocol::wire::{ALL_NODES, MacAddress, NeighborAdvertisement, NeighborSolicitation};

use crate::lab::{
    DOWNSTREAM, Frame, LAN_HOST, Lab, Namespace, Process, Tap, UPSTREAM, eventually, group_mac,
    poll_for, solicited_node,
};

/// A long time for what happens at once.
pub const SOON: Duration = Duration::from_secs(20);

/// Options for one host that stands for many, and never answers.
pub const UNLIMITED: &[&str] = &[
    "--per-mac",
    "65535",
    "--join-rate",
    "100000",
    "--join-burst",
    "100000",
];

/// Starts `mldproxy run OPTIONS wan br-lan` on the router and waits until it listens.
#[track_caller]
pub fn start(lab: &Lab, options: &[&str]) -> Process {
    start_between(&lab.rtr, options, &[UPSTREAM, DOWNSTREAM])
}

/// As [`start`], with the NDP proxy. Makes the LAN's host speak, and waits until the kernel answers
/// for it upstream.
#[track_caller]
pub fn start_proxying(lab: &Lab, options: &[&str]) -> Process {
    let mldproxy = start(lab, &[&["--ndp-proxy"], options].concat());
    lab.lan_host_speaks();
    eventually("the kernel answers for the LAN's host", SOON, || {
        proxied(lab).contains(&LAN_HOST)
    });
    mldproxy
}

/// The addresses for which the router's kernel answers upstream.
pub fn proxied(lab: &Lab) -> Vec<Ipv6Addr> {
    let entries = lab
        .rtr
        .run(&format!("ip -6 neigh show proxy dev {UPSTREAM}"));
    let address = |line: &str| line.split_whitespace().next()?.parse().ok();
    entries.lines().filter_map(address).collect()
}

#[track_caller]
pub fn start_between(router: &Namespace, options: &[&str], interfaces: &[&str]) -> Process {
    let mldproxy = spawn(router, options, interfaces);
    mldproxy.wait_for_line("proxying ", SOON);
    mldproxy
}

/// Starts `mldproxy run OPTIONS INTERFACES`. Unless an option says otherwise, it logs everything
/// and learns by NDP alone.
pub fn spawn(router: &Namespace, options: &[&str], interfaces: &[&str]) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mldproxy"));
    command.arg("run");
    if !options.contains(&"--socket") {
        command.args(["--socket", &router.control_socket]);
    }
    // The host of the lab's own LAN would add its addresses by its MLD reports.
    if !options.contains(&"--learn") {
        command.args(["--learn", "ndp"]);
    }
    if !options.contains(&"--log-level") {
        command.args(["--log-level", "debug"]);
    }
    router.spawn(command.args(options).args(interfaces))
}

/// Starts or stops the switch's querier. One that starts queries at once.
pub fn querier(lab: &Lab, on: bool) {
    lab.sw
        .run("ip link set dev br0 type bridge mcast_querier 0");
    if on {
        lab.sw
            .run("ip link set dev br0 type bridge mcast_querier 1");
    }
}

/// Waits until the router is a member upstream of the groups of exactly these addresses, besides
/// its own groups.
#[track_caller]
pub fn expect_joined(lab: &Lab, addresses: &[Ipv6Addr]) {
    let own = own_groups(&lab.rtr);
    let wanted: BTreeSet<_> = addresses.iter().copied().map(solicited_node).collect();
    let (mut missing, mut surplus) = (Vec::new(), Vec::new());
    let settled = poll_for(SOON, || {
        let joined = &lab.rtr.joined(UPSTREAM) - &own;
        missing = wanted.difference(&joined).copied().collect();
        surplus = joined.difference(&wanted).copied().collect();
        (missing.is_empty() && surplus.is_empty()).then_some(())
    });
    assert!(
        settled.is_some(),
        "not joined: {}; joined: {}",
        few(&missing),
        few(&surplus)
    );
}

/// The groups of the router's own addresses upstream, and that of the Subnet-Router anycast address
/// (RFC 4291 §2.6.1).
fn own_groups(router: &Namespace) -> BTreeSet<Ipv6Addr> {
    let shown = router.run(&format!("ip -6 -o addr show dev {UPSTREAM}"));
    let address = |line: &str| {
        let (address, _) = line.split_once("inet6 ")?.1.split_once('/')?;
        address.parse().ok()
    };
    let given = shown.lines().filter_map(address);
    given
        .chain([Ipv6Addr::UNSPECIFIED])
        .map(solicited_node)
        .collect()
}

/// The number of groups, and the first of them.
fn few(groups: &[Ipv6Addr]) -> String {
    format!(
        "{} {:?}",
        groups.len(),
        groups.iter().take(4).collect::<Vec<_>>()
    )
}

/// Creates the lab's first downstream anew, with its only port.
pub fn create_downstream(lab: &Lab) {
    lab.rtr.run(&format!(
        "ip link add name {DOWNSTREAM} type bridge mcast_snooping 0
         ip link set dev lan1 master {DOWNSTREAM}
         ip link set dev {DOWNSTREAM} up"
    ));
}

/// A host on a LAN, with any address it likes. It hears nothing, and so answers no question.
pub struct Host {
    pub tap: Tap,
    pub mac: [u8; 6],
}

impl Host {
    /// A host with the link-layer address of the LAN's own host, which answers for it where it can.
    pub fn on(lan: &Namespace) -> Self {
        let tap = Tap::open(lan, "eth0");
        let mac = tap.mac();
        Host { tap, mac }
    }

    /// A host with a link-layer address of its own, different for each number.
    pub fn apart(lan: &Namespace, number: u8) -> Self {
        let mac = [2, 0, 0, 0, 0x77, number];
        Host {
            mac,
            ..Self::on(lan)
        }
    }

    /// Solicits the router, as a host does before it sends to it.
    pub fn solicits_from(&self, source: Ipv6Addr) {
        self.looks_for(source, crate::lab::LAN_ROUTER);
    }

    /// Solicits a target, as a host does before it sends to it.
    pub fn looks_for(&self, source: Ipv6Addr, target: Ipv6Addr) {
        self.looks_for_as(self.mac, source, target);
    }

    /// As [`Self::looks_for`], from another host's link-layer address.
    pub fn looks_for_as(&self, mac: [u8; 6], source: Ipv6Addr, target: Ipv6Addr) {
        self.tap.send(&solicitation(mac, source, target));
    }

    /// As [`Self::advertises`], for many targets, in batches that fit every queue. The router's
    /// kernel keeps no neighbor for an unsolicited advertisement.
    pub fn advertises_all(&self, lab: &Lab, targets: &[Ipv6Addr]) {
        for targets in targets.chunks(128) {
            for target in targets {
                self.advertises(*target);
            }
            let last = targets.last().copied().map(solicited_node);
            eventually("this turn is joined", SOON, || {
                last.is_some_and(|last| lab.rtr.joined(UPSTREAM).contains(&last))
            });
        }
    }

    /// Detects duplicates of the address (RFC 4862 §5.4.2).
    pub fn probes_for_duplicates(&self, target: Ipv6Addr) {
        self.looks_for(Ipv6Addr::UNSPECIFIED, target);
    }

    /// Announces the address to all nodes (RFC 4861 §7.2.6).
    pub fn advertises(&self, target: Ipv6Addr) {
        self.advertises_to(target, ALL_NODES);
    }

    /// Answers a node that solicited the address.
    pub fn answers(&self, target: Ipv6Addr, destination: Ipv6Addr) {
        self.advertises_to(target, destination);
    }

    fn advertises_to(&self, target: Ipv6Addr, destination: Ipv6Addr) {
        let mut packet = vec![0; 128];
        let advertisement = NeighborAdvertisement {
            source: target,
            destination,
            target,
            router: false,
            solicited: destination != ALL_NODES,
            override_flag: true,
            target_link_layer: Some(MacAddress(self.mac)),
        };
        let length = advertisement.emit(&mut packet).expect("the packet fits");
        packet.truncate(length);
        self.send(destination, packet);
    }

    pub fn send(&self, destination: Ipv6Addr, packet: Vec<u8>) {
        self.tap.send(&Frame {
            source: self.mac,
            destination: group_mac(destination),
            packet,
        });
    }
}

/// A solicitation of a target. From `::` it is one of duplicate address detection.
pub fn solicitation(mac: [u8; 6], source: Ipv6Addr, target: Ipv6Addr) -> Frame {
    let destination = solicited_node(target);
    let solicitation = NeighborSolicitation {
        source,
        destination,
        target,
        source_link_layer: (!source.is_unspecified()).then_some(MacAddress(mac)),
    };
    let mut packet = vec![0; 128];
    let length = solicitation.emit(&mut packet).expect("the packet fits");
    packet.truncate(length);
    Frame {
        source: mac,
        destination: group_mac(destination),
        packet,
    }
}

/// The `number`th address of the LAN's prefix, from 1 to 65535. No two have the same group, and
/// none has a group of the router's.
pub const fn address(number: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0x10, number)
}

/// Adds real hosts to the first LAN: macvlans in the LAN's namespace, each with a link-layer, a
/// link-local and a global address of its own, and with the kernel's NDP and MLD. Host 1 is `h1`
/// and has the address [`real_host(1)`](real_host).
pub fn add_real_hosts(lab: &Lab, count: u16) -> Vec<Ipv6Addr> {
    let hosts = (1..=count).map(|number| {
        let address = real_host(number);
        format!(
            "link add link eth0 name h{number} type macvlan mode bridge
             link set dev h{number} up
             addr add {address}/128 dev h{number}"
        )
    });
    lab.lan.batch(&hosts.collect::<Vec<_>>().join("\n"));
    (1..=count).map(real_host).collect()
}

pub const fn real_host(number: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0x20, number)
}

/// Makes hosts of [`add_real_hosts`] solicit the router from their link-local addresses, as hosts
/// do in steady state.
pub fn speak_link_local(lab: &Lab, numbers: impl IntoIterator<Item = u16>) {
    for number in numbers {
        let interface = format!("h{number}");
        lab.lan.flush_neighbors_of(&interface);
        let router = crate::lab::LAN_ROUTER;
        lab.lan
            .ping_until_answered(&format!("{router}%{interface}"));
    }
}

/// Waits until the router is a member upstream of the groups of these addresses, whatever its other
/// groups.
#[track_caller]
pub fn expect_among_joined(lab: &Lab, addresses: &[Ipv6Addr]) {
    let mut missing = Vec::new();
    let held = poll_for(SOON, || {
        missing = missing_of(lab, addresses);
        missing.is_empty().then_some(())
    });
    assert!(held.is_some(), "not joined: {}", few(&missing));
}

/// The groups of these addresses of which the router is no member upstream. The kernel lists its
/// table in pieces, and a group that is left meanwhile hides another one. So this looks again for
/// groups that it did not see.
pub fn missing_of(lab: &Lab, addresses: &[Ipv6Addr]) -> Vec<Ipv6Addr> {
    let mut missing: Vec<_> = addresses.iter().copied().map(solicited_node).collect();
    for _ in 0..3 {
        let joined = lab.rtr.joined(UPSTREAM);
        missing.retain(|group| !joined.contains(group));
        if missing.is_empty() {
            break;
        }
    }
    missing
}

/// The anonymous memory of a process, in kB.
pub fn anonymous_memory(process: &Process) -> u64 {
    status(process, "RssAnon:")
}

/// A number of /proc/PID/status. Memory is in kB.
pub fn status(process: &Process, field: &str) -> u64 {
    let path = format!("/proc/{}/status", process.pid());
    let status = std::fs::read_to_string(path).expect("the process runs");
    let line = status.lines().find(|line| line.starts_with(field));
    let words = line.and_then(|line| line.split_whitespace().nth(1));
    words
        .and_then(|number| number.parse().ok())
        .expect("a number")
}

/// Asks the daemon for its summary, and waits for it.
#[track_caller]
pub fn summary(mldproxy: &Process) -> String {
    let is_summary = |line: &String| line.contains(" addresses and listeners (");
    let summaries = || mldproxy.lines().into_iter().filter(is_summary);
    let before = summaries().count();
    mldproxy.signal(nix::sys::signal::Signal::SIGUSR1);
    let summary = poll_for(SOON, || summaries().nth(before));
    summary.unwrap_or_else(|| panic!("no summary in:\n{}", mldproxy.log()))
}

/// A socket that listens at this path, and the clients that fill its queue, so that nobody more can
/// connect.
pub fn who_accepts_nobody(path: &str) -> (OwnedFd, Vec<OwnedFd>) {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let open = || socket(AddressFamily::Unix, SockType::Stream, flags, None).unwrap();
    let address = UnixAddr::new(path).unwrap();
    let listener = open();
    bind(listener.as_raw_fd(), &address).unwrap();
    listen(&listener, Backlog::new(1).unwrap()).unwrap();
    let waiting = std::iter::repeat_with(open)
        .take_while(|client| connect(client.as_raw_fd(), &address).is_ok())
        .collect();
    (listener, waiting)
}
