//! The provider, the router with the files of dist/hgw, and the HGW.

use std::fmt::Write as _;
use std::fs;
use std::ops::Deref;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::lab::{Namespace, Process, eventually, find_tool};

pub const NETWORKD: &str = "/lib/systemd/systemd-networkd";
/// A long time for what takes some exchanges of messages.
pub const SOON: Duration = Duration::from_secs(60);
/// The HGW's.
pub const MAC: &str = "02:00:00:00:0a:07";
/// Beyond the provider.
pub const FAR: &str = "2001:db8:ffff::1";
/// The prefixes of which the provider delegates a /56.
pub const PREFIXES: [&str; 2] = ["2001:db8:100::", "2001:db8:200::"];
/// What the provider sends. Option 17 has the enterprise 210 and the sub-options 202 (the number
/// 0312345678), 201, 203 twice with 210 between, and 204: in no order of their codes.
pub const OPTIONS: [(u16, &str); 5] = [
    (
        17,
        "000000d200ca000a3033313233343536373800c90006020000000a0700cb0002303100d20001aa00cb0002303\
         200cc000d056e74742d65076578616d706c",
    ),
    (22, "20010db8000000000000000000000022"),
    (23, "20010db8000000000000000000000053"),
    (24, "076578616d706c65047465737400"),
    (31, "20010db8000000000000000000000123"),
];

/// A folder of a test's own, which goes with it.
struct Folder(PathBuf);

impl Deref for Folder {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Files that cannot be removed stay in the system's folder for such files.
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub struct Chain {
    pub provider: Namespace,
    pub router: Namespace,
    pub hgw: Namespace,
    folder: Folder,
    provider_kea: Option<Process>,
    networkd: Process,
    relay: Process,
    kea: Process,
    /// Those that run to the end.
    _others: Vec<Process>,
    _far: Namespace,
}

/// The same options as [`Chain::options`] returns them.
pub fn owned(options: &[(u16, &str)]) -> Vec<(u16, String)> {
    let owned = options
        .iter()
        .map(|&(code, value)| (code, value.to_owned()));
    owned.collect()
}

/// The path of a file in the repository.
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn program(name: &str) -> Command {
    Command::new(find_tool(name).expect("the test needs it"))
}

impl Chain {
    /// A router on which everything runs, and whose relay has the prefix and the options.
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("hgw-{}-{number}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let folder = Folder(folder);
        fs::set_permissions(&*folder, fs::Permissions::from_mode(0o711)).unwrap();
        let [far, provider, router, hgw] = ["far", "provider", "router", "hgw"].map(Namespace::new);
        provider.veth("far", &far, "eth0");
        provider.veth("line", &router, "eth0");
        router.veth("eth2", &hgw, "eth0");
        hgw.run(&format!("ip link set dev eth0 address {MAC}"));
        for (namespace, links) in [
            (&provider, &["far", "line"][..]),
            (&far, &["eth0"]),
            (&hgw, &["eth0"]),
        ] {
            links.iter().for_each(|link| namespace.set_up(link));
        }
        provider.sysctl("net.ipv6.conf.all.forwarding", "1");
        router.sysctl("net.ipv6.conf.all.forwarding", "1");
        // The host behind the provider, and the gateway of its prefixes.
        far.run(&format!(
            "ip -6 address add {FAR}/64 dev eth0\nip -6 route add default via fe80::1 dev eth0"
        ));
        provider.run(
            "ip -6 address add fe80::1/64 dev far\n\
             ip -6 address add 2001:db8:ffff::2/64 dev far\n\
             ip -4 address add 192.0.2.1/30 dev line",
        );
        router.set_up("eth0");
        router.set_up("eth2");
        eventually("every link is up", SOON, || {
            provider.is_ready("line") && router.is_ready("eth2") && hgw.is_ready("eth0")
        });

        let advertiser = folder.join("provider-radvd.conf");
        fs::write(
            &advertiser,
            "interface line { AdvSendAdvert on; AdvManagedFlag on; AdvOtherConfigFlag on; \
             MinRtrAdvInterval 3; MaxRtrAdvInterval 4; };\n",
        )
        .unwrap();
        let others = vec![
            radvd(&provider, &advertiser, &folder.join("provider-radvd.pid")),
            radvd(
                &router,
                &repository("dist/hgw/radvd.conf"),
                &folder.join("radvd.pid"),
            ),
        ];
        let provider_kea = start_provider(&provider, &folder, PREFIXES[0], &OPTIONS);
        route_to(&provider, &router, PREFIXES[0]);
        let networkd = start_networkd(&router);
        let relay = start_relay(&router, &folder);
        relay.wait_for_line("options relayed: 17, 22, 23, 24, 31", SOON);
        let kea = start_kea(&router, &folder);
        let chain = Self {
            provider,
            router,
            hgw,
            folder,
            provider_kea: Some(provider_kea),
            networkd,
            relay,
            kea,
            _others: others,
            _far: far,
        };
        chain.load_bridge();
        chain
    }

