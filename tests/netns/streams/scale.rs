//! As many groups as the tables hold, with the least memory that a kernel gives to sockets.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;

use protocol::wire::RecordType;

use crate::lab::{Record, Speaker, StreamLab, UPSTREAM, poll_for};
use crate::support::{SOON, UNLIMITED};

use super::{any_source, source_specific, start};

crate::tests![
    a_thousand_groups_with_8_sources_each_are_held_upstream,
    four_thousand_groups_without_sources_are_held_upstream,
];

/// Kernels before 6.8 give a socket 20,480 octets for its options, and half of that on routers with
/// 32 bits.
const LITTLE_MEMORY: &str = "10240";
/// How many groups one of the hosts listens to.
const GROUPS_A_HOST: usize = 32;

/// Reports the records as hosts that each listen to a few groups.
pub(super) fn report(home: &StreamLab, records: &[Record], in_a_packet: usize) {
    let mut speaker = Speaker::new(&home.listeners[0], "eth0", Ipv6Addr::UNSPECIFIED);
    for (host, records) in (1_u16..).zip(records.chunks(GROUPS_A_HOST)) {
        let [high, low] = host.to_be_bytes();
        speaker.mac = [2, 0, 0, 0x77, high, low];
        speaker.source = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0x77, host);
        for records in records.chunks(in_a_packet) {
            speaker.report(records);
        }
    }
}

fn start_with_little_memory(home: &StreamLab) -> crate::lab::Process {
    home.lab.rtr.sysctl("net.core.optmem_max", LITTLE_MEMORY);
    start(home, &[UNLIMITED, &["--max-groups", "4096"]].concat())
}

fn a_thousand_groups_with_8_sources_each_are_held_upstream() {
    let home = StreamLab::new();
    let mldproxy = start_with_little_memory(&home);
    let sources: Vec<_> = (0x100..0x108)
        .map(|last| Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, last))
        .collect();
    let groups: BTreeSet<_> = (0..1_024).map(source_specific).collect();
    let records: Vec<_> = groups
        .iter()
        .map(|group| Record::new(RecordType::AllowNewSources, *group, &sources))
        .collect();
    report(&home, &records, 8);
    let wanted: BTreeSet<_> = sources.iter().copied().collect();
    let mut held = 0;
    let all = poll_for(SOON, || {
        let included = home.lab.rtr.included_sources(UPSTREAM);
        held = groups
            .iter()
            .filter(|group| included.get(group) == Some(&wanted))
            .count();
        (held == groups.len()).then_some(())
    });
    assert!(all.is_some(), "{held} groups are held:\n{}", mldproxy.log());
    assert_eq!(home.entries().len(), 1_024 * 8);
}

fn four_thousand_groups_without_sources_are_held_upstream() {
    let home = StreamLab::new();
    let mldproxy = start_with_little_memory(&home);
    let groups: BTreeSet<_> = (0..4_096).map(any_source).collect();
    let records: Vec<_> = groups
        .iter()
        .map(|group| Record::new(RecordType::ChangeToExclude, *group, &[]))
        .collect();
    report(&home, &records, GROUPS_A_HOST);
    let mut held = 0;
    let all = poll_for(SOON, || {
        held = home
            .lab
            .rtr
            .memberships(UPSTREAM)
            .intersection(&groups)
            .count();
        (held == groups.len()).then_some(())
    });
    assert!(all.is_some(), "{held} groups are held:\n{}", mldproxy.log());
    assert_eq!(home.entries().len(), 4_096);
}
