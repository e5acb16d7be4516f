//! The monotonic clock, the only one that the loop uses.

use std::thread;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use protocol::time::Instant;

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

    /// The same time in whole milliseconds, as the engine counts.
    pub fn instant(self) -> Instant {
        Instant::from_millis(self.0.as_millis() as u64)
    }

    /// The time since `earlier`; zero if that is later.
    pub fn since(self, earlier: Moment) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// The time since the system started, in whole milliseconds.
pub fn now() -> Instant {
    Moment::now().instant()
}

/// Blocks the thread for at least this time.
pub fn sleep(duration: Duration) {
    thread::sleep(duration);
}
