//! A stream across two routers that speak PIM with each other, as between a provider's source and
//! its customers.
//!
//! ```text
//!  [s]:eth0 ── eth0:[r1]:eth1 ── eth0:[r2]:eth1 ── wan:[rtr]:lan ── eth0:[h]
//!  ssmpingd         FRR: PIM          FRR: PIM, MLD      mldproxy        ssmping
//! ```
//!
//! ssmping asks ssmpingd to send to it, by unicast and to a source-specific group, and counts both.

use std::net::Ipv6Addr;
use std::process::Command;

use crate::lab::{FRR, Frr, Namespace, OTHER_USERS, UPSTREAM, eventually, find_tool, poll_for};
use crate::support::{SOON, start_between};

const SSMPING: (&str, &str) = ("ssmping", "ssmping");
const SSMPINGD: (&str, &str) = ("ssmpingd", "ssmping");

crate::tests![; a_stream_crosses_two_routers_with_pim_and_the_proxy
    needs [FRR, OTHER_USERS, SSMPING, SSMPINGD],
];

const SOURCE: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x10);
/// ssmping's group.
const GROUP: Ipv6Addr = Ipv6Addr::new(0xff3e, 0, 0, 0, 0, 0, 0x4321, 0x1234);
const LAN: &str = "lan";
/// The interfaces of a router with PIM, and MLD towards hosts on the second one.
const PIM: &str = "interface eth0\n ipv6 pim\n ipv6 pim hello 1\nexit\n\
                   interface eth1\n ipv6 pim\n ipv6 pim hello 1\n";
const PIM_AND_MLD: &str = " ipv6 mld\n";

/// The network in the picture above, with routes for unicast.
struct Chain {
    source: Namespace,
    r1: Namespace,
    r2: Namespace,
    rtr: Namespace,
    host: Namespace,
}

impl Chain {
    fn new() -> Self {
        let [source, r1, r2, rtr, host] = ["s", "r1", "r2", "rtr", "h"].map(Namespace::new);
        for router in [&r1, &r2, &rtr] {
            router.sysctl("net.ipv6.conf.all.forwarding", "1");
        }
        let links = [
            (
                &source,
                "eth0",
                "2001:db8:1::10",
                &r1,
                "eth0",
                "2001:db8:1::1",
            ),
            (&r1, "eth1", "2001:db8:12::1", &r2, "eth0", "2001:db8:12::2"),
            (
                &r2,
                "eth1",
                "2001:db8:2::1",
                &rtr,
                UPSTREAM,
                "2001:db8:2::2",
            ),
            (&rtr, LAN, "2001:db8:f::1", &host, "eth0", "2001:db8:f::10"),
        ];
        let address = |text: &str| text.parse().expect("an address");
        for (near, near_name, near_address, far, far_name, far_address) in links {
            near.veth(near_name, far, far_name);
            for (end, name, own) in [
                (near, near_name, near_address),
                (far, far_name, far_address),
            ] {
                end.set_up(name);
                end.add_address(name, address(own), 64, None);
            }
            eventually("the link is up", SOON, || {
                near.is_ready(near_name) && far.is_ready(far_name)
            });
        }
        for (router, to, length, via, interface) in [
            (&source, "::", 0, "2001:db8:1::1", "eth0"),
            (&r1, "2001:db8:2::", 48, "2001:db8:12::2", "eth1"),
            (&r1, "2001:db8:f::", 64, "2001:db8:12::2", "eth1"),
            (&r2, "2001:db8:1::", 64, "2001:db8:12::1", "eth0"),
            (&r2, "2001:db8:f::", 64, "2001:db8:2::2", "eth1"),
            (&rtr, "::", 0, "2001:db8:2::1", UPSTREAM),
            (&host, "::", 0, "2001:db8:f::1", "eth0"),
        ] {
            router.set_route(address(to), length, Some(address(via)), interface);
        }
        Chain {
            source,
            r1,
            r2,
            rtr,
            host,
        }
    }

    /// How many of so many datagrams ssmping received by unicast, and by multicast.
    #[track_caller]
    fn ssmping(&self, count: u32) -> (u32, u32) {
        let command = format!("ssmping -c {count} -6 {SOURCE}");
        let output = self.host.try_run(&command);
        let text = String::from_utf8_lossy(&output.stdout);
        let received = |kind: &str| {
            let prefix = format!("{kind} from ");
            let mut lines = text.lines().map(str::trim_start);
            let from: Vec<_> = lines
                .by_ref()
                .filter(|line| line.starts_with(&prefix))
                .collect();
            from.len() as u32
        };
        let counts = (received("unicast"), received("multicast"));
        assert!(counts.0 > 0, "ssmpingd does not answer: {output:?}");
        counts
    }
}

fn a_stream_crosses_two_routers_with_pim_and_the_proxy() {
    let chain = Chain::new();
    let r1 = Frr::start(&chain.r1, PIM);
    let r2 = Frr::start(&chain.r2, &format!("{PIM}{PIM_AND_MLD}"));
    let neighbors = poll_for(2 * SOON, || {
        let neighbors = r1.show("ipv6 pim neighbor");
        neighbors.contains("eth1").then_some(())
    });
    assert!(neighbors.is_some(), "{}", r1.show("ipv6 pim neighbor"));
    let ssmpingd = Command::new(find_tool("ssmpingd").expect("the test needs it"));
    let _ssmpingd = chain.source.spawn(&ssmpingd);

    let (_, by_multicast) = chain.ssmping(2);
    assert_eq!(by_multicast, 0);

    let _mldproxy = start_between(&chain.rtr, &["--mld-proxy"], &[UPSTREAM, LAN]);
    std::thread::scope(|scope| {
        let pinging = scope.spawn(|| chain.ssmping(5));
        // What the routers on both sides of the proxy know while it plays.
        let joins = poll_for(SOON, || {
            let joins = r2.show("ipv6 mld joins");
            let (group, source) = (GROUP.to_string(), SOURCE.to_string());
            (joins.contains(&group) && joins.contains(&source)).then_some(())
        });
        assert!(joins.is_some(), "{}", r2.show("ipv6 mld joins"));
        let entry = format!("{SOURCE} {GROUP} {UPSTREAM} -> {LAN}");
        eventually("the kernel forwards", SOON, || {
            let entries = chain.rtr.multicast_entries();
            entries.iter().any(|found| found.to_string() == entry)
        });
        let (_, by_multicast) = pinging.join().expect("ssmping runs");
        // PIM sets the tree up while the first one is sent.
        assert!(by_multicast >= 4, "{by_multicast} of 5");
    });
}
