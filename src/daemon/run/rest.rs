//! Rest when busy. Under load the wake-ups cost more than the work, so the loop lets the kernel
//! gather packets that follow one another closely, and reads them together.

use std::time::Duration;

use crate::sys::clock::Moment;

/// How long the loop rests. At 250,000 packets a second the kernel gathers some 90 meanwhile, and a
/// capture has room for over a thousand. Without high-resolution timers a rest lasts a tick, at
/// most 10 ms, for which there is room at 100,000 packets a second. NDP's timers count in seconds,
/// so such a delay does no harm.
pub const REST: Duration = Duration::from_micros(300);
/// Two turns that read packets are close if the second begins within this time of the first. It is
/// longer than a rest, the 0.05 ms by which the kernel wakes the loop late, and the work of a turn
/// together: a busy loop goes on resting. After a packet that comes alone there is no rest.
const CLOSE: Duration = Duration::from_micros(600);

/// Decides whether the loop rests before it waits again.
#[derive(Default)]
pub struct Rest {
    /// When the last turn that read packets began.
    last: Option<Moment>,
    is_due: bool,
}

impl Rest {
    /// Notes that a turn that began at `now` read packets.
    pub fn note_packets(&mut self, now: Moment) {
        let last = self.last.replace(now);
        self.is_due = last.is_some_and(|last| now.since(last) < CLOSE);
    }

    /// The rest that is due now. It is due once.
    pub fn take(&mut self) -> Option<Duration> {
        std::mem::take(&mut self.is_due).then_some(REST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_packets_that_follow_others_closely_are_followed_by_a_rest() {
        let mut rest = Rest::default();
        let mut rests_after = |micros| {
            rest.note_packets(Moment::from_micros(micros));
            (rest.take(), rest.take())
        };
        let (none, once) = ((None, None), (Some(REST), None));
        assert_eq!(rests_after(0), none, "the first one");
        assert_eq!(rests_after(600), none, "one that comes alone");
        assert_eq!(rests_after(1199), once);
        assert_eq!(rests_after(1600), once, "after a rest that took 0.4 ms");
        assert_eq!(rests_after(2200), none);
    }
}
