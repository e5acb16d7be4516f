//! The kernel's links, addresses and neighbors, by rtnetlink: told as they change, and dumped on request.

use std::net::Ipv6Addr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
    socket,
};

use super::ffi;

/// A socket that hears of every change of a link or IPv6 address, and of neighbors that are forgotten.
pub struct Netlink {
    socket: OwnedFd,
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
        /// Who made it so: [`OWN_PROTOCOL`], or 0 where that was not said.
        protocol: u8,
    },
    /// All of a dump that was [requested](Netlink::request) has been told.
    Dumped(Dump),
    /// Changes or a dump were lost: all is to be dumped anew.
    Lost,
    /// A [setting](Netlink::set_multicast_router) was refused.
    Refused(Errno),
}

/// A link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link<'a> {
    pub index: u32,
    pub name: &'a str,
    pub mtu: u32,
    /// It has a carrier (`IFF_RUNNING`).
    pub running: bool,
    /// All zero where the link has no such addresses.
    pub mac: [u8; 6],
    pub bridge: Option<Bridge>,
    /// The number of the bridge, bond or other interface that it is a part of.
    pub master: Option<u32>,
}

/// How a bridge treats multicast.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bridge {
    /// It forwards groups only where a member is.
    pub snooping: bool,
    /// `mcast_router`: [`PERMANENT_ROUTER`] where it hands all multicast to this host.
    pub multicast_router: u8,
}

/// A multicast router is behind this port, for good.
pub const PERMANENT_ROUTER: u8 = 2;

/// The protocol number that marks what mldproxy put into the kernel's tables: one that linux/rtnetlink.h gives to nobody.
pub const OWN_PROTOCOL: u8 = 77;

/// An address of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    pub index: u32,
    pub address: Ipv6Addr,
    pub prefix_length: u8,
    /// Neither tentative nor a duplicate.
    pub usable: bool,
}

/// Of a message, enough for the largest that a dump of links has been seen to hold.
pub const BUFFER_LENGTH: usize = 16_384;

