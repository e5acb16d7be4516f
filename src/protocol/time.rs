//! Time in milliseconds since a moment that the caller chooses. The core has no clock: the caller
//! passes the time in. Arithmetic saturates.

/// Sets a deadline to `due`, unless it is earlier already.
pub(crate) fn bring_forward(deadline: &mut Option<Instant>, due: Instant) {
    *deadline = Some(deadline.map_or(due, |deadline| deadline.min(due)));
}

/// The earliest of some deadlines; `None` if all are `None`.
pub fn earliest(deadlines: &[Option<Instant>]) -> Option<Instant> {
    deadlines.iter().copied().flatten().min()
}

/// A moment on a monotonic clock.
///
/// It is aligned to 4 octets, so that a timer in a table of thousands takes no room for alignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(Rust, packed(4))]
pub struct Instant {
    millis: u64,
}

/// A span of time in milliseconds. `core::time::Duration` counts nanoseconds, which costs a
/// router's 32-bit CPU a division for each sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duration {
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

    /// The time from `earlier` to `self`; zero if `earlier` is the later one.
    pub const fn since(self, earlier: Instant) -> Duration {
        Duration::from_millis(self.millis.saturating_sub(earlier.millis))
    }

    /// The moment `duration` later, or the last moment if that is out of range.
    pub const fn saturating_add(self, duration: Duration) -> Instant {
        Instant {
            millis: self.millis.saturating_add(duration.millis),
        }
    }
}

impl Duration {
    pub const ZERO: Duration = Duration { millis: 0 };

    pub const fn from_millis(millis: u64) -> Self {
        Duration { millis }
    }

    pub const fn from_secs(seconds: u64) -> Self {
        Duration {
            millis: seconds.saturating_mul(1000),
        }
    }

    pub const fn as_millis(self) -> u64 {
        self.millis
    }

    /// The whole seconds.
    pub const fn as_secs(self) -> u64 {
        self.millis / 1000
    }

    pub const fn is_zero(self) -> bool {
        self.millis == 0
    }

    pub const fn saturating_add(self, other: Duration) -> Duration {
        Duration::from_millis(self.millis.saturating_add(other.millis))
    }

    /// Zero if `other` is longer.
    pub const fn saturating_sub(self, other: Duration) -> Duration {
        Duration::from_millis(self.millis.saturating_sub(other.millis))
    }

    pub const fn saturating_mul(self, factor: u32) -> Duration {
        Duration::from_millis(self.millis.saturating_mul(factor as u64))
    }

    /// Rounded down; `None` if the divisor is 0.
    pub const fn checked_div(self, divisor: u32) -> Option<Duration> {
        match self.millis.checked_div(divisor as u64) {
            Some(millis) => Some(Duration::from_millis(millis)),
            None => None,
        }
    }
}
