//! The MLD proxy: how long a stream takes to begin and to end, what is lost, and what it costs,
//! beside other programs that forward streams.

mod delays;
mod floor;
mod flow;
mod losses;
mod peers;
mod resources;

use std::net::Ipv6Addr;

use crate::lab::{DOWNSTREAM, GUEST, Process, StreamLab, StreamOptions, UPSTREAM};
use crate::support::start_between;

/// What listeners notice.
pub fn section() -> String {
    let parts = [delays::beginnings, delays::endings, losses::table];
    let parts: String = parts.into_iter().map(|part| part()).collect();
    format!(
        "## Streams\n\n\
         mldproxy with `--mld-proxy` forwards streams from the upstream to two bridges. One has a \
         host: a Linux host that joins and leaves by its kernel. Unless the text says otherwise, \
         the upstream floods: the stream arrives at the router before anybody wants it. smcroute \
         ({}) forwards the groups and sources of its configuration, whoever listens.\n\n{parts}",
        crate::package("smcroute"),
    )
}

/// What the router pays.
pub fn costs() -> String {
    let parts = [resources::memory, resources::changes, resources::idle];
    let parts: String = parts.into_iter().map(|part| part()).collect();
    format!("## What streams cost\n\n{parts}")
}

/// A home with a stream's sender upstream, and a host behind the first downstream.
fn home() -> StreamLab {
    StreamLab::new()
}

/// As [`home`], with a switch upstream that holds back what the router did not join.
fn snooping_home() -> StreamLab {
    StreamLab::with(&StreamOptions {
        upstream_querier: Some(2),
        ..StreamOptions::default()
    })
}

/// Starts `mldproxy run --mld-proxy OPTIONS wan br-lan guest` on the home's router.
#[track_caller]
fn start(home: &StreamLab, options: &[&str]) -> Process {
    let options = [&["--log-level", "info", "--mld-proxy"], options].concat();
    start_between(&home.lab.rtr, &options, &[UPSTREAM, DOWNSTREAM, GUEST])
}

/// Whether listeners name the source of a group.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Source-specific multicast (RFC 4607).
    Specific,
    /// Any source.
    Any,
}

impl Kind {
    /// The `number`th group of global scope.
    const fn group(self, number: u16) -> Ipv6Addr {
        let first = match self {
            Kind::Specific => 0xff3e,
            Kind::Any => 0xff0e,
        };
        Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0x4000, number)
    }
}
