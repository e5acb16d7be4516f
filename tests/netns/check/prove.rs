//! `mldproxy check --prove`: what it proves of each kind of gateway, and what it sends and leaves.

use std::net::Ipv6Addr;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::sys::signal::Signal;
use protocol::wire::{Message, parse};

use super::{BINARY, check, findings, on_a_terminal};
use crate::lab::{
    Frame, GATEWAY, LAN_HOST, Lab, ROUTER, Tap, UPSTREAM, eventually, find_tool, solicited_node,
};
use crate::support::{SOON, expect_joined, proxied, start_proxying};

crate::tests![
    a_side_that_snoops_is_proven_by_what_was_announced_and_nothing_else,
    a_side_that_floods_without_a_querier_may_snoop_later,
    a_side_that_floods_beside_a_querier_does_not_snoop,
    a_querier_is_listened_for_where_it_matters,
    a_gateway_that_answers_no_echo_request_proves_nothing,
    a_gateway_that_routes_the_prefix_here_needs_no_group,
    a_gateway_whose_link_layer_address_is_not_known_is_asked_for_it,
    a_running_instance_is_not_disturbed,
    a_signal_in_the_middle_leaves_nothing,
    a_terminal_shows_how_far_it_is;
    a_gateway_that_filters_sources_proves_nothing needs [("nft", "nftables")],
    a_packet_filter_that_drops_reports_is_found needs [("nft", "nftables")],
    json_has_the_finding_and_the_counts needs [("python3", "python3")],
];

pub const PROVE: &str = "--prove wan";

/// The only finding of the proof itself.
#[track_caller]
pub fn proven(lines: &[String]) -> String {
    let found = findings(lines, "prove");
    assert_eq!(found.len(), 1, "{lines:#?}");
    found[0].clone()
}

/// The two addresses that the text announces last, by what it says before and behind them.
#[track_caller]
pub fn announced(lines: &[String]) -> [Ipv6Addr; 2] {
    let asks = lines.iter().rev().find_map(|line| {
        let (_, both) = line.split_once("whether anybody has ")?;
        let (first, second) = both.split_once(" or ")?;
        Some([first.parse().ok()?, second.parse().ok()?])
    });
    asks.unwrap_or_else(|| panic!("nothing is announced: {lines:#?}"))
}

/// All frames that have passed.
pub fn passed(wire: &Tap) -> Vec<Frame> {
    std::iter::from_fn(|| wire.receive(std::time::Duration::ZERO)).collect()
}

fn source_of(frame: &Frame) -> Ipv6Addr {
    Ipv6Addr::from_octets(*frame.packet[8..].first_chunk().expect("an IPv6 header"))
}

/// What the router sent, but for what its kernel sends by itself: each as a word and the address
/// that it is about.
fn sent(frames: &[Frame], router: [u8; 6], addresses: [Ipv6Addr; 2]) -> Vec<(&str, Ipv6Addr)> {
    let groups = addresses.map(solicited_node);
    let of_router = frames.iter().filter(|frame| frame.source == router);
    let said = of_router.filter_map(|frame| match parse(&frame.packet) {
        Ok(Message::NeighborSolicitation(solicitation)) => {
            let target = solicitation.target;
            addresses
                .contains(&target)
                .then_some(("solicitation", target))
        }
        Ok(Message::ReportV2(report)) => {
            let mut records = report.records;
            let record = records.find(|record| groups.contains(&record.group))?;
            let word = match record.listens() {
                Some(true) => "join",
                Some(false) | None => "leave",
            };
            Some((word, record.group))
        }
        Ok(_) => None,
        Err(_) => (frame.packet[40] == 128).then(|| ("echo", source_of(frame))),
    });
    said.collect()
}

fn count(said: &[(&str, Ipv6Addr)], word: &str, address: Ipv6Addr) -> usize {
    let wanted = (word, address);
    said.iter().filter(|said| **said == wanted).count()
}

