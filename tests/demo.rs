//! `cargo demo`: shows on one machine what mldproxy is for, in a network of namespaces that only
//! the demo sees.

#[path = "netns/lab.rs"]
mod lab;
#[path = "demo/stream.rs"]
mod stream;

use std::env;
use std::io::{self, IsTerminal};
use std::panic;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use lab::{
    DOWNSTREAM, LAN_HOST, Lab, OUTSIDE, Process, UPSTREAM, isolate, missing_tools, poll_for,
    solicited_node,
};
use nix::sys::signal::Signal;

const HELP: &str = "\
Usage: cargo demo [--ndppd | --stream]

Builds a small network on this machine (gateway, switch with MLD snooping, router, LAN), shows that
the gateway does not reach the LAN, starts mldproxy on the router, and shows that now it does. Takes
about 10 seconds, and needs root or user namespaces, but no program beside mldproxy. The network is
private to the demo and ends with it.

  --ndppd  have ndppd answer for the LAN's host, and mldproxy beside it, in place of
           mldproxy --ndp-proxy alone
  --stream show mldproxy --mld-proxy instead: a receiver joins, the stream arrives, the receiver
           leaves, the stream stops
  --help   show this";

/// What the demo shows.
#[derive(Clone, Copy)]
enum Show {
    /// A host that the gateway reaches, by mldproxy alone.
    Host,
    /// The same by ndppd, with mldproxy beside it.
    HostByNdppd,
    /// A stream that comes and goes.
    Stream,
}

const PROBLEM: &str = "
The provider gives one IPv6 prefix and takes every host to be on its own link. Its gateway looks for
a host by multicast, which a switch that snoops MLD hands only to ports that asked for it. The
router in between never asked, and does not answer for the host. So the gateway does not find it.";

const NETWORK: &str = "
     gateway             switch                    router                  host
     ┌──────┐         ┌───────────┐         ┌─────────────────┐          ┌──────┐
     │  gw  ├─────────┤    sw     ├─────────┤ wan rtr  br-lan ├──────────┤ lan  │
     └──────┘         └───────────┘         └─────────────────┘          └──────┘
     2001:db8:1::1    MLD snooping:         mldproxy                     2001:db8:1::1:10
                      multicast only to
                      ports that asked
     └─────────────── 2001:db8:1::/64 is on both sides of the router ─────────────────┘
";

/// The echo requests of each ping.
const PINGS: u32 = 5;

fn main() -> ExitCode {
    let mut show = Show::Host;
    for argument in env::args().skip(1) {
        match argument.as_str() {
            "--ndppd" => show = Show::HostByNdppd,
            "--stream" => show = Show::Stream,
            "--help" | "-h" => {
                println!("{HELP}");
                return ExitCode::SUCCESS;
            }
            _ => {
                eprintln!("unknown argument {argument}\n\n{HELP}");
                return ExitCode::from(2);
            }
        }
    }
    // The lab panics when one of its commands fails.
    panic::set_hook(Box::new(|panic| eprintln!("{panic}")));
    let begin = Instant::now();
    let mut screen = Screen::default();
    let demonstration = move || match show {
        Show::Host => demonstrate(&mut screen, false),
        Show::HostByNdppd => demonstrate(&mut screen, true),
        Show::Stream => stream::demonstrate(&mut screen),
    };
    match panic::catch_unwind(demonstration) {
        Ok(Ok(())) => {
            let seconds = begin.elapsed().as_secs_f32();
            println!(
                "\nEverything was as expected, in {seconds:.0} s. \
                 Nothing of it stays on this machine."
            );
            ExitCode::SUCCESS
        }
        Ok(Err(failure)) => {
            eprintln!("\nThe demo failed: {failure}");
            ExitCode::FAILURE
        }
        Err(_) => ExitCode::FAILURE,
    }
}

