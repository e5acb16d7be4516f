//! Writes the status for people, in lines of at most 80 columns.

use std::fmt::{self, Write as _};
use std::net::Ipv6Addr;

use protocol::config::MldVersion;
use protocol::escaped::Escaped;
use protocol::ndp::neighbors::{self, Identity};
use protocol::ndp::solicited::{self, Membership};

use super::{Mac, Output, Piece, View, streams};
use crate::interfaces::State;

pub fn write(view: &View<'_>, piece: &Piece<'_>, first: bool, out: Output<'_>) -> fmt::Result {
    match piece {
        Piece::Head => write_head(view, out),
        Piece::Downstream(downstream) => {
            write!(out, "downstream  {:15.15} ", Escaped(downstream.name))?;
            match downstream.state {
                State::Usable if downstream.listening => writeln!(out, "up, listening")?,
                State::Missing => writeln!(out, "{}", State::Missing)?,
                _ if !downstream.listening => writeln!(out, "there, but cannot be listened on")?,
                state => writeln!(out, "{state}")?,
            }
            if let Some(address) = downstream.link_local {
                let snoops = match downstream.bridge {
                    Some(bridge) if bridge.snooping => ", snoops",
                    Some(_) | None => "",
                };
                writeln!(out, "{:12}{address}{snoops}", "")?;
            }
            match downstream.lost {
                0 => Ok(()),
                lost => writeln!(out, "{:12}{lost} packets lost by the kernel", ""),
            }
        }
        Piece::Multicast(part) => streams::text::write(view, part, first, out),
        Piece::Neighbors => writeln!(
            out,
            "{}neighbors   {} of {}",
            // Behind the list of streams.
            if view.is_mld_proxy() { "\n" } else { "" },
            view.engine.ndp().neighbors().len(),
            neighbors::CAPACITY
        ),
        Piece::Neighbor(identity, neighbor, host) => {
            if first {
                writeln!(
                    out,
                    "\n{:26} {:17} {:10} {:>6} {:>6} STATE",
                    "ADDRESS", "MAC", "INTERFACE", "SEEN", "LEFT"
                )?;
            }
            let address = match identity {
                Identity::Address(address) => short(*address),
                Identity::Listener(group, _) => short(group.group()),
            };
            writeln!(
                out,
                "{address:26} {} {:10.10} {:>6} {:>6} {}",
                Mac(host.mac),
                Escaped(view.name_of(host.port)),
                readable(view.seconds_since(neighbor.last_seen)),
                readable(view.seconds_left(neighbor)),
                view.state_of(identity, neighbor),
            )
        }
        Piece::Targets => Ok(()),
        Piece::Target(address, target) => {
            if first {
                writeln!(out, "\n{:26} {:17} {:>6}", "UPSTREAM", "MAC", "SEEN")?;
            }
            writeln!(
                out,
                "{:26} {} {:>6}",
                short(*address),
                Mac(target.mac),
                readable(view.seconds_since(target.last_seen)),
            )
        }
        Piece::Groups => writeln!(
            out,
            "\ngroups      {} of {}",
            view.engine.ndp().groups().len(),
            solicited::CAPACITY
        ),
        Piece::Group(group, state) => {
            if first {
                writeln!(out, "\n{:26} {:>7} {:8} LAST", "GROUP", "MEMBERS", "STATE")?;
            }
            let progress = match state.membership {
                Membership::Waiting | Membership::Joining => "joining",
                Membership::Joined => "joined",
                Membership::Idle | Membership::Leaving => "leaving",
            };
            writeln!(
                out,
                "{:26} {:7} {progress:8} {}",
                short(group.group()),
                state.members,
                short(state.address)
            )
        }
        Piece::Counter(name, value) => {
            if first {
                writeln!(out)?;
            }
            write_counter(name, *value, out)
        }
        Piece::Dropped(reason, value) => write_counter(reason.name(), *value, out),
        Piece::End => Ok(()),
    }
}

fn write_head(view: &View<'_>, out: Output<'_>) -> fmt::Result {
    let config = view.engine.config();
    let listener = view.engine.mld().host();
    writeln!(
        out,
        "mldproxy {}, up {}",
        env!("CARGO_PKG_VERSION"),
        readable(view.seconds_since(view.started))
    )?;
    write!(out, "upstream    {:15.15} ", config.upstream)?;
    match view
        .engine
        .links()
        .upstream()
        .and_then(|upstream| upstream.link_local)
    {
        Some(address) if view.upstream_state == State::Usable => writeln!(
            out,
            "up, {}, {} in force",
            short(address),
            version(listener.version(config))
        )?,
        Some(_) | None => writeln!(out, "{}", view.upstream_state)?,
    }
    match listener.querier() {
        Some(querier) => writeln!(
            out,
            "{:12}querier {} ({}), heard {} ago",
            "",
            short(querier.address),
            version(querier.version),
            readable(view.seconds_since(querier.last_query))
        )?,
        None => writeln!(out, "{:12}no querier heard", "")?,
    }
    if let Some(then) = listener.last_report() {
        writeln!(
            out,
            "{:12}last refresh {} ago",
            "",
            readable(view.seconds_since(then))
        )?;
    }
    if view.engine.ndp().groups().is_failing() {
        writeln!(out, "{:12}the kernel refuses memberships, see the log", "")?;
    }
    if view.kernel_tables_fail() {
        writeln!(
            out,
            "{:12}the kernel refuses proxy entries or routes, see the log",
            ""
        )?;
    }
    Ok(())
}

pub(super) fn version(version: MldVersion) -> &'static str {
    match version {
        MldVersion::V1 => "MLDv1",
        MldVersion::V2 => "MLDv2",
    }
}

