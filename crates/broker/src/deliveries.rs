//! One partition's channel: consume, ack, close. Never a cancel with unsettled deliveries, never a requeue.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::mem::ManuallyDrop;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Consumer};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::dead_letters::{DeadLetters, Letter};
use super::decode::Decoder;
use super::error::SourceError;
use super::halt::Halt;
use super::kept::Kept;
use super::link::{ANSWER_TIMEOUT, ConnectionNumber, Link};
use super::marker::is_marker;
use super::members::Members;
use super::names::Names;
use super::pulse::{Heard, Pulse};
use super::roster::Known;
use super::version::Version;
use super::witnesses::Witnesses;
use super::{Deliveries, Gone, Holding, Lost, News, Received, Source};
use lanekeeper_core::acks::{Ack, AckLimits};
use lanekeeper_core::error::chain;
use lanekeeper_core::layout::{Layout, PartitionNumber};
use lanekeeper_core::message::{DeliveryTag, Holder, TenureNumber};
use lanekeeper_core::policy::DeadLetterReason;
use lanekeeper_core::tick::Tick;
use lanekeeper_core::update::Update;

const ATTACH_DELAY_MIN: Duration = Duration::from_millis(250);
const ATTACH_DELAY_MAX: Duration = Duration::from_secs(10);
/// How long the broker may take to say that a channel is closed. What we said is on its way by then.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// Between the last ack and the close of the channel. Acks sent are not acks done: of 500 up to 467 came back when the
/// channel was closed at once, none after this (RabbitMQ 3.10.8 and 4.0.5, measured).
const SETTLE_GRACE: Duration = Duration::from_millis(100);
/// A broker that is slow to answer is slow to settle, too: it is given so many times the time of an answer.
const ROUND_TRIPS: u32 = 20;
const SETTLE_GRACE_MAX: Duration = Duration::from_secs(3);

/// What the sources of all partitions share.
#[derive(Clone, Debug)]
pub struct Shared {
    /// The connection that consumes.
    pub link: Link,
    /// The other replicas.
    pub members: Members,
    /// Whether the broker is heard.
    pub pulse: Pulse,
    /// Whether keys are where they were.
    pub witnesses: Witnesses,
    /// What stops them all.
    pub halt: Halt,
    /// Whether their layout drains.
    pub draining: watch::Receiver<bool>,
    /// Where malformed, rejected and exhausted updates go.
    pub dead_letters: DeadLetters,
    /// From deliveries to updates.
    pub decoder: Arc<Decoder>,
    /// When acks go out.
    pub ack_limits: AckLimits,
}