fn demonstrate(screen: &mut Screen, beside: bool) -> Result<(), String> {
    println!("{PROBLEM}");

    if beside && let Some(missing) = missing_tools(&[("ndppd", "ndppd")]).pop() {
        return Err(missing);
    }
    screen.step("A network of its own, which nothing else on this machine sees");
    isolate()?;
    let lab = Lab::new();
    println!("{NETWORK}");

    let _ndppd = beside.then(|| {
        screen.step("An NDP proxy on the router");
        screen.say("ndppd answers, on wan, the gateway's Neighbor Solicitations for the host.");
        lab.start_ndppd()
    });

    let group = solicited_node(LAN_HOST);
    screen.step("Without mldproxy the gateway does not reach the host");
    expect_ping(screen, &lab, 0)?;
    screen.say(&format!(
        "The Neighbor Solicitation for {LAN_HOST} goes to {group}."
    ));
    screen.say("Nobody on the router's port asked for this group, so the switch holds it back,");
    screen.say("and whoever would answer for the host does not hear the question:");
    expect_group(screen, &lab, false)?;

    let mut arguments = vec!["run", "--log-level", "debug"];
    if !beside {
        arguments.push("--ndp-proxy");
    }
    arguments.extend([UPSTREAM, DOWNSTREAM]);
    screen.step(&format!(
        "Start on the router: mldproxy {}",
        arguments.join(" ")
    ));
    let mut mldproxy = Daemon::start(&lab, &arguments);
    let result = with_mldproxy(screen, &lab, &mut mldproxy, beside);
    result.map_err(|failure| format!("{failure}\nmldproxy's log:\n{}", mldproxy.process.log()))
}

fn with_mldproxy(
    screen: &mut Screen,
    lab: &Lab,
    mldproxy: &mut Daemon,
    beside: bool,
) -> Result<(), String> {
    let started = poll_for(Duration::from_secs(5), || mldproxy.process.lines().pop());
    mldproxy.show_log(screen);
    if started.is_none() || !mldproxy.process.is_running() {
        return Err("expected mldproxy to start and log a line, saw none or its end".to_owned());
    }

    screen.step("The host solicits its router, as hosts do; mldproxy sees it and joins");
    poll_for(Duration::from_secs(10), || {
        lab.lan_host_speaks();
        poll_for(Duration::from_secs(1), || in_mdb(lab).then_some(()))
    });
    mldproxy.show_log(screen);
    expect_group(screen, lab, true)?;
    if !beside {
        screen
            .say("The host answered when it was asked, so the kernel answers for it from now on:");
        let entries = || lab.rtr.proxied(UPSTREAM);
        let answers = || entries().contains(&LAN_HOST).then_some(());
        let entry = poll_for(Duration::from_secs(10), answers);
        mldproxy.show_log(screen);
        entry.ok_or_else(|| format!("expected a proxy entry, saw: {:?}", entries()))?;
        screen.see(&format!("rtr: proxy entry on {UPSTREAM}: {LAN_HOST}"));
    }

    screen.step("With mldproxy the gateway reaches the host");
    expect_ping(screen, lab, PINGS)?;
    mldproxy.show_log(screen);

    screen.step("What it knows: mldproxy status");
    for line in lab.rtr.status("").lines() {
        screen.quote(line);
    }
    let program = env!("CARGO_BIN_EXE_mldproxy");

    screen.step(
        "The same anew each second, here two screens of it: mldproxy status --watch --limit 0",
    );
    let mut watch = Command::new(program);
    watch.args(["status", "--watch", "--limit", "0", "--socket"]);
    let watch = lab.rtr.spawn(watch.arg(&lab.rtr.control_socket));
    let two_screens = || {
        let log = watch.log();
        let screens: Vec<&str> = log.split("\x1b[H\x1b[2J").collect();
        (screens.len() > 3).then(|| [screens[1], screens[2]].map(str::to_owned))
    };
    let screens = poll_for(Duration::from_secs(10), two_screens);
    for line in screens
        .ok_or("expected three screens, saw fewer")?
        .join("\n")
        .lines()
    {
        screen.quote(line);
    }

    let arguments = format!("check --wait 1 {UPSTREAM} {DOWNSTREAM}");
    screen.step(&format!("Is all well? mldproxy {arguments}"));
    let findings = lab.rtr.try_run(&format!("{program} {arguments}")).stdout;
    for line in String::from_utf8_lossy(&findings).lines() {
        screen.quote(line);
    }

    screen.step("Stop mldproxy (SIGTERM): the group goes, and so does the reachability");
    let begin = Instant::now();
    mldproxy.process.signal(Signal::SIGTERM);
    let exit = poll_for(Duration::from_secs(5), || mldproxy.process.exit());
    mldproxy.show_log(screen);
    match exit {
        Some(exit) if exit.success() => screen.see("It exited with status 0."),
        Some(exit) => return Err(format!("expected exit status 0, saw {exit}")),
        None => return Err("expected mldproxy to end, saw it run 5 s on".to_owned()),
    }
    poll_for(Duration::from_secs(10), || (!in_mdb(lab)).then_some(()));
    let seconds = begin.elapsed().as_secs_f32();
    expect_group(screen, lab, false)?;
    screen.say(&format!(
        "(The switch asked who still listens, and waited: {seconds:.1} s.)"
    ));
    expect_ping(screen, lab, 0)
}

