//! A home with an upstream that sends streams, and two downstreams with hosts that want them.
//!
//! ```text
//!  [gw]:eth0 ── gw:[sw: bridge br0]:rtr ── wan:[rtr]:br-lan ──┬─ eth0:[lan 1]
//!  2001:db8:1::10, ::11                    fe80::10 │  fe80::10 └─ eth0:[lan 2] …
//!                                                   │            2001:db8:f::10, ::20, …
//!                                                   └:guest ──── eth0:[guest]
//!                                                    fe80::10    2001:db8:e::10
//! ```
//!
//! Each link has a prefix of its own. Only the switch snoops, unless a test wants otherwise.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;
use std::time::Duration;

use super::{
    BridgeOptions, DOWNSTREAM, Entry, Lab, LabOptions, Namespace, UPSTREAM, eventually, poll_for,
};

/// The second downstream.
pub const GUEST: &str = "guest";

/// The upstream's senders, both on the gateway, and the router's address there.
pub const SOURCE: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x10);
pub const OTHER_SOURCE: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x11);
const WAN_ADDRESS: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 2);
/// The guest's address.
pub const GUEST_HOST: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xe, 0, 0, 0, 0, 0x10);
/// The router's only link-local address on each downstream.
pub const QUERIER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x10);

/// The address of the `number`th host behind `br-lan`, from 1 on.
pub const fn listener(number: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0xf, 0, 0, 0, 0, 0x10 * number)
}

pub struct StreamOptions {
    /// The version of MLD, 1 or 2, of a querier on the switch, which then holds back what the
    /// router did not join. Without one, the switch floods.
    pub upstream_querier: Option<u8>,
    /// The number of hosts behind `br-lan`, each on a port of its own.
    pub listeners: u16,
    /// Whether `br-lan` snoops.
    pub snooping: bool,
    /// The index of `guest` among the router's interfaces; 0 leaves it to the kernel.
    pub guest_index: u32,
}

impl Default for StreamOptions {
    fn default() -> Self {
        StreamOptions {
            upstream_querier: None,
            listeners: 1,
            snooping: false,
            guest_index: 0,
        }
    }
}

/// The network in the picture above.
pub struct StreamLab {
    /// The gateway, the switch and the router.
    pub lab: Lab,
    /// The hosts behind `br-lan`.
    pub listeners: Vec<Namespace>,
    pub guest: Namespace,
}

impl StreamLab {
    pub fn new() -> Self {
        Self::with(&StreamOptions::default())
    }

    pub fn with(options: &StreamOptions) -> Self {
        let lab = Lab::with(&LabOptions {
            querier: false,
            mld_version: options.upstream_querier.unwrap_or(2),
            lans: 0,
        });
        for source in [SOURCE, OTHER_SOURCE] {
            lab.gw.add_address("eth0", source, 64, None);
        }
        let numbers = 1..=options.listeners;
        let home = StreamLab {
            listeners: numbers
                .map(|number| Namespace::new(&format!("lan{number}")))
                .collect(),
            guest: Namespace::new("guest"),
            lab,
        };
        home.lab.rtr.add_address(UPSTREAM, WAN_ADDRESS, 64, None);
        home.add_downstream(DOWNSTREAM, 0, options.snooping);
        home.add_downstream(GUEST, options.guest_index, false);
        let rtr = &home.lab.rtr;
        for (number, listener_host) in (1..).zip(&home.listeners) {
            let port = format!("lan{number}");
            rtr.veth(&port, listener_host, "eth0");
            rtr.add_port(DOWNSTREAM, &port);
            listener_host.set_up("eth0");
            listener_host.add_address("eth0", listener(number), 64, None);
        }
        rtr.veth("guest1", &home.guest, "eth0");
        rtr.add_port(GUEST, "guest1");
        home.guest.set_up("eth0");
        home.guest.add_address("eth0", GUEST_HOST, 64, None);
        eventually("every link is up", Duration::from_secs(10), || {
            let hosts = home.listeners.iter().chain([&home.guest]);
            hosts.map(|host| (host, "eth0")).all(ready)
                && [UPSTREAM, DOWNSTREAM, GUEST]
                    .map(|interface| (&home.lab.rtr, interface))
                    .into_iter()
                    .all(ready)
        });
        if options.upstream_querier.is_some() {
            home.lab.start_querier();
        }
        home
    }

