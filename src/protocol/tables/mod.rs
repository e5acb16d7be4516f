//! Fixed storage, without allocation: tables, sets of their slots, deadlines of their slots, and
//! rates.

pub mod deadlines;
pub mod pending;
pub mod rate;
pub mod table;
