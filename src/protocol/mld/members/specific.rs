//! The queries that a leave makes necessary: Multicast Address Specific Queries, and Multicast
//! Address and Source Specific Queries (RFC 3810 §7.6.3).
//!
//! A query lowers a timer to the Last Listener Query Time once it is sent (RFC 3810 §7.6.1), not
//! when a leave asks for it: until then no listener could have answered. A repeat of the leave must
//! not raise the timer, so a query follows only where the timer is above that time. Who is not the
//! querier waits for the querier's query.

use core::net::Ipv6Addr;

use super::record::Reported;
use super::{LinkGroup, Members, Mode, Source, SourceState};
use crate::link::Port;
use crate::mld::querier::Timings;
use crate::time::Instant;
use crate::wire::Sources;

/// The queries about one group on a link, or about one source of it, that are still to be sent.
#[derive(Clone, Copy, Default)]
pub(super) struct Asking {
    left: u8,
    /// One of them is to be sent now.
    is_due: bool,
    /// The next one that is sent lowers the timer.
    lowers: bool,
}

impl Asking {
    /// A leave asks for queries, while the timer runs until `until`. A fast leave ends the timer.
    /// Returns whether a query is to be sent.
    pub(super) fn begin(&mut self, until: &mut Instant, reported: &Reported<'_>) -> bool {
        let (now, timings) = (reported.now, &reported.timings);
        if reported.limits.fast_leave {
            *until = now;
            return false;
        }
        if !timings.is_querier || self.lowers || !is_above(*until, now, timings) {
            return false;
        }
        self.left = timings.last_listener_count;
        self.lowers = true;
        true
    }

    /// A listener was heard. A query that still waits comes too late to lower the timer.
    pub(super) fn heard(&mut self) {
        self.lowers = false;
    }

    /// Nothing is to be asked any more.
    pub(super) fn end(&mut self) {
        *self = Asking::default();
    }

    fn begin_round(&mut self) -> bool {
        self.is_due = self.left > 0;
        self.is_due
    }

    /// A query was sent at `at`, or could not be: then the next one lowers the timer `until`.
    fn sent(&mut self, until: &mut Instant, at: Instant, timings: &Timings, succeeded: bool) {
        self.left = self.left.saturating_sub(1);
        self.is_due = false;
        if self.lowers && succeeded {
            self.lowers = false;
            lower(until, at, timings);
        }
        self.lowers &= self.left > 0;
    }

    /// Is the S flag set in the query about what has the timer `until`?
    fn is_suppressing(&self, until: Instant, at: Instant, timings: &Timings) -> bool {
        !self.lowers && is_above(until, at, timings)
    }
}

/// Lowers a timer to the Last Listener Query Time, if it is above that.
fn lower(until: &mut Instant, now: Instant, timings: &Timings) {
    *until = (*until).min(now.saturating_add(timings.last_listener_time()));
}

/// A query about a group on a link, as it is at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Specific {
    slot: usize,
    pub port: Port,
    pub group: Ipv6Addr,
    about: About,
    at: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum About {
    Group,
    /// The sources that were heard since the first query, so that their timers are above the Last
    /// Listener Query Time: the S flag is set.
    HeardSources,
    /// The other sources.
    Sources,
}

