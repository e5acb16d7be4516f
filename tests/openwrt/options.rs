//! The options of a section, and the command line that the init script makes of them.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use crate::router::{MLDPROXY, Router, read, shipped_after};

crate::tests![
    the_shipped_configuration_starts_and_logs_nothing,
    three_uci_lines_are_enough,
    every_option_reaches_the_command_line,
    procd_learns_the_type_of_every_option,
    procd_gets_the_user_in_a_jail_and_the_program_without_one,
    every_flag_of_the_program_has_an_option,
    the_examples_are_valid_and_name_the_defaults,
    an_option_with_spaces_serves_as_a_list,
    a_switch_may_be_a_word,
    the_service_names_a_wrong_value,
    the_service_names_a_wrong_switch,
    the_service_logs_one_line_without_an_upstream,
];

/// Each option except enabled, upstream and downstream, with a value other than its default and the
/// arguments that the script makes of it.
const OPTIONS: &[(&str, &str, &str)] = &[
    ("option address_timeout", "600", "--address-timeout 600"),
    ("option refresh_interval", "0", "--refresh-interval 0"),
    ("option expiry_interval", "20", "--expiry-interval 20"),
    ("option learn", "ndp", "--learn ndp"),
    ("option per_mac", "16", "--per-mac 16"),
    ("option join_rate", "10", "--join-rate 10"),
    ("option join_burst", "20", "--join-burst 20"),
    ("option mld_version", "2", "--mld-version 2"),
    ("option log_level", "debug", "--log-level debug"),
    ("list prefix", "2001:db8::/64", "--prefix 2001:db8::/64"),
    ("list prefix", "2001:db8:1::/64", "--prefix 2001:db8:1::/64"),
    (
        "list exclude",
        "2001:db8::f000/116",
        "--exclude 2001:db8::f000/116",
    ),
    (
        "list exclude",
        "2001:db8:1::/96",
        "--exclude 2001:db8:1::/96",
    ),
    ("option ask", "0", "--no-ask"),
    ("option probe", "0", "--no-probe"),
    ("option host_routes", "1", "--host-routes"),
    ("option announce", "1", "--announce"),
    ("option ndp_proxy", "1", "--ndp-proxy"),
    ("option mld_proxy", "1", "--mld-proxy"),
    ("option scope", "site", "--scope site"),
    ("option querier", "v1", "--querier v1"),
    ("option query_interval", "60", "--query-interval 60"),
    ("option robustness", "3", "--robustness 3"),
    (
        "option last_listener_interval",
        "0.1",
        "--last-listener-interval 0.1",
    ),
    ("option max_groups", "1000", "--max-groups 1000"),
    ("option max_sources", "8", "--max-sources 8"),
    ("option table", "100", "--table 100"),
    ("option forward", "always", "--forward always"),
    ("list allow", "ff3e::/16", "--allow ff3e::/16"),
    ("list allow", "ff05::/16", "--allow ff05::/16"),
    ("list deny", "ff3e:1::/32", "--deny ff3e:1::/32"),
    ("list deny", "ff3e:2::/32", "--deny ff3e:2::/32"),
    ("option fast_leave", "1", "--fast-leave"),
    ("option senders", "1", "--senders"),
];

/// The option that does not reach the command line in a jail.
const USER: &str = "user";

/// The options in a configuration with their values, those in comments included.
pub fn names(config: &str) -> BTreeMap<&str, &str> {
    let options = config.lines().filter_map(|line| {
        let line = line.trim_start().trim_start_matches('#');
        let rest = line
            .strip_prefix("option ")
            .or_else(|| line.strip_prefix("list "))?;
        let (name, value) = rest.split_once(' ').expect("a value");
        Some((name, value.trim_matches('\'')))
    });
    options.collect()
}

/// The flags that only the init script sets.
const OF_THE_SERVICE: &[&str] = &["syslog", "wait", "name", "socket", "test"];

