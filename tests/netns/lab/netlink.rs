//! Links, addresses, routes and neighbors by rtnetlink. The lab needs no program of the system for
//! them.

use std::collections::BTreeSet;
use std::io;
use std::net::Ipv6Addr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};

use super::Namespace;

const IFLA_BR_MCAST_SNOOPING: u16 = 23;
const IFLA_BR_MCAST_QUERIER: u16 = 25;
const IFLA_BR_MCAST_LAST_MEMBER_INTVL: u16 = 30;
const IFLA_BR_MCAST_QUERY_RESPONSE_INTVL: u16 = 34;
const IFLA_BR_MCAST_STARTUP_QUERY_INTVL: u16 = 35;
const IFLA_BR_MCAST_MLD_VERSION: u16 = 44;
const IFA_RT_PRIORITY: u16 = 9;
const VETH_INFO_PEER: u16 = 1;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IN6_ADDR_GEN_MODE_NONE: u8 = 1;
const MDBA_MDB: u16 = 1;
const MDBA_MDB_ENTRY: u16 = 1;
const MDBA_MDB_ENTRY_INFO: u16 = 1;
/// The length of `struct nlmsghdr`, and of the header before the attributes in each kind of
/// message.
const HEADER: usize = 16;
const LINK_HEADER: usize = 16;
const NEIGHBOR_HEADER: usize = 12;
const MDB_HEADER: usize = 8;

/// A bridge's multicast settings. `None` leaves one to the kernel.
#[derive(Clone, Copy, Default)]
pub struct BridgeOptions {
    pub snooping: Option<bool>,
    pub querier: Option<bool>,
    /// 1 or 2.
    pub mld_version: Option<u8>,
    /// Times in hundredths of a second.
    pub last_member_interval: Option<u64>,
    pub query_response_interval: Option<u64>,
    pub startup_query_interval: Option<u64>,
}

impl Namespace {
    /// Adds a pair of connected interfaces, one here and one in `peer`.
    #[track_caller]
    pub fn veth(&self, interface: &str, peer: &Self, peer_interface: &str) {
        self.numbered_veth(interface, 0, peer, peer_interface);
    }

    /// As [`Self::veth`], where the interface here gets this index unless that is 0.
    #[track_caller]
    pub fn numbered_veth(&self, interface: &str, index: u32, peer: &Self, peer_interface: &str) {
        let mut request = link_request(libc::NLM_F_CREATE | libc::NLM_F_EXCL, index);
        request.attribute(libc::IFLA_IFNAME, &name(interface));
        request.nest(libc::IFLA_LINKINFO, |info| {
            info.attribute(libc::IFLA_INFO_KIND, b"veth");
            info.nest(libc::IFLA_INFO_DATA, |data| {
                data.nest(VETH_INFO_PEER, |end| {
                    end.0.extend([0; LINK_HEADER]);
                    end.attribute(libc::IFLA_IFNAME, &name(peer_interface));
                    end.attribute(libc::IFLA_NET_NS_FD, &peer.fd.as_raw_fd().to_ne_bytes());
                });
            });
        });
        self.change(&format!("adding the veth {interface}"), request);
    }

    #[track_caller]
    pub fn add_bridge(&self, interface: &str, options: &BridgeOptions) {
        let mut request = link_request(libc::NLM_F_CREATE | libc::NLM_F_EXCL, 0);
        request.attribute(libc::IFLA_IFNAME, &name(interface));
        request.bridge(options);
        self.change(&format!("adding the bridge {interface}"), request);
    }

    /// As [`Self::add_bridge`], with this index unless that is 0, and with a fixed link-layer
    /// address, which a bridge otherwise takes from a port. It gets no link-local address by
    /// itself.
    #[track_caller]
    pub fn add_fixed_bridge(
        &self,
        interface: &str,
        index: u32,
        mac: [u8; 6],
        options: &BridgeOptions,
    ) {
        let mut request = link_request(libc::NLM_F_CREATE | libc::NLM_F_EXCL, index);
        request.attribute(libc::IFLA_IFNAME, &name(interface));
        request.attribute(libc::IFLA_ADDRESS, &mac);
        request.bridge(options);
        self.change(&format!("adding the bridge {interface}"), request);
        let mut request = link_request(0, self.index(interface));
        request.without_link_local();
        self.change(&format!("addresses of {interface}"), request);
    }

