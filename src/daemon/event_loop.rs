//! The loop: wait, read, feed the engine, drain its actions, repeat. One thread, one poll(2), no heap.

use std::fmt;
use std::os::fd::AsFd;

use log::{debug, info, warn};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use protocol::config::{Config, MAX_DOWNSTREAMS, Port};
use protocol::engine::{self, Action, Engine, Event};
use protocol::listener::Upstream;
use protocol::time::{Duration, Instant};

use crate::interfaces::Interfaces;
use crate::sys::clock;
use crate::sys::membership::Memberships;
use crate::sys::netlink::{self, Dump, Netlink, Notice};
use crate::sys::packet::{Capture, Transmitter};
use crate::sys::signal::Signals;

/// How many packets of a downstream are taken in one go, before the others and the joins have their turn: more than a socket's
/// receive buffer holds by default (256 small ones), since to read is quick and to join is not, and what does not fit is lost.
const BATCH: usize = 512;
/// Until a capture that could not be opened is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// What is read and what is sent. It is large: put it in a static, not on the stack.
pub struct Buffers {
    /// For netlink messages and, one at a time, packets: larger than those of any Ethernet.
    receive: [u8; netlink::BUFFER_LENGTH],
    transmit: [u8; engine::BUFFER_LENGTH],
}

impl Buffers {
    pub const fn new() -> Self {
        Buffers {
            receive: [0; netlink::BUFFER_LENGTH],
            transmit: [0; engine::BUFFER_LENGTH],
        }
    }
}

/// All that the daemon holds open, and the engine.
pub struct EventLoop<'s> {
    engine: &'s mut Engine,
    buffers: &'s mut Buffers,
    signals: Signals,
    netlink: Netlink,
    transmitter: Transmitter,
    memberships: Memberships,
    /// One for each downstream that is there, at its [`Port`].
    captures: heapless::Vec<Option<Capture>, MAX_DOWNSTREAMS>,
    interfaces: Interfaces,
    /// As the engine was told last.
    upstream: Option<Upstream>,
    /// A dump that is to be made as soon as the kernel is free for it.
    dump: Option<Dump>,
    /// The first dumps have ended, so what is not known of is not there.
    dumped: bool,
    /// Was every interface there when last looked at?
    complete: Option<bool>,
    capture_retry: Option<Instant>,
    capture_trouble: Trouble,
    membership_trouble: Trouble,
    transmit_trouble: Trouble,
}

impl<'s> EventLoop<'s> {
    /// Puts the engine, started with a checked configuration, and the sockets together, and asks for the interfaces.
    pub fn new(
        engine: &'s mut Engine,
        buffers: &'s mut Buffers,
        signals: Signals,
        netlink: Netlink,
        transmitter: Transmitter,
    ) -> Self {
        let interfaces = Interfaces::new(engine.config());
        let captures = engine.config().downstreams.iter().map(|_| None).collect();
        let mut event_loop = EventLoop {
            engine,
            buffers,
            signals,
            netlink,
            transmitter,
            memberships: Memberships::new(),
            captures,
            interfaces,
            upstream: None,
            dump: Some(Dump::Links),
            dumped: false,
            complete: None,
            capture_retry: None,
            capture_trouble: Trouble::default(),
            membership_trouble: Trouble::default(),
            transmit_trouble: Trouble::default(),
        };
        event_loop.request_dump();
        event_loop
    }

    pub fn engine(&self) -> &Engine {
        self.engine
    }

    /// Runs until a signal asks for the end, and leaves all groups; that signal. Fails only where poll(2) cannot be called at all.
    pub fn run(&mut self) -> nix::Result<Signal> {
        let signal = loop {
            if let Some(signal) = self.turn()? {
                break signal;
            }
        };
        info!(
            "{signal}: leaving all groups ({})",
            self.engine.groups().len()
        );
        self.memberships.leave_all();
        Ok(signal)
    }

