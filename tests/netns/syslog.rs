//! `--syslog`: RFC 3164 datagrams with their level.

use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::thread;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::support::SOON;

crate::tests![lines_go_to_dev_log_with_their_level];

fn lines_go_to_dev_log_with_their_level() {
    // A thread with a /dev of its own, in which the test is the log daemon.
    let logged = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).expect("namespaces");
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
        // And no /var/run either.
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
    let (line, pid) = logged.join().expect("it was logged");
    // LOG_DAEMON (3) << 3 | LOG_WARNING (4).
    let rest = line.strip_prefix("<28>").expect("facility and level");
    assert_eq!(rest, format!("mldproxy[{pid}]: waiting for wan"));
}
