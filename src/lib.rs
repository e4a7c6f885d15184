//! The product: `lanekeeper` forwards updates from RabbitMQ to HTTP APIs, in order per record, one at a time per record.
//!
//! Begin with ARCHITECTURE.md; the decisions are in [`lanekeeper_core`]. Public is what the program, its tests and
//! `lanekeeper-lab` use.

// print! and eprint! panic if nobody can read what they print; src/cli/process.rs has what does not.
#![cfg_attr(not(test), warn(clippy::print_stderr, clippy::print_stdout))]

mod admin;
pub mod cli;
pub mod config;
mod config_requests;
mod doctor;
pub mod http;
mod ingest;
mod inspect;
mod pausing;
mod printable;
mod reload;
mod runtime;
mod telemetry;
pub mod templates;
mod wall_time;
mod wrong_tokens;
