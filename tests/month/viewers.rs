//! Viewers: hosts that listen to streams and change their minds. Whatever happens to links, tables
//! and memberships, in the end each stream reaches whoever listens to it.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;

use model::multicast::{Filter, Way};
use model::packets::{heard, record};
use protocol::config::{MOST_GROUPS, MldVersion, ProxyConfig, Scope, is_source_specific};
use protocol::link::{Port, Side};
use protocol::mld::filter::FilterMode;
use protocol::mld::proxy::entries::number_of;
use protocol::time::Duration;
use protocol::wire::{MacAddress, RecordType};

use crate::month::{Happening, MINUTE, Month, SECOND};

const VIEWERS: u16 = 24;
/// A viewer's sources are the first of these, and the last one is nobody's.
const SOURCES: u16 = 4;
/// All answers to a query have come, and what failed has been retried.
const SETTLED: u64 = 20 * SECOND;

/// A host that listens to one group.
pub struct Viewer {
    number: u16,
    port: Port,
    group: Ipv6Addr,
    /// What it listens to; INCLUDE of nothing if it does not.
    wish: Filter,
}

/// The settings of the MLD proxy. It queries seldom, since the answers cost most of the time.
pub fn proxy_config(random: &mut fastrand::Rng) -> ProxyConfig {
    ProxyConfig {
        query_interval: Duration::from_secs(3600),
        senders: random.bool(),
        // With the solicited-node groups of all hosts.
        max_groups: MOST_GROUPS,
        ..ProxyConfig::default()
    }
}

pub fn viewers(ports: usize) -> Vec<Viewer> {
    let viewer = |number: u16| {
        let of = number / 4;
        let scope = match number % 4 {
            0 | 1 => 0xff3e,
            2 => 0xff1e,
            _ => 0xff05,
        };
        Viewer {
            number,
            port: (usize::from(number / 2) % ports) as Port,
            group: Ipv6Addr::new(scope, 0, 0, 0, 0, 0, 0x8000, of % 3),
            wish: nothing(),
        }
    };
    (0..VIEWERS).map(viewer).collect()
}

fn nothing() -> Filter {
    Filter {
        mode: FilterMode::Include,
        sources: BTreeSet::new(),
    }
}

fn source(number: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0xfeed, 0, 0, 0, 0, number)
}

impl Month {
    /// A viewer changes its mind, and says so, if its link is there.
    pub fn zaps(&mut self, viewer: usize) {
        let bits = self.random.u16(..1 << (SOURCES - 1));
        let numbers = (0..SOURCES - 1).filter(|number| bits >> number & 1 != 0);
        let is_specific = is_source_specific(self.viewers[viewer].group);
        let mode = match !is_specific && self.random.bool() {
            true => FilterMode::Exclude,
            false => FilterMode::Include,
        };
        let sources = numbers.map(source).collect();
        self.wishes(viewer, &Filter { mode, sources });
    }

    /// A viewer wants this from now on, and reports the change (RFC 3810 §6.1).
    pub fn wishes(&mut self, viewer: usize, wish: &Filter) {
        let before = std::mem::replace(&mut self.viewers[viewer].wish, wish.clone());
        let (less, more) = (
            &before.sources - &wish.sources,
            &wish.sources - &before.sources,
        );
        match (before.mode, wish.mode) {
            (FilterMode::Include, FilterMode::Include) => {
                self.reports_streams(viewer, RecordType::AllowNewSources, &more);
                self.reports_streams(viewer, RecordType::BlockOldSources, &less);
            }
            (FilterMode::Exclude, FilterMode::Exclude) => {
                self.reports_streams(viewer, RecordType::AllowNewSources, &less);
                self.reports_streams(viewer, RecordType::BlockOldSources, &more);
            }
            (FilterMode::Include, FilterMode::Exclude) => {
                self.reports_streams(viewer, RecordType::ChangeToExclude, &wish.sources);
            }
            (FilterMode::Exclude, FilterMode::Include) => {
                self.reports_streams(viewer, RecordType::ChangeToInclude, &wish.sources);
            }
        }
    }

