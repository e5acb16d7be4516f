//! The memberships upstream of the groups that listeners want, and their state-change reports.
//!
//! The kernel is the member, with the merged filter. It reports a change some milliseconds later,
//! by the delay of RFC 3810 §6.1, which is most of the time that a viewer waits for a channel. So
//! the router reports it at once as well. Where the kernel speaks another version of MLD than the
//! one in force, only the router reports, as often as the robustness variable says.

use core::net::Ipv6Addr;

use super::{Flow, Merged, Proxy, for_each_flow};
use crate::config::{MldVersion, is_source_specific};
use crate::mld::filter::FilterMode;
use crate::mld::{LIST_LENGTH, RETRY_INTERVAL};
use crate::time::{Duration, Instant, bring_forward};
use crate::wire::{
    ALL_MLDV2_ROUTERS, ALL_ROUTERS, Done, RecordType, ReportBuilder, ReportV1, Sources,
};

/// The Unsolicited Report Interval (RFC 3810 §9.11).
const REPEAT_INTERVAL: Duration = Duration::from_secs(1);
/// The most sources that the records of a change name. More may not fit one packet, so the whole
/// filter is told then.
const MOST_CHANGED: u16 = 70;

/// A change of one membership. [`Proxy::sources_wanted`] has the sources of its filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Stays the group's own from before its join until after its leave; below
    /// [`CAPACITY`](super::CAPACITY).
    pub slot: usize,
    pub group: Ipv6Addr,
    /// The filter of the membership so far; `None` if there is no membership.
    pub before: Option<FilterMode>,
    /// The filter as wanted; `None` to leave the group.
    pub wanted: Option<FilterMode>,
    /// The kernel's filter: that of [`Self::wanted`], or `None` where the kernel must be no member.
    pub of_kernel: Option<FilterMode>,
}

/// A group that the router is a member of, as the refresh reports it.
#[derive(Clone, Copy)]
pub(crate) struct Current {
    pub slot: usize,
    pub group: Ipv6Addr,
    pub mode: FilterMode,
}

/// How state changes are reported.
#[derive(Clone, Copy)]
pub(crate) struct Manner {
    pub version: MldVersion,
    pub source: Ipv6Addr,
    /// How often a change is reported that the kernel reports as well.
    pub times: u8,
    /// How often a change is reported that the kernel does not report.
    pub times_alone: u8,
}

