//! The cost of each of a million solicitations from a thousand hosts at full speed, beside that of
//! a floor that only counts them.

use std::fs;
use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, recv, recvmmsg};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

use crate::hosts::{introduce, solicitation};
use crate::lab::{DOWNSTREAM, Frame, Lab, Tap, UPSTREAM};
use crate::measure::{Place, cpu, median, pin, verdict, wake_ups};
use crate::support::{UNLIMITED, start_between};
use daemon::run::rest::REST;
use daemon::sys::packet::{Capture, Interest};

pub const FRAMES: usize = 1_000_000;
pub const HOSTS: u16 = 1_000;
const ROUNDS: usize = 5;
/// The packets that the floor with recvmmsg takes at once.
const BATCH: usize = 8;
/// The silent descriptors that a floor waits for beside its own: as many as mldproxy has.
const SILENT: usize = 4;

/// The loops that only count, each with its ways to wait and to receive.
const FLOORS: [(&str, Wait, Receive); 4] = [
    ("floor", by_poll::<0>, one_by_one),
    ("floor that rests", by_rest_and_poll, one_by_one),
    (
        "floor, 8 at once by recvmmsg",
        by_poll::<0>,
        several_at_once,
    ),
    (
        "floor, poll for 4 more descriptors",
        by_poll::<SILENT>,
        one_by_one,
    ),
];
/// The column of the floor that rests.
const RESTING: usize = 1;
/// The column of mldproxy, behind those of the floors.
const MLDPROXY: usize = FLOORS.len();

/// Makes a function that waits until there is a packet, at most 50 ms.
type Wait = fn(&Capture) -> Box<dyn Fn() + '_>;
/// Makes a function that takes packets that are there now, and returns their number.
type Receive = fn(&Capture) -> Box<dyn FnMut() -> u64 + '_>;

/// The cost of receiving.
struct Cost {
    /// The packets taken.
    taken: u64,
    /// The CPU time in nanoseconds.
    cpu: u64,
    /// The times that the receiver slept.
    sleeps: u64,
}

impl Cost {
    fn each(&self) -> f64 {
        self.cpu as f64 / self.taken as f64
    }

    fn sleeps(&self) -> f64 {
        self.sleeps as f64 / self.taken as f64
    }

    /// The packets lost, in percent of those sent.
    fn lost(&self) -> f64 {
        100.0 - 100.0 * self.taken as f64 / FRAMES as f64
    }
}

pub fn section() -> String {
    let lab = Lab::without_querier();
    let tap = Tap::open(&lab.lan, "eth0");
    let frames: Vec<_> = (1..=HOSTS).map(solicitation).collect();
    pin(Pid::from_raw(0), &Place::Sender);
    let rounds: Vec<Vec<Cost>> = (0..ROUNDS)
        .map(|_| {
            let floors = FLOORS.iter();
            let floors =
                floors.map(|(_, wait, receive)| floor(&lab, &tap, &frames, *wait, *receive));
            floors.chain([daemon(&lab, &tap, &frames)]).collect()
        })
        .collect();

    let ratio_to = |floor: usize, column: usize| {
        let ratios = rounds
            .iter()
            .map(|round| round[column].each() / round[floor].each());
        median(&ratios.collect::<Vec<_>>())
    };
    let ratio = |column| ratio_to(0, column);
    let row = |name: &str, column: usize| {
        let of = |figure: fn(&Cost) -> f64| {
            median(
                &rounds
                    .iter()
                    .map(|round| figure(&round[column]))
                    .collect::<Vec<_>>(),
            )
        };
        let (each, lost, sleeps) = (of(Cost::each), of(Cost::lost), of(Cost::sleeps));
        format!(
            "| {name} | {each:.0} ns | {lost:.1} % | {sleeps:.2} | {:.2} |\n",
            ratio(column)
        )
    };
    let names = FLOORS
        .iter()
        .map(|(name, ..)| *name)
        .chain(["**mldproxy**"]);
    let rows: String = names
        .enumerate()
        .map(|(column, name)| row(name, column))
        .collect();
    format!(
        "## A million solicitations in the LAN\n\n\
         Neighbor Solicitations of {HOSTS} known hosts, {FRAMES} of them, sent as fast as one CPU \
         can over a veth; another CPU receives. The floor is a loop of poll and recv on the same \
         packet socket with the same filter, which counts; so are the others of that name, but \
         for what they say. CPU is that of the process, user and system; lost is what its socket \
         had no room for. mldproxy runs as by default, without `--ndp-proxy`, but with limits \
         that let all hosts in at once, and with an `--address-timeout` of an hour, so that none \
         is asked meanwhile. {ROUNDS} rounds, each of them in turn; medians, and the median of \
         the rounds' ratios.\n\n\
         | | CPU a frame | lost | sleeps a frame | ratio to the floor |\n\
         |---|---|---|---|---|\n{rows}\n{}\n\
         Most of what the floor costs is to be woken up, for a packet or two at a time. Under \
         load mldproxy rests: after a turn that read packets within 0.6 ms of the last such turn \
         it sleeps {} ms before it waits again, and the kernel gathers packets meanwhile. The \
         floor that rests does so too, and what it costs is to receive the packets. mldproxy \
         costs {:.2} times as much, for some 2,500 instructions a frame (callgrind, of the whole \
         process), of which the engine's are above, and for the tables of a thousand hosts, which \
         pass through the CPU's cache. A packet that comes alone waits for nothing, as the \
         latency below shows.\n\n",
        verdict(ratio(MLDPROXY), 0.5),
        REST.as_secs_f64() * 1000.0,
        ratio_to(RESTING, MLDPROXY),
    )
}

