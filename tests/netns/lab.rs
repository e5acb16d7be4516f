//! The network in which mldproxy is tried: a gateway, a switch that snoops MLD, a router, a LAN.
//!
//! ```text
//!  [gw]:eth0 ──── gw:[sw: bridge br0]:rtr ──── wan:[rtr]:br-lan ──── eth0:[lan]
//!  2001:db8:1::1                     2001:db8:1::2     fe80::1       2001:db8:1::1:10
//! ```
//!
//! One /64 lies on both sides of `rtr`, so `gw` looks for the LAN's host by neighbor discovery. Every box is a network
//! namespace without a name: this process holds it by a file descriptor, so it ends when the process does, however that
//! ends, and nothing else on the machine sees it.

// Two programs include this file, and each uses a part of it.
#![allow(dead_code)]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::iter;
use std::net::Ipv6Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::socket::{self, AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType};
use nix::sys::time::{TimeVal, TimeValLike};
use nix::unistd::{Pid, getgid, getuid};

/// The router's interface towards the gateway, and its bridge towards the first LAN.
pub const UPSTREAM: &str = "wan";
pub const DOWNSTREAM: &str = "br-lan";

/// The gateway's address in the shared /64, and its address outside of it. Ping from the second: a LAN host takes the first
/// to be on its own link, and looks for it there.
pub const GATEWAY: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1);
pub const OUTSIDE: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1);
/// The router's address in the shared /64, on the upstream.
pub const ROUTER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 2);
/// The host of the first LAN, and the router as every LAN knows it.
pub const LAN_HOST: Ipv6Addr = lan_host(1);
pub const LAN_ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// The tools that the lab runs, each with the Debian package that has it.
pub const TOOLS: &[(&str, &str)] = &[
    ("ip", "iproute2"),
    ("bridge", "iproute2"),
    ("ping", "iputils-ping"),
    ("setpriv", "util-linux"),
];

const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
/// Long for what happens at once.
const SOON: Duration = Duration::from_secs(5);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Moves this process into a network namespace of its own: as root directly, otherwise as the root of a new user namespace.
/// Call it first in `main`: only a process with one thread may change its user namespace.
///
/// # Errors
/// One line: what is missing and what to do.
pub fn isolate() -> Result<(), String> {
    if unshare(CloneFlags::CLONE_NEWNET).is_ok() {
        return Ok(());
    }
    let (user, group) = (getuid(), getgid());
    let as_root_of_a_user_namespace = || -> io::Result<()> {
        unshare(CloneFlags::CLONE_NEWUSER)?;
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/uid_map", format!("0 {user} 1"))?;
        fs::write("/proc/self/gid_map", format!("0 {group} 1"))?;
        Ok(unshare(CloneFlags::CLONE_NEWNET)?)
    };
    as_root_of_a_user_namespace().map_err(|error| {
        format!(
            "network namespaces need root here, since user namespaces are refused ({error}): \
             run it as root (in a container: with CAP_SYS_ADMIN)"
        )
    })
}

/// The tools that are not there, one readable line each.
pub fn missing_tools(tools: &[(&str, &str)]) -> Vec<String> {
    let missing = tools.iter().filter(|(tool, _)| find_tool(tool).is_none());
    missing
        .map(|(tool, package)| format!("`{tool}` is missing; on Debian: apt install {package}"))
        .collect()
}

/// Looks also where a user's PATH does not.
pub fn find_tool(tool: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(tool))
        .find(|candidate| candidate.is_file())
}

/// Asks until there is an answer; `None` when there was none within `deadline`.
pub fn poll_for<T>(deadline: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        let last = start.elapsed() >= deadline;
        match condition() {
            None if !last => thread::sleep(POLL_INTERVAL),
            result => return result,
        }
    }
}

/// Polls until `condition` holds.
///
/// # Panics
/// With `what` when it does not within `deadline`.
#[track_caller]
pub fn eventually(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) {
    let held = poll_for(deadline, || condition().then_some(()));
    assert!(held.is_some(), "not within {deadline:?}: {what}");
}

