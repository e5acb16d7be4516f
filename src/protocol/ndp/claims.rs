//! Whose an address is: one rule for every claim, from every side.
//!
//! Who has an address, has just claimed it, or is known in its group by MLD is its holder. Anybody
//! else, and the holder's own link-layer address on another link, has to win a contest
//! ([`super::contests`]). First come, first served holds before an address is confirmed too.

use core::net::Ipv6Addr;

use log::log;

use super::contests::Claim;
use super::neighbors::{Evidence, Identity, Owner, Refusal, Seen, Sender};
use super::targets::{Refused, Solicitation};
use super::{Ndp, release};
use crate::context::Context;
use crate::counters::Counter;
use crate::link::Side;
use crate::time::Instant;
use crate::wire::{MacAddress, SolicitedNode};

/// How many searches through all neighbors claims may cause, in a second and at once.
const SEARCH_RATE: u32 = 10;
const SEARCH_BURST: u32 = 20;

impl Ndp<'_> {
    /// A host downstream was seen with an address. `detects` says that it detects duplicates of the
    /// address.
    #[inline]
    pub(super) fn handle_claim(
        &mut self,
        cx: &mut Context,
        sender: Sender,
        address: Ipv6Addr,
        (number, evidence): (u16, Evidence),
        detects: bool,
    ) {
        let identity = Identity::Address(address);
        let seen = Seen {
            identity,
            number,
            evidence,
        };
        let side = Side::Downstream(sender.port);
        let is_answer =
            evidence == Evidence::Advertised && self.contests.asks_holder(address, side);
        let owner = self.neighbors.sighted(cx.now, &cx.config, seen, is_answer);
        match owner {
            Owner::Itself if is_answer => self.end_contest(address, side),
            Owner::Itself => {}
            Owner::Another(owner) => self.handle_rival(cx, sender, owner, seen, detects),
            Owner::Nobody => self.handle_newcomer(cx, sender, seen, detects),
        }
    }

    /// A host claims an address of another host.
    fn handle_rival(
        &mut self,
        cx: &mut Context,
        sender: Sender,
        owner: Sender,
        seen: Seen,
        detects: bool,
    ) {
        let Identity::Address(address) = seen.identity else {
            return;
        };
        let side = Side::Downstream(sender.port);
        match seen.evidence {
            Evidence::Remembered => return,
            Evidence::Advertised | Evidence::Answered => {
                let has_won = self.contests.asks_claimants(address, side)
                    || self.neighbors.is_heir(address, sender.port);
                if has_won {
                    let neighbors = &mut self.neighbors;
                    if neighbors.hand_over(cx.now, &cx.config, address, seen.number) {
                        self.has_moved(cx, address, side);
                    }
                    return;
                }
            }
            Evidence::Heard => {}
        }
        let is_answer = seen.evidence != Evidence::Heard;
        if is_answer && self.contests.note_answer(address, side) {
            return;
        }
        let holder = (Side::Downstream(owner.port), owner.mac);
        self.contest(cx, sender, address, holder, Some(seen.number), detects);
    }

    /// A host claims an address that no host downstream is known to have.
    fn handle_newcomer(&mut self, cx: &mut Context, sender: Sender, mut seen: Seen, detects: bool) {
        let Identity::Address(address) = seen.identity else {
            return;
        };
        let side = Side::Downstream(sender.port);
        let is_answer = seen.evidence == Evidence::Advertised;
        let has_won = is_answer && self.contests.asks_claimants(address, side);
        let holder = match self.targets.present_mac(address) {
            Some(mac) => Some((Side::Upstream, mac)),
            None => {
                let Ok(listener) = self.listener_of(cx.now, address, Some(seen.number)) else {
                    self.refuse(cx, Refusal::Rate, sender, address, seen.evidence);
                    return;
                };
                listener.map(|owner| (Side::Downstream(owner.port), owner.mac))
            }
        };
        if let Some(holder) = holder
            && !has_won
            && seen.evidence != Evidence::Answered
        {
            let is_claim = match seen.evidence {
                Evidence::Heard => true,
                Evidence::Advertised => !self.contests.note_answer(address, side),
                Evidence::Remembered | Evidence::Answered => false,
            };
            if is_claim {
                self.contest(cx, sender, address, holder, Some(seen.number), detects);
            }
            return;
        }
        // The host that is known by MLD alone has answered for its address, or the last claimant.
        let is_asked = is_answer && self.contests.asks_holder(address, side);
        if has_won || is_asked {
            seen.evidence = Evidence::Answered;
        }
        self.admit(cx, sender, seen);
        if has_won {
            self.has_moved(cx, address, side);
        } else if is_asked {
            self.end_contest(address, side);
        }
    }

    /// A host has answered on its link for a group. Its link-layer address may have addresses in
    /// that group on other links, which the host may have brought along: it claims them.
    pub(super) fn claim_elsewhere(
        &mut self,
        cx: &mut Context,
        sender: Sender,
        number: u16,
        group: SolicitedNode,
    ) {
        let mut elsewhere = heapless::Vec::<_, 8>::new();
        self.neighbors
            .for_each_elsewhere(&cx.config, sender, group, |address, owner| {
                // One host has hardly more addresses in a group.
                let _ = elsewhere.push((address, owner));
            });
        for (address, owner) in elsewhere {
            let holder = (Side::Downstream(owner.port), owner.mac);
            self.contest(cx, sender, address, holder, Some(number), false);
        }
    }

    /// A host upstream claims an address of a host downstream, or one whose group a host downstream
    /// is known in. `answers` says that it has answered this router. Returns false if nobody
    /// downstream holds the address, so that it may be upstream.
    pub(super) fn handle_upstream_claim(
        &mut self,
        cx: &mut Context,
        mac: MacAddress,
        address: Ipv6Addr,
        answers: bool,
    ) -> bool {
        let identity = Identity::Address(address);
        let owner = match self.owner_of(address) {
            Some(owner) => owner,
            None => match self.listener_of(cx.now, address, None) {
                Ok(Some(owner)) => owner,
                Ok(None) => return false,
                Err(Refused) => return true,
            },
        };
        // While a host detects duplicates of the address it does not have it, although it already
        // reports the address's group by MLD.
        if self.targets.is_detecting(address, owner) {
            return false;
        }
        if answers
            && self.contests.asks_claimants(address, Side::Upstream)
            && self.targets.take_in(cx.now, &cx.config, address, mac)
        {
            if self.neighbors.remove(identity) {
                release(&mut self.groups, &mut self.kernel_entries, cx.now, identity);
            }
            let there = Some(Side::Upstream);
            self.kernel_entries.set(cx.now, address, there);
            self.has_moved(cx, address, Side::Upstream);
            return true;
        }
        let holder = (Side::Downstream(owner.port), owner.mac);
        let sender = Sender::default();
        self.contest(cx, sender, address, holder, None, false);
        true
    }

    /// The target upstream has answered. Ends the contest of it.
    pub(super) fn end_contest(&mut self, address: Ipv6Addr, on: Side) {
        if let Some(asker) = self.contests.settle(address, on) {
            self.targets.answer(asker);
        }
    }

    /// Has a claim contested. `number` is that of the claimant; `None` for one upstream, where
    /// `sender` means nothing.
    fn contest(
        &mut self,
        cx: &mut Context,
        sender: Sender,
        address: Ipv6Addr,
        (side, mac): (Side, MacAddress),
        number: Option<u16>,
        detects: bool,
    ) {
        let on = number.map_or(Side::Upstream, |_| Side::Downstream(sender.port));
        let has_mac = mac != MacAddress([0; 6]);
        // RFC 6957 §4.2.2: the host that has the address may have brought it along from another
        // link, and is not taken for its own duplicate. On one link the holder answers by itself.
        let is_itself = has_mac && mac == sender.mac;
        // Where the address is asked for on all links, it is told anyway.
        let is_asked_for = self.targets.detecting(address).is_some();
        let is_told = detects && cx.config.ndp_proxy && !is_itself && !is_asked_for && on != side;
        let asker = is_told.then_some(Solicitation {
            side: on,
            mac: sender.mac,
            source: Ipv6Addr::UNSPECIFIED,
            target: address,
        });
        let not_before = self.neighbors.solicit_at(cx.now, address);
        let claim = Claim {
            address,
            on,
            holder: (side, Some(mac).filter(|_| has_mac)),
            asker,
            not_before: not_before.max(self.targets.solicit_at(cx.now, address)),
            has_answered: self.neighbors.has_just_answered(cx.now, address),
        };
        let neighbors = &mut self.neighbors;
        let admit =
            || number.is_none_or(|number| neighbors.takes_token(cx.now, &cx.config, number));
        match self.contests.claim(cx.now, claim, admit) {
            Ok(until) => self.neighbors.hold_questions(address, until),
            Err(_) => cx.counters.count(Counter::RefusedTarget),
        }
    }

    /// A claimant has won a contest, or is the heir of a host that was silent.
    fn has_moved(&mut self, cx: &mut Context, address: Ipv6Addr, to: Side) {
        if to != Side::Upstream {
            self.targets.remove(address);
        }
        self.end_contest(address, to);
        let level = self.line_level(cx.now);
        let name = cx.config.name_of(to);
        log!(
            level,
            "{address} is on {name} now: who had it is silent, and a claimant answers there"
        );
    }

    /// The host downstream that an address which nobody is known with probably belongs to, by MLD
    /// or by another address: of several hosts in the address's group, the first. `None` if it is
    /// the one with this `number`, or if there is none. An error if it cannot be looked for now.
    fn listener_of(
        &mut self,
        now: Instant,
        address: Ipv6Addr,
        number: Option<u16>,
    ) -> Result<Option<Sender>, Refused> {
        let group = SolicitedNode::of(address);
        let Some(first) = self.groups.first_host(group) else {
            return Ok(None);
        };
        if Some(first) == number {
            return Ok(None);
        }
        let holder = if self.neighbors.may_have(first, address) {
            first
        } else {
            // That one has gone, or has something else in the group, which is rare. To look at
            // every neighbor for the next one costs much, and a claimant may ask for it.
            if !self.searches.take(now, SEARCH_RATE, SEARCH_BURST) {
                return Err(Refused);
            }
            let Some(next) = self.neighbors.who_may_have(address) else {
                return Ok(None);
            };
            self.groups.set_first_host(group, next);
            next
        };
        let holder = self
            .neighbors
            .host_at(holder)
            .filter(|_| Some(holder) != number);
        Ok(holder.map(|(sender, _)| sender))
    }
}
