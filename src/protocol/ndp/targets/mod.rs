//! The targets that hosts look for and that no host downstream is known to have.
//!
//! A host downstream that solicits such a target makes the router ask for it on the other links,
//! once and within limits. Where the target turns out to be there, the router answers the host
//! (RFC 4389 §4.1.3). Upstream the kernel answers.
//!
//! Downstream the router answers by itself, and not by the kernel's proxy entries. The kernel would
//! also answer a host that detects duplicates of an address that it brings along from the other
//! link, and so take the address away from the host. RFC 6957 §4.2.2 compares link-layer addresses
//! for that reason, which the kernel does not.

mod open;
mod target;

use core::net::Ipv6Addr;

use crate::config::Config;
use crate::link::{MAX_DOWNSTREAMS, MAX_LINKS, Port, Side};
use crate::ndp::links::Links;
use crate::ndp::neighbors::Sender;
use crate::tables::deadlines::Deadlines;
use crate::tables::pending::SlotSet;
use crate::tables::rate::Bucket;
use crate::tables::table::Table;
use crate::time::{Duration, Instant};
use crate::wire::MacAddress;

pub use target::{Absent, Asked, Ended, Opener, Present, Refused, Solicitation, Target};

use open::Open;

/// The most targets kept. What [`RATE`] and [`BURST`] allow one link in [`ABSENT_INTERVAL`] fits.
/// In a full table, targets that did not answer give way.
pub const CAPACITY: usize = 2048;
/// The most targets of one link that are open at once, which is asked for and not yet answered.
pub const MAX_OPEN: usize = 256;
/// The most open targets of one host.
pub const MAX_OPEN_OF_HOST: usize = 16;
/// New targets a second, and at once: each costs a solicitation on every other link. Each link has
/// an equal share, which the others cannot use up.
pub const RATE: u32 = 50;
pub const BURST: u32 = 200;
/// The time that a target has to answer (`RETRANS_TIMER` of RFC 4861 §10).
pub const ANSWER_INTERVAL: Duration = Duration::from_secs(1);
/// The time for which a target that did not answer is not asked for again.
pub const ABSENT_INTERVAL: Duration = Duration::from_secs(30);
/// The age of its last answer at which a target that a host looks for is asked again
/// (`REACHABLE_TIME` of RFC 4861 §10).
pub const REACHABLE_INTERVAL: Duration = Duration::from_secs(30);
/// How often a target that was there is asked (`MAX_MULTICAST_SOLICIT` of RFC 4861 §10).
pub const ASKS: u8 = 3;
/// The most answers that wait to be sent.
pub const MAX_ANSWERS: usize = 64;
/// The most answers that one packet makes due: one to the host that resolves the address, and one
/// on each downstream to those that detect duplicates.
const ANSWERS_OF_ONE: usize = 1 + MAX_DOWNSTREAMS;

/// What [`Targets`] are kept in.
pub struct Storage {
    table: Table<Ipv6Addr, Target, CAPACITY>,
    due: Deadlines<CAPACITY>,
    open: open::Storage,
    to_ask: SlotSet<{ CAPACITY / 32 }>,
    answers: heapless::Deque<Solicitation, MAX_ANSWERS>,
}

impl Storage {
    pub(crate) const fn new() -> Self {
        Storage {
            table: Table::new(),
            due: Deadlines::new(),
            open: Table::new(),
            to_ask: SlotSet::new(),
            answers: heapless::Deque::new(),
        }
    }
}

/// The targets, and the answers to be sent.
pub struct Targets<'t> {
    table: &'t mut Table<Ipv6Addr, Target, CAPACITY>,
    /// When the time of each target ends.
    due: &'t mut Deadlines<CAPACITY>,
    open: Open<'t>,
    /// Those with a question to be sent.
    to_ask: &'t mut SlotSet<{ CAPACITY / 32 }>,
    /// Those that did not answer.
    absent: SlotSet<{ CAPACITY / 32 }>,
    /// Limits the new targets of each link.
    newcomers: [Bucket; MAX_LINKS],
    answers: &'t mut heapless::Deque<Solicitation, MAX_ANSWERS>,
}

impl<'t> Targets<'t> {
    /// No targets, in a storage whose hashes get a key.
    pub(crate) fn new(storage: &'t mut Storage, hash_key: [u8; 16]) -> Self {
        let Storage {
            table,
            due,
            open,
            to_ask,
            answers,
        } = storage;
        table.begin(hash_key);
        due.clear();
        to_ask.clear();
        if !answers.is_empty() {
            answers.clear();
        }
        Targets {
            table,
            due,
            open: Open::new(open, hash_key),
            to_ask,
            absent: SlotSet::new(),
            newcomers: [const { Bucket::new() }; MAX_LINKS],
            answers,
        }
    }