fn a_side_that_snoops_is_proven_by_what_was_announced_and_nothing_else() {
    let lab = Lab::new();
    let before = lab.rtr.joined(UPSTREAM);
    // The switch holds back the router's own solicitations for what nobody has.
    let (near, far) = (Tap::open(&lab.rtr, UPSTREAM), Tap::open(&lab.gw, "eth0"));
    let router = near.mac();
    let (code, lines) = check(&lab.rtr, PROVE);
    assert_eq!(code, 2, "{lines:#?}");
    let found = proven(&lines);
    assert!(
        found.starts_with(
            "problem the gateway's side snoops MLD: 0 solicitations arrived before the group was \
             joined, "
        ),
        "{lines:#?}"
    );
    assert!(
        found.contains(" after, so mldproxy is what you need; run it"),
        "{lines:#?}"
    );
    let addresses = announced(&lines);
    let [unjoined, joined] = addresses;
    let group = solicited_node(joined);
    for line in [
        format!("then 3 echo requests to the gateway {GATEWAY}, from {unjoined}"),
        format!("then a report that this router listens to {group}, as the kernel sends it"),
        format!("then 3 echo requests to the gateway {GATEWAY}, from {joined}"),
    ] {
        assert!(lines.contains(&line), "no {line:?} in {lines:#?}");
    }

    let frames = passed(&near);
    let said = sent(&frames, router, addresses);
    for address in addresses {
        assert_eq!(count(&said, "solicitation", address), 1, "{said:?}");
        assert_eq!(count(&said, "echo", address), 3, "{said:?}");
    }
    assert!(count(&said, "join", group) > 0, "{said:?}");
    let nobodys = solicited_node(unjoined);
    assert_eq!(
        count(&said, "join", nobodys) + count(&said, "leave", nobodys),
        0
    );
    let echoes = said.iter().filter(|(word, _)| *word == "echo").count();
    assert_eq!(echoes, 6, "no other echo request: {said:?}");
    // The report came between the two halves.
    let place = |what: (&str, Ipv6Addr)| said.iter().position(|said| *said == what);
    assert!(
        place(("echo", unjoined)) < place(("join", group)),
        "{said:?}"
    );
    assert!(place(("join", group)) < place(("echo", joined)), "{said:?}");
    let frames = passed(&far);
    for address in addresses {
        let asked = frames.iter().any(|frame| {
            let asks = |message| match message {
                Message::NeighborSolicitation(solicitation) => solicitation.target == address,
                _ => false,
            };
            frame.source != router && parse(&frame.packet).is_ok_and(asks)
        });
        assert!(asked, "the gateway did not solicit {address}");
    }
    eventually("nothing is left", SOON, || {
        lab.rtr.joined(UPSTREAM) == before
    });
    eventually("the switch knows", SOON, || !lab.mdb().contains(&group));
}

fn a_side_that_floods_without_a_querier_may_snoop_later() {
    let lab = Lab::without_querier();
    let (code, lines) = check(&lab.rtr, PROVE);
    let found = proven(&lines);
    assert_eq!(code, 1, "{lines:#?}");
    assert!(
        found.starts_with("warning the gateway's side does not snoop MLD now: "),
        "{lines:#?}"
    );
    assert!(
        found.contains("; `mldproxy check --prove --wait 130 wan` "),
        "{lines:#?}"
    );
}

fn a_side_that_floods_beside_a_querier_does_not_snoop() {
    let lab = Lab::without_querier();
    lab.sw
        .run("ip link set dev br0 type bridge mcast_snooping 0");
    let ended = AtomicBool::new(false);
    let (code, lines) = thread::scope(|scope| {
        // The gateway queries for as long as that takes.
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                lab.gw.run(&format!("{BINARY} query --wait 1 eth0"));
            }
        });
        let checked = check(&lab.rtr, PROVE);
        ended.store(true, Ordering::Relaxed);
        checked
    });
    let found = proven(&lines);
    assert!(
        found.starts_with("ok the gateway's side does not snoop MLD: "),
        "{lines:#?}"
    );
    assert!(!found.contains(" 0 solicitations"), "{lines:#?}");
    assert_eq!(code, 0, "{lines:#?}");
}

fn a_querier_is_listened_for_where_it_matters() {
    let lab = Lab::without_querier();
    let mut command = Command::new(BINARY);
    command.args(["check", "--prove", "--wait", "3600", UPSTREAM]);
    let proof = lab.rtr.spawn(&command);
    proof.wait_for_line("listening for an MLD query for ", SOON);
    lab.gw.run(&format!("{BINARY} query --wait 1 eth0"));
    assert!(proof.wait(SOON).success(), "{}", proof.log());
    let found = proven(&proof.lines());
    assert!(
        found.starts_with("ok the gateway's side does not snoop MLD: "),
        "{}",
        proof.log()
    );
}

