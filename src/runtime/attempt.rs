//! One attempt under way.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::core::breaker::Sign;
use crate::core::message::AttemptId;
use crate::core::outcome::{Cause, Failure, Outcome};
use crate::core::update::Update;
use crate::target::{Attempt, Target};

/// An attempt that ended.
pub(super) struct Ended {
    pub(super) attempt: AttemptId,
    pub(super) number: u32,
    pub(super) update: Arc<Update>,
    /// Whether it asked if its target, which is shut, works again.
    pub(super) probe: bool,
    pub(super) outcome: Outcome,
    /// What that says about the target as a whole.
    pub(super) sign: Sign,
    pub(super) took: Duration,
}

/// Makes it. It ends as failed, too, when `cut` changes.
pub(super) async fn make_attempt<T: Target>(
    target: Arc<T>,
    attempt: AttemptId,
    request: Attempt,
    probe: bool,
    mut cut: watch::Receiver<()>,
) -> Ended {
    let started = tokio::time::Instant::now();
    let (number, update) = (request.number, Arc::clone(&request.update));
    let (outcome, sign) = tokio::select! {
        biased;
        outcome = target.attempt(request) => {
            let sign = Sign::of(&outcome);
            (outcome, sign)
        }
        // Dropping the attempt closes its connection.
        Ok(()) = cut.changed() => {
            let detail = "cut off, since the partition was handed over".to_owned();
            let failure = Failure { cause: Cause::Connection, detail };
            (Outcome::Retryable { failure, retry_after: None }, Sign::Neither)
        }
    };
    Ended { attempt, number, update, probe, outcome, sign, took: started.elapsed() }
}
