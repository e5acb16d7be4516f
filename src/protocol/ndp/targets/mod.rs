//! Targets that somebody looks for and that no host downstream is known to have: they are asked for on the other links, once and within
//! limits, and a host downstream that looks for one that is there is answered (RFC 4389 §4.1.3). Upstream the kernel answers.
//!
//! Not by proxy entries of the kernel, as upstream: those would also answer a host's duplicate address detection for an address that
//! it brings along from the other link, and so take it away from the host (RFC 6957 §4.2.2 compares link-layer addresses for that
//! reason, which the kernel does not).

mod links;

use core::net::Ipv6Addr;

use crate::config::Config;
use crate::link::{MAX_DOWNSTREAMS, Port, Side};
use crate::tables::pending::SlotSet;
use crate::tables::rate::Bucket;
use crate::tables::table::Table;
use crate::time::{Duration, Instant, bring_forward};
use crate::wire::MacAddress;

use links::Links;

/// The most targets kept. What [`RATE`] and [`BURST`] allow in [`ABSENT_INTERVAL`] fits.
pub const CAPACITY: usize = 2048;
/// The most targets asked for and not yet answered, and those of one host.
pub const MAX_OPEN: usize = 256;
pub const MAX_OPEN_OF_HOST: usize = 16;
/// New targets a second, and at once: each costs a solicitation on every other link.
pub const RATE: u32 = 50;
pub const BURST: u32 = 200;
/// Within which a target is to answer (`RETRANS_TIMER` of RFC 4861 §10).
pub const ANSWER_INTERVAL: Duration = Duration::from_secs(1);
/// For how long one that did not answer is not asked for again.
pub const ABSENT_INTERVAL: Duration = Duration::from_secs(30);
/// How long after its last answer one that is still looked for is asked again (`REACHABLE_TIME` of RFC 4861 §10).
pub const REACHABLE_INTERVAL: Duration = Duration::from_secs(30);
/// From the first question to the second, where a host detects duplicates, for which it takes a second (RFC 4862 §5.4, with
/// `RETRANS_TIMER` of RFC 4861 §10): there is time for both answers.
pub const VERIFICATION_INTERVAL: Duration = Duration::from_millis(400);
const VERIFICATIONS: u8 = 2;
/// How often one that was there is asked (`MAX_MULTICAST_SOLICIT` of RFC 4861 §10).
pub const ASKS: u8 = 3;
/// The most answers that wait to be sent.
pub const MAX_ANSWERS: usize = 64;
/// The most answers that one packet makes due: to the host that asked, and to those that detect duplicates on each downstream.
const ANSWERS_OF_ONE: usize = 1 + MAX_DOWNSTREAMS;

/// A solicitation that was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Solicitation {
    /// Where it was heard.
    pub side: Side,
    /// Of the host that asks.
    pub mac: MacAddress,
    /// `::` where the host detects duplicates of the target, which it wants to take (RFC 4862 §5.4.2).
    pub source: Ipv6Addr,
    pub target: Ipv6Addr,
}

/// What is known of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It was asked for, or is about to be.
    Asked,
    /// It did not answer.
    Absent,
    /// It is there, upstream.
    Present,
}

/// A target that a host looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    pub state: State,
    /// Of one that is present.
    pub mac: MacAddress,
    /// When it answered last.
    pub last_seen: Instant,
    /// When the state ends.
    until: Instant,
    /// Questions since it answered last.
    asks: u8,
    /// Where it is still to be asked for.
    to_ask: Links,
    /// The one link where it was not asked for: who looked for it first is there, and would have been answered by it.
    unasked: Option<Side>,
    /// Who asked first, and is still to be answered.
    asker: Option<Solicitation>,
    /// The downstreams where hosts detect duplicates of it.
    duplicates: Links,
    /// Who made it a target.
    host: MacAddress,
    /// Where its owner is, which is to show that it is still there.
    verifies: Option<Side>,
    /// The last host downstream that claimed one that is present.
    claimant: Option<(Port, MacAddress)>,
}

/// A target that did not answer, or is present no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Nobody has it.
    Unanswered,
    /// The host downstream that has it did not answer in time.
    Unverified,
    /// It was upstream; which host downstream has claimed it since.
    Gone(Option<(Port, MacAddress)>),
}

/// Why a target is not asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;

/// What [`Targets`] are kept in.
pub type Storage = Table<Ipv6Addr, Target, CAPACITY>;

/// The targets, and the answers to be sent.
pub struct Targets<'t> {
    table: &'t mut Storage,
    newcomers: Bucket,
    /// Those that are [`State::Asked`].
    asked: SlotSet<{ CAPACITY / 32 }>,
    /// There may be questions to be sent.
    is_asking: bool,
    answers: heapless::Deque<Solicitation, MAX_ANSWERS>,
    /// No state ends before; none where none will.
    next_check: Option<Instant>,
}

