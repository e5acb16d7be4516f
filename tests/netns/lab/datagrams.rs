//! Streams of numbered datagrams to multicast groups: who sends them, and which pass on a link.

use std::net::{Ipv6Addr, SocketAddrV6, UdpSocket};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::net::if_::if_nametoindex;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrIn6};

use super::mld::checksum;
use super::options::set_option;
use super::{Frame, Namespace, Tap, group_mac};

/// The port of every stream.
pub(super) const PORT: u16 = 10_000;
/// So that a router or two fit in between. The kernel's own default is 1.
const HOP_LIMIT: i32 = 8;
/// Datagrams of one step of a stream's pace are sent together.
const PACE: Duration = Duration::from_millis(1);

/// A host that sends datagrams to a group. They are numbered from 0.
pub struct Sender {
    socket: UdpSocket,
    to: SocketAddrV6,
    next: u64,
}

impl Sender {
    /// A sender with this address on this interface.
    #[track_caller]
    pub fn new(namespace: &Namespace, interface: &str, from: Ipv6Addr, group: Ipv6Addr) -> Self {
        let opened = namespace.within(|| -> nix::Result<UdpSocket> {
            let index = if_nametoindex(interface)?;
            let socket = datagram_socket()?;
            socket::bind(
                socket.as_raw_fd(),
                &SockaddrIn6::from(SocketAddrV6::new(from, 0, 0, 0)),
            )?;
            set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_IF, &index)?;
            set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_LOOP, &0)?;
            Ok(socket)
        });
        let socket =
            opened.unwrap_or_else(|error| panic!("{}: from {from}: {error}", namespace.label));
        let to = SocketAddrV6::new(group, PORT, 0, 0);
        let sender = Sender {
            socket,
            to,
            next: 0,
        };
        sender.set_hop_limit(HOP_LIMIT);
        sender
    }

    /// Sets the hop limit of what it sends from now on, 1 to 255.
    pub fn set_hop_limit(&self, hop_limit: i32) {
        let level = libc::IPPROTO_IPV6;
        set_option(&self.socket, level, libc::IPV6_MULTICAST_HOPS, &hop_limit)
            .expect("a hop limit");
    }

    /// Sends so many datagrams at a pace, and returns their numbers.
    #[track_caller]
    pub fn send(&mut self, count: u64, per_second: u32) -> Range<u64> {
        let first = self.next;
        let mut pace = Pace::new(per_second);
        for _ in 0..count {
            pace.wait();
            self.send_next().expect("the host can send");
        }
        first..self.next
    }

    fn send_next(&mut self) -> std::io::Result<()> {
        self.socket.send_to(&self.next.to_be_bytes(), self.to)?;
        self.next += 1;
        Ok(())
    }

    /// Sends from a thread until [`Stream::stop`].
    pub fn start(mut self, per_second: u32) -> Stream {
        let (ended, sent) = <(Arc<AtomicBool>, Arc<AtomicU64>)>::default();
        let (by_thread, counted) = (Arc::clone(&ended), Arc::clone(&sent));
        let thread = thread::spawn(move || {
            let mut pace = Pace::new(per_second);
            while !by_thread.load(Ordering::Relaxed) {
                pace.wait();
                // While the sender's link is down, a datagram waits for its turn.
                let _ = self.send_next();
                counted.store(self.next, Ordering::Relaxed);
            }
        });
        Stream {
            ended,
            sent,
            thread: Some(thread),
        }
    }
}

/// A sender that goes on until it is stopped or dropped.
pub struct Stream {
    ended: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Stream {
    /// The number of datagrams that were sent so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Ends the stream. Returns the number of datagrams that were sent.
    pub fn stop(mut self) -> u64 {
        self.end();
        self.sent()
    }

    fn end(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.end();
    }
}

struct Pace {
    start: Instant,
    per_second: u32,
    count: u32,
}

impl Pace {
    fn new(per_second: u32) -> Self {
        Pace {
            start: Instant::now(),
            per_second,
            count: 0,
        }
    }

    /// Waits until the next datagram is due.
    fn wait(&mut self) {
        let due = self.start + Duration::from_secs(1) * self.count / self.per_second;
        self.count += 1;
        let early = due.saturating_duration_since(Instant::now());
        if early >= PACE {
            thread::sleep(early);
        }
    }
}

/// A datagram that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    pub source: Ipv6Addr,
    pub number: u64,
}

impl Tap {
    /// The datagrams of streams to a group that have passed on the link since the last call.
    pub fn datagrams_to(&self, group: Ipv6Addr) -> Vec<Datagram> {
        let frames = std::iter::from_fn(|| self.receive(Duration::ZERO));
        frames.filter_map(|frame| datagram(&frame, group)).collect()
    }
}

/// The datagram of a stream to this group in a frame.
fn datagram(frame: &Frame, group: Ipv6Addr) -> Option<Datagram> {
    let packet = &frame.packet;
    let address = |from: usize| Some(Ipv6Addr::from_octets(*packet.get(from..)?.first_chunk()?));
    let is_udp = packet.get(6) == Some(&17);
    let port = packet.get(42..44)? == PORT.to_be_bytes();
    let number = u64::from_be_bytes(*packet.get(48..)?.first_chunk()?);
    (is_udp && port && address(24)? == group).then_some(Datagram {
        source: address(8)?,
        number,
    })
}

/// A frame with one datagram of a stream, from any address, for a [`Tap`] to send.
pub fn datagram_frame(mac: [u8; 6], source: Ipv6Addr, group: Ipv6Addr, number: u64) -> Frame {
    let udp = [&PORT.to_be_bytes()[..], &PORT.to_be_bytes(), &[0, 16, 0, 0]].concat();
    let mut packet = vec![0x60, 0, 0, 0, 0, 16, 17, HOP_LIMIT as u8];
    packet.extend(source.octets());
    packet.extend(group.octets());
    packet.extend(udp);
    packet.extend(number.to_be_bytes());
    let sum = checksum(source, group, 17, &packet[40..]);
    packet[46..48].copy_from_slice(&sum.to_be_bytes());
    Frame {
        source: mac,
        destination: group_mac(group),
        packet,
    }
}

pub(super) fn datagram_socket() -> nix::Result<UdpSocket> {
    let flags = SockFlag::SOCK_CLOEXEC;
    socket::socket(AddressFamily::Inet6, SockType::Datagram, flags, None).map(UdpSocket::from)
}
