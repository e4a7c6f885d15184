//! The reference target: it keeps records, has safeguards against races, and judges the order in which updates came.
//!
//! The last segment of a request's path names the record. A request with any method but GET and HEAD writes it: its body
//! becomes the record's value. Three integer members of a JSON body mean something:
//!
//! - `sequence` (1, 2, 3, … per record): the order is judged by it. Without it, only repeated update ids are seen.
//! - `add`: the body does not become the value. Its number is added to the member `total` of the value that was read.
//! - `sent_us`, microseconds since 1970: when the update was published. The report says how long these updates took.
//!
//! Records are kept in memory, in SQLite or in PostgreSQL. What was seen of them is always kept in memory and ends with
//! the receiver.
//!
//! An update is *applied* at one moment: after the latency and before the answer. A sender that goes away earlier has
//! changed nothing; a sender that goes away later has changed the record, and does not know it.
//!
//! A request is in progress from its head to its answer, or until the receiver sees that the sender has gone away, unless
//! it finishes abandoned requests. A sender that gives up and repeats the request at once, over another connection, can
//! look like an overlap.
//!
//! What real APIs do to their callers it does on request: a rate limit that all records share (`limit`), outages in which a
//! gateway answers instead of it (`outage`), faults of single requests and records (`faults`), and what happens below the
//! answers, such as connections that hang (`wire`). A request that was refused is one that was not applied.
//!
//! It is made for measuring and for tests: it logs no line per request, memory per record is bounded, and records are
//! spread over several locks.
//!
//! Where to begin: `rules` decides what a request may do, `judge` keeps what was seen, `report` is the result.

mod answer;
mod body;
pub mod command;
mod delays;
mod failing;
mod faults;
mod handle;
mod judge;
mod latest;
mod limit;
mod outage;
mod report;
mod rules;
mod sequences;
mod server;
mod settings;
mod shards;
mod state;
mod store;
mod wire;
mod write;

pub use faults::{FailingRecord, Fault, FaultAnswer, InjectedFaultError};
pub use limit::{
    RateLimit, RateLimitError, RateLimitFields, RateLimitReport, RateLimitShares, RefusalBody, SecondCounts,
};
pub use outage::{Outage, PlannedOutage};
pub use report::{Counts, DelayReport, RecordReport, Report};
pub use rules::{Safeguard, SafeguardError, Safeguards};
pub use server::Receiver;
pub use settings::ReceiverSettings;
pub use store::{OpenStoreError, StoreAddress, StoreAddressError, StoreError};
pub use wire::{AnswerEnd, EXTRA_FIELDS_MAX, SilentAddress, TlsFiles};
