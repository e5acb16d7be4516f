//! `cargo demo --stream`: a stream comes to the link that wants it, and to no other.

use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::lab::{
    DOWNSTREAM, GUEST, Receiver, SOURCE, Sender, Stream, StreamLab, StreamOptions, Tap, UPSTREAM,
    isolate, poll_for,
};
use crate::{Daemon, Screen};

const GROUP: Ipv6Addr = Ipv6Addr::new(0xff3e, 0, 0, 0, 0, 0, 0x4321, 0x1234);
/// Datagrams a second.
const PACE: u32 = 500;

const PROBLEM: &str = "
A provider sends television as a stream of datagrams to a multicast group. Its switch hands the
stream only to a port that asked for it by MLD. A receiver asks on its own link, where only the
router hears it. So the router has to ask upstream for what is wanted at home, and to hand a stream
to the links that want it, and to no other (RFC 4605).";

const NETWORK: &str = "
     source              switch                    router                    hosts
     ┌──────┐         ┌───────────┐         ┌─────────────────┐            ┌───────┐
     │  gw  ├─────────┤    sw     ├─────────┤ wan rtr  br-lan ├────────────┤  lan  │
     └──────┘         └───────────┘         │          guest  ├─────┐      └───────┘
     2001:db8:1::10   MLD snooping:         └─────────────────┘     │      ┌───────┐
     sends to the     multicast only to     mldproxy                └──────┤ guest │
     group            ports that asked                                     └───────┘
";

pub fn demonstrate(screen: &mut Screen) -> Result<(), String> {
    println!("{PROBLEM}");
    screen.step("A network of its own, which nothing else on this machine sees");
    isolate()?;
    let home = StreamLab::with(&StreamOptions {
        upstream_querier: Some(2),
        ..StreamOptions::default()
    });
    println!("{NETWORK}");

    screen.step("The source sends, and a host of the LAN joins its group");
    let stream = Sender::new(&home.lab.gw, "eth0", SOURCE, GROUP).start(PACE);
    let receiver = Receiver::of_source(&home.listeners[0], "eth0", SOURCE, GROUP);
    screen.see(&format!("lan: joined {GROUP} of {SOURCE}"));
    wait_for_more_sent(&stream, u64::from(PACE))?;
    screen.say("Nobody asks the switch for it, and nobody forwards it:");
    expect_received(screen, &receiver, &stream, |count| count == 0)?;

    let arguments = ["run", "--mld-proxy", "--log-level", "debug"];
    let arguments = [&arguments[..], &[UPSTREAM, DOWNSTREAM, GUEST]].concat();
    screen.step(&format!(
        "Start on the router: mldproxy {}",
        arguments.join(" ")
    ));
    let mut mldproxy = Daemon::start(&home.lab, &arguments);
    let result = with_mldproxy(screen, &home, &mut mldproxy, &receiver, &stream);
    result.map_err(|failure| format!("{failure}\nmldproxy's log:\n{}", mldproxy.process.log()))
}

fn with_mldproxy(
    screen: &mut Screen,
    home: &StreamLab,
    mldproxy: &mut Daemon,
    receiver: &Receiver,
    stream: &Stream,
) -> Result<(), String> {
    screen.say("It asks the LAN who listens to what, asks upstream for the same, and tells the");
    screen.say("kernel where the stream goes. No datagram waits for it.");
    let guest = Tap::open(&home.guest, "eth0");
    let arrived = poll_for(Duration::from_secs(10), || {
        (receiver.count() >= 100).then_some(())
    });
    mldproxy.show_log(screen);
    arrived.ok_or("expected the stream to arrive, saw none of it")?;
    screen.see(&format!("rtr: {}", entry(home)?));
    expect_received(screen, receiver, stream, |count| count >= 100)?;
    expect_none_on(screen, &guest, "guest", "Nobody there joined.")?;

    screen.step("What it knows: mldproxy status");
    show_status(screen, home);

    screen.step("The host leaves, and the stream stops");
    let begin = Instant::now();
    receiver.leave();
    let ended = poll_for(Duration::from_secs(15), || {
        home.entries().is_empty().then_some(())
    });
    let seconds = begin.elapsed().as_secs_f32();
    mldproxy.show_log(screen);
    ended.ok_or_else(|| format!("expected no entry, saw: {:?}", home.entries()))?;
    screen.see("rtr: no entry");
    screen.say(&format!(
        "(The router asked whether anybody else listens, and waited: {seconds:.1} s.)"
    ));
    let lan = Tap::open(&home.listeners[0], "eth0");
    wait_for_more_sent(stream, u64::from(PACE))?;
    expect_none_on(screen, &lan, "lan", "The source still sends.")?;
    show_status(screen, home);

    screen.step("Stop mldproxy (SIGTERM)");
    mldproxy.process.signal(Signal::SIGTERM);
    let exit = poll_for(Duration::from_secs(5), || mldproxy.process.exit());
    mldproxy.show_log(screen);
    match exit {
        Some(exit) if exit.success() => screen.see("It exited with status 0."),
        Some(exit) => return Err(format!("expected exit status 0, saw {exit}")),
        None => return Err("expected mldproxy to end, saw it run 5 s on".to_owned()),
    }
    Ok(())
}

fn show_status(screen: &Screen, home: &StreamLab) {
    for line in home.lab.rtr.status("").lines() {
        screen.quote(line);
    }
}

/// The kernel's only entry of a group.
fn entry(home: &StreamLab) -> Result<String, String> {
    let entries = home.entries();
    let mut all = entries.iter();
    match (all.next(), all.next()) {
        (Some(entry), None) => Ok(entry.clone()),
        _ => Err(format!("expected one entry, saw: {entries:?}")),
    }
}

/// Waits until the source has sent so many more datagrams.
fn wait_for_more_sent(stream: &Stream, count: u64) -> Result<(), String> {
    let enough = stream.sent() + count;
    let sent = poll_for(Duration::from_secs(20), || {
        (stream.sent() >= enough).then_some(())
    });
    sent.ok_or_else(|| "expected the source to send, saw it stop".to_owned())
}

fn expect_received(
    screen: &Screen,
    receiver: &Receiver,
    stream: &Stream,
    is_expected: impl FnOnce(usize) -> bool,
) -> Result<(), String> {
    let (received, sent) = (receiver.count(), stream.sent());
    let seen = format!("lan: {received} datagrams received, of {sent} sent so far");
    if !is_expected(received) {
        return Err(format!("expected another number, saw: {seen}"));
    }
    screen.see(&seen);
    Ok(())
}

/// Fails if a datagram of the stream was on this link since the tap was opened.
fn expect_none_on(screen: &Screen, tap: &Tap, link: &str, why: &str) -> Result<(), String> {
    let count = tap.datagrams_to(GROUP).len();
    if count > 0 {
        return Err(format!(
            "expected nothing on the link of {link}, saw {count} datagrams"
        ));
    }
    screen.see(&format!("{link}: nothing of the stream on the link. {why}"));
    Ok(())
}
