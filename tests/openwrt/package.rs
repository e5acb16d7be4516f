//! The files of the feed's package.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::router::{read, repository};

crate::tests![
    the_makefile_has_the_fields_that_the_feed_requires,
    the_package_has_the_version_and_licence_of_the_program,
    the_makefile_installs_every_file_where_programs_look_for_it,
    cargo_builds_the_sources_that_the_makefile_copies,
    the_feeds_ci_finds_the_version_of_the_program,
    installing_the_package_reloads_rpcd_on_a_router,
    the_jail_keeps_two_capabilities,
    shellcheck_finds_no_fault_in_the_scripts,
];

const MAKEFILE: &str = "openwrt/mldproxy/Makefile";

/// The value of a variable or a field.
pub fn value<'m>(makefile: &'m str, name: &str) -> &'m str {
    let assignment = format!("{name}:=");
    let mut values = makefile
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix(&assignment));
    let value = values.next().unwrap_or_else(|| panic!("no {name}"));
    assert_eq!(values.next(), None, "{name} is there twice");
    value
}

/// The lines between `define NAME` and `endef`.
fn definition<'m>(makefile: &'m str, name: &str) -> &'m str {
    let (_, rest) = makefile
        .split_once(&format!("define {name}\n"))
        .unwrap_or_else(|| panic!("no {name}"));
    rest.split_once("endef\n").expect("an end").0
}

fn the_makefile_has_the_fields_that_the_feed_requires() {
    let makefile = read(MAKEFILE);
    assert_eq!(value(&makefile, "PKG_NAME"), "mldproxy");
    assert!(value(&makefile, "PKG_RELEASE").parse::<u32>().unwrap() > 0);
    assert!(value(&makefile, "PKG_MAINTAINER").contains('@'));
    assert_eq!(value(&makefile, "PKG_BUILD_DEPENDS"), "rust/host");

    let fields = definition(&makefile, "Package/mldproxy");
    assert_eq!(value(fields, "SECTION"), "net");
    assert_eq!(value(fields, "CATEGORY"), "Network");
    assert!(!value(fields, "TITLE").is_empty());
    assert_eq!(value(fields, "DEPENDS"), "$(RUST_ARCH_DEPENDS) @IPV6");
    // The build system would take an indented line for another file.
    assert_eq!(
        definition(&makefile, "Package/mldproxy/conffiles"),
        "/etc/config/mldproxy\n"
    );

    // These lines have to come in this order.
    let mut rest = &*makefile;
    for line in [
        "include $(TOPDIR)/rules.mk\n",
        "include $(INCLUDE_DIR)/package.mk\n",
        "RUST_PACKAGE_MK:=$(wildcard ../../lang/rust/rust-package.mk)\n",
        "$(TOPDIR)/feeds/packages/lang/rust/rust-package.mk)\n",
        "CARGO_PKG_VARS+=CARGO_PROFILE_RELEASE_PANIC=abort\n",
        "$(eval $(call RustBinPackage,mldproxy))\n",
        "$(eval $(call BuildPackage,mldproxy))\n",
    ] {
        let (_, after) = rest.split_once(line).unwrap_or_else(|| panic!("{line}"));
        rest = after;
    }
}

fn the_package_has_the_version_and_licence_of_the_program() {
    let makefile = read(MAKEFILE);
    assert_eq!(value(&makefile, "PKG_VERSION"), env!("CARGO_PKG_VERSION"));
    assert_eq!(value(&makefile, "PKG_LICENSE"), env!("CARGO_PKG_LICENSE"));
    let minimum = format!("Needs Rust {} or newer", env!("CARGO_PKG_RUST_VERSION"));
    assert!(makefile.contains(&minimum), "{minimum}");
    let copied = value(&makefile, "MLDPROXY_SOURCES");
    for file in value(&makefile, "PKG_LICENSE_FILES").split(' ') {
        assert!(copied.split(' ').any(|other| other == file), "{file}");
    }
}

