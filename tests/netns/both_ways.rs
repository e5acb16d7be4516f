//! mldproxy as the NDP proxy between several LANs and the upstream's link, all in one /64.

pub mod answers;
pub mod claims;
pub mod duplicates;
pub mod home;
pub mod hostile;
pub mod moving;
pub mod unknown;

use std::thread;
use std::time::Duration;

use crate::lab::GATEWAY;
use home::{Home, PC};

crate::tests![ten_hosts_of_two_lans_a_pc_and_the_gateway_reach_each_other,];

/// There are many solicitations at once, and the first one for an unknown target may be lost.
const GENEROUS: Duration = Duration::from_secs(90);

fn ten_hosts_of_two_lans_a_pc_and_the_gateway_reach_each_other() {
    let home = Home::new(5);
    let mldproxy = home.start(&[]);
    let hosts = home.lans.iter().flatten().chain([&home.pc]);
    let hosts = hosts.map(|host| (&host.namespace, host.address));
    let all: Vec<_> = hosts.chain([(&home.lab.gw, GATEWAY)]).collect();
    assert_eq!(all.len(), 12);
    let addresses: Vec<_> = all.iter().map(|(_, address)| *address).collect();

    let unreached: Vec<_> = thread::scope(|scope| {
        let pings = all.iter().map(|(namespace, own)| {
            let others = addresses.iter().filter(move |address| *address != own);
            scope.spawn(move || {
                let unreached = others.filter(|other| !namespace.reaches(**other, GENEROUS));
                let unreached = unreached.map(|other| format!("{own} -> {other}"));
                unreached.collect::<Vec<_>>()
            })
        });
        let pings: Vec<_> = pings.collect();
        let ended = pings
            .into_iter()
            .map(|ping| ping.join().expect("its panic is above"));
        ended.flatten().collect()
    });
    assert!(unreached.is_empty(), "{unreached:?}\n{}", mldproxy.log());
    // Each host must be routed to its own LAN.
    for (lan, interface) in home.lans.iter().zip(["br-lan", "br-lan2"]) {
        for host in lan {
            home.expect_proxied(host.address);
            home.expect_routed_to(host.address, interface);
        }
    }
    home.expect_routed_to(PC, "wan");
    home.expect_routed_to(GATEWAY, "wan");
}
