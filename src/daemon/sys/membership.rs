//! Memberships of multicast groups upstream. The kernel holds them, reports them and answers
//! queries.
//!
//! A socket's memberships take its option memory. The 20480 octets that kernels before 6.7 allow
//! are enough for 365 groups, and 10240 octets for 182. So each socket takes the groups of
//! [`GROUPS_PER_SOCKET`] neighbouring slots.

use std::net::{Ipv6Addr, UdpSocket};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use protocol::ndp::solicited::CAPACITY;

use super::errno;

const GROUPS_PER_SOCKET: usize = 128;
const SOCKETS: usize = CAPACITY.div_ceil(GROUPS_PER_SOCKET);

/// The sockets, each opened when its first group is joined. Closing them ends all memberships.
pub struct Memberships {
    sockets: [Option<UdpSocket>; SOCKETS],
}

impl Memberships {
    pub const fn new() -> Self {
        Memberships {
            sockets: [const { None }; SOCKETS],
        }
    }

    /// Joins `group` on an interface. The membership lasts until the group is left or the interface
    /// is deleted. Each group has a slot of its own, below [`CAPACITY`].
    pub fn join(&mut self, slot: usize, group: Ipv6Addr, index: u32) -> nix::Result<()> {
        let shard = self.sockets.get_mut(slot / GROUPS_PER_SOCKET);
        let shard = shard.ok_or(Errno::EINVAL)?;
        let socket = match shard {
            Some(socket) => socket,
            None => shard.insert(unbound_socket()?),
        };
        match errno(socket.join_multicast_v6(&group, index)) {
            // The socket is a member already.
            Err(Errno::EADDRINUSE) => Ok(()),
            result => result,
        }
    }

    /// Leaves `group`, which was joined with the same arguments.
    pub fn leave(&mut self, slot: usize, group: Ipv6Addr, index: u32) -> nix::Result<()> {
        let shard = self.sockets.get(slot / GROUPS_PER_SOCKET);
        let Some(socket) = shard.and_then(Option::as_ref) else {
            return Ok(());
        };
        match errno(socket.leave_multicast_v6(&group, index)) {
            // With the interface, the kernel deleted its memberships.
            Err(Errno::EADDRNOTAVAIL | Errno::ENODEV) => Ok(()),
            result => result,
        }
    }

    /// Ends all memberships.
    pub fn leave_all(&mut self) {
        *self = Memberships::new();
    }
}

/// A socket for memberships. Without a port it receives nothing.
fn unbound_socket() -> nix::Result<UdpSocket> {
    let flags = SockFlag::SOCK_CLOEXEC;
    socket(AddressFamily::Inet6, SockType::Datagram, flags, None).map(UdpSocket::from)
}
