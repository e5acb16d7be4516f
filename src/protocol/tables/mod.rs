//! Fixed storage: keyed tables, pools, sets of slots, deadlines, and rates.

pub mod deadlines;
pub mod pending;
pub mod pool;
pub mod rate;
pub mod table;
