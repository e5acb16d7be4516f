//! The prefixes of the upstream's addresses, where these decide which addresses are learned.

use log::{info, warn};
use protocol::config::MAX_PREFIXES;
use protocol::engine::{Engine, Event};
use protocol::link::Prefix;
use protocol::time::Instant;

use crate::run::report::Pace;

type Prefixes = heapless::Vec<Prefix, MAX_PREFIXES>;

/// What the engine and the log were told of them.
#[derive(Default)]
pub struct UpstreamPrefixes {
    /// As the engine was told last; `None` before the first time.
    told: Option<Prefixes>,
    /// As the log told last.
    said: Option<Prefixes>,
    pace: Pace,
}

impl UpstreamPrefixes {
    /// Tells the engine of the prefixes where they changed. Did they?
    pub fn tell(&mut self, now: Instant, engine: &mut Engine<'_>, prefixes: Prefixes) -> bool {
        if self.told.as_ref() == Some(&prefixes) {
            return false;
        }
        engine.handle(now, Event::UpstreamPrefixes(&prefixes));
        self.told = Some(prefixes);
        true
    }

    /// Logs the prefixes where they changed. False where the lines have to wait.
    pub fn log(&mut self, now: Instant, engine: &Engine<'_>) -> bool {
        if self.told == self.said {
            return true;
        }
        if !self.pace.allows(now) {
            return false;
        }
        self.said.clone_from(&self.told);
        let name = &engine.config().upstream;
        let prefixes = self.said.iter().flatten();
        for prefix in prefixes.clone() {
            info!("learning addresses in {prefix}, which is on {name}");
        }
        if prefixes.count() == 0 {
            warn!("waiting for a prefix on {name}: no address is learned without one");
        }
        true
    }
}
