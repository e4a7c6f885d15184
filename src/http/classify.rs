//! What an answer's status means: one table for all targets, with each target's own exceptions. What happens then is
//! decided in the core's `policy.rs`.

use std::collections::BTreeMap;

use lanekeeper_core::outcome::OutcomeKind;

/// The kind of outcome that a status stands for. `overrides` are the target's `outcomes`; they take precedence.
pub(super) fn classify(status: u16, overrides: &BTreeMap<u16, OutcomeKind>) -> OutcomeKind {
    if let Some(kind) = overrides.get(&status) {
        return *kind;
    }
    match status {
        200..=299 => OutcomeKind::Applied,
        // The target or our configuration is at fault, whatever the update. Redirects are never followed: that would
        // send the update to a place that nobody configured.
        300..=399 | 401 | 403 | 407 => OutcomeKind::Refused,
        409 | 412 | 428 => OutcomeKind::Conflict,
        408 | 425 | 429 | 500..=599 => OutcomeKind::Retryable,
        400..=499 => OutcomeKind::Rejected,
        // Interim answers (101) instead of a final one, and numbers that are no HTTP status.
        _ => OutcomeKind::Retryable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(statuses: impl IntoIterator<Item = u16>, expected: OutcomeKind) {
        for status in statuses {
            assert_eq!(classify(status, &BTreeMap::new()), expected, "{status}");
        }
    }

    #[test]
    fn every_status_has_one_meaning() {
        check(200..=299, OutcomeKind::Applied);
        check(300..=399, OutcomeKind::Refused);
        check([401, 403, 407], OutcomeKind::Refused);
        check([409, 412, 428], OutcomeKind::Conflict);
        check([408, 425, 429], OutcomeKind::Retryable);
        check(500..=599, OutcomeKind::Retryable);
        check([400, 402, 404, 405, 406, 410, 411, 413, 414, 415, 422, 451, 499], OutcomeKind::Rejected);
        check([0, 100, 101, 103, 199, 600, 999, u16::MAX], OutcomeKind::Retryable);
    }

    #[test]
    fn the_rest_of_4xx_is_rejected() {
        let named = [401, 403, 407, 409, 412, 428, 408, 425, 429];
        check((400..=499).filter(|status| !named.contains(status)), OutcomeKind::Rejected);
    }

    #[test]
    fn a_target_may_mean_something_else() {
        let overrides = BTreeMap::from([(404, OutcomeKind::Applied), (200, OutcomeKind::Retryable)]);
        assert_eq!(classify(404, &overrides), OutcomeKind::Applied);
        assert_eq!(classify(200, &overrides), OutcomeKind::Retryable);
        assert_eq!(classify(201, &overrides), OutcomeKind::Applied);
        assert_eq!(classify(410, &overrides), OutcomeKind::Rejected);
    }
}
