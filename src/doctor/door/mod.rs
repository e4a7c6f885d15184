//! Examines what a door alone needs: an exchange that takes what its user publishes, addresses, and its certificate. What lies
//! behind the exchange is not asked: a door's user may not see it.

mod listening;
mod rules;
#[cfg(test)]
mod tests;

use super::facts::{ExchangeManagement, ManagementFault};
use super::{Examination, Subject, management};
use crate::config::Config;
use lanekeeper_broker::{
    Address, ExchangeProbe, ExchangePublishing, MessageSize, Names, SourceError, probe_exchange,
    try_message_size_at,
};
use listening::Listening;
use std::net::SocketAddr;

/// All facts.
#[derive(Clone, Debug)]
pub struct ObservedDoor {
    /// Seen over AMQP.
    pub broker: ExchangeProbe,
    /// Seen over the management API, or why nothing was seen there.
    pub management: Result<ExchangeManagement, ManagementFault>,
    /// If the exchange for the door's reports takes them.
    pub reports: ExchangePublishing,
    /// The virtual host of `broker.url`.
    pub vhost: String,
    /// If the broker takes a message as large as `updates.body_bytes_max`.
    pub message_size: MessageSize,
    /// `ingest.listen`.
    pub address: Option<SocketAddr>,
    /// If the door can have its addresses, or has them already.
    listening: Listening,
}

impl ObservedDoor {
    /// True if a door runs at these addresses.
    pub fn runs(&self) -> bool {
        self.listening.is_of_a_door()
    }
}

/// Collects facts and judges them. Changes nothing in the broker.
///
/// # Errors
/// The broker cannot be reached over AMQP, refuses us, or does not answer.
pub(super) async fn examine(config: &Config) -> Result<Examination, SourceError> {
    let exchange = &config.updates.exchange;
    let address = Address::new(&config.broker.connection)?;
    let name = format!("lanekeeper {} doctor", config.instance);
    let broker = probe_exchange(&address, exchange, &name).await?;
    let management =
        management::look_at_exchange(&config.broker.management(), exchange, broker.cluster.as_deref()).await;
    let (message_size, reports) = match &broker.publishing {
        // It would say the same again, and take its time.
        ExchangePublishing::Blocked | ExchangePublishing::Silent => {
            (MessageSize::Unknown("the broker takes no publishes".to_owned()), broker.publishing.clone())
        }
        _ => {
            let size = try_message_size_at(&address, exchange, &name, config.updates.body_bytes_max).await;
            let doors = Names::new(exchange).doors();
            (size, probe_exchange(&address, &doors, &name).await?.publishing)
        }
    };
    let observed = ObservedDoor {
        broker,
        management,
        reports,
        vhost: address.vhost().to_owned(),
        message_size,
        address: config.ingest.listen,
        listening: Listening::of(config).await,
    };
    let findings = rules::judge(&observed, config);
    let unseen = rules::unseen(&observed, config);
    Ok(Examination { subject: Subject::Door(Box::new(observed)), findings, unseen })
}
