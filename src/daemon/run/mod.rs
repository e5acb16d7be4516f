//! The loop: wait, read, feed the engine, carry out its actions, repeat. One thread, one poll(2),
//! no heap.

mod bridges;
mod carry_out;
mod follow;
pub mod forwarding;
mod kernel_tables;
mod link;
mod news;
pub mod report;
pub mod rest;
pub mod shared_prefixes;
pub mod start;
pub mod sysctls;
mod upstream_prefixes;

use std::os::fd::AsFd as _;

use log::{info, warn};
use nix::sys::signal::Signal;
use protocol::engine::{self, Engine, Event};
use protocol::link::{MAX_DOWNSTREAMS, Port, Side};
use protocol::time::{Duration, Instant, earliest};

use crate::control::{self, Answers, Server, View};
use crate::interfaces::Interfaces;
use crate::run::bridges::OpenedBridge;
use crate::run::carry_out::Output;
use crate::run::forwarding::Forwarding;
use crate::run::kernel_tables::KernelTables;
use crate::run::link::{End, Links};
use crate::run::news::News;
use crate::run::report::log_summary;
use crate::run::rest::Rest;
use crate::run::sysctls::ProxySettings;
use crate::run::upstream_prefixes::UpstreamPrefixes;
use crate::sys::clock::{self, Moment};
use crate::sys::log::lines_lost;
use crate::sys::netlink::tables::Tables;
use crate::sys::netlink::{self, Dump, Netlink};
use crate::sys::packet::{Capture, Transmitter};
use crate::sys::readiness::{Ready, Until, Waited, wait};
use crate::sys::records::Records;
use crate::sys::signal::Signals;

pub use news::{begin, take_in};

/// The most packets of one link, and the most netlink messages, that a turn reads before the next
/// socket's turn. It is large, since a receive buffer that overflows loses packets, and to read is
/// cheap.
const BATCH: usize = 512;
/// The time until the loop retries what failed: to open a capture, to ask netlink, to log a line.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// How late a turn is that counts as a stall: as long as a host has to answer.
const STALL: Duration = Duration::from_secs(1);

/// A descriptor that the loop waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Signals,
    Netlink(Socket),
    Capture(Side),
    Control(control::Source),
}

/// One of the two netlink sockets.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Socket {
    /// The one on which the kernel reports changes.
    News,
    /// The one on which the other instances speak.
    Instance,
}

/// The most descriptors of one turn: three that are always there, the captures of the upstream and
/// of each downstream, and those of the control socket.
const SOURCES: usize = 3 + 1 + MAX_DOWNSTREAMS + control::SOURCES;

/// What is read and what is sent. The struct is large: put it in a static, not on the stack.
pub struct Buffers {
    /// Holds a netlink message, or a packet of any Ethernet.
    receive: [u8; netlink::BUFFER_LENGTH],
    transmit: [u8; engine::BUFFER_LENGTH],
    answers: Answers,
}

impl Buffers {
    pub const fn new() -> Self {
        Buffers {
            receive: [0; netlink::BUFFER_LENGTH],
            transmit: [0; engine::BUFFER_LENGTH],
            answers: Answers::new(),
        }
    }
}

/// The sockets that stay open from start to end.
pub struct Sockets<'s> {
    signals: Signals,
    netlink: Netlink,
    /// Hears the other instances.
    instance: Netlink,
    tables: Tables,
    transmitter: Transmitter,
    forwarding: Forwarding,
    /// The control socket, and the name of this instance.
    control: Option<(Server, &'s str)>,
}

