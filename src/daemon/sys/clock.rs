//! The monotonic clock, the only one that the loop uses. It leaves out the time for which the
//! process stood still.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use protocol::time::Instant;

/// The milliseconds that are left out. Some routers have no 64-bit atomic numbers; this one is
/// enough for 49 days.
static LEFT_OUT: AtomicU32 = AtomicU32::new(0);

/// The time since the system started, to the nanosecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(Duration);

impl Moment {
    pub fn now() -> Self {
        // Every Linux has this clock, so reading it does not fail.
        let time = clock_gettime(ClockId::CLOCK_MONOTONIC);
        Moment(time.map_or(Duration::ZERO, Duration::from))
    }

    #[cfg(test)]
    pub fn from_micros(micros: u64) -> Self {
        Moment(Duration::from_micros(micros))
    }

    /// The same time in whole milliseconds, as the engine counts: without what was left out.
    pub fn instant(self) -> Instant {
        let left_out = u64::from(LEFT_OUT.load(Ordering::Relaxed));
        let millis = self.0.as_millis() as u64;
        Instant::from_millis(millis.saturating_sub(left_out))
    }

    /// The time since `earlier`; zero if that is later.
    pub fn since(self, earlier: Moment) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// Leaves some time out from now on, in which the process stood still: nobody could be heard in it.
pub fn leave_out(time: protocol::time::Duration) {
    let millis = u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
    LEFT_OUT.fetch_add(millis, Ordering::Relaxed);
}

/// The time since the system started, in whole milliseconds, without what was left out.
pub fn now() -> Instant {
    Moment::now().instant()
}

/// Blocks the thread for at least this time.
pub fn sleep(duration: Duration) {
    thread::sleep(duration);
}
