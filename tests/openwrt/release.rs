//! The release: one folder, which is a feed for opkg and for apk.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::packing::{STAND_IN, cross, folder, shell};
use crate::router::{read, repository};

crate::tests![
    a_release_has_every_file_and_its_checksum,
    a_release_installs_the_same_files_by_opkg_and_by_apk,
    two_releases_are_the_same_octets,
    a_signed_release_has_the_keys_that_verify_it,
    every_file_that_names_the_version_names_this_one,
    no_release_is_made_of_another_version,
    no_release_is_made_with_a_wrong_key,
    what_fails_leaves_the_last_release_as_it_is,
    the_workflow_makes_its_release_by_one_command,
];

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Makes a release of [`STAND_IN`] below a folder.
fn release(output: &Path, options: &[&str]) -> PathBuf {
    let stand_in = output.join("stand-in");
    fs::write(&stand_in, STAND_IN).unwrap();
    let paths = [&stand_in, output].map(|path| path.to_str().unwrap());
    let options = [
        &["--binary", paths[0], "--output", paths[1]],
        options,
        &[VERSION],
    ]
    .concat();
    let made = cross("release", &options);
    assert!(made.status.success(), "{made:?}");
    let folder = output.join(VERSION);
    assert_eq!(made.stdout, format!("{}\n", folder.display()).into_bytes());
    folder
}

/// The paths of all files below a folder.
fn files(folder: &Path) -> BTreeSet<String> {
    let listed = shell(folder, "find . -type f");
    let names = listed.lines().map(|line| line.trim_start_matches("./"));
    names.map(str::to_owned).collect()
}

