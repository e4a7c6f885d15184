//! Nothing may be on its way for a record to which a command sends a request: neither in its partition's queue, nor with an
//! owner, nor parked. And the ledger may not know that the update was sent before.

use lanekeeper_broker::SourceError;
use lanekeeper_core::layout::PartitionNumber;
use lanekeeper_core::placement::Placement;
use lanekeeper_core::update::{RecordKey, Update};
use lanekeeper_ledger::{AnyLedger, Fingerprint, IdStatus, Ledger as _, LedgerError, LedgerPlace, Query};

use crate::cli::exit::Exit;
use crate::cli::topology::snapshot::{LayoutSnapshot, TopologySnapshot};
use crate::config::Config;

/// Why nothing is sent.
#[derive(Debug, thiserror::Error)]
pub(super) enum Busy {
    #[error(transparent)]
    Broker(#[from] SourceError),
    #[error("the ledger: {0}")]
    Ledger(#[from] LedgerError),
    #[error("the record has parked updates, which come first; try them with --parked, or discard them")]
    Parked,
    #[error(
        "the ledger knows an update of the record with this id, which was applied, dead-lettered or discarded; to send it all the \
         same, give it another id"
    )]
    Resolved,
    #[error(
        "partition {partition} of layout {layout} has {ready} updates in its queue and {held} with its owner, and one of them may \
         be of this record; publish the update instead, or try again when the partition is empty"
    )]
    Partition { layout: u32, partition: PartitionNumber, ready: u32, held: usize },
    #[error(
        "the owner of partition {partition} of layout {layout} has not answered what it holds, and it may be an update of this \
         record"
    )]
    Unanswered { layout: u32, partition: PartitionNumber },
}

impl Busy {
    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::Broker(_) => Exit::Broker,
            Self::Ledger(_) => Exit::Ledger,
            Self::Parked | Self::Resolved | Self::Partition { .. } | Self::Unanswered { .. } => Exit::Other,
        }
    }
}

/// # Errors
/// Something may be on its way, or that is not known.
pub(super) async fn refuse_if_busy(config: &Config, update: &Update) -> Result<(), Busy> {
    refuse_if_dispatched(config, &update.record_key).await?;
    // Afterwards: what an owner has held may be parked by now.
    refuse_if_known(config, update).await
}

async fn refuse_if_known(config: &Config, update: &Update) -> Result<(), Busy> {
    let Some(ledger) = &config.ledger else { return Ok(()) };
    if matches!(&ledger.place, LedgerPlace::Sqlite(path) if !path.exists()) {
        return Ok(());
    }
    let query = Query {
        record_key: update.record_key.clone(),
        id: update.id.clone(),
        fingerprint: Fingerprint::of(&update.body),
    };
    let found = AnyLedger::open(ledger.clone()).await?.lookup(query).await?;
    match found.id_status {
        _ if found.parked => Err(Busy::Parked),
        IdStatus::Unknown => Ok(()),
        IdStatus::Resolved | IdStatus::Reused => Err(Busy::Resolved),
    }
}

async fn refuse_if_dispatched(config: &Config, record_key: &RecordKey) -> Result<(), Busy> {
    let snapshot = TopologySnapshot::take(config).await?;
    let Some(document) = &snapshot.document else { return Ok(()) };
    for of in &snapshot.layouts {
        let witnesses =
            of.draining.as_ref().map_or(&document.layouts.witnesses, |draining| &draining.witnesses);
        match Placement::of(of.layout, witnesses).partition_of(record_key) {
            Some(partition) => refuse_if_held(of, partition)?,
            None => of.layout.partitions().try_for_each(|partition| refuse_if_held(of, partition))?,
        }
    }
    Ok(())
}

fn refuse_if_held(of: &LayoutSnapshot, partition: PartitionNumber) -> Result<(), Busy> {
    let layout = of.layout.number.0;
    if of.draining.as_ref().is_some_and(|draining| draining.drained.contains(&partition)) {
        return Ok(());
    }
    let Some(depth) = of.depths.get(&partition).copied().flatten() else { return Ok(()) };
    let held = of.answers.get(&partition).map(|answer| answer.status.updates);
    match held {
        None if depth.consumers > 0 => Err(Busy::Unanswered { layout, partition }),
        held if depth.ready > 0 || held.is_some_and(|held| held > 0) => {
            Err(Busy::Partition { layout, partition, ready: depth.ready, held: held.unwrap_or_default() })
        }
        _ => Ok(()),
    }
}
