//! Is another mldproxy at work on an upstream?

use crate::cli::{self, Command};
use crate::sys::procfs::{command_line, find_processes, listens_on};

/// What was found out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Instance {
    Running,
    /// Another user's, which may be in another network namespace: the kernel does not say.
    Perhaps,
    None,
}

/// Looks for one in this network namespace.
pub fn on_upstream(upstream: &str) -> Instance {
    // A file that an ended instance left behind is no listener.
    if listens_on(&["/var/run/mldproxy/", upstream, ".sock"].concat()) {
        return Instance::Running;
    }
    let mut instance = Instance::None;
    find_processes(&["mldproxy"], &mut |id, _, here| {
        let line = command_line(id);
        let words: Vec<&str> = line.split('\0').collect();
        // Each word ends in a zero. The other one read them by the same rules.
        if let [_, words @ .., _] = &words[..]
            && let Ok(Command::Run(run)) = cli::parse(words)
            && run.config.upstream.as_str() == upstream
        {
            instance = match here {
                Some(_) => Instance::Running,
                None => Instance::Perhaps,
            };
        }
        instance == Instance::Running
    });
    instance
}
