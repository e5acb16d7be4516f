//! The daemon's heap, when a program exhausts it: the program ends and names the reason.

use std::env;
use std::hint::black_box;
use std::io::Read;
use std::process::{Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};

#[global_allocator]
static HEAP: daemon::sys::Heap = daemon::sys::Heap::new();

/// The environment variable that names the role of this program as its own child.
const ROLE: &str = "MLDPROXY_TEST_HEAP";
/// Far longer than any role takes.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    match env::var(ROLE).as_deref() {
        Ok("panic") => panic!("a fault"),
        Ok("exhaust") => loop {
            black_box(Box::leak(Box::new([1_u8; 100_000])));
        },
        _ => {}
    }
    let arguments = Arguments::from_args();
    // The tests return errors instead of panicking, since a panic might never end with this heap.
    let trials = vec![
        Trial::test(
            "a_panic_ends_the_program_even_if_a_backtrace_is_wanted",
            // A backtrace takes more memory than the heap has.
            || expect("panic", |text| text.contains("a fault")),
        ),
        Trial::test("an_exhausted_heap_ends_the_program_with_a_message", || {
            expect("exhaust", |text| text == "mldproxy: out of memory\n")
        }),
    ];
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Checks that this program in a role ends with a failure and writes the expected text to standard
/// error.
fn expect(role: &str, expected: fn(&str) -> bool) -> Result<(), Failed> {
    let mut command = Command::new(env::current_exe()?);
    command.env(ROLE, role).env("RUST_BACKTRACE", "1");
    let mut child = command.stderr(Stdio::piped()).spawn()?;
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if start.elapsed() > PATIENCE {
            child.kill()?;
            child.wait()?;
            return Err("the program does not end".into());
        }
        sleep(Duration::from_millis(10));
    };
    let mut text = Vec::new();
    let mut stderr = child.stderr.take().ok_or("standard error was not piped")?;
    stderr.read_to_end(&mut text)?;
    let text = String::from_utf8_lossy(&text);
    if status.success() || !expected(&text) {
        return Err(format!("{status}: {text}").into());
    }
    Ok(())
}
