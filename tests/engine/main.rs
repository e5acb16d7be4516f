//! The engine in stepped time: no kernel, no clock, and every action carried out by the test.

mod asking;
mod limits;
mod log_lines;
mod main_job;
mod proxying;
mod stage;
mod upstream;
