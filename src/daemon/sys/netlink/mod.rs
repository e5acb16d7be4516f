//! The kernel's links, addresses, neighbors and routes by rtnetlink: changes as they happen, and
//! dumps on request.

mod decode;
mod filter;
pub mod gateways;
pub mod message;
pub mod multicast_rules;
pub mod siblings;
pub mod streams;
pub mod tables;

use std::net::Ipv6Addr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};
use protocol::link::Prefix;

use super::ffi;
use decode::{IFLA_BR_MCAST_ROUTER, IFLA_INFO_DATA, IFLA_INFO_KIND, notice};
use filter::FILTER;
use message::{
    ADDRESS_HEADER, LINK_HEADER, NEIGHBOR_FLAGS, NEIGHBOR_HEADER, ROUTE_HEADER, Request, messages,
};
use siblings::{Number, Told};

/// A socket that hears of every change of a link or IPv6 address, and of neighbors that the kernel
/// forgets.
pub struct Netlink {
    socket: OwnedFd,
    reader: Reader,
    /// The number of this instance.
    number: Number,
}

/// Takes datagrams apart, whatever is in them, and follows the dump under way.
#[derive(Default)]
pub struct Reader {
    /// The dump under way. The kernel makes one at a time.
    dump: Option<Dump>,
    /// The kernel reported a change in the middle of the dump.
    inconsistent: bool,
}

/// What the kernel can list. Each dump in this order is followed by the ones after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dump {
    Links,
    Addresses,
    Neighbors,
    /// The proxy entries. They can be listed without the dumps before.
    ProxiedNeighbors,
    /// The routes without a gateway. They can be listed without the dumps before, and only dumps
    /// tell of them.
    Routes,
}

/// Something that the kernel told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice<'a> {
    /// A link is there. It may be new, changed, or as before.
    Link(Link<'a>),
    LinkDeleted {
        index: u32,
    },
    /// This host has an IPv6 address.
    Address(Address),
    AddressDeleted {
        index: u32,
        address: Ipv6Addr,
    },
    /// The neighbor cache has a usable entry.
    Neighbor {
        index: u32,
        address: Ipv6Addr,
        /// All zero on a link without such addresses.
        mac: [u8; 6],
    },
    NeighborDeleted {
        index: u32,
        address: Ipv6Addr,
    },
    /// The kernel answers on a link for an address behind another one.
    ProxiedNeighbor {
        index: u32,
        address: Ipv6Addr,
        /// The mark of the program that made the entry; 0 if it left none, or if the kernel does
        /// not tell.
        protocol: u8,
    },
    Route(Route),
    /// One of this program's routes was removed, by whatever program.
    RouteDeleted(Route),
    /// Another instance of this program sent a message.
    Sibling(Told<'a>),
    /// A [requested](Netlink::request) dump has ended.
    Dumped(Dump),
    /// Changes or a dump were lost. Everything has to be dumped anew.
    Lost,
    /// The kernel refused a [setting](Netlink::set_multicast_router).
    Refused(Errno),
}

/// A link, as far as a message describes it. The kernel leaves out what a message is not about, so
/// what is `None` has not changed. Wireless extensions send only the name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link<'a> {
    pub index: u32,
    /// The message is part of a dump, and describes the whole link: what is `None` is not there.
    pub whole: bool,
    pub name: Option<&'a str>,
    pub mtu: Option<u32>,
    /// The link was set up (`IFF_UP`).
    pub up: bool,
    /// The link has a carrier (`IFF_RUNNING`).
    pub running: bool,
    /// All zero if the link's addresses have another length.
    pub mac: Option<[u8; 6]>,
    pub bridge: Option<Bridge>,
    pub master: Option<Master>,
    /// The number of the link in this network namespace that a VLAN's or macvlan's packets go
    /// through.
    pub lower: Option<u32>,
    /// The number of the VLAN.
    pub vlan: Option<u16>,
}

/// The bridge, bond, VRF or other interface that a link is a part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Master {
    pub index: u32,
    /// The routing table of a VRF, which leaves the packets to the link; `None` for any other kind.
    pub table: Option<u32>,
}

/// How a bridge treats multicast.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bridge {
    /// It forwards a group only to its members.
    pub snooping: bool,
    /// It snoops by the settings of each VLAN (`mcast_vlan_snooping`), and its own `mcast_router`
    /// has no effect.
    pub vlan_snooping: bool,
    /// It sends queries of its own (`mcast_querier`), by MLDv1 (`mcast_mld_version`).
    pub queries_by_mldv1: bool,
    /// `mcast_router`. With [`PERMANENT_ROUTER`] the bridge forwards all multicast to this host.
    pub multicast_router: u8,
}

/// A multicast router is always behind this port.
pub const PERMANENT_ROUTER: u8 = 2;

/// An address of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    pub index: u32,
    pub address: Ipv6Addr,
    pub prefix_length: u8,
    /// It is neither tentative nor a duplicate.
    pub usable: bool,
}

