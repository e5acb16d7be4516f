//! The NDP proxy: the kernel's tables follow the confirmed addresses, and hosts find targets on
//! other links.

use std::collections::HashSet;
use std::net::Ipv6Addr;
use std::ops::Range;

use model::view;
use protocol::counters::Counter;
use protocol::engine::{Action, Event, Reason};
use protocol::link::Link;
use protocol::link::Side;
use protocol::ndp;
use protocol::ndp::contests::NUDGE_AFTER;
use protocol::ndp::kernel_entries::{
    ANNOUNCEMENT_PACE, ANNOUNCEMENTS, CAPACITY, KernelTable, Listing, Place, RETRY_INTERVAL,
};
use protocol::ndp::targets::{
    ABSENT_INTERVAL, ANSWER_INTERVAL, ASKS, BURST, MAX_ANSWERS, MAX_OPEN, MAX_OPEN_OF_HOST,
    REACHABLE_INTERVAL,
};
use protocol::time::Duration;
use protocol::wire::{ALL_NODES, MacAddress, RecordType};

use crate::stage::{
    GATEWAY, HOST, LINK_LOCAL, ROUTER, Stage, UPSTREAM, address, advertisement, downstream_link,
    group, heard, report, solicitation, twin,
};

const OTHER: MacAddress = MacAddress([2, 0, 0, 0, 0, 2]);
/// A target on the upstream's link.
const BESIDE: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1);

impl Stage {
    fn proxying() -> Self {
        Stage::with(|config| {
            config.ndp_proxy = true;
            config.host_routes = true;
        })
    }

    /// A host on a downstream has an address, and answers when the engine probes it.
    fn confirmed(&mut self, port: u8, mac: MacAddress, address: Ipv6Addr) {
        self.solicits(port, mac, address, LINK_LOCAL);
        // The question may have to wait for its turn.
        self.pass(1);
        let advertisement = advertisement(address, ROUTER, address);
        self.receive_on(port, mac, &advertisement);
    }

    /// A host looks for a target from an address. From `::` it detects duplicates.
    fn solicits(&mut self, port: u8, mac: MacAddress, source: Ipv6Addr, target: Ipv6Addr) {
        self.receive_on(port, mac, &solicitation(source, target));
    }

    fn detects_duplicates(&mut self, port: u8, mac: MacAddress, target: Ipv6Addr) {
        self.solicits(port, mac, Ipv6Addr::UNSPECIFIED, target);
    }

    fn advertised_upstream(&mut self, mac: MacAddress, target: Ipv6Addr) {
        let packet = advertisement(target, LINK_LOCAL, target);
        let packet = &packet;
        self.handle(heard(Side::Upstream, mac, packet));
    }

    /// A host with `address(9)` looks for [`BESIDE`], and the engine finds it upstream.
    fn finds_beside(&mut self) {
        self.solicits(0, OTHER, address(9), BESIDE);
        self.advertised_upstream(GATEWAY, BESIDE);
        self.sent();
    }

    /// The kernel lists a table as it is.
    fn list(&mut self, table: KernelTable) {
        self.handle(Event::Listed(table, Listing::Begins));
        for (address, side) in self.kernel.listing(table) {
            self.handle(Event::Listed(table, Listing::Has(address, side)));
        }
        self.handle(Event::Listed(table, Listing::Ends));
    }

    fn routes(&self) -> Vec<(Ipv6Addr, Side)> {
        self.kernel.listing(KernelTable::Routes)
    }
}

#[test]
fn the_kernel_answers_for_a_confirmed_address_and_no_other_until_it_expires() {
    let mut stage = Stage::proxying();
    stage.solicits(0, HOST, address(1), LINK_LOCAL);
    assert_eq!(stage.addresses(), [address(1)].into());
    assert!(
        stage.kernel.proxies.is_empty(),
        "nobody has answered for it"
    );
    stage.confirmed(0, HOST, address(1));
    assert_eq!(stage.kernel.proxies, [address(1)].into());
    assert_eq!(stage.routes(), [(address(1), Side::Downstream(0))]);
    stage.pass(400);
    assert!(stage.kernel.proxies.is_empty() && stage.kernel.routes.is_empty());
    assert_eq!(stage.engine.ndp().kernel_entries().iter().count(), 0);
}

#[test]
fn without_the_options_the_kernels_tables_are_left_alone() {
    let mut stage = Stage::with_defaults();
    stage.confirmed(0, HOST, address(1));
    stage.solicits(0, HOST, address(1), BESIDE);
    assert!(stage.kernel.proxies.is_empty() && stage.kernel.routes.is_empty());
    assert_eq!(stage.sent(), [""; 0]);
    // What an earlier process left in them is removed nonetheless.
    stage.kernel.leave_proxy(address(7));
    stage.list(KernelTable::Proxies);
    assert!(stage.kernel.proxies.is_empty());
}

#[test]
fn what_somebody_removes_is_added_again_where_it_is_wanted() {
    let mut stage = Stage::proxying();
    stage.confirmed(0, HOST, address(1));
    let both = |stage: &Stage| (stage.kernel.proxies.len(), stage.kernel.routes.len());
    assert_eq!(both(&stage), (1, 1));
    stage.handle(Event::Removed(
        KernelTable::Proxies,
        address(1),
        Side::Upstream,
    ));
    assert_eq!(both(&stage), (1, 1));
    // The route goes elsewhere, and the one that went there before was removed for it.
    stage.handle(Event::Removed(
        KernelTable::Routes,
        address(1),
        Side::Downstream(1),
    ));
    stage.handle(Event::Removed(
        KernelTable::Routes,
        address(1),
        Side::Downstream(0),
    ));
    assert_eq!(both(&stage), (1, 1));
    // Nobody here wants this entry.
    stage.handle(Event::Removed(
        KernelTable::Proxies,
        address(2),
        Side::Upstream,
    ));
    assert_eq!(both(&stage), (1, 1));
}

#[test]
fn each_option_does_its_own_part_alone() {
    let options = [
        [true, false, false],
        [false, true, false],
        [false, false, true],
        [false; 3],
    ];
    for [ndp_proxy, host_routes, announce] in options {
        let mut stage = Stage::with(|config| {
            config.ndp_proxy = ndp_proxy;
            config.host_routes = host_routes;
            config.announce = announce;
        });
        stage.confirmed(0, HOST, address(1));
        stage.pass(10);
        let kept = stage.engine.ndp().kernel_entries().iter().count() == 1;
        let done = [
            !stage.kernel.proxies.is_empty(),
            !stage.kernel.routes.is_empty(),
            !stage.sent().is_empty(),
        ];
        assert_eq!(done, [ndp_proxy, host_routes, announce]);
        assert_eq!(kept, ndp_proxy || host_routes || announce);
    }
}

#[test]
fn a_listing_brings_back_what_is_missing_and_removes_what_was_left_behind() {
    let mut stage = Stage::proxying();
    stage.confirmed(0, HOST, address(1));
    stage.confirmed(1, OTHER, address(2));
    // The upstream's link went down and up.
    for number in [1, 2] {
        stage.kernel.lose(KernelTable::Proxies, address(number));
    }
    stage.kernel.lose(KernelTable::Routes, address(2));
    stage.kernel.leave_proxy(address(7));
    stage.kernel.leave_route(address(8), Side::Downstream(1));
    stage.list(KernelTable::Proxies);
    assert_eq!(stage.kernel.proxies, [address(1), address(2)].into());
    stage.list(KernelTable::Routes);
    let both = [
        (address(1), Side::Downstream(0)),
        (address(2), Side::Downstream(1)),
    ];
    assert_eq!(stage.routes(), both);
    assert_eq!(stage.engine.ndp().kernel_entries().iter().count(), 2);
    // A route that is as it should be changes nothing.
    stage.list(KernelTable::Routes);
    assert_eq!(stage.count(Counter::RouteAdded), 3);
}

