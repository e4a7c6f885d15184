//! One partition's channel: consume, ack, close. Never a cancel with unsettled deliveries, never a requeue.

use std::collections::HashMap;
use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Consumer};
use tracing::{error, info, warn};

use super::dead_letters::{DeadLetters, Letter};
use super::decode::Decoder;
use super::error::SourceError;
use super::link::{ANSWER_TIMEOUT, Link, chain};
use super::names::Names;
use super::{Deliveries, Lost, Received, Source};
use crate::core::acks::Ack;
use crate::core::layout::{Layout, PartitionNumber};
use crate::core::message::DeliveryTag;
use crate::core::policy::DeadLetterReason;

const ATTACH_DELAY_MIN: Duration = Duration::from_millis(250);
const ATTACH_DELAY_MAX: Duration = Duration::from_secs(10);
/// How long the broker may take to say that a channel is closed. What we said is on its way by then.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// One partition's queue.
#[derive(Debug)]
pub struct AmqpSource {
    link: Link,
    dead_letters: DeadLetters,
    decoder: Arc<Decoder>,
    exchange: String,
    queue: String,
    consumer_tag: String,
    partition: PartitionNumber,
    prefetch: u16,
}

impl AmqpSource {
    /// A partition of the layout in force.
    #[must_use]
    pub fn new(
        link: Link,
        dead_letters: DeadLetters,
        decoder: Arc<Decoder>,
        names: &Names,
        layout: Layout,
        partition: PartitionNumber,
        instance: &str,
    ) -> Self {
        Self {
            link,
            dead_letters,
            decoder,
            exchange: names.public().to_owned(),
            queue: names.partition(layout.number, partition),
            // An AMQP consumer tag has at most 255 bytes; the config's check bounds the instance's name.
            consumer_tag: format!("lanekeeper {instance} {partition}"),
            partition,
            prefetch: layout.prefetch,
        }
    }

    async fn attach_once(&self) -> Result<AmqpDeliveries, SourceError> {
        let channel = self.link.channel().await?;
        let consuming = async {
            channel.basic_qos(self.prefetch, BasicQosOptions::default()).await?;
            let (queue, tag) = (self.queue.as_str().into(), self.consumer_tag.as_str().into());
            channel.basic_consume(queue, tag, BasicConsumeOptions::default(), FieldTable::default()).await
        };
        let step = "consuming a partition";
        let consumer = match tokio::time::timeout(ANSWER_TIMEOUT, consuming).await {
            Ok(Ok(consumer)) => consumer,
            Ok(Err(source)) => {
                return Err(SourceError::from_amqp(
                    step,
                    &format!("queue {}", self.queue),
                    &self.exchange,
                    source,
                ));
            }
            Err(_) => {
                // A late answer would make a consumer that nobody reads and that, as the active one, keeps the partition
                // from us and from every standby: the client keeps its channel open.
                let closing = channel.close(200, "no answer".into());
                let _ = tokio::time::timeout(CLOSE_TIMEOUT, closing).await;
                return Err(SourceError::Silent { step, seconds: ANSWER_TIMEOUT.as_secs() });
            }
        };
        Ok(AmqpDeliveries {
            channel,
            consumer: ManuallyDrop::new(consumer),
            decoder: Arc::clone(&self.decoder),
            dead_letters: self.dead_letters.clone(),
            partition: self.partition,
            kept: HashMap::new(),
            window: usize::from(self.prefetch),
        })
    }
}

impl Source for AmqpSource {
    type Deliveries = AmqpDeliveries;

    async fn attach(&self) -> AmqpDeliveries {
        let mut delay = ATTACH_DELAY_MIN;
        let mut told = String::new();
        loop {
            match self.attach_once().await {
                Ok(deliveries) => {
                    info!(partition = %self.partition, queue = self.queue, "partition attached");
                    return deliveries;
                }
                Err(fault) => {
                    let text = chain(&fault);
                    if text != told {
                        if fault.can_heal() {
                            warn!(partition = %self.partition, error = text, "cannot consume, trying again");
                        } else {
                            error!(partition = %self.partition, error = text, "cannot consume, trying again");
                        }
                        told = text;
                    }
                }
            }
            tokio::time::sleep(delay).await;
            delay = (delay * 2).min(ATTACH_DELAY_MAX);
        }
    }
}

/// The deliveries of one channel.
pub struct AmqpDeliveries {
    channel: Channel,
    /// lapin sends `basic.cancel` when a consumer is dropped, and the standby would then get the *next* updates at
    /// once: it is dropped only after its channel is closed (RabbitMQ 3.10.8 and 4.0.5, measured).
    consumer: ManuallyDrop<Consumer>,
    decoder: Arc<Decoder>,
    dead_letters: DeadLetters,
    partition: PartitionNumber,
    /// What the dead letters of unsettled deliveries would need.
    kept: HashMap<u64, Kept>,
    window: usize,
}

struct Kept {
    routing_key: ShortString,
    properties: BasicProperties,
    body: Bytes,
}

impl AmqpDeliveries {
    fn keep(&mut self, tag: u64, kept: Kept) -> Result<(), Lost> {
        if self.kept.len() >= self.window {
            return Err(Lost(format!("the broker delivered more than the prefetch of {}", self.window)));
        }
        self.kept.insert(tag, kept);
        Ok(())
    }
}

impl Deliveries for AmqpDeliveries {
    async fn next(&mut self) -> Result<Received, Lost> {
        let delivery = match self.consumer.next().await {
            Some(Ok(delivery)) => delivery,
            Some(Err(error)) => return Err(Lost(chain(&error))),
            // Among the reasons: the queue was deleted, or its leader moved (RabbitMQ "consumer cancel notification").
            None => return Err(Lost("the broker cancelled the consumer".to_owned())),
        };
        let body = Bytes::from(delivery.data);
        let routing_key = delivery.routing_key;
        let update = self.decoder.decode(routing_key.as_str(), &delivery.properties, body.clone());
        self.keep(delivery.delivery_tag, Kept { routing_key, properties: delivery.properties, body })?;
        Ok(Received {
            delivery: DeliveryTag(delivery.delivery_tag),
            redelivered: delivery.redelivered,
            update,
        })
    }

    async fn ack(&mut self, ack: Ack) -> Result<(), Lost> {
        let options = BasicAckOptions { multiple: ack.multiple };
        self.channel.basic_ack(ack.tag.0, options).await.map_err(|error| Lost(chain(&error)))
    }

    fn forget(&mut self, delivery: DeliveryTag) {
        self.kept.remove(&delivery.0);
    }

    fn dead_letter(
        &self,
        delivery: DeliveryTag,
        reason: DeadLetterReason,
    ) -> impl Future<Output = ()> + Send + 'static {
        let kept = self.kept.get(&delivery.0).expect("what is dead-lettered is not settled");
        let letter = Letter {
            routing_key: kept.routing_key.clone(),
            properties: kept.properties.clone(),
            body: kept.body.clone(),
        };
        self.dead_letters.clone().publish(letter, self.partition, reason)
    }

    async fn close(self) {
        let Self { channel, consumer, .. } = self;
        if channel.status().connected() {
            let closing = channel.close(200, "tenure over".into());
            match tokio::time::timeout(CLOSE_TIMEOUT, closing).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => warn!(error = chain(&error), "closing a channel"),
                Err(_) => {
                    warn!("closing a channel: no answer within 5 s");
                    return; // the consumer is never dropped before its channel is closed
                }
            }
        }
        drop(ManuallyDrop::into_inner(consumer));
    }
}
