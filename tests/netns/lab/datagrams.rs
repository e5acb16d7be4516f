//! Streams of numbered datagrams to multicast groups: who sends them, and who receives them.

use std::fmt;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::net::if_::if_nametoindex;
use nix::sys::socket::sockopt::{RcvBuf, RcvBufForce, ReuseAddr};
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrIn6, setsockopt};

use super::options::{Address, set_option};
use super::{Frame, Namespace, Tap, poll_for};

/// The port of every stream.
const PORT: u16 = 10_000;
/// So that a router or two fit in between. The kernel's own default is 1.
const HOP_LIMIT: i32 = 8;
/// Room for all that arrives while a busy machine does not run the receiver. Without the right to
/// it, the kernel's own limit holds.
const RECEIVE_BUFFER: usize = 32 << 20;
/// How long a receiver's thread waits for one datagram before it looks whether it has to end.
const PATIENCE: Duration = Duration::from_millis(20);
/// Datagrams of one step of a stream's pace are sent together.
const PACE: Duration = Duration::from_millis(1);

/// The options of RFC 3678 §5 and Linux that libc does not name, or not for every C library.
const MCAST_JOIN_GROUP: i32 = 42;
const MCAST_BLOCK_SOURCE: i32 = 43;
const MCAST_LEAVE_GROUP: i32 = 45;
const MCAST_JOIN_SOURCE_GROUP: i32 = 46;
const MCAST_LEAVE_SOURCE_GROUP: i32 = 47;
const MCAST_MSFILTER: i32 = 48;
const IPV6_MULTICAST_ALL: i32 = 29;
const MCAST_EXCLUDE: u32 = 0;
const MCAST_INCLUDE: u32 = 1;

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

/// A listener of one group on one interface of a host. Its socket is bound to the group: a socket
/// bound to `::` receives the groups that any other socket of the host joined. Dropping it ends
/// the membership.
pub struct Receiver {
    socket: UdpSocket,
    index: u32,
    group: Ipv6Addr,
    arrived: Arc<Mutex<Vec<Datagram>>>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Which sources a listener wants (RFC 3810 §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter<'a> {
    Include(&'a [Ipv6Addr]),
    Exclude(&'a [Ipv6Addr]),
}

/// The most sources that a test puts into one filter.
const SOURCES: usize = 16;

/// `struct group_req`.
#[repr(C)]
struct GroupRequest {
    interface: u32,
    group: Address,
}

/// `struct group_source_req`.
#[repr(C)]
struct SourceRequest {
    interface: u32,
    group: Address,
    source: Address,
}

/// `struct group_filter`.
#[repr(C)]
struct FilterRequest {
    interface: u32,
    group: Address,
    mode: u32,
    count: u32,
    sources: [Address; SOURCES],
}

impl Receiver {
    /// A host's socket for a group, which is no member yet.
    #[track_caller]
    pub fn new(namespace: &Namespace, interface: &str, group: Ipv6Addr) -> Self {
        let opened = namespace.within(|| -> nix::Result<(UdpSocket, u32)> {
            let index = if_nametoindex(interface)?;
            let socket = datagram_socket()?;
            setsockopt(&socket, ReuseAddr, &true)?;
            if setsockopt(&socket, RcvBufForce, &RECEIVE_BUFFER).is_err() {
                setsockopt(&socket, RcvBuf, &RECEIVE_BUFFER)?;
            }
            set_option(&socket, libc::IPPROTO_IPV6, IPV6_MULTICAST_ALL, &0)?;
            let address = SocketAddrV6::new(group, PORT, 0, 0);
            socket::bind(socket.as_raw_fd(), &SockaddrIn6::from(address))?;
            Ok((socket, index))
        });
        let (socket, index) =
            opened.unwrap_or_else(|error| panic!("{}: {group}: {error}", namespace.label));
        socket
            .set_read_timeout(Some(PATIENCE))
            .expect("a time to wait");
        let (arrived, ended) = <(Arc<Mutex<Vec<_>>>, Arc<AtomicBool>)>::default();
        let (to, until) = (Arc::clone(&arrived), Arc::clone(&ended));
        let reader = socket.try_clone().expect("a file descriptor");
        let thread = thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                let mut number = [0; 8];
                if let Ok((8, SocketAddr::V6(from))) = reader.recv_from(&mut number) {
                    lock(&to).push(Datagram {
                        source: *from.ip(),
                        number: u64::from_be_bytes(number),
                    });
                }
            }
        });
        Receiver {
            socket,
            index,
            group,
            arrived,
            ended,
            thread: Some(thread),
        }
    }

    /// A listener of a group, whoever sends to it.
    #[track_caller]
    pub fn of_any(namespace: &Namespace, interface: &str, group: Ipv6Addr) -> Self {
        let receiver = Self::new(namespace, interface, group);
        receiver.join();
        receiver
    }

    /// A listener of one source of a group.
    #[track_caller]
    pub fn of_source(
        namespace: &Namespace,
        interface: &str,
        source: Ipv6Addr,
        group: Ipv6Addr,
    ) -> Self {
        let receiver = Self::new(namespace, interface, group);
        receiver.join_source(source);
        receiver
    }

    #[track_caller]
    pub fn join(&self) {
        self.request_group(MCAST_JOIN_GROUP);
    }

    /// Leaves the group, with all its sources.
    #[track_caller]
    pub fn leave(&self) {
        self.request_group(MCAST_LEAVE_GROUP);
    }

