//! The package for OpenWrt. Its real init script runs under busybox's shell, on a router of stubs
//! that record the script's calls. The real program checks the options. Other tests check the
//! package's files.

mod apk;
mod firewall;
mod hgw;
mod hostile;
mod instances;
mod ipk;
#[path = "../netns/lab.rs"]
mod lab;
mod luci;
mod mld_proxy;
mod ndp_proxy;
mod networks;
mod options;
mod package;
mod packing;
mod procd;
mod release;
mod router;
mod rpcd;
mod short_forms;
mod streams;
#[path = "../netns/support.rs"]
mod support;
mod toolchains;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

/// A test's name, and the test.
pub type Test = (&'static str, fn());

/// Names tests by their functions.
macro_rules! tests {
    ($($test:ident),* $(,)?) => {
        pub const TESTS: &[crate::Test] =
            &[$((concat!(module_path!(), "::", stringify!($test)), $test)),*];
    };
}
use tests;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    // Each program is the Debian package of its name.
    let missing: Vec<&str> = [
        "busybox",
        "openssl",
        "python3",
        "shellcheck",
        "signify-openbsd",
    ]
    .into_iter()
    .filter(|tool| router::find_tool(tool).is_none())
    .collect();
    for tool in &missing {
        eprintln!("skipping all: `{tool}` is missing; on Debian: apt install {tool}");
    }
    // The init script writes to /proc/sys.
    let isolated = lab::isolate();
    if let Err(reason) = &isolated {
        eprintln!("skipping all: {reason}");
    }
    let possible = missing.is_empty() && isolated.is_ok();
    let needs = [lab::TOOLS, &[luci::browser::CHROMIUM]].concat();
    let without_browser = lab::missing_tools(&needs);
    for reason in &without_browser {
        eprintln!("skipping luci::pages: {reason}");
    }

    let modules = [
        apk::TESTS,
        firewall::TESTS,
        hgw::relay::TESTS,
        hgw::service::TESTS,
        hgw::status::TESTS,
        hostile::TESTS,
        instances::TESTS,
        ipk::TESTS,
        luci::files::TESTS,
        luci::pages::TESTS,
        luci::translations::TESTS,
        mld_proxy::TESTS,
        ndp_proxy::TESTS,
        networks::TESTS,
        options::TESTS,
        package::TESTS,
        packing::TESTS,
        release::TESTS,
        rpcd::TESTS,
        short_forms::TESTS,
        streams::TESTS,
        toolchains::TESTS,
    ];
    let trials = modules.into_iter().flatten().map(|&(name, test)| {
        let run = move || {
            test();
            Ok(())
        };
        let name = name.trim_start_matches("openwrt::");
        let possible =
            possible && (without_browser.is_empty() || !name.starts_with("luci::pages::"));
        Trial::test(name, run).with_ignored_flag(!possible)
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}