/// One partition's queue.
#[derive(Debug)]
pub struct AmqpSource {
    shared: Shared,
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
        shared: Shared,
        names: &Names,
        layout: Layout,
        partition: PartitionNumber,
        instance: &str,
    ) -> Self {
        Self {
            shared,
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
        // Whoever announces itself from here on may be preferred to us.
        let Shared { link, members, pulse, witnesses, halt, dead_letters, decoder, ack_limits, .. } =
            self.shared.clone();
        let position = members.position().await;
        let (channel, connection) = link.channel_of().await?;
        let since = Instant::now();
        let priority = AMQPValue::LongInt(members.priority(self.partition));
        let consuming = async {
            channel.basic_qos(self.prefetch, BasicQosOptions::default()).await?;
            let (queue, tag) = (self.queue.as_str().into(), self.consumer_tag.as_str().into());
            let mut arguments = FieldTable::default();
            arguments.insert("x-priority".into(), priority);
            channel.basic_consume(queue, tag, BasicConsumeOptions::default(), arguments).await
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
        members.announce(self.partition);
        let mut known = members.watch(self.partition);
        known.mark_changed();
        Ok(AmqpDeliveries {
            since,
            connection,
            ownership: Ownership {
                members,
                partition: self.partition,
                known,
                heeds_priority: link.version().is_some_and(Version::heeds_priority),
                outranked_from: position,
                claim: None,
                told: Told::Nothing,
                asked: None,
            },
            heard: pulse.watch(),
            news: VecDeque::new(),
            channel,
            consumer: ManuallyDrop::new(consumer),
            witnesses,
            halt,
            decoder,
            dead_letters,
            partition: self.partition,
            kept: Kept::new(usize::from(self.prefetch), ack_limits),
            prefetch: self.prefetch,
        })
    }
}

impl Source for AmqpSource {
    type Deliveries = AmqpDeliveries;

    async fn attach(&self) -> Result<AmqpDeliveries, Gone> {
        let mut told = String::new();
        loop {
            let delay = self.pace().next(Instant::now());
            tokio::time::sleep(delay).await;
            let fault = match self.attach_once().await {
                Ok(deliveries) => {
                    info!(partition = %self.partition, queue = self.queue, "partition attached");
                    self.pace().attached = Some(Instant::now());
                    return Ok(deliveries);
                }
                Err(fault) => fault,
            };
            if fault.is_deleted_queue() && *self.shared.draining.borrow() {
                return Err(Gone);
            }
            if fault.is_deleted_queue() {
                // Keys of all partitions go elsewhere without it.
                self.shared.halt.set(fault);
                return std::future::pending().await;
            }
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

    fn drains(&self) -> bool {
        *self.shared.draining.borrow()
    }

    fn tell_holding(&self, holding: Holding) {
        self.shared.members.tell_holding(self.partition, holding);
    }

    fn ask_for_delivery(&self) {
        self.shared.witnesses.ask();
    }
}

/// When the next attachment may be tried.
#[derive(Debug, Default)]
struct Pace {
    delay: Option<Duration>,
    attached: Option<Instant>,
}

impl Pace {
    /// At once after an attachment that lasted; then later and later: neither a broker that refuses us nor a channel that
    /// ends as soon as it consumes may keep both sides busy.
    fn next(&mut self, now: Instant) -> Duration {
        let lasted = self.attached.take().is_some_and(|at| now.duration_since(at) >= ATTACH_DELAY_MAX);
        let delay = match self.delay.filter(|_| !lasted) {
            None => Duration::ZERO,
            Some(delay) => (delay * 2).clamp(ATTACH_DELAY_MIN, ATTACH_DELAY_MAX),
        };
        self.delay = Some(delay);
        delay
    }
}

/// The deliveries of one channel.
pub struct AmqpDeliveries {
    since: Instant,
    connection: ConnectionNumber,
    ownership: Ownership,
    heard: watch::Receiver<Heard>,
    /// Told one at a time.
    news: VecDeque<News>,
    channel: Channel,
    /// lapin sends `basic.cancel` when a consumer is dropped, and the standby would then get the *next* updates at
    /// once: it is dropped only after its channel is closed (RabbitMQ 3.10.8 and 4.0.5, measured).
    consumer: ManuallyDrop<Consumer>,
    witnesses: Witnesses,
    halt: Halt,
    decoder: Arc<Decoder>,
    dead_letters: DeadLetters,
    partition: PartitionNumber,
    kept: Kept,
    prefetch: u16,
}

/// What the replicas say about this partition, as far as it concerns this tenure.
struct Ownership {
    members: Members,
    partition: PartitionNumber,
    known: watch::Receiver<Known>,
    heeds_priority: bool,
    /// Announcements from this offset on are news.
    outranked_from: u64,
    claim: Option<u64>,
    told: Told,
    /// The newest question that was told.
    asked: Option<u64>,
}

/// What was told of the present claim.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    Nothing,
    /// That it has no number; the newest claim of another process by then.
    Waived(Option<TenureNumber>),
    Number(TenureNumber),
    Superseded,
}

impl Ownership {
    fn claim(&mut self) {
        self.claim = Some(self.members.claim(self.partition));
        self.told = Told::Nothing;
    }

    fn look(&mut self, news: &mut VecDeque<News>) {
        if !self.known.has_changed().unwrap_or(false) {
            return;
        }
        let known = *self.known.borrow_and_update();
        let ours = known.ours.filter(|(claim, _)| Some(*claim) == self.claim).map(|(_, number)| number);
        match (self.told, ours) {
            (Told::Nothing | Told::Waived(_), Some(number)) => {
                self.told = Told::Number(number);
                news.push_back(News::Claimed { number: Some(number), other: known.before_ours });
            }
            (Told::Nothing, None) if self.claim.is_some() && known.waived == self.claim => {
                self.told = Told::Waived(known.other);
                news.push_back(News::Claimed { number: None, other: known.other });
            }
            _ => {}
        }
        if let Some(question) = known.asked.filter(|_| known.asked != self.asked) {
            self.asked = known.asked;
            news.push_back(News::Asked(question));
        }
        let latest = match self.told {
            Told::Number(number) => Some(Some(number)),
            Told::Waived(other) => Some(other),
            Told::Nothing | Told::Superseded => None,
        };
        if latest.is_some_and(|latest| known.other > latest) {
            self.told = Told::Superseded;
            news.push_back(News::Superseded);
        }
        if let Some(at) = known.outranked_at.filter(|at| *at >= self.outranked_from) {
            self.outranked_from = at + 1;
            if self.heeds_priority {
                news.push_back(News::Outranked);
            }
        }
    }
}

impl AmqpDeliveries {
    /// Ticks of a channel count from its start.
    fn now(&self) -> Tick {
        Tick::ZERO.after(self.since.elapsed())
    }

    fn instant(&self, tick: Tick) -> Instant {
        self.since + Duration::from_micros(tick.micros())
    }

    async fn send(&self, ack: Ack) -> Result<(), Lost> {
        let options = BasicAckOptions { multiple: ack.multiple };
        self.channel.basic_ack(ack.tag.0, options).await.map_err(|error| Lost(chain(&error)))
    }

    /// How long the broker takes to answer on this channel, which has all acks sent so far before it by then; bounded.
    async fn round_trip(&self) -> Duration {
        let begun = Instant::now();
        // Of no consequence: the consumer keeps the prefetch that it began with.
        let asking = self.channel.basic_qos(self.prefetch, BasicQosOptions::default());
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, asking).await;
        begun.elapsed()
    }

    /// Whether there are news of the ownership or a sign of life.
    fn look(&mut self) -> Result<(), Lost> {
        if self.heard.has_changed().unwrap_or(false)
            && let Some((connection, at)) = *self.heard.borrow_and_update()
        {
            match connection.cmp(&self.connection) {
                Ordering::Less => {}
                Ordering::Equal => self.news.push_back(News::Heard(at)),
                // A consumer that was made as its connection ended may never learn of it.
                Ordering::Greater => return Err(Lost("its connection is gone".to_owned())),
            }
        }
        self.ownership.look(&mut self.news);
        Ok(())
    }

    fn received(&mut self, delivery: Option<lapin::Result<Delivery>>) -> Result<News, Lost> {
        let delivery = match delivery {
            Some(Ok(delivery)) => delivery,
            Some(Err(error)) => return Err(Lost(chain(&error))),
            // Among the reasons: the queue was deleted, or its leader moved (RabbitMQ "consumer cancel notification").
            None => return Err(Lost("the broker cancelled the consumer".to_owned())),
        };
        let tag = DeliveryTag(delivery.delivery_tag);
        let now = self.now();
        if !self.kept.came(tag, now) {
            return Err(Lost(format!("the broker delivered more than the prefetch of {}", self.prefetch)));
        }
        if self.witnesses.recognize(&delivery, self.partition) {
            return Ok(News::Witness(tag));
        }
        if is_marker(&delivery) {
            return Ok(News::Marker);
        }
        let body = Bytes::from(delivery.data);
        let routing_key = delivery.routing_key;
        let update = self.decoder.decode(routing_key.as_str(), &delivery.properties, body.clone());
        let letter = Letter { routing_key, properties: delivery.properties, body };
        self.kept.keep(tag, update.as_deref().ok(), letter);
        Ok(News::Received(Received { delivery: tag, redelivered: delivery.redelivered, update }))
    }
}

impl Deliveries for AmqpDeliveries {
    async fn next(&mut self) -> Result<News, Lost> {
        loop {
            self.look()?;
            if let Some(news) = self.news.pop_front() {
                return Ok(news);
            }
            if self.halt.is_set() {
                // What comes behind this must not be looked at: the supervisor is about to stop the process.
                return std::future::pending().await;
            }
            tokio::select! {
                biased;
                delivery = self.consumer.next() => return self.received(delivery),
                Ok(()) = self.heard.changed() => self.heard.mark_changed(),
                Ok(()) = self.ownership.known.changed() => self.ownership.known.mark_changed(),
            }
        }
    }

    fn since(&self) -> Instant {
        self.since
    }

    fn claim(&mut self) {
        self.news.retain(|news| !matches!(news, News::Claimed { .. }));
        self.ownership.claim();
    }

    fn settle(&mut self, delivery: DeliveryTag) {
        let now = self.now();
        self.kept.settle(delivery, now);
    }

    async fn send_acks(&mut self) -> Result<(), Lost> {
        let now = self.now();
        while let Some(ack) = self.kept.acks().poll(now) {
            self.send(ack).await?;
        }
        Ok(())
    }

    fn next_ack_at(&mut self) -> Option<Instant> {
        let next = self.kept.acks().next_deadline()?;
        Some(self.instant(next))
    }

    fn oldest_came_at(&self) -> Option<Instant> {
        self.kept.oldest_came().map(|came| self.instant(came))
    }

    fn came_at(&self, delivery: DeliveryTag) -> Option<Instant> {
        self.kept.came_at(delivery).map(|came| self.instant(came))
    }

    fn has_begun(&self) -> bool {
        self.kept.has_begun()
    }

    fn dead_letter(
        &self,
        holder: Holder,
        update: Option<&Update>,
        reason: DeadLetterReason,
    ) -> impl Future<Output = ()> + Send + 'static {
        let letter = match (holder, update) {
            (Holder::Broker(delivery), update) => self.kept.letter(delivery, update),
            (Holder::Ledger(_), Some(update)) => Letter::of(update),
            (Holder::Ledger(_), None) => unreachable!("what is parked is an update"),
        };
        self.dead_letters.clone().publish(letter, self.partition, reason)
    }

    async fn leave(mut self) {
        let mut settled = true;
        while let Some(ack) = self.kept.acks().flush() {
            settled &= self.send(ack).await.is_ok();
        }
        if settled {
            let round_trips = self.round_trip().await * ROUND_TRIPS;
            tokio::time::sleep(round_trips.clamp(SETTLE_GRACE, SETTLE_GRACE_MAX)).await;
        }
        self.close().await;
    }

    async fn close(self) {
        let Self { channel, consumer, ownership, .. } = self;
        ownership.members.withdraw(ownership.partition);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attachments_that_do_not_last_come_later_and_later() {
        let mut pace = Pace::default();
        let mut now = Instant::now();
        let mut check = |lasts_ms: Option<u64>, expected_ms: u64| {
            let delay = pace.next(now);
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
