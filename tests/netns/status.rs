//! The control socket, and what `mldproxy status` prints of it.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::sys::signal::Signal;

use crate::lab::{DOWNSTREAM, Lab, Namespace, UPSTREAM, eventually, find_tool, poll_for};
use crate::support::{
    Host, SOON, UNLIMITED, address, anonymous_memory, expect_joined, querier, spawn, start,
    who_accepts_nobody,
};

pub const SCHEMA: (&str, &str) = ("jsonschema", "python3-jsonschema");
pub const PROMTOOL: (&str, &str) = ("promtool", "prometheus");

crate::tests![
    json_has_the_states_that_the_text_has,
    the_text_fits_80_columns_and_tells_all,
    what_is_missing_is_said,
    watch_prints_it_anew,
    the_limit_shortens_the_lists_and_not_the_counts,
    a_second_daemon_of_that_name_ends_with_3,
    a_socket_that_is_left_over_is_replaced,
    what_is_no_socket_is_left_alone,
    only_its_owner_may_ask,
    without_a_daemon_one_line_says_so,
    an_answer_that_cannot_be_written_is_an_error,
    an_upstream_without_a_carrier_is_told,
    a_daemon_that_does_not_answer_is_not_waited_for,
    a_lock_that_is_kept_keeps_nobody_from_starting,
    who_listens_under_its_name_and_accepts_nobody_holds_up_nobody,
    clients_that_do_not_get_on_cost_nothing;
    json_is_of_its_schema_with_0_1_and_4096_neighbors needs [SCHEMA],
    promtool_accepts_the_metrics needs [PROMTOOL],
];

