//! Publishes in one order, as fast as the broker confirms, and gives up at the first fault: for measurements, whose load
//! is thrown away then. Everybody else wants [`super::Publisher`].

use std::collections::VecDeque;

use super::error::PublishError;
use super::session::{PublisherSession, fatal};
use super::settings::PublisherSettings;
use crate::channel::confirm_channel::{PublishOutcome, Unconfirmed};
use crate::connection::Address;
use lanekeeper_core::error::error_chain;
use lanekeeper_core::publish::outgoing::{Outgoing, ShortText};

/// Publishes that are not confirmed yet.
const UNCONFIRMED_MAX: usize = 1_000;

/// One channel, on which RabbitMQ keeps the order.
pub struct BulkPublisher {
    session: PublisherSession,
    exchange: ShortText,
    unconfirmed: VecDeque<Unconfirmed>,
}

impl BulkPublisher {
    /// Connects. The exchange must be there; `settings.limits` are of no use here.
    ///
    /// # Errors
    /// As for [`super::Publisher::connect`].
    pub async fn connect(settings: &PublisherSettings) -> Result<Self, PublishError> {
        let session = PublisherSession::open(&Address::new(&settings.connection)?, settings).await?;
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
        let unconfirmed = self.session.send(outgoing).await.map_err(|error| self.fault(&error))?;
        self.unconfirmed.push_back(unconfirmed);
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
        let Some(unconfirmed) = self.unconfirmed.pop_front() else { return Ok(()) };
        let answer = unconfirmed.answer().await.map_err(|error| self.fault(&error))?;
        match answer.outcome() {
            PublishOutcome::Taken => Ok(()),
            PublishOutcome::Unroutable => Err(refused("an update found no queue")),
            PublishOutcome::Refused => Err(refused("an update was not taken")),
        }
    }

    fn fault(&self, error: &lapin::Error) -> PublishError {
        fatal(error, &self.exchange).unwrap_or_else(|| refused(&error_chain(error)))
    }
}

fn refused(text: &str) -> PublishError {
    PublishError::Refused { text: text.to_owned() }
}
