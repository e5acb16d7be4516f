//! The interfaces named by the user, as the kernel has them now.

use std::net::Ipv6Addr;

use protocol::config::{Config, InterfaceName, MAX_DOWNSTREAMS};
use protocol::listener::Upstream;

use crate::sys::netlink::{Dump, Notice};

/// The upstream and the downstreams.
pub struct Interfaces {
    upstream: Interface,
    downstreams: heapless::Vec<Interface, MAX_DOWNSTREAMS>,
}

struct Interface {
    name: InterfaceName,
    /// The kernel's number; `None` while there is no such interface.
    index: Option<u32>,
    mtu: u32,
    /// A usable link-local address.
    link_local: Option<Ipv6Addr>,
    /// The dump under way has told of the interface, and of the address.
    link_confirmed: bool,
    address_confirmed: bool,
}

impl Interfaces {
    /// None of them is there, as far as is known.
    pub fn new(config: &Config) -> Self {
        Interfaces {
            upstream: Interface::new(&config.upstream),
            downstreams: config.downstreams.iter().map(Interface::new).collect(),
        }
    }

    pub fn upstream(&self) -> Option<Upstream> {
        let index = self.upstream.index?;
        Some(Upstream {
            index,
            link_local: self.upstream.link_local,
            mtu: self.upstream.mtu,
        })
    }

    /// The kernel's numbers of the downstreams, in the order of the configuration.
    pub fn downstreams(&self) -> impl Iterator<Item = Option<u32>> {
        self.downstreams.iter().map(|interface| interface.index)
    }

    /// The names of those that are not there.
    pub fn missing(&self) -> impl Iterator<Item = &InterfaceName> {
        let all = std::iter::once(&self.upstream).chain(&self.downstreams);
        all.filter(|interface| interface.index.is_none())
            .map(|interface| &interface.name)
    }

    /// A dump starts: what it does not tell of is not there.
    pub fn begin(&mut self, dump: Dump) {
        for interface in self.all() {
            match dump {
                Dump::Links => interface.link_confirmed = false,
                Dump::Addresses => interface.address_confirmed = false,
            }
        }
    }

    /// Takes what the kernel told; a dump that is to be made because of it.
    pub fn handle(&mut self, notice: &Notice<'_>) -> Option<Dump> {
        match *notice {
            Notice::Link { index, name, mtu } => {
                let mut found = false;
                for interface in self.all() {
                    if interface.name.as_str() == name {
                        found |= interface.index != Some(index);
                        interface.is_there(index, mtu);
                    } else if interface.index == Some(index) {
                        // Renamed to something else.
                        interface.is_gone();
                    }
                }
                // Its addresses were told before its name was this one.
                found.then_some(Dump::Addresses)
            }
            Notice::LinkDeleted { index } => {
                for interface in self.with_index(index) {
                    interface.is_gone();
                }
                None
            }
            Notice::Address {
                index,
                address,
                usable: true,
            } if address.is_unicast_link_local() => {
                for interface in self.with_index(index) {
                    // One is enough; a second one takes its place only where a dump has not told of the first.
                    if interface.link_local == Some(address) || !interface.address_confirmed {
                        interface.link_local = Some(address);
                        interface.address_confirmed = true;
                    }
                }
                None
            }
            Notice::Address { index, address, .. } | Notice::AddressDeleted { index, address } => {
                let mut lost = false;
                for interface in self.with_index(index) {
                    if interface.link_local == Some(address) {
                        interface.link_local = None;
                        interface.address_confirmed = false;
                        lost = true;
                    }
                }
                // There may be another one.
                lost.then_some(Dump::Addresses)
            }
            Notice::Dumped(Dump::Links) => {
                for interface in self.all() {
                    if !interface.link_confirmed {
                        interface.is_gone();
                    }
                }
                Some(Dump::Addresses)
            }
            Notice::Dumped(Dump::Addresses) => {
                for interface in self.all() {
                    if !interface.address_confirmed {
                        interface.link_local = None;
                    }
                }
                None
            }
            Notice::Lost => Some(Dump::Links),
        }
    }

    fn all(&mut self) -> impl Iterator<Item = &mut Interface> {
        std::iter::once(&mut self.upstream).chain(&mut self.downstreams)
    }

    fn with_index(&mut self, index: u32) -> impl Iterator<Item = &mut Interface> {
        self.all()
            .filter(move |interface| interface.index == Some(index))
    }
}

impl Interface {
    fn new(name: &InterfaceName) -> Self {
        Interface {
            name: name.clone(),
            index: None,
            mtu: 0,
            link_local: None,
            link_confirmed: false,
            address_confirmed: false,
        }
    }

    fn is_there(&mut self, index: u32, mtu: u32) {
        if self.index != Some(index) {
            self.is_gone();
            self.index = Some(index);
        }
        self.mtu = mtu;
        self.link_confirmed = true;
    }

