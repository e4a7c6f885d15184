//! One partition's channel: consume, ack, close. Never a cancel with unsettled deliveries, never a requeue.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::mem::ManuallyDrop;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, BasicRejectOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Consumer};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::connection::{ChannelAlterations, Version, WindowExceeded};
use super::dead_letters::{DeadLetter, DeadLetters};
use super::decode::Decoder;
use super::error::SourceError;
use super::halt::Halt;
use super::link::{ANSWER_TIMEOUT, ConnectionNumber, Link};
use super::liveness::{LastSeen, LivenessProbe};
use super::membership::{Membership, PartitionClaims, PartitionStatus};
use super::names::Names;
use super::topology::{Witnesses, is_marker};
use super::unsettled::UnsettledDeliveries;
use super::{Deliveries, Gone, Lost, Received, Source, SourceEvent};
use lanekeeper_core::acks::{Ack, AckLimits};
use lanekeeper_core::error::error_chain;
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
pub struct SourceContext {
    /// The connection that consumes.
    pub link: Link,
    /// The other replicas.
    pub membership: Membership,
    /// Whether the broker is heard.
    pub liveness: LivenessProbe,
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
    shared: SourceContext,
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
        shared: SourceContext,
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
        let SourceContext {
            link,
            membership,
            liveness,
            witnesses,
            halt,
            dead_letters,
            decoder,
            ack_limits,
            ..
        } = self.shared.clone();
        let position = membership.position().await;
        let (channel, connection, alterations) = link.consuming_channel(usize::from(self.prefetch)).await?;
        let since = Instant::now();
        let priority = AMQPValue::LongInt(membership.priority(self.partition));
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
        membership.announce(self.partition);
        let mut known = membership.watch(self.partition);
        known.mark_changed();
        Ok(AmqpDeliveries {
            since,
            connection,
            claim_watch: ClaimWatch {
                membership,
                partition: self.partition,
                known,
                observes_priority: link.version().is_some_and(Version::observes_priority),
                preempted_from: position,
                claim: None,
                notified: ClaimNotice::Nothing,
                asked: None,
            },
            last_seen: liveness.watch(),
            events: VecDeque::new(),
            channel,
            alterations,
            consumer: ManuallyDrop::new(consumer),
            witnesses,
            halt,
            decoder,
            dead_letters,
            partition: self.partition,
            unsettled: UnsettledDeliveries::new(usize::from(self.prefetch), ack_limits),
            prefetch: self.prefetch,
        })
    }
}

impl Source for AmqpSource {
    type Deliveries = AmqpDeliveries;

    async fn attach(&self) -> Result<AmqpDeliveries, Gone> {
        let mut last_logged = String::new();
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
            let text = error_chain(&fault);
            if text != last_logged {
                if fault.can_heal() {
                    warn!(partition = %self.partition, error = text, "cannot consume, trying again");
                } else {
                    error!(partition = %self.partition, error = text, "cannot consume, trying again");
                }
                last_logged = text;
            }
        }
    }

    fn drains(&self) -> bool {
        *self.shared.draining.borrow()
    }

    fn publish_status(&self, status: PartitionStatus) {
        self.shared.membership.publish_status(self.partition, status);
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
    claim_watch: ClaimWatch,
    last_seen: watch::Receiver<LastSeen>,
    /// Told one at a time.
    events: VecDeque<SourceEvent>,
    channel: Channel,
    /// What the screen changes in them.
    alterations: ChannelAlterations,
    /// lapin sends `basic.cancel` when a consumer is dropped, and the standby would then get the *next* updates at
    /// once: it is dropped only after its channel is closed (RabbitMQ 3.10.8 and 4.0.5, measured).
    consumer: ManuallyDrop<Consumer>,
    witnesses: Witnesses,
    halt: Halt,
    decoder: Arc<Decoder>,
    dead_letters: DeadLetters,
    partition: PartitionNumber,
    unsettled: UnsettledDeliveries,
    prefetch: u16,
}

/// What the replicas say about this partition, as far as it concerns this tenure.
struct ClaimWatch {
    membership: Membership,
    partition: PartitionNumber,
    known: watch::Receiver<PartitionClaims>,
    observes_priority: bool,
    /// Announcements from this offset on are news.
    preempted_from: u64,
    claim: Option<u64>,
    notified: ClaimNotice,
    /// The newest question that was told.
    asked: Option<u64>,
}

