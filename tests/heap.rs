//! The daemon's heap, where it is too small: a program ends then, and says why.

use std::env;
use std::hint::black_box;
use std::io::Read;
use std::process::{Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};

#[global_allocator]
static HEAP: daemon::sys::Heap = daemon::sys::Heap::new();

/// Names what this program is to do as its own child.
const ROLE: &str = "MLDPROXY_TEST_HEAP";
/// Far longer than any of it takes.
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
    // These do not panic, since with this heap that might never end.
    let trials = vec![
        Trial::test(
            "a_panic_ends_the_program_also_where_a_backtrace_is_wanted",
            // To write one takes more memory than there is.
            || expect("panic", |text| text.contains("a fault")),
        ),
        Trial::test(
            "a_heap_that_is_used_up_ends_the_program_and_says_so",
            || expect("exhaust", |text| text == "mldproxy: out of memory\n"),
        ),
    ];
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// This program in a role ends, not by success, and writes to standard error what is expected.
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
            return Err("it never ends".into());
        }
        sleep(Duration::from_millis(10));
    };
    let mut text = Vec::new();
    let mut stderr = child.stderr.take().ok_or("it was piped")?;
    stderr.read_to_end(&mut text)?;
    let text = String::from_utf8_lossy(&text);
    if status.success() || !expected(&text) {
        return Err(format!("{status}: {text}").into());
    }
    Ok(())
}
