//! What `cross/ipk` and `cross/apk` do alike: which packages they make of a feed, and how they
//! refuse what they cannot use.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::router::{python, repository};

crate::tests![
    the_scripts_name_a_wrong_target_and_the_right_ones,
    the_packers_name_a_file_that_was_not_built,
    the_packers_name_a_key_that_they_cannot_use,
    the_packers_name_the_program_that_signs_if_it_is_missing,
    the_packers_name_a_package_that_an_index_cannot_list,
    the_packers_name_a_folder_that_they_cannot_write,
    the_packers_name_what_they_cannot_read_of_a_feed,
    the_packers_name_a_translation_that_is_wrong,
    a_translation_has_the_keys_that_luci_looks_up,
];

/// A program that is packed in a moment.
pub const STAND_IN: &str = "#!/bin/sh\necho thing\n";

/// An empty folder.
pub fn folder() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("packing-{}-{number}", std::process::id());
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// Runs a program of `cross/`.
pub fn cross(program: &str, arguments: &[&str]) -> Output {
    Command::new(repository("cross").join(program))
        .args(arguments)
        .output()
        .unwrap()
}

/// A folder with a subfolder for each architecture, which holds its package.
pub fn packages(program: &str, architectures: &[&str]) -> PathBuf {
    let output = folder();
    let mut arguments = vec!["--binary", env!("CARGO_BIN_EXE_mldproxy"), "--output"];
    arguments.push(output.to_str().unwrap());
    arguments.extend(architectures);
    let made = cross(program, &arguments);
    assert!(made.status.success(), "{made:?}");
    output
}

/// Packs a feed, with `STAND_IN` for its program, into a subfolder of `output`.
pub fn pack(program: &str, feed: &Path, output: &Path, architecture: &str, options: &[&str]) {
    let made = try_to_pack(program, feed, output, architecture, options);
    assert!(made.status.success(), "{made:?}");
}

fn try_to_pack(
    program: &str,
    feed: &Path,
    output: &Path,
    architecture: &str,
    options: &[&str],
) -> Output {
    let binary = folder().join("program");
    fs::write(&binary, STAND_IN).unwrap();
    let [binary, feed, output] = [&binary, feed, output].map(|path| path.to_str().unwrap());
    let fixed = ["--binary", binary, "--feed", feed, "--output", output];
    cross(program, &[&fixed, options, &[architecture]].concat())
}

/// The one line with which a packer refuses.
fn refusal(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert_eq!(text.matches('\n').count(), 1, "{text}");
    text.trim_end().to_owned()
}

