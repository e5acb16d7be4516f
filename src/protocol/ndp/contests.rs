//! Claims to an address that somebody else has, or claimed first.
//!
//! Anybody can claim an address: from another link-layer address, from another link, even in its
//! holder's name. So each claim is contested. The router asks for the address where its holder was,
//! by multicast, so that the question reaches the holder whatever a bridge was made to believe. If
//! the holder answers, the claim is void. After silence the router asks on the links where the
//! address was claimed, and whoever answers there has the address.
//!
//! RFC 4861 §7.3.3 allows one solicitation a second, and RFC 4862 §5.4 has a host silent for as
//! long as it detects duplicates. Three questions are enough for a holder that has just begun to.

use core::net::Ipv6Addr;

use super::links::Links;
use super::targets::{Refused, Solicitation};
use crate::link::{MAX_LINKS, Side};
use crate::tables::deadlines::Deadlines;
use crate::tables::pending::SlotSet;
use crate::tables::table::Table;
use crate::time::{Duration, Instant};
use crate::wire::MacAddress;

/// The most addresses that are contested at once.
pub const CAPACITY: usize = 512;
/// The most of them that were claimed from one link first. As many solicitations a second, at most,
/// go to another link because of it.
pub const MAX_OF_LINK: u16 = 32;
/// How often the holder is asked, and then the claimants (`MAX_MULTICAST_SOLICIT` of RFC 4861 §10).
pub const ASKS: u8 = 3;
/// From a multicast solicitation for an address to the next (`RETRANS_TIMER` of RFC 4861 §10).
pub const INTERVAL: Duration = Duration::from_secs(1);
/// From the first question to a unicast one, while a claimant detects duplicates. That takes the
/// claimant a second, so there is time for both answers.
pub const NUDGE_AFTER: Duration = Duration::from_millis(400);

/// An address that was claimed while somebody else had it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contest {
    pub stage: Stage,
    /// The links where the address is still to be asked for in this stage.
    to_ask: Links,
    /// The link of the holder.
    holder: Side,
    /// The holder's link-layer address, if it is to be asked by unicast too.
    nudge: Option<MacAddress>,
    /// The links where the address was claimed.
    claims: Links,
    /// Those where it was claimed after the last question. An answer may be older than these
    /// claims.
    late: Links,
    /// The first of them, which counts for [`MAX_OF_LINK`].
    first: Side,
    /// The holder was asked by unicast since it was asked by multicast last.
    is_nudged: bool,
    /// The first claimant that detects duplicates of the address, which is told of the holder.
    asker: Option<Solicitation>,
    /// When the address was asked for last.
    asked_at: Instant,
}

/// What a contest waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// An answer of the holder, which was or is asked for the `asks`th time, up to [`ASKS`]. At 0
    /// a solicitation that had another cause has less than a second.
    Holder { asks: u8 },
    /// An answer of the holder, which was or is asked by unicast between two questions.
    Nudge,
    /// An answer where the address was claimed. The holder was silent. If nobody answers, claims
    /// that came after the last question start it all anew.
    Claimants { asks: u8 },
    /// The end of the second in which the address must not be asked for again. Its holder has
    /// answered. If it was claimed since, the holder is asked again.
    Settled,
}

/// A claim to an address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim {
    pub(super) address: Ipv6Addr,
    /// Where the address was claimed.
    pub(super) on: Side,
    /// The link of the holder, and the holder's link-layer address if one can be asked by unicast.
    pub(super) holder: (Side, Option<MacAddress>),
    /// The claimant, if it detects duplicates of the address and is to be told of the holder.
    pub(super) asker: Option<Solicitation>,
    /// When the address may be asked for: a second after it was asked for because of anything else.
    pub(super) not_before: Instant,
    /// The holder has answered a question of the last second.
    pub(super) has_answered: bool,
}

/// What [`Contests`] are kept in.
pub struct Storage {
    table: Table<Ipv6Addr, Contest, CAPACITY>,
    due: Deadlines<CAPACITY>,
}

impl Storage {
    pub(crate) const fn new() -> Self {
        Storage {
            table: Table::new(),
            due: Deadlines::new(),
        }
    }
}

/// The contested addresses, at most [`CAPACITY`].
pub struct Contests<'t> {
    table: &'t mut Table<Ipv6Addr, Contest, CAPACITY>,
    /// When each contest goes on.
    due: &'t mut Deadlines<CAPACITY>,
    /// Those with a question to be sent.
    to_ask: SlotSet<{ CAPACITY / 32 }>,
    /// How many were claimed first from each link: the upstream, and the downstreams by their port.
    of_link: [u16; MAX_LINKS],
}

