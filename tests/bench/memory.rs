//! The cost of hosts: memory, packets of a refresh, and time to exit; and the time from the start
//! to the first join.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use protocol::wire::{Message, RecordType, parse};

use crate::hosts::silent;
use crate::lab::{DOWNSTREAM, Lab, Process, Tap, UPSTREAM, solicited_node};
use crate::measure::{median, percentile};
use crate::support::{SOON, address, status};

const STARTS: usize = 20;
/// The silence after which no further packet is expected.
const PATIENCE: Duration = Duration::from_secs(5);

pub fn section() -> String {
    let rows: String = [0, 10, 1000, 4096].into_iter().map(with_hosts).collect();
    let starts: Vec<_> = (0..STARTS).map(|_| first_join()).collect();
    format!(
        "## Memory, and what hosts cost\n\n\
         Hosts, each with a link-layer address of its own, that speak once and are kept; the build \
         of the benchmark (x86-64, glibc, with symbols). Of its own is RssAnon, which a router has \
         to find; the rest of the memory are pages of files. That of ndppd and npd6, who keep no \
         hosts by themselves, is above. A refresh is what SIGHUP starts: the MLDv2 packets until \
         every group was reported. The end is from SIGTERM until the process is gone, looked for \
         every 20 ms.\n\n\
         | hosts | memory of its own | in all (VmRSS) | packets a refresh | the end within |\n\
         |---|---|---|---|---|\n{rows}\n\
         From exec to the first join, of a host in the kernel's neighbour table: {:.1} ms \
         (median of {STARTS}; at most {:.1} ms).\n\n",
        median(&starts),
        percentile(&starts, 100)
    )
}

fn with_hosts(hosts: u16) -> String {
    let (lab, mldproxy) = silent(hosts);
    let own = status(&mldproxy, "RssAnon:");
    let all = status(&mldproxy, "VmRSS:");
    let packets = packets_of_refresh(&lab, &mldproxy, hosts);

    let begin = Instant::now();
    mldproxy.signal(Signal::SIGTERM);
    mldproxy.wait(SOON);
    let end = begin.elapsed().as_millis();
    format!("| {hosts} | {own} kB | {all} kB | {packets} | {end} ms |\n")
}

/// The number of reports of a refresh until all groups were in one.
fn packets_of_refresh(lab: &Lab, mldproxy: &Process, hosts: u16) -> usize {
    let mut missing: BTreeSet<_> = (1..=hosts).map(address).map(solicited_node).collect();
    let wire = Tap::open(&lab.rtr, UPSTREAM);
    // Skips the kernel's reports of its joins.
    while wire.receive(PATIENCE).is_some() {}
    mldproxy.signal(Signal::SIGHUP);
    let mut packets = 0;
    while !missing.is_empty() {
        let frame = wire.receive(PATIENCE).expect("a report");
        let Ok(Message::ReportV2(report)) = parse(&frame.packet) else {
            continue;
        };
        let mut is_refresh = false;
        for record in report.records {
            is_refresh |= record.record_type == RecordType::ModeIsExclude;
            missing.remove(&record.group);
        }
        packets += usize::from(is_refresh);
    }
    packets
}

/// The milliseconds from exec to the first join.
fn first_join() -> f64 {
    let lab = Lab::without_querier();
    let host = address(1);
    lab.rtr.run(&format!(
        "ip -6 neigh add {host} lladdr 02:00:00:00:00:01 dev {DOWNSTREAM} nud stale"
    ));
    let group = format!("{:032x}", solicited_node(host).to_bits());
    lab.rtr.within(|| {
        let begin = Instant::now();
        let mut mldproxy = Command::new(env!("CARGO_BIN_EXE_mldproxy"))
            .args([
                "run",
                "--socket",
                &lab.rtr.control_socket,
                UPSTREAM,
                DOWNSTREAM,
            ])
            .stderr(Stdio::null())
            .spawn()
            .expect("mldproxy starts");
        let is_joined = || {
            let groups = fs::read_to_string("/proc/thread-self/net/igmp6").expect("IPv6 is on");
            groups.contains(&group)
        };
        while !is_joined() {
            assert!(begin.elapsed() < SOON, "mldproxy joined no group");
            thread::yield_now();
        }
        let milliseconds = begin.elapsed().as_secs_f64() * 1000.0;
        let pid = Pid::from_raw(mldproxy.id().cast_signed());
        kill(pid, Signal::SIGTERM).expect("our own child");
        mldproxy.wait().expect("mldproxy exits");
        milliseconds
    })
}
