//! Writes the multicast part of the status as JSON.

use std::fmt;

use protocol::config::{MldVersion, ProxyConfig};
use protocol::link::{Port, Side};
use protocol::mld::proxy::rows::{Membership, ROWS, Row};
use protocol::mld::querier::Role;

use super::super::json::{InQuotes, OrNull, number, write_list_head};
use super::super::{Downstream, Output, Quoted, View};
use super::{ForwardingTable, From, Part, Upstream, own_version};
use crate::sys::mroute::Refusal;

pub fn write(view: &View<'_>, part: &Part<'_>, first: bool, out: Output<'_>) -> fmt::Result {
    let Some(config) = &view.engine.config().mld_proxy else {
        return write!(out, "],\"multicast\":null");
    };
    let comma = if first { "" } else { "," };
    match part {
        Part::Head => write_head(view, config, out),
        Part::Link(port, downstream) => {
            out.write_str(comma)?;
            write_link(view, config, (*port, downstream), out)
        }
        Part::List => {
            let count = view.streams().proxy().row_count();
            write_list_head("],\"streams", count, ROWS, out)
        }
        Part::Stream(row) => {
            out.write_str(comma)?;
            write_stream(view, config, row, out)
        }
        Part::Octets(_) => Ok(()),
    }
}

/// The end of the part, behind the list of streams.
pub fn end(view: &View<'_>) -> &'static str {
    if view.is_mld_proxy() { "]}}" } else { "" }
}

fn write_head(view: &View<'_>, config: &ProxyConfig, out: Output<'_>) -> fmt::Result {
    let table = match view.forwarding {
        ForwardingTable::Owned => "owned",
        ForwardingTable::Unwanted => "refused",
        ForwardingTable::Refused(errno) => match Refusal::of(errno) {
            Refusal::InUse => "in_use",
            Refusal::Unsupported => "unsupported",
            Refusal::Other(_) => "refused",
        },
    };
    write!(
        out,
        "],\"multicast\":{{\"table\":\"{table}\",\"upstream_taken\":{},\"groups\":{},\
         \"joined\":{},\"ssm_impossible\":{},\"downstreams\":[",
        view.is_taken(Side::Upstream),
        view.streams().members().len(),
        view.streams().proxy().joined(),
        view.older_querier(config).is_some(),
    )
}

fn write_link(
    view: &View<'_>,
    config: &ProxyConfig,
    (port, downstream): (Port, &Downstream<'_>),
    out: Output<'_>,
) -> fmt::Result {
    let role = view.role(port);
    let (name, address, version): (_, _, Option<MldVersion>) = match role {
        Role::Down => ("down", None, None),
        Role::Querier { .. } => ("querier", downstream.link_local, Some(own_version(config))),
        Role::Other(other) => ("other", Some(other.address), Some(other.version)),
        Role::Off(Some(other)) => ("off", Some(other.address), Some(other.version)),
        Role::Off(None) => ("off", None, None),
    };
    let (next_query, gone) = match role {
        Role::Querier { next_query, .. } => (Some(next_query), None),
        Role::Other(other) | Role::Off(Some(other)) => (None, Some(other.gone_at)),
        Role::Down | Role::Off(None) => (None, None),
    };
    let seconds = |then| view.seconds_until(then);
    write!(
        out,
        "{{\"interface\":{},\"role\":\"{name}\",\"querier\":{},\"mld_version\":{},\
         \"next_query_s\":{},\"querier_expires_s\":{},\"taken\":{},\"forwarding\":{},\
         \"groups\":{}}}",
        Quoted(downstream.name),
        OrNull(address.map(InQuotes)),
        OrNull(version.map(number)),
        OrNull(next_query.map(seconds)),
        OrNull(gone.map(seconds)),
        view.is_taken(Side::Downstream(port)),
        view.forwards(config, port),
        view.streams().members().count_on(port),
    )
}

fn write_stream(
    view: &View<'_>,
    config: &ProxyConfig,
    row: &Row<'_>,
    out: Output<'_>,
) -> fmt::Result {
    let membership = match view.upstream_of(config, row) {
        Upstream::AtHome => "at_home",
        Upstream::OlderVersion => "mldv1",
        Upstream::Is(Membership::None) => "none",
        Upstream::Is(Membership::Joining) => "joining",
        Upstream::Is(Membership::Member(..)) => "joined",
        Upstream::Is(Membership::Leaving) => "leaving",
    };
    let from = match view.incoming(row) {
        Some(From::Interface(name)) => Some(Quoted(name)),
        Some(From::Any | From::Home | From::Nowhere) | None => None,
    };
    write!(
        out,
        "{{\"group\":\"{}\",\"source\":{},\"membership\":\"{membership}\",\"installed\":{},\
         \"from\":{},\"to\":[",
        row.group,
        OrNull(row.flow.map(|flow| InQuotes(flow.source))),
        row.entry.is_some(),
        OrNull(from),
    )?;
    let mut comma = "";
    view.for_each_outgoing(row, &mut |name| {
        write!(out, "{comma}{}", Quoted(name))?;
        comma = ",";
        Ok(())
    })?;
    let counts = &row.counts;
    write!(
        out,
        "],\"packets\":{},\"octets\":{},\"wrong_side\":{},\"idle_s\":{},\"listeners\":[",
        counts.packets, counts.octets, counts.wrong_side, counts.idle
    )?;
    let mut comma = "";
    view.for_each_link(config, row, &mut |link| {
        write!(
            out,
            "{comma}{{\"interface\":{},\"mode\":\"{}\",\"expires_s\":{},\"leaving\":{},\
             \"older_host_s\":{}}}",
            Quoted(view.name_of(link.port)),
            link.wish.name(),
            OrNull(link.left),
            link.is_leaving,
            OrNull(link.older_host),
        )?;
        comma = ",";
        Ok(())
    })?;
    out.write_str("]}")
}
