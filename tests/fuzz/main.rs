//! Replays every input of the corpus and mutations of it, the same ones each time. The bodies take
//! any octets and panic where something is wrong. `targets` builds them for libFuzzer.

mod bodies;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let trial = |name: &'static str, mutations, run: fn(&[u8])| {
        Trial::test(name, move || {
            replay(name, mutations, run);
            Ok(())
        })
    };
    let trials = vec![
        trial("frame", 4000, bodies::frame::run),
        trial("engine", 1000, bodies::engine::run),
        trial("netlink", 2000, bodies::netlink::run),
        trial("status", 500, bodies::status::run),
    ];
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Runs every input of a corpus, and so many mutations of them, each of a few changes.
fn replay(name: &str, mutations: usize, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fuzz/corpus")
        .join(name);
    let files = fs::read_dir(&folder).expect("a corpus");
    let mut paths: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
    paths.sort();
    let inputs: Vec<Vec<u8>> = paths
        .iter()
        .map(|path| fs::read(path).expect("an input"))
        .collect();
    assert!(!inputs.is_empty(), "no corpus");
    for (path, input) in paths.iter().zip(&inputs) {
        watch(&path.display().to_string(), input, run);
    }
    let mut random = fastrand::Rng::with_seed(1);
    for number in 0..mutations {
        let mut input = inputs[random.usize(..inputs.len())].clone();
        for _ in 0..random.usize(1..6) {
            let place = random.usize(..=input.len());
            match random.u8(..5) {
                0 => input.insert(place, random.u8(..)),
                1 => input.truncate(place),
                2 => {
                    let other = &inputs[random.usize(..inputs.len())];
                    let from = random.usize(..=other.len());
                    input.splice(place.., other[from..].iter().copied());
                    input.truncate(4096);
                }
                _ => {
                    if let Some(octet) = input.get_mut(place) {
                        *octet = random.u8(..);
                    }
                }
            }
        }
        watch(&format!("mutation {number}"), &input, run);
    }
}

/// Runs one input, and names it where it panics.
fn watch(name: &str, input: &[u8], run: fn(&[u8])) {
    struct Name<'n>(&'n str, &'n [u8]);
    impl Drop for Name<'_> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("{}: {:02x?}", self.0, self.1);
            }
        }
    }
    let _name = Name(name, input);
    run(input);
}
