//! The package for apk, read by `read_apk.py`, which shares no code with the packer.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::package::{asked_of_rpcd, init_scripts};
use crate::packing::{STAND_IN, feed, folder, pack, packages, shell};
use crate::router::{read, repository};

crate::tests![
    the_package_has_the_fields_of_the_feed_and_no_dependencies,
    the_package_has_the_files_of_the_feed_with_their_modes,
    the_package_unpacks_into_a_router,
    the_lists_name_the_files_and_the_conffiles,
    the_packages_scripts_enable_and_disable_the_service,
    an_upgrade_runs_the_script_of_an_installation,
    packages_for_every_router_stand_beside_the_one_for_its_cpu,
    the_index_names_the_packages_with_their_hashes,
    values_of_every_size_are_read_back,
    the_octets_are_the_recorded_ones,
    two_builds_make_the_same_octets,
    one_folder_is_a_feed_for_opkg_and_for_apk,
    openssl_verifies_the_signature_of_the_index,
];

const NAME: &str = concat!("mldproxy-", env!("CARGO_PKG_VERSION"), "-r1.apk");

/// What a file holds, a line for each thing.
fn contents(file: &Path) -> String {
    listing(file, None)
}

/// The same. Unpacks the file into a folder as well.
fn listing(file: &Path, out: Option<&Path>) -> String {
    let output = Command::new("python3")
        .arg(repository("tests/openwrt/read_apk.py"))
        .arg(file)
        .args(out)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}: {output:?}", file.display());
    String::from_utf8(output.stdout).unwrap()
}

/// The lines that begin with one of these words, without them.
fn about<'t>(text: &'t str, word: &str) -> Vec<&'t str> {
    text.lines()
        .filter_map(|line| line.strip_prefix(word)?.strip_prefix(' '))
        .collect()
}

/// A folder with what the package for mipsel holds.
fn opened() -> PathBuf {
    let output = folder();
    pack("apk", &repository("openwrt"), &output, "mipsel_24kc", &[]);
    let folder = output.join("mipsel_24kc");
    listing(&folder.join(NAME), Some(&folder));
    folder
}

fn the_package_has_the_fields_of_the_feed_and_no_dependencies() {
    let folder = opened();
    let text = contents(&folder.join(NAME));
    let size = shell(&folder, "find root -type f -exec cat {} + | wc -c");
    for (field, expected) in [
        ("name", "mldproxy"),
        ("version", concat!(env!("CARGO_PKG_VERSION"), "-r1")),
        ("arch", "mipsel_24kc"),
        ("license", "MIT OR Apache-2.0"),
        ("origin", "openwrt/mldproxy"),
        ("installed-size", size.trim()),
    ] {
        assert_eq!(about(&text, field), [expected], "{field}: {text}");
    }
    for field in ["description", "maintainer"] {
        assert_eq!(about(&text, field).len(), 1, "{field}: {text}");
    }
    assert!(about(&text, "depends").is_empty(), "{text}");
    assert!(about(&text, "signed").is_empty(), "{text}");
}

fn the_package_has_the_files_of_the_feed_with_their_modes() {
    let text = contents(&opened().join(NAME));
    assert_eq!(
        about(&text, "folder"),
        [
            "755 root root /",
            "755 root root /etc",
            "755 root root /etc/capabilities",
            "755 root root /etc/config",
            "755 root root /etc/init.d",
            "755 root root /lib",
            "755 root root /lib/apk",
            "755 root root /lib/apk/packages",
            "755 root root /usr",
            "755 root root /usr/libexec",
            "755 root root /usr/libexec/rpcd",
            "755 root root /usr/sbin",
            "755 root root /usr/share",
            "755 root root /usr/share/mldproxy",
        ]
    );
    let modes: Vec<String> = about(&text, "file")
        .iter()
        .map(|line| {
            let words: Vec<_> = line.split(' ').collect();
            assert_eq!(words[4], "0", "the time of {line}");
            [words[0], words[1], words[2], words[5]].join(" ")
        })
        .collect();
    assert_eq!(
        modes,
        [
            "644 root root /etc/capabilities/mldproxy.json",
            "600 root root /etc/config/mldproxy",
            "755 root root /etc/init.d/mldproxy",
            "644 root root /lib/apk/packages/mldproxy.conffiles",
            "644 root root /lib/apk/packages/mldproxy.conffiles_static",
            "644 root root /lib/apk/packages/mldproxy.list",
            "755 root root /usr/libexec/rpcd/mldproxy",
            "755 root root /usr/sbin/mldproxy",
            "644 root root /usr/share/mldproxy/firewall.sh",
        ]
    );
}

