//! The kernel's links, addresses, neighbors and routes, by rtnetlink: told as they change, and dumped on request.

mod message;
pub mod siblings;
pub mod tables;

use std::net::Ipv6Addr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};
use protocol::link::Prefix;
use protocol::time::Duration;

use super::readiness::wait_until;
use super::{clock, ffi};
use message::{
    ADDRESS_HEADER, LINK_HEADER, MESSAGE_HEADER, Message, NDA_PROTOCOL, NEIGHBOR_FLAGS,
    NEIGHBOR_HEADER, ROUTE_HEADER, Request, attributes, messages, u16_at, u32_at,
};
use siblings::{LINKS, Needs, Number, Siblings, Told};

/// A socket that hears of every change of a link or IPv6 address, and of neighbors that are forgotten.
pub struct Netlink {
    socket: OwnedFd,
    reader: Reader,
    /// Of this instance.
    number: Number,
}

/// Takes datagrams apart, whatever is in them, and follows the dump that they are a part of.
#[derive(Default)]
pub struct Reader {
    /// The dump under way; the kernel makes one at a time.
    dump: Option<Dump>,
    /// The kernel said that what it dumps changed meanwhile.
    inconsistent: bool,
}

/// What can be asked for as a whole. An earlier one brings the later ones with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dump {
    Links,
    Addresses,
    Neighbors,
    /// What the kernel answers solicitations for, in the place of others. Asked for alone.
    ProxiedNeighbors,
    /// The routes that have no gateway. Asked for alone, and told of by dumps alone.
    Routes,
}

/// Something the kernel told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice<'a> {
    /// A link is there, new or changed or as before.
    Link(Link<'a>),
    LinkDeleted {
        index: u32,
    },
    /// An IPv6 address of this host is there.
    Address(Address),
    AddressDeleted {
        index: u32,
        address: Ipv6Addr,
    },
    /// The neighbour table has a usable entry.
    Neighbor {
        index: u32,
        address: Ipv6Addr,
        /// All zero where the link has no such addresses.
        mac: [u8; 6],
    },
    NeighborDeleted {
        index: u32,
        address: Ipv6Addr,
    },
    /// The kernel answers on a link for a neighbor behind another one.
    ProxiedNeighbor {
        index: u32,
        address: Ipv6Addr,
        /// Which program made the entry; 0 where that did not say, or the kernel does not.
        protocol: u8,
    },
    Route(Route),
    /// One of this program's routes was removed, whoever did it.
    RouteDeleted(Route),
    /// Another instance of this program told something.
    Sibling(Told<'a>),
    /// All of a dump that was [requested](Netlink::request) has been told.
    Dumped(Dump),
    /// Changes or a dump were lost: all is to be dumped anew.
    Lost,
    /// A [setting](Netlink::set_multicast_router) was refused.
    Refused(Errno),
}

/// A link, as far as a message told of it. What is `None` was not told: it has not changed, since
/// the kernel leaves out what a message is not about. Wireless extensions send no more than the
/// name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link<'a> {
    pub index: u32,
    /// It was told as one of all links, with all that it has: what is `None` is not there.
    pub whole: bool,
    pub name: Option<&'a str>,
    pub mtu: Option<u32>,
    /// It was set up (`IFF_UP`).
    pub up: bool,
    /// It has a carrier (`IFF_RUNNING`).
    pub running: bool,
    /// All zero where the link has addresses of another length.
    pub mac: Option<[u8; 6]>,
    pub bridge: Option<Bridge>,
    pub master: Option<Master>,
    /// The number of the link of this network namespace that a VLAN's or macvlan's packets go
    /// through.
    pub lower: Option<u32>,
    /// The number of the VLAN whose frames it takes.
    pub vlan: Option<u16>,
}

/// The bridge, bond, VRF or other interface that a link is a part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Master {
    pub index: u32,
    /// The routing table, where it is a VRF, which leaves the packets to the link.
    pub table: Option<u32>,
}

/// How a bridge treats multicast.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bridge {
    /// It forwards groups only where a member is.
    pub snooping: bool,
    /// It does so by the settings of each VLAN (`mcast_vlan_snooping`), and its own `mcast_router`
    /// does nothing.
    pub vlan_snooping: bool,
    /// `mcast_router`: [`PERMANENT_ROUTER`] where it hands all multicast to this host.
    pub multicast_router: u8,
}

