//! Finds the running instances by their control sockets in the program's folder.
//!
//! The kernel's own list of sockets, `/proc/net/unix`, is no source: a line of it ends where the
//! name of a socket does, and any user can bind one to a name with an end of line in it. In the
//! folder only its owner and root can put something. An instance whose socket is elsewhere is not
//! found.

use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, fstat};
use protocol::time::Duration;

use super::client::{PROBE, ask, read_line};
use super::owners::Owners;
use super::{AskError, Probe};
use crate::sys::folder::for_each_name;
use crate::sys::records::open_folder;
use crate::sys::{clock, network_namespace};

/// The time to find and ask all of them. A daemon may be stopped.
const PATIENCE: Duration = Duration::from_secs(1);
/// The most sockets that are asked.
const MOST: usize = 64;

/// A socket on which somebody listens who may be asked.
pub struct Listed {
    /// The instance's name: the file's, without `.sock`.
    pub name: String,
    /// The line that came, for [`Probe::parse`], or why none did.
    pub answer: Result<String, AskError>,
}

/// Asks all instances in this network namespace. A listener that does not answer, or not in this
/// version's words, is listed too. Fails if the folder cannot be read.
pub fn instances() -> nix::Result<Vec<Listed>> {
    let deadline = clock::now().saturating_add(PATIENCE);
    let folder = open_folder()?;
    let owners = Owners::in_folder(fstat(&folder).ok());
    // All are asked before the first answer is read, so that a silent one does not hide the others.
    let mut asked = Vec::new();
    for_each_name(folder.as_fd(), &mut |file| {
        if let Some(name) = instance_of(file)
            && let Some(stream) = ask_listener(folder.as_fd(), file, owners)
        {
            asked.push((name.to_owned(), stream));
        }
        asked.len() == MOST || clock::now() >= deadline
    });
    let mut listed = Vec::new();
    for (name, stream) in asked {
        let (answer, here) = match stream {
            Ok(stream) => {
                let answer = read_line(&stream, deadline).map_err(AskError::System);
                (answer, network_namespace(&stream))
            }
            Err(error) => (Err(error), 0),
        };
        let probe = answer.as_deref().ok().and_then(Probe::parse);
        if probe.is_none_or(|probe| probe.namespace == here) {
            listed.push(Listed { name, answer });
        }
    }
    Ok(listed)
}

/// Asks on a socket in the folder. `None` if it is no socket, if nobody listens on it any more, or
/// if its file or its listener is of a user who has no business there.
fn ask_listener(
    folder: BorrowedFd<'_>,
    file: &[u8],
    owners: Owners,
) -> Option<Result<UnixStream, AskError>> {
    // This opens the socket's file itself, or the link in its place, and nothing behind that.
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let socket = openat(folder, file, flags, Mode::empty()).ok()?;
    let status = fstat(&socket).ok()?;
    if status.st_mode & libc::S_IFMT != libc::S_IFSOCK || !owners.contains(status.st_uid) {
        return None;
    }
    // Another file may have the name by now. In a jail without /proc no instance is found.
    let path = format!("/proc/self/fd/{}", socket.as_raw_fd());
    match ask(&path, owners, PROBE) {
        Err(AskError::Foreign(_) | AskError::System(Errno::ECONNREFUSED | Errno::ENOENT)) => None,
        asked => Some(asked),
    }
}

/// The instance that a file's name is of.
fn instance_of(file: &[u8]) -> Option<&str> {
    let name = str::from_utf8(file).ok()?.strip_suffix(".sock")?;
    is_instance_name(name).then_some(name)
}

/// Whether a text can be the name of an instance: 1 to 32 letters, digits, `_`, `-` and `.`, the
/// first no `-` or `.`.
pub fn is_instance_name(text: &str) -> bool {
    let allowed = |octet: &u8| octet.is_ascii_alphanumeric() || b"_-.".contains(octet);
    match text.as_bytes() {
        [b'-' | b'.', ..] => false,
        octets => (1..=32).contains(&octets.len()) && octets.iter().all(allowed),
    }
}