fn the_makefile_installs_every_file_where_programs_look_for_it() {
    let makefile = read(MAKEFILE);
    let mut installed: Vec<(&str, &str, &str)> = Vec::new();
    for line in definition(&makefile, "Package/mldproxy/install").lines() {
        match *line.split_whitespace().collect::<Vec<_>>() {
            ["$(INSTALL_DIR)", ..] => assert!(installed.is_empty(), "folders come first"),
            [how, from, to] => installed.push((how, from, to.strip_prefix("$(1)").unwrap())),
            _ => panic!("{line}"),
        }
    }
    // INSTALL_BIN installs with mode 0755, INSTALL_CONF with 0600, INSTALL_DATA with 0644.
    let config = "/etc/config/mldproxy";
    let capabilities = "/etc/capabilities/mldproxy.json";
    let firewall = "/usr/share/mldproxy/firewall.sh";
    let program = "$(PKG_INSTALL_DIR)/bin/mldproxy";
    assert_eq!(
        installed,
        [
            ("$(INSTALL_BIN)", program, "/usr/sbin/mldproxy"),
            ("$(INSTALL_CONF)", "./files/mldproxy.config", config),
            (
                "$(INSTALL_BIN)",
                "./files/mldproxy.init",
                "/etc/init.d/mldproxy"
            ),
            ("$(INSTALL_DATA)", "./files/mldproxy.firewall", firewall),
            (
                "$(INSTALL_BIN)",
                "./files/mldproxy.rpcd",
                "/usr/libexec/rpcd/mldproxy"
            ),
            (
                "$(INSTALL_DATA)",
                "./files/mldproxy.capabilities.json",
                capabilities
            ),
        ]
    );
    let mut files: Vec<String> = fs::read_dir(repository("openwrt/mldproxy/files"))
        .unwrap()
        .map(|file| format!("./files/{}", file.unwrap().file_name().display()))
        .collect();
    files.sort();
    let mut expected: Vec<&str> = installed[1..].iter().map(|(_, from, _)| *from).collect();
    expected.sort_unstable();
    assert_eq!(files, expected);
    for (_, _, to) in &installed {
        let (folder, _) = to.rsplit_once('/').unwrap();
        let made = format!("$(1){folder}");
        assert!(makefile.contains(&made), "{made}");
    }

    let script = read("openwrt/mldproxy/files/mldproxy.init");
    assert!(script.starts_with("#!/bin/sh /etc/rc.common\n"));
    for line in [
        "USE_PROCD=1\n",
        "PROG=/usr/sbin/mldproxy\n",
        capabilities,
        firewall,
    ] {
        assert!(script.contains(line), "{line}");
    }
}

