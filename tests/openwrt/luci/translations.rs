//! The texts of the page, and their translations.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use super::browser::json;
use super::{APP, scripts};
use crate::router::{read, repository};

crate::tests![
    the_template_has_every_text_of_the_page_and_no_other,
    every_text_has_a_translation,
    a_translation_has_the_same_places_for_values,
    every_language_has_one_file_named_after_the_template,
];

const TEMPLATE: &str = "po/templates/mldproxy.pot";
const LANGUAGES: &[&str] = &["ja"];

/// The texts of a script that it hands to `_()`, which stand in quotes and may be joined by `+`.
fn texts_of(script: &str) -> Vec<String> {
    let mut texts = Vec::new();
    // Names that end in `_` are other functions.
    let script = script.replace("__(", "(");
    for call in script.split("_(").skip(1) {
        let mut text = String::new();
        let mut rest = call.trim_start();
        while let Some(quoted) = rest.strip_prefix('\'') {
            let (part, after) = quoted.split_once('\'').expect("an end");
            assert!(!part.contains('\\'), "an escaped character: {part}");
            text += part;
            rest = after.trim_start();
            rest = rest.strip_prefix('+').map_or(rest, str::trim_start);
        }
        assert!(!text.is_empty() && rest.starts_with(')'), "{call:.60}");
        texts.push(text);
    }
    texts
}

/// The texts of the scripts, the menu and the ACL.
fn texts() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (_, path) in scripts() {
        found.extend(texts_of(&fs::read_to_string(path).unwrap()));
    }
    for (path, key) in [
        ("luci/menu.d/luci-app-mldproxy.json", "\"title\": \""),
        ("rpcd/acl.d/luci-app-mldproxy.json", "\"description\": \""),
    ] {
        let text = read(&format!("{APP}/root/usr/share/{path}"));
        let values = text
            .split(key)
            .skip(1)
            .filter_map(|rest| rest.split('"').next());
        found.extend(values.map(str::to_owned));
    }
    found
}

/// The texts of a file of gettext with their translations, without the head.
fn messages(path: &str) -> BTreeMap<String, String> {
    let text = read(&format!("{APP}/{path}"));
    let mut found = BTreeMap::new();
    for entry in text.split("\n\n") {
        let mut parts = [String::new(), String::new()];
        let mut current = None;
        for line in entry.lines() {
            let quoted = match line {
                _ if line.starts_with('#') => {
                    assert!(!line.contains("fuzzy"), "{path}: {entry}");
                    continue;
                }
                _ if line.starts_with("msgid ") => {
                    current = Some(0);
                    &line["msgid ".len()..]
                }
                _ if line.starts_with("msgstr ") => {
                    current = Some(1);
                    &line["msgstr ".len()..]
                }
                _ => line,
            };
            let quoted = quoted
                .trim()
                .strip_prefix('"')
                .and_then(|rest| rest.strip_suffix('"'));
            let quoted = quoted.unwrap_or_else(|| panic!("{path}: {line}"));
            let part = &mut parts[current.unwrap_or_else(|| panic!("{path}: {line}"))];
            *part += &quoted.replace("\\n", "\n").replace("\\\"", "\"");
        }
        let [text, translation] = parts;
        if !text.is_empty() {
            assert!(
                found.insert(text, translation).is_none(),
                "{path}: twice: {entry}"
            );
        }
    }
    found
}

/// The translations into a language as an object of JSON.
pub fn as_json(language: &str) -> String {
    let pairs = messages(&format!("po/{language}/mldproxy.po"));
    let pairs: Vec<String> = pairs
        .iter()
        .map(|(text, translation)| format!("{}:{}", json(text), json(translation)))
        .collect();
    format!("{{{}}}", pairs.join(","))
}

#[track_caller]
fn expect_texts(path: &str) {
    let (known, wanted) = (messages(path), texts());
    let known: BTreeSet<String> = known.into_keys().collect();
    let missing: Vec<_> = wanted.difference(&known).collect();
    let stale: Vec<_> = known.difference(&wanted).collect();
    assert!(
        missing.is_empty() && stale.is_empty(),
        "{path}: {missing:#?} stale: {stale:#?}"
    );
}

fn the_template_has_every_text_of_the_page_and_no_other() {
    expect_texts(TEMPLATE);
    let template = messages(TEMPLATE);
    assert!(template.values().all(String::is_empty));
}

fn every_text_has_a_translation() {
    for language in LANGUAGES {
        let path = format!("po/{language}/mldproxy.po");
        expect_texts(&path);
        for (text, translation) in messages(&path) {
            assert!(!translation.is_empty(), "{language}: {text}");
        }
    }
}

/// The values come in the order of the text, so a translation has to keep it.
fn a_translation_has_the_same_places_for_values() {
    let places = |text: &str| -> Vec<char> {
        let rests = text.split('%').skip(1);
        rests.filter_map(|rest| rest.chars().next()).collect()
    };
    for language in LANGUAGES {
        for (text, translation) in messages(&format!("po/{language}/mldproxy.po")) {
            assert_eq!(places(&text), places(&translation), "{language}: {text}");
        }
    }
}

/// luci.mk names the packages of translations after these folders.
fn every_language_has_one_file_named_after_the_template() {
    let folders = fs::read_dir(repository(APP).join("po")).unwrap();
    let mut names: Vec<String> = folders
        .map(|folder| folder.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "templates")
        .collect();
    names.sort();
    assert_eq!(names, LANGUAGES);
    for language in names {
        let file = repository(APP).join(format!("po/{language}/mldproxy.po"));
        assert!(file.is_file(), "{}", file.display());
    }
}