    /// The command line of the HGW's client.
    pub fn client(&self, action: &str) -> String {
        let client = repository("tests/hgw/client.py");
        let lease = self.folder.join("lease");
        let file = if action == "ra" {
            String::new()
        } else {
            lease.display().to_string()
        };
        format!("python3 {} eth0 {action} {file}", client.display())
    }

    /// What the HGW gets, as its client prints it.
    pub fn hgw_gets(&self, action: &str) -> String {
        self.hgw.run(&self.client(action))
    }

    /// The one prefix of a lease that is valid.
    pub fn only_prefix(&self, lease: &str) -> String {
        let prefixes = lease
            .split_once("{\"prefixes\": {")
            .unwrap()
            .1
            .split_once('}')
            .unwrap()
            .0;
        let valid: Vec<&str> = prefixes
            .split(", ")
            .filter(|prefix| !prefix.ends_with(": 0"))
            .collect();
        let [prefix] = valid[..] else {
            panic!("{lease}")
        };
        prefix.split('"').nth(1).unwrap().to_owned()
    }

    /// The options of a lease, each with its octets.
    pub fn options(&self, lease: &str) -> Vec<(u16, String)> {
        let options = lease.split_once("\"options\": [").unwrap().1;
        let options = options
            .split('[')
            .skip(1)
            .map(|option| option.split(']').next().unwrap());
        options
            .map(|option| {
                let (code, value) = option.split_once(", ").unwrap();
                (code.parse().unwrap(), value.trim_matches('"').to_owned())
            })
            .collect()
    }

    /// An address of a prefix.
    pub fn host(prefix: &str) -> String {
        prefix.replace("/60", "7")
    }

    /// Has the HGW use an address of its prefix, by the router.
    pub fn hgw_uses(&self, prefix: &str) {
        let router = self.router.link_local_of("eth2");
        self.hgw.run(&format!(
            "ip -6 address replace {}/128 dev lo\n\
             ip -6 route replace default via {router} dev eth0",
            Self::host(prefix)
        ));
    }

    pub fn stop_provider(&mut self) {
        self.provider_kea = None;
    }

    pub fn restart_provider(&mut self, prefix: &str, options: &[(u16, &str)]) {
        self.provider_kea = None;
        self.provider_kea = Some(start_provider(
            &self.provider,
            &self.folder,
            prefix,
            options,
        ));
        route_to(&self.provider, &self.router, prefix);
    }

    pub fn restart_networkd(&mut self) {
        self.networkd.signal(Signal::SIGTERM);
        self.networkd.wait(SOON);
        self.networkd = start_networkd(&self.router);
        eventually("networkd has a prefix", SOON, || {
            !self
                .router
                .run("ip -6 route show type unreachable proto dhcp")
                .is_empty()
        });
    }

    pub fn restart_kea(&mut self) {
        self.kea.signal(Signal::SIGTERM);
        self.kea.wait(SOON);
        self.kea = start_kea(&self.router, &self.folder);
    }

    pub fn restart_relay(&mut self) {
        self.relay.signal(Signal::SIGTERM);
        self.relay.wait(SOON);
        self.relay = start_relay(&self.router, &self.folder);
    }

    /// Has the relay look, until it says this.
    pub fn router_looks(&self, expected: &str) {
        eventually(expected, SOON, || {
            self.relay.signal(Signal::SIGHUP);
            self.relay.log().contains(expected)
        });
    }

    pub fn router_looks_again(&self) {
        self.relay.signal(Signal::SIGHUP);
    }

    /// A relay on a router of its own, on which this was run before.
    pub fn relay_of(&self, command: &str) -> Process {
        let router = Namespace::new("another router");
        router.run(command);
        router.spawn(&relay(
            &self.folder.join("template.json"),
            &self.folder.join("other.json"),
        ))
    }

    pub fn load_bridge(&self) {
        let rules = repository("dist/hgw/hgw.nft");
        self.router.run(&format!(
            "nft -D upstream=eth0 -D hgw=eth2 -f {}",
            rules.display()
        ));
    }

    pub fn unload_bridge(&self) {
        self.router.run("nft delete table netdev hgw");
    }

    /// Ends all of the router's services as their units say. Returns the router.
    pub fn stop(self) -> Namespace {
        let Self {
            router,
            networkd,
            relay,
            kea,
            ..
        } = self;
        drop((networkd, relay, kea));
        for unit in [
            "hgw-dhcp6.service",
            "hgw-relay.service",
            "hgw-bridge@.service",
        ] {
            let unit = fs::read_to_string(repository("dist/hgw").join(unit)).unwrap();
            for line in unit.lines() {
                let command = line
                    .strip_prefix("ExecStop=-")
                    .or(line.strip_prefix("ExecStopPost=-"));
                if let Some(command) = command {
                    router.run(command);
                }
            }
        }
        router
    }

    pub fn capture(&self) -> Capture {
        let command = [
            &["-i", "line", "-n", "-e", "-l", "-Q", "in"][..],
            &["--immediate-mode"],
        ]
        .concat();
        let process = self.provider.spawn(program("tcpdump").args(command));
        process.wait_for_line("listening on line", SOON);
        Capture { process }
    }

