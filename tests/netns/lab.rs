//! The network in which the tests try mldproxy: a gateway, a switch that snoops MLD, a router and a
//! LAN.
//!
//! ```text
//!  [gw]:eth0 ──── gw:[sw: bridge br0]:rtr ──── wan:[rtr]:br-lan ──── eth0:[lan]
//!  2001:db8:1::1                     2001:db8:1::2     fe80::1       2001:db8:1::1:10
//! ```
//!
//! The same /64 is on both sides of `rtr`, so `gw` looks for the LAN's host by neighbor discovery.
//! Every box is a network namespace without a name, which this process holds by a file descriptor.
//! So a namespace ends with the process, however that ends, and nothing else on the machine sees
//! it.

// Several programs include this file, and each uses a part of it.
#![allow(dead_code, unused_imports)]

#[path = "lab/datagrams.rs"]
mod datagrams;
#[path = "lab/echo.rs"]
mod echo;
#[path = "lab/frr.rs"]
mod frr;
#[path = "lab/mld.rs"]
mod mld;
#[path = "lab/mroute.rs"]
mod mroute;
#[path = "lab/multicast.rs"]
mod multicast;
#[path = "lab/namespace.rs"]
mod namespace;
#[path = "lab/netlink.rs"]
mod netlink;
#[path = "lab/options.rs"]
mod options;
#[path = "lab/process.rs"]
mod process;
#[path = "lab/receiver.rs"]
mod receiver;
#[path = "lab/tap.rs"]
mod tap;
#[path = "lab/traffic.rs"]
mod traffic;
#[path = "lab/tun.rs"]
mod tun;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write};
use std::iter;
use std::mem;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use nix::sys::memfd::{MFdFlags, memfd_create};

pub use datagrams::{Datagram, Sender, Stream, datagram_frame};
pub use echo::Ping;
pub use frr::Frr;
pub use mld::{MldWatch, QuerySaid, Record, Said, Speaker, What};
pub use mroute::{Entry, TableOwner, Upcalls};
pub use multicast::{
    GUEST, GUEST_HOST, OTHER_SOURCE, QUERIER, SOURCE, StreamLab, StreamOptions, listener,
};
pub use namespace::{FOLDER, Namespace, isolate};
pub use netlink::BridgeOptions;
pub use process::Process;
pub use receiver::{Filter, Receiver};
pub use tap::{Frame, Tap, group_mac};
pub use traffic::Traffic;
pub use tun::Tun;

pub use namespace::path_of_fd;

/// The router's interface towards the gateway, and its bridge towards the first LAN.
pub const UPSTREAM: &str = "wan";
pub const DOWNSTREAM: &str = "br-lan";

/// The gateway's address in the shared /64, and its address outside of it. Ping from the second
/// one: a LAN's host takes the first to be on its own link, and looks for it there.
pub const GATEWAY: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1);
pub const OUTSIDE: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1);
/// The router's address in the shared /64, on the upstream.
pub const ROUTER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 2);
/// The host of the first LAN, and the router's address on every LAN.
pub const LAN_HOST: Ipv6Addr = lan_host(1);
pub const LAN_ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// The tools that tests run in the lab, each with the Debian package that has it. The lab itself
/// needs none.
pub const TOOLS: &[(&str, &str)] = &[
    ("ip", "iproute2"),
    ("bridge", "iproute2"),
    ("ping", "iputils-ping"),
    ("setpriv", "util-linux"),
];

/// A long time for what happens at once.
const SOON: Duration = Duration::from_secs(5);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// A need among tools: other users, for a test that becomes one of them.
pub const OTHER_USERS: (&str, &str) = ("other users", "");

/// Needs among tools: the kernel's VLANs, VRFs and snooping by VLAN, each with the arguments that
/// make such a link.
pub const VLANS: (&str, &str) = ("8021q", "link beneath type vlan id 9");
pub const VRFS: (&str, &str) = ("vrf", "type vrf table 9");
pub const VLAN_SNOOPING: (&str, &str) = (
    "mcast_vlan_snooping",
    "type bridge vlan_filtering 1 mcast_vlan_snooping 1",
);

