//! What `mldproxy status` tells of streams.

use std::fs;
use std::net::Ipv6Addr;
use std::time::Duration;

use protocol::wire::RecordType;

use crate::lab::{
    DOWNSTREAM, QUERIER, QuerySaid, Receiver, Record, SOURCE, Speaker, StreamLab, StreamOptions,
    TableOwner, UPSTREAM, eventually,
};
use crate::status::{PROMTOOL, SCHEMA, judge};
use crate::support::{SOON, UNLIMITED, querier};

use super::scale::report;
use super::{
    CALM, any_source, expect_to, guest_receiver, lan_receiver, source_specific, start,
    upstream_sender,
};

crate::tests![
    the_text_tells_what_the_kernel_counts,
    a_stream_that_is_left_is_leaving_until_nobody_answers,
    another_querier_is_named_and_ends_the_forwarding,
    an_older_querier_upstream_is_named,
    a_table_of_another_program_and_a_number_that_is_too_high_are_told,
    an_answer_of_all_streams_has_each_of_them_once;
    json_with_streams_is_of_its_schema needs [SCHEMA],
    promtool_accepts_the_metrics_of_streams needs [PROMTOOL],
];

const LOWER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
/// A group that stays at home.
const AT_HOME: Ipv6Addr = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, 0xfb);

/// Waits until the status has all these parts.
#[track_caller]
fn expect(home: &StreamLab, options: &str, parts: &[&str]) {
    let mut status = String::new();
    eventually(&format!("{parts:?}"), SOON, || {
        status = home.lab.rtr.status(options);
        parts.iter().all(|part| status.contains(part))
    });
    for line in status.lines().filter(|_| options.is_empty()) {
        assert!(line.chars().count() <= 80, "{line:?}");
    }
}

fn the_text_tells_what_the_kernel_counts() {
    let home = StreamLab::new();
    let _mldproxy = start(&home, &[]);
    let group = source_specific(1);
    let on_lan = lan_receiver(&home, group);
    let both = [&home.listeners[0], &home.guest];
    let _at_home = both.map(|host| Receiver::of_any(host, "eth0", AT_HOME));
    expect_to(&home, group, &[DOWNSTREAM]);
    let numbers = upstream_sender(&home, group).send(1_234, CALM);
    on_lan.expect_all(SOURCE, numbers, SOON);
    expect(
        &home,
        "",
        &[
            "multicast   2 groups, 1 joined upstream, 2 streams\n",
            "            br-lan          querier (MLDv2), next query in ",
            ", 2 groups\n",
            "            guest           querier (MLDv2), next query in ",
            "\nff3e::4000:1                joined, 1 source\n 2001:db8:1::10             include ",
            "       1,234    ",
            " s  wan > br-lan\n",
            "\nff05::fb                    stays at home (--scope)\n *                          \
             exclude ",
            "           0      -  home > br-lan\n",
        ],
    );
}

fn a_stream_that_is_left_is_leaving_until_nobody_answers() {
    let home = StreamLab::new();
    let options = ["--robustness", "7", "--last-listener-interval", "25"];
    let _mldproxy = start(&home, &options);
    let group = source_specific(1);
    let on_lan = lan_receiver(&home, group);
    expect(
        &home,
        "--json",
        &["\"mode\":\"include\",\"expires_s\":", "\"leaving\":false"],
    );
    on_lan.leave();
    expect(
        &home,
        "--json",
        &["\"mode\":\"include\",\"expires_s\":17", "\"leaving\":true"],
    );
    expect(&home, "", &["\n 2001:db8:1::10             leaving   17"]);
}

fn another_querier_is_named_and_ends_the_forwarding() {
    let home = StreamLab::new();
    let _mldproxy = start(&home, &[]);
    let group = source_specific(1);
    let _receivers = (lan_receiver(&home, group), guest_receiver(&home, group));
    expect(&home, "", &["wan > br-lan\n", "  guest\n"]);
    let rival = Speaker::new(&home.guest, "eth0", LOWER);
    rival.queries(&QuerySaid::general(Duration::from_secs(125)));
    expect(
        &home,
        "",
        &[
            "            guest           other querier (MLDv2), 1 group, not forwarding\n",
            "                            fe80::1, gone in 25",
            "wan > br-lan\n\n",
        ],
    );
    expect(
        &home,
        "--json",
        &[
            "\"interface\":\"guest\",\"role\":\"other\",\"querier\":\"fe80::1\"",
            "\"forwarding\":false",
            &format!("\"role\":\"querier\",\"querier\":\"{QUERIER}\""),
        ],
    );
}

