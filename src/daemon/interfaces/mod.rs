//! The interfaces that the user named, as the kernel has them now.

mod snapshot;

use std::fmt;
use std::net::Ipv6Addr;

use protocol::config::{Config, MAX_PREFIXES};
use protocol::link::{self, InterfaceName, MAX_DOWNSTREAMS, Port, Prefix, Side};
use protocol::wire::MacAddress;

use crate::sys::netlink::{Address, Bridge, Dump, Link, Master, Notice};

pub use snapshot::Snapshot;

/// The least MTU of an IPv6 link, in octets (RFC 8200 §5).
const MIN_MTU: u32 = 1280;

/// The upstream and the downstreams.
pub struct Interfaces {
    upstream: Interface,
    downstreams: heapless::Vec<Interface, MAX_DOWNSTREAMS>,
    /// The prefixes of the upstream's addresses. The flag says whether the dump under way has
    /// mentioned the prefix.
    prefixes: heapless::Vec<(Prefix, bool), MAX_PREFIXES>,
}

/// An interface that the user named.
pub struct Interface {
    pub name: InterfaceName,
    /// The kernel's number; `None` while there is no such interface.
    pub index: Option<u32>,
    pub bridge: Option<Bridge>,
    /// The bridge, bond or VRF that it is a part of.
    pub master: Option<Master>,
    /// The number of the interface that a VLAN's or macvlan's packets come through, and that
    /// interface's bridge, if it is one.
    lower: Option<u32>,
    /// The VLAN's number; `None` if the interface is no VLAN.
    pub vlan: Option<u16>,
    lower_bridge: Option<Bridge>,
    /// How often the interface was replaced by another one, which may have the same number.
    pub generation: u32,
    /// How often its IPv6 began anew.
    ipv6_generation: u32,
    up: bool,
    /// The link has a carrier.
    pub running: bool,
    /// A usable link-local address.
    pub link_local: Option<Ipv6Addr>,
    mtu: Option<u32>,
    mac: [u8; 6],
    /// The dump under way has mentioned the interface, and the address.
    link_confirmed: bool,
    address_confirmed: bool,
}

/// What an interface can be used for, or the first reason why it cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Missing,
    /// It is a part of the interface with this number, which receives its IPv6 packets.
    PartOf(u32),
    Down,
    NoCarrier,
    /// Its MTU, in octets, is too small: the kernel runs no IPv6 there.
    SmallMtu(u32),
    NoLinkLocal,
    Usable,
}

impl State {
    /// The state's stable name, in snake_case.
    pub fn name(self) -> &'static str {
        match self {
            State::Missing => "missing",
            State::PartOf(_) => "part_of",
            State::Down => "down",
            State::NoCarrier => "no_carrier",
            State::SmallMtu(_) => "small_mtu",
            State::NoLinkLocal => "no_link_local",
            State::Usable => "usable",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::Missing => "missing, waited for",
            State::PartOf(master) => {
                return write!(f, "part of interface number {master}: name that one");
            }
            State::Down => "down",
            State::NoCarrier => "no carrier",
            State::SmallMtu(mtu) => {
                return write!(f, "up, but its MTU of {mtu} is below IPv6's {MIN_MTU}");
            }
            State::NoLinkLocal => "up, but without a valid link-local address",
            State::Usable => "up",
        })
    }
}

impl Interfaces {
    /// Interfaces of which none is known to be there.
    pub fn new(config: &Config) -> Self {
        Interfaces {
            upstream: Interface::new(&config.upstream),
            downstreams: config.downstreams.iter().map(Interface::new).collect(),
            prefixes: heapless::Vec::new(),
        }
    }

    /// The upstream, if it can carry IPv6. The kernel ends all memberships when the MTU falls below
    /// 1280.
    pub fn upstream(&self) -> Option<link::Link> {
        let mtu = self.upstream.mtu.filter(|mtu| *mtu >= MIN_MTU)?;
        Some(link::Link {
            index: self.upstream.index?,
            link_local: self.upstream.link_local,
            mtu,
            mac: MacAddress(self.upstream.mac),
        })
    }

