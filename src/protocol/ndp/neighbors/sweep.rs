//! Neighbors and hosts that were not seen in time expire. Every expiry interval, a sweep goes
//! through all of them, some at a time.

use super::{Identity, Neighbors};
use crate::config::Config;
use crate::link::Port;
use crate::time::{Duration, Instant};

/// How many slots one call looks at.
const AT_ONCE: usize = 256;
/// From one call to the next.
const PACE: Duration = Duration::from_millis(1);

/// How far the sweep through all neighbors, and then all hosts, has come.
pub(super) struct Sweep {
    /// When the sweep goes on; `None` while there are no neighbors and no hosts.
    due: Option<Instant>,
    /// When the sweep under way began.
    began: Option<Instant>,
    /// The slot to look at next. The slots of the hosts follow those of the neighbors.
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

    /// Notes that there is something to sweep, an expiry interval from now.
    pub(super) fn expect(&mut self, now: Instant, config: &Config) {
        self.due
            .get_or_insert(now.saturating_add(config.expiry_interval));
    }
}

impl Neighbors<'_> {
    /// Is a neighbor on one of these ports?
    pub(super) fn is_on(&self, slot: usize, ports: impl Fn(Port) -> bool) -> bool {
        let neighbor = self.table.get(slot);
        let host = neighbor.and_then(|(_, neighbor)| self.hosts.entry(neighbor.host));
        host.is_some_and(|(sender, _)| ports(sender.port))
    }

    pub(crate) fn next_check(&self) -> Option<Instant> {
        self.sweep.due
    }

    /// Continues the sweep if that is due. Removes each neighbor that was last seen an address
    /// timeout ago or earlier, or is revoked, unless questions for it are still open: nobody on a
    /// link that `can_send` expires unasked. Passes each to `expired`. Removes hosts without
    /// neighbors that were not heard for an address timeout.
    pub(crate) fn handle_timeout(
        &mut self,
        now: Instant,
        config: &Config,
        can_send: impl Fn(Port) -> bool,
        mut expired: impl FnMut(Identity),
    ) {
        if self.sweep.due.is_none_or(|due| now < due) {
            return;
        }
        let asks_anybody = config.ask || config.probe;
        let began = *self.sweep.began.get_or_insert(now);
        let first = self.sweep.slot;
        let neighbors = self.table.slots().end;
        let all = neighbors.saturating_add(self.hosts.slots().end);
        let end = all.min(first.saturating_add(AT_ONCE));
        for slot in first..end {
            if let Some(host) = slot.checked_sub(neighbors) {
                self.hosts.expire(now, host, config.address_timeout);
            } else if let Some((_, neighbor)) = self.table.get(slot)
                && (neighbor.is_given_up(now) || !asks_anybody || !self.is_on(slot, &can_send))
                && (now.since(neighbor.last_seen) >= config.address_timeout || neighbor.revoked)
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
