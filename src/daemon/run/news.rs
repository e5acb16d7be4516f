//! What the kernel tells: dumps that the loop asks for, and changes as they happen. Each notice
//! goes to the interfaces, and to the engine if it concerns the engine.

use log::warn;
use nix::errno::Errno;
use protocol::engine::{Engine, Event};
use protocol::ndp::kernel_entries::{KernelTable, Listing};
use protocol::time::Instant;
use protocol::wire::MacAddress;

use super::{BATCH, EventLoop, Socket};
use crate::interfaces::Interfaces;
use crate::run::kernel_tables::{self, KernelTables};
use crate::run::report::Trouble;
use crate::run::shared_prefixes::SharedPrefixes;
use crate::sys::netlink::siblings::{Number, Told};
use crate::sys::netlink::{self, Dump, Netlink, Notice, PERMANENT_ROUTER};

/// The socket on which the kernel reports changes, and the dumps to ask for.
pub struct News {
    pub netlink: Netlink,
    /// The dump to ask for once the kernel has ended the one under way.
    wanted: Option<Dump>,
    /// The first dump of addresses has ended. What the daemon does not know of by now is not there.
    pub is_complete: bool,
    trouble: Trouble,
    shared_prefixes: SharedPrefixes,
}

impl News {
    /// News of which everything has yet to be dumped.
    pub fn new(netlink: Netlink) -> Self {
        News {
            netlink,
            wanted: Some(Dump::Links),
            is_complete: false,
            trouble: Trouble::default(),
            shared_prefixes: SharedPrefixes::default(),
        }
    }

    /// Wants a dump. Of two, the earlier one stays, since the later one follows it.
    pub fn want(&mut self, dump: Dump) {
        self.wanted = self.wanted.into_iter().chain([dump]).min();
    }

    /// Wants a dump, unless one is wanted already.
    pub fn want_at_least(&mut self, dump: Dump) {
        self.wanted.get_or_insert(dump);
    }

    /// Whether every dump that was wanted has ended. In the middle of a dump old facts stand beside
    /// new ones.
    pub fn is_settled(&self) -> bool {
        self.wanted.is_none() && !self.netlink.is_dumping()
    }
}

impl EventLoop<'_> {
    /// Reads what arrived on a netlink socket.
    pub(super) fn read_netlink(&mut self, now: Instant, from: Socket) {
        for _ in 0..BATCH {
            let EventLoop {
                engine,
                buffers,
                news,
                interfaces,
                tables,
                ..
            } = self;
            let KernelTables {
                tables,
                instance,
                siblings,
                is_listed,
                ..
            } = tables;
            let socket = match from {
                Socket::News => &mut news.netlink,
                Socket::Instance => instance,
            };
            let mut asked = None;
            let more = socket.receive(&mut buffers.receive, &mut |notice| {
                if let Notice::Sibling(Told::Hold { from }) = notice {
                    asked = Some(from);
                }
                let notice = if *is_listed {
                    notice
                } else {
                    kernel_tables::adopt(tables, engine, interfaces, siblings, notice)
                };
                news.is_complete |= matches!(notice, Notice::Dumped(Dump::Addresses));
                *is_listed |= matches!(notice, Notice::Dumped(Dump::Routes));
                news.shared_prefixes
                    .note(engine.config(), interfaces, &notice);
                let number = tables.number();
                let wanted = take_in(now, engine, interfaces, (number, *is_listed), &notice);
                news.wanted = news.wanted.into_iter().chain(wanted).min();
            });
            if let Some(from) = asked {
                self.hold_on(from);
            }
            match more {
                Ok(true) => {}
                Ok(false) => break,
                Err(errno) => {
                    let trouble = &mut self.news.trouble;
                    trouble.note(Err(errno), format_args!("netlink"));
                    self.news.want(Dump::Links);
                    break;
                }
            }
        }
    }

    /// Asks for the wanted dump, unless one is under way.
    pub(super) fn request_dump(&mut self, now: Instant) {
        let Some(dump) = self.news.wanted else { return };
        let requested = self.news.netlink.request(dump);
        if requested == Err(Errno::EBUSY) {
            // The end of the dump under way wakes the loop.
            return;
        }
        let trouble = &mut self.news.trouble;
        if !trouble.note(requested, format_args!("netlink")) {
            self.try_again(now);
            return;
        }
        begin(now, self.engine, &mut self.interfaces, dump);
        self.news.wanted = None;
    }
}

/// A dump begins. What it does not mention will not be there at its end.
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

/// Hands a notice to the interfaces and the engine. Returns the first dump that it makes necessary.
/// `number` is this instance's, and `listed` says whether its part of the kernel's tables was
/// listed before.
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

/// Tells the engine what concerns it.
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
            prefix_length,
            usable,
        }) => Some(Event::Own {
            index,
            address,
            prefix_length,
            present: usable,
        }),
        Notice::AddressDeleted { index, address } => Some(Event::Own {
            index,
            address,
            prefix_length: 128,
            present: false,
        }),
        Notice::Dumped(Dump::Addresses) => Some(Event::OwnKnown),
        Notice::Refused(errno) => {
            warn!(
                "changing a bridge: {}; set its mcast_router to {PERMANENT_ROUTER} by hand, or \
                 turn its snooping off",
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
