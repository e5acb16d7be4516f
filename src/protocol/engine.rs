//! The engine: one [`Event`] in, drain the [`Action`]s, sleep until the one deadline.
//!
//! It hands each event to the capabilities, [`Ndp`] and [`Mld`], and knows nothing of their
//! insides. Only the engine knows both of them: what one has to know of the other passes through
//! here.
//!
//! The engine does not queue actions but derives them from its state when polled. So no queue can
//! overflow, and an action that failed is still to be carried out.
//!
//! After every call that takes `&mut self`, the caller polls the actions until there are none, and
//! then asks for the deadline anew.

use core::net::Ipv6Addr;

use log::trace;

use crate::config::Config;
use crate::context::{Context, Links};
use crate::counters::Counters;
use crate::link::{Link, Port, Prefix, Side};
use crate::mld::{self, Mld};
use crate::ndp::kernel_entries::{KernelTable, Listing};
use crate::ndp::neighbors::Sender;
use crate::ndp::solicited::Groups;
use crate::ndp::{self, Ndp};
use crate::time::Instant;
use crate::wire::{self, MacAddress, Message, SolicitedNode};

/// Something that happened outside the engine.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A packet, which starts with its IPv6 header, was heard on a link. The sender's link-layer
    /// address is all zero on a link without them.
    Packet {
        side: Side,
        mac: MacAddress,
        packet: &'a [u8],
    },
    /// The state of a link is this now; `None` while the link cannot be used. A downstream link
    /// without a link-local address cannot be used.
    Link(Side, Option<Link>),
    /// The kernel's neighbor table lists an address downstream.
    Remembered {
        port: Port,
        mac: MacAddress,
        address: Ipv6Addr,
    },
    /// The kernel's neighbor table no longer lists an address.
    Forgotten(Ipv6Addr),
    /// An address is this router's own on the interface with this index, or is no longer. It may be
    /// its own on other interfaces as well.
    Own {
        index: u32,
        address: Ipv6Addr,
        /// Of the prefix on the interface's link, 0 to 128; 128 where none is.
        prefix_length: u8,
        present: bool,
    },
    /// The caller is about to tell all own addresses anew. Until [`Event::OwnKnown`], those known
    /// before count as well.
    OwnUnknown,
    /// The caller has told all own addresses. Those that it did not tell are no longer own.
    OwnKnown,
    /// The prefixes of the upstream link are these now. They count if [`Config::upstream_prefixes`]
    /// is set.
    UpstreamPrefixes(&'a [Prefix]),
    /// The kernel lists one of its tables.
    Listed(KernelTable, Listing),
    /// Another program removed a proxy entry or route that the engine wants.
    Removed(KernelTable, Ipv6Addr, Side),
    /// The kernel forwards multicast packets by the interface on a side, or no longer. An interface
    /// that was replaced is told of anew.
    Forwarding { side: Side, present: bool },
    /// The kernel has counted this on a forwarding entry; `::` stands for any source.
    Counted {
        source: Ipv6Addr,
        group: Ipv6Addr,
        counts: mld::proxy::Counts,
    },
    /// The user wants all hosts asked and all groups reported anew.
    Renew,
    /// The caller stood still, and has set its clock back by that time. All groups are reported
    /// anew, since the querier's clock ran on.
    Stalled,
}

/// An action for the caller to carry out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Ndp(ndp::Action),
    Mld(mld::Action),
}

/// What a deadline is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    Ndp(ndp::Reason),
    Mld,
}

/// The length in octets of the buffer that [`Engine::poll_action`] needs.
pub const BUFFER_LENGTH: usize = mld::host::MAX_PACKET;

/// What an [`Engine`] is kept in. The value is large and all zero bits. So a static one takes no
/// room in the file, and a page that is never used costs no memory.
pub struct Tables {
    ndp: ndp::Storage,
    mld: mld::Storage,
}

impl Tables {
    pub const fn new() -> Self {
        Tables {
            ndp: ndp::Storage::new(),
            mld: mld::Storage::new(),
        }
    }
}

/// All state of the protocol.
pub struct Engine<'t> {
    context: Context,
    ndp: Ndp<'t>,
    mld: Mld<'t>,
}

