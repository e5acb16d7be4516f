//! Bridges that snoop MLD. The daemon sets them to forward all multicast to this host, and restores
//! them at its end.
//!
//! A bridge that snoops hides solicitations from a capture on the bridge itself, unless somebody on
//! the LAN joined their group. A bridge whose own port is a multicast router's forwards all
//! multicast to this host. Promiscuous mode would forward all unicast as well.

use std::fmt;

use log::{info, warn};
use protocol::escaped::Escaped;

use crate::interfaces::Interface;
use crate::sys::netlink::siblings::Siblings;
use crate::sys::netlink::{Netlink, PERMANENT_ROUTER};
use crate::sys::records::{Key, Records};

/// What the daemon did about the bridge that decides what is heard on a downstream.
#[derive(Default)]
pub struct OpenedBridge {
    /// The log says that the bridge snoops by VLAN.
    warned_of_vlans: bool,
    router: Router,
    /// What the log says of the bridge.
    streams: Streams,
}

/// How a bridge treats multicast streams.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Streams {
    /// It forwards a stream to its listeners.
    #[default]
    Forwarded,
    /// It does not snoop, and forwards each stream to all its ports.
    Flooded,
    /// Its own querier makes the hosts report by MLDv1, which names no sources (RFC 3810 §8.2.1).
    WithoutSources,
}

/// A bridge's `mcast_router`. `bridge` is the bridge's number, and `before` the value before.
#[derive(Clone, Copy, Default)]
enum Router {
    /// The daemon changed nothing.
    #[default]
    AsFound,
    /// The daemon set it. Until the kernel has reported that, news may still carry the old value.
    Set { bridge: u32, before: u8 },
    /// The kernel has reported that the bridge forwards all multicast.
    Open { bridge: u32, before: u8 },
    /// Somebody changed it afterwards. It stays changed.
    Overridden { bridge: u32, before: u8 },
}

impl Router {
    /// The bridge that was changed, and the value before.
    fn changed(self) -> Option<(u32, u8)> {
        match self {
            Router::AsFound => None,
            Router::Set { bridge, before }
            | Router::Open { bridge, before }
            | Router::Overridden { bridge, before } => Some((bridge, before)),
        }
    }
}

impl OpenedBridge {
    /// Sets a bridge that snoops to forward all multicast to this host, once for each bridge.
    pub fn follow(&mut self, interface: &Interface, netlink: &Netlink, records: &Records) {
        let Some((index, bridge)) = interface.deciding_bridge().filter(|(_, it)| it.snooping)
        else {
            return;
        };
        let place = Place(interface);
        if bridge.vlan_snooping {
            if !self.warned_of_vlans {
                warn!(
                    "{place} snoops by VLAN, and may hide solicitations: {}",
                    OpenVlan(interface)
                );
            }
        } else {
            self.open(&place, (index, bridge.multicast_router), netlink, records);
        }
        self.warned_of_vlans = bridge.vlan_snooping;
    }

    /// Warns if the bridge spoils the streams of an MLD proxy, and says what ends that.
    pub fn warn_of_streams(&mut self, interface: &Interface) {
        let streams = match interface.deciding_bridge() {
            Some((_, bridge)) if !bridge.snooping => Streams::Flooded,
            Some((_, bridge)) if bridge.queries_by_mldv1 => Streams::WithoutSources,
            Some(_) => Streams::Forwarded,
            None => return,
        };
        if streams == self.streams {
            return;
        }
        self.streams = streams;
        let place = Place(interface);
        match streams {
            Streams::Forwarded => info!("{place} forwards streams to their listeners"),
            Streams::Flooded => warn!(
                "{place} does not snoop: streams flood all its ports and its Wi-Fi; mcast_snooping \
                 1 and mcast_querier 0 end that (in UCI: igmp_snooping, multicast_querier)"
            ),
            Streams::WithoutSources => warn!(
                "{place} queries by MLDv1 itself, so hosts do not name the sources that they want; \
                 mcast_querier 0 ends that (in UCI: multicast_querier)"
            ),
        }
    }

    fn open(
        &mut self,
        place: &Place<'_>,
        (index, router): (u32, u8),
        netlink: &Netlink,
        records: &Records,
    ) {
        let changed = self.router.changed();
        match (self.router, changed.filter(|(bridge, _)| *bridge == index)) {
            (_, Some((bridge, before))) if router == PERMANENT_ROUTER => {
                self.router = Router::Open { bridge, before };
            }
            (_, None) if router == PERMANENT_ROUTER => {}
            (Router::Open { bridge, .. }, Some(_)) => {
                warn!(
                    "{place} snoops: its mcast_router was set to {router}, so solicitations may be \
                     hidden"
                );
                records.remove(key(bridge));
                let before = router;
                self.router = Router::Overridden { bridge, before };
            }
            (Router::AsFound | Router::Set { .. } | Router::Overridden { .. }, Some(_)) => {}
            (_, None) => {
                info!(
                    "{place} snoops: its mcast_router is {PERMANENT_ROUTER} from now on, was \
                     {router}"
                );
                if let Some((other, _)) = changed {
                    records.remove(key(other));
                }
                records.write(key(index), router.into());
                self.router = Router::Set {
                    bridge: index,
                    before: router,
                };
                // If the kernel refuses, a notice says so.
                let _ = netlink.set_multicast_router(index, PERMANENT_ROUTER);
            }
        }
    }

    /// Restores the setting of a bridge that is still there and that no other instance needs. A
    /// record that a killed instance left counts as well.
    pub fn restore(
        &self,
        interface: &Interface,
        netlink: &Netlink,
        records: &Records,
        siblings: &Siblings,
    ) {
        let Some((index, bridge)) = interface.deciding_bridge() else {
            return;
        };
        if siblings.use_link(index) {
            return;
        }
        let recorded = records.read(key(index)).map(u8::try_from);
        records.remove(key(index));
        let changed = self.router.changed().filter(|(bridge, _)| *bridge == index);
        let before = recorded
            .and_then(Result::ok)
            .or(changed.map(|(_, before)| before));
        let is_as_set = changed.is_some() || bridge.multicast_router == PERMANENT_ROUTER;
        if let Some(before) = before.filter(|_| is_as_set) {
            let name = &interface.name;
            info!("{name}: mcast_router is {before} again");
            if let Err(errno) = netlink.set_multicast_router(index, before) {
                let reason = errno.desc();
                warn!("{name}: mcast_router cannot be {before} again: {reason}");
            }
        }
    }
}

/// The record of a bridge's `mcast_router`. It does not depend on which interface led to the
/// bridge.
fn key(index: u32) -> Key<'static> {
    Key {
        index,
        interface: "bridge",
        name: "mcast_router",
    }
}

/// The subject of a line: the interface, if it is the bridge itself, or what it is on.
struct Place<'i>(&'i Interface);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place(interface) = self;
        interface.name.fmt(f)?;
        match interface.bridge {
            Some(_) => Ok(()),
            None => f.write_str(" is on a bridge that"),
        }
    }
}

/// The command that makes a bridge that snoops by VLAN forward all multicast to this host.
struct OpenVlan<'i>(&'i Interface);

impl fmt::Display for OpenVlan<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let OpenVlan(interface) = self;
        let vlan = interface.vlan.unwrap_or(1);
        let bridge = match interface.bridge {
            Some(_) => Escaped(interface.name.as_str()),
            None => Escaped("BRIDGE"),
        };
        write!(
            f,
            "`bridge vlan set vid {vlan} dev {bridge} self mcast_router {PERMANENT_ROUTER}` ends \
             that"
        )
    }
}
