//! Neighbor Solicitations and Advertisements (RFC 4861 §4.3, §4.4, §7.1), parsed and emitted,
//! and solicited-node groups (RFC 4291 §2.7.1).

use core::fmt;
use core::net::Ipv6Addr;

use smoltcp::wire::{Icmpv6Packet, NdiscNeighborFlags};

pub use smoltcp::wire::EthernetAddress as MacAddress;

use super::{
    DropReason, Envelope, ICMPV6_HEADER_LENGTH, TYPE_NEIGHBOR_ADVERTISEMENT,
    TYPE_NEIGHBOR_SOLICITATION, address_of, emit_ndp,
};

/// A solicited-node multicast group, `ff02::1:ffXX:XXXX`. It stands for all addresses that end in
/// its low 24 bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SolicitedNode([u8; 3]);

impl SolicitedNode {
    /// The group that a node with this unicast address joins (RFC 4291 §2.7.1).
    pub const fn of(address: Ipv6Addr) -> Self {
        let [.., a, b, c] = address.octets();
        SolicitedNode([a, b, c])
    }

    /// The group with this multicast address; `None` if the address is outside
    /// `ff02::1:ff00:0/104`.
    pub fn from_group(group: Ipv6Addr) -> Option<Self> {
        let solicited_node = SolicitedNode::of(group);
        (solicited_node.group() == group).then_some(solicited_node)
    }

    /// The multicast address of the group.
    pub const fn group(self) -> Ipv6Addr {
        let SolicitedNode([a, b, c]) = self;
        Ipv6Addr::from_octets([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
    }
}

impl fmt::Display for SolicitedNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.group().fmt(f)
    }
}

impl fmt::Debug for SolicitedNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.group().fmt(f)
    }
}

/// A Neighbor Solicitation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeighborSolicitation {
    /// `::` if the sender checks whether `target` is a duplicate (RFC 4862 §5.4.2).
    pub source: Ipv6Addr,
    pub destination: Ipv6Addr,
    pub target: Ipv6Addr,
    /// `None` if the option is absent, or if its address is not 6 octets long.
    pub source_link_layer: Option<MacAddress>,
}

impl NeighborSolicitation {
    /// Parses a received message and checks it by RFC 4861 §7.1.1.
    pub(super) fn parse(envelope: &Envelope, icmpv6: &[u8]) -> Result<Self, DropReason> {
        let target = check_ndp(envelope, icmpv6)?;
        let option = link_layer_option(icmpv6, OPTION_SOURCE_LINK_LAYER)?;
        if envelope.source.is_unspecified()
            && (option.is_some() || SolicitedNode::from_group(envelope.destination).is_none())
        {
            return Err(DropReason::UnspecifiedSource);
        }
        Ok(NeighborSolicitation {
            source: envelope.source,
            destination: envelope.destination,
            target,
            source_link_layer: option.and_then(mac_address),
        })
    }

    /// Builds the IPv6 packet at the start of `buffer`. Returns its length, at most 72 octets;
    /// `None` if the buffer is too small.
    pub fn emit(&self, buffer: &mut [u8]) -> Option<usize> {
        let option = self.source_link_layer;
        emit_ndp(
            buffer,
            self.source,
            self.destination,
            TYPE_NEIGHBOR_SOLICITATION,
            message_length(option),
            |icmpv6| emit_body(icmpv6, self.target, OPTION_SOURCE_LINK_LAYER, option),
        )
    }
}

/// A Neighbor Advertisement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeighborAdvertisement {
    pub source: Ipv6Addr,
    pub destination: Ipv6Addr,
    pub target: Ipv6Addr,
    /// The R flag: the sender is a router.
    pub router: bool,
    /// The S flag: the sender answers a solicitation.
    pub solicited: bool,
    /// The O flag: the receiver is to override a cached link-layer address.
    pub override_flag: bool,
    /// `None` if the option is absent, or if its address is not 6 octets long.
    pub target_link_layer: Option<MacAddress>,
}

