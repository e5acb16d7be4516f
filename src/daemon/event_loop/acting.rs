//! Carrying out what the engine wants done.

use std::fmt;
use std::net::Ipv6Addr;

use log::debug;
use nix::errno::Errno;
use protocol::engine::Action;
use protocol::groups;
use protocol::ndp_proxy::{Change, KernelTable};
use protocol::neighbors::Question;

use super::EventLoop;
use crate::sys::clock;
use crate::sys::netlink::tables::{Owner, Tables};

impl EventLoop<'_> {
    /// Carries out all that the engine wants done.
    pub(super) fn act(&mut self) {
        let EventLoop {
            engine, buffers, ..
        } = self;
        while let Some(action) = engine.poll_action(&mut buffers.transmit) {
            // The engine wants nothing done while there is no upstream.
            let index = self.upstream.map_or(0, |upstream| upstream.index);
            let name = &engine.config().upstream;
            let group = |change: groups::Change| change.group.group();
            let succeeded = match action {
                Action::Join(change) | Action::Leave(change) => {
                    let result = if change.join {
                        self.memberships.join(change.slot, group(change), index)
                    } else {
                        self.memberships.leave(change.slot, group(change), index)
                    };
                    // It works again when none fails any more.
                    if result.is_ok() && engine.groups().is_failing() {
                        true
                    } else {
                        let what = if change.join { "joining" } else { "leaving" };
                        let what = format_args!("{what} {} on {name}", change.group);
                        self.membership_trouble.note(result, what)
                    }
                }
                Action::Report { length, group } => {
                    let packet = buffers.transmit.get(..length).unwrap_or_default();
                    debug!("reporting to {group} on {name}, {length} octets");
                    self.transmit_trouble.note(
                        self.transmitter.send_to_group(index, group, packet),
                        format_args!("sending on {name}"),
                    )
                }
                Action::Ask { length, question } => {
                    let packet = buffers.transmit.get(..length).unwrap_or_default();
                    let (Question::Ask { port, mac, .. } | Question::Probe { port, mac, .. }) =
                        question;
                    let downstream = self.interfaces.downstreams().get(usize::from(port));
                    let index = downstream.and_then(|downstream| downstream.index);
                    match question {
                        Question::Ask { link_local, .. } => debug!("asking {link_local}"),
                        Question::Probe { target, .. } => debug!("probing {target}"),
                    }
                    // What cannot be sent is as good as lost, and the next question follows.
                    index
                        .filter(|_| length > 0)
                        .is_some_and(|index| self.transmitter.send(index, mac.0, packet).is_ok())
                }
                Action::Kernel(change) => {
                    let Change {
                        address, present, ..
                    } = change;
                    let index = self.interfaces.index_of(change.side);
                    let done = match (change.table, index) {
                        // With the interface all of it went.
                        (_, None) => Ok(()),
                        (KernelTable::Proxies, Some(index)) if present => {
                            add_proxy(&self.tables, index, address)
                        }
                        (KernelTable::Proxies, Some(index)) => {
                            self.tables.remove_proxy(index, address)
                        }
                        (KernelTable::Routes, Some(index)) if present => {
                            self.tables.add_route(index, address)
                        }
                        (KernelTable::Routes, Some(index)) => {
                            self.tables.remove_route(index, address)
                        }
                    };
                    let trouble = match change.table {
                        KernelTable::Proxies => &mut self.proxy_trouble,
                        KernelTable::Routes => &mut self.route_trouble,
                    };
                    // It works again when none fails any more.
                    if done.is_ok() && engine.ndp_proxy().is_failing(change.table) {
                        true
                    } else {
                        let what = match change.table {
                            KernelTable::Proxies => "the proxy entry",
                            KernelTable::Routes => "the route",
                        };
                        trouble.note(
                            done,
                            format_args!("changing {what} for {address}{}", Hint(done)),
                        )
                    }
                }
                Action::Solicit {
                    length,
                    side,
                    group,
                    target,
                } => {
                    let packet = buffers.transmit.get(..length).unwrap_or_default();
                    debug!("looking for {target}");
                    let index = self.interfaces.index_of(side).filter(|_| length > 0);
                    index.is_some_and(|index| {
                        let sent = self.transmitter.send_to_group(index, group, packet);
                        sent.is_ok()
                    })
                }
                Action::Advertise {
                    length,
                    side,
                    destination,
                    mac,
                    target,
                } => {
                    let packet = buffers.transmit.get(..length).unwrap_or_default();
                    debug!("advertising {target} to {destination}");
                    let index = self.interfaces.index_of(side).filter(|_| length > 0);
                    index.is_some_and(|index| {
                        let sent = match mac {
                            Some(mac) => self.transmitter.send(index, mac.0, packet),
                            None => self.transmitter.send_to_group(index, destination, packet),
                        };
                        sent.is_ok()
                    })
                }
            };
            engine.done(clock::now(), &action, succeeded);
        }
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
