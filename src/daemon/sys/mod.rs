//! The kernel: one file for each of its interfaces. Every descriptor is owned; every `unsafe` is in `ffi`.

pub mod clock;
mod ffi;
pub mod log;
pub mod membership;
pub mod netlink;
pub mod packet;
pub mod privileges;
pub mod procfs;
pub mod readiness;
pub mod signal;

pub use ffi::{Heap, STANDARD_ERROR, STANDARD_OUTPUT, random};
