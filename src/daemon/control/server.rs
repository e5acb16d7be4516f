//! The control socket: a Unix stream socket on which a client asks by one line, `FORMAT LIMIT`, and
//! reads the answer to its end. A program asks by the line `probe`, and gets the line that
//! [`Probe`](super::Probe) reads. Who asks anything else is hung up on.
//!
//! Nothing a client does holds up the loop: sockets do not block, what is written in one turn is bounded, the few clients have
//! buffers of their own, and one that does not get on gives way.

use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, Flock, FlockArg, OFlag, open};
use nix::sys::stat::{Mode, fstat, fstatat, stat, umask};
use nix::unistd::{
    Gid, Uid, UnlinkatFlags, fchown, fchownat, getegid, geteuid, mkdir, read, setfsgid, setfsuid,
    unlinkat, write,
};
use protocol::time::{Duration, Instant, earliest};

use super::{Cursor, Format, View, ask_probe, parse_question};
use crate::sys::clock;
use crate::sys::errno;
use crate::sys::privileges::User;
use crate::sys::readiness::{Until, Waited, pause};
use crate::sys::records::{FOLDER, FOLDER_OF_FOLDER};

/// How many are served at once; more wait.
pub const CLIENTS: usize = 4;
/// How long one may take none of its answer, or not ask.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long it may take all of it.
const LONGEST: Duration = Duration::from_secs(30);
/// How long another daemon may take to answer before this one starts without a socket.
const ANSWER_PATIENCE: Duration = Duration::from_secs(2);
/// The longest question, in octets.
const QUESTION: usize = 32;
/// Until a newcomer is let in, where none could be.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// Buffers of an answer that are written to one client before packets have their turn again.
const BATCH: usize = 4;

/// Room for a piece of each client's answer. All zero until it is used.
pub struct Answers([[u8; 4096]; CLIENTS]);

impl Answers {
    pub const fn new() -> Self {
        Answers([[0; 4096]; CLIENTS])
    }
}

pub struct Server {
    listener: UnixListener,
    folder: OwnedFd,
    /// In the folder.
    name: String,
    clients: [Option<Client>; CLIENTS],
    /// Until when nobody is let in: the system had no descriptor left for one, who still waits.
    closed_until: Option<Instant>,
}

/// A descriptor of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Somebody connects.
    Newcomer,
    /// The client in this place, below [`CLIENTS`].
    Client(usize),
}

/// How many descriptors the server has at most.
pub const SOURCES: usize = 1 + CLIENTS;

/// Why there is no control socket.
pub enum BindError {
    /// Another daemon answers on it.
    InUse,
    System(Errno),
}

impl From<Errno> for BindError {
    fn from(errno: Errno) -> Self {
        BindError::System(errno)
    }
}

struct Client {
    stream: UnixStream,
    state: State,
    /// Until when it must get on, and when it must have all.
    deadline: Instant,
    end: Instant,
}

enum State {
    /// Has asked so many octets.
    Asking(usize),
    /// `buffer[sent..filled]` is still to be sent, and then what is at the cursor.
    Answered {
        format: Format,
        cursor: Cursor,
        sent: usize,
        filled: usize,
    },
}

