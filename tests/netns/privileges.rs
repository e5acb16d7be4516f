//! What the daemon may do once it runs, by the kernel's own account, and that this is enough.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;
use nix::unistd::{User, getuid};

use crate::bridges::multicast_router;
use crate::lab::{
    DOWNSTREAM, Lab, Namespace, OTHER_USERS, Process, UPSTREAM, eventually, solicited_node,
};
use crate::support::{Host, SOON, address, create_downstream, expect_joined, start};

crate::tests![
    of_all_capabilities_root_keeps_two;
    a_user_is_named_or_numbered_and_keeps_two_capabilities needs [OTHER_USERS],
    what_it_was_not_given_it_does_not_get needs [OTHER_USERS],
    another_user_is_for_root_alone needs [OTHER_USERS],
    links_created_anew_are_joined_and_heard_by_another_user needs [OTHER_USERS],
    a_bridge_that_snoops_is_as_before_at_the_end_of_another_user needs [OTHER_USERS],
    as_the_unit_starts_it_hosts_are_joined needs [OTHER_USERS],
];

const CAP_NET_ADMIN: u64 = 1 << 12;
const CAP_NET_RAW: u64 = 1 << 13;

/// The words after a field of /proc/PID/status.
fn words(process: &Process, field: &str) -> Vec<String> {
    let status =
        fs::read_to_string(format!("/proc/{}/status", process.pid())).expect("the process runs");
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let words = line.expect("a field").split_whitespace();
    words.map(str::to_owned).collect()
}

#[track_caller]
fn expect_capabilities(process: &Process, expected: u64) {
    for (field, expected) in [
        ("CapInh:", 0),
        ("CapPrm:", expected),
        ("CapEff:", expected),
        ("CapBnd:", expected),
        ("CapAmb:", 0),
    ] {
        assert_eq!(
            words(process, field),
            [format!("{expected:016x}")],
            "{field}"
        );
    }
    assert_eq!(words(process, "NoNewPrivs:"), ["1"]);
}

/// The four ids of each kind: real, effective, saved, and that for files.
#[track_caller]
fn expect_ids(process: &Process, user: u32, group: u32) {
    assert_eq!(words(process, "Uid:"), vec![user.to_string(); 4]);
    assert_eq!(words(process, "Gid:"), vec![group.to_string(); 4]);
}

fn nobody() -> User {
    User::from_name("nobody")
        .expect("a list of users")
        .expect("every system has the user nobody")
}

/// A copy of the program that every user can reach. The build's folder may not be.
pub struct Reachable(PathBuf);

