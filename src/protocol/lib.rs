//! The protocol core of mldproxy: which groups to be a member of, and when to report them.
//!
//! ```text
//! LAN frames ──▶ wire: bytes → Message | DropReason ─┐
//! the upstream as it is now ─────────────────────────┼─▶ Event ─▶ Engine ─▶ Action
//! the one deadline ──────────────────────────────────┘
//! ```
//!
//! The core does no I/O whatsoever. It has no heap, no clock, no randomness and no system call.
//! Time and a seed come in as arguments. Packets come in as slices and go out in the caller's
//! buffer. The core compiles for targets without an operating system.
//!
//! * [`engine`] routes each [`Event`](engine::Event) and derives each [`Action`](engine::Action).
//! * [`ndp`] is who lives on the LAN and how the WAN reaches them. [`mld`] is multicast. Neither
//!   knows the other.
//! * [`wire`] is the only room that looks at octets of a packet.
//! * [`context`] is what the engine lends to every capability.
//! * [`link`] has the nouns that all rooms use.
//! * [`escaped`] shows texts of others.
//! * [`config`] is what a user can set.
//! * [`tables`] is the storage.
#![no_std]
#![forbid(unsafe_code)]
#![deny(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm
)]
#![cfg_attr(
    test,
    allow(
        clippy::arithmetic_side_effects,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::unwrap_used
    )
)]

pub mod config;
pub mod context;
pub mod counters;
pub mod engine;
pub mod escaped;
pub mod link;
pub mod mld;
pub mod ndp;
pub mod tables;
pub mod time;
pub mod wire;
