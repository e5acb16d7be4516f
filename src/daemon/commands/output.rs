//! Writes to standard output and standard error without the standard library's buffers. A terminal
//! may be behind them, so what cannot be seen is escaped, whoever said it.

use std::io::IsTerminal as _;
use std::os::fd::BorrowedFd;
use std::process;

use nix::errno::Errno;
use nix::unistd::write;
use protocol::escaped::escape;

use crate::sys::{STANDARD_ERROR, STANDARD_OUTPUT};

/// Writes a text of any number of lines to standard output. If that fails, ends the program, since
/// the rest would be cut off: with exit code 0 if the reader has gone, else with 1.
pub fn print(text: &str) {
    print_as_it_is(&printable(text));
}

/// Moves the terminal's cursor to the top left, and clears the screen.
pub fn clear_screen() {
    print_as_it_is("\x1b[H\x1b[2J");
}

fn print_as_it_is(text: &str) {
    match write_all(STANDARD_OUTPUT, text.as_bytes()) {
        Ok(()) => {}
        Err(Errno::EPIPE) => process::exit(0),
        Err(errno) => {
            complain(&["writing: ", errno.desc()].concat());
            process::exit(1);
        }
    }
}

/// Replaces the last line of a terminal on standard error, which holds how far the program is. Of
/// anything but a terminal it writes nothing.
pub fn show_progress(text: &str) {
    if STANDARD_ERROR.is_terminal() {
        // There is nowhere to report that this failed.
        let _ = write_all(STANDARD_ERROR, ["\r\x1b[K", text].concat().as_bytes());
    }
}

/// Writes an error message.
pub fn complain(text: &str) {
    complain_in_lines(&["mldproxy: ", text, "\n"].concat());
}

/// Writes a text of any number of lines to standard error.
pub fn complain_in_lines(text: &str) {
    // There is nowhere to report that this failed.
    let _ = write_all(STANDARD_ERROR, printable(text).as_bytes());
}

/// The text, with line feeds as they are and escapes for all else that cannot be seen.
fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    let _ = escape(text, &mut |shown| {
        printable.push_str(if shown == "\\u000a" { "\n" } else { shown });
        Ok(())
    });
    printable
}

fn write_all(to: BorrowedFd<'_>, mut octets: &[u8]) -> nix::Result<()> {
    while !octets.is_empty() {
        match write(to, octets) {
            Ok(length) => octets = octets.get(length..).unwrap_or_default(),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
