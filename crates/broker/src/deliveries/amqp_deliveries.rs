//! One partition's channel: deliveries, acks, close. Never a cancel with unsettled deliveries, never a requeue.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicRejectOptions};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tracing::warn;

use super::claim_watch::ClaimWatch;
use super::context::SourceContext;
use super::dead_letter::DeadLetter;
use super::dead_letters::DeadLetters;
use super::decode::Decoder;
use super::redelivery::{content_of, times_taken_back};
use super::unsettled::{UnsettledDeliveries, too_many};
use crate::channel::consumer_channel::ConsumerChannel;
use crate::connection::{ChannelAlterations, WindowExceeded};
use crate::halt::Halt;
use crate::link::ConnectionNumber;
use crate::liveness::LastSeen;
use crate::names::Names;
use crate::reach::StepDowns;
use crate::source::{Deliveries, Lost, Received, SourceEvent};
use crate::topology::{InternalMessage, Witnesses, internal_message};
use lanekeeper_core::acks::Ack;
use lanekeeper_core::delivery_count::DeliveryCountWatch;
use lanekeeper_core::error::error_chain;
use lanekeeper_core::layout::PartitionNumber;
use lanekeeper_core::message::{DeliveryTag, Holder};
use lanekeeper_core::placement::Placement;
use lanekeeper_core::policy::{DeadLetterReason, Malformed};
use lanekeeper_core::tick::Tick;
use lanekeeper_core::update::Update;

/// How long the broker may take to say that a channel is closed. What we said is on its way by then.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// Between the last ack and the close of the channel. Acks sent are not acks done: of 500 up to 467 came back when the
/// channel was closed at once, none after this (RabbitMQ 3.10.8 and 4.0.5, measured).
const SETTLE_GRACE: Duration = Duration::from_millis(100);
/// A broker that is slow to answer is slow to settle, too: it is given so many times the time of an answer.
const ROUND_TRIPS: u32 = 20;
const SETTLE_GRACE_MAX: Duration = Duration::from_secs(3);

/// The deliveries of one channel.
pub struct AmqpDeliveries {
    since: Instant,
    connection: ConnectionNumber,
    claim_watch: ClaimWatch,
    last_seen: watch::Receiver<LastSeen>,
    /// Returned one at a time.
    events: VecDeque<SourceEvent>,
    channel: ConsumerChannel,
    /// What the screen changes in them.
    alterations: ChannelAlterations,
    witnesses: Witnesses,
    halt: Halt,
    decoder: Arc<Decoder>,
    dead_letters: DeadLetters,
    names: Names,
    queue: String,
    placement: Placement,
    partition: PartitionNumber,
    unsettled: UnsettledDeliveries,
    delivery_counts: DeliveryCountWatch,
    step_downs: StepDowns,
    /// The broker has taken back what it had delivered.
    void: bool,
    prefetch: u16,
}

impl AmqpDeliveries {
    /// `since`: when the request to consume was sent on this channel.
    pub(super) fn new(
        context: &SourceContext,
        queue: String,
        (partition, prefetch): (PartitionNumber, u16),
        (channel, alterations): (ConsumerChannel, ChannelAlterations),
        connection: ConnectionNumber,
        since: Instant,
        claim_watch: ClaimWatch,
    ) -> Self {
        let SourceContext {
            liveness,
            witnesses,
            halt,
            names,
            placement,
            dead_letters,
            decoder,
            ack_limits,
            ..
        } = context.clone();
        Self {
            since,
            connection,
            claim_watch,
            last_seen: liveness.watch(),
            events: VecDeque::new(),
            channel,
            alterations,
            witnesses,
            halt,
            decoder,
            dead_letters,
            names,
            queue,
            placement,
            partition,
            unsettled: UnsettledDeliveries::new(usize::from(prefetch), ack_limits),
            delivery_counts: DeliveryCountWatch::default(),
            step_downs: context.reach.watch(),
            void: false,
            prefetch,
        }
    }

    /// Ticks of a channel count from its start.
    fn now(&self) -> Tick {
        Tick::ZERO.after(self.since.elapsed())
    }

    fn instant(&self, tick: Tick) -> Instant {
        self.since + Duration::from_micros(tick.micros())
    }

    async fn send(&mut self, ack: Ack) -> Result<(), Lost> {
        self.delivery_counts.settles();
        let options = BasicAckOptions { multiple: ack.multiple };
        self.channel.channel().basic_ack(ack.tag.0, options).await.map_err(|error| Lost(error_chain(&error)))
    }

