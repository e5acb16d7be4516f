//! Where log lines go: standard error, or the system's log.

use std::fmt::{self, Write as _};
use std::io::IsTerminal as _;
use std::os::unix::net::UnixDatagram;
use std::process;
use std::sync::OnceLock;

use log::{Level, LevelFilter, Log, Metadata, Record};
use nix::unistd::write;
use protocol::time::Instant;

use super::clock;
use super::ffi::STANDARD_ERROR;

static LOGGER: OnceLock<Logger> = OnceLock::new();

/// Sends all log lines up to `level` to standard error, or to `/dev/log` where `syslog` is set. To be called once.
pub fn install(level: LevelFilter, syslog: bool) {
    // A log daemon that is slow costs a line, not the time of the loop.
    let socket = UnixDatagram::unbound().and_then(|socket| {
        socket.set_nonblocking(true)?;
        Ok(socket)
    });
    let destination = match socket {
        Ok(socket) if syslog => Destination::Syslog(socket),
        _ if STANDARD_ERROR.is_terminal() => Destination::Terminal(clock::now()),
        _ => Destination::Stderr,
    };
    let logger = LOGGER.get_or_init(|| Logger(destination));
    if log::set_logger(logger).is_ok() {
        log::set_max_level(level);
    }
}

struct Logger(Destination);

enum Destination {
    /// A person reads it: with the time since then.
    Terminal(Instant),
    /// A service manager reads it, which notes the time itself.
    Stderr,
    /// RFC 3164 datagrams to [`SYSLOG`], with the level.
    Syslog(UnixDatagram),
}

const SYSLOG: &str = "/dev/log";

impl Log for Logger {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let mut line = Line::new();
        // A line that does not fit is cut off, which is no error.
        let _ = match &self.0 {
            Destination::Terminal(started) => write_for_terminal(&mut line, *started, record),
            Destination::Stderr => write!(line, "{}: {}", name(record.level()), record.args()),
            Destination::Syslog(_) => write_for_syslog(&mut line, record),
        };
        // To send each line to the path, not over a connection, outlives a restart of the log daemon.
        if let Destination::Syslog(socket) = &self.0
            && socket.send_to(line.octets(), SYSLOG).is_ok()
        {
            return;
        }
        line.end();
        // There is nowhere to complain about standard error.
        let _ = write(STANDARD_ERROR, line.octets());
    }

    fn flush(&self) {}
}

/// With the seconds since the start: a calendar would cost 7 kB of the file, for a person who sees the lines come.
fn write_for_terminal(line: &mut Line, started: Instant, record: &Record<'_>) -> fmt::Result {
    let since = clock::now().since(started);
    let (seconds, tenths) = (since.as_secs(), since.as_millis() / 100 % 10);
    let (name, message) = (name(record.level()), record.args());
    write!(line, "{seconds:5}.{tenths} {name:5} {message}")
}

/// `<PRI>TAG[PID]: MESSAGE` (RFC 3164 §4.1). Every log daemon notes by itself when a line came (§4.3.2).
fn write_for_syslog(line: &mut Line, record: &Record<'_>) -> fmt::Result {
    let severity = match record.level() {
        Level::Error => libc::LOG_ERR,
        Level::Warn => libc::LOG_WARNING,
        Level::Info => libc::LOG_INFO,
        Level::Debug | Level::Trace => libc::LOG_DEBUG,
    };
    let priority = libc::LOG_DAEMON | severity;
    let (pid, message) = (process::id(), record.args());
    write!(line, "<{priority}>mldproxy[{pid}]: {message}")
}

fn name(level: Level) -> &'static str {
    match level {
        Level::Error => "error",
        Level::Warn => "warn",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    }
}

/// A line of at most 512 octets, its end included, in no heap.
struct Line {
    octets: [u8; 512],
    length: usize,
}

impl Line {
    const fn new() -> Self {
        Line {
            octets: [0; 512],
            length: 0,
        }
    }

    fn octets(&self) -> &[u8] {
        &self.octets[..self.length]
    }

    /// Adds the line's end, for which [`fmt::Write::write_str`] leaves room.
    fn end(&mut self) {
        self.octets[self.length] = b'\n';
        self.length += 1;
    }
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.octets.len() - 1 - self.length;
        let text = &text[..text.floor_char_boundary(room)];
        self.octets[self.length..][..text.len()].copy_from_slice(text.as_bytes());
        self.length += text.len();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_too_long_is_cut_off_between_characters() {
        let mut line = Line::new();
        for _ in 0..200 {
            write!(line, "groß").unwrap();
        }
        line.end();
        let text = str::from_utf8(line.octets()).unwrap();
        assert_eq!(text.len(), 511 + 1);
        assert!(text.ends_with("ßg\n"));
    }
}
