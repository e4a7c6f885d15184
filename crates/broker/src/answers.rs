//! Publishes the answers of this process to questions: to a queue that exists while somebody waits for them, in memory alone.

use std::time::Duration;

use lapin::BasicProperties;
use tokio::time::timeout;

use crate::channel::confirm_channel::{ConfirmChannel, Message};
use crate::error::SourceError;
use crate::link::Link;

/// Who asks waits no longer. An alarm keeps the answer back.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
const STEP: &str = "answering a question";

/// Publishes answers, one after another.
#[derive(Debug)]
pub struct AnswerPublisher {
    link: Link,
    channel: Option<ConfirmChannel>,
}

impl AnswerPublisher {
    /// Opens its channel with the first answer.
    #[must_use]
    pub fn new(link: Link) -> Self {
        Self { link, channel: None }
    }

    /// Publishes an answer; what finds no queue is gone: nobody waits for it any more. Returns once it is sent.
    ///
    /// # Errors
    /// It could not be sent within two seconds.
    pub async fn publish(&mut self, reply_to: &str, body: &[u8]) -> Result<(), SourceError> {
        let sending = timeout(ANSWER_TIMEOUT, self.send(reply_to, body)).await;
        sending.map_err(|_| SourceError::Silent { step: STEP, seconds: ANSWER_TIMEOUT.as_secs() })?
    }

    async fn send(&mut self, reply_to: &str, body: &[u8]) -> Result<(), SourceError> {
        let client_error = SourceError::amqp(STEP);
        // Missing unless all goes well, also if this future is dropped.
        let channel = match self.channel.take().filter(ConfirmChannel::is_open) {
            Some(channel) => channel,
            None => ConfirmChannel::select(self.link.channel().await?).await.map_err(&client_error)?,
        };
        let properties = BasicProperties::default().with_content_type("application/json".into());
        let message = Message { exchange: "".into(), routing_key: reply_to.into(), properties, body };
        channel.send_to_nobody(message).await.map_err(client_error)?.answer().await.map_err(client_error)?;
        self.channel = Some(channel);
        Ok(())
    }
}
