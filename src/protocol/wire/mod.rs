//! Parses IPv6 packets into [`Message`]s, and emits them. No other module looks at the octets of a
//! packet.
//!
//! A packet starts at its IPv6 header, whatever the link below. [`parse`] accepts Neighbor
//! Solicitations and Advertisements that are valid by RFC 4861 §7.1, and MLD messages that are
//! valid by RFC 2710 and RFC 3810. It refuses everything else with a [`DropReason`]. It never
//! panics and never allocates.

mod echo;
mod mld;
mod ndisc;

use core::net::Ipv6Addr;

use smoltcp::wire::{
    Icmpv6Message, Icmpv6Packet, IpProtocol, Ipv6ExtHeader, Ipv6OptionFailureType, Ipv6OptionRepr,
    Ipv6OptionRouterAlert, Ipv6OptionsIterator, Ipv6Packet, Ipv6Repr,
};

pub use echo::EchoRequest;
pub use mld::{
    ALL_MLDV2_ROUTERS, ALL_NODES, ALL_ROUTERS, Done, MLDV2_RECORD_LENGTH, MLDV2_REPORT_OVERHEAD,
    Query, QueryVersion, Record, RecordType, Records, ReportBuilder, ReportV1, ReportV2, Sources,
};
pub use ndisc::{MacAddress, NeighborAdvertisement, NeighborSolicitation, SolicitedNode};

/// The least MTU that an IPv6 link may have, in octets (RFC 8200 §5).
pub const IPV6_MIN_MTU: usize = 1280;

/// A message that passed every check that its RFC demands of a receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    NeighborSolicitation(NeighborSolicitation),
    NeighborAdvertisement(NeighborAdvertisement),
    Query(Query<'a>),
    ReportV1(ReportV1),
    ReportV2(ReportV2<'a>),
    Done(Done),
}

/// Declares [`DropReason`] with its names, so that every reason has one.
macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $reason:ident = $name:literal,)*) => {
        /// Why [`parse`] refused a packet. `Counters` counts each reason.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum DropReason { $($(#[$doc])* $reason,)* }

        impl DropReason {
            pub const ALL: &[DropReason] = &[$(DropReason::$reason,)*];

            /// A stable name in snake_case, for counters and logs.
            pub const fn name(self) -> &'static str {
                match self { $(DropReason::$reason => $name,)* }
            }
        }
    };
}

drop_reasons! {
    /// The packet is shorter than a header, or than a length field says.
    Truncated = "dropped_truncated",
    /// The version is not 6.
    NotIpv6 = "dropped_not_ipv6",
    /// The source is a multicast address (RFC 4291 §2.7).
    MulticastSource = "dropped_multicast_source",
    /// A Hop-by-Hop option is malformed, or is unknown and its type says to discard the packet
    /// (RFC 8200 §4.2).
    HopByHopOption = "dropped_hop_by_hop_option",
    /// The IPv6 header, or one Hop-by-Hop header after it, is not followed by ICMPv6.
    NotIcmpv6 = "dropped_not_icmpv6",
    /// The ICMPv6 type is none of NS, NA and MLD.
    OtherType = "dropped_other_type",
    /// The ICMPv6 checksum does not match.
    Checksum = "dropped_checksum",
    /// The ICMPv6 code of an NDP message is not 0. A receiver ignores the code of an MLD message
    /// (RFC 2710 §3.2, RFC 3810 §5.1.1).
    Code = "dropped_code",
    /// The hop limit is not 255 (NDP) or not 1 (MLD).
    HopLimit = "dropped_hop_limit",
    /// The target of an NS or NA is a multicast address.
    MulticastTarget = "dropped_multicast_target",
    /// An NDP option has length 0 or runs past the packet.
    NdpOption = "dropped_ndp_option",
    /// An NS from `::` has a destination other than a solicited-node group, or has a source
    /// link-layer address (RFC 4861 §7.1.1).
    UnspecifiedSource = "dropped_unspecified_source",
    /// An NA to a multicast address has the Solicited flag (RFC 4861 §7.1.2).
    SolicitedMulticast = "dropped_solicited_multicast",
    /// The source of an MLD message is not link-local (RFC 2710 §5, RFC 3810 §5.1.14, §5.2.13).
    NotLinkLocal = "dropped_not_link_local",
    /// An MLD message lacks the Router Alert option for MLD (RFC 2710 §3, RFC 3810 §5).
    NoRouterAlert = "dropped_no_router_alert",
    /// An MLD query is of 25 to 27 octets, or of fewer than 24 (RFC 3810 §8.1).
    QueryLength = "dropped_query_length",
    /// The records of an MLDv2 report, or the sources of a query, run past the packet.
    RecordOverrun = "dropped_record_overrun",
    /// The group of an MLDv1 message, or of a query, is not a multicast address.
    NotMulticast = "dropped_not_multicast",
}