    /// Sleeps until there is something to do, and does it; the signal that asks for the end.
    pub fn turn(&mut self) -> nix::Result<Option<Signal>> {
        self.act();
        let ready = self.wait()?;
        if ready.signal
            && let Some(signal) = self.signals.receive()
        {
            return Ok(Some(signal));
        }
        if ready.netlink {
            self.read_netlink();
        }
        self.request_dump();
        self.follow_interfaces();
        for port in 0..self.captures.len() {
            if ready.captures & 1 << port != 0 {
                self.read_capture(port);
            }
        }
        self.engine.handle_timeout(clock::now());
        Ok(None)
    }

    /// Carries out all that the engine wants done.
    fn act(&mut self) {
        let EventLoop {
            engine, buffers, ..
        } = self;
        while let Some(action) = engine.poll_action(&mut buffers.transmit) {
            // The engine wants nothing done while there is no upstream.
            let index = self.upstream.map_or(0, |upstream| upstream.index);
            let name = &engine.config().upstream;
            let succeeded = match action {
                Action::Join(change) => self.membership_trouble.note(
                    self.memberships
                        .join(change.slot, change.group.group(), index),
                    format_args!("joining {} on {name}", change.group),
                ),
                Action::Leave(change) => self.membership_trouble.note(
                    self.memberships
                        .leave(change.slot, change.group.group(), index),
                    format_args!("leaving {} on {name}", change.group),
                ),
                Action::Transmit {
                    length,
                    destination,
                } => {
                    let packet = buffers.transmit.get(..length).unwrap_or_default();
                    debug!("reporting to {destination} on {name}, {length} octets");
                    self.transmit_trouble.note(
                        self.transmitter.send(index, destination, packet),
                        format_args!("sending on {name}"),
                    )
                }
            };
            engine.done(clock::now(), &action, succeeded);
        }
    }

