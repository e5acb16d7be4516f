//! What the daemon tells on its control socket: a read-only view of the engine and the interfaces,
//! as text, JSON or metrics, or as one line for a program.
//!
//! An answer may be larger than any buffer, so it is written in pieces. Each continues where the
//! one before ended. What comes or goes in between may be missing; what stays is there exactly
//! once.

mod client;
pub mod instance;
mod json;
mod listing;
mod metrics;
mod owners;
mod probe;
mod server;
mod streams;
mod text;

use std::fmt;
use std::net::Ipv6Addr;

use protocol::counters::Counter;
use protocol::engine::Engine;
use protocol::escaped::escape;
use protocol::link::{MAX_DOWNSTREAMS, Port, Side};
use protocol::mld::proxy::rows;
use protocol::ndp::kernel_entries::{KernelTable, Proxied};
use protocol::ndp::neighbors::{ASKS, Identity, Neighbor, Sender};
use protocol::ndp::solicited::Group;
use protocol::ndp::targets::Present;
use protocol::time::Instant;
use protocol::wire::{DropReason, MacAddress, SolicitedNode};

use crate::interfaces::State;
use crate::sys::decimal;
use crate::sys::netlink::Bridge;

use streams::Part;

pub use client::{AskError, ask_probe, connect, socket_of};
pub use listing::{instances, is_instance_name};
pub use probe::Probe;
pub use server::{Answers, BindError, SOURCES, Server, Source};
pub use streams::ForwardingTable;

/// The output of a piece: a buffer, which may be too short for it.
type Output<'b> = &'b mut dyn fmt::Write;

/// Everything there is to tell, as it is now.
pub struct View<'v> {
    /// The name of this instance.
    pub name: &'v str,
    /// The number of its network namespace.
    pub namespace: u64,
    pub engine: &'v Engine<'v>,
    pub started: Instant,
    pub now: Instant,
    /// The upstream has a carrier.
    pub upstream_running: bool,
    pub upstream_state: State,
    /// The kernel's number of the upstream; `None` if there is no such interface.
    pub upstream_index: Option<u32>,
    pub forwarding: ForwardingTable,
    pub downstreams: heapless::Vec<Downstream<'v>, MAX_DOWNSTREAMS>,
    /// The lines of the log that nobody took.
    pub log_lines_lost: u32,
}

#[cfg(test)]
impl<'v> View<'v> {
    /// A view with a usable upstream and no downstream.
    fn of(engine: &'v Engine<'v>, now: Instant) -> View<'v> {
        View {
            name: "",
            namespace: 0,
            engine,
            started: Instant::ZERO,
            now,
            upstream_running: true,
            upstream_state: State::Usable,
            upstream_index: Some(1),
            forwarding: match engine.config().mld_proxy {
                Some(_) => ForwardingTable::Owned,
                None => ForwardingTable::Unwanted,
            },
            downstreams: heapless::Vec::new(),
            log_lines_lost: 0,
        }
    }
}

/// A downstream, as it is now.
pub struct Downstream<'v> {
    pub name: &'v str,
    pub state: State,
    /// The kernel's number of it; `None` if there is no such interface.
    pub index: Option<u32>,
    /// It has a carrier.
    pub running: bool,
    pub link_local: Option<Ipv6Addr>,
    pub listening: bool,
    /// `None` if it is no bridge.
    pub bridge: Option<Bridge>,
    /// The packets that the capture had no room for.
    pub lost: u64,
}

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
    Metrics,
    /// What is wrong with the multicast part, for `mldproxy check`.
    Findings,
    /// One line for a program, see [`Probe`].
    Probe,
    /// The name of each downstream, one a line. No name holds an end of line.
    Downstreams,
}

