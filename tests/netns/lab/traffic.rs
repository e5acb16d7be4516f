//! Traffic that shows whether a host is reachable.

use std::io::ErrorKind;
use std::net::{Ipv6Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::{Lab, Namespace, OUTSIDE, poll_for};

const PORT: u16 = 7777;
const INTERVAL: Duration = Duration::from_millis(100);
/// Longer than the 3 s after which the gateway stops soliciting a neighbor and drops the packets
/// that wait.
const PATIENCE: Duration = Duration::from_secs(6);

/// Ten datagrams a second from outside the /64, through the gateway, to each of some hosts, counted
/// where they arrive. `ping` would not do: with every answer it tells the gateway's kernel that the
/// neighbor is there (`MSG_CONFIRM`), and so hides that the gateway solicits in vain.
pub struct Traffic {
    targets: Vec<Ipv6Addr>,
    counts: Arc<Mutex<Vec<usize>>>,
    rounds: Arc<AtomicUsize>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Traffic {
    /// Starts traffic to addresses of the first LAN's namespace. The gateway first forgets its
    /// neighbors, so it solicits each host, and does so again every few seconds.
    pub fn start(lab: &Lab, targets: &[Ipv6Addr]) -> Self {
        let solicits_often = [
            ("base_reachable_time_ms", "2000"),
            ("delay_first_probe_time", "1"),
        ];
        for (name, value) in solicits_often {
            lab.gw.sysctl(&format!("net.ipv6.neigh.eth0.{name}"), value);
        }
        lab.gw.flush_neighbors();
        let sender = bind(&lab.gw, OUTSIDE);
        let receivers: Vec<_> = targets
            .iter()
            .map(|target| bind(&lab.lan, *target))
            .collect();
        let counts = Arc::new(Mutex::new(vec![0; targets.len()]));
        let (rounds, ended) = (Arc::default(), Arc::default());
        let mut traffic = Self {
            targets: targets.to_vec(),
            counts,
            rounds,
            ended,
            thread: None,
        };
        let (counts, rounds, ended) = (
            Arc::clone(&traffic.counts),
            Arc::clone(&traffic.rounds),
            Arc::clone(&traffic.ended),
        );
        let targets = targets.to_vec();
        traffic.thread = Some(thread::spawn(move || {
            loop {
                if !ended.load(Ordering::Relaxed) {
                    for target in &targets {
                        // A datagram that cannot be sent counts as lost.
                        let _ = sender.send_to(&[0; 8], (*target, PORT));
                    }
                    rounds.fetch_add(1, Ordering::Relaxed);
                } else if Arc::strong_count(&counts) == 1 {
                    return;
                }
                thread::sleep(INTERVAL);
                let mut counts = lock(&counts);
                for (count, receiver) in counts.iter_mut().zip(&receivers) {
                    *count += arrived(receiver);
                }
            }
        }));
        traffic
    }

    /// Waits until another datagram has arrived at every host.
    ///
    /// # Panics
    /// With the hosts at which none arrived within `deadline`.
    #[track_caller]
    pub fn expect_all_reached(&self, deadline: Duration) {
        let before = lock(&self.counts).clone();
        let mut unreached = Vec::new();
        let reached = poll_for(deadline, || {
            let counts = lock(&self.counts);
            let hosts = self.targets.iter().zip(counts.iter().zip(&before));
            unreached = hosts
                .filter(|(_, (count, before))| count <= before)
                .map(|(target, _)| *target)
                .collect();
            unreached.is_empty().then_some(())
        });
        assert!(reached.is_some(), "unreachable: {unreached:?}");
    }

    /// Ends the traffic, and waits for the datagrams on their way.
    ///
    /// # Panics
    /// If a host did not receive all of its datagrams.
    #[track_caller]
    pub fn expect_nothing_lost(self) {
        self.ended.store(true, Ordering::Relaxed);
        let mut lost = Vec::new();
        let complete = poll_for(PATIENCE, || {
            let (counts, sent) = (lock(&self.counts), self.rounds.load(Ordering::Relaxed));
            let hosts = self.targets.iter().zip(counts.iter());
            lost = hosts
                .filter(|(_, count)| **count != sent)
                .map(|(target, count)| format!("{target} received {count} of {sent}"))
                .collect();
            lost.is_empty().then_some(())
        });
        assert!(complete.is_some(), "{lost:?}");
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // The thread ends when it alone holds the counts.
        self.counts = Arc::default();
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

#[track_caller]
fn bind(namespace: &Namespace, address: Ipv6Addr) -> UdpSocket {
    let bound = namespace.within(|| UdpSocket::bind((address, PORT)));
    let socket = bound.unwrap_or_else(|error| panic!("{}: {address}: {error}", namespace.label));
    socket.set_nonblocking(true).expect("a socket");
    socket
}

/// The number of datagrams that wait to be read.
fn arrived(receiver: &UdpSocket) -> usize {
    let mut count = 0;
    loop {
        match receiver.recv(&mut [0; 8]) {
            Ok(_) => count += 1,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return count,
            // An ICMP message reported an error.
            Err(_) => {}
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
