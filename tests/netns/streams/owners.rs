//! Another program that owns the kernel's multicast table.

use nix::errno::Errno;
use nix::sys::signal::Signal;

use crate::lab::{
    DOWNSTREAM, LAN_ROUTER, StreamLab, TableOwner, UPSTREAM, eventually, solicited_node,
};
use crate::support::{Host, SOON};

use super::{CALM, expect_to, lan_receiver, source_specific, start, upstream_sender};

crate::tests![
    beside_another_owner_of_the_table_the_rest_goes_on_and_one_line_says_so,
    the_table_has_one_owner,
    a_table_of_its_own_forwards_beside_another_owner_and_its_rules_go_at_the_end,
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

fn a_table_of_its_own_forwards_beside_another_owner_and_its_rules_go_at_the_end() {
    let home = StreamLab::new();
    let _owner = TableOwner::new(&home.lab.rtr).expect("nobody owns the table");
    let rules = || {
        home.lab
            .rtr
            .run("ip -6 mrule")
            .matches("lookup 100")
            .count()
    };
    for _ in 0..2 {
        let mldproxy = start(&home, &["--table", "100"]);
        let receiver = lan_receiver(&home, source_specific(1));
        let stream = upstream_sender(&home, source_specific(1)).start(CALM);
        receiver.wait_for_more(100, SOON);
        assert_eq!(rules(), 3, "one for each interface");
        stream.stop();
        // A killed one leaves its rules, and the next one takes them over.
        mldproxy.signal(Signal::SIGKILL);
        mldproxy.wait(SOON);
        assert_eq!(rules(), 3);
    }
    let mldproxy = start(&home, &["--table", "100"]);
    mldproxy.wait_for_line("proxying", SOON);
    mldproxy.signal(Signal::SIGTERM);
    assert!(mldproxy.wait(SOON).success());
    assert_eq!(rules(), 0);
}
