//! The rooms of `src/` import one another in one direction (docs/architecture.md).

mod sources;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use sources::rust_files;

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
/// The rooms of the protocol core, as above. Its two halves, `ndp` and `mld`, never meet.
const PROTOCOL: &[(&str, &[&str])] = &[
    ("lib", &["engine"]),
    (
        "engine",
        &[
            "ndp", "mld", "context", "config", "counters", "link", "wire", "time",
        ],
    ),
    (
        "ndp",
        &[
            "context", "config", "counters", "link", "tables", "wire", "time",
        ],
    ),
    (
        "mld",
        &[
            "context", "config", "counters", "link", "tables", "wire", "time",
        ],
    ),
    ("context", &["config", "counters", "link", "wire", "time"]),
    ("config", &["link", "time"]),
    ("counters", &["wire"]),
    ("link", &["wire", "escaped"]),
    ("wire", &["time"]),
    ("tables", &["time"]),
    ("escaped", &[]),
    ("time", &[]),
];

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
    for file in rust_files(source) {
        let text = fs::read_to_string(&file).expect("a file");
        let from = room(source, &file);
        let rooms = roots.iter().flat_map(|root| named(&text, root));
        for to in rooms.filter(|to| *to != from && !to.is_empty()) {
            arrows.insert((from.clone(), to), file.clone());
        }
    }
    arrows
}

/// Fails for an arrow that the table of the floors does not have, and for a table with an arrow back.
fn check(source: &str, roots: &[&str], floors: &[(&str, &[&str])]) {
    let arrows = arrows(source, roots);
    assert!(arrows.len() > 10, "{arrows:?}");
    for ((from, to), file) in arrows {
        let floor = floors.iter().find(|(room, _)| *room == from);
        let (_, allowed) = floor.unwrap_or_else(|| panic!("a new room: {}", file.display()));
        let is_allowed = allowed.contains(&to.as_str());
        assert!(is_allowed, "{from} imports {to} in {}", file.display());
    }
    for (place, (_, allowed)) in floors.iter().enumerate() {
        let below = |room: &&str| floors[place + 1..].iter().any(|(below, _)| below == room);
        assert!(allowed.iter().all(below), "an arrow back");
    }
}

#[test]
fn the_daemon_imports_downwards() {
    check("src/daemon", &["crate::", "daemon::"], DAEMON);
}

#[test]
fn the_protocol_imports_downwards() {
    check("src/protocol", &["crate::"], PROTOCOL);
}

#[test]
fn only_the_engine_names_events_and_only_wire_reads_octets() {
    let source = Path::new("src/protocol");
    for file in rust_files(source) {
        let text = fs::read_to_string(&file).expect("a file");
        let room = room(source, &file);
        let words: Vec<_> = text.split(|c: char| !c.is_ascii_alphanumeric()).collect();
        // lib.rs is the door: it says what flows.
        let is_engine = room == "engine" || room == "lib";
        assert!(is_engine || !words.contains(&"Event"), "{}", file.display());
        if room != "wire" {
            assert!(!words.contains(&"smoltcp"), "{}", file.display());
            let is_handed_octets = text.contains("&[u8]") || text.contains("&'a [u8]");
            assert!(is_engine || !is_handed_octets, "{}", file.display());
        }
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