    fn wait(&mut self) -> nix::Result<Ready> {
        let mut descriptors: heapless::Vec<PollFd<'_>, { MAX_DOWNSTREAMS + 2 }> =
            heapless::Vec::new();
        let mut ports: heapless::Vec<usize, MAX_DOWNSTREAMS> = heapless::Vec::new();
        let mut add = |descriptor| {
            // There is room for all.
            let _ = descriptors.push(PollFd::new(descriptor, PollFlags::POLLIN));
        };
        add(self.signals.as_fd());
        add(self.netlink.as_fd());
        for (port, capture) in self.captures.iter().enumerate() {
            if let Some(capture) = capture {
                add(capture.as_fd());
                let _ = ports.push(port);
            }
        }
        match poll(&mut descriptors, self.timeout()) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok(Ready::default()),
            Err(errno) => return Err(errno),
        }
        let mut ready = descriptors
            .iter()
            .map(|descriptor| descriptor.any().unwrap_or(true));
        let mut next = || ready.next().unwrap_or(false);
        let (signal, netlink) = (next(), next());
        let mut captures = 0;
        for port in ports {
            captures |= u32::from(next()) << port;
        }
        Ok(Ready {
            signal,
            netlink,
            captures,
        })
    }

    /// Until the one deadline; none where nothing is ever due by itself.
    fn timeout(&self) -> PollTimeout {
        let deadline = self.engine.next_deadline().map(|(deadline, _)| deadline);
        match deadline.into_iter().chain(self.capture_retry).min() {
            None => PollTimeout::NONE,
            Some(deadline) => {
                // A wake-up that comes early because it did not fit changes nothing.
                let left = deadline.since(clock::now());
                PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
            }
        }
    }

    fn read_netlink(&mut self) {
        loop {
            let EventLoop {
                netlink,
                interfaces,
                buffers,
                dumped,
                dump,
                ..
            } = self;
            let more = netlink.receive(&mut buffers.receive, |notice| {
                *dumped |= notice == Notice::Dumped(Dump::Addresses);
                match interfaces.handle(&notice) {
                    // A dump of the links brings one of the addresses with it.
                    Some(Dump::Addresses) if dump.is_some() => {}
                    Some(wanted) => *dump = Some(wanted),
                    None => {}
                }
            });
            match more {
                Ok(true) => {}
                Ok(false) => break,
                Err(errno) => {
                    warn!("reading netlink: {}", errno.desc());
                    self.dump = Some(Dump::Links);
                    break;
                }
            }
        }
    }

    fn request_dump(&mut self) {
        let Some(dump) = self.dump else { return };
        match self.netlink.request(dump) {
            Ok(()) => {
                self.interfaces.begin(dump);
                self.dump = None;
            }
            // Its end will wake the loop.
            Err(Errno::EBUSY) => {}
            Err(errno) => warn!("asking netlink: {}", errno.desc()),
        }
    }

    /// Brings memberships, captures and the engine in line with the interfaces that are there.
    fn follow_interfaces(&mut self) {
        let upstream = self.interfaces.upstream();
        if upstream != self.upstream {
            let index = |upstream: Option<Upstream>| upstream.map(|upstream| upstream.index);
            if index(upstream) != index(self.upstream) {
                self.memberships.leave_all();
            }
            self.upstream = upstream;
            self.engine.handle(clock::now(), Event::Upstream(upstream));
        }

        self.capture_retry = None;
        let names = &self.engine.config().downstreams;
        let downstreams = self.interfaces.downstreams().zip(names);
        for (capture, (index, name)) in self.captures.iter_mut().zip(downstreams) {
            if capture.as_ref().map(Capture::index) == index {
                continue;
            }
            *capture = None;
            let Some(index) = index else { continue };
            let opened = Capture::open(index).map(|opened| *capture = Some(opened));
            let what = format_args!("listening on {name}");
            if !self.capture_trouble.note(opened, what) {
                self.capture_retry = Some(clock::now().saturating_add(RETRY_INTERVAL));
            }
        }

        if !self.dumped {
            return;
        }
        let complete = self.upstream.is_some() && self.captures.iter().all(Option::is_some);
        if self.complete.replace(complete) == Some(complete) {
            return;
        }
        if complete {
            info!("proxying {}", Path(self.engine.config()));
        }
        for name in self.interfaces.missing() {
            warn!("waiting for {name}");
        }
    }

    fn read_capture(&mut self, port: usize) {
        let Some(place) = self.captures.get_mut(port) else {
            return;
        };
        for _ in 0..BATCH {
            let Some(capture) = place else { return };
            match capture.receive(&mut self.buffers.receive) {
                Ok(Some(packet)) => {
                    let port = port as Port;
                    self.engine
                        .handle(clock::now(), Event::Packet { port, packet });
                }
                Ok(None) => return,
                // It goes on by itself once the link is up again.
                Err(Errno::ENETDOWN) => return,
                Err(errno) => {
                    debug!("reading packets: {}; opening anew", errno.desc());
                    *place = None;
                }
            }
        }
    }
}

/// What is to be read.
#[derive(Default)]
struct Ready {
    signal: bool,
    netlink: bool,
    /// A bit for each [`Port`].
    captures: u32,
}

/// An operation that may keep failing: logged once for each change.
#[derive(Default)]
struct Trouble(Option<Errno>);

impl Trouble {
    /// Did it succeed?
    fn note(&mut self, result: nix::Result<()>, what: fmt::Arguments<'_>) -> bool {
        match result {
            Ok(()) => {
                if self.0.take().is_some() {
                    info!("{what} works again");
                }
                true
            }
            Err(errno) => {
                if self.0.replace(errno) != Some(errno) {
                    warn!("{what} failed, trying again: {}", errno.desc());
                }
                false
            }
        }
    }
}

/// `br-lan, guest -> wan`.
struct Path<'c>(&'c Config);

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Path(config) = self;
        for (place, downstream) in config.downstreams.iter().enumerate() {
            let separator = if place == 0 { "" } else { ", " };
            write!(f, "{separator}{downstream}")?;
        }
        write!(f, " -> {}", config.upstream)
    }
}
