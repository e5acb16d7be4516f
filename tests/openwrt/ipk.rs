//! The package for opkg, opened member by member.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::package::{asked_of_rpcd, init_scripts};
use crate::packing::{feed, folder, pack, packages, shell};
use crate::router::read;

crate::tests![
    the_package_has_the_members_that_opkg_reads,
    the_package_has_the_fields_of_the_feed_and_no_dependencies,
    the_package_has_the_files_of_the_feed_with_their_modes,
    the_package_unpacks_into_a_router,
    the_packages_scripts_enable_and_disable_the_service,
    the_index_names_the_package,
    two_builds_make_the_same_octets,
    one_file_serves_every_cpu_that_runs_it,
    packages_for_every_router_stand_beside_the_one_for_its_cpu,
    signify_verifies_the_signature_of_the_index,
    an_index_without_a_key_has_no_signature,
];

const NAME: &str = concat!(
    "mldproxy_",
    env!("CARGO_PKG_VERSION"),
    "-r1_mipsel_24kc.ipk"
);

/// A folder with the members of a package for mipsel, and with those of its data and its control
/// archive in folders of these names.
fn opened() -> PathBuf {
    let folder = packages("ipk", &["mipsel_24kc"]).join("mipsel_24kc");
    shell(
        &folder,
        &format!(
            "tar -xzf {NAME}; mkdir data control
             tar -xpzf data.tar.gz -C data; tar -xpzf control.tar.gz -C control"
        ),
    );
    folder
}

/// The mode, owner and name of each member of an archive, in the archive's order.
fn members(folder: &Path, archive: &str) -> Vec<String> {
    let list = shell(folder, &format!("tar --numeric-owner -tvzf {archive}"));
    let columns = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        assert_eq!(words[3..5], ["1970-01-01", "00:00"], "{line}");
        [words[0], words[1], words[5]].join(" ")
    };
    list.lines().map(columns).collect()
}

fn the_package_has_the_members_that_opkg_reads() {
    let folder = opened();
    assert_eq!(
        members(&folder, NAME),
        [
            "-rw-r--r-- 0/0 ./debian-binary",
            "-rw-r--r-- 0/0 ./data.tar.gz",
            "-rw-r--r-- 0/0 ./control.tar.gz",
        ]
    );
    assert_eq!(fs::read(folder.join("debian-binary")).unwrap(), b"2.0\n");
    assert_eq!(
        members(&folder, "control.tar.gz"),
        [
            "drwxr-xr-x 0/0 ./",
            "-rw-r--r-- 0/0 ./conffiles",
            "-rw-r--r-- 0/0 ./control",
            "-rwxr-xr-x 0/0 ./postinst",
            "-rwxr-xr-x 0/0 ./prerm",
        ]
    );
    assert_eq!(
        fs::read_to_string(folder.join("control/conffiles")).unwrap(),
        "/etc/config/mldproxy\n"
    );
}

fn the_package_has_the_fields_of_the_feed_and_no_dependencies() {
    let folder = opened();
    let control = fs::read_to_string(folder.join("control/control")).unwrap();
    let fields: Vec<(&str, &str)> = control
        .lines()
        .map(|line| line.split_once(": ").expect("a field"))
        .collect();
    let names: Vec<_> = fields.iter().map(|(name, _)| *name).collect();
    assert_eq!(
        names,
        [
            "Package",
            "Version",
            "License",
            "Section",
            "Maintainer",
            "Architecture",
            "Installed-Size",
            "Description"
        ]
    );
    let version = concat!(env!("CARGO_PKG_VERSION"), "-r1");
    for expected in [
        ("Package", "mldproxy"),
        ("Version", version),
        ("License", "MIT OR Apache-2.0"),
        ("Architecture", "mipsel_24kc"),
    ] {
        assert!(fields.contains(&expected), "{expected:?}: {control}");
    }
    let size = shell(&folder, "find data -type f -exec cat {} + | wc -c");
    assert!(fields.contains(&("Installed-Size", size.trim())), "{size}");
}

