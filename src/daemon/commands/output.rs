//! Writes to standard output and standard error without the standard library's buffers.

use std::os::fd::BorrowedFd;
use std::process;

use nix::errno::Errno;
use nix::unistd::write;

use crate::sys::{STANDARD_ERROR, STANDARD_OUTPUT};

pub fn print(text: &str) {
    print_octets(text.as_bytes());
}

/// Writes octets to standard output. If that fails, ends the program, since the rest would be cut
/// off: with exit code 0 if the reader has gone, else with 1.
pub fn print_octets(octets: &[u8]) {
    match write_all(STANDARD_OUTPUT, octets) {
        Ok(()) => {}
        Err(Errno::EPIPE) => process::exit(0),
        Err(errno) => {
            complain(&["writing: ", errno.desc()].concat());
            process::exit(1);
        }
    }
}

/// Writes an error message.
pub fn complain(text: &str) {
    complain_as_it_is(&["mldproxy: ", text, "\n"].concat());
}

pub fn complain_as_it_is(text: &str) {
    // There is nowhere to report that this failed.
    let _ = write_all(STANDARD_ERROR, text.as_bytes());
}

fn write_all(to: BorrowedFd<'_>, mut octets: &[u8]) -> nix::Result<()> {
    while !octets.is_empty() {
        match write(to, octets) {
            Ok(length) => octets = octets.get(length..).unwrap_or_default(),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
