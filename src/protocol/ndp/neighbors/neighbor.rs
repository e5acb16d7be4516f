//! One neighbor: whether its host has answered for it, and how far it has been asked.

use super::Identity;
use super::host::Host;
use super::question::{ASK_INTERVAL, ASKS, DOUBT_INTERVAL, PROBE_INTERVAL, PROBES, RESOLUTIONS};
use crate::config::Config;
use crate::link::Port;
use crate::tables::table::Next;
use crate::time::Instant;

/// What is known of a neighbor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbor {
    pub last_seen: Instant,
    pub standing: Standing,
    /// How far it has been asked since it was seen last.
    pub step: Step,
    /// When the next step is due.
    pub(super) due: Instant,
    /// Its host said that it is gone. If no question is answered, it is.
    pub(super) revoked: bool,
    /// Where another host claimed it since its own was heard of.
    pub(super) claimed: Option<Port>,
    /// The host's number.
    pub(super) host: u16,
    /// The next neighbor of the same host.
    pub(super) next: Next,
}

/// Whose word there is for a neighbor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Somebody claimed it. Nobody has answered for it.
    Claimed,
    /// Its host has answered for it.
    Confirmed,
    /// A whole round of questions was in vain. Whoever answers the last one, or claims it, has it.
    Unanswered { was_confirmed: bool },
}

/// The next question of a round: first the host is asked, then the address is probed, then it is
/// resolved anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// An MLD query to the host, of [`ASKS`]. So many were sent.
    Ask { sent: u8 },
    /// A unicast solicitation for the address, of [`PROBES`].
    Probe { sent: u8 },
    /// A multicast solicitation for the address, of [`RESOLUTIONS`]. Each is sent on the link of the
    /// host and then, `elsewhere`, on that of the last one that claimed the address.
    Resolve { sent: u8, elsewhere: bool },
    /// The round is over.
    Over,
}

impl Step {
    /// The first of a round.
    pub(super) const FIRST: Step = Step::Ask { sent: 0 };
    pub(super) const FIRST_RESOLUTION: Step = Step::Resolve {
        sent: 0,
        elsewhere: false,
    };

    /// How many questions were sent, or passed over, in this round.
    pub fn questions(self) -> u8 {
        match self {
            Step::Ask { sent } => sent,
            Step::Probe { sent } => sent.saturating_add(ASKS),
            Step::Resolve { sent, .. } => sent.saturating_add(ASKS + PROBES),
            Step::Over => ASKS + PROBES + RESOLUTIONS,
        }
    }

    /// Was the address itself asked for?
    pub(super) fn is_beyond_asks(self) -> bool {
        self.questions() > ASKS
    }

    /// Was the address resolved anew?
    pub(super) fn is_resolving(self) -> bool {
        self.questions() > ASKS + PROBES
    }

    fn asked_host(sent: u8) -> Step {
        let sent = sent.saturating_add(1);
        if sent < ASKS {
            Step::Ask { sent }
        } else {
            Step::Probe { sent: 0 }
        }
    }
}

impl Neighbor {
    /// One that was seen for the first time, and has no host yet.
    pub(super) fn new(now: Instant, standing: Standing, due: Instant) -> Self {
        Neighbor {
            last_seen: now,
            standing,
            step: Step::FIRST,
            due,
            revoked: false,
            claimed: None,
            host: 0,
            next: Next::END,
        }
    }

    /// Has its host answered for it?
    pub fn is_confirmed(&self) -> bool {
        match self.standing {
            Standing::Confirmed => true,
            Standing::Claimed => false,
            Standing::Unanswered { was_confirmed } => was_confirmed,
        }
    }

    /// Was a whole round of questions in vain, so that whoever claims it has it?
    pub(super) fn is_unanswered(&self) -> bool {
        match self.standing {
            Standing::Unanswered { .. } => true,
            Standing::Claimed | Standing::Confirmed => false,
        }
    }