impl Netlink {
    pub fn open() -> nix::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::NetlinkRoute,
        )?;
        let groups = libc::RTMGRP_LINK | libc::RTMGRP_IPV6_IFADDR | libc::RTMGRP_NEIGH;
        ffi::attach_filter(socket.as_fd(), &FILTER)?;
        bind(
            socket.as_raw_fd(),
            &NetlinkAddr::new(0, groups.cast_unsigned()),
        )?;
        Ok(Netlink {
            socket,
            dump: None,
            inconsistent: false,
        })
    }

    /// Asks for a dump; its end is told by [`Notice::Dumped`] or [`Notice::Lost`]. `EBUSY` while another one is under way.
    pub fn request(&mut self, dump: Dump) -> nix::Result<()> {
        if self.dump.is_some() {
            return Err(Errno::EBUSY);
        }
        let (message_type, family, body_length) = match dump {
            Dump::Links => (libc::RTM_GETLINK, libc::AF_UNSPEC, LINK_HEADER),
            Dump::Addresses => (libc::RTM_GETADDR, libc::AF_INET6, ADDRESS_HEADER),
            Dump::Neighbors | Dump::ProxiedNeighbors => {
                (libc::RTM_GETNEIGH, libc::AF_INET6, NEIGHBOR_HEADER)
            }
        };
        let mut body = [0; LINK_HEADER];
        body[0] = family as u8;
        if dump == Dump::ProxiedNeighbors {
            body[NEIGHBOR_FLAGS] = NTF_PROXY;
        }
        let flags = libc::NLM_F_REQUEST | libc::NLM_F_DUMP;
        self.send(message_type, flags, DUMP_SEQUENCE, &body[..body_length])?;
        self.dump = Some(dump);
        self.inconsistent = false;
        Ok(())
    }

    /// Sets a bridge's `mcast_router`; needs `CAP_NET_ADMIN`. [`Notice::Refused`] tells where it failed.
    pub fn set_multicast_router(&self, index: u32, value: u8) -> nix::Result<()> {
        // struct ifinfomsg, then IFLA_LINKINFO { IFLA_INFO_KIND, IFLA_INFO_DATA { IFLA_BR_MCAST_ROUTER } }.
        let mut body = [0; LINK_HEADER + 32];
        body[4..8].copy_from_slice(&index.to_ne_bytes());
        let attributes: [(u16, u16, &[u8]); 4] = [
            (32, libc::IFLA_LINKINFO, &[]),
            (11, IFLA_INFO_KIND, b"bridge\0\0"),
            (12, IFLA_INFO_DATA, &[]),
            (5, IFLA_BR_MCAST_ROUTER, &[value, 0, 0, 0]),
        ];
        let mut end = LINK_HEADER;
        for (length, kind, value) in attributes {
            body[end..end + 2].copy_from_slice(&length.to_ne_bytes());
            body[end + 2..end + 4].copy_from_slice(&kind.to_ne_bytes());
            body[end + 4..end + 4 + value.len()].copy_from_slice(value);
            end += 4 + value.len();
        }
        let flags = libc::NLM_F_REQUEST;
        self.send(libc::RTM_NEWLINK, flags, SETTING_SEQUENCE, &body)
    }

    fn send(&self, message_type: u16, flags: i32, sequence: u32, body: &[u8]) -> nix::Result<()> {
        let mut message = [0; MESSAGE_HEADER + LINK_HEADER + 32];
        let length = MESSAGE_HEADER + body.len();
        message[..4].copy_from_slice(&(length as u32).to_ne_bytes());
        message[4..6].copy_from_slice(&message_type.to_ne_bytes());
        message[6..8].copy_from_slice(&(flags as u16).to_ne_bytes());
        message[8..12].copy_from_slice(&sequence.to_ne_bytes());
        message[MESSAGE_HEADER..length].copy_from_slice(body);
        let socket = self.socket.as_raw_fd();
        send(socket, &message[..length], MsgFlags::empty()).map(drop)
    }

    /// Reads one datagram and hands on what it tells; false where there is none now.
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
            Some(datagram) => self.read(datagram, told),
            None => told(Notice::Lost),
        }
        Ok(true)
    }

    fn read(&mut self, datagram: &[u8], told: &mut dyn FnMut(Notice<'_>)) {
        for message in messages(datagram) {
            self.inconsistent |= message.flags & NLM_F_DUMP_INTR != 0;
            match i32::from(message.message_type) {
                libc::NLMSG_ERROR if message.sequence == SETTING_SEQUENCE => {
                    let errno = u32_at(message.body, 0).unwrap_or_default();
                    let errno = errno.cast_signed().wrapping_neg();
                    told(Notice::Refused(Errno::from_raw(errno)));
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

/// `struct nlmsghdr`, `struct ifinfomsg` and `struct ifaddrmsg`, in octets.
const MESSAGE_HEADER: usize = 16;
const LINK_HEADER: usize = 16;
const ADDRESS_HEADER: usize = 8;
const NEIGHBOR_HEADER: usize = 12;
/// Where `struct ndmsg` has its flags.
const NEIGHBOR_FLAGS: usize = 10;

const DUMP_SEQUENCE: u32 = 1;
const SETTING_SEQUENCE: u32 = 2;

// linux/if_link.h.
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_BR_MCAST_ROUTER: u16 = 22;
const IFLA_BR_MCAST_SNOOPING: u16 = 23;
const NLA_TYPE_MASK: u16 = 0x3fff;

/// `NTF_PROXY` of linux/neighbour.h.
const NTF_PROXY: u8 = 0x08;
/// `NUD_REACHABLE | NUD_STALE | NUD_DELAY | NUD_PROBE | NUD_PERMANENT` of linux/neighbour.h: the neighbor was there.
const USABLE: u16 = 0x02 | 0x04 | 0x08 | 0x10 | 0x80;
/// Of linux/neighbour.h.
const NDA_PROTOCOL: u16 = 12;

/// Drops news of a neighbor's state, which changes all the time, but for those that a dump asked for.
const FILTER: [libc::sock_filter; 6] = {
    const fn instruction(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
        let code = code as u16;
        libc::sock_filter { code, jt, jf, k }
    }
    // BPF reads big-endian what netlink writes in this machine's order.
    const fn as_read(value: u16) -> u32 {
        u16::from_be_bytes(value.to_ne_bytes()) as u32
    }
    use libc::{BPF_ABS, BPF_H, BPF_JEQ, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_RET};
    let multi = libc::NLM_F_MULTI as u16;
    [
        instruction(BPF_LD | BPF_H | BPF_ABS, 4, 0, 0),
        instruction(BPF_JMP | BPF_JEQ | BPF_K, as_read(libc::RTM_NEWNEIGH), 0, 2),
        instruction(BPF_LD | BPF_H | BPF_ABS, 6, 0, 0),
        instruction(BPF_JMP | BPF_JSET | BPF_K, as_read(multi), 0, 1),
        instruction(BPF_RET | BPF_K, u32::MAX, 0, 0),
        instruction(BPF_RET | BPF_K, 0, 0, 0),
    ]
};

/// `NLM_F_DUMP_INTR` of linux/netlink.h.
const NLM_F_DUMP_INTR: u16 = 0x10;

struct Message<'a> {
    message_type: u16,
    flags: u16,
    sequence: u32,
    body: &'a [u8],
}

/// The messages of a datagram; ends where one is malformed.
fn messages(mut rest: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32_at(rest, 0)?).ok()?;
        let message = Message {
            message_type: u16_at(rest, 4)?,
            flags: u16_at(rest, 6)?,
            sequence: u32_at(rest, 8)?,
            body: rest.get(MESSAGE_HEADER..length)?,
        };
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// The attributes behind a message's header; ends where one is malformed.
fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(rest, 0)?);
        let kind = u16_at(rest, 2)? & NLA_TYPE_MASK;
        let attribute = (kind, rest.get(4..length)?);
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(attribute)
    })
}

