//! What packets and the kernel say of hosts downstream becomes subjects, and subjects want groups.

use core::net::Ipv6Addr;

use log::{debug, trace};

use super::log_lines::{Named, warn_of};
use super::{Downstream, Engine, address_of, release};
use crate::config::{Learn, Prefix};
use crate::counters::Counter;
use crate::neighbors::{Evidence, Refusal, Sender, Sighting, Subject};
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
        if advertisement.solicited && downstream.is_some_and(to_us) {
            self.neighbors.advertised(&self.config, target, sender.mac);
            self.handle_downstream_answer(sender, target);
        }
        self.address_seen(sender, link_local, target, Evidence::Heard);
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
        let learned = self.learns(address) && !self.targets.defends(self.now, address, sender.mac);
        if !learned && link_local.is_none() {
            return;
        }
        let heard = self
            .neighbors
            .heard(self.now, &self.config, sender, link_local, evidence);
        match heard {
            None => self.refuse(Refusal::Rate, sender),
            Some(number) if learned => {
                self.sighted(sender, Subject::Address(address), number, evidence);
            }
            Some(_) => {}
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
            self.refuse(Refusal::Rate, sender);
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
            } else if !neighbors.listens(*now, config, number, group, answers)
                && config.learn != Learn::Ndp
            {
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
            ..
        } = self;
        let evicted = |subject| {
            counters.count(Counter::Evicted);
            debug!("evicted {}", Named(subject));
            release(groups, ndp_proxy, *now, subject);
        };
        match neighbors.sighted(*now, config, subject, number, evidence, evicted) {
            Ok(Sighting::Renewed) => {}
            Ok(Sighting::New) => {
                let wanted = groups.acquire(subject.group(), address_of(subject));
                if wanted.is_err() {
                    neighbors.remove(subject);
                    self.refuse(Refusal::Full, sender);
                    return;
                }
                if let Subject::Address(address) = subject
                    && targets.is_present(address)
                {
                    // Its host moved here.
                    targets.remove(address);
                    ndp_proxy.set(*now, address, None);
                }
                // The address takes the place of the listener that its host was known as.
                let listener = Subject::Listener(subject.group(), number);
                if matches!(subject, Subject::Address(_))
                    && neighbors.takes_place_of(*now, config, subject, listener)
                {
                    release(groups, ndp_proxy, *now, listener);
                }
                counters.count(Counter::Learned);
                if let Some(downstream) = config.downstreams.get(usize::from(sender.port)) {
                    debug!("learned {} on {downstream}", Named(subject));
                }
            }
            Err(refusal) => self.refuse(refusal, sender),
        }
    }

    fn refuse(&mut self, refusal: Refusal, sender: Sender) {
        let (counter, throttle) = match refusal {
            Refusal::HostQuota => (Counter::RefusedHostQuota, &mut self.quota_lines),
            Refusal::Rate => (Counter::RefusedRate, &mut self.rate_lines),
            Refusal::Full => (Counter::RefusedFull, &mut self.full_lines),
        };
        self.counters.count(counter);
        if throttle.allows(self.now) {
            warn_of(
                refusal,
                sender,
                &self.config,
                self.neighbors.len(),
                self.groups.len(),
            );
        }
    }

    pub(super) fn learns(&self, address: Ipv6Addr) -> bool {
        self.config.learn != Learn::Mld
            && self.config.learns(address)
            && !self.own.contains(&address)
    }

    pub(super) fn handle_own(&mut self, address: Ipv6Addr, present: bool) {
        if address.is_unicast_link_local() || address.is_loopback() {
            // Never learned anyway, and every interface has one.
            return;
        }
        if let Some(place) = self.own.iter().position(|own| *own == address) {
            if !present {
                self.own.swap_remove(place);
            }
        } else if present {
            let _ = self.own.push(address);
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
