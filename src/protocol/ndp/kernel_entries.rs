//! What the kernel's own tables are to hold, and who is announced upstream.
//!
//! For each address downstream there is a proxy entry upstream, so that the kernel joins its group
//! and answers for it (RFC 4861 §7.2.8, RFC 4389 §4.1), and there is a route to each address, where
//! it is.
//!
//! A link that goes down takes entries and routes along, and the kernel reports none of that. A
//! crash leaves them behind. So the kernel lists its tables now and then. The router adds again
//! what is missing, and removes what should not be there.

use core::net::Ipv6Addr;

use crate::config::Config;
use crate::link::Side;
use crate::tables::deadlines::Deadlines;
use crate::tables::pending::{Pending, SlotSet};
use crate::tables::table::Table;
use crate::time::{Duration, Instant, earliest};

/// The most addresses kept: 4,096 downstream, 2,048 upstream, and 1,024 that are to be removed.
pub const CAPACITY: usize = 7168;
/// From a change that failed to the next attempt. If another program's entry is in the way, it may
/// stay for long.
pub const RETRY_INTERVAL: Duration = Duration::from_secs(10);
/// How often an address is announced (`MAX_NEIGHBOR_ADVERTISEMENT` of RFC 4861 §10).
pub const ANNOUNCEMENTS: u8 = 3;
/// From an announcement to the next of the same address (`RETRANS_TIMER` of RFC 4861 §10).
pub const ANNOUNCEMENT_INTERVAL: Duration = Duration::from_secs(1);
/// From an announcement to the next of any address: 50 a second.
pub const ANNOUNCEMENT_PACE: Duration = Duration::from_millis(20);

const WORDS: usize = CAPACITY / 32;

/// One of the kernel's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelTable {
    /// Of addresses that the kernel answers for upstream.
    Proxies,
    /// Of routes to single addresses.
    Routes,
}

const TABLES: [KernelTable; 2] = [KernelTable::Routes, KernelTable::Proxies];

/// What the kernel says when it lists one of its tables, of this program's part of it alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listing {
    Begins,
    Has(Ipv6Addr, Side),
    /// What it did not list is not there.
    Ends,
}

/// An address, as it should be and as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proxied {
    pub place: Place,
    /// The kernel answers for it upstream.
    pub proxied: bool,
    /// Where the kernel has a route to it.
    pub routed: Option<Side>,
    /// Announcements still to be sent, the next not before `announce_at`.
    announcements: u8,
    announce_at: Instant,
}

/// Where an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It is gone, and what the kernel has of it is to be removed.
    Gone,
    /// An earlier process left it. Its host is known there, and has not answered this one yet.
    Kept(Side),
    /// It is there.
    At(Side),
}

impl Place {
    /// The link where it is; `None` where it is gone.
    pub fn side(self) -> Option<Side> {
        match self {
            Place::Gone => None,
            Place::Kept(side) | Place::At(side) => Some(side),
        }
    }

    pub fn is_downstream(self) -> bool {
        matches!(self.side(), Some(Side::Downstream(_)))
    }
}

/// A change of one of the kernel's tables that is to be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    slot: usize,
    pub table: KernelTable,
    pub address: Ipv6Addr,
    /// Where the entry or route is, or is to be.
    pub side: Side,
    /// Is it to be there?
    pub present: bool,
}

/// What [`KernelEntries`] are kept in.
pub struct Storage {
    addresses: Table<Ipv6Addr, Proxied, CAPACITY>,
    proxies: Pending<WORDS>,
    routes: Pending<WORDS>,
    listed_proxies: SlotSet<WORDS>,
    listed_routes: SlotSet<WORDS>,
    announcing: Deadlines<CAPACITY>,
}

impl Storage {
    pub(crate) const fn new() -> Self {
        Storage {
            addresses: Table::new(),
            proxies: Pending::new(),
            routes: Pending::new(),
            listed_proxies: SlotSet::new(),
            listed_routes: SlotSet::new(),
            announcing: Deadlines::new(),
        }
    }
}

