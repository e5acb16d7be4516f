//! The command line.

mod proxy;

use argh::FromArgs;
use log::LevelFilter;
use protocol::config::{
    ADDRESS_TIMEOUT, Config, EXPIRY_INTERVAL, Forward, JOIN_BURST, JOIN_RATE, Learn, MAX_PREFIXES,
    MldMode, PER_MAC, QuerierMode, REFRESH_INTERVAL, Scope,
};
use protocol::link::{InterfaceName, MAX_DOWNSTREAMS, Prefix, PrefixError};
use protocol::time::Duration;

use crate::commands::check::CheckArguments;
use crate::commands::query::QueryArguments;
use crate::commands::status::StatusArguments;
use crate::commands::values::{instance_name, number, seconds, socket_path};
use crate::run::start::Settings;

/// What the user wants done.
pub enum Command {
    Run(Box<Settings>),
    Status(StatusArguments),
    Check(CheckArguments),
    Query(QueryArguments),
    /// Print this text and exit.
    Print(String),
}

/// Reads the arguments behind the program's name. An error is the text for standard error.
// What it has on the stack is not to stay there while the daemon runs.
#[inline(never)]
pub fn parse(arguments: &[&str]) -> Result<Command, String> {
    let arguments = match Arguments::from_args(&["mldproxy"], arguments) {
        Ok(arguments) => arguments,
        Err(exit) if exit.status.is_ok() => return Ok(Command::Print(exit.output)),
        Err(exit) => return Err(exit.output),
    };
    match arguments.command {
        _ if arguments.version => Ok(Command::Print(format!(
            "mldproxy {}\n",
            env!("CARGO_PKG_VERSION")
        ))),
        Some(Subcommand::Run(arguments)) => {
            let run = run(*arguments).map_err(|error| format!("mldproxy: {error}\n"))?;
            Ok(Command::Run(Box::new(run)))
        }
        Some(Subcommand::Status(arguments)) => Ok(Command::Status(arguments)),
        Some(Subcommand::Check(arguments)) => Ok(Command::Check(arguments)),
        Some(Subcommand::Query(arguments)) => Ok(Command::Query(arguments)),
        None => Err("mldproxy: nothing to do; see mldproxy --help\n".to_owned()),
    }
}

/// Keep the hosts behind an IPv6 NDP proxy reachable: make this router a member, on the upstream,
/// of the solicited-node multicast group of each host downstream, so that a gateway that does MLD
/// snooping forwards Neighbor Solicitations for them. Runs beside that proxy, or with --ndp-proxy
/// in its place.
#[derive(FromArgs)]
struct Arguments {
    /// print the version
    #[argh(switch)]
    version: bool,
    #[argh(subcommand)]
    command: Option<Subcommand>,
}

#[derive(FromArgs)]
#[argh(subcommand)]
enum Subcommand {
    Run(Box<RunArguments>),
    Status(StatusArguments),
    Check(CheckArguments),
    Query(QueryArguments),
}

