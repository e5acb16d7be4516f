//! Questions to hosts: whom to ask what, and when.

use core::net::Ipv6Addr;

use super::{Host, Neighbor, Neighbors, Sender, Subject};
use crate::config::Config;
use crate::link::Port;
use crate::time::{Duration, Instant, bring_forward};
use crate::wire::MacAddress;

/// How often a host is asked before its addresses are probed one by one.
pub const ASKS: u8 = 2;
/// Within which a host is to answer: the Maximum Response Delay asked for.
pub const ASK_RESPONSE_DELAY: Duration = Duration::from_secs(1);
/// The rest of the query says what a host assumes anyway: RFC 3810 §9.1, §9.2.
pub const ASK_ROBUSTNESS: u8 = 2;
pub const ASK_QUERY_INTERVAL: Duration = Duration::from_secs(125);
/// From a question to a host to the next.
pub const ASK_INTERVAL: Duration = Duration::from_secs(2);
/// How often an address is probed (`MAX_UNICAST_SOLICIT` of RFC 4861 §10).
pub const PROBES: u8 = 3;
/// How often an address whose host did not answer is resolved anew (`MAX_MULTICAST_SOLICIT` of RFC 4861 §10).
pub const RESOLUTIONS: u8 = 3;
/// From a question to a host to one because of a doubt.
pub const DOUBT_INTERVAL: Duration = Duration::from_secs(10);
/// Every so many questions one is not an urgent one.
const STRANGERS_TURN: u8 = 8;
pub(super) const ALL_QUESTIONS: u8 = ASKS + PROBES + RESOLUTIONS;
/// From a probe or resolution to the next (`RETRANS_TIMER` of RFC 4861 §10).
pub const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// From a question of any kind to the next: 20 a second.
pub const PACE: Duration = Duration::from_millis(50);
/// How long after a question a report or advertisement counts as its answer.
pub const ANSWER_WINDOW: Duration = Duration::from_secs(5);

/// A question to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Which groups the host listens to, sent to its link-local address.
    Ask {
        port: Port,
        mac: MacAddress,
        link_local: Ipv6Addr,
        host: u16,
    },
    /// Whether an address is still there.
    Probe {
        port: Port,
        mac: MacAddress,
        target: Ipv6Addr,
        slot: usize,
    },
    /// Who has an address on a link now, sent to its solicited-node group.
    Resolve {
        port: Port,
        target: Ipv6Addr,
        slot: usize,
    },
}

/// Of several questions the one that has been due longest.
pub(super) struct Longest(pub(super) Option<(Instant, Question)>);

impl Longest {
    pub(super) fn offer(&mut self, due: Instant, question: Question) {
        if self.0.is_none_or(|(longest, _)| due < longest) {
            self.0 = Some((due, question));
        }
    }

    pub(super) fn take(self) -> Option<Question> {
        self.0.map(|(_, question)| question)
    }
}