    /// The upstream interface, there or not.
    pub fn upstream_interface(&self) -> &Interface {
        &self.upstream
    }

    /// How often the upstream's IPv6 began anew: with another interface, or with an MTU that is
    /// large enough again. Each time its memberships and settings are gone.
    pub fn upstream_generation(&self) -> u32 {
        self.upstream.ipv6_generation
    }

    pub fn upstream_prefixes(&self) -> heapless::Vec<Prefix, MAX_PREFIXES> {
        self.prefixes.iter().map(|(prefix, _)| *prefix).collect()
    }

    /// The downstreams, in the order of the configuration.
    pub fn downstreams(&self) -> &[Interface] {
        &self.downstreams
    }

    /// The upstream, then the downstreams in the order of the configuration.
    pub fn iter(&self) -> impl Iterator<Item = &Interface> {
        std::iter::once(&self.upstream).chain(&self.downstreams)
    }

    /// As [`iter`](Self::iter), each with its side.
    pub fn sides(&self) -> impl Iterator<Item = (Side, &Interface)> {
        let downstreams = (0..).map(Side::Downstream);
        let sides = std::iter::once(Side::Upstream).chain(downstreams);
        sides.zip(self.iter())
    }

    /// The port of the downstream with this number.
    pub fn port_of(&self, index: u32) -> Option<Port> {
        let mut downstreams = self.downstreams.iter();
        let port = downstreams.position(|interface| interface.index == Some(index))?;
        Port::try_from(port).ok()
    }

    /// Is the upstream the interface with this number?
    pub fn is_upstream(&self, index: u32) -> bool {
        self.upstream.index == Some(index)
    }

    /// The side of the interface with this number.
    pub fn side_of(&self, index: u32) -> Option<Side> {
        if self.is_upstream(index) {
            return Some(Side::Upstream);
        }
        self.port_of(index).map(Side::Downstream)
    }

    /// The interface on a side.
    pub fn on(&self, side: Side) -> Option<&Interface> {
        match side {
            Side::Upstream => Some(&self.upstream),
            Side::Downstream(port) => self.downstreams.get(usize::from(port)),
        }
    }

    /// The number of the interface on a side, if it is there.
    pub fn index_of(&self, side: Side) -> Option<u32> {
        self.on(side)?.index
    }

    /// The names of the interfaces that are not there.
    pub fn missing(&self) -> impl Iterator<Item = &InterfaceName> {
        self.iter()
            .filter(|interface| interface.index.is_none())
            .map(|interface| &interface.name)
    }

    /// The routing table for routes to a side: a VRF's, or the main one.
    pub fn table_of(&self, side: Side) -> u32 {
        let master = self.on(side).and_then(|interface| interface.master);
        master
            .and_then(|master| master.table)
            .unwrap_or(libc::RT_TABLE_MAIN.into())
    }

    /// A dump begins. What it does not mention will not be there at its end.
    pub fn begin(&mut self, dump: Dump) {
        match dump {
            Dump::Links => self
                .all()
                .for_each(|interface| interface.link_confirmed = false),
            Dump::Addresses => {
                self.all()
                    .for_each(|interface| interface.address_confirmed = false);
                self.prefixes
                    .iter_mut()
                    .for_each(|(_, confirmed)| *confirmed = false);
            }
            Dump::Neighbors | Dump::ProxiedNeighbors | Dump::Routes => {}
        }
    }

