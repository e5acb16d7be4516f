//! Echo Requests, and the Replies to them (RFC 4443 §4.1, §4.2).

use core::net::Ipv6Addr;

use smoltcp::wire::{Icmpv6Message, Icmpv6Packet, IpProtocol, Ipv6Packet};

use super::{ICMPV6_HEADER_LENGTH, emit_ipv6, seal};

const TYPE_ECHO_REQUEST: u8 = 128;

/// The hop limit that Linux gives to what it sends.
const HOP_LIMIT: u8 = 64;

/// An Echo Request without data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EchoRequest {
    pub source: Ipv6Addr,
    pub destination: Ipv6Addr,
    /// Tells the replies to this sender from those to another one.
    pub identifier: u16,
    pub sequence: u16,
}

impl EchoRequest {
    /// Builds the IPv6 packet at the start of `buffer`. Returns its length, 48 octets; `None` if
    /// the buffer is too small.
    pub fn emit(&self, buffer: &mut [u8]) -> Option<usize> {
        let (source, destination) = (self.source, self.destination);
        let (header, icmpv6) = emit_ipv6(
            buffer,
            source,
            destination,
            IpProtocol::Icmpv6,
            ICMPV6_HEADER_LENGTH,
            HOP_LIMIT,
        )?;
        seal(icmpv6, TYPE_ECHO_REQUEST, source, destination, |icmpv6| {
            let mut message = Icmpv6Packet::new_unchecked(icmpv6);
            message.set_echo_ident(self.identifier);
            message.set_echo_seq_no(self.sequence);
        });
        header.checked_add(ICMPV6_HEADER_LENGTH)
    }

    /// Whether an IPv6 packet is a valid Echo Reply to this request, or to one that differs in its
    /// sequence number alone.
    pub fn is_answered_by(&self, packet: &[u8]) -> bool {
        let Ok(ipv6) = Ipv6Packet::new_checked(packet) else {
            return false;
        };
        let (source, destination) = (ipv6.src_addr(), ipv6.dst_addr());
        let icmpv6 = ipv6.payload();
        if ipv6.next_header() != IpProtocol::Icmpv6 || icmpv6.len() < ICMPV6_HEADER_LENGTH {
            return false;
        }
        let message = Icmpv6Packet::new_unchecked(icmpv6);
        message.msg_type() == Icmpv6Message::EchoReply
            && (source, destination) == (self.destination, self.source)
            && message.echo_ident() == self.identifier
            && message.verify_checksum(&source, &destination)
    }
}
