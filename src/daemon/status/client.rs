//! `mldproxy status`: asks a daemon on its control socket and prints the answer.

use std::io;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use argh::FromArgs;
use nix::errno::Errno;
use nix::poll::{PollTimeout, poll};
use nix::unistd::{read, write};
use protocol::groups::CAPACITY;

use super::FOLDER;
use crate::output::{print, print_octets};
use crate::sys::procfs::listening_sockets;

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
    #[argh(option, arg_name = "n", default = "CAPACITY")]
    limit: usize,
    /// the control socket, where it is not that of a name
    #[argh(option, arg_name = "path")]
    socket: Option<String>,
    /// the instance: its --name, which is its upstream unless it was set; needed where there are several
    #[argh(positional)]
    name: Option<String>,
}

/// Prints the answer. An error is a line for the user.
pub fn status(arguments: StatusArguments) -> Result<(), String> {
    let format = match (arguments.json, arguments.metrics) {
        (false, false) => "text",
        (true, false) => "json",
        (false, true) => "metrics",
        (true, true) => return Err("--json and --metrics are two forms: choose one".to_owned()),
    };
    let path = match (arguments.socket, arguments.name) {
        (Some(path), _) => path,
        (None, Some(name)) => socket_of(&name),
        (None, None) => only_socket()?,
    };
    let question = format!("{format} {}\n", arguments.limit);
    loop {
        let mut stream = connect(&path, &question)
            .map_err(|errno| format!("no mldproxy answers on {path}: {}", errno.desc()))?;
        if arguments.watch {
            // To the first column of the first line, and nothing below.
            print("\x1b[H\x1b[2J");
        }
        match copy(&mut stream) {
            End::Whole if arguments.watch => {}
            End::Whole | End::NobodyReads => return Ok(()),
            End::BrokenOff => return Err(format!("the answer on {path} breaks off")),
        }
        let second = PollTimeout::from(1000_u16);
        // An early end only makes it anew the sooner.
        let _ = poll(&mut [], second);
    }
}

/// Where the control socket of an instance is by default.
pub fn socket_of(name: &str) -> String {
    format!("{FOLDER}/{name}.sock")
}

/// All but the lists of a daemon's answer in JSON. One that takes long is none.
pub fn ask_summary(path: &str) -> nix::Result<String> {
    let stream = connect(path, "json 0\n")?;
    let patience = Duration::from_secs(1);
    stream
        .set_read_timeout(Some(patience))
        .map_err(|error| errno(&error))?;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while let length @ 1.. = read(&stream, &mut buffer)? {
        answer.extend_from_slice(&buffer[..length]);
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn connect(path: &str, question: &str) -> nix::Result<UnixStream> {
    let stream = UnixStream::connect(path).map_err(|error| errno(&error))?;
    write(&stream, question.as_bytes())?;
    Ok(stream)
}

/// How an answer ended.
enum End {
    Whole,
    BrokenOff,
    /// On standard output.
    NobodyReads,
}

/// Copies the answer to standard output.
fn copy(stream: &mut UnixStream) -> End {
    let mut buffer = [0; 4096];
    let mut last = None;
    loop {
        match read(&*stream, &mut buffer) {
            Ok(0) if last == Some(b'\n') => return End::Whole,
            Ok(length @ 1..) => {
                let octets = buffer.get(..length).unwrap_or_default();
                last = octets.last().copied();
                if !print_octets(octets) {
                    return End::NobodyReads;
                }
            }
            Err(Errno::EINTR) => {}
            Ok(0) | Err(_) => return End::BrokenOff,
        }
    }
}

/// The one control socket there is.
fn only_socket() -> Result<String, String> {
    let mut names: Vec<String> = Vec::new();
    listening_sockets(FOLDER, &mut |path| {
        if let Some((_, file)) = path.rsplit_once('/')
            && let Some(name) = file.strip_suffix(".sock")
        {
            names.push(name.to_owned());
        }
    });
    match &names[..] {
        [] => Err(format!(
            "no mldproxy is running: there is no control socket in {FOLDER}"
        )),
        [name] => Ok(socket_of(name)),
        several => Err(format!(
            "there are several instances; name one of {}",
            several.join(", ")
        )),
    }
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or_default())
}
