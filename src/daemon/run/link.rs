//! Following the interfaces: memberships, captures and the engine are brought in line with those that are there.

use std::fmt;

use log::{info, warn};
use protocol::engine::Event;
use protocol::link::{InterfaceName, Port};
use protocol::link::{Link, Side};
use protocol::time::Instant;

use super::{DownstreamPort, EventLoop};
use crate::interfaces::Interface;
use crate::run::report::{Path, Trouble};
use crate::sys::netlink::{Dump, PERMANENT_ROUTER};
use crate::sys::packet::{Capture, Interest};
use crate::sys::records::Key;

impl EventLoop<'_> {
    /// Brings memberships, captures and the engine in line with the interfaces that are there.
    pub(super) fn follow_interfaces(&mut self, now: Instant) {
        self.follow_upstream(now);
        self.follow_downstreams(now);
        if !self.dumped {
            return;
        }
        let complete =
            self.upstream.is_some() && self.ports.iter().all(|port| port.capture.is_some());
        if self.complete.replace(complete) != Some(complete) && complete {
            info!("proxying {}", Path(self.engine.config()));
        }
        // What a dump finds is of one time only at its end.
        if self.dump.is_none() && !self.sockets.netlink.is_dumping() {
            self.say_states(now);
            self.say_prefixes(now);
        }
    }

    /// Logs in which prefixes addresses are learned, where those on the upstream decide.
    fn say_prefixes(&mut self, now: Instant) {
        let (said, pace) = &mut self.prefixes_said;
        if self.upstream_prefixes == *said {
            return;
        }
        if !pace.allows(now) {
            self.try_again(now);
            return;
        }
        said.clone_from(&self.upstream_prefixes);
        let name = &self.engine.config().upstream;
        let prefixes = said.iter().flatten();
        for prefix in prefixes.clone() {
            info!("learning addresses in {prefix}, which is on {name}");
        }
        if prefixes.count() == 0 {
            warn!("waiting for a prefix on {name}: no address is learned without one");
        }
    }

    /// Logs which interfaces cannot be used, and which can be used again.
    fn say_states(&mut self, now: Instant) {
        let downstreams = self.interfaces.downstreams().iter();
        let ports = self.ports.iter_mut().map(|port| &mut port.said);
        let upstream = (
            self.interfaces.upstream_interface(),
            &mut self.upstream_said,
        );
        let mut all_said = true;
        for (interface, said) in std::iter::once(upstream).chain(downstreams.zip(ports)) {
            all_said &= said.note(now, &interface.name, interface.state());
        }
        if !all_said {
            self.try_again(now);
        }
    }

    fn follow_upstream(&mut self, now: Instant) {
        let upstream = self.interfaces.upstream();
        let index = |upstream: Option<Link>| upstream.map(|upstream| upstream.index);
        let generation = self.interfaces.upstream_generation();
        if generation != self.upstream_generation {
            // Perhaps of the same number, but without the memberships and the settings.
            self.upstream_generation = generation;
            self.settings.interface_is_gone();
            self.upstream_capture = None;
            self.upstream = None;
            self.memberships.leave_all();
            self.engine.handle(now, Event::Link(Side::Upstream, None));
        }
        if upstream != self.upstream {
            if index(upstream) != index(self.upstream) {
                self.memberships.leave_all();
            }
            self.upstream = upstream;
            self.engine
                .handle(now, Event::Link(Side::Upstream, upstream));
        }
        let config = self.engine.config();
        match index(upstream) {
            Some(index) if config.ndp_proxy => {
                let name = config.upstream.as_str();
                if !self.settings.apply(&self.records, now, name, index) {
                    self.try_again(now);
                }
            }
            Some(_) => {}
            None => self.settings.interface_is_gone(),
        }
        let config = self.engine.config();
        // Not before the first dump, which would tell of one after the other.
        if self.dumped && config.upstream_prefixes {
            let prefixes = self.interfaces.upstream_prefixes();
            if self.upstream_prefixes.as_ref() != Some(&prefixes) {
                self.engine.handle(now, Event::UpstreamPrefixes(&prefixes));
                self.upstream_prefixes = Some(prefixes);
                // Among those the kernel knows there may be some that count now.
                self.dump = self.dump.into_iter().chain([Dump::Neighbors]).min();
            }
        }
        let config = self.engine.config();
        let interest = if config.ndp_proxy {
            Interest::QueriesAndNeighbors
        } else {
            Interest::Queries
        };
        let followed = follow(
            (
                &mut self.upstream_capture,
                &mut self.upstream_capture_trouble,
            ),
            (index(upstream), interest),
            &config.upstream,
        );
        if !followed {
            self.try_again(now);
        }
    }

    fn follow_downstreams(&mut self, now: Instant) {
        let interfaces = self.interfaces.downstreams().iter();
        let ports = self.ports.iter_mut().zip(interfaces).enumerate();
        let mut all_followed = true;
        for (number, (port, interface)) in ports {
            let name = &interface.name;
            if port.generation != interface.generation {
                *port = DownstreamPort {
                    generation: interface.generation,
                    downstream: port.downstream,
                    said: std::mem::take(&mut port.said),
                    ..DownstreamPort::default()
                };
            }
            all_followed &= follow(
                (&mut port.capture, &mut port.capture_trouble),
                (interface.index, Interest::Hosts),
                name,
            );

            let downstream = interface.downstream();
            if downstream != port.downstream {
                port.downstream = downstream;
                let event = Event::Link(Side::Downstream(number as Port), downstream);
                self.engine.handle(now, event);
            }

            // A bridge that snoops hides, from a capture on itself, solicitations to groups that nobody on the LAN joined. As a
            // multicast router's port it hands on all multicast, and unlike in promiscuous mode nothing else.
            let Some((index, bridge)) = interface.deciding_bridge().filter(|(_, it)| it.snooping)
            else {
                continue;
            };
            let on = if interface.bridge.is_some() {
                ""
            } else {
                " is on a bridge that"
            };
            if bridge.vlan_snooping {
                if !port.warned_of_vlans {
                    warn!(
                        "{name}{on} snoops by VLAN, and may hide solicitations: {}",
                        OpenVlan(interface)
                    );
                }
            } else if bridge.multicast_router == PERMANENT_ROUTER {
                port.is_open = true;
            } else if port
                .changed_bridge
                .is_some_and(|(changed, _)| changed == index)
            {
                // Whoever did that is not fought, and the kernel's own news may come before ours.
                if std::mem::take(&mut port.is_open) {
                    warn!(
                        "{name}{on} snoops: its mcast_router was set to {}, so solicitations may be hidden",
                        bridge.multicast_router
                    );
                    self.records.remove(bridge_key(index));
                    port.changed_bridge = Some((index, bridge.multicast_router));
                }
            } else {
                info!(
                    "{name}{on} snoops: its mcast_router is {PERMANENT_ROUTER} from now on, was {}",
                    bridge.multicast_router
                );
                if let Some((before, _)) = port.changed_bridge {
                    self.records.remove(bridge_key(before));
                }
                self.records
                    .write(bridge_key(index), bridge.multicast_router.into());
                port.changed_bridge = Some((index, bridge.multicast_router));
                // A refusal is told by a notice.
                let _ = self
                    .sockets
                    .netlink
                    .set_multicast_router(index, PERMANENT_ROUTER);
            }
            port.warned_of_vlans = bridge.vlan_snooping;
        }
        if !all_followed {
            self.try_again(now);
        }
    }

    /// Puts back what was changed of the bridges that are still there, and that no other instance needs, also by one that was killed.
    pub(super) fn restore_bridges(&mut self) {
        for (port, interface) in self.ports.iter().zip(self.interfaces.downstreams()) {
            let Some((index, bridge)) = interface.deciding_bridge() else {
                continue;
            };
            if self.siblings.use_link(index) {
                continue;
            }
            let key = bridge_key(index);
            let recorded = self.records.read(key).map(u8::try_from);
            self.records.remove(key);
            let changed = port.changed_bridge.filter(|(changed, _)| *changed == index);
            let before = recorded
                .and_then(Result::ok)
                .or(changed.map(|(_, before)| before));
            let is_as_set = changed.is_some() || bridge.multicast_router == PERMANENT_ROUTER;
            if let Some(before) = before.filter(|_| is_as_set) {
                info!("{}: mcast_router is {before} again", interface.name);
                if let Err(errno) = self.sockets.netlink.set_multicast_router(index, before) {
                    warn!("{}: {}", interface.name, errno.desc());
                }
            }
        }
    }
}

