//! Is another mldproxy at work on an upstream?

use nix::errno::Errno;
use protocol::time::Duration;

use crate::status::{Quoted, ask_summary};
use crate::sys::clock;
use crate::sys::procfs::{listening_sockets, position};

/// What was found out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Instance {
    Running {
        /// The seconds since it heard a query there, if it did.
        last_query: Option<u32>,
        /// It is an NDP proxy as well.
        ndp_proxy: bool,
    },
    /// There is another user's, which does not tell.
    Perhaps,
    None,
}

/// How long all of them may take to answer. Anybody can listen under such a name, and say nothing.
const PATIENCE: Duration = Duration::from_secs(1);

/// Looks for one in this network namespace, by asking at every control socket.
pub fn on_upstream(upstream: &str) -> Instance {
    let mut instance = Instance::None;
    let deadline = clock::now().saturating_add(PATIENCE);
    let mark = format!("\"upstream\":{{\"interface\":{},", Quoted(upstream));
    listening_sockets(&mut |path| {
        if position(path, "mldproxy").is_none() {
            return;
        }
        match ask_summary(path, deadline) {
            Ok(summary) if position(&summary, &mark).is_some() => {
                instance = Instance::Running {
                    last_query: last_query(&summary),
                    ndp_proxy: position(&summary, "\"ndp_proxy\":true").is_some(),
                };
            }
            Err(Errno::EACCES) if instance == Instance::None => instance = Instance::Perhaps,
            // Another upstream's, or no daemon's at all.
            Ok(_) | Err(_) => {}
        }
    });
    instance
}

fn last_query(summary: &str) -> Option<u32> {
    const MARK: &str = "\"last_query_s\":";
    let digits = summary.get(position(summary, MARK)? + MARK.len()..)?;
    digits.split('}').next()?.parse().ok()
}
