//! The kernel, one file for each of its interfaces. Every descriptor has an owner, and every
//! `unsafe` is in `ffi`.

pub mod clock;
mod ffi;
pub mod folder;
mod layouts;
pub mod log;
pub mod membership;
pub mod mroute;
pub mod netlink;
pub mod packet;
pub mod privileges;
pub mod procfs;
pub mod readiness;
pub mod records;
pub mod signal;
pub mod source_filters;
pub mod sysctl;

use std::io;
use std::os::fd::AsFd;

use nix::errno::Errno;

pub use ffi::{Heap, STANDARD_ERROR, STANDARD_OUTPUT, random};

/// The error number of an error of the standard library.
pub fn errno<T>(result: io::Result<T>) -> nix::Result<T> {
    result.map_err(|error| Errno::try_from(error).unwrap_or(Errno::UnknownErrno))
}

/// The number of a socket's network namespace, unique since the boot. Before Linux 5.14 it is 0 for
/// all namespaces. Few systems have more than one.
pub fn network_namespace(socket: impl AsFd) -> u64 {
    ffi::network_namespace(socket.as_fd()).unwrap_or_default()
}

/// Reads decimal digits; `None` for anything else.
pub fn decimal(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0_u32, |number, digit| {
        let digit = char::from(*digit).to_digit(10)?;
        number.checked_mul(10)?.checked_add(digit)
    })
}
