//! The command line.

use std::time::Duration;

use argh::FromArgs;
use log::LevelFilter;
use protocol::config::{
    ADDRESS_TIMEOUT, Config, EXPIRY_INTERVAL, InterfaceName, MAX_DOWNSTREAMS, MAX_PREFIXES, Prefix,
    REFRESH_INTERVAL,
};

/// What the user wants done.
pub enum Command {
    Run(Box<Run>),
    /// Print this and be done.
    Print(String),
}

/// `mldproxy run`.
pub struct Run {
    /// Checked.
    pub config: Config,
    pub log_level: LevelFilter,
    pub syslog: bool,
    /// Wait for interfaces that are not there at the start.
    pub wait: bool,
}

/// Reads the arguments behind the program's name. An error is a text for standard error.
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
            let run = run(arguments).map_err(|error| format!("mldproxy: {error}\n"))?;
            Ok(Command::Run(Box::new(run)))
        }
        None => Err("mldproxy: nothing to do; see mldproxy --help\n".to_owned()),
    }
}

/// Keep the hosts behind an IPv6 NDP proxy reachable: make this router a member, on the upstream, of the solicited-node multicast
/// group of each host downstream, so that a gateway that does MLD snooping forwards Neighbor Solicitations for them.
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
    Run(RunArguments),
}

/// Run in the foreground until SIGTERM or SIGINT.
#[derive(FromArgs)]
#[argh(
    subcommand,
    name = "run",
    example = "mldproxy run wan br-lan",
    note = "Needs CAP_NET_RAW."
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
    /// learn only addresses in this prefix, in place of 2000::/3; may be given more than once
    #[argh(option, arg_name = "p")]
    prefix: Vec<Prefix>,
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
    /// the interface towards the gateway
    #[argh(positional, arg_name = "upstream")]
    upstream: InterfaceName,
    /// the interfaces towards the hosts
    #[argh(positional, arg_name = "downstream")]
    downstreams: Vec<InterfaceName>,
}

fn run(arguments: RunArguments) -> Result<Run, String> {
    let mut config = Config::new(arguments.upstream);
    config.address_timeout = arguments.address_timeout;
    config.refresh_interval = arguments.refresh_interval;
    config.expiry_interval = arguments.expiry_interval;
    config.downstreams = heapless::Vec::from_slice(&arguments.downstreams)
        .map_err(|_| format!("more than {MAX_DOWNSTREAMS} downstream interfaces"))?;
    if !arguments.prefix.is_empty() {
        config.prefixes = heapless::Vec::from_slice(&arguments.prefix)
            .map_err(|_| format!("more than {MAX_PREFIXES} times --prefix"))?;
    }
    config.check().map_err(|error| error.to_string())?;
    Ok(Run {
        config,
        log_level: arguments.log_level,
        syslog: arguments.syslog,
        wait: arguments.wait,
    })
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: u32 = text
        .parse()
        .map_err(|_| "not a whole number of seconds".to_owned())?;
    Ok(Duration::from_secs(seconds.into()))
}

fn log_level(text: &str) -> Result<LevelFilter, String> {
    text.parse()
        .map_err(|_| "not one of error, warn, info, debug, trace".to_owned())
}
