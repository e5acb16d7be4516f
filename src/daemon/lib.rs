//! The shell around the [`protocol`] core, with every system call: it starts the core, feeds it and does what it says.

pub mod cli;
pub mod commands;
pub mod control;
pub mod interfaces;
pub mod run;
pub mod sys;
