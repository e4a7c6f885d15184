//! The receiver: its program, its safeguards on every store, and its limits, with plain requests. `tests/http/receiver.rs` at the top
//! has it as the target of Lanekeeper.

mod command;
mod limits;
mod postgres;
mod safeguards;
mod wire;

use std::time::Duration;

/// Long enough for a slow machine, short enough to fail in good time.
const TEST_TIMEOUT: Duration = Duration::from_secs(20);
