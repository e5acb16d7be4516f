//! Hosts in the LAN, each with a link-layer address and a global address of its own.

use std::ops::RangeInclusive;

use crate::lab::{self, Frame, Lab, Process, Tap, UPSTREAM, solicited_node};
use crate::support::{self, SOON, UNLIMITED, address, expect_joined, start};

pub fn mac(number: u16) -> [u8; 6] {
    let [high, low] = number.to_be_bytes();
    [2, 7, 0, 0, high, low]
}

/// The solicitation of a host for the router.
pub fn solicitation(number: u16) -> Frame {
    support::solicitation(mac(number), address(number), lab::LAN_ROUTER)
}

/// A network whose hosts send once. An mldproxy with a long address timeout keeps them.
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

/// Sends the frames of each host until mldproxy has joined its group, few enough at once that no
/// queue overflows.
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
        lab::eventually("mldproxy joins the groups of these hosts", SOON, || {
            lab.rtr.joined(UPSTREAM).contains(&last)
        });
    }
}
