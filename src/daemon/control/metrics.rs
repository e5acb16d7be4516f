//! Writes the status in Prometheus' text format. Every metric has the upstream's name, so that the
//! files of several instances can be put together.

use std::fmt;

use protocol::ndp::kernel_entries::Proxied;

use super::{Label, Output, Piece, View, streams};
use crate::interfaces::State;

pub fn write(view: &View<'_>, piece: &Piece<'_>, first: bool, out: Output<'_>) -> fmt::Result {
    let upstream = Label(view.engine.config().upstream.as_str());
    let mut head = |name: &str, kind: &str, help: &str| match first {
        true => write!(
            out,
            "# HELP mldproxy_{name} {help}\n# TYPE mldproxy_{name} {kind}\n"
        ),
        false => Ok(()),
    };
    match piece {
        Piece::Head => write_head(view, out),
        Piece::Downstream(downstream) => {
            head(
                "capture_drops_total",
                "counter",
                "Packets that the kernel had no room for.",
            )?;
            let name = Label(downstream.name);
            writeln!(
                out,
                "mldproxy_capture_drops_total{{upstream={upstream},downstream={name}}} {}",
                downstream.lost
            )
        }
        Piece::Multicast(part) => streams::metrics::write(view, part, first, out),
        Piece::Counter(name, value) => {
            head("events_total", "counter", "What was heard and done.")?;
            writeln!(
                out,
                "mldproxy_events_total{{upstream={upstream},event=\"{name}\"}} {value}"
            )
        }
        Piece::Dropped(reason, value) => {
            head(
                "dropped_packets_total",
                "counter",
                "Packets that were no valid NDP or MLD.",
            )?;
            writeln!(
                out,
                "mldproxy_dropped_packets_total{{upstream={upstream},reason=\"{}\"}} {value}",
                reason.name()
            )
        }
        // A time series for each host would cost the database more than it is worth.
        Piece::Neighbors
        | Piece::Neighbor(..)
        | Piece::Targets
        | Piece::Target(..)
        | Piece::Groups
        | Piece::Group(..)
        | Piece::End => Ok(()),
    }
}

fn write_head(view: &View<'_>, out: Output<'_>) -> fmt::Result {
    let engine = view.engine;
    let listener = engine.mld().host();
    let upstream = engine.config().upstream.as_str();
    let listening = view
        .downstreams
        .iter()
        .filter(|downstream| downstream.listening)
        .count();
    let usable = view
        .downstreams
        .iter()
        .filter(|downstream| downstream.state == State::Usable)
        .count();
    let querier = listener
        .querier()
        .map(|querier| view.seconds_since(querier.last_query));
    writeln!(
        out,
        "# HELP mldproxy_info The version.\n# TYPE mldproxy_info \
         gauge\nmldproxy_info{{upstream={},version=\"{}\"}} 1",
        Label(upstream),
        env!("CARGO_PKG_VERSION"),
    )?;
    let proxied = |(_, proxied): &(_, &Proxied)| proxied.proxied;
    let gauges = [
        (
            "uptime_seconds",
            "Since the start.",
            Some(view.seconds_since(view.started)),
        ),
        (
            "upstream_present",
            "1 while the upstream is there.",
            Some((view.upstream_state != State::Missing).into()),
        ),
        (
            "upstream_usable",
            "1 while the upstream has a carrier, IPv6 and a link-local address.",
            Some((view.upstream_state == State::Usable).into()),
        ),
        (
            "upstream_running",
            "1 while the upstream has a carrier.",
            Some(view.upstream_running.into()),
        ),
        (
            "downstreams_usable",
            "Downstreams with a carrier, IPv6 and a link-local address.",
            Some(usable as u64),
        ),
        (
            "downstreams_listening",
            "Downstreams that are heard.",
            Some(listening as u64),
        ),
        (
            "neighbors",
            "Addresses and listeners known.",
            Some(engine.ndp().neighbors().len() as u64),
        ),
        (
            "groups",
            "Groups wanted upstream, or not yet left.",
            Some(engine.ndp().groups().len() as u64),
        ),
        (
            "proxied",
            "Addresses that the kernel answers for upstream.",
            Some(engine.ndp().kernel_entries().iter().filter(proxied).count() as u64),
        ),
        (
            "upstream_neighbors",
            "Neighbors found upstream.",
            Some(engine.ndp().targets().present_from(0).count() as u64),
        ),
        (
            "kernel_tables_failing",
            "1 while the kernel refuses proxy entries or routes.",
            Some(view.kernel_tables_fail().into()),
        ),
        (
            "memberships_failing",
            "1 while the kernel refuses memberships.",
            Some(engine.ndp().groups().is_failing().into()),
        ),
        (
            "query_age_seconds",
            "Since the last query upstream.",
            querier,
        ),
        (
            "report_age_seconds",
            "Since the last refresh.",
            listener.last_report().map(|then| view.seconds_since(then)),
        ),
    ];
    for (name, help, value) in gauges {
        if let Some(value) = value {
            write_gauge(view, name, help, value, out)?;
        }
    }
    Ok(())
}

/// Writes a gauge of the whole instance.
pub(super) fn write_gauge(
    view: &View<'_>,
    name: &str,
    help: &str,
    value: u64,
    out: Output<'_>,
) -> fmt::Result {
    let upstream = Label(view.engine.config().upstream.as_str());
    writeln!(
        out,
        "# HELP mldproxy_{name} {help}\n# TYPE mldproxy_{name} \
         gauge\nmldproxy_{name}{{upstream={upstream}}} {value}"
    )
}
