//! Which control sockets root asks, where other users put sockets of their own.

use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::os::unix::net::UnixListener;
use std::process::{Command, Output};

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::{User, mkfifo};

use crate::lab::{FOLDER, Lab, Namespace, OTHER_USERS, Process, UPSTREAM, downstream};
use crate::privileges::Reachable;
use crate::support::{SOON, spawn, start};

const PYTHON: (&str, &str) = ("python3", "python3");
const BINARY: &str = env!("CARGO_BIN_EXE_mldproxy");
/// How the status of an instance begins.
const UP: &str = concat!("mldproxy ", env!("CARGO_PKG_VERSION"), ", up ");

crate::tests![
    status_finds_the_instance_of_its_namespace,
    instances_that_are_stopped_hide_no_other;
    a_line_that_a_user_forges_leads_root_nowhere needs [OTHER_USERS, PYTHON],
    what_another_user_says_of_an_instance_is_not_believed needs [OTHER_USERS, PYTHON],
    nothing_of_what_another_user_says_is_printed needs [OTHER_USERS, PYTHON],
    in_a_folder_that_all_may_write_to_root_asks_root_alone needs [OTHER_USERS, PYTHON],
    the_user_to_whom_root_gave_the_folder_is_asked needs [OTHER_USERS],
    the_folder_may_be_a_link_of_systemds needs [OTHER_USERS],
    who_answers_on_its_path_as_another_user_keeps_nobody_from_starting
        needs [OTHER_USERS, PYTHON],
];

/// Runs a program in Python as the user nobody. Waits until it has bound its sockets.
#[track_caller]
fn as_nobody(namespace: &Namespace, program: &str) -> Process {
    let program = format!(
        "import os, pwd, socket, struct
os.setuid(pwd.getpwnam('nobody').pw_uid)
s = socket.socket(socket.AF_UNIX)
{program}
print('bound', flush=True)
while True:
    c = s.accept()[0]
    try: c.recv(64) and c.sendall(answer)
    except OSError: pass
    c.close()"
    );
    let mut command = Command::new("python3");
    let process = namespace.spawn(command.args(["-c", &program]));
    process.wait_for_line("bound", SOON);
    process
}

/// Listens as nobody on a path, and answers as an instance on `wan` does.
#[track_caller]
fn forge_instance(namespace: &Namespace, path: &str) -> Process {
    // SO_NETNS_COOKIE is 71.
    let program = format!(
        "s.bind('{path}')
s.listen()
namespace = struct.unpack('Q', s.getsockopt(socket.SOL_SOCKET, 71, 8))[0]
answer = (f'mldproxy 2 namespace={{namespace}} upstream=wan last_query_s=1 '
    'querier_timeout_s=260 ndp_proxy=1\\n').encode()"
    );
    as_nobody(namespace, &program)
}

/// A listener of root's that must not be asked.
struct Trap {
    path: String,
    listener: UnixListener,
}

impl Trap {
    fn new(path: String) -> Self {
        let listener = UnixListener::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        Trap { path, listener }
    }

    #[track_caller]
    fn expect_nobody(&self) {
        let error = self.listener.accept().expect_err("somebody came");
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
    }
}

impl Drop for Trap {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Gives the folder of the sockets to a user with a mode, until it is dropped.
struct FolderOf;

impl FolderOf {
    fn user(user: &str, mode: u32) -> Self {
        let user = User::from_name(user).unwrap().unwrap();
        chown(FOLDER, Some(user.uid.as_raw()), None).unwrap();
        fs::set_permissions(FOLDER, Permissions::from_mode(mode)).unwrap();
        FolderOf
    }
}

impl Drop for FolderOf {
    fn drop(&mut self) {
        for entry in fs::read_dir(FOLDER).unwrap() {
            let path = entry.unwrap().path();
            let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir(path));
        }
        drop(chown(FOLDER, Some(0), Some(0)));
        drop(fs::set_permissions(FOLDER, Permissions::from_mode(0o755)));
    }
}

fn output(namespace: &Namespace, command: &str) -> Output {
    namespace.try_run(&format!("{BINARY} {command}"))
}

#[track_caller]
fn expect_error(output: &Output, code: i32, expected: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(said, format!("mldproxy: {expected}\n"));
    assert_eq!(output.status.code(), Some(code));
    assert!(output.stdout.is_empty(), "{output:?}");
}

const NOTHING: &str = "no mldproxy is running: nothing listens in /var/run/mldproxy; --socket \
                       names another place";

#[track_caller]
fn expect_no_instance(router: &Namespace) {
    let checked = output(router, "check --wait 0 wan br-lan");
    let said = String::from_utf8_lossy(&checked.stdout);
    assert!(said.contains("no mldproxy runs for wan"), "{said}");
    expect_error(&output(router, "status"), 1, NOTHING);
}

