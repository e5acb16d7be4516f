//! What packets and the kernel say of hosts downstream becomes subjects, and subjects want groups.

use core::net::Ipv6Addr;

use log::{debug, trace, warn};

use super::log_lines::{Named, warn_of};
use super::{Downstream, Engine, MAX_OWN, Own, address_of, release};
use crate::config::Learn;
use crate::counters::Counter;
use crate::link::{Port, Prefix};
use crate::ndp::neighbors::{Evidence, Known, Refusal, Sender, Sighting, Subject};
use crate::ndp::solicited::Standing;
use crate::wire::{self, Message, NeighborAdvertisement, NeighborSolicitation, SolicitedNode};

impl Engine {
    pub(super) fn handle_packet(&mut self, sender: Sender, packet: &[u8]) {
        match wire::parse(packet) {
            Ok(Message::NeighborSolicitation(solicitation)) => {
                self.counters.count(Counter::NeighborSolicitation);
                self.handle_solicitation(sender, &solicitation);
            }
            Ok(Message::NeighborAdvertisement(advertisement)) => {
                self.counters.count(Counter::NeighborAdvertisement);
                self.handle_advertisement(sender, &advertisement);
            }
            Ok(Message::ReportV1(report)) => {
                self.counters.count(Counter::Mld);
                self.handle_report(sender, report.source, [(report.group, true)].into_iter());
            }
            Ok(Message::Done(done)) => {
                self.counters.count(Counter::Mld);
                self.handle_report(sender, done.source, [(done.group, false)].into_iter());
            }
            Ok(Message::ReportV2(report)) => {
                self.counters.count(Counter::Mld);
                let records = report
                    .records
                    .filter_map(|record| Some((record.group, record.listens()?)));
                self.handle_report(sender, report.source, records);
            }
            Ok(Message::Query(_)) => self.counters.count(Counter::Mld),
            Err(reason) => {
                self.counters.count_dropped(reason);
                trace!("{}", reason.name());
            }
        }
    }

    fn handle_solicitation(&mut self, sender: Sender, solicitation: &NeighborSolicitation) {
        // RFC 4862 §5.4.2: in Duplicate Address Detection the source is `::` and the target is the sender's own.
        let address = if solicitation.source.is_unspecified() {
            solicitation.target
        } else {
            solicitation.source
        };
        let link_local = Some(solicitation.source).filter(Ipv6Addr::is_unicast_link_local);
        // Before its sender is known by it.
        self.handle_solicited(sender, solicitation);
        self.address_seen(sender, link_local, address, Evidence::Heard);
    }

    fn handle_advertisement(&mut self, sender: Sender, advertisement: &NeighborAdvertisement) {
        let target = advertisement.target;
        let link_local = Some(target).filter(Ipv6Addr::is_unicast_link_local);
        let downstream = self.downstream(sender.port);
        let to_us = |downstream: Downstream| downstream.link_local == advertisement.destination;
        let evidence = if advertisement.solicited && downstream.is_some_and(to_us) {
            self.handle_downstream_answer(sender, target);
            Evidence::Advertised
        } else {
            Evidence::Heard
        };
        self.address_seen(sender, link_local, target, evidence);
    }

    pub(super) fn handle_remembered(&mut self, sender: Sender, address: Ipv6Addr) {
        let link_local = Some(address).filter(Ipv6Addr::is_unicast_link_local);
        self.address_seen(sender, link_local, address, Evidence::Remembered);
    }

    /// There is evidence of an address and of its host.
    fn address_seen(
        &mut self,
        sender: Sender,
        link_local: Option<Ipv6Addr>,
        address: Ipv6Addr,
        evidence: Evidence,
    ) {
        let claimant = (sender.port, sender.mac);
        let learned = self.learns(address) && !self.targets.defends(self.now, address, claimant);
        if !learned && link_local.is_none() {
            return;
        }
        let heard = self
            .neighbors
            .heard(self.now, &self.config, sender, link_local, evidence);
        match heard {
            None => self.refuse(Refusal::Rate, sender, address, evidence),
            Some(number) if learned => {
                self.sighted(sender, Subject::Address(address), number, evidence);
            }
            Some(_) => {}
        }
    }

    /// Tries those again that could not be taken in when they were heard.
    pub(super) fn admit_latecomers(&mut self) {
        while let Some((sender, address)) = self.neighbors.next_latecomer(self.now, &self.config) {
            let link_local = Some(address).filter(Ipv6Addr::is_unicast_link_local);
            self.address_seen(sender, link_local, address, Evidence::Heard);
            self.neighbors.end_turn();
        }
    }

    /// A host reports groups, each with whether it listens to it.
    fn handle_report(
        &mut self,
        sender: Sender,
        source: Ipv6Addr,
        groups: impl Iterator<Item = (Ipv6Addr, bool)>,
    ) {
        let evidence = Evidence::Heard;
        let heard = self
            .neighbors
            .heard(self.now, &self.config, sender, Some(source), evidence);
        let Some(number) = heard else {
            // It is asked what it listens to once it is known.
            self.refuse(Refusal::Rate, sender, source, evidence);
            return;
        };
        let answers = self.neighbors.reported(self.now, number, source);
        let evidence = if answers {
            Evidence::Answered
        } else {
            Evidence::Heard
        };
        for (group, listens) in groups {
            let Some(group) = SolicitedNode::from_group(group) else {
                continue;
            };
            let Engine {
                config,
                neighbors,
                now,
                ..
            } = self;
            if !listens {
                neighbors.listens_no_more(*now, number, group);
                continue;
            }
            let known = neighbors.listens(*now, config, number, group, answers);
            if answers && known != Known::Address {
                let ports = Port::try_from(config.downstreams.len()).unwrap_or(Port::MAX);
                neighbors.claim_elsewhere(*now, ports, sender, group);
            }
            if known == Known::Nothing && config.learn != Learn::Ndp {
                self.sighted(sender, Subject::Listener(group, number), number, evidence);
            }
        }
    }

