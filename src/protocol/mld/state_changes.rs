//! Joins and leaves upstream, reported beside the kernel.
//!
//! The kernel reports each join and leave in the version that it heard. In MLDv2 its first report
//! of a join comes two to three ticks of its clock late, 8 to 30 ms, so the router reports the join
//! once by itself. If the user fixed another version than the kernel's, the router reports joins
//! and leaves in that one: a join at once and some times again, a leave before it is carried out
//! (RFC 2710 §4, RFC 3810 §6.1).

use core::net::Ipv6Addr;

use super::RETRY_INTERVAL;
use crate::config::MldVersion;
use crate::tables::pending::SlotSet;
use crate::time::{Duration, Instant, earliest};
use crate::wire::{
    ALL_MLDV2_ROUTERS, ALL_ROUTERS, Done, RecordType, ReportBuilder, ReportV1, SolicitedNode,
};

/// The Unsolicited Report Interval: RFC 2710 §7.10, RFC 3810 §9.11.
const REPEAT_INTERVAL_V1: Duration = Duration::from_secs(10);
const REPEAT_INTERVAL_V2: Duration = Duration::from_secs(1);
/// Between two MLDv1 reports of many joins at once.
const V1_PACE: Duration = Duration::from_millis(10);
/// The most leaves that are reported again; of more, the rest is reported once. They fit one
/// report.
const MAX_REPEATED_LEAVES: usize = 48;
/// The most leaves that are looked at for one report, more than fit one.
const MAX_LEAVES: usize = 128;

/// How the next report is to be written.
#[derive(Clone, Copy)]
pub struct Voice {
    pub version: MldVersion,
    pub source: Ipv6Addr,
    pub share: Share,
}

/// Which reports of changes are the router's own, beside the kernel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// The first report of each join. The kernel speaks the same version: it reports the join a
    /// little later and repeats that (RFC 3810 §6.1), and reports each leave.
    FirstOfJoins,
    /// All. The kernel speaks another version.
    All {
        /// The robustness variable: how often a change is reported.
        robustness: u8,
    },
}

/// The most groups, each with a slot.
pub const CAPACITY: usize = 5120;
const WORDS: usize = CAPACITY / 32;

/// What [`StateChanges`] are kept in.
pub struct Storage {
    times: [u8; CAPACITY],
    due: SlotSet<WORDS>,
    waiting: SlotSet<WORDS>,
    told: SlotSet<WORDS>,
}

impl Storage {
    pub(crate) const fn new() -> Self {
        Storage {
            times: [0; CAPACITY],
            due: SlotSet::new(),
            waiting: SlotSet::new(),
            told: SlotSet::new(),
        }
    }
}

/// What is still to be reported. Groups go by their slots.
pub struct StateChanges<'t> {
    /// How often each group joined is still to be reported.
    times: &'t mut [u8; CAPACITY],
    /// The groups joined that are to be reported now, and those that wait for `repeat_at`.
    due: &'t mut SlotSet<WORDS>,
    waiting: &'t mut SlotSet<WORDS>,
    /// The groups whose leave was reported and is still to be carried out, also if that failed.
    told: &'t mut SlotSet<WORDS>,
    /// Groups left, and how often that is still to be reported.
    left: heapless::Vec<(SolicitedNode, u8), MAX_REPEATED_LEAVES>,
    left_are_due: bool,
    repeat: Repeat,
    /// No join is reported before then: a report failed, or MLDv1 reports are paced.
    report_at: Option<Instant>,
    /// How many groups the report polled last names.
    polled: usize,
    /// The slot from which a report of leaves names groups.
    leaves_from: usize,
    /// The slot from which the last leaves, of all groups, are still to be reported.
    last_from: usize,
}

/// When what waits is to be reported again.
#[derive(Clone, Copy)]
enum Repeat {
    /// Nothing waits.
    Never,
    At(Instant),
    /// Once all that is due is reported, which is something as long as this lasts.
    Due,
}

impl<'t> StateChanges<'t> {
    pub(crate) fn new(storage: &'t mut Storage) -> Self {
        let Storage {
            times,
            due,
            waiting,
            told,
        } = storage;
        due.clear();
        waiting.clear();
        told.clear();
        StateChanges {
            times,
            due,
            waiting,
            told,
            left: heapless::Vec::new(),
            left_are_due: false,
            repeat: Repeat::Never,
            report_at: None,
            polled: 0,
            leaves_from: 0,
            last_from: 0,
        }
    }

