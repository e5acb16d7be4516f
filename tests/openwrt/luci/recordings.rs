//! What the real daemon answers, by the real plugin, in some networks.

use std::sync::{LazyLock, Mutex, PoisonError};

use crate::lab::{
    DOWNSTREAM, FOLDER, GUEST, Lab, LabOptions, Namespace, Receiver, SOURCE, Sender, StreamLab,
    StreamOptions, UPSTREAM, eventually,
};
use crate::router::MLDPROXY;
use crate::rpcd::plugin;
use crate::support::{
    Host, SOON, UNLIMITED, add_real_hosts, address, expect_among_joined, proxied, real_host,
    speak_link_local, start_between,
};

/// Answers by their methods. Each is an object of JSON.
pub type Answers = Vec<(&'static str, String)>;

/// The methods that the page calls for the status.
const STATUS: &[&str] = &[
    "status",
    "neighbors",
    "upstream_neighbors",
    "groups",
    "streams",
];

/// Each network has an instance of this name, so they come one after the other.
const NAME: &str = "main";
static ONE: Mutex<()> = Mutex::new(());

/// The plugin's list of methods.
pub static METHODS: LazyLock<String> = LazyLock::new(|| plugin(&["list"], "", "").0);

/// An instance that heard no host, without an NDP proxy beside it; and what `check` finds there.
pub static NONE: LazyLock<Answers> = LazyLock::new(|| {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let lab = Lab::without_querier();
    let _mldproxy = start(&lab.rtr, &["--learn", "ndp"], &[UPSTREAM, DOWNSTREAM]);
    record(&lab.rtr, &[STATUS, &["check"]].concat())
});

/// An NDP proxy with two hosts that are proxied, and a third that answers nothing.
pub static THREE: LazyLock<Answers> = LazyLock::new(|| {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let lab = Lab::with(&LabOptions::default());
    let options = ["--ndp-proxy", "--host-routes", "--learn", "both"];
    let _mldproxy = start(&lab.rtr, &options, &[UPSTREAM, DOWNSTREAM]);
    let real = add_real_hosts(&lab, 1);
    let silent = Host::apart(&lab.lan, 1);
    eventually("two hosts are proxied, one is probed", 2 * SOON, || {
        lab.lan_host_speaks();
        speak_link_local(&lab, [1]);
        silent.solicits_from(address(1));
        lab.lan.reach(real_host(1), crate::lab::LAN_ROUTER, "h1");
        let both = [crate::lab::LAN_HOST, real[0]];
        let proxied = proxied(&lab);
        let status = record(&lab.rtr, &["status", "neighbors"]);
        both.iter().all(|host| proxied.contains(host))
            && status[1].1.contains("\"probed\"")
            && status[0].1.contains("\"querier\":{")
    });
    record(&lab.rtr, STATUS)
});

/// The last part of the address of the last host in [`THOUSAND`].
pub const HOSTS: u16 = 1000;

/// A thousand hosts that speak once each.
pub static THOUSAND: LazyLock<Answers> = LazyLock::new(|| {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let lab = Lab::without_querier();
    let options = [UNLIMITED, &["--learn", "ndp"]].concat();
    let _mldproxy = start(&lab.rtr, &options, &[UPSTREAM, DOWNSTREAM]);
    let mut host = Host::on(&lab.lan);
    let addresses: Vec<_> = (1..=HOSTS).map(address).collect();
    for (number, target) in (1_u16..).zip(&addresses) {
        let [high, low] = number.to_be_bytes();
        host.mac = [2, 0, 0, 0x66, high, low];
        host.advertises(*target);
    }
    expect_among_joined(&lab, &addresses);
    record(&lab.rtr, STATUS)
});

/// An MLD proxy with a stream from upstream to a host.
pub static STREAMS: LazyLock<Answers> = LazyLock::new(|| {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let home = StreamLab::with(&StreamOptions {
        upstream_querier: Some(2),
        ..StreamOptions::default()
    });
    let _mldproxy = start(
        &home.lab.rtr,
        &["--mld-proxy", "--learn", "both"],
        &[UPSTREAM, DOWNSTREAM, GUEST],
    );
    let group = "ff3e::4000:1".parse().unwrap();
    let receiver = Receiver::of_source(&home.listeners[0], "eth0", SOURCE, group);
    let entry = format!("({SOURCE},{group}) {UPSTREAM} > {DOWNSTREAM}");
    eventually(&entry, SOON, || home.entries().len() == 1);
    let numbers = Sender::new(&home.lab.gw, "eth0", SOURCE, group).send(1234, 1000);
    receiver.expect_all(SOURCE, numbers, SOON);
    // The daemon looks at the kernel's counts now and then.
    eventually("the packets are counted", SOON, || {
        record(&home.lab.rtr, &["streams"])[0].1.contains("1234")
    });
    record(&home.lab.rtr, STATUS)
});

/// An instance that ended, and left its socket behind.
pub static ENDED: LazyLock<Answers> = LazyLock::new(|| {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let lab = Lab::without_querier();
    record(&lab.rtr, STATUS)
});

/// The proof where the gateway's side snoops and an instance runs.
pub static PROOF: LazyLock<Answers> = LazyLock::new(|| {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let lab = Lab::new();
    let _mldproxy = start(&lab.rtr, &["--ndp-proxy"], &[UPSTREAM, DOWNSTREAM]);
    record(&lab.rtr, &["prove"])
});

/// Starts an instance with its socket where the plugin looks for it.
fn start(router: &Namespace, options: &[&str], interfaces: &[&str]) -> crate::lab::Process {
    let socket = format!("{FOLDER}/{NAME}.sock");
    let own = ["--name", NAME, "--socket", &socket, "--log-level", "info"];
    start_between(router, &[&own, options].concat(), interfaces)
}

/// What the plugin answers for the instance.
fn record(router: &Namespace, methods: &[&'static str]) -> Answers {
    let question = format!("{{\"name\":\"{NAME}\"}}");
    let ask = |method| router.within(|| plugin(&["call", method], &question, MLDPROXY).0);
    methods
        .iter()
        .map(|&method| (method, ask(method)))
        .collect()
}
