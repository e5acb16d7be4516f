//! The loop: wait, read, feed the engine, drain its actions, repeat. One thread, one poll(2), no heap.

mod carry_out;
mod kernel_tables;
mod link;
pub mod report;
pub mod rest;
pub mod shared_prefixes;
pub mod sysctls;

use std::os::fd::AsFd as _;

use log::{info, warn};
use nix::errno::Errno;
use nix::sys::signal::Signal;
use protocol::config::MAX_PREFIXES;
use protocol::engine::{self, Engine, Event};
use protocol::link::Link;
use protocol::link::MAX_DOWNSTREAMS;
use protocol::link::{Port, Prefix, Side};
use protocol::ndp::kernel_entries::{KernelTable, Listing};
use protocol::time::{Duration, Instant, earliest};
use protocol::wire::MacAddress;

use crate::control::{self, Answers, Server, View};
use crate::interfaces::Interfaces;
use crate::run::report::{Pace, Said, Trouble, log_summary};
use crate::run::rest::Rest;
use crate::run::shared_prefixes::SharedPrefixes;
use crate::run::sysctls::ProxySettings;
use crate::sys::clock::{self, Moment};
use crate::sys::membership::Memberships;
use crate::sys::netlink::siblings::{Needs, Number, Siblings, Told};
use crate::sys::netlink::tables::Tables;
use crate::sys::netlink::{self, Dump, Netlink, Notice, PERMANENT_ROUTER};
use crate::sys::packet::{Capture, Transmitter};
use crate::sys::readiness::{Ready, Until, Waited, wait};
use crate::sys::records::Records;
use crate::sys::signal::Signals;

/// How many packets of a downstream are taken in one go, before the others and the joins have their turn: many, since to read is quick
/// and to join is not, and what does not fit a capture's receive buffer is lost.
const BATCH: usize = 512;
/// Until what failed is tried again: a capture to be opened, or netlink to be asked.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// A descriptor that the loop waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Signals,
    Netlink,
    /// The netlink socket that hears the other instances.
    Instance,
    Capture(Side),
    Control(control::Source),
}

/// How many descriptors there are at most: the three that are always there, the captures of the
/// upstream and of each downstream, and those of the control socket.
const SOURCES: usize = 3 + 1 + MAX_DOWNSTREAMS + control::SOURCES;

