//! The plugin for rpcd under busybox's shell, with stubs in place of the program and of jsonfilter.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::router::{MLDPROXY, find_tool, install_jsonfilter, read};

crate::tests![
    the_plugin_lists_its_methods_with_their_arguments,
    status_answers_without_lists,
    streams_neighbors_and_groups_answer_with_one_part,
    what_is_no_mld_proxy_has_no_streams,
    the_plugin_asks_an_instance_by_its_name,
    the_plugin_answers_an_error_as_an_object,
    the_plugin_turns_any_complaint_into_json,
    check_looks_at_the_interfaces_of_the_instance,
    prove_sends_on_the_upstream_of_the_instance,
    without_an_instance_the_program_looks_for_the_interfaces,
];

/// Runs the plugin with a program that prints `ANSWER`, or fails with a complaint, or is mldproxy
/// itself. Returns the output of the plugin and the arguments of the program.
pub fn plugin(arguments: &[&str], question: &str, complaint: &str) -> (String, String) {
    plugin_of(arguments, question, complaint, ANSWER)
}

/// As [`plugin`], with a program that prints this answer.
fn plugin_of(
    arguments: &[&str],
    question: &str,
    complaint: &str,
    printed: &str,
) -> (String, String) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("rpcd-{}-{number}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let program = |name: &str, text: &str| -> PathBuf {
        let path = folder.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    };
    let asked = folder.join("asked");
    let answer = folder.join("answer");
    fs::write(&answer, format!("{printed}\n")).unwrap();
    let end = match complaint {
        "" => format!("cat {}", answer.display()),
        MLDPROXY => format!("exec {MLDPROXY} \"$@\""),
        complaint => format!("echo '{complaint}' >&2; exit 1"),
    };
    let mldproxy = program(
        "mldproxy",
        &format!("#!/bin/sh\necho \"$@\" >{}\n{end}\n", asked.display()),
    );
    install_jsonfilter(&folder);
    let script = read("openwrt/mldproxy/files/mldproxy.rpcd");
    let installed = "PROG=/usr/sbin/mldproxy\n";
    assert!(script.contains(installed));
    let script = script.replace(installed, &format!("PROG={}\n", mldproxy.display()));
    let path = std::env::var("PATH").unwrap();
    let mut child = Command::new(find_tool("busybox").unwrap())
        .arg("ash")
        .arg(program("plugin", &script))
        .args(arguments)
        .env("PATH", format!("{}:{path}", folder.display()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // `list` reads nothing.
    let _ = child.stdin.take().unwrap().write_all(question.as_bytes());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let asked = fs::read_to_string(asked).unwrap_or_default();
    fs::remove_dir_all(&folder).unwrap();
    (String::from_utf8(output.stdout).unwrap(), asked)
}

const ANSWER: &str = concat!(
    r#"{"version":"1.2.3","multicast":{"streams":{"count":3,"list":[3]}},"#,
    r#""neighbors":{"count":1,"list":[1]},"groups":{"count":2,"list":[2]}}"#
);
/// What an MLD proxy's answer has.
const STREAMS: &str = r#"{"streams":{"count":3,"list":[3]}}"#;

fn the_plugin_lists_its_methods_with_their_arguments() {
    let (list, asked) = plugin(&["list"], "", "");
    assert_eq!(
        list,
        "{ \"status\": { \"name\": \"string\" }, \"streams\": { \"name\": \"string\" }, \
         \"neighbors\": { \"name\": \"string\" }, \
         \"upstream_neighbors\": { \"name\": \"string\" }, \"groups\": { \"name\": \"string\" }, \
         \"check\": { \"name\": \"string\" }, \"prove\": { \"name\": \"string\" } }\n"
    );
    assert_eq!(asked, "");
}

fn status_answers_without_lists() {
    let (answer, asked) = plugin(&["call", "status"], "{}", "");
    assert_eq!(answer, format!("{ANSWER}\n"));
    assert_eq!(asked, "status --json --limit 0\n");
}

fn streams_neighbors_and_groups_answer_with_one_part() {
    let (answer, asked) = plugin(&["call", "streams"], "{}", "");
    assert_eq!(answer, "{\"count\":3,\"list\":[3]}\n");
    assert_eq!(asked, "status --json --limit 300\n");
    let (answer, asked) = plugin(&["call", "neighbors"], "{}", "");
    assert_eq!(answer, "{\"count\":1,\"list\":[1]}\n");
    assert_eq!(asked, "status --json --limit 1000\n");
    let (answer, asked) = plugin(&["call", "groups"], "{}", "");
    assert_eq!(answer, "{\"count\":2,\"list\":[2]}\n");
    assert_eq!(asked, "status --json --limit 2000\n");
}

fn what_is_no_mld_proxy_has_no_streams() {
    let answer = ANSWER.replace(STREAMS, "null");
    assert_ne!(answer, ANSWER);
    let (answer, _) = plugin_of(&["call", "streams"], "{}", "", &answer);
    assert_eq!(answer, "{ }\n");
}

fn the_plugin_asks_an_instance_by_its_name() {
    let (_, asked) = plugin(&["call", "status"], r#"{"name":"main"}"#, "");
    assert_eq!(asked, "status --json --limit 0 -- main\n");
    let (_, asked) = plugin(&["call", "status"], r#"{"name":"--watch $(reboot)"}"#, "");
    assert_eq!(asked, "status --json --limit 0 -- --watch $(reboot)\n");
}

fn the_plugin_answers_an_error_as_an_object() {
    for method in ["status", "streams", "neighbors", "groups", "check", "prove"] {
        let (answer, _) = plugin(&["call", method], "{}", "mldproxy: \"main\" does not run");
        assert_eq!(answer.trim_end(), "{ \"error\": \"main does not run\" }");
    }
}

fn the_plugin_turns_any_complaint_into_json() {
    for name in ["nosuch", "a/b", "\\u0022, \\u005c\\u000a\\u00e9"] {
        let question = format!("{{\"name\":\"{name}\"}}");
        let (answer, _) = plugin(&["call", "status"], &question, MLDPROXY);
        let message = answer
            .strip_prefix("{ \"error\": \"")
            .and_then(|rest| rest.strip_suffix("\" }\n"));
        let message = message.unwrap_or_else(|| panic!("{answer}"));
        assert!(!message.starts_with("mldproxy: "), "{answer}");
        assert!(!message.contains(['"', '\\', '\n']), "{answer}");
    }
}

/// The program of these tests answers the question for the status and that for the findings alike.
const FINDINGS: &str = concat!(
    r#"{"findings":[],"exit":0,"upstream":{"interface":"pppoe-wan"},"#,
    r#""downstreams":[{"interface":"br-lan"},{"interface":"br-*"}]}"#
);

fn check_looks_at_the_interfaces_of_the_instance() {
    let (answer, asked) = plugin_of(&["call", "check"], "{}", "", FINDINGS);
    assert_eq!(answer, format!("{FINDINGS}\n"));
    assert_eq!(asked, "check --json -- pppoe-wan br-lan br-*\n");
}

fn prove_sends_on_the_upstream_of_the_instance() {
    let (answer, asked) = plugin_of(&["call", "prove"], r#"{"name":"main"}"#, "", FINDINGS);
    assert_eq!(answer, format!("{FINDINGS}\n"));
    assert_eq!(asked, "check --prove --json -- pppoe-wan\n");
}

fn without_an_instance_the_program_looks_for_the_interfaces() {
    let found = r#"{"findings":[],"exit":0}"#;
    for (method, expected) in [
        ("check", "check --json\n"),
        ("prove", "check --prove --json\n"),
    ] {
        let (answer, asked) = plugin_of(&["call", method], "{}", "", found);
        assert_eq!(answer, format!("{found}\n"));
        assert_eq!(asked, expected);
    }
}