    /// Creates a downstream with the router's addresses on it, but without ports.
    pub fn add_downstream(&self, bridge: &str, index: u32, snooping: bool) {
        let rtr = &self.lab.rtr;
        let (last, prefix) = if bridge == GUEST {
            (0xe, "2001:db8:e::")
        } else {
            (0xf, "2001:db8:f::")
        };
        let options = BridgeOptions {
            snooping: Some(snooping),
            // A bridge's own querier would ask in MLDv1, and hosts would forget about sources.
            mld_version: snooping.then_some(2),
            // A bridge relies on a querier only after a response interval.
            query_response_interval: snooping.then_some(25),
            ..BridgeOptions::default()
        };
        rtr.add_fixed_bridge(bridge, index, [2, 0, 0, 0, 0, last], &options);
        rtr.set_up(bridge);
        rtr.add_address(bridge, QUERIER, 64, None);
        let address = format!("{prefix}1").parse().expect("an address");
        rtr.add_address(bridge, address, 64, None);
    }

    /// Creates the upstream anew, with the router's address on it.
    pub fn add_upstream(&self) {
        let Lab { sw, rtr, .. } = &self.lab;
        sw.veth("rtr", rtr, UPSTREAM);
        sw.add_port("br0", "rtr");
        rtr.set_up(UPSTREAM);
        rtr.add_address(UPSTREAM, WAN_ADDRESS, 64, None);
    }

    /// The entries of the router, without that for any group, each as text.
    pub fn entries(&self) -> BTreeSet<String> {
        let entries = self.lab.rtr.multicast_entries();
        let of_groups = entries.iter().filter(|entry| !entry.is_for_any_group());
        of_groups.map(Entry::to_string).collect()
    }

    /// Waits until the router has exactly these entries, besides that for any group.
    #[track_caller]
    pub fn expect_entries(&self, wanted: &[&str], deadline: Duration) {
        let wanted: BTreeSet<_> = wanted.iter().map(|entry| (*entry).to_owned()).collect();
        let mut seen = BTreeSet::new();
        let reached = poll_for(deadline, || {
            seen = self.entries();
            (seen == wanted).then_some(())
        });
        assert!(
            reached.is_some(),
            "not within {deadline:?}: {wanted:#?}, but {seen:#?}"
        );
    }

    /// Where the kernel sends a packet of this stream that arrives on this interface, by its
    /// entries.
    pub fn destinations(
        &self,
        source: Ipv6Addr,
        interface: &str,
        group: Ipv6Addr,
    ) -> BTreeSet<String> {
        let entries = self.lab.rtr.multicast_entries();
        let find = |source, group| {
            let mut entries = entries.iter();
            entries.find(|entry| (entry.source, entry.group) == (source, group))
        };
        let is_parent = |entry: &Entry| entry.from.as_deref() == Some(interface);
        // The entry of a source hides those of any source, and its stream has to arrive there.
        if let Some(exact) = find(source, group) {
            return match is_parent(exact) {
                true => exact.to.clone(),
                false => BTreeSet::new(),
            };
        }
        // Of several entries the kernel finds the newest, which it lists last.
        let for_any_source = || {
            entries
                .iter()
                .rev()
                .filter(|entry| entry.source.is_unspecified())
        };
        let tree_of = |name: Option<&str>| {
            let mut trees = for_any_source().filter(|entry| entry.is_for_any_group());
            trees.find(|tree| name.is_some_and(|name| tree.to.contains(name)))
        };
        // An entry for any source takes what arrives on the interfaces of its parent's tree.
        let takes = |entry: &Entry| {
            let tree = tree_of(entry.from.as_deref());
            tree.is_some_and(|tree| tree.to.contains(interface))
        };
        let mut of_group = for_any_source().filter(|entry| entry.group == group);
        if let Some(entry) = of_group.find(|entry| entry.to.contains(interface) || takes(entry)) {
            let mut to = match takes(entry) || is_parent(entry) {
                true => entry.to.clone(),
                false => BTreeSet::new(),
            };
            to.remove(interface);
            return to;
        }
        // What comes from elsewhere goes to the tree's own interface.
        tree_of(Some(interface))
            .filter(|tree| takes(tree) && !is_parent(tree))
            .and_then(|tree| tree.from.clone())
            .into_iter()
            .collect()
    }

    /// Waits until a stream that arrives on this interface goes to exactly these others.
    #[track_caller]
    pub fn expect_way(
        &self,
        source: Ipv6Addr,
        interface: &str,
        group: Ipv6Addr,
        to: &[&str],
        deadline: Duration,
    ) {
        let wanted: BTreeSet<_> = to.iter().map(|to| (*to).to_owned()).collect();
        let way = || self.destinations(source, interface, group);
        let reached = poll_for(deadline, || (way() == wanted).then_some(()));
        assert!(
            reached.is_some(),
            "{source} to {group} goes from {interface} to {:?}, not to {to:?}, by {:#?}",
            way(),
            self.lab.rtr.multicast_entries()
        );
    }
}

fn ready((namespace, interface): (&Namespace, &str)) -> bool {
    namespace.is_ready(interface)
}
