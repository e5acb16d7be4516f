//! Packets as they are on the wire.

use std::io::IoSliceMut;
use std::net::Ipv6Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::sockopt::{RcvBufForce, ReceiveTimeout, ReceiveTimestampns};
use nix::sys::socket::{
    self, AddressFamily, ControlMessageOwned, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType,
};
use nix::sys::time::{TimeSpec, TimeVal, TimeValLike};

use super::Namespace;

const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
const RECEIVE_BUFFER: usize = 32 << 20;

/// An Ethernet frame that carries an IPv6 packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub source: [u8; 6],
    pub destination: [u8; 6],
    pub packet: Vec<u8>,
}

impl Frame {
    fn parse(octets: &[u8]) -> Option<Self> {
        let (&destination, rest) = octets.split_first_chunk()?;
        let (&source, rest) = rest.split_first_chunk()?;
        let packet = rest.strip_prefix(&ETHERTYPE_IPV6)?;
        Some(Self {
            source,
            destination,
            packet: packet.to_vec(),
        })
    }
}

/// The Ethernet address of a multicast group (RFC 2464 §7).
pub const fn group_mac(group: Ipv6Addr) -> [u8; 6] {
    let [.., a, b, c, d] = group.octets();
    [0x33, 0x33, a, b, c, d]
}

/// A packet socket on an interface. It sends frames as they are given, and receives what passes in
/// both directions.
pub struct Tap {
    socket: OwnedFd,
    link: LinkAddr,
}

impl Tap {
    #[track_caller]
    pub fn open(namespace: &Namespace, interface: &str) -> Self {
        let opened = namespace.within(|| -> nix::Result<Self> {
            let mut addresses = getifaddrs()?.filter(|found| found.interface_name == interface);
            let link = addresses.find_map(|found| found.address?.as_link_addr().copied());
            let link = link.ok_or(Errno::ENODEV)?;
            let (kind, protocol) = (SockType::Raw, SockProtocol::EthAll);
            let flags = SockFlag::SOCK_CLOEXEC;
            let socket = socket::socket(AddressFamily::Packet, kind, flags, protocol)?;
            // A stream needs more room than the kernel gives. Only root gets it.
            let _ = socket::setsockopt(&socket, RcvBufForce, &RECEIVE_BUFFER);
            socket::setsockopt(&socket, ReceiveTimestampns, &true)?;
            socket::bind(socket.as_raw_fd(), &link)?;
            Ok(Self { socket, link })
        });
        opened.unwrap_or_else(|error| panic!("{}: tap on {interface}: {error}", namespace.label))
    }

    pub(super) fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    /// The interface's own Ethernet address.
    pub fn mac(&self) -> [u8; 6] {
        self.link.addr().expect("Linux has one for every link")
    }

    #[track_caller]
    pub fn send(&self, frame: &Frame) {
        self.try_send(frame).expect("the link is up and has room");
    }

    /// As [`Self::send`], with the tag of this VLAN (IEEE 802.1Q).
    #[track_caller]
    pub fn send_tagged(&self, vlan: u16, frame: &Frame) {
        let tag = [&[0x81, 0][..], &vlan.to_be_bytes(), &ETHERTYPE_IPV6].concat();
        self.send_octets(frame, &tag)
            .expect("the link is up and has room");
    }

    /// As [`Self::send`], but fails with `ENOBUFS` if the link has no room now.
    pub fn try_send(&self, frame: &Frame) -> nix::Result<()> {
        self.send_octets(frame, &ETHERTYPE_IPV6)
    }

    fn send_octets(&self, frame: &Frame, ethertype: &[u8]) -> nix::Result<()> {
        let header = [&frame.destination[..], &frame.source, ethertype];
        let octets = [&header.concat()[..], &frame.packet].concat();
        let (fd, flags) = (self.socket.as_raw_fd(), MsgFlags::empty());
        socket::sendto(fd, &octets, &self.link, flags).map(drop)
    }

    /// The next IPv6 packet that passes within `deadline`.
    pub fn receive(&self, deadline: Duration) -> Option<Frame> {
        self.receive_at(deadline).map(|(_, frame)| frame)
    }

    /// As [`Self::receive`], with the time since 1970 at which the kernel saw the packet pass.
    pub fn receive_at(&self, deadline: Duration) -> Option<(Duration, Frame)> {
        let end = Instant::now() + deadline;
        let mut octets = [0; 65536];
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let left = i64::try_from(left.as_micros()).expect("a short deadline");
            // 0 would mean forever.
            let timeout = TimeVal::microseconds(left.max(1));
            socket::setsockopt(&self.socket, ReceiveTimeout, &timeout).expect("a time to wait");
            let mut slices = [IoSliceMut::new(&mut octets)];
            let mut space = cmsg_space!(TimeSpec);
            let (fd, flags) = (self.socket.as_raw_fd(), MsgFlags::empty());
            let received = socket::recvmsg::<LinkAddr>(fd, &mut slices, Some(&mut space), flags);
            match received {
                Ok(message) => {
                    // Until it was bound, the socket heard every interface.
                    let from = message.address;
                    let here = from.is_some_and(|from| from.ifindex() == self.link.ifindex());
                    let mut told = message.cmsgs().expect("there is space");
                    let at = told.find_map(|told| match told {
                        ControlMessageOwned::ScmTimestampns(at) => Some(Duration::from(at)),
                        _ => None,
                    });
                    let length = message.bytes;
                    if let Some(frame) = Frame::parse(&octets[..length]).filter(|_| here) {
                        return Some((at.expect("the socket asks for it"), frame));
                    }
                }
                Err(Errno::EAGAIN) => return None,
                // The interface went down and may come back, or this process was stopped for a
                // while.
                Err(Errno::ENETDOWN | Errno::EINTR) => {}
                Err(error) => panic!("receive: {error}"),
            }
        }
    }
}
