//! What streams cost: memory, CPU and wake-ups.

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv6Addr;
use std::thread;
use std::time::Duration;

use protocol::wire::RecordType::{self, AllowNewSources, BlockOldSources, ChangeToExclude};

use super::flow::{PATIENCE, listen};
use super::{Kind, home, peers, start};
use crate::lab::{
    Process, Record, SOURCE, Sender, Speaker, StreamLab, UPSTREAM, eventually, poll_for,
};
use crate::measure::{cpu, verdict, wake_ups};
use crate::support::UNLIMITED;

/// How many groups a host listens to, where many hosts do.
const GROUPS_A_HOST: u16 = 10;
/// A packet of a host has so many records with 8 sources.
const RECORDS: usize = 8;
const CHANNELS: u16 = 20;
/// Once a host has changed what it listens to, the last of what follows comes within this time.
const SETTLED: Duration = Duration::from_secs(5);

/// The memory of a router's programs that is their own, in kB. RssAnon of /proc/PID/status, which is
/// less exact, tells the same.
fn own_memory(running: &[Process]) -> u64 {
    let of_process = |process: &Process| -> u64 {
        let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", process.pid()));
        let rollup = rollup.expect("the process runs");
        let line = rollup.lines().find(|line| line.starts_with("Anonymous:"));
        let words = line.and_then(|line| line.split_whitespace().nth(1));
        words
            .and_then(|kilobytes| kilobytes.parse().ok())
            .expect("a number")
    };
    running.iter().map(of_process).sum()
}

/// The first groups of a kind, as many as `count`.
fn groups(kind: Kind, count: u16) -> Vec<Ipv6Addr> {
    (1..=count).map(|number| kind.group(number)).collect()
}

pub fn memory() -> String {
    let many = many_groups();
    let sources: Vec<_> = (0x100..0x108)
        .map(|last| Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, last))
        .collect();
    let of = |options, kind, count, sources: &[Ipv6Addr]| {
        with_groups(mldproxy(options), kind, count, sources).expect("mldproxy forwards all")
    };
    let at_start = of(&[], Kind::Specific, 0, &[]);
    let home_use = of(&[], Kind::Specific, CHANNELS, &[SOURCE]);
    let one = of(&many, Kind::Specific, 1024, &[SOURCE]);
    let eight = of(&many, Kind::Specific, 1024, &sources);
    let any = of(&many, Kind::Any, 4096, &[]);
    let mut of_peers = String::new();
    if let Some((name, start)) = peers::frr() {
        let of = |count, sources: &[Ipv6Addr]| {
            let memory = with_groups(|home| start(home, &[]), Kind::Specific, count, sources);
            memory.map_or_else(|| "—".to_owned(), |memory| format!("{memory} kB"))
        };
        let [none, few] = [0, CHANNELS].map(|count| of(count, &[SOURCE]));
        let [one, eight] = [&[SOURCE][..], &sources].map(|sources| of(1024, sources));
        of_peers += &format!("| {name} | {none} | {few} | {one} | {eight} | |\n");
    }
    if let Some((name, start)) = peers::smcroute() {
        let [none, few, one] = [0, CHANNELS, 1024].map(|count| {
            let home = home();
            own_memory(&start(&home, &groups(Kind::Specific, count)))
        });
        of_peers += &format!("| {name} | {none} kB | {few} kB | {one} kB | | |\n");
    }
    format!(
        "### Memory\n\n\
         Of its own (Anonymous of /proc/PID/smaps_rollup), with `--mld-proxy`. The groups of the \
         columns have one source, eight sources, and any source; {GROUPS_A_HOST} groups a host. \
         FRR's is that of pim6d and zebra together; a dash stands where it did not forward all.\n\n\
         | | no group | {CHANNELS} × 1 | 1,024 × 1 | 1,024 × 8 | 4,096, any source |\n\
         |---|---|---|---|---|---|\n\
         | mldproxy | {at_start} kB | {home_use} kB | {one} kB | {eight} kB | {any} kB |\n{}\n\
         With {CHANNELS} channels, in kB. {}\nWith 1,024 groups of one source. {}\n\
         With 1,024 groups of eight. {}\n",
        of_peers,
        verdict(home_use as f64, 330.0),
        verdict(one as f64, 900.0),
        verdict(eight as f64, 900.0),
    )
}

