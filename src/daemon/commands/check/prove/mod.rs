//! `mldproxy check --prove` finds out whether Neighbor Solicitations from the gateway arrive only
//! in groups that this router has joined.
//!
//! An echo request from an address that nobody has makes the gateway resolve that address, if it is
//! to answer. So it solicits the address in its solicited-node group, three times a second apart.
//! One address is used without joining its group, and another one after joining its group. What
//! arrives for either decides, by the [`Verdict`].

mod addresses;
mod judge;
mod scene;
mod verdict;

use std::net::Ipv6Addr;
use std::os::fd::AsFd as _;

use nix::errno::Errno;
use protocol::time::{Duration, Instant};
use protocol::wire::{
    EchoRequest, MacAddress, Message, NeighborSolicitation, SolicitedNode, parse,
};

use super::findings::Findings;
use super::findings::State::Problem;
use crate::commands::output::show_progress;
use crate::control::instance::{self, Instance};
use crate::interfaces::Snapshot;
use crate::sys::membership::Memberships;
use crate::sys::packet::{Capture, Interest, Transmitter};
use crate::sys::procfs::{is_member, reports_sent};
use crate::sys::readiness::{pause, wait_until};
use crate::sys::{clock, random};

use addresses::Addresses;
use scene::Scene;
use verdict::{Heard, Verdict};

pub use scene::DUMPS;

/// The echo requests from one address, as the announcement says, a second apart. A gateway that
/// resolves the address solicits it three times (RFC 4861 §10, `MAX_MULTICAST_SOLICIT`) at that
/// interval (`RETRANS_TIMER`), and begins with the first request that it hears.
const REQUESTS: u32 = 3;
const REQUEST_INTERVAL: Duration = Duration::from_secs(1);
/// How long a solicitation may take to arrive, after the last second has begun.
const TRAVEL_TIME: Duration = Duration::from_millis(500);
/// How long who has an address may take to say so (RFC 4862 §5.4, `RETRANS_TIMER`).
const IN_USE_TIME: Duration = Duration::from_secs(1);
/// How often two addresses are chosen before somebody is taken to answer for all.
const CHOICES: u32 = 4;
/// How long the kernel may take to report a group. It does so within hundredths of a second.
const REPORT_PATIENCE: Duration = Duration::from_secs(2);
/// How long a switch may take to open a group after the report, in milliseconds.
const SWITCH_TIME: u16 = 300;
/// The time between two looks at the kernel's count of reports, in milliseconds.
const LOOK_INTERVAL: u16 = 10;
/// No packet of interest is longer than this.
const BUFFER_LENGTH: usize = 2048;

/// Proves it, and says what it finds. `socket` is the control socket of an instance elsewhere. If
/// no querier is heard and nothing seems to snoop, it listens for one until `wait` is over. Returns
/// what JSON has of it, behind a comma, or nothing if nothing could be measured.
pub fn prove(
    snapshot: &Snapshot,
    socket: Option<&str>,
    wait: Duration,
    findings: &mut Findings,
) -> String {
    let Some(scene) = scene::look(snapshot, findings) else {
        return String::new();
    };
    let instance = instance::on_upstream(scene.name, socket);
    let proof = Proof::begin(&scene, instance).and_then(|mut proof| {
        let verdict = proof.measure(wait, findings);
        show_progress("");
        verdict.map(|verdict| (proof, verdict))
    });
    let failure = match proof {
        Ok((proof, verdict)) => return proof.judge(verdict, findings),
        Err(failure) => failure,
    };
    let name = scene.name;
    match failure {
        Failure::System(Errno::EPERM) => findings.add(
            Problem,
            "prove|CAP_NET_RAW is missing, so nothing can be sent|run this as root",
            &[],
        ),
        Failure::System(errno) => findings.add(
            Problem,
            "prove|%1 failed meanwhile (%2), so nothing is proven|see to it, and prove it again",
            &[name, errno.desc()],
        ),
        Failure::NoMac => findings.add(
            Problem,
            "prove|the gateway %2 does not answer Neighbor Solicitations, so there is nobody to \
             prove it with|see whether %1 is connected, and whether its default route is right",
            &[name, &scene.gateway.to_string()],
        ),
        Failure::NoAddress => findings.add(
            Problem,
            "prove|no two addresses of %2 that nobody has were found: they are in use, or somebody \
             on %1 answers for all|stop what answers for a whole prefix, and prove it again",
            &[name, &scene.prefix.to_string()],
        ),
        Failure::NotReported => findings.add(
            Problem,
            "prove|no MLD report left %1 after a group was joined, so no switch can know of \
             members|a packet filter of this router drops them: let ICMPv6 types 131,132,143 out",
            &[name],
        ),
    }
    String::new()
}

/// Why nothing could be measured.
enum Failure {
    System(Errno),
    /// The gateway's link-layer address is not known.
    NoMac,
    /// There are no two addresses that nobody has.
    NoAddress,
    NotReported,
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Failure::System(errno)
    }
}

