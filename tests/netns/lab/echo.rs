//! Echo requests, as `ping` sends them, from a socket of the lab's own.

use std::net::{Ipv6Addr, SocketAddrV6};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::socket::{
    self, AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn6,
};
use nix::sys::time::{TimeVal, TimeValLike};

use super::{Namespace, poll_for};

const ECHO_REQUEST: u8 = 128;
const ECHO_REPLY: u8 = 129;
const INTERVAL: Duration = Duration::from_millis(200);
/// The longest time that an answer may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// The numbers of echo requests sent and answered.
#[derive(Clone, Copy, Debug)]
pub struct Ping {
    pub sent: u32,
    pub received: u32,
}

impl Namespace {
    /// Pings five times a second, then waits a second for answers.
    #[track_caller]
    pub fn ping(&self, from: Ipv6Addr, to: Ipv6Addr, count: u32) -> Ping {
        self.echo(from, SocketAddrV6::new(to, 0, 0, 0), count, PATIENCE)
    }

    /// Pings five times a second, from the address that the kernel chooses, until an answer comes.
    /// Returns whether one came within `deadline`.
    #[track_caller]
    pub fn reaches(&self, to: Ipv6Addr, deadline: Duration) -> bool {
        let to = SocketAddrV6::new(to, 0, 0, 0);
        let answer = || {
            let ping = self.echo(Ipv6Addr::UNSPECIFIED, to, 1, INTERVAL);
            (ping.received > 0).then_some(())
        };
        poll_for(deadline, answer).is_some()
    }

    /// Pings a link-local address once, and waits for the answer.
    ///
    /// # Panics
    /// If no answer comes in the time for which the kernel looks for a neighbor.
    #[track_caller]
    pub fn reach(&self, from: Ipv6Addr, to: Ipv6Addr, interface: &str) {
        let index = self.within(|| if_nametoindex(interface));
        let index = index.unwrap_or_else(|error| panic!("{}: {interface}: {error}", self.label));
        let ping = self.echo(from, SocketAddrV6::new(to, 0, 0, index), 1, 3 * PATIENCE);
        assert_eq!(
            ping.received, 1,
            "{}: {to} does not answer {from}",
            self.label
        );
    }

    #[track_caller]
    fn echo(&self, from: Ipv6Addr, to: SocketAddrV6, count: u32, patience: Duration) -> Ping {
        let opened = self.within(|| Echo::open(from, to));
        let echo = opened.unwrap_or_else(|error| panic!("{}: echo to {to}: {error}", self.label));
        let mut answered = vec![false; count as usize];
        for sequence in 0..count as u16 {
            let request = echo.message(ECHO_REQUEST, sequence);
            // The kernel adds the checksum. A request that cannot be sent counts as unanswered.
            let (fd, flags) = (echo.socket.as_raw_fd(), MsgFlags::empty());
            let _ = socket::sendto(fd, &request, &SockaddrIn6::from(to), flags);
            let last = usize::from(sequence) + 1 == answered.len();
            echo.collect(&mut answered, if last { patience } else { INTERVAL }, last);
        }
        let received = answered.iter().filter(|answered| **answered).count() as u32;
        Ping {
            sent: count,
            received,
        }
    }
}

struct Echo {
    socket: OwnedFd,
    to: Ipv6Addr,
    identifier: u16,
}

impl Echo {
    fn open(from: Ipv6Addr, to: SocketAddrV6) -> nix::Result<Self> {
        let (kind, flags) = (SockType::Raw, SockFlag::SOCK_CLOEXEC);
        let protocol = SockProtocol::IcmpV6;
        let socket = socket::socket(AddressFamily::Inet6, kind, flags, protocol)?;
        let from = SocketAddrV6::new(from, 0, 0, 0);
        socket::bind(socket.as_raw_fd(), &SockaddrIn6::from(from))?;
        Ok(Self {
            socket,
            to: *to.ip(),
            identifier: process::id() as u16,
        })
    }

    fn message(&self, kind: u8, sequence: u16) -> [u8; 8] {
        let ([a, b], [c, d]) = (self.identifier.to_be_bytes(), sequence.to_be_bytes());
        [kind, 0, 0, 0, a, b, c, d]
    }

    /// Takes answers for some time. If no more requests follow, it ends when all answers have come.
    fn collect(&self, answered: &mut [bool], time: Duration, last: bool) {
        let end = Instant::now() + time;
        while !(last && answered.iter().all(|answered| *answered)) {
            let left = end.saturating_duration_since(Instant::now());
            let Ok(left @ 1..) = i64::try_from(left.as_micros()) else {
                return;
            };
            socket::setsockopt(&self.socket, ReceiveTimeout, &TimeVal::microseconds(left))
                .expect("a time to wait");
            let mut octets = [0; 64];
            match socket::recvfrom::<SockaddrIn6>(self.socket.as_raw_fd(), &mut octets) {
                Ok((8, Some(sender))) if sender.ip() == self.to => {
                    // The kernel checks the checksum.
                    (octets[2], octets[3]) = (0, 0);
                    let sequence = u16::from_be_bytes([octets[6], octets[7]]);
                    if let Some(answered) = answered.get_mut(usize::from(sequence)) {
                        *answered |= octets[..8] == self.message(ECHO_REPLY, sequence);
                    }
                }
                Ok(_) => {}
                // No answer came in time, or an ICMP message reported an error.
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(_) => thread::sleep(Duration::from_millis(1)),
            }
        }
    }
}
