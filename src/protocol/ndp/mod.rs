//! Who lives on the LAN, and how the WAN reaches them.

pub mod kernel_entries;
pub mod neighbors;
pub mod solicited;
pub mod targets;
