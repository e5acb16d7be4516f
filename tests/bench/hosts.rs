//! Hosts of the LAN, each with a link-layer address and a global address of its own.

use std::ops::RangeInclusive;

use crate::lab::{self, Frame, Lab, Tap, UPSTREAM, solicited_node};
use crate::support::{self, SOON, address};

pub fn mac(number: u16) -> [u8; 6] {
    let [high, low] = number.to_be_bytes();
    [2, 7, 0, 0, high, low]
}

/// A host's, for the router.
pub fn solicitation(number: u16) -> Frame {
    support::solicitation(mac(number), address(number), lab::LAN_ROUTER)
}

/// Has each speak, in turns that no queue is too small for, until its group is joined.
pub fn introduce(
    lab: &Lab,
    tap: &Tap,
    numbers: RangeInclusive<u16>,
    frames: impl Fn(u16) -> Vec<Frame>,
) {
    for turn in numbers.collect::<Vec<_>>().chunks(64) {
        for frame in turn.iter().copied().flat_map(&frames) {
            tap.send(&frame);
        }
        let last = solicited_node(address(turn[turn.len() - 1]));
        lab::eventually("these are joined", SOON, || {
            lab.rtr.joined(UPSTREAM).contains(&last)
        });
    }
}