    /// Has the broker dead-letter what never reached this process whole, or fits no dead letter of ours.
    async fn send_rejections(&mut self) -> Result<(), Lost> {
        while let Some(delivery) = self.unsettled.next_to_reject() {
            self.delivery_counts.settles();
            let to_the_dead_letter_exchange = BasicRejectOptions { requeue: false };
            #[expect(
                clippy::disallowed_methods,
                reason = "without requeue it changes no order; the broker then moves the message as it came"
            )]
            let rejecting = self.channel.channel().basic_reject(delivery.0, to_the_dead_letter_exchange);
            rejecting.await.map_err(|error| Lost(error_chain(&error)))?;
            self.unsettled.rejected();
        }
        Ok(())
    }

    /// How long the broker takes to answer on this channel, which has all acks sent so far before it by then; bounded.
    async fn round_trip(&self) -> Duration {
        let begun = Instant::now();
        // Of no consequence: the consumer keeps the prefetch that it began with.
        let asking = self.channel.set_prefetch(self.prefetch);
        let _ = timeout(CLOSE_TIMEOUT, asking).await;
        begun.elapsed()
    }

    /// Appends to the events what has changed in the ownership.
    fn look(&mut self) -> Result<(), Lost> {
        if self.last_seen.has_changed().unwrap_or(false)
            && let Some((connection, _)) = *self.last_seen.borrow_and_update()
        {
            // A consumer that was made as its connection ended may never learn of it.
            if connection > self.connection {
                return Err(Lost("its connection is gone".to_owned()));
            }
        }
        self.claim_watch.look(&mut self.events)
    }

    fn received(&mut self, delivery: Option<lapin::Result<Delivery>>) -> Result<SourceEvent, Lost> {
        let delivery = match delivery {
            Some(Ok(delivery)) => delivery,
            Some(Err(error)) => return Err(Lost(error_chain(&error))),
            // Among the reasons: the queue was deleted, or its leader moved (RabbitMQ "consumer cancel notification").
            None => return Err(Lost("the broker cancelled the consumer".to_owned())),
        };
        let tag = DeliveryTag(delivery.delivery_tag);
        let too_many = |WindowExceeded| Lost(too_many(usize::from(self.prefetch)));
        let alteration = self.alterations.take(delivery.delivery_tag).map_err(too_many)?;
        let alteration = alteration.unwrap_or_default();
        if let Some(count) = times_taken_back(delivery.redelivered, &delivery.properties)
            && self.delivery_counts.delivered(count, || content_of(&delivery))
        {
            // Nothing that comes behind it on this channel is looked at.
            self.void = true;
            return Ok(SourceEvent::DeliveriesVoid);
        }
        let now = self.now();
        self.unsettled.received(tag, now).map_err(Lost)?;
        if self.witnesses.recognize(&delivery, self.partition) {
            return Ok(SourceEvent::Witness(tag));
        }
        match internal_message(&delivery, &self.names, &self.queue) {
            Some(InternalMessage::Marker) => return Ok(SourceEvent::Marker(tag)),
            Some(InternalMessage::Stray) => return Ok(SourceEvent::Stray(tag)),
            None => {}
        }
        let Delivery { exchange, routing_key, mut properties, redelivered, .. } = delivery;
        let body = Bytes::from(delivery.data);
        alteration.restore(&mut properties);
        let update = self.decoder.decode(routing_key.as_str(), &properties, body.clone(), &alteration);
        let update = update.and_then(|update| self.placed(exchange.as_str(), update));
        let incomplete = alteration.left_something_out();
        let dead_letter =
            DeadLetter { routing_key, properties, body, originals: alteration.into_originals() };
        if incomplete || (update.is_err() && !dead_letter.fits_a_frame(self.dead_letters.frame_max())) {
            self.unsettled.leave_to_the_broker(tag);
        } else {
            self.unsettled.keep(tag, update.as_deref().ok(), dead_letter);
        }
        Ok(SourceEvent::Received(Received { delivery: tag, redelivered, update }))
    }
}

impl AmqpDeliveries {
    /// I13: an update is dispatched from the partition of its record alone. The default exchange routes by the names of
    /// queues, so what came through it has lost its record key, or never had one.
    fn placed(&self, exchange: &str, update: Arc<Update>) -> Result<Arc<Update>, Malformed> {
        if exchange.is_empty() {
            return Err(Malformed::Misplaced { belongs_to: None });
        }
        match self.placement.elsewhere(&update.record_key, self.partition) {
            Some(belongs_to) => Err(Malformed::Misplaced { belongs_to: Some(belongs_to) }),
            None => Ok(update),
        }
    }
}

impl Deliveries for AmqpDeliveries {
    const NUMBERS_TENURES: bool = true;

    async fn next(&mut self) -> Result<SourceEvent, Lost> {
        loop {
            self.look()?;
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            if self.void || self.halt.is_set() {
                // What comes behind this must not be looked at: the driver is about to close the channel, or the supervisor to stop
                // the process.
                return std::future::pending().await;
            }
            tokio::select! {
                biased;
                delivery = self.channel.next_of(0) => return self.received(delivery),
                Ok(()) = self.last_seen.changed() => self.last_seen.mark_changed(),
                () = self.claim_watch.changed() => {}
                () = self.step_downs.next() => {
                    return Err(Lost("this process gives its partitions to one that reaches more".to_owned()));
                }
            }
        }
    }

    fn claim(&mut self) {
        self.events.retain(|event| !matches!(event, SourceEvent::Claimed { .. }));
        self.claim_watch.claim();
    }

    fn end_claim(&mut self, rest: Duration) {
        self.claim_watch.end(rest);
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

    fn oldest_received_at(&self) -> Option<Instant> {
        self.unsettled.oldest_received_at().map(|at| self.instant(at))
    }

    fn received_at(&self, delivery: DeliveryTag) -> Option<Instant> {
        self.unsettled.received_at(delivery).map(|at| self.instant(at))
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
        self.dead_letters.publish(dead_letter, self.partition, reason)
    }

    async fn leave(mut self, rest: Duration) {
        let mut settled = self.send_rejections().await.is_ok();
        while let Some(ack) = self.unsettled.acks().flush() {
            settled &= self.send(ack).await.is_ok();
        }
        // Published before the channel closes, so that the next owner has read it when it claims.
        let ended = self.claim_watch.end(rest);
        if settled {
            let round_trips = self.round_trip().await * ROUND_TRIPS;
            tokio::time::sleep(round_trips.clamp(SETTLE_GRACE, SETTLE_GRACE_MAX)).await;
        }
        if ended {
            self.claim_watch.end_read_back().await;
        }
        self.close().await;
    }

    async fn close(mut self) {
        self.claim_watch.withdraw();
        if let Err(error) = self.channel.close(CLOSE_TIMEOUT).await {
            let (partition, error) = (self.partition, error_chain(&error));
            warn!(%partition, error, "cannot close the channel of a partition: it ends with its connection");
        }
    }
}
