//! What the daemon tells of itself on its control socket: a read-only view of the engine and the interfaces, written as text, JSON or
//! metrics, or as one line for a program.
//!
//! An answer may be far larger than any buffer, so it is written piece by piece, each where the one before left off. What comes or
//! goes meanwhile may be in it or not; what stays is in it once.

mod client;
pub mod instance;
mod json;
mod metrics;
mod probe;
mod server;
mod text;

use std::fmt::{self, Write as _};
use std::net::Ipv6Addr;

use protocol::counters::Counter;
use protocol::engine::Engine;
use protocol::link::MAX_DOWNSTREAMS;
use protocol::ndp::kernel_entries::{KernelTable, Proxied};
use protocol::ndp::neighbors::{ASKS, Neighbor, Sender, Subject};
use protocol::ndp::solicited::Group;
use protocol::ndp::targets::Target;
use protocol::time::Instant;
use protocol::wire::{DropReason, MacAddress, SolicitedNode};

use crate::interfaces::State;
use crate::sys::decimal;
use crate::sys::netlink::Bridge;

pub use client::{ask_probe, connect, socket_of};
pub use probe::Probe;
pub use server::{Answers, BindError, SOURCES, Server, Source};

/// What an piece is written to: a buffer that may be too short for it.
type Output<'b> = &'b mut dyn fmt::Write;

/// Everything there is to tell, as it is now.
pub struct View<'v> {
    /// Of this instance.
    pub name: &'v str,
    pub engine: &'v Engine<'v>,
    pub started: Instant,
    pub now: Instant,
    /// The upstream has a carrier.
    pub upstream_running: bool,
    pub upstream_state: State,
    pub downstreams: heapless::Vec<Downstream<'v>, MAX_DOWNSTREAMS>,
}

#[cfg(test)]
impl<'v> View<'v> {
    /// With a usable upstream, and no downstream.
    fn of(engine: &'v Engine<'v>, now: Instant) -> View<'v> {
        View {
            name: "",
            engine,
            started: Instant::ZERO,
            now,
            upstream_running: true,
            upstream_state: State::Usable,
            downstreams: heapless::Vec::new(),
        }
    }
}

/// A downstream, as it is now.
pub struct Downstream<'v> {
    pub name: &'v str,
    pub state: State,
    /// It has a carrier.
    pub running: bool,
    pub link_local: Option<Ipv6Addr>,
    pub listening: bool,
    /// `None` where it is no bridge.
    pub bridge: Option<Bridge>,
    /// Packets that the kernel had no room for.
    pub lost: u64,
}

/// How to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
    Metrics,
    /// One line, see [`Probe`].
    Probe,
}