/// What is read and what is sent. It is large: put it in a static, not on the stack.
pub struct Buffers {
    /// For netlink messages and, one at a time, packets: larger than those of any Ethernet.
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

/// A downstream, as it is used.
#[derive(Default)]
struct DownstreamPort {
    capture: Option<Capture>,
    capture_trouble: Trouble,
    generation: u32,
    /// As the engine was told last.
    downstream: Option<Link>,
    said: Said,
    /// It was said that its bridge snoops by VLAN.
    warned_of_vlans: bool,
    /// The bridge's number, and its `mcast_router` before it was changed.
    changed_bridge: Option<(u32, u8)>,
    /// It was seen to be changed.
    is_open: bool,
}

/// What the daemon has open from its start to its end.
pub struct Sockets<'s> {
    signals: Signals,
    netlink: Netlink,
    /// Hears the other instances.
    instance: Netlink,
    tables: Tables,
    transmitter: Transmitter,
    /// The control socket, and the name of this instance on it.
    status: Option<(Server, &'s str)>,
}

impl<'s> Sockets<'s> {
    pub fn new(
        signals: Signals,
        (netlink, instance): (Netlink, Netlink),
        tables: Tables,
        transmitter: Transmitter,
        status: Option<(Server, &'s str)>,
    ) -> Self {
        Sockets {
            signals,
            netlink,
            instance,
            tables,
            transmitter,
            status,
        }
    }
}

/// All that the daemon holds open, and the engine.
pub struct EventLoop<'s> {
    engine: Engine<'s>,
    buffers: &'s mut Buffers,
    sockets: Sockets<'s>,
    started: Instant,
    memberships: Memberships,
    /// One for each downstream that is there, at its [`Port`].
    ports: heapless::Vec<DownstreamPort, MAX_DOWNSTREAMS>,
    /// Hears queries upstream.
    upstream_capture: Option<Capture>,
    upstream_capture_trouble: Trouble,
    interfaces: Interfaces,
    /// As the engine was told last.
    upstream: Option<Link>,
    upstream_said: Said,
    upstream_generation: u32,
    /// Once they are known.
    upstream_prefixes: Option<heapless::Vec<Prefix, MAX_PREFIXES>>,
    /// As the log told last.
    prefixes_said: (Option<heapless::Vec<Prefix, MAX_PREFIXES>>, Pace),
    /// A dump that is to be made as soon as the kernel is free for it.
    dump: Option<Dump>,
    /// The first dumps have ended, so what is not known of is not there.
    dumped: bool,
    /// Was every interface there when last looked at?
    complete: Option<bool>,
    /// This program's part of the kernel's tables was listed.
    listed: bool,
    /// When the refresh after the one that the tables were looked at with is due.
    next_refresh: Option<Instant>,
    /// The other instances in this network namespace.
    siblings: Siblings,
    settings: ProxySettings,
    records: Records,
    shared_prefixes: SharedPrefixes,
    rest: Rest,
    /// When what failed is to be tried again.
    retry: Option<Instant>,
    membership_trouble: Trouble,
    transmit_trouble: Trouble,
    netlink_trouble: Trouble,
    proxy_trouble: Trouble,
    route_trouble: Trouble,
}

impl<'s> EventLoop<'s> {
    /// Puts the engine, started with a checked configuration, and the sockets together, and asks for the interfaces.
    pub fn new(engine: Engine<'s>, buffers: &'s mut Buffers, sockets: Sockets<'s>) -> Self {
        let mut sockets = sockets;
        let needs = Needs::of_start(engine.config().ndp_proxy);
        let siblings = sockets.instance.ask_siblings(&needs, &mut buffers.receive);
        let records = Records::open(&sockets.netlink);
        let interfaces = Interfaces::new(engine.config());
        let downstreams = engine.config().downstreams.iter();
        let ports = downstreams.map(|_| DownstreamPort::default()).collect();
        let mut event_loop = EventLoop {
            engine,
            buffers,
            sockets,
            started: clock::now(),
            memberships: Memberships::new(),
            ports,
            upstream_capture: None,
            upstream_capture_trouble: Trouble::default(),
            interfaces,
            upstream: None,
            upstream_said: Said::default(),
            upstream_generation: 0,
            upstream_prefixes: None,
            prefixes_said: (None, Pace::default()),
            dump: Some(Dump::Links),
            dumped: false,
            complete: None,
            listed: false,
            next_refresh: None,
            siblings,
            settings: ProxySettings::default(),
            records,
            shared_prefixes: SharedPrefixes::default(),
            rest: Rest::default(),
            retry: None,
            membership_trouble: Trouble::default(),
            transmit_trouble: Trouble::default(),
            netlink_trouble: Trouble::default(),
            proxy_trouble: Trouble::default(),
            route_trouble: Trouble::default(),
        };
        event_loop.request_dump(event_loop.started);
        event_loop
    }

    pub fn engine(&self) -> &Engine<'s> {
        &self.engine
    }

    /// Runs until a signal asks for the end, and leaves all groups; that signal. Fails only where poll(2) does.
    pub fn run(&mut self) -> nix::Result<Signal> {
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
        let EventLoop {
            sockets,
            siblings,
            buffers,
            ..
        } = self;
        *siblings = sockets
            .instance
            .ask_siblings(&Needs::nothing(), &mut buffers.receive);
        self.clear_tables();
        self.memberships.leave_all();
        self.restore_bridges();
        Ok(signal)
    }

