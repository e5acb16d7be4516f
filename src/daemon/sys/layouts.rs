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

// As in the kernel's headers, for 64-bit and for 32-bit machines.
const _: () = {
    assert!(size_of::<MrouteInterface>() == 12 && offset_of!(MrouteInterface, index) == 4);
    assert!(size_of::<MrouteEntry>() == 92 && offset_of!(MrouteEntry, out) == 60);
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
