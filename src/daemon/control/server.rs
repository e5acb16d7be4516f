//! The control socket, a Unix stream socket. A client asks by one line, `FORMAT LIMIT`, and reads
//! the answer to its end. A program asks by the line `probe`, and reads the line as a
//! [`Probe`](super::Probe). After any other line the server closes the connection.
//!
//! No client can hold up the loop. The sockets do not block, a turn writes a bounded number of
//! octets, each of the few clients has a buffer of its own, and the server drops a client that
//! makes no progress.

use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, Flock, FlockArg, OFlag, open};
use nix::sys::stat::{Mode, fstat, fstatat, umask};
use nix::unistd::{
    Gid, Uid, UnlinkatFlags, fchown, fchownat, getegid, geteuid, mkdir, read, setfsgid, setfsuid,
    unlinkat, write,
};
use protocol::time::{Duration, Instant, earliest};

use super::{AskError, Cursor, Format, View, ask_probe, parse_question};
use crate::sys::clock;
use crate::sys::folder::is_roots_alone;
use crate::sys::privileges::User;
use crate::sys::readiness::{Until, Waited, pause};
use crate::sys::records::{self, FOLDER, FOLDER_OF_FOLDER};
use crate::sys::{errno, network_namespace};

/// The most clients at once. Others wait.
pub const CLIENTS: usize = 4;
/// How long a client may take to ask, or read nothing of its answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a client may take for the whole answer.
const LONGEST: Duration = Duration::from_secs(30);
/// How long another daemon may take to answer before this one starts without a socket.
const ANSWER_PATIENCE: Duration = Duration::from_secs(2);
/// The longest question, in octets.
const QUESTION: usize = 32;
/// How long the server lets nobody in after the system had no descriptor left.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// The most buffers that a turn writes to one client.
const BATCH: usize = 2;
/// The octets of a buffer. Of the pieces of an answer, a stream is the longest: each downstream may
/// have listeners.
pub const BUFFER_LENGTH: usize = 8192;

/// A buffer for each client's answer. They stay all zero until a client comes.
pub struct Answers([[u8; BUFFER_LENGTH]; CLIENTS]);

impl Answers {
    pub const fn new() -> Self {
        Answers([[0; BUFFER_LENGTH]; CLIENTS])
    }
}

pub struct Server {
    listener: UnixListener,
    folder: OwnedFd,
    /// The socket's name in the folder.
    name: String,
    /// The number of its network namespace.
    namespace: u64,
    clients: [Option<Client>; CLIENTS],
    /// Until when the server lets nobody in, since the system had no descriptor left. Newcomers
    /// wait.
    closed_until: Option<Instant>,
}

/// A descriptor of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The listening socket, while there is room for a newcomer.
    Newcomer,
    /// The client in this place, below [`CLIENTS`].
    Client(usize),
}

/// The most descriptors of the server.
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
    /// When the client must have made progress, and when it must have the whole answer.
    deadline: Instant,
    end: Instant,
}

enum State {
    /// The client has sent so many octets of its question.
    Asking(usize),
    /// `buffer[sent..filled]` is to be sent next, then what is at the cursor.
    Answered {
        format: Format,
        cursor: Cursor,
        sent: usize,
        filled: usize,
    },
}

