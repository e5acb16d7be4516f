//! What hosts and other routers say on the downstreams: reports, leaves and queries.

use core::net::Ipv6Addr;

use log::warn;

use super::{Streams, log_querier};
use crate::config::{MldVersion, is_source_specific};
use crate::context::Context;
use crate::counters::Counter;
use crate::link::{Port, Side};
use crate::mld::members::{Limits, Listener, Refusal, Reported};
use crate::mld::querier::Role;
use crate::wire::{MacAddress, Message, Query, QueryVersion, Record, RecordType, Sources};

impl Streams<'_> {
    /// A host downstream sent a message.
    pub(crate) fn handle_message(
        &mut self,
        cx: &mut Context,
        (port, mac): (Port, MacAddress),
        message: &Message<'_>,
    ) {
        let listener = Listener { port, mac };
        match message {
            Message::Query(query) => self.handle_query(cx, port, query),
            Message::ReportV1(report) => {
                let record = older_record(RecordType::ModeIsExclude, report.group);
                self.handle_record(cx, listener, MldVersion::V1, &record);
            }
            Message::Done(done) => {
                let record = older_record(RecordType::ChangeToInclude, done.group);
                self.handle_record(cx, listener, MldVersion::V1, &record);
            }
            Message::ReportV2(report) => {
                for record in report.records.clone() {
                    self.handle_record(cx, listener, MldVersion::V2, &record);
                }
            }
            Message::NeighborSolicitation(_) | Message::NeighborAdvertisement(_) => {}
        }
    }

    /// A listener sent a record in a message of a version.
    fn handle_record(
        &mut self,
        cx: &mut Context,
        listener: Listener,
        version: MldVersion,
        record: &Record<'_>,
    ) {
        let Record {
            record_type,
            group,
            sources,
        } = *record;
        let Some(config) = &cx.config.mld_proxy else {
            return;
        };
        if !config.proxies(group) {
            return;
        }
        // RFC 4604 §2: a router ignores what is not source-specific for such a group.
        let is_older = version == MldVersion::V1;
        if is_source_specific(group) && (is_older || !is_for_sources(record_type)) {
            cx.counters.count(Counter::NotSourceSpecific);
            return;
        }
        let Some(downstream) = self.downstreams.get_mut(usize::from(listener.port)) else {
            return;
        };
        let reported = Reported {
            now: cx.now,
            listener,
            group,
            record_type,
            sources,
            timings: downstream.querier.timings(config),
            limits: Limits {
                groups: config.max_groups,
                groups_of_host: cx.config.per_mac,
                sources: config.max_sources,
                fast_leave: config.fast_leave,
            },
        };
        let (rate, burst) = (cx.config.join_rate, config.max_groups.into());
        let may_grow = || downstream.joins.take(cx.now, rate, burst);
        let proxy = &mut self.proxy;
        let mut changed = |group| proxy.note(group);
        let members = &mut self.members;
        let taken = match (version, record_type) {
            (MldVersion::V1, RecordType::ModeIsExclude) => {
                members.handle_older_host(&reported, may_grow, &mut changed)
            }
            (MldVersion::V1 | MldVersion::V2, _) => {
                members.handle_record(&reported, may_grow, &mut changed)
            }
        };
        if let Err(refusal) = taken {
            self.refuse(cx, listener, refusal);
        }
    }

    fn refuse(&mut self, cx: &mut Context, listener: Listener, refusal: Refusal) {
        let (counter, what, option) = match refusal {
            Refusal::HostQuota => (Counter::RefusedGroupQuota, "groups", "--per-mac"),
            Refusal::Rate => (Counter::RefusedGroupRate, "groups a second", "--join-rate"),
            Refusal::Full => (Counter::RefusedGroup, "groups", "--max-groups"),
            Refusal::Sources => (Counter::RefusedSource, "sources", "--max-sources"),
        };
        cx.counters.count(counter);
        if self.refusal_lines.allows(cx.now) {
            let on = cx.config.name_of(Side::Downstream(listener.port));
            warn!(
                "{} on {on} listens to more {what} than are taken; see {option}",
                listener.mac
            );
        }
    }

    /// A query was heard downstream (RFC 3810 §7.6).
    fn handle_query(&mut self, cx: &mut Context, port: Port, query: &Query<'_>) {
        let Some(config) = &cx.config.mld_proxy else {
            return;
        };
        let link = cx.links.downstream(port).and_then(|link| link.link_local);
        let (Some(own), Some(downstream)) = (link, self.downstreams.get_mut(usize::from(port)))
        else {
            return;
        };
        let was_querier = downstream.querier.is_querier();
        let change = downstream.querier.handle_query(cx.now, own, query);
        if let Some(change) = change
            && downstream.querier_lines.allows(cx.now)
        {
            let forwards = downstream.querier.forwards(config);
            log_querier(&cx.config, port, change, forwards);
        }
        if was_querier && !downstream.querier.is_querier() {
            self.members.end_queries(port);
            self.proxy.note_all();
        }
        // Only who is querier in place of this router lowers its timers, and only so that the
        // listeners hear it too.
        let by_querier = match downstream.querier.role() {
            Role::Other(other) | Role::Off(Some(other)) => other.address == query.source,
            Role::Down | Role::Querier { .. } | Role::Off(None) => false,
        };
        let (suppresses, sources) = match query.version {
            QueryVersion::V1 => (false, Sources::default()),
            QueryVersion::V2 {
                suppress_router_processing,
                sources,
                ..
            } => (suppress_router_processing, sources),
        };
        if by_querier && !suppresses && query.destination == query.group {
            let timings = downstream.querier.timings(config);
            let place = (port, query.group);
            self.members.handle_query(cx.now, place, sources, &timings);
        }
    }
}

/// What an MLDv1 message counts as (RFC 3810 §8.3.2): a Report as IS_EX{}, and a Done as TO_IN{}.
fn older_record(record_type: RecordType, group: Ipv6Addr) -> Record<'static> {
    Record {
        record_type,
        group,
        sources: Sources::default(),
    }
}

/// Does a record speak of the sources that a listener wants (RFC 4604 §2)?
fn is_for_sources(record_type: RecordType) -> bool {
    match record_type {
        RecordType::ModeIsInclude
        | RecordType::ChangeToInclude
        | RecordType::AllowNewSources
        | RecordType::BlockOldSources => true,
        RecordType::ModeIsExclude | RecordType::ChangeToExclude | RecordType::Unknown(_) => false,
    }
}
