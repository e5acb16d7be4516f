//! `--syslog`: RFC 3164 datagrams with their level and a timestamp.

use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::thread;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::support::SOON;

crate::tests![
    lines_go_to_dev_log_with_their_level,
    the_first_process_of_a_jail_logs_whole_lines,
];

/// The first datagram of a mldproxy in a network and a mount namespace of its own and in
/// `namespaces`, and its process id outside of them.
fn logged_in(namespaces: CloneFlags) -> (String, u32) {
    // This thread has a /dev of its own, in which the test is the log daemon.
    let logged = thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET | namespaces)
            .expect("namespaces");
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("a private tree");
        mount(
            Some("dev"),
            "/dev",
            Some("tmpfs"),
            MsFlags::empty(),
            None::<&str>,
        )
        .expect("a /dev");
        let log = UnixDatagram::bind("/dev/log").expect("a log daemon");
        log.set_read_timeout(Some(SOON)).expect("a time to wait");
        let mut command = Command::new(env!("CARGO_BIN_EXE_mldproxy"));
        // There is no /var/run either.
        command.args([
            "run",
            "--syslog",
            "--wait",
            "--socket",
            "/dev/mldproxy.sock",
            "wan",
            "br-lan",
        ]);
        // There is no /dev/null here.
        command.stdin(Stdio::inherit());
        let mut mldproxy = command.spawn().expect("mldproxy starts");
        let mut line = [0; 1024];
        let length = log.recv(&mut line).expect("a line");
        mldproxy.kill().expect("our own child");
        mldproxy.wait().expect("our own child");
        let line = str::from_utf8(&line[..length]).expect("text").to_owned();
        (line, mldproxy.id())
    });
    logged.join().expect("mldproxy logged")
}

/// What OpenWrt's logd keeps of a datagram. If the 16th character after the priority is a space,
/// logd keeps what follows it.
fn kept_by_logd(datagram: &str) -> &str {
    let (_, line) = datagram.split_once('>').expect("a priority");
    if line.as_bytes().get(15) == Some(&b' ') {
        &line[16..]
    } else {
        line
    }
}

fn lines_go_to_dev_log_with_their_level() {
    let (line, pid) = logged_in(CloneFlags::empty());
    // LOG_DAEMON (3) << 3 | LOG_WARNING (4).
    let rest = line.strip_prefix("<28>").expect("facility and level");
    // `Mmm dd hh:mm:ss `, with a space before a day of one digit.
    let shape: String = rest[..16]
        .chars()
        .map(|character| match character {
            'A'..='Z' => 'A',
            'a'..='z' => 'a',
            '0'..='9' => '0',
            other => other,
        })
        .collect();
    let shapes = ["Aaa 00 00:00:00 ", "Aaa  0 00:00:00 "];
    assert!(shapes.contains(&&*shape), "{line}");
    assert_eq!(rest[16..], format!("mldproxy[{pid}]: waiting for wan"));
    assert_eq!(kept_by_logd(&line), &rest[16..]);
}

fn the_first_process_of_a_jail_logs_whole_lines() {
    let (line, _) = logged_in(CloneFlags::CLONE_NEWPID);
    assert_eq!(kept_by_logd(&line), "mldproxy[1]: waiting for wan");
}
