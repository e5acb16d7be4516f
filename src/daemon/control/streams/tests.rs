//! What the multicast part says of a home with listeners, which reports make.

use std::net::Ipv6Addr;

use model::packets::{emitted, heard, query, report, v2};
use protocol::config::{Config, ProxyConfig};
use protocol::engine::{Engine, Event, Tables};
use protocol::link::{Link, Port, Side};
use protocol::mld::proxy::Counts;
use protocol::time::Instant;
use protocol::wire::{MacAddress, QueryVersion, RecordType, ReportBuilder, Sources};

use super::super::{Cursor, Downstream, Format, View};
use super::*;
use crate::interfaces::State;

const GUEST: Port = 1;
const HOST: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x99);
const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x10);
const OTHER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);
const GATEWAY: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
const SOURCE: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x10);
const CHANNEL: Ipv6Addr = Ipv6Addr::new(0xff3e, 0, 0, 0, 0, 0, 0x4321, 0x1234);
const AT_HOME: Ipv6Addr = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, 0xfb);
const START: Instant = Instant::from_secs(1000);

struct Home<'t> {
    engine: Engine<'t>,
    names: Vec<String>,
    now: Instant,
    forwarding: ForwardingTable,
    index: u32,
}

fn number(side: Side) -> u8 {
    number_of(side)
}

impl<'t> Home<'t> {
    fn new(tables: &'t mut Tables, names: &[&str]) -> Self {
        Self::with(tables, names, ProxyConfig::default())
    }

    fn with(tables: &'t mut Tables, names: &[&str], proxy: ProxyConfig) -> Self {
        let mut config = Config::new("wan".parse().unwrap());
        for name in names {
            config.downstreams.push(name.parse().unwrap()).unwrap();
        }
        config.mld_proxy = Some(proxy);
        let mut home = Home {
            engine: Engine::new(tables, config, [1; 16]),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            now: START,
            forwarding: ForwardingTable::Owned,
            index: 7,
        };
        let ports = 0..names.len() as Port;
        let sides = std::iter::once(Side::Upstream).chain(ports.map(Side::Downstream));
        for side in sides {
            let index = u32::from(number(side)) + 1;
            let mac = MacAddress([2, 0, 0, 0, 0, number(side)]);
            let link = Link {
                index,
                link_local: Some(ROUTER),
                mtu: 1500,
                mac,
            };
            home.handle(Event::Link(side, Some(link)));
            let present = true;
            home.handle(Event::Forwarding { side, present });
        }
        home
    }

    fn handle(&mut self, event: Event<'_>) {
        self.engine.handle(self.now, event);
        let mut buffer = [0; protocol::engine::BUFFER_LENGTH];
        while let Some(action) = self.engine.poll_action(&mut buffer) {
            self.engine.done(self.now, &action, true);
        }
    }

    /// A host downstream reports a change with these sources.
    fn reports(&mut self, port: Port, kind: RecordType, group: Ipv6Addr, sources: &[Ipv6Addr]) {
        let mut octets = [0; 16 * 64];
        let sources = Sources::write(sources.iter().copied(), &mut octets);
        let packet = emitted(|buffer| {
            let mut report = ReportBuilder::new(buffer);
            assert!(report.push_with(kind, group, sources));
            report.finish(HOST)
        });
        self.hears(Side::Downstream(port), &packet);
    }

    fn hears(&mut self, side: Side, packet: &[u8]) {
        self.handle(heard(side, MacAddress([2, 0, 0, 0, 0, 0x99]), packet));
    }

    fn counts(&mut self, source: Ipv6Addr, group: Ipv6Addr, counts: Counts) {
        self.handle(Event::Counted {
            source,
            group,
            counts,
        });
    }

    fn passes(&mut self, seconds: u64) {
        self.now = self
            .now
            .saturating_add(protocol::time::Duration::from_secs(seconds));
        self.engine.handle_timeout(self.now);
        self.handle(Event::OwnKnown);
    }

    fn answer(&self, format: Format, limit: usize) -> String {
        let downstreams = self.names.iter().map(|name| Downstream {
            name,
            state: State::Usable,
            index: Some(self.index),
            running: true,
            link_local: Some(ROUTER),
            listening: true,
            bridge: None,
            lost: 0,
        });
        let view = View {
            downstreams: downstreams.collect(),
            forwarding: self.forwarding,
            upstream_index: Some(self.index),
            ..View::of(&self.engine, self.now)
        };
        let (mut cursor, mut answer) = (Cursor::new(limit), Vec::new());
        // The server's buffers have room for more.
        let mut buffer = [0; super::super::server::BUFFER_LENGTH - 500];
        while let length @ 1.. = cursor.fill(&view, format, &mut buffer) {
            answer.extend_from_slice(&buffer[..length]);
        }
        assert!(cursor.is_at_end(), "{format:?} breaks off");
        let answer = String::from_utf8(answer).unwrap();
        for line in answer.lines().filter(|_| format == Format::Text) {
            assert!(line.chars().count() <= 80, "{line:?}");
        }
        answer
    }

