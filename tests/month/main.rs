//! A month in a minute: the engine in stepped time, with a thousand hosts that come and go, links that flap and a kernel that fails.
//! At every step the joined groups, and the kernel's tables, are what an independent model says.
//!
//! `MONTH_SEED=7 cargo test --test month` replays one seed, `MONTH_SEEDS=100 cargo test --test month` runs so many.

mod hosts;
mod model;
mod month;
mod tables;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use month::{DAYS, Month};

fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    let number = value.parse();
    Some(number.unwrap_or_else(|_| panic!("{variable} is not a number: {value}")))
}

#[test]
fn a_month_in_a_minute() {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seeds: Vec<u64> = match (number("MONTH_SEED"), number("MONTH_SEEDS")) {
        (Some(seed), _) => vec![seed],
        (None, Some(count)) => (0..count).collect(),
        (None, None) => vec![0, 3, clock.as_secs()],
    };
    for seed in seeds {
        run(seed);
    }
}

fn run(seed: u64) {
    println!("seed {seed}");
    let started = Instant::now();
    let mut month = Month::new(seed);
    if let Err(cause) = catch_unwind(AssertUnwindSafe(|| month.run())) {
        let now = month.world.now;
        println!("seed {seed} fails at {now} ms; MONTH_SEED={seed} replays it");
        resume_unwind(cause);
    }
    let tally = month.world.tally;
    let exact = tally.exact as f64 / tally.steps as f64;
    println!(
        "seed {seed}: {DAYS} days in {:.1} s, {:.3} % of steps exact, {tally:?}",
        started.elapsed().as_secs_f64(),
        100.0 * exact
    );
    assert!(exact > 0.9, "the model is seldom certain: {exact}");
}
