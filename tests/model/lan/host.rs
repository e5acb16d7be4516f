//! A host as RFC 4861, RFC 4862 and RFC 3810 want it, with manners of its own.

use std::net::Ipv6Addr;

use protocol::link::Link;
use protocol::time::{Duration, Instant};
use protocol::wire::{
    ALL_NODES, MacAddress, Message, NeighborSolicitation, Query, RecordType, SolicitedNode,
};

use super::{Frame, Place, Random};
use crate::packets::{advertisement, report, solicitation_by};

/// How long a host detects duplicates (RFC 4862 §5.1, with `RETRANS_TIMER` of RFC 4861 §10).
const DETECTION: Duration = Duration::from_secs(1);
/// Within this time a host answers a solicitation, and joins its groups.
const PROMPTLY: Duration = Duration::from_millis(900);

/// How a host comes to a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// It reports its groups, detects duplicates for a second, in which it does not answer for its
    /// addresses, and then resolves the router's address.
    Detecting,
    /// It advertises its addresses once, unsolicited, as the virtual address of two routers is.
    Announcing,
    /// It reports its groups. Nothing else tells of its addresses.
    Reporting,
    /// It sends nothing.
    Silent,
}

/// A host. It answers whatever reaches it, unless it is said not to.
#[derive(Clone, Debug)]
pub struct Host {
    /// `None` while it is away.
    pub place: Option<Place>,
    pub mac: MacAddress,
    pub link_local: Ipv6Addr,
    pub addresses: Vec<Ipv6Addr>,
    /// Does it answer Neighbor Solicitations?
    pub answers_ndp: bool,
    /// Does it answer MLD queries?
    pub answers_mld: bool,
    /// How often it solicits on its own; `None` if it only answers.
    pub speaks: Option<Duration>,
    /// What it solicits then; `None` for the router.
    pub seeks: Option<Ipv6Addr>,
    /// It was told that another host has one of its addresses.
    pub is_duplicate: bool,
    /// Until when it detects duplicates.
    detects: Option<Instant>,
    next: Instant,
}

