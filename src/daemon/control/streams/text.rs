//! Writes the multicast part of the status for people.

use std::fmt::{self, Write as _};

use protocol::config::ProxyConfig;
use protocol::escaped::Escaped;
use protocol::link::Port;
use protocol::mld::filter::FilterMode;
use protocol::mld::proxy::rows::{Membership, Row};
use protocol::mld::querier::{Other, Role};

use super::super::text::{Readable, readable, short, version};
use super::super::{Downstream, Output, View};
use super::{ForwardingTable, From, OnLink, Part, Upstream, Wish, own_version};
use crate::sys::mroute::Refusal;

pub fn write(view: &View<'_>, part: &Part<'_>, first: bool, out: Output<'_>) -> fmt::Result {
    let Some(config) = &view.engine.config().mld_proxy else {
        return Ok(());
    };
    match part {
        Part::Head => write_head(view, config, out),
        Part::Link(port, downstream) => write_link(view, config, (*port, downstream), out),
        Part::List | Part::Octets(_) => Ok(()),
        Part::Stream(row) => {
            if first {
                writeln!(
                    out,
                    "\n{:26}  {:8} {:>6} {:>11} {:>6}  FROM > TO",
                    "GROUP, SOURCE", "MODE", "LEFT", "PACKETS", "AGE"
                )?;
            }
            write_stream(view, config, row, out)
        }
    }
}

fn write_head(view: &View<'_>, config: &ProxyConfig, out: Output<'_>) -> fmt::Result {
    let proxy = view.streams().proxy();
    let (groups, rows) = (view.streams().members().len(), proxy.row_count());
    writeln!(
        out,
        "multicast   {groups} group{}, {} joined upstream, {rows} stream{}",
        plural(groups),
        proxy.joined(),
        plural(rows),
    )?;
    if let ForwardingTable::Refused(errno) = view.forwarding {
        let why = match Refusal::of(errno) {
            Refusal::InUse => {
                "another program owns the multicast routing\n            table; \
                `mldproxy check` looks for it"
            }
            Refusal::Unsupported => "this kernel has no IPv6 multicast routing",
            Refusal::Other(errno) => errno.desc(),
        };
        writeln!(out, "{:12}no stream is forwarded: {why}", "")?;
    }
    write_too_high(view, view.upstream_index, out)?;
    if let Some(querier) = view.older_querier(config) {
        match querier.is_unspecified() {
            true => writeln!(out, "{:12}MLDv1 is in force upstream: SSM cannot work", "")?,
            false => writeln!(
                out,
                "{:12}MLDv1 querier {} upstream: SSM cannot work;\n\
                 {:12}--mld-version 2 forces MLDv2",
                "",
                short(querier),
                ""
            )?,
        }
    }
    Ok(())
}