    #[track_caller]
    fn expect(&self, format: Format, parts: &[&str]) {
        let answer = self.answer(format, 9999);
        for part in parts {
            assert!(answer.contains(part), "{part:?} in:\n{answer}");
        }
    }
}

/// A home in which two downstreams listen.
fn listening(tables: &mut Tables) -> Home<'_> {
    let mut home = Home::new(tables, &["br-lan", "guest"]);
    home.reports(0, RecordType::AllowNewSources, CHANNEL, &[SOURCE]);
    for port in [0, GUEST] {
        home.reports(port, RecordType::ChangeToExclude, AT_HOME, &[]);
    }
    let counts = Counts {
        packets: 4392,
        octets: 5_780_000,
        wrong_side: 0,
        idle: 0,
    };
    home.counts(SOURCE, CHANNEL, counts);
    home
}

#[test]
fn the_text_has_queriers_groups_streams_timers_and_counts() {
    let mut tables = model::storage::new();
    let home = listening(&mut tables);
    home.expect(
        Format::Text,
        &[
            "multicast   2 groups, 1 joined upstream, 2 streams\n",
            "            br-lan          querier (MLDv2), next query in 31 s, 2 groups\n",
            "            guest           querier (MLDv2), next query in 31 s, 1 group\n",
            "\nGROUP, SOURCE               MODE       LEFT     PACKETS    AGE  FROM > TO\n",
            "\nff3e::4321:1234             joined, 1 source\n \
             2001:db8:1::10             include   260 s       4,392    0 s  wan > br-lan\n",
            "\nff05::fb                    stays at home (--scope)\n \
             *                          exclude   260 s           0      -  home > br-lan\n\
             \x20                                                               guest\n",
        ],
    );
}

#[test]
fn the_json_tells_all_of_each_stream() {
    let mut tables = model::storage::new();
    let home = listening(&mut tables);
    home.expect(
        Format::Json,
        &[
            "],\"multicast\":{\"table\":\"owned\",\"upstream_taken\":true,\
             \"groups\":2,\"joined\":1,\
             \"ssm_impossible\":false,\"downstreams\":[{\"interface\":\"br-lan\",\
             \"role\":\"querier\",\"querier\":\"fe80::10\",\"mld_version\":2,\"next_query_s\":31,\
             \"querier_expires_s\":null,\"taken\":true,\"forwarding\":true,\"groups\":2},{",
            "],\"streams\":{\"count\":2,\"capacity\":12800,\"list\":[{",
            "{\"group\":\"ff3e::4321:1234\",\"source\":\"2001:db8:1::10\",\
             \"membership\":\"joined\",\"installed\":true,\"from\":\"wan\",\"to\":[\"br-lan\"],\
             \"packets\":4392,\"octets\":5780000,\"wrong_side\":0,\"idle_s\":0,\"listeners\":[{\
             \"interface\":\"br-lan\",\"mode\":\"include\",\"expires_s\":260,\"leaving\":false,\
             \"older_host_s\":null}]}",
            "{\"group\":\"ff05::fb\",\"source\":null,\"membership\":\"at_home\",\
             \"installed\":true,\"from\":null,\"to\":[\"br-lan\",\"guest\"],",
            "]}},\"neighbors\":{",
        ],
    );
    let short = home.answer(Format::Json, 0);
    assert!(short.contains("\"streams\":{\"count\":2,\"capacity\":12800,\"list\":[]}}"));
}

#[test]
fn without_the_mld_proxy_there_is_nothing_to_tell() {
    let mut tables = model::storage::new();
    let mut config = Config::new("wan".parse().unwrap());
    config.downstreams.push("lan".parse().unwrap()).unwrap();
    let engine = Engine::new(&mut tables, config, [1; 16]);
    let view = View::of(&engine, START);
    for (format, expected) in [
        (Format::Findings, ""),
        (Format::Json, "\"multicast\":null,"),
    ] {
        let (mut cursor, mut buffer) = (Cursor::new(0), [0; 8192]);
        let length = cursor.fill(&view, format, &mut buffer);
        let answer = str::from_utf8(&buffer[..length]).unwrap();
        assert!(answer.contains(expected) && answer.is_empty() == expected.is_empty());
        assert!(cursor.is_at_end());
    }
}