/// A proof under way.
struct Proof<'s> {
    scene: &'s Scene<'s>,
    capture: Capture,
    transmitter: Transmitter,
    began: Instant,
    /// Tells the gateway's replies from those to other programs.
    identifier: u16,
    instance: Instance,
    /// A query was heard.
    queried: bool,
    /// The address whose group nobody joins, and the one whose group is joined.
    addresses: [Ipv6Addr; 2],
    heard: [Heard; 2],
}

impl<'s> Proof<'s> {
    fn begin(scene: &'s Scene<'s>, instance: Instance) -> Result<Self, Failure> {
        let mut identifier = [0; 2];
        random(&mut identifier)?;
        Ok(Proof {
            scene,
            capture: Capture::open(scene.index, Interest::Gateway)?,
            transmitter: Transmitter::open()?,
            began: clock::now(),
            identifier: u16::from_ne_bytes(identifier),
            instance,
            queried: false,
            addresses: [Ipv6Addr::UNSPECIFIED; 2],
            heard: [Heard::default(); 2],
        })
    }

    fn measure(&mut self, wait: Duration, findings: &Findings) -> Result<Verdict, Failure> {
        let mac = match self.scene.gateway_mac {
            Some(mac) => mac,
            None => self.resolve(findings)?,
        };
        self.choose(findings)?;
        let [unjoined, joined] = self.addresses;
        let group = SolicitedNode::of(joined).group();
        findings.say(
            "then 3 echo requests to the gateway %1, from %2\n\
             then a report that this router listens to %3, as the kernel sends it\n\
             then 3 echo requests to the gateway %1, from %4\n\
             and at the end a report that it does not listen any more; all in about 9 s",
            &[
                &self.scene.gateway.to_string(),
                &unjoined.to_string(),
                &group.to_string(),
                &joined.to_string(),
            ],
        );
        self.heard[0] = self.make_solicit(unjoined, mac, "before joining: ")?;
        let mut memberships = Memberships::new();
        self.join(&mut memberships, group)?;
        self.heard[1] = self.make_solicit(joined, mac, "after joining: ")?;
        let verdict = self.verdict_now();
        let end = self.began.saturating_add(wait);
        if verdict == Verdict::FloodsNow && clock::now() < end {
            let seconds = end.since(clock::now()).as_secs();
            findings.say(
                "solicitations came before joining: listening for an MLD query for %1 s",
                &[&seconds.to_string()],
            );
            while !self.queried && self.hear(end, &mut |_, _| {})? {}
            return Ok(self.verdict_now());
        }
        Ok(verdict)
    }

    /// Asks for the gateway's link-layer address.
    fn resolve(&mut self, findings: &Findings) -> Result<[u8; 6], Failure> {
        let gateway = self.scene.gateway;
        let (name, from) = (self.scene.name, self.scene.link_local.to_string());
        findings.say(
            "it sends on %1, from %2:\n\
             up to 3 Neighbor Solicitations for the gateway %3",
            &[name, &from, &gateway.to_string()],
        );
        for _ in 0..3 {
            self.solicit(gateway)?;
            let end = clock::now().saturating_add(REQUEST_INTERVAL);
            let mut found = None;
            while found.is_none()
                && self.hear(end, &mut |incoming, mac| {
                    if let Incoming::Message(Message::NeighborAdvertisement(answer)) = incoming
                        && answer.target == gateway
                    {
                        found = Some(answer.target_link_layer.map_or(mac, |told| told.0));
                    }
                })?
            {}
            if let Some(mac) = found {
                return Ok(mac);
            }
        }
        Err(Failure::NoMac)
    }

    /// Chooses two addresses that nobody has.
    fn choose(&mut self, findings: &Findings) -> Result<(), Failure> {
        let scene = self.scene;
        let mut addresses = Addresses::of(scene.prefix);
        scene
            .taken
            .iter()
            .for_each(|taken| addresses.exclude(*taken));
        let mut free = Vec::new();
        for _ in 0..CHOICES {
            while free.len() < 2 {
                let is_joined = |group| is_member(scene.name, group);
                free.push(addresses.draw(&is_joined).ok_or(Failure::NoAddress)?);
            }
            let words = [
                scene.name,
                &scene.link_local.to_string(),
                &free[0].to_string(),
                &free[1].to_string(),
            ];
            findings.say(
                "it sends on %1, from %2:\n\
                 2 Neighbor Solicitations, whether anybody has %3 or %4",
                &words,
            );
            for address in &free {
                self.solicit(*address)?;
            }
            show_progress("is an address in use?");
            let end = clock::now().saturating_add(IN_USE_TIME);
            let mut in_use = Vec::new();
            while in_use.len() < free.len()
                && self.hear(end, &mut |incoming, _| {
                    let claimed = incoming.claims().filter(|address| free.contains(address));
                    in_use.extend(claimed.filter(|address| !in_use.contains(address)));
                })?
            {}
            for address in &in_use {
                findings.say("%1 is in use", &[&address.to_string()]);
            }
            free.retain(|address| !in_use.contains(address));
            if let [first, second] = free[..] {
                self.addresses = [first, second];
                return Ok(());
            }
        }
        Err(Failure::NoAddress)
    }

