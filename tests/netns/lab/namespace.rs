//! Network namespaces, and what tests run and read inside them.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::Ipv6Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::panic::resume_unwind;
use std::process::{self, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use std::{env, thread};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{getgid, getuid};

use super::{Process, eventually, find_tool, solicited_node};

/// The folder where one mldproxy looks for others, unless they are in another network namespace.
pub const FOLDER: &str = "/var/run/mldproxy";

/// Moves this process into a network namespace of its own: as root directly, otherwise as the root
/// of a new user namespace. Call it first in `main`, since only a process with one thread may
/// change its user namespace.
///
/// # Errors
/// One line that says what is missing and what to do.
pub fn isolate() -> Result<(), String> {
    if unshare(CloneFlags::CLONE_NEWNET).is_ok() {
        isolate_folder();
        return Ok(());
    }
    let (user, group) = (getuid(), getgid());
    let as_root_of_a_user_namespace = || -> io::Result<()> {
        unshare(CloneFlags::CLONE_NEWUSER)?;
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/uid_map", format!("0 {user} 1"))?;
        fs::write("/proc/self/gid_map", format!("0 {group} 1"))?;
        unshare(CloneFlags::CLONE_NEWNET)?;
        isolate_folder();
        Ok(())
    };
    as_root_of_a_user_namespace().map_err(|error| {
        format!(
            "network namespaces need root here, since user namespaces are refused ({error}): \
             run it as root (in a container: with CAP_SYS_ADMIN)"
        )
    })
}

/// Mounts an empty folder over the one where daemons write down what they changed, or over its
/// parent if that folder cannot be made. So they leave nothing behind. If mounting is refused, the
/// daemons do without the folder.
fn isolate_folder() {
    let nothing = None::<&str>;
    if unshare(CloneFlags::CLONE_NEWNS).is_ok() {
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        let _ = mount(nothing, "/", nothing, private, nothing);
        let is_there = fs::create_dir(FOLDER).is_ok() || fs::exists(FOLDER).unwrap_or(false);
        let folder = if is_there { FOLDER } else { "/var/run" };
        let mode = Some("mode=755");
        let _ = mount(nothing, folder, Some("tmpfs"), MsFlags::empty(), mode);
        let _ = fs::create_dir(FOLDER);
    }
}

/// A network namespace in which loopback is up. Its kernel detects no duplicates, so addresses can
/// be used at once.
pub struct Namespace {
    pub(super) label: String,
    pub(super) fd: OwnedFd,
    /// The path where a mldproxy in this namespace listens. Network namespaces share all files.
    pub control_socket: String,
}

impl Namespace {
    /// Makes a namespace. `label` appears in messages only.
    pub fn new(label: &str) -> Self {
        // `unshare` moves the calling thread, so this is a thread of its own.
        let created = thread::spawn(|| -> io::Result<OwnedFd> {
            unshare(CloneFlags::CLONE_NEWNET)?;
            Ok(File::open("/proc/thread-self/ns/net")?.into())
        });
        let created = created.join().expect("the thread does not panic");
        let fd = created.expect("the right to: call isolate() first");
        let label = label.to_owned();
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let file = format!("mldproxy-{}-{number}.sock", process::id());
        let namespace = Self {
            label,
            fd,
            control_socket: env::temp_dir().join(file).display().to_string(),
        };
        namespace.sysctl("net.ipv6.conf.all.accept_dad", "0");
        namespace.sysctl("net.ipv6.conf.default.accept_dad", "0");
        namespace.set_up("lo");
        namespace
    }

    /// Puts the control socket where other mldproxy of this namespace look for it.
    pub fn move_socket_to_folder(&mut self) {
        let (_, file) = self.control_socket.rsplit_once('/').expect("a path");
        self.control_socket = format!("{FOLDER}/{file}");
    }

    pub fn label(&self) -> &str {
        &self.label
    }

    /// The output of `mldproxy status OPTIONS` in this namespace.
    #[track_caller]
    pub fn status(&self, options: &str) -> String {
        let mldproxy = env!("CARGO_BIN_EXE_mldproxy");
        self.run(&format!(
            "{mldproxy} status --socket {} {options}",
            self.control_socket
        ))
    }

    /// Runs `work` on a new thread inside. Sockets that it opens, children that it starts and
    /// `/proc/sys/net` are the namespace's. Instead of `/proc/net` it must read
    /// `/proc/thread-self/net`.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                enter(&self.fd);
                work()
            });
            inside.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    /// Runs commands, one a line, each split at white space. Returns what they wrote to standard
    /// output.
    ///
    /// # Panics
    /// With the command and its standard error if one fails.
    #[track_caller]
    pub fn run(&self, command_lines: &str) -> String {
        let mut outputs = String::new();
        for command_line in command_lines.lines() {
            let output = self.try_run(command_line);
            if !output.status.success() {
                panic!("{}: `{command_line}`: {output:?}", self.label);
            }
            outputs += &String::from_utf8_lossy(&output.stdout);
        }
        outputs
    }

    /// The first link-local address of an interface.
    pub fn link_local_of(&self, interface: &str) -> Ipv6Addr {
        let shown = self.run(&format!("ip -6 -o addr show dev {interface} scope link"));
        let address = shown
            .split_once("inet6 ")
            .and_then(|(_, rest)| rest.split_once('/'));
        address
            .and_then(|(address, _)| address.parse().ok())
            .expect("the interface has a link-local address")
    }

    /// Runs many commands of `ip` in one process. They come one a line, without the word `ip`.
    #[track_caller]
    pub fn batch(&self, commands: &str) {
        let (reader, mut writer) = io::pipe().expect("a pipe");
        let path = path_of_fd(&reader);
        thread::scope(|scope| {
            scope.spawn(move || {
                // If `ip` ends early, it says why.
                let _ = writer.write_all(commands.as_bytes());
            });
            self.run(&format!("ip -batch {path}"));
            drop(reader);
        });
    }

    #[track_caller]
    pub fn try_run(&self, command_line: &str) -> Output {
        let mut words = command_line.split_whitespace();
        let tool = words.next().expect("a command");
        let mut command = Command::new(find_tool(tool).unwrap_or_else(|| tool.into()));
        let output = self.within(|| command.args(words).stdin(Stdio::null()).output());
        output.unwrap_or_else(|error| panic!("{}: `{command_line}`: {error}", self.label))
    }

    /// Pings until an answer comes. Under load the kernel may drop a packet, and it refuses to send
    /// from an address of which it still detects duplicates.
    #[track_caller]
    pub fn ping_until_answered(&self, arguments: &str) {
        let command = format!("ping -n -c 1 -W 1 {arguments}");
        eventually(&command, Duration::from_secs(20), || {
            self.try_run(&command).status.success()
        });
    }

    /// Starts a program with the arguments, the additional environment and the folder of `command`.
    pub fn spawn(&self, command: &Command) -> Process {
        Process::start(self.fd.try_clone().expect("a file descriptor"), command)
    }

    /// Sets a kernel parameter, such as `net.ipv6.conf.all.forwarding`.
    #[track_caller]
    pub fn sysctl(&self, name: &str, value: &str) {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        let written = self.within(|| fs::write(path, value));
        written.unwrap_or_else(|error| {
            let hint = match error.kind() {
                io::ErrorKind::ReadOnlyFilesystem => " (a container has to be a privileged one)",
                _ => "",
            };
            panic!("{}: {name} = {value}: {error}{hint}", self.label)
        });
    }

    /// Moves an interface to another namespace, where it is down and has no address.
    pub fn move_interface(&self, interface: &str, to: &Self) {
        let to = path_of_fd(&to.fd);
        self.run(&format!("ip link set dev {interface} netns {to}"));
    }

    /// The solicited-node groups of which an interface is a member, by the kernel's own table.
    pub fn joined(&self, interface: &str) -> BTreeSet<Ipv6Addr> {
        let table = self.within(|| fs::read_to_string("/proc/thread-self/net/igmp6"));
        let group = |line: &str| {
            let group = line.split_whitespace().nth(2)?;
            let group = Ipv6Addr::from_bits(u128::from_str_radix(group, 16).ok()?);
            let wanted = line.split_whitespace().nth(1) == Some(interface);
            (wanted && group == solicited_node(group)).then_some(group)
        };
        let table = table.expect("IPv6 is on");
        table.lines().filter_map(group).collect()
    }

    /// Whether an interface has a link-local address and may use all its addresses. They are
    /// tentative until the link is up, which may be a second after it was brought up.
    pub fn is_ready(&self, interface: &str) -> bool {
        let table = self.within(|| fs::read_to_string("/proc/thread-self/net/if_inet6"));
        let table = table.expect("IPv6 is on");
        let lines = table.lines().map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [address, _, _, _, flags, name] = words[..] else {
                panic!("{line}");
            };
            let flags = u32::from_str_radix(flags, 16).expect("flags");
            (name, address, flags & libc::IFA_F_TENTATIVE == 0)
        });
        let here: Vec<_> = lines.filter(|(name, ..)| *name == interface).collect();
        let has_link_local = here
            .iter()
            .any(|(_, address, _)| address.starts_with("fe80"));
        has_link_local && here.iter().all(|(.., usable)| *usable)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // A mldproxy that was killed leaves its socket behind.
        let _ = fs::remove_file(&self.control_socket);
    }
}

pub fn enter(namespace: &OwnedFd) {
    setns(namespace, CloneFlags::CLONE_NEWNET).expect("the right to: call isolate() first");
}

/// The path by which another process reaches a file of this one.
pub fn path_of_fd(fd: &impl AsRawFd) -> String {
    format!("/proc/{}/fd/{}", process::id(), fd.as_raw_fd())
}
