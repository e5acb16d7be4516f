//! What the daemon reports about itself in the log, and how often.

use std::fmt;

use log::{info, warn};
use nix::errno::Errno;
use protocol::config::Config;
use protocol::engine::Engine;
use protocol::link::InterfaceName;
use protocol::time::{Duration, Instant};

use crate::interfaces::State;
use crate::sys::clock;

/// Logs a summary of the daemon's state.
pub fn log_summary(engine: &Engine<'_>) {
    let confirmed = engine
        .ndp()
        .neighbors()
        .iter()
        .filter(|(_, neighbor)| neighbor.is_confirmed());
    info!(
        "{}: {} groups, {} addresses and listeners ({} confirmed) of {} hosts, {:?} in force",
        Path(engine.config()),
        engine.ndp().groups().len(),
        engine.ndp().neighbors().len(),
        confirmed.count(),
        engine.ndp().neighbors().hosts().count(),
        engine.mld().host().version(engine.config()),
    );
    match engine.mld().host().querier() {
        Some(querier) => info!(
            "querier upstream: {}, last heard {} s ago",
            querier.address,
            clock::now().since(querier.last_query).as_secs()
        ),
        None => info!("querier upstream: none heard"),
    }
    for (name, value) in engine.counters().iter().filter(|(_, value)| *value > 0) {
        info!("{name} {value}");
    }
}

/// The links as a log line shows them: `br-lan, guest -> wan`.
pub struct Path<'c>(pub &'c Config);

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Path(config) = self;
        for (place, downstream) in config.downstreams.iter().enumerate() {
            let separator = if place == 0 { "" } else { ", " };
            write!(f, "{separator}{downstream}")?;
        }
        write!(f, " -> {}", config.upstream)
    }
}

/// Allows [`BURST`](Self::BURST) lines at once, and one each [`GAP`](Self::GAP) after that.
pub struct Pace {
    /// When a whole burst is allowed again.
    full_at: Instant,
}

impl Default for Pace {
    fn default() -> Self {
        let full_at = Instant::ZERO;
        Pace { full_at }
    }
}

impl Pace {
    const BURST: u32 = 10;
    const GAP: Duration = Duration::from_secs(60);

    pub fn allows(&mut self, now: Instant) -> bool {
        let full_at = self.full_at.max(now).saturating_add(Self::GAP);
        let allowed = full_at.since(now) <= Self::GAP.saturating_mul(Self::BURST);
        if allowed {
            self.full_at = full_at;
        }
        allowed
    }
}

/// An operation that may keep failing. Each reason is logged once until the operation works again.
#[derive(Default)]
pub struct Trouble {
    /// The reasons logged since the operation worked last.
    logged: heapless::Vec<Errno, 4>,
    pace: Pace,
}

impl Trouble {
    /// Logs a result if it is news. Returns whether it is a success.
    pub fn note(&mut self, result: nix::Result<()>, what: fmt::Arguments<'_>) -> bool {
        // The clock is read only if there is something to log.
        if self.is_change(result) && self.pace.allows(clock::now()) {
            match result {
                Ok(()) => {
                    self.logged.clear();
                    info!("{what} works again");
                }
                Err(errno) => {
                    // Without room for another reason, the log repeats that one at its pace.
                    let _ = self.logged.push(errno);
                    warn!("{what} failed, trying again: {}", errno.desc());
                }
            }
        }
        result.is_ok()
    }

    fn is_change(&self, result: nix::Result<()>) -> bool {
        match result {
            Ok(()) => !self.logged.is_empty(),
            Err(errno) => !self.logged.contains(&errno),
        }
    }
}

/// The state of an interface as the log has it.
#[derive(Default)]
pub struct LoggedState {
    state: Option<State>,
    pace: Pace,
}

impl LoggedState {
    /// Logs the state if it changed. Returns false if the line has to wait, since the state changes
    /// too often.
    pub fn note(&mut self, now: Instant, name: &InterfaceName, state: State) -> bool {
        let before = self.state.unwrap_or(State::Usable);
        if before != state {
            if !self.pace.allows(now) {
                return false;
            }
            match state {
                State::Missing => warn!("waiting for {name}"),
                State::PartOf(master) => warn!(
                    "{name} is part of interface number {master}, which receives its packets: name \
                     that one"
                ),
                State::Down | State::NoCarrier | State::SmallMtu(_) | State::NoLinkLocal => {
                    warn!("waiting for {name}: {state}");
                }
                State::Usable => info!("{name} is usable"),
            }
        }
        self.state = Some(state);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_at_once_until_there_are_too_many_and_then_now_and_then() {
        let mut pace = Pace::default();
        let mut allowed = |seconds| {
            let now = Instant::from_secs(seconds);
            (0..1000).filter(|_| pace.allows(now)).count()
        };
        assert_eq!(allowed(5), 10);
        assert_eq!(allowed(64), 0);
        assert_eq!(allowed(65), 1);
        assert_eq!(allowed(185), 2);
        assert_eq!(allowed(10_000), 10, "never more");
    }

    #[test]
    fn each_reason_of_a_failure_is_logged_once_until_it_works_again() {
        let mut trouble = Trouble::default();
        let mut lines = |result| {
            let before = trouble.pace.full_at;
            assert_eq!(trouble.note(result, format_args!("x")), result.is_ok());
            usize::from(trouble.pace.full_at != before)
        };
        assert_eq!(lines(Ok(())), 0);
        for expected in [1, 0, 0] {
            assert_eq!(lines(Err(Errno::ENODEV)), expected);
            assert_eq!(lines(Err(Errno::ENOBUFS)), expected);
        }
        assert_eq!(lines(Ok(())), 1);
        assert_eq!(lines(Ok(())), 0);
        assert_eq!(lines(Err(Errno::ENODEV)), 1);
    }

    #[test]
    fn how_things_stand_in_the_end_is_logged_however_often_they_changed() {
        let mut logged = LoggedState::default();
        let name = "wan".parse().unwrap();
        let mut note = |seconds, state| logged.note(Instant::from_secs(seconds), &name, state);
        assert!(note(0, State::Usable));
        for _ in 0..1000 {
            note(1, State::NoCarrier);
            note(1, State::Usable);
        }
        assert!(note(1, State::Usable), "which is what was logged last");
        assert!(!note(1, State::Down));
        assert!(note(61, State::Down));
        assert!(!note(62, State::Usable));
        assert!(note(62, State::Down), "nothing to add");
    }
}