impl Server {
    /// Takes the place of a socket that nobody listens on any more. It is its owner's alone, who is `user` where root is to become that
    /// one. Its folder is made where it is [`FOLDER`]. Allocates; to be called at
    /// the start.
    ///
    /// What anybody but root may rename is found by that user's rights, and nothing is done by way of a link: root neither makes nor
    /// removes nor gives away what it was not shown.
    pub fn bind(path: &str, user: Option<User>) -> Result<Self, BindError> {
        let folder = path.rsplit_once('/').map_or(".", |(folder, _)| folder);
        let folder = if folder.is_empty() { "/" } else { folder };
        if folder == FOLDER {
            match mkdir(folder, Mode::from_bits_truncate(0o755)) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        let owner = user.map(|user| (Uid::from_raw(user.id), Gid::from_raw(user.group)));
        let Some((id, group)) = owner.filter(|_| geteuid().is_root()) else {
            return bind_in(open_folder(folder)?, path);
        };
        // The folder of this program may be a user's, who does nothing there until it is given back.
        let is_own = folder == FOLDER;
        if is_roots_alone(if is_own { FOLDER_OF_FOLDER } else { folder }) {
            let opened = open_folder(folder)?;
            let before = fstat(&opened)?;
            let own = |id, group| {
                let (id, group) = (Uid::from_raw(id), Gid::from_raw(group));
                fchown(&opened, Some(id), Some(group))
            };
            if is_own {
                own(0, 0)?;
            }
            let bound = errno(opened.try_clone())
                .map_err(BindError::System)
                .and_then(|folder| bind_in(folder, path));
            let given = bound.and_then(|server| {
                let flag = AtFlags::AT_SYMLINK_NOFOLLOW;
                fchownat(&opened, server.name.as_str(), Some(id), Some(group), flag)?;
                Ok(server)
            });
            if is_own {
                own(before.st_uid, before.st_gid)?;
            }
            return given;
        }
        // For files alone, and this thread alone.
        setfsgid(group);
        setfsuid(id);
        let server = open_folder(folder)
            .map_err(BindError::System)
            .and_then(|folder| bind_in(folder, path));
        setfsuid(Uid::from_raw(0));
        setfsgid(getegid());
        server
    }

    /// What the server waits for: each client, and newcomers where one can be let in.
    pub fn descriptors(&self) -> impl Iterator<Item = Waited<'_, Source>> {
        let newcomer = self.is_open().then(|| Waited {
            source: Source::Newcomer,
            descriptor: self.listener.as_fd(),
            until: Until::Readable,
        });
        let places = self.clients.iter().enumerate();
        let clients = places.filter_map(|(place, client)| {
            let client = client.as_ref()?;
            Some(Waited {
                source: Source::Client(place),
                descriptor: client.stream.as_fd(),
                until: client.until(),
            })
        });
        newcomer.into_iter().chain(clients)
    }

    /// When [`Self::serve`] is to be called though nothing is ready.
    pub fn deadline(&self) -> Option<Instant> {
        let clients = self.clients.iter().flatten();
        let client = clients.map(|client| client.deadline).min();
        earliest(&[client, self.closed_until])
    }

    /// Goes on with all clients that are ready, and drops those that did not get on.
    pub fn serve(
        &mut self,
        ready: &dyn Fn(Source) -> bool,
        view: &View<'_>,
        answers: &mut Answers,
    ) {
        self.closed_until.take_if(|until| *until <= view.now);
        let places = self.clients.iter_mut().zip(&mut answers.0).enumerate();
        for (place, (slot, buffer)) in places {
            let ready = ready(Source::Client(place));
            slot.take_if(|client| !client.stays(ready, view, buffer));
        }
        if ready(Source::Newcomer)
            && let Some(place) = self.place()
            && let (Some(slot), Some(buffer)) =
                (self.clients.get_mut(place), answers.0.get_mut(place))
        {
            match errno(self.listener.accept()) {
                Ok((stream, _)) => *slot = Client::admit(stream, view, buffer),
                Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNABORTED) => {}
                Err(_) => self.closed_until = Some(view.now.saturating_add(RETRY_INTERVAL)),
            }
        }
    }

    /// Are newcomers let in?
    fn is_open(&self) -> bool {
        self.closed_until.is_none() && self.place().is_some()
    }

    /// Where a newcomer goes: to a free place, or to that of a client that has not asked yet, since to connect and be silent
    /// costs nothing. None while all wait for the rest of their answer.
    fn place(&self) -> Option<usize> {
        let free = self.clients.iter().position(Option::is_none);
        let silent = || {
            let clients = self.clients.iter().enumerate();
            let asking = clients.filter_map(|(number, client)| {
                let client = client.as_ref()?;
                matches!(client.state, State::Asking(_)).then_some((client.deadline, number))
            });
            asking.min().map(|(_, number)| number)
        };
        free.or_else(silent)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // One that cannot be removed is taken over by the next start.
        let _ = unlinkat(&self.folder, self.name.as_str(), UnlinkatFlags::NoRemoveDir);
    }
}

impl Client {
    /// One that has come, unless it has its answer already.
    fn admit(stream: UnixStream, view: &View<'_>, buffer: &mut [u8]) -> Option<Self> {
        stream.set_nonblocking(true).ok()?;
        let mut client = Client {
            stream,
            state: State::Asking(0),
            deadline: view.now.saturating_add(PATIENCE),
            end: view.now.saturating_add(LONGEST),
        };
        // Most have asked by now, and so are never in another newcomer's way.
        client.stays(true, view, buffer).then_some(client)
    }

