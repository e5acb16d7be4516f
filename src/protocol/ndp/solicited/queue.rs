//! The groups that wait for their first join, which a limited rate grants.

use super::WORDS;
use crate::config::Config;
use crate::tables::pending::SlotSet;
use crate::tables::rate::Bucket;
use crate::time::Instant;

/// Slots that wait for a token of a bucket.
pub(super) struct Queue {
    pub(super) slots: SlotSet<WORDS>,
    bucket: Bucket,
    /// The slot from which the next one is looked for, so that none is passed over for ever.
    turn: usize,
}

impl Queue {
    pub(super) const fn new() -> Self {
        Queue {
            slots: SlotSet::new(),
            bucket: Bucket::new(),
            turn: 0,
        }
    }

    /// Takes out the next slot, if there is one and a token for it.
    pub(super) fn next(&mut self, now: Instant, config: &Config) -> Option<usize> {
        let (rate, burst) = (config.join_rate, config.join_burst);
        if self.slots.is_empty() || !self.bucket.take(now, rate, burst) {
            return None;
        }
        let slot = self.slots.take_from(self.turn)?;
        self.turn = slot.saturating_add(1);
        Some(slot)
    }

    /// When there is a token for the next slot; `None` where no slot waits.
    pub(super) fn next_token(&self, config: &Config) -> Option<Instant> {
        let token = || self.bucket.next_token(config.join_rate, config.join_burst);
        (!self.slots.is_empty()).then(token)
    }
}
