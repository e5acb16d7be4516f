//! `mldproxy check` looks for what keeps hosts unreachable, and streams away from them. It sends
//! nothing. With `--prove` it finds out, by sending, whether the gateway's side snoops MLD.

mod choice;
mod findings;
mod multicast;
mod network;
mod prove;
mod proxying;
mod querier;

use std::process::ExitCode;

use argh::FromArgs;
use protocol::config::Config;
use protocol::link::InterfaceName;
use protocol::time::Duration;

use crate::commands::BAD_INPUT;
use crate::commands::output::complain;
use crate::commands::values::{seconds, socket_path};
use crate::control::instance::Instance;
use crate::interfaces::Snapshot;
use crate::sys::netlink::Dump;

use choice::{Choice, choose};
use findings::Findings;
use multicast::Streams;

/// Look for what keeps the hosts unreachable, and the streams of an MLD proxy away from them, and
/// say what to do about it. Sends nothing, except with --prove.
#[derive(FromArgs)]
#[argh(
    subcommand,
    name = "check",
    note = "Exit code: 0 all is well, 1 warnings, 2 problems. Run as root."
)]
pub struct CheckArguments {
    /// prove whether the gateway's side snoops MLD, and so needs mldproxy: in about 9 seconds, by
    /// echo requests from two addresses that nobody has; says before what it sends
    #[argh(switch)]
    prove: bool,
    /// seconds to listen for an MLD query, of which a querier sends one in 125 seconds (default 5)
    #[argh(
        option,
        arg_name = "s",
        default = "Duration::from_secs(5)",
        from_str_fn(seconds)
    )]
    wait: Duration,
    /// write JSON
    #[argh(switch)]
    json: bool,
    /// the control socket of the running mldproxy, where it is not that of a name
    #[argh(option, arg_name = "path", from_str_fn(socket_path))]
    socket: Option<String>,
    /// the upstream, towards the gateway, and behind it the downstreams, towards the hosts; those
    /// that are not named are looked for, and --prove takes the upstream alone
    #[argh(positional, arg_name = "interface")]
    interfaces: Vec<InterfaceName>,
}

// What it has on the stack is not to stay there while the daemon runs.
#[inline(never)]
pub fn run(arguments: &CheckArguments) -> ExitCode {
    let (choice, snapshot) = match look(arguments) {
        Ok(looked) => looked,
        Err(text) => {
            complain(&text);
            return ExitCode::from(BAD_INPUT);
        }
    };
    let mut findings = Findings::new(arguments.json);
    choice.tell(&mut findings);
    let socket = arguments.socket.as_deref();
    if arguments.prove {
        let proof = prove::prove(&snapshot, socket, arguments.wait, &mut findings);
        return findings.end(&proof);
    }
    let sharing = network::check(&snapshot, &mut findings);
    let instance = proxying::check(&snapshot, (socket, sharing), &mut findings);
    let streams = match instance {
        Instance::Running { .. } => Some(Streams::begin(&snapshot)),
        Instance::Perhaps | Instance::None => None,
    };
    querier::check(&snapshot, instance, arguments.wait, &mut findings);
    if let Some(streams) = streams {
        streams.check(&snapshot, socket, &mut findings);
    }
    findings.end("")
}

/// Checks the arguments, chooses what they do not name, and looks at the interfaces.
fn look(arguments: &CheckArguments) -> Result<(Choice, Snapshot), String> {
    if let [_, other, ..] = &arguments.interfaces[..]
        && arguments.prove
    {
        return Err(format!(
            "--prove takes the upstream alone; leave out {other}"
        ));
    }
    let socket = arguments.socket.as_deref();
    let choice = choose(&arguments.interfaces, !arguments.prove, socket)?;
    let mut config = Config::new(choice.upstream.clone());
    config.downstreams = heapless::Vec::from_slice(&choice.downstreams)
        .map_err(|_| "too many downstream interfaces".to_owned())?;
    let dumps = if arguments.prove {
        prove::DUMPS
    } else {
        config.check().map_err(|error| error.to_string())?;
        &[Dump::Links, Dump::Addresses, Dump::ProxiedNeighbors]
    };
    let snapshot = Snapshot::take(&config, dumps).map_err(|errno| errno.desc().to_owned())?;
    Ok((choice, snapshot))
}
