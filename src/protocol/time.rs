//! Time as the caller tells it: milliseconds since a moment of the caller's choice.

pub use core::time::Duration;

/// Brings a deadline forward to `due`, where there is none or it is later.
pub(crate) fn bring_forward(deadline: &mut Option<Instant>, due: Instant) {
    *deadline = Some(deadline.map_or(due, |deadline| deadline.min(due)));
}

/// A moment on a clock that never goes back. Arithmetic saturates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant {
    millis: u64,
}

impl Instant {
    pub const ZERO: Instant = Instant { millis: 0 };

    pub const fn from_millis(millis: u64) -> Self {
        Instant { millis }
    }

    pub const fn from_secs(seconds: u64) -> Self {
        Instant {
            millis: seconds.saturating_mul(1000),
        }
    }

    pub const fn as_millis(self) -> u64 {
        self.millis
    }

    /// The time from `earlier` to `self`; zero where `earlier` is the later one.
    pub const fn since(self, earlier: Instant) -> Duration {
        Duration::from_millis(self.millis.saturating_sub(earlier.millis))
    }

    /// The moment `duration` later; the last one there is, where that is out of range.
    pub fn saturating_add(self, duration: Duration) -> Instant {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Instant {
            millis: self.millis.saturating_add(millis),
        }
    }
}
