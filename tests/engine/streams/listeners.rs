//! RFC 3810 §7.2 to §7.6: who listens to what on a link, and the queries that a leave makes
//! necessary.

use protocol::mld::members::{Mode, SourceState};

use super::*;

/// What a router keeps of a group by RFC 3810 §7.2: the filter timer, where it runs, and the
/// sources with their timers; a source without one is in the Exclude List. Times are in seconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Record3810 {
    filter_timer: Option<u64>,
    requested: BTreeMap<u16, u64>,
    excluded: BTreeSet<u16>,
}

/// The Multicast Address Listening Interval, and the Last Listener Query Time, by the defaults.
const MALI: u64 = 260;
const LLQT: u64 = 2;

impl Record3810 {
    /// The rows of RFC 3810 §7.4, as sets, and what the queries do to the timers.
    fn take(&mut self, kind: RecordType, listed: &[u16], now: u64) {
        let a: BTreeSet<u16> = listed.iter().copied().collect();
        let x: BTreeSet<u16> = self.requested.keys().copied().collect();
        let y = self.excluded.clone();
        let (mali, mut queried, mut queries_group) = (now + MALI, BTreeSet::new(), false);
        match (self.filter_timer, kind) {
            (_, RecordType::Unknown(_)) => {}
            (None, IsInclude | Allow) => self.request(&a, mali),
            (None, Block) => queried = &a & &x,
            (None, ToInclude) => {
                self.request(&a, mali);
                queried = &x - &a;
            }
            (None, IsExclude | ToExclude) => {
                self.requested.retain(|source, _| a.contains(source));
                self.excluded = &a - &x;
                self.filter_timer = Some(mali);
                if kind == ToExclude {
                    queried = &x & &a;
                }
            }
            (Some(_), IsInclude | Allow) => {
                self.request(&a, mali);
                self.excluded = &y - &a;
            }
            (Some(_), IsExclude) => {
                self.requested.retain(|source, _| a.contains(source));
                self.request(&(&(&a - &x) - &y), mali);
                self.excluded = &y & &a;
                self.filter_timer = Some(mali);
            }
            (Some(filter), Block) => {
                self.request(&(&(&a - &x) - &y), filter);
                queried = &a - &y;
            }
            (Some(filter), ToExclude) => {
                self.requested.retain(|source, _| a.contains(source));
                self.request(&(&(&a - &x) - &y), filter);
                self.excluded = &y & &a;
                self.filter_timer = Some(mali);
                queried = &a - &y;
            }
            (Some(_), ToInclude) => {
                self.request(&a, mali);
                self.excluded = &y - &a;
                queried = &x - &a;
                queries_group = true;
            }
        }
        for source in queried {
            let timer = self.requested.get_mut(&source).expect("it is requested");
            *timer = (*timer).min(now + LLQT);
        }
        if queries_group && let Some(filter) = &mut self.filter_timer {
            *filter = (*filter).min(now + LLQT);
        }
    }

    fn request(&mut self, sources: &BTreeSet<u16>, until: u64) {
        let timers = sources.iter().map(|source| (*source, until));
        self.requested.extend(timers);
    }

    /// RFC 3810 §7.5.
    fn expire(&mut self, now: u64) {
        let expired = self.requested.extract_if(.., |_, until| *until <= now);
        let expired: BTreeSet<_> = expired.map(|(source, _)| source).collect();
        if self.filter_timer.is_some() {
            self.excluded.extend(expired);
        }
        if self.filter_timer.is_some_and(|until| until <= now) {
            self.filter_timer = None;
            self.excluded.clear();
        }
    }
}

/// What the engine keeps of a group on the first link.
fn kept(stage: &Stage, group: Ipv6Addr) -> Record3810 {
    let members = stage.engine.mld().streams().members();
    let mut kept = Record3810::default();
    let Some(link_group) = members.of(group).find(|it| it.port == 0) else {
        return kept;
    };
    if let Mode::Exclude { until } = link_group.mode {
        kept.filter_timer = Some(until.as_millis() / 1000);
    }
    for source in members.sources_of(link_group) {
        let number = source.address.segments()[7];
        match source.state {
            SourceState::Requested { until } => {
                kept.requested.insert(number, until.as_millis() / 1000);
            }
            SourceState::Excluded => _ = kept.excluded.insert(number),
        }
    }
    kept
}

