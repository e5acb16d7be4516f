//! Links without Ethernet.

use nix::sys::signal::Signal;
use protocol::wire::{Message, parse};

use crate::lab::{DOWNSTREAM, Lab, Tun, eventually, solicited_node};
use crate::support::{Host, SOON, address, start_between};

crate::tests![groups_are_joined_and_reported_on_a_tun_upstream,];

fn groups_are_joined_and_reported_on_a_tun_upstream() {
    let lab = Lab::without_querier();
    let mut tun = Tun::create(&lab.rtr, "tun0").expect("a TUN device");
    lab.rtr.run("ip link set dev tun0 up");
    let mldproxy = start_between(
        &lab.rtr,
        &["--refresh-interval", "1"],
        &["tun0", DOWNSTREAM],
    );
    Host::apart(&lab.lan, 1).solicits_from(address(1));
    let group = solicited_node(address(1));
    eventually("the group is joined", SOON, || {
        lab.rtr.joined("tun0").contains(&group)
    });
    let mut kinds = Vec::new();
    eventually(
        "the kernel's report and three of the daemon's",
        2 * SOON,
        || {
            let packet = tun.receive(SOON).expect("a report every second");
            if let Ok(Message::ReportV2(report)) = parse(&packet) {
                let ours = report.records.filter(|record| record.group == group);
                kinds.extend(ours.map(|record| format!("{:?}", record.record_type)));
            }
            let count = |kind| kinds.iter().filter(|found| *found == kind).count();
            count("ChangeToExclude") > 0 && count("ModeIsExclude") >= 3
        },
    );
    let log = mldproxy.log();
    assert!(!log.contains("failed"), "{log}");
    mldproxy.signal(Signal::SIGTERM);
    assert!(mldproxy.wait(SOON).success());
    assert!(!lab.rtr.joined("tun0").contains(&group));
}