#[test]
fn a_stream_that_is_left_is_leaving_and_then_gone() {
    let mut tables = model::storage::new();
    let mut home = listening(&mut tables);
    home.reports(0, RecordType::BlockOldSources, CHANNEL, &[SOURCE]);
    home.expect(
        Format::Text,
        &["leaving     2 s       4,392    0 s  wan > br-lan"],
    );
    home.expect(Format::Json, &["\"expires_s\":2,\"leaving\":true"]);
    home.passes(3);
    let text = home.answer(Format::Text, 9999);
    assert!(!text.contains("ff3e::"), "{text}");
}

#[test]
fn another_querier_is_told_with_what_follows() {
    let mut tables = model::storage::new();
    let mut home = listening(&mut tables);
    let packet = query(OTHER, Ipv6Addr::UNSPECIFIED, v2(2, 125));
    home.hears(Side::Downstream(GUEST), &packet);
    home.passes(54);
    home.expect(
        Format::Text,
        &[
            "            guest           other querier (MLDv2), 1 group, not forwarding\n\
             \x20                           fe80::2, gone in 201 s if silent\n",
            "home > br-lan\n",
        ],
    );
    home.expect(
        Format::Json,
        &[
            "\"role\":\"other\",\"querier\":\"fe80::2\",\"mld_version\":2,\
           \"next_query_s\":null,\"querier_expires_s\":201,\"taken\":true,\"forwarding\":false",
        ],
    );
    home.expect(
        Format::Findings,
        &[
            "warning\tmulticast_querier\tfe80::2 is the querier on guest in MLDv2, so no stream is \
           forwarded there\tend that querier, or run mldproxy with --forward always\n",
        ],
    );
}

#[test]
fn an_older_querier_upstream_is_named_where_it_keeps_sources_out() {
    let mut tables = model::storage::new();
    let mut home = listening(&mut tables);
    let packet = query(GATEWAY, Ipv6Addr::UNSPECIFIED, QueryVersion::V1);
    home.hears(Side::Upstream, &packet);
    home.expect(
        Format::Text,
        &[
            "            MLDv1 querier fe80::1 upstream: SSM cannot work;\n            \
             --mld-version 2 forces MLDv2\n",
            "ff3e::4321:1234             not joined: MLDv1 upstream\n",
        ],
    );
    home.expect(
        Format::Json,
        &["\"ssm_impossible\":true", "\"membership\":\"mldv1\""],
    );
    home.expect(
        Format::Findings,
        &["problem\tmulticast_version\tfe80::1 is an MLDv1 querier on wan, and MLDv1 cannot"],
    );
}

#[test]
fn a_table_that_is_not_owned_and_a_number_that_is_too_high_are_told() {
    let mut tables = model::storage::new();
    let mut home = listening(&mut tables);
    home.index = 65_536;
    home.expect(
        Format::Text,
        &["            no stream: its number 65536 is above 65535; create it anew\n"],
    );
    home.expect(
        Format::Findings,
        &["problem\tmulticast_interface\tguest has the number 65536, and the kernel"],
    );
    for (errno, text, json) in [
        (
            Errno::EADDRINUSE,
            "another program owns the multicast routing\n            table",
            "in_use",
        ),
        (
            Errno::ENOPROTOOPT,
            "this kernel has no IPv6 multicast routing\n",
            "unsupported",
        ),
        (Errno::EPERM, "Operation not permitted\n", "refused"),
    ] {
        home.forwarding = ForwardingTable::Refused(errno);
        home.expect(Format::Text, &[&format!("no stream is forwarded: {text}")]);
        home.expect(
            Format::Json,
            &[&format!("\"table\":\"{json}\",\"upstream_taken\":false")],
        );
        home.expect(Format::Findings, &["problem\tmulticast_table\t"]);
        home.expect(
            Format::Metrics,
            &["mldproxy_forwarding_table_owned{upstream=\"wan\"} 0\n"],
        );
    }
}

#[test]
fn silence_and_packets_from_another_side_are_found() {
    let mut tables = model::storage::new();
    let mut home = listening(&mut tables);
    let idle = |packets, wrong_side| Counts {
        packets,
        octets: 0,
        wrong_side,
        idle: 60,
    };
    home.counts(SOURCE, CHANNEL, idle(0, 0));
    home.expect(
        Format::Findings,
        &[
            "warning\tmulticast_stream\tnothing came on wan for 1 of 2 streams, such as \
             2001:db8:1::10 to ff3e::4321:1234 since 60 s\t",
            "ok\tmulticast_streams\tof the streams that are wanted (2), 0 flowed within 10 s\n",
        ],
    );
    home.counts(SOURCE, CHANNEL, idle(90_112, 90_112));
    home.expect(
        Format::Findings,
        &[
            "warning\tmulticast_side\tpackets came from another side than their source's and were \
           dropped, such as 90112 from 2001:db8:1::10 to ff3e::4321:1234 (streams: 1)\t",
        ],
    );
    home.expect(
        Format::Text,
        &["90,112 packets from another side, dropped\n"],
    );
    home.expect(
        Format::Metrics,
        &["mldproxy_streams_wrong_side_packets{upstream=\"wan\"} 90112\n"],
    );
}

