//! One suite for both ledgers, and what only one of them can suffer. PostgreSQL is a private server of
//! `scripts/postgres`, which finds or installs one; without it these tests fail.

mod conformance;
mod files;
mod looking;
mod measure;
mod operators;
mod pauses;
#[path = "../../../../tests/it/harness/pooler.rs"]
mod pooler;
mod servers;
#[path = "../../../lab/src/receiver/wire/silent.rs"]
mod silent;
mod standby;
#[expect(dead_code, reason = "one of its functions is for tests of the broker")]
#[path = "../../../../tests/it/harness/wait.rs"]
mod wait;
mod worker;
mod world;
