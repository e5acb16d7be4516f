//! The shell around the [`protocol`] core, with every system call. It starts the core, feeds it
//! events and carries out its actions.

pub mod cli;
pub mod commands;
pub mod control;
pub mod interfaces;
pub mod run;
pub mod sys;
