//! One neighbor: whether its host has confirmed it, and which question comes next.

use super::Identity;
use super::host::Host;
use super::question::{ASK_INTERVAL, ASKS, DOUBT_INTERVAL, PROBE_INTERVAL, PROBES, RESOLUTIONS};
use crate::config::Config;
use crate::tables::table::Next;
use crate::time::{Duration, Instant};

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
    /// When the address was solicited last, whatever for, in milliseconds modulo 2^32.
    solicited: u32,
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
    /// A whole round of questions was in vain. The next host that answers for it gets it.
    Unanswered { was_confirmed: bool },
}

/// The next question of a round. The engine asks the host, then probes the address, then asks by
/// multicast: that question reaches the host whatever a bridge was made to believe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// An MLD query to the host. Of [`ASKS`] in a round, `sent` were sent or passed over.
    Ask { sent: u8 },
    /// A unicast solicitation for the address. Of [`PROBES`] in a round, `sent` were sent.
    Probe { sent: u8 },
    /// A multicast solicitation for the address; for a listener a query for its group. Of
    /// [`RESOLUTIONS`] in a round, `sent` were sent or passed over.
    Resolve { sent: u8 },
    /// The round has ended.
    Over,
}

impl Step {
    /// The first step of a round.
    pub(super) const FIRST: Step = Step::Ask { sent: 0 };
    const FIRST_RESOLUTION: Step = Step::Resolve { sent: 0 };
    const LAST_RESOLUTION: Step = Step::Resolve {
        sent: RESOLUTIONS - 1,
    };

    /// How many questions of this round were sent or passed over.
    pub fn questions(self) -> u8 {
        match self {
            Step::Ask { sent } => sent,
            Step::Probe { sent } => sent.saturating_add(ASKS),
            Step::Resolve { sent } => sent.saturating_add(ASKS + PROBES),
            Step::Over => ASKS + PROBES + RESOLUTIONS,
        }
    }

    /// Was the address probed in this round?
    pub(super) fn is_beyond_asks(self) -> bool {
        self.questions() > ASKS
    }

    /// Was the last question of this round asked by multicast?
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
            solicited: (now.as_millis() as u32).wrapping_sub(PROBE_INTERVAL.as_millis() as u32),
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
        self.standing = if self.is_confirmed() {
            Standing::Confirmed
        } else {
            Standing::Claimed
        };
        // A sighting does not end the round of an unconfirmed neighbor. Only an answer does.
        if self.is_confirmed() {
            self.step = Step::FIRST;
            self.due = due;
        } else if self.step == Step::Over {
            self.step = Step::FIRST;
            self.due = now.max(self.due.saturating_add(DOUBT_INTERVAL));
        }
    }

    /// The earliest time of the next probe, whatever causes it. A step that is due soon stays due.
    /// Otherwise the address was seen less than a second ago, or it may be solicited at once.
    pub(super) fn next_probe(&self, now: Instant) -> Instant {
        let soon = self.solicit_at(now);
        if now < self.due && self.due <= now.saturating_add(PROBE_INTERVAL) {
            soon.max(self.due)
        } else {
            soon.max(self.last_seen.saturating_add(PROBE_INTERVAL))
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
        let is_listener = matches!(identity, Identity::Listener(..));
        if is_listener && matches!(self.step, Step::Probe { .. }) {
            self.step = Step::FIRST_RESOLUTION;
        }
        let can_be_asked = if is_listener {
            config.ask
        } else {
            config.probe
        };
        // Silence of a host counts for all its neighbors. Each is asked for by multicast: once, and
        // in a second round as often as any other. A round that is late goes on there too.
        let is_late = self.step != Step::FIRST
            && can_be_asked
            && now.since(self.last_seen) >= config.address_timeout;
        let least = match (host.is_silent, self.is_unanswered()) {
            (true, false) => Step::LAST_RESOLUTION,
            (true, true) => Step::FIRST_RESOLUTION,
            (false, _) if is_late => Step::FIRST_RESOLUTION,
            (false, _) => Step::FIRST,
        };
        if self.due <= now && self.step.questions() < least.questions() {
            self.step = least;
        }
        if !can_be_asked && !matches!(self.step, Step::Ask { .. }) {
            self.step = Step::Over;
        }
        if self.step == Step::Over && self.due <= now {
            self.end_round(now, config);
        }
    }

    /// Notes that a solicitation for the address was sent, or a query for the group.
    pub(super) fn asked(&mut self, now: Instant) {
        let next = now.saturating_add(PROBE_INTERVAL);
        (self.step, self.due) = match self.step {
            Step::Ask { .. } | Step::Over => return,
            Step::Probe { sent } if sent.saturating_add(1) < PROBES => {
                let sent = sent.saturating_add(1);
                (Step::Probe { sent }, next)
            }
            Step::Probe { .. } => (Step::FIRST_RESOLUTION, next),
            Step::Resolve { sent } if sent.saturating_add(1) < RESOLUTIONS => {
                let sent = sent.saturating_add(1);
                (Step::Resolve { sent }, next)
            }
            Step::Resolve { .. } => {
                // The host has not answered. Any host that answers the last solicitation gets the
                // address.
                self.leave_unanswered();
                (Step::Over, next)
            }
        };
    }

    /// Notes that its host left the questions of a contest unanswered, which are as many as the
    /// last ones of a round.
    pub(super) fn was_silent(&mut self, now: Instant) {
        self.leave_unanswered();
        if self.step.is_beyond_asks() {
            (self.step, self.due) = (Step::Over, now);
        }
    }

    /// Notes that its host was sent a query, for this neighbor or for another one.
    pub(super) fn host_asked(&mut self, now: Instant) {
        if let Step::Ask { sent } = self.step
            && self.due <= now
        {
            self.step = Step::asked_host(sent);
            self.due = now.saturating_add(ASK_INTERVAL);
        }
    }

    /// Notes that the address was solicited.
    pub(super) fn note_solicited(&mut self, now: Instant) {
        self.solicited = now.as_millis() as u32;
    }

    /// When the address may be solicited: RFC 4861 §7.3.3 allows no two solicitations within
    /// RetransTimer, whatever causes them.
    pub(super) fn solicit_at(&self, now: Instant) -> Instant {
        let since = (now.as_millis() as u32).wrapping_sub(self.solicited);
        let rest = PROBE_INTERVAL.saturating_sub(Duration::from_millis(since.into()));
        now.saturating_add(rest)
    }

    /// Was its group asked for, so that a report of it is an answer?
    pub(super) fn is_group_asked_for(&self, now: Instant) -> bool {
        match self.step {
            Step::Resolve { sent } => sent > 0,
            Step::Over => self.is_unanswered() && now < self.due,
            Step::Ask { .. } | Step::Probe { .. } => false,
        }
    }

    /// Was the whole round in vain, and is the time for the last answer over?
    pub(super) fn is_given_up(&self, now: Instant) -> bool {
        self.is_unanswered() && (self.step != Step::Over || self.due <= now)
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
