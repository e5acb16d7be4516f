//! What the engine says in the log, beside what is learned and joined.

use core::fmt;

use log::{info, warn};

use crate::config::{Config, MldVersion};
use crate::mld::host;
use crate::ndp::neighbors::{Refusal, Sender, Subject};
use crate::ndp::solicited;
use crate::time::{Duration, Instant};

/// Lets a line through once a minute.
pub(super) struct Throttle(Option<Instant>);

const INTERVAL: Duration = Duration::from_secs(60);

impl Throttle {
    pub(super) const fn new() -> Self {
        Throttle(None)
    }

    pub(super) fn allows(&mut self, now: Instant) -> bool {
        if self.0.is_some_and(|last| now.since(last) < INTERVAL) {
            return false;
        }
        self.0 = Some(now);
        true
    }
}

/// A subject as the log names it.
pub(super) struct Named(pub(super) Subject);

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Subject::Address(address) => address.fmt(f),
            Subject::Listener(group, _) => write!(f, "a listener to {group}"),
        }
    }
}

/// A group, and the address that it is joined or left for.
pub(super) struct Because<'a>(pub(super) &'a solicited::Change);

impl fmt::Display for Because<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Because(change) = self;
        match (change.join, change.address == change.group.group()) {
            (true, false) => write!(f, "{} for {}", change.group, change.address),
            (true, true) => write!(f, "{} for a listener", change.group),
            (false, false) => write!(f, "{}, {} was its last", change.group, change.address),
            (false, true) => write!(f, "{}, a listener was its last", change.group),
        }
    }
}

pub(super) fn log_change(change: host::Change) {
    match change {
        host::Change::Version(MldVersion::V1) => info!("MLDv1 is in force upstream"),
        host::Change::Version(MldVersion::V2) => info!("MLDv2 is in force upstream"),
        host::Change::QuerierHeard(address) => info!("{address} is the querier upstream"),
        host::Change::QuerierSilent(timeout) => info!(
            "no MLD query upstream for {} s; the groups are reported all the same",
            timeout.as_secs()
        ),
    }
}

/// Says which limit was reached, and how to change it.
pub(super) fn warn_of(
    refusal: Refusal,
    sender: Sender,
    config: &Config,
    neighbors: usize,
    groups: usize,
) {
    match refusal {
        Refusal::HostQuota => warn!(
            "{} holds {} addresses and claims more, which are not learned (--per-mac)",
            sender.mac, config.per_mac
        ),
        Refusal::Rate => warn!(
            "table full: more than {} new hosts or addresses a second; some are learned later (--join-rate)",
            config.join_rate
        ),
        Refusal::Full => warn!(
            "table full with {neighbors} addresses in {groups} groups; new ones are not learned"
        ),
    }
}