fn a_gateway_that_answers_no_echo_request_proves_nothing() {
    let lab = Lab::new();
    lab.gw.sysctl("net.ipv6.icmp.echo_ignore_all", "1");
    let (code, lines) = check(&lab.rtr, PROVE);
    assert_eq!(code, 1, "{lines:#?}");
    let silent = format!(
        "warning inconclusive: the gateway {GATEWAY} neither solicited the addresses nor answered"
    );
    assert!(proven(&lines).starts_with(&silent), "{lines:#?}");
}

fn a_gateway_that_filters_sources_proves_nothing() {
    let lab = Lab::new();
    lab.gw.run(&format!(
        "nft add table inet filter
         nft add chain inet filter input {{ type filter hook input priority 0 ; }}
         nft add rule inet filter input ip6 saddr 2001:db8:1::/64 ip6 saddr != {ROUTER} drop"
    ));
    let (code, lines) = check(&lab.rtr, PROVE);
    assert_eq!(code, 1, "{lines:#?}");
    assert!(
        proven(&lines).starts_with("warning inconclusive: the gateway "),
        "{lines:#?}"
    );
    lab.rtr
        .ping_until_answered(&format!("-I {ROUTER} {GATEWAY}"));
}

fn a_packet_filter_that_drops_reports_is_found() {
    let lab = Lab::new();
    lab.rtr.run(
        "nft add table inet filter
         nft add chain inet filter output { type filter hook output priority 0 ; }
         nft add rule inet filter output icmpv6 type mld2-listener-report drop",
    );
    let (code, lines) = check(&lab.rtr, PROVE);
    assert_eq!(code, 2, "{lines:#?}");
    assert!(
        proven(&lines).starts_with("problem no MLD report left wan after a group was joined"),
        "{lines:#?}"
    );
}

/// As where the provider delegates the prefix.
fn a_gateway_that_routes_the_prefix_here_needs_no_group() {
    let lab = Lab::new();
    let router = lab.rtr.link_local_of(UPSTREAM);
    let gateway = lab.gw.link_local_of("eth0");
    lab.rtr.run(&format!(
        "ip -6 route replace default via {gateway} dev wan"
    ));
    lab.gw.run(&format!(
        "ip addr del {GATEWAY}/64 dev eth0
         ip -6 route add 2001:db8:1::/64 via {router} dev eth0"
    ));
    let (code, lines) = check(&lab.rtr, PROVE);
    let expected =
        format!("ok the gateway {gateway} answered 6 of 6 requests without a solicitation: ");
    assert!(proven(&lines).starts_with(&expected), "{lines:#?}");
    assert_eq!(code, 0, "{lines:#?}");
}

fn a_gateway_whose_link_layer_address_is_not_known_is_asked_for_it() {
    let lab = Lab::new();
    lab.rtr.flush_neighbors();
    let wire = Tap::open(&lab.gw, "eth0");
    let (_, lines) = check(&lab.rtr, PROVE);
    let line = format!("up to 3 Neighbor Solicitations for the gateway {GATEWAY}");
    assert!(lines.contains(&line), "{lines:#?}");
    assert!(proven(&lines).contains(" snoops MLD: "), "{lines:#?}");
    let link_local = lab.rtr.link_local_of(UPSTREAM);
    let asks = |frame: &Frame| match parse(&frame.packet) {
        Ok(Message::NeighborSolicitation(solicitation)) => {
            solicitation.target == GATEWAY && solicitation.source == link_local
        }
        _ => false,
    };
    assert!(passed(&wire).iter().any(asks));

    lab.gw.run(&format!("ip addr del {GATEWAY}/64 dev eth0"));
    lab.rtr.flush_neighbors();
    let (code, lines) = check(&lab.rtr, PROVE);
    assert_eq!(code, 2, "{lines:#?}");
    let silent = format!("problem the gateway {GATEWAY} does not answer Neighbor Solicitations");
    assert!(proven(&lines).starts_with(&silent), "{lines:#?}");
}

