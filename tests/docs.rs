//! The documents: their links resolve, they name every option of the program, and the commands of
//! the README are those of this repository or of a router.

mod help;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

use help::options_of_help;

/// The most lines of the README.
const README_LINES: usize = 150;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every document, by its path in the repository.
fn documents() -> BTreeMap<PathBuf, String> {
    let folders = ["", "docs", "docs/ja"].map(|folder| repository().join(folder));
    let files = folders
        .iter()
        .flat_map(|folder| fs::read_dir(folder).unwrap());
    let files = files.map(|file| file.unwrap().path());
    let documents = files.filter(|file| file.extension().is_some_and(|kind| kind == "md"));
    let named = documents.map(|file| {
        let text = fs::read_to_string(&file).unwrap();
        (file.strip_prefix(repository()).unwrap().to_owned(), text)
    });
    named.collect()
}

/// The lines outside of blocks of code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut in_block = false;
    text.lines().filter(move |line| {
        let fence = line.starts_with("```");
        in_block ^= fence;
        !in_block && !fence
    })
}

/// The blocks of code, each with what stands behind its fence.
fn blocks(text: &str) -> Vec<(&str, Vec<&str>)> {
    let mut blocks: Vec<(&str, Vec<&str>)> = Vec::new();
    let mut in_block = false;
    for line in text.lines() {
        if let Some(kind) = line.strip_prefix("```") {
            in_block = !in_block;
            if in_block {
                blocks.push((kind, Vec::new()));
            }
        } else if in_block {
            blocks.last_mut().expect("a block").1.push(line);
        }
    }
    assert!(!in_block, "a block does not end");
    blocks
}

/// The anchors of the headings: their letters and digits in lower case, with hyphens for spaces. The
/// second heading of a name gets a number.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut seen = BTreeMap::new();
    let headings = prose(text).filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| {
        let words = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = words.chars().filter_map(|letter| match letter {
            ' ' => Some('-'),
            '-' | '_' => Some(letter),
            _ => letter.is_alphanumeric().then_some(letter),
        });
        let anchor: String = kept.collect();
        let count = seen.entry(anchor.clone()).or_insert(0);
        *count += 1;
        match *count {
            1 => anchor,
            number => format!("{anchor}-{}", number - 1),
        }
    };
    headings.map(anchor).collect()
}

/// The targets of the links and pictures.
fn links(text: &str) -> Vec<String> {
    let joined: Vec<&str> = prose(text).collect();
    let joined = joined.join("\n");
    let targets = joined.split("](").skip(1);
    let targets = targets.filter_map(|rest| rest.split_once(')'));
    targets.map(|(target, _)| target.to_owned()).collect()
}

/// The path without `..`.
fn plain(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut done, part| {
        match part {
            Component::ParentDir => assert!(done.pop(), "{}", path.display()),
            part => done.push(part),
        }
        done
    })
}

