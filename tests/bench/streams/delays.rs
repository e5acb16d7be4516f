//! From a report to the first datagram, and from a leave to the last.

use std::net::Ipv6Addr;
use std::thread;
use std::time::{Duration, Instant};

use nix::unistd::Pid;
use protocol::wire::RecordType;

use super::flow::{Flow, datagram_at, last_datagram_at, listen, milliseconds, report_at};
use super::{Kind, floor, home, peers, snooping_home, start};
use crate::lab::{SOURCE, Speaker, StreamLab, Tap};
use crate::measure::{Place, median, percentile, pin, verdict};
use crate::support::UNLIMITED;

/// How often each delay is taken.
const JOINS: u16 = 100;
const LEAVES: u16 = 5;
const FAST_LEAVES: u16 = 20;
/// From one datagram to the next: 10,000 a second where a stream begins, and 5,000 where it ends.
const INTERVAL: Duration = Duration::from_micros(100);
const END_INTERVAL: Duration = Duration::from_micros(200);
/// How often a host repeats its leave.
const REPEAT: Duration = Duration::from_millis(200);
/// The silence after which a stream has ended.
const SILENCE: Duration = Duration::from_millis(500);

const KINDS: [Kind; 2] = [Kind::Specific, Kind::Any];

pub fn beginnings() -> String {
    pin(Pid::from_raw(0), &Place::Receiver);
    let mldproxy = |home: &StreamLab| {
        let mldproxy = start(home, UNLIMITED);
        pin(mldproxy.pid(), &Place::Receiver);
        KINDS.map(|kind| first_datagrams(home, kind))
    };
    let floor = |home: &StreamLab| {
        KINDS.map(|kind| floor::beside(&home.lab.rtr, kind, || first_datagrams(home, kind)))
    };
    let frr = || {
        let (_, start) = peers::frr()?;
        let home = home();
        let running = start(&home, &[]);
        for process in &running {
            pin(process.pid(), &Place::Receiver);
        }
        Some([first_datagrams(&home, Kind::Specific), Vec::new()])
    };
    let there = mldproxy(&home());
    let frr_there = frr();
    let floor_there = floor(&home());
    let held_back = mldproxy(&snooping_home());
    let floor_held_back = floor(&snooping_home());
    let row = |name: &str, delays: &[Vec<f64>; 2]| {
        let [specific, any] = delays.each_ref().map(|delays| figures(delays, 99, 2));
        format!("| {name} | {specific} | {any} |\n")
    };
    format!(
        "### From a report to the first datagram\n\n\
         From the host's report on its link to the first datagram of the stream there, both times \
         taken by the kernel (SO_TIMESTAMPNS), so that the host's own delay does not count. The \
         stream has {} datagrams a second. Behind a switch that snoops, it is held back until the \
         router's report comes. The floor hears the report by the same filter, joins, and writes \
         the forwarding entry, and does nothing else: its report is the kernel's, which waits. FRR \
         is the querier of the hosts and speaks PIM upstream: it reports nothing there, and so gets \
         nothing behind such a switch. Without a rendezvous point it forwards no group of any \
         source. Medians and 99th percentiles of {JOINS} joins.\n\n\
         | | SSM | any source |\n|---|---|---|\n{}{}{}{}{}\n\
         The median with the stream there, in milliseconds. {}\n\
         That behind a switch. {}\n",
        1_000_000 / INTERVAL.as_micros(),
        row("mldproxy, the stream is there", &there),
        frr_there.map_or_else(String::new, |delays| row(
            "FRR, the stream is there",
            &delays
        )),
        row("floor, the stream is there", &floor_there),
        row("mldproxy, behind a switch that snoops", &held_back),
        row("floor, behind a switch that snoops", &floor_held_back),
        verdict(worst(&there), 0.3),
        verdict(worst(&held_back), 1.0),
    )
}

/// The median and a percentile of delays in milliseconds; a dash if there are none.
fn figures(delays: &[f64], percent: usize, digits: usize) -> String {
    if delays.is_empty() {
        return "—".to_owned();
    }
    let [median, high] = [median(delays), percentile(delays, percent)];
    format!("{median:.digits$} ms, {high:.digits$} ms")
}

/// The greater of two medians.
fn worst([specific, any]: &[Vec<f64>; 2]) -> f64 {
    median(specific).max(median(any))
}

