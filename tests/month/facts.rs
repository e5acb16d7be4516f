//! What hosts say, and the packets that say it.

use std::net::Ipv6Addr;

use model::packets::{advertisement, report, solicitation};
use protocol::wire::{ALL_NODES, RecordType, SolicitedNode};

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
    /// Groups by their low 24 bits, each with whether the host listens to it.
    Reports {
        source: Ipv6Addr,
        groups: Vec<(u32, bool)>,
    },
}

impl Fact {
    /// The address that the packet speaks for.
    pub fn address(&self) -> Option<Ipv6Addr> {
        match self {
            Fact::Solicits { source, target } if source.is_unspecified() => Some(*target),
            Fact::Solicits { source, .. } => Some(*source),
            Fact::Advertises { target, .. } => Some(*target),
            Fact::Reports { .. } => None,
        }
    }

    /// The packet. `router` is the router's address on the link.
    pub fn packet(&self, router: Ipv6Addr) -> Vec<u8> {
        match self {
            Fact::Solicits { source, target } => solicitation(*source, *target),
            Fact::Advertises { target, to_router } => {
                let destination = if *to_router { router } else { ALL_NODES };
                advertisement(*target, destination, *target)
            }
            Fact::Reports { source, groups } => {
                let record = |(group, listens): &(u32, bool)| {
                    let record_type = if *listens {
                        RecordType::ModeIsExclude
                    } else {
                        RecordType::ChangeToInclude
                    };
                    (record_type, group_address(*group))
                };
                let records: Vec<_> = groups.iter().map(record).collect();
                report(*source, &records)
            }
        }
    }
}

/// The low 24 bits of an address, which make its solicited-node group.
pub fn group_of(address: Ipv6Addr) -> u32 {
    (address.to_bits() & 0xff_ffff) as u32
}

fn group_address(group: u32) -> Ipv6Addr {
    let base = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 0);
    Ipv6Addr::from_bits(base.to_bits() | u128::from(group))
}

pub fn solicited_node(group: u32) -> SolicitedNode {
    SolicitedNode::from_group(group_address(group)).unwrap()
}
