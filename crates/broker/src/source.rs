//! What a driver sees of the broker: a source of deliveries for one partition, and the deliveries of one tenure. Tests put
//! sources of their own in the place of RabbitMQ.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::membership::PartitionStatus;
use lanekeeper_core::message::{DeliveryTag, Holder, TenureNumber};
use lanekeeper_core::policy::{DeadLetterReason, Malformed};
use lanekeeper_core::tick::Tick;
use lanekeeper_core::update::Update;

/// A partition's queue, as a driver sees it.
pub trait Source: Send + Sync + 'static {
    /// One tenure's deliveries.
    type Deliveries: Deliveries;

    /// Consumes the partition's queue, and retries until the broker allows it.
    ///
    /// # Errors
    /// [`Gone`]: the layout drains, and the queue was deleted.
    fn attach(&self) -> impl Future<Output = Result<Self::Deliveries, Gone>> + Send;

    /// Returns true if the partition's layout drains.
    fn drains(&self) -> bool;

    /// Publishes for operators what is held of the partition. Does not wait for it.
    fn publish_status(&self, status: PartitionStatus);

    /// Says to the other replicas that a tenure whose channel was lost is over, and that for so long requests can still be at
    /// work, of it or of a tenure that it had waited for. Does not wait for it.
    fn publish_end(&self, number: TenureNumber, rest: Duration);

    /// Has witnesses published to all queues of the layout: the owner of a partition knows that it is one by the next
    /// delivery, and there may be no update. Does not wait for it.
    fn ask_for_delivery(&self);
}

/// What the consumer of a partition gets from the broker and from other replicas.
#[derive(Debug)]
pub enum SourceEvent {
    /// The broker delivered an update, or something malformed.
    Received(Received),
    /// The broker delivered a witness of the layout, which carries no update: it is only to be settled.
    Witness(DeliveryTag),
    /// The broker delivered a marker: if the layout drains, this is the end of its queue, and it is never settled.
    Marker(DeliveryTag),
    /// The broker delivered a marker or a witness of another queue or layout, which somebody has put here. It carries no
    /// update: it is only to be settled.
    Stray(DeliveryTag),
    /// A note of this process was read back: requests may leave until then. Claims of other processes that stand before the
    /// note have come before this.
    LeaseRenewed(Tick),
    /// The claim of this tenure was read back.
    Claimed {
        /// Its number; `None`: the broker takes no publishes, and the tenure goes on without a number. The number follows
        /// once the broker takes publishes again.
        number: Option<TenureNumber>,
        /// The newest tenure of another process before it.
        rival_claim: Option<TenureNumber>,
        /// Until when requests of tenures before it can be at work; `None`: none is.
        wait_until: Option<Tick>,
    },
    /// Since the last claim of this process an alarm has kept claims from being published: another process may have owned
    /// the partition without a trace. Comes before the claim.
    ClaimsKeptBack,
    /// The wait that came with the claim has changed.
    TakeOverWait(Option<Tick>),
    /// Another process has claimed the partition after this one.
    ClaimSuperseded,
    /// The broker has taken back what it delivered on this channel, though the channel lives: it delivers it again.
    DeliveriesVoid,
    /// A consumer with a higher priority has attached, and the broker is to give it the partition.
    Preempted,
    /// An operator asks what is held, in the request of this number.
    StatusRequested(u64),
}

/// An update, or something malformed in its place.
#[derive(Debug)]
pub struct Received {
    /// Number within the tenure, from 1 without gaps.
    pub delivery: DeliveryTag,
    /// True: perhaps delivered before. False: certainly not.
    pub redelivered: bool,
    /// The update, or what is wrong with it.
    pub update: Result<Arc<Update>, Malformed>,
}

/// The tenure is over: the channel was lost, for this reason. What was not settled will be delivered again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("channel lost: {0}")]
pub struct Lost(pub String);

/// A partition's queue was deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

/// The deliveries of one tenure. Owned by one driver, which is the one place that settles.
pub trait Deliveries: Send + 'static {
    /// Claims are numbered over all processes, unless the broker takes no publishes. False: there are no such numbers.
    const NUMBERS_TENURES: bool;

    /// The next event. Nothing is lost if the future is dropped.
    ///
    /// # Errors
    /// The channel was lost.
    fn next(&mut self) -> impl Future<Output = Result<SourceEvent, Lost>> + Send;

    /// Claims the partition. [`SourceEvent::Claimed`] follows, and none of an earlier claim.
    fn claim(&mut self);

    /// The claim is over, while nothing is held: another process is to have the partition. `rest`: as for [`Self::leave`].
    fn end_claim(&mut self, rest: Duration);

    /// Settles a delivery, whatever it was: its ack goes out with the next [`Self::send_acks`] for which it is due.
    ///
    /// # Panics
    /// If the delivery is not one of these, or was settled before.
    fn settle(&mut self, delivery: DeliveryTag);

    /// Sends the acks that are due. Returns once they are sent; they can still be lost with the channel. The future must not
    /// be dropped before it is done.
    ///
    /// # Errors
    /// The channel was lost.
    fn send_acks(&mut self) -> impl Future<Output = Result<(), Lost>> + Send;

    /// When [`Self::send_acks`] has something to send even if nothing more is settled.
    fn next_ack_at(&mut self) -> Option<Instant>;

    /// When the oldest unsettled delivery came, if there is one.
    fn oldest_received_at(&self) -> Option<Instant>;

    /// When an unsettled delivery came; `None` for any other.
    fn received_at(&self, delivery: DeliveryTag) -> Option<Instant>;

    /// Returns true if the broker has delivered anything.
    fn has_begun(&self) -> bool;

    /// Publishes what the broker or the ledger holds to the dead-letter queue; `None`: it is no update. Returns once the
    /// broker has confirmed it, and retries until then.
    fn dead_letter(
        &self,
        holder: Holder,
        update: Option<&Update>,
        reason: DeadLetterReason,
    ) -> impl Future<Output = ()> + Send + 'static;

    /// Ends the tenure: sends all acks, gives the broker the time that it needs for them, says to the other replicas that it
    /// is over, and closes the channel. What is unsettled goes back to the queue, in order. `rest`: for so long requests can
    /// still be at work, of this tenure or of one that it had waited for.
    fn leave(self, rest: Duration) -> impl Future<Output = ()> + Send;

    /// Closes the channel at once, without acks: what the broker does not know to be settled is delivered again.
    fn close(self) -> impl Future<Output = ()> + Send;
}