/// The solicited-node group of an address (RFC 4291 §2.7.1).
pub const fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::from_octets([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}

/// The router's bridge towards a LAN: `br-lan`, `br-lan2`, …
pub fn downstream(number: u16) -> String {
    match number {
        1 => DOWNSTREAM.to_owned(),
        _ => format!("{DOWNSTREAM}{number}"),
    }
}

/// The host in the LAN behind `downstream(number)`. Each LAN has its own /64, which it shares with the gateway.
pub const fn lan_host(number: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, number, 0, 0, 0, 1, 0x10 * number)
}

/// The network in the picture above.
pub struct Lab {
    pub gw: Namespace,
    pub sw: Namespace,
    pub rtr: Namespace,
    pub lan: Namespace,
    /// Behind `br-lan2`, `br-lan3`, …
    pub more_lans: Vec<Namespace>,
}

pub struct LabOptions {
    /// A switch that snoops holds nothing back while there is no querier.
    pub querier: bool,
    /// The querier's: 1 or 2.
    pub mld_version: u8,
    pub lans: u16,
}

impl Default for LabOptions {
    fn default() -> Self {
        Self {
            querier: true,
            mld_version: 2,
            lans: 1,
        }
    }
}

impl Lab {
    pub fn new() -> Self {
        Self::with(&LabOptions::default())
    }

    /// Builds the network. With a querier the switch by then holds back what nobody joined.
    pub fn with(options: &LabOptions) -> Self {
        let [gw, sw, rtr, lan] = ["gw", "sw", "rtr", "lan"].map(Namespace::new);
        let more_lans = (2..=options.lans).map(|number| Namespace::new(&format!("lan{number}")));
        let lab = Self {
            gw,
            sw,
            rtr,
            lan,
            more_lans: more_lans.collect(),
        };
        lab.build_upstream(options.mld_version);
        for (number, lan) in (1..).zip(lab.lans()) {
            lab.build_lan(number, lan);
        }
        if options.querier {
            lab.start_querier();
        }
        lab
    }

    /// The groups in the switch's multicast database that go to the router's port.
    pub fn mdb(&self) -> BTreeSet<Ipv6Addr> {
        let group = |line: &String| word_after(line, "grp")?.parse().ok();
        self.mdb_lines().iter().filter_map(group).collect()
    }

    /// The same as `bridge mdb show` writes it.
    pub fn mdb_lines(&self) -> Vec<String> {
        let all = self.sw.run("bridge mdb show dev br0");
        let to_router = |line: &&str| word_after(line, "port") == Some("rtr");
        all.lines().filter(to_router).map(str::to_owned).collect()
    }

    /// Makes the first LAN's host solicit its router from its global address, as it does now and then by itself.
    pub fn lan_host_speaks(&self) {
        self.lan.flush_neighbors();
        let command_line = format!("ping -n -c 1 -W 2 -I {LAN_HOST} {LAN_ROUTER}%eth0");
        self.lan.run(&command_line);
    }

    /// Starts ndppd on the router, for every LAN, and waits until it listens.
    pub fn start_ndppd(&self) -> Process {
        // The configuration is a pipe, read once: no file to leave behind.
        let (configuration, mut input) = io::pipe().expect("a pipe");
        writeln!(input, "proxy {UPSTREAM} {{\nrouter yes").expect("it fits the pipe");
        for (number, _) in (1..).zip(self.lans()) {
            let (prefix, bridge) = (prefix(number), downstream(number));
            writeln!(input, "rule {prefix}:/64 {{ iface {bridge} }}").expect("it fits the pipe");
        }
        writeln!(input, "}}").expect("it fits the pipe");
        drop(input);
        let program = find_tool("ndppd").expect("ndppd is installed");
        let path = path_of_fd(&configuration);
        let ndppd = self.rtr.spawn(Command::new(program).args(["-c", &path]));
        eventually("ndppd listens upstream", SOON, || {
            assert!(ndppd.is_running(), "ndppd ended:\n{}", ndppd.log());
            let link = self.rtr.run(&format!("ip link show dev {UPSTREAM}"));
            link.contains("ALLMULTI")
        });
        ndppd
    }

