//! Bridges that snoop MLD: made to hand all multicast to this host, and left as they were at the
//! end.
//!
//! A bridge that snoops hides, from a capture on itself, solicitations to groups that nobody on the
//! LAN joined. As a multicast router's port it hands on all multicast, and unlike in promiscuous
//! mode nothing else.

use std::fmt;

use log::{info, warn};

use crate::interfaces::Interface;
use crate::sys::netlink::siblings::Siblings;
use crate::sys::netlink::{Netlink, PERMANENT_ROUTER};
use crate::sys::records::{Key, Records};

/// What was done about the bridge that decides what is heard on a downstream.
#[derive(Default)]
pub struct OpenedBridge {
    /// The log told that it snoops by VLAN.
    warned_of_vlans: bool,
    /// Its number, and its `mcast_router` before it was set.
    changed: Option<(u32, u8)>,
    /// The kernel told that it hands on all multicast.
    is_open: bool,
}

impl OpenedBridge {
    /// Has a bridge that snoops hand all multicast to this host, once.
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
            // Whoever did that is not fought, and the kernel's own news may come before ours.
            if std::mem::take(&mut self.is_open) {
                warn!(
                    "{name}{on} snoops: its mcast_router was set to {router}, so solicitations may be hidden"
                );
                records.remove(key(index));
                self.changed = Some((index, router));
            }
        } else {
            info!(
                "{name}{on} snoops: its mcast_router is {PERMANENT_ROUTER} from now on, was {router}"
            );
            if let Some((before, _)) = self.changed {
                records.remove(key(before));
            }
            records.write(key(index), router.into());
            self.changed = Some((index, router));
            // A refusal is told by a notice.
            let _ = netlink.set_multicast_router(index, PERMANENT_ROUTER);
        }
        self.warned_of_vlans = bridge.vlan_snooping;
    }

    /// Puts back what was changed, also by an instance that was killed, of a bridge that is still
    /// there and that no other instance needs.
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
                warn!("{}: {}", interface.name, errno.desc());
            }
        }
    }
}

/// By which a bridge's `mcast_router` is recorded, whatever is on it.
fn key(index: u32) -> Key<'static> {
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