/// Sends [`FRAMES`] frames, these ones over and over, and waits until the receiver has had time for
/// the last ones.
pub fn send_all(tap: &Tap, frames: &[Frame]) {
    for number in 0..FRAMES {
        while tap.try_send(&frames[number % frames.len()]) == Err(Errno::ENOBUFS) {
            thread::yield_now();
        }
    }
    thread::sleep(Duration::from_millis(200));
}

/// Sends all frames to a floor, and returns its cost.
fn floor(lab: &Lab, tap: &Tap, frames: &[Frame], wait: Wait, receive: Receive) -> Cost {
    let done = AtomicBool::new(false);
    let (ready, is_ready) = mpsc::channel();
    thread::scope(|scope| {
        let counting = scope.spawn(|| lab.rtr.within(|| count(&ready, &done, wait, receive)));
        is_ready.recv().expect("the floor counts");
        send_all(tap, frames);
        done.store(true, Ordering::Relaxed);
        counting.join().expect("the thread does not panic")
    })
}

fn count(ready: &mpsc::Sender<()>, done: &AtomicBool, wait: Wait, receive: Receive) -> Cost {
    pin(Pid::from_raw(0), &Place::Receiver);
    let index = nix::net::if_::if_nametoindex(DOWNSTREAM).expect("the interface exists");
    let capture = Capture::open(index, Interest::Hosts).expect("root");
    let (wait, mut receive) = (wait(&capture), receive(&capture));
    let mut taken = 0;
    ready.send(()).expect("the benchmark waits");
    let now = || {
        let now = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("Linux has it");
        now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
    };
    let before = (now(), sleeps());
    while !done.load(Ordering::Relaxed) {
        wait();
        while let more @ 1.. = receive() {
            taken += more;
        }
    }
    Cost {
        taken,
        cpu: now() - before.0,
        sleeps: sleeps() - before.1,
    }
}

/// The times that the calling thread slept.
fn sleeps() -> u64 {
    let status = fs::read_to_string("/proc/thread-self/status").expect("the status of this thread");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.and_then(|count| count.trim().parse().ok())
        .expect("a number")
}

fn by_poll<const SILENT: usize>(capture: &Capture) -> Box<dyn Fn() + '_> {
    let silent = [(); SILENT].map(|()| nobody());
    Box::new(move || {
        let silent = silent.iter().map(UnixDatagram::as_fd);
        let all = silent.chain([capture.as_fd()]);
        let mut descriptors: heapless::Vec<_, 8> = all
            .map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN))
            .collect();
        poll(&mut descriptors, PollTimeout::from(50_u8)).expect("poll");
    })
}

/// Sleeps before each poll, as mldproxy does under load, so that the kernel gathers packets.
fn by_rest_and_poll(capture: &Capture) -> Box<dyn Fn() + '_> {
    let poll = by_poll::<0>(capture);
    Box::new(move || {
        thread::sleep(REST);
        poll();
    })
}

/// A socket that nobody sends to.
fn nobody() -> UnixDatagram {
    UnixDatagram::unbound().expect("a socket")
}

fn one_by_one(capture: &Capture) -> Box<dyn FnMut() -> u64 + '_> {
    let mut buffer = [0; 2048];
    let flags = MsgFlags::MSG_DONTWAIT;
    Box::new(move || {
        let received = recv(capture.as_fd().as_raw_fd(), &mut buffer, flags);
        received.is_ok().into()
    })
}

fn several_at_once(capture: &Capture) -> Box<dyn FnMut() -> u64 + '_> {
    let mut buffers = [[0; 2048]; BATCH];
    let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(BATCH, None);
    let flags = MsgFlags::MSG_DONTWAIT;
    Box::new(move || {
        let mut slices = buffers.each_mut().map(|buffer| [IoSliceMut::new(buffer)]);
        let fd = capture.as_fd().as_raw_fd();
        let received = recvmmsg(fd, &mut headers, &mut slices, flags, None);
        received.map_or(0, |messages| messages.count() as u64)
    })
}

fn daemon(lab: &Lab, tap: &Tap, frames: &[Frame]) -> Cost {
    let options = [
        "--learn",
        "both",
        "--log-level",
        "info",
        "--address-timeout",
        "3600",
    ];
    let options = [&options[..], UNLIMITED].concat();
    let mldproxy = start_between(&lab.rtr, &options, &[UPSTREAM, DOWNSTREAM]);
    introduce(lab, tap, 1..=HOSTS, |number| vec![solicitation(number)]);
    pin(mldproxy.pid(), &Place::Receiver);
    let taken = || counter(lab, "neighbor_solicitations");
    let costs = || (cpu(&mldproxy), wake_ups(&mldproxy));
    let before = (taken(), costs());
    send_all(tap, frames);
    let after = (costs(), taken());
    Cost {
        taken: after.1 - before.0,
        cpu: after.0.0 - before.1.0,
        sleeps: after.0.1 - before.1.1,
    }
}

/// The value of one of mldproxy's counters.
fn counter(lab: &Lab, name: &str) -> u64 {
    let status = lab.rtr.status("--json --limit 0");
    let (_, rest) = status
        .split_once(&format!("\"{name}\":"))
        .expect("a counter");
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next();
    digits
        .and_then(|digits| digits.parse().ok())
        .expect("a number")
}
