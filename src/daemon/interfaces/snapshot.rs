//! The interfaces at one moment, for commands that look once.

use std::net::Ipv6Addr;
use std::os::fd::AsFd as _;

use nix::errno::Errno;
use protocol::config::Config;
use protocol::link::Prefix;
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
    /// Every interface.
    pub links: Vec<KnownLink>,
    /// The usable entries of the neighbor cache.
    pub neighbors: Vec<KnownNeighbor>,
    /// The routes without a gateway, each with the number of its interface.
    pub on_link: Vec<(u32, Prefix)>,
}

/// An interface, named by the user or not.
pub struct KnownLink {
    pub index: u32,
    /// U+FFFD if the name is no UTF-8.
    pub name: String,
    /// `None` if it is no bridge.
    pub bridge: Option<Bridge>,
    /// It is up, and has a carrier.
    pub running: bool,
    /// It has a link-layer address of six octets.
    pub has_mac: bool,
    /// It is a part of a bridge or bond, which takes its IPv6.
    pub is_part: bool,
}

/// A neighbor that the kernel knows.
pub struct KnownNeighbor {
    pub index: u32,
    pub address: Ipv6Addr,
    pub mac: [u8; 6],
}

impl Snapshot {
    /// Asks the kernel for these dumps, in this order.
    pub fn take(config: &Config, dumps: &[Dump]) -> nix::Result<Self> {
        let mut snapshot = Snapshot {
            interfaces: Interfaces::new(config),
            addresses: Vec::new(),
            proxied: Vec::new(),
            links: Vec::new(),
            neighbors: Vec::new(),
            on_link: Vec::new(),
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
        let link = links.find(|link| link.index == index)?;
        Some((&link.name, link.bridge))
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
                self.links.push(KnownLink {
                    index: link.index,
                    name,
                    bridge: link.bridge,
                    running: link.up && link.running,
                    has_mac: link.mac.is_some_and(|mac| mac != [0; 6]),
                    is_part: link.master.is_some_and(|master| master.table.is_none()),
                });
            }
            Notice::Neighbor {
                index,
                address,
                mac,
            } => self.neighbors.push(KnownNeighbor {
                index: *index,
                address: *address,
                mac: *mac,
            }),
            Notice::Route(route) => self.on_link.push((route.index, route.destination)),
            Notice::LinkDeleted { .. }
            | Notice::AddressDeleted { .. }
            | Notice::NeighborDeleted { .. }
            | Notice::Dumped(_)
            | Notice::Lost
            | Notice::RouteDeleted(_)
            | Notice::Sibling(_)
            | Notice::Refused(_) => {}
        }
        self.interfaces.handle(notice);
    }
}
