//! What one mldproxy tells another program of the same name: one line of words, of which none holds
//! a space.
//!
//! ```text
//! mldproxy 2 namespace=1 upstream=wan last_query_s=12 querier_timeout_s=260 ndp_proxy=1
//! ```
//!
//! The number counts up when the words change. `namespace` is the number of the instance's network
//! namespace, since several may share a folder. `last_query_s` is `-` where no query was heard on
//! this upstream, and after `querier_timeout_s` without one there is no querier. The name of the
//! interface is not escaped. It holds neither ASCII white space nor C0 controls.

use std::fmt;

use super::{Output, View};
use crate::sys::decimal;

/// What the line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe<'l> {
    /// The network namespace, by [`network_namespace`](crate::sys::network_namespace).
    pub namespace: u64,
    pub upstream: &'l str,
    /// Seconds since the instance heard a query; `None` if it heard none.
    pub last_query: Option<u32>,
    /// Seconds without a query after which there is no querier.
    pub querier_timeout: u32,
    /// The instance is an NDP proxy as well.
    pub ndp_proxy: bool,
}

pub fn write(view: &View<'_>, out: Output<'_>) -> fmt::Result {
    let listener = view.engine.mld().host();
    let config = view.engine.config();
    let (namespace, upstream) = (view.namespace, config.upstream.as_str());
    write!(
        out,
        "mldproxy 2 namespace={namespace} upstream={upstream} last_query_s="
    )?;
    match listener.querier() {
        Some(querier) => write!(out, "{}", view.seconds_since(querier.last_query))?,
        None => out.write_char('-')?,
    }
    writeln!(
        out,
        " querier_timeout_s={} ndp_proxy={}",
        listener.querier_timeout().as_secs(),
        u8::from(config.ndp_proxy)
    )
}

impl<'l> Probe<'l> {
    /// Reads a line, including its end. `None` if it has any other form.
    pub fn parse(line: &'l str) -> Option<Self> {
        let mut words = line.strip_suffix('\n')?.split(' ');
        if (words.next(), words.next()) != (Some("mldproxy"), Some("2")) {
            return None;
        }
        let mut value = |name: &str| words.next()?.strip_prefix(name)?.strip_prefix('=');
        let probe = Probe {
            namespace: namespace(value("namespace")?)?,
            upstream: value("upstream").filter(|name| !name.is_empty())?,
            last_query: match value("last_query_s")? {
                "-" => None,
                digits => Some(number(digits)?),
            },
            querier_timeout: number(value("querier_timeout_s")?)?,
            ndp_proxy: match value("ndp_proxy")? {
                "0" => false,
                "1" => true,
                _ => return None,
            },
        };
        words.next().is_none().then_some(probe)
    }
}

fn namespace(digits: &str) -> Option<u64> {
    let is_number = digits.bytes().all(|octet| octet.is_ascii_digit());
    digits.parse().ok().filter(|_| is_number)
}

fn number(digits: &str) -> Option<u32> {
    decimal(digits.as_bytes()).filter(|_| !digits.is_empty())
}

#[cfg(test)]
mod tests {
    use protocol::config::Config;
    use protocol::engine::{Engine, Event};
    use protocol::link::{Link, Side};
    use protocol::time::Instant;
    use protocol::wire::{ALL_NODES, MacAddress, Query, QueryVersion};

    use super::super::{Cursor, Format, parse_question};
    use super::*;

    /// A daemon's whole answer to `probe`.
    fn answer(upstream: &str, ndp_proxy: bool, queried: bool) -> String {
        let mut config = Config::new(upstream.parse().unwrap());
        config.ndp_proxy = ndp_proxy;
        let mut tables = model::storage::new();
        let mut engine = Engine::new(&mut tables, config, [1; 16]);
        let link_local = "fe80::1".parse().unwrap();
        let mac = MacAddress([2, 0, 0, 0, 0, 1]);
        let upstream = Link {
            index: 1,
            link_local: Some(link_local),
            mtu: 1500,
            mac,
        };
        engine.handle(Instant::ZERO, Event::Link(Side::Upstream, Some(upstream)));
        if queried {
            let query = Query {
                source: link_local,
                destination: ALL_NODES,
                group: "::".parse().unwrap(),
                max_response_delay: protocol::time::Duration::from_secs(10),
                version: QueryVersion::V1,
            };
            let mut packet = [0; 128];
            let length = query.emit(&mut packet).unwrap();
            let packet = &packet[..length];
            engine.handle(
                Instant::ZERO,
                Event::Packet {
                    side: Side::Upstream,
                    mac,
                    packet,
                },
            );
        }
        let view = View {
            namespace: u64::MAX,
            ..View::of(&engine, Instant::from_secs(12))
        };
        let (format, limit) = parse_question(b"probe").unwrap();
        assert_eq!(format, Format::Probe);
        let (mut cursor, mut buffer) = (Cursor::new(limit), [0; 4096]);
        let length = cursor.fill(&view, format, &mut buffer);
        assert_eq!(cursor.fill(&view, format, &mut [0; 4096]), 0, "one line");
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn what_is_written_is_read_whatever_the_interface_is_called() {
        let expected = "mldproxy 2 namespace=18446744073709551615 upstream=wan last_query_s=12 \
                        querier_timeout_s=260 ndp_proxy=1\n";
        assert_eq!(answer("wan", true, true), expected);
        for name in [
            "wan",
            "a=b",
            "\"ndp_proxy\"",
            "-",
            "1",
            "wän",
            "\u{a0}",
            "x ndp_proxy=1",
        ] {
            for ndp_proxy in [false, true] {
                for queried in [false, true] {
                    if name.contains(' ') {
                        // With a space in a name, a user could forge a word.
                        assert!(name.parse::<protocol::link::InterfaceName>().is_err());
                        continue;
                    }
                    let line = answer(name, ndp_proxy, queried);
                    let probe = Probe {
                        namespace: u64::MAX,
                        upstream: name,
                        last_query: queried.then_some(12),
                        querier_timeout: 260,
                        ndp_proxy,
                    };
                    assert_eq!(Probe::parse(&line), Some(probe), "{line}");
                }
            }
        }
    }

    #[test]
    fn a_line_of_any_other_form_is_not_taken_for_an_answer() {
        let line = "mldproxy 2 namespace=1 upstream=wan last_query_s=12 querier_timeout_s=260 \
                    ndp_proxy=1\n";
        assert!(Probe::parse(line).is_some());
        for end in 0..line.len() {
            assert_eq!(Probe::parse(&line[..end]), None, "{}", &line[..end]);
        }
        for (part, other) in [
            ("mldproxy ", "mldproxy  "),
            ("mldproxy ", "omcproxy "),
            (" 2 ", " 1 "),
            ("namespace=1 ", ""),
            ("namespace=1", "namespace="),
            ("namespace=1", "namespace=+1"),
            ("namespace=1", "namespace=18446744073709551616"),
            ("=wan", "="),
            ("=12", "=+12"),
            ("=12", "="),
            ("=260", "=99999999999"),
            ("proxy=1", "proxy=2"),
            ("proxy=1", "proxy=1 more=1"),
            ("proxy=1\n", "proxy=1\n\n"),
            (
                " last_query_s=12 querier_timeout_s=260",
                " querier_timeout_s=260 last_query_s=12",
            ),
            ("upstream", "\"upstream\""),
        ] {
            let other = line.replacen(part, other, 1);
            assert_eq!(Probe::parse(&other), None, "{other}");
        }
    }
}
