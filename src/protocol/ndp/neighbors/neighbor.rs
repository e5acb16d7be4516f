//! One neighbor: whether its host has confirmed it, and which question comes next.

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
    /// The next step of its round of questions.
    pub step: Step,
    /// When that step is due.
    pub(super) due: Instant,
    /// Its host reported to have left the group. If a round of questions is in vain, the neighbor
    /// expires without its timeout.
    pub(super) revoked: bool,
    /// The port of the last host that claimed it since its own host was seen with it.
    pub(super) claimed: Option<Port>,
    /// The number of its host.
    pub(super) host: u16,
    /// The next in the list of its host's neighbors.
    pub(super) next: Next,
}

/// Whether a host has answered for a neighbor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// A host claimed it. No host has answered for it.
    Claimed,
    /// Its host has answered for it.
    Confirmed,
    /// A whole round of questions was in vain. The next host that answers for it or claims it gets
    /// it.
    Unanswered { was_confirmed: bool },
}

/// The next question of a round. The engine asks the host, then probes the address, then resolves
/// it anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// An MLD query to the host. Of [`ASKS`] in a round, `sent` were sent or passed over.
    Ask { sent: u8 },
    /// A unicast solicitation for the address. Of [`PROBES`] in a round, `sent` were sent.
    Probe { sent: u8 },
    /// A multicast solicitation for the address. Of [`RESOLUTIONS`] in a round, `sent` were sent.
    /// Each goes out on the link of the host, and then `elsewhere`: on that of the last host that
    /// claimed the address.
    Resolve { sent: u8, elsewhere: bool },
    /// The round has ended.
    Over,
}

impl Step {
    /// The first step of a round.
    pub(super) const FIRST: Step = Step::Ask { sent: 0 };
    pub(super) const FIRST_RESOLUTION: Step = Step::Resolve {
        sent: 0,
        elsewhere: false,
    };

    /// How many questions of this round were sent or passed over.
    pub fn questions(self) -> u8 {
        match self {
            Step::Ask { sent } => sent,
            Step::Probe { sent } => sent.saturating_add(ASKS),
            Step::Resolve { sent, .. } => sent.saturating_add(ASKS + PROBES),
            Step::Over => ASKS + PROBES + RESOLUTIONS,
        }
    }

    /// Was the address probed in this round?
    pub(super) fn is_beyond_asks(self) -> bool {
        self.questions() > ASKS
    }

    /// Was the address resolved anew in this round?
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
    /// A neighbor seen for the first time, which has no host yet.
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

    /// Was a whole round of questions in vain, so that the next host that claims it gets it?
    pub(super) fn is_unanswered(&self) -> bool {
        match self.standing {
            Standing::Unanswered { .. } => true,
            Standing::Claimed | Standing::Confirmed => false,
        }
    }

    /// Starts the timeout anew. A confirmed neighbor is asked for at `due`. An unconfirmed one
    /// whose round has ended gets another round soon, for its host may have been asleep.
    pub(super) fn renew(&mut self, now: Instant, due: Instant) {
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
        // A sighting does not end the round of an unconfirmed neighbor. Only an answer does.
        if self.is_confirmed() {
            self.step = Step::FIRST;
            self.due = due;
        } else if self.step == Step::Over {
            self.step = Step::FIRST;
            self.due = now.max(self.due.saturating_add(DOUBT_INTERVAL));
        }
    }

    /// The earliest time of the next probe. RFC 4861 §7.3.3 allows no two solicitations to a
    /// neighbor within RetransTimer, whatever causes them. A step that is due within that time
    /// stays due. Otherwise the time counts from the last sighting: a probe that was answered was
    /// sent before it.
    pub(super) fn next_probe(&self, now: Instant) -> Instant {
        if now < self.due && self.due <= now.saturating_add(PROBE_INTERVAL) {
            self.due
        } else {
            self.last_seen.saturating_add(PROBE_INTERVAL)
        }
    }

    /// When a question for a confirmed neighbor becomes urgent: after three quarters of the address
    /// timeout.
    pub(super) fn urgent_at(&self, config: &Config) -> Instant {
        let timeout = config.address_timeout;
        let quarter = timeout.checked_div(4).unwrap_or_default();
        self.last_seen
            .saturating_add(timeout.saturating_sub(quarter))
    }

    /// Passes over the questions that cannot or need not be sent. Ends a round that was in vain.
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
                // The host was asked just now, for this neighbor or for another one.
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

    /// Notes that a solicitation for the address was sent. `home` is the port of its host.
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
                    // The host has not answered. Any host that answers the last solicitation gets
                    // the address.
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

    /// Notes that a whole round of questions was in vain.
    pub(super) fn leave_unanswered(&mut self) {
        let was_confirmed = self.is_confirmed();
        self.standing = Standing::Unanswered { was_confirmed };
    }

    /// Ends a round that was in vain. A confirmed neighbor gets another round once its questions
    /// are urgent: its link may have been down, or its host asleep. An earlier round that a doubt
    /// started does not replace that one.
    fn end_round(&mut self, now: Instant, config: &Config) {
        self.leave_unanswered();
        let again = self.urgent_at(config);
        if self.is_confirmed() && !self.revoked && again > now {
            self.step = Step::FIRST;
            self.due = again;
        }
    }
}
