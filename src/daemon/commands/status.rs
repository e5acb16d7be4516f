//! `mldproxy status` asks a daemon on its control socket and prints the answer.

use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;

use argh::FromArgs;
use nix::errno::Errno;
use nix::unistd::read;
use protocol::mld::proxy::rows::ROWS;
use protocol::time::Duration;

use crate::commands::output::{clear_screen, print};
use crate::commands::values::{instance_name, number, socket_path};
use crate::control::{AskError, connect, instances, socket_of};
use crate::sys::clock;
use crate::sys::readiness::{pause, wait_until};
use crate::sys::records::FOLDER;

/// How long a daemon may stay silent.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the whole answer may take, which is as long as a daemon lets a client take.
const LONGEST: Duration = Duration::from_secs(30);
/// The most octets of an answer. Of 4,096 neighbors and as many groups, JSON has 1.2 MB. With every
/// table full and the longest names, it has less than 3 MB, and as much as 7 MB of streams.
const LARGEST: usize = 16 << 20;

/// Print what a running mldproxy knows and does: its links, streams, neighbors, groups and
/// counters.
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
    /// list at most so many streams, so many neighbors, and so many groups (default all)
    #[argh(option, arg_name = "n", default = "ROWS as u32", from_str_fn(number))]
    limit: u32,
    /// the control socket, where it is not that of a name
    #[argh(option, arg_name = "path", from_str_fn(socket_path))]
    socket: Option<String>,
    /// the instance: its --name, which is its upstream unless it was set; needed where there are
    /// several
    #[argh(positional, from_str_fn(instance_name))]
    name: Option<String>,
}

/// Why there is no answer, as a line for the user.
pub enum StatusError {
    /// Other arguments would help.
    Arguments(String),
    System(String),
}

/// Asks, and prints the answer.
// What it has on the stack is not to stay there while the daemon runs.
#[inline(never)]
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
        let stream = connect(&path, &question).map_err(|error| unanswered(&path, error))?;
        if arguments.watch {
            clear_screen();
        }
        copy(&stream)
            .map_err(|why| StatusError::System(["the answer on ", &path, why].concat()))?;
        if !arguments.watch {
            return Ok(());
        }
        pause(1000);
    }
}

/// Copies the answer to standard output. Who answers may be anybody, so the answer has an end in
/// time and in size. Fails with what is wrong with it.
fn copy(stream: &UnixStream) -> Result<(), &'static str> {
    const BREAKS_OFF: &str = " breaks off";
    let end = clock::now().saturating_add(LONGEST);
    let mut left = LARGEST;
    let mut buffer = [0; 4096];
    // The octets in the buffer that are the start of a character.
    let mut held = 0;
    let mut last = None;
    loop {
        let deadline = clock::now().saturating_add(PATIENCE).min(end);
        if !wait_until(stream.as_fd(), deadline) {
            let is_late = clock::now() >= end;
            return Err(if is_late {
                " takes too long"
            } else {
                BREAKS_OFF
            });
        }
        let length = match read(stream, &mut buffer[held..]) {
            Ok(0) if last == Some(b'\n') => return Ok(()),
            Ok(length @ 1..) => length,
            Err(Errno::EINTR | Errno::EAGAIN) => continue,
            Ok(0) | Err(_) => return Err(BREAKS_OFF),
        };
        left = left.checked_sub(length).ok_or(" has no end")?;
        let octets = &buffer[..held + length];
        last = octets.last().copied();
        held = length_of_start(octets);
        let whole = octets.len() - held;
        print(&String::from_utf8_lossy(&octets[..whole]));
        buffer.copy_within(whole..whole + held, 0);
    }
}

/// The length of the last character of a text in UTF-8, if the rest of it is still to come, else 0.
fn length_of_start(octets: &[u8]) -> usize {
    // The least first octet of a character that has more octets than these.
    const FIRST: [u8; 3] = [0xc0, 0xe0, 0xf0];
    let starts = octets.iter().rev().zip(FIRST);
    let place = starts.take(3).position(|(octet, first)| *octet >= first);
    place.map_or(0, |place| place + 1)
}

/// Why a daemon gave no answer.
fn unanswered(path: &str, error: AskError) -> StatusError {
    StatusError::System(match error {
        AskError::Foreign(user) => format!(
            "not asked on {path}: user {user} listens there, who is neither root nor you; if that \
             is your mldproxy's user, run this as that user"
        ),
        AskError::System(errno) => format!("no mldproxy answers on {path}: {}", errno.desc()),
    })
}

/// Finds the only control socket there is.
fn only_socket() -> Result<String, StatusError> {
    let names: Vec<String> = match instances() {
        Ok(listed) => listed.into_iter().map(|one| one.name).collect(),
        Err(Errno::ENOENT) => Vec::new(),
        Err(errno) => {
            let text = format!("looking into {FOLDER}: {}", errno.desc());
            return Err(StatusError::System(text));
        }
    };
    match &names[..] {
        [] => Err(StatusError::System(format!(
            "no mldproxy is running: nothing listens in {FOLDER}; --socket names another place"
        ))),
        [name] => Ok(socket_of(name)),
        several => Err(StatusError::Arguments(format!(
            "there are several instances; name one of {}",
            several.join(", ")
        ))),
    }
}
