//! Sections and instances, and the parameters by which procd runs each.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::thread;

use crate::router::{MLDPROXY, Router, shipped_after};

crate::tests![
    two_sections_start_two_instances,
    sections_without_a_name_start_instances,
    the_service_ignores_a_section_that_is_not_enabled,
    a_wrong_section_does_not_stop_the_others,
    procd_restarts_the_daemon_for_ever_and_logs_a_panic,
    a_daemon_in_a_jail_has_two_capabilities,
    without_ujail_the_daemon_starts_as_root,
    the_service_looks_for_programs_where_packages_install_them,
    a_reload_describes_the_same_service_to_procd,
    status_shows_the_service_and_each_instance,
    the_service_touches_no_other_ndp_proxy,
    an_upgrade_replaces_the_program_that_runs,
    a_reload_repeats_no_line_of_the_log,
];

const TWO: &str = "
config mldproxy 'main'
	option enabled '1'
	option upstream 'wan'

config mldproxy 'second'
	option enabled '1'
	option upstream 'wan6'
	option downstream 'guest'
	option learn 'mld'
";

fn running() -> Router {
    let settings = ["mldproxy.main.upstream=wan", "mldproxy.main.enabled=1"];
    Router::new(&shipped_after(&settings))
}

/// The parameters of the instance main, without its command.
fn parameters(router: &Router) -> Vec<String> {
    let outcome = router.run("start");
    let calls = outcome.instance("main").iter();
    calls
        .filter(|call| call[1] != "command")
        .map(|call| call.join(" "))
        .collect()
}

fn two_sections_start_two_instances() {
    let router = Router::new(TWO);
    router.write(
        "up",
        "wan pppoe-wan\nlan br-lan\nguest br-guest\nwan6 eth1\n",
    );
    let outcome = router.run("start");
    assert_eq!(outcome.instances(), ["main", "second"]);
    assert_eq!(outcome.arguments("main"), ["--", "pppoe-wan", "br-lan"]);
    assert_eq!(
        outcome.arguments("second"),
        ["--learn", "mld", "--", "eth1", "br-guest"]
    );
    assert_eq!(outcome.log(), [""; 0]);
}

fn sections_without_a_name_start_instances() {
    let section = "config mldproxy\n\toption enabled '1'\n\toption upstream 'wan'\n";
    let config =
        format!("{section}\toption downstream 'lan'\n{section}\toption downstream 'guest'\n");
    let outcome = Router::new(&config).run("start");
    let names = outcome.instances();
    assert_eq!(names.len(), 2);
    assert!(
        names.iter().all(|name| name.starts_with("cfg")),
        "{names:?}"
    );
    assert_eq!(outcome.arguments(names[0]), ["--", "pppoe-wan", "br-lan"]);
    assert_eq!(outcome.arguments(names[1]), ["--", "pppoe-wan", "br-guest"]);
}

fn the_service_ignores_a_section_that_is_not_enabled() {
    let config = TWO.replacen("option enabled '1'", "option enabled '0'", 1);
    let router = Router::new(&config);
    router.write(
        "up",
        "wan pppoe-wan\nlan br-lan\nguest br-guest\nwan6 eth1\n",
    );
    let outcome = router.run("start");
    assert_eq!(outcome.instances(), ["second"]);
    assert_eq!(outcome.triggers(), ["wan6", "guest"]);
    assert_eq!(outcome.log(), [""; 0]);
}

fn a_wrong_section_does_not_stop_the_others() {
    let config = TWO.replacen("'wan'", "'wan'\n\toption join_rate 'fast'", 1);
    let router = Router::new(&config);
    router.write(
        "up",
        "wan pppoe-wan\nlan br-lan\nguest br-guest\nwan6 eth1\n",
    );
    let outcome = router.run("start");
    assert_eq!(outcome.instances(), ["second"]);
    let log = outcome.log();
    assert_eq!(log.len(), 1, "{log:?}");
    let expected = "err: main: not started: ";
    assert!(log[0].starts_with(expected), "{log:?}");
    assert!(
        log[0].contains("'--join-rate' with value 'fast'"),
        "{log:?}"
    );
}

fn procd_restarts_the_daemon_for_ever_and_logs_a_panic() {
    let parameters = parameters(&running());
    assert_eq!(
        parameters[..4],
        [
            "procd_set_param respawn 3600 1 0".to_owned(),
            format!("procd_set_param file {MLDPROXY}"),
            "procd_set_param data device_wan=pppoe-wan device_lan=br-lan".to_owned(),
            "procd_set_param stderr 1".to_owned(),
        ]
    );
    // With reload_signal, procd would only signal the daemon when its arguments change. With
    // netdev, procd would restart it needlessly when the index of an interface changes.
    for parameter in ["reload_signal", "netdev"] {
        assert!(!parameters.join("\n").contains(parameter), "{parameters:?}");
    }
}

