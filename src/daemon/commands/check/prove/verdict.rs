//! What the gateway's solicitations prove.

use protocol::config::QUERY_INTERVAL;
use protocol::time::Duration;

/// What was heard while the gateway was made to answer one of the two addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// Echo requests sent from the address.
    pub requests: u32,
    /// Neighbor Solicitations for the address, sent to its group.
    pub solicitations: u32,
    /// Echo replies to the address.
    pub replies: u32,
}

/// What is known of a querier upstream. A switch that snoops floods while there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Querier {
    /// One was heard, now or by a running instance.
    Heard,
    /// None was heard in less than the time between two of its queries.
    Unknown,
    /// None was heard in that time.
    Absent,
}

impl Querier {
    /// What is known where one was heard or not, after listening for some time.
    pub fn of(was_heard: bool, listened: Duration) -> Self {
        match was_heard {
            true => Querier::Heard,
            false if listened < QUERY_INTERVAL => Querier::Unknown,
            false => Querier::Absent,
        }
    }
}

/// What is proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Solicitations arrive only in groups that somebody here has joined.
    Snoops,
    /// Solicitations arrive without a membership. With a querier, or where surely none is, this is
    /// how it stays.
    Floods,
    /// Solicitations arrive without a membership, which may be for want of a querier.
    FloodsNow,
    /// The gateway sends packets to this router without a solicitation: it routes the prefix here,
    /// or takes the link-layer address from what it receives.
    Unasked,
    /// Solicitations arrived only before the group was joined.
    OnlyBefore,
    /// A reply came before the group was joined, and solicitations only after.
    Mixed,
    /// Nothing was heard of the gateway.
    Silent,
}

impl Verdict {
    /// Judges what was heard of an address whose group nobody joined, and then of one whose group
    /// was joined.
    pub fn of(before: Heard, after: Heard, querier: Querier) -> Self {
        match (before.solicitations, after.solicitations) {
            (0, 0) if before.replies + after.replies > 0 => Verdict::Unasked,
            (0, 0) => Verdict::Silent,
            (0, _) if before.replies > 0 => Verdict::Mixed,
            (0, _) => Verdict::Snoops,
            (_, 0) => Verdict::OnlyBefore,
            (_, _) => match querier {
                Querier::Heard | Querier::Absent => Verdict::Floods,
                Querier::Unknown => Verdict::FloodsNow,
            },
        }
    }

    /// A stable name in snake_case.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Snoops => "snoops",
            Verdict::Floods => "floods",
            Verdict::FloodsNow => "floods_now",
            Verdict::Unasked => "unasked",
            Verdict::OnlyBefore => "only_before",
            Verdict::Mixed => "mixed",
            Verdict::Silent => "silent",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(solicitations: u32, replies: u32) -> Heard {
        Heard {
            requests: 3,
            solicitations,
            replies,
        }
    }

    #[test]
    fn it_snoops_only_if_every_solicitation_came_after_the_join() {
        for querier in [Querier::Heard, Querier::Unknown, Querier::Absent] {
            for after in 1..=3 {
                let verdict = Verdict::of(heard(0, 0), heard(after, 0), querier);
                assert_eq!(verdict, Verdict::Snoops);
                // An NDP proxy beside may have answered the gateway.
                let verdict = Verdict::of(heard(0, 0), heard(after, 3), querier);
                assert_eq!(verdict, Verdict::Snoops);
                let verdict = Verdict::of(heard(0, 1), heard(after, 3), querier);
                assert_eq!(verdict, Verdict::Mixed);
                let verdict = Verdict::of(heard(after, 0), heard(0, 0), querier);
                assert_eq!(verdict, Verdict::OnlyBefore);
                let verdict = Verdict::of(heard(after, 0), heard(after, 0), querier);
                assert_ne!(verdict, Verdict::Snoops);
            }
        }
    }

    #[test]
    fn that_it_floods_is_certain_only_where_the_querier_is_known() {
        for (querier, expected) in [
            (Querier::Heard, Verdict::Floods),
            (Querier::Absent, Verdict::Floods),
            (Querier::Unknown, Verdict::FloodsNow),
        ] {
            assert_eq!(Verdict::of(heard(3, 0), heard(3, 0), querier), expected);
        }
    }

    #[test]
    fn a_querier_is_absent_only_after_the_time_between_two_queries() {
        let (short, long) = (Duration::from_secs(124), Duration::from_secs(125));
        assert_eq!(Querier::of(false, short), Querier::Unknown);
        assert_eq!(Querier::of(false, long), Querier::Absent);
        assert_eq!(Querier::of(true, short), Querier::Heard);
        assert_eq!(Querier::of(true, long), Querier::Heard);
    }

    #[test]
    fn a_gateway_that_solicits_nothing_is_silent_or_needs_no_answer() {
        for querier in [Querier::Heard, Querier::Unknown, Querier::Absent] {
            let silent = Verdict::of(heard(0, 0), heard(0, 0), querier);
            assert_eq!(silent, Verdict::Silent);
            for (before, after) in [(3, 3), (0, 1), (1, 0)] {
                let verdict = Verdict::of(heard(0, before), heard(0, after), querier);
                assert_eq!(verdict, Verdict::Unasked);
            }
        }
    }
}
