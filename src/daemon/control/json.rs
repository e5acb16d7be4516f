//! Writes the status as one JSON object, as `status.schema.json` describes it. Names are stable;
//! new ones may come.

use std::fmt;

use protocol::config::MldVersion;
use protocol::ndp::neighbors::{self, Identity};
use protocol::ndp::solicited;
use protocol::ndp::targets;

use super::{Mac, Output, Piece, Quoted, View, streams};
use crate::interfaces::State;

pub fn write(view: &View<'_>, piece: &Piece<'_>, first: bool, out: Output<'_>) -> fmt::Result {
    let comma = if first { "" } else { "," };
    match piece {
        Piece::Head => write_head(view, out),
        Piece::Downstream(downstream) => {
            write!(
                out,
                "{comma}{{\"interface\":{},\"present\":{},\"running\":{},\"link_local\":{},\
                 \"listening\":{},\"bridge\":",
                Quoted(downstream.name),
                downstream.state != State::Missing,
                downstream.running,
                OrNull(downstream.link_local.map(InQuotes)),
                downstream.listening,
            )?;
            match downstream.bridge {
                Some(bridge) => write!(
                    out,
                    "{{\"snooping\":{},\"multicast_router\":{}}}",
                    bridge.snooping, bridge.multicast_router
                )?,
                None => write!(out, "null")?,
            }
            write!(
                out,
                ",\"kernel_drops\":{},\"state\":\"{}\"}}",
                downstream.lost,
                downstream.state.name()
            )
        }
        Piece::Multicast(part) => streams::json::write(view, part, first, out),
        Piece::Neighbors => {
            out.write_str(streams::json::end(view))?;
            let count = view.engine.ndp().neighbors().len();
            write_list_head(",\"neighbors", count, neighbors::CAPACITY, out)
        }
        Piece::Neighbor(identity, neighbor, host) => {
            let address = match identity {
                Identity::Address(address) => Some(address),
                Identity::Listener(..) => None,
            };
            let (proxied, routed) =
                address.map_or((false, false), |address| view.in_kernel(*address));
            write!(
                out,
                "{comma}{{\"address\":{},\"group\":\"{}\",\"mac\":\"{}\",\"interface\":{},\
                 \"state\":\"{}\",\"age_s\":{},\"expires_s\":{},\"confirmed\":{},\"questions\":{},\
                 \"proxied\":{proxied},\"routed\":{routed}}}",
                OrNull(address.map(InQuotes)),
                identity.group(),
                Mac(host.mac),
                Quoted(view.name_of(host.port)),
                view.state_of(identity, neighbor),
                view.seconds_since(neighbor.last_seen),
                view.seconds_left(neighbor),
                neighbor.is_confirmed(),
                neighbor.step.questions(),
            )
        }
        Piece::Targets => write_list_head(
            "]},\"upstream_neighbors",
            view.engine.ndp().targets().present_from(0).count(),
            targets::CAPACITY,
            out,
        ),
        Piece::Target(address, target) => write!(
            out,
            "{comma}{{\"address\":\"{address}\",\"mac\":\"{}\",\"age_s\":{},\"routed\":{}}}",
            Mac(target.mac),
            view.seconds_since(target.last_seen),
            view.in_kernel(*address).1,
        ),
        Piece::Groups => write_list_head(
            "]},\"groups",
            view.engine.ndp().groups().len(),
            solicited::CAPACITY,
            out,
        ),
        Piece::Group(group, state) => write!(
            out,
            "{comma}{{\"group\":\"{group}\",\"members\":{},\"joined\":{},\"address\":\"{}\"}}",
            state.members,
            state.is_joined(),
            state.address,
        ),
        Piece::Counter(name, value) => {
            let before = if first { "]},\"counters\":{" } else { "," };
            write!(out, "{before}\"{name}\":{value}")
        }
        Piece::Dropped(reason, value) => write!(out, ",\"{}\":{value}", reason.name()),
        Piece::End => writeln!(out, "}}}}"),
    }
}

fn write_head(view: &View<'_>, out: Output<'_>) -> fmt::Result {
    let config = view.engine.config();
    let listener = view.engine.mld().host();
    let upstream = view.engine.links().upstream();
    write!(
        out,
        "{{\"version\":\"{}\",\"name\":{},\"uptime_s\":{},\"upstream\":{{\"interface\":{},\
         \"present\":{},\"running\":{},\"link_local\":{},\"mtu\":{},\"mld_version\":{},\
         \"querier\":",
        env!("CARGO_PKG_VERSION"),
        Quoted(view.name),
        view.seconds_since(view.started),
        Quoted(config.upstream.as_str()),
        view.upstream_state != State::Missing,
        view.upstream_running,
        OrNull(
            upstream
                .and_then(|upstream| upstream.link_local)
                .map(InQuotes)
        ),
        OrNull(upstream.map(|upstream| upstream.mtu)),
        number(listener.version(config)),
    )?;
    match listener.querier() {
        Some(querier) => write!(
            out,
            "{{\"address\":\"{}\",\"mld_version\":{},\"last_query_s\":{}}}",
            querier.address,
            number(querier.version),
            view.seconds_since(querier.last_query),
        )?,
        None => write!(out, "null")?,
    }
    write!(
        out,
        ",\"last_report_s\":{},\"memberships_failing\":{},\"kernel_tables_failing\":{},\
         \"state\":\"{}\"}},\"ndp_proxy\":{},\"host_routes\":{},\"announce\":{},\"downstreams\":[",
        OrNull(listener.last_report().map(|then| view.seconds_since(then))),
        view.engine.ndp().groups().is_failing(),
        view.kernel_tables_fail(),
        view.upstream_state.name(),
        config.ndp_proxy,
        config.host_routes,
        config.announce,
    )
}

pub(super) fn write_list_head(
    name: &str,
    count: usize,
    capacity: usize,
    out: Output<'_>,
) -> fmt::Result {
    write!(
        out,
        "{name}\":{{\"count\":{count},\"capacity\":{capacity},\"list\":["
    )
}

pub(super) fn number(version: MldVersion) -> u8 {
    match version {
        MldVersion::V1 => 1,
        MldVersion::V2 => 2,
    }
}

/// A value without characters that JSON escapes.
pub(super) struct InQuotes<T>(pub(super) T);

impl<T: fmt::Display> fmt::Display for InQuotes<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0)
    }
}

pub(super) struct OrNull<T>(pub(super) Option<T>);

impl<T: fmt::Display> fmt::Display for OrNull<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str("null"),
        }
    }
}
