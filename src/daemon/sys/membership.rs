//! Memberships of solicited-node groups upstream, and what all memberships share. The kernel holds
//! them, reports them and answers queries.
//!
//! A socket's memberships take its option memory. The 20480 octets that kernels before 6.8 allow
//! are enough for 319 groups, and 10240 octets for 159. So each socket takes the groups of
//! [`GROUPS_PER_SOCKET`] neighbouring slots.

use std::net::{Ipv6Addr, UdpSocket};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use protocol::ndp::solicited::CAPACITY;

use super::errno;

const GROUPS_PER_SOCKET: usize = 128;
const SOCKETS: usize = CAPACITY.div_ceil(GROUPS_PER_SOCKET);

/// Closing the sockets ends all memberships.
pub struct Memberships {
    sockets: Shards<GROUPS_PER_SOCKET, SOCKETS>,
}

impl Memberships {
    pub const fn new() -> Self {
        Memberships {
            sockets: Shards::new(),
        }
    }

    /// Joins `group` on an interface. The membership lasts until the group is left or the interface
    /// is deleted. Each group has a slot of its own, below [`CAPACITY`].
    pub fn join(&mut self, slot: usize, group: Ipv6Addr, index: u32) -> nix::Result<()> {
        join(self.sockets.open(slot)?, index, group)
    }

    /// Leaves `group`, which was joined with the same arguments.
    pub fn leave(&mut self, slot: usize, group: Ipv6Addr, index: u32) -> nix::Result<()> {
        match self.sockets.get(slot) {
            Some(socket) => leave(socket, index, group),
            None => Ok(()),
        }
    }

    /// Ends all memberships.
    pub fn leave_all(&mut self) {
        *self = Memberships::new();
    }
}

/// `COUNT` sockets, each opened when it is first needed, and each for `EACH` neighbouring slots.
pub(super) struct Shards<const EACH: usize, const COUNT: usize>([Option<UdpSocket>; COUNT]);

impl<const EACH: usize, const COUNT: usize> Shards<EACH, COUNT> {
    pub(super) const fn new() -> Self {
        Shards([const { None }; COUNT])
    }

    /// The socket of a slot, opened if it is not open yet. Fails with `EINVAL` if there is no such
    /// slot.
    pub(super) fn open(&mut self, slot: usize) -> nix::Result<&UdpSocket> {
        let shard = self.0.get_mut(slot / EACH).ok_or(Errno::EINVAL)?;
        Ok(match shard {
            Some(socket) => socket,
            None => shard.insert(unbound_socket()?),
        })
    }

    /// The socket of a slot, if it is open.
    pub(super) fn get(&self, slot: usize) -> Option<&UdpSocket> {
        self.0.get(slot / EACH)?.as_ref()
    }
}

/// Makes a socket a member of a group, with all sources. Succeeds also if it is a member already.
pub(super) fn join(socket: &UdpSocket, index: u32, group: Ipv6Addr) -> nix::Result<()> {
    match errno(socket.join_multicast_v6(&group, index)) {
        Err(Errno::EADDRINUSE) => Ok(()),
        result => result,
    }
}

/// Ends a socket's membership. Succeeds also if there is none.
pub(super) fn leave(socket: &UdpSocket, index: u32, group: Ipv6Addr) -> nix::Result<()> {
    match errno(socket.leave_multicast_v6(&group, index)) {
        // With the interface, the kernel deleted its memberships.
        Err(Errno::EADDRNOTAVAIL | Errno::ENODEV) => Ok(()),
        result => result,
    }
}

/// A socket for memberships. Without a port it receives nothing.
pub(super) fn unbound_socket() -> nix::Result<UdpSocket> {
    let flags = SockFlag::SOCK_CLOEXEC;
    socket(AddressFamily::Inet6, SockType::Datagram, flags, None).map(UdpSocket::from)
}
