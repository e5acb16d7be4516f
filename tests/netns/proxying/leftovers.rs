//! What a process leaves in the kernel, and what the next one does with it.

use std::net::Ipv6Addr;

use nix::sys::signal::Signal;

use super::{BOTH, Foreign, Guest, Tables, expect_tables, first_address};
use crate::lab::{Lab, Namespace, Process, UPSTREAM, eventually};
use crate::support::{SOON, address, start};

crate::tests![
    a_kill_leaves_all_and_the_next_process_sweeps_what_is_not_wanted,
    a_restart_without_the_ndp_proxy_removes_what_a_kill_left,
    the_end_removes_all_and_puts_the_settings_back,
    leftovers_of_another_instance_stay,
];

/// The settings that the NDP proxy needs.
pub(super) fn settings(router: &Namespace) -> [String; 3] {
    [
        "conf/all/proxy_ndp".to_owned(),
        format!("conf/{UPSTREAM}/proxy_ndp"),
        format!("neigh/{UPSTREAM}/proxy_delay"),
    ]
    .map(|name| {
        let value = router.within(|| std::fs::read_to_string(format!("/proc/sys/net/ipv6/{name}")));
        value.map_or_else(|error| error.to_string(), |value| value.trim().to_owned())
    })
}

/// The kernel's own settings, and the settings while the NDP proxy runs.
pub(super) const KERNELS_OWN: [&str; 3] = ["0", "0", "80"];
pub(super) const PROXYING: [&str; 3] = ["1", "1", "0"];

/// Starts mldproxy, and waits until the kernel's tables hold what two guests want. Returns the
/// guests and their addresses.
#[track_caller]
pub(super) fn start_with_guests(
    lab: &Lab,
    options: &[&str],
) -> (Process, [Guest; 2], Vec<Ipv6Addr>) {
    let mldproxy = start(lab, options);
    let guests = [1, 2].map(|number| Guest::new(number, 2));
    for guest in &guests {
        guest.plug_in(&lab.lan);
        guest.speaks(&lab.lan);
    }
    let addresses = guests.iter().flat_map(|guest| guest.addresses.clone());
    let addresses: Vec<_> = addresses.collect();
    expect_tables(lab, &addresses, "at the start");
    assert_eq!(settings(&lab.rtr), PROXYING);
    (mldproxy, guests, addresses)
}

#[track_caller]
fn kill(mldproxy: &Process) {
    mldproxy.signal(Signal::SIGKILL);
    mldproxy.wait(SOON);
}

fn a_kill_leaves_all_and_the_next_process_sweeps_what_is_not_wanted() {
    let lab = Lab::without_querier();
    let options = [BOTH, &["--address-timeout", "10", "--expiry-interval", "1"]].concat();
    let (first, [_, gone], addresses) = start_with_guests(&lab, &options);
    lab.rtr.run(&format!(
        "ip -6 neigh add proxy {stranger} dev {UPSTREAM} protocol 99
         ip -6 route add {stranger}/128 dev br-lan",
        stranger = address(0xf001),
    ));
    let foreign = Foreign::of_kernel(&lab.rtr);
    kill(&first);
    assert_eq!(
        Tables::of_kernel(&lab.rtr),
        Tables::on_first_lan(&addresses)
    );
    // Nobody on the LAN ever had this address. Only the tables tell of it.
    let unknown = address(0xf002);
    lab.rtr.run(&format!(
        "ip -6 neigh add proxy {unknown} dev {UPSTREAM} router protocol 77
         ip -6 route add {unknown}/128 dev br-lan proto 77"
    ));
    gone.unplug(&lab.lan);
    let second = start(&lab, &options);
    eventually("mldproxy has swept what nobody has", SOON, || {
        let tables = Tables::of_kernel(&lab.rtr);
        !tables.entries.contains(&unknown)
            && tables.routes.iter().all(|(address, _)| *address != unknown)
    });
    // For an address timeout the kernel's neighbor table may still speak for the host that is gone.
    expect_tables(&lab, &addresses[..2], "after the restart");
    assert_eq!(Foreign::of_kernel(&lab.rtr), foreign);
    assert_eq!(settings(&lab.rtr), PROXYING);
    assert!(second.is_running());
}

fn a_restart_without_the_ndp_proxy_removes_what_a_kill_left() {
    let lab = Lab::without_querier();
    let (first, _guests, addresses) = start_with_guests(&lab, BOTH);
    kill(&first);
    let routes_alone = start(&lab, &["--host-routes"]);
    eventually("the entries go and the routes stay", SOON, || {
        let tables = Tables::of_kernel(&lab.rtr);
        tables.entries.is_empty() && tables.routes == Tables::on_first_lan(&addresses).routes
    });
    kill(&routes_alone);
    let _neither = start(&lab, &[]);
    expect_tables(&lab, &[], "without the NDP proxy");
}

fn the_end_removes_all_and_puts_the_settings_back() {
    let lab = Lab::without_querier();
    assert_eq!(settings(&lab.rtr), KERNELS_OWN);
    let foreign = Foreign::of_kernel(&lab.rtr);
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let (mldproxy, guests, _) = start_with_guests(&lab, BOTH);
        mldproxy.signal(signal);
        assert!(mldproxy.wait(SOON).success());
        assert_eq!(Tables::of_kernel(&lab.rtr), Tables::default());
        assert_eq!(settings(&lab.rtr), KERNELS_OWN);
        assert_eq!(Foreign::of_kernel(&lab.rtr), foreign);
        for guest in guests {
            guest.unplug(&lab.lan);
        }
    }
}

/// mldproxy tells an instance on other interfaces by these, and one that shares a downstream by its
/// prefix.
fn leftovers_of_another_instance_stay() {
    let lab = Lab::without_querier();
    let others = [1, 2].map(|number| Ipv6Addr::new(0x2001, 0xdb8, 0x99, 0, 0, 0, 0, number));
    lab.rtr.run(&format!(
        "ip link add name wan2 type bridge
         ip link set dev wan2 up
         ip -6 neigh add proxy {0} dev wan2 router protocol 77
         ip -6 neigh add proxy {2} dev wan2 router protocol 77
         ip -6 route add {0}/128 dev wan2 proto 77
         ip -6 route add {1}/128 dev br-lan proto 77",
        others[0],
        others[1],
        address(1),
    ));
    let all = |command_line: &str| super::lines(&lab.rtr, command_line);
    let before = (
        all("ip -6 neigh show proxy dev wan2"),
        all("ip -6 route show proto 77"),
    );
    let options = [BOTH, &["--prefix", "2001:db8:1::/64"]].concat();
    let mldproxy = start(&lab, &options);
    let guest = Guest::new(1, 1);
    guest.plug_in(&lab.lan);
    guest.speaks(&lab.lan);
    eventually("the guest has its entry and route", SOON, || {
        let tables = Tables::of_kernel(&lab.rtr);
        let route = (guest.addresses[0], "br-lan".to_owned());
        tables.entries.contains(&guest.addresses[0]) && tables.routes.contains(&route)
    });
    let expect_unchanged = || {
        let mut routes = all("ip -6 route show proto 77");
        routes.retain(|route| first_address(route) != guest.addresses[0]);
        assert_eq!((all("ip -6 neigh show proxy dev wan2"), routes), before);
    };
    expect_unchanged();
    mldproxy.signal(Signal::SIGTERM);
    assert!(mldproxy.wait(SOON).success());
    expect_unchanged();
}