/// A unicast route without a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    pub index: u32,
    /// The number of the routing table.
    pub table: u32,
    pub destination: Prefix,
    pub metric: u32,
    /// The mark of the program that made the route (`rtm_protocol`).
    pub protocol: u8,
}

/// The octets of the largest message seen in a dump of links, and more.
pub const BUFFER_LENGTH: usize = 16_384;

impl Netlink {
    pub fn open() -> nix::Result<Self> {
        let groups = libc::RTMGRP_LINK | libc::RTMGRP_IPV6_IFADDR | libc::RTMGRP_NEIGH;
        let socket = open()?;
        let any = NetlinkAddr::new(0, groups.cast_unsigned());
        bind(socket.as_raw_fd(), &any)?;
        Ok(Self::with(socket, Number::default()))
    }

    /// Opens a socket on the port of an instance's [number](Self::number), unless all of these are
    /// taken. It hears only the other instances, and of this program's routes that are removed.
    pub fn open_as_instance() -> nix::Result<Self> {
        let socket = open()?;
        for number in Number::all() {
            let port = NetlinkAddr::new(number.port(), RTMGRP_IPV6_ROUTE);
            match bind(socket.as_raw_fd(), &port) {
                Err(Errno::EADDRINUSE) => {}
                bound => return bound.map(|()| Self::with(socket, number)),
            }
        }
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, RTMGRP_IPV6_ROUTE))?;
        Ok(Self::with(socket, Number::LAST))
    }

    fn with(socket: OwnedFd, number: Number) -> Self {
        Netlink {
            socket,
            reader: Reader::default(),
            number,
        }
    }

    pub fn number(&self) -> Number {
        self.number
    }

    /// Whether a dump is under way.
    pub fn is_dumping(&self) -> bool {
        self.reader.dump.is_some()
    }

    /// Requests a dump. [`Notice::Dumped`] or [`Notice::Lost`] marks its end. Fails with `EBUSY`
    /// while another one is under way.
    pub fn request(&mut self, dump: Dump) -> nix::Result<()> {
        if self.reader.dump.is_some() {
            return Err(Errno::EBUSY);
        }
        let (message_type, family, header_length) = match dump {
            Dump::Links => (libc::RTM_GETLINK, libc::AF_UNSPEC, LINK_HEADER),
            Dump::Addresses => (libc::RTM_GETADDR, libc::AF_INET6, ADDRESS_HEADER),
            Dump::Neighbors | Dump::ProxiedNeighbors => {
                (libc::RTM_GETNEIGH, libc::AF_INET6, NEIGHBOR_HEADER)
            }
            Dump::Routes => (libc::RTM_GETROUTE, libc::AF_INET6, ROUTE_HEADER),
        };
        let mut header = [0; LINK_HEADER];
        header[0] = family as u8;
        if dump == Dump::ProxiedNeighbors {
            header[NEIGHBOR_FLAGS] = libc::NTF_PROXY;
        }
        let header = &header[..header_length];
        Request::new(message_type, libc::NLM_F_DUMP, header).send(&self.socket, DUMP_SEQUENCE)?;
        self.reader.begin(dump);
        Ok(())
    }

    /// Sets a bridge's `mcast_router`, which takes `CAP_NET_ADMIN`. [`Notice::Refused`] reports a
    /// failure.
    pub fn set_multicast_router(&self, index: u32, value: u8) -> nix::Result<()> {
        let mut header = [0; LINK_HEADER];
        header[4..8].copy_from_slice(&index.to_ne_bytes());
        let mut request = Request::new(libc::RTM_NEWLINK, 0, &header);
        let link_info = request.open(libc::IFLA_LINKINFO);
        request.attribute(IFLA_INFO_KIND, b"bridge\0");
        let data = request.open(IFLA_INFO_DATA);
        request.attribute(IFLA_BR_MCAST_ROUTER, &[value]);
        request.close(data);
        request.close(link_info);
        request.send(&self.socket, SETTING_SEQUENCE)
    }

    /// Reads one datagram and hands on what it says. Returns false if there is none now. Other
    /// processes with `CAP_NET_ADMIN` may send datagrams as well; they could change the links
    /// themselves.
    pub fn receive(
        &mut self,
        buffer: &mut [u8],
        told: &mut dyn FnMut(Notice<'_>),
    ) -> nix::Result<bool> {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
        let length = match recv(self.socket.as_raw_fd(), buffer, flags) {
            Ok(length) => length,
            Err(Errno::EAGAIN) => return Ok(false),
            Err(Errno::EINTR) => return Ok(true),
            // The socket's buffer overflowed.
            Err(Errno::ENOBUFS) => {
                told(Notice::Lost);
                return Ok(true);
            }
            Err(errno) => return Err(errno),
        };
        match buffer.get(..length) {
            Some(datagram) => self.reader.read(datagram, told),
            None => told(Notice::Lost),
        }
        Ok(true)
    }
}

impl Reader {
    /// A dump was requested.
    pub fn begin(&mut self, dump: Dump) {
        self.dump = Some(dump);
        self.inconsistent = false;
    }

