//! Standard output and standard error. A reader that went away has read enough.

use std::io::{self, Write as _};

/// Each line is written as soon as it is complete.
pub fn print(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}

/// Says what went wrong.
pub fn complain(text: &str) {
    let _ = io::stderr().write_all(["mldproxy: ", text, "\n"].concat().as_bytes());
}
