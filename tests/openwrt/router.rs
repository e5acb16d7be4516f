//! A router of stubs, and the calls that the init script made on it.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs};

use crate::procd::Procd;

pub const MLDPROXY: &str = env!("CARGO_BIN_EXE_mldproxy");

/// The path of a file in the repository.
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

pub fn read(path: &str) -> String {
    fs::read_to_string(repository(path)).expect(path)
}

pub fn find_tool(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// The path of the interpreter itself: a version manager's python3 would look for it by PATH.
pub fn python() -> &'static str {
    static PYTHON: LazyLock<String> = LazyLock::new(|| {
        let mut python = Command::new("python3");
        let output = python
            .args(["-c", "import sys; print(sys.executable)"])
            .output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    });
    PYTHON.trim_end()
}

/// Installs the stub of jsonfilter in a folder. It runs without a PATH too.
pub fn install_jsonfilter(folder: &Path) {
    let stub = read("tests/openwrt/stubs/jsonfilter.py");
    let path = folder.join("jsonfilter");
    fs::write(&path, format!("#!{}\n{stub}", python())).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// The configuration as the package ships it, after these `uci set`.
pub fn shipped_after(settings: &[&str]) -> String {
    const MAIN: &str = "config mldproxy 'main'\n";
    let mut text = read("openwrt/mldproxy/files/mldproxy.config");
    assert!(text.contains(MAIN));
    for setting in settings {
        let (path, value) = setting.split_once('=').expect("an assignment");
        match *path.split('.').collect::<Vec<_>>() {
            ["mldproxy", "main", option] => {
                text = text.replace(MAIN, &format!("{MAIN}\toption {option} '{value}'\n"));
            }
            ["mldproxy", section] => writeln!(text, "\nconfig {value} '{section}'").unwrap(),
            _ => panic!("{setting}"),
        }
    }
    text
}

pub struct Router {
    root: PathBuf,
    jail: bool,
    program: PathBuf,
    procd: RefCell<Procd>,
}

impl Router {
    /// A router with this /etc/config/mldproxy, with ujail and without a firewall. The networks
    /// `wan`, `lan` and `guest` are up.
    pub fn new(config: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let root = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("router-{}-{number}", std::process::id()));
        for folder in ["bin", "etc/config", "lib/functions", "usr/share/mldproxy"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        // The stubs need these programs, and the script needs `tr`. It can run no others.
        let busybox = find_tool("busybox").unwrap();
        for applet in ["cat", "chown", "grep", "mkdir", "mv", "rm", "sed", "tr"] {
            symlink(&busybox, root.join("bin").join(applet)).unwrap();
        }
        let network = repository("tests/openwrt/stubs/network.sh");
        fs::copy(network, root.join("lib/functions/network.sh")).unwrap();
        let firewall = repository("openwrt/mldproxy/files/mldproxy.firewall");
        fs::copy(firewall, root.join("usr/share/mldproxy/firewall.sh")).unwrap();
        install_jsonfilter(&root.join("bin"));
        let router = Router {
            root,
            jail: true,
            program: MLDPROXY.into(),
            procd: RefCell::default(),
        };
        router.write("services", "{}\n");
        router.write("below", "");
        router.write("protocols", "");
        router.write("networks", "wan\nlan\nguest\n");
        router.write("up", "wan pppoe-wan\nlan br-lan\nguest br-guest\n");
        router.write("etc/config/mldproxy", config);
        router
    }

    /// The path of a file of the router.
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// Replaces a file: `etc/config/…`, or one that the stubs read.
    pub fn write(&self, path: &str, text: &str) {
        fs::write(self.root.join(path), text).unwrap();
    }

    pub fn remove(&self, path: &str) {
        fs::remove_file(self.root.join(path)).unwrap();
    }

    pub fn has(&self, path: &str) -> bool {
        self.root.join(path).exists()
    }

    pub fn without_jail(mut self) -> Self {
        self.jail = false;
        self
    }

    /// The router with the test's own program in place of the one that the package installs.
    pub fn with_program(mut self, program: PathBuf) -> Self {
        self.program = program;
        self
    }

    /// Sends an event of netifd about a network. Returns the outcome of the command that procd runs
    /// for it; `None` if it runs none.
    pub fn event(&self, event: &str, network: &str) -> Option<Outcome> {
        let command = self.procd.borrow().command_for(event, network)?;
        assert_eq!(command[0], "/etc/init.d/mldproxy");
        Some(self.run(&command[1..].join(" ")))
    }

    /// Runs the init script with an action, which the name of an instance may follow.
    pub fn run(&self, action: &str) -> Outcome {
        let record = self.root.join("record");
        fs::write(&record, "").unwrap();
        self.write("asked", "");
        let ujail = self.root.join(if self.jail { "bin/cat" } else { "none" });
        let output = Command::new(find_tool("busybox").unwrap())
            .args(["ash"])
            .arg(repository("tests/openwrt/stubs/rc.common.sh"))
            .arg(repository("openwrt/mldproxy/files/mldproxy.init"))
            .args(action.split(' '))
            .current_dir(&self.root)
            .env_clear()
            .env("PATH", self.root.join("bin"))
            .env("IPKG_INSTROOT", &self.root)
            .env("RECORD", &record)
            .env("PROG_UNDER_TEST", &self.program)
            .env("UJAIL_UNDER_TEST", ujail)
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(action == "status" || said.is_empty(), "{action}: {said}");
        assert!(output.status.success(), "{action}: {}", output.status);

        let record = fs::read_to_string(record).unwrap();
        let calls = record.split_terminator('\x1e');
        let words = |call: &str| call.split_terminator('\x1f').map(str::to_owned).collect();
        let calls: Vec<Vec<String>> = calls.map(words).collect();
        let mut procd = self.procd.borrow_mut();
        let procd_did = procd.follow(&calls);
        self.write("services", &procd.list());
        let asked = fs::read_to_string(self.root.join("asked")).unwrap();
        Outcome {
            calls,
            procd_did,
            asked: asked.lines().map(str::to_owned).collect(),
            data: fs::read_to_string(self.root.join("data")).unwrap_or_default(),
            said,
        }
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        // Files that cannot be removed now stay in the build's own folder.
        let _ = fs::remove_dir_all(&self.root);
    }
}

/// The calls of the init script, and their effects.
pub struct Outcome {
    pub calls: Vec<Vec<String>>,
    /// The actions of procd: "start NAME", "stop NAME" or "restart NAME" of an instance.
    pub procd_did: Vec<String>,
    /// Each "SECTION OPTION" that the script read from a configuration.
    pub asked: BTreeSet<String>,
    /// The data of the service, as the stubs record it.
    pub data: String,
    /// The output of the script, which only `status` has.
    pub said: String,
}

impl Outcome {
    /// The arguments of each call of this function or program.
    pub fn of(&self, function: &str) -> Vec<&[String]> {
        let calls = self.calls.iter().filter(|call| call[0] == function);
        calls.map(|call| &call[1..]).collect()
    }

    /// The names of the instances that start, in order.
    pub fn instances(&self) -> Vec<&str> {
        let opened = self.of("procd_open_instance");
        let names = opened.iter().map(|arguments| &*arguments[0]);
        names.filter(|name| self.error(name).is_none()).collect()
    }

    /// Why an instance does not start, as procd is told.
    pub fn error(&self, instance: &str) -> Option<&str> {
        let calls = self.instance(instance).iter();
        let mut errors = calls.filter(|call| call[..2] == ["procd_append_param", "error"]);
        Some(&*errors.next()?[2])
    }

    /// The calls between the opening and the closing of an instance.
    pub fn instance(&self, name: &str) -> &[Vec<String>] {
        let after = |calls: &[Vec<String>], call: &[&str]| {
            let found = calls.iter().position(|other| other == call);
            found.unwrap_or_else(|| panic!("{call:?} is not among {:?}", self.calls)) + 1
        };
        let rest = &self.calls[after(&self.calls, &["procd_open_instance", name])..];
        &rest[..after(rest, &["procd_close_instance"]) - 1]
    }

    /// The arguments of an instance, without the program and the arguments of every instance.
    pub fn arguments(&self, instance: &str) -> Vec<&str> {
        let calls = self.instance(instance).iter();
        let command = ["procd_set_param", "command"];
        let words: Vec<&[String]> = calls
            .filter(|call| call[..2] == command)
            .map(|call| &call[2..])
            .collect();
        let [words] = words[..] else {
            panic!("{instance} has not one command: {words:?}")
        };
        let always = [MLDPROXY, "run", "--syslog", "--wait", "--name", instance];
        assert_eq!(words[..6], always);
        words[6..].iter().map(String::as_str).collect()
    }

    /// The log lines as "LEVEL: TEXT".
    pub fn log(&self) -> Vec<String> {
        let lines = self.of("logger");
        let line = |arguments: &&[String]| match *arguments {
            [tag, name, p, priority, text] => {
                assert_eq!([&**tag, &**name, &**p], ["-t", "mldproxy", "-p"]);
                let level = priority.strip_prefix("daemon.").expect("its facility");
                format!("{level}: {text}")
            }
            _ => panic!("{arguments:?}"),
        };
        lines.iter().map(line).collect()
    }

    /// The networks whose changes reload the service, in order.
    pub fn triggers(&self) -> Vec<&str> {
        let triggers = self.of("procd_add_interface_trigger");
        let network = |arguments: &&'_ [String]| {
            assert_eq!(arguments[0], "interface.update");
            assert_eq!(arguments[2..], ["/etc/init.d/mldproxy", "reload"]);
        };
        triggers.iter().for_each(network);
        triggers.iter().map(|arguments| &*arguments[1]).collect()
    }
}
