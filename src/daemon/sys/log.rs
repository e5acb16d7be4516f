//! Writes log lines to standard error or to the system's log.

use std::fmt::{self, Write as _};
use std::io::IsTerminal as _;
use std::os::unix::net::UnixDatagram;
use std::process;
use std::sync::OnceLock;

use libc::{c_int, tm};
use log::{Level, LevelFilter, Log, Metadata, Record};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::write;
use protocol::time::Instant;

use super::clock;
use super::ffi::{STANDARD_ERROR, calendar};

static LOGGER: OnceLock<Logger> = OnceLock::new();

/// Writes all log lines up to `level` to standard error, or with `syslog` to `/dev/log`. Call it
/// once.
pub fn install(level: LevelFilter, syslog: bool) {
    // When the log daemon is slow, a line is lost, and the loop goes on.
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
        let mut line = Line::new();
        // A line that does not fit is cut off.
        let _ = match &self.0 {
            Destination::Terminal(started) => write_for_terminal(&mut line, *started, record),
            Destination::Stderr => write!(line, "{}: {}", name(record.level()), record.args()),
            Destination::Syslog(_) => write_for_syslog(&mut line, record),
        };
        // Each line is sent to the path, since a connection would not survive a restart of the log
        // daemon.
        if let Destination::Syslog(socket) = &self.0
            && socket.send_to(line.octets(), SYSLOG).is_ok()
        {
            return;
        }
        line.end();
        // There is nowhere to report that standard error failed.
        let _ = write(STANDARD_ERROR, line.octets());
    }

    fn flush(&self) {}
}

/// Writes the seconds since the start before the line. A calendar would take 7 kB of the file, and
/// the person sees the lines as they come.
fn write_for_terminal(line: &mut Line, started: Instant, record: &Record<'_>) -> fmt::Result {
    let since = clock::now().since(started);
    let (seconds, tenths) = (since.as_secs(), since.as_millis() / 100 % 10);
    let (name, message) = (name(record.level()), record.args());
    write!(line, "{seconds:5}.{tenths} {name:5} {message}")
}

/// Writes a line as RFC 3164 §4.1 has it. OpenWrt's logd drops the first 16 octets as a timestamp
/// if the last of them is a space. Without a timestamp it would drop the program's name. Most log
/// daemons replace the timestamp by the time of reception; busybox's syslogd and syslog-ng keep it.
fn write_for_syslog(line: &mut Line, record: &Record<'_>) -> fmt::Result {
    let severity = match record.level() {
        Level::Error => libc::LOG_ERR,
        Level::Warn => libc::LOG_WARNING,
        Level::Info => libc::LOG_INFO,
        Level::Debug | Level::Trace => libc::LOG_DEBUG,
    };
    // Every Linux has this clock.
    let now = clock_gettime(ClockId::CLOCK_REALTIME).unwrap_or(TimeSpec::new(0, 0));
    let now = calendar(now);
    write_rfc3164(line, severity, &now, process::id(), record.args())
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

/// A line of at most 512 octets with its end, without heap.
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