pub fn shell(folder: &Path, script: &str) -> String {
    let output = Command::new("sh")
        .args(["-euc", script])
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "{script}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

const PROGRAM: &str = "\
PKG_NAME:=thing
PKG_VERSION:=1.2
PKG_RELEASE:=3
PKG_MAINTAINER:=The thing contributors <thing@example.org>
PKG_LICENSE:=MIT

define Package/thing
  SECTION:=net
  TITLE:=Does things
  URL:=https://example.org/thing
  DEPENDS:=$(RUST_ARCH_DEPENDS) +libexample \\
    @IPV6
endef

define Package/thing/description
  Does things
  on two lines.
endef

define Package/$(PKG_NAME)/conffiles
/etc/config/thing
/etc/thing.state
endef

define Package/thing/prerm
#!/bin/sh
echo \"$$1 goes\"
endef

define Package/thing/install
\t$(INSTALL_DIR) $(1)/etc/config $(1)/usr/sbin
\t$(INSTALL_BIN) $(PKG_INSTALL_DIR)/bin/thing $(1)/usr/sbin
\t$(INSTALL_CONF) ./files/config $(1)/etc/config/thing
\t$(INSTALL_DATA) ./files/empty $(1)/usr/share/thing/
endef
";

const NOTES: &str = "\
PKG_NAME:=thing-notes
PKG_VERSION:=1.2

define Package/thing-notes
  TITLE:=Notes on things
  PKGARCH:=all
endef

define Package/thing-notes/install
\t$(INSTALL_DATA) ./notes $(1)/usr/share/thing/notes
endef
";

const LUCI: &str = "\
PKG_VERSION:=1.2
PKG_LICENSE:=MIT
LUCI_TITLE:=LuCI support for thing
LUCI_DEPENDS:=+luci-base +thing
include $(TOPDIR)/feeds/luci/luci.mk
";

const TRANSLATION: &str = r#"msgid ""
msgstr ""
"Content-Type: text/plain; charset=UTF-8\n"
"Plural-Forms: nplurals=2; plural=(n > 1);\n"

#: htdocs/luci-static/resources/view/thing.js:3
msgctxt "menu"
msgid "State"
msgstr "状態"

msgid "State"
msgstr "様子"

msgid "%d host"
msgid_plural "%d hosts"
msgstr[0] "%d 台"
msgstr[1] "%d 台々"

msgid "the same"
msgstr "the same"

msgid "not translated"
msgstr ""

msgid ""
"a \"word\" and "
"é"
msgstr "é"

#~ msgid "gone"
#~ msgstr "消えた"
"#;

/// A feed with one package of each kind, always the same.
pub fn feed() -> PathBuf {
    // The packages tell the name of the feed's folder.
    let feed = folder().join("feed");
    for (path, text) in [
        ("thing/Makefile", PROGRAM),
        ("thing/files/config", "config thing 'main'\n"),
        ("thing/files/empty", ""),
        ("thing-notes/Makefile", NOTES),
        ("thing-notes/notes", "Things are done.\n"),
        ("luci-app-thing/Makefile", LUCI),
        (
            "luci-app-thing/htdocs/luci-static/resources/view/thing.js",
            "'use strict';\n",
        ),
        ("luci-app-thing/root/usr/libexec/thing", "#!/bin/sh\n"),
        ("luci-app-thing/po/ja/thing.po", TRANSLATION),
        ("luci-app-thing/po/templates/thing.pot", "msgid \"\"\n"),
    ] {
        write(&feed, path, text);
    }
    let script = feed.join("luci-app-thing/root/usr/libexec/thing");
    fs::set_permissions(script, fs::Permissions::from_mode(0o755)).unwrap();
    feed
}

fn write(folder: &Path, path: &str, text: &str) {
    let file = folder.join(path);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, text).unwrap();
}

fn the_scripts_name_a_wrong_target_and_the_right_ones() {
    for arguments in [
        &["build", "nonsense"][..],
        &["boot", "nonsense"],
        &["ipk", "nonsense"],
        &["apk", "nonsense"],
        &["apk", "x86_64", "nonsense", "--binary", "/dev/null"],
    ] {
        let refused = cross(arguments[0], &arguments[1..]);
        let text = String::from_utf8(refused.stderr).unwrap();
        assert!(!refused.status.success(), "{arguments:?}");
        for expected in [
            "'nonsense'",
            "mipsel_24kc",
            "mips_24kc",
            "aarch64_cortex-a53",
        ] {
            assert!(text.contains(expected), "{arguments:?}: {text}");
        }
    }
}

fn the_packers_name_a_file_that_was_not_built() {
    for program in ["ipk", "apk"] {
        let refused = cross(
            program,
            &["--binary", "/nowhere/mldproxy", "aarch64_cortex-a72"],
        );
        assert_eq!(
            refusal(&refused),
            "/nowhere/mldproxy is not there; cross/build aarch64_cortex-a53 makes it"
        );
    }
}

