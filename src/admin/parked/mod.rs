//! What is parked in the ledger: looked for, read, released and discarded. Pages and API call the same functions.

pub(super) mod api;
pub(super) mod body;
pub(super) mod change;
pub(super) mod export;
pub(super) mod found;
pub(super) mod search;
pub(super) mod view;

use std::sync::{Arc, OnceLock};

use super::problem::{AdminProblem, ProblemCode};
use lanekeeper_core::error::error_chain;
use lanekeeper_core::update::RecordKey;
use lanekeeper_ledger::{AnyLedger, LedgerError};

/// The ledger of this process, which opens it after the port. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct LedgerSlot(Arc<OnceLock<Option<Arc<AnyLedger>>>>);

impl LedgerSlot {
    /// It is open; `None`: the config has none. Later calls change nothing.
    pub fn set(&self, ledger: Option<Arc<AnyLedger>>) {
        let _ = self.0.set(ledger); // it is opened once
    }

    /// The ledger.
    pub(super) fn open(&self) -> Result<Arc<AnyLedger>, AdminProblem> {
        match self.0.get() {
            None => Err(AdminProblem::new(
                ProblemCode::Starting,
                "this process has not reached its ledger and its broker yet; /readyz says what it waits for",
            )),
            Some(None) => Err(AdminProblem::new(
                ProblemCode::NoLedger,
                "ledger.url is \"none\": nothing is parked, and what became of updates is not kept",
            )),
            Some(Some(ledger)) => Ok(Arc::clone(ledger)),
        }
    }
}

/// The process ends while something is being changed.
pub(super) fn ends() -> AdminProblem {
    AdminProblem::new(
        ProblemCode::LedgerFailed,
        "this process ends: look if the change was made, at another process or later",
    )
}

/// The ledger does not answer, or refuses.
pub(super) fn failed(fault: &LedgerError) -> AdminProblem {
    AdminProblem::new(ProblemCode::LedgerFailed, error_chain(fault))
}

pub(super) fn record_key(text: &str) -> Result<RecordKey, AdminProblem> {
    RecordKey::new(text).map_err(|fault| AdminProblem::new(ProblemCode::InvalidRequest, fault.to_string()))
}

pub(super) fn not_parked() -> AdminProblem {
    AdminProblem::new(ProblemCode::NotParked, "the record has no parked updates")
}