    pub fn get(&self, target: Ipv6Addr) -> Option<&Target> {
        let (_, target) = self.table.get(self.table.find(&target)?)?;
        Some(target)
    }

    /// Is a target asked for upstream?
    pub(crate) fn is_asked_upstream(&self, target: Ipv6Addr) -> bool {
        self.get(target).is_some_and(Target::is_asked_upstream)
    }

    pub(crate) fn is_present(&self, target: Ipv6Addr) -> bool {
        self.get(target).is_some_and(Target::is_present)
    }

    pub fn len(&self) -> usize {
        self.table.len()
    }

    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// The targets that are there, upstream, from a slot on, each with its own.
    pub fn present_from(&self, first: usize) -> impl Iterator<Item = (usize, Ipv6Addr, &Present)> {
        let targets = self.table.iter_from(first);
        targets.filter_map(|(slot, address, target)| match target {
            Target::Present(present) => Some((slot, address, present)),
            Target::Asked(_) | Target::Absent(_) => None,
        })
    }

    /// The host downstream that detects duplicates of an address, so that it is not that host's
    /// yet.
    pub fn detecting(&self, address: Ipv6Addr) -> Option<Opener> {
        let target = self.get(address)?;
        target.opened_by().filter(|_| target.is_detecting())
    }

    /// Does this host detect duplicates of an address?
    pub fn is_detecting(&self, address: Ipv6Addr, host: Sender) -> bool {
        self.detecting(address) == Some(host.into())
    }

    /// The link-layer address of a target that is there.
    pub(crate) fn present_mac(&self, address: Ipv6Addr) -> Option<MacAddress> {
        match self.get(address)? {
            Target::Present(present) => Some(present.mac),
            Target::Asked(_) | Target::Absent(_) => None,
        }
    }

    /// When a target may be solicited because of something else than a host that looks for it.
    pub(crate) fn solicit_at(&self, now: Instant, address: Ipv6Addr) -> Instant {
        let slot = self.table.find(&address);
        let target = slot.and_then(|slot| Some((self.table.get(slot)?, self.due.get(slot)?)));
        match target {
            Some(((_, Target::Asked(_)), due)) => due.max(now),
            Some(((_, Target::Present(present)), due)) if present.is_asked() => due.max(now),
            Some(((_, Target::Present(_) | Target::Absent(_)), _)) | None => now,
        }
    }

    /// A host upstream has an address that a host downstream had. It becomes a target that is
    /// there. Returns false if there is no room for it.
    pub(crate) fn take_in(
        &mut self,
        now: Instant,
        config: &Config,
        address: Ipv6Addr,
        mac: MacAddress,
    ) -> bool {
        let slot = match self.table.find(&address) {
            Some(slot) => Some(slot),
            None => self.insert(address),
        };
        if let Some(slot) = slot {
            let present = Target::Present(Present::new(now, mac));
            self.change(slot, present, now.saturating_add(config.address_timeout));
        }
        slot.is_some()
    }

    /// A host looks for a target that no host downstream is known to have.
    pub(crate) fn solicited(
        &mut self,
        now: Instant,
        config: &Config,
        solicitation: Solicitation,
    ) -> Result<(), Refused> {
        let Some(slot) = self.table.find(&solicitation.target) else {
            return self.ask_for_new(now, config, solicitation);
        };
        let Some((_, target)) = self.table.get_mut(slot) else {
            return Ok(());
        };
        if let Some(link) = target.unasked()
            && link != solicitation.side
        {
            return self.ask_there_too(now, config, slot, link, solicitation);
        }
        match target {
            Target::Asked(asked) => {
                let mut asked = *asked;
                asked.remember(solicitation);
                self.replace(slot, Target::Asked(asked));
            }
            Target::Absent(_) => {}
            Target::Present(present) => {
                let present = *present;
                self.solicited_present(now, slot, present, solicitation);
            }
        }
        Ok(())
    }

    /// A host looks for a target that is there, upstream. One that detects duplicates of it claims
    /// it, which is contested.
    fn solicited_present(
        &mut self,
        now: Instant,
        slot: usize,
        present: Present,
        solicitation: Solicitation,
    ) {
        if solicitation.side == Side::Upstream {
            // There it answers by itself.
        } else if !solicitation.source.is_unspecified() {
            self.answer(solicitation);
            self.renew(now, slot, &present, REACHABLE_INTERVAL);
        }
    }

