//! What an engine knows. Tests read its state through this file alone.

use std::net::Ipv6Addr;

use protocol::engine::Engine;
use protocol::link::Side;
use protocol::ndp::kernel_entries::{KernelTable, Proxied};
use protocol::ndp::neighbors::{Identity, Neighbor, Sender};
use protocol::ndp::targets::Target;
use protocol::time::Instant;
use protocol::wire::SolicitedNode;

/// A neighbor as the engine knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    pub identity: Identity,
    pub owner: Sender,
    /// The neighbor's host has answered a question for it.
    pub is_confirmed: bool,
    pub last_seen: Instant,
}

impl Known {
    /// The neighbor's address, or `None` where only a listener is known.
    pub fn address(&self) -> Option<Ipv6Addr> {
        match self.identity {
            Identity::Address(address) => Some(address),
            Identity::Listener(..) => None,
        }
    }

    fn of(engine: &Engine<'_>, identity: Identity, neighbor: &Neighbor) -> Known {
        let (owner, _) = engine
            .ndp()
            .neighbors()
            .host_of(neighbor)
            .expect("each neighbor has a host");
        Known {
            identity,
            owner,
            is_confirmed: neighbor.is_confirmed(),
            last_seen: neighbor.last_seen,
        }
    }
}

/// All neighbors.
pub fn known(engine: &Engine<'_>) -> impl Iterator<Item = Known> {
    let neighbors = engine.ndp().neighbors().iter();
    neighbors.map(|(identity, neighbor)| Known::of(engine, identity, neighbor))
}

/// All addresses.
pub fn addresses(engine: &Engine<'_>) -> impl Iterator<Item = Ipv6Addr> {
    known(engine).filter_map(|known| known.address())
}

/// The neighbor with an address.
pub fn address(engine: &Engine<'_>, address: Ipv6Addr) -> Option<Known> {
    let identity = Identity::Address(address);
    let neighbor = engine.ndp().neighbors().get(identity)?;
    Some(Known::of(engine, identity, neighbor))
}

/// Has the host of an address answered a question for it?
pub fn is_confirmed(engine: &Engine<'_>, address: Ipv6Addr) -> bool {
    self::address(engine, address).is_some_and(|known| known.is_confirmed)
}

/// Each host with the number of its neighbors, and of the listeners among them.
pub fn hosts(engine: &Engine<'_>) -> impl Iterator<Item = (Sender, u16, u16)> {
    let hosts = engine.ndp().neighbors().hosts();
    hosts.map(|(sender, host)| (sender, host.neighbors, host.listeners))
}

/// Is a target present on the upstream's link?
pub fn is_upstream(engine: &Engine<'_>, target: Ipv6Addr) -> bool {
    let target = engine.ndp().targets().get(target);
    target.is_some_and(Target::is_present)
}

/// Has a target answered nowhere?
pub fn is_absent(engine: &Engine<'_>, target: Ipv6Addr) -> bool {
    let target = engine.ndp().targets().get(target);
    matches!(target, Some(Target::Absent(_)))
}

/// The side where the engine believes that a table has an address.
pub fn believed(proxied: &Proxied, table: KernelTable) -> Option<Side> {
    match table {
        KernelTable::Proxies => proxied.proxied.then_some(Side::Upstream),
        KernelTable::Routes => proxied.routed,
    }
}

/// Does somebody want a group?
pub fn is_wanted(engine: &Engine<'_>, group: SolicitedNode) -> bool {
    let group = engine.ndp().groups().get(group);
    group.is_some_and(|group| group.members > 0)
}
