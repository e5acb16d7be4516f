//! Chooses addresses that nobody has, at random.

use std::net::Ipv6Addr;

use protocol::link::Prefix;
use protocol::wire::SolicitedNode;

use crate::sys::random;

/// How often an address is drawn before there is taken to be none. In all but the shortest ranges
/// the first one is free.
const DRAWS: usize = 64;

/// A prefix in which to choose, and what is not to be chosen.
pub struct Addresses {
    network: u128,
    /// The bits behind the prefix.
    host_bits: u128,
    taken: Vec<Ipv6Addr>,
}

impl Addresses {
    /// Chooses in a prefix of 1 to 127 bits.
    pub fn of(prefix: Prefix) -> Self {
        let (network, length) = (prefix.network(), prefix.length());
        let host_bits = u128::MAX.checked_shr(length.into()).unwrap_or(0);
        // RFC 4291 §2.6.1: the first address is every router's. RFC 6164 §5: not in a /127.
        let taken = if length < 127 {
            vec![network]
        } else {
            Vec::new()
        };
        Addresses {
            network: network.to_bits(),
            host_bits,
            taken,
        }
    }

    /// Excludes an address, and so all others with its group.
    pub fn exclude(&mut self, address: Ipv6Addr) {
        self.taken.push(address);
    }

    /// Draws an address whose group neither an excluded address nor `is_joined` has, and excludes
    /// it. `None` if no such address is found.
    pub fn draw(&mut self, is_joined: &dyn Fn(Ipv6Addr) -> bool) -> Option<Ipv6Addr> {
        for _ in 0..DRAWS {
            let mut octets = [0; 16];
            random(&mut octets).ok()?;
            let host = u128::from_be_bytes(octets) & self.host_bits;
            let address = Ipv6Addr::from_bits(self.network | host);
            let group = SolicitedNode::of(address);
            let is_taken = |taken: &Ipv6Addr| SolicitedNode::of(*taken) == group;
            if !self.taken.iter().any(is_taken) && !is_joined(group.group()) {
                self.exclude(address);
                return Some(address);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(prefix: &str) -> Addresses {
        Addresses::of(prefix.parse().unwrap())
    }

    fn drawn(addresses: &mut Addresses) -> Vec<String> {
        let draws = std::iter::from_fn(|| addresses.draw(&|_| false));
        let mut drawn: Vec<_> = draws.map(|address| address.to_string()).collect();
        drawn.sort();
        drawn
    }

    #[test]
    fn every_address_is_drawn_once_but_those_that_are_taken() {
        let mut some = addresses("2001:db8::8/126");
        assert_eq!(
            drawn(&mut some),
            ["2001:db8::9", "2001:db8::a", "2001:db8::b"]
        );
        assert_eq!(drawn(&mut some), [""; 0]);
        let mut some = addresses("2001:db8::8/126");
        some.exclude("2001:db8::a".parse().unwrap());
        assert_eq!(drawn(&mut some), ["2001:db8::9", "2001:db8::b"]);
        assert_eq!(
            drawn(&mut addresses("2001:db8::8/127")),
            ["2001:db8::8", "2001:db8::9"]
        );
    }

    #[test]
    fn no_address_has_the_group_of_another_one_or_one_that_is_joined() {
        let mut some = addresses("2001:db8::8/126");
        // Another prefix, and the same last 24 bits.
        some.exclude("2001:db8:7::a".parse().unwrap());
        let joined: Ipv6Addr = "ff02::1:ff00:9".parse().unwrap();
        let is_joined = |group: Ipv6Addr| group == joined;
        assert_eq!(some.draw(&is_joined), "2001:db8::b".parse().ok());
        assert_eq!(some.draw(&is_joined), None);
    }

    #[test]
    fn an_address_is_in_its_prefix_and_random_behind_it() {
        for prefix in ["2001:db8:1:2::/64", "2001:db8::/32", "2001:db8:1:2:3::/80"] {
            let (prefix, mut some): (Prefix, _) = (prefix.parse().unwrap(), addresses(prefix));
            let mut draw = || some.draw(&|_| false).unwrap();
            let (first, second) = (draw(), draw());
            assert!(prefix.contains(first) && prefix.contains(second));
            assert_ne!(first, second);
        }
    }
}
