//! A stream without bursts, and when its datagrams pass on a link.

use std::net::Ipv6Addr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::prctl;
use nix::unistd::Pid;

use super::Kind;
use crate::lab::{Frame, Receiver, SOURCE, Sender, StreamLab, Tap};
use crate::latency::reports;
use crate::measure::{Place, pin};

/// A long time for what happens at once, or within the last listener query time.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A sender that sends each datagram at its own time, instead of a burst each millisecond. It sleeps
/// in between: the kernel forwards on the sender's CPU, and needs its turn there.
pub struct Flow {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Flow {
    /// Starts to send from the upstream's first source, and waits until the stream is there.
    pub fn start(home: &StreamLab, group: Ipv6Addr, interval: Duration) -> Self {
        let mut sender = Sender::new(&home.lab.gw, "eth0", SOURCE, group);
        let (ended, sent) = <(Arc<AtomicBool>, Arc<AtomicU64>)>::default();
        let (until, counted) = (Arc::clone(&ended), Arc::clone(&sent));
        let (ready, is_ready) = mpsc::channel();
        let thread = thread::spawn(move || {
            pin(Pid::from_raw(0), &Place::Sender);
            // In nanoseconds: the kernel's timer may be late by so much.
            prctl::set_timerslack(1).expect("the kernel has it");
            let mut due = Instant::now();
            while !until.load(Ordering::Relaxed) {
                thread::sleep(due.saturating_duration_since(Instant::now()));
                // Without a burst after the thread stood still.
                due = due.max(Instant::now() - interval) + interval;
                sender.send(1, u32::MAX);
                if counted.fetch_add(1, Ordering::Relaxed) == 100 {
                    let _ = ready.send(());
                }
            }
        });
        is_ready.recv().expect("the sender sends");
        let thread = Some(thread);
        Flow { ended, thread }
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// A host of the home that listens to the upstream's first source.
pub fn listen(home: &StreamLab, kind: Kind, group: Ipv6Addr) -> Receiver {
    let host = &home.listeners[0];
    match kind {
        Kind::Specific => Receiver::of_source(host, "eth0", SOURCE, group),
        Kind::Any => Receiver::of_any(host, "eth0", group),
    }
}

/// When the next report of a group passes.
pub fn report_at(tap: &Tap, group: Ipv6Addr) -> Duration {
    passes_at(tap, |frame| reports(&frame.packet, group))
}

/// When the next datagram to a group passes.
pub fn datagram_at(tap: &Tap, group: Ipv6Addr) -> Duration {
    passes_at(tap, |frame| is_datagram(frame, group))
}

fn passes_at(tap: &Tap, is_it: impl Fn(&Frame) -> bool) -> Duration {
    let end = Instant::now() + PATIENCE;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let (at, frame) = tap.receive_at(left).expect("it passes within 20 seconds");
        if is_it(&frame) {
            return at;
        }
    }
}

/// When the last datagram to a group passes: none follows for `silence`. `None` if none passes at
/// all. Calls `meanwhile` in between.
pub fn last_datagram_at(
    tap: &Tap,
    group: Ipv6Addr,
    silence: Duration,
    mut meanwhile: impl FnMut(),
) -> Option<Duration> {
    let end = Instant::now() + PATIENCE;
    let mut last = None;
    let mut heard = Instant::now();
    while heard.elapsed() < silence {
        assert!(Instant::now() < end, "the stream to {group} goes on");
        meanwhile();
        if let Some((at, frame)) = tap.receive_at(Duration::from_millis(50))
            && is_datagram(&frame, group)
        {
            (last, heard) = (Some(at), Instant::now());
        }
    }
    last
}

fn is_datagram(frame: &Frame, group: Ipv6Addr) -> bool {
    let udp = frame.packet.get(6) == Some(&17);
    udp && frame.packet.get(24..40) == Some(&group.octets())
}

/// The milliseconds from one time to a later one; 0 if it is the earlier one.
pub fn milliseconds(from: Duration, to: Duration) -> f64 {
    to.saturating_sub(from).as_secs_f64() * 1000.0
}