#[test]
fn metrics_are_of_the_first_streams_and_count_the_others() {
    let mut tables = model::storage::new();
    let names = ["br-lan"];
    let mut home = Home::new(&mut tables, &names);
    for number in 0..300 {
        let group = Ipv6Addr::new(0xff0e, 0, 0, 0, 0, 0, 1, number);
        home.passes(1);
        let packet = report(HOST, &[(RecordType::ChangeToExclude, group)]);
        home.handle(heard(
            Side::Downstream(0),
            MacAddress([2, 0, 0, 0, 1, (number / 60) as u8]),
            &packet,
        ));
    }
    let streams = home.engine.mld().streams().proxy().row_count();
    assert!(streams > METRIC_STREAMS, "{streams}");
    let metrics = home.answer(Format::Metrics, 9999);
    let left_out = streams - METRIC_STREAMS;
    let left_out = format!("mldproxy_streams_left_out{{upstream=\"wan\"}} {left_out}\n");
    assert!(metrics.contains(&left_out), "{metrics}");
    // The text format wants the samples of one name together.
    let samples = |name: &str| -> Vec<usize> {
        let lines = metrics.lines().enumerate();
        let of_name = lines.filter(|(_, line)| line.starts_with(&format!("mldproxy_{name}{{")));
        of_name.map(|(number, _)| number).collect()
    };
    for name in ["stream_packets_total", "stream_octets_total"] {
        let samples = samples(name);
        assert_eq!(samples.len(), METRIC_STREAMS);
        assert_eq!(samples[METRIC_STREAMS - 1] - samples[0], METRIC_STREAMS - 1);
        let types = format!("# TYPE mldproxy_{name} counter");
        assert_eq!(metrics.matches(&types).count(), 1);
    }
}

/// A piece that does not fit a buffer of the server would end the answer.
#[test]
fn a_stream_of_all_downstreams_fits_whatever_they_are_called() {
    let names: Vec<String> = (0..28)
        .map(|number| {
            let start = "\u{80}".repeat(6);
            format!("{start}{number:03}")
        })
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut tables = model::storage::new();
    let mut home = Home::new(&mut tables, &names);
    let group = "ff3e:40:2001:db8:aaaa:bbbb:1234:5678".parse().unwrap();
    let source = "2001:db8:1111:2222:3333:4444:5555:6666".parse().unwrap();
    for port in 0..28 {
        // A source that is requested besides any other one has the longest line.
        home.reports(port, RecordType::ChangeToExclude, group, &[source]);
        home.reports(port, RecordType::AllowNewSources, group, &[source]);
        let packet = query(OTHER, Ipv6Addr::UNSPECIFIED, QueryVersion::V1);
        home.hears(Side::Downstream(port), &packet);
    }
    home.reports(27, RecordType::ChangeToInclude, group, &[source]);
    let counts = Counts {
        packets: u64::MAX,
        octets: u64::MAX,
        wrong_side: u32::MAX,
        idle: u32::MAX,
    };
    home.counts(source, group, counts);
    home.forwarding = ForwardingTable::Refused(Errno::EADDRINUSE);
    for format in [
        Format::Text,
        Format::Json,
        Format::Metrics,
        Format::Findings,
    ] {
        home.answer(format, 9999);
    }
}

#[test]
fn the_rows_are_there_once_each_whatever_comes_and_goes_between() {
    let mut tables = model::storage::new();
    let mut home = Home::new(&mut tables, &["br-lan"]);
    let source = |number| Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, number);
    let stays: Vec<Ipv6Addr> = (1..=20).map(|number| source(2 * number)).collect();
    home.reports(0, RecordType::AllowNewSources, CHANNEL, &stays);
    let (mut place, mut seen) = (protocol::mld::proxy::rows::Place::START, Vec::new());
    for number in 0.. {
        let proxy = home.engine.mld().streams().proxy();
        let Some((row, next)) = proxy.row(place) else {
            break;
        };
        seen.push(row.flow.unwrap().source);
        place = next;
        let kind = match number % 2 {
            0 => RecordType::AllowNewSources,
            _ => RecordType::BlockOldSources,
        };
        let comes_and_goes = source(2 * (number / 2) + 21);
        home.reports(0, kind, CHANNEL, &[comes_and_goes]);
        home.passes(3);
    }
    seen.retain(|source| stays.contains(source));
    assert_eq!(seen, stays);
}
