//! The ledger: the durable record of which updates were resolved and which are parked.
//!
//! Begin with the trait [`Ledger`]: its doc comments say what is true when each call has returned. [`AnyLedger`] opens the
//! database that the config names: an SQLite file for one host, or PostgreSQL for several. What differs between the two
//! is in the folders `sqlite` and `postgres`; what is the same is in `sql`, which is compiled for each of them. `entry`,
//! `parked` and `stored` have the values, `batcher` makes calls share a commit or a query.

mod any;
mod batcher;
mod binding;
mod config;
mod entry;
mod error;
mod fingerprint;
mod ledger;
mod parked;
mod postgres;
mod prune;
mod rows;
mod sqlite;
mod stored;

pub use any::AnyLedger;
pub use binding::{BoundTopology, LedgerBinding, MARKS_MAX, TopologyPlace};
pub use config::{LedgerConfig, LedgerPlace};
pub use entry::{
    Entry, EntryKind, IdStatus, LookupResult, ParkKind, ParkedSeq, Query, Recorded, ResolvedAs,
    StoredParkReason,
};
pub use error::LedgerError;
pub use fingerprint::Fingerprint;
pub use ledger::Ledger;
pub use parked::{
    Discarded, LedgerStats, OperatorReason, ParkedRecord, ParkedState, ParkedUpdate, ReleasedRecord,
    Selection,
};
pub use postgres::{PostgresLedger, RecordLock};
pub use prune::keep_pruned;
pub use sqlite::SqliteLedger;
pub use stored::StoredUpdate;