/// Run in the foreground until SIGTERM or SIGINT.
#[derive(FromArgs)]
#[argh(
    subcommand,
    name = "run",
    example = "mldproxy run wan br-lan",
    note = "Needs CAP_NET_RAW, and CAP_NET_ADMIN where a downstream bridge snoops and for \
        --ndp-proxy, --host-routes and --table."
)]
struct RunArguments {
    /// seconds from the last sighting of an address to its end (default 300)
    #[argh(
        option,
        arg_name = "s",
        default = "ADDRESS_TIMEOUT",
        from_str_fn(seconds)
    )]
    address_timeout: Duration,
    /// seconds between two reports of all groups, 0 to send none (default 60)
    #[argh(
        option,
        arg_name = "s",
        default = "REFRESH_INTERVAL",
        from_str_fn(seconds)
    )]
    refresh_interval: Duration,
    /// seconds between two looks for addresses that ended (default 30)
    #[argh(
        option,
        arg_name = "s",
        default = "EXPIRY_INTERVAL",
        from_str_fn(seconds)
    )]
    expiry_interval: Duration,
    /// learn only addresses in this prefix, in place of 2000::/3, or with "upstream" in the
    /// prefixes of the upstream's addresses; may be given more than once
    #[argh(option, arg_name = "p", from_str_fn(prefix_or_upstream))]
    prefix: Vec<Option<Prefix>>,
    /// never learn addresses in this prefix; may be given more than once
    #[argh(option, arg_name = "p")]
    exclude: Vec<Prefix>,
    /// what to learn from: ndp, mld or both (default both)
    #[argh(option, arg_name = "w", default = "Learn::Both", from_str_fn(learn))]
    learn: Learn,
    /// do not ask hosts by MLD queries whether they are still there
    #[argh(switch)]
    no_ask: bool,
    /// do not probe addresses by Neighbor Solicitations
    #[argh(switch)]
    no_probe: bool,
    /// have the kernel answer upstream for the hosts: no other NDP proxy is needed
    #[argh(switch)]
    ndp_proxy: bool,
    /// a route to each host, for where upstream and downstream hold the same prefix
    #[argh(switch)]
    host_routes: bool,
    /// advertise new hosts to the gateway before it asks
    #[argh(switch)]
    announce: bool,
    /// addresses that one host may hold (default 64)
    #[argh(
        option,
        arg_name = "n",
        default = "PER_MAC.into()",
        from_str_fn(number)
    )]
    per_mac: u32,
    /// new groups joined a second; what is more waits for its turn (default 50)
    #[argh(option, arg_name = "n", default = "JOIN_RATE", from_str_fn(number))]
    join_rate: u32,
    /// new groups joined at once (default 200)
    #[argh(option, arg_name = "n", default = "JOIN_BURST", from_str_fn(number))]
    join_burst: u32,
    /// version of MLD to report in: 1, 2, or auto for that of the queries heard upstream (default
    /// auto)
    #[argh(
        option,
        arg_name = "v",
        default = "MldMode::Auto",
        from_str_fn(mld_mode)
    )]
    mld_version: MldMode,
    /// be the MLD proxy: forward multicast streams between the upstream and the listeners
    /// downstream; the options down to --forward are for it alone
    #[argh(switch)]
    mld_proxy: bool,
    /// end a stream at once when a listener leaves, without a query for others
    #[argh(switch)]
    fast_leave: bool,
    /// forward what hosts downstream send upstream too
    #[argh(switch)]
    senders: bool,
    /// lowest scope of groups that leave the home: admin, site, organization, global or 3 to 14
    /// (default organization)
    #[argh(option, arg_name = "s", from_str_fn(proxy::scope))]
    scope: Option<Scope>,
    /// be the querier downstream: auto with MLDv2, v1, or off (default auto)
    #[argh(option, arg_name = "q", from_str_fn(proxy::querier))]
    querier: Option<QuerierMode>,
    /// seconds between two general queries (default 125)
    #[argh(option, arg_name = "s", from_str_fn(seconds))]
    query_interval: Option<Duration>,
    /// times that what may be lost is sent, 1 to 7 (default 2)
    #[argh(option, arg_name = "n", from_str_fn(number))]
    robustness: Option<u32>,
    /// seconds between two queries for other listeners when one leaves, such as 0.1 (default 1)
    #[argh(option, arg_name = "s", from_str_fn(proxy::decimal_seconds))]
    last_listener_interval: Option<Duration>,
    /// groups of one downstream, and groups joined upstream (default 400)
    #[argh(option, arg_name = "n", from_str_fn(number))]
    max_groups: Option<u32>,
    /// sources of one group (default 64)
    #[argh(option, arg_name = "n", from_str_fn(number))]
    max_sources: Option<u32>,
    /// proxy only groups in this prefix; may be given more than once
    #[argh(option, arg_name = "p")]
    allow: Vec<Prefix>,
    /// never proxy groups in this prefix; may be given more than once
    #[argh(option, arg_name = "p")]
    deny: Vec<Prefix>,
    /// the kernel's multicast routing table, in place of the main one
    #[argh(option, arg_name = "n", from_str_fn(number))]
    table: Option<u32>,
    /// auto: forward while this router is the querier; or always (default auto)
    #[argh(option, arg_name = "f", from_str_fn(proxy::forward))]
    forward: Option<Forward>,
    /// error, warn, info, debug or trace (default info)
    #[argh(
        option,
        arg_name = "l",
        default = "LevelFilter::Info",
        from_str_fn(log_level)
    )]
    log_level: LevelFilter,
    /// log to /dev/log instead of standard error
    #[argh(switch)]
    syslog: bool,
    /// wait for interfaces that do not exist yet instead of giving up
    #[argh(switch)]
    wait: bool,
    /// the name of this instance, for mldproxy status (default that of the upstream)
    #[argh(option, arg_name = "name", from_str_fn(instance_name))]
    name: Option<String>,
    /// the control socket (default /var/run/mldproxy/NAME.sock)
    #[argh(option, arg_name = "path", from_str_fn(socket_path))]
    socket: Option<String>,
    /// leave root for this user, a name or a number
    #[argh(option, arg_name = "u")]
    user: Option<String>,
    /// check the arguments, say what is wrong with them, and exit
    #[argh(switch)]
    test: bool,
    /// the interface towards the gateway
    #[argh(positional, arg_name = "upstream")]
    upstream: InterfaceName,
    /// the interfaces towards the hosts
    #[argh(positional, arg_name = "downstream")]
    downstreams: Vec<InterfaceName>,
}

