//! A router with the package's real scripts and a stub of each program of OpenWrt. The stub of uci
//! keeps what is staged apart from what is committed.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs};

use crate::router::{find_tool, install_jsonfilter, python, read, repository};

/// Where the package installs each of its scripts, but for the init script.
const SCRIPTS: [(&str, &str); 6] = [
    ("hgw.options", "usr/share/mldproxy-hgw/options.sh"),
    ("hgw.staged", "usr/share/mldproxy-hgw/staged.sh"),
    ("hgw.odhcp6c", "etc/odhcp6c.user.d/hgw"),
    ("hgw.hotplug", "etc/hotplug.d/net/90-hgw"),
    ("hgw.status", "usr/sbin/hgw"),
    ("hgw.rpcd", "usr/libexec/rpcd/hgw"),
];
/// The beginnings of the paths that the scripts name. Each is below the router's folder here.
const PATHS: [&str; 8] = [
    "/var/run/hgw",
    "/tmp/.uci",
    "/sys/class/net",
    "/usr/sbin/",
    "/etc/init.d/odhcpd",
    "/etc/init.d/hgw",
    "/usr/share/mldproxy-hgw",
    "/lib/functions/",
];
/// The network's configuration of a router as OpenWrt 25.12 makes it.
const NETWORK: &str = "
config globals 'globals'
	option dhcp_default_duid '00046b1c0000000000000000000000000001'

config device
	option name 'br-lan'
	option type 'bridge'
	list ports 'lan1'
	list ports 'lan2'

config interface 'lan'
	option device 'br-lan'

config interface 'wan6'
	option device 'eth0'
	option proto 'dhcpv6'
	option reqprefix '56'
";
const FIREWALL: &str = "
config zone 'cfgwan'
	option name 'wan'
	list network 'wan'
	list network 'wan6'
";

pub struct Router {
    root: PathBuf,
}

