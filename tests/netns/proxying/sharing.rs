//! Several instances of mldproxy on one router: none takes from another what that one wants,
//! however it starts or ends.

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv6Addr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use nix::sys::signal::Signal;

use super::leftovers::settings;
use super::{BOTH, Foreign, Guest, first_address, lines, word_after};
use crate::bridges::multicast_router;
use crate::lab::{
    Lab, LabOptions, Namespace, OTHER_USERS, Process, ROUTER, UPSTREAM, downstream, eventually,
    poll_for, solicited_node,
};
use crate::support::{SOON, address, spawn};

crate::tests![
    on_one_upstream_none_takes_from_another,
    on_the_same_interfaces_none_takes_from_another,
    on_one_downstream_none_takes_from_another,
    an_entry_that_another_one_gives_up_is_back_at_once,
    what_crashed_ones_left_is_swept_in_whatever_order_they_start_again,
    a_sibling_that_is_stopped_holds_up_nobody_for_long,
    who_occupies_all_numbers_keeps_nobody_from_starting,
    a_route_that_somebody_removes_is_back_at_once,
    what_somebody_removes_is_back_with_the_very_next_refresh,
    settings_are_put_back_by_the_last_in_whatever_order_they_end,
    settings_that_a_killed_process_changed_are_put_back_by_the_next,
    settings_of_a_bridge_are_put_back_by_the_last,
    settings_that_somebody_changes_cost_one_line_and_stay;
    settings_are_put_back_after_a_crash_of_another_user needs [OTHER_USERS],
];

/// Another upstream, with nobody behind it.
const SECOND_UPSTREAM: &str = "wan2";

/// One instance: the interfaces that it runs on, and the hosts that it proxies.
struct Instance<'l> {
    router: &'l Namespace,
    number: usize,
    interfaces: [String; 2],
    options: Vec<&'static str>,
    hosts: Vec<Ipv6Addr>,
}

impl Instance<'_> {
    fn socket(&self) -> String {
        format!("{}.{}", self.router.control_socket, self.number)
    }

    #[track_caller]
    fn start(&self) -> Process {
        let socket = self.socket();
        let options = [&self.options[..], &["--socket", &socket]].concat();
        let interfaces = [&*self.interfaces[0], &*self.interfaces[1]];
        let mldproxy = spawn(self.router, &options, &interfaces);
        mldproxy.wait_for_line("proxying ", SOON);
        mldproxy
    }

    /// The hosts that lack an entry, a route or a membership.
    fn missing(&self) -> Vec<String> {
        let [upstream, downstream] = &self.interfaces;
        let entries = lines(
            self.router,
            &format!("ip -6 neigh show proxy dev {upstream}"),
        );
        let routes = lines(self.router, &format!("ip -6 route show dev {downstream}"));
        // The kernel lists its groups in pieces, so this reads them several times.
        let groups: BTreeSet<_> = (0..3).flat_map(|_| self.router.joined(upstream)).collect();
        let mut missing = Vec::new();
        for host in &self.hosts {
            let is_of = |line: &String| line.split(' ').next() == Some(&host.to_string());
            for (what, there) in [
                ("entry", entries.iter().any(is_of)),
                ("route", routes.iter().any(is_of)),
                ("group", groups.contains(&solicited_node(*host))),
            ] {
                if !there {
                    missing.push(format!("the {what} of {host} on {upstream}"));
                }
            }
        }
        missing
    }

    #[track_caller]
    fn expect_all(&self, what: &str) {
        let mut missing = Vec::new();
        let complete = poll_for(SOON, || {
            missing = self.missing();
            missing.is_empty().then_some(())
        });
        assert!(complete.is_some(), "{what}: {missing:?}");
    }
}

