//! Waits for descriptors by poll(2).

use std::os::fd::{AsFd as _, BorrowedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use protocol::time::{Duration, Instant};

use super::clock;

/// What to wait for on a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    Readable,
    Writable,
}

impl Until {
    fn events(self) -> PollFlags {
        match self {
            Until::Readable => PollFlags::POLLIN,
            Until::Writable => PollFlags::POLLOUT,
        }
    }
}

/// A descriptor to wait for, and the name that its owner has for it.
#[derive(Clone, Copy)]
pub struct Waited<'d, S> {
    pub source: S,
    pub descriptor: BorrowedFd<'d>,
    pub until: Until,
}

/// The sources whose descriptors are ready or have failed.
pub struct Ready<S, const N: usize>(heapless::Vec<S, N>);

impl<S: PartialEq, const N: usize> Ready<S, N> {
    pub fn contains(&self, source: &S) -> bool {
        self.0.contains(source)
    }
}

/// Waits until a descriptor is ready or has failed, at most for `limit`. Without a limit it waits
/// for as long as that takes. A signal ends the wait early, with nothing ready. `N` is the room for
/// descriptors: those beyond it are ignored.
pub fn wait<'d, S, const N: usize>(
    waited: impl Iterator<Item = Waited<'d, S>>,
    limit: Option<Duration>,
) -> nix::Result<Ready<S, N>> {
    let mut sources = heapless::Vec::<S, N>::new();
    let mut descriptors = heapless::Vec::<PollFd<'d>, N>::new();
    for one in waited.take(N) {
        let descriptor = PollFd::new(one.descriptor, one.until.events());
        // Both lists have room for N.
        let _ = descriptors.push(descriptor);
        let _ = sources.push(one.source);
    }
    match poll(&mut descriptors, limit.map_or(PollTimeout::NONE, timeout)) {
        Ok(_) => {}
        Err(Errno::EINTR) => return Ok(Ready(heapless::Vec::new())),
        Err(errno) => return Err(errno),
    }
    let all = sources.into_iter().zip(&descriptors);
    // `None` stands for an event that nix does not know, which counts as well.
    let ready = all.filter(|(_, descriptor)| descriptor.any() != Some(false));
    Ok(Ready(ready.map(|(source, _)| source).collect()))
}

/// A limit beyond poll(2)'s longest timeout ends the wait early.
fn timeout(limit: Duration) -> PollTimeout {
    PollTimeout::try_from(limit.as_millis()).unwrap_or(PollTimeout::MAX)
}

/// Waits until the descriptor is readable. Returns false at the deadline.
pub fn wait_until(descriptor: BorrowedFd<'_>, deadline: Instant) -> bool {
    let mut descriptors = [PollFd::new(descriptor.as_fd(), PollFlags::POLLIN)];
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

/// Whether a write of a few octets would not block. A pipe has room for 4,096 then.
pub fn is_writable(descriptor: BorrowedFd<'_>) -> bool {
    let mut descriptors = [PollFd::new(descriptor, PollFlags::POLLOUT)];
    let polled = poll(&mut descriptors, PollTimeout::ZERO);
    let [descriptor] = descriptors;
    let events = descriptor.revents().unwrap_or(PollFlags::empty());
    polled.is_ok() && events.contains(PollFlags::POLLOUT)
}

pub fn pause(milliseconds: u16) {
    // A signal may end it early, which does no harm.
    let _ = poll(&mut [], milliseconds);
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    const MANY: usize = 40;

    fn pair() -> (UnixDatagram, UnixDatagram) {
        UnixDatagram::pair().unwrap()
    }

    /// The places of the sockets that are ready now.
    fn ready(waited: &[(&UnixDatagram, Until)]) -> Vec<usize> {
        let all = waited.iter().enumerate();
        let all = all.map(|(source, (socket, until))| Waited {
            source,
            descriptor: socket.as_fd(),
            until: *until,
        });
        let ready: Ready<usize, MANY> = wait(all, Some(Duration::ZERO)).unwrap();
        let is_ready = |place: &usize| ready.contains(place);
        (0..waited.len()).filter(is_ready).collect()
    }

    #[test]
    fn a_descriptor_is_ready_until_it_is_read() {
        let ((near, far), (other, _far)) = (pair(), pair());
        let ready = || ready(&[(&other, Until::Readable), (&near, Until::Readable)]);
        assert_eq!(ready(), []);
        far.send(&[0]).unwrap();
        assert_eq!(ready(), [1]);
        assert_eq!(ready(), [1]);
        near.recv(&mut [0]).unwrap();
        assert_eq!(ready(), []);
    }

    #[test]
    fn a_descriptor_is_ready_only_for_what_it_is_waited_for() {
        let (near, far) = pair();
        far.send(&[0]).unwrap();
        assert_eq!(ready(&[(&near, Until::Writable)]), [0]);
        near.set_nonblocking(true).unwrap();
        while near.send(&[0; 1000]).is_ok() {}
        assert_eq!(ready(&[(&near, Until::Writable)]), [], "readable alone");
        assert_eq!(ready(&[(&near, Until::Readable)]), [0]);
    }

    #[test]
    fn all_that_are_ready_are_told_at_once() {
        let pairs: Vec<_> = (0..MANY).map(|_| pair()).collect();
        for (_, far) in &pairs {
            far.send(&[0]).unwrap();
        }
        let waited = pairs.iter().map(|(near, _)| (near, Until::Readable));
        let waited: Vec<_> = waited.collect();
        assert_eq!(ready(&waited), Vec::from_iter(0..MANY));
    }
}