    /// A subject was seen downstream: its group is wanted with the first sighting.
    fn sighted(&mut self, sender: Sender, subject: Subject, number: u16, evidence: Evidence) {
        let Engine {
            config,
            neighbors,
            groups,
            ndp_proxy,
            targets,
            counters,
            now,
            join_lines,
            ..
        } = self;
        let has_room = groups.has_room_for(subject.group());
        let evicted = |subject| {
            counters.count(Counter::Evicted);
            debug!("evicted {}", Named(subject));
            release(groups, ndp_proxy, *now, subject);
        };
        let sighted = neighbors.sighted(*now, config, subject, number, evidence, has_room, evicted);
        let was_listener = match sighted {
            Ok(Sighting::Renewed) => return,
            Ok(Sighting::New { was_listener }) => was_listener,
            Err(refusal) => {
                self.refuse(refusal, sender, address_of(subject), evidence);
                return;
            }
        };
        let standing = match evidence {
            Evidence::Remembered => Standing::Remembered,
            Evidence::Answered => Standing::Resident,
            Evidence::Heard | Evidence::Advertised if neighbors.has_answered(number) => {
                Standing::Resident
            }
            Evidence::Heard | Evidence::Advertised => Standing::Newcomer,
        };
        let (group, address) = (subject.group(), address_of(subject));
        let Ok(waits) = groups.acquire(*now, config, group, address, standing) else {
            // There is room, as was seen above.
            neighbors.remove(subject);
            return;
        };
        if waits {
            counters.count(Counter::JoinDelayed);
            if join_lines.allows(*now) {
                warn!(
                    "more than {} new groups a second: {} wait to be joined (--join-rate, --join-burst)",
                    config.join_rate,
                    groups.waiting()
                );
            }
        }
        match subject {
            Subject::Address(address) => {
                if targets.is_present(address) {
                    // Its host moved here.
                    targets.remove(address);
                    ndp_proxy.set(*now, address, None);
                }
                if was_listener {
                    let listener = Subject::Listener(group, number);
                    release(groups, ndp_proxy, *now, listener);
                }
            }
            Subject::Listener(..) => {}
        }
        counters.count(Counter::Learned);
        if let Some(downstream) = config.downstreams.get(usize::from(sender.port)) {
            debug!("learned {} on {downstream}", Named(subject));
        }
        self.take_back_leave(group);
    }

    /// What a host was heard by is not learned now. It is tried again, but for groups, which it is asked for, and for what the kernel
    /// goes on to remember.
    fn refuse(&mut self, refusal: Refusal, sender: Sender, address: Ipv6Addr, evidence: Evidence) {
        let (counter, throttle) = match refusal {
            Refusal::HostQuota => (Counter::RefusedHostQuota, &mut self.quota_lines),
            Refusal::Rate => (Counter::RefusedRate, &mut self.rate_lines),
            Refusal::Full => (Counter::RefusedFull, &mut self.full_lines),
        };
        self.counters.count(counter);
        if refusal == Refusal::Full {
            self.groups.make_room();
        }
        if throttle.allows(self.now) {
            warn_of(
                refusal,
                sender,
                &self.config,
                self.neighbors.len(),
                self.groups.len(),
            );
        }
        if evidence != Evidence::Remembered && !address.is_multicast() {
            let heard_by = (sender, address);
            self.neighbors
                .postpone(self.now, &self.config, heard_by, refusal);
        }
    }

    pub(super) fn learns(&self, address: Ipv6Addr) -> bool {
        self.config.learn != Learn::Mld && self.config.learns(address) && !self.is_own(address)
    }

    pub(super) fn is_own(&self, address: Ipv6Addr) -> bool {
        self.own.iter().any(|own| own.address == address)
    }

    pub(super) fn handle_own(&mut self, index: u32, address: Ipv6Addr, present: bool) {
        if address.is_unicast_link_local() || address.is_loopback() {
            // Never learned anyway, and every interface has one.
            return;
        }
        let is_new = !self.is_own(address);
        self.own
            .retain(|own| own.index != index || own.address != address);
        if !present {
            return;
        }
        let told = true;
        let own = Own {
            index,
            address,
            told,
        };
        if self.own.push(own).is_err() {
            self.counters.count(Counter::RefusedFull);
            if self.full_lines.allows(self.now) {
                warn!("more than {MAX_OWN} own addresses: {address} counts as a host's");
            }
        } else if is_new {
            self.forget_addresses(|known| known != address);
        }
    }

    pub(super) fn handle_prefixes(&mut self, prefixes: &[Prefix]) {
        if !self.config.upstream_prefixes {
            return;
        }
        self.config.prefixes.clear();
        // There is room for as many as the caller may have.
        let _ = self.config.prefixes.extend_from_slice(prefixes);
        let config = self.config.clone();
        self.forget_addresses(|known| config.learns(known));
    }

    /// Forgets the addresses that `keep` does not hold for, on every side, and leaves their groups.
    fn forget_addresses(&mut self, keep: impl Fn(Ipv6Addr) -> bool) {
        let Engine {
            neighbors,
            groups,
            ndp_proxy,
            targets,
            now,
            ..
        } = self;
        neighbors.retain(&keep, |subject| {
            debug!("{} is no longer to be learned", Named(subject));
            release(groups, ndp_proxy, *now, subject);
        });
        targets.retain(keep, |target| ndp_proxy.set(*now, target, None));
    }
}
