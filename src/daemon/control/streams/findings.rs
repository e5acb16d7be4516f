//! Writes what `mldproxy check` finds in the multicast part: one line for each finding, of words
//! between tabs. No interface's name holds a tab or an end of line.
//!
//! ```text
//! STATE CHECK TEXT [ADVICE]
//! ```

use std::fmt;
use std::net::Ipv6Addr;

use protocol::config::{MldVersion, ProxyConfig};
use protocol::link::Port;
use protocol::mld::proxy::rows::Row;
use protocol::mld::querier::Role;

use super::super::{Downstream, Output, View};
use super::{ForwardingTable, From, Part};
use crate::sys::mroute::Refusal;

/// How long a stream may be silent before that is told, in seconds.
const SILENCE: u32 = 10;

pub fn write(view: &View<'_>, part: &Part<'_>, out: Output<'_>) -> fmt::Result {
    let Some(config) = &view.engine.config().mld_proxy else {
        return Ok(());
    };
    match part {
        Part::Head => write_head(view, config, out),
        Part::Link(port, downstream) => write_link(view, config, (*port, downstream), out),
        Part::List => write_streams(view, out),
        Part::Stream(_) | Part::Octets(_) => Ok(()),
    }
}

fn write_head(view: &View<'_>, config: &ProxyConfig, out: Output<'_>) -> fmt::Result {
    match view.forwarding {
        ForwardingTable::Owned | ForwardingTable::Unwanted => out.write_str(
            "ok\tmulticast_table\tmldproxy owns the kernel's multicast routing table\n",
        )?,
        ForwardingTable::Refused(errno) => match Refusal::of(errno) {
            Refusal::InUse => out.write_str(
                "problem\tmulticast_table\tanother program owns the kernel's multicast routing \
                 table, so no stream is forwarded\tstop it, or give mldproxy a table of its own \
                 (--table)\n",
            )?,
            Refusal::Unsupported => out.write_str(
                "problem\tmulticast_table\tthis kernel has no IPv6 multicast routing, so no \
                 stream is forwarded\ttake a kernel with CONFIG_IPV6_MROUTE\n",
            )?,
            Refusal::Other(errno) => writeln!(
                out,
                "problem\tmulticast_table\tthe kernel's multicast routing table cannot be had \
                 ({}), so no stream is forwarded\tgive mldproxy CAP_NET_RAW, and CAP_NET_ADMIN \
                 for --table",
                errno.desc()
            )?,
        },
    }
    let upstream = view.engine.config().upstream.as_str();
    write_too_high(view, upstream, view.upstream_index, out)?;
    match view.older_querier(config) {
        None => Ok(()),
        Some(Ipv6Addr::UNSPECIFIED) => writeln!(
            out,
            "problem\tmulticast_version\tMLDv1 is in force on {upstream}, which cannot name \
             sources, so no group of ff3x is joined\t--mld-version 2 forces MLDv2"
        ),
        Some(querier) => writeln!(
            out,
            "problem\tmulticast_version\t{querier} is an MLDv1 querier on {upstream}, and MLDv1 \
             cannot name sources, so no group of ff3x is joined\thave it query in MLDv2 or not at \
             all, or --mld-version 2 forces MLDv2"
        ),
    }
}

fn write_too_high(view: &View<'_>, name: &str, index: Option<u32>, out: Output<'_>) -> fmt::Result {
    match view.too_high(index) {
        Some(index) => writeln!(
            out,
            "problem\tmulticast_interface\t{name} has the number {index}, and the kernel forwards \
             streams by interfaces up to 65535 alone\tcreate {name} anew after a reboot, or with \
             an index: `ip link add {name} index 100 …`"
        ),
        None => Ok(()),
    }
}

fn write_link(
    view: &View<'_>,
    config: &ProxyConfig,
    (port, downstream): (Port, &Downstream<'_>),
    out: Output<'_>,
) -> fmt::Result {
    let name = downstream.name;
    let forwards = view.streams().forwards(config, port);
    let of_version = |version| match version {
        MldVersion::V1 => " in MLDv1",
        MldVersion::V2 => " in MLDv2",
    };
    match view.role(port) {
        // Another finding says so.
        Role::Down => {}
        Role::Querier { .. } => writeln!(
            out,
            "ok\tmulticast_querier\tmldproxy is the querier on {name} (groups with \
             listeners: {})",
            view.streams().members().count_on(port)
        )?,
        Role::Other(other) if !forwards => writeln!(
            out,
            "warning\tmulticast_querier\t{} is the querier on {name}{}, so no stream is forwarded \
             there\tend that querier, or run mldproxy with --forward always",
            other.address,
            of_version(other.version)
        )?,
        Role::Other(other) | Role::Off(Some(other)) => writeln!(
            out,
            "ok\tmulticast_querier\t{} is the querier on {name}{}",
            other.address,
            of_version(other.version)
        )?,
        Role::Off(None) => writeln!(
            out,
            "warning\tmulticast_querier\tnobody queries on {name}, so streams there end after \
             some minutes\trun mldproxy without --querier off"
        )?,
    }
    write_too_high(view, name, downstream.index, out)
}

/// A kind of streams: how many there are, and the first of them.
#[derive(Default)]
struct Kind<'v>(usize, Option<Row<'v>>);

impl<'v> Kind<'v> {
    fn add(&mut self, row: Row<'v>) {
        self.0 = self.0.saturating_add(1);
        self.1.get_or_insert(row);
    }
}

fn write_streams(view: &View<'_>, out: Output<'_>) -> fmt::Result {
    let upstream = view.engine.config().upstream.as_str();
    let (mut all, mut flowing) = (0_usize, 0_usize);
    let (mut silent, mut wrong) = (Kind::default(), Kind::default());
    for row in view.streams().proxy().rows() {
        all = all.saturating_add(1);
        let counts = &row.counts;
        let right = counts.packets.saturating_sub(counts.wrong_side.into());
        if counts.wrong_side > 0 {
            wrong.add(row);
        }
        // A source whose stream is wanted from upstream sends all the time, as television does.
        let comes_from_upstream = row.flow.is_some()
            && matches!(view.incoming(&row), Some(From::Interface(name)) if name == upstream);
        if counts.packets > 0 && counts.idle < SILENCE {
            flowing = flowing.saturating_add(1);
        } else if comes_from_upstream && right == 0 && counts.idle >= SILENCE {
            silent.add(row);
        }
    }
    if let Kind(count, Some(row)) = silent {
        let source = source_of(&row);
        writeln!(
            out,
            "warning\tmulticast_stream\tnothing came on {upstream} for {count} of {all} streams, \
             such as {source} to {} since {} s\tsee `tcpdump -ni {upstream} host {}`: without \
             packets there, the source, the gateway's multicast routing or a switch that snoops \
             has none for this router",
            row.group, row.counts.idle, row.group
        )?;
    }
    if let Kind(count, Some(row)) = wrong {
        writeln!(
            out,
            "warning\tmulticast_side\tpackets came from another side than their source's \
             and were dropped, such as {} from {} to {} (streams: {count})\tsee on which interface \
             they come (`tcpdump -ni any host {}`), and that no other link has that prefix",
            row.counts.wrong_side,
            source_of(&row),
            row.group,
            row.group
        )?;
    }
    writeln!(
        out,
        "ok\tmulticast_streams\tof the streams that are wanted ({all}), {flowing} flowed within \
         {SILENCE} s"
    )
}

fn source_of(row: &Row<'_>) -> Ipv6Addr {
    row.flow.map_or(Ipv6Addr::UNSPECIFIED, |flow| flow.source)
}
