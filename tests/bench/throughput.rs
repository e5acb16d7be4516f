//! A million solicitations from a thousand hosts at full speed: what each costs, beside a floor that only counts them.

use std::fs;
use std::net::Ipv6Addr;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv};
use nix::time::{ClockId, clock_gettime};
use protocol::wire::{MacAddress, NeighborSolicitation};

use crate::lab::{self, DOWNSTREAM, Frame, Lab, Process, Tap, UPSTREAM};
use crate::support::{UNLIMITED, address, expect_joined, start_between};
use crate::sys::packet::{Capture, Interest};

const FRAMES: usize = 1_000_000;
const HOSTS: u16 = 1_000;
const PAIRS: usize = 5;

/// What a run cost: packets taken, and nanoseconds of CPU.
struct Cost {
    taken: u64,
    cpu: u64,
}

impl Cost {
    fn each(&self) -> f64 {
        self.cpu as f64 / self.taken as f64
    }
}

pub fn measure() {
    let lab = Lab::without_querier();
    let options = ["--log-level", "info", "--address-timeout", "3600"];
    let options = [&options[..], UNLIMITED].concat();
    let tap = Tap::open(&lab.lan, "eth0");
    let frames: Vec<_> = (1..=HOSTS).map(frame).collect();
    println!("| a frame, of the floor | of mldproxy | ratio |\n|---|---|---|");
    let mut ratios = Vec::new();
    for _ in 0..PAIRS {
        let floor = floor(&lab, &tap, &frames);
        let mldproxy = start_between(&lab.rtr, &options, &[UPSTREAM, DOWNSTREAM]);
        frames.iter().for_each(|frame| tap.send(frame));
        let addresses: Vec<_> = (1..=HOSTS).map(address).collect();
        expect_joined(&lab, &addresses);
        let ours = daemon(&lab, &mldproxy, &tap, &frames);
        println!(
            "| {:.0} ns, {} lost | {:.0} ns, {} lost | {:.2} |",
            floor.each(),
            FRAMES as u64 - floor.taken,
            ours.each(),
            FRAMES as u64 - ours.taken,
            ours.each() / floor.each()
        );
        ratios.push(ours.each() / floor.each());
    }
    ratios.sort_by(f64::total_cmp);
    println!("| | median | {:.2} |", ratios[PAIRS / 2]);
}

fn send_all(tap: &Tap, frames: &[Frame]) {
    for number in 0..FRAMES {
        tap.send(&frames[number % frames.len()]);
    }
}

fn floor(lab: &Lab, tap: &Tap, frames: &[Frame]) -> Cost {
    let done = AtomicBool::new(false);
    let (ready, is_ready) = mpsc::channel();
    thread::scope(|scope| {
        let counting = scope.spawn(|| lab.rtr.within(|| count(&ready, &done)));
        is_ready.recv().expect("it counts");
        send_all(tap, frames);
        thread::sleep(Duration::from_millis(200));
        done.store(true, Ordering::Relaxed);
        counting.join().expect("it does not panic")
    })
}

fn count(ready: &mpsc::Sender<()>, done: &AtomicBool) -> Cost {
    let index = nix::net::if_::if_nametoindex(DOWNSTREAM).expect("it is there");
    let capture = Capture::open(index, Interest::Hosts).expect("root");
    let mut buffer = [0; 2048];
    let mut taken = 0;
    ready.send(()).expect("somebody waits");
    let now = || {
        let now = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("Linux has it");
        now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
    };
    let before = now();
    while !done.load(Ordering::Relaxed) {
        let mut descriptors = [PollFd::new(capture.as_fd(), PollFlags::POLLIN)];
        poll(&mut descriptors, PollTimeout::from(50_u8)).expect("poll");
        while recv(
            capture.as_fd().as_raw_fd(),
            &mut buffer,
            MsgFlags::MSG_DONTWAIT,
        )
        .is_ok()
        {
            taken += 1;
        }
    }
    Cost {
        taken,
        cpu: now() - before,
    }
}

fn daemon(lab: &Lab, mldproxy: &Process, tap: &Tap, frames: &[Frame]) -> Cost {
    let solicitations = || {
        let status = lab.rtr.status("--json --limit 0");
        let (_, rest) = status
            .split_once("\"neighbor_solicitations\":")
            .expect("a counter");
        let digits = rest.split(|c: char| !c.is_ascii_digit()).next();
        digits
            .and_then(|digits| digits.parse::<u64>().ok())
            .expect("a number")
    };
    let before = (solicitations(), cpu(mldproxy));
    send_all(tap, frames);
    thread::sleep(Duration::from_millis(200));
    let after = (cpu(mldproxy), solicitations());
    Cost {
        taken: after.1 - before.0,
        cpu: after.0 - before.1,
    }
}

/// Nanoseconds on a CPU.
fn cpu(process: &Process) -> u64 {
    let path = format!("/proc/{}/schedstat", process.pid());
    let stat = fs::read_to_string(path).expect("it runs");
    stat.split(' ').next().unwrap().parse().expect("a number")
}

fn frame(number: u16) -> Frame {
    let [high, low] = number.to_be_bytes();
    let mac = [2, 7, 0, 0, high, low];
    let destination: Ipv6Addr = lab::solicited_node(lab::LAN_ROUTER);
    let solicitation = NeighborSolicitation {
        source: address(number),
        destination,
        target: lab::LAN_ROUTER,
        source_link_layer: Some(MacAddress(mac)),
    };
    let mut packet = vec![0; 128];
    let length = solicitation.emit(&mut packet).expect("it fits");
    packet.truncate(length);
    Frame {
        source: mac,
        destination: lab::group_mac(destination),
        packet,
    }
}
