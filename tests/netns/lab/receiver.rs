//! Listeners of multicast groups, and the datagrams that they receive.

use std::fmt;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::net::if_::if_nametoindex;
use nix::sys::socket::sockopt::{RcvBuf, RcvBufForce, ReuseAddr};
use nix::sys::socket::{self, SockaddrIn6, setsockopt};

use super::datagrams::{Datagram, PORT, datagram_socket};
use super::options::{Address, set_option};
use super::{Namespace, poll_for};

/// Room for all that arrives while a busy machine does not run the receiver. Without the right to
/// it, the kernel's own limit holds.
const RECEIVE_BUFFER: usize = 32 << 20;
/// How long a receiver's thread waits for one datagram before it looks whether it has to end.
const PATIENCE: Duration = Duration::from_millis(20);
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

    /// Asserts that nothing was lost between the datagrams that arrived from a source after the
    /// first `before` ones.
    #[track_caller]
    pub fn expect_no_gap(&self, source: Ipv6Addr, before: usize) {
        let numbers = self.numbers_from(source);
        let pairs = numbers.get(before..).unwrap_or_default().windows(2);
        let gaps: Vec<_> = pairs.filter(|pair| pair[1] != pair[0] + 1).collect();
        assert!(gaps.is_empty(), "gaps in {}: {gaps:?}", self.group);
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