    /// Takes in a notice. Returns the dump that it makes necessary.
    pub fn handle(&mut self, notice: &Notice<'_>) -> Option<Dump> {
        match notice {
            Notice::Link(link) => self.link_is_there(link),
            Notice::LinkDeleted { index } => {
                self.with_index(*index).for_each(Interface::is_gone);
                None
            }
            Notice::Address(address) => self.address_is_there(address),
            Notice::AddressDeleted { index, address } => self.address_is_gone(*index, *address),
            Notice::Dumped(Dump::Links) => {
                let unconfirmed = self.all().filter(|interface| !interface.link_confirmed);
                unconfirmed.for_each(Interface::is_gone);
                Some(Dump::Addresses)
            }
            Notice::Dumped(Dump::Addresses) => {
                let unconfirmed = self.all().filter(|interface| !interface.address_confirmed);
                unconfirmed.for_each(|interface| interface.link_local = None);
                self.prefixes.retain(|(_, confirmed)| *confirmed);
                Some(Dump::Neighbors)
            }
            Notice::Lost => Some(Dump::Links),
            Notice::Dumped(Dump::Neighbors | Dump::ProxiedNeighbors | Dump::Routes)
            | Notice::Neighbor { .. }
            | Notice::NeighborDeleted { .. }
            | Notice::ProxiedNeighbor { .. }
            | Notice::Route(_)
            | Notice::RouteDeleted(_)
            | Notice::Sibling(_)
            | Notice::Refused(_) => None,
        }
    }

    fn link_is_there(&mut self, link: &Link<'_>) -> Option<Dump> {
        let mut wanted = None;
        for interface in self.all() {
            let is_named = link.name == Some(interface.name.as_str());
            let has_index = interface.index == Some(link.index);
            if is_named || (has_index && link.name.is_none()) {
                wanted = wanted.into_iter().chain(interface.is_there(link)).min();
            } else if has_index {
                // The interface was renamed.
                interface.is_gone();
            }
            if interface.lower == Some(link.index) {
                interface.lower_bridge = link.bridge.or(interface.lower_bridge);
            }
        }
        wanted
    }

    fn address_is_there(&mut self, address: &Address) -> Option<Dump> {
        if !address.usable {
            // If the address in use became a duplicate, the interface may have another one.
            return self.link_local_is_gone(address.index, address.address);
        }
        if address.address.is_unicast_link_local() {
            for interface in self.with_index(address.index) {
                // One address is enough. Another one replaces it only if the dump under way has not
                // mentioned the first.
                if interface.link_local == Some(address.address) || !interface.address_confirmed {
                    interface.link_local = Some(address.address);
                    interface.address_confirmed = true;
                }
            }
        } else if self.is_upstream(address.index)
            && address.prefix_length < 128
            && let Ok(prefix) = Prefix::of(address.address, address.prefix_length)
        {
            match self.prefixes.iter_mut().find(|(known, _)| *known == prefix) {
                Some((_, confirmed)) => *confirmed = true,
                // If there is no more room, the prefix is ignored.
                None => _ = self.prefixes.push((prefix, true)),
            }
        }
        None
    }

    fn address_is_gone(&mut self, index: u32, address: Ipv6Addr) -> Option<Dump> {
        // Another address may keep the prefix.
        let in_prefix = |(prefix, _): &(Prefix, bool)| prefix.contains(address);
        if self.is_upstream(index) && self.prefixes.iter().any(in_prefix) {
            return Some(Dump::Addresses);
        }
        self.link_local_is_gone(index, address)
    }

    /// Forgets a link-local address. A dump then finds another one.
    fn link_local_is_gone(&mut self, index: u32, address: Ipv6Addr) -> Option<Dump> {
        let mut lost = false;
        for interface in self.with_index(index) {
            if interface.link_local == Some(address) {
                interface.link_local = None;
                interface.address_confirmed = false;
                lost = true;
            }
        }
        lost.then_some(Dump::Addresses)
    }

    fn all(&mut self) -> impl Iterator<Item = &mut Interface> {
        std::iter::once(&mut self.upstream).chain(&mut self.downstreams)
    }

    fn with_index(&mut self, index: u32) -> impl Iterator<Item = &mut Interface> {
        self.all()
            .filter(move |interface| interface.index == Some(index))
    }
}

impl Interface {
    fn new(name: &InterfaceName) -> Self {
        Interface {
            name: name.clone(),
            index: None,
            bridge: None,
            master: None,
            lower: None,
            vlan: None,
            lower_bridge: None,
            generation: 0,
            ipv6_generation: 0,
            up: false,
            running: false,
            mtu: None,
            mac: [0; 6],
            link_local: None,
            link_confirmed: false,
            address_confirmed: false,
        }
    }

