//! `cargo bench` measures the cost of mldproxy beside that of a floor and of other NDP proxies, and
//! writes BENCHMARKS.md. It takes about half an hour on an otherwise idle machine.
//! `cargo bench -- NAME...` measures and prints only the named sections: instructions, throughput,
//! upstream, latency, memory, answering, idle, streams, costs, sizes.

mod answering;
mod events;
mod hosts;
mod idle;
mod instructions;
#[path = "../netns/lab.rs"]
mod lab;
mod latency;
mod listeners;
mod measure;
mod memory;
mod sizes;
mod streams;
#[path = "../netns/support.rs"]
mod support;
mod throughput;
mod upstream;

use std::fs;
use std::process::{Command, ExitCode};

type Section = (&'static str, fn() -> String);

/// The sections in the order of the file. Each returns Markdown that starts with its heading.
const SECTIONS: [Section; 10] = [
    ("instructions", instructions::section),
    ("throughput", throughput::section),
    ("upstream", upstream::section),
    ("latency", latency::section),
    ("memory", memory::section),
    ("answering", answering::section),
    ("idle", idle::section),
    ("streams", streams::section),
    ("costs", streams::costs),
    ("sizes", sizes::section),
];

const TOOLS: [(&str, &str); 2] = [("valgrind", "valgrind"), ("python3", "python3")];

fn main() -> ExitCode {
    if instructions::is_child() {
        return ExitCode::SUCCESS;
    }
    // Cargo adds options such as --bench.
    let named: Vec<_> = std::env::args()
        .skip(1)
        .filter(|name| !name.starts_with('-'))
        .collect();
    let known = |name: &String| SECTIONS.iter().any(|(known, _)| known == name);
    let unknown = named.iter().filter(|name| !known(name));
    let unknown: Vec<_> = unknown.map(|name| format!("no section {name:?}")).collect();
    let missing = lab::missing_tools(&[lab::TOOLS, &TOOLS].concat());
    let refused = lab::isolate().err();
    let reasons: Vec<_> = unknown.into_iter().chain(missing).chain(refused).collect();
    if !reasons.is_empty() {
        eprintln!("{}", reasons.join("\n"));
        return ExitCode::FAILURE;
    }
    let mut report = preface();
    for (name, section) in SECTIONS {
        if named.is_empty() || named.iter().any(|wanted| wanted == name) {
            // A section may pin its thread to one CPU, so each gets a thread.
            let section = std::thread::spawn(section).join();
            let Ok(section) = section else {
                return ExitCode::FAILURE;
            };
            print!("{section}");
            report += &section;
        }
    }
    if named.is_empty() {
        fs::write("BENCHMARKS.md", report.trim_end().to_owned() + "\n")
            .expect("the folder of the project");
    }
    ExitCode::SUCCESS
}

/// The start of the file: its purpose, and the machine that took the figures.
fn preface() -> String {
    let of_file = |path: &str, key: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let line = text
            .lines()
            .find(|line| line.starts_with(key))
            .unwrap_or_default();
        line.rsplit(':')
            .next()
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    let said = |program: &str, argument: &str| {
        let output = Command::new(program).arg(argument).output();
        output.map_or_else(
            |_| String::new(),
            |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        )
    };
    format!(
        "# Benchmarks\n\n\
         Written by `cargo bench`; `cargo bench -- NAME` takes one section anew and prints it \
         ({}). Everything runs in network namespaces of its own. What is compared runs in the same \
         minutes, in turn, and ratios are those of one round; times of different machines cannot \
         be compared. No test depends on a time.\n\n\
         Taken with Linux {}, {} CPUs ({}), {}; ndppd {}, npd6 {} of Debian. mldproxy is built as \
         for release: for size (`opt-level = \"z\"`, but for the checksum), with glibc.\n\n",
        SECTIONS.map(|(name, _)| name).join(", "),
        said("uname", "-r").split('-').next().unwrap_or_default(),
        std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        of_file("/proc/cpuinfo", "model name"),
        said("rustc", "-V"),
        package("ndppd"),
        package("npd6"),
    )
}

/// The version of a package of Debian.
fn package(name: &str) -> String {
    let output = Command::new("dpkg-query")
        .args(["-W", "-f", "${Version}", name])
        .output();
    let version = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    version
        .ok()
        .filter(|version| !version.is_empty())
        .unwrap_or_else(|| "not installed".to_owned())
}
