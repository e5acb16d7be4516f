//! The page for LuCI: its files, its translations, and its views in a browser, on answers of the
//! real plugin.

pub mod browser;
pub mod files;
pub mod pages;
pub mod recordings;
pub mod translations;

use std::fs;
use std::path::PathBuf;

use crate::router::repository;

/// The folder of the package.
pub const APP: &str = "openwrt/luci-app-mldproxy";
/// The folder of what a browser loads.
pub const RESOURCES: &str = "openwrt/luci-app-mldproxy/htdocs/luci-static/resources";

/// The files of the page's scripts, with their names as LuCI's `require` has them, in order.
pub fn scripts() -> Vec<(String, PathBuf)> {
    let mut found = Vec::new();
    for folder in ["mldproxy", "view/mldproxy"] {
        let entries = fs::read_dir(repository(RESOURCES).join(folder)).unwrap();
        for path in entries.map(|entry| entry.unwrap().path()) {
            if path.extension().is_some_and(|extension| extension == "js") {
                let name = path.file_stem().unwrap().to_str().unwrap();
                found.push((format!("{folder}/{name}").replace('/', "."), path));
            }
        }
    }
    found.sort();
    found
}
