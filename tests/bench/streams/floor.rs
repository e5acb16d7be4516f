//! A router that hears reports, joins and writes the forwarding entry, and does nothing else.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;

use nix::net::if_::if_nametoindex;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;
use protocol::mld::filter::FilterMode;
use protocol::wire::{Message, RecordType, parse};

use super::Kind;
use crate::lab::{DOWNSTREAM, Namespace, SOURCE, UPSTREAM};
use crate::measure::{Place, pin};
use daemon::sys::mroute::{Mroute, NO_INTERFACE};
use daemon::sys::packet::{Capture, Interest};
use daemon::sys::source_filters::SourceFilters;

/// Does `work` while the floor runs on a router. All groups are of this kind.
pub fn beside<T>(router: &Namespace, kind: Kind, work: impl FnOnce() -> T) -> T {
    let done = AtomicBool::new(false);
    let (ready, is_ready) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| router.within(|| run(kind, &ready, &done)));
        is_ready.recv().expect("the floor listens");
        let result = work();
        done.store(true, Ordering::Relaxed);
        result
    })
}

fn run(kind: Kind, ready: &mpsc::Sender<()>, done: &AtomicBool) {
    pin(Pid::from_raw(0), &Place::Receiver);
    let [upstream, downstream] =
        [UPSTREAM, DOWNSTREAM].map(|name| if_nametoindex(name).expect("the interface exists"));
    let capture = Capture::open(downstream, Interest::Hosts).expect("root");
    let any = Ipv6Addr::UNSPECIFIED;
    let mut mroute = Mroute::open(None).expect("nobody else has the table");
    for (number, index) in [(0, upstream), (1, downstream)] {
        mroute.add_interface(number, index).expect("a free number");
    }
    mroute
        .set_entry(any, any, NO_INTERFACE, 0b11)
        .expect("memory");
    let mut filters = Box::new(SourceFilters::new());
    let mut buffer = [0; 2048];
    let mut known = BTreeSet::new();
    ready.send(()).expect("the benchmark waits");
    while !done.load(Ordering::Relaxed) {
        let mut descriptors = [PollFd::new(capture.as_fd(), PollFlags::POLLIN)];
        poll(&mut descriptors, PollTimeout::from(50_u8)).expect("poll");
        while let Some((packet, _)) = capture.receive(&mut buffer).expect("the link is up") {
            let Ok(Message::ReportV2(report)) = parse(packet) else {
                continue;
            };
            let joins = report.records.filter(|record| {
                let record_type = record.record_type;
                matches!(
                    record_type,
                    RecordType::AllowNewSources | RecordType::ChangeToExclude
                )
            });
            let (source, mode, sources): (_, _, &[Ipv6Addr]) = match kind {
                Kind::Specific => (SOURCE, FilterMode::Include, &[SOURCE]),
                Kind::Any => (any, FilterMode::Exclude, &[]),
            };
            // What is not of global scope is the host's own.
            let is_stream = |group: &Ipv6Addr| group.octets()[1] & 0xf == 0xe;
            for group in joins.map(|record| record.group).filter(is_stream) {
                // Hosts repeat what they report.
                let slot = known.len();
                if !known.insert(group) {
                    continue;
                }
                let joined = filters.set(slot, upstream, group, mode, sources);
                joined.expect("a socket has room");
                mroute.set_entry(source, group, 0, 0b10).expect("memory");
            }
        }
    }
}