/// Tells of an interface that the kernel's multicast routing cannot take.
fn write_too_high(view: &View<'_>, index: Option<u32>, out: Output<'_>) -> fmt::Result {
    match view.too_high(index) {
        Some(index) => writeln!(
            out,
            "{:12}no stream: its number {index} is above 65535; create it anew",
            ""
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
    write!(out, "{:12}{:15.15} ", "", Escaped(downstream.name))?;
    let role = view.role(port);
    match role {
        Role::Down => return writeln!(out, "down"),
        Role::Querier { next_query, .. } => write!(
            out,
            "querier ({}), next query in {}",
            version(own_version(config)),
            left(view.seconds_until(next_query)),
        )?,
        Role::Other(other) => write!(out, "other querier ({})", version(other.version))?,
        Role::Off(Some(other)) => {
            write!(out, "--querier off, other ({})", version(other.version))?;
        }
        Role::Off(None) => write!(out, "--querier off, and nobody queries")?,
    }
    let groups = usize::from(view.streams().members().count_on(port));
    // The head says it where the table is not owned.
    let forwards = !view.is_owner() || view.forwards(config, port);
    let forwarding = if forwards { "" } else { ", not forwarding" };
    match role {
        // The line has room for the groups alone.
        Role::Querier { .. } | Role::Off(_) => {
            writeln!(out, ", {groups} group{}", plural(groups))?;
            if !forwarding.is_empty() {
                writeln!(out, "{:28}not forwarding", "")?;
            }
        }
        Role::Down | Role::Other(_) => {
            writeln!(out, ", {groups} group{}{forwarding}", plural(groups))?;
        }
    }
    if let Role::Other(Other {
        address, gone_at, ..
    })
    | Role::Off(Some(Other {
        address, gone_at, ..
    })) = role
    {
        let left = left(view.seconds_until(gone_at));
        writeln!(out, "{:28}{}, gone in {left} if silent", "", short(address))?;
    }
    write_too_high(view, downstream.index, out)
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

fn write_stream(
    view: &View<'_>,
    config: &ProxyConfig,
    row: &Row<'_>,
    out: Output<'_>,
) -> fmt::Result {
    if row.is_first {
        write!(out, "{:27} ", row.group)?;
        write_membership(&view.upstream_of(config, row), out)?;
    }
    let mut source: heapless::String<48> = heapless::String::new();
    match row.flow {
        Some(flow) => source = short(flow.source),
        None => source.push('*').unwrap_or_default(),
    }
    let (mode, until) = mode_of(view, config, row);
    let counts = &row.counts;
    let mut age: heapless::String<24> = heapless::String::new();
    match counts.packets {
        0 => age.push('-').unwrap_or_default(),
        _ => write!(age, "{}", left(counts.idle.into()))?,
    }
    write!(
        out,
        " {source:26} {mode:8} {until:>6} {:>11} {age:>6}",
        Grouped(counts.packets)
    )?;
    write_way(view, row, out)?;
    match counts.wrong_side {
        0 => Ok(()),
        packets => writeln!(
            out,
            "{:28}{} packets from another side, dropped",
            "",
            Grouped(packets.into())
        ),
    }
}

fn write_membership(upstream: &Upstream, out: Output<'_>) -> fmt::Result {
    match upstream {
        Upstream::AtHome => writeln!(out, "stays at home (--scope)"),
        Upstream::OlderVersion => writeln!(out, "not joined: MLDv1 upstream"),
        Upstream::Is(membership) => match membership {
            Membership::None => writeln!(out, "not joined"),
            Membership::Joining => writeln!(out, "joining"),
            Membership::Leaving => writeln!(out, "leaving"),
            Membership::Member(FilterMode::Exclude, 0) => writeln!(out, "joined"),
            Membership::Member(FilterMode::Exclude, count) => {
                writeln!(out, "joined, all sources but {count}")
            }
            Membership::Member(FilterMode::Include, 1) => writeln!(out, "joined, 1 source"),
            Membership::Member(FilterMode::Include, count) => {
                writeln!(out, "joined, {count} sources")
            }
        },
    }
}

/// What listeners want of a stream in one word, and how long the last of them wants it.
fn mode_of(
    view: &View<'_>,
    config: &ProxyConfig,
    row: &Row<'_>,
) -> (&'static str, heapless::String<24>) {
    let (mut mode, mut latest, mut all_leave) = ("-", None, true);
    let _ = view.for_each_link(config, row, &mut |link: &OnLink| {
        match link.wish {
            Wish::Include | Wish::Exclude => mode = link.wish.name(),
            Wish::Requested if mode != "include" => mode = "include",
            Wish::Excluded if mode == "-" => mode = "blocked",
            Wish::Requested | Wish::Excluded => {}
        }
        all_leave &= link.is_leaving || link.left.is_none();
        latest = latest.max(link.left);
        Ok(())
    });
    let mut text = heapless::String::new();
    let Some(latest) = latest else {
        let _ = text.push('-');
        return (mode, text);
    };
    let _ = write!(text, "{}", left(latest));
    (if all_leave { "leaving" } else { mode }, text)
}

/// Writes the rest of a line, behind its column 62: where a stream comes from, and where it goes.
fn write_way(view: &View<'_>, row: &Row<'_>, out: Output<'_>) -> fmt::Result {
    const START: usize = 62;
    const END: usize = 80;
    let mut column = START;
    let mut word = |out: Output<'_>, text: fmt::Arguments<'_>| {
        let mut word: heapless::String<64> = heapless::String::new();
        let _ = word.write_fmt(text);
        // Two spaces before the first word, and one before each other.
        let space = if column == START { "  " } else { " " };
        let width = word.chars().count().saturating_add(space.len());
        if column.saturating_add(width) > END {
            write!(out, "\n{:START$}  {word}", "")?;
            column = START.saturating_add(2).saturating_add(word.chars().count());
        } else {
            write!(out, "{space}{word}")?;
            column = column.saturating_add(width);
        }
        Ok::<(), fmt::Error>(())
    };
    match view.incoming(row) {
        None => {
            word(out, format_args!("not"))?;
            word(out, format_args!("forwarded"))?;
            return writeln!(out);
        }
        Some(From::Any) => word(out, format_args!("any"))?,
        Some(From::Home) => word(out, format_args!("home"))?,
        Some(From::Nowhere) => word(out, format_args!("nowhere"))?,
        Some(From::Interface(name)) => word(out, format_args!("{:.15}", Escaped(name)))?,
    }
    word(out, format_args!(">"))?;
    let mut goes = false;
    view.for_each_outgoing(row, &mut |name| {
        goes = true;
        word(out, format_args!("{:.15}", Escaped(name)))
    })?;
    if !goes {
        word(out, format_args!("nobody"))?;
    }
    writeln!(out)
}

/// A time of MLD in at most 6 columns, in seconds where most of its timers are.
fn left(seconds: u64) -> Readable {
    match seconds {
        100..1000 => {
            let mut text = heapless::String::new();
            let _ = write!(text, "{seconds} s");
            Readable(text)
        }
        _ => readable(seconds),
    }
}

/// A number with a comma before each three digits, in at most 12 columns.
struct Grouped(u64);

impl fmt::Display for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (number, unit) = match self.0 {
            number @ 0..1_000_000_000 => (number, ""),
            number @ 1_000_000_000..10_000_000_000_000 => (number / 1_000_000, " M"),
            number => (number / 1_000_000_000_000, " T"),
        };
        let mut text: heapless::String<16> = heapless::String::new();
        let (millions, thousands, ones) = (number / 1_000_000, number / 1000 % 1000, number % 1000);
        match (millions, thousands) {
            (0, 0) => write!(text, "{ones}{unit}")?,
            (0, _) => write!(text, "{thousands},{ones:03}{unit}")?,
            (_, _) => write!(text, "{millions},{thousands:03},{ones:03}{unit}")?,
        }
        f.pad(&text)
    }
}