impl Members<'_> {
    /// Has the queries about a group on a link that are left sent now.
    pub(super) fn begin_round(&mut self, slot: usize) {
        let mut is_due = false;
        self.retain_sources(slot, |source| {
            is_due |= source.asking.begin_round();
            true
        });
        if let Some(link_group) = self.link_groups.get_mut(slot) {
            is_due |= link_group.asking.begin_round();
            link_group.next_query = None;
        }
        self.due.set(slot, is_due);
    }

    /// Notes anew whether a query about a group on a link is due: what it was for may be gone.
    pub(super) fn note_due(&mut self, slot: usize) {
        let Some(link_group) = self.link_groups.get(slot) else {
            return;
        };
        let mut sources = self.sources_of(link_group);
        let is_due = link_group.asking.is_due || sources.any(|source| source.asking.is_due);
        drop(sources);
        self.due.set(slot, is_due);
    }

    /// Another router on a link has queried a group, or some of its sources (RFC 3810 §7.6.1).
    pub(crate) fn handle_query(
        &mut self,
        now: Instant,
        (port, group): (Port, Ipv6Addr),
        sources: Sources<'_>,
        timings: &Timings,
    ) {
        let Some(slot) = self.find(port, group) else {
            return;
        };
        if sources.is_empty() {
            if let Some(link_group) = self.link_groups.get_mut(slot)
                && let Mode::Exclude { until } = &mut link_group.mode
            {
                lower(until, now, timings);
            }
        } else {
            self.retain_sources(slot, |source| {
                if let SourceState::Requested { until } = &mut source.state
                    && sources.contains(source.address)
                {
                    lower(until, now, timings);
                }
                true
            });
        }
        self.settle(slot, false, &mut |_| {});
    }

    /// The next specific query that is due on a link for which `can_send` is true.
    pub(crate) fn poll_specific(
        &self,
        now: Instant,
        timings_on: impl Fn(Port) -> Option<Timings>,
    ) -> Option<(Specific, Timings)> {
        self.due.iter().find_map(|slot| {
            let link_group = self.link_groups.get(slot)?;
            let timings = timings_on(link_group.port)?;
            let specific = |about| Specific {
                slot,
                port: link_group.port,
                group: self.group_at(link_group).unwrap_or(Ipv6Addr::UNSPECIFIED),
                about,
                at: now,
            };
            let (mut heard, mut others) = (false, false);
            for source in self.sources_of(link_group) {
                let is_heard = source.is_heard(now, &timings);
                heard |= source.asking.is_due && is_heard;
                others |= source.asking.is_due && !is_heard;
            }
            let about = if link_group.asking.is_due {
                About::Group
            } else if heard {
                About::HeardSources
            } else if others {
                About::Sources
            } else {
                return None;
            };
            Some((specific(about), timings))
        })
    }

    /// Is the S flag set in a query?
    pub(crate) fn is_suppressing(&self, specific: &Specific, timings: &Timings) -> bool {
        let link_group = self.link_groups.get(specific.slot);
        match specific.about {
            About::Group => link_group.is_some_and(|link_group| match link_group.mode {
                Mode::Include => false,
                Mode::Exclude { until } => {
                    let asking = &link_group.asking;
                    asking.is_suppressing(until, specific.at, timings)
                }
            }),
            About::HeardSources => true,
            About::Sources => false,
        }
    }

    /// The sources of a query.
    pub(crate) fn asked_about<'m>(
        &'m self,
        specific: &'m Specific,
        timings: &'m Timings,
    ) -> impl Iterator<Item = Ipv6Addr> + 'm {
        let link_group = self.link_groups.get(specific.slot);
        let sources = link_group.into_iter().flat_map(|it| self.sources_of(it));
        let asked = sources.filter(|source| specific.concerns(source, timings));
        asked.map(|source| source.address)
    }

    /// A query was sent. One that could not be sent counts as lost on its way, but lowers no timer.
    pub(crate) fn specific_sent(
        &mut self,
        now: Instant,
        (specific, timings): (&Specific, &Timings),
        succeeded: bool,
    ) {
        let slot = specific.slot;
        let is_it = |it: &&mut LinkGroup| it.port == specific.port;
        let Some(link_group) = self.link_groups.get_mut(slot).filter(is_it) else {
            return;
        };
        if specific.about == About::Group
            && let Mode::Exclude { until } = &mut link_group.mode
        {
            let asking = &mut link_group.asking;
            asking.sent(until, specific.at, timings, succeeded);
        }
        let (mut left, mut is_due) = (link_group.asking.left, link_group.asking.is_due);
        self.retain_sources(slot, |source| {
            if specific.concerns(source, timings)
                && let SourceState::Requested { until } = &mut source.state
            {
                let asking = &mut source.asking;
                asking.sent(until, specific.at, timings, succeeded);
            }
            left = left.max(source.asking.left);
            is_due |= source.asking.is_due;
            true
        });
        self.due.set(slot, is_due);
        if let Some(link_group) = self.link_groups.get_mut(slot)
            && left > 0
            && !is_due
        {
            let next = now.saturating_add(timings.last_listener_interval);
            link_group.next_query = Some(next);
        }
        self.settle(slot, false, &mut |_| {});
    }

    /// Asks nothing more on a link: another router is its querier.
    pub(crate) fn end_queries(&mut self, port: Port) {
        let mut first = 0;
        while let Some(slot) = self.next_on(port, first) {
            first = slot.saturating_add(1);
            self.retain_sources(slot, |source| {
                source.asking.end();
                true
            });
            if let Some(link_group) = self.link_groups.get_mut(slot) {
                link_group.asking.end();
                link_group.next_query = None;
            }
            self.due.remove(slot);
            self.settle(slot, false, &mut |_| {});
        }
    }

    /// The next group on a link, from a slot on.
    fn next_on(&self, port: Port, first: usize) -> Option<usize> {
        let mut link_groups = self.link_groups.iter_from(first);
        let found = link_groups.find(|(_, link_group)| link_group.port == port);
        found.map(|(slot, _)| slot)
    }

    /// Is a specific query waiting to be sent?
    pub(crate) fn has_due(&self) -> bool {
        !self.due.is_empty()
    }
}

impl Specific {
    /// Is a source part of the query?
    fn concerns(&self, source: &Source, timings: &Timings) -> bool {
        let is_heard = source.is_heard(self.at, timings);
        source.asking.is_due
            && match self.about {
                About::Group => false,
                About::HeardSources => is_heard,
                About::Sources => !is_heard,
            }
    }
}

impl Source {
    /// Is the S flag set in a query about it?
    fn is_heard(&self, now: Instant, timings: &Timings) -> bool {
        match self.state {
            SourceState::Requested { until } => self.asking.is_suppressing(until, now, timings),
            SourceState::Excluded => false,
        }
    }
}

fn is_above(until: Instant, now: Instant, timings: &Timings) -> bool {
    until > now.saturating_add(timings.last_listener_time())
}
