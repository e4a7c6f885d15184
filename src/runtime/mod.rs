//! Puts the parts together: one driver per partition, and a supervisor that starts and stops everything.

mod active_layouts;
mod attempt;
mod auto_apply;
pub mod breakers;
pub mod clock;
pub mod driver;
mod layout_drivers;
pub mod ledger_client;
mod refusals;
pub mod releases;
pub mod supervisor;
mod upkeep;

pub use supervisor::{RunError, run};
