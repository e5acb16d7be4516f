//! What the targets have in common.

#[path = "../bodies/mod.rs"]
pub mod bodies;
