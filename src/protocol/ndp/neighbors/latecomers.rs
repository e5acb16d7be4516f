//! The hosts that a limit refused when they were heard. The engine tries them again: a limit
//! delays, it does not forget.

use core::net::Ipv6Addr;

use super::{Neighbors, Refusal, Sender};
use crate::config::Config;
use crate::time::{Duration, Instant};

/// The most hosts that wait. Any other has to be heard again.
const CAPACITY: usize = 2048;

/// What [`Latecomers`] are kept in.
pub(super) type Storage = heapless::Deque<(Sender, Ipv6Addr), CAPACITY>;

/// The hosts that wait, each with the address by which it was heard.
pub(super) struct Latecomers<'t> {
    waiting: &'t mut Storage,
    /// When the first of them is tried again; `None` while nobody waits, or all wait for room.
    due: Option<Instant>,
    /// The engine is trying one of them.
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
    /// Has a refused host tried again: soon if it lacked a token, and after a neighbor has gone if
    /// it lacked room.
    pub(crate) fn postpone(
        &mut self,
        now: Instant,
        config: &Config,
        (sender, address): (Sender, Ipv6Addr),
        refusal: Refusal,
    ) {
        let latecomers = &mut self.latecomers;
        match refusal {
            // The host has as many neighbors as it may have.
            Refusal::HostQuota => return,
            Refusal::Rate => {
                let soon = now.saturating_add(pace(config));
                latecomers.due.get_or_insert(soon);
            }
            Refusal::Full => latecomers.due = None,
        }
        let _ = latecomers.waiting.push_back((sender, address));
    }

    /// Tries the first host again if the table has room.
    pub(super) fn recall_latecomers(&mut self, now: Instant) {
        if !self.latecomers.waiting.is_empty() && self.table.len() < super::CAPACITY {
            self.latecomers.due.get_or_insert(now);
        }
    }

    /// The next host to be tried. Its turn lasts until [`Self::end_turn`].
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

    /// How many hosts wait to be tried again.
    pub fn waiting(&self) -> usize {
        self.latecomers.waiting.len()
    }

    pub(crate) fn next_latecomer_at(&self) -> Option<Instant> {
        self.latecomers.due
    }
}

/// The time from one attempt to the next, in which one token accrues.
fn pace(config: &Config) -> Duration {
    Duration::from_millis(1000_u64.div_ceil(u64::from(config.join_rate).max(1)))
}
