//! What must be true of the engine's state and of the kernel's after each event.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use protocol::config::Learn;
use protocol::link::Side;
use protocol::ndp::MAX_OWN;
use protocol::ndp::kernel_entries::{self, KernelTable, Place, Proxied};
use protocol::ndp::neighbors::{self, Identity, Sender};
use protocol::ndp::solicited;
use protocol::ndp::targets;

use crate::{Model, TABLES, view};

impl Model<'_> {
    /// Checks everything.
    pub fn check(&self) {
        self.check_neighbors();
        self.check_groups();
        self.check_kernel_tables();
        self.check_streams();
    }

    fn check_neighbors(&self) {
        let neighbors = self.engine.ndp().neighbors();
        let config = self.engine.config();
        assert!(neighbors.len() <= neighbors::CAPACITY);
        assert_eq!(neighbors.iter().count(), neighbors.len());
        let mut of_host: BTreeMap<_, (u16, u16)> = BTreeMap::new();
        for known in view::known(&self.engine) {
            let owner = known.owner;
            assert!(usize::from(owner.port) < config.downstreams.len());
            let (addresses, listeners) = of_host.entry((owner.port, owner.mac.0)).or_default();
            match known.identity {
                Identity::Address(address) => {
                    *addresses += 1;
                    assert!(config.learn != Learn::Mld && config.learns(address));
                    let is_own = self.kernel.is_own(address) && self.kernel.own() <= MAX_OWN;
                    assert!(!is_own, "{address} is the router's own");
                }
                Identity::Listener(..) => {
                    *listeners += 1;
                    assert!(config.learn != Learn::Ndp);
                }
            }
        }
        for (owner, neighbors, its_listeners) in view::hosts(&self.engine) {
            let key = (owner.port, owner.mac.0);
            let (addresses, listeners) = of_host.remove(&key).unwrap_or_default();
            assert_eq!(neighbors, addresses + listeners, "{owner:?}");
            assert_eq!(its_listeners, listeners, "{owner:?}");
            let most = addresses.max(listeners);
            assert!(most <= config.per_mac, "{owner:?} has too many");
        }
        assert!(of_host.is_empty(), "neighbors of hosts that are not known");
        let targets = self.engine.ndp().targets();
        assert!(targets.len() <= targets::CAPACITY);
        assert!(targets.is_empty() || config.ndp_proxy);
    }

    /// Each group has the members that are known in it, and is joined where somebody wants it.
    fn check_groups(&self) {
        let groups = self.engine.ndp().groups();
        assert!(groups.len() <= solicited::CAPACITY);
        // The members of each group, and the listeners among them.
        let mut wanted: BTreeMap<Ipv6Addr, (u16, u16)> = BTreeMap::new();
        for known in view::known(&self.engine) {
            let (members, listeners) = wanted.entry(known.identity.group().group()).or_default();
            *members += 1;
            *listeners += u16::from(known.address().is_none());
        }
        let (mut joined, mut not_joined) = (0, 0);
        for (group, state) in groups.iter() {
            let members = wanted.remove(&group.group()).unwrap_or_default();
            assert_eq!((state.members, state.listeners), members, "{group}");
            assert!(
                state.members > 0 || state.is_joined(),
                "{group} is of no use"
            );
            let in_kernel = self.kernel.joined.contains(&group.group());
            assert_eq!(state.is_joined(), in_kernel, "{group}");
            joined += usize::from(state.is_joined());
            not_joined += usize::from(!state.is_joined());
        }
        assert!(groups.waiting() <= not_joined);
        let has_upstream = self.kernel.link(Side::Upstream).is_some();
        if has_upstream && !groups.is_failing() && !self.is_ending {
            let waiting = groups.waiting();
            assert_eq!(not_joined, waiting, "a group is neither joined nor waiting");
        }
        assert!(
            wanted.is_empty(),
            "wanted groups that the engine does not keep: {wanted:?}"
        );
        let in_kernel = self.kernel.joined.len();
        assert_eq!(joined, in_kernel, "groups that the engine does not know of");
        assert!(has_upstream || self.kernel.joined.is_empty());
    }

    /// The kernel's tables hold what the engine believes and what it wants.
    fn check_kernel_tables(&self) {
        let (engine, config) = (&self.engine, self.engine.config());
        let entries = engine.ndp().kernel_entries();
        let targets = engine.ndp().targets();
        let (mut count, mut above, mut below) = (0, 0, 0);
        for (address, proxied) in entries.iter() {
            count += 1;
            let known = view::address(engine, address);
            let is_confirmed = known.is_some_and(|known| known.is_confirmed);
            let is_kept = matches!(proxied.place, Place::Kept(_));
            match proxied.place.side() {
                Some(Side::Upstream) => {
                    above += 1;
                    assert!(view::is_upstream(engine, address), "{address} is not there");
                    assert!(!is_confirmed, "{address} is at two places");
                }
                Some(Side::Downstream(port)) => {
                    below += usize::from(!is_kept);
                    let known = known.filter(|_| is_confirmed || is_kept);
                    let on = known.map(|known| known.owner.port);
                    assert_eq!(on, Some(port), "{address} is not there");
                }
                None => {
                    let is_left = proxied.proxied || proxied.routed.is_some();
                    assert!(is_left, "{address} is of no use");
                }
            }
            for table in TABLES {
                let believed = view::believed(proxied, table);
                if !self.kernel.is_doubted(table, address) {
                    let there = self.kernel.has(table, address);
                    assert_eq!(believed, there, "{address}, {table:?}");
                }
                if !entries.is_failing(table) && !self.is_ending {
                    let wanted = self.wanted(proxied, table);
                    assert_eq!(believed, wanted, "{address}, {table:?}");
                }
            }
        }
        assert!(count <= kernel_entries::CAPACITY);
        if count == kernel_entries::CAPACITY {
            return;
        }
        for table in TABLES {
            for (address, _) in self.kernel.listing(table) {
                let is_known = entries.get(address).is_some();
                let is_doubted = self.kernel.is_doubted(table, address);
                assert!(is_known || is_doubted, "{address}, {table:?}: forgotten");
            }
        }
        if config.ndp_proxy || config.host_routes || config.announce {
            let confirmed = view::known(engine).filter(|known| known.is_confirmed);
            let confirmed = confirmed.filter_map(|known| Some((known.address()?, known.owner)));
            // An address that its host still detects duplicates of has to wait.
            let is_settled = |(address, owner): &(Ipv6Addr, Sender)| {
                let is_there = |proxied: &Proxied| matches!(proxied.place, Place::At(_));
                let is_detecting = targets.is_detecting(*address, *owner);
                !is_detecting || entries.get(*address).is_some_and(is_there)
            };
            let settled = confirmed.filter(is_settled).count();
            assert_eq!(below, settled, "confirmed addresses are left out");
            let present = targets.present_from(0).count();
            assert_eq!(above, present, "targets are left out");
        }
    }

    /// Where the engine wants an address in a table.
    fn wanted(&self, proxied: &Proxied, table: KernelTable) -> Option<Side> {
        let config = self.engine.config();
        match (table, proxied.place.side()) {
            (KernelTable::Proxies, Some(Side::Downstream(_))) if config.ndp_proxy => {
                Some(Side::Upstream)
            }
            (KernelTable::Proxies, _) => None,
            (KernelTable::Routes, side) => side.filter(|_| config.host_routes),
        }
    }

    /// The engine knows, wants and joins nothing, and the kernel's tables hold nothing.
    pub fn assert_empty(&self) {
        let ndp = self.engine.ndp();
        assert!(ndp.neighbors().is_empty() && ndp.neighbors().hosts().next().is_none());
        assert!(ndp.groups().is_empty() && self.kernel.joined.is_empty());
        assert!(self.kernel.proxies.is_empty(), "{:?}", self.kernel.proxies);
        assert!(self.kernel.routes.is_empty(), "{:?}", self.kernel.routes);
        assert_eq!(ndp.kernel_entries().iter().next(), None);
        let streams = self.engine.mld().streams();
        assert!(streams.members().is_empty() && streams.proxy().iter().next().is_none());
        let multicast = &self.kernel.multicast;
        assert!(multicast.memberships.is_empty());
        assert_eq!(multicast.entries().next(), None);
    }
}
