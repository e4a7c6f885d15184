//! What is published when, and which updates a door takes: the decisions of `lanekeeper publish` and `lanekeeper ingest`.
//!
//! [`intake`] decides what a door takes and answers; [`outbox`] keeps the order per record through refusals and lost connections; [`outgoing`] is what is published.

pub mod intake;
pub mod outbox;
pub mod outgoing;
#[cfg(test)]
mod simulation;