/// A multicast router is behind this port, for good.
pub const PERMANENT_ROUTER: u8 = 2;

/// An address of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    pub index: u32,
    pub address: Ipv6Addr,
    pub prefix_length: u8,
    /// Neither tentative nor a duplicate.
    pub usable: bool,
}

/// A unicast route to what is on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    pub index: u32,
    /// The number of the routing table.
    pub table: u32,
    pub destination: Prefix,
    pub metric: u32,
    /// Which program made the route (`rtm_protocol`).
    pub protocol: u8,
}

/// Of a message, enough for the largest that a dump of links has been seen to hold.
pub const BUFFER_LENGTH: usize = 16_384;

impl Netlink {
    pub fn open() -> nix::Result<Self> {
        let groups = libc::RTMGRP_LINK | libc::RTMGRP_IPV6_IFADDR | libc::RTMGRP_NEIGH;
        let socket = open()?;
        let any = NetlinkAddr::new(0, groups.cast_unsigned());
        bind(socket.as_raw_fd(), &any)?;
        Ok(Self::with(socket, Number::default()))
    }

    /// One that has the port of an instance's [number](Self::number), unless all are taken. It hears of nothing but what other
    /// instances tell, and of this program's routes that are removed.
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

    /// Has the other instances hold on to what they want of what this one, or one that is gone, has in the kernel's tables. Waits for
    /// them, though not for long; what they need. `needs` is told to one that asks the same meanwhile. Other news is lost; to be
    /// called before the first listing, or at the end.
    pub fn ask_siblings(&mut self, needs: &Needs, buffer: &mut [u8]) -> Siblings {
        let mut siblings = Siblings::none();
        for number in Number::all().filter(|number| *number != self.number) {
            match self.tell(number, siblings::HOLD, &[]) {
                // One that has no room for it is stopped, or busy.
                Ok(()) | Err(Errno::EAGAIN) => siblings.note(number, None),
                Err(_) => {}
            }
        }
        let deadline = clock::now().saturating_add(PATIENCE);
        while siblings.is_awaited() && wait_until(self.as_fd(), deadline) {
            let mut asked = None;
            let received = self.receive(buffer, &mut |notice| match notice {
                Notice::Sibling(Told::Held { from, needs }) => {
                    siblings.note(from, Needs::read(needs));
                }
                Notice::Sibling(Told::Hold { from }) => asked = Some(from),
                _ => {}
            });
            if received.is_err() {
                break;
            }
            if let Some(from) = asked {
                self.answer_sibling(from, needs);
            }
        }
        siblings
    }

    /// What was asked for by [`Told::Hold`] is done.
    pub fn answer_sibling(&self, from: Number, needs: &Needs) {
        let mut body = [0; 4 * (1 + LINKS)];
        let words = [u32::from(needs.proxies)];
        let words = words.iter().chain(&needs.links);
        for (octets, word) in body.chunks_exact_mut(4).zip(words) {
            octets.copy_from_slice(&word.to_ne_bytes());
        }
        // Who is gone by now needs no answer, and who has no room for it does not wait for long.
        let _ = self.tell(from, siblings::HELD, &body);
    }

    /// Tells those that are there that a proxy entry was removed.
    pub fn tell_removed(&self, siblings: &mut Siblings, index: u32, address: Ipv6Addr) {
        let mut body = [0; 20];
        body[..4].copy_from_slice(&index.to_ne_bytes());
        body[4..].copy_from_slice(&address.octets());
        for number in Number::all() {
            if siblings.is_there(number)
                && self.tell(number, siblings::REMOVED, &body) == Err(Errno::ECONNREFUSED)
            {
                siblings.is_gone(number);
            }
        }
    }

    fn tell(&self, number: Number, message_type: u16, body: &[u8]) -> nix::Result<()> {
        let from = self.number.port() - Number::default().port();
        Request::new(message_type, 0, body).send_to(&self.socket, number.port(), from)
    }

    /// Is a dump under way?
    pub fn is_dumping(&self) -> bool {
        self.reader.dump.is_some()
    }

    /// Asks for a dump; its end is told by [`Notice::Dumped`] or [`Notice::Lost`]. `EBUSY` while another one is under way.
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