/// The kernel writes a list of all sockets, a line each, with a name as its user chose it.
fn a_line_that_a_user_forges_leads_root_nowhere() {
    let lab = Lab::without_querier();
    let trap = Trap::new(lab.rtr.control_socket.clone());
    let other = format!("{FOLDER}/forged.sock");
    let bind = [("one", &trap.path), ("two", &other)].map(|(name, path)| {
        format!(
            "{name} = socket.socket(socket.AF_UNIX)\n\
             {name}.bind(b'\\0x\\n: 0 0 00010000 0 0 0 {path}\\n')\n"
        )
    });
    let program = bind.concat() + "s.bind('')\ns.listen()\nanswer = b''";
    let _forger = as_nobody(&lab.rtr, &program);
    let listed = lab
        .rtr
        .within(|| fs::read_to_string("/proc/thread-self/net/unix").unwrap());
    let line = format!("\n: 0 0 00010000 0 0 0 {}\n", trap.path);
    assert!(listed.contains(&line), "{listed}");
    output(&lab.rtr, "query --wait 1 wan");
    drop(start(&lab, &["--socket", &format!("{}.2", trap.path)]));
    trap.expect_nobody();
    expect_no_instance(&lab.rtr);
}

/// The user has the socket in a folder of its own, under a name with mldproxy in it.
fn what_another_user_says_of_an_instance_is_not_believed() {
    let lab = Lab::without_querier();
    let path = format!("{}.1", lab.rtr.control_socket);
    let _forger = forge_instance(&lab.rtr, &path);
    expect_no_instance(&lab.rtr);
    let asked = output(&lab.rtr, "query --wait 1 wan");
    assert_eq!(asked.status.code(), Some(0), "{asked:?}");
    // It is not believed either where its path is given.
    let checked = output(
        &lab.rtr,
        &format!("check --socket {path} --wait 0 wan br-lan"),
    );
    let said = String::from_utf8_lossy(&checked.stdout);
    assert!(said.contains("no mldproxy runs for wan"), "{said}");
    fs::remove_file(path).unwrap();
}

fn nothing_of_what_another_user_says_is_printed() {
    let lab = Lab::without_querier();
    let path = &lab.rtr.control_socket;
    let _forger = forge_instance(&lab.rtr, path);
    let nobody = User::from_name("nobody").unwrap().unwrap().uid;
    for options in ["", "--json ", "--metrics ", "--watch "] {
        let asked = output(&lab.rtr, &format!("status {options}--socket {path}"));
        let expected = format!(
            "not asked on {path}: user {nobody} listens there, who is neither root nor you; if \
             that is your mldproxy's user, run this as that user"
        );
        expect_error(&asked, 1, &expected);
    }
}

/// Sockets, links, and what has the name of a socket alone.
fn in_a_folder_that_all_may_write_to_root_asks_root_alone() {
    let lab = Lab::without_querier().with_socket_in_folder();
    let _folder = FolderOf::user("root", 0o1777);
    let trap = Trap::new(format!("{}.trap", lab.rtr.control_socket));
    let _forger = forge_instance(&lab.rtr, &format!("{FOLDER}/forged.sock"));
    symlink(&trap.path, format!("{FOLDER}/link.sock")).unwrap();
    let odd = Trap::new(format!("{FOLDER}/odd\n\u{1b}[2J.sock"));
    drop(UnixListener::bind(format!("{FOLDER}/left.sock")).unwrap());
    fs::write(format!("{FOLDER}/file.sock"), "a letter").unwrap();
    fs::create_dir(format!("{FOLDER}/folder.sock")).unwrap();
    mkfifo(&*format!("{FOLDER}/pipe.sock"), Mode::S_IRWXU).unwrap();
    for number in 0..3000 {
        fs::write(format!("{FOLDER}/{number}.sock"), "").unwrap();
    }
    expect_no_instance(&lab.rtr);
    let _mldproxy = start(&lab, &[]);
    let found = output(&lab.rtr, "status");
    let said = String::from_utf8_lossy(&found.stdout);
    assert!(said.starts_with(UP), "{found:?}");
    trap.expect_nobody();
    odd.expect_nobody();
    let forged = output(&lab.rtr, "status forged");
    assert!(forged.stdout.is_empty() && !forged.status.success());
}

/// A jail of OpenWrt, and systemd, start the daemon as the user. With --user it becomes the user.
fn the_user_to_whom_root_gave_the_folder_is_asked() {
    let lab = Lab::without_querier().with_socket_in_folder();
    let _folder = FolderOf::user("nobody", 0o755);
    let program = Reachable::new();
    for as_user in [true, false] {
        let socket = &lab.rtr.control_socket;
        let mut command = Command::new("setpriv");
        if as_user {
            let both = "-all,+net_raw,+net_admin";
            command.args(["--reuid", "nobody", "--regid", "65534", "--clear-groups"]);
            command.args(["--inh-caps", both, "--ambient-caps", both]);
        }
        command.arg(program.program());
        command.args(["run", "--socket", socket]);
        if !as_user {
            command.args(["--user", "nobody"]);
        }
        let mldproxy = lab.rtr.spawn(command.args([UPSTREAM, &downstream(1)]));
        mldproxy.wait_for_line("proxying ", SOON);
        for options in ["status", &format!("status --socket {socket}")] {
            let found = output(&lab.rtr, options);
            let said = String::from_utf8_lossy(&found.stdout);
            assert!(said.starts_with(UP), "{found:?}");
        }
        let checked = output(&lab.rtr, "check --wait 0 wan br-lan");
        let said = String::from_utf8_lossy(&checked.stdout);
        assert!(said.contains("mldproxy runs for wan"), "{said}");
        mldproxy.signal(Signal::SIGTERM);
        assert!(mldproxy.wait(SOON).success());
    }
}

