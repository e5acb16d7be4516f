//! The kernel's multicast routing as the MLD proxy uses it, without the daemon: which packets an
//! entry forwards, and what outlives an interface or a process.

pub mod owners;
pub mod rules;

use std::net::Ipv6Addr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::thread;

use daemon::sys::mroute::{Mroute, NO_INTERFACE};
use daemon::sys::netlink::BUFFER_LENGTH;
use daemon::sys::netlink::siblings::Number;
use daemon::sys::netlink::streams::Stream;
use daemon::sys::netlink::tables::Tables;
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};
use nix::unistd::Pid;

use crate::lab::{Frame, Namespace, Tap, eventually, group_mac};
use crate::support::SOON;

crate::tests![
    packets_take_the_entry_that_the_kernel_prefers,
    an_entry_without_outgoing_interfaces_drops,
    an_entry_is_changed_and_removed,
    an_interface_that_is_deleted_takes_its_bit_along_until_entries_are_set_anew,
    a_number_goes_to_another_interface,
    an_interface_with_a_large_index_is_refused,
    the_kernel_tells_what_each_entry_counted,
    no_packet_waits_for_an_answer,
];

/// The numbers of the router's interfaces, and the bits of all of them.
const WAN: u8 = 0;
const LA: u8 = 1;
const LB: u8 = 2;
const ALL: u32 = bit(WAN) | bit(LA) | bit(LB);

const fn bit(number: u8) -> u32 {
    1 << number
}

/// The router's interfaces, each with the letter of the host behind it.
const INTERFACES: [(&str, char); 3] = [("wan", 'u'), ("la", 'a'), ("lb", 'b')];

const ANY: Ipv6Addr = Ipv6Addr::UNSPECIFIED;
const GROUP: Ipv6Addr = Ipv6Addr::new(0xff1e, 0, 0, 0, 0, 0, 0, 8);
const U: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x10);
const A: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xa, 0, 0, 0, 0, 0x10);
const B: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xb, 0, 0, 0, 0, 0x10);

/// A stream that each test packet is followed by. Its entry forwards everywhere.
const MARK_SOURCE: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1);
const MARK_GROUP: Ipv6Addr = Ipv6Addr::new(0xff1e, 0, 0, 0, 0, 0, 0, 0xffff);

/// A router with an upstream and two downstreams, and a host behind each.
struct Network {
    router: Namespace,
    hosts: [Namespace; 3],
    taps: [Tap; 3],
    /// Hears what the kernel asks the owner of the router's multicast routing.
    questions: OwnedFd,
}

impl Network {
    fn new() -> Self {
        let router = Namespace::new("router");
        let hosts = INTERFACES.map(|(_, host)| Namespace::new(&host.to_string()));
        router.sysctl("net.ipv6.conf.all.forwarding", "1");
        // Otherwise an interface of the router could have the number of its peer.
        router.add_bridge("unused", &Default::default());
        for ((name, _), host) in INTERFACES.iter().zip(&hosts) {
            connect(&router, name, host);
        }
        let taps = hosts.each_ref().map(|host| Tap::open(host, "eth0"));
        let questions = router.within(|| {
            let (family, kind) = (AddressFamily::Netlink, SockType::Raw);
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            let questions = socket(family, kind, flags, SockProtocol::NetlinkRoute).unwrap();
            let groups = 1 << (RTNLGRP_IPV6_MROUTE_R - 1);
            bind(questions.as_raw_fd(), &NetlinkAddr::new(0, groups)).unwrap();
            questions
        });
        Network {
            router,
            hosts,
            taps,
            questions,
        }
    }

    /// The owner of the router's default table, with all interfaces.
    fn mroute(&self) -> Mroute {
        let mut mroute = self.router.within(|| Mroute::open(None)).unwrap();
        for (number, (name, _)) in (0..).zip(INTERFACES) {
            mroute.add_interface(number, self.index(name)).unwrap();
        }
        mroute
    }