    /// Every membership ended with the upstream.
    pub(crate) fn clear(&mut self) {
        self.due.clear();
        self.waiting.clear();
        self.told.clear();
        self.left.clear();
        self.left_are_due = false;
        self.repeat = Repeat::Never;
    }

    /// A group was joined, or is wanted again after its leave was reported and before that was
    /// carried out. `None` as the voice means that the kernel alone reports it, or that nobody can.
    pub(crate) fn joined(&mut self, slot: usize, group: SolicitedNode, voice: Option<&Voice>) {
        self.left.retain(|(left, _)| *left != group);
        self.told.remove(slot);
        self.waiting.remove(slot);
        if let (Some(voice), Some(times)) = (voice, self.times.get_mut(slot)) {
            *times = voice.repetitions();
            self.due.insert(slot);
        }
    }

    /// A query asks for a group that is joined: it is reported once, `delay` after `now`.
    pub(crate) fn asked_for(&mut self, now: Instant, slot: usize, delay: Duration) {
        if self.due.contains(slot) || self.waiting.contains(slot) {
            return;
        }
        if let Some(times) = self.times.get_mut(slot) {
            *times = 1;
        }
        self.waiting.insert(slot);
        self.repeat.bring_forward(now.saturating_add(delay));
    }

    /// A group was left.
    pub(crate) fn left(&mut self, slot: usize) {
        self.told.remove(slot);
        self.due.remove(slot);
        self.waiting.remove(slot);
        self.repeat();
    }

    /// Was the leave reported?
    pub(crate) fn is_told(&self, slot: usize) -> bool {
        self.told.contains(slot)
    }

    /// Builds a report of the groups that are about to be left, from a slot on, whose leave was not
    /// reported; its length, and where it goes.
    pub(crate) fn poll_leaves<I>(
        &mut self,
        voice: &Voice,
        first: usize,
        leaving_from: impl FnOnce(usize) -> I,
        buffer: &mut [u8],
    ) -> Option<(usize, Ipv6Addr)>
    where
        I: Iterator<Item = (usize, SolicitedNode)>,
    {
        self.leaves_from = first;
        // Leaves that fail may have been reported, all of them.
        self.report_leaves(voice, leaving_from(first).take(MAX_LEAVES), buffer)
    }

    /// Builds the next report of all groups joined, which are left in the end.
    pub(crate) fn poll_last_leaves<I>(
        &mut self,
        voice: &Voice,
        joined_from: impl FnOnce(usize) -> I,
        buffer: &mut [u8],
    ) -> Option<(usize, Ipv6Addr)>
    where
        I: Iterator<Item = (usize, SolicitedNode)>,
    {
        self.leaves_from = self.last_from;
        self.report_leaves(voice, joined_from(self.last_from), buffer)
    }

    fn report_leaves(
        &mut self,
        voice: &Voice,
        groups: impl Iterator<Item = (usize, SolicitedNode)>,
        buffer: &mut [u8],
    ) -> Option<(usize, Ipv6Addr)> {
        let source = voice.source;
        let mut untold = groups.filter(|(slot, _)| !self.told.contains(*slot));
        match voice.version {
            MldVersion::V1 => {
                let (_, group) = untold.next()?;
                let group = group.group();
                self.polled = 1;
                let length = Done { source, group }.emit(buffer)?;
                Some((length, ALL_ROUTERS))
            }
            MldVersion::V2 => {
                let mut report = ReportBuilder::new(buffer);
                self.polled = untold
                    .take_while(|(_, group)| {
                        report.push(RecordType::ChangeToInclude, group.group())
                    })
                    .count();
                Some((report.finish(source)?, ALL_MLDV2_ROUTERS))
            }
        }
    }