/// A piece of an answer.
enum Piece<'v> {
    /// The instance and its upstream.
    Head,
    Downstream(&'v Downstream<'v>),
    Multicast(Part<'v>),
    Neighbors,
    Neighbor(Identity, &'v Neighbor, Sender),
    /// The head of the list of neighbors upstream.
    Targets,
    Target(Ipv6Addr, &'v Present),
    Groups,
    Group(SolicitedNode, &'v Group),
    /// A counter's name and value.
    Counter(&'static str, u64),
    Dropped(DropReason, u64),
    End,
}

/// How much of an answer has been written.
#[derive(Clone, Copy, Debug)]
pub struct Cursor {
    place: Place,
    /// The entries of the current list that have been written.
    listed: usize,
    /// The most entries of each list: streams, neighbors downstream, neighbors upstream, and
    /// groups.
    limit: usize,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Head,
    Downstream(usize),
    Multicast,
    MulticastLink(usize),
    Streams,
    Stream(rows::Place),
    /// The list of streams once more, for metrics of another name.
    Octets(rows::Place),
    Neighbors,
    /// The slot at which to look for the next one.
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

    /// Writes the next piece. If it does not fit, `output` is cut off, and the next call writes the
    /// same piece.
    fn write(&mut self, view: &View<'_>, format: Format, output: Output<'_>) -> fmt::Result {
        let whole = match format {
            Format::Probe => Some(probe::write(view, output)),
            Format::Downstreams => Some(write_downstreams(view, output)),
            Format::Text | Format::Json | Format::Metrics | Format::Findings => None,
        };
        if let Some(written) = whole {
            written?;
            self.place = Place::Beyond;
            return Ok(());
        }
        let (piece, next) = self.piece(view, format);
        if let Some(piece) = piece {
            let first = self.listed == 0;
            match format {
                Format::Text => text::write(view, &piece, first, output)?,
                Format::Json => json::write(view, &piece, first, output)?,
                Format::Metrics => metrics::write(view, &piece, first, output)?,
                Format::Findings => findings(view, &piece, output)?,
                Format::Probe | Format::Downstreams => {}
            }
            self.listed = self.listed.saturating_add(1);
        }
        // Each kind of piece has a list of its own.
        if std::mem::discriminant(&next) != std::mem::discriminant(&self.place) {
            self.listed = 0;
        }
        self.place = next;
        Ok(())
    }

    /// Writes as many pieces as fit. Returns their octets, 0 at the end.
    pub fn fill(&mut self, view: &View<'_>, format: Format, buffer: &mut [u8]) -> usize {
        let mut page = Page {
            octets: buffer,
            length: 0,
        };
        while !self.is_at_end() {
            let before = page.length;
            if self.write(view, format, &mut page).is_err() {
                // The piece did not fit behind the others. Alone, every piece fits.
                page.length = before;
                break;
            }
        }
        page.length
    }

    /// The piece at this place, if there is one, and the place after it.
    fn piece<'v>(&self, view: &'v View<'_>, format: Format) -> (Option<Piece<'v>>, Place) {
        let more = self.listed < self.limit;
        match self.place {
            Place::Head => (Some(Piece::Head), Place::Downstream(0)),
            Place::Downstream(number) => match view.downstreams.get(number) {
                Some(downstream) => (
                    Some(Piece::Downstream(downstream)),
                    Place::Downstream(number.saturating_add(1)),
                ),
                None => (None, Place::Multicast),
            },
            Place::Multicast => (
                Some(Piece::Multicast(Part::Head)),
                view.first_of_multicast(),
            ),
            Place::MulticastLink(number) => {
                let port = Port::try_from(number).ok();
                match port.zip(view.downstreams.get(number)) {
                    Some((port, downstream)) => (
                        Some(Piece::Multicast(Part::Link(port, downstream))),
                        Place::MulticastLink(number.saturating_add(1)),
                    ),
                    None => (None, Place::Streams),
                }
            }
            Place::Streams => (
                Some(Piece::Multicast(Part::List)),
                Place::Stream(rows::Place::START),
            ),
            Place::Stream(place) => match self.stream(view, format, place) {
                Some((row, next)) => (
                    Some(Piece::Multicast(Part::Stream(row))),
                    Place::Stream(next),
                ),
                None if format == Format::Metrics => (None, Place::Octets(rows::Place::START)),
                None => (None, Place::Neighbors),
            },
            Place::Octets(place) => match self.stream(view, format, place) {
                Some((row, next)) => (
                    Some(Piece::Multicast(Part::Octets(row))),
                    Place::Octets(next),
                ),
                None => (None, Place::Neighbors),
            },
            Place::Neighbors => (Some(Piece::Neighbors), Place::Neighbor(0)),
            Place::Neighbor(slot) => {
                let neighbors = view.engine.ndp().neighbors();
                match neighbors.iter_from(slot).next().filter(|_| more) {
                    Some((slot, identity, neighbor)) => {
                        let host = neighbors.host_of(neighbor);
                        let owner = host.map_or(Sender::default(), |(owner, _)| owner);
                        (
                            Some(Piece::Neighbor(identity, neighbor, owner)),
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
                        Some(Piece::Counter(counter.name(), value)),
                        Place::Counter(number.saturating_add(1)),
                    )
                }
                None => {
                    let lost = view.log_lines_lost.into();
                    (
                        Some(Piece::Counter("log_lines_lost", lost)),
                        Place::Dropped(0),
                    )
                }
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

    /// The first stream behind a place, unless enough are listed, and the place behind it.
    fn stream<'v>(
        &self,
        view: &'v View<'_>,
        format: Format,
        place: rows::Place,
    ) -> Option<(rows::Row<'v>, rows::Place)> {
        let most = match format {
            Format::Metrics => self.limit.min(streams::METRIC_STREAMS),
            Format::Text
            | Format::Json
            | Format::Findings
            | Format::Probe
            | Format::Downstreams => self.limit,
        };
        let proxy = view.engine.mld().streams().proxy();
        (self.listed < most).then(|| proxy.row(place)).flatten()
    }
}

fn write_downstreams(view: &View<'_>, out: Output<'_>) -> fmt::Result {
    let downstreams = &view.engine.config().downstreams;
    downstreams
        .iter()
        .try_for_each(|name| writeln!(out, "{}", name.as_str()))
}

/// Findings are of the multicast part alone.
fn findings(view: &View<'_>, piece: &Piece<'_>, out: Output<'_>) -> fmt::Result {
    match piece {
        Piece::Multicast(part) => streams::findings::write(view, part, out),
        Piece::Head
        | Piece::Downstream(_)
        | Piece::Neighbors
        | Piece::Neighbor(..)
        | Piece::Targets
        | Piece::Target(..)
        | Piece::Groups
        | Piece::Group(..)
        | Piece::Counter(..)
        | Piece::Dropped(..)
        | Piece::End => Ok(()),
    }
}

impl View<'_> {
    /// What follows the head of the multicast part.
    fn first_of_multicast(&self) -> Place {
        match self.is_mld_proxy() {
            true => Place::MulticastLink(0),
            false => Place::Neighbors,
        }
    }

    /// Seconds since `then`.
    fn seconds_since(&self, then: Instant) -> u64 {
        self.now.since(then).as_secs()
    }

    /// Seconds until the address expires, unless the host is seen.
    fn seconds_left(&self, neighbor: &Neighbor) -> u64 {
        let timeout = self.engine.config().address_timeout.as_secs();
        timeout.saturating_sub(self.seconds_since(neighbor.last_seen))
    }

    /// Where a neighbor stands between heard and expired.
    fn state_of(&self, identity: &Identity, neighbor: &Neighbor) -> &'static str {
        match (identity, neighbor.step.questions()) {
            (Identity::Address(address), _) if self.in_kernel(*address).0 => "proxied",
            (_, 0) if neighbor.is_confirmed() => "confirmed",
            (_, 0) => "heard",
            (_, 1..=ASKS) => "asked",
            _ => "probed",
        }
    }

    /// Whether the kernel has a proxy entry for an address, and whether it has a route.
    fn in_kernel(&self, address: Ipv6Addr) -> (bool, bool) {
        let proxied = self.engine.ndp().kernel_entries().get(address);
        let has = |proxied: &Proxied| (proxied.proxied, proxied.routed.is_some());
        proxied.map_or((false, false), has)
    }

    /// Whether the kernel refuses entries or routes.
    fn kernel_tables_fail(&self) -> bool {
        let ndp_proxy = self.engine.ndp().kernel_entries();
        let mut tables = [KernelTable::Proxies, KernelTable::Routes].into_iter();
        tables.any(|table| ndp_proxy.is_failing(table))
    }

    /// The name of a downstream.
    fn name_of(&self, port: Port) -> &str {
        let config = self.engine.config();
        config.name_of(Side::Downstream(port)).as_str()
    }
}

/// A buffer, filled up to `length`.
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

/// Reads a question: the form, and the most entries of each list. `None` if it is none.
pub fn parse_question(question: &[u8]) -> Option<(Format, usize)> {
    match question {
        b"probe" => return Some((Format::Probe, 0)),
        b"downstreams" => return Some((Format::Downstreams, 0)),
        _ => {}
    }
    let forms: [(&[u8], Format); 4] = [
        (b"text ", Format::Text),
        (b"json ", Format::Json),
        (b"metrics ", Format::Metrics),
        (b"findings ", Format::Findings),
    ];
    let asks = |(word, format): (&[u8], Format)| Some((format, question.strip_prefix(word)?));
    let (format, limit) = forms.into_iter().find_map(asks)?;
    Some((format, decimal(limit)? as usize))
}

/// A link-layer address in the usual notation.
pub struct Mac(pub MacAddress);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Mac(MacAddress([a, b, c, d, e, g])) = self;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// A name as a string of JSON (RFC 8259 §7).
struct Quoted<'n>(&'n str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_quoted(self.0, f, |shown| matches!(shown, "\"" | "\\"))
    }
}

/// A name as the value of a label. Metrics know the escapes of `"` and `\` alone, so the value of a
/// character that cannot be seen is its escape.
struct Label<'n>(&'n str);

impl fmt::Display for Label<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_quoted(self.0, f, |shown| shown.starts_with(['"', '\\']))
    }
}

