//! The kernel's IPv6 multicast routing (linux/mroute6.h): the interfaces that take part, and the
//! forwarding entries. The kernel forwards by itself, and keeps all of it only as long as the
//! socket is open, however the process ends.
//!
//! An entry belongs to a source and a group, either of which may be any (`::`). A packet takes the
//! entry of its source and group if there is one, else the one of any source and its group, else
//! the one of any source and any group. The first kind forwards only what arrives on its incoming
//! interface. The second kind forwards also what arrives on an outgoing interface of the third
//! kind. Without an entry the kernel asks this socket, which takes no question: the packet is
//! dropped.

use std::net::Ipv6Addr;
use std::os::fd::{AsFd as _, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

use super::layouts::{MrouteEntry, MrouteInterface};
use super::{ffi, procfs};

/// The interfaces that take part have numbers below this one.
pub const INTERFACES: u8 = 31;
/// A number that no interface has. An entry with it as its incoming interface, for any source and
/// any group, drops what arrives on any interface that takes part.
pub const NO_INTERFACE: u8 = 31;

/// The number of the table that packets take if no rule says otherwise (`RT6_TABLE_DFLT`).
pub const DEFAULT_TABLE: u32 = 254;

/// The owner of a multicast routing table.
pub struct Mroute {
    socket: OwnedFd,
    table: u32,
    /// The kernel's index of the device that was added under each number.
    indexes: [Option<u16>; INTERFACES as usize],
}

/// Why a table of the kernel was refused.
pub enum Refusal {
    /// Another program owns it.
    InUse,
    /// The kernel has no IPv6 multicast routing.
    Unsupported,
    Other(Errno),
}

impl Refusal {
    pub fn of(errno: Errno) -> Self {
        match errno {
            Errno::EADDRINUSE => Refusal::InUse,
            Errno::ENOPROTOOPT | Errno::EOPNOTSUPP => Refusal::Unsupported,
            errno => Refusal::Other(errno),
        }
    }
}

impl Mroute {
    /// Becomes the owner of a table; of [`DEFAULT_TABLE`] with `None`. Takes `CAP_NET_RAW`, and for
    /// a table that is named also `CAP_NET_ADMIN`. All changes later on take no capability.
    ///
    /// # Errors
    /// `EADDRINUSE` if the table has another owner ([`likely_owner`]); `ENOPROTOOPT` if the kernel
    /// was built without `IPV6_MROUTE`, or with a table without `IPV6_MROUTE_MULTIPLE_TABLES`;
    /// `EAFNOSUPPORT` without IPv6; `EPERM` or `EACCES` without a capability; `EINVAL` for a table
    /// above 99,999,999.
    pub fn open(table: Option<u32>) -> nix::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let protocol = SockProtocol::IcmpV6;
        let socket = socket(AddressFamily::Inet6, SockType::Raw, flags, protocol)?;
        ffi::block_icmpv6(socket.as_fd())?;
        // The kernel's questions do not pass either, so it holds no packet back for an answer.
        ffi::attach_filter(socket.as_fd(), &REJECT_ALL)?;
        if let Some(table) = table {
            ffi::set_mroute(socket.as_fd(), MRT6_TABLE, &table.cast_signed())?;
        }
        ffi::set_mroute(socket.as_fd(), MRT6_INIT, &1)?;
        Ok(Mroute {
            socket,
            table: table.unwrap_or(DEFAULT_TABLE),
            indexes: [None; _],
        })
    }

    /// The number of the table.
    pub fn table(&self) -> u32 {
        self.table
    }

    /// Adds an interface under a number below [`INTERFACES`], in place of the one that has it.
    ///
    /// The kernel removes an interface that is deleted, and keeps the entries. It ignores the
    /// outgoing interfaces of an entry that are not there, so set every entry anew after this.
    ///
    /// # Errors
    /// `EOVERFLOW` for an index above 65535, for which the kernel would take another device;
    /// `EADDRNOTAVAIL` if there is no such device; `EINVAL` for a number that is too large.
    pub fn add_interface(&mut self, number: u8, index: u32) -> nix::Result<()> {
        let index = u16::try_from(index).map_err(|_| Errno::EOVERFLOW)?;
        let place = self.indexes.get_mut(usize::from(number));
        let place = place.ok_or(Errno::EINVAL)?;
        let interface = MrouteInterface {
            number: number.into(),
            flags: 0,
            threshold: 1,
            index,
            rate_limit: 0,
        };
        let socket = self.socket.as_fd();
        let mut added = ffi::set_mroute(socket, MRT6_ADD_MIF, &interface);
        // The number is free once its device is deleted. So the device that has it is still there.
        if added == Err(Errno::EADDRINUSE) && *place != Some(index) {
            *place = None;
            ffi::set_mroute(socket, MRT6_DEL_MIF, &i32::from(number))?;
            added = ffi::set_mroute(socket, MRT6_ADD_MIF, &interface);
        }
        if matches!(added, Ok(()) | Err(Errno::EADDRINUSE)) {
            *place = Some(index);
            return Ok(());
        }
        added
    }

    /// Removes the interface with this number. Succeeds also if there is none.
    pub fn remove_interface(&mut self, number: u8) -> nix::Result<()> {
        if let Some(place) = self.indexes.get_mut(usize::from(number)) {
            *place = None;
        }
        match ffi::set_mroute(self.socket.as_fd(), MRT6_DEL_MIF, &i32::from(number)) {
            // The kernel removed it along with its device.
            Err(Errno::EADDRNOTAVAIL) => Ok(()),
            result => result,
        }
    }

    /// Adds or changes the entry for a source (`::` for any) and a group (`::` for any).
    ///
    /// `parent` is the number of the incoming interface, which need not be there, up to
    /// [`NO_INTERFACE`]. `out` has a bit for the number of each outgoing interface; without one,
    /// the entry drops. An entry with a source has one parent, the last one that was set. For any
    /// source each parent has an entry of its own, so [remove](Self::remove_entry) the old one.
    ///
    /// # Errors
    /// `EINVAL` if `group` is neither a multicast address nor `::`; `ENFILE` for a larger parent;
    /// `ENOMEM`.
    pub fn set_entry(
        &self,
        source: Ipv6Addr,
        group: Ipv6Addr,
        parent: u8,
        out: u32,
    ) -> nix::Result<()> {
        let name = if source.is_unspecified() {
            MRT6_ADD_MFC_PROXY
        } else {
            MRT6_ADD_MFC
        };
        let entry = MrouteEntry::new(source, group, parent.into(), out);
        ffi::set_mroute(self.socket.as_fd(), name, &entry)
    }

    /// Removes an entry of [`set_entry`](Self::set_entry). Succeeds also if there is none. For an
    /// entry with a source, `parent` does not matter.
    pub fn remove_entry(&self, source: Ipv6Addr, group: Ipv6Addr, parent: u8) -> nix::Result<()> {
        let name = if source.is_unspecified() {
            MRT6_DEL_MFC_PROXY
        } else {
            MRT6_DEL_MFC
        };
        let entry = MrouteEntry::new(source, group, parent.into(), 0);
        match ffi::set_mroute(self.socket.as_fd(), name, &entry) {
            Err(Errno::ENOENT) => Ok(()),
            result => result,
        }
    }
}

