//! Checks whether the gateway sends queries, and whether they reach the kernel.

use std::net::Ipv6Addr;
use std::os::fd::AsFd as _;

use nix::errno::Errno;
use protocol::config::QUERY_INTERVAL;
use protocol::time::Duration;
use protocol::wire::{ALL_NODES, Message, QueryVersion, parse};

use super::findings::Findings;
use super::findings::State::{Ok, Problem, Warning};
use crate::commands::output::show_progress;
use crate::control::instance::Instance;
use crate::interfaces::Snapshot;
use crate::sys::clock;
use crate::sys::packet::{Capture, Interest};
use crate::sys::procfs::queries_received;
use crate::sys::readiness::{pause, wait_until};

/// The kernel's own MLD gets a packet microseconds after a packet socket does.
const KERNEL_DELAY: Duration = Duration::from_millis(500);
/// The time between two looks at the kernel's count, in milliseconds.
const LOOK_INTERVAL: u16 = 10;

pub fn check(snapshot: &Snapshot, instance: Instance, wait: Duration, findings: &mut Findings) {
    let upstream = snapshot.interfaces.upstream_interface();
    // Without a carrier nothing can be heard. Another finding says so.
    let Some(index) = upstream.index.filter(|_| upstream.running) else {
        return;
    };
    let name = upstream.name.as_str();
    let before = queries_received(name);
    let seconds = wait.as_secs().to_string();
    let short = wait < QUERY_INTERVAL;
    let heard_before = match instance {
        Instance::Running { last_query, .. } => last_query,
        Instance::Perhaps | Instance::None => None,
    };
    let heard = listen(index, wait);
    show_progress("");
    let (state, template) = match heard {
        Err(errno) => {
            let words = [name, errno.desc()];
            let template = "querier|%1 cannot be listened on (%2), so neither a querier nor a \
                packet filter is seen|run as root";
            return findings.add(Warning, template, &words);
        }
        Result::Ok(Some((querier, version))) => {
            let words = [name, &querier.to_string(), version];
            findings.add(Ok, "querier|%2 is the querier on %1, in MLDv%3", &words);
            return packet_filter(name, before, findings);
        }
        Result::Ok(None) if heard_before.is_some() => {
            let ago = heard_before.unwrap_or_default().to_string();
            let template = "querier|mldproxy heard an MLD query on %1 %2 s ago";
            return findings.add(Ok, template, &[name, &ago]);
        }
        Result::Ok(None) if short => (
            Warning,
            "querier|no MLD query on %1 within %2 s, which says little|a querier asks every 125 \
             s, so --wait 130 tells",
        ),
        Result::Ok(None) => (
            Warning,
            "querier|no MLD query on %1 within %2 s, so there is no querier|no harm while \
             mldproxy runs, which reports unasked",
        ),
    };
    findings.add(state, template, &[name, &seconds]);
}

/// Waits for a General Query. Returns the querier and the version.
fn listen(index: u32, wait: Duration) -> nix::Result<Option<(Ipv6Addr, &'static str)>> {
    let capture = Capture::open(index, Interest::Queries)?;
    let deadline = clock::now().saturating_add(wait);
    let mut buffer = [0; 2048];
    loop {
        let now = clock::now();
        if now >= deadline {
            return Result::Ok(None);
        }
        let left = deadline.since(now).as_millis().div_ceil(1000);
        show_progress(&["listening for an MLD query, for ", &left.to_string(), " s"].concat());
        let next = now.saturating_add(Duration::from_secs(1)).min(deadline);
        if !wait_until(capture.as_fd(), next) {
            continue;
        }
        let packet = match capture.receive(&mut buffer) {
            Result::Ok(packet) => packet,
            Err(Errno::ENETDOWN) => None,
            Err(errno) => return Err(errno),
        };
        // A packet socket may also hear a query to a group of which this host is no member. The
        // kernel does not count that one.
        if let Some((packet, _)) = packet
            && let Result::Ok(Message::Query(query)) = parse(packet)
            && query.destination == ALL_NODES
        {
            let version = match query.version {
                QueryVersion::V1 => "1",
                QueryVersion::V2 { .. } => "2",
            };
            return Result::Ok(Some((query.source, version)));
        }
    }
}

/// Checks that the kernel counts the query, which it does behind every packet filter.
fn packet_filter(name: &str, before: Option<u32>, findings: &mut Findings) {
    if before.is_none() {
        return findings.unknown("packet_filter", "the kernel's count of MLD queries");
    }
    let deadline = clock::now().saturating_add(KERNEL_DELAY);
    while queries_received(name) == before {
        if clock::now() >= deadline {
            let template = "packet_filter|a packet filter drops MLD queries on %1, so memberships \
                will die after 260 s|\
                            allow ICMPv6 types 130-132,143 from fe80::/10";
            return findings.add(Problem, template, &[name]);
        }
        pause(LOOK_INTERVAL);
    }
    findings.add(
        Ok,
        "packet_filter|MLD queries on %1 reach the kernel",
        &[name],
    );
}