impl Reachable {
    pub fn new() -> Self {
        let folder = std::env::temp_dir().join(format!(
            "mldproxy-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        ));
        fs::create_dir(&folder).expect("a new folder");
        let reachable = Reachable(folder);
        fs::set_permissions(&reachable.0, fs::Permissions::from_mode(0o755))
            .expect("our own folder");
        fs::copy(env!("CARGO_BIN_EXE_mldproxy"), reachable.program()).expect("a copy");
        reachable
    }

    pub fn program(&self) -> PathBuf {
        self.0.join("mldproxy")
    }

    /// Starts mldproxy as a user without a name and with these capabilities alone, as a service
    /// manager does.
    fn start_unprivileged(
        &self,
        router: &Namespace,
        capabilities: &str,
        arguments: &[&str],
    ) -> Process {
        let only = format!("-all{capabilities}");
        let mut command = Command::new("setpriv");
        command.args([
            "--reuid",
            "61184",
            "--regid",
            "61184",
            "--clear-groups",
            "--no-new-privs",
        ]);
        command.args([
            "--bounding-set",
            &only,
            "--inh-caps",
            &only,
            "--ambient-caps",
            &only,
        ]);
        command.arg(self.program()).arg("run");
        command.args(["--socket", &router.control_socket]);
        router.spawn(command.args(arguments))
    }
}

impl Drop for Reachable {
    fn drop(&mut self) {
        // The folder may hold what this process cannot remove.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn of_all_capabilities_root_keeps_two() {
    let lab = Lab::without_querier();
    let mldproxy = start(&lab, &[]);
    expect_capabilities(&mldproxy, CAP_NET_RAW | CAP_NET_ADMIN);
    // The thread's user namespace may call the developer root.
    if getuid().is_root() {
        expect_ids(&mldproxy, 0, 0);
    }
}

fn a_user_is_named_or_numbered_and_keeps_two_capabilities() {
    let lab = Lab::without_querier();
    let nobody = nobody();
    for user in [nobody.name.clone(), nobody.uid.to_string()] {
        let mldproxy = start(&lab, &["--user", &user]);
        expect_capabilities(&mldproxy, CAP_NET_RAW | CAP_NET_ADMIN);
        expect_ids(&mldproxy, nobody.uid.as_raw(), nobody.gid.as_raw());
        assert_eq!(words(&mldproxy, "Groups:"), [""; 0]);
        mldproxy.signal(Signal::SIGTERM);
        assert!(mldproxy.wait(SOON).success());
    }
}

fn what_it_was_not_given_it_does_not_get() {
    let lab = Lab::without_querier();
    let program = Reachable::new();
    let mldproxy = program.start_unprivileged(&lab.rtr, ",+net_raw", &[UPSTREAM, DOWNSTREAM]);
    mldproxy.wait_for_line("proxying ", SOON);
    // The daemon lacks the capability to narrow the bounding set, and that set was narrow before.
    expect_capabilities(&mldproxy, CAP_NET_RAW);
    expect_ids(&mldproxy, 61184, 61184);
    let host = Host::on(&lab.lan);
    host.solicits_from(address(1));
    mldproxy.wait_for_line("joined ", SOON);
}

fn another_user_is_for_root_alone() {
    let router = Namespace::new("rtr");
    let program = Reachable::new();
    let with = |user: &str| {
        let arguments = ["--wait", "--user", user, UPSTREAM, DOWNSTREAM];
        program.start_unprivileged(&router, ",+net_raw", &arguments)
    };
    let refused = with("nobody");
    assert_eq!(refused.wait(SOON).code(), Some(1));
    assert_eq!(
        refused.lines(),
        ["error: --user: only root can become another user"]
    );
    // This number is no user's.
    let unknown = with("61184");
    assert_eq!(unknown.wait(SOON).code(), Some(2));
    assert_eq!(
        unknown.lines(),
        ["error: --user 61184: there is no such user"]
    );
}

fn links_created_anew_are_joined_and_heard_by_another_user() {
    let lab = Lab::without_querier();
    let mldproxy = start(&lab, &["--user", "nobody"]);
    Host::on(&lab.lan).solicits_from(address(1));
    expect_joined(&lab, &[address(1)]);

    lab.rtr.run(&format!("ip link del dev {UPSTREAM}"));
    mldproxy.wait_for_line("waiting for wan", SOON);
    lab.sw.veth("rtr", &lab.rtr, UPSTREAM);
    lab.sw.run("ip link set dev rtr master br0 up");
    lab.rtr.run(&format!("ip link set dev {UPSTREAM} up"));
    expect_joined(&lab, &[address(1)]);

    lab.rtr.run(&format!("ip link del dev {DOWNSTREAM}"));
    mldproxy.wait_for_line("waiting for br-lan", SOON);
    create_downstream(&lab);
    let host = Host::on(&lab.lan);
    eventually("mldproxy hears the host again", SOON, || {
        host.solicits_from(address(2));
        let joined = lab.rtr.joined(UPSTREAM);
        [1, 2]
            .iter()
            .all(|number| joined.contains(&solicited_node(address(*number))))
    });
    expect_capabilities(&mldproxy, CAP_NET_RAW | CAP_NET_ADMIN);
}

fn a_bridge_that_snoops_is_as_before_at_the_end_of_another_user() {
    let lab = Lab::without_querier();
    let before = multicast_router(&lab);
    assert_ne!(before, "2");
    let mldproxy = start(&lab, &["--user", "nobody"]);
    lab.rtr.run(&format!(
        "ip link set dev {DOWNSTREAM} type bridge mcast_snooping 1"
    ));
    eventually("the bridge is a multicast router", SOON, || {
        multicast_router(&lab) == "2"
    });
    mldproxy.signal(Signal::SIGTERM);
    assert!(mldproxy.wait(SOON).success());
    assert_eq!(multicast_router(&lab), before);
}

/// Starts mldproxy with the capabilities of dist/mldproxy.service and without a name, as
/// `DynamicUser=` does.
fn as_the_unit_starts_it_hosts_are_joined() {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("dist/mldproxy.service");
    let unit = fs::read_to_string(unit).expect("the unit");
    let given = unit
        .lines()
        .find_map(|line| line.strip_prefix("AmbientCapabilities="));
    let capabilities = given
        .expect("capabilities")
        .to_lowercase()
        .replace("cap_", ",+")
        .replace(' ', "");

    let lab = Lab::without_querier();
    lab.rtr.run(&format!(
        "ip link set dev {DOWNSTREAM} type bridge mcast_snooping 1"
    ));
    let before = multicast_router(&lab);
    let program = Reachable::new();
    let mldproxy = program.start_unprivileged(
        &lab.rtr,
        &capabilities,
        &["--wait", "--learn", "ndp", "--", UPSTREAM, DOWNSTREAM],
    );
    mldproxy.wait_for_line("proxying ", SOON);
    expect_capabilities(&mldproxy, CAP_NET_RAW | CAP_NET_ADMIN);
    eventually("the bridge is a multicast router", SOON, || {
        multicast_router(&lab) == "2"
    });
    Host::on(&lab.lan).solicits_from(address(1));
    expect_joined(&lab, &[address(1)]);
    mldproxy.signal(Signal::SIGTERM);
    assert!(mldproxy.wait(SOON).success());
    assert_eq!(multicast_router(&lab), before);
}