impl<'t> Targets<'t> {
    /// No targets, in a storage whose hash gets a key.
    pub(crate) fn new(table: &'t mut Storage, hash_key: [u8; 16]) -> Self {
        table.begin(hash_key);
        Targets {
            table,
            newcomers: Bucket::new(),
            asked: SlotSet::new(),
            is_asking: false,
            answers: heapless::Deque::new(),
            next_check: None,
        }
    }

    pub fn get(&self, target: Ipv6Addr) -> Option<&Target> {
        let (_, state) = self.table.get(self.table.find(&target)?)?;
        Some(state)
    }

    pub(crate) fn is_present(&self, target: Ipv6Addr) -> bool {
        self.get(target)
            .is_some_and(|target| target.state == State::Present)
    }

    pub fn len(&self) -> usize {
        self.table.len()
    }

    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Those that are there, upstream, from a slot on, each with its own.
    pub fn present_from(&self, first: usize) -> impl Iterator<Item = (usize, Ipv6Addr, &Target)> {
        let targets = self.table.iter_from(first);
        targets.filter(|(_, _, target)| target.state == State::Present)
    }

    /// Does a host downstream detect duplicates of an address, so that it is not that host's yet?
    pub fn is_detecting(&self, address: Ipv6Addr) -> bool {
        self.get(address).is_some_and(Target::is_detecting)
    }

    /// Is an address that a host downstream claims another one's, upstream? That one is asked whether it is still there. If it is not,
    /// the host has the address.
    pub(crate) fn defends(
        &mut self,
        now: Instant,
        address: Ipv6Addr,
        (port, mac): (Port, MacAddress),
    ) -> bool {
        let Some(slot) = self.table.find(&address) else {
            return false;
        };
        let Some((_, target)) = self.table.get_mut(slot) else {
            return false;
        };
        if target.state != State::Present || target.mac == mac {
            return false;
        }
        target.claimant = Some((port, mac));
        self.renew(now, slot, ANSWER_INTERVAL);
        true
    }

    /// A host detects duplicates of an address that another one has, on another link. It is told so where that one answers now, since
    /// it may be gone, or be the host itself by another interface (RFC 6957 §4.2.2).
    pub(crate) fn verify(
        &mut self,
        now: Instant,
        solicitation: Solicitation,
        owner: Side,
    ) -> Result<(), Refused> {
        let slot = match self.table.find(&solicitation.target) {
            Some(slot) => slot,
            None => {
                self.admit(now, solicitation.mac)?;
                let inserted = self.table.insert(solicitation.target, Target::VACANT);
                inserted.map_err(|_| Refused)?
            }
        };
        let Some((_, target)) = self.table.get_mut(slot) else {
            return Err(Refused);
        };
        if target.state == State::Asked && target.asks > 0 {
            // It is asked for already, and so will its owner's answer be for this host too.
            target.asker.get_or_insert(solicitation);
            return Ok(());
        }
        *target = Target {
            unasked: Some(solicitation.side),
            asker: Some(solicitation),
            verifies: Some(owner),
            host: solicitation.mac,
            ..Target::VACANT
        };
        target.ask_again(now, owner, VERIFICATION_INTERVAL);
        let until = target.until;
        self.asked.insert(slot);
        self.expect_answer(until);
        Ok(())
    }

    /// A host looks for a target that no downstream is known to have. It is asked for on all other links, or answered for.
    pub(crate) fn solicited(
        &mut self,
        now: Instant,
        config: &Config,
        solicitation: Solicitation,
    ) -> Result<(), Refused> {
        let Some(slot) = self.table.find(&solicitation.target) else {
            return self.open(now, config, solicitation);
        };
        let Some((_, state)) = self.table.get_mut(slot) else {
            return Ok(());
        };
        match state.state {
            State::Asked | State::Absent if state.is_to_ask_beyond(solicitation.side) => {
                return self.ask_where_it_was_not(now, slot, solicitation);
            }
            State::Asked => state.remember(solicitation),
            State::Absent => {}
            State::Present if solicitation.side == Side::Upstream => {}
            // A host that brings its address along from the upstream's link is known by its link-layer address.
            State::Present
                if solicitation.source.is_unspecified() && state.mac == solicitation.mac => {}
            // Any other one may have it by now, where it does not answer any more.
            State::Present if solicitation.source.is_unspecified() => {
                state.asker = Some(solicitation);
                if state.asks == 0 {
                    state.ask_again(now, Side::Upstream, VERIFICATION_INTERVAL);
                    let until = state.until;
                    self.expect_answer(until);
                }
            }
            State::Present => {
                self.answer(solicitation);
                self.renew(now, slot, REACHABLE_INTERVAL);
            }
        }
        Ok(())
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
        // Where it was not asked for, nobody answers, but somebody may claim it.
        let Some((_, target)) = self
            .table
            .get_mut(slot)
            .filter(|(_, target)| target.unasked != Some(Side::Upstream))
        else {
            return false;
        };
        let before = *target;
        *target = Target {
            state: State::Present,
            mac,
            last_seen: now,
            until: now.saturating_add(config.address_timeout),
            ..Target::VACANT
        };
        self.asked.remove(slot);
        self.expect_check(now.saturating_add(config.address_timeout));
        self.answer_waiting(address, &before, mac, Side::Upstream);
        before.state != State::Present
    }