fn an_older_querier_upstream_is_named() {
    let home = StreamLab::with(&StreamOptions {
        upstream_querier: Some(1),
        ..StreamOptions::default()
    });
    let _mldproxy = start(&home, &[]);
    let _receiver = lan_receiver(&home, source_specific(1));
    eventually("the version is known", SOON, || {
        querier(&home.lab, true);
        home.lab.rtr.status("").contains("MLDv1 in force")
    });
    expect(
        &home,
        "",
        &[
            " upstream: SSM cannot work;\n            --mld-version 2 forces MLDv2\n",
            "            MLDv1 querier fe80::",
            "\nff3e::4000:1                not joined: MLDv1 upstream\n",
        ],
    );
    expect(
        &home,
        "--json",
        &["\"ssm_impossible\":true", "\"membership\":\"mldv1\""],
    );
}

fn a_table_of_another_program_and_a_number_that_is_too_high_are_told() {
    let home = StreamLab::with(&StreamOptions {
        guest_index: 70_000,
        ..StreamOptions::default()
    });
    let owner = TableOwner::new(&home.lab.rtr).expect("nobody owns the table");
    let mldproxy = start(&home, &[]);
    let _receiver = lan_receiver(&home, source_specific(1));
    expect(
        &home,
        "",
        &[
            "            no stream is forwarded: another program owns the multicast routing\n",
            "  not forwarded\n",
        ],
    );
    expect(
        &home,
        "--json",
        &["\"table\":\"in_use\"", "\"installed\":false"],
    );
    drop(owner);
    drop(mldproxy);
    let _mldproxy = start(&home, &[]);
    expect(
        &home,
        "",
        &["            no stream: its number 70000 is above 65535; create it anew\n"],
    );
    expect(
        &home,
        "--json",
        &[
            "\"table\":\"owned\"",
            "\"taken\":false,\"forwarding\":false",
        ],
    );
}

/// An answer in many parts, while streams come and go.
fn an_answer_of_all_streams_has_each_of_them_once() {
    let home = StreamLab::new();
    let options = [
        UNLIMITED,
        &["--max-groups", "4096", "--last-listener-interval", "0.1"],
    ];
    let _mldproxy = start(&home, &options.concat());
    let listens = |group| Record::new(RecordType::ChangeToExclude, group, &[]);
    let records: Vec<_> = (0..4_000)
        .map(|number| listens(any_source(number)))
        .collect();
    report(&home, &records, 32);
    expect(&home, "--json --limit 0", &["\"streams\":{\"count\":4000,"]);
    for round in 0..5 {
        let others: Vec<_> = (4_000..4_032)
            .map(|number| listens(any_source(number)))
            .collect();
        let leaves = |record: &Record| Record::new(RecordType::ChangeToInclude, record.group, &[]);
        let left: Vec<_> = others.iter().map(leaves).collect();
        let json = std::thread::scope(|scope| {
            let asked = scope.spawn(|| home.lab.rtr.status("--json"));
            report(&home, if round % 2 == 0 { &others } else { &left }, 32);
            asked.join().expect("an answer")
        });
        for number in 0..4_000 {
            let row = format!("{{\"group\":\"{}\",\"source\":null,", any_source(number));
            assert_eq!(json.matches(&row).count(), 1, "{row}");
        }
    }
    let text = home.lab.rtr.status("--limit 7");
    assert_eq!(text.matches("any > br-lan\n").count(), 7, "{text}");
}

