//! Short forms such as `uci set mldproxy.upstream=wan`, which makes a section named upstream of
//! type wan.

use crate::router::{Outcome, Router, shipped_after};

crate::tests![
    main_takes_the_upstream_from_its_short_form,
    main_takes_the_downstream_from_its_short_form,
    main_takes_enabled_from_its_short_form,
    main_takes_all_three_from_their_short_forms,
    an_option_wins_over_its_short_form,
    equal_forms_do_not_conflict,
    the_option_enabled_wins_over_its_short_form,
    the_service_names_a_wrong_short_form_of_enabled,
    short_forms_alone_make_an_instance,
    the_service_logs_no_short_form_while_nothing_is_enabled,
    short_forms_do_not_reach_other_sections,
    an_instance_may_be_called_upstream,
    the_service_names_an_unknown_short_form,
];

fn start(settings: &[&str]) -> Outcome {
    Router::new(&shipped_after(settings)).run("start")
}

fn main_takes_the_upstream_from_its_short_form() {
    let outcome = start(&["mldproxy.upstream=wan", "mldproxy.main.enabled=1"]);
    assert_eq!(outcome.arguments("main"), ["--", "pppoe-wan", "br-lan"]);
    assert_eq!(outcome.log(), ["info: main: mldproxy.upstream=wan is used"]);
}

fn main_takes_the_downstream_from_its_short_form() {
    let outcome = start(&[
        "mldproxy.main.upstream=wan",
        "mldproxy.downstream=guest",
        "mldproxy.main.enabled=1",
    ]);
    assert_eq!(outcome.arguments("main"), ["--", "pppoe-wan", "br-guest"]);
    assert_eq!(
        outcome.log(),
        ["info: main: mldproxy.downstream=guest is used"]
    );
}

fn main_takes_enabled_from_its_short_form() {
    let outcome = start(&["mldproxy.main.upstream=wan", "mldproxy.enabled=1"]);
    assert_eq!(outcome.arguments("main"), ["--", "pppoe-wan", "br-lan"]);
    assert_eq!(outcome.log(), ["info: main: mldproxy.enabled=1 is used"]);
}

fn main_takes_all_three_from_their_short_forms() {
    let outcome = start(&[
        "mldproxy.upstream=wan",
        "mldproxy.downstream=lan",
        "mldproxy.enabled=1",
    ]);
    assert_eq!(outcome.instances(), ["main"]);
    assert_eq!(outcome.arguments("main"), ["--", "pppoe-wan", "br-lan"]);
    assert_eq!(outcome.log().len(), 3);
}

fn an_option_wins_over_its_short_form() {
    let outcome = start(&[
        "mldproxy.main.upstream=wan",
        "mldproxy.upstream=lan",
        "mldproxy.main.downstream=lan",
        "mldproxy.downstream=guest",
        "mldproxy.main.enabled=1",
    ]);
    assert_eq!(outcome.arguments("main"), ["--", "pppoe-wan", "br-lan"]);
    assert_eq!(
        outcome.log(),
        [
            "warning: main: mldproxy.upstream=lan is ignored, mldproxy.main.upstream=wan is used",
            "warning: main: mldproxy.downstream=guest is ignored, \
             mldproxy.main.downstream=lan is used",
        ]
    );
}

fn equal_forms_do_not_conflict() {
    let outcome = start(&[
        "mldproxy.main.upstream=wan",
        "mldproxy.upstream=wan",
        "mldproxy.main.enabled=1",
        "mldproxy.enabled=1",
    ]);
    assert_eq!(outcome.instances(), ["main"]);
    assert_eq!(outcome.log(), [""; 0]);
}

fn the_option_enabled_wins_over_its_short_form() {
    let outcome = start(&[
        "mldproxy.main.upstream=wan",
        "mldproxy.main.enabled=0",
        "mldproxy.enabled=1",
    ]);
    assert_eq!(outcome.instances(), [""; 0]);
    assert_eq!(
        outcome.log(),
        ["warning: main: mldproxy.enabled=1 is ignored, mldproxy.main.enabled=0 is used"]
    );
    let outcome = start(&[
        "mldproxy.main.upstream=wan",
        "mldproxy.main.enabled=1",
        "mldproxy.enabled=0",
    ]);
    assert_eq!(outcome.instances(), ["main"]);
    assert_eq!(
        outcome.log(),
        ["warning: main: mldproxy.enabled=0 is ignored, mldproxy.main.enabled=1 is used"]
    );
}

fn the_service_names_a_wrong_short_form_of_enabled() {
    let outcome = start(&["mldproxy.main.upstream=wan", "mldproxy.enabled=maybe"]);
    assert_eq!(outcome.instances(), [""; 0]);
    assert_eq!(
        outcome.log(),
        [
            "info: main: mldproxy.enabled=maybe is used",
            "err: main: not started: enabled is 'maybe', neither 0 nor 1",
        ]
    );
}

fn short_forms_alone_make_an_instance() {
    let config = "config wan 'upstream'\n\nconfig 1 'enabled'\n";
    let outcome = Router::new(config).run("start");
    assert_eq!(outcome.instances(), ["main"]);
    assert_eq!(outcome.arguments("main"), ["--", "pppoe-wan", "br-lan"]);

    let outcome = Router::new("config wan 'upstream'\n").run("start");
    assert_eq!(outcome.instances(), [""; 0]);
    assert_eq!(outcome.log(), [""; 0]);
}

fn the_service_logs_no_short_form_while_nothing_is_enabled() {
    let outcome = start(&["mldproxy.upstream=wan"]);
    assert_eq!(outcome.instances(), [""; 0]);
    assert_eq!(outcome.triggers(), [""; 0]);
    assert_eq!(outcome.log(), [""; 0]);
}

fn short_forms_do_not_reach_other_sections() {
    let config = "config mldproxy 'home'\n\toption enabled '1'\n\nconfig wan 'upstream'\n";
    let outcome = Router::new(config).run("start");
    assert_eq!(outcome.instances(), [""; 0]);
    assert_eq!(
        outcome.log(),
        [
            "warning: short forms such as mldproxy.upstream are ignored: there is no section main",
            "err: home: not started: no upstream is set (uci set mldproxy.home.upstream=wan)",
        ]
    );
}

fn an_instance_may_be_called_upstream() {
    let config = "config mldproxy 'upstream'\n\toption enabled '1'\n\toption upstream 'wan'\n";
    let outcome = Router::new(config).run("start");
    assert_eq!(outcome.instances(), ["upstream"]);
    assert_eq!(outcome.log(), [""; 0]);
}

fn the_service_names_an_unknown_short_form() {
    let outcome = start(&[
        "mldproxy.main.upstream=wan",
        "mldproxy.main.enabled=1",
        "mldproxy.per_mac=10",
    ]);
    assert_eq!(outcome.arguments("main"), ["--", "pppoe-wan", "br-lan"]);
    assert_eq!(
        outcome.log(),
        ["warning: mldproxy.per_mac=10 is ignored: \
             an instance is a section of type mldproxy, and there is no such short form"]
    );
}
