//! The findings, one line each, for people or as JSON.

use std::process::ExitCode;

use crate::commands::output::print;

/// How bad a finding is. The number is the exit code.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    Ok = 0,
    Warning = 1,
    Problem = 2,
}

/// What JSON has before the first finding's state.
const FIRST: &str = "{\"findings\":[\n{\"state\":\"";
const BETWEEN: &str = ",\n{\"state\":\"";

/// Writes each finding at once, since some take a while.
pub struct Findings {
    json: bool,
    worst: State,
    /// What JSON has before the next finding.
    before: &'static str,
}

impl Findings {
    pub fn new(json: bool) -> Self {
        Findings {
            json,
            worst: State::Ok,
            before: FIRST,
        }
    }

    /// Writes a finding. The template is `check|text` or `check|text|advice`, in which `%1` stands
    /// for the first of `words`, and so on. Templates have no quotation marks, which keeps the many
    /// of them small.
    pub fn add(&mut self, state: State, template: &str, words: &[&str]) {
        self.worst = self.worst.max(state);
        // What comes before the state, the check, the text and the advice, and at the end.
        let punctuation = if self.json {
            [
                self.before,
                "\",\"check\":\"",
                "\",\"text\":\"",
                "\",\"advice\":\"",
                "\"}",
            ]
        } else {
            ["", " ", ": ", "; ", "\n"]
        };
        let name = match state {
            State::Ok => "ok",
            State::Warning => "warning",
            State::Problem => "problem",
        };
        let mut line = [punctuation[0], name].concat();
        if !self.json {
            line.push_str(&"       "[name.len()..]);
        }
        let mut parts = template.split('|');
        for before in &punctuation[1..4] {
            let part = parts.next();
            if part.is_some() || self.json {
                line.push_str(before);
            }
            self.fill(&mut line, part.unwrap_or_default(), words);
        }
        line.push_str(punctuation[4]);
        print(&line);
        self.before = BETWEEN;
    }

    /// The kernel did not tell.
    pub fn unknown(&mut self, check: &str, what: &str) {
        self.add(
            State::Warning,
            "%1|%2 could not be looked at|run this as root, with /proc mounted",
            &[check, what],
        );
    }

    fn fill(&self, line: &mut String, template: &str, words: &[&str]) {
        let mut characters = template.chars();
        while let Some(character) = characters.next() {
            if character != '%' {
                line.push(character);
                continue;
            }
            let number = characters.next().and_then(|digit| digit.to_digit(10));
            let word = number.and_then(|number| words.get(number as usize - 1));
            for character in word.unwrap_or(&"").chars() {
                // RFC 8259 §7. What cannot be seen is escaped when it is printed, as in JSON.
                if self.json && matches!(character, '"' | '\\') {
                    line.push('\\');
                }
                line.push(character);
            }
        }
    }

    /// Writes lines that are no finding, by a template with words as above. JSON has none.
    pub fn say(&self, template: &str, words: &[&str]) {
        if !self.json {
            let mut lines = String::new();
            self.fill(&mut lines, template, words);
            lines.push('\n');
            print(&lines);
        }
    }

    /// Writes the end, in JSON with more members of the object, each of them behind a comma.
    /// Returns the exit code.
    pub fn end(self, more: &str) -> ExitCode {
        if self.json {
            print(&["\n]", more, ",\"exit\":"].concat());
            print(match self.worst {
                State::Ok => "0}\n",
                State::Warning => "1}\n",
                State::Problem => "2}\n",
            });
        }
        ExitCode::from(self.worst as u8)
    }
}