    fn lans(&self) -> impl Iterator<Item = &Namespace> {
        iter::once(&self.lan).chain(&self.more_lans)
    }

    fn build_upstream(&self, mld_version: u8) {
        self.sw.veth("gw", &self.gw, "eth0");
        self.sw.veth("rtr", &self.rtr, UPSTREAM);
        // Short intervals: a switch relies on its querier only after a response interval.
        self.sw.run(&format!(
            "ip link add name br0 type bridge mcast_snooping 1 mcast_mld_version {mld_version} \
                mcast_query_response_interval 100 mcast_startup_query_interval 100
             ip link set dev br0 up
             ip link set dev gw master br0 addrgenmode none up
             ip link set dev rtr master br0 addrgenmode none up"
        ));
        self.gw.run(&format!(
            "ip link set dev eth0 up
             ip addr add {OUTSIDE}/128 dev lo"
        ));
        self.rtr.sysctl("net.ipv6.conf.all.forwarding", "1");
        self.rtr.run(&format!("ip link set dev {UPSTREAM} up"));
    }

    /// Puts one more /64 on the gateway, on both sides of the router, and on the LAN's host.
    fn build_lan(&self, number: u16, lan: &Namespace) {
        let (bridge, port) = (downstream(number), format!("lan{number}"));
        let (prefix, host) = (prefix(number), lan_host(number));
        self.gw.run(&format!("ip addr add {prefix}:1/64 dev eth0"));
        // The router takes the /64 to be in the LAN, but for the gateway.
        self.rtr.veth(&port, lan, "eth0");
        self.rtr.run(&format!(
            "ip link add name {bridge} type bridge mcast_snooping 0
             ip link set dev {port} master {bridge} addrgenmode none up
             ip link set dev {bridge} up
             ip addr add {LAN_ROUTER}/64 dev {bridge}
             ip addr add {prefix}:3/64 dev {bridge} metric 256
             ip addr add {prefix}:2/64 dev {UPSTREAM} metric 512
             ip route add {prefix}:1/128 dev {UPSTREAM}
             ip route replace default via {prefix}:1 dev {UPSTREAM}"
        ));
        lan.run(&format!(
            "ip link set dev eth0 up
             ip addr add {host}/64 dev eth0
             ip route add default via {LAN_ROUTER} dev eth0"
        ));
    }

    /// A bridge's querier that finds no link-local address to query from tries again 31 s later.
    fn start_querier(&self) {
        eventually("the switch has a link-local address", SOON, || {
            let addresses = self.sw.run("ip -6 addr show dev br0 scope link");
            addresses.contains("fe80::") && !addresses.contains("tentative")
        });
        self.sw
            .run("ip link set dev br0 type bridge mcast_querier 1");
        self.wait_until_enforced();
    }

    /// The switch floods until its querier has been there for a while, and no table says when. So ask the switch itself: send
    /// to a group that nobody joined, then to all nodes, which is never held back. Snooping is enforced when the second
    /// comes out of the router's port without the first.
    fn wait_until_enforced(&self) {
        let gateway = Tap::open(&self.gw, "eth0");
        let router = Tap::open(&self.rtr, UPSTREAM);
        let to_group = |group: Ipv6Addr| {
            // No next header (59), but a payload: without any, a bridge drops the packet.
            let header = [0x60, 0, 0, 0, 0, 8, 59, 1];
            let packet = [&header[..], &GATEWAY.octets(), &group.octets(), &[0; 8]].concat();
            Frame {
                source: gateway.mac(),
                destination: group_mac(group),
                packet,
            }
        };
        let unjoined = to_group(solicited_node(Ipv6Addr::from_bits(0xdead_beef)));
        let all_nodes = to_group(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1));
        eventually("the switch enforces snooping", 4 * SOON, || {
            gateway.send(&unjoined);
            gateway.send(&all_nodes);
            let mut flooded = false;
            while let Some(frame) = router.receive(SOON) {
                if frame == all_nodes {
                    return !flooded;
                }
                flooded |= frame == unjoined;
            }
            false
        });
    }
}

