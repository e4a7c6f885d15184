//! The decisions: pure, without clock, IO or chance. ARCHITECTURE.md tells the life of an update.

pub mod acks;
pub mod breaker;
pub mod certificate;
pub mod change;
pub mod drain;
pub mod error;
mod lane;
pub mod layout;
mod memory;
pub mod message;
pub mod outcome;
pub mod ownership;
pub mod partition;
pub mod phash2;
pub mod policy;
pub mod previous_layout;
pub mod routes;
pub mod schedule;
pub mod secret;
mod spread;
pub mod template;
pub mod tick;
pub mod update;
pub mod witness;
