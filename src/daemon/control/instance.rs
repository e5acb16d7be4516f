//! Is another mldproxy at work on an upstream?

use nix::errno::Errno;
use protocol::time::Duration;

use super::{Probe, ask_probe};
use crate::sys::clock;
use crate::sys::procfs::{listening_sockets, position};

/// What was found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instance {
    Running {
        /// The seconds since it heard a query there, where these are not too many for a querier
        /// that is still there.
        last_query: Option<u32>,
        /// It is an NDP proxy as well.
        ndp_proxy: bool,
    },
    /// There is one that does not tell: another user's, or one of another version.
    Perhaps,
    None,
}

/// How long all of them may take to answer. Anybody can listen under such a name, and say nothing.
const PATIENCE: Duration = Duration::from_secs(1);

/// Looks for one in this network namespace, by asking at every control socket.
pub fn on_upstream(upstream: &str) -> Instance {
    let mut instance = Instance::None;
    let deadline = clock::now().saturating_add(PATIENCE);
    listening_sockets(&mut |path| {
        if position(path, "mldproxy").is_none() {
            return;
        }
        let found = understand(&ask_probe(path, deadline), upstream);
        // One that tells is worth more than one that does not.
        if found != Instance::None && !matches!(instance, Instance::Running { .. }) {
            instance = found;
        }
    });
    instance
}

/// What the answer of one of them means for an upstream.
fn understand(answer: &nix::Result<String>, upstream: &str) -> Instance {
    match answer {
        Ok(line) => match Probe::parse(line) {
            Some(probe) if probe.upstream == upstream => Instance::Running {
                last_query: probe.last_query.filter(|ago| *ago < probe.querier_timeout),
                ndp_proxy: probe.ndp_proxy,
            },
            Some(_) => Instance::None,
            // A daemon that does not know the question closes the connection.
            None if line.is_empty() || line.starts_with("mldproxy ") => Instance::Perhaps,
            None => Instance::None,
        },
        Err(Errno::EACCES) => Instance::Perhaps,
        // Nobody listens any more, or whoever does says nothing.
        Err(_) => Instance::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_tell_is_perhaps_an_instance_and_who_is_silent_is_none() {
        let line = |upstream: &str, last_query: &str| {
            let line = format!(
                "mldproxy 1 upstream={upstream} last_query_s={last_query} \
                 querier_timeout_s=600 ndp_proxy=1\n"
            );
            understand(&Ok(line), "wan")
        };
        let running = |last_query| Instance::Running {
            last_query,
            ndp_proxy: true,
        };
        assert_eq!(line("wan", "599"), running(Some(599)));
        assert_eq!(line("wan", "600"), running(None));
        assert_eq!(line("wan", "-"), running(None));
        assert_eq!(line("wan2", "1"), Instance::None);
        for other in ["", "mldproxy 2 upstream=wan\n"] {
            assert_eq!(understand(&Ok(other.to_owned()), "wan"), Instance::Perhaps);
        }
        for foreign in ["{\"upstream\":\"wan\"}\n", "x"] {
            assert_eq!(understand(&Ok(foreign.to_owned()), "wan"), Instance::None);
        }
        for (errno, expected) in [
            (Errno::EACCES, Instance::Perhaps),
            (Errno::ECONNREFUSED, Instance::None),
            (Errno::ETIMEDOUT, Instance::None),
        ] {
            assert_eq!(understand(&Err(errno), "wan"), expected);
        }
    }
}
