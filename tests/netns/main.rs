//! mldproxy on the real kernel: each test builds networks of its own, and the kernel's tables decide.

mod bad_input;
mod bad_paths;
mod both_ways;
mod bridges;
mod check;
mod comparison;
mod crowd;
mod flood;
mod hostile;
mod invalid;
mod joining;
mod lab;
mod links;
mod news;
mod points;
mod prefixes;
mod privileges;
mod proxying;
mod query;
mod refresh;
mod restart;
mod silent;
mod status;
mod support;
mod syslog;
mod versions;
mod vlans;

use std::process::ExitCode;
use std::sync::{PoisonError, RwLock};

use libtest_mimic::{Arguments, Trial};

/// A test, and the tools that it needs beside [`lab::TOOLS`], each with the Debian package that has it.
pub struct Test {
    name: &'static str,
    needs: &'static [(&'static str, &'static str)],
    run: fn(),
}

/// Names tests by their functions: `tests![a, b; c needs [("tool", "package")]]`.
macro_rules! tests {
    ($($plain:ident),* $(,)? $(; $($special:ident needs $needs:expr),* $(,)?)?) => {
        pub const TESTS: &[crate::Test] = &[
            $(crate::Test { name: concat!(module_path!(), "::", stringify!($plain)), needs: &[], run: $plain },)*
            $($(crate::Test { name: concat!(module_path!(), "::", stringify!($special)), needs: &$needs, run: $special },)*)?
        ];
    };
}
use tests;

/// Tests, by the start of their names, that run alone. Most fill the kernel's table of neighbors, of which all namespaces of a machine
/// share one: while it is full, nobody finds anybody. Those of settings want the folder where these are written down, which belongs to
/// the user of the daemon that started last.
const ALONE: &[&str] = &[
    "bad_paths::settings_folder_",
    "bridges::after_a_crash_",
    "both_ways::unknown::a_flood_",
    "crowd::",
    "flood::",
    "invalid::ten_thousand_",
    "proxying::churn::two_thousand_",
    "proxying::sharing::settings_",
    "refresh::all_groups_fit_",
    "refresh::two_thousand_",
    "restart::a_kill_under_500_hosts_",
    "status::clients_that_do_not_get_on_",
    "status::json_is_of_its_schema_",
];

static TURN: RwLock<()> = RwLock::new(());

/// Runs a test beside others, or alone.
fn run_in_turn(name: &str, test: fn()) {
    // A test that failed has ended as well.
    if ALONE.iter().any(|start| name.starts_with(start)) {
        let _alone = TURN.write().unwrap_or_else(PoisonError::into_inner);
        test();
    } else {
        let _beside_others = TURN.read().unwrap_or_else(PoisonError::into_inner);
        test();
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let missing = lab::missing_tools(lab::TOOLS);
    let isolated = lab::isolate();
    for reason in missing.iter().chain(isolated.as_ref().err()) {
        eprintln!("skipping all: {reason}");
    }
    let possible = missing.is_empty() && isolated.is_ok();

    let modules = [
        bad_input::TESTS,
        bad_paths::TESTS,
        both_ways::TESTS,
        both_ways::answers::TESTS,
        both_ways::claims::TESTS,
        both_ways::duplicates::TESTS,
        both_ways::hostile::TESTS,
        both_ways::moving::TESTS,
        both_ways::unknown::TESTS,
        bridges::TESTS,
        check::TESTS,
        check::proxying::TESTS,
        comparison::TESTS,
        crowd::TESTS,
        flood::TESTS,
        hostile::TESTS,
        invalid::TESTS,
        joining::TESTS,
        links::TESTS,
        news::TESTS,
        points::TESTS,
        prefixes::TESTS,
        privileges::TESTS,
        proxying::churn::TESTS,
        proxying::leftovers::TESTS,
        proxying::links::TESTS,
        proxying::paths::TESTS,
        proxying::rights::TESTS,
        proxying::sharing::TESTS,
        query::TESTS,
        refresh::TESTS,
        restart::TESTS,
        silent::TESTS,
        status::TESTS,
        syslog::TESTS,
        versions::TESTS,
        vlans::TESTS,
    ];
    let trials = modules.into_iter().flatten().map(|test| {
        let missing = lab::missing_tools(test.needs);
        for reason in &missing {
            eprintln!("skipping {}: {reason}", test.name);
        }
        let name = test.name.trim_start_matches("netns::");
        let run = || {
            run_in_turn(name, test.run);
            Ok(())
        };
        Trial::test(name, run).with_ignored_flag(!possible || !missing.is_empty())
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}
