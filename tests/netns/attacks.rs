//! Attacks on who has an address, re-enacted, and the changes of real life that look like them.
//!
//! The network is that of [`Home`], where `br-lan2` is the guests' network. A victim is a host with
//! the kernel's NDP and MLD. It answers what reaches it. Thieves send frames by taps.

pub mod bridged;
pub mod claims;
pub mod floods;
pub mod life;
pub mod stall;

use std::net::Ipv6Addr;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use protocol::wire::{
    ALL_MLDV2_ROUTERS, MacAddress, Message, NeighborAdvertisement, RecordType, ReportBuilder, parse,
};

use crate::both_ways::home::{Home, Machine, free, solicitation};
use crate::lab::{
    Frame, LAN_ROUTER, Namespace, Process, Tap, UPSTREAM, eventually, poll_for, solicited_node,
};
use crate::support::{Host, SOON, proxied};

/// The router's bridges: that of the LAN, and that of the guests.
const LAN: &str = "br-lan";
const GUEST: &str = "br-lan2";

/// From one round of a thief's claims to the next.
const AGAIN: Duration = Duration::from_millis(500);
/// For how long a thief tries. That is several rounds of three questions, a second apart each.
const ATTACK: Duration = Duration::from_secs(12);
/// The deadline for what takes some seconds on an idle machine.
const GENEROUS: Duration = Duration::from_secs(30);

/// Longer than the time after a question in which what its host says counts as the answer.
const UNASKED: Duration = Duration::from_secs(6);

/// Polls for some time that `condition` holds each time.
///
/// # Panics
/// With `what` once it does not hold.
#[track_caller]
fn always(what: &str, time: Duration, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    let broken = poll_for(time, || (!condition()).then(|| start.elapsed()));
    assert!(broken.is_none(), "not after {broken:?}: {what}");
}

/// Does `work` while another thread takes one turn after the other.
fn beside<T>(mut turn: impl FnMut() + Send, work: impl FnOnce() -> T) -> T {
    /// Ends the thread, even if the work panics.
    struct EndOnDrop<'a>(&'a AtomicBool);
    impl Drop for EndOnDrop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let _end = EndOnDrop(&ended);
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                turn();
            }
        });
        work()
    })
}

/// How a thief claims an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claim {
    /// A solicitation with the address as its source.
    SolicitsFrom,
    /// A solicitation of duplicate address detection.
    DetectsDuplicates,
    /// An advertisement to all nodes.
    Advertises,
    /// An advertisement to the router, as if that had solicited it.
    Answers,
    /// An MLD report of the address's group.
    Listens,
    /// An MLD report that its sender has left the address's group.
    Leaves,
}

/// All claims by which a node says that it has an address.
const EVERY_CLAIM: [Claim; 5] = [
    Claim::SolicitsFrom,
    Claim::DetectsDuplicates,
    Claim::Advertises,
    Claim::Answers,
    Claim::Listens,
];

/// A node that wants what is another's.
struct Thief {
    host: Host,
    link_local: Ipv6Addr,
    /// The router's addresses on the thief's link.
    router: (Ipv6Addr, [u8; 6]),
    targets: Vec<Ipv6Addr>,
    claims: Vec<Claim>,
    /// Which questions for its targets the thief answers as their owner would.
    answers: Answers,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answers {
    /// Every one that it hears.
    All,
    /// Those to its own link-layer address.
    Unicast,
    None,
}

impl Thief {
    /// A thief at the place of a machine, which is behind `interface` of the router. It has a
    /// link-layer address of its own, claims in every way, and answers.
    fn at(home: &Home, machine: &Machine, interface: &str, targets: &[Ipv6Addr]) -> Self {
        Thief {
            host: Host::apart(&machine.namespace, 0xbd),
            link_local: Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xbad),
            router: router_on(home, interface),
            targets: targets.to_vec(),
            claims: EVERY_CLAIM.to_vec(),
            answers: Answers::All,
        }
    }

    /// As it is with the link-layer address of another node.
    fn posing_as(mut self, machine: &Machine) -> Self {
        self.host.mac = machine.tap().mac();
        self
    }

    fn claiming_by(mut self, claims: &[Claim]) -> Self {
        self.claims = claims.to_vec();
        self
    }