impl<'t> Engine<'t> {
    /// An engine with a [checked](Config::check) configuration, and a seed that nobody else can
    /// guess. Forgets what is in the tables.
    // Where it builds the value is not to stay on the stack beside the value.
    #[inline(never)]
    pub fn new(tables: &'t mut Tables, config: Config, seed: [u8; 16]) -> Self {
        Engine {
            ndp: Ndp::new(&mut tables.ndp, &config, seed),
            mld: Mld::new(&mut tables.mld, &config, seed),
            context: Context::new(config),
        }
    }

    /// Handles one event. A `now` before the latest time that the caller passed in counts as that
    /// time.
    pub fn handle(&mut self, now: Instant, event: Event<'_>) {
        let Engine { context, ndp, mld } = self;
        context.advance(now);
        match event {
            Event::Packet { side, mac, packet } => match wire::parse(packet) {
                Ok(message) => self.handle_message(side, mac, &message),
                Err(reason) => {
                    context.counters.count_dropped(reason);
                    trace!("{}", reason.name());
                }
            },
            Event::Link(side, link) => self.handle_link(side, link),
            Event::Remembered { port, mac, address } => {
                ndp.handle_remembered(context, Sender { port, mac }, address);
            }
            Event::Forgotten(address) => ndp.handle_forgotten(context, address),
            Event::Own {
                index,
                address,
                prefix_length,
                present,
            } => {
                ndp.handle_own(context, index, (address, prefix_length), present);
                mld.streams_mut().handle_own();
            }
            Event::OwnUnknown => ndp.handle_own_unknown(),
            Event::OwnKnown => {
                ndp.handle_own_known();
                mld.streams_mut().handle_own();
            }
            Event::UpstreamPrefixes(prefixes) => ndp.handle_prefixes(context, prefixes),
            Event::Listed(table, listing) => ndp.handle_listed(context, table, listing),
            Event::Removed(table, address, side) => ndp.handle_removed(table, address, side),
            Event::Forwarding { side, present } => {
                mld.streams_mut().handle_interface(context, side, present);
            }
            Event::Counted {
                source,
                group,
                counts,
            } => mld.streams_mut().handle_counted(source, group, counts),
            Event::Stalled => mld.handle_renew(context),
            Event::Renew => {
                ndp.handle_renew(context);
                mld.handle_renew(context);
            }
        }
        self.settle();
    }

