//! The nouns that all modules share: links, sides, interface names and prefixes.

use core::fmt;
use core::net::Ipv6Addr;
use core::str::FromStr;

use crate::escaped::Escaped;
use crate::wire::MacAddress;

/// The most downstreams of one process.
pub const MAX_DOWNSTREAMS: usize = 32;

/// The index of a downstream in the list of downstreams of a configuration.
pub type Port = u8;

/// A side of the router: the upstream, or one of the downstreams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Upstream,
    Downstream(Port),
}

/// The most links: the upstream and the downstreams.
pub const MAX_LINKS: usize = 1 + MAX_DOWNSTREAMS;

impl Side {
    /// The place of the link in an array of [`MAX_LINKS`]: first the upstream, then the downstreams
    /// by their port.
    pub(crate) fn place(self) -> usize {
        match self {
            Side::Upstream => 0,
            Side::Downstream(port) => usize::from(port).saturating_add(1),
        }
    }
}

/// A link of the router, upstream or downstream, in its present state in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// The kernel's index of the interface. An interface with another index is another interface,
    /// without memberships, even if it has the same name.
    pub index: u32,
    /// The source of MLD and Neighbor Discovery messages: a link-local address that is valid and
    /// not tentative. `None` while the interface has none.
    pub link_local: Option<Ipv6Addr>,
    /// In octets. The engine treats a value below 1280 as 1280 (RFC 8200 §5).
    pub mtu: u32,
    /// All zero if the link has no link-layer addresses.
    pub mac: MacAddress,
}

/// The name of a network interface by the kernel's rule: 1 to 15 octets, none of them white space,
/// `/` or `:`, and neither `.` nor `..`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceName(heapless::String<15>);

impl InterfaceName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for InterfaceName {
    type Err = InterfaceNameError;

    fn from_str(name: &str) -> Result<Self, InterfaceNameError> {
        let forbidden = |octet| matches!(octet, 0..=b' ' | b'/' | b':' | 0x7f);
        if name.is_empty() || name == "." || name == ".." || name.bytes().any(forbidden) {
            return Err(InterfaceNameError);
        }
        heapless::String::try_from(name)
            .map(InterfaceName)
            .map_err(|_| InterfaceNameError)
    }
}

/// Characters that cannot be seen are [escaped](Escaped).
impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Escaped(self.as_str()).fmt(f)
    }
}

/// The text is not a name that an interface can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterfaceNameError;

impl fmt::Display for InterfaceNameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an interface's name has 1 to 15 characters, no space, '/' or ':'")
    }
}

/// An IPv6 prefix of 0 to 128 bits. All bits behind it are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    pub(crate) network: Ipv6Addr,
    pub(crate) length: u8,
}

impl Prefix {
    pub fn new(network: Ipv6Addr, length: u8) -> Result<Self, PrefixError> {
        if length > 128 {
            return Err(PrefixError::TooLong);
        }
        let prefix = Prefix {
            network: Ipv6Addr::from_bits(network.to_bits() & Prefix::mask(length)),
            length,
        };
        if prefix.network != network {
            return Err(PrefixError::HostBits(prefix));
        }
        Ok(prefix)
    }

    /// The prefix of `length` bits that contains an address. Fails if `length` exceeds 128.
    pub fn of(address: Ipv6Addr, length: u8) -> Result<Self, PrefixError> {
        let network = Ipv6Addr::from_bits(address.to_bits() & Prefix::mask(length));
        Prefix::new(network, length)
    }

    /// The first address.
    pub fn network(&self) -> Ipv6Addr {
        self.network
    }

    /// The number of bits, 0 to 128.
    pub fn length(&self) -> u8 {
        self.length
    }

    pub fn contains(&self, address: Ipv6Addr) -> bool {
        let differing = address.to_bits() ^ self.network.to_bits();
        differing.leading_zeros() >= self.length.into()
    }

    /// The only address of a prefix of 128 bits; `None` for a shorter one.
    pub fn single_address(&self) -> Option<Ipv6Addr> {
        (self.length == 128).then_some(self.network)
    }

    /// Whether the prefix contains every address of `other`.
    pub fn covers(&self, other: &Prefix) -> bool {
        self.length <= other.length && self.contains(other.network)
    }