impl Router {
    /// A router with these options in the section `main` of /etc/config/hgw. `wan6` is up on eth0,
    /// and the HGW is to be on eth2.
    pub fn new(options: &[&str]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let root = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("hgw-{}-{number}", std::process::id()));
        let router = Router { root };
        for folder in [
            "bin",
            "etc/config",
            "etc/init.d",
            "lib/functions",
            "var/run",
        ] {
            fs::create_dir_all(router.path(folder)).unwrap();
        }
        let busybox = find_tool("busybox").unwrap();
        for applet in [
            "cat", "chmod", "grep", "ls", "mkdir", "mv", "rm", "sed", "sh", "tr",
        ] {
            symlink(&busybox, router.path("bin").join(applet)).unwrap();
        }
        router.install(
            "bin/uci",
            &format!("#!{} -IS\n{}", python(), read("tests/openwrt/stubs/uci.py")),
        );
        install_jsonfilter(&router.path("bin"));
        let program = read("tests/openwrt/stubs/program.sh");
        for name in [
            "bin/ubus",
            "bin/nft",
            "bin/ip",
            "bin/logger",
            "etc/init.d/odhcpd",
        ] {
            router.install(name, &format!("#!{} ash\n{program}", busybox.display()));
        }
        for (file, to) in SCRIPTS {
            router.install(to, &router.placed(file));
        }
        router.install("etc/init.d/hgw", &router.placed("hgw.init"));
        router.write("usr/sbin/odhcpd", "dhcpv6_raw");
        router.write(
            "lib/functions/network.sh",
            &read("tests/openwrt/stubs/network.sh"),
        );
        router.write("up", "wan6 eth0\n");
        for file in ["below", "prefixes", "assignments", "calls"] {
            router.write(file, "");
        }
        for (device, mac) in [("eth0", "02:00:00:00:0A:01"), ("eth2", "02:00:00:00:0a:02")] {
            router.write(&format!("sys/class/net/{device}/address"), mac);
            router.write(&format!("sys/class/net/{device}/flags"), "0x1003\n");
        }
        let main = options
            .iter()
            .map(|each| format!("\t{each}\n"))
            .collect::<String>();
        router.write("etc/config/hgw", &format!("config hgw 'main'\n{main}"));
        router.write("etc/config/network", NETWORK);
        router.write("etc/config/firewall", FIREWALL);
        router.write(
            "etc/config/dhcp",
            "config dhcp 'lan'\n\toption interface 'lan'\n",
        );
        router
    }

    /// A router with the service on, on eth2.
    pub fn on(options: &[&str]) -> Self {
        Self::new(&[&["option enabled 1", "option device eth2"], options].concat())
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    pub fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn install(&self, path: &str, text: &str) {
        self.write(path, text);
        fs::set_permissions(self.path(path), fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// The text of a script of the package, with the router's paths.
    fn placed(&self, file: &str) -> String {
        let mut text = read(&format!("openwrt/mldproxy-hgw/files/{file}"));
        text = text.replace("${IPKG_INSTROOT}/", "/");
        let shell = format!("#!{}\n", self.path("bin/sh").display());
        text = text.replace("#!/bin/sh\n", &shell);
        for path in PATHS {
            text = text.replace(path, &format!("{}{path}", self.root.display()));
        }
        text
    }

    /// Runs busybox's shell with these arguments and variables. Returns the output.
    fn shell(&self, arguments: &[&str], variables: &[(&str, &str)]) -> String {
        let output = Command::new(find_tool("busybox").unwrap())
            .arg("ash")
            .args(arguments)
            .current_dir(&self.root)
            .env_clear()
            .env("PATH", self.path("bin"))
            .env("IPKG_INSTROOT", &self.root)
            .env("RECORD", self.path("record"))
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        String::from_utf8(said).unwrap()
    }

    /// Runs the init script with an action, under the stub of rc.common. It may not print anything.
    pub fn service(&self, action: &str) {
        let stub = repository("tests/openwrt/stubs/rc.common.sh");
        // The stub tells the services apart by the name of the script.
        let script = self.path("hgw.init");
        fs::copy(self.path("etc/init.d/hgw"), &script).unwrap();
        let arguments = [stub.to_str().unwrap(), script.to_str().unwrap(), action];
        assert_eq!(self.shell(&arguments, &[]), "", "{action}");
    }

    /// Sources the file for odhcp6c's script as that does, at an event.
    pub fn lease(&self, event: &str, variables: &[(&str, &str)]) {
        let script = self.path("etc/odhcp6c.user.d/hgw");
        let source = format!("(. {})", script.display());
        let wan6 = [
            ("INTERFACE", "wan6"),
            ("PREFIXES", "2001:db8:100:200::/56,7200,14400"),
        ];
        let variables = [&wan6, variables].concat();
        assert_eq!(
            self.shell(&["-c", &source, "script", "eth0", event], &variables),
            ""
        );
    }

    /// The output of a script of the package.
    pub fn output(&self, script: &str, arguments: &[&str]) -> String {
        let script = self.path(script);
        self.shell(&[&[script.to_str().unwrap()], arguments].concat(), &[])
    }

    /// The output of uci, without the end of its last line.
    pub fn uci(&self, arguments: &[&str]) -> String {
        let uci = self.path("bin/uci");
        let output = Command::new(uci).args(arguments).output().unwrap();
        String::from_utf8(output.stdout)
            .unwrap()
            .trim_end()
            .to_owned()
    }

    /// The calls of programs since the last time, each of a program whose name begins so.
    pub fn calls(&self, beginning: &str) -> Vec<String> {
        let calls = fs::read_to_string(self.path("calls")).unwrap();
        let calls = calls.lines().filter(|call| call.starts_with(beginning));
        calls.map(str::to_owned).collect()
    }

    /// The log lines as "LEVEL: TEXT".
    pub fn log(&self) -> Vec<String> {
        let lines = self.calls("logger ");
        let line = |call: &String| {
            let line = call
                .strip_prefix("logger -t hgw -p daemon.")
                .expect("its name");
            line.replacen(' ', ": ", 1)
        };
        lines.iter().map(line).collect()
    }

    pub fn forget_calls(&self) {
        self.write("calls", "");
        self.write("record", "");
    }

    /// The first argument of each call of this function of procd.
    pub fn procd(&self, function: &str) -> Vec<String> {
        let record = fs::read_to_string(self.path("record")).unwrap_or_default();
        let calls = record
            .split_terminator('\x1e')
            .map(|call| call.split('\x1f'));
        calls
            .filter_map(|mut call| (call.next() == Some(function)).then(|| call.next()))
            .map(|argument| argument.unwrap_or_default().to_owned())
            .collect()
    }

    /// Every file below the router's folder that holds this text.
    pub fn files_with(&self, text: &str) -> Vec<String> {
        let mut folders = vec![self.root.clone()];
        let mut found = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_symlink() {
                } else if path.is_dir() {
                    folders.push(path);
                } else if String::from_utf8_lossy(&fs::read(&path).unwrap()).contains(text) {
                    let path = path.strip_prefix(&self.root).unwrap();
                    found.push(path.display().to_string());
                }
            }
        }
        found
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        // Files that cannot be removed now stay in the build's own folder.
        let _ = fs::remove_dir_all(&self.root);
    }
}
