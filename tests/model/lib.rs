//! The engine in stepped time, and a kernel that is only its tables.
//!
//! [`Model`] carries out each action in the [`Kernel`], makes those fail that a test wants to fail,
//! asserts what must always hold, and records each action as a [`Deed`]. The engine's tests, the
//! month and the fuzzer share this. They differ in what happens and in what they expect.
//!
//! [`storage`] builds an engine, and [`packets`] what hosts and routers send. [`view`] reads the
//! engine's state, and `checks` holds it against the kernel. [`lan`] puts hosts and attackers around
//! the router, on links that carry what both sides send.

mod checks;
mod kernel;
pub mod lan;
mod model;
pub mod multicast;
pub mod packets;
mod sent;
pub mod storage;
mod streams;
pub mod view;

pub use kernel::{Kernel, TABLES};
pub use model::{Deed, Diligence, Model};
pub use streams::Wishes;