/// A need among tools: FRR with PIM for IPv6, which the named script unpacks into a folder.
pub const FRR: (&str, &str) = ("FRR with pim6d", "tests/frr");
pub const FRR_FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/frr");

/// Names each missing tool in one readable line.
pub fn missing_tools(tools: &[(&str, &str)]) -> Vec<String> {
    let missing = tools.iter().filter_map(|need| {
        let (tool, package) = need;
        if *need == OTHER_USERS {
            // The user namespace of an unprivileged developer has one user alone.
            let map = std::fs::read_to_string("/proc/self/uid_map").ok()?;
            let all = map.split_whitespace().nth(2) == Some("4294967295");
            return (!all).then(|| "to become another user takes root".to_owned());
        }
        if [VLANS, VRFS, VLAN_SNOOPING].contains(need) {
            let namespace = Namespace::new("probe");
            namespace.run("ip link add name beneath type bridge");
            let made = namespace.try_run(&format!("ip link add name probe {package}"));
            return (!made.status.success()).then(|| format!("the kernel has no `{tool}`"));
        }
        if *need == FRR {
            let missing = !Path::new(FRR_FOLDER).join("usr/lib/frr/pim6d").exists();
            return missing.then(|| format!("{tool} is missing; on Debian, run {package}"));
        }
        let missing = find_tool(tool).is_none();
        missing.then(|| format!("`{tool}` is missing; on Debian: apt install {package}"))
    });
    missing.collect()
}

/// Finds a tool, also in folders that a user's PATH lacks.
pub fn find_tool(tool: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(tool))
        .find(|candidate| candidate.is_file())
}

/// Polls until `condition` returns a value. Returns `None` if it has not within `deadline`.
pub fn poll_for<T>(deadline: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        let last = start.elapsed() >= deadline;
        match condition() {
            None if !last => thread::sleep(POLL_INTERVAL),
            result => return result,
        }
    }
}

/// Polls until `condition` holds.
///
/// # Panics
/// With `what` if it does not hold within `deadline`.
#[track_caller]
pub fn eventually(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) {
    let held = poll_for(deadline, || condition().then_some(()));
    assert!(held.is_some(), "not within {deadline:?}: {what}");
}

/// The solicited-node group of an address (RFC 4291 §2.7.1).
pub const fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::from_octets([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}

/// The router's bridge towards a LAN: `br-lan`, `br-lan2`, …
pub fn downstream(number: u16) -> String {
    match number {
        1 => DOWNSTREAM.to_owned(),
        _ => format!("{DOWNSTREAM}{number}"),
    }
}

/// The host in the LAN behind `downstream(number)`. Each LAN has its own /64, which it shares with
/// the gateway.
pub const fn lan_host(number: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, number, 0, 0, 0, 1, 0x10 * number)
}

/// The network in the picture above.
pub struct Lab {
    pub gw: Namespace,
    pub sw: Namespace,
    pub rtr: Namespace,
    pub lan: Namespace,
    /// The LANs behind `br-lan2`, `br-lan3`, …
    pub more_lans: Vec<Namespace>,
}

pub struct LabOptions {
    /// Whether the switch has a querier. Without one, a switch that snoops holds nothing back.
    pub querier: bool,
    /// The querier's version of MLD: 1 or 2.
    pub mld_version: u8,
    /// The number of LANs. Without any, the namespace `lan` is connected to nothing.
    pub lans: u16,
}

impl Default for LabOptions {
    fn default() -> Self {
        Self {
            querier: true,
            mld_version: 2,
            lans: 1,
        }
    }
}

impl Lab {
    /// Puts the router's control socket where other mldproxy on the router look for it.
    pub fn with_socket_in_folder(mut self) -> Self {
        self.rtr.move_socket_to_folder();
        self
    }

    pub fn new() -> Self {
        Self::with(&LabOptions::default())
    }

    /// As [`Self::new`], but without a querier: the switch holds nothing back, and nobody queries.
    pub fn without_querier() -> Self {
        Self::with(&LabOptions {
            querier: false,
            ..LabOptions::default()
        })
    }

