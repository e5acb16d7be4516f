//! The engine in stepped time: no kernel, no clock, and every action carried out by the test.

mod asking;
mod claims;
mod limits;
mod log_lines;
mod main_job;
mod proxying;
mod scale;
mod stage;
mod streams;
mod upstream;
