//! mldproxy: keeps the hosts behind an IPv6 NDP proxy reachable where the gateway does MLD snooping.
//!
//! This is the shell around the [`protocol`] core: it starts it, feeds it and does what it says.

use std::env;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use daemon::cli::{Command, Run};
use daemon::commands::instance::{self, Instance};
use daemon::commands::snapshot::Snapshot;
use daemon::commands::status::StatusError;
use daemon::commands::{BAD_INPUT, check, output, query, status};
use daemon::control::{BindError, Server, socket_of};
use daemon::run::{Buffers, EventLoop, Sockets};
use daemon::sys::netlink::tables::Tables;
use daemon::sys::netlink::{Dump, Netlink};
use daemon::sys::packet::Transmitter;
use daemon::sys::privileges::{User, drop_privileges};
use daemon::sys::records::Records;
use daemon::sys::signal::Signals;
use daemon::{cli, sys};
use log::{debug, error, warn};
use nix::errno::Errno;
use protocol::config::{Config, GLOBAL_UNICAST};
use protocol::engine::{self, Engine};

/// The exit code where another daemon has the control socket.
const ALREADY_RUNNING: u8 = 3;

// Unit tests want more, and give it back.
#[cfg_attr(not(test), global_allocator)]
#[cfg_attr(test, expect(dead_code, reason = "no allocator of the tests"))]
static HEAP: sys::Heap = sys::Heap::new();

// In static memory all zero: no room in the file, and pages never touched cost no memory.
static TABLES: Mutex<engine::Tables> = Mutex::new(engine::Tables::new());
static BUFFERS: Mutex<Buffers> = Mutex::new(Buffers::new());

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args_os()
        .skip(1)
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match cli::parse(&arguments) {
        Ok(Command::Run(arguments)) => run(*arguments),
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
            output::complain_as_it_is(&text);
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
    let user = arguments.user.as_deref().map(User::find);
    if let (Some(name), Some(None)) = (&arguments.user, user) {
        error!("--user {name}: there is no such user");
        return ExitCode::from(BAD_INPUT);
    }
    if arguments.test {
        return ExitCode::SUCCESS;
    }
    let name = arguments
        .name
        .as_deref()
        .unwrap_or(arguments.config.upstream.as_str());
    let path = arguments.socket.unwrap_or_else(|| socket_of(name));
    let other = instance::on_upstream(arguments.config.upstream.as_str());
    let server = match Server::bind(&path, user.flatten()) {
        Ok(server) => Some(server),
        Err(BindError::InUse) => {
            error!("mldproxy is already running: it answers on {path}");
            return ExitCode::from(ALREADY_RUNNING);
        }
        Err(BindError::System(errno)) => {
            warn!("no `mldproxy status`: {path}: {}", errno.desc());
            None
        }
    };
    Records::prepare(user.flatten());
    if let Instance::Running { .. } = other {
        warn!(
            "another mldproxy runs for {}: both do everything",
            arguments.config.upstream
        );
    }
    let config = &arguments.config;
    if config.host_routes && !config.upstream_prefixes && config.prefixes.contains(&GLOBAL_UNICAST)
    {
        warn!(
            "--host-routes without --prefix: a host can have the way to any address, wherever that is; --prefix upstream keeps \
             it to the provider's"
        );
    }
    match proxy(
        arguments.config.clone(),
        server.map(|server| (server, name)),
        user.flatten(),
    ) {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            error!("{text}");
            ExitCode::FAILURE
        }
    }
}

/// Every interface exists, or a line that says which one does not.
fn check_interfaces(config: &Config) -> Result<(), String> {
    let snapshot = Snapshot::take(config, &[Dump::Links])
        .map_err(|errno| format!("asking for interfaces: {}", errno.desc()))?;
    let Some(name) = snapshot.interfaces.missing().next() else {
        return Ok(());
    };
    let names: Vec<&str> = snapshot.links.iter().map(|(_, name, _)| &**name).collect();
    Err(format!(
        "no interface {name}; there are {} (--wait waits for it)",
        names.join(", ")
    ))
}

/// Starts in the order in which things can fail for the user's reasons, and runs until a signal.
fn proxy(config: Config, status: Option<(Server, &str)>, user: Option<User>) -> Result<(), String> {
    let transmitter = Transmitter::open().map_err(|errno| match errno {
        Errno::EPERM => {
            "opening a packet socket: CAP_NET_RAW is missing; run as root, or with that capability"
                .to_owned()
        }
        errno => format!("opening a packet socket: {}", errno.desc()),
    })?;
    let no_netlink = |errno: Errno| format!("opening netlink: {}", errno.desc());
    let netlink = Netlink::open().map_err(no_netlink)?;
    let instance = Netlink::open_as_instance().map_err(no_netlink)?;
    let tables = Tables::open(instance.number()).map_err(no_netlink)?;
    let signals = Signals::block().map_err(|errno| format!("taking signals: {}", errno.desc()))?;
    // What is opened from now on is opened without more rights than these.
    drop_privileges(user).map_err(|errno| match errno {
        Errno::EPERM if user.is_some() => "--user: only root can become another user".to_owned(),
        errno => format!("dropping privileges: {}", errno.desc()),
    })?;

    let mut seed = [0; 16];
    sys::random(&mut seed).map_err(|errno| format!("getting random octets: {}", errno.desc()))?;

    let mut storage = TABLES.lock().unwrap_or_else(PoisonError::into_inner);
    let mut buffers = BUFFERS.lock().unwrap_or_else(PoisonError::into_inner);
    let engine = Engine::new(&mut storage, config, seed);
    let sockets = Sockets::new(signals, (netlink, instance), tables, transmitter, status);
    let mut event_loop = EventLoop::new(engine, &mut buffers, sockets);
    let ended = event_loop.run();
    log_counters(event_loop.engine());
    ended
        .map(drop)
        .map_err(|errno| format!("waiting for events: {}", errno.desc()))
}

fn log_counters(engine: &Engine<'_>) {
    let counters = engine.counters();
    for (name, value) in counters.iter().filter(|(_, value)| *value > 0) {
        debug!("{name} {value}");
    }
}

#[cfg(test)]
mod tests {
    use std::backtrace::Backtrace;

    /// It takes more memory than the program's own heap has, and a test that fails writes one under
    /// RUST_BACKTRACE=1.
    #[test]
    fn a_unit_test_that_fails_can_write_a_backtrace() {
        for _ in 0..3 {
            assert!(!Backtrace::force_capture().to_string().is_empty());
        }
    }
}