    /// Answers a host.
    pub(crate) fn answer(&mut self, solicitation: Solicitation) {
        let _ = self.answers.push_back(solicitation);
    }

    /// A target answered on the upstream. Is it new that it is there?
    pub(crate) fn answered_upstream(
        &mut self,
        now: Instant,
        config: &Config,
        address: Ipv6Addr,
        mac: MacAddress,
    ) -> bool {
        let Some(slot) = self.table.find(&address) else {
            return false;
        };
        let Some((_, before)) = self.table.get(slot) else {
            return false;
        };
        let before = *before;
        // Where it was not asked for, nobody answers, but somebody may claim it.
        if before.unasked() == Some(Side::Upstream) {
            return false;
        }
        let present = Target::Present(Present::new(now, mac));
        self.change(slot, present, now.saturating_add(config.address_timeout));
        self.answer_waiting(address, &before, mac, Side::Upstream);
        !before.is_present()
    }

    /// A host downstream turns out to have the target, which is a target no longer. The host that
    /// detects duplicates of the target does not have it yet: until the time for that is over,
    /// another host may answer.
    pub(crate) fn answered_downstream(&mut self, address: Ipv6Addr, host: Sender) {
        if !self.is_present(address)
            && !self.is_detecting(address, host)
            && let Some(target) = self.remove(address)
        {
            let side = Side::Downstream(host.port);
            self.answer_waiting(address, &target, host.mac, side);
        }
    }

    /// Forgets a target.
    pub(crate) fn remove(&mut self, address: Ipv6Addr) -> Option<Target> {
        let slot = self.table.find(&address)?;
        self.remove_at(slot)
    }

    /// Forgets those that `keep` does not hold for; hands each that was present to `gone`. Touches
    /// every target, since what is to be learned has changed.
    pub(crate) fn retain(
        &mut self,
        keep: impl Fn(Ipv6Addr) -> bool,
        mut gone: impl FnMut(Ipv6Addr),
    ) {
        for slot in self.table.slots() {
            if let Some((address, target)) = self.table.get(slot)
                && !keep(address)
            {
                if target.is_present() {
                    gone(address);
                }
                self.remove_at(slot);
            }
        }
    }

    /// Might there be more answers after the next packet than can wait?
    pub(crate) fn has_to_answer(&self) -> bool {
        self.answers.len().saturating_add(ANSWERS_OF_ONE) > MAX_ANSWERS
    }

    /// The next answer to be sent, the same one again until [`Self::sent`] is told.
    pub(crate) fn poll_answer(&self) -> Option<Solicitation> {
        self.answers.front().copied()
    }

    pub(crate) fn sent(&mut self) {
        self.answers.pop_front();
    }

    /// The next target to ask for and where, the same again until [`Self::asked`] is told of it.
    pub(crate) fn poll_question(&self) -> Option<(Ipv6Addr, Side)> {
        let (address, target) = self.table.get(self.to_ask.first()?)?;
        Some((address, target.question()?))
    }

    /// A question was sent, or lost, which is no different.
    pub(crate) fn asked(&mut self, address: Ipv6Addr, side: Side) {
        if let Some(slot) = self.table.find(&address)
            && let Some((_, target)) = self.table.get_mut(slot)
        {
            target.asked_on(side);
            self.note_question(slot);
        }
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.due.first().map(|(_, due)| due)
    }

    /// Ends what is known of the targets whose time is over. Hands each that did not answer, or is
    /// present no more, to `ended`.
    pub(crate) fn handle_timeout(&mut self, now: Instant, mut ended: impl FnMut(Ipv6Addr, Ended)) {
        while let Some(slot) = self.due.first_due(now) {
            let Some((address, target)) = self.table.get(slot) else {
                self.due.remove(slot);
                continue;
            };
            let absent_until = now.saturating_add(ABSENT_INTERVAL);
            match *target {
                Target::Asked(asked) => {
                    self.change(slot, asked.unanswered(), absent_until);
                    ended(address, Ended::Unanswered);
                }
                Target::Present(present) if !present.is_asked() => {
                    self.remove_at(slot);
                    ended(address, Ended::Gone);
                }
                Target::Present(present) => {
                    if let Some(again) = present.ask_again() {
                        self.change(slot, again, now.saturating_add(ANSWER_INTERVAL));
                    } else {
                        self.change(slot, Target::NEW, absent_until);
                        ended(address, Ended::Gone);
                    }
                }
                Target::Absent(_) => {
                    self.remove_at(slot);
                }
            }
        }
    }

