//! Netlink messages as octets: writes requests, and takes apart what the kernel sends.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, NetlinkAddr, send, sendto};

use super::siblings::LINKS;

/// The lengths in octets of `struct nlmsghdr`, and of what follows it: `struct ifinfomsg`,
/// `ifaddrmsg`, `ndmsg` and `rtmsg`.
pub const MESSAGE_HEADER: usize = 16;
pub const LINK_HEADER: usize = 16;
pub const ADDRESS_HEADER: usize = 8;
pub const NEIGHBOR_HEADER: usize = 12;
pub const ROUTE_HEADER: usize = 12;
/// The octets of `struct rtnexthop`.
const NEXT_HOP: usize = 8;
/// The offset of the flags in `struct ndmsg`.
pub const NEIGHBOR_FLAGS: usize = 10;

/// The family of multicast routing's messages, `RTNL_FAMILY_IP6MR` of linux/rtnetlink.h.
pub const IPV6_MULTICAST: i32 = 129;

/// `NDA_PROTOCOL` of linux/neighbour.h.
pub const NDA_PROTOCOL: u16 = 12;

const NLA_TYPE_MASK: u16 = 0x3fff;

/// The longest request: the one that tells another instance of all links.
const REQUEST_LENGTH: usize = MESSAGE_HEADER + 4 + 4 * LINKS;

/// A request while it is written.
pub struct Request {
    octets: [u8; REQUEST_LENGTH],
    length: usize,
}

impl Request {
    /// Starts a request with the header of its type.
    pub fn new(message_type: u16, flags: i32, header: &[u8]) -> Self {
        let mut request = Request {
            octets: [0; _],
            length: MESSAGE_HEADER,
        };
        let flags = (libc::NLM_F_REQUEST | flags) as u16;
        request.octets[4..6].copy_from_slice(&message_type.to_ne_bytes());
        request.octets[6..8].copy_from_slice(&flags.to_ne_bytes());
        request.append(header);
        request
    }

    pub fn attribute(&mut self, kind: u16, value: &[u8]) {
        let start = self.open(kind);
        self.append(value);
        self.close(start);
    }

    /// Starts an attribute that contains the next ones. Pass what this returns to [`Self::close`].
    pub fn open(&mut self, kind: u16) -> usize {
        let start = self.length;
        self.append(&[0, 0]);
        self.append(&kind.to_ne_bytes());
        start
    }

    pub fn close(&mut self, start: usize) {
        let length = (self.length - start) as u16;
        self.octets[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.length = self.length.next_multiple_of(4);
    }

    fn append(&mut self, octets: &[u8]) {
        self.octets[self.length..][..octets.len()].copy_from_slice(octets);
        self.length += octets.len();
    }

    /// The octets of the request, without a sequence number.
    pub fn octets(&mut self) -> &[u8] {
        let length = (self.length as u32).to_ne_bytes();
        self.octets[..4].copy_from_slice(&length);
        &self.octets[..self.length]
    }

    /// Sends the request with a sequence number, which its answer repeats.
    pub fn send(mut self, socket: &OwnedFd, sequence: u32) -> nix::Result<()> {
        self.octets[8..12].copy_from_slice(&sequence.to_ne_bytes());
        send(socket.as_raw_fd(), self.octets(), MsgFlags::empty()).map(drop)
    }

    /// Sends the request to another process, if that has room for it.
    pub fn send_to(mut self, socket: &OwnedFd, port: u32, sequence: u32) -> nix::Result<()> {
        self.octets[8..12].copy_from_slice(&sequence.to_ne_bytes());
        let to = NetlinkAddr::new(port, 0);
        let flags = MsgFlags::MSG_DONTWAIT;
        sendto(socket.as_raw_fd(), self.octets(), &to, flags).map(drop)
    }
}

/// A message from the kernel.
pub struct Message<'a> {
    pub message_type: u16,
    pub flags: u16,
    pub sequence: u32,
    pub body: &'a [u8],
}

impl Message<'_> {
    /// The error number of an `NLMSG_ERROR`. The number 0 is an acknowledgment.
    pub fn result(&self) -> nix::Result<()> {
        match u32_at(self.body, 0).unwrap_or_default().cast_signed() {
            0 => Ok(()),
            number => Err(Errno::from_raw(number.wrapping_neg())),
        }
    }
}

/// The messages of a datagram, up to the first malformed one.
pub fn messages(mut rest: &[u8]) -> impl Iterator<Item = Message<'_>> {
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

/// The attributes behind a header, up to the first malformed one.
pub fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(rest, 0)?);
        let kind = u16_at(rest, 2)? & NLA_TYPE_MASK;
        let attribute = (kind, rest.get(4..length)?);
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(attribute)
    })
}

/// The next hops of an `RTA_MULTIPATH`, each with the index of its interface and its attributes.
pub fn next_hops(mut rest: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
    // struct rtnexthop: length, flags, hops, and the index of the interface.
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(rest, 0)?).max(NEXT_HOP);
        let attributes = rest.get(NEXT_HOP..length).unwrap_or_default();
        let hop = (u32_at(rest, 4)?, attributes);
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(hop)
    })
}

pub fn u16_at(octets: &[u8], offset: usize) -> Option<u16> {
    octets
        .get(offset..)?
        .first_chunk()
        .map(|value| u16::from_ne_bytes(*value))
}

pub fn u32_at(octets: &[u8], offset: usize) -> Option<u32> {
    octets
        .get(offset..)?
        .first_chunk()
        .map(|value| u32::from_ne_bytes(*value))
}

pub fn u64_at(octets: &[u8], offset: usize) -> Option<u64> {
    octets
        .get(offset..)?
        .first_chunk()
        .map(|value| u64::from_ne_bytes(*value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_in_attributes_have_the_length_of_all_that_is_in_them() {
        let mut request = Request::new(16, libc::NLM_F_ACK, &[9; 4]);
        let outer = request.open(1);
        request.attribute(2, b"wan");
        let inner = request.open(3);
        request.attribute(4, &[5]);
        request.close(inner);
        request.close(outer);
        let octets = request.octets().to_vec();
        assert_eq!(octets.len(), 16 + 4 + 4 + 8 + 4 + 8);

        let message = messages(&octets).next().unwrap();
        assert_eq!(message.message_type, 16);
        assert_eq!(
            i32::from(message.flags),
            libc::NLM_F_REQUEST | libc::NLM_F_ACK
        );
        assert_eq!(message.body[..4], [9; 4]);
        let outer: Vec<_> = attributes(&message.body[4..]).collect();
        assert_eq!(outer.len(), 1);
        let within: Vec<_> = attributes(outer[0].1).collect();
        assert_eq!(within[0], (2, &b"wan"[..]));
        assert_eq!(within[1].0, 3);
        let inner: Vec<_> = attributes(within[1].1).collect();
        assert_eq!(inner, [(4, &[5][..])]);
    }

    #[test]
    fn an_error_message_with_the_number_0_acknowledges() {
        let result = |number: i32| {
            let body = number.to_ne_bytes();
            let (message_type, flags, sequence) = (libc::NLMSG_ERROR as u16, 0, 1);
            let message = Message {
                message_type,
                flags,
                sequence,
                body: &body,
            };
            message.result()
        };
        assert_eq!(result(0), Ok(()));
        assert_eq!(result(-libc::EEXIST), Err(Errno::EEXIST));
        assert_eq!(result(i32::MIN), Err(Errno::UnknownErrno));
    }
}