    /// Sleeps until there is something to do, and does it; the signal that asks for the end.
    pub fn turn(&mut self) -> nix::Result<Option<Signal>> {
        self.act();
        self.look_with_refresh();
        if let Some(rest) = self.rest.take() {
            clock::sleep(rest);
        }
        let ready: Ready<Source, SOURCES> = wait(self.descriptors(), self.timeout())?;
        // For all that is read in one go: to read the clock is a system call on some routers.
        let began = Moment::now();
        let now = began.instant();
        if ready.contains(&Source::Signals) {
            match self.sockets.signals.receive() {
                Some(Signal::SIGHUP) => {
                    info!("SIGHUP: asking all hosts and reporting all groups anew");
                    self.dump = Some(Dump::Links);
                    self.engine.handle(now, Event::Renew);
                }
                Some(Signal::SIGUSR1) => log_summary(&self.engine),
                None => {}
                Some(signal) => return Ok(Some(signal)),
            }
        }
        let is_told = ready.contains(&Source::Netlink);
        for source in [Source::Netlink, Source::Instance] {
            if ready.contains(&source) {
                self.read_netlink(now, source);
            }
        }
        if is_told || self.retry.is_some_and(|due| due <= now) {
            self.retry = None;
            self.follow_interfaces(now);
        }
        self.request_dump(now);
        let downstreams = (0..self.ports.len() as Port).map(Side::Downstream);
        let mut has_read = false;
        for side in std::iter::once(Side::Upstream).chain(downstreams) {
            if ready.contains(&Source::Capture(side)) {
                has_read |= self.read_capture(now, side);
            }
        }
        if has_read {
            self.rest.note_packets(began);
        }
        self.engine.handle_timeout(now);
        self.serve_status(now, &|source| ready.contains(&Source::Control(source)));
        Ok(None)
    }

