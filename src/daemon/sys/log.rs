//! Writes log lines to standard error or to the system's log, and never waits: a line that nobody
//! takes is lost and counted.

use std::fmt::{self, Write as _};
use std::io::IsTerminal as _;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::process;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use libc::{c_int, tm};
use log::{Level, LevelFilter, Log, Metadata, Record};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, fstat};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::write;
use protocol::escaped::escape;
use protocol::time::Instant;

use super::ffi::{STANDARD_ERROR, calendar};
use super::readiness::is_writable;
use super::{clock, errno};

static LOGGER: OnceLock<Logger> = OnceLock::new();
static LINES_LOST: AtomicU32 = AtomicU32::new(0);

/// Writes all log lines up to `level` to standard error, or with `syslog` to `/dev/log`. Call it
/// once.
pub fn install(level: LevelFilter, syslog: bool) {
    let socket = UnixDatagram::unbound().and_then(|socket| {
        socket.set_nonblocking(true)?;
        Ok(socket)
    });
    let destination = match socket {
        Ok(socket) if syslog => Destination::Syslog(socket),
        _ if STANDARD_ERROR.is_terminal() => Destination::Terminal(clock::now()),
        _ => Destination::Stderr,
    };
    let logger = LOGGER.get_or_init(|| Logger {
        destination,
        standard_error: open_standard_error(),
        untold: AtomicU32::new(0),
    });
    if log::set_logger(logger).is_ok() {
        log::set_max_level(level);
    }
}

/// The lines that were lost since the start. Wraps around at 2^32.
pub fn lines_lost() -> u32 {
    LINES_LOST.load(Ordering::Relaxed)
}

/// Opens standard error anew if it is a pipe or a terminal, so that no write blocks. `O_NONBLOCK`
/// on what is there already would hold for every other process that has it. `None` for anything
/// else, and without the right or `/proc`.
fn open_standard_error() -> Option<OwnedFd> {
    let is_pipe = |mode| mode & libc::S_IFMT == libc::S_IFIFO;
    let is_pipe = fstat(STANDARD_ERROR).is_ok_and(|status| is_pipe(status.st_mode));
    let flags = OFlag::O_WRONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    (is_pipe || STANDARD_ERROR.is_terminal())
        .then(|| open("/proc/self/fd/2", flags, Mode::empty()).ok())?
}

struct Logger {
    destination: Destination,
    /// `None` to write to standard error as it is.
    standard_error: Option<OwnedFd>,
    /// The lines that were lost since the log told of any.
    untold: AtomicU32,
}