/// A network namespace: loopback up, and no duplicate address detection, so that addresses can be used at once.
pub struct Namespace {
    label: String,
    fd: OwnedFd,
}

impl Namespace {
    /// `label` is for messages only.
    pub fn new(label: &str) -> Self {
        // `unshare` moves the calling thread, so let it be one of its own.
        let created = thread::spawn(|| -> io::Result<OwnedFd> {
            unshare(CloneFlags::CLONE_NEWNET)?;
            Ok(File::open("/proc/thread-self/ns/net")?.into())
        });
        let created = created.join().expect("it does not panic");
        let fd = created.expect("the right to: call isolate() first");
        let label = label.to_owned();
        let namespace = Self { label, fd };
        namespace.sysctl("net.ipv6.conf.all.accept_dad", "0");
        namespace.sysctl("net.ipv6.conf.default.accept_dad", "0");
        namespace.run("ip link set dev lo up");
        namespace
    }

    /// Runs `work` on a new thread inside. Sockets it opens, children it starts, and `/proc/sys/net` are the namespace's;
    /// of `/proc/net` read `/proc/thread-self/net`.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                enter(&self.fd);
                work()
            });
            inside.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    /// Runs command lines, one a line, split at white space; what they wrote to standard output.
    ///
    /// # Panics
    /// With the command and its standard error when one fails.
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

    #[track_caller]
    pub fn try_run(&self, command_line: &str) -> Output {
        let mut words = command_line.split_whitespace();
        let tool = words.next().expect("a command");
        let mut command = Command::new(find_tool(tool).unwrap_or_else(|| tool.into()));
        let output = self.within(|| command.args(words).stdin(Stdio::null()).output());
        output.unwrap_or_else(|error| panic!("{}: `{command_line}`: {error}", self.label))
    }

    /// Starts a program, with the arguments, the additions to the environment and the folder in `command`.
    pub fn spawn(&self, command: &Command) -> Process {
        Process::start(self.fd.try_clone().expect("a file descriptor"), command)
    }

    /// Sets a kernel parameter, like `net.ipv6.conf.all.forwarding`.
    #[track_caller]
    pub fn sysctl(&self, name: &str, value: &str) {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        let written = self.within(|| fs::write(path, value));
        written.unwrap_or_else(|error| panic!("{}: {name} = {value}: {error}", self.label));
    }

    /// Adds a pair of connected interfaces, one here and one in `peer`.
    pub fn veth(&self, interface: &str, peer: &Self, peer_interface: &str) {
        // `ip` takes a path where it wants a namespace's name.
        let peer = format!("{peer_interface} netns {}", path_of_fd(&peer.fd));
        let pair = format!("{interface} type veth peer name {peer}");
        self.run(&format!("ip link add name {pair}"));
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

    /// Forgets the neighbors: the next packet to one solicits it anew.
    pub fn flush_neighbors(&self) {
        self.run("ip -6 neigh flush all");
    }

    /// Pings five times a second, then waits a second for answers.
    #[track_caller]
    pub fn ping(&self, from: Ipv6Addr, to: Ipv6Addr, count: u32) -> Ping {
        let output = self.try_run(&format!("ping -n -q -c {count} -i 0.2 -W 1 -I {from} {to}"));
        let stdout = String::from_utf8_lossy(&output.stdout);
        stdout
            .lines()
            .find_map(Ping::parse)
            .unwrap_or_else(|| panic!("{}: {output:?}", self.label))
    }
}