/// The milliseconds from a host's report to the first datagram, of one group after the other.
fn first_datagrams(home: &StreamLab, kind: Kind) -> Vec<f64> {
    let tap = Tap::open(&home.listeners[0], "eth0");
    let mut random = fastrand::Rng::with_seed(1);
    let delay = |number| {
        let group = kind.group(number);
        let _flow = Flow::start(home, group, INTERVAL);
        // A random pause, since the kernels of the host and of the router report at a tick.
        thread::sleep(Duration::from_micros(random.u64(..20_000)));
        let _receiver = listen(home, kind, group);
        let reported = report_at(&tap, group);
        milliseconds(reported, datagram_at(&tap, group))
    };
    (1..=JOINS).map(delay).collect()
}

pub fn endings() -> String {
    pin(Pid::from_raw(0), &Place::Receiver);
    let row = |name: &str, delays: [Vec<f64>; 2]| {
        let [specific, any] = delays.map(|delays| figures(&delays, 100, 1));
        format!("| {name} | {specific} | {any} |\n")
    };
    let frr = peers::frr().map(|(name, start)| {
        let home = home();
        let _running = start(&home, &[]);
        let delays = last_datagrams(&home, Kind::Specific, LEAVES);
        row(name, [delays, Vec::new()])
    });
    let home = home();
    let mldproxy = start(&home, &[]);
    let once = KINDS.map(|kind| last_datagrams(&home, kind, LEAVES));
    let repeated = KINDS.map(|kind| last_datagrams_of_repeated_leaves(&home, kind));
    drop(mldproxy);
    let fast = {
        let _mldproxy = start(&home, &["--fast-leave"]);
        KINDS.map(|kind| last_datagrams(&home, kind, FAST_LEAVES))
    };
    let longest = [&once, &repeated].map(worst);
    format!(
        "### From a leave to the last datagram\n\n\
         From the host's report that it leaves to the last datagram on its link, of {} a second. \
         The last listener query time is 2 s, in which another host may answer. A host that \
         repeats the leave each {} ms does not put the end off. `--fast-leave` ends the stream \
         without a query. smcroute does not hear of leaves. Medians and longest of {LEAVES} \
         leaves, and of {FAST_LEAVES} fast ones.\n\n\
         | | SSM | any source |\n|---|---|---|\n{}{}{}{}\n\
         The longest median with queries, in milliseconds. {}\n",
        1_000_000 / END_INTERVAL.as_micros(),
        REPEAT.as_millis(),
        row("mldproxy", once),
        row("mldproxy, the leave repeated", repeated),
        row("mldproxy --fast-leave", fast),
        frr.unwrap_or_default(),
        verdict(longest[0].max(longest[1]), 2010.0),
    )
}

fn last_datagrams(home: &StreamLab, kind: Kind, leaves: u16) -> Vec<f64> {
    let tap = Tap::open(&home.listeners[0], "eth0");
    let delay = |number| {
        let group = kind.group(0x1000 + number);
        let _flow = Flow::start(home, group, END_INTERVAL);
        let receiver = listen(home, kind, group);
        datagram_at(&tap, group);
        pass_repeats();
        while tap.receive(Duration::ZERO).is_some() {}
        match kind {
            Kind::Specific => receiver.leave_source(SOURCE),
            Kind::Any => receiver.leave(),
        }
        let left = report_at(&tap, group);
        let last = last_datagram_at(&tap, group, SILENCE, || {});
        last.map_or(0.0, |last| milliseconds(left, last))
    };
    (1..=leaves).map(delay).collect()
}

/// A host repeats its join within a second (RFC 3810 §6.1).
fn pass_repeats() {
    thread::sleep(Duration::from_millis(1200));
}

fn last_datagrams_of_repeated_leaves(home: &StreamLab, kind: Kind) -> Vec<f64> {
    let tap = Tap::open(&home.listeners[0], "eth0");
    let address = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xb0);
    let host = Speaker::new(&home.listeners[0], "eth0", address);
    let delay = |number| {
        let group = kind.group(0x2000 + number);
        let _flow = Flow::start(home, group, END_INTERVAL);
        let (join, leave) = match kind {
            Kind::Specific => (RecordType::AllowNewSources, RecordType::BlockOldSources),
            Kind::Any => (RecordType::ChangeToExclude, RecordType::ChangeToInclude),
        };
        let sources = match kind {
            Kind::Specific => &[SOURCE][..],
            Kind::Any => &[],
        };
        host.reports(join, group, sources);
        report_at(&tap, group);
        datagram_at(&tap, group);
        host.reports(leave, group, sources);
        let left = report_at(&tap, group);
        let mut repeated = Instant::now();
        let last = last_datagram_at(&tap, group, SILENCE, || {
            if repeated.elapsed() >= REPEAT {
                repeated = Instant::now();
                host.reports(leave, group, sources);
            }
        });
        last.map_or(0.0, |last| milliseconds(left, last))
    };
    (1..=LEAVES).map(delay).collect()
}
