//! Any question on the control socket, to an engine in any state. The answer keeps to its format.

use std::io::{ErrorKind, Read};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, fs, process};

use model::storage;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, send};
use protocol::link::{InterfaceName, Port, Side};
use protocol::time::Duration;

use super::bytes::Bytes;
use super::engine::Stage;
use super::json;
use daemon::control::{
    Answers, Cursor, Downstream, Format, ForwardingTable, Probe, SOURCES, Server, Source, View,
    parse_question,
};
use daemon::interfaces::State;
use daemon::sys::netlink::Bridge;
use daemon::sys::readiness::{Ready, wait};

/// A lower bound of the server's buffers.
const LEAST: usize = 8192;
/// The longest question, with its line feed.
const QUESTION: usize = 32;
const STATES: [State; 7] = [
    State::Missing,
    State::PartOf(u32::MAX),
    State::Down,
    State::NoCarrier,
    State::SmallMtu(1279),
    State::NoLinkLocal,
    State::Usable,
];
const FORMATS: [Format; 6] = [
    Format::Text,
    Format::Json,
    Format::Metrics,
    Format::Findings,
    Format::Probe,
    Format::Downstreams,
];
/// The widest line of the text.
const COLUMNS: usize = 80;

pub fn run(data: &[u8]) {
    let mut bytes = Bytes(data);
    let length = bytes.octet();
    let question = bytes.take(usize::from(length & 31));
    let limit = match parse_question(question) {
        Some((format, limit)) => {
            let word = match format {
                Format::Probe => "probe",
                Format::Downstreams => "downstreams",
                Format::Text => "text ",
                Format::Json => "json ",
                Format::Metrics => "metrics ",
                Format::Findings => "findings ",
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
    storage::lend(|tables| {
        let mut stage = Stage::new(tables, &mut bytes);
        let before = bytes.number() % 64;
        for _ in 0..before {
            stage.step(&mut bytes);
        }
        for format in FORMATS {
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
                // Events happen between two parts.
                if !bytes.is_empty() && !stage.world.is_tired() {
                    stage.step(&mut bytes);
                }
            }
            let answer = str::from_utf8(&answer).expect("UTF-8");
            check(format, answer);
        }
        talk(data, &view(&stage, &names, flags));
        stage.world.finish();
    });
}

/// A client sends the same octets in two pieces. The server answers if the first line is a
/// question, and hangs up.
fn talk(data: &[u8], view: &View<'_>) {
    let Some((first, sent)) = data.split_first() else {
        return;
    };
    let sent = &sent[..sent.len().min(2 * QUESTION)];
    let cut = usize::from(*first) % (sent.len() + 1);
    let folder = Folder::new();
    let path = folder.0.join("socket");
    let Ok(mut server) = Server::bind(path.to_str().expect("UTF-8"), None) else {
        panic!("no control socket {path:?}")
    };
    let mut answers = Box::new(Answers::new());
    let mut serve = || {
        let waited = wait(server.descriptors(), Some(Duration::ZERO));
        let ready: Ready<Source, SOURCES> = waited.expect("poll");
        server.serve(&|source| ready.contains(&source), view, &mut answers);
    };
    let mut client = UnixStream::connect(&path).expect("a server");
    client.set_nonblocking(true).expect("a socket");
    for piece in [&sent[..cut], &sent[cut..]] {
        // The server may have read enough and hung up.
        let _ = send(client.as_raw_fd(), piece, MsgFlags::MSG_NOSIGNAL);
        serve();
    }
    let _ = client.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    for turns in 0.. {
        assert!(turns < 1000, "it never hangs up");
        serve();
        match client.read_to_end(&mut answer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            // The kernel resets the connection where the server did not read everything.
            _ => break,
        }
    }
    let line = sent.iter().take(QUESTION).position(|octet| *octet == b'\n');
    match line.and_then(|end| parse_question(&sent[..end])) {
        Some((format, _)) => check(format, str::from_utf8(&answer).expect("UTF-8")),
        None => assert!(answer.is_empty(), "an answer to nothing"),
    }
}

/// A folder of its own for each socket, since servers that bind in one folder take turns.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("mldproxy-fuzz-{}-{number}", process::id());
        let path = env::temp_dir().join(name);
        fs::create_dir(&path).expect("a new folder");
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn check(format: Format, answer: &str) {
    // Without an MLD proxy there are no findings.
    let is_empty = format == Format::Findings && answer.is_empty();
    assert!(is_empty || answer.ends_with('\n'), "it breaks off");
    let is_seen = |c: char| c == '\n' || !c.is_control();
    // A program reads the name as it is.
    let is_for_people = matches!(format, Format::Text | Format::Json | Format::Metrics);
    assert!(!is_for_people || answer.chars().all(is_seen), "{answer:?}");
    match format {
        Format::Text => {
            for line in answer.lines() {
                assert!(line.chars().count() <= COLUMNS, "too wide: {line}");
            }
        }
        Format::Json => assert!(json::is_one_line(answer), "no JSON: {answer}"),
        Format::Findings => {
            for line in answer.lines() {
                let words = line.split('\t').count();
                assert!(words == 3 || words == 4, "no finding: {line:?}");
            }
        }
        Format::Downstreams => {
            for line in answer.lines() {
                assert!(line.parse::<InterfaceName>().is_ok(), "no name: {line:?}");
            }
        }
        Format::Probe => assert!(Probe::parse(answer).is_some(), "no answer: {answer}"),
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

fn view<'v>(stage: &'v Stage<'_>, names: &'v [InterfaceName; 4], flags: u8) -> View<'v> {
    let set = |bit: usize| flags >> (bit % 8) & 1 != 0;
    let world = &stage.world;
    let downstreams = names[1..]
        .iter()
        .enumerate()
        .map(|(port, name)| Downstream {
            name: name.as_str(),
            state: STATES[usize::from(flags) % STATES.len()],
            index: set(port + 6).then_some(u32::from(flags) << 12),
            running: set(port + 1),
            link_local: world
                .kernel
                .link(Side::Downstream(port as Port))
                .and_then(|link| link.link_local),
            listening: set(port + 2),
            bridge: set(port + 3).then_some(Bridge {
                snooping: set(port + 4),
                vlan_snooping: set(port + 5),
                queries_by_mldv1: set(port + 6),
                multicast_router: flags,
            }),
            lost: if set(port + 5) { u64::MAX } else { 0 },
        });
    View {
        namespace: u64::from_le_bytes([flags; 8]),
        name: names[0].as_str(),
        engine: &world.engine,
        started: world.started(),
        now: world.now,
        upstream_running: set(6),
        upstream_state: STATES[usize::from(flags >> 4) % STATES.len()],
        upstream_index: set(7).then_some(u32::from(flags) << 12),
        forwarding: match flags % 3 {
            0 => ForwardingTable::Owned,
            1 => ForwardingTable::Refused(Errno::EADDRINUSE),
            _ => ForwardingTable::Refused(Errno::EPERM),
        },
        downstreams: downstreams.collect(),
        log_lines_lost: flags.into(),
    }
}