impl<'s> Sockets<'s> {
    pub fn new(
        signals: Signals,
        (netlink, instance): (Netlink, Netlink),
        tables: Tables,
        (transmitter, forwarding): (Transmitter, Forwarding),
        control: Option<(Server, &'s str)>,
    ) -> Self {
        Sockets {
            signals,
            netlink,
            instance,
            tables,
            transmitter,
            forwarding,
            control,
        }
    }
}

/// The daemon while it runs.
pub struct EventLoop<'s> {
    engine: &'s mut Engine<'s>,
    buffers: &'s mut Buffers,
    started: Instant,
    signals: Signals,
    control: Option<(Server, &'s str)>,
    news: News,
    tables: KernelTables,
    output: Output,
    forwarding: Forwarding,
    interfaces: Interfaces,
    links: Links,
    /// The bridge of each downstream, at its [`Port`].
    bridges: heapless::Vec<OpenedBridge, MAX_DOWNSTREAMS>,
    prefixes: UpstreamPrefixes,
    settings: ProxySettings,
    records: Records,
    rest: Rest,
    /// When the loop retries what failed.
    retry: Option<Instant>,
    /// Whether every interface could be heard when the loop looked last; `None` before the first
    /// time.
    is_complete: Option<bool>,
}

impl<'s> EventLoop<'s> {
    /// Puts together the engine, whose configuration was checked, and the sockets.
    /// [`Self::begin`] it before its first turn.
    // Where it builds the value is not to stay on the stack beside the value.
    #[inline(never)]
    pub fn new(engine: &'s mut Engine<'s>, buffers: &'s mut Buffers, sockets: Sockets<'s>) -> Self {
        let config = engine.config();
        let (tables, instance) = (sockets.tables, sockets.instance);
        let tables = KernelTables::new(tables, instance, config, &mut buffers.receive);
        let records = Records::open(&sockets.netlink);
        let interfaces = Interfaces::new(config);
        let links = Links::new(config.downstreams.len());
        let bridges = config.downstreams.iter();
        let bridges = bridges.map(|_| OpenedBridge::default()).collect();
        EventLoop {
            engine,
            buffers,
            started: clock::now(),
            signals: sockets.signals,
            control: sockets.control,
            news: News::new(sockets.netlink),
            tables,
            output: Output::new(sockets.transmitter),
            forwarding: sockets.forwarding,
            interfaces,
            links,
            bridges,
            prefixes: UpstreamPrefixes::default(),
            settings: ProxySettings::default(),
            records,
            rest: Rest::default(),
            retry: None,
            is_complete: None,
        }
    }

    /// Asks the kernel for its links.
    pub fn begin(&mut self) {
        self.begin_forwarding();
        self.request_dump(self.started);
    }

    pub fn engine(&self) -> &Engine<'s> {
        self.engine
    }

    /// Begins, and runs until a signal asks for the end, then leaves all groups and restores the
    /// kernel's settings. Returns that signal. Fails only if poll(2) does.
    pub fn run(&mut self) -> nix::Result<Signal> {
        self.begin();
        let signal = loop {
            if let Some(signal) = self.turn()? {
                break signal;
            }
        };
        info!(
            "{signal}: leaving all groups ({})",
            self.engine.ndp().groups().len()
        );
        self.engine.end();
        self.act();
        self.clear_tables();
        self.output.memberships.leave_all();
        self.end_forwarding();
        self.restore_bridges();
        Ok(signal)
    }

    /// Waits until there is something to do, and does it. Returns the signal that asks for the end,
    /// if one came.
    pub fn turn(&mut self) -> nix::Result<Option<Signal>> {
        self.act();
        self.look_with_refresh();
        if let Some(rest) = self.rest.take() {
            clock::sleep(rest);
        }
        let deadline = self.deadline();
        let timeout = deadline.map(|deadline| deadline.since(clock::now()));
        let ready: Ready<Source, SOURCES> = wait(self.descriptors(), timeout)?;
        // Read once a turn: on some routers to read the clock is a system call.
        let mut began = Moment::now();
        if self.leave_out_stall(began.instant(), deadline) {
            began = Moment::now();
        }
        let now = began.instant();
        if ready.contains(&Source::Signals) {
            match self.signals.receive() {
                Some(Signal::SIGHUP) => {
                    info!("SIGHUP: asking all hosts and reporting all groups anew");
                    self.news.want(Dump::Links);
                    self.engine.handle(now, Event::Renew);
                }
                Some(Signal::SIGUSR1) => log_summary(self.engine),
                None => {}
                Some(signal) => return Ok(Some(signal)),
            }
        }
        for socket in [Socket::News, Socket::Instance] {
            if ready.contains(&Source::Netlink(socket)) {
                self.read_netlink(now, socket);
            }
        }
        let has_news = ready.contains(&Source::Netlink(Socket::News));
        if has_news || self.retry.is_some_and(|due| due <= now) {
            self.retry = None;
            self.follow_interfaces(now);
        }
        self.request_dump(now);
        let mut has_read = false;
        let downstreams = (0..self.links.downstreams.len() as Port).map(Side::Downstream);
        for side in std::iter::once(Side::Upstream).chain(downstreams) {
            if ready.contains(&Source::Capture(side)) {
                has_read |= self.read_capture(now, side);
            }
        }
        if has_read {
            self.rest.note_packets(began);
        }
        self.engine.handle_timeout(now);
        self.serve_control(now, &|source| ready.contains(&Source::Control(source)));
        Ok(None)
    }

