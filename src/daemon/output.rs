//! Standard output and standard error, without the buffers of the standard library. A reader that went away has read enough.

use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::unistd::write;

use crate::sys::{STANDARD_ERROR, STANDARD_OUTPUT};

pub fn print(text: &str) {
    print_octets(text.as_bytes());
}

/// Does anybody still read it?
pub fn print_octets(octets: &[u8]) -> bool {
    write_all(STANDARD_OUTPUT, octets)
}

/// Says what went wrong.
pub fn complain(text: &str) {
    complain_as_it_is(&["mldproxy: ", text, "\n"].concat());
}

pub fn complain_as_it_is(text: &str) {
    write_all(STANDARD_ERROR, text.as_bytes());
}

fn write_all(to: BorrowedFd<'_>, mut octets: &[u8]) -> bool {
    while !octets.is_empty() {
        match write(to, octets) {
            Ok(length) => octets = octets.get(length..).unwrap_or_default(),
            Err(Errno::EINTR) => {}
            Err(_) => return false,
        }
    }
    true
}