    fn index(&self, name: &str) -> u32 {
        self.router.within(|| if_nametoindex(name)).unwrap()
    }

    /// Sends a packet from the host behind an interface, and tells the hosts that get it, by their
    /// letters, or `?` if the kernel asks.
    fn send(&self, mroute: &Mroute, from: u8, source: Ipv6Addr, group: Ipv6Addr) -> String {
        mroute
            .set_entry(MARK_SOURCE, MARK_GROUP, from, ALL)
            .unwrap();
        let tap = &self.taps[usize::from(from)];
        let frames = [(source, group), (MARK_SOURCE, MARK_GROUP)].map(|(source, group)| Frame {
            source: tap.mac(),
            destination: group_mac(group),
            packet: packet(source, group, 8),
        });
        // What one processor sends over veth pairs arrives in order.
        thread::scope(|scope| {
            scope.spawn(|| {
                stay_on_one_processor();
                frames.iter().for_each(|frame| tap.send(frame));
            });
        });
        let forwarded = packet(source, group, 7);
        let mark = packet(MARK_SOURCE, MARK_GROUP, 7);
        let mut told = String::new();
        for ((_, letter), tap) in INTERFACES.iter().zip(&self.taps) {
            loop {
                let frame = tap.receive(SOON).expect("the mark arrives everywhere");
                if frame.packet == mark {
                    break;
                }
                if frame.packet == forwarded {
                    told.push(*letter);
                }
            }
        }
        told.extend(self.asked_about(group).then_some('?'));
        let mut letters: Vec<_> = told.chars().collect();
        letters.sort_unstable();
        letters.into_iter().collect()
    }

    /// Whether the kernel asked about a group since the last call.
    fn asked_about(&self, group: Ipv6Addr) -> bool {
        let (mut asked, mut message) = (false, [0; 4096]);
        let flags = MsgFlags::MSG_DONTWAIT;
        while let Ok(length) = recv(self.questions.as_raw_fd(), &mut message, flags) {
            let mut places = message[..length].windows(16);
            asked |= places.any(|octets| octets == group.octets());
        }
        asked
    }

    /// The entries of the router, one a line, but for that of the mark.
    fn entries(&self) -> Vec<String> {
        let mut entries = Vec::new();
        let tables = self.router.within(|| Tables::open(Number::default()));
        let mut note = |stream: Stream<'_>| {
            if stream.group == MARK_GROUP {
                return;
            }
            let name = |index| {
                let named = INTERFACES
                    .iter()
                    .find(|(name, _)| self.index(name) == index);
                named.map_or_else(|| index.to_string(), |(name, _)| (*name).to_owned())
            };
            let incoming = stream.incoming.map_or("-".to_owned(), name);
            let outgoing: Vec<_> = stream.outgoing.indexes().map(name).collect();
            entries.push(format!(
                "{} {} {} {incoming} > {}: {} packets, {} octets, {} wrong",
                stream.table,
                stream.source,
                stream.group,
                outgoing.join(" "),
                stream.packets,
                stream.octets,
                stream.wrong_interface,
            ));
            assert!(stream.idle.is_some_and(|idle| idle < 6000), "{stream:?}");
        };
        let listed = tables.and_then(|tables| {
            let mut buffer = vec![0; BUFFER_LENGTH];
            tables.for_each_stream(&mut buffer, &mut note)
        });
        listed.unwrap();
        entries.sort();
        entries
    }
}

/// linux/rtnetlink.h
const RTNLGRP_IPV6_MROUTE_R: u32 = 31;

/// Connects an interface of the router with a host.
fn connect(router: &Namespace, name: &str, host: &Namespace) {
    router.veth(name, host, "eth0");
    router.set_up(name);
    host.set_up("eth0");
    eventually("both ends are up", SOON, || {
        router.is_ready(name) && host.is_ready("eth0")
    });
}

