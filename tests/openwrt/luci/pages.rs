//! The views in a browser. Each test is on a wide light page beside a narrow dark one.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use super::browser::{FRAMES, OTHER_FRAMES, Page, json};
use super::recordings::{self, Answers};
use super::translations;
use crate::options;
use crate::router::{read, shipped_after};

crate::tests![
    without_hosts_the_page_says_what_to_do,
    three_hosts_are_drawn_by_their_states,
    the_page_fits_in_japanese,
    a_thousand_hosts_have_pages_and_a_search,
    a_stream_is_shown_with_where_it_goes,
    two_instances_have_a_tab_each,
    a_service_that_is_stopped_is_told,
    a_daemon_that_does_not_answer_is_told,
    a_missing_plugin_is_told,
    check_shows_each_finding_with_what_to_do,
    prove_asks_before_it_sends_and_tells_the_verdict,
    who_may_only_read_cannot_send,
    names_and_findings_are_never_html,
    every_option_has_a_field_with_the_default_of_the_program,
    short_forms_are_told_with_the_commands_that_end_them,
];

const STATUS: &str = "view.mldproxy.status";
const SETTINGS: &str = "view.mldproxy.settings";
const HOST_NAME: &str = "Guest’s phone";
/// Of the lab's silent host.
const SILENT_MAC: &str = "02:00:00:00:77:01";

fn page<'p>(check: &'p str, answers: String) -> Page<'p> {
    Page {
        name: check,
        view: STATUS,
        check,
        answers,
        config: shipped_after(&[]),
        has_plugin: true,
        may_write: true,
        translations: "null".to_owned(),
        host_name: HOST_NAME,
    }
}

/// Answers for instances by their names, with the services that procd has for them, and with the
/// name of a host.
fn answers_of(instances: &[(&str, &Answers)], host_name: &str) -> String {
    let mut methods: Vec<&str> = Vec::new();
    for (method, _) in instances.iter().flat_map(|(_, answers)| *answers) {
        if !methods.contains(method) {
            methods.push(method);
        }
    }
    let running = instances
        .iter()
        .map(|(name, _)| format!("{}:{{\"running\":true}}", json(name)));
    let running: Vec<String> = running.collect();
    let mut all = vec![
        format!(
            "\"service.list\":{{\"\":{{\"mldproxy\":{{\"instances\":{{{}}}}}}}}}",
            running.join(",")
        ),
        format!(
            "\"luci-rpc.getHostHints\":{{\"\":{{{}:{{\"name\":{}}}}}}}",
            json(&SILENT_MAC.to_uppercase()),
            json(host_name)
        ),
    ];
    for method in methods {
        let of = |(name, answers): &(&str, &Answers)| {
            let (_, answer) = answers.iter().find(|(known, _)| *known == method)?;
            Some(format!("{}:{}", json(name), answer.trim_end()))
        };
        let by_name: Vec<String> = instances.iter().filter_map(of).collect();
        all.push(format!("\"mldproxy.{method}\":{{{}}}", by_name.join(",")));
    }
    format!("{{{}}}", all.join(","))
}

fn answers(recorded: &Answers) -> String {
    answers_of(&[("main", recorded)], HOST_NAME)
}

/// The answers of a service without instances.
fn stopped() -> String {
    let answers = &recordings::ENDED;
    let (_, error) = answers.iter().find(|(name, _)| *name == "status").unwrap();
    format!("{{\"service.list\":{{\"\":{{}}}},\"mldproxy.status\":{{\"\":{error}}}}}")
}

fn without_hosts_the_page_says_what_to_do() {
    page("no_hosts", answers(&recordings::NONE)).show(FRAMES);
}

fn three_hosts_are_drawn_by_their_states() {
    let mut page = page("three_hosts", answers(&recordings::THREE));
    page.show(FRAMES);
    page.name = "three_hosts_other";
    page.show(OTHER_FRAMES);
}

fn the_page_fits_in_japanese() {
    let mut page = page("translated", answers(&recordings::THREE));
    page.translations = translations::as_json("ja");
    page.show(FRAMES);
    page.name = "translated_settings";
    page.view = SETTINGS;
    page.check = "anything";
    page.show(FRAMES);
}

fn a_thousand_hosts_have_pages_and_a_search() {
    page("thousand_hosts", answers(&recordings::THOUSAND)).show(FRAMES);
}

fn a_stream_is_shown_with_where_it_goes() {
    page("streams", answers(&recordings::STREAMS)).show(FRAMES);
}