fn the_package_unpacks_into_a_router() {
    let folder = opened();
    for (installed, ours) in [
        ("etc/config/mldproxy", "mldproxy.config"),
        ("etc/init.d/mldproxy", "mldproxy.init"),
    ] {
        let installed = fs::read_to_string(folder.join("root").join(installed)).unwrap();
        assert_eq!(installed, read(&format!("openwrt/mldproxy/files/{ours}")));
    }
    let program = fs::read_to_string(folder.join("root/usr/sbin/mldproxy")).unwrap();
    assert_eq!(program, STAND_IN);
}

fn the_lists_name_the_files_and_the_conffiles() {
    let folder = opened();
    let list = |name: &str| {
        let file = format!("root/lib/apk/packages/mldproxy.{name}");
        fs::read_to_string(folder.join(file)).unwrap()
    };
    assert_eq!(
        list("list"),
        shell(
            &folder,
            "cd root; find . -type f | grep -v '^./lib/apk/' | cut -c 2- | LC_ALL=C sort"
        )
    );
    assert_eq!(list("conffiles"), "/etc/config/mldproxy\n");
    assert_eq!(
        list("conffiles_static"),
        shell(
            &folder,
            "sum=$(sha256sum <root/etc/config/mldproxy); echo /etc/config/mldproxy ${sum% *-}"
        )
    );
    // What the package does not ship has no hash.
    let output = crate::packing::folder();
    pack("apk", &feed(), &output, "x86_64", &[]);
    listing(&output.join("x86_64/thing-1.2-r3.apk"), Some(&output));
    assert_eq!(
        shell(
            &output,
            "cd root/lib/apk/packages; cat thing.conffiles; cut -d ' ' -f 1 thing.conffiles_static"
        ),
        "/etc/config/thing\n/etc/thing.state\n/etc/config/thing\n"
    );
    listing(&output.join("x86_64/thing-notes-1.2-r1.apk"), Some(&output));
    assert_eq!(
        shell(&output, "echo root/lib/apk/packages/thing-notes.*"),
        "root/lib/apk/packages/thing-notes.list\n"
    );
}

/// Runs the scripts of the package, in a root where OpenWrt's functions only print that they were
/// called.
fn the_packages_scripts_enable_and_disable_the_service() {
    let folder = opened();
    fs::create_dir_all(folder.join("router/lib")).unwrap();
    let run = |script: &str, environment: &str| {
        shell(
            &folder,
            &format!("IPKG_INSTROOT=router {environment} busybox ash scripts/{script} 1.2.3-r1"),
        )
    };
    assert_eq!(run("post-install", ""), "", "an image has no functions.sh");
    let functions = "for name in add_group_and_user default_postinst default_prerm; do
        eval \"$name() { echo $name \\$pkgname \\$root \\$PKG_UPGRADE; }\"
        done\n";
    fs::write(folder.join("router/lib/functions.sh"), functions).unwrap();
    assert_eq!(
        run("post-install", ""),
        "add_group_and_user mldproxy router\ndefault_postinst mldproxy router\n"
    );
    assert_eq!(
        run("post-upgrade", ""),
        "add_group_and_user mldproxy router 1\ndefault_postinst mldproxy router 1\n"
    );
    assert_eq!(run("pre-deinstall", ""), "default_prerm mldproxy router\n");
    for script in ["post-install", "post-upgrade", "pre-deinstall"] {
        assert_eq!(run(script, "IPKG_NO_SCRIPT=1"), "", "{script}");
    }
}

