//! A case, its figures, and what they should be.

use clap::ValueEnum as _;

use crate::receiver::{RateLimitFields, RateLimitShares};

/// One line of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Case {
    /// Requests per second that the target accepts.
    pub(super) rate: u32,
    pub(super) fields: RateLimitFields,
    /// Dispatchers.
    pub(super) processes: u16,
}

/// Which seconds of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// While the target works.
    Usual,
    /// From the end of its outage on.
    AfterOutage,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Figures {
    pub(super) phase: Phase,
    pub(super) shares: RateLimitShares,
    /// Most requests that came to the limit within one second.
    pub(super) most: u64,
    /// Updates that were dead-lettered, from the start on.
    pub(super) given_up: u64,
    /// Updates that came out of order or at the same time as another one of their record.
    pub(super) out_of_order: u64,
}

/// Least share of the limit that should be used, and highest share of refusals.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Goal {
    used: f64,
    refused: f64,
}

impl Case {
    fn goal(self) -> Goal {
        match self.fields {
            RateLimitFields::None | RateLimitFields::RetryAfter => Goal { used: 0.85, refused: 0.05 },
            RateLimitFields::RateLimit | RateLimitFields::XRateLimit | RateLimitFields::XRateLimitEpoch => {
                Goal { used: 0.95, refused: 0.03 }
            }
        }
    }

    /// The form of the header fields as on the command line.
    pub(super) fn form(self) -> String {
        let value = self.fields.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

impl Figures {
    pub(super) const HEAD: &str = "\
| limit | headers | processes | phase | used | refused | accepted | most in a second | given up | out of order | goal |
|---|---|---|---|---|---|---|---|---|---|---|";

    pub(super) fn reach_goal(&self, case: Case) -> bool {
        let goal = case.goal();
        // After an outage, the target is asked now and then at first.
        let used_enough = self.phase == Phase::AfterOutage || self.shares.used >= goal.used;
        used_enough && self.shares.refused <= goal.refused && self.given_up == 0 && self.out_of_order == 0
    }

    pub(super) fn row(&self, case: Case) -> String {
        let Case { rate, processes, .. } = case;
        let Self { phase, shares, most, given_up, out_of_order } = self;
        let phase = match phase {
            Phase::Usual => "usual",
            Phase::AfterOutage => "after an outage",
        };
        let (used, refused) = (shares.used * 100.0, shares.refused * 100.0);
        let goal = if self.reach_goal(case) { "reached" } else { "missed" };
        let (form, accepted) = (case.form(), shares.counts.accepted);
        format!(
            "| {rate}/s | {form} | {processes} | {phase} | {used:.1} % | {refused:.1} % | {accepted} | {most} | {given_up} | {out_of_order} | {goal} |"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receiver::SecondCounts;

    #[test]
    fn a_row_says_if_the_goal_of_its_case_is_reached() {
        let check = |fields, phase, used, refused, given_up, expected: &str| {
            let case = Case { rate: 50, fields, processes: 3 };
            let counts = SecondCounts { accepted: 7, refused: 1 };
            let shares = RateLimitShares { used, refused, counts };
            let figures = Figures { phase, shares, most: 8, given_up, out_of_order: 0 };
            assert_eq!(figures.row(case), format!("| 50/s | {expected} |"));
        };
        let (none, fields) = (RateLimitFields::None, RateLimitFields::XRateLimit);
        let (usual, after) = (Phase::Usual, Phase::AfterOutage);
        check(none, usual, 0.85, 0.05, 0, "none | 3 | usual | 85.0 % | 5.0 % | 7 | 8 | 0 | 0 | reached");
        check(none, usual, 0.85, 0.05, 1, "none | 3 | usual | 85.0 % | 5.0 % | 7 | 8 | 1 | 0 | missed");
        check(
            fields,
            usual,
            0.94,
            0.03,
            0,
            "x-ratelimit | 3 | usual | 94.0 % | 3.0 % | 7 | 8 | 0 | 0 | missed",
        );
        check(
            fields,
            usual,
            1.0,
            0.03,
            0,
            "x-ratelimit | 3 | usual | 100.0 % | 3.0 % | 7 | 8 | 0 | 0 | reached",
        );
        check(
            none,
            after,
            0.5,
            0.05,
            0,
            "none | 3 | after an outage | 50.0 % | 5.0 % | 7 | 8 | 0 | 0 | reached",
        );
        check(
            none,
            after,
            0.5,
            0.06,
            0,
            "none | 3 | after an outage | 50.0 % | 6.0 % | 7 | 8 | 0 | 0 | missed",
        );
    }
}
