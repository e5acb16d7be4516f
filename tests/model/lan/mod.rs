//! A network in stepped time: links, the hosts on them, and attackers among these.
//!
//! Each link is a bridge with ports. A unicast frame goes to the port where the bridge last heard
//! its destination, and to every port if it never did. A multicast frame goes to every port. So an
//! attacker sees only what reaches its own port, and with a forged source it draws to itself what
//! is sent to somebody else by unicast.
//!
//! The network takes what the engine sends from the [`Deed`]s of the [`Model`], and carries the
//! answers back. Nothing gets lost, and a frame takes no time on its way.

mod attacker;
mod host;

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use protocol::engine::{Action, Event};
use protocol::link::{Link, Port, Side};
use protocol::ndp;
use protocol::time::{Duration, Instant};
use protocol::wire::{MacAddress, Message, parse};

use crate::packets::heard;
use crate::{Deed, Model};

pub use attacker::{Answers, Attacker, Owner};
pub use host::{Arrival, Host};

/// Where a host or an attacker is attached: to a port of the bridge that a link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub side: Side,
    pub port: usize,
}

/// An Ethernet frame.
#[derive(Clone, Debug)]
pub struct Frame {
    pub source: MacAddress,
    /// `None` for a group.
    pub destination: Option<MacAddress>,
    pub packet: Vec<u8>,
}

/// What the router sent on a link to learn who is there.
#[derive(Clone, Debug)]
pub struct Sent {
    pub at: Instant,
    pub side: Side,
    /// Is it one of the questions to neighbors, not one for a target elsewhere?
    pub to_neighbor: bool,
    /// The link-layer address that it goes to; `None` for a group.
    pub destination: Option<MacAddress>,
    /// The target of a solicitation, or the address or group that a query goes to.
    pub target: Ipv6Addr,
}

/// Random numbers, from a generator of the caller.
pub struct Random(Box<dyn FnMut(u64) -> u64>);

impl Random {
    /// `below` returns a number below its argument.
    pub fn new(below: impl FnMut(u64) -> u64 + 'static) -> Self {
        Random(Box::new(below))
    }

    pub fn below(&mut self, end: u64) -> u64 {
        (self.0)(end)
    }

    /// Is it true this time, which it is once in so many?
    pub fn once_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }

    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }

    /// At least a millisecond, and less than `end`.
    pub fn delay(&mut self, end: Duration) -> Duration {
        let longest = end.as_millis().saturating_sub(1).max(1);
        Duration::from_millis(1 + self.below(longest))
    }
}

/// A link, whose bridge remembers at which port it heard a link-layer address last.
struct Bridge {
    side: Side,
    link: Link,
    learned: BTreeMap<[u8; 6], usize>,
}

/// The router and the links around it.
pub struct Lan<'t> {
    pub model: Model<'t>,
    pub hosts: Vec<Host>,
    pub attackers: Vec<Attacker>,
    pub random: Random,
    /// What the router sent so far. Whoever reads it takes it away.
    pub sent: Vec<Sent>,
    bridges: Vec<Bridge>,
    /// The frames to come, by when they are sent and then in their order.
    under_way: BTreeMap<(Instant, u64), (Place, Frame)>,
    frames: u64,
}

impl<'t> Lan<'t> {
    /// Brings up the upstream and all downstreams of a model.
    pub fn new(mut model: Model<'t>, random: Random) -> Self {
        let downstreams = model.engine.config().downstreams.len();
        let sides = (0..downstreams).map(|port| Side::Downstream(port as Port));
        let bridges: Vec<_> = [Side::Upstream]
            .into_iter()
            .chain(sides)
            .map(|side| Bridge {
                side,
                link: router_on(side),
                learned: BTreeMap::new(),
            })
            .collect();
        for Bridge { side, link, .. } in &bridges {
            model.handle(Event::Link(*side, Some(*link)));
        }
        Lan {
            model,
            hosts: Vec::new(),
            attackers: Vec::new(),
            random,
            sent: Vec::new(),
            bridges,
            under_way: BTreeMap::new(),
            frames: 0,
        }
    }

    /// A host comes to a place, and is heard as it arrives there.
    pub fn arrive(&mut self, host: usize, place: Place, arrival: Arrival) {
        let now = self.model.now;
        let router = router_on(place.side);
        let frames = self.hosts[host].arrive(now, place, arrival, &router, &mut self.random);
        self.schedule(place, frames);
    }

    /// A host goes, and nobody is told. What it was about to send is never sent.
    pub fn leave(&mut self, host: usize) {
        let host = &mut self.hosts[host];
        let (place, mac) = (host.place.take(), host.mac);
        self.under_way
            .retain(|_, (from, frame)| Some(*from) != place || frame.source != mac);
    }

    /// Lets time pass. After each event `check` looks at what has become of it, and ends this with
    /// an error.
    pub fn pass(
        &mut self,
        time: Duration,
        mut check: impl FnMut(&Self) -> Result<(), String>,
    ) -> Result<(), String> {
        let end = self.model.now.saturating_add(time);
        while let Some(next) = self.next_event().filter(|next| *next <= end) {
            self.model.now = self.model.now.max(next);
            self.turn();
            check(self)?;
        }
        self.model.now = end;
        Ok(())
    }

    /// When something happens next.
    fn next_event(&self) -> Option<Instant> {
        let deadline = self.model.next_deadline();
        let frame = self.under_way.keys().next().map(|(at, _)| *at);
        let speeches = self.hosts.iter().filter_map(Host::next_speech);
        let attacks = self.attackers.iter().map(|attacker| attacker.next);
        let times = deadline.into_iter().chain(frame);
        times.chain(speeches).chain(attacks).min()
    }

