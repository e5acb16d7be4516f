//! Memberships with source filters, without the daemon: what the kernel reports of them, and how
//! many there is room for.

use std::net::Ipv6Addr;

use daemon::sys::source_filters::{MAX_SOURCES, SLOTS, SourceFilters};
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use protocol::mld::filter::FilterMode;
use protocol::wire::{Message, RecordType, parse};

use crate::lab::{Namespace, Tap, eventually, poll_for};
use crate::support::SOON;
use FilterMode::{Exclude, Include};
use RecordType::{AllowNewSources, BlockOldSources, ChangeToExclude, ChangeToInclude};

crate::tests![
    each_change_of_a_filter_is_in_one_report,
    a_group_that_outgrows_its_socket_is_not_left,
    groups_with_eight_sources_fit_little_option_memory,
    groups_without_sources_fit_little_option_memory,
    groups_with_many_sources_have_sockets_of_their_own_until_there_are_no_more,
    an_interface_that_was_created_anew_is_joined_anew,
];

/// A host with one interface, and the network that it is connected to.
struct Network {
    host: Namespace,
    wire: Tap,
    _router: Namespace,
    filters: SourceFilters,
}

impl Network {
    fn new() -> Self {
        let [host, router] = ["host", "router"].map(Namespace::new);
        connect(&host, &router);
        let mut network = Network {
            wire: Tap::open(&router, "eth0"),
            host,
            _router: router,
            filters: SourceFilters::new(),
        };
        // Soon after an interface may use its address, the kernel reports all groups twice more.
        // Such a report tells of a group that the tests do not look at.
        let other = group(u16::MAX);
        for _ in 0..8 {
            network.set(0, other, Include, [1]).unwrap();
            network.reported(other);
            network.reported(other);
            network.leave(0, other);
            network.reported(other);
            network.reported(other);
        }
        network
    }

    fn index(&self) -> u32 {
        self.host.within(|| if_nametoindex("wan")).unwrap()
    }

    /// Sets a filter. The sources are numbers.
    fn set(
        &mut self,
        slot: usize,
        group: Ipv6Addr,
        mode: FilterMode,
        sources: impl IntoIterator<Item = u16>,
    ) -> nix::Result<()> {
        let index = self.index();
        let sources: Vec<_> = sources.into_iter().map(source).collect();
        let filters = &mut self.filters;
        // The sockets are those of the namespace in which they are opened.
        self.host
            .within(|| filters.set(slot, index, group, mode, &sources))
    }

    fn leave(&mut self, slot: usize, group: Ipv6Addr) {
        let index = self.index();
        self.filters.leave(slot, index, group).unwrap();
    }

    /// The records of one group in the next report that has any.
    fn reported(&self, group: Ipv6Addr) -> Vec<(RecordType, Vec<Ipv6Addr>)> {
        loop {
            let frame = self.wire.receive(SOON).expect("a report");
            let Ok(Message::ReportV2(report)) = parse(&frame.packet) else {
                continue;
            };
            let of_group = report.records.filter(|record| record.group == group);
            let records = of_group.map(|record| {
                let mut sources: Vec<_> = record.sources.iter().collect();
                sources.sort();
                (record.record_type, sources)
            });
            let mut records: Vec<_> = records.collect();
            records.sort_by_key(|(kind, _)| format!("{kind:?}"));
            if !records.is_empty() {
                return records;
            }
        }
    }

    /// Expects the next report of a group, and the one that repeats it (RFC 3810 §6.1).
    #[track_caller]
    fn expect(&self, group: Ipv6Addr, expected: &[(RecordType, &[u16])]) {
        let expected: Vec<_> = expected
            .iter()
            .map(|(kind, sources)| (*kind, sources.iter().copied().map(source).collect()))
            .collect();
        for _ in 0..2 {
            let reported: Vec<(RecordType, Vec<Ipv6Addr>)> = self.reported(group);
            assert_eq!(reported, expected);
        }
    }