#[test]
fn what_is_listed_of_one_table_tells_nothing_of_the_other() {
    let mut stage = Stage::proxying();
    stage.confirmed(0, HOST, address(1));
    let list = |stage: &mut Stage, table, listing| stage.handle(Event::Listed(table, listing));
    let (proxies, routes) = (KernelTable::Proxies, KernelTable::Routes);
    list(&mut stage, proxies, Listing::Begins);
    let entry = Listing::Has(address(1), Side::Upstream);
    list(&mut stage, proxies, entry);
    list(&mut stage, routes, Listing::Begins);
    list(&mut stage, proxies, Listing::Ends);
    assert_eq!(
        stage.count(Counter::ProxyAdded),
        1,
        "the proxy entry was listed"
    );
    // The kernel loses both and tells nobody. The engine finds that the route is missing and adds
    // it meanwhile.
    stage.kernel.lose_all();
    list(&mut stage, proxies, Listing::Begins);
    list(&mut stage, routes, Listing::Ends);
    assert_eq!(stage.count(Counter::RouteAdded), 2);
    list(&mut stage, proxies, Listing::Ends);
    assert_eq!(stage.kernel.proxies, [address(1)].into());
}

#[test]
fn what_a_killed_process_left_for_a_host_that_is_known_stays_until_that_expires() {
    let mut stage = Stage::proxying();
    for number in [1, 2] {
        stage.handle(Event::Remembered {
            port: 0,
            mac: HOST,
            address: address(number),
        });
    }
    assert!(
        stage.kernel.proxies.is_empty(),
        "nobody has answered for them"
    );
    for number in [1, 2, 3] {
        stage.kernel.leave_proxy(address(number));
    }
    stage.list(KernelTable::Proxies);
    assert_eq!(stage.kernel.proxies, [address(1), address(2)].into());
    // A target that was found upstream is not where its neighbor entry says.
    stage.handle(Event::Remembered {
        port: 0,
        mac: OTHER,
        address: BESIDE,
    });
    stage.kernel.leave_route(BESIDE, Side::Upstream);
    stage.list(KernelTable::Routes);
    let kept = [1, 2].map(|number| (address(number), Side::Downstream(0)));
    assert_eq!(stage.routes(), kept);
    stage.confirmed(0, HOST, address(1));
    assert_eq!(
        stage.count(Counter::ProxyAdded),
        0,
        "the proxy entry was there"
    );
    stage.pass(400);
    assert!(stage.kernel.proxies.is_empty() && stage.kernel.routes.is_empty());
}

#[test]
fn who_is_left_out_of_a_full_table_is_counted_and_has_its_turn_once_there_is_room() {
    let mut stage = Stage::proxying();
    // What a crash left takes all the room, and cannot be removed for a while.
    let has: Vec<_> = (100..100 + CAPACITY as u32)
        .map(|number| (address(number), Side::Upstream))
        .collect();
    for (address, _) in &has {
        stage.kernel.leave_proxy(*address);
    }
    stage.fail_if(|action| matches!(action, Action::Ndp(ndp::Action::Kernel(_))));
    stage.list(KernelTable::Proxies);
    assert_eq!(stage.count(Counter::RefusedProxy), 0);
    for number in 1..=3 {
        stage.confirmed(0, HOST, address(number));
    }
    assert_eq!(stage.count(Counter::RefusedProxy), 3);
    stage.fail_if(|_| false);
    stage.pass(2 * RETRY_INTERVAL.as_secs());
    let wanted = [1, 2, 3].map(|number| (address(number), Side::Downstream(0)));
    assert_eq!(stage.routes(), wanted);
    assert_eq!(
        stage.kernel.proxies,
        wanted.map(|(address, _)| address).into()
    );
}

#[test]
fn of_more_leftovers_than_there_is_room_for_the_rest_is_removed_after_a_later_listing() {
    let mut stage = Stage::with_defaults();
    let has: Vec<_> = (0..CAPACITY as u32 + 3)
        .map(|number| (address(number), Side::Upstream))
        .collect();
    for (address, _) in &has {
        stage.kernel.leave_proxy(*address);
    }
    stage.fail_if(|action| matches!(action, Action::Ndp(ndp::Action::Kernel(_))));
    stage.list(KernelTable::Proxies);
    assert_eq!(stage.kernel.proxies.len(), has.len());
    stage.fail_if(|_| false);
    stage.pass(RETRY_INTERVAL.as_secs());
    assert_eq!(stage.kernel.proxies.len(), 3);
    assert_eq!(stage.count(Counter::RefusedProxy), 3);
    stage.list(KernelTable::Proxies);
    assert!(stage.kernel.proxies.is_empty());
    assert_eq!(stage.engine.ndp().kernel_entries().iter().count(), 0);
}

#[test]
fn what_is_listed_of_a_host_that_answered_is_not_what_was_left_behind() {
    let mut stage = Stage::with(|config| {
        config.ndp_proxy = true;
        config.host_routes = true;
        config.announce = true;
    });
    stage.confirmed(0, HOST, address(1));
    stage.pass(10);
    assert_eq!(stage.sent().len(), usize::from(ANNOUNCEMENTS));
    stage.list(KernelTable::Proxies);
    stage.list(KernelTable::Routes);
    let proxied = *stage.engine.ndp().kernel_entries().get(address(1)).unwrap();
    assert!(proxied.proxied);
    let side = Side::Downstream(0);
    assert_eq!(proxied.place, Place::At(side));
    assert_eq!(proxied.routed, Some(side));
    // The host moves. It is not announced anew, since its entry was there.
    stage.takes_over(1, HOST, address(1));
    stage.pass(10);
    assert_eq!(stage.routes(), [(address(1), Side::Downstream(1))]);
    assert!(!stage.sent().iter().any(|line| line.starts_with("wan ")));
    assert_eq!(stage.engine.ndp().kernel_entries().get(address(2)), None);
}

#[test]
fn a_host_that_answers_by_mld_is_answered_for_and_one_that_merely_reports_keeps_what_was_left() {
    let mut stage = Stage::proxying();
    let fe80_1 = "fe80::1:1".parse().unwrap();
    let (port, mac) = (0, HOST);
    let listens = report(fe80_1, &[(RecordType::ModeIsExclude, group(1))]);
    stage.handle(Event::Remembered {
        port,
        mac,
        address: address(1),
    });
    stage.kernel.leave_proxy(address(1));
    stage.list(KernelTable::Proxies);
    // The engine probed the host, but did not ask what it listens to.
    stage.receive(&listens);
    assert_eq!(stage.kernel.proxies, [address(1)].into());
    let kept = |stage: &Stage| {
        let entries = stage.engine.ndp().kernel_entries();
        entries.get(address(1)).unwrap().place == Place::Kept(Side::Downstream(0))
    };
    assert!(kept(&stage));
    stage.receive(&advertisement(address(1), ROUTER, address(1)));
    assert!(!kept(&stage));
    assert_eq!(stage.kernel.proxies, [address(1)].into());

    let mut stage = Stage::proxying();
    stage.solicits(0, HOST, fe80_1, ROUTER);
    stage.solicits(0, HOST, address(1), LINK_LOCAL);
    assert!(stage.kernel.proxies.is_empty());
    stage.receive(&listens);
    assert_eq!(stage.kernel.proxies, [address(1)].into());
    assert_eq!(stage.routes(), [(address(1), Side::Downstream(0))]);
}

#[test]
fn another_upstream_gets_all_entries_anew_and_no_upstream_none() {
    let mut stage = Stage::proxying();
    stage.confirmed(0, HOST, address(1));
    stage.finds_beside();
    assert_eq!(stage.kernel.routes.get(&BESIDE), Some(&Side::Upstream));
    // The kernel drops what it held on that interface.
    stage.upstream(None);
    stage.confirmed(0, OTHER, address(2));
    assert!(stage.kernel.proxies.is_empty());
    stage.upstream(Some(Link {
        index: 8,
        ..UPSTREAM
    }));
    assert_eq!(stage.kernel.proxies, [address(1), address(2)].into());
    assert_eq!(stage.kernel.routes.get(&BESIDE), Some(&Side::Upstream));
}

