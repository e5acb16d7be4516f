//! What a report changes: a record of a listener, by RFC 3810 §7.4 and §8.3.2, within limits.

use core::net::Ipv6Addr;

use super::specific::Asking;
use super::{LinkGroup, Listener, Members, Mode, Source, SourceState};
use crate::link::Port;
use crate::mld::filter::{Fate, FilterMode, SourceTimer, rule_on_group, rule_on_source};
use crate::mld::querier::Timings;
use crate::tables::table::Next;
use crate::time::Instant;
use crate::wire::{RecordType, Sources};

/// What a listener may make the router keep.
#[derive(Clone, Copy)]
pub struct Limits {
    /// The most groups of one link.
    pub groups: u16,
    /// The most groups of one host.
    pub groups_of_host: u16,
    /// The most sources of one group on one link.
    pub sources: u8,
    /// A leave ends a stream without a query.
    pub fast_leave: bool,
}

/// Why a group or a source was not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Its host has as many groups as it may.
    HostQuota,
    /// Groups come faster than the join rate.
    Rate,
    /// The link has as many groups as it may, or a table is full.
    Full,
    /// The group has as many sources as it may, or the table of sources is full.
    Sources,
}

/// A record of one listener, and what it meets.
#[derive(Clone, Copy)]
pub(crate) struct Reported<'a> {
    pub now: Instant,
    pub listener: Listener,
    pub group: Ipv6Addr,
    pub record_type: RecordType,
    pub sources: Sources<'a>,
    pub timings: Timings,
    pub limits: Limits,
}

