//! Each `run` takes any octets, and panics where what follows from them is wrong.

mod bytes;
pub mod engine;
pub mod frame;
mod json;
pub mod netlink;
mod owner;
pub mod status;
mod world;