#[test]
fn what_fails_is_tried_again_and_holds_up_nothing_else() {
    let mut stage = Stage::proxying();
    stage.fail_if(|action| {
        matches!(action, Action::Ndp(ndp::Action::Kernel(change)) if change.address == address(1))
    });
    stage.confirmed(0, HOST, address(1));
    stage.confirmed(0, HOST, address(2));
    assert_eq!(stage.kernel.proxies, [address(2)].into());
    assert_eq!(stage.count(Counter::KernelTableFailed), 2);
    let failing = |stage: &Stage| {
        [KernelTable::Proxies, KernelTable::Routes]
            .map(|table| stage.engine.ndp().kernel_entries().is_failing(table))
    };
    assert_eq!(failing(&stage), [true, true]);
    stage.fail_if(|_| false);
    stage.pass(RETRY_INTERVAL.as_secs());
    assert_eq!(failing(&stage), [false, false]);
    assert_eq!(stage.kernel.proxies, [address(1), address(2)].into());
    assert_eq!(stage.kernel.routes.len(), 2);
}

#[test]
fn a_route_waits_for_its_downstream_and_is_there_as_soon_as_that_is() {
    let mut stage = Stage::proxying();
    stage.confirmed(1, OTHER, address(1));
    stage.handle(Event::Link(Side::Downstream(1), None));
    stage.list(KernelTable::Routes);
    assert!(stage.kernel.routes.is_empty());
    stage.pass(1);
    let downstream = Some(downstream_link(1));
    stage.handle(Event::Link(Side::Downstream(1), downstream));
    assert_eq!(stage.routes(), [(address(1), Side::Downstream(1))]);
    // When the engine is told of an upstream, it tries again what failed.
    stage.fail_if(|action| matches!(action, Action::Ndp(ndp::Action::Kernel(_))));
    stage.confirmed(1, OTHER, address(2));
    stage.fail_if(|_| false);
    stage.upstream(Some(UPSTREAM));
    assert_eq!(stage.kernel.proxies, [address(1), address(2)].into());
}

#[test]
fn an_address_that_another_host_takes_over_is_answered_for_once_that_one_answers() {
    let mut stage = Stage::proxying();
    stage.confirmed(0, HOST, address(1));
    // The engine asks the host in vain.
    stage.pass(200);
    assert_eq!(stage.kernel.proxies, [address(1)].into());
    stage.takes_over(1, OTHER, address(1));
    assert_eq!(stage.routes(), [(address(1), Side::Downstream(1))]);
    assert_eq!(stage.kernel.proxies, [address(1)].into());
}

#[test]
fn a_host_that_moves_takes_its_entry_and_routes_along_and_is_no_duplicate_of_itself() {
    let mut stage = Stage::proxying();
    stage.confirmed(0, HOST, address(1));
    stage.confirmed(0, HOST, address(2));
    stage.pass(2);
    stage.sent();
    stage.detects_duplicates(1, HOST, address(1));
    let asked = [format!("lan0 ?{}", address(1))];
    assert_eq!(stage.sent(), asked, "the host is not answered");
    stage.pass_with(5, address(1), &[(1, HOST)]);
    let moved = [
        (address(1), Side::Downstream(1)),
        (address(2), Side::Downstream(0)),
    ];
    assert_eq!(stage.routes(), moved);
    assert_eq!(stage.kernel.proxies, [address(1), address(2)].into());
    // The engine asks the host on its new link. The host reports the groups that it brought along,
    // and answers for its address there alone.
    let fe80_1 = "fe80::1:1".parse().unwrap();
    stage.questions.clear();
    stage.solicits(1, HOST, fe80_1, ROUTER);
    let is_asked = |stage: &Stage| stage.questions.iter().any(|(_, text)| text == "?fe80::1:1");
    while !is_asked(&stage) {
        stage.pass(1);
    }
    let groups = [1, 2].map(|number| (RecordType::ModeIsExclude, group(number)));
    stage.receive_on(1, HOST, &report(fe80_1, &groups));
    stage.pass_with(5, address(2), &[(1, HOST)]);
    assert!(
        stage
            .kernel
            .routes
            .values()
            .all(|side| *side == Side::Downstream(1))
    );
}

#[test]
fn a_host_that_moved_is_asked_at_once_what_it_brought_along() {
    let mut stage = Stage::proxying();
    let fe80_1 = "fe80::1:1".parse().unwrap();
    stage.solicits(0, HOST, fe80_1, ROUTER);
    stage.confirmed(0, HOST, address(1));
    let groups = [(RecordType::ModeIsExclude, group(1))];
    stage.receive_on(0, HOST, &report(fe80_1, &groups));
    stage.pass(30);
    stage.questions.clear();
    stage.solicits(1, HOST, fe80_1, ROUTER);
    stage.pass(1);
    let asked: Vec<_> = stage
        .questions
        .iter()
        .map(|(_, question)| &**question)
        .collect();
    assert_eq!(asked, ["?fe80::1:1"]);
    stage.receive_on(1, HOST, &report(fe80_1, &groups));
    // There may be two machines, or one on both links. The engine looks for the address on the old
    // link and on the new one.
    assert_eq!(stage.routes(), [(address(1), Side::Downstream(0))]);
    stage.pass_with(5, address(1), &[(1, HOST)]);
    assert_eq!(stage.routes(), [(address(1), Side::Downstream(1))]);
}

/// The link-layer address of a host may be forged on another link, or be that of a second machine.
#[test]
fn a_host_that_is_said_to_have_moved_keeps_its_address_while_it_answers_where_it_is() {
    let mut stage = Stage::proxying();
    stage.confirmed(0, HOST, address(1));
    stage.pass(20);
    for _ in 0..30 {
        stage.solicits(1, HOST, address(1), ROUTER);
        stage.pass_with(1, address(1), &[(1, HOST), (0, HOST)]);
        assert_eq!(stage.routes(), [(address(1), Side::Downstream(0))]);
    }
    assert_eq!(stage.kernel.proxies, [address(1)].into());
    // A host that did move is where it answers.
    stage.takes_over(1, HOST, address(1));
    assert_eq!(stage.routes(), [(address(1), Side::Downstream(1))]);
}

/// A server on two VLANs, or a hypervisor, has one link-layer address on both. Each of its
/// addresses stays on its link, though those of one link are silent while the server speaks on the
/// other.
#[test]
fn one_link_layer_address_on_two_links_is_two_hosts() {
    for mac in [HOST, MacAddress([0; 6])] {
        let mut stage = Stage::proxying();
        let link_local = |port: u8| Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0x10, port.into());
        let number = |port: u8| 1 + u32::from(port);
        for port in [0, 1] {
            stage.solicits(port, mac, link_local(port), ROUTER);
            stage.confirmed(port, mac, address(number(port)));
            let records = [(RecordType::ModeIsExclude, group(number(port)))];
            stage.receive_on(port, mac, &report(link_local(port), &records));
        }
        let places = [
            (address(1), Side::Downstream(0)),
            (address(2), Side::Downstream(1)),
        ];
        assert_eq!(stage.routes(), places);
        for second in 0..1000 {
            stage.pass(1);
            // On port 1 the server speaks all the time. On port 0 it answers only the questions
            // there.
            if second % 5 == 0 {
                stage.solicits(1, mac, link_local(1), ROUTER);
            }
            for (_, question) in std::mem::take(&mut stage.questions) {
                for port in [0, 1] {
                    if question == format!("?{}", link_local(port)) {
                        let records = [(RecordType::ModeIsExclude, group(number(port)))];
                        stage.receive_on(port, mac, &report(link_local(port), &records));
                    }
                }
            }
            assert_eq!(stage.routes(), places, "after {second} s");
            assert_eq!(stage.kernel.proxies, [address(1), address(2)].into());
        }
    }
}

/// On links without link-layer addresses all hosts have the same one. A claim elsewhere does not
/// show that a host moved.
#[test]
fn a_claim_on_another_link_without_link_layer_addresses_is_anothers() {
    let mut stage = Stage::proxying();
    let nobody = MacAddress([0; 6]);
    stage.confirmed(0, nobody, address(1));
    stage.pass(1);
    stage.solicits(1, nobody, address(1), ROUTER);
    stage.pass_with(2, address(1), &[(0, nobody)]);
    assert_eq!(stage.routes(), [(address(1), Side::Downstream(0))]);
    assert_eq!(stage.sent(), [format!("lan0 ?{}", address(1))]);
    stage.detects_duplicates(1, nobody, address(1));
    assert_eq!(stage.sent(), [format!("lan0 ?{}", address(1))]);
    stage.receive_on(0, nobody, &advertisement(address(1), ROUTER, address(1)));
    stage.sent();
    // Nobody can be asked by unicast there, so the next question waits for a second.
    stage.detects_duplicates(1, nobody, address(1));
    assert_eq!(stage.sent(), [""; 0]);
    stage.pass(1);
    assert_eq!(stage.sent(), [format!("lan0 ?{}", address(1))]);
}

