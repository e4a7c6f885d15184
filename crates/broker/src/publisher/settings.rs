//! What a publisher needs to know.

use crate::settings::ConnectionSettings;
use lanekeeper_core::publish::outbox::OutboxLimits;
use lanekeeper_core::publish::outgoing::ShortText;

/// Where to publish, and how many at once.
#[derive(Clone, Debug)]
pub struct PublisherSettings {
    /// How the broker is reached.
    pub connection: ConnectionSettings,
    /// `instance.name`: part of the connection's name in the RabbitMQ UI.
    pub instance: String,
    /// `updates.exchange`.
    pub exchange: ShortText,
    /// Bounds of the outbox.
    pub limits: OutboxLimits,
}
