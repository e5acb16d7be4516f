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
        let excludes = mode == FilterMode::Exclude;
        let filter = SourceFilter::new(index, group, excludes, sources).ok_or(Errno::ENOBUFS)?;
        if let Some(own) = self.own.iter().flatten().find(|own| own.slot == slot) {
            return apply(&own.socket, &filter);
        }
        let shared = self.shared.open(slot)?;
        if sources.len() <= SHARED_SOURCES {
            match apply(shared, &filter) {
                Err(Errno::ENOBUFS) => {}
                result => return result,
            }
        }
        let free = self.own.iter_mut().find(|own| own.is_none());
        let free = free.ok_or(Errno::ENOBUFS)?;
        let socket = unbound_socket()?;
        apply(&socket, &filter)?;
        *free = Some(Own { slot, socket });
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

/// Gives a socket's membership a filter, and makes it a member if it is none. `ENOBUFS` means that
/// the socket has no room, and leaves it as it was.
fn apply(socket: &UdpSocket, filter: &SourceFilter) -> nix::Result<()> {
    match ffi::set_source_filter(socket.as_fd(), filter) {
        // The socket is no member yet, and takes a filter only as one.
        Err(Errno::EINVAL) => full(join_with(socket, filter)),
        result => full(result),
    }
}

/// Makes a socket a member with a filter.
fn join_with(socket: &UdpSocket, filter: &SourceFilter) -> nix::Result<()> {
    let (index, group) = (filter.index(), filter.group());
    // The kernel waits some milliseconds before it reports, so both steps are in one report. A
    // member that first wanted all sources would be one of a group that is not source-specific.
    let is_done = match filter.first_included() {
        Some(source) => {
            ffi::join_source(socket.as_fd(), index, group, source)?;
            filter.count() == 1
        }
        None => {
            join(socket, index, group)?;
            filter.count() == 0
        }
    };
    if is_done {
        return Ok(());
    }
    ffi::set_source_filter(socket.as_fd(), filter).inspect_err(|_| {
        let _ = leave(socket, index, group);
    })
}

/// The kernel has two names for a socket without room.
fn full(result: nix::Result<()>) -> nix::Result<()> {
    match result {
        Err(Errno::ENOMEM) => Err(Errno::ENOBUFS),
        result => result,
    }
}
