//! Which tests run at once, and in which order.

use std::cell::RefCell;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// How many tests run at once unless an option says otherwise. That is more than there are
/// processors, since a test mostly waits for timers of kernels and daemons.
pub const THREADS: usize = 8;

/// Tests that run alone, by the start of their names. Some fill the kernel's table of neighbors or
/// its queues of packets, which all namespaces share, and while these are full nobody finds
/// anybody. The tests of settings need the folder where mldproxy writes the settings down, and those
/// of instances change who may write to it. It belongs to the user of the daemon that started last.
/// A listener there that is no mldproxy does not tell its network namespace. Streams at full speed
/// fill the queues of packets, and no datagram of others may be lost meanwhile.
const ALONE: &[&str] = &[
    "bad_paths::settings_folder_",
    "bridges::after_a_crash_",
    "crowd::six_hundred_hosts_that_",
    "crowd::two_thousand_",
    "flood::",
    "instances::",
    "proxying::churn::two_thousand_",
    "proxying::sharing::settings_",
    "query::an_instance_that_does_not_know_",
    "restart::a_kill_under_500_hosts_",
    "status::clients_that_do_not_get_on_",
    "streams::hostile::",
    "streams::starts::nothing_is_lost_",
];

/// Tests that run alone until they call [`run_beside_others`].
const ALONE_AT_FIRST: &[&str] = &["crowd::six_hundred_hosts_beside_"];

/// The tests that wait longest.
const LONG: &[&str] = &[
    "attacks::bridged::",
    "attacks::floods::",
    "attacks::stall::",
    "both_ways::claims::one_",
    "both_ways::claims::who_",
    "both_ways::unknown::a_target_that_nobody_has_",
    "comparison::",
    "foreign::an_answer_that_comes_",
    "silent::a_",
    "silent::an_unplugged_",
    "silent::of_two_hosts_",
    "streams::frr::",
];

/// When a test begins. The smallest begins first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// It begins first, so that it waits for no other test to end.
    AloneAtFirst,
    /// It begins early, so that nobody waits for it in the end.
    Long,
    Any,
    /// It begins last, so that the tests that run alone wait for the others once, and not each
    /// time.
    Alone,
}

impl Place {
    pub fn of(name: &str) -> Self {
        let is_one_of = |starts: &[&str]| starts.iter().any(|start| name.starts_with(start));
        if is_one_of(ALONE) {
            Place::Alone
        } else if is_one_of(ALONE_AT_FIRST) {
            Place::AloneAtFirst
        } else if is_one_of(LONG) {
            Place::Long
        } else {
            Place::Any
        }
    }
}

static LOCK: RwLock<()> = RwLock::new(());

/// What a test holds while it runs.
enum Turn {
    Alone(#[expect(dead_code)] RwLockWriteGuard<'static, ()>),
    BesideOthers(#[expect(dead_code)] RwLockReadGuard<'static, ()>),
}

impl Turn {
    // A test that panicked has ended as well, so its poisoned lock is free.
    fn alone() -> Self {
        Turn::Alone(LOCK.write().unwrap_or_else(PoisonError::into_inner))
    }

    fn beside_others() -> Self {
        Turn::BesideOthers(LOCK.read().unwrap_or_else(PoisonError::into_inner))
    }
}

thread_local! {
    /// The turn of the test that this thread runs.
    static TURN: RefCell<Option<Turn>> = const { RefCell::new(None) };
}

/// Ends this thread's turn, even if the test panics.
struct EndOnDrop;

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        TURN.set(None);
    }
}

/// Runs a test beside others, or alone.
pub fn run(name: &str, test: fn()) {
    let turn = match Place::of(name) {
        Place::AloneAtFirst | Place::Alone => Turn::alone(),
        Place::Long | Place::Any => Turn::beside_others(),
    };
    let _end = EndOnDrop;
    TURN.set(Some(turn));
    test();
}

/// From here on, other tests may run beside the test that calls this.
pub fn run_beside_others() {
    TURN.set(None);
    TURN.set(Some(Turn::beside_others()));
}
