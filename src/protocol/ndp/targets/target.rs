//! What a host asks of a target, what is known of one, and how that ends.

use core::net::Ipv6Addr;

use super::ASKS;
use crate::link::Side;
use crate::ndp::links::Links;
use crate::ndp::neighbors::Sender;
use crate::time::Instant;
use crate::wire::MacAddress;

/// A solicitation that was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Solicitation {
    /// The link where it was heard.
    pub side: Side,
    /// Of the host that sent it.
    pub mac: MacAddress,
    /// `::` where the host detects duplicates of the target, which it wants to take
    /// (RFC 4862 §5.4.2).
    pub source: Ipv6Addr,
    pub target: Ipv6Addr,
}

/// How the time of a target ended without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Nobody has it.
    Unanswered,
    /// It was upstream.
    Gone,
}

/// Why a target is not asked for: a limit is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;

/// The host for which a target is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opener {
    pub side: Side,
    pub mac: MacAddress,
}

impl From<Solicitation> for Opener {
    fn from(solicitation: Solicitation) -> Self {
        let Solicitation { side, mac, .. } = solicitation;
        Opener { side, mac }
    }
}

impl From<Sender> for Opener {
    fn from(host: Sender) -> Self {
        let side = Side::Downstream(host.port);
        Opener {
            side,
            mac: host.mac,
        }
    }
}

/// What is known of a target that a host looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The router asks for it on the links where it may be.
    Asked(Asked),
    /// It did not answer.
    Absent(Absent),
    /// It is there, upstream.
    Present(Present),
}

/// A target that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The links where it is still to be asked for.
    to_ask: Links,
    /// The link where it is not asked for: the host that looked for it first is there, and the
    /// target would have answered that host.
    unasked: Option<Side>,
    /// The first host that resolves the target's address, which an answer goes to.
    asker: Option<Solicitation>,
    /// The downstreams where hosts detect duplicates of it.
    duplicates: Links,
    /// The host that it is asked for: the first that detects duplicates of it, or that looks for
    /// it.
    host: Opener,
}

/// A target that did not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Absent {
    /// The link where it was not asked for; `None` where it was on all.
    unasked: Option<Side>,
}

/// A target that is there, upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Present {
    pub mac: MacAddress,
    /// When it answered last.
    pub last_seen: Instant,
    /// Questions since then, up to [`ASKS`].
    asks: u8,
    /// Is the last of them still to be sent?
    to_ask: bool,
}

impl Target {
    /// One of which nothing is known yet.
    pub(super) const NEW: Target = Target::Absent(Absent { unasked: None });

    pub fn is_present(&self) -> bool {
        match self {
            Target::Present(_) => true,
            Target::Asked(_) | Target::Absent(_) => false,
        }
    }

    pub(super) fn is_asked_upstream(&self) -> bool {
        match self {
            Target::Asked(asked) => asked.unasked != Some(Side::Upstream),
            Target::Absent(_) | Target::Present(_) => false,
        }
    }

    /// Does a host downstream detect duplicates of it while it is asked for?
    pub(super) fn is_detecting(&self) -> bool {
        match self {
            Target::Asked(asked) => asked.duplicates != Links::NONE,
            Target::Absent(_) | Target::Present(_) => false,
        }
    }

    /// The host whose open target it is; `None` where it is not open.
    pub(super) fn opened_by(&self) -> Option<Opener> {
        match self {
            Target::Asked(asked) => Some(asked.host),
            Target::Absent(_) | Target::Present(_) => None,
        }
    }

    /// The one link where it was not asked for.
    pub(super) fn unasked(&self) -> Option<Side> {
        match self {
            Target::Asked(asked) => asked.unasked,
            Target::Absent(absent) => absent.unasked,
            Target::Present(_) => None,
        }
    }

    /// The host that an answer goes to.
    pub(super) fn asker(&self) -> Option<Solicitation> {
        match self {
            Target::Asked(asked) => asked.asker,
            Target::Absent(_) | Target::Present(_) => None,
        }
    }

    /// The downstreams where its host detects duplicates of it, and that host.
    pub(super) fn duplicates(&self) -> (Links, MacAddress) {
        match self {
            Target::Asked(asked) => (asked.duplicates, asked.host.mac),
            Target::Absent(_) | Target::Present(_) => (Links::NONE, MacAddress([0; 6])),
        }
    }

    /// The next link where it is to be asked for.
    pub(super) fn question(&self) -> Option<Side> {
        match self {
            Target::Asked(asked) => asked.to_ask.first(),
            Target::Present(present) => present.to_ask.then_some(Side::Upstream),
            Target::Absent(_) => None,
        }
    }

    /// A question was sent there.
    pub(super) fn asked_on(&mut self, side: Side) {
        match self {
            Target::Asked(asked) => asked.to_ask.remove(side),
            Target::Present(present) => present.to_ask = false,
            Target::Absent(_) => {}
        }
    }

    /// As it is once it is asked for on one more link, where another host looks for it.
    pub(super) fn asked_there_too(&self, link: Side, solicitation: Solicitation) -> Asked {
        let mut asked = match self {
            Target::Asked(asked) => *asked,
            Target::Absent(_) | Target::Present(_) => Asked::new(Links::NONE, None, solicitation),
        };
        asked.to_ask.insert(link);
        asked.unasked = None;
        asked.remember(solicitation);
        asked
    }
}

impl Asked {
    pub(super) fn new(to_ask: Links, unasked: Option<Side>, solicitation: Solicitation) -> Self {
        let mut asked = Asked {
            to_ask,
            unasked,
            asker: None,
            duplicates: Links::NONE,
            host: solicitation.into(),
        };
        asked.remember(solicitation);
        asked
    }

    /// Notes a host that is to be told that the target is there.
    pub(super) fn remember(&mut self, solicitation: Solicitation) {
        if solicitation.side == Side::Upstream {
            // The kernel answers there, once the target is known.
        } else if solicitation.source.is_unspecified() {
            // The first host that detects duplicates stays known as the one that does.
            if self.duplicates == Links::NONE {
                self.host = solicitation.into();
            }
            self.duplicates.insert(solicitation.side);
        } else {
            self.remember_first(solicitation);
        }
    }

    /// Notes a host that is to be told, unless another one is already.
    pub(super) fn remember_first(&mut self, solicitation: Solicitation) {
        self.asker.get_or_insert(solicitation);
    }

    /// As it is when nobody answered.
    pub(super) fn unanswered(&self) -> Target {
        Target::Absent(Absent {
            unasked: self.unasked,
        })
    }
}

impl Present {
    pub(super) fn new(now: Instant, mac: MacAddress) -> Self {
        Present {
            mac,
            last_seen: now,
            asks: 0,
            to_ask: false,
        }
    }

    /// Is it asked whether it is still there?
    pub(super) fn is_asked(&self) -> bool {
        self.asks > 0
    }

    /// As it is once it is asked, the first time or again; `None` where it was asked often enough.
    pub(super) fn ask_again(&self) -> Option<Target> {
        let again = Present {
            asks: self.asks.saturating_add(1),
            to_ask: true,
            ..*self
        };
        (self.asks < ASKS).then_some(Target::Present(again))
    }
}
