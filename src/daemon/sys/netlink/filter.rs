//! Decides which messages wake the process up.

use super::message::MESSAGE_HEADER;
use super::tables;

/// Drops what the daemon does not need. Of neighbors and new routes it passes only what a dump
/// asked for, since neighbors change all the time. Of removed routes it passes this program's. It
/// drops news of neighbors that are not IPv6's, which are ARP's and the stations behind a bridge's
/// ports, and what a bridge reports of its ports.
pub const FILTER: [libc::sock_filter; 16] = {
    const fn instruction(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
        let code = code as u16;
        libc::sock_filter { code, jt, jf, k }
    }
    // BPF reads in network byte order what netlink writes in the machine's.
    const fn as_read(value: u16) -> u32 {
        u16::from_be_bytes(value.to_ne_bytes()) as u32
    }
    use libc::{BPF_ABS, BPF_B, BPF_H, BPF_JEQ, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_RET};
    const EQUAL: u32 = BPF_JMP | BPF_JEQ | BPF_K;
    const PROTOCOL: u32 = tables::PROTOCOL as u32;
    /// `rtm_protocol`
    const PROTOCOL_AT: u32 = MESSAGE_HEADER as u32 + 5;
    let multi = libc::NLM_F_MULTI as u16;
    [
        instruction(BPF_LD | BPF_H | BPF_ABS, 4, 0, 0),
        instruction(EQUAL, as_read(libc::RTM_NEWNEIGH), 5, 0),
        instruction(EQUAL, as_read(libc::RTM_NEWROUTE), 4, 0),
        instruction(EQUAL, as_read(libc::RTM_DELROUTE), 5, 0),
        instruction(EQUAL, as_read(libc::RTM_DELNEIGH), 6, 0),
        instruction(EQUAL, as_read(libc::RTM_NEWLINK), 5, 0),
        instruction(EQUAL, as_read(libc::RTM_DELLINK), 4, 7),
        instruction(BPF_LD | BPF_H | BPF_ABS, 6, 0, 0),
        instruction(BPF_JMP | BPF_JSET | BPF_K, as_read(multi), 5, 6),
        instruction(BPF_LD | BPF_B | BPF_ABS, PROTOCOL_AT, 0, 0),
        instruction(EQUAL, PROTOCOL, 3, 4),
        // Either header begins with the family.
        instruction(BPF_LD | BPF_B | BPF_ABS, MESSAGE_HEADER as u32, 0, 0),
        instruction(EQUAL, libc::AF_UNSPEC as u32, 1, 0),
        instruction(EQUAL, libc::AF_INET6 as u32, 0, 1),
        instruction(BPF_RET | BPF_K, u32::MAX, 0, 0),
        instruction(BPF_RET | BPF_K, 0, 0, 0),
    ]
};

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd as _, AsRawFd as _};

    use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};

    use super::super::message::NEIGHBOR_HEADER;
    use super::*;
    use crate::sys::ffi;

    #[test]
    fn the_filter_drops_what_is_of_no_concern_and_nothing_else() {
        let flags = SockFlag::empty();
        let kind = SockType::Datagram;
        let (near, far) = socketpair(AddressFamily::Unix, kind, None, flags).unwrap();
        ffi::attach_filter(far.as_fd(), &FILTER).unwrap();
        let passes_of = |message_type: u16, flags: i32, family: i32, protocol: u8| {
            let mut message = [0; MESSAGE_HEADER + NEIGHBOR_HEADER];
            message[4..6].copy_from_slice(&message_type.to_ne_bytes());
            message[6..8].copy_from_slice(&(flags as u16).to_ne_bytes());
            message[MESSAGE_HEADER] = family as u8;
            message[MESSAGE_HEADER + 5] = protocol;
            let _ = send(near.as_raw_fd(), &message, MsgFlags::empty());
            recv(far.as_raw_fd(), &mut [0; 64], MsgFlags::MSG_DONTWAIT).is_ok()
        };
        let passes = |message_type, flags, family| passes_of(message_type, flags, family, 0);
        let families = [libc::AF_UNSPEC, libc::AF_INET, libc::AF_BRIDGE];
        let of = |message_type, flags| {
            let passes = |family| passes(message_type, flags, family);
            (passes(libc::AF_INET6), families.map(passes))
        };
        let (all, none) = ([true; 3], [false; 3]);
        let unspecified = [true, false, false];
        assert_eq!(of(libc::RTM_NEWNEIGH, 0), (false, none));
        assert_eq!(of(libc::RTM_NEWNEIGH, libc::NLM_F_MULTI), (true, all));
        assert_eq!(of(libc::RTM_DELNEIGH, 0), (true, unspecified));
        assert_eq!(of(libc::RTM_NEWLINK, 0), (true, unspecified));
        assert_eq!(of(libc::RTM_DELLINK, 0), (true, unspecified));
        assert_eq!(of(libc::RTM_NEWROUTE, 0), (false, none));
        assert_eq!(of(libc::RTM_NEWROUTE, libc::NLM_F_MULTI), (true, all));
        assert_eq!(of(libc::RTM_DELROUTE, 0), (false, none));
        let own = tables::PROTOCOL;
        assert!(passes_of(libc::RTM_DELROUTE, 0, libc::AF_INET6, own));
        for other in [libc::RTM_NEWADDR, libc::NLMSG_DONE as u16] {
            assert_eq!(of(other, 0), (true, all));
        }
    }
}
