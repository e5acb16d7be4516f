//! What the kernel forwards of multicast, by its own tables.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::net::Ipv6Addr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::net::if_::if_nameindex;
use nix::sys::socket::sockopt::RcvBufForce;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt,
    socket,
};

use super::Namespace;
use super::netlink::{Message, attribute, ipv6};

/// Of linux/rtnetlink.h and linux/mroute6.h.
const RTNL_FAMILY_IP6MR: u8 = 129;
const RTA_MFC_STATS: u16 = 17;
const RTNLGRP_IPV6_MROUTE_R: u32 = 31;
const RTM_NEWCACHEREPORT: u16 = 96;
const MRT6_INIT: i32 = 200;
const ROUTE_HEADER: usize = 12;
const NEXT_HOP: usize = 8;

/// An entry of the kernel's multicast forwarding cache.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// `::` for any source.
    pub source: Ipv6Addr,
    /// `::` for any group.
    pub group: Ipv6Addr,
    /// The interface on which the stream has to arrive; `None` if there is none, as in an entry
    /// that waits for a router to decide.
    pub from: Option<String>,
    pub to: BTreeSet<String>,
    pub counted: Counted,
}

/// What an entry has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Counted {
    pub packets: u64,
    pub octets: u64,
    pub wrong_interface: u64,
}

impl Entry {
    pub fn is_for_any_group(&self) -> bool {
        self.group.is_unspecified()
    }

    /// Whether packets wait for somebody to say where they go.
    pub fn is_unresolved(&self) -> bool {
        !self.source.is_unspecified() && self.from.is_none() && self.to.is_empty()
    }
}

/// `SOURCE GROUP FROM -> TO TO`, with `*` for any. A stream of any source may arrive on each
/// interface that is named, so `FROM` is left out there.
impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let any = |address: Ipv6Addr| match address.is_unspecified() {
            true => "*".to_owned(),
            false => address.to_string(),
        };
        write!(f, "{} {}", any(self.source), any(self.group))?;
        if !self.source.is_unspecified() {
            write!(f, " {}", self.from.as_deref().unwrap_or("nowhere"))?;
        }
        write!(f, " ->")?;
        self.to.iter().try_for_each(|to| write!(f, " {to}"))
    }
}

impl Namespace {
    /// The entries of the main table, unresolved ones too, from the oldest to the newest.
    #[track_caller]
    pub fn multicast_entries(&self) -> Vec<Entry> {
        let names = self.names();
        let mut header = [0; ROUTE_HEADER];
        header[0] = RTNL_FAMILY_IP6MR;
        let request = Message::request(libc::RTM_GETROUTE, libc::NLM_F_DUMP, &header);
        let answers = self.dump("multicast entries", request);
        let entries = answers.iter().map(|answer| {
            let octets = &answer[ROUTE_HEADER..];
            let address = |kind| attribute(octets, kind).and_then(ipv6);
            let index = attribute(octets, libc::RTA_IIF)
                .and_then(|value| Some(u32::from_ne_bytes(*value.first_chunk()?)));
            let hops = attribute(octets, libc::RTA_MULTIPATH).unwrap_or_default();
            let hops = hops.as_chunks::<NEXT_HOP>().0.iter();
            let to = hops.map(|[.., a, b, c, d]| u32::from_ne_bytes([*a, *b, *c, *d]));
            Entry {
                source: address(libc::RTA_SRC).unwrap_or(Ipv6Addr::UNSPECIFIED),
                group: address(libc::RTA_DST).unwrap_or(Ipv6Addr::UNSPECIFIED),
                from: index.map(|index| name_of(&names, index)),
                to: to.map(|index| name_of(&names, index)).collect(),
                counted: attribute(octets, RTA_MFC_STATS)
                    .map(counted)
                    .unwrap_or_default(),
            }
        });
        entries.collect()
    }

    /// The interfaces between which the kernel forwards multicast, as often as they are in its
    /// table.
    pub fn multicast_interfaces(&self) -> Vec<String> {
        let table = self.within(|| fs::read_to_string("/proc/thread-self/net/ip6_mr_vif"));
        let table = table.expect("the kernel has IPV6_MROUTE");
        // Interface BytesIn PktsIn BytesOut PktsOut Flags
        let lines = table.lines().skip(1);
        let name = |line: &str| line.split_whitespace().nth(1).map(str::to_owned);
        lines.filter_map(name).collect()
    }

