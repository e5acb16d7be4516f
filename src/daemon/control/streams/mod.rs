//! The multicast part of what the daemon tells: its table of the kernel, the queriers of the
//! downstreams, and the streams.

pub mod findings;
pub mod json;
pub mod metrics;
pub mod text;

use std::fmt;
use std::net::Ipv6Addr;

use nix::errno::Errno;
use protocol::config::{
    MAX_PROXY_DOWNSTREAMS, MldVersion, ProxyConfig, QuerierMode, is_source_specific,
};
use protocol::link::{Port, Side};
use protocol::mld::members::{Mode, SourceState};
use protocol::mld::proxy::entries::{HOME, bit_of, number_of};
use protocol::mld::proxy::rows::{Membership, Row};
use protocol::mld::querier::{Querier, Role};
use protocol::mld::streams::Streams;
use protocol::time::Instant;

use super::{Downstream, View};

/// The most streams in the metrics. A time series costs a database more than a line here.
pub const METRIC_STREAMS: usize = 256;
/// The kernel's multicast routing knows interfaces by 16 bits.
const LAST_INDEX: u32 = 65_535;
const LAST_PORT: Port = MAX_PROXY_DOWNSTREAMS as Port - 1;

/// Whether the kernel's multicast routing table is this process's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardingTable {
    /// The user wants no MLD proxy.
    Unwanted,
    Owned,
    Refused(Errno),
}

/// A piece of the multicast part.
pub enum Part<'v> {
    Head,
    Link(Port, &'v Downstream<'v>),
    /// The head of the list of streams.
    List,
    Stream(Row<'v>),
    /// The stream once more, for metrics of another name.
    Octets(Row<'v>),
}

/// What a downstream's listeners want of a stream.
pub struct OnLink {
    pub port: Port,
    pub wish: Wish,
    /// Seconds until that expires; `None` for [`Wish::Excluded`], which ends with its group.
    pub left: Option<u64>,
    /// It expires unless a listener answers within the Last Listener Query Time.
    pub is_leaving: bool,
    /// Seconds for which an MLDv1 host is present; `None` if there is none.
    pub older_host: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// The source.
    Include,
    /// Any source but those that are excluded.
    Exclude,
    /// The source, besides others that listeners of any source want as well.
    Requested,
    /// Not this source.
    Excluded,
}

impl Wish {
    fn name(self) -> &'static str {
        match self {
            Wish::Include => "include",
            Wish::Exclude => "exclude",
            Wish::Requested => "requested",
            Wish::Excluded => "excluded",
        }
    }
}

/// A group's membership upstream, or why there is none.
pub enum Upstream {
    Is(Membership),
    /// The group's scope is below that of the groups that leave the home.
    AtHome,
    /// The group is source-specific, and MLDv1 is in force.
    OlderVersion,
}

/// Where the packets of a stream have to come from.
pub enum From<'v> {
    /// Any interface.
    Any,
    /// Any downstream.
    Home,
    Interface(&'v str),
    /// No interface: the source is upstream, and the group stays at home.
    Nowhere,
}