#[test]
fn every_link_and_anchor_resolves() {
    let documents = documents();
    let mut checked = 0;
    for (file, text) in &documents {
        for target in links(text) {
            if target.starts_with("https://") {
                continue;
            }
            let (path, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let linked = match path {
                "" => file.clone(),
                path => plain(&file.parent().unwrap().join(path)),
            };
            let place = format!("{}: {target}", file.display());
            assert!(repository().join(&linked).exists(), "{place}");
            if !anchor.is_empty() {
                let text = documents.get(&linked).expect(&place);
                assert!(anchors(text).contains(anchor), "{place}");
            }
            checked += 1;
        }
    }
    assert!(checked > 50, "{checked}");
}

#[test]
fn every_document_is_linked_from_the_readme_or_from_one_that_is() {
    let documents = documents();
    let mut reached = BTreeSet::from([PathBuf::from("README.md")]);
    let mut next = vec![PathBuf::from("README.md")];
    while let Some(file) = next.pop() {
        for target in links(&documents[&file]) {
            let (path, _) = target.split_once('#').unwrap_or((&target, ""));
            if path.is_empty() || target.starts_with("https://") {
                continue;
            }
            let linked = plain(&file.parent().unwrap().join(path));
            if documents.contains_key(&linked) && reached.insert(linked.clone()) {
                next.push(linked);
            }
        }
    }
    // What the owner of a router notices is found by its name.
    reached.insert("CHANGELOG.md".into());
    let all: BTreeSet<PathBuf> = documents.into_keys().collect();
    assert_eq!(reached, all);
}

#[test]
fn the_readme_fits_on_a_page() {
    let lines = documents()[Path::new("README.md")].lines().count();
    assert!(lines <= README_LINES, "{lines}");
}

/// The documents in Japanese have the same headings, commands, pictures, rows of what a router says,
/// and figures as those in English.
#[test]
fn the_documents_say_the_same_in_both_languages() {
    let documents = documents();
    let mut compared = 0;
    for (file, japanese) in &documents {
        let name = file.file_name().unwrap().to_str().unwrap();
        let english = if file.starts_with("docs/ja") {
            Path::new("docs").join(name)
        } else if let Some(stem) = name.strip_suffix(".ja.md") {
            format!("{stem}.md").into()
        } else {
            continue;
        };
        compare(&documents[&english], japanese);
        compared += 1;
    }
    assert!(compared >= 3, "{compared}");
}

#[track_caller]
fn compare(english: &str, japanese: &str) {
    let shape = |text: &str| -> Vec<String> {
        let lines = prose(text).filter_map(|line| {
            let heading = line.starts_with('#').then(|| line.split(' ').next());
            let row = line.starts_with("| `").then(|| line.split('`').nth(1));
            let picture = line.starts_with("![").then(|| line.rsplit('(').next());
            heading.or(row).or(picture).flatten().map(str::to_owned)
        });
        lines.collect()
    };
    assert_eq!(shape(english), shape(japanese));
    let commands = |text: &str| -> Vec<(String, Vec<String>)> {
        let without_comment = |line: &str| {
            let (command, _) = line.split_once(" #").unwrap_or((line, ""));
            command.trim_end().to_owned()
        };
        let block = |(kind, lines): (&str, Vec<&str>)| {
            (
                kind.to_owned(),
                lines.into_iter().map(without_comment).collect(),
            )
        };
        blocks(text).into_iter().map(block).collect()
    };
    assert_eq!(commands(english), commands(japanese));
    // The figures of what it costs.
    let figures = |text: &str| -> BTreeSet<String> {
        let words = text.split(|c: char| !c.is_ascii_digit() && c != '.' && c != ',');
        let figures = words.map(|word| word.trim_matches(['.', ',']));
        let figures = figures.filter(|word| word.contains(['.', ',']));
        figures.map(str::to_owned).collect()
    };
    assert_eq!(figures(english), figures(japanese));
}

#[test]
fn the_options_of_the_program_have_a_row_each_and_no_other_has_one() {
    let documents = documents();
    let text = &documents[Path::new("docs/options.md")];
    let rows = prose(text).filter(|line| line.starts_with("| `--"));
    let mut found = BTreeSet::new();
    for row in rows {
        let cell = row.split('|').nth(1).expect("a cell");
        for flag in cell.split('`').filter(|word| word.starts_with("--")) {
            let (flag, _) = flag.split_once(' ').unwrap_or((flag, ""));
            assert!(found.insert(flag.to_owned()), "{flag} is there twice");
        }
    }
    let options = options_of_help(Some("run")).into_keys();
    let options: BTreeSet<String> = options.map(|name| format!("--{name}")).collect();
    assert_eq!(found, options);
}

#[test]
fn the_commands_of_the_readme_are_those_of_a_router_or_of_this_repository() {
    let documents = documents();
    let config = repository().join("openwrt/mldproxy/files/mldproxy.config");
    let config = fs::read_to_string(config).unwrap();
    let mut checked = 0;
    for (kind, lines) in blocks(&documents[Path::new("README.md")]) {
        for line in lines {
            let (command, _) = line.split_once(" #").unwrap_or((line, ""));
            let words: Vec<&str> = command.split_whitespace().collect();
            match (kind, &words[..]) {
                ("router", ["scp" | "ssh" | "apk" | "opkg", ..]) => {}
                ("router", ["uci", "commit", "mldproxy", "&&", "service", "mldproxy", ..]) => {}
                ("router", ["uci", "set" | "add_list", setting]) => {
                    let (path, _) = setting.split_once('=').expect("a value");
                    let option = path.strip_prefix("mldproxy.main.").expect("of main");
                    let is_there = [" option ", "#option ", "#list "]
                        .iter()
                        .any(|before| config.contains(&format!("{before}{option} ")));
                    assert!(is_there, "{line}");
                }
                ("sh", ["cargo", "demo"]) => {
                    let aliases = fs::read_to_string(repository().join(".cargo/config.toml"));
                    assert!(aliases.unwrap().contains("\ndemo = "), "{line}");
                }
                ("sh", [script]) => {
                    let path = script.strip_prefix("./").expect(line);
                    assert!(repository().join(path).is_file(), "{line}");
                }
                _ => panic!("{kind}: {line}"),
            }
            checked += 1;
        }
    }
    assert!(checked > 10, "{checked}");
}
