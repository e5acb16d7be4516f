//! Packet sockets: captures of NDP and MLD, and the socket that sends.
//!
//! All are `SOCK_DGRAM`, so that packets start at the IPv6 header on every kind of link.

use std::cell::Cell;
use std::net::Ipv6Addr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use libc::{
    BPF_ABS, BPF_ADD, BPF_ALU, BPF_B, BPF_IMM, BPF_IND, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_K, BPF_LD,
    BPF_LDX, BPF_LSH, BPF_MISC, BPF_RET, BPF_TAX, BPF_W, sock_filter,
};
use nix::errno::Errno;
use nix::sys::socket::sockopt::{RcvBuf, RcvBufForce};
use nix::sys::socket::{AddressFamily, LinkAddr, SockFlag, SockType, recvfrom, setsockopt, socket};

use super::ffi;

/// What a capture hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Neighbor Solicitations and Advertisements, and all of MLD.
    Hosts,
    /// MLD queries.
    Queries,
    /// MLD queries, Neighbor Solicitations and Advertisements.
    QueriesAndNeighbors,
    /// The same, also in groups that the kernel is no member of, and Echo Replies.
    Gateway,
}

/// The receive buffer of a capture, in octets as the kernel counts them. Over a thousand small
/// packets fit, as arrive at once when hundreds of hosts boot, or while the daemon rests. The
/// default has room for some 250.
const RECEIVE_BUFFER: usize = 1 << 20;

/// Hears the packets of interest that arrive on one interface.
pub struct Capture {
    socket: OwnedFd,
    index: u32,
    lost: Cell<u64>,
}

impl Capture {
    pub fn open(index: u32, interest: Interest) -> nix::Result<Self> {
        // The socket has no protocol, so it hears nothing before it is bound, and then only what
        // passes the filter.
        let socket = packet_socket()?;
        match interest {
            Interest::Hosts => {
                ffi::attach_filter(socket.as_fd(), &filter(HOSTS))?;
                // Otherwise a NIC drops the groups that the router is no member of.
                ffi::receive_all_multicast(socket.as_fd(), index)?;
            }
            // Queries go to all nodes, or to groups that this host is a member of.
            Interest::Queries => ffi::attach_filter(socket.as_fd(), &filter(QUERIES))?,
            Interest::QueriesAndNeighbors => {
                ffi::attach_filter(socket.as_fd(), &filter(QUERIES_AND_NEIGHBORS))?;
            }
            Interest::Gateway => {
                ffi::attach_filter(socket.as_fd(), &filter(GATEWAY))?;
                ffi::receive_all_multicast(socket.as_fd(), index)?;
            }
        }
        // If the kernel refuses, the largest buffer that it allows has to do.
        let _ = setsockopt(&socket, RcvBufForce, &RECEIVE_BUFFER)
            .or_else(|_| setsockopt(&socket, RcvBuf, &RECEIVE_BUFFER));
        ffi::bind_to_ipv6(socket.as_fd(), index)?;
        let lost = Cell::new(0);
        Ok(Capture {
            socket,
            index,
            lost,
        })
    }

    /// The packets that the kernel had no room for since the capture was opened.
    pub fn lost(&self) -> u64 {
        // The kernel's count starts anew at each call.
        let more = ffi::packets_lost(self.socket.as_fd()).unwrap_or(0);
        self.lost.set(self.lost.get().wrapping_add(more.into()));
        self.lost.get()
    }

    /// The kernel's number of the interface.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// The next packet, cut off where `buffer` ends, with the sender's link-layer address, which is
    /// all zero on a link without such addresses. `None` if there is no packet now.
    pub fn receive<'b>(&self, buffer: &'b mut [u8]) -> nix::Result<Option<(&'b [u8], [u8; 6])>> {
        match recvfrom::<LinkAddr>(self.socket.as_raw_fd(), buffer) {
            Ok((length, sender)) => {
                let mac = sender.and_then(|sender| sender.addr()).unwrap_or_default();
                Ok(buffer.get(..length).map(|packet| (packet, mac)))
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
            Err(errno) => Err(errno),
        }
    }
}

