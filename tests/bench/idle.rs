//! The cost of mldproxy while nothing happens, beside that of the NDP proxies in Debian.

use std::thread;
use std::time::Duration;

use crate::hosts::silent;
use crate::lab::{Lab, Process, UPSTREAM};
use crate::measure::{cpu, packets, wake_ups};
use crate::upstream::ndp_proxies;

const IDLE: Duration = Duration::from_secs(120);
const HOSTS: u16 = 10;

/// The counters of a process at one time. CPU is in nanoseconds.
struct Counts {
    wake_ups: u64,
    cpu: u64,
    sent: u64,
}

pub fn section() -> String {
    let labs: Vec<_> = ndp_proxies()
        .map(|(name, start)| (name, Lab::without_querier(), start))
        .collect();
    let running: Vec<_> = labs
        .iter()
        .map(|(name, lab, start)| (*name, lab, start(lab)))
        .collect();
    let (mldproxy_lab, mldproxy) = silent(HOSTS);
    thread::sleep(Duration::from_secs(5));
    let all = running
        .iter()
        .map(|(name, lab, process)| (format!("{name}, no host"), *lab, process))
        .chain([(
            format!("mldproxy, {HOSTS} hosts that never answer"),
            &mldproxy_lab,
            &mldproxy,
        )]);
    let all: Vec<_> = all.collect();
    let before: Vec<_> = all
        .iter()
        .map(|(_, lab, process)| counts(lab, process))
        .collect();
    thread::sleep(IDLE);
    let mut rows = String::new();
    for ((name, lab, process), before) in all.iter().zip(before) {
        let after = counts(lab, process);
        rows += &format!(
            "| {name} | {} | {:.2} ms | {} |\n",
            after.wake_ups - before.wake_ups,
            (after.cpu - before.cpu) as f64 / 1e6,
            after.sent - before.sent
        );
    }
    let seconds = IDLE.as_secs();
    format!(
        "## {seconds} idle seconds\n\n\
         All at the same time, each in a network of its own, in which nobody says anything. \
         Wake-ups are the process's voluntary context switches; packets are all that left the \
         upstream, the kernel's among them.\n\n\
         | | wake-ups | CPU | packets upstream |\n|---|---|---|---|\n{rows}\n"
    )
}

fn counts(lab: &Lab, process: &Process) -> Counts {
    Counts {
        wake_ups: wake_ups(process),
        cpu: cpu(process),
        sent: packets(&lab.rtr, UPSTREAM, "TX:"),
    }
}
