//! `cargo demo`: what mldproxy is for, shown on one machine, in a network of namespaces that only the demo sees.

#[path = "netns/lab.rs"]
mod lab;

use std::env;
use std::io::{self, IsTerminal};
use std::panic;
use std::process::{Command, ExitCode};
use std::thread;
use std::time::{Duration, Instant};

use lab::{
    DOWNSTREAM, Frame, LAN_HOST, Lab, OUTSIDE, Process, ROUTER, TOOLS, Tap, UPSTREAM, isolate,
    missing_tools, poll_for, solicited_node,
};
use nix::sys::signal::Signal;
use protocol::wire::{MacAddress, Message, NeighborAdvertisement, parse};

const HELP: &str = "\
Usage: cargo demo [--responder]

Builds a small network on this machine (gateway, switch with MLD snooping, router, LAN), shows that the
gateway does not reach the LAN, starts mldproxy on the router, and shows that now it does. Takes about 10
seconds, and needs root or user namespaces. The network is private to the demo and ends with it.

  --responder  answer the gateway's Neighbor Solicitations from within the demo, also where ndppd is installed
  --help       show this";

const PROBLEM: &str = "
The provider gives one IPv6 prefix and takes every host to be on its own link. Its gateway looks for a
host by multicast, which a switch that snoops MLD hands only to ports that asked for it. The router in
between never asked. So the gateway does not find the host, though the router would answer for it.";

const NETWORK: &str = "
     gateway             switch                    router                  host
     ┌──────┐         ┌───────────┐         ┌─────────────────┐          ┌──────┐
     │  gw  ├─────────┤    sw     ├─────────┤ wan rtr  br-lan ├──────────┤ lan  │
     └──────┘         └───────────┘         └─────────────────┘          └──────┘
     2001:db8:1::1    MLD snooping:         NDP proxy, mldproxy          2001:db8:1::1:10
                      multicast only to
                      ports that asked
     └─────────────── 2001:db8:1::/64 is on both sides of the router ─────────────────┘
";

/// How often each ping asks.
const PINGS: u32 = 5;

