//! Texts of others on root's terminal: names of interfaces, and whoever answers in a daemon's
//! place.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use crate::lab::{Namespace, UPSTREAM, find_tool};
use crate::support::{SOON, spawn};

crate::tests![
    a_name_that_moves_the_cursor_is_shown_escaped,
    an_answer_that_moves_the_cursor_is_shown_escaped,
    an_answer_without_an_end_is_cut_off,
    an_answer_that_comes_octet_by_octet_is_waited_for_30_seconds,
];

/// Characters that a terminal shows.
fn is_plain(text: &[u8]) -> bool {
    let is_seen = |c: char| {
        let turns = matches!(c, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        c == '\n' || !c.is_control() && !turns
    };
    str::from_utf8(text).is_ok_and(|text| text.chars().all(is_seen))
}

#[track_caller]
fn expect_plain(text: &[u8]) {
    assert!(is_plain(text), "{:?}", String::from_utf8_lossy(text));
}

fn a_name_that_moves_the_cursor_is_shown_escaped() {
    // The C1 control U+009B begins what ESC [ begins.
    const C1: &str = "a\u{9b}2J\u{202e}\"\\";
    const SHOWN: &str = "a\\u009b2J\\u202e\"\\";
    let router = Namespace::new("rtr");
    let ip = find_tool("ip").expect("a tool of the lab");
    for name in [
        UPSTREAM.as_bytes(),
        C1.as_bytes(),
        b"\x1b[2J",
        b"b\xff\x9b2J",
    ] {
        let mut add = Command::new(&ip);
        add.args(["link", "add", "name"])
            .arg(OsStr::from_bytes(name));
        add.args(["type", "bridge"]);
        assert!(
            router.within(|| add.status()).expect("ip").success(),
            "{name:?}"
        );
    }
    let mldproxy = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mldproxy"));
        command.args(arguments);
        router.within(|| command.output()).expect("mldproxy")
    };
    let said = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();

    // The errors.
    let output = mldproxy(&["run", UPSTREAM, "nosuch"]);
    expect_plain(&output.stderr);
    assert!(said(&output).contains(SHOWN), "{}", said(&output));
    assert!(said(&output).contains("\\u001b[2J"), "{}", said(&output));
    assert!(said(&output).contains(", \u{fffd}"), "{}", said(&output));
    for arguments in [
        &["run", UPSTREAM, C1, C1][..],
        &["run", C1, "\x1b[2J"],
        &[
            "run",
            "--socket",
            "/\x1b[2J/\u{9b}",
            "--user",
            "\x1b[2J",
            UPSTREAM,
            C1,
        ],
        &["\x1b[2J"],
        &["status", "--socket", "/\x1b[2J/\u{9b}"],
        &["query", C1],
        &["check", UPSTREAM, C1, C1],
    ] {
        let output = mldproxy(arguments);
        assert!(!output.status.success(), "{arguments:?}");
        expect_plain(&output.stderr);
        assert!(
            said(&output).contains("\\u00"),
            "{arguments:?}: {}",
            said(&output)
        );
    }
    // The findings.
    let output = mldproxy(&["check", "--wait", "0", UPSTREAM, C1]);
    expect_plain(&output.stdout);
    let found = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(found.contains(SHOWN), "{found}");
    let output = mldproxy(&["check", "--wait", "0", "--json", UPSTREAM, C1]);
    expect_plain(&output.stdout);
    let found = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(found.contains("a\\u009b2J\\u202e\\\"\\\\"), "{found}");

    // The log, and what the daemon answers.
    let daemon = spawn(&router, &[], &[UPSTREAM, C1]);
    daemon.wait_for_line(&format!("waiting for {SHOWN}: "), SOON);
    for (question, expected) in [
        ("text 9\n", "downstream  a\\u009b2J\\u202e down"),
        ("json 9\n", "{\"interface\":\"a\\u009b2J\\u202e\\\"\\\\\","),
        (
            "metrics 9\n",
            ",downstream=\"a\\\\u009b2J\\\\u202e\\\"\\\\\"} 0\n",
        ),
    ] {
        let mut stream = UnixStream::connect(&router.control_socket).expect("a daemon");
        stream.write_all(question.as_bytes()).expect("a daemon");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("an answer");
        expect_plain(&answer);
        let answer = String::from_utf8(answer).expect("UTF-8");
        assert!(answer.contains(expected), "{answer}");
        let format = question.split(' ').next().expect("a word");
        let option = match format {
            "text" => "",
            "json" => "--json",
            _ => "--metrics",
        };
        // The command changes nothing in it.
        assert!(router.status(option).contains(expected), "{option}");
    }
    expect_plain(daemon.log().as_bytes());
}

/// `mldproxy status`, where somebody else answers.
fn status_of(router: &Namespace, answer: impl FnOnce(UnixStream) + Send) -> (Output, Duration) {
    let path = &router.control_socket;
    let listener = UnixListener::bind(path).expect("a socket");
    let (output, took) = thread::scope(|scope| {
        scope.spawn(|| {
            let (mut stream, _) = listener.accept().expect("a client");
            let _ = stream.read(&mut [0; 64]);
            answer(stream);
        });
        let began = Instant::now();
        let program = env!("CARGO_BIN_EXE_mldproxy");
        let output = router.try_run(&format!("{program} status --socket {path}"));
        (output, began.elapsed())
    });
    fs::remove_file(path).expect("our own socket");
    (output, took)
}

fn an_answer_that_moves_the_cursor_is_shown_escaped() {
    let router = Namespace::new("rtr");
    // Of each character that a piece breaks off, the next piece has the rest.
    let pieces: [&[u8]; 7] = [
        b"w\xc3",
        b"\xa4n \xe2\x80",
        b"\xa6 \xf0\x9f\x98",
        b"\x80 \x1b]0;title\x07\x1b[2J\x7f\t\r",
        b"\xc2",
        b"\x9b2J\x9b2J \xe2\x80\xae \xff \xf0\x9f",
        b"\n\"\\\n",
    ];
    let (output, _) = status_of(&router, |mut stream| {
        for piece in pieces {
            stream.write_all(piece).expect("a client");
        }
    });
    assert!(output.status.success(), "{output:?}");
    expect_plain(&output.stdout);
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "w\u{e4}n \u{2026} \u{1f600} \\u001b]0;title\\u0007\\u001b[2J\\u007f\\u0009\\u000d\
         \\u009b2J\u{fffd}2J \\u202e \u{fffd} \u{fffd}\n\"\\\n"
    );
}

fn an_answer_without_an_end_is_cut_off() {
    let router = Namespace::new("rtr");
    let (output, _) = status_of(&router, |mut stream| {
        let octets = [b'x'; 1 << 16];
        // Twice as much as the client takes is no end either.
        for _ in 0..512 {
            if stream.write_all(&octets).is_err() {
                break;
            }
        }
        let _ = stream.write_all(b"\n");
    });
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.len() <= 16 << 20, "{}", output.stdout.len());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.ends_with(".sock has no end\n"), "{said}");
}

fn an_answer_that_comes_octet_by_octet_is_waited_for_30_seconds() {
    let router = Namespace::new("rtr");
    let (output, took) = status_of(&router, |mut stream| {
        for _ in 0..40 {
            thread::sleep(Duration::from_secs(1));
            if stream.write_all(b".").is_err() {
                break;
            }
        }
    });
    assert_eq!(output.status.code(), Some(1));
    assert!((30..35).contains(&took.as_secs()), "{took:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.ends_with(".sock takes too long\n"), "{said}");
}
