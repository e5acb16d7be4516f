//! Waiting for one descriptor.

use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use protocol::time::{Duration, Instant};

use super::clock;

/// For poll(2). What is longer than its longest wakes up early.
pub fn poll_timeout(left: Duration) -> PollTimeout {
    PollTimeout::try_from(left.as_millis()).unwrap_or(PollTimeout::MAX)
}

/// Waits until something can be read; false at the deadline.
pub fn wait_until(descriptor: BorrowedFd<'_>, deadline: Instant) -> bool {
    let mut descriptors = [PollFd::new(descriptor, PollFlags::POLLIN)];
    loop {
        let left = deadline.since(clock::now());
        match poll(&mut descriptors, poll_timeout(left)) {
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
