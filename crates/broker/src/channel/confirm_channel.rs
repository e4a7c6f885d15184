//! Publishing with confirms: the one way in which this crate publishes.

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation, PublisherConfirm};

/// A message and where it goes.
#[derive(Clone, Debug)]
pub(crate) struct Message<'a> {
    /// Empty: the default exchange, whose routing keys are names of queues.
    pub(crate) exchange: ShortString,
    pub(crate) routing_key: ShortString,
    pub(crate) properties: BasicProperties,
    pub(crate) body: &'a [u8],
}

impl<'a> Message<'a> {
    /// A persistent message straight to a queue or stream.
    pub(crate) fn to_queue(queue: &str, properties: BasicProperties, body: &'a [u8]) -> Self {
        let properties = properties.with_delivery_mode(2);
        Self { exchange: ShortString::default(), routing_key: queue.into(), properties, body }
    }
}

/// What the broker has said to a publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PublishAnswer {
    /// The confirm is positive. This is also the answer to a message that no queue took.
    pub(crate) is_ack: bool,
    /// The routing key of the returned message that came with the confirm. If several publishes of a channel are
    /// unconfirmed, it can be of another one of them: the client attaches a return to whichever confirm comes next (lapin
    /// 4.12.3).
    pub(crate) returned: Option<ShortString>,
}

impl PublishAnswer {
    /// Of a publish that was alone on its channel, or of whose channel's other publishes none may be returned either.
    pub(crate) fn outcome(&self) -> PublishOutcome {
        match (self.is_ack, &self.returned) {
            (true, None) => PublishOutcome::Taken,
            (true, Some(_)) => PublishOutcome::Unroutable,
            (false, _) => PublishOutcome::Refused,
        }
    }
}

/// What has become of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PublishOutcome {
    /// It is in every queue that it is for.
    Taken,
    /// No queue is bound to the exchange for it.
    Unroutable,
    /// A queue did not take it.
    Refused,
}

/// A channel in confirm mode.
#[derive(Clone, Debug)]
pub(crate) struct ConfirmChannel(Channel);

/// A message that is on its way.
#[derive(Debug)]
pub(crate) struct Unconfirmed(PublisherConfirm);

impl ConfirmChannel {
    /// Puts the channel into confirm mode, where it stays.
    pub(crate) async fn select(channel: Channel) -> lapin::Result<Self> {
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(Self(channel))
    }

    pub(crate) fn is_open(&self) -> bool {
        self.0.status().connected()
    }

    /// Sends a message. The client counts publishes in the order in which these futures are polled: only one task may
    /// publish on a channel.
    pub(crate) async fn send(&self, message: Message<'_>) -> lapin::Result<Unconfirmed> {
        let Message { exchange, routing_key, properties, body } = message;
        // Without it, the broker confirms what no queue takes, and says nothing.
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        self.0.basic_publish(exchange, routing_key, options, body, properties).await.map(Unconfirmed)
    }

    /// As [`Self::send`], for a message that no queue takes: it is confirmed, and does not come back.
    pub(crate) async fn send_to_nobody(&self, message: Message<'_>) -> lapin::Result<Unconfirmed> {
        let Message { exchange, routing_key, properties, body } = message;
        let options = BasicPublishOptions::default();
        self.0.basic_publish(exchange, routing_key, options, body, properties).await.map(Unconfirmed)
    }

    /// Sends all messages, then waits for the answers to all of them. Answers come in the order of the messages.
    ///
    /// An alarm of the broker makes this hang: the caller sets the time limit. The channel is of no more use if the
    /// future is dropped.
    pub(crate) async fn publish_all(&self, messages: Vec<Message<'_>>) -> lapin::Result<Vec<PublishAnswer>> {
        let mut unconfirmed = Vec::with_capacity(messages.len());
        for message in messages {
            unconfirmed.push(self.send(message).await?);
        }
        let mut answers = Vec::with_capacity(unconfirmed.len());
        for sent in unconfirmed {
            answers.push(sent.answer().await?);
        }
        Ok(answers)
    }
}

impl Unconfirmed {
    /// Waits for the broker's answer.
    pub(crate) async fn answer(self) -> lapin::Result<PublishAnswer> {
        let (is_ack, returned) = match self.0.await? {
            Confirmation::Ack(returned) => (true, returned),
            Confirmation::Nack(returned) => (false, returned),
            Confirmation::NotRequested => unreachable!("the channel is in confirm mode"),
        };
        Ok(PublishAnswer { is_ack, returned: returned.map(|message| message.delivery.routing_key.clone()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_taken_only_if_it_is_confirmed_and_not_returned() {
        use PublishOutcome::{Refused, Taken, Unroutable};
        for (is_ack, returned, expected) in [
            (true, None, Taken),
            (true, Some("key"), Unroutable),
            (false, None, Refused),
            (false, Some("key"), Refused),
        ] {
            let answer = PublishAnswer { is_ack, returned: returned.map(ShortString::from) };
            assert_eq!(answer.outcome(), expected, "{answer:?}");
        }
    }
}
