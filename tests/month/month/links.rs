//! The router's links: prefixes, outages, the querier and the hosts upstream, and the kernel's
//! listings of its tables.

use std::net::Ipv6Addr;

use model::{TABLES, packets};
use protocol::engine::Event;
use protocol::link::Link;
use protocol::link::{Port, Prefix, Side};
use protocol::ndp::kernel_entries::{KernelTable, Listing};
use protocol::wire::{MacAddress, QueryVersion};

use super::{HOUR, Happening, MINUTE, Month, OTHERS, Querier, ROUTER, SECOND};
use crate::hosts::State;

const GATEWAY: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xaa);
const GATEWAY_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0xaa, 0]);

impl Month {
    pub(super) fn new_prefix(&mut self) {
        self.next_prefix += 1;
        if let Some(old) = self.prefixes.last().copied() {
            let delay = self.some(HOUR);
            self.at(delay, Happening::PrefixEnds { prefix: old });
        }
        self.prefixes.push(self.next_prefix);
        self.tell_prefixes();
        self.all_renumber();
    }

    pub(super) fn all_renumber(&mut self) {
        for host in 0..self.hosts.len() {
            if self.hosts[host].state == State::Awake {
                let delay = self.some(5 * MINUTE);
                self.at(delay, Happening::Renumbers { host });
            }
        }
    }

    pub(super) fn tell_prefixes(&mut self) {
        if self.follows_prefixes {
            let prefix = |bits: &u64| {
                let network = Ipv6Addr::from_bits(u128::from(*bits) << 64);
                Prefix::new(network, 64).unwrap()
            };
            let prefixes: Vec<_> = self.prefixes.iter().map(prefix).collect();
            self.world.prefixes = Some(self.prefixes.clone());
            self.world.forget_unlearned(None);
            self.world.handle(Event::UpstreamPrefixes(&prefixes));
        }
    }

    pub(super) fn own_changes(&mut self) {
        if self.own.len() >= 3 || self.random.u8(..4) == 0 && !self.own.is_empty() {
            let place = self.random.usize(..self.own.len());
            let address = self.own.swap_remove(place);
            let present = false;
            self.world.handle(Event::Own {
                prefix_length: 128,
                index: 1,
                address,
                present,
            });
        } else if let Some(address) = self.any_address() {
            self.own.push(address);
            self.tells_own(address);
        }
        if self.random.u8(..4) == 0 {
            self.world.handle(Event::OwnUnknown);
            for address in self.own.clone() {
                self.tells_own(address);
            }
            self.world.handle(Event::OwnKnown);
        }
    }

    fn tells_own(&mut self, address: Ipv6Addr) {
        self.world.forget_unlearned(Some(address));
        let present = true;
        self.world.handle(Event::Own {
            prefix_length: 128,
            index: 1,
            address,
            present,
        });
    }

    pub(super) fn downstream_goes(&mut self) {
        let port = self.random.usize(..self.world.ports()) as Port;
        if self.world.downstream(port).is_none() {
            return;
        }
        for host in 0..self.hosts.len() {
            if self.hosts[host].port == port {
                self.vanishes(host);
            }
        }
        self.world.set_downstream(port, None);
        let average = [SECOND, MINUTE, 10 * MINUTE][self.random.usize(..3)];
        let delay = self.some(average);
        self.at(delay, Happening::DownstreamComes { port });
    }

    pub(super) fn downstream_comes(&mut self, port: Port) {
        let changes = u128::from(self.random.u8(..8) == 0);
        let downstream = Link {
            index: 100 + u32::from(port),
            link_local: Some(Ipv6Addr::from_bits(ROUTER.to_bits() + (changes << 8))),
            mtu: 1500,
            mac: MacAddress([2, 0, 0, 0, 0xff, port]),
        };
        let is_back = self.world.downstream(port).is_none();
        self.world.set_downstream(port, Some(downstream));
        for host in 0..self.hosts.len() {
            if is_back && self.hosts[host].port == port {
                self.appears(host);
            }
        }
        self.list();
    }

    pub(super) fn upstream_goes(&mut self) {
        let Some(upstream) = self.world.upstream() else {
            return;
        };
        match self.random.u8(..8) {
            0..4 => self.world.set_upstream(None),
            4 => self.world.set_upstream(Some(Link {
                index: self.last_index + 1,
                ..upstream
            })),
            5 => {
                // The link goes down and comes up again before the engine is told.
                self.world.model.kernel.lose_all();
                self.world.set_upstream(Some(upstream));
            }
            6 => self.world.set_upstream(Some(Link {
                mtu: 1280,
                ..upstream
            })),
            _ => self.world.set_upstream(Some(Link {
                link_local: None,
                ..upstream
            })),
        }
        let average = [SECOND, MINUTE, 10 * MINUTE][self.random.usize(..3)];
        let delay = self.some(average);
        self.at(delay, Happening::UpstreamComes);
    }

