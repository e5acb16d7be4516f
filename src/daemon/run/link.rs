//! One struct for an interface that the loop follows, upstream and downstream alike: its capture,
//! and what the engine and the log know of it.

use nix::errno::Errno;
use protocol::engine::{Engine, Event};
use protocol::link::{InterfaceName, Link, MAX_DOWNSTREAMS, Port, Side};
use protocol::time::Instant;
use protocol::wire::MacAddress;

use crate::interfaces::Interface;
use crate::run::report::{LoggedState, Trouble};
use crate::sys::packet::{Capture, Interest};

pub struct FollowedLink {
    side: Side,
    /// The generation of the interface that the capture listens on.
    generation: u32,
    capture: Option<Capture>,
    capture_trouble: Trouble,
    /// The link as the engine knows it.
    told: Option<Link>,
    logged: LoggedState,
}

impl FollowedLink {
    /// A link of which the engine does not know yet.
    fn new(side: Side) -> Self {
        FollowedLink {
            side,
            generation: 0,
            capture: None,
            capture_trouble: Trouble::default(),
            told: None,
            logged: LoggedState::default(),
        }
    }

    fn name<'e>(&self, engine: &'e Engine<'_>) -> &'e str {
        engine.config().name_of(self.side).as_str()
    }

    pub fn side(&self) -> Side {
        self.side
    }

    /// The open capture; `None` while nothing can be heard.
    pub fn capture(&self) -> Option<&Capture> {
        self.capture.as_ref()
    }

    /// The link as the engine knows it.
    pub fn told(&self) -> Option<Link> {
        self.told
    }

    /// Closes the capture if the interface was replaced by another one, which may have the same
    /// number. Returns whether it was.
    pub fn renew(&mut self, generation: u32) -> bool {
        let is_another = self.generation != generation;
        if is_another {
            self.generation = generation;
            self.capture = None;
        }
        is_another
    }

    /// Tells the engine of the link, if it changed.
    pub fn tell(&mut self, now: Instant, engine: &mut Engine<'_>, link: Option<Link>) {
        if link != self.told {
            self.told = link;
            engine.handle(now, Event::Link(self.side, link));
        }
    }

    /// Opens or closes the capture, as the interface's number asks for. Returns false if it could
    /// not be opened.
    pub fn listen(&mut self, index: Option<u32>, interest: Interest, name: &InterfaceName) -> bool {
        if self.capture().map(Capture::index) == index {
            return true;
        }
        self.capture = None;
        let Some(index) = index else { return true };
        let opened = Capture::open(index, interest).map(|opened| self.capture = Some(opened));
        self.capture_trouble
            .note(opened, format_args!("listening on {name}"))
    }

    /// Logs whether the interface can be used, if that changed. Returns false if the line has to
    /// wait.
    pub fn note_state(&mut self, now: Instant, interface: &Interface) -> bool {
        self.logged.note(now, &interface.name, interface.state())
    }

    /// Hands packets to the engine: at most `budget`, and none after a packet on which the engine
    /// has to act. Returns how many it was, and why there were no more.
    pub fn read(
        &mut self,
        now: Instant,
        engine: &mut Engine<'_>,
        buffer: &mut [u8],
        budget: usize,
    ) -> (usize, End) {
        let Some(capture) = &self.capture else {
            return (0, End::Empty);
        };
        for packets in 0..budget {
            match capture.receive(buffer) {
                Ok(Some((packet, mac))) => {
                    let packet = Event::Packet {
                        side: self.side,
                        mac: MacAddress(mac),
                        packet,
                    };
                    engine.handle(now, packet);
                    if engine.has_to_act() {
                        return (packets.saturating_add(1), End::ToAct);
                    }
                }
                // A capture on a link that is down hears again once the link is up.
                Ok(None) | Err(Errno::ENETDOWN) => return (packets, End::Empty),
                Err(errno) => {
                    self.capture = None;
                    // The line that it works again follows when the capture is opened anew.
                    let what = format_args!("listening on {}", self.name(engine));
                    self.capture_trouble.note(Err(errno), what);
                    return (packets, End::Failed);
                }
            }
        }
        (budget, End::Empty)
    }
}

/// Why no more packets were read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Nothing is left to read, or the budget is spent.
    Empty,
    /// The engine has to act on what it was handed.
    ToAct,
    /// The capture failed and was closed.
    Failed,
}

/// The links of all interfaces that the user named.
pub struct Links {
    pub upstream: FollowedLink,
    /// The link of each downstream, at its [`Port`].
    pub downstreams: heapless::Vec<FollowedLink, MAX_DOWNSTREAMS>,
}

impl Links {
    /// Links for the upstream and for so many downstreams.
    pub fn new(downstreams: usize) -> Self {
        let ports = (0..).take(downstreams);
        let side = |port: Port| FollowedLink::new(Side::Downstream(port));
        Links {
            upstream: FollowedLink::new(Side::Upstream),
            downstreams: ports.map(side).collect(),
        }
    }

    /// The upstream, then the downstreams in the order of their ports.
    pub fn iter(&self) -> impl Iterator<Item = &FollowedLink> {
        std::iter::once(&self.upstream).chain(&self.downstreams)
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut FollowedLink> {
        std::iter::once(&mut self.upstream).chain(&mut self.downstreams)
    }

    /// The link of a side; `None` if there is no such downstream.
    pub fn get_mut(&mut self, side: Side) -> Option<&mut FollowedLink> {
        match side {
            Side::Upstream => Some(&mut self.upstream),
            Side::Downstream(port) => self.downstreams.get_mut(usize::from(port)),
        }
    }

    /// Whether the upstream is there and every downstream can be heard.
    pub fn are_complete(&self) -> bool {
        self.upstream.told.is_some() && self.downstreams.iter().all(|link| link.capture.is_some())
    }
}
