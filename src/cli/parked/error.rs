//! Why a command ends early.

use std::io;

use lanekeeper_ledger::LedgerError;

/// Why a command ends early.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum CommandError {
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// Standard output failed.
    #[error(transparent)]
    Output(#[from] io::Error),
}
