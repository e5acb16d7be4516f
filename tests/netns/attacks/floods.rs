//! Floods that would use up what others need: questions, joins and turns.

use std::net::Ipv6Addr;
use std::thread;
use std::time::{Duration, Instant};

use protocol::wire::{ALL_MLDV2_ROUTERS, Message, RecordType, parse};

use super::{GENEROUS, LAN, UNASKED, add_unspoken, beside, expect_groups, pass, report, silence};
use crate::both_ways::home::{Home, Machine, free, solicitation as parse_solicitation};
use crate::lab::{Lab, LabOptions, Process, Tap, UPSTREAM, eventually, poll_for, solicited_node};
use crate::support::{Host, SOON, address, missing_of, proxied, querier, solicitation, start};

crate::tests![
    a_host_that_takes_a_hundred_addresses_a_second_delays_nobody_and_costs_few_reports,
    solicitations_upstream_in_the_group_of_a_listener_delay_no_host,
    a_new_host_is_asked_in_its_turn_beside_a_thousand_made_up_addresses,
    a_host_that_was_heard_is_asked_before_those_that_the_kernel_remembers,
];

/// Does `work` while `flood` is called every `pause`, with a number that counts up.
fn during_flood<T>(
    pause: Duration,
    mut flood: impl FnMut(u32) + Send,
    work: impl FnOnce() -> T,
) -> T {
    let (start, mut number) = (Instant::now(), 0);
    let turn = || {
        flood(number);
        number += 1;
        let next = start + pause * number;
        thread::sleep(next.saturating_duration_since(Instant::now()));
    };
    beside(turn, work)
}

/// A host that answers queries, and that answers for its first address. So it counts as one that
/// answers, while all its further addresses make room for each other.
struct Greedy {
    host: Host,
    link_local: Ipv6Addr,
}

impl Greedy {
    fn address(number: u32) -> Ipv6Addr {
        let [_, high, middle, low] = number.to_be_bytes();
        let last = u16::from_be_bytes([middle, low]);
        Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0x6600 + u16::from(high), last)
    }

    /// Takes one more address, and answers what came since the last one.
    fn act(&self, number: u32) {
        let first = Self::address(0);
        self.host.advertises(Self::address(number));
        while let Some(frame) = self.host.tap.receive(Duration::from_micros(1)) {
            if frame.source == self.host.mac {
                continue;
            }
            if let Some(asked) = parse_solicitation(&frame)
                && asked.target == first
                && !asked.source.is_unspecified()
            {
                self.host.answers(asked.target, asked.source);
            }
            if let Ok(Message::Query(_)) = parse(&frame.packet) {
                let group = [solicited_node(first)];
                let packet = report(self.link_local, RecordType::ModeIsExclude, group);
                self.host.send(ALL_MLDV2_ROUTERS, packet);
            }
        }
    }
}

fn a_host_that_takes_a_hundred_addresses_a_second_delays_nobody_and_costs_few_reports() {
    const BURST: Duration = Duration::from_secs(5);
    const MEASURED: Duration = Duration::from_secs(10);
    const MOST_A_SECOND: usize = 40;
    let lab = Lab::with(&LabOptions {
        mld_version: 1,
        ..LabOptions::default()
    });
    let mldproxy = start(
        &lab,
        &["--ndp-proxy", "--learn", "both", "--log-level", "info"],
    );
    querier(&lab, true);
    mldproxy.wait_for_line("MLDv1 is in force upstream", SOON);
    let greedy = Greedy {
        host: Host::apart(&lab.lan, 1),
        link_local: Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0x77, 1),
    };
    greedy.host.solicits_from(greedy.link_local);
    let router = Tap::open(&lab.rtr, UPSTREAM).mac();
    let wire = Tap::open(&lab.sw, "rtr");
    during_flood(
        Duration::from_millis(10),
        |number| greedy.act(number),
        || {
            unasked_reports(&wire, router, BURST);
            // The LAN's own host gets twenty addresses, and speaks once from each.
            let addresses: Vec<_> = (1..=20).map(address).collect();
            let neighbor = Host::on(&lab.lan);
            for address in &addresses {
                lab.lan
                    .run(&format!("ip addr add {address}/64 dev eth0 nodad"));
                neighbor.advertises(*address);
            }
            let served = poll_for(GENEROUS, || {
                let entries = proxied(&lab);
                let all = addresses.iter().all(|address| entries.contains(address));
                (all && missing_of(&lab, &addresses).is_empty()).then_some(())
            });
            let missing = missing_of(&lab, &addresses).len();
            assert!(served.is_some(), "{missing} missing\n{}", mldproxy.log());
            // What passed meanwhile does not count.
            while wire.receive(Duration::ZERO).is_some() {}
            let reports = unasked_reports(&wire, router, MEASURED);
            let most = MOST_A_SECOND * MEASURED.as_secs() as usize;
            assert!(reports < most, "{reports} in {MEASURED:?}");
            let entries = proxied(&lab);
            assert!(addresses.iter().all(|address| entries.contains(address)));
        },
    );
}

/// How many MLD messages the router sends within `time`, without those by which it answers a
/// General Query.
fn unasked_reports(wire: &Tap, router: [u8; 6], time: Duration) -> usize {
    /// Longer than the response delay of the lab's querier.
    const ANSWERED: Duration = Duration::from_millis(500);
    let end = Instant::now() + time;
    let (mut count, mut answered) = (0, Instant::now());
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        let Some(frame) = wire.receive(left) else {
            break;
        };
        match parse(&frame.packet) {
            Ok(Message::Query(query)) if query.group.is_unspecified() => {
                answered = Instant::now() + ANSWERED;
            }
            Ok(Message::ReportV1(_) | Message::ReportV2(_) | Message::Done(_))
                if frame.source == router && answered < Instant::now() =>
            {
                count += 1;
            }
            _ => {}
        }
    }
    count
}

