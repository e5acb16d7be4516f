//! The time from a new host's solicitation in the LAN to the MLD report upstream: mldproxy's own,
//! the kernel's behind it, and the kernel's behind a floor that only receives and joins.

use std::net::Ipv6Addr;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::net::if_::if_nametoindex;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use protocol::wire::{Message, parse};

use crate::lab::{DOWNSTREAM, Lab, Tap, UPSTREAM, solicited_node};
use crate::measure::{median, percentile, verdict};
use crate::support::{Host, UNLIMITED, address, start_between};
use daemon::sys::membership::Memberships;
use daemon::sys::packet::{Capture, Interest};

const ROUNDS: u16 = 5;
/// The hosts in each round, for the floor and for mldproxy each.
const HOSTS: u16 = 200;
const PATIENCE: Duration = Duration::from_secs(5);

pub fn section() -> String {
    let (mut floor, mut both) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        floor.extend(with_floor().into_iter().map(|[kernel]| kernel));
        both.extend(with_mldproxy());
    }
    let (mldproxy, kernel): (Vec<_>, Vec<_>) = both.into_iter().map(<[f64; 2]>::into).unzip();
    let row = |name: &str, delays: &[f64]| {
        format!(
            "| {name} | {:.2} ms | {:.2} ms |\n",
            median(delays),
            percentile(delays, 99)
        )
    };
    format!(
        "## From a new host to the report upstream\n\n\
         A host that was never heard solicits in the LAN; the time from there to the MLD report \
         of its group on the upstream's wire. mldproxy joins and reports by itself, and the kernel \
         reports the join after a delay of two ticks of its clock and more: the second report. The \
         floor receives by the same filter and joins, and does nothing else. ndppd and npd6 join \
         no host's group. {} hosts each, {ROUNDS} rounds in turn.\n\n\
         | solicitation → report on the wire | median | 99th percentile |\n|---|---|---|\n{}{}{}\n\
         The median of mldproxy's own report in milliseconds. {}\n",
        u32::from(ROUNDS) * u32::from(HOSTS),
        row("floor, the kernel's report", &floor),
        row("mldproxy, the kernel's report", &kernel),
        row("mldproxy, its own report", &mldproxy),
        verdict(median(&mldproxy), 1.0),
    )
}

fn with_mldproxy() -> Vec<[f64; 2]> {
    let lab = Lab::without_querier();
    let options = [&["--log-level", "info"], UNLIMITED].concat();
    let _mldproxy = start_between(&lab.rtr, &options, &[UPSTREAM, DOWNSTREAM]);
    delays(&lab)
}

fn with_floor() -> Vec<[f64; 1]> {
    let lab = Lab::without_querier();
    let done = AtomicBool::new(false);
    let (ready, is_ready) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| lab.rtr.within(|| receive_and_join(&ready, &done)));
        is_ready.recv().expect("the floor listens");
        let delays = delays(&lab);
        done.store(true, Ordering::Relaxed);
        delays
    })
}

fn receive_and_join(ready: &mpsc::Sender<()>, done: &AtomicBool) {
    let index = |name| if_nametoindex(name).expect("the interface exists");
    let capture = Capture::open(index(DOWNSTREAM), Interest::Hosts).expect("root");
    let upstream = index(UPSTREAM);
    let mut memberships = Memberships::new();
    let mut buffer = [0; 2048];
    let mut slot = 0;
    ready.send(()).expect("the benchmark waits");
    while !done.load(Ordering::Relaxed) {
        let mut descriptors = [PollFd::new(capture.as_fd(), PollFlags::POLLIN)];
        poll(&mut descriptors, PollTimeout::from(50_u8)).expect("poll");
        while let Some((packet, _)) = capture.receive(&mut buffer).expect("the link is up") {
            let Some(source) = packet
                .get(8..24)
                .and_then(|source| <[u8; 16]>::try_from(source).ok())
            else {
                continue;
            };
            let group = solicited_node(source.into());
            memberships
                .join(slot, group, upstream)
                .expect("the group is joined");
            slot += 1;
        }
    }
}

/// The delays in milliseconds of the first reports of a host's group, of one host after the other.
fn delays<const REPORTS: usize>(lab: &Lab) -> Vec<[f64; REPORTS]> {
    let wire = Tap::open(&lab.rtr, UPSTREAM);
    let host = Host::on(&lab.lan);
    let mut random = fastrand::Rng::with_seed(1);
    let delay = |number| {
        let address = address(number);
        // A random pause, since the report before went out at a tick of the kernel's clock.
        thread::sleep(Duration::from_micros(random.u64(..20_000)));
        let begin = Instant::now();
        host.solicits_from(address);
        let group = solicited_node(address);
        let reported = || wire.receive(PATIENCE).expect("the group is reported");
        std::array::from_fn(|_| {
            while !reports(&reported().packet, group) {}
            begin.elapsed().as_secs_f64() * 1000.0
        })
    };
    (1..=HOSTS).map(delay).collect()
}

pub fn reports(packet: &[u8], group: Ipv6Addr) -> bool {
    match parse(packet) {
        Ok(Message::ReportV2(report)) => report
            .records
            .into_iter()
            .any(|record| record.group == group),
        _ => false,
    }
}
