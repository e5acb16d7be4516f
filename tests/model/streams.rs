//! What must be true of streams after each event: the kernel's memberships are the merge of what
//! the listeners want (RFC 4605 §4.1), it forwards what they want (§4.2), and the upstream has been
//! told of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;

use protocol::config::{
    Forward, MAX_SOURCES, MldMode, MldVersion, ProxyConfig, QuerierMode, Scope, is_source_specific,
};
use protocol::link::{Port, Side};
use protocol::mld::filter::FilterMode;
use protocol::mld::members::{Mode, SourceState};
use protocol::mld::proxy::FLOWS;
use protocol::mld::proxy::entries::number_of;
use protocol::mld::querier::Role;
use protocol::mld::streams::About;
use protocol::time::Duration;
use protocol::wire::{ALL_NODES, Message, QueryVersion, RecordType, Sources, parse};

use crate::multicast::{Filter, Way};
use crate::packets::is_sent_as;
use crate::{Model, view};

/// What the upstream's router believes of the groups of streams.
#[derive(Default)]
pub(crate) struct Told(BTreeMap<Ipv6Addr, Filter>);

/// What listeners want of one group, link by link.
pub type Wishes = BTreeMap<Port, Filter>;

/// A source and a group that nobody listens to.
const STRANGER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xdead, 0, 0, 0, 0, 1);
const UNKNOWN_GROUP: Ipv6Addr = Ipv6Addr::new(0xff1e, 0, 0, 0, 0, 0, 0xdead, 1);

/// RFC 3810 §4.2: the filter that lets in what is wanted on any link; `None` if that is nothing.
fn merge(wishes: &Wishes) -> Option<Filter> {
    let of = |mode| wishes.values().filter(move |filter| filter.mode == mode);
    let included: BTreeSet<Ipv6Addr> = of(FilterMode::Include)
        .flat_map(|filter| filter.sources.iter().copied())
        .collect();
    let excluded = of(FilterMode::Exclude).map(|filter| filter.sources.clone());
    let in_common = excluded.reduce(|one, other| &one & &other);
    let filter = match in_common {
        Some(in_common) => Filter {
            mode: FilterMode::Exclude,
            sources: &in_common - &included,
        },
        None => Filter {
            mode: FilterMode::Include,
            sources: included,
        },
    };
    let is_nothing = filter.mode == FilterMode::Include && filter.sources.is_empty();
    (!is_nothing).then_some(filter)
}

impl Filter {
    /// Does the filter let a source in?
    pub fn lets_in(&self, source: Ipv6Addr) -> bool {
        let is_listed = self.sources.contains(&source);
        match self.mode {
            FilterMode::Include => is_listed,
            FilterMode::Exclude => !is_listed,
        }
    }
}