/// The flags of `mldproxy run` with their descriptions, from its help.
fn flags() -> BTreeMap<String, String> {
    let output = Command::new(MLDPROXY).args(["run", "--help"]).output();
    let help = String::from_utf8(output.unwrap().stdout).unwrap();
    let (_, options) = help.split_once("\nOptions:\n").expect("options");
    let (options, _) = options.split_once("\n\n").expect("an end");
    let mut flags = BTreeMap::new();
    let mut last = String::new();
    for word in options.split_whitespace() {
        if let Some(name) = word.strip_prefix("--") {
            name.trim_end_matches(',').clone_into(&mut last);
            flags.insert(last.clone(), String::new());
        } else {
            flags.get_mut(&last).expect("a flag").push_str(word);
            flags.get_mut(&last).expect("a flag").push(' ');
        }
    }
    assert!(flags.remove("help").is_some(), "{options}");
    flags
}

/// The default of each option that has one in the program's help.
pub fn defaults() -> BTreeMap<String, String> {
    let named = flags().into_iter().filter_map(|(flag, description)| {
        let (_, rest) = description.split_once("(default ")?;
        let (default, _) = rest.split_once(')').expect("an end");
        let is_option = !OF_THE_SERVICE.contains(&&*flag);
        is_option.then(|| (option_of(&flag), default.to_owned()))
    });
    named.collect()
}

/// The option of a section for a flag.
fn option_of(flag: &str) -> String {
    flag.trim_start_matches("no-").replace('-', "_")
}

fn the_shipped_configuration_starts_and_logs_nothing() {
    let router = Router::new(&shipped_after(&[]));
    let outcome = router.run("start");
    assert_eq!(outcome.instances(), [""; 0]);
    assert_eq!(outcome.log(), [""; 0]);
    assert_eq!(outcome.triggers(), [""; 0]);
    assert_eq!(outcome.of("procd_add_reload_trigger"), [["mldproxy"]]);
}

fn three_uci_lines_are_enough() {
    let settings = ["mldproxy.main.upstream=wan", "mldproxy.main.enabled=1"];
    let outcome = Router::new(&shipped_after(&settings)).run("restart");
    assert_eq!(outcome.instances(), ["main"]);
    assert_eq!(outcome.arguments("main"), ["--", "pppoe-wan", "br-lan"]);
    assert_eq!(outcome.log(), [""; 0]);
}

fn every_option_reaches_the_command_line() {
    // The program refuses options for confirmed hosts together with no-ask and no-probe.
    let of_proxy = |(option, ..): &&(&str, &str, &str)| {
        ["host_routes", "announce", "ndp_proxy"].contains(&option.trim_start_matches("option "))
    };
    let (proxy, others): (Vec<_>, Vec<_>) = OPTIONS.iter().partition(of_proxy);
    for options in [proxy, others] {
        let mut config =
            "config mldproxy 'main'\n\toption enabled '1'\n\toption upstream 'wan'\n".to_owned();
        for downstream in ["lan", "guest"] {
            config += &format!("\tlist downstream '{downstream}'\n");
        }
        let mut expected = Vec::new();
        for (option, value, arguments) in options {
            config += &format!("\t{option} '{value}'\n");
            expected.extend(arguments.split(' '));
        }
        expected.extend(["--", "pppoe-wan", "br-lan", "br-guest"]);
        let outcome = Router::new(&config).run("start");
        assert_eq!(outcome.arguments("main"), expected, "{:?}", outcome.log());
    }
}

fn procd_learns_the_type_of_every_option() {
    let shipped = read("openwrt/mldproxy/files/mldproxy.config");
    let is_list = |option: &str| shipped.contains(&format!("#list {option} "));
    let is_switch = |option: &str| {
        let lines = shipped.lines().filter(|line| line.starts_with("\t# 1 "));
        let comments = lines.filter(|comment| {
            let (_, after) = shipped.split_once(*comment).unwrap();
            let (_, after) = after.split_once("\t#option ").unwrap();
            after.starts_with(&format!("{option} "))
        });
        comments.count() > 0
    };
    let outcome = Router::new(&shipped).run("start");
    let told = outcome.of("procd_add_validation");
    let mut names = BTreeSet::new();
    for line in told[0][0].lines() {
        let (option, kind) = line.split_once(' ').unwrap();
        let expected = match option {
            _ if is_list(option) => "list(string)",
            _ if is_switch(option) => "bool",
            _ => "string",
        };
        assert_eq!(kind, expected, "{option}");
        names.insert(option);
    }
    let documented: BTreeSet<&str> = self::names(&shipped).into_keys().collect();
    assert_eq!(names, documented);
}

