//! What the kernel tells in files under `/proc`. Where there is no such file, it is as if the file were empty.

use std::fs;
use std::net::Ipv6Addr;
use std::os::fd::AsFd as _;

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use super::ffi;

/// A parameter under `net.ipv6.conf` of an interface, or of `all`.
pub fn ipv6_setting(interface: &str, name: &str) -> Option<u32> {
    let path = ["/proc/sys/net/ipv6/conf/", interface, "/", name].concat();
    read(&path).trim_ascii().parse().ok()
}

/// How many MLD queries the kernel itself received on an interface, behind every packet filter.
pub fn queries_received(interface: &str) -> Option<u32> {
    let counters = read(&["/proc/self/net/dev_snmp6/", interface].concat());
    word_after(&counters, "Icmp6InGroupMembQueries")?
        .parse()
        .ok()
}

/// Calls `found` for each unix socket with a path on which a process of this network namespace listens.
pub fn listening_sockets(found: &mut dyn FnMut(&str)) {
    for_each_line("/proc/self/net/unix", &mut |line| {
        // Number, count, protocol, flags, type, state, inode, path. The flag is __SO_ACCEPTCON of linux/net.h. Names that are no paths
        // are anybody's to take; they start with @.
        let mut words = line.split_ascii_whitespace();
        if words.nth(3) == Some("00010000")
            && let Some(path) = words.nth(3).filter(|path| path.starts_with('/'))
        {
            found(path);
        }
    });
}

/// How the addresses of one /64 are routed to interfaces without a gateway between.
pub struct ConnectedRoutes(String);

impl ConnectedRoutes {
    /// Of the routes, which may be many, those in the /64 of `network`.
    pub fn read(network: Ipv6Addr) -> Self {
        let [a, b, c, d, ..] = network.segments();
        let start = format!("{a:04x}{b:04x}{c:04x}{d:04x}");
        let mut routes = String::new();
        for_each_line("/proc/self/net/ipv6_route", &mut |line| {
            // One is enough for any question below, and a line is 150 octets.
            if line.starts_with(&start) && routes.len() < 1 << 16 {
                routes.push_str(line);
                routes.push('\n');
            }
        });
        ConnectedRoutes(routes)
    }

    /// The metric, on an interface, of the route to addresses of a length in bits. This host's own are none.
    pub fn metric(&self, length: u8, interface: &str) -> Option<u32> {
        // Destination, length, source, its length, gateway, metric, two counts, flags, interface; numbers in hexadecimal.
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

/// Calls `found` for each process that is called one of `names`, with that, until it returns true. Leaves out those of other network
/// namespaces, where the kernel says so: of another user's process it does not.
pub fn find_processes(names: &[&'static str], found: &mut dyn FnMut(&'static str) -> bool) {
    let namespace = |process: &str| fs::read_link(["/proc/", process, "/ns/net"].concat()).ok();
    let own = namespace("self");
    for_each_process(&mut |process| {
        // This process, and `self` for it, is none of those.
        let name = read(&["/proc/", process, "/comm"].concat());
        let Some(name) = names.iter().find(|known| **known == name.trim_ascii()) else {
            return false;
        };
        let other = namespace(process);
        (other.is_none() || other == own) && found(name)
    });
}

/// Calls `ends` with each name in `/proc`, until it returns true. Not by the C library, whose way takes its heap into the file.
fn for_each_process(ends: &mut dyn FnMut(&str) -> bool) {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let Ok(folder) = open("/proc", flags, Mode::empty()) else {
        return;
    };
    let mut entries = [0; 4096];
    while let Ok(length @ 1..) = ffi::read_folder(folder.as_fd(), &mut entries) {
        let mut rest = &entries[..length];
        // struct linux_dirent64: two numbers of 8 octets, the entry's length in 2, its type in 1, its name with zeros behind it.
        while let Some(&[low, high]) = rest.get(16..18) {
            let length = usize::from(u16::from_ne_bytes([low, high]));
            let name = rest.get(19..length).unwrap_or_default();
            let name = name.split(|octet| *octet == 0).next().unwrap_or_default();
            if ends(&String::from_utf8_lossy(name)) {
                return;
            }
            rest = rest.get(length.max(1)..).unwrap_or_default();
        }
    }
}

/// Calls `found` for each line of a file of any length. Of a line that is longer than 4,096 octets only parts come.
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
        // Behind the last line's end is the start of the next.
        let rest = lines.next_back().map_or(0, <[u8]>::len);
        for line in lines {
            found(&String::from_utf8_lossy(line));
        }
        chunk.copy_within(filled - rest..filled, 0);
        filled = if rest < chunk.len() { rest } else { 0 };
    }
}

/// All of a file.
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

/// Where a mark is. `str::find` with a text brings an algorithm for long ones, 2 kB.
pub fn position(text: &str, mark: &str) -> Option<usize> {
    let mut places = text.as_bytes().windows(mark.len());
    places.position(|window| window == mark.as_bytes())
}

/// The word after a mark.
fn word_after<'t>(text: &'t str, mark: &str) -> Option<&'t str> {
    text.get(position(text, mark)? + mark.len()..)?
        .split_ascii_whitespace()
        .next()
}
