//! Waiting for descriptors: for many by epoll(7), for one by poll(2).

use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use protocol::time::{Duration, Instant};

use super::clock;

/// How many are told of at once. The kernel tells of the rest the next time, before it tells of the same ones again.
const AT_ONCE: usize = 8;

/// Waits for many descriptors. With poll(2) those that are silent would each cost something whenever another one wakes the process up.
pub struct Poller(Epoll);

/// What is waited for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Until {
    Never,
    Readable,
    Writable,
}

/// A number for each descriptor, and a set of such numbers: below 64.
pub type Token = u32;
#[derive(Clone, Copy, Default)]
pub struct Tokens(u64);

impl Poller {
    pub fn new() -> nix::Result<Self> {
        Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map(Poller)
    }

    /// Waits for a descriptor too, until it is closed.
    pub fn add(&self, descriptor: impl AsFd, token: Token, until: Until) -> nix::Result<()> {
        self.0.add(descriptor, until.event(token))
    }

    /// Waits for something else of a descriptor that was [added](Self::add).
    pub fn change(&self, descriptor: impl AsFd, token: Token, until: Until) -> nix::Result<()> {
        self.0.modify(descriptor, &mut until.event(token))
    }

    /// Waits until something is ready or has failed, at most so long, for ever without a limit. None where a signal came.
    pub fn wait(&self, limit: Option<Duration>) -> nix::Result<Tokens> {
        let timeout = limit.map_or(PollTimeout::NONE, timeout);
        let mut events = [EpollEvent::empty(); AT_ONCE];
        let length = match self.0.wait(&mut events, timeout) {
            Ok(length) => length,
            Err(Errno::EINTR) => 0,
            Err(errno) => return Err(errno),
        };
        let events = events.iter().take(length);
        Ok(Tokens(events.fold(0, |bits, event| {
            bits | 1_u64.wrapping_shl(event.data() as u32)
        })))
    }
}

impl Tokens {
    pub fn contains(self, token: Token) -> bool {
        self.0 & 1_u64.wrapping_shl(token) != 0
    }
}

impl Until {
    fn event(self, token: Token) -> EpollEvent {
        let flags = match self {
            Until::Never => EpollFlags::empty(),
            Until::Readable => EpollFlags::EPOLLIN,
            Until::Writable => EpollFlags::EPOLLOUT,
        };
        EpollEvent::new(flags, token.into())
    }
}

/// What is longer than the longest wakes up early.
fn timeout(limit: Duration) -> PollTimeout {
    PollTimeout::try_from(limit.as_millis()).unwrap_or(PollTimeout::MAX)
}

/// Waits until something can be read; false at the deadline.
pub fn wait_until(descriptor: BorrowedFd<'_>, deadline: Instant) -> bool {
    let mut descriptors = [PollFd::new(descriptor, PollFlags::POLLIN)];
    loop {
        let left = deadline.since(clock::now());
        match poll(&mut descriptors, timeout(left)) {
            Ok(0) if left.is_zero() => return false,
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return !left.is_zero(),
            Err(_) => return false,
        }
    }
}

/// Waits for some milliseconds.
pub fn pause(milliseconds: u16) {
    // Where a signal ends it early, it was long enough.
    let _ = poll(&mut [], milliseconds);
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    fn pair() -> (UnixDatagram, UnixDatagram) {
        UnixDatagram::pair().unwrap()
    }

    fn ready(poller: &Poller) -> Vec<Token> {
        let tokens = poller.wait(Some(Duration::ZERO)).unwrap();
        (0..u64::BITS)
            .filter(|token| tokens.contains(*token))
            .collect()
    }

    #[test]
    fn what_is_ready_is_told_until_it_is_read_or_closed() {
        let poller = Poller::new().unwrap();
        let ((near, far), (other, _)) = (pair(), pair());
        poller.add(&near, 3, Until::Readable).unwrap();
        poller.add(&other, 63, Until::Readable).unwrap();
        assert_eq!(ready(&poller), []);
        far.send(&[0]).unwrap();
        assert_eq!(ready(&poller), [3]);
        assert_eq!(ready(&poller), [3]);
        near.recv(&mut [0]).unwrap();
        assert_eq!(ready(&poller), []);
        far.send(&[0]).unwrap();
        drop(near);
        assert_eq!(ready(&poller), []);
    }

    #[test]
    fn what_is_waited_for_can_change() {
        let poller = Poller::new().unwrap();
        let (near, far) = pair();
        far.send(&[0]).unwrap();
        poller.add(&near, 0, Until::Never).unwrap();
        assert_eq!(ready(&poller), []);
        poller.change(&near, 0, Until::Writable).unwrap();
        assert_eq!(ready(&poller), [0]);
        near.set_nonblocking(true).unwrap();
        while near.send(&[0; 1000]).is_ok() {}
        assert_eq!(ready(&poller), [], "there is something to read alone");
        poller.change(&near, 0, Until::Readable).unwrap();
        assert_eq!(ready(&poller), [0]);
    }

    #[test]
    fn of_many_that_are_ready_all_have_their_turn() {
        let poller = Poller::new().unwrap();
        let pairs: Vec<_> = (0..40).map(|_| pair()).collect();
        for ((near, far), token) in pairs.iter().zip(0..) {
            poller.add(near, token, Until::Readable).unwrap();
            far.send(&[0]).unwrap();
        }
        // Nobody reads, so the same ones are ready again each time.
        let mut told: Vec<_> = (0..40 / AT_ONCE).flat_map(|_| ready(&poller)).collect();
        told.sort_unstable();
        told.dedup();
        assert_eq!(told, Vec::from_iter(0..40));
    }
}
