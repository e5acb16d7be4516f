//! Decodes the kernel's messages.

use std::net::Ipv6Addr;

use protocol::link::Prefix;

use super::message::{
    ADDRESS_HEADER, LINK_HEADER, Message, NDA_PROTOCOL, NEIGHBOR_FLAGS, NEIGHBOR_HEADER,
    ROUTE_HEADER, attributes, u16_at, u32_at,
};
use super::{Address, Bridge, Link, Master, Notice, Route, siblings};

// linux/if_link.h.
pub const IFLA_INFO_KIND: u16 = 1;
pub const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
pub const IFLA_BR_MCAST_ROUTER: u16 = 22;
const IFLA_BR_MCAST_SNOOPING: u16 = 23;
const IFLA_BR_MCAST_QUERIER: u16 = 25;
const IFLA_BR_MCAST_MLD_VERSION: u16 = 44;
const IFLA_BR_MULTI_BOOLOPT: u16 = 46;
const IFLA_VLAN_ID: u16 = 1;
const IFLA_VRF_PORT_TABLE: u16 = 1;
/// The bit of `struct br_boolopt_multi` in linux/if_bridge.h. The values come before the mask.
const BR_BOOLOPT_MCAST_VLAN_SNOOPING: u32 = 1;

/// `NUD_REACHABLE | NUD_STALE | NUD_DELAY | NUD_PROBE | NUD_PERMANENT` of linux/neighbour.h: the
/// states of a neighbor that was there.
const USABLE: u16 = 0x02 | 0x04 | 0x08 | 0x10 | 0x80;

/// What a message says; `None` if it is of no interest, or malformed.
pub fn notice<'a>(message: &Message<'a>) -> Option<Notice<'a>> {
    match message.message_type {
        libc::RTM_NEWLINK | libc::RTM_DELLINK => link(message),
        libc::RTM_NEWADDR | libc::RTM_DELADDR => address(message),
        libc::RTM_NEWNEIGH | libc::RTM_DELNEIGH => neighbor(message),
        libc::RTM_NEWROUTE => route(message).map(Notice::Route),
        libc::RTM_DELROUTE => route(message).map(Notice::RouteDeleted),
        _ => siblings::told(message).map(Notice::Sibling),
    }
}

fn link<'a>(message: &Message<'a>) -> Option<Notice<'a>> {
    let family = message.body.first().copied()?;
    let index = u32_at(message.body, 4)?;
    // A bridge reports its ports by messages of its own family. Such a message also says "deleted"
    // when a port only left the bridge.
    if i32::from(family) != libc::AF_UNSPEC {
        return None;
    }
    if message.message_type == libc::RTM_DELLINK {
        return Some(Notice::LinkDeleted { index });
    }
    let flags = u32_at(message.body, 8)?;
    let (mut master, mut lower, mut elsewhere) = (None, None, false);
    let mut link = Link {
        index,
        whole: i32::from(message.flags) & libc::NLM_F_MULTI != 0,
        up: flags & libc::IFF_UP.cast_unsigned() != 0,
        running: flags & libc::IFF_RUNNING.cast_unsigned() != 0,
        ..Link::default()
    };
    let mut info: &[u8] = &[];
    for (kind, value) in attributes(message.body.get(LINK_HEADER..)?) {
        match kind {
            // A name that is no text is none that the user named.
            libc::IFLA_IFNAME => {
                let name = value.strip_suffix(&[0]).unwrap_or(value);
                link.name = Some(str::from_utf8(name).unwrap_or_default());
            }
            libc::IFLA_MTU => link.mtu = u32_at(value, 0),
            libc::IFLA_ADDRESS => link.mac = Some(value.try_into().unwrap_or_default()),
            libc::IFLA_MASTER => master = u32_at(value, 0).filter(|master| *master != 0),
            libc::IFLA_LINK => lower = u32_at(value, 0),
            libc::IFLA_LINK_NETNSID => elsewhere = true,
            libc::IFLA_LINKINFO => info = value,
            _ => {}
        }
    }
    link.bridge = bridge(info);
    link.vlan = vlan(info);
    link.lower = lower.filter(|_| !elsewhere && is_on_another(info));
    link.master = master.map(|index| Master {
        index,
        table: vrf_table(info),
    });
    Some(Notice::Link(link))
}