/// A program that may own the default table of this network namespace, by the names of processes;
/// `None` if no program runs that is known to own one.
pub fn likely_owner() -> Option<&'static str> {
    let mut owner = None;
    for names in [OTHER_OWNERS, &["mldproxy"]] {
        if owner.is_none() {
            procfs::find_processes(names, &mut |name| {
                owner = Some(name);
                true
            });
        }
    }
    owner
}

/// The other programs known to use linux/mroute6.h, as the kernel cuts off their names.
pub const OTHER_OWNERS: &[&str] = &[
    "omcproxy",
    "smcrouted",
    "smcroute",
    "mcproxy",
    "mcproxy-bin",
    "improxy",
    "otbr-agent",
    "pim6d",
    "pim6sd",
    "pim6dd",
    "mrd6",
];

/// Lets nothing pass.
const REJECT_ALL: [libc::sock_filter; 1] = [libc::sock_filter {
    code: (libc::BPF_RET | libc::BPF_K) as u16,
    jt: 0,
    jf: 0,
    k: 0,
}];

// linux/mroute6.h
const MRT6_INIT: i32 = 200;
const MRT6_ADD_MIF: i32 = 202;
const MRT6_DEL_MIF: i32 = 203;
const MRT6_ADD_MFC: i32 = 204;
const MRT6_DEL_MFC: i32 = 205;
const MRT6_TABLE: i32 = 209;
const MRT6_ADD_MFC_PROXY: i32 = 210;
const MRT6_DEL_MFC_PROXY: i32 = 211;
