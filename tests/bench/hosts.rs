//! Hosts of the LAN, each with a link-layer address and a global address of its own.

use std::ops::RangeInclusive;

use crate::lab::{self, Frame, Lab, Process, Tap, UPSTREAM, solicited_node};
use crate::support::{self, SOON, UNLIMITED, address, expect_joined, start};

pub fn mac(number: u16) -> [u8; 6] {
    let [high, low] = number.to_be_bytes();
    [2, 7, 0, 0, high, low]
}

/// A host's, for the router.
pub fn solicitation(number: u16) -> Frame {
    support::solicitation(mac(number), address(number), lab::LAN_ROUTER)
}

/// A network whose hosts speak once and are kept, by an mldproxy with a time that is long enough for that.
pub fn silent(hosts: u16) -> (Lab, Process) {
    let lab = Lab::without_querier();
    let options = ["--log-level", "info", "--address-timeout", "3600"];
    let mldproxy = start(&lab, &[&options[..], UNLIMITED].concat());
    let tap = Tap::open(&lab.lan, "eth0");
    introduce(&lab, &tap, 1..=hosts, |number| vec![solicitation(number)]);
    let addresses: Vec<_> = (1..=hosts).map(address).collect();
    expect_joined(&lab, &addresses);
    (lab, mldproxy)
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
