//! Releasing and discarding, each with who and why. What has begun is done, even if its client is gone.

use std::sync::Arc;

use super::super::problem::{AdminProblem, ProblemCode};
use super::{ends, failed, not_parked};
use lanekeeper_core::update::RecordKey;
use lanekeeper_ledger::{
    AnyLedger, Discarded, Ledger as _, Operations as _, OperatorReason, ParkedRecord, ParkedState, Released,
    Selection, WHO_CHARS_MAX, WHY_CHARS_MAX,
};

/// Who changes something, and why: both must be said.
pub(in super::super) fn operator_reason(who: &str, why: &str) -> Result<OperatorReason, AdminProblem> {
    let checked = |name: &str, text: &str, max: usize| {
        let text = text.trim();
        let problem = |what: String| AdminProblem::new(ProblemCode::InvalidRequest, what);
        match text.chars().count() {
            0 => Err(problem(format!("`{name}` is missing or empty: it is kept with the change"))),
            count if count > max => Err(problem(format!("`{name}` may have {max} characters"))),
            _ => Ok(text.to_owned()),
        }
    };
    Ok(OperatorReason { who: checked("who", who, WHO_CHARS_MAX)?, why: checked("why", why, WHY_CHARS_MAX)? })
}

/// Fails if the record is not parked.
pub(super) async fn exists(ledger: &AnyLedger, record_key: &RecordKey) -> Result<(), AdminProblem> {
    let found = ledger.parked_record(record_key).await.map_err(|fault| failed(&fault))?;
    found.map(|_| ()).ok_or_else(not_parked)
}

/// The record, if it waits for a person; with `head_id`, only if that is still its oldest update.
pub(in super::super) async fn parked_as_seen(
    ledger: &AnyLedger,
    record_key: &RecordKey,
    head_id: Option<&str>,
) -> Result<ParkedRecord, AdminProblem> {
    let found = ledger.parked_record(record_key).await.map_err(|fault| failed(&fault))?;
    let record = found.ok_or_else(not_parked)?;
    if record.state == ParkedState::Releasing {
        return Err(releasing());
    }
    if head_id.is_some_and(|head_id| head_id != record.head_id) {
        return Err(AdminProblem::new(
            ProblemCode::Changed,
            "another update is the oldest one of the record by now: look at it again before you decide",
        ));
    }
    Ok(record)
}

fn releasing() -> AdminProblem {
    AdminProblem::new(
        ProblemCode::Releasing,
        "if its oldest update fails again, the record is parked again, and can be released or discarded",
    )
}

/// Releases records.
pub(in super::super) async fn release(
    ledger: Arc<AnyLedger>,
    selection: Selection,
    operator_reason: OperatorReason,
) -> Result<Released, AdminProblem> {
    let released = tokio::spawn(async move { ledger.release(&selection, &operator_reason).await });
    released.await.map_err(|_| ends())?.map_err(|fault| failed(&fault))
}

/// Discards the oldest `head` updates of a record, or all. Returns how many, and how many are left.
pub(in super::super) async fn discard(
    ledger: Arc<AnyLedger>,
    record_key: RecordKey,
    head: Option<u32>,
    operator_reason: OperatorReason,
) -> Result<(u64, u64), AdminProblem> {
    let discarded = tokio::spawn(async move { ledger.discard(&record_key, head, &operator_reason).await });
    match discarded.await.map_err(|_| ends())?.map_err(|fault| failed(&fault))? {
        Discarded::Done { updates, left } => Ok((updates, left)),
        Discarded::NotParked => Err(not_parked()),
        Discarded::Releasing => Err(releasing()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_has_a_name_and_a_reason() {
        let check = |who: &str, why: &str, part: &str| {
            let problem = operator_reason(who, why).unwrap_err();
            assert!(problem.detail().contains(part), "{part}: {}", problem.detail());
        };
        check("", "sent twice", "`who` is missing");
        check(" \n", "sent twice", "`who` is missing");
        check("Ada", "\t", "`why` is missing");
        check(&"a".repeat(WHO_CHARS_MAX + 1), "sent twice", "`who` may have 200 characters");
        check("Ada", &"ü".repeat(WHY_CHARS_MAX + 1), "`why` may have 2000 characters");
        let kept = operator_reason(" Ada ", &"ü".repeat(WHY_CHARS_MAX)).unwrap();
        assert_eq!(kept.who, "Ada");
    }
}
