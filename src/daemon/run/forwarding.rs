//! The kernel's multicast forwarding: this process owns a table, adds its interfaces, and writes
//! the engine's entries.

use std::net::Ipv6Addr;

use log::{info, warn};
use nix::errno::Errno;
use protocol::config::Config;
use protocol::engine::{Engine, Event};
use protocol::link::{InterfaceName, MAX_LINKS, Side};
use protocol::mld::proxy::entries::{Change, HOME, number_of};
use protocol::mld::proxy::{Counts, upstream};
use protocol::time::Instant;

use super::EventLoop;
use crate::control::ForwardingTable;
use crate::interfaces::{Interface, Interfaces};
use crate::run::report::Trouble;
use crate::sys::clock;
use crate::sys::mroute::{self, Mroute, Refusal};
use crate::sys::netlink::tables::Tables;
use crate::sys::source_filters::SourceFilters;

/// The kernel's number of the loopback interface, in every network namespace.
const LOOPBACK: u32 = 1;

/// The forwarding of streams.
pub struct Forwarding {
    table: Table,
    /// The generation and the number of each interface that the kernel forwards by, at the
    /// [place](number_of) of its side.
    added: [Option<(u32, u32)>; MAX_LINKS],
    interface_trouble: Trouble,
    entry_trouble: Trouble,
    rule_trouble: Trouble,
    filters: SourceFilters,
    filter_trouble: Trouble,
}

/// The kernel's forwarding table.
enum Table {
    /// The user wants no MLD proxy.
    Unwanted,
    /// This process owns it.
    Owned(Mroute),
    /// It could not be had, and is asked for again with each refresh.
    Refused(Errno),
}

impl Forwarding {
    /// Takes the table, if the user wants the MLD proxy. Logs why it cannot be had; what concerns
    /// Neighbor Discovery goes on.
    pub fn open(config: &Config) -> Self {
        let table = match config.mld_proxy {
            Some(_) => take_table(config, true),
            None => Table::Unwanted,
        };
        Forwarding {
            table,
            added: [None; _],
            interface_trouble: Trouble::default(),
            entry_trouble: Trouble::default(),
            rule_trouble: Trouble::default(),
            filters: SourceFilters::new(),
            filter_trouble: Trouble::default(),
        }
    }

    /// Asks again for a table that could not be had. Returns whether it can be had now.
    pub fn try_again(&mut self, config: &Config) -> bool {
        if !matches!(self.table, Table::Refused(_)) {
            return false;
        }
        self.table = take_table(config, false);
        let is_owned = matches!(self.table, Table::Owned(_));
        if is_owned {
            info!("streams are forwarded now: the multicast routing table is free");
        }
        is_owned
    }

    /// Whether the kernel's table is this process's.
    pub fn table(&self) -> ForwardingTable {
        match self.table {
            Table::Unwanted => ForwardingTable::Unwanted,
            Table::Owned(_) => ForwardingTable::Owned,
            Table::Refused(errno) => ForwardingTable::Refused(errno),
        }
    }

    /// Ends all memberships upstream.
    pub fn leave_all(&mut self) {
        self.filters.leave_all();
    }

    /// Brings the interface on a side in line with what is there, and tells the engine. Returns
    /// false if that failed and is to be tried again.
    fn follow(
        &mut self,
        now: Instant,
        engine: &mut Engine<'_>,
        side: Side,
        interface: &Interface,
    ) -> bool {
        let Table::Owned(mroute) = &mut self.table else {
            return true;
        };
        let number = number_of(side);
        let Some(added) = self.added.get_mut(usize::from(number)) else {
            return true;
        };
        let wanted = interface.index.map(|index| (interface.generation, index));
        if *added == wanted {
            return true;
        }
        if added.take().is_some() {
            let _ = mroute.remove_interface(number);
            let present = false;
            engine.handle(now, Event::Forwarding { side, present });
        }
        let Some((_, index)) = wanted else {
            return true;
        };
        let result = mroute.add_interface(number, index);
        let name = &interface.name;
        match result {
            Ok(()) => {
                *added = wanted;
                let present = true;
                engine.handle(now, Event::Forwarding { side, present });
            }
            Err(Errno::EOVERFLOW) => {
                *added = wanted;
                warn!(
                    "{name} has the number {index}, and the kernel forwards streams by interfaces \
                     up to 65535 alone: create the interface anew after a reboot"
                );
                return true;
            }
            Err(_) => {}
        }
        let what = format_args!("forwarding streams by {name}");
        self.interface_trouble.note(result, what)
    }

    /// Sends what arrives on the interfaces to the table that the user named.
    fn add_rules(&mut self, config: &Config, interfaces: &Interfaces, tables: &Tables) {
        let Some(table) = config.mld_proxy.as_ref().and_then(|proxy| proxy.table) else {
            return;
        };
        if !matches!(self.table, Table::Owned(_)) {
            return;
        }
        for interface in interfaces.iter() {
            let name: &InterfaceName = &interface.name;
            let result = tables.add_multicast_rule(name.as_str(), table);
            let what = format_args!("sending the multicast packets of {name} to table {table}");
            self.rule_trouble.note(result, what);
        }
    }