impl Told {
    /// Takes a record as a router does, without its timers (RFC 3810 §7.4).
    fn take(&mut self, record_type: RecordType, group: Ipv6Addr, sources: Sources<'_>) {
        let listed: BTreeSet<_> = sources.iter().collect();
        let include = Filter {
            mode: FilterMode::Include,
            sources: BTreeSet::new(),
        };
        let mut filter = self.0.remove(&group).unwrap_or(include);
        let removes = match (filter.mode, record_type) {
            (_, RecordType::ModeIsInclude | RecordType::ChangeToInclude) => {
                filter = Filter {
                    mode: FilterMode::Include,
                    sources: listed,
                };
                None
            }
            (_, RecordType::ModeIsExclude | RecordType::ChangeToExclude) => {
                filter = Filter {
                    mode: FilterMode::Exclude,
                    sources: listed,
                };
                None
            }
            (FilterMode::Include, RecordType::AllowNewSources)
            | (FilterMode::Exclude, RecordType::BlockOldSources) => Some((false, listed)),
            (FilterMode::Include, RecordType::BlockOldSources)
            | (FilterMode::Exclude, RecordType::AllowNewSources) => Some((true, listed)),
            (_, RecordType::Unknown(_)) => panic!("{record_type:?}"),
        };
        match removes {
            Some((true, listed)) => filter.sources = &filter.sources - &listed,
            Some((false, listed)) => filter.sources.extend(listed),
            None => {}
        }
        if filter.mode == FilterMode::Exclude || !filter.sources.is_empty() {
            self.0.insert(group, filter);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

/// May a change to the one filter be told by the other, longer or shorter?
fn is_within(part: &Filter, whole: &Filter) -> bool {
    let most = usize::from(MAX_SOURCES);
    let is_full = whole.sources.len() > most && part.sources.len() == most;
    part.mode == whole.mode && (part == whole || is_full && part.sources.is_subset(&whole.sources))
}

impl Model<'_> {
    /// What the listeners on each link want of a group, as the engine knows them.
    pub fn wishes(&self, group: Ipv6Addr) -> Wishes {
        let members = self.engine.mld().streams().members();
        let wish = |link_group| {
            let sources = members.sources_of(link_group);
            let (mode, wants) = match link_group.mode {
                Mode::Include => (FilterMode::Include, true),
                Mode::Exclude { .. } => (FilterMode::Exclude, false),
            };
            let sources = sources.filter(|source| match source.state {
                SourceState::Requested { .. } => wants,
                SourceState::Excluded => !wants,
            });
            let sources = sources.map(|source| source.address).collect();
            (link_group.port, Filter { mode, sources })
        };
        members.of(group).map(wish).collect()
    }

    /// The filter that is wanted upstream for a group.
    fn wanted_upstream(&self, config: &ProxyConfig, group: Ipv6Addr) -> Option<Filter> {
        let version = self.engine.mld().host().version(self.engine.config());
        let can_report = version == MldVersion::V2 || !is_source_specific(group);
        let leaves = Scope::of(group) >= config.scope;
        let filter = merge(&self.wishes(group));
        filter.filter(|_| can_report && leaves)
    }

    /// Is the kernel to be the member of a group? It speaks the version that it hears. It hands what
    /// it sends upstream to its own members there.
    fn is_kernels(&self, config: &ProxyConfig, group: Ipv6Addr) -> bool {
        let version = self.engine.mld().host().heard_version();
        let can_report = version == MldVersion::V2 || !is_source_specific(group);
        can_report && !config.senders
    }

    pub(crate) fn check_streams(&self) {
        let streams = self.engine.mld().streams();
        let multicast = &self.kernel.multicast;
        let Some(config) = &self.engine.config().mld_proxy else {
            assert!(streams.members().is_empty() && multicast.entries().next().is_none());
            assert!(multicast.memberships.is_empty());
            return;
        };
        if self.is_ending {
            return;
        }
        self.check_limits(config);
        let flows = streams.proxy().iter().map(|(_, merged)| {
            let flows = streams.proxy().flows_of(merged);
            flows.count()
        });
        let is_full = flows.sum::<usize>() == FLOWS;
        if streams.proxy().is_failing() || is_full {
            return;
        }
        self.check_memberships(config);
        self.check_forwarding(config);
    }

    fn check_limits(&self, config: &ProxyConfig) {
        let members = self.engine.mld().streams().members();
        let mut counts: BTreeMap<Port, u16> = BTreeMap::new();
        for group in members.groups() {
            assert!(config.proxies(group), "{group} is not proxied");
            let mut links = 0;
            for link_group in members.of(group) {
                links += 1;
                *counts.entry(link_group.port).or_default() += 1;
                let sources = members.sources_of(link_group).count();
                assert!(sources <= config.max_sources.into());
                match link_group.mode {
                    Mode::Include => assert!(sources > 0, "{group}: nobody listens"),
                    Mode::Exclude { until } => {
                        let is_specific = is_source_specific(group);
                        assert!(!is_specific, "{group} in EXCLUDE mode");
                        assert!(self.was_late || until > self.now, "the timer expired");
                    }
                }
                for source in members.sources_of(link_group) {
                    match (link_group.mode, source.state) {
                        (_, SourceState::Requested { until }) => {
                            assert!(self.was_late || until > self.now, "the timer expired");
                        }
                        (Mode::Exclude { .. }, SourceState::Excluded) => {}
                        (Mode::Include, SourceState::Excluded) => {
                            panic!("INCLUDE has no such list")
                        }
                    }
                }
            }
            assert!(links > 0, "{group} is on no link");
        }
        for (port, count) in counts {
            assert!(count <= config.max_groups);
            assert_eq!(count, members.count_on(port));
        }
    }

    /// The kernel's memberships are what the listeners make the router want.
    fn check_memberships(&self, config: &ProxyConfig) {
        let streams = self.engine.mld().streams();
        let memberships = &self.kernel.multicast.memberships;
        assert_eq!(usize::from(streams.proxy().joined()), memberships.len());
        if self.kernel.link(Side::Upstream).is_none() {
            assert!(memberships.is_empty());
            return;
        }
        let solicited = self.engine.ndp().groups().len();
        let most = usize::from(config.max_groups).saturating_sub(solicited);
        let mut expected = 0;
        for group in streams.members().groups() {
            let Some(wanted) = self.wanted_upstream(config, group) else {
                continue;
            };
            match memberships.get(&group) {
                Some(joined) => {
                    let is_alone = self.kernel.multicast.alone.contains(&group);
                    assert_eq!(is_alone, !self.is_kernels(config, group), "{group}");
                    assert!(
                        is_within(joined, &wanted),
                        "{group}: {joined:?}, {wanted:?}"
                    );
                    expected += 1;
                }
                None => assert!(memberships.len() >= most, "{group} is not joined"),
            }
        }
        assert_eq!(expected, memberships.len(), "{memberships:?}");
        self.check_told();
    }

    /// The upstream was told of each change.
    fn check_told(&self) {
        let host = self.engine.mld().host();
        let version = host.version(self.engine.config());
        let members = self.engine.mld().streams().members();
        let memberships = &self.kernel.multicast.memberships;
        let mut told = self.told.0.clone();
        for group in members.groups() {
            let wanted = memberships.get(&group).cloned();
            let told = told.remove(&group);
            match (version, wanted, told) {
                (_, None, None) => {}
                // An MLDv1 report has no sources.
                (MldVersion::V1, Some(_), Some(_)) => {}
                (MldVersion::V2, Some(wanted), Some(told)) if is_within(&told, &wanted) => {}
                (_, wanted, told) => panic!("{group}: told {told:?} of {wanted:?}"),
            }
        }
        assert!(told.is_empty(), "told of what nobody wants: {told:?}");
    }

    /// Where only the kernel reports, it tells all; and all counts as told while nobody can.
    pub(crate) fn note_told(&mut self) {
        if self.engine.config().mld_proxy.is_none() {
            return;
        }
        let upstream = self.kernel.link(Side::Upstream);
        let can_speak = upstream.is_some_and(|link| link.link_local.is_some());
        let host = self.engine.mld().host();
        let version = host.version(self.engine.config());
        let is_kernels_version = version == host.heard_version();
        if version == MldVersion::V1 {
            // Nothing is said of such a group in MLDv1, not its end either.
            self.told.0.retain(|group, _| !is_source_specific(*group));
        }
        if can_speak && !(is_kernels_version && version == MldVersion::V1) {
            return;
        }
        let multicast = &self.kernel.multicast;
        let is_told = |group: &Ipv6Addr| !can_speak || !multicast.alone.contains(group);
        self.told.0.retain(|group, _| !is_told(group));
        for (group, filter) in &multicast.memberships {
            if is_told(group) {
                self.told.0.insert(*group, filter.clone());
            }
        }
    }

    /// The record of a report upstream is about a stream.
    pub(crate) fn hear_record(
        &mut self,
        record_type: RecordType,
        group: Ipv6Addr,
        sources: Sources<'_>,
    ) {
        let config = self.engine.config().mld_proxy.as_ref();
        let config = config.expect("no stream is reported without the proxy");
        assert!(Scope::of(group) >= config.scope, "{group} leaves the home");
        assert!(
            !self.is_ending
                || matches!(
                    record_type,
                    RecordType::ChangeToInclude | RecordType::BlockOldSources
                )
        );
        if is_source_specific(group) {
            let excludes = matches!(
                record_type,
                RecordType::ModeIsExclude | RecordType::ChangeToExclude
            );
            assert!(!excludes, "{group} is reported without sources");
        }
        let is_change = !matches!(
            record_type,
            RecordType::ModeIsInclude | RecordType::ModeIsExclude
        );
        let before = self.told.0.get(&group).cloned();
        self.told.take(record_type, group, sources);
        if !is_change {
            assert_eq!(
                before.as_ref(),
                self.told.0.get(&group),
                "{group}: a refresh"
            );
        } else if self.engine.config().mld_mode == MldMode::Auto
            && !self.kernel.multicast.alone.contains(&group)
        {
            assert_ne!(
                before.as_ref(),
                self.told.0.get(&group),
                "{group}: a repetition"
            );
        }
    }

    /// An MLDv1 message upstream is about a stream. Such a message may be a repetition.
    pub(crate) fn hear_older(&mut self, counts_as: RecordType, group: Ipv6Addr) {
        assert!(!is_source_specific(group), "{group} is reported by MLDv1");
        self.told.take(counts_as, group, Sources::default());
        // It names no sources. A querier of MLDv2 learns of them by the refresh that comes with it.
        let joined = self.kernel.multicast.memberships.get(&group).cloned();
        if let (RecordType::ModeIsExclude, Some(joined)) = (counts_as, joined) {
            self.told.0.insert(group, joined);
        }
    }

    /// What the kernel does with packets of any group, source and side is what listeners want.
    fn check_forwarding(&self, config: &ProxyConfig) {
        let multicast = &self.kernel.multicast;
        let interfaces = multicast.interfaces;
        let members = self.engine.mld().streams().members();
        let mut groups: BTreeSet<_> = members.groups().collect();
        let (mut any, mut exact) = (BTreeSet::new(), BTreeSet::new());
        for (group, source) in multicast.entries() {
            assert!(groups.contains(&group), "nobody listens to {group}");
            match source.is_unspecified() {
                true => any.insert(group),
                false => exact.insert((group, source)),
            };
        }
        groups.insert(UNKNOWN_GROUP);
        for group in groups {
            let wishes = self.wishes(group);
            let excludes = wishes.values().any(|it| it.mode == FilterMode::Exclude);
            let mut sources: BTreeSet<_> = wishes
                .values()
                .flat_map(|it| it.sources.iter())
                .copied()
                .collect();
            if multicast.is_open {
                assert_eq!(any.remove(&group), excludes, "{group}");
                for source in &sources {
                    assert!(exact.remove(&(group, *source)), "{group} from {source}");
                }
            }
            sources.insert(STRANGER);
            for source in sources {
                for arrival in self.sides() {
                    let number = number_of(arrival);
                    if interfaces & 1 << number == 0 {
                        continue;
                    }
                    let way = multicast.forward(number, source, group);
                    let mut homes = self.whereabouts(source).into_iter();
                    let is_right = homes.any(|home| {
                        let out = self.wanted_out(config, &wishes, (arrival, home), source, group);
                        way == Way::Out(out)
                    });
                    assert!(is_right, "{group} from {source} on {arrival:?}: {way:?}");
                }
            }
        }
        assert!(exact.is_empty(), "nobody listens: {exact:?}");
    }

    fn sides(&self) -> impl Iterator<Item = Side> + use<> {
        let ports = self.engine.config().downstreams.len();
        let ports = (0..ports as Port).map(Side::Downstream);
        std::iter::once(Side::Upstream).chain(ports)
    }

    /// Where a source is: at one place if that is certain. The engine looks for one that may move
    /// each second.
    fn whereabouts(&self, source: Ipv6Addr) -> Vec<Side> {
        if !self.kernel.is_on_link(source) {
            return vec![Side::Upstream];
        }
        match self.is_looked_for {
            true => vec![self.side_of(source)],
            false => self.sides().collect(),
        }
    }

    /// Where a source on a link of the router is: a host that has answered is where it answered, and
    /// any other source is where its prefix is.
    fn side_of(&self, source: Ipv6Addr) -> Side {
        let known = view::address(&self.engine, source);
        if let Some(known) = known.filter(|known| known.is_confirmed) {
            return Side::Downstream(known.owner.port);
        }
        let has_prefix = |side: &Side| {
            let link = self.kernel.link(*side);
            link.is_some_and(|link| self.kernel.has_prefix_of(source, link.index))
        };
        let with_it: Vec<_> = self.sides().filter(has_prefix).collect();
        match with_it[..] {
            [side] => side,
            _ => Side::Upstream,
        }
    }

    /// RFC 4605 §4.2: the interfaces that a packet is to leave by.
    fn wanted_out(
        &self,
        config: &ProxyConfig,
        wishes: &Wishes,
        (arrival, home): (Side, Side),
        source: Ipv6Addr,
        group: Ipv6Addr,
    ) -> u32 {
        let interfaces = self.kernel.multicast.interfaces;
        let bit = |side| 1_u32 << number_of(side) & interfaces;
        let leaves_home = Scope::of(group) >= config.scope;
        let is_listed = wishes.values().any(|wish| wish.sources.contains(&source));
        let has_any = wishes.values().any(|it| it.mode == FilterMode::Exclude);
        let goes_up = config.senders && arrival != Side::Upstream;
        if !is_listed && !has_any {
            // Nobody listens to the source, and its scope is the firewall's business.
            return if goes_up { bit(Side::Upstream) } else { 0 };
        }
        let is_wrong_side = is_listed && arrival != home;
        if is_wrong_side || arrival == Side::Upstream && !leaves_home {
            return 0;
        }
        let wants = |(port, wish): (&Port, &Filter)| {
            let is_there = Side::Downstream(*port) != arrival;
            (is_there && wish.lets_in(source) && self.forwards(config, *port))
                .then(|| bit(Side::Downstream(*port)))
        };
        let upwards = if goes_up && leaves_home {
            bit(Side::Upstream)
        } else {
            0
        };
        wishes
            .iter()
            .filter_map(wants)
            .fold(upwards, |out, bit| out | bit)
    }

    /// RFC 4605 §4.2: a proxy forwards on a link while it is the querier there.
    fn forwards(&self, config: &ProxyConfig, port: Port) -> bool {
        let querier = self.engine.mld().streams().querier(port);
        let role = querier.expect("a downstream").role();
        config.forward == Forward::Always || !matches!(role, Role::Other(_))
    }

    /// A query is of the version, the address and the variables of its link, and asks for what is
    /// not certain.
    pub(crate) fn check_stream_query(
        &self,
        packet: &[u8],
        port: Port,
        destination: Ipv6Addr,
        about: &About,
    ) {
        let config = self.engine.config().mld_proxy.as_ref().expect("a proxy");
        let streams = self.engine.mld().streams();
        let querier = streams.querier(port).expect("a downstream");
        assert!(querier.is_querier(), "a query of who is not the querier");
        let Ok(Message::Query(query)) = parse(packet) else {
            panic!("not a query");
        };
        let link = self.kernel.link(Side::Downstream(port));
        let link = link.expect("a link to query on");
        assert!(packet.len() <= 1280, "any link takes it");
        assert_eq!(Some(query.source), link.link_local);
        assert_eq!(query.destination, destination);
        let (suppresses, sources) = match query.version {
            QueryVersion::V1 => {
                assert_eq!(config.querier, QuerierMode::V1);
                (false, BTreeSet::new())
            }
            QueryVersion::V2 {
                suppress_router_processing,
                robustness,
                query_interval,
                sources,
            } => {
                assert_eq!(config.querier, QuerierMode::Auto);
                assert_eq!(robustness, config.robustness);
                assert!(is_sent_as(config.query_interval, query_interval));
                (suppress_router_processing, sources.iter().collect())
            }
        };
        match about {
            About::General => {
                assert_eq!(
                    (query.group, destination),
                    (Ipv6Addr::UNSPECIFIED, ALL_NODES)
                );
                assert!(!suppresses && sources.is_empty());
                let delay = query.max_response_delay;
                assert!(delay <= Duration::from_secs(10) && !delay.is_zero());
            }
            About::Specific(specific, timings) => {
                assert_eq!((query.group, destination), (specific.group, specific.group));
                assert!(query.max_response_delay <= config.last_listener_interval);
                let members = streams.members();
                let mut links = members.of(query.group);
                let link_group = links.find(|it| it.port == port).expect("somebody listens");
                let last = self.now.saturating_add(timings.last_listener_time());
                let known = members.sources_of(link_group);
                let listed = known.filter(|source| sources.contains(&source.address));
                let mut count = 0;
                for source in listed {
                    count += 1;
                    let SourceState::Requested { until } = source.state else {
                        panic!("{} is excluded", source.address);
                    };
                    // Unless it is set, the query lowers the timer.
                    assert!(!suppresses || until > last, "the S flag");
                }
                assert_eq!(count, sources.len(), "sources that are not known");
                if sources.is_empty() && config.querier == QuerierMode::Auto {
                    let Mode::Exclude { until } = link_group.mode else {
                        panic!("a group in INCLUDE mode has no filter timer");
                    };
                    assert!(!suppresses || until > last, "the S flag");
                }
            }
        }
    }
}