fn cargo_builds_the_sources_that_the_makefile_copies() {
    let makefile = read(MAKEFILE);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("feed");
    // Keeps what an earlier run compiled, but not what it copied.
    let sources = folder.join("sources");
    let _ = fs::remove_dir_all(&sources);
    fs::create_dir_all(&sources).unwrap();
    let status = Command::new("cp")
        .args(["-a", "--parents"])
        .args(value(&makefile, "MLDPROXY_SOURCES").split(' '))
        .arg(&sources)
        .current_dir(repository(""))
        .status();
    assert!(status.unwrap().success());

    let output = Command::new(env!("CARGO"))
        .args([
            "check",
            "--locked",
            "--offline",
            "--release",
            "--bin",
            "mldproxy",
        ])
        .current_dir(&sources)
        .env("CARGO_TARGET_DIR", folder.join("target"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

fn the_feeds_ci_finds_the_version_of_the_program() {
    let folder = Path::new(env!("CARGO_BIN_EXE_mldproxy")).parent().unwrap();
    let passes = |arguments: &[&str]| {
        let mut script = Command::new(repository("openwrt/mldproxy/test.sh"));
        let status = script.args(arguments).env("PATH", folder).status();
        status.unwrap().success()
    };
    let version = env!("CARGO_PKG_VERSION");
    assert!(passes(&["mldproxy", version]));
    assert!(!passes(&["mldproxy", "9.9.9"]));
    assert!(passes(&["another", "9.9.9"]));
}

/// Runs a package's postinst script with `folder` in place of /etc/init.d. Returns the arguments of
/// its call of rpcd's script.
pub fn asked_of_rpcd(script: &str, folder: &Path, root: &str) -> String {
    let asked = folder.join("asked");
    fs::write(&asked, "").unwrap();
    let script = script.replace("/etc/init.d", folder.to_str().unwrap());
    let mut command = Command::new("sh");
    command
        .args(["-c", &script, "postinst"])
        .env("IPKG_INSTROOT", root);
    assert!(command.output().unwrap().status.success(), "{script}");
    fs::read_to_string(&asked).unwrap()
}

/// A folder in place of /etc/init.d, with a script for rpcd or without.
pub fn init_scripts(name: &str, rpcd: bool) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    if rpcd {
        let script = format!("#!/bin/sh\necho \"$@\" >>{}/asked\n", folder.display());
        fs::write(folder.join("rpcd"), script).unwrap();
        fs::set_permissions(folder.join("rpcd"), fs::Permissions::from_mode(0o755)).unwrap();
    }
    folder
}

fn installing_the_package_reloads_rpcd_on_a_router() {
    let makefile = read(MAKEFILE);
    let script = definition(&makefile, "Package/mldproxy/postinst").replace("$$", "$");
    assert!(script.starts_with("#!/bin/sh\n"), "{script}");
    let folder = init_scripts("postinst-rpcd", true);
    assert_eq!(asked_of_rpcd(&script, &folder, ""), "reload\n");
    // On the machine that builds an image there is no rpcd to reload.
    assert_eq!(asked_of_rpcd(&script, &folder, "/image"), "");
    let folder = init_scripts("postinst-none", false);
    assert_eq!(asked_of_rpcd(&script, &folder, ""), "");
}

fn the_jail_keeps_two_capabilities() {
    let text = read("openwrt/mldproxy/files/mldproxy.capabilities.json");
    let text: String = text.split_whitespace().collect();
    let sets = [
        "bounding",
        "effective",
        "permitted",
        "inheritable",
        "ambient",
    ];
    let sets = sets.map(|set| format!("\"{set}\":[\"CAP_NET_RAW\",\"CAP_NET_ADMIN\"]"));
    assert_eq!(text, format!("{{{}}}", sets.join(",")));
}

fn shellcheck_finds_no_fault_in_the_scripts() {
    let stubs = fs::read_dir(repository("tests/openwrt/stubs")).unwrap();
    let scripts: Vec<_> = stubs
        .map(|file| file.unwrap().path())
        .filter(|file| file.extension().is_some_and(|kind| kind == "sh"))
        .chain(
            ["init", "firewall", "rpcd"]
                .map(|kind| repository(&format!("openwrt/mldproxy/files/mldproxy.{kind}"))),
        )
        .chain([repository("openwrt/mldproxy/test.sh")])
        .chain(
            [
                "hotplug", "init", "odhcp6c", "options", "rpcd", "staged", "status",
            ]
            .map(|kind| repository(&format!("openwrt/mldproxy-hgw/files/hgw.{kind}"))),
        )
        .collect();
    assert_eq!(scripts.len(), 18);
    // The busybox of a router reads a character class such as [:alpha:] as a set of its letters.
    for script in &scripts {
        let text = fs::read_to_string(script).unwrap();
        assert!(!text.contains("[:"), "{}", script.display());
        // Its `read` reads one octet at a time. /proc/sys hands out no second octet, and a pipe is
        // slow.
        for line in text
            .lines()
            .filter(|line| !line.trim_start().starts_with('#'))
        {
            let reads = line.contains("read -") && !line.contains("while read -r");
            assert!(!reads, "{}: {line}", script.display());
        }
    }
    let output = Command::new("shellcheck")
        .args(["-s", "dash"])
        .args(scripts)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
}
