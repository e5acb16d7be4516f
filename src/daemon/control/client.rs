//! Asks a daemon on its control socket.

use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr, socket};
use nix::sys::stat::stat;
use nix::unistd::{read, write};
use protocol::time::Instant;

use super::owners::{Foreign, Owners};
use crate::sys::readiness::wait_until;
use crate::sys::records::FOLDER;

/// Why a socket was not asked, or gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskError {
    /// Another user listens there, with this number. Nothing was sent, and nothing read.
    Foreign(u32),
    System(Errno),
}

impl From<Errno> for AskError {
    fn from(errno: Errno) -> Self {
        AskError::System(errno)
    }
}

impl From<Foreign> for AskError {
    fn from(Foreign(user): Foreign) -> Self {
        AskError::Foreign(user)
    }
}

/// The default path of an instance's control socket.
pub fn socket_of(name: &str) -> String {
    format!("{FOLDER}/{name}.sock")
}

/// The folder of a path.
pub fn folder_of(path: &str) -> &str {
    match path.rsplit_once('/') {
        Some(("", _)) => "/",
        Some((folder, _)) => folder,
        None => ".",
    }
}

/// The question that [`Probe`](super::Probe) answers.
pub const PROBE: &str = "probe\n";

/// Asks for the line that [`Probe::parse`](super::Probe::parse) reads. See [`read_line`].
pub fn ask_probe(path: &str, deadline: Instant) -> Result<String, AskError> {
    Ok(read_line(&connect(path, PROBE)?, deadline)?)
}

/// Reads a short answer: everything that comes until the daemon closes the connection, at most 256
/// octets. Fails with `ETIMEDOUT` if it has not closed it by the deadline. What came before the
/// deadline is read after it as well.
pub fn read_line(stream: &UnixStream, deadline: Instant) -> nix::Result<String> {
    let mut answer = [0; 256];
    let mut length = 0;
    loop {
        match read(stream, &mut answer[length..]) {
            Ok(0) => return Ok(String::from_utf8_lossy(&answer[..length]).into_owned()),
            Ok(more) => length += more,
            Err(Errno::EAGAIN) if wait_until(stream.as_fd(), deadline) => {}
            Err(Errno::EAGAIN) => return Err(Errno::ETIMEDOUT),
            Err(errno) => return Err(errno),
        }
    }
}

/// Reads an answer of any length, up to 64 kB, as [`read_line`] reads a short one.
pub fn read_answer(stream: &UnixStream, deadline: Instant) -> nix::Result<String> {
    let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
    while answer.len() < 1 << 16 {
        match read(stream, &mut buffer) {
            Ok(0) => break,
            Ok(length) => answer.extend_from_slice(&buffer[..length]),
            Err(Errno::EAGAIN) if wait_until(stream.as_fd(), deadline) => {}
            Err(Errno::EAGAIN) => return Err(Errno::ETIMEDOUT),
            Err(errno) => return Err(errno),
        }
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Connects to a control socket and asks, without waiting. If nobody accepts connections and no
/// more can queue, it fails: no daemon works there.
pub fn connect(path: &str, question: &str) -> Result<UnixStream, AskError> {
    let owners = Owners::in_folder(stat(folder_of(path)).ok());
    ask(path, owners, question)
}

/// As [`connect`], where the owners are known.
pub fn ask(path: &str, owners: Owners, question: &str) -> Result<UnixStream, AskError> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let stream = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    socket::connect(stream.as_raw_fd(), &UnixAddr::new(path)?)?;
    owners.check(&stream)?;
    write(&stream, question.as_bytes())?;
    Ok(UnixStream::from(stream))
}