impl Proxy<'_> {
    /// All memberships ended with the link.
    pub(crate) fn forget_memberships(&mut self) {
        self.joined = 0;
        self.memberships.retry();
        for slot in self.groups.slots() {
            let Some((_, merged)) = self.groups.get_mut(slot) else {
                continue;
            };
            (merged.joined, merged.told) = (None, None);
            for_each_flow(self.groups, self.flows, slot, |_, flow| {
                (flow.joined, flow.told) = (false, false);
            });
            self.begin_reports(slot);
            self.stale.insert(slot);
        }
    }

    /// The sources of the filter that is wanted for the group at a slot,
    /// [`MAX_SOURCES`](crate::config::MAX_SOURCES) at most.
    pub fn sources_wanted(&self, slot: usize) -> impl Iterator<Item = Ipv6Addr> {
        let merged = self.groups.get(slot).map(|(_, merged)| merged);
        let flows = merged.into_iter().flat_map(|merged| self.flows_of(merged));
        flows.filter(|flow| flow.wanted).map(|flow| flow.source)
    }

    /// The next change of a membership, unless `most` groups are joined. The same one again until
    /// [`Self::membership_done`] is told of it.
    pub(crate) fn poll_membership(&self, most: u16) -> Option<Change> {
        // Leaves come first only where a join has to wait.
        let slot = self.memberships.next()?;
        let change = self.membership_at(slot)?;
        if change.before.is_some() || self.joined < most {
            return Some(change);
        }
        let mut others = self
            .memberships
            .iter()
            .filter_map(|slot| self.membership_at(slot));
        others.find(|change| change.before.is_some())
    }

    fn membership_at(&self, slot: usize) -> Option<Change> {
        let (group, merged) = self.groups.get(slot)?;
        Some(Change {
            slot,
            group,
            before: merged.joined,
            wanted: merged.wanted,
            of_kernel: merged.wanted.filter(|_| self.is_for_kernel(group)),
        })
    }

    /// Does a join wait for another group to be left?
    pub(crate) fn has_to_wait(&self, most: u16) -> bool {
        self.joined >= most && self.memberships.next().is_some()
    }

    /// A change was carried out, or failed and is to be tried again. Its report is due.
    pub(crate) fn membership_done(&mut self, now: Instant, change: &Change, succeeded: bool) {
        let slot = change.slot;
        if !succeeded {
            let retry_at = now.saturating_add(RETRY_INTERVAL);
            return self.memberships.fail(slot, retry_at);
        }
        match (change.before, change.wanted) {
            (None, Some(_)) => self.joined = self.joined.saturating_add(1),
            (Some(_), None) => self.joined = self.joined.saturating_sub(1),
            (None, None) | (Some(_), Some(_)) => {}
        }
        let Some((_, merged)) = self.groups.get_mut(slot) else {
            return;
        };
        merged.joined = change.wanted;
        if change.wanted.is_some() {
            merged.is_of_kernel = change.of_kernel.is_some();
        }
        for_each_flow(self.groups, self.flows, slot, |_, flow| {
            flow.joined = flow.wanted && change.wanted.is_some();
        });
        self.settle(slot);
    }

    /// Notes whether the membership of the group at a slot is to be changed, and whether a change
    /// is to be reported.
    pub(super) fn settle_upstream(&mut self, slot: usize) {
        let Some((group, merged)) = self.groups.get(slot) else {
            return;
        };
        let is_wanted = merged.wanted.is_some();
        let is_of_kernel = is_wanted && self.is_for_kernel(group);
        let any = |is_so: &dyn Fn(&Flow) -> bool| is_wanted && self.flows_of(merged).any(is_so);
        let to_be_changed = merged.wanted != merged.joined
            || (is_wanted && is_of_kernel != merged.is_of_kernel)
            || any(&|flow| flow.wanted != flow.joined);
        let to_be_told = !to_be_changed && self.is_untold(merged);
        let to_be_repeated = merged.times > 0 && self.changes.contains(slot);
        self.memberships.keep(slot, to_be_changed);
        if to_be_told || to_be_changed {
            self.begin_reports(slot);
        }
        let is_due = to_be_told || (to_be_repeated && !to_be_changed);
        self.changes.set(slot, is_due);
    }

    /// Does the last report tell of something else than what is to be reported now?
    fn is_untold(&self, merged: &Merged) -> bool {
        let is_untold = |flow: &Flow| merged.wanted.is_some() && flow.wanted != flow.told;
        merged.wanted != merged.told || self.flows_of(merged).any(is_untold)
    }

    /// What the last report of the group at a slot told is outdated, so it is not repeated.
    fn begin_reports(&mut self, slot: usize) {
        self.repeats.remove(slot);
        if let Some((_, merged)) = self.groups.get_mut(slot) {
            merged.times = 0;
        }
    }

    /// All groups are left in the end, and only the reports of that are still to be sent.
    pub(crate) fn end(&mut self) {
        for slot in self.groups.slots() {
            self.begin_reports(slot);
            let Some((_, merged)) = self.groups.get_mut(slot) else {
                continue;
            };
            merged.wanted = None;
            let is_told = merged.told.is_some();
            for_each_flow(self.groups, self.flows, slot, |_, flow| flow.wanted = false);
            self.changes.set(slot, is_told);
        }
    }

    /// Is the kernel to be the member of a group, or does the router report it alone? The kernel
    /// would report a source-specific group in MLDv1, and must not (RFC 4604 §2). And of what
    /// it sends upstream, it hands a copy to its own members there, which would be forwarded again.
    fn is_for_kernel(&self, group: Ipv6Addr) -> bool {
        let can_report = self.versions.of_kernel == MldVersion::V2 || !is_source_specific(group);
        can_report && !self.base.senders()
    }

    /// Does the router report a group alone that it is a member of?
    pub(crate) fn is_alone_in(&self, group: Ipv6Addr) -> bool {
        let merged = self.get(group);
        merged.is_some_and(Merged::is_alone)
    }

    /// Is there such a group?
    pub(crate) fn is_alone(&self) -> bool {
        self.iter().any(|(_, merged)| merged.is_alone())
    }

    /// The groups that the router is a member of, and may report, from a slot on. The leave of a
    /// source-specific one may fail while MLDv1 is in force.
    pub(crate) fn current_from(&self, first: usize) -> impl Iterator<Item = Current> {
        let groups = self.groups.iter_from(first);
        groups.filter_map(|(slot, group, merged)| {
            let is_v2 = self.versions.in_force == MldVersion::V2;
            let mode = merged
                .joined
                .filter(|_| is_v2 || !is_source_specific(group))?;
            Some(Current { slot, group, mode })
        })
    }

    /// Is the router a member of any group?
    pub(crate) fn has_current(&self) -> bool {
        self.current_from(0).next().is_some()
    }

    /// Writes the sources of the filter that the router has upstream for the group at a slot.
    pub(crate) fn write_current<'o>(&self, slot: usize, octets: &'o mut [u8]) -> Sources<'o> {
        let merged = self.groups.get(slot).map(|(_, merged)| merged);
        let flows = merged.into_iter().flat_map(|merged| self.flows_of(merged));
        let joined = flows.filter(|flow| flow.joined);
        Sources::write(joined.map(|flow| flow.source), octets)
    }

    /// Is the router a member of a group?
    pub(crate) fn is_member(&self, group: Ipv6Addr) -> bool {
        let merged = self.get(group);
        merged.is_some_and(|merged| merged.joined.is_some())
    }

    /// Is a change to be reported now?
    pub(crate) fn has_changes(&self) -> bool {
        !self.changes.is_empty()
    }

    /// Notes changes as reported that the router does not report: all of them without a `manner`,
    /// those that the kernel alone reports, and in MLDv1 those of source-specific groups (RFC 4604
    /// §2).
    pub(crate) fn leave_reports(&mut self, manner: Option<&Manner>) {
        let mut first = 0;
        while let Some(slot) = self.changes.next_from(first) {
            first = slot.saturating_add(1);
            let Some((group, merged)) = self.groups.get(slot) else {
                continue;
            };
            let is_reported = manner.is_some_and(|manner| {
                let is_kernels = manner.times == 0 && merged.is_of_kernel;
                let is_silent = manner.version == MldVersion::V1 && is_source_specific(group);
                !is_kernels && !is_silent
            });
            if !is_reported {
                self.note_told(slot, 0);
            }
        }
    }

    /// Builds the next report of changes; its length, and where it goes. The same one again until
    /// [`Self::report_done`] is told of it. `buffer` is of an IPv6 link's least MTU or more.
    pub(crate) fn poll_report(
        &mut self,
        manner: &Manner,
        buffer: &mut [u8],
    ) -> Option<(usize, Ipv6Addr)> {
        let source = manner.source;
        self.polled = 1;
        match manner.version {
            MldVersion::V1 => {
                let (group, merged) = self.groups.get(self.changes.first()?)?;
                match merged.wanted {
                    Some(_) => Some((ReportV1 { source, group }.emit(buffer)?, group)),
                    None => Some((Done { source, group }.emit(buffer)?, ALL_ROUTERS)),
                }
            }
            MldVersion::V2 => {
                let mut report = ReportBuilder::new(buffer);
                let mut slots = self.changes.iter();
                let does_not_fit = |slot| !self.push_change(&mut report, slot);
                let pushed = slots.position(does_not_fit);
                self.polled = pushed.unwrap_or(self.changes.len());
                Some((report.finish(source)?, ALL_MLDV2_ROUTERS))
            }
        }
    }

    /// Adds the records that report the change of the group at a slot (RFC 3810 §6.1), or repeat
    /// its last report: then by the whole filter. Returns false if they do not fit.
    fn push_change(&self, report: &mut ReportBuilder<'_>, slot: usize) -> bool {
        use FilterMode::{Exclude, Include};
        let Some((group, merged)) = self.groups.get(slot) else {
            return true;
        };
        let reported = merged.wanted;
        let (mut more, mut less) = ([0; LIST_LENGTH], [0; LIST_LENGTH]);
        let added = self.list(merged, &mut more, |wanted, told| wanted && !told);
        let removed = self.list(merged, &mut less, |wanted, told| told && !wanted);
        let is_long = added.count().saturating_add(removed.count()) > MOST_CHANGED;
        let is_repeated = !self.is_untold(merged);
        let whole = match (merged.told, reported) {
            (_, None | Some(Include)) if is_repeated => Some(RecordType::ChangeToInclude),
            (_, Some(Exclude)) if is_repeated => Some(RecordType::ChangeToExclude),
            (Some(Exclude), None | Some(Include)) => Some(RecordType::ChangeToInclude),
            (None | Some(Include), Some(Exclude)) => Some(RecordType::ChangeToExclude),
            (Some(Exclude), Some(Exclude)) if is_long => Some(RecordType::ChangeToExclude),
            (None | Some(Include), Some(Include)) if is_long => Some(RecordType::ChangeToInclude),
            (Some(Exclude), Some(Exclude)) | (None | Some(Include), None | Some(Include)) => None,
        };
        if let Some(record_type) = whole {
            let sources = match reported {
                Some(_) => self.list(merged, &mut more, |wanted, _| wanted),
                None => Sources::default(),
            };
            return report.push_with(record_type, group, sources);
        }
        let (allowed, blocked) = match reported {
            Some(Exclude) => (removed, added),
            Some(Include) | None => (added, removed),
        };
        let mut push = |record_type, sources: Sources<'_>| {
            sources.is_empty() || report.push_with(record_type, group, sources)
        };
        push(RecordType::AllowNewSources, allowed) && push(RecordType::BlockOldSources, blocked)
    }

    /// Writes the sources of a group for which `is_in` is true: as wanted, and as told.
    fn list<'o>(
        &self,
        merged: &Merged,
        octets: &'o mut [u8],
        is_in: fn(bool, bool) -> bool,
    ) -> Sources<'o> {
        let flows = self.flows_of(merged);
        let sources = flows.filter(|flow| is_in(flow.wanted, flow.told));
        Sources::write(sources.map(|flow| flow.source), octets)
    }

    /// The report polled last was sent, or could not be: the kernel reports the change too.
    pub(crate) fn report_done(&mut self, now: Instant, manner: &Manner) {
        for _ in 0..self.polled {
            let Some(slot) = self.changes.take_first() else {
                return;
            };
            let Some((_, merged)) = self.groups.get(slot) else {
                continue;
            };
            let left = match self.is_untold(merged) {
                true if !merged.is_of_kernel => manner.times_alone,
                true => manner.times,
                false => merged.times,
            };
            let times = left.saturating_sub(1);
            if times > 0 {
                self.repeats.insert(slot);
                let repeat_at = now.saturating_add(REPEAT_INTERVAL);
                bring_forward(&mut self.repeat_at, repeat_at);
            }
            self.note_told(slot, times);
        }
    }

    /// The group at a slot was reported as it is. Its report is to be repeated so many times.
    fn note_told(&mut self, slot: usize, times: u8) {
        let Some((_, merged)) = self.groups.get(slot) else {
            return;
        };
        let told = merged.wanted;
        if let Some((_, merged)) = self.groups.get_mut(slot) {
            merged.told = told;
            merged.times = times;
        }
        for_each_flow(self.groups, self.flows, slot, |_, flow| {
            flow.told = flow.wanted && told.is_some();
        });
        self.settle(slot);
    }

    pub(super) fn repeat_changes(&mut self, now: Instant) {
        if self.repeat_at.is_some_and(|due| due <= now) {
            self.repeat_at = None;
            while let Some(slot) = self.repeats.take_first() {
                self.changes.insert(slot);
            }
        }
    }
}
