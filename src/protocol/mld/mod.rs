//! Multicast Listener Discovery: the host side upstream.

pub mod host;
pub mod state_changes;