impl AsFd for Capture {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Sends whole IPv6 packets, and receives nothing.
pub struct Transmitter(OwnedFd);

impl Transmitter {
    /// Fails with `EPERM` without `CAP_NET_RAW`.
    pub fn open() -> nix::Result<Self> {
        packet_socket().map(Transmitter)
    }

    /// Sends a packet out of an interface to a link-layer address. A link without such addresses
    /// ignores it.
    pub fn send(&self, index: u32, destination: [u8; 6], packet: &[u8]) -> nix::Result<()> {
        ffi::send_ipv6(self.0.as_fd(), index, destination, packet)
    }

    /// Sends a packet out of an interface to a multicast group.
    pub fn send_to_group(&self, index: u32, group: Ipv6Addr, packet: &[u8]) -> nix::Result<()> {
        let [.., a, b, c, d] = group.octets();
        // RFC 2464 §7: multicast goes to 33:33 and the last four octets of the group.
        self.send(index, [0x33, 0x33, a, b, c, d], packet)
    }
}

fn packet_socket() -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    socket(AddressFamily::Packet, SockType::Datagram, flags, None)
}

/// The ICMPv6 types of MLD, and of Neighbor Solicitations and Advertisements.
const HOSTS: [u32; 6] = [130, 131, 132, 135, 136, 143];
/// The ICMPv6 type of an MLD query.
const QUERIES: [u32; 6] = [130; 6];
const QUERIES_AND_NEIGHBORS: [u32; 6] = [130, 135, 136, 136, 136, 136];
const GATEWAY: [u32; 6] = [129, 130, 135, 136, 136, 136];

/// Passes packets with one of these ICMPv6 types that the kernel's own IPv6 would take in. The
/// ICMPv6 header follows the IPv6 header, or one Hop-by-Hop header of any length. Other packets
/// never wake the process: neither what this host sends, nor what is for another host. The kernel
/// marks frames of a VLAN that no interface takes as for another host too. A frame of VLAN 0 only
/// has a priority, and passes.
const fn filter(types: [u32; 6]) -> [sock_filter; 21] {
    let [a, b, c, d, e, f] = types;
    [
        load(BPF_W | BPF_ABS, ANCILLARY_PACKET_TYPE),
        // Packets of this type and the types after it are not for this host.
        at_least(1, libc::PACKET_OTHERHOST as u32, REJECT, 2),
        // X: the length of the extension header. A: the next header.
        statement(BPF_LDX | BPF_IMM, 0),
        load(BPF_B | BPF_ABS, 6),
        equal(4, libc::IPPROTO_ICMPV6 as u32, TYPE, 5),
        equal(5, libc::IPPROTO_HOPOPTS as u32, 6, REJECT),
        load(BPF_B | BPF_ABS, 40),
        equal(7, libc::IPPROTO_ICMPV6 as u32, 8, REJECT),
        load(BPF_B | BPF_ABS, 41),
        statement(BPF_ALU | BPF_ADD | BPF_K, 1),
        statement(BPF_ALU | BPF_LSH | BPF_K, 3),
        statement(BPF_MISC | BPF_TAX, 0),
        // TYPE
        load(BPF_B | BPF_IND, 40),
        equal(13, a, ACCEPT, 14),
        equal(14, b, ACCEPT, 15),
        equal(15, c, ACCEPT, 16),
        equal(16, d, ACCEPT, 17),
        equal(17, e, ACCEPT, 18),
        equal(18, f, ACCEPT, REJECT),
        // ACCEPT
        statement(BPF_RET | BPF_K, u32::MAX),
        // REJECT
        statement(BPF_RET | BPF_K, 0),
    ]
}
const TYPE: u8 = 12;
const ACCEPT: u8 = 19;
const REJECT: u8 = 20;

/// `SKF_AD_OFF + SKF_AD_PKTTYPE`, by which a filter reads the kernel's type of the packet.
const ANCILLARY_PACKET_TYPE: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_PKTTYPE).cast_unsigned();

const fn load(size_and_mode: u32, offset: u32) -> sock_filter {
    statement(BPF_LD | size_and_mode, offset)
}