/// Does `work`, and checks all the while that nothing is missing of what an instance proxies.
#[track_caller]
fn while_nothing_is_missing(instance: &Instance<'_>, what: &str, work: impl FnOnce()) {
    let (done, looks) = (AtomicBool::new(false), AtomicUsize::new(0));
    let missing = thread::scope(|scope| {
        let watch = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let missing = instance.missing();
                if !missing.is_empty() {
                    return missing;
                }
                looks.fetch_add(1, Ordering::Relaxed);
            }
            Vec::new()
        });
        let before = || looks.load(Ordering::Relaxed);
        let awaited = |count| {
            poll_for(SOON, || {
                (before() >= count || watch.is_finished()).then_some(())
            })
        };
        awaited(1);
        work();
        awaited(before() + 2);
        done.store(true, Ordering::Relaxed);
        watch.join().expect("the watch does not panic")
    });
    assert!(missing.is_empty(), "{what}: {missing:?}");
}

fn end(process: Process, signal: Signal) {
    process.signal(signal);
    process.wait(SOON);
    drop(process);
}

/// All but one instance end, by a signal or by being killed, in every order, and start again. The
/// one that stays misses nothing.
fn none_takes_from_another(lab: &Lab, instances: &[Instance<'_>; 3]) {
    let foreign = Foreign::of_kernel(&lab.rtr);
    for survivor in 0..3 {
        let others = [(survivor + 1) % 3, (survivor + 2) % 3];
        let mut running = [None, None, None];
        // The survivor starts first, or last.
        let order = if survivor == 1 {
            [others[0], others[1], survivor]
        } else {
            [survivor, others[0], others[1]]
        };
        for number in order {
            running[number] = Some(instances[number].start());
        }
        for instance in instances {
            instance.expect_all("at the start");
        }
        let survivor = &instances[survivor];
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            let mut ends = |number: usize| {
                let process: Option<Process> = running[number].take();
                let what = format!("{} ends by {signal}", instances[number].number);
                while_nothing_is_missing(survivor, &what, || {
                    end(process.expect("the process runs"), signal);
                });
            };
            ends(others[0]);
            ends(others[1]);
            for number in [others[1], others[0]] {
                let what = format!("{} starts after {signal}", instances[number].number);
                while_nothing_is_missing(survivor, &what, || {
                    running[number] = Some(instances[number].start());
                    instances[number].expect_all(&what);
                });
            }
        }
        for process in running.into_iter().flatten() {
            end(process, Signal::SIGTERM);
        }
        assert_eq!(own_part(&lab.rtr), [""; 0], "all instances have ended");
        assert_eq!(Foreign::of_kernel(&lab.rtr), foreign);
    }
}

/// What any instance of mldproxy has in the kernel's tables.
fn own_part(router: &Namespace) -> Vec<String> {
    let mut all = lines(router, "ip -6 neigh show proxy");
    all.extend(lines(router, "ip -6 route show proto 77"));
    all.retain(|line| word_after(line, "proto") != "99");
    all
}

fn lab_with(lans: u16) -> Lab {
    Lab::with(&LabOptions {
        querier: false,
        lans,
        ..LabOptions::default()
    })
}

/// Puts hosts with the kernel's own NDP on a LAN of the lab.
fn guests_on(lab: &Lab, lan: u16) -> Vec<Ipv6Addr> {
    let guest = Guest::new(lan as u8, 3);
    let lan = match lan {
        1 => &lab.lan,
        _ => &lab.more_lans[usize::from(lan) - 2],
    };
    guest.plug_in(lan);
    guest.speaks(lan);
    guest.addresses
}

fn instance<'l>(lab: &'l Lab, number: usize, upstream: &str, lan: u16) -> Instance<'l> {
    Instance {
        router: &lab.rtr,
        number,
        interfaces: [upstream.to_owned(), downstream(lan)],
        options: [BOTH, &["--learn", "both"]].concat(),
        hosts: Vec::new(),
    }
}

/// Makes the hosts speak, and returns the instances with the hosts that each proxies.
fn with_hosts<'l>(
    lab: &Lab,
    mut instances: [Instance<'l>; 3],
    lans: [u16; 3],
) -> [Instance<'l>; 3] {
    let listening: Vec<_> = instances.iter().map(Instance::start).collect();
    let mut known: Vec<(u16, Vec<Ipv6Addr>)> = Vec::new();
    for (instance, lan) in instances.iter_mut().zip(lans) {
        if !known.iter().any(|(number, _)| *number == lan) {
            known.push((lan, guests_on(lab, lan)));
        }
        let found = known.iter().find(|(number, _)| *number == lan);
        instance.hosts = found.map(|(_, hosts)| hosts.clone()).expect("just added");
    }
    for instance in &instances {
        instance.expect_all("heard");
    }
    for process in listening {
        end(process, Signal::SIGTERM);
    }
    instances
}

