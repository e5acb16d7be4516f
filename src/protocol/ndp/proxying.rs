//! The NDP proxy: confirmed addresses become entries of the kernel's tables upstream; solicitations heard downstream are asked for
//! and answered here.

use core::net::Ipv6Addr;

use log::{debug, warn};

use super::kernel_entries::{self, KernelTable, Listing};
use super::neighbors::{Neighbor, Refusal, Sender, Subject};
use super::targets::{Ended, Refused, Solicitation};
use super::{Action, Ndp, release};
use crate::context::Context;
use crate::counters::Counter;
use crate::link::Side;
use crate::time::Instant;
use crate::wire::{
    ALL_NODES, ALL_ROUTERS, MacAddress, Message, NeighborAdvertisement, NeighborSolicitation,
    SolicitedNode,
};

impl Ndp<'_> {
    /// A message of Neighbor Discovery was heard on the upstream.
    pub(crate) fn handle_upstream_message(
        &mut self,
        cx: &mut Context,
        mac: MacAddress,
        message: &Message<'_>,
    ) {
        match message {
            Message::NeighborSolicitation(solicitation) => {
                self.handle_upstream_solicitation(cx, mac, solicitation);
            }
            Message::NeighborAdvertisement(advertisement) => {
                self.handle_upstream_advertisement(cx, mac, advertisement);
            }
            Message::Query(_) | Message::ReportV1(_) | Message::ReportV2(_) | Message::Done(_) => {}
        }
    }

    /// A host downstream looks for a target, or detects duplicates of it: one that another link has is answered for.
    pub(super) fn handle_solicited(
        &mut self,
        cx: &mut Context,
        sender: Sender,
        solicitation: &NeighborSolicitation,
    ) {
        let target = solicitation.target;
        if !cx.config.ndp_proxy || !cx.config.learns(target) || self.is_own(target) {
            return;
        }
        let solicitation = Solicitation {
            side: Side::Downstream(sender.port),
            mac: sender.mac,
            source: solicitation.source,
            target,
        };
        let Some(neighbor) = self.neighbors.get(Subject::Address(target)) else {
            self.look_for(cx, solicitation);
            return;
        };
        let Some((owner, _)) = self.neighbors.host_of(neighbor) else {
            return;
        };
        // On the same link it answers for itself. A host that moved from the other one must not be taken for its own duplicate.
        if owner.port == sender.port
            || owner.mac == sender.mac && sender.has_mac()
            || self.targets.is_detecting(target)
        {
            return;
        }
        if solicitation.source.is_unspecified() {
            let owner = Side::Downstream(owner.port);
            let verified = self.targets.verify(cx.now, solicitation, owner);
            count_refusal(cx, verified);
        } else if neighbor.is_confirmed() {
            self.targets.answer(solicitation);
        }
    }

    /// A target is looked for upstream. The kernel answers for those that are known. Of a host that is known by its MLD reports alone
    /// the address may be the target, and nothing else tells it: it is asked for where that can be.
    fn handle_upstream_solicitation(
        &mut self,
        cx: &mut Context,
        mac: MacAddress,
        solicitation: &NeighborSolicitation,
    ) {
        let target = solicitation.target;
        let group = self.groups.get(SolicitedNode::of(target));
        if cx.config.ndp_proxy
            && self.learns(cx, target)
            && self.neighbors.get(Subject::Address(target)).is_none()
            && group.is_some_and(|group| group.listeners > 0)
        {
            self.look_for(
                cx,
                Solicitation {
                    side: Side::Upstream,
                    mac,
                    source: solicitation.source,
                    target,
                },
            );
        }
    }

    fn look_for(&mut self, cx: &mut Context, solicitation: Solicitation) {
        let asked = self.targets.solicited(cx.now, &cx.config, solicitation);
        count_refusal(cx, asked);
    }

    /// An address was advertised upstream. Where a host downstream looked for it, that is the answer.
    fn handle_upstream_advertisement(
        &mut self,
        cx: &Context,
        mac: MacAddress,
        advertisement: &NeighborAdvertisement,
    ) {
        let target = advertisement.target;
        let subject = Subject::Address(target);
        // Of two that claim an address, the one whose host answered here has it. But while it detects duplicates it does not: already
        // then it says by MLD that it listens.
        let neighbor = self.neighbors.get(subject);
        if neighbor.is_some_and(Neighbor::is_confirmed) && !self.targets.is_detecting(target) {
            return;
        }
        // RFC 4861 §7.3.1: what is not solicited confirms nothing. It tells of a target that was not known to be there.
        if !advertisement.solicited && self.targets.is_present(target) {
            return;
        }
        let Ndp {
            neighbors,
            groups,
            targets,
            kernel_entries,
            ..
        } = self;
        let Context { now, config, .. } = cx;
        if targets.answered_upstream(*now, config, target, mac) {
            debug!("{target} is upstream");
            // A host that detected duplicates of it here finds one.
            if neighbors.remove(subject) {
                release(groups, kernel_entries, *now, subject);
            }
            kernel_entries.set(*now, target, Some(Side::Upstream));
        }
    }

    /// A host downstream answered for a target that was asked for. Another one that detects duplicates of it finds one.
    pub(super) fn handle_downstream_answer(
        &mut self,
        cx: &Context,
        sender: Sender,
        target: Ipv6Addr,
    ) {
        let subject = Subject::Address(target);
        let neighbor = self.neighbors.get(subject);
        let owner = neighbor.and_then(|neighbor| self.neighbors.host_of(neighbor));
        let is_anothers = owner.is_some_and(|(owner, _)| owner.mac != sender.mac);
        let Ndp {
            neighbors,
            groups,
            targets,
            kernel_entries,
            ..
        } = self;
        let now = &cx.now;
        if is_anothers && targets.is_detecting(target) && neighbors.remove(subject) {
            release(groups, kernel_entries, *now, subject);
        }
        targets.answered_downstream(target, sender.port, sender.mac);
        // It may have waited for the end of the question.
        neighbors.tell_again(subject);
    }

    /// The kernel lists a table. What is there for addresses that are never learned may be another process's, for another upstream. What
    /// a process that was killed left for a host that is still known, which it had confirmed, stays while that one is asked anew.
    pub(crate) fn handle_listed(&mut self, cx: &Context, table: KernelTable, listing: Listing) {
        if let Listing::Has(address, side) = listing
            && self.kernel_entries.get(address).is_none()
        {
            if !cx.config.learns(address) {
                return;
            }
            let is_of_host = match table {
                KernelTable::Proxies => cx.config.ndp_proxy,
                KernelTable::Routes => cx.config.host_routes && side != Side::Upstream,
            };
            let neighbor = self.neighbors.get(Subject::Address(address));
            let owner = neighbor.and_then(|neighbor| self.neighbors.host_of(neighbor));
            if let Some((owner, _)) = owner.filter(|_| is_of_host) {
                self.kernel_entries
                    .keep(address, Side::Downstream(owner.port));
            }
        }
        self.kernel_entries.handle_listing(table, listing);
    }

    /// Tells the kernel's tables of the addresses that were confirmed, or are so no longer, or moved. One of which its host detects
    /// duplicates has to wait for the end of that. Then has new groups joined, those that hosts have answered for first.
    pub(crate) fn settle(&mut self, cx: &mut Context) {
        while let Some((subject, port)) = self.neighbors.next_changed() {
            if port.is_some() {
                self.groups.vouch_for(subject.group());
            }
            if let Subject::Address(address) = subject {
                let settled = port.filter(|_| !self.targets.is_detecting(address));
                let side = settled.map(Side::Downstream);
                self.kernel_entries.set(cx.now, address, side);
            }
        }
        self.groups.admit(cx.now, &cx.config);
        let left_out = self.kernel_entries.take_left_out();
        for _ in 0..left_out {
            cx.counters.count(Counter::RefusedProxy);
        }
        if left_out > 0 && self.proxy_lines.allows(cx.now) {
            warn!(
                "table full with {} proxy entries and routes; other addresses have none until there is room",
                kernel_entries::CAPACITY
            );
        }
    }

    /// Tells the kernel's tables of all that they are to have.
    fn tell_all_again(&mut self, cx: &Context) {
        let Ndp {
            kernel_entries,
            neighbors,
            targets,
            ..
        } = self;
        let now = &cx.now;
        for (subject, neighbor) in neighbors
            .iter()
            .filter(|(_, neighbor)| neighbor.is_confirmed())
        {
            if let Subject::Address(address) = subject
                && !targets.is_detecting(address)
            {
                let owner = neighbors.host_of(neighbor).map(|(owner, _)| owner.port);
                kernel_entries.set(*now, address, owner.map(Side::Downstream));
            }
        }
        for (_, target, _) in targets.present_from(0) {
            kernel_entries.set(*now, target, Some(Side::Upstream));
        }
        // Those that are left out again were told of.
        let _ = kernel_entries.take_left_out();
    }

    pub(super) fn poll_kernel_table(&mut self, cx: &Context) -> Option<Action> {
        if self.kernel_entries.has_room_again() {
            self.tell_all_again(cx);
        }
        let usable = |side| cx.links.on(side).is_some();
        let change = self.kernel_entries.poll_change(cx.now, usable)?;
        Some(Action::Kernel(change))
    }

    /// An answer to a host downstream.
    pub(super) fn poll_answer(&mut self, cx: &Context, buffer: &mut [u8]) -> Option<Action> {
        let Solicitation {
            side,
            mac,
            source,
            target,
        } = self.targets.poll_answer()?;
        // RFC 4861 §7.2.4: to who asked, or in duplicate address detection to all nodes, and then not as a solicited one.
        let (destination, mac) = if source.is_unspecified() {
            (ALL_NODES, None)
        } else {
            (source, Some(mac))
        };
        let length = cx.links.source_on(side).and_then(|(source, own_mac)| {
            advertisement(source, own_mac, destination, target).emit(buffer)
        });
        Some(Action::Advertise {
            // Nothing can be sent there now, and who asked asks again.
            length: length.unwrap_or(0),
            side,
            destination,
            mac,
            target,
        })
    }

    /// A question for a target.
    pub(super) fn poll_target(&mut self, cx: &Context, buffer: &mut [u8]) -> Option<Action> {
        let (target, side) = self.targets.poll_question()?;
        let group = SolicitedNode::of(target).group();
        let length = emit_solicitation(cx, side, group, target, buffer);
        Some(Action::Solicit {
            length: length.unwrap_or(0),
            side,
            group,
            target,
        })
    }

    /// An address downstream is announced upstream (RFC 9131 §6.1.2): a router makes an entry for it before it needs one.
    pub(super) fn poll_announcement(&mut self, cx: &Context, buffer: &mut [u8]) -> Option<Action> {
        let (source, mac) = cx.links.source_on(Side::Upstream)?;
        let target = self.kernel_entries.poll_announcement(cx.now)?;
        let length = advertisement(source, mac, ALL_ROUTERS, target).emit(buffer);
        Some(Action::Advertise {
            length: length.unwrap_or(0),
            side: Side::Upstream,
            destination: ALL_ROUTERS,
            mac: None,
            target,
        })
    }

    /// When to announce; never while nothing can be sent upstream, which an event ends.
    pub(super) fn next_announcement(&self, cx: &Context) -> Option<Instant> {
        cx.links.source_on(Side::Upstream)?;
        self.kernel_entries.next_announcement()
    }

    /// An [`Action::Advertise`] was carried out, or failed, which is no different from one that is lost.
    pub(super) fn advertised(&mut self, now: Instant, side: Side, target: Ipv6Addr) {
        match side {
            Side::Upstream => self.kernel_entries.announced(now, target),
            Side::Downstream(_) => self.targets.sent(),
        }
    }

    pub(super) fn handle_target_timeout(&mut self, cx: &Context) {
        let Ndp {
            neighbors,
            targets,
            kernel_entries,
            ..
        } = self;
        let Context { now, config, .. } = cx;
        targets.handle_timeout(*now, |address, ended| match ended {
            Ended::Gone(claimant) => {
                debug!("{address} is upstream no more");
                kernel_entries.set(*now, address, None);
                if let Some((port, mac)) = claimant {
                    let claim = (Sender { port, mac }, address);
                    neighbors.postpone(*now, config, claim, Refusal::Rate);
                }
            }
            Ended::Unverified => neighbors.left_unanswered(*now, config, address),
            // Nobody else has it.
            Ended::Unanswered => neighbors.tell_again(Subject::Address(address)),
        });
    }
}

