//! Puts the parts together: one driver per partition, a supervisor over all.

mod attempt;
pub mod breakers;
pub mod clock;
pub mod driver;
mod refusals;
pub mod supervisor;

pub use supervisor::{RunError, run};