fn procd_gets_the_user_in_a_jail_and_the_program_without_one() {
    let settings = [
        "mldproxy.main.upstream=wan",
        "mldproxy.main.user=daemon",
        "mldproxy.main.enabled=1",
    ];
    let plain = ["--", "pppoe-wan", "br-lan"];
    let outcome = Router::new(&shipped_after(&settings)).run("start");
    assert_eq!(outcome.log(), [""; 0]);
    assert_eq!(outcome.arguments("main"), plain);
    let users = outcome.instance("main").iter();
    let users: Vec<_> = users.filter(|call| call[1] == USER).collect();
    assert_eq!(users, [&["procd_set_param", USER, "daemon"]]);

    let without_jail = Router::new(&shipped_after(&settings)).without_jail();
    let outcome = without_jail.run("start");
    assert_eq!(outcome.log(), [""; 0]);
    let expected = [&["--user", "daemon"], &plain[..]].concat();
    assert_eq!(outcome.arguments("main"), expected);

    // Another test checks the default user.
    for value in ["nosuchuser", "--no-ask", "nobody nobody", "$(>ran)"] {
        let user = format!("mldproxy.main.user={value}");
        let settings = [settings[0], &user, settings[2]];
        for router in [
            Router::new(&shipped_after(&settings)),
            Router::new(&shipped_after(&settings)).without_jail(),
        ] {
            let outcome = router.run("start");
            assert_eq!(outcome.instances(), [""; 0], "{value}");
            let reason = format!("error: --user {value}: there is no such user");
            assert_eq!(outcome.error("main"), Some(&*reason));
            assert_eq!(outcome.log(), [format!("err: main: not started: {reason}")]);
            assert!(!router.has("ran"), "{value}");
        }
    }
}

fn every_flag_of_the_program_has_an_option() {
    let flags: BTreeSet<String> = flags()
        .keys()
        .filter(|flag| !OF_THE_SERVICE.contains(&flag.as_str()))
        .map(|flag| option_of(flag))
        .collect();
    let with_interfaces = |options: BTreeSet<String>| -> BTreeSet<String> {
        let more = ["enabled", "upstream", "downstream"].map(str::to_owned);
        options.into_iter().chain(more).collect()
    };

    let tested = OPTIONS.iter().map(|(option, ..)| {
        let (_, name) = option.split_once(' ').unwrap();
        name.to_owned()
    });
    let tested = tested.chain([USER.to_owned()]);
    assert_eq!(tested.collect::<BTreeSet<_>>(), flags);

    let shipped = read("openwrt/mldproxy/files/mldproxy.config");
    let shipped: BTreeSet<String> = names(&shipped).into_keys().map(str::to_owned).collect();
    assert_eq!(shipped, with_interfaces(flags));

    let settings = ["mldproxy.main.upstream=wan", "mldproxy.main.enabled=1"];
    let outcome = Router::new(&shipped_after(&settings)).run("start");
    let asked = outcome.asked.iter().filter_map(|asked| {
        let option = asked.strip_prefix("main ")?;
        (option != "TYPE").then(|| option.to_owned())
    });
    assert_eq!(asked.collect::<BTreeSet<_>>(), shipped);
}

fn the_examples_are_valid_and_name_the_defaults() {
    let shipped = shipped_after(&["mldproxy.main.enabled=1"]);
    let uncommented = shipped
        .replace("\t#option ", "\toption ")
        .replace("\t#list ", "\tlist ");
    let outcome = Router::new(&uncommented).run("start");
    assert_eq!(outcome.log(), [""; 0]);
    let arguments = outcome.arguments("main").join(" ");

    let examples = names(&shipped);
    let defaults = defaults();
    for (option, default) in &defaults {
        assert_eq!(examples[&**option], default, "{option}");
        let expected = format!("--{} {default} ", option.replace('_', "-"));
        assert!(arguments.contains(&expected), "{expected}: {arguments}");
        let comment = format!("Default {default}.\n\t#option {option} ");
        assert!(shipped.contains(&comment), "{comment}");
    }
    assert_eq!(defaults.len(), 17);
}