fn find(within: &[u8], wanted: u16) -> Option<&[u8]> {
    let mut attributes = attributes(within);
    let (_, value) = attributes.find(|(kind, _)| *kind == wanted)?;
    Some(value)
}

/// Whether the link's packets come through the interface that it names.
fn is_on_another(link_info: &[u8]) -> bool {
    matches!(
        find(link_info, IFLA_INFO_KIND),
        Some(b"vlan\0" | b"macvlan\0")
    )
}

fn vlan(link_info: &[u8]) -> Option<u16> {
    let kind = find(link_info, IFLA_INFO_KIND)?;
    let data = find(link_info, IFLA_INFO_DATA).filter(|_| kind == b"vlan\0")?;
    u16_at(find(data, IFLA_VLAN_ID)?, 0)
}

/// The table of the VRF that the link is a part of.
fn vrf_table(link_info: &[u8]) -> Option<u32> {
    let kind = find(link_info, IFLA_INFO_SLAVE_KIND)?;
    let data = find(link_info, IFLA_INFO_SLAVE_DATA).filter(|_| kind == b"vrf\0")?;
    u32_at(find(data, IFLA_VRF_PORT_TABLE)?, 0)
}

fn bridge(link_info: &[u8]) -> Option<Bridge> {
    let name = find(link_info, IFLA_INFO_KIND)?;
    let data = find(link_info, IFLA_INFO_DATA)?;
    if name != b"bridge\0" {
        return None;
    }
    // A message with any data of a bridge has these.
    let (mut router, mut snooping, mut vlan_snooping) = (None, None, false);
    let (mut querier, mut mld_version) = (0, 0);
    for (kind, value) in attributes(data) {
        match (kind, value) {
            (IFLA_BR_MCAST_ROUTER, [value]) => router = Some(*value),
            (IFLA_BR_MCAST_SNOOPING, [value]) => snooping = Some(*value != 0),
            (IFLA_BR_MCAST_QUERIER, [value]) => querier = *value,
            (IFLA_BR_MCAST_MLD_VERSION, [value]) => mld_version = *value,
            (IFLA_BR_MULTI_BOOLOPT, value) => {
                vlan_snooping = u32_at(value, 0)? & 1 << BR_BOOLOPT_MCAST_VLAN_SNOOPING != 0;
            }
            _ => {}
        }
    }
    Some(Bridge {
        snooping: snooping?,
        vlan_snooping,
        queries_by_mldv1: querier != 0 && mld_version == 1,
        multicast_router: router?,
    })
}