fn on_one_upstream_none_takes_from_another() {
    let lab = lab_with(3);
    let lans = [1, 2, 3];
    let instances = [0, 1, 2].map(|number| instance(&lab, number, UPSTREAM, lans[number]));
    none_takes_from_another(&lab, &with_hosts(&lab, instances, lans));
}

fn on_the_same_interfaces_none_takes_from_another() {
    let lab = lab_with(1);
    let instances = [0, 1, 2].map(|number| instance(&lab, number, UPSTREAM, 1));
    none_takes_from_another(&lab, &with_hosts(&lab, instances, [1; 3]));
}

fn on_one_downstream_none_takes_from_another() {
    let lab = lab_with(1);
    let upstreams = [UPSTREAM, SECOND_UPSTREAM, "wan3"];
    for upstream in &upstreams[1..] {
        lab.rtr.run(&format!(
            "ip link add name {upstream} type bridge
             ip link set dev {upstream} up"
        ));
    }
    let instances = [0, 1, 2].map(|number| instance(&lab, number, upstreams[number], 1));
    none_takes_from_another(&lab, &with_hosts(&lab, instances, [1; 3]));
}

/// Both instances run. The one that made the entries does not want them any more.
fn an_entry_that_another_one_gives_up_is_back_at_once() {
    let lab = lab_with(1);
    let mut first = instance(&lab, 0, UPSTREAM, 1);
    first.options.extend(["--prefix", "upstream"]);
    let _first = first.start();
    let mut second = instance(&lab, 1, UPSTREAM, 1);
    // Nothing else would tell the instance of it.
    second.options.extend(["--refresh-interval", "0"]);
    second.hosts = guests_on(&lab, 1);
    let are_all = |mark: &str| {
        let mut entries = lines(&lab.rtr, &format!("ip -6 neigh show proxy dev {UPSTREAM}"));
        entries.retain(|entry| word_after(entry, "proto") == mark);
        let marked: Vec<_> = entries.iter().map(|entry| first_address(entry)).collect();
        second.hosts.iter().all(|host| marked.contains(host))
    };
    eventually("the entries are the first instance's", SOON, || {
        are_all("77")
    });
    let _second = second.start();
    eventually("both instances want the entries", SOON, || {
        let status = second.router.run(&format!(
            "{} status --socket {}",
            env!("CARGO_BIN_EXE_mldproxy"),
            second.socket()
        ));
        let proxied = status.lines().filter(|line| line.ends_with(" proxied"));
        proxied.count() >= second.hosts.len()
    });
    assert!(are_all("77"), "the first instance made the entries");
    lab.rtr
        .run(&format!("ip addr del {ROUTER}/64 dev {UPSTREAM}"));
    eventually("the entries are the second instance's", SOON, || {
        are_all("76")
    });
}

fn what_crashed_ones_left_is_swept_in_whatever_order_they_start_again() {
    let lab = lab_with(2);
    let lans = [1, 2, 1];
    for order in [[0, 1], [1, 0]] {
        let mut instances = [0, 1].map(|number| instance(&lab, number, UPSTREAM, lans[number]));
        let running = [instances[0].start(), instances[1].start()];
        for (instance, lan) in instances.iter_mut().zip(lans) {
            instance.hosts = guests_on(&lab, lan);
            instance.expect_all("heard");
        }
        for process in running {
            end(process, Signal::SIGKILL);
        }
        assert_eq!(own_part(&lab.rtr).len(), 12);
        lab.lan.run("ip link del dev g1");
        lab.more_lans[0].run("ip link del dev g2");
        lab.rtr.flush_neighbors();
        let again = order.map(|number| instances[number].start());
        let mut left = Vec::new();
        let swept = poll_for(SOON, || {
            left = own_part(&lab.rtr);
            left.is_empty().then_some(())
        });
        assert!(swept.is_some(), "{order:?}: {left:?}");
        for process in again {
            end(process, Signal::SIGTERM);
        }
    }
}

