//! The rules that send what arrives on an interface to a multicast routing table of our own.
//!
//! A rule names its interface, so the kernel applies it to whatever device has that name, now or
//! later. Rules outlive the process. Each has this program's mark, and the table says which
//! instance made it, since a table has one owner at a time.

use nix::errno::Errno;

use super::message::{IPV6_MULTICAST, Message, Request, attributes, u32_at};
use super::tables::{PROTOCOL, Tables, unless_gone};
use crate::sys::mroute::Mroute;

impl Tables {
    /// Sends what arrives on an interface to a multicast routing table. Succeeds also if such a
    /// rule is there. `name` has at most 15 octets.
    ///
    /// # Errors
    /// `EPERM` without `CAP_NET_ADMIN`; `EOPNOTSUPP` or `EAFNOSUPPORT` if the kernel was built
    /// without `IPV6_MROUTE_MULTIPLE_TABLES`.
    pub fn add_multicast_rule(&self, name: &str, table: u32) -> nix::Result<()> {
        let flags = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
        match self.change(rule_change(
            libc::RTM_NEWRULE,
            flags,
            name.as_bytes(),
            table,
        )) {
            Err(Errno::EEXIST) => Ok(()),
            result => result,
        }
    }

    /// Removes a rule of [`add_multicast_rule`](Self::add_multicast_rule). Succeeds also if there
    /// is none.
    pub fn remove_multicast_rule(&self, name: &str, table: u32) -> nix::Result<()> {
        self.remove_rule(name.as_bytes(), table)
    }

    /// Removes the rules of this program for `table`, which this instance owns, and those for
    /// tables that have no owner, which dead instances left. At the start this makes way for this
    /// instance's rules, and at the end it removes them. Reads into `buffer`, which has room for
    /// 8 kB. Of more than 128 rules some may stay.
    ///
    /// # Errors
    /// As [`add_multicast_rule`](Self::add_multicast_rule).
    pub fn remove_multicast_rules(&self, table: Option<u32>, buffer: &mut [u8]) -> nix::Result<()> {
        let mut rules = heapless::Vec::<Rule, MOST_RULES>::new();
        let mut header = [0; RULE_HEADER];
        header[0] = IPV6_MULTICAST as u8;
        let question = Request::new(libc::RTM_GETRULE, libc::NLM_F_DUMP, &header);
        self.dump(question, buffer, &mut |message| {
            let _ = own_rule(message).map(|rule| rules.push(rule));
        })?;
        for rule in &rules {
            if Some(rule.table) == table || !has_owner(rule.table) {
                self.remove_rule(rule.name(), rule.table)?;
            }
        }
        Ok(())
    }

    fn remove_rule(&self, name: &[u8], table: u32) -> nix::Result<()> {
        unless_gone(self.change(rule_change(libc::RTM_DELRULE, 0, name, table)))
    }
}

/// The most rules that are looked at, as many as four instances with all their interfaces have.
const MOST_RULES: usize = 128;

/// A rule of this program.
struct Rule {
    /// The name of the interface, with zeros behind it.
    name: [u8; libc::IFNAMSIZ],
    table: u32,
}

impl Rule {
    fn name(&self) -> &[u8] {
        let name = self.name.split(|octet| *octet == 0).next();
        name.unwrap_or_default()
    }
}

/// The rule in a message, if this program made it.
fn own_rule(message: &Message<'_>) -> Option<Rule> {
    let (mut name, mut table, mut protocol) = (None, None, None);
    for (kind, value) in attributes(message.body.get(RULE_HEADER..)?) {
        match kind {
            FRA_IIFNAME => name = Some(value),
            FRA_TABLE => table = u32_at(value, 0),
            FRA_PROTOCOL => protocol = value.first(),
            _ => {}
        }
    }
    let mut rule = Rule {
        name: [0; _],
        table: table?,
    };
    let name = name?;
    rule.name.get_mut(..name.len())?.copy_from_slice(name);
    (protocol == Some(&PROTOCOL)).then_some(rule)
}

/// Whether somebody owns a multicast routing table. What cannot be told counts as owned.
fn has_owner(table: u32) -> bool {
    Mroute::open(Some(table)).is_err()
}

fn rule_change(message_type: u16, flags: i32, name: &[u8], table: u32) -> Request {
    // struct fib_rule_hdr: family, lengths of the destination and the source, TOS, table, two
    // octets that nobody uses, action, flags. The attribute for the table wins.
    let mut header = [0; RULE_HEADER];
    header[0] = IPV6_MULTICAST as u8;
    header[7] = FR_ACT_TO_TBL;
    let mut request = Request::new(message_type, libc::NLM_F_ACK | flags, &header);
    let mut terminated = [0; libc::IFNAMSIZ];
    let length = name.len().min(libc::IFNAMSIZ - 1);
    terminated[..length].copy_from_slice(&name[..length]);
    request.attribute(FRA_IIFNAME, &terminated[..=length]);
    request.attribute(FRA_PRIORITY, &PRIORITY.to_ne_bytes());
    request.attribute(FRA_TABLE, &table.to_ne_bytes());
    request.attribute(FRA_PROTOCOL, &[PROTOCOL]);
    request
}

/// The priority of the rules, before the kernel's own (32767). A rule with another priority is
/// another rule, so those of other programs stay.
const PRIORITY: u32 = 7777;

// linux/fib_rules.h
/// The octets of `struct fib_rule_hdr`.
const RULE_HEADER: usize = 12;
const FRA_IIFNAME: u16 = 3;
const FRA_PRIORITY: u16 = 6;
const FRA_TABLE: u16 = 15;
const FRA_PROTOCOL: u16 = 21;
const FR_ACT_TO_TBL: u8 = 1;

// The messages are in the byte order of the machine that they were recorded on.
#[cfg(all(test, target_endian = "little"))]
mod tests {
    use super::super::message::messages;
    use super::*;

    #[test]
    fn a_rule_names_its_interface_priority_table_and_maker() {
        let mut change = rule_change(libc::RTM_NEWRULE, libc::NLM_F_CREATE, b"wan", 1000);
        let octets = change.octets();
        assert_eq!(octets[..8], [60, 0, 0, 0, 32, 0, 5, 4]);
        assert_eq!(octets[16..28], [129, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]);
        assert_eq!(octets[28..36], *b"\x08\0\x03\0wan\0", "FRA_IIFNAME");
        assert_eq!(octets[36..44], [8, 0, 6, 0, 0x61, 0x1e, 0, 0], "priority");
        assert_eq!(octets[44..52], [8, 0, 15, 0, 0xe8, 3, 0, 0], "FRA_TABLE");
        assert_eq!(octets[52..], [5, 0, 21, 0, PROTOCOL, 0, 0, 0], "protocol");
    }

    #[test]
    fn a_rule_is_this_programs_by_its_mark() {
        let rule_in = |octets: &[u8]| own_rule(&messages(octets).next().unwrap());
        let mut made = rule_change(libc::RTM_NEWRULE, 0, b"fifteen-letters", 1000);
        let rule = rule_in(made.octets()).unwrap();
        assert_eq!((rule.name(), rule.table), (&b"fifteen-letters"[..], 1000));
        let mut foreign = made.octets().to_vec();
        let mark = foreign.len() - 4;
        foreign[mark] = 4;
        assert!(rule_in(&foreign).is_none());
    }
}