fn write_counter(name: &str, value: u64, out: Output<'_>) -> fmt::Result {
    match value {
        0 => Ok(()),
        value => writeln!(out, "{name:28}{value}"),
    }
}

/// An address in at most 26 columns. A longer one is cut to its first group and its interface
/// identifier (RFC 4291 §2.5.1).
pub(super) fn short(address: Ipv6Addr) -> heapless::String<48> {
    let mut text = heapless::String::new();
    let _ = write!(text, "{address}");
    if text.len() > 26 {
        let [first, _, _, _, a, b, c, d] = address.segments();
        text.clear();
        let _ = write!(text, "{first:x}:…:{a:x}:{b:x}:{c:x}:{d:x}");
    }
    text
}

/// A duration in at most 6 columns.
pub(super) fn readable(seconds: u64) -> Readable {
    let mut text = heapless::String::new();
    let _ = match seconds {
        0..100 => write!(text, "{seconds} s"),
        100..6000 => write!(text, "{} min", seconds / 60),
        6000..172_800 => write!(text, "{} h", seconds / 3600),
        _ => write!(text, "{} d", seconds / 86400),
    };
    Readable(text)
}

pub(super) struct Readable(pub(super) heapless::String<24>);

impl fmt::Display for Readable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use protocol::config::Config;
    use protocol::engine::{Engine, Event};
    use protocol::link::{Link, Side};
    use protocol::time::{Duration, Instant};
    use protocol::wire::{ALL_NODES, MacAddress, Query, QueryVersion};

    use super::super::Downstream;
    use super::*;
    use crate::sys::netlink::Bridge;

    #[test]
    fn no_state_of_a_downstream_is_wider_than_80_columns() {
        let mut tables = model::storage::new();
        let config = Config::new("wan".parse().unwrap());
        let engine = Engine::new(&mut tables, config, [1; 16]);
        let mut view = View::of(&engine, Instant::ZERO);
        const STATES: [State; 7] = [
            State::Missing,
            State::PartOf(u32::MAX),
            State::Down,
            State::NoCarrier,
            State::SmallMtu(1279),
            State::NoLinkLocal,
            State::Usable,
        ];
        for (number, state) in (0..8).zip(STATES.into_iter().cycle()) {
            let downstream = Downstream {
                name: "a-name-as-can-b",
                state,
                index: Some(2),
                running: true,
                link_local: Some("fe80::1c3d:fe12:3456:789a".parse().unwrap()),
                listening: number != 7,
                bridge: Some(Bridge {
                    snooping: true,
                    vlan_snooping: false,
                    queries_by_mldv1: false,
                    multicast_router: 2,
                }),
                lost: u64::MAX,
            };
            view.downstreams.push(downstream).ok().unwrap();
        }
        for downstream in &view.downstreams {
            let mut text = String::new();
            write(&view, &Piece::Downstream(downstream), true, &mut text).unwrap();
            assert!(
                text.lines().all(|line| line.chars().count() <= 80),
                "{text}"
            );
        }
    }

    #[test]
    fn the_longest_link_local_addresses_upstream_fit_as_well() {
        let long = "febf:1111:2222:3333:4444:5555:6666:7777".parse().unwrap();
        let mut config = Config::new("a-name-as-can-b".parse().unwrap());
        config.downstreams.push("lan".parse().unwrap()).unwrap();
        let mut tables = model::storage::new();
        let mut engine = Engine::new(&mut tables, config, [1; 16]);
        let upstream = Link {
            index: 1,
            link_local: Some(long),
            mtu: 1500,
            mac: MacAddress([0; 6]),
        };
        engine.handle(Instant::ZERO, Event::Link(Side::Upstream, Some(upstream)));
        let mut packet = [0; 128];
        let query = Query {
            source: long,
            destination: ALL_NODES,
            group: Ipv6Addr::UNSPECIFIED,
            max_response_delay: Duration::ZERO,
            version: QueryVersion::V1,
        };
        let length = query.emit(&mut packet).unwrap();
        let (mac, packet) = (MacAddress([0; 6]), &packet[..length]);
        engine.handle(
            Instant::ZERO,
            Event::Packet {
                side: Side::Upstream,
                mac,
                packet,
            },
        );
        let view = View::of(&engine, Instant::from_secs(5999));
        let mut text = String::new();
        write(&view, &Piece::Head, true, &mut text).unwrap();
        assert!(text.contains("querier febf:…:4444:5555:6666:7777 (MLDv1)"));
        assert!(
            text.lines().all(|line| line.chars().count() <= 80),
            "{text}"
        );
    }

    #[test]
    fn an_address_is_at_most_26_columns_wide() {
        for (address, expected) in [
            ("2001:db8:1::1:10", "2001:db8:1::1:10"),
            (
                "2a02:8071:b783:c6e0:1c3d:fe12:3456:789a",
                "2a02:…:1c3d:fe12:3456:789a",
            ),
            ("2001:db8:1:2:a8bb:cc:f:1", "2001:db8:1:2:a8bb:cc:f:1"),
        ] {
            let text = short(address.parse().unwrap());
            assert_eq!(text, expected);
            assert!(text.chars().count() <= 26);
        }
    }

    #[test]
    fn a_time_is_at_most_6_columns_wide() {
        for (seconds, expected) in [
            (0, "0 s"),
            (99, "99 s"),
            (100, "1 min"),
            (5999, "99 min"),
            (6000, "1 h"),
            (172_799, "47 h"),
            (172_800, "2 d"),
            (86_400 * 9999, "9999 d"),
        ] {
            assert_eq!(readable(seconds).to_string(), expected);
        }
    }
}
