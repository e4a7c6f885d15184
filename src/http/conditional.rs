//! Decides which precondition a request carries, and whether to fetch the record's `ETag` if the precondition fails
//! (RFC 9110, section 13; RFC 6585, section 3).

use std::sync::Arc;

use crate::config::{FirstContact, IfMatch};
use lanekeeper_core::outcome::{Cause, Failure, Outcome};

use super::Attempt;

/// How often one attempt fetches the record's `ETag`. If another writer is faster each time, the attempt ends as conflict.
pub(super) const FETCHES_MAX: u32 = 3;

/// What must hold at the target for the update to be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Precondition {
    /// No condition.
    None,
    /// The record has this `ETag`: `If-Match`.
    Match(Arc<str>),
    /// The record does not exist: `If-None-Match: *`.
    Absent,
}

/// What an attempt does first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FirstStep {
    /// Send the update with this precondition.
    Send(Precondition),
    /// Fetch the record's `ETag`, then send the update.
    Fetch,
}

/// The first step of an attempt. The publisher's `if-match` takes precedence over the known `ETag`.
pub(super) fn first(attempt: &Attempt, if_match: IfMatch, first_contact: FirstContact) -> FirstStep {
    if let Some(etag) = &attempt.update.if_match {
        return FirstStep::Send(Precondition::Match(etag.as_str().into()));
    }
    match (if_match, &attempt.etag, first_contact) {
        (IfMatch::Header, _, _) => FirstStep::Send(Precondition::None),
        (IfMatch::Auto, Some(etag), _) => FirstStep::Send(Precondition::Match(etag.as_str().into())),
        (IfMatch::Auto, None, FirstContact::Create) => FirstStep::Send(Precondition::Absent),
        (IfMatch::Auto, None, FirstContact::Get) => FirstStep::Fetch,
    }
}

/// Whether to fetch the record's `ETag` and send the update again: 428 asks for a precondition, and 412 for a newer one if
/// `failure.conflict = "refetch"` of the target.
pub(super) fn asks_for_etag(outcome: &Outcome, refetch: bool) -> bool {
    match outcome {
        Outcome::Conflict(Failure { cause: Cause::Status(428), .. }) => true,
        Outcome::Conflict(Failure { cause: Cause::Status(412), .. }) => refetch,
        _ => false,
    }
}

/// A target that compares as the RFC says never finds a weak `ETag` equal in `If-Match` (RFC 9110, section 13.1.1), whatever
/// the record's state: the failure says so.
pub(super) fn name_weak_etag(outcome: Outcome, sent: &Precondition) -> Outcome {
    match (outcome, sent) {
        (
            Outcome::Conflict(Failure { cause: cause @ Cause::Status(412), detail }),
            Precondition::Match(etag),
        ) if etag.starts_with("W/") => {
            let hint = "the ETag that was sent in If-Match is weak (W/…), which a strong comparison never finds equal";
            let detail = if detail.is_empty() { hint.to_owned() } else { format!("{hint}; {detail}") };
            Outcome::Conflict(Failure { cause, detail })
        }
        (outcome, _) => outcome,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lanekeeper_core::routes::TargetId;
    use lanekeeper_core::update::{RecordKey, Update, UpdateId};

    fn check(
        asked: Option<&str>,
        known: Option<&str>,
        if_match: IfMatch,
        contact: FirstContact,
        expected: &FirstStep,
    ) {
        let update = Update {
            record_key: RecordKey::new("k").unwrap(),
            id: UpdateId::published("u"),
            target: TargetId(0),
            update_type: None,
            version: None,
            content_type: None,
            content_encoding: None,
            if_match: asked.map(ToOwned::to_owned),
            published_at: None,
            headers: Vec::new(),
            body: bytes::Bytes::new(),
        };
        let etag = known.map(ToOwned::to_owned);
        let attempt = Attempt {
            update: Arc::new(update),
            number: 1,
            tenure: None,
            etag,
            send_guard: crate::http::SendGuard::always(),
            trace: None,
        };
        assert_eq!(
            first(&attempt, if_match, contact),
            *expected,
            "{asked:?} {known:?} {if_match:?} {contact:?}"
        );
    }

    #[test]
    fn the_publishers_word_stands_over_what_is_known() {
        use FirstContact::{Create, Get};
        use IfMatch::{Auto, Header};
        let matching = |etag: &str| FirstStep::Send(Precondition::Match(etag.into()));
        check(Some("p"), Some("k"), Auto, Get, &matching("p"));
        check(Some("p"), None, Header, Get, &matching("p"));
        check(None, Some("k"), Header, Get, &FirstStep::Send(Precondition::None));
        check(None, Some("k"), Auto, Create, &matching("k"));
        check(None, None, Auto, Create, &FirstStep::Send(Precondition::Absent));
        check(None, None, Auto, Get, &FirstStep::Fetch);
    }

    #[test]
    fn only_missing_and_outdated_preconditions_are_fetched_again() {
        let conflict =
            |status| Outcome::Conflict(Failure { cause: Cause::Status(status), detail: String::new() });
        for (status, refetch, expected) in
            [(428, false, true), (412, false, false), (412, true, true), (409, true, false)]
        {
            assert_eq!(asks_for_etag(&conflict(status), refetch), expected, "{status}");
        }
        assert!(!asks_for_etag(&Outcome::Applied, true));
    }
}
