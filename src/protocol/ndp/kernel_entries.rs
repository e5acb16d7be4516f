//! What the kernel's own tables are to hold: for each address downstream a proxy entry upstream, so that the kernel joins its group and
//! answers for it (RFC 4861 §7.2.8, RFC 4389 §4.1), and a route to each address where it is; and who is announced upstream.
//!
//! A link that goes down takes entries and routes along without a word, and a crash leaves them behind. So the kernel lists its
//! tables now and then: what is missing is added again, and what should not be there is removed.

use core::net::Ipv6Addr;

use crate::config::Config;
use crate::link::Side;
use crate::tables::pending::{Pending, SlotSet};
use crate::tables::table::Table;
use crate::time::{Duration, Instant, bring_forward, earliest};

/// The most addresses kept: 4,096 downstream, 2,048 upstream, and 1,024 that are to be removed.
pub const CAPACITY: usize = 7168;
/// Until a change that failed is tried again. Where another program's entry is in the way, it may stay for long.
pub const RETRY_INTERVAL: Duration = Duration::from_secs(10);
/// How often an address is announced (`MAX_NEIGHBOR_ADVERTISEMENT` of RFC 4861 §10).
pub const ANNOUNCEMENTS: u8 = 3;
/// From an announcement to the next of the same address (`RETRANS_TIMER` of RFC 4861 §10).
pub const ANNOUNCEMENT_INTERVAL: Duration = Duration::from_secs(1);
/// From an announcement to the next of any address: 50 a second.
pub const ANNOUNCEMENT_PACE: Duration = Duration::from_millis(20);

/// One of the kernel's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelTable {
    /// Of addresses that the kernel answers for upstream.
    Proxies,
    /// Of routes to single addresses.
    Routes,
}

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
    /// Where it is; `None` where it is gone and what is left of it is to be removed.
    pub side: Option<Side>,
    /// The kernel answers for it upstream.
    pub proxied: bool,
    /// Where the kernel has a route to it.
    pub routed: Option<Side>,
    /// An earlier process left it, and its host, which is known, has not answered this one yet.
    pub kept: bool,
    /// Announcements still to be sent, the next not before `announce_at`.
    announcements: u8,
    announce_at: Instant,
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
pub type Storage = Table<Ipv6Addr, Proxied, CAPACITY>;

/// The addresses, at most [`CAPACITY`].
pub struct KernelEntries<'t> {
    addresses: &'t mut Storage,
    proxies: Pending<{ CAPACITY / 32 }>,
    routes: Pending<{ CAPACITY / 32 }>,
    /// Those that the listing of either table has told of since it began.
    listed_proxies: SlotSet<{ CAPACITY / 32 }>,
    listed_routes: SlotSet<{ CAPACITY / 32 }>,
    wants_proxies: bool,
    wants_routes: bool,
    announces: bool,
    /// No announcement is due before; none where none will be.
    next_announcement: Option<Instant>,
    /// None may be sent before.
    pace: Instant,
    /// Addresses that there was no room for and that were not told of yet.
    left_out: u32,
    /// There are such that are to have what the others have, once there is room.
    lacks: bool,
}