    /// What the engine needs to send from here; `None` also without a carrier.
    pub fn downstream(&self) -> Option<link::Link> {
        let link_local = self.link_local.filter(|_| self.running)?;
        Some(link::Link {
            index: self.index?,
            link_local: Some(link_local),
            mtu: self.mtu.unwrap_or_default(),
            mac: MacAddress(self.mac),
        })
    }

    /// The first reason why the interface cannot be used, or that it can.
    pub fn state(&self) -> State {
        let (Some(_), Some(mtu)) = (self.index, self.mtu) else {
            return State::Missing;
        };
        match self.master {
            // A part of a VRF receives its packets itself.
            Some(master) if master.table.is_none() => State::PartOf(master.index),
            _ if !self.up => State::Down,
            _ if !self.running => State::NoCarrier,
            _ if mtu < MIN_MTU => State::SmallMtu(mtu),
            _ if self.link_local.is_none() => State::NoLinkLocal,
            _ => State::Usable,
        }
    }

    /// The number of the interface that decides what is heard here: this one if it is a bridge, or
    /// the one that its packets come through.
    pub fn decided_by(&self) -> Option<u32> {
        self.index.filter(|_| self.bridge.is_some()).or(self.lower)
    }

    /// That interface's number and bridge, if it is known to be a bridge.
    pub fn deciding_bridge(&self) -> Option<(u32, Bridge)> {
        self.decided_by().zip(self.bridge.or(self.lower_bridge))
    }

    /// Takes in a message about the interface. Returns the dump for what the message leaves open.
    fn is_there(&mut self, link: &Link<'_>) -> Option<Dump> {
        let mut wanted = None;
        if self.index != Some(link.index) {
            self.is_gone();
            self.index = Some(link.index);
            // The kernel reported its addresses while it had another name.
            wanted = Some(Dump::Addresses);
        }
        // By the time the daemon reads this, the MTU may be large enough again, and no other
        // message tells that the kernel dropped IPv6 in between.
        if self.mtu >= Some(MIN_MTU) && link.mtu.is_some_and(|mtu| mtu < MIN_MTU) {
            self.ipv6_generation = self.ipv6_generation.wrapping_add(1);
        }
        self.mtu = link.mtu.or(self.mtu);
        self.up = link.up;
        self.running = link.running;
        self.mac = link.mac.unwrap_or(self.mac);
        self.bridge = link.bridge.or(self.bridge);
        self.vlan = link.vlan.or(self.vlan);
        // News that mentions the MTU describes the whole link, and would mention a master.
        let mut is_unsure = !link.whole
            && (self.mtu.is_none()
                || self.master.is_some() && link.master.is_none() && link.mtu.is_some());
        if let Some(master) = link.master {
            let known = self.master.filter(|known| known.index == master.index);
            let table = master.table.or(known.and_then(|known| known.table));
            self.master = Some(Master { table, ..master });
        } else if link.whole {
            self.master = None;
        }
        if link.lower.is_some() && link.lower != self.lower {
            // The kernel described that interface earlier, when nobody listened for it.
            (self.lower, self.lower_bridge) = (link.lower, None);
            is_unsure = true;
        }
        self.link_confirmed = true;
        if is_unsure { Some(Dump::Links) } else { wanted }
    }

    fn is_gone(&mut self) {
        *self = Interface {
            generation: self.generation.wrapping_add(1),
            ipv6_generation: self.ipv6_generation.wrapping_add(1),
            ..Interface::new(&self.name)
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FE80_1: &str = "fe80::1";

    fn interfaces() -> Interfaces {
        let mut config = Config::new("wan".parse().unwrap());
        config.downstreams.push("br-lan".parse().unwrap()).unwrap();
        Interfaces::new(&config)
    }

    fn link(index: u32, name: &str) -> Notice<'_> {
        Notice::Link(Link {
            index,
            name: Some(name),
            mtu: Some(1500),
            up: true,
            running: true,
            ..Link::default()
        })
    }

    fn indices(interfaces: &Interfaces) -> Vec<Option<u32>> {
        let downstreams = interfaces.downstreams().iter();
        downstreams.map(|interface| interface.index).collect()
    }

    fn address(index: u32, address: &str, usable: bool) -> Notice<'static> {
        let address = address.parse().unwrap();
        Notice::Address(Address {
            index,
            address,
            prefix_length: 64,
            usable,
        })
    }

