//! Who was not seen in time expires: all are looked through every expiry interval, some at a time.

use super::{Identity, Neighbors};
use crate::config::Config;
use crate::time::{Duration, Instant};

/// How many neighbors and hosts are looked at in one turn.
const AT_ONCE: usize = 256;
/// From a turn to the next.
const PACE: Duration = Duration::from_millis(1);

/// How far a look through all neighbors, and then all hosts, is.
pub(super) struct Sweep {
    /// When to go on; none while there is nothing.
    due: Option<Instant>,
    /// When the one under way began.
    began: Option<Instant>,
    /// The slot to look at next; those of the hosts come behind those of the neighbors.
    slot: usize,
}

impl Sweep {
    pub(super) fn new() -> Self {
        Sweep {
            due: None,
            began: None,
            slot: 0,
        }
    }

    /// There is something to look through, an interval from now.
    pub(super) fn expect(&mut self, now: Instant, config: &Config) {
        self.due
            .get_or_insert(now.saturating_add(config.expiry_interval));
    }
}

impl Neighbors<'_> {
    pub(crate) fn next_check(&self) -> Option<Instant> {
        self.sweep.due
    }

    /// Where a look is due, forgets every neighbor last seen an address timeout ago or earlier, or
    /// revoked and not there when asked, and hands each to `expired`. Hosts without neighbors that
    /// were not heard for that long are forgotten as well.
    pub(crate) fn handle_timeout(
        &mut self,
        now: Instant,
        config: &Config,
        mut expired: impl FnMut(Identity),
    ) {
        if self.sweep.due.is_none_or(|due| now < due) {
            return;
        }
        let began = *self.sweep.began.get_or_insert(now);
        let first = self.sweep.slot;
        let neighbors = self.table.slots().end;
        let all = neighbors.saturating_add(self.hosts.slots().end);
        let end = all.min(first.saturating_add(AT_ONCE));
        for slot in first..end {
            if let Some(host) = slot.checked_sub(neighbors) {
                self.hosts.expire(now, host, config.address_timeout);
            } else if let Some((_, neighbor)) = self.table.get(slot)
                && (now.since(neighbor.last_seen) >= config.address_timeout
                    || neighbor.revoked && neighbor.is_unanswered() && neighbor.due <= now)
            {
                self.remove_slot(slot).map(&mut expired);
            }
        }
        self.recall_latecomers(now);
        if end < all {
            self.sweep.slot = end;
            self.sweep.due = Some(now.saturating_add(PACE));
            return;
        }
        self.sweep = Sweep::new();
        if !self.table.is_empty() || !self.hosts.is_empty() {
            let next = began.saturating_add(config.expiry_interval);
            self.sweep.due = Some(next.max(now.saturating_add(PACE)));
        }
    }
}
