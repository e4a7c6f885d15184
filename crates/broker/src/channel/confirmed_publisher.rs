//! Publishes on a connection that is kept up, on a channel of its own.

use tokio::time::timeout;

use super::confirm_channel::{ConfirmChannel, Message, PublishAnswer};
use crate::error::SourceError;
use crate::link::{ANSWER_TIMEOUT, Link};

/// Opens its channel when it is first needed, and another one after a failure.
#[derive(Debug)]
pub(crate) struct ConfirmedPublisher {
    link: Link,
    /// What is being done, for the errors.
    step: &'static str,
    channel: Option<ConfirmChannel>,
}

impl ConfirmedPublisher {
    pub(crate) fn new(link: Link, step: &'static str) -> Self {
        Self { link, step, channel: None }
    }

    /// Publishes all messages. Returns once the broker has answered to each, in the order of the messages; at the latest
    /// after [`ANSWER_TIMEOUT`], during which the connection may also be missing.
    ///
    /// # Errors
    /// [`SourceError::Silent`], or what the client reports. Each message may have arrived or not.
    pub(crate) async fn publish_all(
        &mut self,
        messages: Vec<Message<'_>>,
    ) -> Result<Vec<PublishAnswer>, SourceError> {
        let step = self.step;
        let answers = timeout(ANSWER_TIMEOUT, self.publish_without_limit(messages)).await;
        answers.map_err(|_| SourceError::Silent { step, seconds: ANSWER_TIMEOUT.as_secs() })?
    }

    async fn publish_without_limit(
        &mut self,
        messages: Vec<Message<'_>>,
    ) -> Result<Vec<PublishAnswer>, SourceError> {
        let client_error = SourceError::amqp(self.step);
        // Missing unless all goes well, also if this future is dropped: late answers would be taken for others.
        let channel = match self.channel.take().filter(ConfirmChannel::is_open) {
            Some(channel) => channel,
            None => ConfirmChannel::select(self.link.channel().await?).await.map_err(client_error)?,
        };
        let answers = channel.publish_all(messages).await.map_err(client_error)?;
        self.channel = Some(channel);
        Ok(answers)
    }
}
