//! This program's part of the kernel's tables: proxy entries, and routes to hosts. The rules of
//! multicast routing are in [`multicast_rules`](super::multicast_rules).
//!
//! rtnetlink does its work inside of send(2), so the answer can be read at once. This socket keeps
//! answers apart from the dumps and news that [`Netlink`](super::Netlink) reads.
//!
//! The kernel reports neither new nor removed proxy entries. It removes them when the interface is
//! set down or loses its IPv6, and mostly when it loses its carrier. It removes routes when the
//! interface is set down.

use std::cell::Cell;
use std::net::Ipv6Addr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, socket};

use super::message::{
    Message, NDA_PROTOCOL, NEIGHBOR_FLAGS, NEIGHBOR_HEADER, ROUTE_HEADER, Request, attributes,
    messages, u32_at,
};
use super::siblings::Number;

/// The mark of this program's entries and routes (`NDA_PROTOCOL`, `rtm_protocol`), which outlive a
/// process that is killed. Programs may choose numbers above `RTPROT_STATIC`, and iproute2's
/// rt_protos assigns this one to nobody. Another [`Number`] has another mark for its entries.
pub const PROTOCOL: u8 = 77;

/// The metric of the routes of number 0, which the kernel also gives to a route that is added
/// without a metric (`IP6_RT_PRIO_USER`).
pub const METRIC: u32 = 1024;

/// Who made an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// This instance or another instance of this program, which answers as well.
    Own,
    /// Another program, or a person.
    Foreign,
}

/// Changes the tables, which takes `CAP_NET_ADMIN`.
pub struct Tables {
    socket: OwnedFd,
    /// The sequence number of the last request.
    sequence: Cell<u32>,
    /// The number of this instance.
    number: Number,
}

