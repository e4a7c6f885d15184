//! One attempt: ask the ledger, look at the fence once more, send.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::ledger_client::{LedgerClient, Preflight};
use crate::http::{Attempt, AttemptReceipt, SendGuard, Target, TraceHeaders};
use crate::telemetry::AttemptTrace;
use lanekeeper_broker::Clock;
use lanekeeper_core::breaker::HealthSignal;
use lanekeeper_core::message::{AttemptId, Holder, TenureNumber};
use lanekeeper_core::outcome::{Cause, Failure, Outcome};
use lanekeeper_core::tick::Tick;
use lanekeeper_core::update::Update;
use lanekeeper_ledger::{Ledger, RecordLock};

/// Until when requests of a tenure may be sent. An attempt looks at it when it has waited for the ledger, and once more when
/// its request is written to a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fence {
    /// Counts tenures: one without a number is told from the next by it.
    pub(super) session: u64,
    /// The tenure's number.
    pub(super) tenure: Option<TenureNumber>,
    /// `None`: none may be sent.
    pub(super) until: Option<Tick>,
}

/// An attempt to make.
#[derive(Debug)]
pub(super) struct PendingAttempt<T, L> {
    pub(super) target: Arc<T>,
    /// `None`: there is no ledger.
    pub(super) ledger_client: Option<LedgerClient<L>>,
    pub(super) clock: Clock,
    pub(super) fence: watch::Receiver<Fence>,
    /// That of the fence, when the attempt began.
    pub(super) session: u64,
    pub(super) attempt: AttemptId,
    pub(super) number: u32,
    pub(super) tenure: Option<TenureNumber>,
    pub(super) holder: Holder,
    pub(super) update: Arc<Update>,
    /// Its target is shut: the attempt shows if it works again.
    pub(super) probe: bool,
    /// It has a permit of its target.
    pub(super) permit: bool,
    /// `None`: traces are off.
    pub(super) trace: Option<AttemptTrace>,
}

/// An attempt that ended.
#[derive(Debug)]
pub(super) struct FinishedAttempt {
    pub(super) attempt: AttemptId,
    pub(super) number: u32,
    pub(super) update: Arc<Update>,
    pub(super) probe: bool,
    pub(super) permit: bool,
    pub(super) outcome: Outcome,
    /// What the outcome says about the target as a whole.
    pub(super) signal: HealthSignal,
    pub(super) receipt: AttemptReceipt,
    /// The record's row, held until the outcome is written down or dropped.
    pub(super) lock: Option<RecordLock>,
    /// When the request was begun.
    pub(super) began: Tick,
    /// The request alone.
    pub(super) took: Duration,
    /// `None`: traces are off.
    pub(super) trace: Option<AttemptTrace>,
}

impl<T: Target, L: Ledger> PendingAttempt<T, L> {
    /// Makes the attempt. Ends early if `abort` is cancelled: dropping the request closes its connection.
    pub(super) async fn run(mut self, abort: CancellationToken) -> FinishedAttempt {
        let (attempt, number, update) = (self.attempt, self.number, Arc::clone(&self.update));
        let (probe, permit, mut trace) = (self.probe, self.permit, self.trace.take());
        let trace_headers = trace.as_ref().map(AttemptTrace::headers);
        let (begun, clock) = (tokio::time::Instant::now(), self.clock);
        let (outcome, signal, receipt, lock, took) = tokio::select! {
            biased;
            (outcome, receipt, lock, took) = self.perform(trace_headers) => {
                let signal = HealthSignal::of(&outcome);
                let signal = if receipt.of_target { signal.of_target() } else { signal };
                (outcome, signal, receipt, lock, took)
            }
            () = abort.cancelled() => {
                let detail = "aborted, since the partition was handed over".to_owned();
                let failure = Failure { cause: Cause::Connection, detail };
                let outcome = Outcome::Retryable { failure, retry_after: None };
                (outcome, HealthSignal::Neutral, AttemptReceipt::default(), None, begun.elapsed())
            }
        };
        if let Some(trace) = &mut trace {
            trace.ended();
        }
        // Rounded down.
        let began = Tick::from_micros(
            clock
                .now()
                .micros()
                .saturating_sub(u64::try_from(took.as_micros()).unwrap_or(u64::MAX).saturating_add(1)),
        );
        FinishedAttempt {
            attempt,
            number,
            update,
            probe,
            permit,
            outcome,
            signal,
            receipt,
            lock,
            began,
            took,
            trace,
        }
    }

    async fn perform(
        self,
        trace: Option<Arc<TraceHeaders>>,
    ) -> (Outcome, AttemptReceipt, Option<RecordLock>, Duration) {
        let unsent = |outcome| (outcome, AttemptReceipt::default(), None, Duration::ZERO);
        let clear = may_send(self.fence, self.clock, (self.session, self.tenure));
        let (etag, lock) = match &self.ledger_client {
            None if clear() => (None, None),
            None => return unsent(Outcome::Withheld),
            // Boxed: every attempt would carry the ledger's future, which is many times the size of the rest.
            Some(ledger_client) => match Box::pin(ledger_client.lookup(&self.update, self.holder)).await {
                Preflight::Send { etag, lock } if clear() => (etag, lock),
                Preflight::Send { .. } | Preflight::Silent => return unsent(Outcome::Withheld),
                Preflight::Known(known) => return unsent(Outcome::Known(known)),
            },
        };
        let request = Attempt {
            update: self.update,
            number: self.number,
            tenure: self.tenure.map(|TenureNumber(number)| number),
            etag,
            // Looked at again when it is written to its connection.
            send_guard: SendGuard::new(clear),
            trace,
        };
        let begun = tokio::time::Instant::now();
        let (outcome, receipt) = self.target.send(request).await;
        (outcome, receipt, lock, begun.elapsed())
    }
}

/// Returns what returns true while requests of `tenure` may be sent.
fn may_send(
    fence: watch::Receiver<Fence>,
    clock: Clock,
    tenure: (u64, Option<TenureNumber>),
) -> impl Fn() -> bool + Send + Sync + 'static {
    move || {
        let fence = *fence.borrow();
        (fence.session, fence.tenure) == tenure && fence.until.is_some_and(|until| clock.now() <= until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::current::CurrentTargets;
    use lanekeeper_ledger::AnyLedger;

    fn size_of_output<A, F: Future>(_: impl FnOnce(A) -> F) -> usize {
        size_of::<F>()
    }

    #[tokio::test]
    async fn a_tenure_without_a_number_is_told_from_the_next_one() {
        let fence = |session| Fence { session, tenure: None, until: Some(Tick::from_micros(u64::MAX)) };
        let (changed, seen) = watch::channel(fence(1));
        let may = may_send(seen, Clock::start(), (1, None));
        assert!(may());
        changed.send_replace(fence(2));
        assert!(!may(), "the next tenure has no number either");
    }

    /// It is allocated, moved and freed for every attempt: at 16 KiB it was the most expensive allocation of all.
    #[test]
    fn an_attempt_under_way_is_small() {
        let size = size_of_output(
            |(attempt, abort): (PendingAttempt<CurrentTargets, AnyLedger>, CancellationToken)| {
                attempt.run(abort)
            },
        );
        assert!(size <= ATTEMPT_BYTES_MAX, "{size} bytes");
    }

    const ATTEMPT_BYTES_MAX: usize = 4096;
}