impl<'t> Contests<'t> {
    /// No contests, in a storage whose hashes get a key.
    pub(crate) fn new(storage: &'t mut Storage, hash_key: [u8; 16]) -> Self {
        let Storage { table, due } = storage;
        table.begin(hash_key);
        due.clear();
        Contests {
            table,
            due,
            to_ask: SlotSet::new(),
            of_link: [0; MAX_LINKS],
        }
    }

    pub fn len(&self) -> usize {
        self.table.len()
    }

    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    pub fn get(&self, address: Ipv6Addr) -> Option<&Contest> {
        let (_, contest) = self.table.get(self.table.find(&address)?)?;
        Some(contest)
    }

    /// Is an answer of the holder of an address expected on a link? It is until the contest is
    /// settled: an answer takes the address back.
    pub(super) fn asks_holder(&self, address: Ipv6Addr, on: Side) -> bool {
        let contest = self.get(address);
        contest.is_some_and(|contest| contest.holder == on && contest.stage != Stage::Settled)
    }

    /// Was an address asked for on a link where it was claimed, after its holder was silent?
    pub(super) fn asks_claimants(&self, address: Ipv6Addr, on: Side) -> bool {
        let contest = self.get(address);
        contest.is_some_and(|contest| {
            matches!(contest.stage, Stage::Claimants { .. }) && contest.claims.contains(on)
        })
    }

    /// Notes that somebody else than the holder has answered the question of a contest, and so
    /// claims the address. Returns false if the address is not contested. An answer after that of
    /// the holder claims nothing.
    pub(super) fn note_answer(&mut self, address: Ipv6Addr, on: Side) -> bool {
        let slot = self.table.find(&address);
        let Some((_, contest)) = slot.and_then(|slot| self.table.get_mut(slot)) else {
            return false;
        };
        if contest.stage != Stage::Settled {
            contest.claims.insert(on);
        }
        true
    }

    /// Notes a claim. `admit` is asked whether the claimant may start one more contest. A holder
    /// that has just answered is asked again all the same, a second after it was asked last, and by
    /// unicast at once if the claimant detects duplicates: the holder may be gone since, or have
    /// moved. Returns until when the holder is asked, if it does not answer.
    pub(super) fn claim(
        &mut self,
        now: Instant,
        claim: Claim,
        admit: impl FnOnce() -> bool,
    ) -> Result<Instant, Refused> {
        let Claim {
            address,
            on,
            holder: (holder, mac),
            asker,
            not_before,
            has_answered,
        } = claim;
        if let Some(slot) = self.table.find(&address)
            && let Some((_, contest)) = self.table.get_mut(slot)
        {
            contest.claims.insert(on);
            contest.late.insert(on);
            if contest.asker.is_none() {
                contest.asker = asker;
            }
            let wants_nudge = contest.asker.is_some() && mac.is_some();
            if contest.stage == Stage::Settled && wants_nudge && !contest.is_nudged {
                contest.nudge = mac;
                contest.begin_nudge();
                self.to_ask.insert(slot);
            }
            return Ok(self.asked_until(slot));
        }
        let count = self.of_link.get_mut(on.place()).ok_or(Refused)?;
        if *count >= MAX_OF_LINK || !admit() {
            return Err(Refused);
        }
        let mut contest = Contest {
            stage: Stage::Holder { asks: 0 },
            to_ask: Links::NONE,
            holder,
            nudge: mac.filter(|_| asker.is_some()),
            claims: Links::only(on),
            late: Links::NONE,
            first: on,
            is_nudged: false,
            asker,
            asked_at: now,
        };
        if has_answered {
            contest.stage = Stage::Settled;
            if asker.is_some() && contest.nudge.is_some() {
                contest.begin_nudge();
            }
        }
        let has_question = contest.to_ask != Links::NONE;
        let slot = self.table.insert(address, contest).map_err(|_| Refused)?;
        *count = count.saturating_add(1);
        self.to_ask.set(slot, has_question);
        self.due.set(slot, not_before);
        self.handle_timeout(now, |_| {});
        Ok(self.asked_until(slot))
    }

    fn asked_until(&self, slot: usize) -> Instant {
        let all = INTERVAL.saturating_mul(ASKS.into());
        let due = self.due.get(slot);
        due.map_or(Instant::ZERO, |due| due.saturating_add(all))
    }

    /// Ends the contest of an address, which somebody on a link has answered for. Returns the
    /// claimant that is to be told of it.
    pub(super) fn settle(&mut self, address: Ipv6Addr, on: Side) -> Option<Solicitation> {
        let slot = self.table.find(&address)?;
        let (_, contest) = self.table.get_mut(slot)?;
        let asker = contest.asker.take().filter(|asker| asker.side != on);
        contest.stage = Stage::Settled;
        contest.claims = contest.late;
        contest.holder = on;
        contest.to_ask = Links::NONE;
        let until = contest.asked_at.saturating_add(INTERVAL);
        self.to_ask.remove(slot);
        self.due.set(slot, until);
        asker
    }

