//! Applies changes of the config in a process that dispatches.
//!
//! What only requests depend on is in force with the next attempt; for the rest, the supervisor attaches the partitions again.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::task::AbortOnDropHandle;

use super::notify::Notifier;
use crate::admin::Access;
use crate::admin::metrics::ConfigMetrics;
use crate::config::{Change, Config, Loaded, TakesEffect};
use crate::config_requests::ConfigRequest;
use crate::http::client::TargetsFault;
use crate::http::current::CurrentTargets;
use crate::reload::{self, BegunChange, LogFilter, Refusal, Reloadable};
use lanekeeper_broker::Address;
use lanekeeper_core::error::error_chain;
use lanekeeper_ledger::AnyLedger;

/// What takes in changes.
pub(super) struct ReloadableParts {
    /// The config in force, for those who look at it now and then.
    pub(super) in_force: watch::Sender<Config>,
    pub(super) targets: Arc<CurrentTargets>,
    /// `None`: updates come from elsewhere than RabbitMQ.
    pub(super) address: Option<Address>,
    pub(super) ledger: Option<Arc<AnyLedger>>,
    pub(super) log_filter: LogFilter,
    /// Tokens and certificate of the admin port.
    pub(super) access: Access,
    pub(super) notifier: Notifier,
    pub(super) metrics: ConfigMetrics,
}

/// The supervisor is to attach the partitions again with this config.
pub(super) struct AttachAgain {
    pub(super) config: Config,
    /// It is in force.
    pub(super) done: oneshot::Sender<Result<(), TargetsFault>>,
}

/// Runs until it is dropped. `loaded` is in force.
pub(super) fn begin(
    loaded: Loaded,
    parts: ReloadableParts,
    requests: mpsc::Receiver<ConfigRequest>,
) -> (AbortOnDropHandle<()>, mpsc::Receiver<AttachAgain>) {
    let (attach, attach_again) = mpsc::channel(1);
    (reload::begin(loaded, Dispatching { parts, attach }, requests), attach_again)
}

struct Dispatching {
    parts: ReloadableParts,
    attach: mpsc::Sender<AttachAgain>,
}

impl Reloadable for Dispatching {
    fn begin_change(&self, config: &Config, changes: &[Change]) -> Result<BegunChange, Refusal> {
        self.parts.targets.can_change(&config.targets)?;
        self.parts.notifier.can_change(config)?;
        self.change_others(config)?;
        if !changes.iter().any(|change| change.takes_effect == TakesEffect::WhenAttachedAgain) {
            self.parts.targets.change(&config.targets)?;
            self.parts.notifier.change(config)?;
            return Ok(BegunChange::Done);
        }
        let (done, when_done) = oneshot::channel();
        let asked = self.attach.try_send(AttachAgain { config: config.clone(), done });
        asked.map_err(|_| Refusal::Other("the process stops".to_owned()))?;
        Ok(BegunChange::Begun(when_done))
    }

    fn in_force(&self, config: &Config) {
        self.parts.in_force.send_replace(config.clone());
    }

    fn metrics(&self) -> &ConfigMetrics {
        &self.parts.metrics
    }
}

impl Dispatching {
    /// What nothing else depends on.
    fn change_others(&self, config: &Config) -> Result<(), Refusal> {
        if let Some(address) = &self.parts.address {
            let users = address.change_users(&config.broker.connection);
            users.map_err(|error| Refusal::Other(error_chain(&error)))?;
        }
        if let (Some(ledger), Some(config)) = (&self.parts.ledger, &config.ledger) {
            ledger.change_users(config).map_err(|error| Refusal::Other(error_chain(&error)))?;
        }
        (self.parts.log_filter.0)(&config.log.filter);
        self.parts.access.change(&config.admin);
        Ok(())
    }
}
