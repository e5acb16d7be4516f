//! mldproxy keeps the hosts behind an IPv6 NDP proxy reachable where the gateway does MLD snooping.
//!
//! This file reads the command line and hands over to the command that the user named.

use std::env;
use std::process::ExitCode;

use daemon::cli::{self, Command};
use daemon::commands::status::StatusError;
use daemon::commands::{BAD_INPUT, check, output, query, status};
use daemon::run::start::{Settings, StartError, start};
use daemon::sys;
use log::error;

/// The exit code where another daemon has the control socket.
const ALREADY_RUNNING: u8 = 3;

// Unit tests allocate more than this heap holds, and free it.
#[cfg_attr(not(test), global_allocator)]
#[cfg_attr(test, expect(dead_code, reason = "no allocator of the tests"))]
static HEAP: sys::Heap = sys::Heap::new();

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args_os()
        .skip(1)
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match cli::parse(&arguments) {
        Ok(Command::Run(settings)) => run(*settings),
        Ok(Command::Status(arguments)) => match status::status(arguments) {
            Ok(()) => ExitCode::SUCCESS,
            Err(StatusError::Arguments(text)) => {
                output::complain(&text);
                ExitCode::from(BAD_INPUT)
            }
            Err(StatusError::System(text)) => {
                output::complain(&text);
                ExitCode::FAILURE
            }
        },
        Ok(Command::Check(arguments)) => check::run(&arguments),
        Ok(Command::Query(arguments)) => query::run(&arguments),
        Ok(Command::Print(text)) => {
            output::print(&text);
            ExitCode::SUCCESS
        }
        Err(text) => {
            output::complain_in_lines(&text);
            ExitCode::from(BAD_INPUT)
        }
    }
}

fn run(settings: Settings) -> ExitCode {
    let (text, code) = match start(settings) {
        Ok(()) => return ExitCode::SUCCESS,
        Err(StartError::Arguments(text)) => (text, ExitCode::from(BAD_INPUT)),
        Err(StartError::AlreadyRunning(text)) => (text, ExitCode::from(ALREADY_RUNNING)),
        Err(StartError::System(text)) => (text, ExitCode::FAILURE),
    };
    error!("{text}");
    code
}

#[cfg(test)]
mod tests {
    use std::backtrace::Backtrace;

    /// Under RUST_BACKTRACE=1 a test that fails writes a backtrace, which takes more memory than
    /// the program's own heap has.
    #[test]
    fn a_unit_test_that_fails_can_write_a_backtrace() {
        for _ in 0..3 {
            assert!(!Backtrace::force_capture().to_string().is_empty());
        }
    }
}
