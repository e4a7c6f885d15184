//! `lanekeeper publish`.

use super::Exit;

/// Options of `lanekeeper publish`.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {}

/// Runs it.
pub fn main(_arguments: &Arguments) -> Exit {
    Exit::Other
}
