//! The questions to hosts: which one comes next, and when.

use core::net::Ipv6Addr;

use super::host::{HOST_CAPACITY, Host};
use super::neighbor::{Neighbor, Step};
use super::{Identity, Neighbors, Sender};
use crate::config::Config;
use crate::link::Port;
use crate::tables::deadlines::Deadlines;
use crate::time::{Duration, Instant, earliest};
use crate::wire::{MacAddress, SolicitedNode};

/// How many queries the engine sends a host before it probes the host's addresses one by one.
pub const ASKS: u8 = 2;
/// The Maximum Response Delay in a query, within which the host is to answer.
pub const ASK_RESPONSE_DELAY: Duration = Duration::from_secs(1);
/// From a query to a host to the next.
pub const ASK_INTERVAL: Duration = Duration::from_secs(2);
/// How many times the engine probes an address in a round (`MAX_UNICAST_SOLICIT` of RFC 4861 §10).
pub const PROBES: u8 = 3;
/// How many times the engine asks by multicast in a round (`MAX_MULTICAST_SOLICIT` of RFC 4861 §10,
/// and one more than the Last Listener Query Count of RFC 3810 §9.11).
pub const RESOLUTIONS: u8 = 3;
/// From a query to a host to the next one that a doubt causes.
pub const DOUBT_INTERVAL: Duration = Duration::from_secs(10);
/// In one of so many questions, newcomers do not come first.
const TURNS: u8 = 4;
/// How long a host was not heard that counts as silent once a round was in vain.
pub(super) const SILENCE: Duration = Duration::from_secs((PROBES + RESOLUTIONS) as u64);
/// From a solicitation for an address to the next (`RETRANS_TIMER` of RFC 4861 §10).
pub const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// From a question of any kind to the next: 20 a second.
pub const PACE: Duration = Duration::from_millis(50);
/// How long after a query a report counts as its answer.
pub const ANSWER_WINDOW: Duration = Duration::from_secs(5);

/// A question to a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// An MLD query to the host's link-local address: which groups does it listen to?
    Ask {
        port: Port,
        mac: MacAddress,
        link_local: Ipv6Addr,
        host: u16,
    },
    /// A unicast solicitation: does the host still have the address?
    Probe {
        port: Port,
        mac: MacAddress,
        target: Ipv6Addr,
        slot: usize,
    },
    /// A multicast solicitation: which host on the link has the address now?
    Resolve {
        port: Port,
        target: Ipv6Addr,
        slot: usize,
    },
    /// An MLD query for a group, to the group: does the listener that is known there still listen?
    Query {
        port: Port,
        group: SolicitedNode,
        slot: usize,
    },
}

/// After so many neighbors that had nothing to be asked, one call ends.
const LOOKS: usize = 256;
/// From such a call to the next.
const LOOK_PACE: Duration = Duration::from_millis(1);

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// A host that was heard, and its neighbors that it has not confirmed.
    Newcomers,
    /// What is confirmed, and what only the kernel's neighbor table lists.
    Known,
}

/// What [`Questions`] are kept in.
pub(super) struct Storage {
    newcomers: Deadlines<HOST_CAPACITY>,
    known: Deadlines<HOST_CAPACITY>,
}

impl Storage {
    pub(super) const fn new() -> Self {
        Storage {
            newcomers: Deadlines::new(),
            known: Deadlines::new(),
        }
    }
}

/// When each host is to be looked at, by its number. One of its questions is due at that time or
/// later: a sighting postpones the question but not the look, since sightings are far more
/// frequent. A host that was asked goes behind all others that wait, however much of it is to be
/// asked.
pub(super) struct Questions<'t> {
    newcomers: &'t mut Deadlines<HOST_CAPACITY>,
    known: &'t mut Deadlines<HOST_CAPACITY>,
    /// The earliest time of the next question.
    pace: Instant,
    /// Counts the questions, so that nobody starves.
    count: u8,
}