    /// Does what is due at `now`. Harmless at any time.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.context.advance(now);
        self.ndp.handle_timeout(&mut self.context);
        self.mld.handle_timeout(&self.context);
        self.settle();
    }

    /// Notes that the caller is about to leave all groups, and passes no more events. The only
    /// actions from now on report that the groups are left.
    pub fn end(&mut self) {
        self.mld.end();
    }

    /// The next action; `None` if there is none. The caller carries it out, tells [`Self::done`]
    /// and polls again. Until then the same action is returned. `buffer` has at least
    /// [`BUFFER_LENGTH`] octets.
    pub fn poll_action(&mut self, buffer: &mut [u8]) -> Option<Action> {
        let Engine { context, ndp, mld } = self;
        if mld.is_ending() {
            return mld
                .poll_last_leaves(context, ndp.groups(), buffer)
                .map(Action::Mld);
        }
        match ndp.poll_action(context, buffer) {
            // MLD reports a leave before the caller carries it out.
            Some(ndp::Action::Leave(change)) if !mld.has_reported_leave(change.slot) => {
                let report = mld.poll_leaves(context, ndp.groups(), change.slot, buffer);
                let leave = Action::Ndp(ndp::Action::Leave(change));
                Some(report.map_or(leave, Action::Mld))
            }
            Some(action) => Some(Action::Ndp(action)),
            None => mld
                .poll_action(context, ndp.groups(), buffer)
                .map(Action::Mld),
        }
    }

    /// Notes that the action polled last succeeded, or failed and is to be retried.
    pub fn done(&mut self, now: Instant, action: &Action, succeeded: bool) {
        let Engine { context, ndp, mld } = self;
        context.advance(now);
        match action {
            Action::Ndp(action) => {
                if let Some(change) = ndp.done(context, action, succeeded) {
                    let group = (change.slot, change.group);
                    mld.handle_membership(context, ndp.groups(), group, change.join);
                }
            }
            Action::Mld(action) => {
                mld.done(context, ndp.groups(), action, succeeded);
                // What was done may have made room.
                if mld.streams().proxy().is_stale() {
                    mld.settle(context, &Whereabouts { ndp });
                }
            }
        }
    }

    /// When to call [`Self::handle_timeout`], and what for; `None` if nothing becomes due without
    /// an event.
    pub fn next_deadline(&self) -> Option<(Instant, Reason)> {
        let ndp = self.ndp.next_deadline(&self.context);
        let ndp = ndp.map(|(due, reason)| (due, Reason::Ndp(reason)));
        let mld = self.mld.next_deadline(&self.context);
        let mld = mld.map(|due| (due, Reason::Mld));
        ndp.into_iter().chain(mld).min_by_key(|(due, _)| *due)
    }

    /// Must the caller poll the actions before it passes the next packet? Otherwise more answers
    /// might become due than can wait.
    pub fn has_to_act(&self) -> bool {
        self.ndp.has_to_act()
    }

    pub fn config(&self) -> &Config {
        &self.context.config
    }

    pub fn links(&self) -> &Links {
        &self.context.links
    }

    pub fn counters(&self) -> &Counters {
        &self.context.counters
    }

    pub fn ndp(&self) -> &Ndp<'t> {
        &self.ndp
    }

    pub fn mld(&self) -> &Mld<'t> {
        &self.mld
    }

    fn handle_message(&mut self, side: Side, mac: MacAddress, message: &Message<'_>) {
        let Engine { context, ndp, mld } = self;
        match side {
            Side::Downstream(port) => {
                ndp.handle_message(context, Sender { port, mac }, message);
                mld.streams_mut()
                    .handle_message(context, (port, mac), message);
            }
            Side::Upstream => match message {
                Message::Query(query) => mld.handle_query(context, ndp.groups(), query),
                Message::NeighborSolicitation(_) | Message::NeighborAdvertisement(_) => {
                    ndp.handle_upstream_message(context, mac, message);
                }
                // The engine ignores what other hosts upstream report.
                Message::ReportV1(_) | Message::ReportV2(_) | Message::Done(_) => {}
            },
        }
    }

    fn handle_link(&mut self, side: Side, link: Option<Link>) {
        let Engine { context, ndp, mld } = self;
        let before = context.links.set(side, link);
        ndp.handle_link(context, side, before);
        match side {
            Side::Upstream => mld.handle_upstream(context, ndp.groups(), before),
            Side::Downstream(port) => mld.streams_mut().handle_link(context, port, before),
        }
    }

    /// Tells each capability what it has to know of the other's new state.
    fn settle(&mut self) {
        let Engine { context, ndp, mld } = self;
        ndp.settle(context);
        while let Some((slot, group)) = ndp.next_resumed() {
            mld.handle_resumed(context, slot, group);
        }
        mld.settle(context, &Whereabouts { ndp });
    }
}

/// Where the sources of streams are, as far as Neighbor Discovery knows.
struct Whereabouts<'a, 't> {
    ndp: &'a Ndp<'t>,
}

impl mld::proxy::merge::Whereabouts for Whereabouts<'_, '_> {
    fn side_of(&self, links: &Links, source: Ipv6Addr) -> Side {
        self.ndp.side_of(links, source)
    }

    fn may_move(&self, source: Ipv6Addr) -> bool {
        self.ndp.is_on_link(source)
    }
}

/// The host side of MLD reports the solicited-node groups.
impl mld::Memberships for Groups<'_> {
    fn is_empty(&self) -> bool {
        self.is_empty()
    }

    fn len(&self) -> usize {
        self.len()
    }

    fn joined_from(&self, first: usize) -> impl Iterator<Item = (usize, SolicitedNode)> {
        self.joined_from(first)
    }

    fn leaving_from(&self, first: usize) -> impl Iterator<Item = (usize, SolicitedNode)> {
        self.leaving_from(first)
    }

    fn joined_slot(&self, group: SolicitedNode) -> Option<usize> {
        self.joined_slot(group)
    }

    fn at(&self, slot: usize) -> Option<SolicitedNode> {
        self.at(slot)
    }
}

const _: () = assert!(ndp::solicited::CAPACITY <= mld::state_changes::CAPACITY);
