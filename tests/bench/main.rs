//! `cargo bench`: what mldproxy costs, as a Markdown table. Takes about four minutes, most of it waiting on purpose. `cargo bench --
//! instructions` counts those of a frame by callgrind, and `cargo bench -- throughput` has it take in a million frames beside a floor.

mod instructions;
#[path = "../netns/lab.rs"]
mod lab;
#[path = "../netns/support.rs"]
mod support;
#[path = "../../src/daemon/sys/mod.rs"]
#[allow(dead_code, unused_imports)]
mod sys;
mod throughput;

use std::fs;
use std::net::Ipv6Addr;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lab::{Frame, Lab, Process, Tap, UPSTREAM};
use nix::sys::signal::Signal;
use protocol::wire::{
    ALL_MLDV2_ROUTERS, MacAddress, Message, NeighborSolicitation, RecordType, ReportBuilder, parse,
};
use support::{Host, SOON, UNLIMITED, address, expect_joined, start_between, status};

const IDLE: Duration = Duration::from_secs(120);
const MINUTE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    if instructions::is_child() {
        return ExitCode::SUCCESS;
    }
    if std::env::args().any(|argument| argument == "instructions") {
        print!("{}", instructions::table());
        return ExitCode::SUCCESS;
    }
    let missing = lab::missing_tools(lab::TOOLS);
    let refused = lab::isolate().err();
    if !missing.is_empty() || refused.is_some() {
        for reason in missing.iter().chain(&refused) {
            eprintln!("{reason}");
        }
        return ExitCode::FAILURE;
    }
    if std::env::args().any(|argument| argument == "throughput") {
        throughput::measure();
        return ExitCode::SUCCESS;
    }
    println!("| what | figure |\n|---|---|");
    for hosts in [0, 10, 4096] {
        with_hosts(hosts);
    }
    with_answering_hosts(4096);
    ExitCode::SUCCESS
}

fn with_hosts(hosts: u16) {
    let lab = Lab::without_querier();
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

/// Each with a link-layer and a link-local address of its own, under the limits and times that are the default: what it costs to
/// ask them all, over and over, to hear their answers, and to report their groups.
fn with_answering_hosts(hosts: u16) {
    let lab = Lab::without_querier();
    let options = [
        "--log-level",
        "info",
        "--learn",
        "both",
        "--join-rate",
        "100000",
        "--join-burst",
        "100000",
    ];
    let mldproxy = start_between(&lab.rtr, &options, &[UPSTREAM, lab::DOWNSTREAM]);
    let tap = Tap::open(&lab.lan, "eth0");
    let enough = AtomicBool::new(false);
    thread::scope(|scope| {
        let answering = scope.spawn(|| answer_questions(&tap, &enough));
        for numbers in (1..=hosts).collect::<Vec<_>>().chunks(64) {
            for number in numbers {
                for source in [link_local(*number), address(*number)] {
                    speak(&tap, *number, source);
                }
            }
            let last = lab::solicited_node(address(numbers[numbers.len() - 1]));
            lab::eventually("these are joined", SOON, || {
                lab.rtr.joined(UPSTREAM).contains(&last)
            });
        }
        let before = (cpu(&mldproxy), wake_ups(&mldproxy));
        thread::sleep(MINUTE);
        let after = (cpu(&mldproxy), wake_ups(&mldproxy));
        // Ticks of 10 ms in 60 s, in hundredths of a percent.
        let share = (after.0 - before.0) * 10_000 / 6000;
        println!(
            "| CPU while {hosts} hosts are asked, answer and are reported, of one core | {}.{:02} % |",
            share / 100,
            share % 100
        );
        println!("| wake-ups in a minute of that | {} |", after.1 - before.1);
        println!(
            "| memory of its own (RssAnon) after that | {} kB |",
            status(&mldproxy, "RssAnon:")
        );
        let joined = lab.rtr.joined(UPSTREAM);
        let kept = (1..=hosts)
            .filter(|number| joined.contains(&lab::solicited_node(address(*number))))
            .count();
        println!("| hosts still joined after that | {kept} |");
        enough.store(true, Ordering::Relaxed);
        let answered = answering.join().expect("it does not panic");
        println!("| questions answered | {answered} |");
    });
}

fn mac(number: u16) -> [u8; 6] {
    let [high, low] = number.to_be_bytes();
    [2, 7, 0, 0, high, low]
}

fn link_local(number: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 7, 0, number)
}

fn speak(tap: &Tap, number: u16, source: Ipv6Addr) {
    let mut packet = vec![0; 128];
    let destination = lab::solicited_node(lab::LAN_ROUTER);
    let solicitation = NeighborSolicitation {
        source,
        destination,
        target: lab::LAN_ROUTER,
        source_link_layer: Some(MacAddress(mac(number))),
    };
    let length = solicitation.emit(&mut packet).expect("it fits");
    packet.truncate(length);
    let destination = lab::group_mac(destination);
    tap.send(&Frame {
        source: mac(number),
        destination,
        packet,
    });
}

/// Answers each General Query to one of the hosts with its report; how many there were.
fn answer_questions(tap: &Tap, enough: &AtomicBool) -> u32 {
    let mut answered = 0;
    while !enough.load(Ordering::Relaxed) {
        let Some(frame) = tap.receive(Duration::from_millis(100)) else {
            continue;
        };
        let Ok(Message::Query(query)) = parse(&frame.packet) else {
            continue;
        };
        let [2, 7, 0, 0, high, low] = frame.destination else {
            continue;
        };
        let number = u16::from_be_bytes([high, low]);
        let mut packet = vec![0; 128];
        let mut report = ReportBuilder::new(&mut packet);
        let _ = report.push(
            RecordType::ModeIsExclude,
            lab::solicited_node(address(number)),
        );
        let length = report.finish(query.destination).expect("it fits");
        packet.truncate(length);
        let destination = lab::group_mac(ALL_MLDV2_ROUTERS);
        tap.send(&Frame {
            source: mac(number),
            destination,
            packet,
        });
        answered += 1;
    }
    answered
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