impl Tables {
    /// Opens a socket whose entries have the mark of `number`.
    pub fn open(number: Number) -> nix::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )?;
        Ok(Tables {
            socket,
            sequence: Cell::new(0),
            number,
        })
    }

    pub fn number(&self) -> Number {
        self.number
    }

    /// Has the kernel answer on an interface for `address`, as for a router, and be in its group. A
    /// foreign entry for the address stays as it is.
    ///
    /// # Errors
    /// `ENODEV` if the interface is gone, `ENOBUFS` if its MTU is too small for IPv6, `EPERM`
    /// without the capability, and `EOPNOTSUPP` before Linux 5.0, which does not tell who made an
    /// entry.
    pub fn add_proxy(&self, index: u32, address: Ipv6Addr) -> nix::Result<Owner> {
        // The kernel ignores NLM_F_EXCL here, and would take over an entry that is there.
        match self.proxy(index, address)? {
            Some(mark) if Number::of_mark(mark).is_some() => Ok(Owner::Own),
            Some(_) => Ok(Owner::Foreign),
            None => self.make_proxy(index, address).map(|()| Owner::Own),
        }
    }

    /// Makes the entry of another instance this one's, or adds one that is gone. The entry is there
    /// all the time.
    ///
    /// # Errors
    /// As [`add_proxy`](Self::add_proxy).
    pub fn hold_proxy(&self, index: u32, address: Ipv6Addr) -> nix::Result<()> {
        match self.proxy(index, address)? {
            Some(mark) if mark == self.number.mark() || Number::of_mark(mark).is_none() => Ok(()),
            Some(_) | None => self.make_proxy(index, address),
        }
    }

    /// Removes this instance's entry. Returns whether there was one. The entry of another instance
    /// or program stays.
    ///
    /// # Errors
    /// As [`add_proxy`](Self::add_proxy), but for `ENODEV`.
    pub fn remove_proxy(&self, index: u32, address: Ipv6Addr) -> nix::Result<bool> {
        let result = match self.proxy(index, address) {
            Ok(Some(mark)) if mark == self.number.mark() => {
                let entry = (index, address, self.number);
                self.change(proxy_change(libc::RTM_DELNEIGH, 0, entry))
            }
            Ok(_) => return Ok(false),
            result => result.map(drop),
        };
        let removed = result.is_ok();
        unless_gone(result).map(|()| removed)
    }

    fn make_proxy(&self, index: u32, address: Ipv6Addr) -> nix::Result<()> {
        let entry = (index, address, self.number);
        self.change(proxy_change(libc::RTM_NEWNEIGH, libc::NLM_F_CREATE, entry))
    }

    /// Routes packets to `address` out of an interface, in the table with this number. Succeeds
    /// also if such a route is there, by whatever program. A route to another interface with the
    /// same metric stays as well, and wins until it is removed.
    ///
    /// # Errors
    /// `ENETDOWN` if the interface is down, `ENODEV` if it is gone, `EACCES` if its IPv6 is off,
    /// `EPERM` without the capability.
    pub fn add_route(&self, index: u32, table: u32, address: Ipv6Addr) -> nix::Result<()> {
        // With NLM_F_EXCL the kernel would refuse this if there is a route to another interface.
        let route = (index, table, address, self.number);
        match self.change(route_change(libc::RTM_NEWROUTE, libc::NLM_F_CREATE, route)) {
            Err(Errno::EEXIST) => Ok(()),
            result => result,
        }
    }

    /// Removes a route of [`add_route`](Self::add_route). Succeeds also if there is none.
    pub fn remove_route(&self, index: u32, table: u32, address: Ipv6Addr) -> nix::Result<()> {
        self.remove_route_of(self.number, (index, table), address)
    }

    /// Makes the route of an instance that is gone this one's. There is a route all the time.
    ///
    /// # Errors
    /// As [`add_route`](Self::add_route).
    pub fn hold_route(
        &self,
        from: Number,
        (index, table): (u32, u32),
        address: Ipv6Addr,
    ) -> nix::Result<()> {
        self.add_route(index, table, address)?;
        self.remove_route_of(from, (index, table), address)
    }

    fn remove_route_of(
        &self,
        number: Number,
        (index, table): (u32, u32),
        address: Ipv6Addr,
    ) -> nix::Result<()> {
        let route = (index, table, address, number);
        unless_gone(self.change(route_change(libc::RTM_DELROUTE, 0, route)))
    }

    /// The mark of an entry, 0 if it has none; `None` if there is no entry.
    fn proxy(&self, index: u32, address: Ipv6Addr) -> nix::Result<Option<u8>> {
        let request = proxy_question(index, address);
        match self.exchange(request, &mut [0; ANSWER_LENGTH]) {
            Ok(message) => protocol_of(&message).map(Some),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    pub(super) fn change(&self, request: Request) -> nix::Result<()> {
        self.exchange(request, &mut [0; ANSWER_LENGTH]).map(drop)
    }

    /// Sends a request, and returns the kernel's answer. It is an acknowledgment if there is
    /// nothing to tell.
    ///
    /// # Errors
    /// The error number by which the kernel refused it; `EAGAIN` if it did not answer.
    fn exchange<'b>(
        &self,
        request: Request,
        answer: &'b mut [u8; ANSWER_LENGTH],
    ) -> nix::Result<Message<'b>> {
        let sequence = self.send(request)?;
        let length = loop {
            let length = recv(self.socket.as_raw_fd(), answer, MsgFlags::MSG_DONTWAIT)?;
            // The answer to an earlier request, which could not be read in time, comes first.
            if u32_at(answer, 8) == Some(sequence) {
                break length;
            }
        };
        told(&answer[..length])
    }

    /// Sends the request for a dump, and hands on each message of it. Reads into `buffer`, which
    /// has room for the 8 kB of a datagram.
    ///
    /// # Errors
    /// The error number by which the kernel refused it; `EMSGSIZE` if the buffer is too small.
    pub(super) fn dump(
        &self,
        request: Request,
        buffer: &mut [u8],
        told: &mut dyn FnMut(&Message<'_>),
    ) -> nix::Result<()> {
        let sequence = self.send(request)?;
        loop {
            // The kernel writes the next part of a dump when the part before is read.
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
            let length = recv(self.socket.as_raw_fd(), buffer, flags)?;
            let datagram = buffer.get(..length).ok_or(Errno::EMSGSIZE)?;
            for message in messages(datagram).filter(|message| message.sequence == sequence) {
                match i32::from(message.message_type) {
                    libc::NLMSG_DONE => return Ok(()),
                    libc::NLMSG_ERROR => return message.result(),
                    _ => told(&message),
                }
            }
        }
    }

    /// Sends a request with the next sequence number, and returns that.
    fn send(&self, request: Request) -> nix::Result<u32> {
        let sequence = self.sequence.get().wrapping_add(1);
        self.sequence.set(sequence);
        request.send(&self.socket, sequence)?;
        Ok(sequence)
    }
}

