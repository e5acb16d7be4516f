//! Decodes the entries of multicast routing, with what the kernel counted of each.

use std::net::Ipv6Addr;

use super::message::{
    IPV6_MULTICAST, Message, ROUTE_HEADER, Request, attributes, u16_at, u32_at, u64_at,
};
use super::tables::Tables;

/// An entry of multicast routing. An entry for any source counts the packets of all sources that
/// have no entry of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream<'a> {
    /// The number of the table.
    pub table: u32,
    /// `::` for any source.
    pub source: Ipv6Addr,
    /// `::` for any group.
    pub group: Ipv6Addr,
    /// The index of the incoming interface; `None` if no interface has the entry's number.
    pub incoming: Option<u32>,
    pub outgoing: Outgoing<'a>,
    /// The packets and octets that the entry matched, whether or not they were forwarded.
    pub packets: u64,
    pub octets: u64,
    /// Those of the packets that arrived on a wrong interface, and were dropped.
    pub wrong_interface: u64,
    /// The time since the last packet, or since the entry was last set, in units of 10 ms; `None`
    /// if the message does not tell.
    pub idle: Option<u64>,
}

/// The interfaces that an entry forwards to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outgoing<'a>(&'a [u8]);

impl Outgoing<'_> {
    /// The index of each interface.
    pub fn indexes(&self) -> impl Iterator<Item = u32> {
        let mut rest = self.0;
        // struct rtnexthop: length, flags, hops, and the index of the interface.
        std::iter::from_fn(move || {
            let length = usize::from(u16_at(rest, 0)?).max(NEXT_HOP);
            let index = u32_at(rest, 4)?;
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            Some(index)
        })
    }
}

impl Tables {
    /// Calls `told` with each entry of multicast routing, of all tables. Reads into `buffer`, which
    /// has room for 8 kB.
    ///
    /// # Errors
    /// The error number by which the kernel refused the listing.
    pub fn for_each_stream(
        &self,
        buffer: &mut [u8],
        told: &mut dyn FnMut(Stream<'_>),
    ) -> nix::Result<()> {
        let mut header = [0; ROUTE_HEADER];
        header[0] = IPV6_MULTICAST as u8;
        let question = Request::new(libc::RTM_GETROUTE, libc::NLM_F_DUMP, &header);
        self.dump(question, buffer, &mut |message| {
            if let Some(stream) = stream(message) {
                told(stream);
            }
        })
    }
}

/// Whether a message is of multicast routing.
pub(super) fn is_one(message: &Message<'_>) -> bool {
    let family = message.body.first().copied();
    family.is_some_and(|family| i32::from(family) == IPV6_MULTICAST)
}

/// What a message says; `None` if it is malformed, or if no program made the entry yet.
pub(super) fn stream<'a>(message: &Message<'a>) -> Option<Stream<'a>> {
    let table = *message.body.get(4)?;
    let flags = u32_at(message.body, 8)?;
    if flags & RTNH_F_UNRESOLVED != 0 {
        return None;
    }
    let (mut source, mut group, mut counted) = (None, None, None);
    let (mut table, mut incoming, mut idle) = (table.into(), None, None);
    let mut outgoing = Outgoing::default();
    for (kind, value) in attributes(message.body.get(ROUTE_HEADER..)?) {
        match kind {
            libc::RTA_SRC => source = value.first_chunk::<16>(),
            libc::RTA_DST => group = value.first_chunk::<16>(),
            libc::RTA_IIF => incoming = Some(u32_at(value, 0)?),
            libc::RTA_TABLE => table = u32_at(value, 0)?,
            libc::RTA_MULTIPATH => outgoing = Outgoing(value),
            // struct rta_mfc_stats
            libc::RTA_MFC_STATS => {
                counted = Some((u64_at(value, 0)?, u64_at(value, 8)?, u64_at(value, 16)?));
            }
            RTA_EXPIRES => idle = Some(u64_at(value, 0)?),
            _ => {}
        }
    }
    let (packets, octets, wrong_interface) = counted?;
    Some(Stream {
        table,
        source: Ipv6Addr::from(*source?),
        group: Ipv6Addr::from(*group?),
        incoming,
        outgoing,
        packets,
        octets,
        wrong_interface,
        idle,
    })
}

// linux/rtnetlink.h
const RTA_EXPIRES: u16 = 23;
const RTNH_F_UNRESOLVED: u32 = 32;
/// The octets of `struct rtnexthop`.
const NEXT_HOP: usize = 8;