    fn mask(length: u8) -> u128 {
        let host_bits = 128_u32.saturating_sub(length.into());
        u128::MAX.checked_shl(host_bits).unwrap_or(0)
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let (network, length) = text.split_once('/').ok_or(PrefixError::Syntax)?;
        let network = network.parse().map_err(|_| PrefixError::Syntax)?;
        let length: u32 = length.parse().map_err(|_| PrefixError::Syntax)?;
        Prefix::new(network, u8::try_from(length).unwrap_or(u8::MAX))
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.length)
    }
}

/// Why a text or an address and a length are not a [`Prefix`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrefixError {
    Syntax,
    TooLong,
    /// Bits are set behind the prefix. The user probably meant this one.
    HostBits(Prefix),
}

impl fmt::Display for PrefixError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PrefixError::Syntax => f.write_str("not an IPv6 prefix such as 2001:db8::/64"),
            PrefixError::TooLong => f.write_str("an IPv6 prefix is at most 128 bits long"),
            PrefixError::HostBits(prefix) => {
                write!(f, "bits are set behind the prefix; did you mean {prefix}?")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_parses_or_names_the_reason_why_not() {
        let parse = |text: &str| text.parse::<Prefix>();
        assert!(
            parse("2001:db8::/64")
                .unwrap()
                .contains("2001:db8::9".parse().unwrap())
        );
        assert!(
            !parse("2001:db8::/64")
                .unwrap()
                .contains("2001:db8:0:1::9".parse().unwrap())
        );
        assert!(
            parse("2001:db8::9/128")
                .unwrap()
                .contains("2001:db8::9".parse().unwrap())
        );
        assert_eq!(parse("2001:db8::/129"), Err(PrefixError::TooLong));
        assert_eq!(parse("2001:db8::/300"), Err(PrefixError::TooLong));
        let meant = parse("2001:db8::/64").unwrap();
        assert_eq!(parse("2001:db8::1/64"), Err(PrefixError::HostBits(meant)));
        for text in [
            "2001:db8::",
            "",
            "/64",
            "x/64",
            "2001:db8::/",
            "2001:db8::/-1",
            "192.0.2.0/24",
        ] {
            assert_eq!(parse(text), Err(PrefixError::Syntax), "{text}");
        }
    }

    #[test]
    fn an_interface_name_parses_if_the_kernel_allows_it() {
        assert!(text(&InterfaceNameError).contains("1 to 15 characters"));
        for name in ["wan", "br-lan", "eth0.7", "pppoe-wan", "abcdefghijklmno"] {
            assert!(name.parse::<InterfaceName>().is_ok(), "{name}");
        }
        for name in [
            "",
            ".",
            "..",
            "a/b",
            "a b",
            "a:0",
            "a\n",
            "abcdefghijklmnop",
        ] {
            assert_eq!(
                name.parse::<InterfaceName>(),
                Err(InterfaceNameError),
                "{name}"
            );
        }
    }

    #[test]
    fn a_prefix_displays_as_it_parses_and_an_error_suggests_the_one_that_was_meant() {
        let wrong = |prefix: &str| text(&prefix.parse::<Prefix>().unwrap_err());
        for prefix in ["::/0", "2001:db8::/64", "2001:db8::9/128"] {
            assert_eq!(text(&prefix.parse::<Prefix>().unwrap()), prefix);
        }
        assert!(wrong("2001:db8::1/64").ends_with("did you mean 2001:db8::/64?"));
        assert!(wrong("2001:db8::/129").contains("at most 128 bits"));
        assert!(wrong("2001:db8::").contains("such as 2001:db8::/64"));
    }

    #[test]
    fn an_address_is_in_its_own_prefix_of_any_length() {
        let address = "2001:db8:ffff::9".parse().unwrap();
        for (length, prefix) in [
            (0, "::/0"),
            (33, "2001:db8:8000::/33"),
            (128, "2001:db8:ffff::9/128"),
        ] {
            let prefix: Prefix = prefix.parse().unwrap();
            assert_eq!(Prefix::of(address, length), Ok(prefix));
            assert!(prefix.contains(address));
            let single = (length == 128).then_some(address);
            assert_eq!(prefix.single_address(), single);
        }
        assert_eq!(Prefix::of(address, 129), Err(PrefixError::TooLong));
    }

    fn text(value: &impl fmt::Display) -> heapless::String<200> {
        let mut text = heapless::String::new();
        fmt::write(&mut text, format_args!("{value}")).unwrap();
        text
    }
}
