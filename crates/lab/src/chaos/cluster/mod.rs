//! `lanekeeper-lab chaos --cluster`: three nodes that are killed, stopped and split, a dispatcher connected to each, two
//! targets that go on working when a client is gone, and a judge that counts what they saw.

mod fault;
mod inject;
mod result;
mod stage;

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;

pub(super) use fault::FaultKind;
pub(super) use result::ClusterResult;
use stage::ClusterChaos;

use super::error::ChaosError;

/// Which ledger the dispatchers share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum LedgerKind {
    /// None.
    None,
    /// A file.
    Sqlite,
    /// A private PostgreSQL.
    Postgres,
}

/// What a crash test of a cluster is started with.
#[derive(Debug)]
pub(super) struct ClusterChaosSettings {
    pub(super) seed: u64,
    pub(super) rabbitmq: Option<String>,
    pub(super) logs: PathBuf,
    pub(super) ledger: LedgerKind,
    pub(super) net_ticktime_seconds: u16,
    /// Empty: all.
    pub(super) faults: Vec<FaultKind>,
}

/// How long faults are injected.
#[derive(Clone, Copy, Debug)]
pub(super) enum Extent {
    /// Each kind once.
    Once,
    /// For so long.
    Lasts(Duration),
}

pub(super) async fn run(settings: ClusterChaosSettings, extent: Extent) -> Result<ClusterResult, ChaosError> {
    ClusterChaos::start(settings).await?.run(extent).await
}
