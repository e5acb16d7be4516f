//! Control sockets in folders of other users: nobody holds up the start, and root gives away no
//! file.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use nix::unistd::User;

use crate::lab::{DOWNSTREAM, FOLDER, Lab, OTHER_USERS, Process, UPSTREAM};
use crate::support::{SOON, spawn, start, who_accepts_nobody};

crate::tests![
    a_listener_that_accepts_nobody_does_not_block_the_start,
    a_listener_that_never_answers_is_not_replaced,
    a_link_in_the_sockets_place_is_left_alone;
    no_file_behind_a_link_is_given_to_the_user needs [OTHER_USERS],
    a_folder_that_is_a_link_is_not_used needs [OTHER_USERS],
    in_another_users_folder_root_does_what_that_user_may needs [OTHER_USERS],
    settings_folder_stays_the_running_users_when_another_start_is_refused needs [OTHER_USERS],
    in_a_folder_of_roots_the_user_has_the_socket_and_nothing_else needs [OTHER_USERS],
];

/// A test's folder, which is removed when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(lab: &Lab, mode: u32) -> Self {
        let folder = Folder(format!("{}.d", lab.rtr.control_socket).into());
        fs::create_dir(&folder.0).unwrap();
        fs::set_permissions(&folder.0, fs::Permissions::from_mode(mode)).unwrap();
        folder
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // The folder may hold what this process cannot remove.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn nobody() -> User {
    User::from_name("nobody")
        .unwrap()
        .expect("every system has the user nobody")
}

/// Starts mldproxy as that user on a socket, and waits until it listens.
#[track_caller]
fn start_as_nobody(lab: &Lab, socket: &str) -> Process {
    let options = ["--user", "nobody", "--socket", socket];
    let mldproxy = spawn(&lab.rtr, &options, &[UPSTREAM, DOWNSTREAM]);
    mldproxy.wait_for_line("proxying ", SOON);
    mldproxy
}

#[track_caller]
fn expect_of_root(path: impl AsRef<Path>) {
    let status = fs::symlink_metadata(path).unwrap();
    assert_eq!((status.uid(), status.gid()), (0, 0));
}

/// The listener's queue is full, so that nobody more can connect.
fn a_listener_that_accepts_nobody_does_not_block_the_start() {
    let lab = Lab::without_querier();
    let path = &lab.rtr.control_socket;
    let _full = who_accepts_nobody(path);
    let mldproxy = start(&lab, &[]);
    mldproxy.wait_for_line(
        "no control socket, so `mldproxy status` does not work",
        SOON,
    );
}

/// The listener may be a daemon that is stopped, so its socket stays.
fn a_listener_that_never_answers_is_not_replaced() {
    let lab = Lab::without_querier();
    let path = &lab.rtr.control_socket;
    let listener = UnixListener::bind(path).unwrap();
    let mldproxy = start(&lab, &[]);
    let line = mldproxy.wait_for_line(
        "no control socket, so `mldproxy status` does not work",
        SOON,
    );
    assert!(line.ends_with("Address already in use"), "{line}");
    let _client = UnixStream::connect(path).unwrap();
    listener.accept().unwrap();
    mldproxy.signal(Signal::SIGTERM);
    assert!(mldproxy.wait(SOON).success());
    UnixStream::connect(path).expect("the socket is still there");
}

fn a_link_in_the_sockets_place_is_left_alone() {
    let lab = Lab::without_querier();
    let folder = Folder::new(&lab, 0o755);
    let link = folder.path("wan.sock");
    // The target of the link may be there or not.
    let behind = folder.path("behind");
    for there in [false, true] {
        let _listener = there.then(|| UnixListener::bind(&behind).unwrap());
        let _ = fs::remove_file(&link);
        symlink(&behind, &link).unwrap();
        let mldproxy = start(&lab, &["--socket", &link]);
        mldproxy.wait_for_line(
            "no control socket, so `mldproxy status` does not work",
            SOON,
        );
        mldproxy.signal(Signal::SIGTERM);
        assert!(mldproxy.wait(SOON).success());
        assert_eq!(fs::read_link(&link).unwrap(), Path::new(&behind));
        assert_eq!(fs::exists(&behind).unwrap(), there);
    }
}

/// The link is in a folder of the user's, who puts it there at each moment of a start.
fn no_file_behind_a_link_is_given_to_the_user() {
    let lab = Lab::without_querier();
    let folder = Folder::new(&lab, 0o755);
    let secrets = Folder(format!("{}.secrets", lab.rtr.control_socket).into());
    fs::create_dir(&secrets.0).unwrap();
    let secret = secrets.path("secret");
    fs::write(&secret, "of root's").unwrap();
    chown(&folder.0, Some(nobody().uid.as_raw()), None).unwrap();
    let path = folder.path("wan.sock");

    symlink(&secret, &path).unwrap();
    let mldproxy = start_as_nobody(&lab, &path);
    mldproxy.wait_for_line(
        "no control socket, so `mldproxy status` does not work",
        SOON,
    );
    drop(mldproxy);
    expect_of_root(&secret);

    // The user puts the link there again and again, in the place of whatever is there.
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let other = folder.path("other");
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let _ = symlink(&secret, &other);
                let _ = fs::rename(&other, &path);
                let _ = fs::remove_file(&path);
            }
        });
        for _ in 0..20 {
            drop(start_as_nobody(&lab, &path));
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    expect_of_root(&secret);
    assert_eq!(fs::read_to_string(&secret).unwrap(), "of root's");
}

