//! Fixed storage, without a heap: tables, sets of their slots, and rates.

pub mod pending;
pub mod rate;
pub mod table;
