//! Makes neighbors of what packets and the kernel tell of hosts downstream. Each neighbor makes its
//! group wanted.

use core::net::Ipv6Addr;

use log::{debug, warn};

use super::log_lines::{Named, warn_of};
use super::neighbors::{Answers, Evidence, Identity, Known, Refusal, Seen, Sender};
use super::solicited::Standing;
use super::{MAX_OWN, Ndp, Own, address_of, release};
use crate::config::Learn;
use crate::context::Context;
use crate::counters::Counter;
use crate::link::{Link, Prefix};
use crate::wire::{Message, NeighborAdvertisement, NeighborSolicitation, SolicitedNode};

impl Ndp<'_> {
    /// Handles a message heard on a downstream link.
    pub(crate) fn handle_message(&mut self, cx: &mut Context, from: Sender, message: &Message<'_>) {
        match message {
            Message::NeighborSolicitation(solicitation) => {
                cx.counters.count(Counter::NeighborSolicitation);
                self.handle_solicitation(cx, from, solicitation);
            }
            Message::NeighborAdvertisement(advertisement) => {
                cx.counters.count(Counter::NeighborAdvertisement);
                self.handle_advertisement(cx, from, advertisement);
            }
            Message::ReportV1(report) => {
                cx.counters.count(Counter::Mld);
                self.handle_report(cx, from, report.source, [(report.group, true)].into_iter());
            }
            Message::Done(done) => {
                cx.counters.count(Counter::Mld);
                self.handle_report(cx, from, done.source, [(done.group, false)].into_iter());
            }
            Message::ReportV2(report) => {
                cx.counters.count(Counter::Mld);
                let records = report.records.clone();
                let records = records.filter_map(|record| Some((record.group, record.listens()?)));
                self.handle_report(cx, from, report.source, records);
            }
            Message::Query(_) => cx.counters.count(Counter::Mld),
        }
    }

    fn handle_solicitation(
        &mut self,
        cx: &mut Context,
        sender: Sender,
        solicitation: &NeighborSolicitation,
    ) {
        // RFC 4862 §5.4.2: in Duplicate Address Detection the source is `::`, and the target is the
        // sender's own address.
        let detects = solicitation.source.is_unspecified();
        let address = if detects {
            solicitation.target
        } else {
            solicitation.source
        };
        let link_local = Some(solicitation.source).filter(Ipv6Addr::is_unicast_link_local);
        // This comes first, before the address makes its sender known.
        self.handle_solicited(cx, sender, solicitation);
        self.address_seen(cx, sender, link_local, address, Evidence::Heard, detects);
    }

    fn handle_advertisement(
        &mut self,
        cx: &mut Context,
        sender: Sender,
        advertisement: &NeighborAdvertisement,
    ) {
        let target = advertisement.target;
        let link_local = Some(target).filter(Ipv6Addr::is_unicast_link_local);
        let downstream = cx.links.downstream(sender.port);
        let to_us = |link: &Link| link.link_local == Some(advertisement.destination);
        if advertisement.solicited && downstream.is_some_and(to_us) {
            let evidence = self.handle_duplicate(cx, sender, target);
            self.address_seen(cx, sender, link_local, target, evidence, false);
            self.handle_downstream_answer(sender, target);
        } else {
            self.address_seen(cx, sender, link_local, target, Evidence::Heard, false);
        }
    }

    /// The kernel's neighbor table lists an address of a host downstream.
    pub(crate) fn handle_remembered(
        &mut self,
        cx: &mut Context,
        sender: Sender,
        address: Ipv6Addr,
    ) {
        let link_local = Some(address).filter(Ipv6Addr::is_unicast_link_local);
        self.address_seen(cx, sender, link_local, address, Evidence::Remembered, false);
    }

    /// Notes evidence of an address and of its host. `detects` says that the host detects
    /// duplicates of it.
    fn address_seen(
        &mut self,
        cx: &mut Context,
        sender: Sender,
        link_local: Option<Ipv6Addr>,
        address: Ipv6Addr,
        evidence: Evidence,
        detects: bool,
    ) {
        let learned = self.learns(cx, address);
        if !learned && link_local.is_none() {
            return;
        }
        if evidence == Evidence::Remembered
            && !self.neighbors.has_room_for_remembered()
            && self.neighbors.get(Identity::Address(address)).is_none()
        {
            self.refuse(cx, Refusal::Full, sender, address, evidence);
            return;
        }
        let heard = self
            .neighbors
            .heard(cx.now, &cx.config, sender, link_local, evidence);
        match heard {
            None => self.refuse(cx, Refusal::Rate, sender, address, evidence),
            Some(number) if learned => {
                self.handle_claim(cx, sender, address, (number, evidence), detects);
            }
            Some(_) => {}
        }
    }

    /// Tries the hosts again that a limit refused when they were heard.
    pub(super) fn admit_latecomers(&mut self, cx: &mut Context) {
        while let Some((sender, address)) = self.neighbors.next_latecomer(cx.now, &cx.config) {
            let link_local = Some(address).filter(Ipv6Addr::is_unicast_link_local);
            self.address_seen(cx, sender, link_local, address, Evidence::Heard, false);
            self.neighbors.end_turn();
        }
    }

    /// Handles an MLD report: the groups, each with whether the host listens to it.
    fn handle_report(
        &mut self,
        cx: &mut Context,
        sender: Sender,
        source: Ipv6Addr,
        groups: impl Iterator<Item = (Ipv6Addr, bool)>,
    ) {
        let evidence = Evidence::Heard;
        let heard = self
            .neighbors
            .heard(cx.now, &cx.config, sender, Some(source), evidence);
        let Some(number) = heard else {
            // Once the engine knows the host, it asks which groups the host listens to.
            self.refuse(cx, Refusal::Rate, sender, source, evidence);
            return;
        };
        let answers = self.neighbors.reported(cx.now, number, source);
        let evidence = if answers == Answers::OfHost {
            Evidence::Answered
        } else {
            Evidence::Heard
        };
        for (group, listens) in groups {
            let Some(group) = SolicitedNode::from_group(group) else {
                continue;
            };
            let neighbors = &mut self.neighbors;
            if !listens {
                neighbors.listens_no_more(cx.now, number, group);
                continue;
            }
            let known = neighbors.listens(cx.now, &cx.config, number, group, answers);
            if answers == Answers::OfHost && known != Known::Address {
                self.claim_elsewhere(cx, sender, number, group);
            }
            if known == Known::Nothing && cx.config.learn != Learn::Ndp {
                let identity = Identity::Listener(group, number);
                let seen = Seen {
                    identity,
                    number,
                    evidence,
                };
                self.admit(cx, sender, seen);
            }
        }
    }

    /// Takes in a neighbor that is not known, and makes its group wanted.
    pub(super) fn admit(&mut self, cx: &mut Context, sender: Sender, seen: Seen) {
        let Seen {
            identity,
            number,
            evidence,
        } = seen;
        let Ndp {
            neighbors,
            groups,
            kernel_entries,
            targets,
            join_lines,
            ..
        } = self;
        let Context {
            now,
            config,
            counters,
            ..
        } = cx;
        let has_room = groups.has_room_for(identity.group());
        let evicted = |identity| {
            counters.count(Counter::Evicted);
            debug!("evicted {}", Named(identity));
            release(groups, kernel_entries, *now, identity);
        };
        let was_listener = match neighbors.admit(*now, config, seen, has_room, evicted) {
            Ok(was_listener) => was_listener,
            Err(refusal) => {
                self.refuse(cx, refusal, sender, address_of(identity), evidence);
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
        let (group, address) = (identity.group(), address_of(identity));
        let Ok(waits) = groups.acquire(*now, config, group, (number, address), standing) else {
            // Not reached: the table of groups has room, as checked above.
            neighbors.remove(identity);
            return;
        };
        if waits {
            counters.count(Counter::JoinDelayed);
            if join_lines.allows(*now) {
                warn!(
                    "more than {} new groups a second: \
                     {} wait to be joined (--join-rate, --join-burst)",
                    config.join_rate,
                    groups.waiting()
                );
            }
        }
        match identity {
            Identity::Address(address) => {
                if targets.is_present(address) {
                    // The host was upstream and has moved here.
                    targets.remove(address);
                    kernel_entries.set(*now, address, None);
                }
                if was_listener {
                    let listener = Identity::Listener(group, number);
                    release(groups, kernel_entries, *now, listener);
                }
            }
            Identity::Listener(..) => {}
        }
        counters.count(Counter::Learned);
        if let Some(downstream) = config.downstreams.get(usize::from(sender.port)) {
            debug!("learned {} on {downstream}", Named(identity));
        }
    }

    /// Counts a refusal and logs it. The address by which the host was heard waits for another
    /// attempt, unless the kernel remembers it and tells of it again. A group does not wait, since
    /// the host is asked for its groups.
    pub(super) fn refuse(
        &mut self,
        cx: &mut Context,
        refusal: Refusal,
        sender: Sender,
        address: Ipv6Addr,
        evidence: Evidence,
    ) {
        let (counter, throttle) = match refusal {
            Refusal::HostQuota => (Counter::RefusedHostQuota, &mut self.quota_lines),
            Refusal::Rate => (Counter::RefusedRate, &mut self.rate_lines),
            Refusal::Full => (Counter::RefusedFull, &mut self.full_lines),
        };
        cx.counters.count(counter);
        if refusal == Refusal::Full {
            self.groups.make_room();
        }
        if throttle.allows(cx.now) {
            warn_of(
                refusal,
                sender,
                &cx.config,
                self.neighbors.len(),
                self.groups.len(),
            );
        }
        if evidence != Evidence::Remembered && !address.is_multicast() {
            let heard_by = (sender, address);
            self.neighbors
                .postpone(cx.now, &cx.config, heard_by, refusal);
        }
    }

    pub(super) fn learns(&self, cx: &Context, address: Ipv6Addr) -> bool {
        cx.config.learn != Learn::Mld && cx.config.learns(address) && !self.is_own(address)
    }

    pub(super) fn is_own(&self, address: Ipv6Addr) -> bool {
        self.own.iter().any(|own| own.address == address)
    }

    /// Notes that an address is this router's own on an interface, or is no longer.
    pub(crate) fn handle_own(
        &mut self,
        cx: &mut Context,
        index: u32,
        (address, prefix_length): (Ipv6Addr, u8),
        present: bool,
    ) {
        if address.is_unicast_link_local() || address.is_loopback() {
            // No such address is ever learned, and every interface has one.
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
            prefix_length,
            told,
        };
        if self.own.push(own).is_err() {
            cx.counters.count(Counter::RefusedFull);
            if self.full_lines.allows(cx.now) {
                warn!("more than {MAX_OWN} own addresses: {address} counts as a host's");
            }
        } else if is_new {
            self.forget_addresses(cx, |known| known != address);
        }
    }

    /// Notes that the caller is about to tell all own addresses anew. Until it has, those known
    /// before count as well.
    pub(crate) fn handle_own_unknown(&mut self) {
        self.own.iter_mut().for_each(|own| own.told = false);
    }

    /// Notes that the caller has told all own addresses. Removes those that it did not tell.
    pub(crate) fn handle_own_known(&mut self) {
        self.own.retain(|own| own.told);
    }

    /// Takes over the prefixes of the upstream link, if the configuration says so.
    pub(crate) fn handle_prefixes(&mut self, cx: &mut Context, prefixes: &[Prefix]) {
        if !cx.config.upstream_prefixes {
            return;
        }
        cx.config.prefixes.clear();
        // The caller has no more prefixes than there is room for.
        let _ = cx.config.prefixes.extend_from_slice(prefixes);
        let config = cx.config.clone();
        self.forget_addresses(cx, |known| config.learns(known));
    }

    /// Forgets the addresses for which `keep` does not hold, on every side, and releases their
    /// groups.
    fn forget_addresses(&mut self, cx: &Context, keep: impl Fn(Ipv6Addr) -> bool) {
        let Ndp {
            neighbors,
            groups,
            kernel_entries,
            targets,
            contests,
            ..
        } = self;
        let now = &cx.now;
        contests.retain(&keep);
        neighbors.retain(&keep, |identity| {
            debug!("{} is no longer to be learned", Named(identity));
            release(groups, kernel_entries, *now, identity);
        });
        targets.retain(keep, |target| kernel_entries.set(*now, target, None));
    }
}
