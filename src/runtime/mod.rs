//! Puts the parts together: one driver per partition, and a supervisor that starts and stops everything.

mod active_layouts;
pub mod age;
mod attempt;
mod auto_apply;
pub mod beliefs;
pub mod breakers;
mod dead_letter_log;
pub mod driver;
mod driver_context;
mod inspection;
mod layout_drivers;
mod lease_watch;
pub mod ledger_binding;
mod ledger_client;
pub mod notify;
pub mod pacers;
pub mod pauses;
mod refusals;
pub mod releases;
mod reload;
mod start;
pub mod step_down;
mod supervisor;
#[cfg(feature = "sqs")]
mod supervisor_sqs;
mod target_history;
mod upkeep;

pub use supervisor::{Options, RunError, run};
#[cfg(feature = "sqs")]
pub use supervisor_sqs::run as run_sqs;
