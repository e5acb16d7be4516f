//! Decodes the entries of multicast routing, with what the kernel counted of each.

use std::net::Ipv6Addr;

use super::message::{
    IPV6_MULTICAST, Message, ROUTE_HEADER, Request, attributes, next_hops, u32_at, u64_at,
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
        next_hops(self.0).map(|(index, _)| index)
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

/// What a message says; `None` if it is malformed, or if no program made the entry yet.
pub fn stream<'a>(message: &Message<'a>) -> Option<Stream<'a>> {
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

#[cfg(test)]
mod tests {
    use super::super::message::{Request, messages};
    use super::*;

    const SOURCE: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    const GROUP: Ipv6Addr = Ipv6Addr::new(0xff3e, 0, 0, 0, 0, 0, 0x8000, 1);

    /// The message of an entry in the table 100, as net/ipv6/ip6mr.c and net/ipv4/ipmr_base.c write
    /// it, with the attributes that `wanted` takes.
    fn entry(flags: u32, wanted: impl Fn(u16) -> bool) -> Vec<u8> {
        let mut header = [129, 128, 128, 0, 100, 17, 0, 5, 0, 0, 0, 0];
        header[8..].copy_from_slice(&flags.to_ne_bytes());
        let next_hop = |index: u32| {
            let [low, high] = 8_u16.to_ne_bytes();
            [&[low, high, 0, 1][..], &index.to_ne_bytes()].concat()
        };
        let next_hops = [next_hop(4), next_hop(5)].concat();
        let counters: Vec<_> = [7_u64, 336, 2].map(u64::to_ne_bytes).concat();
        let mut message = Request::new(libc::RTM_NEWROUTE, libc::NLM_F_MULTI, &header);
        for (kind, value) in [
            (libc::RTA_TABLE, &100_u32.to_ne_bytes()[..]),
            (libc::RTA_SRC, &SOURCE.octets()),
            (libc::RTA_DST, &GROUP.octets()),
            (libc::RTA_IIF, &3_u32.to_ne_bytes()),
            (libc::RTA_MULTIPATH, &next_hops),
            (libc::RTA_MFC_STATS, &counters),
            (RTA_EXPIRES, &250_u64.to_ne_bytes()),
        ] {
            if wanted(kind) {
                message.attribute(kind, value);
            }
        }
        message.octets().to_vec()
    }

    fn told(octets: &[u8]) -> Option<Stream<'_>> {
        let message = messages(octets).next().unwrap();
        stream(&message)
    }

    #[test]
    fn an_entry_tells_where_it_forwards_and_what_it_counted() {
        let octets = entry(0, |_| true);
        let stream = told(&octets).unwrap();
        assert_eq!((stream.source, stream.group), (SOURCE, GROUP));
        assert_eq!((stream.table, stream.incoming), (100, Some(3)));
        assert!(stream.outgoing.indexes().eq([4, 5]));
        let counted = (stream.packets, stream.octets, stream.wrong_interface);
        assert_eq!((counted, stream.idle), ((7, 336, 2), Some(250)));
    }

    #[test]
    fn what_an_entry_does_not_tell_is_none() {
        // The entry for any group has no incoming interface, and drops.
        let unbound = [libc::RTA_IIF, libc::RTA_MULTIPATH, RTA_EXPIRES];
        let octets = entry(0, |kind| !unbound.contains(&kind));
        let stream = told(&octets).unwrap();
        assert_eq!((stream.incoming, stream.idle), (None, None));
        assert_eq!(stream.outgoing.indexes().count(), 0);
        for needed in [libc::RTA_SRC, libc::RTA_DST, libc::RTA_MFC_STATS] {
            let octets = entry(0, |kind| kind != needed);
            assert_eq!(told(&octets), None, "{needed}");
        }
        let unresolved = entry(RTNH_F_UNRESOLVED, |_| true);
        assert_eq!(told(&unresolved), None);
    }

    #[test]
    fn next_hops_of_any_length_end() {
        assert_eq!(Outgoing(&[0; 64]).indexes().count(), 8);
        assert_eq!(Outgoing(&[0xff; 64]).indexes().count(), 1);
        assert_eq!(Outgoing(&[8, 0, 0, 0, 1, 0]).indexes().count(), 0);
    }
}
