//! Why this process must stop dispatching altogether: what it found makes order unsure in every partition.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::error::SourceError;

/// Set by the part that finds the reason; the supervisor waits for it. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Halt(Arc<HaltState>);

#[derive(Debug, Default)]
struct HaltState {
    is_set: watch::Sender<bool>,
    reason: Mutex<Option<SourceError>>,
}

impl Halt {
    /// The first reason stands.
    pub(super) fn set(&self, reason: SourceError) {
        self.0.reason.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason);
        self.0.is_set.send_replace(true);
    }

    /// Returns true if there is a reason: nothing more may be taken from a queue.
    pub(super) fn is_set(&self) -> bool {
        *self.0.is_set.borrow()
    }

    /// The reason, as soon as there is one. It is given once.
    pub async fn reason(&self) -> SourceError {
        let mut is_set = self.0.is_set.subscribe();
        let set = is_set.wait_for(|set| *set).await.is_ok();
        let reason = self.0.reason.lock().unwrap_or_else(PoisonError::into_inner).take();
        match reason.filter(|_| set) {
            Some(reason) => reason,
            None => std::future::pending().await,
        }
    }
}
