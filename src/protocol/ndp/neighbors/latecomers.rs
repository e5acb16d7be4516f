//! Who could not be taken in when it was heard, and is tried again: a limit delays, it does not forget.

use core::net::Ipv6Addr;

use super::{Neighbors, Refusal, Sender};
use crate::config::Config;
use crate::time::{Duration, Instant};

/// The most that wait. Of more, the rest has to speak again.
const CAPACITY: usize = 2048;

/// What [`Latecomers`] are kept in.
pub(super) type Storage = heapless::Deque<(Sender, Ipv6Addr), CAPACITY>;

/// Those that wait, each with the address it was heard by.
pub(super) struct Latecomers<'t> {
    waiting: &'t mut Storage,
    /// When the first of them is tried again; none while nobody waits.
    due: Option<Instant>,
    /// The first of them is being tried.
    is_their_turn: bool,
}

impl<'t> Latecomers<'t> {
    pub(super) fn new(waiting: &'t mut Storage) -> Self {
        waiting.clear();
        Latecomers {
            waiting,
            due: None,
            is_their_turn: false,
        }
    }

    /// Must a newcomer go to the end of the queue?
    pub(super) fn come_first(&self) -> bool {
        !self.waiting.is_empty() && !self.is_their_turn
    }
}

impl Neighbors<'_> {
    /// Has a host that could not be taken in tried again: for want of a token soon, for want of room once somebody has gone.
    pub(crate) fn postpone(
        &mut self,
        now: Instant,
        config: &Config,
        (sender, address): (Sender, Ipv6Addr),
        refusal: Refusal,
    ) {
        let latecomers = &mut self.latecomers;
        match refusal {
            // More of its own it may not have.
            Refusal::HostQuota => return,
            Refusal::Rate => {
                let soon = now.saturating_add(pace(config));
                latecomers.due.get_or_insert(soon);
            }
            Refusal::Full => latecomers.due = None,
        }
        let _ = latecomers.waiting.push_back((sender, address));
    }

    /// There is room again.
    pub(super) fn recall_latecomers(&mut self, now: Instant) {
        if !self.latecomers.waiting.is_empty() && self.table.len() < super::CAPACITY {
            self.latecomers.due.get_or_insert(now);
        }
    }

    /// The latecomer whose turn it is until [`Self::end_turn`].
    pub(crate) fn next_latecomer(
        &mut self,
        now: Instant,
        config: &Config,
    ) -> Option<(Sender, Ipv6Addr)> {
        let latecomers = &mut self.latecomers;
        latecomers.due.take_if(|due| *due <= now)?;
        let next = latecomers.waiting.pop_front();
        if !latecomers.waiting.is_empty() {
            latecomers.due = Some(now.saturating_add(pace(config)));
        }
        latecomers.is_their_turn = next.is_some();
        next
    }

    pub(crate) fn end_turn(&mut self) {
        self.latecomers.is_their_turn = false;
    }

    /// How many wait to be tried again.
    pub fn waiting(&self) -> usize {
        self.latecomers.waiting.len()
    }

    pub(crate) fn next_latecomer_at(&self) -> Option<Instant> {
        self.latecomers.due
    }
}

/// From one to the next: as long as a token takes to grow.
fn pace(config: &Config) -> Duration {
    Duration::from_millis(1000_u64.div_ceil(u64::from(config.join_rate).max(1)))
}