    /// Expects that the sockets for single groups are free, by the groups of slots from `first` on.
    #[track_caller]
    fn expect_sockets(&mut self, first: u16) {
        for slot in first..first + 128 {
            self.set(slot.into(), group(slot), Include, 1..=9).unwrap();
        }
        let one_more = self.set((first + 128).into(), group(first + 128), Include, 1..=9);
        assert_eq!(one_more, Err(Errno::ENOBUFS));
    }

    /// Expects the interface to be a member of so many groups in ff3e::/16, and to include so many
    /// sources in all. A program that another test starts may hold a socket for a moment longer.
    #[track_caller]
    fn expect_joined(&self, groups: usize, sources: usize) {
        let read = |file: &str| {
            let path = format!("/proc/thread-self/net/{file}");
            let table = self.host.within(|| std::fs::read_to_string(path)).unwrap();
            let of_group = table.lines().filter(|line| {
                line.split_whitespace().nth(1) == Some("wan") && line.contains(" ff3e")
            });
            of_group.count()
        };
        let joined = || (read("igmp6"), read("mcfilter6"));
        let mut found = joined();
        poll_for(SOON, || {
            found = joined();
            (found == (groups, sources)).then_some(())
        });
        assert_eq!(found, (groups, sources));
    }
}

fn connect(host: &Namespace, router: &Namespace) {
    // Otherwise both ends could have the same number.
    host.add_bridge("unused", &Default::default());
    host.veth("wan", router, "eth0");
    // Reports are repeated as soon as the kernel can.
    host.sysctl("net.ipv6.conf.wan.mldv2_unsolicited_report_interval", "1");
    host.set_up("wan");
    router.set_up("eth0");
    eventually("both ends are up", SOON, || {
        host.is_ready("wan") && router.is_ready("eth0")
    });
}

const fn source(number: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, number)
}

const fn group(number: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xff3e, 0, 0, 0, 0, 0, 0x8000, number)
}

fn each_change_of_a_filter_is_in_one_report() {
    let mut network = Network::new();
    let one = group(1);
    network.set(0, one, Include, [1]).unwrap();
    network.expect(one, &[(AllowNewSources, &[1])]);
    network.set(0, one, Include, [1, 2]).unwrap();
    network.expect(one, &[(AllowNewSources, &[2])]);
    network.set(0, one, Include, [2, 3]).unwrap();
    network.expect(one, &[(AllowNewSources, &[3]), (BlockOldSources, &[1])]);
    // The same again is no change.
    network.set(0, one, Include, [2, 3]).unwrap();
    network.set(0, one, Exclude, []).unwrap();
    network.expect(one, &[(ChangeToExclude, &[])]);
    network.set(0, one, Exclude, []).unwrap();
    network.set(0, one, Exclude, [4, 5]).unwrap();
    network.expect(one, &[(BlockOldSources, &[4, 5])]);
    network.set(0, one, Include, [1]).unwrap();
    network.expect(one, &[(ChangeToInclude, &[1])]);
    network.set(0, one, Include, []).unwrap();
    network.expect(one, &[(BlockOldSources, &[1])]);

    // A new group with several sources is in one report from the first.
    let two = group(2);
    network.set(0, two, Include, 1..=8).unwrap();
    let eight: Vec<_> = (1..=8).collect();
    network.expect(two, &[(AllowNewSources, &eight)]);
    network.leave(0, two);
    network.expect(two, &[(BlockOldSources, &eight)]);
    network.leave(0, two);
    let three = group(3);
    network.set(1, three, Exclude, []).unwrap();
    network.expect(three, &[(ChangeToExclude, &[])]);
    network.filters.leave_all();
    network.expect(three, &[(ChangeToInclude, &[])]);
    network.expect_joined(0, 0);
}