fn a_daemon_in_a_jail_has_two_capabilities() {
    assert_eq!(
        parameters(&running())[4..],
        [
            "procd_add_jail mldproxy log",
            "procd_add_jail_mount_rw run",
            "procd_set_param capabilities /etc/capabilities/mldproxy.json",
            "procd_set_param user nobody",
            "procd_set_param no_new_privs 1",
        ]
    );
}

fn without_ujail_the_daemon_starts_as_root() {
    let parameters = parameters(&running().without_jail());
    assert_eq!(parameters.len(), 4, "{parameters:?}");
    assert_eq!(parameters[3], "procd_set_param stderr 1");
}

fn the_service_looks_for_programs_where_packages_install_them() {
    let outcome = running().run("start");
    assert_eq!(
        outcome.of("program"),
        [[
            "/usr/sbin/mldproxy",
            "/sbin/ujail",
            "/var/run/mldproxy",
            "/var/run/mldproxy.sysctl",
            "/var/run/mldproxy.said"
        ]]
    );
}

fn a_reload_describes_the_same_service_to_procd() {
    let router = running();
    let first = router.run("start");
    let second = router.run("reload");
    assert_eq!(first.calls, second.calls);
    assert_eq!(second.of("procd_kill"), [[""; 0]; 0]);
    // Another device changes the command line, so procd restarts the daemon.
    router.write("up", "wan eth1\nlan br-lan\n");
    let third = router.run("reload");
    assert_eq!(third.arguments("main"), ["--", "eth1", "br-lan"]);
}

fn the_service_touches_no_other_ndp_proxy() {
    let router = running();
    // The script reaches no program but the stubs, which record their calls.
    let mut calls = Vec::new();
    for action in ["start", "reload", "restart", "stop"] {
        calls.extend(router.run(action).calls);
    }
    assert!(calls.iter().any(|call| call[0] == "procd_kill"));
    for call in &calls {
        let words = call.join(" ");
        for other in ["ndppd", "odhcpd", "dhcp"] {
            assert!(!words.contains(other), "{words}");
        }
        let service = match call[0].as_str() {
            "procd_open_service" | "procd_kill" => Some("mldproxy"),
            _ => None,
        };
        assert!(service.is_none_or(|service| call[1] == service), "{words}");
    }
}

fn status_shows_the_service_and_each_instance() {
    let router = running();
    assert_eq!(router.run("status").said, "running\n");
    fs::create_dir(router.path("run")).unwrap();
    // Stands in for the daemon. The path of a socket has to be short, so it is moved after the
    // bind.
    let place = std::env::temp_dir().join(format!("mldproxy-status-{}", std::process::id()));
    let listener = UnixListener::bind(&place).unwrap();
    fs::rename(&place, router.path("run/main.sock")).unwrap();
    fs::write(router.path("run/letter.sock"), "no socket").unwrap();
    let said = thread::scope(|scope| {
        scope.spawn(|| {
            let (mut stream, _) = listener.accept().unwrap();
            let mut question = [0; 32];
            let length = stream.read(&mut question).unwrap();
            assert!(question[..length].starts_with(b"text "));
            stream.write_all(b"all is well\n").unwrap();
        });
        router.run("status").said
    });
    assert_eq!(said, "running\n\nall is well\n");
}

fn an_upgrade_replaces_the_program_that_runs() {
    let program = running().path("program");
    fs::create_dir_all(program.parent().unwrap()).unwrap();
    fs::copy(MLDPROXY, &program).unwrap();
    let router = running().with_program(program.clone());
    assert_eq!(router.run("start").procd_did, ["start main"]);
    // apk starts the service after an upgrade, but does not stop it before.
    assert_eq!(router.run("start").procd_did, [""; 0]);
    let mut octets = fs::read(&program).unwrap();
    octets.push(0);
    fs::write(&program, octets).unwrap();
    assert_eq!(router.run("start").procd_did, ["restart main"]);
    assert_eq!(router.run("reload").procd_did, [""; 0]);
    fs::remove_dir_all(program.parent().unwrap()).unwrap();
}

fn a_reload_repeats_no_line_of_the_log() {
    let config = TWO.replace("'guest'", "'guest iot'") + "\nconfig 7 per_mac\n";
    let router = Router::new(&config.replace("'wan6'", "'-x'"));
    router.write("networks", "wan\nlan\nguest\niot\n");
    let first = router.run("start").log();
    assert_eq!(first.len(), 2, "{first:?}");
    assert_eq!(router.run("reload").log(), [""; 0]);
    // A reload logs a change once.
    let config = config.replace("'wan6'", "'wan'");
    router.write("etc/config/mldproxy", &config);
    let left_out = "notice: second: waiting for network iot";
    assert_eq!(router.run("reload").log(), [left_out]);
    assert_eq!(router.run("reload").log(), [""; 0]);
    assert_eq!(router.run("start").log(), [&first[0], left_out]);
    router.run("stop");
    assert!(!router.has("said"));
}
