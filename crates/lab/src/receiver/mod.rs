//! The reference target: keeps records, honours the remedies against races, and judges the order in which updates came.
//!
//! The last segment of a request's path names the record. A request with any method but GET and HEAD writes it: its body
//! becomes the record's value. Where the body is a JSON object with an integer member `sequence` (1, 2, 3, … per
//! record), the order is judged by it; without one only repetition is, by update id. One with an integer member `add`
//! does not become the value: its number is added to the member `total` of the value that was read before. One with an
//! integer member `sent_us`, microseconds since 1970, tells when it was published: the report says how long such took.
//!
//! Records are kept in memory, in SQLite or in PostgreSQL; the judgement is always in memory, of this receiver's life.
//!
//! An update is *applied* at one moment: after the latency and before the answer. A sender that goes away earlier has
//! not changed anything; one that goes away later has, although it will never know.
//!
//! A request is in progress from its head to its answer, or until the receiver sees that its sender is gone. A sender
//! that gives up and asks again within the same moment, over another connection, can look like an overlap.
//!
//! For measuring and for tests: no log line per request, memory per record is bounded, records are spread over locks.

mod answer;
mod body;
pub mod command;
mod delays;
mod faults;
mod handle;
mod judge;
mod latest;
mod report;
mod rules;
mod sequences;
mod server;
mod settings;
mod shards;
mod state;
mod store;
mod write;

pub use faults::{FailingRecord, Fault, FaultAnswer, InjectedFaultError};
pub use report::{Counts, DelayReport, RecordReport, Report};
pub use rules::{Safeguard, SafeguardError, Safeguards};
pub use server::Receiver;
pub use settings::ReceiverSettings;
pub use store::{OpenStoreError, StoreAddress, StoreAddressError, StoreError};
