//! What streams cost: memory, CPU and wake-ups.

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv6Addr;
use std::thread;
use std::time::Duration;

use protocol::wire::RecordType::{self, AllowNewSources, BlockOldSources, ChangeToExclude};

use super::flow::{PATIENCE, listen};
use super::{Kind, home, peers, start};
use crate::lab::{Process, Record, SOURCE, Sender, Speaker, StreamLab, UPSTREAM, eventually};
use crate::measure::{cpu, verdict, wake_ups};
use crate::support::UNLIMITED;

/// How many groups a host listens to, where many hosts do.
const GROUPS_A_HOST: u16 = 10;
/// A packet of a host has so many records with 8 sources.
const RECORDS: usize = 8;
const CHANNELS: u16 = 20;
/// Once a host has changed what it listens to, the last of what follows comes within this time.
const SETTLED: Duration = Duration::from_secs(5);

/// The memory of a process's own, in kB. RssAnon of /proc/PID/status, which is less exact, tells the
/// same.
fn own_memory(process: &Process) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", process.pid()));
    let rollup = rollup.expect("the process runs");
    let line = rollup.lines().find(|line| line.starts_with("Anonymous:"));
    let words = line.and_then(|line| line.split_whitespace().nth(1));
    words
        .and_then(|kilobytes| kilobytes.parse().ok())
        .expect("a number")
}

/// The first groups of a kind, as many as `count`.
fn groups(kind: Kind, count: u16) -> Vec<Ipv6Addr> {
    (1..=count).map(|number| kind.group(number)).collect()
}

pub fn memory() -> String {
    let many = [UNLIMITED, &["--max-groups", "4096"]].concat();
    let sources: Vec<_> = (0x100..0x108)
        .map(|last| Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, last))
        .collect();
    let at_start = with_groups(&[], Kind::Specific, 0, &[]);
    let home_use = with_groups(&[], Kind::Specific, CHANNELS, &[SOURCE]);
    let one = with_groups(&many, Kind::Specific, 1024, &[SOURCE]);
    let eight = with_groups(&many, Kind::Specific, 1024, &sources);
    let any = with_groups(&many, Kind::Any, 4096, &[]);
    let peer = peers::smcroute().map(|(name, start)| {
        let [none, few, many] = [0, CHANNELS, 1024].map(|count| {
            let home = home();
            let groups = groups(Kind::Specific, count);
            own_memory(&start(&home, &groups))
        });
        format!("| {name} | {none} kB | {few} kB | {many} kB | | |\n")
    });
    format!(
        "### Memory\n\n\
         Of its own (Anonymous of /proc/PID/smaps_rollup), with `--mld-proxy`. The groups of the \
         columns have one source, eight sources, and any source; {GROUPS_A_HOST} groups a host.\n\n\
         | | no group | {CHANNELS} × 1 | 1,024 × 1 | 1,024 × 8 | 4,096, any source |\n\
         |---|---|---|---|---|---|\n\
         | mldproxy | {at_start} kB | {home_use} kB | {one} kB | {eight} kB | {any} kB |\n{}\n\
         With {CHANNELS} channels, in kB. {}\nWith 1,024 groups of one source. {}\n\
         With 1,024 groups of eight. {}\n",
        peer.unwrap_or_default(),
        verdict(home_use as f64, 330.0),
        verdict(one as f64, 900.0),
        verdict(eight as f64, 900.0),
    )
}

/// The memory of an mldproxy whose hosts listen to so many groups.
fn with_groups(options: &[&str], kind: Kind, count: u16, sources: &[Ipv6Addr]) -> u64 {
    let home = home();
    let mldproxy = start(&home, options);
    let groups = groups(kind, count);
    report_all(&home, kind, &groups, sources);
    expect_joined(&home, &groups);
    let entries = groups.len() * sources.len().max(1);
    eventually("the entries are there", PATIENCE, || {
        home.entries().len() == entries
    });
    thread::sleep(SETTLED);
    own_memory(&mldproxy)
}

fn expect_joined(home: &StreamLab, groups: &[Ipv6Addr]) {
    let groups: BTreeSet<_> = groups.iter().copied().collect();
    eventually("the groups are joined upstream", PATIENCE, || {
        groups.is_subset(&home.lab.rtr.memberships(UPSTREAM))
    });
}

/// Hosts report that they listen to groups.
fn report_all(home: &StreamLab, kind: Kind, groups: &[Ipv6Addr], sources: &[Ipv6Addr]) {
    let joins = match kind {
        Kind::Specific => AllowNewSources,
        Kind::Any => ChangeToExclude,
    };
    let records: Vec<_> = groups
        .iter()
        .map(|group| Record::new(joins, *group, sources))
        .collect();
    let mut host = speaker(home);
    for (number, records) in (1..).zip(records.chunks(GROUPS_A_HOST.into())) {
        become_host(&mut host, number);
        for records in records.chunks(RECORDS) {
            host.report(records);
        }
        if number % 50 == 0 {
            // As many as a capture has room for.
            thread::sleep(Duration::from_millis(50));
        }
    }
}