    /// A host downstream turns out to have the target, which is one no longer. Not so the host that detects duplicates of it: until
    /// the time for that is over, another one may answer.
    pub(crate) fn answered_downstream(&mut self, address: Ipv6Addr, port: Port, mac: MacAddress) {
        let is_detecting = |target: &Target| target.is_detecting() && target.host == mac;
        if !self.is_present(address)
            && !self.get(address).is_some_and(is_detecting)
            && let Some(target) = self.remove(address)
        {
            self.answer_waiting(address, &target, mac, Side::Downstream(port));
        }
    }

    /// Forgets a target.
    pub(crate) fn remove(&mut self, address: Ipv6Addr) -> Option<Target> {
        let slot = self.table.find(&address)?;
        self.asked.remove(slot);
        let (_, target) = self.table.remove(slot)?;
        Some(target)
    }

    /// Forgets those that `keep` does not hold for; hands each that was present to `gone`.
    pub(crate) fn retain(
        &mut self,
        keep: impl Fn(Ipv6Addr) -> bool,
        mut gone: impl FnMut(Ipv6Addr),
    ) {
        for slot in self.table.slots() {
            if let Some((address, target)) = self.table.get(slot)
                && !keep(address)
            {
                if target.state == State::Present {
                    gone(address);
                }
                self.remove(address);
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
    pub(crate) fn poll_question(&mut self) -> Option<(Ipv6Addr, Side)> {
        if !self.is_asking {
            return None;
        }
        for (_, address, target) in self.table.iter_from(0) {
            if let Some(side) = target.to_ask.first() {
                return Some((address, side));
            }
        }
        self.is_asking = false;
        None
    }

    /// A question was sent, or lost, which is no different.
    pub(crate) fn asked(&mut self, address: Ipv6Addr, side: Side) {
        let slot = self.table.find(&address);
        if let Some((_, target)) = slot.and_then(|slot| self.table.get_mut(slot)) {
            target.to_ask.remove(side);
        }
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.next_check
    }

    /// Ends the states whose time is over; hands each target that did not answer, or is present no more, to `ended`.
    pub(crate) fn handle_timeout(&mut self, now: Instant, mut ended: impl FnMut(Ipv6Addr, Ended)) {
        if self.next_check.is_none_or(|due| now < due) {
            return;
        }
        self.next_check = None;
        for slot in self.table.slots() {
            let Some((address, target)) = self.table.get_mut(slot) else {
                continue;
            };
            if target.until > now {
                let until = target.until;
                self.expect_check(until);
                continue;
            }
            let how = match target.state {
                State::Present => Ended::Gone(target.claimant),
                State::Asked | State::Absent if target.verifies.is_some() => Ended::Unverified,
                State::Asked | State::Absent => Ended::Unanswered,
            };
            match (target.state, target.verifies) {
                (State::Present, _) if target.asks > 0 && target.asks < ASKS => {
                    target.ask_again(now, Side::Upstream, ANSWER_INTERVAL);
                    let until = target.until;
                    self.expect_answer(until);
                }
                (State::Asked, Some(owner)) if target.asks < VERIFICATIONS => {
                    target.ask_again(now, owner, VERIFICATION_INTERVAL);
                    let until = target.until;
                    self.expect_answer(until);
                }
                (State::Asked, None) | (State::Present, _) if target.asks > 0 => {
                    self.asked.remove(slot);
                    let until = now.saturating_add(ABSENT_INTERVAL);
                    *target = Target {
                        state: State::Absent,
                        until,
                        unasked: target.unasked,
                        ..Target::VACANT
                    };
                    self.expect_check(until);
                    ended(address, how);
                }
                (State::Present | State::Asked, _) => {
                    self.remove(address);
                    ended(address, how);
                }
                (State::Absent, _) => {
                    self.remove(address);
                }
            }
        }
    }

    fn open(
        &mut self,
        now: Instant,
        config: &Config,
        solicitation: Solicitation,
    ) -> Result<(), Refused> {
        self.admit(now, solicitation.mac)?;
        let mut target = Target {
            to_ask: Links::all_but(solicitation.side, config.downstreams.len()),
            unasked: Some(solicitation.side),
            ..Target::VACANT
        };
        target.begin(now, solicitation);
        let until = target.until;
        let inserted = self.table.insert(solicitation.target, target);
        self.asked.insert(inserted.map_err(|_| Refused)?);
        self.expect_answer(until);
        Ok(())
    }

    /// A target that was asked for on all links but one is looked for from another: it is asked for there too.
    fn ask_where_it_was_not(
        &mut self,
        now: Instant,
        slot: usize,
        solicitation: Solicitation,
    ) -> Result<(), Refused> {
        self.admit(now, solicitation.mac)?;
        let Some((_, target)) = self.table.get_mut(slot) else {
            return Ok(());
        };
        self.asked.insert(slot);
        if let Some(link) = target.unasked.take() {
            target.to_ask.insert(link);
        }
        target.begin(now, solicitation);
        let until = target.until;
        self.expect_answer(until);
        Ok(())
    }

    /// May a host have one more target asked for?
    fn admit(&mut self, now: Instant, mac: MacAddress) -> Result<(), Refused> {
        let is_of_host = |slot: &usize| {
            let target = self.table.get(*slot);
            target.is_some_and(|(_, target)| target.host == mac)
        };
        if self.asked.len() >= MAX_OPEN
            || self.asked.iter().filter(is_of_host).count() >= MAX_OPEN_OF_HOST
            || !self.newcomers.take(now, RATE, BURST)
        {
            return Err(Refused);
        }
        Ok(())
    }

    /// Asks one that is present whether it still is, where its last answer is at least so old.
    fn renew(&mut self, now: Instant, slot: usize, age: Duration) {
        let Some((_, target)) = self.table.get_mut(slot) else {
            return;
        };
        if target.asks > 0 || now.since(target.last_seen) < age {
            return;
        }
        target.ask_again(now, Side::Upstream, ANSWER_INTERVAL);
        let until = target.until;
        self.expect_answer(until);
    }

    /// Answers those who waited for a target that `mac` has, but for the one who has it, and those on its own link.
    fn answer_waiting(&mut self, address: Ipv6Addr, target: &Target, mac: MacAddress, on: Side) {
        if let Some(asker) = target.asker
            && asker.side != on
        {
            self.answer(asker);
        }
        for side in (0..MAX_DOWNSTREAMS as Port).map(Side::Downstream) {
            if target.duplicates.contains(side) && side != on && target.host != mac {
                self.answer(Solicitation {
                    side,
                    mac: target.host,
                    source: Ipv6Addr::UNSPECIFIED,
                    target: address,
                });
            }
        }
    }

    /// A question is to be sent, and answered by then.
    fn expect_answer(&mut self, until: Instant) {
        self.is_asking = true;
        self.expect_check(until);
    }

    fn expect_check(&mut self, due: Instant) {
        bring_forward(&mut self.next_check, due);
    }
}

impl Target {
    const VACANT: Target = Target {
        state: State::Asked,
        mac: MacAddress([0; 6]),
        last_seen: Instant::ZERO,
        until: Instant::ZERO,
        asks: 0,
        to_ask: Links::NONE,
        unasked: None,
        asker: None,
        duplicates: Links::NONE,
        host: MacAddress([0; 6]),
        verifies: None,
        claimant: None,
    };

    /// It is asked for from now on, because a host looks for it.
    fn begin(&mut self, now: Instant, solicitation: Solicitation) {
        self.state = State::Asked;
        self.until = now.saturating_add(ANSWER_INTERVAL);
        self.asks = 1;
        // One that detects duplicates stays known as the one who does.
        if !self.is_detecting() {
            self.host = solicitation.mac;
        }
        self.remember(solicitation);
    }

    fn is_to_ask_beyond(&self, side: Side) -> bool {
        self.unasked.is_some_and(|unasked| unasked != side)
    }

    fn is_detecting(&self) -> bool {
        self.state == State::Asked && self.duplicates != Links::NONE
    }

    /// Notes who is to be told that it is there.
    fn remember(&mut self, solicitation: Solicitation) {
        if solicitation.side == Side::Upstream {
            // The kernel answers there, once the target is known.
        } else if solicitation.source.is_unspecified() {
            self.duplicates.insert(solicitation.side);
        } else {
            self.asker.get_or_insert(solicitation);
        }
    }

    /// It is asked for where it is, and has so long to answer.
    fn ask_again(&mut self, now: Instant, on: Side, interval: Duration) {
        self.asks = self.asks.saturating_add(1);
        self.until = now.saturating_add(interval);
        self.to_ask.insert(on);
    }
}
