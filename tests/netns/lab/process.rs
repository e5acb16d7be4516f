//! Programs that run beside the test.

use std::io::{self, BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::namespace::enter;
use super::poll_for;

/// A running program. Dropping it kills and reaps it. If this process ends first, the kernel kills
/// it.
pub struct Process {
    pid: Pid,
    seen: Arc<Mutex<Seen>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Seen {
    lines: Vec<String>,
    exit: Option<ExitStatus>,
}

impl Process {
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// How the program ended, or `None` while it runs.
    pub fn exit(&self) -> Option<ExitStatus> {
        lock(&self.seen).exit
    }

    pub fn is_running(&self) -> bool {
        self.exit().is_none()
    }

    /// What the program has written so far to standard output and standard error, in order.
    pub fn lines(&self) -> Vec<String> {
        lock(&self.seen).lines.clone()
    }

    pub fn log(&self) -> String {
        self.lines().join("\n")
    }

    /// Waits for a line that contains `needle`. A line that was written before the call counts.
    #[track_caller]
    pub fn wait_for_line(&self, needle: &str, deadline: Duration) -> String {
        let found = poll_for(deadline, || {
            self.lines().into_iter().find(|line| line.contains(needle))
        });
        found.unwrap_or_else(|| panic!("no {needle:?} within {deadline:?} in:\n{}", self.log()))
    }

    /// Waits for the program's end. Its log is complete then.
    #[track_caller]
    pub fn wait(&self, deadline: Duration) -> ExitStatus {
        let exit = poll_for(deadline, || self.exit());
        exit.unwrap_or_else(|| panic!("still running after {deadline:?}:\n{}", self.log()))
    }

    /// Sends a signal, unless the program has ended.
    pub fn signal(&self, signal: Signal) {
        // The thread reaps the child under the same lock, so until then no other process has its
        // id.
        let seen = lock(&self.seen);
        if seen.exit.is_none() {
            kill(self.pid, signal).expect("our own child");
        }
    }

    /// Starts the child in a thread, which also reads and reaps it. For the kernel, the parent dies
    /// when the *thread* ends that started the child.
    pub(super) fn start(namespace: OwnedFd, command: &Command) -> Self {
        let mut bound = Command::new(command.get_program());
        bound.args(command.get_args());
        die_with_parent(&mut bound);
        let added = command.get_envs();
        bound.envs(added.filter_map(|(name, value)| Some((name, value?))));
        bound.current_dir(command.get_current_dir().unwrap_or(".".as_ref()));

        let seen = Arc::new(Mutex::new(Seen::default()));
        let by_thread = Arc::clone(&seen);
        let (started, pid) = mpsc::channel();
        let thread = thread::spawn(move || {
            enter(&namespace);
            let (output, stdout) = io::pipe().expect("a pipe");
            let stderr = stdout.try_clone().expect("a file descriptor");
            bound.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
            let mut child = bound.spawn().expect("the program starts");
            drop(bound); // and with it this end of the pipe
            started
                .send(child.id())
                .expect("the caller waits for the id");
            for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                lock(&by_thread).lines.push(line);
            }
            poll_for(Duration::MAX, || {
                let mut seen = lock(&by_thread);
                seen.exit = child.try_wait().expect("our own child");
                seen.exit
            });
        });
        let pid = Pid::from_raw(pid.recv().expect("the program starts").cast_signed());
        let thread = Some(thread);
        Self { pid, seen, thread }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
        // A panic of the thread was printed already. To panic here would abort.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

#[expect(
    unsafe_code,
    reason = "what a child does before it becomes the program is unsafe"
)]
fn die_with_parent(command: &mut Command) {
    // SAFETY: the child calls prctl(2) alone, which is a system call without a lock or memory.
    unsafe { command.pre_exec(|| Ok(set_pdeathsig(Signal::SIGKILL)?)) };
}

/// A panic with the lock held leaves nothing half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
