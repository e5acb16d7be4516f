//! The cost of hosts that answer: mldproxy queries each host over and over, receives its reports,
//! and reports its group upstream. Each host has a link-layer and a link-local address of its own.
//! The times are the defaults.

use std::net::Ipv6Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use protocol::wire::{ALL_MLDV2_ROUTERS, Message, RecordType, ReportBuilder, parse};

use crate::hosts::{introduce, mac};
use crate::lab::{self, Frame, Lab, Tap, UPSTREAM, solicited_node};
use crate::measure::{cpu, wake_ups};
use crate::support::{self, address, start, status};

const HOSTS: u16 = 4096;
const MINUTE: Duration = Duration::from_secs(60);

pub fn section() -> String {
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
    let mldproxy = start(&lab, &options);
    let tap = Tap::open(&lab.lan, "eth0");
    let enough = AtomicBool::new(false);
    thread::scope(|scope| {
        let answering = scope.spawn(|| answer_questions(&tap, &enough));
        introduce(&lab, &tap, 1..=HOSTS, |number| {
            let from = |source| support::solicitation(mac(number), source, lab::LAN_ROUTER);
            [link_local(number), address(number)].map(from).to_vec()
        });
        let before = (cpu(&mldproxy), wake_ups(&mldproxy));
        thread::sleep(MINUTE);
        let after = (cpu(&mldproxy), wake_ups(&mldproxy));
        enough.store(true, Ordering::Relaxed);
        let answered = answering.join().expect("the thread does not panic");
        let joined = lab.rtr.joined(UPSTREAM);
        let is_kept = |number: &u16| joined.contains(&solicited_node(address(*number)));
        format!(
            "## A minute with {HOSTS} hosts that answer\n\n\
             Each has a link-layer and a link-local address of its own, is asked over and over, \
             answers by an MLD report, and is reported upstream.\n\n\
             | | |\n|---|---|\n\
             | CPU, of one core | {:.2} % |\n| wake-ups | {} |\n\
             | questions answered since the start | {answered} |\n\
             | hosts still joined | {} |\n| memory of its own (RssAnon) | {} kB |\n\n",
            (after.0 - before.0) as f64 * 100.0 / MINUTE.as_nanos() as f64,
            after.1 - before.1,
            (1..=HOSTS).filter(is_kept).count(),
            status(&mldproxy, "RssAnon:"),
        )
    })
}

fn link_local(number: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 7, 0, number)
}

/// Answers each General Query to one of the hosts with the host's report. Returns the number of
/// answers.
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
        let _ = report.push(RecordType::ModeIsExclude, solicited_node(address(number)));
        let length = report.finish(query.destination).expect("the report fits");
        packet.truncate(length);
        tap.send(&Frame {
            source: mac(number),
            destination: lab::group_mac(ALL_MLDV2_ROUTERS),
            packet,
        });
        answered += 1;
    }
    answered
}