/// Parses one IPv6 packet. Link-layer padding may follow it.
pub fn parse(packet: &[u8]) -> Result<Message<'_>, DropReason> {
    let ipv6 = Ipv6Packet::new_unchecked(packet);
    if packet.len() < ipv6.header_len() {
        return Err(DropReason::Truncated);
    }
    if ipv6.version() != 6 {
        return Err(DropReason::NotIpv6);
    }
    ipv6.check_len().map_err(|_| DropReason::Truncated)?;
    if ipv6.src_addr().is_multicast() {
        return Err(DropReason::MulticastSource);
    }

    let mut next_header = ipv6.next_header();
    let mut icmpv6 = ipv6.payload();
    let mut router_alert = false;
    if next_header == IpProtocol::HopByHop {
        let header = Ipv6ExtHeader::new_checked(icmpv6).map_err(|_| DropReason::Truncated)?;
        router_alert = has_mld_router_alert(header.payload())?;
        next_header = header.next_header();
        // RFC 8200 §4.3: the field counts units of 8 octets, without the first 8 octets.
        let length = usize::from(header.header_len())
            .saturating_add(1)
            .saturating_mul(8);
        icmpv6 = icmpv6.get(length..).unwrap_or_default();
    }
    if next_header != IpProtocol::Icmpv6 {
        return Err(DropReason::NotIcmpv6);
    }
    if icmpv6.len() < ICMPV6_HEADER_LENGTH {
        return Err(DropReason::Truncated);
    }

    let envelope = Envelope {
        source: ipv6.src_addr(),
        destination: ipv6.dst_addr(),
        hop_limit: ipv6.hop_limit(),
        router_alert,
    };
    match Icmpv6Packet::new_unchecked(icmpv6).msg_type().into() {
        TYPE_NEIGHBOR_SOLICITATION => {
            NeighborSolicitation::parse(&envelope, icmpv6).map(Message::NeighborSolicitation)
        }
        TYPE_NEIGHBOR_ADVERTISEMENT => {
            NeighborAdvertisement::parse(&envelope, icmpv6).map(Message::NeighborAdvertisement)
        }
        TYPE_QUERY => Query::parse(&envelope, icmpv6).map(Message::Query),
        TYPE_REPORT_V1 => ReportV1::parse(&envelope, icmpv6).map(Message::ReportV1),
        TYPE_DONE => Done::parse(&envelope, icmpv6).map(Message::Done),
        TYPE_REPORT_V2 => ReportV2::parse(&envelope, icmpv6).map(Message::ReportV2),
        _ => Err(DropReason::OtherType),
    }
}

const ICMPV6_HEADER_LENGTH: usize = 8;

// RFC 4861 §4.3, §4.4; RFC 2710 §3.1; RFC 3810 §5.2.
const TYPE_QUERY: u8 = 130;
const TYPE_REPORT_V1: u8 = 131;
const TYPE_DONE: u8 = 132;
const TYPE_NEIGHBOR_SOLICITATION: u8 = 135;
const TYPE_NEIGHBOR_ADVERTISEMENT: u8 = 136;
const TYPE_REPORT_V2: u8 = 143;

/// The fields of the IPv6 and the Hop-by-Hop header that the checks of a message need.
struct Envelope {
    source: Ipv6Addr,
    destination: Ipv6Addr,
    hop_limit: u8,
    router_alert: bool,
}

impl Envelope {
    /// The checks that NDP and MLD messages share.
    fn check(&self, icmpv6: &[u8], hop_limit: u8) -> Result<(), DropReason> {
        let message = Icmpv6Packet::new_unchecked(icmpv6);
        if self.hop_limit != hop_limit {
            return Err(DropReason::HopLimit);
        }
        if !message.verify_checksum(&self.source, &self.destination) {
            return Err(DropReason::Checksum);
        }
        Ok(())
    }
}