impl Members<'_> {
    /// An MLDv1 host reports a group, which counts as IS_EX{} (RFC 3810 §8.3.2). `may_grow` tells
    /// whether the router may keep one group more.
    pub(crate) fn handle_older_host(
        &mut self,
        reported: &Reported<'_>,
        may_grow: impl FnOnce() -> bool,
        changed: &mut dyn FnMut(Ipv6Addr),
    ) -> Result<(), Refusal> {
        self.handle_record(reported, may_grow, changed)?;
        if let Some(slot) = self.find(reported.listener.port, reported.group)
            && let Some(link_group) = self.link_groups.get_mut(slot)
        {
            let interval = reported.timings.listening_interval;
            link_group.older_host_until = Some(reported.now.saturating_add(interval));
            self.settle(slot, false, changed);
        }
        Ok(())
    }

    /// A listener sent a record. Calls `changed` with each group whose filter changed: its own, and
    /// one that gave way.
    pub(crate) fn handle_record(
        &mut self,
        reported: &Reported<'_>,
        may_grow: impl FnOnce() -> bool,
        changed: &mut dyn FnMut(Ipv6Addr),
    ) -> Result<(), Refusal> {
        let port = reported.listener.port;
        let slot = match self.find(port, reported.group) {
            Some(slot) => slot,
            None if !makes_listener(reported) => return Ok(()),
            None => self.admit(reported, may_grow, changed)?,
        };
        let Some(link_group) = self.link_groups.get(slot) else {
            return Ok(());
        };
        let mut reported = *reported;
        // RFC 3810 §8.3.2: while an MLDv1 host is present, BLOCK messages and the sources of TO_EX
        // messages are ignored.
        if link_group.older_host_until.is_some() {
            match reported.record_type {
                RecordType::BlockOldSources => return Ok(()),
                RecordType::ChangeToExclude => reported.sources = Sources::default(),
                RecordType::ModeIsInclude
                | RecordType::ModeIsExclude
                | RecordType::ChangeToInclude
                | RecordType::AllowNewSources
                | RecordType::Unknown(_) => {}
            }
        }
        let (has_changed, refused) = self.apply(slot, &reported);
        self.settle(slot, has_changed, changed);
        if reported.limits.fast_leave {
            // What the record left expires now.
            self.expire(reported.now, slot, changed);
        }
        match refused {
            true => Err(Refusal::Sources),
            false => Ok(()),
        }
    }

    /// Applies a row of RFC 3810 §7.4. Returns whether the filter changed, and whether a source was
    /// refused.
    fn apply(&mut self, slot: usize, reported: &Reported<'_>) -> (bool, bool) {
        let (now, record_type) = (reported.now, reported.record_type);
        let Some(link_group) = self.link_groups.get(slot) else {
            return (false, false);
        };
        let (mode, filter_timer) = match link_group.mode {
            Mode::Include => (FilterMode::Include, now),
            Mode::Exclude { until } => (FilterMode::Exclude, until),
        };
        let Some(group_ruling) = rule_on_group(mode, record_type) else {
            return (false, false);
        };
        let listening_until = now.saturating_add(reported.timings.listening_interval);
        let timer = |timer| match timer {
            SourceTimer::ListeningInterval => listening_until,
            SourceTimer::FilterTimer => filter_timer,
        };
        let mut has_changed = group_ruling.mode != mode;
        let mut asks = false;
        self.retain_sources(slot, |source| {
            let known = Some(source.state.list());
            let is_listed = reported.sources.contains(source.address);
            let Some(ruling) = rule_on_source(mode, record_type, known, is_listed) else {
                return true;
            };
            let before = source.state.list();
            match ruling.fate {
                Fate::Stay => {}
                Fate::Request(set_to) => source.request(timer(set_to)),
                Fate::Exclude => source.exclude(),
                Fate::Forget => {
                    has_changed = true;
                    return false;
                }
            }
            has_changed |= source.state.list() != before;
            asks |= ruling.query && source.ask(reported);
            true
        });
        let mut refused = false;
        for address in reported.sources.iter() {
            let Some(ruling) = rule_on_source(mode, record_type, None, true) else {
                break;
            };
            let state = match ruling.fate {
                Fate::Stay | Fate::Forget => break,
                Fate::Request(set_to) => SourceState::Requested {
                    until: timer(set_to),
                },
                Fate::Exclude => SourceState::Excluded,
            };
            match self.add_source(slot, address, state, reported.limits.sources) {
                Added::New(source) => {
                    has_changed = true;
                    asks |= ruling.query && source.ask(reported);
                }
                Added::Known => {}
                Added::Refused => refused = true,
            }
        }
        let Some(link_group) = self.link_groups.get_mut(slot) else {
            return (has_changed, refused);
        };
        if group_ruling.restarts_filter_timer {
            link_group.mode = Mode::Exclude {
                until: listening_until,
            };
            link_group.asking.heard();
        }
        if group_ruling.query
            && let Mode::Exclude { until } = &mut link_group.mode
        {
            asks |= link_group.asking.begin(until, reported);
        }
        if asks {
            self.begin_round(slot);
        }
        (has_changed, refused)
    }

    /// Adds a source to a group on a link, unless it is there already.
    fn add_source(
        &mut self,
        slot: usize,
        address: Ipv6Addr,
        state: SourceState,
        limit: u8,
    ) -> Added<'_> {
        let Some(link_group) = self.link_groups.get(slot) else {
            return Added::Refused;
        };
        let mut sources = self.sources_of(link_group);
        if sources.any(|source| source.address == address) {
            return Added::Known;
        }
        drop(sources);
        let Some(link_group) = self.link_groups.get_mut(slot) else {
            return Added::Refused;
        };
        if link_group.sources >= limit {
            return Added::Refused;
        }
        let source = Source {
            address,
            state,
            asking: Asking::default(),
            next: link_group.first_source,
        };
        let Ok(added) = self.sources.insert(source) else {
            return Added::Refused;
        };
        link_group.first_source = Next::to(added);
        link_group.sources = link_group.sources.saturating_add(1);
        match self.sources.get_mut(added) {
            Some(source) => Added::New(source),
            None => Added::Refused,
        }
    }

    /// Makes room for a group on a link, within the limits.
    fn admit(
        &mut self,
        reported: &Reported<'_>,
        may_grow: impl FnOnce() -> bool,
        changed: &mut dyn FnMut(Ipv6Addr),
    ) -> Result<usize, Refusal> {
        let Reported {
            listener,
            group,
            limits,
            ..
        } = *reported;
        let held = self.hosts.count(listener);
        if held >= limits.groups_of_host {
            return Err(Refusal::HostQuota);
        }
        if !may_grow() {
            return Err(Refusal::Rate);
        }
        if self.count_on(listener.port) < limits.groups
            && let Some(slot) = self.insert(group, listener)
        {
            return Ok(slot);
        }
        // A group that gives way makes no room for another host.
        if !self.hosts.takes(listener) {
            return Err(Refusal::Full);
        }
        self.give_way(listener.port, held, changed);
        if self.count_on(listener.port) >= limits.groups {
            return Err(Refusal::Full);
        }
        self.insert(group, listener).ok_or(Refusal::Full)
    }

    /// Removes the newest group of the host that has most on a link, if these are at least two more
    /// than `held`.
    fn give_way(&mut self, port: Port, held: u16, changed: &mut dyn FnMut(Ipv6Addr)) {
        let Some((host, most)) = self.hosts.most_on(port) else {
            return;
        };
        if most < held.saturating_add(2) {
            return;
        }
        if let Some((slot, group)) = self.newest_of(host) {
            self.remove(slot);
            changed(group);
        }
    }

    /// The newest group of the host at a slot: who floods in the name of a host must not push out
    /// what that host has listened to before.
    fn newest_of(&self, host: usize) -> Option<(usize, Ipv6Addr)> {
        let all = self.link_groups.iter_from(0);
        let its = all.filter(|(_, link_group)| usize::from(link_group.host) == host);
        let age = |link_group: &LinkGroup| self.next_number.wrapping_sub(link_group.number);
        let (slot, link_group) = its.min_by_key(|(_, link_group)| age(link_group))?;
        Some((slot, self.group_at(link_group)?))
    }
}

/// What became of a source that a record lists.
enum Added<'m> {
    New(&'m mut Source),
    Known,
    Refused,
}

/// Does a record make a listener of a host that was none?
fn makes_listener(reported: &Reported<'_>) -> bool {
    match reported.record_type {
        RecordType::ModeIsExclude | RecordType::ChangeToExclude => true,
        RecordType::ModeIsInclude | RecordType::ChangeToInclude | RecordType::AllowNewSources => {
            !reported.sources.is_empty()
        }
        RecordType::BlockOldSources | RecordType::Unknown(_) => false,
    }
}

impl Source {
    /// The source is in the Requested List. Queries that are still to be sent have the S flag set
    /// (RFC 3810 §7.6.3.2).
    fn request(&mut self, until: Instant) {
        self.state = SourceState::Requested { until };
        self.asking.heard();
    }

    fn exclude(&mut self) {
        self.state = SourceState::Excluded;
        self.asking.end();
    }

    /// The source is part of a query. Returns whether the query is still to be sent.
    fn ask(&mut self, reported: &Reported<'_>) -> bool {
        match &mut self.state {
            SourceState::Requested { until } => self.asking.begin(until, reported),
            SourceState::Excluded => false,
        }
    }
}