    /// Sets a bridge's `mcast_router`; needs `CAP_NET_ADMIN`. [`Notice::Refused`] tells where it failed.
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

    /// Reads one datagram and hands on what it tells; false where there is none now. Other
    /// processes may send some as well: with `CAP_NET_ADMIN`, by which they could change the links
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
            // The kernel had more to tell than the socket could hold.
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
    /// A dump was asked for.
    pub fn begin(&mut self, dump: Dump) {
        self.dump = Some(dump);
        self.inconsistent = false;
    }

    /// Hands on what a datagram tells.
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

/// How long the other instances may take to answer. One that is stopped never does.
const PATIENCE: Duration = Duration::from_secs(1);
/// linux/rtnetlink.h
const RTMGRP_IPV6_ROUTE: u32 = 0x400;

const DUMP_SEQUENCE: u32 = 1;
const SETTING_SEQUENCE: u32 = 2;

// linux/if_link.h.
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const IFLA_BR_MCAST_ROUTER: u16 = 22;
const IFLA_BR_MCAST_SNOOPING: u16 = 23;
const IFLA_BR_MULTI_BOOLOPT: u16 = 46;
const IFLA_VLAN_ID: u16 = 1;
const IFLA_VRF_PORT_TABLE: u16 = 1;
/// Of linux/if_bridge.h: the bit of `struct br_boolopt_multi`, whose values come first.
const BR_BOOLOPT_MCAST_VLAN_SNOOPING: u32 = 1;

/// `NUD_REACHABLE | NUD_STALE | NUD_DELAY | NUD_PROBE | NUD_PERMANENT` of linux/neighbour.h: the neighbor was there.
const USABLE: u16 = 0x02 | 0x04 | 0x08 | 0x10 | 0x80;

/// Drops news of a neighbor's state, which changes all the time, and of routes that are made, but for
/// those that a dump asked for; of routes that are removed all but this program's; news of neighbors
/// that are not IPv6's, which are ARP's and the stations behind a bridge's ports; and what a bridge
/// tells of its ports.
const FILTER: [libc::sock_filter; 16] = {
    const fn instruction(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
        let code = code as u16;
        libc::sock_filter { code, jt, jf, k }
    }
    // BPF reads big-endian what netlink writes in this machine's order.
    const fn as_read(value: u16) -> u32 {
        u16::from_be_bytes(value.to_ne_bytes()) as u32
    }
    use libc::{BPF_ABS, BPF_B, BPF_H, BPF_JEQ, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_RET};
    const EQUAL: u32 = BPF_JMP | BPF_JEQ | BPF_K;
    const PROTOCOL: u32 = tables::PROTOCOL as u32;
    /// `rtm_protocol`
    const PROTOCOL_AT: u32 = MESSAGE_HEADER as u32 + 5;
    let multi = libc::NLM_F_MULTI as u16;
    [
        instruction(BPF_LD | BPF_H | BPF_ABS, 4, 0, 0),
        instruction(EQUAL, as_read(libc::RTM_NEWNEIGH), 5, 0),
        instruction(EQUAL, as_read(libc::RTM_NEWROUTE), 4, 0),
        instruction(EQUAL, as_read(libc::RTM_DELROUTE), 5, 0),
        instruction(EQUAL, as_read(libc::RTM_DELNEIGH), 6, 0),
        instruction(EQUAL, as_read(libc::RTM_NEWLINK), 5, 0),
        instruction(EQUAL, as_read(libc::RTM_DELLINK), 4, 7),
        instruction(BPF_LD | BPF_H | BPF_ABS, 6, 0, 0),
        instruction(BPF_JMP | BPF_JSET | BPF_K, as_read(multi), 5, 6),
        instruction(BPF_LD | BPF_B | BPF_ABS, PROTOCOL_AT, 0, 0),
        instruction(EQUAL, PROTOCOL, 3, 4),
        // The family is the first octet of either header.
        instruction(BPF_LD | BPF_B | BPF_ABS, MESSAGE_HEADER as u32, 0, 0),
        instruction(EQUAL, libc::AF_UNSPEC as u32, 1, 0),
        instruction(EQUAL, libc::AF_INET6 as u32, 0, 1),
        instruction(BPF_RET | BPF_K, u32::MAX, 0, 0),
        instruction(BPF_RET | BPF_K, 0, 0, 0),
    ]
};

/// `NLM_F_DUMP_INTR` of linux/netlink.h.
const NLM_F_DUMP_INTR: u16 = 0x10;

fn notice<'a>(message: &Message<'a>) -> Option<Notice<'a>> {
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
    // A bridge tells of its ports by messages of its own family, which also say "deleted" where a port only left the bridge.
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
            // No interface that the user named is called otherwise.
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

