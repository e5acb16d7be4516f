//! Socket options that nix has no form of.

use std::net::Ipv6Addr;
use std::os::fd::AsRawFd;
use std::ptr;

use nix::errno::Errno;

/// Sets an option to a value as the kernel reads it: an integer, or a structure of `repr(C)`.
#[expect(unsafe_code, reason = "nix has no form of these options")]
pub fn set_option<T>(socket: &impl AsRawFd, level: i32, option: i32, value: &T) -> nix::Result<()> {
    let (pointer, length) = (
        ptr::from_ref(value).cast(),
        size_of::<T>() as libc::socklen_t,
    );
    // SAFETY: the kernel reads the octets of `value`, which outlives the call.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, pointer, length) };
    Errno::result(result).map(drop)
}

/// A `struct sockaddr_storage` with an IPv6 address in it, as the options of RFC 3678 §5 have it.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Address {
    family: libc::sa_family_t,
    port: u16,
    flow_information: u32,
    octets: [u8; 16],
    scope: u32,
    rest: [u32; 25],
    /// The structure is aligned like a `long`.
    aligned: [usize; 0],
}

const _: () = assert!(size_of::<Address>() == size_of::<libc::sockaddr_storage>());
const _: () = assert!(align_of::<Address>() == align_of::<libc::sockaddr_storage>());

impl From<Ipv6Addr> for Address {
    fn from(address: Ipv6Addr) -> Self {
        Address {
            family: libc::AF_INET6 as libc::sa_family_t,
            port: 0,
            flow_information: 0,
            octets: address.octets(),
            scope: 0,
            rest: [0; 25],
            aligned: [],
        }
    }
}
