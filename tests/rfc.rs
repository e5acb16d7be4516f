//! Checks docs/rfc.md and SECURITY.md against the source. Each row of docs/rfc.md names the code
//! that keeps a rule and the test of it, and both exist.

mod sources;

use std::fs;
use std::path::{Path, PathBuf};

use sources::rust_files;

const PAGE: &str = "docs/rfc.md";

/// A row of one of the page's tables.
#[derive(Debug, Default)]
struct Row {
    /// The table's RFC and the row's section, for the message of a fault.
    place: String,
    says: String,
    status: String,
    by: String,
    test: String,
}

/// The words that a row's status can start with. The words behind them are for people.
const STATUSES: [&str; 3] = ["not applicable", "not kept", "kept"];

/// The rows of all tables. Fails at a row that has not five columns or no end.
fn rows(page: &str) -> Result<Vec<Row>, String> {
    let mut rows = Vec::new();
    let mut rfc = "";
    for line in page.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            rfc = title;
        }
        let Some(line) = line.strip_prefix("| ") else {
            continue;
        };
        let line = line.strip_suffix(" |").ok_or(format!("no end: {line}"))?;
        let cells: Vec<_> = line.split(" | ").collect();
        let [section, says, status, by, test] = cells[..] else {
            return Err(format!("{} columns: {line}", cells.len()));
        };
        if section != "section" {
            rows.push(Row {
                place: format!("{rfc}, {section}"),
                says: says.to_owned(),
                status: status.to_owned(),
                by: by.to_owned(),
                test: test.to_owned(),
            });
        }
    }
    Ok(rows)
}

/// What is wrong with a row.
fn faults(row: &Row) -> Vec<String> {
    let mut faults = Vec::new();
    let mut fault = |what: String| faults.push(format!("{}: {what}", row.place));
    let status = STATUSES
        .iter()
        .find(|status| row.status.starts_with(**status));
    let reason = status.and_then(|status| row.status.strip_prefix(*status));
    match (status, reason) {
        (None, _) => fault(format!("'{}' is no status", row.status)),
        (Some(&"kept"), Some("")) => {}
        (Some(&"kept"), Some(reason)) if reason.starts_with(": ") => {}
        (Some(_), Some(reason)) if reason.len() > 2 && reason.starts_with(": ") => {}
        (Some(status), _) => fault(format!("{status}, and why?")),
    }
    let is_kept = status == Some(&"kept");
    if row.says.is_empty() {
        fault("it says nothing".to_owned());
    }

    let names = quoted(&row.by);
    if names.is_empty() && is_kept && !row.by.contains("the kernel") {
        fault(format!("kept by whom? '{}'", row.by));
    }
    let mut source = None;
    for name in names {
        if name.contains('/') {
            source = read(name);
            if source.is_none() {
                fault(format!("no file {name}"));
            }
        } else if !source.as_deref().is_some_and(|text| has_word(text, name)) {
            fault(format!("no {name} in the file named before it"));
        }
    }

    let tests = quoted(&row.test);
    if tests.is_empty() && (is_kept || row.test != "–") {
        fault(format!("'{}' is no test", row.test));
    }
    for test in tests {
        if !is_test(test) {
            fault(format!("no test {test}"));
        }
    }
    faults
}

/// The texts in backticks.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).ok()
}

/// Whether the text has the name, and not only as a part of another one.
fn has_word(text: &str, name: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(name).any(|(at, _)| {
        !text[..at].ends_with(is_part) && !text[at + name.len()..].starts_with(is_part)
    })
}

/// Whether a path `PROGRAM::MODULE::NAME` names a test. The programs are those in tests/, and
/// `protocol` and `daemon` for the unit tests of the two crates.
fn is_test(test: &str) -> bool {
    let Some((path, name)) = test.rsplit_once("::") else {
        return false;
    };
    let (program, modules) = path.split_once("::").unwrap_or((path, ""));
    let modules = modules.replace("::", "/");
    let file = match (program, &*modules) {
        ("protocol", modules) => format!("src/protocol/{}.rs", modules.trim_end_matches("/tests")),
        ("daemon", modules) => format!("src/daemon/{}.rs", modules.trim_end_matches("/tests")),
        (program, "") => format!("tests/{program}.rs"),
        (program, modules) => format!("tests/{program}/{modules}.rs"),
    };
    let Some(text) = read(&file).or_else(|| read(&file.replace(".rs", "/mod.rs"))) else {
        return false;
    };
    let Some(at) = text.find(&format!("fn {name}()")) else {
        return false;
    };
    let has_attribute = text[..at].trim_end().ends_with("#[test]");
    let listed = text.split("crate::tests![").nth(1);
    let listed = listed.and_then(|text| text.split_once("];"));
    has_attribute || listed.is_some_and(|(list, _)| has_word(list, name))
}

#[test]
fn every_row_names_code_and_tests_that_exist() {
    let rows = rows(&read(PAGE).expect(PAGE)).expect(PAGE);
    let faults: Vec<_> = rows.iter().flat_map(faults).collect();
    assert!(faults.is_empty(), "{PAGE}:\n{}", faults.join("\n"));
}

#[test]
fn every_test_that_the_security_page_names_exists() {
    let page = read("SECURITY.md").expect("the file exists");
    let named: Vec<_> = quoted(&page)
        .into_iter()
        .filter(|name| name.contains("::"))
        .collect();
    let missing: Vec<_> = named.iter().filter(|name| !is_test(name)).collect();
    assert!(missing.is_empty(), "no such tests: {missing:?}");
    assert!(named.len() > 20, "{}", named.len());
}

