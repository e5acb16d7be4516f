//! The daemon's loop allocates no heap memory after start-up. It runs here on the real kernel,
//! under a counting allocator.

#[path = "netns/lab.rs"]
mod lab;

use std::hint::black_box;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use allocation_counter::measure;
use libtest_mimic::{Arguments, Trial};
use protocol::config::{Config, ProxyConfig};
use protocol::counters::Counter;
use protocol::engine::Engine;
use protocol::time::Duration;
use protocol::wire::{NeighborSolicitation, SolicitedNode};

use daemon::control::Server;
use daemon::run::forwarding::Forwarding;
use daemon::run::{Buffers, EventLoop, Sockets};
use daemon::sys::netlink::Netlink;
use daemon::sys::netlink::tables::Tables;
use daemon::sys::packet::Transmitter;
use daemon::sys::signal::Signals;
use lab::{Frame, Namespace, Tap, group_mac};

const FRAMES: u64 = 100_000;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let isolated = lab::isolate();
    if let Err(reason) = &isolated {
        eprintln!("skipping: {reason}");
    }
    let name = "the_loop_handles_100_000_frames_without_an_allocation";
    let trial = Trial::test(name, || {
        run();
        Ok(())
    });
    libtest_mimic::run(&arguments, vec![trial.with_ignored_flag(isolated.is_err())]).exit_code()
}

fn run() {
    let [router, lan] = ["router", "lan"].map(Namespace::new);
    router.veth("br-lan", &lan, "eth0");
    router.run(
        "ip link set dev br-lan up
         ip link add name wan type bridge
         ip link set dev wan up",
    );
    lan.run("ip link set dev eth0 up");
    let tap = Tap::open(&lan, "eth0");
    let enough = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| send_until(&tap, &enough));
        let client = scope.spawn(|| ask_until(&enough, &router.control_socket));
        let counted = router.within(|| {
            let _stop = StoreOnDrop(&enough);
            count_allocations(&router.control_socket)
        });
        assert_eq!(counted, 0, "the loop allocated");
        let answers = client.join().expect("the client does not panic");
        assert!(
            answers > 10,
            "the control socket answered only {answers} times"
        );
    });
}

/// Ends the sender and the client even if the loop panics.
struct StoreOnDrop<'a>(&'a AtomicBool);

impl Drop for StoreOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Sends solicitations from addresses that come and go. The daemon joins and leaves their groups,
/// reports them, and drops some of the frames.
fn send_until(tap: &Tap, enough: &AtomicBool) {
    let mut packet = [0; 128];
    for number in (0..).take_while(|_| !enough.load(Ordering::Relaxed)) {
        // Now and then the target may be upstream.
        let target = match number % 64 {
            0 => (0x2001_0db8_000f_0000_0000_0000_0000_0000_u128 + number).into(),
            _ => "fe80::1".parse().expect("an address"),
        };
        let source = 0x2001_0db8_0000_0000_0000_0000_0000_0000_u128;
        let solicitation = NeighborSolicitation {
            // Every 256 frames there are 16 new addresses, and each sends 16 times.
            source: (source + number / 256 * 16 + number % 16).into(),
            destination: SolicitedNode::of(target).group(),
            target,
            source_link_layer: None,
        };
        let length = solicitation.emit(&mut packet).expect("the packet fits");
        packet[42] = if number % 50 == 0 { 1 } else { packet[42] };
        tap.send(&Frame {
            source: tap.mac(),
            destination: group_mac(solicitation.destination),
            packet: packet[..length].to_vec(),
        });
    }
}

/// Sends every kind of request to the control socket, over and over. Returns the number of answers.
fn ask_until(enough: &AtomicBool, path: &str) -> usize {
    let mut answers = 0;
    while !enough.load(Ordering::Relaxed) {
        for question in ["json 9999\n", "text 9999\n", "metrics 0\n", "probe\n"] {
            let mut answer = String::new();
            // The connection fails before the loop runs and after it ended.
            let _ = UnixStream::connect(path).and_then(|mut stream| {
                stream.write_all(question.as_bytes())?;
                stream.read_to_string(&mut answer)
            });
            answers += usize::from(answer.ends_with('\n'));
        }
    }
    answers
}

fn count_allocations(path: &str) -> u64 {
    // The counter counts an allocation.
    assert_eq!(measure(|| drop(black_box(Box::new(1)))).count_total, 1);

    let mut config = Config::new("wan".parse().expect("a name"));
    let downstream = "br-lan".parse().expect("a name");
    config
        .downstreams
        .push(downstream)
        .expect("the list has room");
    config.address_timeout = Duration::from_millis(20);
    config.expiry_interval = Duration::from_millis(10);
    config.refresh_interval = Duration::from_millis(10);
    config.per_mac = u16::MAX;
    config.ndp_proxy = true;
    config.host_routes = true;
    config.join_rate = 100_000;
    config.join_burst = 100_000;
    config.mld_proxy = Some(ProxyConfig::default());
    let forwarding = Forwarding::open(&config);
    let mut storage = model::storage::new();
    let mut engine = Engine::new(&mut storage, config, [1; 16]);
    let mut buffers = Box::new(Buffers::new());
    let Ok(server) = Server::bind(path, None) else {
        panic!("no control socket {path}")
    };
    let netlink = Netlink::open().expect("netlink");
    let instance = Netlink::open_as_instance().expect("netlink");
    let tables = Tables::open(instance.number()).expect("netlink");
    let sockets = Sockets::new(
        Signals::block().expect("signals"),
        (netlink, instance),
        tables,
        (Transmitter::open().expect("a packet socket"), forwarding),
        Some((server, "wan")),
    );
    let mut event_loop = EventLoop::new(&mut engine, &mut buffers, sockets);
    event_loop.begin();
    let count = |event_loop: &EventLoop<'_>, counter| event_loop.engine().counters().get(counter);
    let measured = measure(|| {
        while count(&event_loop, Counter::NeighborSolicitation) < FRAMES
            || count(&event_loop, Counter::Probed) < 5
        {
            event_loop.turn().expect("poll");
        }
    });
    // A log line allocates nothing either.
    daemon::sys::log::install(log::LevelFilter::Info, false);
    let logged =
        measure(|| log::info!("{} addresses", event_loop.engine().ndp().neighbors().len()));
    for counter in [Counter::Joined, Counter::Reported, Counter::Solicited] {
        assert!(
            count(&event_loop, counter) > 10,
            "{counter:?} hardly happened meanwhile"
        );
    }
    measured.count_total + logged.count_total
}
