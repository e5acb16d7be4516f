//! FRR, with which a router speaks PIM (RFC 7761) and is an MLD querier.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Once;

use nix::mount::{MsFlags, mount};

use super::{FRR_FOLDER, Namespace, Process, SOON, eventually, find_tool};

/// A router that runs FRR.
pub struct Frr<'a> {
    namespace: &'a Namespace,
    run: String,
    zebra: Process,
    pim: Process,
}

impl<'a> Frr<'a> {
    /// Starts zebra and pim6d. pim6d may not have read its configuration yet.
    #[track_caller]
    pub fn start(namespace: &'a Namespace, pim_configuration: &str) -> Self {
        let root = root();
        let run = format!("/run/{}", namespace.label());
        let folder = root.join(run.trim_start_matches('/'));
        // A former router of this name may have left its sockets.
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).expect("a folder for the router");
        fs::write(folder.join("zebra.conf"), "").expect("a file");
        fs::write(folder.join("pim6d.conf"), pim_configuration).expect("a file");
        let daemon = |name: &str| {
            let mut command = Command::new(find_tool("chroot").expect("coreutils"));
            command.arg(&root).arg(format!("/usr/lib/frr/{name}"));
            command.args(["-u", "root", "-g", "root", "-A", "127.0.0.1", "-P", "0"]);
            command.args(["-z", &format!("{run}/zserv"), "--vty_socket", &run]);
            command.args(["-i", &format!("{run}/{name}.pid")]);
            command.args(["-f", &format!("{run}/{name}.conf")]);
            namespace.spawn(&command)
        };
        let zebra = daemon("zebra");
        eventually("zebra listens", SOON, || {
            assert!(zebra.is_running(), "{}", zebra.log());
            folder.join("zserv").exists()
        });
        Frr {
            namespace,
            pim: daemon("pim6d"),
            zebra,
            run,
        }
    }

    /// What a command of FRR's shell prints; nothing while a daemon is not ready.
    pub fn show(&self, what: &str) -> String {
        let mut command = Command::new(find_tool("chroot").expect("coreutils"));
        command
            .arg(root())
            .args(["/usr/bin/vtysh", "--vty_socket", &self.run]);
        command.args(["-c", &format!("show {what}")]);
        let output = self.namespace.within(|| command.output());
        let output = output.expect("vtysh runs");
        let output = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&output).into_owned()
    }

    /// pim6d and zebra.
    pub fn into_processes(self) -> [Process; 2] {
        [self.pim, self.zebra]
    }
}

/// The root of FRR's programs, with this process's own /proc, /dev and an empty /run in it. The
/// mounts end with this process.
fn root() -> PathBuf {
    let root = PathBuf::from(FRR_FOLDER);
    static MOUNTED: Once = Once::new();
    MOUNTED.call_once(|| {
        let nothing = None::<&str>;
        for folder in ["/proc", "/dev"] {
            let to = root.join(folder.trim_start_matches('/'));
            let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
            mount(Some(folder), &to, nothing, flags, nothing).expect("root may mount");
        }
        for folder in ["run", "var/tmp", "var/lib/frr"] {
            let (to, flags) = (root.join(folder), MsFlags::empty());
            mount(nothing, &to, Some("tmpfs"), flags, nothing).expect("root may mount");
        }
    });
    root
}
