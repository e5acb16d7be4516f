//! What the program's own help says of its commands and options.

// Several programs include this file, and each uses a part of it.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::process::Command;

/// The argument and the default of an option, each empty if the option has none.
#[derive(Debug, Default, PartialEq)]
pub struct Facts {
    pub argument: String,
    pub default: String,
}

pub type Options = BTreeMap<String, Facts>;

fn help(command: Option<&str>) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_mldproxy"))
        .args(command)
        .arg("--help")
        .output();
    let output = output.expect("the program starts");
    assert!(output.status.success(), "{command:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// The lines below a heading of the help.
fn section<'h>(help: &'h str, heading: &str) -> &'h str {
    let found = help.split_once(&format!("\n{heading}:\n"));
    let rest = found.map_or("", |(_, rest)| rest);
    rest.split_once("\n\n").map_or(rest, |(section, _)| section)
}

pub fn commands() -> Vec<String> {
    let help = help(None);
    let lines = section(&help, "Commands").lines();
    // A line that is indented further continues the one above.
    let names = lines.filter_map(|line| {
        line.strip_prefix("  ")
            .filter(|line| !line.starts_with(' '))
    });
    let commands: Vec<String> = names
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect();
    assert!(
        commands.iter().any(|command| command == "run"),
        "{commands:?}"
    );
    commands
}

pub fn options_of_help(command: Option<&str>) -> Options {
    let help = help(command);
    let usage = help.lines().next().expect("a usage");
    let mut options = Options::new();
    let mut last = None;
    for line in section(&help, "Options").lines() {
        let indented = line.strip_prefix("  ").expect("an indented line");
        let description = match indented.strip_prefix("--") {
            Some(option) => {
                let (name, description) = option.split_once(' ').unwrap_or((option, ""));
                let name = name.trim_end_matches(',').to_owned();
                last = Some(name.clone());
                options.insert(name, Facts::default());
                description
            }
            None => indented,
        };
        let facts = options
            .get_mut(last.as_ref().expect("an option"))
            .expect("the option is known");
        facts.default += &format!(" {}", description.trim());
    }
    for (name, facts) in &mut options {
        let default = facts
            .default
            .split_once("(default ")
            .and_then(|(_, rest)| rest.split_once(')'));
        facts.default = default.map_or(String::new(), |(default, _)| default.to_owned());
        let argument = usage.split_once(&format!("--{name} <"));
        let argument = argument.and_then(|(_, rest)| rest.split_once('>'));
        facts.argument = argument.map_or(String::new(), |(name, _)| name.replace("...", ""));
    }
    // Every command has --help; the page describes it once.
    if command.is_some() {
        options.remove("help");
    }
    options
}
