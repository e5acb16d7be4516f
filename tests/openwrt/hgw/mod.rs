//! The package of the provider's home gateway (HGW).

pub mod relay;
mod router;
pub mod service;
pub mod status;