    /// It is there: good for another timeout, and no question before `due` once it is confirmed. One
    /// that left a whole round of questions unanswered may have been asleep, and is asked again
    /// soon. Returns when it is asked next.
    pub(super) fn renew(&mut self, now: Instant, due: Instant) -> Instant {
        self.last_seen = now;
        self.revoked = false;
        self.claimed = None;
        self.standing = if self.is_confirmed() {
            Standing::Confirmed
        } else {
            Standing::Claimed
        };
        if let Step::Resolve { sent, .. } = self.step {
            let elsewhere = false;
            self.step = Step::Resolve { sent, elsewhere };
        }
        // A sighting does not spare one that never answered the questions under way.
        if self.is_confirmed() {
            self.step = Step::FIRST;
            self.due = due;
        } else if self.step == Step::Over {
            self.step = Step::FIRST;
            self.due = now.max(self.due.saturating_add(DOUBT_INTERVAL));
        }
        self.due
    }

    /// Before which it may not be probed again: RFC 4861 §7.3.3 allows no two solicitations to a
    /// neighbor within a RetransTimer, whatever makes them necessary. What is due within that stays
    /// so, and a probe that was answered was sent before it was.
    pub(super) fn next_probe(&self, now: Instant) -> Instant {
        if now < self.due && self.due <= now.saturating_add(PROBE_INTERVAL) {
            self.due
        } else {
            self.last_seen.saturating_add(PROBE_INTERVAL)
        }
    }

    /// From when on a question for it is urgent, if it is confirmed: three quarters of its time.
    pub(super) fn urgent_at(&self, config: &Config) -> Instant {
        let timeout = config.address_timeout;
        let quarter = timeout.checked_div(4).unwrap_or_default();
        self.last_seen
            .saturating_add(timeout.saturating_sub(quarter))
    }

    /// Passes over the questions that cannot or need not be sent, and ends a round that was in vain.
    pub(super) fn advance(
        &mut self,
        now: Instant,
        config: &Config,
        identity: Identity,
        host: &Host,
    ) {
        while let Step::Ask { sent } = self.step
            && self.due <= now
        {
            let lately = |asked: &Instant| now.since(*asked) < ASK_INTERVAL;
            if !config.ask || host.link_local.is_none() || host.never_answers() {
                self.step = Step::Probe { sent: 0 };
            } else if let Some(asked) = host.asked.filter(lately) {
                // Its host was asked just now, because of this or of another one.
                self.step = Step::asked_host(sent);
                self.due = asked.saturating_add(ASK_INTERVAL);
            } else {
                break;
            }
        }
        let can_be_probed = config.probe && matches!(identity, Identity::Address(_));
        if !can_be_probed && !matches!(self.step, Step::Ask { .. }) {
            self.step = Step::Over;
        }
        if self.step == Step::Over && self.due <= now {
            self.end_round(now, config);
        }
    }

    /// A question for its address was sent. `home` is the link of its host.
    pub(super) fn asked(&mut self, now: Instant, home: Option<Port>) {
        let next = now.saturating_add(PROBE_INTERVAL);
        (self.step, self.due) = match self.step {
            Step::Ask { .. } | Step::Over => return,
            Step::Probe { sent } if sent.saturating_add(1) < PROBES => {
                let sent = sent.saturating_add(1);
                (Step::Probe { sent }, next)
            }
            Step::Probe { .. } => (Step::FIRST_RESOLUTION, next),
            Step::Resolve { sent, elsewhere } => {
                let is_last = sent.saturating_add(1) >= RESOLUTIONS;
                if is_last {
                    // Its own host has not answered. Who answers the last one has it.
                    self.leave_unanswered();
                }
                let is_elsewhere = |port: Port| Some(port) != home;
                if self.claimed.is_some_and(is_elsewhere) && !elsewhere {
                    let elsewhere = true;
                    (Step::Resolve { sent, elsewhere }, now)
                } else if is_last {
                    (Step::Over, next)
                } else {
                    let (sent, elsewhere) = (sent.saturating_add(1), false);
                    (Step::Resolve { sent, elsewhere }, next)
                }
            }
        };
    }

    /// A whole round of questions was in vain.
    pub(super) fn leave_unanswered(&mut self) {
        let was_confirmed = self.is_confirmed();
        self.standing = Standing::Unanswered { was_confirmed };
    }

    /// All questions were asked in vain. One that has answered before gets another round before its
    /// end: its link may have been down, or it asleep. A round in between because of a doubt does not
    /// cost it that one.
    fn end_round(&mut self, now: Instant, config: &Config) {
        self.leave_unanswered();
        let again = self.urgent_at(config);
        if self.is_confirmed() && !self.revoked && again > now {
            self.step = Step::FIRST;
            self.due = again;
        }
    }
}
