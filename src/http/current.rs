//! The targets of the config that is in force, which can change at any moment.

use std::collections::BTreeSet;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};

use super::client::{HttpTargets, TargetsFault};
use super::{Attempt, AttemptEnd, Target};
use crate::config::TargetConfig;
use lanekeeper_core::outcome::Outcome;

/// Looks if a credential has changed, and ends when what has changed is in force.
pub type LookAgain = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// Sends each attempt with the config that is in force when it begins.
pub struct CurrentTargets {
    current: RwLock<Arc<HttpTargets>>,
    /// Is asked when a target refuses who we are.
    look_again: LookAgain,
}

impl CurrentTargets {
    /// Begins with these.
    #[must_use]
    pub fn new(targets: HttpTargets, look_again: LookAgain) -> Self {
        Self { current: RwLock::new(Arc::new(targets)), look_again }
    }

    /// The config has changed. Attempts that have begun go on as they are.
    ///
    /// # Errors
    /// A setting is not valid in HTTP; nothing is changed then.
    pub fn change(&self, targets: &[TargetConfig]) -> Result<(), TargetsFault> {
        let changed = Arc::new(self.current().changed_to(targets)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = changed;
        Ok(())
    }

    /// Returns what [`Self::change`] would, and changes nothing.
    ///
    /// # Errors
    /// As there.
    pub fn can_change(&self, targets: &[TargetConfig]) -> Result<(), TargetsFault> {
        self.current().changed_to(targets).map(|_| ())
    }

    /// Hosts and ports of all their URLs.
    #[must_use]
    pub fn addresses(&self) -> BTreeSet<(String, u16)> {
        self.current().addresses()
    }

    fn current(&self) -> Arc<HttpTargets> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The target has refused who we are: if there is another credential now, the update is sent once more with it.
    async fn refused(&self, attempt: Attempt, by: &HttpTargets, ended: AttemptEnd) -> AttemptEnd {
        (self.look_again)().await;
        let now = self.current();
        if now.has_same(by, attempt.update.target) {
            return ended;
        }
        now.send(attempt).await
    }
}

impl Target for CurrentTargets {
    async fn send(&self, attempt: Attempt) -> AttemptEnd {
        let targets = self.current();
        let ended = targets.send(attempt.clone()).await;
        match ended.0 {
            // Boxed: it is rare, and every attempt would carry its future.
            Outcome::Refused(_) => Box::pin(self.refused(attempt, &targets, ended)).await,
            _ => ended,
        }
    }
}

impl fmt::Debug for CurrentTargets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CurrentTargets").field(&self.current()).finish()
    }
}