/// With `DynamicUser=` and `RuntimeDirectoryPreserve=` the folder is in `/run/private`.
fn the_folder_may_be_a_link_of_systemds() {
    let lab = Lab::without_querier();
    let program = Reachable::new();
    let script = format!(
        "set -e
mount -t tmpfs -o mode=755 none /var/run
mkdir -p /var/run/private/mldproxy
chown 61184 /var/run/private/mldproxy
ln -s private/mldproxy {FOLDER}
both=-all,+net_raw,+net_admin
exec setpriv --reuid 61184 --regid 61184 --clear-groups --inh-caps $both --ambient-caps $both \
 '{}' run wan br-lan",
        program.program().display()
    );
    let mut command = Command::new("unshare");
    let mldproxy = lab
        .rtr
        .spawn(command.args(["--mount", "sh", "-c", &script]));
    mldproxy.wait_for_line("proxying ", SOON);
    assert!(!mldproxy.log().contains("warn"), "{}", mldproxy.log());
    let beside = format!("nsenter --mount --target {}", mldproxy.pid());
    for arguments in ["", "wan"] {
        let status = format!("{beside} {BINARY} status {arguments}");
        let said = lab.rtr.run(&status);
        assert!(said.starts_with(UP), "{said}");
    }
}

fn status_finds_the_instance_of_its_namespace() {
    let lab = Lab::without_querier().with_socket_in_folder();
    let other = Lab::without_querier().with_socket_in_folder();
    expect_error(&output(&lab.rtr, "status"), 1, NOTHING);
    let (first, _other) = (start(&lab, &[]), start(&other, &[]));
    let found = output(&lab.rtr, "status");
    assert_eq!(found.status.code(), Some(0), "{found:?}");
    let socket = format!("{FOLDER}/second.sock");
    let second = start(&lab, &["--socket", &socket]);
    let several = output(&lab.rtr, "status");
    let said = String::from_utf8_lossy(&several.stderr);
    assert_eq!(several.status.code(), Some(2), "{several:?}");
    assert!(said.starts_with("mldproxy: there are several instances; name one of "));
    assert!(said.contains("second") && said.contains(','), "{said}");
    assert_eq!(output(&lab.rtr, "status second").status.code(), Some(0));
    // A socket that is left over counts no more.
    second.signal(Signal::SIGKILL);
    second.wait(SOON);
    assert_eq!(output(&lab.rtr, "status").status.code(), Some(0));
    fs::remove_file(socket).unwrap();
    // An instance that has its socket elsewhere is found where that is named.
    drop(first);
    let elsewhere = format!("/tmp/mldproxy-elsewhere-{}.sock", std::process::id());
    let third = start(&lab, &["--socket", &elsewhere]);
    expect_no_instance(&lab.rtr);
    let checked = output(
        &lab.rtr,
        &format!("check --socket {elsewhere} --wait 0 wan br-lan"),
    );
    let said = String::from_utf8_lossy(&checked.stdout);
    assert!(said.contains("mldproxy runs for wan"), "{said}");
    third.signal(Signal::SIGTERM);
    third.wait(SOON);
}

fn instances_that_are_stopped_hide_no_other() {
    let lab = Lab::without_querier().with_socket_in_folder();
    let socket = format!("{FOLDER}/second.sock");
    let both = [start(&lab, &[]), start(&lab, &["--socket", &socket])];
    for stopped in &both {
        stopped.signal(Signal::SIGSTOP);
        let checked = output(&lab.rtr, "check --wait 0 wan br-lan");
        let said = String::from_utf8_lossy(&checked.stdout);
        assert!(said.contains("mldproxy runs for wan"), "{said}");
        stopped.signal(Signal::SIGCONT);
    }
    drop(both);
    fs::remove_file(socket).unwrap();
}

/// Anybody may put a socket into `/tmp`.
fn who_answers_on_its_path_as_another_user_keeps_nobody_from_starting() {
    let lab = Lab::without_querier();
    let path = &lab.rtr.control_socket;
    let _forger = forge_instance(&lab.rtr, path);
    let mldproxy = spawn(&lab.rtr, &[], &[UPSTREAM, &downstream(1)]);
    let line = mldproxy.wait_for_line("no control socket, so `mldproxy status`", SOON);
    assert!(line.ends_with("Address already in use"), "{line}");
    mldproxy.wait_for_line("proxying ", SOON);
}