impl<'t> KernelEntries<'t> {
    /// No entries, in a storage whose hash gets a key.
    pub(crate) fn new(addresses: &'t mut Storage, config: &Config, hash_key: [u8; 16]) -> Self {
        addresses.begin(hash_key);
        KernelEntries {
            addresses,
            proxies: Pending::new(),
            routes: Pending::new(),
            listed_proxies: SlotSet::new(),
            listed_routes: SlotSet::new(),
            wants_proxies: config.ndp_proxy,
            wants_routes: config.host_routes,
            announces: config.announce,
            next_announcement: None,
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

    /// How many addresses were left out since this was asked last, since the table was full of others.
    pub(crate) fn take_left_out(&mut self) -> u32 {
        core::mem::take(&mut self.left_out)
    }

    /// There is room again where addresses were left out: all are to be [set](Self::set) once more. True once.
    pub(crate) fn has_room_again(&mut self) -> bool {
        let has_room = self.lacks && self.addresses.len() < CAPACITY;
        self.lacks &= !has_room;
        has_room
    }

    /// An address is there now, and nowhere else; `None` where it is gone. Where the table is full of others it is left out.
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
        let is_downstream = matches!(side, Some(Side::Downstream(_)));
        let was_there = proxied.side.is_some() && !proxied.kept;
        let is_new = !was_there && is_downstream;
        proxied.side = side;
        proxied.kept = false;
        if !is_downstream {
            // What is left in the kernel's tables does not bring it back.
            proxied.announcements = 0;
        }
        if is_new && self.announces {
            proxied.announcements = ANNOUNCEMENTS;
            proxied.announce_at = now;
            self.expect_announcement(now);
        }
        self.settle(slot);
    }

    /// An earlier process left something for an address that may be there: it stays until it is known whether it is.
    pub(crate) fn keep(&mut self, address: Ipv6Addr, side: Side) {
        if let Some(slot) = self.slot_of(address, true)
            && let Some((_, proxied)) = self.addresses.get_mut(slot)
        {
            proxied.side = Some(side);
            proxied.kept = true;
            self.settle(slot);
        }
    }

    /// The kernel lists one of its tables.
    pub(crate) fn handle_listing(&mut self, table: KernelTable, listing: Listing) {
        match listing {
            Listing::Begins => *self.listed(table) = SlotSet::new(),
            Listing::Has(address, side) => {
                // Of more leftovers than there is room for, the rest is removed after a later listing.
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
            Listing::Ends => {
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
        }
    }

    /// Somebody removed what the kernel had for an address: it is added again where it is wanted. What was removed here was told before.
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

    /// The next change to carry out, the same one again until [`Self::done`] is told of it. One on a side that is not `usable` waits.
    pub(crate) fn poll_change(
        &mut self,
        now: Instant,
        usable: impl Fn(Side) -> bool,
    ) -> Option<Change> {
        let retry_at = now.saturating_add(RETRY_INTERVAL);
        for table in [KernelTable::Routes, KernelTable::Proxies] {
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
            if proxied.announcements > 0 {
                // It may have waited for this.
                self.expect_announcement(now);
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

    /// The upstream is another one, which has none of the entries.
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
    pub(crate) fn poll_announcement(&mut self, now: Instant) -> Option<Ipv6Addr> {
        if self.next_announcement().is_none_or(|due| now < due) {
            return None;
        }
        let mut next: Option<Instant> = None;
        for (_, address, proxied) in self.addresses.iter_from(0) {
            // Not before it would be answered for.
            if proxied.announcements == 0 || proxied.proxied != self.wants_proxies {
                continue;
            }
            if proxied.announce_at <= now {
                return Some(address);
            }
            bring_forward(&mut next, proxied.announce_at);
        }
        self.next_announcement = next;
        None
    }

    /// An announcement was sent, or lost, which is no different.
    pub(crate) fn announced(&mut self, now: Instant, address: Ipv6Addr) {
        let slot = self.addresses.find(&address);
        if let Some((_, proxied)) = slot.and_then(|slot| self.addresses.get_mut(slot)) {
            proxied.announcements = proxied.announcements.saturating_sub(1);
            proxied.announce_at = now.saturating_add(ANNOUNCEMENT_INTERVAL);
        }
        self.pace = now.saturating_add(ANNOUNCEMENT_PACE);
    }

    pub(crate) fn next_announcement(&self) -> Option<Instant> {
        self.next_announcement.map(|due| due.max(self.pace))
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
        for table in [KernelTable::Proxies, KernelTable::Routes] {
            self.listed(table).remove(slot);
        }
        Some(slot)
    }

    fn listed(&mut self, table: KernelTable) -> &mut SlotSet<{ CAPACITY / 32 }> {
        match table {
            KernelTable::Proxies => &mut self.listed_proxies,
            KernelTable::Routes => &mut self.listed_routes,
        }
    }

    fn pending(&mut self, table: KernelTable) -> &mut Pending<{ CAPACITY / 32 }> {
        match table {
            KernelTable::Proxies => &mut self.proxies,
            KernelTable::Routes => &mut self.routes,
        }
    }

    /// What one of the tables lacks, or has too much.
    fn change_of(&self, slot: usize, table: KernelTable) -> Option<Change> {
        let (address, proxied) = self.addresses.get(slot)?;
        let (wanted, present) = match table {
            KernelTable::Proxies => {
                let answers =
                    self.wants_proxies && matches!(proxied.side, Some(Side::Downstream(_)));
                let upstream = |there: bool| there.then_some(Side::Upstream);
                (upstream(answers), upstream(proxied.proxied))
            }
            KernelTable::Routes => (proxied.side.filter(|_| self.wants_routes), proxied.routed),
        };
        if wanted == present {
            return None;
        }
        // One that is at the wrong place is removed before it is added at the right one.
        Some(Change {
            slot,
            table,
            address,
            side: present.or(wanted)?,
            present: present.is_none(),
        })
    }

    /// Brings what is pending in line with an address whose state changed; ends one that is gone everywhere.
    fn settle(&mut self, slot: usize) {
        for table in [KernelTable::Proxies, KernelTable::Routes] {
            let pending = self.change_of(slot, table).is_some();
            self.pending(table).set(slot, pending);
        }
        if let Some((_, proxied)) = self.addresses.get(slot)
            && proxied.side.is_none()
            && !proxied.proxied
            && proxied.routed.is_none()
        {
            self.addresses.remove(slot);
        }
    }

    fn expect_announcement(&mut self, due: Instant) {
        bring_forward(&mut self.next_announcement, due);
    }
}

impl Proxied {
    const GONE: Proxied = Proxied {
        side: None,
        proxied: false,
        routed: None,
        kept: false,
        announcements: 0,
        announce_at: Instant::ZERO,
    };
}