    fn deleted(index: u32, address: &str) -> Notice<'static> {
        let address = address.parse().unwrap();
        Notice::AddressDeleted { index, address }
    }

    fn link_local(interfaces: &Interfaces) -> Option<String> {
        let address = interfaces.upstream().unwrap().link_local;
        address.map(|address| address.to_string())
    }

    #[test]
    fn only_the_named_ones_count_and_the_missing_are_known() {
        let mut interfaces = interfaces();
        assert_eq!(interfaces.handle(&link(7, "eth0")), None);
        assert_eq!(interfaces.upstream(), None);
        assert_eq!(interfaces.handle(&link(8, "wan")), Some(Dump::Addresses));
        assert_eq!(interfaces.handle(&link(8, "wan")), None, "nothing new");
        assert_eq!(interfaces.upstream().unwrap().index, 8);
        assert_eq!(interfaces.downstreams()[0].state(), State::Missing);
        interfaces.handle(&link(9, "br-lan"));
        assert_eq!(indices(&interfaces), [Some(9)]);
    }

    #[test]
    fn a_renamed_or_deleted_or_recreated_interface_is_followed() {
        let mut interfaces = interfaces();
        interfaces.handle(&link(8, "wan"));
        interfaces.handle(&address(8, FE80_1, true));
        interfaces.handle(&link(8, "wan-old"));
        assert_eq!(interfaces.upstream(), None);
        interfaces.handle(&link(8, "wan"));
        assert_eq!(link_local(&interfaces), None, "to be dumped anew");
        interfaces.handle(&address(8, FE80_1, true));
        interfaces.handle(&Notice::LinkDeleted { index: 9 });
        assert_eq!(link_local(&interfaces).unwrap(), FE80_1);
        interfaces.handle(&Notice::LinkDeleted { index: 8 });
        assert_eq!(interfaces.upstream(), None);
        interfaces.handle(&link(10, "wan"));
        assert_eq!(interfaces.upstream().unwrap().index, 10);
        assert_eq!(link_local(&interfaces), None);
    }

    #[test]
    fn an_address_counts_only_while_it_is_usable_and_link_local() {
        let mut interfaces = interfaces();
        interfaces.handle(&link(8, "wan"));
        interfaces.handle(&address(8, "2001:db8::1", true));
        interfaces.handle(&address(8, FE80_1, false));
        interfaces.handle(&address(9, FE80_1, true));
        assert_eq!(link_local(&interfaces), None);
        interfaces.handle(&address(8, FE80_1, true));
        assert_eq!(link_local(&interfaces).unwrap(), FE80_1);
        interfaces.handle(&address(8, "fe80::2", true));
        assert_eq!(link_local(&interfaces).unwrap(), FE80_1, "one is enough");
        assert_eq!(interfaces.handle(&deleted(8, "fe80::2")), None);
        let again = Some(Dump::Addresses);
        assert_eq!(interfaces.handle(&deleted(8, FE80_1)), again);
        assert_eq!(link_local(&interfaces), None);
        interfaces.handle(&address(8, "fe80::3", true));
        assert_eq!(interfaces.handle(&address(8, "fe80::3", false)), again);
        assert_eq!(link_local(&interfaces), None, "tentative again");
    }

    #[test]
    fn an_address_that_never_was_usable_causes_no_dumps() {
        let mut interfaces = interfaces();
        interfaces.handle(&link(8, "wan"));
        interfaces.handle(&address(8, "2001:db8:1::1", true));
        assert_eq!(interfaces.handle(&address(8, "2001:db8:1::2", false)), None);
        assert_eq!(interfaces.handle(&address(8, "fe80::2", false)), None);
    }

    #[test]
    fn an_interface_of_the_same_number_is_another_one_after_it_was_deleted() {
        let mut interfaces = interfaces();
        interfaces.handle(&link(8, "wan"));
        let before = interfaces.upstream_generation();
        interfaces.handle(&Notice::LinkDeleted { index: 8 });
        interfaces.handle(&link(8, "wan"));
        assert_ne!(interfaces.upstream_generation(), before);
    }

    #[test]
    fn an_upstream_too_small_for_ipv6_is_none() {
        let mut interfaces = interfaces();
        let mtu = |mtu| {
            Notice::Link(Link {
                index: 8,
                name: Some("wan"),
                mtu: Some(mtu),
                up: true,
                running: true,
                ..Link::default()
            })
        };
        interfaces.handle(&mtu(1280));
        assert!(interfaces.upstream().is_some());
        let (before, of_link) = (
            interfaces.upstream_generation(),
            interfaces.upstream.generation,
        );
        interfaces.handle(&mtu(1279));
        assert_eq!(interfaces.upstream(), None);
        interfaces.handle(&mtu(1280));
        assert!(interfaces.upstream().is_some());
        assert_ne!(interfaces.upstream_generation(), before);
        assert_eq!(interfaces.upstream.generation, of_link, "the same one");
    }

    /// A message with everything about the upstream, which is a part of the VRF or bridge with the
    /// number 7.
    fn whole(table: Option<u32>) -> Link<'static> {
        Link {
            index: 8,
            whole: true,
            name: Some("wan"),
            mtu: Some(1500),
            up: true,
            running: true,
            mac: Some([2; 6]),
            bridge: Some(Bridge::default()),
            master: Some(Master { index: 7, table }),
            lower: Some(6),
            vlan: Some(10),
        }
    }

    #[test]
    fn what_news_does_not_tell_has_not_changed() {
        let mut interfaces = interfaces();
        interfaces.handle(&Notice::Link(whole(Some(1000))));
        interfaces.handle(&address(8, FE80_1, true));
        let facts = |interfaces: &Interfaces| {
            let upstream = interfaces.upstream_interface();
            (
                interfaces.upstream(),
                interfaces.upstream_generation(),
                (upstream.state(), upstream.master, upstream.bridge),
                (upstream.lower, upstream.vlan),
                interfaces.table_of(Side::Upstream),
            )
        };
        let before = facts(&interfaces);
        assert_eq!(before.2.0, State::Usable);
        assert_eq!(before.4, 1000);
        // Every combination of attributes that a message can mention.
        for told in 0..128 {
            let is_told = |bit: u32| told >> bit & 1 != 0;
            let all = whole(Some(1000).filter(|_| is_told(6)));
            let news = Link {
                whole: false,
                name: all.name.filter(|_| is_told(0)),
                mtu: all.mtu.filter(|_| is_told(1)),
                mac: all.mac.filter(|_| is_told(2)),
                bridge: all.bridge.filter(|_| is_told(3)),
                master: all.master.filter(|_| is_told(4)),
                lower: all.lower.filter(|_| is_told(5)),
                vlan: all.vlan.filter(|_| is_told(5)),
                ..all
            };
            interfaces.handle(&Notice::Link(news));
            assert_eq!(facts(&interfaces), before, "{news:?}");
        }
    }

    #[test]
    fn a_master_that_news_does_not_tell_of_is_gone_where_the_next_dump_does_not_either() {
        let mut interfaces = interfaces();
        interfaces.handle(&Notice::Link(whole(None)));
        let state = |interfaces: &Interfaces| interfaces.upstream_interface().state();
        assert_eq!(state(&interfaces), State::PartOf(7));
        let mut link = Link {
            whole: false,
            master: None,
            ..whole(None)
        };
        let asked = interfaces.handle(&Notice::Link(link));
        assert_eq!(asked, Some(Dump::Links));
        assert_eq!(state(&interfaces), State::PartOf(7));
        link.whole = true;
        assert_eq!(interfaces.handle(&Notice::Link(link)), None);
        assert_eq!(state(&interfaces), State::NoLinkLocal);
        // A driver's message does not describe the whole link, and so says nothing about a master.
        interfaces.handle(&Notice::Link(whole(None)));
        (link.whole, link.mtu) = (false, None);
        assert_eq!(interfaces.handle(&Notice::Link(link)), None);
    }

    #[test]
    fn what_is_known_by_its_name_alone_is_asked_for() {
        let mut interfaces = interfaces();
        let news = Link {
            index: 8,
            name: Some("wan"),
            ..Link::default()
        };
        let asked = interfaces.handle(&Notice::Link(news));
        assert_eq!(asked, Some(Dump::Links));
        assert_eq!(interfaces.upstream_interface().state(), State::Missing);
    }

    #[test]
    fn the_bridge_beneath_a_vlan_decides_what_is_heard() {
        let mut interfaces = interfaces();
        let vlan = Link {
            bridge: None,
            master: None,
            ..whole(None)
        };
        let asked = interfaces.handle(&Notice::Link(vlan));
        assert_eq!(asked, Some(Dump::Links), "it was told before");
        assert_eq!(interfaces.upstream_interface().deciding_bridge(), None);
        let bridge = Bridge {
            snooping: true,
            ..Bridge::default()
        };
        let beneath = Link {
            index: 6,
            whole: true,
            name: Some("br0"),
            bridge: Some(bridge),
            ..Link::default()
        };
        assert_eq!(interfaces.handle(&Notice::Link(beneath)), None);
        assert_eq!(interfaces.handle(&Notice::Link(vlan)), None);
        let deciding = interfaces.upstream_interface().deciding_bridge();
        assert_eq!(deciding, Some((6, bridge)));
    }

    #[test]
    fn what_a_dump_does_not_tell_of_is_gone() {
        let mut interfaces = interfaces();
        for notice in [link(8, "wan"), link(9, "br-lan"), address(8, FE80_1, true)] {
            interfaces.handle(&notice);
        }
        assert_eq!(interfaces.handle(&Notice::Lost), Some(Dump::Links));
        interfaces.begin(Dump::Links);
        interfaces.handle(&link(8, "wan"));
        let next = interfaces.handle(&Notice::Dumped(Dump::Links));
        assert_eq!(next, Some(Dump::Addresses));
        assert_eq!(indices(&interfaces), [None]);
        assert_eq!(link_local(&interfaces).unwrap(), FE80_1);
        interfaces.begin(Dump::Addresses);
        interfaces.handle(&address(8, "fe80::2", true));
        interfaces.handle(&Notice::Dumped(Dump::Addresses));
        assert_eq!(link_local(&interfaces).unwrap(), "fe80::2");
        interfaces.begin(Dump::Addresses);
        let next = interfaces.handle(&Notice::Dumped(Dump::Addresses));
        assert_eq!(next, Some(Dump::Neighbors));
        assert_eq!(link_local(&interfaces), None);
    }

    #[test]
    fn the_prefixes_of_the_upstream_are_followed() {
        let mut interfaces = interfaces();
        interfaces.handle(&link(8, "wan"));
        interfaces.handle(&link(9, "br-lan"));
        for notice in [
            address(8, "2001:db8:1::1", true),
            address(8, "2001:db8:1::2", true),
            address(8, "2001:db8:2::1", true),
            address(9, "2001:db8:9::1", true),
        ] {
            interfaces.handle(&notice);
        }
        let prefixes = |interfaces: &Interfaces| {
            let prefixes = interfaces.upstream_prefixes();
            prefixes.iter().map(Prefix::to_string).collect::<Vec<_>>()
        };
        assert_eq!(
            prefixes(&interfaces),
            ["2001:db8:1::/64", "2001:db8:2::/64"]
        );
        let next = interfaces.handle(&deleted(8, "2001:db8:1::1"));
        assert_eq!(next, Some(Dump::Addresses), "there is another one");
        interfaces.begin(Dump::Addresses);
        interfaces.handle(&address(8, "2001:db8:1::2", true));
        interfaces.handle(&Notice::Dumped(Dump::Addresses));
        assert_eq!(prefixes(&interfaces), ["2001:db8:1::/64"]);
    }
}
