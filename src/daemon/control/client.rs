//! Asks a daemon on its control socket.

use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr, socket};
use nix::unistd::{read, write};
use protocol::time::Instant;

use crate::sys::readiness::wait_until;
use crate::sys::records::FOLDER;

/// The default path of an instance's control socket.
pub fn socket_of(name: &str) -> String {
    format!("{FOLDER}/{name}.sock")
}

/// Asks for the line that [`Probe::parse`](super::Probe::parse) reads. Returns everything that
/// comes until the daemon closes the connection. Fails with `ETIMEDOUT` if it has not closed it by
/// the deadline.
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

/// Connects to a control socket and asks, without waiting. If nobody accepts connections and no
/// more can queue, it fails: no daemon works there.
pub fn connect(path: &str, question: &str) -> nix::Result<UnixStream> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let stream = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    socket::connect(stream.as_raw_fd(), &UnixAddr::new(path)?)?;
    let stream = UnixStream::from(stream);
    write(&stream, question.as_bytes())?;
    Ok(stream)
}
