//! Runs `cargo demo` on a machine that has nothing but Rust and a linker.

#[path = "netns/lab.rs"]
mod lab;

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode, Output};
use std::thread;

use libtest_mimic::{Arguments, Trial};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// The folders that may hold programs.
const PROGRAMS: [&str; 6] = [
    "/bin",
    "/sbin",
    "/usr/bin",
    "/usr/sbin",
    "/usr/local/bin",
    "/usr/local/sbin",
];

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let isolated = lab::isolate();
    if let Err(reason) = &isolated {
        eprintln!("skipping all: {reason}");
    }
    let tests: [(&str, fn()); 3] = [
        ("the_demo_runs_no_program_of_the_system", runs_no_program),
        (
            "the_demo_of_a_stream_runs_no_program_of_the_system",
            streams_without_a_program,
        ),
        (
            "the_demo_names_the_package_of_a_missing_ndppd",
            names_the_package,
        ),
    ];
    let trials = tests.map(|(name, test)| {
        let run = move || {
            test();
            Ok(())
        };
        Trial::test(name, run).with_ignored_flag(isolated.is_err())
    });
    libtest_mimic::run(&arguments, trials.into()).exit_code()
}

fn runs_no_program() {
    let output = demo(&[]);
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    for seen in [
        "0 answered",
        "MDB of port rtr: ff02::1:ff01:10",
        "proxy entry on wan: 2001:db8:1::1:10",
        "5 sent, 5 answered",
        "MDB of port rtr: no ff02::1:ff01:10",
    ] {
        assert!(stdout.contains(seen), "no {seen:?} in {stdout}");
    }
}

fn streams_without_a_program() {
    let output = demo(&["--stream"]);
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    for seen in [
        "lan: 0 datagrams received",
        "rtr: 2001:db8:1::10 ff3e::4321:1234 wan -> br-lan",
        "guest: nothing of the stream on the link",
        "rtr: no entry",
        "lan: nothing of the stream on the link",
    ] {
        assert!(stdout.contains(seen), "no {seen:?} in {stdout}");
    }
}

fn names_the_package() {
    let output = demo(&["--ndppd"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let expected = "The demo failed: `ndppd` is missing; on Debian: apt install ndppd";
    assert_eq!(stderr.trim(), expected);
}

/// Builds the demo, and runs it where the folders of programs are empty.
fn demo(arguments: &[&str]) -> Output {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent();
    let mut build = Command::new(env!("CARGO"));
    build.args([
        "test",
        "--locked",
        "--offline",
        "--no-run",
        "--test",
        "demo",
    ]);
    build.args(["--message-format", "json", "--target-dir"]);
    build.arg(target.expect("the target folder"));
    build.current_dir(env!("CARGO_MANIFEST_DIR"));
    let built = build.output().expect("cargo");
    let messages = String::from_utf8_lossy(&built.stdout);
    let mut programs = messages.lines().filter_map(|message| {
        let program = message
            .split_once("\"executable\":\"")?
            .1
            .split_once('"')?
            .0;
        program.contains("/deps/demo-").then(|| program.to_owned())
    });
    let program = programs.next();
    let program = program.unwrap_or_else(|| panic!("no demo was built: {built:?}"));

    // `unshare` affects the calling thread, so the demo gets a thread of its own.
    thread::scope(|scope| {
        let alone = scope.spawn(|| {
            hide_programs();
            let mut demo = Command::new(program);
            demo.args(arguments)
                .env("PATH", "/usr/bin")
                .output()
                .expect("the demo")
        });
        alone.join().expect("the thread does not panic")
    })
}

/// Mounts an empty folder over each folder of programs, for this thread and its children only.
fn hide_programs() {
    unshare(CloneFlags::CLONE_NEWNS).expect("the right to: call isolate() first");
    let nothing = None::<&str>;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(nothing, "/", nothing, private, nothing).expect("mounts of its own");
    for folder in PROGRAMS {
        // On most systems /bin is a link to /usr/bin.
        if fs::symlink_metadata(folder).is_ok_and(|found| found.is_dir()) {
            let flags = MsFlags::empty();
            mount(Some("none"), folder, Some("tmpfs"), flags, nothing).expect("an empty folder");
        }
    }
    assert!(lab::find_tool("ip").is_none() && lab::find_tool("sh").is_none());
}
