//! Files under `/proc`. A file that is not there counts as empty.
//!
//! A file is read by lines only if no user can put an end of line into it. In `ipv6_route` and
//! `igmp6` the kernel writes numbers and names of interfaces, in which it allows no white space
//! (`dev_valid_name` of net/core/dev.c). In `net/unix` it writes the names of sockets as their
//! users chose them, so nothing here reads that.

use std::fs;
use std::io::ErrorKind;
use std::net::Ipv6Addr;
use std::os::fd::AsFd as _;

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use super::decimal;
use super::folder::for_each_name;

/// A setting under `net.ipv6.conf` of an interface, or of `all`.
pub fn ipv6_setting(interface: &str, name: &str) -> Option<u32> {
    let path = ["/proc/sys/net/ipv6/conf/", interface, "/", name].concat();
    read(&path).trim_ascii().parse().ok()
}

/// The MLD queries that the kernel itself received on an interface, behind every packet filter.
pub fn queries_received(interface: &str) -> Option<u32> {
    let counters = read(&["/proc/self/net/dev_snmp6/", interface].concat());
    word_after(&counters, "Icmp6InGroupMembQueries")?
        .parse()
        .ok()
}

/// The MLD reports that the kernel itself sent on an interface, of either version, behind every
/// packet filter.
pub fn reports_sent(interface: &str) -> Option<u32> {
    let counters = read(&["/proc/self/net/dev_snmp6/", interface].concat());
    let count = |name| word_after(&counters, name)?.parse().ok();
    let (v1, v2): (u32, u32) = (
        count("Icmp6OutGroupMembResponses")?,
        count("Icmp6OutMLDv2Reports")?,
    );
    Some(v1.wrapping_add(v2))
}

/// Whether this host is a member of a group on an interface.
pub fn is_member(interface: &str, group: Ipv6Addr) -> bool {
    let mut digits = String::new();
    for octet in group.octets() {
        digits.push_str(&format!("{octet:02x}"));
    }
    let mut found = false;
    for_each_line("/proc/self/net/igmp6", &mut |line| {
        // The interface's number and name, the group, and more.
        let mut words = line.split_ascii_whitespace().skip(1);
        found |= words.next() == Some(interface) && words.next() == Some(&digits);
    });
    found
}

/// The multicast packets that left an interface, behind every packet filter.
pub fn multicast_sent(interface: &str) -> Option<u64> {
    let counters = read(&["/proc/self/net/dev_snmp6/", interface].concat());
    word_after(&counters, "Ip6OutMcastPkts")?.parse().ok()
}

/// An interface in the kernel's multicast routing table.
pub struct MulticastInterface {
    pub number: u8,
    pub name: String,
    /// The packets that were to leave by it, before every packet filter.
    pub packets_out: u64,
}

/// The interfaces in the main multicast routing table.
pub fn multicast_interfaces() -> Vec<MulticastInterface> {
    let mut interfaces = Vec::new();
    for_each_line("/proc/self/net/ip6_mr_vif", &mut |line| {
        // Number, name, octets and packets in, octets and packets out, flags. The first line names
        // the columns.
        let mut words = line.split_ascii_whitespace();
        if let Some(number) = words.next().and_then(|word| word.parse().ok())
            && let Some(name) = words.next()
            && let Some(packets_out) = words.nth(3).and_then(|word| word.parse().ok())
        {
            interfaces.push(MulticastInterface {
                number,
                name: name.to_owned(),
                packets_out,
            });
        }
    });
    interfaces
}

/// An entry for one source in the kernel's multicast routing table.
pub struct Entry {
    pub source: Ipv6Addr,
    pub group: Ipv6Addr,
    /// The packets that arrived on the right interface.
    pub right: u64,
    /// A bit for the number of each interface that packets leave by.
    pub out: u32,
}

/// The entries for one source in the main multicast routing table.
pub fn multicast_entries() -> Vec<Entry> {
    let mut entries = Vec::new();
    for_each_line("/proc/self/net/ip6_mr_cache", &mut |line| {
        entries.extend(entry(line));
    });
    entries
}

/// Reads an entry. `None` for the names of the columns, and for an entry of any source.
fn entry(line: &str) -> Option<Entry> {
    // Group, source, number of the incoming interface, packets, octets, packets on a wrong
    // interface, and number:threshold of each outgoing interface.
    let mut words = line.split_ascii_whitespace();
    let group = words.next()?.parse().ok()?;
    let source: Ipv6Addr = words.next()?.parse().ok()?;
    let packets: u64 = words.nth(1)?.parse().ok()?;
    let wrong = words.nth(1)?.parse().ok()?;
    let numbers = words.filter_map(|word| word.split(':').next()?.parse::<u32>().ok());
    let out = numbers
        .filter_map(|number| 1_u32.checked_shl(number))
        .fold(0, |bits, bit| bits | bit);
    let right = packets.saturating_sub(wrong);
    (!source.is_unspecified()).then_some(Entry {
        source,
        group,
        right,
        out,
    })
}