impl View<'_> {
    fn streams(&self) -> &Streams<'_> {
        self.engine.mld().streams()
    }

    pub(super) fn is_mld_proxy(&self) -> bool {
        self.engine.config().mld_proxy.is_some()
    }

    fn seconds_until(&self, then: Instant) -> u64 {
        then.since(self.now).as_secs()
    }

    /// Does the kernel forward by the interface on a side?
    fn is_taken(&self, side: Side) -> bool {
        let interfaces = self.streams().proxy().interfaces();
        self.is_owner() && interfaces & bit_of(side) != 0
    }

    fn is_owner(&self) -> bool {
        self.forwarding == ForwardingTable::Owned
    }

    /// The interface's number, where it is too high for the kernel's multicast routing.
    fn too_high(&self, index: Option<u32>) -> Option<u32> {
        index.filter(|index| *index > LAST_INDEX && self.is_owner())
    }

    fn forwards(&self, config: &ProxyConfig, port: Port) -> bool {
        self.is_taken(Side::Downstream(port)) && self.streams().forwards(config, port)
    }

    fn role(&self, port: Port) -> Role {
        let querier = self.streams().querier(port);
        querier.map_or(Role::Down, Querier::role)
    }

    /// The MLDv1 querier upstream that makes source-specific groups impossible, if listeners want
    /// such a group. `::` if MLDv1 is in force without one.
    fn older_querier(&self, config: &ProxyConfig) -> Option<Ipv6Addr> {
        let host = self.engine.mld().host();
        if host.version(self.engine.config()) != MldVersion::V1 {
            return None;
        }
        let is_wanted = |group| is_source_specific(group) && config.leaves_home(group);
        let mut groups = self.streams().members().groups();
        groups.any(is_wanted).then(|| {
            let querier = host.querier().map(|querier| querier.address);
            querier.unwrap_or(Ipv6Addr::UNSPECIFIED)
        })
    }

    fn upstream_of(&self, config: &ProxyConfig, row: &Row<'_>) -> Upstream {
        let version = self.engine.mld().host().version(self.engine.config());
        match self.streams().proxy().membership(row.merged) {
            Membership::None if !config.leaves_home(row.group) => Upstream::AtHome,
            Membership::None if version == MldVersion::V1 && is_source_specific(row.group) => {
                Upstream::OlderVersion
            }
            membership => Upstream::Is(membership),
        }
    }

    /// Where the packets of a stream have to come from; `None` if the kernel has no entry.
    fn incoming(&self, row: &Row<'_>) -> Option<From<'_>> {
        let parent = row.entry?.parent;
        Some(match row.flow {
            None if parent == HOME => From::Home,
            None => From::Any,
            Some(_) => match self.interface(parent) {
                Some(name) => From::Interface(name),
                None => From::Nowhere,
            },
        })
    }

    /// Calls `told` with the name of each interface that a stream goes to.
    fn for_each_outgoing(
        &self,
        row: &Row<'_>,
        told: &mut dyn FnMut(&str) -> fmt::Result,
    ) -> fmt::Result {
        let out = row.entry.map_or(0, |entry| entry.out);
        for number in 0..=number_of(Side::Downstream(LAST_PORT)) {
            if out >> number & 1 != 0
                && let Some(name) = self.interface(number)
            {
                told(name)?;
            }
        }
        Ok(())
    }

    /// The name of the interface that has a number in the kernel's table.
    fn interface(&self, number: u8) -> Option<&str> {
        if number == number_of(Side::Upstream) {
            return Some(self.engine.config().upstream.as_str());
        }
        let downstream = self.downstreams.get(usize::from(number.checked_sub(1)?))?;
        Some(downstream.name)
    }

    /// Calls `told` with what listeners want of a stream, for each of their downstreams.
    fn for_each_link(
        &self,
        config: &ProxyConfig,
        row: &Row<'_>,
        told: &mut dyn FnMut(&OnLink) -> fmt::Result,
    ) -> fmt::Result {
        let members = self.streams().members();
        for link_group in members.of(row.group) {
            let (wish, until) = match (row.flow, link_group.mode) {
                (None, Mode::Include) => continue,
                (None, Mode::Exclude { until }) => (Wish::Exclude, Some(until)),
                (Some(flow), mode) => {
                    let mut sources = members.sources_of(link_group);
                    let Some(source) = sources.find(|known| known.address == flow.source) else {
                        continue;
                    };
                    match (mode, source.state) {
                        (_, SourceState::Excluded) => (Wish::Excluded, None),
                        (Mode::Include, SourceState::Requested { until }) => {
                            (Wish::Include, Some(until))
                        }
                        (Mode::Exclude { .. }, SourceState::Requested { until }) => {
                            (Wish::Requested, Some(until))
                        }
                    }
                }
            };
            let Some(querier) = self.streams().querier(link_group.port) else {
                continue;
            };
            let last_time = querier.timings(config).last_listener_time();
            let left = |until: Instant| self.seconds_until(until);
            told(&OnLink {
                port: link_group.port,
                wish,
                left: until.map(left),
                is_leaving: until.is_some_and(|until| until.since(self.now) <= last_time),
                older_host: link_group.older_host_until.map(left),
            })?;
        }
        Ok(())
    }
}

/// The version of MLD in which this router queries.
fn own_version(config: &ProxyConfig) -> MldVersion {
    match config.querier {
        QuerierMode::V1 => MldVersion::V1,
        QuerierMode::Auto | QuerierMode::Off => MldVersion::V2,
    }
}

#[cfg(test)]
mod tests;
