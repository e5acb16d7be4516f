//! The system calls that nix has no safe form of. Only this file has `unsafe` in it.
#![allow(
    unsafe_code,
    reason = "each block is one call, with the reason why it is sound"
)]

use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::net::Ipv6Addr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{process, ptr};

use nix::errno::Errno;
use nix::sys::time::TimeSpec;
use nix::unistd::write;

use super::layouts::{GroupSource, MrouteEntry, MrouteInterface, SourceFilter};

// SAFETY: the descriptor is open from the start, and nothing here closes it.
pub const STANDARD_OUTPUT: BorrowedFd<'static> = unsafe { BorrowedFd::borrow_raw(1) };
// SAFETY: as above.
pub const STANDARD_ERROR: BorrowedFd<'static> = unsafe { BorrowedFd::borrow_raw(2) };

/// Attaches a classic BPF program to a socket.
pub fn attach_filter(socket: BorrowedFd<'_>, program: &[libc::sock_filter]) -> nix::Result<()> {
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(|_| Errno::EINVAL)?,
        filter: program.as_ptr().cast_mut(),
    };
    set_option(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
}

/// Makes the interface receive all multicast frames for as long as the socket is open.
pub fn receive_all_multicast(socket: BorrowedFd<'_>, index: u32) -> nix::Result<()> {
    let membership = libc::packet_mreq {
        mr_ifindex: index.cast_signed(),
        mr_type: libc::PACKET_MR_ALLMULTI as u16,
        mr_alen: 0,
        mr_address: [0; 8],
    };
    set_option(
        socket,
        libc::SOL_PACKET,
        libc::PACKET_ADD_MEMBERSHIP,
        &membership,
    )
}

/// Binds a packet socket to the IPv6 packets of one interface.
pub fn bind_to_ipv6(socket: BorrowedFd<'_>, index: u32) -> nix::Result<()> {
    let address = link_address(index, [0; 6]);
    let length = socklen_of(&address);
    let pointer = (&raw const address).cast();
    // SAFETY: `address` is a whole sockaddr_ll and outlives the call.
    Errno::result(unsafe { libc::bind(socket.as_raw_fd(), pointer, length) }).map(drop)
}

/// Sends an IPv6 packet out of one interface to a link-layer address. A link without such addresses
/// ignores it.
pub fn send_ipv6(
    socket: BorrowedFd<'_>,
    index: u32,
    destination: [u8; 6],
    packet: &[u8],
) -> nix::Result<()> {
    let address = link_address(index, destination);
    let (to, to_length) = ((&raw const address).cast(), socklen_of(&address));
    let (octets, length) = (packet.as_ptr().cast(), packet.len());
    let socket = socket.as_raw_fd();
    // SAFETY: `octets` and `to` each point to as many octets as is said, and both outlive the call.
    Errno::result(unsafe { libc::sendto(socket, octets, length, 0, to, to_length) }).map(drop)
}

/// Reads entries of a folder, each a `struct linux_dirent64`. Returns their octets, 0 at the end.
pub fn read_folder(folder: BorrowedFd<'_>, entries: &mut [u8]) -> nix::Result<usize> {
    let (pointer, length) = (entries.as_mut_ptr(), entries.len());
    let folder = folder.as_raw_fd();
    // SAFETY: `pointer` points to `length` octets that may be written.
    let read =
        Errno::result(unsafe { libc::syscall(libc::SYS_getdents64, folder, pointer, length) });
    read.map(|read| usize::try_from(read).unwrap_or_default())
}

/// Fills `octets`, at most 256, with random numbers that nobody can guess.
pub fn random(octets: &mut [u8]) -> nix::Result<()> {
    let (pointer, length) = (octets.as_mut_ptr().cast(), octets.len());
    // SAFETY: `pointer` points to `length` octets that may be written.
    Errno::result(unsafe { libc::getrandom(pointer, length, 0) }).map(drop)
}