fn neighbor(message: &Message<'_>) -> Option<Notice<'static>> {
    if i32::from(*message.body.first()?) != libc::AF_INET6 {
        return None;
    }
    let index = u32_at(message.body, 4)?;
    let state = u16_at(message.body, 8)?;
    let (mut address, mut mac, mut protocol) = (None, None, 0);
    for (kind, value) in attributes(message.body.get(NEIGHBOR_HEADER..)?) {
        match kind {
            libc::NDA_DST => address = value.first_chunk::<16>(),
            libc::NDA_LLADDR => mac = Some(value.try_into().unwrap_or_default()),
            NDA_PROTOCOL => protocol = *value.first()?,
            _ => {}
        }
    }
    let address = Ipv6Addr::from(*address?);
    if message.message_type == libc::RTM_DELNEIGH {
        return Some(Notice::NeighborDeleted { index, address });
    }
    if message.body.get(NEIGHBOR_FLAGS)? & libc::NTF_PROXY != 0 {
        return Some(Notice::ProxiedNeighbor {
            index,
            address,
            protocol,
        });
    }
    Some(Notice::Neighbor {
        index,
        address,
        mac: mac.filter(|_| state & USABLE != 0)?,
    })
}

fn address(message: &Message<'_>) -> Option<Notice<'static>> {
    let &[family, prefix_length, flags, ..] = message.body else {
        return None;
    };
    if i32::from(family) != libc::AF_INET6 {
        return None;
    }
    let index = u32_at(message.body, 4)?;
    let (mut address, mut local, mut flags) = (None, None, u32::from(flags));
    for (kind, value) in attributes(message.body.get(ADDRESS_HEADER..)?) {
        match kind {
            libc::IFA_ADDRESS => address = value.first_chunk::<16>(),
            // On a point-to-point link IFA_ADDRESS is the other end.
            libc::IFA_LOCAL => local = value.first_chunk::<16>(),
            libc::IFA_FLAGS => flags = u32_at(value, 0)?,
            _ => {}
        }
    }
    let address = Ipv6Addr::from(*local.or(address)?);
    Some(if message.message_type == libc::RTM_DELADDR {
        Notice::AddressDeleted { index, address }
    } else {
        Notice::Address(Address {
            index,
            address,
            prefix_length,
            usable: flags & (libc::IFA_F_TENTATIVE | libc::IFA_F_DADFAILED) == 0,
        })
    })
}

fn route(message: &Message<'_>) -> Option<Route> {
    let &[
        family,
        length,
        source_length,
        _,
        table,
        protocol,
        _,
        kind,
        ..,
    ] = message.body
    else {
        return None;
    };
    let flags = u32_at(message.body, 8)?;
    if i32::from(family) != libc::AF_INET6
        || kind != libc::RTN_UNICAST
        || flags & libc::RTM_F_CLONED != 0
        // A route with a source prefix is not for all packets.
        || source_length != 0
    {
        return None;
    }
    let (mut table, mut destination, mut index, mut metric) = (table.into(), [0; 16], None, 0);
    for (kind, value) in attributes(message.body.get(ROUTE_HEADER..)?) {
        match kind {
            libc::RTA_GATEWAY | libc::RTA_MULTIPATH => return None,
            libc::RTA_DST => destination = value.try_into().ok()?,
            libc::RTA_OIF => index = u32_at(value, 0),
            libc::RTA_PRIORITY => metric = u32_at(value, 0)?,
            libc::RTA_TABLE => table = u32_at(value, 0)?,
            _ => {}
        }
    }
    let route = Route {
        index: index?,
        table,
        destination: Prefix::of(destination.into(), length).ok()?,
        metric,
        protocol,
    };
    Some(route)
}

// The messages are in the byte order of the machine that they were recorded on.
#[cfg(all(test, target_endian = "little"))]
mod tests {
    use super::super::Reader;
    use super::super::message::MESSAGE_HEADER;
    use super::*;

    fn told(datagram: &[u8]) -> Vec<String> {
        let mut notices = Vec::new();
        Reader::default().read(datagram, &mut |notice| notices.push(format!("{notice:?}")));
        notices
    }

    /// A message of the kernel with this header and these attributes.
    fn message(message_type: u16, header: &[u8], attributes: &[&[u8]]) -> Vec<u8> {
        let mut octets = vec![0; MESSAGE_HEADER];
        octets[4..6].copy_from_slice(&message_type.to_ne_bytes());
        octets.extend(header);
        octets.extend(attributes.concat());
        let length = octets.len() as u32;
        octets[..4].copy_from_slice(&length.to_ne_bytes());
        octets
    }

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = 4 + value.len() as u16;
        let mut octets = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        octets.extend(value);
        octets.resize(octets.len().next_multiple_of(4), 0);
        octets
    }

    /// The notice for the running link number 3 with these attributes.
    fn link_with(attributes: &[Vec<u8>]) -> String {
        let header = [0, 0, 1, 0, 3, 0, 0, 0, 0x41, 0, 0, 0, 0, 0, 0, 0];
        let octets = message(libc::RTM_NEWLINK, &header, &[&attributes.concat()]);
        told(&octets).concat()
    }

    #[test]
    fn a_link_tells_what_is_in_its_message_and_nothing_else() {
        let name = attribute(libc::IFLA_IFNAME, b"wlan0\0");
        let wireless = attribute(libc::IFLA_WIRELESS, &[0; 12]);
        let before = "Link(Link { index: 3, whole: false, name: ";
        let between = ", mtu: None, up: true, running: true, mac: None, ";
        let after = "bridge: None, master: None, lower: None, vlan: None })";
        assert_eq!(
            link_with(&[name, wireless]),
            format!("{before}Some(\"wlan0\"){between}{after}")
        );
        assert_eq!(link_with(&[]), format!("{before}None{between}{after}"));
        let small = attribute(libc::IFLA_MTU, &[0xb0, 4, 0, 0]);
        assert!(link_with(&[small]).contains("mtu: Some(1200)"));
        let no_text = attribute(libc::IFLA_IFNAME, &[0xff, 0]);
        assert!(
            link_with(&[no_text]).contains("name: Some(\"\")"),
            "renamed"
        );
    }

    // As the kernel's drivers/net/vrf.c and net/core/rtnetlink.c write it.
    #[test]
    fn a_part_of_a_vrf_tells_its_table_and_that_of_a_bond_does_not() {
        let master = attribute(libc::IFLA_MASTER, &[9, 0, 0, 0]);
        let data = attribute(IFLA_INFO_SLAVE_DATA, &attribute(1, &[0xe8, 3, 0, 0]));
        let info = |kind: &[u8]| {
            let kind = attribute(IFLA_INFO_SLAVE_KIND, kind);
            attribute(libc::IFLA_LINKINFO, &[kind, data.clone()].concat())
        };
        let of_vrf = link_with(&[master.clone(), info(b"vrf\0")]);
        assert!(of_vrf.contains("Master { index: 9, table: Some(1000) }"));
        let of_bond = link_with(&[master, info(b"bond\0")]);
        assert!(of_bond.contains("Master { index: 9, table: None }"));
    }

    // As the kernel's net/8021q/vlan_netlink.c writes it.
    #[test]
    fn a_vlan_tells_what_it_is_on_unless_that_is_elsewhere() {
        let lower = attribute(libc::IFLA_LINK, &[7, 0, 0, 0]);
        let kind = attribute(IFLA_INFO_KIND, b"vlan\0");
        let data = attribute(IFLA_INFO_DATA, &attribute(IFLA_VLAN_ID, &[10, 0]));
        let info = attribute(libc::IFLA_LINKINFO, &[kind, data].concat());
        let vlan = link_with(&[lower.clone(), info.clone()]);
        assert!(vlan.contains("lower: Some(7), vlan: Some(10)"), "{vlan}");
        let other_namespace = attribute(libc::IFLA_LINK_NETNSID, &[0; 4]);
        let vlan = link_with(&[lower.clone(), info, other_namespace]);
        assert!(vlan.contains("lower: None"), "{vlan}");
        // A veth's packets do not come through its other end.
        let veth = attribute(libc::IFLA_LINKINFO, &attribute(IFLA_INFO_KIND, b"veth\0"));
        assert!(link_with(&[lower, veth]).contains("lower: None"));
    }

    // As the kernel's net/bridge/br_netlink.c writes it.
    #[test]
    fn a_bridge_tells_how_it_snoops() {
        let router = attribute(IFLA_BR_MCAST_ROUTER, &[1]);
        let snooping = attribute(IFLA_BR_MCAST_SNOOPING, &[1]);
        let options = |bits| attribute(IFLA_BR_MULTI_BOOLOPT, &[bits, 0, 0, 0, 7, 0, 0, 0]);
        let bridge = |data: &[Vec<u8>]| {
            let kind = attribute(IFLA_INFO_KIND, b"bridge\0");
            let data = attribute(IFLA_INFO_DATA, &data.concat());
            link_with(&[attribute(libc::IFLA_LINKINFO, &[kind, data].concat())])
        };
        for (bits, by_vlan) in [(0, false), (1, false), (2, true), (7, true)] {
            let told = bridge(&[router.clone(), snooping.clone(), options(bits)]);
            let expected = format!("snooping: true, vlan_snooping: {by_vlan}");
            assert!(told.contains(&expected), "{told}");
            assert!(told.contains("multicast_router: 1"), "{told}");
        }
        for (querier, version, by_mldv1) in [(0, 1, false), (1, 1, true), (1, 2, false)] {
            let querier = attribute(IFLA_BR_MCAST_QUERIER, &[querier]);
            let version = attribute(IFLA_BR_MCAST_MLD_VERSION, &[version]);
            let told = bridge(&[router.clone(), snooping.clone(), querier, version]);
            let expected = format!("queries_by_mldv1: {by_mldv1}");
            assert!(told.contains(&expected), "{told}");
        }
        assert!(bridge(&[options(2)]).contains("bridge: None"), "not told");
    }

    #[test]
    fn a_neighbor_whose_link_layer_address_is_not_told_is_none() {
        let header = [10, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 1];
        let to = attribute(libc::NDA_DST, &[0x20; 16]);
        let mac = attribute(libc::NDA_LLADDR, &[2, 0, 0, 0, 0, 1]);
        let neighbor = |attributes: &[&[u8]]| {
            let octets = message(libc::RTM_NEWNEIGH, &header, attributes);
            told(&octets).len()
        };
        assert_eq!(neighbor(&[&to, &mac]), 1);
        assert_eq!(neighbor(&[&to]), 0);
        assert_eq!(neighbor(&[&mac]), 0);
    }

    #[test]
    fn routes_to_what_is_on_a_link_are_told_of() {
        let main: &[u8] = &[8, 0, 15, 0, 254, 0, 0, 0];
        let other_table: &[u8] = &[8, 0, 15, 0, 7, 0, 0, 0];
        let to: &[u8] = &[
            20, 0, 1, 0, 0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10,
        ];
        let metric: &[u8] = &[8, 0, 6, 0, 0, 4, 0, 0];
        let link: &[u8] = &[8, 0, 4, 0, 5, 0, 0, 0];
        let gateway: &[u8] = &[
            20, 0, 5, 0, 0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
        ];
        let host = [10, 128, 0, 0, 254, 77, 0, 1, 0, 0, 0, 0];
        let route = |header: &[u8], attributes: &[&[u8]]| {
            let octets = message(libc::RTM_NEWROUTE, header, attributes);
            told(&octets).pop()
        };
        assert_eq!(
            route(&host, &[main, to, metric, link]).unwrap(),
            "Route(Route { index: 5, table: 254, \
             destination: Prefix { network: 2001:db8::a, length: 128 }, metric: 1024, protocol: 77 })"
        );
        let default = [10, 0, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0];
        assert_eq!(
            route(&default, &[main, link]).unwrap(),
            "Route(Route { index: 5, table: 254, destination: Prefix { network: ::, length: 0 }, \
             metric: 0, protocol: 3 })"
        );
        assert_eq!(route(&default, &[main, metric, gateway, link]), None);
        let elsewhere = route(&host, &[other_table, to, metric, link]).unwrap();
        assert!(elsewhere.contains("table: 7,"), "{elsewhere}");
        assert_eq!(route(&host, &[main, to, metric]), None, "no interface");
        for (place, value, what) in [
            (0, 2, "IPv4"),
            (1, 129, "no prefix"),
            (2, 48, "of one source"),
            (7, 2, "of this host"),
            (9, 2, "of the cache"),
        ] {
            let mut header = host;
            header[place] = value;
            assert_eq!(route(&header, &[main, to, metric, link]), None, "{what}");
        }
    }

    #[test]
    fn an_entry_to_answer_by_tells_who_made_it() {
        let header = [10, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0x88, 1];
        let to: &[u8] = &[
            20, 0, 1, 0, 0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10,
        ];
        for (attributes, protocol) in [(&[to, &[5, 0, 12, 0, 77, 0, 0, 0]][..], 77), (&[to], 0)] {
            let octets = message(libc::RTM_NEWNEIGH, &header, attributes);
            let expected = format!(
                "ProxiedNeighbor {{ index: 3, address: 2001:db8::a, protocol: {protocol} }}"
            );
            assert_eq!(told(&octets), [expected]);
        }
    }
}
