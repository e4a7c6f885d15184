//! The names of everything in the broker, all derived from one exchange name. docs/wire.md has the picture.

use lanekeeper_core::layout::{LayoutNumber, PartitionNumber};

/// Exchange type that spreads record keys over partitions. Built into RabbitMQ from 4.3.
pub const HASH_EXCHANGE_TYPE: &str = "x-modulus-hash";

/// The names of one topology.
#[derive(Clone, Debug)]
pub struct Names {
    exchange: String,
}

impl Names {
    /// Names derived from `updates.exchange`.
    #[must_use]
    pub fn new(exchange: &str) -> Self {
        Self { exchange: exchange.to_owned() }
    }

    /// The public exchange: the only name that publishers know.
    #[must_use]
    pub fn public(&self) -> &str {
        &self.exchange
    }

    /// The internal exchange with exactly one binding: to the current layout.
    #[must_use]
    pub fn ingress(&self) -> String {
        format!("{}.ingress", self.exchange)
    }

    /// Takes what finds no binding at the ingress, while the layout changes.
    #[must_use]
    pub fn handoff(&self) -> String {
        format!("{}.handoff", self.exchange)
    }

    /// Exists for a moment: what is published to it goes to the ingress, and comes back if nothing is bound there.
    pub(crate) fn probe(&self) -> String {
        format!("{}.probe", self.exchange)
    }

    /// Is deleted together with the public exchange, by the broker: it shows that somebody has deleted that one.
    pub(crate) fn watch(&self) -> String {
        format!("{}.watch", self.exchange)
    }

    /// The dead-letter queue, and the exchange before it.
    #[must_use]
    pub fn dead(&self) -> String {
        format!("{}.dead", self.exchange)
    }

    /// The stream with the layout documents, of which the last one counts.
    #[must_use]
    pub fn topology(&self) -> String {
        format!("{}.topology", self.exchange)
    }

    /// The exclusive queue that is the lock for changing the layout.
    pub(crate) fn topology_lock(&self) -> String {
        format!("{}.topology.lock", self.exchange)
    }

    /// The stream in which replicas claim partitions.
    #[must_use]
    pub fn members(&self) -> String {
        format!("{}.members", self.exchange)
    }

    /// The queue that takes the answers to one question, for one connection.
    pub(crate) fn answers(&self, question: &str) -> String {
        format!("{}.answers.{question}", self.exchange)
    }

    /// The exchange that doors publish reports of themselves to.
    #[must_use]
    pub fn doors(&self) -> String {
        format!("{}.doors", self.exchange)
    }

    /// The queue that takes the reports of doors for one dispatcher.
    pub(crate) fn door_reports(&self, id: &str) -> String {
        format!("{}.doors.{id}", self.exchange)
    }

    /// The hash exchange of a layout.
    #[must_use]
    pub fn layout(&self, layout: LayoutNumber) -> String {
        format!("{}.l{}", self.exchange, layout.0)
    }

    /// Returns true if this is the name of the hash exchange of a layout, whichever.
    #[must_use]
    pub(crate) fn is_layout(&self, exchange: &str) -> bool {
        let number = exchange.strip_prefix(&self.exchange).and_then(|rest| rest.strip_prefix(".l"));
        number.is_some_and(|number| number.parse::<u32>().is_ok())
    }

    /// The queue of a partition.
    #[must_use]
    pub fn partition(&self, layout: LayoutNumber, partition: PartitionNumber) -> String {
        format!("{}.{}", self.layout(layout), partition)
    }
}
