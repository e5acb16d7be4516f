//! Asking a daemon on its control socket.

use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr, socket};
use nix::unistd::{read, write};
use protocol::time::Instant;

use crate::sys::readiness::wait_until;
use crate::sys::records::FOLDER;

/// Where the control socket of an instance is by default.
pub fn socket_of(name: &str) -> String {
    format!("{FOLDER}/{name}.sock")
}

/// A daemon's answer to a program, which [`Probe::parse`](super::Probe::parse) reads, or what else
/// comes until the connection is closed. Fails with `ETIMEDOUT` where that is not so by the
/// deadline.
pub fn ask_probe(path: &str, deadline: Instant) -> nix::Result<String> {
    let stream = connect(path, "probe\n")?;
    let mut answer = [0; 128];
    let mut length = 0;
    loop {
        if !wait_until(stream.as_fd(), deadline) {
            return Err(Errno::ETIMEDOUT);
        }
        match read(&stream, &mut answer[length..])? {
            0 => return Ok(String::from_utf8_lossy(&answer[..length]).into_owned()),
            more => length += more,
        }
    }
}

/// Connects to a control socket and asks. Waits for nobody: whoever listens and accepts nothing, until no more can wait, is no daemon.
pub fn connect(path: &str, question: &str) -> nix::Result<UnixStream> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let stream = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    socket::connect(stream.as_raw_fd(), &UnixAddr::new(path)?)?;
    let stream = UnixStream::from(stream);
    write(&stream, question.as_bytes())?;
    Ok(stream)
}