fn a_group_that_outgrows_its_socket_is_not_left() {
    let mut network = Network::new();
    network.set(0, group(1), Include, 1..=8).unwrap();
    let eight: Vec<_> = (1..=8).collect();
    network.expect(group(1), &[(AllowNewSources, &eight)]);
    network.set(0, group(1), Include, 1..=10).unwrap();
    network.expect(group(1), &[(AllowNewSources, &[9, 10])]);
    network.expect_joined(1, 10);
    network.set(0, group(1), Include, 3..=4).unwrap();
    let blocked = [1, 2, 5, 6, 7, 8, 9, 10];
    network.expect(group(1), &[(BlockOldSources, &blocked)]);
    network.set(0, group(1), Include, []).unwrap();
    network.expect(group(1), &[(BlockOldSources, &[3, 4])]);
    network.expect_joined(0, 0);
}

/// The least option memory that a kernel has by default is 20480 octets.
const LITTLE: &str = "10240";

fn groups_with_eight_sources_fit_little_option_memory() {
    let mut network = Network::new();
    network.host.sysctl("net.core.optmem_max", LITTLE);
    for slot in 0..1024 {
        network
            .set(slot.into(), group(slot), Include, 1..=8)
            .unwrap();
    }
    network.expect_joined(1024, 8192);
    // Each of them changes, and so does its mode.
    for slot in 0..1024 {
        network
            .set(slot.into(), group(slot), Include, 5..=12)
            .unwrap();
        network.set(slot.into(), group(slot), Exclude, []).unwrap();
        network.set(slot.into(), group(slot), Include, [1]).unwrap();
    }
    network.expect_joined(1024, 1024);
    // None of them took a socket for itself.
    network.expect_sockets(1024);
    network.filters.leave_all();
    network.expect_joined(0, 0);
}

fn groups_without_sources_fit_little_option_memory() {
    let mut network = Network::new();
    network.host.sysctl("net.core.optmem_max", LITTLE);
    for slot in 0..SLOTS {
        network.set(slot, group(slot as u16), Exclude, []).unwrap();
    }
    network.expect_joined(SLOTS, 0);
    // None of them took a socket for itself.
    network.expect_sockets(0);
    let beyond = network.set(SLOTS, group(5000), Exclude, []);
    assert_eq!(beyond, Err(Errno::EINVAL));
}

fn groups_with_many_sources_have_sockets_of_their_own_until_there_are_no_more() {
    let mut network = Network::new();
    network.host.sysctl("net.core.optmem_max", LITTLE);
    let all = MAX_SOURCES as u16;
    for slot in 0..128 {
        network
            .set(slot.into(), group(slot), Include, 1..=all)
            .unwrap();
    }
    network.expect_joined(128, 128 * MAX_SOURCES);
    network.set(128, group(128), Include, 1..=8).unwrap();
    let one_more = network.set(128, group(128), Include, 1..=9);
    assert_eq!(one_more, Err(Errno::ENOBUFS));
    network.expect_joined(129, 128 * MAX_SOURCES + 8);
    network.leave(0, group(0));
    network.set(128, group(128), Include, 1..=9).unwrap();
    network.expect_joined(128, 127 * MAX_SOURCES + 9);
    let too_many = network.set(129, group(129), Include, 1..=all + 1);
    assert_eq!(too_many, Err(Errno::ENOBUFS));
    network.expect_joined(128, 127 * MAX_SOURCES + 9);
}

fn an_interface_that_was_created_anew_is_joined_anew() {
    let mut network = Network::new();
    network.set(0, group(0), Include, 1..=2).unwrap();
    network.set(1, group(1), Include, 1..=9).unwrap();
    network.expect_joined(2, 11);
    let index = network.index();
    network.host.run("ip link delete wan");
    let (filters, sources) = (&mut network.filters, [source(1)]);
    let gone = filters.set(0, index, group(0), Include, &sources);
    assert_eq!(gone, Err(Errno::ENODEV));
    for (slot, group) in [(0, group(0)), (1, group(1)), (2, group(2))] {
        filters.leave(slot, index, group).unwrap();
    }
    let router = Namespace::new("router");
    network.host.run("ip link delete unused");
    connect(&network.host, &router);
    network.wire = Tap::open(&router, "eth0");
    network.expect_joined(0, 0);
    network.set(0, group(0), Include, 1..=2).unwrap();
    network.set(1, group(1), Include, 1..=9).unwrap();
    network.expect_joined(2, 11);
}
