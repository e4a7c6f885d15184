//! How long a demo waits for something before it gives up.

use std::time::{Duration, Instant};

use super::error::DemoError;

/// How long nothing may change. The demo itself causes no wait as long as this.
const STALL_MAX: Duration = Duration::from_secs(20);

/// A time limit that begins again whenever something changes.
#[derive(Debug)]
pub(super) struct StallTimeout {
    what: &'static str,
    progress: Option<u64>,
    changed: Instant,
}

impl StallTimeout {
    /// `what` is waited for, in words for people.
    pub(super) fn new(what: &'static str) -> Self {
        Self { what, progress: None, changed: Instant::now() }
    }

    /// `progress` has to change from time to time. `seen` describes the state for people.
    ///
    /// # Errors
    /// [`DemoError::Stuck`] if it has been the same for too long.
    pub(super) fn see(&mut self, progress: u64, seen: impl FnOnce() -> String) -> Result<(), DemoError> {
        if self.progress != Some(progress) {
            self.progress = Some(progress);
            self.changed = Instant::now();
        }
        if self.changed.elapsed() < STALL_MAX {
            return Ok(());
        }
        Err(DemoError::Stuck { what: self.what, seconds: STALL_MAX.as_secs(), seen: seen() })
    }
}