    /// Asks for a target on all links but the one where a host looks for it.
    fn ask_for_new(
        &mut self,
        now: Instant,
        config: &Config,
        solicitation: Solicitation,
    ) -> Result<(), Refused> {
        let slot = self.admit(now, config, &solicitation)?;
        let to_ask = Links::all_but(solicitation.side, config.downstreams.len());
        let asked = Asked::new(to_ask, Some(solicitation.side), solicitation);
        self.change(
            slot,
            Target::Asked(asked),
            now.saturating_add(ANSWER_INTERVAL),
        );
        Ok(())
    }

    /// A host on another link looks for a target that was asked for on all links but one: the
    /// router asks for it on that one too.
    fn ask_there_too(
        &mut self,
        now: Instant,
        config: &Config,
        slot: usize,
        link: Side,
        solicitation: Solicitation,
    ) -> Result<(), Refused> {
        self.take_token(now, config, solicitation.into())?;
        let (_, target) = self.table.get(slot).ok_or(Refused)?;
        let asked = Target::Asked(target.asked_there_too(link, solicitation));
        self.change(slot, asked, now.saturating_add(ANSWER_INTERVAL));
        Ok(())
    }

    /// A slot for a new target of a host.
    fn admit(
        &mut self,
        now: Instant,
        config: &Config,
        solicitation: &Solicitation,
    ) -> Result<usize, Refused> {
        self.take_token(now, config, (*solicitation).into())?;
        self.insert(solicitation.target).ok_or(Refused)
    }

    /// A slot for a new target; in a full table that of one that did not answer.
    fn insert(&mut self, address: Ipv6Addr) -> Option<usize> {
        if self.table.len() >= CAPACITY
            && let Some(slot) = self.absent.first()
        {
            self.remove_at(slot);
        }
        self.table.insert(address, Target::NEW).ok()
    }

    /// May a host have one more target asked for?
    fn take_token(&mut self, now: Instant, config: &Config, host: Opener) -> Result<(), Refused> {
        let links = u32::try_from(config.downstreams.len()).unwrap_or(u32::MAX);
        let share = |all: u32| all.div_ceil(links.saturating_add(1));
        let bucket = self.newcomers.get_mut(host.side.place()).ok_or(Refused)?;
        let is_free = self.open.has_room_for(host) && bucket.take(now, share(RATE), share(BURST));
        is_free.then_some(()).ok_or(Refused)
    }

    /// Asks a target that is present whether it still is, unless it is asked already or its last
    /// answer is younger than `age`.
    fn renew(&mut self, now: Instant, slot: usize, present: &Present, age: Duration) {
        if !present.is_asked()
            && now.since(present.last_seen) >= age
            && let Some(asked) = present.ask_again()
        {
            self.change(slot, asked, now.saturating_add(ANSWER_INTERVAL));
        }
    }

    /// Answers the hosts that waited for a target that `mac` has, on the link `on`. That link's own
    /// hosts hear the target itself, and the host that has the target is no duplicate of itself.
    fn answer_waiting(&mut self, address: Ipv6Addr, target: &Target, mac: MacAddress, on: Side) {
        if let Some(asker) = target.asker()
            && asker.side != on
        {
            self.answer(asker);
        }
        let (duplicates, host) = target.duplicates();
        for side in (0..MAX_DOWNSTREAMS as Port).map(Side::Downstream) {
            if duplicates.contains(side) && side != on && host != mac {
                self.answer(Solicitation {
                    side,
                    mac: host,
                    source: Ipv6Addr::UNSPECIFIED,
                    target: address,
                });
            }
        }
    }

    /// What is known of a target is this now, until then.
    fn change(&mut self, slot: usize, target: Target, until: Instant) {
        self.replace(slot, target);
        self.due.set(slot, until);
    }

    /// What is known of a target is this now, for as long as before.
    fn replace(&mut self, slot: usize, target: Target) {
        if let Some((_, known)) = self.table.get_mut(slot) {
            let before = core::mem::replace(known, target);
            self.open.change(before.opened_by(), target.opened_by());
            let is_absent = matches!(target, Target::Absent(_));
            self.absent.set(slot, is_absent);
            self.note_question(slot);
        }
    }

    fn remove_at(&mut self, slot: usize) -> Option<Target> {
        let (_, target) = self.table.remove(slot)?;
        self.open.change(target.opened_by(), None);
        self.due.remove(slot);
        self.to_ask.remove(slot);
        self.absent.remove(slot);
        Some(target)
    }

    fn note_question(&mut self, slot: usize) {
        let target = self.table.get(slot);
        let is_to_ask = target.is_some_and(|(_, target)| target.question().is_some());
        self.to_ask.set(slot, is_to_ask);
    }
}
