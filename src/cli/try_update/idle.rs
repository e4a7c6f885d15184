//! Nothing may be on its way for a record to which a command sends a request: neither in its partition's queue, nor with an
//! owner, nor parked.

use lanekeeper_broker::SourceError;
use lanekeeper_core::layout::PartitionNumber;
use lanekeeper_core::placement::Placement;
use lanekeeper_core::update::RecordKey;
use lanekeeper_ledger::{AnyLedger, Ledger as _, LedgerError, LedgerPlace};

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
            Self::Parked | Self::Partition { .. } | Self::Unanswered { .. } => Exit::Other,
        }
    }
}

/// # Errors
/// Something may be on its way, or that is not known.
pub(super) async fn refuse_if_busy(config: &Config, record_key: &RecordKey) -> Result<(), Busy> {
    if let Some(ledger) = &config.ledger {
        let is_new = matches!(&ledger.place, LedgerPlace::Sqlite(path) if !path.exists());
        if !is_new && AnyLedger::open(ledger.clone()).await?.parked_record(record_key).await?.is_some() {
            return Err(Busy::Parked);
        }
    }
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
