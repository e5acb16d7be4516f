//! A set of links, a bit each.

use crate::link::Side;

/// The lowest bit is the upstream's, and the next ones are the downstreams', by their ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ndp) struct Links(u64);

impl Links {
    pub(in crate::ndp) const NONE: Links = Links(0);

    /// One link.
    pub(in crate::ndp) fn only(side: Side) -> Self {
        Links(Links::bit(side))
    }

    /// The upstream and so many downstreams, all but one of them.
    pub(in crate::ndp) fn all_but(side: Side, downstreams: usize) -> Self {
        let mut links = Links(1);
        for port in 0..u8::try_from(downstreams).unwrap_or_default() {
            links.insert(Side::Downstream(port));
        }
        links.remove(side);
        links
    }

    pub(in crate::ndp) fn contains(self, side: Side) -> bool {
        self.0 & Links::bit(side) != 0
    }

    pub(in crate::ndp) fn insert(&mut self, side: Side) {
        self.0 |= Links::bit(side);
    }

    pub(in crate::ndp) fn remove(&mut self, side: Side) {
        self.0 &= !Links::bit(side);
    }

    /// The upstream, or else the first downstream.
    pub(in crate::ndp) fn first(self) -> Option<Side> {
        let lowest = u8::try_from(self.0.trailing_zeros()).ok()?;
        let port = lowest.checked_sub(1);
        (self != Links::NONE).then(|| port.map_or(Side::Upstream, Side::Downstream))
    }

    fn bit(side: Side) -> u64 {
        match side {
            Side::Upstream => 1,
            Side::Downstream(port) => 2_u64.rotate_left(port.into()),
        }
    }
}
