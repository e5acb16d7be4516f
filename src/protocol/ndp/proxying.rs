//! The NDP proxy.
//!
//! Confirmed addresses become entries of the kernel's tables upstream. For solicitations heard
//! downstream, the router asks on the other links, and answers.

use core::net::Ipv6Addr;

use log::{debug, warn};

use super::kernel_entries::{self, KernelEntries, KernelTable, Listing};
use super::neighbors::{Evidence, Identity, Sender};
use super::targets::{Ended, Refused, Solicitation, Targets};
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

    /// A host downstream resolves the address of a target, or detects duplicates of it. The router
    /// answers if another link has the target.
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
        // RFC 4389 §4.1.3.1 passes every solicitation on. The router asks only for targets that it
        // does not know, and once.
        let Some(neighbor) = self.neighbors.get(Identity::Address(target)) else {
            self.look_for(cx, solicitation);
            return;
        };
        let Some((owner, _)) = self.neighbors.host_of(neighbor) else {
            return;
        };
        // On its own link the target answers by itself.
        let is_on_link = owner.port == sender.port;
        // RFC 6957 §4.2.2: the host that has the address is not answered. It may have moved from
        // the other link, and must not be taken for its own duplicate. Another host that wants the
        // address claims it, and is answered if the owner is still there.
        let is_owner = owner.mac == sender.mac && sender.has_mac();
        let is_claim = solicitation.source.is_unspecified();
        if !is_on_link && !is_owner && !is_claim && neighbor.is_confirmed() {
            self.targets.answer(solicitation);
        }
    }

    /// A host upstream looks for a target. The kernel answers for the targets that are known. If a
    /// host downstream is known by its MLD reports alone, the target may be its address, and the
    /// router asks for it on the links where it may be.
    fn handle_upstream_solicitation(
        &mut self,
        cx: &mut Context,
        mac: MacAddress,
        solicitation: &NeighborSolicitation,
    ) {
        let (source, target) = (solicitation.source, solicitation.target);
        if cx.config.ndp_proxy
            && self.learns(cx, source)
            && self.neighbors.get(Identity::Address(source)).is_some()
        {
            self.handle_upstream_claim(cx, mac, source, false);
        }
        let group = self.groups.get(SolicitedNode::of(target));
        if cx.config.ndp_proxy
            && self.learns(cx, target)
            && self.neighbors.get(Identity::Address(target)).is_none()
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

    /// A host upstream advertises an address. If a host downstream looked for it, this is the
    /// answer, unless a host downstream holds the address.
    fn handle_upstream_advertisement(
        &mut self,
        cx: &mut Context,
        mac: MacAddress,
        advertisement: &NeighborAdvertisement,
    ) {
        let target = advertisement.target;
        let identity = Identity::Address(target);
        if !self.targets.is_present(target) {
            let is_known = self.neighbors.get(identity).is_some();
            let is_asked = self.targets.is_asked_upstream(target)
                || self.contests.asks_claimants(target, Side::Upstream);
            if cx.config.ndp_proxy && self.learns(cx, target) && (is_known || is_asked) {
                let to_us = cx.links.source_on(Side::Upstream).map(|(source, _)| source);
                let answers = advertisement.solicited && to_us == Some(advertisement.destination);
                if self.handle_upstream_claim(cx, mac, target, answers) {
                    return;
                }
            }
        }
        // RFC 4861 §7.3.1: an advertisement that was not solicited confirms nothing. It does tell
        // of a target that was not known to be there.
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
            // A host downstream that detected duplicates of it finds one.
            if neighbors.remove(identity) {
                release(groups, kernel_entries, *now, identity);
            }
            kernel_entries.set(*now, target, Some(Side::Upstream));
        }
        if self.contests.asks_holder(target, Side::Upstream) {
            self.end_contest(target, Side::Upstream);
        }
    }

    /// A host downstream answers for a target. If another host detects duplicates of the target, it
    /// finds one. Returns what the answer is evidence of.
    pub(super) fn handle_duplicate(
        &mut self,
        cx: &Context,
        sender: Sender,
        target: Ipv6Addr,
    ) -> Evidence {
        let identity = Identity::Address(target);
        let is_duplicate = self.owner_of(target).is_some_and(|owner| {
            owner.mac != sender.mac && self.targets.is_detecting(target, owner)
        });
        if !is_duplicate {
            return Evidence::Advertised;
        }
        if self.neighbors.remove(identity) {
            let (groups, kernel_entries) = (&mut self.groups, &mut self.kernel_entries);
            release(groups, kernel_entries, cx.now, identity);
        }
        Evidence::Answered
    }

    /// A host downstream has answered for a target. If it has the target, those that look for it
    /// are told.
    pub(super) fn handle_downstream_answer(&mut self, sender: Sender, target: Ipv6Addr) {
        if self.owner_of(target) != Some(sender) {
            return;
        }
        self.targets.answered_downstream(target, sender);
        // The kernel's tables may have waited for the end of the question.
        self.neighbors.tell_again(Identity::Address(target));
    }

    /// The kernel lists a table. Entries of addresses that are never learned may be another
    /// process's, for another upstream. If a process that was killed left an entry of a host that
    /// is still known, the entry stays while the host is asked anew.
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
            if let Some(owner) = self.owner_of(address).filter(|_| is_of_host) {
                self.kernel_entries
                    .keep(address, Side::Downstream(owner.port));
            }
        }
        self.kernel_entries.handle_listing(table, listing);
    }

    /// Has the kernel's tables follow the addresses that were confirmed, or are so no longer, or
    /// moved. Then has new groups joined, first those that hosts have answered for.
    pub(crate) fn settle(&mut self, cx: &mut Context) {
        while let Some((identity, owner)) = self.neighbors.next_changed() {
            if owner.is_some() {
                self.groups.vouch_for(identity.group());
            }
            let Ndp {
                kernel_entries,
                targets,
                ..
            } = self;
            place_downstream(kernel_entries, targets, cx.now, identity, owner);
        }
        self.groups.admit(cx.now, &cx.config);
        let left_out = self.kernel_entries.take_left_out();
        for _ in 0..left_out {
            cx.counters.count(Counter::RefusedProxy);
        }
        if left_out > 0 && self.proxy_lines.allows(cx.now) {
            warn!(
                "table full with {} proxy entries and routes; \
                 other addresses have none until there is room",
                kernel_entries::CAPACITY
            );
        }
    }

    /// Has the kernel's tables follow all that is known, since some of it was left out of a full
    /// table. Touches every address: nothing remembers which ones were left out. A table is full
    /// only while entries of earlier processes cannot be removed.
    fn place_all(&mut self, cx: &Context) {
        let Ndp {
            kernel_entries,
            neighbors,
            targets,
            ..
        } = self;
        for (identity, neighbor) in neighbors
            .iter()
            .filter(|(_, neighbor)| neighbor.is_confirmed())
        {
            let owner = neighbors.host_of(neighbor).map(|(owner, _)| owner);
            place_downstream(kernel_entries, targets, cx.now, identity, owner);
        }
        for (_, target, _) in targets.present_from(0) {
            kernel_entries.set(cx.now, target, Some(Side::Upstream));
        }
        // Those that are left out again were told of.
        let _ = kernel_entries.take_left_out();
    }

    pub(super) fn poll_kernel_table(&mut self, cx: &Context) -> Option<Action> {
        if self.kernel_entries.has_room_again() {
            self.place_all(cx);
        }
        let usable = |side| cx.links.on(side).is_some();
        let change = self.kernel_entries.poll_change(cx.now, usable)?;
        Some(Action::Kernel(change))
    }

    /// The next answer to a host downstream.
    pub(super) fn poll_answer(&mut self, cx: &Context, buffer: &mut [u8]) -> Option<Action> {
        let Solicitation {
            side,
            mac,
            source,
            target,
        } = self.targets.poll_answer()?;
        // RFC 4861 §7.2.4: to the host that asked; in duplicate address detection to all nodes, and
        // with S = 0.
        let (destination, mac) = if source.is_unspecified() {
            (ALL_NODES, None)
        } else {
            (source, Some(mac))
        };
        let length = cx.links.source_on(side).and_then(|(source, own_mac)| {
            advertisement(source, own_mac, destination, target).emit(buffer)
        });
        Some(Action::Advertise {
            // 0 where nothing can be sent now: the host asks again.
            length: length.unwrap_or(0),
            side,
            destination,
            mac,
            target,
        })
    }

    /// The next solicitation for an address that is claimed, or for a target.
    pub(super) fn poll_target(&mut self, cx: &Context, buffer: &mut [u8]) -> Option<Action> {
        let contested = self.contests.poll_question();
        let (target, side, mac) = match contested {
            Some(question) => question,
            None => {
                let (target, side) = self.targets.poll_question()?;
                (target, side, None)
            }
        };
        let destination = match mac {
            Some(_) => target,
            None => SolicitedNode::of(target).group(),
        };
        let length = emit_solicitation(cx, side, destination, target, buffer);
        Some(Action::Solicit {
            length: length.unwrap_or(0),
            side,
            destination,
            mac,
            target,
        })
    }

    /// Notes that an address was solicited.
    pub(super) fn solicited(&mut self, now: Instant, target: Ipv6Addr, side: Side) {
        self.neighbors.note_solicited(now, target);
        if !self.contests.asked(now, target, side) {
            self.targets.asked(target, side);
        }
    }

    /// The next announcement upstream of an address downstream (RFC 9131 §6.1.2): a router makes an
    /// entry for the address before it needs one.
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

    /// When to announce the next address; `None` while nothing can be sent upstream, which an event
    /// ends.
    pub(super) fn next_announcement(&self, cx: &Context) -> Option<Instant> {
        cx.links.source_on(Side::Upstream)?;
        self.kernel_entries.next_announcement()
    }

    /// An [`Action::Advertise`] was carried out, or failed, which is no different from one that is
    /// lost.
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
            contests,
            kernel_entries,
            ..
        } = self;
        let now = &cx.now;
        targets.handle_timeout(*now, |address, ended| match ended {
            Ended::Gone => {
                debug!("{address} is upstream no more");
                kernel_entries.set(*now, address, None);
            }
            // Nobody else has it, so the kernel's tables wait no more.
            Ended::Unanswered => neighbors.tell_again(Identity::Address(address)),
        });
        contests.handle_timeout(*now, |address| neighbors.was_silent(*now, address));
    }
}

