//! `mldproxy status` asks a daemon on its control socket and prints the answer.

use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;

use argh::FromArgs;
use nix::errno::Errno;
use nix::unistd::read;
use protocol::ndp::solicited::CAPACITY;
use protocol::time::Duration;

use crate::commands::output::{print, print_octets};
use crate::commands::values::{instance_name, number, socket_path};
use crate::control::{AskError, connect, instances, socket_of};
use crate::sys::clock;
use crate::sys::readiness::{pause, wait_until};
use crate::sys::records::FOLDER;

/// How long a daemon may stay silent.
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
            // Moves the cursor to the top left, and clears the screen.
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

/// Copies the answer to standard output. Returns whether it was complete.
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
