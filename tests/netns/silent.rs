//! Hosts that never speak by themselves, or not from the address that is looked for: mldproxy asks
//! them.

use std::time::Duration;

use protocol::wire::{Message, RecordType, parse};

use crate::lab::{
    LAN_HOST, LAN_ROUTER, Lab, Process, Tap, Traffic, UPSTREAM, eventually, solicited_node,
};
use crate::support::{
    Host, SOON, add_real_hosts, address, expect_among_joined, missing_of, real_host,
    speak_link_local, start, summary,
};

crate::tests![
    a_silent_host_is_kept_for_five_timeouts_and_lost_only_where_it_may_not_be_asked,
    an_unplugged_host_is_left,
    a_downstream_that_flaps_loses_nobody,
    of_two_hosts_with_one_suffix_one_may_leave,
    a_host_that_leaves_a_group_is_not_waited_for,
    linux_answers_the_question,
    an_answer_for_a_group_holds_for_the_address_that_is_learned_later;
    a_host_that_speaks_only_link_local_is_reachable needs [("ndppd", "ndppd")],
];

/// Long enough for two questions to a host: one after half of the timeout, and one 2 s later.
const TIMEOUT: Duration = Duration::from_secs(6);
const SHORT: &[&str] = &["--address-timeout", "6", "--expiry-interval", "1"];
/// The time from the last word of a host until its group is left: the timeout, a check every
/// second, and ten seconds of grace.
const GONE: Duration = Duration::from_secs(6 + 1 + 10 + 3);

/// Waits for one address timeout. A witness speaks once and never answers, so it expires then.
fn wait_for_a_timeout(lab: &Lab, mldproxy: &Process, number: u8) {
    let witness = address(number.into());
    Host::apart(&lab.lan, number).solicits_from(witness);
    mldproxy.wait_for_line(&format!("expired {witness}"), TIMEOUT + SOON);
}

fn a_silent_host_is_kept_for_five_timeouts_and_lost_only_where_it_may_not_be_asked() {
    let ways: [(&[&str], bool); 4] = [
        (&["--learn", "both"], true),
        // mldproxy asks by solicitations alone, or by MLD alone.
        (&["--learn", "ndp", "--no-ask"], true),
        (&["--learn", "ndp", "--no-probe"], true),
        (&["--learn", "ndp", "--no-ask", "--no-probe"], false),
    ];
    let labs = ways.map(|(way, kept)| {
        let lab = Lab::without_querier();
        let mldproxy = start(&lab, &[SHORT, way].concat());
        lab.lan_host_speaks();
        expect_among_joined(&lab, &[LAN_HOST]);
        // From now on the host has nobody to talk to.
        lab.lan.run("ip -6 route flush dev eth0 default");
        (lab, mldproxy, kept)
    });
    for number in 1..=5 {
        for (lab, _, _) in &labs {
            Host::apart(&lab.lan, number).solicits_from(address(number.into()));
        }
        for (lab, mldproxy, kept) in &labs {
            mldproxy.wait_for_line(&format!("expired {}", address(number.into())), SOON);
            if *kept {
                assert!(
                    missing_of(lab, &[LAN_HOST]).is_empty(),
                    "{}",
                    mldproxy.log()
                );
            }
        }
    }
    for (_, mldproxy, kept) in &labs {
        let lost = mldproxy.log().contains("left ff02::1:ff01:10,");
        assert_eq!(lost, !kept, "{}", mldproxy.log());
    }
}

fn an_unplugged_host_is_left() {
    let lab = Lab::without_querier();
    let mldproxy = start(&lab, &[SHORT, &["--learn", "both"]].concat());
    lab.lan_host_speaks();
    expect_among_joined(&lab, &[LAN_HOST]);
    wait_for_a_timeout(&lab, &mldproxy, 1);
    expect_among_joined(&lab, &[LAN_HOST]);
    lab.lan.run("ip link set dev eth0 down");
    eventually("its group is left", GONE, || {
        missing_of(&lab, &[LAN_HOST]) == [solicited_node(LAN_HOST)]
    });
}

/// Without a carrier the kernel forgets the neighbors of a bridge, but the hosts are still there.
fn a_downstream_that_flaps_loses_nobody() {
    let lab = Lab::without_querier();
    let mldproxy = start(&lab, &[SHORT, &["--learn", "both"]].concat());
    let hosts = add_real_hosts(&lab, 3);
    speak_link_local(&lab, 1..=3);
    expect_among_joined(&lab, &hosts);
    for number in 1..=3 {
        lab.rtr.run("ip link set dev lan1 down");
        eventually("the bridge has no carrier", SOON, || {
            let link = lab.rtr.run("ip link show dev br-lan");
            link.contains("NO-CARRIER")
        });
        lab.rtr.run("ip link set dev lan1 up");
        wait_for_a_timeout(&lab, &mldproxy, number);
        assert!(missing_of(&lab, &hosts).is_empty(), "{}", mldproxy.log());
    }
    let log = mldproxy.log();
    for host in hosts {
        let left = format!("left {},", solicited_node(host));
        assert!(!log.contains(&left), "{log}");
    }
}