impl Neighbors<'_> {
    /// The question to send now: of those due the one due longest, but confirmed subjects that were not seen for three quarters of
    /// their time come first, so that strangers cannot crowd them out. Every eighth goes the other way round, so that strangers get
    /// their turn. Where nothing can be sent, a question waits. The same one again until [`Self::asked`] is told of it.
    pub(crate) fn poll_question(
        &mut self,
        now: Instant,
        config: &Config,
        can_send: impl Fn(Port) -> bool,
    ) -> Option<Question> {
        if self.next_question.is_none_or(|due| now < due) || now < self.pace {
            return None;
        }
        let mut next: Option<Instant> = None;
        let mut wait_until = |due: Instant| bring_forward(&mut next, due);
        let quarter = config.address_timeout.checked_div(4).unwrap_or_default();
        let urgent_age = config.address_timeout.saturating_sub(quarter);
        let mut urgent = Longest(None);
        let mut others = Longest(None);
        for slot in self.subjects.slots() {
            let Some((subject, neighbor)) = self.subjects.get_mut(slot) else {
                continue;
            };
            let Some((Sender { port, mac }, host)) = self.hosts.entry(neighbor.host) else {
                continue;
            };
            if !can_send(port) {
                continue;
            }
            neighbor.skip_questions(now, config, subject, host);
            if neighbor.questions >= ALL_QUESTIONS && neighbor.due <= now {
                neighbor.end_round(now, config);
            }
            if neighbor.due > now {
                wait_until(neighbor.due);
                continue;
            }
            if neighbor.questions >= ALL_QUESTIONS {
                continue;
            }
            let question = match (subject, host.link_local) {
                (_, Some(link_local)) if neighbor.questions < ASKS => Question::Ask {
                    port,
                    mac,
                    link_local,
                    host: neighbor.host,
                },
                (Subject::Address(target), _)
                    if neighbor.questions < ASKS.saturating_add(PROBES) =>
                {
                    Question::Probe {
                        port,
                        mac,
                        target,
                        slot,
                    }
                }
                (Subject::Address(target), _) => {
                    let claimed = neighbor.claimed.filter(|_| neighbor.resolves_claim);
                    let port = claimed.unwrap_or(port);
                    Question::Resolve { port, target, slot }
                }
                (Subject::Listener(..), _) => continue,
            };
            if neighbor.confirmed && now.since(neighbor.last_seen) >= urgent_age {
                urgent.offer(neighbor.due, question);
            } else {
                others.offer(neighbor.due, question);
            }
        }
        self.hosts
            .offer_questions(now, can_send, &mut others, &mut wait_until);
        let question = if self.turn.is_multiple_of(STRANGERS_TURN) {
            others.take().or(urgent.take())
        } else {
            urgent.take().or(others.take())
        };
        if question.is_none() {
            self.next_question = next;
            // A fruitless look is paced like a question, whatever makes it necessary.
            self.pace = now.saturating_add(PACE);
        }
        question
    }

    /// A question was sent, or could not be, which counts as an answer that was lost.
    pub(crate) fn asked(&mut self, now: Instant, question: &Question) {
        self.pace = now.saturating_add(PACE);
        self.turn = self.turn.wrapping_add(1);
        match *question {
            Question::Ask { host, .. } => {
                if let Some(host) = self.hosts.get_mut(host) {
                    host.asked = Some(now);
                    host.unanswered = host.unanswered.saturating_add(1);
                    let again = now.saturating_add(ASK_INTERVAL);
                    host.due = (host.unanswered < ASKS).then_some(again);
                }
            }
            Question::Probe { slot, .. } => {
                if let Some((_, neighbor)) = self.subjects.get_mut(slot) {
                    neighbor.questions = neighbor.questions.saturating_add(1);
                    neighbor.due = now.saturating_add(PROBE_INTERVAL);
                }
            }
            Question::Resolve { slot, .. } => {
                let Some((_, neighbor)) = self.subjects.get_mut(slot) else {
                    return;
                };
                let host = self.hosts.entry(neighbor.host);
                let port = host.map(|(sender, _)| sender.port);
                // Its own host has not answered. Who answers the last one has it.
                neighbor.asked_in_vain |= neighbor.questions.saturating_add(1) >= ALL_QUESTIONS;
                if neighbor
                    .claimed
                    .is_some_and(|claimed| Some(claimed) != port)
                    && !neighbor.resolves_claim
                {
                    neighbor.resolves_claim = true;
                    neighbor.due = now;
                } else {
                    neighbor.resolves_claim = false;
                    neighbor.questions = neighbor.questions.saturating_add(1);
                    neighbor.due = now.saturating_add(PROBE_INTERVAL);
                }
            }
        }
    }

    /// The kernel no longer knows an address: its host is asked for it.
    pub(crate) fn forgotten_by_kernel(&mut self, now: Instant, address: Ipv6Addr) {
        let slot = self.subjects.find(&Subject::Address(address));
        if let Some(slot) = slot {
            self.doubt(now, slot);
        }
    }

    /// A host did not show that it still has an address when another one was about to take it. The next claim counts, and it is asked
    /// properly.
    pub(crate) fn left_unanswered(&mut self, now: Instant, address: Ipv6Addr) {
        let Some(slot) = self.subjects.find(&Subject::Address(address)) else {
            return;
        };
        if let Some((_, neighbor)) = self.subjects.get_mut(slot)
            && now.since(neighbor.last_seen) >= PROBE_INTERVAL
        {
            neighbor.asked_in_vain = true;
            self.doubt(now, slot);
        }
    }

    /// Asks every host on these ports again.
    pub(crate) fn ask_all(&mut self, now: Instant, on: impl Fn(Port) -> bool) {
        if self.hosts.ask_all(now, &on) {
            self.expect_question(now);
        }
        for slot in self.subjects.slots() {
            let neighbor = self.subjects.get(slot);
            let host = neighbor.and_then(|(_, neighbor)| self.hosts.entry(neighbor.host));
            if host.is_some_and(|(sender, _)| on(sender.port)) {
                self.doubt(now, slot);
            }
        }
    }

    /// A subject may be gone: the questions start anew, but not sooner after the last one to its host than [`DOUBT_INTERVAL`],
    /// whoever sows the doubt.
    pub(super) fn doubt(&mut self, now: Instant, slot: usize) {
        let Some((_, neighbor)) = self.subjects.get_mut(slot) else {
            return;
        };
        let asked = self.hosts.get(neighbor.host).and_then(|host| host.asked);
        let earliest = asked.map_or(now, |asked| asked.saturating_add(DOUBT_INTERVAL));
        let earliest = earliest.max(neighbor.next_probe(now));
        neighbor.questions = 0;
        neighbor.resolves_claim = false;
        neighbor.due = now.max(earliest);
        let due = neighbor.due;
        self.expect_question(due);
    }

    pub(crate) fn next_question(&self) -> Option<Instant> {
        self.next_question.map(|due| due.max(self.pace))
    }

    /// When one that answered now is to be asked again; notes that it will be.
    pub(super) fn expect_next_question(&mut self, now: Instant, config: &Config) -> Instant {
        let due = now.saturating_add(self.question_delay(config));
        self.expect_question(due);
        due
    }

    /// From an answer to the next question: half the address timeout, or less where there are so many hosts that to ask them all,
    /// at their [`PACE`], takes longer than that leaves, but not below a quarter, which is enough for as many as there can be.
    pub(super) fn question_delay(&self, config: &Config) -> Duration {
        let timeout = config.address_timeout;
        let part = |divisor| timeout.checked_div(divisor).unwrap_or_default();
        let hosts = u32::try_from(self.hosts.len()).unwrap_or(u32::MAX);
        let lead = PACE.saturating_mul(hosts).saturating_add(part(10));
        timeout.saturating_sub(lead).clamp(part(4), part(2))
    }

    pub(super) fn expect_question(&mut self, due: Instant) {
        bring_forward(&mut self.next_question, due);
    }
}

