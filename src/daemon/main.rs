//! mldproxy: keeps the hosts behind an IPv6 NDP proxy reachable where the gateway does MLD snooping.
//!
//! This is the shell around the [`protocol`] core: it starts it, feeds it and does what it says.

mod check;
mod cli;
mod event_loop;
mod instance;
mod interfaces;
mod output;
mod query;
mod report;
mod snapshot;
mod sys;

use std::env;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use log::{debug, error};
use nix::errno::Errno;
use nix::net::if_::{Interface, if_nameindex, if_nametoindex};
use protocol::config::Config;
use protocol::engine::Engine;

use cli::{Command, Run};
use event_loop::{Buffers, EventLoop};
use sys::netlink::Netlink;
use sys::packet::Transmitter;
use sys::signal::Signals;

/// The exit code for what only another command line mends.
const BAD_INPUT: u8 = 2;

// In static memory all zero: no room in the file, and pages never touched cost no memory.
static ENGINE: Mutex<Engine> = Mutex::new(Engine::new());
static BUFFERS: Mutex<Buffers> = Mutex::new(Buffers::new());

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args_os()
        .skip(1)
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match cli::parse(&arguments) {
        Ok(Command::Run(arguments)) => run(*arguments),
        Ok(Command::Check(arguments)) => check::run(&arguments),
        Ok(Command::Query(arguments)) => query::run(&arguments),
        Ok(Command::Print(text)) => {
            output::print(&text);
            ExitCode::SUCCESS
        }
        Err(text) => {
            let _ = io::stderr().write_all(text.as_bytes());
            ExitCode::from(BAD_INPUT)
        }
    }
}

fn run(arguments: Run) -> ExitCode {
    sys::log::install(arguments.log_level, arguments.syslog);
    if !arguments.wait
        && let Err(text) = check_interfaces(&arguments.config)
    {
        error!("{text}");
        return ExitCode::from(BAD_INPUT);
    }
    if arguments.test {
        return ExitCode::SUCCESS;
    }
    match proxy(arguments.config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            error!("{text}");
            ExitCode::FAILURE
        }
    }
}

/// Every interface exists, or a line that says which one does not.
fn check_interfaces(config: &Config) -> Result<(), String> {
    let names = std::iter::once(&config.upstream).chain(&config.downstreams);
    for name in names {
        if if_nametoindex(name.as_str()).is_err() {
            let existing: Vec<String> = if_nameindex().map_or(Vec::new(), |interfaces| {
                let names = interfaces.iter().map(Interface::name);
                names
                    .map(|name| name.to_string_lossy().into_owned())
                    .collect()
            });
            return Err(format!(
                "no interface {name}; there are {} (--wait waits for it)",
                existing.join(", ")
            ));
        }
    }
    Ok(())
}

/// Starts in the order in which things can fail for the user's reasons, and runs until a signal.
fn proxy(config: Config) -> Result<(), String> {
    let transmitter = Transmitter::open().map_err(|errno| match errno {
        Errno::EPERM => {
            "opening a packet socket: CAP_NET_RAW is missing; run as root, or with that capability"
                .to_owned()
        }
        errno => format!("opening a packet socket: {}", errno.desc()),
    })?;
    let netlink = Netlink::open().map_err(|errno| format!("opening netlink: {}", errno.desc()))?;
    let signals = Signals::block().map_err(|errno| format!("taking signals: {}", errno.desc()))?;

    let mut engine = ENGINE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut buffers = BUFFERS.lock().unwrap_or_else(PoisonError::into_inner);
    engine.start(config, seed());
    let mut event_loop = EventLoop::new(&mut engine, &mut buffers, signals, netlink, transmitter);
    let ended = event_loop.run();
    log_counters(event_loop.engine());
    ended
        .map(drop)
        .map_err(|errno| format!("waiting for events: {}", errno.desc()))
}

/// 16 octets that nobody else can guess: the keys that the standard library takes from the system for its own hash tables.
fn seed() -> [u8; 16] {
    let word = || RandomState::new().build_hasher().finish().to_ne_bytes();
    let mut seed = [0; 16];
    seed[..8].copy_from_slice(&word());
    seed[8..].copy_from_slice(&word());
    seed
}

fn log_counters(engine: &Engine) {
    let counters = engine.counters();
    for (name, value) in counters.iter().filter(|(_, value)| *value > 0) {
        debug!("{name} {value}");
    }
}
