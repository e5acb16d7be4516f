//! The rooms of `src/` import one another in one direction (docs/architecture.md).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The rooms of the daemon, each with those that it may import, from the top floor down.
const DAEMON: &[(&str, &[&str])] = &[
    ("main", &["cli", "commands", "run", "sys"]),
    ("cli", &["commands", "run"]),
    ("commands", &["control", "interfaces", "sys"]),
    ("run", &["control", "interfaces", "sys"]),
    ("control", &["interfaces", "sys"]),
    ("interfaces", &["sys"]),
    ("sys", &[]),
];
/// The halves of the protocol core, each with those that it must not import.
const HALVES: [(&str, &[&str]); 2] = [("ndp", &["mld", "engine"]), ("mld", &["ndp", "engine"])];

/// All Rust files in a folder, and in those within.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            files.extend(self::files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// The room that a file is in: its first folder in `source`, or its own name there.
fn room(source: &Path, file: &Path) -> String {
    let within = file.strip_prefix(source).expect("it is within");
    let first = within.iter().next().expect("a name");
    let name = Path::new(first).file_stem().expect("a name");
    name.to_string_lossy().into_owned()
}

/// The rooms that a text names behind `root`, such as `crate::`.
fn named(text: &str, root: &str) -> Vec<String> {
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut rooms = Vec::new();
    for (place, _) in text.match_indices(root) {
        if text[..place].ends_with(is_of_name) {
            continue;
        }
        let rest = &text[place + root.len()..];
        // `crate::{one, other}` would hide the others.
        let grouped = rest
            .strip_prefix('{')
            .and_then(|rest| rest.split('}').next());
        let names = grouped.unwrap_or(rest).split([',', '\n']);
        let names = names.take(if grouped.is_some() { usize::MAX } else { 1 });
        for name in names {
            let name = name.trim();
            let end = name.find(|c| !is_of_name(c)).unwrap_or(name.len());
            rooms.push(name[..end].to_owned());
        }
    }
    rooms
}

/// The arrows between the rooms of a folder, each with the file that it starts in.
fn arrows(source: &str, roots: &[&str]) -> BTreeMap<(String, String), PathBuf> {
    let source = Path::new(source);
    let mut arrows = BTreeMap::new();
    for file in files(source) {
        let text = fs::read_to_string(&file).expect("a file");
        let from = room(source, &file);
        let rooms = roots.iter().flat_map(|root| named(&text, root));
        for to in rooms.filter(|to| *to != from && !to.is_empty()) {
            arrows.insert((from.clone(), to), file.clone());
        }
    }
    arrows
}

#[test]
fn the_daemon_imports_downwards() {
    let arrows = arrows("src/daemon", &["crate::", "daemon::"]);
    assert!(arrows.len() > 10, "{arrows:?}");
    for ((from, to), file) in arrows {
        let floor = DAEMON.iter().find(|(room, _)| *room == from);
        let (_, allowed) = floor.unwrap_or_else(|| panic!("a new room: {}", file.display()));
        let is_allowed = allowed.contains(&to.as_str());
        assert!(is_allowed, "{from} imports {to} in {}", file.display());
    }
    for (place, (_, allowed)) in DAEMON.iter().enumerate() {
        let below = |room: &&str| DAEMON[place + 1..].iter().any(|(below, _)| below == room);
        assert!(allowed.iter().all(below), "an arrow back");
    }
}

#[test]
fn the_halves_of_the_protocol_never_meet() {
    let arrows = arrows("src/protocol", &["crate::"]);
    assert!(arrows.len() > 10, "{arrows:?}");
    for ((from, to), file) in arrows {
        let half = HALVES.iter().find(|(room, _)| *room == from);
        let is_back = half.is_some_and(|(_, others)| others.contains(&to.as_str()));
        assert!(!is_back, "{from} imports {to} in {}", file.display());
    }
}

#[test]
fn what_a_file_imports_is_found() {
    let text = "use crate::run::start;\nuse crate::{cli, sys::ffi};\nuse mycrate::other;";
    assert_eq!(named(text, "crate::"), ["run", "cli", "sys"]);
    let source = Path::new("src");
    assert_eq!(room(source, Path::new("src/sys/netlink/mod.rs")), "sys");
    assert_eq!(room(source, Path::new("src/cli.rs")), "cli");
}