fn run(arguments: RunArguments) -> Result<Settings, String> {
    let mld_proxy = proxy::settings(&arguments)?;
    let mut config = Config::new(arguments.upstream);
    config.address_timeout = arguments.address_timeout;
    config.refresh_interval = arguments.refresh_interval;
    config.expiry_interval = arguments.expiry_interval;
    config.downstreams = heapless::Vec::from_slice(&arguments.downstreams)
        .map_err(|_| format!("more than {MAX_DOWNSTREAMS} downstream interfaces"))?;
    if !arguments.prefix.is_empty() {
        let fixed: Vec<Prefix> = arguments.prefix.iter().copied().flatten().collect();
        config.upstream_prefixes = fixed.len() < arguments.prefix.len();
        if config.upstream_prefixes && !fixed.is_empty() {
            return Err("--prefix upstream does not go with another --prefix".to_owned());
        }
        config.prefixes = heapless::Vec::from_slice(&fixed)
            .map_err(|_| format!("more than {MAX_PREFIXES} times --prefix"))?;
    }
    config.excluded = heapless::Vec::from_slice(&arguments.exclude)
        .map_err(|_| format!("more than {MAX_PREFIXES} times --exclude"))?;
    config.learn = arguments.learn;
    config.ask = !arguments.no_ask;
    config.probe = !arguments.no_probe;
    config.ndp_proxy = arguments.ndp_proxy;
    config.host_routes = arguments.host_routes;
    config.announce = arguments.announce;
    config.per_mac = u16::try_from(arguments.per_mac).map_err(|_| {
        format!(
            "--per-mac is {}; it must be at most 65535",
            arguments.per_mac
        )
    })?;
    config.join_rate = arguments.join_rate;
    config.join_burst = arguments.join_burst;
    config.mld_mode = arguments.mld_version;
    config.mld_proxy = mld_proxy;
    config.check().map_err(|error| error.to_string())?;
    Ok(Settings {
        config,
        log_level: arguments.log_level,
        syslog: arguments.syslog,
        wait: arguments.wait,
        name: arguments.name,
        socket: arguments.socket,
        user: arguments.user,
        test: arguments.test,
    })
}

fn log_level(text: &str) -> Result<LevelFilter, String> {
    text.parse()
        .map_err(|_| "not one of error, warn, info, debug, trace".to_owned())
}

/// Reads a prefix; `None` stands for the prefixes of the upstream.
fn prefix_or_upstream(text: &str) -> Result<Option<Prefix>, String> {
    match text {
        "upstream" => Ok(None),
        _ => text
            .parse()
            .map(Some)
            .map_err(|error: PrefixError| error.to_string()),
    }
}

fn learn(text: &str) -> Result<Learn, String> {
    match text {
        "both" => Ok(Learn::Both),
        "ndp" => Ok(Learn::Ndp),
        "mld" => Ok(Learn::Mld),
        _ => Err("not one of ndp, mld, both".to_owned()),
    }
}

fn mld_mode(text: &str) -> Result<MldMode, String> {
    match text {
        "auto" => Ok(MldMode::Auto),
        "1" => Ok(MldMode::V1),
        "2" => Ok(MldMode::V2),
        _ => Err("not one of auto, 1, 2".to_owned()),
    }
}