fn a_folder_that_is_a_link_is_not_used() {
    let lab = Lab::without_querier();
    let folder = Folder::new(&lab, 0o755);
    chown(&folder.0, Some(nobody().uid.as_raw()), None).unwrap();
    let secrets = Folder(format!("{}.secrets", lab.rtr.control_socket).into());
    fs::create_dir(&secrets.0).unwrap();
    // A socket of root's on which nobody listens any more.
    drop(UnixListener::bind(secrets.path("wan.sock")).unwrap());
    symlink(&secrets.0, folder.path("run")).unwrap();
    let mldproxy = start_as_nobody(&lab, &folder.path("run/wan.sock"));
    mldproxy.wait_for_line(
        "no control socket, so `mldproxy status` does not work",
        SOON,
    );
    expect_of_root(&secrets.0);
    expect_of_root(secrets.path("wan.sock"));
    // mldproxy does not use a folder that it reaches through a link either.
    fs::create_dir(secrets.path("deeper")).unwrap();
    let mldproxy = start_as_nobody(&lab, &folder.path("run/deeper/wan.sock"));
    mldproxy.wait_for_line(
        "no control socket, so `mldproxy status` does not work",
        SOON,
    );
    assert_eq!(fs::read_dir(secrets.path("deeper")).unwrap().count(), 0);
}

fn in_another_users_folder_root_does_what_that_user_may() {
    let lab = Lab::without_querier();
    let folder = Folder::new(&lab, 0o700);
    chown(&folder.0, Some(nobody().uid.as_raw()), None).unwrap();
    let path = folder.path("wan.sock");
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        let mldproxy = start_as_nobody(&lab, &path);
        let owner = fs::symlink_metadata(&path).unwrap().uid();
        assert_eq!(owner, nobody().uid.as_raw());
        mldproxy.signal(signal);
        mldproxy.wait(SOON);
    }
    assert!(!fs::exists(&path).unwrap());
}

fn in_a_folder_of_roots_the_user_has_the_socket_and_nothing_else() {
    let lab = Lab::without_querier();
    // The folder is not in one where anybody may write.
    let folder = Folder(format!("/run/mldproxy-test-{}", std::process::id()).into());
    fs::create_dir(&folder.0).unwrap();
    let path = folder.path("wan.sock");
    let mldproxy = start_as_nobody(&lab, &path);
    let owner = fs::symlink_metadata(&path).unwrap().uid();
    assert_eq!(owner, nobody().uid.as_raw());
    expect_of_root(&folder.0);
    // mldproxy takes over the socket, though the user could not remove it.
    mldproxy.signal(Signal::SIGTERM);
    assert!(mldproxy.wait(SOON).success());
    let again = start_as_nobody(&lab, &path);
    assert!(
        !again
            .log()
            .contains("no control socket, so `mldproxy status` does not work")
    );
}

/// By default the socket is in the folder where mldproxy writes down what it changed.
fn settings_folder_stays_the_running_users_when_another_start_is_refused() {
    let lab = Lab::without_querier();
    let path = format!("{FOLDER}/bad-paths.sock");
    let owner = || fs::symlink_metadata(FOLDER).unwrap().uid();
    let running = start_as_nobody(&lab, &path);
    assert_eq!(owner(), nobody().uid.as_raw());
    for user in [&["--user", "nobody"][..], &[]] {
        let options = [user, &["--socket", &path]].concat();
        let refused = spawn(&lab.rtr, &options, &[UPSTREAM, DOWNSTREAM]);
        assert_eq!(refused.wait(SOON).code(), Some(3));
        assert_eq!(owner(), nobody().uid.as_raw());
    }
    // mldproxy does not follow a link that the user put there, and the folder is still the user's.
    running.signal(Signal::SIGTERM);
    assert!(running.wait(SOON).success());
    let secret = format!("{}.secret", lab.rtr.control_socket);
    fs::write(&secret, "of root's").unwrap();
    symlink(&secret, &path).unwrap();
    let mldproxy = start_as_nobody(&lab, &path);
    mldproxy.wait_for_line(
        "no control socket, so `mldproxy status` does not work",
        SOON,
    );
    expect_of_root(&secret);
    assert_eq!(owner(), nobody().uid.as_raw());
    fs::remove_file(&path).unwrap();
    fs::remove_file(&secret).unwrap();
}
