//! Releases all records that a search finds, so many in a second. One such release runs at a time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::super::problem::{AdminProblem, ProblemCode};
use super::search::{ParkedSearch, format_ms};
use crate::config::Config;
use lanekeeper_core::error::error_chain;
use lanekeeper_ledger::{
    AnyLedger, LedgerError, Operations as _, OperatorReason, ParkedCursor, ParkedFilter, ParkedState,
    Selection,
};

/// The most records in a second. All of a second are one transaction.
pub(in super::super) const RATE_MAX: u32 = 200;

/// The release by a search that runs or ran last in this process. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct FoundRelease(Arc<Mutex<Option<Running>>>);

#[derive(Debug)]
struct Running {
    stop: CancellationToken,
    shown: FoundReleaseJson,
}

/// How far it is.
#[derive(Clone, Debug, Serialize)]
pub(in super::super) struct FoundReleaseJson {
    pub(in super::super) state: FoundReleaseState,
    /// Of which records, in words.
    pub(in super::super) of: String,
    pub(in super::super) rate_per_second: u32,
    pub(in super::super) records: u64,
    pub(in super::super) updates: u64,
    /// Records that were passed over, since a person has paused them.
    pub(in super::super) paused: u64,
    pub(in super::super) who: String,
    pub(in super::super) why: String,
    pub(in super::super) begun: String,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in super::super) fault: Option<String>,
}

/// Whether it runs, and how it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(in super::super) enum FoundReleaseState {
    Running,
    /// All that the search finds are released.
    Done,
    /// A person has stopped it.
    Stopped,
    /// The ledger could not be used.
    Failed,
}

impl FoundReleaseState {
    pub(in super::super) fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done => "done",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        }
    }
}

impl FoundRelease {
    /// The one that runs or ran last; `None`: there was none since this process started.
    pub(in super::super) fn shown(&self) -> Option<FoundReleaseJson> {
        self.running().as_ref().map(|running| running.shown.clone())
    }

    /// Begins. Records that are parked from now on are not released: one that fails again waits for a person again.
    pub(in super::super) fn begin(
        &self,
        ledger: Arc<AnyLedger>,
        search: &ParkedSearch,
        config: &Config,
        rate_per_second: u32,
        operator_reason: OperatorReason,
    ) -> Result<FoundReleaseJson, AdminProblem> {
        if !(1..=RATE_MAX).contains(&rate_per_second) {
            let detail = format!("`rate_per_second` is not understood: 1 to {RATE_MAX} records in a second");
            return Err(AdminProblem::new(ProblemCode::InvalidRequest, detail));
        }
        let mut running = self.running();
        if running.as_ref().is_some_and(|running| running.shown.state == FoundReleaseState::Running) {
            let detail = "one release by a search runs at a time: wait until it is done, or stop it";
            return Err(AdminProblem::new(ProblemCode::Busy, detail));
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        // What is parked in this millisecond counts.
        let now_ms = i64::try_from(now).unwrap_or(i64::MAX).saturating_add(1);
        let mut filter = search.filter(config);
        filter.state = Some(ParkedState::Parked);
        filter.before_ms = Some(filter.before_ms.map_or(now_ms, |before| before.min(now_ms)));
        let shown = FoundReleaseJson {
            state: FoundReleaseState::Running,
            of: search.in_words(),
            rate_per_second,
            records: 0,
            updates: 0,
            paused: 0,
            who: operator_reason.who.clone(),
            why: operator_reason.why.clone(),
            begun: format_ms(now_ms),
            fault: None,
        };
        let stop = CancellationToken::new();
        *running = Some(Running { stop: stop.clone(), shown: shown.clone() });
        let releasing = self.clone();
        let of = shown.of.clone();
        tokio::spawn(async move {
            let ended = tokio::select! {
                ended = releasing.run(&ledger, &filter, &of, rate_per_second, &operator_reason) => Some(ended),
                () = stop.cancelled() => None,
            };
            if let Some(running) = releasing.running().as_mut() {
                (running.shown.state, running.shown.fault) = match ended {
                    None => (FoundReleaseState::Stopped, None),
                    Some(Ok(())) => (FoundReleaseState::Done, None),
                    Some(Err(fault)) => (FoundReleaseState::Failed, Some(error_chain(&fault))),
                };
            }
        });
        Ok(shown)
    }

    /// Stops it after the records of this second. Does nothing if none runs.
    pub(in super::super) fn stop(&self) {
        if let Some(running) = self.running().as_ref() {
            running.stop.cancel();
        }
    }

    async fn run(
        &self,
        ledger: &AnyLedger,
        filter: &ParkedFilter,
        of: &str,
        rate_per_second: u32,
        operator_reason: &OperatorReason,
    ) -> Result<(), LedgerError> {
        let mut second = interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut after: Option<ParkedCursor> = None;
        loop {
            second.tick().await;
            let found = ledger.find_parked(filter, after.as_ref(), rate_per_second).await?;
            if !found.records.is_empty() {
                let record_keys = found.records.into_iter().map(|record| record.record_key).collect();
                let selection = Selection::Found { record_keys, filter: of.to_owned() };
                let released = ledger.release(&selection, operator_reason).await?;
                if let Some(running) = self.running().as_mut() {
                    running.shown.records += released.records;
                    running.shown.updates += released.updates;
                    running.shown.paused += released.paused;
                }
            }
            let Some(next) = found.next else { return Ok(()) };
            after = Some(next);
        }
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
