//! What the MLD reports of a host change.

use core::net::Ipv6Addr;

use super::{Identity, Neighbors};
use crate::config::Config;
use crate::tables::table::Next;
use crate::time::Instant;
use crate::wire::SolicitedNode;

/// What a report may answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answers {
    /// It comes from an address that no question was sent for.
    Nothing,
    /// The queries for single groups, if any was sent.
    OfGroups,
    /// The query to the host.
    OfHost,
}

/// How a host is known in a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    Nothing,
    /// By a listener only.
    Listener,
    /// By an address.
    Address,
}

impl Neighbors<'_> {
    /// Notes an MLD report of a host. What does it answer?
    pub(crate) fn reported(&mut self, now: Instant, number: u16, source: Ipv6Addr) -> Answers {
        let host = self.hosts.get_mut(number);
        host.map_or(Answers::Nothing, |host| host.reported(now, source))
    }

    /// Notes that a host reports to listen to a group. Renews the host's neighbors in the group,
    /// and confirms them if that `answers` a question. Returns how the host is known there.
    pub(crate) fn listens(
        &mut self,
        now: Instant,
        config: &Config,
        number: u16,
        group: SolicitedNode,
        answers: Answers,
    ) -> Known {
        let Some(host) = self.hosts.get(number) else {
            return Known::Nothing;
        };
        let mut link = host.first;
        let mut known = Known::Nothing;
        while let Some(slot) = link.slot() {
            let Some((identity, neighbor)) = self.table.get(slot) else {
                break;
            };
            link = neighbor.next;
            if identity.group() == group {
                known = match identity {
                    Identity::Listener(..) if known == Known::Nothing => Known::Listener,
                    Identity::Listener(..) => known,
                    Identity::Address(_) => Known::Address,
                };
                let confirms = match answers {
                    Answers::Nothing => false,
                    Answers::OfGroups => {
                        matches!(identity, Identity::Listener(..))
                            && neighbor.is_group_asked_for(now)
                    }
                    Answers::OfHost => true,
                };
                let confirms = confirms && !neighbor.is_confirmed();
                self.renew(now, config, slot, number, confirms);
            }
        }
        known
    }

    /// Notes that a host reports to listen to a group no longer. Any node can send such a report,
    /// so the host is asked first. If it does not answer for its neighbors in the group, they
    /// expire.
    pub(crate) fn listens_no_more(&mut self, now: Instant, number: u16, group: SolicitedNode) {
        let mut link = self.hosts.get(number).map_or(Next::END, |host| host.first);
        while let Some(slot) = link.slot() {
            let Some((identity, neighbor)) = self.table.get_mut(slot) else {
                break;
            };
            link = neighbor.next;
            if identity.group() == group && !neighbor.revoked {
                neighbor.revoked = true;
                self.doubt(now, slot);
            }
        }
    }
}