    #[track_caller]
    pub fn join_source(&self, source: Ipv6Addr) {
        self.request_source(MCAST_JOIN_SOURCE_GROUP, source);
    }

    #[track_caller]
    pub fn leave_source(&self, source: Ipv6Addr) {
        self.request_source(MCAST_LEAVE_SOURCE_GROUP, source);
    }

    /// Excludes a source of a group that it joined with [`Self::join`].
    #[track_caller]
    pub fn block_source(&self, source: Ipv6Addr) {
        self.request_source(MCAST_BLOCK_SOURCE, source);
    }

    /// Replaces the filter of a group that it joined. To include nothing is to leave.
    #[track_caller]
    pub fn set_filter(&self, filter: Filter<'_>) {
        let (mode, sources) = match filter {
            Filter::Include(sources) => (MCAST_INCLUDE, sources),
            Filter::Exclude(sources) => (MCAST_EXCLUDE, sources),
        };
        let mut request = FilterRequest {
            interface: self.index,
            group: self.group.into(),
            mode,
            count: sources.len() as u32,
            sources: [Ipv6Addr::UNSPECIFIED.into(); SOURCES],
        };
        for (place, source) in request.sources[..sources.len()].iter_mut().zip(sources) {
            *place = (*source).into();
        }
        self.request(MCAST_MSFILTER, &request);
    }

    #[track_caller]
    fn request_group(&self, option: i32) {
        let request = GroupRequest {
            interface: self.index,
            group: self.group.into(),
        };
        self.request(option, &request);
    }

    #[track_caller]
    fn request_source(&self, option: i32, source: Ipv6Addr) {
        let request = SourceRequest {
            interface: self.index,
            group: self.group.into(),
            source: source.into(),
        };
        self.request(option, &request);
    }

    #[track_caller]
    fn request<T>(&self, option: i32, value: &T) {
        let group = self.group;
        set_option(&self.socket, libc::IPPROTO_IPV6, option, value)
            .unwrap_or_else(|error| panic!("option {option} for {group}: {error}"));
    }

    /// What has arrived so far, in this order.
    pub fn arrived(&self) -> Vec<Datagram> {
        lock(&self.arrived).clone()
    }

    /// The numbers that have arrived from a source so far.
    pub fn numbers_from(&self, source: Ipv6Addr) -> Vec<u64> {
        let arrived = lock(&self.arrived);
        let from_it = arrived.iter().filter(|datagram| datagram.source == source);
        from_it.map(|datagram| datagram.number).collect()
    }

    pub fn count(&self) -> usize {
        lock(&self.arrived).len()
    }

    /// Waits until so many more datagrams have arrived.
    #[track_caller]
    pub fn wait_for_more(&self, count: usize, deadline: Duration) {
        let before = self.count();
        let arrived = poll_for(deadline, || (self.count() >= before + count).then_some(()));
        let more = self.count() - before;
        assert!(
            arrived.is_some(),
            "{more} of {count} datagrams to {} arrived within {deadline:?}",
            self.group
        );
    }

    /// Waits until exactly these numbers have arrived from this source, in any order.
    ///
    /// # Panics
    /// With the numbers that are missing within `deadline`, or that arrived twice or from elsewhere.
    #[track_caller]
    pub fn expect_all(&self, source: Ipv6Addr, numbers: Range<u64>, deadline: Duration) {
        let all = poll_for(deadline, || {
            let mut seen = self.numbers_from(source);
            seen.sort_unstable();
            (seen.len() as u64 >= numbers.end - numbers.start).then_some(seen)
        });
        let mut seen = all.unwrap_or_else(|| self.numbers_from(source));
        seen.sort_unstable();
        let wanted: Vec<u64> = numbers.clone().collect();
        assert!(
            seen == wanted,
            "of {numbers:?} from {source} to {}: {}",
            self.group,
            Difference::between(&wanted, &seen)
        );
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// What two sorted lists of numbers do not have in common.
struct Difference {
    missing: Vec<u64>,
    surplus: Vec<u64>,
}

impl Difference {
    fn between(wanted: &[u64], seen: &[u64]) -> Self {
        let missing = |from: &[u64], of: &[u64]| {
            let mut of = of.iter().peekable();
            let mut left = Vec::new();
            for number in from {
                while of.next_if(|other| *other < number).is_some() {}
                if of.next_if(|other| *other == number).is_none() {
                    left.push(*number);
                }
            }
            left
        };
        Difference {
            missing: missing(wanted, seen),
            surplus: missing(seen, wanted),
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = |numbers: &[u64]| numbers.iter().take(5).copied().collect::<Vec<_>>();
        let (missing, surplus) = (&self.missing, &self.surplus);
        write!(
            f,
            "{} are missing ({:?}…), {} are too many ({:?}…)",
            missing.len(),
            first(missing),
            surplus.len(),
            first(surplus)
        )
    }
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
    let sum = super::mld::checksum(source, group, 17, &packet[40..]);
    packet[46..48].copy_from_slice(&sum.to_be_bytes());
    Frame {
        source: mac,
        destination: super::group_mac(group),
        packet,
    }
}

fn datagram_socket() -> nix::Result<UdpSocket> {
    let flags = SockFlag::SOCK_CLOEXEC;
    socket::socket(AddressFamily::Inet6, SockType::Datagram, flags, None).map(UdpSocket::from)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
