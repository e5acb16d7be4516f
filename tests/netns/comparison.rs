//! mldproxy as the NDP proxy, beside the two that Debian has, alone and each with mldproxy to join
//! for it.

use std::net::UdpSocket;
use std::thread;
use std::time::{Duration, Instant};

use protocol::wire::{Message, NeighborAdvertisement, NeighborSolicitation, parse};

use crate::lab::{Frame, LAN_HOST, Lab, OUTSIDE, Process, Tap, UPSTREAM, eventually};
use crate::support::{SOON, anonymous_memory, expect_among_joined, start, start_proxying, status};

crate::tests![;
    every_packet_arrives_and_every_unicast_probe_is_answered
        needs [("ndppd", "ndppd"), ("npd6", "npd6")],
];

const PACKETS: u16 = 450;
const INTERVAL: Duration = Duration::from_millis(100);
/// Longer than the 3 s after which the gateway stops soliciting and drops the packets that wait.
const PATIENCE: Duration = Duration::from_millis(3500);
/// How long the gateway takes an answer for granted. Its kernel takes between half and one and a
/// half times as much.
const REACHABLE_TIME: &str = "4000";
const PORT: u16 = 7777;
/// The options as a user would set them.
const OPTIONS: &[&str] = &["--learn", "both", "--log-level", "info"];

/// A setup of programs on the router.
#[derive(Clone, Copy)]
struct Setup {
    name: &'static str,
    start: fn(&Lab) -> Vec<Process>,
}

const SETUPS: [Setup; 5] = [
    Setup {
        name: "mldproxy --ndp-proxy",
        start: |lab| vec![start_proxying(lab, OPTIONS)],
    },
    Setup {
        name: "ndppd",
        start: |lab| vec![lab.start_ndppd()],
    },
    Setup {
        name: "ndppd + mldproxy",
        start: |lab| vec![lab.start_ndppd(), start_joining(lab)],
    },
    Setup {
        name: "npd6",
        start: |lab| vec![lab.start_npd6()],
    },
    Setup {
        name: "npd6 + mldproxy",
        start: |lab| vec![lab.start_npd6(), start_joining(lab)],
    },
];

/// mldproxy beside another NDP proxy.
fn start_joining(lab: &Lab) -> Process {
    let mldproxy = start(lab, OPTIONS);
    lab.lan_host_speaks();
    expect_among_joined(lab, &[LAN_HOST]);
    mldproxy
}

fn every_packet_arrives_and_every_unicast_probe_is_answered() {
    let outcomes = thread::scope(|scope| {
        let runs = SETUPS.map(|setup| scope.spawn(move || run(setup)));
        runs.map(|run| run.join().expect("its panic is above"))
    });
    print_table(&outcomes);
    let [ours, ..] = outcomes;
    assert_eq!(ours.received, PACKETS);
    assert!(ours.unicast.sent > 0, "the gateway never probed");
    assert_eq!(ours.unicast.answered, ours.unicast.sent);
}

/// The results of one setup.
struct Outcome {
    name: &'static str,
    received: u16,
    /// The time from the first packet sent to the last that arrived.
    last_arrival: Duration,
    unicast: Solicitations,
    multicast: Solicitations,
    /// The costs of each program, in the order of the setup's name.
    costs: Vec<Cost>,
}

/// The gateway's unicast solicitations of the LAN's host.
#[derive(Default)]
struct Solicitations {
    sent: u32,
    /// Those that were answered before the gateway sent the next.
    answered: u32,
}

struct Cost {
    /// Resident memory in kB, with the pages of the program's file.
    memory: u64,
    /// Resident memory in kB that the program shares with no file.
    own_memory: u64,
    wakeups_per_second: f64,
}

fn run(setup: Setup) -> Outcome {
    let lab = Lab::without_querier();
    lab.gw
        .sysctl("net.ipv6.neigh.eth0.base_reachable_time_ms", REACHABLE_TIME);
    let programs = (setup.start)(&lab);
    warm_up_then_snoop(&lab);

    let wakeups = |program| status(program, "voluntary_ctxt_switches:");
    let before: Vec<_> = programs.iter().map(wakeups).collect();
    let start = Instant::now();
    let traffic = send(&lab);
    let seconds = start.elapsed().as_secs_f64();
    for program in &programs {
        assert!(program.is_running(), "{}: {}", setup.name, program.log());
    }
    let costs = programs.iter().zip(before).map(|(program, before)| Cost {
        memory: status(program, "VmRSS:"),
        own_memory: anonymous_memory(program),
        wakeups_per_second: (wakeups(program) - before) as f64 / seconds,
    });
    Outcome {
        name: setup.name,
        received: traffic.received,
        last_arrival: traffic.last_arrival,
        unicast: traffic.unicast,
        multicast: traffic.multicast,
        costs: costs.collect(),
    }
}

