//! What hosts say, and the packets that say it.

use std::net::Ipv6Addr;

use protocol::wire::{
    ALL_NODES, NeighborAdvertisement, NeighborSolicitation, RecordType, ReportBuilder,
    SolicitedNode,
};

/// What a packet says.
#[derive(Clone, Debug)]
pub enum Fact {
    Solicits {
        source: Ipv6Addr,
        target: Ipv6Addr,
    },
    Advertises {
        target: Ipv6Addr,
        to_router: bool,
    },
    /// Groups by their 24 bits, and whether the host listens to each.
    Reports {
        source: Ipv6Addr,
        groups: Vec<(u32, bool)>,
    },
}

impl Fact {
    /// The address that it speaks for.
    pub fn address(&self) -> Option<Ipv6Addr> {
        match self {
            Fact::Solicits { source, target } if source.is_unspecified() => Some(*target),
            Fact::Solicits { source, .. } => Some(*source),
            Fact::Advertises { target, .. } => Some(*target),
            Fact::Reports { .. } => None,
        }
    }

    /// The packet, which the router hears on a link where it is known by this address.
    pub fn packet(&self, router: Ipv6Addr) -> Vec<u8> {
        let mut packet = vec![0; 1500];
        let length = match self {
            Fact::Solicits { source, target } => {
                let solicitation = NeighborSolicitation {
                    source: *source,
                    destination: group_address(group_of(*target)),
                    target: *target,
                    source_link_layer: None,
                };
                solicitation.emit(&mut packet).unwrap()
            }
            Fact::Advertises { target, to_router } => {
                let destination = if *to_router { router } else { ALL_NODES };
                let advertisement = NeighborAdvertisement {
                    source: *target,
                    destination,
                    target: *target,
                    router: false,
                    solicited: *to_router,
                    override_flag: true,
                    target_link_layer: None,
                };
                advertisement.emit(&mut packet).unwrap()
            }
            Fact::Reports { source, groups } => {
                let mut report = ReportBuilder::new(&mut packet);
                for (group, listens) in groups {
                    let record_type = if *listens {
                        RecordType::ModeIsExclude
                    } else {
                        RecordType::ChangeToInclude
                    };
                    assert!(report.push(record_type, group_address(*group)));
                }
                report.finish(*source).unwrap()
            }
        };
        packet.truncate(length);
        packet
    }
}

/// The 24 bits of an address that make its solicited-node group.
pub fn group_of(address: Ipv6Addr) -> u32 {
    (address.to_bits() & 0xff_ffff) as u32
}

pub fn group_address(group: u32) -> Ipv6Addr {
    let base = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 0);
    Ipv6Addr::from_bits(base.to_bits() | u128::from(group))
}

pub fn solicited_node(group: u32) -> SolicitedNode {
    SolicitedNode::from_group(group_address(group)).unwrap()
}