/// Pings the LAN's host from the gateway, which has to solicit the host first. Fails unless exactly
/// `received` replies come.
fn expect_ping(screen: &Screen, lab: &Lab, received: u32) -> Result<(), String> {
    lab.gw.flush_neighbors();
    let ping = lab.gw.ping(OUTSIDE, LAN_HOST, PINGS);
    let seen = format!(
        "gw: ping {LAN_HOST}: {} sent, {} answered",
        ping.sent, ping.received
    );
    if ping.received != received {
        return Err(format!(
            "expected {received} of {PINGS} pings answered, saw: {seen}"
        ));
    }
    screen.see(&seen);
    Ok(())
}

/// Fails unless the host's group is present in, or absent from, the switch's multicast database.
fn expect_group(screen: &Screen, lab: &Lab, present: bool) -> Result<(), String> {
    let group = solicited_node(LAN_HOST);
    let groups = lab.mdb();
    if groups.contains(&group) != present {
        let expected = if present { "" } else { "no " };
        return Err(format!(
            "expected {expected}{group} in the switch's MDB, saw: {groups:?}"
        ));
    }
    let held = if present { "" } else { "no " };
    screen.see(&format!("sw: MDB of port rtr: {held}{group}"));
    Ok(())
}

fn in_mdb(lab: &Lab) -> bool {
    lab.mdb().contains(&solicited_node(LAN_HOST))
}

/// The mldproxy process, with the number of its log lines that the screen has shown.
struct Daemon {
    process: Process,
    shown: usize,
}

impl Daemon {
    fn start(lab: &Lab, arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mldproxy"));
        command.args(arguments);
        command.args(["--socket", &lab.rtr.control_socket]);
        Self {
            process: lab.rtr.spawn(&command),
            shown: 0,
        }
    }

    fn show_log(&mut self, screen: &Screen) {
        let lines = self.process.lines();
        for line in &lines[self.shown..] {
            screen.quote(line);
        }
        self.shown = lines.len();
    }
}

/// Writes to standard output, coloured on a terminal.
struct Screen {
    colour: bool,
    step: u32,
}

impl Default for Screen {
    fn default() -> Self {
        let colour = io::stdout().is_terminal() && env::var_os("NO_COLOR").is_none();
        Self { colour, step: 0 }
    }
}

impl Screen {
    fn step(&mut self, title: &str) {
        self.step += 1;
        println!("\n{}", self.paint("1", &format!("{}. {title}", self.step)));
    }

    fn say(&self, text: &str) {
        println!("   {text}");
    }

    /// Prints an observation that was expected.
    fn see(&self, text: &str) {
        println!(" {} {text}", self.paint("32", "✓"));
    }

    /// Prints a line that a program wrote.
    fn quote(&self, line: &str) {
        println!("     {}", self.paint("2", line));
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}