    /// All lines of the router's programs.
    pub fn logs(&self) -> String {
        [&self.networkd, &self.relay, &self.kea]
            .map(Process::log)
            .concat()
    }

    /// The router's files that hold this text, each with its mode.
    pub fn files_with(&self, text: &str) -> Vec<(String, u32)> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&*self.folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            // The provider's own, and the HGW's lease, are not the router's.
            let others = name.starts_with("provider") || name == "lease" || !path.is_file();
            if !others && fs::read_to_string(&path).unwrap().contains(text) {
                found.push((name, path.metadata().unwrap().permissions().mode() & 0o777));
            }
        }
        found
    }
}

/// A capture of what arrives at the provider.
pub struct Capture {
    process: Process,
}

impl Capture {
    /// All frames up to now, one a line.
    pub fn frames(self) -> Vec<String> {
        self.process.signal(Signal::SIGTERM);
        self.process.wait(SOON);
        self.process.lines()
    }
}

fn radvd(namespace: &Namespace, file: &Path, pid: &Path) -> Process {
    let mut command = program("radvd");
    command
        .args(["--nodaemon", "--logmethod", "stderr", "--config"])
        .arg(file);
    namespace.spawn(command.arg("--pidfile").arg(pid))
}

fn kea(namespace: &Namespace, folder: &Path, file: &str) -> Process {
    let file = folder.join(file);
    let mut command = program("kea-dhcp6");
    command
        .arg("-c")
        .arg(file)
        .env("KEA_LOCKFILE_DIR", "none")
        .env("KEA_PIDFILE_DIR", folder);
    let process = namespace.spawn(&command);
    process.wait_for_line("DHCP6_STARTED", SOON);
    process
}

fn start_provider(
    provider: &Namespace,
    folder: &Path,
    prefix: &str,
    options: &[(u16, &str)],
) -> Process {
    let mut relayed = String::new();
    for (code, value) in options {
        let comma = if relayed.is_empty() { "" } else { ", " };
        let value = value.replace(' ', "");
        write!(
            relayed,
            "{comma}{{ \"code\": {code}, \"supersede\": \"0x{value}\" }}"
        )
        .unwrap();
    }
    let hook = find_hook("libdhcp_flex_option.so");
    let text = format!(
        r#"{{ "Dhcp6": {{ "interfaces-config": {{ "interfaces": ["line"] }},
            "lease-database": {{ "type": "memfile", "persist": false }},
            "server-id": {{ "type": "LL", "persist": false }},
            "hooks-libraries": [ {{ "library": "{hook}",
                "parameters": {{ "options": [ {relayed} ] }} }} ],
            "subnet6": [ {{ "subnet": "2001:db8::/32", "interface": "line", "pd-pools": [
                {{ "prefix": "{prefix}", "prefix-len": 56, "delegated-len": 56 }} ] }} ],
            "loggers": [ {{ "name": "kea-dhcp6", "severity": "INFO",
                "output_options": [ {{ "output": "stderr" }} ] }} ] }} }}"#
    );
    fs::write(folder.join("provider.json"), text).unwrap();
    kea(provider, folder, "provider.json")
}

fn find_hook(name: &str) -> String {
    let folders = fs::read_dir("/usr/lib").unwrap();
    let mut hooks = folders.map(|folder| folder.unwrap().path().join("kea/hooks").join(name));
    hooks
        .find(|hook| hook.exists())
        .expect("Kea's hooks")
        .display()
        .to_string()
}

/// Routes what the provider delegates to the router.
fn route_to(provider: &Namespace, router: &Namespace, prefix: &str) {
    let router = router.link_local_of("eth0");
    provider.run(&format!(
        "ip -6 route replace {prefix}/56 via {router} dev line"
    ));
}

fn start_networkd(router: &Namespace) -> Process {
    let script = repository("tests/hgw/networkd.sh");
    router.spawn(Command::new(script).arg(repository("dist/hgw")))
}

fn relay(template: &Path, configuration: &Path) -> Command {
    let mut command = program("python3");
    command
        .arg(repository("dist/hgw/hgw-relay"))
        .args(["eth0", "eth2"]);
    command.arg(template).arg(configuration);
    command
}

/// The relay with the template of dist/hgw, all of whose files are in the folder.
fn start_relay(router: &Namespace, folder: &Path) -> Process {
    let template = fs::read_to_string(repository("dist/hgw/kea-dhcp6.json")).unwrap();
    let here = folder.display().to_string();
    let scripts = repository("dist/hgw").display().to_string();
    let template = template
        .replace("/run/hgw", &here)
        .replace("/var/lib/hgw", &here)
        .replace("/usr/local/lib/hgw", &scripts);
    fs::write(folder.join("template.json"), template).unwrap();
    router.spawn(&relay(
        &folder.join("template.json"),
        &folder.join("kea-dhcp6.json"),
    ))
}

fn start_kea(router: &Namespace, folder: &Path) -> Process {
    kea(router, folder, "kea-dhcp6.json")
}