    /// Solicits an address in its group, from this router's link-local address.
    fn solicit(&self, target: Ipv6Addr) -> nix::Result<()> {
        let destination = SolicitedNode::of(target).group();
        let solicitation = NeighborSolicitation {
            source: self.scene.link_local,
            destination,
            target,
            source_link_layer: Some(MacAddress(self.scene.mac)),
        };
        let mut buffer = [0; 128];
        let length = solicitation.emit(&mut buffer).unwrap_or_default();
        let packet = &buffer[..length];
        self.transmitter
            .send_to_group(self.scene.index, destination, packet)
    }

    /// Becomes a member of a group, and waits until the kernel has reported it.
    fn join(&self, memberships: &mut Memberships, group: Ipv6Addr) -> Result<(), Failure> {
        let name = self.scene.name;
        let before = reports_sent(name);
        memberships.join(0, group, self.scene.index)?;
        let deadline = clock::now().saturating_add(REPORT_PATIENCE);
        // A report of another group counts too. The kernel sends this one within the time below.
        while before.is_some() && reports_sent(name) == before {
            if clock::now() >= deadline {
                return Err(Failure::NotReported);
            }
            pause(LOOK_INTERVAL);
        }
        pause(SWITCH_TIME);
        Ok(())
    }

    /// Sends echo requests from an address to the gateway, and counts what comes for the address.
    fn make_solicit(
        &mut self,
        address: Ipv6Addr,
        mac: [u8; 6],
        when: &str,
    ) -> Result<Heard, Failure> {
        let (scene, identifier) = (self.scene, self.identifier);
        let group = SolicitedNode::of(address).group();
        let mut request = EchoRequest {
            source: address,
            destination: scene.gateway,
            identifier,
            sequence: 0,
        };
        let mut heard = Heard::default();
        let mut end = clock::now();
        let mut buffer = [0; 64];
        for number in 1..=REQUESTS {
            let (number_shown, heard_shown) = (number.to_string(), heard.solicitations.to_string());
            show_progress(
                &[
                    when,
                    &number_shown,
                    " of 3 echo requests, ",
                    &heard_shown,
                    " solicitations",
                ]
                .concat(),
            );
            request.sequence = number as u16;
            let length = request.emit(&mut buffer).unwrap_or_default();
            self.transmitter.send(scene.index, mac, &buffer[..length])?;
            heard.requests += 1;
            end = end.saturating_add(REQUEST_INTERVAL);
            if number == REQUESTS {
                end = end.saturating_add(TRAVEL_TIME);
            }
            while self.hear(end, &mut |incoming, _| match incoming {
                Incoming::Message(Message::NeighborSolicitation(solicitation))
                    if solicitation.target == address && solicitation.destination == group =>
                {
                    heard.solicitations += 1;
                }
                Incoming::Other(packet) if request.is_answered_by(packet) => heard.replies += 1,
                Incoming::Message(_) | Incoming::Other(_) => {}
            })? {}
        }
        Ok(heard)
    }

    /// Hands on the next packet, if one comes before the deadline. Returns whether one may come
    /// yet.
    fn hear(
        &mut self,
        deadline: Instant,
        told: &mut dyn FnMut(&Incoming<'_>, [u8; 6]),
    ) -> nix::Result<bool> {
        if !wait_until(self.capture.as_fd(), deadline) {
            return Ok(false);
        }
        let mut buffer = [0; BUFFER_LENGTH];
        if let Some((packet, mac)) = self.capture.receive(&mut buffer)? {
            let incoming = match parse(packet) {
                Ok(message) => Incoming::Message(message),
                Err(_) => Incoming::Other(packet),
            };
            if let Incoming::Message(Message::Query(_)) = incoming {
                self.queried = true;
            }
            told(&incoming, mac);
        }
        Ok(true)
    }
}

/// A packet that was heard.
enum Incoming<'p> {
    /// One of NDP or MLD.
    Message(Message<'p>),
    Other(&'p [u8]),
}

impl Incoming<'_> {
    /// The address that the sender has, or is about to have.
    fn claims(&self) -> Option<Ipv6Addr> {
        match self {
            Incoming::Message(Message::NeighborAdvertisement(advertisement)) => {
                Some(advertisement.target)
            }
            Incoming::Message(Message::NeighborSolicitation(solicitation)) => {
                let detects = solicitation.source.is_unspecified();
                detects.then_some(solicitation.target)
            }
            Incoming::Message(_) | Incoming::Other(_) => None,
        }
    }
}