fn the_packers_name_a_key_that_they_cannot_use() {
    let keys = folder();
    shell(
        &keys,
        "openssl ecparam -genkey -name prime256v1 -noout -out ec.pem
         openssl pkey -in ec.pem -pubout -out public.pem
         openssl pkcs8 -topk8 -in ec.pem -passout pass:word -out locked.pem
         openssl ecparam -genkey -name secp384r1 -noout -out longer.pem
         openssl genpkey -algorithm RSA -out rsa.pem 2>/dev/null
         signify-openbsd -G -n -p feed.pub -s feed.sec
         echo nothing >text",
    );
    // A passphrase gives the octets behind `EdBK`, a number of rounds, another value.
    let secret = fs::read_to_string(keys.join("feed.sec")).unwrap();
    let locked = secret.replacen("RWRCSwAA", "RWRCSwAB", 1);
    assert_ne!(locked, secret);
    fs::write(keys.join("locked.sec"), locked).unwrap();

    let refused = |program: &str, key: &str| {
        let key = keys.join(key);
        let arguments = ["--key", key.to_str().unwrap()];
        let text = refusal(&try_to_pack(program, &feed(), &keys, "x86_64", &arguments));
        assert!(!keys.join("x86_64").exists(), "{key:?}");
        text.replace(&format!("{}/", keys.display()), "")
    };
    let remedy = "`openssl ecparam -genkey -name prime256v1 -noout -out KEY.pem` makes one";
    for key in [
        "public.pem",
        "locked.pem",
        "longer.pem",
        "rsa.pem",
        "feed.sec",
        "text",
    ] {
        assert_eq!(
            refused("apk", key),
            format!(
                "{key} is no secret EC key of the curve prime256v1 without passphrase; {remedy}"
            )
        );
    }
    assert_eq!(
        refused("apk", "none.pem"),
        format!("the key none.pem cannot be read: No such file or directory; {remedy}")
    );
    let remedy = "`signify-openbsd -G -n -p KEY.pub -s KEY.sec` makes one";
    for key in ["ec.pem", "feed.pub", "locked.sec", "text"] {
        assert_eq!(
            refused("ipk", key),
            format!("{key} is no secret key of signify without passphrase; {remedy}")
        );
    }
}

fn the_packers_name_the_program_that_signs_if_it_is_missing() {
    let keys = folder();
    shell(
        &keys,
        "openssl ecparam -genkey -name prime256v1 -noout -out key.pem
         signify-openbsd -G -n -p key.pub -s key.sec",
    );
    for (packer, key, program) in [
        ("apk", "key.pem", "openssl"),
        ("ipk", "key.sec", "signify-openbsd"),
    ] {
        let refused = Command::new(python())
            .arg(repository("cross").join(packer))
            .args([
                "--binary", "/bin/sh", "--key", key, "--output", ".", "x86_64",
            ])
            .env("PATH", "/nowhere")
            .current_dir(&keys)
            .output()
            .unwrap();
        assert_eq!(
            refusal(&refused),
            format!("{program} is missing: install the Debian package {program}")
        );
    }
}

fn the_packers_name_a_package_that_an_index_cannot_list() {
    for (program, tool) in [("ipk", "opkg"), ("apk", "apk")] {
        let output = folder();
        pack(program, &feed(), &output, "x86_64", &[]);
        let name = shell(&output, &format!("cd x86_64; echo thing[-_]1.2*.{program}"));
        let file = output.join("x86_64").join(name.trim_end());
        let whole = fs::read(&file).unwrap();
        for (kind, octets) in [
            ("cut off", &whole[..whole.len() / 2]),
            ("short", &whole[..6]),
            ("empty", &[]),
            ("another file", b"#!/bin/sh\n"),
        ] {
            let damaged = output.join(format!("x86_64/damaged.{program}"));
            fs::write(&damaged, octets).unwrap();
            let text = refusal(&try_to_pack(program, &feed(), &output, "x86_64", &[]));
            let start = format!("{} is no package of {tool}", damaged.display());
            assert!(text.starts_with(&start), "{kind}: {text}");
            assert!(text.ends_with("; remove it"), "{kind}: {text}");
        }
    }
}

fn the_packers_name_a_folder_that_they_cannot_write() {
    let output = folder();
    write(&output, "x86_64", "a file\n");
    for program in ["ipk", "apk"] {
        let text = refusal(&try_to_pack(program, &feed(), &output, "x86_64", &[]));
        assert_eq!(
            text,
            format!("{}: File exists", output.join("x86_64").display())
        );
    }
}