fn the_package_has_the_files_of_the_feed_with_their_modes() {
    let folder = opened();
    assert_eq!(
        members(&folder, "data.tar.gz"),
        [
            "drwxr-xr-x 0/0 ./",
            "drwxr-xr-x 0/0 ./etc/",
            "drwxr-xr-x 0/0 ./etc/capabilities/",
            "-rw-r--r-- 0/0 ./etc/capabilities/mldproxy.json",
            "drwxr-xr-x 0/0 ./etc/config/",
            "-rw------- 0/0 ./etc/config/mldproxy",
            "drwxr-xr-x 0/0 ./etc/init.d/",
            "-rwxr-xr-x 0/0 ./etc/init.d/mldproxy",
            "drwxr-xr-x 0/0 ./usr/",
            "drwxr-xr-x 0/0 ./usr/libexec/",
            "drwxr-xr-x 0/0 ./usr/libexec/rpcd/",
            "-rwxr-xr-x 0/0 ./usr/libexec/rpcd/mldproxy",
            "drwxr-xr-x 0/0 ./usr/sbin/",
            "-rwxr-xr-x 0/0 ./usr/sbin/mldproxy",
            "drwxr-xr-x 0/0 ./usr/share/",
            "drwxr-xr-x 0/0 ./usr/share/mldproxy/",
            "-rw-r--r-- 0/0 ./usr/share/mldproxy/firewall.sh",
        ]
    );
    // The feed's package has the same files.
    let makefile = read("openwrt/mldproxy/Makefile");
    let list = shell(&folder, "cd data && find . -type f | sort");
    for file in list.lines() {
        let installed = format!("$(1){}", file.trim_start_matches('.'));
        assert!(makefile.contains(&installed), "{installed}");
    }
    let installs = ["$(INSTALL_BIN)", "$(INSTALL_CONF)", "$(INSTALL_DATA)"];
    let count: usize = installs.iter().map(|i| makefile.matches(i).count()).sum();
    assert_eq!(count, list.lines().count());
}

