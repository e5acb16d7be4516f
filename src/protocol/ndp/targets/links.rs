//! A set of links, a bit each.

use crate::link::Side;

/// The lowest bit is the upstream's, and the next ones are the downstreams', by their ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Links(u64);

impl Links {
    pub(super) const NONE: Links = Links(0);

    /// The upstream and so many downstreams, all but one of them.
    pub(super) fn all_but(side: Side, downstreams: usize) -> Self {
        let mut links = Links(1);
        for port in 0..u8::try_from(downstreams).unwrap_or_default() {
            links.insert(Side::Downstream(port));
        }
        links.remove(side);
        links
    }

    pub(super) fn contains(self, side: Side) -> bool {
        self.0 & Links::bit(side) != 0
    }

    pub(super) fn insert(&mut self, side: Side) {
        self.0 |= Links::bit(side);
    }

    pub(super) fn remove(&mut self, side: Side) {
        self.0 &= !Links::bit(side);
    }

    /// The upstream, or else the first downstream.
    pub(super) fn first(self) -> Option<Side> {
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
