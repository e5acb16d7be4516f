//! The package for opkg, opened member by member, and the errors of the programs in `cross/`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::package::{asked_of_rpcd, init_scripts};
use crate::router::{read, repository};

crate::tests![
    the_package_has_the_members_that_opkg_reads,
    the_package_has_the_fields_of_the_feed_and_no_dependencies,
    the_package_has_the_files_of_the_feed_with_their_modes,
    the_package_unpacks_into_a_router,
    the_packages_scripts_enable_and_disable_the_service,
    the_index_names_the_package,
    two_builds_make_the_same_octets,
    one_file_serves_every_cpu_that_runs_it,
    the_scripts_name_a_wrong_target_and_the_right_ones,
    the_packer_names_a_file_that_was_not_built,
    the_build_prefers_a_standard_library_built_for_size,
    the_build_names_a_missing_toolchain_and_its_remedy,
];

const NAME: &str = "mldproxy_0.1.0-r1_mipsel_24kc.ipk";

/// An empty folder.
fn folder() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let folder =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("ipk-{}-{number}", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn cross(program: &str, arguments: &[&str]) -> Output {
    Command::new(repository("cross").join(program))
        .args(arguments)
        .output()
        .unwrap()
}

/// A folder with a subfolder for each architecture, which holds its package.
fn packages(architectures: &[&str]) -> PathBuf {
    let output = folder();
    let mut arguments = vec!["--binary", env!("CARGO_BIN_EXE_mldproxy"), "--output"];
    arguments.push(output.to_str().unwrap());
    arguments.extend(architectures);
    let made = cross("ipk", &arguments);
    assert!(made.status.success(), "{made:?}");
    output
}

fn shell(folder: &Path, script: &str) -> String {
    let output = Command::new("sh")
        .args(["-euc", script])
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "{script}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// A folder with the members of a package for mipsel, and with those of its data and its control
/// archive in folders of these names.
fn opened() -> PathBuf {
    let folder = packages(&["mipsel_24kc"]).join("mipsel_24kc");
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
    let folder = packages(&["mipsel_24kc"]).join("mipsel_24kc");
    let index = fs::read_to_string(folder.join("Packages")).unwrap();
    assert_eq!(shell(&folder, "gzip -dc Packages.gz"), index);
    let field = |name: &str| {
        let start = format!("{name}: ");
        let value = index.lines().find_map(|line| line.strip_prefix(&start));
        value.unwrap_or_else(|| panic!("no {name}: {index}"))
    };
    assert_eq!(field("Package"), "mldproxy");
    assert_eq!(field("Filename"), NAME);
    let size = fs::metadata(folder.join(NAME)).unwrap().len();
    assert_eq!(field("Size"), size.to_string());
    let sum = shell(&folder, &format!("sha256sum {NAME}"));
    assert_eq!(Some(field("SHA256sum")), sum.split_whitespace().next());
    assert!(!field("Description").is_empty());
}

fn two_builds_make_the_same_octets() {
    let [first, second] = [(); 2].map(|()| packages(&["mipsel_24kc"]).join("mipsel_24kc"));
    for file in [NAME, "Packages", "Packages.gz"] {
        let octets = |folder: &Path| fs::read(folder.join(file)).unwrap();
        assert!(octets(&first) == octets(&second), "{file}");
    }
}

fn one_file_serves_every_cpu_that_runs_it() {
    let folder = packages(&["aarch64_cortex-a53", "aarch64_cortex-a72"]);
    let program = |architecture: &str| {
        shell(
            &folder.join(architecture),
            &format!(
                "tar -xzf mldproxy_0.1.0-r1_{architecture}.ipk
                 tar -xzOf data.tar.gz ./usr/sbin/mldproxy | sha256sum
                 tar -xzOf control.tar.gz ./control | grep -qx 'Architecture: {architecture}'"
            ),
        )
    };
    assert_eq!(program("aarch64_cortex-a53"), program("aarch64_cortex-a72"));
}

fn the_scripts_name_a_wrong_target_and_the_right_ones() {
    for program in ["build", "ipk", "boot"] {
        let refused = cross(program, &["nonsense"]);
        let text = String::from_utf8(refused.stderr).unwrap();
        assert!(!refused.status.success(), "{program}");
        for expected in [
            "'nonsense'",
            "mipsel_24kc",
            "mips_24kc",
            "aarch64_cortex-a53",
        ] {
            assert!(text.contains(expected), "{program}: {text}");
        }
    }
}

fn the_packer_names_a_file_that_was_not_built() {
    let refused = cross(
        "ipk",
        &["--binary", "/nowhere/mldproxy", "aarch64_cortex-a72"],
    );
    let text = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success());
    assert_eq!(
        text,
        "/nowhere/mldproxy is not there; cross/build aarch64_cortex-a53 makes it\n"
    );
}

/// The output of `cross/build` when it chooses among toolchains. Each is described by whether it
/// has the source of the standard library, and whether it has a prebuilt one.
fn choose(toolchains: &[(bool, bool)], target: &str) -> String {
    let toolchains: Vec<String> = toolchains
        .iter()
        .map(|(source, prebuilt)| format!("({}, {})", u8::from(*source), u8::from(*prebuilt)))
        .collect();
    let script = format!(
        "import sys; sys.dont_write_bytecode = True; sys.path.insert(0, 'cross')
from importlib.machinery import SourceFileLoader as Loader
from types import SimpleNamespace as Toolchain
build = Loader('build', 'cross/build').load_module()
found = [Toolchain(number=number, builds_std=source,
        has_std_for=lambda target, prebuilt=prebuilt: prebuilt)
    for number, (source, prebuilt) in enumerate([{}])]
print(build.choose(found, build.find('{target}')).number)",
        toolchains.join(", ")
    );
    let output = Command::new("python3")
        .args(["-W", "ignore", "-c", &script])
        .current_dir(repository("."))
        .output()
        .unwrap();
    String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
}

fn the_build_prefers_a_standard_library_built_for_size() {
    assert_eq!(choose(&[(false, true), (true, false)], "x86_64"), "1\n");
    assert_eq!(choose(&[(false, false), (false, true)], "x86_64"), "1\n");
}

fn the_build_names_a_missing_toolchain_and_its_remedy() {
    let arm = choose(&[(false, false)], "arm_cortex-a9");
    for expected in [
        "no Rust of this machine can build for armv7-unknown-linux-musleabi; ",
        "\n  rustup component add rust-src ",
        "\n  apt-get install rustc-web cargo-web rust-web-src ",
        "\n  rustup target add armv7-unknown-linux-musleabi ",
    ] {
        assert!(arm.contains(expected), "{expected:?}: {arm}");
    }
    // Nobody prebuilds the standard library for MIPS.
    let mips = choose(&[], "mipsel_24kc");
    assert!(
        mips.contains("rust-src") && !mips.contains("target add"),
        "{mips}"
    );
}
