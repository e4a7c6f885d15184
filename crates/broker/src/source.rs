//! What a driver sees of the broker: a source of deliveries for one partition, and the deliveries of one tenure. Tests put
//! sources of their own in the place of RabbitMQ.

use std::future::Future;
use std::sync::Arc;

use tokio::time::Instant;

use crate::membership::PartitionStatus;
use lanekeeper_core::message::{DeliveryTag, Holder, TenureNumber};
use lanekeeper_core::policy::{DeadLetterReason, Malformed};
use lanekeeper_core::update::Update;

/// Gives the deliveries of one partition.
pub trait Source: Send + Sync + 'static {
    /// One tenure's deliveries.
    type Deliveries: Deliveries;

    /// Consumes the partition's queue, as soon as the broker lets us; tries for ever. [`Gone`]: the layout drains, and the
    /// queue is not there any more.
    fn attach(&self) -> impl Future<Output = Result<Self::Deliveries, Gone>> + Send;

    /// Whether the partition's layout drains.
    fn drains(&self) -> bool;

    /// Tells operators what is held of the partition.
    fn publish_status(&self, status: PartitionStatus);

    /// Has something that carries no update put into the queues, so that whoever owns the partition learns it. Does not
    /// wait for it.
    fn ask_for_delivery(&self);
}

/// What the broker tells the consumer of a partition.
#[derive(Debug)]
pub enum SourceEvent {
    /// It handed something over.
    Received(Received),
    /// It handed over a witness of the layout, which carries no update: there is nothing to do but settle it.
    Witness(DeliveryTag),
    /// It handed over a marker: the layout drains, and this is where it ends. It is never settled.
    Marker,
    /// It answered a request that was sent then, on the connection of these deliveries.
    BrokerSeen(Instant),
    /// Our claim was read back.
    Claimed {
        /// Its number; `None`: the broker takes no publishes, and we go on without. It follows when it takes them again.
        number: Option<TenureNumber>,
        /// The newest claim of another process before it.
        rival_claim: Option<TenureNumber>,
    },
    /// Another process has claimed the partition after us.
    ClaimSuperseded,
    /// A consumer with a higher priority has attached, and the broker is to give it the partition.
    Preempted,
    /// Somebody wants to know what is held, in a question of this number.
    StatusRequested(u64),
}

/// An update or something else that was in the queue.
#[derive(Debug)]
pub struct Received {
    /// Number within the tenure, from 1 without gaps.
    pub delivery: DeliveryTag,
    /// Perhaps seen before; not set: certainly never delivered.
    pub redelivered: bool,
    /// The update, or what is wrong with it.
    pub update: Result<Arc<Update>, Malformed>,
}

/// The tenure is over: the channel is gone, for this reason. What was not settled will be delivered again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("channel lost: {0}")]
pub struct Lost(pub String);

/// A partition's queue is not there any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

/// The deliveries of one tenure. Owned by one driver, which is the one place that settles.
pub trait Deliveries: Send + 'static {
    /// What comes next. Nothing is lost when the future is dropped.
    fn next(&mut self) -> impl Future<Output = Result<SourceEvent, Lost>> + Send;

    /// When the request was sent that these deliveries are the answer to.
    fn since(&self) -> Instant;

    /// Asks for the partition; [`SourceEvent::Claimed`] follows, and is told of no earlier claim any more.
    fn claim(&mut self);

    /// The delivery is done with, whatever it was: its ack goes out with the next [`Self::send_acks`] for which it is due.
    ///
    /// # Panics
    /// If the delivery is not one of these, or was settled before.
    fn settle(&mut self, delivery: DeliveryTag);

    /// Sends the acks that are due. Done once they are on their way; they can still be lost with the channel. To be waited
    /// for to its end.
    fn send_acks(&mut self) -> impl Future<Output = Result<(), Lost>> + Send;

    /// When [`Self::send_acks`] has something to send though nothing more is settled.
    fn next_ack_at(&mut self) -> Option<Instant>;

    /// When the delivery came that is unsettled for longest, if there is one.
    fn oldest_received_at(&self) -> Option<Instant>;

    /// When a delivery came that is not settled; `None` for any other.
    fn received_at(&self, delivery: DeliveryTag) -> Option<Instant>;

    /// Returns true if the broker has handed over anything.
    fn has_begun(&self) -> bool;

    /// Publishes what the broker or the ledger holds to the dead-letter queue; `None`: it is no update. Done once the
    /// broker has confirmed it; tries for ever.
    fn dead_letter(
        &self,
        holder: Holder,
        update: Option<&Update>,
        reason: DeadLetterReason,
    ) -> impl Future<Output = ()> + Send + 'static;

    /// Gives up the tenure: sends all acks, gives the broker the time that it needs for them, and closes. What is unsettled
    /// goes back, in order.
    fn leave(self) -> impl Future<Output = ()> + Send;

    /// Closes at once, acked or not: what the broker does not know to be settled comes again.
    fn close(self) -> impl Future<Output = ()> + Send;
}