    pub(super) fn upstream_comes(&mut self) {
        self.last_index += u32::from(self.random.bool());
        let upstream = Link {
            index: self.last_index,
            link_local: Some(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1)),
            mtu: 1500,
            mac: MacAddress([2, 0, 0, 0, 0xfe, 0]),
        };
        self.world.set_upstream(Some(upstream));
        self.list();
    }

    pub(super) fn query(&mut self) {
        let version = match self.querier {
            Querier::None => return,
            Querier::V1 => QueryVersion::V1,
            Querier::V2 => packets::v2(2, 125),
        };
        let packet = packets::query(GATEWAY, Ipv6Addr::UNSPECIFIED, version);
        self.upstream_hears(&packet);
    }

    fn upstream_hears(&mut self, packet: &[u8]) {
        if self.world.upstream().is_some() {
            let mac = GATEWAY_MAC;
            self.world
                .handle(packets::heard(Side::Upstream, mac, packet));
        }
    }

    /// The gateway solicits an address.
    pub(super) fn solicited_from_upstream(&mut self, target: Ipv6Addr) {
        let packet = packets::solicitation_by(GATEWAY, target, Some(GATEWAY_MAC));
        self.upstream_hears(&packet);
    }

    /// The address of a host on the upstream's link.
    pub fn beside(&self, number: u8) -> Option<Ipv6Addr> {
        let prefix = *self.prefixes.last()?;
        let bits = u128::from(prefix) << 64 | 0xbe51de << 32 | u128::from(number);
        Some(Ipv6Addr::from_bits(bits))
    }

    pub fn solicited_upstream(&mut self, target: Ipv6Addr) {
        let is_beside = (target.to_bits() >> 32) as u32 == 0xbe51de;
        // Some of these hosts are gone, for an hour at a time.
        let hour = self.world.now() / HOUR;
        if is_beside && !(hour + target.to_bits() as u64).is_multiple_of(3) {
            let delay = self.random.u64(..1_500);
            self.at(delay, Happening::UpstreamAnswer { target });
        }
    }

    pub(super) fn upstream_answers(&mut self, target: Ipv6Addr) {
        let Some(upstream) = self.world.upstream() else {
            return;
        };
        let Some(destination) = upstream.link_local else {
            return;
        };
        let mac = Some(GATEWAY_MAC);
        let packet = packets::advertisement_by(target, destination, target, mac);
        let now = self.world.now();
        self.world.truth.answer_upstream(now, target);
        self.upstream_hears(&packet);
    }

    /// Before the kernel lists its tables, something was left behind or lost now and then.
    pub(super) fn lists(&mut self) {
        let config = self.world.config();
        if config.ndp_proxy || config.host_routes {
            if self.random.u8(..8) == 0 {
                self.world.model.kernel.lose_all();
            }
            if let (0..4, Some(prefix)) = (self.random.u8(..8), self.prefixes.last()) {
                let bits = u128::from(*prefix) << 64 | 0x1ef7 << 48;
                let address = Ipv6Addr::from_bits(bits | u128::from(self.random.u32(..)));
                let port = self.random.usize(..self.world.ports()) as Port;
                let kernel = &mut self.world.model.kernel;
                kernel.leave_proxy(address);
                kernel.leave_route(address, Side::Downstream(port));
            }
        }
        self.list();
    }

    pub(super) fn list(&mut self) {
        for table in TABLES {
            self.list_table(table);
        }
        self.world.model.kernel.trust();
        self.world.disturbed = self.world.now();
    }

    /// The router may hear a host in the middle of the listing.
    fn list_table(&mut self, table: KernelTable) {
        self.world.model.kernel.doubt_all();
        let mut entries = self.world.model.kernel.listing(table);
        entries.push((OTHERS, Side::Upstream));
        self.world.is_listing = true;
        self.world.handle(Event::Listed(table, Listing::Begins));
        for (address, side) in entries {
            if self.random.u8(..) == 0 && !self.is_over {
                let host = self.random.usize(..self.hosts.len());
                self.renumbers(host);
            }
            let has = Listing::Has(address, side);
            self.world.handle(Event::Listed(table, has));
        }
        self.world.handle(Event::Listed(table, Listing::Ends));
        self.world.is_listing = false;
    }
}