fn json_with_streams_is_of_its_schema() {
    let home = StreamLab::with(&StreamOptions {
        listeners: 2,
        ..StreamOptions::default()
    });
    let _mldproxy = start(&home, &[UNLIMITED, &["--max-groups", "500"]].concat());
    let old = &home.listeners[1];
    old.sysctl("net.ipv6.conf.eth0.force_mld_version", "1");
    let _receivers = [
        lan_receiver(&home, source_specific(1)),
        guest_receiver(&home, source_specific(1)),
        Receiver::of_any(old, "eth0", any_source(2)),
        Receiver::of_any(&home.guest, "eth0", AT_HOME),
    ];
    Speaker::new(&home.guest, "eth0", LOWER).reports(
        RecordType::ChangeToExclude,
        any_source(3),
        &[SOURCE],
    );
    let rival = Speaker::new(&home.guest, "eth0", LOWER);
    rival.queries(&QuerySaid::general(Duration::from_secs(125)));
    expect(
        &home,
        "--json",
        &[
            "\"mode\":\"include\"",
            "\"mode\":\"exclude\"",
            "\"mode\":\"excluded\",\"expires_s\":null",
            "\"membership\":\"at_home\"",
            "\"role\":\"other\"",
            "\"older_host_s\":2",
        ],
    );
    let records: Vec<_> = (10..410)
        .map(|number| Record::new(RecordType::ChangeToExclude, any_source(number), &[]))
        .collect();
    report(&home, &records, 32);
    expect(&home, "--json", &["\"streams\":{\"count\":40"]);
    let schema = concat!(env!("CARGO_MANIFEST_DIR"), "/dist/status.schema.json");
    let file = format!("{}.json", home.lab.rtr.control_socket);
    fs::write(&file, home.lab.rtr.status("--json")).unwrap();
    let judged = judge("jsonschema", &["-i", &file, schema], "");
    fs::remove_file(&file).unwrap();
    assert_eq!(judged, Ok(()));
    // The part that the plugin for rpcd passes on fits ubus even if each entry is longer.
    let json = home.lab.rtr.status("--json --limit 300");
    let (_, part) = json.split_once("\"streams\":").unwrap();
    let (part, _) = part.split_once("]}},").unwrap();
    assert!(part.len() + 400 * 300 < 256 * 1024, "{}", part.len());
}

fn promtool_accepts_the_metrics_of_streams() {
    let home = StreamLab::new();
    let _mldproxy = start(&home, &[]);
    let group = source_specific(1);
    let on_lan = lan_receiver(&home, group);
    let _other = Receiver::of_any(&home.guest, "eth0", any_source(2));
    expect_to(&home, group, &[DOWNSTREAM]);
    let numbers = upstream_sender(&home, group).send(50, CALM);
    on_lan.expect_all(SOURCE, numbers, SOON);
    expect(&home, "--metrics", &["group=\"ff0e::4000:2\""]);
    let metrics = home.lab.rtr.status("--metrics");
    assert_eq!(
        judge("promtool", &["check", "metrics"], &metrics),
        Ok(()),
        "{metrics}"
    );
    for expected in [
        "mldproxy_stream_packets_total{upstream=\"wan\",group=\"ff3e::4000:1\",\
         source=\"2001:db8:1::10\"} 50\n",
        // Of 40 octets of IPv6, 8 of UDP and 8 of a number.
        "mldproxy_stream_octets_total{upstream=\"wan\",group=\"ff3e::4000:1\",\
         source=\"2001:db8:1::10\"} 2800\n",
        "mldproxy_stream_packets_total{upstream=\"wan\",group=\"ff0e::4000:2\",source=\"any\"} 0\n",
        "mldproxy_streams{upstream=\"wan\"} 2\n",
        "mldproxy_streams_packets{upstream=\"wan\"} 50\n",
        "mldproxy_streams_left_out{upstream=\"wan\"} 0\n",
        "mldproxy_downstream_multicast{upstream=\"wan\",downstream=\"guest\",\
         state=\"querier\"} 1\n",
        &format!("mldproxy_forwarding_table_owned{{upstream=\"{UPSTREAM}\"}} 1\n"),
    ] {
        assert!(metrics.contains(expected), "{expected:?} in:\n{metrics}");
    }
}
