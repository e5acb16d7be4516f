//! The tables and the engines of all tests.

use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};
use std::cell::Cell;

use protocol::config::Config;
use protocol::engine::{Engine, Tables};

thread_local! {
    /// Tables to use again, since making new ones takes most of the time of a short input.
    static FREE: Cell<Option<Box<Tables>>> = const { Cell::new(None) };
}

/// Tables of an engine. They are some megabytes, of which only those pages take memory that a test
/// uses.
#[allow(
    unsafe_code,
    reason = "a safe way would write all of them, on the stack first"
)]
pub fn new() -> Box<Tables> {
    let layout = Layout::new::<Tables>();
    // SAFETY: the layout is not of size 0.
    let pointer = unsafe { alloc_zeroed(layout) }.cast::<Tables>();
    if pointer.is_null() {
        handle_alloc_error(layout);
    }
    // SAFETY: new tables are all zero bits, and the octets are of their layout.
    unsafe { Box::from_raw(pointer) }
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
