//! mldproxy as an MLD proxy (RFC 4605): streams come from the upstream to whom they are for, and to
//! nobody else. The tests judge by the kernel's tables and by the numbers of the datagrams.

pub mod edge;
pub mod filters;
pub mod found;
pub mod frr;
pub mod hostile;
pub mod leaving;
pub mod links;
pub mod owners;
pub mod queriers;
pub mod scale;
pub mod scopes;
pub mod snooping;
pub mod starts;
pub mod told;
pub mod versions;

use std::net::Ipv6Addr;

use crate::lab::{DOWNSTREAM, GUEST, Process, Receiver, SOURCE, Sender, StreamLab, UPSTREAM};
use crate::support::{SOON, start_between};

/// So that what follows a leave takes no second.
const QUICK_LEAVE: &[&str] = &["--last-listener-interval", "0.1"];
/// So that a host of a busy machine has the time to answer: the last listener query time is 1.5 s.
const PATIENT_LEAVE: &[&str] = &["--last-listener-interval", "0.5", "--robustness", "3"];
/// The pace of a stream of which no datagram may be lost, however busy the machine is.
const CALM: u32 = 1_000;

/// Starts `mldproxy run --mld-proxy OPTIONS wan br-lan guest` on the router.
#[track_caller]
fn start(home: &StreamLab, options: &[&str]) -> Process {
    let options = [&["--mld-proxy"], options].concat();
    start_between(&home.lab.rtr, &options, &[UPSTREAM, DOWNSTREAM, GUEST])
}

/// The `number`th group for a source's own streams (RFC 4607), of global scope.
const fn source_specific(number: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xff3e, 0, 0, 0, 0, 0, 0x4000, number)
}

/// The `number`th group of global scope for any source.
const fn any_source(number: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xff0e, 0, 0, 0, 0, 0, 0x4000, number)
}

/// Sends from the upstream's first source.
#[track_caller]
fn upstream_sender(home: &StreamLab, group: Ipv6Addr) -> Sender {
    Sender::new(&home.lab.gw, "eth0", SOURCE, group)
}

/// A host behind `br-lan` that listens to the upstream's first source.
#[track_caller]
fn lan_receiver(home: &StreamLab, group: Ipv6Addr) -> Receiver {
    Receiver::of_source(&home.listeners[0], "eth0", SOURCE, group)
}

/// The guest, which listens to the upstream's first source.
#[track_caller]
fn guest_receiver(home: &StreamLab, group: Ipv6Addr) -> Receiver {
    Receiver::of_source(&home.guest, "eth0", SOURCE, group)
}

/// Waits until streams of the upstream's first source to this group go to exactly these links.
#[track_caller]
fn expect_to(home: &StreamLab, group: Ipv6Addr, to: &[&str]) {
    home.expect_way(SOURCE, UPSTREAM, group, to, SOON);
}