    /// Forgets those that `keep` does not hold for. Touches every contest.
    pub(super) fn retain(&mut self, keep: impl Fn(Ipv6Addr) -> bool) {
        for slot in self.table.slots() {
            if let Some((address, _)) = self.table.get(slot)
                && !keep(address)
            {
                self.remove_at(slot);
            }
        }
    }

    /// The next address to ask for, where, and the holder's link-layer address if by unicast. The
    /// same again until [`Self::asked`] is told of it.
    pub(super) fn poll_question(&self) -> Option<(Ipv6Addr, Side, Option<MacAddress>)> {
        let (address, contest) = self.table.get(self.to_ask.first()?)?;
        let side = contest.to_ask.first()?;
        Some((address, side, contest.unicast()))
    }

    /// A question was sent, or lost, which is no different. Was it one of a contest?
    pub(super) fn asked(&mut self, now: Instant, address: Ipv6Addr, side: Side) -> bool {
        let Some(slot) = self.table.find(&address) else {
            return false;
        };
        let Some((_, contest)) = self.table.get_mut(slot) else {
            return false;
        };
        if !contest.to_ask.contains(side) {
            return false;
        }
        contest.to_ask.remove(side);
        contest.late = Links::NONE;
        if contest.unicast().is_none() {
            contest.asked_at = now;
        }
        if contest.to_ask == Links::NONE {
            self.to_ask.remove(slot);
        }
        true
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.due.first().map(|(_, due)| due)
    }

    /// Has the contests go on whose answers did not come in time. Passes each address whose holder
    /// has turned out to be silent to `silent`.
    pub(super) fn handle_timeout(&mut self, now: Instant, mut silent: impl FnMut(Ipv6Addr)) {
        while let Some(slot) = self.due.first_due(now) {
            let due = self.table.get_mut(slot).and_then(|(address, contest)| {
                let due = contest.advance(now);
                if contest.stage == (Stage::Claimants { asks: 1 }) {
                    silent(address);
                }
                due
            });
            match due {
                Some(due) => {
                    self.to_ask.insert(slot);
                    self.due.set(slot, due);
                }
                None => self.remove_at(slot),
            }
        }
    }

    fn remove_at(&mut self, slot: usize) {
        if let Some((_, contest)) = self.table.remove(slot)
            && let Some(count) = self.of_link.get_mut(contest.first.place())
        {
            *count = count.saturating_sub(1);
        }
        self.to_ask.remove(slot);
        self.due.remove(slot);
    }
}

impl Contest {
    /// The link-layer address of the holder, if the question of this stage goes there by unicast.
    fn unicast(&self) -> Option<MacAddress> {
        self.nudge.filter(|_| self.stage == Stage::Nudge)
    }

    /// Has the holder asked by unicast.
    fn begin_nudge(&mut self) {
        self.stage = Stage::Nudge;
        self.is_nudged = true;
        self.to_ask = Links::only(self.holder);
    }

    /// Goes on to the next question. Returns when its answer is due; `None` where there is none.
    fn advance(&mut self, now: Instant) -> Option<Instant> {
        let (stage, links, time) = match self.stage {
            Stage::Holder { asks: 0 } if self.nudge.is_some() => {
                let first = Stage::Holder { asks: 1 };
                (first, Links::only(self.holder), NUDGE_AFTER)
            }
            Stage::Holder { asks: 1 } if self.nudge.is_some() => {
                let rest = INTERVAL.saturating_sub(NUDGE_AFTER);
                (Stage::Nudge, Links::only(self.holder), rest)
            }
            Stage::Nudge => {
                let again = Stage::Holder { asks: 2 };
                (again, Links::only(self.holder), INTERVAL)
            }
            Stage::Holder { asks } if asks < ASKS => {
                let asks = asks.saturating_add(1);
                (Stage::Holder { asks }, Links::only(self.holder), INTERVAL)
            }
            Stage::Holder { .. } => (Stage::Claimants { asks: 1 }, self.claims, INTERVAL),
            Stage::Claimants { asks } if asks < ASKS => {
                let asks = asks.saturating_add(1);
                (Stage::Claimants { asks }, self.claims, INTERVAL)
            }
            Stage::Claimants { .. } if self.late != Links::NONE => {
                self.claims = self.late;
                let first = Stage::Holder { asks: 1 };
                (first, Links::only(self.holder), INTERVAL)
            }
            Stage::Settled if self.claims != Links::NONE => {
                let first = Stage::Holder { asks: 1 };
                (first, Links::only(self.holder), INTERVAL)
            }
            Stage::Claimants { .. } | Stage::Settled => return None,
        };
        self.is_nudged = stage == Stage::Nudge;
        (self.stage, self.to_ask) = (stage, links);
        Some(now.saturating_add(time))
    }
}
