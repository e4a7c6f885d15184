//! Lanekeeper forwards updates from RabbitMQ to HTTP APIs: in order per record, one at a time per record.
//!
//! ARCHITECTURE.md is the page to begin with; the decisions are in [`core`].

pub mod admin;
pub mod cli;
pub mod config;
pub mod core;
pub mod doctor;
pub mod publisher;
pub mod receiver;
pub mod runtime;
pub mod source;
pub mod target;