/// The gateway finds the host while the switch floods, when any of the proxies works. Then the
/// switch starts to snoop, which takes a while. So the gateway's entry is declared fresh, and each
/// run starts with a host that is reachable until its ReachableTime ends.
fn warm_up_then_snoop(lab: &Lab) {
    let warm_up = lab.gw.ping(OUTSIDE, LAN_HOST, 5);
    assert!(warm_up.received > 0, "{warm_up:?}");
    lab.start_querier();
    eventually("the switch knows what the router joined", SOON, || {
        lab.mdb().is_superset(&lab.rtr.joined(UPSTREAM))
    });
    let entry = lab.gw.run(&format!("ip -6 neigh show {LAN_HOST} dev eth0"));
    let mut words = entry.split_whitespace();
    words.find(|word| *word == "lladdr");
    let mac = words.next().expect("the gateway has found the host");
    // The ReachableTime starts anew only when the state changes.
    lab.gw.run(&format!(
        "ip -6 neigh change {LAN_HOST} lladdr {mac} dev eth0 nud stale
         ip -6 neigh change {LAN_HOST} lladdr {mac} dev eth0 nud reachable"
    ));
}

/// What the traffic of one run showed.
#[derive(Default)]
struct Traffic {
    arrived: Vec<u16>,
    received: u16,
    last_arrival: Duration,
    unicast: Solicitations,
    multicast: Solicitations,
    /// Was the last solicitation multicast? `None` once somebody has answered it.
    unanswered: Option<bool>,
}

/// Sends all packets, and watches arrivals and the gateway's wire meanwhile.
fn send(lab: &Lab) -> Traffic {
    let bind = |namespace: &crate::lab::Namespace, address| {
        let socket = namespace.within(|| UdpSocket::bind((address, PORT)));
        let socket = socket.expect("a port of its own");
        socket.set_nonblocking(true).expect("a socket");
        socket
    };
    let sender = bind(&lab.gw, OUTSIDE);
    let receiver = bind(&lab.lan, LAN_HOST);
    let tap = Tap::open(&lab.gw, "eth0");
    let mut traffic = Traffic::default();
    let start = Instant::now();
    let mut look_until = |end: Instant| {
        while let Some(frame) = tap.receive(end.saturating_duration_since(Instant::now())) {
            traffic.see(&tap, &frame);
        }
        let mut number = [0; 2];
        while let Ok(2) = receiver.recv(&mut number) {
            traffic.arrive(u16::from_be_bytes(number), start.elapsed());
        }
    };
    for number in 0..PACKETS {
        // A packet that cannot be sent counts as lost.
        let _ = sender.send_to(&number.to_be_bytes(), (LAN_HOST, PORT));
        look_until(start + INTERVAL * u32::from(number + 1));
    }
    look_until(Instant::now() + PATIENCE);
    traffic
}

impl Traffic {
    fn arrive(&mut self, number: u16, time: Duration) {
        if !self.arrived.contains(&number) {
            self.arrived.push(number);
            self.received += 1;
            self.last_arrival = time;
        }
    }

    fn see(&mut self, gateway: &Tap, frame: &Frame) {
        let sent = frame.source == gateway.mac();
        match parse(&frame.packet) {
            Ok(Message::NeighborSolicitation(NeighborSolicitation {
                target: LAN_HOST,
                destination,
                ..
            })) if sent => {
                let multicast = destination.is_multicast();
                self.of(multicast).sent += 1;
                self.unanswered = Some(multicast);
            }
            Ok(Message::NeighborAdvertisement(NeighborAdvertisement {
                target: LAN_HOST, ..
            })) if !sent => {
                if let Some(multicast) = self.unanswered.take() {
                    self.of(multicast).answered += 1;
                }
            }
            _ => {}
        }
    }

    fn of(&mut self, multicast: bool) -> &mut Solicitations {
        if multicast {
            &mut self.multicast
        } else {
            &mut self.unicast
        }
    }
}

/// Prints the table in one write, since other tests print too.
fn print_table(outcomes: &[Outcome]) {
    let mut table = format!(
        "\n{PACKETS} packets, 10 a second, from beyond a gateway whose switch snoops to a host of \
         the LAN; the gateway's ReachableTime is 4 s.\nmldproxy as the tests build it.\n\n\
         | {:20} | arrived | last after | unicast NS answered | multicast NS answered \
         |     RSS, kB | its own, kB | wake-ups a second |\n\
         |----------------------|---------|------------|---------------------\
         |-----------------------|-------------|-------------|-------------------|\n",
        "on the router"
    );
    for outcome in outcomes {
        let Outcome {
            name,
            received,
            last_arrival,
            unicast,
            multicast,
            costs,
        } = outcome;
        let of = |asked: &Solicitations| format!("{} of {}", asked.answered, asked.sent);
        let each = |cost: &dyn Fn(&Cost) -> String| {
            let costs: Vec<_> = costs.iter().map(cost).collect();
            costs.join(" + ")
        };
        table += &format!(
            "| {name:20} | {received:7} | {:8.1} s | {:>19} | {:>21} | {:>11} | {:>11} \
             | {:>17} |\n",
            last_arrival.as_secs_f64(),
            of(unicast),
            of(multicast),
            each(&|cost| cost.memory.to_string()),
            each(&|cost| cost.own_memory.to_string()),
            each(&|cost| format!("{:.1}", cost.wakeups_per_second)),
        );
    }
    println!("{table}");
}