#[test]
fn a_target_that_no_downstream_has_is_asked_for_once_and_answered_when_it_is_there() {
    let mut stage = Stage::proxying();
    for _ in 0..5 {
        stage.solicits(0, HOST, address(1), BESIDE);
    }
    assert_eq!(
        stage.sent(),
        [format!("wan ?{BESIDE}"), format!("lan1 ?{BESIDE}")]
    );
    stage.advertised_upstream(GATEWAY, BESIDE);
    assert_eq!(stage.sent(), [format!("lan0 !{BESIDE} to {}", address(1))]);
    assert_eq!(stage.routes(), [(BESIDE, Side::Upstream)]);
    assert!(!stage.kernel.proxies.contains(&BESIDE));
    stage.solicits(1, OTHER, address(2), BESIDE);
    assert_eq!(stage.sent(), [format!("lan1 !{BESIDE} to {}", address(2))]);
    let present: Vec<_> = stage
        .engine
        .ndp()
        .targets()
        .present_from(0)
        .map(|(_, address, _)| address)
        .collect();
    assert_eq!(present, [BESIDE]);
}

#[test]
fn a_target_that_does_not_answer_is_not_asked_for_again_for_thirty_seconds() {
    let mut stage = Stage::proxying();
    stage.solicits(0, HOST, address(1), BESIDE);
    assert_eq!(stage.sent().len(), 2);
    stage.pass(ANSWER_INTERVAL.as_secs());
    stage.solicits(0, HOST, address(1), BESIDE);
    stage.pass(ABSENT_INTERVAL.as_secs() - 1);
    stage.solicits(0, HOST, address(1), BESIDE);
    assert_eq!(stage.sent(), [""; 0]);
    stage.pass(1);
    stage.solicits(0, HOST, address(1), BESIDE);
    assert_eq!(stage.sent().len(), 2);
    // A late answer counts too.
    stage.pass(5);
    stage.advertised_upstream(GATEWAY, BESIDE);
    stage.solicits(0, HOST, address(1), BESIDE);
    assert_eq!(stage.sent(), [format!("lan0 !{BESIDE} to {}", address(1))]);
}

#[test]
fn a_target_that_does_not_answer_is_given_its_thirty_seconds_whatever_else_is_looked_for() {
    let mut stage = Stage::proxying();
    stage.solicits(0, HOST, address(1), BESIDE);
    stage.pass(5);
    stage.solicits(0, HOST, address(1), address(2));
    stage.pass(5);
    stage.sent();
    stage.solicits(0, HOST, address(1), BESIDE);
    assert_eq!(stage.sent(), [""; 0]);
    stage.pass(21);
    stage.solicits(0, HOST, address(1), BESIDE);
    assert_eq!(stage.sent().len(), 2);
}

#[test]
fn a_target_that_went_away_is_noticed_when_it_is_looked_for() {
    let mut stage = Stage::proxying();
    stage.finds_beside();
    stage.pass(REACHABLE_INTERVAL.as_secs());
    stage.solicits(0, HOST, address(1), BESIDE);
    let answer = format!("lan0 !{BESIDE} to {}", address(1));
    assert_eq!(stage.sent(), [answer.clone(), format!("wan ?{BESIDE}")]);
    stage.advertised_upstream(GATEWAY, BESIDE);
    stage.pass(REACHABLE_INTERVAL.as_secs());
    assert_eq!(stage.sent(), [""; 0], "nobody looks for the target");
    stage.solicits(0, HOST, address(1), BESIDE);
    stage.pass(u64::from(ASKS) * ANSWER_INTERVAL.as_secs());
    let sent = stage.sent();
    assert_eq!(sent.len(), 1 + usize::from(ASKS), "{sent:?}");
    assert!(stage.kernel.routes.is_empty());
    stage.solicits(0, HOST, address(1), BESIDE);
    assert_eq!(stage.sent(), [""; 0]);
}

#[test]
fn a_target_whose_answer_is_old_is_asked_once_however_many_look_for_it() {
    let mut stage = Stage::proxying();
    stage.finds_beside();
    stage.pass(REACHABLE_INTERVAL.as_secs());
    for _ in 0..5 {
        stage.solicits(0, HOST, address(1), BESIDE);
    }
    let sent = stage.sent();
    let asked = sent.iter().filter(|line| line.contains('?')).count();
    assert_eq!((sent.len(), asked), (6, 1), "{sent:?}");
}

/// RFC 4861 §7.3.1: only a solicited advertisement confirms. §7.2.5: an unsolicited one tells of
/// a target that was not known.
#[test]
fn an_unsolicited_advertisement_keeps_no_target_alive() {
    let mut stage = Stage::proxying();
    let unsolicited = advertisement(BESIDE, ALL_NODES, BESIDE);
    let unsolicited = heard(Side::Upstream, GATEWAY, &unsolicited);
    stage.solicits(0, HOST, address(1), BESIDE);
    stage.sent();
    stage.handle(unsolicited);
    assert_eq!(stage.sent(), [format!("lan0 !{BESIDE} to {}", address(1))]);
    stage.pass(REACHABLE_INTERVAL.as_secs());
    stage.solicits(0, HOST, address(1), BESIDE);
    for _ in 0..u64::from(ASKS) * ANSWER_INTERVAL.as_secs() {
        assert!(view::is_upstream(&stage.engine, BESIDE));
        stage.handle(unsolicited);
        stage.pass(1);
    }
    assert!(view::is_absent(&stage.engine, BESIDE));
    assert!(stage.kernel.routes.is_empty());
}

#[test]
fn a_target_that_nobody_looks_for_any_more_is_forgotten() {
    let mut stage = Stage::proxying();
    stage.finds_beside();
    stage.solicits(0, HOST, address(1), address(2));
    assert_eq!(stage.engine.ndp().targets().len(), 2);
    assert!(!stage.engine.ndp().targets().is_empty());
    stage.pass(300);
    assert!(stage.engine.ndp().targets().is_empty() && stage.kernel.routes.is_empty());
    assert_eq!(stage.engine.ndp().kernel_entries().iter().count(), 0);
}

#[test]
fn the_routers_own_addresses_and_those_outside_the_prefix_are_nobodys_targets() {
    let mut stage = Stage::proxying();
    stage.handle(Event::Own {
        prefix_length: 128,
        index: 1,
        address: BESIDE,
        present: true,
    });
    stage.solicits(0, HOST, address(1), BESIDE);
    stage.solicits(0, HOST, address(1), "fd00::1".parse().unwrap());
    stage.solicits(0, HOST, address(1), "fe80::77".parse().unwrap());
    stage.detects_duplicates(0, HOST, BESIDE);
    assert_eq!(stage.sent(), [""; 0]);
}

#[test]
fn what_becomes_the_routers_own_or_leaves_the_prefix_is_no_target_any_more() {
    let prefix = |text: &str| [text.parse().unwrap()];
    let mut stage = Stage::with(|config| {
        config.ndp_proxy = true;
        config.host_routes = true;
        config.upstream_prefixes = true;
    });
    stage.handle(Event::UpstreamPrefixes(&prefix("2001:db8:1::/64")));
    stage.finds_beside();
    stage.handle(Event::Own {
        prefix_length: 128,
        index: 1,
        address: BESIDE,
        present: true,
    });
    assert!(stage.kernel.routes.is_empty() && stage.engine.ndp().targets().is_empty());
    stage.handle(Event::Own {
        prefix_length: 128,
        index: 1,
        address: BESIDE,
        present: false,
    });
    stage.finds_beside();
    assert_eq!(stage.routes(), [(BESIDE, Side::Upstream)]);
    stage.handle(Event::UpstreamPrefixes(&prefix("2001:db8:2::/64")));
    assert!(stage.kernel.routes.is_empty() && stage.engine.ndp().targets().is_empty());
}