/// Runs a tool on some input. Returns what it wrote to standard error if it failed.
pub fn judge(tool: &str, arguments: &[&str], input: &str) -> Result<(), String> {
    let mut child = Command::new(find_tool(tool).expect("the tool is there"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A tool that ends early says why.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let said = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    match output.status.success() {
        true => Ok(()),
        false => Err(said(&output.stdout) + &said(&output.stderr)),
    }
}

fn counter(status: &str, name: &str) -> u64 {
    let (_, rest) = status.split_once(&format!("\"{name}\":")).expect(name);
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next();
    digits.unwrap().parse().unwrap()
}

fn the_text_fits_80_columns_and_tells_all() {
    let lab = Lab::new();
    let mldproxy = start(&lab, &["--learn", "both"]);
    let long = "2001:db8:1:0:a8bb:ccff:fedd:1234".parse().unwrap();
    let host = Host::on(&lab.lan);
    for address in [address(1), long] {
        host.solicits_from(address);
    }
    eventually("a refresh, a query and two addresses", SOON, || {
        mldproxy.signal(Signal::SIGHUP);
        querier(&lab, true);
        let text = lab.rtr.status("");
        text.contains("last refresh")
            && text.contains("querier fe80::")
            && text.contains("2001:…:a8bb:ccff:fedd:1234")
    });
    let text = lab.rtr.status("");
    for line in text.lines() {
        assert!(line.chars().count() <= 80, "{line:?}");
    }
    for expected in [
        concat!("mldproxy ", env!("CARGO_PKG_VERSION"), ", up "),
        "\nupstream    wan             up, fe80::",
        "MLDv2 in force\n",
        "\ndownstream  br-lan          up, listening\n            fe80::",
        " of 4096\n",
        " of 5120\n",
        "\n2001:db8:1::10:1 ",
        "\nff02::1:ff10:1 ",
        "\nneighbor_solicitations ",
    ] {
        assert!(text.contains(expected), "{expected:?} in:\n{text}");
    }
}

fn what_is_missing_is_said() {
    let router = Namespace::new("rtr");
    let mldproxy = spawn(&router, &["--wait"], &[UPSTREAM, DOWNSTREAM]);
    mldproxy.wait_for_line("waiting for br-lan", SOON);
    let text = router.status("");
    for expected in [
        "upstream    wan             missing, waited for\n",
        "no querier heard\n",
        "downstream  br-lan          missing, waited for\n",
        "neighbors   0 of 4096\n",
    ] {
        assert!(text.contains(expected), "{expected:?} in:\n{text}");
    }
    let json = router.status("--json");
    assert!(
        json.contains("\"present\":false,\"running\":false,\"link_local\":null,\"mtu\":null"),
        "{json}"
    );
}

fn watch_prints_it_anew() {
    let lab = Lab::without_querier();
    let _mldproxy = start(&lab, &[]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_mldproxy"));
    command.args(["status", "--watch", "--socket", &lab.rtr.control_socket]);
    let watch = lab.rtr.spawn(&command);
    eventually("three screens", SOON, || {
        watch.log().matches("\x1b[H\x1b[2J").count() >= 3
    });
    assert!(watch.is_running());
}

fn the_limit_shortens_the_lists_and_not_the_counts() {
    let lab = Lab::without_querier();
    let _mldproxy = start(&lab, UNLIMITED);
    let addresses: Vec<_> = (1..=20).map(address).collect();
    Host::on(&lab.lan).advertises_all(&lab, &addresses);
    expect_joined(&lab, &addresses);
    let json = lab.rtr.status("--json --limit 3");
    assert_eq!(json.matches("\"mac\":").count(), 3);
    assert_eq!(json.matches("\"members\":").count(), 3);
    assert_eq!(json.matches("{\"count\":20,").count(), 2);
    // An rpcd plugin may print at most this much.
    let json = lab.rtr.status("--json --limit 0");
    assert!(
        json.contains("\"neighbors\":{\"count\":20,\"capacity\":4096,\"list\":[]}"),
        "{json}"
    );
}

fn json_is_of_its_schema_with_0_1_and_4096_neighbors() {
    let lab = Lab::new();
    let _mldproxy = start(&lab, UNLIMITED);
    let schema = concat!(env!("CARGO_MANIFEST_DIR"), "/dist/status.schema.json");
    let addresses: Vec<_> = (1..=4096).map(address).collect();
    let host = Host::on(&lab.lan);
    for count in [0, 1, 4096] {
        host.advertises_all(&lab, &addresses[..count]);
        expect_joined(&lab, &addresses[..count]);
        let json = lab.rtr.status("--json");
        let file = format!("{}.json", lab.rtr.control_socket);
        fs::write(&file, &json).unwrap();
        let judged = judge("jsonschema", &["-i", &file, schema], "");
        fs::remove_file(&file).unwrap();
        assert_eq!(judged, Ok(()), "{count}");
        assert_eq!(json.matches("\"mac\":").count(), count);
        assert_eq!(json.matches("\"joined\":true").count(), count);
        for list in ["neighbors", "groups"] {
            assert!(json.contains(&format!("\"{list}\":{{\"count\":{count},")));
        }
    }
    // The parts that the plugin for rpcd passes on. They fit ubus even if each entry is 40 octets
    // longer.
    for (limit, name, end) in [(1000, "\"neighbors\":", "]}"), (2000, "\"groups\":", "]}")] {
        let json = lab.rtr.status(&format!("--json --limit {limit}"));
        let (_, part) = json.split_once(name).unwrap();
        let (part, _) = part.split_once(end).unwrap();
        assert!(
            part.len() + 40 * limit < 256 * 1024,
            "{name} {}",
            part.len()
        );
    }
}

fn promtool_accepts_the_metrics() {
    let lab = Lab::new();
    let mldproxy = start(&lab, &[]);
    Host::on(&lab.lan).solicits_from(address(1));
    expect_joined(&lab, &[address(1)]);
    eventually("a refresh and a query", SOON, || {
        mldproxy.signal(Signal::SIGHUP);
        querier(&lab, true);
        let metrics = lab.rtr.status("--metrics");
        metrics.contains("mldproxy_query_age_seconds{")
            && metrics.contains("mldproxy_report_age_seconds{")
    });
    let metrics = lab.rtr.status("--metrics");
    assert_eq!(
        judge("promtool", &["check", "metrics"], &metrics),
        Ok(()),
        "{metrics}"
    );
    for expected in [
        concat!(
            "mldproxy_info{upstream=\"wan\",version=\"",
            env!("CARGO_PKG_VERSION"),
            "\"} 1\n"
        ),
        "mldproxy_groups{upstream=\"wan\"} 1\n",
        "mldproxy_capture_drops_total{upstream=\"wan\",downstream=\"br-lan\"} 0\n",
        "mldproxy_events_total{upstream=\"wan\",event=\"groups_joined\"} 1\n",
        "mldproxy_dropped_packets_total{upstream=\"wan\",reason=\"",
    ] {
        assert!(metrics.contains(expected), "{expected:?} in:\n{metrics}");
    }
}

fn a_second_daemon_of_that_name_ends_with_3() {
    let lab = Lab::without_querier();
    let first = start(&lab, &[]);
    let second = spawn(&lab.rtr, &[], &[UPSTREAM, DOWNSTREAM]);
    assert_eq!(second.wait(SOON).code(), Some(3));
    let expected = format!(
        "error: mldproxy is already running: it answers on {}",
        lab.rtr.control_socket
    );
    assert_eq!(second.lines(), [expected]);
    // The first daemon continues, and still answers.
    assert!(first.is_running());
    assert!(lab.rtr.status("").contains("neighbors"));
}

fn a_socket_that_is_left_over_is_replaced() {
    let lab = Lab::without_querier();
    let first = start(&lab, &[]);
    first.signal(Signal::SIGKILL);
    first.wait(SOON);
    assert!(fs::exists(&lab.rtr.control_socket).unwrap());
    let second = start(&lab, &[]);
    assert!(lab.rtr.status("").contains("neighbors"));
    second.signal(Signal::SIGTERM);
    assert!(second.wait(SOON).success());
    assert!(!fs::exists(&lab.rtr.control_socket).unwrap());
}

fn what_is_no_socket_is_left_alone() {
    let lab = Lab::without_querier();
    fs::write(&lab.rtr.control_socket, "a letter").unwrap();
    let mldproxy = start(&lab, &[]);
    let line = mldproxy.wait_for_line(
        "no control socket, so `mldproxy status` does not work",
        SOON,
    );
    assert!(
        line.contains(&lab.rtr.control_socket) && line.contains("in use"),
        "{line}"
    );
    mldproxy.signal(Signal::SIGTERM);
    assert!(mldproxy.wait(SOON).success());
    assert_eq!(
        fs::read_to_string(&lab.rtr.control_socket).unwrap(),
        "a letter"
    );
}

fn only_its_owner_may_ask() {
    let lab = Lab::without_querier();
    let _mldproxy = start(&lab, &[]);
    let mode = fs::metadata(&lab.rtr.control_socket)
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

fn without_a_daemon_one_line_says_so() {
    let router = Namespace::new("rtr");
    let mldproxy = env!("CARGO_BIN_EXE_mldproxy");
    let socket = &router.control_socket;
    for (arguments, code, expected) in [
        (
            format!("--socket {socket}"),
            1,
            format!("no mldproxy answers on {socket}: No such file or directory"),
        ),
        (
            "nobody".to_owned(),
            1,
            "no mldproxy answers on /var/run/mldproxy/nobody.sock: No such file or directory"
                .to_owned(),
        ),
        (
            "--json --metrics".to_owned(),
            2,
            "--json and --metrics are two forms: choose one".to_owned(),
        ),
    ] {
        let output = router.try_run(&format!("{mldproxy} status {arguments}"));
        assert_eq!(output.status.code(), Some(code), "{arguments}");
        assert_eq!(
            String::from_utf8_lossy(&output.stderr),
            format!("mldproxy: {expected}\n")
        );
    }
}

/// A file that accepts no data.
const FULL: &str = "/dev/full";

fn an_answer_that_cannot_be_written_is_an_error() {
    let lab = Lab::without_querier();
    let _mldproxy = start(&lab, &[]);
    let program = env!("CARGO_BIN_EXE_mldproxy");
    for command in [
        format!("status --metrics --socket {}", lab.rtr.control_socket),
        format!("check --wait 0 {UPSTREAM} {DOWNSTREAM}"),
    ] {
        let full = fs::OpenOptions::new().write(true).open(FULL).unwrap();
        let output = lab.rtr.within(|| {
            let mut process = Command::new(program);
            process.args(command.split(' ')).stdout(full);
            process.output().unwrap()
        });
        assert_eq!(output.status.code(), Some(1), "{command}");
        assert_eq!(
            String::from_utf8_lossy(&output.stderr),
            "mldproxy: writing: No space left on device\n"
        );
    }
}

fn an_upstream_without_a_carrier_is_told() {
    let lab = Lab::without_querier();
    let _mldproxy = start(&lab, &[]);
    assert!(
        lab.rtr
            .status("--json")
            .contains("\"present\":true,\"running\":true")
    );
    lab.sw.run("ip link set dev rtr down");
    eventually("the status tells that wan has no carrier", SOON, || {
        lab.rtr
            .status("")
            .contains("upstream    wan             no carrier\n")
    });
    assert!(
        lab.rtr
            .status("--json")
            .contains("\"present\":true,\"running\":false")
    );
    assert!(
        lab.rtr
            .status("--metrics")
            .contains("mldproxy_upstream_running{upstream=\"wan\"} 0\n")
    );
}

fn a_daemon_that_does_not_answer_is_not_waited_for() {
    let lab = Lab::without_querier();
    let mldproxy = start(&lab, &[]);
    mldproxy.signal(Signal::SIGSTOP);
    let program = env!("CARGO_BIN_EXE_mldproxy");
    let socket = &lab.rtr.control_socket;
    let output = lab
        .rtr
        .try_run(&format!("{program} status --socket {socket}"));
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        format!("mldproxy: the answer on {socket} breaks off\n")
    );
}

/// Anybody who may read the folder may lock it.
fn a_lock_that_is_kept_keeps_nobody_from_starting() {
    let lab = Lab::without_querier();
    let folder = format!("{}.d", lab.rtr.control_socket);
    fs::create_dir(&folder).unwrap();
    let kept = fs::File::open(&folder).unwrap();
    kept.lock().unwrap();
    let mldproxy = start(&lab, &["--socket", &format!("{folder}/wan.sock")]);
    let expected = format!(
        "warn: no control socket, so `mldproxy status` does not work: {folder}/wan.sock: Try again"
    );
    assert!(mldproxy.lines().contains(&expected), "{}", mldproxy.log());
    drop(kept);
    fs::remove_dir(folder).unwrap();
}

/// Anybody may have a socket of this name.
fn who_listens_under_its_name_and_accepts_nobody_holds_up_nobody() {
    let lab = Lab::without_querier();
    let path = format!("{}.mldproxy-too", lab.rtr.control_socket);
    let full = lab.rtr.within(|| who_accepts_nobody(&path));
    start(&lab, &[]);
    drop(full);
    fs::remove_file(path).unwrap();
}

fn json_has_the_states_that_the_text_has() {
    let lab = Lab::without_querier();
    let _mldproxy = start(&lab, &["--ndp-proxy", "--learn", "both"]);
    // A host that answers nothing.
    Host::apart(&lab.lan, 1).solicits_from(address(1));
    let mut texts = Vec::new();
    let mut objects = Vec::new();
    eventually("a host that answers, and one that does not", SOON, || {
        lab.lan_host_speaks();
        let text = lab.rtr.status("");
        let rows = text.lines().skip_while(|line| !line.starts_with("ADDRESS"));
        let rows = rows.skip(1).take_while(|line| !line.is_empty());
        let word = |row: &str, place| row.split_whitespace().nth_back(place).map(str::to_owned);
        texts = rows.filter_map(|row| word(row, 0)).collect();
        let json = ask(&lab.rtr.control_socket, "json 9999\n");
        // Interfaces have states of their own, so these do not count.
        let (_, neighbors) = json.split_once("\"neighbors\":").expect("a list");
        let states = neighbors.split("\"state\":\"").skip(1);
        let state = |rest: &str| rest.split('"').next().map(str::to_owned);
        objects = states.filter_map(state).collect();
        let is_there = |state| texts.iter().any(|text| text == state);
        // A state may change between the text and the JSON.
        is_there("proxied") && is_there("confirmed") && is_there("probed") && texts == objects
    });
}

/// Asks without a process of its own. Until its question comes, the server may drop a client for
/// newcomers, so this may have to ask again.
fn ask(path: &str, question: &str) -> String {
    let answered = poll_for(SOON, || {
        let mut stream = UnixStream::connect(path).ok()?;
        stream.write_all(question.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.ends_with('\n').then_some(answer)
    });
    answered.expect("an answer")
}

/// Ends the other thread even if the test fails. Otherwise the scope would wait for that thread for
/// ever.
struct StoreOnDrop<'a>(&'a AtomicBool);

impl Drop for StoreOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn clients_that_do_not_get_on_cost_nothing() {
    let lab = Lab::without_querier();
    let mldproxy = start(&lab, UNLIMITED);
    let addresses: Vec<_> = (1..=4096).map(address).collect();
    let host = Host::on(&lab.lan);
    host.advertises_all(&lab, &addresses);
    expect_joined(&lab, &addresses);
    let path = &lab.rtr.control_socket;
    // A first answer touches the pages of the buffers.
    ask(path, "json 0\n");
    let memory = anonymous_memory(&mldproxy);
    let before = counter(&ask(path, "json 0\n"), "neighbor_solicitations");

    const FRAMES: u64 = 20_000;
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = fastrand::Rng::with_seed(1);
            while !done.load(Ordering::Relaxed) {
                // More clients at once than the server serves and queues together.
                let silent: Vec<_> = (0..100).map(|_| UnixStream::connect(path)).collect();
                // This client asks for everything, and reads none of it.
                let slow = UnixStream::connect(path).and_then(|mut slow| {
                    slow.write_all(b"json 9999\n")?;
                    Ok(slow)
                });
                for _ in 0..20 {
                    let garbage: Vec<u8> =
                        (0..random.usize(1..100)).map(|_| random.u8(..)).collect();
                    // The server may have hung up by then.
                    let _ =
                        UnixStream::connect(path).and_then(|mut stream| stream.write_all(&garbage));
                }
                drop((silent, slow));
            }
        });
        let _stop = StoreOnDrop(&done);
        for sent in (0..FRAMES).step_by(100) {
            for address in &addresses[..100] {
                host.solicits_from(*address);
            }
            // The server must also answer a client that does ask all the while.
            eventually("mldproxy heard all solicitations", SOON, || {
                counter(&ask(path, "json 0\n"), "neighbor_solicitations") == before + sent + 100
            });
        }
    });
    assert_eq!(counter(&ask(path, "json 0\n"), "kernel_drops"), 0);
    let more = anonymous_memory(&mldproxy).saturating_sub(memory);
    assert!(more <= 32, "{more} kB more");
}
