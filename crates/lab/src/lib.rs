//! What shows and measures Lanekeeper, and does not operate it. The program `lanekeeper-lab` has a command per module:
//!
//! - [`receiver`]: a reference target that judges the order of the updates it gets. Begin here: every other part is judged
//!   by its report.
//! - [`demo`]: racing updates without Lanekeeper, and the same ones with it.
//! - [`stuck`]: five records that wait, each for another reason.
//! - [`bench`](mod@bench): rate, latency, memory and processor time under several loads.
//! - [`pacing`]: how much of a target's rate limit is used, and how many requests are refused.
//! - [`chaos`]: a crash test of replicas, broker, connections and target.
//!
//! The product's own tests use this library too: the receiver, and [`testbed`], which starts private servers and
//! dispatchers.

pub mod bench;
pub mod chaos;
mod cli;
mod command;
pub mod demo;
pub mod pacing;
pub mod receiver;
pub mod stuck;
pub mod testbed;

pub use cli::main;
