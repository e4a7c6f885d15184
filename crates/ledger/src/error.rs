//! Errors of the ledger.

use std::sync::Arc;

use sqlx::error::DatabaseError as _;

/// Why a call failed. There is a variant for each thing that a person can do about it. All entries of a failed commit get
/// the same error.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LedgerError {
    /// The file cannot be opened or created, or the server refuses us: wrong name, password or permissions.
    #[error("cannot open the ledger: check ledger.url, user, password and permissions")]
    CannotOpen(#[source] Arc<sqlx::Error>),
    /// A later version of the program has migrated the ledger.
    #[error(
        "the ledger has schema version {found}, but this program knows only versions up to {known}: run a newer program"
    )]
    SchemaNewer {
        /// The ledger's version.
        found: i64,
        /// The newest version that this program knows.
        known: i64,
    },
    /// Another process holds a lock for longer than we wait.
    #[error("the ledger is locked by another process: find the one that holds it")]
    Locked(#[source] Arc<sqlx::Error>),
    /// The disk, a quota or the file system is full.
    #[error("the ledger cannot grow, since its disk is full: free some space")]
    DiskFull(#[source] Arc<sqlx::Error>),
    /// The disk cannot be read or written.
    #[error("reading or writing the ledger's disk failed: see the system's log")]
    DiskFailed(#[source] Arc<sqlx::Error>),
    /// The database does not answer. Callers retry by themselves.
    #[error("the ledger's database does not answer: check that it runs and can be reached")]
    Lost(#[source] Arc<sqlx::Error>),
    /// The server is a standby, or is set to take no writes. Callers retry by themselves, on a new connection.
    #[error(
        "the ledger's database takes no writes: it is a standby or was replaced by another server; check that ledger.url \
         leads to the primary"
    )]
    ReadOnly,
    /// None of several servers can be used.
    #[error("no server of ledger.url can be used: {faults}")]
    NoServer {
        /// Why, for each.
        faults: Arc<str>,
        /// Whether one of them may be used later.
        can_heal: bool,
    },
    /// Another session answers than the one that was opened.
    #[error(
        "the sessions of the ledger's database change while they are used, as behind a pooler in transaction mode: let the \
         pooler give each connection a session of its own (pool_mode = session), or let ledger.url lead past it"
    )]
    SessionChanged,
    /// There was no answer within the time limit.
    #[error("the ledger did not answer within {seconds} s: check the load of its database and disk")]
    TimedOut {
        /// The time limit.
        seconds: u64,
    },
    /// All connections for row locks are in use.
    #[error("no connection is free for a row lock: raise ledger.connections_max")]
    NoConnection,
    /// The ledger has no row locks.
    #[error("row locks need a PostgreSQL ledger: set ledger.url to one, or ledger.row_lock to false")]
    NoRowLocks,
    /// The ledger contains something that this program did not write.
    #[error("cannot read {what} in the ledger: another program has changed it, or it is damaged")]
    Damaged {
        /// What cannot be read.
        what: &'static str,
    },
    /// The ledger was closed in this process.
    #[error("the ledger is closed")]
    Closed,
    /// The database refused a statement for another reason.
    #[error("the ledger's database refused a statement")]
    Refused(#[source] Arc<sqlx::Error>),
}

impl LedgerError {
    /// Whether waiting can heal it at the start: a server that is not there yet, or is not the primary yet.
    #[must_use]
    pub const fn can_heal(&self) -> bool {
        match self {
            Self::Lost(_) | Self::ReadOnly | Self::TimedOut { .. } => true,
            Self::NoServer { can_heal, .. } => *can_heal,
            _ => false,
        }
    }

    /// Whether other sessions on the same server would not do better.
    #[must_use]
    pub(crate) const fn is_of_the_server(&self) -> bool {
        matches!(self, Self::Lost(_) | Self::ReadOnly | Self::NoServer { .. } | Self::TimedOut { .. })
    }

    /// As written in metric labels.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::CannotOpen(_) => "cannot_open",
            Self::SchemaNewer { .. } => "schema_newer",
            Self::Locked(_) => "locked",
            Self::DiskFull(_) => "disk_full",
            Self::DiskFailed(_) => "disk_failed",
            Self::Lost(_) => "lost",
            Self::ReadOnly => "read_only",
            Self::NoServer { .. } => "no_server",
            Self::SessionChanged => "session_changed",
            Self::TimedOut { .. } => "timed_out",
            Self::NoConnection => "no_connection",
            Self::NoRowLocks => "no_row_locks",
            Self::Damaged { .. } => "damaged",
            Self::Closed => "closed",
            Self::Refused(_) => "refused",
        }
    }
}

impl From<sqlx::Error> for LedgerError {
    fn from(error: sqlx::Error) -> Self {
        use sqlx::Error;
        if let Error::Database(refusal) = &error
            && refusal.try_downcast_ref::<sqlx::sqlite::SqliteError>().is_none()
        {
            match refusal.code().as_deref() {
                // read_only_sql_transaction
                Some("25006") => return Self::ReadOnly,
                // A prepared statement that is not there, or there already: our session is another one's.
                Some("26000" | "42P05") => return Self::SessionChanged,
                _ => {}
            }
        }
        let make: fn(Arc<Error>) -> Self = match &error {
            Error::Database(refusal) => match refusal.try_downcast_ref::<sqlx::sqlite::SqliteError>() {
                Some(refusal) => of_sqlite(refusal.code().as_deref().unwrap_or_default()),
                None => of_postgres(refusal.code().as_deref().unwrap_or_default()),
            },
            Error::Io(_) | Error::PoolTimedOut | Error::Protocol(_) | Error::WorkerCrashed => Self::Lost,
            Error::PoolClosed => return Self::Closed,
            Error::Configuration(_) | Error::Tls(_) => Self::CannotOpen,
            Error::ColumnDecode { .. } | Error::ColumnNotFound(_) | Error::Decode(_) => {
                return Self::Damaged { what: "a column of another type than expected" };
            }
            _ => Self::Refused,
        };
        make(Arc::new(error))
    }
}

type Make = fn(Arc<sqlx::Error>) -> LedgerError;

/// Result codes of SQLite; the lower eight bits are the primary one (sqlite.org/rescode.html).
fn of_sqlite(code: &str) -> Make {
    match code.parse::<u32>().unwrap_or_default() & 0xff {
        5 | 6 => LedgerError::Locked,                    // BUSY, LOCKED
        13 => LedgerError::DiskFull,                     // FULL
        10 => LedgerError::DiskFailed,                   // IOERR
        3 | 8 | 14 | 23 | 26 => LedgerError::CannotOpen, // PERM, READONLY, CANTOPEN, AUTH, NOTADB
        _ => LedgerError::Refused,
    }
}

/// SQLSTATE codes of PostgreSQL 15, appendix A.
fn of_postgres(code: &str) -> Make {
    match code {
        "53100" => LedgerError::DiskFull,
        "58030" => LedgerError::DiskFailed, // io_error
        // lock_not_available, deadlock_detected, serialization_failure, query_canceled (a timeout of ours)
        "55P03" | "40P01" | "40001" | "57014" => LedgerError::Locked,
        "3D000" | "42501" => LedgerError::CannotOpen, // no such database, no right
        _ if code.starts_with("28") => LedgerError::CannotOpen, // authorization
        "53300" => LedgerError::Lost,                 // too many connections
        // shutting down, crashed, starting up, broken connections
        _ if code.starts_with("57P") || code.starts_with("08") => LedgerError::Lost,
        _ => LedgerError::Refused,
    }
}