/// What was told of the present claim.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ClaimNotice {
    Nothing,
    /// That it has no number; the newest claim of another process by then.
    WithoutNumber(Option<TenureNumber>),
    Number(TenureNumber),
    Superseded,
}

impl ClaimWatch {
    fn claim(&mut self) {
        self.claim = Some(self.membership.claim(self.partition));
        self.notified = ClaimNotice::Nothing;
    }

    fn look(&mut self, events: &mut VecDeque<SourceEvent>) {
        if !self.known.has_changed().unwrap_or(false) {
            return;
        }
        let known = *self.known.borrow_and_update();
        let ours = known.ours.filter(|(claim, _)| Some(*claim) == self.claim).map(|(_, number)| number);
        match (self.notified, ours) {
            (ClaimNotice::Nothing | ClaimNotice::WithoutNumber(_), Some(number)) => {
                self.notified = ClaimNotice::Number(number);
                events
                    .push_back(SourceEvent::Claimed { number: Some(number), rival_claim: known.before_ours });
            }
            (ClaimNotice::Nothing, None) if self.claim.is_some() && known.without_number == self.claim => {
                self.notified = ClaimNotice::WithoutNumber(known.rival_claim);
                events.push_back(SourceEvent::Claimed { number: None, rival_claim: known.rival_claim });
            }
            _ => {}
        }
        if let Some(request) = known.asked.filter(|_| known.asked != self.asked) {
            self.asked = known.asked;
            events.push_back(SourceEvent::StatusRequested(request));
        }
        let latest = match self.notified {
            ClaimNotice::Number(number) => Some(Some(number)),
            ClaimNotice::WithoutNumber(rival_claim) => Some(rival_claim),
            ClaimNotice::Nothing | ClaimNotice::Superseded => None,
        };
        if latest.is_some_and(|latest| known.rival_claim > latest) {
            self.notified = ClaimNotice::Superseded;
            events.push_back(SourceEvent::ClaimSuperseded);
        }
        if let Some(at) = known.preempted_at.filter(|at| *at >= self.preempted_from) {
            self.preempted_from = at + 1;
            if self.observes_priority {
                events.push_back(SourceEvent::Preempted);
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
        self.channel.basic_ack(ack.tag.0, options).await.map_err(|error| Lost(error_chain(&error)))
    }

    /// Has the broker dead-letter what never reached us whole, or fits no letter of ours.
    async fn send_rejections(&mut self) -> Result<(), Lost> {
        while let Some(delivery) = self.unsettled.next_to_reject() {
            let to_the_dead_letter_exchange = BasicRejectOptions { requeue: false };
            #[expect(
                clippy::disallowed_methods,
                reason = "without requeue it changes no order; the broker then moves the message as it came"
            )]
            let rejecting = self.channel.basic_reject(delivery.0, to_the_dead_letter_exchange);
            rejecting.await.map_err(|error| Lost(error_chain(&error)))?;
            self.unsettled.rejected();
        }
        Ok(())
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
        if self.last_seen.has_changed().unwrap_or(false)
            && let Some((connection, at)) = *self.last_seen.borrow_and_update()
        {
            match connection.cmp(&self.connection) {
                Ordering::Less => {}
                Ordering::Equal => self.events.push_back(SourceEvent::BrokerSeen(at)),
                // A consumer that was made as its connection ended may never learn of it.
                Ordering::Greater => return Err(Lost("its connection is gone".to_owned())),
            }
        }
        self.claim_watch.look(&mut self.events);
        Ok(())
    }

