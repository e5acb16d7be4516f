//! `mldproxy run`, from its settings to the loop: what can be wrong is found out in the order in
//! which users can mend it.

use std::sync::{Mutex, PoisonError};

use log::{LevelFilter, debug, warn};
use nix::errno::Errno;
use protocol::config::{Config, GLOBAL_UNICAST};
use protocol::engine::{self, Engine};

use super::{Buffers, EventLoop, Sockets};
use crate::control::instance::{self, Instance};
use crate::control::{BindError, Server, socket_of};
use crate::interfaces::Snapshot;
use crate::sys;
use crate::sys::netlink::tables::Tables;
use crate::sys::netlink::{Dump, Netlink};
use crate::sys::packet::Transmitter;
use crate::sys::privileges::{User, drop_privileges};
use crate::sys::records::Records;
use crate::sys::signal::Signals;

// In static memory all zero: no room in the file, and pages never touched cost no memory.
static TABLES: Mutex<engine::Tables> = Mutex::new(engine::Tables::new());
static BUFFERS: Mutex<Buffers> = Mutex::new(Buffers::new());

/// What the user wants of `mldproxy run`.
pub struct Settings {
    /// Checked.
    pub config: Config,
    pub log_level: LevelFilter,
    pub syslog: bool,
    /// Wait for interfaces that are not there at the start.
    pub wait: bool,
    /// The control socket, in place of the one of the name.
    pub socket: Option<String>,
    /// Of this instance, in place of the upstream's.
    pub name: Option<String>,
    /// Whom to become once the sockets are open.
    pub user: Option<String>,
    /// Do not run: the arguments were to be checked, and are right.
    pub test: bool,
}

/// Why the daemon did not start, or ended without being asked to; each with a line for the log.
pub enum StartError {
    /// Only another command line mends it.
    Arguments(String),
    /// Another daemon answers on the control socket.
    AlreadyRunning(String),
    System(String),
}

/// Starts the daemon, and runs until a signal asks for the end.
pub fn start(settings: Settings) -> Result<(), StartError> {
    let Settings { config, .. } = settings;
    sys::log::install(settings.log_level, settings.syslog);
    if !settings.wait {
        check_interfaces(&config).map_err(StartError::Arguments)?;
    }
    let user = find_user(settings.user.as_deref()).map_err(StartError::Arguments)?;
    if settings.test {
        return Ok(());
    }
    let upstream = config.upstream.clone();
    let name = settings.name.as_deref().unwrap_or(upstream.as_str());
    let path = settings.socket.unwrap_or_else(|| socket_of(name));
    // Asked before this one's own socket is there.
    let other = instance::on_upstream(upstream.as_str());
    let server = bind(&path, user)?;
    Records::prepare(user);
    if let Instance::Running { .. } = other {
        warn!("another mldproxy runs for {upstream}: both do everything");
    }
    if config.host_routes && !config.upstream_prefixes && config.prefixes.contains(&GLOBAL_UNICAST)
    {
        warn!(
            "--host-routes without --prefix: a host can have the way to any address, wherever that is; --prefix upstream keeps \
             it to the provider's"
        );
    }
    let control = server.map(|server| (server, name));
    proxy(config, control, user).map_err(StartError::System)
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

/// The user to become; `None` where the daemon is to stay who it is.
fn find_user(name: Option<&str>) -> Result<Option<User>, String> {
    let Some(name) = name else { return Ok(None) };
    match User::find(name) {
        Some(user) => Ok(Some(user)),
        None => Err(format!("--user {name}: there is no such user")),
    }
}

/// The control socket. Without one the daemon runs all the same, and a line of the log says so.
fn bind(path: &str, user: Option<User>) -> Result<Option<Server>, StartError> {
    match Server::bind(path, user) {
        Ok(server) => Ok(Some(server)),
        Err(BindError::InUse) => Err(StartError::AlreadyRunning(format!(
            "mldproxy is already running: it answers on {path}"
        ))),
        Err(BindError::System(errno)) => {
            warn!("no `mldproxy status`: {path}: {}", errno.desc());
            Ok(None)
        }
    }
}

/// Opens the sockets, gives up all privileges that the loop does not need, and runs it.
fn proxy(
    config: Config,
    control: Option<(Server, &str)>,
    user: Option<User>,
) -> Result<(), String> {
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
    let sockets = Sockets::new(signals, (netlink, instance), tables, transmitter, control);
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
