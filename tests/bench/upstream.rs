//! The cost of a solicitation upstream for a host in the LAN, beside that in the NDP proxies in
//! Debian.

use std::net::Ipv6Addr;

use nix::unistd::Pid;

use crate::lab::{self, Frame, Lab, Process, Tap, find_tool};
use crate::measure::{Place, cpu, median, packets, pin};
use crate::support::{
    Host, SOON, UNLIMITED, address, anonymous_memory, solicitation, start, status,
};
use crate::throughput::{FRAMES, HOSTS, send_all};

const ROUNDS: usize = 3;

/// The name of an NDP proxy, and the function that starts it.
pub type NdpProxy = (&'static str, fn(&Lab) -> Process);

pub const NDP_PROXIES: [NdpProxy; 3] = [
    ("mldproxy --ndp-proxy", |lab| {
        let options = ["--ndp-proxy", "--learn", "both", "--log-level", "info"];
        start(lab, &[&options[..], UNLIMITED].concat())
    }),
    ("ndppd", Lab::start_ndppd),
    ("npd6", Lab::start_npd6),
];

/// The NDP proxies that are installed.
pub fn ndp_proxies() -> impl Iterator<Item = NdpProxy> {
    let is_there = |(name, _): &NdpProxy| name.starts_with("mldproxy") || find_tool(name).is_some();
    NDP_PROXIES.into_iter().filter(is_there)
}

/// The cost and the result of a run.
struct Outcome {
    /// The nanoseconds of CPU for each frame that was sent.
    each: f64,
    /// The frames that were answered, in percent of those sent.
    answered: f64,
    /// VmRSS in kB, before the gateway solicited any host and after it solicited all.
    memory: [u64; 2],
    /// RssAnon in kB, at the same times.
    own_memory: [u64; 2],
}

pub fn section() -> String {
    pin(Pid::from_raw(0), &Place::Sender);
    let mut rows = String::new();
    let round = || ndp_proxies().map(|(_, start)| run(start)).collect();
    let rounds: Vec<Vec<Outcome>> = (0..ROUNDS).map(|_| round()).collect();
    for (column, (name, _)) in ndp_proxies().enumerate() {
        let of = |figure: fn(&Outcome) -> f64| {
            let figures = rounds.iter().map(|round| figure(&round[column]));
            median(&figures.collect::<Vec<_>>())
        };
        rows += &format!(
            "| {name} | {:.0} ns | {:.0} ns | {:.0} % | {:.0} kB, {:.0} kB \
             | {:.0} kB, {:.0} kB |\n",
            of(|outcome| outcome.each),
            of(|outcome| outcome.each * 100.0 / outcome.answered),
            of(|outcome| outcome.answered),
            of(|outcome| outcome.memory[0] as f64),
            of(|outcome| outcome.own_memory[0] as f64),
            of(|outcome| outcome.memory[1] as f64),
            of(|outcome| outcome.own_memory[1] as f64),
        );
    }
    format!(
        "## A million solicitations upstream, beside other NDP proxies\n\n\
         The gateway looks for {HOSTS} hosts of the LAN, {FRAMES} times in all, as fast as one \
         CPU can; another CPU receives. All are addresses of one Linux host there, which each \
         proxy has found before. CPU is that of the process, user and system, for each frame \
         sent, and for each that was answered. Of mldproxy the kernel answers, which is in \
         nobody's CPU here; its own is that it hears each of them too, to know of who is looked \
         for and is not there. ndppd asks a host again 30 s after its last answer; npd6 answers \
         for a whole prefix and asks nobody. Answered are the advertisements that reach the \
         gateway; what is not answered was lost on its way, most of it where a proxy's socket had \
         no room, and cost that proxy little. Memory is all of it (VmRSS) and that of its own \
         (RssAnon). {ROUNDS} rounds, each of them in turn; medians.\n\n\
         | | CPU a frame sent | CPU an answer | answered | memory at the start \
         | memory, {HOSTS} hosts |\n\
         |---|---|---|---|---|---|\n{rows}\n"
    )
}

fn run(start: fn(&Lab) -> Process) -> Outcome {
    let lab = Lab::without_querier();
    let targets: Vec<_> = (1..=HOSTS).map(address).collect();
    let addresses = targets
        .iter()
        .map(|target| format!("addr add {target}/128 dev eth0 nodad"));
    lab.lan.batch(&addresses.collect::<Vec<_>>().join("\n"));
    let proxy = start(&lab);
    let memory_before = memory(&proxy);
    let gateway = Tap::open(&lab.gw, "eth0");
    let frames: Vec<_> = targets
        .iter()
        .map(|target| solicitation(gateway.mac(), lab::GATEWAY, *target))
        .collect();
    find_hosts(&lab, &gateway, &frames, &targets);
    pin(proxy.pid(), &Place::Receiver);
    let before = (received(&lab), cpu(&proxy));
    send_all(&gateway, &frames);
    let after = (received(&lab), cpu(&proxy));
    assert!(proxy.is_running(), "{}", proxy.log());
    let memory_after = memory(&proxy);
    Outcome {
        each: (after.1 - before.1) as f64 / FRAMES as f64,
        answered: (after.0 - before.0) as f64 * 100.0 / FRAMES as f64,
        memory: [memory_before.0, memory_after.0],
        own_memory: [memory_before.1, memory_after.1],
    }
}

/// VmRSS and RssAnon, in kB.
fn memory(proxy: &Process) -> (u64, u64) {
    (status(proxy, "VmRSS:"), anonymous_memory(proxy))
}

/// Makes the hosts send, and the gateway solicit each host until it was answered.
fn find_hosts(lab: &Lab, gateway: &Tap, frames: &[Frame], targets: &[Ipv6Addr]) {
    let host = Host::on(&lab.lan);
    for (frames, targets) in frames.chunks(50).zip(targets.chunks(50)) {
        lab::eventually("the gateway gets all answers", SOON, || {
            targets
                .iter()
                .for_each(|target| host.solicits_from(*target));
            let before = received(lab);
            frames.iter().for_each(|frame| gateway.send(frame));
            let answered = || received(lab) - before >= frames.len() as u64;
            lab::poll_for(std::time::Duration::from_millis(200), || {
                answered().then_some(())
            })
            .is_some()
        });
    }
}

fn received(lab: &Lab) -> u64 {
    packets(&lab.gw, "eth0", "RX:")
}