impl Server {
    /// Binds the control socket, in place of one that nobody listens on any more. Only its owner
    /// may connect: `user`, if root is to become that user. Creates the folder if it is [`FOLDER`].
    /// Allocates; call it at the start.
    ///
    /// Where a user other than root can rename things, the path is resolved with the rights of that
    /// user, and links are not followed. So nobody can make root create, remove or give away
    /// something else.
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
            let opened = match folder == FOLDER {
                true => records::open_folder()?,
                false => open_folder(folder)?,
            };
            return bind_in(opened, path);
        };
        // The program's folder may belong to a user. Root takes it over meanwhile, so that the user
        // changes nothing in it.
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
        // Changes this thread's rights to files, and no other rights.
        setfsgid(group);
        setfsuid(id);
        let server = open_folder(folder)
            .map_err(BindError::System)
            .and_then(|folder| bind_in(folder, path));
        setfsuid(Uid::from_raw(0));
        setfsgid(getegid());
        server
    }

    /// The descriptors to wait for: each client's, and the listening socket's while there is room
    /// for a newcomer.
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

    /// The number of its network namespace.
    pub fn namespace(&self) -> u64 {
        self.namespace
    }

    /// When to call [`Self::serve`] although no descriptor is ready.
    pub fn deadline(&self) -> Option<Instant> {
        let clients = self.clients.iter().flatten();
        let client = clients.map(|client| client.deadline).min();
        earliest(&[client, self.closed_until])
    }

    /// May a client ask in this turn? What one has asked for already comes from the view alone.
    pub fn may_be_asked(&self, ready: &dyn Fn(Source) -> bool) -> bool {
        let asks = |(place, client): (usize, &Option<Client>)| {
            let client = client.as_ref();
            let is_asking = client.is_some_and(|client| matches!(client.state, State::Asking(_)));
            is_asking && ready(Source::Client(place))
        };
        ready(Source::Newcomer) || self.clients.iter().enumerate().any(asks)
    }

    /// Serves the clients that are ready, drops those whose time is up, and lets in a newcomer.
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

    /// Whether a newcomer would be let in.
    fn is_open(&self) -> bool {
        self.closed_until.is_none() && self.place().is_some()
    }

    /// The place for a newcomer: a free one, or that of a client that has not asked yet, since it
    /// costs nothing to connect and stay silent. `None` while every client waits for the rest of
    /// its answer.
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
        // The next start replaces a socket that cannot be removed.
        let _ = unlinkat(&self.folder, self.name.as_str(), UnlinkatFlags::NoRemoveDir);
    }
}

impl Client {
    /// Lets a newcomer in. `None` if it has its whole answer already.
    fn admit(stream: UnixStream, view: &View<'_>, buffer: &mut [u8]) -> Option<Self> {
        stream.set_nonblocking(true).ok()?;
        let mut client = Client {
            stream,
            state: State::Asking(0),
            deadline: view.now.saturating_add(PATIENCE),
            end: view.now.saturating_add(LONGEST),
        };
        // Most clients have asked by now, and get their answer at once.
        client.stays(true, view, buffer).then_some(client)
    }

    /// What the client's descriptor is waited for.
    fn until(&self) -> Until {
        match self.state {
            State::Asking(_) => Until::Readable,
            State::Answered { .. } => Until::Writable,
        }
    }

    /// Reads or writes as much as is possible. Returns false when the client is done, failed, or
    /// took too long.
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
            // A question that is too long or breaks off is none.
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

/// Opens a folder. The last part of the path must not be a link.
fn open_folder(path: &str) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    open(path, flags, Mode::empty())
}

/// Binds by the whole path, since that is the name by which others find the socket.
fn bind_in(folder: OwnedFd, path: &str) -> Result<Server, BindError> {
    let name = path.rsplit_once('/').map_or(path, |(_, name)| name);
    if name.is_empty() {
        return Err(Errno::EISDIR.into());
    }
    // Nothing else of that name is the program's to remove.
    let is_socket = || {
        let status = fstatat(&folder, name, AtFlags::AT_SYMLINK_NOFOLLOW);
        status.is_ok_and(|status| status.st_mode & libc::S_IFMT == libc::S_IFSOCK)
    };
    if is_socket() {
        expect_nobody(path)?;
    }
    // Without the lock, one of two daemons that start at once could remove the other's new socket.
    let _lock = lock(errno(folder.try_clone())?)?;
    if is_socket() {
        match ask_probe(path, clock::now()) {
            Err(AskError::System(Errno::ECONNREFUSED | Errno::ENOENT)) => {}
            Err(AskError::Foreign(_)) => return Err(Errno::EADDRINUSE.into()),
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
        namespace: network_namespace(&listener),
        listener,
        folder,
        name: name.to_owned(),
        clients: [const { None }; CLIENTS],
        closed_until: None,
    })
}

