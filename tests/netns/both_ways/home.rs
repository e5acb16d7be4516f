//! A home whose provider gives a single /64: the same prefix is on the WAN and on every LAN.
//!
//! ```text
//!  [gw]:eth0 ─── gw:[sw: bridge br0]:rtr ─── wan:[rtr]:br-lan  ──┬─ eth0:[host]
//!  2001:db8:1::1         │             2001:db8:1::2    ::3      └─ eth0:[host] …
//!                        pc                 :br-lan2 ──┬─ eth0:[host]
//!                        │                      ::4    └─ eth0:[host] …
//!  [pc]:eth0 ────────────┘
//!  2001:db8:1::66                                       2001:db8:1::1:1, ::1:2, …
//! ```
//!
//! The router's three addresses have an on-link route to the /64 each, with the kernel's own
//! metric. The WAN's was first, so without host routes the router looks for everybody upstream. Its
//! default route goes by the gateway's link-local address, as a Router Advertisement makes it. The
//! switch snoops. Hosts and PC detect duplicates of the addresses that they get later.

use std::iter;
use std::net::Ipv6Addr;
use std::time::Duration;

use protocol::wire::{Message, NeighborAdvertisement, NeighborSolicitation, parse};

use crate::lab::{
    Frame, GATEWAY, LAN_ROUTER, Lab, LabOptions, Namespace, Process, ROUTER, Tap, UPSTREAM,
    downstream, eventually, poll_for, solicited_node,
};
use crate::support::{SOON, proxied, start_between};

/// The address of the PC beside the gateway.
pub const PC: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x66);
/// The router's addresses on its LANs.
pub const ON_LAN: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 3);
pub const ON_LAN2: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 4);

/// The gateway's link-local address.
pub const GATEWAY_LINK_LOCAL: &str = "fe80::99";

/// The `number`th of the addresses that nobody has at first.
pub const fn free(number: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0xf, number)
}

/// A host or the PC, with its interface eth0.
pub struct Machine {
    pub namespace: Namespace,
    pub address: Ipv6Addr,
    /// The other end of the machine's wire, which is a port of a bridge.
    pub port: String,
}

/// The network in the picture above.
pub struct Home {
    /// The gateway, the switch and the router.
    pub lab: Lab,
    /// The hosts behind `br-lan`, and those behind `br-lan2`.
    pub lans: [Vec<Machine>; 2],
    pub pc: Machine,
}

impl Home {
    /// A home with so many hosts on each LAN.
    pub fn new(hosts: u16) -> Self {
        let lab = Lab::with(&LabOptions {
            querier: false,
            lans: 0,
            ..LabOptions::default()
        });
        lab.gw.run(&format!(
            "ip addr add {GATEWAY}/64 dev eth0
             ip addr add {GATEWAY_LINK_LOCAL}/64 dev eth0"
        ));
        lab.rtr.run(&format!(
            "ip addr add {ROUTER}/64 dev {UPSTREAM}
             ip route add default via {GATEWAY_LINK_LOCAL} dev {UPSTREAM}"
        ));
        let lans = [(1, ON_LAN), (2, ON_LAN2)].map(|(lan, own)| {
            let bridge = downstream(lan);
            lab.rtr.run(&format!(
                "ip link add name {bridge} type bridge mcast_snooping 0
                 ip link set dev {bridge} up
                 ip addr add {LAN_ROUTER}/64 dev {bridge}
                 ip addr add {own}/64 dev {bridge}"
            ));
            let numbers = (lan - 1) * hosts + 1..=lan * hosts;
            let machine = |number| {
                let address = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 1, number);
                let route = format!("{LAN_ROUTER} dev eth0");
                Machine::new(&lab.rtr, &bridge, &format!("h{number}"), address, &route)
            };
            numbers.map(machine).collect()
        });
        let route = format!("{GATEWAY_LINK_LOCAL} dev eth0");
        let pc = Machine::new(&lab.sw, "br0", "pc", PC, &route);
        for machine in lans.iter().flatten().chain([&pc]) {
            machine.settle();
        }
        // The querier starts when all are there, and queries at once.
        lab.start_querier();
        eventually("the switch knows who is upstream", SOON, || {
            let groups = lab.sw.run("bridge mdb show dev br0");
            let is_known = |port, address| {
                let entry = format!("port {port} grp {} ", solicited_node(address));
                groups.contains(&entry)
            };
            is_known("pc", PC) && is_known("gw", GATEWAY)
        });
        Self { lab, lans, pc }
    }

    /// Starts mldproxy as the user of such a home does.
    #[track_caller]
    pub fn start(&self, options: &[&str]) -> Process {
        let usual = ["--ndp-proxy", "--host-routes", "--learn", "both"];
        let interfaces = [UPSTREAM, &downstream(1), &downstream(2)];
        start_between(&self.lab.rtr, &[&usual, options].concat(), &interfaces)
    }

    /// Makes mldproxy know a host: the host pings the router, and answers its questions.
    #[track_caller]
    pub fn confirm(&self, host: &Machine) {
        host.namespace.flush_neighbors();
        host.namespace
            .ping_until_answered(&format!("-I {} {LAN_ROUTER}%eth0", host.address));
        self.expect_proxied(host.address);
    }

    /// Waits until the kernel answers for an address upstream.
    #[track_caller]
    pub fn expect_proxied(&self, address: Ipv6Addr) {
        eventually("the kernel answers for it upstream", SOON, || {
            proxied(&self.lab).contains(&address)
        });
    }

    /// The interface of mldproxy's route to an address.
    pub fn routed_to(&self, address: Ipv6Addr) -> Option<String> {
        let routes = self.lab.rtr.run("ip -6 route show proto 77");
        let mut lines = routes.lines().map(str::split_whitespace);
        let mut line = lines.find(|line| line.clone().next() == Some(&address.to_string()))?;
        line.find(|word| *word == "dev")?;
        line.next().map(str::to_owned)
    }

    #[track_caller]
    pub fn expect_routed_to(&self, address: Ipv6Addr, interface: &str) {
        eventually("its route is there", SOON, || {
            self.routed_to(address).as_deref() == Some(interface)
        });
    }

    /// A tap on the router's upstream, for both directions.
    pub fn upstream(&self) -> Tap {
        Tap::open(&self.lab.rtr, UPSTREAM)
    }
}

