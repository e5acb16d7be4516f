//! The tables and the engines of all tests.

use std::cell::Cell;
use std::thread::Builder;

use protocol::config::Config;
use protocol::engine::{Engine, Tables};

thread_local! {
    /// Tables to use again, since making new ones takes most of the time of a short input.
    static FREE: Cell<Option<Box<Tables>>> = const { Cell::new(None) };
}

/// Tables of an engine. They are some megabytes, which a test's own stack may not have room for.
pub fn new() -> Box<Tables> {
    let builder = Builder::new().stack_size(8 * size_of::<Tables>());
    let building = builder.spawn(|| Box::new(const { Tables::new() }));
    building.expect("a thread").join().expect("tables")
}

/// Lends tables for the time of `run`.
pub fn lend<T>(run: impl FnOnce(&mut Tables) -> T) -> T {
    let mut tables = FREE.take().unwrap_or_else(new);
    let result = run(&mut tables);
    FREE.set(Some(tables));
    result
}

/// Tables for the time of the test.
pub fn leak() -> &'static mut Tables {
    Box::leak(new())
}

/// An engine with a configuration that can be run.
pub fn engine(tables: &mut Tables, config: Config, seed: [u8; 16]) -> Engine<'_> {
    config.check().expect("a configuration that can be run");
    Engine::new(tables, config, seed)
}