/// One thing to write.
enum Piece<'v> {
    /// The instance and its upstream.
    Head,
    Downstream(&'v Downstream<'v>),
    Neighbors,
    Neighbor(Subject, &'v Neighbor, Sender),
    /// The neighbors that were found upstream.
    Targets,
    Target(Ipv6Addr, &'v Target),
    Groups,
    Group(SolicitedNode, &'v Group),
    Counter(Counter, u64),
    Dropped(DropReason, u64),
    End,
}

/// How far an answer is written.
#[derive(Clone, Copy, Debug)]
pub struct Cursor {
    place: Place,
    /// How many there were of the list that it is in.
    listed: usize,
    /// The most neighbors, downstream and upstream each, and the most groups, to list.
    limit: usize,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Head,
    Downstream(usize),
    Neighbors,
    /// The slot from which the next one is looked for.
    Neighbor(usize),
    Targets,
    Target(usize),
    Groups,
    Group(usize),
    Counter(usize),
    Dropped(usize),
    End,
    Beyond,
}

impl Cursor {
    pub fn new(limit: usize) -> Self {
        Cursor {
            place: Place::Head,
            listed: 0,
            limit,
        }
    }

    fn is_at_end(&self) -> bool {
        matches!(self.place, Place::Beyond)
    }

    /// Writes the next piece. Where that fails, `output` is of no use from where it was, and the same piece comes again.
    fn write(&mut self, view: &View<'_>, format: Format, output: Output<'_>) -> fmt::Result {
        if format == Format::Probe {
            probe::write(view, output)?;
            self.place = Place::Beyond;
            return Ok(());
        }
        let (piece, next) = self.piece(view);
        if let Some(piece) = piece {
            let first = self.listed == 0;
            match format {
                Format::Text => text::write(view, &piece, first, output)?,
                Format::Json => json::write(view, &piece, first, output)?,
                Format::Metrics => metrics::write(view, &piece, first, output)?,
                Format::Probe => {}
            }
            self.listed = self.listed.saturating_add(1);
        }
        // Another kind of piece: another list.
        if std::mem::discriminant(&next) != std::mem::discriminant(&self.place) {
            self.listed = 0;
        }
        self.place = next;
        Ok(())
    }

    /// Writes as many pieces as fit; how many octets they are, none at the end.
    pub fn fill(&mut self, view: &View<'_>, format: Format, buffer: &mut [u8]) -> usize {
        let mut page = Page {
            octets: buffer,
            length: 0,
        };
        while !self.is_at_end() {
            let before = page.length;
            if self.write(view, format, &mut page).is_err() {
                // It does not fit behind the others. Alone, each does.
                page.length = before;
                break;
            }
        }
        page.length
    }

    /// The piece at the place, if there is one, and the next place.
    fn piece<'v>(&self, view: &'v View<'_>) -> (Option<Piece<'v>>, Place) {
        let more = self.listed < self.limit;
        match self.place {
            Place::Head => (Some(Piece::Head), Place::Downstream(0)),
            Place::Downstream(number) => match view.downstreams.get(number) {
                Some(downstream) => (
                    Some(Piece::Downstream(downstream)),
                    Place::Downstream(number.saturating_add(1)),
                ),
                None => (None, Place::Neighbors),
            },
            Place::Neighbors => (Some(Piece::Neighbors), Place::Neighbor(0)),
            Place::Neighbor(slot) => {
                let neighbors = view.engine.ndp().neighbors();
                match neighbors.iter_from(slot).next().filter(|_| more) {
                    Some((slot, subject, neighbor)) => {
                        let host = neighbors.host_of(neighbor);
                        let owner = host.map_or(Sender::default(), |(owner, _)| owner);
                        (
                            Some(Piece::Neighbor(subject, neighbor, owner)),
                            Place::Neighbor(slot.saturating_add(1)),
                        )
                    }
                    None => (None, Place::Targets),
                }
            }
            Place::Targets => (Some(Piece::Targets), Place::Target(0)),
            Place::Target(slot) => {
                let mut targets = view.engine.ndp().targets().present_from(slot);
                match targets.next().filter(|_| more) {
                    Some((slot, address, target)) => (
                        Some(Piece::Target(address, target)),
                        Place::Target(slot.saturating_add(1)),
                    ),
                    None => (None, Place::Groups),
                }
            }
            Place::Groups => (Some(Piece::Groups), Place::Group(0)),
            Place::Group(slot) => {
                match view
                    .engine
                    .ndp()
                    .groups()
                    .iter_from(slot)
                    .next()
                    .filter(|_| more)
                {
                    Some((slot, group, state)) => (
                        Some(Piece::Group(group, state)),
                        Place::Group(slot.saturating_add(1)),
                    ),
                    None => (None, Place::Counter(0)),
                }
            }
            Place::Counter(number) => match Counter::ALL.get(number) {
                Some(&counter) => {
                    let value = view.engine.counters().get(counter);
                    (
                        Some(Piece::Counter(counter, value)),
                        Place::Counter(number.saturating_add(1)),
                    )
                }
                None => (None, Place::Dropped(0)),
            },
            Place::Dropped(number) => match DropReason::ALL.get(number) {
                Some(&reason) => {
                    let value = view.engine.counters().dropped(reason);
                    (
                        Some(Piece::Dropped(reason, value)),
                        Place::Dropped(number.saturating_add(1)),
                    )
                }
                None => (None, Place::End),
            },
            Place::End => (Some(Piece::End), Place::Beyond),
            Place::Beyond => (None, Place::Beyond),
        }
    }
}

impl View<'_> {
    /// Seconds since `then`.
    fn seconds_since(&self, then: Instant) -> u64 {
        self.now.since(then).as_secs()
    }

    /// Seconds until a neighbor times out, if nothing is seen of it.
    fn seconds_left(&self, neighbor: &Neighbor) -> u64 {
        let timeout = self.engine.config().address_timeout.as_secs();
        timeout.saturating_sub(self.seconds_since(neighbor.last_seen))
    }

    /// How far a neighbor is on its way from being heard to being kept, or forgotten.
    fn state_of(&self, subject: &Subject, neighbor: &Neighbor) -> &'static str {
        match (subject, neighbor.step.questions()) {
            (Subject::Address(address), _) if self.in_kernel(*address).0 => "proxied",
            (_, 0) if neighbor.is_confirmed() => "confirmed",
            (_, 0) => "heard",
            (_, 1..=ASKS) => "asked",
            _ => "probed",
        }
    }

    /// What the kernel's tables have for an address: is it answered for, and is there a route?
    fn in_kernel(&self, address: Ipv6Addr) -> (bool, bool) {
        let proxied = self.engine.ndp().kernel_entries().get(address);
        let has = |proxied: &Proxied| (proxied.proxied, proxied.routed.is_some());
        proxied.map_or((false, false), has)
    }

    /// Does the kernel refuse entries or routes?
    fn kernel_tables_fail(&self) -> bool {
        let ndp_proxy = self.engine.ndp().kernel_entries();
        let mut tables = [KernelTable::Proxies, KernelTable::Routes].into_iter();
        tables.any(|table| ndp_proxy.is_failing(table))
    }

    /// The name of the downstream of a host.
    fn downstream_of(&self, host: &Sender) -> &str {
        let downstream = self.downstreams.get(usize::from(host.port));
        downstream.map_or("", |downstream| downstream.name)
    }
}