/// All the targets are in the solicited-node group of a host that mldproxy knows by MLD alone. So
/// each might be that host's address.
fn solicitations_upstream_in_the_group_of_a_listener_delay_no_host() {
    const TARGETS: u16 = 12;
    let home = Home::new(2);
    let mldproxy = home.start(&["--log-level", "info"]);
    let [listener, seeker] = &home.lans[0][..] else {
        panic!("two hosts")
    };
    let listened = add_unspoken(listener, [1]);
    silence(listener);
    expect_groups(&home, &listened);
    let looked_for = add_unspoken(&home.pc, 0x100..0x100 + TARGETS);
    eventually("the switch knows the PC's groups", SOON, || {
        let groups = home.lab.sw.mdb("br0", "pc");
        let is_known = |address: &Ipv6Addr| groups.contains(&solicited_node(*address));
        looked_for.iter().all(is_known)
    });
    let neighbor = Host::apart(&home.pc.namespace, 1);
    let flood = |number: u32| {
        let [_, a, b, c] = number.to_be_bytes();
        let upper = [u16::from(a), u16::from_be_bytes([b, c])];
        let [.., last] = free(1).segments();
        let target = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, upper[0], upper[1], 0xff0f, last);
        let mac = [2, 0, 0, 0, 0x99, c % 16];
        let source = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0x99, u16::from(c % 16));
        let _ = neighbor.tap.try_send(&solicitation(mac, source, target));
    };
    during_flood(Duration::from_millis(2), flood, || {
        // The flood has used up what there is to use up.
        pass(&home, Duration::from_secs(3));
        let unfound: Vec<_> = thread::scope(|scope| {
            let searches = looked_for.iter().map(|target| {
                let found = || seeker.namespace.reaches(*target, Duration::from_secs(10));
                (target, scope.spawn(found))
            });
            let searches: Vec<_> = searches.collect();
            let ended = searches.into_iter().map(|(target, search)| {
                let found = search.join().expect("its panic is above");
                (target, found)
            });
            let unfound = ended.filter(|(_, found)| !found);
            unfound.map(|(target, _)| *target).collect()
        });
        assert!(unfound.is_empty(), "{unfound:?}\n{}", mldproxy.log());
    });
}

/// Each of a few link-layer addresses names as many addresses as it may, and answers for none. The
/// questions for all of them would take minutes.
fn a_new_host_is_asked_in_its_turn_beside_a_thousand_made_up_addresses() {
    const LIARS: u8 = 16;
    const OF_EACH: u16 = 60;
    let home = Home::new(2);
    let mldproxy = home.start(&["--log-level", "info"]);
    let [machine, newcomer] = &home.lans[0][..] else {
        panic!("two hosts")
    };
    home.confirm(newcomer);
    // What a host says soon after a question to it counts as its answer.
    pass(&home, UNASKED);
    for liar in 0..LIARS {
        let host = Host::apart(&machine.namespace, liar);
        for number in 1..=OF_EACH {
            host.advertises(address(u16::from(liar) * 0x100 + number));
        }
    }
    // mldproxy reads packets in order, so it knows all of them.
    let last = add_unspoken(machine, [1]);
    Host::on(&machine.namespace).advertises(last[0]);
    eventually("all are known", SOON, || {
        let status = home.lab.rtr.status("--json --limit 5000");
        status.contains(&format!("\"address\":\"{}\"", last[0]))
    });
    expect_served_soon(&home, &mldproxy, newcomer);
}

/// When mldproxy starts, the kernel's neighbor table names hosts that are gone. Each has a
/// link-layer address of its own.
fn a_host_that_was_heard_is_asked_before_those_that_the_kernel_remembers() {
    const GONE: u16 = 300;
    let home = Home::new(2);
    let gone = (1..=GONE).map(|number| {
        let (address, [high, low]) = (address(number), number.to_be_bytes());
        let mac = format!("02:00:00:66:{high:02x}:{low:02x}");
        format!("neigh replace {address} lladdr {mac} nud stale extern_learn dev {LAN}")
    });
    home.lab.rtr.batch(&gone.collect::<Vec<_>>().join("\n"));
    let mldproxy = home.start(&["--log-level", "info"]);
    eventually("all are known", SOON, || {
        let status = home.lab.rtr.status("--json --limit 5000");
        let is_known = |number| {
            let entry = format!("\"address\":\"{}\"", address(number));
            status.contains(&entry)
        };
        (1..=GONE).all(is_known)
    });
    expect_served_soon(&home, &mldproxy, &home.lans[0][1]);
}

/// Waits until the router has all for three addresses from which a host speaks once.
#[track_caller]
fn expect_served_soon(home: &Home, mldproxy: &Process, newcomer: &Machine) {
    const SOON_ENOUGH: Duration = Duration::from_secs(10);
    for new in add_unspoken(newcomer, 2..=4) {
        Host::on(&newcomer.namespace).advertises(new);
        let served = poll_for(SOON_ENOUGH, || {
            let is_routed = home.routed_to(new).as_deref() == Some(LAN);
            (is_routed && proxied(&home.lab).contains(&new)).then_some(())
        });
        assert!(served.is_some(), "{new}\n{}", mldproxy.log());
    }
}