    fn reports_streams(&mut self, viewer: usize, kind: RecordType, sources: &BTreeSet<Ipv6Addr>) {
        let Viewer {
            number,
            port,
            group,
            ..
        } = self.viewers[viewer];
        if self.world.downstream(port).is_none() {
            return;
        }
        let mac = MacAddress([2, 0, 0, 3, 0, number as u8]);
        let link_local = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 3, number);
        let sources: Vec<_> = sources.iter().copied().collect();
        let packet = record(link_local, kind, group, &sources);
        self.world.truth.hear(self.world.now(), (port, mac));
        self.world
            .handle(heard(Side::Downstream(port), mac, &packet));
    }

    /// A viewer answers a query by its current state (RFC 3810 §6.2).
    pub fn tells(&mut self, viewer: usize) {
        let wish = self.viewers[viewer].wish.clone();
        match wish.mode {
            FilterMode::Include if wish.sources.is_empty() => {}
            FilterMode::Include => {
                self.reports_streams(viewer, RecordType::ModeIsInclude, &wish.sources);
            }
            FilterMode::Exclude => {
                self.reports_streams(viewer, RecordType::ModeIsExclude, &wish.sources);
            }
        }
    }

    /// The router queries a link: a group, or all of them where it is `::`.
    pub fn viewers_hear(&mut self, port: Port, group: Ipv6Addr) {
        let longest = if group.is_unspecified() { 9_000 } else { 900 };
        for viewer in 0..self.viewers.len() {
            let known = &self.viewers[viewer];
            if known.port == port && (group.is_unspecified() || known.group == group) {
                let delay = self.random.u64(..longest);
                self.at(delay, Happening::Tells { viewer });
            }
        }
    }

    /// Checks that each viewer gets what it listens to, unless something has just failed.
    pub fn look_at_viewers(&mut self) {
        let disturbed = self.disturbed.max(self.world.disturbed);
        let is_settled = self.world.now() > disturbed + SETTLED && !self.is_sick;
        if !is_settled || self.world.upstream().is_none() {
            return;
        }
        for viewer in &self.viewers {
            if self.world.downstream(viewer.port).is_some() {
                self.check_viewer(viewer);
                self.world.truth.kept += 1;
            }
        }
    }

    fn check_viewer(&self, viewer: &Viewer) {
        let Viewer {
            number,
            port,
            group,
            ..
        } = *viewer;
        let model = &self.world.model;
        let multicast = &model.kernel.multicast;
        let is_home = Scope::of(group) < Scope::ORGANIZATION_LOCAL;
        let version = model.engine.mld().host().heard_version();
        for wanted in (0..SOURCES)
            .map(source)
            .filter(|it| viewer.wish.lets_in(*it))
        {
            let arrival = match is_home {
                false => Side::Upstream,
                // A home group's source that somebody names counts as upstream, where it is not.
                true if viewer.wish.mode == FilterMode::Include => continue,
                true => {
                    let named = |other: &Viewer| other.wish.sources.contains(&wanted);
                    let others = self.viewers.iter().filter(|other| other.group == group);
                    let ports = self.world.ports() as Port;
                    let other = (port + 1) % ports;
                    let is_there = self.world.downstream(other).is_some();
                    if wanted != source(SOURCES - 1) || others.clone().any(named) || !is_there {
                        continue;
                    }
                    Side::Downstream(other)
                }
            };
            let way = multicast.forward(number_of(arrival), wanted, group);
            let Way::Out(out) = way else {
                panic!("the kernel has no entry for {group}");
            };
            let bit = 1 << number_of(Side::Downstream(port));
            assert!(out & bit != 0, "viewer {number} misses {wanted} to {group}");
            let is_told = version == MldVersion::V2 || !is_source_specific(group);
            if !is_home && is_told {
                let joined = multicast.memberships.get(&group);
                let is_joined = joined.is_some_and(|joined| joined.lets_in(wanted));
                assert!(is_joined, "{group} is not joined for {wanted}");
            }
        }
    }

    /// All viewers get what they listen to, stop listening, and get nothing any more.
    pub fn viewers_end(&mut self) {
        if self.viewers.is_empty() {
            return;
        }
        let end = self.world.now() + MINUTE;
        while self.next(end) {}
        let kept = self.world.truth.kept;
        self.look_at_viewers();
        assert!(self.world.truth.kept > kept, "the viewers are looked at");
        for viewer in 0..self.viewers.len() {
            self.wishes(viewer, &nothing());
        }
        // What a viewer said while its link was down was not heard: until its timers expire.
        let listening = Duration::from_secs(2 * 3600 + 10).as_millis();
        let end = self.world.now() + listening + SECOND;
        while self.next(end) {}
    }
}