    /// Hands on what a datagram says.
    pub fn read(&mut self, datagram: &[u8], told: &mut dyn FnMut(Notice<'_>)) {
        for message in messages(datagram) {
            self.inconsistent |= message.flags & NLM_F_DUMP_INTR != 0;
            match i32::from(message.message_type) {
                libc::NLMSG_ERROR if message.sequence == SETTING_SEQUENCE => {
                    if let Err(errno) = message.result() {
                        told(Notice::Refused(errno));
                    }
                }
                libc::NLMSG_DONE | libc::NLMSG_ERROR => {
                    let ended = self.dump.take();
                    let failed = i32::from(message.message_type) == libc::NLMSG_ERROR;
                    match ended {
                        Some(dump) if !failed && !self.inconsistent => told(Notice::Dumped(dump)),
                        _ => told(Notice::Lost),
                    }
                }
                _ => {
                    if let Some(notice) = notice(&message) {
                        told(notice);
                    }
                }
            }
        }
    }
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn open() -> nix::Result<OwnedFd> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        SockProtocol::NetlinkRoute,
    )?;
    ffi::attach_filter(socket.as_fd(), &FILTER)?;
    Ok(socket)
}

/// linux/rtnetlink.h
const RTMGRP_IPV6_ROUTE: u32 = 0x400;

const DUMP_SEQUENCE: u32 = 1;
const SETTING_SEQUENCE: u32 = 2;

/// `NLM_F_DUMP_INTR` of linux/netlink.h.
const NLM_F_DUMP_INTR: u16 = 0x10;

#[cfg(test)]
mod tests {
    use super::message::MESSAGE_HEADER;
    use super::*;

    fn told(reader: &mut Reader, datagram: &[u8]) -> Vec<String> {
        let mut notices = Vec::new();
        reader.read(datagram, &mut |notice| notices.push(format!("{notice:?}")));
        notices
    }

    fn dump(which: Dump) -> Vec<String> {
        let mut netlink = Netlink::open().unwrap();
        netlink.request(which).unwrap();
        assert_eq!(netlink.request(which), Err(Errno::EBUSY));
        let mut notices = Vec::new();
        let mut ended = false;
        while !ended {
            let _ = netlink.receive(&mut [0; BUFFER_LENGTH], &mut |notice| {
                ended |= matches!(notice, Notice::Dumped(_) | Notice::Lost);
                notices.push(format!("{notice:?}"));
            });
        }
        notices
    }

    #[test]
    fn the_kernel_dumps_its_links_and_addresses() {
        let links = dump(Dump::Links);
        let lo = "Link(Link { index: 1, whole: true, name: Some(\"lo\"), mtu: Some(65536)";
        assert!(
            links.iter().any(|notice| notice.starts_with(lo)),
            "{links:?}"
        );
        assert_eq!(links.last().unwrap(), "Dumped(Links)");
        assert_eq!(dump(Dump::Addresses).last().unwrap(), "Dumped(Addresses)");
        assert_eq!(dump(Dump::Neighbors).last().unwrap(), "Dumped(Neighbors)");
        let proxied = dump(Dump::ProxiedNeighbors);
        assert_eq!(proxied.last().unwrap(), "Dumped(ProxiedNeighbors)");
        assert_eq!(dump(Dump::Routes).last().unwrap(), "Dumped(Routes)");
    }

    #[test]
    fn whatever_the_octets_nothing_panics() {
        let mut reader = Reader::default();
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..20_000 {
            let mut datagram: Vec<u8> = (0..random.usize(..96)).map(|_| random.u8(..)).collect();
            // Half of them look like a message of interest.
            if datagram.len() >= 8 && random.bool() {
                let length = random.u32(..=datagram.len() as u32);
                datagram[..4].copy_from_slice(&length.to_ne_bytes());
                let message_type = random.u16(16..30).to_ne_bytes();
                datagram[4..6].copy_from_slice(&message_type);
            }
            told(&mut reader, &datagram);
        }
    }

    #[test]
    fn an_interrupted_or_refused_dump_is_lost() {
        let done = |flags: u16, message_type: u16| {
            let mut message = [0; MESSAGE_HEADER];
            message[..4].copy_from_slice(&(MESSAGE_HEADER as u32).to_ne_bytes());
            message[4..6].copy_from_slice(&message_type.to_ne_bytes());
            message[6..8].copy_from_slice(&flags.to_ne_bytes());
            message
        };
        let mut reader = Reader::default();
        for (flags, message_type, expected) in [
            (0, libc::NLMSG_DONE, "Dumped(Links)"),
            (NLM_F_DUMP_INTR, libc::NLMSG_DONE, "Lost"),
            (0, libc::NLMSG_ERROR, "Lost"),
        ] {
            reader.begin(Dump::Links);
            let datagram = done(flags, message_type as u16);
            assert_eq!(told(&mut reader, &datagram), [expected]);
        }
    }
}
