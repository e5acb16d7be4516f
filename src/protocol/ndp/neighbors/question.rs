//! The questions to hosts: which one comes next, and when.

use core::net::Ipv6Addr;

use super::neighbor::Step;
use super::{CAPACITY, Identity, Neighbors, Sender};
use crate::config::Config;
use crate::link::Port;
use crate::tables::deadlines::Deadlines;
use crate::time::{Duration, Instant, earliest};
use crate::wire::MacAddress;

/// How many queries the engine sends a host before it probes the host's addresses one by one.
pub const ASKS: u8 = 2;
/// The Maximum Response Delay in a query, within which the host is to answer.
pub const ASK_RESPONSE_DELAY: Duration = Duration::from_secs(1);
/// The Robustness Variable and the Query Interval in a query. These are the defaults, which a host
/// assumes anyway (RFC 3810 §9.1, §9.2).
pub const ASK_ROBUSTNESS: u8 = 2;
pub const ASK_QUERY_INTERVAL: Duration = Duration::from_secs(125);
/// From a query to a host to the next.
pub const ASK_INTERVAL: Duration = Duration::from_secs(2);
/// How many times the engine probes an address in a round (`MAX_UNICAST_SOLICIT` of RFC 4861 §10).
pub const PROBES: u8 = 3;
/// How many times the engine resolves an address anew in a round (`MAX_MULTICAST_SOLICIT` of RFC
/// 4861 §10).
pub const RESOLUTIONS: u8 = 3;
/// From a query to a host to the next one that a doubt causes.
pub const DOUBT_INTERVAL: Duration = Duration::from_secs(10);
/// In one of so many questions, the urgent ones do not come first.
const STRANGERS_TURN: u8 = 8;
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
}

/// How many neighbors whose turn came too early one call looks at.
const LOOKS: usize = 16;
/// From such a call to the next.
const LOOK_PACE: Duration = Duration::from_millis(1);

/// What [`Questions`] are kept in.
pub(super) struct Storage {
    due: Deadlines<CAPACITY>,
    urgent: Deadlines<CAPACITY>,
}

impl Storage {
    pub(super) const fn new() -> Self {
        Storage {
            due: Deadlines::new(),
            urgent: Deadlines::new(),
        }
    }
}

/// When each neighbor is to be looked at. Its question is due at that time or later: a sighting
/// postpones the question but not the look, since sightings are far more frequent.
pub(super) struct Questions<'t> {
    /// When each question is due that is not urgent by then.
    due: &'t mut Deadlines<CAPACITY>,
    /// When each question for a confirmed neighbor is due and urgent.
    urgent: &'t mut Deadlines<CAPACITY>,
    /// The earliest time of the next question.
    pace: Instant,
    /// Counts the questions, so that strangers get their share.
    turn: u8,
}

impl<'t> Questions<'t> {
    pub(super) fn new(storage: &'t mut Storage) -> Self {
        let Storage { due, urgent } = storage;
        due.clear();
        urgent.clear();
        Questions {
            due,
            urgent,
            pace: Instant::ZERO,
            turn: 0,
        }
    }

    fn of(&mut self, urgent: bool) -> &mut Deadlines<CAPACITY> {
        if urgent { self.urgent } else { self.due }
    }

    /// Drops the questions for a neighbor.
    pub(super) fn remove(&mut self, slot: usize) {
        self.due.remove(slot);
        self.urgent.remove(slot);
    }
}

