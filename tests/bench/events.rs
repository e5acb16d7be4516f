//! The instructions that the engine takes for events that are due by themselves, or meet a full
//! table: a row for each.
//!
//! Each row prepares an engine with so many groups, targets or entries, and then handles [`FRAMES`]
//! events. Each event is the only one that is due at its time.

use std::net::Ipv6Addr;

use crate::instructions::{
    FRAMES, NOW, ROUTER, Setup, address, advertisement, engine, mac, settle, solicitation, take_in,
};
use protocol::engine::{Action, BUFFER_LENGTH, Engine, Event, Reason};
use protocol::link::Side;
use protocol::ndp;
use protocol::ndp::neighbors::Question;
use protocol::ndp::solicited::LEAVE_DELAY;
use protocol::ndp::targets::{self, ANSWER_INTERVAL};
use protocol::time::{Duration, Instant};
use protocol::wire::{MacAddress, NeighborAdvertisement};

/// The name of an event, and the function that handles it in an engine with so many groups, targets
/// or entries.
pub type Row = (&'static str, fn(u16));

pub const ROWS: [Row; 4] = [
    ("a group is left", group_left),
    ("a target is asked for", target_asked),
    ("a target does not answer in time", target_expired),
    ("an announcement is due", announcement_due),
];

/// The groups lose their hosts one after the other. The engine leaves each after the leave delay.
fn group_left(groups: u16) {
    let mut engine = engine(groups, Setup::Plain);
    let buffer = &mut [0; BUFFER_LENGTH];
    for number in 0..FRAMES {
        let own = Event::Own {
            prefix_length: 128,
            index: 2,
            address: address(number),
            present: true,
        };
        engine.handle(later(NOW, number), own);
        settle(&mut engine, later(NOW, number));
    }
    for number in 0..FRAMES {
        let now = later(NOW, number).saturating_add(LEAVE_DELAY);
        take_in(&mut engine, now, mac(0), &[], buffer);
        assert!(
            engine.poll_action(buffer).is_some(),
            "the engine leaves a group"
        );
        settle(&mut engine, now);
    }
}

/// A host solicits a target that the engine does not know, and the engine solicits it upstream.
fn target_asked(targets: u16) {
    let (mut engine, start) = with_targets(targets);
    let buffer = &mut [0; BUFFER_LENGTH];
    for number in 0..FRAMES {
        let now = later(start, number);
        let packet = solicitation(address(0), target(0x4000 + number));
        take_in(&mut engine, now, mac(0), &packet, buffer);
        take_in(&mut engine, now, mac(0), &[], buffer);
        assert!(engine.poll_action(buffer).is_some(), "the engine solicits");
        settle(&mut engine, now);
    }
}

fn target_expired(targets: u16) {
    let (mut engine, start) = with_targets(targets);
    let buffer = &mut [0; BUFFER_LENGTH];
    for number in 0..FRAMES {
        look_for(&mut engine, later(start, number), 0x4000 + number);
    }
    for number in 0..FRAMES {
        let now = later(start, number).saturating_add(ANSWER_INTERVAL);
        take_in(&mut engine, now, mac(0), &[], buffer);
        settle(&mut engine, now);
    }
}

/// The engine has announced all hosts that answer. Then it announces [`FRAMES`] new ones.
fn announcement_due(entries: u16) {
    let mut engine = engine(0, Setup::Announcing);
    let buffer = &mut [0; BUFFER_LENGTH];
    let known = entries - FRAMES;
    for number in 0..known {
        hear(
            &mut engine,
            NOW,
            number,
            &solicitation(address(number), ROUTER),
        );
    }
    let start = NOW.saturating_add(Duration::from_secs(600));
    let mut now = NOW;
    while let Some((due, _)) = engine.next_deadline()
        && due < start
    {
        now = now.max(due);
        engine.handle_timeout(now);
        answer(&mut engine, now);
    }
    for number in known..entries {
        hear(
            &mut engine,
            start,
            number,
            &solicitation(address(number), ROUTER),
        );
    }
    now = start;
    let mut measured = 0;
    while measured < FRAMES {
        let (due, reason) = engine.next_deadline().expect("an announcement is due");
        now = now.max(due);
        if reason == Reason::Ndp(ndp::Reason::Announcement) {
            take_in(&mut engine, now, mac(0), &[], buffer);
            measured += 1;
        } else {
            engine.handle_timeout(now);
        }
        answer(&mut engine, now);
    }
    let proxied = engine.ndp().kernel_entries().iter();
    assert_eq!(proxied.count(), usize::from(entries));
}

/// Carries out the engine's actions. Each host that the engine probes answers.
fn answer(engine: &mut Engine<'_>, now: Instant) {
    let buffer = &mut [0; BUFFER_LENGTH];
    while let Some(action) = engine.poll_action(buffer) {
        engine.done(now, &action, true);
        if let Action::Ndp(ndp::Action::Ask { question, .. }) = action
            && let Question::Probe { target, .. } = question
        {
            let [.., high, low] = target.octets();
            let number = u16::from_be_bytes([high, low]);
            let answer = advertisement(number, ROUTER, true);
            let event = Event::Packet {
                side: Side::Downstream(0),
                mac: mac(number),
                packet: &answer,
            };
            engine.handle(now, event);
        }
    }
}

/// An engine that found so many targets upstream, but leaves room for [`FRAMES`] more; and the time
/// when it had found all.
fn with_targets(targets: u16) -> (Engine<'static>, Instant) {
    let mut engine = engine(FRAMES, Setup::Proxying);
    let targets = targets.min(targets::CAPACITY as u16 - FRAMES);
    for number in 0..targets {
        let now = later(NOW, 2 * number);
        look_for(&mut engine, now, number);
        let advertisement = NeighborAdvertisement {
            source: target(number),
            destination: ROUTER,
            target: target(number),
            router: false,
            solicited: true,
            override_flag: true,
            target_link_layer: Some(GATEWAY),
        };
        let mut packet = [0; 100];
        let length = advertisement.emit(&mut packet).expect("the packet fits");
        let event = Event::Packet {
            side: Side::Upstream,
            mac: GATEWAY,
            packet: &packet[..length],
        };
        engine.handle(now, event);
        settle(&mut engine, now);
    }
    let present = engine.ndp().targets().present_from(0).count();
    assert_eq!(present, usize::from(targets));
    (engine, later(NOW, 2 * targets))
}

const GATEWAY: MacAddress = MacAddress([2, 0, 0, 1, 0, 0]);

fn look_for(engine: &mut Engine<'_>, now: Instant, number: u16) {
    hear(engine, now, 0, &solicitation(address(0), target(number)));
}

fn hear(engine: &mut Engine<'_>, now: Instant, number: u16, packet: &[u8]) {
    let event = Event::Packet {
        side: Side::Downstream(0),
        mac: mac(number),
        packet,
    };
    engine.handle(now, event);
    settle(engine, now);
}

fn target(number: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 2, number)
}

/// The time of the event with a number: slow enough for every limit of the engine's rates.
fn later(start: Instant, number: u16) -> Instant {
    start.saturating_add(Duration::from_millis(20 * u64::from(number)))
}