impl<'t> Questions<'t> {
    pub(super) fn new(storage: &'t mut Storage) -> Self {
        let Storage { newcomers, known } = storage;
        newcomers.clear();
        known.clear();
        Questions {
            newcomers,
            known,
            pace: Instant::ZERO,
            count: 0,
        }
    }

    #[inline]
    fn of(&mut self, turn: Turn) -> &mut Deadlines<HOST_CAPACITY> {
        match turn {
            Turn::Newcomers => self.newcomers,
            Turn::Known => self.known,
        }
    }

    /// Has a host looked at.
    #[inline]
    pub(super) fn expect(&mut self, turn: Turn, number: u16, due: Instant) {
        self.of(turn).bring_forward(number.into(), due);
    }

    /// Notes that a host was heard that was only remembered. It is no longer among those.
    pub(super) fn note_heard(&mut self, number: u16) {
        if let Some(due) = self.known.get(number.into()) {
            self.expect(Turn::Newcomers, number, due);
        }
    }
}

/// What a look at a host has shown.
#[derive(Default)]
struct Look {
    /// The question that has been due longest, and since when.
    question: Option<(Instant, Question)>,
    /// When the next question is due; `None` if none will be.
    next: Option<Instant>,
    /// How many neighbors were looked at.
    neighbors: usize,
}

impl Look {
    /// Notes that something is due, with the question if it is due by now.
    fn note(&mut self, now: Instant, due: Instant, question: impl FnOnce() -> Option<Question>) {
        if due > now {
            self.next = earliest(&[self.next, Some(due)]);
        } else if self.question.is_none_or(|(longest, _)| due < longest)
            && let Some(question) = question()
        {
            self.question = Some((due, question));
        }
    }
}

