//! The files in dist/. systemd's own tools check its units. The manual page and what shells complete
//! agree with --help.

mod help;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output};

use libtest_mimic::{Arguments, Trial};

use help::{Facts, Options, commands, options_of_help};

const MLDPROXY: &str = env!("CARGO_BIN_EXE_mldproxy");
const PAGE: &str = "mldproxy.8";
const UNITS: [&str; 2] = ["mldproxy.service", "mldproxy@.service"];
/// The highest exposure that `systemd-analyze security` may find, in tenths.
const EXPOSURE: &str = "20";

/// The name of a test, the program that it needs with its Debian package, and the test.
type Test = (&'static str, Option<(&'static str, &'static str)>, fn());

const SYSTEMD: Option<(&str, &str)> = Some(("systemd-analyze", "systemd"));
const MANDOC: Option<(&str, &str)> = Some(("mandoc", "mandoc"));
const BASH: Option<(&str, &str)> = Some(("bash", "bash"));
const ZSH: Option<(&str, &str)> = Some(("zsh", "zsh"));

const TESTS: &[Test] = &[
    (
        "systemd_understands_the_units",
        SYSTEMD,
        systemd_understands_the_units,
    ),
    ("the_units_expose_little", SYSTEMD, the_units_expose_little),
    (
        "the_units_let_the_daemon_set_ipv6_sysctls",
        None,
        the_units_let_the_daemon_set_ipv6_sysctls,
    ),
    (
        "the_units_differ_only_in_their_file",
        None,
        the_units_differ_only_in_their_file,
    ),
    (
        "the_units_pass_arguments_that_the_program_accepts",
        None,
        the_units_pass_arguments_that_the_program_accepts,
    ),
    (
        "mandoc_finds_no_fault_in_the_page",
        MANDOC,
        mandoc_finds_no_fault_in_the_page,
    ),
    (
        "the_page_has_every_command_and_no_other",
        None,
        the_page_has_every_command_and_no_other,
    ),
    (
        "the_page_has_every_option_and_no_other",
        None,
        the_page_has_every_option_and_no_other,
    ),
    (
        "bash_completes_commands_options_and_interfaces",
        BASH,
        bash_completes_commands_options_and_interfaces,
    ),
    (
        "zsh_completes_commands_options_and_interfaces",
        ZSH,
        zsh_completes_commands_options_and_interfaces,
    ),
];

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let trials = TESTS.iter().map(|&(name, needs, test)| {
        let missing = needs.filter(|(tool, _)| !is_there(tool));
        if let Some((tool, package)) = missing {
            eprintln!("skipping {name}: `{tool}` is missing; on Debian: apt install {package}");
        }
        let run = move || {
            test();
            Ok(())
        };
        Trial::test(name, run).with_ignored_flag(missing.is_some())
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

fn is_there(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(tool).is_file())
}

fn dist(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("dist")
        .join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(dist(name)).expect(name)
}

fn text(output: &Output) -> String {
    let both = [&*output.stdout, &*output.stderr].concat();
    String::from_utf8(both).expect("text")
}

/// Copies of the units that start the program from the build folder, so that nothing need be
/// installed.
fn units_of_this_build(test: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(test);
    fs::create_dir_all(&folder).expect("a folder");
    let unit = |name: &&str| {
        let installed = read(name);
        assert_eq!(installed.matches("/usr/sbin/mldproxy").count(), 1, "{name}");
        let path = folder.join(name);
        fs::write(&path, installed.replace("/usr/sbin/mldproxy", MLDPROXY)).expect("a copy");
        path
    };
    UNITS.iter().map(unit).collect()
}

fn systemd_understands_the_units() {
    for unit in units_of_this_build("verify") {
        let mut command = Command::new("systemd-analyze");
        // --man=no, since the manual page is not installed.
        let output = command
            .args(["verify", "--man=no"])
            .arg(&unit)
            .output()
            .expect("the program starts");
        // systemd-analyze only warns of a setting that it does not know.
        assert_eq!(text(&output), "", "{}", unit.display());
        assert!(output.status.success(), "{}", unit.display());
    }
}

fn the_units_expose_little() {
    for unit in units_of_this_build("security") {
        let mut command = Command::new("systemd-analyze");
        command.args([
            "security",
            "--no-pager",
            "--offline=true",
            "--threshold",
            EXPOSURE,
        ]);
        let output = command.arg(&unit).output().expect("the program starts");
        let (report, name) = (text(&output), unit.display());
        assert!(
            report.contains("Overall exposure level"),
            "{name}: {report}"
        );
        assert!(output.status.success(), "{name}: {report}");
    }
}

/// With --ndp-proxy the daemon sets sysctls. The units let it write below net/ipv6 only.
fn the_units_let_the_daemon_set_ipv6_sysctls() {
    for name in UNITS {
        let unit = read(name);
        assert!(unit.contains("\nProtectKernelTunables=yes\n"), "{name}");
        let writable: Vec<&str> = unit
            .lines()
            .filter_map(|line| line.strip_prefix("ReadWritePaths="))
            .collect();
        assert_eq!(writable, ["-/proc/sys/net/ipv6"], "{name}");
        assert!(!unit.contains("\nProcSubset="), "{name}");
    }
}

fn the_units_differ_only_in_their_file() {
    let [plain, instance] = UNITS.map(|name| {
        let unit = read(name);
        let (_, unit) = unit.split_once("\n[Unit]\n").expect("a comment first");
        unit.to_owned()
    });
    let instance = instance.replace("/etc/mldproxy/%i.conf", "/etc/mldproxy.conf");
    let instance = instance.replace(" --name %i", "");
    assert_eq!(instance.replace(" (%i)", ""), plain);
}

/// Runs the command line of the unit, split as systemd splits it, with and without the user's
/// settings.
fn the_units_pass_arguments_that_the_program_accepts() {
    let unit = read(UNITS[0]);
    let start = unit
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart=/usr/sbin/mldproxy "));
    let start = start.expect("the unit starts the program");
    let run = |upstream, downstreams, options| {
        let line = start
            .replace("$UPSTREAM", upstream)
            .replace("$DOWNSTREAMS", downstreams);
        let line = line
            .replace("$OPTIONS", options)
            .replacen("run ", "run --test ", 1);
        assert!(!line.contains('$'), "{line}");
        Command::new(MLDPROXY)
            .args(line.split_whitespace())
            .output()
            .expect("the program starts")
    };
    let output = run("wan", "br-lan br-guest", "--log-level debug --no-ask");
    assert!(output.status.success(), "{}", text(&output));
    assert!(run("wan", "help", "").status.success());
    // systemd does not restart a daemon whose settings are wrong: only a new file helps.
    assert!(unit.contains("\nRestartPreventExitStatus=2 "));
    for (upstream, downstreams) in [("", ""), ("wan", ""), ("", "br-lan")] {
        let output = run(upstream, downstreams, "");
        assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    }
}

fn mandoc_finds_no_fault_in_the_page() {
    let mut command = Command::new("mandoc");
    let output = command
        .args(["-T", "lint", "-W", "style"])
        .arg(dist(PAGE))
        .output();
    let found = text(&output.expect("the program starts"));
    // The pages of other packages need not be installed.
    let found: Vec<&str> = found
        .lines()
        .filter(|line| {
            !line.contains("referenced manual not found") && !line.contains("outdated mandoc.db")
        })
        .collect();
    assert_eq!(found, [""; 0]);
}

/// The page's text about a command, or about the program if `command` is `None`. Returns `None` if
/// the page has no such text.
fn block(page: &str, command: Option<&str>) -> Option<String> {
    let start = match command {
        Some(command) => format!("\n.Ss mldproxy {command}\n"),
        None => "\n.Sh DESCRIPTION\n".to_owned(),
    };
    let (_, rest) = page.split_once(&start)?;
    let end = ["\n.Ss ", "\n.Sh "]
        .iter()
        .filter_map(|end| rest.find(end))
        .min();
    Some(rest[..end.unwrap_or(rest.len())].to_owned())
}

fn options_of_page(command: Option<&str>) -> Options {
    let page = read(PAGE);
    let block = block(&page, command).unwrap_or_else(|| panic!("no block .Ss for {command:?}"));
    let items = block.split("\n.It Fl -").skip(1);
    let option = |item: &str| {
        let item = item.split_once("\n.El").map_or(item, |(item, _)| item);
        let (first, description) = item.split_once('\n').expect("a description");
        let (name, argument) = first.split_once(" Ar ").unwrap_or((first, ""));
        let default = description
            .split_once("Default: ")
            .and_then(|(_, rest)| rest.lines().next());
        let facts = Facts {
            argument: argument.to_owned(),
            default: default.map_or(String::new(), |line| line.trim_end_matches('.').to_owned()),
        };
        (name.to_owned(), facts)
    };
    items.map(option).collect()
}

fn the_page_has_every_command_and_no_other() {
    let page = read(PAGE);
    let mut described: Vec<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix(".Ss mldproxy "))
        .collect();
    let mut commands = commands();
    described.sort_unstable();
    commands.sort_unstable();
    assert_eq!(described, commands);
    let (_, synopsis) = page.split_once("\n.Sh SYNOPSIS\n").expect("a synopsis");
    let (synopsis, _) = synopsis.split_once("\n.Sh ").expect("an end");
    for command in commands {
        assert!(
            synopsis.contains(&format!("\n.Cm {command}\n")),
            "{command}"
        );
    }
}

fn the_page_has_every_option_and_no_other() {
    let commands = commands();
    let commands = commands.iter().map(|command| Some(command.as_str()));
    for command in commands.chain([None]) {
        let (page, help) = (options_of_page(command), options_of_help(command));
        assert_eq!(page, help, "{command:?}");
    }
    // Both readers found the same facts; these are some of them.
    let run = options_of_help(Some("run"));
    let facts = |name: &str| (&*run[name].argument, &*run[name].default);
    assert_eq!(facts("address-timeout"), ("s", "300"));
    assert_eq!(facts("prefix"), ("p", ""));
    assert_eq!(facts("no-ask"), ("", ""));
}

/// The words that a shell offers after some words of a command line. The shell runs `program` with
/// these words as its arguments, and finds this build's mldproxy.
fn completed(shell: &str, program: &str, words: &[&str]) -> BTreeSet<String> {
    let build = Path::new(MLDPROXY).parent().expect("a folder");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path: OsString = [build.as_os_str(), ":".as_ref(), &path]
        .into_iter()
        .collect();
    let output = Command::new(shell)
        .args(["-c", program, shell])
        .args(words)
        .current_dir(dist(""))
        .env("PATH", path)
        .output()
        .expect("the shell starts");
    let text = text(&output);
    text.split_whitespace().map(str::to_owned).collect()
}

fn bash_completes_commands_options_and_interfaces() {
    check_completion("bash", |words| {
        let program = "source ./mldproxy.bash; COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); \
                       _mldproxy; echo \"${COMPREPLY[@]}\"";
        completed("bash", program, words)
    });
}

fn zsh_completes_commands_options_and_interfaces() {
    check_completion("zsh", |words| {
        // zsh itself leaves out what does not begin as the word does.
        let program = "compadd() { print -r -- ${(@P)2} }
            complete() {
                local CURRENT=$# PREFIX=${@[-1]}; local -a words; words=(\"$@\")
                source ./_mldproxy
            }
            complete \"$@\"";
        completed("zsh", program, words)
    });
}

fn check_completion(shell: &str, complete: impl Fn(&[&str]) -> BTreeSet<String>) {
    let of_program: BTreeSet<String> = ["--help".to_owned(), "--version".to_owned()]
        .into_iter()
        .chain(commands())
        .collect();
    assert_eq!(complete(&["mldproxy", ""]), of_program, "{shell}");
    for command in commands() {
        let found = complete(&["mldproxy", &command, "--"]);
        let options = options_of_help(Some(&command));
        let options = options.into_keys().chain(["help".to_owned()]);
        let options: BTreeSet<String> = options.map(|name| format!("--{name}")).collect();
        assert_eq!(found, options, "{shell}: {command}");
    }
    let interfaces = complete(&["mldproxy", "check", ""]);
    assert!(interfaces.contains("lo"), "{shell}: {interfaces:?}");
    let none = complete(&["mldproxy", "nonsense", "--"]);
    assert_eq!(none, BTreeSet::new(), "{shell}");
}