/// Checks that nobody listens any more. A listener that does not answer, or that is another user's,
/// is no running daemon, but its socket is in use.
fn expect_nobody(path: &str) -> Result<(), BindError> {
    let deadline = clock::now().saturating_add(ANSWER_PATIENCE);
    while clock::now() < deadline {
        match ask_probe(path, deadline) {
            Ok(line) if !line.is_empty() => return Err(BindError::InUse),
            Err(AskError::Foreign(_) | AskError::System(Errno::ETIMEDOUT)) => break,
            Err(AskError::System(errno)) => match errno {
                Errno::ECONNREFUSED | Errno::ENOENT => return Ok(()),
                // The daemon is ending, or its queue is full.
                Errno::EAGAIN | Errno::ECONNRESET | Errno::EPIPE => pause(100),
                _ => return Err(errno.into()),
            },
            Ok(_) => pause(100),
        }
    }
    Err(Errno::EADDRINUSE.into())
}

/// Locks the folder, which daemons that start at once hold for a moment. Anybody who can read the
/// folder can hold the lock, so this gives up after a second.
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
    use protocol::engine::Engine;

    use super::*;
    use crate::sys::readiness::{Ready, wait};

    /// While the system has no descriptor left, a newcomer waits, and the loop does not wake up for
    /// it.
    #[test]
    fn who_cannot_be_let_in_waits_and_wakes_nobody() {
        // This thread gets a table of descriptors of its own, of a size that can be filled.
        unshare(CloneFlags::CLONE_FILES).unwrap();
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, soft.min(4096), hard).unwrap();
        let path = env::temp_dir().join(format!("mldproxy-full-{}", process::id()));
        let Ok(mut server) = Server::bind(path.to_str().unwrap(), None) else {
            panic!("no control socket {path:?}")
        };
        let mut tables = model::storage::new();
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
        // After the deadline the server waits for newcomers again.
        assert!(!serve(&mut server, 2));
        assert!(serve(&mut server, 2));
        client.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("mldproxy"), "{answer}");
    }

    /// What the kernel counts is listed for a question, and not for each part of a long answer.
    #[test]
    fn who_waits_for_the_rest_of_an_answer_asks_nothing() {
        let path = env::temp_dir().join(format!("mldproxy-asked-{}", process::id()));
        let Ok(mut server) = Server::bind(path.to_str().unwrap(), None) else {
            panic!("no control socket {path:?}")
        };
        let mut tables = model::storage::new();
        let engine = Engine::new(&mut tables, Config::new("wan".parse().unwrap()), [1; 16]);
        let mut answers = Box::new(Answers::new());
        let mut serve = |server: &mut Server| {
            let limit = Some(Duration::ZERO);
            let ready: Ready<Source, SOURCES> = wait(server.descriptors(), limit).unwrap();
            let is_ready = |source| ready.contains(&source);
            let may_be_asked = server.may_be_asked(&is_ready);
            let view = View::of(&engine, Instant::ZERO);
            server.serve(&is_ready, &view, &mut answers);
            may_be_asked
        };
        assert!(!serve(&mut server));
        let mut client = UnixStream::connect(&path).unwrap();
        assert!(serve(&mut server), "a newcomer may ask");
        assert!(!serve(&mut server), "it has not asked");
        client.write_all(b"text 0\n").unwrap();
        let Some(asking) = &mut server.clients[0] else {
            panic!("the client stays")
        };
        asking.state = State::Answered {
            format: Format::Text,
            cursor: Cursor::new(0),
            sent: 0,
            filled: 0,
        };
        assert!(!serve(&mut server), "it waits for the rest");
        client.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        let _ = client.read_to_string(&mut answer);
        assert!(answer.starts_with("mldproxy"), "{answer}");
    }
}