/// The options for more groups than a home has.
fn many_groups() -> Vec<&'static str> {
    [UNLIMITED, &["--max-groups", "4096"]].concat()
}

/// What starts mldproxy with these options.
fn mldproxy<'o>(options: &'o [&'o str]) -> impl Fn(&StreamLab) -> Vec<Process> + 'o {
    |home| vec![start(home, options)]
}

/// The memory of a router's programs whose hosts listen to so many groups; `None` if the programs do
/// not forward all of them.
fn with_groups(
    start: impl Fn(&StreamLab) -> Vec<Process>,
    kind: Kind,
    count: u16,
    sources: &[Ipv6Addr],
) -> Option<u64> {
    let home = home();
    let running = start(&home);
    let groups = groups(kind, count);
    let entries = groups.len() * sources.len().max(1);
    // A program may lose reports that come faster than it reads.
    let taken = poll_for(PATIENCE, || {
        report_all(&home, kind, &groups, sources);
        let is_there = || (home.entries().len() == entries).then_some(());
        poll_for(PATIENCE / 10, is_there)
    });
    taken?;
    thread::sleep(SETTLED);
    Some(own_memory(&running))
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
    let of_mldproxy = cpu_of_changes(mldproxy(&many_groups()));
    let [joins, churn] = of_mldproxy.expect("mldproxy takes all");
    let frr = peers::frr().map(|(name, start)| {
        let figures = cpu_of_changes(|home| start(home, &[]));
        let figures = figures.map(|seconds| seconds.map(|seconds| format!("{seconds:.3} s")));
        let [joins, churn] = figures.unwrap_or_else(|| ["—".to_owned(), "—".to_owned()]);
        format!("| {name} | {joins} | {churn} |\n")
    });
    format!(
        "### CPU of listeners that come and go\n\n\
         {HOSTS} hosts join {GROUPS_A_HOST} groups of one source each, a packet a join; then each \
         leaves and joins twice, {} changes more. It is the CPU of all that follows: queries, \
         memberships upstream and forwarding entries, system calls included. A dash stands where not \
         all had forwarding entries in the end.\n\n\
         | | {JOINS} joins | {} changes |\n|---|---|---|\n\
         | mldproxy | {joins:.3} s | {churn:.3} s |\n{}\n\
         mldproxy's joins, in seconds. {}\nIts changes. {}\n",
        4 * JOINS,
        4 * JOINS,
        frr.unwrap_or_default(),
        verdict(joins, 0.03),
        verdict(churn, 0.19),
    )
}

/// The seconds of CPU that the joins took, and those of the changes after them; `None` if the
/// programs did not take all.
fn cpu_of_changes(start: impl Fn(&StreamLab) -> Vec<Process>) -> Option<[f64; 2]> {
    let home = home();
    let running = start(&home);
    let spent = || running.iter().map(cpu).sum::<u64>() as f64 / 1e9;
    let groups = groups(Kind::Specific, JOINS);
    let before = spent();
    report_one_by_one(&home, AllowNewSources, &groups);
    let all_there = || (home.entries().len() == groups.len()).then_some(());
    poll_for(PATIENCE, all_there)?;
    thread::sleep(SETTLED);
    let joined = spent();
    for kind in [
        BlockOldSources,
        AllowNewSources,
        BlockOldSources,
        AllowNewSources,
    ] {
        report_one_by_one(&home, kind, &groups);
    }
    thread::sleep(SETTLED);
    all_there()?;
    Some([joined - before, spent() - joined])
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
