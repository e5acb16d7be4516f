//! Where a source of packets is, as its neighbors and the prefixes of the links tell.

use core::net::Ipv6Addr;

use super::Ndp;
use super::neighbors::Identity;
use crate::context::Links;
use crate::link::{MAX_DOWNSTREAMS, Port, Prefix, Side};

impl Ndp<'_> {
    /// The side of a source: the downstream of a neighbor that has answered, or the only link with
    /// the source's prefix, or else the upstream. A neighbor counts only if its prefix is on a link
    /// of this router: a host must not pass for a source elsewhere.
    pub(crate) fn side_of(&self, links: &Links, source: Ipv6Addr) -> Side {
        if !self.is_on_link(source) {
            return Side::Upstream;
        }
        let neighbor = self.neighbors.get(Identity::Address(source));
        if let Some(neighbor) = neighbor.filter(|neighbor| neighbor.is_confirmed())
            && let Some((owner, _)) = self.neighbors.host_of(neighbor)
        {
            return Side::Downstream(owner.port);
        }
        let has_it = |side| {
            links
                .on(side)
                .is_some_and(|link| self.has_on(link.index, source))
        };
        let ports = 0..MAX_DOWNSTREAMS as Port;
        let mut with_it = ports.map(Side::Downstream).filter(|side| has_it(*side));
        match (with_it.next(), with_it.next()) {
            (Some(side), None) if !has_it(Side::Upstream) => side,
            _ => Side::Upstream,
        }
    }

    /// Is the source in a prefix on a link of this router?
    pub(crate) fn is_on_link(&self, source: Ipv6Addr) -> bool {
        self.own.iter().any(|own| own.prefix_contains(source))
    }

    /// Is the source in a prefix on the interface with this index?
    fn has_on(&self, index: u32, source: Ipv6Addr) -> bool {
        let mut on_it = self.own.iter().filter(|own| own.index == index);
        on_it.any(|own| own.prefix_contains(source))
    }
}

impl super::Own {
    fn prefix_contains(&self, source: Ipv6Addr) -> bool {
        let prefix = Prefix::of(self.address, self.prefix_length);
        prefix.is_ok_and(|prefix| prefix.contains(source))
    }
}
