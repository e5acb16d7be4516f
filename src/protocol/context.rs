//! The context that the engine lends to every capability: the time, the settings, the links and the
//! counters.

use core::net::Ipv6Addr;

use crate::config::Config;
use crate::counters::Counters;
use crate::link::{Link, MAX_DOWNSTREAMS, Port, Side};
use crate::time::Instant;
use crate::wire::MacAddress;

/// The context of one engine, shared by its capabilities.
pub struct Context {
    /// The latest time that the caller passed in.
    pub now: Instant,
    pub config: Config,
    pub links: Links,
    pub counters: Counters,
}

impl Context {
    pub(crate) fn new(config: Config) -> Self {
        Context {
            now: Instant::ZERO,
            config,
            links: Links {
                upstream: None,
                downstreams: [None; MAX_DOWNSTREAMS],
            },
            counters: Counters::new(),
        }
    }

    /// Advances the time to `now`. Ignores a time before the latest.
    pub(crate) fn advance(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }
}

/// The links that the engine can use now.
pub struct Links {
    upstream: Option<Link>,
    downstreams: [Option<Link>; MAX_DOWNSTREAMS],
}

impl Links {
    pub fn upstream(&self) -> Option<&Link> {
        self.upstream.as_ref()
    }

    pub fn downstream(&self, port: Port) -> Option<&Link> {
        self.downstreams.get(usize::from(port))?.as_ref()
    }

    pub fn on(&self, side: Side) -> Option<&Link> {
        match side {
            Side::Upstream => self.upstream(),
            Side::Downstream(port) => self.downstream(port),
        }
    }

    /// The source addresses of packets on a link: link-local and link-layer. `None` while the link
    /// cannot send.
    pub fn source_on(&self, side: Side) -> Option<(Ipv6Addr, MacAddress)> {
        let link = self.on(side)?;
        Some((link.link_local?, link.mac))
    }

    /// Replaces the state of a link and returns the one before. `None` is a link that cannot be
    /// used.
    pub(crate) fn set(&mut self, side: Side, link: Option<Link>) -> Option<Link> {
        let known = match side {
            Side::Upstream => &mut self.upstream,
            Side::Downstream(port) => self.downstreams.get_mut(usize::from(port))?,
        };
        core::mem::replace(known, link)
    }
}