fn a_running_instance_is_not_disturbed() {
    let lab = Lab::new().with_socket_in_folder();
    let mldproxy = start_proxying(&lab, &[]);
    expect_joined(&lab, &[LAN_HOST]);
    let (code, lines) = check(&lab.rtr, "--prove");
    let found = proven(&lines);
    assert!(
        found.starts_with("ok the gateway's side snoops MLD: 0 solicitations "),
        "{lines:#?}"
    );
    assert!(
        found.ends_with(" so mldproxy is what you need, and it runs"),
        "{lines:#?}"
    );
    assert_eq!(code, 0, "{lines:#?}");
    expect_joined(&lab, &[LAN_HOST]);
    assert_eq!(proxied(&lab), [LAN_HOST]);
    let status = lab.rtr.status("--json");
    for address in announced(&lines) {
        assert!(
            !status.contains(&address.to_string()),
            "{address} in {status}"
        );
        let group = solicited_node(address).to_string();
        assert!(!status.contains(&group), "{group} in {status}");
        let log = mldproxy.log();
        assert!(!log.contains(&format!("joined {group}")), "{log}");
    }
    let complains = |line: &String| line.starts_with("warn") || line.starts_with("error");
    assert!(
        !mldproxy.lines().iter().any(complains),
        "{}",
        mldproxy.log()
    );
    assert!(mldproxy.is_running());
}

fn a_signal_in_the_middle_leaves_nothing() {
    let lab = Lab::new();
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let before = lab.rtr.joined(UPSTREAM);
        let proof = lab
            .rtr
            .spawn(Command::new(BINARY).args(["check", "--prove", UPSTREAM]));
        eventually("the group is joined", SOON, || {
            lab.rtr.joined(UPSTREAM) != before
        });
        proof.signal(signal);
        assert!(!proof.wait(SOON).success());
        assert!(
            findings(&proof.lines(), "prove").is_empty(),
            "{}",
            proof.log()
        );
        let [_, joined] = announced(&proof.lines());
        eventually("nothing is left", SOON, || {
            lab.rtr.joined(UPSTREAM) == before
        });
        let group = solicited_node(joined);
        eventually("the switch knows", SOON, || !lab.mdb().contains(&group));
    }
}

fn a_terminal_shows_how_far_it_is() {
    let lab = Lab::new();
    let (shown, text) = on_a_terminal(&lab.rtr, PROVE);
    for part in [
        "before joining: 1 of 3 echo requests, 0 ",
        "after joining: 3 of 3 echo ",
    ] {
        assert!(shown.contains(part), "no {part:?} in {shown:?}");
    }
    assert!(
        shown.ends_with("\r\x1b[K"),
        "the line is cleared: {shown:?}"
    );
    assert!(
        !text.contains('\x1b') && !text.contains("of 3 echo requests, "),
        "{text}"
    );
}

fn json_has_the_finding_and_the_counts() {
    let lab = Lab::new();
    let json = lab.rtr.try_run(&format!("{BINARY} check --json {PROVE}"));
    assert_eq!(json.status.code(), Some(2));
    assert!(json.stderr.is_empty(), "{json:?}");
    let text = String::from_utf8(json.stdout).expect("UTF-8");
    let script = "import json, sys\n\
        answer = json.loads(sys.argv[1])\n\
        assert list(answer) == ['findings', 'proof', 'exit'], answer\n\
        assert answer['exit'] == 2, answer\n\
        found = [f for f in answer['findings'] if f['check'] == 'prove']\n\
        assert len(found) == 1 and found[0]['state'] == 'problem', answer\n\
        proof = answer['proof']\n\
        assert proof['verdict'] == 'snoops' and proof['gateway'] == '2001:db8:1::1', proof\n\
        assert proof['prefix'] == '2001:db8:1::/64', proof\n\
        before, after = proof['before'], proof['after']\n\
        assert before['address'] != after['address'], proof\n\
        assert before['requests'] == after['requests'] == 3, proof\n\
        assert before['solicitations'] == 0 < after['solicitations'], proof\n\
        assert before['replies'] == after['replies'] == 0, proof\n";
    let python = find_tool("python3").expect("python3");
    let read = Command::new(python).args(["-c", script, &text]).output();
    let read = read.expect("python3 starts");
    assert!(
        read.status.success(),
        "{text}\n{}",
        String::from_utf8_lossy(&read.stderr)
    );
}
