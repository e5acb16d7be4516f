//! The lines of the log, and how they name things.

use core::fmt;

use log::warn;

use super::neighbors::{Identity, Refusal, Sender};
use super::solicited;
use crate::config::Config;

/// A neighbor as the log names it.
pub(super) struct Named(pub(super) Identity);

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Identity::Address(address) => address.fmt(f),
            Identity::Listener(group, _) => write!(f, "a listener to {group}"),
        }
    }
}

/// A group, and the address for which it is joined or left.
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

/// Logs which limit was reached, and which option changes it.
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
            "table full: more than {} new hosts or addresses a second; \
             some are learned later (--join-rate)",
            config.join_rate
        ),
        Refusal::Full => warn!(
            "table full with {neighbors} addresses in {groups} groups; new ones are not learned"
        ),
    }
}