    fn received(&mut self, delivery: Option<lapin::Result<Delivery>>) -> Result<SourceEvent, Lost> {
        let delivery = match delivery {
            Some(Ok(delivery)) => delivery,
            Some(Err(error)) => return Err(Lost(error_chain(&error))),
            // Among the reasons: the queue was deleted, or its leader moved (RabbitMQ "consumer cancel notification").
            None => return Err(Lost("the broker cancelled the consumer".to_owned())),
        };
        let tag = DeliveryTag(delivery.delivery_tag);
        let too_many = || Lost(format!("the broker delivered more than the prefetch of {}", self.prefetch));
        let alteration = self.alterations.take(delivery.delivery_tag).map_err(|WindowExceeded| too_many())?;
        let alteration = alteration.unwrap_or_default();
        if !self.unsettled.received(tag, self.now()) {
            return Err(too_many());
        }
        if self.witnesses.recognize(&delivery, self.partition) {
            return Ok(SourceEvent::Witness(tag));
        }
        if is_marker(&delivery) {
            return Ok(SourceEvent::Marker);
        }
        let Delivery { routing_key, mut properties, redelivered, .. } = delivery;
        let body = Bytes::from(delivery.data);
        alteration.restore(&mut properties);
        let update = self.decoder.decode(routing_key.as_str(), &properties, body.clone(), &alteration);
        let incomplete = alteration.left_something_out();
        let dead_letter =
            DeadLetter { routing_key, properties, body, originals: alteration.into_originals() };
        if incomplete || (update.is_err() && !dead_letter.fits_a_frame()) {
            self.unsettled.leave_to_the_broker(tag);
        } else {
            self.unsettled.keep(tag, update.as_deref().ok(), dead_letter);
        }
        Ok(SourceEvent::Received(Received { delivery: tag, redelivered, update }))
    }
}

impl Deliveries for AmqpDeliveries {
    async fn next(&mut self) -> Result<SourceEvent, Lost> {
        loop {
            self.look()?;
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            if self.halt.is_set() {
                // What comes behind this must not be looked at: the supervisor is about to stop the process.
                return std::future::pending().await;
            }
            tokio::select! {
                biased;
                delivery = self.consumer.next() => return self.received(delivery),
                Ok(()) = self.last_seen.changed() => self.last_seen.mark_changed(),
                Ok(()) = self.claim_watch.known.changed() => self.claim_watch.known.mark_changed(),
            }
        }
    }

    fn since(&self) -> Instant {
        self.since
    }

    fn claim(&mut self) {
        self.events.retain(|event| !matches!(event, SourceEvent::Claimed { .. }));
        self.claim_watch.claim();
    }

    fn settle(&mut self, delivery: DeliveryTag) {
        let now = self.now();
        self.unsettled.settle(delivery, now);
    }

    async fn send_acks(&mut self) -> Result<(), Lost> {
        self.send_rejections().await?;
        let now = self.now();
        while let Some(ack) = self.unsettled.acks().poll(now) {
            self.send(ack).await?;
        }
        Ok(())
    }

    fn next_ack_at(&mut self) -> Option<Instant> {
        let next = self.unsettled.acks().next_deadline()?;
        Some(self.instant(next))
    }

    fn oldest_came_at(&self) -> Option<Instant> {
        self.unsettled.oldest_received_at().map(|came| self.instant(came))
    }

    fn received_at(&self, delivery: DeliveryTag) -> Option<Instant> {
        self.unsettled.received_at(delivery).map(|came| self.instant(came))
    }

    fn has_begun(&self) -> bool {
        self.unsettled.has_begun()
    }

    fn dead_letter(
        &self,
        holder: Holder,
        update: Option<&Update>,
        reason: DeadLetterReason,
    ) -> impl Future<Output = ()> + Send + 'static {
        let dead_letter = match (holder, update) {
            (Holder::Broker(delivery), update) => self.unsettled.dead_letter(delivery, update),
            (Holder::Ledger(_), Some(update)) => Some(DeadLetter::of(update)),
            (Holder::Ledger(_), None) => unreachable!("what is parked is an update"),
        };
        let (dead_letters, partition) = (self.dead_letters.clone(), self.partition);
        async move {
            // `None`: the settlement is what has the broker dead-letter it.
            if let Some(dead_letter) = dead_letter {
                dead_letters.publish(dead_letter, partition, reason).await;
            }
        }
    }

    async fn leave(mut self) {
        let mut settled = self.send_rejections().await.is_ok();
        while let Some(ack) = self.unsettled.acks().flush() {
            settled &= self.send(ack).await.is_ok();
        }
        if settled {
            let round_trips = self.round_trip().await * ROUND_TRIPS;
            tokio::time::sleep(round_trips.clamp(SETTLE_GRACE, SETTLE_GRACE_MAX)).await;
        }
        self.close().await;
    }

    async fn close(self) {
        let Self { channel, consumer, claim_watch, .. } = self;
        claim_watch.membership.withdraw(claim_watch.partition);
        if channel.status().connected() {
            let closing = channel.close(200, "normal shutdown".into());
            match tokio::time::timeout(CLOSE_TIMEOUT, closing).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => warn!(error = error_chain(&error), "closing a channel"),
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
