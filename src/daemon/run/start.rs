//! `mldproxy run`, from its settings to the loop. What a user can mend fails first.

use std::sync::{Mutex, PoisonError};

use log::{LevelFilter, debug, warn};
use nix::errno::Errno;
use protocol::config::{Config, GLOBAL_UNICAST};
use protocol::engine::{self, Engine};

use super::forwarding::Forwarding;
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

// Both are all zero: they take no room in the file, and a page that nobody touches takes no memory.
static TABLES: Mutex<engine::Tables> = Mutex::new(engine::Tables::new());
static BUFFERS: Mutex<Buffers> = Mutex::new(Buffers::new());

/// What the user asked for.
pub struct Settings {
    /// The engine's configuration, which was checked.
    pub config: Config,
    pub log_level: LevelFilter,
    pub syslog: bool,
    /// Wait for interfaces that do not exist at the start.
    pub wait: bool,
    /// The path of the control socket; `None` for that of the name.
    pub socket: Option<String>,
    /// The name of this instance; `None` for that of the upstream.
    pub name: Option<String>,
    /// The user to become once the sockets are open; `None` to stay.
    pub user: Option<String>,
    /// Only check the arguments.
    pub test: bool,
}

/// Why the daemon did not start, or ended unasked. Each holds a line for the log.
pub enum StartError {
    /// Another command line would mend it.
    Arguments(String),
    /// Another daemon answers on the control socket.
    AlreadyRunning(String),
    System(String),
}

/// Starts the daemon, and runs it until a signal asks for the end.
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
    // Asked while this instance has no socket of its own yet.
    let other = instance::on_upstream(upstream.as_str(), None);
    let server = bind(&path, user)?;
    Records::prepare(user);
    if let Instance::Running { .. } = other {
        warn!("another mldproxy runs for {upstream}: both do everything");
    }
    if config.host_routes && !config.upstream_prefixes && config.prefixes.contains(&GLOBAL_UNICAST)
    {
        warn!(
            "--host-routes without --prefix: a host can claim the route to any address; --prefix \
             upstream limits that to the provider's prefixes"
        );
    }
    let control = server.map(|server| (server, name));
    proxy(config, control, user).map_err(StartError::System)
}

/// Checks that every interface exists. Fails with a line that names the first one that does not.
fn check_interfaces(config: &Config) -> Result<(), String> {
    let snapshot = Snapshot::take(config, &[Dump::Links])
        .map_err(|errno| format!("asking for interfaces: {}", errno.desc()))?;
    let Some(name) = snapshot.interfaces.missing().next() else {
        return Ok(());
    };
    let names: Vec<&str> = snapshot.links.iter().map(|link| &*link.name).collect();
    Err(format!(
        "no interface {name}; there are {} (--wait waits for it)",
        names.join(", ")
    ))
}

/// Finds the user to become; `None` if the daemon is to stay who it is.
fn find_user(name: Option<&str>) -> Result<Option<User>, String> {
    let Some(name) = name else { return Ok(None) };
    match User::find(name) {
        Some(user) => Ok(Some(user)),
        None => Err(format!("--user {name}: there is no such user")),
    }
}

/// Binds the control socket. If the system refuses it, the log says so and the daemon runs without
/// one.
fn bind(path: &str, user: Option<User>) -> Result<Option<Server>, StartError> {
    match Server::bind(path, user) {
        Ok(server) => Ok(Some(server)),
        Err(BindError::InUse) => Err(StartError::AlreadyRunning(format!(
            "mldproxy is already running: it answers on {path}"
        ))),
        Err(BindError::System(errno)) => {
            warn!(
                "no control socket, so `mldproxy status` does not work: {path}: {}",
                errno.desc()
            );
            Ok(None)
        }
    }
}

/// Opens the sockets, drops the privileges that the loop does not need, and runs the loop.
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
    let forwarding = Forwarding::open(&config);
    let signals = Signals::block().map_err(|errno| format!("taking signals: {}", errno.desc()))?;
    // What the daemon opens from here on, it opens with the rights that it keeps.
    drop_privileges(user).map_err(|errno| match errno {
        Errno::EPERM if user.is_some() => "--user: only root can become another user".to_owned(),
        errno => format!("dropping privileges: {}", errno.desc()),
    })?;

    let mut seed = [0; 16];
    sys::random(&mut seed).map_err(|errno| format!("getting random octets: {}", errno.desc()))?;

    let mut storage = TABLES.lock().unwrap_or_else(PoisonError::into_inner);
    let mut buffers = BUFFERS.lock().unwrap_or_else(PoisonError::into_inner);
    let mut engine = Engine::new(&mut storage, config, seed);
    let output = (transmitter, forwarding);
    let sockets = Sockets::new(signals, (netlink, instance), tables, output, control);
    let mut event_loop = EventLoop::new(&mut engine, &mut buffers, sockets);
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
