//! The API that all acts write to: the reference receiver, in this process, which sees everything.

use std::time::Duration;

use super::error::DemoError;
use super::workload::{Planned, Workload};
use crate::receiver::{Receiver, ReceiverSettings, Report, StoreAddress};

/// An API without records. It serves until the process ends.
#[derive(Debug)]
pub(super) struct Api {
    receiver: Receiver,
    /// `http://127.0.0.1:PORT`.
    pub(super) url: String,
}

/// A remedy that the API applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ApiSafeguard {
    /// A repeat is not applied again.
    Idempotency,
    /// Nobody overwrites a value that they have not seen.
    Versions,
    /// Nobody reads between another's reading and writing.
    RowLocks,
}

/// What the API saw of one act.
#[derive(Debug)]
pub(super) struct Findings {
    pub(super) requests: u64,
    /// Customers whose value is not that of their last update.
    pub(super) wrong: Vec<Wrong>,
    /// Updates applied after a later one of their customer.
    pub(super) reorders: u64,
    /// Requests that began while another one of their customer was in progress.
    pub(super) overlaps: u64,
    /// Updates that never arrived.
    pub(super) lost: u64,
    /// Updates applied again.
    pub(super) duplicates: u64,
    /// Repeats that the API recognized by their idempotency key and did not apply.
    pub(super) replayed: u64,
    /// From the first update to the last answer.
    pub(super) time: Duration,
}

/// A customer with a wrong value.
#[derive(Debug)]
pub(super) struct Wrong {
    /// Its last update, which it should have.
    pub(super) expected: Planned,
    /// The update that it has; zero: none.
    pub(super) sequence: u64,
    /// What it has.
    pub(super) value: String,
}

impl Api {
    /// Starts an API that keeps its records in this store. Records that are there are deleted.
    pub(super) async fn start(settings: ReceiverSettings, store: &StoreAddress) -> Result<Self, DemoError> {
        let receiver = Receiver::open(settings, store).await?;
        receiver.forget().await?;
        let address = receiver.spawn().await.map_err(DemoError::system("listen on 127.0.0.1 for the API"))?;
        Ok(Self { receiver, url: format!("http://{address}") })
    }

    /// Deletes what is in its store.
    pub(super) async fn forget(&self) -> Result<(), DemoError> {
        Ok(self.receiver.forget().await?)
    }

    /// What it has seen, without single records.
    pub(super) fn report(&self) -> Report {
        self.receiver.report(0)
    }

    /// How many different updates of a record it has applied.
    pub(super) fn applied(&self, record_key: &str) -> u64 {
        self.receiver.record(record_key).map_or(0, |record| record.counts.updates)
    }

    /// The value of this record: a JSON object, or null.
    pub(super) fn value(&self, record_key: &str) -> serde_json::Value {
        let record = self.receiver.record(record_key).unwrap_or_default();
        serde_json::from_str(&record.value).unwrap_or_default()
    }

    /// Compares its records with what they should be.
    pub(super) fn judge(&self, workload: &Workload, time: Duration) -> Findings {
        let counts = self.report().counts;
        let wrong = workload.last_updates().iter().filter_map(|expected| {
            let found = self.receiver.record(expected.record_key.as_str()).unwrap_or_default();
            (found.value.as_bytes() != &*expected.body).then(|| Wrong {
                expected: expected.clone(),
                sequence: found.value_sequence,
                value: found.value,
            })
        });
        Findings {
            requests: counts.requests,
            wrong: wrong.collect(),
            reorders: counts.reorders,
            overlaps: counts.overlaps,
            lost: workload.total().saturating_sub(counts.updates),
            duplicates: counts.duplicates,
            replayed: counts.replayed,
            time,
        }
    }
}