/// The date and the time of day. It is local time, but UTC in a static file, which the C library's
/// time zones would make 8 kB larger.
pub fn calendar(time: TimeSpec) -> libc::tm {
    #[cfg(target_feature = "crt-static")]
    use libc::gmtime_r as convert;
    #[cfg(not(target_feature = "crt-static"))]
    use libc::localtime_r as convert;
    let (seconds, mut calendar) = (time.tv_sec(), MaybeUninit::zeroed());
    // SAFETY: both pointers are valid during the call, which keeps none; a `tm` may be all zero.
    unsafe {
        convert(&raw const seconds, calendar.as_mut_ptr());
        calendar.assume_init()
    }
}

/// The packets that the socket had no room for since the last call.
pub fn packets_lost(socket: BorrowedFd<'_>) -> nix::Result<u32> {
    let mut statistics = libc::tpacket_stats {
        tp_packets: 0,
        tp_drops: 0,
    };
    let (level, name) = (libc::SOL_PACKET, libc::PACKET_STATISTICS);
    get_option(socket, level, name, &mut statistics)?;
    Ok(statistics.tp_drops)
}

/// The cookie of the socket's network namespace, unique since the boot. Needs Linux 5.14.
pub fn network_namespace(socket: BorrowedFd<'_>) -> nix::Result<u64> {
    let mut cookie = 0;
    get_option(socket, libc::SOL_SOCKET, SO_NETNS_COOKIE, &mut cookie)?;
    Ok(cookie)
}

/// linux/socket.h
const SO_NETNS_COOKIE: i32 = 71;

/// Keeps all of ICMPv6 from a raw socket (`ICMP6_FILTER`, RFC 3542 §3.2).
pub fn block_icmpv6(socket: BorrowedFd<'_>) -> nix::Result<()> {
    set_option(socket, libc::IPPROTO_ICMPV6, ICMP6_FILTER, &[u32::MAX; 8])
}

/// linux/icmpv6.h
const ICMP6_FILTER: i32 = 1;

/// What an option of linux/mroute6.h takes.
pub trait MrouteValue {}

impl MrouteValue for i32 {}
impl MrouteValue for MrouteInterface {}
impl MrouteValue for MrouteEntry {}

/// Sets an option of linux/mroute6.h, by which multicast routing is changed.
pub fn set_mroute(socket: BorrowedFd<'_>, name: i32, value: &impl MrouteValue) -> nix::Result<()> {
    set_option(socket, libc::IPPROTO_IPV6, name, value)
}

/// Makes a socket a member of a group that wants one source, or one source more
/// (`MCAST_JOIN_SOURCE_GROUP`).
pub fn join_source(
    socket: BorrowedFd<'_>,
    index: u32,
    group: Ipv6Addr,
    source: Ipv6Addr,
) -> nix::Result<()> {
    let (level, name) = (libc::IPPROTO_IPV6, libc::MCAST_JOIN_SOURCE_GROUP);
    set_option(socket, level, name, &GroupSource::new(index, group, source))
}

/// Replaces the filter of a socket's membership (`MCAST_MSFILTER`). Fails with `EINVAL` if the
/// socket is no member.
pub fn set_source_filter(socket: BorrowedFd<'_>, filter: &SourceFilter) -> nix::Result<()> {
    let (level, name) = (libc::IPPROTO_IPV6, libc::MCAST_MSFILTER);
    set_option_to_start_of(socket, level, name, filter, filter.length())
}

/// One half of the capability sets, for capabilities 0 to 31 or 32 to 63 (`struct
/// __user_cap_data_struct`).
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Capabilities {
    pub effective: u32,
    pub permitted: u32,
    pub inheritable: u32,
}

/// `struct __user_cap_header_struct`.
#[repr(C)]
struct CapabilityHeader {
    version: u32,
    /// 0 stands for this thread.
    pid: i32,
}

/// `_LINUX_CAPABILITY_VERSION_3`, which two [`Capabilities`] follow.
const CAPABILITY_HEADER: CapabilityHeader = CapabilityHeader {
    version: 0x2008_0522,
    pid: 0,
};

