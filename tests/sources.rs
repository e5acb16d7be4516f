//! The files of source that tests read.

use std::fs;
use std::path::{Path, PathBuf};

/// Every Rust file in a folder and its subfolders.
pub fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("the folder exists");
    let mut files = Vec::new();
    for path in entries.map(|entry| entry.expect("the entry is readable").path()) {
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}