    /// What it waits for.
    fn until(&self) -> Until {
        match self.state {
            State::Asking(_) => Until::Readable,
            State::Answered { .. } => Until::Writable,
        }
    }

    /// Reads or writes what can be; false once there is no more to do, or it cannot be done, or took too long.
    fn stays(&mut self, ready: bool, view: &View<'_>, buffer: &mut [u8]) -> bool {
        if view.now >= self.deadline {
            return false;
        }
        let result = match (&self.state, ready) {
            (_, false) => return true,
            (State::Asking(_), true) => self.read(view, buffer),
            (State::Answered { .. }, true) => self.write(view, buffer),
        };
        match result {
            Ok(stays) => stays,
            Err(errno) => matches!(errno, Errno::EAGAIN | Errno::EINTR),
        }
    }

    fn read(&mut self, view: &View<'_>, buffer: &mut [u8]) -> nix::Result<bool> {
        let State::Asking(length) = &mut self.state else {
            return Ok(true);
        };
        let room = buffer.get_mut(*length..QUESTION).unwrap_or_default();
        let more = read(&self.stream, room)?;
        *length = length.saturating_add(more);
        let asked = buffer.get(..*length).unwrap_or_default();
        let Some(end) = asked.iter().position(|octet| *octet == b'\n') else {
            // Where no more fits, or comes, it is no question.
            return Ok(more > 0 && *length < QUESTION);
        };
        let Some((format, limit)) = asked.get(..end).and_then(parse_question) else {
            return Ok(false);
        };
        self.state = State::Answered {
            format,
            cursor: Cursor::new(limit),
            sent: 0,
            filled: 0,
        };
        self.write(view, buffer)
    }

    fn write(&mut self, view: &View<'_>, buffer: &mut [u8]) -> nix::Result<bool> {
        let State::Answered {
            format,
            cursor,
            sent,
            filled,
        } = &mut self.state
        else {
            return Ok(true);
        };
        for _ in 0..BATCH {
            if sent == filled {
                *sent = 0;
                *filled = cursor.fill(view, *format, buffer);
                if *filled == 0 {
                    return Ok(false);
                }
            }
            let rest = buffer.get(*sent..*filled).unwrap_or_default();
            *sent = sent.saturating_add(write(&self.stream, rest)?);
            self.deadline = view.now.saturating_add(PATIENCE).min(self.end);
        }
        Ok(true)
    }
}

/// No link, though there may be links on the way there.
fn open_folder(path: &str) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    open(path, flags, Mode::empty())
}

/// Can nobody but root rename the folder, what is in it, or what it is in? A folder with the sticky bit, as OpenWrt's `/var` is, lets
/// others rename their own alone.
fn is_roots_alone(folder: &str) -> bool {
    let ends = folder.match_indices('/').map(|(place, _)| place.max(1));
    folder.starts_with('/')
        && ends.chain([folder.len()]).all(|end| {
            let sticky = if end < folder.len() { libc::S_ISVTX } else { 0 };
            folder.get(..end).map(stat).is_some_and(|status| {
                status.is_ok_and(|status| {
                    let others_write = status.st_mode & 0o022 != 0;
                    status.st_uid == 0 && (!others_write || status.st_mode & sticky != 0)
                })
            })
        })
}

