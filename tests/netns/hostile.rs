//! What hosts on a LAN may do to the daemon, and what its owner may do.

use nix::sys::signal::Signal;
use protocol::wire::ALL_NODES;

use crate::lab::{Frame, Lab, UPSTREAM};
use crate::support::{Host, SOON, address, expect_joined, start};

crate::tests![
    frames_of_noise_are_counted_and_change_nothing,
    two_of_it_do_not_disturb_each_other,
    after_a_crash_the_next_start_works,
];

fn frames_of_noise_are_counted_and_change_nothing() {
    let lab = Lab::without_querier();
    let mldproxy = start(&lab, &[]);
    let host = Host::on(&lab.lan);
    let mut random = fastrand::Rng::with_seed(1);
    for round in 0..20_000 {
        let mut packet: Vec<u8> = (0..random.usize(40..200)).map(|_| random.u8(..)).collect();
        // Most of the noise passes the filter and some of the checks.
        packet[0] = 0x60;
        if round % 4 != 0 {
            let length = u16::try_from(packet.len() - 40).unwrap();
            packet[4..6].copy_from_slice(&length.to_be_bytes());
            packet[6] = 58;
            packet[7] = if round % 2 == 0 { 255 } else { 1 };
            if let Some(message_type) = packet.get_mut(40) {
                *message_type = random.choice([130, 131, 132, 135, 136, 143]).unwrap();
            }
        }
        host.tap.send(&Frame {
            source: host.tap.mac(),
            destination: crate::lab::group_mac(ALL_NODES),
            packet,
        });
        // Now and then a host sends a real packet. mldproxy hears it although the queue may be full
        // of noise.
        if round % 1000 == 0 {
            host.solicits_from(address(1));
        }
    }
    host.solicits_from(address(1));
    expect_joined(&lab, &[address(1)]);
    mldproxy.signal(Signal::SIGTERM);
    assert!(mldproxy.wait(SOON).success());
    for counter in ["dropped_truncated", "dropped_checksum", "dropped_hop_limit"] {
        assert!(mldproxy.log().contains(counter), "{}", mldproxy.log());
    }
}

fn two_of_it_do_not_disturb_each_other() {
    let lab = Lab::without_querier().with_socket_in_folder();
    let first = start(&lab, &[]);
    let other = format!("{}.2", lab.rtr.control_socket);
    let second = start(&lab, &["--socket", &other]);
    second.wait_for_line(
        "warn: another mldproxy runs for wan: both do everything",
        SOON,
    );
    let host = Host::on(&lab.lan);
    host.solicits_from(address(1));
    first.wait_for_line("joined", SOON);
    second.wait_for_line("joined", SOON);
    second.signal(Signal::SIGTERM);
    assert!(second.wait(SOON).success());
    expect_joined(&lab, &[address(1)]);
    first.signal(Signal::SIGTERM);
    assert!(first.wait(SOON).success());
    expect_joined(&lab, &[]);
}

fn after_a_crash_the_next_start_works() {
    let lab = Lab::without_querier();
    let host = Host::on(&lab.lan);
    let crashed = start(&lab, &[]);
    host.solicits_from(address(1));
    expect_joined(&lab, &[address(1)]);
    crashed.signal(Signal::SIGKILL);
    crashed.wait(SOON);
    // The kernel cleans up what the process held.
    expect_joined(&lab, &[]);
    let flags = lab.rtr.run("ip -d link show dev br-lan");
    assert!(!flags.contains("ALLMULTI"), "{flags}");

    let _next = start(&lab, &[]);
    host.solicits_from(address(1));
    expect_joined(&lab, &[address(1)]);
    assert!(!lab.rtr.joined(UPSTREAM).is_empty());
}