pub struct Ping {
    pub received: u32,
    /// ping's own line: "5 packets transmitted, 5 received, 0% packet loss, time 804ms".
    pub statistics: String,
}

impl Ping {
    fn parse(line: &str) -> Option<Self> {
        let received = word_after(line, "transmitted,")?.parse().ok()?;
        let statistics = line.to_owned();
        Some(Self {
            received,
            statistics,
        })
    }
}

/// A running program: killed and reaped when dropped, and killed by the kernel when this process ends first.
pub struct Process {
    pid: Pid,
    seen: Arc<Mutex<Seen>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Seen {
    lines: Vec<String>,
    exit: Option<ExitStatus>,
}

impl Process {
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// `None` while it runs.
    pub fn exit(&self) -> Option<ExitStatus> {
        lock(&self.seen).exit
    }

    pub fn is_running(&self) -> bool {
        self.exit().is_none()
    }

    /// What it wrote so far, to standard output and standard error, in its order.
    pub fn lines(&self) -> Vec<String> {
        lock(&self.seen).lines.clone()
    }

    pub fn log(&self) -> String {
        self.lines().join("\n")
    }

    /// Waits for a line that contains `needle`, also one written before the call.
    #[track_caller]
    pub fn wait_for_line(&self, needle: &str, deadline: Duration) -> String {
        let found = poll_for(deadline, || {
            self.lines().into_iter().find(|line| line.contains(needle))
        });
        found.unwrap_or_else(|| panic!("no {needle:?} within {deadline:?} in:\n{}", self.log()))
    }

    /// Waits for its end. The log is complete then.
    #[track_caller]
    pub fn wait(&self, deadline: Duration) -> ExitStatus {
        let exit = poll_for(deadline, || self.exit());
        exit.unwrap_or_else(|| panic!("still running after {deadline:?}:\n{}", self.log()))
    }

    /// Nothing happens when it has ended.
    pub fn signal(&self, signal: Signal) {
        // It is reaped under the same lock: until then the id is nobody else's.
        let seen = lock(&self.seen);
        if seen.exit.is_none() {
            kill(self.pid, signal).expect("our own child");
        }
    }

    /// One thread starts the child, reads and reaps it: what the kernel takes for the death of the parent is the end of the
    /// *thread* that started the child.
    fn start(namespace: OwnedFd, command: &Command) -> Self {
        let mut bound = Command::new("setpriv");
        bound.args(["--pdeathsig", "KILL", "--"]);
        bound.arg(command.get_program()).args(command.get_args());
        let added = command.get_envs();
        bound.envs(added.filter_map(|(name, value)| Some((name, value?))));
        bound.current_dir(command.get_current_dir().unwrap_or(".".as_ref()));

        let seen = Arc::new(Mutex::new(Seen::default()));
        let by_thread = Arc::clone(&seen);
        let (started, pid) = mpsc::channel();
        let thread = thread::spawn(move || {
            enter(&namespace);
            let (output, stdout) = io::pipe().expect("a pipe");
            let stderr = stdout.try_clone().expect("a file descriptor");
            bound.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
            let mut child = bound.spawn().expect("setpriv starts");
            drop(bound); // and with it this end of the pipe
            started.send(child.id()).expect("it is awaited");
            for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                lock(&by_thread).lines.push(line);
            }
            poll_for(Duration::MAX, || {
                let mut seen = lock(&by_thread);
                seen.exit = child.try_wait().expect("our own child");
                seen.exit
            });
        });
        let pid = Pid::from_raw(pid.recv().expect("it starts").cast_signed());
        let thread = Some(thread);
        Self { pid, seen, thread }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
        // A panic of the thread was printed, and panicking here would abort.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// An Ethernet frame that carries an IPv6 packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub source: [u8; 6],
    pub destination: [u8; 6],
    pub packet: Vec<u8>,
}

impl Frame {
    fn parse(octets: &[u8]) -> Option<Self> {
        let (&destination, rest) = octets.split_first_chunk()?;
        let (&source, rest) = rest.split_first_chunk()?;
        let packet = rest.strip_prefix(&ETHERTYPE_IPV6)?;
        Some(Self {
            source,
            destination,
            packet: packet.to_vec(),
        })
    }
}

/// The Ethernet address that stands for a multicast group (RFC 2464 §7).
pub const fn group_mac(group: Ipv6Addr) -> [u8; 6] {
    let [.., a, b, c, d] = group.octets();
    [0x33, 0x33, a, b, c, d]
}

/// A packet socket on an interface: sends frames as they are given, receives what passes in both directions.
pub struct Tap {
    socket: OwnedFd,
    link: LinkAddr,
}

impl Tap {
    #[track_caller]
    pub fn open(namespace: &Namespace, interface: &str) -> Self {
        let opened = namespace.within(|| -> nix::Result<Self> {
            let mut addresses = getifaddrs()?.filter(|found| found.interface_name == interface);
            let link = addresses.find_map(|found| found.address?.as_link_addr().copied());
            let link = link.ok_or(Errno::ENODEV)?;
            let (kind, protocol) = (SockType::Raw, SockProtocol::EthAll);
            let flags = SockFlag::SOCK_CLOEXEC;
            let socket = socket::socket(AddressFamily::Packet, kind, flags, protocol)?;
            socket::bind(socket.as_raw_fd(), &link)?;
            Ok(Self { socket, link })
        });
        opened.unwrap_or_else(|error| panic!("{}: tap on {interface}: {error}", namespace.label))
    }

