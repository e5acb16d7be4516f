//! Hostile values, made to mislead the shell, the program or OpenWrt's own functions.

use crate::router::Router;

crate::tests![
    a_value_never_becomes_another_argument,
    the_shell_never_runs_a_value,
    the_shell_never_expands_a_value_to_file_names,
    the_service_refuses_names_that_no_interface_can_have,
    a_device_called_help_is_a_device,
    a_missing_configuration_starts_nothing,
];

/// A text in single quotes, as UCI writes it.
fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}

/// A router whose section main has this option.
fn with(option: &str, value: &str) -> Router {
    Router::new(&main_with(option, value))
}

fn main_with(option: &str, value: &str) -> String {
    let value = quoted(value);
    format!(
        "config mldproxy 'main'\n\toption enabled '1'\n\toption upstream 'wan'\n\
         \toption {option} {value}\n"
    )
}

fn a_value_never_becomes_another_argument() {
    for value in [
        "64 --no-ask",
        "--no-ask",
        "64\n--no-ask",
        " ",
        "6'4",
        "6\"4",
        "\\",
    ] {
        let outcome = with("per_mac", value).run("start");
        assert_eq!(outcome.instances(), [""; 0], "{value}");
        let log = outcome.log();
        assert_eq!(log.len(), 1, "{value}: {log:?}");
        let named = format!("'--per-mac' with value '{value}'");
        assert!(log[0].contains(&named), "{log:?}");
    }
    for value in ["--no-ask", "2000::/3 --no-ask"] {
        let outcome = with("prefix", value).run("start");
        assert_eq!(outcome.instances(), [""; 0], "{value}");
        let log = outcome.log();
        assert!(
            log[0].contains("'--prefix' with value '--no-ask'"),
            "{log:?}"
        );
    }
}

fn the_shell_never_runs_a_value() {
    for option in [
        "per_mac",
        "prefix",
        "learn",
        "downstream",
        "upstream",
        "enabled",
        "ask",
        "ndp_proxy",
        "mld_proxy",
        "scope",
        "table",
        "allow",
        "senders",
    ] {
        for value in [
            "$(>ran)",
            "`>ran`",
            "1; >ran",
            "\"; >ran; \"",
            "'; >ran; '",
            "x}\"; >ran; \"",
            "1\n>ran",
        ] {
            // An option that stands twice has the value of its last line.
            let main = main_with(option, value);
            let main = main.replacen("\toption", "\toption mld_proxy '1'\n\toption", 1);
            let router = Router::new(&main);
            let outcome = router.run("start");
            assert_eq!(outcome.instances(), [""; 0], "{option} {value}");
            assert_eq!(outcome.log().len(), 1, "{option} {value}");
            assert!(!router.has("ran"), "{option} {value}");
        }
    }
}

fn the_shell_never_expands_a_value_to_file_names() {
    // The pattern matches files in the script's folder.
    let outcome = with("exclude", "*").run("start");
    let log = outcome.log();
    assert_eq!(log.len(), 1, "{log:?}");
    assert!(log[0].contains("'--exclude' with value '*'"), "{log:?}");
    let outcome = with("downstream", "b*").run("start");
    assert_eq!(
        outcome.log(),
        ["err: main: not started: 'b*' is not the name of a network or a device"]
    );
}

fn the_service_refuses_names_that_no_interface_can_have() {
    for option in ["upstream", "downstream"] {
        for name in ["-x", "--no-ask", "-", "a/b", "a:1", "é"] {
            let outcome = with(option, name).run("start");
            assert_eq!(outcome.instances(), [""; 0], "{option} {name}");
            let expected = format!(
                "err: main: not started: '{name}' is not the name of a network or a device"
            );
            assert_eq!(outcome.log(), [expected]);
        }
    }
}

fn a_device_called_help_is_a_device() {
    // Elsewhere on the command line the word asks for help, and the program would exit at once each
    // time.
    let outcome = with("downstream", "help").run("start");
    assert_eq!(outcome.arguments("main"), ["--", "pppoe-wan", "help"]);
}

fn a_missing_configuration_starts_nothing() {
    let router = with("learn", "both");
    router.remove("etc/config/mldproxy");
    let outcome = router.run("start");
    assert_eq!(outcome.instances(), [""; 0]);
    assert_eq!(outcome.log(), [""; 0]);
}