    #[track_caller]
    pub fn set_bridge(&self, interface: &str, options: &BridgeOptions) {
        let mut request = link_request(0, self.index(interface));
        request.bridge(options);
        self.change(&format!("setting the bridge {interface}"), request);
    }

    #[track_caller]
    pub fn set_up(&self, interface: &str) {
        let mut request = link_request(0, self.index(interface));
        request.raise();
        self.change(&format!("{interface} up"), request);
    }

    /// Makes an interface a port of a bridge, without a link-local address, and brings it up.
    #[track_caller]
    pub fn add_port(&self, bridge: &str, interface: &str) {
        let mut request = link_request(0, self.index(interface));
        request.raise();
        request.attribute(libc::IFLA_MASTER, &self.index(bridge).to_ne_bytes());
        request.without_link_local();
        self.change(&format!("{interface} to {bridge}"), request);
    }

    /// Adds an address and the route to its prefix. `None` is the kernel's own metric.
    #[track_caller]
    pub fn add_address(
        &self,
        interface: &str,
        address: Ipv6Addr,
        prefix_length: u8,
        metric: Option<u32>,
    ) {
        let [a, b, c, d] = self.index(interface).to_ne_bytes();
        // struct ifaddrmsg, without flags and with global scope.
        let header = [libc::AF_INET6 as u8, prefix_length, 0, 0, a, b, c, d];
        let flags = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
        let mut request = Message::request(libc::RTM_NEWADDR, flags, &header);
        request.attribute(libc::IFA_LOCAL, &address.octets());
        request.attribute(libc::IFA_ADDRESS, &address.octets());
        if let Some(metric) = metric {
            request.attribute(IFA_RT_PRIORITY, &metric.to_ne_bytes());
        }
        self.change(&format!("{address} on {interface}"), request);
    }

    /// Sets a route, and replaces one that is there.
    #[track_caller]
    pub fn set_route(
        &self,
        destination: Ipv6Addr,
        prefix_length: u8,
        via: Option<Ipv6Addr>,
        interface: &str,
    ) {
        let header = [
            [libc::AF_INET6 as u8, prefix_length, 0, 0],
            [libc::RT_TABLE_MAIN, libc::RTPROT_BOOT, 0, libc::RTN_UNICAST],
            [0; 4],
        ];
        let flags = libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
        let mut request = Message::request(libc::RTM_NEWROUTE, flags, header.as_flattened());
        if prefix_length > 0 {
            request.attribute(libc::RTA_DST, &destination.octets());
        }
        if let Some(via) = via {
            request.attribute(libc::RTA_GATEWAY, &via.octets());
        }
        request.attribute(libc::RTA_OIF, &self.index(interface).to_ne_bytes());
        self.change(&format!("route to {destination}/{prefix_length}"), request);
    }

    /// Forgets all neighbors. The next packet to one makes the kernel solicit it anew.
    #[track_caller]
    pub fn flush_neighbors(&self) {
        self.flush(None);
    }

    /// Forgets the neighbors of one interface.
    #[track_caller]
    pub fn flush_neighbors_of(&self, interface: &str) {
        self.flush(Some(interface));
    }

    #[track_caller]
    fn flush(&self, interface: Option<&str>) {
        let wanted = interface.map(|interface| self.index(interface).to_ne_bytes());
        for neighbor in self.neighbors(0) {
            let (header, attributes) = neighbor.split_at(NEIGHBOR_HEADER);
            let state = u16::from_ne_bytes([header[8], header[9]]);
            let lasts = state & (libc::NUD_PERMANENT | libc::NUD_NOARP) != 0;
            if lasts || wanted.is_some_and(|wanted| header[4..8] != wanted) {
                continue;
            }
            let mut request = Message::request(libc::RTM_DELNEIGH, 0, header);
            if let Some(address) = attribute(attributes, libc::NDA_DST) {
                request.attribute(libc::NDA_DST, address);
            }
            match self.talk(request) {
                // The entry ended by itself.
                Ok(_) | Err(Errno::ENOENT) => {}
                Err(error) => panic!("{}: forgetting neighbors: {error}", self.label),
            }
        }
    }

    /// The addresses for which the kernel answers on an interface as a proxy.
    #[track_caller]
    pub fn proxied(&self, interface: &str) -> BTreeSet<Ipv6Addr> {
        let index = self.index(interface).to_ne_bytes();
        let entries = self.neighbors(libc::NTF_PROXY);
        let here = entries.iter().filter(|entry| entry[4..8] == index);
        here.filter_map(|entry| ipv6(attribute(&entry[NEIGHBOR_HEADER..], libc::NDA_DST)?))
            .collect()
    }