/// The capabilities of this thread.
pub fn capabilities() -> nix::Result<[Capabilities; 2]> {
    let (mut header, mut sets) = (CAPABILITY_HEADER, [Capabilities::default(); 2]);
    let (header, pointer) = (&raw mut header, &raw mut sets);
    // SAFETY: in this version the kernel reads and writes one header and writes two sets. Both
    // outlive the call.
    Errno::result(unsafe { libc::syscall(libc::SYS_capget, header, pointer) }).map(|_| sets)
}

pub fn set_capabilities(sets: [Capabilities; 2]) -> nix::Result<()> {
    let mut header = CAPABILITY_HEADER;
    let (header, pointer) = (&raw mut header, &raw const sets);
    // SAFETY: in this version the kernel reads and writes one header and reads two sets. Both
    // outlive the call.
    Errno::result(unsafe { libc::syscall(libc::SYS_capset, header, pointer) }).map(drop)
}

/// Fails with `EPERM` without `CAP_SETPCAP`, and with `EINVAL` behind the last capability that the
/// kernel has.
pub fn drop_from_bounding_set(capability: u32) -> nix::Result<()> {
    process_control(libc::PR_CAPBSET_DROP, capability)
}

/// Keeps the permitted capabilities when the user changes.
pub fn keep_capabilities_as_another_user() -> nix::Result<()> {
    process_control(libc::PR_SET_KEEPCAPS, 1)
}

/// Sets this thread's user and group, and drops its supplementary groups. There must be no other
/// thread: the C library's functions would change those too, which takes 2 kB.
pub fn become_user(id: u32, group: u32) -> nix::Result<()> {
    #[cfg(not(any(target_arch = "arm", target_arch = "x86")))]
    use libc::{SYS_setgid, SYS_setgroups, SYS_setuid};
    // On these targets the plain names take 16-bit users.
    #[cfg(any(target_arch = "arm", target_arch = "x86"))]
    use libc::{
        SYS_setgid32 as SYS_setgid, SYS_setgroups32 as SYS_setgroups, SYS_setuid32 as SYS_setuid,
    };
    let none = ptr::null::<libc::gid_t>();
    // SAFETY: the kernel reads none of a list of no groups.
    Errno::result(unsafe { libc::syscall(SYS_setgroups, 0 as libc::size_t, none) })?;
    for (call, number) in [(SYS_setgid, group), (SYS_setuid, id)] {
        // SAFETY: neither call takes a pointer.
        Errno::result(unsafe { libc::syscall(call, number) })?;
    }
    Ok(())
}

/// Keeps programs that this one executes from gaining rights.
pub fn set_no_new_privileges() -> nix::Result<()> {
    process_control(libc::PR_SET_NO_NEW_PRIVS, 1)
}

/// Calls prctl(2) with an operation that takes one number.
fn process_control(operation: libc::c_int, number: u32) -> nix::Result<()> {
    let (number, unused) = (libc::c_ulong::from(number), 0 as libc::c_ulong);
    // SAFETY: no operation of the callers takes a pointer.
    Errno::result(unsafe { libc::prctl(operation, number, unused, unused, unused) }).map(drop)
}

fn link_address(index: u32, destination: [u8; 6]) -> libc::sockaddr_ll {
    let mut address = [0; 8];
    address[..6].copy_from_slice(&destination);
    libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (libc::ETH_P_IPV6 as u16).to_be(),
        sll_ifindex: index.cast_signed(),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: address,
    }
}

fn get_option<T>(socket: BorrowedFd<'_>, level: i32, name: i32, value: &mut T) -> nix::Result<()> {
    let mut length = socklen_of(value);
    let (socket, value) = (socket.as_raw_fd(), (&raw mut *value).cast());
    // SAFETY: `value` points to `length` octets, and both callers pass the type that the option
    // fills in.
    Errno::result(unsafe { libc::getsockopt(socket, level, name, value, &raw mut length) })
        .map(drop)
}

