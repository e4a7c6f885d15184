//! Applies changes of the config in a door: with the next request, or the next connection.

use tokio::sync::watch;

use super::routes::{Common, CurrentServed};
use super::serve::DoorTls;
use crate::admin::Access;
use crate::admin::metrics::ConfigMetrics;
use crate::config::{Change, Config, IngestConfig};
use crate::reload::{BegunChange, LogFilter, Refusal, Reloadable};
use lanekeeper_broker::Address;
use lanekeeper_core::error::error_chain;

/// What takes in changes.
pub(super) struct DoorParts {
    pub(super) common: Common,
    pub(super) current: CurrentServed,
    pub(super) tls: DoorTls,
    pub(super) broker: Address,
    pub(super) access: Access,
    pub(super) log_filter: LogFilter,
    /// The config in force, for the stop.
    pub(super) in_force: watch::Sender<IngestConfig>,
    pub(super) metrics: ConfigMetrics,
}

impl Reloadable for DoorParts {
    fn begin_change(&self, config: &Config, _: &[Change]) -> Result<BegunChange, Refusal> {
        let users = self.broker.change_users(&config.broker.connection);
        users.map_err(|error| Refusal::Other(error_chain(&error)))?;
        (self.log_filter.0)(&config.log.filter);
        self.access.change(&config.admin);
        self.tls.change(&config.ingest);
        self.current.change(self.common.served(&config.ingest));
        Ok(BegunChange::Done)
    }

    fn in_force(&self, config: &Config) {
        self.in_force.send_replace(config.ingest.clone());
    }

    fn metrics(&self) -> &ConfigMetrics {
        &self.metrics
    }
}
