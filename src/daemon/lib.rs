//! The shell around the [`protocol`] core, with every system call: it starts the core, feeds it and does what it says.

pub mod check;
pub mod cli;
pub mod event_loop;
pub mod instance;
pub mod interfaces;
pub mod output;
pub mod proxy_settings;
pub mod query;
pub mod report;
pub mod shared_prefixes;
pub mod snapshot;
pub mod status;
pub mod sys;
pub mod values;

/// The exit code for what only another command line mends.
pub const BAD_INPUT: u8 = 2;