    /// One event, or a deadline.
    fn turn(&mut self) {
        let now = self.model.now;
        if self.model.next_deadline().is_some_and(|due| due <= now) {
            self.model.time_out();
            self.collect();
            return;
        }
        if let Some(frame) = self.under_way.first_entry()
            && frame.key().0 <= now
        {
            let (place, frame) = frame.remove();
            self.carry(place, &frame);
            return;
        }
        for number in 0..self.hosts.len() {
            let host = &mut self.hosts[number];
            if host.next_speech().is_some_and(|next| next <= now)
                && let Some(place) = host.place
            {
                let frame = host.speak(now, &router_on(place.side), &mut self.random);
                return self.carry(place, &frame);
            }
        }
        for number in 0..self.attackers.len() {
            let attacker = &mut self.attackers[number];
            if attacker.next <= now {
                let place = attacker.place;
                let router = router_on(place.side);
                let frame = attacker.attack(now, &router, &mut self.random);
                return self.carry(place, &frame);
            }
        }
    }

    /// Carries a frame from a place to whoever is on its link, and to the router.
    pub fn carry(&mut self, from: Place, frame: &Frame) {
        let number = bridge_of(from.side);
        let bridge = &mut self.bridges[number];
        bridge.learned.insert(frame.source.0, from.port);
        self.spread(from.side, Some(from.port), frame);
        if frame
            .destination
            .is_none_or(|mac| mac == router_on(from.side).mac)
        {
            let Frame { source, packet, .. } = frame;
            self.model.handle(heard(from.side, *source, packet));
            self.collect();
        }
    }

    /// Takes what the router sent since the last call, and carries it to the hosts.
    pub fn collect(&mut self) {
        for deed in std::mem::take(&mut self.model.deeds) {
            let Some((side, destination, to_neighbor)) = destination_of(&deed) else {
                continue;
            };
            let at = deed.at;
            match parse(&deed.packet) {
                Ok(Message::NeighborSolicitation(sent)) => self.sent.push(Sent {
                    at,
                    side,
                    to_neighbor,
                    destination,
                    target: sent.target,
                }),
                Ok(Message::Query(sent)) => self.sent.push(Sent {
                    at,
                    side,
                    to_neighbor,
                    destination,
                    target: sent.destination,
                }),
                Ok(Message::NeighborAdvertisement(_)) => {}
                other => panic!("the router sent {other:?}"),
            }
            let frame = Frame {
                source: router_on(side).mac,
                destination,
                packet: deed.packet,
            };
            self.spread(side, None, &frame);
        }
    }

    /// Has the hosts and attackers on a link hear a frame that came in at a port; `None` for the
    /// router's own.
    fn spread(&mut self, side: Side, from: Option<usize>, frame: &Frame) {
        let Ok(message) = parse(&frame.packet) else {
            return;
        };
        let now = self.model.now;
        let router = router_on(side);
        let bridge = &self.bridges[bridge_of(side)];
        let learned = frame.destination.map(|mac| bridge.learned.get(&mac.0));
        let is_reached = |place: Place| {
            place.side == side
                && match learned.flatten() {
                    Some(port) => *port == place.port,
                    None => Some(place.port) != from,
                }
        };
        let mut answers = Vec::new();
        for host in &mut self.hosts {
            if let Some(place) = host.place.filter(|place| is_reached(*place))
                && frame.destination.is_none_or(|mac| mac == host.mac)
            {
                let frames = host.hear(now, frame.source, &message, &router, &mut self.random);
                answers.extend(frames.into_iter().map(|frame| (place, frame)));
            }
        }
        for attacker in &self.attackers {
            if is_reached(attacker.place) && from.is_none() {
                let frames = attacker.hear(now, frame, &message, &router, &mut self.random);
                answers.extend(frames.into_iter().map(|frame| (attacker.place, frame)));
            }
        }
        for (place, frame) in answers {
            self.schedule(place, vec![frame]);
        }
    }

    fn schedule(&mut self, place: Place, frames: Vec<(Instant, Frame)>) {
        for (at, frame) in frames {
            self.frames += 1;
            self.under_way.insert((at, self.frames), (place, frame));
        }
    }
}

/// The router's own end of a link.
pub fn router_on(side: Side) -> Link {
    let number = bridge_of(side) as u16;
    Link {
        index: 7 + u32::from(number),
        link_local: Some(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0xff, number)),
        mtu: 1500,
        mac: MacAddress([2, 0, 0, 0, 0xff, number as u8]),
    }
}

fn bridge_of(side: Side) -> usize {
    match side {
        Side::Upstream => 0,
        Side::Downstream(port) => 1 + usize::from(port),
    }
}

/// The link on which the router sent a packet, the link-layer address it was for (`None` for a
/// group), and whether it is a question to a neighbor; `None` if nothing was sent there.
fn destination_of(deed: &Deed) -> Option<(Side, Option<MacAddress>, bool)> {
    if !deed.succeeded {
        return None;
    }
    match deed.action {
        Action::Ndp(ndp::Action::Ask { question, .. }) => {
            let (port, mac) = crate::sent::addressed_to(&question);
            Some((Side::Downstream(port), mac, true))
        }
        Action::Ndp(ndp::Action::Solicit { side, mac, .. }) => Some((side, mac, false)),
        Action::Ndp(ndp::Action::Advertise { side, mac, .. }) => Some((side, mac, false)),
        Action::Ndp(ndp::Action::Join(_) | ndp::Action::Leave(_) | ndp::Action::Kernel(_))
        | Action::Mld(_) => None,
    }
}