/// The addresses, at most [`CAPACITY`].
pub struct KernelEntries<'t> {
    addresses: &'t mut Table<Ipv6Addr, Proxied, CAPACITY>,
    proxies: &'t mut Pending<WORDS>,
    routes: &'t mut Pending<WORDS>,
    /// Those that the listing of either table has told of since it began.
    listed_proxies: &'t mut SlotSet<WORDS>,
    listed_routes: &'t mut SlotSet<WORDS>,
    wants_proxies: bool,
    wants_routes: bool,
    announces: bool,
    /// When each address that can be announced is to be announced next.
    announcing: &'t mut Deadlines<CAPACITY>,
    /// No announcement may be sent before.
    pace: Instant,
    /// Addresses that there was no room for and that were not told of yet.
    left_out: u32,
    /// There are such that are to have what the others have, once there is room.
    lacks: bool,
}

impl<'t> KernelEntries<'t> {
    /// No entries, in a storage whose hash gets a key.
    pub(crate) fn new(storage: &'t mut Storage, config: &Config, hash_key: [u8; 16]) -> Self {
        let Storage {
            addresses,
            proxies,
            routes,
            listed_proxies,
            listed_routes,
            announcing,
        } = storage;
        addresses.begin(hash_key);
        proxies.clear();
        routes.clear();
        listed_proxies.clear();
        listed_routes.clear();
        announcing.clear();
        KernelEntries {
            addresses,
            proxies,
            routes,
            listed_proxies,
            listed_routes,
            wants_proxies: config.ndp_proxy,
            wants_routes: config.host_routes,
            announces: config.announce,
            announcing,
            pace: Instant::ZERO,
            left_out: 0,
            lacks: false,
        }
    }

    pub fn get(&self, address: Ipv6Addr) -> Option<&Proxied> {
        let (_, proxied) = self.addresses.get(self.addresses.find(&address)?)?;
        Some(proxied)
    }

    pub fn iter(&self) -> impl Iterator<Item = (Ipv6Addr, &Proxied)> {
        let addresses = self.addresses.iter_from(0);
        addresses.map(|(_, address, proxied)| (address, proxied))
    }

    /// Did changes fail that were not tried again yet?
    pub fn is_failing(&self, table: KernelTable) -> bool {
        match table {
            KernelTable::Proxies => self.proxies.is_failing(),
            KernelTable::Routes => self.routes.is_failing(),
        }
    }

    /// How many addresses were left out since this was asked last, because the table was full of
    /// others.
    pub(crate) fn take_left_out(&mut self) -> u32 {
        core::mem::take(&mut self.left_out)
    }

    /// Is there room again where addresses were left out? Then all are to be [set](Self::set) once
    /// more. True once.
    pub(crate) fn has_room_again(&mut self) -> bool {
        let has_room = self.lacks && self.addresses.len() < CAPACITY;
        self.lacks &= !has_room;
        has_room
    }

    /// An address is there now, and nowhere else; `None` where it is gone. Where the table is full
    /// of others it is left out.
    pub(crate) fn set(&mut self, now: Instant, address: Ipv6Addr, side: Option<Side>) {
        if !self.wants_proxies && !self.wants_routes && !self.announces {
            return;
        }
        let Some(slot) = self.slot_of(address, side.is_some()) else {
            self.lacks |= side.is_some();
            return;
        };
        let Some((_, proxied)) = self.addresses.get_mut(slot) else {
            return;
        };
        let was_there = matches!(proxied.place, Place::At(_));
        proxied.place = side.map_or(Place::Gone, Place::At);
        if !proxied.place.is_downstream() {
            proxied.announcements = 0;
        } else if !was_there && self.announces {
            proxied.announcements = ANNOUNCEMENTS;
            proxied.announce_at = now;
        }
        self.settle(slot);
    }

    /// An earlier process left something for an address that may be there: it stays until it is
    /// known whether the address is.
    pub(crate) fn keep(&mut self, address: Ipv6Addr, side: Side) {
        if let Some(slot) = self.slot_of(address, true)
            && let Some((_, proxied)) = self.addresses.get_mut(slot)
        {
            proxied.place = Place::Kept(side);
            self.settle(slot);
        }
    }