fn count_refusal(cx: &mut Context, asked: Result<(), Refused>) {
    if asked.is_err() {
        cx.counters.count(Counter::RefusedTarget);
    }
}

/// Writes a solicitation for a target; its length. `None` while nothing can be sent on its side.
pub(super) fn emit_solicitation(
    cx: &Context,
    side: Side,
    destination: Ipv6Addr,
    target: Ipv6Addr,
    buffer: &mut [u8],
) -> Option<usize> {
    let (source, mac) = cx.links.source_on(side)?;
    let solicitation = NeighborSolicitation {
        source,
        destination,
        target,
        source_link_layer: some_address(mac),
    };
    solicitation.emit(buffer)
}

/// By a proxy: this router's own link-layer address, and O = 0, so that the target's own advertisement wins (RFC 4861 §7.2.8).
fn advertisement(
    source: Ipv6Addr,
    mac: MacAddress,
    destination: Ipv6Addr,
    target: Ipv6Addr,
) -> NeighborAdvertisement {
    NeighborAdvertisement {
        source,
        destination,
        target,
        router: true,
        solicited: !destination.is_multicast(),
        override_flag: false,
        target_link_layer: some_address(mac),
    }
}

/// All zero on links without link-layer addresses.
fn some_address(mac: MacAddress) -> Option<MacAddress> {
    (mac != MacAddress([0; 6])).then_some(mac)
}
