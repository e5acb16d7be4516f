//! `mldproxy query` asks once which hosts are members of which groups.

use std::net::Ipv6Addr;
use std::os::fd::AsFd as _;
use std::process::ExitCode;

use argh::FromArgs;
use nix::errno::Errno;
use protocol::config::{Config, QUERY_INTERVAL, ROBUSTNESS};
use protocol::link::InterfaceName;
use protocol::time::Duration;
use protocol::wire::{
    ALL_NODES, MacAddress, Message, Query, QueryVersion, RecordType, Sources, parse,
};

use crate::commands::BAD_INPUT;
use crate::commands::output::{complain, print};
use crate::commands::values::seconds;
use crate::control::Mac;
use crate::control::instance::{self, Instance};
use crate::interfaces::Snapshot;
use crate::sys::clock;
use crate::sys::netlink::Dump;
use crate::sys::packet::{Capture, Interest, Transmitter};
use crate::sys::readiness::wait_until;

/// How long the query and an answer may travel, beyond the response delay.
const TRAVEL_TIME: Duration = Duration::from_millis(500);
/// The most answers that are kept, and the most sources in them, so that a LAN cannot fill the
/// memory.
const MAX_ANSWERS: usize = 16_384;
/// More than the largest packet of any Ethernet.
const BUFFER_LENGTH: usize = 16_384;

/// Ask once, by an MLD query, who listens to which groups, and to which sources of them. It makes
/// this host act as a querier for that moment.
#[derive(FromArgs)]
#[argh(
    subcommand,
    name = "query",
    note = "Needs CAP_NET_RAW. Exit code: 0 asked, 1 the system refused, 2 bad arguments, or a \
        running mldproxy's upstream."
)]
pub struct QueryArguments {
    /// ask in MLDv1 instead of MLDv2
    #[argh(switch)]
    v1: bool,
    /// seconds within which to answer, 1 to 10 (default 3)
    #[argh(
        option,
        arg_name = "s",
        default = "Duration::from_secs(3)",
        from_str_fn(response_delay)
    )]
    wait: Duration,
    /// ask also on the upstream of a running mldproxy
    #[argh(switch)]
    force: bool,
    /// where to ask
    #[argh(positional, arg_name = "interface")]
    interface: InterfaceName,
    /// the multicast group to ask for, in place of all
    #[argh(positional, arg_name = "group", from_str_fn(multicast))]
    group: Option<Ipv6Addr>,
}

fn response_delay(text: &str) -> Result<Duration, String> {
    let allowed = Duration::from_secs(1)..=Duration::from_secs(10);
    let delay = seconds(text).ok().filter(|delay| allowed.contains(delay));
    delay.ok_or_else(|| "not a whole number of seconds from 1 to 10".to_owned())
}

fn multicast(text: &str) -> Result<Ipv6Addr, String> {
    let group = text.parse().ok().filter(Ipv6Addr::is_multicast);
    group.ok_or_else(|| "not an IPv6 multicast address such as ff02::fb".to_owned())
}

/// A host that answered.
struct Listener {
    address: Ipv6Addr,
    mac: [u8; 6],
    groups: Vec<Wanted>,
}

/// A group that a host listens to.
struct Wanted {
    group: Ipv6Addr,
    /// It listens to all sources but these, instead of these.
    is_exclude: bool,
    sources: Vec<Ipv6Addr>,
}

// What it has on the stack is not to stay there while the daemon runs.
#[inline(never)]
pub fn run(arguments: &QueryArguments) -> ExitCode {
    let name = arguments.interface.as_str();
    let objection = match instance::on_upstream(name, None) {
        Instance::Running { .. } => {
            " is the upstream of a running mldproxy, whose querier may fall silent for it"
        }
        Instance::Perhaps => " may be the upstream of a mldproxy that does not tell",
        Instance::None => "",
    };
    if !arguments.force && !objection.is_empty() {
        complain(&[name, objection, "; --force asks all the same"].concat());
        return ExitCode::from(BAD_INPUT);
    }
    match ask(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::NoInterface) => {
            complain(&["no interface ", name].concat());
            ExitCode::from(BAD_INPUT)
        }
        Err(Failure::NoLinkLocal) => {
            complain(&[name, " has no usable link-local address to ask from"].concat());
            ExitCode::FAILURE
        }
        Err(Failure::System(Errno::EPERM)) => {
            complain("CAP_NET_RAW is missing; run as root, or with that capability");
            ExitCode::FAILURE
        }
        Err(Failure::System(errno)) => {
            complain(&["asking on ", name, ": ", errno.desc()].concat());
            ExitCode::FAILURE
        }
    }
}

enum Failure {
    NoInterface,
    /// RFC 3810 §5.1.14: "MLDv2 Queries are sent with a valid link-local address as the IPv6 Source
    /// Address".
    NoLinkLocal,
    System(Errno),
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Failure::System(errno)
    }
}