/// The release of Linux, such as `6.12.117`.
pub fn kernel_release() -> String {
    read("/proc/sys/kernel/osrelease").trim_ascii().to_owned()
}

/// The routes without a gateway to addresses of one /64.
pub struct ConnectedRoutes(String);

impl ConnectedRoutes {
    /// Reads the routes in the /64 of `network`.
    pub fn read(network: Ipv6Addr) -> Self {
        let [a, b, c, d, ..] = network.segments();
        let start = format!("{a:04x}{b:04x}{c:04x}{d:04x}");
        let mut routes = String::new();
        for_each_line("/proc/self/net/ipv6_route", &mut |line| {
            // One route answers any question below, and a line has 150 octets.
            if line.starts_with(&start) && routes.len() < 1 << 16 {
                routes.push_str(line);
                routes.push('\n');
            }
        });
        ConnectedRoutes(routes)
    }

    /// The metric of an interface's route to a prefix of this length, without this host's own
    /// addresses.
    pub fn metric(&self, length: u8, interface: &str) -> Option<u32> {
        // Destination, length, source, its length, gateway, metric, two counts, flags, interface.
        // Numbers are hexadecimal.
        let same = format!(" {length:02x} {0:032x} 00 {0:032x} ", 0);
        self.0.split('\n').find_map(|line| {
            let behind = line.get(32..)?.strip_prefix(&same)?;
            let mut words = behind.split_ascii_whitespace();
            let hexadecimal = |word| u32::from_str_radix(word, 16).ok();
            let metric = hexadecimal(words.next()?)?;
            let flags = hexadecimal(words.nth(2)?)?;
            (flags & OWN == 0 && words.next() == Some(interface)).then_some(metric)
        })
    }
}

/// `RTF_LOCAL | RTF_ANYCAST` of linux/ipv6_route.h.
const OWN: u32 = 0x8010_0000;

/// Calls `found` with the name of each other process that has one of `names`, until it returns
/// true. A process of another network namespace does not count, but for another user's process the
/// kernel does not say which one it is in. Any user can give a process any name.
pub fn find_processes(names: &[&'static str], found: &mut dyn FnMut(&'static str) -> bool) {
    let namespace = |process: &str| fs::read_link(["/proc/", process, "/ns/net"].concat());
    let own = namespace("thread-self").ok();
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let Ok(processes) = open("/proc", flags, Mode::empty()) else {
        return;
    };
    for_each_name(processes.as_fd(), &mut |process| {
        // `self` and `thread-self` are this process too.
        if decimal(process).is_none_or(|id| id == std::process::id()) {
            return false;
        }
        let process = &*String::from_utf8_lossy(process);
        let name = read(&["/proc/", process, "/comm"].concat());
        let Some(name) = names.iter().find(|known| **known == name.trim_ascii()) else {
            return false;
        };
        let may_be_here = match namespace(process) {
            Ok(other) => Some(other) == own,
            // A process that is ending has no namespace any more.
            Err(error) => error.kind() == ErrorKind::PermissionDenied,
        };
        may_be_here && found(name)
    });
}

/// Calls `found` with each line of a file of any length. A line of more than 4,096 octets comes in
/// parts, some of which are missing.
fn for_each_line(path: &str, found: &mut dyn FnMut(&str)) {
    let mut chunk = [0; 4096];
    let mut filled = 0;
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    let Ok(file) = open(path, flags, Mode::empty()) else {
        return;
    };
    while let Ok(length @ 1..) = nix::unistd::read(&file, &mut chunk[filled..]) {
        filled += length;
        let mut lines = chunk[..filled].split(|octet| *octet == b'\n');
        // What follows the last line's end is the start of the next line.
        let rest = lines.next_back().map_or(0, <[u8]>::len);
        for line in lines {
            found(&String::from_utf8_lossy(line));
        }
        chunk.copy_within(filled - rest..filled, 0);
        filled = if rest < chunk.len() { rest } else { 0 };
    }
}

/// Reads a whole file.
fn read(path: &str) -> String {
    let mut contents = Vec::new();
    let mut chunk = [0; 4096];
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    if let Ok(file) = open(path, flags, Mode::empty()) {
        while let Ok(length @ 1..) = nix::unistd::read(&file, &mut chunk) {
            contents.extend_from_slice(&chunk[..length]);
        }
    }
    String::from_utf8_lossy(&contents).into_owned()
}

/// The position of a mark in a text. `str::find` with a text would bring an algorithm for long
/// ones, of 2 kB.
fn position(text: &str, mark: &str) -> Option<usize> {
    let mut places = text.as_bytes().windows(mark.len());
    places.position(|window| window == mark.as_bytes())
}

/// The word behind a mark.
fn word_after<'t>(text: &'t str, mark: &str) -> Option<&'t str> {
    text.get(position(text, mark)? + mark.len()..)?
        .split_ascii_whitespace()
        .next()
}
