//! Why a command ends early.

use std::io;

use lanekeeper_ledger::LedgerError;

/// Why a command ends early.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum CommandError {
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The config is that of another exchange.
    #[error(
        "ledger: it belongs to {bound}, and the config is for {own}: give this command the config of the ledger's dispatchers \
         (--config), or the ledger of this exchange (ledger.url)"
    )]
    OtherExchange {
        /// As the ledger says.
        bound: String,
        /// As the config says.
        own: String,
    },
    /// Standard output failed.
    #[error(transparent)]
    Output(#[from] io::Error),
}