    /// Writes or removes an entry. Returns whether that succeeded.
    pub fn change_entry(&mut self, change: &Change) -> bool {
        let Table::Owned(mroute) = &self.table else {
            return false;
        };
        let Change {
            source,
            group,
            entry,
            present,
            ..
        } = *change;
        let result = match present {
            true => mroute.set_entry(source, group, entry.parent, entry.out),
            false => mroute.remove_entry(source, group, entry.parent),
        };
        let what = format_args!("the forwarding entry of {group}");
        self.entry_trouble.note(result, what)
    }

    /// Changes a membership upstream on the interface with a number. Returns whether that
    /// succeeded.
    pub fn change_membership(
        &mut self,
        change: &upstream::Change,
        sources: &[Ipv6Addr],
        (index, name): (u32, &InterfaceName),
    ) -> bool {
        let upstream::Change { slot, group, .. } = *change;
        let result = match change.of_kernel {
            Some(mode) => self.filters.set(slot, index, group, mode, sources),
            None => self.filters.leave(slot, index, group),
        };
        let what = format_args!("the membership of {group} on {name}");
        self.filter_trouble.note(result, what)
    }
}

/// Takes the table that the user named, or the main one.
fn take_table(config: &Config, logs: bool) -> Table {
    let table = config.mld_proxy.as_ref().and_then(|proxy| proxy.table);
    let opened = Mroute::open(table).and_then(|mut mroute| {
        mroute.add_interface(HOME, LOOPBACK)?;
        Ok(mroute)
    });
    let errno = match opened {
        Ok(mroute) => return Table::Owned(mroute),
        Err(errno) => errno,
    };
    if !logs {
        return Table::Refused(errno);
    }
    match Refusal::of(errno) {
        Refusal::InUse => {
            let owner = mroute::likely_owner().unwrap_or("another program");
            warn!(
                "no stream is forwarded: {owner} owns the kernel's multicast routing table; stop \
                 it, or give this one a table of its own (--table)"
            );
        }
        Refusal::Unsupported => warn!(
            "no stream is forwarded: this kernel has no IPv6 multicast routing \
             (CONFIG_IPV6_MROUTE, and for --table CONFIG_IPV6_MROUTE_MULTIPLE_TABLES)"
        ),
        Refusal::Other(Errno::EACCES | Errno::EPERM) => {
            warn!("no stream is forwarded: CAP_NET_RAW is missing, or CAP_NET_ADMIN for --table");
        }
        Refusal::Other(errno) => warn!("no stream is forwarded: {}", errno.desc()),
    }
    Table::Refused(errno)
}

impl EventLoop<'_> {
    /// Brings the interfaces that the kernel forwards by in line with those that are there.
    pub(super) fn follow_forwarding(&mut self, now: Instant) {
        let mut all_followed = true;
        for (side, interface) in self.interfaces.sides() {
            all_followed &= self.forwarding.follow(now, self.engine, side, interface);
        }
        if !all_followed {
            self.try_again(now);
        }
    }

    /// At the start, or when the table can be had: removes the rules that a crash left, and adds
    /// this instance's.
    pub(super) fn begin_forwarding(&mut self) {
        let config = self.engine.config();
        let Some(proxy) = &config.mld_proxy else {
            return;
        };
        let tables = &self.tables.tables;
        // Without the right to do so there are no rules of an earlier instance either.
        let _ = tables.remove_multicast_rules(proxy.table, &mut self.buffers.receive);
        self.forwarding.add_rules(config, &self.interfaces, tables);
    }

    /// Asks again for a table that another program owned.
    pub(super) fn look_at_forwarding(&mut self) {
        if self.forwarding.try_again(self.engine.config()) {
            self.begin_forwarding();
            self.follow_forwarding(clock::now());
        }
    }

    /// Removes the rules of this instance. What else the kernel holds ends with the socket.
    pub(super) fn end_forwarding(&mut self) {
        let proxy = self.engine.config().mld_proxy.as_ref();
        if let Some(table) = proxy.and_then(|proxy| proxy.table) {
            let tables = &self.tables.tables;
            let _ = tables.remove_multicast_rules(Some(table), &mut self.buffers.receive);
        }
        self.forwarding.leave_all();
    }

    /// Takes in what the kernel counted on the entries.
    pub(super) fn count_streams(&mut self, now: Instant) {
        let Table::Owned(mroute) = &self.forwarding.table else {
            return;
        };
        let (engine, table) = (&mut *self.engine, mroute.table());
        // What could not be read is as it was.
        let _ = self
            .tables
            .tables
            .for_each_stream(&mut self.buffers.receive, &mut |stream| {
                if stream.table != table {
                    return;
                }
                let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
                let counts = Counts {
                    packets: stream.packets,
                    octets: stream.octets,
                    wrong_side: small(stream.wrong_interface),
                    // The kernel tells hundredths of a second.
                    idle: small(stream.idle.unwrap_or_default() / 100),
                };
                let (source, group) = (stream.source, stream.group);
                engine.handle(
                    now,
                    Event::Counted {
                        source,
                        group,
                        counts,
                    },
                );
            });
    }
}