    /// The interface's own Ethernet address.
    pub fn mac(&self) -> [u8; 6] {
        self.link.addr().expect("Linux has one for every link")
    }

    #[track_caller]
    pub fn send(&self, frame: &Frame) {
        let header = [&frame.destination[..], &frame.source, &ETHERTYPE_IPV6];
        let octets = [&header.concat()[..], &frame.packet].concat();
        let (fd, flags) = (self.socket.as_raw_fd(), MsgFlags::empty());
        let sent = socket::sendto(fd, &octets, &self.link, flags);
        sent.expect("the link is up and has room");
    }

    /// The next IPv6 packet, if one passes within `deadline`.
    pub fn receive(&self, deadline: Duration) -> Option<Frame> {
        let end = Instant::now() + deadline;
        let mut octets = [0; 65536];
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let left = i64::try_from(left.as_micros()).expect("a short deadline");
            // 0 would mean forever.
            let timeout = TimeVal::microseconds(left.max(1));
            socket::setsockopt(&self.socket, ReceiveTimeout, &timeout).expect("a time to wait");
            match socket::recvfrom::<LinkAddr>(self.socket.as_raw_fd(), &mut octets) {
                Ok((length, from)) => {
                    // Until it was bound, the socket heard every interface.
                    let here = from.is_some_and(|from| from.ifindex() == self.link.ifindex());
                    if let Some(frame) = Frame::parse(&octets[..length]).filter(|_| here) {
                        return Some(frame);
                    }
                }
                Err(Errno::EAGAIN) => return None,
                // The interface went down; it may come back.
                Err(Errno::ENETDOWN) => {}
                Err(error) => panic!("receive: {error}"),
            }
        }
    }
}

/// The first half of a LAN's /64.
fn prefix(number: u16) -> String {
    format!("2001:db8:{number:x}:")
}

fn enter(namespace: &OwnedFd) {
    setns(namespace, CloneFlags::CLONE_NEWNET).expect("the right to: call isolate() first");
}

/// By which another process reaches a file of this one.
fn path_of_fd(fd: &impl AsRawFd) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd())
}

/// Whoever panicked with the lock held has spoilt nothing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn word_after<'a>(line: &'a str, word: &str) -> Option<&'a str> {
    let mut words = line.split_whitespace();
    words.find(|candidate| *candidate == word)?;
    words.next()
}
