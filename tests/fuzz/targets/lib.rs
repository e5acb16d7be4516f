//! What the targets have in common.

include!("../modules.rs");