/// A packet without next header (59), and with a payload of 8 octets.
fn packet(source: Ipv6Addr, group: Ipv6Addr, hop_limit: u8) -> Vec<u8> {
    let header = [0x60, 0, 0, 0, 0, 8, 59, hop_limit];
    [&header[..], &source.octets(), &group.octets(), &[0; 8]].concat()
}

fn stay_on_one_processor() {
    let this_thread = Pid::from_raw(0);
    let allowed = sched_getaffinity(this_thread).unwrap();
    let mut one = CpuSet::new();
    let first = (0..CpuSet::count()).find(|processor| allowed.is_set(*processor).unwrap());
    one.set(first.expect("a processor")).unwrap();
    sched_setaffinity(this_thread, &one).unwrap();
}

/// The number of the entry's incoming interface, and those that it forwards to.
type Entry = (Ipv6Addr, Ipv6Addr, u8, u32);

fn packets_take_the_entry_that_the_kernel_prefers() {
    let network = Network::new();
    let any_group = |parent| (ANY, ANY, parent, ALL);
    let any_source = |out| (ANY, GROUP, WAN, out);
    // What arrives at the hosts of a packet from `wan`, from `la` and from `lb`.
    let rows: &[(&[Entry], [&str; 3])] = &[
        (&[], ["?", "?", "?"]),
        (&[any_source(bit(LA))], ["?", "", "?"]),
        (&[any_source(bit(WAN) | bit(LA))], ["a", "", "?"]),
        (&[any_group(WAN)], ["", "u", "u"]),
        (&[any_group(WAN), any_source(bit(LA))], ["a", "", "a"]),
        (&[any_group(WAN), any_source(ALL)], ["ab", "bu", "au"]),
        (&[any_group(NO_INTERFACE)], ["", "", ""]),
        (
            &[any_group(NO_INTERFACE), any_source(bit(LA))],
            ["a", "", "a"],
        ),
        (
            &[
                any_group(WAN),
                (U, GROUP, WAN, bit(LB)),
                any_source(bit(LA)),
            ],
            ["b", "", "a"],
        ),
        (
            &[any_group(WAN), (A, GROUP, WAN, bit(LA) | bit(LB))],
            ["", "", "u"],
        ),
        (
            &[any_group(WAN), (A, GROUP, LA, bit(WAN) | bit(LB))],
            ["", "bu", "u"],
        ),
    ];
    let mroute = network.mroute();
    for (entries, expected) in rows {
        for (source, group, parent, out) in *entries {
            mroute.set_entry(*source, *group, *parent, *out).unwrap();
        }
        let arrived = [(WAN, U), (LA, A), (LB, B)]
            .map(|(from, source)| network.send(&mroute, from, source, GROUP));
        assert_eq!(arrived, *expected, "{entries:?}");
        for (source, group, parent, _) in *entries {
            mroute.remove_entry(*source, *group, *parent).unwrap();
        }
    }
}

fn an_entry_without_outgoing_interfaces_drops() {
    let network = Network::new();
    let mroute = network.mroute();
    mroute.set_entry(ANY, ANY, NO_INTERFACE, ALL).unwrap();
    mroute.set_entry(ANY, GROUP, WAN, bit(LA)).unwrap();
    mroute.set_entry(U, GROUP, WAN, 0).unwrap();
    assert_eq!(network.send(&mroute, WAN, U, GROUP), "");
    assert_eq!(network.send(&mroute, WAN, B, GROUP), "a", "another source");
    mroute.set_entry(ANY, GROUP, WAN, 0).unwrap();
    assert_eq!(network.send(&mroute, WAN, B, GROUP), "");
    let entries = network.entries();
    let expected = [
        "254 2001:db8:1::10 ff1e::8 wan > : 1 packets, 48 octets, 0 wrong",
        "254 :: :: - > wan la lb: 0 packets, 0 octets, 0 wrong",
        "254 :: ff1e::8 wan > : 2 packets, 96 octets, 0 wrong",
    ];
    assert_eq!(entries, expected);
}

