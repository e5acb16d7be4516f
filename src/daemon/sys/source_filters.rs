//! Memberships with source filters upstream, of the groups that downstream listeners want (RFC 3810
//! §4.2). The kernel holds them, reports their changes and answers queries.
//!
//! A socket's memberships take its option memory, of which a kernel may allow as little as 10240
//! octets (`net.core.optmem_max`). They are enough for 42 groups with a few sources, and for 9
//! groups with 64. So each socket takes the groups of [`GROUPS_PER_SOCKET`] neighbouring slots, and
//! a group for which that socket has no room gets a socket of its own.

use std::net::{Ipv6Addr, UdpSocket};
use std::os::fd::AsFd as _;

use nix::errno::Errno;
use protocol::mld::filter::FilterMode;

use super::ffi;
use super::layouts::{self, SourceFilter};
use super::membership::{Shards, join, leave, unbound_socket};

/// The slots are below this number.
pub const SLOTS: usize = protocol::mld::proxy::CAPACITY;
/// The most sources of a filter, as many as the kernel takes by default (`net.ipv6.mld_max_msf`).
pub const MAX_SOURCES: usize = layouts::MAX_SOURCES;

const GROUPS_PER_SOCKET: usize = 32;
/// A group with more sources than this has a socket of its own.
const SHARED_SOURCES: usize = 8;
/// The most groups with sockets of their own.
const OWN_SOCKETS: usize = 128;

/// Closing the sockets ends all memberships.
pub struct SourceFilters {
    shared: Shards<GROUPS_PER_SOCKET, { SLOTS / GROUPS_PER_SOCKET }>,
    own: [Option<Own>; OWN_SOCKETS],
    /// A bit for each slot whose group's shared socket is a member. The kernel would tell too, but
    /// each join would cost one call more.
    members: [u32; SLOTS.div_ceil(32)],
}

/// The socket of one group. The group keeps it until it is left, however few its sources become.
struct Own {
    slot: usize,
    socket: UdpSocket,
}

impl SourceFilters {
    pub const fn new() -> Self {
        SourceFilters {
            shared: Shards::new(),
            own: [const { None }; OWN_SOCKETS],
            members: [0; _],
        }
    }

    /// Makes this host a member of `group` on an interface with a filter, or changes the filter.
    /// `Include` without sources leaves the group. Setting what is set already reports nothing.
    ///
    /// Each group has a slot of its own, below [`SLOTS`]. Before the slot gets another group or
    /// another interface, the group has to be [left](Self::leave). If an interface is deleted, its
    /// memberships end, and the slots have to be [left](Self::leave_all) as well.
    ///
    /// # Errors
    /// They leave the group as it was. `ENOBUFS` if no socket has room, or if there are more
    /// sources than [`MAX_SOURCES`] or `net.ipv6.mld_max_msf`; `ENODEV` if the interface is gone or
    /// has no IPv6; `EINVAL` for another slot, or if `group` is no multicast address.
    pub fn set(
        &mut self,
        slot: usize,
        index: u32,
        group: Ipv6Addr,
        mode: FilterMode,
        sources: &[Ipv6Addr],
    ) -> nix::Result<()> {
        if mode == FilterMode::Include && sources.is_empty() {
            return self.leave(slot, index, group);
        }
        let wanted = Wanted {
            index,
            group,
            mode,
            sources,
        };
        if let Some(own) = self.own.iter().flatten().find(|own| own.slot == slot) {
            return wanted.apply(&own.socket);
        }
        let shared = self.shared.open(slot)?;
        let members = self.members.get_mut(slot / 32).ok_or(Errno::EINVAL)?;
        let bit = 1 << (slot % 32);
        if sources.len() <= SHARED_SOURCES {
            let result = match *members & bit {
                0 => wanted.join(shared),
                _ => wanted.apply(shared),
            };
            match result {
                Err(Errno::ENOBUFS) => {}
                result => {
                    if result.is_ok() {
                        *members |= bit;
                    }
                    return result;
                }
            }
        }
        let free = self.own.iter_mut().find(|own| own.is_none());
        let free = free.ok_or(Errno::ENOBUFS)?;
        let socket = unbound_socket()?;
        wanted.join(&socket)?;
        *free = Some(Own { slot, socket });
        *members &= !bit;
        // The kernel reports what all sockets want together: the host was a member all the time.
        leave(shared, index, group)
    }

    /// Leaves `group`, which was set with the same arguments. Succeeds also if it was not, or if
    /// the interface is gone.
    pub fn leave(&mut self, slot: usize, index: u32, group: Ipv6Addr) -> nix::Result<()> {
        for own in &mut self.own {
            // The end of its socket ends the membership.
            own.take_if(|own| own.slot == slot);
        }
        if let Some(members) = self.members.get_mut(slot / 32) {
            *members &= !(1 << (slot % 32));
        }
        match self.shared.get(slot) {
            Some(socket) => leave(socket, index, group),
            None => Ok(()),
        }
    }

    /// Ends all memberships.
    pub fn leave_all(&mut self) {
        *self = SourceFilters::new();
    }
}

/// The membership that a socket is to have.
struct Wanted<'a> {
    index: u32,
    group: Ipv6Addr,
    mode: FilterMode,
    sources: &'a [Ipv6Addr],
}

impl Wanted<'_> {
    /// Changes the filter of a socket's membership, and makes the socket a member if it is none.
    /// `ENOBUFS` means that the socket has no room, and leaves it as it was.
    fn apply(&self, socket: &UdpSocket) -> nix::Result<()> {
        match self.set_filter(socket) {
            // With the interface, the kernel deleted the membership.
            Err(Errno::EINVAL) => self.join(socket),
            result => full(result),
        }
    }

    /// Makes a socket a member. `ENOBUFS` as with [`Self::apply`].
    fn join(&self, socket: &UdpSocket) -> nix::Result<()> {
        let (index, group) = (self.index, self.group);
        // The kernel waits some milliseconds before it reports, so both steps are in one report. A
        // member that first wanted all sources would be one of a group that is not source-specific.
        let (joined, listed) = match (self.mode, self.sources) {
            (FilterMode::Include, [first, ..]) => {
                (ffi::join_source(socket.as_fd(), index, group, *first), 1)
            }
            (FilterMode::Include, []) | (FilterMode::Exclude, _) => (join(socket, index, group), 0),
        };
        match joined {
            // The socket is a member already, with this source.
            Err(Errno::EADDRNOTAVAIL) => return full(self.set_filter(socket)),
            result => full(result)?,
        }
        if self.sources.len() == listed {
            return Ok(());
        }
        full(self.set_filter(socket)).inspect_err(|_| {
            let _ = leave(socket, index, group);
        })
    }

    /// Fails with `EINVAL` if the socket is no member.
    // The filter takes 8 kB of the stack, but only where a group needs it.
    #[inline(never)]
    fn set_filter(&self, socket: &UdpSocket) -> nix::Result<()> {
        let excludes = self.mode == FilterMode::Exclude;
        let mut filter = SourceFilter::new(self.index, self.group, excludes);
        if !filter.list(self.sources) {
            return Err(Errno::ENOBUFS);
        }
        ffi::set_source_filter(socket.as_fd(), &filter)
    }
}

/// The kernel has two names for a socket without room.
fn full(result: nix::Result<()>) -> nix::Result<()> {
    match result {
        Err(Errno::ENOMEM) => Err(Errno::ENOBUFS),
        result => result,
    }
}
