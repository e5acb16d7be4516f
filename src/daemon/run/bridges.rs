//! Bridges that snoop MLD. The daemon sets them to forward all multicast to this host, and restores
//! them at its end.
//!
//! A bridge that snoops hides solicitations from a capture on the bridge itself, unless somebody on
//! the LAN joined their group. A bridge whose own port is a multicast router's forwards all
//! multicast to this host. Promiscuous mode would forward all unicast as well.

use std::fmt;

use log::{info, warn};

use crate::interfaces::Interface;
use crate::sys::netlink::siblings::Siblings;
use crate::sys::netlink::{Netlink, PERMANENT_ROUTER};
use crate::sys::records::{Key, Records};

/// What the daemon did about the bridge that decides what is heard on a downstream.
#[derive(Default)]
pub struct OpenedBridge {
    /// The log says that the bridge snoops by VLAN.
    warned_of_vlans: bool,
    /// The bridge's number, and its `mcast_router` before the daemon set it.
    changed: Option<(u32, u8)>,
    /// The kernel has reported that the bridge forwards all multicast.
    is_open: bool,
}

impl OpenedBridge {
    /// Sets a bridge that snoops to forward all multicast to this host. The daemon does that once
    /// for each bridge; if somebody changes the setting afterwards, it stays changed.
    pub fn follow(&mut self, interface: &Interface, netlink: &Netlink, records: &Records) {
        let Some((index, bridge)) = interface.deciding_bridge().filter(|(_, it)| it.snooping)
        else {
            return;
        };
        let name = &interface.name;
        let on = if interface.bridge.is_some() {
            ""
        } else {
            " is on a bridge that"
        };
        let router = bridge.multicast_router;
        let is_changed = self.changed.is_some_and(|(changed, _)| changed == index);
        if bridge.vlan_snooping {
            if !self.warned_of_vlans {
                warn!(
                    "{name}{on} snoops by VLAN, and may hide solicitations: {}",
                    OpenVlan(interface)
                );
            }
        } else if router == PERMANENT_ROUTER {
            self.is_open = true;
        } else if is_changed {
            // Until the kernel has reported the new value, news may still carry the old one.
            if std::mem::take(&mut self.is_open) {
                warn!(
                    "{name}{on} snoops: its mcast_router was set to {router}, so solicitations \
                     may be hidden"
                );
                records.remove(key(index));
                self.changed = Some((index, router));
            }
        } else {
            info!(
                "{name}{on} snoops: its mcast_router is {PERMANENT_ROUTER} from now on, was \
                 {router}"
            );
            if let Some((before, _)) = self.changed {
                records.remove(key(before));
            }
            records.write(key(index), router.into());
            self.changed = Some((index, router));
            // If the kernel refuses, a notice says so.
            let _ = netlink.set_multicast_router(index, PERMANENT_ROUTER);
        }
        self.warned_of_vlans = bridge.vlan_snooping;
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
        let changed = self.changed.filter(|(changed, _)| *changed == index);
        let before = recorded
            .and_then(Result::ok)
            .or(changed.map(|(_, before)| before));
        let is_as_set = changed.is_some() || bridge.multicast_router == PERMANENT_ROUTER;
        if let Some(before) = before.filter(|_| is_as_set) {
            info!("{}: mcast_router is {before} again", interface.name);
            if let Err(errno) = netlink.set_multicast_router(index, before) {
                warn!(
                    "{}: mcast_router cannot be {before} again: {}",
                    interface.name,
                    errno.desc()
                );
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

/// The command that makes a bridge that snoops by VLAN forward all multicast to this host.
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
            "`bridge vlan set vid {vlan} dev {bridge} self mcast_router {PERMANENT_ROUTER}` ends \
             that"
        )
    }
}