fn two_instances_have_a_tab_each() {
    let (first, second) = (&*recordings::THREE, &*recordings::STREAMS);
    let answers = answers_of(&[("main", first), ("tv", second)], HOST_NAME);
    page("two_instances", answers).show(FRAMES);
}

fn a_service_that_is_stopped_is_told() {
    page("stopped", stopped()).show(FRAMES);
}

fn a_daemon_that_does_not_answer_is_told() {
    page("silent", answers(&recordings::ENDED)).show(FRAMES);
}

fn a_missing_plugin_is_told() {
    let mut page = page("without_plugin", stopped());
    page.has_plugin = false;
    page.show(FRAMES);
}

fn check_shows_each_finding_with_what_to_do() {
    page("check_finds", answers(&recordings::NONE)).show(FRAMES);
}

fn prove_asks_before_it_sends_and_tells_the_verdict() {
    let mut recorded = recordings::THREE.clone();
    recorded.extend(recordings::PROOF.iter().cloned());
    page("prove_asks", answers(&recorded)).show(FRAMES);
    page("prove_tells", answers(&recorded)).show(FRAMES);
}

fn who_may_only_read_cannot_send() {
    let mut page = page("only_reading", answers(&recordings::THREE));
    page.may_write = false;
    page.show(FRAMES);
}

/// Hosts choose their names, and some of their names stand in findings.
fn names_and_findings_are_never_html() {
    const TAG: &str = "<img src=x onerror=alert(1)>";
    let quoted = json(TAG).trim_matches('"').to_owned();
    let check = recordings::NONE
        .iter()
        .filter(|(method, _)| *method == "check");
    let mut recorded = recordings::THREE.clone();
    recorded.extend(check.cloned());
    for (method, answer) in &mut recorded {
        *answer = match *method {
            "check" => answer.replace("IPv6 is forwarded", &quoted),
            _ => answer.replace("br-lan", &quoted),
        };
    }
    page("hostile", answers_of(&[("main", &recorded)], TAG)).show(FRAMES);
}

/// The answers that the settings need.
static NETWORKS: LazyLock<String> = LazyLock::new(|| {
    let network = |name, device| {
        format!(
            "{{\"interface\":{},\"l3_device\":{}}}",
            json(name),
            json(device)
        )
    };
    format!(
        "{{\"network.interface.dump\":{{\"\":{{\"interface\":[{},{},{}]}}}}}}",
        network("loopback", "lo"),
        network("lan", "br-lan"),
        network("wan6", "eth1")
    )
});

fn every_option_has_a_field_with_the_default_of_the_program() {
    let mut page = page("settings", NETWORKS.clone());
    page.view = SETTINGS;
    let [lines, _] = page.show(FRAMES);

    let fields: Vec<Vec<&str>> = lines
        .iter()
        .filter_map(|line| line.strip_prefix("option\t"))
        .map(|line| line.split('\t').collect())
        .collect();
    let config = read("openwrt/mldproxy/files/mldproxy.config");
    let known: BTreeSet<&str> = options::names(&config).into_keys().collect();
    let shown: BTreeSet<&str> = fields.iter().map(|field| field[0]).collect();
    assert_eq!(shown, known);
    assert_eq!(fields.len(), known.len(), "an option has two fields");

    let mut compared = 0;
    let defaults = options::defaults();
    for field in fields {
        let [name, kind, standard, datatype] = field[..] else {
            panic!("{field:?}");
        };
        let is_list = config.contains(&format!("\t#list {name} "));
        assert_eq!(kind == "DynamicList", is_list, "{name} is a {kind}");
        match (defaults.get(name), kind) {
            (Some(default), _) => {
                assert_eq!(standard, default, "{name}");
                compared += 1;
            }
            // The comment of a switch names its default.
            (None, "Flag") => {
                let (before, _) = config.split_once(&format!("\t#option {name} ")).unwrap();
                let default = format!("Default {standard}.\n");
                assert!(before.ends_with(&default), "{name}: {default}");
            }
            (None, _) => {}
        }
        if standard.parse::<u32>().is_ok() && kind == "Value" {
            assert!(
                datatype.starts_with("uinteger") || datatype.starts_with("range"),
                "{name}"
            );
        }
    }
    assert_eq!(compared, defaults.len());
}

fn short_forms_are_told_with_the_commands_that_end_them() {
    let mut page = page("short_forms", NETWORKS.clone());
    page.view = SETTINGS;
    page.config = shipped_after(&[
        "mldproxy.main.enabled=1",
        "mldproxy.enabled=1",
        "mldproxy.upstream=wan6",
    ]);
    page.show(FRAMES);
}
