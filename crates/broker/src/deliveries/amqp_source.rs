//! A partition's queue in RabbitMQ, which is consumed once a tenure.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lapin::types::{AMQPValue, FieldTable};
use tokio::time::{Instant, timeout};
use tracing::{error, info, warn};

use super::amqp_deliveries::AmqpDeliveries;
use super::claim_watch::ClaimWatch;
use super::context::SourceContext;
use crate::backoff::Backoff;
use crate::channel::consumer_channel::ConsumerChannel;
use crate::connection::Version;
use crate::error::SourceError;
use crate::link::{ANSWER_TIMEOUT, ConsumingChannel};
use crate::log_on_change::LogOnChange;
use crate::membership::PartitionStatus;
use crate::names::Names;
use crate::source::{Gone, Source};
use lanekeeper_core::error::error_chain;
use lanekeeper_core::layout::{Layout, PartitionNumber};
use lanekeeper_core::message::TenureNumber;

const ATTACH_DELAY_MIN: Duration = Duration::from_millis(250);
const ATTACH_DELAY_MAX: Duration = Duration::from_secs(10);
/// How long the broker may take to close a channel on which it has not answered.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// A partition's queue in RabbitMQ.
#[derive(Debug)]
pub struct AmqpSource {
    context: SourceContext,
    exchange: String,
    queue: String,
    consumer_tag: String,
    partition: PartitionNumber,
    prefetch: u16,
    pace: Mutex<Pace>,
}

impl AmqpSource {
    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A partition of a layout.
    #[must_use]
    pub fn new(
        context: SourceContext,
        names: &Names,
        layout: Layout,
        partition: PartitionNumber,
        instance: &str,
    ) -> Self {
        Self {
            context,
            exchange: names.public().to_owned(),
            queue: names.partition(layout.number, partition),
            // An AMQP consumer tag has at most 255 bytes; the config's check bounds the instance's name.
            consumer_tag: format!("lanekeeper {instance} {partition}"),
            partition,
            prefetch: layout.prefetch,
            pace: Mutex::default(),
        }
    }

    async fn attach_once(&self) -> Result<AmqpDeliveries, SourceError> {
        let SourceContext { link, membership, reach, .. } = &self.context;
        reach.may_consume().await;
        // A replica that announces itself from here on may be preferred to this one.
        let position = membership.position().await;
        let window = usize::from(self.prefetch);
        let ConsumingChannel { channel, connection, alterations } = link.consuming_channel(window).await?;
        let since = Instant::now();
        let channel = self.consume(ConsumerChannel::new(channel)).await?;
        membership.announce(self.partition);
        let observes_priority = link.version().is_some_and(Version::observes_priority);
        let claim_watch = ClaimWatch::new(membership.clone(), self.partition, position, observes_priority);
        Ok(AmqpDeliveries::new(
            &self.context,
            self.queue.clone(),
            (self.partition, self.prefetch),
            (channel, alterations),
            connection,
            since,
            claim_watch,
        ))
    }

    async fn consume(&self, mut channel: ConsumerChannel) -> Result<ConsumerChannel, SourceError> {
        const STEP: &str = "consuming a partition";
        let mut arguments = FieldTable::default();
        let priority = self.context.membership.priority(self.partition);
        arguments.insert("x-priority".into(), AMQPValue::LongInt(priority));
        let consuming = async {
            channel.set_prefetch(self.prefetch).await?;
            channel.consume(&self.queue, &self.consumer_tag, arguments).await
        };
        match timeout(ANSWER_TIMEOUT, consuming).await {
            Ok(Ok(_)) => Ok(channel),
            Ok(Err(source)) => {
                let object = format!("queue {}", self.queue);
                Err(SourceError::from_consuming(STEP, &object, &self.exchange, source))
            }
            Err(_) => {
                // A late answer would make a consumer that nobody reads and that, as the active one, keeps the partition
                // from this process and from every standby: the client keeps its channel open.
                let _ = channel.close(CLOSE_TIMEOUT).await;
                Err(SourceError::Silent { step: STEP, seconds: ANSWER_TIMEOUT.as_secs() })
            }
        }
    }
}