/// Writes a text in quotation marks, with a `\` before each of the characters and escapes that
/// `needs_backslash` chooses.
fn write_quoted(text: &str, out: Output<'_>, needs_backslash: fn(&str) -> bool) -> fmt::Result {
    out.write_char('"')?;
    escape(text, &mut |shown| {
        if needs_backslash(shown) {
            out.write_char('\\')?;
        }
        out.write_str(shown)
    })?;
    out.write_char('"')
}

#[cfg(test)]
mod tests {
    use protocol::config::Config;

    use super::*;

    /// A piece that does not fit a buffer of the server would end the answer.
    #[test]
    fn every_piece_fits_whatever_the_interfaces_are_called() {
        let name = "\u{80}".repeat(7);
        let mut config = Config::new(name.parse().unwrap());
        config.downstreams.push(name.parse().unwrap()).unwrap();
        let mut tables = model::storage::new();
        let engine = Engine::new(&mut tables, config, [1; 16]);
        let mut view = View {
            name: &name,
            ..View::of(&engine, Instant::from_millis(u64::MAX))
        };
        let downstream = Downstream {
            name: &name,
            state: State::PartOf(u32::MAX),
            index: Some(u32::MAX),
            running: true,
            link_local: None,
            listening: true,
            bridge: None,
            lost: u64::MAX,
        };
        assert!(view.downstreams.push(downstream).is_ok());
        for (format, end) in [
            (Format::Text, "of 5120\n\n"),
            (Format::Json, "}}\n"),
            (Format::Metrics, "\"} 0\n"),
        ] {
            let (mut cursor, mut answer) = (Cursor::new(9999), Vec::new());
            // The server's buffers have room for two more gauges: of a querier, and of a refresh.
            let mut buffer = [0; 4096 - 400];
            while let length @ 1.. = cursor.fill(&view, format, &mut buffer) {
                answer.extend_from_slice(&buffer[..length]);
            }
            assert!(cursor.is_at_end(), "{format:?} breaks off");
            let answer = String::from_utf8(answer).unwrap();
            assert!(answer.ends_with(end), "{answer}");
        }
    }
}
