//! Which record keys a target takes.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use tracing::warn;

use crate::config::{Pattern, TargetConfig};
use lanekeeper_core::log_interval::LogInterval;
use lanekeeper_core::template::climbs;
use lanekeeper_core::tick::Tick;
use lanekeeper_core::update::Update;

/// The rule of one target.
#[derive(Debug)]
pub(super) struct RecordKeys {
    target: String,
    allowed: Option<Pattern>,
    since: Instant,
    log: Mutex<LogInterval>,
}

impl RecordKeys {
    pub(super) fn new(target: &TargetConfig) -> Self {
        let allowed = target.record_keys.clone();
        Self { target: target.name.clone(), allowed, since: Instant::now(), log: Mutex::default() }
    }

    /// Checks the record key of an update. `in_path`: the path of its URL has the key.
    ///
    /// # Errors
    /// The target does not take it, in words, which do not quote it.
    pub(super) fn check(&self, update: &Update, in_path: bool) -> Result<(), String> {
        let key = update.record_key.as_str();
        match &self.allowed {
            Some(pattern) if pattern.matches(key) => Ok(()),
            Some(_) => Err(format!(
                "the record key does not match record_keys of target {:?}; nothing was sent",
                self.target
            )),
            None => {
                // As a whole segment, it is refused where the URL is made.
                if in_path && !matches!(key, "." | "..") && climbs(key) {
                    self.warn(update);
                }
                Ok(())
            }
        }
    }

    fn warn(&self, update: &Update) {
        let now = Tick::ZERO.after(self.since.elapsed());
        let due = self.log.lock().unwrap_or_else(PoisonError::into_inner).count(now);
        if let Some(updates) = due {
            let (target_name, update_id) = (self.target.as_str(), update.id.as_str());
            warn!(
                target_name,
                update_id,
                updates,
                "a record key has a segment . or .. in it, which gateways that decode URLs take for a step in the path; the next version refuses such keys: set record_keys of the target to say which keys it takes"
            );
        }
    }
}