#[test]
fn the_security_page_justifies_every_unsafe_block() {
    let page = read("SECURITY.md").expect("the file exists");
    let (_, table) = page.split_once("| in | blocks |").expect("a table");
    let rows = table
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    let source = read("src/daemon/sys/ffi.rs").expect("the file exists");
    let mut justified = 0;
    for row in rows {
        let cells: Vec<_> = row.split(" | ").collect();
        let [names, blocks, reason] = cells[..] else {
            panic!("{row}");
        };
        assert!(reason.len() > 10, "{row}");
        let blocks = blocks.split(',').next().expect("a number");
        justified += blocks.parse::<usize>().expect("a number");
        for name in quoted(names) {
            assert!(has_word(&source, name), "{name}");
        }
    }
    assert_eq!(source.matches("unsafe {").count(), justified);
    let elsewhere = rust_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"))
        .into_iter()
        .filter(|path| {
            let text = fs::read_to_string(path).expect("the file exists");
            !path.ends_with("sys/ffi.rs")
                && (text.contains("unsafe {") || text.contains("(unsafe_code"))
        });
    let forbids = |path: &PathBuf| path.ends_with("protocol/lib.rs");
    assert_eq!(elsewhere.filter(|path| !forbids(path)).count(), 0);
    assert!(page.contains(&format!("in {justified} blocks")));
}

#[test]
fn the_page_counts_its_rows() {
    let page = read(PAGE).expect(PAGE);
    let rows = rows(&page).expect(PAGE);
    let count = |is_one: &dyn Fn(&Row) -> bool| rows.iter().filter(|row| is_one(row)).count();
    let [not_applicable, not_kept, kept] =
        STATUSES.map(|status| count(&|row| row.status.starts_with(status)));
    let expected = format!(
        "Of {} rows {kept} are kept, each with a test, {not_kept} are not, \
         and {not_applicable} do not apply.",
        rows.len()
    );
    assert!(page.contains(&expected), "{PAGE} should say: {expected}");
}

#[test]
fn the_check_finds_every_kind_of_wrong_row() {
    let right = "| §1 | it is | kept | `src/protocol/wire/ndisc.rs` `check_ndp` \
                 | `wire::the_parser_refuses_a_packet_for_every_drop_reason` |";
    let told = |wrong: &str, by: &str| {
        let line = right.replacen(wrong, by, 1);
        assert!(by == wrong || line != right, "the row lacks {wrong}");
        let rows = rows(&line).expect("a row");
        rows.iter().flat_map(faults).collect::<Vec<_>>()
    };
    assert_eq!(told("", ""), [""; 0]);
    let right_too = [
        (
            "wire::the_parser_refuses_a_packet_for_every_drop_reason",
            "netns::check::proxying::two_that_answer_are_told",
        ),
        (
            "wire::the_parser_refuses_a_packet_for_every_drop_reason",
            "engine::limits::\
             new_groups_are_joined_200_at_once_and_50_a_second_and_none_is_forgotten",
        ),
        (
            "wire::the_parser_refuses_a_packet_for_every_drop_reason",
            "protocol::wire::mld::tests::\
             an_encoded_time_decodes_to_itself_or_to_the_next_smaller_one",
        ),
        ("`src/protocol/wire/ndisc.rs` `check_ndp`", "the kernel"),
        ("kept", "not kept: it is too much"),
        (
            "kept | `src/protocol/wire/ndisc.rs` `check_ndp` \
             | `wire::the_parser_refuses_a_packet_for_every_drop_reason`",
            "not applicable: it is another's | – | –",
        ),
    ];
    for (wrong, by) in right_too {
        assert_eq!(told(wrong, by), [""; 0], "{by}");
    }
    let wrong = [
        ("check_ndp", "check_nd", "no check_nd in the file"),
        ("check_ndp", "_ndp", "no _ndp in the file"),
        (
            "ndisc.rs",
            "nodisc.rs",
            "no file src/protocol/wire/nodisc.rs",
        ),
        (
            "`src/protocol/wire/ndisc.rs` ",
            "",
            "no check_ndp in the file",
        ),
        (
            "`src/protocol/wire/ndisc.rs` `check_ndp`",
            "somebody",
            "kept by whom?",
        ),
        (
            "refuses_a",
            "refuses_no",
            "no test wire::the_parser_refuses_no_packet_for_every_drop_reason",
        ),
        ("wire::the", "engine::the", "no test engine::the"),
        // This function of the tests is not a test.
        (
            "the_parser_refuses_a_packet_for_every_drop_reason",
            "broken_packets",
            "no test wire::broken_packets",
        ),
        (
            "wire::the_parser_refuses_a_packet_for_every_drop_reason",
            "netns::invalid::few",
            "no test netns::invalid::few",
        ),
        (
            "`wire::the_parser_refuses_a_packet_for_every_drop_reason`",
            "–",
            "'–' is no test",
        ),
        (
            "`wire::the_parser_refuses_a_packet_for_every_drop_reason`",
            "some",
            "'some' is no test",
        ),
        ("kept", "not kept", "not kept, and why?"),
        ("kept", "kept in part", "kept, and why?"),
        ("kept", "well", "'well' is no status"),
    ];
    for (wrong, by, fault) in wrong {
        let told = told(wrong, by);
        let first = told.first().expect(by);
        assert!(first.contains(fault), "{by}: {told:?}");
    }
    assert!(rows("| §1 | four | columns | are |").is_err());
    assert!(rows("| §1 | it | has | no | end").is_err());
}
