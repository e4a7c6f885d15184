//! Where updates come from: RabbitMQ, over AMQP 0-9-1. The only room besides `publisher` that knows the client.

mod backoff;
mod channel;
pub mod connection;
mod deliveries;
mod error;
mod halt;
mod inspection;
mod link;
mod liveness;
mod log_on_change;
mod membership;
mod names;
mod operator;
pub mod publisher;
mod settings;
mod source;
mod topology;

pub use connection::{Address, ConnectError, Connection};
pub use deliveries::{AmqpDeliveries, AmqpSource, DeadLetters, Decoder, SourceContext};
pub use error::SourceError;
pub use halt::Halt;
pub use inspection::{Inspection, Object, ObjectState, Publishing, Role, inspect};
pub use link::Link;
pub use liveness::LivenessProbe;
pub use log_on_change::LogOnChange;
pub use membership::{Membership, PartitionStatus, STATUS_TIMEOUT, StatusAnswer, StatusAnswers};
pub use names::{HASH_EXCHANGE_TYPE, Names};
pub use operator::Operator;
pub use settings::ConnectionSettings;
pub use source::{Deliveries, Gone, Lost, Received, Source, SourceEvent};
pub use topology::{
    AutoApply, DELIVERY_LIMIT, Depth, Follower, LayoutDocument, LayoutReconciler, Markers, Obstacle,
    Obstacles, OwnLedger, Reconciled, Stuck, Witnesses, definitions, ensure as ensure_topology,
    ensure_ledger, remove as remove_topology,
};