fn main() -> ExitCode {
    let mut responder = false;
    for argument in env::args().skip(1) {
        match argument.as_str() {
            "--responder" => responder = true,
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
    // A command of the lab that fails says so by a panic.
    panic::set_hook(Box::new(|panic| eprintln!("{panic}")));
    let begin = Instant::now();
    let mut screen = Screen::default();
    match panic::catch_unwind(move || demonstrate(&mut screen, responder)) {
        Ok(Ok(())) => {
            let seconds = begin.elapsed().as_secs_f32();
            println!(
                "\nEverything was as expected, in {seconds:.0} s. Nothing of it stays on this machine."
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

fn demonstrate(screen: &mut Screen, responder: bool) -> Result<(), String> {
    println!("{PROBLEM}");

    screen.step("The tools");
    let missing = missing_tools(TOOLS);
    if !missing.is_empty() {
        return Err(missing.join("\n"));
    }
    let responder = responder || !missing_tools(&[("ndppd", "ndppd")]).is_empty();
    screen.say("ip, bridge, ping and setpriv are here.");

    screen.step("A network of its own, which nothing else on this machine sees");
    isolate()?;
    let lab = Lab::new();
    println!("{NETWORK}");

    screen.step("An NDP proxy on the router");
    let _ndppd = if responder {
        answer_for_lan_host(&lab);
        screen.say("A responder within this demo (not ndppd) answers, on wan, the gateway's");
        screen.say("Neighbor Solicitations for the host.");
        None
    } else {
        screen.say("ndppd answers, on wan, the gateway's Neighbor Solicitations for the host.");
        Some(lab.start_ndppd())
    };

    let group = solicited_node(LAN_HOST);
    screen.step("Without mldproxy the gateway does not reach the host");
    expect_ping(screen, &lab, 0)?;
    screen.say(&format!(
        "The Neighbor Solicitation for {LAN_HOST} goes to {group}."
    ));
    screen.say("Nobody on the router's port asked for this group, so the switch holds it back,");
    screen.say("and the NDP proxy has nothing to answer:");
    expect_group(screen, &lab, false)?;

    let arguments = ["run", "--log-level", "debug", UPSTREAM, DOWNSTREAM];
    screen.step(&format!(
        "Start on the router: mldproxy {}",
        arguments.join(" ")
    ));
    let mut mldproxy = Daemon::start(&lab, &arguments);
    let result = with_mldproxy(screen, &lab, &mut mldproxy);
    result.map_err(|failure| format!("{failure}\nmldproxy's log:\n{}", mldproxy.process.log()))
}

fn with_mldproxy(screen: &mut Screen, lab: &Lab, mldproxy: &mut Daemon) -> Result<(), String> {
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

/// Pings the LAN's host from the gateway, which has to solicit it first.
fn expect_ping(screen: &Screen, lab: &Lab, received: u32) -> Result<(), String> {
    lab.gw.flush_neighbors();
    let ping = lab.gw.ping(OUTSIDE, LAN_HOST, PINGS);
    let seen = format!("gw: ping {LAN_HOST}: {}", ping.statistics);
    if ping.received != received {
        return Err(format!(
            "expected {received} of {PINGS} pings answered, saw: {seen}"
        ));
    }
    screen.see(&seen);
    Ok(())
}

/// Looks the host's group up in the switch's multicast database.
fn expect_group(screen: &Screen, lab: &Lab, present: bool) -> Result<(), String> {
    let group = solicited_node(LAN_HOST).to_string();
    let lines = lab.mdb_lines();
    let line = lines
        .iter()
        .find(|line| line.split(' ').any(|word| word == group));
    match line {
        Some(line) if present => screen.see(&format!("sw: bridge mdb show: {line}")),
        None if !present => screen.see(&format!("sw: bridge mdb show: no {group} on port rtr")),
        _ => {
            let expected = if present { "" } else { "no " };
            let seen = lines.join("\n");
            return Err(format!(
                "expected {expected}{group} in the switch's MDB, saw:\n{seen}"
            ));
        }
    }
    Ok(())
}

fn in_mdb(lab: &Lab) -> bool {
    lab.mdb().contains(&solicited_node(LAN_HOST))
}

/// An NDP proxy of the smallest size: answers each Neighbor Solicitation for the LAN's host that the router's upstream
/// hears. It is not a kernel proxy entry, since that would join the group by itself.
fn answer_for_lan_host(lab: &Lab) {
    let tap = Tap::open(&lab.rtr, UPSTREAM);
    thread::spawn(move || {
        loop {
            let Some(frame) = tap.receive(Duration::from_secs(60)) else {
                continue;
            };
            let Ok(Message::NeighborSolicitation(solicitation)) = parse(&frame.packet) else {
                continue;
            };
            if solicitation.target != LAN_HOST || solicitation.source.is_unspecified() {
                continue;
            }
            let advertisement = NeighborAdvertisement {
                source: ROUTER,
                destination: solicitation.source,
                target: solicitation.target,
                router: true,
                solicited: true,
                // RFC 4861 §7.2.8: a proxy's advertisement gives way to the host's own.
                override_flag: false,
                target_link_layer: Some(MacAddress(tap.mac())),
            };
            let mut packet = vec![0; 72];
            let length = advertisement
                .emit(&mut packet)
                .expect("72 octets are enough");
            packet.truncate(length);
            tap.send(&Frame {
                source: tap.mac(),
                destination: frame.source,
                packet,
            });
        }
    });
}

/// mldproxy, and how much of its log was shown.
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

    /// What was expected and seen.
    fn see(&self, text: &str) {
        println!(" {} {text}", self.paint("32", "✓"));
    }

    /// What a program wrote.
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