    /// The kernel lists one of its tables.
    pub(crate) fn handle_listing(&mut self, table: KernelTable, listing: Listing) {
        match listing {
            Listing::Begins => self.listed(table).clear(),
            Listing::Has(address, side) => {
                // Of more leftovers than there is room for, the rest is removed after a later
                // listing.
                let Some(slot) = self.slot_of(address, true) else {
                    return;
                };
                self.listed(table).insert(slot);
                if let Some((_, proxied)) = self.addresses.get_mut(slot) {
                    match table {
                        KernelTable::Proxies => proxied.proxied = true,
                        KernelTable::Routes => proxied.routed = Some(side),
                    }
                }
                self.settle(slot);
            }
            Listing::Ends => self.forget_unlisted(table),
        }
    }

    /// The kernel has nothing for the addresses that it did not list. Touches every address, as the
    /// listing did.
    fn forget_unlisted(&mut self, table: KernelTable) {
        for slot in self.addresses.slots() {
            if !self.listed(table).contains(slot)
                && let Some((_, proxied)) = self.addresses.get_mut(slot)
            {
                match table {
                    KernelTable::Proxies => proxied.proxied = false,
                    KernelTable::Routes => proxied.routed = None,
                }
                self.settle(slot);
            }
        }
    }

    /// Somebody removed what the kernel had for an address: it is added again if it is wanted. Of
    /// what this program removes, [`Self::done`] is told before.
    pub(crate) fn removed(&mut self, table: KernelTable, address: Ipv6Addr, side: Side) {
        if let Some(slot) = self.addresses.find(&address)
            && let Some((_, proxied)) = self.addresses.get_mut(slot)
        {
            match table {
                KernelTable::Proxies => proxied.proxied = false,
                KernelTable::Routes => proxied.routed = proxied.routed.filter(|at| *at != side),
            }
            self.settle(slot);
        }
    }

    /// The next change to carry out, the same one again until [`Self::done`] is told of it. A
    /// change on a link that is not `usable` waits.
    pub(crate) fn poll_change(
        &mut self,
        now: Instant,
        usable: impl Fn(Side) -> bool,
    ) -> Option<Change> {
        let retry_at = now.saturating_add(RETRY_INTERVAL);
        for table in TABLES {
            while let Some(slot) = self.pending(table).next() {
                match self.change_of(slot, table) {
                    Some(change) if !change.present || usable(change.side) => return Some(change),
                    Some(_) => self.pending(table).fail(slot, retry_at),
                    None => self.pending(table).set(slot, false),
                }
            }
        }
        None
    }

    /// A change was carried out, or failed and is to be tried again [`RETRY_INTERVAL`] after `now`.
    pub(crate) fn done(&mut self, now: Instant, change: &Change, succeeded: bool) {
        if !succeeded {
            let retry_at = now.saturating_add(RETRY_INTERVAL);
            self.pending(change.table).fail(change.slot, retry_at);
            return;
        }
        if let Some((_, proxied)) = self.addresses.get_mut(change.slot) {
            match change.table {
                KernelTable::Proxies => proxied.proxied = change.present,
                KernelTable::Routes => proxied.routed = change.present.then_some(change.side),
            }
        }
        // A listing that began before does not know of it.
        self.listed(change.table).insert(change.slot);
        self.settle(change.slot);
    }

    /// What could not be done may be possible now.
    pub(crate) fn retry(&mut self) {
        self.proxies.retry();
        self.routes.retry();
    }

    /// The upstream is another one, which has none of the entries. Touches every address.
    pub(crate) fn forget_upstream(&mut self) {
        for slot in self.addresses.slots() {
            if let Some((_, proxied)) = self.addresses.get_mut(slot) {
                proxied.proxied = false;
                proxied.routed = proxied.routed.filter(|side| *side != Side::Upstream);
                self.settle(slot);
            }
        }
    }