    fn answering(mut self, answers: Answers) -> Self {
        self.answers = answers;
        self
    }

    /// Does `work` while the thief claims its targets over and over, and answers questions.
    fn during<T>(&self, work: impl FnOnce() -> T) -> T {
        let turn = || {
            self.claim();
            let next = Instant::now() + AGAIN;
            let left = || next.saturating_duration_since(Instant::now());
            while let Some(frame) = self.host.tap.receive(left()) {
                self.answer(&frame);
            }
        };
        beside(turn, work)
    }

    /// Claims each target once in each way.
    fn claim(&self) {
        for target in &self.targets {
            for claim in &self.claims {
                match claim {
                    Claim::SolicitsFrom => self.host.solicits_from(*target),
                    Claim::DetectsDuplicates => self.host.probes_for_duplicates(*target),
                    Claim::Advertises => self.host.advertises(*target),
                    Claim::Answers => self.advertise_to(self.router, *target),
                    Claim::Listens => self.report(RecordType::ModeIsExclude),
                    Claim::Leaves => self.report(RecordType::ChangeToInclude),
                }
            }
        }
    }

    fn answer(&self, frame: &Frame) {
        let is_answered = match self.answers {
            Answers::All => true,
            Answers::Unicast => frame.destination == self.host.mac,
            Answers::None => false,
        };
        if !is_answered || frame.source == self.host.mac {
            return;
        }
        if let Some(asked) = solicitation(frame)
            && self.targets.contains(&asked.target)
            && !asked.source.is_unspecified()
        {
            self.advertise_to((asked.source, frame.source), asked.target);
        }
        if let Ok(Message::Query(_)) = parse(&frame.packet) {
            self.report(RecordType::ModeIsExclude);
        }
    }

    /// Sends a solicited advertisement for a target.
    fn advertise_to(&self, (destination, mac): (Ipv6Addr, [u8; 6]), target: Ipv6Addr) {
        let advertisement = NeighborAdvertisement {
            source: target,
            destination,
            target,
            router: false,
            solicited: true,
            override_flag: true,
            target_link_layer: Some(MacAddress(self.host.mac)),
        };
        let mut packet = vec![0; 128];
        let length = advertisement.emit(&mut packet).expect("the packet fits");
        packet.truncate(length);
        self.host.tap.send(&Frame {
            source: self.host.mac,
            destination: mac,
            packet,
        });
    }

    /// Reports the groups of all targets.
    fn report(&self, record_type: RecordType) {
        let groups = self.targets.iter().copied().map(solicited_node);
        self.host.send(
            ALL_MLDV2_ROUTERS,
            report(self.link_local, record_type, groups),
        );
    }
}

/// An MLDv2 report with one record for each group.
fn report(
    source: Ipv6Addr,
    record_type: RecordType,
    groups: impl IntoIterator<Item = Ipv6Addr>,
) -> Vec<u8> {
    let mut packet = vec![0; 1500];
    let mut report = ReportBuilder::new(&mut packet);
    for group in groups {
        assert!(report.push(record_type, group), "the record fits");
    }
    let length = report.finish(source).expect("the packet fits");
    packet.truncate(length);
    packet
}

/// The link-local and the link-layer address of the router on a link.
fn router_on(home: &Home, interface: &str) -> (Ipv6Addr, [u8; 6]) {
    let rtr = &home.lab.rtr;
    let mac = Tap::open(rtr, interface).mac();
    let link_local = if interface == UPSTREAM {
        rtr.link_local_of(UPSTREAM)
    } else {
        LAN_ROUTER
    };
    (link_local, mac)
}

/// Every change of the router's host routes, as its kernel tells of it.
struct Watch<'a> {
    router: &'a Namespace,
    monitor: Process,
}

impl<'a> Watch<'a> {
    fn start(home: &'a Home) -> Self {
        let router = &home.lab.rtr;
        let mut command = Command::new("ip");
        let monitor = router.spawn(command.args(["-6", "monitor", "route"]));
        let watch = Watch { router, monitor };
        watch.catch_up(1);
        watch
    }

