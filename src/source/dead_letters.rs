//! The dead-letter queue: publishes with confirms, on a connection of its own, until the broker has it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation};
use tokio::sync::Mutex;
use tracing::{error, info};

use super::link::{Link, chain};
use super::names::Names;
use crate::core::layout::PartitionNumber;
use crate::core::policy::DeadLetterReason;

/// How long a confirm may take: an alarm makes publishes hang without an error.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(30);
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// A dead letter's `lanekeeper-detail` in bytes, well under the frame size that headers must fit.
const DETAIL_BYTES_MAX: usize = 1024;

/// A delivery as it came.
#[derive(Clone, Debug)]
pub(super) struct Letter {
    /// As the client has it: one that is not UTF-8 goes out with the bytes it came with.
    pub(super) routing_key: ShortString,
    pub(super) properties: BasicProperties,
    pub(super) body: Bytes,
}

/// The way to the dead-letter queue, shared by all partitions.
#[derive(Clone, Debug)]
pub struct DeadLetters {
    link: Link,
    exchange: String,
    /// Opened when it is first needed; `None` again after a failure.
    channel: Arc<Mutex<Option<Channel>>>,
}

impl DeadLetters {
    /// Over this link, which no consumer shares: an alarm blocks it.
    #[must_use]
    pub fn new(link: Link, names: &Names) -> Self {
        Self { link, exchange: names.dead(), channel: Arc::default() }
    }

    /// Publishes a letter; done once the broker has confirmed it. Until then its delivery stays unsettled.
    pub(super) async fn publish(self, letter: Letter, partition: PartitionNumber, reason: DeadLetterReason) {
        let properties = with_reason(&letter.properties, partition, &reason);
        let mut told = false;
        loop {
            let publishing = self.publish_once(&letter.routing_key, &letter.body, properties.clone());
            let fault = match tokio::time::timeout(CONFIRM_TIMEOUT, publishing).await {
                Ok(Ok(())) => break,
                Ok(Err(fault)) => fault,
                Err(_) => format!("not confirmed within {} s", CONFIRM_TIMEOUT.as_secs()),
            };
            if !told {
                error!(%partition, exchange = self.exchange, fault, "cannot dead-letter an update, it stays unsettled");
                told = true;
            }
            tokio::time::sleep(RETRY_DELAY).await;
        }
        if told {
            info!(%partition, "dead-lettered after all");
        }
    }

    /// One letter at a time: the client hands a returned message to whichever confirm comes next (lapin 4.12.3), so
    /// with two on their way a lost one could look confirmed.
    async fn publish_once(
        &self,
        routing_key: &ShortString,
        body: &[u8],
        properties: BasicProperties,
    ) -> Result<(), String> {
        let mut kept = self.channel.lock().await;
        // Gone unless all goes well, also when this future is dropped at its time limit.
        let channel = match kept.take().filter(|channel| channel.status().connected()) {
            Some(channel) => channel,
            None => self.open().await?,
        };
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let exchange = self.exchange.as_str().into();
        let publishing = channel.basic_publish(exchange, routing_key.clone(), options, body, properties);
        let confirm = publishing.await.map_err(|error| chain(&error))?;
        match confirm.await.map_err(|error| chain(&error))? {
            Confirmation::Ack(None) => {
                *kept = Some(channel);
                Ok(())
            }
            Confirmation::Ack(Some(_)) => Err(format!("no queue is bound to the exchange {}", self.exchange)),
            Confirmation::Nack(_) => Err("the broker refused it".to_owned()),
            Confirmation::NotRequested => Err("the channel does not confirm".to_owned()),
        }
    }

    async fn open(&self) -> Result<Channel, String> {
        let channel = self.link.channel().await.map_err(|error| chain(&error))?;
        let selecting = channel.confirm_select(ConfirmSelectOptions::default());
        selecting.await.map_err(|error| chain(&error))?;
        Ok(channel)
    }
}

/// The properties as they came, with the reason headers, made persistent. Left out or renamed is what would make the
/// broker drop the letter (`expiration`), refuse it (`user_id`, unless it is ours) or route it elsewhere too (`CC`).
fn with_reason(
    properties: &BasicProperties,
    partition: PartitionNumber,
    reason: &DeadLetterReason,
) -> BasicProperties {
    let mut headers = FieldTable::default();
    for (name, value) in properties.headers().iter().flat_map(FieldTable::inner) {
        match name.as_str() {
            "CC" | "BCC" => headers.insert(format!("lanekeeper-original-{name}").into(), value.clone()),
            _ => headers.insert(name.clone(), value.clone()),
        };
    }
    let mut put = |name: &str, value: String| {
        headers.insert(name.into(), AMQPValue::LongString(value.into()));
    };
    put("lanekeeper-reason", reason.name().to_owned());
    put("lanekeeper-detail", bounded(reason.detail()));
    put("lanekeeper-partition", partition.to_string());
    if let Some(user_id) = properties.user_id() {
        put("lanekeeper-original-user-id", user_id.to_string());
    }
    if let Some(expiration) = properties.expiration() {
        put("lanekeeper-original-expiration", expiration.to_string());
    }
    let kept = BasicProperties::default().with_headers(headers).with_delivery_mode(2);
    let kept = with(kept, properties.content_type().as_ref(), BasicProperties::with_content_type);
    let kept = with(kept, properties.content_encoding().as_ref(), BasicProperties::with_content_encoding);
    let kept = with(kept, properties.priority().as_ref(), BasicProperties::with_priority);
    let kept = with(kept, properties.correlation_id().as_ref(), BasicProperties::with_correlation_id);
    let kept = with(kept, properties.reply_to().as_ref(), BasicProperties::with_reply_to);
    let kept = with(kept, properties.message_id().as_ref(), BasicProperties::with_message_id);
    let kept = with(kept, properties.timestamp().as_ref(), BasicProperties::with_timestamp);
    let kept = with(kept, properties.kind().as_ref(), BasicProperties::with_type);
    with(kept, properties.app_id().as_ref(), BasicProperties::with_app_id)
}

fn with<T: Clone>(
    properties: BasicProperties,
    value: Option<&T>,
    set: impl FnOnce(BasicProperties, T) -> BasicProperties,
) -> BasicProperties {
    match value {
        Some(value) => set(properties, value.clone()),
        None => properties,
    }
}

fn bounded(mut detail: String) -> String {
    let end = (0..=DETAIL_BYTES_MAX.min(detail.len())).rev().find(|end| detail.is_char_boundary(*end));
    detail.truncate(end.unwrap_or(0));
    detail
}
