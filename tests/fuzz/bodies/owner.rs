//! A host that answers where it is. Once it has confirmed its address, it keeps it, whatever an
//! input has others send.

use std::net::Ipv6Addr;

use model::packets::{advertisement, report, solicitation};
use model::{Deed, Model, view};
use protocol::engine::{Action, Event};
use protocol::link::{Port, Side};
use protocol::ndp;
use protocol::ndp::neighbors::{Question, Sender};
use protocol::wire::{MacAddress, RecordType, SolicitedNode};

// An input can name all three.
pub const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 15]);
const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 6);
pub const ADDRESS: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 5);

pub struct Owner {
    port: Port,
    /// It has confirmed its address.
    has_it: bool,
}

impl Owner {
    /// An owner on a port; `None` if the engine cannot ask it there, or does not learn its address.
    pub fn new(model: &Model<'_>, port: Port) -> Option<Owner> {
        let config = model.engine.config();
        let can_answer = config.ask && config.probe && config.learns(ADDRESS);
        let is_there = model.kernel.link(Side::Downstream(port)).is_some();
        let has_it = false;
        (can_answer && is_there && !model.kernel.is_own(ADDRESS)).then_some(Owner { port, has_it })
    }

    pub fn side(&self) -> Side {
        Side::Downstream(self.port)
    }

    pub fn mac(&self) -> MacAddress {
        MAC
    }

    /// What it sends as it comes.
    pub fn arrives(&self, model: &Model<'_>) -> Vec<Vec<u8>> {
        let router = self.router(model);
        vec![self.report(), solicitation(ADDRESS, router)]
    }

    /// What it answers to what the router sent.
    pub fn answers(&self, model: &Model<'_>, deed: &Deed) -> Option<Vec<u8>> {
        let is_asked = match deed.action {
            Action::Ndp(ndp::Action::Ask { question, .. }) => match question {
                Question::Query { port, group, .. } => {
                    let is_asked = port == self.port && group == SolicitedNode::of(ADDRESS);
                    return (is_asked && deed.succeeded).then(|| self.report());
                }
                Question::Ask {
                    port,
                    mac,
                    link_local,
                    ..
                } => {
                    let is_asked = (port, mac, link_local) == (self.port, MAC, LINK_LOCAL);
                    return (is_asked && deed.succeeded).then(|| self.report());
                }
                Question::Probe {
                    port, mac, target, ..
                } => (port, mac, target) == (self.port, MAC, ADDRESS),
                Question::Resolve { port, target, .. } => (port, target) == (self.port, ADDRESS),
            },
            Action::Ndp(ndp::Action::Solicit { side, target, .. }) => {
                (side, target) == (self.side(), ADDRESS)
            }
            Action::Ndp(
                ndp::Action::Join(_)
                | ndp::Action::Leave(_)
                | ndp::Action::Kernel(_)
                | ndp::Action::Advertise { .. },
            )
            | Action::Mld(_) => false,
        };
        (is_asked && deed.succeeded).then(|| advertisement(ADDRESS, self.router(model), ADDRESS))
    }

    /// Once it has its address, it keeps it. The model holds groups, entries and routes against
    /// that.
    pub fn check(&mut self, model: &Model<'_>) {
        let known = view::address(&model.engine, ADDRESS);
        let (port, mac) = (self.port, MAC);
        let has_it =
            known.is_some_and(|known| known.is_confirmed && known.owner == Sender { port, mac });
        assert!(
            has_it || !self.has_it,
            "the owner lost its address: {known:?}"
        );
        self.has_it = has_it;
    }

    /// May an event take the address from its owner by right?
    pub fn is_disturbed_by(&self, event: &Event<'_>) -> bool {
        match event {
            Event::Link(..) | Event::UpstreamPrefixes(_) => true,
            Event::Own { address, .. } => *address == ADDRESS,
            Event::Packet { .. }
            | Event::Remembered { .. }
            | Event::Forgotten(_)
            | Event::OwnUnknown
            | Event::OwnKnown
            | Event::Listed(..)
            | Event::Removed(..)
            | Event::Forwarding { .. }
            | Event::Counted { .. }
            | Event::Renew
            | Event::Stalled => false,
        }
    }

    fn report(&self) -> Vec<u8> {
        let group = SolicitedNode::of(ADDRESS).group();
        report(LINK_LOCAL, &[(RecordType::ModeIsExclude, group)])
    }

    fn router(&self, model: &Model<'_>) -> Ipv6Addr {
        let link = model
            .kernel
            .link(self.side())
            .expect("the owner's link is there");
        link.link_local.expect("a downstream has one")
    }
}
