//! What is lost of a stream when it starts, and when the router's programs are killed.

use std::net::Ipv6Addr;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::flow::{PATIENCE, listen};
use super::peers::{self, Start};
use super::{Kind, home, snooping_home, start};
use crate::lab::{DOWNSTREAM, SOURCE, Sender, StreamLab, UPSTREAM, eventually};
use crate::measure::{median, percentile, verdict};

const STARTS: u16 = 10;
/// The datagrams of a stream that starts, and how many there are in a second.
const DATAGRAMS: u64 = 1_000;
const PER_SECOND: u32 = 20_000;
const RESTARTS: u16 = 5;
/// The pace of the stream whose router is killed.
const CALM: u32 = 1_000;
/// A long time for datagrams that are on their way.
const ARRIVAL: Duration = Duration::from_millis(300);
const KIND: Kind = Kind::Specific;

pub fn table() -> String {
    let mldproxy: Start = |home, _| vec![start(home, &[])];
    let at_starts = [
        starts(&home(), mldproxy),
        starts(&snooping_home(), mldproxy),
    ];
    let at_restarts = restarts(&home(), mldproxy);
    let mut rows = row("mldproxy", &at_starts[0], &at_restarts);
    rows += &row("mldproxy, behind a switch that snoops", &at_starts[1], &[]);
    for (name, start) in [peers::frr(), peers::smcroute()].into_iter().flatten() {
        rows += &row(name, &starts(&home(), start), &restarts(&home(), start));
    }
    format!(
        "### What is lost\n\n\
         A host has joined, and then the stream starts: {STARTS} streams of {DATAGRAMS} datagrams, \
         {PER_SECOND} a second. And {RESTARTS} times the router's programs are killed (SIGKILL) and \
         started again at once, under a stream of {CALM} a second: with mldproxy and FRR the hosts \
         have to report anew. mldproxy's first query asks them to do so within 100 ms, FRR's within \
         10 s. smcroute reads what to forward from its configuration, and hears no host.\n\n\
         | datagrams lost | of each stream that starts | median of the kills | most |\n\
         |---|---|---|---|\n{rows}\n\
         mldproxy's at starts. {}\nThe median of its kills. {}\n",
        verdict(at_starts.iter().flatten().sum(), 0.0),
        verdict(median(&at_restarts), 100.0),
    )
}

fn row(name: &str, starts: &[f64], restarts: &[f64]) -> String {
    let starts: Vec<_> = starts.iter().map(f64::to_string).collect();
    let restarts = match restarts {
        [] => "| | |".to_owned(),
        kills => format!("| {} | {} |", median(kills), percentile(kills, 100)),
    };
    format!("| {name} | {} {restarts}\n", starts.join(" "))
}

/// The datagrams lost of each stream that starts after its listener joined.
fn starts(home: &StreamLab, start: Start) -> Vec<f64> {
    let groups: Vec<_> = (1..=STARTS).map(|number| KIND.group(number)).collect();
    let _running = start(home, &groups);
    let lost = |group: &Ipv6Addr| {
        let receiver = listen(home, KIND, *group);
        expect_way(home, *group);
        let mut sender = Sender::new(&home.lab.gw, "eth0", SOURCE, *group);
        sender.send(DATAGRAMS, PER_SECOND);
        thread::sleep(ARRIVAL);
        DATAGRAMS as f64 - receiver.count() as f64
    };
    groups.iter().map(lost).collect()
}

/// Waits until the stream of a group would reach the host.
fn expect_way(home: &StreamLab, group: Ipv6Addr) {
    home.expect_way(SOURCE, UPSTREAM, group, &[DOWNSTREAM], PATIENCE);
    // Without a querier the switch floods, and keeps no database to speak of.
    if home
        .lab
        .sw
        .run("ip -d link show dev br0")
        .contains("mcast_querier 1")
    {
        eventually("the switch knows of the router", PATIENCE, || {
            home.lab.mdb().contains(&group)
        });
    }
}

/// The datagrams lost each time that the router's programs are killed.
fn restarts(home: &StreamLab, start: Start) -> Vec<f64> {
    let group = KIND.group(1);
    let mut running = start(home, &[group]);
    let receiver = listen(home, KIND, group);
    expect_way(home, group);
    let _stream = Sender::new(&home.lab.gw, "eth0", SOURCE, group).start(CALM);
    receiver.wait_for_more(100, PATIENCE);
    let lost = |_| {
        let before = receiver.count();
        for process in &running {
            process.signal(Signal::SIGKILL);
            process.wait(PATIENCE);
        }
        running = start(home, &[group]);
        receiver.wait_for_more(200, PATIENCE);
        // The host's kernel repeats its report, and the next kill is not to meet that.
        thread::sleep(Duration::from_secs(2));
        let numbers = receiver.numbers_from(SOURCE);
        let since = &numbers[before.saturating_sub(1)..];
        let (first, last) = (since[0], since[since.len() - 1]);
        (last - first + 1) as f64 - since.len() as f64
    };
    (0..RESTARTS).map(lost).collect()
}