    /// The descriptors of this turn, listed from the state as it is now.
    fn descriptors(&self) -> impl Iterator<Item = Waited<'_, Source>> {
        let always = [
            (Source::Signals, self.signals.as_fd()),
            (Source::Netlink(Socket::News), self.news.netlink.as_fd()),
            (
                Source::Netlink(Socket::Instance),
                self.tables.instance.as_fd(),
            ),
        ];
        let captures = self.links.iter().filter_map(|link| {
            let capture = link.capture()?;
            Some((Source::Capture(link.side()), capture.as_fd()))
        });
        let readable = always.into_iter().chain(captures);
        let readable = readable.map(|(source, descriptor)| Waited {
            source,
            descriptor,
            until: Until::Readable,
        });
        let servers = self.control.iter();
        let control = servers.flat_map(|(server, _)| server.descriptors());
        let control = control.map(|waited| Waited {
            source: Source::Control(waited.source),
            descriptor: waited.descriptor,
            until: waited.until,
        });
        readable.chain(control)
    }

    /// Has the loop stood still, because the process was stopped or the system was busy? Then the
    /// clock leaves that time out: hosts that answered meanwhile were not heard yet. What is
    /// reported upstream is overdue.
    fn leave_out_stall(&mut self, now: Instant, deadline: Option<Instant>) -> bool {
        let late = deadline.map_or(Duration::ZERO, |deadline| now.since(deadline));
        if late < STALL {
            return false;
        }
        warn!(
            "this process stood still for {} s, which no host is charged with",
            late.as_secs()
        );
        clock::leave_out(late);
        self.engine.handle(clock::now(), Event::Stalled);
        true
    }

    /// The one deadline; `None` while nothing is due by itself.
    fn deadline(&self) -> Option<Instant> {
        let engine = self.engine.next_deadline().map(|(deadline, _)| deadline);
        let server = self.control.as_ref().map(|(server, _)| server);
        let client = server.and_then(Server::deadline);
        earliest(&[engine, self.retry, client])
    }

    fn try_again(&mut self, now: Instant) {
        let due = now.saturating_add(RETRY_INTERVAL);
        self.retry = earliest(&[self.retry, Some(due)]);
    }

    /// Reads what the capture of a link has heard, and acts on it. Returns whether there was any
    /// packet.
    fn read_capture(&mut self, now: Instant, side: Side) -> bool {
        let mut left = BATCH;
        while left > 0 {
            let Some(link) = self.links.get_mut(side) else {
                break;
            };
            let buffer = &mut self.buffers.receive;
            let (packets, end) = link.read(now, self.engine, buffer, left);
            left = left.saturating_sub(packets);
            match end {
                End::Empty => break,
                End::ToAct if left == 0 => break,
                End::ToAct => self.act(),
                End::Failed => {
                    self.try_again(now);
                    break;
                }
            }
        }
        left < BATCH
    }

    fn serve_control(&mut self, now: Instant, ready: &dyn Fn(control::Source) -> bool) {
        let Some((server, _)) = &self.control else {
            return;
        };
        let is_ready = server.descriptors().any(|waited| ready(waited.source));
        if !is_ready && server.deadline().is_none_or(|deadline| deadline > now) {
            return;
        }
        // The whole answer has the counts of its beginning: to list them takes long if there are
        // many.
        if server.may_be_asked(ready) {
            self.count_streams(now);
        }
        let Some((server, name)) = &mut self.control else {
            return;
        };
        let upstream = self.interfaces.upstream_interface();
        let downstreams = self.links.downstreams.iter();
        let downstreams = downstreams.zip(self.interfaces.downstreams());
        let view = View {
            name,
            namespace: server.namespace(),
            engine: self.engine,
            started: self.started,
            now,
            upstream_running: upstream.running,
            upstream_state: upstream.state(),
            upstream_index: upstream.index,
            forwarding: self.forwarding.table(),
            downstreams: downstreams
                .map(|(link, interface)| control::Downstream {
                    name: interface.name.as_str(),
                    state: interface.state(),
                    index: interface.index,
                    running: interface.running,
                    link_local: interface.link_local,
                    listening: link.capture().is_some(),
                    bridge: interface.bridge,
                    lost: link.capture().map_or(0, Capture::lost),
                })
                .collect(),
            log_lines_lost: lines_lost(),
        };
        server.serve(ready, &view, &mut self.buffers.answers);
    }
}
