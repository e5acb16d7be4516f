//! Octets that decide what happens, one after the other. After the last one follow zeros.

use std::net::Ipv6Addr;

use protocol::wire::MacAddress;

pub struct Bytes<'d>(pub &'d [u8]);

impl<'d> Bytes<'d> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn octet(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    pub fn flag(&mut self) -> bool {
        self.octet() & 1 != 0
    }

    /// A number below `many`, which is at most 256.
    pub fn below(&mut self, many: usize) -> usize {
        usize::from(self.octet()) % many
    }

    pub fn number(&mut self) -> u16 {
        u16::from_be_bytes([self.octet(), self.octet()])
    }

    /// The next `length` octets, or as many as there are.
    pub fn take(&mut self, length: usize) -> &'d [u8] {
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// One of 256 addresses. Many share a group, and most are learned.
    pub fn address(&mut self) -> Ipv6Addr {
        let number = self.octet();
        let interface = u128::from(number & 7) | u128::from(number >> 3 & 3) << 32;
        Ipv6Addr::from_bits(match number >> 5 {
            0..=3 => 0x2001_0db8_0000_0000 << 64 | interface,
            4 => 0x2001_0db8_0001_0000 << 64 | interface,
            5 => 0xfd00_0000_0000_0000 << 64 | interface,
            6 => 0xfe80_0000_0000_0000 << 64 | interface,
            _ => match number & 31 {
                0 => 0,
                1 => 1,
                2 => 0xff02 << 112 | 1,
                3 => 0xff02 << 112 | 2,
                4 => 0xff02 << 112 | 0x16,
                5 => 0xffff_c000_0201,
                6 => 0xff05 << 112 | 2,
                // The link-local address with the longest text.
                7 => 0xfebf_1111_2222_3333_4444_5555_6666_7777,
                8..=15 => 0xff02_0000_0000_0000 << 64 | 0x0001_ff00_0000 | interface,
                _ => 0x2a02_8071_b783_c6e0_1c3d_fe12_3400_0000 | interface,
            },
        })
    }

    pub fn link_local(&mut self) -> Ipv6Addr {
        let number = self.octet();
        match number {
            255 => Ipv6Addr::new(
                0xfebf, 0x1111, 0x2222, 0x3333, 0x4444, 0x5555, 0x6666, 0x7777,
            ),
            _ => Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, u16::from(number & 7) + 1),
        }
    }

    pub fn mac(&mut self) -> MacAddress {
        match self.octet() % 16 {
            0 => MacAddress([0; 6]),
            number => MacAddress([2, 0, 0, 0, 0, number]),
        }
    }
}