fn of_two_hosts_with_one_suffix_one_may_leave() {
    let lab = Lab::without_querier();
    let mldproxy = start(&lab, &[SHORT, &["--learn", "both"]].concat());
    add_real_hosts(&lab, 2);
    let twins: [std::net::Ipv6Addr; 2] =
        ["2001:db8:1::a:77:1", "2001:db8:1::b:77:1"].map(|twin| twin.parse().unwrap());
    for (number, twin) in (1..).zip(twins) {
        lab.lan
            .run(&format!("ip addr add {twin}/128 dev h{number}"));
        lab.lan
            .ping_until_answered(&format!("-I {twin} {LAN_ROUTER}%h{number}"));
        mldproxy.wait_for_line(&format!("learned {twin}"), SOON);
    }
    expect_among_joined(&lab, &twins);

    lab.lan.run("ip link set dev h1 down");
    mldproxy.wait_for_line(&format!("expired {}", twins[0]), GONE);
    // This takes longer than a group is kept after its last address. mldproxy keeps the group for
    // the address that remains.
    for number in 1..=2 {
        wait_for_a_timeout(&lab, &mldproxy, number);
    }
    assert!(missing_of(&lab, &twins).is_empty(), "{}", mldproxy.log());
    lab.lan.run("ip link set dev h2 down");
    eventually("the group is left with the second", GONE, || {
        !missing_of(&lab, &twins).is_empty()
    });
}

/// A host that gives up an address says so by MLD. mldproxy waits for it no longer than the
/// questions take.
fn a_host_that_leaves_a_group_is_not_waited_for() {
    let lab = Lab::without_querier();
    let mldproxy = start(
        &lab,
        &[
            "--learn",
            "both",
            "--address-timeout",
            "3600",
            "--expiry-interval",
            "1",
        ],
    );
    let hosts = add_real_hosts(&lab, 2);
    speak_link_local(&lab, 1..=2);
    expect_among_joined(&lab, &hosts);
    let gone = real_host(1);
    lab.lan.run(&format!("ip addr del {gone}/128 dev h1"));
    eventually("the group is left", SOON + GONE, || {
        missing_of(&lab, &hosts) == [solicited_node(gone)]
    });
    assert!(mldproxy.is_running());
}

/// This shows how Linux behaves as a host. Other systems may differ.
fn linux_answers_the_question() {
    let lab = Lab::without_querier();
    let mldproxy = start(&lab, &["--learn", "both", "--no-probe"]);
    let hosts = add_real_hosts(&lab, 1);
    expect_among_joined(&lab, &hosts);
    speak_link_local(&lab, [1]);
    mldproxy.wait_for_line("asking fe80::", SOON);
    // Without probes, nothing but an answer confirms a neighbor.
    eventually("an answer confirms", SOON, || {
        !summary(&mldproxy).contains("(0 confirmed)")
    });
}

/// Otherwise whoever fills the table in the second until the next answer would push out a host that
/// answers.
fn an_answer_for_a_group_holds_for_the_address_that_is_learned_later() {
    let lab = Lab::without_querier();
    let mldproxy = start(&lab, &["--learn", "both"]);
    let hosts = add_real_hosts(&lab, 1);
    speak_link_local(&lab, [1]);
    expect_among_joined(&lab, &hosts);
    // The link-local and the global address of both hosts.
    eventually("both hosts have answered", SOON, || {
        summary(&mldproxy).contains(" 4 addresses and listeners (4 confirmed)")
    });
    // mldproxy hears the host once more, and the host cannot answer again.
    let host = real_host(1);
    let mac = Tap::open(&lab.lan, "h1").mac();
    lab.lan.run("ip link set dev h1 down");
    let once = Host {
        mac,
        ..Host::on(&lab.lan)
    };
    once.solicits_from(host);
    mldproxy.wait_for_line(&format!("learned {host}"), SOON);
    let now = summary(&mldproxy);
    assert!(
        now.contains(" 4 addresses and listeners (4 confirmed)"),
        "{now}"
    );
}

/// Gives the LAN's host its address anew, and waits for the host's last report of the address's
/// group. The host reports as often as the robustness variable says (RFC 3810 §6.1).
fn give_address_anew(lab: &Lab) {
    const ROBUSTNESS: usize = 2;
    let wire = Tap::open(&lab.lan, "eth0");
    lab.lan.run(&format!(
        "ip addr del {LAN_HOST}/64 dev eth0
         ip addr add {LAN_HOST}/64 dev eth0"
    ));
    let group = solicited_node(LAN_HOST);
    let mut reports = 0;
    eventually("the group is reported twice", SOON, || {
        let frame = wire.receive(SOON).expect("a report");
        if let Ok(Message::ReportV2(mut report)) = parse(&frame.packet) {
            let joins = report.records.any(|record| {
                (record.record_type, record.group) == (RecordType::ChangeToExclude, group)
            });
            reports += usize::from(joins);
        }
        reports == ROBUSTNESS
    });
}

fn a_host_that_speaks_only_link_local_is_reachable() {
    let lab = Lab::new();
    let _ndppd = lab.start_ndppd();
    give_address_anew(&lab);
    let mldproxy = start(&lab, &["--learn", "both"]);
    // From now on nobody speaks of the address.
    assert_eq!(missing_of(&lab, &[LAN_HOST]).len(), 1, "{UPSTREAM}");
    lab.lan.flush_neighbors();
    lab.lan.ping_until_answered(&format!("{LAN_ROUTER}%eth0"));
    expect_among_joined(&lab, &[LAN_HOST]);
    assert!(
        !mldproxy.log().contains(&format!("learned {LAN_HOST}")),
        "{}",
        mldproxy.log()
    );
    let traffic = Traffic::start(&lab, &[LAN_HOST]);
    traffic.expect_all_reached(SOON);
    lab.gw.flush_neighbors();
    traffic.expect_all_reached(SOON);
    traffic.expect_nothing_lost();
}