fn speaker(home: &StreamLab) -> Speaker {
    Speaker::new(&home.listeners[0], "eth0", Ipv6Addr::UNSPECIFIED)
}

/// Speaks as the host with a number from now on.
fn become_host(host: &mut Speaker, number: u16) {
    let [high, low] = number.to_be_bytes();
    host.mac = [2, 0, 0, 0x77, high, low];
    host.source = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0x77, number);
}

const HOSTS: u16 = 100;
const JOINS: u16 = HOSTS * GROUPS_A_HOST;

pub fn changes() -> String {
    let home = home();
    let mldproxy = start(&home, &[UNLIMITED, &["--max-groups", "4096"]].concat());
    let [joins, churn] = cpu_of_changes(&home, &mldproxy);
    format!(
        "### CPU of listeners that come and go\n\n\
         {HOSTS} hosts join {GROUPS_A_HOST} groups of one source each, a packet a join; then each \
         leaves and joins twice, {} changes more. Of mldproxy it is all that follows: queries, \
         memberships upstream and forwarding entries, system calls included.\n\n\
         | | {JOINS} joins | {} changes |\n|---|---|---|\n\
         | mldproxy | {joins:.3} s | {churn:.3} s |\n\n\
         The joins, in seconds. {}\nThe changes. {}\n",
        4 * JOINS,
        4 * JOINS,
        verdict(joins, 0.03),
        verdict(churn, 0.19),
    )
}

/// The seconds of CPU that the joins took, and those of the changes after them.
fn cpu_of_changes(home: &StreamLab, mldproxy: &Process) -> [f64; 2] {
    let spent = || cpu(mldproxy) as f64 / 1e9;
    let groups = groups(Kind::Specific, JOINS);
    let before = spent();
    report_one_by_one(home, AllowNewSources, &groups);
    eventually("the entries are there", PATIENCE, || {
        home.entries().len() == groups.len()
    });
    thread::sleep(SETTLED);
    let joined = spent();
    for kind in [
        BlockOldSources,
        AllowNewSources,
        BlockOldSources,
        AllowNewSources,
    ] {
        report_one_by_one(home, kind, &groups);
    }
    thread::sleep(SETTLED);
    assert_eq!(home.entries().len(), groups.len());
    [joined - before, spent() - joined]
}

/// Each group's host reports it in a packet of its own, in some 3,000 packets a second.
fn report_one_by_one(home: &StreamLab, kind: RecordType, groups: &[Ipv6Addr]) {
    let mut host = speaker(home);
    for (number, group) in (0..).zip(groups) {
        become_host(&mut host, 1 + number / GROUPS_A_HOST);
        host.reports(kind, *group, &[SOURCE]);
        thread::sleep(Duration::from_micros(250));
    }
}

const DATAGRAMS: u64 = 100_000;
const PER_SECOND: u32 = 20_000;
/// Two queries come in this time, and four refreshes.
const IDLE: Duration = Duration::from_secs(250);
/// From the start until the startup queries are over.
const STARTED: Duration = Duration::from_secs(40);

pub fn idle() -> String {
    let home = home();
    let mldproxy = start(&home, &[]);
    let channels = groups(Kind::Specific, CHANNELS);
    let listeners = channels
        .iter()
        .map(|group| listen(&home, Kind::Specific, *group));
    let listeners: Vec<_> = listeners.collect();
    expect_joined(&home, &channels);
    thread::sleep(STARTED);

    let before = (cpu(&mldproxy), wake_ups(&mldproxy));
    let mut sender = Sender::new(&home.lab.gw, "eth0", SOURCE, channels[0]);
    let numbers = sender.send(DATAGRAMS, PER_SECOND);
    listeners[0].expect_all(SOURCE, numbers, PATIENCE);
    let passed = (cpu(&mldproxy), wake_ups(&mldproxy));
    thread::sleep(IDLE);
    let after = (cpu(&mldproxy), wake_ups(&mldproxy));
    let minutes = IDLE.as_secs_f64() / 60.0;
    format!(
        "### While streams pass, and while nothing happens\n\n\
         A Linux host listens to {CHANNELS} channels. {DATAGRAMS} datagrams of one pass, \
         {PER_SECOND} a second: the kernel forwards them, and mldproxy sees none. Then nothing \
         happens for {} s: mldproxy queries, hears the host's answer, and refreshes its report.\n\n\
         | mldproxy | |\n|---|---|\n\
         | CPU while {DATAGRAMS} datagrams pass | {:.2} ms, {} wake-ups |\n\
         | wake-ups a minute | {:.1} |\n| CPU a minute | {:.2} ms |\n\n",
        IDLE.as_secs(),
        (passed.0 - before.0) as f64 / 1e6,
        passed.1 - before.1,
        (after.1 - passed.1) as f64 / minutes,
        (after.0 - passed.0) as f64 / 1e6 / minutes,
    )
}
