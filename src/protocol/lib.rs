//! The protocol core of mldproxy: what to be a member of, and when to say so.
//!
//! ```text
//!  LAN frames ──▶ wire: bytes → Message | DropReason ─┐
//!  the upstream as it is now ─────────────────────────┼─▶ Event ─▶ Engine ─▶ Action ─▶ join, leave, transmit, proxy, route
//!  the one deadline ──────────────────────────────────┘
//! ```
//!
//! The core does no I/O whatsoever. It has no heap, no clock, no randomness and no system call: time and a seed come in as
//! arguments, packets come in as slices and go out in the caller's buffer. It compiles for targets without an operating system.
//!
//! * [`wire`] is the only module that looks at octets of a packet.
//! * [`neighbors`], [`groups`], [`listener`], [`state_changes`], [`ndp_proxy`] and [`targets`] each
//!   keep one kind of state and never import each other.
//! * [`engine`] owns them, routes each [`Event`](engine::Event) and derives each [`Action`](engine::Action).
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
pub mod counters;
pub mod engine;
pub mod groups;
pub mod listener;
pub mod ndp_proxy;
pub mod neighbors;
pub mod pending;
pub mod rate;
pub mod state_changes;
pub mod table;
pub mod targets;
pub mod time;
pub mod wire;
