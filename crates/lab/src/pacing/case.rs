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

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Figures {
    pub(super) shares: RateLimitShares,
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
| limit | headers | processes | used | refused | requests accepted | given up | out of order | goal |
|---|---|---|---|---|---|---|---|---|";

    pub(super) fn reach_goal(&self, case: Case) -> bool {
        let goal = case.goal();
        self.shares.used >= goal.used
            && self.shares.refused <= goal.refused
            && self.given_up == 0
            && self.out_of_order == 0
    }

    pub(super) fn row(&self, case: Case) -> String {
        let Case { rate, processes, .. } = case;
        let Self { shares, given_up, out_of_order } = self;
        let (used, refused) = (shares.used * 100.0, shares.refused * 100.0);
        let goal = if self.reach_goal(case) { "reached" } else { "missed" };
        let (form, accepted) = (case.form(), shares.counts.accepted);
        format!(
            "| {rate}/s | {form} | {processes} | {used:.1} % | {refused:.1} % | {accepted} | {given_up} | {out_of_order} | {goal} |"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receiver::SecondCounts;

    #[test]
    fn a_row_says_if_the_goal_of_its_case_is_reached() {
        let check = |fields, used, refused, given_up, expected: &str| {
            let case = Case { rate: 50, fields, processes: 3 };
            let counts = SecondCounts { accepted: 7, refused: 1 };
            let shares = RateLimitShares { used, refused, counts };
            assert_eq!(Figures { shares, given_up, out_of_order: 0 }.row(case), expected);
        };
        check(
            RateLimitFields::None,
            0.85,
            0.05,
            0,
            "| 50/s | none | 3 | 85.0 % | 5.0 % | 7 | 0 | 0 | reached |",
        );
        check(
            RateLimitFields::None,
            0.85,
            0.05,
            1,
            "| 50/s | none | 3 | 85.0 % | 5.0 % | 7 | 1 | 0 | missed |",
        );
        check(
            RateLimitFields::XRateLimit,
            0.94,
            0.03,
            0,
            "| 50/s | x-ratelimit | 3 | 94.0 % | 3.0 % | 7 | 0 | 0 | missed |",
        );
        check(
            RateLimitFields::XRateLimit,
            1.0,
            0.03,
            0,
            "| 50/s | x-ratelimit | 3 | 100.0 % | 3.0 % | 7 | 0 | 0 | reached |",
        );
    }
}