#[test]
fn downstreams_are_proxied_among_each_other() {
    let mut stage = Stage::proxying();
    stage.confirmed(0, HOST, address(1));
    stage.solicits(1, OTHER, address(2), address(1));
    assert_eq!(
        stage.sent(),
        [format!("lan1 !{} to {}", address(1), address(2))]
    );
    let mac = MacAddress([2, 0, 0, 0, 0, 3]);
    stage.solicits(0, mac, address(4), address(1));
    assert_eq!(
        stage.sent(),
        [""; 0],
        "on its own link the target answers itself"
    );
    // The engine asks there for a target that it never heard of, too, and learns it by its answer.
    stage.solicits(1, OTHER, address(2), address(3));
    assert_eq!(
        stage.sent(),
        [
            format!("wan ?{}", address(3)),
            format!("lan0 ?{}", address(3))
        ]
    );
    stage.receive_on(0, HOST, &advertisement(address(3), ROUTER, address(3)));
    assert_eq!(
        stage.sent(),
        [format!("lan1 !{} to {}", address(3), address(2))]
    );
    assert!(stage.addresses().contains(&address(3)));
}

#[test]
fn an_address_that_nobody_has_confirmed_is_not_answered_for_on_another_downstream() {
    let mut stage = Stage::proxying();
    stage.solicits(0, HOST, address(1), LINK_LOCAL);
    stage.solicits(1, OTHER, address(2), address(1));
    assert_eq!(stage.sent(), [""; 0]);
    stage.confirmed(0, HOST, address(1));
    stage.solicits(1, OTHER, address(2), address(1));
    assert_eq!(stage.sent().len(), 1);
    // Its own host gets no answer either, wherever that is now.
    stage.solicits(1, HOST, "fe80::1:1".parse().unwrap(), address(1));
    assert_eq!(stage.sent(), [""; 0]);
}

#[test]
fn who_listens_is_asked_for_upstream_only_by_the_ndp_proxy_and_for_no_own_address() {
    let asked = |ndp_proxy, own| {
        let mut stage = Stage::with(|config| {
            config.ndp_proxy = ndp_proxy;
            config.host_routes = true;
        });
        if own {
            let (address, present) = (address(1), true);
            stage.handle(Event::Own {
                prefix_length: 128,
                index: 1,
                address,
                present,
            });
        }
        let groups = [(RecordType::ModeIsExclude, group(1))];
        stage.receive(&report("fe80::1:1".parse().unwrap(), &groups));
        assert_eq!(stage.kernel.joined, [group(1)].into());
        let packet = solicitation(BESIDE, address(1));
        stage.handle(heard(Side::Upstream, GATEWAY, &packet));
        stage.sent().len()
    };
    assert_eq!(asked(true, false), 2);
    assert_eq!(asked(false, false), 0);
    assert_eq!(asked(true, true), 0);
}

#[test]
fn duplicates_are_detected_across_the_router_in_every_direction() {
    let mut stage = Stage::proxying();
    let defended = |port: u8, target| vec![format!("lan{port} !{target} to {ALL_NODES}")];
    // A known target upstream has the address, and answers.
    stage.finds_beside();
    stage.detects_duplicates(0, HOST, BESIDE);
    assert_eq!(stage.sent(), [format!("wan ?{BESIDE}")]);
    stage.advertised_upstream(GATEWAY, BESIDE);
    assert_eq!(stage.sent(), defended(0, BESIDE));
    assert!(!stage.addresses().contains(&BESIDE));
    // An unknown target upstream turns out to have the address.
    stage.detects_duplicates(0, HOST, address(5));
    assert!(stage.addresses().contains(&address(5)));
    assert_eq!(stage.sent().len(), 2);
    stage.advertised_upstream(GATEWAY, address(5));
    assert_eq!(stage.sent(), defended(0, address(5)));
    assert!(!stage.addresses().contains(&address(5)));
    assert!(stage.kernel.proxies.is_empty());
    // A known host on another downstream has the address, and answers.
    stage.confirmed(0, HOST, address(1));
    stage.pass(1);
    stage.detects_duplicates(1, OTHER, address(1));
    assert_eq!(stage.sent(), [format!("lan0 ?{}", address(1))]);
    stage.receive_on(0, HOST, &advertisement(address(1), ROUTER, address(1)));
    assert_eq!(stage.sent(), defended(1, address(1)));
    assert_eq!(stage.kernel.proxies, [address(1)].into());
    // An unknown host on another downstream turns out to have the address.
    stage.detects_duplicates(1, OTHER, address(6));
    stage.sent();
    stage.receive_on(0, HOST, &advertisement(address(6), ROUTER, address(6)));
    assert_eq!(stage.sent(), defended(1, address(6)));
}

/// A laptop goes from the Wi-Fi to the cable and takes its address along (RFC 6957 §4.2.2).
#[test]
fn an_address_whose_host_is_gone_is_not_defended_and_its_heir_has_it_within_seconds() {
    let mut stage = Stage::proxying();
    stage.confirmed(0, HOST, address(1));
    stage.pass(5);
    stage.sent();
    stage.detects_duplicates(1, OTHER, address(1));
    stage.pass_millis(900);
    let asked = format!("lan0 ?{}", address(1));
    let nudged = format!("lan0 !?{}", address(1));
    assert_eq!(stage.sent(), [asked, nudged], "the host is not answered");
    assert_eq!(stage.routes(), [(address(1), Side::Downstream(0))]);
    // The address is now the laptop's, which answers for it there.
    stage.pass_with(4, address(1), &[(1, OTHER)]);
    assert_eq!(stage.routes(), [(address(1), Side::Downstream(1))]);
    assert_eq!(stage.kernel.proxies, [address(1)].into());
}

/// If the first solicitation does not wake the host, the second finds it, within the second that
/// duplicate address detection takes.
#[test]
fn an_address_is_defended_by_a_host_that_answers_the_second_time_and_by_no_other_link() {
    let mut stage = Stage::proxying();
    stage.confirmed(0, HOST, address(1));
    stage.pass(5);
    stage.sent();
    stage.detects_duplicates(1, OTHER, address(1));
    stage.now = stage.now.saturating_add(NUDGE_AFTER);
    stage.time_out();
    assert_eq!(stage.sent().len(), 2);
    let answer = advertisement(address(1), ROUTER, address(1));
    stage.receive_on(0, HOST, &answer);
    let defended = format!("lan1 !{} to {ALL_NODES}", address(1));
    assert_eq!(stage.sent(), [defended]);
    stage.pass(2);
    assert_eq!(stage.sent(), [""; 0]);
    // If a host detects duplicates once more, nothing of that gets worse.
    for _ in 0..5 {
        stage.detects_duplicates(1, OTHER, address(1));
        stage.receive_on(0, HOST, &answer);
        stage.pass(3);
        assert_eq!(stage.routes(), [(address(1), Side::Downstream(0))]);
    }
}

/// A host may claim the address of a neighbor upstream that is believed to be there. It need not
/// claim it again when the neighbor turns out to be gone.
#[test]
fn who_claimed_the_address_of_a_neighbor_that_turns_out_to_be_gone_has_it() {
    let mut stage = Stage::proxying();
    stage.finds_beside();
    stage.pass(2);
    stage.detects_duplicates(0, HOST, BESIDE);
    stage.solicits(0, HOST, BESIDE, ROUTER);
    stage.pass_with(3, BESIDE, &[(0, HOST)]);
    assert!(!stage.addresses().contains(&BESIDE));
    stage.pass_with(1, BESIDE, &[(0, HOST)]);
    assert!(stage.addresses().contains(&BESIDE));
}

