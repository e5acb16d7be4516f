//! The only clocks: a monotonic one for the protocol, the wall's for the log.

use nix::time::{ClockId, clock_gettime};
use protocol::time::Instant;

use super::ffi;

/// Time since the system started.
pub fn now() -> Instant {
    // The clock exists on every Linux, so this does not fail.
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Instant::ZERO, |time| {
        Instant::ZERO.saturating_add(time.into())
    })
}

/// The local date and time.
pub fn local_time() -> libc::tm {
    let seconds = clock_gettime(ClockId::CLOCK_REALTIME).map_or(0, |time| time.tv_sec());
    ffi::local_time(seconds)
}