#[test]
fn three_thousand_records_leave_what_the_tables_of_rfc_3810_say() {
    let kinds = [IsInclude, IsExclude, ToInclude, ToExclude, Allow, Block];
    let mut random = fastrand::Rng::with_seed(7);
    let mut stage = proxy(|_| {});
    let mut model = Record3810::default();
    let mut seen = BTreeSet::new();
    for round in 0..3_000 {
        if round % 300 == 0 {
            stage = proxy(|_| {});
            model = Record3810::default();
        }
        let kind = kinds[random.usize(..kinds.len())];
        let listed = subset(random.u8(..8));
        stage.says(0, 1, kind, ASM, &listed);
        let now = stage.millis() / 1000;
        model.take(kind, &listed, now);
        // What a record leaves without a filter timer and sources is not kept.
        assert_eq!(kept(&stage, ASM), model, "{round}: {kind:?} {listed:?}");
        let shape = (
            model.filter_timer.is_some(),
            model.requested.len(),
            model.excluded.len(),
        );
        seen.insert(shape);
        let seconds = [0, 0, 0, 1, 1, 2, 3, 100, 259, 300][random.usize(..10)];
        for _ in 0..seconds {
            stage.pass(1);
            model.expire(stage.millis() / 1000);
        }
        assert_eq!(
            kept(&stage, ASM),
            model,
            "{round}: {seconds} s after {kind:?} {listed:?}"
        );
        stage.streams.clear();
    }
    assert_eq!(
        seen.len(),
        4 + 10,
        "each size of INCLUDE(A), and of EXCLUDE(X,Y)"
    );
}

#[test]
fn a_leave_is_asked_about_twice_a_second_apart_and_the_stream_ends_a_second_later() {
    let mut stage = proxy(|_| {});
    stage.says(0, 1, ToExclude, ASM, &[]);
    stage.says(0, 1, Allow, SSM, &[1, 2]);
    stage.words();
    let start = stage.millis();
    stage.says(0, 1, ToInclude, ASM, &[]);
    stage.says(0, 1, Block, SSM, &[1]);
    stage.pass_millis(1999);
    assert_eq!(stage.joined(ASM), "ex {}");
    assert_eq!(stage.joined(SSM), "in {1 2}");
    stage.pass_millis(1);
    assert_eq!(stage.joined(ASM), "-");
    assert_eq!(stage.joined(SSM), "in {2}");
    let expected = [
        (0, format!("lan0 ?{ASM} {{}}")),
        (0, format!("lan0 ?{SSM} {{1}}")),
        (1000, format!("lan0 ?{ASM} {{}}")),
        (1000, format!("lan0 ?{SSM} {{1}}")),
        (2000, format!("BLOCK {SSM} {{1}}")),
        (2000, format!("TO_IN {ASM} {{}}")),
    ];
    let mut words = stage.words_since(start);
    words.sort();
    let mut expected = expected.to_vec();
    expected.sort();
    assert_eq!(words, expected);
}

#[test]
fn the_count_and_the_interval_of_the_last_queries_are_the_users() {
    let mut stage = proxy(|config| {
        config.robustness = 3;
        config.last_listener_interval = Duration::from_millis(250);
    });
    stage.says(0, 1, Allow, SSM, &[1]);
    stage.words();
    let start = stage.millis();
    stage.says(0, 1, Block, SSM, &[1]);
    stage.pass(2);
    let words = stage.words_since(start);
    let times: Vec<_> = words.iter().map(|(at, _)| *at).collect();
    assert_eq!(times, [0, 250, 500, 750]);
    assert_eq!(words[3].1, format!("BLOCK {SSM} {{1}}"));
}

#[test]
fn a_repeated_leave_moves_nothing() {
    let mut stage = proxy(|_| {});
    stage.says(0, 1, ToExclude, ASM, &[]);
    stage.says(0, 1, Allow, SSM, &[1]);
    stage.words();
    let start = stage.millis();
    for millis in [0, 300, 700, 900] {
        stage.pass_millis(start + millis - stage.millis());
        stage.says(0, 1, ToInclude, ASM, &[]);
        stage.says(0, 1, Block, SSM, &[1]);
    }
    stage.pass_millis(start + 1_999 - stage.millis());
    assert_eq!(
        (&*stage.joined(ASM), &*stage.joined(SSM)),
        ("ex {}", "in {1}")
    );
    stage.pass_millis(1);
    assert_eq!((&*stage.joined(ASM), &*stage.joined(SSM)), ("-", "-"));
    let queries = stage.words_since(start).into_iter();
    let times: Vec<_> = queries
        .filter(|(_, it)| it.contains('?'))
        .map(|(at, _)| at)
        .collect();
    assert_eq!(times, [0, 0, 1000, 1000]);
}