    /// The groups of which an interface is a member.
    pub fn memberships(&self, interface: &str) -> BTreeSet<Ipv6Addr> {
        let table = self.within(|| fs::read_to_string("/proc/thread-self/net/igmp6"));
        let group = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let group = u128::from_str_radix(words.get(2)?, 16).ok()?;
            (*words.get(1)? == interface).then(|| Ipv6Addr::from_bits(group))
        };
        let table = table.expect("IPv6 is on");
        table.lines().filter_map(group).collect()
    }

    /// The sources that an interface includes, by group.
    pub fn included_sources(&self, interface: &str) -> BTreeMap<Ipv6Addr, BTreeSet<Ipv6Addr>> {
        let table = self.within(|| fs::read_to_string("/proc/thread-self/net/mcfilter6"));
        let mut included = BTreeMap::<_, BTreeSet<_>>::new();
        for line in table.expect("IPv6 is on").lines().skip(1) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [_, name, group, source, includes, _] = words[..] else {
                panic!("{line}");
            };
            let address = |word: &str| {
                let bits = u128::from_str_radix(word.trim_start_matches("0x"), 16);
                Ipv6Addr::from_bits(bits.expect("an address"))
            };
            if name == interface && includes != "0" {
                let sources = included.entry(address(group)).or_default();
                sources.insert(address(source));
            }
        }
        included
    }

    fn names(&self) -> BTreeMap<u32, String> {
        let list = self.within(|| -> nix::Result<BTreeMap<u32, String>> {
            let interfaces = if_nameindex()?;
            let named = interfaces.iter().map(|interface| {
                let name = interface.name().to_string_lossy().into_owned();
                (interface.index(), name)
            });
            Ok(named.collect())
        });
        list.unwrap_or_else(|error| panic!("{}: interfaces: {error}", self.label))
    }
}

fn name_of(names: &BTreeMap<u32, String>, index: u32) -> String {
    let name = names.get(&index).cloned();
    name.unwrap_or_else(|| format!("interface {index}"))
}

/// `struct rta_mfc_stats`.
fn counted(octets: &[u8]) -> Counted {
    let (numbers, _) = octets.as_chunks::<8>();
    let number = |place: usize| {
        numbers
            .get(place)
            .map_or(0, |number| u64::from_ne_bytes(*number))
    };
    Counted {
        packets: number(0),
        octets: number(1),
        wrong_interface: number(2),
    }
}

/// Counts how often the kernel asks the owner of its multicast table where a packet goes.
pub struct Upcalls(OwnedFd);

impl Upcalls {
    #[track_caller]
    pub fn watch(namespace: &Namespace) -> Self {
        let opened = namespace.within(|| -> nix::Result<OwnedFd> {
            let (kind, flags) = (
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            );
            let protocol = SockProtocol::NetlinkRoute;
            let socket = socket(AddressFamily::Netlink, kind, flags, protocol)?;
            let _ = setsockopt(&socket, RcvBufForce, &(32 << 20));
            let groups = 1 << (RTNLGRP_IPV6_MROUTE_R - 1);
            bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
            Ok(socket)
        });
        Upcalls(opened.unwrap_or_else(|error| panic!("{}: netlink: {error}", namespace.label)))
    }

    /// The number since the last call. Those that found no room here count as one.
    pub fn so_far(&self) -> usize {
        let mut buffer = vec![0; 1 << 16];
        let mut count = 0;
        loop {
            match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(_) => {
                    let kind = u16::from_ne_bytes([buffer[4], buffer[5]]);
                    count += usize::from(kind == RTM_NEWCACHEREPORT);
                }
                Err(Errno::ENOBUFS) => count += 1,
                Err(Errno::EAGAIN) => return count,
                Err(error) => panic!("netlink: {error}"),
            }
        }
    }
}

/// Another program that owns the kernel's multicast table, until it is dropped.
pub struct TableOwner(#[expect(dead_code, reason = "it owns the table by being open")] OwnedFd);

impl TableOwner {
    /// Fails with `EADDRINUSE` if the table has an owner.
    pub fn new(namespace: &Namespace) -> nix::Result<Self> {
        namespace.within(|| {
            let flags = SockFlag::SOCK_CLOEXEC;
            let protocol = SockProtocol::IcmpV6;
            let socket = socket(AddressFamily::Inet6, SockType::Raw, flags, protocol)?;
            super::options::set_option(&socket, libc::IPPROTO_IPV6, MRT6_INIT, &1)?;
            Ok(TableOwner(socket))
        })
    }
}
