//! Finds out whether another mldproxy works on an upstream.

use nix::errno::Errno;
use protocol::time::Duration;

use super::{Probe, ask_probe};
use crate::sys::clock;
use crate::sys::procfs::{listening_sockets, position};

/// What is known of another instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instance {
    Running {
        /// The seconds since it heard a query there; `None` if it heard none, or if the querier is
        /// gone by now.
        last_query: Option<u32>,
        /// It is an NDP proxy as well.
        ndp_proxy: bool,
    },
    /// A daemon runs that does not tell its upstream: it is another user's, or of another version.
    Perhaps,
    None,
}

/// The time for all sockets together. Anybody can listen under such a name and stay silent.
const PATIENCE: Duration = Duration::from_secs(1);

/// Asks every control socket in this network namespace.
pub fn on_upstream(upstream: &str) -> Instance {
    let mut instance = Instance::None;
    let deadline = clock::now().saturating_add(PATIENCE);
    listening_sockets(&mut |path| {
        if position(path, "mldproxy").is_none() {
            return;
        }
        let found = understand(&ask_probe(path, deadline), upstream);
        // An instance that tells its upstream counts before one that does not.
        if found != Instance::None && !matches!(instance, Instance::Running { .. }) {
            instance = found;
        }
    });
    instance
}

/// What a socket's answer means for an upstream.
fn understand(answer: &nix::Result<String>, upstream: &str) -> Instance {
    match answer {
        Ok(line) => match Probe::parse(line) {
            Some(probe) if probe.upstream == upstream => Instance::Running {
                last_query: probe.last_query.filter(|ago| *ago < probe.querier_timeout),
                ndp_proxy: probe.ndp_proxy,
            },
            Some(_) => Instance::None,
            // A daemon of another version closes the connection.
            None if line.is_empty() || line.starts_with("mldproxy ") => Instance::Perhaps,
            None => Instance::None,
        },
        Err(Errno::EACCES) => Instance::Perhaps,
        // Nobody listens any more, or the listener stays silent.
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
