//! A token bucket, which grants a burst and then a rate, and a throttle of log lines.

use crate::time::{Duration, Instant};

/// A token bucket, full when new.
pub struct Bucket {
    /// The thousandths of a token that the bucket lacked at `updated`.
    missing: u64,
    updated: Instant,
}

/// A token in thousandths: the thousandths that a bucket gains in a millisecond equal the tokens
/// that it gains in a second.
const TOKEN: u64 = 1000;

impl Bucket {
    pub(crate) const fn new() -> Self {
        Bucket {
            missing: 0,
            updated: Instant::ZERO,
        }
    }

    /// Takes a token. The bucket holds at most `burst` tokens and gains `rate` a second; both are
    /// at least 1. Returns false if there is no token.
    pub(crate) fn take(&mut self, now: Instant, rate: u32, burst: u32) -> bool {
        let elapsed = now.as_millis().saturating_sub(self.updated.as_millis());
        let missing = self
            .missing
            .saturating_sub(elapsed.saturating_mul(rate.into()));
        let after = missing.saturating_add(TOKEN);
        let granted = after <= TOKEN.saturating_mul(burst.into());
        self.missing = if granted { after } else { missing };
        self.updated = self.updated.max(now);
        granted
    }

    /// When the next token is there; in the past if there is one now. `rate` and `burst` are those
    /// of [`Self::take`].
    pub(crate) fn next_token(&self, rate: u32, burst: u32) -> Instant {
        let room = TOKEN.saturating_mul(burst.into()).saturating_sub(TOKEN);
        let lacking = self.missing.saturating_sub(room);
        let millis = lacking.div_ceil(u64::from(rate).max(1));
        self.updated.saturating_add(Duration::from_millis(millis))
    }
}

/// Allows a log line once a minute.
pub struct Throttle(Option<Instant>);

const INTERVAL: Duration = Duration::from_secs(60);

impl Throttle {
    pub(crate) const fn new() -> Self {
        Throttle(None)
    }

    pub(crate) fn allows(&mut self, now: Instant) -> bool {
        if self.0.is_some_and(|last| now.since(last) < INTERVAL) {
            return false;
        }
        self.0 = Some(now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_grants_the_burst_and_then_the_rate() {
        let mut bucket = Bucket::new();
        let mut taken = |millis| {
            let now = Instant::from_millis(millis);
            (0..1000).filter(|_| bucket.take(now, 50, 200)).count()
        };
        assert_eq!(taken(7_000), 200);
        assert_eq!(taken(7_010), 0);
        assert_eq!(taken(7_020), 1);
        assert_eq!(taken(8_020), 50);
        assert_eq!(taken(1_000_000), 200, "a bucket never exceeds its burst");
    }

    #[test]
    fn next_token_names_the_first_millisecond_that_grants_one() {
        for (rate, burst) in [(50, 200), (1, 1), (3, 2), (1000, 1)] {
            let mut bucket = Bucket::new();
            let now = Instant::from_millis(7_000);
            while bucket.take(now, rate, burst) {}
            let next = bucket.next_token(rate, burst);
            let before = Instant::from_millis(next.as_millis() - 1);
            assert!(!bucket.take(before, rate, burst), "{rate}, {burst}");
            assert!(bucket.take(next, rate, burst), "{rate}, {burst}");
        }
    }
}