enum Destination {
    /// A person reads the lines: they begin with the seconds since this time.
    Terminal(Instant),
    /// A service manager reads the lines, and adds the time itself.
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
        // One thread logs, so nothing comes between.
        let untold = self.untold.load(Ordering::Relaxed);
        let text = format_args!("the log lost {untold} lines, since nobody read it");
        let is_told = untold == 0 || self.write(Level::Warn, &text);
        if is_told {
            self.untold.store(0, Ordering::Relaxed);
        }
        if !is_told || !self.write(record.level(), record.args()) {
            self.untold.fetch_add(1, Ordering::Relaxed);
            LINES_LOST.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn flush(&self) {}
}

impl Logger {
    /// Writes a line, unless that would block. Returns whether the line was taken as a whole.
    fn write(&self, level: Level, message: &fmt::Arguments<'_>) -> bool {
        let mut line = Line::new();
        // A line that does not fit is cut off.
        let _ = match &self.destination {
            Destination::Terminal(started) => {
                write_for_terminal(&mut line, *started, level, message)
            }
            Destination::Stderr => write!(line, "{}: {message}", name(level)),
            Destination::Syslog(_) => write_for_syslog(&mut line, level, message),
        };
        if let Destination::Syslog(socket) = &self.destination {
            // Each line is sent to the path, since a connection would not survive a restart of the
            // log daemon. The socket does not block.
            match errno(socket.send_to(line.octets(), SYSLOG)) {
                Ok(_) => return true,
                // The log daemon is there and does not read.
                Err(Errno::EAGAIN) => return false,
                Err(_) => {}
            }
        }
        line.end();
        let own = self.standard_error.as_ref();
        let standard_error: BorrowedFd<'_> = own.map_or(STANDARD_ERROR, |own| own.as_fd());
        is_writable(standard_error)
            && write(standard_error, line.octets()) == Ok(line.octets().len())
    }
}

/// Writes the seconds since the start before the line. A calendar would take 7 kB of the file, and
/// the person sees the lines as they come.
fn write_for_terminal(
    line: &mut Line,
    started: Instant,
    level: Level,
    message: &fmt::Arguments<'_>,
) -> fmt::Result {
    let since = clock::now().since(started);
    let (seconds, tenths) = (since.as_secs(), since.as_millis() / 100 % 10);
    let name = name(level);
    write!(line, "{seconds:5}.{tenths} {name:5} {message}")
}

/// Writes a line as RFC 3164 §4.1 has it. OpenWrt's logd drops the first 16 octets as a timestamp
/// if the last of them is a space. Without a timestamp it would drop the program's name. Most log
/// daemons replace the timestamp by the time of reception; busybox's syslogd and syslog-ng keep it.
fn write_for_syslog(line: &mut Line, level: Level, message: &fmt::Arguments<'_>) -> fmt::Result {
    let severity = match level {
        Level::Error => libc::LOG_ERR,
        Level::Warn => libc::LOG_WARNING,
        Level::Info => libc::LOG_INFO,
        Level::Debug | Level::Trace => libc::LOG_DEBUG,
    };
    // Every Linux has this clock.
    let now = clock_gettime(ClockId::CLOCK_REALTIME).unwrap_or(TimeSpec::new(0, 0));
    let now = calendar(now);
    write_rfc3164(line, severity, &now, process::id(), message)
}

fn write_rfc3164(
    line: &mut Line,
    severity: c_int,
    now: &tm,
    pid: u32,
    message: &fmt::Arguments<'_>,
) -> fmt::Result {
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let month = usize::try_from(now.tm_mon).unwrap_or_default() * 3;
    let month = MONTHS.get(month..month + 3).unwrap_or("Jan");
    let (day, hour, minute, second) = (now.tm_mday, now.tm_hour, now.tm_min, now.tm_sec);
    let priority = libc::LOG_DAEMON | severity;
    write!(
        line,
        "<{priority}>{month} {day:2} {hour:02}:{minute:02}:{second:02} mldproxy[{pid}]: {message}"
    )
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

/// A line of at most 512 octets with its end, without heap. What cannot be seen is escaped, a line
/// feed too. A pipe takes so few octets as a whole or not at all.
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
        escape(text, &mut |shown| {
            let end = self.length + shown.len();
            let room = self.octets[..511].get_mut(self.length..end);
            room.ok_or(fmt::Error)?.copy_from_slice(shown.as_bytes());
            self.length = end;
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What OpenWrt's logd keeps of a datagram: it drops the priority, and the first 16 octets if
    /// the last of them is a space.
    fn kept_by_logd(datagram: &str) -> &str {
        let (_, line) = datagram.split_once('>').expect("a priority");
        match line.as_bytes().get(15) {
            Some(b' ') => &line[16..],
            _ => line,
        }
    }

    fn datagram(now: &tm, pid: u32, message: &str) -> String {
        let mut line = Line::new();
        let message = format_args!("{message}");
        write_rfc3164(&mut line, libc::LOG_INFO, now, pid, &message).unwrap();
        str::from_utf8(line.octets()).unwrap().to_owned()
    }

    /// A local time. Neither the year nor the tester's time zone matters.
    fn at(month: c_int, day: c_int, [hour, minute, second]: [c_int; 3]) -> tm {
        let mut now = calendar(TimeSpec::new(0, 0));
        (now.tm_mon, now.tm_mday) = (month, day);
        (now.tm_hour, now.tm_min, now.tm_sec) = (hour, minute, second);
        now
    }

    #[test]
    fn the_timestamp_is_that_of_rfc_3164() {
        assert_eq!(
            datagram(&at(10, 29, [16, 2, 5]), 1, "no MLD query"),
            "<30>Nov 29 16:02:05 mldproxy[1]: no MLD query"
        );
        assert_eq!(
            datagram(&at(0, 1, [0, 0, 0]), 4194304, "x"),
            "<30>Jan  1 00:00:00 mldproxy[4194304]: x"
        );
    }

    #[test]
    fn logd_keeps_every_line_whole_whatever_the_pid_and_the_date() {
        for pid in [1, 12, 123, 1234, 12345, 123_456, 4_194_304] {
            for message in [
                "no MLD query for 260 s",
                "a",
                "",
                " ",
                "a b c d e f g h i j k",
            ] {
                for (month, day) in (0..12).flat_map(|month| [(month, 1), (month, 28)]) {
                    let datagram = datagram(&at(month, day, [3, 14, 15]), pid, message);
                    let expected = format!("mldproxy[{pid}]: {message}");
                    assert_eq!(kept_by_logd(&datagram), expected, "{datagram}");
                }
            }
        }
    }

    #[test]
    fn a_line_stays_one_line_and_moves_no_cursor() {
        let mut line = Line::new();
        write!(line, "a\nwarn: b\x1b[2J\u{9b}").unwrap();
        line.end();
        assert_eq!(line.octets(), b"a\\u000awarn: b\\u001b[2J\\u009b\n");
    }

    #[test]
    fn a_line_too_long_is_cut_off_between_characters() {
        let mut line = Line::new();
        write!(line, "{}", "groß".repeat(200)).unwrap_err();
        line.end();
        let text = str::from_utf8(line.octets()).unwrap();
        assert_eq!(text.len(), 511 + 1);
        assert!(text.ends_with("ßg\n"));
    }
}
