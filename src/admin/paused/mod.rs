//! What people have paused: read, paused and resumed. Pages and API call the same functions, which commands do, too
//! ([`crate::pausing`]).

pub(super) mod api;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::Parts;
use super::fields::Fields;
use super::parked::{ends, failed, record_key};
use super::problem::{AdminProblem, ProblemCode};
use crate::pausing::{self, PauseError, ResumedRecord};
use lanekeeper_core::update::RecordKey;
use lanekeeper_ledger::{AnyLedger, Operations as _, OperatorReason, Pause, PausedRecord, PausedTarget};

const LIMIT_DEFAULT: u32 = 50;
const LIMIT_MAX: u32 = 500;
/// How long the ledger may take to say if a target is paused, on a page that has more to say.
const LEDGER_TIMEOUT: Duration = Duration::from_secs(2);

/// Some of what is paused, and where the next ones begin; `None`: there are no more.
pub(super) struct Listed<T> {
    pub(super) some: Vec<T>,
    pub(super) next: Option<String>,
}

impl<T> Listed<T> {
    /// `some`: one more than `limit`, if there are more.
    fn of(mut some: Vec<T>, limit: u32, key: impl Fn(&T) -> &str) -> Self {
        let limit = limit as usize;
        let has_more = some.len() > limit;
        some.truncate(limit);
        let next = some.last().filter(|_| has_more).map(|last| key(last).to_owned());
        Self { some, next }
    }
}

/// How many are asked for.
pub(super) fn limit(fields: &Fields) -> Result<u32, AdminProblem> {
    let Some(text) = fields.get("limit") else { return Ok(LIMIT_DEFAULT) };
    text.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit)).ok_or_else(|| {
        let detail = format!("`limit` is not understood: 1 to {LIMIT_MAX}");
        AdminProblem::new(ProblemCode::InvalidRequest, detail)
    })
}

/// Paused targets by name, behind the one of this name.
pub(super) async fn targets(
    ledger: &AnyLedger,
    after: Option<&str>,
    limit: u32,
) -> Result<Listed<PausedTarget>, AdminProblem> {
    let mut all = ledger.paused_targets().await.map_err(|fault| failed(&fault))?;
    // The order of a database can be that of a language.
    all.sort_by(|one, other| one.name.cmp(&other.name));
    all.retain(|target| after.is_none_or(|after| target.name.as_str() > after));
    Ok(Listed::of(all, limit, |target| &target.name))
}

/// Paused records by key, behind the one with this key.
pub(super) async fn records(
    ledger: &AnyLedger,
    after: Option<&str>,
    limit: u32,
) -> Result<Listed<PausedRecord>, AdminProblem> {
    let after = after.map(record_key).transpose()?;
    let found = ledger.paused_records(after.as_ref(), limit + 1).await.map_err(|fault| failed(&fault))?;
    Ok(Listed::of(found, limit, |record| record.record_key.as_str()))
}

/// Since when a target is paused, by whom and why; `None`: it is not.
pub(super) async fn pause_of_target(parts: &Parts, name: &str) -> Result<Option<Pause>, AdminProblem> {
    let ledger = parts.ledger.open()?;
    let asked = timeout(LEDGER_TIMEOUT, pausing::pause_of_target(&ledger, name)).await;
    let late = |_| {
        let detail = format!("it did not answer within {} s", LEDGER_TIMEOUT.as_secs());
        AdminProblem::new(ProblemCode::LedgerFailed, detail)
    };
    asked.map_err(late)?.map_err(|fault| failed(&fault))
}

pub(super) fn refused(error: &PauseError) -> AdminProblem {
    let code = match error {
        PauseError::UnknownTarget(_) => ProblemCode::UnknownTarget,
        PauseError::AlreadyPaused { .. } => ProblemCode::AlreadyPaused,
        PauseError::NotPaused(_) => ProblemCode::NotPaused,
        PauseError::TooManyPaused(_) => ProblemCode::TooManyPaused,
        PauseError::Ledger(fault) => return failed(fault),
    };
    AdminProblem::new(code, error.to_string())
}

pub(super) async fn pause_target(
    parts: &Parts,
    name: String,
    operator_reason: OperatorReason,
) -> Result<(), AdminProblem> {
    let (ledger, config) = (parts.ledger.open()?, parts.config.borrow().clone());
    to_its_end(async move { pausing::pause_target(&ledger, &config, &name, &operator_reason).await }).await
}

pub(super) async fn resume_target(
    parts: &Parts,
    name: String,
    operator_reason: OperatorReason,
) -> Result<(), AdminProblem> {
    let (ledger, config) = (parts.ledger.open()?, parts.config.borrow().clone());
    to_its_end(async move { pausing::resume_target(&ledger, &config, &name, &operator_reason).await }).await
}

pub(super) async fn pause_record(
    ledger: Arc<AnyLedger>,
    record_key: RecordKey,
    operator_reason: OperatorReason,
) -> Result<(), AdminProblem> {
    to_its_end(async move { pausing::pause_record(&ledger, &record_key, &operator_reason).await }).await
}

pub(super) async fn resume_record(
    ledger: Arc<AnyLedger>,
    record_key: RecordKey,
    operator_reason: OperatorReason,
) -> Result<ResumedRecord, AdminProblem> {
    to_its_end(async move { pausing::resume_record(&ledger, &record_key, &operator_reason).await }).await
}

/// What has begun is done, even if its client is gone.
async fn to_its_end<T: Send + 'static>(
    change: impl Future<Output = Result<T, PauseError>> + Send + 'static,
) -> Result<T, AdminProblem> {
    tokio::spawn(change).await.map_err(|_| ends())?.map_err(|error| refused(&error))
}