/// A buffer being filled.
struct Page<'b> {
    octets: &'b mut [u8],
    length: usize,
}

impl fmt::Write for Page<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.octets.get_mut(self.length..).unwrap_or_default();
        room.get_mut(..text.len())
            .ok_or(fmt::Error)?
            .copy_from_slice(text.as_bytes());
        self.length = self.length.saturating_add(text.len());
        Ok(())
    }
}

/// What a client asks: in which form, and for how many neighbors and groups.
pub fn parse_question(question: &[u8]) -> Option<(Format, usize)> {
    if question == b"probe" {
        return Some((Format::Probe, 0));
    }
    let forms: [(&[u8], Format); 3] = [
        (b"text ", Format::Text),
        (b"json ", Format::Json),
        (b"metrics ", Format::Metrics),
    ];
    let asks = |(word, format): (&[u8], Format)| Some((format, question.strip_prefix(word)?));
    let (format, limit) = forms.into_iter().find_map(asks)?;
    Some((format, decimal(limit)? as usize))
}

/// A link-layer address as people write it.
pub struct Mac(pub MacAddress);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Mac(MacAddress([a, b, c, d, e, g])) = self;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// A name between quotation marks, in JSON as in a metric's label. One of an interface holds neither white space nor control
/// characters.
pub struct Quoted<'n>(pub &'n str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for character in self.0.chars() {
            if matches!(character, '"' | '\\') {
                f.write_char('\\')?;
            }
            f.write_char(character)?;
        }
        f.write_char('"')
    }
}