/// Does what the link hears come through the one that it names?
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

/// That of the VRF which the link is a part of.
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
    // Those come with any data of a bridge.
    let (mut router, mut snooping, mut vlan_snooping) = (None, None, false);
    for (kind, value) in attributes(data) {
        match (kind, value) {
            (IFLA_BR_MCAST_ROUTER, [value]) => router = Some(*value),
            (IFLA_BR_MCAST_SNOOPING, [value]) => snooping = Some(*value != 0),
            (IFLA_BR_MULTI_BOOLOPT, value) => {
                vlan_snooping = u32_at(value, 0)? & 1 << BR_BOOLOPT_MCAST_VLAN_SNOOPING != 0;
            }
            _ => {}
        }
    }
    Some(Bridge {
        snooping: snooping?,
        vlan_snooping,
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
        // Not for all packets to the destination.
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

#[cfg(test)]
mod tests {
    use nix::sys::socket::{send, socketpair};

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
            // Make half of them look like a message of interest.
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
    fn the_filter_drops_what_is_of_no_concern_and_nothing_else() {
        let flags = SockFlag::empty();
        let kind = SockType::Datagram;
        let (near, far) = socketpair(AddressFamily::Unix, kind, None, flags).unwrap();
        ffi::attach_filter(far.as_fd(), &FILTER).unwrap();
        let passes_of = |message_type: u16, flags: i32, family: i32, protocol: u8| {
            let mut message = [0; MESSAGE_HEADER + NEIGHBOR_HEADER];
            message[4..6].copy_from_slice(&message_type.to_ne_bytes());
            message[6..8].copy_from_slice(&(flags as u16).to_ne_bytes());
            message[MESSAGE_HEADER] = family as u8;
            message[MESSAGE_HEADER + 5] = protocol;
            let _ = send(near.as_raw_fd(), &message, MsgFlags::empty());
            recv(far.as_raw_fd(), &mut [0; 64], MsgFlags::MSG_DONTWAIT).is_ok()
        };
        let passes = |message_type, flags, family| passes_of(message_type, flags, family, 0);
        let families = [libc::AF_UNSPEC, libc::AF_INET, libc::AF_BRIDGE];
        let of = |message_type, flags| {
            let passes = |family| passes(message_type, flags, family);
            (passes(libc::AF_INET6), families.map(passes))
        };
        let (all, none) = ([true; 3], [false; 3]);
        let unspecified = [true, false, false];
        assert_eq!(of(libc::RTM_NEWNEIGH, 0), (false, none));
        assert_eq!(of(libc::RTM_NEWNEIGH, libc::NLM_F_MULTI), (true, all));
        assert_eq!(of(libc::RTM_DELNEIGH, 0), (true, unspecified));
        assert_eq!(of(libc::RTM_NEWLINK, 0), (true, unspecified));
        assert_eq!(of(libc::RTM_DELLINK, 0), (true, unspecified));
        assert_eq!(of(libc::RTM_NEWROUTE, 0), (false, none));
        assert_eq!(of(libc::RTM_NEWROUTE, libc::NLM_F_MULTI), (true, all));
        assert_eq!(of(libc::RTM_DELROUTE, 0), (false, none));
        let own = tables::PROTOCOL;
        assert!(passes_of(libc::RTM_DELROUTE, 0, libc::AF_INET6, own));
        for other in [libc::RTM_NEWADDR, libc::NLMSG_DONE as u16] {
            assert_eq!(of(other, 0), (true, all));
        }
    }

    /// The headers of a message that the kernel told, and its attributes.
    #[cfg(target_endian = "little")]
    fn message(message_type: u16, header: &[u8], attributes: &[&[u8]]) -> Vec<u8> {
        let mut octets = vec![0; MESSAGE_HEADER];
        octets[4..6].copy_from_slice(&message_type.to_ne_bytes());
        octets.extend(header);
        octets.extend(attributes.concat());
        let length = octets.len() as u32;
        octets[..4].copy_from_slice(&length.to_ne_bytes());
        octets
    }

    #[cfg(target_endian = "little")]
    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = 4 + value.len() as u16;
        let mut octets = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        octets.extend(value);
        octets.resize(octets.len().next_multiple_of(4), 0);
        octets
    }

    /// What is told of the running link number 3 that has these attributes.
    #[cfg(target_endian = "little")]
    fn link_with(attributes: &[Vec<u8>]) -> String {
        let header = [0, 0, 1, 0, 3, 0, 0, 0, 0x41, 0, 0, 0, 0, 0, 0, 0];
        let octets = message(libc::RTM_NEWLINK, &header, &[&attributes.concat()]);
        told(&mut Reader::default(), &octets).concat()
    }

    #[cfg(target_endian = "little")]
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

    // As drivers/net/vrf.c and net/core/rtnetlink.c of the kernel write it.
    #[cfg(target_endian = "little")]
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

    // As net/8021q/vlan_netlink.c of the kernel writes it.
    #[cfg(target_endian = "little")]
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
        // The other end of a veth hides nothing.
        let veth = attribute(libc::IFLA_LINKINFO, &attribute(IFLA_INFO_KIND, b"veth\0"));
        assert!(link_with(&[lower, veth]).contains("lower: None"));
    }

    // As net/bridge/br_netlink.c of the kernel writes it.
    #[cfg(target_endian = "little")]
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
            let expected = format!(
                "Bridge {{ snooping: true, vlan_snooping: {by_vlan}, multicast_router: 1 }}"
            );
            assert!(told.contains(&expected), "{told}");
        }
        assert!(bridge(&[options(2)]).contains("bridge: None"), "not told");
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn a_neighbor_whose_link_layer_address_is_not_told_is_none() {
        let header = [10, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 1];
        let to = attribute(libc::NDA_DST, &[0x20; 16]);
        let mac = attribute(libc::NDA_LLADDR, &[2, 0, 0, 0, 0, 1]);
        let neighbor = |attributes: &[&[u8]]| {
            let octets = message(libc::RTM_NEWNEIGH, &header, attributes);
            told(&mut Reader::default(), &octets).len()
        };
        assert_eq!(neighbor(&[&to, &mac]), 1);
        assert_eq!(neighbor(&[&to]), 0);
        assert_eq!(neighbor(&[&mac]), 0);
    }

    // In the order of octets of the machine that it was seen on.
    #[cfg(target_endian = "little")]
    #[test]
    fn routes_to_what_is_on_a_link_are_told_of() {
        let mut reader = Reader::default();
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
        let mut route = |header: &[u8], attributes: &[&[u8]]| {
            let octets = message(libc::RTM_NEWROUTE, header, attributes);
            told(&mut reader, &octets).pop()
        };
        assert_eq!(
            route(&host, &[main, to, metric, link]).unwrap(),
            "Route(Route { index: 5, table: 254, destination: Prefix { network: 2001:db8::a, length: 128 }, metric: 1024, protocol: 77 })"
        );
        let default = [10, 0, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0];
        assert_eq!(
            route(&default, &[main, link]).unwrap(),
            "Route(Route { index: 5, table: 254, destination: Prefix { network: ::, length: 0 }, metric: 0, protocol: 3 })"
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

    #[cfg(target_endian = "little")]
    #[test]
    fn an_entry_to_answer_by_tells_who_made_it() {
        let mut reader = Reader::default();
        let header = [10, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0x88, 1];
        let to: &[u8] = &[
            20, 0, 1, 0, 0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10,
        ];
        for (attributes, protocol) in [(&[to, &[5, 0, 12, 0, 77, 0, 0, 0]][..], 77), (&[to], 0)] {
            let octets = message(libc::RTM_NEWNEIGH, &header, attributes);
            let expected = format!(
                "ProxiedNeighbor {{ index: 3, address: 2001:db8::a, protocol: {protocol} }}"
            );
            assert_eq!(told(&mut reader, &octets), [expected]);
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
