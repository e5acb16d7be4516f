//! The prefixes of the upstream's addresses. With `--prefix upstream` the engine learns addresses
//! in these.

use log::{info, warn};
use protocol::config::MAX_PREFIXES;
use protocol::engine::{Engine, Event};
use protocol::link::Prefix;
use protocol::time::Instant;

use crate::run::report::Pace;

type Prefixes = heapless::Vec<Prefix, MAX_PREFIXES>;

/// The prefixes as the engine and the log know them.
#[derive(Default)]
pub struct UpstreamPrefixes {
    /// As the engine knows them; `None` before it was told.
    told: Option<Prefixes>,
    /// As the log has them.
    logged: Option<Prefixes>,
    pace: Pace,
}

impl UpstreamPrefixes {
    /// Tells the engine of the prefixes, if they changed. Returns whether they did.
    pub fn tell(&mut self, now: Instant, engine: &mut Engine<'_>, prefixes: Prefixes) -> bool {
        if self.told.as_ref() == Some(&prefixes) {
            return false;
        }
        engine.handle(now, Event::UpstreamPrefixes(&prefixes));
        self.told = Some(prefixes);
        true
    }

    /// Logs the prefixes, if they changed. Returns false if the lines have to wait.
    pub fn log(&mut self, now: Instant, engine: &Engine<'_>) -> bool {
        if self.told == self.logged {
            return true;
        }
        if !self.pace.allows(now) {
            return false;
        }
        self.logged.clone_from(&self.told);
        let name = &engine.config().upstream;
        let prefixes = self.logged.iter().flatten();
        for prefix in prefixes.clone() {
            info!("learning addresses in {prefix}, which is on {name}");
        }
        if prefixes.count() == 0 {
            warn!("waiting for a prefix on {name}: no address is learned without one");
        }
        true
    }
}
