//! How the broker is reached.

use std::time::Duration;

use lanekeeper_core::secret::Secret;

/// Of one connection, as the operator decides it.
#[derive(Clone, Debug)]
pub struct ConnectionSettings {
    /// `amqp://` or `amqps://`, with user, password and virtual host: one for each host, at least one, all of the same
    /// virtual host.
    pub urls: Vec<Secret>,
    /// AMQP heartbeat, whole seconds, at least 1.
    pub heartbeat: Duration,
}
