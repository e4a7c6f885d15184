//! Why this process must stop dispatching altogether: what it found makes order unsure in every partition.

use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

use super::error::SourceError;

/// Set by the part that finds the reason; the supervisor waits for it. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Halt(Arc<HaltState>);

#[derive(Debug, Default)]
struct HaltState {
    is_set: CancellationToken,
    reason: Mutex<Option<SourceError>>,
}

impl Halt {
    /// Halts the process. The first reason counts.
    pub(super) fn set(&self, reason: SourceError) {
        self.0.reason.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason);
        self.0.is_set.cancel();
    }

    /// Returns true if there is a reason: nothing more may be taken from a queue.
    pub(super) fn is_set(&self) -> bool {
        self.0.is_set.is_cancelled()
    }

    /// Waits for the reason. It is returned once; after that this waits until the process ends.
    pub async fn reason(&self) -> SourceError {
        self.0.is_set.cancelled().await;
        let reason = self.0.reason.lock().unwrap_or_else(PoisonError::into_inner).take();
        match reason {
            Some(reason) => reason,
            None => std::future::pending().await,
        }
    }
}