fn the_package_unpacks_into_a_router() {
    let folder = opened();
    for (installed, ours) in [
        ("etc/config/mldproxy", "mldproxy.config"),
        ("etc/init.d/mldproxy", "mldproxy.init"),
        ("usr/share/mldproxy/firewall.sh", "mldproxy.firewall"),
        ("usr/libexec/rpcd/mldproxy", "mldproxy.rpcd"),
        (
            "etc/capabilities/mldproxy.json",
            "mldproxy.capabilities.json",
        ),
    ] {
        let installed = fs::read_to_string(folder.join("data").join(installed)).unwrap();
        assert_eq!(installed, read(&format!("openwrt/mldproxy/files/{ours}")));
    }
    let program = folder.join("data/usr/sbin/mldproxy");
    assert_eq!(
        program.metadata().unwrap().permissions().mode() & 0o777,
        0o755
    );
    let version = Command::new(program).arg("--version").output().unwrap();
    let expected = concat!("mldproxy ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(String::from_utf8(version.stdout).unwrap(), expected);
}

/// Runs the scripts of the package as opkg does, in a root where OpenWrt's functions only print
/// that they were called.
fn the_packages_scripts_enable_and_disable_the_service() {
    let folder = opened();
    fs::create_dir_all(folder.join("root/lib")).unwrap();
    let run = |script: &str, environment: &str| {
        shell(
            &folder,
            &format!("IPKG_INSTROOT=$PWD/root {environment} busybox ash control/{script} mldproxy"),
        )
    };
    assert_eq!(run("postinst", ""), "", "an image has no functions.sh yet");
    let functions =
        "for name in postinst prerm; do eval \"default_$name() { echo $name \\$*; }\"; done\n";
    fs::write(folder.join("root/lib/functions.sh"), functions).unwrap();
    assert_eq!(run("postinst", ""), "postinst control/postinst mldproxy\n");
    assert_eq!(run("prerm", ""), "prerm control/prerm mldproxy\n");
    assert_eq!(run("postinst", "IPKG_NO_SCRIPT=1"), "");
    assert_eq!(run("prerm", "IPKG_NO_SCRIPT=1"), "");

    // On a router postinst also reloads rpcd, which then finds the plugin.
    let script = fs::read_to_string(folder.join("control/postinst")).unwrap();
    let root = folder.join("root");
    let on_router = script.replace("${IPKG_INSTROOT}/lib", &format!("{}/lib", root.display()));
    assert_ne!(on_router, script);
    let scripts = init_scripts("ipk-rpcd", true);
    assert_eq!(asked_of_rpcd(&on_router, &scripts, ""), "reload\n");
    assert_eq!(asked_of_rpcd(&on_router, &scripts, "/image"), "");
}

fn the_index_names_the_package() {
    let folder = packages("ipk", &["mipsel_24kc"]).join("mipsel_24kc");
    let index = fs::read_to_string(folder.join("Packages")).unwrap();
    assert_eq!(shell(&folder, "gzip -dc Packages.gz"), index);
    let mut entries = index.split("\n\n");
    let entry = entries
        .find(|entry| entry.starts_with("Package: mldproxy\n"))
        .unwrap_or_else(|| panic!("no mldproxy: {index}"));
    let field = |name: &str| {
        let start = format!("{name}: ");
        let value = entry.lines().find_map(|line| line.strip_prefix(&start));
        value.unwrap_or_else(|| panic!("no {name}: {index}"))
    };
    assert_eq!(field("Filename"), NAME);
    let size = fs::metadata(folder.join(NAME)).unwrap().len();
    assert_eq!(field("Size"), size.to_string());
    let sum = shell(&folder, &format!("sha256sum {NAME}"));
    assert_eq!(Some(field("SHA256sum")), sum.split_whitespace().next());
    assert!(!field("Description").is_empty());
}

fn two_builds_make_the_same_octets() {
    let [first, second] = [(); 2].map(|()| packages("ipk", &["mipsel_24kc"]).join("mipsel_24kc"));
    for file in [NAME, "Packages", "Packages.gz"] {
        let octets = |folder: &Path| fs::read(folder.join(file)).unwrap();
        assert!(octets(&first) == octets(&second), "{file}");
        // The versions of Python set another octet for the system that compressed.
        if file != "Packages" {
            assert_eq!(octets(&first)[9], 255, "{file}");
        }
    }
}

fn one_file_serves_every_cpu_that_runs_it() {
    let folder = packages("ipk", &["aarch64_cortex-a53", "aarch64_cortex-a72"]);
    let program = |architecture: &str| {
        shell(
            &folder.join(architecture),
            &format!(
                "tar -xzf mldproxy_*_{architecture}.ipk
                 tar -xzOf data.tar.gz ./usr/sbin/mldproxy | sha256sum
                 tar -xzOf control.tar.gz ./control | grep -qx 'Architecture: {architecture}'"
            ),
        )
    };
    assert_eq!(program("aarch64_cortex-a53"), program("aarch64_cortex-a72"));
}

/// What each package of the tests' feed says of itself, and the files that it holds.
fn packages_for_every_router_stand_beside_the_one_for_its_cpu() {
    let output = folder();
    pack("ipk", &feed(), &output, "x86_64", &[]);
    let folder = output.join("x86_64");
    let holds = |name: &str| {
        shell(
            &folder,
            &format!(
                "tar -xzf {name}
                 tar -xzOf control.tar.gz ./control | grep -E '^(Depends|Architecture|URL)'
                 tar -tzf data.tar.gz | grep -v '/$'"
            ),
        )
    };
    assert_eq!(
        holds("thing_1.2-r3_x86_64.ipk"),
        "Depends: libexample\nURL: https://example.org/thing\nArchitecture: x86_64\n\
         ./etc/config/thing\n./lib/upgrade/keep.d/thing\n./usr/sbin/thing\n\
         ./usr/share/thing/empty\n"
    );
    assert_eq!(
        shell(
            &folder,
            "tar -xzOf data.tar.gz ./lib/upgrade/keep.d/thing; tar -xzOf control.tar.gz ./prerm"
        )
        .lines()
        .filter(|line| !line.contains("IPKG"))
        .collect::<Vec<_>>(),
        [
            "/etc/thing.state",
            "#!/bin/sh",
            "default_prerm \"$0\" \"$@\"",
            "echo \"$1 goes\""
        ]
    );
    assert_eq!(
        holds("thing-notes_1.2-r1_all.ipk"),
        "Architecture: all\n./usr/share/thing/notes\n"
    );
    assert_eq!(
        holds("luci-app-thing_1.2-r1_all.ipk"),
        "Depends: luci-base, thing\nArchitecture: all\n./usr/libexec/thing\n\
         ./www/luci-static/resources/view/thing.js\n"
    );
    assert_eq!(
        holds("luci-i18n-thing-ja_1.2-r1_all.ipk"),
        "Depends: luci-app-thing\nArchitecture: all\n\
         ./etc/uci-defaults/luci-i18n-thing-ja\n./usr/lib/lua/luci/i18n/thing.ja.lmo\n"
    );
    assert_eq!(
        shell(
            &folder,
            "tar -xzOf data.tar.gz ./etc/uci-defaults/luci-i18n-thing-ja
             grep -c '^Filename: ' Packages"
        ),
        "uci set luci.languages.ja='日本語 (Japanese)'; uci commit luci\n4\n"
    );
}

fn signify_verifies_the_signature_of_the_index() {
    let output = folder();
    shell(&output, "signify-openbsd -G -n -p feed.pub -s feed.sec");
    let key = output.join("feed.sec");
    let options = ["--key", key.to_str().unwrap()];
    let sign = || pack("ipk", &feed(), &output, "x86_64", &options);
    sign();
    let verify = "signify-openbsd -V -q -p feed.pub -m x86_64/Packages -x x86_64/Packages.sig";
    shell(&output, verify);
    // The same key makes the same signature of the same index.
    let signature = fs::read(output.join("x86_64/Packages.sig")).unwrap();
    sign();
    assert!(fs::read(output.join("x86_64/Packages.sig")).unwrap() == signature);

    shell(&output, "echo >>x86_64/Packages");
    shell(&output, &format!("! {verify} 2>/dev/null"));
}

fn an_index_without_a_key_has_no_signature() {
    let output = folder();
    fs::create_dir(output.join("x86_64")).unwrap();
    fs::write(output.join("x86_64/Packages.sig"), "of an earlier index").unwrap();
    pack("ipk", &feed(), &output, "x86_64", &[]);
    assert!(!output.join("x86_64/Packages.sig").exists());
}