fn notice<'a>(message: &Message<'a>) -> Option<Notice<'a>> {
    match message.message_type {
        libc::RTM_NEWLINK | libc::RTM_DELLINK => link(message),
        libc::RTM_NEWADDR | libc::RTM_DELADDR => address(message),
        libc::RTM_NEWNEIGH | libc::RTM_DELNEIGH => neighbor(message),
        _ => None,
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
    let mut link = Link {
        index,
        running: flags & libc::IFF_RUNNING.cast_unsigned() != 0,
        ..Link::default()
    };
    for (kind, value) in attributes(message.body.get(LINK_HEADER..)?) {
        match kind {
            libc::IFLA_IFNAME => link.name = str::from_utf8(value.strip_suffix(&[0])?).ok()?,
            libc::IFLA_MTU => link.mtu = u32_at(value, 0)?,
            libc::IFLA_ADDRESS => link.mac = value.try_into().unwrap_or_default(),
            libc::IFLA_MASTER => link.master = u32_at(value, 0),
            libc::IFLA_LINKINFO => link.bridge = bridge(value),
            _ => {}
        }
    }
    Some(Notice::Link(link))
}

fn bridge(link_info: &[u8]) -> Option<Bridge> {
    let find = |wanted| attributes(link_info).find(|(kind, _)| *kind == wanted);
    let (_, name) = find(IFLA_INFO_KIND)?;
    let (_, data) = find(IFLA_INFO_DATA)?;
    if name != b"bridge\0" {
        return None;
    }
    let mut bridge = Bridge::default();
    for (kind, value) in attributes(data) {
        match (kind, value) {
            (IFLA_BR_MCAST_ROUTER, [value]) => bridge.multicast_router = *value,
            (IFLA_BR_MCAST_SNOOPING, [value]) => bridge.snooping = *value != 0,
            _ => {}
        }
    }
    Some(bridge)
}

fn neighbor(message: &Message<'_>) -> Option<Notice<'static>> {
    if i32::from(*message.body.first()?) != libc::AF_INET6 {
        return None;
    }
    let index = u32_at(message.body, 4)?;
    let state = u16_at(message.body, 8)?;
    let (mut address, mut mac, mut protocol) = (None, [0; 6], 0);
    for (kind, value) in attributes(message.body.get(NEIGHBOR_HEADER..)?) {
        match kind {
            libc::NDA_DST => address = value.first_chunk::<16>(),
            libc::NDA_LLADDR => mac = value.try_into().unwrap_or_default(),
            NDA_PROTOCOL => protocol = value.first().copied().unwrap_or_default(),
            _ => {}
        }
    }
    let address = Ipv6Addr::from(*address?);
    if message.message_type == libc::RTM_DELNEIGH {
        return Some(Notice::NeighborDeleted { index, address });
    }
    if message.body.get(NEIGHBOR_FLAGS)? & NTF_PROXY != 0 {
        return Some(Notice::ProxiedNeighbor {
            index,
            address,
            protocol,
        });
    }
    (state & USABLE != 0).then_some(Notice::Neighbor {
        index,
        address,
        mac,
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

fn u16_at(octets: &[u8], offset: usize) -> Option<u16> {
    octets
        .get(offset..)?
        .first_chunk()
        .map(|value| u16::from_ne_bytes(*value))
}

fn u32_at(octets: &[u8], offset: usize) -> Option<u32> {
    octets
        .get(offset..)?
        .first_chunk()
        .map(|value| u32::from_ne_bytes(*value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(netlink: &mut Netlink, datagram: &[u8]) -> Vec<String> {
        let mut notices = Vec::new();
        netlink.read(datagram, &mut |notice| notices.push(format!("{notice:?}")));
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
        let lo = "Link(Link { index: 1, name: \"lo\", mtu: 65536";
        assert!(
            links.iter().any(|notice| notice.starts_with(lo)),
            "{links:?}"
        );
        assert_eq!(links.last().unwrap(), "Dumped(Links)");
        assert_eq!(dump(Dump::Addresses).last().unwrap(), "Dumped(Addresses)");
        assert_eq!(dump(Dump::Neighbors).last().unwrap(), "Dumped(Neighbors)");
        let proxied = dump(Dump::ProxiedNeighbors);
        assert_eq!(proxied.last().unwrap(), "Dumped(ProxiedNeighbors)");
    }

    #[test]
    fn whatever_the_octets_nothing_panics() {
        let mut netlink = Netlink::open().unwrap();
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
            told(&mut netlink, &datagram);
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
        let mut netlink = Netlink::open().unwrap();
        for (flags, message_type, expected) in [
            (0, libc::NLMSG_DONE, "Dumped(Links)"),
            (NLM_F_DUMP_INTR, libc::NLMSG_DONE, "Lost"),
            (0, libc::NLMSG_ERROR, "Lost"),
        ] {
            netlink.dump = Some(Dump::Links);
            netlink.inconsistent = false;
            let datagram = done(flags, message_type as u16);
            assert_eq!(told(&mut netlink, &datagram), [expected]);
        }
    }
}
