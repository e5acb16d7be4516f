//! What must hold whatever the engine does inside, judged by what the hosts said and have.
//!
//! - Without evidence the engine knows, joins and announces nothing, and answers for nothing.
//! - A host said what it has, and answers every question: then the engine is *expected* to know it
//!   within a bounded time. From then on that is *promised*: the engine never loses, moves or
//!   leaves it.
//! - Within a bounded time the kernel's tables hold what the engine wants.
//! - If nobody speaks for something any more, the engine forgets it within a bounded time, and not
//!   before its time.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::Ipv6Addr;
use std::ops::RangeInclusive;

use protocol::link::{MAX_DOWNSTREAMS, Port};
use protocol::wire::MacAddress;

use crate::facts::group_of;

/// The link of a host, and its link-layer address there.
pub type Place = (Port, MacAddress);
/// A group, and the address that makes it wanted. If no address of a host is known, that is the
/// host's link-local address.
pub type Key = (u32, Ipv6Addr);

#[derive(Clone, Copy, Debug)]
pub struct Claim {
    pub place: Place,
    pub since: u64,
}

/// What the engine knows of a host: an address, or that it listens to a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Known {
    Address(Ipv6Addr),
    Listener(u32, Place),
}

#[derive(Default)]
pub struct Truth {
    /// When the router last heard a host at all, and last asked it.
    heard: HashMap<Place, u64>,
    asked: HashMap<Place, u64>,
    /// When a host last spoke for an address, and last reported a group.
    said: HashMap<(Ipv6Addr, Place), u64>,
    reported: HashMap<(u32, Place), u64>,
    /// When a host last reported that it no longer listens to a group.
    pub revoked: HashMap<(u32, Place), u64>,
    /// When any host last spoke for anything in a group.
    pub mentioned: HashMap<u32, u64>,
    pub expected: BTreeMap<Key, Claim>,
    pub promised: BTreeMap<Key, Claim>,
    /// Hosts that spoke and of which the engine knows nothing. It must ask each of them, and the
    /// time is since when.
    pub to_ask: BTreeMap<Place, u64>,
    /// Who must hear of a duplicate, and since when.
    pub to_warn: BTreeMap<(Ipv6Addr, Port), u64>,
    /// When each address last answered, and on which link. `None` is upstream.
    pub answered: HashMap<Ipv6Addr, (Option<Port>, u64)>,
    /// When each address last answered upstream.
    pub upstream: HashMap<Ipv6Addr, u64>,
    /// The addresses for which hosts downstream answered while the engine knew them.
    pub advertised: HashSet<(Ipv6Addr, MacAddress)>,
    /// When the engine last solicited each address on each link.
    pub solicited: HashMap<(Port, Ipv6Addr), u64>,
    /// When something last made the questions to many hosts start anew.
    pub doubted: u64,
    /// What the engine knew at the last check, and where.
    pub known: HashMap<Known, Place>,
    pub kept: u64,
}

impl Truth {
    /// The host no longer has this here, or no longer answers.
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

    /// The router asks a host which groups it listens to.
    pub fn ask(&mut self, now: u64, place: Place) {
        self.asked.insert(place, now);
        self.to_ask.remove(&place);
    }

    pub fn is_asked_since(&self, place: Place, since: u64) -> bool {
        self.asked.get(&place).is_some_and(|asked| *asked > since)
    }

    /// A host said something that speaks for an address.
    pub fn say(&mut self, now: u64, place: Place, address: Ipv6Addr) {
        let group = group_of(address);
        self.said.insert((address, place), now);
        self.mentioned.insert(group, now);
        // The address takes the place of the listener.
        self.known.remove(&Known::Listener(group, place));
        // If several hosts claim an address, the one that has it is not known before it speaks.
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

    /// A host answered for an address, or advertised it to the router.
    pub fn answer(&mut self, now: u64, place: Place, address: Ipv6Addr) {
        self.answered.insert(address, (Some(place.0), now));
        self.advertised.insert((address, place.1));
    }

    pub fn answer_upstream(&mut self, now: u64, address: Ipv6Addr) {
        self.answered.insert(address, (None, now));
        self.upstream.insert(address, now);
    }

    /// When a host last spoke for what the engine knows of it.
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

    /// Has a host said of an address what answers a question about it? That is an advertisement to
    /// the router, or a report of its group. The host may have moved since.
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
