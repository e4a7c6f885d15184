//! Publishes to the dead-letter queue, on a connection that no consumer shares, until the broker has confirmed it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tracing::{error, info};

use super::dead_letter::{DeadLetter, FRAME_BYTES_MAX, with_reason};
use crate::channel::confirm_channel::{Message, PublishOutcome};
use crate::channel::confirmed_publisher::ConfirmedPublisher;
use crate::link::Link;
use crate::log_on_change::LogOnChange;
use crate::names::Names;
use lanekeeper_core::error::error_chain;
use lanekeeper_core::layout::PartitionNumber;
use lanekeeper_core::policy::DeadLetterReason;

const RETRY_DELAY: Duration = Duration::from_secs(1);

/// The publisher of dead letters that all partitions share.
#[derive(Clone, Debug)]
pub struct DeadLetters {
    link: Link,
    exchange: String,
    /// One dead letter at a time: the client attaches a returned message to whichever confirm comes next (lapin 4.12.3), so
    /// that with two unconfirmed a lost one could look confirmed.
    publisher: Arc<Mutex<Publisher>>,
}

#[derive(Debug)]
struct Publisher {
    confirmed: ConfirmedPublisher,
    /// One line per change, however many dead letters wait.
    log: LogOnChange,
}

impl DeadLetters {
    /// Over this link, which no consumer shares: an alarm blocks it.
    #[must_use]
    pub fn new(link: Link, names: &Names) -> Self {
        let confirmed = ConfirmedPublisher::new(link.clone(), "publishing a dead letter");
        let publisher = Publisher { confirmed, log: LogOnChange::default() };
        Self { link, exchange: names.dead(), publisher: Arc::new(Mutex::new(publisher)) }
    }

    /// The longest frame that the properties of a dead letter may take.
    pub(super) fn frame_max(&self) -> usize {
        self.link.frame_max().unwrap_or(FRAME_BYTES_MAX).min(FRAME_BYTES_MAX)
    }

    /// Publishes a dead letter. Returns once the broker has confirmed it; until then its delivery stays unsettled.
    pub(super) async fn publish(
        self,
        dead_letter: DeadLetter,
        partition: PartitionNumber,
        reason: DeadLetterReason,
    ) {
        while !self.try_publish(&dead_letter, partition, &reason).await {
            tokio::time::sleep(RETRY_DELAY).await;
        }
    }

    async fn try_publish(
        &self,
        dead_letter: &DeadLetter,
        partition: PartitionNumber,
        reason: &DeadLetterReason,
    ) -> bool {
        let message = Message {
            exchange: self.exchange.as_str().into(),
            routing_key: dead_letter.routing_key.clone(),
            properties: with_reason(dead_letter, partition, reason, self.frame_max()),
            body: &dead_letter.body,
        };
        // The time limit of the publisher does not count the wait for this.
        let mut publisher = self.publisher.lock().await;
        let fault = match publisher.confirmed.publish_all(vec![message]).await {
            Ok(answers) => answers.iter().find_map(|answer| match answer.outcome() {
                PublishOutcome::Taken => None,
                PublishOutcome::Unroutable => {
                    Some(format!("no queue is bound to the exchange {}", self.exchange))
                }
                PublishOutcome::Refused => Some("the broker refused it".to_owned()),
            }),
            Err(fault) => Some(error_chain(&fault)),
        };
        let (exchange, is_published) = (&self.exchange, fault.is_none());
        match fault {
            Some(error) => {
                if publisher.log.is_new(error.clone()) {
                    error!(
                        %partition,
                        exchange,
                        error,
                        "cannot publish dead letters, trying again every second: their deliveries stay unsettled"
                    );
                }
            }
            None => {
                if publisher.log.cleared() {
                    info!(exchange, "publishing dead letters works again");
                }
            }
        }
        is_published
    }
}