#[test]
fn a_listener_that_answers_keeps_its_stream_and_the_next_query_has_the_s_flag() {
    let mut stage = proxy(|_| {});
    for host in [1, 2] {
        stage.says(0, host, ToExclude, ASM, &[]);
        stage.says(0, host, Allow, SSM, &[1, 2]);
    }
    stage.words();
    let start = stage.millis();
    stage.says(0, 1, ToInclude, ASM, &[]);
    stage.says(0, 1, Block, SSM, &[1, 2]);
    stage.pass_millis(100);
    stage.says(0, 2, IsExclude, ASM, &[]);
    stage.says(0, 2, IsInclude, SSM, &[1]);
    stage.pass(20);
    assert_eq!(stage.joined(ASM), "ex {}");
    assert_eq!(stage.joined(SSM), "in {1}");
    // RFC 3810 §7.6.3.2: two queries, by whether the sources were heard since the first one.
    let mut words = stage.words_since(start);
    words.sort();
    let expected = [
        (0, format!("lan0 ?{ASM} {{}}")),
        (0, format!("lan0 ?{SSM} {{1 2}}")),
        (1000, format!("lan0 ?{ASM} {{}} S")),
        (1000, format!("lan0 ?{SSM} {{1}} S")),
        (1000, format!("lan0 ?{SSM} {{2}}")),
        (2000, format!("BLOCK {SSM} {{2}}")),
    ];
    let mut expected = expected.to_vec();
    expected.sort();
    assert_eq!(words, expected);
}

#[test]
fn a_fast_leave_ends_a_stream_at_once_and_asks_nobody() {
    let mut stage = proxy(|config| config.fast_leave = true);
    stage.says(0, 1, Allow, SSM, &[1]);
    stage.says(0, 1, ToExclude, ASM, &[]);
    stage.words();
    stage.says(0, 1, Block, SSM, &[1]);
    stage.says(0, 1, ToInclude, ASM, &[]);
    assert_eq!((&*stage.joined(ASM), &*stage.joined(SSM)), ("-", "-"));
    let expected = [format!("BLOCK {SSM} {{1}}"), format!("TO_IN {ASM} {{}}")];
    let mut words = stage.words();
    words.sort();
    assert_eq!(words, expected);
}

#[test]
fn who_does_not_report_again_is_gone_after_260_seconds() {
    let mut stage = proxy(|_| {});
    stage.says(0, 1, IsInclude, SSM, &[1, 2]);
    stage.says(0, 1, IsExclude, ASM, &[3]);
    stage.pass(200);
    stage.says(0, 1, IsInclude, SSM, &[2]);
    stage.says(0, 2, Allow, ASM, &[3, 4]);
    assert_eq!(stage.wish(0, ASM), "ex {}");
    stage.pass_millis(59_999);
    assert_eq!(
        (&*stage.wish(0, SSM), &*stage.wish(0, ASM)),
        ("in {1 2}", "ex {}")
    );
    stage.pass_millis(1);
    // RFC 3810 §7.5: when the filter timer expires, the sources that are requested stay.
    assert_eq!(
        (&*stage.wish(0, SSM), &*stage.wish(0, ASM)),
        ("in {2}", "in {3 4}")
    );
    stage.pass(200);
    assert_eq!((&*stage.wish(0, SSM), &*stage.wish(0, ASM)), ("-", "-"));
}

#[test]
fn a_requested_source_that_expires_in_exclude_mode_is_excluded() {
    let mut stage = proxy(|_| {});
    stage.says(0, 1, Allow, ASM, &[1]);
    stage.pass(100);
    stage.says(0, 2, IsExclude, ASM, &[1]);
    assert_eq!(stage.wish(0, ASM), "ex {}");
    stage.pass(160);
    assert_eq!(stage.wish(0, ASM), "ex {1}");
    assert_eq!(stage.joined(ASM), "ex {1}");
    assert_eq!(stage.words().last(), Some(&format!("BLOCK {ASM} {{1}}")));
}

#[test]
fn while_an_mldv1_host_is_present_blocks_and_excluded_sources_are_ignored() {
    let mut stage = proxy(|_| {});
    stage.reports_v1(0, 1, ASM);
    stage.says(0, 2, ToExclude, ASM, &[1]);
    assert_eq!(stage.wish(0, ASM), "ex {}");
    stage.words();
    stage.says(0, 2, Block, ASM, &[1]);
    stage.pass(5);
    assert_eq!(stage.words(), Vec::<String>::new(), "nobody is asked");
    assert_eq!(stage.wish(0, ASM), "ex {}");
    // RFC 3810 §9.13: until 260 s after its last report.
    stage.pass(254);
    stage.says(0, 2, IsExclude, ASM, &[]);
    stage.pass(1);
    stage.says(0, 2, Block, ASM, &[1]);
    stage.pass(3);
    assert_eq!(stage.wish(0, ASM), "ex {1}");
}

#[test]
fn an_mldv1_host_that_is_done_is_asked_for_and_gone_after_two_seconds() {
    let mut stage = proxy(|_| {});
    stage.reports_v1(0, 1, ASM);
    assert_eq!(stage.joined(ASM), "ex {}");
    stage.words();
    stage.is_done(0, 1, ASM);
    assert_eq!(stage.words(), [format!("lan0 ?{ASM} {{}}")]);
    stage.pass(2);
    assert_eq!(stage.joined(ASM), "-");
}