    /// The report of leaves was sent, or could not be, which is no different from one that is lost.
    /// `groups_from` is what it was [built](Self::poll_leaves) of.
    pub(crate) fn leaves_done<I>(
        &mut self,
        now: Instant,
        voice: &Voice,
        groups_from: impl FnOnce(usize) -> I,
    ) where
        I: Iterator<Item = (usize, SolicitedNode)>,
    {
        let times = voice.repetitions().saturating_sub(1);
        let mut groups = groups_from(self.leaves_from);
        for _ in 0..self.polled {
            let Some((slot, group)) = groups.find(|(slot, _)| !self.told.contains(*slot)) else {
                return;
            };
            self.last_from = slot.saturating_add(1);
            self.told.insert(slot);
            self.left.retain(|(left, _)| *left != group);
            if voice.version == MldVersion::V2
                && times > 0
                && self.left.push((group, times)).is_ok()
            {
                self.repeat.start(now.saturating_add(REPEAT_INTERVAL_V2));
            }
        }
    }

    /// Builds the next report of joins, in MLDv2 together with the leaves that are reported again;
    /// its length, and where it goes. The same one again until [`Self::done`] is told of it.
    pub(crate) fn poll_report(
        &mut self,
        voice: &Voice,
        group_of: impl Fn(usize) -> Option<SolicitedNode>,
        buffer: &mut [u8],
    ) -> Option<(usize, Ipv6Addr)> {
        if self.report_at.is_some() || (self.due.is_empty() && !self.left_are_due) {
            return None;
        }
        let source = voice.source;
        let mut joined = self.due.iter().filter_map(group_of);
        match voice.version {
            MldVersion::V1 => {
                let group = joined.next()?.group();
                self.polled = 1;
                Some((ReportV1 { source, group }.emit(buffer)?, group))
            }
            MldVersion::V2 => {
                let mut report = ReportBuilder::new(buffer);
                let left = self.left.iter().filter(|_| self.left_are_due);
                for (group, _) in left {
                    let _ = report.push(RecordType::ChangeToInclude, group.group());
                }
                self.polled = joined
                    .take_while(|group| report.push(RecordType::ChangeToExclude, group.group()))
                    .count();
                Some((report.finish(source)?, ALL_MLDV2_ROUTERS))
            }
        }
    }

    /// The report polled last was sent, or could not be and is to be tried again. A report ahead of
    /// the kernel's is not tried again.
    pub(crate) fn done(&mut self, now: Instant, voice: &Voice, succeeded: bool) {
        if !succeeded && voice.is_sole() {
            self.report_at = Some(now.saturating_add(RETRY_INTERVAL));
            return;
        }
        let interval = match voice.version {
            MldVersion::V1 => REPEAT_INTERVAL_V1,
            MldVersion::V2 => REPEAT_INTERVAL_V2,
        };
        let repeat_at = now.saturating_add(interval);
        if self.left_are_due {
            self.left_are_due = false;
            for (_, times) in &mut self.left {
                *times = times.saturating_sub(1);
            }
            self.left.retain(|(_, times)| *times > 0);
            if !self.left.is_empty() {
                self.repeat.start(repeat_at);
            }
        }
        for _ in 0..self.polled {
            let Some(slot) = self.due.take_first() else {
                break;
            };
            if let Some(times) = self.times.get_mut(slot) {
                *times = times.saturating_sub(1);
                if *times > 0 {
                    self.waiting.insert(slot);
                    self.repeat.start(repeat_at);
                }
            }
        }
        self.repeat();
        if voice.version == MldVersion::V1 && !self.due.is_empty() {
            self.report_at = Some(now.saturating_add(V1_PACE));
        }
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        earliest(&[self.report_at, self.repeat.at()])
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        let due = |deadline: Option<Instant>| deadline.is_some_and(|deadline| deadline <= now);
        if due(self.report_at) {
            self.report_at = None;
        }
        if due(self.repeat.at()) {
            self.repeat = Repeat::Due;
            self.repeat();
        }
    }

    /// Once all that was never reported is, has those reported again that wait for it.
    fn repeat(&mut self) {
        if matches!(self.repeat, Repeat::Due) && self.due.is_empty() {
            self.repeat = Repeat::Never;
            core::mem::swap(&mut self.due, &mut self.waiting);
            self.left_are_due = !self.left.is_empty();
        }
    }
}

impl Repeat {
    fn at(self) -> Option<Instant> {
        match self {
            Repeat::At(at) => Some(at),
            Repeat::Never | Repeat::Due => None,
        }
    }

