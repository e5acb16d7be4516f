//! The filter that a router keeps for one group on one link, and what a record changes in it: the
//! twelve rows of RFC 3810 §7.4.
//!
//! The RFC writes each row with sets of sources. Set algebra works source by source, so a row is
//! told here by what becomes of one source, whether it is known or not, and listed in the record or
//! not. What becomes of the group follows from its filter mode and the type of the record.

use crate::wire::RecordType;

/// A filter mode (RFC 3810 §7.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterMode {
    Include,
    Exclude,
}

/// The list in which a router keeps a source (RFC 3810 §7.2.1, §7.2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    /// INCLUDE(A), or X of EXCLUDE(X,Y), the Requested List. The source's timer runs.
    Requested,
    /// Y of EXCLUDE(X,Y), the Exclude List. The source has no timer.
    Excluded,
}

/// What becomes of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It stays as it is: in its list with its timer, or unknown.
    Stay,
    /// It is in the Requested List, and its timer runs anew.
    Request(SourceTimer),
    /// It is in the Exclude List.
    Exclude,
    Forget,
}

/// What the timer of a source is set to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceTimer {
    /// The Multicast Address Listening Interval (RFC 3810 §9.4).
    ListeningInterval,
    /// What the filter timer was before the record.
    FilterTimer,
}

/// What a record does to one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceRuling {
    pub fate: Fate,
    /// The source is among those of a Multicast Address and Source Specific Query, Q(MA,A).
    pub query: bool,
}

/// What a record does to the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupRuling {
    pub mode: FilterMode,
    /// The filter timer is set to the Multicast Address Listening Interval.
    pub restarts_filter_timer: bool,
    /// A Multicast Address Specific Query, Q(MA), is sent.
    pub query: bool,
}

/// What a record does to a source in a list, or to one that is not known. `None` for a record of
/// an unknown type, which changes nothing (RFC 3810 §5.2.12).
pub fn rule_on_source(
    mode: FilterMode,
    record: RecordType,
    known: Option<List>,
    is_listed: bool,
) -> Option<SourceRuling> {
    use Fate::{Exclude, Forget, Request, Stay};
    use SourceTimer::{FilterTimer, ListeningInterval};

    let is_requested = known == Some(List::Requested);
    let (fate, query) = match (mode, record) {
        // INCLUDE(A)     IS_IN(B), ALLOW(B)  INCLUDE(A+B)          (B)=MALI
        // EXCLUDE(X,Y)   IS_IN(A), ALLOW(A)  EXCLUDE(X+A,Y-A)      (A)=MALI
        (_, RecordType::ModeIsInclude | RecordType::AllowNewSources) => match is_listed {
            true => (Request(ListeningInterval), false),
            false => (Stay, false),
        },
        // INCLUDE(A)     TO_IN(B)            INCLUDE(A+B)          (B)=MALI; Q(MA,A-B)
        // EXCLUDE(X,Y)   TO_IN(A)            EXCLUDE(X+A,Y-A)      (A)=MALI; Q(MA,X-A), Q(MA)
        (_, RecordType::ChangeToInclude) => match is_listed {
            true => (Request(ListeningInterval), false),
            false => (Stay, is_requested),
        },
        // INCLUDE(A)     IS_EX(B)            EXCLUDE(A*B,B-A)      (B-A)=0; delete (A-B)
        // INCLUDE(A)     TO_EX(B)            EXCLUDE(A*B,B-A)      the same; Q(MA,A*B)
        (FilterMode::Include, RecordType::ModeIsExclude | RecordType::ChangeToExclude) => {
            match (is_listed, is_requested) {
                (true, true) => (Stay, record == RecordType::ChangeToExclude),
                (true, false) => (Exclude, false),
                (false, _) => (Forget, false),
            }
        }
        // INCLUDE(A)     BLOCK(B)            INCLUDE(A)            Q(MA,A*B)
        (FilterMode::Include, RecordType::BlockOldSources) => (Stay, is_listed && is_requested),
        // EXCLUDE(X,Y)   IS_EX(A)            EXCLUDE(A-Y,Y*A)      (A-X-Y)=MALI;
        //                                              delete (X-A), (Y-A)
        (FilterMode::Exclude, RecordType::ModeIsExclude) => match (is_listed, known) {
            (true, Some(_)) => (Stay, false),
            (true, None) => (Request(ListeningInterval), false),
            (false, _) => (Forget, false),
        },
        // EXCLUDE(X,Y)   TO_EX(A)            EXCLUDE(A-Y,Y*A)      (A-X-Y)=filter timer;
        //                                              delete (X-A), (Y-A); Q(MA,A-Y)
        (FilterMode::Exclude, RecordType::ChangeToExclude) => match (is_listed, known) {
            (true, Some(_)) => (Stay, is_requested),
            (true, None) => (Request(FilterTimer), true),
            (false, _) => (Forget, false),
        },
        // EXCLUDE(X,Y)   BLOCK(A)            EXCLUDE(X+(A-Y),Y)    (A-X-Y)=filter timer; Q(MA,A-Y)
        (FilterMode::Exclude, RecordType::BlockOldSources) => match (is_listed, known) {
            (true, Some(_)) => (Stay, is_requested),
            (true, None) => (Request(FilterTimer), true),
            (false, _) => (Stay, false),
        },
        (_, RecordType::Unknown(_)) => return None,
    };
    Some(SourceRuling { fate, query })
}