impl Neighbors<'_> {
    /// The question to send now, which is the one due longest. The same question is returned until
    /// [`Self::asked`] is told of it. A question waits while its link cannot send.
    ///
    /// A question is urgent if its neighbor is confirmed and was not seen for three quarters of the
    /// address timeout. Urgent questions come first, so that strangers cannot starve them. In every
    /// eighth question they come last, so that strangers get their turn.
    pub(crate) fn poll_question(
        &mut self,
        now: Instant,
        config: &Config,
        can_send: impl Fn(Port) -> bool,
    ) -> Option<Question> {
        if self.next_question().is_none_or(|due| now < due) {
            return None;
        }
        let mut looks = LOOKS;
        let urgent_last = self.questions.turn.is_multiple_of(STRANGERS_TURN);
        for urgent in [!urgent_last, urgent_last] {
            let of_neighbor = self.due_question(now, config, urgent, &mut looks, &can_send);
            if looks == 0 {
                // The search has not found yet which question comes first.
                self.questions.pace = now.saturating_add(LOOK_PACE);
                return None;
            }
            let of_host = if urgent {
                None
            } else {
                self.hosts.due_question(now, &can_send)
            };
            let both = [of_neighbor, of_host].into_iter().flatten();
            if let Some((_, question)) = both.min_by_key(|(due, _)| *due) {
                return Some(question);
            }
        }
        None
    }

    /// The question for a neighbor that has been due longest, and since when. `urgent` says whether
    /// the urgent ones are searched or the others.
    fn due_question(
        &mut self,
        now: Instant,
        config: &Config,
        urgent: bool,
        looks: &mut usize,
        can_send: impl Fn(Port) -> bool,
    ) -> Option<(Instant, Question)> {
        while let Some(slot) = self.questions.of(urgent).first_due(now) {
            let (identity, neighbor) = self.table.get_mut(slot)?;
            let (Sender { port, mac }, host) = self.hosts.entry(neighbor.host)?;
            let mut is_over = true;
            if can_send(port) {
                neighbor.advance(now, config, identity, host);
                is_over = neighbor.step == Step::Over && neighbor.due <= now;
                let is_urgent = neighbor.is_confirmed() && neighbor.urgent_at(config) <= now;
                let question = match (neighbor.step, identity, host.link_local) {
                    (Step::Ask { .. }, _, Some(link_local)) => Some(Question::Ask {
                        port,
                        mac,
                        link_local,
                        host: neighbor.host,
                    }),
                    (Step::Probe { .. }, Identity::Address(target), _) => Some(Question::Probe {
                        port,
                        mac,
                        target,
                        slot,
                    }),
                    (Step::Resolve { elsewhere, .. }, Identity::Address(target), _) => {
                        let claimed = neighbor.claimed.filter(|_| elsewhere);
                        let port = claimed.unwrap_or(port);
                        Some(Question::Resolve { port, target, slot })
                    }
                    (
                        Step::Ask { .. } | Step::Probe { .. } | Step::Resolve { .. } | Step::Over,
                        ..,
                    ) => None,
                };
                let question = question.filter(|_| neighbor.due <= now && is_urgent == urgent);
                if let Some(question) = question {
                    return Some((neighbor.due, question));
                }
            }
            // The turn came too early, there is nothing to ask, or the link cannot send. Once the
            // link is back, all hosts on it are asked.
            self.questions.of(urgent).remove(slot);
            if !is_over {
                self.expect_question(now, config, slot);
            }
            *looks = looks.saturating_sub(1);
            if *looks == 0 {
                break;
            }
        }
        None
    }

    /// Notes that a question was sent. One that could not be sent counts as lost on its way.
    pub(crate) fn asked(&mut self, now: Instant, question: &Question) {
        self.questions.pace = now.saturating_add(PACE);
        self.questions.turn = self.questions.turn.wrapping_add(1);
        match *question {
            Question::Ask { host: number, .. } => {
                if let Some(host) = self.hosts.get_mut(number) {
                    host.asked = Some(now);
                    host.unanswered = host.unanswered.saturating_add(1);
                    if host.unanswered < ASKS {
                        self.hosts.ask_at(number, now.saturating_add(ASK_INTERVAL));
                    } else {
                        self.hosts.ask_no_more(number);
                    }
                }
                self.note_host_asked(number);
            }
            Question::Probe { slot, .. } | Question::Resolve { slot, .. } => {
                if let Some((_, neighbor)) = self.table.get_mut(slot) {
                    let host = self.hosts.entry(neighbor.host);
                    neighbor.asked(now, host.map(|(sender, _)| sender.port));
                }
                self.note_asked(slot);
            }
        }
    }

    /// Has the host asked for an address that the kernel no longer lists.
    pub(crate) fn forgotten_by_kernel(&mut self, now: Instant, config: &Config, address: Ipv6Addr) {
        let slot = self.table.find(&Identity::Address(address));
        if let Some(slot) = slot {
            self.doubt(now, config, slot);
        }
    }

    /// Notes that a host did not defend an address that another host was about to take. The next
    /// claim to the address holds. Meanwhile its host gets a whole round of questions.
    pub(crate) fn left_unanswered(&mut self, now: Instant, config: &Config, address: Ipv6Addr) {
        let Some(slot) = self.table.find(&Identity::Address(address)) else {
            return;
        };
        if let Some((_, neighbor)) = self.table.get_mut(slot)
            && now.since(neighbor.last_seen) >= PROBE_INTERVAL
        {
            neighbor.leave_unanswered();
            self.note_asked(slot);
            self.doubt(now, config, slot);
        }
    }

    /// Asks every host on these ports again.
    pub(crate) fn ask_all(&mut self, now: Instant, config: &Config, on: impl Fn(Port) -> bool) {
        self.hosts.ask_all(now, &on);
        for slot in self.table.slots() {
            let neighbor = self.table.get(slot);
            let host = neighbor.and_then(|(_, neighbor)| self.hosts.entry(neighbor.host));
            if host.is_some_and(|(sender, _)| on(sender.port)) {
                self.doubt(now, config, slot);
            }
        }
    }

    /// Starts the round of questions for a neighbor anew, since its host may be gone. Whatever the
    /// cause, that is no sooner than [`DOUBT_INTERVAL`] after the last query to the host.
    pub(super) fn doubt(&mut self, now: Instant, config: &Config, slot: usize) {
        let Some((_, neighbor)) = self.table.get_mut(slot) else {
            return;
        };
        let asked = self.hosts.get(neighbor.host).and_then(|host| host.asked);
        let earliest = asked.map_or(now, |asked| asked.saturating_add(DOUBT_INTERVAL));
        let earliest = earliest.max(neighbor.next_probe(now));
        neighbor.step = Step::FIRST;
        neighbor.due = now.max(earliest);
        self.expect_question(now, config, slot);
    }

    /// The earliest time at which a question is due; `None` if none will be.
    pub(crate) fn next_question(&self) -> Option<Instant> {
        let Questions {
            due, urgent, pace, ..
        } = &self.questions;
        let [due, urgent] = [due, urgent].map(|deadlines| deadlines.first().map(|(_, due)| due));
        let next = earliest(&[due, urgent, self.hosts.next_question()])?;
        Some(next.max(*pace))
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
    pub(super) fn expect_question(&mut self, now: Instant, config: &Config, slot: usize) {
        let Some((_, neighbor)) = self.table.get(slot) else {
            return;
        };
        let due = neighbor.due;
        if neighbor.is_confirmed() {
            let urgent_at = neighbor.urgent_at(config);
            self.questions
                .urgent
                .bring_forward(slot, due.max(urgent_at));
            if urgent_at <= due.max(now) {
                return;
            }
        }
        self.questions.due.bring_forward(slot, due);
    }
}