impl NeighborAdvertisement {
    /// Parses a received message and checks it by RFC 4861 §7.1.2.
    pub(super) fn parse(envelope: &Envelope, icmpv6: &[u8]) -> Result<Self, DropReason> {
        let target = check_ndp(envelope, icmpv6)?;
        let option = link_layer_option(icmpv6, OPTION_TARGET_LINK_LAYER)?;
        let flags = Icmpv6Packet::new_unchecked(icmpv6).neighbor_flags();
        let solicited = flags.contains(NdiscNeighborFlags::SOLICITED);
        if solicited && envelope.destination.is_multicast() {
            return Err(DropReason::SolicitedMulticast);
        }
        Ok(NeighborAdvertisement {
            source: envelope.source,
            destination: envelope.destination,
            target,
            router: flags.contains(NdiscNeighborFlags::ROUTER),
            solicited,
            override_flag: flags.contains(NdiscNeighborFlags::OVERRIDE),
            target_link_layer: option.and_then(mac_address),
        })
    }

    /// Builds the IPv6 packet at the start of `buffer`. Returns its length, at most 72 octets;
    /// `None` if the buffer is too small.
    pub fn emit(&self, buffer: &mut [u8]) -> Option<usize> {
        let mut flags = NdiscNeighborFlags::empty();
        flags.set(NdiscNeighborFlags::ROUTER, self.router);
        flags.set(NdiscNeighborFlags::SOLICITED, self.solicited);
        flags.set(NdiscNeighborFlags::OVERRIDE, self.override_flag);
        let option = self.target_link_layer;
        emit_ndp(
            buffer,
            self.source,
            self.destination,
            TYPE_NEIGHBOR_ADVERTISEMENT,
            message_length(option),
            |icmpv6| {
                emit_body(icmpv6, self.target, OPTION_TARGET_LINK_LAYER, option);
                Icmpv6Packet::new_unchecked(icmpv6).set_neighbor_flags(flags);
            },
        )
    }
}

/// The octets before the options: type, code, checksum, flags and target (RFC 4861 §4.3, §4.4).
const FIXED_LENGTH: usize = 24;
const LINK_LAYER_OPTION_LENGTH: usize = 8;

// RFC 4861 §4.6.1.
const OPTION_SOURCE_LINK_LAYER: u8 = 1;
const OPTION_TARGET_LINK_LAYER: u8 = 2;

const NDP_HOP_LIMIT: u8 = 255;

/// The checks that RFC 4861 §7.1.1 and §7.1.2 demand of both messages. Returns the target.
fn check_ndp(envelope: &Envelope, icmpv6: &[u8]) -> Result<Ipv6Addr, DropReason> {
    envelope.check(icmpv6, NDP_HOP_LIMIT)?;
    if Icmpv6Packet::new_unchecked(icmpv6).msg_code() != 0 {
        return Err(DropReason::Code);
    }
    let target = address_of(icmpv6)?;
    if target.is_multicast() {
        return Err(DropReason::MulticastTarget);
    }
    Ok(target)
}

/// The value of the last option of the `wanted` type. Checks the length of every option, and skips
/// those of unknown types (RFC 4861 §4.6).
fn link_layer_option(icmpv6: &[u8], wanted: u8) -> Result<Option<&[u8]>, DropReason> {
    let mut found = None;
    let mut options = icmpv6.get(FIXED_LENGTH..).unwrap_or_default();
    while !options.is_empty() {
        let &[option_type, length, ..] = options else {
            return Err(DropReason::NdpOption);
        };
        // RFC 4861 §4.6: the field counts units of 8 octets, the type and the length included.
        let length = usize::from(length).saturating_mul(8);
        let (option, rest) = options
            .split_at_checked(length)
            .filter(|_| length > 0)
            .ok_or(DropReason::NdpOption)?;
        if option_type == wanted {
            found = option.get(2..);
        }
        options = rest;
    }
    Ok(found)
}

fn mac_address(value: &[u8]) -> Option<MacAddress> {
    <[u8; 6]>::try_from(value).ok().map(MacAddress)
}

const fn message_length(link_layer: Option<MacAddress>) -> usize {
    match link_layer {
        Some(_) => FIXED_LENGTH + LINK_LAYER_OPTION_LENGTH,
        None => FIXED_LENGTH,
    }
}

fn emit_body(icmpv6: &mut [u8], target: Ipv6Addr, option_type: u8, link_layer: Option<MacAddress>) {
    let Some((_, body)) = icmpv6.split_at_mut_checked(ICMPV6_HEADER_LENGTH) else {
        return;
    };
    let Some((address, option)) = body.split_first_chunk_mut() else {
        return;
    };
    *address = target.octets();
    if let (Some(MacAddress([a, b, c, d, e, f])), Some(option)) =
        (link_layer, option.first_chunk_mut())
    {
        *option = [option_type, 1, a, b, c, d, e, f];
    }
}