fn a_sibling_that_is_stopped_holds_up_nobody_for_long() {
    let lab = lab_with(1);
    let stopped = instance(&lab, 0, UPSTREAM, 1);
    let stopped = stopped.start();
    stopped.signal(Signal::SIGSTOP);
    let other = instance(&lab, 1, UPSTREAM, 1);
    end(other.start(), Signal::SIGTERM);
    stopped.signal(Signal::SIGCONT);
    end(stopped, Signal::SIGTERM);
    assert_eq!(own_part(&lab.rtr), [""; 0]);
}

/// Anybody may have a netlink port with such a number.
fn who_occupies_all_numbers_keeps_nobody_from_starting() {
    use std::os::fd::AsRawFd as _;

    use nix::sys::socket::{
        AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, socket,
    };
    let lab = lab_with(1);
    let taken = lab.rtr.within(|| {
        (0..16)
            .map(|number| {
                let flags = SockFlag::SOCK_CLOEXEC;
                let route = SockProtocol::NetlinkRoute;
                let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, route).unwrap();
                bind(
                    socket.as_raw_fd(),
                    &NetlinkAddr::new(0x4d4c_4400 + number, 0),
                )
                .unwrap();
                socket
            })
            .collect::<Vec<_>>()
    });
    let mut instance = instance(&lab, 0, UPSTREAM, 1);
    let mldproxy = instance.start();
    instance.hosts = guests_on(&lab, 1);
    instance.expect_all("without a number");
    end(mldproxy, Signal::SIGTERM);
    assert_eq!(own_part(&lab.rtr), [""; 0]);
    drop(taken);
}

fn a_route_that_somebody_removes_is_back_at_once() {
    let lab = lab_with(1);
    let mut instance = instance(&lab, 0, UPSTREAM, 1);
    // Nothing else would tell the instance of it.
    instance.options.extend(["--refresh-interval", "0"]);
    let mldproxy = instance.start();
    instance.hosts = guests_on(&lab, 1);
    instance.expect_all("heard");
    lab.rtr.run("ip -6 route flush proto 77");
    instance.expect_all("after they were removed");
    assert!(mldproxy.is_running());
    // Routes of others wake nobody.
    let path = format!("/proc/{}/status", mldproxy.pid());
    let field = |name: &str| {
        let status = fs::read_to_string(&path).expect("the process runs");
        let line = status.lines().find(|line| line.starts_with(name));
        line.map(str::to_owned).expect("a field")
    };
    let wake_ups = || field("voluntary_ctxt");
    mldproxy.signal(Signal::SIGSTOP);
    // The stop itself is a wake-up too.
    let mut before = String::new();
    eventually("mldproxy has stopped", SOON, || {
        let is_stopped = field("State:").contains("(stopped)");
        let last = std::mem::replace(&mut before, wake_ups());
        is_stopped && last == before
    });
    for number in 0..50 {
        let host = address(0x4000 + number);
        lab.rtr.run(&format!(
            "ip -6 route add {host}/128 dev br-lan
             ip -6 route del {host}/128 dev br-lan"
        ));
    }
    // The queue of a stopped process shows what would have woken it.
    let queue = lab
        .rtr
        .within(|| fs::read_to_string("/proc/thread-self/net/netlink"));
    let queue = queue.expect("the kernel lists its queues");
    let of_mldproxy = queue
        .lines()
        .find(|line| line.contains(&format!(" {} ", 0x4d4c_4400)));
    let fields: Vec<_> = of_mldproxy
        .expect("its socket")
        .split_whitespace()
        .collect();
    assert_eq!(fields[4], "0", "octets wait to be read: {fields:?}");
    assert_eq!(wake_ups(), before);
    mldproxy.signal(Signal::SIGCONT);
}

