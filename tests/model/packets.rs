//! What hosts and routers send.

use std::net::Ipv6Addr;

use protocol::engine::Event;
use protocol::link::Side;
use protocol::time::Duration;
use protocol::wire::{
    ALL_NODES, MacAddress, NeighborAdvertisement, NeighborSolicitation, Query, QueryVersion,
    RecordType, ReportBuilder, SolicitedNode, Sources,
};

/// A packet that the router heard on a link.
pub fn heard(side: Side, mac: MacAddress, packet: &[u8]) -> Event<'_> {
    Event::Packet { side, mac, packet }
}

/// The packet that `emit` writes.
pub fn emitted(emit: impl FnOnce(&mut [u8]) -> Option<usize>) -> Vec<u8> {
    let mut packet = vec![0; 1500];
    let length = emit(&mut packet).expect("it fits");
    packet.truncate(length);
    packet
}

/// A Neighbor Solicitation, to the target's solicited-node group.
pub fn solicitation(source: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    solicitation_by(source, target, None)
}

/// A Neighbor Solicitation, to the target's solicited-node group, with a link-layer address.
pub fn solicitation_by(source: Ipv6Addr, target: Ipv6Addr, mac: Option<MacAddress>) -> Vec<u8> {
    let solicitation = NeighborSolicitation {
        source,
        destination: SolicitedNode::of(target).group(),
        target,
        source_link_layer: mac,
    };
    emitted(|buffer| solicitation.emit(buffer))
}

/// A Neighbor Advertisement, solicited unless it is for all nodes.
pub fn advertisement(source: Ipv6Addr, destination: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    advertisement_by(source, destination, target, None)
}

/// A Neighbor Advertisement, solicited unless it is for all nodes, with a link-layer address.
pub fn advertisement_by(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    target: Ipv6Addr,
    mac: Option<MacAddress>,
) -> Vec<u8> {
    let advertisement = NeighborAdvertisement {
        source,
        destination,
        target,
        router: false,
        solicited: destination != ALL_NODES,
        override_flag: true,
        target_link_layer: mac,
    };
    emitted(|buffer| advertisement.emit(buffer))
}

/// An MLDv2 report.
pub fn report(source: Ipv6Addr, records: &[(RecordType, Ipv6Addr)]) -> Vec<u8> {
    emitted(|buffer| {
        let mut report = ReportBuilder::new(buffer);
        for (record_type, group) in records {
            assert!(report.push(*record_type, *group), "there is room");
        }
        report.finish(source)
    })
}

/// An MLDv2 report of one record, with sources.
pub fn record(
    source: Ipv6Addr,
    record_type: RecordType,
    group: Ipv6Addr,
    sources: &[Ipv6Addr],
) -> Vec<u8> {
    let mut octets = vec![0; 16 * sources.len()];
    let sources = Sources::write(sources.iter().copied(), &mut octets);
    emitted(|buffer| {
        let mut report = ReportBuilder::new(buffer);
        assert!(
            report.push_with(record_type, group, sources),
            "there is room"
        );
        report.finish(source)
    })
}

/// A query with the default response delay: a general one where the group is `::`.
pub fn query(source: Ipv6Addr, group: Ipv6Addr, version: QueryVersion<'_>) -> Vec<u8> {
    let destination = if group.is_unspecified() {
        ALL_NODES
    } else {
        group
    };
    let query = Query {
        source,
        destination,
        group,
        max_response_delay: Duration::from_secs(10),
        version,
    };
    emitted(|buffer| query.emit(buffer))
}

/// The fields of an MLDv2 query from a querier with this robustness variable and this query
/// interval in seconds.
pub fn v2(robustness: u8, query_interval: u64) -> QueryVersion<'static> {
    QueryVersion::V2 {
        suppress_router_processing: false,
        robustness,
        query_interval: Duration::from_secs(query_interval),
        sources: Sources::default(),
    }
}

/// Whether a query that carries `sent` tells of `interval`: the code of a Query Interval has five
/// significant bits, and none names a longer time (RFC 3810 §5.1.9).
pub fn is_sent_as(interval: Duration, sent: Duration) -> bool {
    let most = interval.as_secs();
    ((most * 15).div_ceil(16)..=most).contains(&sent.as_secs())
}
