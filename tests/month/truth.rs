//! What must hold whatever the engine does inside, by what the hosts said and what is so.
//!
//! - Nothing is known, joined, answered for or announced without evidence.
//! - A host that said what it has, and answers what it is asked, is *expected* to be known within a
//!   bounded time. From then on it is *promised*: what it has is never lost, moved or left.
//! - The kernel's tables are what is wanted within a bounded time.
//! - What nobody speaks for any more is gone within a bounded time, and not before its time.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::Ipv6Addr;
use std::ops::RangeInclusive;

use protocol::link::{MAX_DOWNSTREAMS, Port};
use protocol::wire::MacAddress;

use crate::facts::group_of;

/// Where a host is, and its link-layer address there.
pub type Place = (Port, MacAddress);
/// A group, and whose address makes it wanted. Of a host whose address is not known that is its
/// link-local address.
pub type Key = (u32, Ipv6Addr);

#[derive(Clone, Copy, Debug)]
pub struct Claim {
    pub place: Place,
    pub since: u64,
}

/// What the engine knows, by the host that has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Known {
    Address(Ipv6Addr),
    Listener(u32, Place),
}

#[derive(Default)]
pub struct Truth {
    /// When a host was last heard at all, and last asked.
    heard: HashMap<Place, u64>,
    asked: HashMap<Place, u64>,
    /// When a host last spoke for an address, and of a group to which it listens.
    said: HashMap<(Ipv6Addr, Place), u64>,
    reported: HashMap<(u32, Place), u64>,
    /// When a host last said that it no longer listens to a group.
    pub revoked: HashMap<(u32, Place), u64>,
    /// When anybody last spoke for anything in a group.
    pub mentioned: HashMap<u32, u64>,
    pub expected: BTreeMap<Key, Claim>,
    pub promised: BTreeMap<Key, Claim>,
    /// Hosts of which nothing is known and which spoke: each is to be asked.
    pub to_ask: BTreeMap<Place, u64>,
    /// Who is to be told of a duplicate.
    pub to_warn: BTreeMap<(Ipv6Addr, Port), u64>,
    /// When each address answered last, and where; `None` is upstream.
    pub answered: HashMap<Ipv6Addr, (Option<Port>, u64)>,
    /// When each address answered last upstream.
    pub upstream: HashMap<Ipv6Addr, u64>,
    /// What hosts downstream answered for while it was known.
    pub advertised: HashSet<(Ipv6Addr, MacAddress)>,
    /// When each address was last solicited on each link.
    pub solicited: HashMap<(Port, Ipv6Addr), u64>,
    /// When something last made the questions to many hosts start anew.
    pub doubted: u64,
    /// What was known at the last look, and where.
    pub known: HashMap<Known, Place>,
    pub kept: u64,
}

impl Truth {
    /// What a host has there is its no more, or it no longer answers.
    pub fn forget(&mut self, key: Key) {
        self.expected.remove(&key);
        self.promised.remove(&key);
        self.to_warn.retain(|(target, _), _| *target != key.1);
    }

    pub fn hear(&mut self, now: u64, place: Place) {
        self.heard.insert(place, now);
    }

    pub fn heard(&self, place: Place) -> Option<u64> {
        self.heard.get(&place).copied()
    }

    /// A host is asked which groups it listens to.
    pub fn ask(&mut self, now: u64, place: Place) {
        self.asked.insert(place, now);
        self.to_ask.remove(&place);
    }

    pub fn is_asked_since(&self, place: Place, since: u64) -> bool {
        self.asked.get(&place).is_some_and(|asked| *asked > since)
    }

    /// Something was said that speaks for an address.
    pub fn say(&mut self, now: u64, place: Place, address: Ipv6Addr) {
        let group = group_of(address);
        self.said.insert((address, place), now);
        self.mentioned.insert(group, now);
        // The address takes its place.
        self.known.remove(&Known::Listener(group, place));
        // Who of several has it is not clear before the one that has says so.
        let key = (group, address);
        self.expected
            .retain(|known, claim| *known != key || claim.place == place);
    }

    pub fn report(&mut self, now: u64, place: Place, group: u32, listens: bool) {
        if listens {
            self.reported.insert((group, place), now);
            self.mentioned.insert(group, now);
        } else {
            self.revoked.insert((group, place), now);
        }
    }

    /// An address answered, or said so to the router.
    pub fn answer(&mut self, now: u64, place: Place, address: Ipv6Addr) {
        self.answered.insert(address, (Some(place.0), now));
        self.advertised.insert((address, place.1));
    }

    pub fn answer_upstream(&mut self, now: u64, address: Ipv6Addr) {
        self.answered.insert(address, (None, now));
        self.upstream.insert(address, now);
    }

    /// When a host last spoke for what it is known by.
    pub fn evidence(&self, known: Known, place: Place) -> Option<u64> {
        let (group, said) = match known {
            Known::Address(address) => {
                let said = self.said.get(&(address, place)).copied();
                (group_of(address), Some(said?))
            }
            Known::Listener(group, _) => (group, None),
        };
        said.max(self.reported.get(&(group, place)).copied())
    }

    /// Has a host said of an address what answers a question for it: that it has it, to the router,
    /// or that it listens to its group? It may have moved since.
    pub fn has_answered(&self, address: Ipv6Addr, (_, mac): Place) -> bool {
        let group = group_of(address);
        let reported = |port| self.reported.contains_key(&(group, (port, mac)));
        self.advertised.contains(&(address, mac)) || (0..MAX_DOWNSTREAMS as Port).any(reported)
    }

    /// What is promised in some groups.
    pub fn promised_in(
        &self,
        groups: RangeInclusive<u32>,
    ) -> impl Iterator<Item = (&Key, &Claim)> + '_ {
        let first = (*groups.start(), Ipv6Addr::UNSPECIFIED);
        let last = (*groups.end(), Ipv6Addr::from_bits(u128::MAX));
        self.promised.range(first..=last)
    }
}
