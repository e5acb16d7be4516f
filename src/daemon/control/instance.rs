//! Finds out whether another mldproxy works on an upstream.

use nix::errno::Errno;
use protocol::time::{Duration, Instant};

use super::client::read_answer;
use super::{AskError, Probe, ask_probe, connect, instances, socket_of};
use crate::sys::clock;

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

/// How long an instance whose path was given may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// Asks every instance in this network namespace that has its socket in the program's folder, and
/// the one on the socket `elsewhere`.
pub fn on_upstream(upstream: &str, elsewhere: Option<&str>) -> Instance {
    let found = elsewhere.map(|path| ask_probe(path, deadline()));
    let answers = match instances() {
        Ok(listed) => listed.into_iter().map(|one| one.answer).collect(),
        Err(Errno::ENOENT) => Vec::new(),
        Err(errno) => vec![Err(errno.into())],
    };
    let mut instance = Instance::None;
    for answer in found.into_iter().chain(answers) {
        let found = understand(&answer, upstream);
        // An instance that tells its upstream counts before one that does not.
        if found != Instance::None && !matches!(instance, Instance::Running { .. }) {
            instance = found;
        }
    }
    instance
}

/// Asks the instance on an upstream for its [findings](super::streams::findings), by lines. Returns
/// none if there is no such instance, or if it is no MLD proxy.
pub fn findings(upstream: &str, elsewhere: Option<&str>) -> String {
    ask(upstream, elsewhere, "findings 0\n")
}

/// The names of the downstreams of the instance on an upstream, by lines. Returns none if there is
/// no such instance.
pub fn downstreams(upstream: &str, elsewhere: Option<&str>) -> String {
    ask(upstream, elsewhere, "downstreams\n")
}

/// The upstream of the instance that runs; `None` if none tells its upstream, or several do.
pub fn only_upstream(elsewhere: Option<&str>) -> Option<String> {
    let upstream_of = |answer: Result<String, AskError>| {
        let line = answer.ok()?;
        Probe::parse(&line).map(|probe| probe.upstream.to_owned())
    };
    let answers = instances().unwrap_or_default().into_iter();
    let mut upstreams = answers.filter_map(|one| upstream_of(one.answer));
    let only = upstreams.next().filter(|_| upstreams.next().is_none());
    let named = elsewhere.and_then(|path| upstream_of(ask_probe(path, deadline())));
    named.or(only)
}

fn ask(upstream: &str, elsewhere: Option<&str>, question: &str) -> String {
    let is_it = |answer: &Result<String, AskError>| {
        matches!(understand(answer, upstream), Instance::Running { .. })
    };
    let path = match elsewhere.filter(|path| is_it(&ask_probe(path, deadline()))) {
        Some(path) => Some(path.to_owned()),
        None => {
            let listed = instances().unwrap_or_default();
            let found = listed.into_iter().find(|one| is_it(&one.answer));
            found.map(|one| socket_of(&one.name))
        }
    };
    let stream = path.map(|path| connect(&path, question));
    let answer = stream.map(|stream| Ok(read_answer(&stream?, deadline())?));
    let answer: Result<String, AskError> = answer.unwrap_or(Ok(String::new()));
    answer.unwrap_or_default()
}

fn deadline() -> Instant {
    clock::now().saturating_add(PATIENCE)
}

/// What a socket's answer means for an upstream.
fn understand(answer: &Result<String, AskError>, upstream: &str) -> Instance {
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
        Err(AskError::System(Errno::EACCES)) => Instance::Perhaps,
        // Nobody listens any more, or the listener stays silent, or is another user's.
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
                "mldproxy 2 namespace=1 upstream={upstream} last_query_s={last_query} \
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
        for other in ["", "mldproxy 3 upstream=wan\n"] {
            assert_eq!(understand(&Ok(other.to_owned()), "wan"), Instance::Perhaps);
        }
        for foreign in ["{\"upstream\":\"wan\"}\n", "x"] {
            assert_eq!(understand(&Ok(foreign.to_owned()), "wan"), Instance::None);
        }
        for (error, expected) in [
            (AskError::System(Errno::EACCES), Instance::Perhaps),
            (AskError::System(Errno::ECONNREFUSED), Instance::None),
            (AskError::System(Errno::ETIMEDOUT), Instance::None),
            (AskError::Foreign(1), Instance::None),
        ] {
            assert_eq!(understand(&Err(error), "wan"), expected);
        }
    }
}