fn what_somebody_removes_is_back_with_the_very_next_refresh() {
    let lab = lab_with(1);
    let mut instance = instance(&lab, 0, UPSTREAM, 1);
    instance.options.extend(["--refresh-interval", "2"]);
    // Nothing else may wake the instance.
    let quiet = ["--address-timeout", "3600", "--expiry-interval", "3600"];
    instance.options.extend(quiet);
    let mldproxy = instance.start();
    instance.hosts = guests_on(&lab, 1);
    instance.expect_all("heard");
    let refreshes = || {
        let lines = mldproxy.lines();
        let reports = lines.iter().filter(|line| line.contains("reporting to "));
        reports.count()
    };
    let wait_for_report = || {
        let before = refreshes();
        eventually("a report", SOON, || refreshes() > before);
    };
    for _ in 0..3 {
        // An instance that lists the tables between two refreshes lists them again with the next
        // one.
        wait_for_report();
        // When an address of the upstream goes, mldproxy lists all tables anew and asks no host.
        lab.rtr.run(&format!(
            "ip addr add fd00::1/64 dev {UPSTREAM}
             ip addr del fd00::1/64 dev {UPSTREAM}"
        ));
        instance.expect_all("in between");
        let before = refreshes();
        lab.rtr.run(&format!(
            "ip -6 neigh del proxy {} dev {UPSTREAM}",
            instance.hosts[0]
        ));
        instance.expect_all("after a refresh");
        let passed = refreshes() - before;
        assert!(passed <= 1, "{passed} refreshes");
    }
}

/// Two instances on one upstream, and one on another.
fn with_two_upstreams(lab: &Lab) -> [Instance<'_>; 3] {
    lab.rtr.run(&format!(
        "ip link add name {SECOND_UPSTREAM} type bridge
         ip link set dev {SECOND_UPSTREAM} up"
    ));
    let upstreams = [UPSTREAM, UPSTREAM, SECOND_UPSTREAM];
    [0, 1, 2].map(|number| instance(lab, number, upstreams[number], 1))
}

/// The settings of all interfaces, of the first upstream with its delay, and of the second upstream
/// with its delay.
fn all_settings(router: &Namespace) -> [String; 5] {
    [
        "conf/all/proxy_ndp",
        "conf/wan/proxy_ndp",
        "neigh/wan/proxy_delay",
        "conf/wan2/proxy_ndp",
        "neigh/wan2/proxy_delay",
    ]
    .map(|name| {
        let path = format!("/proc/sys/net/ipv6/{name}");
        let value = router.within(|| fs::read_to_string(path));
        value.expect("the setting exists").trim().to_owned()
    })
}

fn settings_are_put_back_by_the_last_in_whatever_order_they_end() {
    let lab = lab_with(1);
    let instances = with_two_upstreams(&lab);
    let before = all_settings(&lab.rtr);
    assert_eq!(before, ["0", "0", "80", "0", "80"]);
    let orders = [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ];
    for order in orders {
        for killed in [None, Some(0), Some(1)] {
            let mut running = [0, 1, 2].map(|number| Some(instances[number].start()));
            assert_eq!(all_settings(&lab.rtr), ["1", "1", "0", "1", "0"]);
            for (place, number) in order.into_iter().enumerate() {
                let signal = if killed == Some(place) {
                    Signal::SIGKILL
                } else {
                    Signal::SIGTERM
                };
                end(running[number].take().expect("the process runs"), signal);
                let first = running[0].is_some() || running[1].is_some();
                let [all, wan, wan_delay, ..] = all_settings(&lab.rtr);
                if running.iter().any(Option::is_some) {
                    assert_eq!(all, "1", "{order:?}, {killed:?}");
                }
                if first {
                    assert_eq!((&*wan, &*wan_delay), ("1", "0"), "{order:?}, {killed:?}");
                }
            }
            if killed.is_some() {
                // Later instances, one on each upstream, put back what the killed one left.
                for number in [1, 2] {
                    end(instances[number].start(), Signal::SIGTERM);
                }
            }
            assert_eq!(all_settings(&lab.rtr), before, "{order:?}, {killed:?}");
        }
    }
}

