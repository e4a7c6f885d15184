//! Where updates come from: RabbitMQ, over AMQP 0-9-1. The only room besides `publisher` that knows the client.

mod dead_letters;
mod decode;
mod deliveries;
mod document;
mod error;
mod link;
mod names;
mod removal;
mod topology;

use std::future::Future;
use std::sync::Arc;

pub use dead_letters::DeadLetters;
pub use decode::Decoder;
pub use deliveries::{AmqpDeliveries, AmqpSource};
pub use document::LayoutDocument;
pub use error::{HASH_EXCHANGE_TYPE, SourceError};
pub(crate) use link::chain;
pub use link::{Address, Link};
pub use names::Names;
pub use removal::remove as remove_topology;
pub use topology::ensure as ensure_topology;

use crate::core::acks::Ack;
use crate::core::message::DeliveryTag;
use crate::core::policy::{DeadLetterReason, Malformed};
use crate::core::update::Update;

/// Gives the deliveries of one partition.
pub trait Source: Send + Sync + 'static {
    /// One tenure's deliveries.
    type Deliveries: Deliveries;

    /// Consumes the partition's queue, as soon as the broker lets us; tries for ever.
    fn attach(&self) -> impl Future<Output = Self::Deliveries> + Send;
}

/// What the broker handed over.
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

/// The deliveries of one tenure. Owned by one driver, which is the one place that settles.
pub trait Deliveries: Send + 'static {
    /// The next delivery. Nothing is lost when the future is dropped.
    fn next(&mut self) -> impl Future<Output = Result<Received, Lost>> + Send;

    /// Sends an ack. Done once it is on its way; it can still be lost with the channel.
    fn ack(&mut self, ack: Ack) -> impl Future<Output = Result<(), Lost>> + Send;

    /// The delivery is settled: what was kept for its dead letter can go.
    fn forget(&mut self, delivery: DeliveryTag);

    /// Publishes the delivery to the dead-letter queue. Done once the broker has confirmed it; tries for ever.
    fn dead_letter(
        &self,
        delivery: DeliveryTag,
        reason: DeadLetterReason,
    ) -> impl Future<Output = ()> + Send + 'static;

    /// Gives up the tenure: what is unsettled goes back, in order.
    fn close(self) -> impl Future<Output = ()> + Send;
}