    /// Builds the network. A switch with a querier then holds back the groups that nobody joined.
    pub fn with(options: &LabOptions) -> Self {
        let [gw, sw, rtr, lan] = ["gw", "sw", "rtr", "lan"].map(Namespace::new);
        let more_lans = (2..=options.lans).map(|number| Namespace::new(&format!("lan{number}")));
        let lab = Self {
            gw,
            sw,
            rtr,
            lan,
            more_lans: more_lans.collect(),
        };
        lab.build_upstream(options.mld_version);
        for (number, lan) in (1..=options.lans).zip(lab.lans()) {
            lab.build_lan(number, lan);
        }
        eventually("every link is up", 2 * SOON, || lab.is_ready(options.lans));
        if options.querier {
            lab.start_querier();
        }
        lab
    }

    fn is_ready(&self, lans: u16) -> bool {
        let mut lans = (1..=lans).zip(self.lans());
        self.gw.is_ready("eth0")
            && self.rtr.is_ready(UPSTREAM)
            && lans
                .all(|(number, lan)| self.rtr.is_ready(&downstream(number)) && lan.is_ready("eth0"))
    }

    /// The groups in the switch's multicast database that go to the router's port.
    pub fn mdb(&self) -> BTreeSet<Ipv6Addr> {
        self.sw.mdb("br0", "rtr")
    }

    /// Makes the first LAN's host solicit its router from its global address, as a host does now
    /// and then by itself.
    pub fn lan_host_speaks(&self) {
        self.lan.flush_neighbors();
        self.lan.reach(LAN_HOST, LAN_ROUTER, "eth0");
    }

    /// Starts ndppd on the router for every LAN, and waits until it listens.
    pub fn start_ndppd(&self) -> Process {
        // ndppd reads the configuration from a pipe, so the lab leaves no file behind.
        let (configuration, mut input) = io::pipe().expect("a pipe");
        writeln!(input, "proxy {UPSTREAM} {{\nrouter yes")
            .expect("the configuration fits the pipe");
        for (number, _) in (1..).zip(self.lans()) {
            let (prefix, bridge) = (prefix(number), downstream(number));
            writeln!(input, "rule {prefix}:/64 {{ iface {bridge} }}")
                .expect("the configuration fits the pipe");
        }
        writeln!(input, "}}").expect("the configuration fits the pipe");
        drop(input);
        let path = path_of_fd(&configuration);
        self.start_ndp_proxy("ndppd", &["-c", &path])
    }

    /// As [`Self::start_ndppd`], with npd6, which answers for whole prefixes.
    pub fn start_npd6(&self) -> Process {
        // npd6 reads its configuration twice, so a pipe does not do.
        let configuration = memfd_create("npd6.conf", MFdFlags::MFD_CLOEXEC).expect("memory");
        let mut configuration = File::from(configuration);
        for (number, _) in (1..).zip(self.lans()) {
            // npd6 wants all four groups of a /64.
            let prefix = prefix(number);
            writeln!(configuration, "prefix={prefix}0:\ninterface={UPSTREAM}").expect("memory");
        }
        let path = path_of_fd(&configuration);
        self.start_ndp_proxy("npd6", &["-f", "-l", "-", "-c", &path])
    }

    fn start_ndp_proxy(&self, name: &str, arguments: &[&str]) -> Process {
        let program = find_tool(name).expect("the test needs it");
        let proxy = self.rtr.spawn(Command::new(program).args(arguments));
        eventually("the NDP proxy listens upstream", SOON, || {
            assert!(proxy.is_running(), "{name} ended:\n{}", proxy.log());
            self.rtr.within(|| {
                let links = getifaddrs().expect("the interfaces");
                let mut upstream = links.filter(|link| link.interface_name == UPSTREAM);
                upstream.any(|link| link.flags.contains(InterfaceFlags::IFF_ALLMULTI))
            })
        });
        proxy
    }

    fn lans(&self) -> impl Iterator<Item = &Namespace> {
        iter::once(&self.lan).chain(&self.more_lans)
    }