/// Whether a Hop-by-Hop header has a Router Alert option with the value for MLD (RFC 2711 §2.1).
/// Checks all its options.
fn has_mld_router_alert(options: &[u8]) -> Result<bool, DropReason> {
    let mut found = false;
    for option in Ipv6OptionsIterator::new(options) {
        match option {
            Ok(Ipv6OptionRepr::RouterAlert(value)) => {
                found |= value == Ipv6OptionRouterAlert::MulticastListenerDiscovery;
            }
            Ok(Ipv6OptionRepr::Unknown { type_, .. })
                if Ipv6OptionFailureType::from(type_) != Ipv6OptionFailureType::Skip =>
            {
                return Err(DropReason::HopByHopOption);
            }
            Ok(_) => {}
            Err(_) => return Err(DropReason::HopByHopOption),
        }
    }
    Ok(found)
}

/// The Hop-by-Hop header of every MLD message: next header ICMPv6, a length of 8 octets, Router
/// Alert with the value 0 (RFC 2711), and a PadN of 2 octets.
const MLD_HOP_BY_HOP: [u8; 8] = [58, 0, 5, 2, 0, 0, 1, 0];

/// Builds the packet of an MLD message, whose `length` octets of ICMPv6 `fill` writes: with a hop
/// limit of 1 and a Router Alert (RFC 3810 §5). Returns the length of the packet in octets; `None`
/// if the buffer is too small.
fn emit_mld(
    buffer: &mut [u8],
    source: Ipv6Addr,
    destination: Ipv6Addr,
    message_type: u8,
    length: usize,
    fill: impl FnOnce(&mut [u8]),
) -> Option<usize> {
    let payload = length.checked_add(MLD_HOP_BY_HOP.len())?;
    let (header, rest) = emit_ipv6(
        buffer,
        source,
        destination,
        IpProtocol::HopByHop,
        payload,
        1,
    )?;
    let (hop_by_hop, icmpv6) = rest.split_first_chunk_mut()?;
    *hop_by_hop = MLD_HOP_BY_HOP;
    seal(icmpv6, message_type, source, destination, fill);
    header.checked_add(payload)
}

/// Builds the packet of an NDP message as [`emit_mld`] does, but with a hop limit of 255 (RFC 4861
/// §4.3, §4.4) and without an extension header.
fn emit_ndp(
    buffer: &mut [u8],
    source: Ipv6Addr,
    destination: Ipv6Addr,
    message_type: u8,
    length: usize,
    fill: impl FnOnce(&mut [u8]),
) -> Option<usize> {
    let (header, icmpv6) = emit_ipv6(buffer, source, destination, IpProtocol::Icmpv6, length, 255)?;
    seal(icmpv6, message_type, source, destination, fill);
    header.checked_add(length)
}

/// Writes the IPv6 header. Returns its length and the octets of the payload; `None` if the buffer
/// is too small.
fn emit_ipv6(
    buffer: &mut [u8],
    source: Ipv6Addr,
    destination: Ipv6Addr,
    next_header: IpProtocol,
    payload_length: usize,
    hop_limit: u8,
) -> Option<(usize, &mut [u8])> {
    let header = Ipv6Repr {
        src_addr: source,
        dst_addr: destination,
        next_header,
        payload_len: payload_length,
        hop_limit,
    };
    let (octets, rest) = buffer.split_at_mut_checked(header.buffer_len())?;
    header.emit(&mut Ipv6Packet::new_unchecked(octets));
    Some((header.buffer_len(), rest.get_mut(..payload_length)?))
}

/// Writes an ICMPv6 message of at least 8 octets: zeroes the header, calls `fill`, then writes the
/// type, the code 0 and the checksum.
fn seal(
    icmpv6: &mut [u8],
    message_type: u8,
    source: Ipv6Addr,
    destination: Ipv6Addr,
    fill: impl FnOnce(&mut [u8]),
) {
    if let Some(header) = icmpv6.first_chunk_mut::<ICMPV6_HEADER_LENGTH>() {
        header.fill(0);
    }
    fill(icmpv6);
    let mut message = Icmpv6Packet::new_unchecked(icmpv6);
    message.set_msg_type(Icmpv6Message::from(message_type));
    message.set_msg_code(0);
    message.fill_checksum(&source, &destination);
}

/// The address at octet 8 of an ICMPv6 message: the target of an NDP message, the multicast address
/// of an MLD message.
fn address_of(icmpv6: &[u8]) -> Result<Ipv6Addr, DropReason> {
    let address: Option<&[u8; 16]> = icmpv6
        .get(ICMPV6_HEADER_LENGTH..)
        .and_then(<[u8]>::first_chunk);
    address
        .map(|octets| Ipv6Addr::from(*octets))
        .ok_or(DropReason::Truncated)
}