fn an_entry_is_changed_and_removed() {
    let network = Network::new();
    let mroute = network.mroute();
    mroute.set_entry(ANY, ANY, NO_INTERFACE, ALL).unwrap();
    for (source, out, expected) in [
        (ANY, bit(LA), "a"),
        (ANY, bit(LA) | bit(LB), "ab"),
        (U, bit(LA), "a"),
        (U, bit(LB), "b"),
    ] {
        mroute.set_entry(source, GROUP, WAN, out).unwrap();
        assert_eq!(network.send(&mroute, WAN, U, GROUP), expected);
    }
    // An entry with a source has one parent, whatever is said at its removal.
    mroute.set_entry(U, GROUP, LA, bit(LB)).unwrap();
    assert_eq!(network.send(&mroute, WAN, U, GROUP), "", "wrong interface");
    assert_eq!(network.send(&mroute, LA, U, GROUP), "b");
    mroute.remove_entry(U, GROUP, WAN).unwrap();
    assert_eq!(network.send(&mroute, WAN, U, GROUP), "ab");
    // For any source each parent has its own.
    mroute.remove_entry(ANY, GROUP, LA).unwrap();
    assert_eq!(network.send(&mroute, WAN, U, GROUP), "ab");
    for _ in 0..2 {
        mroute.remove_entry(ANY, GROUP, WAN).unwrap();
        mroute.remove_entry(U, GROUP, WAN).unwrap();
        assert_eq!(network.send(&mroute, WAN, U, GROUP), "");
    }
    let unicast = mroute.set_entry(ANY, A, WAN, ALL);
    assert_eq!(unicast, Err(Errno::EINVAL));
    let too_large = mroute.set_entry(ANY, GROUP, NO_INTERFACE + 1, ALL);
    assert_eq!(too_large, Err(Errno::ENFILE));
}

fn an_interface_that_is_deleted_takes_its_bit_along_until_entries_are_set_anew() {
    let mut network = Network::new();
    let mut mroute = network.mroute();
    let entries = [
        (ANY, GROUP, WAN, bit(LA) | bit(LB)),
        (U, GROUP, WAN, bit(LA)),
    ];
    let set = |mroute: &Mroute| {
        mroute.set_entry(ANY, ANY, NO_INTERFACE, ALL).unwrap();
        for (source, group, parent, out) in entries {
            mroute.set_entry(source, group, parent, out).unwrap();
        }
    };
    set(&mroute);
    network.router.run("ip link delete la");
    // An entry that is set meanwhile loses the bit of the interface that is not there.
    set(&mroute);
    connect(&network.router, "la", &network.hosts[1]);
    network.taps[1] = Tap::open(&network.hosts[1], "eth0");
    mroute.add_interface(LA, network.index("la")).unwrap();
    assert_eq!(network.send(&mroute, WAN, U, GROUP), "");
    assert_eq!(network.send(&mroute, WAN, B, GROUP), "b");
    set(&mroute);
    assert_eq!(network.send(&mroute, WAN, U, GROUP), "a");
    assert_eq!(network.send(&mroute, WAN, B, GROUP), "ab");
    assert_eq!(network.send(&mroute, LA, A, GROUP), "b");

    // The upstream likewise: entries with it as their parent match again once they are set.
    network.router.run("ip link delete wan");
    mroute.remove_interface(WAN).unwrap();
    connect(&network.router, "wan", &network.hosts[0]);
    network.taps[0] = Tap::open(&network.hosts[0], "eth0");
    mroute.add_interface(WAN, network.index("wan")).unwrap();
    set(&mroute);
    assert_eq!(network.send(&mroute, WAN, U, GROUP), "a");

    // An interface that is set down or gets another name stays.
    network.router.run(
        "ip link set la down
         ip link set la name la2
         ip link set la2 up",
    );
    eventually("it is up again", SOON, || network.router.is_ready("la2"));
    assert_eq!(network.send(&mroute, WAN, U, GROUP), "a");
}