    /// Waits until the monitor has told of all that has happened, by a route of the test's own.
    fn catch_up(&self, number: u8) {
        let witness = format!("3fff::{number}");
        eventually("the monitor tells of a route", SOON, || {
            self.router
                .run(&format!("ip -6 route replace {witness} dev lo"));
            self.router
                .run(&format!("ip -6 route del {witness} dev lo"));
            self.monitor.log().contains(&witness)
        });
    }

    /// Asserts that mldproxy's route to an address never was anywhere but on `interface`, and never
    /// was removed.
    #[track_caller]
    fn expect_only(&self, mldproxy: &Process, address: Ipv6Addr, interface: &str) {
        self.catch_up(2);
        let is_of_address = |line: &String| {
            let mut words = line.split_whitespace().filter(|word| *word != "Deleted");
            words.next() == Some(&address.to_string()) && line.contains("proto 77")
        };
        let lines = self.monitor.lines().into_iter().filter(is_of_address);
        let place = format!("dev {interface} ");
        let others: Vec<_> = lines
            .filter(|line| line.starts_with("Deleted") || !line.contains(&place))
            .collect();
        assert!(others.is_empty(), "{others:?}\n{}", mldproxy.log());
    }
}

/// What `mldproxy status` tells of the host that has an address, under a name.
fn status_of(home: &Home, address: Ipv6Addr, name: &str) -> Option<String> {
    let status = home.lab.rtr.status("--json --limit 1000");
    let (_, rest) = status.split_once(&format!("\"address\":\"{address}\",\"group\":"))?;
    let (_, rest) = rest.split_once(&format!("\"{name}\":\""))?;
    let (value, _) = rest.split_once('"')?;
    Some(value.to_owned())
}

/// The interface behind which the host is that has an address.
fn interface_of(home: &Home, address: Ipv6Addr) -> Option<String> {
    status_of(home, address, "interface")
}

/// The link-layer address of the host that has an address.
fn mac_of(home: &Home, address: Ipv6Addr) -> Option<String> {
    status_of(home, address, "mac")
}

/// Lets a time pass in which nothing is to happen.
fn pass(home: &Home, time: Duration) {
    let (end, wire) = (Instant::now() + time, home.upstream());
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        wire.receive(left);
    }
}

/// Has the router all that a host downstream needs: the entry, the route and the group?
fn is_served(home: &Home, address: Ipv6Addr, interface: &str) -> bool {
    proxied(&home.lab).contains(&address)
        && home.routed_to(address).as_deref() == Some(interface)
        && home
            .lab
            .rtr
            .joined(UPSTREAM)
            .contains(&solicited_node(address))
}

#[track_caller]
fn expect_served(home: &Home, mldproxy: &Process, address: Ipv6Addr, interface: &str) {
    let served = poll_for(GENEROUS, || {
        is_served(home, address, interface).then_some(())
    });
    assert!(
        served.is_some(),
        "{address} is at {:?}, not at {interface}\n{}",
        home.routed_to(address),
        mldproxy.log()
    );
}

/// From now on, the host says nothing of its own accord, but answers.
fn silence(machine: &Machine) {
    machine.namespace.run("ip -6 route flush dev eth0 default");
}

/// The machine's further addresses, without duplicate address detection. All that it says of them
/// is the MLD report of their groups.
fn add_unspoken(machine: &Machine, numbers: impl IntoIterator<Item = u16>) -> Vec<Ipv6Addr> {
    let addresses: Vec<_> = numbers.into_iter().map(free).collect();
    for address in &addresses {
        machine
            .namespace
            .run(&format!("ip addr add {address}/64 dev eth0 nodad"));
    }
    addresses
}

/// Waits until the router is a member upstream of the groups of these addresses.
#[track_caller]
fn expect_groups(home: &Home, addresses: &[Ipv6Addr]) {
    eventually("the groups are joined", SOON, || {
        let joined = home.lab.rtr.joined(UPSTREAM);
        addresses
            .iter()
            .all(|address| joined.contains(&solicited_node(*address)))
    });
}

/// The value of a counter.
fn counter(home: &Home, name: &str) -> u64 {
    let status = home.lab.rtr.status("--json --limit 0");
    let value = status.split_once(&format!("\"{name}\":"));
    let digits = value.map(|(_, rest)| rest.chars().take_while(char::is_ascii_digit));
    let digits: String = digits.expect("the counter").collect();
    digits.parse().expect("a number")
}
