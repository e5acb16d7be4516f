//! An attacker: it sends any frame, in anybody's name, and sees only what reaches its port.

use std::net::Ipv6Addr;

use protocol::link::Link;
use protocol::time::{Duration, Instant};
use protocol::wire::{
    ALL_NODES, Done, MacAddress, Message, NeighborAdvertisement, RecordType, ReportV1,
    SolicitedNode,
};

use super::{Frame, Place, Random};
use crate::packets::{advertisement, emitted, report, solicitation_by};

/// In whose name an attacker answers what it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    /// It only claims.
    Nothing,
    InItsOwnName,
    /// With the link-layer address that a question is for, and by multicast with the owner's.
    InTheOwnersName,
}

/// The host that an attacker is after.
#[derive(Clone, Copy, Debug)]
pub struct Owner {
    pub mac: MacAddress,
    pub link_local: Ipv6Addr,
    pub address: Ipv6Addr,
}

/// An attacker, which knows its victim.
#[derive(Clone, Debug)]
pub struct Attacker {
    pub place: Place,
    pub owner: Owner,
    pub macs: Vec<MacAddress>,
    /// It sends in the owner's name too.
    pub poses: bool,
    pub answers: Answers,
    /// It sends advertisements too, which answer whoever happens to ask.
    pub advertises: bool,
    /// It makes up hosts and addresses without end.
    pub floods: bool,
    /// The most frames at once, and the longest time until more follow.
    pub most_at_once: u64,
    pub longest_pause: Duration,
    /// When it sends its next frame.
    pub next: Instant,
    left: u64,
}

impl Attacker {
    pub fn new(place: Place, owner: Owner, mac: MacAddress, first: Instant) -> Self {
        Attacker {
            place,
            owner,
            macs: vec![mac],
            poses: false,
            answers: Answers::Nothing,
            advertises: true,
            floods: false,
            most_at_once: 1,
            longest_pause: Duration::from_secs(1),
            next: first,
            left: 0,
        }
    }

    /// The next frame.
    pub(super) fn attack(&mut self, now: Instant, router: &Link, random: &mut Random) -> Frame {
        match self.left.checked_sub(1) {
            // The next one comes a millisecond later, or as fast as the wire can carry it.
            Some(left) => {
                self.left = left;
                self.next = now.saturating_add(Duration::from_millis(random.below(2)));
            }
            None => {
                self.left = random.below(self.most_at_once);
                self.next = now.saturating_add(random.delay(self.longest_pause));
            }
        }
        let mut source = random.pick(&self.macs);
        if self.poses && random.once_in(2) {
            source = self.owner.mac;
        } else if self.floods && random.once_in(2) {
            source = MacAddress([6, 0, 0, 0, random.below(256) as u8, random.below(256) as u8]);
        }
        let packet = self.forge(source, router, random);
        let destination = router_is_named(&packet, router).then_some(router.mac);
        Frame {
            source,
            destination,
            packet,
        }
    }

    /// Any packet that may do harm.
    fn forge(&self, source: MacAddress, router: &Link, random: &mut Random) -> Vec<u8> {
        let Owner { address, .. } = self.owner;
        let router = router.link_local.expect("the router has one on each link");
        let link_local = self.link_local(random);
        let group = SolicitedNode::of(address).group();
        let elsewhere = Ipv6Addr::from_bits(address.to_bits() ^ u128::from(random.below(64)) << 24);
        let answers = self.answers != Answers::Nothing;
        match random.below(16) {
            // Claims of the address.
            0..=2 => solicitation_by(address, router, Some(source)),
            3..=4 => solicitation_by(Ipv6Addr::UNSPECIFIED, address, None),
            5 if self.advertises => advertisement(address, ALL_NODES, address),
            // Answers to questions that it may not have seen.
            6..=7 if answers => advertisement(address, router, address),
            8 if answers => advertisement(link_local, router, address),
            9 if answers => report(link_local, &[(RecordType::ModeIsExclude, group)]),
            10 if answers => {
                let source = link_local;
                emitted(|buffer| ReportV1 { source, group }.emit(buffer))
            }
            // The group is left.
            6 | 11 => report(link_local, &[(RecordType::ChangeToInclude, group)]),
            7 | 12 => {
                let source = link_local;
                emitted(|buffer| Done { source, group }.emit(buffer))
            }
            // Another link-local address in the sender's name.
            8 | 13 => solicitation_by(link_local, router, Some(source)),
            // It looks for the address, or for others.
            9 | 14 => solicitation_by(link_local, address, Some(source)),
            _ if self.floods => {
                let target =
                    Ipv6Addr::from_bits(address.to_bits() ^ u128::from(random.below(1 << 20)));
                if random.once_in(2) {
                    solicitation_by(target, router, Some(source))
                } else {
                    solicitation_by(elsewhere, target, Some(source))
                }
            }
            _ if !self.advertises => solicitation_by(address, router, Some(source)),
            _ => {
                let advertises = NeighborAdvertisement {
                    source: address,
                    destination: router,
                    target: address,
                    router: true,
                    solicited: false,
                    override_flag: true,
                    target_link_layer: Some(source),
                };
                emitted(|buffer| advertises.emit(buffer))
            }
        }
    }

    fn link_local(&self, random: &mut Random) -> Ipv6Addr {
        let made_up = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0xbad, random.below(4) as u16);
        if random.once_in(2) {
            made_up
        } else {
            self.owner.link_local
        }
    }

    /// The attacker hears the router ask. Returns what it sends, and when.
    pub(super) fn hear(
        &self,
        now: Instant,
        frame: &Frame,
        message: &Message<'_>,
        router: &Link,
        random: &mut Random,
    ) -> Vec<(Instant, Frame)> {
        let source = match self.answers {
            Answers::Nothing => return Vec::new(),
            Answers::InItsOwnName => {
                if frame
                    .destination
                    .is_some_and(|mac| !self.macs.contains(&mac))
                {
                    return Vec::new();
                }
                frame.destination.unwrap_or_else(|| random.pick(&self.macs))
            }
            Answers::InTheOwnersName => frame.destination.unwrap_or(self.owner.mac),
        };
        let at = now.saturating_add(Duration::from_millis(random.below(5)));
        let group = SolicitedNode::of(self.owner.address).group();
        let packet = match message {
            Message::NeighborSolicitation(asked) => {
                advertisement(asked.target, asked.source, asked.target)
            }
            Message::Query(query) => {
                let from = Some(query.destination).filter(|to| !to.is_multicast());
                let from = from.unwrap_or_else(|| self.link_local(random));
                let listens =
                    random.pick(&[RecordType::ModeIsExclude, RecordType::ChangeToInclude]);
                report(from, &[(listens, group)])
            }
            Message::NeighborAdvertisement(_)
            | Message::ReportV1(_)
            | Message::ReportV2(_)
            | Message::Done(_) => return Vec::new(),
        };
        let destination = router_is_named(&packet, router).then_some(router.mac);
        let answer = Frame {
            source,
            destination,
            packet,
        };
        vec![(at, answer)]
    }
}

/// Does a packet go to the router alone?
fn router_is_named(packet: &[u8], router: &Link) -> bool {
    let destination = packet
        .get(24..40)
        .and_then(|octets| octets.first_chunk::<16>());
    destination.map(|octets| Ipv6Addr::from(*octets)) == router.link_local
}