    fn build_upstream(&self, mld_version: u8) {
        // Short intervals: a switch relies on its querier only after a response interval. It
        // removes a group only two intervals after the last report of a member.
        let options = BridgeOptions {
            snooping: Some(true),
            mld_version: Some(mld_version),
            last_member_interval: Some(25),
            query_response_interval: Some(25),
            startup_query_interval: Some(100),
            ..BridgeOptions::default()
        };
        // The bridge comes first, so that no interface has the number of its peer. The kernel may
        // take a second to bring up one that has.
        self.sw.add_bridge("br0", &options);
        self.sw.veth("gw", &self.gw, "eth0");
        self.sw.veth("rtr", &self.rtr, UPSTREAM);
        self.sw.set_up("br0");
        self.sw.add_port("br0", "gw");
        self.sw.add_port("br0", "rtr");
        self.gw.set_up("eth0");
        self.gw.add_address("lo", OUTSIDE, 128, None);
        self.rtr.sysctl("net.ipv6.conf.all.forwarding", "1");
        self.rtr.set_up(UPSTREAM);
    }

    /// Puts one more /64 on the gateway, on both sides of the router, and on the LAN's host.
    fn build_lan(&self, number: u16, lan: &Namespace) {
        let (bridge, port) = (downstream(number), format!("lan{number}"));
        let router = |last| Ipv6Addr::new(0x2001, 0xdb8, number, 0, 0, 0, 0, last);
        self.gw.add_address("eth0", router(1), 64, None);
        // The router takes the /64 to be in the LAN, except for the gateway.
        self.rtr.veth(&port, lan, "eth0");
        let options = BridgeOptions {
            snooping: Some(false),
            ..BridgeOptions::default()
        };
        let rtr = &self.rtr;
        rtr.add_bridge(&bridge, &options);
        rtr.add_port(&bridge, &port);
        rtr.set_up(&bridge);
        rtr.add_address(&bridge, LAN_ROUTER, 64, None);
        rtr.add_address(&bridge, router(3), 64, Some(256));
        rtr.add_address(UPSTREAM, router(2), 64, Some(512));
        rtr.set_route(router(1), 128, None, UPSTREAM);
        rtr.set_route(Ipv6Addr::UNSPECIFIED, 0, Some(router(1)), UPSTREAM);
        lan.set_up("eth0");
        lan.add_address("eth0", lan_host(number), 64, None);
        lan.set_route(Ipv6Addr::UNSPECIFIED, 0, Some(LAN_ROUTER), "eth0");
    }

    /// Makes the switch of a lab without a querier hold back, from now on, the groups that nobody
    /// joined.
    ///
    /// If a bridge's querier finds no link-local address to query from, it tries again 31 s later.
    pub fn start_querier(&self) {
        eventually("the switch has a link-local address", SOON, || {
            self.sw.is_ready("br0")
        });
        let options = BridgeOptions {
            querier: Some(true),
            ..BridgeOptions::default()
        };
        self.sw.set_bridge("br0", &options);
        self.wait_until_enforced();
    }

    /// The switch floods until its querier has been there for a while, and no table tells when that
    /// ends. So the lab asks the switch itself: it sends to a group that nobody joined, and then to
    /// all nodes, which is never held back. The switch holds back groups once the second packet
    /// comes out of the router's port without the first.
    fn wait_until_enforced(&self) {
        let gateway = Tap::open(&self.gw, "eth0");
        let router = Tap::open(&self.rtr, UPSTREAM);
        let to_group = |group: Ipv6Addr| {
            // The packet has no next header (59), but a payload: a bridge drops it without one.
            let header = [0x60, 0, 0, 0, 0, 8, 59, 1];
            let packet = [&header[..], &GATEWAY.octets(), &group.octets(), &[0; 8]].concat();
            Frame {
                source: gateway.mac(),
                destination: group_mac(group),
                packet,
            }
        };
        let unjoined = to_group(solicited_node(Ipv6Addr::from_bits(0xdead_beef)));
        let all_nodes = to_group(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1));
        let mut flooded = false;
        eventually("the switch enforces snooping", 4 * SOON, || {
            gateway.send(&unjoined);
            gateway.send(&all_nodes);
            // A link that is not up yet loses both packets.
            while let Some(frame) = router.receive(10 * POLL_INTERVAL) {
                if frame == all_nodes {
                    return !mem::take(&mut flooded);
                }
                flooded |= frame == unjoined;
            }
            false
        });
    }
}

/// The first half of the addresses in a LAN's /64, as text.
fn prefix(number: u16) -> String {
    format!("2001:db8:{number:x}:")
}