#[test]
fn what_is_not_source_specific_is_ignored_for_source_specific_groups() {
    use protocol::counters::Counter;
    let mut stage = proxy(|config| config.fast_leave = true);
    stage.says(0, 1, Allow, SSM, &[1]);
    stage.words();
    let ignored = |stage: &Stage| stage.count(Counter::NotSourceSpecific);
    assert_eq!(ignored(&stage), 0);
    stage.reports_v1(0, 2, SSM);
    stage.says(0, 2, IsExclude, SSM, &[]);
    stage.says(0, 2, ToExclude, SSM, &[1]);
    stage.is_done(0, 2, SSM);
    assert_eq!(ignored(&stage), 4);
    assert_eq!(stage.wish(0, SSM), "in {1}");
    assert_eq!(stage.words(), Vec::<String>::new());
    // A leave of all sources is an INCLUDE of none.
    stage.says(0, 1, ToInclude, SSM, &[]);
    assert_eq!(stage.wish(0, SSM), "-");
}

#[test]
fn records_that_make_no_listener_leave_nothing_behind() {
    let mut stage = proxy(|_| {});
    for (kind, of) in [
        (IsInclude, &[][..]),
        (ToInclude, &[]),
        (Allow, &[]),
        (Block, &[1]),
        (Block, &[]),
        (RecordType::Unknown(7), &[1]),
    ] {
        stage.says(0, 1, kind, ASM, of);
        assert!(
            stage.engine.mld().streams().members().is_empty(),
            "{kind:?}"
        );
    }
    stage.is_done(0, 1, ASM);
    assert!(stage.engine.mld().streams().members().is_empty());
    assert_eq!(stage.words(), Vec::<String>::new());
    // An unknown type changes nothing of what is there either.
    stage.says(0, 1, IsExclude, ASM, &[1]);
    stage.says(0, 1, RecordType::Unknown(9), ASM, &[2]);
    assert_eq!(stage.wish(0, ASM), "ex {1}");
}

#[test]
fn a_query_that_waits_for_its_turn_lowers_no_timer_before_it_is_sent() {
    let mut stage = proxy(|_| {});
    let group = |number: u128| Ipv6Addr::from_bits(SSM.to_bits() + number);
    let listener = |number: u128| (number / 50) as u8 + 3;
    for number in 0..100 {
        stage.says(0, listener(number), Allow, group(number), &[1]);
    }
    stage.words();
    // Somebody leaves all of them in the listeners' names, faster than anybody may be asked.
    for number in 0..100 {
        stage.says(0, 2, Block, group(number), &[1]);
    }
    let mut asked = BTreeSet::new();
    for _ in 0..600 {
        for words in stage.words() {
            let rest = words.strip_prefix("lan0 ?");
            if let Some((asked_for, _)) = rest.and_then(|rest| rest.split_once(' ')) {
                asked.insert(asked_for.to_owned());
                // The listener answers each query.
                stage.says(0, 3, IsInclude, asked_for.parse().unwrap(), &[1]);
            }
        }
        stage.pass_millis(100);
    }
    assert_eq!(asked.len(), 100, "everybody has a turn");
    for number in 0..100 {
        assert_eq!(stage.joined(group(number)), "in {1}", "{number}");
    }
}

/// The query of the leave still waits for its turn then. Nobody answers it.
#[test]
fn who_joins_again_before_the_query_of_a_leave_is_sent_keeps_the_stream() {
    for (first, [join, leave], of) in [
        (SSM, [Allow, Block], &[1][..]),
        (ASM, [ToExclude, ToInclude], &[]),
    ] {
        let mut stage = proxy(|_| {});
        let group = |number: u128| Ipv6Addr::from_bits(first.to_bits() + number);
        for kind in [join, leave, join] {
            for number in 0..60 {
                stage.says(0, 1, kind, group(number), of);
            }
        }
        stage.pass(30);
        for number in 0..60 {
            assert_ne!(stage.joined(group(number)), "-", "{number}");
        }
    }
}

#[test]
fn a_query_that_cannot_be_sent_ends_no_stream() {
    use protocol::engine::Action;
    use protocol::mld::{self, streams};
    let mut stage = proxy(|_| {});
    stage.says(0, 1, Allow, SSM, &[1]);
    let is_query = |action: &Action| {
        matches!(
            action,
            Action::Mld(mld::Action::Streams(streams::Action::Query { .. }))
        )
    };
    stage.fail_if(is_query);
    stage.says(0, 1, Block, SSM, &[1]);
    stage.pass(10);
    assert_eq!(stage.joined(SSM), "in {1}");
    stage.fail_if(|_| false);
    stage.says(0, 1, Block, SSM, &[1]);
    stage.pass(2);
    assert_eq!(stage.joined(SSM), "-");
}