const fn statement(code: u32, k: u32) -> sock_filter {
    jump(code, k, 0, 0)
}

/// The instruction at `at`. It goes to `then` if A is `value`, else to `otherwise`.
const fn equal(at: u8, value: u32, then: u8, otherwise: u8) -> sock_filter {
    compare(BPF_JEQ, at, value, then, otherwise)
}

/// The instruction at `at`. It goes to `then` if A is `value` or more, else to `otherwise`.
const fn at_least(at: u8, value: u32, then: u8, otherwise: u8) -> sock_filter {
    compare(BPF_JGE, at, value, then, otherwise)
}

const fn compare(how: u32, at: u8, value: u32, then: u8, otherwise: u8) -> sock_filter {
    let next = at + 1;
    jump(BPF_JMP | how | BPF_K, value, then - next, otherwise - next)
}

const fn jump(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    let code = code as u16;
    sock_filter { code, jt, jf, k }
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::{MsgFlags, recv, send, socketpair};
    use protocol::wire::{ALL_NODES, Done, NeighborAdvertisement};

    use super::*;

    /// Whether the kernel lets a packet through the filter.
    fn passes(types: [u32; 6], packet: &[u8]) -> bool {
        let kind = SockType::Datagram;
        let (near, far) = socketpair(AddressFamily::Unix, kind, None, SockFlag::empty()).unwrap();
        ffi::attach_filter(far.as_fd(), &filter(types)).unwrap();
        // If the filter rejects it, the kernel refuses it with EPERM or drops it.
        let _ = send(near.as_raw_fd(), packet, MsgFlags::empty());
        recv(far.as_raw_fd(), &mut [0; 2048], MsgFlags::MSG_DONTWAIT) == Ok(packet.len())
    }

    fn advertisement() -> Vec<u8> {
        let advertisement = NeighborAdvertisement {
            source: "fe80::1".parse().unwrap(),
            destination: ALL_NODES,
            target: "2001:db8::1".parse().unwrap(),
            router: false,
            solicited: false,
            override_flag: true,
            target_link_layer: None,
        };
        let mut packet = vec![0; 128];
        let length = advertisement.emit(&mut packet).unwrap();
        packet.truncate(length);
        packet
    }

    #[test]
    fn the_filter_passes_ndp_and_mld_and_nothing_else() {
        let mut packet = advertisement();
        for message_type in 0..=u8::MAX {
            packet[40] = message_type;
            let wanted = matches!(message_type, 130..=132 | 135 | 136 | 143);
            assert_eq!(passes(HOSTS, &packet), wanted, "type {message_type}");
            assert_eq!(
                passes(QUERIES, &packet),
                message_type == 130,
                "type {message_type}"
            );
        }
        packet[40] = 129;
        assert!(passes(GATEWAY, &packet), "an Echo Reply");
        packet[40] = 136;
        for next_header in 0..=u8::MAX {
            packet[6] = next_header;
            assert_eq!(
                passes(HOSTS, &packet),
                next_header == 58,
                "next header {next_header}"
            );
        }
        assert!(!passes(HOSTS, &packet[..40]), "no ICMPv6 at all");
        assert!(!passes(HOSTS, &[]), "nothing at all");
    }

    #[test]
    fn the_filter_looks_behind_a_hop_by_hop_header_of_any_length() {
        let done = Done {
            source: "fe80::1".parse().unwrap(),
            group: "ff02::1:ff00:1".parse().unwrap(),
        };
        let mut packet = [0; 128];
        let length = done.emit(&mut packet).unwrap();
        let packet = &packet[..length];
        assert!(passes(HOSTS, packet));
        for units in 1..=3 {
            let mut longer = packet.to_vec();
            longer.splice(48..48, std::iter::repeat_n(0, units * 8));
            longer[41] = units as u8;
            assert!(passes(HOSTS, &longer), "{units} more units of 8 octets");
            longer[40] = 17;
            assert!(!passes(HOSTS, &longer), "UDP behind it");
        }
        let mut overrun = packet.to_vec();
        overrun[41] = 255;
        assert!(!passes(HOSTS, &overrun));
    }
}
