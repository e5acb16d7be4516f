//! Rest when busy: packets that follow one another closely are gathered by the kernel and read
//! together, since under load it is the wake-up, not the work, that costs.

use std::time::Duration;

use crate::sys::clock::Moment;

/// How long the loop rests. Meanwhile the kernel gathers packets: at 250,000 a second some 90 of
/// them, and a capture has room for over a thousand. A kernel without high-resolution timers makes
/// a tick of it, up to 10 ms, for which there is room at 100,000 a second. An NDP exchange, which
/// takes a millisecond and more, does not notice so short a delay.
pub const REST: Duration = Duration::from_micros(300);
/// Turns that read packets are close to one another when the second begins within this time of the
/// first. It is longer than a rest, the 0.05 ms by which the kernel is late for it and the work of
/// a turn together, so that a busy loop stays at rest; and it is short enough that a packet that
/// comes alone, or a burst that is read in one turn, is followed by none.
const CLOSE: Duration = Duration::from_micros(600);

/// Whether the loop is to rest before it waits again.
#[derive(Default)]
pub struct Rest {
    /// When the last turn that read packets began.
    last: Option<Moment>,
    is_due: bool,
}

impl Rest {
    /// A turn that began at `now` read packets.
    pub fn note_packets(&mut self, now: Moment) {
        let last = self.last.replace(now);
        self.is_due = last.is_some_and(|last| now.since(last) < CLOSE);
    }

    /// The rest that is due now, once.
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
