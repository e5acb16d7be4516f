//! The kernel's tables of the NDP proxy: links that go take entries along, and others leave some
//! behind.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv6Addr;

use protocol::link::Link;
use protocol::link::{Port, Side};
use protocol::ndp::kernel_entries::{Change, KernelTable};

use crate::month::OTHERS;

/// Until a change that failed is tried again, and for how long another node may answer duplicate
/// address detection, in milliseconds.
const RETRY_INTERVAL: u64 = 10_000;
const ANSWER_INTERVAL: u64 = 1_000;

pub struct Tables {
    wants_proxies: bool,
    wants_routes: bool,
    pub proxies: BTreeSet<Ipv6Addr>,
    pub routes: BTreeMap<Ipv6Addr, Side>,
    /// Something was lost and not yet listed.
    lost_proxies: bool,
    lost_routes: bool,
    /// Left behind by others, and not yet listed.
    left_behind: BTreeSet<Ipv6Addr>,
    /// What is listed may have changed since.
    pub is_listing: bool,
    failed: HashMap<(bool, Ipv6Addr), u64>,
    /// Addresses to be looked at.
    pub unsettled: BTreeSet<Ipv6Addr>,
    /// When each target upstream advertised itself last.
    pub advertised: BTreeMap<Ipv6Addr, u64>,
    /// When a host downstream detected duplicates of an address last: it is not the host's for as
    /// long as another one may answer.
    detected: HashMap<Ipv6Addr, u64>,
    timeout: u64,
}

fn is_route(table: KernelTable) -> bool {
    match table {
        KernelTable::Proxies => false,
        KernelTable::Routes => true,
    }
}

impl Tables {
    pub fn new(wants_proxies: bool, wants_routes: bool) -> Self {
        Tables {
            wants_proxies,
            wants_routes,
            proxies: BTreeSet::new(),
            routes: BTreeMap::new(),
            lost_proxies: false,
            lost_routes: false,
            left_behind: BTreeSet::new(),
            is_listing: false,
            failed: HashMap::new(),
            unsettled: BTreeSet::new(),
            advertised: BTreeMap::new(),
            detected: HashMap::new(),
            timeout: 0,
        }
    }

    pub fn detects_duplicates(&mut self, now: u64, address: Ipv6Addr) {
        self.detected.insert(address, now);
    }

    /// Does a host detect duplicates of it, so that another one that answers has it?
    pub fn is_detecting(&self, now: u64, address: Ipv6Addr) -> bool {
        let detected = self.detected.get(&address);
        self.wants_proxies && detected.is_some_and(|at| now < at + ANSWER_INTERVAL)
    }

    pub fn set_timeout(&mut self, timeout: u64) {
        self.timeout = timeout;
    }

    pub fn is_used(&self) -> bool {
        self.wants_proxies || self.wants_routes
    }

    pub fn len(&self) -> usize {
        self.proxies.len() + self.routes.len()
    }

    pub fn upstream_is_gone(&mut self) {
        // The engine knows by itself that these are gone.
        self.unsettled.extend(&self.proxies);
        self.proxies.clear();
        self.unsettled.extend(self.routes.keys());
        self.routes.retain(|_, side| *side != Side::Upstream);
    }

    pub fn downstream_is_gone(&mut self, port: Port) {
        let before = self.routes.len();
        self.routes
            .retain(|_, side| *side != Side::Downstream(port));
        self.lost_routes |= self.routes.len() < before;
    }

    /// The link went down and up so fast that nobody was told.
    pub fn wipe(&mut self) {
        self.lost_proxies = true;
        self.lost_routes = true;
        self.proxies.clear();
        self.routes.clear();
    }

    /// Another program, or an earlier process, left entries there.
    pub fn leave_behind(&mut self, address: Ipv6Addr, side: Side) {
        self.proxies.insert(address);
        self.routes.insert(address, side);
        self.left_behind.insert(address);
    }

    /// A listing of one table has ended.
    pub fn listed(&mut self, table: KernelTable) {
        match table {
            KernelTable::Proxies => self.lost_proxies = false,
            KernelTable::Routes => {
                self.lost_routes = false;
                // The proxies are listed before.
                self.unsettled.append(&mut self.left_behind);
            }
        }
        self.unsettled.extend(&self.proxies);
        self.unsettled.extend(self.routes.keys());
    }