/// Room for an entry, or for an error with the request that it is about.
const ANSWER_LENGTH: usize = 512;

/// Asks for an entry.
fn proxy_question(index: u32, address: Ipv6Addr) -> Request {
    // The kernel refuses this question with any other flag, or with a state.
    let header = neighbor_header(index, 0, libc::NTF_PROXY);
    let mut request = Request::new(libc::RTM_GETNEIGH, 0, &header);
    request.attribute(libc::NDA_DST, &address.octets());
    request
}

fn proxy_change(
    message_type: u16,
    flags: i32,
    (index, address, number): (u32, Ipv6Addr, Number),
) -> Request {
    // When the interface loses its carrier, the kernel removes entries that are not permanent.
    // Kernels before Linux 6.17 remove all of them, except for later stable ones (6.12.43, say).
    let entry_flags = libc::NTF_PROXY | libc::NTF_ROUTER;
    let header = neighbor_header(index, libc::NUD_PERMANENT, entry_flags);
    let mut request = Request::new(message_type, libc::NLM_F_ACK | flags, &header);
    request.attribute(libc::NDA_DST, &address.octets());
    request.attribute(NDA_PROTOCOL, &[number.mark()]);
    request
}

fn route_change(
    message_type: u16,
    flags: i32,
    (index, table, address, number): (u32, u32, Ipv6Addr, Number),
) -> Request {
    // struct rtmsg: family, length, length of the source, TOS, table, protocol, scope, type, flags.
    // IPv6 ignores the scope. The table has one octet here, and the attribute wins.
    let mut header = [0; ROUTE_HEADER];
    header[..8].copy_from_slice(&[
        libc::AF_INET6 as u8,
        128,
        0,
        0,
        libc::RT_TABLE_UNSPEC,
        PROTOCOL,
        libc::RT_SCOPE_UNIVERSE,
        libc::RTN_UNICAST,
    ]);
    let mut request = Request::new(message_type, libc::NLM_F_ACK | flags, &header);
    request.attribute(libc::RTA_DST, &address.octets());
    request.attribute(libc::RTA_OIF, &index.to_ne_bytes());
    request.attribute(libc::RTA_PRIORITY, &number.metric().to_ne_bytes());
    request.attribute(libc::RTA_TABLE, &table.to_ne_bytes());
    request
}

/// `struct ndmsg`.
fn neighbor_header(index: u32, state: u16, flags: u8) -> [u8; NEIGHBOR_HEADER] {
    let mut header = [0; NEIGHBOR_HEADER];
    header[0] = libc::AF_INET6 as u8;
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..10].copy_from_slice(&state.to_ne_bytes());
    header[NEIGHBOR_FLAGS] = flags;
    header
}

/// Reads an answer.
fn told(answer: &[u8]) -> nix::Result<Message<'_>> {
    let message = messages(answer).next().ok_or(Errno::EBADMSG)?;
    if i32::from(message.message_type) == libc::NLMSG_ERROR {
        message.result()?;
    }
    Ok(message)
}

/// The mark of the entry in a message.
fn protocol_of(message: &Message<'_>) -> nix::Result<u8> {
    let entry = message.body.get(NEIGHBOR_HEADER..).ok_or(Errno::EBADMSG)?;
    let mut attributes = attributes(entry);
    let protocol = attributes.find(|(kind, _)| *kind == NDA_PROTOCOL);
    Ok(protocol
        .and_then(|(_, value)| value.first().copied())
        .unwrap_or(0))
}