/// A host listens to the group of an address as soon as it detects duplicates of it (RFC 4862
/// §5.4.2), and reports the group when it is asked.
#[test]
fn what_a_host_says_by_mld_does_not_make_an_address_its_own_before_duplicates_are_detected() {
    let mut stage = Stage::proxying();
    let fe80_1 = "fe80::1:1".parse().unwrap();
    let listens = report(fe80_1, &[(RecordType::ModeIsExclude, group(5))]);
    let detect = |stage: &mut Stage, port: u8| {
        stage.solicits(port, HOST, fe80_1, ROUTER);
        stage.pass(11);
        stage.solicits(port, HOST, fe80_1, ROUTER);
        stage.detects_duplicates(port, HOST, address(5));
        stage.receive_on(port, HOST, &listens);
        stage.receive_on(port, HOST, &advertisement(address(5), ROUTER, address(5)));
        assert!(stage.kernel.proxies.is_empty() && stage.kernel.routes.is_empty());
        stage.sent();
    };
    let defended = |port: u8| vec![format!("lan{port} !{} to {ALL_NODES}", address(5))];
    // A target upstream has the address.
    detect(&mut stage, 0);
    stage.advertised_upstream(GATEWAY, address(5));
    assert_eq!(stage.sent(), defended(0));
    assert_eq!(stage.routes(), [(address(5), Side::Upstream)]);
    assert!(stage.kernel.proxies.is_empty());
    // A host on another downstream has the address.
    let mut stage = Stage::proxying();
    detect(&mut stage, 1);
    stage.receive_on(0, OTHER, &advertisement(address(5), ROUTER, address(5)));
    assert_eq!(stage.sent(), defended(1));
    stage.confirmed(0, OTHER, address(5));
    assert_eq!(stage.routes(), [(address(5), Side::Downstream(0))]);
    // Nobody has the address.
    let mut stage = Stage::proxying();
    detect(&mut stage, 0);
    stage.pass(ANSWER_INTERVAL.as_secs());
    assert_eq!(stage.routes(), [(address(5), Side::Downstream(0))]);
    assert_eq!(stage.kernel.proxies, [address(5)].into());
}

/// On its own link the target answers, which the engine does not hear. The engine asks in vain on
/// the other links alone.
#[test]
fn a_target_that_was_looked_for_on_its_own_link_is_found_from_another() {
    let mut stage = Stage::proxying();
    stage.solicits(0, OTHER, address(2), address(3));
    stage.pass(5);
    stage.sent();
    for _ in 0..3 {
        stage.solicits(1, OTHER, address(4), address(3));
    }
    assert_eq!(stage.sent(), [format!("lan0 ?{}", address(3))]);
    stage.receive_on(0, HOST, &advertisement(address(3), ROUTER, address(3)));
    let answer = format!("lan1 !{} to {}", address(3), address(4));
    assert_eq!(stage.sent(), [answer]);
    // A target that answers on no link is asked for no more.
    stage.solicits(0, OTHER, address(2), address(7));
    stage.solicits(1, OTHER, address(4), address(7));
    assert_eq!(stage.sent().len(), 3);
    stage.pass(2);
    stage.solicits(0, OTHER, address(2), address(7));
    stage.solicits(1, OTHER, address(4), address(7));
    assert_eq!(stage.sent(), [""; 0]);
}

/// RFC 4862 §5.4.4: a host also reports the group of a tentative address. The engine must not take
/// that for the word of its owner.
#[test]
fn a_host_that_reports_the_group_of_a_tentative_address_is_told_of_its_duplicate() {
    let mut stage = Stage::proxying();
    let fe80_1 = "fe80::1:1".parse().unwrap();
    stage.solicits(0, HOST, fe80_1, ROUTER);
    stage.pass(20);
    stage.detects_duplicates(0, HOST, address(1));
    stage.sent();
    let groups = [(RecordType::ModeIsExclude, group(1))];
    stage.receive_on(0, HOST, &report(fe80_1, &groups));
    stage.advertised_upstream(GATEWAY, address(1));
    assert_eq!(
        stage.sent(),
        [format!("lan0 !{} to {ALL_NODES}", address(1))]
    );
    assert!(stage.kernel.proxies.is_empty());
    assert_eq!(stage.routes(), [(address(1), Side::Upstream)]);
}

#[test]
fn a_new_address_that_nobody_else_has_is_asked_for_and_not_answered() {
    let mut stage = Stage::proxying();
    stage.detects_duplicates(0, HOST, address(1));
    assert_eq!(
        stage.sent(),
        [
            format!("wan ?{}", address(1)),
            format!("lan1 ?{}", address(1))
        ]
    );
    stage.pass(ANSWER_INTERVAL.as_secs());
    stage.confirmed(0, HOST, address(1));
    // The host detects duplicates again after a restart, or when it comes back from sleep.
    stage.detects_duplicates(0, HOST, address(1));
    assert_eq!(stage.sent(), [""; 0]);
    assert_eq!(stage.kernel.proxies, [address(1)].into());
}

#[test]
fn a_host_that_moves_from_upstream_to_a_downstream_is_no_duplicate_of_itself() {
    let mut stage = Stage::proxying();
    stage.finds_beside();
    stage.pass(2);
    stage.detects_duplicates(0, GATEWAY, BESIDE);
    assert_eq!(
        stage.sent(),
        [format!("wan ?{BESIDE}")],
        "it is not answered"
    );
    assert_eq!(stage.routes(), [(BESIDE, Side::Upstream)]);
    stage.pass_with(5, BESIDE, &[(0, GATEWAY)]);
    assert_eq!(stage.routes(), [(BESIDE, Side::Downstream(0))]);
    assert_eq!(stage.kernel.proxies, [BESIDE].into());
    stage.pass(10);
    assert_eq!(stage.kernel.proxies, [BESIDE].into());
}

#[test]
fn what_is_upstream_cannot_be_claimed_downstream_while_it_answers() {
    let mut stage = Stage::proxying();
    stage.finds_beside();
    // A host that uses the link-layer address of the target is no better.
    for mac in [HOST, GATEWAY] {
        for _ in 0..10 {
            stage.pass(2);
            stage.sent();
            stage.solicits(0, mac, BESIDE, LINK_LOCAL);
            stage.advertised_upstream(GATEWAY, BESIDE);
            stage.pass_with(10, BESIDE, &[(0, mac)]);
            assert_eq!(stage.sent(), [format!("wan ?{BESIDE}")]);
            assert!(!stage.addresses().contains(&BESIDE) && stage.kernel.proxies.is_empty());
            assert_eq!(stage.routes(), [(BESIDE, Side::Upstream)]);
        }
    }
    // Once the target upstream is gone, a host can claim the address.
    stage.takes_over(0, HOST, BESIDE);
    assert_eq!(stage.kernel.proxies, [BESIDE].into());
    // Nobody upstream can take away an address whose host answers.
    for _ in 0..10 {
        stage.advertised_upstream(GATEWAY, BESIDE);
        stage.pass_with(1, BESIDE, &[(0, HOST)]);
        assert_eq!(stage.kernel.proxies, [BESIDE].into());
    }
    // Once that one is silent, the target upstream has it again.
    stage.advertised_upstream(GATEWAY, BESIDE);
    stage.pass(4);
    assert_eq!(stage.routes(), [(BESIDE, Side::Downstream(0))]);
    stage.advertised_upstream(GATEWAY, BESIDE);
    assert_eq!(stage.routes(), [(BESIDE, Side::Upstream)]);
    assert!(stage.kernel.proxies.is_empty());
}

#[test]
fn a_neighbor_upstream_that_nobody_looked_for_can_be_claimed_until_the_claimant_is_silent() {
    let mut stage = Stage::proxying();
    stage.confirmed(0, HOST, BESIDE);
    stage.advertised_upstream(GATEWAY, BESIDE);
    assert_eq!(stage.kernel.proxies, [BESIDE].into());
    stage.pass(400);
    assert!(stage.kernel.proxies.is_empty());
}

#[test]
fn one_host_that_looks_for_everything_leaves_room_for_others() {
    let mut stage = Stage::proxying();
    for number in 0..10_000 {
        stage.solicits(0, HOST, address(1), address(1_000 + number));
    }
    let asked = stage.sent().len();
    assert_eq!(asked, 2 * MAX_OPEN_OF_HOST);
    assert_eq!(
        stage.count(Counter::RefusedTarget),
        10_000 - MAX_OPEN_OF_HOST as u64
    );
    stage.solicits(0, OTHER, address(2), BESIDE);
    assert_eq!(stage.sent().len(), 2);
    // Many hosts at once do not fill the table either.
    for number in 0..10_000_u32 {
        let [_, _, a, b] = number.to_be_bytes();
        let mac = MacAddress([2, 1, 0, 0, a, b]);
        stage.solicits(0, mac, address(1), address(20_000 + number));
    }
    // Each of the three links has its share.
    let share = (BURST as usize).div_ceil(3);
    let asked = stage.sent().len();
    assert_eq!(asked, 2 * (share - MAX_OPEN_OF_HOST - 1));
    assert!(stage.engine.ndp().targets().len() <= MAX_OPEN);
    let mac = MacAddress([2, 1, 0, 1, 0, 0]);
    stage.solicits(1, mac, address(3), address(50_000));
    assert_eq!(stage.sent().len(), 2, "another link is not concerned");
    stage.pass(60);
    assert!(stage.engine.ndp().targets().is_empty());
}

