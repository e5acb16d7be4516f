//! Carries out the engine's actions.

use std::net::Ipv6Addr;

use log::debug;
use nix::errno::Errno;
use protocol::engine::Action;
use protocol::link::Side;
use protocol::mld::streams;
use protocol::ndp::neighbors::Question;
use protocol::ndp::solicited;
use protocol::wire::{MacAddress, SolicitedNode};
use protocol::{mld, ndp};

use super::EventLoop;
use crate::run::report::Trouble;
use crate::sys::clock;
use crate::sys::membership::Memberships;
use crate::sys::packet::Transmitter;
use crate::sys::source_filters::MAX_SOURCES;

/// The socket that sends packets, and the memberships upstream.
pub struct Output {
    transmitter: Transmitter,
    transmit_trouble: Trouble,
    pub memberships: Memberships,
    membership_trouble: Trouble,
}

impl Output {
    pub fn new(transmitter: Transmitter) -> Self {
        Output {
            transmitter,
            transmit_trouble: Trouble::default(),
            memberships: Memberships::new(),
            membership_trouble: Trouble::default(),
        }
    }
}

impl EventLoop<'_> {
    /// Drains the engine's actions and carries them out.
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
            Action::Mld(mld::Action::Streams(ref action)) => self.carry_out_for_streams(action),
            Action::Mld(mld::Action::Report { length, group }) => {
                let name = &self.engine.config().upstream;
                debug!("reporting to {group} on {name}, {length} octets");
                let sent = self.send(Side::Upstream, length, group, None);
                let trouble = &mut self.output.transmit_trouble;
                trouble.note(sent, format_args!("sending on {name}"))
            }
            // A question or an answer that cannot be sent counts as lost: the engine sends its next
            // question, and a host that got no answer asks again.
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
                    Question::Query { port, group, .. } => (port, None, group.group()),
                };
                debug!("asking {destination}");
                let side = Side::Downstream(port);
                self.send(side, length, destination, mac).is_ok()
            }
            Action::Ndp(ndp::Action::Solicit {
                length,
                side,
                destination,
                mac,
                target,
            }) => {
                debug!("looking for {target}");
                self.send(side, length, destination, mac).is_ok()
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

    fn carry_out_for_streams(&mut self, action: &streams::Action) -> bool {
        match *action {
            streams::Action::Query {
                port,
                length,
                destination,
                ..
            } => {
                debug!("querying {destination}");
                let side = Side::Downstream(port);
                self.send(side, length, destination, None).is_ok()
            }
            streams::Action::Membership(change) => {
                let proxy = self.engine.mld().streams().proxy();
                let sources = proxy.sources_wanted(change.slot);
                let sources: heapless::Vec<_, MAX_SOURCES> = sources.collect();
                let index = self.links.upstream.told().map_or(0, |link| link.index);
                let on = (index, &self.engine.config().upstream);
                self.forwarding.change_membership(&change, &sources, on)
            }
            streams::Action::Forward(change) => self.forwarding.change_entry(&change),
        }
    }

    /// Sends the packet that the engine wrote: to a host's link-layer address, or without `mac` to
    /// a multicast group.
    fn send(
        &self,
        side: Side,
        length: usize,
        destination: Ipv6Addr,
        mac: Option<MacAddress>,
    ) -> nix::Result<()> {
        let packet = self.buffers.transmit.get(..length).unwrap_or_default();
        let index = self.interfaces.index_of(side);
        // The engine writes no packet while it knows of no address to send from.
        let index = index.filter(|_| length > 0).ok_or(Errno::ENODEV)?;
        let transmitter = &self.output.transmitter;
        match mac {
            Some(mac) => transmitter.send(index, mac.0, packet),
            None => transmitter.send_to_group(index, destination, packet),
        }
    }

    fn change_membership(&mut self, change: solicited::Change) -> bool {
        // The engine wants no membership while there is no upstream.
        let index = self.links.upstream.told().map_or(0, |link| link.index);
        let group = change.group.group();
        let memberships = &mut self.output.memberships;
        let result = if change.join {
            memberships.join(change.slot, group, index)
        } else {
            memberships.leave(change.slot, group, index)
        };
        // While other groups still fail, the log does not say that joining works again.
        if result.is_ok() && self.engine.ndp().groups().is_failing() {
            return true;
        }
        let what = if change.join { "joining" } else { "leaving" };
        let name = &self.engine.config().upstream;
        let what = format_args!("{what} {group} on {name}");
        self.output.membership_trouble.note(result, what)
    }
}
