//! mldproxy on the real kernel: each test builds networks of its own, and judges by the kernel's
//! tables.

mod attacks;
mod bad_input;
mod bad_paths;
mod both_ways;
mod bridges;
mod check;
mod comparison;
mod crowd;
mod flood;
mod foreign;
mod hostile;
mod instances;
mod invalid;
mod joining;
mod lab;
mod links;
mod mroute;
mod news;
mod points;
mod prefixes;
mod privileges;
mod proxying;
mod query;
mod refresh;
mod restart;
mod silent;
mod source_filters;
mod status;
mod streams;
mod support;
mod syslog;
mod turns;
mod unread_log;
mod versions;
mod vlans;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

/// A test, and the tools that it needs beside [`lab::TOOLS`], each with the Debian package that has
/// it.
pub struct Test {
    name: &'static str,
    needs: &'static [(&'static str, &'static str)],
    run: fn(),
}

/// Names tests after their functions: `tests![a, b; c needs [("tool", "package")]]`.
macro_rules! tests {
    ($($plain:ident),* $(,)? $(; $($special:ident needs $needs:expr),* $(,)?)?) => {
        pub const TESTS: &[crate::Test] = &[
            $(crate::Test {
                name: concat!(module_path!(), "::", stringify!($plain)),
                needs: &[],
                run: $plain,
            },)*
            $($(crate::Test {
                name: concat!(module_path!(), "::", stringify!($special)),
                needs: &$needs,
                run: $special,
            },)*)?
        ];
    };
}
use tests;

fn main() -> ExitCode {
    if let Some(ended) = mroute::owners::run() {
        return ended;
    }
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(turns::THREADS);
    let missing = lab::missing_tools(lab::TOOLS);
    let isolated = lab::isolate();
    for reason in missing.iter().chain(isolated.as_ref().err()) {
        eprintln!("skipping all: {reason}");
    }
    let possible = missing.is_empty() && isolated.is_ok();

    let modules = [
        attacks::bridged::TESTS,
        attacks::claims::TESTS,
        attacks::floods::TESTS,
        attacks::life::TESTS,
        attacks::stall::TESTS,
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
        check::choice::TESTS,
        check::needs::TESTS,
        check::prove::TESTS,
        check::proxying::TESTS,
        comparison::TESTS,
        crowd::TESTS,
        flood::TESTS,
        foreign::TESTS,
        hostile::TESTS,
        instances::TESTS,
        invalid::TESTS,
        joining::TESTS,
        links::TESTS,
        mroute::TESTS,
        mroute::owners::TESTS,
        mroute::rules::TESTS,
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
        source_filters::TESTS,
        status::TESTS,
        streams::edge::TESTS,
        streams::filters::TESTS,
        streams::found::TESTS,
        streams::frr::TESTS,
        streams::hostile::TESTS,
        streams::leaving::TESTS,
        streams::links::TESTS,
        streams::owners::TESTS,
        streams::queriers::TESTS,
        streams::scale::TESTS,
        streams::scopes::TESTS,
        streams::snooping::TESTS,
        streams::starts::TESTS,
        streams::told::TESTS,
        streams::versions::TESTS,
        syslog::TESTS,
        unread_log::TESTS,
        versions::TESTS,
        vlans::TESTS,
    ];
    let name_of = |test: &Test| test.name.trim_start_matches("netns::");
    let mut tests: Vec<_> = modules.into_iter().flatten().collect();
    tests.sort_by_key(|test| turns::Place::of(name_of(test)));
    let trials = tests.into_iter().map(|test| {
        let missing = lab::missing_tools(test.needs);
        for reason in &missing {
            eprintln!("skipping {}: {reason}", test.name);
        }
        let name = name_of(test);
        let run = move || {
            turns::run(name, test.run);
            Ok(())
        };
        Trial::test(name, run).with_ignored_flag(!possible || !missing.is_empty())
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}
