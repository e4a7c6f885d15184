//! The messages that are witnesses: how they look, and what the broker's answers to them mean.

use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::ShortString;
use uuid::Uuid;

use crate::channel::confirm_channel::{Message, PublishAnswer, PublishOutcome};
use crate::error::SourceError;

/// AMQP `type` of a witness.
pub(crate) const WITNESS: &str = "lanekeeper.witness";

pub(crate) const PUBLISHING: &str = "publishing the witnesses of the layout";

/// One set of witnesses, published one after another: who published it, and which of that process's it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Round {
    process: String,
    number: u64,
}

impl Round {
    /// One of its own, for a process that publishes once.
    pub(crate) fn single() -> Self {
        Self { process: Uuid::new_v4().to_string(), number: 0 }
    }

    /// A round of this process.
    pub(crate) fn new(process: &str, number: u64) -> Self {
        Self { process: process.to_owned(), number }
    }

    /// The process that has published it.
    pub(crate) fn process(&self) -> &str {
        &self.process
    }

    /// Counts the rounds of its process.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// A witness of each key, to be published.
    pub(crate) fn messages<'k>(
        &self,
        exchange: &str,
        keys: impl IntoIterator<Item = &'k str>,
    ) -> Vec<Message<'static>> {
        let properties = BasicProperties::default()
            .with_type(WITNESS.into())
            .with_message_id(self.message_id().into())
            .with_delivery_mode(2);
        let exchange = ShortString::from(exchange);
        let message = |key: &str| Message {
            exchange: exchange.clone(),
            routing_key: key.into(),
            properties: properties.clone(),
            body: b"",
        };
        keys.into_iter().map(message).collect()
    }

    fn message_id(&self) -> String {
        format!("{} {}", self.process, self.number)
    }

    fn parse(text: &str) -> Option<Self> {
        let (process, number) = text.split_once(' ')?;
        Some(Self { process: process.to_owned(), number: number.parse().ok()? })
    }
}

/// The round of a witness; `None` if the delivery is not one. What publishers send comes through another exchange, so that
/// no update can look like a witness.
pub(crate) fn round_of(delivery: &Delivery, layout_exchange: &str) -> Option<Round> {
    let kind = delivery.properties.kind().as_ref().map(ShortString::as_str);
    let is_witness = kind == Some(WITNESS) && delivery.exchange.as_str() == layout_exchange;
    is_witness
        .then(|| delivery.properties.message_id().as_ref().and_then(|id| Round::parse(id.as_str())))
        .flatten()
}

/// Checks what the broker has answered to a round: if all is well, every witness is in some queue.
///
/// # Errors
/// No queue is bound to the exchange, or one has not taken its witness.
pub(crate) fn check_answers(answers: &[PublishAnswer], exchange: &str) -> Result<(), SourceError> {
    let fault = answers.iter().find_map(|answer| match answer.outcome() {
        PublishOutcome::Taken => None,
        PublishOutcome::Unroutable => {
            Some(SourceError::Missing { text: format!("no queue is bound to the exchange {exchange}") })
        }
        PublishOutcome::Refused => Some(SourceError::NotTaken { exchange: exchange.to_owned() }),
    });
    fault.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_is_read_as_it_was_published() {
        let round = Round { process: Uuid::new_v4().to_string(), number: 7 };
        assert_eq!(Round::parse(&round.message_id()), Some(round));
        for other in ["", "a", "a b", "7"] {
            assert_eq!(Round::parse(other), None, "{other}");
        }
    }
}