    /// What is waited for in this turn, as state has it: nothing is registered anywhere.
    fn descriptors(&self) -> impl Iterator<Item = Waited<'_, Source>> {
        let Sockets {
            signals,
            netlink,
            instance,
            status,
            ..
        } = &self.sockets;
        let always = [
            (Source::Signals, signals.as_fd()),
            (Source::Netlink, netlink.as_fd()),
            (Source::Instance, instance.as_fd()),
        ];
        let upstream = (Side::Upstream, &self.upstream_capture);
        let downstreams = (0..).map(Side::Downstream);
        let downstreams = downstreams.zip(self.ports.iter().map(|port| &port.capture));
        let captures = std::iter::once(upstream).chain(downstreams);
        let captures = captures.filter_map(|(side, capture)| {
            let capture = capture.as_ref()?;
            Some((Source::Capture(side), capture.as_fd()))
        });
        let readable = always.into_iter().chain(captures);
        let readable = readable.map(|(source, descriptor)| Waited {
            source,
            descriptor,
            until: Until::Readable,
        });
        let servers = status.iter().flat_map(|(server, _)| server.descriptors());
        let control = servers.map(|waited| Waited {
            source: Source::Control(waited.source),
            descriptor: waited.descriptor,
            until: waited.until,
        });
        readable.chain(control)
    }

    /// Until the one deadline; none where nothing is ever due by itself.
    fn timeout(&self) -> Option<Duration> {
        let deadline = self.engine.next_deadline().map(|(deadline, _)| deadline);
        let client = self
            .sockets
            .status
            .as_ref()
            .and_then(|(server, _)| server.deadline());
        let deadline = earliest(&[deadline, self.retry, client])?;
        Some(deadline.since(clock::now()))
    }

    fn read_netlink(&mut self, now: Instant, source: Source) {
        for _ in 0..BATCH {
            let EventLoop {
                engine,
                sockets,
                interfaces,
                shared_prefixes,
                buffers,
                dumped,
                listed,
                dump,
                siblings,
                ..
            } = self;
            let tables = &sockets.tables;
            let netlink = match source {
                Source::Instance => &mut sockets.instance,
                _ => &mut sockets.netlink,
            };
            let mut asked = None;
            let more = netlink.receive(&mut buffers.receive, &mut |notice| {
                if let Notice::Sibling(Told::Hold { from }) = notice {
                    asked = Some(from);
                }
                let notice = if *listed {
                    notice
                } else {
                    kernel_tables::adopt(tables, engine, interfaces, siblings, notice)
                };
                *dumped |= matches!(notice, Notice::Dumped(Dump::Addresses));
                *listed |= matches!(notice, Notice::Dumped(Dump::Routes));
                shared_prefixes.note(engine.config(), interfaces, &notice);
                let number = tables.number();
                let wanted = take_in(now, engine, interfaces, (number, *listed), &notice);
                *dump = dump.iter().copied().chain(wanted).min();
            });
            if let Some(from) = asked {
                self.hold_on(from);
            }
            match more {
                Ok(true) => {}
                Ok(false) => break,
                Err(errno) => {
                    self.netlink_trouble
                        .note(Err(errno), format_args!("netlink"));
                    self.dump = Some(Dump::Links);
                    break;
                }
            }
        }
    }

    fn request_dump(&mut self, now: Instant) {
        let Some(dump) = self.dump else { return };
        let requested = self.sockets.netlink.request(dump);
        if requested == Err(Errno::EBUSY) {
            // Its end will wake the loop.
            return;
        }
        let what = format_args!("netlink");
        if !self.netlink_trouble.note(requested, what) {
            self.try_again(now);
            return;
        }
        begin(now, &mut self.engine, &mut self.interfaces, dump);
        self.dump = None;
    }

    fn try_again(&mut self, now: Instant) {
        let due = now.saturating_add(RETRY_INTERVAL);
        self.retry = earliest(&[self.retry, Some(due)]);
    }

    fn serve_status(&mut self, now: Instant, ready: &dyn Fn(control::Source) -> bool) {
        let Some((server, name)) = &mut self.sockets.status else {
            return;
        };
        let is_ready = server.descriptors().any(|waited| ready(waited.source));
        if !is_ready && server.deadline().is_none_or(|deadline| deadline > now) {
            return;
        }
        let ports = self.ports.iter().zip(self.interfaces.downstreams());
        let view = View {
            name,
            engine: &self.engine,
            started: self.started,
            now,
            upstream_running: self.interfaces.upstream_interface().running,
            upstream_state: self.interfaces.upstream_interface().state(),
            downstreams: ports
                .map(|(port, interface)| control::Downstream {
                    name: interface.name.as_str(),
                    state: interface.state(),
                    running: interface.running,
                    link_local: interface.link_local,
                    listening: port.capture.is_some(),
                    bridge: interface.bridge,
                    lost: port.capture.as_ref().map_or(0, Capture::lost),
                })
                .collect(),
        };
        server.serve(ready, &view, &mut self.buffers.answers);
    }

    /// Reads what a capture has heard, and acts on it. Was there any packet?
    fn read_capture(&mut self, now: Instant, side: Side) -> bool {
        let mut has_read = false;
        let mut left = BATCH;
        while left > 0 {
            let EventLoop {
                engine,
                interfaces,
                upstream_capture,
                upstream_capture_trouble,
                ports,
                buffers,
                ..
            } = self;
            let (capture, trouble) = match side {
                Side::Upstream => (upstream_capture, upstream_capture_trouble),
                Side::Downstream(port) => {
                    let Some(port) = ports.get_mut(usize::from(port)) else {
                        return has_read;
                    };
                    (&mut port.capture, &mut port.capture_trouble)
                }
            };
            let buffer = &mut buffers.receive;
            let read = read(capture, buffer, &mut left, |packet, mac| {
                has_read = true;
                let mac = MacAddress(mac);
                let event = match side {
                    Side::Upstream => Event::Packet {
                        side: Side::Upstream,
                        mac,
                        packet,
                    },
                    Side::Downstream(port) => Event::Packet {
                        side: Side::Downstream(port),
                        mac,
                        packet,
                    },
                };
                engine.handle(now, event);
                !engine.has_to_act()
            });
            if read.is_err() {
                // That it works again is said where it is opened anew.
                if let Some(interface) = interfaces.on(side) {
                    trouble.note(read, format_args!("listening on {}", interface.name));
                }
                self.try_again(now);
            }
            if left > 0 {
                self.act();
            }
        }
        has_read
    }
}

