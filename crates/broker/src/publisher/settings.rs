//! What a publisher needs to know.

use super::outbox::OutboxLimits;
use super::outgoing::ShortText;
use crate::settings::ConnectionSettings;

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
