//! What is the same for both databases.
//!
//! This folder is compiled twice, as `postgres::sql` and as `sqlite::sql` (by `#[path]`). Each time `super::super` is the
//! module of that database: its `database.rs` has the types of the connection and the statements that differ, its
//! `lock.rs` the row locks. sqlx has no type for "either database" that keeps its checks, and generic code over its
//! traits would need many lines of bounds for each function.

mod binding;
mod changes;
pub mod connection_slot;
pub mod lookup;
mod operations;
mod parked;
mod pauses;
mod search;
pub mod store;
mod upkeep;
pub mod write;
