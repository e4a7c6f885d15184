//! Why the ledger could not do what it was asked for.

use std::sync::Arc;

/// One per thing that a person does about it. All of one commit get the same.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LedgerError {
    /// The file cannot be opened or made, or the server refuses us: name, rights, password.
    #[error("the ledger cannot be opened: check ledger.url and who may use it")]
    CannotOpen(#[source] Arc<sqlx::Error>),
    /// A later version of the program has changed the ledger.
    #[error(
        "the ledger has schema {found}, this program knows up to {known}: run the version that made it, or a later one"
    )]
    SchemaNewer {
        /// The ledger's.
        found: i64,
        /// The newest of this program.
        known: i64,
    },
    /// Somebody else holds what we need for longer than we wait.
    #[error("the ledger is locked by another process: look for one that holds it")]
    Locked(#[source] Arc<sqlx::Error>),
    /// No room: disk, quota or the file system's limit.
    #[error("the ledger cannot grow: its disk is full")]
    DiskFull(#[source] Arc<sqlx::Error>),
    /// The database does not answer. It is tried again by itself.
    #[error("the ledger's database does not answer: is it running?")]
    Lost(#[source] Arc<sqlx::Error>),
    /// No answer within the bound.
    #[error("the ledger did not answer within {seconds} s")]
    TimedOut {
        /// The bound.
        seconds: u64,
    },
    /// All connections for row locks are taken.
    #[error("no connection was free for a row lock: raise ledger.connections_max")]
    NoConnection,
    /// Row locks were asked of a ledger that has none.
    #[error("row locks need a PostgreSQL ledger")]
    NoRowLocks,
    /// What the ledger holds is not what this program wrote.
    #[error("the ledger holds what this program cannot read: {what}")]
    Damaged {
        /// Which part of it.
        what: &'static str,
    },
    /// The ledger was closed in this process.
    #[error("the ledger is closed")]
    Closed,
    /// Anything else that the database refuses.
    #[error("the ledger refused a statement")]
    Refused(#[source] Arc<sqlx::Error>),
}

impl LedgerError {
    /// Whether the same call may work later without a person.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(
            self,
            Self::Locked(_) | Self::DiskFull(_) | Self::Lost(_) | Self::TimedOut { .. } | Self::NoConnection
        )
    }

    /// As written in metric labels.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::CannotOpen(_) => "cannot_open",
            Self::SchemaNewer { .. } => "schema_newer",
            Self::Locked(_) => "locked",
            Self::DiskFull(_) => "disk_full",
            Self::Lost(_) => "lost",
            Self::TimedOut { .. } => "timed_out",
            Self::NoConnection => "no_connection",
            Self::NoRowLocks => "no_row_locks",
            Self::Damaged { .. } => "damaged",
            Self::Closed => "closed",
            Self::Refused(_) => "refused",
        }
    }
}
