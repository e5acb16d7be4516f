//! The MLD proxy: who listens to what downstream, what of it is wanted upstream, and what the
//! kernel forwards.

mod forwarding;
mod limits;
mod listeners;
mod merging;
mod queriers;
mod upstream;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;

use model::multicast::{Filter, Way};
use model::packets::{emitted, heard, query, record, v2};
use protocol::config::{Config, ProxyConfig};
use protocol::engine::Event;
use protocol::link::{Port, Side};
use protocol::mld::filter::FilterMode;
use protocol::mld::proxy::entries::number_of;
use protocol::time::Duration;
use protocol::wire::{Done, MacAddress, Query, QueryVersion, RecordType, ReportV1, Sources};

use crate::stage::{GATEWAY, Stage, UPSTREAM};

/// A group for single sources, a group for any source, and a group that stays at home.
const SSM: Ipv6Addr = Ipv6Addr::new(0xff3e, 0, 0, 0, 0, 0, 0x8000, 1);
const ASM: Ipv6Addr = Ipv6Addr::new(0xff1e, 0, 0, 0, 0, 0, 0, 1);
const HOME: Ipv6Addr = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, 0xfa);

use RecordType::{
    AllowNewSources as Allow, BlockOldSources as Block, ChangeToExclude as ToExclude,
    ChangeToInclude as ToInclude, ModeIsExclude as IsExclude, ModeIsInclude as IsInclude,
};

/// A source outside of the home.
fn source(number: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0xfeed, 0, 0, 0, 0, number)
}

fn sources(numbers: &[u16]) -> Vec<Ipv6Addr> {
    numbers.iter().map(|number| source(*number)).collect()
}

fn host(number: u8) -> (MacAddress, Ipv6Addr) {
    let link_local = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 2, number.into());
    (MacAddress([2, 0, 0, 0, 2, number]), link_local)
}

/// An MLD proxy with two downstreams, all of whose interfaces the kernel forwards by, behind its
/// startup.
fn proxy(configure: impl FnOnce(&mut ProxyConfig)) -> Stage {
    proxy_with(|_, proxy| configure(proxy))
}

fn proxy_with(configure: impl FnOnce(&mut Config, &mut ProxyConfig)) -> Stage {
    let mut stage = unforwarded(configure);
    for side in [Side::Upstream, Side::Downstream(0), Side::Downstream(1)] {
        stage.interface(side, true);
    }
    stage.pass(40);
    stage.streams.clear();
    stage
}

/// An MLD proxy with two downstreams, without any interface that the kernel forwards by.
fn unforwarded(configure: impl FnOnce(&mut Config, &mut ProxyConfig)) -> Stage {
    Stage::with(|config| {
        let mut proxy = ProxyConfig::default();
        configure(config, &mut proxy);
        config.mld_proxy = Some(proxy);
    })
}

impl Stage {
    /// A host reports one record.
    fn says(&mut self, port: Port, from: u8, kind: RecordType, group: Ipv6Addr, of: &[u16]) {
        let (mac, link_local) = host(from);
        self.receive_on(port, mac, &record(link_local, kind, group, &sources(of)));
    }

    /// A host reports a group by MLDv1.
    fn reports_v1(&mut self, port: Port, from: u8, group: Ipv6Addr) {
        let (mac, source) = host(from);
        let report = emitted(|buffer| ReportV1 { source, group }.emit(buffer));
        self.receive_on(port, mac, &report);
    }

    /// A host leaves a group by MLDv1.
    fn is_done(&mut self, port: Port, from: u8, group: Ipv6Addr) {
        let (mac, source) = host(from);
        let done = emitted(|buffer| Done { source, group }.emit(buffer));
        self.receive_on(port, mac, &done);
    }

    /// Another router queries on a downstream.
    fn is_queried(&mut self, port: Port, by: Ipv6Addr, group: Ipv6Addr, version: QueryVersion<'_>) {
        self.receive_on(port, host(0xee).0, &query(by, group, version));
    }

    /// The upstream's querier queries.
    fn upstream_queries(&mut self, version: QueryVersion<'_>) {
        let by = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xaa);
        let query = query(by, Ipv6Addr::UNSPECIFIED, version);
        self.handle(heard(Side::Upstream, GATEWAY, &query));
    }

    fn interface(&mut self, side: Side, present: bool) {
        self.handle(Event::Forwarding { side, present });
    }

    /// What was sent about streams since the last call, without the times.
    fn words(&mut self) -> Vec<String> {
        let streams = std::mem::take(&mut self.streams);
        streams.into_iter().map(|(_, words)| words).collect()
    }

    /// What was sent about streams since the last call, with the milliseconds since `start`.
    fn words_since(&mut self, start: u64) -> Vec<(u64, String)> {
        let streams = std::mem::take(&mut self.streams);
        let since = streams.into_iter().map(|(at, words)| (at - start, words));
        since.collect()
    }

    fn millis(&self) -> u64 {
        self.now.as_millis()
    }

    /// The filter of the membership upstream, in words: the kernel's, or the router's alone.
    fn joined(&self, group: Ipv6Addr) -> String {
        in_words(self.kernel.multicast.memberships.get(&group))
    }

    /// What the listeners of a link want of a group, in words.
    fn wish(&self, port: Port, group: Ipv6Addr) -> String {
        in_words(self.wishes(group).get(&port))
    }

    /// Where a packet goes that comes from a side.
    fn way(&self, from: Side, source: Ipv6Addr, group: Ipv6Addr) -> Vec<Side> {
        let way = self
            .kernel
            .multicast
            .forward(number_of(from), source, group);
        let Way::Out(out) = way else {
            panic!("the kernel has no entry");
        };
        let sides = [Side::Upstream, Side::Downstream(0), Side::Downstream(1)];
        let is_out = |side: &Side| out & 1 << number_of(*side) != 0;
        sides.into_iter().filter(is_out).collect()
    }
}

/// `-` for nothing, else the mode and the sources' last numbers.
fn in_words(filter: Option<&Filter>) -> String {
    let Some(filter) = filter else {
        return "-".to_owned();
    };
    let mode = match filter.mode {
        FilterMode::Include => "in",
        FilterMode::Exclude => "ex",
    };
    let numbers: Vec<_> = filter
        .sources
        .iter()
        .map(|source| source.segments()[7])
        .collect();
    let numbers: Vec<_> = numbers.iter().map(|number| format!("{number:x}")).collect();
    format!("{mode} {{{}}}", numbers.join(" "))
}

/// All subsets of the first sources, by the bits of their number.
fn subset(bits: u8) -> Vec<u16> {
    (0..8)
        .filter(|bit| bits >> bit & 1 != 0)
        .map(|bit| bit + 1)
        .collect()
}