/// The one line with which both packers refuse a feed, without the path of the feed.
fn refused_feed(feed: &Path) -> String {
    let [opkg, apk] = ["ipk", "apk"]
        .map(|program| refusal(&try_to_pack(program, feed, &folder(), "x86_64", &[])));
    assert_eq!(opkg, apk);
    opkg.replace(&format!("{}/", feed.display()), "")
}

fn the_packers_name_what_they_cannot_read_of_a_feed() {
    for (from, to, expected) in [
        (
            "PKG_VERSION:=1.2",
            "PKG_VERSION:=$(shell date)",
            "PKG_VERSION has to be numbers with dots between them",
        ),
        (
            "PKG_VERSION:=1.2\n",
            "",
            "PKG_VERSION has to be numbers with dots between them",
        ),
        (
            "+libexample",
            "+FANCY:libfancy",
            "the dependency +FANCY:libfancy depends on a build's configuration",
        ),
        (
            "$(INSTALL_CONF)",
            "$(CP)",
            "the packer cannot carry out `$(CP) ./files/config $(1)/etc/config/thing`",
        ),
        (
            "files/empty",
            "files/missing",
            "thing/files/missing is not there",
        ),
    ] {
        let feed = feed();
        assert!(PROGRAM.contains(from), "{from}");
        write(&feed, "thing/Makefile", &PROGRAM.replace(from, to));
        assert_eq!(refused_feed(&feed), format!("thing/Makefile: {expected}"));
    }
    let empty = folder();
    assert_eq!(
        refused_feed(&empty),
        format!("{} holds no folder with a Makefile", empty.display())
    );
}

fn the_packers_name_a_translation_that_is_wrong() {
    for (path, text, expected) in [
        (
            "po/tlh/thing.po",
            TRANSLATION,
            "luci-app-thing/Makefile: package.py lacks the name of the language tlh",
        ),
        (
            "po/ja/thing.po",
            "msgid \"a\"\nmsgstr \"b\"c\"\n",
            "luci-app-thing/po/ja/thing.po:2: this is no line of a .po: msgstr \"b\"c\"",
        ),
        (
            "po/ja/thing.po",
            "\"a\"\n",
            "luci-app-thing/po/ja/thing.po:1: this is no line of a .po: \"a\"",
        ),
        (
            "po/ja/thing.po",
            "msgid \"a\"\nmsgstr \"\"\n",
            "luci-app-thing/po/ja/thing.po translates nothing",
        ),
    ] {
        let feed = feed();
        write(&feed, &format!("luci-app-thing/{path}"), text);
        assert_eq!(refused_feed(&feed), expected);
    }
}

/// The keys are those that LuCI's own po2lmo wrote for this translation.
fn a_translation_has_the_keys_that_luci_looks_up() {
    let output = folder();
    pack("ipk", &feed(), &output, "x86_64", &[]);
    shell(
        &output,
        "tar -xzf x86_64/luci-i18n-thing-ja_1.2-r1_all.ipk
         tar -xzf data.tar.gz",
    );
    let octets = fs::read(output.join("usr/lib/lua/luci/i18n/thing.ja.lmo")).unwrap();
    let number = |at: usize| u32::from_be_bytes(octets[at..at + 4].try_into().unwrap());
    let end = octets.len() - 4;
    let index = number(end) as usize;
    let found: Vec<(u32, u32, &str)> = (index..end)
        .step_by(16)
        .map(|at| {
            let [key, forms, offset, length] = [0, 4, 8, 12].map(|field| number(at + field));
            assert_eq!(offset % 4, 0);
            let text = &octets[offset as usize..][..length as usize];
            (key, forms, std::str::from_utf8(text).unwrap())
        })
        .collect();
    assert_eq!(
        found,
        [
            (0, 0, "nplurals=2; plural=(n > 1);"),
            (0x0fb5_090a, 2, "%d 台"),
            (0x0fb8_08da, 2, "%d 台々"),
            (0x2528_5c6f, 1, "様子"),
            (0x3e72_e3ab, 1, "状態"),
            (0xccd3_40bb, 1, "é"),
        ]
    );
}
