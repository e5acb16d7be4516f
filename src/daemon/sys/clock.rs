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
    ffi::local_time()
}
