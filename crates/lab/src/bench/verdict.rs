//! The verdict: a run has a figure only if the receiver saw every update, and the order was kept.

use std::fmt;

use crate::receiver::Report;

/// What has to arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Expected {
    pub(super) updates: u64,
    pub(super) records: u64,
}

/// What is wrong with a run: it has no figure then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong(Vec<String>);

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

/// Judges a run.
///
/// # Errors
/// Updates are missing, or updates of a record came out of order or at the same time.
pub(super) fn judge(report: &Report, expected: Expected) -> Result<(), Wrong> {
    let counts = &report.counts;
    let mut wrong = Vec::new();
    if counts.updates != expected.updates {
        wrong.push(format!("{} of {} updates arrived", counts.updates, expected.updates));
    }
    if report.records != expected.records {
        wrong.push(format!("{} records instead of {}", report.records, expected.records));
    }
    for (count, name) in [
        (counts.reorders, "reorders"),
        (counts.overlaps, "overlaps"),
        (counts.gaps, "gaps"),
        (counts.outdated, "records outdated"),
        (counts.key_mismatches, "records confused"),
        (counts.rejected, "requests rejected"),
        (counts.disconnected, "requests broken off"),
    ] {
        if count > 0 {
            wrong.push(format!("{count} {name}"));
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(Wrong(wrong)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receiver::Counts;

    fn check(counts: Counts, records: u64, expected: &str) {
        let report = Report { counts, records, ..Report::default() };
        let verdict = match judge(&report, Expected { updates: 10, records: 3 }) {
            Ok(()) => "OK".to_owned(),
            Err(wrong) => wrong.to_string(),
        };
        assert_eq!(verdict, expected);
    }

    #[test]
    fn whatever_is_missing_doubled_in_time_or_out_of_order_is_wrong() {
        let right = Counts { updates: 10, requests: 10, ..Counts::default() };
        check(right.clone(), 3, "OK");
        check(Counts { requests: 12, duplicates: 2, ..right.clone() }, 3, "OK");
        check(Counts { requests: 12, failed: 2, ..right.clone() }, 3, "OK");
        check(Counts { updates: 9, ..right.clone() }, 3, "9 of 10 updates arrived");
        check(right.clone(), 4, "4 records instead of 3");
        check(Counts { reorders: 1, overlaps: 2, ..right.clone() }, 3, "1 reorders, 2 overlaps");
        check(Counts { gaps: 1, outdated: 1, ..right.clone() }, 3, "1 gaps, 1 records outdated");
        check(Counts { key_mismatches: 1, ..right.clone() }, 3, "1 records confused");
        check(
            Counts { rejected: 1, disconnected: 1, ..right },
            3,
            "1 requests rejected, 1 requests broken off",
        );
    }
}
