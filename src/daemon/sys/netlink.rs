//! The kernel's links and addresses, by rtnetlink: told as they change, and dumped on request.

use std::net::Ipv6Addr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
    socket,
};

/// A socket that hears of every change of a link or IPv6 address.
pub struct Netlink {
    socket: OwnedFd,
    /// The dump under way; the kernel makes one at a time.
    dump: Option<Dump>,
    /// The kernel said that what it dumps changed meanwhile.
    inconsistent: bool,
}

/// What can be asked for as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dump {
    Links,
    Addresses,
}

/// Something the kernel told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice<'a> {
    /// A link is there, new or changed or as before.
    Link {
        index: u32,
        name: &'a str,
        mtu: u32,
    },
    LinkDeleted {
        index: u32,
    },
    /// An IPv6 address is there. Not `usable`: tentative, or a duplicate.
    Address {
        index: u32,
        address: Ipv6Addr,
        usable: bool,
    },
    AddressDeleted {
        index: u32,
        address: Ipv6Addr,
    },
    /// All of a dump that was [requested](Netlink::request) has been told.
    Dumped(Dump),
    /// Changes or a dump were lost: all is to be dumped anew.
    Lost,
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
        let groups = libc::RTMGRP_LINK | libc::RTMGRP_IPV6_IFADDR;
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
        };
        let mut request = [0; MESSAGE_HEADER + LINK_HEADER];
        let length = MESSAGE_HEADER + body_length;
        let flags = libc::NLM_F_REQUEST | libc::NLM_F_DUMP;
        request[..4].copy_from_slice(&(length as u32).to_ne_bytes());
        request[4..6].copy_from_slice(&message_type.to_ne_bytes());
        request[6..8].copy_from_slice(&(flags as u16).to_ne_bytes());
        request[MESSAGE_HEADER] = family as u8;
        send(
            self.socket.as_raw_fd(),
            &request[..length],
            MsgFlags::empty(),
        )?;
        self.dump = Some(dump);
        self.inconsistent = false;
        Ok(())
    }

    /// Reads one datagram and hands on what it tells; false where there is none now.
    pub fn receive(
        &mut self,
        buffer: &mut [u8],
        mut told: impl FnMut(Notice<'_>),
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

    fn read(&mut self, datagram: &[u8], mut told: impl FnMut(Notice<'_>)) {
        for message in messages(datagram) {
            self.inconsistent |= message.flags & NLM_F_DUMP_INTR != 0;
            match i32::from(message.message_type) {
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

/// `NLM_F_DUMP_INTR` of linux/netlink.h.
const NLM_F_DUMP_INTR: u16 = 0x10;

struct Message<'a> {
    message_type: u16,
    flags: u16,
    body: &'a [u8],
}

/// The messages of a datagram; ends where one is malformed.
fn messages(mut rest: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32_at(rest, 0)?).ok()?;
        let message = Message {
            message_type: u16_at(rest, 4)?,
            flags: u16_at(rest, 6)?,
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
        let attribute = (u16_at(rest, 2)?, rest.get(4..length)?);
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(attribute)
    })
}

fn notice<'a>(message: &Message<'a>) -> Option<Notice<'a>> {
    match message.message_type {
        libc::RTM_NEWLINK | libc::RTM_DELLINK => link(message),
        libc::RTM_NEWADDR | libc::RTM_DELADDR => address(message),
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
    let (mut name, mut mtu) = (None, 0);
    for (kind, value) in attributes(message.body.get(LINK_HEADER..)?) {
        match kind {
            libc::IFLA_IFNAME => name = str::from_utf8(value.strip_suffix(&[0])?).ok(),
            libc::IFLA_MTU => mtu = u32_at(value, 0)?,
            _ => {}
        }
    }
    let name = name?;
    Some(Notice::Link { index, name, mtu })
}

fn address(message: &Message<'_>) -> Option<Notice<'static>> {
    let &[family, _, flags, ..] = message.body else {
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
        Notice::Address {
            index,
            address,
            usable: flags & (libc::IFA_F_TENTATIVE | libc::IFA_F_DADFAILED) == 0,
        }
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
        netlink.read(datagram, |notice| notices.push(format!("{notice:?}")));
        notices
    }

    fn dump(which: Dump) -> Vec<String> {
        let mut netlink = Netlink::open().unwrap();
        netlink.request(which).unwrap();
        assert_eq!(netlink.request(which), Err(Errno::EBUSY));
        let mut notices = Vec::new();
        let mut ended = false;
        while !ended {
            let _ = netlink.receive(&mut [0; BUFFER_LENGTH], |notice| {
                ended |= matches!(notice, Notice::Dumped(_) | Notice::Lost);
                notices.push(format!("{notice:?}"));
            });
        }
        notices
    }

    #[test]
    fn the_kernel_dumps_its_links_and_addresses() {
        let links = dump(Dump::Links);
        let lo = "Link { index: 1, name: \"lo\", mtu: 65536 }";
        assert!(links.iter().any(|notice| notice == lo), "{links:?}");
        assert_eq!(links.last().unwrap(), "Dumped(Links)");
        assert_eq!(dump(Dump::Addresses).last().unwrap(), "Dumped(Addresses)");
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
                let message_type = random.u16(16..24).to_ne_bytes();
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