    /// The groups in a bridge's multicast database that go to a port.
    #[track_caller]
    pub fn mdb(&self, bridge: &str, port: &str) -> BTreeSet<Ipv6Addr> {
        let (bridge, port) = (self.index(bridge), self.index(port).to_ne_bytes());
        let mut header = [0; MDB_HEADER];
        header[0] = libc::AF_BRIDGE as u8;
        header[4..].copy_from_slice(&bridge.to_ne_bytes());
        let answers = self.dump("the MDB", Message::request(libc::RTM_GETMDB, DUMP, &header));
        let of_bridge = answers
            .iter()
            .filter(|answer| answer[4..8] == bridge.to_ne_bytes());
        let databases = of_bridge.flat_map(|answer| attributes(&answer[MDB_HEADER..]));
        databases
            .filter(|(kind, _)| *kind == MDBA_MDB)
            .flat_map(|(_, entries)| attributes(entries))
            .filter(|(kind, _)| *kind == MDBA_MDB_ENTRY)
            .flat_map(|(_, entry)| attributes(entry))
            // struct br_mdb_entry: the port, state, flags, VLAN, then the address and its protocol.
            .filter(|(kind, info)| *kind == MDBA_MDB_ENTRY_INFO && info[..4] == port)
            .filter_map(|(_, info)| ipv6(&info[8..24]).filter(Ipv6Addr::is_multicast))
            .collect()
    }

    #[track_caller]
    fn neighbors(&self, flags: u8) -> Vec<Vec<u8>> {
        let mut header = [0; NEIGHBOR_HEADER];
        header[0] = libc::AF_INET6 as u8;
        header[10] = flags;
        self.dump(
            "neighbors",
            Message::request(libc::RTM_GETNEIGH, DUMP, &header),
        )
    }

    #[track_caller]
    fn index(&self, interface: &str) -> u32 {
        let index = self.within(|| if_nametoindex(interface));
        index.unwrap_or_else(|error| panic!("{}: {interface}: {error}", self.label))
    }

    #[track_caller]
    fn change(&self, what: &str, request: Message) {
        match self.talk(request) {
            Ok(_) => {}
            Err(Errno::EOPNOTSUPP) => panic!("{}: {what}: this kernel cannot do it", self.label),
            Err(error) => panic!("{}: {what}: {error}", self.label),
        }
    }

    #[track_caller]
    pub(super) fn dump(&self, what: &str, request: Message) -> Vec<Vec<u8>> {
        let answers = self.talk(request);
        answers.unwrap_or_else(|error| panic!("{}: {what}: {error}", self.label))
    }

    /// Sends a request. Returns the answers without their headers, once the last one has come.
    fn talk(&self, request: Message) -> nix::Result<Vec<Vec<u8>>> {
        let (kind, flags) = (SockType::Raw, SockFlag::SOCK_CLOEXEC);
        let protocol = SockProtocol::NetlinkRoute;
        let socket: OwnedFd =
            self.within(|| socket(AddressFamily::Netlink, kind, flags, protocol))?;
        send(socket.as_raw_fd(), &request.finish(), MsgFlags::empty())?;
        let mut answers = Vec::new();
        let mut buffer = vec![0; 1 << 16];
        loop {
            let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
            let mut rest = &buffer[..length];
            while let Some(length) = rest.first_chunk().map(|octets| u32::from_ne_bytes(*octets)) {
                let (message, behind) = rest.split_at(length as usize);
                rest = behind.get(padding(length as usize)..).unwrap_or_default();
                match i32::from(u16::from_ne_bytes([message[4], message[5]])) {
                    libc::NLMSG_ERROR => {
                        let code = message[HEADER..].first_chunk().expect("a code of 4 octets");
                        return match i32::from_ne_bytes(*code) {
                            0 => Ok(answers),
                            code => Err(Errno::from_raw(-code)),
                        };
                    }
                    libc::NLMSG_DONE => return Ok(answers),
                    _ => answers.push(message[HEADER..].to_vec()),
                }
            }
        }
    }
}

const DUMP: i32 = libc::NLM_F_DUMP;

/// A message under construction.
pub(super) struct Message(Vec<u8>);

