//! The commands that a user runs beside the daemon: `mldproxy check`, `query` and `status`.

pub mod check;
pub mod output;
pub mod query;
pub mod status;
pub mod values;

/// The exit code for what only another command line mends.
pub const BAD_INPUT: u8 = 2;