impl Source for AmqpSource {
    type Deliveries = AmqpDeliveries;

    async fn attach(&self) -> Result<AmqpDeliveries, Gone> {
        let (mut log, mut majority_reached) = (LogOnChange::default(), false);
        loop {
            let delay = self.pace().next_delay(Instant::now());
            tokio::time::sleep(delay).await;
            let mut fault = match self.attach_once().await {
                Ok(deliveries) => {
                    info!(partition = %self.partition, queue = self.queue, "partition attached");
                    self.pace().attached = Some(Instant::now());
                    return Ok(deliveries);
                }
                Err(fault) => fault,
            };
            if fault.is_deleted_queue() && !majority_reached {
                // A node that is cut off, or that starts, may not know the queue. Only an answer that comes after a majority
                // was reached counts.
                match self.context.majority.prove().await {
                    Ok(()) => {
                        majority_reached = true;
                        continue;
                    }
                    Err(unproven) => fault = unproven,
                }
            }
            majority_reached = false;
            if fault.is_deleted_queue() && self.context.draining.is_cancelled() {
                return Err(Gone);
            }
            if fault.is_deleted_queue() {
                // Without it, keys of all partitions go to other queues.
                self.context.halt.set(fault);
                return std::future::pending().await;
            }
            let (partition, error) = (self.partition, error_chain(&fault));
            if log.is_new(error.clone()) {
                if fault.can_heal() {
                    warn!(%partition, error, "cannot consume the partition, trying again");
                } else {
                    error!(%partition, error, "cannot consume the partition, trying again");
                }
            }
        }
    }

    fn drains(&self) -> bool {
        self.context.draining.is_cancelled()
    }

    fn publish_status(&self, status: PartitionStatus) {
        self.context.membership.publish_status(self.partition, status);
    }

    fn publish_end(&self, number: TenureNumber, rest: Duration) {
        self.context.membership.publish_end(self.partition, number, rest);
    }

    fn ask_for_delivery(&self) {
        self.context.witnesses.ask();
    }
}

/// The waits before attachments.
#[derive(Debug)]
struct Pace {
    backoff: Backoff,
    attached: Option<Instant>,
}

impl Default for Pace {
    fn default() -> Self {
        let backoff = Backoff::first_at_once(ATTACH_DELAY_MIN, ATTACH_DELAY_MAX);
        Self { backoff, attached: None }
    }
}

impl Pace {
    /// No wait after an attachment that lasted; otherwise longer and longer ones, so that neither a broker that refuses us nor
    /// a channel that ends as soon as it consumes keeps both sides busy.
    fn next_delay(&mut self, now: Instant) -> Duration {
        if self.attached.take().is_some_and(|at| now.duration_since(at) >= ATTACH_DELAY_MAX) {
            self.backoff.reset();
        }
        self.backoff.next_delay()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attachments_that_do_not_last_come_later_and_later() {
        let mut pace = Pace::default();
        let mut now = Instant::now();
        let mut check = |lasts_ms: Option<u64>, expected_ms: u64| {
            let delay = pace.next_delay(now);
            assert_eq!(delay, Duration::from_millis(expected_ms), "{lasts_ms:?}");
            now += delay;
            pace.attached = lasts_ms.map(|_| now);
            now += Duration::from_millis(lasts_ms.unwrap_or_default());
        };
        check(Some(20_000), 0);
        check(Some(1), 0);
        check(Some(1), 250);
        check(Some(1), 500);
        for (lasts_ms, expected_ms) in [1_000, 2_000, 4_000, 8_000, 10_000, 10_000].map(|ms| (None, ms)) {
            check(lasts_ms, expected_ms);
        }
        check(Some(10_000), 10_000);
        check(Some(1), 0);
        check(None, 250);
    }
}