fn a_number_goes_to_another_interface() {
    let network = Network::new();
    let mut mroute = network.mroute();
    mroute.set_entry(ANY, ANY, NO_INTERFACE, ALL).unwrap();
    mroute.set_entry(U, GROUP, WAN, bit(LA)).unwrap();
    mroute.add_interface(LA, network.index("la")).unwrap();
    assert_eq!(network.send(&mroute, WAN, U, GROUP), "a", "as before");
    mroute.remove_interface(LB).unwrap();
    mroute.remove_interface(LB).unwrap();
    let (la, lb) = (network.index("la"), network.index("lb"));
    mroute.add_interface(LA, lb).unwrap();
    mroute.add_interface(LB, la).unwrap();
    mroute.set_entry(U, GROUP, WAN, bit(LA)).unwrap();
    assert_eq!(network.send(&mroute, WAN, U, GROUP), "b");
    let missing = mroute.add_interface(LA, 60_000);
    assert_eq!(missing, Err(Errno::EADDRNOTAVAIL));
    mroute.add_interface(LA, lb).unwrap();
    mroute.set_entry(U, GROUP, WAN, bit(LA)).unwrap();
    assert_eq!(network.send(&mroute, WAN, U, GROUP), "b", "after a failure");
    let too_large = mroute.add_interface(NO_INTERFACE, la);
    assert_eq!(too_large, Err(Errno::EINVAL));
}

fn an_interface_with_a_large_index_is_refused() {
    let network = Network::new();
    let mut mroute = network.mroute();
    mroute.remove_interface(LA).unwrap();
    let index = 65536 + network.index("la");
    let peer = Namespace::new("peer");
    network.router.numbered_veth("large", index, &peer, "eth0");
    let refused = mroute.add_interface(LA, index);
    assert_eq!(refused, Err(Errno::EOVERFLOW));
    // The kernel would have taken `la`, and forwarded to it.
    mroute.add_interface(LA, network.index("lb")).unwrap();
}

fn the_kernel_tells_what_each_entry_counted() {
    let network = Network::new();
    let mroute = network.mroute();
    mroute.set_entry(ANY, ANY, WAN, ALL).unwrap();
    mroute.set_entry(ANY, GROUP, WAN, bit(LA)).unwrap();
    mroute.set_entry(U, GROUP, WAN, bit(LB) | bit(LA)).unwrap();
    for _ in 0..3 {
        assert_eq!(network.send(&mroute, WAN, U, GROUP), "ab");
    }
    assert_eq!(network.send(&mroute, LB, U, GROUP), "", "wrong interface");
    assert_eq!(network.send(&mroute, WAN, A, GROUP), "a");
    assert_eq!(network.send(&mroute, WAN, B, GROUP), "a");
    let other = Ipv6Addr::new(0xff1e, 0, 0, 0, 0, 0, 0, 9);
    assert_eq!(network.send(&mroute, LA, A, other), "u");
    let expected = [
        "254 2001:db8:1::10 ff1e::8 wan > la lb: 4 packets, 192 octets, 1 wrong",
        "254 :: :: wan > wan la lb: 1 packets, 48 octets, 0 wrong",
        "254 :: ff1e::8 wan > la: 2 packets, 96 octets, 0 wrong",
    ];
    assert_eq!(network.entries(), expected);
}

/// The kernel holds back packets that its owner is asked about. This owner takes no question.
fn no_packet_waits_for_an_answer() {
    let network = Network::new();
    let mroute = network.mroute();
    for number in 0..20 {
        let group = Ipv6Addr::new(0xff1e, 0, 0, 0, 0, 0, 1, number);
        assert_eq!(network.send(&mroute, LA, A, group), "?");
    }
    let cache = || std::fs::read_to_string("/proc/thread-self/net/ip6_mr_cache").unwrap();
    let held = network.router.within(cache);
    // A heading, and the entry of the mark.
    assert_eq!(held.lines().count(), 2, "{held}");
}
