//! A log that nobody reads: the daemon loses lines of it, and nothing else.

use std::fs::File;
use std::io::{self, Read as _};
use std::net::Ipv6Addr;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::{Child, Command, Stdio};

use nix::fcntl::{FcntlArg, fcntl};
use nix::mount::{MsFlags, mount};
use nix::pty::openpty;
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::termios::{FlowArg, LocalFlags, SetArg, tcflow, tcgetattr, tcsetattr};
use nix::unistd::Pid;

use crate::lab::{DOWNSTREAM, Lab, UPSTREAM, eventually, find_tool};
use crate::support::{Host, SOON, UNLIMITED, address, expect_joined, missing_of};

crate::tests![
    a_pipe_that_nobody_reads_costs_lines_alone,
    a_socket_that_nobody_reads_costs_lines_alone,
    a_terminal_that_nobody_reads_costs_lines_alone,
    a_terminal_that_is_stopped_costs_lines_alone,
    a_terminal_that_stops_who_writes_from_behind_stops_nobody,
    a_log_daemon_that_does_not_read_costs_lines_alone,
    a_log_whose_reader_has_gone_costs_lines_alone,
];

/// A daemon whose log the test has, or has not.
struct Daemon(Child);

impl Daemon {
    fn start(options: &[&str], socket: &str, standard_error: impl Into<Stdio>) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mldproxy"));
        command
            .args(["run", "--learn", "ndp", "--log-level", "debug"])
            .args(["--socket", socket])
            .args(UNLIMITED)
            .args(options)
            .args([UPSTREAM, DOWNSTREAM])
            .stdin(Stdio::inherit())
            .stdout(Stdio::inherit())
            .stderr(standard_error);
        Daemon(command.spawn().expect("mldproxy starts"))
    }

    fn log_summary(&self) {
        let pid = Pid::from_raw(self.0.id().cast_signed());
        kill(pid, Signal::SIGUSR1).expect("our own child");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.0.kill().expect("our own child");
        self.0.wait().expect("our own child");
    }
}

/// The lines that the daemon says it lost, in its status.
fn lines_lost(lab: &Lab) -> u64 {
    let json = lab.rtr.status("--json --limit 0");
    let (_, rest) = json.split_once("\"log_lines_lost\":").expect("a counter");
    let end = rest.find(|c: char| !c.is_ascii_digit()).expect("an end");
    rest[..end].parse().expect("a number")
}

/// Has the daemon lose lines, and shows that it still joins the group of a new host.
fn lose_lines(lab: &Lab, daemon: &Daemon) {
    eventually("the daemon listens", SOON, || {
        let path = &lab.rtr.control_socket;
        std::fs::exists(path).is_ok_and(|exists| exists)
            && lab.rtr.status("").contains("up, listening")
    });
    let host = Host::on(&lab.lan);
    // Each of these hosts is worth some lines, more than any pipe or terminal has room for.
    let mut joined: Vec<Ipv6Addr> = Vec::new();
    for turn in 0..20 {
        let more: Vec<_> = (1..=100)
            .map(|number| address(turn * 100 + number))
            .collect();
        host.advertises_all(lab, &more);
        joined.extend(more);
        daemon.log_summary();
        if lines_lost(lab) > 0 {
            break;
        }
    }
    assert!(lines_lost(lab) > 0, "somebody reads the log");
    let late = address(5000);
    host.solicits_from(late);
    joined.push(late);
    expect_joined(lab, &joined);
}

/// Reads the log from now on. It has to tell that so many lines or more are missing, and no line
/// has to be cut.
fn expect_the_loss_told(lab: &Lab, daemon: &Daemon, mut read: impl FnMut(&mut [u8]) -> usize) {
    let lost = lines_lost(lab);
    let mut log = String::new();
    let mut buffer = [0; 4096];
    let told = loop {
        // What was written before is read first, so the next line finds room at some time.
        daemon.log_summary();
        let length = read(&mut buffer);
        log += &String::from_utf8_lossy(&buffer[..length]);
        assert!(length > 0 && log.len() < 1 << 20, "no word of it:\n{log}");
        let told = log.split_once("the log lost ");
        if let Some((number, _)) =
            told.and_then(|(_, rest)| rest.split_once(" lines, since nobody read it"))
        {
            break number.parse::<u64>().expect("a number");
        }
    };
    assert!(told >= lost, "{told} of {lost}");
}

fn a_pipe_that_nobody_reads_costs_lines_alone() {
    let lab = Lab::without_querier();
    let (mut reader, writer) = io::pipe().expect("a pipe");
    fcntl(&writer, FcntlArg::F_SETPIPE_SZ(4096)).expect("a small pipe");
    let daemon = lab
        .rtr
        .within(|| Daemon::start(&[], &lab.rtr.control_socket, writer));
    lose_lines(&lab, &daemon);
    expect_the_loss_told(&lab, &daemon, |buffer| reader.read(buffer).expect("a pipe"));
}