fn set_option<T>(socket: BorrowedFd<'_>, level: i32, name: i32, value: &T) -> nix::Result<()> {
    set_option_to_start_of(socket, level, name, value, size_of::<T>())
}

/// Sets an option that takes as many octets of `value` as are in use.
fn set_option_to_start_of<T>(
    socket: BorrowedFd<'_>,
    level: i32,
    name: i32,
    value: &T,
    length: usize,
) -> nix::Result<()> {
    let length = length.min(size_of::<T>()) as libc::socklen_t;
    let (socket, value) = (socket.as_raw_fd(), (&raw const *value).cast());
    // SAFETY: `value` points to `length` octets or more, which the kernel only reads, and all
    // callers pass the type that the option takes.
    Errno::result(unsafe { libc::setsockopt(socket, level, name, value, length) }).map(drop)
}

fn socklen_of<T>(_: &T) -> libc::socklen_t {
    size_of::<T>() as libc::socklen_t
}

/// The heap of this program, of [`HEAP_SIZE`] octets. The daemon allocates only before it runs, and
/// the other commands end soon, so only the last allocation can be freed. The C library's heap
/// would take 10 kB of the file.
pub struct Heap {
    used: AtomicUsize,
    octets: UnsafeCell<[u8; HEAP_SIZE]>,
}

/// All zero: a page takes memory only once it is written to.
const HEAP_SIZE: usize = 1 << 23;

impl Heap {
    pub const fn new() -> Self {
        Heap {
            used: AtomicUsize::new(0),
            octets: UnsafeCell::new([0; _]),
        }
    }
}

// SAFETY: the octets are reached only through the allocator, which never hands out the same ones
// twice.
unsafe impl Sync for Heap {}

// SAFETY: `alloc` hands out aligned parts of `octets`, each once. `used` only grows, except when
// the last part is freed.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let start = self.octets.get() as usize;
        let next = |used: usize| {
            let begin = (start + used).checked_next_multiple_of(layout.align())? - start;
            let end = begin.checked_add(layout.size())?;
            (end <= HEAP_SIZE).then_some((begin, end))
        };
        let end_after = |used| next(used).map(|(_, end)| end);
        match self
            .used
            .fetch_update(Ordering::Acquire, Ordering::Acquire, end_after)
        {
            // SAFETY: the part begins within the octets.
            Ok(used) => next(used).map_or(ptr::null_mut(), |(begin, _)| unsafe {
                self.octets.get().cast::<u8>().add(begin)
            }),
            // The standard library would write a backtrace. That allocates too, and would deadlock
            // if this allocation is for a backtrace.
            Err(_) => {
                let _ = write(STANDARD_ERROR, b"mldproxy: out of memory\n");
                process::abort()
            }
        }
    }

    /// The last part grows in place, so that a text that is being written leaves nothing behind.
    unsafe fn realloc(&self, part: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let begin = part as usize - self.octets.get() as usize;
        let (old, new) = (begin + layout.size(), begin + size);
        let (done, failed) = (Ordering::AcqRel, Ordering::Relaxed);
        if new <= HEAP_SIZE && self.used.compare_exchange(old, new, done, failed).is_ok() {
            return part;
        }
        // SAFETY: the caller guarantees that `size`, rounded up to the alignment, does not
        // overflow.
        let other = unsafe { self.alloc(Layout::from_size_align_unchecked(size, layout.align())) };
        // SAFETY: both parts have so many octets, and they do not overlap.
        unsafe { ptr::copy_nonoverlapping(part, other, layout.size().min(size)) };
        other
    }

    unsafe fn dealloc(&self, part: *mut u8, layout: Layout) {
        let begin = part as usize - self.octets.get() as usize;
        let end = begin + layout.size();
        // This fails if the part is not the last one.
        let _ = self
            .used
            .compare_exchange(end, begin, Ordering::Release, Ordering::Relaxed);
    }
}