    /// Something waits until then, or for what others wait for already.
    fn start(&mut self, at: Instant) {
        if matches!(self, Repeat::Never) {
            *self = Repeat::At(at);
        }
    }

    /// Something waits until then at the latest.
    fn bring_forward(&mut self, at: Instant) {
        match self {
            Repeat::Never => *self = Repeat::At(at),
            Repeat::At(earlier) => *earlier = at.min(*earlier),
            Repeat::Due => {}
        }
    }
}

impl Voice {
    /// Does the router report alone in this version?
    pub(crate) fn is_sole(&self) -> bool {
        matches!(self.share, Share::All { .. })
    }

    /// How often a join is reported. RFC 2710 §4: an MLDv1 report is repeated "once or twice".
    pub(crate) fn repetitions(&self) -> u8 {
        match (self.share, self.version) {
            (Share::FirstOfJoins, MldVersion::V1 | MldVersion::V2) => 1,
            (Share::All { robustness }, MldVersion::V1) => robustness.min(3),
            (Share::All { robustness }, MldVersion::V2) => robustness,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOICE: Voice = Voice {
        version: MldVersion::V2,
        source: Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1),
        share: Share::All { robustness: 2 },
    };

    /// Each slot from one on is of a group that is about to be left.
    fn all_from(first: usize) -> impl Iterator<Item = (usize, SolicitedNode)> {
        (first..CAPACITY).map(|slot| {
            let address = Ipv6Addr::from_bits(slot as u128);
            (slot, SolicitedNode::of(address))
        })
    }

    #[test]
    fn leaves_that_were_reported_and_fail_do_not_hold_up_the_report_of_another() {
        let storage = &mut Storage::new();
        let mut changes = StateChanges::new(storage);
        let buffer = &mut [0; 1500];
        // All but the last are reported, 72 at a time, and none is carried out.
        let mut first = 0;
        while first < CAPACITY - 1 {
            let groups = |first| all_from(first).take_while(|(slot, _)| *slot < CAPACITY - 1);
            assert!(changes.poll_leaves(&VOICE, first, groups, buffer).is_some());
            changes.leaves_done(Instant::ZERO, &VOICE, groups);
            let untold = (first..CAPACITY).find(|slot| !changes.is_told(*slot));
            first = untold.unwrap();
        }
        let looked_at = core::cell::Cell::new(0);
        let groups = |first| {
            let looked_at = &looked_at;
            all_from(first).inspect(|_| looked_at.set(looked_at.get() + 1))
        };
        let report = changes.poll_leaves(&VOICE, CAPACITY - 1, groups, buffer);
        let (length, group) = report.unwrap();
        assert_eq!((length, group), (56 + 20, ALL_MLDV2_ROUTERS), "one record");
        assert_eq!(looked_at.take(), 1);
        changes.leaves_done(Instant::ZERO, &VOICE, groups);
        assert!(changes.is_told(CAPACITY - 1));
        assert_eq!(looked_at.take(), 1);
        // Of many that were reported, only so many are passed over.
        changes.left(0);
        let report = changes.poll_leaves(&VOICE, 0, groups, buffer);
        assert_eq!(report.unwrap().0, 56 + 20);
        assert_eq!(looked_at.take(), MAX_LEAVES);
        changes.leaves_done(Instant::ZERO, &VOICE, groups);
        assert_eq!(looked_at.take(), 1);
    }

    #[test]
    fn in_the_end_every_group_is_reported_once_and_each_report_goes_on_after_the_last() {
        let storage = &mut Storage::new();
        let mut changes = StateChanges::new(storage);
        let buffer = &mut [0; 1500];
        let looked_at = core::cell::Cell::new(0);
        let groups = |first| {
            let looked_at = &looked_at;
            all_from(first).inspect(|_| looked_at.set(looked_at.get() + 1))
        };
        let mut reports = 0;
        while changes.poll_last_leaves(&VOICE, groups, buffer).is_some() {
            changes.leaves_done(Instant::ZERO, &VOICE, groups);
            reports += 1;
        }
        assert_eq!(reports, CAPACITY.div_ceil((1500 - 56) / 20));
        assert!((0..CAPACITY).all(|slot| changes.is_told(slot)));
        assert!(looked_at.get() < 3 * CAPACITY, "{}", looked_at.get());
    }
}