/// It counts as removed if it is not there, or if its interface is not there.
pub(super) fn unless_gone(result: nix::Result<()>) -> nix::Result<()> {
    match result {
        Err(Errno::ENOENT | Errno::ESRCH | Errno::ENODEV) => Ok(()),
        result => result,
    }
}

// The messages are in the byte order of the machine that they were recorded on.
#[cfg(all(test, target_endian = "little"))]
mod tests {
    use super::*;

    const HOST: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0xa);

    #[test]
    fn an_entry_is_asked_for_without_a_state_and_is_permanent_where_it_is_made() {
        let mut question = proxy_question(3, HOST);
        let asked = question.octets();
        assert_eq!(asked[16..28], [10, 0, 0, 0, 3, 0, 0, 0, 0, 0, 8, 0]);
        assert_eq!(asked[28..32], [20, 0, 1, 0], "NDA_DST");
        assert_eq!(asked[32..], HOST.octets());

        let mut change = proxy_change(
            libc::RTM_NEWNEIGH,
            libc::NLM_F_CREATE,
            (3, HOST, Number::default()),
        );
        let made = change.octets();
        assert_eq!(made[..8], [56, 0, 0, 0, 28, 0, 5, 4]);
        assert_eq!(made[16..28], [10, 0, 0, 0, 3, 0, 0, 0, 0x80, 0, 0x88, 0]);
        assert_eq!(made[48..], [5, 0, 12, 0, PROTOCOL, 0, 0, 0], "NDA_PROTOCOL");
    }

    #[test]
    fn a_route_names_its_interface_metric_table_and_maker() {
        let route = (5, 1000, HOST, Number::default());
        let mut change = route_change(libc::RTM_DELROUTE, 0, route);
        let octets = change.octets();
        assert_eq!(octets[..8], [72, 0, 0, 0, 25, 0, 5, 0]);
        let header = [10, 128, 0, 0, 0, PROTOCOL, 0, 1, 0, 0, 0, 0];
        assert_eq!(octets[16..28], header);
        assert_eq!(octets[48..56], [8, 0, 4, 0, 5, 0, 0, 0], "RTA_OIF");
        assert_eq!(octets[56..64], [8, 0, 6, 0, 0, 4, 0, 0], "RTA_PRIORITY");
        assert_eq!(octets[64..], [8, 0, 15, 0, 0xe8, 3, 0, 0], "RTA_TABLE");
    }

    #[test]
    fn an_entry_tells_whose_it_is() {
        // Recorded from `ip -6 neigh add proxy 2001:db8::a dev wan router protocol 77`.
        let mut entry = vec![
            0x38, 0, 0, 0, 28, 0, 0, 0, 5, 0, 0, 0, 0x30, 0x69, 0x8c, 0xa1,
        ];
        entry.extend([10, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0x88, 1, 20, 0, 1, 0]);
        entry.extend(HOST.octets());
        entry.extend([5, 0, 12, 0, 77, 0, 0, 0]);
        let told_of = |octets: &[u8]| told(octets).and_then(|message| protocol_of(&message));
        assert_eq!(told_of(&entry), Ok(PROTOCOL));
        // The same without `protocol 77`.
        entry.truncate(0x30);
        entry[0] = 0x30;
        assert_eq!(told_of(&entry), Ok(0));
        entry.truncate(20);
        assert_eq!(told_of(&entry), Err(Errno::EBADMSG));
    }

    #[test]
    fn a_refusal_is_an_error_but_where_there_is_nothing_to_remove() {
        let answer = |errno: i32| {
            let mut octets = [0; 36];
            octets[..8].copy_from_slice(&[36, 0, 0, 0, libc::NLMSG_ERROR as u8, 0, 0, 0]);
            octets[16..20].copy_from_slice(&(-errno).to_ne_bytes());
            told(&octets).map(drop)
        };
        assert_eq!(answer(0), Ok(()));
        for errno in [libc::ENOENT, libc::ESRCH, libc::ENODEV] {
            assert_eq!(answer(errno), Err(Errno::from_raw(errno)));
            assert_eq!(unless_gone(answer(errno)), Ok(()));
        }
        assert_eq!(unless_gone(answer(libc::EPERM)), Err(Errno::EPERM));
    }
}
