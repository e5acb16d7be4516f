//! The interfaces at one moment, for commands that look once.

use std::os::fd::AsFd as _;

use nix::errno::Errno;
use protocol::config::Config;
use protocol::time::Duration;

use super::Interfaces;
use crate::sys::clock;
use crate::sys::netlink::{Address, BUFFER_LENGTH, Bridge, Dump, Netlink, Notice};
use crate::sys::readiness::wait_until;

/// How long to wait for the kernel, which takes far less.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the kernel reported.
pub struct Snapshot {
    pub interfaces: Interfaces,
    /// The addresses of all interfaces.
    pub addresses: Vec<Address>,
    /// The number of the interface of each proxy entry, and the mark of the program that made the
    /// entry.
    pub proxied: Vec<(u32, u8)>,
    /// The number and the name of every interface, and its bridge, if it is one. A name that is no
    /// UTF-8 is U+FFFD.
    pub links: Vec<(u32, String, Option<Bridge>)>,
}

impl Snapshot {
    /// Asks the kernel for these dumps, in this order.
    pub fn take(config: &Config, dumps: &[Dump]) -> nix::Result<Self> {
        let mut snapshot = Snapshot {
            interfaces: Interfaces::new(config),
            addresses: Vec::new(),
            proxied: Vec::new(),
            links: Vec::new(),
        };
        let mut netlink = Netlink::open()?;
        let mut buffer = vec![0; BUFFER_LENGTH];
        let deadline = clock::now().saturating_add(PATIENCE);
        for &dump in dumps {
            let mut dumped = false;
            while !dumped {
                match netlink.request(dump) {
                    // A dump that a change interrupted is requested again. `EBUSY` means that one
                    // is under way.
                    Ok(()) | Err(Errno::EBUSY) => {}
                    Err(errno) => return Err(errno),
                }
                if !wait_until(netlink.as_fd(), deadline) {
                    return Err(Errno::ETIMEDOUT);
                }
                netlink.receive(&mut buffer, &mut |notice| {
                    dumped |= matches!(notice, Notice::Dumped(_));
                    snapshot.note(&notice);
                })?;
            }
        }
        Ok(snapshot)
    }

    /// The name of an interface, and its bridge, if it is one.
    pub fn link(&self, index: u32) -> Option<(&str, Option<Bridge>)> {
        let mut links = self.links.iter();
        let (_, name, bridge) = links.find(|(number, ..)| *number == index)?;
        Some((name, *bridge))
    }

    fn note(&mut self, notice: &Notice<'_>) {
        match notice {
            Notice::Address(address) => self.addresses.push(*address),
            Notice::ProxiedNeighbor {
                index, protocol, ..
            } => self.proxied.push((*index, *protocol)),
            Notice::Link(link) => {
                let name = link.name.filter(|name| !name.is_empty());
                let name = name.unwrap_or("\u{fffd}").to_owned();
                self.links.push((link.index, name, link.bridge));
            }
            Notice::LinkDeleted { .. }
            | Notice::AddressDeleted { .. }
            | Notice::Neighbor { .. }
            | Notice::NeighborDeleted { .. }
            | Notice::Route(_)
            | Notice::Dumped(_)
            | Notice::Lost
            | Notice::RouteDeleted(_)
            | Notice::Sibling(_)
            | Notice::Refused(_) => {}
        }
        self.interfaces.handle(notice);
    }
}