fn settings_that_a_killed_process_changed_are_put_back_by_the_next() {
    let lab = lab_with(1);
    let [first, second, _] = with_two_upstreams(&lab);
    let before = all_settings(&lab.rtr);
    for next in [&first, &second] {
        end(first.start(), Signal::SIGKILL);
        end(second.start(), Signal::SIGKILL);
        assert_eq!(all_settings(&lab.rtr), ["1", "1", "0", "0", "80"]);
        end(next.start(), Signal::SIGTERM);
        assert_eq!(all_settings(&lab.rtr), before);
    }
    // An instance without the NDP proxy puts them back too.
    end(first.start(), Signal::SIGKILL);
    let mut neither = instance(&lab, 0, UPSTREAM, 1);
    neither.options.clear();
    end(neither.start(), Signal::SIGTERM);
    assert_eq!(all_settings(&lab.rtr), before);
    // mldproxy does not take the owner's settings for a leftover.
    lab.rtr.sysctl("net.ipv6.conf.all.proxy_ndp", "1");
    lab.rtr.sysctl("net.ipv6.neigh.wan.proxy_delay", "20");
    end(first.start(), Signal::SIGKILL);
    end(first.start(), Signal::SIGTERM);
    assert_eq!(all_settings(&lab.rtr), ["1", "0", "20", "0", "80"]);
}

fn settings_of_a_bridge_are_put_back_by_the_last() {
    let lab = lab_with(1);
    lab.rtr
        .run("ip link set dev br-lan type bridge mcast_snooping 1");
    let before = multicast_router(&lab);
    assert_ne!(before, "2");
    let instances = with_two_upstreams(&lab);
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let first = instances[0].start();
        first.wait_for_line("br-lan snoops", SOON);
        eventually("the bridge is a multicast router", SOON, || {
            multicast_router(&lab) == "2"
        });
        let last = instances[2].start();
        end(first, signal);
        assert_eq!(multicast_router(&lab), "2");
        end(last, Signal::SIGTERM);
        assert_eq!(multicast_router(&lab), before);
    }
    // A bridge that was created anew is another bridge.
    let killed = instances[0].start();
    eventually("the bridge is a multicast router", SOON, || {
        multicast_router(&lab) == "2"
    });
    end(killed, Signal::SIGKILL);
    lab.rtr.run(
        "ip link del dev br-lan
         ip link add name br-lan type bridge mcast_snooping 1 mcast_router 2
         ip link set dev br-lan up",
    );
    end(instances[0].start(), Signal::SIGTERM);
    assert_eq!(multicast_router(&lab), "2");
}

fn settings_that_somebody_changes_cost_one_line_and_stay() {
    let lab = lab_with(1);
    let mut instance = instance(&lab, 0, UPSTREAM, 1);
    instance.options.extend(["--refresh-interval", "1"]);
    let mldproxy = instance.start();
    instance.hosts = guests_on(&lab, 1);
    instance.expect_all("heard");
    lab.rtr.sysctl("net.ipv6.conf.all.proxy_ndp", "0");
    let needle = "net.ipv6.conf.all.proxy_ndp was changed by somebody";
    mldproxy.wait_for_line(needle, SOON);
    let reports = || {
        let lines = mldproxy.lines();
        lines
            .iter()
            .filter(|line| line.contains("reporting to "))
            .count()
    };
    let before = reports();
    eventually("two more refreshes", SOON, || reports() >= before + 2);
    let lines = mldproxy.lines();
    assert_eq!(lines.iter().filter(|line| line.contains(needle)).count(), 1);
    end(mldproxy, Signal::SIGTERM);
    assert_eq!(settings(&lab.rtr), ["0", "0", "80"]);
}

/// That user may write in the folder where the settings are written down.
fn settings_are_put_back_after_a_crash_of_another_user() {
    let lab = lab_with(1);
    let before = settings(&lab.rtr);
    let root = instance(&lab, 0, UPSTREAM, 1);
    let mut nobody = instance(&lab, 1, UPSTREAM, 1);
    nobody.options.extend(["--user", "nobody"]);
    for (killed, next) in [(&nobody, &nobody), (&nobody, &root), (&root, &nobody)] {
        end(killed.start(), Signal::SIGKILL);
        assert_ne!(settings(&lab.rtr), before);
        end(next.start(), Signal::SIGTERM);
        assert_eq!(settings(&lab.rtr), before);
    }
}