    pub fn change(&mut self, now: u64, change: &Change, succeeded: bool) {
        let Change {
            table,
            address,
            side,
            present,
            ..
        } = *change;
        assert_ne!(address, OTHERS, "another program's entry is touched");
        self.unsettled.insert(address);
        let key = (is_route(table), address);
        if !succeeded {
            self.failed.insert(key, now);
            return;
        }
        self.failed.remove(&key);
        let is_lost = match table {
            KernelTable::Proxies => self.lost_proxies,
            KernelTable::Routes => self.lost_routes,
        };
        let right = match (table, present) {
            (KernelTable::Proxies, true) => self.proxies.insert(address),
            (KernelTable::Proxies, false) => self.proxies.remove(&address),
            (KernelTable::Routes, true) => self.routes.insert(address, side).is_none(),
            (KernelTable::Routes, false) => {
                let is_there = self.routes.get(&address) == Some(&side);
                if is_there {
                    self.routes.remove(&address);
                }
                is_there
            }
        };
        assert!(
            right || is_lost || self.is_listing || self.left_behind.contains(&address),
            "there already, or gone: {change:?}"
        );
    }

    /// All that is there, and all that is to be.
    pub fn look_at_all(&mut self, addresses: impl Iterator<Item = Ipv6Addr>) {
        if self.is_used() {
            self.unsettled.extend(addresses);
            self.unsettled.extend(&self.proxies);
            self.unsettled.extend(self.routes.keys());
        }
    }

    /// What was looked at and is as it must be needs no look until it changes.
    pub fn check(
        &mut self,
        now: u64,
        port_of: impl Fn(Ipv6Addr) -> Option<Port>,
        has_upstream: bool,
        downstreams: &[Option<Link>],
    ) {
        let mut unsettled = std::mem::take(&mut self.unsettled);
        unsettled.retain(|address| {
            let port = port_of(*address);
            let failed = |is_route| {
                let failed = self.failed.get(&(is_route, *address));
                failed.is_some_and(|failed| now < failed + RETRY_INTERVAL)
            };
            let is_detecting = self.is_detecting(now, *address);
            let wanted = self.wants_proxies && port.is_some();
            let there = self.proxies.contains(address);
            let proxy = wanted == there;
            let excused = self.lost_proxies
                || failed(false)
                || self.left_behind.contains(address)
                || wanted && (!has_upstream || is_detecting);
            assert!(
                proxy || excused,
                "proxy entry of {address} at {now}: wanted {wanted}, there {there}"
            );
            let wanted = port.filter(|_| self.wants_routes).map(Side::Downstream);
            let there = self.routes.get(address).copied();
            let route = wanted == there || there == Some(Side::Upstream) && wanted.is_none();
            let is_up = |side| match side {
                Side::Upstream => has_upstream,
                Side::Downstream(port) => downstreams[usize::from(port)].is_some(),
            };
            let excused = self.lost_routes
                || failed(true)
                || self.left_behind.contains(address)
                || there.is_none() && wanted.is_some_and(|side| is_detecting || !is_up(side));
            assert!(
                route || excused,
                "route to {address} at {now}: wanted {wanted:?}, there {there:?}"
            );
            !(proxy && route)
        });
        self.unsettled.append(&mut unsettled);
    }

    pub fn check_all(&mut self, now: u64, kept: usize, subjects: usize) {
        self.failed
            .retain(|_, failed| now < *failed + RETRY_INTERVAL);
        self.detected.retain(|_, at| now < *at + RETRY_INTERVAL);
        let most = self.timeout + 10_000;
        for (address, side) in &self.routes {
            let at = self.advertised.get(address).copied();
            let excused = self.lost_routes
                || self.left_behind.contains(address)
                || self.failed.contains_key(&(true, *address));
            assert!(
                *side != Side::Upstream || excused || at.is_some_and(|at| now < at + most),
                "a route upstream to {address}, which is not there"
            );
        }
        let most = subjects + self.len() + self.advertised.len() + 100;
        assert!(kept <= most, "{kept} addresses for the kernel's tables");
    }

    pub fn assert_empty(&self) {
        assert!(self.proxies.is_empty(), "{:?}", self.proxies);
        assert!(self.routes.is_empty(), "{:?}", self.routes);
    }
}