fn an_upgrade_runs_the_script_of_an_installation() {
    let folder = opened();
    fs::create_dir_all(folder.join("router/lib")).unwrap();
    let functions = "add_group_and_user() { :; }; default_postinst() { :; }\n";
    fs::write(folder.join("router/lib/functions.sh"), functions).unwrap();
    let scripts = init_scripts("apk-rpcd", true);
    for script in ["post-install", "post-upgrade"] {
        let text = fs::read_to_string(folder.join("scripts").join(script)).unwrap();
        let root = folder.join("router");
        let on_router = text.replace("${IPKG_INSTROOT}/lib", &format!("{}/lib", root.display()));
        assert_ne!(on_router, text);
        assert_eq!(asked_of_rpcd(&on_router, &scripts, ""), "reload\n");
        assert_eq!(asked_of_rpcd(&on_router, &scripts, "/image"), "");
    }
}

fn packages_for_every_router_stand_beside_the_one_for_its_cpu() {
    let output = folder();
    pack("apk", &feed(), &output, "x86_64", &[]);
    let holds = |name: &str| {
        let text = contents(&output.join("x86_64").join(name));
        let files = about(&text, "file").into_iter().map(|line| {
            let (_, path) = line.rsplit_once(' ').unwrap();
            format!("{} {path}", &line[..3])
        });
        let files = files.filter(|path| !path.contains("/lib/apk/")).collect();
        let [arch, depends] = ["arch", "depends"].map(|field| about(&text, field).join(""));
        (arch, depends, files)
    };
    let expected = |arch: &str, depends: &str, files: &[&str]| {
        let files: Vec<String> = files.iter().map(|&file| file.to_owned()).collect();
        (arch.to_owned(), depends.to_owned(), files)
    };
    assert_eq!(
        holds("thing-1.2-r3.apk"),
        expected(
            "x86_64",
            "libexample",
            &[
                "600 /etc/config/thing",
                "644 /lib/upgrade/keep.d/thing",
                "755 /usr/sbin/thing",
                "644 /usr/share/thing/empty",
            ]
        )
    );
    assert_eq!(
        holds("thing-notes-1.2-r1.apk"),
        expected("noarch", "", &["644 /usr/share/thing/notes"])
    );
    assert_eq!(
        holds("luci-app-thing-1.2-r1.apk"),
        expected(
            "noarch",
            "luci-base thing",
            &[
                "755 /usr/libexec/thing",
                "644 /www/luci-static/resources/view/thing.js",
            ]
        )
    );
    assert_eq!(
        holds("luci-i18n-thing-ja-1.2-r1.apk"),
        expected(
            "noarch",
            "luci-app-thing",
            &[
                "644 /etc/uci-defaults/luci-i18n-thing-ja",
                "644 /usr/lib/lua/luci/i18n/thing.ja.lmo",
            ]
        )
    );
}

fn the_index_names_the_packages_with_their_hashes() {
    let output = folder();
    pack("apk", &feed(), &output, "x86_64", &[]);
    let folder = output.join("x86_64");
    let index = contents(&folder.join("packages.adb"));
    let names = [
        "luci-app-thing",
        "luci-i18n-thing-ja",
        "thing",
        "thing-notes",
    ];
    assert_eq!(about(&index, "name"), names);
    let versions = about(&index, "version");
    for (number, name) in names.into_iter().enumerate() {
        let file = folder.join(format!("{name}-{}.apk", versions[number]));
        let package = listing(&file, Some(&output));
        let size = fs::metadata(&file).unwrap().len().to_string();
        assert_eq!(about(&index, "file-size")[number], size, "{name}");
        let sum = shell(&output, "sha256sum <payload");
        assert_eq!(
            sum.split(' ').next(),
            Some(about(&index, "hash")[number]),
            "{name}"
        );
        // The index repeats what the package says of itself.
        for field in ["description", "arch", "installed-size", "origin"] {
            assert_eq!(
                about(&index, field)[number],
                about(&package, field).join(""),
                "{name}"
            );
        }
    }
}

