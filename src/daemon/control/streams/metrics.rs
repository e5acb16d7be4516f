//! Writes the multicast part of the status as metrics.

use std::fmt;

use protocol::config::ProxyConfig;
use protocol::link::{Port, Side};
use protocol::mld::proxy::rows::Row;
use protocol::mld::querier::Role;

use super::super::metrics::write_gauge;
use super::super::{Downstream, Label, Output, View};
use super::{METRIC_STREAMS, Part};

pub fn write(view: &View<'_>, part: &Part<'_>, first: bool, out: Output<'_>) -> fmt::Result {
    let Some(config) = &view.engine.config().mld_proxy else {
        return Ok(());
    };
    let (row, name, help) = match part {
        Part::Head => return write_head(view, out),
        Part::Link(port, downstream) => {
            return write_link(view, config, (*port, downstream), first, out);
        }
        Part::List => return Ok(()),
        Part::Stream(row) => (row, "packets", "Packets of a stream."),
        Part::Octets(row) => (row, "octets", "Octets of a stream."),
    };
    if first {
        write!(
            out,
            "# HELP mldproxy_stream_{name}_total {help}\n\
             # TYPE mldproxy_stream_{name}_total counter\n"
        )?;
    }
    let value = match part {
        Part::Octets(_) => row.counts.octets,
        _ => row.counts.packets,
    };
    write!(
        out,
        "mldproxy_stream_{name}_total{{upstream={},group=\"{}\",source=\"",
        Label(view.engine.config().upstream.as_str()),
        row.group
    )?;
    write_source(row, out)?;
    writeln!(out, "\"}} {value}")
}

fn write_source(row: &Row<'_>, out: Output<'_>) -> fmt::Result {
    match row.flow {
        Some(flow) => write!(out, "{}", flow.source),
        None => out.write_str("any"),
    }
}

fn write_link(
    view: &View<'_>,
    config: &ProxyConfig,
    (port, downstream): (Port, &Downstream<'_>),
    first: bool,
    out: Output<'_>,
) -> fmt::Result {
    if first {
        out.write_str(
            "# HELP mldproxy_downstream_multicast 1 while this router is the querier, or forwards \
             streams.\n# TYPE mldproxy_downstream_multicast gauge\n",
        )?;
    }
    let upstream = Label(view.engine.config().upstream.as_str());
    let is_querier = matches!(view.role(port), Role::Querier { .. });
    for (state, value) in [
        ("querier", is_querier),
        ("forwarding", view.forwards(config, port)),
    ] {
        writeln!(
            out,
            "mldproxy_downstream_multicast{{upstream={upstream},downstream={},state=\"{state}\"}} \
             {}",
            Label(downstream.name),
            u8::from(value)
        )?;
    }
    Ok(())
}

fn write_head(view: &View<'_>, out: Output<'_>) -> fmt::Result {
    let (members, proxy) = (view.streams().members(), view.streams().proxy());
    let (rows, totals) = (proxy.row_count(), proxy.totals());
    let gauges: [(&str, &str, u64); 9] = [
        (
            "forwarding_table_owned",
            "1 while this process owns the multicast routing table.",
            view.is_owner().into(),
        ),
        (
            "upstream_forwarding",
            "1 while the kernel forwards streams by the upstream.",
            view.is_taken(Side::Upstream).into(),
        ),
        (
            "stream_groups",
            "Groups with listeners.",
            members.len() as u64,
        ),
        (
            "stream_groups_joined",
            "Groups joined upstream for listeners.",
            proxy.joined().into(),
        ),
        ("streams", "Sources of groups, or any source.", rows as u64),
        (
            "streams_left_out",
            "Streams without metrics of their own.",
            rows.saturating_sub(METRIC_STREAMS) as u64,
        ),
        (
            "streams_packets",
            "Packets of the streams that there are.",
            totals.packets,
        ),
        (
            "streams_octets",
            "Octets of the streams that there are.",
            totals.octets,
        ),
        (
            "streams_wrong_side_packets",
            "Packets from another side than the source's, dropped.",
            totals.wrong_side,
        ),
    ];
    for (name, help, value) in gauges {
        write_gauge(view, name, help, value, out)?;
    }
    Ok(())
}
