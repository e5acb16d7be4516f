//! Checks the streams of a running MLD proxy: what the daemon itself finds, what the kernel counts
//! on their way, and what else keeps them from the hosts.
//!
//! A packet of a stream is counted at three places. The entry of the stream counts it when it
//! arrives. The interface of the multicast routing table counts it if it is to leave there, which
//! it is not with a hop limit of 1. The interface's statistics count it behind the packet filter.

use std::net::Ipv6Addr;

use protocol::time::{Duration, Instant};

use super::findings::Findings;
use super::findings::State::{self, Ok, Problem, Warning};
use crate::control::instance;
use crate::interfaces::{Interface, Snapshot};
use crate::sys::clock;
use crate::sys::mroute::OTHER_OWNERS;
use crate::sys::procfs::{self, Entry, find_processes};
use crate::sys::readiness::pause;

/// The shortest time to count packets in.
const COUNT_TIME: Duration = Duration::from_secs(1);
/// The time between two looks at the clock, in milliseconds.
const LOOK_INTERVAL: u16 = 10;

/// What the kernel had counted when the check began.
pub struct Streams {
    began: Instant,
    counts: Counts,
}

struct Counts {
    /// For each downstream, the multicast packets that left it behind the packet filter, and those
    /// of streams that the kernel meant to send there.
    links: Vec<(Option<u64>, Option<Routed>)>,
    entries: Vec<Entry>,
}

/// An interface in the multicast routing table: its number, and the packets to leave by it.
type Routed = (u8, u64);

impl Counts {
    /// Each of the places counts for a longer time than the one before it on a packet's way: it is
    /// read before that at the beginning, and behind it at the end. So a packet that passes is
    /// never missing there.
    fn at_beginning(snapshot: &Snapshot) -> Self {
        let left = left(snapshot);
        let routed = routed(snapshot);
        Counts {
            links: left.into_iter().zip(routed).collect(),
            entries: procfs::multicast_entries(),
        }
    }

    fn at_end(snapshot: &Snapshot) -> Self {
        let entries = procfs::multicast_entries();
        let routed = routed(snapshot);
        Counts {
            links: left(snapshot).into_iter().zip(routed).collect(),
            entries,
        }
    }
}

fn left(snapshot: &Snapshot) -> Vec<Option<u64>> {
    let downstreams = snapshot.interfaces.downstreams().iter();
    downstreams
        .map(|downstream| procfs::multicast_sent(downstream.name.as_str()))
        .collect()
}

fn routed(snapshot: &Snapshot) -> Vec<Option<Routed>> {
    let interfaces = procfs::multicast_interfaces();
    let of = |downstream: &Interface| {
        let mut interfaces = interfaces.iter();
        let name = downstream.name.as_str();
        let found = interfaces.find(|interface| interface.name == name)?;
        Some((found.number, found.packets_out))
    };
    snapshot.interfaces.downstreams().iter().map(of).collect()
}

impl Streams {
    pub fn begin(snapshot: &Snapshot) -> Self {
        Streams {
            began: clock::now(),
            counts: Counts::at_beginning(snapshot),
        }
    }

    /// Checks the streams, if the daemon on the upstream is an MLD proxy.
    pub fn check(self, snapshot: &Snapshot, socket: Option<&str>, findings: &mut Findings) {
        let upstream = snapshot.interfaces.upstream_interface().name.as_str();
        let told = instance::findings(upstream, socket);
        if told.is_empty() {
            return;
        }
        for line in told.lines() {
            tell(line, findings);
        }
        for downstream in snapshot.interfaces.downstreams() {
            flooding(downstream, snapshot, findings);
        }
        while clock::now() < self.began.saturating_add(COUNT_TIME) {
            pause(LOOK_INTERVAL);
        }
        let dropped = self.compare(&Counts::at_end(snapshot), snapshot, findings);
        kernel(dropped, findings);
    }

    /// Compares the counts at the beginning with those now. Returns whether a packet filter drops
    /// streams.
    fn compare(&self, now: &Counts, snapshot: &Snapshot, findings: &mut Findings) -> bool {
        let arrived: Vec<(&Entry, u64)> = now
            .entries
            .iter()
            .filter_map(|entry| {
                let is_it = |before: &&Entry| before.place() == entry.place();
                let before = self.counts.entries.iter().find(is_it)?;
                Some((entry, entry.right.saturating_sub(before.right)))
            })
            .collect();
        let mut is_dropped = false;
        let links = self.counts.links.iter().zip(&now.links);
        for (downstream, (before, now)) in snapshot.interfaces.downstreams().iter().zip(links) {
            let name = downstream.name.as_str();
            let (Some((number, before_out)), Some((same, out))) = (before.1, now.1) else {
                continue;
            };
            if number != same {
                continue;
            }
            let out = out.saturating_sub(before_out);
            let mut wanted = arrived.iter().filter(|(entry, _)| entry.goes_to(number));
            let expected = wanted.clone().map(|(_, packets)| packets).sum();
            if out < expected
                && let Some((entry, _)) = wanted.find(|(_, packets)| *packets > 0)
            {
                hop_limit(name, (expected - out, expected), entry, findings);
            }
            if let (Some(before), Some(now)) = (before.0, now.0)
                && out > 0
            {
                let passed = now.saturating_sub(before).min(out);
                is_dropped |= packet_filter(name, out - passed, out, findings);
            }
        }
        is_dropped
    }
}

