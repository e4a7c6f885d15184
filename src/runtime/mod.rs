//! Puts the parts together: one driver per partition, a supervisor over all.

mod attempt;
mod auto_apply;
pub mod breakers;
pub mod clock;
mod crew;
mod crews;
pub mod driver;
pub mod ledger_client;
mod refusals;
pub mod releases;
pub mod supervisor;
mod upkeep;

pub use supervisor::{RunError, run};
