//! Whatever is asked on the control socket, of an engine in any state; and the answer is what its format says.

use protocol::config::InterfaceName;

use super::bytes::Bytes;
use super::engine::Stage;
use super::json;
use crate::status::{Cursor, Downstream, Format, View, parse_question};
use crate::sys::netlink::Bridge;

/// Of the server's buffers, which may be larger, not smaller.
const LEAST: usize = 4096;
/// The widest line of the text.
const COLUMNS: usize = 80;

pub fn run(data: &[u8]) {
    let mut bytes = Bytes(data);
    let length = bytes.octet();
    let question = bytes.take(usize::from(length & 31));
    let limit = match parse_question(question) {
        Some((format, limit)) => {
            let word = match format {
                Format::Text => "text ",
                Format::Json => "json ",
                Format::Metrics => "metrics ",
            };
            let digits = question.strip_prefix(word.as_bytes()).expect("its name");
            let digits = str::from_utf8(digits).expect("digits");
            assert_eq!(digits.parse().unwrap_or(0), limit, "{digits}");
            assert!(digits.bytes().all(|digit| digit.is_ascii_digit()));
            limit
        }
        None => usize::from(length >> 5) * 10,
    };
    let names = [(); 4].map(|()| name(&mut bytes));
    let flags = bytes.octet();
    let mut stage = Stage::new(&mut bytes);
    let before = bytes.number() % 64;
    for _ in 0..before {
        stage.step(&mut bytes);
    }
    for format in [Format::Text, Format::Json, Format::Metrics] {
        let mut buffer = vec![0; LEAST + bytes.below(4) * 1000];
        let mut cursor = Cursor::new(limit);
        let mut answer = Vec::new();
        for parts in 0.. {
            assert!(parts < 1000, "it never ends");
            let length = cursor.fill(&view(&stage, &names, flags), format, &mut buffer);
            if length == 0 {
                break;
            }
            answer.extend_from_slice(&buffer[..length]);
            // Things happen between two parts.
            if !bytes.is_empty() && !stage.world.is_tired() {
                stage.step(&mut bytes);
            }
        }
        let answer = str::from_utf8(&answer).expect("UTF-8");
        check(format, answer);
    }
    stage.world.finish();
}

fn check(format: Format, answer: &str) {
    assert!(answer.ends_with('\n'), "it breaks off");
    match format {
        Format::Text => {
            for line in answer.lines() {
                assert!(line.chars().count() <= COLUMNS, "too wide: {line}");
            }
        }
        Format::Json => assert!(json::is_one_line(answer), "no JSON: {answer}"),
        Format::Metrics => {
            for line in answer.lines() {
                let value = line.rsplit(' ').next().unwrap_or_default();
                let is_sample = line.starts_with("mldproxy_") && value.parse::<u64>().is_ok();
                assert!(line.starts_with("# ") || is_sample, "no sample: {line}");
            }
            assert!(
                answer.contains("mldproxy_dropped_packets_total{"),
                "it breaks off"
            );
        }
    }
}

/// Any name that an interface can have.
fn name(bytes: &mut Bytes<'_>) -> InterfaceName {
    let length = bytes.octet() % 16;
    let name = String::from_utf8_lossy(bytes.take(length.into())).into_owned();
    name.parse()
        .unwrap_or_else(|_| "a\"b\\c".parse().expect("a name"))
}

fn view<'v>(stage: &'v Stage, names: &'v [InterfaceName; 4], flags: u8) -> View<'v> {
    let set = |bit: usize| flags >> (bit % 8) & 1 != 0;
    let world = &stage.world;
    let downstreams = names[1..]
        .iter()
        .enumerate()
        .map(|(port, name)| Downstream {
            name: name.as_str(),
            present: set(port),
            running: set(port + 1),
            link_local: world
                .downstream(port)
                .map(|downstream| downstream.link_local),
            listening: set(port + 2),
            bridge: set(port + 3).then_some(Bridge {
                snooping: set(port + 4),
                multicast_router: flags,
            }),
            lost: if set(port + 5) { u64::MAX } else { 0 },
        });
    View {
        name: names[0].as_str(),
        engine: &world.engine,
        started: world.started(),
        now: world.now,
        upstream_running: set(6),
        downstreams: downstreams.collect(),
    }
}