/// The bound holds however late the engine is told the time.
#[test]
fn so_many_targets_are_asked_for_at_once_and_each_that_is_found_or_given_up_makes_room() {
    let mut stage = Stage::proxying();
    let target = |number| address(10_000 + number);
    let look_for = |stage: &mut Stage, numbers: Range<u32>| {
        for number in numbers {
            stage.now = stage.now.saturating_add(Duration::from_millis(60));
            let [_, _, a, b] = number.to_be_bytes();
            let mac = MacAddress([2, 1, 0, 0, a, b]);
            stage.solicits(0, mac, address(1), target(number));
        }
        let sent = stage.sent();
        sent.iter().filter(|line| line.starts_with("wan ?")).count()
    };
    assert_eq!(look_for(&mut stage, 0..400), MAX_OPEN);
    stage.advertised_upstream(GATEWAY, target(0));
    assert_eq!(look_for(&mut stage, 400..500), 1);
    let answer = advertisement(target(1), ROUTER, target(1));
    stage.receive_on(1, OTHER, &answer);
    assert_eq!(look_for(&mut stage, 500..600), 1);
    stage.time_out();
    assert_eq!(look_for(&mut stage, 600..1000), MAX_OPEN);
    // The engine asks for an absent target on the link where it did not ask before.
    stage.time_out();
    // Another link has a place for as many.
    stage.solicits(1, OTHER, address(2), target(2));
    assert!(stage.sent().contains(&format!("lan0 ?{}", target(2))));
    assert_eq!(look_for(&mut stage, 1000..1400), MAX_OPEN);
}

/// Upstream the kernel answers for what is downstream. Nobody may answer for the rest.
#[test]
fn what_is_upstream_is_neither_answered_for_nor_asked_for_when_it_is_looked_for_there() {
    let mut stage = Stage::proxying();
    let fe80_1 = "fe80::1:1".parse().unwrap();
    let listens = report(fe80_1, &[(RecordType::ModeIsExclude, group(1))]);
    stage.receive_on(1, HOST, &listens);
    stage.solicits(0, OTHER, address(9), address(1));
    stage.advertised_upstream(GATEWAY, address(1));
    // The listener is asked first whether the address is its own.
    assert!(!view::is_upstream(&stage.engine, address(1)));
    stage.pass(5);
    stage.advertised_upstream(GATEWAY, address(1));
    assert!(view::is_upstream(&stage.engine, address(1)));
    stage.sent();
    stage.pass(REACHABLE_INTERVAL.as_secs());
    let packet = solicitation(BESIDE, address(1));
    let mac = MacAddress([2, 0, 0, 0, 0xaa, 1]);
    let packet = &packet;
    stage.handle(heard(Side::Upstream, mac, packet));
    assert_eq!(stage.sent(), [""; 0]);
}

#[test]
fn answers_wait_within_bounds() {
    let mut stage = Stage::proxying();
    stage.finds_beside();
    for number in 0..1_000_u32 {
        let source = address(number);
        let packet = solicitation(source, BESIDE);
        stage.tell(heard(Side::Downstream(0), HOST, &packet));
    }
    stage.drain();
    assert_eq!(stage.sent().len(), MAX_ANSWERS);
}

#[test]
fn a_host_known_by_mld_alone_is_found_when_it_is_looked_for_upstream() {
    let mut stage = Stage::proxying();
    let fe80_1 = "fe80::1:1".parse().unwrap();
    stage.solicits(1, HOST, fe80_1, ROUTER);
    stage.receive_on(
        1,
        HOST,
        &report(fe80_1, &[(RecordType::ModeIsExclude, group(1))]),
    );
    assert_eq!(stage.kernel.joined, [group(1)].into());
    let solicit = |stage: &mut Stage, target: Ipv6Addr| {
        let packet = solicitation(BESIDE, target);
        stage.handle(heard(Side::Upstream, GATEWAY, &packet));
        stage.sent()
    };
    let asked = |target| vec![format!("lan0 ?{target}"), format!("lan1 ?{target}")];
    assert_eq!(
        solicit(&mut stage, address(2)),
        [""; 0],
        "nobody can have this address"
    );
    assert_eq!(solicit(&mut stage, address(1)), asked(address(1)));
    assert_eq!(solicit(&mut stage, address(1)), [""; 0], "once");
    stage.receive_on(1, HOST, &advertisement(address(1), ROUTER, address(1)));
    assert_eq!(stage.kernel.proxies, [address(1)].into());
    assert_eq!(stage.sent(), [""; 0], "the kernel answers upstream");
    assert_eq!(solicit(&mut stage, address(1)), [""; 0]);
}

#[test]
fn in_the_group_of_known_addresses_alone_nobody_is_asked_for_another_one() {
    let mut stage = Stage::proxying();
    stage.confirmed(0, HOST, address(1));
    stage.sent();
    let packet = solicitation(BESIDE, twin(1));
    stage.handle(heard(Side::Upstream, GATEWAY, &packet));
    assert_eq!(stage.sent(), [""; 0]);
}

#[test]
fn what_was_asked_for_downstream_alone_cannot_be_claimed_upstream() {
    let mut stage = Stage::proxying();
    let fe80_1 = "fe80::1:1".parse().unwrap();
    let listens = report(fe80_1, &[(RecordType::ModeIsExclude, group(1))]);
    stage.receive_on(1, HOST, &listens);
    let packet = solicitation(BESIDE, address(1));
    stage.handle(heard(Side::Upstream, GATEWAY, &packet));
    assert_eq!(stage.sent().len(), 2, "each downstream is asked");
    stage.advertised_upstream(GATEWAY, address(1));
    assert_eq!(stage.routes(), []);
    // The host gets its address all the same.
    stage.solicits(1, HOST, address(1), LINK_LOCAL);
    stage.pass(1);
    stage.receive_on(1, HOST, &listens);
    assert_eq!(stage.kernel.proxies, [address(1)].into());
    assert_eq!(stage.routes(), [(address(1), Side::Downstream(1))]);
}

#[test]
fn a_new_address_is_announced_three_times_to_the_routers_upstream() {
    let mut stage = Stage::with(|config| {
        config.ndp_proxy = true;
        config.announce = true;
    });
    stage.fail_if(|action| matches!(action, Action::Ndp(ndp::Action::Kernel(_))));
    stage.confirmed(0, HOST, address(1));
    stage.pass(5);
    assert_eq!(
        stage.sent(),
        [""; 0],
        "not before the kernel answers for it"
    );
    stage.fail_if(|_| false);
    stage.pass(5);
    let announced = || format!("wan !{} to ff02::2", address(1));
    assert_eq!(stage.sent(), [announced()]);
    stage.pass(1);
    assert_eq!(stage.sent(), [announced()]);
    stage.pass(100);
    assert_eq!(stage.sent().len() + 2, usize::from(ANNOUNCEMENTS));
    stage.confirmed(0, HOST, address(1));
    stage.detects_duplicates(1, HOST, address(1));
    stage.pass(100);
    let announced = stage.sent().iter().any(|line| line.starts_with("wan "));
    assert!(!announced, "only when it is first confirmed");
}

/// There are more addresses than the engine announces before the first is due again.
#[test]
fn every_address_is_announced_before_any_is_announced_again() {
    let mut stage = Stage::with(|config| {
        config.ndp_proxy = true;
        config.announce = true;
    });
    let many = 60;
    stage.fail_if(|action| matches!(action, Action::Ndp(ndp::Action::Kernel(_))));
    for number in 1..=many {
        stage.confirmed(0, HOST, address(number));
    }
    assert_eq!(stage.sent(), [""; 0]);
    stage.fail_if(|_| false);
    stage.pass(60);
    let sent = stage.sent();
    assert_eq!(sent.len(), many as usize * usize::from(ANNOUNCEMENTS));
    let once: HashSet<_> = sent[..many as usize].iter().collect();
    assert_eq!(once.len(), many as usize);
}

