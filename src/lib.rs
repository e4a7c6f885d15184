//! The product: `lanekeeper`, which forwards updates from RabbitMQ to HTTP APIs, in order per record, one at a time per
//! record.
//!
//! ARCHITECTURE.md is the page to begin with; the decisions are in [`lanekeeper_core`].

pub mod admin;
pub mod cli;
pub mod config;
pub mod doctor;
pub mod http;
pub mod runtime;