    /// The address to announce next, the same one again until [`Self::announced`] is told of it.
    pub(crate) fn poll_announcement(&self, now: Instant) -> Option<Ipv6Addr> {
        if now < self.pace {
            return None;
        }
        let slot = self.announcing.first_due(now)?;
        let (address, _) = self.addresses.get(slot)?;
        Some(address)
    }

    /// An announcement was sent, or lost, which is no different.
    pub(crate) fn announced(&mut self, now: Instant, address: Ipv6Addr) {
        if let Some(slot) = self.addresses.find(&address)
            && let Some((_, proxied)) = self.addresses.get_mut(slot)
        {
            proxied.announcements = proxied.announcements.saturating_sub(1);
            proxied.announce_at = now.saturating_add(ANNOUNCEMENT_INTERVAL);
            self.schedule_announcement(slot);
        }
        self.pace = now.saturating_add(ANNOUNCEMENT_PACE);
    }

    pub(crate) fn next_announcement(&self) -> Option<Instant> {
        let (_, due) = self.announcing.first()?;
        Some(due.max(self.pace))
    }

    /// When to try again what failed.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        earliest(&[self.proxies.next_deadline(), self.routes.next_deadline()])
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.proxies.handle_timeout(now);
        self.routes.handle_timeout(now);
    }

    /// The slot of an address, a new one where there is none and it is wanted.
    fn slot_of(&mut self, address: Ipv6Addr, wanted: bool) -> Option<usize> {
        if let Some(slot) = self.addresses.find(&address) {
            return Some(slot);
        }
        if !wanted {
            return None;
        }
        let Ok(slot) = self.addresses.insert(address, Proxied::GONE) else {
            self.left_out = self.left_out.saturating_add(1);
            return None;
        };
        for table in TABLES {
            self.listed(table).remove(slot);
        }
        Some(slot)
    }

    fn listed(&mut self, table: KernelTable) -> &mut SlotSet<WORDS> {
        match table {
            KernelTable::Proxies => self.listed_proxies,
            KernelTable::Routes => self.listed_routes,
        }
    }

    fn pending(&mut self, table: KernelTable) -> &mut Pending<WORDS> {
        match table {
            KernelTable::Proxies => self.proxies,
            KernelTable::Routes => self.routes,
        }
    }

    /// What one of the tables lacks, or has too much.
    fn change_of(&self, slot: usize, table: KernelTable) -> Option<Change> {
        let (address, proxied) = self.addresses.get(slot)?;
        let (wanted, present) = match table {
            KernelTable::Proxies => {
                let answers = self.wants_proxies && proxied.place.is_downstream();
                let upstream = |there: bool| there.then_some(Side::Upstream);
                (upstream(answers), upstream(proxied.proxied))
            }
            KernelTable::Routes => {
                let wanted = proxied.place.side().filter(|_| self.wants_routes);
                (wanted, proxied.routed)
            }
        };
        if wanted == present {
            return None;
        }
        // What is at the wrong place is removed before it is added at the right one.
        Some(Change {
            slot,
            table,
            address,
            side: present.or(wanted)?,
            present: present.is_none(),
        })
    }

    /// Brings what is due for an address in line with its state; ends an address that is gone
    /// everywhere.
    fn settle(&mut self, slot: usize) {
        for table in TABLES {
            let pending = self.change_of(slot, table).is_some();
            self.pending(table).set(slot, pending);
        }
        self.schedule_announcement(slot);
        if let Some((_, proxied)) = self.addresses.get(slot)
            && proxied.place == Place::Gone
            && !proxied.proxied
            && proxied.routed.is_none()
        {
            self.addresses.remove(slot);
        }
    }

    /// An address is announced once the kernel answers for it, if it is to.
    fn schedule_announcement(&mut self, slot: usize) {
        if let Some((_, proxied)) = self.addresses.get(slot)
            && proxied.announcements > 0
            && proxied.proxied == self.wants_proxies
        {
            self.announcing.set(slot, proxied.announce_at);
        } else {
            self.announcing.remove(slot);
        }
    }
}

impl Proxied {
    const GONE: Proxied = Proxied {
        place: Place::Gone,
        proxied: false,
        routed: None,
        announcements: 0,
        announce_at: Instant::ZERO,
    };
}