/// A dump starts: what it does not tell of is not there.
pub fn begin(now: Instant, engine: &mut Engine<'_>, interfaces: &mut Interfaces, dump: Dump) {
    interfaces.begin(dump);
    let event = match dump {
        Dump::Addresses => Some(Event::OwnUnknown),
        Dump::ProxiedNeighbors => Some(Event::Listed(KernelTable::Proxies, Listing::Begins)),
        Dump::Routes => Some(Event::Listed(KernelTable::Routes, Listing::Begins)),
        Dump::Links | Dump::Neighbors => None,
    };
    if let Some(event) = event {
        engine.handle(now, event);
    }
}

/// Takes in what the kernel told; the first of the dumps that are to be made because of it. `number` is this instance's, and `listed`
/// whether its part of the kernel's tables was listed before.
pub fn take_in(
    now: Instant,
    engine: &mut Engine<'_>,
    interfaces: &mut Interfaces,
    (number, listed): (Number, bool),
    notice: &Notice<'_>,
) -> Option<Dump> {
    let lists = !listed || kernel_tables::is_wanted(engine.config());
    let listing = kernel_tables::after(interfaces, notice).filter(|_| lists);
    tell_engine(now, engine, interfaces, number, notice);
    let wanted = interfaces.handle(notice);
    wanted.into_iter().chain(listing).min()
}

/// Tells the engine what of a notice is its business.
fn tell_engine(
    now: Instant,
    engine: &mut Engine<'_>,
    interfaces: &Interfaces,
    number: Number,
    notice: &Notice<'_>,
) {
    let event = match *notice {
        Notice::Neighbor {
            index,
            address,
            mac,
        } => interfaces.port_of(index).map(|port| Event::Remembered {
            port,
            mac: MacAddress(mac),
            address,
        }),
        Notice::NeighborDeleted { index, address } => {
            let port = interfaces.port_of(index);
            port.map(|_| Event::Forgotten(address))
        }
        Notice::Address(netlink::Address {
            index,
            address,
            usable,
            ..
        }) => Some(Event::Own {
            index,
            address,
            present: usable,
        }),
        Notice::AddressDeleted { index, address } => Some(Event::Own {
            index,
            address,
            present: false,
        }),
        Notice::Dumped(Dump::Addresses) => Some(Event::OwnKnown),
        Notice::Refused(errno) => {
            warn!(
                "changing a bridge: {}; set its mcast_router to {PERMANENT_ROUTER} by hand, or turn its snooping off",
                errno.desc()
            );
            None
        }
        Notice::ProxiedNeighbor { .. }
        | Notice::Route(_)
        | Notice::RouteDeleted(_)
        | Notice::Sibling(_)
        | Notice::Dumped(_) => kernel_tables::event(engine, interfaces, number, notice),
        Notice::Link(_) | Notice::LinkDeleted { .. } | Notice::Lost => None,
    };
    if let Some(event) = event {
        engine.handle(now, event);
    }
}

/// Hands on what a capture has heard, at most as many packets as are `left`, until `take` wants no more for now. None are left where
/// there are no more to be read. A capture that fails is closed.
fn read(
    capture: &mut Option<Capture>,
    buffer: &mut [u8],
    left: &mut usize,
    mut take: impl FnMut(&[u8], [u8; 6]) -> bool,
) -> nix::Result<()> {
    let mut budget = std::mem::take(left);
    let Some(opened) = capture else { return Ok(()) };
    while budget > 0 {
        budget -= 1;
        match opened.receive(buffer) {
            Ok(Some((packet, mac))) => {
                if !take(packet, mac) {
                    *left = budget;
                    break;
                }
            }
            // It goes on by itself once the link is up again.
            Ok(None) | Err(Errno::ENETDOWN) => break,
            Err(errno) => {
                *capture = None;
                return Err(errno);
            }
        }
    }
    Ok(())
}