impl Neighbors<'_> {
    /// The question to send now. The same one is returned until [`Self::asked`] is told of it. A
    /// question waits while its link cannot send.
    ///
    /// The hosts have turns: whoever has waited longest since its question was due, or since it was
    /// asked last, comes first. Newcomers come before what is known, but for one of four questions.
    pub(crate) fn poll_question(
        &mut self,
        now: Instant,
        config: &Config,
        can_send: impl Fn(Port) -> bool,
    ) -> Option<Question> {
        if self.next_question().is_none_or(|due| now < due) {
            return None;
        }
        let mut order = [Turn::Newcomers, Turn::Known];
        if self.questions.count.is_multiple_of(TURNS) {
            order.reverse();
        }
        let mut looks = LOOKS;
        for turn in order {
            while let Some(slot) = self.questions.of(turn).first_due(now) {
                let look = self.look_at(now, config, turn, slot, &can_send);
                if let Some((_, question)) = look.question {
                    return Some(question);
                }
                // The turn came too early, or there is nothing to ask, or the link cannot send.
                // Once the link is back, all hosts on it are asked.
                match look.next {
                    Some(due) => self.questions.of(turn).set(slot, due),
                    None => self.questions.of(turn).remove(slot),
                }
                looks = looks.saturating_sub(look.neighbors.saturating_add(1));
                if looks == 0 {
                    // The search has not found yet which question comes first.
                    self.questions.pace = now.saturating_add(LOOK_PACE);
                    return None;
                }
            }
        }
        None
    }

    /// Looks at a host for what is to be asked in a turn. If it turns out to be silent, that
    /// changes what is to be asked.
    fn look_at(
        &mut self,
        now: Instant,
        config: &Config,
        turn: Turn,
        slot: usize,
        can_send: impl Fn(Port) -> bool,
    ) -> Look {
        let Ok(number) = u16::try_from(slot) else {
            return Look::default();
        };
        let Some((sender, host)) = self.hosts.entry(number) else {
            return Look::default();
        };
        if !can_send(sender.port) {
            return Look::default();
        }
        let host = *host;
        let (look, is_in_vain) = self.look(now, config, turn, number, (sender, host));
        if !is_in_vain || host.is_silent || !host.leaves_unanswered(now, config) {
            return look;
        }
        let Some(known) = self.hosts.get_mut(number) else {
            return look;
        };
        known.is_silent = true;
        let host = *known;
        let (look, _) = self.look(now, config, turn, number, (sender, host));
        look
    }

    /// As [`Self::look_at`]. Returns also whether a round of questions was in vain.
    fn look(
        &mut self,
        now: Instant,
        config: &Config,
        turn: Turn,
        number: u16,
        (sender, host): (Sender, Host),
    ) -> (Look, bool) {
        let mut look = Look::default();
        // Of a host that seems to be silent, one neighbor is asked for at a time: that is enough.
        let mut begun = Look::default();
        let mut is_in_vain = false;
        if let Some(due) = host.due
            && turn == host.turn(false)
        {
            look.note(now, due, || host.question(sender, number));
        }
        let mut link = host.first;
        while let Some(slot) = link.slot() {
            let Some((identity, neighbor)) = self.table.get_mut(slot) else {
                break;
            };
            link = neighbor.next;
            look.neighbors = look.neighbors.saturating_add(1);
            let is_over = |neighbor: &Neighbor| neighbor.step == Step::Over && neighbor.due <= now;
            is_in_vain |= is_over(neighbor);
            neighbor.advance(now, config, identity, &host);
            if is_over(neighbor) {
                is_in_vain = true;
                continue;
            }
            let neighbor = *neighbor;
            if turn != host.turn(neighbor.is_confirmed()) {
                continue;
            }
            let part = if neighbor.step.is_beyond_asks() {
                &mut begun
            } else {
                &mut look
            };
            part.note(now, neighbor.due, || {
                question(identity, &neighbor, slot, sender, &host)
            });
        }
        if !host.leaves_unanswered(now, config) {
            begun.next = earliest(&[begun.next, look.next]);
            let both = [begun.question, look.question].into_iter().flatten();
            begun.question = both.min_by_key(|(due, _)| *due);
        }
        if begun.question.is_some() || begun.next.is_some() {
            look.question = begun.question;
            look.next = begun.next;
        }
        (look, is_in_vain)
    }

    /// Notes that a question was sent. One that could not be sent counts as lost on its way.
    pub(crate) fn asked(&mut self, now: Instant, question: &Question) {
        self.questions.pace = now.saturating_add(PACE);
        self.questions.count = self.questions.count.wrapping_add(1);
        let number = match *question {
            Question::Ask { host: number, .. } => {
                if let Some(host) = self.hosts.get_mut(number) {
                    host.asked(now);
                }
                self.note_host_asked(now, number);
                Some(number)
            }
            Question::Probe { slot, .. }
            | Question::Resolve { slot, .. }
            | Question::Query { slot, .. } => {
                let neighbor = self.table.get_mut(slot);
                let number = neighbor.map(|(_, neighbor)| {
                    neighbor.note_solicited(now);
                    neighbor.asked(now);
                    neighbor.host
                });
                self.note_asked(slot);
                number
            }
        };
        // The host's next turn comes after those of all others that wait.
        if let Some(number) = number {
            for turn in [Turn::Newcomers, Turn::Known] {
                let deadlines = self.questions.of(turn);
                if deadlines.get(number.into()).is_some_and(|due| due < now) {
                    deadlines.set(number.into(), now);
                }
            }
        }
    }

    /// Has the host asked for an address that the kernel no longer lists.
    pub(crate) fn forgotten_by_kernel(&mut self, now: Instant, address: Ipv6Addr) {
        let slot = self.table.find(&Identity::Address(address));
        if let Some(slot) = slot {
            self.doubt(now, slot);
        }
    }

    /// Notes that the host of an address left the questions of a contest unanswered.
    pub(crate) fn was_silent(&mut self, now: Instant, address: Ipv6Addr) {
        if let Some((slot, neighbor)) = self.address_mut(address) {
            neighbor.was_silent(now);
            self.note_asked(slot);
            self.expect_question(slot);
        }
    }

    /// Asks every host on these ports again.
    pub(crate) fn ask_all(&mut self, now: Instant, on: impl Fn(Port) -> bool) {
        for number in 0..u16::try_from(self.hosts.slots().end).unwrap_or(u16::MAX) {
            let Some((sender, host)) = self.hosts.entry_mut(number) else {
                continue;
            };
            if on(sender.port) {
                host.forget_questions();
                host.due = host.link_local.map(|_| now);
                let turn = host.turn(false);
                self.questions.expect(turn, number, now);
            }
        }
        for slot in self.table.slots() {
            if self.is_on(slot, &on) {
                self.doubt(now, slot);
            }
        }
    }

    /// Starts the round of questions for a neighbor anew, since its host may be gone. Whatever the
    /// cause, that is no sooner than [`DOUBT_INTERVAL`] after the last query to the host.
    pub(super) fn doubt(&mut self, now: Instant, slot: usize) {
        let Some((_, neighbor)) = self.table.get_mut(slot) else {
            return;
        };
        let asked = self.hosts.get(neighbor.host).and_then(|host| host.asked);
        let earliest = asked.map_or(now, |asked| asked.saturating_add(DOUBT_INTERVAL));
        let earliest = earliest.max(neighbor.next_probe(now));
        neighbor.step = Step::FIRST;
        neighbor.due = now.max(earliest);
        self.expect_question(slot);
    }

    /// The earliest time at which a question is due; `None` if none will be.
    pub(crate) fn next_question(&self) -> Option<Instant> {
        let Questions {
            newcomers,
            known,
            pace,
            ..
        } = &self.questions;
        let due = [newcomers, known].map(|hosts| hosts.first().map(|(_, due)| due));
        Some(earliest(&due)?.max(*pace))
    }

    /// From an answer to the next question: half the address timeout. It is less if there are so
    /// many hosts that asking them all at their [`PACE`] takes longer than the other half, but not
    /// less than a quarter. The rest is enough for as many hosts as there can be.
    pub(super) fn question_delay(&self, config: &Config) -> Duration {
        let timeout = config.address_timeout;
        let part = |divisor| timeout.checked_div(divisor).unwrap_or_default();
        let hosts = u32::try_from(self.hosts.len()).unwrap_or(u32::MAX);
        let lead = PACE.saturating_mul(hosts).saturating_add(part(10));
        timeout.saturating_sub(lead).clamp(part(4), part(2))
    }

    /// Has a neighbor looked at when its next step is due.
    #[inline]
    pub(super) fn expect_question(&mut self, slot: usize) {
        let Some((_, neighbor)) = self.table.get(slot) else {
            return;
        };
        let (due, number) = (neighbor.due, neighbor.host);
        let is_confirmed = neighbor.is_confirmed();
        let host = self.hosts.get(number);
        let turn = host.map_or(Turn::Known, |host| host.turn(is_confirmed));
        self.questions.expect(turn, number, due);
    }
}

/// The next question for a neighbor; `None` if there is nothing to ask.
fn question(
    identity: Identity,
    neighbor: &Neighbor,
    slot: usize,
    sender: Sender,
    host: &Host,
) -> Option<Question> {
    let Sender { port, mac } = sender;
    match (neighbor.step, identity) {
        (Step::Ask { .. }, _) => host.question(sender, neighbor.host),
        (Step::Probe { .. }, Identity::Address(target)) => Some(Question::Probe {
            port,
            mac,
            target,
            slot,
        }),
        (Step::Resolve { .. }, Identity::Address(target)) => {
            Some(Question::Resolve { port, target, slot })
        }
        (Step::Resolve { .. }, Identity::Listener(group, _)) => {
            Some(Question::Query { port, group, slot })
        }
        (Step::Probe { .. }, Identity::Listener(..)) | (Step::Over, _) => None,
    }
}