/// The engine asks a host here for its address because another one detects duplicates of it.
#[test]
fn an_advertisement_upstream_takes_no_address_that_its_host_here_is_asked_for() {
    let mut stage = Stage::proxying();
    stage.confirmed(0, HOST, address(1));
    stage.detects_duplicates(1, OTHER, address(1));
    stage.advertised_upstream(GATEWAY, address(1));
    assert_eq!(stage.kernel.proxies, [address(1)].into());
    assert_eq!(stage.routes(), [(address(1), Side::Downstream(0))]);
}

/// RFC 4861 §7.2.6: a little delay keeps each announcement from being lost among the others.
#[test]
fn announcements_of_several_addresses_are_a_little_apart() {
    let mut stage = Stage::with(|config| config.announce = true);
    let packets = [1, 2, 3].map(|number| advertisement(address(number), ROUTER, address(number)));
    for number in [1, 2, 3] {
        stage.solicits(0, HOST, address(number), LINK_LOCAL);
    }
    stage.pass(1);
    for packet in &packets {
        stage.tell(heard(Side::Downstream(0), HOST, packet));
    }
    stage.drain();
    assert_eq!(stage.sent().len(), 1);
    for _ in 1..packets.len() {
        let (deadline, reason) = stage.engine.next_deadline().unwrap();
        assert_eq!(reason, Reason::Ndp(ndp::Reason::Announcement));
        assert_eq!(deadline.since(stage.now), ANNOUNCEMENT_PACE);
        stage.now = deadline;
        stage.time_out();
        assert_eq!(stage.sent().len(), 1);
    }
}

#[test]
fn an_announcement_that_waits_for_its_turn_is_not_hurried_by_what_is_removed() {
    let mut stage = Stage::with(|config| {
        config.host_routes = true;
        config.announce = true;
    });
    let packets = [1, 2].map(|number| advertisement(address(number), ROUTER, address(number)));
    for number in [1, 2] {
        stage.solicits(0, HOST, address(number), LINK_LOCAL);
    }
    stage.pass(1);
    for packet in &packets {
        stage.tell(heard(Side::Downstream(0), HOST, packet));
    }
    stage.drain();
    assert_eq!(stage.sent().len(), 1);
    stage.kernel.leave_route(address(7), Side::Downstream(0));
    stage.list(KernelTable::Routes);
    assert_eq!(
        (
            stage.kernel.routes.len(),
            stage.count(Counter::RouteRemoved)
        ),
        (2, 1)
    );
    assert_eq!(stage.sent(), [""; 0]);
    stage.pass(1);
    assert!(stage.sent().len() >= 2);
}

#[test]
fn an_announcement_waits_for_an_upstream_that_it_can_be_sent_from() {
    let mut stage = Stage::with(|config| {
        config.ndp_proxy = true;
        config.announce = true;
    });
    stage.upstream(Some(Link {
        link_local: None,
        ..UPSTREAM
    }));
    stage.confirmed(0, HOST, address(1));
    let next = stage.engine.next_deadline();
    assert!(next.is_some_and(|(at, _)| at > stage.now), "{next:?}");
    stage.pass(10);
    assert_eq!(stage.sent(), [""; 0]);
    stage.upstream(Some(UPSTREAM));
    assert_eq!(stage.sent(), [format!("wan !{} to ff02::2", address(1))]);
}

#[test]
fn an_announcement_without_an_upstream_to_send_it_from_wakes_nobody() {
    let mut stage = Stage::with(|config| config.announce = true);
    let mute = Link {
        link_local: None,
        ..UPSTREAM
    };
    for upstream in [None, Some(mute)] {
        stage.upstream(upstream);
        let number = if upstream.is_none() { 1 } else { 2 };
        stage.confirmed(0, HOST, address(number));
        // A deadline that stays would show here.
        stage.pass(5);
        assert_eq!(stage.sent(), [""; 0]);
        stage.upstream(Some(UPSTREAM));
        stage.pass(5);
        let announced = format!("wan !{} to ff02::2", address(number));
        assert_eq!(stage.sent(), [&announced[..]; ANNOUNCEMENTS as usize]);
    }
}

#[test]
fn what_is_gone_is_announced_no_more_though_its_entry_stays() {
    let mut stage = Stage::with(|config| {
        config.ndp_proxy = true;
        config.announce = true;
    });
    stage.confirmed(0, HOST, address(1));
    assert_eq!(stage.sent().len(), 1);
    stage.fail_if(|action| matches!(action, Action::Ndp(ndp::Action::Kernel(_))));
    stage.handle(Event::Own {
        prefix_length: 128,
        index: 1,
        address: address(1),
        present: true,
    });
    stage.pass(5);
    assert_eq!(stage.kernel.proxies, [address(1)].into());
    assert_eq!(stage.sent(), [""; 0]);
}

#[test]
fn what_is_done_is_counted_by_what_it_is_and_what_fails_apart_from_it() {
    let mut stage = Stage::with(|config| {
        config.ndp_proxy = true;
        config.host_routes = true;
        config.announce = true;
    });
    stage.solicits(0, HOST, "fe80::1:1".parse().unwrap(), ROUTER);
    stage.confirmed(1, OTHER, address(1));
    stage.solicits(0, HOST, address(9), BESIDE);
    stage.advertised_upstream(GATEWAY, BESIDE);
    stage.pass(60);
    let starting = |lines: &[String], start: &str| {
        let matching = lines.iter().filter(|line| line.starts_with(start));
        matching.count() as u64
    };
    let questions: Vec<_> = stage
        .questions
        .iter()
        .map(|(_, line)| line.clone())
        .collect();
    let sent = stage.sent();
    let expected = [
        (
            Counter::Reported,
            (stage.reports.len() + stage.said.len()) as u64,
        ),
        (Counter::Asked, starting(&questions, "?")),
        (
            Counter::Probed,
            starting(&questions, "!") + starting(&questions, "*"),
        ),
        (
            Counter::Solicited,
            starting(&sent, "wan ?") + starting(&sent, "lan1 ?"),
        ),
        (Counter::Answered, starting(&sent, "lan0 !")),
        (Counter::Announced, starting(&sent, "wan !")),
        (Counter::Joined, stage.kernel.joined.len() as u64),
        (Counter::ProxyAdded, 1),
        (Counter::RouteAdded, 2),
    ];
    for (counter, count) in expected {
        assert!(count > 0, "{counter:?} was not tried");
        assert_eq!(stage.count(counter), count, "{counter:?}");
    }
    assert_eq!(stage.count(Counter::TransmitFailed), 0);

    stage.fail_if(|action| {
        !matches!(
            action,
            Action::Ndp(ndp::Action::Kernel(_) | ndp::Action::Leave(_))
        )
    });
    stage.handle(Event::Renew);
    stage.solicits(0, HOST, address(9), BESIDE);
    stage.confirmed(1, OTHER, address(2));
    stage.pass(1);
    assert!(stage.count(Counter::TransmitFailed) > 5);
    assert!(stage.count(Counter::MembershipFailed) > 0);
    for (counter, count) in &expected[..7] {
        assert_eq!(stage.count(*counter), *count, "{counter:?} failed");
    }
    stage.pass(400);
    assert_eq!(
        stage.count(Counter::ProxyRemoved),
        stage.count(Counter::ProxyAdded)
    );
    assert_eq!(
        stage.count(Counter::RouteRemoved),
        stage.count(Counter::RouteAdded)
    );
    assert_eq!(stage.count(Counter::Left), stage.count(Counter::Joined));
}

#[test]
fn announcements_keep_their_distance_whatever_comes_between_them() {
    let mut stage = Stage::with(|config| config.announce = true);
    for number in [1, 2, 3] {
        stage.solicits(0, HOST, address(number), LINK_LOCAL);
    }
    stage.pass(1);
    let mut sent = 0;
    for number in [1, 2, 3] {
        stage.receive(&advertisement(address(number), ROUTER, address(number)));
        sent += stage.sent().len();
    }
    assert_eq!(sent, 1, "in one moment");
}
