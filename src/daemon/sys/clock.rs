//! The only clock, a monotonic one.

use nix::time::{ClockId, clock_gettime};
use protocol::time::Instant;

/// Time since the system started.
pub fn now() -> Instant {
    // The clock exists on every Linux, so this does not fail.
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Instant::ZERO, |time| {
        let (seconds, nanoseconds) = (time.tv_sec() as u64, time.tv_nsec() as u64);
        Instant::from_millis(seconds * 1000 + nanoseconds / 1_000_000)
    })
}
