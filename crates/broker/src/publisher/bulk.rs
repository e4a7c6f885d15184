//! Publishes in one order, as fast as the broker confirms, and gives up at the first fault: for measurements, whose load
//! is thrown away then. Everybody else wants [`super::Publisher`].

use std::collections::VecDeque;

use lapin::options::BasicPublishOptions;
use lapin::types::ShortString;
use lapin::{Confirmation, PublisherConfirm};

use super::amqp::{PublisherSession, fatal, properties, text};
use super::driver::PublisherSettings;
use super::error::PublishError;
use super::outgoing::{Outgoing, ShortText};

/// Publishes that are not confirmed yet.
const UNCONFIRMED_MAX: usize = 1_000;

/// One channel, on which RabbitMQ keeps the order.
pub struct BulkPublisher {
    session: PublisherSession,
    exchange: ShortText,
    unconfirmed: VecDeque<PublisherConfirm>,
}

impl BulkPublisher {
    /// Connects. The exchange must be there; `settings.limits` are of no use here.
    ///
    /// # Errors
    /// As for [`super::Publisher::connect`].
    pub async fn connect(settings: &PublisherSettings) -> Result<Self, PublishError> {
        let session = PublisherSession::open(settings).await?;
        Ok(Self { session, exchange: settings.exchange.clone(), unconfirmed: VecDeque::new() })
    }

    /// Publishes one more. When it has returned, all but the newest 1,000 are confirmed.
    ///
    /// # Errors
    /// The broker did not take this or an earlier one.
    pub async fn publish(&mut self, outgoing: &Outgoing) -> Result<(), PublishError> {
        if self.unconfirmed.len() == UNCONFIRMED_MAX {
            self.confirm_oldest().await?;
        }
        let routing_key = ShortString::from(outgoing.record_key.as_str());
        let options = BasicPublishOptions { mandatory: true, immediate: false };
        let exchange = self.session.exchange.clone();
        let publishing = self.session.channel.basic_publish(
            exchange,
            routing_key,
            options,
            &outgoing.body,
            properties(outgoing),
        );
        let confirm = publishing.await.map_err(|error| self.fault(&error))?;
        self.unconfirmed.push_back(confirm);
        Ok(())
    }

    /// When it has returned, everything is confirmed.
    ///
    /// # Errors
    /// The broker did not take one.
    pub async fn confirmed(&mut self) -> Result<(), PublishError> {
        while !self.unconfirmed.is_empty() {
            self.confirm_oldest().await?;
        }
        Ok(())
    }

    /// Closes in order.
    pub async fn close(self) {
        self.session.close().await;
    }

    async fn confirm_oldest(&mut self) -> Result<(), PublishError> {
        let Some(confirm) = self.unconfirmed.pop_front() else { return Ok(()) };
        match confirm.await {
            Ok(Confirmation::Ack(None)) => Ok(()),
            Ok(Confirmation::Ack(Some(_))) => Err(refused("an update found no queue")),
            Ok(_) => Err(refused("an update was not taken")),
            Err(error) => Err(self.fault(&error)),
        }
    }

    fn fault(&self, error: &lapin::Error) -> PublishError {
        fatal(error, &self.exchange).unwrap_or_else(|| refused(&text(error)))
    }
}

fn refused(text: &str) -> PublishError {
    PublishError::Refused { text: text.to_owned() }
}