impl Machine {
    fn new(
        other: &Namespace,
        bridge: &str,
        port: &str,
        address: Ipv6Addr,
        default_route: &str,
    ) -> Self {
        let namespace = Namespace::new(port);
        other.veth(port, &namespace, "eth0");
        other.run(&format!(
            "ip link set dev {port} master {bridge} addrgenmode none up"
        ));
        namespace.run(&format!(
            "ip link set dev eth0 up
             ip addr add {address}/64 dev eth0
             ip route add default via {default_route}"
        ));
        let port = port.to_owned();
        Self {
            namespace,
            address,
            port,
        }
    }

    /// Waits until the machine may use its first addresses, of which it detects no duplicates. From
    /// then on it detects them.
    fn settle(&self) {
        let namespace = &self.namespace;
        // The kernel must have noticed the carrier before anything begins.
        eventually("its addresses are its own", SOON, || {
            let shown = namespace.run("ip -6 -o addr show dev eth0");
            shown.contains("fe80::") && !shown.contains("tentative")
        });
        namespace.sysctl("net.ipv6.conf.all.accept_dad", "1");
        // As after a user's own setting, the addresses stay when the link goes down. The kernel
        // then detects duplicates of them anew.
        namespace.sysctl("net.ipv6.conf.eth0.keep_addr_on_down", "1");
        // The machine looks for a host that moved within seconds, not within a minute.
        finds_anew_soon(namespace);
    }

    pub fn tap(&self) -> Tap {
        Tap::open(&self.namespace, "eth0")
    }

    /// Takes an address, and gives it up again. Returns whether duplicate address detection found
    /// that somebody has it.
    #[track_caller]
    pub fn finds_taken(&self, address: Ipv6Addr) -> bool {
        self.namespace
            .run(&format!("ip addr add {address}/64 dev eth0"));
        let is_taken = self.has_a_duplicate_of(address);
        if is_taken {
            self.give_up(address);
        }
        is_taken
    }

    pub fn give_up(&self, address: Ipv6Addr) {
        self.namespace
            .run(&format!("ip addr del {address}/64 dev eth0"));
    }

    /// Waits for the end of duplicate address detection, and returns whether it found a duplicate.
    #[track_caller]
    pub fn has_a_duplicate_of(&self, address: Ipv6Addr) -> bool {
        let show = format!("ip -6 -o addr show dev eth0 to {address}");
        let found = poll_for(SOON, || {
            let shown = self.namespace.run(&show);
            assert!(shown.contains(&address.to_string()), "{shown:?}");
            if shown.contains("dadfailed") {
                return Some(true);
            }
            (!shown.contains("tentative")).then_some(false)
        });
        found.expect("an end of duplicate address detection")
    }

    pub fn unplug(&self) {
        self.namespace.run("ip link set dev eth0 down");
    }

    /// Plugs the machine in, with a new default route, since the old one went with the link.
    pub fn plug_in(&self, router: &str) {
        self.namespace.run(&format!(
            "ip link set dev eth0 up
             ip route replace default via {router} dev eth0"
        ));
    }
}

/// Makes a kernel doubt a neighbor a second or two after it last heard of it.
pub fn finds_anew_soon(namespace: &Namespace) {
    namespace.sysctl("net.ipv6.neigh.eth0.base_reachable_time_ms", "2000");
    namespace.sysctl("net.ipv6.neigh.eth0.delay_first_probe_time", "1");
}

/// The frames that pass until none has passed for the time `quiet`.
pub fn frames(tap: &Tap, quiet: Duration) -> impl Iterator<Item = Frame> {
    iter::from_fn(move || tap.receive(quiet))
}

pub fn solicitation(frame: &Frame) -> Option<NeighborSolicitation> {
    match parse(&frame.packet) {
        Ok(Message::NeighborSolicitation(solicitation)) => Some(solicitation),
        _ => None,
    }
}

pub fn advertisement(frame: &Frame) -> Option<NeighborAdvertisement> {
    match parse(&frame.packet) {
        Ok(Message::NeighborAdvertisement(advertisement)) => Some(advertisement),
        _ => None,
    }
}
