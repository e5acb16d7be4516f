//! Any netlink messages from the kernel, up to what the engine does with them.

use model::{Model, storage};
use protocol::config::MAX_PREFIXES;
use protocol::engine::{Event, Tables};
use protocol::link::{Port, Prefix, Side};
use protocol::time::Duration;

use super::bytes::Bytes;
use super::world::{World, config};
use daemon::interfaces::Interfaces;
use daemon::run::shared_prefixes::SharedPrefixes;
use daemon::run::{begin, take_in};
use daemon::sys::netlink::message::messages;
use daemon::sys::netlink::siblings::Number;
use daemon::sys::netlink::streams::stream;
use daemon::sys::netlink::tables::PROTOCOL;
use daemon::sys::netlink::{BUFFER_LENGTH, Dump, Notice, Reader};

pub fn run(data: &[u8]) {
    // The whole input as one datagram.
    let mut notices = 0;
    Reader::default().read(data, &mut |_| notices += 1);
    assert!(notices <= data.len() / 16, "each has a header");

    let mut bytes = Bytes(data);
    storage::lend(|tables| {
        let mut stage = Stage::new(tables, &mut bytes);
        while !bytes.is_empty() && !stage.world.is_tired() {
            stage.step(&mut bytes);
        }
        stage.world.finish();
    });
}

/// The part of the daemon's loop that needs no socket.
struct Stage<'t> {
    world: World<'t>,
    reader: Reader,
    interfaces: Interfaces,
    shared_prefixes: SharedPrefixes,
    generation: u32,
    prefixes: heapless::Vec<Prefix, MAX_PREFIXES>,
    is_dumping: bool,
    dump: Option<Dump>,
    dumped: bool,
    listed: bool,
}

impl<'t> Stage<'t> {
    fn new(tables: &'t mut Tables, bytes: &mut Bytes<'_>) -> Self {
        let mut world = World::new(tables, config(bytes, 0), 1);
        // The kernel's tables are what the input says, not what the engine's actions made of them.
        world.kernel.doubt_all();
        let interfaces = Interfaces::new(world.engine.config());
        Stage {
            world,
            reader: Reader::default(),
            interfaces,
            shared_prefixes: SharedPrefixes::default(),
            generation: 0,
            prefixes: heapless::Vec::new(),
            is_dumping: false,
            dump: Some(Dump::Links),
            dumped: false,
            listed: false,
        }
    }

    fn step(&mut self, bytes: &mut Bytes<'_>) {
        match bytes.octet() % 8 {
            0 => {
                let length = bytes.number();
                let datagram = bytes.take(usize::from(length).min(BUFFER_LENGTH));
                self.read(datagram);
            }
            1..=5 => {
                let mut datagram = Vec::new();
                for _ in 0..=bytes.below(4) {
                    message(bytes, &mut datagram);
                }
                self.read(&datagram);
            }
            6 => self.world.pass(Duration::from_secs(bytes.octet().into())),
            _ => {
                self.take_in(&Notice::Lost);
                self.is_dumping = false;
            }
        }
        if let Some(dump) = self.dump.filter(|_| !self.is_dumping) {
            self.reader.begin(dump);
            self.is_dumping = true;
            self.dump = None;
            let Model { now, engine, .. } = &mut *self.world;
            begin(*now, engine, &mut self.interfaces, dump);
        }
        self.follow_interfaces();
    }

    fn read(&mut self, datagram: &[u8]) {
        let mut reader = std::mem::take(&mut self.reader);
        let mut notices = 0;
        reader.read(datagram, &mut |notice| {
            notices += 1;
            if matches!(notice, Notice::Dumped(_) | Notice::Lost) {
                self.is_dumping = false;
            }
            self.take_in(&notice);
        });
        assert!(notices <= datagram.len() / 16, "each has a header");
        self.reader = reader;
        for stream in messages(datagram).filter_map(|message| stream(&message)) {
            let outgoing = stream.outgoing.indexes().count();
            assert!(outgoing <= datagram.len() / 8, "each has a place");
        }
    }

    fn take_in(&mut self, notice: &Notice<'_>) {
        self.dumped |= matches!(notice, Notice::Dumped(Dump::Addresses));
        self.listed |= matches!(notice, Notice::Dumped(Dump::Routes));
        let Model { now, engine, .. } = &mut *self.world;
        self.shared_prefixes
            .note(engine.config(), &self.interfaces, notice);
        let state = (Number::default(), self.listed);
        let wanted = take_in(*now, engine, &mut self.interfaces, state, notice);
        self.dump = self.dump.into_iter().chain(wanted).min();
    }

    fn follow_interfaces(&mut self) {
        let generation = self.interfaces.upstream_generation();
        if generation != self.generation {
            self.generation = generation;
            self.world.tell(Event::Link(Side::Upstream, None));
        }
        let upstream = (Side::Upstream, self.interfaces.upstream());
        let downstreams = self.interfaces.downstreams().iter().enumerate();
        let downstreams = downstreams
            .map(|(port, interface)| (Side::Downstream(port as Port), interface.downstream()));
        for (side, link) in [upstream].into_iter().chain(downstreams) {
            if link != self.world.kernel.link(side) {
                self.world.tell(Event::Link(side, link));
            }
        }
        let prefixes = self.interfaces.upstream_prefixes();
        if self.dumped && prefixes != self.prefixes {
            self.world.tell(Event::UpstreamPrefixes(&prefixes));
            self.prefixes = prefixes;
            self.dump = self.dump.into_iter().chain([Dump::Neighbors]).min();
        }
        self.world.settle();
    }
}

