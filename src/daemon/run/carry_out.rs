//! Carrying out what the engine wants done.

use std::fmt;
use std::net::Ipv6Addr;

use log::debug;
use nix::errno::Errno;
use protocol::engine::Action;
use protocol::link::Side;
use protocol::ndp::kernel_entries::KernelTable;
use protocol::ndp::neighbors::Question;
use protocol::ndp::{kernel_entries, solicited};
use protocol::wire::{MacAddress, SolicitedNode};
use protocol::{mld, ndp};

use super::{EventLoop, Sockets};
use crate::sys::clock;
use crate::sys::netlink::tables::{Owner, Tables};

impl EventLoop<'_> {
    /// Carries out all that the engine wants done.
    pub(super) fn act(&mut self) {
        while let Some(action) = self.engine.poll_action(&mut self.buffers.transmit) {
            let succeeded = self.carry_out(&action);
            self.engine.done(clock::now(), &action, succeeded);
        }
    }

    fn carry_out(&mut self, action: &Action) -> bool {
        match *action {
            Action::Ndp(ndp::Action::Join(change) | ndp::Action::Leave(change)) => {
                self.change_membership(change)
            }
            Action::Ndp(ndp::Action::Kernel(change)) => self.change_table(change),
            Action::Mld(mld::Action::Report { length, group }) => {
                let name = &self.engine.config().upstream;
                debug!("reporting to {group} on {name}, {length} octets");
                let sent = self.send(Side::Upstream, length, group, None);
                self.transmit_trouble
                    .note(sent, format_args!("sending on {name}"))
            }
            // What of the rest cannot be sent is as good as lost: the next question follows, and who asked asks again.
            Action::Ndp(ndp::Action::Ask { length, question }) => {
                let (port, mac, destination) = match question {
                    Question::Ask {
                        port,
                        mac,
                        link_local,
                        ..
                    } => (port, Some(mac), link_local),
                    Question::Probe {
                        port, mac, target, ..
                    } => (port, Some(mac), target),
                    Question::Resolve { port, target, .. } => {
                        (port, None, SolicitedNode::of(target).group())
                    }
                };
                debug!("asking {destination}");
                let side = Side::Downstream(port);
                self.send(side, length, destination, mac).is_ok()
            }
            Action::Ndp(ndp::Action::Solicit {
                length,
                side,
                group,
                target,
            }) => {
                debug!("looking for {target}");
                self.send(side, length, group, None).is_ok()
            }
            Action::Ndp(ndp::Action::Advertise {
                length,
                side,
                destination,
                mac,
                target,
            }) => {
                debug!("advertising {target} to {destination}");
                self.send(side, length, destination, mac).is_ok()
            }
        }
    }

    /// Sends what the engine wrote, to a host, or without `mac` to a group.
    fn send(
        &self,
        side: Side,
        length: usize,
        destination: Ipv6Addr,
        mac: Option<MacAddress>,
    ) -> nix::Result<()> {
        let packet = self.buffers.transmit.get(..length).unwrap_or_default();
        let index = self.interfaces.index_of(side);
        // The engine writes nothing where it knows of nothing to send from.
        let index = index.filter(|_| length > 0).ok_or(Errno::ENODEV)?;
        let transmitter = &self.sockets.transmitter;
        match mac {
            Some(mac) => transmitter.send(index, mac.0, packet),
            None => transmitter.send_to_group(index, destination, packet),
        }
    }

    fn change_membership(&mut self, change: solicited::Change) -> bool {
        // The engine wants no membership while there is no upstream.
        let index = self.upstream.map_or(0, |upstream| upstream.index);
        let group = change.group.group();
        let result = if change.join {
            self.memberships.join(change.slot, group, index)
        } else {
            self.memberships.leave(change.slot, group, index)
        };
        // It works again when none fails any more.
        if result.is_ok() && self.engine.ndp().groups().is_failing() {
            return true;
        }
        let what = if change.join { "joining" } else { "leaving" };
        let name = &self.engine.config().upstream;
        let what = format_args!("{what} {group} on {name}");
        self.membership_trouble.note(result, what)
    }

    fn change_table(&mut self, change: kernel_entries::Change) -> bool {
        let address = change.address;
        let Sockets {
            instance, tables, ..
        } = &self.sockets;
        let table = self.interfaces.table_of(change.side);
        let result = match (self.interfaces.index_of(change.side), change.table) {
            // With the interface all of it went.
            (None, _) => Ok(()),
            (Some(index), KernelTable::Proxies) if change.present => {
                add_proxy(tables, index, address)
            }
            (Some(index), KernelTable::Proxies) => {
                let removed = tables.remove_proxy(index, address);
                if removed == Ok(true) {
                    instance.tell_removed(&mut self.siblings, index, address);
                }
                removed.map(drop)
            }
            (Some(index), KernelTable::Routes) if change.present => {
                tables.add_route(index, table, address)
            }
            (Some(index), KernelTable::Routes) => tables.remove_route(index, table, address),
        };
        if result.is_ok() && self.engine.ndp().kernel_entries().is_failing(change.table) {
            return true;
        }
        // The kernel tells of the routes of a link that goes down before it tells of the link.
        if result == Err(Errno::ENETDOWN) {
            return false;
        }
        let (what, trouble) = match change.table {
            KernelTable::Proxies => ("proxy entry", &mut self.proxy_trouble),
            KernelTable::Routes => ("route", &mut self.route_trouble),
        };
        let hint = Hint(result);
        trouble.note(
            result,
            format_args!("changing the {what} of {address}{hint}"),
        )
    }
}

/// Where another program's entry is in the way, that is `EEXIST`: it answers, and is looked at again now and then.
fn add_proxy(tables: &Tables, index: u32, address: Ipv6Addr) -> nix::Result<()> {
    match tables.add_proxy(index, address)? {
        Owner::Own => Ok(()),
        Owner::Foreign => Err(Errno::EEXIST),
    }
}

/// What is missing where a change of the kernel's tables failed, and what works all the same.
struct Hint(nix::Result<()>);

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Hint(Err(errno)) = self else {
            return Ok(());
        };
        f.write_str(match errno {
            Errno::EPERM => " (it takes CAP_NET_ADMIN; groups are joined all the same)",
            Errno::EOPNOTSUPP | Errno::EINVAL | Errno::EAFNOSUPPORT => {
                " (it takes Linux 5.0 with IPv6; groups are joined all the same)"
            }
            Errno::EEXIST => " (another program's is there, and stays)",
            _ => "",
        })
    }
}
