//! Fixed storage, without a heap: tables, sets and deadlines of their slots, and rates.

pub mod deadlines;
pub mod pending;
pub mod rate;
pub mod table;