/// An index with a number and a text of each form, which depends on their size.
fn index_of_every_size() -> PathBuf {
    let output = folder();
    let script = "import sys; sys.dont_write_bytecode = True; sys.path.insert(0, sys.argv[1])
import adb
packages = [
    {'name': b'%d' % n, 'description': b'x' * length, 'file-size': size}
    for n, (length, size) in enumerate([
        (1, 0), (255, (1 << 28) - 1), (256, 1 << 28), (65535, (1 << 32) - 1), (65536, 7)])
]
payload = adb.document({'packages': packages}, adb.INDEX)
octets = adb.container(adb.INDEX, payload, [], [])
assert adb.read(octets).root['packages'] == packages
open('packages.adb', 'wb').write(octets)";
    let made = Command::new("python3")
        .args(["-c", script, repository("cross").to_str().unwrap()])
        .current_dir(&output)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    output.join("packages.adb")
}

fn values_of_every_size_are_read_back() {
    let index = contents(&index_of_every_size());
    let lengths: Vec<usize> = about(&index, "description")
        .into_iter()
        .map(str::len)
        .collect();
    assert_eq!(lengths, [1, 255, 256, 65535, 65536]);
    assert_eq!(
        about(&index, "file-size"),
        ["0", "268435455", "268435456", "4294967295", "7"]
    );
}

/// The hashes are those of octets that apk-tools 3.0.6 took. They are of what is deflated, since
/// another zlib may deflate it to other octets. An index of packages would tell their sizes.
fn the_octets_are_the_recorded_ones() {
    let output = folder();
    pack("apk", &feed(), &output, "x86_64", &[]);
    for (file, expected) in [
        (
            output.join("x86_64/thing-1.2-r3.apk"),
            "cb640b2287613bfd02e50a279b15eb1a64324b9ee31fee7bd938efe14dbfbee8",
        ),
        (
            index_of_every_size(),
            "792e962e16e79fd148007db4b8fd578315ffdade03a82ad24ca0c3ccc97fd8bb",
        ),
    ] {
        listing(&file, Some(&output));
        let sum = shell(&output, "sha256sum <plain");
        assert_eq!(sum.split(' ').next(), Some(expected), "{}", file.display());
    }
}

fn two_builds_make_the_same_octets() {
    let [first, second] = [(); 2].map(|()| packages("apk", &["mipsel_24kc"]).join("mipsel_24kc"));
    for file in [NAME, "packages.adb"] {
        let octets = |folder: &Path| fs::read(folder.join(file)).unwrap();
        assert!(octets(&first) == octets(&second), "{file}");
    }
}

fn one_folder_is_a_feed_for_opkg_and_for_apk() {
    let [feed, both, apart] = [feed(), folder(), folder()];
    for program in ["ipk", "apk"] {
        pack(program, &feed, &both, "x86_64", &[]);
        pack(program, &feed, &apart.join(program), "x86_64", &[]);
    }
    shell(
        &both,
        &format!(
            "mkdir sum; cp {}/*/x86_64/* sum; diff -r x86_64 sum",
            apart.display()
        ),
    );
}

fn openssl_verifies_the_signature_of_the_index() {
    let output = folder();
    shell(
        &output,
        "openssl ecparam -genkey -name prime256v1 -noout -out key.pem
         openssl pkey -in key.pem -pubout -out public.pem",
    );
    let key = output.join("key.pem");
    pack(
        "apk",
        &feed(),
        &output,
        "x86_64",
        &["--key", key.to_str().unwrap()],
    );
    let index = listing(&output.join("x86_64/packages.adb"), Some(&output));
    let verify = "openssl dgst -sha512 -verify public.pem -signature signature message";
    assert_eq!(shell(&output, verify), "Verified OK\n");
    // The last 65 octets of the key's DER are the point itself.
    let name = "openssl pkey -pubin -in public.pem -outform DER | tail -c 65 | sha512sum | \
        cut -c -32";
    assert_eq!(about(&index, "signed by"), [shell(&output, name).trim()]);

    // The signature is of the index alone: its packages are those that nobody signed.
    let unsigned = folder();
    pack("apk", &feed(), &unsigned, "x86_64", &[]);
    let compare = format!("diff -rq x86_64 {}/x86_64 || :", unsigned.display());
    assert_eq!(shell(&output, &compare).lines().count(), 1);
    let of_none = contents(&unsigned.join("x86_64/packages.adb"));
    assert_eq!(about(&of_none, "hash"), about(&index, "hash"));

    shell(&output, "echo >>message");
    shell(&output, &format!("! {verify}"));
}
