//! Another program that owns the kernel's multicast table.

use nix::errno::Errno;

use crate::lab::{
    DOWNSTREAM, LAN_ROUTER, StreamLab, TableOwner, UPSTREAM, eventually, solicited_node,
};
use crate::support::{Host, SOON};

use super::{expect_to, lan_receiver, source_specific, start};

crate::tests![
    beside_another_owner_of_the_table_the_rest_goes_on_and_one_line_says_so,
    the_table_has_one_owner,
];

fn beside_another_owner_of_the_table_the_rest_goes_on_and_one_line_says_so() {
    let home = StreamLab::new();
    let owner = TableOwner::new(&home.lab.rtr).expect("nobody owns the table");
    let mldproxy = start(&home, &[]);
    let host = Host::apart(&home.listeners[0], 1);
    let address = "2001:db8:f::1234".parse().expect("an address");
    eventually("the host's group is joined", SOON, || {
        host.looks_for(address, LAN_ROUTER);
        let joined = home.lab.rtr.joined(UPSTREAM);
        joined.contains(&solicited_node(address))
    });
    let _receiver = lan_receiver(&home, source_specific(1));
    let told = |line: &&String| line.contains("multicast") && line.contains("table");
    let lines = mldproxy.lines();
    assert_eq!(lines.iter().filter(told).count(), 1, "{lines:#?}");
    assert_eq!(home.entries().len(), 0);
    assert!(mldproxy.is_running());
    drop(owner);
}

fn the_table_has_one_owner() {
    let home = StreamLab::new();
    let _mldproxy = start(&home, &[]);
    let _receiver = lan_receiver(&home, source_specific(1));
    expect_to(&home, source_specific(1), &[DOWNSTREAM]);
    let second = TableOwner::new(&home.lab.rtr);
    assert_eq!(second.err(), Some(Errno::EADDRINUSE));
}