/// Passes on a finding of the daemon's.
fn tell(line: &str, findings: &mut Findings) {
    let mut words = line.split('\t');
    let state = match words.next() {
        Some("ok") => Ok,
        Some("warning") => Warning,
        Some("problem") => Problem,
        _ => return,
    };
    let (Some(check), Some(text)) = (words.next(), words.next()) else {
        return;
    };
    match words.next() {
        Some(advice) => findings.add(state, "%1|%2|%3", &[check, text, advice]),
        None => findings.add(state, "%1|%2", &[check, text]),
    }
    if check == "multicast_table" && state != Ok {
        owner(findings);
    }
}

fn owner(findings: &mut Findings) {
    let mut owner = None;
    find_processes(OTHER_OWNERS, &mut |name| {
        owner = Some(name);
        true
    });
    if let Some(owner) = owner {
        findings.add(
            Problem,
            "multicast_owner|%1 runs, which uses that table|stop %1, or run mldproxy with --table",
            &[owner],
        );
    }
}

/// A bridge that does not snoop sends a stream to all its ports.
fn flooding(downstream: &Interface, snapshot: &Snapshot, findings: &mut Findings) {
    let decided_by = downstream.decided_by();
    let bridge = decided_by.and_then(|index| snapshot.link(index));
    if let Some((name, Some(bridge))) = bridge {
        let (state, template) = match bridge.snooping {
            true => (
                Ok,
                "multicast_flooding|%1 snoops MLD, so a stream goes to its listeners alone",
            ),
            false => (
                Warning,
                "multicast_flooding|%1 does not snoop MLD, so each stream goes to all its ports, \
                 Wi-Fi as well|`ip link set dev %1 type bridge mcast_snooping 1`; on OpenWrt \
                 igmp_snooping of the device in /etc/config/network",
            ),
        };
        findings.add(state, template, &[name]);
    }
}

fn hop_limit(name: &str, (missing, all): (u64, u64), entry: &Entry, findings: &mut Findings) {
    let words = [
        name,
        &missing.to_string(),
        &all.to_string(),
        &entry.source.to_string(),
        &entry.group.to_string(),
    ];
    findings.add(
        Problem,
        "multicast_hop_limit|%2 of %3 packets of streams for %1 arrived, such as from %4 to %5, \
         and were not forwarded: their hop limit is 1|have the sender use a larger one, such as 16",
        &words,
    );
}

/// Returns whether a packet filter drops streams. Others than streams count among what passed.
fn packet_filter(name: &str, dropped: u64, all: u64, findings: &mut Findings) -> bool {
    let is_dropped = dropped > 0;
    let words = [name, &dropped.to_string(), &all.to_string()];
    let (state, template): (State, _) = match is_dropped {
        true => (
            Problem,
            "multicast_filter|a packet filter dropped %2 of %3 packets of streams to %1, so a \
             picture freezes after some seconds|on OpenWrt `service firewall restart` with \
             mldproxy's rules; elsewhere `nft insert rule inet fw4 forward oifname %1 ip6 daddr \
             ff00::/8 meta l4proto udp accept`, with your own table",
        ),
        false => (
            Ok,
            "multicast_filter|%3 packets of streams passed the packet filter to %1",
        ),
    };
    findings.add(state, template, &words);
    is_dropped
}

/// Before the commit 3365afd3abda of Linux 6.17 the forward chain saw the outgoing interface as
/// the incoming one.
fn kernel(is_dropped: bool, findings: &mut Findings) {
    let release = procfs::kernel_release();
    if !hides_incoming(&release) {
        return;
    }
    let (state, template) = match is_dropped {
        true => (
            Warning,
            "multicast_kernel|to the packet filter of Linux %1 a stream seems to come from the \
             interface that it leaves by|match streams by the outgoing interface alone, or let \
             each zone forward udp to ff00::/8 to itself",
        ),
        false => (
            Ok,
            "multicast_kernel|to the packet filter of Linux %1 a stream seems to come from the \
             interface that it leaves by; rules by the outgoing interface alone hold",
        ),
    };
    findings.add(state, template, &[&release]);
}

/// Is a release of Linux one from before that commit, or before it was taken over?
fn hides_incoming(release: &str) -> bool {
    // The releases of August 2025.
    const MENDED: [(u32, u32, u32); 5] = [
        (6, 1, 148),
        (6, 6, 102),
        (6, 12, 42),
        (6, 15, 10),
        (6, 16, 1),
    ];
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut number = || numbers.next().and_then(|digits| digits.parse().ok());
    let (Some(major), Some(minor)) = (number(), number()) else {
        return false;
    };
    let patch = number().unwrap_or_default();
    if (major, minor) >= (6, 17) {
        return false;
    }
    let is_mended =
        |mended: &(u32, u32, u32)| (mended.0, mended.1) == (major, minor) && patch >= mended.2;
    !MENDED.iter().any(is_mended)
}

impl Entry {
    fn place(&self) -> (Ipv6Addr, Ipv6Addr) {
        (self.source, self.group)
    }

    /// Does it name an interface of the table, by its number?
    fn goes_to(&self, number: u8) -> bool {
        let bit = 1_u32.checked_shl(number.into()).unwrap_or_default();
        self.out & bit != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_that_hide_the_incoming_interface_are_known() {
        for (release, hides) in [
            ("5.10.262", true),
            ("5.15.189", true),
            ("6.1.147", true),
            ("6.1.176-1", false),
            ("6.6.93", true),
            ("6.6.102", false),
            ("6.12.41", true),
            ("6.12.117-cloud-amd64", false),
            ("6.16.0", true),
            ("6.16-rc1", true),
            ("6.16.3", false),
            ("6.17", false),
            ("6.18.44", false),
            ("7.3.4", false),
            ("", false),
        ] {
            assert_eq!(hides_incoming(release), hides, "{release}");
        }
    }
}