impl Neighbor {
    /// Before which it may not be probed again: RFC 4861 §7.3.3 allows no two solicitations to a neighbor within a RetransTimer,
    /// whatever makes them necessary. What is due within that stays so, and a probe that was answered was sent before it was.
    pub(super) fn next_probe(&self, now: Instant) -> Instant {
        if now < self.due && self.due <= now.saturating_add(PROBE_INTERVAL) {
            self.due
        } else {
            self.last_seen.saturating_add(PROBE_INTERVAL)
        }
    }

    /// Passes over the questions that cannot or need not be sent.
    fn skip_questions(&mut self, now: Instant, config: &Config, subject: Subject, host: &Host) {
        while self.questions < ASKS && self.due <= now {
            if !config.ask || host.link_local.is_none() || host.never_answers() {
                self.questions = ASKS;
            } else if let Some(asked) = host.asked.filter(|asked| now.since(*asked) < ASK_INTERVAL)
            {
                // Its host was asked just now, because of this or of another one.
                self.questions = self.questions.saturating_add(1);
                self.due = asked.saturating_add(ASK_INTERVAL);
            } else {
                break;
            }
        }
        let probes = config.probe && matches!(subject, Subject::Address(_));
        if self.questions >= ASKS && !probes {
            self.questions = ALL_QUESTIONS;
        }
    }

    /// All questions were asked in vain. One that has answered before gets another round before its end: its link may have been
    /// down, or it asleep. A round in between because of a doubt does not cost it that one.
    fn end_round(&mut self, now: Instant, config: &Config) {
        self.asked_in_vain = true;
        let quarter = config.address_timeout.checked_div(4).unwrap_or_default();
        let age = config.address_timeout.saturating_sub(quarter);
        let again = self.last_seen.saturating_add(age);
        if self.confirmed && !self.revoked && again > now {
            self.questions = 0;
            self.due = again;
        }
    }
}
