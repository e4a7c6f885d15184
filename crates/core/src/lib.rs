//! The decisions of Lanekeeper, pure: no clock, no IO, no chance. Time is an argument, and what is to be done is a value.
//!
//! Begin with [`message`]: everything that can happen to a partition and everything that it asks for. Then read `lane`
//! (the states of a lane) and [`partition`] (the one place that changes them); [`policy`] decides what becomes of the
//! outcome of an attempt. A driver calls [`Partition::handle`](partition::Partition::handle) with each event, performs
//! each effect that [`Partition::poll_effect`](partition::Partition::poll_effect) returns, and calls
//! [`Partition::wake`](partition::Partition::wake) when
//! [`Partition::next_deadline`](partition::Partition::next_deadline) has come.
//!
//! Other decisions stand alone: [`acks`] (when acks go out), [`breaker`] (if a target fails for everyone), [`change`]
//! (the steps from one layout to the next), [`delivery_count`] (if what is held was taken back), [`drain`] (when a partition is empty for good), [`forecast`] (how long an
//! update is retried), [`message_groups`] (what an SQS FIFO queue handed
//! over), [`tenures`] (whose claim counts, and what is waited for), [`template`] and [`routes`] (where a request goes).
//!
//! `tests/sim` runs a partition in thousands of hostile worlds. ARCHITECTURE.md describes the life of an update.

#![warn(clippy::iter_over_hash_type)] // the order of a hash map is chance

pub mod acks;
pub mod applied_lately;
pub mod breaker;
pub mod certificate;
pub mod change;
pub mod delivery_count;
pub mod drain;
pub mod error;
pub mod forecast;
mod lane;
pub mod layout;
pub mod log_interval;
mod memory;
pub mod message;
pub mod message_groups;
pub mod numbering;
pub mod outcome;
pub mod ownership;
pub mod pacing;
pub mod partition;
pub mod phash2;
pub mod placement;
pub mod policy;
pub mod previous_layout;
pub mod publish;
pub mod routes;
pub mod schedule;
pub mod secret;
mod spread;
pub mod step_down;
pub mod template;
pub mod tenures;
pub mod tick;
pub mod update;
pub mod why;
pub mod wire;
pub mod witness;