/// A message of a kind that the daemon reads, with some of its attributes or with arbitrary ones.
fn message(bytes: &mut Bytes<'_>, datagram: &mut Vec<u8>) {
    const KINDS: [u16; 10] = [
        libc::RTM_NEWLINK,
        libc::RTM_DELLINK,
        libc::RTM_NEWADDR,
        libc::RTM_DELADDR,
        libc::RTM_NEWNEIGH,
        libc::RTM_DELNEIGH,
        libc::RTM_NEWROUTE,
        libc::NLMSG_DONE as u16,
        libc::NLMSG_DONE as u16,
        libc::NLMSG_ERROR as u16,
    ];
    let start = datagram.len();
    let kind = KINDS[bytes.below(KINDS.len())];
    let details = bytes.octet();
    datagram.extend([0; 4]);
    datagram.extend(kind.to_ne_bytes());
    // NLM_F_DUMP_INTR and, as of an answer, NLM_F_MULTI.
    datagram.extend(u16::from(details & 0x12).to_ne_bytes());
    datagram.extend(u32::from(details & 3).to_ne_bytes());
    datagram.extend([0; 4]);
    let index = u32::from(details >> 2 & 3);
    let family = if kind < libc::RTM_NEWADDR { 0 } else { 10 };
    match kind {
        libc::RTM_NEWLINK | libc::RTM_DELLINK => {
            datagram.extend([family, 0, 0, 0]);
            datagram.extend(index.to_ne_bytes());
            let flags = if details & 0x20 == 0 { 0x40_u32 } else { 0 };
            datagram.extend(flags.to_ne_bytes());
            datagram.extend([0; 4]);
            let names: [&[u8]; 4] = [b"wan\0", b"br-lan\0", b"guest\0", b"iot\0"];
            // A message about one thing tells nothing of the others.
            if details & 0x20 == 0 {
                let name = names[usize::from(details >> 6)];
                attribute(datagram, libc::IFLA_IFNAME, name);
            }
            if details & 1 == 0 {
                attribute(datagram, libc::IFLA_MTU, &1500_u32.to_ne_bytes());
            }
        }
        libc::RTM_NEWADDR | libc::RTM_DELADDR => {
            datagram.extend([family, bytes.octet(), details & 0x40, 0]);
            datagram.extend(index.to_ne_bytes());
            attribute(datagram, libc::IFA_ADDRESS, &bytes.address().octets());
        }
        libc::RTM_NEWNEIGH | libc::RTM_DELNEIGH => {
            datagram.extend([family, 0, 0, 0]);
            datagram.extend(index.to_ne_bytes());
            datagram.extend([
                2,
                0,
                if details & 0x20 == 0 {
                    0
                } else {
                    libc::NTF_PROXY
                },
                0,
            ]);
            attribute(datagram, libc::NDA_DST, &bytes.address().octets());
            attribute(datagram, libc::NDA_LLADDR, &bytes.mac().0);
            if details & 0x40 != 0 {
                attribute(datagram, 12, &[PROTOCOL]);
            }
        }
        libc::RTM_NEWROUTE if details & 0x80 != 0 => {
            // An entry of multicast routing, RTNL_FAMILY_IP6MR.
            datagram.extend([129, 128, 128, 0, libc::RT_TABLE_MAIN, 17, 0, 5]);
            datagram.extend(u32::from(details & 0x20).to_ne_bytes());
            attribute(datagram, libc::RTA_SRC, &bytes.address().octets());
            attribute(datagram, libc::RTA_DST, &bytes.address().octets());
            attribute(datagram, libc::RTA_IIF, &index.to_ne_bytes());
            let length = usize::from(bytes.octet()) % 48;
            attribute(datagram, libc::RTA_MULTIPATH, bytes.take(length));
            attribute(datagram, libc::RTA_MFC_STATS, &[details; 24]);
        }
        libc::RTM_NEWROUTE => {
            let length = if details & 0x20 == 0 {
                128
            } else {
                bytes.octet()
            };
            let protocol = if details & 0x40 == 0 { PROTOCOL } else { 4 };
            datagram.extend([family, length, 0, 0, libc::RT_TABLE_MAIN, protocol, 0, 1]);
            datagram.extend([0; 4]);
            attribute(datagram, libc::RTA_DST, &bytes.address().octets());
            attribute(datagram, libc::RTA_OIF, &index.to_ne_bytes());
        }
        _ => datagram.extend(i32::from(details >> 5).wrapping_neg().to_ne_bytes()),
    }
    let more = bytes.octet();
    for _ in 0..more & 3 {
        let (kind, length) = (bytes.octet(), bytes.octet());
        attribute(datagram, kind.into(), bytes.take(usize::from(length) % 48));
    }
    // A message that is longer than the rest of the datagram ends it.
    let length = (datagram.len() - start) as u32 + u32::from(more == 255);
    datagram[start..start + 4].copy_from_slice(&length.to_ne_bytes());
}

fn attribute(datagram: &mut Vec<u8>, kind: u16, value: &[u8]) {
    datagram.extend((4 + value.len() as u16).to_ne_bytes());
    datagram.extend(kind.to_ne_bytes());
    datagram.extend(value);
    datagram.resize(datagram.len().next_multiple_of(4), 0);
}
