//! `lanekeeper demo`.

use super::Exit;

/// Options of `lanekeeper demo`.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {}

/// Runs it.
pub fn main(_arguments: &Arguments) -> Exit {
    Exit::Other
}
