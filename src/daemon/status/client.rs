//! `mldproxy status`: asks a daemon on its control socket and prints the answer.

use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::net::UnixStream;

use argh::FromArgs;
use nix::errno::Errno;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr, socket};
use nix::unistd::{read, write};
use protocol::groups::CAPACITY;
use protocol::time::{Duration, Instant};

use crate::output::{print, print_octets};
use crate::sys::clock;
use crate::sys::procfs::listening_sockets;
use crate::sys::readiness::{pause, wait_until};
use crate::sys::records::FOLDER;
use crate::values::{instance_name, number, socket_path};

/// How long a daemon may say nothing.
const PATIENCE: Duration = Duration::from_secs(5);

/// Print what a running mldproxy knows and does.
#[derive(FromArgs)]
#[argh(subcommand, name = "status")]
pub struct StatusArguments {
    /// print one JSON object
    #[argh(switch)]
    json: bool,
    /// print metrics in Prometheus' text format
    #[argh(switch)]
    metrics: bool,
    /// print it anew each second
    #[argh(switch)]
    watch: bool,
    /// list at most so many neighbors, and so many groups (default all)
    #[argh(
        option,
        arg_name = "n",
        default = "CAPACITY as u32",
        from_str_fn(number)
    )]
    limit: u32,
    /// the control socket, where it is not that of a name
    #[argh(option, arg_name = "path", from_str_fn(socket_path))]
    socket: Option<String>,
    /// the instance: its --name, which is its upstream unless it was set; needed where there are several
    #[argh(positional, from_str_fn(instance_name))]
    name: Option<String>,
}

/// Why there is no answer, in a line for the user.
pub enum StatusError {
    /// Only other arguments help.
    Arguments(String),
    System(String),
}

/// Prints the answer.
pub fn status(arguments: StatusArguments) -> Result<(), StatusError> {
    let wrong = |text: &str| Err(StatusError::Arguments(text.to_owned()));
    let format = match (arguments.json, arguments.metrics) {
        (false, false) => "text",
        (true, false) => "json",
        (false, true) => "metrics",
        (true, true) => return wrong("--json and --metrics are two forms: choose one"),
    };
    let path = match (arguments.socket, arguments.name) {
        (Some(_), Some(_)) => return wrong("a name and --socket are two places: choose one"),
        (Some(path), None) => path,
        (None, Some(name)) => socket_of(&name),
        (None, None) => only_socket()?,
    };
    let question = format!("{format} {}\n", arguments.limit);
    loop {
        let stream = connect(&path, &question).map_err(|errno| {
            StatusError::System(format!("no mldproxy answers on {path}: {}", errno.desc()))
        })?;
        if arguments.watch {
            // To the first column of the first line, and nothing below.
            print("\x1b[H\x1b[2J");
        }
        if !copy(&stream) {
            return Err(StatusError::System(format!(
                "the answer on {path} breaks off"
            )));
        }
        if !arguments.watch {
            return Ok(());
        }
        pause(1000);
    }
}

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

/// Waits for nobody: whoever listens and accepts nothing, until no more can wait, is no daemon.
fn connect(path: &str, question: &str) -> nix::Result<UnixStream> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let stream = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    socket::connect(stream.as_raw_fd(), &UnixAddr::new(path)?)?;
    let stream = UnixStream::from(stream);
    write(&stream, question.as_bytes())?;
    Ok(stream)
}

/// Copies the answer to standard output; was it whole?
fn copy(stream: &UnixStream) -> bool {
    let mut buffer = [0; 4096];
    let mut last = None;
    while wait_until(stream.as_fd(), clock::now().saturating_add(PATIENCE)) {
        match read(stream, &mut buffer) {
            Ok(length @ 1..) => {
                let octets = buffer.get(..length).unwrap_or_default();
                last = octets.last().copied();
                print_octets(octets);
            }
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            Ok(0) => return last == Some(b'\n'),
            Err(_) => return false,
        }
    }
    false
}

/// The one control socket there is.
fn only_socket() -> Result<String, StatusError> {
    let mut names: Vec<String> = Vec::new();
    listening_sockets(&mut |path| {
        if let Some(rest) = path.strip_prefix(FOLDER)
            && let Some(name) = rest
                .strip_prefix('/')
                .and_then(|file| file.strip_suffix(".sock"))
            && instance_name(name).is_ok()
        {
            names.push(name.to_owned());
        }
    });
    match &names[..] {
        [] => Err(StatusError::System(format!(
            "no mldproxy is running: nothing listens in {FOLDER}"
        ))),
        [name] => Ok(socket_of(name)),
        several => Err(StatusError::Arguments(format!(
            "there are several instances; name one of {}",
            several.join(", ")
        ))),
    }
}
