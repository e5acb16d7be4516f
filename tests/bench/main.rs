//! `cargo bench`: what mldproxy costs, as a Markdown table. Takes about three minutes, most of it idle on purpose.

#[path = "../netns/lab.rs"]
mod lab;
#[path = "../netns/support.rs"]
mod support;

use std::fs;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use lab::{Lab, LabOptions, Process, UPSTREAM};
use nix::sys::signal::Signal;
use support::{Host, SOON, UNLIMITED, address, expect_joined, start_between};

const IDLE: Duration = Duration::from_secs(120);

fn main() -> ExitCode {
    let missing = lab::missing_tools(lab::TOOLS);
    let refused = lab::isolate().err();
    if !missing.is_empty() || refused.is_some() {
        for reason in missing.iter().chain(&refused) {
            eprintln!("{reason}");
        }
        return ExitCode::FAILURE;
    }
    let octets = fs::metadata(env!("CARGO_BIN_EXE_mldproxy")).map_or(0, |file| file.len());
    println!("| what | figure |\n|---|---|");
    println!(
        "| program, for this machine, dynamically linked | {} kB |",
        octets / 1000
    );
    for hosts in [0, 10, 4096] {
        with_hosts(hosts);
    }
    ExitCode::SUCCESS
}

fn with_hosts(hosts: u16) {
    let lab = Lab::with(&LabOptions {
        querier: false,
        ..LabOptions::default()
    });
    // As it is run, but for a time that keeps hosts who never speak again.
    let options = ["--log-level", "info", "--address-timeout", "3600"];
    let options = [&options[..], UNLIMITED].concat();
    let mldproxy = start_between(&lab.rtr, &options, &[UPSTREAM, lab::DOWNSTREAM]);
    let addresses: Vec<_> = (1..=hosts).map(address).collect();
    Host::on(&lab.lan).solicits_from_all(&lab, &addresses);
    expect_joined(&lab, &addresses);
    println!(
        "| memory of its own (RssAnon), {hosts} hosts | {} kB |",
        status(&mldproxy, "RssAnon:")
    );
    println!(
        "| memory in all (VmRSS), {hosts} hosts | {} kB |",
        status(&mldproxy, "VmRSS:")
    );

    if hosts == 10 {
        let before = (wake_ups(&mldproxy), cpu(&mldproxy), transmitted(&lab));
        thread::sleep(IDLE);
        let after = (wake_ups(&mldproxy), cpu(&mldproxy), transmitted(&lab));
        let seconds = IDLE.as_secs();
        println!(
            "| wake-ups in {seconds} idle seconds, {hosts} hosts | {} |",
            after.0 - before.0
        );
        println!(
            "| CPU in {seconds} idle seconds, {hosts} hosts | {} ms |",
            (after.1 - before.1) * 10
        );
        println!(
            "| packets sent in {seconds} idle seconds, {hosts} hosts | {} |",
            after.2 - before.2
        );
    }

    let begin = Instant::now();
    mldproxy.signal(Signal::SIGTERM);
    mldproxy.wait(SOON);
    let milliseconds = begin.elapsed().as_millis();
    // The lab polls every 20 ms.
    println!("| SIGTERM to its end, {hosts} hosts, at most | {milliseconds} ms |");
}

/// A number of /proc/PID/status: for memory in kB.
fn status(process: &Process, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", process.pid())).expect("it runs");
    let line = status
        .lines()
        .find(|line| line.starts_with(field))
        .expect("the kernel tells it");
    let mut words = line.split_whitespace().skip(1);
    words.next().expect("a number").parse().expect("a number")
}

fn wake_ups(process: &Process) -> u64 {
    status(process, "voluntary_ctxt_switches:")
}

/// User and system time, in ticks of 10 ms.
fn cpu(process: &Process) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.pid())).expect("it runs");
    let (_, behind_name) = stat.rsplit_once(')').expect("a name");
    let words: Vec<&str> = behind_name.split_whitespace().collect();
    [11, 12]
        .iter()
        .map(|place| words[*place].parse::<u64>().expect("a number"))
        .sum()
}

/// Packets that the upstream sent, the kernel's included.
fn transmitted(lab: &Lab) -> u64 {
    let shown = lab.rtr.run(&format!("ip -s link show dev {UPSTREAM}"));
    let line = shown
        .lines()
        .last()
        .expect("its last line is of what was sent");
    let packets = line.split_whitespace().nth(1).expect("octets, packets");
    packets.parse().expect("a number")
}
