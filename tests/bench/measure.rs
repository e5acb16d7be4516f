//! What is read of a process, and what is made of several readings.

use std::fs;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::lab::{Namespace, Process};
use crate::support::status;

/// Nanoseconds on a CPU, of all its threads.
pub fn cpu(process: &Process) -> u64 {
    let threads = fs::read_dir(format!("/proc/{}/task", process.pid())).expect("it runs");
    let of_thread = |folder: std::io::Result<fs::DirEntry>| -> Option<u64> {
        let statistics = fs::read_to_string(folder.ok()?.path().join("schedstat")).ok()?;
        statistics.split(' ').next()?.parse().ok()
    };
    threads.filter_map(of_thread).sum()
}

pub fn wake_ups(process: &Process) -> u64 {
    status(process, "voluntary_ctxt_switches:")
}

/// Packets that an interface sent (`TX:`) or received (`RX:`), the kernel's included.
pub fn packets(namespace: &Namespace, interface: &str, direction: &str) -> u64 {
    let shown = namespace.run(&format!("ip -s link show dev {interface}"));
    let mut lines = shown
        .lines()
        .skip_while(|line| !line.trim_start().starts_with(direction));
    // Octets, packets.
    let packets = lines.nth(1).and_then(|line| line.split_whitespace().nth(1));
    packets
        .and_then(|packets| packets.parse().ok())
        .expect("a number")
}

/// The middle one, or the lower one of two.
pub fn median(figures: &[f64]) -> f64 {
    percentile(figures, 50)
}

/// What so many of a hundred are not above.
pub fn percentile(figures: &[f64], percent: usize) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[(sorted.len() * percent).div_ceil(100).saturating_sub(1)]
}

/// A goal, and whether a figure is at most that.
pub fn verdict(figure: f64, goal: f64) -> String {
    let met = if figure <= goal { "met" } else { "not met" };
    let figure = format!("{figure:.2}");
    let figure = figure.trim_end_matches(".00");
    format!("Goal: at most {goal}; **{met}** with {figure}.\n")
}

/// Who sends has the first CPU for itself, and who receives the last one, where there are two: what the kernel does to deliver a
/// packet then counts as the sender's.
pub enum Place {
    Sender,
    Receiver,
}

/// Puts a process, or with 0 the calling thread, in its place.
pub fn pin(process: Pid, place: &Place) {
    let allowed = sched_getaffinity(process).expect("it runs");
    let mut numbers = (0..CpuSet::count()).filter(|number| allowed.is_set(*number) == Ok(true));
    let number = match place {
        Place::Sender => numbers.next(),
        Place::Receiver => numbers.next_back(),
    };
    let mut one = CpuSet::new();
    one.set(number.expect("it runs on one")).expect("in range");
    sched_setaffinity(process, &one).expect("it runs");
}
