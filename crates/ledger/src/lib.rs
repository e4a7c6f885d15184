//! The ledger: the durable record of which updates were resolved and which are parked.
//!
//! Begin with the trait [`Ledger`], which dispatchers use, and with [`Operations`], which people use: their doc comments say
//! what is true when each call has returned. [`AnyLedger`] opens the database that the config names: an SQLite file for one
//! host, or PostgreSQL for several. What differs between the two is in the folders `sqlite` and `postgres`; what is the same
//! is in `sql`, which is compiled for each of them. `entry`, `parked`, `stored`, `pauses`, `changes`, `search` and `history` have the
//! values, `batcher` makes calls share a commit or a query.

mod any;
mod batcher;
mod binding;
mod changes;
mod config;
mod entry;
mod error;
mod fingerprint;
mod history;
mod ledger;
mod operations;
mod parked;
mod pauses;
mod postgres;
mod prune;
mod rows;
mod search;
mod sqlite;
mod stored;

pub use any::AnyLedger;
pub use binding::{BoundTopology, LedgerBinding, MARKS_MAX, TopologyPlace};
pub use changes::{
    CHANGES_MAX, Change, ChangeFilter, ChangeKind, ChangeSeq, ChangeSubject, WHO_CHARS_MAX, WHY_CHARS_MAX,
};
pub use config::{LedgerConfig, LedgerPlace};
pub use entry::{
    Entry, EntryKind, IdStatus, LookupResult, ParkKind, ParkedSeq, Query, Recorded, ResolvedAs,
    StoredParkReason,
};
pub use error::LedgerError;
pub use fingerprint::Fingerprint;
pub use history::{IdEnd, IdHistory, IdUse, LastApplied, RecordState};
pub use ledger::Ledger;
pub use operations::Operations;
pub use parked::{
    Discarded, LedgerStats, OperatorReason, ParkedCount, ParkedCounts, ParkedRecord, ParkedState,
    ParkedUpdate, Released, ReleasedRecord, Selection,
};
pub use pauses::{
    PAUSED_RECORDS_MAX, PAUSED_TARGETS_MAX, Pause, Paused, PausedRecord, PausedTarget, Resumed,
};
pub use postgres::{PostgresLedger, RecordLock};
pub use prune::keep_pruned;
pub use search::{FoundParked, LOOKED_AT_MAX, ParkedCursor, ParkedFilter};
pub use sqlite::SqliteLedger;
pub use stored::StoredUpdate;
