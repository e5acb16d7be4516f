//! A month in a minute: the engine in stepped time, with a thousand hosts that come and go, links
//! that flap and a kernel that fails. What the engine knows, joins and tells the kernel is checked
//! against what the hosts have and said.
//!
//! `MONTH_SEED=7 cargo test --test month` replays one seed. `MONTH_SEEDS=100` runs so many.

mod facts;
mod hosts;
mod invariants;
mod month;
mod truth;
mod viewers;
mod world;

use std::panic::catch_unwind;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{available_parallelism, scope};
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
        (None, None) => vec![2, 3, clock.as_secs()],
    };
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(Vec::new());
    let work = || {
        while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
            if catch_unwind(|| run(*seed)).is_err() {
                println!("seed {seed} failed; MONTH_SEED={seed} replays it");
                failed.lock().unwrap().push(*seed);
            }
        }
    };
    let threads = available_parallelism().map_or(1, usize::from);
    scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "failed: MONTH_SEED={failed:?}");
}

fn run(seed: u64) {
    println!("seed {seed}");
    let started = Instant::now();
    let mut month = Month::new(seed);
    month.run();
    let tally = month.world.tally;
    println!(
        "seed {seed}: {DAYS} days in {:.1} s, {} promises kept, {tally:?}",
        started.elapsed().as_secs_f64(),
        month.world.truth.kept,
    );
}
