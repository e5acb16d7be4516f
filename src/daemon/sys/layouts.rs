//! The structures of linux/mroute6.h and linux/in.h that the `libc` crate lacks, or has no way to
//! fill in. They are laid out as the kernel's headers say, on 64-bit and on 32-bit machines.

use std::mem::offset_of;
use std::net::Ipv6Addr;

/// `struct mif6ctl`.
#[repr(C)]
pub struct MrouteInterface {
    pub number: u16,
    pub flags: u8,
    pub threshold: u8,
    pub index: u16,
    pub rate_limit: u32,
}

/// `struct mf6cctl`.
#[repr(C)]
pub struct MrouteEntry {
    source: libc::sockaddr_in6,
    group: libc::sockaddr_in6,
    parent: u16,
    out: [u32; 8],
}

impl MrouteEntry {
    /// An entry for what arrives on the interface with the number `parent`. `out` has a bit for the
    /// number of each outgoing interface.
    pub fn new(source: Ipv6Addr, group: Ipv6Addr, parent: u16, out: u32) -> Self {
        MrouteEntry {
            source: ipv6_address(source),
            group: ipv6_address(group),
            parent,
            out: [out, 0, 0, 0, 0, 0, 0, 0],
        }
    }
}

/// The sources that a [`SourceFilter`] has room for.
pub const MAX_SOURCES: usize = 64;

/// `struct group_filter`.
#[repr(C)]
pub struct SourceFilter {
    index: u32,
    group: Storage,
    mode: u32,
    count: u32,
    sources: [Storage; MAX_SOURCES],
}

impl SourceFilter {
    /// A filter of a group that passes all sources, or none.
    pub fn new(index: u32, group: Ipv6Addr, excludes: bool) -> Self {
        let mode = if excludes {
            libc::MCAST_EXCLUDE
        } else {
            libc::MCAST_INCLUDE
        };
        SourceFilter {
            index,
            group: Storage::of(group),
            mode: mode.cast_unsigned(),
            count: 0,
            sources: [Storage::of(Ipv6Addr::UNSPECIFIED); _],
        }
    }

    /// Adds sources that the filter passes, or that it does not. Returns false, and adds none, if
    /// there are more than [`MAX_SOURCES`].
    pub fn list(&mut self, sources: &[Ipv6Addr]) -> bool {
        let Some(places) = self.sources.get_mut(..sources.len()) else {
            return false;
        };
        for (place, source) in places.iter_mut().zip(sources) {
            *place = Storage::of(*source);
        }
        self.count = places.len() as u32;
        true
    }

    /// The octets that are in use.
    pub fn length(&self) -> usize {
        offset_of!(SourceFilter, sources) + self.count as usize * size_of::<Storage>()
    }
}

/// `struct group_source_req`.
#[repr(C)]
pub struct GroupSource {
    index: u32,
    group: Storage,
    source: Storage,
}

impl GroupSource {
    pub fn new(index: u32, group: Ipv6Addr, source: Ipv6Addr) -> Self {
        GroupSource {
            index,
            group: Storage::of(group),
            source: Storage::of(source),
        }
    }
}

/// `struct __kernel_sockaddr_storage`, with an IPv6 address in it. The kernel aligns it as a
/// pointer.
#[repr(C)]
#[derive(Clone, Copy)]
struct Storage {
    address: libc::sockaddr_in6,
    rest: [u8; 128 - size_of::<libc::sockaddr_in6>()],
    alignment: [usize; 0],
}

impl Storage {
    const fn of(address: Ipv6Addr) -> Self {
        Storage {
            address: ipv6_address(address),
            rest: [0; _],
            alignment: [],
        }
    }
}

// As in the kernel's headers, for 64-bit and for 32-bit machines.
const _: () = {
    let pointer = size_of::<usize>();
    assert!(size_of::<MrouteInterface>() == 12 && offset_of!(MrouteInterface, index) == 4);
    assert!(size_of::<MrouteEntry>() == 92 && offset_of!(MrouteEntry, out) == 60);
    assert!(size_of::<Storage>() == 128 && align_of::<Storage>() == pointer);
    assert!(size_of::<GroupSource>() == pointer + 256);
    assert!(offset_of!(SourceFilter, mode) == pointer + 128);
    assert!(offset_of!(SourceFilter, sources) == pointer + 136);
};

const fn ipv6_address(address: Ipv6Addr) -> libc::sockaddr_in6 {
    libc::sockaddr_in6 {
        sin6_family: libc::AF_INET6 as u16,
        sin6_port: 0,
        sin6_flowinfo: 0,
        sin6_addr: libc::in6_addr {
            s6_addr: address.octets(),
        },
        sin6_scope_id: 0,
    }
}