/// The architectures of OpenWrt for which `cross/targets.py` has a file, and the targets.
fn architectures() -> [BTreeSet<String>; 2] {
    let list = |what: &str| -> BTreeSet<String> {
        let program = format!("from targets import TARGETS\nprint(*({what}))");
        let mut python = Command::new("python3");
        let output = python
            .args(["-c", &program])
            .current_dir(repository("cross"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.split_whitespace().map(str::to_owned).collect()
    };
    [
        list("name for target in TARGETS for name in (target.architecture, *target.also)"),
        list("target.architecture for target in TARGETS"),
    ]
}

fn a_release_has_every_file_and_its_checksum() {
    let release = release(&folder(), &[]);
    shell(&release, "sha256sum --check --strict --quiet SHA256SUMS");
    let [architectures, targets] = architectures();
    let mut found = files(&release);
    assert!(found.remove("SHA256SUMS"));
    let summed: BTreeSet<String> = fs::read_to_string(release.join("SHA256SUMS"))
        .unwrap()
        .lines()
        .map(|line| line.split_once("  ").unwrap().1.to_owned())
        .collect();
    assert_eq!(found, summed);

    for target in &targets {
        let file = format!("mldproxy-{VERSION}-{target}");
        assert_eq!(fs::read_to_string(release.join(&file)).unwrap(), STAND_IN);
        assert!(found.remove(&file));
    }
    for architecture in &architectures {
        for file in [
            &format!("mldproxy_{VERSION}-r1_{architecture}.ipk"),
            &format!("mldproxy-{VERSION}-r1.apk"),
            "Packages",
            "Packages.gz",
            "packages.adb",
        ] {
            let file = format!("{architecture}/{file}");
            assert!(found.remove(&file), "{file}");
        }
    }
    // The packages that fit every router are in each feed.
    for file in &found {
        let (architecture, _) = file.split_once('/').unwrap();
        assert!(architectures.contains(architecture), "{file}");
        assert!(
            file.contains("_all.ipk") || file.ends_with(".apk"),
            "{file}"
        );
    }
    assert_eq!(found.len() % architectures.len(), 0, "{found:?}");
}

/// Unpacks every package of a feed into one root, as opkg and as apk do.
fn a_release_installs_the_same_files_by_opkg_and_by_apk() {
    let feed = release(&folder(), &[]).join("mipsel_24kc");
    let roots = folder();
    let reader = repository("tests/openwrt/read_apk.py");
    shell(
        &roots,
        &format!(
            "mkdir opkg apk
             for package in {feed}/*.ipk; do
                 tar -xzOf \"$package\" ./data.tar.gz | tar -xz -C opkg
             done
             for package in {feed}/*.apk; do
                 python3 {reader} \"$package\" unpacked >/dev/null
                 cp -a unpacked/root/. apk/
                 rm -r unpacked
             done",
            feed = feed.display(),
            reader = reader.display(),
        ),
    );
    let [by_opkg, by_apk] = ["opkg", "apk"].map(|root| {
        // Only apk's packages bring lists for OpenWrt's scripts.
        let mut found = files(&roots.join(root));
        found.retain(|file| !file.starts_with("lib/apk/packages/"));
        found
    });
    assert_eq!(by_opkg, by_apk);
    for file in [
        "usr/sbin/mldproxy",
        "etc/init.d/mldproxy",
        "usr/libexec/rpcd/mldproxy",
        "www/luci-static/resources/view/mldproxy/status.js",
        "usr/share/rpcd/acl.d/luci-app-mldproxy.json",
        "usr/lib/lua/luci/i18n/mldproxy.ja.lmo",
    ] {
        assert!(by_opkg.contains(file), "{file} is not among {by_opkg:#?}");
    }
    for file in &by_opkg {
        let [one, other] = ["opkg", "apk"].map(|root| fs::read(roots.join(root).join(file)));
        assert_eq!(one.unwrap(), other.unwrap(), "{file}");
    }
    let program = fs::read_to_string(roots.join("apk/usr/sbin/mldproxy"));
    assert_eq!(program.unwrap(), STAND_IN);
}

fn two_releases_are_the_same_octets() {
    let sums = [folder(), folder()]
        .map(|output| fs::read_to_string(release(&output, &[]).join("SHA256SUMS")).unwrap());
    assert_eq!(sums[0], sums[1]);
}

/// A folder with a key of each kind.
fn keys() -> PathBuf {
    let keys = folder();
    shell(
        &keys,
        "openssl ecparam -genkey -name prime256v1 -noout -out apk.pem
         openssl pkey -in apk.pem -pubout -out apk.pub
         signify-openbsd -G -n -p opkg.pub -s opkg.sec",
    );
    keys
}

fn a_signed_release_has_the_keys_that_verify_it() {
    let keys = keys();
    let [apk, opkg] = ["apk.pem", "opkg.sec"].map(|name| keys.join(name));
    let options = [
        "--apk-key",
        apk.to_str().unwrap(),
        "--opkg-key",
        opkg.to_str().unwrap(),
    ];
    let release = release(&folder(), &options);
    let public = |name: &str| fs::read(keys.join(name)).unwrap();
    let found = files(&release.join("keys"));
    assert_eq!(found.len(), 2);
    assert_eq!(
        fs::read(release.join("keys/mldproxy.pem")).unwrap(),
        public("apk.pub")
    );
    // opkg looks for the key by the number in the signature.
    let number = found.iter().find(|name| *name != "mldproxy.pem").unwrap();
    let of_opkg = fs::read_to_string(release.join("keys").join(number)).unwrap();
    let made_by_signify = String::from_utf8(public("opkg.pub")).unwrap();
    assert_eq!(of_opkg.lines().nth(1), made_by_signify.lines().nth(1));
    let decoded = shell(
        &release,
        &format!("tail -n 1 keys/{number} | base64 -d | head -c 10 | tail -c 8 | od -An -tx1"),
    );
    assert_eq!(decoded.split_whitespace().collect::<String>(), *number);

    let feed = release.join("x86_64");
    shell(
        &feed,
        &format!("signify-openbsd -V -q -p ../keys/{number} -m Packages -x Packages.sig"),
    );
    assert!(fs::metadata(feed.join("packages.adb")).unwrap().len() > 0);
    shell(&release, "sha256sum --check --strict --quiet SHA256SUMS");
}

fn every_file_that_names_the_version_names_this_one() {
    let named = |text: &str, before: &str| -> Vec<String> {
        let ends = |rest: &&str| rest.find(|c: char| !c.is_ascii_digit() && c != '.');
        text.match_indices(before)
            .map(|(at, _)| &text[at + before.len()..])
            .filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
            .map(|rest| rest[..ends(&rest).unwrap_or(rest.len())].to_owned())
            .collect()
    };
    for (file, before) in [
        ("README.md", "mldproxy "),
        ("README.md", "mldproxy-"),
        ("README.md", "mldproxy_"),
        ("README.md", "cross/release "),
        ("openwrt/mldproxy/Makefile", "PKG_VERSION:="),
        ("tests/fuzz/Cargo.lock", "name = \"mldproxy\"\nversion = \""),
        ("Cargo.lock", "name = \"mldproxy\"\nversion = \""),
    ] {
        for version in named(&read(file), before) {
            assert_eq!(version, VERSION, "{file}: {before}");
        }
    }
    let changes = read("CHANGELOG.md");
    let newest = changes.lines().find(|line| line.starts_with("## "));
    let newest = newest.unwrap().trim_start_matches("## ");
    assert!(
        newest.starts_with(VERSION) || newest == "Unreleased",
        "{newest}"
    );
    assert!(changes.contains(&format!("\n## {VERSION} - ")));
}

/// What `cross/release` says when it fails.
fn refused(arguments: &[&str]) -> String {
    let made = cross("release", arguments);
    assert_eq!(made.status.code(), Some(1), "{made:?}");
    assert_eq!(made.stdout, b"");
    String::from_utf8(made.stderr).unwrap()
}

fn no_release_is_made_of_another_version() {
    let said = refused(&["9.9.9"]);
    let line = format!("no release 9.9.9: Cargo.toml has version {VERSION}\n");
    assert!(said.starts_with(&line), "{said}");
    let line = "no release 9.9.9: CHANGELOG.md has no section 9.9.9\n";
    assert!(said.ends_with(line), "{said}");
    assert!(
        said.contains("openwrt/mldproxy/Makefile has version"),
        "{said}"
    );
}

fn no_release_is_made_with_a_wrong_key() {
    let output = folder();
    let stand_in = output.join("stand-in");
    fs::write(&stand_in, STAND_IN).unwrap();
    let stand_in = stand_in.to_str().unwrap();
    for (option, reason) in [
        ("--apk-key", "is no secret EC key"),
        ("--opkg-key", "is no secret key of signify"),
    ] {
        let options = ["--binary", stand_in, option, stand_in, "--output"];
        let options = [&options[..], &[output.to_str().unwrap(), VERSION]].concat();
        let said = refused(&options);
        assert!(said.contains(reason), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    assert_eq!(files(&output), BTreeSet::from(["stand-in".to_owned()]));
}

fn what_fails_leaves_the_last_release_as_it_is() {
    let output = folder();
    let made = release(&output, &[]);
    let before = fs::read_to_string(made.join("SHA256SUMS")).unwrap();
    let missing = output.join("missing");
    let paths = [&missing, &output].map(|path| path.to_str().unwrap());
    let said = refused(&["--binary", paths[0], "--output", paths[1], VERSION]);
    assert_eq!(said, format!("{} is not there\n", missing.display()));
    let after = fs::read_to_string(made.join("SHA256SUMS")).unwrap();
    assert_eq!(before, after);
    shell(&made, "sha256sum --check --strict --quiet SHA256SUMS");
}

fn the_workflow_makes_its_release_by_one_command() {
    let workflow = read(".github/workflows/release.yml");
    let calls: Vec<_> = workflow
        .lines()
        .filter(|line| line.contains("cross/") && !line.contains("target/cross/"))
        .map(str::trim)
        .collect();
    assert_eq!(
        calls,
        ["cross/release \"${keys[@]}\" \"${GITHUB_REF_NAME#v}\""]
    );
    assert!(workflow.contains("tags: [\"v*\"]"));
}
