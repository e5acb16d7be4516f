//! Readings of a process, and statistics of several readings.

use std::fs;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::lab::{Namespace, Process};
use crate::support::status;

/// The nanoseconds that all threads of a process spent on a CPU.
pub fn cpu(process: &Process) -> u64 {
    let threads = fs::read_dir(format!("/proc/{}/task", process.pid()));
    let threads = threads.expect("the process runs");
    let of_thread = |folder: std::io::Result<fs::DirEntry>| -> Option<u64> {
        let statistics = fs::read_to_string(folder.ok()?.path().join("schedstat")).ok()?;
        statistics.split(' ').next()?.parse().ok()
    };
    threads.filter_map(of_thread).sum()
}

pub fn wake_ups(process: &Process) -> u64 {
    status(process, "voluntary_ctxt_switches:")
}

/// The packets that an interface sent (`TX:`) or received (`RX:`), the kernel's included.
pub fn packets(namespace: &Namespace, interface: &str, direction: &str) -> u64 {
    let shown = namespace.run(&format!("ip -s link show dev {interface}"));
    let mut lines = shown
        .lines()
        .skip_while(|line| !line.trim_start().starts_with(direction));
    // The columns are octets and packets.
    let packets = lines.nth(1).and_then(|line| line.split_whitespace().nth(1));
    packets
        .and_then(|packets| packets.parse().ok())
        .expect("a number")
}

/// The median; of an even number of figures, the lower one of the two in the middle.
pub fn median(figures: &[f64]) -> f64 {
    percentile(figures, 50)
}

/// The least figure that `percent` percent of the figures do not exceed.
pub fn percentile(figures: &[f64], percent: usize) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[(sorted.len() * percent).div_ceil(100).saturating_sub(1)]
}

/// A sentence with the goal, the figure, and whether the figure is at most the goal.
pub fn verdict(figure: f64, goal: f64) -> String {
    let met = if figure <= goal { "met" } else { "not met" };
    let figure = format!("{figure:.2}");
    let figure = figure.trim_end_matches(".00");
    format!("Goal: at most {goal}; **{met}** with {figure}.\n")
}

/// The CPU of a process: the first one for a sender, the last one for a receiver. With two CPUs or
/// more, the kernel's work to deliver a packet then counts as the sender's.
pub enum Place {
    Sender,
    Receiver,
}

/// Pins a process, or with 0 the calling thread, to the CPU of its place.
pub fn pin(process: Pid, place: &Place) {
    let allowed = sched_getaffinity(process).expect("the process runs");
    let mut numbers = (0..CpuSet::count()).filter(|number| allowed.is_set(*number) == Ok(true));
    let number = match place {
        Place::Sender => numbers.next(),
        Place::Receiver => numbers.next_back(),
    };
    let mut one = CpuSet::new();
    let number = number.expect("the process may run on a CPU");
    one.set(number).expect("in range");
    sched_setaffinity(process, &one).expect("the process runs");
}