/// As systemd hands one out for its journal.
fn a_socket_that_nobody_reads_costs_lines_alone() {
    let lab = Lab::without_querier();
    let (mut reader, writer) = UnixStream::pair().expect("sockets");
    setsockopt(&writer, sockopt::SndBuf, &4096).expect("a small buffer");
    let writer = OwnedFd::from(writer);
    let daemon = lab
        .rtr
        .within(|| Daemon::start(&[], &lab.rtr.control_socket, writer));
    lose_lines(&lab, &daemon);
    expect_the_loss_told(&lab, &daemon, |buffer| {
        reader.read(buffer).expect("a socket")
    });
}

fn a_terminal_that_nobody_reads_costs_lines_alone() {
    let lab = Lab::without_querier();
    let pair = openpty(None, None).expect("a terminal");
    let slave = pair.slave;
    let daemon = lab
        .rtr
        .within(|| Daemon::start(&[], &lab.rtr.control_socket, slave));
    lose_lines(&lab, &daemon);
    let mut master = File::from(pair.master);
    expect_the_loss_told(&lab, &daemon, |buffer| {
        master.read(buffer).expect("a terminal")
    });
}

/// As by ^S.
fn a_terminal_that_is_stopped_costs_lines_alone() {
    let lab = Lab::without_querier();
    let pair = openpty(None, None).expect("a terminal");
    let slave = pair.slave.try_clone().expect("a descriptor");
    tcflow(&slave, FlowArg::TCOOFF).expect("a terminal");
    let daemon = lab
        .rtr
        .within(|| Daemon::start(&[], &lab.rtr.control_socket, slave));
    lose_lines(&lab, &daemon);
    tcflow(&pair.slave, FlowArg::TCOON).expect("a terminal");
    let mut master = File::from(pair.master);
    expect_the_loss_told(&lab, &daemon, |buffer| {
        master.read(buffer).expect("a terminal")
    });
}

/// As by `stty tostop`, where the daemon is not in the foreground.
fn a_terminal_that_stops_who_writes_from_behind_stops_nobody() {
    let lab = Lab::without_querier();
    let pair = openpty(None, None).expect("a terminal");
    let mut settings = tcgetattr(&pair.slave).expect("a terminal");
    settings.local_flags |= LocalFlags::TOSTOP;
    tcsetattr(&pair.slave, SetArg::TCSANOW, &settings).expect("a terminal");
    let terminal = || Stdio::from(pair.slave.try_clone().expect("a descriptor"));
    let program = env!("CARGO_BIN_EXE_mldproxy");
    let socket = &lab.rtr.control_socket;
    // A shell with job control has each job in a process group of its own. It ends by SIGKILL, and
    // the daemon with it.
    let script = format!(
        "setpriv --pdeathsig KILL {program} run --learn ndp --log-level debug --socket {socket} \
         {UPSTREAM} {DOWNSTREAM} & read line"
    );
    let mut session = Command::new(find_tool("setsid").expect("a tool"));
    session
        .args(["--ctty", "sh", "-mc", &script])
        .stdin(terminal())
        .stdout(terminal())
        .stderr(terminal());
    let _shell = Daemon(lab.rtr.within(|| session.spawn().expect("a shell")));
    let host = Host::on(&lab.lan);
    eventually("the group of a new host is joined", SOON, || {
        host.solicits_from(address(1));
        missing_of(&lab, &[address(1)]).is_empty()
    });
    let mut master = File::from(pair.master);
    let mut log = String::new();
    while !log.contains("learned 2001:db8:1::10:1") {
        let mut buffer = [0; 4096];
        let length = master.read(&mut buffer).expect("a terminal");
        log += &String::from_utf8_lossy(&buffer[..length]);
    }
}

/// Neither it reads, nor anybody who has the daemon's standard error.
fn a_log_daemon_that_does_not_read_costs_lines_alone() {
    let lab = Lab::without_querier();
    let (_reader, writer) = io::pipe().expect("a pipe");
    fcntl(&writer, FcntlArg::F_SETPIPE_SZ(4096)).expect("a small pipe");
    // This thread has a /dev of its own, in which the test is the log daemon.
    let (log, daemon) = lab.rtr.within(|| {
        unshare(CloneFlags::CLONE_NEWNS).expect("a namespace");
        let (nothing, private) = (None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE);
        mount(nothing, "/", nothing, private, nothing).expect("a private tree");
        mount(nothing, "/dev", Some("tmpfs"), MsFlags::empty(), nothing).expect("a /dev");
        let log = UnixDatagram::bind("/dev/log").expect("a log daemon");
        let daemon = Daemon::start(&["--syslog"], &lab.rtr.control_socket, writer);
        (log, daemon)
    });
    lose_lines(&lab, &daemon);
    expect_the_loss_told(&lab, &daemon, |buffer| log.recv(buffer).expect("a socket"));
}

fn a_log_whose_reader_has_gone_costs_lines_alone() {
    let lab = Lab::without_querier();
    let (reader, writer) = io::pipe().expect("a pipe");
    drop(reader);
    let daemon = lab
        .rtr
        .within(|| Daemon::start(&[], &lab.rtr.control_socket, writer));
    lose_lines(&lab, &daemon);
}