/// By which a bridge's `mcast_router` is recorded, whatever is on it.
fn bridge_key(index: u32) -> Key<'static> {
    Key {
        index,
        interface: "bridge",
        name: "mcast_router",
    }
}

/// The command that makes a bridge that snoops by VLAN hand all multicast to this host.
struct OpenVlan<'i>(&'i Interface);

impl fmt::Display for OpenVlan<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let OpenVlan(interface) = self;
        let vlan = interface.vlan.unwrap_or(1);
        let bridge = match interface.bridge {
            Some(_) => interface.name.as_str(),
            None => "BRIDGE",
        };
        write!(
            f,
            "`bridge vlan set vid {vlan} dev {bridge} self mcast_router {PERMANENT_ROUTER}` ends that"
        )
    }
}

/// Brings a capture in line with the interface that is there. Did that succeed?
fn follow(
    (capture, trouble): (&mut Option<Capture>, &mut Trouble),
    (index, interest): (Option<u32>, Interest),
    name: &InterfaceName,
) -> bool {
    if capture.as_ref().map(Capture::index) == index {
        return true;
    }
    *capture = None;
    let Some(index) = index else { return true };
    let opened = Capture::open(index, interest).map(|opened| *capture = Some(opened));
    trouble.note(opened, format_args!("listening on {name}"))
}