    fn is_gone(&mut self) {
        self.index = None;
        self.link_local = None;
        self.address_confirmed = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FE80_1: &str = "fe80::1";

    fn interfaces() -> Interfaces {
        let mut config = Config::new("wan".parse().unwrap());
        config.downstreams.push("br-lan".parse().unwrap()).unwrap();
        Interfaces::new(&config)
    }

    fn link(index: u32, name: &str) -> Notice<'_> {
        let mtu = 1500;
        Notice::Link { index, name, mtu }
    }

    fn address(index: u32, address: &str, usable: bool) -> Notice<'static> {
        let address = address.parse().unwrap();
        Notice::Address {
            index,
            address,
            usable,
        }
    }

    fn deleted(index: u32, address: &str) -> Notice<'static> {
        let address = address.parse().unwrap();
        Notice::AddressDeleted { index, address }
    }

    fn link_local(interfaces: &Interfaces) -> Option<String> {
        let address = interfaces.upstream().unwrap().link_local;
        address.map(|address| address.to_string())
    }

    #[test]
    fn only_the_named_ones_count_and_the_missing_are_known() {
        let mut interfaces = interfaces();
        assert_eq!(interfaces.handle(&link(7, "eth0")), None);
        assert_eq!(interfaces.upstream(), None);
        assert_eq!(interfaces.handle(&link(8, "wan")), Some(Dump::Addresses));
        assert_eq!(interfaces.handle(&link(8, "wan")), None, "nothing new");
        assert_eq!(interfaces.upstream().unwrap().index, 8);
        let missing: Vec<_> = interfaces.missing().map(InterfaceName::as_str).collect();
        assert_eq!(missing, ["br-lan"]);
        interfaces.handle(&link(9, "br-lan"));
        assert_eq!(interfaces.downstreams().collect::<Vec<_>>(), [Some(9)]);
    }

    #[test]
    fn a_renamed_or_deleted_or_recreated_interface_is_followed() {
        let mut interfaces = interfaces();
        interfaces.handle(&link(8, "wan"));
        interfaces.handle(&address(8, FE80_1, true));
        interfaces.handle(&link(8, "wan-old"));
        assert_eq!(interfaces.upstream(), None);
        interfaces.handle(&link(8, "wan"));
        assert_eq!(link_local(&interfaces), None, "to be dumped anew");
        interfaces.handle(&address(8, FE80_1, true));
        interfaces.handle(&Notice::LinkDeleted { index: 9 });
        assert_eq!(link_local(&interfaces).unwrap(), FE80_1);
        interfaces.handle(&Notice::LinkDeleted { index: 8 });
        assert_eq!(interfaces.upstream(), None);
        interfaces.handle(&link(10, "wan"));
        assert_eq!(interfaces.upstream().unwrap().index, 10);
        assert_eq!(link_local(&interfaces), None);
    }

    #[test]
    fn an_address_counts_only_while_it_is_usable_and_link_local() {
        let mut interfaces = interfaces();
        interfaces.handle(&link(8, "wan"));
        interfaces.handle(&address(8, "2001:db8::1", true));
        interfaces.handle(&address(8, FE80_1, false));
        interfaces.handle(&address(9, FE80_1, true));
        assert_eq!(link_local(&interfaces), None);
        interfaces.handle(&address(8, FE80_1, true));
        assert_eq!(link_local(&interfaces).unwrap(), FE80_1);
        interfaces.handle(&address(8, "fe80::2", true));
        assert_eq!(link_local(&interfaces).unwrap(), FE80_1, "one is enough");
        assert_eq!(interfaces.handle(&deleted(8, "fe80::2")), None);
        let again = Some(Dump::Addresses);
        assert_eq!(interfaces.handle(&deleted(8, FE80_1)), again);
        assert_eq!(link_local(&interfaces), None);
        interfaces.handle(&address(8, "fe80::3", true));
        assert_eq!(interfaces.handle(&address(8, "fe80::3", false)), again);
        assert_eq!(link_local(&interfaces), None, "tentative again");
    }

    #[test]
    fn what_a_dump_does_not_tell_of_is_gone() {
        let mut interfaces = interfaces();
        for notice in [link(8, "wan"), link(9, "br-lan"), address(8, FE80_1, true)] {
            interfaces.handle(&notice);
        }
        assert_eq!(interfaces.handle(&Notice::Lost), Some(Dump::Links));
        interfaces.begin(Dump::Links);
        interfaces.handle(&link(8, "wan"));
        let next = interfaces.handle(&Notice::Dumped(Dump::Links));
        assert_eq!(next, Some(Dump::Addresses));
        assert_eq!(interfaces.downstreams().collect::<Vec<_>>(), [None]);
        assert_eq!(link_local(&interfaces).unwrap(), FE80_1);
        interfaces.begin(Dump::Addresses);
        interfaces.handle(&address(8, "fe80::2", true));
        interfaces.handle(&Notice::Dumped(Dump::Addresses));
        assert_eq!(link_local(&interfaces).unwrap(), "fe80::2");
        interfaces.begin(Dump::Addresses);
        interfaces.handle(&Notice::Dumped(Dump::Addresses));
        assert_eq!(link_local(&interfaces), None);
    }
}