/// What a record does to a group. `None` for a record of an unknown type.
pub fn rule_on_group(mode: FilterMode, record: RecordType) -> Option<GroupRuling> {
    let excludes = match record {
        RecordType::ModeIsExclude | RecordType::ChangeToExclude => true,
        RecordType::ModeIsInclude
        | RecordType::ChangeToInclude
        | RecordType::AllowNewSources
        | RecordType::BlockOldSources => false,
        RecordType::Unknown(_) => return None,
    };
    Some(GroupRuling {
        mode: if excludes { FilterMode::Exclude } else { mode },
        restarts_filter_timer: excludes,
        query: mode == FilterMode::Exclude && record == RecordType::ChangeToInclude,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A set of the three sources 0, 1 and 2, by its bits.
    type Set = u8;
    const ALL: Set = 0b111;

    /// What a row leaves behind: INCLUDE(requested) or EXCLUDE(requested, excluded), the sources
    /// whose timers are set, those in the query, and what happens to the group.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct After {
        mode: FilterMode,
        requested: Set,
        excluded: Set,
        listening_interval: Set,
        filter_timer: Set,
        queried: Set,
        queries_group: bool,
        restarts_filter_timer: bool,
    }

    /// The rows as RFC 3810 §7.4 writes them, by set algebra. `x` is A in INCLUDE(A).
    fn rows(mode: FilterMode, x: Set, y: Set, record: RecordType, b: Set) -> After {
        use FilterMode::{Exclude, Include};
        use RecordType as Type;
        let minus = |one: Set, other: Set| one & !other;
        let stay = After {
            mode,
            requested: x,
            excluded: y,
            listening_interval: 0,
            filter_timer: 0,
            queried: 0,
            queries_group: false,
            restarts_filter_timer: false,
        };
        match (mode, record) {
            (Include, Type::ModeIsInclude | Type::AllowNewSources) => After {
                requested: x | b,
                listening_interval: b,
                ..stay
            },
            (Include, Type::ModeIsExclude) => After {
                mode: Exclude,
                requested: x & b,
                excluded: minus(b, x),
                restarts_filter_timer: true,
                ..stay
            },
            (Include, Type::BlockOldSources) => After {
                queried: x & b,
                ..stay
            },
            (Include, Type::ChangeToExclude) => After {
                mode: Exclude,
                requested: x & b,
                excluded: minus(b, x),
                queried: x & b,
                restarts_filter_timer: true,
                ..stay
            },
            (Include, Type::ChangeToInclude) => After {
                requested: x | b,
                listening_interval: b,
                queried: minus(x, b),
                ..stay
            },
            (Exclude, Type::ModeIsInclude | Type::AllowNewSources) => After {
                requested: x | b,
                excluded: minus(y, b),
                listening_interval: b,
                ..stay
            },
            (Exclude, Type::ModeIsExclude) => After {
                requested: minus(b, y),
                excluded: y & b,
                listening_interval: minus(minus(b, x), y),
                restarts_filter_timer: true,
                ..stay
            },
            (Exclude, Type::BlockOldSources) => After {
                requested: x | minus(b, y),
                filter_timer: minus(minus(b, x), y),
                queried: minus(b, y),
                ..stay
            },
            (Exclude, Type::ChangeToExclude) => After {
                requested: minus(b, y),
                excluded: y & b,
                filter_timer: minus(minus(b, x), y),
                queried: minus(b, y),
                restarts_filter_timer: true,
                ..stay
            },
            (Exclude, Type::ChangeToInclude) => After {
                requested: x | b,
                excluded: minus(y, b),
                listening_interval: b,
                queried: minus(x, b),
                queries_group: true,
                ..stay
            },
            (_, Type::Unknown(_)) => stay,
        }
    }

    /// What the rulings on each source and on the group leave behind.
    fn ruled(mode: FilterMode, x: Set, y: Set, record: RecordType, b: Set) -> After {
        let group = rule_on_group(mode, record).unwrap();
        let mut after = After {
            mode: group.mode,
            requested: 0,
            excluded: 0,
            listening_interval: 0,
            filter_timer: 0,
            queried: 0,
            queries_group: group.query,
            restarts_filter_timer: group.restarts_filter_timer,
        };
        for source in [0b001, 0b010, 0b100] {
            let known = match (x & source, y & source) {
                (0, 0) => None,
                (_, 0) => Some(List::Requested),
                _ => Some(List::Excluded),
            };
            let ruling = rule_on_source(mode, record, known, b & source != 0).unwrap();
            let list = match ruling.fate {
                Fate::Stay => known,
                Fate::Exclude => Some(List::Excluded),
                Fate::Forget => None,
                Fate::Request(timer) => {
                    match timer {
                        SourceTimer::ListeningInterval => after.listening_interval |= source,
                        SourceTimer::FilterTimer => after.filter_timer |= source,
                    }
                    Some(List::Requested)
                }
            };
            match list {
                Some(List::Requested) => after.requested |= source,
                Some(List::Excluded) => after.excluded |= source,
                None => {}
            }
            if ruling.query {
                after.queried |= source;
            }
        }
        after
    }

    const TYPES: [RecordType; 6] = [
        RecordType::ModeIsInclude,
        RecordType::ModeIsExclude,
        RecordType::ChangeToInclude,
        RecordType::ChangeToExclude,
        RecordType::AllowNewSources,
        RecordType::BlockOldSources,
    ];

    #[test]
    fn each_row_does_to_all_sets_of_three_sources_what_its_set_algebra_says() {
        let mut cases = 0;
        for record in TYPES {
            for b in 0..=ALL {
                for x in 0..=ALL {
                    let include = FilterMode::Include;
                    let expected = rows(include, x, 0, record, b);
                    assert_eq!(ruled(include, x, 0, record, b), expected, "{record:?}");
                    cases += 1;
                    // X and Y have no source in common.
                    for y in (0..=ALL).filter(|y| x & y == 0) {
                        let exclude = FilterMode::Exclude;
                        let expected = rows(exclude, x, y, record, b);
                        assert_eq!(ruled(exclude, x, y, record, b), expected, "{record:?}");
                        cases += 1;
                    }
                }
            }
        }
        assert_eq!(cases, 6 * 8 * (8 + 27));
    }

    #[test]
    fn a_record_of_an_unknown_type_changes_nothing() {
        for mode in [FilterMode::Include, FilterMode::Exclude] {
            let record = RecordType::Unknown(7);
            assert_eq!(rule_on_group(mode, record), None);
            assert_eq!(rule_on_source(mode, record, None, true), None);
        }
    }
}