impl Host {
    pub fn new(number: u16, addresses: &[Ipv6Addr]) -> Self {
        let [high, low] = number.to_be_bytes();
        Host {
            place: None,
            mac: MacAddress([2, 0, 0, 1, high, low]),
            link_local: Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 1, number),
            addresses: addresses.to_vec(),
            answers_ndp: true,
            answers_mld: true,
            speaks: None,
            seeks: None,
            is_duplicate: false,
            detects: None,
            next: Instant::ZERO,
        }
    }

    /// When the host speaks next on its own.
    pub(super) fn next_speech(&self) -> Option<Instant> {
        self.place.and(self.speaks).map(|_| self.next)
    }

    pub(super) fn arrive(
        &mut self,
        now: Instant,
        place: Place,
        arrival: Arrival,
        router: &Link,
        random: &mut Random,
    ) -> Vec<(Instant, Frame)> {
        self.place = Some(place);
        self.next = now.saturating_add(DETECTION);
        self.detects = None;
        let mut frames = Vec::new();
        let reports = match arrival {
            Arrival::Detecting => {
                let after = now.saturating_add(DETECTION);
                self.detects = Some(after);
                for address in self.addresses.clone() {
                    let detects = solicitation_by(Ipv6Addr::UNSPECIFIED, address, None);
                    frames.push((now, self.frame(None, detects)));
                    frames.push((after, self.solicit(address, router_of(router))));
                }
                true
            }
            Arrival::Announcing => {
                for address in &self.addresses {
                    let announces = advertisement(*address, ALL_NODES, *address);
                    frames.push((now, self.frame(None, announces)));
                }
                false
            }
            Arrival::Reporting => true,
            Arrival::Silent => false,
        };
        if reports && self.answers_mld {
            let at = now.saturating_add(random.delay(PROMPTLY));
            frames.push((at, self.report(RecordType::ChangeToExclude, None)));
        }
        frames
    }

    /// The host solicits whom it seeks, or the router.
    pub(super) fn speak(&mut self, now: Instant, router: &Link, random: &mut Random) -> Frame {
        let every = self.speaks.unwrap_or_default();
        self.next = now
            .saturating_add(every)
            .saturating_add(random.delay(every));
        let from = random.pick(&self.addresses);
        self.solicit(from, self.seeks.unwrap_or_else(|| router_of(router)))
    }

    /// The host hears a message. Returns what it sends, and when.
    pub(super) fn hear(
        &mut self,
        now: Instant,
        sender: MacAddress,
        message: &Message<'_>,
        router: &Link,
        random: &mut Random,
    ) -> Vec<(Instant, Frame)> {
        let at = now.saturating_add(random.delay(PROMPTLY));
        match message {
            Message::NeighborSolicitation(asked) => {
                let answer = self.advertise(now, sender, asked);
                answer.map(|frame| (at, frame)).into_iter().collect()
            }
            Message::NeighborAdvertisement(heard) => {
                // RFC 4862 §5.4.4.
                self.is_duplicate |= self.is_detecting(now)
                    && sender != self.mac
                    && self.addresses.contains(&heard.target);
                Vec::new()
            }
            Message::Query(query) if sender == router.mac => {
                let at = now.saturating_add(random.delay(query.max_response_delay));
                let answer = self.answer(query);
                answer.map(|frame| (at, frame)).into_iter().collect()
            }
            Message::Query(_) | Message::ReportV1(_) | Message::ReportV2(_) | Message::Done(_) => {
                Vec::new()
            }
        }
    }

    fn is_detecting(&self, now: Instant) -> bool {
        self.detects.is_some_and(|until| now < until)
    }

    /// The answer to a solicitation.
    fn advertise(
        &mut self,
        now: Instant,
        sender: MacAddress,
        asked: &NeighborSolicitation,
    ) -> Option<Frame> {
        let target = asked.target;
        let is_address = self.addresses.contains(&target);
        if !is_address && target != self.link_local || !self.answers_ndp {
            return None;
        }
        if is_address && self.is_detecting(now) {
            // RFC 4862 §5.4.3: another host detects duplicates of the same address.
            self.is_duplicate |= asked.source.is_unspecified() && sender != self.mac;
            return None;
        }
        let (destination, to) = if asked.source.is_unspecified() {
            (ALL_NODES, None)
        } else {
            (asked.source, Some(sender))
        };
        Some(self.frame(to, advertisement(target, destination, target)))
    }

    /// The answer to a query, which goes to one of the host's addresses, or to a group.
    fn answer(&self, query: &Query<'_>) -> Option<Frame> {
        let is_for_it = query.destination.is_multicast() || query.destination == self.link_local;
        let group = Some(query.group).filter(|group| !group.is_unspecified());
        let listens = group.is_none_or(|group| self.groups().contains(&group));
        (self.answers_mld && is_for_it && listens)
            .then(|| self.report(RecordType::ModeIsExclude, group))
    }

    /// A report of all groups, or of one.
    fn report(&self, record_type: RecordType, group: Option<Ipv6Addr>) -> Frame {
        let groups = group.map_or_else(|| self.groups(), |group| vec![group]);
        let records: Vec<_> = groups
            .into_iter()
            .map(|group| (record_type, group))
            .collect();
        self.frame(None, report(self.link_local, &records))
    }

    fn groups(&self) -> Vec<Ipv6Addr> {
        let addresses = self.addresses.iter().chain([&self.link_local]);
        let mut groups: Vec<_> = addresses
            .map(|address| SolicitedNode::of(*address).group())
            .collect();
        groups.sort_unstable();
        groups.dedup();
        groups
    }

    fn solicit(&self, from: Ipv6Addr, target: Ipv6Addr) -> Frame {
        self.frame(None, solicitation_by(from, target, Some(self.mac)))
    }

    fn frame(&self, destination: Option<MacAddress>, packet: Vec<u8>) -> Frame {
        Frame {
            source: self.mac,
            destination,
            packet,
        }
    }
}

fn router_of(link: &Link) -> Ipv6Addr {
    link.link_local.expect("the router has one on each link")
}
