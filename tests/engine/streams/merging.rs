//! RFC 4605 §4.1: what the listeners of all links make the router want upstream, for all small sets.

use super::*;

/// What the listeners of one link may want: nothing, some of three sources, or all but some.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Nothing,
    Include(u8),
    Exclude(u8),
}

/// The sets of three sources.
const SETS: std::ops::Range<u8> = 0..8;

fn wishes() -> Vec<Wish> {
    let includes = SETS.skip(1).map(Wish::Include);
    let excludes = SETS.map(Wish::Exclude);
    let all = std::iter::once(Wish::Nothing).chain(includes);
    all.chain(excludes).collect()
}

/// Whether a wish lets in the source with a number from 0 on; 3 stands for any other source.
fn lets_in(wish: Wish, number: u8) -> bool {
    match wish {
        Wish::Nothing => false,
        Wish::Include(set) => set >> number & 1 != 0,
        Wish::Exclude(set) => set >> number & 1 == 0,
    }
}

/// The words of [`Stage::joined`] for a filter that lets in what one of two wishes lets in.
fn merged(one: Wish, other: Wish) -> String {
    let lets_in = |number| lets_in(one, number) || lets_in(other, number);
    let any_other = lets_in(3);
    let numbers: Vec<_> = (0..3)
        .filter(|number| lets_in(*number) != any_other)
        .map(|number| (number + 1).to_string())
        .collect();
    match (any_other, numbers.is_empty()) {
        (false, true) => "-".to_owned(),
        (false, false) => format!("in {{{}}}", numbers.join(" ")),
        (true, _) => format!("ex {{{}}}", numbers.join(" ")),
    }
}

/// A link's only listener comes to want something else.
fn wants(stage: &mut Stage, port: Port, wish: Wish) {
    let from = port + 1;
    match wish {
        Wish::Nothing => stage.says(port, from, ToInclude, ASM, &[]),
        Wish::Include(set) => stage.says(port, from, ToInclude, ASM, &subset(set)),
        Wish::Exclude(set) => stage.says(port, from, ToExclude, ASM, &subset(set)),
    }
}

#[test]
fn the_kernel_joins_and_forwards_what_two_links_want_for_all_sets_of_three_sources() {
    let mut stage = proxy(|config| config.fast_leave = true);
    let (mut cases, sides) = (
        0,
        [Side::Upstream, Side::Downstream(0), Side::Downstream(1)],
    );
    for one in wishes() {
        for other in wishes() {
            wants(&mut stage, 0, one);
            wants(&mut stage, 1, other);
            assert_eq!(stage.joined(ASM), merged(one, other), "{one:?}, {other:?}");
            for number in 0..4 {
                let wanting = [lets_in(one, number), lets_in(other, number)];
                let from = source(u16::from(number) + 1);
                for arrival in sides {
                    let is_listed = [one, other].iter().any(|wish| match wish {
                        Wish::Nothing => false,
                        Wish::Include(set) | Wish::Exclude(set) => set >> number & 1 != 0,
                    });
                    // A source that somebody names is known to be upstream.
                    let is_wrong = is_listed && arrival != Side::Upstream;
                    let expected: Vec<_> = [0, 1]
                        .into_iter()
                        .filter(|port| wanting[usize::from(*port)] && !is_wrong)
                        .map(Side::Downstream)
                        .filter(|side| *side != arrival)
                        .collect();
                    let way = stage.way(arrival, from, ASM);
                    assert_eq!(way, expected, "{one:?}, {other:?}, {number} on {arrival:?}");
                    cases += 1;
                }
            }
        }
    }
    assert_eq!(cases, 16 * 16 * 4 * 3);
}

#[test]
fn each_change_of_the_merged_filter_is_reported_once_by_the_records_of_rfc_3810() {
    let mut stage = proxy(|config| config.fast_leave = true);
    let all = wishes();
    for before in &all {
        for after in &all {
            wants(&mut stage, 0, Wish::Nothing);
            wants(&mut stage, 0, *before);
            stage.words();
            wants(&mut stage, 0, *after);
            let mut expected = Vec::new();
            let mut say = |what: &str, set: u8, always: bool| {
                let numbers: Vec<_> = subset(set).iter().map(u16::to_string).collect();
                if always || set != 0 {
                    expected.push(format!("{what} {ASM} {{{}}}", numbers.join(" ")));
                }
            };
            // RFC 3810 §6.1. Nothing is INCLUDE of nothing.
            let include = |wish| match wish {
                Wish::Nothing => Wish::Include(0),
                Wish::Include(_) | Wish::Exclude(_) => wish,
            };
            match (include(*before), include(*after)) {
                (Wish::Include(before), Wish::Include(after)) => {
                    say("ALLOW", after & !before, false);
                    say("BLOCK", before & !after, false);
                }
                (Wish::Exclude(before), Wish::Exclude(after)) => {
                    say("ALLOW", before & !after, false);
                    say("BLOCK", after & !before, false);
                }
                (Wish::Include(_), Wish::Exclude(after)) => say("TO_EX", after, true),
                (Wish::Exclude(_), Wish::Include(after)) => say("TO_IN", after, true),
                (Wish::Nothing, _) | (_, Wish::Nothing) => unreachable!("it includes nothing"),
            }
            assert_eq!(stage.words(), expected, "{before:?} to {after:?}");
        }
    }
}

#[test]
fn a_filter_with_more_than_64_sources_keeps_those_that_it_has() {
    let mut stage = proxy(|_| {});
    let first: Vec<u16> = (1..=64).collect();
    let second: Vec<u16> = (101..=164).collect();
    stage.says(0, 1, Allow, SSM, &first);
    stage.says(1, 2, Allow, SSM, &second);
    let joined = |stage: &Stage| stage.kernel.multicast.memberships[&SSM].sources.clone();
    assert_eq!(joined(&stage), sources(&first).into_iter().collect());
    // Where one goes, another one of those that wait takes its place.
    stage.says(0, 1, Block, SSM, &[7]);
    stage.pass(3);
    let now = joined(&stage);
    let stay: BTreeSet<_> = sources(&first)
        .into_iter()
        .filter(|it| *it != source(7))
        .collect();
    assert_eq!((now.len(), now.is_superset(&stay)), (64, true));
    // What is excluded beyond that is not wanted, and is let in.
    stage.says(0, 1, ToExclude, ASM, &first);
    assert_eq!(stage.kernel.multicast.memberships[&ASM].sources.len(), 64);
}

#[test]
fn a_group_of_sources_is_one_group_upstream_however_many_links_want_it() {
    let mut stage = proxy(|_| {});
    stage.says(0, 1, Allow, SSM, &[1]);
    stage.says(1, 2, Allow, SSM, &[2]);
    stage.says(1, 2, Allow, SSM, &[1]);
    let words = [format!("ALLOW {SSM} {{1}}"), format!("ALLOW {SSM} {{2}}")];
    assert_eq!(
        stage.words(),
        words,
        "the last one changes nothing upstream"
    );
    assert_eq!(stage.joined(SSM), "in {1 2}");
    // One link loses both. The other one still has the first.
    stage.says(1, 2, ToInclude, SSM, &[]);
    stage.pass(3);
    assert_eq!(stage.joined(SSM), "in {1}");
    assert_eq!(stage.words().last(), Some(&format!("BLOCK {SSM} {{2}}")));
    let way = stage.way(Side::Upstream, source(1), SSM);
    assert_eq!(way, [Side::Downstream(0)]);
}
