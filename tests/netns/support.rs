//! What the tests have in common: mldproxy on the router, and hosts that say what a test wants.

// Two programs include this file, and each uses a part of it.
#![allow(dead_code)]

use std::collections::BTreeSet;
use std::net::Ipv6Addr;
use std::process::Command;
use std::time::Duration;

use protocol::wire::{ALL_NODES, MacAddress, NeighborAdvertisement, NeighborSolicitation};

use crate::lab::{
    DOWNSTREAM, Frame, Lab, Namespace, Process, Tap, UPSTREAM, eventually, group_mac, poll_for,
    solicited_node,
};

/// Long for what happens at once.
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

#[track_caller]
pub fn start_between(router: &Namespace, options: &[&str], interfaces: &[&str]) -> Process {
    let mldproxy = spawn(router, options, interfaces);
    mldproxy.wait_for_line("proxying ", SOON);
    mldproxy
}

/// Starts `mldproxy run OPTIONS INTERFACES` with a log of everything it does, and learning by NDP alone, where no option
/// says otherwise.
pub fn spawn(router: &Namespace, options: &[&str], interfaces: &[&str]) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mldproxy"));
    command.arg("run");
    // The host that the lab's own LAN has would add itself by its MLD reports.
    if !options.contains(&"--learn") {
        command.args(["--learn", "ndp"]);
    }
    if !options.contains(&"--log-level") {
        command.args(["--log-level", "debug"]);
    }
    router.spawn(command.args(options).args(interfaces))
}

/// Waits until the router is a member upstream of the groups of exactly these addresses, beside its own.
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

/// The groups of the router's own addresses upstream: those it was given, and that of any router (RFC 4291 §2.6.1).
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

/// How many, and the first of them.
fn few(groups: &[Ipv6Addr]) -> String {
    format!(
        "{} {:?}",
        groups.len(),
        groups.iter().take(4).collect::<Vec<_>>()
    )
}

/// A host on a LAN, with any address it likes.
pub struct Host {
    pub tap: Tap,
}

impl Host {
    pub fn on(lan: &Namespace) -> Self {
        let tap = Tap::open(lan, "eth0");
        Host { tap }
    }

    /// Solicits the router, as a host does before it sends to it.
    pub fn solicits_from(&self, source: Ipv6Addr) {
        let target = crate::lab::LAN_ROUTER;
        self.send_solicitation(&NeighborSolicitation {
            source,
            destination: solicited_node(target),
            target,
            source_link_layer: Some(MacAddress(self.tap.mac())),
        });
    }

    /// As [`Self::solicits_from`], for many, in turns that no queue is too small for.
    pub fn solicits_from_all(&self, lab: &Lab, sources: &[Ipv6Addr]) {
        for sources in sources.chunks(128) {
            for source in sources {
                self.solicits_from(*source);
            }
            let last = sources.last().copied().map(solicited_node);
            eventually("this turn is joined", SOON, || {
                last.is_some_and(|last| lab.rtr.joined(UPSTREAM).contains(&last))
            });
        }
    }

    /// Asks whether anybody else has the address (RFC 4862 §5.4.2).
    pub fn probes_for_duplicates(&self, target: Ipv6Addr) {
        self.send_solicitation(&NeighborSolicitation {
            source: Ipv6Addr::UNSPECIFIED,
            destination: solicited_node(target),
            target,
            source_link_layer: None,
        });
    }

    /// Announces the address to all nodes (RFC 4861 §7.2.6).
    pub fn advertises(&self, target: Ipv6Addr) {
        let mut packet = vec![0; 128];
        let advertisement = NeighborAdvertisement {
            source: target,
            destination: ALL_NODES,
            target,
            router: false,
            solicited: false,
            override_flag: true,
            target_link_layer: Some(MacAddress(self.tap.mac())),
        };
        let length = advertisement.emit(&mut packet).expect("it fits");
        packet.truncate(length);
        self.send(ALL_NODES, packet);
    }

    pub fn send(&self, destination: Ipv6Addr, packet: Vec<u8>) {
        self.tap.send(&Frame {
            source: self.tap.mac(),
            destination: group_mac(destination),
            packet,
        });
    }

    fn send_solicitation(&self, solicitation: &NeighborSolicitation) {
        let mut packet = vec![0; 128];
        let length = solicitation.emit(&mut packet).expect("it fits");
        packet.truncate(length);
        self.send(solicitation.destination, packet);
    }
}

/// The `number`th address of the LAN's prefix, 1 to 65535, no two with the same group, and none with one of the router's.
pub const fn address(number: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0x10, number)
}