fn an_option_with_spaces_serves_as_a_list() {
    let settings = [
        "mldproxy.main.upstream=wan",
        "mldproxy.main.downstream=lan guest",
        "mldproxy.main.prefix=2001:db8::/64 2001:db8:1::/64",
        "mldproxy.main.enabled=1",
    ];
    let outcome = Router::new(&shipped_after(&settings)).run("start");
    let expected = "--prefix 2001:db8::/64 --prefix 2001:db8:1::/64 -- pppoe-wan br-lan br-guest";
    assert_eq!(outcome.arguments("main").join(" "), expected);
}

fn a_switch_may_be_a_word() {
    for (word, expected) in [
        ("no", "--no-ask -- pppoe-wan br-lan"),
        ("on", "-- pppoe-wan br-lan"),
    ] {
        let ask = format!("mldproxy.main.ask={word}");
        let settings = [
            "mldproxy.main.upstream=wan",
            &ask,
            "mldproxy.main.enabled=yes",
        ];
        let outcome = Router::new(&shipped_after(&settings)).run("start");
        assert_eq!(outcome.arguments("main").join(" "), expected, "{word}");
    }
}

fn the_service_names_a_wrong_value() {
    for (setting, option, value) in [
        ("per_mac=0", "--per-mac", " 0;"),
        ("address_timeout=soon", "--address-timeout", "'soon'"),
        ("learn=arp", "--learn", "'arp'"),
        ("prefix=2001:db8::1/64", "--prefix", "'2001:db8::1/64'"),
        ("downstream=lan wan", "downstream", "pppoe-wan"),
        ("scope=moon", "--scope", "'moon'"),
        ("max_sources=0", "--max-sources", "1 to 64"),
        ("table=main", "--table", "'main'"),
        ("deny=ff00::/8", "--deny", "no group is left"),
        ("allow=ff3e::/16 2000::/3", "--allow", "2000::/3"),
        (
            "upstream=a_name_too_long_for_linux",
            "upstream",
            "'a_name_too_long_for_linux'",
        ),
    ] {
        let setting = format!("mldproxy.main.{setting}");
        let mut settings = vec![
            "mldproxy.main.enabled=1",
            "mldproxy.main.mld_proxy=1",
            &setting,
        ];
        if option != "upstream" {
            settings.push("mldproxy.main.upstream=wan");
        }
        let outcome = Router::new(&shipped_after(&settings)).run("start");
        assert_eq!(outcome.instances(), [""; 0], "{setting}");
        let log = outcome.log();
        assert_eq!(log.len(), 1, "{setting}: {log:?}");
        assert!(log[0].starts_with("err: main: not started: "), "{log:?}");
        assert!(log[0].contains(option) && log[0].contains(value), "{log:?}");
    }
}

fn the_service_names_a_wrong_switch() {
    for option in [
        "enabled",
        "ask",
        "probe",
        "ndp_proxy",
        "mld_proxy",
        "fast_leave",
        "senders",
    ] {
        let mut settings = vec!["mldproxy.main.upstream=wan".to_owned()];
        for switch in ["enabled", "mld_proxy"] {
            if switch != option {
                settings.push(format!("mldproxy.main.{switch}=1"));
            }
        }
        settings.push(format!("mldproxy.main.{option}=maybe"));
        let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
        let outcome = Router::new(&shipped_after(&settings)).run("start");
        assert_eq!(outcome.instances(), [""; 0], "{option}");
        let expected = format!("err: main: not started: {option} is 'maybe', neither 0 nor 1");
        assert_eq!(outcome.log(), [expected]);
    }
}

fn the_service_logs_one_line_without_an_upstream() {
    let outcome = Router::new(&shipped_after(&["mldproxy.main.enabled=1"])).run("start");
    assert_eq!(outcome.instances(), [""; 0]);
    assert_eq!(
        outcome.log(),
        ["err: main: not started: no upstream is set (uci set mldproxy.main.upstream=wan)"]
    );
}