fn ask(arguments: &QueryArguments) -> Result<(), Failure> {
    let config = Config::new(arguments.interface.clone());
    let snapshot = Snapshot::take(&config, &[Dump::Links, Dump::Addresses])?;
    let interface = snapshot.interfaces.upstream_interface();
    let index = interface.index.ok_or(Failure::NoInterface)?;
    let source = interface.link_local.ok_or(Failure::NoLinkLocal)?;
    let destination = arguments.group.unwrap_or(ALL_NODES);
    let (version, version_name) = if arguments.v1 {
        (QueryVersion::V1, "1")
    } else {
        let version = QueryVersion::V2 {
            // Without this flag, other routers would expire the members that do not answer in time
            // (RFC 3810 §5.1.7).
            suppress_router_processing: true,
            robustness: ROBUSTNESS,
            query_interval: QUERY_INTERVAL,
            sources: Sources::default(),
        };
        (version, "2")
    };
    let query = Query {
        source,
        destination,
        group: arguments.group.unwrap_or(Ipv6Addr::UNSPECIFIED),
        max_response_delay: arguments.wait,
        version,
    };
    let mut buffer = vec![0; BUFFER_LENGTH];
    let length = query.emit(&mut buffer).unwrap_or_default();

    let capture = Capture::open(index, Interest::Hosts)?;
    let transmitter = Transmitter::open()?;
    print(&format!(
        "{source} acts as an MLDv{version_name} querier on {} for this moment, and asks \
         {destination} for answers within {} s\n",
        arguments.interface,
        arguments.wait.as_secs(),
    ));
    transmitter.send_to_group(index, destination, &buffer[..length])?;
    let deadline = clock::now().saturating_add(arguments.wait.saturating_add(TRAVEL_TIME));

    let mut listeners = Listeners::default();
    while wait_until(capture.as_fd(), deadline) {
        if let Some((packet, mac)) = capture.receive(&mut buffer)? {
            listeners.hear(packet, mac, arguments.group);
        }
    }
    listeners.print();
    Ok(())
}

/// The hosts that answered, in that order.
#[derive(Default)]
struct Listeners {
    list: Vec<Listener>,
    answers: usize,
    sources: usize,
}

impl Listeners {
    /// Takes in a report. If the query asked for one group, other groups are ignored.
    fn hear(&mut self, packet: &[u8], mac: [u8; 6], wanted: Option<Ipv6Addr>) {
        let mut add = |address, group, is_exclude, sources: Sources<'_>| {
            if wanted.is_none_or(|wanted| wanted == group) {
                self.add((address, mac), group, is_exclude, sources);
            }
        };
        match parse(packet) {
            Ok(Message::ReportV1(report)) => {
                add(report.source, report.group, true, Sources::default());
            }
            Ok(Message::ReportV2(report)) => {
                for record in report.records {
                    if record.listens() == Some(true) {
                        let is_exclude = match record.record_type {
                            RecordType::ModeIsExclude | RecordType::ChangeToExclude => true,
                            RecordType::ModeIsInclude
                            | RecordType::ChangeToInclude
                            | RecordType::AllowNewSources
                            | RecordType::BlockOldSources
                            | RecordType::Unknown(_) => false,
                        };
                        add(report.source, record.group, is_exclude, record.sources);
                    }
                }
            }
            Ok(
                Message::NeighborSolicitation(_)
                | Message::NeighborAdvertisement(_)
                | Message::Query(_)
                | Message::Done(_),
            )
            | Err(_) => {}
        }
    }

    fn add(
        &mut self,
        (address, mac): (Ipv6Addr, [u8; 6]),
        group: Ipv6Addr,
        is_exclude: bool,
        sources: Sources<'_>,
    ) {
        if self.answers >= MAX_ANSWERS {
            return;
        }
        let is_it = |known: &Listener| known.address == address && known.mac == mac;
        let place = self.list.iter().position(is_it).unwrap_or_else(|| {
            self.list.push(Listener {
                address,
                mac,
                groups: Vec::new(),
            });
            self.list.len() - 1
        });
        let groups = &mut self.list[place].groups;
        let place = groups.iter().position(|known| known.group == group);
        let place = place.unwrap_or_else(|| {
            self.answers += 1;
            groups.push(Wanted {
                group,
                is_exclude,
                sources: Vec::new(),
            });
            groups.len() - 1
        });
        let wanted = &mut groups[place];
        // A host may have told more of a group before, or may tell the rest of a long list now.
        for source in sources.iter().filter(|_| wanted.is_exclude == is_exclude) {
            if !wanted.sources.contains(&source) && self.sources < MAX_ANSWERS {
                self.sources += 1;
                wanted.sources.push(source);
            }
        }
    }

    fn print(&self) {
        for Listener {
            address,
            mac,
            groups,
        } in &self.list
        {
            print(&format!("{address} {} listens to", Mac(MacAddress(*mac))));
            for wanted in groups {
                print(&format!(" {}", wanted.group));
                for (place, source) in wanted.sources.iter().enumerate() {
                    print(match (place, wanted.is_exclude) {
                        (0, true) => " (but not from ",
                        (0, false) => " (from ",
                        (_, _) => ", ",
                    });
                    print(&source.to_string());
                }
                if !wanted.sources.is_empty() {
                    print(")");
                }
            }
            print("\n");
        }
        let more = match self.answers {
            MAX_ANSWERS => ", and no more were counted",
            _ => "",
        };
        let count = self.list.len();
        print(&format!(
            "{count} listeners, {} groups{more}\n",
            self.answers
        ));
    }
}