/// Has the kernel's tables follow an address downstream. `owner` is the host that has it; `None`
/// where no host has confirmed it. While that host detects duplicates of the address, the kernel
/// answers nobody for it (RFC 4862 §5.4.3).
fn place_downstream(
    kernel_entries: &mut KernelEntries<'_>,
    targets: &Targets<'_>,
    now: Instant,
    identity: Identity,
    owner: Option<Sender>,
) {
    if let Identity::Address(address) = identity {
        let settled = owner.filter(|owner| !targets.is_detecting(address, *owner));
        let side = settled.map(|owner| Side::Downstream(owner.port));
        kernel_entries.set(now, address, side);
    }
}

fn count_refusal(cx: &mut Context, asked: Result<(), Refused>) {
    if asked.is_err() {
        cx.counters.count(Counter::RefusedTarget);
    }
}

/// Writes a solicitation for a target; its length. `None` while nothing can be sent on its link.
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

/// A proxy's advertisement: with this router's own link-layer address, and O = 0, so that the
/// target's own advertisement wins (RFC 4861 §7.2.8).
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

/// `None` on links without link-layer addresses, where it is all zero.
fn some_address(mac: MacAddress) -> Option<MacAddress> {
    (mac != MacAddress([0; 6])).then_some(mac)
}