/// By the whole path, which tells others where to ask.
fn bind_in(folder: OwnedFd, path: &str) -> Result<Server, BindError> {
    let name = path.rsplit_once('/').map_or(path, |(_, name)| name);
    if name.is_empty() {
        return Err(Errno::EISDIR.into());
    }
    // Anything else of that name is not ours to remove.
    let is_socket = || {
        let status = fstatat(&folder, name, AtFlags::AT_SYMLINK_NOFOLLOW);
        status.is_ok_and(|status| status.st_mode & libc::S_IFMT == libc::S_IFSOCK)
    };
    if is_socket() {
        expect_nobody(path)?;
    }
    // Of two that start at once, one must not take the other's new socket for an old one.
    let _lock = lock(errno(folder.try_clone())?)?;
    if is_socket() {
        match ask_probe(path, clock::now()) {
            Err(Errno::ECONNREFUSED | Errno::ENOENT) => {}
            _ => return Err(BindError::InUse),
        }
        match unlinkat(&folder, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    let before = umask(Mode::from_bits_truncate(0o177));
    let bound = errno(UnixListener::bind(path));
    umask(before);
    let listener = bound?;
    errno(listener.set_nonblocking(true))?;
    Ok(Server {
        listener,
        folder,
        name: name.to_owned(),
        clients: [const { None }; CLIENTS],
        closed_until: None,
    })
}

/// Listens nobody any more? Whoever listens and does not answer is no daemon that runs, but the socket is not left over.
fn expect_nobody(path: &str) -> Result<(), BindError> {
    let deadline = clock::now().saturating_add(ANSWER_PATIENCE);
    while clock::now() < deadline {
        match ask_probe(path, deadline) {
            Ok(line) if !line.is_empty() => return Err(BindError::InUse),
            Err(Errno::ECONNREFUSED | Errno::ENOENT) => return Ok(()),
            Err(Errno::ETIMEDOUT) => break,
            // One that ends, or has no room for another one that waits.
            Ok(_) | Err(Errno::EAGAIN | Errno::ECONNRESET | Errno::EPIPE) => pause(100),
            Err(errno) => return Err(errno.into()),
        }
    }
    Err(Errno::EADDRINUSE.into())
}

/// Takes turns with those that start at the same time, which takes them no time. Whoever keeps the lock, and anybody may who can read
/// the folder, keeps nobody from starting.
fn lock(folder: OwnedFd) -> nix::Result<Flock<OwnedFd>> {
    let mut folder = folder;
    for _ in 0..10 {
        match Flock::lock(folder, FlockArg::LockExclusiveNonblock) {
            Err((back, Errno::EWOULDBLOCK)) => folder = back,
            result => return result.map_err(|(_, errno)| errno),
        }
        pause(100);
    }
    Err(Errno::EWOULDBLOCK)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::Shutdown;
    use std::os::fd::AsFd;
    use std::{env, process};

    use nix::sched::{CloneFlags, unshare};
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    use nix::unistd::dup;
    use protocol::config::Config;
    use protocol::engine::{Engine, Tables};

    use super::*;
    use crate::sys::readiness::{Ready, wait};

    /// With no descriptor left, who asks waits, and the loop does not turn meanwhile.
    #[test]
    fn who_cannot_be_let_in_waits_and_wakes_nobody() {
        // The descriptors of this thread, not of the other tests; and not a thousand million of them.
        unshare(CloneFlags::CLONE_FILES).unwrap();
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, soft.min(4096), hard).unwrap();
        let path = env::temp_dir().join(format!("mldproxy-full-{}", process::id()));
        let Ok(mut server) = Server::bind(path.to_str().unwrap(), None) else {
            panic!("no control socket {path:?}")
        };
        let mut tables = Box::new(const { Tables::new() });
        let engine = Engine::new(&mut tables, Config::new("wan".parse().unwrap()), [1; 16]);
        let mut answers = Box::new(Answers::new());
        let mut serve = |server: &mut Server, seconds| {
            let limit = Some(Duration::ZERO);
            let ready: Ready<Source, SOURCES> = wait(server.descriptors(), limit).unwrap();
            let view = View {
                name: "wan",
                ..View::of(&engine, Instant::from_secs(seconds))
            };
            server.serve(&|source| ready.contains(&source), &view, &mut answers);
            ready.contains(&Source::Newcomer)
        };

        let mut client = UnixStream::connect(&path).unwrap();
        client.write_all(b"text 0\n").unwrap();
        let taken: Vec<OwnedFd> = std::iter::from_fn(|| dup(client.as_fd()).ok()).collect();
        assert!(serve(&mut server, 1));
        assert_eq!(server.deadline(), Some(Instant::from_secs(2)));
        assert!(!serve(&mut server, 1), "it wakes the loop again");
        drop(taken);
        // From its deadline on it is waited for again.
        assert!(!serve(&mut server, 2));
        assert!(serve(&mut server, 2));
        client.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("mldproxy"), "{answer}");
    }
}
