//! How everything is now: asked of all processes for pages and API, and once for all who follow the overview.

pub(super) mod api;
pub(super) mod events;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use super::Parts;
use super::problem::{AdminProblem, ProblemCode};
use crate::config::Config;
use crate::inspect::asker::{Asker, FoundPartition, ledger_report};
use crate::inspect::report::{ClusterReport, RecordReport, TargetAnswer};
use events::Following;
use lanekeeper_broker::SourceError;
use lanekeeper_core::error::error_chain;
use lanekeeper_core::update::RecordKey;

/// How long a connection to the broker, its answers and those of the processes may take together.
const ASK_TIMEOUT: Duration = Duration::from_secs(6);
/// Records of a partition in an answer.
pub(super) const LANES_MAX: usize = 100;

/// Asks the broker and all processes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Live {
    asker: Arc<Asker>,
    following: Arc<Following>,
}

impl Live {
    /// Connects to the broker with the first question.
    #[must_use]
    pub fn new(config: &watch::Receiver<Config>) -> Self {
        Self { asker: Arc::new(Asker::new(config)), following: Arc::default() }
    }

    pub(super) async fn status(&self) -> Result<ClusterReport, AdminProblem> {
        in_time(self.asker.status()).await
    }

    pub(super) async fn partition(&self, place: (u32, u16)) -> Result<FoundPartition, AdminProblem> {
        in_time(self.asker.partition(place, LANES_MAX)).await?.ok_or_else(|| {
            AdminProblem::new(
                ProblemCode::NotFound,
                "no layout has this partition: the overview has all that there are",
            )
        })
    }

    pub(super) async fn target(&self, name: &str) -> Result<Vec<TargetAnswer>, AdminProblem> {
        in_time(self.asker.target(name)).await?.ok_or_else(|| {
            AdminProblem::new(ProblemCode::NotFound, "no process that answered has a target of this name")
        })
    }
}

/// What a record waits for.
pub(super) async fn record(parts: &Parts, record_key: &RecordKey) -> Result<RecordReport, AdminProblem> {
    let ledger = async {
        match parts.ledger.open() {
            Ok(ledger) => Some(ledger_report(&ledger, record_key).await),
            Err(problem) if problem.code() == ProblemCode::NoLedger => None,
            Err(problem) => Some(Err(problem.detail().to_owned())),
        }
    };
    in_time(parts.live.asker.record(record_key, ledger)).await
}

async fn in_time<T>(asking: impl Future<Output = Result<T, SourceError>>) -> Result<T, AdminProblem> {
    let failed = |detail: String| AdminProblem::new(ProblemCode::BrokerFailed, detail).retry_after(5);
    match timeout(ASK_TIMEOUT, asking).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(fault)) => Err(failed(error_chain(&fault))),
        Err(_) => Err(failed(format!("the broker did not answer within {} s", ASK_TIMEOUT.as_secs()))),
    }
}
