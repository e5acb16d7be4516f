//! What the daemon says of itself in the log.

use std::fmt;

use log::{info, warn};
use nix::errno::Errno;
use protocol::config::Config;
use protocol::engine::Engine;

use crate::sys::clock;

/// Says in the log how things stand.
pub fn log_summary(engine: &Engine) {
    let confirmed = engine
        .neighbors()
        .iter()
        .filter(|(_, neighbor)| neighbor.confirmed);
    info!(
        "{}: {} groups, {} addresses and listeners ({} confirmed) of {} hosts, {:?} in force",
        Path(engine.config()),
        engine.groups().len(),
        engine.neighbors().len(),
        confirmed.count(),
        engine.neighbors().hosts().count(),
        engine.listener().version(engine.config()),
    );
    match engine.listener().querier() {
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

/// `br-lan, guest -> wan`.
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

/// An operation that may keep failing: logged once for each change.
#[derive(Default)]
pub struct Trouble(Option<Errno>);

impl Trouble {
    /// Did it succeed?
    pub fn note(&mut self, result: nix::Result<()>, what: fmt::Arguments<'_>) -> bool {
        match result {
            Ok(()) => {
                if self.0.take().is_some() {
                    info!("{what} works again");
                }
                true
            }
            Err(errno) => {
                if self.0.replace(errno) != Some(errno) {
                    warn!("{what} failed, trying again: {}", errno.desc());
                }
                false
            }
        }
    }
}