impl Message {
    /// A request of a kind, with these flags and the header before its attributes.
    pub(super) fn request(kind: u16, flags: i32, header: &[u8]) -> Self {
        let acknowledged = if flags & DUMP == DUMP {
            0
        } else {
            libc::NLM_F_ACK
        };
        let flags = (libc::NLM_F_REQUEST | acknowledged | flags) as u16;
        let mut octets = vec![0; 4];
        octets.extend(kind.to_ne_bytes());
        octets.extend(flags.to_ne_bytes());
        octets.extend([0; 8]);
        octets.extend(header);
        Self(octets)
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.nest(kind, |inside| inside.0.extend(value));
    }

    /// Adds an attribute that contains what `fill` adds.
    fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.0.len();
        self.0.extend([0; 2]);
        self.0.extend(kind.to_ne_bytes());
        fill(self);
        let length = self.0.len() - start;
        let written = u16::try_from(length)
            .expect("a short attribute")
            .to_ne_bytes();
        self.0[start..start + 2].copy_from_slice(&written);
        self.0.resize(start + length + padding(length), 0);
    }

    /// Sets IFF_UP in a message about a link.
    fn raise(&mut self) {
        let up = (libc::IFF_UP as u32).to_ne_bytes();
        self.0[HEADER + 8..HEADER + 12].copy_from_slice(&up);
        self.0[HEADER + 12..HEADER + 16].copy_from_slice(&up);
    }

    /// Keeps the kernel from giving a link a link-local address.
    fn without_link_local(&mut self) {
        self.nest(libc::IFLA_AF_SPEC, |families| {
            families.nest(libc::AF_INET6 as u16, |inet6| {
                inet6.attribute(IFLA_INET6_ADDR_GEN_MODE, &[IN6_ADDR_GEN_MODE_NONE]);
            });
        });
    }

    fn bridge(&mut self, options: &BridgeOptions) {
        self.nest(libc::IFLA_LINKINFO, |info| {
            info.attribute(libc::IFLA_INFO_KIND, b"bridge");
            info.nest(libc::IFLA_INFO_DATA, |data| {
                let octets = [
                    (IFLA_BR_MCAST_SNOOPING, options.snooping.map(u8::from)),
                    (IFLA_BR_MCAST_QUERIER, options.querier.map(u8::from)),
                    (IFLA_BR_MCAST_MLD_VERSION, options.mld_version),
                ];
                for (kind, value) in octets {
                    value
                        .into_iter()
                        .for_each(|value| data.attribute(kind, &[value]));
                }
                let response = options.query_response_interval;
                let intervals = [
                    (
                        IFLA_BR_MCAST_LAST_MEMBER_INTVL,
                        options.last_member_interval,
                    ),
                    (IFLA_BR_MCAST_QUERY_RESPONSE_INTVL, response),
                    (
                        IFLA_BR_MCAST_STARTUP_QUERY_INTVL,
                        options.startup_query_interval,
                    ),
                ];
                for (kind, value) in intervals {
                    let value = value.map(u64::to_ne_bytes);
                    value
                        .into_iter()
                        .for_each(|value| data.attribute(kind, &value));
                }
            });
        });
    }

    fn finish(mut self) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).expect("a short message");
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self.0
    }
}

/// A request about the link with this index, or for a new link where that is 0.
fn link_request(flags: i32, index: u32) -> Message {
    let mut header = [0; LINK_HEADER];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    Message::request(libc::RTM_NEWLINK, flags, &header)
}

fn name(interface: &str) -> Vec<u8> {
    [interface.as_bytes(), b"\0"].concat()
}

/// The number of octets to the next multiple of 4.
fn padding(length: usize) -> usize {
    length.wrapping_neg() % 4
}

pub(super) fn attribute(octets: &[u8], wanted: u16) -> Option<&[u8]> {
    let found = attributes(octets).find(|(kind, _)| *kind == wanted);
    found.map(|(_, value)| value)
}

pub(super) fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let [a, b, c, d] = *rest.first_chunk()?;
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let kind = u16::from_ne_bytes([c, d]) & !(libc::NLA_F_NESTED as u16);
        let value = rest.get(4..length)?;
        rest = rest.get(length + padding(length)..).unwrap_or_default();
        Some((kind, value))
    })
}

pub(super) fn ipv6(octets: &[u8]) -> Option<Ipv6Addr> {
    Some(Ipv6Addr::from_octets(*octets.first_chunk()?))
}
